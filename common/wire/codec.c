/* Nearly every message goes the short way (plain.c). What cannot is looked through on the wire first (depth, strings), without allocating, which also says what is wrong with it, and then
 * unpacked by protobuf-c with an allocator that stops at a budget: empty submessages cost protobuf-c 44 times their wire size, and it neither limits recursion nor checks strings. */
#include "wire/codec.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/plain.h"
#include "wire/utf8.h"

enum { BYTES_DEFAULT = 1 << 20, MEMORY_DEFAULT = 16 << 20 };

/* Where the scan is, for messages. */
struct path {
    const struct path *outer; /* NULL at the top */
    const char *field;        /* NULL at the top */
};

struct span {
    const uint8_t *at, *end;
};

static size_t path_print(const struct path *p, char *out, size_t size)
{
    size_t n = 0;
    if (p->outer && p->outer->field) {
        n = path_print(p->outer, out, size);
        n += (size_t)snprintf(out + n, size - n, ".");
        if (n >= size)
            n = size - 1;
    }
    n += (size_t)snprintf(out + n, size - n, "%s", p->field ? p->field : "message");
    return n < size ? n : size - 1;
}

static int fail_at(const struct path *p, int code, const char *what, struct hp_error *e)
{
    char text[512];
    path_print(p, text, sizeof text);
    return hp_fail(e, code, "%s: %s", text, what);
}

static bool read_varint(struct span *s, uint64_t *ret)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70 && s->at < s->end; shift += 7) {
        uint8_t byte = *s->at++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool skip_bytes(struct span *s, uint64_t n)
{
    if (n > (uint64_t)(s->end - s->at))
        return false;
    s->at += n;
    return true;
}

/* Reads one field's value; a length-delimited one is handed out as a span. */
static bool read_value(struct span *s, unsigned wire_type, struct span *ret_bytes)
{
    uint64_t n;
    *ret_bytes = (struct span){NULL, NULL};
    switch (wire_type) {
    case 0:
        return read_varint(s, &n);
    case 1:
        return skip_bytes(s, 8);
    case 2:
        if (!read_varint(s, &n) || n > (uint64_t)(s->end - s->at))
            return false;
        *ret_bytes = (struct span){s->at, s->at + n};
        s->at += n;
        return true;
    case 5:
        return skip_bytes(s, 4);
    default: /* groups are not in proto3 */
        return false;
    }
}

static int scan_string(const struct path *at, struct span s, struct hp_error *e)
{
    if (memchr(s.at, '\0', (size_t)(s.end - s.at)))
        return fail_at(at, HP_EINVAL, "contains a NUL character", e);
    if (!hp_utf8_valid(s.at, (size_t)(s.end - s.at)))
        return fail_at(at, HP_EINVAL, "is not valid UTF-8", e);
    return 0;
}

static int scan(const ProtobufCMessageDescriptor *d, struct span s, const struct path *at, int depth,
                struct hp_error *e)
{
    if (depth > HP_DEPTH_MAX)
        return fail_at(at, HP_ELIMIT, "nested deeper than 32 messages", e);
    while (s.at < s.end) {
        uint64_t tag;
        struct span bytes;
        if (!read_varint(&s, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF)
            return fail_at(at, HP_EINVAL, "malformed protobuf: bad tag", e);
        if (!read_value(&s, (unsigned)(tag & 7), &bytes))
            return fail_at(at, HP_EINVAL, "malformed protobuf: truncated or of an unknown wire type", e);
        const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, (unsigned)(tag >> 3));
        if (!f || !bytes.at)
            continue; /* a wrong wire type for the field is refused by protobuf-c */
        struct path inner = {at, f->name};
        int rc = 0;
        if (f->type == PROTOBUF_C_TYPE_MESSAGE)
            rc = scan(f->descriptor, bytes, &inner, depth + 1, e);
        else if (f->type == PROTOBUF_C_TYPE_STRING)
            rc = scan_string(&inner, bytes, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int hp_unpack(const ProtobufCMessageDescriptor *d, const void *data, size_t len, const struct hp_unpack_limits *limits,
              ProtobufCMessage **ret, struct hp_error *e)
{
    static const uint8_t nothing;
    size_t bytes_max = limits && limits->bytes_max ? limits->bytes_max : BYTES_DEFAULT;
    size_t memory_max = limits && limits->memory_max ? limits->memory_max : MEMORY_DEFAULT;
    assert(d && (data || len == 0));
    if (len > bytes_max)
        return hp_fail(e, HP_ELIMIT, "%s: %zu bytes are over the limit of %zu", d->name, len, bytes_max);
    const uint8_t *bytes = len ? data : &nothing;
    struct hp_budget budget = {.left = memory_max};
    ProtobufCMessage *m = hp_plain_unpack(d, bytes, len, &budget);
    if (!m && !budget.no_memory) {
        int rc = scan(d, (struct span){bytes, bytes + len}, &(struct path){NULL, NULL}, 0, e);
        if (rc < 0)
            return rc;
        budget = (struct hp_budget){.left = memory_max};
        ProtobufCAllocator allocator = {hp_budget_alloc, hp_budget_free, &budget};
        m = protobuf_c_message_unpack(d, &allocator, len, bytes);
    }
    if (!m && budget.no_memory)
        return hp_fail(e, HP_ENOMEM, "%s of %zu bytes", d->name, len);
    if (!m && budget.over)
        return hp_fail(e, HP_ELIMIT, "%s: needs more than %zu bytes of memory", d->name, memory_max);
    if (!m)
        return hp_fail(e, HP_EINVAL, "malformed protobuf: not a %s", d->name);
    *ret = m;
    return 0;
}

void hp_unpacked_free(ProtobufCMessage *m)
{
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

void hp_packing_init(struct hp_packing *p, const ProtobufCMessage *m)
{
    p->message = m;
    p->len = hp_plain_pack(m, p->bytes, sizeof p->bytes);
    p->plain = p->len != SIZE_MAX;
    if (!p->plain)
        p->len = protobuf_c_message_get_packed_size(m);
}

void hp_packing_write(const struct hp_packing *p, uint8_t *out)
{
    if (p->plain) {
        memcpy(out, p->bytes + sizeof p->bytes - p->len, p->len);
        return;
    }
    size_t packed = protobuf_c_message_pack(p->message, out);
    assert(packed == p->len);
}

int hp_pack(const ProtobufCMessage *m, uint8_t **ret, size_t *ret_len, struct hp_error *e)
{
    struct hp_packing p;
    hp_packing_init(&p, m);
    uint8_t *out = malloc(p.len ? p.len : 1);
    if (!out)
        return hp_fail(e, HP_ENOMEM, "%s of %zu bytes", m->descriptor->name, p.len);
    hp_packing_write(&p, out);
    *ret = out;
    *ret_len = p.len;
    return 0;
}

ProtobufCMessage *hp_message_clone(const ProtobufCMessage *m)
{
    uint8_t *bytes;
    size_t len;
    if (hp_pack(m, &bytes, &len, NULL) < 0)
        return NULL;
    struct hp_budget all = {.left = SIZE_MAX};
    ProtobufCMessage *copy = hp_plain_unpack(m->descriptor, bytes, len, &all);
    if (!copy && !all.no_memory)
        copy = protobuf_c_message_unpack(m->descriptor, NULL, len, bytes);
    free(bytes);
    return copy;
}
