/* lifecycle.c — how operations on containers end: by the host's answer, by time, by the owner, or with the host. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

static void flight_over(struct sc_region *r, struct sc_container *c)
{
    c->flight = SC_WANT_NOTHING;
    c->flight_journalled = false;
    sc_flight_untimed(r, c);
}

bool sc_container_removing(const struct sc_container *c)
{
    return c->deleting || c->cleanup || c->leaving;
}

int64_t sc_container_removal(const struct sc_container *c)
{
    assert(sc_container_removing(c));
    return c->leaving ? sc_container_head(c)->generation : c->generation;
}

/* A command of this generation, or a later one, has answered the removal. */
static bool answers_removal(const struct sc_container *c, int64_t generation)
{
    return sc_container_removing(c) && generation >= sc_container_removal(c);
}

/* Ends everything that waits on a container whose create did not succeed, or that was removed: last one first. */
static void end_queue(struct sc_region *r, struct sc_container *c, int stage, int code, const char *reason,
                      const char *text)
{
    while (!sc_list_empty(&c->queue)) {
        struct sc_operation *op = SC_OWNER(c->queue.prev, struct sc_operation, queue);
        sc_operation_end(r, op, stage, hp_status_new(code, reason, "%s", text));
    }
}

/* The state that was asked for goes back to what the host has confirmed; without any, it stays. */
static void forget_changes(struct sc_region *r, struct sc_container *c)
{
    assert(sc_list_empty(&c->queue));
    sc_confirmed_set(c, NULL);
    sc_container_dirty(r, c);
}

/* The container was never made. What the host may have of it is removed before the claim goes. */
static void create_over(struct sc_region *r, struct sc_container *c, bool sent, const char *message)
{
    forget_changes(r, c);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED, message);
    sc_container_sync(r, c, false);
    if (sent && c->host) {
        c->cleanup = true;
        sc_container_bump(r, c);
    } else {
        sc_container_assign(r, c, NULL);
        sc_container_unclaim(r, c);
    }
    sc_container_event(r, c, "failed", HARPOON__V1__SEVERITY__SEVERITY_ERROR, NULL, message);
    sc_container_next(r, c);
}

void sc_settle_done(struct sc_region *r, struct sc_container *c, int64_t generation)
{
    struct sc_operation *head = sc_container_head(c);
    if (answers_removal(c, generation)) {
        sc_settle_removed(r, c);
        return;
    }
    if (c->flight == SC_WANT_ENSURE && generation >= sc_open(c)->flight_generation)
        flight_over(r, c);
    if (head && head->generation <= generation && head->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED) {
        sc_change_confirm(r, c, head);
        sc_operation_end(r, head, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
    }
    if (sc_container_removing(c))
        return;
    if (sc_list_empty(&c->queue) && generation >= c->generation)
        sc_container_sync(r, c, false);
    sc_change_claim(r, c);
    sc_container_next(r, c);
}

/* When there is no room for one more of those that are passing, its open breaker keeps the operation away. */
void sc_operation_exclude(struct sc_region *r, struct sc_operation *op, const struct sc_host *h, bool passing)
{
    size_t i = 0;
    while (i < op->excluded_count && strcmp(op->excluded[i], h->info.name) != 0)
        i++;
    if (i == SC_EXCLUDED_MAX)
        return;
    if (i == op->excluded_count) {
        void *more = realloc(op->excluded, (i + 1) * sizeof *op->excluded);
        if (!more) {
            sc_fail(r, HP_ENOMEM);
            return;
        }
        op->excluded = more;
        strcpy(op->excluded[op->excluded_count++], h->info.name);
    }
    if (passing)
        op->excluded_passing |= 1U << i;
    else
        op->excluded_passing &= ~(1U << i);
}

static void refused_create(struct sc_region *r, struct sc_container *c, struct sc_operation *op, bool passing,
                           const Google__Rpc__Status *error)
{
    char text[512];
    assert(c->host); /* what was dispatched has one */
    sc_operation_exclude(r, op, c->host, passing);
    snprintf(text, sizeof text, "host \"%s\" refused it: %s", c->host->info.name,
             error ? error->message : "no reason given");
    sc_operation_reason(r, op, text);
    struct sc_host *h = c->host;
    *op->host = '\0';
    sc_container_assign(r, c, NULL);
    /* Commands come more than once: a repeat that the host would take must find a tombstone, for the container will be elsewhere.
     * And it may come back to this host, which takes what is later than the tombstone. */
    sc_container_bump(r, c);
    sc_dispatch_remove(r, h, c, c->generation);
    sc_container_renumber(r, c);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, text);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    sc_place(r, c, op, "creating");
}

