/* scheduler_spread_test.c — groups and primaries spread over zones, racks and hosts: the part of the score, the limit of the skew, roles that change, takeovers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/state.h"
#include "lib/fleet.h"
#include "lib/sc_world.h"

#define PRIMARY HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY
#define REPLICA HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_REPLICA

static void attach(struct scw *w, const char *host, const char *zone, const char *rack, int64_t cpu)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    static int64_t session;
    all.cpu_millis = cpu;
    all.memory_bytes = 8LL << 30;
    hello.session = m.session = ++session;
    hello.allocatable = &all;
    hello.digest = &d;
    hello.zone = (char *)zone;
    hello.rack = (char *)rack;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

static struct sc_container *container(struct scw *w, unsigned id)
{
    char full[64];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/c%u", id);
    return sc_container_find(w->region, full);
}

/* The host's name; "" when it waits. */
static const char *create(struct scw *w, unsigned id, Harpoon__V1__PlacementSpec *p)
{
    scw_place(w, id, p);
    sc_region_check(w->region);
    const struct sc_container *c = container(w, id);
    assert_non_null(c);
    return c->host ? c->host->info.name : "";
}

static void delete (struct scw *w, unsigned id, unsigned request)
{
    char name[16];
    snprintf(name, sizeof name, "c%u", id);
    const struct sc_container *c = container(w, id);
    char host[64], uid[27];
    snprintf(host, sizeof host, "%s", c->host ? c->host->info.name : "");
    snprintf(uid, sizeof uid, "%s", c->uid);
    scw_verb(w, request, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE, name, "");
    if (*host)
        scw_done(w, host, uid, container(w, id)->generation);
    assert_null(container(w, id));
    sc_region_check(w->region);
}

/* Three zones of two racks of two hosts: a11, a12, a21 … c22; zone, rack and number in the name. */
static struct scw *twelve(void)
{
    struct scw *w = scw_new(NULL);
    for (int i = 0; i < 12; i++) {
        char name[8], zone[2] = {(char)('a' + i / 4), 0}, rack[2] = {(char)('1' + i / 2 % 2), 0};
        snprintf(name, sizeof name, "%s%s%d", zone, rack, 1 + i % 2);
        attach(w, name, zone, rack, 4000);
    }
    return w;
}

static void limit(Harpoon__V1__PlacementSpec *p, Harpoon__V1__SpreadConstraint *x, int topology, int max_skew)
{
    static Harpoon__V1__SpreadConstraint *at[1];
    harpoon__v1__spread_constraint__init(x);
    x->topology = (Harpoon__V1__Topology)topology;
    x->max_skew = max_skew;
    at[0] = x;
    p->spread_constraints = at;
    p->n_spread_constraints = 1;
}

/* How many different texts there are among the first `length` letters of the hosts of c1 to cN. */
static int distinct(struct scw *w, unsigned count, size_t length)
{
    int n = 0;
    for (unsigned i = 1; i <= count; i++) {
        bool fresh = true;
        for (unsigned k = 1; k < i && fresh; k++)
            fresh = strncmp(container(w, i)->host->info.name, container(w, k)->host->info.name, length) != 0;
        n += fresh;
    }
    return n;
}

static void a_group_is_spread_over_zones_then_racks_then_hosts(void **state)
{
    struct scw *w = twelve();
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    p.spread_group = (char *)"g";
    for (unsigned i = 1; i <= 12; i++) {
        if (i == 8)
            scw_takeover(w); /* the next reign counts as this one did */
        assert_string_not_equal(create(w, i, &p), "");
        assert_int_equal(distinct(w, i, 1), i < 3 ? i : 3);
        assert_int_equal(distinct(w, i, 2), i < 6 ? i : 6);
        assert_int_equal(distinct(w, i, 3), i);
    }
    scw_free(w);
}

