/* agent_private.h — the inside of the agent's core, shared by its files only. */
#ifndef HA_CORE_AGENT_PRIVATE_H
#define HA_CORE_AGENT_PRIVATE_H

#include "base/map.h"
#include "core/agent_core.h"
#include "core/plan.h"

enum {
    HA_IN_FLIGHT_MAX = 256, /* reports sent and not confirmed; the next follows a confirmation */
    HA_INVENTORY_PAGE = 200,
    HA_INVENTORY_BYTES = 64 << 10, /* of specs in a page; more go into the next one */
    HA_INVENTORY_SPEC_MAX =
        512 << 10, /* a longer spec is left out: the page, with the longest texts, must fit a frame */
    HA_INSPECT_RETRY_MS = 1000,
    HA_REPORT_ID_BLOCK = 1000, /* ids are reserved in the journal in blocks */
};

/* Life of a container on this host. `job` tells what the runtime is doing; PROBE may run in RUNNING.
 *
 *              ┌──────────────────────────── command ─────────────────────────────┐
 *   NEW ──▶ INTENT ──synced──▶ ACTING ──done──▶ RUNNING ──exit──▶ BACKOFF ──▶ RESTARTING ──▶ RUNNING …
 *    │         ▲                 │  └──▶ STOPPED   └──▶ STOPPED, FAILED (not restarted); RESTARTING (unhealthy)
 *    │         └─ old one gone ──┤  └──▶ FAILED
 *    │            (replacing)    └─────▶ GONE (a tombstone remains)
 *    ├──▶ INSPECTING (at start) ──▶ ACTING (intent found), or whatever is there
 *    └──▶ QUARANTINED (unknown) */
enum ha_state {
    HA_S_NEW,
    HA_S_INSPECTING,
    HA_S_INTENT,
    HA_S_ACTING,
    HA_S_RUNNING,
    HA_S_STOPPED,
    HA_S_BACKOFF,
    HA_S_RESTARTING,
    HA_S_FAILED,
    HA_S_QUARANTINED,
    HA_S_GONE,
    HA_S_COUNT,
};

/* What the applied spec says, ready for use. */
enum { HA_LIMITS = 9 }; /* Resources, in field order */
struct ha_applied {
    int64_t limits[HA_LIMITS];
    int32_t network_mode; /* 0: there is no spec */
    bool wants_run;
    int32_t restart_mode, restarts_max; /* RestartMode, resolved; 0: no limit */
    uint32_t backoff_initial_ms, backoff_max_ms;
    bool probed, restart_when_unhealthy;
    uint32_t probe_interval_ms, probe_timeout_ms, probe_start_ms;
    int32_t probe_failures_max;
};
enum { HA_LIMIT_CPU = 0, HA_LIMIT_MEMORY = 1 }; /* index of cpu_millis and memory_bytes in limits */

struct ha_container {
    struct ha_record r; /* what the journal has, or is about to get */
    enum ha_state state;
    int8_t job;               /* enum ha_job_kind under way; -1 none */
    bool exists;              /* observed: there is something on the host */
    bool complete;            /* observed: and it was made to the end */
    bool failing;             /* ACTING, RESTARTING: a job failed; an INSPECT finds out what is left */
    bool exit_pending;        /* the process ended during a job */
    int64_t found_generation; /* FOUND: what the runtime says it made; 0 unknown */
    uint64_t found_digest;
    uint64_t intent_seq; /* INTENT: goes on when the journal has this */
    int64_t intent_memory_bytes;
    int32_t intent_network_mode; /* 0: none */
    struct ha_plan plan;
    int32_t fail_status; /* failing: HP_E… */
    char *fail_message;  /* the same, for people */
    struct ha_applied a;
    int32_t backoff_count;  /* restarts in a row */
    int32_t probe_failures; /* in a row */
    uint64_t running_since_ms;
    int64_t seen_pid, seen_ticks;           /* the process that running_since_ms and the health belong to */
    uint64_t timer_ms;                      /* UINT64_MAX: none; BACKOFF, RUNNING (probe), INSPECTING (again) */
    Harpoon__Internal__V1__Command *queued; /* heap; the latest command that waits for the job under way */
    struct ha_rt_state *exit;               /* heap; of exit_pending */
    uint64_t known_hash;                    /* part in the digest; 0 when it does not count */
    int64_t known_report_id;                /* the confirmed report that it comes from */
    struct ha_container *dead_next;
};

struct ha_grave { /* a tombstone */
    struct ha_tombstone t;
    uint64_t known_hash;
};

enum { HA_REFUSALS_MAX = 1024 };

