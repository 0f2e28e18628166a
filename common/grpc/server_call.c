/* One call of a server session.
 *
 * Happy path of a unary call: header block → begin → DATA fills the reader → END_STREAM: on_message → hp_rpc_reply queues the response and submits the
 * response headers → nghttp2 pulls the body through read_output → at its end the trailers are submitted → the stream closes → freed.
 * Failures: a refusal or an error before the first message is Trailers-Only; later errors come in the trailers, after what was queued. Reset, lost
 * connection and deadline reach the handler as on_cancel. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "grpc/metadata.h"
#include "grpc/server_impl.h"
#include "wire/b64.h"
#include "wire/codec.h"

enum { DETAILS_BYTES_MAX = 4096 /* packed status in the trailers; clients accept 8 KiB of headers */ };

static const struct hp_rpc_call_ops server_call_ops;

static struct server_call *of(struct hp_rpc_call *base)
{
    assert(base->ops == &server_call_ops);
    return (struct server_call *)base;
}

static void move(struct server_call *c, enum server_call_state to)
{
    assert(to > c->state);
    assert(to != CALL_OPEN || c->base.entry);
    c->state = to;
}

static void put_off(struct server_call *c)
{
    if (!c->pending) {
        c->pending = true;
        TAILQ_INSERT_TAIL(&c->session->pending, c, pending_link);
    }
    server_wake(c->session);
}

struct server_call *server_call_new(struct hp_grpc_server *s, int32_t stream_id)
{
    struct server_call *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->base.ops = &server_call_ops;
    c->base.peer = s->config.peer;
    c->session = s;
    c->stream_id = stream_id;
    c->state = CALL_HEADERS;
    c->http_status = 200;
    c->deadline_ms = c->stall_due_ms = UINT64_MAX;
    c->request_due_ms = s->now_ms + HP_GRPC_REQUEST_MS;
    server_due(s, c->request_due_ms);
    hp_message_reader_init(&c->reader, s->limits.message_max, s->config.budget);
    c->held.budget = c->output.budget = s->config.budget;
    TAILQ_INSERT_TAIL(&s->calls, c, link);
    s->call_count++;
    s->idle_since_ms = UINT64_MAX;
    return c;
}

static void forget_authorization(struct server_call *c)
{
    if (c->authorization)
        explicit_bzero(c->authorization, strlen(c->authorization));
    free(c->authorization);
    c->authorization = NULL;
}

static void drop_input(struct server_call *c)
{
    hp_message_reader_done(&c->reader);
    hp_bytes_done(&c->held);
    if (c->request)
        hp_unpacked_free(c->request);
    c->request = NULL;
    forget_authorization(c);
    c->request_due_ms = UINT64_MAX;
}

void server_call_closed(struct server_call *c)
{
    struct hp_grpc_server *s = c->session;
    if (c->state == CALL_OPEN) {
        hp_rpc_call_cancel(&c->base);
        move(c, CALL_FINISHED);
    }
    drop_input(c);
    hp_bytes_done(&c->output);
    hp_status_free(c->status);
    if (c->pending)
        TAILQ_REMOVE(&s->pending, c, pending_link);
    TAILQ_REMOVE(&s->calls, c, link);
    assert(s->call_count > 0);
    if (--s->call_count == 0) {
        s->idle_since_ms = s->now_ms;
        if (s->config.idle_ms)
            server_due(s, s->now_ms + s->config.idle_ms);
    }
    hp_rpc_call_forget(&c->base, s->config.service);
    free(c);
}

/* ---- the response ---- */

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

/* The texts of a status in trailers; a text that memory is short for is left out. */
struct trailers {
    char code[8];
    char *message;
    char details[DETAILS_BYTES_MAX / 3 * 4 + 5];
    nghttp2_nv fields[3];
    size_t count;
};

