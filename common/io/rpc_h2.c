/* gRPC connections: a stream, a session (grpc/server.h), a timer.
 *
 * Happy path: accepted → open (TLS done, ALPN h2) → session; bytes read → session → handlers → pulled → written. What handlers do later marks the connection
 * dirty; the next turn of the loop pulls. The session decides when the connection is finished.
 * Back-pressure: while the stream's queue is long nothing is pulled and nothing is read. Every end comes through on_close, and the memory goes with the timer's
 * close callback. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "grpc/server.h"
#include "io/loop.h"
#include "io/rpc_server_impl.h"

struct rpc_h2_conn {
    struct hp_rpc_server *server;
    struct hp_stream *stream;            /* NULL after on_close */
    struct hp_grpc_server *session;      /* NULL before on_open and after on_close */
    LIST_ENTRY(rpc_h2_conn) link;        /* server->conns */
    TAILQ_ENTRY(rpc_h2_conn) dirty_link; /* server->dirty, when `dirty` */
    uv_timer_t timer;                    /* for the session's deadline */
    uint64_t timer_ms;                   /* what it is armed for; UINT64_MAX: not */
    bool dirty;
    bool stuck;  /* the stream's queue is long: reading is paused */
    bool ending; /* hp_stream_close was called */
};

static void on_flush(uv_idle_t *handle)
{
    rpc_h2_flush(handle->data);
}

static void on_wake(void *user)
{
    struct rpc_h2_conn *c = user;
    if (c->dirty || c->ending)
        return;
    c->dirty = true;
    TAILQ_INSERT_TAIL(&c->server->dirty, c, dirty_link);
    if (!uv_is_active((uv_handle_t *)&c->server->flush))
        uv_idle_start(&c->server->flush, on_flush);
}

static void forget_dirty(struct rpc_h2_conn *c)
{
    if (c->dirty)
        TAILQ_REMOVE(&c->server->dirty, c, dirty_link);
    c->dirty = false;
}

static void end(struct rpc_h2_conn *c, uint64_t linger_ms)
{
    c->ending = true;
    forget_dirty(c);
    uv_timer_stop(&c->timer);
    hp_stream_close(c->stream, linger_ms);
}

static void on_timer(uv_timer_t *timer);

static void arm(struct rpc_h2_conn *c)
{
    uint64_t due = hp_grpc_server_deadline(c->session);
    if (due == c->timer_ms)
        return;
    c->timer_ms = due;
    if (due == UINT64_MAX) {
        uv_timer_stop(&c->timer);
        return;
    }
    uv_update_time(c->server->loop);
    uint64_t now = hp_now_ms();
    uv_timer_start(&c->timer, on_timer, due > now ? due - now : 0, 0);
}

/* Pulls and writes until there is nothing more, or the stream has enough. */
static void flush(struct rpc_h2_conn *c)
{
    if (c->ending)
        return;
    forget_dirty(c);
    uint64_t now = hp_now_ms();
    const uint8_t *data;
    size_t len = 0;
    do {
        if (hp_stream_queued(c->stream) > RPC_WRITE_QUEUE_HIGH) {
            if (!c->stuck)
                hp_stream_pause(c->stream);
            c->stuck = true;
            break;
        }
        struct hp_error e = {0};
        int rc = hp_grpc_server_pull(c->session, now, &data, &len, &e);
        if (rc == 0 && len > 0)
            rc = hp_stream_write(c->stream, data, len);
        if (rc) {
            hp_debug("gRPC connection closed", HP_S("peer", hp_stream_peer(c->stream)), HP_S("error", e.message));
            end(c, RPC_LINGER_MS);
            return;
        }
    } while (len > 0);
    if (hp_grpc_server_finished(c->session))
        end(c, RPC_LINGER_MS);
    else
        arm(c);
}

static void on_timer(uv_timer_t *timer)
{
    struct rpc_h2_conn *c = timer->data;
    struct hp_error e = {0};
    c->timer_ms = UINT64_MAX;
    int rc = hp_grpc_server_tick(c->session, hp_now_ms(), &e);
    if (rc) {
        hp_debug("gRPC connection closed", HP_S("peer", hp_stream_peer(c->stream)), HP_S("error", e.message));
        end(c, 0);
        return;
    }
    flush(c);
}

