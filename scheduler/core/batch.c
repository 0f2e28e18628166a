/* batch.c — what is decided becomes one transaction; what belongs to it leaves when it is committed. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

enum { DELETE_EVENTS_MIN = 256, DELETE_EVENTS_MAX = 5000, DELETE_OPERATIONS_MIN = 200 };

void sc_batch_free(struct sc_batch *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->operation_count; i++) {
        free(b->operations[i].target);
        sc_blob_unref(b->operations[i].body);
    }
    for (size_t i = 0; i < b->container_count; i++) {
        free(b->containers[i].name);
        sc_blob_unref(b->containers[i].body);
    }
    for (size_t i = 0; i < b->host_count; i++)
        sc_blob_unref(b->hosts[i].body);
    for (size_t i = 0; i < b->event_count; i++)
        sc_blob_unref(b->events[i].body);
    for (struct sc_message *m = b->messages.first, *next; m; m = next) {
        next = m->next;
        sc_message_free(m);
    }
    free(b->operations);
    free(b->deletes);
    free(b->containers);
    free(b->hosts);
    free(b->events);
    free(b);
}

static size_t list_count(const struct sc_list *head)
{
    size_t n = 0;
    for (const struct sc_list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

static void take_operations(struct sc_region *r, struct sc_batch *b)
{
    size_t n = list_count(&r->dirty_operations);
    b->operations = n ? sc_alloc(r, n * sizeof *b->operations) : NULL;
    while (b->operations && !sc_list_empty(&r->dirty_operations) && !r->failed) {
        struct sc_operation *op = SC_OWNER(r->dirty_operations.next, struct sc_operation, dirty_link);
        struct sc_operation_row *row = &b->operations[b->operation_count++];
        memcpy(row->id, op->id, sizeof row->id);
        memcpy(row->project, op->project, sizeof row->project);
        row->fresh = op->fresh;
        row->active = op->active;
        row->stage = op->stage;
        row->serial = op->serial;
        row->target = sc_strdup(r, op->target);
        row->body = sc_operation_pack(r, op);
        op->fresh = op->dirty = false;
        sc_list_remove(&op->dirty_link);
    }
}

static void take_containers(struct sc_region *r, struct sc_batch *b)
{
    size_t n = list_count(&r->dirty_containers);
    b->containers = n ? sc_alloc(r, n * sizeof *b->containers) : NULL;
    while (b->containers && !sc_list_empty(&r->dirty_containers) && !r->failed) {
        struct sc_container *c = SC_OWNER(r->dirty_containers.next, struct sc_open, dirty_link)->container;
        struct sc_container_row *row = &b->containers[b->container_count++];
        row->name = sc_strdup(r, c->name);
        snprintf(row->uid, sizeof row->uid, "%s", c->uid);
        snprintf(row->project, sizeof row->project, "%s", sc_traits(c)->project->name);
        snprintf(row->host, sizeof row->host, "%s", c->host ? c->host->info.name : "");
        row->generation = c->generation;
        row->body = sc_container_pack(r, c);
        c->dirty = false;
        sc_list_remove(&c->open->dirty_link);
    }
}

static bool host_due(const struct sc_region *r, const struct sc_host *h)
{
    /* Claims are written with the first change, and then no more often than every settle_ms: they can be told from the containers at any time. */
    return h->urgent || r->settle_due || !h->written_ms || r->time.now_ms - h->written_ms >= r->config.settle_ms;
}

static size_t hosts_due(const struct sc_region *r)
{
    size_t n = 0;
    for (const struct sc_list *l = r->dirty_hosts.next; l != &r->dirty_hosts; l = l->next)
        n += host_due(r, SC_OWNER(l, struct sc_host, dirty_link));
    return n;
}

static void take_hosts(struct sc_region *r, struct sc_batch *b)
{
    size_t n = hosts_due(r);
    b->hosts = n ? sc_alloc(r, n * sizeof *b->hosts) : NULL;
    for (struct sc_list *l = r->dirty_hosts.next, *next; b->hosts && l != &r->dirty_hosts && !r->failed; l = next) {
        next = l->next;
        struct sc_host *h = SC_OWNER(l, struct sc_host, dirty_link);
        if (!host_due(r, h))
            continue;
        struct sc_host_row *row = &b->hosts[b->host_count++];
        snprintf(row->name, sizeof row->name, "%s", h->info.name);
        row->body = sc_host_pack(r, h);
        h->dirty = h->urgent = false;
        h->written_ms = r->time.now_ms;
        sc_list_remove(&h->dirty_link);
    }
    assert(b->host_count <= n);
}

static void take_events(struct sc_region *r, struct sc_batch *b)
{
    b->events = r->events;
    b->event_count = r->event_count;
    r->events = NULL;
    r->event_count = r->event_room = 0;
}

