/* check.c — what must hold in a region between two steps; for tests and simulations. */
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"

/* Of those at rest one in so many is opened, others next time: what is at rest does not change. */
enum { REST_SHARE = 8 };

static void check_host(const struct sc_host *h)
{
    const struct sc_slot *s = sc_host_slot(h);
    struct sc_res sum = {0};
    int64_t count = 0;
    int32_t primaries = 0;
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        assert(c->host == h);
        sc_res_add(&sum, &sc_traits(c)->claim);
        primaries += c->primary;
        count++;
    }
    int preemptions = 0;
    for (const struct sc_list *l = h->region->preemptions.next; l != &h->region->preemptions; l = l->next)
        preemptions += SC_OWNER(l, struct sc_hold, preemption)->host == h;
    assert(preemptions <= 1);
    for (const struct sc_list *l = h->region->holds.next; l != &h->region->holds; l = l->next) {
        const struct sc_hold *x = SC_OWNER(l, struct sc_hold, link);
        if (x->host == h)
            sc_res_add(&sum, &x->res);
    }
    assert(count == h->container_count);
    assert(primaries == h->region->topology.levels[SC_LEVEL_HOST].items[h->info.at].primaries);
    assert(s->info->host == h && !memcmp(&sum, &s->info->claimed, sizeof sum));
    sc_places_check(h->region, h);
    sc_storage_check(h);
    sc_images_check(&h->region->images, &h->images, h->info.at);
    assert(s->info->smaller || (s->free.cpu_millis >= 0 && s->free.memory_bytes >= 0 && s->free.disk_bytes >= 0));
    assert(s->info->smaller || !sc_network_overdrawn(s));
}

static void check_body(const struct sc_container *c)
{
    Harpoon__V1__Container *body = c->open ? sc_body(c) : sc_body_peek(c);
    assert(body && !c->open == (c->common && c->own));
    struct sc_res need = sc_spec_res(body->spec);
    const struct sc_res *claim = &sc_traits(c)->claim;
    if (c->host)
        assert(claim->cpu_millis >= need.cpu_millis && claim->memory_bytes >= need.memory_bytes &&
               claim->network_bps >= need.network_bps && claim->functions >= need.functions);
    sc_storage_check_claim(c, body->spec);
    const Harpoon__V1__PlacementSpec *p = body->spec->placement;
    assert(c->primary == (c->host && p && p->role == HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY));
    if (!c->open)
        harpoon__v1__container__free_unpacked(body, NULL);
}

static void check_container(const struct sc_region *r, const struct sc_container *c)
{
    if (c->open || (c->region->sequence + c->generation) % REST_SHARE == 0)
        check_body(c);
    assert(sc_container_of(r, c->uid) == c && sc_container_find(r, c->name) == c);
    assert(!c->delete_op || (c->delete_op->active && c->deleting));
    assert(!c->remove_sent || c->deleting);
    assert(!c->leaving || (!c->deleting && !c->cleanup && c->host));
    assert(!c->leaving || (sc_container_head(c) && sc_container_head(c)->verb == HARPOON__V1__VERB__VERB_MOVE));
    assert(c->flight == SC_WANT_NOTHING || c->host);
    assert(c->open || (c->flight == SC_WANT_NOTHING && !c->dirty && !c->delete_op && sc_list_empty(&c->queue)));
    bool first = true;
    for (const struct sc_list *l = c->queue.next; l != &c->queue; l = l->next) {
        const struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        assert(op->active && op->container == c);
        assert(first || op->stage == HARPOON__V1__STAGE__STAGE_RECORDED);
        assert(first || op->verb != HARPOON__V1__VERB__VERB_CREATE);
        first = false;
    }
}

static void check_backlog(const struct sc_region *r)
{
    size_t count = 0, flying = 0, waiting = 0;
    int64_t last = r->watermark;
    for (const struct sc_list *l = r->backlog.next; l != &r->backlog; l = l->next) {
        const struct sc_backlog *b = SC_OWNER(l, struct sc_backlog, link);
        assert(b->sequence == last + 1 || (r->hole_to && last == r->hole_after && b->sequence == r->hole_to + 1));
        assert(!b->confirmed || !b->waits);
        last = b->sequence;
        count++;
        waiting += b->waits;
        flying += !b->waits && !b->confirmed;
    }
    assert(count == r->backlog_count && flying == r->flying_count && waiting == r->waiting_count);
    assert(flying <= r->config.publish_max);
    assert(!r->hole_to || (r->hole_after < r->hole_to && r->hole_after >= r->watermark));
}

static void check_rest(const struct sc_region *r, size_t containers, size_t opened)
{
    size_t count = 0, refs = 0, shares = 0;
    for (const struct sc_list *l = r->opened.next; l != &r->opened; l = l->next) {
        const struct sc_open *o = SC_OWNER(l, struct sc_open, link);
        assert(o->container->open == o && o->pb->name == o->container->name && o->pb->uid == o->container->uid);
        count++;
    }
    for (size_t i = 0; i < r->shares.bucket_count; i++)
        for (const struct sc_share *x = r->shares.buckets[i]; x; x = x->chain, shares++)
            refs += x->refs;
    assert(count == opened && count == r->opened_count);
    assert(refs == containers - opened && shares == r->shares.count);
}

void sc_region_check(const struct sc_region *r)
{
    size_t active = 0, pending = 0, containers = 0, opened = 0;
    int64_t victims = 0;
    for (struct hp_map_node *n = hp_map_first(&r->hosts); n; n = hp_map_next(n))
        check_host(n->value);
    for (struct sc_list *l = r->all.next; l != &r->all; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, order);
        check_container(r, c);
        containers++;
        opened += c->open != NULL;
        victims += c->leaving && sc_container_head(c)->preempted_by;
    }
    assert(victims == r->victims);
    for (struct hp_map_node *n = hp_map_first(&r->operations); n; n = hp_map_next(n)) {
        const struct sc_operation *op = n->value;
        assert(op->active == !sc_stage_ended(op->stage));
        assert(!op->active || op->container || op->verb == HARPOON__V1__VERB__VERB_DRAIN || op->hold);
        assert(!op->hold || (op->active && (op->container || op->verb == HARPOON__V1__VERB__VERB_RESERVE)));
        assert(op->active || !op->pending);
        assert(!sc_preempt_under_way(op) || (op->pending && op->verb == HARPOON__V1__VERB__VERB_CREATE));
        active += op->active;
        pending += op->pending;
    }
    assert(active == r->active_count && pending == r->pending_count);
    assert(r->watermark <= r->sequence);
    check_backlog(r);
    assert(r->uids.count == containers && r->containers.count == containers);
    check_rest(r, containers, opened);
}
