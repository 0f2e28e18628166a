/* victims.c — who would have to go so that a container gets a place: of one host, the containers that may be preempted whose removal makes room, by the same feasibility function that places.
 *
 * Spared are primaries, members of gangs, what may not move (it would be lost, not moved), what is of no lower priority, and what is not below the region's bound. Of a host's other
 * containers the fewest of the lowest priorities are chosen: the highest priority among the victims is as low as can be; then one victim, if one is enough, the smallest such; otherwise a set of
 * which none can be spared, large ones first. Among hosts the lowest such priority wins, then the fewest victims, then the smallest sum, then the host that was known first: a total order, so that every reign
 * chooses alike. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "core/storage.h"

int sc_priority(const Harpoon__V1__ContainerSpec *spec)
{
    return spec && spec->placement ? spec->placement->priority : 0;
}

bool sc_preempts(const Harpoon__V1__ContainerSpec *spec)
{
    const Harpoon__V1__PlacementSpec *p = spec ? spec->placement : NULL;
    return p && p->may_preempt && !(p->gang && *p->gang->name);
}

void sc_victims_trait(const struct sc_container *c, struct sc_traits *t)
{
    t->priority = (int16_t)sc_priority(sc_body(c)->spec);
    t->stay = (uint8_t)sc_move_stay(c);
}

/* Many are looked at: what is at rest stays at rest. */
static int priority_of(const struct sc_container *c)
{
    return c->open ? sc_priority(sc_body(c)->spec) : sc_traits(c)->priority;
}

const char *sc_victims_spare(const struct sc_region *r, const struct sc_container *c, int priority)
{
    if (c->primary)
        return "primary";
    if (priority_of(c) >= priority)
        return "not of a lower priority";
    if (priority_of(c) >= r->config.preemptible_below)
        return "not below the priority that the region protects";
    enum sc_stay stay = c->open ? sc_move_stay(c) : (enum sc_stay)sc_traits(c)->stay;
    if (stay != SC_MOVES)
        return sc_stay_text(stay);
    if (sc_traits(c)->gang)
        return "member of a gang";
    if (!sc_list_empty(&c->queue) || sc_container_removing(c))
        return "with a change under way";
    if (sc_move_group_busy(c))
        return "of a group of which another one is moving";
    return NULL;
}