static Google__Rpc__Status *host_error(const struct sc_container *c, bool refused, const Google__Rpc__Status *error)
{
    if (error && error->code)
        return hp_status_clone(error);
    return hp_status_new(refused ? HP_CODE_FAILED_PRECONDITION : HP_CODE_INTERNAL, refused ? "REFUSED" : "HOST_FAILED",
                         "host \"%s\" %s it and gave no reason", c->host ? c->host->info.name : "",
                         refused ? "refused" : "could not do");
}

static void remove_failed(struct sc_region *r, struct sc_container *c, bool refused, const Google__Rpc__Status *error)
{
    struct sc_operation *op = c->delete_op;
    Google__Rpc__Status *s = host_error(c, refused, error);
    assert(!c->leaving || !op);
    if (c->leaving)
        sc_operation_reason(r, sc_container_head(c), s->message);
    flight_over(r, c);
    sc_container_state(r, c, sc_body(c)->status->state, s->message);
    sc_container_event(r, c, "remove_failed", HARPOON__V1__SEVERITY__SEVERITY_ERROR, op, s->message);
    if (op)
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_FAILED, s);
    else
        hp_status_free(s);
    sc_timer_set(r, &sc_open(c)->flight_timer, r->config.remove_retry_ms);
}

void sc_settle_failed(struct sc_region *r, struct sc_container *c, int64_t generation, enum sc_failure how,
                      const Google__Rpc__Status *error)
{
    struct sc_operation *head = sc_container_head(c);
    bool refused = how != SC_FAILED, passing = how == SC_REFUSED_PASSING;
    if (answers_removal(c, generation)) {
        remove_failed(r, c, refused, error);
        return;
    }
    if (c->flight == SC_WANT_ENSURE && generation >= sc_open(c)->flight_generation)
        flight_over(r, c);
    if (c->host && !passing && generation >= (head ? head->generation : c->generation)) /* not what it said long ago */
        sc_host_failed(r, c->host);
    if (!head || head->generation != generation || head->stage < HARPOON__V1__STAGE__STAGE_DISPATCHED) {
        if (c->sync && generation == c->generation && !sc_container_removing(c)) {
            sc_container_event(r, c, "sync_failed", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL,
                               error ? error->message : NULL);
            sc_timer_set(r, &sc_open(c)->flight_timer, r->config.remove_retry_ms);
        }
        return;
    }
    if (sc_operation_places(head) && !sc_container_removing(c)) {
        if (passing || (refused && head->excluded_count < SC_EXCLUDED_MAX)) {
            refused_create(r, c, head, passing, error);
            return;
        }
        if (head->verb == HARPOON__V1__VERB__VERB_MOVE && !refused && sc_move_elsewhere(r, c, head, error))
            return;
        Google__Rpc__Status *s = host_error(c, refused, error);
        char *message = sc_strdup(r, s->message);
        sc_operation_end(r, head, HARPOON__V1__STAGE__STAGE_FAILED, s);
        end_queue(r, c, HARPOON__V1__STAGE__STAGE_FAILED, HP_CODE_FAILED_PRECONDITION, "CREATE_FAILED",
                  "the container could not be made");
        create_over(r, c, true, message ? message : "");
        free(message);
        return;
    }
    Google__Rpc__Status *s = host_error(c, refused, error);
    if (!sc_container_removing(c))
        sc_change_revert(r, c, head);
    sc_operation_end(r, head, HARPOON__V1__STAGE__STAGE_FAILED, s);
    if (sc_container_removing(c))
        return;
    sc_container_event(r, c, "updated", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL,
                       "the change failed and was taken back");
    sc_container_next(r, c);
}

