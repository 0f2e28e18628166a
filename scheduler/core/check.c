/* check.c — what must hold in a region between two steps; for tests and simulations. */
#include <string.h>

#include "core/state.h"

static void check_host(const struct sc_host *h)
{
    const struct sc_slot *s = sc_host_slot(h);
    struct sc_res sum = {0};
    int64_t count = 0;
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        assert(c->host == h);
        sc_res_add(&sum, &c->claim);
        count++;
    }
    assert(count == h->container_count);
    assert(s->info->host == h && !memcmp(&sum, &s->info->claimed, sizeof sum));
    assert(s->free.cpu_millis >= 0 && s->free.memory_bytes >= 0 && s->free.disk_bytes >= 0);
}

static void check_container(const struct sc_region *r, const struct sc_container *c)
{
    struct sc_res need = sc_spec_res(c->pb->spec);
    assert(hp_map_get(&r->uids, c->pb->uid) == c);
    if (c->host)
        assert(c->claim.cpu_millis >= need.cpu_millis && c->claim.memory_bytes >= need.memory_bytes);
    assert(!c->delete_op || (c->delete_op->active && c->deleting));
    assert(!c->remove_sent || c->deleting);
    assert(c->flight == SC_WANT_NOTHING || c->host);
    bool first = true;
    for (const struct sc_list *l = c->queue.next; l != &c->queue; l = l->next) {
        const struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        assert(op->active && op->container == c);
        assert(first || op->stage == HARPOON__V1__STAGE__STAGE_RECORDED);
        assert(first || op->verb != HARPOON__V1__VERB__VERB_CREATE);
        first = false;
    }
}

void sc_region_check(const struct sc_region *r)
{
    size_t active = 0, pending = 0;
    for (struct hp_map_node *n = hp_map_first(&r->hosts); n; n = hp_map_next(n))
        check_host(n->value);
    for (struct hp_map_node *n = hp_map_first(&r->containers); n; n = hp_map_next(n))
        check_container(r, n->value);
    for (struct hp_map_node *n = hp_map_first(&r->operations); n; n = hp_map_next(n)) {
        const struct sc_operation *op = n->value;
        assert(op->active == !sc_stage_ended(op->stage));
        assert(!op->active || op->container);
        assert(op->active || !op->pending);
        active += op->active;
        pending += op->pending;
    }
    assert(active == r->active_count && pending == r->pending_count);
    assert(r->watermark <= r->sequence);
    assert(r->uids.count == r->containers.count);
}
