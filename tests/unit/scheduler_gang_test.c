/* scheduler_gang_test.c — gangs: all of them get places in one decision, or none does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "core/containers.h"
#include "core/state.h"
#include "lib/sc_world.h"

struct member {
    unsigned id;
    const char *gang;
    int size;
    int64_t cpu;
    int skew; /* of hosts, in spread group "s"; 0 none */
};

static struct sc_container *container(struct scw *w, unsigned id)
{
    char full[64];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/c%u", id);
    return sc_container_find(w->region, full);
}

static const char *host_of(struct scw *w, unsigned id)
{
    const struct sc_container *c = container(w, id);
    assert_non_null(c);
    return c->host ? c->host->info.name : "";
}

/* `request` numbers the request; the container is named by the member's id. */
static void create(struct scw *w, unsigned request, const struct member *m)
{
    char name[16];
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__Gang gang = HARPOON__V1__GANG__INIT;
    Harpoon__V1__SpreadConstraint skew = HARPOON__V1__SPREAD_CONSTRAINT__INIT, *skews[] = {&skew};
    snprintf(name, sizeof name, "c%u", m->id);
    x.cpu_millis = m->cpu;
    x.memory_bytes = 64 << 20;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.placement = &p;
    gang.name = (char *)m->gang;
    gang.size = m->size;
    p.gang = &gang;
    if (m->skew) {
        p.spread_group = (char *)"s";
        p.spread_constraints = skews;
        p.n_spread_constraints = 1;
        skew.topology = HARPOON__V1__TOPOLOGY__TOPOLOGY_HOST;
        skew.max_skew = m->skew;
    }
    scw_create_spec(w, request, name, &spec, 0);
    sc_region_check(w->region);
}

static void all_come_and_all_are_placed(void **state)
{
    struct scw *w = scw_new(NULL);
    struct member m = {.gang = "g", .size = 3, .cpu = 1000, .skew = 1};
    for (int i = 0; i < 3; i++)
        scw_attach(w, (const char *[]){"h1", "h2", "h3"}[i], 1, 2000, 8192);
    for (m.id = 1; m.id < 3; m.id++) {
        create(w, m.id, &m);
        assert_string_equal(host_of(w, m.id), "");
        assert_string_equal(sc_body(container(w, m.id))->status->message,
                            "waits for the others of its gang to be created");
        create(w, m.id, &m); /* a repeat is not another member */
        assert_int_equal(w->verdict_code, 0);
        scw_takeover(w); /* the next reign knows who waits */
    }
    int64_t before = w->commits;
    w->hold_commits = true;
    create(w, 3, &m);
    assert_non_null(w->held);
    assert_int_equal(w->held->container_count, 3); /* all in one transaction */
    w->hold_commits = false;
    scw_commit(w);
    assert_true(w->commits > before);
    for (unsigned i = 1; i <= 3; i++)
        for (unsigned k = 1; k < i; k++)
            assert_string_not_equal(host_of(w, i), host_of(w, k));
    scw_takeover(w);
    assert_string_not_equal(host_of(w, 2), "");
    scw_free(w);
}

static void none_is_placed_when_one_has_no_place(void **state)
{
    struct scw *w = scw_new(NULL);
    struct member m = {.gang = "g", .size = 3, .cpu = 3000};
    scw_attach(w, "h1", 1, 2000, 8192); /* 3000 with overcommit: one */
    scw_attach(w, "h2", 1, 2000, 8192);
    for (m.id = 1; m.id <= 3; m.id++)
        create(w, m.id, &m);
    for (unsigned i = 1; i <= 3; i++) {
        assert_string_equal(host_of(w, i), "");
        assert_string_equal(
            sc_body(container(w, i))->status->message,
            "waits with its gang of 3: 2 had places, the next waits for a host: none of 2 fits (2 short of cpu)");
    }
    const struct sc_host *h = hp_map_get(&w->region->hosts, "h1");
    assert_int_equal(h->info.claimed.cpu_millis, 0);
    m = (struct member){
        .id = 4, .gang = "other", .size = 2, .cpu = 3000}; /* what waits holds nothing: another gang fits */
    create(w, 4, &m);
    m.id = 5;
    create(w, 5, &m);
    assert_string_not_equal(host_of(w, 4), "");
    assert_string_not_equal(host_of(w, 5), "");
    scw_attach(w, "h3", 1, 2000, 8192);
    scw_attach(w, "h4", 1, 2000, 8192);
    for (unsigned i = 1; i <= 3; i++)
        assert_string_equal(host_of(w, i), "");
    scw_takeover(w);
    scw_attach(w, "h5", 1, 2000, 8192); /* one host wakes all three */
    for (unsigned i = 1; i <= 3; i++)
        assert_string_not_equal(host_of(w, i), "");
    scw_free(w);
}

