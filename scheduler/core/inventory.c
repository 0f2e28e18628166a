/* inventory.c — the level trigger: what a host has is compared with what it shall have, and the difference is sent. */
#include <stdlib.h>
#include <string.h>

#include "core/state.h"
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
        digest ^= hp_inventory_item_digest(c->pb->uid, c->reported_generation, desired, c->reported_state);
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

static void quarantine(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x)
{
    char text[512];
    if (x->tombstone || x->quarantined || strlen(x->uid) != HP_UID_LEN)
        return;
    snprintf(text, sizeof text, "unknown container \"%.255s\" (uid %s): it is left alone until somebody decides",
             x->container, x->uid);
    sc_host_event(r, h, "quarantine", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL, text);
    sc_dispatch_quarantine(r, h, x->container, x->uid, x->generation);
}

/* The host knows a later generation than the record, as after a restored backup: go above it. */
static void overtake(struct sc_region *r, struct sc_container *c, int64_t known)
{
    if (known <= c->pb->generation)
        return;
    c->pb->generation = known;
    sc_container_bump(r, c);
    sc_container_sync(r, c, true);
    struct sc_operation *op = c->delete_op ? c->delete_op : sc_container_head(c);
    if (op) {
        op->generation = c->pb->generation;
        sc_operation_dirty(r, op);
    }
}

/* The host remembers having removed what is still wanted: it will never come back under this uid. */
static void gone(struct sc_region *r, struct sc_container *c)
{
    while (!sc_list_empty(&c->queue)) {
        struct sc_operation *op = SC_OWNER(c->queue.prev, struct sc_operation, queue);
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_FAILED,
                         hp_status_new(HP_CODE_DATA_LOSS, "CONTAINER_GONE", "the host has removed the container"));
    }
    if (c->confirmed)
        harpoon__internal__v1__container_base__free_unpacked(c->confirmed, NULL);
    c->confirmed = NULL;
    sc_container_sync(r, c, false);
    sc_container_assign(r, c, NULL);
    sc_container_claim(r, c, &(struct sc_res){0});
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED, "the host has removed it");
    sc_container_event(r, c, "failed", HARPOON__V1__SEVERITY__SEVERITY_ERROR, NULL, "the host has removed it");
}

static void take_item(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__InventoryItem *x)
{
    if (x->generation < 0 || x->generation > SC_GENERATION_MAX)
        return; /* no command can have said so */
    struct sc_container *c = hp_map_get(&r->uids, x->uid);
    if (!c) {
        quarantine(r, h, x);
        return;
    }
    if (c->host != h) {
        /* Known, but not (any more) here: it was lost with this host, or failed or was refused here. One container has one place. */
        if (!x->tombstone)
            sc_dispatch_remove(r, h, c, x->generation + 1);
        return;
    }
    c->seen_inventory = h->inventory_id;
    if (x->tombstone) {
        if (!(c->deleting || c->cleanup))
            gone(r, c);
        else if (x->generation >= c->pb->generation)
            sc_settle_removed(r, c);
        else
            sc_dispatch(r, c);
        return;
    }
    if (x->status && x->status->state)
        sc_status_take(r, c, x->status, x->generation, NULL, NULL);
    overtake(r, c, x->generation);
    const struct sc_operation *head = sc_container_head(c);
    if (!(c->deleting || c->cleanup) && !head && x->generation < c->pb->generation)
        sc_container_sync(r, c, true);
    if (c->flight == SC_WANT_NOTHING)
        sc_container_next(r, c);
    else if (c->flight_after < h->inventory_id)
        sc_dispatch(r, c);
}

/* What the host should have, and does not list. */
static void send_missing(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (c->seen_inventory == h->inventory_id)
            continue;
        if (c->flight != SC_WANT_NOTHING && c->flight_after >= h->inventory_id)
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
        take_item(r, h, inv->items[i]);
    if (!inv->last) {
        sc_timer_set(r, &h->resync, r->config.resync_ms);
        return;
    }
    send_missing(r, h);
    h->inventory_id = 0;
    sc_timer_cancel(&r->timers, &h->resync);
    if (h->pb->state != HARPOON__V1__HOST_STATE__HOST_STATE_LOST)
        return;
    h->pb->state =
        h->pb->draining ? HARPOON__V1__HOST_STATE__HOST_STATE_DRAINING : HARPOON__V1__HOST_STATE__HOST_STATE_READY;
    sc_host_refresh(r, h);
    sc_host_heard(r, h);
    sc_host_event(r, h, "ready", HARPOON__V1__SEVERITY__SEVERITY_INFO, NULL, "came back after it was declared lost");
}
