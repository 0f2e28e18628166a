/*
 * Streams: state, reading, writing, closing.
 *
 * Happy path of an accepted stream: the listener allocates it and calls hp_stream_connected; a TLS handshake follows (stream_tls.c) or, for plain TCP, the next turn;
 * hp_stream_set_open calls on_open; input goes to on_read; hp_stream_write collects bytes until the end of the turn, when they are handed to the kernel in one
 * piece; hp_stream_close sends the rest, then the end of the stream, reads until the peer has closed too, and closes.
 *
 * Failures: whatever goes wrong ends in hp_stream_fail, which keeps the reason and calls uv_close; on_close and the freeing happen in libuv's close callback, after
 * every write request has called back. An idle stream owns no buffers at all.
 */
#include "io/stream.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/stream_private.h"
#include "io/tls.h"

/* Bytes that the kernel did not take. One write request each. */
struct unsent {
    uv_write_t req;
    struct hp_stream *stream;
    size_t len;
    uint8_t data[];
};

static const struct hp_stream_events no_events;

int hp_stream_uv_code(int status)
{
    switch (status) {
    case UV_ETIMEDOUT:
        return HP_ETIMEDOUT;
    case UV_ENOMEM:
        return HP_ENOMEM;
    case UV_ECONNREFUSED:
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_EAI_NONAME:
    case UV_EAI_AGAIN:
    case UV_EOF:
        return HP_EUNAVAILABLE;
    case UV_EACCES:
    case UV_EPERM:
        return HP_EPERM;
    case UV_EADDRINUSE:
        return HP_EEXISTS;
    case UV_EMFILE:
    case UV_ENFILE:
        return HP_ELIMIT;
    default:
        return HP_EIO;
    }
}

void hp_stream_format_address(const struct sockaddr *a, char *out, size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    if (a->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)a;
        uv_ip6_name(six, ip, sizeof ip);
        snprintf(out, size, "[%s]:%u", ip, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const void *)a;
        uv_ip4_name(four, ip, sizeof ip);
        snprintf(out, size, "%s:%u", ip, ntohs(four->sin_port));
    }
}

/* ---- Life ---- */

struct hp_stream *hp_stream_alloc(struct hp_hub *h, const struct hp_stream_options *o)
{
    struct hp_stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    h->refs++;
    s->hub = h;
    s->events = &no_events;
    s->state = HP_STREAM_CONNECT;
    uv_tcp_init(h->loop, &s->uv.tcp); /* opens no socket yet: cannot fail */
    s->uv.handle.data = s;
    s->write_queue_max = o->write_queue_max ? o->write_queue_max : 1024 * 1024;
    uint64_t timeout_ms = o->handshake_ms ? o->handshake_ms : 10000;
    s->timeout_ms = timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout_ms;
    if (o->tls)
        s->tls = hp_tls_context_ref(o->tls);
    return s;
}

