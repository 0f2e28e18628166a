#include "wire/batch.h"

#include <assert.h>
#include <string.h>

enum { TAG = 1 << 3 | 2, VARINT_MAX = 5 }; /* field 1, length-delimited; lengths below 2^32 */

static size_t varint_size(size_t value)
{
    size_t n = 1;
    for (; value >= 0x80; value >>= 7)
        n++;
    return n;
}

size_t hp_batch_size(size_t len)
{
    assert(len <= UINT32_MAX);
    return 1 + varint_size(len) + len;
}

uint8_t *hp_batch_put(uint8_t *at, const void *data, size_t len)
{
    size_t rest = len;
    assert(len <= UINT32_MAX);
    *at++ = TAG;
    for (; rest >= 0x80; rest >>= 7)
        *at++ = (uint8_t)(rest | 0x80);
    *at++ = (uint8_t)rest;
    if (len)
        memcpy(at, data, len);
    return at + len;
}

int hp_batch_next(const uint8_t **at, size_t *left, const uint8_t **ret, size_t *ret_len)
{
    if (*left == 0)
        return 0;
    uint64_t len = 0;
    size_t n = 1;
    if ((*at)[0] != TAG)
        return HP_EINVAL;
    for (unsigned shift = 0;; shift += 7) {
        if (n == *left || n > VARINT_MAX)
            return HP_EINVAL;
        uint8_t byte = (*at)[n++];
        len |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80))
            break;
    }
    if (len > *left - n)
        return HP_EINVAL;
    *ret = *at + n;
    *ret_len = (size_t)len;
    *at += n + (size_t)len;
    *left -= n + (size_t)len;
    return 1;
}
