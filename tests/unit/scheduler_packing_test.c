/* scheduler_packing_test.c — how much goes into a fleet, and how evenly it lies there, against bounds that owe nothing to the code: what no packer can exceed, and the
 * usual rule of the emptiest host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fleet.h"

#define GIB (1LL << 30)

enum { HOSTS = 40, ITEMS_MAX = 20000 };

static void sum_limits(const struct fleet *f, struct sc_res *ret)
{
    *ret = (struct sc_res){0};
    for (size_t i = 0; i < f->o.hosts; i++)
        sc_res_add(ret, &f->infos[i].limit);
}

/* A container of a sliver to an eighth of a common host; some lean to cpu, some to memory. */
static struct sc_res item(struct hp_rng *g)
{
    int64_t size = 1 + (int64_t)hp_rng_below(g, hp_rng_below(g, 10) ? 8 : 32), lean = (int64_t)hp_rng_below(g, 5);
    return (struct sc_res){100 * size * (2 + lean), 256 * size * (6 - lean) << 20, 0};
}

/* What any packer can take of what was offered, at most: all of it, or what there is. */
static double taken_of_bound(const struct sc_res *taken, const struct sc_res *offered, const struct sc_res *limit)
{
    double cpu = (double)(offered->cpu_millis < limit->cpu_millis ? offered->cpu_millis : limit->cpu_millis);
    double memory = (double)(offered->memory_bytes < limit->memory_bytes ? offered->memory_bytes : limit->memory_bytes);
    double a = (double)taken->cpu_millis / cpu, b = (double)taken->memory_bytes / memory;
    return a < b ? a : b;
}

/* Offers containers up to 95 % of the fleet's cpu or memory, whichever is first. */
static double fill(const struct sc_weights *weights, uint64_t seed)
{
    struct fleet f;
    struct sc_res limit, offered = {0}, taken = {0};
    struct hp_rng g;
    hp_rng_init(&g, seed);
    fleet_init(&f, &(struct fleet_options){.hosts = HOSTS, .zones = 1, .sizes = 3, .weights = weights, .seed = seed});
    sum_limits(&f, &limit);
    for (int n = 0; n < ITEMS_MAX; n++) {
        struct sc_query q = {.need = item(&g), .weights = weights, .stamp = 1};
        if ((offered.cpu_millis + q.need.cpu_millis) * 100 > limit.cpu_millis * 95 ||
            (offered.memory_bytes + q.need.memory_bytes) * 100 > limit.memory_bytes * 95)
            break;
        sc_res_add(&offered, &q.need);
        ptrdiff_t host = sc_index_best(&f.index, f.slots, HOSTS, &q);
        if (host < 0)
            continue;
        sc_res_add(&taken, &q.need);
        fleet_claim(&f, (size_t)host, NULL, &q.need);
    }
    fleet_done(&f);
    return taken_of_bound(&taken, &offered, &limit);
}

static void a_region_at_95_percent_takes_what_could_be_taken(void **state)
{
    struct sc_weights pack = sc_weights_default, spread = sc_weights_default;
    double least[2] = {1, 1};
    pack.pack = true;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        double a = fill(&pack, seed), b = fill(&spread, seed);
        least[0] = a < least[0] ? a : least[0];
        least[1] = b < least[1] ? b : least[1];
    }
    print_message("of the bound: pack %.4f, spread %.4f\n", least[0], least[1]);
    assert_true(least[0] >= 0.98);
    assert_true(least[1] >= 0.96); /* what is left free lies in many pieces: who wants full hosts packs */
}

/* ---- Few hosts, and every way to pack them ---- */

enum { SMALL_HOSTS = 3, SMALL_ITEMS = 12 };

struct small {
    struct sc_res items[SMALL_ITEMS], free[SMALL_HOSTS];
    int64_t best, left[SMALL_ITEMS + 1]; /* memory taken at most; memory of all items from here on */
};

/* Branch and bound over every item in every host, or in none. */
static void solve(struct small *s, int at, int64_t taken)
{
    if (taken > s->best)
        s->best = taken;
    if (at == SMALL_ITEMS || taken + s->left[at] <= s->best)
        return;
    const struct sc_res *x = &s->items[at];
    for (int h = 0; h < SMALL_HOSTS; h++) {
        if (s->free[h].cpu_millis < x->cpu_millis || s->free[h].memory_bytes < x->memory_bytes)
            continue;
        sc_res_sub(&s->free[h], x);
        solve(s, at + 1, taken + x->memory_bytes);
        sc_res_add(&s->free[h], x);
    }
    solve(s, at + 1, taken);
}

