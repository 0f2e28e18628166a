/* state.h — the insides of a region, shared by the files of the core and by nobody else. */
#ifndef SC_CORE_STATE_H
#define SC_CORE_STATE_H

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/map.h"
#include "core/list.h"
#include "core/region.h"
#include "core/timers.h"
#include "grpc/status.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event.pb-c.h"

enum {
    SC_HISTORY_MAX = 32,    /* stage changes remembered of one operation */
    SC_EXCLUDED_MAX = 16,   /* hosts that may refuse one operation before it fails */
    SC_QUEUE_MAX = 64,      /* operations waiting on one container */
    SC_PENDING_TRIES = 256, /* waiting creates tried in one go */
    SC_SLOTS_MAX = 64,
    SC_LOOKUP_MAX = 512,  /* ids in one lookup */
    SC_MARK_EVERY = 1024, /* events between two retention marks */
    SC_MARKS_MAX = 4096,
    SC_GENERATION_MAX = 1 << 30, /* what a host may claim to know; more is not believed */
};

struct sc_project {
    char name[64];
    struct sc_res used; /* sum of its containers' claims */
    int64_t containers; /* in the region */
    struct sc_quota quota;
};

/* Hosts that have containers of one anti-affinity group of one project. */
struct sc_group_member {
    struct sc_host *host;
    int count;
};
struct sc_group {
    struct sc_group_member *members;
    size_t count, room;
    int containers; /* that name it, placed or not */
    char key[];     /* "project/group" */
};

struct sc_host {
    struct sc_region *region;
    size_t slot; /* index in region->slots */
    struct sc_slot_info info;
    char name[64];         /* short */
    Harpoon__V1__Host *pb; /* as recorded; claimed and container_count are filled in when packed */
    uint64_t heard_ms;     /* last sign of life */
    struct sc_timer silence, resync;
    struct sc_list containers; /* sc_container.on_host */
    int64_t container_count;
    int64_t inventory_id; /* request under way; 0 none */
    bool dirty, urgent;   /* to be written; and with the next batch */
    uint64_t written_ms;  /* when last written */
    struct sc_list dirty_link;
};

/* What a container's host shall do next. */
enum sc_want { SC_WANT_NOTHING, SC_WANT_ENSURE, SC_WANT_REMOVE };

struct sc_container {
    struct sc_region *region;
    Harpoon__V1__Container *pb; /* what is asked for, with all accepted changes; status */
    struct sc_project *project;
    struct sc_group *group; /* NULL none */
    struct sc_host *host;   /* NULL: not placed */
    struct sc_list on_host;
    int64_t restart_serial;
    struct sc_res claim;
    Harpoon__Internal__V1__ContainerBase *confirmed; /* see ContainerRecord; NULL: same as pb */
    bool deleting, cleanup, sync, remove_sent;       /* see ContainerRecord */
    struct sc_operation *delete_op;                  /* the active delete */
    struct sc_list queue;        /* active create and changes, oldest first; the first is being done */
    char operation_id[33];       /* of the present generation */
    int64_t reported_generation; /* last result or observation */
    int reported_desired, reported_state;
    int64_t observed_ns; /* time of the last observation */
    /* The command under way. */
    enum sc_want flight; /* NOTHING: none */
    int64_t flight_generation;
    int64_t flight_after; /* inventory requests made before it was sent */
    bool flight_journalled;
    struct sc_timer flight_timer;
    int64_t seen_inventory; /* the last inventory that it was in */
    bool dirty;
    struct sc_list dirty_link;
};

struct sc_operation {
    char id[33];
    char *name, *request_id, *principal, *target;
    char project[64]; /* "" for hosts */
    int verb, stage;
    char uid[27];
    int64_t generation;
    char host[64]; /* short */
    Google__Rpc__Status *error;
    char *reason;
    int attempts;
    int64_t create_ns, update_ns, deadline_ns; /* wall */
    struct {
        int stage;
        int64_t time_ns;
    } history[SC_HISTORY_MAX];
    int history_count;
    uint8_t digest[32];
    char (*excluded)[64];
    size_t excluded_count;
    uint8_t *change; /* packed Request with the payload only */
    size_t change_len;
    int64_t restart_serial;
    struct sc_res need; /* resources that the change names; 0: it leaves them */
    int64_t serial;
    bool active, fresh, dirty;
    bool pending;                   /* in region->pending */
    struct sc_container *container; /* while active, and the verb is of containers */
    struct sc_list queue;           /* in container->queue */
    struct sc_list wait;            /* in region->pending while active, in region->recent afterwards */
    struct sc_list dirty_link;
    struct sc_timer expiry;
};

