#include "grpc/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"

enum {
    STATUS_MESSAGE_MAX = 4096, /* bytes of Status.message */
    STATUS_DETAILS_MAX = 32,   /* details in one status */
    STATUS_VIOLATIONS_MAX =
        100, /* entries of one BadRequest, QuotaFailure…, or of ErrorInfo.metadata: more are left out */
    STATUS_BYTES_MAX = 1 << 16, /* of a packed status from a peer */
};

#define TYPE_PREFIX "type.googleapis.com/"

struct code_row {
    const char *name;
    const char *connect;
    int http; /* https://connectrpc.com/docs/protocol#error-codes */
};
static const struct code_row codes[] = {
    {"OK", "ok", 200},
    {"CANCELLED", "canceled", 499},
    {"UNKNOWN", "unknown", 500},
    {"INVALID_ARGUMENT", "invalid_argument", 400},
    {"DEADLINE_EXCEEDED", "deadline_exceeded", 504},
    {"NOT_FOUND", "not_found", 404},
    {"ALREADY_EXISTS", "already_exists", 409},
    {"PERMISSION_DENIED", "permission_denied", 403},
    {"RESOURCE_EXHAUSTED", "resource_exhausted", 429},
    {"FAILED_PRECONDITION", "failed_precondition", 400},
    {"ABORTED", "aborted", 409},
    {"OUT_OF_RANGE", "out_of_range", 400},
    {"UNIMPLEMENTED", "unimplemented", 501},
    {"INTERNAL", "internal", 500},
    {"UNAVAILABLE", "unavailable", 503},
    {"DATA_LOSS", "data_loss", 500},
    {"UNAUTHENTICATED", "unauthenticated", 401},
};

static const struct code_row *row(int code)
{
    if (code < 0 || code >= (int)(sizeof codes / sizeof codes[0]))
        return &codes[HP_CODE_UNKNOWN];
    return &codes[code];
}

const char *hp_code_name(int code)
{
    return row(code)->name;
}

const char *hp_code_connect_name(int code)
{
    return row(code)->connect;
}

int hp_code_http_status(int code)
{
    return row(code)->http;
}

static char oom_text[] = "out of memory";
static Google__Rpc__Status oom;

/* The status that needs no memory. Written on first use and whenever asked for: the same bytes, so threads cannot disagree. */
static Google__Rpc__Status *out_of_memory(void)
{
    static bool ready;
    if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) {
        google__rpc__status__init(&oom);
        oom.code = HP_CODE_RESOURCE_EXHAUSTED;
        oom.message = oom_text;
        __atomic_store_n(&ready, true, __ATOMIC_RELEASE);
    }
    return &oom;
}

void hp_status_free(Google__Rpc__Status *s)
{
    if (s && s != &oom)
        google__rpc__status__free_unpacked(s, NULL);
}

static Google__Rpc__Status *give_up(Google__Rpc__Status *s)
{
    hp_status_free(s);
    return out_of_memory();
}

static bool passes(const Google__Rpc__Status *s)
{
    return !s || s == &oom;
}

/* Length of the well-formed UTF-8 character without NUL at `p`, at most `left` bytes; 0 when there is none (RFC 3629). */
static size_t utf8_char(const unsigned char *p, size_t left)
{
    if (left == 0 || p[0] == 0) // NOLINT(clang-analyzer-core.UndefinedBinaryOperatorResult): strdup filled it
        return 0;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xF0 ? 4 : p[0] >= 0xE0 ? 3 : 2;
    if (p[0] < 0xC2 || p[0] > 0xF4 || left < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return n;
}

/* Replaces what is not UTF-8, so that every status can be packed; cuts between characters at `max` bytes. */
static void make_utf8(char *text, size_t max)
{
    unsigned char *p = (unsigned char *)text;
    size_t len = strlen(text), i = 0;
    while (i < len) {
        size_t n = utf8_char(p + i, len - i);
        if (n == 0) {
            p[i] = '?';
            n = 1;
        }
        if (i + n > max)
            break;
        i += n;
    }
    text[i] = '\0';
}

static char *copy_text(const char *text)
{
    char *copy = strdup(text ? text : "");
    if (copy)
        make_utf8(copy, STATUS_MESSAGE_MAX);
    return copy;
}

/* Packs `m` into `any`, whose value it replaces. False when out of memory. */
static bool any_pack(Google__Protobuf__Any *any, const ProtobufCMessage *m)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    uint8_t *data = malloc(len ? len : 1);
    if (!data)
        return false;
    protobuf_c_message_pack(m, data);
    free(any->value.data);
    any->value.data = data;
    any->value.len = len;
    return true;
}

