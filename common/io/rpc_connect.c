/* The Connect protocol's texts: content types, envelopes, errors (https://connectrpc.com/docs/protocol). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/loop.h"
#include "io/rpc_http_impl.h"
#include "wire/b64.h"
#include "wire/codec.h"
#include "wire/json.h"

enum { TIMEOUT_DIGITS_MAX = 10 };

static const char *header(const struct http_call *c, const char *name)
{
    return MHD_lookup_connection_value(c->connection, MHD_HEADER_KIND, name);
}

void connect_parse_content_type(struct http_call *c, const char *text)
{
    static const struct {
        const char *type;
        enum connect_codec codec;
        bool streaming;
    } types[] = {
        {"application/json", CONNECT_JSON, false},
        {"application/proto", CONNECT_PROTO, false},
        {"application/connect+json", CONNECT_JSON, true},
        {"application/connect+proto", CONNECT_PROTO, true},
    };
    size_t len = text ? strcspn(text, "; \t") : 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strlen(types[i].type) == len && strncasecmp(text, types[i].type, len) == 0) {
            c->codec = types[i].codec;
            c->streaming = types[i].streaming;
        }
    }
}

const char *connect_response_type(const struct http_call *c)
{
    if (c->streaming)
        return c->codec == CONNECT_JSON ? "application/connect+json" : "application/connect+proto";
    return c->codec == CONNECT_JSON || c->status ? "application/json" : "application/proto";
}

static bool parse_timeout(const char *text, uint64_t *ret_ms)
{
    size_t len = strlen(text);
    if (len == 0 || len > TIMEOUT_DIGITS_MAX || strspn(text, "0123456789") != len)
        return false;
    *ret_ms = strtoull(text, NULL, 10);
    return true;
}

static bool is_identity(const char *encoding)
{
    return !encoding || encoding[0] == '\0' || strcmp(encoding, "identity") == 0;
}

Google__Rpc__Status *connect_check_headers(struct http_call *c)
{
    const char *version = header(c, "Connect-Protocol-Version");
    if (version && strcmp(version, "1") != 0)
        return hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_PROTOCOL_VERSION",
                             "connect-protocol-version is \"%s\"; this server speaks 1", version);
    const char *encoding = header(c, c->streaming ? "Connect-Content-Encoding" : "Content-Encoding");
    if (!is_identity(encoding))
        return hp_status_new(HP_CODE_UNIMPLEMENTED, "UNSUPPORTED_ENCODING",
                             "compressed requests are not supported: the encoding may be identity, not \"%s\"",
                             encoding);
    const char *timeout = header(c, "Connect-Timeout-Ms");
    uint64_t ms;
    if (timeout && !parse_timeout(timeout, &ms))
        return hp_status_new(HP_CODE_INVALID_ARGUMENT, "BAD_TIMEOUT",
                             "connect-timeout-ms is \"%s\", not at most %d digits", timeout, TIMEOUT_DIGITS_MAX);
    if (timeout)
        c->deadline_ms = hp_now_ms() + ms;
    return NULL;
}

/* The one enveloped message of a server-streaming request. */
static int open_envelope(struct http_call *c, const uint8_t **ret, size_t *ret_len, struct hp_error *e)
{
    struct hp_message_reader reader;
    struct hp_message message;
    size_t used;
    hp_message_reader_init(&reader, c->http->limits.message_max, NULL);
    int rc = hp_message_read(&reader, hp_bytes_head(&c->body), c->body.len, &used, &message, e);
    hp_message_reader_done(&reader); /* the body is in one piece: the message points into it */
    if (rc < 0)
        return rc;
    if (rc == 0)
        return hp_fail(e, HP_EINVAL, "the request's envelope is cut short");
    if (message.flags != 0)
        return hp_fail(e, HP_EINVAL, "the request's envelope has flags 0x%02x; compression is not supported",
                       message.flags);
    if (used != c->body.len)
        return hp_fail(e, HP_EINVAL, "more than one request message");
    *ret = message.body;
    *ret_len = message.len;
    return 0;
}

