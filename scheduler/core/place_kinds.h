/* place_kinds.h — which hosts are alike to the index of places, and how what they have is counted there; a part of place_index.c and place_search.c. */
#ifndef SC_CORE_PLACE_KINDS_H
#define SC_CORE_PLACE_KINDS_H

#include "core/network.h"
#include "core/place_index.h"

/* The smallest and the greatest of each resource's inverses in a size; and what the query under way costs there. */
struct sc_size {
    struct sc_inverse low, high;
    int64_t plus_p, plus_q; /* a host's score is at most min(p + plus_p, q + plus_q) */
};

/* The storage classes of hosts that have the same ones. */
struct sc_class_set {
    struct sc_storage *limits;              /* the greatest of its hosts; NULL: they have none */
    uint8_t column[HP_STORAGE_CLASSES_MAX]; /* of each class, in struct sc_offer; SC_SHARES: it has none there */
    /* of the query under way: what it takes of classes that are in offers, in parts of SC_UNIT, rounded down … */
    struct sc_class_need {
        int32_t column, part;
        int64_t plus; /* what the part for storage adds to a host's share of it */
    } needs[SC_SHARES];
    int need_count;
    int32_t rest; /* … what would be left of the others at most … */
    int32_t kept; /* … and what counts for hosts that have no class beside */
};

struct sc_candidate {
    int64_t bound;
    uint32_t slot; /* no host of the subtree with that score has a lower one */
    uint32_t at;   /* kind, or reference into a tree */
};

/* Room as the trees have it: rounded up, for hosts and for requests alike. */
static inline int32_t sc_room_mebibytes(int64_t bytes)
{
    if (bytes < 0)
        return -1;
    int64_t n = (bytes >> 20) + ((bytes & ((1 << 20) - 1)) != 0);
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

static inline int32_t sc_room_millis(int64_t v)
{
    return v < 0 ? -1 : v < INT32_MAX ? (int32_t)v : INT32_MAX;
}

/* What a request that asks for no function gives for those that are taken, as leaves have it. */
static inline int64_t sc_network_base(const struct sc_index *x, uint8_t functions)
{
    return (int64_t)x->network_in_base * (SC_UNIT / SC_FUNCTIONS_PARTS * (SC_FUNCTIONS_PARTS - functions));
}

/* No kinds; forgets what there was. */
void sc_kinds_init(struct sc_index *x);
void sc_kinds_done(struct sc_index *x);
/* The kind of a host, made when there is none. HP_ENOMEM. */
int sc_kinds_of(struct sc_index *x, const struct sc_slot *s, uint32_t *ret) HP_MUST_CHECK;
/* Asserts that the kind is of hosts with these classes, and that their limits are not above its own. */
void sc_kinds_check_storage(const struct sc_index *x, uint32_t kind, const struct sc_storage *limits);
/* Makes more hosts alike; all are to be sorted anew. False: they are as alike as can be. */
bool sc_kinds_blur(struct sc_index *x, int *ret_code);

#endif
