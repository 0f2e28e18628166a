/* map.h — a bounded hash map from strings to pointers; iterates in the order of insertion, so that runs repeat exactly. */
#ifndef HP_BASE_MAP_H
#define HP_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct hp_map_node {
    void *value;                        /* the owner's; not freed by the map */
    uint64_t hash;                      /* private */
    struct hp_map_node *chain;          /* private: next in the bucket */
    struct hp_map_node *before, *after; /* private: order of insertion */
    char key[];                         /* the map's copy */
};

struct hp_map {
    struct hp_map_node **buckets;     /* power of two, NULL while empty */
    size_t bucket_count;              /* 0 while empty */
    size_t count;                     /* entries */
    size_t count_max;                 /* entries allowed */
    uint64_t seed;                    /* of the hash (SipHash-1-3): unknown to strangers who choose keys */
    struct hp_map_node *first, *last; /* order of insertion */
};

/* Allocates nothing. */
void hp_map_init(struct hp_map *m, size_t count_max, uint64_t seed);
/* Frees the entries, not the values. */
void hp_map_done(struct hp_map *m);

/* Copies `key`. A value under the same key is replaced, and handed out in *ret_old (may be NULL; set to NULL when there was none). HP_ELIMIT when full, HP_ENOMEM; then nothing changed. */
int hp_map_put(struct hp_map *m, const char *key, void *value, void **ret_old) HP_MUST_CHECK;
/* NULL when there is none. */
void *hp_map_get(const struct hp_map *m, const char *key);
/* The map's own copy of a key, valid until its entry is removed; NULL when there is none. */
const char *hp_map_key(const struct hp_map *m, const char *key);
/* Removes and returns the value; NULL when there was none. */
void *hp_map_remove(struct hp_map *m, const char *key);

/* Iteration. The current node may be removed when its successor was fetched before. */
struct hp_map_node *hp_map_first(const struct hp_map *m);
struct hp_map_node *hp_map_next(const struct hp_map_node *n);

/* SipHash-1-3 of `len` bytes (https://www.aumasson.jp/siphash/siphash.pdf), keyed by `seed`. */
uint64_t hp_hash(uint64_t seed, const void *data, size_t len);

#endif
