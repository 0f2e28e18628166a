/* scheduler_pressure_test.c — live load in the scheduler's core: breakers of hosts as events, in the record and in placement; loads that are too old; refusals for load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED

/* Breakers of cpu at 80 % after 10 s, closed below 40 % after 20 s; figures count as they come, and for 30 s. */
static struct sc_region_config config(void)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.load = (struct hp_load_limits){.use = {80, 80, 0, 0},
                                     .close_percent = 50,
                                     .after_ms = 10000,
                                     .close_after_ms = 20000,
                                     .average_ms = 0,
                                     .stale_ms = 30000};
    return c;
}

/* Hosts of 4 cores; `cpu` in thousandths of a core, `overloaded` NULL or what the host says of itself. */
static void sample(struct scw *w, const char *host, int64_t cpu, const char *overloaded)
{
    Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
    Harpoon__Internal__V1__HostSample x = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT, *px = &x;
    Harpoon__Internal__V1__AgentMetrics a = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    Harpoon__V1__HostMetrics m = HARPOON__V1__HOST_METRICS__INIT;
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = w->time, .metrics = &b};
    char *list[] = {(char *)(uintptr_t)overloaded};
    m.cpu_millis_used = cpu;
    m.psi_cpu_some = m.psi_memory_some = m.psi_memory_full = m.psi_io_some = m.psi_io_full = -1;
    m.io_use = m.network_use = -1;
    m.overloaded = list;
    m.n_overloaded = overloaded != NULL;
    a.host = &m;
    b.router = (char *)"er1";
    b.samples = &px;
    b.n_samples = 1;
    x.host = (char *)(uintptr_t)host;
    x.session = 1;
    x.metrics = &a;
    assert_int_equal(sc_region_step(w->region, &ev, NULL), 0);
    scw_flush(w);
}

static void samples(struct scw *w, const char *host, int64_t cpu, int seconds)
{
    for (int i = 0; i < seconds; i += 5) {
        sample(w, host, cpu, NULL);
        scw_advance(w, 5000);
    }
}

static Harpoon__V1__Host *row(const struct scw *w, const char *host)
{
    const struct scw_row *x = scw_find(&w->hosts, host);
    assert_non_null(x);
    Harpoon__V1__Host *h = harpoon__v1__host__unpack(NULL, x->body->len, x->body->bytes);
    assert_non_null(h);
    return h;
}

static void expect_breakers(const struct scw *w, const char *host, size_t count, const char *reason)
{
    Harpoon__V1__Host *h = row(w, host);
    assert_int_equal(h->n_breakers, count);
    if (count) {
        assert_string_equal(h->breakers[0]->resource, "cpu");
        assert_string_equal(h->breakers[0]->reason, reason);
        assert_true(h->breakers[0]->open_time->seconds > 0);
    }
    harpoon__v1__host__free_unpacked(h, NULL);
}

/* The short name of the container's host in the record; "" none. */
static void expect_host(const struct scw *w, const char *name, const char *host)
{
    char full[256];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct scw_row *x = scw_find(&w->containers, full);
    assert_non_null(x);
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, x->body->len, x->body->bytes);
    const char *slash = strrchr(m->container->status->host, '/');
    assert_string_equal(slash ? slash + 1 : "", host);
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
}

static int64_t breakers_open(const struct scw *w)
{
    struct sc_region_stats s;
    sc_region_stats(w->region, &s);
    return s.breakers_open;
}

static struct scw *one_host(void)
{
    struct sc_region_config c = config();
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_advance(w, 5000); /* everything is settled */
    scw_clear(w);
    return w;
}

static void an_opening_is_an_event_and_in_the_row(void **state)
{
    struct scw *w = one_host();
    samples(w, "h1", 3600, 10);
    scw_expect(w, "");
    sample(w, "h1", 3600, NULL);
    scw_expect(w, "commit h1\n  2 host.breaker_opened h1 @h1\npublish 2-2\n");
    expect_breakers(w, "h1", 1, "cpu: use 90.0 % (limit 80 %)");
    assert_int_equal(breakers_open(w), 1);
    samples(w, "h1", 2000, 60); /* between the limits */
    scw_expect(w, "commit\n");  /* the stream has the event */
    samples(w, "h1", 1000, 20);
    scw_expect(w, "");
    sample(w, "h1", 1000, NULL);
    scw_expect(w, "commit h1\n  3 host.breaker_closed h1 @h1\npublish 3-3\n");
    expect_breakers(w, "h1", 0, NULL);
    assert_int_equal(breakers_open(w), 0);
    scw_free(w);
}

