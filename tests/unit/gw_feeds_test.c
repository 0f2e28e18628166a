/* gw_feeds_test.c — a region's feed between stream and record: what is read when. The stream, the database and the listeners are this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fail_alloc.h"
#include "shell/gateway.h"
#include "shell/rows.h"
#include "wire/batch.h"
#include "wire/codec.h"

static struct hp_consumer_options stream;
static struct hp_db_job *job; /* under way */
static int jobs;
static int64_t head;        /* what the record says is committed */
static int64_t asked_after; /* of the last page; -1: the head was asked for */
static int64_t page_from, page_to;
static int64_t told; /* the last event that listeners heard of */
static int jumps;
static int paused, resumed; /* the subscription */
static int blinded;

int hp_consumer_new(uv_loop_t *loop, const struct hp_consumer_options *o, struct hp_consumer **ret, struct hp_error *e)
{
    stream = *o;
    assert_string_equal(o->subscriptions[0].queue, "events.r1");
    assert_string_equal(o->subscriptions[0].stream_start, "next");
    return 0;
}

void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple)
{
}

void hp_consumer_close(struct hp_consumer *c, void (*closed_cb)(void *user), void *user)
{
    closed_cb(user);
}

void hp_consumer_pause(struct hp_consumer *c, int subscription)
{
    assert_int_equal(subscription, 0);
    paused++;
}

void hp_consumer_resume(struct hp_consumer *c, int subscription)
{
    assert_int_equal(subscription, 0);
    assert_int_equal(++resumed, paused);
}

void hp_delivery_free(struct hp_delivery *d)
{
}

int hp_db_submit(struct hp_db *db, struct hp_db_job *j)
{
    assert_null(job); /* one at a time */
    job = j;
    jobs++;
    return 0;
}

int gw_select_bounds(struct hp_db_conn *c, const char *region, struct gw_bounds *ret, struct hp_error *e)
{
    *ret = (struct gw_bounds){.oldest = 1, .sequence = head};
    asked_after = -1;
    return 0;
}

int gw_select_events(struct hp_db_conn *c, const char *region, int64_t after, size_t count_max,
                     struct gw_event_page *ret, struct hp_error *e)
{
    asked_after = after;
    page_from = after + 1;
    page_to = head;
    *ret = (struct gw_event_page){.count = (size_t)(head - after)};
    return 0;
}

static Harpoon__V1__Event *event_of(int64_t sequence)
{
    Harpoon__V1__Event m = HARPOON__V1__EVENT__INIT;
    m.sequence = sequence;
    m.region = (char *)"r1";
    Harpoon__V1__Event *event = (Harpoon__V1__Event *)hp_message_clone(&m.base);
    assert_non_null(event);
    return event;
}

Harpoon__V1__Event *gw_event_page_take(struct gw_event_page *p, size_t *ret_bytes)
{
    *ret_bytes = 10;
    return page_from <= page_to ? event_of(page_from++) : NULL;
}

void gw_event_page_done(struct gw_event_page *p)
{
}

void gw_waits_event(struct gw_region *r, const Harpoon__V1__Event *event)
{
    assert_true(told < 0 || event->sequence == told + 1);
    told = event->sequence;
}

void gw_waits_jumped(struct gw_region *r)
{
    jumps++;
}

void gw_waits_blind(struct gw_region *r)
{
    blinded++;
}

void gw_watches_advance(struct gw_region *r)
{
}

void gw_gateway_check_ready(struct gw_gateway *gw)
{
}

/* ---- */

static struct gw_region region;
static struct gw_gateway gw;

static int setup(void **state)
{
    static struct gw_config config;
    struct hp_error e = {0};
    gw = (struct gw_gateway){.config = &config};
    hp_rng_init(&gw.rng, 1);
    gw_timers_init(&gw.timers);
    job = NULL;
    jobs = jumps = paused = resumed = 0;
    blinded = 0;
    told = -1;
    assert_int_equal(gw_region_start(&region, &gw, "r1", &e), 0);
    return 0;
}

static void ignore(void *user)
{
}

