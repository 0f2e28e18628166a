/* scheduler_brake_test.c — the scheduler's core when many hosts fall silent at once: none of them is given up, and one event says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/v1/event.pb-c.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define SUSPECT HARPOON__V1__HOST_STATE__HOST_STATE_SUSPECT
#define UNKNOWN HARPOON__V1__HOST_STATE__HOST_STATE_UNKNOWN

enum { HOSTS = 10 };

/* SUSPECT after 30 s, UNKNOWN after 5 min; the brake is on with more than 30 % of the hosts, and at least three. */
static struct scw *region_of(int hosts)
{
    struct sc_region_config c;
    char name[16];
    sc_region_config_defaults(&c);
    c.brake_hosts = 3;
    struct scw *w = scw_new(&c);
    for (int i = 0; i < hosts; i++) {
        snprintf(name, sizeof name, "h%d", i);
        scw_attach(w, name, 1, 4000, 8192);
    }
    scw_advance(w, 2000);
    scw_clear(w);
    return w;
}

/* A sign of life of hosts first to last - 1. */
static void heard(struct scw *w, int first, int last)
{
    Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
    Harpoon__Internal__V1__HostSample xs[HOSTS], *ps[HOSTS];
    char names[HOSTS][16];
    for (int i = first; i < last; i++) {
        harpoon__internal__v1__host_sample__init(&xs[i]);
        snprintf(names[i], sizeof names[i], "h%d", i);
        xs[i].host = names[i];
        xs[i].session = 1;
        ps[b.n_samples++] = &xs[i];
    }
    b.router = (char *)"er1";
    b.samples = ps;
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = w->time, .metrics = &b};
    assert_int_equal(sc_region_step(w->region, &ev, NULL), 0);
    scw_flush(w);
}

/* Hosts first to last - 1 are heard every 10 s; the others are not. */
static void pass(struct scw *w, int first, int last, int seconds)
{
    for (int i = 0; i < seconds; i += 10) {
        heard(w, first, last);
        scw_advance(w, 10000);
    }
}

static int count(const struct scw *w, int state)
{
    int n = 0;
    for (size_t i = 0; i < w->hosts.count; i++) {
        const struct sc_blob *b = w->hosts.rows[i].body;
        Harpoon__V1__Host *h = harpoon__v1__host__unpack(NULL, b->len, b->bytes);
        n += (int)h->state == state;
        harpoon__v1__host__free_unpacked(h, NULL);
    }
    return n;
}

static int told(const struct scw *w, const char *what)
{
    int n = 0;
    for (const char *p = w->trace; (p = strstr(p, what)); p++)
        n++;
    return n;
}

static bool braked(const struct scw *w)
{
    struct sc_region_stats s;
    sc_region_stats(w->region, &s);
    return s.braked;
}

static void few_silent_hosts_are_given_up(void **state)
{
    struct scw *w = region_of(HOSTS);
    pass(w, 3, HOSTS, 400); /* three of ten: not more than 30 % */
    assert_int_equal(count(w, UNKNOWN), 3);
    assert_int_equal(told(w, "region."), 0);
    scw_free(w);
}

static void a_small_region_has_no_brake(void **state)
{
    struct scw *w = region_of(2);
    scw_advance(w, 400 * 1000);
    assert_int_equal(count(w, UNKNOWN), 2);
    assert_int_equal(told(w, "region."), 0);
    scw_free(w);
}

static void of_many_silent_hosts_none_is_given_up(void **state)
{
    struct scw *w = region_of(HOSTS);
    scw_create(w, 1, "c1", 100, 64);
    pass(w, 4, HOSTS, 1000);
    assert_int_equal(count(w, SUSPECT), 4);
    assert_int_equal(count(w, UNKNOWN), 0);
    assert_int_equal(told(w, "region.braked r1"), 1);
    assert_int_equal(told(w, "container.unknown"), 0);
    assert_true(braked(w));
    /* One is back: three of ten are not too many. They have all the time again. */
    scw_clear(w);
    pass(w, 3, HOSTS, 290);
    assert_int_equal(told(w, "region.released r1"), 1);
    assert_false(braked(w));
    assert_int_equal(count(w, UNKNOWN), 0);
    pass(w, 3, HOSTS, 20);
    assert_int_equal(count(w, UNKNOWN), 3);
    scw_free(w);
}

static void the_event_is_severe_and_of_the_region(void **state)
{
    struct scw *w = region_of(HOSTS);
    pass(w, 4, HOSTS, 60);
    const struct sc_blob *b = NULL;
    Harpoon__V1__Event *m = NULL;
    for (size_t i = 0; i < w->events.count && !m; i++) {
        b = w->events.rows[i].body;
        m = harpoon__v1__event__unpack(NULL, b->len, b->bytes);
        if (strcmp(m->type, "harpoon.region.braked") != 0) {
            harpoon__v1__event__free_unpacked(m, NULL);
            m = NULL;
        }
    }
    assert_non_null(m);
    assert_int_equal(m->severity, HARPOON__V1__SEVERITY__SEVERITY_CRITICAL);
    assert_string_equal(m->subject, "regions/r1");
    assert_string_equal(m->message, "4 of 10 hosts are silent (brake_percent 30): none of them is given up until they "
                                    "are back or declared lost");
    assert_int_equal(m->data_case, HARPOON__V1__EVENT__DATA__NOT_SET);
    harpoon__v1__event__free_unpacked(m, NULL);
    scw_free(w);
}

