/* scheduler_place_index_test.c — the index chooses what a look at every host would choose: random fleets, requests, claims, loads, states and labels.
 * HARPOON_SEED runs one seed, HARPOON_SEEDS that many. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fleet.h"

enum { HOSTS_MAX = 600, CLAIMS_MAX = 4096 };

struct claim {
    size_t host;
    int group;
    bool primary;
    struct sc_res res;
    struct sc_storage_item storage[FLEET_CLASSES_MAX];
    size_t storage_count;
};

struct run {
    struct fleet fleet;
    struct hp_rng rng;
    struct claim claims[CLAIMS_MAX];
    size_t claim_count;
    size_t placed, refused;
    bool asks;   /* for spreads, roles, images, preferences */
    bool coarse; /* few distinct requests, and no load is known: many hosts are equal */
};

/* No host may be claimed beyond its limit, but one that has become smaller. */
static void check_host(const struct run *x, size_t i)
{
    const struct sc_slot *s = &x->fleet.slots[i];
    assert_true(s->info->smaller || (s->free.cpu_millis >= 0 && s->free.memory_bytes >= 0 && s->free.disk_bytes >= 0));
    assert_true(s->info->smaller || (s->info->claimed.network_bps <= s->info->limit.network_bps &&
                                     s->info->claimed.functions <= s->info->limit.functions));
    assert_true(s->info->storage_smaller || !sc_slot_storage_overdrawn(s));
    sc_index_check(&x->fleet.index, x->fleet.slots, i);
}

/* Classes, sums, and the rest of each: worked out from the claims alone. */
static void check_storage(const struct run *x, size_t i)
{
    const struct sc_slot_info *s = x->fleet.slots[i].info;
    for (size_t k = 0; s->storage && k < s->storage->count; k++) {
        int64_t sum = 0;
        for (size_t n = 0; n < x->claim_count; n++)
            for (size_t m = 0; x->claims[n].host == i && m < x->claims[n].storage_count; m++)
                if (!strcmp(x->claims[n].storage[m].name, s->storage->items[k].name))
                    sum += x->claims[n].storage[m].bytes;
        assert_int_equal(s->storage_claimed[k], sum);
        assert_true(sum <= s->storage->items[k].bytes || s->storage_smaller);
    }
}

static void check_constraints(const struct sc_slot *s, const struct fleet_request *q)
{
    const Harpoon__V1__PlacementSpec *p = q->query.spec;
    assert_true(s->ready && !s->cordoned && !(s->breakers & q->query.needs));
    assert_true(s->excluded_stamp != q->query.stamp);
    if (p && p->n_zones)
        assert_string_equal(s->info->pb->zone, p->zones[0]);
    if (p && p->n_host_labels)
        assert_string_equal(s->info->pb->labels[0]->value, p->host_labels[0]->value);
    if (p && p->n_label_expressions)
        assert_true(!strcmp(s->info->pb->labels[0]->value, p->label_expressions[0]->values[0]) ==
                    (p->label_expressions[0]->operator_ == HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN));
    assert_true(!s->info->pb->n_taints || (p && p->n_tolerations));
    const Harpoon__V1__HostFacts *f = s->info->pb->facts;
    bool offered = !q->query.mode;
    for (size_t i = 0; f && i < f->n_network_modes; i++)
        offered |= q->query.mode == 1U << f->network_modes[i];
    assert_true(offered);
    for (size_t i = 0; i < q->query.storage_count; i++) {
        const struct sc_storage *has = s->info->storage;
        bool found = false;
        for (size_t k = 0; has && k < has->count; k++)
            found |= !strcmp(has->items[k].name, q->storage[i].name) &&
                     has->items[k].bytes - s->info->storage_claimed[k] >= q->storage[i].bytes;
        assert_true(found);
    }
}

/* Worked out from the members' hosts alone: no code of the topology. */
static void check_skew(const struct run *x, const struct fleet_request *q, size_t chosen)
{
    const struct fleet *f = &x->fleet;
    for (int level = 0; q->query.spread && level < SC_LEVELS; level++) {
        long least = LONG_MAX, here = 0;
        if (!q->query.max_skew[level])
            continue;
        for (size_t i = 0; i < f->o.hosts; i++) {
            const Harpoon__V1__Host *a = f->infos[i].pb;
            long members = 0;
            for (uint32_t k = 0; k < f->groups[q->group].count; k++) {
                size_t at = f->groups[q->group].hosts[k];
                const Harpoon__V1__Host *b = f->infos[at].pb;
                members += level == SC_LEVEL_HOST
                               ? at == i
                               : !strcmp(a->zone, b->zone) && (level == SC_LEVEL_ZONE || !strcmp(a->rack, b->rack));
            }
            if (i == chosen)
                here = members;
            if (sc_slot_eligible(&f->slots[i], &q->query) && members < least)
                least = members;
        }
        assert_true(here + 1 - least <= q->query.max_skew[level]);
    }
}

