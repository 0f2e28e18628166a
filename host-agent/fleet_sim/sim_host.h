/* sim_host.h — one simulated host: a runtime without containers, a journal in memory, in a file with the others, or the real one, and the real agent on top. */
#ifndef HA_FLEET_SIM_SIM_HOST_H
#define HA_FLEET_SIM_SIM_HOST_H

#include "fleet_sim/sim_ground.h"
#include "fleet_sim/sim_journal.h"
#include "shell/agent.h"

/* What all hosts of a fleet have in common. Loop thread only. */
struct sim_fleet {
    struct ha_env env;
    uint64_t create_ms;    /* a create takes so long; other jobs a quarter of it */
    unsigned fail_percent; /* of creates and starts */
    uint64_t exit_mean_ms; /* a process ends by itself after so long on average; 0: never */
    int64_t cpu_millis, memory_bytes;
    const char *journals;        /* directory of the agents' journals; NULL: in memory */
    struct sim_ground *ground;   /* the machines */
    struct sim_journal *journal; /* of all hosts, in one file; NULL: in memory, or as `journals` says */
    struct sim_host *dirty;      /* journals with unconfirmed writes */
    struct sim_host *flushing;   /* with writes on their way to the file */
    uv_idle_t idle;              /* active while there are some */
    int attached, closed, failed;
    uint64_t creates, removes, exits;        /* since start */
    void (*changed_cb)(struct sim_fleet *f); /* a host attached, detached or closed */
};

struct sim_host;

/* `self` and what is in `link` are borrowed. */
int sim_host_new(struct sim_fleet *f, const char *region, const char *name,
                 const Harpoon__Internal__V1__AgentHello *self, const struct ha_link_options *link,
                 struct sim_host **ret, struct hp_error *e) HP_MUST_CHECK;
/* Counts in fleet->closed, then frees. */
void sim_host_close(struct sim_host *h);

/* `log`: the machines' record (sim_ground.h), or NULL. */
int sim_fleet_init(struct sim_fleet *f, uv_loop_t *loop, uint64_t seed, const char *log,
                   struct hp_error *e) HP_MUST_CHECK;
void sim_fleet_close(struct sim_fleet *f);

#endif
