/* connect_faults_test.c — every allocation of a call over HTTP/1.1 fails once, libmicrohttpd's included: the client gets the whole answer, an error that it may repeat, or a connection that breaks; never a
 * part of an answer that looks whole. The repeat succeeds, and nothing is left over. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "echo.pb-c.h"
#include "grpc/status.h"
#include "io/loop.h"
#include "io/rpc_server.h"
#include "lib/fail_alloc.h"

enum { ANSWERS = 40, TEXT_BYTES = 3000, ANSWER_MAX = 1 << 20, PATIENCE_MS = 10000 };

static struct {
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop turning */
    struct hp_rpc_server *server;
    struct sockaddr_in address;
    int sent; /* messages of the stream under way */
    char text[TEXT_BYTES + 1];
    char answer[ANSWER_MAX];
    size_t got;
} t;

/* ---- The service: allocates nothing itself ---- */

static int send_one(struct hp_rpc_call *call, int count)
{
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.text = t.text;
    r.count = count;
    return hp_rpc_send(call, &r.base);
}

static void give_up(struct hp_rpc_call *call)
{
    hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for the answer"));
}

static void on_echo(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const Harpoon__Test__V1__EchoRequest *)m;
    assert_string_equal(q->text, "hello");
    assert_int_equal(q->n_items, 2);
    if (q->fail_code)
        hp_rpc_finish(
            call, hp_status_add_field(hp_status_new(q->fail_code, "ASKED_FOR", "as asked"), "fail_code", "is not 0"));
    else {
        Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
        r.text = t.text;
        hp_rpc_reply(call, &r.base);
    }
}

static void on_writable(struct hp_rpc_call *call)
{
    while (t.sent < ANSWERS) {
        int rc = send_one(call, t.sent);
        if (rc == HP_ELIMIT) {
            give_up(call);
            return;
        }
        t.sent++;
        if (rc == HP_EAGAIN)
            return;
        assert_int_equal(rc, 0);
    }
    hp_rpc_finish(call, NULL);
}

static void on_repeat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    t.sent = 0;
    on_writable(call);
}

#define METHOD(name_, server_, message_, writable_)                                                                    \
    static const struct hp_rpc_method name_##_method = {.service = "harpoon.test.v1.EchoService",                      \
                                                        .name = #name_,                                                \
                                                        .request = &harpoon__test__v1__echo_request__descriptor,       \
                                                        .response = &harpoon__test__v1__echo_response__descriptor,     \
                                                        .server_streaming = server_,                                   \
                                                        .on_message = message_,                                        \
                                                        .on_writable = writable_}
METHOD(Echo, false, on_echo, NULL);
METHOD(Repeat, true, on_repeat, on_writable);
static const struct hp_rpc_method *const methods[] = {&Echo_method, &Repeat_method, NULL};
static const struct hp_rpc_service service = {.methods = methods};

/* ---- A client that allocates nothing ---- */

static void turn(void)
{
    fa_enter();
    uv_run(&t.loop, UV_RUN_ONCE);
    fa_leave();
}

