/* The RPC server and client on one loop: TLS and plaintext, reconnecting, draining, closing at every moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo.pb-c.h"
#include "grpc/status.h"
#include "io/rpc_client.h"
#include "io/rpc_server.h"
#include "io/stream.h"
#include "lib/echo_service.h"
#include "lib/pki.h"

#define SERVICE "/harpoon.test.v1.EchoService/"
enum { PATIENCE_MS = 10000 };

static struct {
    uv_loop_t loop;
    uv_timer_t patience; /* fails the test that waits for ever */
    uv_timer_t tick;     /* wakes the loop, so that conditions of other threads or clocks are seen */
    struct echo_service echo;
    struct hp_rpc_server *server;
    struct hp_rpc_client *client;
    char directory[64], ca[96], cert[96], key[96];
    bool server_closed, client_closed;
} t;

struct result {
    struct hp_client_call *call; /* NULL after the end */
    int messages, finishes, writables;
    int code;
    char text[256], message[512], principal[32];
};

static void got_message(struct hp_client_call *call, const ProtobufCMessage *m, void *user)
{
    struct result *r = user;
    const Harpoon__Test__V1__EchoResponse *a = (const void *)m;
    r->messages++;
    snprintf(r->text, sizeof r->text, "%s", a->text);
    snprintf(r->principal, sizeof r->principal, "%s", a->principal);
}

static void got_writable(struct hp_client_call *call, void *user)
{
    struct result *r = user;
    r->writables++;
}

static void got_finish(struct hp_client_call *call, const Google__Rpc__Status *s, void *user)
{
    struct result *r = user;
    assert_ptr_equal(call, r->call);
    r->call = NULL;
    r->finishes++;
    r->code = s->code;
    snprintf(r->message, sizeof r->message, "%s", s->message);
}

static const struct hp_client_call_events events = {got_message, got_writable, got_finish};

/* ---- the world ---- */

static void out_of_patience(uv_timer_t *timer)
{
    fail_msg("nothing happened in %d ms", PATIENCE_MS);
}

static void nothing(uv_timer_t *timer)
{
}

#define WAIT_FOR(condition)                                                                                            \
    do {                                                                                                               \
        uv_timer_start(&t.patience, out_of_patience, PATIENCE_MS, 0);                                                  \
        uv_timer_start(&t.tick, nothing, 5, 5);                                                                        \
        while (!(condition))                                                                                           \
            uv_run(&t.loop, UV_RUN_ONCE);                                                                              \
        uv_timer_stop(&t.patience);                                                                                    \
        uv_timer_stop(&t.tick);                                                                                        \
    } while (0)

static void write_file(char *path, size_t size, const char *name, const char *text)
{
    snprintf(path, size, "%s/%s", t.directory, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int make_world(void **state)
{
    memset(&t, 0, sizeof t);
    uv_loop_init(&t.loop);
    uv_timer_init(&t.loop, &t.patience);
    uv_timer_init(&t.loop, &t.tick);
    strcpy(t.directory, "/tmp/harpoon-rpc-XXXXXX");
    assert_non_null(mkdtemp(t.directory));
    struct pki *p = pki_new("rpc test");
    struct pki_leaf leaf = pki_issue(p, "localhost", "DNS:localhost,IP:127.0.0.1", false);
    write_file(t.ca, sizeof t.ca, "ca.pem", pki_ca_pem(p));
    write_file(t.cert, sizeof t.cert, "cert.pem", leaf.cert_pem);
    write_file(t.key, sizeof t.key, "key.pem", leaf.key_pem);
    pki_leaf_done(&leaf);
    pki_free(p);
    return 0;
}

static void note(void *user)
{
    *(bool *)user = true;
}

static void close_client(void)
{
    hp_rpc_client_close(t.client, note, &t.client_closed);
    WAIT_FOR(t.client_closed);
    t.client = NULL;
}

static void close_server(uint64_t drain_ms)
{
    hp_rpc_server_close(t.server, drain_ms, note, &t.server_closed);
    WAIT_FOR(t.server_closed);
    t.server = NULL;
}

static int end_world(void **state)
{
    if (t.client)
        close_client();
    if (t.server)
        close_server(0);
    assert_int_equal(t.echo.calls, 0);
    uv_close((uv_handle_t *)&t.patience, NULL);
    uv_close((uv_handle_t *)&t.tick, NULL);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&t.loop), 0);
    unlink(t.ca);
    unlink(t.cert);
    unlink(t.key);
    rmdir(t.directory);
    return 0;
}

static void start_server(const char *h2c)
{
    struct hp_error e = {0};
    const struct hp_rpc_server_options o = {
        .service = &t.echo.rpc,
        .grpc_listen = "127.0.0.1:0",
        .h2c_listen = h2c,
        .http_listen = "127.0.0.1:0",
        .cert_file = t.cert,
        .key_file = t.key,
        .client_ca_file = t.ca,
    };
    t.server_closed = false;
    if (hp_rpc_server_start(&t.loop, &o, &t.server, &e))
        fail_msg("%s", e.message);
    hp_rpc_server_set_serving(t.server, true);
}

