/* pending.c — finding a host for a create, and trying again those that found none when there is more room. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"

/* Only the hosts that have containers of the group are asked; all, when none has. */
static void keep_together(struct sc_region *r, struct sc_query *q, const struct sc_group *g)
{
    if (!g || !g->count)
        return;
    if (g->count > r->only_room) {
        uint32_t *only = realloc(r->only, g->count * sizeof *only);
        if (!only) {
            sc_fail(r, HP_ENOMEM);
            return;
        }
        r->only = only;
        r->only_room = g->count;
    }
    for (size_t i = 0; i < g->count; i++) {
        sc_host_slot(g->members[i].host)->affine_stamp = q->stamp;
        r->only[i] = g->members[i].host->info.at;
    }
    q->affine = true;
    if (q->only) /* by name: the check tells */
        return;
    q->only = r->only;
    q->only_count = g->count;
}

void sc_query_only(struct sc_query *q, const struct sc_host *named)
{
    static const uint32_t nowhere;
    q->only = named ? &named->info.at : &nowhere;
    q->only_count = named != NULL;
}

static void spread_out(struct sc_region *r, struct sc_query *q, const char *project)
{
    const Harpoon__V1__PlacementSpec *p = q->spec;
    struct sc_topology *t = q->topology = &r->topology;
    q->primary = p->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY;
    q->spread = *p->spread_group != '\0';
    if (!q->spread)
        return;
    const struct sc_group *g = sc_group_find(r, "=", project, p->spread_group);
    sc_topology_clear(t);
    for (size_t i = 0; g && i < g->count; i++)
        sc_topology_mark(t, g->members[i].host->info.at, g->members[i].count);
    for (size_t i = 0; i < p->n_spread_constraints; i++) {
        int level = (int)p->spread_constraints[i]->topology - (int)HARPOON__V1__TOPOLOGY__TOPOLOGY_ZONE;
        if (level >= 0 && level < SC_LEVELS)
            q->max_skew[level] = p->spread_constraints[i]->max_skew;
    }
}

void sc_query_init(struct sc_region *r, struct sc_query *q, const struct sc_res *need,
                   const Harpoon__V1__ContainerSpec *spec, const char *project, const struct sc_operation *op)
{
    if (++r->stamp == 0) {
        for (size_t i = 0; i < r->slot_count; i++)
            r->slots[i].excluded_stamp = r->slots[i].group_stamp = r->slots[i].affine_stamp = 0;
        r->stamp = 1;
    }
    const Harpoon__V1__PlacementSpec *wish = spec ? spec->placement : NULL;
    *q = (struct sc_query){.need = *need,
                           .spec = wish,
                           .weights = sc_places_weights(r, wish),
                           .stamp = r->stamp,
                           .needs = (uint8_t)hp_spec_needs(spec),
                           .mode = sc_network_need(spec),
                           .network = r->function_hosts > 0};
    const struct sc_image *image = spec && q->weights->image ? sc_images_find(&r->images, spec->image) : NULL;
    if (image && r->slot_count) {
        q->image = true;
        q->image_hosts = image->hosts;
        q->image_count = image->count;
        q->image_part = (int32_t)((int64_t)SC_UNIT * image->count / (int64_t)r->slot_count);
    }
    q->storage = r->needs;
    q->storage_count = sc_storage_needs(spec, r->needs);
    q->storage_counts = q->storage_count || r->storage_hosts;
    if (wish && *wish->host) {
        sc_query_only(q, hp_map_get(&r->hosts, wish->host));
    }
    if (wish && *wish->anti_affinity_group) {
        struct sc_group *g = sc_group_find(r, "", project, wish->anti_affinity_group);
        for (size_t i = 0; g && i < g->count; i++)
            sc_host_slot(g->members[i].host)->group_stamp = q->stamp;
    }
    if (wish && *wish->affinity_group)
        keep_together(r, q, sc_group_find(r, "+", project, wish->affinity_group));
    if (wish)
        spread_out(r, q, project);
    for (size_t i = 0; op && i < op->excluded_count; i++) {
        struct sc_host *h = hp_map_get(&r->hosts, op->excluded[i]);
        bool passed = h && (op->excluded_passing & 1U << i) && !hp_load_open_set(&h->load);
        if (h && !passed)
            sc_host_slot(h)->excluded_stamp = q->stamp;
    }
}

void sc_query_of(struct sc_region *r, struct sc_query *q, const struct sc_container *c, const struct sc_operation *op)
{
    const Harpoon__V1__ContainerSpec *spec = sc_body(c)->spec; /* opens it, and its traits move */
    const struct sc_traits *t = sc_traits(c);                  /* without memory, its own: a spare body has none */
    sc_query_init(r, q, &t->claim, spec, t->project->name, op);
}

void sc_place_on(struct sc_region *r, struct sc_container *c, struct sc_operation *op, struct sc_host *h,
                 const char *what)
{
    sc_pending_remove(r, op);
    sc_container_assign(r, c, h);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING, "");
    strcpy(op->host, h->info.name);
    sc_operation_reason(r, op, NULL);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    sc_container_event(r, c, what, HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
    sc_container_next(r, c);
}

/* The gang with which it gets its place; what moves has had one. */
static struct sc_group *gang_for(const struct sc_region *r, const struct sc_operation *op)
{
    return op->verb == HARPOON__V1__VERB__VERB_CREATE ? sc_gang_of(r, op->container) : NULL;
}

static void query(struct sc_region *r, struct sc_query *q, const struct sc_container *c, const struct sc_operation *op)
{
    sc_query_of(r, q, c, op);
    if (op->verb == HARPOON__V1__VERB__VERB_MOVE)
        sc_move_relax(r, q, c);
}