static void release(struct hp_stream *s)
{
    assert(!s->dial);
    hp_listener_forget(s);
    hp_hub_unmark(s);
    hp_hub_clear_deadline(s);
    if (s->ssl) {
        /* A connection that broke is no reason to forget the session. */
        SSL_set_shutdown(s->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(s->ssl);
    }
    hp_tls_context_unref(s->tls);
    free(s->pending);
    free(s->held);
    free(s->error);
    free(s->peer);
    free(s->peer_uri);
    free(s->peer_cn);
    free(s->alpn);
    free(s->session_key);
    hp_hub_put(s->hub);
    free(s);
}

static void discarded(uv_handle_t *handle)
{
    release(handle->data);
}

void hp_stream_discard(struct hp_stream *s)
{
    uv_close(&s->uv.handle, discarded);
}

void hp_stream_move(struct hp_stream *s, enum hp_stream_state to)
{
    static const uint8_t allowed[] = {
        [HP_STREAM_CONNECT] = 1 << HP_STREAM_OPENING | 1 << HP_STREAM_HANDSHAKE | 1 << HP_STREAM_CLOSING,
        [HP_STREAM_OPENING] = 1 << HP_STREAM_OPEN | 1 << HP_STREAM_CLOSING,
        [HP_STREAM_HANDSHAKE] = 1 << HP_STREAM_OPEN | 1 << HP_STREAM_LINGER | 1 << HP_STREAM_CLOSING,
        [HP_STREAM_OPEN] = 1 << HP_STREAM_LINGER | 1 << HP_STREAM_CLOSING,
        [HP_STREAM_LINGER] = 1 << HP_STREAM_CLOSING,
        [HP_STREAM_CLOSING] = 0,
    };
    assert(allowed[s->state] & 1 << to);
    s->state = (uint8_t)to;
    if (to >= HP_STREAM_OPEN) {
        hp_hub_clear_deadline(s);
        hp_listener_shaken(s);
    }
}

void hp_stream_closed(struct hp_stream *s)
{
    static const struct hp_error orderly;
    static const struct hp_error no_memory = {HP_ENOMEM, "out of memory"};
    assert(s->state == HP_STREAM_CLOSING);
    const struct hp_error *e = s->error ? s->error : s->close_asked ? &orderly : &no_memory;
    if (s->events->on_close)
        s->events->on_close(s, e, s->user);
    release(s);
}

static void handle_closed(uv_handle_t *handle)
{
    hp_stream_closed(handle->data);
}

static void shut(struct hp_stream *s)
{
    if (s->state == HP_STREAM_CLOSING)
        return;
    hp_stream_move(s, HP_STREAM_CLOSING);
    hp_hub_unmark(s);
    hp_dial_abandon(s);
    s->reading = false;
    /* Between two connection attempts the handle is closing already, and that callback goes on from here. */
    if (!uv_is_closing(&s->uv.handle))
        uv_close(&s->uv.handle, handle_closed);
}

void hp_stream_fail(struct hp_stream *s, const struct hp_error *e)
{
    if (s->state == HP_STREAM_CLOSING)
        return;
    if (!s->close_asked && !s->error) {
        s->error = malloc(sizeof *s->error);
        if (s->error)
            *s->error = *e;
    }
    shut(s);
}

void hp_stream_fail_handshake(struct hp_stream *s, const struct hp_error *e)
{
    enum { ALERT_LINGER_MS = 1000 };
    if (s->state != HP_STREAM_HANDSHAKE || s->close_asked) {
        hp_stream_fail(s, e);
        return;
    }
    s->error = malloc(sizeof *s->error);
    if (s->error)
        *s->error = *e;
    s->pending_len = 0;
    hp_stream_move(s, HP_STREAM_LINGER);
    hp_hub_set_deadline(s, ALERT_LINGER_MS);
    hp_hub_mark(s);
}

static void fail_uv(struct hp_stream *s, int status, const char *what)
{
    struct hp_error e;
    if (status == UV_EOF)
        hp_fail(&e, HP_EUNAVAILABLE, "%s: closed by the peer", hp_stream_peer(s));
    else
        hp_fail(&e, hp_stream_uv_code(status), "%s: %s: %s", hp_stream_peer(s), what, uv_strerror(status));
    hp_stream_fail(s, &e);
}

void hp_stream_overdue(struct hp_stream *s)
{
    struct hp_error e;
    if (s->state == HP_STREAM_LINGER) {
        shut(s);
        return;
    }
    hp_fail(&e, HP_ETIMEDOUT, "%s: %s not done within %u ms", hp_stream_peer(s),
            s->state == HP_STREAM_HANDSHAKE ? "TLS handshake" : "connection", (unsigned)s->timeout_ms);
    hp_stream_fail(s, &e);
}

/* ---- Reading ---- */

static void lend_chunk(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct hp_stream *s = handle->data;
    (void)suggested;
    *buf = uv_buf_init((char *)s->hub->chunk, sizeof s->hub->chunk);
}

void hp_stream_deliver(struct hp_stream *s, const uint8_t *data, size_t len)
{
    assert(s->state == HP_STREAM_OPEN);
    assert(!s->close_asked);
    if (s->events->on_read)
        s->events->on_read(s, data, len, s->user);
}

static void chunk_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct hp_stream *s = stream->data;
    if (n == 0)
        return;
    if (n < 0) {
        if (s->state == HP_STREAM_LINGER)
            shut(s);
        else
            fail_uv(s, (int)n, "read");
        return;
    }
    if (s->state == HP_STREAM_LINGER || s->close_asked)
        return;
    if (s->tls)
        hp_stream_tls_input(s, (const uint8_t *)buf->base, (size_t)n);
    else
        hp_stream_deliver(s, (const uint8_t *)buf->base, (size_t)n);
}

static void set_reading(struct hp_stream *s, bool on)
{
    if (on == s->reading)
        return;
    s->reading = on;
    if (!on) {
        uv_read_stop(&s->uv.stream);
        return;
    }
    int rc = uv_read_start(&s->uv.stream, lend_chunk, chunk_read);
    if (rc) {
        s->reading = false;
        fail_uv(s, rc, "read");
    }
}

void hp_stream_pause(struct hp_stream *s)
{
    s->paused = true;
    if (s->state == HP_STREAM_OPEN)
        set_reading(s, false);
}

