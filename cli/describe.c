/* describe.c — any message as text for people: one field a line, nested messages indented, sizes and times in words, what is not set left out. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "google/protobuf/duration.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "wire/json.h"

enum { VALUE_COLUMN = 24, DEPTH_MAX = 16 };

static const void *member(const ProtobufCMessage *m, unsigned offset)
{
    return (const char *)m + offset;
}

/* `alone`: nothing follows on its line. */
static void put_label(FILE *f, const char *name, int indent, bool alone)
{
    char label[64];
    size_t n = 0;
    for (const char *p = name; *p && n + 1 < sizeof label; p++) {
        size_t unit = strncmp(p, "_bytes", 6) == 0 ? 6 : strncmp(p, "_millis", 7) == 0 ? 7 : 0;
        if (unit && (p[unit] == '_' || p[unit] == '\0')) {
            p += unit - 1;
            continue;
        }
        label[n++] = *p;
        if (*p == '_')
            label[n - 1] = ' ';
    }
    label[n] = '\0';
    int width = VALUE_COLUMN - indent - (int)n - 1;
    fprintf(f, "%*s%s:%*s", indent, "", label, alone ? 0 : width > 1 ? width : 1, "");
}

static void put_int(FILE *f, const char *name, int64_t v)
{
    char text[32];
    if (strstr(name, "cpu_millis"))
        cli_format_cpu(text, v);
    else if (strstr(name, "_bytes"))
        cli_format_bytes(text, v);
    else
        snprintf(text, sizeof text, "%" PRId64, v);
    fputs(text, f);
}

/* Texts come from elsewhere: a control character must not reach the terminal. */
static void put_text(FILE *f, const char *s)
{
    for (; *s; s++)
        fputc((unsigned char)*s < 0x20 || *s == 0x7f ? ' ' : *s, f);
}

static void put_scalar(FILE *f, const ProtobufCFieldDescriptor *d, const void *p)
{
    switch (d->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        put_int(f, d->name, *(const int32_t *)p);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        put_int(f, d->name, *(const uint32_t *)p);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        put_int(f, d->name, *(const int64_t *)p);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        fputs(cli_enum_name(d->descriptor, *(const int *)p), f);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        fputs(*(const protobuf_c_boolean *)p ? "yes" : "no", f);
        break;
    case PROTOBUF_C_TYPE_STRING:
        put_text(f, *(char *const *)p);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        fprintf(f, "%g", (double)*(const float *)p);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        fprintf(f, "%g", *(const double *)p);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        fprintf(f, "%zu bytes", ((const ProtobufCBinaryData *)p)->len);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        break;
    }
}

static bool is_set(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *d)
{
    static const char zeros[16];
    const void *p = member(m, d->offset);
    if (d->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)member(m, d->quantifier_offset) > 0;
    if (d->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(const uint32_t *)member(m, d->quantifier_offset) != d->id)
        return false;
    if (d->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(const void *const *)p;
    if (d->type == PROTOBUF_C_TYPE_STRING)
        return *(char *const *)p && **(char *const *)p;
    if (d->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)p)->len > 0;
    return memcmp(p, zeros, hp_json_element_size(d->type)) != 0;
}

/* Times and durations are messages, but read as values. */
static bool is_time(const ProtobufCMessage *m)
{
    return m->descriptor == &google__protobuf__timestamp__descriptor ||
           m->descriptor == &google__protobuf__duration__descriptor;
}

static void put_time(FILE *f, const ProtobufCMessage *m)
{
    if (m->descriptor == &google__protobuf__duration__descriptor) {
        const Google__Protobuf__Duration *d = (const Google__Protobuf__Duration *)m;
        fprintf(f, "%g s", (double)d->seconds + d->nanos / 1e9);
        return;
    }
    const Google__Protobuf__Timestamp *t = (const Google__Protobuf__Timestamp *)m;
    char at[40], age[32];
    cli_format_time(at, t);
    cli_format_age(age, t);
    if (t->seconds <= time(NULL))
        fprintf(f, "%s  (%s ago)", at, age);
    else
        fputs(at, f);
}

/* "1,2,3" */
static void put_values(FILE *f, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *d)
{
    size_t n = *(const size_t *)member(m, d->quantifier_offset);
    const char *items = *(char *const *)member(m, d->offset);
    for (size_t i = 0; i < n; i++) {
        if (i)
            fputc(',', f);
        put_scalar(f, d, items + i * hp_json_element_size(d->type));
    }
}

/* One element of a list in one line: its values side by side, and what is nested in it left to -o json. */
static void put_inline(FILE *f, const ProtobufCMessage *m)
{
    const char *between = "";
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *d = &m->descriptor->fields[i];
        bool list = d->label == PROTOBUF_C_LABEL_REPEATED;
        if (!is_set(m, d) || (list && d->type == PROTOBUF_C_TYPE_MESSAGE))
            continue;
        fputs(between, f);
        between = strcmp(d->name, "key") == 0 ? "=" : "  "; /* of a map */
        const ProtobufCMessage *inner =
            !list && d->type == PROTOBUF_C_TYPE_MESSAGE ? *(ProtobufCMessage *const *)member(m, d->offset) : NULL;
        if (list)
            put_values(f, m, d);
        else if (!inner)
            put_scalar(f, d, member(m, d->offset));
        else if (is_time(inner))
            put_time(f, inner);
        else
            fputs("…", f);
    }
}

static void put_list(FILE *f, const ProtobufCMessage *m, const ProtobufCFieldDescriptor *d)
{
    size_t n = *(const size_t *)member(m, d->quantifier_offset);
    const char *items = *(char *const *)member(m, d->offset);
    for (size_t i = 0; i < n; i++) {
        const void *item = items + i * hp_json_element_size(d->type);
        if (i)
            fprintf(f, "\n%*s", VALUE_COLUMN, "");
        if (d->type == PROTOBUF_C_TYPE_MESSAGE)
            put_inline(f, *(ProtobufCMessage *const *)item);
        else
            put_scalar(f, d, item);
    }
}

static void put_message(FILE *f, const ProtobufCMessage *m, int indent)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *d = &m->descriptor->fields[i];
        if (!is_set(m, d) || indent >= 2 * DEPTH_MAX)
            continue;
        const void *p = member(m, d->offset);
        bool list = d->label == PROTOBUF_C_LABEL_REPEATED;
        const ProtobufCMessage *inner =
            !list && d->type == PROTOBUF_C_TYPE_MESSAGE ? *(ProtobufCMessage *const *)p : NULL;
        bool nested = inner && !is_time(inner);
        put_label(f, d->name, indent, nested);
        if (list)
            put_list(f, m, d);
        else if (inner && !nested)
            put_time(f, inner);
        else if (!inner)
            put_scalar(f, d, p);
        fputc('\n', f);
        if (nested)
            put_message(f, inner, indent + 2);
    }
}

void cli_describe(FILE *f, const ProtobufCMessage *m)
{
    put_message(f, m, 0);
}
