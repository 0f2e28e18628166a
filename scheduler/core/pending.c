/* pending.c — finding a host for a create, and trying again those that found none when there is more room. */
#include <stdlib.h>
#include <string.h>

#include "core/state.h"

void sc_query_init(struct sc_region *r, struct sc_query *q, const struct sc_res *need,
                   const Harpoon__V1__PlacementSpec *spec, const char *project, const struct sc_operation *op)
{
    if (++r->stamp == 0) {
        for (size_t i = 0; i < r->slot_count; i++)
            r->slots[i].excluded_stamp = r->slots[i].group_stamp = 0;
        r->stamp = 1;
    }
    *q = (struct sc_query){.need = *need, .spec = spec, .stamp = r->stamp};
    if (spec && *spec->anti_affinity_group) {
        char key[512];
        snprintf(key, sizeof key, "%s/%s", project, spec->anti_affinity_group);
        struct sc_group *g = hp_map_get(&r->groups, key);
        for (size_t i = 0; g && i < g->count; i++)
            sc_host_slot(g->members[i].host)->group_stamp = q->stamp;
    }
    for (size_t i = 0; op && i < op->excluded_count; i++) {
        struct sc_host *h = hp_map_get(&r->hosts, op->excluded[i]);
        if (h)
            sc_host_slot(h)->excluded_stamp = q->stamp;
    }
}

static void place_on(struct sc_region *r, struct sc_container *c, struct sc_operation *op, struct sc_host *h,
                     const char *what)
{
    sc_pending_remove(r, op);
    sc_container_assign(r, c, h);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING, "");
    strcpy(op->host, h->name);
    sc_operation_reason(r, op, NULL);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    sc_container_event(r, c, what, HARPOON__V1__SEVERITY__SEVERITY_INFO, op, NULL);
    sc_container_next(r, c);
}

void sc_place(struct sc_region *r, struct sc_container *c, struct sc_operation *op, const char *what)
{
    struct sc_query q;
    int rejected[SC_FILTER_COUNT];
    char reason[512];
    assert(op->verb == HARPOON__V1__VERB__VERB_CREATE && !c->host);
    sc_query_init(r, &q, &c->claim, c->pb->spec->placement, c->project->name, op);
    ptrdiff_t best = sc_place_best(r->slots, r->slot_count, &q, rejected);
    if (best >= 0) {
        place_on(r, c, op, r->slots[best].info->host, what);
        return;
    }
    sc_place_reason(rejected, r->slot_count, reason, sizeof reason);
    sc_operation_reason(r, op, reason);
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING, reason);
    sc_container_event(r, c, !strcmp(what, "creating") ? "pending" : what, HARPOON__V1__SEVERITY__SEVERITY_WARNING, op,
                       reason);
    sc_pending_add(r, op);
}

void sc_pending_add(struct sc_region *r, struct sc_operation *op)
{
    assert(!op->pending && op->stage == HARPOON__V1__STAGE__STAGE_RECORDED);
    op->pending = true;
    r->pending_count++;
    sc_list_append(&r->pending, &op->wait);
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
}

void sc_pending_freed(struct sc_region *r, const struct sc_host *h)
{
    struct sc_slots *f = &r->freed;
    if (f->all || !r->pending_count)
        return;
    for (size_t i = 0; i < f->count; i++)
        if (f->index[i] == h->slot)
            return;
    if (f->count == SC_SLOTS_MAX)
        f->all = true;
    else
        f->index[f->count++] = h->slot;
}

/* Among the hosts of the try under way. */
static struct sc_host *find(struct sc_region *r, const struct sc_query *q)
{
    struct sc_host *best = NULL;
    double best_total = -1;
    if (r->tried.all) {
        ptrdiff_t i = sc_place_best(r->slots, r->slot_count, q, NULL);
        return i >= 0 ? r->slots[i].info->host : NULL;
    }
    for (size_t i = 0; i < r->tried.count; i++) {
        const struct sc_slot *s = &r->slots[r->tried.index[i]];
        struct sc_score score;
        if (sc_slot_check(s, q) != SC_FITS)
            continue;
        sc_slot_score(s, q, &score);
        if (score.total > best_total) {
            best_total = score.total;
            best = s->info->host;
        }
    }
    return best;
}

static void try_one(struct sc_region *r, struct sc_operation *op)
{
    struct sc_query q;
    struct sc_container *c = op->container;
    sc_query_init(r, &q, &c->claim, c->pb->spec->placement, c->project->name, op);
    struct sc_host *h = find(r, &q);
    if (h)
        place_on(r, c, op, h, "creating");
}

void sc_pending_try(struct sc_region *r)
{
    if (!r->pending_next) {
        if (!r->pending_count || !(r->freed.all || r->freed.count)) {
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
    if (r->pending_next || r->freed.all || r->freed.count)
        sc_timer_set(r, &r->pending_timer, 0);
}
