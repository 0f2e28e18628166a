/* scheduler_reserve_test.c — places that are taken before what they are for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/state.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define STAGE(x) HARPOON__V1__STAGE__STAGE_##x

static void fill(Harpoon__V1__ContainerSpec *spec, Harpoon__V1__Resources *x, Harpoon__V1__PlacementSpec *p,
                 int64_t cpu, const char *apart)
{
    harpoon__v1__container_spec__init(spec);
    harpoon__v1__resources__init(x);
    harpoon__v1__placement_spec__init(p);
    x->cpu_millis = cpu;
    x->memory_bytes = 64 << 20;
    p->anti_affinity_group = (char *)apart;
    spec->image = (char *)"oci:/x:1";
    spec->resources = x;
    spec->placement = p;
    spec->stateless = true;
}

static void reserve(struct scw *w, unsigned id, const char *name, int64_t cpu, int ttl_s, const char *apart)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ReserveRequest m = HARPOON__V1__RESERVE_REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest create = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources x;
    Harpoon__V1__PlacementSpec p;
    fill(&spec, &x, &p, cpu, apart);
    c.spec = &spec;
    create.parent = (char *)"projects/p/regions/r1";
    create.container_id = (char *)name;
    create.container = &c;
    m.create = &create;
    m.ttl_seconds = ttl_s;
    q.project = (char *)"p";
    q.payload_case = P(RESERVE);
    q.reserve = &m;
    scw_request(w, id, &q);
    sc_region_check(w->region);
}

static const char *create(struct scw *w, unsigned id, const char *name, int64_t cpu, const char *apart)
{
    char full[96];
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources x;
    Harpoon__V1__PlacementSpec p;
    fill(&spec, &x, &p, cpu, apart);
    scw_create_spec(w, id, name, &spec, 0);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct sc_container *c = sc_container_find(w->region, full);
    sc_region_check(w->region);
    return !c ? NULL : c->host ? c->host->info.name : "";
}

static int stage_of(struct scw *w, unsigned id)
{
    char hex[33];
    snprintf(hex, sizeof hex, "%032x", id);
    return scw_find(&w->operations, hex)->stage;
}

static int64_t claimed(struct scw *w, const char *host)
{
    return ((struct sc_host *)hp_map_get(&w->region->hosts, host))->info.claimed.cpu_millis;
}

static void a_reserved_place_is_kept_for_its_name(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    reserve(w, 1, "web", 5000, 0, "");
    assert_int_equal(stage_of(w, 1), STAGE(PLACED));
    assert_int_equal(claimed(w, "h1"), 5000);
    assert_string_equal(create(w, 2, "other", 2000, ""), ""); /* no room beside it */
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h1"), 5000);
    reserve(w, 3, "web", 10, 0, "");
    assert_string_equal(w->verdict_reason, "RESERVED");
    assert_string_equal(create(w, 4, "web", 5000, ""), "h1");
    assert_int_equal(stage_of(w, 1), STAGE(SUCCEEDED));
    assert_int_equal(claimed(w, "h1"), 5000); /* once */
    scw_free(w);
}

static void it_ends_with_its_time_or_when_it_is_given_back(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    reserve(w, 1, "web", 5000, 60, "");
    assert_string_equal(create(w, 2, "other", 2000, ""), "");
    scw_advance(w, 61 * 1000);
    assert_int_equal(stage_of(w, 1), STAGE(EXPIRED));
    scw_attach(w, "h1", 2, 4000, 8192);
    assert_int_equal(claimed(w, "h1"), 2000); /* what waited has the place */
    reserve(w, 3, "web", 1000, 60, "");
    scw_cancel(w, 4, 3);
    assert_int_equal(stage_of(w, 3), STAGE(CANCELLED));
    reserve(w, 5, "web", 9000, 60, "");
    assert_string_equal(w->verdict_reason, "NO_PLACE");
    reserve(w, 6, "web", 1000, 60, "");
    scw_detach(w, "h1", 2);
    scw_verb(w, 7, P(DECLARE_LOST), "h1", "");
    assert_int_equal(stage_of(w, 6), STAGE(FAILED));
    assert_int_equal(claimed(w, "h1"), 0);
    scw_free(w);
}

static void it_counts_for_quota_and_group(void **state)
{
    struct scw *w = scw_new(NULL);
    w->quota = (struct sc_quota){.res = {.cpu_millis = 1000}, .containers = 1};
    scw_takeover(w);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    reserve(w, 1, "web", 800, 0, "g");
    assert_null(create(w, 2, "other", 300, ""));
    assert_string_equal(w->verdict_reason, "QUOTA_EXCEEDED");
    assert_string_not_equal(create(w, 3, "web", 900, "g"), ""); /* a little larger is within the quota, too */
    assert_int_equal(stage_of(w, 1), STAGE(SUCCEEDED));
    scw_verb(w, 4, P(DELETE), "web", "");
    w->quota = (struct sc_quota){0};
    scw_takeover(w);
    scw_attach(w, "h3", 1, 4000, 8192); /* "web" is not gone yet */
    reserve(w, 5, "one", 100, 0, "g");
    const char *two = create(w, 6, "two", 100, "g");
    assert_string_not_equal(two, "");
    assert_string_not_equal(create(w, 7, "one", 100, "g"), two); /* as members that are there */
    scw_free(w);
}

static void a_move_goes_to_its_reserved_place(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    assert_string_equal(create(w, 1, "web", 100, ""), "h1");
    scw_done(w, "h1", scw_uid(w, "web"), 1);
    scw_attach(w, "h2", 1, 4000, 8192);
    reserve(w, 2, "web", 100, 0, "");
    scw_attach(w, "h3", 1, 64000, 81920); /* better, but later */
    scw_verb(w, 3, P(MOVE), "web", "");
    assert_int_equal(stage_of(w, 2), STAGE(SUCCEEDED));
    assert_int_equal(claimed(w, "h2"), 100); /* the move holds it now */
    assert_int_equal(claimed(w, "h3"), 0);
    sc_region_check(w->region);
    scw_free(w);
}

static void a_place_that_does_not_fit_any_more_is_given_up(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    reserve(w, 1, "web", 100, 0, "");
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_verb(w, 2, P(CORDON), "h1", "");
    assert_string_equal(create(w, 3, "web", 100, ""), "h2");
    assert_int_equal(claimed(w, "h1"), 0);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reserved_place_is_kept_for_its_name),
        cmocka_unit_test(it_ends_with_its_time_or_when_it_is_given_back),
        cmocka_unit_test(it_counts_for_quota_and_group),
        cmocka_unit_test(a_move_goes_to_its_reserved_place),
        cmocka_unit_test(a_place_that_does_not_fit_any_more_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