/* A request that waits for its turn. */
struct sc_intake {
    struct sc_list link;
    Harpoon__Internal__V1__Request *message;
    uint64_t tag;
    char *reply_to, *correlation; /* NULL none */
    int verb, deadline_s;
    char target[256];       /* full name of container, host, or (cancel) operation */
    char target_id[33];     /* cancel: id of that operation */
    size_t row, target_row; /* place in the lookup under way + 1; 0: not in it */
    bool answered;          /* the record was asked: what is not below is not there */
    Harpoon__Internal__V1__OperationRecord *found, *found_target;
};

/* An event that the stream has not confirmed. */
struct sc_backlog {
    struct sc_list link;
    int64_t sequence;
    struct sc_blob *body;
    bool confirmed, failed;
};

/* Operation ids seen, folded to 8 bytes. */
struct sc_known {
    uint64_t *slots; /* 0: free */
    size_t room, count;
    bool complete; /* what is not here is not in the record */
};

/* A few indices of slots, or all of them. */
struct sc_slots {
    size_t index[SC_SLOTS_MAX], count;
    bool all;
};

struct sc_mark {
    int64_t sequence, time_ns;
};

struct sc_region {
    struct sc_region_config config;
    char name[64];
    int64_t epoch;
    uint64_t seed, uid_count;
    struct sc_time time; /* of the event being taken in */
    bool leading;
    int failed; /* HP_E…: the reign is over */

    struct hp_map hosts, containers, uids, operations, projects, groups;
    struct sc_slot *slots;
    size_t slot_count, slot_room;
    size_t attached_count; /* hosts */
    uint32_t stamp;        /* of the last placement query */
    struct sc_timers timers;
    struct sc_timer republish, settle, pending_timer;

    struct sc_list pending; /* creates that wait for a place, oldest first */
    size_t pending_count;
    struct sc_slots freed, tried; /* hosts with more room than before: since the last try; in the try under way */
    struct sc_list *pending_next; /* where the try goes on; NULL: none is under way */
    struct sc_list recent;        /* ended operations, oldest first */
    size_t recent_count;
    size_t active_count;
    struct sc_known known;

    struct sc_list intake; /* sc_intake, in order of arrival */
    bool looking_up;
    size_t answered_count; /* of the intake: the record has told what it had */
    int64_t cut_sequence;  /* of the last batch handed out: later lookups see up to there */
    int64_t seen_sequence; /* that of the oldest lookup that is under way, or whose answers are still in the intake */

    int64_t sequence, watermark, oldest;
    int64_t watermark_recorded;
    int64_t operations_floor; /* ended operations below this serial are deleted already */
    struct sc_mark *marks;
    size_t mark_count;
    int64_t mark_every;
    struct sc_list backlog;
    size_t backlog_count;
    int64_t inventory_ids;
    uint64_t announced_ms; /* when a router was last asked to announce its sessions */

    /* The next batch. */
    struct sc_list dirty_operations, dirty_containers, dirty_hosts;
    struct sc_event_row *events;
    size_t event_count, event_room;
    struct sc_uid_row *deletes;
    size_t delete_count, delete_room;
    struct sc_ack acks[SC_SOURCE_COUNT];
    struct sc_messages verdicts, commands;
    bool settle_due;                              /* the settle timer has fired */
    bool committing;                              /* a batch is under way */
    struct sc_ack released_acks[SC_SOURCE_COUNT]; /* committed: for the next flush */
    struct sc_messages released;
};