/* Verdicts before events before commands: people wait for the first, hosts work longest on the last. */
static void take_messages(struct sc_region *r, struct sc_batch *b)
{
    b->messages = r->verdicts;
    r->verdicts = (struct sc_messages){0};
    for (size_t i = 0; i < b->event_count && !r->failed; i++)
        sc_backlog_add(r, b->events[i].sequence, b->events[i].body, &b->messages);
    if (r->commands.first) {
        if (b->messages.last)
            b->messages.last->next = r->commands.first;
        else
            b->messages.first = r->commands.first;
        b->messages.last = r->commands.last;
    }
    r->commands = (struct sc_messages){0};
    memcpy(b->acks, r->acks, sizeof b->acks);
    memset(r->acks, 0, sizeof r->acks);
}

static void retain(struct sc_region *r, struct sc_batch *b)
{
    int64_t below = r->sequence - r->config.events_max + 1, aged = sc_mark_before(r, r->config.events_age_ms);
    below = aged > below ? aged : below;
    below = below < r->watermark ? below : r->watermark; /* never what has not been published */
    int64_t chunk = 2 * (int64_t)b->event_count;
    chunk = chunk < DELETE_EVENTS_MIN ? DELETE_EVENTS_MIN : chunk > DELETE_EVENTS_MAX ? DELETE_EVENTS_MAX : chunk;
    if (below >= r->oldest + DELETE_EVENTS_MIN) {
        r->oldest = below < r->oldest + chunk ? below : r->oldest + chunk;
        b->events_below = r->oldest;
    }
    int64_t ended = sc_mark_before(r, r->config.operations_age_ms);
    if (ended > r->operations_floor) {
        b->operations_below = ended;
        b->operations_limit = DELETE_OPERATIONS_MIN + 2 * (int)b->operation_count;
    }
}

static void settle_later(struct sc_region *r)
{
    if (!sc_list_empty(&r->dirty_hosts) && !r->settle.place)
        sc_timer_set(r, &r->settle, r->config.settle_ms);
}

static void release(struct sc_region *r, struct sc_effects *out)
{
    if (r->released.first) {
        if (out->messages.last)
            out->messages.last->next = r->released.first;
        else
            out->messages.first = r->released.first;
        out->messages.last = r->released.last;
        r->released = (struct sc_messages){0};
    }
    for (int i = 0; i < SC_SOURCE_COUNT; i++)
        if (r->released_acks[i].set)
            out->acks[i] = r->released_acks[i];
    memset(r->released_acks, 0, sizeof r->released_acks);
}

static bool must_write(const struct sc_region *r)
{
    if (r->restored_changed)
        return true;
    return r->event_count || r->delete_count || !sc_list_empty(&r->dirty_operations) ||
           !sc_list_empty(&r->dirty_containers) || hosts_due(r) ||
           (r->settle_due && r->watermark > r->watermark_recorded);
}

static void hand_over(struct sc_region *r, struct sc_batch *b)
{
    for (int i = 0; i < SC_SOURCE_COUNT; i++)
        if (b->acks[i].set)
            r->released_acks[i] = b->acks[i];
    if (b->messages.first) {
        if (r->released.last)
            r->released.last->next = b->messages.first;
        else
            r->released.first = b->messages.first;
        r->released.last = b->messages.last;
    }
    b->messages = (struct sc_messages){0};
}

int sc_batch_cut(struct sc_region *r, struct sc_effects *out)
{
    if (r->committing) {
        release(r, out);
        return 0;
    }
    struct sc_batch *b = sc_alloc(r, sizeof *b);
    if (!b)
        return r->failed;
    bool write = must_write(r);
    if (write) {
        take_operations(r, b);
        take_containers(r, b);
        take_hosts(r, b);
        take_events(r, b);
        b->deletes = r->deletes;
        b->delete_count = r->delete_count;
        r->deletes = NULL;
        r->delete_count = r->delete_room = 0;
        retain(r, b);
    }
    r->settle_due = false;
    settle_later(r);
    take_messages(r, b);
    if (r->failed) {
        sc_batch_free(b);
        return r->failed;
    }
    if (!write) {
        hand_over(r, b); /* nothing to wait for */
        sc_batch_free(b);
        release(r, out);
        return 0;
    }
    release(r, out);
    b->epoch = r->epoch;
    b->sequence = r->cut_sequence = r->sequence;
    b->watermark = r->watermark_recorded = r->watermark;
    b->oldest = r->oldest;
    b->restored = r->restored;
    r->restored_changed = false;
    r->committing = true;
    out->commit = b;
    return 0;
}

void sc_batch_committed(struct sc_region *r, struct sc_batch *b)
{
    assert(r->committing && b->epoch == r->epoch);
    r->committing = false;
    if (b->operations_below && b->operations_deleted < b->operations_limit)
        r->operations_floor = b->operations_below;
    r->committed_sequence = b->sequence;
    hand_over(r, b);
    sc_batch_free(b);
    if (r->waiting_count && !r->republish.place)
        sc_backlog_send(r, &r->released);
}
