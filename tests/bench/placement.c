/* placement.c — how many placements a second one core makes, with the index of the scheduler's core, and whether each is the best one.
 *
 *   bench-placement HOSTS LEG PLACEMENTS CHECKS SEED
 *
 * Legs: "steady" (every host's load comes once in 10 s, measured by the time that placing takes), "load-each" (with every placement the load of one random host),
 * "scan" (no index: the look at every host that the index replaces, for comparison in the same run). As "steady", with one more thing that every request asks for: "spread" (of one of 256
 * groups of up to 64, over 5 zones of racks of 40 hosts), "max-skew" (the same, with limits for zone, rack and host at random), "primaries" (a third of the requests are), "image" (on 60 %,
 * 15 %, … of the hosts), "preferences", "storage" (volumes of one class or two). "mixed": each request asks for any of these and for a network mode, by the shares of `mixture`. Prints one
 * JSON object.
 *
 * The fleet is half full of random claims; containers come, and as many go. A placement is: the metrics that are due, the choice, the claim of what was chosen,
 * and the end of one earlier container, one after the other; the next request sees all of it. Making requests, and checking, are not counted.
 *
 * How this could cheat, and what prevents it:
 * - The index could answer fast and wrongly: CHECKS random requests are asked of sc_place_best, too, a loop over all hosts that knows no index, in the same
 *   state and before the claim; a difference is printed and counted, and makes the program fail.
 * - Claims or loads could be left for later: the claim is read back from the slot at once, and at the end every leaf is compared with its slot, and each
 *   host's claims with the sum of what was placed there.
 * - The requests could be easy: `placed` must be all but a few, and the mix is that of tests/lib/fleet.c: sizes over three orders of magnitude, half of them
 *   with a zone, a label, or both; a tenth in anti-affinity groups.
 * - Others on the machine could make the numbers worse or better: the rate is by this thread's CPU time, percentiles are by the wall clock. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/fleet.h"

enum { BLOCK_MAX = 64, GROUPS = 512, GROUP_MEMBERS = 6, LIVE_MAX = 300000, METRICS_PERIOD_S = 10 };

struct live {
    uint32_t host;
    int group; /* of a spread */
    bool primary;
    struct sc_res res;
    struct sc_storage_item storage[FLEET_CLASSES_MAX];
    size_t storage_count;
};

struct request {
    struct fleet_request asked;
    int group; /* anti-affinity; -1 none */
};

static struct fleet fleet;
static struct request asked[BLOCK_MAX];
static struct hp_rng rng;
static struct live *lives;
static size_t live_count, live_max, live_next;
static uint32_t groups[GROUPS][GROUP_MEMBERS], group_counts[GROUPS], stamp;
static struct sc_res *filled; /* by host: claimed before the first placement */
static double metrics_each,
    metrics_due; /* samples that have come with each placement of this block; not yet taken in */
static int64_t placed, checked, mismatches;
static bool scan, load_each, mixed;
static unsigned asks; /* set of FLEET_… */

static int64_t ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "placement: %s\n", what);
    exit(1);
}

static void fill(void)
{
    for (size_t i = 0; i < fleet.o.hosts; i++) {
        const struct sc_res *l = &fleet.infos[i].limit;
        int64_t share = 200 + (int64_t)hp_rng_below(&rng, 500), lean = (int64_t)hp_rng_below(&rng, 200) - 100;
        struct sc_res c = {l->cpu_millis / 1000 * (share + lean), l->memory_bytes / 1000 * (share - lean),
                           l->disk_bytes / 1000 * (int64_t)hp_rng_below(&rng, 800)};
        fleet_claim(&fleet, i, NULL, &c);
        filled[i] = c;
    }
}

static void metrics(void)
{
    if (load_each) {
        fleet_metrics(&fleet, hp_rng_below(&rng, fleet.o.hosts));
        return;
    }
    metrics_due += metrics_each;
    while (metrics_due >= 1) {
        metrics_due--;
        fleet_metrics(&fleet, hp_rng_below(&rng, fleet.o.hosts));
    }
}

/* Percent of the requests of a mixed load that ask for each. */
static const struct {
    unsigned what;
    uint64_t percent;
} mixture[] = {{FLEET_STORAGE, 40}, {FLEET_NETWORK, 20}, {FLEET_SPREAD, 20}, {FLEET_SKEW, 5},
               {FLEET_PRIMARY, 10}, {FLEET_IMAGE, 10},   {FLEET_PREFER, 10}};

