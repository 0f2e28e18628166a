/*
 * Listeners. Connections over the limit, or without memory for them, are accepted and closed at once; when too many handshakes are under way, connections stay in the
 * kernel's backlog until some are done (libuv stops polling a listening socket whose connection was not taken).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "io/stream_private.h"
#include "io/tls.h"

struct hp_listener {
    uv_tcp_t tcp;
    uv_idle_t later;   /* active when the waiting connection can be taken */
    uv_tcp_t refused;  /* a connection that there was no memory for */
    bool refusing;     /* that one is being closed … */
    bool refused_more; /* … and the next one waits for its end */
    int handles_open;
    struct hp_hub *hub;
    struct hp_stream_options stream;
    void (*accept_cb)(struct hp_listener *l, struct hp_stream *s, void *user);
    void *user;
    int connections, connections_max; /* accepted streams alive */
    int handshakes, handshakes_max;   /* of them, not open yet (TLS only) */
    bool waiting;                     /* a connection has not been taken because of handshakes_max */
    bool closing;
    char address[80];
};

static void free_when_unused(struct hp_listener *l)
{
    if (l->handles_open == 0 && l->connections == 0) {
        hp_hub_put(l->hub);
        free(l);
    }
}

static void take_connection(struct hp_listener *l);

static void refused(uv_handle_t *handle)
{
    struct hp_listener *l = handle->data;
    l->refusing = false;
    l->handles_open--;
    if (l->closing)
        hp_tls_context_unref(l->handles_open == 0 ? l->stream.tls : NULL);
    else if (l->refused_more)
        take_connection(l);
    free_when_unused(l);
}

/* The connection that waits is closed: without being taken it would be the last one that libuv tells of. */
static void refuse(struct hp_listener *l)
{
    l->refused_more = l->refusing;
    if (l->refusing)
        return; /* the end of the one before goes on with this one */
    l->refusing = true;
    l->handles_open++;
    uv_tcp_init(l->tcp.loop, &l->refused);
    l->refused.data = l;
    (void)!uv_accept((uv_stream_t *)&l->tcp, (uv_stream_t *)&l->refused);
    uv_close((uv_handle_t *)&l->refused, refused);
}

static struct hp_stream *take(struct hp_listener *l)
{
    struct hp_stream *s = hp_stream_alloc(l->hub, &l->stream);
    if (!s) {
        refuse(l);
        return NULL;
    }
    if (uv_accept((uv_stream_t *)&l->tcp, &s->uv.stream) || l->connections >= l->connections_max) {
        hp_stream_discard(s);
        return NULL;
    }
    l->connections++;
    s->listener = l;
    return s;
}

static int open_accepted(struct hp_stream *s, struct hp_error *e)
{
    struct sockaddr_storage peer;
    int len = sizeof peer;
    char text[80] = "?";
    if (uv_tcp_getpeername(&s->uv.tcp, (struct sockaddr *)&peer, &len) == 0)
        hp_stream_format_address((struct sockaddr *)&peer, text, sizeof text);
    s->peer = strdup(text);
    if (!s->peer)
        return hp_fail(e, HP_ENOMEM, "accepting a connection: out of memory");
    return s->tls ? hp_stream_tls_begin(s, true, NULL, NULL, e) : 0;
}

static void take_connection(struct hp_listener *l)
{
    if (l->stream.tls && l->handshakes >= l->handshakes_max) {
        l->waiting = true;
        return;
    }
    struct hp_stream *s = take(l);
    if (!s)
        return;
    if (s->tls) {
        s->counted_shaking = true;
        l->handshakes++;
    }
    struct hp_error e = {0};
    int rc = open_accepted(s, &e);
    l->accept_cb(l, s, l->user);
    if (rc) {
        hp_stream_fail(s, &e);
        return;
    }
    hp_hub_set_deadline(s, s->timeout_ms);
    hp_stream_connected(s);
}

static void connection_waits(uv_stream_t *server, int status)
{
    struct hp_listener *l = server->data;
    if (status == 0 && !l->closing)
        take_connection(l);
}

