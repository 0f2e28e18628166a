/* Messages to JSON, by descriptor. */
#include <assert.h>
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

static json_t *write_message(const ProtobufCMessage *m, int depth, struct hp_error *e);

static json_t *no_memory(struct hp_error *e)
{
    (void)!hp_fail(e, HP_ENOMEM, "JSON text");
    return NULL;
}

static json_t *write_text(const char *text, struct hp_error *e)
{
    json_t *j = json_string(text);
    return j ? j : no_memory(e);
}

static json_t *write_string(const char *name, const char *text, struct hp_error *e)
{
    json_t *j = json_string(text ? text : "");
    if (!j && hp_json_memory_failed())
        return no_memory(e);
    if (!j)
        (void)!hp_fail(e, HP_EINVAL, "%s: is not valid UTF-8", name);
    return j;
}

static json_t *write_integer(long long n, bool is_unsigned)
{
    char text[24];
    snprintf(text, sizeof text, is_unsigned ? "%llu" : "%lld", (unsigned long long)n);
    return json_string(text);
}

static json_t *write_real(double x)
{
    if (isnan(x))
        return json_string("NaN");
    if (isinf(x))
        return json_string(x > 0 ? "Infinity" : "-Infinity");
    return json_real(x);
}

static json_t *write_bytes(const ProtobufCBinaryData *b, struct hp_error *e)
{
    char *text = malloc(hp_b64_len(b->len) + 1);
    if (!text)
        return no_memory(e);
    hp_b64_encode(text, b->data, b->len);
    json_t *j = json_string_nocheck(text);
    free(text);
    return j ? j : no_memory(e);
}

static json_t *write_enum(const ProtobufCEnumDescriptor *d, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
    return v ? json_string(v->name) : json_integer(value);
}

/* One element at `at`. */
static json_t *write_value(const ProtobufCFieldDescriptor *f, const void *at, int depth, struct hp_error *e)
{
    json_t *j = NULL;
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        j = json_integer(*(const int32_t *)at);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        j = json_integer(*(const uint32_t *)at);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        j = write_integer(*(const int64_t *)at, false);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        j = write_integer((long long)*(const uint64_t *)at, true);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        j = write_real((double)*(const float *)at);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        j = write_real(*(const double *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        j = json_boolean(*(const protobuf_c_boolean *)at);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        j = write_enum(f->descriptor, *(const int *)at);
        break;
    case PROTOBUF_C_TYPE_STRING:
        return write_string(f->name, *(char *const *)at, e);
    case PROTOBUF_C_TYPE_BYTES:
        return write_bytes(at, e);
    case PROTOBUF_C_TYPE_MESSAGE:
        return write_message(*(ProtobufCMessage *const *)at, depth, e);
    }
    return j ? j : no_memory(e);
}

static json_t *write_array(const ProtobufCFieldDescriptor *f, const char *items, size_t count, int depth,
                           struct hp_error *e)
{
    json_t *array = json_array();
    size_t size = hp_json_element_size(f->type);
    for (size_t i = 0; array && i < count; i++) {
        json_t *item = write_value(f, items + i * size, depth, e);
        if (!item || json_array_append_new(array, item) < 0) {
            json_decref(array);
            return item ? no_memory(e) : NULL;
        }
    }
    return array ? array : no_memory(e);
}

/* A map's key as the name of a JSON member, in buf when it is not a string already. */
static const char *map_key(const ProtobufCFieldDescriptor *f, const void *at, char buf[24])
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        return *(char *const *)at ? *(char *const *)at : "";
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)at ? "true" : "false";
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        snprintf(buf, 24, "%u", *(const uint32_t *)at);
        return buf;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        snprintf(buf, 24, "%llu", *(const unsigned long long *)at);
        return buf;
    default:
        if (hp_json_element_size(f->type) == 4)
            snprintf(buf, 24, "%d", *(const int32_t *)at);
        else
            snprintf(buf, 24, "%lld", *(const long long *)at);
        return buf;
    }
}

static json_t *write_map(const ProtobufCFieldDescriptor *f, ProtobufCMessage *const *entries, size_t count, int depth,
                         struct hp_error *e)
{
    json_t *object = json_object();
    for (size_t i = 0; object && i < count; i++) {
        const ProtobufCFieldDescriptor *fields = entries[i]->descriptor->fields;
        const void *value = hp_json_member(entries[i], fields[1].offset);
        char buf[24];
        json_t *item;
        if (fields[1].type == PROTOBUF_C_TYPE_MESSAGE && !*(ProtobufCMessage *const *)value)
            item = json_object(); /* an entry without a value has the default one */
        else
            item = write_value(&fields[1], value, depth, e);
        const char *key = map_key(&fields[0], hp_json_member(entries[i], fields[0].offset), buf);
        if (!item || json_object_set_new(object, key, item) < 0) {
            json_decref(object);
            if (hp_json_memory_failed())
                return no_memory(e);
            if (item)
                (void)!hp_fail(e, HP_EINVAL, "%s: a key is not valid UTF-8", f->name);
            return NULL;
        }
    }
    return object ? object : no_memory(e);
}

