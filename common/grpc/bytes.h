/* bytes.h — a byte queue in one block, and the shared budget that bounds what all queues of a server may hold. */
#ifndef HP_GRPC_BYTES_H
#define HP_GRPC_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes buffered for peers, over all connections of one server. One thread. */
struct hp_rpc_budget {
    size_t used_bytes;
    size_t max_bytes;
};
/* False when the budget is used up; `b` NULL: no limit. */
bool hp_rpc_budget_take(struct hp_rpc_budget *b, size_t bytes);
void hp_rpc_budget_give(struct hp_rpc_budget *b, size_t bytes);

/* Holds no memory while empty. Zero-initialise; set budget (may be NULL) before the first use. */
struct hp_bytes {
    uint8_t *data;                /* block of `cap` bytes, or NULL */
    size_t start, len, cap;       /* the queue is data[start .. start + len) */
    struct hp_rpc_budget *budget; /* is charged `cap` */
};
void hp_bytes_done(struct hp_bytes *b);
/* Makes room for `n` more bytes and returns where to write them, NULL when out of memory or budget; hp_bytes_commit adds what was written. */
uint8_t *hp_bytes_reserve(struct hp_bytes *b, size_t n);
void hp_bytes_commit(struct hp_bytes *b, size_t n);
bool hp_bytes_append(struct hp_bytes *b, const void *data, size_t n);
/* First byte; valid until the queue is changed. */
const uint8_t *hp_bytes_head(const struct hp_bytes *b);
void hp_bytes_consume(struct hp_bytes *b, size_t n);

#endif
