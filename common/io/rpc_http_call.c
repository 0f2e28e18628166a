/* One Connect call on a connection of libmicrohttpd.
 *
 * Happy path, unary: begin (headers) → body … → proceed: the handler gets the request; when it has not answered yet the connection is suspended → finish
 * resumes it → proceed again: the response is queued → completed. Streaming: the response is queued at once, its reader suspends the connection
 * whenever there is nothing to send, and every send resumes it.
 * Failures: refusals are remembered until the body is read, so that the client can hear them; a client that goes away while the connection is suspended is
 * seen by our own poll handle. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/rpc_http_impl.h"

static const struct hp_rpc_call_ops http_call_ops;

static struct http_call *of(struct hp_rpc_call *base)
{
    assert(base->ops == &http_call_ops);
    return (struct http_call *)base;
}

static void move(struct http_call *c, enum http_call_state to)
{
    assert(to > c->state);
    assert(to != HTTP_OPEN || c->base.entry);
    c->state = to;
}

static void format_peer(struct http_call *c)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    char ip[INET6_ADDRSTRLEN] = "?";
    if (!info || !info->client_addr)
        return;
    if (info->client_addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const void *)info->client_addr;
        uv_ip6_name(six, ip, sizeof ip);
        snprintf(c->address, sizeof c->address, "[%s]:%u", ip, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const void *)info->client_addr;
        uv_ip4_name(four, ip, sizeof ip);
        snprintf(c->address, sizeof c->address, "%s:%u", ip, ntohs(four->sin_port));
    }
}

struct http_call *http_call_new(struct rpc_http *h, struct MHD_Connection *connection)
{
    struct http_call *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->base.ops = &http_call_ops;
    c->http = h;
    c->connection = connection;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    c->conn = info ? info->socket_context : NULL;
    c->deadline_ms = UINT64_MAX;
    c->body_max = h->limits.message_max;
    c->body.budget = c->output.budget = &h->server->budget;
    format_peer(c);
    c->base.peer.address = c->address;
    TAILQ_INSERT_TAIL(&h->calls, c, link);
    return c;
}

/* ---- the end ---- */

static void maybe_free(struct http_call *c)
{
    if (c->connection || c->handles > 0)
        return;
    struct rpc_http *h = c->http;
    TAILQ_REMOVE(&h->calls, c, link);
    hp_rpc_call_forget(&c->base, h->server->service);
    free(c);
    rpc_http_call_ended(h);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_call *c = handle->data;
    c->handles--;
    maybe_free(c);
}

void http_call_completed(struct http_call *c)
{
    hp_rpc_call_cancel(&c->base);
    if (c->pending)
        TAILQ_REMOVE(&c->http->pending, c, pending_link);
    c->pending = false;
    hp_bytes_done(&c->body);
    hp_bytes_done(&c->output);
    hp_status_free(c->status);
    c->status = NULL;
    c->connection = NULL;
    c->state = HTTP_DONE;
    if (c->watching)
        uv_close((uv_handle_t *)&c->gone, on_handle_closed);
    if (c->timed)
        uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    maybe_free(c);
}

static void resume(struct http_call *c)
{
    if (!c->suspended)
        return;
    c->suspended = false;
    MHD_resume_connection(c->connection);
    rpc_http_run_again(c->http);
}

/* The state is DONE and c->status is set: lets the answer go out. */
static void answer(struct http_call *c)
{
    assert(c->state == HTTP_DONE);
    if (c->streaming && connect_write_end(c))
        c->dead = true; /* without its last envelope a stream reads as broken, which it is */
    c->ended = true;
    resume(c);
}

void http_call_fail(struct http_call *c, Google__Rpc__Status *status)
{
    assert(c->state != HTTP_DONE);
    hp_rpc_call_cancel(&c->base);
    move(c, HTTP_DONE);
    c->status = status;
    answer(c);
}

void http_call_abandon(struct http_call *c)
{
    c->dead = true;
    if (c->state != HTTP_DONE) {
        hp_rpc_call_cancel(&c->base);
        move(c, HTTP_DONE);
    }
    resume(c);
}

