#include "core/share.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"

enum { BUCKETS_FIRST = 64 };

void sc_shares_init(struct sc_shares *s, uint64_t seed)
{
    *s = (struct sc_shares){.seed = seed};
}

void sc_shares_done(struct sc_shares *s)
{
    assert(!s->count && !s->bytes);
    free(s->buckets);
    s->buckets = NULL;
    s->bucket_count = 0;
}

static struct sc_share **bucket_of(const struct sc_shares *s, uint64_t hash)
{
    assert(s->bucket_count > 0);
    return &s->buckets[hash & (s->bucket_count - 1)];
}

/* Without memory for more buckets the chains grow longer; only the first must succeed. */
static int make_room(struct sc_shares *s)
{
    if (s->count < s->bucket_count)
        return 0;
    size_t old = s->bucket_count, room = old ? 2 * old : BUCKETS_FIRST;
    struct sc_share **from = s->buckets, **to = calloc(room, sizeof(struct sc_share *));
    if (!to)
        return old ? 0 : HP_ENOMEM;
    s->buckets = to;
    s->bucket_count = room;
    for (size_t i = 0; from && i < old; i++)
        for (struct sc_share *x = from[i], *next; x; x = next) {
            struct sc_share **at = bucket_of(s, x->hash);
            next = x->chain;
            x->chain = *at;
            *at = x;
        }
    free(from);
    return 0;
}

struct sc_share *sc_share_take(struct sc_shares *s, const void *bytes, size_t len)
{
    uint64_t hash = hp_hash(s->seed, bytes, len);
    for (struct sc_share *x = s->buckets ? *bucket_of(s, hash) : NULL; x; x = x->chain)
        if (x->hash == hash && x->len == len && !memcmp(x->bytes, bytes, len)) {
            x->refs++;
            return x;
        }
    struct sc_share *x = len < UINT32_MAX ? malloc(sizeof *x + len) : NULL;
    if (!x || make_room(s)) {
        free(x);
        return NULL;
    }
    struct sc_share **at = bucket_of(s, hash);
    *x = (struct sc_share){.chain = *at, .hash = hash, .refs = 1, .len = (uint32_t)len};
    memcpy(x->bytes, bytes, len);
    *at = x;
    s->count++;
    s->bytes += len;
    return x;
}

void sc_share_give(struct sc_shares *s, struct sc_share *x)
{
    if (!x)
        return;
    assert(x->refs > 0);
    if (--x->refs > 0)
        return;
    struct sc_share **at = bucket_of(s, x->hash);
    while (*at != x)
        at = &(*at)->chain;
    *at = x->chain;
    assert(s->count > 0 && s->bytes >= x->len);
    s->count--;
    s->bytes -= x->len;
    free(x);
}
