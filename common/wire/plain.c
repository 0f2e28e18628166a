/* Unpacking: one pass that checks and fills. Fields come in the order of their numbers, each once unless it is repeated; that is how protobuf's encoders write them.
 * Packing: backwards, so that a message's length is known when it is written in front of it; protobuf-c measures each message again at every level around it. */
#include "wire/plain.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "wire/utf8.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fixed-size numbers are copied as they are");
_Static_assert(sizeof(protobuf_c_boolean) == 4, "as protobuf-c has it");

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types */

void *hp_budget_alloc(void *budget, size_t size)
{
    struct hp_budget *b = budget;
    if (size > b->left) {
        b->over = true;
        return NULL;
    }
    void *p = malloc(size ? size : 1);
    if (!p) {
        b->no_memory = true;
        return NULL;
    }
    size_t usable = malloc_usable_size(p);
    b->left = usable < b->left ? b->left - usable : 0;
    return p;
}

void hp_budget_free(void *budget, void *p)
{
    struct hp_budget *b = budget;
    if (p)
        b->left += malloc_usable_size(p);
    free(p);
}

/* ---- Unpacking ---- */

struct input {
    const uint8_t *at, *end;
};

static bool read_varint(struct input *in, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint64_t byte = *in->at++;
        value |= (byte & 0x7F) << shift;
        if (byte < 0x80) {
            *ret = value;
            return shift < 63 || byte < 2;
        }
    }
    return false;
}

/* Of tags and lengths protobuf-c takes no more than five bytes. */
static bool read_short_varint(struct input *in, uint64_t *ret)
{
    const uint8_t *begin = in->at;
    return read_varint(in, ret) && in->at - begin <= 5;
}

static bool read_fixed(struct input *in, void *member, size_t size)
{
    if ((size_t)(in->end - in->at) < size)
        return false;
    memcpy(member, in->at, size);
    in->at += size;
    return true;
}

static bool read_bytes(struct input *in, struct input *ret)
{
    uint64_t n;
    if (!read_short_varint(in, &n) || n > (uint64_t)(in->end - in->at))
        return false;
    *ret = (struct input){in->at, in->at + n};
    in->at += n;
    return true;
}

static bool read_number(const ProtobufCFieldDescriptor *f, unsigned wire, struct input *in, void *member)
{
    uint64_t v;
    switch (f->type) {
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return wire == FIXED64 && read_fixed(in, member, 8);
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return wire == FIXED32 && read_fixed(in, member, 4);
    default:
        break;
    }
    if (wire != VARINT || !read_varint(in, &v))
        return false;
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
        *(uint32_t *)member = (uint32_t)v;
        return true;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        *(uint64_t *)member = v;
        return true;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)member = v != 0;
        return true;
    default: /* the zigzag ones */
        return false;
    }
}

static ProtobufCMessage *read_message(const ProtobufCMessageDescriptor *d, struct input in, int depth,
                                      struct hp_budget *b);

static bool read_value(const ProtobufCFieldDescriptor *f, unsigned wire, struct input *in, int depth,
                       struct hp_budget *b, void *member)
{
    struct input x;
    if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_BYTES && f->type != PROTOBUF_C_TYPE_MESSAGE)
        return read_number(f, wire, in, member);
    if (wire != BYTES || !read_bytes(in, &x))
        return false;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE)
        return (*(ProtobufCMessage **)member = read_message(f->descriptor, x, depth + 1, b)) != NULL;
    size_t len = (size_t)(x.end - x.at);
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        if (memchr(x.at, '\0', len) || !hp_utf8_valid(x.at, len))
            return false;
        char *text = hp_budget_alloc(b, len + 1);
        if (!text)
            return false;
        memcpy(text, x.at, len);
        text[len] = '\0';
        *(char **)member = text;
        return true;
    }
    ProtobufCBinaryData *bytes = member;
    if (len && !(bytes->data = hp_budget_alloc(b, len)))
        return false;
    if (len)
        memcpy(bytes->data, x.at, len);
    bytes->len = len;
    return true;
}

/* Room for one more pointer behind n: the array doubles at 4, 8, 16… */
static bool grow(void ***array, size_t n, struct hp_budget *b)
{
    if (n && (n < 4 || (n & (n - 1))))
        return true;
    void **larger = hp_budget_alloc(b, (n ? 2 * n : 4) * sizeof *larger);
    if (!larger)
        return false;
    if (n)
        memcpy(larger, *array, n * sizeof *larger);
    hp_budget_free(b, *array);
    *array = larger;
    return true;
}

static bool read_field(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, bool again, unsigned wire,
                       struct input *in, int depth, struct hp_budget *b)
{
    char *base = (char *)m, *member = base + f->offset;
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t *n = (size_t *)(void *)(base + f->quantifier_offset);
        void ***array = (void ***)(void *)member;
        if ((f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE) || !grow(array, *n, b) ||
            !read_value(f, wire, in, depth, b, &(*array)[*n]))
            return false;
        ++*n;
        return true;
    }
    if (f->label != PROTOBUF_C_LABEL_NONE || again)
        return false;
    if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return read_value(f, wire, in, depth, b, member);
    uint32_t *which = (uint32_t *)(void *)(base + f->quantifier_offset);
    if (*which || !read_value(f, wire, in, depth, b, member))
        return false;
    *which = f->id;
    return true;
}

