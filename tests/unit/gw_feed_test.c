/* Events never skip or repeat: the ring, watches on it, and who waits for operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "core/pages.h"
#include "core/waiters.h"
#include "core/watch.h"
#include "wire/codec.h"

static Harpoon__V1__Event *event(int64_t sequence)
{
    Harpoon__V1__Event e = HARPOON__V1__EVENT__INIT;
    char type[] = "harpoon.container.running", project[] = "p", region[] = "r1";
    e.sequence = sequence;
    e.type = type;
    e.project = project;
    e.region = region;
    e.severity = HARPOON__V1__SEVERITY__SEVERITY_INFO;
    return (Harpoon__V1__Event *)hp_message_clone(&e.base);
}

static enum gw_feed_outcome arrive(struct gw_feed *f, int64_t sequence)
{
    Harpoon__V1__Event *e = event(sequence);
    enum gw_feed_outcome o = gw_feed_arrived(f, e, 100);
    if (o != GW_FEED_APPENDED)
        hp_unpacked_free(&e->base);
    return o;
}

static void head_gap_fill(void **state)
{
    struct gw_feed f;
    int64_t after, to;
    assert_int_equal(gw_feed_init(&f, 10, 100000), 0);
    assert_null(gw_feed_get(&f, 0));
    assert_true(gw_feed_head(&f, 40)); /* the first head counts as a jump: nothing before it was seen */
    assert_int_equal(f.state, GW_FEED_FOLLOWING);
    assert_int_equal(gw_feed_first(&f), 41);
    assert_int_equal(arrive(&f, 40), GW_FEED_REPEATED);
    assert_int_equal(arrive(&f, 41), GW_FEED_APPENDED);
    assert_int_equal(arrive(&f, 44), GW_FEED_GAP);
    assert_int_equal(arrive(&f, 45), GW_FEED_GAP);
    assert_true(gw_feed_missing(&f, &after, &to));
    assert_true(after == 41 && to == 45);
    for (int64_t s = 42; s <= 45; s++)
        assert_int_equal(arrive(&f, s), GW_FEED_APPENDED);
    assert_false(gw_feed_missing(&f, &after, &to));
    /* Reconnected: what was committed meanwhile is missing, what was not is not. */
    assert_false(gw_feed_head(&f, 45));
    assert_int_equal(f.state, GW_FEED_FOLLOWING);
    assert_false(gw_feed_head(&f, 47));
    assert_int_equal(f.state, GW_FEED_BEHIND);
    /* Too far behind to be worth it. */
    assert_true(gw_feed_head(&f, 100));
    assert_true(f.last == 100 && f.count == 0 && f.state == GW_FEED_FOLLOWING);
    assert_int_equal(arrive(&f, 103), GW_FEED_GAP);
    gw_feed_give_up(&f);
    assert_true(f.last == 103 && f.state == GW_FEED_FOLLOWING);
    gw_feed_done(&f);
}

static void first_arrival_is_a_head(void **state)
{
    struct gw_feed f;
    assert_int_equal(gw_feed_init(&f, 10, 100000), 0);
    assert_int_equal(arrive(&f, 7), GW_FEED_APPENDED);
    assert_int_equal(gw_feed_first(&f), 7);
    assert_false(gw_feed_head(&f, 7));
    gw_feed_done(&f);
}

static void bounds(void **state)
{
    struct gw_feed f;
    assert_int_equal(gw_feed_init(&f, 10, 550), 0);
    gw_feed_head(&f, 0);
    for (int64_t s = 1; s <= 30; s++) {
        assert_int_equal(arrive(&f, s), GW_FEED_APPENDED);
        assert_true(f.bytes <= 550 && f.count <= 10);
    }
    assert_int_equal(f.count, 5); /* by bytes */
    assert_null(gw_feed_get(&f, 25));
    assert_true(gw_feed_get(&f, 26)->sequence == 26);
    gw_feed_done(&f);
}

/* ---- Watches ---- */

static struct gw_principal all = {.all_projects = true, .refs = 1};

