/* scheduler_weights_test.c — weights of regions and workload classes: what the configuration makes of its entries, and that each class is placed as a look at all hosts by its weights would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "lib/sc_world.h"
#include "shell/weights.h"

/* ---- Entries ---- */

static int apply(const char *const *entries, const char *region, struct sc_region_config *c, struct hp_error *e)
{
    *c = (struct sc_region_config){.weights = sc_weights_default};
    *e = (struct hp_error){0};
    return sc_weights_apply((char *const *)(uintptr_t)entries, region, c, e);
}

static void entries_build_on_each_other(void **state)
{
    /* In any order: what is wider comes first. */
    static const char *const entries[] = {
        "r2/db:primaries=5000:spread=7", "batch:pack:cpu=60", "r2/:load=40", ":disk=0", "db:primaries=1", NULL};
    struct sc_region_config c;
    struct hp_error e;
    assert_int_equal(apply(entries, "r1", &c, &e), 0);
    assert_int_equal(c.weights.disk, 0);
    assert_int_equal(c.weights.load, sc_weights_default.load);
    assert_int_equal(c.class_count, 2);
    assert_string_equal(c.classes[0].name, "batch");
    assert_true(c.classes[0].weights.pack && !c.weights.pack && !c.classes[1].weights.pack);
    assert_int_equal(c.classes[0].weights.cpu, 60);
    assert_int_equal(c.classes[0].weights.disk, 0);
    assert_int_equal(c.classes[1].weights.primaries, 1);
    assert_int_equal(apply(entries, "r2", &c, &e), 0);
    assert_int_equal(c.weights.load, 40);
    assert_int_equal(c.class_count, 2);
    assert_int_equal(c.classes[0].weights.load, 40);
    assert_string_equal(c.classes[1].name, "db");
    assert_int_equal(c.classes[1].weights.primaries, 5000);
    assert_int_equal(c.classes[1].weights.spread, 7);
    assert_int_equal(apply((const char *const[]){NULL}, "r2", &c, &e), 0);
    assert_memory_equal(&c.weights, &sc_weights_default, sizeof c.weights);
}

static void bad_entries_are_named(void **state)
{
    static const struct {
        const char *entries[12], *says;
    } bad[] = {
        {{"batch"}, "\"batch\" is not of the form"},
        {{"batch:"}, "\"\" is neither spread, pack, nor NAME=N"},
        {{"batch:colour=1"}, "\"colour=1\" is neither"},
        {{"batch:cpu"}, "\"cpu\" is neither"},
        {{"batch:cpu="}, "cpu= is not a number from 0 to 100"},
        {{"batch:cpu=101"}, "cpu=101 is not a number from 0 to 100"},
        {{"batch:cpu=-1"}, "cpu=-1 is not a number from 0 to 100"},
        {{"batch:cpu=5x"}, "cpu=5x is not a number"},
        {{"batch:cpu=99999999999999999999"}, "is not a number"},
        {{"batch:pack:image=10001"}, "image=10001 is not a number from 0 to 10000"},
        {{"R!/batch:pack"}, "\"R!\" is not a region's name"},
        {{"a:cpu=1", "b:cpu=1", "a:cpu=2"}, "\"a\" is there twice"},
        {{"a:cpu=0:memory=0:disk=0:balance=0:load=0:failures=0"}, "every weight of a host is 0"},
        {{"a:pack", "b:pack", "c:pack", "d:pack", "e:pack", "f:pack", "g:pack", "h:pack", "i:pack"},
         "more than 8 classes"},
        {{"a123456789b123456789c123456789d123456789e123456789f123456789g1234:pack"}, "a name of 65 bytes (at most 63)"},
    };
    struct sc_region_config c;
    struct hp_error e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(apply(bad[i].entries, "r1", &c, &e), HP_EINVAL);
        if (!strstr(e.message, bad[i].says))
            fail_msg("%s: does not say \"%s\"", e.message, bad[i].says);
    }
}

