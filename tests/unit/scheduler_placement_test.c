/* scheduler_placement_test.c — filters and scores of hosts, and their explanation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/placement.h"

#define GIB (1LL << 30)

enum { HOSTS = 3 };

struct fleet {
    Harpoon__V1__Host pbs[HOSTS];
    Harpoon__V1__Host__LabelsEntry label, *labels[1];
    struct sc_slot_info infos[HOSTS];
    struct sc_slot slots[HOSTS];
};

/* Three equal hosts of 4 cores and 8 GiB; b has a label and is in zone z2. */
static void fleet_init(struct fleet *f)
{
    static const char *const names[HOSTS] = {"a", "b", "c"};
    const struct sc_overcommit o = {150, 100, 100, 150};
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    all.cpu_millis = 4000;
    all.memory_bytes = 8 * GIB;
    all.disk_bytes = 100 * GIB;
    memset(f, 0, sizeof *f);
    for (int i = 0; i < HOSTS; i++) {
        harpoon__v1__host__init(&f->pbs[i]);
        f->pbs[i].zone = (char *)"z1";
        f->pbs[i].router = (char *)"er1";
        f->infos[i] = (struct sc_slot_info){.pb = &f->pbs[i], .name = names[i], .at = (uint32_t)i, .trust = 1};
        f->slots[i] = (struct sc_slot){.info = &f->infos[i], .ready = true, .idle = 1};
        sc_slot_set_allocatable(&f->slots[i], &all, &o);
    }
    harpoon__v1__host__labels_entry__init(&f->label);
    f->label.key = (char *)"disk";
    f->label.value = (char *)"nvme";
    f->labels[0] = &f->label;
    f->pbs[1].labels = f->labels;
    f->pbs[1].n_labels = 1;
    f->pbs[1].zone = (char *)"z2";
}

static void claim(struct fleet *f, int host, int64_t cpu, int64_t memory)
{
    struct sc_res x = {cpu, memory, 0};
    sc_slot_claim(&f->slots[host], NULL, &x);
}

static struct sc_query query(int64_t cpu, int64_t memory)
{
    return (struct sc_query){.need = {cpu, memory, 0}, .weights = &sc_weights_default, .stamp = 1};
}

static void an_open_breaker_keeps_away_what_needs_the_resource(void **state)
{
    static const enum sc_filter filters[HP_RESOURCE_COUNT] = {SC_FILTER_BREAKER_CPU, SC_FILTER_BREAKER_MEMORY,
                                                              SC_FILTER_BREAKER_IO, SC_FILTER_BREAKER_NETWORK};
    static const char *const names[HP_RESOURCE_COUNT] = {"breaker_cpu", "breaker_memory", "breaker_io",
                                                         "breaker_network"};
    struct fleet f;
    struct sc_query q = query(100, GIB);
    fleet_init(&f);
    for (int i = 0; i < HP_RESOURCE_COUNT; i++) {
        f.slots[0].breakers = (uint8_t)(1U << i);
        q.needs = 0xf;
        assert_int_equal(sc_slot_check(&f.slots[0], &q), filters[i]);
        assert_string_equal(sc_filter_name(filters[i]), names[i]);
        q.needs = (uint8_t)(0xf & ~(1U << i));
        assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FITS);
    }
    f.slots[1].breakers = f.slots[2].breakers = 0x6; /* memory and io: the first one is named */
    q.needs = 0xf;
    int rejected[SC_FILTER_COUNT];
    char text[256];
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), -1);
    sc_place_count(f.slots, HOSTS, &q, rejected);
    sc_place_reason(rejected, HOSTS, text, sizeof text);
    assert_string_equal(text, "waits for a host: none of 3 fits (2 overloaded in memory, 1 overloaded in network)");
}

