/* scheduler_stream_test.c — the scheduler's core while the stream of events is away: work goes on, events wait for it in the record, and are told in order when it is back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/sc_world.h"

enum { BACKLOG = 20, WINDOW = 8 };

static struct scw *region(void)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.backlog_max = BACKLOG;
    c.publish_max = WINDOW;
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 400000, 819200);
    scw_advance(w, 2000);
    scw_clear(w);
    return w;
}

static void stream_is(struct scw *w, bool away)
{
    struct sc_ev ev = {.kind = SC_EV_STREAM, .stream_away = away};
    scw_step(w, &ev);
    scw_flush(w);
}

static struct sc_region_stats stats(const struct scw *w)
{
    struct sc_region_stats s;
    sc_region_stats(w->region, &s);
    return s;
}

/* Creates and runs one container: five events. */
static void work(struct scw *w, unsigned id)
{
    char name[16];
    snprintf(name, sizeof name, "c%u", id);
    scw_create(w, id, name, 100, 64);
    scw_done(w, "h1", scw_uid(w, name), 1);
    assert_int_equal(w->verdict_code, 0);
}

/* Publishes whatever is due, as a shell that flushes after each outcome. */
static void drain(struct scw *w)
{
    for (int i = 0; i < 1000 && stats(w).watermark < w->sequence; i++)
        scw_flush(w);
    assert_int_equal(stats(w).watermark, w->sequence);
}

static void work_goes_on_without_the_stream(void **state)
{
    struct scw *w = region();
    int64_t before = w->sequence, published = w->published;
    stream_is(w, true);
    work(w, 1);
    scw_advance(w, 60000);
    assert_true(w->sequence > before + 3);
    assert_int_equal(w->published, published);
    assert_int_equal(stats(w).watermark, published);
    assert_null(strstr(w->trace, "publish"));
    stream_is(w, false);
    drain(w);
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->skips, 0);
    scw_free(w);
}

/* The stream may be away for days: what waits for it fills the record, and not the memory; nor does it hold up requests. */
static void what_waits_is_bounded_and_read_back(void **state)
{
    struct scw *w = region();
    stream_is(w, true);
    for (unsigned i = 1; i <= 50; i++) {
        work(w, i);
        assert_false(sc_region_congested(w->region));
    }
    assert_true(w->sequence > 5 * BACKLOG);
    assert_int_equal(stats(w).backlog, BACKLOG);
    assert_int_equal(w->pages, 0); /* not before the stream is back */
    int64_t repeats = w->repeats;
    stream_is(w, false);
    drain(w);
    assert_true(w->pages > 5);
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->skips, 0);
    assert_int_equal(w->repeats, repeats);
    assert_int_equal(stats(w).backlog, 0);
    int64_t pages = w->pages;
    work(w, 51); /* and from memory again */
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->pages, pages);
    scw_free(w);
}

/* What is recorded while the last page is read is behind the page, in order. */
static void work_goes_on_while_events_are_read_back(void **state)
{
    struct scw *w = region();
    unsigned id = 1;
    stream_is(w, true);
    while (id <= 30)
        work(w, id++);
    stream_is(w, false);
    for (int i = 0; i < 1000 && stats(w).watermark < w->sequence; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%u", id);
        w->hold_commits = i % 3 == 0;
        if (id <= 60)
            scw_create(w, id, name, 100, 64);
        if (w->held)
            scw_commit(w);
        w->hold_commits = false;
        scw_flush(w);
        if (id <= 60)
            scw_done(w, "h1", scw_uid(w, name), 1);
        id++;
        assert_true(stats(w).backlog <= 2 * BACKLOG);
    }
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->skips, 0);
    scw_free(w);
}

static void a_takeover_does_not_load_all_that_waits(void **state)
{
    struct scw *w = region();
    stream_is(w, true);
    for (unsigned i = 1; i <= 30; i++)
        work(w, i);
    w->mute_stream = true;
    scw_takeover(w);
    assert_int_equal(stats(w).backlog, BACKLOG);
    work(w, 31);
    assert_int_equal(stats(w).backlog, BACKLOG);
    w->mute_stream = false;
    stream_is(w, true); /* what flew is lost with the connection */
    for (int64_t s = stats(w).watermark + 1; s <= stats(w).watermark + WINDOW; s++) {
        struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {s, false}};
        scw_step(w, &ev);
    }
    stream_is(w, false);
    drain(w);
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->skips, 0);
    scw_free(w);
}

static void few_events_fly_at_a_time(void **state)
{
    struct scw *w = region();
    w->mute_stream = true;
    int64_t first = w->sequence + 1;
    for (unsigned i = 1; i <= 3; i++)
        work(w, i);
    assert_int_equal(stats(w).backlog, w->sequence - first + 1); /* sc_region_check has counted those that fly */
    w->mute_stream = false;
    for (int64_t s = first; s < first + WINDOW; s++) {
        struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {s, true}};
        w->published = s;
        scw_step(w, &ev);
    }
    drain(w);
    assert_int_equal(w->published, w->sequence);
    assert_int_equal(w->skips, 0);
    scw_free(w);
}

/* The stream comes back while a transaction is under way. */
static void what_waits_leaves_after_its_commit(void **state)
{
    struct scw *w = region();
    int64_t published = w->published;
    stream_is(w, true);
    w->hold_commits = true;
    scw_create(w, 1, "c1", 100, 64);
    assert_non_null(w->held);
    stream_is(w, false); /* the world asserts that nothing is published before its commit */
    assert_int_equal(w->published, published);
    scw_commit(w);
    w->hold_commits = false;
    drain(w);
    assert_int_equal(w->published, w->sequence);
    assert_true(w->published > published);
    scw_free(w);
}

/* A stream that is there and confirms slowly holds up what comes in; one that has confirmed nothing since it was away does not. */
static void only_a_stream_that_works_holds_up_requests(void **state)
{
    struct scw *w = region();
    w->mute_stream = true;
    for (unsigned i = 1; i <= 6; i++)
        work(w, i);
    assert_true(sc_region_congested(w->region));
    stream_is(w, true);
    assert_false(sc_region_congested(w->region));
    stream_is(w, false);
    assert_false(sc_region_congested(w->region));
    struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {stats(w).watermark + 1, true}};
    scw_step(w, &ev);
    assert_true(sc_region_congested(w->region));
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_goes_on_without_the_stream),
        cmocka_unit_test(what_waits_is_bounded_and_read_back),
        cmocka_unit_test(work_goes_on_while_events_are_read_back),
        cmocka_unit_test(a_takeover_does_not_load_all_that_waits),
        cmocka_unit_test(few_events_fly_at_a_time),
        cmocka_unit_test(what_waits_leaves_after_its_commit),
        cmocka_unit_test(only_a_stream_that_works_holds_up_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
