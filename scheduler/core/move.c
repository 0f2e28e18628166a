/* move.c — a container goes to another host: it is removed where it is, and made anew where its place was taken first.
 *
 *   queued ─▶ place held ─▶ REMOVE sent ─▶ removed, another uid ─▶ ENSURE sent to the held place ─▶ SUCCEEDED
 *     │           │             │                 │                       │ refused: another place
 *     │           │             │                 │                       │ failed: REMOVE sent there, then another place
 *     │           │             │                 └ nothing fits any more: waits for a place, as a create does
 *     │           │             └ no answer: waits, and is asked again, as for a delete
 *     └───────────┴ cancelled, expired, nothing fits: it stays as it is
 *
 * It has one owner at every moment: the host it leaves, until that has confirmed the removal (or was declared lost); then the host whose place it gets. So it never runs
 * twice, and it does not run in between. A move is an operation in the container's queue: changes wait for it, and it waits for them. What it has done is in the record: the
 * container's `leaving`, the operation's held_host; a new reign goes on from there.
 *
 * Another uid, because hosts remember what they removed by its uid, for good: nothing applies at or below a removal, not even when the container comes back. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

#define MOVE HARPOON__V1__VERB__VERB_MOVE

bool sc_operation_places(const struct sc_operation *op)
{
    return op->verb == HARPOON__V1__VERB__VERB_CREATE || op->verb == MOVE;
}

/* ---- Places that are held ---- */

bool sc_hold_take(struct sc_region *r, struct sc_operation *op, struct sc_host *h, const struct sc_res *res,
                  struct sc_storage *storage, struct sc_group *group)
{
    assert(!op->hold);
    struct sc_hold *x = sc_alloc(r, sizeof *x);
    if (!x)
        return false;
    *x = (struct sc_hold){.host = h, .res = *res, .storage = sc_storage_ref(storage), .group = group, .op = op};
    sc_list_init(&x->link);
    sc_list_init(&x->preemption);
    sc_list_append(&r->holds, &x->link);
    op->hold = x;
    sc_storage_count(h, storage, 1);
    sc_host_claim(r, h, NULL, res);
    sc_host_dirty(r, h, false);
    if (group)
        sc_group_move(r, group, h, 1);
    return !r->failed;
}

void sc_hold_resize(struct sc_region *r, struct sc_operation *op, const struct sc_res *res)
{
    if (sc_preempt_under_way(op)) {
        sc_preempt_resized(r, op);
        return;
    }
    sc_host_claim(r, op->hold->host, &op->hold->res, res);
    sc_host_dirty(r, op->hold->host, false);
    sc_pending_freed(r, op->hold->host);
    op->hold->res = *res;
}

void sc_hold_drop(struct sc_region *r, struct sc_operation *op)
{
    struct sc_hold *x = op->hold;
    if (!x)
        return;
    sc_list_remove(&x->preemption);
    sc_storage_count(x->host, x->storage, -1);
    sc_host_claim(r, x->host, &x->res, NULL);
    sc_host_dirty(r, x->host, false);
    if (x->group)
        sc_group_move(r, x->group, x->host, -1);
    sc_pending_freed(r, x->host);
    sc_list_remove(&x->link);
    sc_storage_unref(x->storage);
    free(x);
    op->hold = NULL;
    sc_operation_dirty(r, op);
}

/* ---- What may move, and where to ---- */

enum sc_stay sc_move_stay(const struct sc_container *c)
{
    const Harpoon__V1__ContainerSpec *spec = sc_body(c)->spec;
    if (!spec->stateless)
        return SC_STAYS_STATE;
    if (spec->n_volumes)
        return SC_STAYS_VOLUMES;
    if (spec->placement && *spec->placement->host)
        return SC_STAYS_HOST;
    return sc_container_has_ended(c) ? SC_STAYS_ENDED : SC_MOVES;
}

const char *sc_stay_text(enum sc_stay stay)
{
    static const char *const texts[] = {[SC_STAYS_STATE] = "not stateless",
                                        [SC_STAYS_VOLUMES] = "with volumes on the host",
                                        [SC_STAYS_HOST] = "asked for on this host by name",
                                        [SC_STAYS_ENDED] = "ended by itself: would run a second time"};
    return texts[stay];
}

const char *sc_move_stays(const struct sc_container *c)
{
    return sc_stay_text(sc_move_stay(c));
}

bool sc_move_group_busy(const struct sc_container *c)
{
    const struct sc_group *gang = sc_gang_of(c->region, c);
    return (gang && gang->moving) || (sc_traits(c)->group && sc_traits(c)->group->moving) ||
           (sc_traits(c)->affine && sc_traits(c)->affine->moving) ||
           (sc_traits(c)->spread && sc_traits(c)->spread->moving);
}

