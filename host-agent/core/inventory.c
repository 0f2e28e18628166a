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
    size_t count, spec_bytes;
    int64_t request_id;
};

/* A page speaks of what may not be durable yet, and nobody may build on what a crash can take back. */
static void hold(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m)
{
    struct ha_bytes body = ha_fx_pack(core, m);
    struct ha_page *p = body.data ? malloc(sizeof *p) : NULL;
    if (!p) {
        free(body.data);
        core->out_of_memory = true;
        return;
    }
    *p = (struct ha_page){NULL, core->written_seq, body};
    if (core->pages)
        core->pages_last->next = p;
    else
        core->pages = p;
    core->pages_last = p;
}

void ha_inventory_pump(struct ha_core *core)
{
    for (struct ha_page *p; (p = core->pages) && p->seq <= core->synced_seq;) {
        core->pages = p->next;
        ha_fx_send_owned(core, p->body);
        free(p);
    }
}

void ha_inventory_drop(struct ha_core *core)
{
    for (struct ha_page *p; (p = core->pages);) {
        core->pages = p->next;
        ha_bytes_done(&p->body);
        free(p);
    }
}

static void flush(struct ha_core *core, struct page *p, bool last)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Inventory i = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY;
    m.inventory = &i;
    i.request_id = p->request_id;
    i.last = last;
    i.reports_below = core->report_next;
    i.items = p->at;
    i.n_items = p->count;
    p->count = p->spec_bytes = 0;
    hold(core, &m);
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

static void add_spec(struct ha_core *core, struct page *p, const struct ha_container *c)
{
    Harpoon__Internal__V1__InventoryItem *i = &p->items[p->count - 1];
    if (c->r.spec.len > HA_INVENTORY_SPEC_MAX)
        return;
    i->spec.data = c->r.spec.data; /* packed when the page is: before anything changes */
    i->spec.len = c->r.spec.len;
    p->spec_bytes += c->r.spec.len;
    if (p->spec_bytes >= HA_INVENTORY_BYTES)
        flush(core, p, false);
}

void ha_report_inventory(struct ha_core *core, int64_t request_id, bool specs)
{
    struct page *p = calloc(1, sizeof *p);
    if (!p) {
        core->out_of_memory = true;
        return;
    }
    assert(!core->fx->write_count); /* everything told has been handed to the journal */
    ha_inventory_drop(core);        /* one that was asked for before is not waited for any more */
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
        if (specs)
            add_spec(core, p, c);
    }
    for (struct hp_map_node *n = hp_map_first(&core->tombstones); n; n = hp_map_next(n)) {
        struct ha_grave *g = n->value;
        if ((!g->t.report_id && !specs) || ha_container_find(core, g->t.uid))
            continue; /* the scheduler has taken it in: but who asks with specs may have an older record; or it was made anew */
        Harpoon__Internal__V1__InventoryItem *i = item_new(core, p);
        i->uid = g->t.uid;
        i->generation = g->t.generation;
        i->tombstone = true;
    }
    flush(core, p, true);
    free(p);
    ha_inventory_pump(core);
}
