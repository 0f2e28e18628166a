/* restore.c — a record that was restored from a backup meets hosts that know more than it does (docs/decisions/0008).
 *
 * Nothing that the record says of hosts' attachments is believed, and every host is asked for its inventory, with specs. Until all of them have answered (or were
 * declared lost), and restore_ms have passed for hosts that the record does not know, no create gets a place, and none that was under way is sent: what it is to make may be
 * running on another host. All else goes on with each host as it answers. Where a host has applied later generations than the record knows, they
 * were accepted after the backup: the host's word is taken. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

/* So far above what the host has applied begin the generations that are given out after a restore: commands of the record that was lost may still be on their way to it. */
enum { BEYOND = 1000 };
#define WAITS "the record was restored from a backup: waits until every host has said what it has"

void sc_restore_lead(struct sc_region *r)
{
    assert(r->leading && r->restored);
    for (size_t i = 0; i < r->slot_count && !r->failed; i++)
        sc_host_detach(r, r->slots[i].info->host, "record_restored");
    for (struct sc_list *l = r->pending.next; l != &r->pending; l = l->next)
        sc_operation_reason(r, SC_OWNER(l, struct sc_operation, wait), WAITS);
    sc_timer_set(r, &r->restore_timer, r->config.restore_ms);
}

const char *sc_restore_waits(void)
{
    return WAITS;
}

static bool creating(const struct sc_container *c)
{
    const struct sc_operation *head = sc_container_head(c);
    return head && sc_operation_places(head) &&
           (head->verb == HARPOON__V1__VERB__VERB_CREATE || (!c->leaving && sc_move_past(head)));
}

bool sc_restore_holds(const struct sc_region *r, const struct sc_container *c)
{
    if (!r->restored || c->seen_inventory > 0)
        return false;
    return creating(c) || !c->host->settled;
}

static void compared(struct sc_region *r, struct sc_container *c)
{
    if (!sc_restored_generation(c))
        return;
    sc_open(c)->restored_generation = 0;
    sc_container_dirty(r, c);
}

static void finish(struct sc_region *r)
{
    r->restored = false;
    r->restored_changed = true;
    r->freed.all = true;
    for (struct sc_list *l = r->all.next, *next; l != &r->all && !r->failed; l = next) {
        struct sc_container *c = SC_OWNER(l, struct sc_container, order);
        next = l->next;
        compared(r, c);
        if (c->seen_inventory || !creating(c) || !sc_stray_bars(r, sc_container_head(c)))
            sc_container_next(r, c);
    }
}

void sc_restore_check(struct sc_region *r)
{
    if (!r->restored || r->restore_timer.place)
        return;
    for (size_t i = 0; i < r->slot_count; i++) {
        const struct sc_host *h = r->slots[i].info->host;
        if (!h->settled && h->pb->state != HARPOON__V1__HOST_STATE__HOST_STATE_LOST)
            return;
    }
    finish(r);
}

/* Its create was under way when the backup was made, and has got this place since. */
static void take_place(struct sc_region *r, struct sc_host *h, struct sc_container *c)
{
    struct sc_operation *op = sc_container_head(c);
    sc_pending_remove(r, op);
    sc_container_assign(r, c, h);
    h->info.storage_smaller |= sc_slot_storage_overdrawn(sc_host_slot(h)); /* it is there, room or not */
    sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING, "");
    strcpy(op->host, h->info.name);
    sc_operation_reason(r, op, NULL);
    if (op->stage == HARPOON__V1__STAGE__STAGE_RECORDED)
        sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    sc_operation_dirty(r, op);
}

/* The generation in the backup: higher ones have been given out since, and by the record that was lost, too. */
static int64_t backed_up(const struct sc_container *c)
{
    return sc_restored_generation(c) ? sc_restored_generation(c) : c->generation;
}

/* What was under way when the backup was made has ended since, and was followed by more. */
static void end_older(struct sc_region *r, struct sc_container *c)
{
    int64_t last = backed_up(c);
    for (struct sc_list *l = c->queue.prev, *before; l != &c->queue; l = before) {
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        before = l->prev;
        if (op->generation > last)
            continue;
        if (sc_operation_places(op) && !c->leaving) {
            strcpy(op->host, c->host->info.name);
            sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
            continue;
        }
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_CANCELLED,
                         hp_status_new(HP_CODE_ABORTED, "RECORD_RESTORED",
                                       "it ended after the backup from which the record was restored: see what the "
                                       "container is now"));
    }
}

