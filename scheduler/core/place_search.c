/* place_search.c — the search of place_index.h. */
#include <assert.h>
#include <string.h>

#include "core/images.h"
#include "core/place_kinds.h"

/* Where some hosts are better for what the trees do not know (primaries, an image) they are looked for there first, if they are not too few; and not for long, for those that are may all be full. */
enum {
    TREES_FROM =
        64, /* of the hosts one in so many; of those in the best racks, so many times as many as should be reached before one is found */
    TREES_LEAVES = 128, /* reached in vain, beside four times as many as should be needed … */
    TREES_GOOD = 16     /* … and of those that are better one in so many */
};

struct search {
    struct sc_index *index;
    const struct sc_slot *slots;
    size_t count;
    const struct sc_query *query;
    int32_t need[SC_ROOMS];                       /* in units of room; INT32_MIN: none */
    int64_t network_plus[SC_FUNCTIONS_PARTS + 1]; /* by what is left of the functions, on top of what leaves have */
    int64_t plus_p, plus_q;                       /* of the kind being searched */
    const struct sc_class_set *set;               /* the same; NULL: no class is asked for */
    bool plain;                                   /* the same: see there */
    int64_t plus_image;     /* each host is taken to have it; 0: none that was not looked at has */
    int64_t primaries_plus; /* of these, what is for primaries */
    uint32_t leaves_left;   /* that may be reached in trees, until another way is tried */
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

/* What a class set's hosts that have these shares left have at most of the part for storage; -1: none of them has enough. */
static inline int64_t storage_plus(const struct sc_query *q, const struct sc_class_set *set,
                                   const struct sc_offer *offer)
{
    int32_t least = set->rest;
    for (int i = 0; i < set->need_count; i++) {
        int32_t have = (offer->share[set->needs[i].column] * SC_UNIT + UINT8_MAX - 1) / UINT8_MAX;
        int32_t left = have - set->needs[i].part + 1;
        if (left < 0)
            return -1;
        least = left < least ? left : least;
    }
    return q->storage_counts ? (int64_t)q->weights->storage * ((least + set->kept) / 2) : 0;
}

/* Whether one of the hosts may have all that is asked for beside room; and what they have at most of the parts that depend on it. */
static inline bool offered(const struct search *s, const struct sc_class_set *set, const struct sc_offer *offer,
                           int64_t *ret_network, int64_t *ret_storage)
{
    int64_t low = s->network_plus[offer->functions & 15], high = s->network_plus[offer->functions >> 4];
    if (s->query->mode & ~offer->modes || (s->query->need.functions > 0 && !offer->functions))
        return false;
    *ret_network = low > high ? low : high;
    *ret_storage = set ? storage_plus(s->query, set, offer) : 0;
    return *ret_storage >= 0;
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

/* As bound_of, by what the classes asked for add to each host, where that is less. */
static inline void bound_by_shares(const struct search *s, const struct sc_class_set *set, const struct sc_peak *peak,
                                   int64_t plus_p, int64_t plus_q, struct sc_candidate *ret)
{
    const struct sc_trees *t = &s->index->trees;
    for (int i = 0; i < set->need_count; i++) {
        const struct sc_class_need *n = &set->needs[i];
        int64_t p = sc_peak_p(t, peak, n->column) + plus_p, q = sc_peak_q(t, peak, n->column) + plus_q;
        int64_t bound = (p < q ? p : q) + n->plus;
        if (bound < ret->bound) {
            ret->bound = bound;
            ret->slot = 0; /* which host it is of is not known */
        }
    }
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
    int64_t network = 0, storage = 0;
    ret->at = ref;
    if (ref & SC_TREE_LEAF) {
        const struct sc_leaf *l = &s->index->trees.leaves[ref & ~SC_TREE_LEAF];
        if (!has_room(s, l->room) || (!s->plain && !offered(s, s->set, &l->offer, &network, &storage)))
            return false;
        int64_t p = l->p + s->plus_p, q = l->q + s->plus_q;
        ret->bound = (p < q ? p : q) + network + storage;
        ret->slot = ref & ~SC_TREE_LEAF;
    } else {
        const struct sc_peak *peak = &s->index->trees.forks[ref].peak;
        if (!has_room(s, peak->room) || (!s->plain && !offered(s, s->set, &peak->offer, &network, &storage)))
            return false;
        int64_t plus = network + storage;
        bound_of(peak, s->plus_p + plus, s->plus_q + plus, ret);
        if (s->set && s->query->storage_counts)
            bound_by_shares(s, s->set, peak, s->plus_p + network, s->plus_q + network, ret);
    }
    return beats(s, ret->bound, ret->slot);
}

/* What a host of the rack that has so many more primaries than its fewest has of their spread. */
static int64_t rack_plus(const struct search *s, uint32_t rack, int32_t more)
{
    struct sc_excess e;
    sc_survey_rack_primaries(s->index->topology, rack, &e);
    e.at[SC_LEVEL_HOST] = more > 0 ? more : 0; /* below: the host does not fit, or fewest would be fewer */
    return (int64_t)s->query->weights->primaries * sc_spread_part(&e);
}

/* What a host has of the spread of primaries, by those on itself; below 0: none of its rack fits. */
static int64_t own_primaries_plus(const struct search *s, uint32_t slot)
{
    const struct sc_topology *t = s->index->topology;
    uint32_t rack = sc_topology_domain(t, SC_LEVEL_RACK, slot);
    const struct sc_inside *inside = &t->levels[SC_LEVEL_RACK].inside[rack];
    if (inside->seen != t->survey)
        return -1;
    return rack_plus(s, rack, t->levels[SC_LEVEL_HOST].items[slot].primaries - inside->least);
}

/* Whether a host that has been reached in a tree of such a bound may be better, by its own primaries and images. */
static bool may_be_better(const struct search *s, const struct sc_candidate *c)
{
    const struct sc_query *q = s->query;
    uint32_t slot = c->at & ~SC_TREE_LEAF;
    int64_t bound = c->bound;
    if (q->primary) {
        int64_t own = own_primaries_plus(s, slot);
        if (own < 0)
            return false;
        bound += own - s->primaries_plus;
    }
    if (s->plus_image && beats(s, bound, slot) && !sc_image_on(q->image_hosts, q->image_count, slot))
        bound -= s->plus_image;
    return beats(s, bound, slot);
}

static void search_tree(struct search *s, const struct sc_candidate *from)
{
    struct sc_candidate stack[72], a, b; /* one for each bit of a key, and some */
    int depth = 0;
    stack[depth++] = *from;
    while (depth && s->leaves_left) {
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
        if (!(c.at & SC_TREE_LEAF))
            continue;
        s->leaves_left--;
        if (may_be_better(s, &c))
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
        x->labels.fits[i] = !sc_taint_against(q->spec, x->labels.items[i]) &&
                            (!q->spec || sc_labels_fit(q->spec, x->labels.items[i], &x->blurred));
    for (uint32_t i = 0; i < x->storages.count; i++)
        x->storages.fits[i] = sc_storage_could(((const struct sc_class_set *)x->storages.items[i])->limits, q);
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

/* Host by host, each with its members of the group. */
static void survey_hosts(const struct search *s)
{
    const struct sc_query *q = s->query;
    const bool labels_are_exact = exact(s->index, q);
    struct sc_topology *t = s->index->topology;
    const struct sc_cells *cells = &s->index->cells;
    sc_survey_begin(t);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct sc_cell *c = cells->seats[i].cell == SC_DOMAIN_NONE ? NULL : &cells->items[cells->seats[i].cell];
        if (c && s->index->labels.fits[c->labels] && s->index->zones.fits[c->zone] && !(q->mode & ~s->slots[i].modes) &&
            (labels_are_exact || sc_labels_fit(q->spec, s->slots[i].info->pb, NULL)))
            sc_survey_see(t, c->rack, t->levels[SC_LEVEL_HOST].items[i].primaries,
                          sc_topology_members(t, SC_LEVEL_HOST, i));
    }
    sc_survey_end(t);
}

/* A survey for a spread alone knows enough when it has seen every zone, a rack that has no member, and more hosts than have one: nothing has fewer. */
struct seen {
    uint64_t zones_left; /* as bits */
    uint32_t empty_racks, hosts;
};

enum { SEEN_ZONES_MAX = 64 };

static void seen_begin(const struct sc_index *x, struct seen *ret)
{
    *ret = (struct seen){0};
    for (uint32_t i = 0; i < x->zones.count && i < SEEN_ZONES_MAX; i++)
        ret->zones_left |= (uint64_t)(x->zones.fits[i] != 0) << i;
}

/* Legal when there are at most SEEN_ZONES_MAX zones. */
static bool seen_enough(const struct sc_index *x, const struct sc_cell *c, struct seen *seen)
{
    seen->zones_left &= ~(1ULL << c->zone);
    seen->empty_racks += sc_topology_members(x->topology, SC_LEVEL_RACK, c->rack) == 0;
    return !seen->zones_left && seen->empty_racks && seen->hosts > x->topology->marked_hosts;
}

/* The fewest primaries on a host of the cell that has the mode; some have it, and not all. */
static int32_t least_with(const struct search *s, uint32_t cell)
{
    struct sc_index *x = s->index;
    struct sc_cell_modes *m = &x->cells.modes[cell];
    const struct sc_domain *hosts = x->topology->levels[SC_LEVEL_HOST].items;
    int mode = __builtin_ctz(s->query->mode);
    if (m->known & s->query->mode)
        return m->least[mode];
    m->least[mode] = INT32_MAX;
    for (uint32_t h = x->cells.items[cell].first; h != SC_DOMAIN_NONE; h = x->cells.seats[h].after)
        if (s->slots[h].modes & s->query->mode && hosts[h].primaries < m->least[mode])
            m->least[mode] = hosts[h].primaries;
    m->known |= s->query->mode;
    return m->least[mode];
}

/* As sc_place_survey, after filter_facets. */
static void survey(const struct search *s)
{
    const struct sc_query *q = s->query;
    struct sc_index *x = s->index;
    const struct sc_cells *cells = &x->cells;
    struct seen seen;
    bool known = exact(x, q); /* by what cells know */
    seen_begin(x, &seen);
    sc_survey_begin(x->topology);
    for (uint32_t i = 0; i < cells->count && known; i++) {
        const struct sc_cell *c = &cells->items[i];
        if (!c->hosts || !x->labels.fits[c->labels] || !x->zones.fits[c->zone])
            continue;
        uint32_t with_mode = q->mode ? cells->modes[i].hosts[__builtin_ctz(q->mode)] : c->hosts;
        if (!with_mode)
            continue;
        bool some = q->primary && with_mode < c->hosts;
        sc_survey_see(x->topology, c->rack, some ? least_with(s, i) : c->least, 0);
        seen.hosts += with_mode;
        if (!q->primary && x->zones.count <= SEEN_ZONES_MAX && seen_enough(x, c, &seen))
            break;
    }
    if (!known || (q->spread && seen.hosts <= x->topology->marked_hosts)) /* there may be none without members */
        survey_hosts(s);
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

/* What the request takes of each class, and of the part for storage what does not depend on what is left. */
static void price_classes(struct sc_class_set *set, const struct sc_query *q)
{
    set->need_count = 0;
    set->rest = SC_UNIT;
    set->kept = !set->limits || set->limits->count <= q->storage_count ? SC_UNIT : 0;
    for (uint32_t k = 0; set->limits && k < set->limits->count; k++)
        for (size_t i = 0; i < q->storage_count; i++) {
            const struct sc_storage_item *limit = &set->limits->items[k];
            if (strcmp(limit->name, q->storage[i].name) != 0)
                continue;
            double part = limit->bytes > 0 ? (double)q->storage[i].bytes / (double)limit->bytes * SC_UNIT : 0;
            int32_t left = SC_UNIT - (int32_t)part;
            if (set->column[k] < SC_SHARES)
                set->needs[set->need_count++] =
                    (struct sc_class_need){set->column[k], (int32_t)part,
                                           (int64_t)q->weights->storage * (set->kept - (int32_t)part + 2) / 2 + 1};
            else
                set->rest = left < set->rest ? left : set->rest;
        }
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
    for (uint32_t i = 0; i < x->storages.count; i++) {
        struct sc_class_set *set = x->storages.items[i];
        x->storages.plus[i] = 0; /* follows from what is left of the classes */
        if (!x->storages.fits[i])
            continue;
        if (q->storage_count)
            price_classes(set, q);
        else if (q->storage_counts)
            x->storages.plus[i] = (int64_t)q->weights->storage * sc_storage_part(set->limits, NULL, q);
    }
    for (int i = 0; i <= SC_FUNCTIONS_PARTS; i++)
        s->network_plus[i] = (q->network ? (int64_t)q->weights->network * sc_network_part((uint8_t)i, q) : 0) -
                             sc_network_base(x, (uint8_t)i);
}

/* NULL: no class is asked for. */
static const struct sc_class_set *set_of(const struct search *s, const struct sc_kind *k)
{
    return s->query->storage_count ? s->index->storages.items[k->storage] : NULL;
}

/* Whether all that its hosts offer is alike to the query. */
static bool plain(const struct search *s, const struct sc_kind *k)
{
    const struct sc_query *q = s->query;
    return !q->storage_count && !q->mode && q->need.functions <= 0 && !k->peak.offer.functions;
}

/* Of the parts that are asked for, what hosts of the kind have at most, but for primaries and what offers tell. */
static int64_t facets_plus(const struct search *s, const struct sc_kind *k)
{
    const struct sc_index *x = s->index;
    return x->zones.plus[k->zone] + x->labels.plus[k->labels] + x->storages.plus[k->storage];
}

static bool kind_fits(const struct search *s, const struct sc_kind *k)
{
    const struct sc_index *x = s->index;
    return !(k->breakers & s->query->needs) && x->zones.fits[k->zone] && x->labels.fits[k->labels] &&
           x->storages.fits[k->storage];
}

/* A host found otherwise than through its tree: looked at when it may be better. `plus`: of what the image and primaries are to it. */
static void consider(struct search *s, uint32_t slot, int64_t plus)
{
    const struct sc_index *x = s->index;
    const struct sc_leaf *l = &x->trees.leaves[slot];
    const struct sc_kind *k = &x->kinds[l->tree];
    const struct sc_size *z = x->sizes.items[k->size];
    int64_t network, storage, p = l->p + z->plus_p, q = l->q + z->plus_q;
    if (!kind_fits(s, k) || !has_room(s, l->room) || !offered(s, set_of(s, k), &l->offer, &network, &storage))
        return;
    if (beats(s, (p < q ? p : q) + facets_plus(s, k) + plus + network + storage, slot))
        look_at(s, slot);
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
        const struct sc_class_set *set = set_of(s, k);
        int64_t plus_p, plus_q, network = s->network_plus[0], storage = 0;
        if (k->root == SC_TREE_NONE || !kind_fits(s, k) || !has_room(s, k->peak.room) ||
            (!plain(s, k) && !offered(s, set, &k->peak.offer, &network, &storage)))
            continue;
        kind_plus(s, k, &plus_p, &plus_q);
        struct sc_candidate c = {.at = i}, *first = &x->candidates[0];
        bound_of(&k->peak, plus_p + network + storage, plus_q + network + storage, &c);
        if (set && s->query->storage_counts)
            bound_by_shares(s, set, &k->peak, plus_p + network, plus_q + network, &c);
        bool best = n && (c.bound > first->bound || (c.bound == first->bound && c.slot < first->slot));
        x->candidates[n++] = best ? *first : c;
        if (best)
            *first = c;
    }
    return n;
}

/* So many leaves should hold one of `good` hosts, if they are as any others; and to reach these is less than to look at all of those. */
static uint32_t leaves_for(const struct search *s, uint64_t good)
{
    return (uint32_t)(4 * (s->count / good) + good / TREES_GOOD) + TREES_LEAVES;
}

/* False: it has been given up. */
static bool search_trees(struct search *s, uint32_t kinds, uint32_t leaves_max)
{
    struct sc_index *x = s->index;
    s->leaves_left = leaves_max;
    for (uint32_t i = 0; i < kinds && s->leaves_left; i++) {
        struct sc_candidate from = x->candidates[i];
        if (!beats(s, from.bound, from.slot))
            continue;
        const struct sc_kind *k = &x->kinds[from.at];
        kind_plus(s, k, &s->plus_p, &s->plus_q);
        s->primaries_plus = x->zones.primaries[k->zone];
        s->set = set_of(s, k);
        s->plain = plain(s, k);
        s->plus_p += s->plain ? s->network_plus[0] : 0;
        s->plus_q += s->plain ? s->network_plus[0] : 0;
        from.at = k->root;
        search_tree(s, &from);
    }
    return s->leaves_left > 0;
}

/* ---- Primaries, rack by rack ---- */

/* The greatest below `below`; -1: none. */
static int64_t next_plus(const struct sc_cells *cells, int64_t below)
{
    int64_t best = -1;
    for (uint32_t i = 0; i < cells->rack_count; i++)
        if (cells->racks[i].plus < below && cells->racks[i].plus > best)
            best = cells->racks[i].plus;
    return best;
}

/* `most`: of a score without the part for primaries. */
static void look_in_rack(struct search *s, uint32_t rack, int64_t most)
{
    const struct sc_index *x = s->index;
    const struct sc_cells *cells = &x->cells;
    const struct sc_domain *hosts = x->topology->levels[SC_LEVEL_HOST].items;
    int32_t least = x->topology->levels[SC_LEVEL_RACK].inside[rack].least;
    for (uint32_t i = cells->racks[rack].first; i != SC_DOMAIN_NONE; i = cells->items[i].next) {
        const struct sc_cell *c = &cells->items[i];
        if (!c->hosts || !x->zones.fits[c->zone] || !x->labels.fits[c->labels])
            continue;
        int64_t plus = rack_plus(s, rack, c->least - least);
        if (most + plus < s->best)
            continue;
        for (uint32_t h = c->first; h != SC_DOMAIN_NONE; h = cells->seats[h].after) {
            int64_t own = hosts[h].primaries > c->least ? rack_plus(s, rack, hosts[h].primaries - least) : plus;
            if (most + own >= s->best)
                consider(s, h, own + s->plus_image);
        }
    }
}

/* Hosts in racks of this part. */
static uint64_t hosts_with(const struct search *s, int64_t plus)
{
    const struct sc_cells *cells = &s->index->cells;
    uint64_t hosts = 0;
    for (uint32_t i = 0; i < cells->rack_count; i++)
        if (cells->racks[i].plus == plus)
            hosts += s->index->topology->levels[SC_LEVEL_RACK].inside[i].hosts;
    return hosts;
}

/* Best racks first, until no other can hold a better host. When many hosts are in racks that are equally good, one of them is among the first that the trees give. */
static void search_racks(struct search *s, uint32_t kinds)
{
    struct sc_index *x = s->index;
    struct sc_cells *cells = &x->cells;
    const struct sc_topology *t = x->topology;
    int64_t most = INT64_MIN; /* of a score without this part */
    for (uint32_t i = 0; i < kinds; i++) {
        int64_t bound = x->candidates[i].bound - x->zones.primaries[x->kinds[x->candidates[i].at].zone];
        most = bound > most ? bound : most;
    }
    for (uint32_t i = 0; i < cells->rack_count; i++)
        cells->racks[i].plus =
            cells->racks[i].first != SC_DOMAIN_NONE && t->levels[SC_LEVEL_RACK].inside[i].seen == t->survey
                ? rack_plus(s, i, 0)
                : -1;
    int64_t plus = kinds ? next_plus(cells, INT64_MAX) : -1;
    uint64_t good = plus >= 0 ? hosts_with(s, plus) : 0;
    if (good > TREES_FROM && good / TREES_FROM > s->count / good && search_trees(s, kinds, leaves_for(s, good)))
        return;
    for (; plus >= 0 && most + plus >= s->best; plus = next_plus(cells, plus))
        for (uint32_t i = 0; i < cells->rack_count; i++)
            if (cells->racks[i].plus == plus)
                look_in_rack(s, i, most);
}

/* ---- All together ---- */

/* Those that have the image are bounded one by one, after the others. */
static void look_where_image_is(struct search *s)
{
    const struct sc_query *q = s->query;
    const struct sc_index *x = s->index;
    const int64_t plus = (int64_t)q->weights->image * q->image_part;
    for (size_t i = 0; i < q->image_count; i++) {
        uint32_t slot = q->image_hosts[i];
        uint32_t kind = x->trees.leaves[slot].tree;
        if (kind != SC_TREE_NONE)
            consider(s, slot, x->zones.primaries[x->kinds[kind].zone] + plus);
    }
}

/* Where many hosts have the image each is taken to have it: the next one that does is among the first that the trees give. Racks are searched so only where nearly all have it. */
static void search_kinds(struct search *s)
{
    struct sc_index *x = s->index;
    const struct sc_query *q = s->query;
    const bool racks = q->primary && exact(x, q);
    const int64_t image = q->image ? (int64_t)q->weights->image * q->image_part : 0;
    uint32_t leaves_max = UINT32_MAX;
    price(x, q);
    if (image && q->image_count > (racks ? s->count - s->count / 8 : s->count / TREES_FROM)) {
        s->plus_image = image;
        leaves_max = leaves_for(s, q->image_count);
    }
    uint32_t n = list_kinds(s);
    if (racks)
        search_racks(s, n);
    else if (!search_trees(s, n, leaves_max)) {
        s->plus_image = 0;
        (void)search_trees(s, list_kinds(s), UINT32_MAX);
    }
    if (image && !s->plus_image)
        look_where_image_is(s);
}

ptrdiff_t sc_index_best(struct sc_index *x, const struct sc_slot *slots, size_t count, const struct sc_query *q)
{
    const struct sc_res *need = &q->need;
    struct search s = {.index = x, .slots = slots, .count = count, .query = q, .best = -1, .best_slot = UINT32_MAX};
    s.need[0] = need->cpu_millis > 0 ? sc_room_millis(need->cpu_millis) : INT32_MIN;
    s.need[1] = need->memory_bytes > 0 ? sc_room_mebibytes(need->memory_bytes) : INT32_MIN;
    s.need[2] = need->disk_bytes > 0 ? sc_room_mebibytes(need->disk_bytes) : INT32_MIN;
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
