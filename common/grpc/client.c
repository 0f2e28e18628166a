/* The connection: nghttp2's callbacks, time, and the end. The server's twin (server.c), with calls that start here. */
#include "grpc/client.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "grpc/client_impl.h"
#include "grpc/status.h"

enum {
    CLIENT_STREAM_WINDOW = 1 << 20,
    CLIENT_CONNECTION_WINDOW = 8 << 20,
    CLIENT_HEADER_BYTES_MAX = 64 << 10, /* advertised; nghttp2 bounds one field, HP_CLIENT_HEADERS_MAX their number */
};

void client_wake(struct hp_grpc_client *s)
{
    if (!s->busy)
        s->config.wake_cb(s->config.user);
}

void client_due(struct hp_grpc_client *s, uint64_t due_ms)
{
    if (due_ms < s->due_ms)
        s->due_ms = due_ms;
}

void client_fatal(struct hp_grpc_client *s, int nghttp2_error)
{
    if (!s->fatal)
        s->fatal = nghttp2_error == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EPROTO;
}

/* ---- nghttp2's callbacks ---- */

static struct hp_client_call *find(nghttp2_session *h2, int32_t stream_id)
{
    return nghttp2_session_get_stream_user_data(h2, stream_id);
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    struct hp_client_call *call = find(h2, frame->hd.stream_id);
    if (!call)
        return 0;
    client_call_header(call, name, name_len, value, value_len);
    return call->header_count > HP_CLIENT_HEADERS_MAX ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

static int on_data_chunk(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t len,
                         void *user)
{
    struct hp_client_call *call = find(h2, stream_id);
    if (call)
        client_call_data(call, data, len);
    return 0;
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct hp_grpc_client *s = user;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        s->going_away = true;
    struct hp_client_call *call = find(h2, frame->hd.stream_id);
    bool ended = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                 frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    /* An answer before our half is closed: nobody wants the rest of it. (When it is closed, on_stream_close follows.) */
    if (ended && call && !nghttp2_session_get_stream_local_close(h2, frame->hd.stream_id))
        client_call_answered(call);
    return 0;
}

/* A request that could not leave, because GOAWAY came first: its stream never was, so that only this callback tells. */
static int on_frame_not_send(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *user)
{
    struct hp_grpc_client *s = user;
    struct hp_client_call *call;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    TAILQ_FOREACH(call, &s->calls, link)
    {
        if (call->stream_id == frame->hd.stream_id) {
            client_call_closed(call, NGHTTP2_REFUSED_STREAM);
            return 0;
        }
    }
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t error_code, void *user)
{
    struct hp_client_call *call = find(h2, stream_id);
    if (call)
        client_call_closed(call, error_code);
    return 0;
}

/* ---- the session ---- */

static int make_session(struct hp_grpc_client *s)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) {
        nghttp2_session_callbacks_del(callbacks);
        return HP_ENOMEM;
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_option_set_no_closed_streams(option, 1);
    int rc = nghttp2_session_client_new2(&s->h2, callbacks, s, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (rc)
        return HP_ENOMEM;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CLIENT_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, CLIENT_HEADER_BYTES_MAX},
    };
    if (nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof settings[0]) ||
        nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, CLIENT_CONNECTION_WINDOW)) {
        nghttp2_session_del(s->h2);
        return HP_ENOMEM;
    }
    return 0;
}

int hp_grpc_client_new(const struct hp_grpc_client_config *config, uint64_t now_ms, struct hp_grpc_client **ret,
                       struct hp_error *e)
{
    assert(config->scheme && config->authority && config->wake_cb);
    struct hp_grpc_client *s = calloc(1, sizeof *s);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "no memory for a connection");
    s->config = *config;
    TAILQ_INIT(&s->calls);
    TAILQ_INIT(&s->pending);
    s->now_ms = s->received_ms = now_ms;
    s->ping_sent_ms = UINT64_MAX;
    s->due_ms = config->keepalive_ms ? now_ms + config->keepalive_ms : UINT64_MAX;
    if (config->token && asprintf(&s->bearer, "Bearer %s", config->token) < 0)
        s->bearer = NULL;
    if ((config->token && !s->bearer) || make_session(s)) {
        free(s->bearer);
        free(s);
        return hp_fail(e, HP_ENOMEM, "no memory for a connection");
    }
    *ret = s;
    return 0;
}

void hp_grpc_client_free(struct hp_grpc_client *s, int code, const char *message)
{
    if (!s)
        return;
    assert(!s->busy);
    s->busy = true;
    struct hp_client_call *call;
    while ((call = TAILQ_FIRST(&s->calls)) != NULL)
        client_call_end(call, call->cancelled ? hp_status_new(HP_CODE_CANCELLED, NULL, "the call was cancelled")
                                              : hp_status_new(code, NULL, "%s", message));
    nghttp2_session_del(s->h2); /* calls no callbacks */
    free(s->bearer);
    free(s);
}