static void trailers_make(struct trailers *t, const Google__Rpc__Status *status)
{
    t->message = NULL;
    t->count = 0;
    snprintf(t->code, sizeof t->code, "%d", status ? (int)status->code : HP_CODE_OK);
    t->fields[t->count++] = field("grpc-status", t->code);
    if (!status)
        return;
    if (status->message[0])
        t->message = hp_grpc_message_encode(status->message);
    if (t->message)
        t->fields[t->count++] = field("grpc-message", t->message);
    size_t len = status->n_details > 0 ? google__rpc__status__get_packed_size(status) : 0;
    if (len == 0 || len > DETAILS_BYTES_MAX)
        return;
    uint8_t packed[DETAILS_BYTES_MAX];
    google__rpc__status__pack(status, packed);
    hp_b64_encode(t->details, packed, len);
    t->fields[t->count++] = field("grpc-status-details-bin", t->details);
}

static void trailers_done(struct trailers *t)
{
    free(t->message);
}

/* nghttp2 asks for body bytes: whatever is queued; at the end of a finished call, the trailers. */
static ssize_t read_output(nghttp2_session *h2, int32_t stream_id, uint8_t *buf, size_t len, uint32_t *flags,
                           nghttp2_data_source *source, void *user)
{
    struct server_call *c = source->ptr;
    struct hp_grpc_server *s = c->session;
    size_t n = c->output.len < len ? c->output.len : len;
    if (n > 0) {
        memcpy(buf, hp_bytes_head(&c->output), n);
        hp_bytes_consume(&c->output, n);
        c->stall_due_ms = c->output.len > 0 ? s->now_ms + HP_GRPC_STALL_MS : UINT64_MAX;
    }
    if (c->output_full && c->state == CALL_OPEN && c->output.len < HP_GRPC_OUTPUT_HIGH_BYTES / 2)
        put_off(c);
    if (c->output.len > 0)
        return (ssize_t)n;
    if (c->state != CALL_FINISHED)
        return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
    c->stall_due_ms = UINT64_MAX;
    struct trailers t;
    trailers_make(&t, c->status);
    int rc = nghttp2_submit_trailer(h2, stream_id, t.fields, t.count);
    trailers_done(&t);
    if (rc)
        return nghttp2_is_fatal(rc) ? NGHTTP2_ERR_CALLBACK_FAILURE : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return (ssize_t)n;
}

static void start_response(struct server_call *c)
{
    assert(!c->response_started);
    nghttp2_nv fields[] = {field(":status", "200"), field("content-type", "application/grpc")};
    nghttp2_data_provider body = {.source = {.ptr = c}, .read_callback = read_output};
    c->response_started = true;
    int rc = nghttp2_submit_response(c->session->h2, c->stream_id, fields, 2, &body);
    if (rc)
        server_fatal(c->session, rc);
}

/* For whoever does not speak gRPC: an HTTP status and nothing that could be taken for more. */
static void refuse_plainly(struct server_call *c, const char *http)
{
    const nghttp2_nv fields[] = {field(":status", http), field("content-length", "0")};
    int rc = nghttp2_submit_response(c->session->h2, c->stream_id, fields, 2, NULL);
    if (rc)
        server_fatal(c->session, rc);
}

static void trailers_only(struct server_call *c)
{
    assert(!c->response_started);
    char http[8];
    snprintf(http, sizeof http, "%d", c->http_status);
    c->response_started = true;
    if (c->http_status == 405 || c->http_status == 415) {
        refuse_plainly(c, http);
        return;
    }
    struct trailers t;
    trailers_make(&t, c->status);
    nghttp2_nv fields[6];
    size_t n = 0;
    fields[n++] = field(":status", http);
    fields[n++] = field("content-type", "application/grpc");
    if (c->encoding_bad)
        fields[n++] = field("grpc-accept-encoding", "identity");
    memcpy(fields + n, t.fields, t.count * sizeof t.fields[0]);
    int rc = nghttp2_submit_response(c->session->h2, c->stream_id, fields, n + t.count, NULL);
    trailers_done(&t);
    if (rc)
        server_fatal(c->session, rc);
}

static void resume_output(struct server_call *c)
{
    int rc = nghttp2_session_resume_data(c->session->h2, c->stream_id);
    if (rc && nghttp2_is_fatal(rc)) /* not deferred: nothing to resume */
        server_fatal(c->session, rc);
}

static void watch_output(struct server_call *c)
{
    if (c->stall_due_ms != UINT64_MAX)
        return;
    c->stall_due_ms = c->session->now_ms + HP_GRPC_STALL_MS;
    server_due(c->session, c->stall_due_ms);
}

