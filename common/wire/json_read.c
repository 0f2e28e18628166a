/* JSON to messages, by descriptor. Errors carry the path of the field as the reader wrote it. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "wire/b64.h"
#include "wire/codec.h"
#include "wire/json.h"
#include "wire/json_common.h"
#include "wire/timetext.h"

/* A member of an object, or an element of an array; linked outward. */
struct path {
    const struct path *outer;
    const char *member; /* NULL: `index` counts */
    size_t index;
    int depth; /* of messages */
};

static int read_message(const json_t *j, const ProtobufCMessageDescriptor *d, const struct path *at,
                        ProtobufCMessage **ret, struct hp_error *e);

static size_t path_print(const struct path *p, char *out, size_t size)
{
    size_t n = p->outer ? path_print(p->outer, out, size) : 0;
    int added;
    if (!p->outer)
        added = 0;
    else if (p->member)
        added = snprintf(out + n, size - n, "%s%s", n ? "." : "", p->member);
    else
        added = snprintf(out + n, size - n, "[%zu]", p->index);
    n += (size_t)added;
    return n < size ? n : size - 1;
}

static int fail_at(const struct path *at, struct hp_error *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int fail_at(const struct path *at, struct hp_error *e, const char *fmt, ...)
{
    char where[512] = "", what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    size_t n = path_print(at, where, sizeof where);
    return hp_fail(e, HP_EINVAL, "%s: %s", n ? where : "message", what);
}

/* ---- Scalars ---- */

/* Whole numbers are written as numbers, numbers without a fraction ("1e3", 5.0), or strings of either. */
static int read_real(const json_t *j, const struct path *at, double *ret, struct hp_error *e)
{
    if (json_is_number(j)) {
        *ret = json_number_value(j);
        return 0;
    }
    const char *text = json_string_value(j);
    char *end;
    if (!text || !*text || strspn(text, "+-.0123456789eEINafinty") != strlen(text))
        return fail_at(at, e, "must be a number");
    if (strcmp(text, "NaN") == 0)
        *ret = (double)NAN;
    else if (strcmp(text, "Infinity") == 0 || strcmp(text, "-Infinity") == 0)
        *ret = text[0] == '-' ? -(double)INFINITY : (double)INFINITY;
    else if (!strpbrk(text, "IN") && (*ret = strtod(text, &end), !*end))
        return 0;
    else
        return fail_at(at, e, "must be a number");
    return 0;
}

static int read_signed(const json_t *j, const struct path *at, int64_t min, int64_t max, int64_t *ret,
                       struct hp_error *e)
{
    int64_t n;
    const char *text = json_string_value(j);
    if (json_is_integer(j)) {
        n = json_integer_value(j);
    } else if (text && *text && strspn(text, "-0123456789") == strlen(text)) {
        char *end;
        errno = 0;
        n = strtoll(text, &end, 10);
        if (*end || errno)
            return fail_at(at, e, "\"%.32s\" is not an integer from %lld to %lld", text, (long long)min,
                           (long long)max);
    } else {
        double x = 0;
        int rc = read_real(j, at, &x, e);
        if (rc < 0)
            return rc;
        if (!(x >= -0x1p63 && x < 0x1p63) || x != trunc(x))
            return fail_at(at, e, "%g is not an integer from %lld to %lld", x, (long long)min, (long long)max);
        n = (int64_t)x;
    }
    if (n < min || n > max)
        return fail_at(at, e, "%lld is not an integer from %lld to %lld", (long long)n, (long long)min, (long long)max);
    *ret = n;
    return 0;
}

static int read_unsigned(const json_t *j, const struct path *at, uint64_t max, uint64_t *ret, struct hp_error *e)
{
    const char *text = json_string_value(j);
    uint64_t n = 0;
    if (text && *text && strspn(text, "0123456789") == strlen(text)) {
        errno = 0;
        n = strtoull(text, NULL, 10);
        if (errno)
            return fail_at(at, e, "\"%.32s\" is not an integer from 0 to %llu", text, (unsigned long long)max);
    } else {
        int64_t value = 0;
        int rc = read_signed(j, at, 0, INT64_MAX, &value, e);
        if (rc < 0)
            return rc;
        n = (uint64_t)value;
    }
    if (n > max)
        return fail_at(at, e, "%llu is not an integer from 0 to %llu", (unsigned long long)n, (unsigned long long)max);
    *ret = n;
    return 0;
}

static int read_enum(const json_t *j, const ProtobufCEnumDescriptor *d, const struct path *at, int *ret,
                     struct hp_error *e)
{
    const char *name = json_string_value(j);
    if (name) {
        const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value_by_name(d, name);
        if (!v)
            return fail_at(at, e, "\"%.64s\" is not a value of %s", name, d->name);
        *ret = v->value;
        return 0;
    }
    int64_t n = 0;
    int rc = read_signed(j, at, INT32_MIN, INT32_MAX, &n, e);
    if (rc == 0)
        *ret = (int)n;
    return rc;
}

static int read_string(const json_t *j, const struct path *at, char **ret, struct hp_error *e)
{
    const char *text = json_string_value(j);
    if (!text)
        return fail_at(at, e, "must be a string");
    if (strlen(text) != json_string_length(j))
        return fail_at(at, e, "contains a NUL character");
    if (!(*ret = strdup(text)))
        return hp_fail(e, HP_ENOMEM, "a string");
    return 0;
}

static int read_bytes(const json_t *j, const struct path *at, ProtobufCBinaryData *ret, struct hp_error *e)
{
    const char *text = json_string_value(j);
    if (!text)
        return fail_at(at, e, "must be a string in base64");
    size_t len = json_string_length(j), n;
    uint8_t *data = malloc(len / 4 * 3 + 3);
    if (!data)
        return hp_fail(e, HP_ENOMEM, "%zu bytes", len);
    if (hp_b64_decode(data, &n, text, len) < 0) {
        free(data);
        return fail_at(at, e, "is not base64");
    }
    *ret = (ProtobufCBinaryData){n, data};
    return 0;
}

static int read_floating(const json_t *j, ProtobufCType type, const struct path *at, void *to, struct hp_error *e)
{
    double x = 0;
    int rc = read_real(j, at, &x, e);
    if (rc < 0)
        return rc;
    if (type == PROTOBUF_C_TYPE_DOUBLE)
        *(double *)to = x;
    else if (isfinite(x) && fabs(x) > 0x1.fffffep127)
        return fail_at(at, e, "%g is out of range", x);
    else
        *(float *)to = (float)x;
    return 0;
}

static int read_integer(const json_t *j, ProtobufCType type, const struct path *at, void *to, struct hp_error *e)
{
    int64_t n = 0;
    uint64_t u = 0;
    int rc;
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        if ((rc = read_unsigned(j, at, UINT32_MAX, &u, e)) == 0)
            *(uint32_t *)to = (uint32_t)u;
        return rc;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        if ((rc = read_unsigned(j, at, UINT64_MAX, &u, e)) == 0)
            *(uint64_t *)to = u;
        return rc;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        if ((rc = read_signed(j, at, INT32_MIN, INT32_MAX, &n, e)) == 0)
            *(int32_t *)to = (int32_t)n;
        return rc;
    default:
        if ((rc = read_signed(j, at, INT64_MIN, INT64_MAX, &n, e)) == 0)
            *(int64_t *)to = n;
        return rc;
    }
}

