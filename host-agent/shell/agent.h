/* agent.h — one agent: its core between a journal, a runtime and a link. The daemon has one of it, the simulated fleet thousands. Loop thread only. */
#ifndef HA_SHELL_AGENT_H
#define HA_SHELL_AGENT_H

#include "core/agent_core.h"
#include "shell/link.h"

struct ha_agent;

/* Shared by all agents of a process. */
struct ha_env {
    uv_loop_t *loop;
    struct ha_timers *timers;
    struct hp_rng rng;
    struct ha_effects fx; /* of the step under way */
    bool stepping;
};

int ha_env_init(struct ha_env *env, uv_loop_t *loop, uint64_t seed, struct hp_error *e) HP_MUST_CHECK;
/* After all agents are closed. */
void ha_env_close(struct ha_env *env);

struct ha_agent_options {
    struct ha_core_options core;
    struct ha_link_options link; /* rng and timers are filled in */
    const Harpoon__Internal__V1__AgentHello
        *self;                  /* zone, rack, labels, allocatable, facts; borrowed for the agent's life */
    struct ha_journal *journal; /* borrowed; its callback is set */
    struct ha_runtime *runtime; /* borrowed; its callback is set */
    /* The router wants metrics: answer with ha_agent_send_metrics, now or soon. May be NULL. */
    void (*on_metrics_due)(void *user);
    /* The agent cannot go on: the journal failed, or memory is out. Stop the process, or this agent; a new start goes on from the journal. */
    void (*on_failed)(void *user, const struct hp_error *e);
    void (*on_link)(void *user, bool up); /* may be NULL */
    /* Before a command is taken: the time to look whether there is room for it, and to say so with ha_agent_set_room. May be NULL. */
    void (*before_command)(void *user);
    /* Why volumes that the command asks for in storage classes cannot be made; NULL: they can. Valid until the next call. May be NULL. */
    const char *(*storage_lacks)(void *user, const Harpoon__Internal__V1__Command *cmd);
    /* While closing: the runtime shall call back all jobs under way now, or soon, with whatever result. */
    void (*cancel_jobs)(void *user);
    void *user;
};

/* `image` is taken. `found` containers are those on the host (see HA_EV_FOUND); names and states borrowed for the call. */
struct ha_found {
    const char *uid, *name;
    struct ha_rt_state state;
};
int ha_agent_new(struct ha_env *env, const struct ha_agent_options *o, struct ha_image *image,
                 const struct ha_found *found, size_t found_count, struct ha_agent **ret,
                 struct hp_error *e) HP_MUST_CHECK;

const struct ha_core *ha_agent_core(const struct ha_agent *a);
bool ha_agent_is_up(const struct ha_agent *a);
/* Figure and limit of each overloaded resource, by enum hp_resource; NULL: it is not. */
void ha_agent_set_overload(struct ha_agent *a, const char *const texts[HP_RESOURCE_COUNT]);
/* `no_room`: why nothing that needs room on the disk may be begun; NULL: it may. */
void ha_agent_set_room(struct ha_agent *a, const char *no_room);
/* Dropped when no router is there. */
void ha_agent_send_metrics(struct ha_agent *a, Harpoon__Internal__V1__AgentMetrics *metrics);
/* Leaves the router, lets jobs under way end for at most `wait_ms`, then has the others cancelled, frees the agent and calls closed_cb; journal and runtime may be
 * closed then. */
void ha_agent_close(struct ha_agent *a, const char *reason, uint64_t wait_ms, void (*closed_cb)(void *user));

#endif
