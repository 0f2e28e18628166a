/* agent_model.h — a host in memory for tests of the agent's core: a journal that forgets what was not synced, a runtime that counts, and a trace. */
#ifndef TESTS_LIB_AGENT_MODEL_H
#define TESTS_LIB_AGENT_MODEL_H

#include "base/rng.h"
#include "core/agent_core.h"
#include "lib/journal_model.h"

enum { AM_JOBS_MAX = 64, AM_CONTAINERS_MAX = 64, AM_CALLS_MAX = 4096 };

/* What is really on the host. */
struct am_container {
    char uid[HA_UID_MAX + 1];
    bool exists, running;
    int64_t generation; /* that made it */
    uint64_t spec_digest;
    int64_t pid, ticks;
    int32_t exit_code;
    bool ever_ran, finished;
    int64_t memory_bytes;
};

struct am_job {
    struct ha_job job;
    char uid[HA_UID_MAX + 1], container[256];
    Harpoon__V1__ContainerSpec *spec;
    bool executed; /* took effect; its end is not told yet */
};

/* One effect on the host: what (uid, generation, verb) was done. */
struct am_call {
    char uid[HA_UID_MAX + 1];
    int64_t generation;
    enum ha_job_kind kind;
};

struct agent_model {
    struct ha_core *core; /* NULL: crashed */
    struct ha_effects fx;
    uint64_t now_ms;
    int64_t memory_max;
    unsigned network_modes; /* 0: not enforced */
    int32_t network_functions;
    const char *no_storage; /* see am_storage */
    struct journal_model journal;
    /* Runtime. */
    struct am_container containers[AM_CONTAINERS_MAX];
    size_t container_count;
    struct am_job *jobs[AM_JOBS_MAX];
    size_t job_count;
    int64_t next_pid;
    int fail_next; /* HP_E… for the next job that changes something */
    struct am_call calls[AM_CALLS_MAX];
    size_t call_count;
    /* What was sent. */
    int64_t session;
    int64_t unconfirmed[512];
    size_t unconfirmed_count;
    void (*enter)(void),
        (*leave)(void); /* around each call of the core, so that its allocations can be made to fail; NULL none */
    bool over;          /* the core ran out of memory: nothing reaches it any more; call am_crash and am_boot */
    char trace[65536];
    size_t trace_len;
};

void am_init(struct agent_model *m);
void am_done(struct agent_model *m);
/* Starts a core from what is durable; containers that the journal lacks are found. */
void am_boot(struct agent_model *m);
/* Loses the core, unsynced writes, and jobs that did not take effect yet. */
void am_crash(struct agent_model *m);

void am_command(struct agent_model *m, const Harpoon__Internal__V1__Command *cmd);
/* Fills a small ENSURE: image "oci:/images:IMAGE", memory, running. The spec is static inside `ret`. */
struct am_ensure {
    Harpoon__Internal__V1__Command cmd;
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources resources;
    Harpoon__V1__RestartPolicy policy;
    Harpoon__V1__HealthCheck health;
    Harpoon__V1__TcpProbe tcp;
    char image[64], container[128], uid[HA_UID_MAX + 1], operation[64];
};
void am_ensure_init(struct am_ensure *e, const char *uid, int64_t generation, const char *image);
void am_ensure(struct agent_model *m, const char *uid, int64_t generation, const char *image, int64_t memory_bytes);
void am_remove(struct agent_model *m, const char *uid, int64_t generation);
void am_verb(struct agent_model *m, const char *uid, int64_t generation, Harpoon__Internal__V1__CommandVerb verb,
             int64_t epoch);

/* Makes everything written so far durable. */
void am_sync(struct agent_model *m);
/* Of what was written and is not durable yet, the first step's writes only. */
void am_sync_first(struct agent_model *m);
/* The i-th job takes effect; then its end is told. */
void am_job_execute(struct agent_model *m, size_t i);
void am_job_finish(struct agent_model *m, size_t i);
/* Runs everything (sync, jobs) until nothing moves. */
void am_settle(struct agent_model *m);
/* The process ends by itself. */
void am_exit(struct agent_model *m, const char *uid, int32_t exit_code, bool oom);
void am_link(struct agent_model *m, bool up);
void am_confirm_all(struct agent_model *m);
void am_confirm(struct agent_model *m, const Harpoon__Internal__V1__ReportsConfirmed *pb);
/* Time passes; the timer fires when it is due. */
void am_advance(struct agent_model *m, uint64_t ms);
/* `text`: figure and limit; NULL: it is not overloaded. */
void am_overload(struct agent_model *m, enum hp_resource r, const char *text);
/* `no_room`: why nothing that needs room on the disk may be begun; NULL: it may. */
void am_room(struct agent_model *m, const char *no_room);
/* The same of what commands from now on ask for in storage classes. */
void am_storage(struct agent_model *m, const char *no_storage);
void am_inventory(struct agent_model *m, bool specs);
struct am_container *am_find(struct agent_model *m, const char *uid);
int am_calls(const struct agent_model *m, const char *uid, int64_t generation, enum ha_job_kind kind);

/* Asserts that the trace since the last call is `expected` (one line a fact) and clears it. */
void am_expect(struct agent_model *m, const char *expected);
void am_forget_trace(struct agent_model *m);

#endif
