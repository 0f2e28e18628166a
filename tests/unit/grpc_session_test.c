/* A client and a server session joined in memory: the four kinds of calls, errors, deadlines, cancellation, flow control, the end of connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.pb-c.h"
#include "grpc/status.h"
#include "lib/grpc_pipe.h"

#define ECHO "/harpoon.test.v1.EchoService/"

/* ---- the service: answers at once, or keeps the call for the test ---- */

static struct {
    struct hp_rpc_call *kept; /* of the last request with `hang` */
    int cancels, writables, messages, half_closes;
    uint64_t deadline_ms;
    char texts[256];
} server;

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

/* Static in each test: calls that go on are ended by the teardown, which still reports to it. */
struct result {
    int messages, finishes, writables;
    int code;
    char text[256], message[256], reason[64];
    size_t data_len;
    int32_t count;
    bool cancel_at_first;
};

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

static struct grpc_pipe pipe_;

static int setup(void **state)
{
    memset(&server, 0, sizeof server);
    memset(&pipe_, 0, sizeof pipe_);
    pipe_.service.methods = methods;
    return 0;
}

static int setup_open(void **state)
{
    setup(state);
    grpc_pipe_open(&pipe_, true);
    return 0;
}

static int teardown(void **state)
{
    grpc_pipe_close(&pipe_);
    return 0;
}

static struct hp_client_call *start(const char *method, uint64_t timeout_ms, struct result *r)
{
    char path[128];
    snprintf(path, sizeof path, ECHO "%s", method);
    memset(r, 0, sizeof *r);
    r->code = -1;
    return grpc_pipe_call(&pipe_, path, &harpoon__test__v1__echo_response__descriptor, timeout_ms, &events, r);
}

static int send_text(struct hp_client_call *call, const char *text)
{
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.text = (char *)text;
    return hp_client_call_send(call, &q.base);
}

static void unary(const Harpoon__Test__V1__EchoRequest *q, struct result *r)
{
    struct hp_client_call *call = start("Echo", 0, r);
    assert_int_equal(hp_client_call_send(call, &q->base), 0);
    hp_client_call_half_close(call);
    assert_int_equal(r->finishes, 0);
    grpc_pipe_pump(&pipe_);
}

/* ---- the four kinds ---- */

static void test_unary(void **state)
{
    static struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.text = (char *)"hello";
    unary(&q, &r);
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.messages, 1);
    assert_string_equal(r.text, "hello");
    assert_int_equal(hp_grpc_server_calls(pipe_.server), 0);
    assert_int_equal(hp_grpc_client_calls(pipe_.client), 0);
}

/* Every boundary of frames and prefixes falls somewhere when bytes come one by one. */
static void test_unary_byte_by_byte(void **state)
{
    pipe_.chunk = 1;
    test_unary(state);
}

static void test_unary_empty_message(void **state)
{
    static struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    unary(&q, &r);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.messages, 1);
}

static void test_error_with_details(void **state)
{
    static struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.fail_code = HP_CODE_NOT_FOUND;
    unary(&q, &r);
    assert_int_equal(r.code, HP_CODE_NOT_FOUND);
    assert_int_equal(r.messages, 0);
    assert_string_equal(r.message, "as asked: 100% \xc3\xa4");
    assert_string_equal(r.reason, "ASKED");
}

static void test_server_streaming(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Repeat", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.count = 100;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.messages, 100);
    assert_int_equal(r.count, 99);
    assert_int_equal(r.code, 0);
}

static void test_server_streaming_error_after_messages(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Repeat", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.count = 3;
    q.fail_code = HP_CODE_OUT_OF_RANGE;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.messages, 3);
    assert_int_equal(r.code, HP_CODE_OUT_OF_RANGE);
    assert_string_equal(r.reason, "ASKED");
}

static void test_server_streaming_nothing(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Repeat", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.messages, 0);
    assert_int_equal(r.code, 0);
}

static void test_client_streaming(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Collect", 0, &r);
    assert_int_equal(send_text(call, "a"), 0);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.messages, 1);
    assert_int_equal(send_text(call, "b"), 0);
    assert_int_equal(send_text(call, "c"), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_string_equal(r.text, "abc");
    assert_int_equal(r.count, 3);
    assert_int_equal(r.code, 0);
    assert_int_equal(server.half_closes, 1);
}