static void watch_filters(void **state)
{
    char *zoo[] = {(char[]){"zoo"}};
    struct gw_principal limited = {.projects = zoo, .project_count = 1, .refs = 1};
    Harpoon__V1__EventFilter want = HARPOON__V1__EVENT_FILTER__INIT;
    struct gw_filter f;
    Harpoon__V1__Event *e = event(1);
    assert_int_equal(gw_filter_init(&f, &limited, NULL), 0);
    assert_false(gw_filter_match(&f, e));
    gw_filter_done(&f);
    char a[] = "harpoon.host.*", b[] = "harpoon.container.*", exact[] = "harpoon.container.running", other[] = "q";
    char *types[] = {a, b};
    want.types = types;
    want.n_types = 2;
    assert_int_equal(gw_filter_init(&f, &all, &want), 0);
    assert_true(gw_filter_match(&f, e));
    gw_filter_done(&f);
    types[1] = exact;
    want.min_severity = HARPOON__V1__SEVERITY__SEVERITY_WARNING;
    assert_int_equal(gw_filter_init(&f, &all, &want), 0);
    assert_false(gw_filter_match(&f, e));
    e->severity = HARPOON__V1__SEVERITY__SEVERITY_ERROR;
    assert_true(gw_filter_match(&f, e));
    gw_filter_done(&f);
    want.project = other;
    assert_int_equal(gw_filter_init(&f, &all, &want), 0);
    assert_false(gw_filter_match(&f, e));
    gw_filter_done(&f);
    hp_unpacked_free(&e->base);
}

/* A reader and a record beside the ring: events come in any way, the reader is ready or not; it sees 1, 2, 3 … or is told that it is too slow. */
static void watch_never_skips(void **state)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct hp_rng rng;
        struct gw_feed f;
        struct gw_watch w = {0};
        int64_t committed = 0, seen = 0;
        bool ended = false;
        hp_rng_init(&rng, seed);
        assert_int_equal(gw_feed_init(&f, 8, 100000), 0);
        assert_int_equal(gw_filter_init(&w.filter, &all, NULL), 0);
        gw_feed_head(&f, 0);
        gw_watch_begin(&w, 0);
        for (int step = 0; step < 300 && !ended; step++) {
            committed += (int64_t)hp_rng_below(&rng, 4);
            if (hp_rng_below(&rng, 20) == 0)
                committed += 30;
            if (hp_rng_below(&rng, 4) == 0)
                gw_feed_head(&f, committed);
            else if (committed > 0) /* anything committed may arrive: repeated, next, or ahead */
                arrive(&f, 1 + (int64_t)hp_rng_below(&rng, (uint64_t)committed));
            int64_t after, to;
            if (gw_feed_missing(&f, &after, &to) && hp_rng_below(&rng, 2))
                for (int64_t s = after + 1; s <= to && s < after + 5; s++)
                    assert_int_not_equal(arrive(&f, s), GW_FEED_GAP);
            if (w.blocked && hp_rng_below(&rng, 3) == 0)
                ended = !gw_watch_unblock(&w, &f);
            while (!ended && !w.blocked) {
                const Harpoon__V1__Event *e = NULL;
                enum gw_watch_step s = gw_watch_next(&w, &f, &e);
                if (s == GW_WATCH_WAIT)
                    break;
                if (s == GW_WATCH_OVERRUN) {
                    ended = true;
                } else if (s == GW_WATCH_SEND) {
                    assert_true(e->sequence == ++seen);
                } else { /* one page of the record, with some that were seen already */
                    int64_t from = w.cursor > 2 ? w.cursor - 2 : 1;
                    for (int64_t q = from; q <= committed && q < from + 6; q++) {
                        Harpoon__V1__Event *page = event(q);
                        int rc = gw_watch_from_record(&w, page);
                        assert_true(rc >= 0);
                        if (rc == 1)
                            assert_true(q == ++seen);
                        hp_unpacked_free(&page->base);
                    }
                }
                w.blocked = hp_rng_below(&rng, 10) == 0;
            }
        }
        assert_true(w.cursor == seen);
        if (!ended && !w.blocked && f.state == GW_FEED_FOLLOWING && w.state == GW_WATCH_LIVE)
            assert_true(seen == f.last);
        gw_filter_done(&w.filter);
        gw_feed_done(&f);
    }
}