static void take_waiting(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    take_connection(idle->data);
}

void hp_listener_shaken(struct hp_stream *s)
{
    struct hp_listener *l = s->listener;
    if (!s->counted_shaking)
        return;
    s->counted_shaking = false;
    assert(l->handshakes > 0);
    l->handshakes--;
    if (!l->waiting || l->closing || l->handshakes >= l->handshakes_max)
        return;
    /* Not from here: accept_cb must not run inside what moved this stream. */
    l->waiting = false;
    uv_idle_start(&l->later, take_waiting);
}

void hp_listener_forget(struct hp_stream *s)
{
    struct hp_listener *l = s->listener;
    if (!l)
        return;
    hp_listener_shaken(s);
    s->listener = NULL;
    assert(l->connections > 0);
    l->connections--;
    free_when_unused(l);
}

static void handle_closed(uv_handle_t *handle)
{
    struct hp_listener *l = handle->data;
    l->handles_open--;
    hp_tls_context_unref(l->handles_open == 0 ? l->stream.tls : NULL);
    free_when_unused(l);
}

void hp_listener_close(struct hp_listener *l)
{
    if (!l || l->closing)
        return;
    l->closing = true;
    uv_close((uv_handle_t *)&l->tcp, handle_closed);
    uv_close((uv_handle_t *)&l->later, handle_closed);
}

static int bind_and_listen(struct hp_listener *l, const char *address, struct hp_error *e)
{
    char host[256], port[8];
    struct sockaddr_storage a;
    int rc = hp_address_split(address, host, sizeof host, port, sizeof port, e);
    if (rc)
        return hp_wrap(e, "listen");
    if (uv_ip4_addr(host, atoi(port), (struct sockaddr_in *)&a) &&
        uv_ip6_addr(host, atoi(port), (struct sockaddr_in6 *)&a))
        return hp_fail(e, HP_EINVAL, "listen on \"%s\": \"%s\" is not an IP address", address, host);
    rc = uv_tcp_bind(&l->tcp, (struct sockaddr *)&a, 0);
    if (!rc)
        rc = uv_listen((uv_stream_t *)&l->tcp, HP_STREAM_LISTEN_BACKLOG, connection_waits);
    int len = sizeof a;
    if (!rc)
        rc = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&a, &len);
    if (rc)
        return hp_fail(e, hp_stream_uv_code(rc), "listen on %s: %s", address, uv_strerror(rc));
    hp_stream_format_address((struct sockaddr *)&a, l->address, sizeof l->address);
    return 0;
}

int hp_listener_start(uv_loop_t *loop, const char *address, const struct hp_listener_options *o,
                      void (*accept_cb)(struct hp_listener *l, struct hp_stream *s, void *user), void *user,
                      struct hp_listener **ret, struct hp_error *e)
{
    struct hp_listener *l = calloc(1, sizeof *l);
    struct hp_hub *hub = l ? hp_hub_get(loop) : NULL;
    if (!hub) {
        free(l);
        return hp_fail(e, HP_ENOMEM, "listen on %s: out of memory", address);
    }
    l->hub = hub;
    l->stream = o->stream;
    l->stream.alpn = NULL; /* the server's protocols are in its TLS context */
    if (o->stream.tls)
        hp_tls_context_ref(o->stream.tls);
    l->connections_max = o->connections_max ? o->connections_max : HP_STREAM_CONNECTIONS_MAX;
    l->handshakes_max = o->handshakes_max ? o->handshakes_max : HP_STREAM_HANDSHAKES_MAX;
    l->accept_cb = accept_cb;
    l->user = user;
    uv_tcp_init(loop, &l->tcp);
    uv_idle_init(loop, &l->later);
    l->tcp.data = l;
    l->later.data = l;
    l->handles_open = 2;
    int rc = bind_and_listen(l, address, e);
    if (rc) {
        hp_listener_close(l);
        return rc;
    }
    *ret = l;
    return 0;
}

const char *hp_listener_address(const struct hp_listener *l)
{
    return l->address;
}