/* ---- region.c: memory and small things ---- */
void sc_fail(struct sc_region *r, int code);
/* NULL when out of memory, which ends the reign. */
void *sc_alloc(struct sc_region *r, size_t size); /* zeroed */
char *sc_strdup(struct sc_region *r, const char *s);
struct sc_blob *sc_blob_pack(struct sc_region *r, const ProtobufCMessage *m);
/* Replaces a string field of a heap message. */
void sc_pb_set(struct sc_region *r, char **field, const char *value);
/* A deep copy on the plain heap; NULL ends the reign. */
void *sc_pb_clone(struct sc_region *r, const ProtobufCMessage *m);
void sc_timer_set(struct sc_region *r, struct sc_timer *t, uint64_t after_ms);
void sc_timestamp(Google__Protobuf__Timestamp *t, int64_t ns);
int64_t sc_timestamp_ns(const Google__Protobuf__Timestamp *t); /* 0 for NULL */
void sc_messages_append(struct sc_messages *list, struct sc_message *m);
struct sc_project *sc_project_get(struct sc_region *r, const char *name);
struct sc_group *sc_group_get(struct sc_region *r, const char *project, const char *group);
void sc_group_move(struct sc_region *r, struct sc_group *g, struct sc_host *host, int delta);
bool sc_known_has(const struct sc_known *k, const char *id);
void sc_known_add(struct sc_region *r, const char *id);
void sc_known_drop(struct sc_known *k);

/* ---- events.c ---- */
struct sc_event_args {
    const char *type;                                           /* without "harpoon." */
    const char *subject, *project, *host, *operation, *message; /* NULL: "" */
    Harpoon__V1__Severity severity;
    const Harpoon__V1__Operation *operation_data;
    const Harpoon__V1__Container *container_data;
    const Harpoon__V1__Host *host_data;
};
/* Takes the next sequence, packs, and adds to the next batch. */
void sc_event_emit(struct sc_region *r, const struct sc_event_args *a);
void sc_backlog_add(struct sc_region *r, int64_t sequence, struct sc_blob *body);
void sc_backlog_published(struct sc_region *r, int64_t sequence, bool confirmed);
/* Events to publish now: failed ones again. */
void sc_backlog_resend(struct sc_region *r, struct sc_messages *out, bool all);
void sc_mark_add(struct sc_region *r, int64_t sequence, int64_t time_ns);
/* The first sequence that is younger than `age_ms`. */
int64_t sc_mark_before(const struct sc_region *r, int64_t age_ms);

/* ---- operation.c: the life cycle ---- */
struct sc_operation *sc_operation_new(struct sc_region *r, const Harpoon__Internal__V1__Request *q, int verb,
                                      const char *target, int deadline_s);
void sc_operation_free(struct sc_operation *op);
/* The one function that changes a stage: asserts the table, stamps, records, and emits the event. */
void sc_operation_move(struct sc_region *r, struct sc_operation *op, int stage);
/* Ends it; takes `error` (NULL for SUCCEEDED). */
void sc_operation_end(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error);
void sc_operation_dirty(struct sc_region *r, struct sc_operation *op);
/* Why it waits; NULL: it does not. */
void sc_operation_reason(struct sc_region *r, struct sc_operation *op, const char *reason);
bool sc_stage_ended(int stage);
const char *sc_stage_name(int stage);

/* The message form; borrows from `op`, valid as long as that and the scratch. */
struct sc_operation_scratch {
    Harpoon__V1__Operation m;
    Google__Protobuf__Timestamp create, update, deadline;
    Harpoon__V1__StageChange history[SC_HISTORY_MAX], *history_p[SC_HISTORY_MAX];
    Google__Protobuf__Timestamp times[SC_HISTORY_MAX];
    char host[160];
};
const Harpoon__V1__Operation *sc_operation_message(const struct sc_region *r, const struct sc_operation *op,
                                                   struct sc_operation_scratch *s);
struct sc_blob *sc_operation_pack(struct sc_region *r, const struct sc_operation *op);

/* ---- container.c ---- */
struct sc_container *sc_container_new(struct sc_region *r, const char *name, struct sc_project *project);
/* Takes the container out of everything and frees it. */
void sc_container_drop(struct sc_region *r, struct sc_container *c);
void sc_container_free(struct sc_container *c);
void sc_container_dirty(struct sc_region *r, struct sc_container *c);
void sc_container_sync(struct sc_region *r, struct sc_container *c, bool sync);
void sc_container_event(struct sc_region *r, struct sc_container *c, const char *what, Harpoon__V1__Severity severity,
                        const struct sc_operation *op, const char *message);