static unsigned mix(void)
{
    unsigned what = 0;
    for (size_t i = 0; i < sizeof mixture / sizeof *mixture; i++)
        what |= hp_rng_below(&rng, 100) < mixture[i].percent ? mixture[i].what : 0;
    return what;
}

static void make(struct request *x)
{
    fleet_request(&fleet, 50, &x->asked);
    if (mixed)
        fleet_ask(&fleet, mix(), &x->asked);
    else if (asks)
        fleet_ask(&fleet, asks == FLEET_PRIMARY && hp_rng_below(&rng, 3) ? 0 : asks, &x->asked);
    x->group = hp_rng_below(&rng, 10) ? -1 : (int)hp_rng_below(&rng, GROUPS);
}

/* As a region does before each question, from its table of groups. */
static void mark_group(struct request *x)
{
    x->asked.query.stamp = ++stamp;
    if (x->asked.query.spread)
        fleet_mark(&fleet, &x->asked);
    for (uint32_t i = 0; x->group >= 0 && i < group_counts[x->group] && i < GROUP_MEMBERS; i++)
        fleet.slots[groups[x->group][i]].group_stamp = stamp;
}

/* The one being timed. */
static void place(struct request *x)
{
    const struct fleet_request *r = &x->asked;
    metrics();
    mark_group(x);
    ptrdiff_t host = scan ? sc_place_best(fleet.slots, fleet.o.hosts, &r->query)
                          : sc_index_best(&fleet.index, fleet.slots, fleet.o.hosts, &r->query);
    if (host < 0)
        return;
    int64_t before = fleet.slots[host].free.cpu_millis;
    fleet_claim(&fleet, (size_t)host, NULL, &r->query.need);
    fleet_claim_storage(&fleet, (size_t)host, r->storage, r->query.storage_count, 1);
    if (fleet.slots[host].free.cpu_millis != before - r->query.need.cpu_millis)
        die("a claim was not taken in");
    if (x->group >= 0)
        groups[x->group][group_counts[x->group]++ % GROUP_MEMBERS] = (uint32_t)host;
    struct live *l = &lives[live_next];
    if (live_count == live_max) {
        fleet_claim(&fleet, l->host, &l->res, NULL);
        fleet_claim_storage(&fleet, l->host, l->storage, l->storage_count, -1);
        fleet_leave(&fleet, l->group, l->primary, l->host);
    } else {
        live_count++;
    }
    fleet_join(&fleet, r, (size_t)host);
    *l = (struct live){(uint32_t)host, r->group, r->query.primary, r->query.need,
                       .storage_count = r->query.storage_count};
    for (size_t i = 0; i < l->storage_count; i++)
        l->storage[i] = r->storage[i];
    live_next = (live_next + 1) % live_max;
    placed++;
}

/* Both see the same fleet: nothing changes between. */
static void check(struct request *x)
{
    const struct fleet_request *r = &x->asked;
    mark_group(x);
    ptrdiff_t expected = sc_place_best(fleet.slots, fleet.o.hosts, &r->query);
    ptrdiff_t found = sc_index_best(&fleet.index, fleet.slots, fleet.o.hosts, &r->query);
    checked++;
    if (found == expected)
        return;
    mismatches++;
    fprintf(stderr, "mismatch: index %td, scan %td, cpu %" PRId64 " memory %" PRId64 "\n", found, expected,
            r->query.need.cpu_millis, r->query.need.memory_bytes);
}

static void check_end(void)
{
    for (size_t i = 0; i < live_count; i++)
        sc_res_add(&filled[lives[i].host], &lives[i].res);
    for (size_t i = 0; i < fleet.o.hosts; i++) {
        const struct sc_slot *s = &fleet.slots[i];
        if (memcmp(&filled[i], &s->info->claimed, sizeof filled[i]) || s->free.cpu_millis < 0 ||
            s->free.memory_bytes < 0 || s->free.disk_bytes < 0 || sc_slot_storage_overdrawn(s))
            die("claims do not add up");
        sc_index_check(&fleet.index, fleet.slots, i);
    }
}