/* Nothing new may go where it is, or `c` alone is there. */
static bool is_stranded(const struct sc_group *g, const struct sc_host *from)
{
    for (size_t i = 0; i < g->count; i++) {
        const struct sc_group_member *m = &g->members[i];
        bool alone = m->host == from && m->count == 1;
        if (!alone && !sc_host_slot(m->host)->cordoned)
            return false;
    }
    return true;
}

void sc_move_relax(struct sc_region *r, struct sc_query *q, const struct sc_container *c)
{
    if (!q->affine || !is_stranded(sc_traits(c)->affine, c->host))
        return;
    q->affine = false;
    if (q->only == r->only) {
        q->only = NULL;
        q->only_count = 0;
    }
}

void sc_move_count_here(struct sc_region *r, const struct sc_container *c, int delta)
{
    if (sc_traits(c)->spread)
        sc_group_move(r, sc_traits(c)->spread, c->host, delta);
    if (c->primary)
        sc_places_primaries(r, c->host, delta);
}

static void explain(struct sc_region *r, const struct sc_query *q, const struct sc_host *named, char *out, size_t size)
{
    int rejected[SC_FILTER_COUNT];
    if (named) {
        sc_place_survey(r->slots, r->slot_count, q);
        snprintf(out, size, "host \"%s\" does not fit: %s", named->info.name,
                 sc_filter_name(sc_slot_check(sc_host_slot(named), q)));
        return;
    }
    sc_place_count(r->slots, r->slot_count, q, rejected);
    sc_place_reason(rejected, r->slot_count, out, size);
}

struct sc_host *sc_move_find(struct sc_region *r, struct sc_container *c, const char *wanted, char *reason,
                             size_t reason_size)
{
    struct sc_query q;
    const struct sc_host *named = wanted ? hp_map_get(&r->hosts, wanted) : NULL;
    assert(c->host);
    sc_move_count_here(r, c, -1);
    sc_query_of(r, &q, c, NULL);
    sc_move_relax(r, &q, c);
    sc_host_slot(c->host)->excluded_stamp = q.stamp;
    if (wanted)
        sc_query_only(&q, named);
    ptrdiff_t best = sc_places_best(r, &q);
    if (best < 0 && reason)
        explain(r, &q, named, reason, reason_size);
    sc_move_count_here(r, c, 1);
    return best >= 0 ? r->slots[best].info->host : NULL;
}

/* ---- The course of a move ---- */

bool sc_move_waits(const struct sc_container *c)
{
    const struct sc_operation *head = sc_container_head(c);
    return head && head->verb == MOVE && c->host && head->stage == HARPOON__V1__STAGE__STAGE_RECORDED &&
           !sc_container_removing(c);
}

bool sc_move_past(const struct sc_operation *op)
{
    const struct sc_container *c = op->container;
    assert(op->verb == MOVE && c);
    if (sc_container_head(c) != op)
        return false;
    if (!c->host)
        return true;
    return op->stage >= (int)(c->leaving ? HARPOON__V1__STAGE__STAGE_DISPATCHED : HARPOON__V1__STAGE__STAGE_PLACED);
}

/* Its removal from its host, as a part of the move, begins or is over. */
static void leave(struct sc_container *c, const struct sc_operation *op, bool leaving)
{
    if (op->preempted_by && c->leaving != leaving)
        c->region->victims += leaving ? 1 : -1;
    c->leaving = leaving;
}

static struct sc_operation *drain_of(const struct sc_region *r, const struct sc_operation *op)
{
    return *op->parent && !op->preempted_by ? hp_map_get(&r->operations, op->parent) : NULL;
}

static void count(struct sc_region *r, const struct sc_operation *op, int delta)
{
    const struct sc_container *c = op->container;
    struct sc_operation *drain = drain_of(r, op);
    struct sc_group *gang = sc_gang_of(r, c);
    if (gang)
        gang->moving += delta;
    if (sc_traits(c)->group)
        sc_traits(c)->group->moving += delta;
    if (sc_traits(c)->affine)
        sc_traits(c)->affine->moving += delta;
    if (sc_traits(c)->spread)
        sc_traits(c)->spread->moving += delta;
    if (drain && drain->active)
        drain->moving += delta;
    assert(!drain || drain->moving >= 0);
}

static void enlist(struct sc_region *r, struct sc_container *c, struct sc_operation *op)
{
    op->container = c;
    strcpy(op->uid, c->uid);
    sc_container_bump(r, c);
    op->generation = c->generation;
    memcpy(c->operation_id, op->id, sizeof c->operation_id);
    if (sc_container_head(c))
        sc_operation_reason(r, op, "waits for earlier operations on the container");
    sc_list_append(&c->queue, &op->queue);
    count(r, op, 1);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
}