/* A create that this agent has not taken, in this life of it: a late repeat is not taken either, for the scheduler looks for another host as soon as it hears. Its removal follows, and leaves a tombstone. */
struct ha_refusal {
    int64_t generation, epoch;
};

struct ha_report {
    struct ha_report_row row;
    uint64_t seq; /* sendable when the journal has this */
    bool sent;    /* on the present link */
    struct ha_report *next;
};

struct ha_page { /* of an inventory, packed */
    struct ha_page *next;
    uint64_t seq; /* sendable when the journal has this */
    struct ha_bytes body;
};

struct ha_core {
    char region[64], host[64];
    char host_name[160];    /* regions/R/hosts/H */
    int64_t memory_max;     /* 0: not enforced */
    unsigned network_modes; /* bits 1 << NetworkMode; 0: not enforced */
    int32_t network_functions;
    char overload[HP_RESOURCE_COUNT][128]; /* figure and limit of what is overloaded; "": it is not */
    char no_room[256];                     /* why nothing that needs room on the disk may be begun; "": it may */
    const char *no_storage;   /* of the command in hand: why not, if it is for a new container; NULL: it may */
    struct hp_map containers; /* uid → struct ha_container */
    struct hp_map tombstones; /* uid → struct ha_grave; the oldest first */
    struct hp_map refusals;   /* uid → struct ha_refusal; the oldest first */
    struct ha_report *reports, **reports_tail; /* by id, ascending */
    int32_t report_count, in_flight;
    struct ha_page *pages, *pages_last; /* wait for the journal, for this link */
    int64_t meta[HA_META_COUNT];
    int64_t report_next;  /* next id to use; below meta[REPORT_NEXT] */
    uint64_t write_seq;   /* of the batch being made */
    uint64_t written_seq; /* of the last batch handed out */
    uint64_t synced_seq;
    bool link_up;
    bool session_wanted;
    uint64_t session_seq;
    int32_t known_count;
    uint64_t known_digest;
    struct ha_core_stats stats;
    /* The step under way. */
    struct ha_effects *fx;
    uint64_t now_ms;
    int64_t wall_ns;
    bool out_of_memory;        /* sticky */
    struct ha_container *dead; /* removed in this step; effects still point to them */
    struct ha_report *dead_reports;
};

/* container.c */
struct ha_container *ha_container_find(const struct ha_core *core, const char *uid);
/* NULL when out of memory (core->out_of_memory is set). */
struct ha_container *ha_container_add(struct ha_core *core, const char *uid, const char *name);
/* Takes it out of the map; freed at the next step. State must be GONE. */
void ha_container_bury(struct ha_core *core, struct ha_container *c);
void ha_container_free(struct ha_container *c);
/* The only way to change the state: checks the table. */
void ha_move(struct ha_core *core, struct ha_container *c, enum ha_state next);
const char *ha_state_name(enum ha_state s);
void ha_container_check(const struct ha_container *c);
/* Reads r.spec into a. HP_ENOMEM; HP_EINVAL: it does not parse. */
int ha_container_apply_spec(struct ha_core *core, struct ha_container *c);
/* Takes over what a job's result says of the process. */
void ha_container_observe(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s);
void ha_set_text(struct ha_core *core, char **field, const char *text);
void ha_unpack_spec(struct ha_core *core, const struct ha_bytes *b, Harpoon__V1__ContainerSpec **ret);

/* effects.c */
void ha_fx_container(struct ha_core *core, struct ha_container *c);
void ha_fx_container_delete(struct ha_core *core, const char *uid);
void ha_fx_meta(struct ha_core *core, enum ha_meta_key key, int64_t value);
void ha_fx_report(struct ha_core *core, const struct ha_report_row *row);
void ha_fx_report_delete(struct ha_core *core, int64_t id);
void ha_fx_tombstone(struct ha_core *core, const struct ha_tombstone *t);
void ha_fx_tombstone_delete(struct ha_core *core, const char *uid);
/* Submits a job for c; c->job is set. `spec` borrowed from c. */
void ha_fx_job(struct ha_core *core, struct ha_container *c, enum ha_job_kind kind, const struct ha_bytes *spec,
               int64_t generation);
void ha_fx_session(struct ha_core *core, int64_t session);
/* Heap; data is NULL when out of memory (core->out_of_memory is set). */
struct ha_bytes ha_fx_pack(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m);
void ha_fx_send(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m);
/* Takes the bytes over. */
void ha_fx_send_owned(struct ha_core *core, struct ha_bytes body);
void ha_fx_send_borrowed(struct ha_core *core, const struct ha_bytes *body);

