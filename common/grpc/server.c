/* The connection: nghttp2's callbacks, time, and the end.
 *
 * Happy path: new → SETTINGS out; bytes in → streams become calls (server_call.c); pull gives bytes out; drain or idle → GOAWAY → the last stream closes →
 * finished. Failures: a peer that breaks the protocol gets GOAWAY from nghttp2 and `finished` follows; a dead one is found by the keepalive ping;
 * out of memory in a callback ends the connection (fatal), not the daemon. */
#include "grpc/server.h"

#include <assert.h>
#include <stdlib.h>

#include "grpc/server_impl.h"

enum {
    HEADERS_HARD_MAX = 1000, /* fields in one block: the stream is reset at once */
    RESET_BURST = 1000,      /* RST_STREAMs from the client before the rate counts; more: GOAWAY */
    RESET_PER_SECOND = 100,
    PENDING_ROUNDS_MAX = 1000, /* calls worked on in one pull: the rest waits for the next */
};

void server_wake(struct hp_grpc_server *s)
{
    if (!s->busy)
        s->config.wake_cb(s->config.user);
}

void server_due(struct hp_grpc_server *s, uint64_t due_ms)
{
    if (due_ms < s->due_ms)
        s->due_ms = due_ms;
}

void server_fatal(struct hp_grpc_server *s, int nghttp2_error)
{
    if (!s->fatal)
        s->fatal = nghttp2_error == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EPROTO;
}

/* ---- nghttp2's callbacks ---- */

static struct server_call *find(nghttp2_session *h2, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(h2, stream_id);
}

static bool is_request(const nghttp2_frame *frame)
{
    return frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    if (!is_request(frame))
        return 0;
    struct server_call *c = server_call_new(user, frame->hd.stream_id);
    if (!c) /* nothing was done: the client may try again */
        return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM)
                   ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
                   : 0;
    int rc = nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, c);
    assert(rc == 0);
    return rc;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    struct server_call *c = frame->hd.type == NGHTTP2_HEADERS ? find(h2, frame->hd.stream_id) : NULL;
    if (!c)
        return 0;
    server_call_header(c, name, name_len, value, value_len);
    return c->header_count > HEADERS_HARD_MAX ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

static int on_data_chunk(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t len,
                         void *user)
{
    /* The connection's window is given back at once: each call is bounded by its own. */
    int rc = nghttp2_session_consume_connection(h2, len);
    if (rc)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    struct server_call *c = find(h2, stream_id);
    if (c)
        server_call_data(c, data, len);
    return 0;
}

/* The client has seen the notice: no stream can be on its way any more that the final GOAWAY would cut off. */
static void on_ping_answer(struct hp_grpc_server *s)
{
    s->ping_sent_ms = UINT64_MAX;
    if (s->drain_final_ms != UINT64_MAX) {
        s->drain_final_ms = s->now_ms;
        server_due(s, s->now_ms);
    }
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct hp_grpc_server *s = user;
    if (frame->hd.type == NGHTTP2_SETTINGS)
        s->ready = true;
    if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK)
        on_ping_answer(s);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct server_call *c = find(h2, frame->hd.stream_id);
    if (c && is_request(frame))
        server_call_begin(c);
    if (c && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        server_call_half_close(c);
    return 0;
}

/* After the answer the client's half is of no more interest: RFC 9113, 8.1, allows NO_ERROR for just this. */
static int on_frame_send(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    struct server_call *c = find(h2, frame->hd.stream_id);
    if (c && !c->half_closed && nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, c->stream_id, NGHTTP2_NO_ERROR))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t error_code, void *user)
{
    struct server_call *c = find(h2, stream_id);
    if (c) {
        nghttp2_session_set_stream_user_data(h2, stream_id, NULL);
        server_call_closed(c);
    }
    return 0;
}

/* ---- the session ---- */