static void begin(struct sc_region *r, struct sc_container *c, struct sc_operation *op, struct sc_host *to)
{
    char text[160];
    assert(sc_move_waits(c) && to != c->host && (to || op->preempted_by));
    if (to && !sc_hold_take(r, op, to, &sc_traits(c)->claim, c->storage, sc_traits(c)->group))
        return;
    leave(c, op, true);
    sc_container_renumber(r, c);
    sc_container_sync(r, c, false);
    strcpy(op->host, c->host->info.name);
    sc_operation_reason(r, op, NULL);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    if (to)
        snprintf(text, sizeof text, "to host \"%s\"", to->info.name);
    else
        snprintf(text, sizeof text, "it will wait for a place");
    sc_container_event(r, c, "moving", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, text);
}

/* Nothing was sent: it is taken out of the queue, the host is told the present generation, and all is as before. */
static void stay(struct sc_region *r, struct sc_container *c, struct sc_operation *op)
{
    if (sc_container_head(c) == op)
        leave(c, op, false);
    sc_list_remove(&op->queue);
    sc_change_rebuild(r, c);
    sc_container_bump(r, c);
    sc_container_sync(r, c, true);
    sc_change_claim(r, c);
}

bool sc_move_begin(struct sc_region *r, struct sc_container *c)
{
    char reason[512];
    struct sc_operation *op = sc_container_head(c);
    assert(sc_move_waits(c));
    const char *stays = sc_move_stays(c); /* by a change that was before it in the queue */
    struct sc_host *to = stays || op->wanted_host ? NULL : sc_reserve_use(r, c, op);
    if (!stays && !to)
        to = sc_move_find(r, c, op->wanted_host, reason, sizeof reason);
    if (to) {
        begin(r, c, op, to);
        return true;
    }
    stay(r, c, op);
    sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_FAILED,
                     stays ? hp_status_new(HP_CODE_FAILED_PRECONDITION, "CONTAINER_STAYS", "it may not move: %s", stays)
                           : hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "NO_PLACE", "%s", reason));
    return false;
}

void sc_move_undo(struct sc_region *r, struct sc_container *c, struct sc_operation *op)
{
    assert(!sc_move_past(op));
    stay(r, c, op);
}

void sc_move_overtaken(struct sc_container *c, const struct sc_operation *op)
{
    assert(op->container == c);
    c->remove_sent |= c->leaving && op->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED;
    leave(c, op, false);
}

void sc_move_over(struct sc_region *r, struct sc_operation *op, int stage)
{
    struct sc_operation *drain = drain_of(r, op);
    if (sc_container_head(op->container) == op)
        leave(op->container, op, false);
    sc_hold_drop(r, op);
    count(r, op, -1);
    if (!drain || !drain->active || stage != HARPOON__V1__STAGE__STAGE_SUCCEEDED)
        return;
    drain->moved++;
    sc_operation_dirty(r, drain);
}

void sc_move_load(struct sc_region *r, struct sc_operation *op, const char *held)
{
    struct sc_host *h = *held ? hp_map_get(&r->hosts, held) : NULL;
    count(r, op, 1);
    if (op->preempted_by && op->container->leaving && sc_container_head(op->container) == op)
        r->victims++;
    if (h)
        sc_hold_take(r, op, h, &sc_traits(op->container)->claim, op->container->storage,
                     sc_traits(op->container)->group);
}

bool sc_place_fits(struct sc_region *r, const struct sc_container *c, const struct sc_operation *op,
                   const struct sc_host *h)
{
    struct sc_query q;
    sc_query_of(r, &q, c, op);
    sc_move_relax(r, &q, c);
    sc_place_survey(r->slots, r->slot_count, &q);
    return sc_slot_check(sc_host_slot(h), &q) == SC_FITS;
}

void sc_move_removed(struct sc_region *r, struct sc_container *c)
{
    struct sc_operation *op = sc_container_head(c);
    struct sc_host *to = op->hold ? op->hold->host : NULL;
    assert(c->leaving && op->verb == MOVE);
    leave(c, op, false);
    sc_container_event(r, c, "removed", HARPOON__V1__SEVERITY__SEVERITY_INFO, op, "it will be made on another host");
    sc_hold_drop(r, op);
    sc_container_assign(r, c, NULL);
    *op->host = '\0';
    sc_container_reborn(r, c);
    if (r->failed)
        return;
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    if (to && !r->restored && !sc_stray_bars(r, op) && sc_place_fits(r, c, op, to))
        sc_place_on(r, c, op, to, "creating");
    else if (op->active)
        sc_place(r, c, op, "creating");
}

