/* scheduler_preempt_test.c — creates of a higher priority make others go, where that is allowed: who goes, who never does, and what happens when the world changes on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/operations.h"
#include "core/state.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define STAGE(x) HARPOON__V1__STAGE__STAGE_##x

struct want {
    int64_t cpu;
    int priority;
    bool preempts, stays, primary;
    const char *gang, *spread, *host;
};

static struct sc_container *container(struct scw *w, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    struct sc_container *c = sc_container_find(w->region, full);
    assert_non_null(c);
    return c;
}

static const char *host_of(struct scw *w, const char *name)
{
    const struct sc_container *c = container(w, name);
    return c->host ? c->host->info.name : "";
}

static int64_t claimed(struct scw *w, const char *host)
{
    return ((struct sc_host *)hp_map_get(&w->region->hosts, host))->info.claimed.cpu_millis;
}

static int stage_of(struct scw *w, unsigned id)
{
    char hex[33];
    snprintf(hex, sizeof hex, "%032x", id);
    const struct scw_row *row = scw_find(&w->operations, hex);
    assert_non_null(row);
    return row->stage;
}

/* The host has done what it was last asked for with the container's present uid. */
static void done(struct scw *w, const char *name)
{
    const struct sc_container *c = container(w, name);
    assert_non_null(c->host);
    for (size_t i = w->command_count; i > 0; i--) {
        const struct scw_command *x = &w->commands[i - 1];
        if (strcmp(x->uid, c->uid) != 0 || !x->verb)
            continue;
        char uid[27];
        strcpy(uid, x->uid);
        scw_done(w, c->host->info.name, uid, x->generation);
        sc_region_check(w->region);
        return;
    }
    fail();
}

struct dress {
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources res;
    Harpoon__V1__PlacementSpec placement;
    Harpoon__V1__Gang gang;
};

static Harpoon__V1__ContainerSpec *dress(struct dress *d, const struct want *want)
{
    harpoon__v1__container_spec__init(&d->spec);
    harpoon__v1__resources__init(&d->res);
    harpoon__v1__placement_spec__init(&d->placement);
    harpoon__v1__gang__init(&d->gang);
    d->spec.image = (char *)"oci:/x:1";
    d->spec.resources = &d->res;
    d->spec.placement = &d->placement;
    d->spec.stateless = !want->stays;
    d->res.cpu_millis = want->cpu;
    d->res.memory_bytes = 64 << 20;
    d->placement.priority = want->priority;
    d->placement.may_preempt = want->preempts;
    d->placement.host = (char *)(want->host ? want->host : "");
    d->placement.spread_group = (char *)(want->spread ? want->spread : "");
    if (want->primary)
        d->placement.role = HARPOON__V1__CONTAINER_ROLE__CONTAINER_ROLE_PRIMARY;
    d->gang.name = (char *)want->gang;
    d->gang.size = 2;
    if (want->gang)
        d->placement.gang = &d->gang;
    return &d->spec;
}

static void create(struct scw *w, unsigned id, const char *name, const struct want *want)
{
    struct dress d;
    scw_create_spec(w, id, name, dress(&d, want), 0);
    sc_region_check(w->region);
    if (container(w, name)->host)
        done(w, name);
}

static struct scw *world(int parallel)
{
    struct sc_region_config config;
    sc_region_config_defaults(&config);
    assert_false(config.preemption); /* unless somebody wants it */
    config.overcommit.cpu_percent = 100;
    config.preemption = parallel > 0;
    config.preempt_parallel = parallel ? parallel : 4;
    struct scw *w = scw_new(&config);
    scw_attach(w, "h1", 1, 4000, 8192);
    return w;
}

/* Each is told to go, or is not; in the order of the names. */
static void expect_victims(struct scw *w, const char *names)
{
    char text[256] = "";
    for (struct sc_list *l = w->region->all.next; l != &w->region->all; l = l->next) {
        const struct sc_container *c = SC_OWNER(l, struct sc_container, order);
        if (c->leaving && sc_container_head(c)->preempted_by)
            assert_non_null(strstr(names, strrchr(c->name, '/') + 1));
    }
    for (const char *p = names; *p; p++)
        if (*p != ' ') {
            snprintf(text, sizeof text, "%c", *p);
            assert_true(container(w, text)->leaving);
        }
}