int hp_grpc_client_attach(struct hp_grpc_client *s, uint64_t now_ms, struct hp_client_call *call)
{
    if (!hp_grpc_client_usable(s))
        return HP_EUNAVAILABLE;
    s->now_ms = now_ms;
    int rc = client_call_open(s, call);
    if (rc)
        return rc;
    client_due(s, hp_grpc_call_deadline(call));
    client_wake(s);
    return 0;
}

static int check_fatal(struct hp_grpc_client *s, struct hp_error *e)
{
    if (!s->fatal)
        return 0;
    return hp_fail(e, s->fatal, "HTTP/2 connection: %s", hp_strerror(s->fatal));
}

static int fail_h2(ssize_t rc, struct hp_error *e)
{
    return hp_fail(e, rc == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EPROTO, "HTTP/2 connection: %s",
                   nghttp2_strerror((int)rc));
}

int hp_grpc_client_receive(struct hp_grpc_client *s, uint64_t now_ms, const uint8_t *data, size_t len,
                           struct hp_error *e)
{
    assert(!s->busy);
    s->now_ms = s->received_ms = now_ms;
    s->ping_sent_ms = UINT64_MAX; /* any byte proves life */
    s->busy = true;
    ssize_t n = len > 0 ? nghttp2_session_mem_recv(s->h2, data, len)
                        : 0; /* which would count an empty call as a CONTINUATION */
    s->busy = false;
    return n < 0 ? fail_h2(n, e) : check_fatal(s, e);
}

static void work_off(struct hp_grpc_client *s)
{
    /* Only what is there now: a callback that makes more work gets the next turn. */
    size_t rounds = s->call_count;
    struct hp_client_call *call;
    for (; rounds > 0 && (call = TAILQ_FIRST(&s->pending)) != NULL; rounds--) {
        TAILQ_REMOVE(&s->pending, call, pending_link);
        call->pending = false;
        client_call_work(call);
    }
}

int hp_grpc_client_pull(struct hp_grpc_client *s, uint64_t now_ms, const uint8_t **ret_data, size_t *ret_len,
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
        return fail_h2(n, e);
    *ret_len = (size_t)n;
    return check_fatal(s, e);
}

/* ---- time ---- */

uint64_t hp_grpc_client_deadline(const struct hp_grpc_client *s)
{
    return s->due_ms;
}

static void tick_deadlines(struct hp_grpc_client *s)
{
    /* on_finish may end or start other calls: begin again after each one that is due. */
    struct hp_client_call *call;
    bool again;
    do {
        again = false;
        TAILQ_FOREACH(call, &s->calls, link)
        {
            if (hp_grpc_call_deadline(call) > s->now_ms)
                continue;
            client_call_end(call, hp_status_new(HP_CODE_DEADLINE_EXCEEDED, NULL, "the call's deadline has passed"));
            again = true;
            break;
        }
    } while (again);
    TAILQ_FOREACH(call, &s->calls, link)
    client_due(s, hp_grpc_call_deadline(call));
}

static int tick_keepalive(struct hp_grpc_client *s, struct hp_error *e)
{
    uint64_t period = s->config.keepalive_ms;
    if (s->ping_sent_ms != UINT64_MAX) {
        if (s->now_ms >= s->ping_sent_ms + HP_CLIENT_PING_MS)
            return hp_fail(e, HP_ETIMEDOUT, "a ping was not answered in %d ms", HP_CLIENT_PING_MS);
        client_due(s, s->ping_sent_ms + HP_CLIENT_PING_MS);
    } else if (period && s->now_ms >= s->received_ms + period) {
        if (s->call_count == 0) { /* nobody waits for this connection: look again later */
            client_due(s, s->now_ms + period);
            return 0;
        }
        int rc = nghttp2_submit_ping(s->h2, NGHTTP2_FLAG_NONE, NULL);
        if (rc)
            client_fatal(s, rc);
        s->ping_sent_ms = s->now_ms;
        client_due(s, s->now_ms + HP_CLIENT_PING_MS);
    } else if (period) {
        client_due(s, s->received_ms + period);
    }
    return 0;
}

int hp_grpc_client_tick(struct hp_grpc_client *s, uint64_t now_ms, struct hp_error *e)
{
    assert(!s->busy);
    s->now_ms = now_ms;
    if (now_ms < s->due_ms)
        return 0;
    s->busy = true;
    s->due_ms = UINT64_MAX;
    tick_deadlines(s);
    int rc = tick_keepalive(s, e);
    s->busy = false;
    return rc ? rc : check_fatal(s, e);
}

bool hp_grpc_client_finished(const struct hp_grpc_client *s)
{
    return !nghttp2_session_want_read(s->h2) && !nghttp2_session_want_write(s->h2);
}

bool hp_grpc_client_usable(const struct hp_grpc_client *s)
{
    return !s->going_away && !s->fatal && nghttp2_session_check_request_allowed(s->h2);
}

size_t hp_grpc_client_calls(const struct hp_grpc_client *s)
{
    return s->call_count;
}
