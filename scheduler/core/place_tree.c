#include "core/place_tree.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void sc_trees_init(struct sc_trees *t)
{
    *t = (struct sc_trees){.spare_forks = SC_TREE_NONE};
}

void sc_trees_done(struct sc_trees *t)
{
    free(t->leaves);
    free(t->forks);
    sc_trees_init(t);
}

int sc_trees_reserve(struct sc_trees *t, uint32_t slots)
{
    assert(slots < SC_TREE_LEAF / 2);
    if (slots <= t->room)
        return 0;
    uint32_t room = t->room ? t->room : 64;
    while (room < slots)
        room *= 2;
    struct sc_leaf *leaves = realloc(t->leaves, room * sizeof *leaves);
    if (!leaves)
        return HP_ENOMEM;
    t->leaves = leaves;
    struct sc_fork *forks = realloc(t->forks, room * sizeof *forks);
    if (!forks)
        return HP_ENOMEM;
    t->forks = forks;
    for (uint32_t i = t->room; i < room; i++)
        leaves[i] = (struct sc_leaf){.parent = SC_TREE_NONE, .tree = SC_TREE_NONE};
    t->room = room;
    return 0;
}

static uint64_t key_of(const struct sc_trees *t, uint32_t slot)
{
    return (uint64_t)t->leaves[slot].order << 32 | slot;
}

static void leaf_peak(const struct sc_leaf *l, uint32_t slot, struct sc_peak *ret)
{
    ret->p = l->p;
    ret->q = l->q;
    ret->slot_p = ret->slot_q = slot;
    memcpy(ret->room, l->room, sizeof ret->room);
    ret->offer = l->offer;
    memset(ret->less_p, 0, sizeof ret->less_p);
    memset(ret->less_q, 0, sizeof ret->less_q);
}

void sc_tree_peak(const struct sc_trees *t, uint32_t ref, struct sc_peak *ret)
{
    assert(ref != SC_TREE_NONE);
    if (ref & SC_TREE_LEAF)
        leaf_peak(&t->leaves[ref & ~SC_TREE_LEAF], ref & ~SC_TREE_LEAF, ret);
    else
        *ret = t->forks[ref].peak;
}