static int compare(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_size(const struct sc_res *a, const struct sc_res *b)
{
    int memory = compare(a->memory_bytes, b->memory_bytes), cpu = compare(a->cpu_millis, b->cpu_millis);
    return memory ? memory : cpu ? cpu : compare(a->disk_bytes, b->disk_bytes);
}

/* Those of the lowest priority come first; among them the largest, so that few are enough. */
static int by_worth(const void *pa, const void *pb)
{
    const struct sc_container *a = *(struct sc_container *const *)pa, *b = *(struct sc_container *const *)pb;
    int priority = compare(priority_of(a), priority_of(b)), size = by_size(&sc_traits(b)->claim, &sc_traits(a)->claim);
    return priority ? priority : size ? size : strcmp(a->name, b->name);
}

/* Of a group one is moved at a time. */
static bool same_group(const struct sc_container *a, const struct sc_container *b)
{
    const struct sc_traits *x = sc_traits(a), *y = sc_traits(b);
    return (x->group && x->group == y->group) || (x->affine && x->affine == y->affine) ||
           (x->spread && x->spread == y->spread);
}

/* Into the scratch, in the order in which they go. */
static size_t collect(struct sc_region *r, const struct sc_host *h, int priority)
{
    size_t n = 0, kept = 0;
    if (h->container_count > r->candidate_room) {
        void *more = realloc(r->candidates, h->container_count * sizeof(struct sc_container *));
        if (!more) {
            sc_fail(r, HP_ENOMEM);
            return 0;
        }
        r->candidates = more;
        r->candidate_room = h->container_count;
    }
    for (struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (!sc_victims_spare(r, c, priority))
            r->candidates[n++] = c;
    }
    if (n)
        qsort(r->candidates, n, sizeof *r->candidates, by_worth);
    for (size_t i = 0; i < n; i++) {
        bool grouped = false;
        for (size_t k = 0; k < kept && !grouped; k++)
            grouped = same_group(r->candidates[i], r->candidates[k]);
        if (!grouped)
            r->candidates[kept++] = r->candidates[i];
    }
    return kept;
}

/* What a host lacks is room, of a kind that victims leave: who has volumes stays. */
static bool lacks_room(const struct sc_slot *s, const struct sc_query *q)
{
    return sc_slot_check(s, q) >= SC_FILTER_CPU && !sc_slot_storage_lacks(s, q, NULL, NULL);
}

static bool is_taken(const struct sc_region *r, const struct sc_host *h)
{
    for (const struct sc_list *l = r->preemptions.next; l != &r->preemptions; l = l->next)
        if (SC_OWNER(l, struct sc_hold, preemption)->host == h)
            return true;
    return false;
}

/* A host as it would be. */
struct trial {
    struct sc_slot slot;
    struct sc_slot_info info;
};

/* Containers of a lower priority that are being removed are gone already. */
static void begin(struct trial *t, const struct sc_host *h, int priority)
{
    t->slot = *sc_host_slot(h);
    t->info = *t->slot.info;
    t->slot.info = &t->info;
    for (const struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (sc_container_removing(c) && priority_of(c) < priority)
            sc_slot_claim(&t->slot, &sc_traits(c)->claim, NULL);
    }
}

/* Whether it has room without this one. */
static bool makes_room(struct trial *t, const struct sc_query *q, const struct sc_container *c)
{
    assert(!sc_container_removing(c));
    sc_slot_claim(&t->slot, &sc_traits(c)->claim, NULL);
    return sc_slot_check(&t->slot, q) == SC_FITS;
}

static void put(struct sc_victims *v, struct sc_container *c)
{
    assert(v->count < SC_VICTIMS_MAX);
    v->list[v->count++] = c;
    sc_res_add(&v->size, &sc_traits(c)->claim);
    if (v->count == 1 || priority_of(c) > v->priority)
        v->priority = priority_of(c);
}

/* All go on trial, in order, until there is room; then those that need not are spared, the most worthy first. */
static bool pick_many(struct sc_region *r, const struct sc_query *q, int priority, struct sc_host *h, size_t n,
                      struct sc_victims *v)
{
    struct trial t;
    size_t gone = 0;
    bool room = false;
    begin(&t, h, priority);
    while (gone < n && !room)
        room = makes_room(&t, q, r->candidates[gone++]);
    if (!room)
        return false;
    for (size_t i = gone; i-- > 0;) {
        struct sc_container *c = r->candidates[i];
        assert(c);
        sc_slot_claim(&t.slot, NULL, &sc_traits(c)->claim);
        if (sc_slot_check(&t.slot, q) == SC_FITS)
            continue;
        sc_slot_claim(&t.slot, &sc_traits(c)->claim, NULL);
        if (v->count == r->config.preempt_parallel || v->count == SC_VICTIMS_MAX)
            return false;
        put(v, c);
    }
    v->host = h;
    return true;
}

/* The lowest priority of which one is enough, and of that the smallest; NULL: none is. */
static struct sc_container *pick_one(const struct sc_region *r, const struct sc_query *q, int priority,
                                     const struct sc_host *h, size_t n)
{
    struct sc_container *one = NULL;
    for (size_t i = 0; i < n; i++) {
        struct sc_container *c = r->candidates[i];
        struct trial t;
        if (one && priority_of(c) > priority_of(one))
            break;
        begin(&t, h, priority);
        if (makes_room(&t, q, c))
            one = c;
    }
    return one;
}

static bool pick(struct sc_region *r, const struct sc_query *q, int priority, struct sc_host *h, struct sc_victims *v)
{
    struct trial t;
    *v = (struct sc_victims){.priority = INT_MIN};
    if (!lacks_room(sc_host_slot(h), q) || is_taken(r, h))
        return false;
    begin(&t, h, priority);
    if (sc_slot_check(&t.slot, q) == SC_FITS) {
        v->host = h; /* nobody else has to go */
        return true;
    }
    size_t n = collect(r, h, priority), lower = 0;
    struct sc_container *one = pick_one(r, q, priority, h, n);
    while (one && priority_of(r->candidates[lower]) < priority_of(one))
        lower++;
    if (pick_many(r, q, priority, h, one ? lower : n, v))
        return true;
    *v = (struct sc_victims){0};
    if (!one)
        return false;
    put(v, one);
    v->host = h;
    return true;
}

/* Of the same two hosts always the same one; a later host only when it is better. */
static bool is_better(const struct sc_victims *a, const struct sc_victims *b)
{
    if (!b->host || a->priority != b->priority)
        return !b->host || a->priority < b->priority;
    if (a->count != b->count)
        return a->count < b->count;
    int size = by_size(&a->size, &b->size);
    return size ? size < 0 : a->host->info.at < b->host->info.at;
}

void sc_victims_find(struct sc_region *r, const struct sc_query *q, int priority, const struct sc_slots *among,
                     struct sc_victims *ret)
{
    struct sc_victims one;
    bool all = !among || among->all;
    size_t count = all ? r->slot_count : among->count;
    *ret = (struct sc_victims){0};
    for (size_t i = 0; i < count && !r->failed; i++) {
        struct sc_host *h = r->slots[all ? i : among->index[i]].info->host;
        if (pick(r, q, priority, h, &one) && is_better(&one, ret))
            *ret = one;
    }
}

void sc_victims_text(const struct sc_victims *v, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (int i = 0; i < v->count && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s\"%s\" (priority %d)", i ? ", " : "", v->list[i]->name,
                              priority_of(v->list[i]));
}

/* ---- For people ---- */

enum { REASONS_MAX = 16 };

struct tally {
    const char *why[REASONS_MAX];
    int count[REASONS_MAX], reasons;
};

static void spare(struct tally *t, const char *why)
{
    int i = 0;
    while (i < t->reasons && t->why[i] != why && strcmp(t->why[i], why) != 0)
        i++;
    if (i == REASONS_MAX)
        return;
    t->why[i] = why;
    t->count[i]++;
    t->reasons += i == t->reasons;
}

static void count_spared(struct sc_region *r, const struct sc_query *q, int priority, const struct sc_victims *v,
                         struct tally *t)
{
    for (size_t i = 0; i < r->slot_count; i++) {
        struct sc_host *h = r->slots[i].info->host;
        if (!lacks_room(&r->slots[i], q))
            continue;
        for (struct sc_list *l = h->containers.next; l != &h->containers; l = l->next) {
            const struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
            const char *why = sc_victims_spare(r, c, priority);
            bool victim = false;
            for (int k = 0; k < v->count; k++)
                victim |= v->list[k] == c;
            if (!victim)
                spare(t, why ? why : "others make room for less");
        }
    }
}

static int fill(const struct sc_region *r, const struct sc_victims *v, const struct tally *t,
                Harpoon__V1__Preemption *out)
{
    char text[1024] = "", victims[800];
    sc_victims_text(v, victims, sizeof victims);
    if (!r->config.preemption)
        snprintf(text, sizeof text, "the region allows no preemption");
    else if (v->host && !v->count)
        snprintf(text, sizeof text, "would wait for what is being removed on host \"%s\"", v->host->info.name);
    else if (v->host)
        snprintf(text, sizeof text, "would preempt on host \"%s\": %s", v->host->info.name, victims);
    else
        snprintf(text, sizeof text, "nothing that may go makes room");
    out->detail = strdup(text);
    if (v->host)
        out->host = strdup(v->host->full_name);
    out->victims = calloc((size_t)v->count + 1, sizeof *out->victims);
    out->spared = calloc((size_t)t->reasons + 1, sizeof *out->spared);
    if (!out->detail || !out->host || !out->victims || !out->spared)
        return HP_ENOMEM;
    for (int i = 0; i < v->count; i++)
        if (!(out->victims[out->n_victims++] = strdup(v->list[i]->name)))
            return HP_ENOMEM;
    for (int i = 0; i < t->reasons; i++) {
        Harpoon__V1__Preemption__SparedEntry *x = malloc(sizeof *x);
        if (!x)
            return HP_ENOMEM;
        harpoon__v1__preemption__spared_entry__init(x);
        out->spared[out->n_spared++] = x;
        x->value = t->count[i];
        if (!(x->key = strdup(t->why[i])))
            return HP_ENOMEM;
    }
    return 0;
}

int sc_victims_explain(struct sc_region *r, const struct sc_query *q, const Harpoon__V1__ContainerSpec *spec,
                       Harpoon__V1__Preemption **ret)
{
    struct sc_victims v = {0};
    struct tally t = {0};
    Harpoon__V1__Preemption *out = malloc(sizeof *out);
    if (!out)
        return HP_ENOMEM;
    harpoon__v1__preemption__init(out);
    if (r->config.preemption) {
        sc_victims_find(r, q, sc_priority(spec), NULL, &v);
        count_spared(r, q, sc_priority(spec), &v, &t);
    }
    if (r->failed || fill(r, &v, &t, out)) {
        harpoon__v1__preemption__free_unpacked(out, NULL);
        return HP_ENOMEM;
    }
    *ret = out;
    return 0;
}