static void wait(struct sc_region *r, struct sc_container *c, struct sc_operation *op, const char *what,
                 const char *reason)
{
    char text[1024];
    if (op->preempted_by) {
        snprintf(text, sizeof text, "had to make room for \"%s\"; %s", op->preempted_by, reason);
        reason = text;
    }
    sc_operation_reason(r, op, reason);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, reason);
    sc_container_event(r, c, !strcmp(what, "creating") ? "pending" : what, HARPOON__V1__SEVERITY__SEVERITY_WARNING, op,
                       reason);
    sc_pending_add(r, op);
}

void sc_place(struct sc_region *r, struct sc_container *c, struct sc_operation *op, const char *what)
{
    struct sc_query q;
    int rejected[SC_FILTER_COUNT];
    char reason[512];
    assert(sc_operation_places(op) && !c->host);
    if (r->restored) {
        wait(r, c, op, what, sc_restore_waits());
        return;
    }
    struct sc_group *gang = gang_for(r, op);
    if (gang && !gang->count) {
        wait(r, c, op, what, "waits for the others of its gang to be created");
        if (sc_gang_complete(c, gang))
            sc_gang_try(r, gang);
        return;
    }
    if (sc_stray_bars(r, op))
        return;
    query(r, &q, c, op);
    ptrdiff_t best = sc_places_best(r, &q);
    if (best >= 0) {
        sc_place_on(r, c, op, r->slots[best].info->host, what);
        return;
    }
    sc_place_count(r->slots, r->slot_count, &q, rejected);
    sc_place_reason(rejected, r->slot_count, reason, sizeof reason);
    wait(r, c, op, what, reason);
}

void sc_pending_add(struct sc_region *r, struct sc_operation *op)
{
    assert(!op->pending && op->stage == HARPOON__V1__STAGE__STAGE_RECORDED);
    op->pending = true;
    r->pending_count++;
    sc_list_append(&r->pending, &op->wait);
    sc_preempt_waits(r, op);
    struct sc_group *gang = gang_for(r, op);
    if (!gang)
        return;
    sc_list_append(&gang->waiting, &op->gang);
    gang->waiting_count++;
}

void sc_pending_remove(struct sc_region *r, struct sc_operation *op)
{
    if (!op->pending)
        return;
    if (r->pending_next == &op->wait)
        r->pending_next = op->wait.next;
    op->pending = false;
    assert(r->pending_count > 0);
    r->pending_count--;
    sc_list_remove(&op->wait);
    sc_preempt_over(r, op);
    struct sc_group *gang = gang_for(r, op);
    if (!gang)
        return;
    sc_list_remove(&op->gang);
    assert(gang->waiting_count > 0);
    gang->waiting_count--;
}

void sc_slots_add(struct sc_slots *f, const struct sc_host *h)
{
    if (f->all)
        return;
    for (size_t i = 0; i < f->count; i++)
        if (f->index[i] == h->info.at)
            return;
    if (f->count == SC_SLOTS_MAX)
        f->all = true;
    else
        f->index[f->count++] = h->info.at;
}

void sc_pending_freed(struct sc_region *r, const struct sc_host *h)
{
    sc_preempt_freed(r, h);
    r->more_room = true;
    if (r->pending_count)
        sc_slots_add(&r->freed, h);
}

void sc_pending_changed(struct sc_region *r)
{
    r->freed.all = true;
    r->prey.all = true;
}

void sc_pending_skewed(struct sc_region *r)
{
    r->freed.skew |= r->pending_count > 0;
}

/* Among the hosts of the try under way. */
static struct sc_host *find(struct sc_region *r, struct sc_query *q)
{
    bool skew = r->tried.skew && q->spread && q->spec->n_spread_constraints;
    if (!r->tried.all && !skew && !q->only) {
        q->only = r->tried.index;
        q->only_count = r->tried.count;
    }
    ptrdiff_t i = sc_places_best(r, q);
    return i >= 0 ? r->slots[i].info->host : NULL;
}

static void try_one(struct sc_region *r, struct sc_operation *op)
{
    struct sc_query q;
    struct sc_container *c = op->container;
    struct sc_group *gang = gang_for(r, op);
    if (sc_preempt_under_way(op))
        return;
    if (gang && !gang->count) {
        if (gang->waiting.next == &op->gang && sc_gang_complete(c, gang)) /* once for all of it */
            sc_gang_try(r, gang);
        return;
    }
    if (sc_stray_bars(r, op))
        return;
    query(r, &q, c, op);
    struct sc_host *h = find(r, &q);
    if (h)
        sc_place_on(r, c, op, h, "creating");
}

void sc_pending_try(struct sc_region *r)
{
    if (r->restored)
        return;
    if (!r->pending_next) {
        if (!r->pending_count || !(r->freed.all || r->freed.count || r->freed.skew)) {
            r->freed = (struct sc_slots){0};
            return;
        }
        r->tried = r->freed;
        r->freed = (struct sc_slots){0};
        r->pending_next = r->pending.next;
    }
    for (int tries = 0; r->pending_next != &r->pending && tries < SC_PENDING_TRIES && !r->failed; tries++) {
        struct sc_operation *op = SC_OWNER(r->pending_next, struct sc_operation, wait);
        r->pending_next = op->wait.next;
        try_one(r, op);
    }
    if (r->pending_next == &r->pending)
        r->pending_next = NULL;
    if (r->pending_next || r->freed.all || r->freed.count || r->freed.skew)
        sc_timer_set(r, &r->pending_timer, 0);
}