/* Raises the generation and sets etag and update_time. */
void sc_container_bump(struct sc_region *r, struct sc_container *c);
void sc_container_state(struct sc_region *r, struct sc_container *c, int state, const char *message);
void sc_container_claim(struct sc_region *r, struct sc_container *c, const struct sc_res *claim);
/* Puts it on `host` (NULL: takes it off), and moves the claim along. */
void sc_container_assign(struct sc_region *r, struct sc_container *c, struct sc_host *host);
struct sc_operation *sc_container_head(const struct sc_container *c);
struct sc_res sc_spec_res(const Harpoon__V1__ContainerSpec *spec);
struct sc_blob *sc_container_pack(struct sc_region *r, struct sc_container *c);
void sc_uid_make(struct sc_region *r, char uid[27]);

/* ---- change.c: verbs on containers, and the queue of changes ---- */
/* Checks a request that changes a container, and, unless `dry_run` or refused, records the operation and begins it. NULL, or why it is refused. */
Google__Rpc__Status *sc_change_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run);
/* The first operation of the queue has ended well: its change is part of what is confirmed. It is still in the queue. */
void sc_change_confirm(struct sc_region *r, struct sc_container *c, const struct sc_operation *head);
/* `op`, somewhere in the queue and not a create, is taken out without effect; what is asked for is made anew from the others. */
void sc_change_revert(struct sc_region *r, struct sc_container *c, struct sc_operation *op);
/* What is asked for is made anew from what is confirmed and the operations in the queue. */
void sc_change_rebuild(struct sc_region *r, struct sc_container *c);
/* What the host shall have now: the confirmed state with the first change of the queue. */
struct sc_target {
    const Harpoon__V1__Container *doc; /* labels and spec */
    int64_t restart_serial;
    Harpoon__V1__Container *owned; /* to be freed; NULL: `doc` is borrowed */
};
bool sc_change_target(struct sc_region *r, struct sc_container *c, struct sc_target *ret);
/* Makes the claim cover everything that may be in force on the host: the confirmed state and all changes that wait. */
void sc_change_claim(struct sc_region *r, struct sc_container *c);
/* Restores from the packed change what is derived from it. False: corrupt. */
bool sc_change_load(struct sc_operation *op);
/* Begins what is to be done next on the container, unless it is under way already. */
void sc_container_next(struct sc_region *r, struct sc_container *c);

/* ---- create.c ---- */
Google__Rpc__Status *sc_create_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run);
Google__Rpc__Status *sc_delete_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__Request *q, bool dry_run);
/* NULL when `more` on top is within the project's quota. */
Google__Rpc__Status *sc_quota_check(const struct sc_project *p, const struct sc_res *more, int containers);
Google__Rpc__Status *sc_resources_check(const Harpoon__V1__Resources *x, bool complete);

/* ---- lifecycle.c: how operations on containers end ---- */
void sc_settle_done(struct sc_region *r, struct sc_container *c, int64_t generation);
void sc_settle_failed(struct sc_region *r, struct sc_container *c, int64_t generation, bool refused,
                      const Google__Rpc__Status *error);
void sc_settle_stale(struct sc_region *r, struct sc_container *c, int64_t generation, int64_t known);
void sc_settle_removed(struct sc_region *r, struct sc_container *c);
/* Its host was declared lost. */
void sc_container_lost(struct sc_region *r, struct sc_container *c);
/* Ends an active operation from outside: EXPIRED, CANCELLED, FAILED. Takes `error`. */
void sc_operation_abort(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error);

/* ---- pending.c: creates that wait for a place ---- */
/* Places the create of `c`, or leaves it waiting with the reason; `what` names the container's event. */
void sc_place(struct sc_region *r, struct sc_container *c, struct sc_operation *op, const char *what);
void sc_pending_add(struct sc_region *r, struct sc_operation *op);
void sc_pending_remove(struct sc_region *r, struct sc_operation *op);
void sc_pending_freed(struct sc_region *r, const struct sc_host *h);
/* Tries what waits on the hosts that have more room; goes on at the next flush when there is much. */
void sc_pending_try(struct sc_region *r);
/* Prepares a query: marks the slots that the anti-affinity group and earlier refusals (op, may be NULL) rule out. */
void sc_query_init(struct sc_region *r, struct sc_query *q, const struct sc_res *need,
                   const Harpoon__V1__PlacementSpec *spec, const char *project, const struct sc_operation *op);

