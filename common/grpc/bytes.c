#include "grpc/bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_MIN = 256 };

bool hp_rpc_budget_take(struct hp_rpc_budget *b, size_t bytes)
{
    if (!b)
        return true;
    assert(b->used_bytes <= b->max_bytes);
    if (bytes > b->max_bytes - b->used_bytes)
        return false;
    b->used_bytes += bytes;
    return true;
}

void hp_rpc_budget_give(struct hp_rpc_budget *b, size_t bytes)
{
    if (!b)
        return;
    assert(bytes <= b->used_bytes);
    b->used_bytes -= bytes;
}

void hp_bytes_done(struct hp_bytes *b)
{
    free(b->data);
    hp_rpc_budget_give(b->budget, b->cap);
    b->data = NULL;
    b->start = b->len = b->cap = 0;
}

uint8_t *hp_bytes_reserve(struct hp_bytes *b, size_t n)
{
    assert(b->start + b->len <= b->cap);
    if (b->cap - b->start - b->len >= n)
        return b->data + b->start + b->len;
    if (n > SIZE_MAX / 4 - b->len)
        return NULL;
    size_t need = b->len + n;
    if (need <= b->cap && b->start >= b->cap / 2) { /* moving at most once for each half block: linear in total */
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
        return b->data + b->len;
    }
    size_t cap = b->cap ? b->cap * 2 : BYTES_MIN;
    if (cap < need)
        cap = need;
    if (!hp_rpc_budget_take(b->budget, cap))
        return NULL;
    uint8_t *data = malloc(cap);
    if (!data) {
        hp_rpc_budget_give(b->budget, cap);
        return NULL;
    }
    if (b->len > 0)
        memcpy(data, b->data + b->start, b->len);
    free(b->data);
    hp_rpc_budget_give(b->budget, b->cap);
    b->data = data;
    b->cap = cap;
    b->start = 0;
    return data + b->len;
}

void hp_bytes_commit(struct hp_bytes *b, size_t n)
{
    assert(n <= b->cap - b->start - b->len);
    b->len += n;
}

bool hp_bytes_append(struct hp_bytes *b, const void *data, size_t n)
{
    if (n == 0)
        return true;
    uint8_t *to = hp_bytes_reserve(b, n);
    if (!to)
        return false;
    memcpy(to, data, n);
    hp_bytes_commit(b, n);
    return true;
}

const uint8_t *hp_bytes_head(const struct hp_bytes *b)
{
    return b->data ? b->data + b->start : NULL;
}

void hp_bytes_consume(struct hp_bytes *b, size_t n)
{
    assert(n <= b->len);
    b->start += n;
    b->len -= n;
    if (b->len == 0)
        hp_bytes_done(b);
}