static void place(struct run *x)
{
    struct fleet *f = &x->fleet;
    struct fleet_request q;
    fleet_request(f, 50, &q);
    if (x->coarse)
        q.query.need = (struct sc_res){1000 << hp_rng_below(&x->rng, 2), 4LL << (30 + hp_rng_below(&x->rng, 2)), 0};
    else if (hp_rng_below(&x->rng, 8) == 0) /* some fit hardly anywhere */
        q.query.need.memory_bytes *= (int64_t)hp_rng_below(&x->rng, 64);
    if (hp_rng_below(&x->rng, 16) == 0)
        q.query.need.cpu_millis = 0;
    static uint32_t stamp;
    q.query.stamp = ++stamp;
    if (x->asks)
        fleet_ask(f, (unsigned)hp_rng_below(&x->rng, FLEET_ALL + 1), &q);
    fleet_mark(f, &q);
    q.query.needs = (uint8_t)hp_rng_below(&x->rng, 4);
    for (uint64_t i = hp_rng_below(&x->rng, 4); i; i--)
        f->slots[hp_rng_below(&x->rng, f->o.hosts)].excluded_stamp = q.query.stamp;
    ptrdiff_t expected = sc_place_best(f->slots, f->o.hosts, &q.query);
    ptrdiff_t found = sc_index_best(&f->index, f->slots, f->o.hosts, &q.query);
    assert_int_equal(found, expected);
    if (found < 0) {
        x->refused++;
        return;
    }
    x->placed++;
    check_constraints(&f->slots[found], &q);
    check_skew(x, &q, (size_t)found);
    if (x->claim_count == CLAIMS_MAX)
        return;
    fleet_claim(f, (size_t)found, NULL, &q.query.need);
    fleet_claim_storage(f, (size_t)found, q.storage, q.query.storage_count, 1);
    struct claim *c = &x->claims[x->claim_count++];
    *c = (struct claim){(size_t)found, q.group, q.query.primary, q.query.need, .storage_count = q.query.storage_count};
    for (size_t i = 0; i < c->storage_count; i++)
        c->storage[i] = q.storage[i];
    fleet_join(f, &q, (size_t)found);
    check_host(x, (size_t)found);
    check_storage(x, (size_t)found);
}

static void release(struct run *x)
{
    if (!x->claim_count)
        return;
    size_t i = hp_rng_below(&x->rng, x->claim_count);
    fleet_claim(&x->fleet, x->claims[i].host, &x->claims[i].res, NULL);
    fleet_claim_storage(&x->fleet, x->claims[i].host, x->claims[i].storage, x->claims[i].storage_count, -1);
    fleet_leave(&x->fleet, x->claims[i].group, x->claims[i].primary, x->claims[i].host);
    check_host(x, x->claims[i].host);
    x->claims[i] = x->claims[--x->claim_count];
}

/* The host comes back with other classes: what lies there is counted anew. */
static void other_storage(struct run *x, size_t i)
{
    struct fleet *f = &x->fleet;
    fleet_storage(f, i);
    for (size_t n = 0; n < x->claim_count; n++)
        if (x->claims[n].host == i)
            fleet_claim_storage(f, i, x->claims[n].storage, x->claims[n].storage_count, 1);
    f->infos[i].storage_smaller = sc_slot_storage_overdrawn(&f->slots[i]);
}