static void on_open(struct hp_stream *stream, void *user)
{
    struct rpc_h2_conn *c = user;
    const char *alpn = hp_stream_alpn(stream);
    if (alpn && strcmp(alpn, "h2") != 0) {
        end(c, 0);
        return;
    }
    const struct hp_grpc_server_config config = {
        .table = &c->server->table,
        .service = c->server->service,
        .budget = &c->server->budget,
        .peer = {.address = hp_stream_peer(stream),
                 .cert_uri = hp_stream_peer_uri(stream),
                 .cert_cn = hp_stream_peer_cn(stream)},
        .keepalive_ms = c->server->keepalive_ms,
        .idle_ms = c->server->idle_ms,
        .wake_cb = on_wake,
        .user = c,
    };
    struct hp_error e = {0};
    if (hp_grpc_server_new(&config, hp_now_ms(), &c->session, &e)) {
        hp_warn("gRPC connection refused", HP_S("peer", hp_stream_peer(stream)), HP_S("error", e.message));
        end(c, 0);
        return;
    }
    if (c->server->closing)
        hp_grpc_server_drain(c->session, hp_now_ms());
    flush(c);
}

static void on_read(struct hp_stream *stream, const uint8_t *data, size_t len, void *user)
{
    struct rpc_h2_conn *c = user;
    if (c->ending)
        return;
    struct hp_error e = {0};
    if (hp_grpc_server_receive(c->session, hp_now_ms(), data, len, &e)) {
        hp_debug("gRPC connection closed", HP_S("peer", hp_stream_peer(stream)), HP_S("error", e.message));
        end(c, 0);
        return;
    }
    flush(c);
}

static void on_writable(struct hp_stream *stream, void *user)
{
    struct rpc_h2_conn *c = user;
    if (c->ending || !c->session)
        return;
    if (c->stuck)
        hp_stream_resume(c->stream);
    c->stuck = false;
    flush(c);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct rpc_h2_conn *c = handle->data;
    struct hp_rpc_server *s = c->server;
    free(c);
    s->connections--;
    rpc_server_part_ended(s);
}

static void on_close(struct hp_stream *stream, const struct hp_error *e, void *user)
{
    struct rpc_h2_conn *c = user;
    c->ending = true;
    hp_grpc_server_free(c->session);
    c->session = NULL;
    c->stream = NULL;
    forget_dirty(c);
    LIST_REMOVE(c, link);
    uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}

static const struct hp_stream_events refuse_events;
static const struct hp_stream_events events = {on_open, on_read, on_writable, on_close};

void rpc_h2_accept(struct hp_listener *l, struct hp_stream *stream, void *user)
{
    struct hp_rpc_server *s = user;
    struct rpc_h2_conn *c = s->connections < s->connections_max ? calloc(1, sizeof *c) : NULL;
    if (!c || uv_timer_init(s->loop, &c->timer)) {
        free(c);
        hp_stream_set_events(stream, &refuse_events);
        hp_stream_close(stream, 0);
        return;
    }
    c->server = s;
    c->stream = stream;
    c->timer.data = c;
    c->timer_ms = UINT64_MAX;
    s->connections++;
    LIST_INSERT_HEAD(&s->conns, c, link);
    hp_stream_set_user(stream, c);
    hp_stream_set_events(stream, &events);
}

void rpc_h2_flush(struct hp_rpc_server *s)
{
    uv_idle_stop(&s->flush);
    /* A connection that gets dirty meanwhile starts the handle again. */
    struct rpc_h2_conn *c, *last = TAILQ_LAST(&s->dirty, rpc_h2_dirty);
    while ((c = TAILQ_FIRST(&s->dirty)) != NULL) {
        flush(c);
        if (c == last)
            break;
    }
    if (!TAILQ_EMPTY(&s->dirty))
        uv_idle_start(&s->flush, on_flush);
}

void rpc_h2_drain_all(struct hp_rpc_server *s)
{
    struct rpc_h2_conn *c;
    LIST_FOREACH(c, &s->conns, link)
    if (c->session && !c->ending)
        hp_grpc_server_drain(c->session, hp_now_ms());
}

void rpc_h2_close_all(struct hp_rpc_server *s)
{
    struct rpc_h2_conn *c;
    LIST_FOREACH(c, &s->conns, link)
    if (!c->ending)
        end(c, 0);
}