/* ---- Placement ---- */

static int64_t between(struct hp_rng *g, uint64_t low, uint64_t high)
{
    return (int64_t)(low + hp_rng_below(g, high - low + 1));
}

enum { HOSTS = 24, CREATES = 300 };

static const char *const classes[] = {"", "batch", "even", "near", "unknown"};

static struct scw *world(struct hp_rng *g)
{
    static const char *const entries[] = {"batch:pack:disk=0", "even:balance=100:cpu=1:memory=1",
                                          "near:image=5000:spread=10000", NULL};
    struct sc_region_config c;
    struct hp_error e = {0};
    char name[16];
    sc_region_config_defaults(&c);
    assert_int_equal(sc_weights_apply((char *const *)(uintptr_t)entries, "r1", &c, &e), 0);
    struct scw *w = scw_new(&c);
    for (int i = 0; i < HOSTS; i++) {
        snprintf(name, sizeof name, "h%d", i);
        scw_attach(w, name, 1, between(g, 8, 64) * 1000, between(g, 8, 128) * 1024);
    }
    return w;
}

static void create(struct scw *w, struct hp_rng *g, unsigned id)
{
    char name[32], full[128];
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__PlacementSpec placement = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    struct sc_query q;
    snprintf(name, sizeof name, "c%u", id);
    x.cpu_millis = between(g, 1, 40) * 100;
    x.memory_bytes = between(g, 1, 64) << 26;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.placement = &placement;
    placement.workload_class = (char *)classes[hp_rng_below(g, sizeof classes / sizeof *classes)];
    placement.spread_group = (char *)(hp_rng_below(g, 3) ? "" : "g");
    struct sc_res need = sc_spec_res(&spec);
    sc_query_init(w->region, &q, &need, &spec, "p", NULL);
    ptrdiff_t best = sc_place_best(w->region->slots, w->region->slot_count, &q);
    scw_create_spec(w, id, name, &spec, 0);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct sc_container *c = sc_container_find(w->region, full);
    assert_ptr_equal(c->host, best < 0 ? NULL : w->region->slots[best].info->host);
    if (c->host)
        scw_done(w, c->host->info.name, c->uid, 1);
    if (id % 16 == 0)
        sc_region_check(w->region);
}

static void each_class_is_placed_by_its_weights(void **state)
{
    struct hp_rng g;
    hp_rng_init(&g, 11);
    struct scw *w = world(&g);
    w->mute_trace = true;
    assert_int_equal(w->region->index_count, 3); /* "near" weighs hosts as the region does */
    for (unsigned id = 1; id <= CREATES; id++) {
        if (id == CREATES / 2)
            scw_takeover(w);
        create(w, &g, id);
    }
    sc_region_check(w->region);
    scw_free(w);
}

/* One packs, the other spreads. */
static void classes_choose_differently(void **state)
{
    struct hp_rng g;
    hp_rng_init(&g, 11);
    struct scw *w = world(&g);
    struct sc_query q;
    struct sc_res need = {.cpu_millis = 100, .memory_bytes = 64 << 20};
    ptrdiff_t chosen[2];
    for (int i = 0; i < 2; i++) {
        Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
        Harpoon__V1__PlacementSpec placement = HARPOON__V1__PLACEMENT_SPEC__INIT;
        spec.placement = &placement;
        placement.workload_class = (char *)classes[i];
        sc_query_init(w->region, &q, &need, &spec, "p", NULL);
        chosen[i] = sc_places_best(w->region, &q);
    }
    assert_true(chosen[0] >= 0 && chosen[1] >= 0 && chosen[0] != chosen[1]);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_build_on_each_other),
        cmocka_unit_test(bad_entries_are_named),
        cmocka_unit_test(each_class_is_placed_by_its_weights),
        cmocka_unit_test(classes_choose_differently),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