static void placements_avoid_it_and_wake_when_it_closes(void **state)
{
    struct scw *w = one_host();
    samples(w, "h1", 3600, 15);
    scw_create(w, 1, "c1", 100, 64);
    expect_host(w, "c1", "");
    assert_int_equal(w->verdict_stage, HARPOON__V1__STAGE__STAGE_RECORDED);
    scw_attach(w, "h2", 1, 2000, 1024); /* smaller, and not known to be idle */
    expect_host(w, "c1", "h2");
    scw_create(w, 2, "c2", 2500, 2048); /* too large for h2's memory */
    expect_host(w, "c2", "");
    samples(w, "h1", 0, 20);
    expect_host(w, "c2", "");
    sample(w, "h1", 0, NULL);
    expect_host(w, "c2", "h1");
    scw_free(w);
}

static void what_runs_there_is_left_alone_and_may_change(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    scw_done(w, "h1", scw_uid(w, "c1"), 1);
    size_t commands = w->command_count;
    samples(w, "h1", 3900, 15);
    assert_int_equal(breakers_open(w), 1);
    assert_int_equal(w->command_count, commands);
    scw_resize(w, 2, "c1", 500, 512, NULL);
    assert_int_equal(w->verdict_code, 0);
    assert_int_equal(w->command_count, commands + 1);
    scw_free(w);
}

static void an_open_breaker_outlives_the_reign(void **state)
{
    struct scw *w = one_host();
    samples(w, "h1", 3600, 15);
    scw_takeover(w);
    assert_int_equal(breakers_open(w), 1);
    scw_create(w, 1, "c1", 100, 64);
    expect_host(w, "c1", "");
    scw_advance(w, 5000);
    scw_clear(w);
    samples(w, "h1", 3600, 30); /* it is open already: nothing new */
    scw_expect(w, "");
    samples(w, "h1", 0, 20);
    sample(w, "h1", 0, NULL);
    expect_host(w, "c1", "h1");
    assert_int_equal(breakers_open(w), 0);
    expect_breakers(w, "h1", 0, NULL);
    scw_free(w);
}

static void what_the_host_says_of_itself_counts_at_once(void **state)
{
    struct scw *w = one_host();
    sample(w, "h1", 100, "cpu");
    scw_expect(w, "commit h1\n  2 host.breaker_opened h1 @h1\npublish 2-2\n");
    expect_breakers(w, "h1", 1, "cpu: use 2.5 % (limit 80 %); the host takes nothing more");
    scw_advance(w, 5000);
    scw_clear(w);
    for (int i = 0; i < 12; i++) { /* as long as it says so */
        scw_advance(w, 5000);
        sample(w, "h1", 100, "cpu");
    }
    scw_expect(w, "");
    scw_advance(w, 5000);
    samples(w, "h1", 100, 15);
    scw_expect(w, "");
    sample(w, "h1", 100, "teapot"); /* of later versions */
    scw_expect(w, "commit h1\n  3 host.breaker_closed h1 @h1\npublish 3-3\n");
    scw_free(w);
}

static void refuse(struct scw *w, const char *host, const char *name, int64_t generation, const char *overloaded)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Google__Rpc__Status error = GOOGLE__RPC__STATUS__INIT;
    char *list[] = {(char *)(uintptr_t)overloaded}, uid[27];
    strcpy(uid, scw_uid(w, name));
    error.code = 8;
    error.message = (char *)"cpu: use 99.0 % (limit 98 %)";
    x.uid = uid;
    x.generation = generation;
    x.outcome = REFUSED;
    x.error = &error;
    x.overloaded = list;
    x.n_overloaded = overloaded != NULL;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    scw_report(w, host, &m);
}

/* Of the last command of this verb to the host. */
static int64_t asked(const struct scw *w, const char *host, int verb)
{
    for (size_t i = w->command_count; i-- > 0;)
        if (w->commands[i].verb == verb && !strcmp(w->commands[i].host, host))
            return w->commands[i].generation;
    return 0;
}

static void a_refusal_for_load_passes_with_the_load(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 100, 64);
    expect_host(w, "c1", "h1");
    refuse(w, "h1", "c1", 1, "cpu");
    expect_host(w, "c1", "");
    expect_breakers(w, "h1", 1, "cpu: use 99.0 % (limit 98 %)");
    scw_create(w, 2, "c2", 100, 64); /* others need not be refused to learn it */
    expect_host(w, "c2", "");
    scw_takeover(w); /* and is remembered */
    samples(w, "h1", 0, 20);
    expect_host(w, "c1", "");
    sample(w, "h1", 0, NULL);
    expect_host(w, "c1", "h1");
    expect_host(w, "c2", "h1");
    scw_free(w);
}