static int teardown(void **state)
{
    gw.stopping = true;
    if (job)
        job->done_cb(job, HP_ECANCELED, &(struct hp_error){0});
    gw_region_close(&region, ignore, NULL);
    gw_region_done(&region);
    gw_timers_done(&gw.timers);
    return 0;
}

static void stream_is(enum hp_amqp_state state)
{
    static const struct hp_error none;
    stream.state_cb(state, &none, stream.user);
}

static void arrives(int64_t sequence)
{
    Harpoon__V1__Event *m = event_of(sequence);
    struct hp_delivery d = {.tag = (uint64_t)sequence};
    uint8_t *body;
    assert_int_equal(hp_pack(&m->base, &body, &d.body_len, NULL), 0);
    d.body = body;
    fa_enter();
    stream.message_cb(&d, stream.user);
    fa_leave();
    hp_unpacked_free(&m->base);
    free(body);
}

/* Events from one to another in one message, which is cut short by so many bytes. */
static void arrive_together(int64_t from, int64_t to, size_t cut)
{
    uint8_t body[4096], *at = body, *packed;
    for (int64_t i = from; i <= to; i++) {
        size_t len;
        Harpoon__V1__Event *m = event_of(i);
        assert_int_equal(hp_pack(&m->base, &packed, &len, NULL), 0);
        assert_true(hp_batch_size(len) <= (size_t)(body + sizeof body - at));
        at = hp_batch_put(at, packed, len);
        free(packed);
        hp_unpacked_free(&m->base);
    }
    struct hp_delivery d = {.tag = (uint64_t)to,
                            .type = "harpoon.internal.v1.EventBatch",
                            .body = body,
                            .body_len = (size_t)(at - body) - cut};
    stream.message_cb(&d, stream.user);
}

/* The database answers what it knows at this moment. */
static void read_record(void)
{
    struct hp_error e = {0};
    struct hp_db_job *j = job;
    assert_non_null(j);
    assert_int_equal(j->run(j, NULL, &e), 0);
    job = NULL;
    j->done_cb(j, 0, &e);
}

/* What is committed after the head was read, and before the stream is heard, would be in neither: so the stream comes first. */
static void the_head_is_read_after_the_stream_is_heard(void **state)
{
    head = 5;
    assert_int_equal(jobs, 0);
    stream_is(HP_AMQP_UP);
    assert_int_equal(jobs, 1);
    read_record();
    assert_int_equal(asked_after, -1);
    assert_int_equal(region.feed.last, 5);
    assert_int_equal(jumps, 1);
    arrives(6);
    assert_int_equal(told, 6);
    assert_int_equal(jobs, 1); /* nothing else is asked, ever */
}

/* 6 and 7 are committed and published while the stream is away: only the record can tell of them. */
static void each_reconnection_reads_the_head_again(void **state)
{
    head = 5;
    stream_is(HP_AMQP_UP);
    read_record();
    stream_is(HP_AMQP_DOWN);
    assert_int_equal(jobs, 1);
    head = 7;
    stream_is(HP_AMQP_UP);
    assert_int_equal(jobs, 2);
    read_record();
    assert_int_equal(asked_after, -1);
    read_record();
    assert_int_equal(asked_after, 5);
    assert_int_equal(told, 7);
    assert_null(job);
}

static void a_gap_is_read_from_the_record(void **state)
{
    head = 5;
    stream_is(HP_AMQP_UP);
    read_record();
    arrives(6);
    head = 9;
    arrives(9);
    assert_int_equal(told, 6);
    read_record();
    assert_int_equal(asked_after, 6);
    assert_int_equal(told, 9);
    arrives(8); /* late: a repeat now */
    arrives(10);
    assert_int_equal(told, 10);
    assert_null(job);
}

/* What a transaction has recorded comes in one message; some of it may be known, and what cannot be read is missed like any other. */
static void events_come_together(void **state)
{
    head = 5;
    stream_is(HP_AMQP_UP);
    read_record();
    arrive_together(6, 8, 0);
    assert_int_equal(told, 8);
    arrive_together(7, 10, 0);
    assert_int_equal(told, 10);
    assert_null(job);
    head = 12;
    arrive_together(11, 12, 1);
    assert_int_equal(told, 11);
    assert_null(job);
    head = 13;
    arrives(13);
    read_record();
    assert_int_equal(asked_after, 11);
    assert_int_equal(told, 13);
}