static void members_must_agree(void **state)
{
    struct scw *w = scw_new(NULL);
    struct member m = {.id = 1, .gang = "g", .size = 2, .cpu = 100};
    create(w, 1, &m);
    m = (struct member){.id = 2, .gang = "g", .size = 3, .cpu = 100};
    create(w, 2, &m);
    assert_string_equal(w->verdict_reason, "GANG_SIZE");
    assert_null(container(w, 2));
    m.size = 2;
    create(w, 3, &m);
    m.id = 3;
    create(w, 4, &m);
    assert_string_equal(w->verdict_reason, "GANG_FULL");
    m = (struct member){.id = 4, .gang = "g", .size = 65, .cpu = 100};
    create(w, 5, &m);
    assert_string_equal(w->verdict_reason, "INVALID_FIELD");
    scw_verb(w, 6, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE, "c1", ""); /* one goes, another comes */
    assert_null(container(w, 1));
    scw_attach(w, "h1", 1, 2000, 8192);
    assert_string_equal(host_of(w, 2), "");
    m = (struct member){.id = 5, .gang = "g", .size = 2, .cpu = 100};
    create(w, 7, &m);
    assert_string_equal(host_of(w, 2), "h1");
    assert_string_equal(host_of(w, 5), "h1");
    scw_free(w);
}

static void what_a_host_refuses_finds_another_place_by_itself(void **state)
{
    struct scw *w = scw_new(NULL);
    struct member m = {.gang = "g", .size = 2, .cpu = 1000, .skew = 1};
    scw_attach(w, "h1", 1, 2000, 8192);
    scw_attach(w, "h2", 1, 2000, 8192);
    for (m.id = 1; m.id <= 2; m.id++)
        create(w, m.id, &m);
    char host[64];
    snprintf(host, sizeof host, "%s", host_of(w, 1));
    scw_attach(w, "h3", 1, 2000, 8192);
    scw_result(w, host, container(w, 1)->uid, 1, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED, 0,
               "no");
    assert_string_equal(host_of(w, 1), "h3");
    sc_region_check(w->region);
    scw_free(w);
}

/* Nothing fails here, so a gang never has some of its members placed. */
static void a_gang_is_placed_whole_or_not_at_all(void **state)
{
    enum { GANGS = 12 };
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct scw *w = scw_new(NULL);
        struct hp_rng g;
        struct member members[GANGS];
        int have[GANGS] = {0}, whole = 0;
        unsigned ids[GANGS][8], id = 0;
        char names[GANGS][8];
        hp_rng_init(&g, seed);
        for (int i = 0; i < GANGS; i++) {
            snprintf(names[i], sizeof names[i], "g%d", i);
            members[i] = (struct member){.gang = names[i],
                                         .size = 2 + (int)hp_rng_below(&g, 4),
                                         .cpu = 500 * (1 + (int64_t)hp_rng_below(&g, 4)),
                                         .skew = (int)hp_rng_below(&g, 3)};
        }
        for (int step = 0; step < 80; step++) {
            int i = (int)hp_rng_below(&g, GANGS);
            char host[8];
            snprintf(host, sizeof host, "h%d", step);
            if (hp_rng_below(&g, 8) == 0)
                scw_attach(w, host, 1, 1000 * (1 + (int64_t)hp_rng_below(&g, 3)), 8192);
            else if (hp_rng_below(&g, 20) == 0)
                scw_takeover(w);
            else if (have[i] < members[i].size) {
                members[i].id = ids[i][have[i]++] = ++id;
                create(w, id, &members[i]);
            }
            whole = 0;
            for (int k = 0; k < GANGS; k++) {
                int placed = 0;
                for (int n = 0; n < have[k]; n++)
                    placed += container(w, ids[k][n])->host != NULL;
                assert_true(placed == 0 || placed == members[k].size);
                whole += placed > 0;
            }
        }
        assert_true(whole > 0);
        scw_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_come_and_all_are_placed), cmocka_unit_test(none_is_placed_when_one_has_no_place),
        cmocka_unit_test(members_must_agree), cmocka_unit_test(what_a_host_refuses_finds_another_place_by_itself),
        cmocka_unit_test(a_gang_is_placed_whole_or_not_at_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
