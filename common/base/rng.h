/* rng.h — seeded random numbers (xoshiro256**, https://prng.di.unimi.it): jitter and simulations; never secrets. */
#ifndef HP_BASE_RNG_H
#define HP_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct hp_rng {
    uint64_t s[4]; /* never all zero */
};

/* The same seed gives the same numbers for ever. */
void hp_rng_init(struct hp_rng *r, uint64_t seed);
uint64_t hp_rng_next(struct hp_rng *r);
/* Uniform in 0 … limit - 1; limit is at least 1. */
uint64_t hp_rng_below(struct hp_rng *r, uint64_t limit);
void hp_rng_fill(struct hp_rng *r, void *out, size_t len);

#endif
