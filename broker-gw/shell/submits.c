/* EventService.Submit: many changes on one call, each answered once the broker has it. */
#include <stddef.h>
#include <stdlib.h>

#include "grpc/status.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "io/loop.h"
#include "shell/publishing.h"
#include "wire/codec.h"

/* One call. It goes when the call has ended and all its items are done. */
struct submit_call {
    struct hp_rpc_call *rpc; /* NULL once ended */
    struct gw_gateway *gw;
    int under_way;    /* items at the broker */
    bool half_closed; /* the client has sent its last item */
};

struct submit_item {
    struct submit_call *call;
    int64_t correlation; /* the client's */
    struct gw_prepared change;
    struct gw_publishing publishing;
};

static void settle(struct submit_call *s)
{
    if (s->rpc && s->half_closed && s->under_way == 0) {
        struct hp_rpc_call *rpc = s->rpc;
        s->rpc = NULL;
        hp_rpc_set_user(rpc, NULL);
        hp_rpc_finish(rpc, NULL);
    }
    if (!s->rpc && s->under_way == 0)
        free(s);
}

/* Takes the status over; NULL with `operation` means accepted. */
static void answer(struct submit_call *s, int64_t correlation, Google__Rpc__Status *status, const char *operation)
{
    Google__Rpc__Status ok = GOOGLE__RPC__STATUS__INIT;
    Harpoon__V1__SubmitResponse r = HARPOON__V1__SUBMIT_RESPONSE__INIT;
    if (s->rpc) {
        r.correlation = correlation;
        r.operation = (char *)(uintptr_t)(operation ? operation : "");
        ok.code = operation ? HP_CODE_OK : HP_CODE_RESOURCE_EXHAUSTED; /* no status and no operation: no memory */
        r.status = status ? status : &ok;
        if (hp_rpc_send(s->rpc, &r.base) == HP_ELIMIT) {
            struct hp_rpc_call *rpc = s->rpc;
            s->rpc = NULL;
            hp_rpc_set_user(rpc, NULL);
            gw_fail(rpc,
                    hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "READER_TOO_SLOW",
                                  "answers are not read fast enough; submit the rest again with the same request_ids"));
        }
    }
    hp_status_free(status);
}

static void on_published(struct gw_publishing *p, enum gw_published outcome)
{
    struct submit_item *i = (struct submit_item *)((char *)p - offsetof(struct submit_item, publishing));
    struct submit_call *s = i->call;
    if (outcome == GW_PUBLISHED)
        answer(s, i->correlation, NULL, i->change.operation_name);
    else
        answer(s, i->correlation, gw_published_status(outcome, gw_region_name(p->gw, &i->change)), NULL);
    gw_prepared_done(&i->change);
    free(i);
    s->under_way--;
    settle(s);
}

void gw_on_submit_start(struct hp_rpc_call *call)
{
    struct submit_call *s = calloc(1, sizeof *s);
    hp_rpc_set_user(call, s);
    if (!s) {
        gw_fail(call, NULL);
        return;
    }
    s->rpc = call;
    s->gw = gw_of(call);
}

/* The change in an item: its case in harpoon.internal.v1.Request follows from its type. */
static const ProtobufCMessage *change_of(const Harpoon__V1__SubmitRequest *r)
{
    return r->change_case == HARPOON__V1__SUBMIT_REQUEST__CHANGE__NOT_SET ? NULL : &r->create->base;
}

/* 0; or negative with *ret_status, which is NULL when out of memory. */
static int prepare_item(struct submit_call *s, const ProtobufCMessage *change, struct submit_item *i,
                        Google__Rpc__Status **ret_status)
{
    if (!change) {
        *ret_status = hp_status_add_field(
            hp_status_new(HP_CODE_INVALID_ARGUMENT, "FIELD_INVALID", "change: must be set"), "change", "must be set");
        return HP_EINVAL;
    }
    gw_refresh_tokens(s->gw);
    if (gw_caller(s->rpc)->revoked) {
        *ret_status = gw_revoked_status(gw_caller(s->rpc));
        return HP_EPERM;
    }
    if (s->under_way >= GW_SUBMITTED_MAX) {
        *ret_status =
            hp_status_add_retry(hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "SUBMIT_BUSY",
                                              "%d changes of this call are not answered yet", GW_SUBMITTED_MAX),
                                100);
        return HP_ELIMIT;
    }
    if (s->gw->stopping) {
        *ret_status = gw_stopping_status();
        return HP_ECANCELED;
    }
    int rc = gw_prepare(&s->gw->regions, gw_caller(s->rpc), gw_payload_case(change->descriptor), change, hp_wall_ns(),
                        &s->gw->rng, &i->change, ret_status);
    if (rc < 0 || !i->change.transient)
        return rc;
    gw_prepared_done(&i->change);
    *ret_status = hp_status_add_field(
        hp_status_new(HP_CODE_INVALID_ARGUMENT, "FIELD_INVALID", "validate_only: has no answer in Submit"),
        "validate_only", "has no answer in Submit: use the unary method");
    return HP_EINVAL;
}

void gw_on_submit(struct hp_rpc_call *call, const ProtobufCMessage *request)
{
    struct submit_call *s = hp_rpc_user(call);
    const Harpoon__V1__SubmitRequest *r = (const Harpoon__V1__SubmitRequest *)request;
    if (!s || !s->rpc)
        return;
    Google__Rpc__Status *status = NULL;
    struct submit_item *i = calloc(1, sizeof *i);
    if (i) {
        i->call = s;
        i->correlation = r->correlation;
    }
    if (!i || prepare_item(s, change_of(r), i, &status) < 0) {
        free(i);
        answer(s, r->correlation, status, NULL);
        settle(s);
        return;
    }
    s->under_way++;
    gw_publish(s->gw, &i->publishing, &i->change, NULL, on_published);
}

void gw_on_submit_half_close(struct hp_rpc_call *call)
{
    struct submit_call *s = hp_rpc_user(call);
    if (!s)
        return;
    s->half_closed = true;
    settle(s);
}

void gw_on_submit_cancel(struct hp_rpc_call *call)
{
    struct submit_call *s = hp_rpc_user(call);
    if (!s)
        return;
    s->rpc = NULL;
    settle(s);
}
