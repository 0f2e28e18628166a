/* scheduler_storage_test.c — storage classes: where volumes go, what is claimed for them and until when, and what is said about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define OUTCOME(x) HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_##x
#define GIB (1LL << 30)

/* A small container with up to two volumes; a class of NULL: none. */
struct want {
    const char *class[2];
    int64_t gib[2];
};

struct spec {
    Harpoon__V1__ContainerSpec m;
    Harpoon__V1__Resources size;
    Harpoon__V1__PlacementSpec placement;
    Harpoon__V1__VolumeMount volumes[2], *list[2];
};

static void fill(struct spec *s, const struct want *x)
{
    static const char *const names[] = {"data", "log"}, *const paths[] = {"/data", "/log"};
    harpoon__v1__container_spec__init(&s->m);
    harpoon__v1__resources__init(&s->size);
    harpoon__v1__placement_spec__init(&s->placement);
    s->size.cpu_millis = 100;
    s->size.memory_bytes = 64 << 20;
    s->m.image = (char *)"oci:/x:1";
    s->m.resources = &s->size;
    s->m.placement = &s->placement;
    s->m.volumes = s->list;
    for (size_t i = 0; i < 2 && x->class[i]; i++) {
        Harpoon__V1__VolumeMount *v = s->list[i] = &s->volumes[i];
        harpoon__v1__volume_mount__init(v);
        v->volume = (char *)names[i];
        v->path = (char *)paths[i];
        v->storage_class = (char *)x->class[i];
        v->size_bytes = x->gib[i] * GIB;
        s->m.n_volumes++;
    }
}

static void attach(struct scw *w, const char *host, int64_t session, int64_t fast_gib, int64_t bulk_gib)
{
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__StorageClass fast = HARPOON__V1__STORAGE_CLASS__INIT, bulk = HARPOON__V1__STORAGE_CLASS__INIT,
                              *classes[2];
    fast.name = (char *)"fast";
    fast.size_bytes = fast_gib * GIB;
    bulk.name = (char *)"bulk";
    bulk.size_bytes = bulk_gib * GIB;
    if (fast_gib)
        classes[facts.n_storage_classes++] = &fast;
    if (bulk_gib)
        classes[facts.n_storage_classes++] = &bulk;
    facts.storage_classes = classes;
    w->facts = &facts;
    scw_attach(w, host, session, 8000, 8192);
    w->facts = NULL;
    sc_region_check(w->region);
}

static const char *host_of(struct scw *w, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct sc_container *c = sc_container_find(w->region, full);
    return !c ? NULL : c->host ? c->host->info.name : "";
}

static const char *create(struct scw *w, unsigned id, const char *name, const struct want *x)
{
    struct spec s;
    fill(&s, x);
    scw_create_spec(w, id, name, &s.m, 0);
    sc_region_check(w->region);
    return host_of(w, name);
}

static const char *fast(struct scw *w, unsigned id, const char *name, int64_t gib)
{
    return create(w, id, name, &(struct want){{"fast"}, {gib}});
}

/* What the host's row would say that is claimed of a class, in GiB; -1: nothing of the class. */
static int64_t claimed(struct scw *w, const char *host, const char *class)
{
    int64_t gib = -1;
    struct sc_blob *b = sc_host_pack(w->region, hp_map_get(&w->region->hosts, host));
    Harpoon__V1__Host *m = harpoon__v1__host__unpack(NULL, b->len, b->bytes);
    sc_blob_unref(b);
    for (size_t i = 0; i < m->n_storage_claimed; i++)
        if (!strcmp(m->storage_claimed[i]->name, class))
            gib = m->storage_claimed[i]->size_bytes / GIB;
    harpoon__v1__host__free_unpacked(m, NULL);
    return gib;
}

static void update(struct scw *w, unsigned id, const char *name, const struct want *x)
{
    char full[96];
    struct spec s;
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__UpdateContainerRequest m = HARPOON__V1__UPDATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    fill(&s, x);
    s.m.image = (char *)"oci:/x:2";
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    c.name = full;
    c.spec = &s.m;
    m.container = &c;
    q.project = (char *)"p";
    q.payload_case = P(UPDATE);
    q.update = &m;
    scw_request(w, id, &q);
    sc_region_check(w->region);
}

