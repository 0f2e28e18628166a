/* place_tree.h — hosts of one kind in the order of their skew, with the best of each subtree: what makes placing sublinear.
 *
 * A score is linear in what a host has, but for its balance: -|skew - skew of the request|, the smaller of two linear forms. So two maxima for a
 * subtree bound it for every request: `p` is exact for hosts that are on the one side of the request's skew, `q` for those on the other, and the order by skew
 * leaves few subtrees that hold both. `room` is the most that any of its hosts has free.
 *
 * A trie over the bits of (skew, slot), path-compressed (a "crit-bit" tree, https://cr.yp.to/critbit.html): its shape depends on its contents only, it needs no
 * rebalancing, and an update touches one path. Hosts are named by their slot. All kinds' trees share one pool, sized once for all slots: only sc_trees_reserve
 * allocates. One thread. */
#ifndef SC_CORE_PLACE_TREE_H
#define SC_CORE_PLACE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SC_TREE_NONE UINT32_MAX  /* no node */
#define SC_TREE_LEAF 0x80000000u /* in a reference: the rest is a slot, not a fork */

enum { SC_ROOMS = 4 }; /* cpu, memory, disk, network */

/* The best of a subtree. */
struct sc_peak {
    int32_t p, q;            /* greatest of each form */
    uint32_t slot_p, slot_q; /* the first slot that has it */
    int32_t room[SC_ROOMS];  /* greatest of each */
};

/* What the trees know of one slot. */
struct sc_leaf {
    int32_t p, q;
    int32_t room[SC_ROOMS];
    uint32_t skew;   /* the order */
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
    uint32_t room;        /* slots */
    uint32_t fork_count;  /* ever used */
    uint32_t spare_forks; /* list through child[0] */
};

void sc_trees_init(struct sc_trees *t);
void sc_trees_done(struct sc_trees *t);
/* Makes room for slots below `slots`; new ones are in no tree. HP_ENOMEM: as before. */
int sc_trees_reserve(struct sc_trees *t, uint32_t slots) HP_MUST_CHECK;
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