static void on_gone(uv_poll_t *poll, int status, int events)
{
    struct http_call *c = poll->data;
    uv_poll_stop(poll);
    if (c->connection)
        http_call_abandon(c);
}

static void suspend(struct http_call *c)
{
    if (!c->watching) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(c->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        c->watching = info && uv_poll_init(c->http->server->loop, &c->gone, info->connect_fd) == 0;
        if (c->watching) {
            c->handles++;
            c->gone.data = c;
            uv_poll_start(&c->gone, UV_DISCONNECT, on_gone);
        }
    }
    c->suspended = true;
    MHD_suspend_connection(c->connection);
}

static void on_deadline(uv_timer_t *timer)
{
    struct http_call *c = timer->data;
    if (c->state == HTTP_OPEN) {
        hp_bytes_done(&c->output);
        http_call_fail(c,
                       hp_status_new(HP_CODE_DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the call's deadline has passed"));
    }
}

static void arm_deadline(struct http_call *c)
{
    if (c->deadline_ms == UINT64_MAX || uv_timer_init(c->http->server->loop, &c->timer))
        return;
    c->timed = true;
    c->handles++;
    c->timer.data = c;
    uint64_t now = hp_now_ms();
    uv_update_time(c->http->server->loop);
    uv_timer_start(&c->timer, on_deadline, c->deadline_ms > now ? c->deadline_ms - now : 0, 0);
}

/* ---- what handlers call ---- */

static int op_send(struct hp_rpc_call *base, const ProtobufCMessage *response)
{
    struct http_call *c = of(base);
    assert(c->state == HTTP_OPEN);
    assert(c->streaming || !c->answered);
    int rc = connect_write(c, response);
    if (rc)
        return rc;
    c->answered = true;
    if (!c->streaming)
        return 0;
    resume(c);
    if (c->output.len <= HTTP_OUTPUT_HIGH_BYTES)
        return 0;
    c->output_full = true;
    return HP_EAGAIN;
}

static void op_finish(struct hp_rpc_call *base, Google__Rpc__Status *status)
{
    struct http_call *c = of(base);
    move(c, HTTP_DONE);
    c->status = status;
    answer(c);
}

static void op_pause(struct hp_rpc_call *base, bool pause)
{
    (void)base; /* there is only one request message, and it has been delivered */
    (void)pause;
}

static uint64_t op_deadline_left_ms(const struct hp_rpc_call *base)
{
    const struct http_call *c = (const struct http_call *)base;
    if (c->deadline_ms == UINT64_MAX)
        return UINT64_MAX;
    uint64_t now = hp_now_ms();
    return c->deadline_ms > now ? c->deadline_ms - now : 0;
}

static const struct hp_rpc_call_ops http_call_ops = {
    .send = op_send,
    .finish = op_finish,
    .pause = op_pause,
    .deadline_left_ms = op_deadline_left_ms,
};

void http_call_work(struct http_call *c)
{
    if (!c->output_full || c->output.len >= HTTP_OUTPUT_HIGH_BYTES / 2)
        return;
    c->output_full = false;
    if (c->state == HTTP_OPEN && c->base.entry->method->on_writable)
        c->base.entry->method->on_writable(&c->base);
}

/* ---- the response ---- */

/* Is `origin` in the comma-separated list, or the list "*"? */
static bool origin_allowed(const char *list, const char *origin)
{
    size_t len = strlen(origin);
    while (list && *list) {
        list += strspn(list, ", \t");
        size_t n = strcspn(list, ", \t");
        if ((n == 1 && *list == '*') || (n == len && strncmp(list, origin, n) == 0))
            return true;
        list += n;
    }
    return false;
}

static bool add_header(struct MHD_Response *r, const char *name, const char *value)
{
    return MHD_add_response_header(r, name, value) == MHD_YES;
}

static bool add_cors(struct http_call *c, struct MHD_Response *r)
{
    const char *origin = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Origin");
    if (!origin || !origin_allowed(c->http->allow_origins, origin))
        return true;
    bool ok = add_header(r, "Access-Control-Allow-Origin", origin) && add_header(r, "Vary", "Origin");
    if (!c->preflight)
        return ok;
    return ok && add_header(r, "Access-Control-Allow-Methods", "POST") &&
           add_header(r, "Access-Control-Allow-Headers",
                      "authorization, content-type, connect-protocol-version, connect-timeout-ms") &&
           add_header(r, "Access-Control-Max-Age", "7200");
}

static bool add_headers(struct http_call *c, int http_status, const char *type, struct MHD_Response *r)
{
    bool ok = !type || add_header(r, "Content-Type", type);
    ok = ok && add_header(r, "Cache-Control", "no-store");
    if (http_status == 405)
        ok = ok && add_header(r, "Allow", "POST, OPTIONS");
    if (http_status == 415)
        ok = ok && add_header(r, "Accept-Post",
                              "application/json, application/proto, application/connect+json, "
                              "application/connect+proto");
    if (c->http->draining)
        ok = ok && add_header(r, "Connection", "close");
    return ok && add_cors(c, r);
}

/* Takes over r. MHD_NO, which breaks the connection: no memory for all of it. */
static enum MHD_Result queue(struct http_call *c, int http_status, const char *type, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    enum MHD_Result rc = MHD_NO;
    if (add_headers(c, http_status, type, r)) {
        c->queued = true;
        rc = MHD_queue_response(c->connection, (unsigned)http_status, r);
    }
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result queue_text(struct http_call *c, int http_status, const char *type, const void *data, size_t len)
{
    return queue(c, http_status, type, MHD_create_response_from_buffer(len, (void *)data, MHD_RESPMEM_MUST_COPY));
}

static enum MHD_Result queue_error(struct http_call *c)
{
    int http_status = c->http_status ? c->http_status : hp_code_http_status(c->status->code);
    char *text = connect_error_json(c->status);
    if (!text)
        return MHD_NO;
    enum MHD_Result rc = queue_text(c, http_status, "application/json", text, strlen(text));
    free(text);
    return rc;
}

static ssize_t read_stream(void *user, uint64_t position, char *buf, size_t max)
{
    struct http_call *c = user;
    if (c->dead)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = c->output.len < max ? c->output.len : max;
    if (n == 0 && c->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        suspend(c);
        return 0;
    }
    memcpy(buf, hp_bytes_head(&c->output), n);
    hp_bytes_consume(&c->output, n);
    if (c->output_full && !c->pending && c->output.len < HTTP_OUTPUT_HIGH_BYTES / 2) {
        c->pending = true;
        TAILQ_INSERT_TAIL(&c->http->pending, c, pending_link);
    }
    return (ssize_t)n;
}

static enum MHD_Result queue_answer(struct http_call *c)
{
    assert(!c->queued);
    if (c->preflight)
        return queue(c, 204, NULL, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
    if (c->streaming && !c->http_status)
        return queue(c, 200, connect_response_type(c),
                     MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_BLOCK_BYTES, read_stream, c, NULL));
    if (c->http_status == 405 || c->http_status == 415) /* "415 Unsupported Media Type" has no body in Connect */
        return queue(c, c->http_status, NULL, MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
    if (c->status)
        return queue_error(c);
    return queue_text(c, 200, connect_response_type(c), hp_bytes_head(&c->output), c->output.len);
}

/* ---- the request ---- */

static Google__Rpc__Status *refuse(struct http_call *c, int http_status, Google__Rpc__Status *status)
{
    c->http_status = http_status;
    return status;
}

/* Checks what the headers say. NULL: the body may come. */
static Google__Rpc__Status *check(struct http_call *c, const char *url, const char *method)
{
    if (strcmp(method, "POST") != 0)
        return refuse(c, 405,
                      hp_status_new(HP_CODE_UNIMPLEMENTED, "BAD_METHOD", "the HTTP method is POST, not %s", method));
    c->base.entry = hp_rpc_table_find(&c->http->server->table, url, strlen(url));
    if (!c->base.entry)
        return refuse(c, 404, hp_status_new(HP_CODE_UNIMPLEMENTED, "UNKNOWN_METHOD", "there is no such method"));
    const struct hp_rpc_method *m = c->base.entry->method;
    const char *type = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Content-Type");
    connect_parse_content_type(c, type);
    bool stream = m->server_streaming || m->client_streaming;
    if (c->codec == CONNECT_NONE || c->streaming != stream)
        return refuse(
            c, 415,
            hp_status_new(HP_CODE_UNKNOWN, "BAD_CONTENT_TYPE",
                          "content-type is \"%s\"; this method takes application/%sjson and application/%sproto",
                          type ? type : "", stream ? "connect+" : "", stream ? "connect+" : ""));
    if (m->client_streaming)
        return refuse(c, 505,
                      hp_status_new(HP_CODE_UNIMPLEMENTED, "NEEDS_HTTP2", "streams of requests need gRPC over HTTP/2"));
    Google__Rpc__Status *status = connect_check_headers(c);
    if (!status)
        status = hp_rpc_call_authenticate(&c->base, c->http->server->service,
                                          MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Authorization"));
    return status;
}

static Google__Rpc__Status *too_large(const struct http_call *c)
{
    return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE",
                         "the request's body is larger than the limit of %zu bytes", c->body_max);
}

static uint64_t content_length(const struct http_call *c)
{
    const char *text = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Content-Length");
    return text ? strtoull(text, NULL, 10) : 0;
}

enum MHD_Result http_call_begin(struct http_call *c, const char *url, const char *method)
{
    if (c->conn)
        rpc_http_read_from(c->http, c->conn);
    if (strcmp(method, "OPTIONS") == 0) {
        c->preflight = true;
        move(c, HTTP_DONE);
        return MHD_YES;
    }
    Google__Rpc__Status *status = check(c, url, method);
    if (c->streaming)
        c->body_max += HP_MESSAGE_PREFIX;
    uint64_t length = content_length(c);
    if (!status && length > c->body_max)
        status = too_large(c);
    if (!status)
        return MHD_YES;
    http_call_fail(c, status);
    const char *expect = MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, "Expect");
    if (length > HTTP_DISCARD_MAX || (expect && length > 0))
        return queue_answer(c); /* it has not been sent yet, or is not worth reading */
    return MHD_YES;
}

enum MHD_Result http_call_body(struct http_call *c, const char *data, size_t len)
{
    if (c->state == HTTP_READING && len > c->body_max - c->body.len) {
        hp_bytes_done(&c->body);
        http_call_fail(c, too_large(c));
    }
    if (c->state == HTTP_READING && !hp_bytes_append(&c->body, data, len)) {
        hp_bytes_done(&c->body);
        http_call_fail(c, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for the request"));
    }
    if (c->state == HTTP_READING)
        return MHD_YES;
    c->discarded += len;
    return c->discarded > HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
}

static void dispatch(struct http_call *c)
{
    struct hp_error e = {0};
    ProtobufCMessage *request;
    int rc = connect_unpack(c, &request, &e);
    hp_bytes_done(&c->body);
    if (rc) {
        http_call_fail(c, hp_rpc_input_status(rc, &e));
        return;
    }
    move(c, HTTP_OPEN);
    arm_deadline(c);
    c->base.seen = true;
    c->base.entry->method->on_message(&c->base, request);
    connect_request_free(c, request);
}

enum MHD_Result http_call_proceed(struct http_call *c)
{
    if (c->conn)
        rpc_http_read_done(c->http, c->conn);
    if (c->dead)
        return MHD_NO;
    if (c->state == HTTP_READING)
        dispatch(c);
    if (c->state == HTTP_DONE && !c->streaming && !c->status && !c->preflight && !c->answered)
        c->status = hp_status_new(HP_CODE_INTERNAL, NULL, "the call ended without an answer");
    if (c->state == HTTP_DONE || c->streaming)
        return queue_answer(c);
    suspend(c);
    return MHD_YES;
}