static bool any_is(const Google__Protobuf__Any *any, const ProtobufCMessageDescriptor *d)
{
    const char *slash = any->type_url ? strrchr(any->type_url, '/') : NULL;
    return slash && strcmp(slash + 1, d->name) == 0;
}

static Google__Protobuf__Any *find_detail(const Google__Rpc__Status *s, const ProtobufCMessageDescriptor *d)
{
    for (size_t i = 0; s && i < s->n_details; i++)
        if (any_is(s->details[i], d))
            return s->details[i];
    return NULL;
}

/* Appends an empty Any of this type; NULL when out of memory or full. */
static Google__Protobuf__Any *append_detail(Google__Rpc__Status *s, const ProtobufCMessageDescriptor *d)
{
    if (s->n_details >= STATUS_DETAILS_MAX)
        return NULL;
    Google__Protobuf__Any **grown = realloc(s->details, (s->n_details + 1) * sizeof(Google__Protobuf__Any *));
    if (!grown)
        return NULL;
    s->details = grown;
    Google__Protobuf__Any *any = malloc(sizeof *any);
    if (!any)
        return NULL;
    google__protobuf__any__init(any);
    size_t size = sizeof TYPE_PREFIX + strlen(d->name);
    any->type_url = malloc(size);
    if (!any->type_url) {
        free(any);
        return NULL;
    }
    snprintf(any->type_url, size, "%s%s", TYPE_PREFIX, d->name);
    s->details[s->n_details++] = any;
    return any;
}

/* Unpacks the first detail of the type, or makes an empty message. NULL when out of memory. */
static ProtobufCMessage *open_detail(const Google__Rpc__Status *s, const ProtobufCMessageDescriptor *d)
{
    const Google__Protobuf__Any *any = find_detail(s, d);
    if (any)
        return protobuf_c_message_unpack(d, NULL, any->value.len, any->value.data);
    return protobuf_c_message_unpack(d, NULL, 0, NULL);
}

/* Puts `m` back into the status and frees it. */
static Google__Rpc__Status *close_detail(Google__Rpc__Status *s, ProtobufCMessage *m)
{
    Google__Protobuf__Any *any = find_detail(s, m->descriptor);
    if (!any)
        any = append_detail(s, m->descriptor);
    bool done = any && any_pack(any, m);
    protobuf_c_message_free_unpacked(m, NULL);
    return done ? s : give_up(s);
}

/* Appends an unpacked message of type `d` to the repeated field (*list, *n). NULL when out of memory. */
static ProtobufCMessage *append_entry(void *list_pointer, size_t *n, const ProtobufCMessageDescriptor *d)
{
    void ***list = list_pointer;
    void **grown = realloc(*list, (*n + 1) * sizeof(void *));
    if (!grown)
        return NULL;
    *list = grown;
    ProtobufCMessage *entry = protobuf_c_message_unpack(d, NULL, 0, NULL);
    if (entry)
        grown[(*n)++] = entry;
    return entry;
}

static bool set_text(char **field, const char *text)
{
    char *copy = copy_text(text);
    if (!copy)
        return false;
    *field = copy; /* was protobuf-c's shared empty string */
    return true;
}

static Google__Rpc__Status *abandon(Google__Rpc__Status *s, ProtobufCMessage *m)
{
    protobuf_c_message_free_unpacked(m, NULL);
    return give_up(s);
}