/* ---- The course ---- */

static void the_place_is_held_until_each_victim_has_gone(void **state)
{
    for (int takeovers = 0; takeovers < 2; takeovers++) {
        struct scw *w = world(4);
        create(w, 1, "a", &(struct want){.cpu = 2000, .priority = -5});
        create(w, 2, "b", &(struct want){.cpu = 1500, .priority = -5});
        scw_clear(w);
        create(w, 3, "top", &(struct want){.cpu = 3000, .preempts = true});
        expect_victims(w, "a b");
        assert_non_null(strstr(w->trace, "command h1 REMOVE a"));
        assert_non_null(strstr(w->trace, "command h1 REMOVE b"));
        assert_non_null(strstr(w->trace, "container.preempted"));
        assert_non_null(strstr(sc_body(container(w, "top"))->status->message, "preempts on host \"h1\""));
        assert_int_equal(claimed(w, "h1"), 4000); /* what was free is held */
        if (takeovers)
            scw_takeover(w);
        assert_int_equal(claimed(w, "h1"), 4000);
        sc_region_check(w->region);
        scw_clear(w);
        done(w, "a");
        assert_null(strstr(w->trace, "ENSURE top"));
        assert_int_equal(claimed(w, "h1"), 4000);
        create(w, 4, "thief", &(struct want){.cpu = 100});
        assert_string_equal(host_of(w, "thief"), "");
        assert_string_equal(host_of(w, "a"), "");
        assert_non_null(strstr(sc_body(container(w, "a"))->status->message,
                               "had to make room for \"projects/p/regions/r1/containers/top\""));
        if (takeovers)
            scw_takeover(w);
        scw_clear(w);
        done(w, "b");
        assert_non_null(strstr(w->trace, "command h1 ENSURE top"));
        assert_string_equal(host_of(w, "top"), "h1");
        assert_int_equal(claimed(w, "h1"), 3100); /* what is left is anybody's */
        if (takeovers)
            scw_takeover(w);
        done(w, "top");
        assert_int_equal(stage_of(w, 3), STAGE(SUCCEEDED));
        assert_int_equal(w->region->victims, 0);
        scw_attach(w, "h2", 1, 4000, 8192); /* nothing was lost */
        done(w, "a");
        done(w, "b");
        assert_string_equal(host_of(w, "a"), "h2");
        scw_free(w);
    }
}

static void what_has_another_place_moves_there(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 2000, .priority = -5});
    scw_attach(w, "h2", 1, 2500, 8192);
    create(w, 2, "top", &(struct want){.cpu = 4000, .preempts = true});
    assert_int_equal(claimed(w, "h2"), 2000);
    done(w, "a");
    assert_string_equal(host_of(w, "a"), "h2");
    assert_string_equal(host_of(w, "top"), "h1");
    scw_free(w);
}

static void when_it_is_cancelled_the_room_is_the_victims_again(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "top", &(struct want){.cpu = 3000, .preempts = true});
    scw_cancel(w, 3, 2);
    assert_int_equal(stage_of(w, 2), STAGE(CANCELLED));
    assert_int_equal(claimed(w, "h1"), 3000);
    done(w, "a"); /* it was told, and goes */
    assert_string_equal(host_of(w, "a"), "h1");
    done(w, "a");
    scw_free(w);
}

static void a_host_that_is_given_up_is_not_waited_for(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    scw_attach(w, "h2", 1, 4000, 8192);
    create(w, 2, "b", &(struct want){.cpu = 3000, .priority = -4, .host = "h2", .stays = true});
    create(w, 3, "c", &(struct want){.cpu = 500, .priority = -3, .host = "h2"});
    create(w, 4, "top", &(struct want){.cpu = 3500, .preempts = true});
    expect_victims(w, "a");
    scw_verb(w, 5, P(CORDON), "h1", "");
    assert_int_equal(claimed(w, "h1"), 3000);
    assert_non_null(strstr(sc_body(container(w, "top"))->status->message, "h1")); /* b and c do not help */
    assert_string_equal(host_of(w, "top"), "");
    scw_attach(w, "h3", 1, 4000, 8192);
    assert_string_equal(host_of(w, "top"), "h3");
    scw_free(w);
}

