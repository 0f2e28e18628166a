#include "core/container_map.h"

#include <stdlib.h>
#include <string.h>

#include "core/state.h"

enum { BUCKETS_FIRST = 64 };

static const char *key_of(const struct sc_container_map *m, const struct sc_container *c)
{
    return m->by == SC_BY_NAME ? c->name : c->uid;
}

static struct sc_container **bucket_of(const struct sc_container_map *m, const char *key)
{
    assert(m->bucket_count > 0);
    return &m->buckets[hp_hash(m->seed, key, strlen(key)) & (m->bucket_count - 1)];
}

void sc_container_map_init(struct sc_container_map *m, enum sc_container_key by, uint64_t seed)
{
    *m = (struct sc_container_map){.by = by, .seed = seed};
}

void sc_container_map_done(struct sc_container_map *m)
{
    free(m->buckets);
    sc_container_map_init(m, m->by, m->seed);
}

static void put(struct sc_container_map *m, struct sc_container *c)
{
    struct sc_container **at = bucket_of(m, key_of(m, c));
    c->chain[m->by] = *at;
    *at = c;
}

/* Without memory for more buckets the chains grow longer; only the first must succeed. */
static int make_room(struct sc_container_map *m)
{
    if (m->count < m->bucket_count)
        return 0;
    size_t old = m->bucket_count, room = old ? 2 * old : BUCKETS_FIRST;
    struct sc_container **from = m->buckets, **to = calloc(room, sizeof(struct sc_container *));
    if (!to)
        return old ? 0 : HP_ENOMEM;
    m->buckets = to;
    m->bucket_count = room;
    for (size_t i = 0; from && i < old; i++)
        for (struct sc_container *c = from[i], *next; c; c = next) {
            next = c->chain[m->by];
            put(m, c);
        }
    free(from);
    return 0;
}

int sc_container_map_add(struct sc_container_map *m, struct sc_container *c)
{
    if (make_room(m))
        return HP_ENOMEM;
    put(m, c);
    m->count++;
    return 0;
}

void sc_container_map_remove(struct sc_container_map *m, struct sc_container *c)
{
    struct sc_container **at = m->buckets ? bucket_of(m, key_of(m, c)) : NULL;
    while (at && *at && *at != c)
        at = &(*at)->chain[m->by];
    if (!at || !*at)
        return;
    *at = c->chain[m->by];
    c->chain[m->by] = NULL;
    assert(m->count > 0);
    m->count--;
}

struct sc_container *sc_container_map_find(const struct sc_container_map *m, const char *key)
{
    struct sc_container *c = m->buckets ? *bucket_of(m, key) : NULL;
    while (c && strcmp(key_of(m, c), key) != 0)
        c = c->chain[m->by];
    return c;
}