static void a_class_is_found_where_it_is(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 0, 0);
    attach(w, "h2", 1, 0, 100);
    attach(w, "h3", 1, 10, 100);
    assert_string_equal(fast(w, 1, "a", 6), "h3");
    assert_string_equal(create(w, 2, "b", &(struct want){{"fast", "bulk"}, {2, 90}}), "h3");
    assert_string_equal(create(w, 3, "c", &(struct want){{"bulk"}, {90}}), "h2");
    assert_string_equal(create(w, 4, "d", &(struct want){{"fast", "fast"}, {1, 2}}), ""); /* 3, of 2 */
    assert_string_equal(create(w, 5, "e", &(struct want){{"fast", "fast"}, {1, 1}}), "h3");
    assert_int_equal(claimed(w, "h3", "fast"), 10);
    assert_int_equal(claimed(w, "h3", "bulk"), 90);
    assert_int_equal(claimed(w, "h2", "fast"), -1);
    scw_free(w);
}

static Harpoon__V1__ExplainResponse *explain(struct scw *w, const struct want *x)
{
    struct spec s;
    struct sc_query q;
    Harpoon__V1__ExplainResponse *out = NULL;
    fill(&s, x);
    struct sc_res need = sc_spec_res(&s.m);
    sc_query_init(w->region, &q, &need, &s.m, "p", NULL);
    assert_int_equal(sc_place_explain(w->region->slots, w->region->slot_count, &q, "r1", 10, &out), 0);
    return out;
}

static const Harpoon__V1__HostVerdict *verdict(const Harpoon__V1__ExplainResponse *x, const char *host)
{
    for (size_t i = 0; i < x->n_hosts; i++)
        if (!strcmp(strrchr(x->hosts[i]->host, '/') + 1, host))
            return x->hosts[i];
    fail();
    return NULL;
}

static void what_lacks_is_said(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 0, 100);
    attach(w, "h2", 1, 10, 0);
    assert_string_equal(fast(w, 1, "a", 6), "h2");
    Harpoon__V1__ExplainResponse *x = explain(w, &(struct want){{"fast"}, {5}});
    assert_int_equal(x->feasible_count, 0);
    assert_string_equal(verdict(x, "h1")->rejected_by, "storage_class");
    assert_string_equal(verdict(x, "h1")->detail, "has no storage class fast");
    assert_string_equal(verdict(x, "h2")->detail,
                        "needs 5368709120 bytes of class fast, 4294967296 of 10737418240 are free");
    assert_string_equal(x->rejected[0]->key, "storage_class");
    assert_int_equal(x->rejected[0]->value, 2);
    harpoon__v1__explain_response__free_unpacked(x, NULL);
    assert_string_equal(fast(w, 2, "b", 5), "");
    const struct sc_operation *op = SC_OWNER(w->region->pending.next, struct sc_operation, wait);
    assert_non_null(strstr(op->reason, "2 short of a storage class"));
    attach(w, "h3", 1, 5, 0); /* wakes it */
    assert_string_equal(host_of(w, "b"), "h3");
    scw_free(w);
}

static void a_claim_lasts_as_long_as_its_container(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 10, 0);
    fast(w, 1, "a", 6);
    scw_done(w, "h1", scw_uid(w, "a"), 1);
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    scw_resize(w, 2, "a", 200, 128, "");
    assert_int_equal(w->verdict_code, 0);
    update(w, 3, "a", &(struct want){{"fast"}, {6}});
    assert_int_equal(w->verdict_code, 0);
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    assert_string_equal(fast(w, 4, "b", 6), ""); /* waits */
    attach(w, "h1", 2, 10, 0);
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    scw_verb(w, 5, P(DELETE), "a", "");
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h1", "fast"), 6); /* until it is gone */
    scw_done(w, "h1", scw_uid(w, "a"), 4);
    sc_region_check(w->region);
    assert_string_equal(host_of(w, "b"), "h1");
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    scw_free(w);
}

