#include "lib/echo_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "echo.pb-c.h"

typedef Harpoon__Test__V1__EchoRequest Request;
typedef Harpoon__Test__V1__EchoResponse Response;

/* One call. Requests of Chat are answered in the order of their delays. */
struct echo_call {
    struct echo_service *service;
    struct hp_rpc_call *call; /* NULL after the end */
    int received;             /* messages */
    int sent, wanted;         /* Repeat: answers */
    Request *request;         /* Repeat: what to answer; Echo: with a delay */
    uv_timer_t timer;
    bool timed;
    char texts[4096]; /* Collect */
};

static void free_call(struct echo_call *e)
{
    if (e->request)
        harpoon__test__v1__echo_request__free_unpacked(e->request, NULL);
    free(e);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free_call(handle->data);
}

static void end(struct echo_call *e)
{
    e->call = NULL;
    e->service->calls--;
    if (e->timed)
        uv_close((uv_handle_t *)&e->timer, on_timer_closed);
    else
        free_call(e);
}

static struct echo_call *begin(struct hp_rpc_call *call)
{
    struct echo_call *e = hp_rpc_user(call);
    if (e)
        return e;
    e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->service = hp_rpc_context(call);
    e->call = call;
    e->service->calls++;
    hp_rpc_set_user(call, e);
    return e;
}

static Request *copy(const Request *q)
{
    size_t len = harpoon__test__v1__echo_request__get_packed_size(q);
    uint8_t *data = malloc(len + 1);
    harpoon__test__v1__echo_request__pack(q, data);
    Request *r = harpoon__test__v1__echo_request__unpack(NULL, len, data);
    free(data);
    return r;
}

static void finish(struct echo_call *e, const Request *q)
{
    Google__Rpc__Status *status = NULL;
    if (q && q->fail_code) {
        status = hp_status_new(q->fail_code, "ASKED_FOR", "as asked: %s", q->text);
        status = hp_status_add_metadata(status, "text", q->text);
        status = hp_status_add_field(status, "fail_code", "is not 0");
        status = hp_status_add_retry(status, 1500);
    }
    struct hp_rpc_call *call = e->call;
    end(e);
    hp_rpc_finish(call, status);
}

static int answer(struct echo_call *e, const Request *q, int count)
{
    Response r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    size_t n = q->n_labels;
    Harpoon__Test__V1__EchoResponse__LabelsEntry labels[16], *label_list[16];
    if (n > 16)
        n = 16;
    for (size_t i = 0; i < n; i++) {
        harpoon__test__v1__echo_response__labels_entry__init(&labels[i]);
        labels[i].key = q->labels[i]->key;
        labels[i].value = q->labels[i]->value;
        label_list[i] = &labels[i];
    }
    r.text = q->text;
    r.data = q->data;
    r.count = count;
    r.number = q->number;
    r.n_items = q->n_items;
    r.items = q->items;
    r.n_labels = n;
    r.labels = label_list;
    r.color = q->color;
    r.time = q->time;
    uint64_t left = hp_rpc_deadline_left_ms(e->call);
    r.deadline_ms = left == UINT64_MAX ? -1 : (int64_t)left;
    const char *principal = hp_rpc_peer_of(e->call)->principal;
    r.principal = (char *)(principal ? principal : "");
    uint8_t *big = NULL;
    if (q->size > 0) {
        big = calloc(1, (size_t)q->size);
        r.data = (ProtobufCBinaryData){.len = (size_t)q->size, .data = big};
    }
    int rc = hp_rpc_send(e->call, &r.base);
    free(big);
    return rc;
}

/* Sends what is left of a Repeat; EAGAIN: on_writable goes on. */
static void go_on(struct echo_call *e)
{
    while (e->sent < e->wanted) {
        int rc = answer(e, e->request, e->sent);
        if (rc == HP_ELIMIT) {
            struct hp_rpc_call *call = e->call;
            end(e);
            hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "TOO_MUCH", "the answer does not fit"));
            return;
        }
        e->sent++;
        if (rc == HP_EAGAIN)
            return;
        if (e->request->delay_ms > 0 && e->sent < e->wanted) {
            uv_timer_start(&e->timer, e->timer.timer_cb, (uint64_t)e->request->delay_ms, 0);
            return;
        }
    }
    if (!e->request->hang)
        finish(e, e->request);
}