void sc_settle_stale(struct sc_region *r, struct sc_container *c, int64_t generation, int64_t known, bool removed)
{
    struct sc_operation *op = c->deleting || c->cleanup ? c->delete_op : sc_container_head(c);
    bool current = c->flight != SC_WANT_NOTHING && sc_open(c)->flight_generation == generation;
    if (!current)
        return; /* a later command is on its way, and answers for this one */
    flight_over(r, c);
    if (removed && !sc_container_removing(c)) {
        sc_container_gone(r, c);
        return;
    }
    /* The host knows a later generation than the record does, as after a restored backup: go above it. */
    if (known > c->generation)
        c->generation = known;
    sc_container_bump(r, c);
    if (op) {
        op->generation = c->generation;
        if (op->restart_serial > 0)
            op->restart_serial = op->generation;
        sc_operation_dirty(r, op);
    }
    for (struct sc_list *l = c->queue.next; l && l != &c->queue; l = l->next) {
        struct sc_operation *other = SC_OWNER(l, struct sc_operation, queue);
        if (other == op)
            continue;
        sc_container_bump(r, c);
        other->generation = c->generation;
        sc_operation_dirty(r, other);
    }
    sc_container_next(r, c);
}

void sc_settle_removed(struct sc_region *r, struct sc_container *c)
{
    struct sc_operation *op = c->delete_op;
    assert(sc_container_removing(c));
    flight_over(r, c);
    if (c->leaving) {
        sc_move_removed(r, c);
        return;
    }
    if (c->deleting) {
        end_queue(r, c, HARPOON__V1__STAGE__STAGE_CANCELLED, HP_CODE_CANCELLED, "SUPERSEDED",
                  "the container was deleted");
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED, "");
        sc_container_event(r, c, "deleted", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
        if (op)
            sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
        sc_container_drop(r, c);
        return;
    }
    c->cleanup = false;
    sc_container_sync(r, c, false);
    sc_container_event(r, c, "removed", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL,
                       "removed from its host after the create that did not succeed");
    sc_container_assign(r, c, NULL);
    sc_container_unclaim(r, c);
}

/* ---- Ends from outside ---- */

void sc_container_gone(struct sc_region *r, struct sc_container *c)
{
    while (!sc_list_empty(&c->queue)) {
        struct sc_operation *op = SC_OWNER(c->queue.prev, struct sc_operation, queue);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_FAILED,
                         hp_status_new(HP_CODE_DATA_LOSS, "CONTAINER_GONE", "the host has removed the container"));
    }
    forget_changes(r, c);
    sc_container_sync(r, c, false);
    sc_container_assign(r, c, NULL);
    sc_container_unclaim(r, c);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED, "the host has removed it");
    sc_container_event(r, c, "failed", HARPOON__V1__SEVERITY__SEVERITY_ERROR, NULL, "the host has removed it");
}

static void abort_create(struct sc_region *r, struct sc_container *c, struct sc_operation *op, int stage,
                         Google__Rpc__Status *error)
{
    bool sent = op->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED;
    char *message = sc_strdup(r, error->message);
    sc_operation_end(r, op, stage, error);
    end_queue(r, c, HARPOON__V1__STAGE__STAGE_FAILED, HP_CODE_FAILED_PRECONDITION, "CREATE_FAILED",
              "the container was not made");
    if (c->deleting || !message) {
        free(message);
        return;
    }
    if (stage == HARPOON__V1__STAGE__STAGE_CANCELLED && !sent) {
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED, "");
        sc_container_event(r, c, "deleted", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "its create was cancelled");
        sc_container_drop(r, c);
    } else {
        create_over(r, c, sent, message);
    }
    free(message);
}