/* Is a field without explicit presence set? */
static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    static const char zero[sizeof(ProtobufCBinaryData)];
    const void *at = hp_json_member(m, f->offset);
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return *(size_t *)hp_json_member(m, f->quantifier_offset) > 0;
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(uint32_t *)hp_json_member(m, f->quantifier_offset) == f->id &&
               (f->type != PROTOBUF_C_TYPE_MESSAGE || *(void *const *)at);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void *const *)at != NULL;
    if (f->type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)at && **(char *const *)at;
    if (f->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)at)->len > 0;
    return memcmp(at, zero, hp_json_element_size(f->type)) != 0;
}

static json_t *write_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, int depth, struct hp_error *e)
{
    const void *at = hp_json_member(m, f->offset);
    if (f->label != PROTOBUF_C_LABEL_REPEATED)
        return write_value(f, at, depth, e);
    size_t count = *(size_t *)hp_json_member(m, f->quantifier_offset);
    if (hp_json_is_map(m->descriptor, f))
        return write_map(f, *(ProtobufCMessage *const *const *)at, count, depth, e);
    return write_array(f, *(const char *const *)at, count, depth, e);
}

static json_t *write_fields(const ProtobufCMessage *m, int depth, struct hp_error *e)
{
    json_t *object = json_object();
    if (!object)
        return no_memory(e);
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (!is_set(m, f))
            continue;
        char name[HP_JSON_NAME_MAX];
        hp_json_camel(name, f->name);
        json_t *value = write_field(m, f, depth + 1, e);
        if (!value || json_object_set_new_nocheck(object, name, value) < 0) {
            json_decref(object);
            return value ? no_memory(e) : NULL;
        }
    }
    return object;
}

/* {"@type": …, the fields of the known type} or {"@type": …, "value": base64}. */
static json_t *write_any(const Google__Protobuf__Any *any, int depth, struct hp_error *e)
{
    const ProtobufCMessageDescriptor *d = hp_json_any_type(any->type_url);
    ProtobufCMessage *inner = NULL;
    json_t *object = NULL;
    int known = d ? hp_unpack(d, any->value.data, any->value.len, NULL, &inner, NULL) : HP_ENOTFOUND;
    if (known == HP_ENOMEM)
        return no_memory(e);
    if (known == 0) {
        json_t *value = write_message(inner, depth + 1, e);
        hp_unpacked_free(inner);
        if (!value)
            return NULL;
        if (hp_json_kind_of(d) == HP_JSON_PLAIN)
            object = value;
        else
            object = json_pack("{s:o}", "value", value);
    } else {
        json_t *value = write_bytes(&any->value, e);
        if (!value)
            return NULL;
        object = json_pack("{s:o}", "value", value);
    }
    if (!object)
        return no_memory(e);
    json_t *type = write_string("type_url", any->type_url, e);
    if (!type || json_object_set_new(object, "@type", type) < 0) {
        json_decref(object);
        return type ? no_memory(e) : NULL;
    }
    return object;
}

static json_t *write_time(int (*format)(char *, int64_t, int32_t), int64_t seconds, int32_t nanos, const char *type,
                          struct hp_error *e)
{
    char text[HP_TIMETEXT_MAX];
    if (format(text, seconds, nanos) == 0)
        return write_text(text, e);
    (void)!hp_fail(e, HP_EINVAL, "%s: %lld s %d ns is out of range", type, (long long)seconds, nanos);
    return NULL;
}

static json_t *write_message(const ProtobufCMessage *m, int depth, struct hp_error *e)
{
    assert(m && m->descriptor);
    if (depth > HP_JSON_DEPTH_MAX) {
        (void)!hp_fail(e, HP_ELIMIT, "nested deeper than %d messages", HP_JSON_DEPTH_MAX);
        return NULL;
    }
    switch (hp_json_kind_of(m->descriptor)) {
    case HP_JSON_TIMESTAMP: {
        const Google__Protobuf__Timestamp *t = (const Google__Protobuf__Timestamp *)m;
        return write_time(hp_timestamp_format, t->seconds, t->nanos, "Timestamp", e);
    }
    case HP_JSON_DURATION: {
        const Google__Protobuf__Duration *t = (const Google__Protobuf__Duration *)m;
        return write_time(hp_duration_format, t->seconds, t->nanos, "Duration", e);
    }
    case HP_JSON_ANY:
        return write_any((const Google__Protobuf__Any *)m, depth, e);
    case HP_JSON_PLAIN:
        break;
    }
    return write_fields(m, depth, e);
}

json_t *hp_json_from_message(const ProtobufCMessage *m, struct hp_error *e)
{
    hp_json_memory_watch();
    return write_message(m, 0, e);
}

char *hp_json_print_message(const ProtobufCMessage *m, size_t jansson_flags, struct hp_error *e)
{
    json_t *j = hp_json_from_message(m, e);
    if (!j)
        return NULL;
    char *text = hp_json_dump(j, jansson_flags | JSON_ENCODE_ANY);
    json_decref(j);
    if (!text)
        (void)!hp_fail(e, HP_ENOMEM, "JSON text");
    return text;
}