static void start_client(const char *scheme, const char *address, const char *token)
{
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "%s://%s", scheme, address);
    const struct hp_rpc_client_options o = {.endpoint = endpoint, .ca_file = t.ca, .token = token, .connect_ms = 500};
    struct hp_error e = {0};
    t.client_closed = false;
    if (hp_rpc_client_new(&t.loop, &o, &t.client, &e))
        fail_msg("%s", e.message);
}

static int setup(void **state)
{
    make_world(state);
    echo_service_init(&t.echo, &t.loop, false);
    start_server("127.0.0.1:0");
    start_client("http", hp_rpc_server_address(t.server, "h2c"), NULL);
    return 0;
}

static void start(struct result *r, const char *method, const Harpoon__Test__V1__EchoRequest *q, uint64_t timeout_ms)
{
    char path[128];
    struct hp_error e = {0};
    memset(r, 0, sizeof *r);
    r->code = -1;
    snprintf(path, sizeof path, SERVICE "%s", method);
    assert_int_equal(hp_client_call_start(t.client, path, &harpoon__test__v1__echo_response__descriptor, timeout_ms,
                                          &events, r, &r->call, &e),
                     0);
    assert_int_not_equal(hp_client_call_send(r->call, &q->base), HP_ELIMIT);
    hp_client_call_half_close(r->call);
    assert_int_equal(r->finishes, 0);
}

static void call(struct result *r, const char *method, const Harpoon__Test__V1__EchoRequest *q)
{
    start(r, method, q, 0);
    WAIT_FOR(r->finishes);
}

/* ---- tests ---- */

static void test_plain(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.text = (char *)"hello";
    call(&r, "Echo", &q);
    assert_int_equal(r.code, 0);
    assert_string_equal(r.text, "hello");
}

static void test_tls_and_token(void **state)
{
    make_world(state);
    echo_service_init(&t.echo, &t.loop, true);
    start_server(NULL);
    assert_null(hp_rpc_server_address(t.server, "h2c"));
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    start_client("https", hp_rpc_server_address(t.server, "grpc"), "secret");
    call(&r, "Echo", &q);
    assert_int_equal(r.code, 0);
    assert_string_equal(r.principal, "tester");
    close_client();
    start_client("https", hp_rpc_server_address(t.server, "grpc"), "guess");
    call(&r, "Echo", &q);
    assert_int_equal(r.code, HP_CODE_UNAUTHENTICATED);
}

static void test_big_stream(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.count = 300;
    q.size = 100000;
    call(&r, "Repeat", &q);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.messages, 300);
}

static void test_many_calls_at_once(void **state)
{
    enum { CALLS = 3000 }; /* three times what one connection may have */
    struct result *r = calloc(CALLS, sizeof *r);
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.delay_ms = 1;
    for (int i = 0; i < CALLS; i++)
        start(&r[i], "Echo", &q, 0);
    for (int i = 0; i < CALLS; i++) {
        WAIT_FOR(r[i].finishes);
        assert_int_equal(r[i].code, 0);
    }
    free(r);
}

static void test_refused(void **state)
{
    close_client();
    char address[64];
    snprintf(address, sizeof address, "%s", hp_rpc_server_address(t.server, "h2c"));
    close_server(0);
    start_client("http", address, NULL);
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    call(&r, "Echo", &q);
    assert_int_equal(r.code, HP_CODE_UNAVAILABLE);
    assert_non_null(strstr(r.message, address));
    /* And a server that is there again is found. */
    start_server(address);
    call(&r, "Echo", &q);
    assert_int_equal(r.code, 0);
}

static void test_plaintext_to_tls(void **state)
{
    close_client();
    start_client("http", hp_rpc_server_address(t.server, "grpc"), NULL);
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    call(&r, "Echo", &q);
    assert_int_equal(r.code, HP_CODE_UNAVAILABLE);
}

static void forget(struct hp_stream *s, const struct hp_error *e, void *user)
{
    *(struct hp_stream **)user = NULL;
}

static void accept_nobody(struct hp_listener *l, struct hp_stream *s, void *user)
{
    static const struct hp_stream_events silent = {.on_close = forget};
    hp_stream_set_events(s, &silent);
    hp_stream_set_user(s, user);
    *(struct hp_stream **)user = s;
}

