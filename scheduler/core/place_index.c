#include "core/place_index.h"

#include <assert.h>
#include <string.h>

#include "core/network.h"
#include "core/place_kinds.h"

enum {
    NETWORK_IN_BASE_MAX = 1000, /* beyond, leaves would need wider numbers */
    ORDER_FUNCTIONS = 29        /* bits above the skew */
};
static_assert(SC_FUNCTIONS_PARTS < 8 && 2 * SC_UNIT < 1 << ORDER_FUNCTIONS, "an order is of 32 bits");

void sc_index_init(struct sc_index *x, const struct sc_weights *weights, struct sc_topology *topology)
{
    *x = (struct sc_index){.weights = *weights, .topology = topology};
    sc_cells_init(&x->cells);
    sc_trees_init(&x->trees);
    x->network_in_base = weights->network <= NETWORK_IN_BASE_MAX ? weights->network : 0;
    x->trees.share_plus = (int64_t)weights->storage * SC_UNIT / 2;
    hp_map_init(&x->blurred, SC_TREE_LEAF, 1);
    sc_kinds_init(x);
}

void sc_index_done(struct sc_index *x)
{
    sc_kinds_done(x);
    sc_cells_done(&x->cells);
    sc_trees_done(&x->trees);
    hp_map_done(&x->blurred);
}

int sc_index_reserve(struct sc_index *x, size_t count)
{
    int code = count < SC_TREE_LEAF / 2 ? sc_trees_reserve(&x->trees, (uint32_t)count) : HP_ELIMIT;
    return code ? code : sc_cells_reserve(&x->cells, count);
}

/* ---- Hosts ---- */

/* What is left of a class, rounded up. */
static uint8_t share_of(int64_t limit, int64_t claimed)
{
    if (limit <= 0 || claimed >= limit)
        return 0;
    double v = (double)(limit - claimed) / (double)limit * UINT8_MAX;
    int whole = (int)v;
    return (uint8_t)(whole + (whole < v));
}

static struct sc_offer offer_of(const struct sc_slot *s, const struct sc_class_set *set)
{
    const struct sc_storage *limits = s->info->storage;
    struct sc_offer offer = {.modes = s->modes, .functions = (uint8_t)(s->functions << 4 | s->functions)};
    for (uint32_t i = 0; limits && i < limits->count; i++)
        if (set->column[i] < SC_SHARES)
            offer.share[set->column[i]] = share_of(limits->items[i].bytes, s->info->storage_claimed[i]);
    return offer;
}

static void leaf_of(const struct sc_index *x, const struct sc_slot *s, uint32_t kind, struct sc_leaf *ret)
{
    struct sc_host_parts h;
    sc_slot_parts(s, &x->weights, &h);
    h.base += sc_network_base(x, s->functions);
    ret->p = (int32_t)(h.base - (int64_t)x->weights.balance * h.skew);
    ret->q = (int32_t)(h.base + (int64_t)x->weights.balance * h.skew);
    ret->room[0] = sc_room_millis(s->free.cpu_millis);
    ret->room[1] = sc_room_mebibytes(s->free.memory_bytes);
    ret->room[2] = sc_room_mebibytes(s->free.disk_bytes);
    ret->room[3] = sc_network_room(sc_network_free(s->info));
    ret->offer = offer_of(s, x->storages.items[x->kinds[kind].storage]);
    ret->order = (uint32_t)(h.skew + SC_UNIT) | (uint32_t)s->functions << ORDER_FUNCTIONS;
}

static void refresh_kind(struct sc_index *x, struct sc_kind *k)
{
    if (k->root != SC_TREE_NONE)
        sc_tree_peak(&x->trees, k->root, &k->peak);
}

static void take_out(struct sc_index *x, size_t i)
{
    struct sc_leaf *l = &x->trees.leaves[i];
    if (l->tree == SC_TREE_NONE)
        return;
    struct sc_kind *k = &x->kinds[l->tree];
    sc_cells_take(&x->cells, x->topology, (uint32_t)i, l->offer.modes);
    sc_tree_remove(&x->trees, &k->root, (uint32_t)i);
    l->tree = SC_TREE_NONE;
    x->kinds_used -= k->root == SC_TREE_NONE;
    refresh_kind(x, k);
}