void hp_stream_resume(struct hp_stream *s)
{
    if (!s->paused)
        return;
    s->paused = false;
    if (s->state == HP_STREAM_OPEN)
        hp_hub_mark(s);
}

static void read_on(struct hp_stream *s)
{
    if (s->held) {
        uint8_t *held = s->held;
        s->held = NULL;
        hp_stream_tls_input(s, held, s->held_len);
        free(held);
    }
    if (s->state == HP_STREAM_OPEN && !s->paused)
        set_reading(s, true);
}

/* ---- Opening ---- */

void hp_stream_connected(struct hp_stream *s)
{
    assert(s->state == HP_STREAM_CONNECT);
    uv_tcp_nodelay(&s->uv.tcp, 1);
    if (!s->tls) {
        hp_stream_move(s, HP_STREAM_OPENING);
        hp_hub_mark(s);
        return;
    }
    hp_stream_move(s, HP_STREAM_HANDSHAKE);
    set_reading(s, true);
    hp_hub_mark(s); /* a client speaks first */
}

void hp_stream_set_open(struct hp_stream *s)
{
    hp_stream_move(s, HP_STREAM_OPEN);
    hp_hub_mark(s); /* starts reading; sends what was written before */
    if (s->events->on_open)
        s->events->on_open(s, s->user);
    if (s->paused)
        set_reading(s, false);
}

/* ---- Writing ---- */

size_t hp_stream_queued(const struct hp_stream *s)
{
    return s->pending_len + s->inflight_bytes;
}

static int reserve(struct hp_stream *s, size_t len)
{
    size_t need = s->pending_len + len;
    if (s->pending_off + need <= s->pending_cap)
        return 0;
    if (s->pending_off) {
        memmove(s->pending, s->pending + s->pending_off, s->pending_len);
        s->pending_off = 0;
        if (need <= s->pending_cap)
            return 0;
    }
    size_t cap = s->pending_cap ? s->pending_cap : 256;
    while (cap < need)
        cap *= 2;
    uint8_t *p = realloc(s->pending, cap);
    if (!p)
        return HP_ENOMEM;
    s->pending = p;
    s->pending_cap = cap;
    return 0;
}

int hp_stream_write(struct hp_stream *s, const void *data, size_t len)
{
    if (s->close_asked || s->state == HP_STREAM_CLOSING)
        return HP_ECANCELED;
    size_t queued = hp_stream_queued(s);
    if (len > s->write_queue_max || queued > s->write_queue_max - len) {
        s->want_writable = true;
        return HP_ELIMIT;
    }
    if (len == 0)
        return 0;
    int rc = reserve(s, len);
    if (rc)
        return rc;
    memcpy(s->pending + s->pending_off + s->pending_len, data, len);
    s->pending_len += len;
    if (queued + len > s->write_queue_max / 2)
        s->want_writable = true; /* a writer that stops here on its own, before HP_ELIMIT, must hear too */
    if (s->state == HP_STREAM_OPEN)
        hp_hub_mark(s);
    return 0;
}

static void unsent_done(uv_write_t *req, int status)
{
    struct unsent *u = (struct unsent *)req;
    struct hp_stream *s = u->stream;
    assert(s->inflight_bytes >= u->len);
    s->inflight_bytes -= u->len;
    free(u);
    if (s->state == HP_STREAM_CLOSING)
        return;
    if (status) {
        fail_uv(s, status, "write");
        return;
    }
    hp_hub_mark(s); /* what has been waiting behind it, on_writable, the end */
}

int hp_stream_send_now(struct hp_stream *s, const uint8_t *data, size_t len)
{
    assert(len > 0);
    if (s->state == HP_STREAM_CLOSING)
        return HP_ECANCELED;
    if (!s->inflight_bytes) {
        uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
        int n = uv_try_write(&s->uv.stream, &b, 1);
        if (n < 0 && n != UV_EAGAIN) {
            fail_uv(s, n, "write");
            return HP_EIO;
        }
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
        if (len == 0)
            return 0;
    }
    struct unsent *u = malloc(sizeof *u + len);
    if (!u) {
        struct hp_error e;
        hp_fail(&e, HP_ENOMEM, "%s: write of %zu bytes: out of memory", hp_stream_peer(s), len);
        hp_stream_fail(s, &e);
        return HP_ENOMEM;
    }
    u->stream = s;
    u->len = len;
    memcpy(u->data, data, len);
    uv_buf_t b = uv_buf_init((char *)u->data, (unsigned)len);
    int rc = uv_write(&u->req, &s->uv.stream, &b, 1, unsent_done);
    if (rc) {
        free(u);
        fail_uv(s, rc, "write");
        return HP_EIO;
    }
    s->inflight_bytes += len;
    s->want_writable = true;
    return 0;
}