static int by_value(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static unsigned asked_by(const char *leg)
{
    static const struct {
        const char *leg;
        unsigned asks;
    } all[] = {{"spread", FLEET_SPREAD}, {"max-skew", FLEET_SKEW},      {"primaries", FLEET_PRIMARY},
               {"image", FLEET_IMAGE},   {"preferences", FLEET_PREFER}, {"storage", FLEET_STORAGE}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].leg, leg))
            return all[i].asks;
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 6)
        die("HOSTS LEG PLACEMENTS CHECKS SEED");
    size_t hosts = strtoull(argv[1], NULL, 10), count = strtoull(argv[3], NULL, 10),
           checks = strtoull(argv[4], NULL, 10);
    uint64_t seed = strtoull(argv[5], NULL, 10);
    scan = !strcmp(argv[2], "scan");
    load_each = !strcmp(argv[2], "load-each");
    asks = asked_by(argv[2]);
    mixed = !strcmp(argv[2], "mixed");
    hp_rng_init(&rng, seed * 31 + hosts);
    fleet_init(&fleet, &(struct fleet_options){.hosts = hosts,
                                               .zones = 5,
                                               .racks = asks || mixed ? 1 + (int)(hosts / 200) : 0,
                                               .sizes = 8,
                                               .labels = 3,
                                               .tainted_percent = 5,
                                               .sriov_percent = mixed ? 30 : 0,
                                               .storage_percent = mixed || asks & FLEET_STORAGE ? 60 : 0,
                                               .seed = seed});
    live_max = hosts * 20 < LIVE_MAX ? hosts * 20 : LIVE_MAX;
    lives = calloc(live_max, sizeof *lives);
    filled = calloc(hosts, sizeof *filled);
    float *us = calloc(count, sizeof *us);
    if (!lives || !filled || !us)
        die("out of memory");
    fill();
    bool as_asked = scan;
    scan = false; /* the fleet fills by the index: the scan has the same state */
    for (size_t i = 0; i < live_max; i++) {
        make(&asked[0]);
        place(&asked[0]);
    }
    scan = as_asked;
    fleet.index.work = (struct sc_index_work){0};
    placed = 0;
    checks = checks < count ? checks : count;
    int64_t cpu_ns = 0;
    size_t done = 0;
    uint64_t block_max = checks && count / checks < BLOCK_MAX ? count / checks : BLOCK_MAX; /* one check in a block */
    while (done < count) {
        size_t n = 1 + hp_rng_below(&rng, block_max);
        if (n > count - done)
            n = count - done;
        for (size_t k = 0; k < n; k++)
            make(&asked[k]);
        if (!scan && (size_t)checked < checks * (done + n) / count)
            check(&asked[0]);
        int64_t c0 = ns(CLOCK_THREAD_CPUTIME_ID), w0 = ns(CLOCK_MONOTONIC);
        for (size_t k = 0; k < n; k++) {
            place(&asked[k]);
            int64_t w1 = ns(CLOCK_MONOTONIC);
            us[done + k] = (float)(w1 - w0) / 1e3F;
            w0 = w1;
        }
        int64_t block_ns = ns(CLOCK_THREAD_CPUTIME_ID) - c0;
        cpu_ns += block_ns;
        /* What comes while a block is placed is taken in with the next. */
        metrics_each = (double)block_ns / 1e9 * (double)fleet.o.hosts / METRICS_PERIOD_S / (double)n;
        done += n;
    }
    struct sc_index_work work = fleet.index.work;
    check_end();
    qsort(us, count, sizeof *us, by_value);
    fprintf(stderr, "%zu hosts, %s: %" PRId64 " of %zu placed, %u kinds, %.1f hosts and %.1f subtrees looked at each\n",
            hosts, argv[2], placed, count, fleet.index.kinds_used,
            (double)work.hosts / (double)(count + (size_t)checked),
            (double)work.subtrees / (double)(count + (size_t)checked));
    printf("{\"hosts\":%zu,\"leg\":\"%s\",\"placements_per_s\":%.0f,\"us_p50\":%.2f,\"us_p99\":%.2f,"
           "\"oracle_checked\":%" PRId64 ",\"oracle_mismatches\":%" PRId64 "}\n",
           hosts, argv[2], (double)count * 1e9 / (double)cpu_ns, (double)us[count / 2], (double)us[count * 99 / 100],
           checked, mismatches);
    fleet_done(&fleet);
    free(lives);
    free(filled);
    free(us);
    return mismatches || placed < (int64_t)count * 9 / 10;
}