/* ---- dispatch.c ---- */
/* Sends what the container's host shall do next, if anything, and if it can be reached. */
void sc_dispatch(struct sc_region *r, struct sc_container *c);
/* The same after a pause, for what was put off or has failed. */
void sc_dispatch_retry(struct sc_region *r, struct sc_container *c);
/* Removes what is not (or no longer) the host's, without waiting for the answer; `generation` is above all that the host can know. */
void sc_dispatch_remove(struct sc_region *r, struct sc_host *h, const struct sc_container *c, int64_t generation);
void sc_dispatch_quarantine(struct sc_region *r, struct sc_host *h, const char *container, const char *uid,
                            int64_t generation);
void sc_dispatch_inventory(struct sc_region *r, struct sc_host *h);
void sc_dispatch_announce(struct sc_region *r, const char *router);

/* ---- host.c ---- */
struct sc_host *sc_host_new(struct sc_region *r, const char *name);
void sc_host_free(struct sc_host *h);
struct sc_slot *sc_host_slot(const struct sc_host *h);
bool sc_host_attached(const struct sc_host *h);
/* Attached, and not silent for long. */
bool sc_host_answers(const struct sc_host *h);
/* Recomputes what placement sees, and wakes what waits when there may be more room. */
void sc_host_refresh(struct sc_region *r, struct sc_host *h);
void sc_host_dirty(struct sc_region *r, struct sc_host *h, bool urgent);
/* The claims of the row may be older than the containers: a reign ended before it wrote them. Then it is written again. */
void sc_host_recount(struct sc_region *r, struct sc_host *h);
struct sc_blob *sc_host_pack(struct sc_region *r, struct sc_host *h);
void sc_host_event(struct sc_region *r, struct sc_host *h, const char *what, Harpoon__V1__Severity severity,
                   const struct sc_operation *op, const char *message);
void sc_host_heard(struct sc_region *r, struct sc_host *h);
/* A new reign: the silence is counted from now. */
void sc_host_watch(struct sc_region *r, struct sc_host *h);
void sc_host_attach(struct sc_region *r, const Harpoon__Internal__V1__Report *m);
void sc_host_detach(struct sc_region *r, struct sc_host *h, const char *reason);
void sc_host_silent(struct sc_region *r, struct sc_host *h);
void sc_host_metrics(struct sc_region *r, const Harpoon__Internal__V1__MetricsBatch *b);
void sc_host_returned(struct sc_region *r, const char *router, const char *host, int64_t session);
Google__Rpc__Status *sc_host_decide(struct sc_region *r, struct sc_operation *op,
                                    const Harpoon__Internal__V1__Request *q, bool dry_run);

/* ---- inventory.c ---- */
void sc_inventory_digest(const struct sc_host *h, int32_t *ret_count, uint64_t *ret_digest);
void sc_inventory_check(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryDigest *d);
void sc_inventory_take(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__Inventory *inv);

/* ---- report.c ---- */
int sc_report_take(struct sc_region *r, const Harpoon__Internal__V1__Report *m, struct hp_error *e);
/* Takes an observed status in; `kind` names the event, NULL: by state. */
void sc_status_take(struct sc_region *r, struct sc_container *c, const Harpoon__V1__ContainerStatus *status,
                    int64_t generation, const char *kind, const struct sc_operation *op);

/* ---- request.c ---- */
int sc_request_take(struct sc_region *r, struct sc_ev *ev, struct hp_error *e);
void sc_request_drain(struct sc_region *r);
void sc_request_looked_up(struct sc_region *r, struct sc_lookup *l);
struct sc_lookup *sc_request_lookup(struct sc_region *r);
void sc_intake_free(struct sc_intake *i);

/* ---- load.c ---- */
/* The record is loaded: nothing of it is to be written, timers run from now. */
void sc_load_done(struct sc_region *r);

/* ---- cancel.c ---- */
/* `found`: the target as the record has it, when it is not in memory; NULL: it does not exist. */
Google__Rpc__Status *sc_cancel_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__OperationRecord *found, bool dry_run);

/* ---- batch.c ---- */
int sc_batch_cut(struct sc_region *r, struct sc_effects *out);
void sc_batch_committed(struct sc_region *r, struct sc_batch *b);

#endif
