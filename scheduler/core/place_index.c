#include "core/place_index.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/network.h"
#include "core/place_kinds.h"

void sc_index_init(struct sc_index *x, const struct sc_weights *weights, struct sc_topology *topology)
{
    *x = (struct sc_index){.weights = *weights, .topology = topology};
    sc_cells_init(&x->cells);
    sc_trees_init(&x->trees);
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

static int32_t mebibytes(int64_t bytes)
{
    if (bytes < 0)
        return -1;
    int64_t n = (bytes >> 20) + ((bytes & ((1 << 20) - 1)) != 0);
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

static int32_t millis(int64_t v)
{
    return v < 0 ? -1 : v < INT32_MAX ? (int32_t)v : INT32_MAX;
}

static void leaf_of(const struct sc_index *x, const struct sc_slot *s, struct sc_leaf *ret)
{
    struct sc_host_parts h;
    sc_slot_parts(s, &x->weights, &h);
    ret->p = (int32_t)(h.base - (int64_t)x->weights.balance * h.skew);
    ret->q = (int32_t)(h.base + (int64_t)x->weights.balance * h.skew);
    ret->room[0] = millis(s->free.cpu_millis);
    ret->room[1] = mebibytes(s->free.memory_bytes);
    ret->room[2] = mebibytes(s->free.disk_bytes);
    ret->room[3] = sc_network_room(sc_network_free(s->info));
    ret->skew = (uint32_t)(h.skew + SC_UNIT);
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
    sc_cells_take(&x->cells, x->topology, (uint32_t)i);
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
    code = sc_cells_put(&x->cells, x->topology, (uint32_t)i, k->zone, k->labels);
    if (code)
        return code;
    leaf_of(x, s, l);
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
    leaf_of(x, &slots[i], &fresh);
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
    leaf_of(x, &slots[i], &fresh);
    assert(l->p == fresh.p && l->q == fresh.q && l->skew == fresh.skew);
    assert(!memcmp(l->room, fresh.room, sizeof fresh.room));
    sc_tree_check(&x->trees, (uint32_t)i);
    sc_cells_check(&x->cells, x->topology, (uint32_t)i);
    assert(x->cells.items[x->cells.seats[i].cell].labels == x->kinds[l->tree].labels);
    assert(x->cells.items[x->cells.seats[i].cell].zone == x->kinds[l->tree].zone);
    assert(x->kinds[l->tree].breakers == slots[i].breakers && x->kinds[l->tree].functions == slots[i].functions);
    assert(sc_network_modes(x->labels.items[x->kinds[l->tree].labels]) == slots[i].modes);
    assert(!strcmp(x->zones.items[x->kinds[l->tree].zone], slots[i].info->pb->zone));
    sc_kinds_check_storage(x, l->tree, slots[i].info->storage);
}

/* ---- Searching ---- */

struct search {
    struct sc_index *index;
    const struct sc_slot *slots;
    size_t count;
    const struct sc_query *query;
    int32_t need[SC_ROOMS]; /* in units of room; INT32_MIN: none */
    int64_t plus_p, plus_q; /* of the kind being searched */
    int64_t plus_image;     /* each host is taken to have it; 0: none that was not looked at has */
    int64_t best;           /* score found; -1 none */
    uint32_t best_slot;
};

static inline bool beats(const struct search *s, int64_t score, uint32_t slot)
{
    return score > s->best || (score == s->best && slot < s->best_slot);
}

static inline bool has_room(const struct search *s, const int32_t *room)
{
    return room[0] >= s->need[0] && room[1] >= s->need[1] && room[2] >= s->need[2] && room[3] >= s->need[3];
}

/* No host of the subtree scores more; and none that scores as much has a lower slot. */
static inline void bound_of(const struct sc_peak *peak, int64_t plus_p, int64_t plus_q, struct sc_candidate *ret)
{
    int64_t p = peak->p + plus_p, q = peak->q + plus_q;
    ret->bound = p < q ? p : q;
    if (p != q)
        ret->slot = p < q ? peak->slot_p : peak->slot_q;
    else
        ret->slot = peak->slot_p > peak->slot_q ? peak->slot_p : peak->slot_q;
}

static void look_at(struct search *s, uint32_t slot)
{
    const struct sc_slot *host = &s->slots[slot];
    struct sc_score score;
    s->index->work.hosts++;
    if (sc_slot_check(host, s->query) != SC_FITS)
        return;
    sc_slot_score(host, s->query, &score);
    if (beats(s, score.total, slot)) {
        s->best = score.total;
        s->best_slot = slot;
    }
}

/* What may hold a better host than the best so far. */
static inline bool promising(const struct search *s, uint32_t ref, struct sc_candidate *ret)
{
    const int32_t *room;
    ret->at = ref;
    if (ref & SC_TREE_LEAF) {
        const struct sc_leaf *l = &s->index->trees.leaves[ref & ~SC_TREE_LEAF];
        int64_t p = l->p + s->plus_p, q = l->q + s->plus_q;
        ret->bound = p < q ? p : q;
        ret->slot = ref & ~SC_TREE_LEAF;
        room = l->room;
    } else {
        const struct sc_peak *peak = &s->index->trees.forks[ref].peak;
        bound_of(peak, s->plus_p, s->plus_q, ret);
        room = peak->room;
    }
    return beats(s, ret->bound, ret->slot) && has_room(s, room);
}

static void search_tree(struct search *s, const struct sc_candidate *from)
{
    struct sc_candidate stack[72], a, b; /* one for each bit of a key, and some */
    int depth = 0;
    stack[depth++] = *from;
    while (depth) {
        struct sc_candidate c = stack[--depth];
        if (!beats(s, c.bound, c.slot))
            continue;
        while (!(c.at & SC_TREE_LEAF)) {
            const struct sc_fork *f = &s->index->trees.forks[c.at];
            s->index->work.subtrees += 2;
            bool left = promising(s, f->child[0], &a), right = promising(s, f->child[1], &b);
            if (!left && !right)
                break;
            bool go_right = !left || (right && (b.bound > a.bound || (b.bound == a.bound && b.slot < a.slot)));
            if (left && right) {
                assert(depth < 72);
                stack[depth++] = go_right ? a : b;
            }
            c = go_right ? b : a;
        }
        if (c.at & SC_TREE_LEAF)
            look_at(s, c.at & ~SC_TREE_LEAF);
    }
}

/* Least cost of `need` in a size, for a coefficient of either sign. */
static int64_t least(int64_t coefficient, int64_t need, float low, float high)
{
    return coefficient * sc_part(need, coefficient > 0 ? low : high);
}

static void price(struct sc_index *x, const struct sc_query *q)
{
    const struct sc_weights *w = &x->weights;
    const int64_t b = w->balance, sign = w->pack ? -1 : 1;
    const int64_t cpu = sign * w->cpu, memory = sign * w->memory;
    for (uint32_t i = 0; i < x->sizes.count; i++) {
        struct sc_size *z = x->sizes.items[i];
        int64_t disk = least(sign * w->disk, q->need.disk_bytes, z->low.disk, z->high.disk);
        z->plus_p = -least(cpu - b, q->need.cpu_millis, z->low.cpu, z->high.cpu) -
                    least(memory + b, q->need.memory_bytes, z->low.memory, z->high.memory) - disk;
        z->plus_q = -least(cpu + b, q->need.cpu_millis, z->low.cpu, z->high.cpu) -
                    least(memory - b, q->need.memory_bytes, z->low.memory, z->high.memory) - disk;
    }
}

static void filter_facets(struct sc_index *x, const struct sc_query *q)
{
    for (uint32_t i = 0; i < x->zones.count; i++)
        x->zones.fits[i] = !q->spec || sc_zone_fits(q->spec, x->zones.items[i]);
    for (uint32_t i = 0; i < x->labels.count; i++)
        x->labels.fits[i] = !(q->mode & ~sc_network_modes(x->labels.items[i])) &&
                            !sc_taint_against(q->spec, x->labels.items[i]) &&
                            (!q->spec || sc_labels_fit(q->spec, x->labels.items[i], &x->blurred));
    for (uint32_t i = 0; i < x->storages.count; i++)
        x->storages.fits[i] = sc_storage_could(x->storages.items[i], q);
}

/* Whether labels tell for certain which hosts fit. */
static bool exact(const struct sc_index *x, const struct sc_query *q)
{
    for (size_t i = 0; q->spec && i < q->spec->n_host_labels; i++)
        if (hp_map_get(&x->blurred, q->spec->host_labels[i]->key))
            return false;
    for (size_t i = 0; q->spec && i < q->spec->n_label_expressions; i++)
        if (hp_map_get(&x->blurred, q->spec->label_expressions[i]->key))
            return false;
    return true;
}

/* As sc_place_survey, after filter_facets. */
static void survey(const struct search *s)
{
    const struct sc_query *q = s->query;
    struct sc_index *x = s->index;
    uint32_t hosts = 0;
    if (!exact(x, q)) {
        sc_place_survey(s->slots, s->count, q);
        return;
    }
    sc_survey_begin(x->topology);
    for (uint32_t i = 0; i < x->cells.count; i++) {
        const struct sc_cell *c = &x->cells.items[i];
        if (!c->hosts || !x->labels.fits[c->labels] || !x->zones.fits[c->zone])
            continue;
        sc_survey_see(x->topology, c->rack, c->least, 0);
        hosts += c->hosts;
    }
    if (q->spread && hosts <= x->topology->marked_hosts) /* there may be none without */
        sc_place_survey(s->slots, s->count, q);
    else
        sc_survey_end(x->topology);
}

/* What a zone can have at most of the group's spread, and whether it may have one more of the group. */
static int64_t spread_plus(const struct search *s, const char *zone, unsigned char *fits)
{
    const struct sc_query *q = s->query;
    const struct sc_topology *t = q->topology;
    uintptr_t found = (uintptr_t)hp_map_get(&t->zone_ids, zone);
    struct sc_excess e = {{0}};
    int64_t plus = 0;
    if (!found) /* of the past */
        return 0;
    if (q->spread) {
        e.at[SC_LEVEL_ZONE] = sc_survey_zone_members(t, (uint32_t)(found - 1));
        plus += (int64_t)q->weights->spread * sc_spread_part(&e);
        *fits &= !q->max_skew[SC_LEVEL_ZONE] || e.at[SC_LEVEL_ZONE] + 1 <= q->max_skew[SC_LEVEL_ZONE];
    }
    return plus;
}

static int64_t primaries_plus(const struct sc_query *q, const char *zone)
{
    uintptr_t found = (uintptr_t)hp_map_get(&q->topology->zone_ids, zone);
    struct sc_excess e = {{0}};
    if (!found)
        return 0;
    e.at[SC_LEVEL_ZONE] = sc_survey_zone_primaries(q->topology, (uint32_t)(found - 1));
    return (int64_t)q->weights->primaries * sc_spread_part(&e);
}

static void price_facets(struct search *s)
{
    const struct sc_query *q = s->query;
    struct sc_index *x = s->index;
    bool spread = q->spread || q->primary;
    if (spread)
        survey(s);
    for (uint32_t i = 0; i < x->zones.count; i++) {
        x->zones.plus[i] = spread && x->zones.fits[i] ? spread_plus(s, x->zones.items[i], &x->zones.fits[i]) : 0;
        x->zones.primaries[i] = q->primary ? primaries_plus(q, x->zones.items[i]) : 0;
    }
    for (uint32_t i = 0; i < x->labels.count; i++)
        x->labels.plus[i] =
            q->spec && q->spec->n_preferences && x->labels.fits[i]
                ? (int64_t)q->weights->preferences * sc_preferences_part(q, x->labels.items[i], &x->blurred)
                : 0;
    for (uint32_t i = 0; i < x->storages.count; i++)
        x->storages.plus[i] = q->storage_counts && x->storages.fits[i]
                                  ? (int64_t)q->weights->storage * sc_storage_part(x->storages.items[i], NULL, q)
                                  : 0;
}

static int64_t network_plus(const struct sc_query *q, const struct sc_kind *k)
{
    return q->network ? (int64_t)q->weights->network * sc_network_part(k->functions, q) : 0;
}

/* Of the parts that are asked for, what hosts of the kind have at most, but for primaries. */
static int64_t facets_plus(const struct search *s, const struct sc_kind *k)
{
    const struct sc_index *x = s->index;
    return x->zones.plus[k->zone] + x->labels.plus[k->labels] + x->storages.plus[k->storage] +
           network_plus(s->query, k);
}

/* At most this on top of what the trees know. */
static void kind_plus(const struct search *s, const struct sc_kind *k, int64_t *plus_p, int64_t *plus_q)
{
    const struct sc_index *x = s->index;
    const struct sc_size *z = x->sizes.items[k->size];
    int64_t asked = facets_plus(s, k) + x->zones.primaries[k->zone] + s->plus_image;
    *plus_p = z->plus_p + asked;
    *plus_q = z->plus_q + asked;
}

/* Lists the kinds that may hold the place, the one of the greatest bound first. */
static uint32_t list_kinds(struct search *s)
{
    struct sc_index *x = s->index;
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->kind_count; i++) {
        const struct sc_kind *k = &x->kinds[i];
        if (k->root == SC_TREE_NONE || k->breakers & s->query->needs || !x->zones.fits[k->zone] ||
            !x->labels.fits[k->labels] || !x->storages.fits[k->storage] ||
            (s->query->need.functions > 0 && !k->functions) || !has_room(s, k->peak.room))
            continue;
        struct sc_candidate c = {.at = i}, *first = &x->candidates[0];
        int64_t plus_p, plus_q;
        kind_plus(s, k, &plus_p, &plus_q);
        bound_of(&k->peak, plus_p, plus_q, &c);
        bool best = n && (c.bound > first->bound || (c.bound == first->bound && c.slot < first->slot));
        x->candidates[n++] = best ? *first : c;
        if (best)
            *first = c;
    }
    return n;
}

/* ---- Primaries, rack by rack ---- */

/* The most that a host of the cell can have of their spread. */
static int64_t cell_plus(const struct search *s, const struct sc_cell *c)
{
    const struct sc_index *x = s->index;
    if (!c->hosts || !x->zones.fits[c->zone] || !x->labels.fits[c->labels])
        return -1;
    struct sc_excess e;
    sc_survey_primaries(x->topology, c->first, &e);
    e.at[SC_LEVEL_HOST] = c->least - x->topology->levels[SC_LEVEL_RACK].inside[c->rack].least;
    return (int64_t)s->query->weights->primaries * sc_spread_part(&e);
}

/* The greatest below `below`; -1: none. */
static int64_t next_plus(const struct sc_cells *cells, int64_t below)
{
    int64_t best = -1;
    for (uint32_t i = 0; i < cells->count; i++)
        if (cells->items[i].plus < below && cells->items[i].plus > best)
            best = cells->items[i].plus;
    return best;
}

static void look_in_cell(struct search *s, const struct sc_cell *c)
{
    const struct sc_index *x = s->index;
    for (uint32_t h = c->first; h != SC_DOMAIN_NONE; h = x->cells.seats[h].after) {
        const struct sc_leaf *l = &x->trees.leaves[h];
        const struct sc_kind *k = &x->kinds[l->tree];
        const struct sc_size *z = x->sizes.items[k->size];
        int64_t asked = c->plus + facets_plus(s, k) + s->plus_image;
        int64_t p = l->p + z->plus_p, q = l->q + z->plus_q;
        if (has_room(s, l->room) && beats(s, (p < q ? p : q) + asked, h))
            look_at(s, h);
    }
}

/* Best cells first, until no other can hold a better host. */
static void search_cells(struct search *s, uint32_t kinds)
{
    struct sc_index *x = s->index;
    int64_t most = INT64_MIN; /* of a score without this part */
    for (uint32_t i = 0; i < kinds; i++) {
        int64_t bound = x->candidates[i].bound - x->zones.primaries[x->kinds[x->candidates[i].at].zone];
        most = bound > most ? bound : most;
    }
    for (uint32_t i = 0; i < x->cells.count; i++)
        x->cells.items[i].plus = cell_plus(s, &x->cells.items[i]);
    int64_t plus = kinds ? next_plus(&x->cells, INT64_MAX) : -1;
    for (; plus >= 0 && most + plus >= s->best; plus = next_plus(&x->cells, plus))
        for (uint32_t i = 0; i < x->cells.count; i++)
            if (x->cells.items[i].plus == plus)
                look_in_cell(s, &x->cells.items[i]);
}

/* ---- All together ---- */

/* Nearly all hosts have the image: then each is taken to have it. Else those that have it are bounded one by one, after the others. */
static bool image_is_common(const struct search *s)
{
    return s->query->image_count > s->count - s->count / 8;
}

static void look_where_image_is(struct search *s)
{
    const struct sc_query *q = s->query;
    const struct sc_index *x = s->index;
    const int64_t plus = (int64_t)q->weights->image * q->image_part;
    for (size_t i = 0; i < q->image_count; i++) {
        uint32_t slot = q->image_hosts[i];
        const struct sc_leaf *l = &x->trees.leaves[slot];
        if (l->tree == SC_TREE_NONE)
            continue;
        const struct sc_kind *k = &x->kinds[l->tree];
        const struct sc_size *z = x->sizes.items[k->size];
        int64_t asked = facets_plus(s, k) + x->zones.primaries[k->zone] + plus;
        int64_t p = l->p + z->plus_p, other = l->q + z->plus_q;
        if (x->zones.fits[k->zone] && x->labels.fits[k->labels] && has_room(s, l->room) &&
            beats(s, (p < other ? p : other) + asked, slot))
            look_at(s, slot);
    }
}

static void search_trees(struct search *s, uint32_t kinds)
{
    struct sc_index *x = s->index;
    for (uint32_t i = 0; i < kinds; i++) {
        struct sc_candidate from = x->candidates[i];
        if (!beats(s, from.bound, from.slot))
            continue;
        const struct sc_kind *k = &x->kinds[from.at];
        kind_plus(s, k, &s->plus_p, &s->plus_q);
        from.at = k->root;
        search_tree(s, &from);
    }
}

static void search_kinds(struct search *s)
{
    struct sc_index *x = s->index;
    price(x, s->query);
    bool rare = s->query->image && !image_is_common(s);
    if (s->query->image && !rare)
        s->plus_image = (int64_t)s->query->weights->image * s->query->image_part;
    uint32_t n = list_kinds(s);
    if (s->query->primary && exact(x, s->query))
        search_cells(s, n);
    else
        search_trees(s, n);
    if (rare)
        look_where_image_is(s);
}

ptrdiff_t sc_index_best(struct sc_index *x, const struct sc_slot *slots, size_t count, const struct sc_query *q)
{
    const struct sc_res *need = &q->need;
    struct search s = {.index = x, .slots = slots, .count = count, .query = q, .best = -1, .best_slot = UINT32_MAX};
    s.need[0] = need->cpu_millis > 0 ? millis(need->cpu_millis) : INT32_MIN;
    s.need[1] = need->memory_bytes > 0 ? mebibytes(need->memory_bytes) : INT32_MIN;
    s.need[2] = need->disk_bytes > 0 ? mebibytes(need->disk_bytes) : INT32_MIN;
    s.need[3] = need->network_bps > 0 ? sc_network_room(need->network_bps) : INT32_MIN;
    assert(count <= x->trees.room);
    if (!q->only || q->spread || q->primary) {
        filter_facets(x, q);
        price_facets(&s);
    }
    if (q->only) {
        for (size_t i = 0; i < q->only_count; i++)
            look_at(&s, q->only[i]);
    } else {
        search_kinds(&s);
    }
    return s.best >= 0 ? (ptrdiff_t)s.best_slot : -1;
}