/* The state is FINISHED and status is set: get the answer on its way. Trailers wait for flow control as the body does, so they are watched too. */
static void answer(struct server_call *c)
{
    assert(c->state == CALL_FINISHED);
    drop_input(c);
    if (!c->response_started && c->status && c->output.len == 0) {
        trailers_only(c);
    } else {
        watch_output(c);
        if (c->response_started)
            resume_output(c);
        else
            start_response(c);
    }
    server_wake(c->session);
}

/* Ends the call from our side: the handler, if it has it, is told by on_cancel. */
static void fail(struct server_call *c, Google__Rpc__Status *status)
{
    assert(c->state != CALL_FINISHED);
    hp_rpc_call_cancel(&c->base);
    move(c, CALL_FINISHED);
    c->status = status;
    answer(c);
}

/* ---- what handlers call ---- */

static int op_send(struct hp_rpc_call *base, const ProtobufCMessage *response)
{
    struct server_call *c = of(base);
    assert(c->state == CALL_OPEN);
    int rc = hp_message_write(&c->output, 0, response, c->session->limits.call_buffer_max);
    if (rc)
        return rc;
    watch_output(c);
    if (c->response_started)
        resume_output(c);
    else
        start_response(c);
    server_wake(c->session);
    if (c->output.len <= HP_GRPC_OUTPUT_HIGH_BYTES)
        return 0;
    c->output_full = true;
    return HP_EAGAIN;
}

static void op_finish(struct hp_rpc_call *base, Google__Rpc__Status *status)
{
    struct server_call *c = of(base);
    move(c, CALL_FINISHED);
    c->status = status;
    answer(c);
}

static void op_pause(struct hp_rpc_call *base, bool pause)
{
    struct server_call *c = of(base);
    if (c->paused && !pause)
        put_off(c);
    c->paused = pause;
}

static uint64_t op_deadline_left_ms(const struct hp_rpc_call *base)
{
    const struct server_call *c = (const struct server_call *)base;
    if (c->deadline_ms == UINT64_MAX)
        return UINT64_MAX;
    return c->deadline_ms > c->session->now_ms ? c->deadline_ms - c->session->now_ms : 0;
}

static const struct hp_rpc_call_ops server_call_ops = {
    .send = op_send,
    .finish = op_finish,
    .pause = op_pause,
    .deadline_left_ms = op_deadline_left_ms,
};

/* ---- the request's header block ---- */

static bool equals(const uint8_t *text, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(text, want, len) == 0;
}

void server_call_header(struct server_call *c, const uint8_t *name, size_t name_len, const uint8_t *value,
                        size_t value_len)
{
    c->header_count++;
    c->header_bytes += (uint32_t)(name_len + value_len + 32);
    if (c->header_count > HP_GRPC_HEADERS_MAX || c->header_bytes > HP_GRPC_HEADER_BYTES_MAX || c->state != CALL_HEADERS)
        return;
    const char *text = (const char *)value;
    if (equals(name, name_len, ":method")) {
        c->post = equals(value, value_len, "POST");
    } else if (equals(name, name_len, ":path")) {
        c->base.entry = hp_rpc_table_find(c->session->config.table, text, value_len);
    } else if (equals(name, name_len, "content-type")) {
        c->content_type = hp_grpc_content_type(text, value_len);
    } else if (equals(name, name_len, "te")) {
        c->te_trailers = value_len == 8 && strncasecmp(text, "trailers", 8) == 0;
    } else if (equals(name, name_len, "grpc-encoding")) {
        c->encoding_bad = !equals(value, value_len, "identity");
    } else if (equals(name, name_len, "grpc-timeout")) {
        uint64_t ms;
        c->timeout_bad = !hp_grpc_timeout_parse(text, value_len, &ms);
        if (!c->timeout_bad)
            c->deadline_ms = c->session->now_ms + ms;
    } else if (equals(name, name_len, "authorization") && !c->authorization) {
        c->authorization = strndup(text, value_len);
        c->out_of_memory = !c->authorization;
    }
}