static void watch_ends(void **state)
{
    struct gw_feed f;
    struct gw_watch w = {0};
    const Harpoon__V1__Event *e;
    assert_int_equal(gw_feed_init(&f, 4, 100000), 0);
    assert_int_equal(gw_filter_init(&w.filter, &all, NULL), 0);
    gw_feed_head(&f, 0);
    gw_watch_begin(&w, 0);
    assert_int_equal(gw_watch_next(&w, &f, &e), GW_WATCH_WAIT);
    w.blocked = true;
    for (int64_t s = 1; s <= 4; s++)
        arrive(&f, s);
    assert_true(gw_watch_unblock(&w, &f)); /* all are still in the ring */
    w.blocked = true;
    arrive(&f, 5);
    assert_false(gw_watch_unblock(&w, &f));
    assert_int_equal(gw_watch_next(&w, &f, &e), GW_WATCH_OVERRUN);
    /* A hole in the record is not passed over. */
    struct gw_watch late = {.filter = w.filter};
    gw_watch_begin(&late, 0);
    Harpoon__V1__Event *two = event(2);
    assert_int_equal(gw_watch_from_record(&late, two), HP_ECORRUPT);
    hp_unpacked_free(&two->base);
    gw_filter_done(&w.filter);
    gw_feed_done(&f);
}

/* ---- Waiters, page tokens ---- */

static void waiters(void **state)
{
    struct gw_waiters ws;
    struct gw_waiter w[5] = {0};
    gw_waiters_init(&ws, 4, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(gw_waiters_add(&ws, &w[i], "a"), 0);
    assert_int_equal(gw_waiters_add(&ws, &w[3], "b"), 0);
    assert_int_equal(gw_waiters_add(&ws, &w[4], "c"), HP_ELIMIT);
    gw_waiters_remove(&ws, &w[1]);
    gw_waiters_remove(&ws, &w[1]);
    gw_waiters_remove(&ws, &w[2]);
    assert_ptr_equal(gw_waiters_take(&ws, "a"), &w[0]);
    assert_null(gw_waiters_take(&ws, "a"));
    assert_null(gw_waiters_take(&ws, "c"));
    assert_ptr_equal(gw_waiters_take(&ws, "b"), &w[3]);
    assert_int_equal(ws.count, 0);
    gw_waiters_done(&ws);
    Harpoon__V1__Event e = HARPOON__V1__EVENT__INIT;
    Harpoon__V1__Operation o = HARPOON__V1__OPERATION__INIT;
    assert_null(gw_event_ends(&e));
    e.data_case = HARPOON__V1__EVENT__DATA_OPERATION_DATA;
    e.operation_data = &o;
    o.stage = HARPOON__V1__STAGE__STAGE_RUNNING;
    assert_null(gw_event_ends(&e));
    o.stage = HARPOON__V1__STAGE__STAGE_CANCELLED;
    assert_ptr_equal(gw_event_ends(&e), &o);
}

static void page_tokens(void **state)
{
    char token[GW_PAGE_TOKEN_MAX], key[GW_PAGE_KEY_MAX], cut[GW_PAGE_TOKEN_MAX];
    uint64_t q = gw_page_question("containers", "projects/p/regions/r", NULL);
    gw_page_token(token, q, "projects/p/regions/r/containers/x");
    assert_int_equal(gw_page_key(key, q, token), 0);
    assert_string_equal(key, "projects/p/regions/r/containers/x");
    assert_int_equal(gw_page_key(key, gw_page_question("containers", "projects/q/regions/r", NULL), token), HP_EINVAL);
    assert_true(gw_page_question("a", "bc", NULL) != gw_page_question("ab", "c", NULL));
    assert_int_equal(gw_page_key(key, q, ""), 0);
    assert_string_equal(key, "");
    assert_int_equal(gw_page_key(key, q, "AAAA"), HP_EINVAL);
    assert_int_equal(gw_page_key(key, q, "' OR 1=1 --"), HP_EINVAL);
    memcpy(cut, token, sizeof cut);
    cut[12] = '\0'; /* the head only: no key */
    assert_int_equal(gw_page_key(key, q, cut), HP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(head_gap_fill),
        cmocka_unit_test(first_arrival_is_a_head),
        cmocka_unit_test(bounds),
        cmocka_unit_test(watch_filters),
        cmocka_unit_test(watch_never_skips),
        cmocka_unit_test(watch_ends),
        cmocka_unit_test(waiters),
        cmocka_unit_test(page_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
