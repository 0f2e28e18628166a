#include "base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS_FIRST = 16 };

static uint64_t rotl(uint64_t x, int b)
{
    return (x << b) | (x >> (64 - b));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t hp_hash(uint64_t seed, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t k0 = seed, k1 = ~rotl(seed, 32);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                     k1 ^ 0x7465646279746573u};
    size_t whole = len / 8;
    for (size_t i = 0; i < whole; i++, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t tail = (uint64_t)len << 56;
    for (size_t i = 0; i < len % 8; i++)
        tail |= (uint64_t)p[i] << (8 * i);
    v[3] ^= tail;
    sip_round(v);
    v[0] ^= tail;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void hp_map_init(struct hp_map *m, size_t count_max, uint64_t seed)
{
    assert(count_max > 0);
    *m = (struct hp_map){.count_max = count_max, .seed = seed};
}

void hp_map_done(struct hp_map *m)
{
    struct hp_map_node *n = m->first;
    while (n) {
        struct hp_map_node *after = n->after;
        free(n);
        n = after;
    }
    free(m->buckets);
    hp_map_init(m, m->count_max ? m->count_max : 1, m->seed);
}

/* The place that points to the node of `key`, or where it would be appended. */
static struct hp_map_node **find(const struct hp_map *m, const char *key, uint64_t hash)
{
    struct hp_map_node **at = &m->buckets[hash & (m->bucket_count - 1)];
    while (*at && ((*at)->hash != hash || strcmp((*at)->key, key) != 0))
        at = &(*at)->chain;
    return at;
}

static int grow(struct hp_map *m)
{
    size_t count = m->bucket_count ? m->bucket_count * 2 : BUCKETS_FIRST;
    struct hp_map_node **buckets = calloc(count, sizeof *buckets);
    if (!buckets)
        return HP_ENOMEM;
    for (struct hp_map_node *n = m->first; n; n = n->after) {
        struct hp_map_node **at = &buckets[n->hash & (count - 1)];
        n->chain = *at;
        *at = n;
    }
    free(m->buckets);
    m->buckets = buckets;
    m->bucket_count = count;
    return 0;
}

int hp_map_put(struct hp_map *m, const char *key, void *value, void **ret_old)
{
    assert(key && m->count_max > 0);
    size_t len = strlen(key);
    uint64_t hash = hp_hash(m->seed, key, len);
    struct hp_map_node **at = m->buckets ? find(m, key, hash) : NULL;
    if (at && *at) {
        if (ret_old)
            *ret_old = (*at)->value;
        (*at)->value = value;
        return 0;
    }
    if (m->count >= m->count_max)
        return HP_ELIMIT;
    if (m->count >= m->bucket_count && grow(m) < 0)
        return HP_ENOMEM;
    struct hp_map_node *n = malloc(sizeof *n + len + 1);
    if (!n)
        return HP_ENOMEM;
    *n = (struct hp_map_node){.value = value, .hash = hash, .before = m->last};
    memcpy(n->key, key, len + 1);
    *find(m, key, hash) = n;
    *(m->last ? &m->last->after : &m->first) = n;
    m->last = n;
    m->count++;
    if (ret_old)
        *ret_old = NULL;
    return 0;
}

static struct hp_map_node *lookup(const struct hp_map *m, const char *key)
{
    return m->count ? *find(m, key, hp_hash(m->seed, key, strlen(key))) : NULL;
}

void *hp_map_get(const struct hp_map *m, const char *key)
{
    struct hp_map_node *n = lookup(m, key);
    return n ? n->value : NULL;
}

const char *hp_map_key(const struct hp_map *m, const char *key)
{
    const struct hp_map_node *n = lookup(m, key);
    return n ? n->key : NULL;
}

void *hp_map_remove(struct hp_map *m, const char *key)
{
    if (!m->count)
        return NULL;
    struct hp_map_node **at = find(m, key, hp_hash(m->seed, key, strlen(key)));
    struct hp_map_node *n = *at;
    if (!n)
        return NULL;
    *at = n->chain;
    *(n->before ? &n->before->after : &m->first) = n->after;
    *(n->after ? &n->after->before : &m->last) = n->before;
    assert(m->count > 0);
    m->count--;
    void *value = n->value;
    free(n);
    return value;
}

struct hp_map_node *hp_map_first(const struct hp_map *m)
{
    return m->first;
}

struct hp_map_node *hp_map_next(const struct hp_map_node *n)
{
    return n->after;
}