int connect_unpack(struct http_call *c, ProtobufCMessage **ret, struct hp_error *e)
{
    const ProtobufCMessageDescriptor *d = c->base.entry->method->request;
    const uint8_t *data = hp_bytes_head(&c->body);
    size_t len = c->body.len;
    if (c->streaming) {
        int rc = open_envelope(c, &data, &len, e);
        if (rc)
            return rc;
    }
    if (c->codec == CONNECT_JSON)
        return hp_json_parse_message(data ? (const char *)data : "", len, d, ret, e);
    const struct hp_unpack_limits limits = {.bytes_max = c->http->limits.message_max};
    return hp_unpack(d, data ? data : (const uint8_t *)"", len, &limits, ret, e);
}

void connect_request_free(struct http_call *c, ProtobufCMessage *request)
{
    if (c->codec == CONNECT_JSON)
        protobuf_c_message_free_unpacked(request, NULL);
    else
        hp_unpacked_free(request);
}

static int write_json(struct http_call *c, const ProtobufCMessage *response)
{
    struct hp_error e = {0};
    size_t max = c->http->limits.call_buffer_max;
    char *text = hp_json_print_message(response, JSON_COMPACT, &e);
    if (!text)
        return HP_ENOMEM;
    size_t len = strlen(text);
    int rc = 0;
    if (c->streaming)
        rc = hp_message_write_raw(&c->output, 0, text, len, max);
    else if (len > max)
        rc = HP_ELIMIT;
    else if (!hp_bytes_append(&c->output, text, len))
        rc = HP_ENOMEM;
    free(text);
    return rc;
}

static int write_proto(struct http_call *c, const ProtobufCMessage *response)
{
    size_t max = c->http->limits.call_buffer_max;
    if (c->streaming)
        return hp_message_write(&c->output, 0, response, max);
    size_t len = protobuf_c_message_get_packed_size(response);
    if (len > max)
        return HP_ELIMIT;
    uint8_t *to = hp_bytes_reserve(&c->output, len);
    if (!to && len > 0)
        return HP_ENOMEM;
    hp_bytes_commit(&c->output, len > 0 ? protobuf_c_message_pack(response, to) : 0);
    return 0;
}

int connect_write(struct http_call *c, const ProtobufCMessage *response)
{
    return c->codec == CONNECT_JSON ? write_json(c, response) : write_proto(c, response);
}

/* ---- errors ---- */

/* "debug" is the detail as JSON, when its type is known here. */
static void add_debug(json_t *to, const Google__Protobuf__Any *any)
{
    struct hp_error e = {0};
    json_t *debug = hp_json_from_message(&any->base, &e);
    if (debug && json_object_get(debug, "@type") && !json_object_get(debug, "value")) {
        json_object_del(debug, "@type");
        json_object_set(to, "debug", debug);
    }
    json_decref(debug);
}

static json_t *detail_json(const Google__Protobuf__Any *any)
{
    char *value = malloc(hp_b64_len(any->value.len) + 1);
    if (!value)
        return NULL;
    hp_b64_encode(value, any->value.data, any->value.len);
    value[strcspn(value, "=")] = '\0'; /* Connect wants no padding */
    const char *slash = strrchr(any->type_url, '/');
    json_t *j = json_pack("{s:s, s:s}", "type", slash ? slash + 1 : any->type_url, "value", value);
    free(value);
    if (j)
        add_debug(j, any);
    return j;
}

static json_t *error_object(const Google__Rpc__Status *status)
{
    json_t *details = status->n_details > 0 ? json_array() : NULL;
    for (size_t i = 0; details && i < status->n_details; i++)
        json_array_append_new(details, detail_json(status->details[i]));
    return json_pack("{s:s, s:s, s:o*}", "code", hp_code_connect_name(status->code), "message", status->message,
                     "details", details);
}

char *connect_error_json(const Google__Rpc__Status *status)
{
    json_t *j = error_object(status);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    return text;
}

int connect_write_end(struct http_call *c)
{
    char *text = NULL;
    if (c->status) {
        json_t *j = json_pack("{s:o}", "error", error_object(c->status));
        text = j ? json_dumps(j, JSON_COMPACT) : NULL;
        json_decref(j);
        if (!text)
            return HP_ENOMEM;
    }
    const char *body = text ? text : "{}";
    int rc = hp_message_write_raw(&c->output, CONNECT_END_STREAM, body, strlen(body), SIZE_MAX);
    free(text);
    return rc;
}