/* Cordons, losses, returns, moves to another zone, and hosts that come back with more or less. */
static void upheaval(struct run *x)
{
    struct fleet *f = &x->fleet;
    size_t i = hp_rng_below(&x->rng, f->o.hosts);
    struct sc_slot *s = &f->slots[i];
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    switch (hp_rng_below(&x->rng, f->o.storage_percent ? 6 : 5)) {
    case 0:
        s->cordoned = !s->cordoned;
        break;
    case 1:
        s->ready = !s->ready;
        break;
    case 2:
        s->info->pb = f->slots[hp_rng_below(&x->rng, f->o.hosts)].info->pb;
        break;
    case 3:
        s->breakers = (uint8_t)hp_rng_below(&x->rng, 4);
        break;
    case 5:
        other_storage(x, i);
        break;
    default:
        all.cpu_millis = 1000 * (int64_t)hp_rng_below(&x->rng, 100);
        all.memory_bytes = (int64_t)hp_rng_below(&x->rng, 100) << 30;
        all.disk_bytes = (int64_t)hp_rng_below(&x->rng, 1000) << 30;
        all.network_bps = (int64_t)hp_rng_below(&x->rng, 1000) << 20;
        sc_slot_set_allocatable(s, &all, &f->overcommit);
    }
    fleet_facts(f, i);
    check_host(x, i);
}

static void random_weights(struct hp_rng *g, bool pack, struct sc_weights *ret)
{
    int *of_host[] = {&ret->cpu, &ret->memory, &ret->disk, &ret->balance, &ret->load, &ret->failures};
    int *asked[] = {&ret->spread, &ret->primaries, &ret->image, &ret->preferences, &ret->network, &ret->storage};
    for (size_t i = 0; i < sizeof of_host / sizeof *of_host; i++)
        *of_host[i] = (int)hp_rng_below(g, SC_WEIGHT_MAX + 1);
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        *asked[i] = (int)hp_rng_below(g, hp_rng_below(g, 2) ? SC_WEIGHT_ASKED_MAX + 1 : SC_WEIGHT_MAX + 1);
    ret->load += ret->load == 0;
    ret->pack = pack;
}

static void run_seed(uint64_t seed)
{
    struct run *x = calloc(1, sizeof *x);
    assert_non_null(x);
    hp_rng_init(&x->rng, seed * 7919);
    struct sc_weights weights = sc_weights_default;
    if (seed % 2 == 0) /* any: the heaviest, and with none for what the others need most */
        random_weights(&x->rng, seed % 6 == 0, &weights);
    fleet_init(&x->fleet, &(struct fleet_options){
                              .hosts = 1 + hp_rng_below(&x->rng, HOSTS_MAX),
                              .zones = seed % 8 == 5 ? 100 : 1 + (int)hp_rng_below(&x->rng, 4),
                              .sizes = 1 + (int)hp_rng_below(&x->rng, 8),
                              .stretch_percent = seed % 3 ? 0 : 20,
                              .labels = (int)hp_rng_below(&x->rng, 5),
                              .tainted_percent = seed % 2 ? 10 : 0,
                              .weights = &weights,
                              .serial = seed % 5 == 0,
                              .sriov_percent = seed % 7 < 4 ? 40 : 0,
                              .racks = (int)(seed % 4) * 3,
                              .storage_percent = (int)(seed % 7) * 15,
                              .storage_classes = 2 + (int)(seed % 2),
                              .seed = seed,
                          });
    x->asks = seed % 3 != 0;
    x->coarse = seed % 4 == 0;
    if (x->coarse)
        for (size_t i = 0; i < x->fleet.o.hosts; i++) {
            x->fleet.slots[i].idle = 1;
            sc_index_touch(&x->fleet.index, x->fleet.slots, i);
        }
    for (int step = 0; step < 3000; step++) {
        uint64_t what = hp_rng_below(&x->rng, 100);
        if (what < 60)
            place(x);
        else if (what < 80)
            release(x);
        else if (what < 97 && !x->coarse)
            fleet_metrics(&x->fleet, hp_rng_below(&x->rng, x->fleet.o.hosts));
        else if (what >= 97)
            upheaval(x);
    }
    for (size_t i = 0; i < x->fleet.o.hosts; i++)
        check_host(x, i);
    assert_true(x->placed > 0);
    fleet_done(&x->fleet);
    free(x);
}

