#include "core/verdicts.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "grpc/status.h"
#include "wire/codec.h"

enum { RETRY_MS = 1000 };

void gw_verdicts_init(struct gw_verdicts *vs, struct gw_timers *timers, size_t count_max, uint64_t seed)
{
    *vs = (struct gw_verdicts){.timers = timers};
    hp_map_init(&vs->by_correlation, count_max, seed);
}

void gw_verdicts_done(struct gw_verdicts *vs)
{
    hp_map_done(&vs->by_correlation);
}

/* Leaves the table; nothing is called afterwards. */
static void leave(struct gw_pending *p)
{
    if (!p->table)
        return;
    gw_timer_disarm(p->table->timers, &p->timer);
    void *was = hp_map_remove(&p->table->by_correlation, p->correlation);
    assert(was == p);
    p->table = NULL;
    p->state = GW_PENDING_DONE;
}

static void finish(struct gw_pending *p, const ProtobufCMessage *answer, Google__Rpc__Status *status)
{
    assert(p->state != GW_PENDING_DONE);
    leave(p);
    p->done_cb(p, answer, status);
}

static void fail(struct gw_pending *p, Google__Rpc__Status *status)
{
    finish(p, NULL, status);
}

/* No verdict in time. The change is durable, unless it was a question only. */
static void conclude_late(struct gw_pending *p)
{
    assert(p->state == GW_PENDING_ACCEPTED);
    if (p->change->transient) {
        fail(p, hp_status_add_retry(hp_status_new(HP_CODE_UNAVAILABLE, "SCHEDULER_SILENT",
                                                  "the region's scheduler did not answer in time; nothing was changed"),
                                    RETRY_MS));
        return;
    }
    Harpoon__V1__Operation *o = gw_accepted_operation(p->change);
    finish(p, o ? &o->base : NULL, NULL);
    if (o)
        hp_unpacked_free(&o->base);
}

static void deadline_passed(struct gw_timer *t, uint64_t now_ms)
{
    struct gw_pending *p = (struct gw_pending *)((char *)t - offsetof(struct gw_pending, timer));
    p->late = true;
    if (p->state == GW_PENDING_ACCEPTED)
        conclude_late(p);
}

int gw_pending_add(struct gw_verdicts *vs, struct gw_pending *p, uint64_t deadline_ms)
{
    assert(!p->table && p->change && p->done_cb);
    p->state = GW_PENDING_SENT;
    p->late = false;
    p->timer = (struct gw_timer){.fire_cb = deadline_passed};
    snprintf(p->correlation, sizeof p->correlation, "%llu", (unsigned long long)++vs->serial);
    int rc = hp_map_put(&vs->by_correlation, p->correlation, p, NULL);
    if (rc < 0)
        return rc;
    rc = gw_timer_arm(vs->timers, &p->timer, deadline_ms);
    if (rc < 0)
        hp_map_remove(&vs->by_correlation, p->correlation);
    else
        p->table = vs;
    return rc;
}

void gw_pending_drop(struct gw_pending *p)
{
    leave(p);
}

Google__Rpc__Status *gw_published_status(enum gw_published outcome, const char *region)
{
    switch (outcome) {
    case GW_QUEUE_FULL:
        return hp_status_add_retry(
            hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL",
                          "region \"%s\" takes nothing at present: its queue is full, or most of the "
                          "queue's nodes are gone; retry with the same request_id",
                          region),
            RETRY_MS);
    case GW_NO_QUEUE:
        return hp_status_add_retry(hp_status_new(HP_CODE_UNAVAILABLE, "REGION_HAS_NO_QUEUE",
                                                 "region \"%s\" has no queue in the broker", region),
                                   RETRY_MS);
    case GW_NOT_SENT:
        return hp_status_add_retry(
            hp_status_new(HP_CODE_UNAVAILABLE, "BROKER_UNAVAILABLE",
                          "the broker cannot be reached, or takes nothing at present: nothing was "
                          "changed; retry with the same request_id"),
            RETRY_MS);
    case GW_OUTCOME_UNKNOWN:
        return hp_status_add_retry(
            hp_status_new(HP_CODE_UNAVAILABLE, "OUTCOME_UNKNOWN",
                          "the broker did not confirm in time: the change may or may not happen; "
                          "retry with the same request_id to be sure"),
            RETRY_MS);
    case GW_PUBLISHED:
        break;
    }
    assert(outcome != GW_PUBLISHED);
    return NULL;
}

void gw_pending_published(struct gw_pending *p, enum gw_published outcome, const char *region)
{
    if (p->state != GW_PENDING_SENT)
        return;
    if (outcome != GW_PUBLISHED) {
        fail(p, gw_published_status(outcome, region));
        return;
    }
    p->state = GW_PENDING_ACCEPTED;
    if (p->late)
        conclude_late(p);
}

bool gw_verdicts_arrived(struct gw_verdicts *vs, const char *correlation, const Harpoon__Internal__V1__Verdict *v)
{
    struct gw_pending *p = hp_map_get(&vs->by_correlation, correlation);
    if (!p || strcmp(v->operation_id, p->change->operation_id) != 0)
        return false;
    if (v->status && v->status->code != 0)
        fail(p, (Google__Rpc__Status *)hp_message_clone(&v->status->base));
    else if (v->explain)
        finish(p, &v->explain->base, NULL);
    else if (v->host_load)
        finish(p, &v->host_load->base, NULL);
    else if (v->propose_moves)
        finish(p, &v->propose_moves->base, NULL);
    else if (v->operation)
        finish(p, &v->operation->base, NULL);
    else
        fail(p, hp_status_new(HP_CODE_INTERNAL, "VERDICT_EMPTY", "the scheduler's answer holds nothing"));
    return true;
}
