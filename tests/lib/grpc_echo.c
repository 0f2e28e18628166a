#include "lib/grpc_echo.h"

#define ECHO "/harpoon.test.v1.EchoService/"

/* ---- the service: answers at once, or keeps the call for the test ---- */

struct echo_server server;

static void answer(struct hp_rpc_call *call, const Harpoon__Test__V1__EchoRequest *q, int n)
{
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.text = q->text;
    r.data = q->data;
    uint8_t *big = NULL;
    if (q->size > 0) {
        big = calloc(1, (size_t)q->size);
        r.data.data = big;
        r.data.len = (size_t)q->size;
    }
    r.count = n;
    assert_int_not_equal(hp_rpc_send(call, &r.base), HP_ELIMIT);
    free(big);
}

static Google__Rpc__Status *outcome(const Harpoon__Test__V1__EchoRequest *q)
{
    if (!q->fail_code)
        return NULL;
    return hp_status_add_metadata(hp_status_new(q->fail_code, "ASKED", "as asked: 100%% \xc3\xa4"), "k", "v");
}

static void on_unary(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    server.messages++;
    server.deadline_ms = hp_rpc_deadline_left_ms(call);
    if (q->hang) {
        server.kept = call;
        return;
    }
    if (!q->fail_code)
        answer(call, q, 0);
    hp_rpc_finish(call, outcome(q));
}

static void on_repeat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    for (int i = 0; i < q->count; i++)
        answer(call, q, i);
    if (q->hang)
        server.kept = call;
    else
        hp_rpc_finish(call, outcome(q));
}

static void on_collect(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    server.messages++;
    strncat(server.texts, q->text, sizeof server.texts - strlen(server.texts) - 1);
    if (q->hang) {
        server.kept = call;
        hp_rpc_pause(call);
    }
    if (q->fail_code)
        hp_rpc_finish(call, outcome(q));
}

static void on_collected(struct hp_rpc_call *call)
{
    server.half_closes++;
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.text = server.texts;
    r.count = server.messages;
    hp_rpc_reply(call, &r.base);
}

static void on_chat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    server.messages++;
    if (q->fail_code)
        hp_rpc_finish(call, outcome(q));
    else
        answer(call, q, server.messages);
}

static void on_chat_end(struct hp_rpc_call *call)
{
    server.half_closes++;
    hp_rpc_finish(call, NULL);
}

static void on_writable(struct hp_rpc_call *call)
{
    server.writables++;
}

static void on_cancel(struct hp_rpc_call *call)
{
    server.cancels++;
    if (server.kept == call)
        server.kept = NULL;
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
METHOD(Echo, false, false, on_unary, NULL);
METHOD(Collect, true, false, on_collect, on_collected);
METHOD(Repeat, false, true, on_repeat, NULL);
METHOD(Chat, true, true, on_chat, on_chat_end);
static const struct hp_rpc_method *const methods[] = {&Echo_method, &Collect_method, &Repeat_method, &Chat_method,
                                                      NULL};

/* ---- the client ---- */

static void got_message(struct hp_client_call *call, const ProtobufCMessage *m, void *user)
{
    struct result *r = user;
    const Harpoon__Test__V1__EchoResponse *a = (const void *)m;
    r->messages++;
    snprintf(r->text, sizeof r->text, "%s", a->text);
    r->data_len = a->data.len;
    r->count = a->count;
    if (r->cancel_at_first)
        hp_client_call_cancel(call);
}

static void got_writable(struct hp_client_call *call, void *user)
{
    struct result *r = user;
    r->writables++;
}

static void got_finish(struct hp_client_call *call, const Google__Rpc__Status *s, void *user)
{
    struct result *r = user;
    r->finishes++;
    r->code = s->code;
    snprintf(r->message, sizeof r->message, "%s", s->message);
    hp_status_reason(s, r->reason, sizeof r->reason);
}

static const struct hp_client_call_events events = {got_message, got_writable, got_finish};

struct grpc_pipe pipe_;

int setup(void **state)
{
    memset(&server, 0, sizeof server);
    memset(&pipe_, 0, sizeof pipe_);
    pipe_.service.methods = methods;
    return 0;
}

int setup_open(void **state)
{
    setup(state);
    grpc_pipe_open(&pipe_, true);
    return 0;
}

int teardown(void **state)
{
    grpc_pipe_close(&pipe_);
    return 0;
}

struct hp_client_call *start(const char *method, uint64_t timeout_ms, struct result *r)
{
    char path[128];
    snprintf(path, sizeof path, ECHO "%s", method);
    memset(r, 0, sizeof *r);
    r->code = -1;
    return grpc_pipe_call(&pipe_, path, &harpoon__test__v1__echo_response__descriptor, timeout_ms, &events, r);
}

int send_text(struct hp_client_call *call, const char *text)
{
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.text = (char *)text;
    return hp_client_call_send(call, &q.base);
}

void unary(const Harpoon__Test__V1__EchoRequest *q, struct result *r)
{
    struct hp_client_call *call = start("Echo", 0, r);
    assert_int_equal(hp_client_call_send(call, &q->base), 0);
    hp_client_call_half_close(call);
    assert_int_equal(r->finishes, 0);
    grpc_pipe_pump(&pipe_);
}
struct hp_client_call *hanging(const char *method, uint64_t timeout_ms, struct result *r)
{
    struct hp_client_call *call = start(method, timeout_ms, r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.hang = true;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_non_null(server.kept);
    return call;
}
