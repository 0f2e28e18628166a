#include "io/amqp_wire.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    METHOD_MAX = 120 * 1024, /* of one encoded method or property list */
    HEADER_LEN = 7,          /* type, channel, size */
    FRAME_END = 0xCE,
};

static int reserve(struct hp_buf *b, size_t more, uint8_t **ret, struct hp_error *e)
{
    *ret = hp_buf_reserve(b, more);
    if (*ret)
        return 0;
    if (b->len + more > b->len_max)
        return hp_fail(e, HP_ELIMIT, "%zu bytes wait to be sent to the broker; %zu is the limit", b->len, b->len_max);
    return hp_fail(e, HP_ENOMEM, "out of memory for %zu bytes to the broker", more);
}

static void put16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static void put32(uint8_t *at, uint32_t v)
{
    put16(at, (uint16_t)(v >> 16));
    put16(at + 2, (uint16_t)v);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static uint64_t get64(const uint8_t *at)
{
    return (uint64_t)get32(at) << 32 | get32(at + 4);
}

/* The payload of `len` bytes is in place behind the header's room at `at`, which is the end of the buffer. */
static void seal(struct hp_buf *b, uint8_t *at, uint8_t type, uint16_t channel, size_t len)
{
    at[0] = type;
    put16(at + 1, channel);
    put32(at + 3, (uint32_t)len);
    at[HEADER_LEN + len] = FRAME_END;
    hp_buf_commit(b, HEADER_LEN + len + 1);
}

int hp_amqp_put_method(struct hp_buf *b, uint16_t channel, amqp_method_number_t id, void *method, struct hp_error *e)
{
    for (size_t room = 1024; room <= METHOD_MAX; room *= 4) {
        uint8_t *at;
        int rc = reserve(b, room + HP_AMQP_FRAME_OVERHEAD + 4, &at, e);
        if (rc)
            return rc;
        int n = amqp_encode_method(id, method, (amqp_bytes_t){room, at + HEADER_LEN + 4});
        if (n < 0)
            continue;
        put32(at + HEADER_LEN, id);
        seal(b, at, AMQP_FRAME_METHOD, channel, (size_t)n + 4);
        return 0;
    }
    return hp_fail(e, HP_EINVAL, "method 0x%08x cannot be encoded: a name is over 255 bytes", (unsigned)id);
}

static int put_content_header(struct hp_buf *b, uint16_t channel, amqp_basic_properties_t *properties, size_t body_len,
                              struct hp_error *e)
{
    for (size_t room = 1024; room <= METHOD_MAX; room *= 4) {
        uint8_t *at;
        int rc = reserve(b, room + HP_AMQP_FRAME_OVERHEAD + 12, &at, e);
        if (rc)
            return rc;
        uint8_t *payload = at + HEADER_LEN;
        int n = amqp_encode_properties(AMQP_BASIC_CLASS, properties, (amqp_bytes_t){room, payload + 12});
        if (n < 0)
            continue;
        put16(payload, AMQP_BASIC_CLASS);
        put16(payload + 2, 0);
        put32(payload + 4, (uint32_t)((uint64_t)body_len >> 32));
        put32(payload + 8, (uint32_t)body_len);
        seal(b, at, AMQP_FRAME_HEADER, channel, (size_t)n + 12);
        return 0;
    }
    return hp_fail(e, HP_EINVAL, "message properties cannot be encoded: a text is over 255 bytes");
}

int hp_amqp_put_content(struct hp_buf *b, uint16_t channel, amqp_basic_properties_t *properties, const void *body,
                        size_t len, size_t frame_max, struct hp_error *e)
{
    assert(frame_max >= HP_AMQP_FRAME_MIN);
    size_t before = b->len;
    int rc = put_content_header(b, channel, properties, len, e);
    if (rc)
        return rc;
    size_t piece_max = frame_max - HP_AMQP_FRAME_OVERHEAD;
    for (size_t done = 0; done < len;) {
        size_t piece = len - done < piece_max ? len - done : piece_max;
        uint8_t *at;
        rc = reserve(b, piece + HP_AMQP_FRAME_OVERHEAD, &at, e);
        if (rc) {
            b->len = before;
            return rc;
        }
        memcpy(at + HEADER_LEN, (const uint8_t *)body + done, piece);
        seal(b, at, AMQP_FRAME_BODY, channel, piece);
        done += piece;
    }
    return 0;
}

int hp_amqp_put_heartbeat(struct hp_buf *b, struct hp_error *e)
{
    uint8_t *at;
    int rc = reserve(b, HP_AMQP_FRAME_OVERHEAD, &at, e);
    if (!rc)
        seal(b, at, AMQP_FRAME_HEARTBEAT, 0, 0);
    return rc;
}

int hp_amqp_frame_next(const uint8_t *data, size_t len, size_t frame_max, struct hp_amqp_frame *ret, size_t *ret_used,
                       struct hp_error *e)
{
    *ret_used = 0;
    if (len && data[0] == 'A')
        return hp_fail(e, HP_EPROTO, "the broker does not speak AMQP 0-9-1");
    if (len < HEADER_LEN)
        return 0;
    uint8_t type = data[0];
    if (type != AMQP_FRAME_METHOD && type != AMQP_FRAME_HEADER && type != AMQP_FRAME_BODY &&
        type != AMQP_FRAME_HEARTBEAT)
        return hp_fail(e, HP_EPROTO, "frame of unknown type %u from the broker", type);
    size_t size = get32(data + 3);
    if (size + HP_AMQP_FRAME_OVERHEAD > frame_max)
        return hp_fail(e, HP_EPROTO, "frame of %zu bytes from the broker; %zu is the limit", size, frame_max);
    if (len < size + HP_AMQP_FRAME_OVERHEAD)
        return 0;
    if (data[HEADER_LEN + size] != FRAME_END)
        return hp_fail(e, HP_EPROTO, "frame from the broker without its end mark");
    *ret = (struct hp_amqp_frame){type, (uint16_t)(data[1] << 8 | data[2]), data + HEADER_LEN, size};
    *ret_used = size + HP_AMQP_FRAME_OVERHEAD;
    return 0;
}

int hp_amqp_decode_method(const struct hp_amqp_frame *f, amqp_pool_t *pool, amqp_method_number_t *ret_id, void **ret,
                          struct hp_error *e)
{
    assert(f->type == AMQP_FRAME_METHOD);
    if (f->len < 4)
        return hp_fail(e, HP_EPROTO, "method frame of %zu bytes from the broker", f->len);
    amqp_method_number_t id = get32(f->payload);
    /* librabbitmq's type is not const; the codec only reads. */
    amqp_bytes_t rest = {f->len - 4, (void *)(uintptr_t)(f->payload + 4)};
    int rc = amqp_decode_method(id, pool, rest, ret);
    if (rc < 0)
        return hp_fail(e, HP_EPROTO, "method 0x%08x from the broker: %s", (unsigned)id, amqp_error_string2(rc));
    *ret_id = id;
    return 0;
}

int hp_amqp_decode_header(const struct hp_amqp_frame *f, amqp_pool_t *pool, uint64_t *ret_body_len,
                          amqp_basic_properties_t **ret, struct hp_error *e)
{
    assert(f->type == AMQP_FRAME_HEADER);
    if (f->len < 14)
        return hp_fail(e, HP_EPROTO, "content header of %zu bytes from the broker", f->len);
    amqp_bytes_t rest = {f->len - 12, (void *)(uintptr_t)(f->payload + 12)};
    void *properties = NULL;
    int rc = amqp_decode_properties(AMQP_BASIC_CLASS, pool, rest, &properties);
    if (rc < 0)
        return hp_fail(e, HP_EPROTO, "message properties from the broker: %s", amqp_error_string2(rc));
    *ret_body_len = get64(f->payload + 4);
    *ret = properties;
    return 0;
}

const amqp_field_value_t *hp_amqp_table_find(const amqp_table_t *t, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < t->num_entries; i++)
        if (t->entries[i].key.len == n && memcmp(t->entries[i].key.bytes, name, n) == 0)
            return &t->entries[i].value;
    return NULL;
}

bool hp_amqp_field_int(const amqp_field_value_t *v, int64_t *ret)
{
    switch (v->kind) {
    case AMQP_FIELD_KIND_I8:
        *ret = (int64_t)v->value.i8; // NOLINT(bugprone-signed-char-misuse): a number, not a character
        return true;
    case AMQP_FIELD_KIND_U8:
        *ret = v->value.u8;
        return true;
    case AMQP_FIELD_KIND_I16:
        *ret = v->value.i16;
        return true;
    case AMQP_FIELD_KIND_U16:
        *ret = v->value.u16;
        return true;
    case AMQP_FIELD_KIND_I32:
        *ret = v->value.i32;
        return true;
    case AMQP_FIELD_KIND_U32:
        *ret = v->value.u32;
        return true;
    case AMQP_FIELD_KIND_I64:
    case AMQP_FIELD_KIND_U64:
    case AMQP_FIELD_KIND_TIMESTAMP:
        *ret = v->value.i64;
        return true;
    default:
        return false;
    }
}