Google__Rpc__Status *hp_status_new(int code, const char *reason, const char *fmt, ...)
{
    Google__Rpc__Status *s = malloc(sizeof *s);
    if (!s)
        return out_of_memory();
    google__rpc__status__init(s);
    s->code = code;
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return give_up(s);
    make_utf8(text, STATUS_MESSAGE_MAX);
    s->message = text;
    if (!reason)
        return s;
    ProtobufCMessage *m = open_detail(s, &google__rpc__error_info__descriptor);
    if (!m)
        return give_up(s);
    Google__Rpc__ErrorInfo *info = (Google__Rpc__ErrorInfo *)m;
    if (!set_text(&info->reason, reason) || !set_text(&info->domain, "harpoon"))
        return abandon(s, m);
    return close_detail(s, m);
}

Google__Rpc__Status *hp_status_add_metadata(Google__Rpc__Status *s, const char *key, const char *value)
{
    if (passes(s))
        return s;
    ProtobufCMessage *m = open_detail(s, &google__rpc__error_info__descriptor);
    if (!m)
        return give_up(s);
    Google__Rpc__ErrorInfo *info = (Google__Rpc__ErrorInfo *)m;
    if (info->n_metadata >= STATUS_VIOLATIONS_MAX)
        return close_detail(s, m);
    Google__Rpc__ErrorInfo__MetadataEntry *entry = (Google__Rpc__ErrorInfo__MetadataEntry *)append_entry(
        &info->metadata, &info->n_metadata, &google__rpc__error_info__metadata_entry__descriptor);
    if (!entry || !set_text(&entry->key, key) || !set_text(&entry->value, value))
        return abandon(s, m);
    return close_detail(s, m);
}

Google__Rpc__Status *hp_status_add_retry(Google__Rpc__Status *s, uint32_t delay_ms)
{
    if (passes(s))
        return s;
    Google__Protobuf__Any *any = find_detail(s, &google__rpc__retry_info__descriptor);
    if (!any)
        any = append_detail(s, &google__rpc__retry_info__descriptor);
    if (!any)
        return give_up(s);
    Google__Protobuf__Duration delay = GOOGLE__PROTOBUF__DURATION__INIT;
    delay.seconds = delay_ms / 1000;
    delay.nanos = (int32_t)(delay_ms % 1000) * 1000000;
    Google__Rpc__RetryInfo retry = GOOGLE__RPC__RETRY_INFO__INIT;
    retry.retry_delay = &delay;
    return any_pack(any, &retry.base) ? s : give_up(s);
}

Google__Rpc__Status *hp_status_add_field(Google__Rpc__Status *s, const char *field, const char *description)
{
    if (passes(s))
        return s;
    ProtobufCMessage *m = open_detail(s, &google__rpc__bad_request__descriptor);
    if (!m)
        return give_up(s);
    Google__Rpc__BadRequest *bad = (Google__Rpc__BadRequest *)m;
    if (bad->n_field_violations >= STATUS_VIOLATIONS_MAX)
        return close_detail(s, m);
    Google__Rpc__BadRequest__FieldViolation *v = (Google__Rpc__BadRequest__FieldViolation *)append_entry(
        &bad->field_violations, &bad->n_field_violations, &google__rpc__bad_request__field_violation__descriptor);
    if (!v || !set_text(&v->field, field) || !set_text(&v->description, description))
        return abandon(s, m);
    return close_detail(s, m);
}

Google__Rpc__Status *hp_status_add_precondition(Google__Rpc__Status *s, const char *type, const char *subject,
                                                const char *description)
{
    if (passes(s))
        return s;
    ProtobufCMessage *m = open_detail(s, &google__rpc__precondition_failure__descriptor);
    if (!m)
        return give_up(s);
    Google__Rpc__PreconditionFailure *failure = (Google__Rpc__PreconditionFailure *)m;
    if (failure->n_violations >= STATUS_VIOLATIONS_MAX)
        return close_detail(s, m);
    Google__Rpc__PreconditionFailure__Violation *v = (Google__Rpc__PreconditionFailure__Violation *)append_entry(
        &failure->violations, &failure->n_violations, &google__rpc__precondition_failure__violation__descriptor);
    if (!v || !set_text(&v->type, type) || !set_text(&v->subject, subject) || !set_text(&v->description, description))
        return abandon(s, m);
    return close_detail(s, m);
}

