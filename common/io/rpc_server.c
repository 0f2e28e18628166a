/* The server as a whole: options, listeners, health, and the orderly end.
 *
 * The end: hp_rpc_server_close → NOT_SERVING, listeners closed, GOAWAY on every connection → the last calls finish, or the drain timer closes what is left →
 * each part (connections, HTTP, own handles) reports its end → closed_cb, freed. */
#include "io/rpc_server.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "io/rpc_server_impl.h"
#include "io/tls.h"

bool rpc_is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]:", 6) == 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct hp_rpc_server *s = handle->data;
    if (--s->handles > 0)
        return;
    assert(LIST_EMPTY(&s->conns) && TAILQ_EMPTY(&s->dirty));
    assert(s->budget.used_bytes == 0);
    void (*closed_cb)(void *) = s->closed_cb;
    void *user = s->closed_user;
    hp_tls_context_unref(s->tls);
    hp_rpc_table_done(&s->table);
    free(s);
    if (closed_cb)
        closed_cb(user);
}

void rpc_server_part_ended(struct hp_rpc_server *s)
{
    if (!s->closing || s->connections > 0 || s->http || s->handles_closing)
        return;
    s->handles_closing = true;
    uv_close((uv_handle_t *)&s->flush, on_handle_closed);
    uv_close((uv_handle_t *)&s->drain, on_handle_closed);
}

static int add_methods(struct hp_rpc_server *s, struct hp_error *e)
{
    int rc = hp_rpc_table_add(&s->table, s->service->methods, s->service->context, e);
    if (rc == 0)
        rc = hp_rpc_table_add(&s->table, hp_rpc_health_methods, &s->health, e);
    if (rc == 0)
        rc = hp_rpc_table_add(&s->table, hp_rpc_reflection_methods, &s->reflection, e);
    return rc;
}

static int make_tls(struct hp_rpc_server *s, const struct hp_rpc_server_options *o, struct hp_error *e)
{
    const struct hp_tls_options tls = {
        .role = HP_TLS_SERVER,
        .ca_file = o->client_ca_file,
        .cert_file = o->cert_file,
        .key_file = o->key_file,
        .alpn = "h2",
    };
    return hp_tls_context_new(&tls, &s->tls, e);
}

static int listen_h2(struct hp_rpc_server *s, const char *address, struct hp_tls_context *tls, struct hp_listener **ret,
                     struct hp_error *e)
{
    const struct hp_listener_options o = {
        .stream = {.tls = tls, .write_queue_max = RPC_WRITE_QUEUE_MAX},
        .connections_max = s->connections_max,
    };
    return hp_listener_start(s->loop, address, &o, rpc_h2_accept, s, ret, e);
}

static int listen_all(struct hp_rpc_server *s, const struct hp_rpc_server_options *o, struct hp_error *e)
{
    int rc = 0;
    if (o->grpc_listen) {
        rc = make_tls(s, o, e);
        if (rc == 0)
            rc = listen_h2(s, o->grpc_listen, s->tls, &s->grpc, e);
    }
    if (rc == 0 && o->h2c_listen) {
        if (!rpc_is_loopback(o->h2c_listen))
            return hp_fail(e, HP_EINVAL, "plaintext HTTP/2 is served on loopback addresses only, not on %s",
                           o->h2c_listen);
        rc = listen_h2(s, o->h2c_listen, NULL, &s->h2c, e);
    }
    if (rc == 0 && o->http_listen)
        rc = rpc_http_start(s, o, &s->http, e);
    return rc;
}

static struct hp_rpc_server *new_server(uv_loop_t *loop, const struct hp_rpc_server_options *o)
{
    struct hp_rpc_server *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->loop = loop;
    s->service = o->service;
    s->keepalive_ms = o->keepalive_ms > 0 ? (uint64_t)o->keepalive_ms : RPC_KEEPALIVE_MS;
    s->idle_ms = o->idle_ms > 0 ? (uint64_t)o->idle_ms : RPC_IDLE_MS;
    s->connections_max = o->connections_max > 0 ? o->connections_max : RPC_CONNECTIONS_MAX;
    s->budget.max_bytes = RPC_BUFFER_MAX;
    LIST_INIT(&s->conns);
    TAILQ_INIT(&s->dirty);
    hp_rpc_health_init(&s->health, &s->table);
    s->reflection.data = o->reflection ? o->reflection : &hp_reflection_harpoon;
    s->reflection.table = &s->table;
    uv_idle_init(loop, &s->flush); /* these two cannot fail */
    uv_timer_init(loop, &s->drain);
    s->flush.data = s->drain.data = s;
    s->handles = 2;
    return s;
}

static void close_listeners(struct hp_rpc_server *s)
{
    if (s->grpc)
        hp_listener_close(s->grpc);
    if (s->h2c)
        hp_listener_close(s->h2c);
    s->grpc = s->h2c = NULL;
}

int hp_rpc_server_start(uv_loop_t *loop, const struct hp_rpc_server_options *o, struct hp_rpc_server **ret,
                        struct hp_error *e)
{
    struct hp_rpc_server *s = new_server(loop, o);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "no memory for an RPC server");
    int rc = add_methods(s, e);
    if (rc == 0)
        rc = listen_all(s, o, e);
    if (rc) {
        close_listeners(s);
        s->closing = true;
        rpc_server_part_ended(s);
        return rc;
    }
    *ret = s;
    return 0;
}

const char *hp_rpc_server_address(const struct hp_rpc_server *s, const char *kind)
{
    if (strcmp(kind, "grpc") == 0)
        return s->grpc ? hp_listener_address(s->grpc) : NULL;
    if (strcmp(kind, "h2c") == 0)
        return s->h2c ? hp_listener_address(s->h2c) : NULL;
    if (strcmp(kind, "http") == 0)
        return s->http ? rpc_http_address(s->http) : NULL;
    return NULL;
}

void hp_rpc_server_set_serving(struct hp_rpc_server *s, bool serving)
{
    hp_rpc_health_set(&s->health, serving && !s->closing);
}

static void on_drained(uv_timer_t *timer)
{
    struct hp_rpc_server *s = timer->data;
    rpc_h2_close_all(s);
    if (s->http)
        rpc_http_close(s->http);
}

void hp_rpc_server_close(struct hp_rpc_server *s, uint64_t drain_ms, void (*closed_cb)(void *user), void *user)
{
    assert(!s->closing);
    hp_rpc_server_set_serving(s, false);
    hp_rpc_health_end_watches(&s->health);
    s->closing = true;
    s->closed_cb = closed_cb;
    s->closed_user = user;
    close_listeners(s);
    rpc_h2_drain_all(s);
    uv_update_time(s->loop);
    uv_timer_start(&s->drain, on_drained, drain_ms, 0);
    if (s->http)
        rpc_http_drain(s->http);
    rpc_server_part_ended(s);
}
