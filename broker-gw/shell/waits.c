/* OperationService.WaitOperation: looks once in the record, then waits for the event that ends the operation. */
#include <stddef.h>
#include <stdlib.h>

#include "grpc/status.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "io/loop.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/reads.h"
#include "wire/codec.h"

enum { TIMEOUT_DEFAULT_S = 30, BLIND_HOLD_MS = 2000, TIMEOUT_MAX_S = 600, DEADLINE_MARGIN_MS = 100 };

/* One call; it lives until the call is answered or gone, and no read is under way. */
struct wait_call {
    struct gw_waiter waiter;
    struct gw_timer timer;
    struct hp_rpc_call *rpc; /* NULL once ended */
    struct gw_region *region;
    struct hp_operation_name name;
    struct hp_db_job job;
    bool reading, again;           /* a read is under way; and another is wanted after it */
    bool late;                     /* the timeout has passed: the next read is the answer */
    bool blind;                    /* that was cut short, for want of events */
    Harpoon__V1__Operation *found; /* result of a read; NULL: not recorded */
};

static void start_read(struct wait_call *w);

static void release(struct wait_call *w)
{
    if (!w->rpc && !w->reading)
        free(w);
}

static struct hp_rpc_call *detach(struct wait_call *w)
{
    struct hp_rpc_call *rpc = w->rpc;
    w->rpc = NULL;
    hp_rpc_set_user(rpc, NULL);
    gw_waiters_remove(&w->region->waiters, &w->waiter);
    gw_timer_disarm(&w->region->gw->timers, &w->timer);
    hp_metric_add(&gw_metric_waits, -1);
    return rpc;
}

static void reply(struct wait_call *w, const Harpoon__V1__Operation *o)
{
    hp_rpc_reply(detach(w), &o->base);
    release(w);
}

static void end(struct wait_call *w, Google__Rpc__Status *status)
{
    gw_fail(detach(w), status);
    release(w);
}

static int run_read(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct wait_call *w = (struct wait_call *)((char *)job - offsetof(struct wait_call, job));
    return gw_select_operation(c, &w->name, &w->found, e);
}

/* It may be recorded at any moment, and nobody would hear of it. */
static Google__Rpc__Status *unseen(const struct wait_call *w)
{
    return hp_status_add_retry(hp_status_new(HP_CODE_UNAVAILABLE, "FEED_UNAVAILABLE",
                                             "the operation is not recorded yet, and the events of region \"%s\" "
                                             "cannot be followed at present",
                                             w->region->name),
                               1000);
}

static void read_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct wait_call *w = (struct wait_call *)((char *)job - offsetof(struct wait_call, job));
    Harpoon__V1__Operation *o = w->found;
    w->found = NULL;
    w->reading = false;
    if (!w->rpc)
        release(w);
    else if (result < 0)
        end(w, gw_record_status(result, e));
    else if (o && (w->late || gw_stage_terminal(o->stage)))
        reply(w, o);
    else if (w->late && !w->again)
        end(w, w->blind ? unseen(w) : gw_operation_not_found(w->waiter.key));
    else if (w->again)
        start_read(w);
    if (o)
        hp_unpacked_free(&o->base);
}

static void start_read(struct wait_call *w)
{
    w->again = w->reading;
    if (w->reading)
        return;
    w->job = (struct hp_db_job){.run = run_read, .done_cb = read_done};
    int rc = hp_db_submit(w->region->gw->db, &w->job);
    if (rc < 0) {
        struct hp_error e = {0};
        end(w, gw_record_status(rc, &e));
        return;
    }
    w->reading = true;
    hp_metric_add(&gw_metric_reads, 1);
}

static void timeout(struct gw_timer *t, uint64_t now_ms)
{
    struct wait_call *w = (struct wait_call *)((char *)t - offsetof(struct wait_call, timer));
    w->late = true;
    start_read(w);
}

void gw_waits_event(struct gw_region *r, const Harpoon__V1__Event *event)
{
    const Harpoon__V1__Operation *o = gw_event_ends(event);
    if (!o)
        return;
    for (struct gw_waiter *waiter; (waiter = gw_waiters_take(&r->waiters, o->name)) != NULL;)
        reply((struct wait_call *)((char *)waiter - offsetof(struct wait_call, waiter)), o);
}

/* Events may have been passed over: whoever waits looks again. Answers come later, so the table does not change meanwhile, except by a failure to begin. */
void gw_waits_jumped(struct gw_region *r)
{
    for (struct hp_map_node *n = hp_map_first(&r->waiters.by_operation), *next; n; n = next) {
        next = hp_map_next(n);
        for (struct gw_waiter *waiter = n->value, *after; waiter; waiter = after) {
            after = waiter->next;
            start_read((struct wait_call *)((char *)waiter - offsetof(struct wait_call, waiter)));
        }
    }
}

