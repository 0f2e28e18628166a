/*
 * Outgoing connections: "host:port" → addresses → the first one that answers.
 *
 * Numbers are not resolved. A name is resolved on libuv's pool; its addresses are tried in order, each with a new handle, until one connects or the deadline
 * of the whole passes.
 */
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/stream_private.h"
#include "io/tls.h"

enum { HOST_MAX_BYTES = 256, PORT_MAX_BYTES = 8 };

struct hp_dial {
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    struct hp_stream *stream;        /* NULL: given up, the resolver's callback frees */
    bool resolving;                  /* its callback is still to come */
    struct addrinfo *addresses;      /* from the resolver; freed with the dial */
    const struct addrinfo *next;     /* not tried yet */
    struct sockaddr_storage numeric; /* without a resolver */
    struct sockaddr_storage source;  /* to connect from; ss_family 0: the kernel's choice */
    char *server_name;               /* for TLS */
    char *alpn;
};

static void try_address(struct hp_stream *s, const struct sockaddr *address);

int hp_address_split(const char *address, char *host, size_t host_size, char *port, size_t port_size,
                     struct hp_error *e)
{
    const char *colon = strrchr(address, ':'), *start = address, *end = colon;
    if (!colon)
        return hp_fail(e, HP_EINVAL, "address \"%s\": no port (want host:port or [v6]:port)", address);
    if (*address == '[') {
        start++;
        end = colon - 1;
        if (end < start || *end != ']')
            return hp_fail(e, HP_EINVAL, "address \"%s\": want [v6]:port", address);
    } else if (memchr(address, ':', (size_t)(colon - address))) {
        return hp_fail(e, HP_EINVAL, "address \"%s\": write an IPv6 address as [v6]:port", address);
    }
    size_t host_len = (size_t)(end - start), port_len = strlen(colon + 1);
    if (host_len == 0 || host_len >= host_size)
        return hp_fail(e, HP_EINVAL, "address \"%.300s\": host of %zu bytes (1 to %zu)", address, host_len,
                       host_size - 1);
    if (port_len == 0 || port_len > 5 || port_len >= port_size || strspn(colon + 1, "0123456789") != port_len ||
        atoi(colon + 1) > 65535)
        return hp_fail(e, HP_EINVAL, "address \"%s\": port \"%s\" is not a number from 0 to 65535", address, colon + 1);
    memcpy(host, start, host_len);
    host[host_len] = '\0';
    memcpy(port, colon + 1, port_len + 1);
    return 0;
}

static void dial_free(struct hp_dial *d)
{
    if (!d)
        return;
    if (d->addresses)
        uv_freeaddrinfo(d->addresses);
    free(d->server_name);
    free(d->alpn);
    free(d);
}

/* A resolver's callback that is still to come finds the dial without a stream. A connect request is called back by uv_close, before the
 * stream's close callback, and frees it there. */
void hp_dial_abandon(struct hp_stream *s)
{
    struct hp_dial *d = s->dial;
    if (!d || !d->resolving)
        return;
    d->stream = NULL;
    s->dial = NULL;
    uv_cancel((uv_req_t *)&d->resolve);
}

static void dial_failed(struct hp_stream *s, int status)
{
    struct hp_error e;
    hp_fail(&e, hp_stream_uv_code(status), "connect to %s: %s", hp_stream_peer(s), uv_strerror(status));
    hp_stream_fail(s, &e);
}

static void closed_while_dialling(uv_handle_t *handle)
{
    struct hp_stream *s = handle->data;
    struct hp_dial *d = s->dial;
    if (s->state == HP_STREAM_CLOSING) {
        s->dial = NULL;
        dial_free(d);
        hp_stream_closed(s);
        return;
    }
    uv_tcp_init(s->hub->loop, &s->uv.tcp);
    s->uv.handle.data = s;
    const struct addrinfo *next = d->next;
    assert(next);
    d->next = next->ai_next;
    try_address(s, next->ai_addr);
}

static void connected(uv_connect_t *req, int status)
{
    struct hp_stream *s = req->data;
    struct hp_dial *d = s->dial;
    assert(d);
    if (s->state == HP_STREAM_CLOSING) {
        s->dial = NULL;
        dial_free(d);
        return;
    }
    if (status && d->next) {
        uv_close(&s->uv.handle, closed_while_dialling);
        return;
    }
    if (status) {
        s->dial = NULL;
        dial_free(d);
        dial_failed(s, status);
        return;
    }
    s->dial = NULL;
    struct hp_error e = {0};
    int rc = s->tls ? hp_stream_tls_begin(s, false, d->server_name, d->alpn, &e) : 0;
    dial_free(d);
    if (rc)
        hp_stream_fail(s, &e);
    else
        hp_stream_connected(s);
}

