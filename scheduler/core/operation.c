/* operation.c — the life of an operation.
 *
 *            ┌──◀── refused, or, a move: removed ──────┐
 *            ▼                                         │
 *   · ──▶ RECORDED ──▶ PLACED ──▶ DISPATCHED ──▶ RUNNING ──▶ SUCCEEDED
 *   │        │           │            │             │
 *   │        └───────────┴─────┬──────┴─────────────┘
 *   ▼                          ▼
 * REJECTED      SUCCEEDED · FAILED · CANCELLED · EXPIRED
 *
 * RECORDED waits for a place or for its turn on the container (reason says so), PLACED for the host to attach. DISPATCHED is recorded before the
 * command leaves. What a host refuses goes back to RECORDED, and so does a move when the container has been removed from its host: then it gets its new place as a create does. Changes of hosts, cancels, and deletes of what is on no host go from RECORDED to SUCCEEDED; a drain stays RECORDED until nothing is left to move. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/operations.h"
#include "core/state.h"

#define S(x) (1u << HARPOON__V1__STAGE__STAGE_##x)
static const unsigned allowed[] = {
    [HARPOON__V1__STAGE__STAGE_UNSPECIFIED] = S(RECORDED) | S(REJECTED),
    [HARPOON__V1__STAGE__STAGE_RECORDED] = S(PLACED) | S(SUCCEEDED) | S(FAILED) | S(CANCELLED) | S(EXPIRED),
    [HARPOON__V1__STAGE__STAGE_PLACED] =
        S(RECORDED) | S(DISPATCHED) | S(SUCCEEDED) | S(FAILED) | S(CANCELLED) | S(EXPIRED),
    [HARPOON__V1__STAGE__STAGE_DISPATCHED] =
        S(RUNNING) | S(RECORDED) | S(SUCCEEDED) | S(FAILED) | S(CANCELLED) | S(EXPIRED),
    [HARPOON__V1__STAGE__STAGE_RUNNING] = S(RECORDED) | S(SUCCEEDED) | S(FAILED) | S(CANCELLED) | S(EXPIRED),
    [HARPOON__V1__STAGE__STAGE_EXPIRED] = 0,
};
#undef S

static const char *const stage_names[] = {
    [HARPOON__V1__STAGE__STAGE_UNSPECIFIED] = "new",       [HARPOON__V1__STAGE__STAGE_ACCEPTED] = "accepted",
    [HARPOON__V1__STAGE__STAGE_RECORDED] = "recorded",     [HARPOON__V1__STAGE__STAGE_PLACED] = "placed",
    [HARPOON__V1__STAGE__STAGE_DISPATCHED] = "dispatched", [HARPOON__V1__STAGE__STAGE_RUNNING] = "running",
    [HARPOON__V1__STAGE__STAGE_SUCCEEDED] = "succeeded",   [HARPOON__V1__STAGE__STAGE_REJECTED] = "rejected",
    [HARPOON__V1__STAGE__STAGE_FAILED] = "failed",         [HARPOON__V1__STAGE__STAGE_CANCELLED] = "cancelled",
    [HARPOON__V1__STAGE__STAGE_EXPIRED] = "expired",
};

bool sc_stage_ended(int stage)
{
    return stage >= HARPOON__V1__STAGE__STAGE_SUCCEEDED;
}

const char *sc_stage_name(int stage)
{
    assert(stage >= 0 && stage <= HARPOON__V1__STAGE__STAGE_EXPIRED);
    return stage_names[stage];
}

struct sc_operation *sc_operation_new(struct sc_region *r, const Harpoon__Internal__V1__Request *q, int verb,
                                      const char *target, int deadline_s)
{
    char name[256];
    struct sc_operation *op = sc_alloc(r, sizeof *op);
    if (!op)
        return NULL;
    assert(strlen(q->operation_id) == 32 && strlen(q->project) < 64);
    strcpy(op->id, q->operation_id);
    strcpy(op->project, q->project);
    snprintf(name, sizeof name, "projects/%s/regions/%s/operations/%s", *q->project ? q->project : "-", r->name,
             op->id);
    op->name = sc_strdup(r, name);
    op->request_id = sc_strdup(r, q->request_id);
    op->principal = sc_strdup(r, q->principal);
    op->target = sc_strdup(r, target);
    op->verb = verb;
    op->create_ns = r->time.wall_ns;
    if (deadline_s <= 0)
        deadline_s = 3600;
    op->deadline_ns = r->time.wall_ns + deadline_s * 1000000000LL;
    if (q->payload_digest.len == sizeof op->digest)
        memcpy(op->digest, q->payload_digest.data, sizeof op->digest);
    op->expiry.kind = SC_TIMER_EXPIRY;
    sc_list_init(&op->queue);
    sc_list_init(&op->gang);
    sc_list_init(&op->preemptor);
    sc_list_init(&op->wait);
    sc_list_init(&op->dirty_link);
    if (!op->name || !op->request_id || !op->principal || !op->target) {
        sc_operation_free(op);
        return NULL;
    }
    return op;
}

struct sc_operation *sc_operation_begin(struct sc_region *r, const Harpoon__Internal__V1__Request *q, int verb,
                                        const char *target, int deadline_s)
{
    struct sc_operation *op = sc_operation_new(r, q, verb, target, deadline_s);
    if (!op)
        return NULL;
    if (hp_map_put(&r->operations, op->id, op, NULL)) {
        sc_fail(r, HP_ENOMEM);
        sc_operation_free(op);
        return NULL;
    }
    sc_known_add(r, op->id);
    op->active = true;
    r->active_count++;
    return op;
}

void sc_operation_free(struct sc_operation *op)
{
    if (!op)
        return;
    free(op->name);
    free(op->request_id);
    free(op->principal);
    free(op->target);
    free(op->reason);
    free(op->excluded);
    free(op->change);
    if (op->hold)
        sc_storage_unref(op->hold->storage);
    free(op->hold);
    free(op->wanted_host);
    free(op->preempted_by);
    hp_status_free(op->error);
    free(op);
}

void sc_operation_dirty(struct sc_region *r, struct sc_operation *op)
{
    if (op->dirty)
        return;
    op->dirty = true;
    sc_list_append(&r->dirty_operations, &op->dirty_link);
}

void sc_operation_reason(struct sc_region *r, struct sc_operation *op, const char *reason)
{
    if (!reason && !op->reason)
        return;
    if (reason && op->reason && !strcmp(reason, op->reason))
        return;
    free(op->reason);
    op->reason = reason ? sc_strdup(r, reason) : NULL;
    if (op->stage)
        sc_operation_dirty(r, op);
}

static void stamp(struct sc_region *r, struct sc_operation *op, int stage)
{
    op->stage = stage;
    op->update_ns = r->time.wall_ns;
    /* When there is no room left the last places are used again, so that the end is always there. */
    if (op->history_count == SC_HISTORY_MAX)
        op->history_count = SC_HISTORY_MAX - 4;
    op->history[op->history_count].stage = stage;
    op->history[op->history_count++].time_ns = r->time.wall_ns;
}