/* Sends a request and reads until the server closes the connection. */
static void talk(const char *request, size_t len)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct linger reset = {1, 0}; /* no port is left in TIME_WAIT */
    uint64_t end = hp_now_ms() + PATIENCE_MS;
    t.got = 0;
    assert_true(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    assert_true(connect(fd, (struct sockaddr *)&t.address, sizeof t.address) == 0 || errno == EINPROGRESS);
    assert_int_equal(send(fd, request, len, MSG_NOSIGNAL), len);
    for (;;) {
        turn();
        ssize_t n = recv(fd, t.answer + t.got, ANSWER_MAX - t.got - 1, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
        t.got += n > 0 ? (size_t)n : 0;
        assert_true(hp_now_ms() < end);
    }
    close(fd);
    t.answer[t.got] = '\0';
    for (int i = 0; i < 3; i++) /* the server lets go of the connection, and of what it freed late */
        turn();
}

struct exchange {
    const char *method, *type, *body; /* of the request; a stream's body gets its envelope */
    bool streaming;
    int expected; /* HTTP status */
};

static size_t write_request(const struct exchange *x, char out[2048])
{
    size_t len = strlen(x->body), prefix = x->streaming ? 5 : 0;
    int n = snprintf(out, 2048,
                     "POST /harpoon.test.v1.EchoService/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     "Connect-Protocol-Version: 1\r\nConnect-Timeout-Ms: 60000\r\nContent-Type: application/%s\r\n"
                     "Origin: http://page\r\nContent-Length: %zu\r\n\r\n",
                     x->method, x->type, len + prefix);
    if (x->streaming) {
        const uint8_t envelope[5] = {0, 0, 0, (uint8_t)(len >> 8), (uint8_t)len};
        memcpy(out + n, envelope, 5);
        n += 5;
    }
    memcpy(out + n, x->body, len);
    return (size_t)n + len;
}

/* ---- What came ---- */

/* The body of a chunked answer, joined in place; false: its last chunk is missing. */
static bool join_chunks(char *body, size_t *len)
{
    char *in = body, *out = body, *end = body + *len;
    for (;;) {
        char *line = memmem(in, (size_t)(end - in), "\r\n", 2);
        size_t n = line ? strtoul(in, NULL, 16) : 0;
        if (!line || (size_t)(end - line) < n + 4) {
            *len = (size_t)(out - body);
            return false;
        }
        memmove(out, line + 2, n);
        out += n;
        in = line + 2 + n + 2;
        if (n == 0) {
            *len = (size_t)(out - body);
            return true;
        }
    }
}

/* A stream's messages; true: it ended, and without an error. */
static bool check_stream(uint8_t *body, size_t len)
{
    int messages = 0;
    while (len >= 5) {
        size_t n = (size_t)body[3] << 8 | body[4] | (size_t)body[2] << 16;
        if (len < 5 + n)
            return false;
        if (body[0] == 2) {
            bool error = memmem(body + 5, n, "\"error\"", 7) != NULL;
            assert_true(error || messages == ANSWERS);
            assert_true(!error || memmem(body + 5, n, "resource_exhausted", 18));
            assert_int_equal(len, 5 + n);
            return !error;
        }
        char count[32];
        snprintf(count, sizeof count, "\"count\":%d", messages);
        assert_true(messages == 0 || memmem(body + 5, n, count, strlen(count)));
        assert_true(n > TEXT_BYTES);
        messages++;
        body += 5 + n;
        len -= 5 + n;
    }
    return false;
}

/* True: it is what was asked for. Otherwise it must be an error that may be repeated, or visibly incomplete. */
static bool check_answer(const struct exchange *x)
{
    int status = 0;
    char *body = strstr(t.answer, "\r\n\r\n");
    if (!body)
        return false; /* the connection broke */
    assert_int_equal(sscanf(t.answer, "HTTP/1.1 %d ", &status), 1);
    body += 4;
    size_t len = t.got - (size_t)(body - t.answer);
    const char *length = strstr(t.answer, "Content-Length: ");
    bool whole = length && length < body ? len == strtoul(length + 16, NULL, 10) : join_chunks(body, &len);
    if (!whole)
        return false;
    body[len] = '\0';
    assert_true(status == x->expected || status == 429);
    assert_non_null(strstr(t.answer, "Content-Type: application/"));
    assert_non_null(strstr(t.answer, "Access-Control-Allow-Origin: http://page"));
    if (status == 429) {
        assert_non_null(strstr(body, "\"resource_exhausted\""));
        assert_null(strstr(body, "LARGE"));
        return false;
    }
    if (x->streaming)
        return check_stream((uint8_t *)body, len);
    if (status == 200)
        assert_true(len > TEXT_BYTES && strstr(body, t.text));
    else
        assert_non_null(strstr(body, "\"failed_precondition\""));
    return true;
}

static void call_until_answered(void *user)
{
    const struct exchange *x = user;
    char request[2048];
    size_t len = write_request(x, request);
    talk(request, len);
    if (check_answer(x))
        return;
    assert_true(fa_failed());
    talk(request, len); /* one allocation fails in a run: this time it comes through */
    assert_true(check_answer(x));
}

#define REQUEST "{\"text\":\"hello\",\"items\":[{\"name\":\"a\",\"number\":\"1\"},{\"name\":\"b\"}]"
static const struct exchange unary = {"Echo", "json", REQUEST "}", false, 200},
                             refusal = {"Echo", "json", REQUEST ",\"failCode\":9}", false, 400},
                             stream = {"Repeat", "connect+json", REQUEST "}", true, 200};
static const struct exchange binary = {"Echo", "proto",
                                       "\x0a\x05hello\x3a\x03\x0a\x01"
                                       "a\x3a\x03\x0a\x01"
                                       "b",
                                       false, 200};

static void each(const struct exchange *x, long expected)
{
    assert_true(fa_each(call_until_answered, (void *)(uintptr_t)x) > expected);
}

static void a_unary_call(void **state)
{
    each(&unary, 40);
    each(&binary, 20);
    each(&refusal, 40);
}

static void a_stream(void **state)
{
    each(&stream, 200);
}

/* ---- */

static void on_tick(uv_timer_t *timer)
{
}

static int setup(void **state)
{
    struct hp_error e = {0};
    const struct hp_rpc_server_options o = {
        .service = &service, .http_listen = "127.0.0.1:0", .allow_origins = "http://page"};
    hp_log_set_level(HP_LOG_ERROR);
    memset(t.text, 'x', TEXT_BYTES);
    uv_loop_init(&t.loop);
    uv_timer_init(&t.loop, &t.tick);
    uv_timer_start(&t.tick, on_tick, 1, 1);
    assert_int_equal(hp_rpc_server_start(&t.loop, &o, &t.server, &e), 0);
    t.address.sin_family = AF_INET;
    t.address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    t.address.sin_port = htons((uint16_t)atoi(strrchr(hp_rpc_server_address(t.server, "http"), ':') + 1));
    return 0;
}

static void note(void *user)
{
    *(bool *)user = true;
}

static int teardown(void **state)
{
    bool closed = false;
    hp_rpc_server_close(t.server, 1000, note, &closed);
    while (!closed)
        uv_run(&t.loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&t.tick, NULL);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    return uv_loop_close(&t.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_unary_call), cmocka_unit_test(a_stream)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
