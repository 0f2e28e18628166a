/* container_map.h — containers by their names, or by their uids: chained through the containers, which hold the keys. */
#ifndef SC_CORE_CONTAINER_MAP_H
#define SC_CORE_CONTAINER_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct sc_container;

enum sc_container_key { SC_BY_NAME, SC_BY_UID, SC_CONTAINER_KEYS };

struct sc_container_map {
    enum sc_container_key by;
    struct sc_container **buckets; /* NULL while nothing was ever put in */
    size_t bucket_count, count;    /* a power of two; containers */
    uint64_t seed;                 /* of the hash: unknown to strangers who choose names */
};

/* Allocates nothing. */
void sc_container_map_init(struct sc_container_map *m, enum sc_container_key by, uint64_t seed);
/* The containers are the caller's. */
void sc_container_map_done(struct sc_container_map *m);
/* It must not be in the map, nor another of the same key; the key stays as it is until it is taken out. HP_ENOMEM: it is not in. */
int sc_container_map_add(struct sc_container_map *m, struct sc_container *c) HP_MUST_CHECK;
/* Legal for one that is not in. */
void sc_container_map_remove(struct sc_container_map *m, struct sc_container *c);
/* NULL: there is none. */
struct sc_container *sc_container_map_find(const struct sc_container_map *m, const char *key);

#endif