static void test_bidi(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Chat", 0, &r);
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(send_text(call, "x"), 0);
        grpc_pipe_pump(&pipe_);
        assert_int_equal(r.messages, i);
    }
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, 0);
}

/* The server ends while the client would still like to talk: the client learns the status, and both forget the stream. */
static void test_bidi_server_ends_first(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Chat", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.fail_code = HP_CODE_ABORTED;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.code, HP_CODE_ABORTED);
    assert_int_equal(hp_grpc_server_calls(pipe_.server), 0);
    assert_int_equal(hp_grpc_client_calls(pipe_.client), 0);
}

/* ---- the end of calls ---- */

static void test_unknown_method(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Nothing", 0, &r);
    assert_int_equal(send_text(call, "x"), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_UNIMPLEMENTED);
    assert_string_equal(r.reason, "UNKNOWN_METHOD");
}

static struct hp_client_call *hanging(const char *method, uint64_t timeout_ms, struct result *r)
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

static void test_late_answer_wakes(void **state)
{
    static struct result r;
    hanging("Echo", 0, &r);
    int wakes = pipe_.wakes;
    Harpoon__Test__V1__EchoResponse a = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    a.text = (char *)"late";
    hp_rpc_reply(server.kept, &a.base);
    assert_true(pipe_.wakes > wakes);
    assert_int_equal(r.finishes, 0);
    grpc_pipe_pump(&pipe_);
    assert_string_equal(r.text, "late");
    assert_int_equal(r.code, 0);
    assert_int_equal(server.cancels, 0);
}

static void test_deadline_at_the_server(void **state)
{
    static struct result r;
    hanging("Echo", 500, &r);
    assert_int_equal(server.deadline_ms, 500);
    /* Only the server's clock moves. */
    struct hp_error e = {0};
    assert_true(hp_grpc_server_deadline(pipe_.server) <= pipe_.now_ms + 500);
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms + 499, &e), 0);
    assert_int_equal(server.cancels, 0);
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms + 500, &e), 0);
    assert_int_equal(server.cancels, 1);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_DEADLINE_EXCEEDED);
    assert_string_equal(r.reason, "DEADLINE_EXCEEDED");
}

static void test_deadline_at_the_client(void **state)
{
    static struct result r;
    hanging("Echo", 500, &r);
    struct hp_error e = {0};
    pipe_.now_ms += 500;
    assert_int_equal(hp_grpc_client_tick(pipe_.client, pipe_.now_ms, &e), 0);
    assert_int_equal(r.code, HP_CODE_DEADLINE_EXCEEDED);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.cancels, 1);
    assert_int_equal(hp_grpc_server_calls(pipe_.server), 0);
}

static void test_cancel(void **state)
{
    static struct result r;
    struct hp_client_call *call = hanging("Echo", 0, &r);
    hp_client_call_cancel(call);
    assert_int_equal(r.finishes, 0);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_CANCELLED);
    assert_int_equal(server.cancels, 1);
    assert_null(server.kept);
}

static void test_cancel_before_sending(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Echo", 0, &r);
    hp_client_call_cancel(call);
    hp_client_call_cancel(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.code, HP_CODE_CANCELLED);
    assert_int_equal(server.messages, 0);
    assert_int_equal(hp_grpc_server_calls(pipe_.server), 0);
}

static void test_cancel_from_on_message(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Repeat", 0, &r);
    r.cancel_at_first = true;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.count = 10;
    q.hang = true;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.messages, 1);
    assert_int_equal(r.code, HP_CODE_CANCELLED);
    assert_int_equal(server.cancels, 1);
}

static void test_connection_lost(void **state)
{
    static struct result r;
    hanging("Echo", 0, &r);
    hp_grpc_server_free(pipe_.server);
    pipe_.server = NULL;
    assert_int_equal(server.cancels, 1);
    hp_grpc_client_free(pipe_.client, HP_CODE_UNAVAILABLE, "connection reset");
    pipe_.client = NULL;
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.code, HP_CODE_UNAVAILABLE);
    assert_string_equal(r.message, "connection reset");
}