static void an_open_breaker_is_explained_with_its_reason(void **state)
{
    struct fleet f;
    struct sc_query q = query(100, GIB);
    Harpoon__V1__Breaker b = HARPOON__V1__BREAKER__INIT, *list[1] = {&b};
    Harpoon__V1__ExplainResponse *out = NULL;
    fleet_init(&f);
    b.resource = (char *)"io";
    b.reason = (char *)"io: pressure 60.0 % (limit 40 %)";
    f.infos[1].breakers = list;
    f.infos[1].breaker_count = 1;
    f.slots[1].breakers = 1U << HP_RESOURCE_IO;
    q.needs = 1U << HP_RESOURCE_IO;
    assert_int_equal(sc_place_explain(f.slots, HOSTS, &q, "r1", 10, &out), 0);
    assert_int_equal(out->feasible_count, 2);
    assert_string_equal(out->hosts[2]->host, "regions/r1/hosts/b");
    assert_string_equal(out->hosts[2]->rejected_by, "breaker_io");
    assert_string_equal(out->hosts[2]->detail, "breaker is open: io: pressure 60.0 % (limit 40 %)");
    assert_string_equal(out->rejected[0]->key, "breaker_io");
    harpoon__v1__explain_response__free_unpacked(out, NULL);
}

static void capacity_counts_overcommit(void **state)
{
    struct fleet f;
    struct sc_query q = query(6000, GIB); /* 4 cores, 1.5 times */
    fleet_init(&f);
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FITS);
    q.need.cpu_millis = 6001;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_CPU);
    q = query(100, 8 * GIB);
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FITS);
    q = query(100, 8 * GIB + 1);
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_MEMORY);
    q = query(100, GIB);
    q.need.disk_bytes = 101 * GIB;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_DISK);
    claim(&f, 0, 5950, GIB);
    q = query(100, GIB);
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_CPU);
    const struct sc_res shrink = {-100, -GIB, 0};
    assert_int_equal(sc_slot_check_room(&f.slots[0], &shrink), SC_FITS);
}

static void filters_name_the_first_reason(void **state)
{
    struct fleet f;
    struct sc_query q = query(100, GIB);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__PlacementSpec__HostLabelsEntry want, *wants[] = {&want};
    char *zones[] = {(char *)"z2", (char *)"z3"};
    fleet_init(&f);
    q.spec = &p;
    p.host = (char *)"b";
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_HOST);
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 1);
    p.host = (char *)"";
    p.zones = zones;
    p.n_zones = 2;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_ZONE);
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 1);
    p.n_zones = 0;
    harpoon__v1__placement_spec__host_labels_entry__init(&want);
    want.key = (char *)"disk";
    want.value = (char *)"nvme";
    p.host_labels = wants;
    p.n_host_labels = 1;
    assert_int_equal(sc_slot_check(&f.slots[2], &q), SC_FILTER_LABELS);
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 1);
    want.value = (char *)"disk";
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), -1);
    p.n_host_labels = 0;
    f.slots[0].group_stamp = 1;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_ANTI_AFFINITY);
    f.slots[0].excluded_stamp = 1;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_EXCLUDED);
    f.slots[0].cordoned = true;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_CORDONED);
    f.slots[0].ready = false;
    assert_int_equal(sc_slot_check(&f.slots[0], &q), SC_FILTER_STATE);
    q.stamp = 2; /* marks of an earlier query mean nothing */
    assert_int_equal(sc_slot_check(&f.slots[1], &q), SC_FITS);
}

static void the_emptier_the_better(void **state)
{
    struct fleet f;
    struct sc_query q = query(500, GIB);
    fleet_init(&f);
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 0); /* equal: the first */
    claim(&f, 0, 1000, GIB);
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 1);
    claim(&f, 1, 1000, 5 * GIB); /* as much cpu, and lopsided */
    claim(&f, 2, 1000, GIB);
    f.slots[2].idle = 0.1F; /* claimed alike, but busy */
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 0);
}

static void packing_fills_one_host_after_the_other(void **state)
{
    struct fleet f;
    struct sc_query q = query(1000, GIB);
    const struct sc_weights pack = {.cpu = 30, .memory = 30, .disk = 10, .balance = 15, .load = 15, .pack = true};
    static const int expected[] = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2}; /* 6 cores each, with overcommit */
    struct sc_score score;
    fleet_init(&f);
    q.weights = &pack;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        ptrdiff_t best = sc_place_best(f.slots, HOSTS, &q);
        assert_int_equal(best, expected[i]);
        sc_slot_score(&f.slots[best], &q, &score);
        assert_true(sc_score_percent(&score, &q) >= 0 && sc_score_percent(&score, &q) <= 100);
        sc_slot_claim(&f.slots[best], NULL, &q.need);
    }
}