/* The same items, one after another as they come, which no exact solver has to bear; sizes up to a fifth of a host. */
static void small_fleets_against_an_exact_solver(void **state)
{
    struct sc_weights pack = sc_weights_default;
    int64_t sum = 0, best = 0;
    pack.pack = true;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct fleet f;
        struct small s = {0};
        struct hp_rng g;
        hp_rng_init(&g, seed);
        fleet_init(
            &f, &(struct fleet_options){.hosts = SMALL_HOSTS, .zones = 1, .sizes = 1, .weights = &pack, .seed = seed});
        for (int i = SMALL_ITEMS - 1; i >= 0; i--) { /* about 95 % of 3 hosts of 24,000 millis and 64 GiB */
            int64_t unit = 6 + (int64_t)hp_rng_below(&g, 20);
            s.items[i] = (struct sc_res){unit * 350, unit * GIB, 0};
            s.left[i] = s.left[i + 1] + s.items[i].memory_bytes;
        }
        for (int h = 0; h < SMALL_HOSTS; h++)
            s.free[h] = f.infos[h].limit;
        solve(&s, 0, 0);
        for (int i = 0; i < SMALL_ITEMS; i++) {
            struct sc_query q = {.need = s.items[i], .weights = &pack, .stamp = 1};
            ptrdiff_t host = sc_index_best(&f.index, f.slots, SMALL_HOSTS, &q);
            if (host < 0)
                continue;
            fleet_claim(&f, (size_t)host, NULL, &q.need);
            sum += q.need.memory_bytes;
        }
        best += s.best;
        fleet_done(&f);
    }
    print_message("of what an exact solver packs, knowing all beforehand: %.4f\n", (double)sum / (double)best);
    assert_true(sum * 100 >= best * 90);
}

/* ---- How evenly ---- */

static double deviation(const double *x, size_t n)
{
    double mean = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum / (double)n; /* the variance: as good to compare */
}

/* Containers use what they use, from nothing to all of their claim; hosts are heard of now and then. The variance of what is in use. */
static double use_after(const struct sc_weights *weights, uint64_t seed)
{
    struct fleet f;
    struct hp_rng g;
    double used[HOSTS] = {0}, share[HOSTS];
    hp_rng_init(&g, seed);
    fleet_init(&f, &(struct fleet_options){.hosts = HOSTS, .zones = 1, .sizes = 3, .weights = weights, .seed = seed});
    for (size_t i = 0; i < HOSTS; i++) {
        f.slots[i].idle = 1;
        f.infos[i].trust = 1;
        sc_index_touch(&f.index, f.slots, i);
    }
    for (int n = 0; n < 1500; n++) {
        struct sc_query q = {.need = item(&g), .weights = weights, .stamp = 1};
        double use = (double)hp_rng_below(&g, 1000) / 1000 * (double)q.need.cpu_millis;
        ptrdiff_t host = sc_index_best(&f.index, f.slots, HOSTS, &q);
        if (host < 0)
            continue;
        fleet_claim(&f, (size_t)host, NULL, &q.need);
        used[host] += use;
        size_t heard = hp_rng_below(&g, HOSTS);
        f.slots[heard].idle = (float)(1 - used[heard] / (double)f.infos[heard].limit.cpu_millis);
        sc_index_touch(&f.index, f.slots, heard);
    }
    for (size_t i = 0; i < HOSTS; i++)
        share[i] = used[i] / (double)f.infos[i].limit.cpu_millis;
    fleet_done(&f);
    return deviation(share, HOSTS);
}

static void use_is_more_even_than_by_the_least_allocated(void **state)
{
    const struct sc_weights least_allocated = {.cpu = 50, .memory = 50};
    double ours = 0, theirs = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        ours += use_after(&sc_weights_default, seed);
        theirs += use_after(&least_allocated, seed);
    }
    print_message("variance of use: %.5f, by the least allocated %.5f\n", ours / 20, theirs / 20);
    assert_true(ours < theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_region_at_95_percent_takes_what_could_be_taken),
                                       cmocka_unit_test(small_fleets_against_an_exact_solver),
                                       cmocka_unit_test(use_is_more_even_than_by_the_least_allocated)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