static ProtobufCMessage *read_message(const ProtobufCMessageDescriptor *d, struct input in, int depth,
                                      struct hp_budget *b)
{
    if (depth > HP_DEPTH_MAX || !d->message_init)
        return NULL;
    ProtobufCMessage *m = hp_budget_alloc(b, d->sizeof_message);
    if (!m)
        return NULL;
    d->message_init(m);
    unsigned i = 0, last = d->n_fields;
    while (in.at < in.end) {
        uint64_t tag;
        if (!read_short_varint(&in, &tag))
            goto fail;
        while (i < d->n_fields && d->fields[i].id < tag >> 3)
            i++;
        if (i == d->n_fields || d->fields[i].id != tag >> 3 ||
            !read_field(m, &d->fields[i], i == last, (unsigned)(tag & 7), &in, depth, b))
            goto fail;
        last = i;
    }
    return m;
fail:
    protobuf_c_message_free_unpacked(m, NULL);
    return NULL;
}

ProtobufCMessage *hp_plain_unpack(const ProtobufCMessageDescriptor *d, const uint8_t *data, size_t len,
                                  struct hp_budget *b)
{
    assert(d && (data || len == 0));
    return read_message(d, (struct input){data, data + len}, 0, b);
}

/* ---- Packing ---- */

/* The free part of the buffer; what is written goes to its end. */
struct output {
    uint8_t *start, *end;
};

static bool write_bytes(struct output *out, const void *data, size_t n)
{
    if ((size_t)(out->end - out->start) < n)
        return false;
    out->end -= n;
    if (n)
        memcpy(out->end, data, n);
    return true;
}

static bool write_varint(struct output *out, uint64_t v)
{
    size_t n = (size_t)(70 - __builtin_clzll(v | 1)) / 7;
    if ((size_t)(out->end - out->start) < n)
        return false;
    out->end -= n;
    uint8_t *p = out->end;
    for (; v > 0x7F; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p = (uint8_t)v;
    return true;
}

static bool write_tag(struct output *out, const ProtobufCFieldDescriptor *f, unsigned wire)
{
    return write_varint(out, (uint64_t)f->id << 3 | wire);
}

static bool write_message(struct output *out, const ProtobufCMessage *m);

static bool write_value(struct output *out, const ProtobufCFieldDescriptor *f, const void *member)
{
    const uint8_t *end = out->end;
    const char *text;
    const ProtobufCBinaryData *bytes = member;
    const ProtobufCMessage *m;
    switch (f->type) {
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return write_bytes(out, member, 8) && write_tag(out, f, FIXED64);
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return write_bytes(out, member, 4) && write_tag(out, f, FIXED32);
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_ENUM:
        return write_varint(out, (uint64_t)(int64_t) * (const int32_t *)member) && write_tag(out, f, VARINT);
    case PROTOBUF_C_TYPE_UINT32:
        return write_varint(out, *(const uint32_t *)member) && write_tag(out, f, VARINT);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
        return write_varint(out, *(const uint64_t *)member) && write_tag(out, f, VARINT);
    case PROTOBUF_C_TYPE_BOOL:
        return write_varint(out, *(const protobuf_c_boolean *)member != 0) && write_tag(out, f, VARINT);
    case PROTOBUF_C_TYPE_STRING:
        text = *(char *const *)member ? *(char *const *)member : "";
        if (!write_bytes(out, text, strlen(text)))
            return false;
        break;
    case PROTOBUF_C_TYPE_BYTES:
        if (!write_bytes(out, bytes->data, bytes->len))
            return false;
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        m = *(ProtobufCMessage *const *)member;
        if (m && !write_message(out, m))
            return false;
        break;
    default: /* the zigzag ones */
        return false;
    }
    return write_varint(out, (uint64_t)(end - out->end)) && write_tag(out, f, BYTES);
}

/* What proto3 does not write. */
static bool is_default(const ProtobufCFieldDescriptor *f, const void *member)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        return !*(char *const *)member || !**(char *const *)member;
    case PROTOBUF_C_TYPE_MESSAGE:
        return !*(void *const *)member;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)member)->len == 0;
    case PROTOBUF_C_TYPE_DOUBLE:
        return *(const double *)member == 0;
    case PROTOBUF_C_TYPE_FLOAT:
        return *(const float *)member == 0;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return *(const uint64_t *)member == 0;
    default:
        return *(const uint32_t *)member == 0;
    }
}

static bool write_repeated(struct output *out, const ProtobufCFieldDescriptor *f, size_t n, const void *array)
{
    if (n && f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
        return false;
    while (n--)
        if (!write_value(out, f, (void *const *)array + n))
            return false;
    return true;
}

static bool write_field(struct output *out, const ProtobufCFieldDescriptor *f, const char *m)
{
    const void *member = m + f->offset, *quantifier = m + f->quantifier_offset;
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        return write_repeated(out, f, *(const size_t *)quantifier, *(void *const *)member);
    if (f->label != PROTOBUF_C_LABEL_NONE)
        return false;
    if (!(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF))
        return is_default(f, member) || write_value(out, f, member);
    if (*(const uint32_t *)quantifier != f->id)
        return true;
    bool pointer = f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE;
    const void *p = pointer ? *(void *const *)member : member;
    return (pointer && (!p || p == f->default_value)) || write_value(out, f, member);
}

static bool write_message(struct output *out, const ProtobufCMessage *m)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    if (m->n_unknown_fields)
        return false;
    for (unsigned i = d->n_fields; i-- > 0;)
        if (!write_field(out, &d->fields[i], (const char *)m))
            return false;
    return true;
}

size_t hp_plain_pack(const ProtobufCMessage *m, uint8_t *buf, size_t size)
{
    struct output out = {buf, buf + size};
    return write_message(&out, m) ? (size_t)(buf + size - out.end) : SIZE_MAX;
}