static bool takes_containers(const struct sc_slot *s)
{
    return s->ready && !s->cordoned;
}

static int put_in(struct sc_index *x, const struct sc_slot *s, size_t i)
{
    uint32_t kind;
    struct sc_leaf *l = &x->trees.leaves[i];
    if (!takes_containers(s))
        return 0;
    int code = sc_kinds_of(x, s, &kind);
    if (code)
        return code;
    assert(x->kinds);
    struct sc_kind *k = &x->kinds[kind];
    code = sc_cells_put(&x->cells, x->topology, (uint32_t)i, k->zone, k->labels, s->modes);
    if (code)
        return code;
    leaf_of(x, s, kind, l);
    l->tree = kind;
    x->kinds_used += k->root == SC_TREE_NONE;
    sc_tree_insert(&x->trees, &k->root, (uint32_t)i);
    refresh_kind(x, k);
    return 0;
}

/* Sorts all hosts anew. */
static int rebuild(struct sc_index *x, const struct sc_slot *slots, size_t count)
{
    for (size_t i = 0; i < count; i++)
        take_out(x, i);
    sc_kinds_done(x);
    sc_kinds_init(x);
    sc_cells_done(&x->cells);
    sc_cells_init(&x->cells);
    int reserved = sc_cells_reserve(&x->cells, x->trees.room);
    if (reserved)
        return reserved;
    for (size_t i = 0; i < count; i++) {
        int code = put_in(x, &slots[i], i);
        if (code)
            return code;
    }
    return 0;
}

int sc_index_facts(struct sc_index *x, const struct sc_slot *slots, size_t count, size_t i)
{
    assert(i < count && count <= x->trees.room);
    take_out(x, i);
    int code = put_in(x, &slots[i], i);
    bool past = (x->kind_count > 64 && x->kind_count / 4 > x->kinds_used) ||
                (x->cells.count > 64 && x->cells.count / 4 > x->cells.used);
    if (!code && past) /* most are */
        code = rebuild(x, slots, count);
    while (!code && x->kinds_used > SC_KINDS_MAX && sc_kinds_blur(x, &code))
        if (!code)
            code = rebuild(x, slots, count);
    return code;
}

void sc_index_touch(struct sc_index *x, const struct sc_slot *slots, size_t i)
{
    struct sc_leaf fresh, *l = &x->trees.leaves[i];
    assert(i < x->trees.room);
    if (l->tree == SC_TREE_NONE)
        return;
    leaf_of(x, &slots[i], l->tree, &fresh);
    struct sc_kind *k = &x->kinds[l->tree];
    sc_tree_change(&x->trees, &k->root, (uint32_t)i, &fresh);
    refresh_kind(x, k);
}

void sc_index_primaries(struct sc_index *x, size_t i, int32_t delta)
{
    sc_cells_primaries(&x->cells, x->topology, (uint32_t)i, delta);
}

void sc_index_check(const struct sc_index *x, const struct sc_slot *slots, size_t i)
{
    const struct sc_leaf *l = &x->trees.leaves[i];
    struct sc_leaf fresh;
    assert((l->tree != SC_TREE_NONE) == takes_containers(&slots[i]));
    if (l->tree == SC_TREE_NONE)
        return;
    leaf_of(x, &slots[i], l->tree, &fresh);
    assert(l->p == fresh.p && l->q == fresh.q && l->order == fresh.order);
    assert(!memcmp(l->room, fresh.room, sizeof fresh.room));
    assert(!memcmp(&l->offer, &fresh.offer, sizeof fresh.offer));
    sc_tree_check(&x->trees, (uint32_t)i);
    assert(l->offer.modes == slots[i].modes);
    sc_cells_check(&x->cells, x->topology, (uint32_t)i);
    assert(x->cells.items[x->cells.seats[i].cell].labels == x->kinds[l->tree].labels);
    assert(x->cells.items[x->cells.seats[i].cell].zone == x->kinds[l->tree].zone);
    assert(x->kinds[l->tree].breakers == slots[i].breakers);
    assert(!strcmp(x->zones.items[x->kinds[l->tree].zone], slots[i].info->pb->zone));
    sc_kinds_check_storage(x, l->tree, slots[i].info->storage);
}