static void the_skew_is_kept_and_what_waits_for_it_wakes(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__SpreadConstraint x;
    attach(w, "a1", "a", "", 4000);
    attach(w, "b1", "b", "", 100); /* has room for one */
    p.spread_group = (char *)"g";
    limit(&p, &x, HARPOON__V1__TOPOLOGY__TOPOLOGY_ZONE, 1);
    for (unsigned i = 1; i <= 3; i++)
        assert_string_not_equal(create(w, i, &p), "");
    assert_int_equal(distinct(w, 3, 1), 2);
    assert_string_equal(create(w, 4, &p), ""); /* b is full, and a may not have three */
    assert_string_equal(
        sc_body(container(w, 4))->status->message,
        "waits for a host: none of 2 fits (1 in a zone that has too many of the spread group, 1 short of cpu)");
    assert_string_not_equal(create(w, 5, NULL), ""); /* others are not concerned */
    attach(w, "b2", "b", "", 4000);
    assert_string_equal(container(w, 4)->host->info.name, "b2");
    scw_free(w);
}

static void a_zone_that_has_gone_holds_nothing_back(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__SpreadConstraint x;
    attach(w, "a1", "a", "", 4000);
    attach(w, "b1", "b", "", 100);
    p.spread_group = (char *)"g";
    limit(&p, &x, HARPOON__V1__TOPOLOGY__TOPOLOGY_ZONE, 1);
    for (unsigned i = 1; i <= 3; i++)
        create(w, i, &p);
    assert_string_equal(create(w, 4, &p), "");
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CordonHostRequest cordon = HARPOON__V1__CORDON_HOST_REQUEST__INIT;
    cordon.name = (char *)"regions/r1/hosts/b1";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON;
    q.cordon = &cordon;
    q.project = (char *)"";
    scw_request(w, 90, &q);
    assert_non_null(container(w, 4)->host); /* the least is now that of zone a */
    assert_string_equal(container(w, 4)->host->info.name, "a1");
    scw_free(w);
}

static void a_member_that_goes_makes_room_in_its_zone(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__SpreadConstraint x;
    attach(w, "a1", "a", "r", 4000);
    attach(w, "b1", "b", "r", 4000);
    p.spread_group = (char *)"g";
    p.zones = (char *[]){(char *)"a"};
    p.n_zones = 1;
    limit(&p, &x, HARPOON__V1__TOPOLOGY__TOPOLOGY_RACK, 1);
    for (unsigned i = 1; i <= 3; i++)
        assert_string_equal(create(w, i, &p), "a1"); /* zone b is not asked for: it counts for nothing */
    p.n_zones = 0;
    assert_string_equal(create(w, 4, &p), "b1"); /* racks of the same name in two zones are two */
    assert_string_equal(create(w, 5, &p), "b1");
    assert_string_equal(create(w, 6, &p), "b1");
    assert_string_not_equal(create(w, 7, &p), "");
    p.host = (char *)(strcmp(container(w, 7)->host->info.name, "a1") ? "b1" : "a1");
    assert_string_equal(create(w, 8, &p), ""); /* by name: the skew is stronger */
    delete (w, 4, 91);
    assert_non_null(container(w, 8));
    scw_free(w);
}

static void update_role(struct scw *w, unsigned request, unsigned id, int role, const char *group)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__UpdateContainerRequest u = HARPOON__V1__UPDATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    char name[64];
    snprintf(name, sizeof name, "projects/p/regions/r1/containers/c%u", id);
    c.name = name;
    c.spec = &spec;
    spec.image = (char *)"oci:/x:1";
    spec.placement = &p;
    p.role = (Harpoon__V1__ContainerRole)role;
    p.spread_group = (char *)group;
    u.container = &c;
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE;
    q.update = &u;
    q.project = (char *)"p";
    scw_request(w, request, &q);
    sc_region_check(w->region);
}