static void a_victim_that_is_deleted_makes_room_all_the_same(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "top", &(struct want){.cpu = 3000, .preempts = true});
    scw_verb(w, 3, P(DELETE), "a", "");
    assert_int_equal(w->region->victims, 0);
    assert_string_equal(host_of(w, "top"), "");
    done(w, "a");
    assert_string_equal(host_of(w, "top"), "h1");
    scw_free(w);
}

static void the_place_follows_what_is_needed(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "top", &(struct want){.cpu = 3000, .preempts = true});
    scw_resize(w, 3, "top", 3500, 64, ""); /* claims the larger of both while it waits */
    sc_region_check(w->region);
    assert_int_equal(claimed(w, "h1"), 4000);
    scw_cancel(w, 4, 3);
    create(w, 5, "b", &(struct want){.cpu = 2000, .priority = -5, .stays = true});
    scw_resize(w, 6, "top", 3500, 64, "");
    done(w, "a");
    assert_string_equal(host_of(w, "top"), "h1");
    assert_int_equal(claimed(w, "h1"), 3500);
    scw_free(w);
    /* More than what the victims leave. */
    w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "s", &(struct want){.cpu = 500, .stays = true});
    create(w, 3, "top", &(struct want){.cpu = 2000, .preempts = true});
    scw_resize(w, 4, "top", 3900, 64, "");
    assert_int_equal(claimed(w, "h1"), 3500); /* let go */
    scw_cancel(w, 5, 4);
    done(w, "a");
    assert_string_equal(host_of(w, "top"), "h1");
    scw_free(w);
}

static void no_more_than_a_few_go_at_a_time(void **state)
{
    struct scw *w = world(1);
    create(w, 1, "a", &(struct want){.cpu = 4000, .priority = -5});
    scw_attach(w, "h2", 1, 4000, 8192);
    create(w, 2, "b", &(struct want){.cpu = 4000, .priority = -4});
    scw_attach(w, "h3", 1, 4000, 8192);
    create(w, 3, "c", &(struct want){.cpu = 2000, .priority = -3, .host = "h3"});
    create(w, 4, "d", &(struct want){.cpu = 2000, .priority = -3, .host = "h3"});
    create(w, 5, "x", &(struct want){.cpu = 4000, .preempts = true});
    create(w, 6, "y", &(struct want){.cpu = 4000, .priority = 1, .preempts = true});
    create(w, 7, "z", &(struct want){.cpu = 4000, .preempts = true});
    expect_victims(w, "a");
    assert_int_equal(w->region->victims, 1);
    done(w, "a");
    assert_string_equal(host_of(w, "x"), "h1");
    expect_victims(w, "b"); /* for the higher priority */
    done(w, "b");
    assert_string_equal(host_of(w, "y"), "h2");
    assert_int_equal(w->region->victims, 0); /* h3 would have to lose two */
    assert_string_equal(host_of(w, "z"), "");
    scw_free(w);
}

/* It has nobody to preempt when it comes; later there is somebody. */
static void who_waits_hears_of_new_victims(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5, .host = "h1", .stays = false});
    scw_verb(w, 2, P(STOP), "a", ""); /* under way */
    create(w, 3, "top", &(struct want){.cpu = 2000, .preempts = true});
    assert_int_equal(w->region->victims, 0);
    assert_non_null(strstr(sc_body(container(w, "top"))->status->message, "nobody to preempt"));
    done(w, "a");
    assert_int_equal(w->region->victims, 0); /* it is on this host by name */
    scw_attach(w, "h2", 1, 2500, 8192);
    assert_string_equal(host_of(w, "top"), "h2"); /* plain room comes first */
    create(w, 4, "b", &(struct want){.cpu = 1000, .priority = -5});
    create(w, 5, "next", &(struct want){.cpu = 2500, .preempts = true, .priority = 7});
    assert_int_equal(w->region->victims, 0);
    scw_verb(w, 6, P(DELETE), "a", "");
    done(w, "top");
    done(w, "a");
    assert_string_equal(host_of(w, "next"), "h1");
    scw_free(w);
}