/* A server that accepts and says nothing: the call's own deadline is kept while the handshake hangs, and so is the connection's. */
static void test_deadline_before_connection(void **state)
{
    struct hp_stream *silent = NULL;
    struct hp_listener *l;
    struct hp_listener_options o = {0};
    struct hp_error e = {0};
    assert_int_equal(hp_listener_start(&t.loop, "127.0.0.1:0", &o, accept_nobody, &silent, &l, &e), 0);
    close_client();
    start_client("https", hp_listener_address(l), NULL);
    struct result r, patient, cancelled;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    start(&r, "Echo", &q, 50);
    start(&patient, "Echo", &q, 0);
    start(&cancelled, "Echo", &q, 0);
    hp_client_call_cancel(cancelled.call);
    WAIT_FOR(r.finishes && cancelled.finishes);
    assert_int_equal(r.code, HP_CODE_DEADLINE_EXCEEDED);
    assert_int_equal(cancelled.code, HP_CODE_CANCELLED);
    assert_int_equal(patient.finishes, 0);
    WAIT_FOR(patient.finishes);
    assert_int_equal(patient.code, HP_CODE_UNAVAILABLE);
    if (silent)
        hp_stream_close(silent, 0);
    hp_listener_close(l);
    WAIT_FOR(!silent);
}

static void test_deadline(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.hang = true;
    start(&r, "Echo", &q, 50);
    WAIT_FOR(r.finishes);
    assert_int_equal(r.code, HP_CODE_DEADLINE_EXCEEDED);
    WAIT_FOR(t.echo.calls == 0);
    assert_int_equal(t.echo.cancels, 1);
}

static void test_close_cancels(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.hang = true;
    start(&r, "Echo", &q, 0);
    WAIT_FOR(t.echo.calls == 1);
    close_client();
    assert_int_equal(r.finishes, 1);
    assert_int_equal(r.code, HP_CODE_CANCELLED);
    WAIT_FOR(t.echo.cancels == 1);
}

static void test_close_at_once(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    start(&r, "Echo", &q, 0);
    close_client();
    assert_int_equal(r.code, HP_CODE_CANCELLED);
}

/* A server that goes away lets calls finish; the next call finds nobody. */
static void test_drain(void **state)
{
    struct result slow, late;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.delay_ms = 200;
    start(&slow, "Echo", &q, 0);
    WAIT_FOR(t.echo.calls == 1);
    hp_rpc_server_close(t.server, 5000, note, &t.server_closed);
    WAIT_FOR(slow.finishes);
    assert_int_equal(slow.code, 0);
    WAIT_FOR(t.server_closed);
    t.server = NULL;
    call(&late, "Echo", &q);
    assert_int_equal(late.code, HP_CODE_UNAVAILABLE);
}

static void test_drain_has_an_end(void **state)
{
    struct result r;
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    q.hang = true;
    start(&r, "Echo", &q, 0);
    WAIT_FOR(t.echo.calls == 1);
    close_server(20);
    WAIT_FOR(r.finishes);
    assert_int_equal(r.code, HP_CODE_UNAVAILABLE);
    assert_int_equal(t.echo.cancels, 1);
}

static void test_bad_options(void **state)
{
    static const struct {
        struct hp_rpc_server_options o;
        const char *message;
    } rows[] = {
        {{.h2c_listen = "0.0.0.0:0"}, "loopback"},
        {{.http_listen = "0.0.0.0:0"}, "loopback"},
        {{.h2c_listen = "127.0.0.1:0", .http_listen = "127.0.0.1"}, "host:port"},
        {{.grpc_listen = "127.0.0.1:0", .cert_file = "/nonexistent", .key_file = "/nonexistent"}, "/nonexistent"},
        {{.http_listen = "127.0.0.1:0", .cert_file = "/nonexistent", .key_file = "/nonexistent"}, "/nonexistent"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hp_rpc_server_options o = rows[i].o;
        struct hp_rpc_server *s = NULL;
        struct hp_error e = {0};
        o.service = &t.echo.rpc;
        assert_true(hp_rpc_server_start(&t.loop, &o, &s, &e) < 0);
        assert_null(s);
        if (!strstr(e.message, rows[i].message))
            fail_msg("%s", e.message);
    }
    struct hp_rpc_client *c = NULL;
    struct hp_error e = {0};
    const struct hp_rpc_client_options o = {.endpoint = "ftp://x"};
    assert_int_equal(hp_rpc_client_new(&t.loop, &o, &c, &e), HP_EINVAL);
}

static void test_address_in_use(void **state)
{
    static const char *const kinds[] = {"h2c", "http"};
    for (int i = 0; i < 2; i++) {
        struct hp_rpc_server_options o = {.service = &t.echo.rpc, .cert_file = t.cert, .key_file = t.key};
        *(i == 0 ? &o.h2c_listen : &o.http_listen) = hp_rpc_server_address(t.server, kinds[i]);
        struct hp_rpc_server *s = NULL;
        struct hp_error e = {0};
        assert_int_equal(hp_rpc_server_start(&t.loop, &o, &s, &e), HP_EEXISTS);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, end_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_plain),
        cmocka_unit_test_teardown(test_tls_and_token, end_world),
        T(test_big_stream),
        T(test_many_calls_at_once),
        T(test_refused),
        T(test_plaintext_to_tls),
        T(test_deadline_before_connection),
        T(test_deadline),
        T(test_close_cancels),
        T(test_close_at_once),
        T(test_drain),
        T(test_drain_has_an_end),
        T(test_bad_options),
        T(test_address_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