static void the_index_agrees_with_a_look_at_all(void **state)
{
    const char *one = getenv("HARPOON_SEED"), *many = getenv("HARPOON_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, count = one ? 1 : many ? strtoull(many, NULL, 10) : 20;
    for (uint64_t seed = first; seed < first + count; seed++) {
        fprintf(stderr, "seed %llu\r", (unsigned long long)seed); /* the last one shown is the one that failed */
        run_seed(seed);
    }
}

/* More kinds than allowed: labels that tell every host apart stop doing so, and odd sizes are rounded. */
static void every_host_may_be_of_its_own_kind(void **state)
{
    struct fleet f;
    fleet_init(&f, &(struct fleet_options){.hosts = 3 * SC_KINDS_MAX,
                                           .zones = 2,
                                           .sizes = 8,
                                           .stretch_percent = 50,
                                           .labels = 3,
                                           .serial = true,
                                           .storage_percent = 50,
                                           .seed = 1});
    assert_true(f.index.kinds_used <= SC_KINDS_MAX);
    assert_non_null(hp_map_get(&f.index.blurred, "serial"));
    for (int i = 0; i < 200; i++) {
        struct fleet_request q;
        fleet_request(&f, 50, &q);
        fleet_ask(&f, i % 2 ? FLEET_STORAGE : 0, &q);
        ptrdiff_t found = sc_index_best(&f.index, f.slots, f.o.hosts, &q.query);
        assert_int_equal(found, sc_place_best(f.slots, f.o.hosts, &q.query));
        if (found < 0)
            continue;
        fleet_claim(&f, (size_t)found, NULL, &q.query.need);
        fleet_claim_storage(&f, (size_t)found, q.storage, q.query.storage_count, 1);
    }
    fleet_done(&f);
}

/* Places 2,000 containers, half of them with constraints, each asking for a random one of `asks`; then so much has been looked at for each on average. */
static struct sc_index_work looked_at(const struct fleet_options *o, const unsigned *asks, size_t count)
{
    enum { PLACED = 2000 };
    struct fleet f;
    fleet_init(&f, o);
    f.index.work = (struct sc_index_work){0};
    for (int i = 0; i < PLACED; i++) {
        struct fleet_request q;
        fleet_request(&f, 50, &q);
        fleet_ask(&f, asks[hp_rng_below(&f.rng, count)], &q);
        fleet_mark(&f, &q);
        ptrdiff_t found = sc_index_best(&f.index, f.slots, f.o.hosts, &q.query);
        if (found < 0)
            continue;
        fleet_claim(&f, (size_t)found, NULL, &q.query.need);
        fleet_claim_storage(&f, (size_t)found, q.storage, q.query.storage_count, 1);
        fleet_join(&f, &q, (size_t)found);
    }
    struct sc_index_work each = {f.index.work.hosts / PLACED, f.index.work.subtrees / PLACED};
    print_message("%u kinds, %llu hosts and %llu subtrees looked at each\n", f.index.kinds_used,
                  (unsigned long long)each.hosts, (unsigned long long)each.subtrees);
    fleet_done(&f);
    return each;
}

/* Not a promise of exact numbers: that a search does not quietly become a scan, whatever is asked for. */
static void few_hosts_are_looked_at(void **state)
{
    static const unsigned nothing[] = {0}, storage[] = {FLEET_STORAGE}, network[] = {FLEET_NETWORK},
                          primaries[] = {FLEET_PRIMARY, 0, 0},
                          any[] = {0,
                                   0,
                                   FLEET_STORAGE,
                                   FLEET_NETWORK,
                                   FLEET_SPREAD,
                                   FLEET_SKEW,
                                   FLEET_PRIMARY,
                                   FLEET_PREFER,
                                   FLEET_STORAGE | FLEET_NETWORK,
                                   FLEET_STORAGE | FLEET_SPREAD};
    const struct fleet_options plain = {.hosts = 20000, .zones = 4, .sizes = 8, .labels = 3, .seed = 3},
                               rich = {.hosts = 10000,
                                       .zones = 5,
                                       .racks = 50,
                                       .sizes = 8,
                                       .labels = 3,
                                       .tainted_percent = 5,
                                       .sriov_percent = 30,
                                       .storage_percent = 60,
                                       .seed = 3};
    const struct {
        const struct fleet_options *o;
        const unsigned *asks;
        size_t count;
        unsigned hosts, subtrees;
    } cases[] = {{&plain, nothing, 1, 20, 400},   {&rich, nothing, 1, 20, 400},
                 {&rich, storage, 1, 30, 1000},   {&rich, network, 1, 30, 1000},
                 {&rich, primaries, 3, 30, 1000}, {&rich, any, sizeof any / sizeof *any, 30, 1000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sc_index_work each = looked_at(cases[i].o, cases[i].asks, cases[i].count);
        assert_in_range(each.hosts, 1, cases[i].hosts);
        assert_in_range(each.subtrees, 1, cases[i].subtrees);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_index_agrees_with_a_look_at_all),
                                       cmocka_unit_test(every_host_may_be_of_its_own_kind),
                                       cmocka_unit_test(few_hosts_are_looked_at)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
