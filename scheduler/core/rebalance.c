/* rebalance.c — which containers would be better elsewhere: a bounded list of moves with the gain of each. It changes nothing.
 *
 * A container's gain is the score that it would get on the best other host, less the score that it would get where it is, were it placed now: in points of the same
 * 0 to 100, by the functions that place. The containers of the fullest hosts are looked at, once; the best of them are taken one after another, each on top of those before it, as if these were
 * done; in the end all is put back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

enum { EXAMINE_MAX = 1000, MOVES_DEFAULT = 10, MOVES_MAX = 100 };

struct candidate {
    struct sc_container *c;
    double gain;
};

struct rebalance {
    struct sc_region *r;
    struct candidate *found;
    size_t count, examined;
    double gain_min;
};

static double part(int64_t used, int64_t limit)
{
    return limit > 0 ? (double)used / (double)limit : 0;
}

/* Its fullest resource, in percent. */
static double use_of(const struct sc_host *h)
{
    const struct sc_res *u = &h->info.claimed, *l = &h->info.limit;
    double cpu = part(u->cpu_millis, l->cpu_millis), memory = part(u->memory_bytes, l->memory_bytes);
    return 100 * (cpu > memory ? cpu : memory);
}

static bool takes_part(const struct sc_host *h)
{
    const struct sc_slot *s = sc_host_slot(h);
    return s->ready && !s->cordoned;
}

/* Standard deviation of the hosts' use. */
static double imbalance(const struct sc_region *r)
{
    double sum = 0, squares = 0;
    int n = 0;
    for (size_t i = 0; i < r->slot_count; i++) {
        const struct sc_host *h = r->slots[i].info->host;
        if (!takes_part(h))
            continue;
        sum += use_of(h);
        squares += use_of(h) * use_of(h);
        n++;
    }
    double mean = n ? sum / n : 0, variance = n ? squares / n - mean * mean : 0;
    return variance > 0 ? sqrt(variance) : 0;
}

static bool may_go(const struct sc_container *c)
{
    return c->host && sc_list_empty(&c->queue) && !sc_container_removing(c) && !sc_move_stays(c) &&
           !sc_move_group_busy(c) && sc_body(c)->status->state != HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNKNOWN;
}

/* The best other host and what is gained there; NULL: none. */
static struct sc_host *better(struct sc_region *r, struct sc_container *c, double *ret_gain)
{
    struct sc_query q;
    struct sc_score here, there;
    struct sc_host *h = c->host, *to = NULL;
    (void)sc_open(c); /* its claim stays where it is */
    sc_container_count(r, c, h, -1);
    sc_move_count_here(r, c, -1);
    sc_query_of(r, &q, c, NULL);
    sc_move_relax(r, &q, c);
    sc_place_survey(r->slots, r->slot_count, &q);
    sc_slot_score(sc_host_slot(h), &q, &here);
    sc_host_slot(h)->excluded_stamp = q.stamp;
    ptrdiff_t best = sc_places_best(r, &q);
    if (best >= 0) {
        sc_place_survey(r->slots, r->slot_count, &q);
        sc_slot_score(&r->slots[best], &q, &there);
        *ret_gain = sc_score_percent(&there, &q) - sc_score_percent(&here, &q);
        to = r->slots[best].info->host;
    }
    sc_move_count_here(r, c, 1);
    sc_container_count(r, c, h, 1);
    return to;
}

static int by_use(const void *a, const void *b)
{
    const struct sc_host *x = *(struct sc_host *const *)a, *y = *(struct sc_host *const *)b;
    double d = use_of(y) - use_of(x);
    return d > 0 ? 1 : d < 0 ? -1 : x->info.at < y->info.at ? -1 : 1;
}

static int by_gain(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return y->gain > x->gain ? 1 : y->gain < x->gain ? -1 : strcmp(x->c->name, y->c->name);
}

static void examine(struct rebalance *x, const struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next; l != &h->containers && x->examined < EXAMINE_MAX; l = l->next) {
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        double gain = 0;
        if (!may_go(c))
            continue;
        x->examined++;
        if (better(x->r, c, &gain) && gain >= x->gain_min)
            x->found[x->count++] = (struct candidate){c, gain};
    }
}

static void examine_all(struct rebalance *x)
{
    struct sc_region *r = x->r;
    struct sc_host **hosts = sc_alloc(r, (r->slot_count + 1) * sizeof(struct sc_host *));
    size_t n = 0;
    x->found = sc_alloc(r, EXAMINE_MAX * sizeof *x->found);
    for (size_t i = 0; hosts && i < r->slot_count; i++)
        if (takes_part(r->slots[i].info->host))
            hosts[n++] = r->slots[i].info->host;
    if (hosts)
        qsort(hosts, n, sizeof *hosts, by_use);
    for (size_t i = 0; x->found && i < n && x->examined < EXAMINE_MAX; i++)
        examine(x, hosts[i]);
    if (x->found)
        qsort(x->found, x->count, sizeof *x->found, by_gain);
    free(hosts);
}

static bool add(struct sc_region *r, Harpoon__V1__ProposeMovesResponse *out, const struct sc_container *c,
                const struct sc_host *to, double gain)
{
    Harpoon__V1__ProposedMove *m = sc_alloc(r, sizeof *m);
    if (!m)
        return false;
    harpoon__v1__proposed_move__init(m);
    sc_pb_set(r, &m->container, c->name);
    sc_pb_set(r, &m->from, c->host->full_name);
    sc_pb_set(r, &m->to, to->full_name);
    m->gain = gain;
    out->moves[out->n_moves++] = m;
    return true;
}

/* The chosen ones as if they were done; `to` is by the place in the answer. */
static void choose(struct rebalance *x, Harpoon__V1__ProposeMovesResponse *out, size_t moves_max)
{
    struct sc_region *r = x->r;
    struct candidate done[MOVES_MAX];
    struct sc_host *to[MOVES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < x->count && n < moves_max && !r->failed; i++) {
        struct sc_container *c = x->found[i].c;
        double gain = 0;
        struct sc_host *h = better(r, c, &gain);
        if (!h || gain < x->gain_min || !add(r, out, c, h, gain))
            continue;
        sc_container_count(r, c, c->host, -1);
        sc_container_count(r, c, h, 1);
        done[n].c = c;
        to[n++] = h;
    }
    out->imbalance_after = imbalance(r);
    while (n-- > 0) {
        sc_container_count(r, done[n].c, to[n], -1);
        sc_container_count(r, done[n].c, done[n].c->host, 1);
    }
}

Harpoon__V1__ProposeMovesResponse *sc_rebalance(struct sc_region *r, const Harpoon__V1__ProposeMovesRequest *q)
{
    struct rebalance x = {.r = r, .gain_min = q->min_gain > 0 ? q->min_gain : 1};
    size_t moves_max = q->max_moves <= 0 ? MOVES_DEFAULT : q->max_moves < MOVES_MAX ? (size_t)q->max_moves : MOVES_MAX;
    Harpoon__V1__ProposeMovesResponse *out = sc_alloc(r, sizeof *out);
    if (!out)
        return NULL;
    harpoon__v1__propose_moves_response__init(out);
    out->imbalance_before = imbalance(r);
    out->moves = sc_alloc(r, MOVES_MAX * sizeof *out->moves);
    if (out->moves)
        examine_all(&x);
    if (x.found)
        choose(&x, out, moves_max);
    out->examined = (int32_t)x.examined;
    free(x.found);
    return out;
}
