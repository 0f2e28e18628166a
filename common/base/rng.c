#include "base/rng.h"

#include <assert.h>
#include <string.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* splitmix64 spreads the seed over the state. */
void hp_rng_init(struct hp_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
    assert(r->s[0] | r->s[1] | r->s[2] | r->s[3]);
}

uint64_t hp_rng_next(struct hp_rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t hp_rng_below(struct hp_rng *r, uint64_t limit)
{
    assert(limit > 0);
    uint64_t cut = -limit % limit; /* numbers below it would make the low ones likelier */
    uint64_t x;
    do
        x = hp_rng_next(r);
    while (x < cut);
    return x % limit;
}

void hp_rng_fill(struct hp_rng *r, void *out, size_t len)
{
    uint8_t *p = out;
    while (len > 0) {
        uint64_t x = hp_rng_next(r);
        size_t n = len < sizeof x ? len : sizeof x;
        memcpy(p, &x, n);
        p += n;
        len -= n;
    }
}
