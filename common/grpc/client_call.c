/* One call of a client session.
 *
 * Happy path: new (WAITING, messages queue up) → attach: HEADERS → nghttp2 pulls queued messages → response headers, messages, trailers → stream closed →
 * on_finish, freed. The user never hears from us inside of a function that he called. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/client_impl.h"
#include "grpc/metadata.h"
#include "grpc/status.h"
#include "wire/b64.h"
#include "wire/codec.h"

int hp_grpc_call_new(const struct hp_grpc_call_options *o, struct hp_client_call **ret, struct hp_error *e)
{
    assert(o->events && o->events->on_message && o->events->on_finish && o->wake_cb);
    if (o->path[0] != '/')
        return hp_fail(e, HP_EINVAL, "path \"%s\" does not begin with '/'", o->path);
    struct hp_client_call *call = calloc(1, sizeof *call);
    char *path = strdup(o->path);
    if (!call || !path) {
        free(call);
        free(path);
        return hp_fail(e, HP_ENOMEM, "no memory for a call");
    }
    call->options = *o;
    call->options.path = path;
    call->state = CLIENT_WAITING;
    call->grpc_status = -1;
    hp_message_reader_init(&call->reader, o->message_max, NULL);
    *ret = call;
    return 0;
}

uint64_t hp_grpc_call_deadline(const struct hp_client_call *call)
{
    return call->options.deadline_ms;
}

bool hp_grpc_call_cancelled(const struct hp_client_call *call)
{
    return call->cancelled;
}

struct hp_client_call *hp_grpc_call_next(const struct hp_client_call *call)
{
    return call->next_waiting;
}

void hp_grpc_call_set_next(struct hp_client_call *call, struct hp_client_call *next)
{
    call->next_waiting = next;
}

void hp_grpc_call_end(struct hp_client_call *call, int code, const char *message)
{
    assert(call->state == CLIENT_WAITING);
    client_call_end(call, hp_status_new(code, NULL, "%s", message));
}

/* ---- the user's side ---- */

static void wake(struct hp_client_call *call)
{
    if (call->session)
        client_wake(call->session);
    else
        call->options.wake_cb(call->options.wake_user);
}

static void put_off(struct hp_client_call *call)
{
    if (call->session && !call->pending) {
        call->pending = true;
        TAILQ_INSERT_TAIL(&call->session->pending, call, pending_link);
    }
    wake(call);
}

static void resume_output(struct hp_client_call *call)
{
    if (!call->session)
        return;
    int rc = nghttp2_session_resume_data(call->session->h2, call->stream_id);
    if (rc && nghttp2_is_fatal(rc)) /* not deferred: nothing to resume */
        client_fatal(call->session, rc);
    client_wake(call->session);
}

int hp_client_call_send(struct hp_client_call *call, const ProtobufCMessage *request)
{
    if (call->cancelled || call->half_closed)
        return HP_ELIMIT;
    int rc = hp_message_write(&call->output, 0, request, HP_CLIENT_OUTPUT_MAX);
    if (rc)
        return HP_ELIMIT;
    resume_output(call);
    if (call->output.len <= HP_CLIENT_OUTPUT_HIGH_BYTES)
        return 0;
    call->output_full = true;
    return HP_EAGAIN;
}

void hp_client_call_half_close(struct hp_client_call *call)
{
    if (call->half_closed)
        return;
    call->half_closed = true;
    resume_output(call);
}

void hp_client_call_cancel(struct hp_client_call *call)
{
    if (call->cancelled)
        return;
    call->cancelled = true;
    put_off(call);
}

/* ---- the stream ---- */

static ssize_t read_output(nghttp2_session *h2, int32_t stream_id, uint8_t *buf, size_t len, uint32_t *flags,
                           nghttp2_data_source *source, void *user)
{
    /* Not from source->ptr: the call may be gone while its stream is being reset. */
    struct hp_client_call *call = nghttp2_session_get_stream_user_data(h2, stream_id);
    if (!call)
        return NGHTTP2_ERR_DEFERRED;
    size_t n = call->output.len < len ? call->output.len : len;
    if (n > 0) {
        memcpy(buf, hp_bytes_head(&call->output), n);
        hp_bytes_consume(&call->output, n);
    }
    if (call->output_full && call->output.len < HP_CLIENT_OUTPUT_HIGH_BYTES / 2)
        put_off(call);
    if (call->output.len == 0 && call->half_closed)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (n == 0)
        return NGHTTP2_ERR_DEFERRED;
    return (ssize_t)n;
}

