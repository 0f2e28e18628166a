/* sim_ground.h — the simulated machines: what containers they have, apart from the agents on them, and the record of what was done to them, from which they are rebuilt. The form of the
 * record is in tests/lib/truth.py. */
#ifndef HA_FLEET_SIM_SIM_GROUND_H
#define HA_FLEET_SIM_SIM_GROUND_H

#include "core/journal.h"
#include "core/runtime.h"
#include "shell/timers.h"

enum { SIM_MACHINES_MAX = 100000 };

struct sim_container {
    struct sim_container *next;
    void *owner;                /* whoever works on the machine now */
    struct ha_timer exit_timer; /* the owner's */
    char uid[HA_UID_MAX + 1];
    char *name;                            /* full resource name */
    int64_t pid, cpu_millis, memory_bytes; /* pid 0: not running */
    int64_t generation, start_wall_ns, finish_wall_ns;
    uint64_t spec_digest;
    int32_t exit_code;
    bool complete; /* made to the end */
};

struct sim_machine {
    char *host;
    struct sim_container *containers;
};

struct sim_ground;

/* With a `log`: rebuilds the machines from it, and goes on with it; HP_ECORRUPT names the line that makes no sense. NULL: empty machines, and no record. */
int sim_ground_open(const char *log, struct sim_ground **ret, struct hp_error *e) HP_MUST_CHECK;
void sim_ground_close(struct sim_ground *g);
/* The machine called `host`, new when there was none; NULL: out of memory. */
struct sim_machine *sim_ground_machine(struct sim_ground *g, const char *host);
/* NULL: there is none. */
struct sim_container *sim_machine_find(const struct sim_machine *m, const char *uid);
/* Adds an empty container; NULL: out of memory. `name` may be NULL. */
struct sim_container *sim_machine_add(struct sim_machine *m, const char *uid, const char *name);
void sim_machine_drop(struct sim_machine *m, struct sim_container *c);
/* Never given twice, not even after a restart. */
int64_t sim_ground_pid(struct sim_ground *g);

/* The record. Without one these do nothing. When it cannot be written the program ends, for nobody could tell the truth any more. */
void sim_ground_boot(struct sim_ground *g, int64_t hosts);
/* Before a job; gives its number for the end, 0 for a job that changes nothing. */
uint64_t sim_ground_begin(struct sim_ground *g, const struct sim_machine *m, const struct ha_job *job);
/* After it, with what there is now. */
void sim_ground_end(struct sim_ground *g, const struct sim_machine *m, uint64_t number, const struct ha_job *job);
void sim_ground_exit(struct sim_ground *g, const struct sim_machine *m, const struct sim_container *c, int64_t pid);
/* All containers, into a file that appears whole. */
int sim_ground_dump(const struct sim_ground *g, const char *path, struct hp_error *e) HP_MUST_CHECK;

#endif