static Google__Rpc__Status *check_headers(struct server_call *c)
{
    if (c->header_count > HP_GRPC_HEADERS_MAX || c->header_bytes > HP_GRPC_HEADER_BYTES_MAX) {
        c->http_status = 431;
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "HEADERS_TOO_LARGE",
                             "the request has %u header fields of %u bytes; the limits are %d and %d", c->header_count,
                             c->header_bytes, HP_GRPC_HEADERS_MAX, HP_GRPC_HEADER_BYTES_MAX);
    }
    if (!c->post) {
        c->http_status = 405;
        return hp_status_new(HP_CODE_INTERNAL, "BAD_METHOD", "a gRPC request uses the HTTP method POST");
    }
    if (!c->content_type) {
        c->http_status = 415;
        return hp_status_new(HP_CODE_INTERNAL, "BAD_CONTENT_TYPE",
                             "content-type is not application/grpc or application/grpc+proto");
    }
    if (!c->te_trailers) {
        c->http_status = 400;
        return hp_status_new(HP_CODE_INTERNAL, "NO_TRAILERS",
                             "the header \"te: trailers\" is missing: a proxy between us may not support trailers");
    }
    if (c->out_of_memory)
        return hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for the request's credentials");
    if (!c->base.entry)
        return hp_status_new(HP_CODE_UNIMPLEMENTED, "UNKNOWN_METHOD", "there is no such method");
    if (c->encoding_bad)
        return hp_status_new(HP_CODE_UNIMPLEMENTED, "UNSUPPORTED_ENCODING",
                             "compressed requests are not supported: grpc-encoding may be identity");
    if (c->timeout_bad)
        return hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_TIMEOUT",
                             "grpc-timeout is not 1 to 8 digits and one of H M S m u n");
    return NULL;
}

void server_call_begin(struct server_call *c)
{
    assert(c->state == CALL_HEADERS);
    struct hp_grpc_server *s = c->session;
    Google__Rpc__Status *status = check_headers(c);
    if (!status)
        status = hp_rpc_call_authenticate(&c->base, s->config.service, c->authorization);
    forget_authorization(c);
    if (status) {
        fail(c, status);
        return;
    }
    const struct hp_rpc_method *m = c->base.entry->method;
    move(c, CALL_OPEN);
    if (m->client_streaming)
        c->request_due_ms = UINT64_MAX;
    server_due(s, c->deadline_ms);
    if (m->client_streaming && m->on_start) {
        c->base.seen = true;
        m->on_start(&c->base);
    }
}

/* ---- the request's messages ---- */

