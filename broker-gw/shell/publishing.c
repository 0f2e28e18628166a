#include "shell/publishing.h"

#include <assert.h>
#include <stddef.h>

#include "io/loop.h"
#include "shell/metrics.h"

static enum gw_published outcome_of(enum hp_publish_outcome o)
{
    switch (o) {
    case HP_PUBLISH_CONFIRMED:
        return GW_PUBLISHED;
    case HP_PUBLISH_REJECTED:
        return GW_QUEUE_FULL;
    case HP_PUBLISH_RETURNED:
        return GW_NO_QUEUE;
    case HP_PUBLISH_UNAVAILABLE:
        return GW_NOT_SENT;
    case HP_PUBLISH_UNKNOWN:
        return GW_OUTCOME_UNKNOWN;
    }
    assert(false);
    return GW_OUTCOME_UNKNOWN;
}

static void on_done(struct hp_publish *publish, enum hp_publish_outcome o)
{
    struct gw_publishing *p = (struct gw_publishing *)((char *)publish - offsetof(struct gw_publishing, publish));
    enum gw_published outcome = outcome_of(o);
    gw_metrics_published(outcome);
    if (outcome == GW_PUBLISHED)
        hp_metric_observe_ns(&gw_metric_accept, hp_now_ns() - p->start_ns);
    p->done_cb(p, outcome);
}

const char *gw_region_name(const struct gw_gateway *gw, const struct gw_prepared *change)
{
    return gw->region[change->region_index].name;
}

void gw_publish(struct gw_gateway *gw, struct gw_publishing *p, const struct gw_prepared *change,
                const char *correlation, void (*done_cb)(struct gw_publishing *p, enum gw_published outcome))
{
    p->gw = gw;
    p->done_cb = done_cb;
    p->start_ns = hp_now_ns();
    p->publish = (struct hp_publish){
        .exchange = "",
        .routing_key = gw->region[change->region_index].requests,
        .body = change->body,
        .body_len = change->body_len,
        .mandatory = true,
        .persistent = !change->transient,
        .type = "harpoon.internal.v1.Request",
        .message_id = change->operation_id,
        .correlation_id = correlation,
        .reply_to = correlation ? gw->reply_topology.own : NULL,
        .deadline_ms = GW_PUBLISH_MS,
        .done_cb = on_done,
    };
    hp_publish(gw->publisher, &p->publish);
}
