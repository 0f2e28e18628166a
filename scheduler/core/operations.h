/* operations.h — what the files about operations offer each other: their life cycle, changes of containers, and who waits for a place. */
#ifndef SC_CORE_OPERATIONS_H
#define SC_CORE_OPERATIONS_H

#include "core/containers.h"
#include "core/state.h"

/* ---- operation.c: the life cycle ---- */
struct sc_operation *sc_operation_new(struct sc_region *r, const Harpoon__Internal__V1__Request *q, int verb,
                                      const char *target, int deadline_s);
/* The same, and it is among the region's active ones. NULL: no memory; the region has failed. */
struct sc_operation *sc_operation_begin(struct sc_region *r, const Harpoon__Internal__V1__Request *q, int verb,
                                        const char *target, int deadline_s);
void sc_operation_free(struct sc_operation *op);
/* The one function that changes a stage: asserts the table, stamps, records, and emits the event. */
void sc_operation_move(struct sc_region *r, struct sc_operation *op, int stage);
/* Ends it; takes `error` (NULL for SUCCEEDED). */
void sc_operation_end(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error);
void sc_operation_dirty(struct sc_region *r, struct sc_operation *op);
/* The host is not to get it. `passing`: for its load, so that it may be tried again when it is overloaded no more. */
void sc_operation_exclude(struct sc_region *r, struct sc_operation *op, const struct sc_host *h, bool passing);
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
/* Whether a change may be asked for; `c` may be NULL. */
Google__Rpc__Status *sc_change_check(const struct sc_container *c, const char *name, const char *etag);
/* It shall run, and has ended by itself. */
bool sc_container_has_ended(const struct sc_container *c);
/* What the host shall have now: the confirmed state with the first change of the queue. */
struct sc_target {
    const Harpoon__V1__Container *doc; /* labels and spec */
    int64_t restart_serial;
    Harpoon__V1__Container *owned; /* to be freed; NULL: `doc` is borrowed */
};
bool sc_change_target(struct sc_region *r, struct sc_container *c, struct sc_target *ret);
/* Makes the claim cover everything that may be in force on the host: the confirmed state and all changes that wait. */
void sc_change_claim(struct sc_region *r, struct sc_container *c);
/* Keeps the request's payload with the operation. */
bool sc_change_keep(struct sc_region *r, struct sc_operation *op, const Harpoon__Internal__V1__Request *q);
/* Restores from the packed change what is derived from it. False: corrupt. */
bool sc_change_load(struct sc_region *r, struct sc_operation *op);
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
enum sc_failure { SC_FAILED, SC_REFUSED, SC_REFUSED_PASSING /* for its load */ };
void sc_settle_failed(struct sc_region *r, struct sc_container *c, int64_t generation, enum sc_failure how,
                      const Google__Rpc__Status *error);
/* `removed`: the later command was a removal. */
void sc_settle_stale(struct sc_region *r, struct sc_container *c, int64_t generation, int64_t known, bool removed);
void sc_settle_removed(struct sc_region *r, struct sc_container *c);
/* The host remembers having removed what is still wanted: it will never come back under this uid. */
void sc_container_gone(struct sc_region *r, struct sc_container *c);
/* Its host was declared lost. */
void sc_container_lost(struct sc_region *r, struct sc_container *c);
/* Ends an active operation from outside: EXPIRED, CANCELLED, FAILED. Takes `error`. */
void sc_operation_abort(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error);

/* Whether the host is asked to remove it, and with which generation. */
bool sc_container_removing(const struct sc_container *c);
int64_t sc_container_removal(const struct sc_container *c);

/* ---- cancel.c ---- */
/* `found`: the target as the record has it, when it is not in memory; NULL: it does not exist. */
Google__Rpc__Status *sc_cancel_decide(struct sc_region *r, struct sc_operation *op,
                                      const Harpoon__Internal__V1__OperationRecord *found, bool dry_run);

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

/* ---- reserve.c: places that are taken before what they are for ---- */
/* The active reservation for the container of this full name, or NULL. */
struct sc_operation *sc_reserve_find(const struct sc_region *r, const char *container);
/* Ends the reservation for `c`, if there is one, for its create or move `user`: the host, when it fits there; else NULL. */
struct sc_host *sc_reserve_use(struct sc_region *r, struct sc_container *c, const struct sc_operation *user);
/* It is about to end: its place is given back. */
void sc_reserve_over(struct sc_region *r, struct sc_operation *op);
void sc_reserve_host_lost(struct sc_region *r, const struct sc_host *h);
/* False: corrupt. */
bool sc_reserve_load(struct sc_region *r, struct sc_operation *op);
Google__Rpc__Status *sc_reserve_decide(struct sc_region *r, struct sc_operation *op,
                                       const Harpoon__Internal__V1__Request *q, bool dry_run);

