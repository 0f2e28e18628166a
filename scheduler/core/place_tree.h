/* place_tree.h — hosts of one kind in an order in which those that are alike are near each other, with the best of each subtree: what makes placing sublinear.
 *
 * A score is linear in what a host has, but for its balance: -|skew - skew of the request|, the smaller of two linear forms. So two maxima for a
 * subtree bound it for every request: `p` is exact for hosts that are on the one side of the request's skew, `q` for those on the other, and the order by skew
 * leaves few subtrees that hold both. Before the skew hosts are told apart by what is left of their network functions: who needs one leaves those out that have none at once. `room` is the most that any of its hosts has free, `offer` what any of them has of what only some containers ask for.
 *
 * A trie over the bits of (order, slot), path-compressed (a "crit-bit" tree, https://cr.yp.to/critbit.html): its shape depends on its contents only, it needs no
 * rebalancing, and an update touches one path. Hosts are named by their slot. All kinds' trees share one pool, sized once for all slots: only sc_trees_reserve
 * allocates. One thread. */
#ifndef SC_CORE_PLACE_TREE_H
#define SC_CORE_PLACE_TREE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SC_TREE_NONE UINT32_MAX  /* no node */
#define SC_TREE_LEAF 0x80000000u /* in a reference: the rest is a slot, not a fork */

enum { SC_ROOMS = 4 };  /* cpu, memory, disk, network */
enum { SC_SHARES = 2 }; /* of the storage classes that hosts have, so many */

/* What a host has beside room, or any host of a subtree. */
struct sc_offer {
    uint8_t share[SC_SHARES]; /* what is left of a storage class: 255 all, rounded up; the greatest */
    uint8_t modes;            /* of networks (network.h); of any host */
    uint8_t functions;        /* low: how much of its functions is left (network.h), the least; high (<< 4): the most */
};

/* The best of a subtree. */
struct sc_peak {
    int32_t p, q;            /* greatest of each form */
    uint32_t slot_p, slot_q; /* the first slot that has it */
    int32_t room[SC_ROOMS];  /* greatest of each */
    struct sc_offer offer;
    /* By so many units of the trees every host's p, and q, with what its share adds is below the sum of both maxima: a bound by these alone would be far too high, for those that have
     * much of one have little of the other. */
    uint8_t less_p[SC_SHARES], less_q[SC_SHARES];
};
static_assert(sizeof(struct sc_peak) == 40, "no padding: peaks are compared as bytes");

/* What the trees know of one slot. */
struct sc_leaf {
    int32_t p, q;
    int32_t room[SC_ROOMS];
    struct sc_offer offer;
    uint32_t order;  /* by what is left of functions, then by skew */
    uint32_t parent; /* fork */
    uint32_t tree;   /* whose; SC_TREE_NONE: in none. The owner's */
};

struct sc_fork {
    struct sc_peak peak;
    uint32_t child[2], parent;
    uint32_t bit; /* of the key that tells the children apart */
};

struct sc_trees {
    struct sc_leaf *leaves; /* by slot */
    struct sc_fork *forks;
    int64_t share_plus;   /* what all of a storage class adds to a score; set while they are empty */
    uint32_t room;        /* slots */
    uint32_t fork_count;  /* ever used */
    uint32_t spare_forks; /* list through child[0] */
};

void sc_trees_init(struct sc_trees *t);
void sc_trees_done(struct sc_trees *t);
/* Makes room for slots below `slots`; new ones are in no tree. HP_ENOMEM: as before. */
int sc_trees_reserve(struct sc_trees *t, uint32_t slots) HP_MUST_CHECK;
/* What a share adds to a score at most. */
static inline int64_t sc_share_plus(const struct sc_trees *t, uint8_t share)
{
    return (t->share_plus * share + UINT8_MAX - 1) / UINT8_MAX;
}
/* Greatest p, and q, with what the share of a class adds. */
static inline int64_t sc_peak_p(const struct sc_trees *t, const struct sc_peak *x, int column)
{
    return x->p + sc_share_plus(t, x->offer.share[column]) - x->less_p[column] * sc_share_plus(t, 1);
}
static inline int64_t sc_peak_q(const struct sc_trees *t, const struct sc_peak *x, int column)
{
    return x->q + sc_share_plus(t, x->offer.share[column]) - x->less_q[column] * sc_share_plus(t, 1);
}
/* The slot's leaf has its values, and is in no tree. */
void sc_tree_insert(struct sc_trees *t, uint32_t *root, uint32_t slot);
void sc_tree_remove(struct sc_trees *t, uint32_t *root, uint32_t slot);
/* Gives a slot of the tree new values (but parent and tree). */
void sc_tree_change(struct sc_trees *t, uint32_t *root, uint32_t slot, const struct sc_leaf *fresh);
/* Of a fork or leaf. */
void sc_tree_peak(const struct sc_trees *t, uint32_t ref, struct sc_peak *ret);
/* Asserts that a slot of a tree is where its key belongs. */
void sc_tree_check(const struct sc_trees *t, uint32_t slot);

#endif
