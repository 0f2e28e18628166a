/* Random changes of protobuf messages by descriptor: one field of one message somewhere in the tree. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fuzz/script.h"
#include "wire/json.h"

enum { DEPTH_MAX = 6, REPEATED_MAX = 40 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static int64_t interesting(struct hp_rng *rng)
{
    static const int64_t values[] = {
        0,         1,         2,         3,          5,           10,           100,          1000,
        4096,      60000,     65535,     65536,      0x7FFFFFFF,  0x80000000LL, -1,           -2,
        INT64_MAX, INT64_MIN, 1LL << 40, 64LL << 20, 256LL << 20, 128 << 10,    -0x80000000LL};
    uint64_t n = hp_rng_below(rng, sizeof values / sizeof values[0] + 4);
    if (n < sizeof values / sizeof values[0])
        return values[n];
    return n % 2 ? (int64_t)hp_rng_below(rng, 16) : (int64_t)hp_rng_next(rng);
}

static int64_t changed(int64_t old, struct hp_rng *rng)
{
    switch (hp_rng_below(rng, 6)) {
    case 0:
        return (int64_t)((uint64_t)old + 1);
    case 1:
        return (int64_t)((uint64_t)old - 1);
    case 2:
        return (int64_t)((uint64_t)old ^ UINT64_C(1) << hp_rng_below(rng, 64));
    default:
        return interesting(rng);
    }
}

static char *new_text(const char *old, struct hp_rng *rng)
{
    size_t words = 0;
    while (fuzz_words[words])
        words++;
    if (words && hp_rng_below(rng, 3) != 0)
        return strdup(fuzz_words[hp_rng_below(rng, words)]);
    size_t len = strlen(old), room = len + 64;
    uint8_t *text = malloc(room + 1);
    if (!text)
        abort();
    memcpy(text, old, len);
    len = LLVMFuzzerMutate(text, len, room);
    text[len] = '\0'; /* what is behind a NUL is lost: packing goes by strlen */
    return (char *)text;
}

/* ---- One element of a field, at `at` ---- */

static void free_element(const ProtobufCFieldDescriptor *f, void *at)
{
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage **m = at;
        if (*m)
            protobuf_c_message_free_unpacked(*m, NULL);
        *m = NULL;
    } else if (f->type == PROTOBUF_C_TYPE_STRING) {
        char **s = at;
        if (*s && *s != protobuf_c_empty_string)
            free(*s);
        *s = (char *)(uintptr_t)protobuf_c_empty_string;
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        ProtobufCBinaryData *b = at;
        free(b->data);
        *b = (ProtobufCBinaryData){0};
    }
}

static void change_number(const ProtobufCFieldDescriptor *f, void *at, struct hp_rng *rng)
{
    if (f->type == PROTOBUF_C_TYPE_BOOL) {
        *(protobuf_c_boolean *)at = (protobuf_c_boolean) !*(protobuf_c_boolean *)at;
    } else if (f->type == PROTOBUF_C_TYPE_ENUM) {
        const ProtobufCEnumDescriptor *d = f->descriptor;
        int32_t v = hp_rng_below(rng, 12) ? d->values[hp_rng_below(rng, d->n_values)].value : (int32_t)interesting(rng);
        memcpy(at, &v, sizeof v);
    } else if (hp_json_element_size(f->type) == 8) {
        int64_t v;
        memcpy(&v, at, sizeof v);
        v = changed(v, rng);
        memcpy(at, &v, sizeof v);
    } else {
        int32_t v;
        memcpy(&v, at, sizeof v);
        v = (int32_t)changed(v, rng);
        memcpy(at, &v, sizeof v);
    }
}

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, struct hp_rng *rng, int depth);
static void mutate(ProtobufCMessage *m, struct hp_rng *rng, int depth);

static void change_element(const ProtobufCFieldDescriptor *f, void *at, struct hp_rng *rng, int depth)
{
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        ProtobufCMessage **m = at;
        if (!*m)
            *m = make(f->descriptor, rng, depth + 1);
        else
            mutate(*m, rng, depth + 1);
    } else if (f->type == PROTOBUF_C_TYPE_STRING) {
        char **s = at, *text = new_text(*s ? *s : "", rng);
        free_element(f, at);
        *s = text;
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        ProtobufCBinaryData *b = at;
        size_t room = b->len + 64;
        uint8_t *data = realloc(b->data, room);
        if (!data)
            abort();
        b->data = data;
        b->len = LLVMFuzzerMutate(data, b->len, room);
    } else {
        change_number(f, at, rng);
    }
}

/* ---- Fields ---- */

static void *at_offset(ProtobufCMessage *m, unsigned offset)
{
    return (char *)m + offset;
}

static void copy_element(const ProtobufCFieldDescriptor *f, void *to, const void *from)
{
    memcpy(to, from, hp_json_element_size(f->type));
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)to = strdup(*(char *const *)from);
    } else if (f->type == PROTOBUF_C_TYPE_BYTES) {
        ProtobufCBinaryData *b = to;
        uint8_t *data = malloc(b->len + 1);
        memcpy(data, b->data, b->len);
        b->data = data;
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *m = *(ProtobufCMessage *const *)from;
        size_t len = protobuf_c_message_get_packed_size(m);
        uint8_t *bytes = malloc(len + 1);
        protobuf_c_message_pack(m, bytes);
        *(ProtobufCMessage **)to = protobuf_c_message_unpack(m->descriptor, NULL, len, bytes);
        free(bytes);
    }
}