static int read_value(const json_t *j, const ProtobufCFieldDescriptor *f, const struct path *at, void *to,
                      struct hp_error *e)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_BOOL:
        if (!json_is_boolean(j))
            return fail_at(at, e, "must be true or false");
        *(protobuf_c_boolean *)to = json_is_true(j);
        return 0;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(j, f->descriptor, at, to, e);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(j, at, to, e);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(j, at, to, e);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_message(j, f->descriptor, at, to, e);
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_floating(j, f->type, at, to, e);
    default:
        return read_integer(j, f->type, at, to, e);
    }
}

/* ---- Messages ---- */

static int new_message(const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret, struct hp_error *e)
{
    ProtobufCMessage *m = malloc(d->sizeof_message);
    if (!m)
        return hp_fail(e, HP_ENOMEM, "%s", d->name);
    protobuf_c_message_init(d, m);
    *ret = m;
    return 0;
}

/* The array of a repeated field, zeroed; the count grows as elements are read, so that a failure frees only what is there. */
static int new_array(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t count, char **ret,
                     struct hp_error *e)
{
    char *items = calloc(count, hp_json_element_size(f->type));
    if (!items)
        return hp_fail(e, HP_ENOMEM, "%zu elements", count);
    *(char **)hp_json_member(m, f->offset) = items;
    *ret = items;
    return 0;
}