/* What was asked for after the restore goes above what the host has applied, or may yet apply. */
static void outnumber(struct sc_region *r, struct sc_container *c, int64_t known)
{
    c->generation = (c->generation < known ? known : c->generation) + BEYOND;
    if (c->delete_op) {
        sc_container_bump(r, c);
        c->delete_op->generation = c->generation;
        sc_operation_dirty(r, c->delete_op);
        return;
    }
    if (sc_list_empty(&c->queue))
        sc_container_bump(r, c);
    sc_container_renumber(r, c);
    for (struct sc_list *l = c->queue.next; l != &c->queue; l = l->next) {
        struct sc_operation *op = SC_OWNER(l, struct sc_operation, queue);
        if (op->restart_serial > 0)
            op->restart_serial = op->generation;
    }
}

/* … and is done to what the host has. Takes `spec`. */
static void rebase(struct sc_region *r, struct sc_container *c, const Harpoon__Internal__V1__InventoryItem *x,
                   Harpoon__V1__ContainerSpec *spec)
{
    assert(sc_confirmed(c) && sc_confirmed(c)->container);
    harpoon__v1__container_spec__free_unpacked(sc_confirmed(c)->container->spec, NULL);
    sc_confirmed(c)->container->spec = spec;
    sc_confirmed(c)->restart_serial = x->restart_serial;
    outnumber(r, c, x->generation);
    sc_change_rebuild(r, c);
}

/* Nothing was asked for since. Takes `spec`. */
static void replace(struct sc_region *r, struct sc_container *c, const Harpoon__Internal__V1__InventoryItem *x,
                    Harpoon__V1__ContainerSpec *spec)
{
    sc_confirmed_set(c, NULL);
    harpoon__v1__container_spec__free_unpacked(sc_body(c)->spec, NULL);
    sc_body(c)->spec = spec;
    c->restart_serial = x->restart_serial;
    if (!sc_list_empty(&c->queue)) { /* a move */
        outnumber(r, c, x->generation);
        return;
    }
    if (c->generation <= x->generation)
        c->generation = x->generation - 1;
    sc_container_bump(r, c);
}

/* Takes `spec`. */
static void take_later(struct sc_region *r, struct sc_container *c, const Harpoon__Internal__V1__InventoryItem *x,
                       Harpoon__V1__ContainerSpec *spec)
{
    end_older(r, c);
    if (!sc_list_empty(&c->queue) && sc_confirmed(c))
        rebase(r, c, x, spec);
    else
        replace(r, c, x, spec);
    sc_container_sync(r, c, sc_list_empty(&c->queue) && c->generation > x->generation);
    sc_change_claim(r, c);
    c->reported_desired = spec->desired_state == HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED
                              ? HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED
                              : HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    sc_container_event(r, c, "restored", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL,
                       "its host had a later state than the restored record, which was taken over");
}

static Harpoon__V1__ContainerSpec *usable_spec(struct sc_region *r, const Harpoon__Internal__V1__InventoryItem *x)
{
    Harpoon__V1__ContainerSpec *spec =
        x->spec.len ? sc_pb_unpack(r, &harpoon__v1__container_spec__descriptor, x->spec.data, x->spec.len) : NULL;
    if (!spec)
        return NULL;
    Google__Rpc__Status *e = spec->resources ? sc_resources_check(spec->resources, true) : NULL;
    bool usable = spec->resources && !e;
    hp_status_free(e);
    if (usable)
        return spec;
    harpoon__v1__container_spec__free_unpacked(spec, NULL);
    return NULL;
}

/* A later command than the delete's has been applied: the delete was called back after the backup. */
static bool called_back(const struct sc_container *c, const Harpoon__Internal__V1__InventoryItem *x)
{
    return c->deleting && !c->remove_sent && c->delete_op && x->generation >= c->delete_op->generation &&
           c->delete_op->generation <= backed_up(c);
}

void sc_restore_item(struct sc_region *r, struct sc_host *h, struct sc_container *c,
                     const Harpoon__Internal__V1__InventoryItem *x)
{
    assert(r->restored && !x->tombstone);
    if (c->host != h && creating(c) && !c->seen_inventory)
        take_place(r, h, c);
    if (c->host != h || c->seen_inventory)
        return;
    bool later = x->generation > backed_up(c), back = called_back(c, x);
    if (back)
        sc_operation_abort(r, c->delete_op, HARPOON__V1__STAGE__STAGE_FAILED,
                           hp_status_new(HP_CODE_ABORTED, "RECORD_RESTORED",
                                         "it was called back after the backup from which the record was restored"));
    Harpoon__V1__ContainerSpec *spec =
        (later || back) && !sc_container_removing(c) && !r->failed ? usable_spec(r, x) : NULL;
    if (spec)
        take_later(r, c, x, spec);
    else if (sc_restored_generation(c))
        outnumber(r, c, x->generation);
    compared(r, c);
}

void sc_restore_missing(struct sc_region *r, struct sc_container *c)
{
    if (sc_restored_generation(c))
        outnumber(r, c, 0);
    compared(r, c);
}
