/* scheduler_groups_test.c — what containers ask of each other's hosts and of their host: groups, taints, label expressions, from request to command. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/state.h"
#include "lib/sc_world.h"

/* Like scw_attach; `pool` is a label, `taint` its only taint's value, when not NULL. */
static void attach(struct scw *w, const char *host, const char *pool, const char *taint)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__Internal__V1__AgentHello__LabelsEntry label, *labels[] = {&label};
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__Taint t = HARPOON__V1__TAINT__INIT, *ts[] = {&t};
    harpoon__internal__v1__agent_hello__labels_entry__init(&label);
    label.key = (char *)"pool";
    label.value = (char *)pool;
    t.key = (char *)"only";
    t.value = (char *)taint;
    all.cpu_millis = 4000;
    all.memory_bytes = 8LL << 30;
    hello.session = m.session = 1;
    hello.allocatable = &all;
    hello.digest = &d;
    hello.labels = labels;
    hello.n_labels = pool != NULL;
    hello.taints = ts;
    hello.n_taints = taint != NULL;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

/* The host's name; "" when it waits. */
static const char *create(struct scw *w, unsigned id, Harpoon__V1__PlacementSpec *p)
{
    char full[64];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/c%u", id);
    scw_place(w, id, p);
    sc_region_check(w->region);
    const struct sc_container *c = sc_container_find(w->region, full);
    assert_non_null(c);
    return c->host ? c->host->info.name : "";
}

static void members_of_an_affinity_group_share_a_host(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    p.affinity_group = (char *)"pair";
    for (int i = 0; i < 4; i++)
        attach(w, (const char *[]){"h1", "h2", "h3", "h4"}[i], NULL, NULL);
    char first[64];
    snprintf(first, sizeof first, "%s", create(w, 1, &p)); /* anywhere */
    assert_true(*first);
    for (unsigned i = 2; i < 10; i++)
        assert_string_equal(create(w, i, &p), first); /* though all others are emptier */
    assert_string_not_equal(create(w, 10, NULL), first);
    p.host = (char *)(strcmp(first, "h1") ? "h1" : "h2"); /* by name elsewhere: the group is stronger */
    assert_string_equal(create(w, 11, &p), "");
    scw_takeover(w);
    p.host = (char *)"";
    assert_string_equal(create(w, 12, &p), first); /* the next reign knows the group */
    p.affinity_group = (char *)"other";
    p.anti_affinity_group = (char *)"pair"; /* groups of the two kinds have nothing to do with each other */
    assert_string_not_equal(create(w, 13, &p), "");
    scw_free(w);
}

static void members_of_an_anti_affinity_group_never_do(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    p.anti_affinity_group = (char *)"apart";
    attach(w, "h1", NULL, NULL);
    attach(w, "h2", NULL, NULL);
    char first[64];
    snprintf(first, sizeof first, "%s", create(w, 1, &p));
    assert_string_not_equal(create(w, 2, &p), first);
    assert_string_equal(create(w, 3, &p), "");
    attach(w, "h3", NULL, NULL); /* what waits is placed when a host comes */
    const struct sc_container *c = sc_container_find(w->region, "projects/p/regions/r1/containers/c3");
    assert_string_equal(c->host->info.name, "h3");
    scw_free(w);
}

static void a_taint_keeps_away_what_does_not_tolerate_it(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__Toleration t = HARPOON__V1__TOLERATION__INIT, *ts[] = {&t};
    attach(w, "h1", NULL, "gpu");
    assert_string_equal(create(w, 1, NULL), "");
    assert_string_equal(create(w, 2, &p), "");
    t.key = (char *)"only";
    t.value = (char *)"ssd";
    p.tolerations = ts;
    p.n_tolerations = 1;
    assert_string_equal(create(w, 3, &p), "");
    t.value = (char *)""; /* any */
    assert_string_equal(create(w, 4, &p), "h1");
    t.value = (char *)"gpu";
    assert_string_equal(create(w, 5, &p), "h1");
    t.key = (char *)"other";
    assert_string_equal(create(w, 6, &p), "");
    scw_free(w);
}