static void roles_change_and_are_counted_anew(void **state)
{
    struct scw *w = twelve();
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    p.role = PRIMARY;
    for (unsigned i = 1; i <= 12; i++)
        create(w, i, &p);
    assert_int_equal(distinct(w, 12, 3), 12);
    p.role = REPLICA;
    char zone = container(w, 5)->host->info.name[0], first[64];
    snprintf(first, sizeof first, "%s", container(w, 5)->host->info.name);
    update_role(w, 50, 5, REPLICA, ""); /* the replica that it becomes leaves room for a primary on its host */
    assert_int_equal(w->verdict_code, 0);
    assert_int_equal(sc_body(container(w, 5))->spec->placement->role, REPLICA);
    p.role = PRIMARY;
    assert_string_equal(create(w, 13, &p), first);
    update_role(w, 51, 5, PRIMARY, "");
    assert_int_not_equal(create(w, 14, &p)[0], zone); /* two on one host of it */
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_not_equal(create(w, 15, &p)[0], zone);
    update_role(w, 52, 5, PRIMARY, "other"); /* but the rest of the placement stays */
    assert_int_equal(w->verdict_code, HP_CODE_INVALID_ARGUMENT);
    update_role(w, 53, 5, 0, ""); /* not said: as it was */
    assert_int_equal(sc_body(container(w, 5))->spec->placement->role, PRIMARY);
    for (unsigned i = 1; i <= 15; i++)
        sc_container_assign(w->region, container(w, i), NULL);
    assert_int_equal(w->region->topology.levels[SC_LEVEL_ZONE].items[0].primaries, 0);
    scw_free(w);
}

/* Counts over what the hosts' own facts say. */
static void check_even(const struct fleet *f, const int *primaries, int level)
{
    int least = INT32_MAX, most = 0;
    for (size_t i = 0; i < f->o.hosts; i++) {
        int n = 0;
        for (size_t k = 0; k < f->o.hosts; k++) {
            bool same = level == SC_LEVEL_HOST
                            ? i == k
                            : !strcmp(f->infos[i].pb->zone, f->infos[k].pb->zone) &&
                                  (level == SC_LEVEL_ZONE || !strcmp(f->infos[i].pb->rack, f->infos[k].pb->rack));
            n += same ? primaries[k] : 0;
        }
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    assert_in_range(most - least, 0, 1);
}

/* The same number of racks in each zone, and of hosts in each rack, and room: so an even spread can be had, whatever else the scores say. */
static void primaries_are_within_one_of_the_ideal(void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct fleet f;
        static const char *const zones[] = {"a", "b", "c", "d"}, *const racks[] = {"1", "2", "3"};
        size_t zone_count = 1 + seed % 4, rack_count = 1 + seed / 2 % 3, in_rack = 1 + seed % 5;
        size_t hosts = zone_count * rack_count * in_rack;
        fleet_init(&f, &(struct fleet_options){.hosts = hosts, .zones = 1, .sizes = 8, .labels = 3, .seed = seed});
        for (size_t i = 0; i < hosts; i++) {
            f.pbs[i].zone = (char *)zones[i % zone_count];
            f.pbs[i].rack = (char *)racks[i / zone_count % rack_count];
            fleet_facts(&f, i);
        }
        int *primaries = calloc(hosts, sizeof *primaries);
        assert_non_null(primaries);
        for (int n = 0; n < 4 * (int)hosts + 3; n++) {
            struct fleet_request q;
            fleet_request(&f, 0, &q);
            q.query.need = (struct sc_res){10 + (int64_t)hp_rng_below(&f.rng, 200), 16 << 20, 0};
            if (hp_rng_below(&f.rng, 2))
                fleet_ask(&f, FLEET_PREFER | FLEET_IMAGE, &q);
            q.query.primary = hp_rng_below(&f.rng, 3) > 0;
            ptrdiff_t host = sc_index_best(&f.index, f.slots, hosts, &q.query);
            assert_true(host >= 0);
            fleet_claim(&f, (size_t)host, NULL, &q.query.need);
            fleet_metrics(&f, hp_rng_below(&f.rng, hosts));
            if (!q.query.primary)
                continue;
            fleet_join(&f, &q, (size_t)host);
            primaries[host]++;
            for (int level = 0; level < SC_LEVELS; level++)
                check_even(&f, primaries, level);
        }
        free(primaries);
        fleet_done(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_group_is_spread_over_zones_then_racks_then_hosts),
                                       cmocka_unit_test(the_skew_is_kept_and_what_waits_for_it_wakes),
                                       cmocka_unit_test(a_zone_that_has_gone_holds_nothing_back),
                                       cmocka_unit_test(a_member_that_goes_makes_room_in_its_zone),
                                       cmocka_unit_test(roles_change_and_are_counted_anew),
                                       cmocka_unit_test(primaries_are_within_one_of_the_ideal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