static void it_is_off_unless_it_is_on(void **state)
{
    struct scw *w = world(0);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "top", &(struct want){.cpu = 3000, .preempts = true});
    assert_false(container(w, "a")->leaving);
    scw_free(w);
    w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 3000, .priority = -5});
    create(w, 2, "top", &(struct want){.cpu = 3000, .priority = 5}); /* nor by itself */
    assert_false(container(w, "a")->leaving);
    scw_free(w);
}

/* ---- Who goes ---- */

static void primaries_equals_and_what_cannot_move_are_spared(void **state)
{
    static const struct want spared[] = {{.cpu = 3000, .priority = -5, .primary = true},
                                         {.cpu = 3000, .priority = -5, .stays = true},
                                         {.cpu = 3000, .priority = -5, .host = "h1"},
                                         {.cpu = 3000, .priority = 0},
                                         {.cpu = 3000, .priority = -1}};
    for (size_t i = 0; i < sizeof spared / sizeof *spared; i++) {
        struct scw *w = world(4);
        create(w, 1, "a", &spared[i]);
        create(w, 2, "top", &(struct want){.cpu = 3000, .priority = i == 4 ? -1 : 9, .preempts = true});
        assert_false(container(w, "a")->leaving);
        assert_non_null(strstr(sc_body(container(w, "top"))->status->message, "nobody to preempt"));
        scw_free(w);
    }
}

static void a_gang_stays_whole_and_preempts_nobody(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 1500, .priority = -5, .gang = "g"});
    create(w, 2, "b", &(struct want){.cpu = 1500, .priority = -5, .gang = "g"});
    create(w, 3, "top", &(struct want){.cpu = 2000, .preempts = true});
    assert_int_equal(w->region->victims, 0);
    create(w, 4, "c", &(struct want){.cpu = 900, .priority = -5});
    create(w, 5, "d", &(struct want){.cpu = 900, .priority = 5, .gang = "h", .preempts = true});
    create(w, 6, "e", &(struct want){.cpu = 900, .priority = 5, .gang = "h", .preempts = true});
    assert_int_equal(w->region->victims, 0);
    scw_free(w);
}

static void of_a_group_one_goes_at_a_time(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 2000, .priority = -5, .spread = "s"});
    create(w, 2, "b", &(struct want){.cpu = 2000, .priority = -5, .spread = "s"});
    create(w, 3, "top", &(struct want){.cpu = 3000, .preempts = true});
    assert_int_equal(w->region->victims, 0);
    create(w, 4, "mid", &(struct want){.cpu = 2000, .preempts = true});
    assert_int_equal(w->region->victims, 1);
    scw_free(w);
}

static void the_lowest_go_first_then_the_fewest_then_the_smallest(void **state)
{
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 1000, .priority = -3});
    create(w, 2, "b", &(struct want){.cpu = 800, .priority = -3});
    create(w, 3, "c", &(struct want){.cpu = 1200, .priority = -3});
    create(w, 4, "d", &(struct want){.cpu = 1000, .priority = -2});
    create(w, 5, "t", &(struct want){.cpu = 1000, .preempts = true});
    expect_victims(w, "a"); /* b is too small, c is larger than needed, d matters more */
    done(w, "a");
    done(w, "t");
    create(w, 6, "u", &(struct want){.cpu = 1800, .priority = -1, .preempts = true});
    expect_victims(w, "bc"); /* two of less rather than one of more */
    scw_free(w);
}

static void of_hosts_the_one_with_the_lowest_wins(void **state)
{
    struct scw *w = world(4);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_attach(w, "h3", 1, 4000, 8192);
    create(w, 1, "a", &(struct want){.cpu = 4000, .priority = -2, .host = ""});
    create(w, 2, "b", &(struct want){.cpu = 2000, .priority = -3});
    create(w, 3, "c", &(struct want){.cpu = 4000, .priority = -3});
    create(w, 4, "d", &(struct want){.cpu = 2000, .priority = -3});
    create(w, 5, "t", &(struct want){.cpu = 4000, .preempts = true});
    expect_victims(w, "c"); /* one of it rather than two */
    scw_free(w);
}