static int read_array(const json_t *j, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct path *at,
                      struct hp_error *e)
{
    if (!json_is_array(j))
        return fail_at(at, e, "must be an array");
    size_t count = json_array_size(j), size = hp_json_element_size(f->type);
    size_t *have = hp_json_member(m, f->quantifier_offset);
    char *items = NULL;
    if (count == 0)
        return 0;
    int rc = new_array(m, f, count, &items, e);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct path inner = {at, NULL, i, at->depth};
        rc = read_value(json_array_get(j, i), f, &inner, items + i * size, e);
        if (rc == 0)
            *have = i + 1;
    }
    return rc;
}

static int read_map_key(const char *key, const ProtobufCFieldDescriptor *f, const struct path *at, void *to,
                        struct hp_error *e)
{
    json_t *j;
    if (f->type != PROTOBUF_C_TYPE_BOOL)
        j = json_string_nocheck(key);
    else if (strcmp(key, "true") == 0 || strcmp(key, "false") == 0)
        j = json_boolean(key[0] == 't');
    else
        return fail_at(at, e, "the key must be true or false");
    int rc = j ? read_value(j, f, at, to, e) : hp_fail(e, HP_ENOMEM, "a key");
    json_decref(j);
    return rc;
}

static int read_map(const json_t *j, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct path *at,
                    struct hp_error *e)
{
    if (!json_is_object(j))
        return fail_at(at, e, "must be an object");
    size_t *have = hp_json_member(m, f->quantifier_offset);
    const ProtobufCFieldDescriptor *fields = ((const ProtobufCMessageDescriptor *)f->descriptor)->fields;
    char *items = NULL;
    if (json_object_size(j) == 0)
        return 0;
    int rc = new_array(m, f, json_object_size(j), &items, e);
    for (void *it = json_object_iter((json_t *)(uintptr_t)j); rc == 0 && it;
         it = json_object_iter_next((json_t *)(uintptr_t)j, it)) {
        struct path inner = {at, json_object_iter_key(it), 0, at->depth};
        ProtobufCMessage *entry = NULL;
        rc = new_message(f->descriptor, &entry, e);
        if (rc < 0)
            break;
        ((ProtobufCMessage **)(void *)items)[(*have)++] = entry;
        rc = read_map_key(inner.member, &fields[0], &inner, hp_json_member(entry, fields[0].offset), e);
        if (rc == 0)
            rc = read_value(json_object_iter_value(it), &fields[1], &inner, hp_json_member(entry, fields[1].offset), e);
    }
    return rc;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *d, const char *name)
{
    for (unsigned i = 0; i < d->n_fields; i++) {
        char camel[HP_JSON_NAME_MAX];
        hp_json_camel(camel, d->fields[i].name);
        if (strcmp(camel, name) == 0 || strcmp(d->fields[i].name, name) == 0)
            return &d->fields[i];
    }
    return NULL;
}

static int read_field(const json_t *j, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, const struct path *at,
                      struct hp_error *e)
{
    if (json_is_null(j))
        return 0; /* the default */
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return hp_json_is_map(m->descriptor, f) ? read_map(j, m, f, at, e) : read_array(j, m, f, at, e);
    uint32_t *chosen = NULL;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        chosen = hp_json_member(m, f->quantifier_offset);
        if (*chosen != 0)
            return fail_at(at, e, "another field of the same choice is set too");
    }
    int rc = read_value(j, f, at, hp_json_member(m, f->offset), e);
    if (rc == 0 && chosen)
        *chosen = f->id;
    return rc;
}

static int read_fields(const json_t *j, ProtobufCMessage *m, const char *skip, const struct path *at,
                       struct hp_error *e)
{
    enum { FIELDS_MAX = 64 };
    bool seen[FIELDS_MAX] = {false};
    assert(m && m->descriptor->n_fields <= FIELDS_MAX);
    if (!json_is_object(j))
        return fail_at(at, e, "must be an object");
    int rc = 0;
    for (void *it = json_object_iter((json_t *)(uintptr_t)j); rc == 0 && it;
         it = json_object_iter_next((json_t *)(uintptr_t)j, it)) {
        const char *name = json_object_iter_key(it);
        if (skip && strcmp(name, skip) == 0)
            continue;
        struct path inner = {at, name, 0, at->depth};
        const ProtobufCFieldDescriptor *f = find_field(m->descriptor, name);
        if (!f)
            return fail_at(&inner, e, "unknown field of %s", m->descriptor->name);
        bool *field_seen = &seen[f - m->descriptor->fields];
        if (*field_seen)
            return fail_at(&inner, e, "given twice (in both spellings)");
        *field_seen = true;
        rc = read_field(json_object_iter_value(it), m, f, &inner, e);
    }
    return rc;
}

