/* share.h — equal runs of bytes, kept once and counted. */
#ifndef SC_CORE_SHARE_H
#define SC_CORE_SHARE_H

#include <stddef.h>
#include <stdint.h>

struct sc_share {
    struct sc_share *chain; /* next in the bucket */
    uint64_t hash;
    uint32_t refs, len;
    uint8_t bytes[];
};

struct sc_shares {
    struct sc_share **buckets;         /* NULL while nothing was ever kept */
    size_t bucket_count, count, bytes; /* a power of two; of different ones; in all of them */
    uint64_t seed;                     /* of the hash: unknown to strangers who choose what is kept */
};

/* Allocates nothing. */
void sc_shares_init(struct sc_shares *s, uint64_t seed);
/* All that were taken must have been given back. */
void sc_shares_done(struct sc_shares *s);
/* The kept copy, counted once more; NULL: no memory. */
struct sc_share *sc_share_take(struct sc_shares *s, const void *bytes, size_t len);
/* Counted once less; NULL is legal. */
void sc_share_give(struct sc_shares *s, struct sc_share *x);

#endif