/* ---- gang.c ---- */
/* NULL: it is of none. */
struct sc_group *sc_gang_of(const struct sc_region *r, const struct sc_container *c);
/* Why it cannot become a member of the gang that it names; NULL: it can, or names none. */
Google__Rpc__Status *sc_gang_check(const struct sc_region *r, const Harpoon__V1__ContainerSpec *spec,
                                   const char *project);
/* Whether all of the container's gang are there. */
bool sc_gang_complete(const struct sc_container *c, const struct sc_group *g);
/* Gives all that wait a place, or says why not; none has one yet. */
void sc_gang_try(struct sc_region *r, struct sc_group *g);

/* ---- pending.c: creates that wait for a place ---- */
/* Finds a place for `c`, of which create or move `op` is the first operation, or leaves it waiting with the reason; `what` names the container's event. */
void sc_place(struct sc_region *r, struct sc_container *c, struct sc_operation *op, const char *what);
/* It has found one. */
void sc_place_on(struct sc_region *r, struct sc_container *c, struct sc_operation *op, struct sc_host *h,
                 const char *what);
void sc_pending_add(struct sc_region *r, struct sc_operation *op);
void sc_pending_remove(struct sc_region *r, struct sc_operation *op);
/* One more, unless it is in already; all, when they do not fit. */
void sc_slots_add(struct sc_slots *f, const struct sc_host *h);
void sc_pending_freed(struct sc_region *r, const struct sc_host *h);
/* Something that waits needs more or less than before. */
void sc_pending_changed(struct sc_region *r);
/* What waits for the skew of its group to change may have waited for this. */
void sc_pending_skewed(struct sc_region *r);
/* Tries what waits on the hosts that have more room; goes on at the next flush when there is much. */
void sc_pending_try(struct sc_region *r);
/* Prepares a query: marks the slots that the anti-affinity group and earlier refusals (op, may be NULL) rule out. */
void sc_query_init(struct sc_region *r, struct sc_query *q, const struct sc_res *need,
                   const Harpoon__V1__ContainerSpec *spec, const char *project, const struct sc_operation *op);
/* Only that host is looked at; NULL: none. */
void sc_query_only(struct sc_query *q, const struct sc_host *named);

/* The same for a container, whose create or move `op` is, or NULL. */
void sc_query_of(struct sc_region *r, struct sc_query *q, const struct sc_container *c, const struct sc_operation *op);

/* ---- victims.c: who would have to go ---- */
struct sc_victims {
    struct sc_host *host; /* NULL: nobody makes room */
    struct sc_container *list[SC_VICTIMS_MAX];
    int count;          /* 0: what is being removed already makes room */
    int priority;       /* the highest among them; of none INT_MIN */
    struct sc_res size; /* of all */
};
int sc_priority(const Harpoon__V1__ContainerSpec *spec);
/* Whether the create of such a container may preempt, as far as that depends on it. */
bool sc_preempts(const Harpoon__V1__ContainerSpec *spec);
/* It is laid to rest: what is looked at without opening it. */
void sc_victims_trait(const struct sc_container *c, struct sc_traits *t);
/* Why it stays for one of this priority, for people; NULL: it may have to go. */
const char *sc_victims_spare(const struct sc_region *r, const struct sc_container *c, int priority);
/* Among these hosts (NULL: all). The query is surveyed; no host fits as it is. */
void sc_victims_find(struct sc_region *r, const struct sc_query *q, int priority, const struct sc_slots *among,
                     struct sc_victims *ret);
/* "a (priority -5), b (priority 0)" */
void sc_victims_text(const struct sc_victims *v, char *out, size_t size);
/* What the create would do; 0 or HP_ENOMEM. The query is surveyed. */
int sc_victims_explain(struct sc_region *r, const struct sc_query *q, const Harpoon__V1__ContainerSpec *spec,
                       Harpoon__V1__Preemption **ret) HP_MUST_CHECK;

/* ---- preempt.c: creates that make others go ---- */
/* It is pending, or is not any more. */
void sc_preempt_waits(struct sc_region *r, struct sc_operation *op);
void sc_preempt_over(struct sc_region *r, struct sc_operation *op);
/* A host has a place for it in sight: it looks for no other. */
bool sc_preempt_under_way(const struct sc_operation *op);
/* There may be other victims on the host. */
void sc_preempt_note(struct sc_region *r, const struct sc_host *h);
/* The host has more room: first of all for what preempts there. */
void sc_preempt_freed(struct sc_region *r, const struct sc_host *h);
/* What the operation, which preempts, needs has changed. */
void sc_preempt_resized(struct sc_region *r, struct sc_operation *op);
/* Goes on with what is under way, and begins what can begin. */
void sc_preempt_try(struct sc_region *r);
/* A loaded create had begun to preempt on this host, by its short name. */
void sc_preempt_load(struct sc_region *r, struct sc_operation *op, const char *held);
/* All is loaded. */
void sc_preempt_lead(struct sc_region *r);

#endif