/* ---- limits and flow control ---- */

static void test_message_too_large(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Echo", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.data.len = (1 << 20) + 1;
    q.data.data = calloc(1, q.data.len);
    assert_int_equal(hp_client_call_send(call, &q.base), HP_EAGAIN);
    hp_client_call_half_close(call);
    free(q.data.data);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(r.reason, "MESSAGE_TOO_LARGE");
    assert_int_equal(server.messages, 0);
}

static void test_largest_message(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Echo", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.data.len = (1 << 20) - 4; /* with its tag and length: the limit */
    q.data.data = calloc(1, q.data.len);
    assert_int_equal(hp_client_call_send(call, &q.base), HP_EAGAIN);
    hp_client_call_half_close(call);
    free(q.data.data);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.data_len, (1 << 20) - 4);
    assert_int_equal(r.writables, 1);
}

static void test_response_too_large(void **state)
{
    static struct result r;
    hanging("Echo", 0, &r);
    Harpoon__Test__V1__EchoResponse a = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    a.data.len = 5 << 20;
    a.data.data = calloc(1, a.data.len);
    assert_int_equal(hp_rpc_send(server.kept, &a.base), HP_ELIMIT);
    hp_rpc_reply(server.kept, &a.base);
    free(a.data.data);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(r.reason, "RESPONSE_TOO_LARGE");
}

/* A paused call holds back at most its window, other calls go on, and nothing is lost when it resumes. */
static void test_pause_holds_back(void **state)
{
    static struct result r, other;
    struct hp_client_call *call = start("Collect", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.hang = true;
    assert_int_equal(hp_client_call_send(call, &q.base), 0);
    grpc_pipe_pump(&pipe_);
    q.hang = false;
    q.data.len = 60000;
    q.data.data = calloc(1, q.data.len);
    int sent = 1;
    for (; sent <= 20; sent++)
        assert_int_not_equal(hp_client_call_send(call, &q.base), HP_ELIMIT);
    hp_client_call_half_close(call);
    free(q.data.data);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.messages, 1);
    assert_true(pipe_.budget.used_bytes <= 2 * HP_GRPC_STREAM_WINDOW);
    q.data.len = 0;
    q.text = (char *)"meanwhile";
    unary(&q, &other);
    assert_int_equal(other.code, 0);
    assert_int_equal(server.messages, 2);

    int wakes = pipe_.wakes;
    hp_rpc_resume(server.kept);
    assert_int_equal(server.messages, 2);
    assert_true(pipe_.wakes > wakes);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.messages, 1 + sent);
    assert_int_equal(r.code, 0);
    assert_int_equal(server.half_closes, 1);
}

static int count_sends(int32_t size, int limit)
{
    int rc = 0, n = 0;
    Harpoon__Test__V1__EchoResponse a = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    a.data.len = (size_t)size;
    a.data.data = calloc(1, a.data.len);
    for (; n < limit; n++) {
        rc = hp_rpc_send(server.kept, &a.base);
        if (rc)
            break;
    }
    free(a.data.data);
    assert_int_equal(rc, HP_EAGAIN);
    return n;
}

static void test_writable_after_eagain(void **state)
{
    static struct result r;
    hanging("Repeat", 0, &r);
    int n = count_sends(10000, 1000);
    assert_true(n < 10);
    assert_int_equal(server.writables, 0);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.writables, 1);
    assert_int_equal(r.messages, n + 1);
    hp_rpc_finish(server.kept, NULL);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, 0);
}

/* A client that opens no window: the handler is told to wait, then the limit is reached, then the call is ended. */
static void test_stalled_reader(void **state)
{
    static struct result r;
    hanging("Repeat", 0, &r);
    Harpoon__Test__V1__EchoResponse a = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    a.data.len = 1 << 20;
    a.data.data = calloc(1, a.data.len);
    assert_int_equal(hp_rpc_send(server.kept, &a.base), HP_EAGAIN);
    assert_int_equal(hp_rpc_send(server.kept, &a.base), HP_EAGAIN);
    assert_int_equal(hp_rpc_send(server.kept, &a.base), HP_EAGAIN);
    assert_int_equal(hp_rpc_send(server.kept, &a.base), HP_ELIMIT);
    free(a.data.data);
    /* Nothing is pulled: as if the socket took nothing. */
    struct hp_error e = {0};
    pipe_.now_ms += HP_GRPC_STALL_MS;
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms, &e), 0);
    assert_int_equal(server.cancels, 1);
    assert_int_equal(pipe_.budget.used_bytes, 0);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_RESOURCE_EXHAUSTED);
}

