#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CAP_FIRST = 256, CAP_KEPT = 64 * 1024 };

void hp_buf_init(struct hp_buf *b, size_t len_max)
{
    *b = (struct hp_buf){.len_max = len_max};
}

void hp_buf_done(struct hp_buf *b)
{
    free(b->data);
    hp_buf_init(b, b->len_max);
}

uint8_t *hp_buf_reserve(struct hp_buf *b, size_t len)
{
    assert(b->len <= b->len_max && b->start + b->len <= b->cap);
    if (len > b->len_max - b->len)
        return NULL;
    if (len > b->cap - b->start - b->len && b->start > 0) {
        memmove(b->data, b->data + b->start, b->len);
        b->start = 0;
    }
    if (!b->data || len > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : CAP_FIRST;
        while (cap - b->len < len)
            cap *= 2; /* len_max bounds it */
        uint8_t *data = realloc(b->data, cap);
        if (!data)
            return NULL;
        b->data = data;
        b->cap = cap;
    }
    return b->data + b->start + b->len;
}

void hp_buf_commit(struct hp_buf *b, size_t len)
{
    assert(len <= b->cap - b->start - b->len);
    b->len += len;
}

int hp_buf_append(struct hp_buf *b, const void *data, size_t len)
{
    if (len == 0)
        return 0;
    if (len > b->len_max - b->len)
        return HP_ELIMIT;
    uint8_t *to = hp_buf_reserve(b, len);
    if (!to)
        return HP_ENOMEM;
    memcpy(to, data, len);
    hp_buf_commit(b, len);
    return 0;
}

void hp_buf_consume(struct hp_buf *b, size_t len)
{
    assert(len <= b->len);
    b->len -= len;
    b->start += len;
    if (b->len > 0)
        return;
    b->start = 0;
    if (b->cap > CAP_KEPT) {
        free(b->data);
        b->data = NULL;
        b->cap = 0;
    }
}

uint8_t *hp_buf_front(const struct hp_buf *b)
{
    return b->data ? b->data + b->start : NULL;
}
