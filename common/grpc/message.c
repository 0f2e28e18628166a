#include "grpc/message.h"

#include <assert.h>
#include <string.h>

void hp_message_reader_init(struct hp_message_reader *r, size_t body_max, struct hp_rpc_budget *budget)
{
    memset(r, 0, sizeof *r);
    r->body_max = body_max;
    r->body.budget = budget;
}

void hp_message_reader_done(struct hp_message_reader *r)
{
    hp_bytes_done(&r->body);
}

static size_t body_len(const struct hp_message_reader *r)
{
    assert(r->prefix_have == HP_MESSAGE_PREFIX);
    return (size_t)r->prefix[1] << 24 | (size_t)r->prefix[2] << 16 | (size_t)r->prefix[3] << 8 | r->prefix[4];
}

static size_t take_prefix(struct hp_message_reader *r, const uint8_t *data, size_t len)
{
    size_t n = HP_MESSAGE_PREFIX - r->prefix_have;
    if (n > len)
        n = len;
    if (n > 0) /* a body of nothing may have no address */
        memcpy(r->prefix + r->prefix_have, data, n);
    r->prefix_have += n;
    return n;
}

static int complete(struct hp_message_reader *r, const uint8_t *body, size_t len, struct hp_message *ret)
{
    ret->flags = r->prefix[0];
    ret->body = body;
    ret->len = len;
    r->prefix_have = 0;
    return 1;
}

int hp_message_read(struct hp_message_reader *r, const uint8_t *data, size_t len, size_t *ret_used,
                    struct hp_message *ret_message, struct hp_error *e)
{
    *ret_used = 0;
    if (r->handed_out) {
        hp_bytes_done(&r->body);
        r->handed_out = false;
    }
    size_t used = take_prefix(r, data, len);
    *ret_used = used;
    if (r->prefix_have < HP_MESSAGE_PREFIX)
        return 0;
    size_t want = body_len(r);
    if (want > r->body_max)
        return hp_fail(e, HP_ELIMIT, "message of %zu bytes is larger than the limit of %zu bytes", want, r->body_max);
    size_t left = len - used, missing = want - r->body.len;
    if (r->body.len == 0 && left >= want) {
        *ret_used = used + want;
        return complete(r, data + used, want, ret_message);
    }
    size_t n = left < missing ? left : missing;
    if (!hp_bytes_append(&r->body, data + used, n))
        return hp_fail(e, HP_ENOMEM, "no memory for a message of %zu bytes", want);
    *ret_used = used + n;
    if (n < missing)
        return 0;
    r->handed_out = true;
    return complete(r, hp_bytes_head(&r->body), want, ret_message);
}

bool hp_message_reader_partial(const struct hp_message_reader *r)
{
    return r->prefix_have > 0;
}

static void put_prefix(uint8_t *to, uint8_t flags, size_t len)
{
    assert(len <= UINT32_MAX);
    to[0] = flags;
    to[1] = (uint8_t)(len >> 24);
    to[2] = (uint8_t)(len >> 16);
    to[3] = (uint8_t)(len >> 8);
    to[4] = (uint8_t)len;
}

static int reserve(struct hp_bytes *queue, size_t len, size_t queue_max, uint8_t **ret)
{
    if (len > UINT32_MAX || queue->len + HP_MESSAGE_PREFIX + len > queue_max)
        return HP_ELIMIT;
    *ret = hp_bytes_reserve(queue, HP_MESSAGE_PREFIX + len);
    return *ret ? 0 : HP_ENOMEM;
}

int hp_message_write(struct hp_bytes *queue, uint8_t flags, const ProtobufCMessage *m, size_t queue_max)
{
    uint8_t *to;
    size_t len = protobuf_c_message_get_packed_size(m);
    int rc = reserve(queue, len, queue_max, &to);
    if (rc)
        return rc;
    put_prefix(to, flags, len);
    size_t packed = protobuf_c_message_pack(m, to + HP_MESSAGE_PREFIX);
    assert(packed == len);
    hp_bytes_commit(queue, HP_MESSAGE_PREFIX + packed);
    return 0;
}

int hp_message_write_raw(struct hp_bytes *queue, uint8_t flags, const void *body, size_t len, size_t queue_max)
{
    uint8_t *to;
    int rc = reserve(queue, len, queue_max, &to);
    if (rc)
        return rc;
    put_prefix(to, flags, len);
    if (len > 0)
        memcpy(to + HP_MESSAGE_PREFIX, body, len);
    hp_bytes_commit(queue, HP_MESSAGE_PREFIX + len);
    return 0;
}