/* The server does not take more requests from a client that does not read the answers. */
static void test_bidi_back_pressure(void **state)
{
    static struct result r;
    struct hp_client_call *call = start("Chat", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.size = 30000;
    q.data.len = 1000;
    q.data.data = calloc(1, q.data.len);
    for (int i = 0; i < 60; i++)
        assert_int_not_equal(hp_client_call_send(call, &q.base), HP_ELIMIT);
    free(q.data.data);
    /* Only from client to server. */
    const uint8_t *data;
    size_t len;
    struct hp_error e = {0};
    for (;;) {
        assert_int_equal(hp_grpc_client_pull(pipe_.client, pipe_.now_ms, &data, &len, &e), 0);
        if (len == 0)
            break;
        assert_int_equal(hp_grpc_server_receive(pipe_.server, pipe_.now_ms, data, len, &e), 0);
    }
    assert_true(server.messages < 5);
    hp_client_call_half_close(call);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(server.messages, 60);
    assert_int_equal(r.messages, 60);
    assert_int_equal(r.code, 0);
}

static void test_budget_of_all_connections(void **state)
{
    pipe_.budget.max_bytes = 100000;
    grpc_pipe_open(&pipe_, true);
    static struct result r;
    struct hp_client_call *call = start("Echo", 0, &r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.data.len = 500000;
    q.data.data = calloc(1, q.data.len);
    assert_int_equal(hp_client_call_send(call, &q.base), HP_EAGAIN);
    hp_client_call_half_close(call);
    free(q.data.data);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, HP_CODE_RESOURCE_EXHAUSTED);
    assert_string_equal(r.reason, "OUT_OF_MEMORY");
}

static void test_calls_max(void **state)
{
    pipe_.service.calls_max = 3;
    grpc_pipe_open(&pipe_, true);
    static struct result r[5];
    struct hp_client_call *calls[5];
    grpc_pipe_pump(&pipe_); /* SETTINGS first */
    for (int i = 0; i < 5; i++)
        calls[i] = start("Chat", 0, &r[i]);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(hp_grpc_server_calls(pipe_.server), 3);
    for (int i = 0; i < 5; i++)
        hp_client_call_half_close(calls[i]);
    grpc_pipe_pump(&pipe_);
    for (int i = 0; i < 5; i++)
        assert_int_equal(r[i].code, 0);
}

/* ---- credentials ---- */

static Google__Rpc__Status *authenticate(void *context, const char *authorization, struct hp_rpc_peer *peer)
{
    assert_string_equal(peer->address, "pipe");
    if (authorization && strcmp(authorization, context) == 0)
        return NULL;
    return hp_status_new(HP_CODE_UNAUTHENTICATED, "BAD_TOKEN", "who are you?");
}

static void test_authentication(void **state)
{
    static const char *const contexts[] = {"Bearer secret", "Bearer other"};
    static const int expected[] = {HP_CODE_OK, HP_CODE_UNAUTHENTICATED};
    for (int i = 0; i < 2; i++) {
        setup(NULL);
        pipe_.service.context = (void *)contexts[i];
        pipe_.service.authenticate = authenticate;
        grpc_pipe_open(&pipe_, true);
        static struct result r;
        Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
        unary(&q, &r);
        assert_int_equal(r.code, expected[i]);
        assert_int_equal(server.messages, i == 0 ? 1 : 0);
        if (i == 0)
            grpc_pipe_close(&pipe_);
    }
}

/* ---- the connection ---- */

static void test_drain(void **state)
{
    static struct result r, refused;
    hanging("Echo", 0, &r);
    hp_grpc_server_drain(pipe_.server, pipe_.now_ms);
    grpc_pipe_pump(&pipe_);
    assert_false(hp_grpc_client_usable(pipe_.client));
    grpc_pipe_pass(&pipe_, HP_GRPC_DRAIN_NOTICE_MS);
    assert_false(hp_grpc_server_finished(pipe_.server));
    Harpoon__Test__V1__EchoResponse a = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    hp_rpc_reply(server.kept, &a.base);
    grpc_pipe_pump(&pipe_);
    assert_int_equal(r.code, 0);
    assert_true(hp_grpc_server_finished(pipe_.server));
    assert_true(hp_grpc_client_finished(pipe_.client));
    (void)refused;
}

static void test_idle_goes_away(void **state)
{
    static struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    unary(&q, &r);
    for (uint64_t waited = 0; waited < 1800000; waited += 30000)
        grpc_pipe_pass(&pipe_, 30000);
    grpc_pipe_pass(&pipe_, HP_GRPC_DRAIN_NOTICE_MS);
    assert_int_equal(pipe_.server_error, 0);
    assert_true(hp_grpc_server_finished(pipe_.server));
}

static void test_keepalive(void **state)
{
    static struct result r;
    hanging("Echo", 0, &r);
    /* An answering client lives on. */
    for (int i = 0; i < 10; i++)
        grpc_pipe_pass(&pipe_, 30000);
    assert_int_equal(pipe_.server_error, 0);
    assert_int_equal(pipe_.client_error, 0);
    /* A silent one does not. */
    struct hp_error e = {0};
    const uint8_t *data;
    size_t len;
    pipe_.now_ms += 60000;
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms, &e), 0);
    assert_int_equal(hp_grpc_server_pull(pipe_.server, pipe_.now_ms, &data, &len, &e), 0);
    assert_true(len > 0);
    pipe_.now_ms += HP_GRPC_PING_MS;
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms, &e), HP_ETIMEDOUT);
    /* Nor does a silent server. */
    assert_int_equal(hp_grpc_client_tick(pipe_.client, pipe_.now_ms, &e), 0);
    pipe_.now_ms += HP_CLIENT_PING_MS;
    assert_int_equal(hp_grpc_client_tick(pipe_.client, pipe_.now_ms, &e), HP_ETIMEDOUT);
}

