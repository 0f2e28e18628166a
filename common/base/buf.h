/* buf.h — a growing run of bytes with an upper limit: appended at the end, consumed at the front. */
#ifndef HP_BASE_BUF_H
#define HP_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hp_buf {
    uint8_t *data;  /* `len` bytes from data + start */
    size_t start;   /* consumed, not yet given back */
    size_t len;     /* bytes held */
    size_t cap;     /* allocated */
    size_t len_max; /* bytes that may be held */
};

/* Allocates nothing. */
void hp_buf_init(struct hp_buf *b, size_t len_max);
void hp_buf_done(struct hp_buf *b);
/* Copies all or nothing. HP_ELIMIT over len_max, HP_ENOMEM. */
int hp_buf_append(struct hp_buf *b, const void *data, size_t len) HP_MUST_CHECK;
/* Makes room for `len` more bytes and returns where they go, to be followed by hp_buf_commit; NULL over len_max or without memory. */
uint8_t *hp_buf_reserve(struct hp_buf *b, size_t len);
void hp_buf_commit(struct hp_buf *b, size_t len);
/* Drops `len` bytes, at most hp_buf.len, from the front; an empty buffer gives its memory back when it is large. */
void hp_buf_consume(struct hp_buf *b, size_t len);
/* The first byte held; NULL when nothing was ever appended. */
uint8_t *hp_buf_front(const struct hp_buf *b);

#endif
