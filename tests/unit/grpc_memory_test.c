/* Every allocation of an exchange between two sessions fails once, in turn: no crash, no leak, no call that is forgotten. The allocator of the whole process,
 * libraries included, is replaced; under sanitizers, which replace it themselves, the tests are skipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo.pb-c.h"
#include "grpc/client.h"
#include "grpc/health.h"
#include "grpc/reflection.h"
#include "grpc/server.h"
#include "lib/sanitized.h"

static bool armed;          /* counting */
static long asked, fail_at; /* allocations since armed; the one that fails */
static long live;           /* allocated while armed, minus freed */

#if !SANITIZED
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void __libc_free(void *p);

static bool fails(void)
{
    return armed && ++asked == fail_at;
}

static void *got(void *p)
{
    if (armed && p)
        live++;
    return p;
}

void *malloc(size_t n)
{
    return fails() ? NULL : got(__libc_malloc(n));
}

void *calloc(size_t n, size_t m)
{
    return fails() ? NULL : got(__libc_calloc(n, m));
}

void *realloc(void *p, size_t n)
{
    if (!p)
        return malloc(n);
    return fails() ? NULL : __libc_realloc(p, n);
}

void free(void *p)
{
    if (armed && p)
        live--;
    __libc_free(p);
}
#endif

/* ---- the exchange ---- */

static int started, ended, final; /* client calls; those that ended in a way that no client repeats */

static void on_wake(void *user)
{
}

static void got_message(struct hp_client_call *call, const ProtobufCMessage *m, void *user)
{
}

static void got_finish(struct hp_client_call *call, const Google__Rpc__Status *s, void *user)
{
    ended++;
    /* A response that cannot be read is the client's own word. */
    final +=
        s->code == HP_CODE_UNAUTHENTICATED || (s->code == HP_CODE_INTERNAL && strncmp(s->message, "response:", 9) != 0);
}

static Google__Rpc__Status *authenticate(void *context, const char *authorization, struct hp_rpc_peer *peer)
{
    return authorization ? NULL : hp_status_new(HP_CODE_UNAUTHENTICATED, NULL, "who is it?");
}

static void on_echo(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.text = q->text;
    if (!q->fail_code) {
        hp_rpc_reply(call, &r.base);
        return;
    }
    Google__Rpc__Status *s = hp_status_new(q->fail_code, "REASON", "%s", q->text);
    s = hp_status_add_metadata(s, "k", "v");
    s = hp_status_add_field(s, "f", "d");
    s = hp_status_add_quota(s, "s", "d");
    hp_rpc_finish(call, hp_status_add_precondition(s, "t", "s", "d"));
}

static void on_chat(struct hp_rpc_call *call, const ProtobufCMessage *m)
{
    const Harpoon__Test__V1__EchoRequest *q = (const void *)m;
    Harpoon__Test__V1__EchoResponse r = HARPOON__TEST__V1__ECHO_RESPONSE__INIT;
    r.data = q->data;
    if (hp_rpc_send(call, &r.base) == HP_ELIMIT)
        hp_rpc_finish(call, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, NULL, "no room"));
    else
        hp_rpc_pause(call), hp_rpc_resume(call);
}

static void on_chat_end(struct hp_rpc_call *call)
{
    hp_rpc_finish(call, NULL);
}

static const struct hp_rpc_method echo_method = {.service = "harpoon.test.v1.EchoService",
                                                 .name = "Echo",
                                                 .request = &harpoon__test__v1__echo_request__descriptor,
                                                 .response = &harpoon__test__v1__echo_response__descriptor,
                                                 .on_message = on_echo};
static const struct hp_rpc_method chat_method = {.service = "harpoon.test.v1.EchoService",
                                                 .name = "Chat",
                                                 .request = &harpoon__test__v1__echo_request__descriptor,
                                                 .response = &harpoon__test__v1__echo_response__descriptor,
                                                 .client_streaming = true,
                                                 .server_streaming = true,
                                                 .on_message = on_chat,
                                                 .on_half_close = on_chat_end};
static const struct hp_rpc_method *const methods[] = {&echo_method, &chat_method, NULL};

struct world {
    struct hp_rpc_table table;
    struct hp_rpc_service service;
    struct hp_rpc_health health;
    struct hp_rpc_budget budget;
    struct hp_grpc_server *server;
    struct hp_grpc_client *client;
};