void sc_operation_move(struct sc_region *r, struct sc_operation *op, int stage)
{
    assert(op->stage < (int)(sizeof allowed / sizeof *allowed) && stage > 0);
    assert(allowed[op->stage] & 1u << stage);
    assert(sc_stage_ended(stage) || stage == HARPOON__V1__STAGE__STAGE_RECORDED || *op->host);
    bool first = op->stage == HARPOON__V1__STAGE__STAGE_UNSPECIFIED;
    char type[64];
    stamp(r, op, stage);
    if (first) {
        op->fresh = true;
        op->serial = r->sequence + 1; /* that of the event below */
    }
    snprintf(type, sizeof type, "operation.%s", sc_stage_name(stage));
    bool bad = stage == HARPOON__V1__STAGE__STAGE_FAILED || stage == HARPOON__V1__STAGE__STAGE_EXPIRED;
    struct sc_operation_scratch s;
    sc_event_emit(r, &(struct sc_event_args){
                         .type = type,
                         .subject = op->target,
                         .project = op->project,
                         .host = op->host,
                         .operation = op->name,
                         .message = op->error ? op->error->message : op->reason,
                         .severity = bad ? HARPOON__V1__SEVERITY__SEVERITY_ERROR : HARPOON__V1__SEVERITY__SEVERITY_INFO,
                         .operation_data = sc_operation_message(r, op, &s),
                     });
    sc_operation_dirty(r, op);
}

static void retire(struct sc_region *r, struct sc_operation *op)
{
    sc_list_append(&r->recent, &op->wait);
    r->recent_count++;
    bool asked = r->looking_up || r->answered_count;
    while (r->recent_count > r->config.recent_max) {
        struct sc_operation *old = SC_OWNER(r->recent.next, struct sc_operation, wait);
        if (old->dirty)
            break; /* not written yet */
        if (asked && old->serial > r->seen_sequence)
            break; /* a repeat of it that waits in the intake was, or will be, told that the record does not have it */
        assert(!old->active);
        sc_list_remove(&old->wait);
        r->recent_count--;
        hp_map_remove(&r->operations, old->id);
        sc_operation_free(old);
    }
}