/* The port is chosen at the connect, when the other end is known: a fleet in one process needs more connections than an address has ports. */
static int bind_source(struct hp_stream *s, const struct sockaddr_storage *source)
{
    int on = 1, fd = socket(source->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return uv_translate_sys_error(errno);
    socklen_t len = source->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)source, len)) {
        int rc = uv_translate_sys_error(errno);
        close(fd);
        return rc;
    }
    int rc = uv_tcp_open(&s->uv.tcp, fd);
    if (rc)
        close(fd);
    return rc;
}

static int submit_connect(struct hp_stream *s, const struct sockaddr *address)
{
    struct hp_dial *d = s->dial;
    int rc = d->source.ss_family ? bind_source(s, &d->source) : 0;
    d->connect.data = s;
    return rc ? rc : uv_tcp_connect(&d->connect, &s->uv.tcp, address, connected);
}

static void try_address(struct hp_stream *s, const struct sockaddr *address)
{
    struct hp_dial *d = s->dial;
    int rc = submit_connect(s, address);
    if (!rc)
        return;
    if (d->next) {
        uv_close(&s->uv.handle, closed_while_dialling);
        return;
    }
    s->dial = NULL;
    dial_free(d);
    dial_failed(s, rc);
}

static void resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct hp_dial *d = (struct hp_dial *)((char *)req - offsetof(struct hp_dial, resolve));
    struct hp_stream *s = d->stream;
    d->resolving = false;
    d->addresses = list;
    if (!s) {
        dial_free(d);
        return;
    }
    if (status || !list) {
        s->dial = NULL;
        dial_free(d);
        struct hp_error e;
        hp_fail(&e, HP_EUNAVAILABLE, "resolve %s: %s", hp_stream_peer(s), uv_strerror(status ? status : UV_EAI_NODATA));
        hp_stream_fail(s, &e);
        return;
    }
    d->next = list->ai_next;
    try_address(s, list->ai_addr);
}

/* With a number the connect is submitted at once; its callback comes later in any case. */
static int dial_begin(struct hp_stream *s, const char *host, const char *port, struct hp_error *e)
{
    struct hp_dial *d = s->dial;
    int port_number = atoi(port);
    if (uv_ip4_addr(host, port_number, (struct sockaddr_in *)&d->numeric) == 0 ||
        uv_ip6_addr(host, port_number, (struct sockaddr_in6 *)&d->numeric) == 0) {
        int rc = submit_connect(s, (const struct sockaddr *)&d->numeric);
        return rc ? hp_fail(e, hp_stream_uv_code(rc), "connect to %s: %s", s->peer, uv_strerror(rc)) : 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC, .ai_flags = AI_ADDRCONFIG};
    int rc = uv_getaddrinfo(s->hub->loop, &d->resolve, resolved, host, port, &hints);
    if (rc)
        return hp_fail(e, hp_stream_uv_code(rc), "resolve %s: %s", s->peer, uv_strerror(rc));
    d->resolving = true;
    return 0;
}

int hp_stream_connect(uv_loop_t *loop, const char *address, const char *server_name, const struct hp_stream_options *o,
                      const struct hp_stream_events *ev, void *user, struct hp_stream **ret, struct hp_error *e)
{
    char host[HOST_MAX_BYTES], port[PORT_MAX_BYTES];
    int rc = hp_address_split(address, host, sizeof host, port, sizeof port, e);
    if (rc)
        return rc;
    struct hp_hub *hub = hp_hub_get(loop);
    struct hp_stream *s = hub ? hp_stream_alloc(hub, o) : NULL;
    if (hub)
        hp_hub_put(hub); /* the stream has its own */
    if (!s)
        return hp_fail(e, HP_ENOMEM, "connect to %s: out of memory", address);
    hp_stream_set_events(s, ev);
    s->user = user;
    s->peer = strdup(address);
    struct hp_dial *d = s->dial = calloc(1, sizeof *d);
    if (d) {
        d->stream = s;
        d->server_name = strdup(server_name ? server_name : host);
        d->alpn = o->alpn ? strdup(o->alpn) : NULL;
    }
    if (!s->peer || !d || !d->server_name || (o->alpn && !d->alpn))
        rc = hp_fail(e, HP_ENOMEM, "connect to %s: out of memory", address);
    else if (o->source_ip && uv_ip4_addr(o->source_ip, 0, (struct sockaddr_in *)&d->source) &&
             uv_ip6_addr(o->source_ip, 0, (struct sockaddr_in6 *)&d->source))
        rc = hp_fail(e, HP_EINVAL, "connect to %s: source \"%s\" is not an IP address", address, o->source_ip);
    else
        rc = dial_begin(s, host, port, e);
    if (rc) {
        s->dial = NULL;
        dial_free(d);
        hp_stream_discard(s);
        return rc;
    }
    hp_hub_set_deadline(s, s->timeout_ms);
    *ret = s;
    return 0;
}