/* What it refused has left a tombstone there, so that no late repeat makes it: the host takes only what is later. */
static void a_create_comes_back_above_its_tombstone(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 100, 64);
    refuse(w, "h1", "c1", 1, "cpu");
    int64_t tombstone = asked(w, "h1", HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE);
    assert_true(tombstone > 1);
    samples(w, "h1", 0, 20);
    sample(w, "h1", 0, NULL);
    expect_host(w, "c1", "h1");
    int64_t again = asked(w, "h1", HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE);
    assert_true(again > tombstone);
    scw_done(w, "h1", scw_uid(w, "c1"), tombstone); /* that the tombstone is there is not that the container is */
    assert_int_not_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 6);
    scw_done(w, "h1", scw_uid(w, "c1"), again);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 6);
    scw_free(w);
}

static void a_refusal_for_load_never_fails_the_create(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 100, 64);
    for (int i = 0; i < 40; i++) {
        expect_host(w, "c1", "h1");
        refuse(w, "h1", "c1", w->commands[w->command_count - 1].generation, "cpu");
        expect_host(w, "c1", "");
        samples(w, "h1", 0, 20);
        sample(w, "h1", 0, NULL);
    }
    expect_host(w, "c1", "h1");
    scw_free(w);
}

/* More than an operation can remember. */
static void a_whole_overloaded_region_fails_no_create(void **state)
{
    enum { HOSTS = 18 };
    struct sc_region_config c = config();
    struct scw *w = scw_new(&c);
    char host[16];
    for (int i = 0; i < HOSTS; i++) {
        snprintf(host, sizeof host, "h%d", i);
        scw_attach(w, host, 1, 4000, 8192);
    }
    scw_create(w, 1, "c1", 100, 64);
    for (int i = 0; i < HOSTS; i++) {
        size_t last = w->command_count;
        while (w->commands[last - 1].verb != HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE)
            last--;
        strcpy(host, w->commands[last - 1].host);
        expect_host(w, "c1", host);
        refuse(w, host, "c1", w->commands[last - 1].generation, "memory");
    }
    expect_host(w, "c1", "");
    assert_int_equal(breakers_open(w), HOSTS);
    samples(w, host, 0, 25);
    expect_host(w, "c1", host);
    scw_free(w);
}

static void other_refusals_exclude_for_good(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 100, 64);
    refuse(w, "h1", "c1", 1, "teapot"); /* not known here: as if it had not been said */
    expect_host(w, "c1", "");
    assert_int_equal(breakers_open(w), 0);
    samples(w, "h1", 3600, 15);
    samples(w, "h1", 0, 30);
    assert_int_equal(breakers_open(w), 0);
    expect_host(w, "c1", "");
    scw_free(w);
}

static void a_host_not_heard_from_is_not_idle(void **state)
{
    struct sc_region_config c = config();
    c.suspect_ms = 600 * 1000; /* attached and READY all the time */
    c.unknown_ms = 1200 * 1000;
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    /* h1 was idle, and is silent since; h2 says that it has a quarter to do. */
    sample(w, "h1", 0, NULL);
    sample(w, "h2", 1000, NULL);
    scw_create(w, 1, "c1", 10, 4);
    expect_host(w, "c1", "h1");
    scw_verb(w, 2, P(DELETE), "c1", NULL);
    scw_done(w, "h1", scw_uid(w, "c1"), 2);
    samples(w, "h2", 1000, 35);
    scw_create(w, 3, "c2", 10, 4);
    expect_host(w, "c2", "h2");
    /* And better not known than known to be busy. */
    samples(w, "h2", 3000, 5);
    scw_create(w, 4, "c3", 10, 4);
    expect_host(w, "c3", "h1");
    scw_free(w);
}

static void a_host_never_heard_from_is_not_idle(void **state)
{
    struct sc_region_config c = config();
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    sample(w, "h2", 1000, NULL);
    scw_create(w, 1, "c1", 10, 4);
    expect_host(w, "c1", "h2");
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_opening_is_an_event_and_in_the_row),
        cmocka_unit_test(placements_avoid_it_and_wake_when_it_closes),
        cmocka_unit_test(what_runs_there_is_left_alone_and_may_change),
        cmocka_unit_test(an_open_breaker_outlives_the_reign),
        cmocka_unit_test(what_the_host_says_of_itself_counts_at_once),
        cmocka_unit_test(a_refusal_for_load_passes_with_the_load),
        cmocka_unit_test(a_create_comes_back_above_its_tombstone),
        cmocka_unit_test(a_refusal_for_load_never_fails_the_create),
        cmocka_unit_test(a_whole_overloaded_region_fails_no_create),
        cmocka_unit_test(other_refusals_exclude_for_good),
        cmocka_unit_test(a_host_not_heard_from_is_not_idle),
        cmocka_unit_test(a_host_never_heard_from_is_not_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
