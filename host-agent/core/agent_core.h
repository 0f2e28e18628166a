/* agent_core.h — the agent's decisions: events with the time in them go in, effects come out. No I/O, no clock, no randomness.
 *
 * Happy path of a command: COMMAND → effects: writes (INTENT) → SYNCED → send "journalled", job → JOB_DONE → writes (DONE and the result) → SYNCED → send the
 * result → CONFIRMED → write (forget the result). Failures: a crash anywhere leaves either no trace of the command, or its intent, from which START goes on after
 * an inspection; the link may go at any time: results stay until confirmed and are sent again by LINK_UP. */
#ifndef HA_CORE_AGENT_CORE_H
#define HA_CORE_AGENT_CORE_H

#include "core/journal.h"
#include "core/runtime.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "wire/load.h"

struct ha_core;

struct ha_core_options {
    const char *region, *host; /* short names; copied */
    int64_t memory_bytes;      /* what containers may have in all; 0: not enforced */
    unsigned network_modes;    /* offered: bits 1 << NetworkMode; 0: not enforced */
    int32_t network_functions; /* containers of mode SRIOV at a time */
    uint64_t seed;             /* of the hash of uids */
};

enum ha_event_kind {
    HA_EV_FOUND,             /* before START, for each container on the host: unknown ones are quarantined */
    HA_EV_START,             /* once: inspects what the journal has, then goes on with it */
    HA_EV_SYNCED,            /* the journal has everything up to seq */
    HA_EV_JOB_DONE,          /* one of our jobs ended */
    HA_EV_EXITED,            /* a process ended by itself */
    HA_EV_TIMER,             /* ha_core_deadline_ms has passed; may come early */
    HA_EV_SESSION_WANTED,    /* a connection is open: the next hello needs a number */
    HA_EV_LINK_UP,           /* a router said welcome: it gets everything from now on */
    HA_EV_LINK_DOWN,         /* the router that was welcome last is gone */
    HA_EV_COMMAND,           /* from a router */
    HA_EV_CONFIRMED,         /* reports that the broker has */
    HA_EV_INVENTORY_REQUEST, /* from a router */
    HA_EV_ROOM,              /* whether what needs room on the disk may be begun */
    HA_EV_OVERLOAD,          /* which resources are overloaded: nothing new that needs them is begun */
};

/* What is behind pointers is borrowed during the step. */
struct ha_event {
    enum ha_event_kind kind;
    uint64_t now_ms; /* monotonic, never falling */
    int64_t wall_ns; /* for stamps, and for session numbers */
    union {
        struct {
            const char *uid, *name;
            const struct ha_rt_state *state;
        } found;
        uint64_t synced_seq;
        const struct ha_job *job;
        struct {
            const char *uid;
            const struct ha_rt_state *state;
        } exited;
        const Harpoon__Internal__V1__Command *command;
        const Harpoon__Internal__V1__ReportsConfirmed *confirmed;
        int64_t inventory_request_id;
        const char *no_room;                     /* ROOM: why not; NULL: it may */
        const char *overload[HP_RESOURCE_COUNT]; /* OVERLOAD: figure and limit; NULL: it is not overloaded */
    };
    bool inventory_specs; /* INVENTORY_REQUEST: with specs */
    const char *
        no_storage; /* COMMAND: why a new container cannot have the volumes that it asks for in storage classes; NULL: it can */
};

enum ha_effect_kind {
    HA_EF_JOB,     /* submit to the runtime */
    HA_EF_SESSION, /* the number for the hello that was wanted; durable */
    HA_EF_SEND,    /* a packed AgentMessage for the router; drop it when there is none */
};

/* Borrowed from the core until its next step. */
struct ha_effect {
    enum ha_effect_kind kind;
    struct {
        enum ha_job_kind kind;
        const char *uid, *container;
        int64_t generation;
        struct ha_bytes spec; /* packed; empty: none */
        bool start, replacing;
        uint64_t deadline_ms; /* 0: the runtime's own */
    } job;
    int64_t session;
    struct ha_bytes send;
    bool owned; /* send.data belongs to the effect */
};

/* One step's output. The writes come first: they go to the journal as one batch under `write_seq` before anything else is done. */
struct ha_effects {
    uint64_t write_seq; /* valid when write_count > 0 */
    struct ha_write *writes;
    size_t write_count, write_cap;
    struct ha_effect *effects;
    size_t count, cap;
};

/* Empties and frees what steps have filled; zero-initialised ones need nothing. */
void ha_effects_clear(struct ha_effects *fx);
void ha_effects_done(struct ha_effects *fx);

/* Takes what is in the image (emptied also on failure). HP_ENOMEM, HP_ECORRUPT (names the record). */
int ha_core_new(const struct ha_core_options *o, struct ha_image *image, struct ha_core **ret,
                struct hp_error *e) HP_MUST_CHECK;
void ha_core_free(struct ha_core *core);

/* Clears *fx and fills it. HP_ENOMEM: the core is not to be used any more (what is durable is right; start anew). Input from peers never fails a step: it is answered. */
int ha_core_step(struct ha_core *core, const struct ha_event *ev, struct ha_effects *fx) HP_MUST_CHECK;

/* Monotonic time at which TIMER is wanted; UINT64_MAX: never. */
uint64_t ha_core_deadline_ms(const struct ha_core *core);
/* What the broker has confirmed, for the hello. */
void ha_core_digest(const struct ha_core *core, int32_t *ret_count, uint64_t *ret_digest);
/* True when nothing is under way: no job, no unsynced write. Containers may be waiting for timers. */
bool ha_core_idle(const struct ha_core *core);

/* For metrics. */
struct ha_core_stats {
    int32_t containers, running, quarantined, tombstones, reports;
    int64_t memory_bytes_claimed;
    uint64_t commands, dropped, stale, refused, failed, restarts; /* since start */
};
void ha_core_stats(const struct ha_core *core, struct ha_core_stats *ret);
/* Calls cb for each container that has a process; used to sample metrics. */
void ha_core_each_running(const struct ha_core *core, void (*cb)(void *user, const char *uid, int64_t pid), void *user);

#endif