void sc_operation_end(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error)
{
    assert(sc_stage_ended(stage) && !sc_stage_ended(op->stage));
    assert((stage == HARPOON__V1__STAGE__STAGE_SUCCEEDED) == !error);
    sc_timer_cancel(&r->timers, &op->expiry);
    if (op->verb == HARPOON__V1__VERB__VERB_MOVE && op->container)
        sc_move_over(r, op, stage);
    if (op->verb == HARPOON__V1__VERB__VERB_RESERVE && op->hold)
        sc_reserve_over(r, op);
    if (op->container && op->container->host)
        sc_preempt_note(r, op->container->host);
    sc_list_remove(&op->queue);
    sc_pending_remove(r, op);
    sc_list_remove(&op->wait);
    if (op->container && op->container->delete_op == op)
        op->container->delete_op = NULL;
    op->container = NULL;
    op->error = error;
    free(op->change);
    op->change = NULL;
    op->change_len = 0;
    free(op->reason);
    op->reason = NULL;
    if (op->active)
        r->active_count--;
    op->active = false;
    sc_operation_move(r, op, stage);
    retire(r, op);
}

const Harpoon__V1__Operation *sc_operation_message(const struct sc_region *r, const struct sc_operation *op,
                                                   struct sc_operation_scratch *s)
{
    harpoon__v1__operation__init(&s->m);
    s->m.name = op->name;
    s->m.request_id = op->request_id;
    s->m.verb = (Harpoon__V1__Verb)op->verb;
    s->m.stage = (Harpoon__V1__Stage)op->stage;
    s->m.target = op->target;
    s->m.uid = (char *)op->uid;
    s->m.generation = op->generation;
    if (*op->host) {
        snprintf(s->host, sizeof s->host, "regions/%s/hosts/%s", r->name, op->host);
        s->m.host = s->host;
    }
    s->m.error = op->error;
    if (op->reason)
        s->m.reason = op->reason;
    s->m.attempts = op->attempts;
    sc_timestamp(&s->create, op->create_ns);
    sc_timestamp(&s->update, op->update_ns);
    sc_timestamp(&s->deadline, op->deadline_ns);
    s->m.create_time = &s->create;
    s->m.update_time = &s->update;
    s->m.deadline = &s->deadline;
    s->m.principal = op->principal;
    if (op->preempted_by)
        s->m.preempted_by = op->preempted_by;
    for (int i = 0; i < op->history_count; i++) {
        harpoon__v1__stage_change__init(&s->history[i]);
        sc_timestamp(&s->times[i], op->history[i].time_ns);
        s->history[i].stage = (Harpoon__V1__Stage)op->history[i].stage;
        s->history[i].time = &s->times[i];
        s->history_p[i] = &s->history[i];
    }
    s->m.history = s->history_p;
    s->m.n_history = (size_t)op->history_count;
    return &s->m;
}

struct sc_blob *sc_operation_pack(struct sc_region *r, const struct sc_operation *op)
{
    struct sc_operation_scratch s;
    Harpoon__Internal__V1__OperationRecord m = HARPOON__INTERNAL__V1__OPERATION_RECORD__INIT;
    char *excluded[SC_EXCLUDED_MAX], *passing[SC_EXCLUDED_MAX];
    assert(op->excluded_count <= SC_EXCLUDED_MAX);
    m.operation = (Harpoon__V1__Operation *)sc_operation_message(r, op, &s);
    m.payload_digest.data = (uint8_t *)op->digest;
    m.payload_digest.len = sizeof op->digest;
    for (size_t i = 0; i < op->excluded_count; i++) {
        excluded[i] = op->excluded[i];
        if (op->excluded_passing & 1U << i)
            passing[m.n_overloaded_hosts++] = op->excluded[i];
    }
    m.overloaded_hosts = passing;
    m.excluded_hosts = excluded;
    m.n_excluded_hosts = op->excluded_count;
    m.change.data = op->change;
    m.change.len = op->change_len;
    m.restart_serial = op->restart_serial;
    if (op->hold)
        m.held_host = (char *)op->hold->host->info.name;
    if (op->wanted_host)
        m.wanted_host = op->wanted_host;
    m.parent = (char *)op->parent;
    m.parallel = op->parallel;
    m.moved = op->moved;
    return sc_blob_pack(r, &m.base);
}