static void test_no_preface(void **state)
{
    grpc_pipe_open(&pipe_, false);
    struct hp_error e = {0};
    pipe_.now_ms += HP_GRPC_PREFACE_MS;
    assert_int_equal(hp_grpc_server_tick(pipe_.server, pipe_.now_ms, &e), HP_ETIMEDOUT);
}

static void test_garbage(void **state)
{
    grpc_pipe_open(&pipe_, false);
    struct hp_error e = {0};
    static const char garbage[] = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_int_equal(hp_grpc_server_receive(pipe_.server, pipe_.now_ms, (const uint8_t *)garbage, sizeof garbage, &e),
                     HP_EPROTO);
    assert_true(e.message[0] != '\0');
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup_open, teardown)
#define T_OWN(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_unary),
        T(test_unary_byte_by_byte),
        T(test_unary_empty_message),
        T(test_error_with_details),
        T(test_server_streaming),
        T(test_server_streaming_error_after_messages),
        T(test_server_streaming_nothing),
        T(test_client_streaming),
        T(test_bidi),
        T(test_bidi_server_ends_first),
        T(test_unknown_method),
        T(test_late_answer_wakes),
        T(test_deadline_at_the_server),
        T(test_deadline_at_the_client),
        T(test_cancel),
        T(test_cancel_before_sending),
        T(test_cancel_from_on_message),
        T(test_connection_lost),
        T(test_message_too_large),
        T(test_largest_message),
        T(test_response_too_large),
        T(test_pause_holds_back),
        T(test_writable_after_eagain),
        T(test_stalled_reader),
        T(test_bidi_back_pressure),
        T_OWN(test_budget_of_all_connections),
        T_OWN(test_calls_max),
        T_OWN(test_authentication),
        T(test_drain),
        T(test_idle_goes_away),
        T(test_keepalive),
        T_OWN(test_no_preface),
        T_OWN(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