static void mutate_repeated(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct hp_rng *rng, int depth)
{
    size_t *count = at_offset(m, f->quantifier_offset), size = hp_json_element_size(f->type);
    char **list = at_offset(m, f->offset);
    uint64_t choice = *count ? hp_rng_below(rng, 6) : 0;
    if (choice <= 1 && *count < REPEATED_MAX) {
        char *grown = realloc(*list, (*count + 1) * size);
        if (!grown)
            abort();
        *list = grown;
        char *at = grown + *count * size;
        if (choice == 1) {
            copy_element(f, at, grown + hp_rng_below(rng, *count) * size);
        } else {
            memset(at, 0, size);
            if (f->type == PROTOBUF_C_TYPE_STRING)
                *(char **)at = (char *)(uintptr_t)protobuf_c_empty_string;
            change_element(f, at, rng, depth);
        }
        ++*count;
    } else if (choice == 2) {
        size_t i = hp_rng_below(rng, *count);
        free_element(f, *list + i * size);
        memmove(*list + i * size, *list + (i + 1) * size, (*count - i - 1) * size);
        if (--*count == 0) {
            free(*list);
            *list = NULL;
        }
    } else {
        change_element(f, *list + hp_rng_below(rng, *count) * size, rng, depth);
    }
}

/* Another member of the choice, or none; or a change of the one that is there. */
static void mutate_oneof(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct hp_rng *rng, int depth)
{
    uint32_t *which = at_offset(m, f->quantifier_offset);
    void *at = at_offset(m, f->offset);
    if (*which == f->id && hp_rng_below(rng, 16) != 0) {
        change_element(f, at, rng, depth);
        return;
    }
    const ProtobufCFieldDescriptor *old = protobuf_c_message_descriptor_get_field(m->descriptor, *which);
    bool clear = *which == f->id;
    if (old)
        free_element(old, at);
    memset(at, 0, hp_json_element_size(f->type));
    *which = 0;
    if (clear)
        return;
    if (f->type == PROTOBUF_C_TYPE_STRING)
        *(char **)at = (char *)(uintptr_t)protobuf_c_empty_string;
    change_element(f, at, rng, depth);
    *which = f->id;
}

static void mutate_field(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct hp_rng *rng, int depth)
{
    void *at = at_offset(m, f->offset);
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        mutate_repeated(m, f, rng, depth);
    } else if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        mutate_oneof(m, f, rng, depth);
    } else if (hp_rng_below(rng, 16) == 0) {
        if (f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES)
            free_element(f, at);
        else
            memset(at, 0, hp_json_element_size(f->type));
    } else {
        change_element(f, at, rng, depth);
    }
}

static void mutate(ProtobufCMessage *m, struct hp_rng *rng, int depth)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    if (d->n_fields == 0 || depth > DEPTH_MAX)
        return;
    const ProtobufCFieldDescriptor *f = &d->fields[hp_rng_below(rng, d->n_fields)];
    /* A choice counts once, and mostly keeps its member. */
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && f->label != PROTOBUF_C_LABEL_REPEATED && hp_rng_below(rng, 8) != 0) {
        uint32_t *which = at_offset(m, f->quantifier_offset);
        const ProtobufCFieldDescriptor *present = protobuf_c_message_descriptor_get_field(d, *which);
        f = present ? present : f;
    }
    mutate_field(m, f, rng, depth);
}

void fuzz_message_mutate(ProtobufCMessage *m, struct hp_rng *rng)
{
    mutate(m, rng, 0);
}

static ProtobufCMessage *make(const ProtobufCMessageDescriptor *d, struct hp_rng *rng, int depth)
{
    ProtobufCMessage *m = malloc(d->sizeof_message);
    if (!m)
        abort();
    protobuf_c_message_init(d, m);
    for (uint64_t n = hp_rng_below(rng, 6); n > 0; n--)
        mutate(m, rng, depth);
    return m;
}

ProtobufCMessage *fuzz_message_new(const ProtobufCMessageDescriptor *d, struct hp_rng *rng)
{
    return make(d, rng, 0);
}

bool fuzz_has_unknown(const ProtobufCMessage *m)
{
    bool found = m->n_unknown_fields > 0;
    for (unsigned i = 0; i < m->descriptor->n_fields && !found; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        const void *at = (const char *)m + f->offset, *count = (const char *)m + f->quantifier_offset;
        if (f->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        ProtobufCMessage *one = *(ProtobufCMessage *const *)at, **many = *(ProtobufCMessage * *const *)at;
        size_t n = f->label == PROTOBUF_C_LABEL_REPEATED ? *(const size_t *)count : 0;
        for (size_t k = 0; k < n; k++)
            found |= fuzz_has_unknown(many[k]);
        bool absent = f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && *(const uint32_t *)count != f->id;
        if (f->label != PROTOBUF_C_LABEL_REPEATED && !absent && one)
            found |= fuzz_has_unknown(one);
    }
    return found;
}