static void a_refusal_gives_the_claim_back(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 10, 0);
    attach(w, "h2", 1, 9, 0);
    assert_string_equal(fast(w, 1, "a", 6), "h1");
    scw_result(w, "h1", scw_uid(w, "a"), 1, OUTCOME(REFUSED), 0, "storage class fast: no room");
    sc_region_check(w->region);
    assert_string_equal(host_of(w, "a"), "h2");
    assert_int_equal(claimed(w, "h1", "fast"), 0);
    assert_int_equal(claimed(w, "h2", "fast"), 6);
    scw_detach(w, "h2", 1);
    scw_verb(w, 2, P(DECLARE_LOST), "h2", "");
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h2", "fast"), 0);
    scw_free(w);
}

static void classes_that_shrink_and_go_are_counted_anew(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 10, 50);
    create(w, 1, "a", &(struct want){{"fast", "bulk"}, {6, 40}});
    attach(w, "h1", 2, 5, 0); /* less than is claimed of the one, the other is not there */
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    assert_int_equal(claimed(w, "h1", "bulk"), -1);
    scw_takeover(w);
    sc_region_check(w->region);
    assert_string_equal(fast(w, 2, "b", 1), "");
    attach(w, "h1", 3, 10, 50);
    assert_int_equal(claimed(w, "h1", "bulk"), 40);
    assert_string_equal(host_of(w, "b"), "h1");
    assert_string_equal(create(w, 3, "c", &(struct want){{"bulk"}, {11}}), "");
    scw_free(w);
}

static void what_is_claimed_cannot_change(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 10, 50);
    fast(w, 1, "a", 6);
    scw_done(w, "h1", scw_uid(w, "a"), 1);
    const struct want others[] = {{{"fast"}, {7}}, {{"bulk"}, {6}}, {{NULL}, {0}}, {{"fast", "bulk"}, {6, 1}}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        update(w, 2 + (unsigned)i, "a", &others[i]);
        assert_int_equal(w->verdict_code, 3);
        assert_string_equal(w->verdict_reason, "INVALID_FIELD");
    }
    scw_free(w);
}

static void requests_that_make_no_sense_are_refused(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 10, 50);
    const struct want wrong[] = {
        {{"fast"}, {0}}, {{"fast"}, {-1}}, {{""}, {1}}, {{"Fast"}, {1}}, {{"fast"}, {1 << 23}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_null(create(w, 1 + (unsigned)i, "a", &wrong[i]));
        assert_int_equal(w->verdict_code, 3);
    }
    scw_free(w);
}

static void overcommit_is_for_each_class(void **state)
{
    struct sc_region_config config;
    sc_region_config_defaults(&config);
    config.storage_overcommits[0] = (struct sc_storage_overcommit){"fast", 150};
    config.storage_overcommit_count = 1;
    struct scw *w = scw_new(&config);
    attach(w, "h1", 1, 10, 10);
    assert_string_equal(fast(w, 1, "a", 15), "h1");
    assert_string_equal(fast(w, 2, "b", 1), "");
    assert_string_equal(create(w, 3, "c", &(struct want){{"bulk"}, {11}}), "");
    scw_free(w);
}

static void quotas_of_disk_count_volumes(void **state)
{
    struct scw *w = scw_new(NULL);
    w->quota = (struct sc_quota){.res = {.disk_bytes = 10 * GIB}};
    scw_takeover(w);
    attach(w, "h1", 1, 100, 100);
    assert_string_equal(create(w, 1, "a", &(struct want){{"fast", "bulk"}, {3, 4}}), "h1");
    assert_null(fast(w, 2, "b", 4));
    assert_string_equal(w->verdict_reason, "QUOTA_EXCEEDED");
    scw_takeover(w);
    assert_null(fast(w, 3, "b", 4));
    assert_string_equal(fast(w, 4, "b", 3), "h1");
    scw_done(w, "h1", scw_uid(w, "a"), 1);
    scw_verb(w, 5, P(DELETE), "a", "");
    scw_done(w, "h1", scw_uid(w, "a"), 2);
    assert_string_equal(fast(w, 6, "c", 7), "h1");
    scw_free(w);
}