Google__Rpc__Status *hp_status_add_quota(Google__Rpc__Status *s, const char *subject, const char *description)
{
    if (passes(s))
        return s;
    ProtobufCMessage *m = open_detail(s, &google__rpc__quota_failure__descriptor);
    if (!m)
        return give_up(s);
    Google__Rpc__QuotaFailure *failure = (Google__Rpc__QuotaFailure *)m;
    if (failure->n_violations >= STATUS_VIOLATIONS_MAX)
        return close_detail(s, m);
    Google__Rpc__QuotaFailure__Violation *v = (Google__Rpc__QuotaFailure__Violation *)append_entry(
        &failure->violations, &failure->n_violations, &google__rpc__quota_failure__violation__descriptor);
    if (!v || !set_text(&v->subject, subject) || !set_text(&v->description, description))
        return abandon(s, m);
    return close_detail(s, m);
}

void hp_status_reason(const Google__Rpc__Status *s, char *buf, size_t size)
{
    if (size == 0)
        return;
    buf[0] = '\0';
    const Google__Protobuf__Any *any = find_detail(s, &google__rpc__error_info__descriptor);
    if (!any)
        return;
    Google__Rpc__ErrorInfo *info = google__rpc__error_info__unpack(NULL, any->value.len, any->value.data);
    if (!info)
        return;
    snprintf(buf, size, "%s", info->reason);
    google__rpc__error_info__free_unpacked(info, NULL);
}

Google__Rpc__Status *hp_status_unpack(const void *data, size_t len)
{
    /* Status and Any are not recursive, so that protobuf-c's stack use is bounded here. */
    if (len > STATUS_BYTES_MAX)
        return NULL;
    Google__Rpc__Status *s = google__rpc__status__unpack(NULL, len, data);
    if (s && s->message[0]) /* an empty one is protobuf-c's shared constant */
        make_utf8(s->message, STATUS_MESSAGE_MAX);
    return s;
}

Google__Rpc__Status *hp_status_clone(const Google__Rpc__Status *s)
{
    if (passes(s))
        return (Google__Rpc__Status *)s;
    size_t len = google__rpc__status__get_packed_size(s);
    uint8_t *data = malloc(len ? len : 1);
    if (!data)
        return out_of_memory();
    google__rpc__status__pack(s, data);
    Google__Rpc__Status *copy = google__rpc__status__unpack(NULL, len, data);
    free(data);
    return copy ? copy : out_of_memory();
}

char *hp_grpc_message_encode(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    const unsigned char *p = (const unsigned char *)(text ? text : "");
    size_t len = strlen((const char *)p), used = 0;
    char *out = malloc(3 * (len < HP_GRPC_MESSAGE_MAX ? len : (size_t)HP_GRPC_MESSAGE_MAX) + 1), *o = out;
    if (!out)
        return NULL;
    while (used < len) {
        size_t n = utf8_char(p + used, len - used);
        if (n == 0)
            n = 1;
        if (used + n > HP_GRPC_MESSAGE_MAX)
            break;
        for (size_t end = used + n; used < end; used++) {
            unsigned char c = p[used];
            if (c >= 0x20 && c <= 0x7E && c != '%') {
                *o++ = (char)c;
            } else {
                *o++ = '%';
                *o++ = hex[c >> 4];
                *o++ = hex[c & 15];
            }
        }
    }
    *o = '\0';
    return out;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

char *hp_grpc_message_decode(const char *text, size_t len)
{
    char *out = malloc(len + 1), *o = out;
    if (!out)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%' && i + 2 < len && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            c = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        }
        *o++ = c ? c : '?';
    }
    *o = '\0';
    make_utf8(out, len);
    return out;
}