static void on_timer(uv_timer_t *timer)
{
    struct echo_call *e = timer->data;
    if (e->call)
        go_on(e);
}

/* Echo is a Repeat of one, which sends nothing when it is to fail. */
static void begin_answers(struct hp_rpc_call *call, const Request *q, int wanted)
{
    struct echo_call *e = begin(call);
    e->request = copy(q);
    e->wanted = wanted;
    if (q->delay_ms > 0 || q->hang)
        hp_debug("waits", HP_S("method", hp_rpc_method_of(call)->name)); /* tests wait for it */
    if (q->delay_ms > 0) {
        uv_timer_init(e->service->loop, &e->timer);
        e->timer.data = e;
        e->timed = true;
        uv_timer_start(&e->timer, on_timer, (uint64_t)q->delay_ms, 0);
        return;
    }
    go_on(e);
}

static void on_echo(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Request *q = (const Request *)m;
    begin_answers(call, q, q->fail_code || q->hang ? 0 : 1);
}

static void on_repeat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Request *q = (const Request *)m;
    begin_answers(call, q, q->count);
}

static void on_writable(struct hp_rpc_call *call)
{
    struct echo_call *e = hp_rpc_user(call);
    if (e->request)
        go_on(e);
}

static void on_collect(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Request *q = (const Request *)m;
    struct echo_call *e = begin(call);
    size_t n = strlen(e->texts);
    snprintf(e->texts + n, sizeof e->texts - n, "%s%s", e->received++ ? "," : "", q->text);
    if (q->fail_code)
        finish(e, q);
}

static void on_collected(struct hp_rpc_call *call)
{
    struct echo_call *e = begin(call);
    Request q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.text = e->texts;
    answer(e, &q, e->received);
    finish(e, NULL);
}

static void on_chat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Request *q = (const Request *)m;
    struct echo_call *e = begin(call);
    if (q->fail_code)
        finish(e, q);
    else
        answer(e, q, e->received++);
}

static void on_chat_end(struct hp_rpc_call *call)
{
    finish(begin(call), NULL);
}

static void on_cancel(struct hp_rpc_call *call)
{
    struct echo_call *e = hp_rpc_user(call);
    if (!e)
        return;
    e->service->cancels++;
    hp_debug("cancelled", HP_S("method", hp_rpc_method_of(call)->name));
    end(e);
}

static Google__Rpc__Status *authenticate(void *context, const char *authorization, struct hp_rpc_peer *peer)
{
    if (!authorization || strcmp(authorization, "Bearer secret") != 0)
        return hp_status_new(HP_CODE_UNAUTHENTICATED, "BAD_TOKEN", "the token is \"secret\"");
    peer->principal = "tester";
    return NULL;
}

#define METHOD(name_, client_, server_, message_, half_)                                                               \
    static const struct hp_rpc_method name_##_method = {.service = "harpoon.test.v1.EchoService",                      \
                                                        .name = #name_,                                                \
                                                        .request = &harpoon__test__v1__echo_request__descriptor,       \
                                                        .response = &harpoon__test__v1__echo_response__descriptor,     \
                                                        .client_streaming = client_,                                   \
                                                        .server_streaming = server_,                                   \
                                                        .on_message = message_,                                        \
                                                        .on_half_close = half_,                                        \
                                                        .on_writable = on_writable,                                    \
                                                        .on_cancel = on_cancel}
METHOD(Echo, false, false, on_echo, NULL);
METHOD(Collect, true, false, on_collect, on_collected);
METHOD(Repeat, false, true, on_repeat, NULL);
METHOD(Chat, true, true, on_chat, on_chat_end);
static const struct hp_rpc_method *const methods[] = {&Echo_method, &Collect_method, &Repeat_method, &Chat_method,
                                                      NULL};

void echo_service_init(struct echo_service *s, uv_loop_t *loop, bool with_token)
{
    memset(s, 0, sizeof *s);
    s->loop = loop;
    s->rpc.methods = methods;
    s->rpc.context = s;
    s->rpc.authenticate = with_token ? authenticate : NULL;
}