static int make_session(struct hp_grpc_server *s)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) {
        nghttp2_session_callbacks_del(callbacks);
        return HP_ENOMEM;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESET_PER_SECOND);
    int rc = nghttp2_session_server_new2(&s->h2, callbacks, s, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (rc)
        return HP_ENOMEM;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)s->limits.calls_max},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, HP_GRPC_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HP_GRPC_HEADER_BYTES_MAX},
    };
    if (nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) ||
        nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, HP_GRPC_CONNECTION_WINDOW)) {
        nghttp2_session_del(s->h2);
        return HP_ENOMEM;
    }
    return 0;
}

int hp_grpc_server_new(const struct hp_grpc_server_config *config, uint64_t now_ms, struct hp_grpc_server **ret,
                       struct hp_error *e)
{
    assert(config->table && config->service && config->wake_cb);
    struct hp_grpc_server *s = calloc(1, sizeof *s);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "no memory for a connection");
    s->config = *config;
    s->limits = hp_rpc_limits_of(config->service);
    TAILQ_INIT(&s->calls);
    TAILQ_INIT(&s->pending);
    s->now_ms = s->start_ms = s->received_ms = s->idle_since_ms = now_ms;
    s->ping_sent_ms = s->drain_final_ms = UINT64_MAX;
    s->due_ms = now_ms + HP_GRPC_PREFACE_MS;
    int rc = make_session(s);
    if (rc) {
        free(s);
        return hp_fail(e, rc, "no memory for a connection");
    }
    *ret = s;
    return 0;
}

void hp_grpc_server_free(struct hp_grpc_server *s)
{
    if (!s)
        return;
    assert(!s->busy);
    s->busy = true;
    struct server_call *c;
    while ((c = TAILQ_FIRST(&s->calls)) != NULL)
        server_call_closed(c);
    assert(s->call_count == 0);
    nghttp2_session_del(s->h2); /* calls no callbacks */
    free(s);
}

static int check_fatal(struct hp_grpc_server *s, struct hp_error *e)
{
    if (!s->fatal)
        return 0;
    return hp_fail(e, s->fatal, "HTTP/2 connection: %s", hp_strerror(s->fatal));
}

int hp_grpc_server_receive(struct hp_grpc_server *s, uint64_t now_ms, const uint8_t *data, size_t len,
                           struct hp_error *e)
{
    assert(!s->busy);
    s->now_ms = s->received_ms = now_ms;
    s->ping_sent_ms = UINT64_MAX; /* any byte proves life */
    s->busy = true;
    ssize_t n = len > 0 ? nghttp2_session_mem_recv(s->h2, data, len)
                        : 0; /* which would count an empty call as a CONTINUATION */
    s->busy = false;
    if (n < 0)
        return hp_fail(e, n == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EPROTO, "HTTP/2 connection: %s",
                       nghttp2_strerror((int)n));
    return check_fatal(s, e);
}

static void work_off(struct hp_grpc_server *s)
{
    struct server_call *c;
    for (int i = 0; i < PENDING_ROUNDS_MAX && (c = TAILQ_FIRST(&s->pending)) != NULL; i++) {
        TAILQ_REMOVE(&s->pending, c, pending_link);
        c->pending = false;
        server_call_work(c);
    }
}

int hp_grpc_server_pull(struct hp_grpc_server *s, uint64_t now_ms, const uint8_t **ret_data, size_t *ret_len,
                        struct hp_error *e)
{
    assert(!s->busy);
    s->now_ms = now_ms;
    s->busy = true;
    ssize_t n;
    work_off(s);
    while ((n = nghttp2_session_mem_send(s->h2, ret_data)) == 0 && !TAILQ_EMPTY(&s->pending))
        work_off(s);
    s->busy = false;
    if (n < 0)
        return hp_fail(e, n == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EPROTO, "HTTP/2 connection: %s",
                       nghttp2_strerror((int)n));
    *ret_len = (size_t)n;
    return check_fatal(s, e);
}

/* ---- time ---- */

