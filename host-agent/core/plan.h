/* plan.h — the least change from what a container is to what a command wants: at most three runtime jobs. */
#ifndef HA_CORE_PLAN_H
#define HA_CORE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime.h"

enum { HA_PLAN_JOBS_MAX = 3 };

struct ha_plan {
    uint8_t count, at;                       /* jobs in all; the next one */
    enum ha_job_kind jobs[HA_PLAN_JOBS_MAX]; /* in order */
    bool replacing;                          /* the REMOVE in it is followed by a CREATE */
    bool start;                              /* the CREATE in it also starts */
};

/* Also right after a crash in the middle: what is observed decides, not what was attempted. */
struct ha_plan_input {
    bool remove; /* REMOVE; otherwise ENSURE */
    const Harpoon__V1__ContainerSpec
        *applied; /* NULL: nothing was ever applied, or the old container of a replacement is gone */
    const Harpoon__V1__ContainerSpec *wanted; /* NULL in REMOVE */
    int64_t applied_serial, wanted_serial;    /* restart_serial */
    bool exists, running;                     /* observed */
    bool complete;                            /* what exists was made to the end */
    bool ended;                               /* it ran once and ended */
    bool retry;                               /* the change before this one failed */
    bool other_process; /* what runs is not what the journal last saw: a restart happened already */
};

/* HP_ENOMEM. */
int ha_plan_make(const struct ha_plan_input *in, struct ha_plan *ret) HP_MUST_CHECK;

/* True when the process shall run: desired_state is not STOPPED. */
bool ha_spec_wants_run(const Harpoon__V1__ContainerSpec *spec);
/* HP_ENOMEM. *ret: the two can be the same container, changed in place. */
int ha_spec_same_core(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b,
                      bool *ret) HP_MUST_CHECK;
/* The memory limit; 0: none. `spec` may be NULL. */
int64_t ha_spec_memory_bytes(const Harpoon__V1__ContainerSpec *spec);
/* The first 8 bytes of SHA-256 over what cannot change in place; never 0. HP_ENOMEM. */
int ha_spec_digest(const Harpoon__V1__ContainerSpec *spec, uint64_t *ret) HP_MUST_CHECK;
bool ha_spec_same_resources(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b);

#endif