static void reserve(struct scw *w, unsigned id, const char *name, const struct want *x)
{
    struct spec s;
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ReserveRequest m = HARPOON__V1__RESERVE_REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container body = HARPOON__V1__CONTAINER__INIT;
    fill(&s, x);
    body.spec = &s.m;
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = (char *)name;
    c.container = &body;
    m.create = &c;
    q.project = (char *)"p";
    q.payload_case = P(RESERVE);
    q.reserve = &m;
    scw_request(w, id, &q);
    sc_region_check(w->region);
}

static void a_reservation_claims_volumes_too(void **state)
{
    struct scw *w = scw_new(NULL);
    w->quota = (struct sc_quota){.res = {.disk_bytes = 12 * GIB}};
    scw_takeover(w);
    attach(w, "h1", 1, 10, 0);
    reserve(w, 1, "a", &(struct want){{"fast"}, {6}});
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    assert_string_equal(fast(w, 2, "b", 6), "");
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    assert_null(fast(w, 3, "c", 1)); /* 12 are in use */
    attach(w, "h1", 2, 11, 0);
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    assert_string_equal(fast(w, 4, "a", 6), "h1");
    assert_int_equal(claimed(w, "h1", "fast"), 6);
    scw_free(w);
}

/* Members are tried one on top of the other, and all is put back when one has no place. */
static void a_gang_has_room_for_all_volumes(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__Gang gang = HARPOON__V1__GANG__INIT;
    gang.name = (char *)"g";
    gang.size = 2;
    attach(w, "h1", 1, 10, 0);
    for (unsigned i = 1; i <= 2; i++) {
        struct spec s;
        char name[8];
        fill(&s, &(struct want){{"fast"}, {6}});
        s.placement.gang = &gang;
        snprintf(name, sizeof name, "g%u", i);
        scw_create_spec(w, i, name, &s.m, 0);
        sc_region_check(w->region);
        assert_string_equal(host_of(w, name), "");
    }
    assert_int_equal(claimed(w, "h1", "fast"), 0);
    attach(w, "h2", 1, 6, 0);
    assert_string_not_equal(host_of(w, "g1"), host_of(w, "g2"));
    assert_int_equal(claimed(w, "h1", "fast") + claimed(w, "h2", "fast"), 12);
    scw_free(w);
}

/* Of hosts that are equal otherwise: to the one whose class is used less, and past those that have what nobody asked for. */
static void classes_are_used_evenly_and_kept_free(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, 100, 0);
    attach(w, "h2", 1, 50, 0);
    attach(w, "h3", 1, 0, 0);
    attach(w, "h4", 1, 60, 60);
    assert_string_equal(fast(w, 1, "a", 10), "h1"); /* 90 %; 80 % on h2; h4 has bulk, too */
    assert_string_equal(create(w, 2, "b", &(struct want){0}), "h3");
    assert_string_equal(create(w, 3, "c", &(struct want){{"bulk"}, {50}}), "h4");
    scw_free(w);
    /* The same without classes anywhere: as if there were no such thing. */
    w = scw_new(NULL);
    attach(w, "h1", 1, 0, 0);
    Harpoon__V1__ExplainResponse *x = explain(w, &(struct want){0});
    for (size_t i = 0; i < x->hosts[0]->n_parts; i++)
        assert_string_not_equal(x->hosts[0]->parts[i]->key, "storage");
    harpoon__v1__explain_response__free_unpacked(x, NULL);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_class_is_found_where_it_is),
        cmocka_unit_test(what_lacks_is_said),
        cmocka_unit_test(a_claim_lasts_as_long_as_its_container),
        cmocka_unit_test(a_refusal_gives_the_claim_back),
        cmocka_unit_test(classes_that_shrink_and_go_are_counted_anew),
        cmocka_unit_test(what_is_claimed_cannot_change),
        cmocka_unit_test(requests_that_make_no_sense_are_refused),
        cmocka_unit_test(overcommit_is_for_each_class),
        cmocka_unit_test(quotas_of_disk_count_volumes),
        cmocka_unit_test(a_reservation_claims_volumes_too),
        cmocka_unit_test(a_gang_has_room_for_all_volumes),
        cmocka_unit_test(classes_are_used_evenly_and_kept_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