bool sc_move_elsewhere(struct sc_region *r, struct sc_container *c, struct sc_operation *op,
                       const Google__Rpc__Status *error)
{
    char text[512];
    if (op->excluded_count >= SC_EXCLUDED_MAX)
        return false;
    sc_operation_exclude(r, op, c->host, false);
    snprintf(text, sizeof text, "host \"%s\" could not make it: %s", c->host->info.name,
             error ? error->message : "no reason given");
    sc_container_event(r, c, "moving", HARPOON__V1__SEVERITY__SEVERITY_WARNING, op, text);
    leave(c, op, true);
    sc_container_renumber(r, c);
    sc_container_next(r, c);
    return true;
}

/* ---- Asked for by a drain, or by what has a higher priority ---- */

void sc_move_start(struct sc_region *r, struct sc_container *c, struct sc_operation *by, struct sc_host *to)
{
    bool preempts = by->verb == HARPOON__V1__VERB__VERB_CREATE;
    char request_id[128], id[HP_OPERATION_ID_LEN + 1];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    int64_t left_s = (by->deadline_ns - r->time.wall_ns) / 1000000000;
    snprintf(request_id, sizeof request_id, "%s-%s-%s-%" PRId64, preempts ? "preempt" : "drain", by->id, c->uid,
             c->generation);
    hp_operation_id(id, sc_traits(c)->project->name, request_id);
    if (hp_map_get(&r->operations, id))
        return;
    q.operation_id = id;
    q.project = sc_traits(c)->project->name;
    q.request_id = request_id;
    q.principal = by->principal;
    struct sc_operation *op = sc_operation_begin(r, &q, MOVE, c->name, left_s > 0 ? (int)left_s : 1);
    if (!op)
        return;
    strcpy(op->parent, by->id);
    if (preempts && !(op->preempted_by = sc_strdup(r, by->target)))
        return;
    enlist(r, c, op);
    sc_timer_set(r, &op->expiry, (uint64_t)(op->deadline_ns - r->time.wall_ns) / 1000000);
    begin(r, c, op, to);
    sc_container_next(r, c);
}

/* ---- Asked for by its owner ---- */

static Google__Rpc__Status *refuse(int code, const char *reason, const struct sc_container *c, const char *text)
{
    return hp_status_add_precondition(hp_status_new(code, reason, "container \"%s\" %s", c->name, text), reason,
                                      c->name, text);
}

static Google__Rpc__Status *check_place(struct sc_region *r, struct sc_container *c, const char *wanted)
{
    char reason[512];
    if (wanted && !hp_map_get(&r->hosts, wanted))
        return hp_status_add_metadata(
            hp_status_new(HP_CODE_NOT_FOUND, "HOST_NOT_FOUND", "host \"%s\" does not exist", wanted), "host", wanted);
    if (!c->host || !sc_list_empty(&c->queue) || sc_reserve_find(r, c->name) ||
        sc_move_find(r, c, wanted, reason, sizeof reason))
        return NULL;
    return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "NO_PLACE", "container \"%s\" has no other place: %s", c->name,
                         reason);
}

static Google__Rpc__Status *check(struct sc_region *r, struct sc_container *c, const char *name,
                                  const Harpoon__V1__MoveContainerRequest *q)
{
    char text[128];
    Google__Rpc__Status *s = sc_change_check(c, name, q->etag);
    if (s)
        return s;
    const char *stays = sc_move_stays(c);
    if (stays) {
        snprintf(text, sizeof text, "may not move: %s", stays);
        return refuse(HP_CODE_FAILED_PRECONDITION, "CONTAINER_STAYS", c, text);
    }
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next)
        if (SC_OWNER(l, struct sc_operation, queue)->verb == MOVE)
            return refuse(HP_CODE_FAILED_PRECONDITION, "CONTAINER_MOVING", c, "is moving already");
    if (sc_move_group_busy(c))
        return refuse(HP_CODE_FAILED_PRECONDITION, "GROUP_MOVING", c, "is of a group of which another one is moving");
    if (c->host && !sc_host_answers(c->host))
        return refuse(HP_CODE_FAILED_PRECONDITION, "HOST_SILENT", c, "is on a host that does not answer");
    if (r->active_count >= r->config.operations_max)
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "REGION_FULL", "%zu operations are under way already",
                             r->active_count);
    return check_place(r, c, *q->host ? q->host : NULL);
}

Google__Rpc__Status *sc_move_decide(struct sc_region *r, struct sc_operation *op,
                                    const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    struct sc_container *c = sc_container_find(r, op->target);
    Google__Rpc__Status *s = check(r, c, op->target, q->move);
    if (s || dry_run)
        return s;
    if (*q->move->host)
        op->wanted_host = sc_strdup(r, q->move->host);
    enlist(r, c, op);
    if (sc_container_head(c) == op)
        sc_container_next(r, c);
    return NULL;
}