/* Errors end the exchange, as they would end a connection. */
static bool move_all(struct world *w)
{
    const uint8_t *data;
    size_t len, moved;
    struct hp_error e = {0};
    do {
        moved = 0;
        if (hp_grpc_client_pull(w->client, 1000, &data, &len, &e) ||
            (len && hp_grpc_server_receive(w->server, 1000, data, len, &e)))
            return false;
        moved += len;
        if (hp_grpc_server_pull(w->server, 1000, &data, &len, &e) ||
            (len && hp_grpc_client_receive(w->client, 1000, data, len, &e)))
            return false;
        moved += len;
    } while (moved);
    return true;
}

static void call(struct world *w, const char *path, const Harpoon__Test__V1__EchoRequest *q)
{
    static const struct hp_client_call_events events = {.on_message = got_message, .on_finish = got_finish};
    const struct hp_grpc_call_options o = {
        .path = path,
        .response = &harpoon__test__v1__echo_response__descriptor,
        .deadline_ms = 2000,
        .message_max = 1 << 20,
        .events = &events,
        .wake_cb = on_wake,
    };
    struct hp_client_call *c;
    struct hp_error e = {0};
    if (hp_grpc_call_new(&o, &c, &e))
        return;
    started++;
    if (hp_grpc_client_attach(w->client, 1000, c)) {
        hp_grpc_call_end(c, HP_CODE_UNAVAILABLE, "not attached");
        return;
    }
    for (int i = 0; i < 3; i++)
        if (hp_client_call_send(c, &q->base) == HP_ELIMIT || !strstr(path, "Chat"))
            break;
    hp_client_call_half_close(c);
}

static void exchange(struct world *w)
{
    static uint8_t data[30000];
    struct hp_error e = {0};
    const struct hp_grpc_server_config server = {
        .table = &w->table, .service = &w->service, .budget = &w->budget, .wake_cb = on_wake};
    const struct hp_grpc_client_config client = {.scheme = "http", .authority = "x", .token = "t", .wake_cb = on_wake};
    Harpoon__Test__V1__EchoRequest q = HARPOON__TEST__V1__ECHO_REQUEST__INIT;
    w->service.methods = methods;
    w->service.authenticate = authenticate;
    w->budget.max_bytes = 1 << 20;
    hp_rpc_health_init(&w->health, &w->table);
    if (hp_rpc_table_add(&w->table, methods, NULL, &e) ||
        hp_rpc_table_add(&w->table, hp_rpc_health_methods, &w->health, &e) ||
        hp_grpc_server_new(&server, 1000, &w->server, &e) || hp_grpc_client_new(&client, 1000, &w->client, &e))
        return;
    q.text = (char *)"hello";
    call(w, "/harpoon.test.v1.EchoService/Echo", &q);
    if (!move_all(w))
        return;
    q.fail_code = HP_CODE_NOT_FOUND;
    call(w, "/harpoon.test.v1.EchoService/Echo", &q);
    q.data = (ProtobufCBinaryData){.data = data, .len = sizeof data};
    call(w, "/harpoon.test.v1.EchoService/Chat", &q);
    call(w, "/harpoon.test.v1.EchoService/Nothing", &q);
    if (!move_all(w))
        return;
    Harpoon__Test__V1__EchoRequest watch = HARPOON__TEST__V1__ECHO_REQUEST__INIT; /* as a HealthCheckRequest: "" */
    call(w, "/grpc.health.v1.Health/Watch", &watch);
    if (!move_all(w))
        return;
    hp_rpc_health_set(&w->health, true);
    hp_grpc_server_drain(w->server, 1000);
    if (move_all(w) && hp_grpc_server_tick(w->server, 100000, &e) == 0)
        move_all(w);
}

static void run_once(long failing)
{
    struct world w;
    memset(&w, 0, sizeof w);
    started = ended = final = 0;
    asked = live = 0;
    fail_at = failing;
    armed = true;
    exchange(&w);
    hp_grpc_client_free(w.client, HP_CODE_UNAVAILABLE, "end");
    hp_grpc_server_free(w.server);
    hp_rpc_table_done(&w.table);
    armed = false;
    assert_int_equal(final, 0);
    if (live != 0 || started != ended || w.budget.used_bytes != 0)
        fail_msg("allocation %ld of %ld: %ld not freed, %d of %d calls ended, %zu bytes of the budget", failing, asked,
                 live, ended, started, w.budget.used_bytes);
}

static void test_every_allocation_fails_once(void **state)
{
    if (SANITIZED)
        skip();
    run_once(0);
    long total = asked;
    assert_int_equal(ended, 5);
    assert_true(total > 100);
    for (long i = 1; i <= total; i++)
        run_once(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