static void the_next_reign_keeps_it_and_does_not_tell_again(void **state)
{
    struct scw *w = region_of(HOSTS);
    pass(w, 4, HOSTS, 100);
    assert_int_equal(told(w, "region.braked"), 1);
    scw_clear(w);
    scw_takeover(w);
    assert_true(braked(w));
    pass(w, 4, HOSTS, 1000);
    assert_int_equal(told(w, "region."), 0);
    assert_int_equal(count(w, UNKNOWN), 0);
    heard(w, 0, HOSTS);
    assert_int_equal(told(w, "region.released"), 1);
    assert_int_equal(count(w, SUSPECT), 0);
    scw_free(w);
}

/* The machine slept, or the process was stopped: every timer is due at once, before anything of what waits has been read. */
static void a_scheduler_that_was_asleep_gives_nobody_up(void **state)
{
    struct scw *w = region_of(HOSTS);
    struct sc_ev ev = {.kind = SC_EV_TIMER};
    w->time.now_ms += 3600 * 1000;
    ev.time = w->time;
    assert_int_equal(sc_region_step(w->region, &ev, NULL), 0);
    scw_flush(w);
    scw_advance(w, 1000);
    assert_int_equal(count(w, UNKNOWN), 0);
    assert_int_equal(told(w, "region.braked"), 1);
    heard(w, 0, HOSTS);
    assert_int_equal(told(w, "region.released"), 1);
    assert_int_equal(told(w, "host.unknown"), 0);
    scw_free(w);
}

static void a_host_that_is_lost_counts_no_more(void **state)
{
    struct scw *w = region_of(HOSTS);
    pass(w, 4, HOSTS, 60);
    assert_true(braked(w));
    scw_verb(w, 1, P(DECLARE_LOST), "h0", ""); /* attached as far as is known, and silent */
    assert_int_equal(w->verdict_code, 0);
    assert_true(braked(w)); /* three of nine */
    scw_verb(w, 2, P(DECLARE_LOST), "h1", "");
    assert_false(braked(w)); /* two of eight */
    assert_int_equal(told(w, "region.released"), 1);
    scw_free(w);
}

static void attach_class(struct scw *w, const char *host, const char *class)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__AgentHello__LabelsEntry label = HARPOON__INTERNAL__V1__AGENT_HELLO__LABELS_ENTRY__INIT,
                                                   *labels = &label;
    label.key = (char *)"class";
    label.value = (char *)class;
    hello.session = m.session = 1;
    hello.labels = &labels;
    hello.n_labels = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

static void classes_of_hosts_have_their_own_times(void **state)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.graces[c.grace_count++] = (struct sc_grace){"edge", 120 * 1000, 1800 * 1000};
    c.graces[c.grace_count++] = (struct sc_grace){"lab", 10 * 1000, 60 * 1000};
    struct scw *w = scw_new(&c);
    attach_class(w, "edge", "edge");
    attach_class(w, "lab", "lab");
    attach_class(w, "other", "none");
    scw_clear(w);
    scw_advance(w, 11 * 1000);
    assert_non_null(strstr(w->trace, "host.suspect lab"));
    scw_advance(w, 20 * 1000);
    assert_non_null(strstr(w->trace, "host.suspect other"));
    scw_advance(w, 30 * 1000);
    assert_non_null(strstr(w->trace, "host.unknown lab"));
    assert_null(strstr(w->trace, "host.suspect edge"));
    scw_takeover(w); /* the silence is counted anew */
    scw_advance(w, 119 * 1000);
    assert_null(strstr(w->trace, "host.suspect edge"));
    scw_advance(w, 200 * 1000);
    assert_non_null(strstr(w->trace, "host.suspect edge"));
    assert_non_null(strstr(w->trace, "host.unknown other"));
    assert_null(strstr(w->trace, "host.unknown edge"));
    scw_advance(w, 1800 * 1000);
    assert_non_null(strstr(w->trace, "host.unknown edge"));
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_of_hosts_have_their_own_times),
        cmocka_unit_test(few_silent_hosts_are_given_up),
        cmocka_unit_test(a_small_region_has_no_brake),
        cmocka_unit_test(of_many_silent_hosts_none_is_given_up),
        cmocka_unit_test(the_event_is_severe_and_of_the_region),
        cmocka_unit_test(the_next_reign_keeps_it_and_does_not_tell_again),
        cmocka_unit_test(a_scheduler_that_was_asleep_gives_nobody_up),
        cmocka_unit_test(a_host_that_is_lost_counts_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
