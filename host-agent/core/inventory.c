#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

void ha_report_journalled(struct ha_core *core, const struct ha_container *c)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandJournalled j = HARPOON__INTERNAL__V1__COMMAND_JOURNALLED__INIT;
    assert(c->r.intent.generation > 0);
    if (!core->link_up)
        return;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_JOURNALLED;
    m.journalled = &j;
    j.report_id = ha_report_next_id(core);
    j.operation_id = (char *)c->r.intent.operation_id;
    j.uid = (char *)c->r.uid;
    j.generation = c->r.intent.generation;
    j.epoch = c->r.intent.epoch;
    ha_fx_send(core, &m);
}

/* One page under way. */
struct page {
    Harpoon__Internal__V1__InventoryItem items[HA_INVENTORY_PAGE];
    Harpoon__Internal__V1__InventoryItem *at[HA_INVENTORY_PAGE];
    struct ha_status status[HA_INVENTORY_PAGE];
    size_t count;
    int64_t request_id;
};

static void flush(struct ha_core *core, struct page *p, bool last)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Inventory i = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY;
    m.inventory = &i;
    i.request_id = p->request_id;
    i.last = last;
    i.items = p->at;
    i.n_items = p->count;
    ha_fx_send(core, &m);
    p->count = 0;
}

static Harpoon__Internal__V1__InventoryItem *item_new(struct ha_core *core, struct page *p)
{
    if (p->count == HA_INVENTORY_PAGE)
        flush(core, p, false);
    Harpoon__Internal__V1__InventoryItem *i = &p->items[p->count];
    harpoon__internal__v1__inventory_item__init(i);
    p->at[p->count++] = i;
    return i;
}

void ha_report_inventory(struct ha_core *core, int64_t request_id)
{
    struct page *p = calloc(1, sizeof *p);
    if (!p) {
        core->out_of_memory = true;
        return;
    }
    p->request_id = request_id;
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n)) {
        struct ha_container *c = n->value;
        Harpoon__Internal__V1__InventoryItem *i = item_new(core, p);
        struct ha_status *s = &p->status[i - p->items];
        ha_status_fill(core, c, s);
        i->container = c->r.name;
        i->uid = c->r.uid;
        i->generation = c->r.generation;
        i->status = &s->pb;
        i->quarantined = c->r.quarantined;
        i->restart_serial = c->r.restart_serial;
    }
    for (struct hp_map_node *n = hp_map_first(&core->tombstones); n; n = hp_map_next(n)) {
        struct ha_grave *g = n->value;
        if (!g->t.report_id)
            continue;
        Harpoon__Internal__V1__InventoryItem *i = item_new(core, p);
        i->uid = g->t.uid;
        i->generation = g->t.generation;
        i->tombstone = true;
    }
    flush(core, p, true);
    free(p);
}
