/* A client and a server session joined in memory: messages of all sizes, flow control both ways, who waits for whom, and what is too much. */
#include "lib/grpc_echo.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_message_too_large),     T(test_largest_message),
        T(test_response_too_large),    T(test_pause_holds_back),
        T(test_writable_after_eagain), T(test_stalled_reader),
        T(test_bidi_back_pressure),    T_OWN(test_budget_of_all_connections),
        T_OWN(test_calls_max),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