static nghttp2_nv field(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int client_call_open(struct hp_grpc_client *s, struct hp_client_call *call)
{
    assert(call->state == CLIENT_WAITING);
    nghttp2_nv fields[10];
    size_t n = 0;
    char timeout[HP_GRPC_TIMEOUT_LEN];
    fields[n++] = field(":method", "POST");
    fields[n++] = field(":scheme", s->config.scheme);
    fields[n++] = field(":path", call->options.path);
    fields[n++] = field(":authority", s->config.authority);
    fields[n++] = field("content-type", "application/grpc");
    fields[n++] = field("te", "trailers");
    fields[n++] = field("user-agent", "harpoon/" HP_VERSION);
    if (call->options.deadline_ms != UINT64_MAX) {
        uint64_t deadline = call->options.deadline_ms;
        hp_grpc_timeout_format(timeout, deadline > s->now_ms ? deadline - s->now_ms : 0);
        fields[n++] = field("grpc-timeout", timeout);
    }
    if (s->bearer) {
        fields[n] = field("authorization", s->bearer);
        fields[n++].flags = NGHTTP2_NV_FLAG_NO_INDEX;
    }
    nghttp2_data_provider body = {.read_callback = read_output};
    int32_t id = nghttp2_submit_request(s->h2, NULL, fields, n, &body, call);
    if (id < 0)
        return id == NGHTTP2_ERR_NOMEM ? HP_ENOMEM : HP_EUNAVAILABLE;
    call->state = CLIENT_OPEN;
    call->session = s;
    call->stream_id = id;
    TAILQ_INSERT_TAIL(&s->calls, call, link);
    s->call_count++;
    if (call->cancelled)
        put_off(call);
    return 0;
}

static void detach(struct hp_client_call *call)
{
    struct hp_grpc_client *s = call->session;
    if (!s)
        return;
    nghttp2_session_set_stream_user_data(s->h2, call->stream_id, NULL);
    if (call->pending)
        TAILQ_REMOVE(&s->pending, call, pending_link);
    TAILQ_REMOVE(&s->calls, call, link);
    assert(s->call_count > 0);
    s->call_count--;
    call->session = NULL;
}

static void end(struct hp_client_call *call, Google__Rpc__Status *status)
{
    detach(call);
    call->cancelled = true; /* on_finish may not use the call any more; this makes misuse harmless */
    call->options.events->on_finish(call, status, call->options.user);
    hp_status_free(status);
    hp_message_reader_done(&call->reader);
    hp_bytes_done(&call->output);
    hp_status_free(call->status);
    free(call->message);
    free((char *)call->options.path);
    free(call);
}

void client_call_end(struct hp_client_call *call, Google__Rpc__Status *status)
{
    struct hp_grpc_client *s = call->session;
    if (s) {
        int rc = nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
        if (rc)
            client_fatal(s, rc);
        client_wake(s);
    }
    end(call, status);
}

/* What the response said, or what can be concluded from how it ended. */
static Google__Rpc__Status *conclude(struct hp_client_call *call, uint32_t error_code)
{
    if (call->cancelled)
        return hp_status_new(HP_CODE_CANCELLED, NULL, "the call was cancelled");
    if (call->grpc_status >= 0) {
        Google__Rpc__Status *s = call->status;
        call->status = NULL;
        if (s && s->code == call->grpc_status)
            return s;
        hp_status_free(s);
        return hp_status_new(call->grpc_status, NULL, "%s", call->message ? call->message : "");
    }
    if (call->http_status && call->http_status != 200)
        return hp_status_new(hp_grpc_code_from_http(call->http_status), NULL, "the server answered with HTTP status %d",
                             call->http_status);
    if (error_code != NGHTTP2_NO_ERROR)
        return hp_status_new(hp_grpc_code_from_h2(error_code), NULL, "the stream was reset: %s",
                             nghttp2_http2_strerror(error_code));
    return hp_status_new(HP_CODE_INTERNAL, NULL, "the response ended without grpc-status");
}

void client_call_closed(struct hp_client_call *call, uint32_t error_code)
{
    end(call, conclude(call, error_code));
}

void client_call_answered(struct hp_client_call *call)
{
    client_call_end(call, conclude(call, NGHTTP2_NO_ERROR));
}

/* ---- the response ---- */

static bool equals(const uint8_t *text, size_t len, const char *want)
{
    return len == strlen(want) && memcmp(text, want, len) == 0;
}

static void read_details(struct hp_client_call *call, const char *text, size_t len)
{
    uint8_t *packed = malloc(len / 4 * 3 + 3);
    size_t n;
    if (!packed || call->status) {
        free(packed);
        return;
    }
    if (hp_b64_decode(packed, &n, text, len) == 0)
        call->status = hp_status_unpack(packed, n);
    free(packed);
}

void client_call_header(struct hp_client_call *call, const uint8_t *name, size_t name_len, const uint8_t *value,
                        size_t value_len)
{
    const char *text = (const char *)value;
    if (++call->header_count > HP_CLIENT_HEADERS_MAX)
        return;
    if (equals(name, name_len, ":status")) {
        call->http_status = hp_grpc_parse_number(text, value_len, 999);
    } else if (equals(name, name_len, "content-type")) {
        call->content_type_ok = hp_grpc_content_type(text, value_len);
    } else if (equals(name, name_len, "grpc-status")) {
        int code = hp_grpc_parse_number(text, value_len, 1000000);
        call->grpc_status = code < 0 ? HP_CODE_UNKNOWN : code;
    } else if (equals(name, name_len, "grpc-message") && !call->message) {
        call->message = hp_grpc_message_decode(text, value_len);
    } else if (equals(name, name_len, "grpc-status-details-bin")) {
        read_details(call, text, value_len);
    }
}

/* Returns a status when the message cannot be used. */
static Google__Rpc__Status *on_response(struct hp_client_call *call, const struct hp_message *message)
{
    if (message->flags != 0)
        return hp_status_new(HP_CODE_INTERNAL, NULL, "message flags are 0x%02x without an encoding", message->flags);
    struct hp_error e = {0};
    const struct hp_unpack_limits limits = {.bytes_max = call->options.message_max,
                                            .memory_max = 64 * call->options.message_max};
    ProtobufCMessage *response;
    int rc = hp_unpack(call->options.response, message->body, message->len, &limits, &response, &e);
    if (rc)
        return hp_status_new(rc == HP_ELIMIT ? HP_CODE_RESOURCE_EXHAUSTED : HP_CODE_INTERNAL, NULL, "response: %s",
                             e.message);
    call->options.events->on_message(call, response, call->options.user);
    hp_unpacked_free(response);
    return NULL;
}

void client_call_data(struct hp_client_call *call, const uint8_t *data, size_t len)
{
    if (call->http_status != 200 || !call->content_type_ok)
        return; /* somebody else's error page */
    while (len > 0 && !call->cancelled) {
        struct hp_message message;
        struct hp_error e = {0};
        size_t used;
        int rc = hp_message_read(&call->reader, data, len, &used, &message, &e);
        data += used;
        len -= used;
        Google__Rpc__Status *bad = NULL;
        if (rc < 0)
            bad = hp_status_new(HP_CODE_RESOURCE_EXHAUSTED, NULL, "response: %s", e.message);
        else if (rc > 0)
            bad = on_response(call, &message);
        if (bad) {
            client_call_end(call, bad);
            return;
        }
    }
}

void client_call_work(struct hp_client_call *call)
{
    if (call->cancelled) {
        client_call_end(call, hp_status_new(HP_CODE_CANCELLED, NULL, "the call was cancelled"));
        return;
    }
    if (call->output_full && call->output.len < HP_CLIENT_OUTPUT_HIGH_BYTES / 2) {
        call->output_full = false;
        if (call->options.events->on_writable)
            call->options.events->on_writable(call, call->options.user);
    }
}