void gw_waits_blind(struct gw_region *r)
{
    for (struct hp_map_node *n = hp_map_first(&r->waiters.by_operation), *next; n; n = next) {
        next = hp_map_next(n);
        for (struct gw_waiter *waiter = n->value, *after; waiter; waiter = after) {
            after = waiter->next;
            struct wait_call *w = (struct wait_call *)((char *)waiter - offsetof(struct wait_call, waiter));
            w->late = w->blind = true;
            start_read(w);
        }
    }
}

void gw_waits_stop(struct gw_gateway *gw)
{
    for (int i = 0; i < gw->regions.count; i++)
        for (struct hp_map_node *n; (n = hp_map_first(&gw->region[i].waiters.by_operation)) != NULL;) {
            struct gw_waiter *waiter = n->value;
            end((struct wait_call *)((char *)waiter - offsetof(struct wait_call, waiter)), gw_stopping_status());
        }
}

/* Milliseconds to wait, or 0 with *e set. */
static uint64_t timeout_of(const Harpoon__V1__WaitOperationRequest *r, struct hp_error *e)
{
    const Google__Protobuf__Duration *d = r->timeout;
    if (!d || (d->seconds == 0 && d->nanos == 0))
        return TIMEOUT_DEFAULT_S * 1000;
    bool over = d->seconds > TIMEOUT_MAX_S || (d->seconds == TIMEOUT_MAX_S && d->nanos > 0);
    if (d->seconds < 0 || d->nanos < 0 || d->nanos > 999999999 || over) {
        (void)!hp_fail(e, HP_EINVAL, "timeout: %lld s %d ns is not in 0 to %d s", (long long)d->seconds, d->nanos,
                       TIMEOUT_MAX_S);
        return 0;
    }
    uint64_t ms = (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000;
    return ms ? ms : 1;
}

static void add_wait(struct hp_rpc_call *call, struct gw_region *r, const struct hp_operation_name *name,
                     const char *text, uint64_t wait_ms)
{
    bool blind = r->blind && wait_ms > BLIND_HOLD_MS; /* no event would come: whoever goes on waiting asks again */
    struct wait_call *w = calloc(1, sizeof *w);
    if (!w || gw_waiters_add(&r->waiters, &w->waiter, text) < 0) {
        free(w);
        gw_fail(call, hp_status_add_retry(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "WAITS_FULL",
                                                        "%d calls wait for operations of this region already",
                                                        GW_WAITERS_MAX),
                                          1000));
        return;
    }
    w->rpc = call;
    w->region = r;
    w->name = *name;
    w->timer.fire_cb = timeout;
    hp_rpc_set_user(call, w);
    hp_metric_add(&gw_metric_waits, 1);
    w->blind = blind;
    if (gw_timer_arm(&r->gw->timers, &w->timer, hp_now_ms() + (blind ? BLIND_HOLD_MS : wait_ms)) < 0)
        end(w, NULL);
    else
        start_read(w);
}

void gw_on_wait(struct hp_rpc_call *call, const ProtobufCMessage *message)
{
    const Harpoon__V1__WaitOperationRequest *request = (const Harpoon__V1__WaitOperationRequest *)message;
    struct hp_operation_name name;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    hp_rpc_set_user(call, NULL);
    if (hp_operation_name_parse("name", request->name, &name, &e) < 0) {
        gw_fail_field(call, "name", &e);
        return;
    }
    uint64_t wait_ms = timeout_of(request, &e), left = hp_rpc_deadline_left_ms(call);
    if (e.code) {
        gw_fail_field(call, "timeout", &e);
        return;
    }
    /* The client's deadline comes first: it shall still get the present state. */
    if (left != UINT64_MAX && left < wait_ms + DEADLINE_MARGIN_MS)
        wait_ms = left > DEADLINE_MARGIN_MS ? left - DEADLINE_MARGIN_MS : 0;
    if (!gw_allow_read(gw_caller(call), name.project, &status)) {
        gw_fail(call, status);
        return;
    }
    struct gw_region *r = gw_region_of(call, name.region);
    if (!r)
        return;
    if (r->gw->stopping)
        gw_fail(call, gw_stopping_status());
    else
        add_wait(call, r, &name, request->name, wait_ms);
}

void gw_on_wait_cancel(struct hp_rpc_call *call)
{
    struct wait_call *w = hp_rpc_user(call);
    if (!w || !w->rpc)
        return;
    (void)detach(w);
    release(w);
}
