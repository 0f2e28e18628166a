/* Unary changes and Explain: publish, wait for the verdict, answer (core/verdicts.h decides what). */
#include <stddef.h>
#include <stdlib.h>

#include "grpc/status.h"
#include "io/loop.h"
#include "shell/metrics.h"
#include "shell/publishing.h"

enum { DEADLINE_MARGIN_MS = 50 };

struct change_call {
    struct hp_rpc_call *rpc; /* NULL once answered or gone */
    struct gw_prepared change;
    struct gw_pending pending;
    struct gw_publishing publishing;
    bool published; /* the broker's outcome is known */
};

static void release(struct change_call *c)
{
    if (c->rpc || !c->published)
        return;
    gw_prepared_done(&c->change);
    free(c);
}

static void on_answer(struct gw_pending *p, const ProtobufCMessage *answer, Google__Rpc__Status *status)
{
    struct change_call *c = (struct change_call *)((char *)p - offsetof(struct change_call, pending));
    struct hp_rpc_call *rpc = c->rpc;
    hp_metric_add(&gw_metric_pending, -1);
    hp_metric_observe_ns(&gw_metric_verdict, hp_now_ns() - c->publishing.start_ns);
    c->rpc = NULL;
    if (!answer)
        gw_fail(rpc, status);
    else if (answer->descriptor == hp_rpc_method_of(rpc)->response)
        hp_rpc_reply(rpc, answer);
    else
        gw_fail(rpc, hp_status_new(HP_CODE_INTERNAL, "VERDICT_MISMATCH", "the scheduler answered something else"));
    release(c);
}

static void on_published(struct gw_publishing *p, enum gw_published outcome)
{
    struct change_call *c = (struct change_call *)((char *)p - offsetof(struct change_call, publishing));
    c->published = true;
    if (c->rpc && c->pending.state != GW_PENDING_DONE)
        gw_pending_published(&c->pending, outcome, gw_region_name(p->gw, &c->change)); /* may release c */
    else
        release(c);
}

/* The client's own deadline comes first when it is shorter, so that it still learns that the change is accepted. */
static uint64_t verdict_deadline(struct gw_gateway *gw, struct hp_rpc_call *call)
{
    uint64_t wait = (uint64_t)gw->config->verdict_timeout_ms, left = hp_rpc_deadline_left_ms(call);
    if (left != UINT64_MAX && left < wait + DEADLINE_MARGIN_MS)
        wait = left > DEADLINE_MARGIN_MS ? left - DEADLINE_MARGIN_MS : 0;
    return hp_now_ms() + wait;
}

void gw_on_change(struct hp_rpc_call *call, const ProtobufCMessage *request)
{
    struct gw_gateway *gw = gw_of(call);
    Google__Rpc__Status *status = NULL;
    struct change_call *c = calloc(1, sizeof *c);
    hp_rpc_set_user(call, NULL);
    if (!c || gw->stopping) {
        free(c);
        gw_fail(call, gw->stopping ? gw_stopping_status() : NULL);
        return;
    }
    int rc = gw_prepare(&gw->regions, gw_caller(call), gw_payload_case(request->descriptor), request, hp_wall_ns(),
                        &gw->rng, &c->change, &status);
    if (rc < 0) {
        free(c);
        gw_fail(call, status);
        return;
    }
    c->pending.change = &c->change;
    c->pending.done_cb = on_answer;
    rc = gw_pending_add(&gw->verdicts, &c->pending, verdict_deadline(gw, call));
    if (rc < 0) {
        gw_prepared_done(&c->change);
        free(c);
        gw_fail(call, hp_status_add_retry(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "GATEWAY_BUSY",
                                                        "%d changes are waiting at this gateway", GW_PENDING_MAX),
                                          500));
        return;
    }
    c->rpc = call;
    hp_rpc_set_user(call, c);
    hp_metric_add(&gw_metric_pending, 1);
    gw_publish(gw, &c->publishing, &c->change, c->pending.correlation, on_published);
}

void gw_on_change_cancel(struct hp_rpc_call *call)
{
    struct change_call *c = hp_rpc_user(call);
    if (!c || !c->rpc)
        return;
    gw_pending_drop(&c->pending);
    hp_metric_add(&gw_metric_pending, -1);
    c->rpc = NULL;
    release(c);
}
