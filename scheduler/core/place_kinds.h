/* place_kinds.h — which hosts are alike to the index of places; a part of place_index.c. */
#ifndef SC_CORE_PLACE_KINDS_H
#define SC_CORE_PLACE_KINDS_H

#include "core/place_index.h"

/* The smallest and the greatest of each resource's inverses in a size; and what the query under way costs there. */
struct sc_size {
    struct sc_inverse low, high;
    int64_t plus_p, plus_q; /* a host's score is at most min(p + plus_p, q + plus_q) */
};

struct sc_candidate {
    int64_t bound;
    uint32_t slot; /* no host of the subtree with that score has a lower one */
    uint32_t at;   /* kind, or reference into a tree */
};

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