static int64_t greater(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void merge_offers(struct sc_offer *a, const struct sc_offer *b)
{
    uint8_t low = a->functions & 15, high = a->functions >> 4;
    for (int i = 0; i < SC_SHARES; i++)
        a->share[i] = (uint8_t)greater(a->share[i], b->share[i]);
    a->modes |= b->modes;
    low = (b->functions & 15) < low ? b->functions & 15 : low;
    high = (uint8_t)greater(high, b->functions >> 4);
    a->functions = (uint8_t)(high << 4 | low);
}

/* The gap in units, rounded down. Never more than 255: one of both maxima is that of a host, and what it may lack of the other is at most a whole share. */
static uint8_t units(const struct sc_trees *t, int64_t gap)
{
    int64_t n = t->share_plus ? gap / sc_share_plus(t, 1) : 0;
    return (uint8_t)(n < UINT8_MAX ? n : UINT8_MAX);
}

static void merge(const struct sc_trees *t, const struct sc_peak *a, const struct sc_peak *b, struct sc_peak *ret)
{
    bool p = b->p > a->p || (b->p == a->p && b->slot_p < a->slot_p);
    bool q = b->q > a->q || (b->q == a->q && b->slot_q < a->slot_q);
    *ret = *a;
    ret->p = p ? b->p : a->p;
    ret->slot_p = p ? b->slot_p : a->slot_p;
    ret->q = q ? b->q : a->q;
    ret->slot_q = q ? b->slot_q : a->slot_q;
    for (int i = 0; i < SC_ROOMS; i++)
        ret->room[i] = b->room[i] > a->room[i] ? b->room[i] : a->room[i];
    if (memcmp(&a->offer, &b->offer, sizeof a->offer) != 0)
        merge_offers(&ret->offer, &b->offer);
    for (int i = 0; i < SC_SHARES; i++) {
        ret->less_p[i] = ret->less_q[i] = 0;
        if (!ret->offer.share[i])
            continue;
        ret->less_p[i] = units(t, sc_peak_p(t, ret, i) - greater(sc_peak_p(t, a, i), sc_peak_p(t, b, i)));
        ret->less_q[i] = units(t, sc_peak_q(t, ret, i) - greater(sc_peak_q(t, a, i), sc_peak_q(t, b, i)));
    }
}

/* From its children. True: it has changed. */
static bool refresh(struct sc_trees *t, uint32_t ref)
{
    struct sc_fork *f = &t->forks[ref];
    struct sc_peak a, b, fresh;
    sc_tree_peak(t, f->child[0], &a);
    sc_tree_peak(t, f->child[1], &b);
    merge(t, &a, &b, &fresh);
    if (!memcmp(&fresh, &f->peak, sizeof fresh))
        return false;
    f->peak = fresh;
    return true;
}

/* From a fork upward, as far as anything changes. */
static void raise_peaks(struct sc_trees *t, uint32_t ref)
{
    while (ref != SC_TREE_NONE && refresh(t, ref))
        ref = t->forks[ref].parent;
}

static void set_parent(struct sc_trees *t, uint32_t ref, uint32_t parent)
{
    if (ref & SC_TREE_LEAF)
        t->leaves[ref & ~SC_TREE_LEAF].parent = parent;
    else
        t->forks[ref].parent = parent;
}

/* Puts `fresh` where `old` was below `parent`. */
static void relink(struct sc_trees *t, uint32_t *root, uint32_t parent, uint32_t old, uint32_t fresh)
{
    if (parent == SC_TREE_NONE) {
        assert(*root == old);
        *root = fresh;
    } else {
        struct sc_fork *f = &t->forks[parent];
        assert(f->child[0] == old || f->child[1] == old);
        f->child[f->child[1] == old] = fresh;
    }
    set_parent(t, fresh, parent);
}

static uint32_t fork_new(struct sc_trees *t)
{
    uint32_t ref = t->spare_forks;
    if (ref == SC_TREE_NONE) {
        assert(t->fork_count < t->room);
        return t->fork_count++;
    }
    t->spare_forks = t->forks[ref].child[0];
    return ref;
}

void sc_tree_insert(struct sc_trees *t, uint32_t *root, uint32_t slot)
{
    assert(slot < t->room && t->leaves[slot].parent == SC_TREE_NONE);
    uint64_t key = key_of(t, slot);
    uint32_t ref = *root, parent = SC_TREE_NONE, leaf = slot | SC_TREE_LEAF;
    if (ref == SC_TREE_NONE) {
        *root = leaf;
        return;
    }
    while (!(ref & SC_TREE_LEAF))
        ref = t->forks[ref].child[key >> t->forks[ref].bit & 1];
    uint64_t differs = key ^ key_of(t, ref & ~SC_TREE_LEAF);
    assert(differs);
    uint32_t bit = 63u - (uint32_t)__builtin_clzll(differs);
    for (ref = *root; !(ref & SC_TREE_LEAF) && t->forks[ref].bit > bit;) {
        parent = ref;
        ref = t->forks[ref].child[key >> t->forks[ref].bit & 1];
    }
    uint32_t fresh = fork_new(t), side = key >> bit & 1;
    struct sc_fork *f = &t->forks[fresh];
    *f = (struct sc_fork){.bit = bit};
    relink(t, root, parent, ref, fresh);
    f->child[side] = leaf;
    f->child[!side] = ref;
    set_parent(t, leaf, fresh);
    set_parent(t, ref, fresh);
    (void)refresh(t, fresh);
    raise_peaks(t, parent);
}

void sc_tree_remove(struct sc_trees *t, uint32_t *root, uint32_t slot)
{
    uint32_t parent = t->leaves[slot].parent, leaf = slot | SC_TREE_LEAF;
    t->leaves[slot].parent = SC_TREE_NONE;
    if (parent == SC_TREE_NONE) {
        assert(*root == leaf);
        *root = SC_TREE_NONE;
        return;
    }
    struct sc_fork *f = &t->forks[parent];
    assert(f->child[0] == leaf || f->child[1] == leaf);
    uint32_t above = f->parent;
    relink(t, root, above, parent, f->child[f->child[0] == leaf]);
    f->child[0] = t->spare_forks;
    t->spare_forks = parent;
    raise_peaks(t, above);
}

void sc_tree_change(struct sc_trees *t, uint32_t *root, uint32_t slot, const struct sc_leaf *fresh)
{
    struct sc_leaf *l = &t->leaves[slot];
    uint32_t parent = l->parent;
    uint64_t moves = (uint64_t)(l->order ^ fresh->order) << 32;
    /* Every fork above tells its children apart by a bit at or above its parent's: below that the key may change in place. */
    bool stays = parent == SC_TREE_NONE || !(moves >> t->forks[parent].bit);
    if (!stays)
        sc_tree_remove(t, root, slot);
    uint32_t tree = l->tree, at = l->parent;
    *l = *fresh;
    l->tree = tree;
    l->parent = at;
    if (stays)
        raise_peaks(t, parent);
    else
        sc_tree_insert(t, root, slot);
}

void sc_tree_check(const struct sc_trees *t, uint32_t slot)
{
    uint64_t key = key_of(t, slot);
    uint32_t ref = slot | SC_TREE_LEAF, bit = 0;
    for (uint32_t up = t->leaves[slot].parent; up != SC_TREE_NONE; ref = up, up = t->forks[up].parent) {
        const struct sc_fork *f = &t->forks[up];
        assert(f->child[key >> f->bit & 1] == ref);
        assert(ref == (slot | SC_TREE_LEAF) || f->bit > bit);
        bit = f->bit;
    }
}