static void on_request(struct server_call *c, const struct hp_message *message)
{
    const struct hp_rpc_method *m = c->base.entry->method;
    struct hp_error e = {0};
    if (message->flags != 0) {
        fail(c, hp_status_new(HP_CODE_INTERNAL, "BAD_FRAME", "message flags are 0x%02x without an encoding",
                              message->flags));
        return;
    }
    if (c->request) {
        fail(c, hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_FRAME", "more than one request message"));
        return;
    }
    ProtobufCMessage *request;
    const struct hp_unpack_limits limits = {.bytes_max = c->session->limits.message_max};
    int rc = hp_unpack(m->request, message->body, message->len, &limits, &request, &e);
    if (rc) {
        fail(c, hp_rpc_input_status(rc, &e));
        return;
    }
    if (!m->client_streaming) {
        c->request = request;
        return;
    }
    c->base.seen = true;
    m->on_message(&c->base, request);
    hp_unpacked_free(request);
}

static bool must_wait(const struct server_call *c)
{
    return c->paused || c->output_full;
}

static void consume(struct server_call *c, size_t len)
{
    if (len == 0 || c->half_closed)
        return;
    int rc = nghttp2_session_consume_stream(c->session->h2, c->stream_id, len);
    if (rc && nghttp2_is_fatal(rc))
        server_fatal(c->session, rc);
}

/* Feeds request bytes to the reader and the handler, until the call ends or must wait. Returns how many were taken. */
static size_t feed(struct server_call *c, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    while (taken < len && c->state == CALL_OPEN && !must_wait(c)) {
        struct hp_message message;
        struct hp_error e = {0};
        size_t used;
        int rc = hp_message_read(&c->reader, data + taken, len - taken, &used, &message, &e);
        taken += used;
        if (rc < 0)
            fail(c, hp_rpc_input_status(rc, &e));
        else if (rc > 0)
            on_request(c, &message);
    }
    return taken;
}

static void finish_input(struct server_call *c)
{
    if (c->half_close_done || c->state != CALL_OPEN || c->held.len > 0 || must_wait(c))
        return;
    c->half_close_done = true;
    const struct hp_rpc_method *m = c->base.entry->method;
    if (hp_message_reader_partial(&c->reader)) {
        fail(c, hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_FRAME", "the last request message is cut short"));
        return;
    }
    if (m->client_streaming) {
        c->base.seen = true;
        if (m->on_half_close)
            m->on_half_close(&c->base);
        return;
    }
    if (!c->request) {
        fail(c, hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_FRAME", "there is no request message"));
        return;
    }
    ProtobufCMessage *request = c->request;
    c->request = NULL;
    c->request_due_ms = UINT64_MAX;
    c->base.seen = true;
    m->on_message(&c->base, request);
    hp_unpacked_free(request);
}

void server_call_data(struct server_call *c, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    if (c->held.len == 0)
        taken = feed(c, data, len);
    if (c->state != CALL_OPEN) {
        consume(c, len); /* nobody wants it: keep the client from waiting for window */
        return;
    }
    consume(c, taken);
    if (taken < len && !hp_bytes_append(&c->held, data + taken, len - taken))
        fail(c, hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", "no memory for the request's messages"));
}

void server_call_half_close(struct server_call *c)
{
    c->half_closed = true;
    finish_input(c);
}

void server_call_work(struct server_call *c)
{
    if (c->output_full && c->output.len < HP_GRPC_OUTPUT_HIGH_BYTES / 2) {
        c->output_full = false;
        if (c->state == CALL_OPEN && c->base.entry->method->on_writable)
            c->base.entry->method->on_writable(&c->base);
    }
    if (c->state == CALL_OPEN && c->held.len > 0) {
        /* The queue is set aside while it is fed: the handler may end the call, which frees c->held. */
        struct hp_bytes held = c->held;
        c->held = (struct hp_bytes){.budget = held.budget};
        size_t taken = feed(c, hp_bytes_head(&held), held.len);
        consume(c, taken);
        hp_bytes_consume(&held, taken);
        if (c->state == CALL_OPEN && held.len > 0)
            c->held = held;
        else
            hp_bytes_done(&held);
    }
    if (c->half_closed)
        finish_input(c);
}

/* ---- time ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The client has read nothing for too long. Trailers would wait for its window too, so that the stream is reset: clients read this code as RESOURCE_EXHAUSTED. */
static void give_up(struct server_call *c)
{
    c->stall_due_ms = UINT64_MAX;
    if (c->state == CALL_OPEN) {
        hp_rpc_call_cancel(&c->base);
        move(c, CALL_FINISHED);
        drop_input(c);
    }
    hp_bytes_done(&c->output);
    int rc = nghttp2_submit_rst_stream(c->session->h2, NGHTTP2_FLAG_NONE, c->stream_id, NGHTTP2_ENHANCE_YOUR_CALM);
    if (rc)
        server_fatal(c->session, rc);
}

uint64_t server_call_tick(struct server_call *c, uint64_t now_ms)
{
    if (c->state == CALL_OPEN && c->deadline_ms <= now_ms) {
        hp_bytes_done(&c->output);
        fail(c, hp_status_new(HP_CODE_DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the call's deadline has passed"));
    } else if (c->state == CALL_OPEN && c->request_due_ms <= now_ms) {
        fail(c, hp_status_new(HP_CODE_DEADLINE_EXCEEDED, "REQUEST_TIMEOUT", "no whole request came in %d ms",
                              HP_GRPC_REQUEST_MS));
    } else if (c->state == CALL_HEADERS && c->request_due_ms <= now_ms) {
        server_fatal(c->session, 0); /* a header block without end: nothing else can be read any more */
    } else if (c->stall_due_ms <= now_ms) {
        give_up(c);
    }
    return least(least(c->deadline_ms, c->request_due_ms), c->stall_due_ms);
}