static void expressions_choose_by_labels(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__LabelExpression x = HARPOON__V1__LABEL_EXPRESSION__INIT, *xs[] = {&x};
    char *values[] = {(char *)"a", (char *)"b"};
    attach(w, "h1", "a", NULL);
    attach(w, "h2", "c", NULL);
    attach(w, "h3", NULL, NULL);
    p.label_expressions = xs;
    p.n_label_expressions = 1;
    x.key = (char *)"pool";
    x.values = values;
    x.n_values = 2;
    unsigned id = 0;
    for (int i = 0; i < 4; i++) {
        x.operator_ = HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_IN;
        assert_string_equal(create(w, ++id, &p), "h1");
        x.operator_ = HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_IN;
        assert_string_not_equal(create(w, ++id, &p), "h1");
        x.operator_ = HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_EXISTS;
        assert_string_not_equal(create(w, ++id, &p), "h3");
        x.operator_ = HARPOON__V1__LABEL_OPERATOR__LABEL_OPERATOR_NOT_EXISTS;
        assert_string_equal(create(w, ++id, &p), "h3");
    }
    x.operator_ = (Harpoon__V1__LabelOperator)9; /* of a later version */
    assert_string_equal(create(w, ++id, &p), "");
    scw_free(w);
}

static void what_has_failed_on_a_host_counts_for_a_while(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", NULL, NULL);
    attach(w, "h2", NULL, NULL);
    struct sc_host *h = hp_map_get(&w->region->hosts, "h1");
    assert_string_equal(create(w, 1, NULL), "h1");
    scw_result(w, "h1", scw_uid(w, "c1"), 1, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED, 0, "no");
    assert_true(h->info.trust > 0.49F && h->info.trust < 0.51F);
    for (unsigned i = 2; i < 5; i++) /* though h2 is less and less empty */
        assert_string_equal(create(w, i, NULL), "h2");
    w->time.now_ms += 10 * 60 * 1000;
    w->region->time = w->time;
    sc_host_idle(w->region, h);
    assert_true(h->info.trust > 0.66F && h->info.trust < 0.67F); /* half a failure */
    w->time.now_ms += 5 * 60 * 1000;
    w->region->time = w->time;
    sc_host_idle(w->region, h);
    assert_true(h->info.trust > 0.70F && h->info.trust < 0.74F);
    w->time.now_ms += 4 * 60 * 60 * 1000;
    w->region->time = w->time;
    sc_host_idle(w->region, h);
    assert_true(h->info.trust == 1);
    sc_region_check(w->region);
    scw_free(w);
}

/* Reports come more than once, and late: what has been settled since is no failure of today. */
static void what_a_host_says_again_does_not_count(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", NULL, NULL);
    struct sc_host *h = hp_map_get(&w->region->hosts, "h1");
    assert_string_equal(create(w, 1, NULL), "h1");
    scw_done(w, "h1", scw_uid(w, "c1"), 1);
    scw_verb(w, 2, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP, "c1", "");
    scw_done(w, "h1", scw_uid(w, "c1"), 2);
    scw_result(w, "h1", scw_uid(w, "c1"), 1, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED, 0, "no");
    assert_true(h->info.trust == 1);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(members_of_an_affinity_group_share_a_host),
                                       cmocka_unit_test(members_of_an_anti_affinity_group_never_do),
                                       cmocka_unit_test(what_has_failed_on_a_host_counts_for_a_while),
                                       cmocka_unit_test(what_a_host_says_again_does_not_count),
                                       cmocka_unit_test(a_taint_keeps_away_what_does_not_tolerate_it),
                                       cmocka_unit_test(expressions_choose_by_labels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