static void abort_delete(struct sc_region *r, struct sc_container *c, struct sc_operation *op, int stage,
                         Google__Rpc__Status *error)
{
    sc_operation_end(r, op, stage, error);
    if (c->remove_sent)
        return; /* cannot be called back: it goes on without the operation */
    bool silent = c->host && c->host->pb->state == HARPOON__V1__HOST_STATE__HOST_STATE_UNKNOWN;
    c->deleting = false;
    if (c->cleanup) {
        /* Its create had failed before: it is removed from its host all the same. */
        sc_container_bump(r, c);
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED, sc_body(c)->status->message);
        sc_container_event(r, c, "updated", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "its delete was given up");
        sc_container_next(r, c);
        return;
    }
    sc_change_rebuild(r, c); /* without what the delete had cancelled */
    sc_change_claim(r, c);
    sc_container_sync(r, c, true);
    sc_container_bump(r, c);
    sc_container_state(r, c,
                       silent || !c->reported_state ? (int)HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNKNOWN
                                                    : c->reported_state,
                       "");
    sc_container_event(r, c, "updated", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "its delete was given up");
    sc_container_next(r, c);
}

void sc_operation_abort(struct sc_region *r, struct sc_operation *op, int stage, Google__Rpc__Status *error)
{
    struct sc_container *c = op->container;
    assert(op->active && error);
    assert(c || op->verb == HARPOON__V1__VERB__VERB_DRAIN || op->verb == HARPOON__V1__VERB__VERB_RESERVE);
    if (!c) {
        sc_operation_end(r, op, stage, error);
    } else if (op->verb == HARPOON__V1__VERB__VERB_CREATE || (op->verb == HARPOON__V1__VERB__VERB_MOVE && !c->host)) {
        abort_create(r, c, op, stage, error);
    } else if (op->verb == HARPOON__V1__VERB__VERB_MOVE) {
        sc_move_undo(r, c, op);
        sc_operation_end(r, op, stage, error);
        sc_container_next(r, c);
    } else if (op->verb == HARPOON__V1__VERB__VERB_DELETE) {
        abort_delete(r, c, op, stage, error);
    } else {
        bool under_way = sc_container_head(c) == op;
        bool touched = op->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED;
        if (!c->deleting)
            sc_change_revert(r, c, op);
        sc_operation_end(r, op, stage, error);
        if (c->deleting)
            return;
        if (under_way && touched)
            flight_over(r, c);
        sc_container_event(r, c, "updated", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "the change was taken back");
        sc_container_next(r, c);
    }
}

void sc_container_lost(struct sc_region *r, struct sc_container *c)
{
    char text[160];
    struct sc_operation *op = c->delete_op;
    assert(c->host);
    snprintf(text, sizeof text, "host \"%s\" was declared lost", c->host->info.name);
    if (sc_container_removing(c)) {
        sc_settle_removed(r, c); /* there is no host left that could have it */
        return;
    }
    assert(!op);
    flight_over(r, c);
    while (!sc_list_empty(&c->queue)) {
        op = SC_OWNER(c->queue.prev, struct sc_operation, queue);
        if (!sc_operation_places(op))
            sc_change_revert(r, c, op);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_FAILED,
                         hp_status_new(HP_CODE_FAILED_PRECONDITION, "HOST_LOST", "%s", text));
    }
    forget_changes(r, c);
    sc_container_sync(r, c, false);
    sc_container_bump(r, c); /* above what the host has, so that it can be told to remove it if it comes back */
    sc_container_assign(r, c, NULL);
    sc_container_unclaim(r, c);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_LOST, text);
    sc_container_event(r, c, "lost", HARPOON__V1__SEVERITY__SEVERITY_CRITICAL, NULL, text);
}