static void a_failed_read_is_tried_again(void **state)
{
    head = 5;
    stream_is(HP_AMQP_UP);
    struct hp_db_job *j = job;
    job = NULL;
    j->done_cb(j, HP_EUNAVAILABLE, &(struct hp_error){.message = "down"});
    assert_null(job);
    gw_timers_run(&gw.timers, gw_timers_next_ms(&gw.timers));
    read_record();
    assert_int_equal(asked_after, -1);
    assert_int_equal(region.feed.last, 5);
}

/* A replica of the stream was replaced while the gateway read from it: the connection lived, and no event came any more, for ever. */
static void a_silent_subscription_is_begun_anew(void **state)
{
    stream_is(HP_AMQP_UP);
    read_record();
    uint64_t first = gw_timers_next_ms(&gw.timers);
    assert_true(first <= hp_now_ms() + 10000);
    arrives(head + 1);
    gw_timers_run(&gw.timers, first);
    assert_int_equal(resumed, 0); /* it was not silent */
    uint64_t second = gw_timers_next_ms(&gw.timers);
    gw_timers_run(&gw.timers, second);
    assert_int_equal(resumed, 1);
    assert_int_equal(jobs, 1); /* the record is not asked again */
    arrives(head + 2);
    assert_int_equal(told, head + 2);
    stream_is(HP_AMQP_DOWN);
    gw_timers_run(&gw.timers, gw_timers_next_ms(&gw.timers)); /* that it has been away for a while */
    assert_true(gw_timers_next_ms(&gw.timers) == UINT64_MAX);
    assert_int_equal(resumed, 1);
}

/* While the stream is away nothing tells a waiter that its operation has ended: it is answered with what there is, but not for a connection that is back in a moment. */
static void waiters_are_told_when_the_stream_stays_away(void **state)
{
    assert_false(region.blind);
    gw_timers_run(&gw.timers, gw_timers_next_ms(&gw.timers)); /* it never came up */
    assert_true(region.blind);
    assert_int_equal(blinded, 1);
    stream_is(HP_AMQP_UP);
    read_record();
    assert_false(region.blind);
    stream_is(HP_AMQP_DOWN);
    stream_is(HP_AMQP_UP);
    read_record();
    assert_false(region.blind);
    stream_is(HP_AMQP_DOWN);
    uint64_t due = gw_timers_next_ms(&gw.timers);
    stream_is(HP_AMQP_DOWN); /* for another reason: the time goes on */
    assert_true(gw_timers_next_ms(&gw.timers) == due);
    gw_timers_run(&gw.timers, due);
    assert_true(region.blind);
    assert_int_equal(blinded, 2);
}

/* Whatever is asked of the record, and whatever is tried again, until there is nothing more to do but to listen. */
static void settle(void)
{
    for (int i = 0; job || region.retry.place; i++) {
        assert_true(i < 10);
        if (job)
            read_record();
        else
            gw_timers_run(&gw.timers, region.retry.due_ms);
    }
}

static void three_events(void *user)
{
    setup(NULL);
    head = 5;
    stream_is(HP_AMQP_UP);
    settle();
    for (int64_t sequence = 6; sequence <= 8; sequence++) {
        head = sequence;
        arrives(sequence);
        settle();
        assert_int_equal(told, sequence);
    }
    teardown(NULL);
}

/* The last event of a busy time found no memory: who waited for it heard nothing until the region's next event, which may be tomorrow. */
static void no_event_is_lost_for_want_of_memory(void **state)
{
    assert_true(fa_each(three_events, NULL) >= 6);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_head_is_read_after_the_stream_is_heard),
        T(each_reconnection_reads_the_head_again),
        T(a_gap_is_read_from_the_record),
        T(events_come_together),
        T(a_failed_read_is_tried_again),
        T(a_silent_subscription_is_begun_anew),
        T(waiters_are_told_when_the_stream_stays_away),
        cmocka_unit_test(no_event_is_lost_for_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
