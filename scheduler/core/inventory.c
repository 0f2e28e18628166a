/* inventory.c — the level trigger: what a host has is compared with what it shall have, and the difference is sent. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/agent_limits.h"
#include "wire/digest.h"
#include "wire/names.h"

void sc_inventory_digest(const struct sc_host *h, int32_t *ret_count, uint64_t *ret_digest)
{
    int32_t count = 0;
    uint64_t digest = 0;
    for (struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (c->reported_generation <= 0)
            continue; /* it has not said anything of it yet */
        int desired =
            c->reported_desired ? c->reported_desired : (int)HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
        digest ^= hp_inventory_item_digest(c->uid, c->reported_generation, desired, c->reported_state);
        count++;
    }
    *ret_count = count;
    *ret_digest = digest;
}

void sc_inventory_check(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryDigest *d)
{
    int32_t count;
    uint64_t digest;
    sc_inventory_digest(h, &count, &digest);
    if (sc_host_attached(h) && (count != d->count || digest != d->digest))
        sc_dispatch_inventory(r, h);
}

/* Reports have come from it, and what they said is in no digest: a journal that is new looks like the one that numbered them. */
static bool may_be_new(const struct sc_host *h)
{
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next)
        if (SC_OWNER(l, struct sc_container, on_host)->reported_id > 0)
            return true;
    return false;
}

void sc_inventory_attached(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryDigest *d)
{
    if (d->count == 0 && may_be_new(h))
        sc_dispatch_inventory(r, h);
    else
        sc_inventory_check(r, h, d);
}

static void quarantine(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x)
{
    char text[512];
    if (x->tombstone || strlen(x->uid) != HP_UID_LEN)
        return;
    bool fresh = sc_stray_take(r, h, x);
    if (x->quarantined)
        return;
    snprintf(text, sizeof text, "unknown container \"%.255s\" (uid %s): it is left alone until somebody decides",
             x->container, x->uid);
    if (fresh)
        sc_host_event(r, h, "quarantine", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL, text);
    sc_dispatch_quarantine(r, h, x->container, x->uid, x->generation);
    h->stray = true;
}

/* The host knows a later generation than the record, as after a restored backup: go above it. */
static void overtake(struct sc_region *r, struct sc_container *c, int64_t known)
{
    if (known <= c->generation)
        return;
    c->generation = known;
    sc_container_bump(r, c);
    sc_container_sync(r, c, true);
    struct sc_operation *op = c->delete_op ? c->delete_op : sc_container_head(c);
    if (op) {
        op->generation = c->generation;
        sc_operation_dirty(r, op);
    }
}

/* Reports from here on are newer than the inventory; also with smaller numbers than before: then the journal is another one. */
static void take_number(struct sc_region *r, struct sc_container *c, int64_t reports_below)
{
    int64_t id = reports_below > 0 ? reports_below - 1 : 0;
    if (id < c->reported_id)
        sc_container_dirty(r, c);
    c->reported_id = id;
}

static void take_item(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x,
                      int64_t reports_below)
{
    if (x->generation < 0 || x->generation > HP_GENERATION_MAX)
        return; /* no command can have said so */
    struct sc_container *c = sc_container_of(r, x->uid);
    if (!c) {
        quarantine(r, h, x);
        return;
    }
    if (r->restored && !x->tombstone)
        sc_restore_item(r, h, c, x);
    if (c->host != h) {
        /* Known, but not (any more) here: it was lost with this host, or failed or was refused here. One container has one place. */
        if (x->tombstone)
            return;
        /* A host that has lost its journal knows no generation of what it has. */
        sc_dispatch_remove(r, h, c, x->generation < c->generation ? c->generation : x->generation + 1);
        h->stray = true;
        return;
    }
    c->seen_inventory = h->inventory_id;
    if (x->tombstone) {
        if (!sc_container_removing(c))
            sc_container_gone(r, c);
        else if (x->generation >= sc_container_removal(c))
            sc_settle_removed(r, c);
        else
            sc_dispatch(r, c);
        return;
    }
    take_number(r, c, reports_below);
    if (x->status && x->status->state)
        sc_status_take(r, c, x->status, x->generation, NULL, NULL);
    overtake(r, c, x->generation);
    const struct sc_operation *head = sc_container_head(c);
    if (!(c->deleting || c->cleanup) && !head && (x->generation < c->generation || x->quarantined))
        sc_container_sync(r, c, true);
    if (c->flight == SC_WANT_NOTHING)
        sc_container_next(r, c);
    else if (sc_open(c)->flight_after < h->inventory_id)
        sc_dispatch(r, c);
}

/* What the host should have, and does not list. */
static void send_missing(struct sc_region *r, struct sc_host *h, int64_t reports_below)
{
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (c->seen_inventory == h->inventory_id)
            continue;
        take_number(r, c, reports_below);
        sc_restore_missing(r, c);
        if (c->flight != SC_WANT_NOTHING && sc_open(c)->flight_after >= h->inventory_id)
            continue; /* sent after the question */
        if (sc_list_empty(&c->queue) && !c->deleting && !c->cleanup)
            sc_container_sync(r, c, true);
        sc_dispatch(r, c);
    }
}

void sc_inventory_take(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__Inventory *inv)
{
    if (!h->inventory_id || inv->request_id != h->inventory_id)
        return; /* asked for by nobody, or long ago */
    for (size_t i = 0; i < inv->n_items && !r->failed; i++)
        take_item(r, h, inv->items[i], inv->reports_below);
    if (!inv->last) {
        sc_timer_set(r, &h->resync, r->config.resync_ms);
        return;
    }
    sc_stray_sweep(r, h);
    h->settled = h->inventoried = true;
    send_missing(r, h, inv->reports_below);
    h->inventory_id = 0;
    /* No deadline watches over what was sent to a stray, and it may be lost or fail: another inventory tells. */
    if (h->stray)
        sc_timer_set(r, &h->resync, r->config.remove_retry_ms);
    else
        sc_timer_cancel(&r->timers, &h->resync);
    h->stray_open = h->stray;
    h->stray = false;
    if (h->specs_wanted && sc_host_attached(h))
        sc_dispatch_inventory(r, h);
    sc_restore_check(r);
    if (h->pb->state != HARPOON__V1__HOST_STATE__HOST_STATE_LOST)
        return;
    h->pb->state =
        h->pb->draining ? HARPOON__V1__HOST_STATE__HOST_STATE_DRAINING : HARPOON__V1__HOST_STATE__HOST_STATE_READY;
    sc_host_refresh(r, h);
    sc_host_heard(r, h);
    sc_host_event(r, h, "ready", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "came back after it was declared lost");
}