static void a_fleet_fills_evenly(void **state)
{
    struct fleet f;
    struct sc_query q = query(100, 128 << 20);
    int counts[HOSTS] = {0};
    fleet_init(&f);
    for (int i = 0; i < 60; i++) {
        ptrdiff_t best = sc_place_best(f.slots, HOSTS, &q);
        assert_true(best >= 0);
        sc_slot_claim(&f.slots[best], NULL, &q.need);
        counts[best]++;
    }
    for (int i = 0; i < HOSTS; i++)
        assert_int_equal(counts[i], 20);
}

static void the_reason_counts_what_lacks(void **state)
{
    struct fleet f;
    struct sc_query q = query(100, 9 * GIB);
    int rejected[SC_FILTER_COUNT];
    char text[256];
    fleet_init(&f);
    f.slots[0].cordoned = true;
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), -1);
    sc_place_count(f.slots, HOSTS, &q, rejected);
    sc_place_reason(rejected, HOSTS, text, sizeof text);
    assert_string_equal(text, "waits for a host: none of 3 fits (1 cordoned, 2 short of memory)");
    sc_place_reason(rejected, 0, text, sizeof text);
    assert_string_equal(text, "waits for a host: none is known");
}

static void of_equal_hosts_explain_names_the_one_that_placing_takes(void **state)
{
    struct fleet f;
    struct sc_query q = query(500, GIB);
    Harpoon__V1__ExplainResponse *x = NULL;
    fleet_init(&f);
    f.infos[0].name = "z"; /* the first to attach, the last by name */
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 0);
    assert_int_equal(sc_place_explain(f.slots, HOSTS, &q, "r1", 10, &x), 0);
    assert_true(x->hosts[0]->score == x->hosts[2]->score);
    assert_string_equal(x->hosts[0]->host, "regions/r1/hosts/z");
    assert_string_equal(x->hosts[1]->host, "regions/r1/hosts/b");
    harpoon__v1__explain_response__free_unpacked(x, NULL);
}

static void explain_ranks_as_placing_does(void **state)
{
    struct fleet f;
    struct sc_query q = query(500, GIB);
    Harpoon__V1__ExplainResponse *x = NULL;
    fleet_init(&f);
    claim(&f, 0, 1000, GIB);
    claim(&f, 2, 100, 8 * GIB);
    assert_int_equal(sc_place_explain(f.slots, HOSTS, &q, "r1", 10, &x), 0);
    assert_int_equal(x->host_count, 3);
    assert_int_equal(x->feasible_count, 2);
    assert_int_equal(x->n_hosts, 3);
    assert_string_equal(x->hosts[0]->host, "regions/r1/hosts/b");
    assert_int_equal(sc_place_best(f.slots, HOSTS, &q), 1);
    assert_string_equal(x->hosts[0]->rejected_by, "");
    assert_int_equal(x->hosts[0]->n_parts, 6);
    assert_true(x->hosts[0]->score > x->hosts[1]->score);
    assert_string_equal(x->hosts[2]->rejected_by, "capacity_memory");
    assert_string_equal(x->hosts[2]->detail, "needs 1073741824 bytes of memory, 0 of 8589934592 are free");
    assert_int_equal(x->n_rejected, 1);
    assert_string_equal(x->rejected[0]->key, "capacity_memory");
    assert_int_equal(x->rejected[0]->value, 1);
    harpoon__v1__explain_response__free_unpacked(x, NULL);
    assert_int_equal(sc_place_explain(f.slots, HOSTS, &q, "r1", 1, &x), 0);
    assert_int_equal(x->n_hosts, 1);
    harpoon__v1__explain_response__free_unpacked(x, NULL);
    assert_int_equal(sc_place_explain(NULL, 0, &q, "r1", 20, &x), 0);
    assert_int_equal(x->host_count, 0);
    harpoon__v1__explain_response__free_unpacked(x, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_breaker_keeps_away_what_needs_the_resource),
        cmocka_unit_test(an_open_breaker_is_explained_with_its_reason),
        cmocka_unit_test(capacity_counts_overcommit),
        cmocka_unit_test(filters_name_the_first_reason),
        cmocka_unit_test(the_emptier_the_better),
        cmocka_unit_test(packing_fills_one_host_after_the_other),
        cmocka_unit_test(a_fleet_fills_evenly),
        cmocka_unit_test(the_reason_counts_what_lacks),
        cmocka_unit_test(of_equal_hosts_explain_names_the_one_that_placing_takes),
        cmocka_unit_test(explain_ranks_as_placing_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