static void explain_says_who_would_go_and_who_would_not(void **state)
{
    struct dress d;
    struct sc_query q;
    Harpoon__V1__Preemption *out = NULL;
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 1000, .priority = -5});
    create(w, 2, "b", &(struct want){.cpu = 1000, .priority = -5, .primary = true});
    create(w, 3, "c", &(struct want){.cpu = 1000, .priority = -4});
    create(w, 4, "d", &(struct want){.cpu = 1000, .priority = 0});
    const Harpoon__V1__ContainerSpec *spec = dress(&d, &(struct want){.cpu = 1000, .preempts = true});
    struct sc_res need = sc_spec_res(spec);
    sc_query_init(w->region, &q, &need, spec, "p", NULL);
    assert_int_equal(sc_victims_explain(w->region, &q, spec, &out), 0);
    assert_string_equal(out->host, "regions/r1/hosts/h1");
    assert_int_equal(out->n_victims, 1);
    assert_string_equal(out->victims[0], "projects/p/regions/r1/containers/a");
    assert_string_equal(out->detail,
                        "would preempt on host \"h1\": \"projects/p/regions/r1/containers/a\" (priority -5)");
    int sum = 0;
    for (size_t i = 0; i < out->n_spared; i++) {
        sum += out->spared[i]->value;
        assert_int_equal(out->spared[i]->value, 1);
    }
    assert_int_equal(sum, 3);
    harpoon__v1__preemption__free_unpacked(out, NULL);
    assert_false(container(w, "a")->leaving); /* and nothing was touched */
    sc_region_check(w->region);
    create(w, 5, "t", &(struct want){.cpu = 1000, .preempts = true});
    expect_victims(w, "a");
    scw_free(w);
}

/* Volumes claim storage where they are: nobody who goes gives any back. */
static void without_the_storage_class_nobody_goes(void **state)
{
    struct dress d;
    struct sc_query q;
    Harpoon__V1__Preemption *out = NULL;
    Harpoon__V1__VolumeMount v = HARPOON__V1__VOLUME_MOUNT__INIT, *vs = &v;
    struct scw *w = world(4);
    create(w, 1, "a", &(struct want){.cpu = 4000, .priority = -5});
    Harpoon__V1__ContainerSpec *spec = dress(&d, &(struct want){.cpu = 1000, .preempts = true});
    v.volume = (char *)"data";
    v.path = (char *)"/data";
    v.storage_class = (char *)"ssd";
    v.size_bytes = 1 << 30;
    spec->volumes = &vs;
    spec->n_volumes = 1;
    struct sc_res need = sc_spec_res(spec);
    sc_query_init(w->region, &q, &need, spec, "p", NULL);
    assert_int_equal(sc_victims_explain(w->region, &q, spec, &out), 0);
    assert_string_equal(out->host, "");
    assert_int_equal(out->n_spared, 0);
    harpoon__v1__preemption__free_unpacked(out, NULL);
    scw_create_spec(w, 2, "top", spec, 0);
    assert_false(container(w, "a")->leaving);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_place_is_held_until_each_victim_has_gone),
        cmocka_unit_test(what_has_another_place_moves_there),
        cmocka_unit_test(when_it_is_cancelled_the_room_is_the_victims_again),
        cmocka_unit_test(a_host_that_is_given_up_is_not_waited_for),
        cmocka_unit_test(a_victim_that_is_deleted_makes_room_all_the_same),
        cmocka_unit_test(the_place_follows_what_is_needed),
        cmocka_unit_test(no_more_than_a_few_go_at_a_time),
        cmocka_unit_test(who_waits_hears_of_new_victims),
        cmocka_unit_test(it_is_off_unless_it_is_on),
        cmocka_unit_test(primaries_equals_and_what_cannot_move_are_spared),
        cmocka_unit_test(a_gang_stays_whole_and_preempts_nobody),
        cmocka_unit_test(of_a_group_one_goes_at_a_time),
        cmocka_unit_test(the_lowest_go_first_then_the_fewest_then_the_smallest),
        cmocka_unit_test(of_hosts_the_one_with_the_lowest_wins),
        cmocka_unit_test(explain_says_who_would_go_and_who_would_not),
        cmocka_unit_test(without_the_storage_class_nobody_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