/* report.c */
struct ha_answer { /* how a command ended; strings borrowed */
    const char *uid, *operation_id;
    int64_t generation, epoch;
    Harpoon__Internal__V1__CommandOutcome outcome;
    int32_t code;        /* google.rpc.Code; 0 when DONE */
    const char *message; /* NULL: none */
    unsigned overloaded; /* REFUSED for it: bits of enum hp_resource */
    int64_t latest;      /* STALE: the highest generation of this uid that was seen */
    bool removed;        /* STALE: and it was a removal */
};
struct ha_status { /* a ContainerStatus and what it points to */
    Harpoon__V1__ContainerStatus pb;
    Harpoon__V1__Resources resources;
    Google__Protobuf__Timestamp start, finish;
    char *address[1];
};
void ha_status_fill(const struct ha_core *core, const struct ha_container *c, struct ha_status *ret);
/* Result of a command for a container that exists, or does not (c NULL: its status is DELETED when the outcome is DONE). */
void ha_report_result(struct ha_core *core, const struct ha_container *c, const struct ha_answer *a);
void ha_report_observation(struct ha_core *core, const struct ha_container *c, const char *kind);
/* Marks an unconfirmed result of (uid, generation) to be sent again; false: there is none. */
bool ha_report_again(struct ha_core *core, const char *uid, int64_t generation);
/* Sends what is durable, was not sent, and fits the window. */
void ha_report_pump(struct ha_core *core);
void ha_report_unsend_all(struct ha_core *core);
void ha_report_confirm(struct ha_core *core, int64_t id);
void ha_report_journalled(struct ha_core *core, const struct ha_container *c);
/* inventory.c */
/* What there is now; it is told when all of it is durable. */
void ha_report_inventory(struct ha_core *core, int64_t request_id, bool specs);
void ha_inventory_pump(struct ha_core *core);
/* The link that asked is gone. */
void ha_inventory_drop(struct ha_core *core);
int64_t ha_report_next_id(struct ha_core *core);
/* Digest bookkeeping. */
uint64_t ha_known_hash(const char *uid, const struct ha_known *k);
void ha_known_set(struct ha_core *core, uint64_t *hash, uint64_t next);
int32_t ha_code_of(int status);

/* command.c */
void ha_command(struct ha_core *core, const Harpoon__Internal__V1__Command *cmd);
/* Nothing is under way: takes the queued command, if any. */
void ha_command_next(struct ha_core *core, struct ha_container *c);

/* network.c */
/* BRIDGE where it is not said. */
int ha_network_mode(const Harpoon__V1__ContainerSpec *spec);
/* Whether the container (NULL: a new one) may be attached as `spec` says; what it has is never refused. HP_EUNSUPPORTED: the mode is not offered; HP_ELIMIT: no function is left; and why. */
int ha_network_check(const struct ha_core *core, const struct ha_container *c, const Harpoon__V1__ContainerSpec *spec,
                     char *why, size_t size) HP_MUST_CHECK;

/* change.c */
/* Records the intent; what follows waits for the journal. */
void ha_change_begin(struct ha_core *core, struct ha_container *c, const Harpoon__Internal__V1__Command *cmd);
/* Writes the tombstone and the result of a removal; `c` (may be NULL) is about to go. */
void ha_change_entomb(struct ha_core *core, struct ha_container *c, const char *uid, int64_t generation,
                      const char *operation_id, int64_t epoch);
/* The intent is durable. */
void ha_change_synced(struct ha_core *core, struct ha_container *c);
/* A job of ACTING ended. */
void ha_change_job_done(struct ha_core *core, struct ha_container *c, const struct ha_job *job);
/* Makes a plan from the intent and goes on. */
void ha_change_act(struct ha_core *core, struct ha_container *c, bool other_process);

/* process.c */
void ha_process_start(struct ha_core *core, struct ha_container *c);
void ha_process_inspected(struct ha_core *core, struct ha_container *c, const struct ha_job *job);
void ha_process_exited(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s);
void ha_process_restarted(struct ha_core *core, struct ha_container *c, const struct ha_job *job);
void ha_process_probed(struct ha_core *core, struct ha_container *c, const struct ha_job *job);
void ha_process_timer(struct ha_core *core, struct ha_container *c);
/* From ACTING, INSPECTING or RESTARTING to where the observed process belongs: RUNNING, STOPPED, BACKOFF or FAILED. */
void ha_process_settle(struct ha_core *core, struct ha_container *c);
/* An exit that was noticed during a job. */
void ha_process_late_exit(struct ha_core *core, struct ha_container *c);

#endif