/* Sends pending bytes until the kernel takes no more, and gives the buffer back when it is empty. */
static void flush(struct hp_stream *s)
{
    if (s->tls) {
        hp_stream_tls_flush(s);
    } else {
        while (s->pending_len && !s->inflight_bytes) {
            size_t n = s->pending_len < HP_STREAM_OUT_MAX ? s->pending_len : HP_STREAM_OUT_MAX;
            if (hp_stream_send_now(s, s->pending + s->pending_off, n))
                return;
            s->pending_off += n;
            s->pending_len -= n;
        }
    }
    if (!s->pending_len) {
        free(s->pending);
        s->pending = NULL;
        s->pending_cap = s->pending_off = 0;
    }
}

/* ---- Closing ---- */

void hp_stream_close(struct hp_stream *s, uint64_t linger_ms)
{
    if (s->close_asked || s->state == HP_STREAM_CLOSING)
        return;
    s->close_asked = true;
    s->linger_ms = linger_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)linger_ms;
    hp_hub_mark(s);
}

static void end_sent(uv_shutdown_t *req, int status)
{
    struct hp_stream *s = req->data;
    free(req);
    if (status && s->state == HP_STREAM_LINGER)
        shut(s);
}

/* All has been handed over: now the end of the stream. Then the peer's end is awaited, so that unread input cannot turn into a reset that
 * overtakes our last bytes. */
static void half_close(struct hp_stream *s)
{
    assert(s->state == HP_STREAM_LINGER);
    if (s->pending_len || s->half_closed)
        return;
    s->half_closed = true;
    if (!s->error)
        hp_stream_tls_goodbye(s);
    uv_shutdown_t *req = malloc(sizeof *req);
    if (!req || s->state != HP_STREAM_LINGER) {
        free(req);
        shut(s);
        return;
    }
    req->data = s;
    if (uv_shutdown(req, &s->uv.stream, end_sent)) {
        free(req);
        shut(s);
    }
}

static void begin_close(struct hp_stream *s)
{
    free(s->held);
    s->held = NULL;
    flush(s);
    if (s->state != HP_STREAM_OPEN)
        return;
    if (!s->linger_ms) {
        if (!s->pending_len && !s->inflight_bytes)
            hp_stream_tls_goodbye(s);
        shut(s);
        return;
    }
    hp_stream_move(s, HP_STREAM_LINGER);
    hp_hub_set_deadline(s, s->linger_ms);
    set_reading(s, true);
    if (s->state == HP_STREAM_LINGER)
        half_close(s);
}

/* ---- The end of a turn of the loop ---- */

static void turn_open(struct hp_stream *s)
{
    if (!s->close_asked && !s->paused && (s->held || !s->reading))
        read_on(s);
    if (s->state != HP_STREAM_OPEN)
        return;
    if (s->close_asked) {
        begin_close(s);
        return;
    }
    flush(s);
    if (s->state == HP_STREAM_OPEN && s->want_writable && hp_stream_queued(s) <= s->write_queue_max / 2) {
        s->want_writable = false;
        if (s->events->on_writable)
            s->events->on_writable(s, s->user);
    }
}

void hp_stream_turn(struct hp_stream *s)
{
    switch ((enum hp_stream_state)s->state) {
    case HP_STREAM_CONNECT:
        if (s->close_asked)
            shut(s);
        break;
    case HP_STREAM_OPENING:
    case HP_STREAM_HANDSHAKE:
        if (s->close_asked) {
            shut(s);
        } else if (s->state == HP_STREAM_OPENING) {
            hp_stream_set_open(s);
        } else {
            hp_stream_tls_input(s, NULL, 0);
        }
        break;
    case HP_STREAM_OPEN:
        turn_open(s);
        break;
    case HP_STREAM_LINGER:
        if (s->pending_len)
            flush(s);
        if (s->state == HP_STREAM_LINGER)
            half_close(s);
        break;
    case HP_STREAM_CLOSING:
        break;
    }
}

/* ---- Properties ---- */

void hp_stream_set_user(struct hp_stream *s, void *user)
{
    s->user = user;
}

void hp_stream_set_events(struct hp_stream *s, const struct hp_stream_events *ev)
{
    s->events = ev ? ev : &no_events;
}

const char *hp_stream_peer(const struct hp_stream *s)
{
    return s->peer ? s->peer : "?";
}

const char *hp_stream_alpn(const struct hp_stream *s)
{
    return s->alpn;
}

const char *hp_stream_peer_uri(const struct hp_stream *s)
{
    return s->peer_uri;
}

const char *hp_stream_peer_cn(const struct hp_stream *s)
{
    return s->peer_cn;
}