uint64_t hp_grpc_server_deadline(const struct hp_grpc_server *s)
{
    return s->due_ms;
}

static int tick_keepalive(struct hp_grpc_server *s, struct hp_error *e)
{
    uint64_t period = s->config.keepalive_ms;
    if (!s->ready) {
        if (s->now_ms >= s->start_ms + HP_GRPC_PREFACE_MS)
            return hp_fail(e, HP_ETIMEDOUT, "no HTTP/2 preface in %d ms", HP_GRPC_PREFACE_MS);
        server_due(s, s->start_ms + HP_GRPC_PREFACE_MS);
        return 0;
    }
    if (s->ping_sent_ms != UINT64_MAX) {
        if (s->now_ms >= s->ping_sent_ms + HP_GRPC_PING_MS)
            return hp_fail(e, HP_ETIMEDOUT, "a ping was not answered in %d ms", HP_GRPC_PING_MS);
        server_due(s, s->ping_sent_ms + HP_GRPC_PING_MS);
    } else if (period && s->now_ms >= s->received_ms + period) {
        int rc = nghttp2_submit_ping(s->h2, NGHTTP2_FLAG_NONE, NULL);
        if (rc)
            server_fatal(s, rc);
        s->ping_sent_ms = s->now_ms;
        server_due(s, s->now_ms + HP_GRPC_PING_MS);
    } else if (period) {
        server_due(s, s->received_ms + period);
    }
    return 0;
}

static void tick_drain(struct hp_grpc_server *s)
{
    if (s->drain_final_ms == UINT64_MAX)
        return;
    if (s->now_ms < s->drain_final_ms) {
        server_due(s, s->drain_final_ms);
        return;
    }
    s->drain_final_ms = UINT64_MAX;
    int rc = nghttp2_submit_goaway(s->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->h2),
                                   NGHTTP2_NO_ERROR, NULL, 0);
    if (rc)
        server_fatal(s, rc);
}

static void tick_idle(struct hp_grpc_server *s)
{
    if (!s->config.idle_ms || s->idle_since_ms == UINT64_MAX || s->draining)
        return;
    uint64_t due = s->idle_since_ms + s->config.idle_ms;
    if (s->now_ms >= due)
        hp_grpc_server_drain(s, s->now_ms);
    else
        server_due(s, due);
}

int hp_grpc_server_tick(struct hp_grpc_server *s, uint64_t now_ms, struct hp_error *e)
{
    assert(!s->busy);
    s->now_ms = now_ms;
    if (now_ms < s->due_ms)
        return 0;
    s->busy = true;
    s->due_ms = UINT64_MAX;
    /* Nothing in a tick frees a call (streams close in receive and pull), so that the list holds still. */
    struct server_call *c;
    TAILQ_FOREACH(c, &s->calls, link)
    server_due(s, server_call_tick(c, now_ms));
    tick_idle(s);
    tick_drain(s);
    int rc = tick_keepalive(s, e);
    s->busy = false;
    return rc ? rc : check_fatal(s, e);
}

void hp_grpc_server_drain(struct hp_grpc_server *s, uint64_t now_ms)
{
    if (s->draining)
        return;
    s->draining = true;
    s->now_ms = now_ms;
    int rc = nghttp2_submit_shutdown_notice(s->h2);
    if (!rc)
        rc = nghttp2_submit_ping(s->h2, NGHTTP2_FLAG_NONE, NULL);
    if (rc)
        server_fatal(s, rc);
    s->drain_final_ms = now_ms + HP_GRPC_DRAIN_NOTICE_MS;
    server_due(s, s->drain_final_ms);
    server_wake(s);
}

bool hp_grpc_server_finished(const struct hp_grpc_server *s)
{
    return !nghttp2_session_want_read(s->h2) && !nghttp2_session_want_write(s->h2);
}

size_t hp_grpc_server_calls(const struct hp_grpc_server *s)
{
    return s->call_count;
}