/* The message inside an Any, packed. */
static int read_any_value(const json_t *j, const char *type_url, const struct path *at, ProtobufCBinaryData *ret,
                          struct hp_error *e)
{
    const ProtobufCMessageDescriptor *d = hp_json_any_type(type_url);
    if (!d)
        return fail_at(at, e, "unknown type \"%.128s\"", type_url);
    ProtobufCMessage *inner = NULL;
    int rc;
    if (hp_json_kind_of(d) == HP_JSON_PLAIN) {
        rc = new_message(d, &inner, e);
        if (rc == 0)
            rc = read_fields(j, inner, "@type", at, e);
    } else {
        const json_t *value = json_object_get(j, "value");
        struct path member = {at, "value", 0, at->depth};
        rc = value ? read_message(value, d, &member, &inner, e) : fail_at(&member, e, "is missing");
    }
    if (rc == 0)
        rc = hp_pack(inner, &ret->data, &ret->len, e);
    hp_unpacked_free(inner);
    return rc;
}

static int read_any(const json_t *j, Google__Protobuf__Any *any, const struct path *at, struct hp_error *e)
{
    if (!json_is_object(j))
        return fail_at(at, e, "must be an object");
    struct path type_at = {at, "@type", 0, at->depth};
    const json_t *type = json_object_get(j, "@type");
    char *type_url = NULL;
    int rc = type ? read_string(type, &type_at, &type_url, e) : fail_at(&type_at, e, "is missing");
    if (rc < 0)
        return rc;
    any->type_url = type_url;
    const json_t *value = json_object_get(j, "value");
    struct path value_at = {at, "value", 0, at->depth};
    if (!hp_json_any_type(type_url) && value && json_object_size(j) == 2)
        return read_bytes(value, &value_at, &any->value, e);
    return read_any_value(j, type_url, at, &any->value, e);
}

static int read_time(const json_t *j, int (*parse)(const char *, int64_t *, int32_t *), const char *like,
                     const struct path *at, int64_t *ret_seconds, int32_t *ret_nanos, struct hp_error *e)
{
    const char *text = json_string_value(j);
    if (!text || parse(text, ret_seconds, ret_nanos) < 0)
        return fail_at(at, e, "must be a string like \"%s\"", like);
    return 0;
}

static int read_message(const json_t *j, const ProtobufCMessageDescriptor *d, const struct path *at,
                        ProtobufCMessage **ret, struct hp_error *e)
{
    struct path here = *at;
    if (++here.depth > HP_JSON_DEPTH_MAX)
        return fail_at(at, e, "nested deeper than %d messages", HP_JSON_DEPTH_MAX);
    ProtobufCMessage *m = NULL;
    int rc = new_message(d, &m, e);
    if (rc < 0)
        return rc;
    switch (hp_json_kind_of(d)) {
    case HP_JSON_TIMESTAMP: {
        Google__Protobuf__Timestamp *t = (Google__Protobuf__Timestamp *)m;
        rc = read_time(j, hp_timestamp_parse, "2024-02-29T12:00:00.5Z", &here, &t->seconds, &t->nanos, e);
        break;
    }
    case HP_JSON_DURATION: {
        Google__Protobuf__Duration *t = (Google__Protobuf__Duration *)m;
        rc = read_time(j, hp_duration_parse, "1.5s", &here, &t->seconds, &t->nanos, e);
        break;
    }
    case HP_JSON_ANY:
        rc = read_any(j, (Google__Protobuf__Any *)m, &here, e);
        break;
    case HP_JSON_PLAIN:
        rc = read_fields(j, m, NULL, &here, e);
        break;
    }
    if (rc < 0)
        hp_unpacked_free(m);
    else
        *ret = m;
    return rc;
}

int hp_json_to_message(const json_t *json, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
                       struct hp_error *e)
{
    struct path top = {0};
    return read_message(json, d, &top, ret, e);
}

int hp_json_parse_message(const char *text, size_t len, const ProtobufCMessageDescriptor *d, ProtobufCMessage **ret,
                          struct hp_error *e)
{
    json_t *j = NULL;
    int rc = hp_json_load(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &j, e);
    if (rc == 0)
        rc = hp_json_to_message(j, d, ret, e);
    json_decref(j);
    return rc;
}
