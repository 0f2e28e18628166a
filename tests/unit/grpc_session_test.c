/* A client and a server session joined in memory: the four kinds of calls, errors, deadlines, cancellation, credentials, the end of connections. */
#include "lib/grpc_echo.h"

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
    static struct result r;
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
        T_OWN(test_authentication),
        T(test_drain),
        T(test_idle_goes_away),
        T(test_keepalive),
        T_OWN(test_no_preface),
        T_OWN(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
