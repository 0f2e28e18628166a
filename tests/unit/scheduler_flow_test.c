/* scheduler_flow_test.c — what goes between a region's core and the world, and when: acknowledgements after the commit, deliveries held while the stream is behind. The
 * core is the real one; broker and database are this file's. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/v1/event.pb-c.h"
#include "io/loop.h"
#include "shell/lead.h"
#include "shell/record.h"
#include "wire/batch.h"
#include "wire/codec.h"

enum { EVENTS_MAX = 64 };

static char trace[8192];
static struct hp_db_job *job; /* under way */
static struct hp_publish *events[EVENTS_MAX];
static size_t event_count; /* published, and not confirmed yet */
static int freed;          /* deliveries */

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    size_t n = strlen(trace);
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(trace + n, sizeof trace - n, fmt, ap);
    va_end(ap);
    assert_true(len >= 0 && n + (size_t)len < sizeof trace);
}

static void expect(const char *expected)
{
    assert_string_equal(trace, expected);
    trace[0] = '\0';
}

/* ---- The broker ---- */

void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple)
{
    assert_true(multiple);
    say("ack %s %" PRIu64 "\n", subscription == SC_SUB_REQUESTS ? "requests" : "reports", tag);
}

void hp_consumer_reject(struct hp_consumer *c, int subscription, uint64_t tag)
{
    say("reject %s %" PRIu64 "\n", subscription == SC_SUB_REQUESTS ? "requests" : "reports", tag);
}

void hp_consumer_pause(struct hp_consumer *c, int subscription)
{
    say("pause %d\n", subscription);
}

void hp_consumer_resume(struct hp_consumer *c, int subscription)
{
    say("resume %d\n", subscription);
}

void hp_delivery_free(struct hp_delivery *d)
{
    freed++;
    free((void *)(uintptr_t)d->body);
    free(d);
}

static void say_events(const struct hp_publish *m)
{
    const uint8_t *at = m->body, *one = at;
    size_t left = m->body_len, len = left, count = 0;
    bool together = strcmp(m->type, "harpoon.internal.v1.EventBatch") == 0;
    int64_t first = strtoll(m->message_id, NULL, 10);
    assert_true(together || !strcmp(m->type, "harpoon.v1.Event"));
    while (together ? hp_batch_next(&at, &left, &one, &len) == 1 : count == 0) {
        ProtobufCMessage *event = NULL;
        assert_int_equal(hp_unpack(&harpoon__v1__event__descriptor, one, len, NULL, &event, NULL), 0);
        say("event %" PRId64 "\n", ((Harpoon__V1__Event *)event)->sequence);
        assert_int_equal(((Harpoon__V1__Event *)event)->sequence, first + (int64_t)count++);
        hp_unpacked_free(event);
    }
    assert_true(together ? count > 1 && left == 0 : count == 1);
}

void hp_publish(struct hp_publisher *p, struct hp_publish *m)
{
    if (m->message_id) {
        assert_true(m->persistent && m->mandatory && event_count < EVENTS_MAX);
        assert_string_equal(m->routing_key, "events.r1");
        say_events(m);
        events[event_count++] = m;
        return;
    }
    if (!strcmp(m->type, "harpoon.internal.v1.Verdict"))
        say("verdict %s to %s\n", m->correlation_id, m->routing_key);
    else
        say("announce to %s\n", m->exchange);
    m->done_cb(m, HP_PUBLISH_CONFIRMED);
}

/* ---- The database ---- */

int hp_db_submit(struct hp_db *db, struct hp_db_job *j)
{
    assert_null(job);
    job = j;
    say("write\n");
    return 0;
}

void sc_write_init(struct sc_write *w, const char *region, struct sc_batch *batch)
{
    assert_string_equal(region, "r1");
    *w = (struct sc_write){.batch = batch};
}

void sc_find_init(struct sc_find *f, const char *region, struct sc_lookup *lookup)
{
    fail_msg("all operations are known: nothing need be looked up");
}

void sc_read_init(struct sc_read *x, const char *region, struct sc_page *page)
{
    fail_msg("all events are in memory: nothing need be read back");
}

/* ---- The lead ---- */

void sc_stream_sent(struct sc_lead *l)
{
    l->stream.flying++;
}

void sc_stream_done(struct sc_lead *l, enum hp_publish_outcome outcome)
{
    l->stream.flying--;
}

static struct sc_lead lead;

void sc_lead_failed(struct sc_lead *l, int code, const struct hp_error *e)
{
    say("the reign ends: %s\n", hp_strerror(code));
    l->state = SC_LEAD_WAITING;
    l->reign++;
    sc_region_free(l->core);
    l->core = NULL;
    uv_timer_stop(&l->deadline);
}

void sc_lead_settled(struct sc_lead *l)
{
}

static uv_loop_t loop;
static size_t backlog_max;

static int setup(void **state)
{
    struct sc_region_config config;
    struct hp_error e = {0};
    sc_region_config_defaults(&config);
    config.backlog_max = backlog_max ? backlog_max : config.backlog_max;
    lead = (struct sc_lead){.state = SC_LEAD_LEADING, .reign = 1, .region = "r1"};
    lead.held_end = &lead.held;
    lead.metrics.commit_time.kind = HP_METRIC_HISTOGRAM;
    struct hp_metric *gauges[] = {&lead.metrics.hosts,     &lead.metrics.hosts_attached, &lead.metrics.containers,
                                  &lead.metrics.pending,   &lead.metrics.operations,     &lead.metrics.sequence,
                                  &lead.metrics.watermark, &lead.metrics.quarantined,    &lead.metrics.restored,
                                  &lead.metrics.breakers,  &lead.metrics.braked,         &lead.metrics.victims,
                                  &lead.metrics.full};
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++)
        gauges[i]->kind = HP_METRIC_GAUGE;
    assert_int_equal(hp_topology_region(&lead.topology, "r1", &e), 0);
    uv_loop_init(&loop);
    uv_timer_init(&loop, &lead.deadline);
    uv_idle_init(&loop, &lead.idle);
    uv_check_init(&loop, &lead.check);
    lead.deadline.data = lead.idle.data = lead.check.data = &lead;
    assert_int_equal(sc_region_new(&config, "r1", 7, 1, &lead.core), 0);
    sc_region_load_state(lead.core, 0, 0, 1);
    sc_region_load_known_done(lead.core, true);
    struct sc_ev ev = {.kind = SC_EV_LEAD, .time = sc_flow_time()};
    assert_int_equal(sc_region_step(lead.core, &ev, &e), 0);
    trace[0] = '\0';
    job = NULL;
    event_count = 0;
    freed = 0;
    sc_flow_flush(&lead);
    expect("announce to routers.r1\n");
    return 0;
}

static void confirm_events(void)
{
    size_t n = event_count;
    event_count = 0;
    for (size_t i = 0; i < n; i++)
        events[i]->done_cb(events[i], HP_PUBLISH_CONFIRMED);
}

/* The database has run it. Answers of an earlier reign find nobody. */
static void written(int result, bool unknown)
{
    struct hp_db_job *j = job;
    struct hp_error e = {0};
    assert_non_null(j);
    if (result)
        (void)!hp_fail(&e, result, "made to fail");
    job = NULL;
    j->commit_unknown = unknown;
    j->done_cb(j, result, &e);
}

static int teardown(void **state)
{
    sc_flow_drop_held(&lead);
    sc_region_free(lead.core);
    lead.core = NULL;
    lead.state = SC_LEAD_DOWN;
    if (job)
        written(HP_ECANCELED, false);
    confirm_events();
    uv_close((uv_handle_t *)&lead.deadline, NULL);
    uv_close((uv_handle_t *)&lead.idle, NULL);
    uv_close((uv_handle_t *)&lead.check, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(lead.sending, 0);
    assert_int_equal(lead.jobs, 0);
    return 0;
}

static void deliver(uint64_t tag, const uint8_t *body, size_t len)
{
    struct hp_delivery *d = calloc(1, sizeof *d);
    assert_non_null(d);
    *d = (struct hp_delivery){.subscription = SC_SUB_REQUESTS,
                              .tag = tag,
                              .body = body,
                              .body_len = len,
                              .reply_to = "q",
                              .correlation_id = "c"};
    sc_flow_deliver(&lead, d);
}

/* A create, whose operation is numbered like its delivery. */
static void create(uint64_t tag)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container container = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    static uint8_t digest[32];
    char id[33], name[16];
    uint8_t *body;
    size_t len;
    snprintf(id, sizeof id, "%032" PRIx64, tag);
    snprintf(name, sizeof name, "c%" PRIu64, tag);
    x.cpu_millis = 1000;
    x.memory_bytes = 64 << 20;
    spec.image = (char *)"oci:/images:busybox";
    spec.resources = &x;
    container.spec = &spec;
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = name;
    c.container = &container;
    q.operation_id = id;
    q.project = (char *)"p";
    q.region = (char *)"r1";
    q.request_id = id;
    q.payload_digest = (ProtobufCBinaryData){sizeof digest, digest};
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &c;
    assert_int_equal(hp_pack(&q.base, &body, &len, NULL), 0);
    deliver(tag, body, len);
}

/* ---- */

static void nothing_leaves_before_the_commit(void **state)
{
    create(1);
    create(2);
    expect("");
    uv_run(&loop, UV_RUN_NOWAIT);
    expect("write\n");
    create(3); /* decided already, and in the next transaction */
    uv_run(&loop, UV_RUN_NOWAIT);
    expect("");
    written(0, false);
    expect("ack requests 2\nverdict c to q\nverdict c to q\nevent 1\nevent 2\nevent 3\nevent 4\nwrite\n");
    written(0, false);
    expect("ack requests 3\nverdict c to q\nevent 5\nevent 6\n");
}

/* Whether it was committed or not: the requests come again, and their ids tell. */
static void a_commit_of_unknown_outcome_ends_the_reign(void **state)
{
    create(1);
    uv_run(&loop, UV_RUN_NOWAIT);
    written(HP_EAGAIN, true);
    expect("write\nthe reign ends: try again\n");
    assert_null(job);
}

static void a_deadlock_is_tried_again_and_not_for_ever(void **state)
{
    create(1);
    uv_run(&loop, UV_RUN_NOWAIT);
    for (int i = 0; i < 4; i++)
        written(HP_EAGAIN, false);
    expect("write\nwrite\nwrite\nwrite\nwrite\n");
    written(HP_EAGAIN, false);
    expect("the reign ends: try again\n");
}

static void a_fenced_write_ends_the_reign(void **state)
{
    create(1);
    uv_run(&loop, UV_RUN_NOWAIT);
    trace[0] = '\0';
    written(HP_EFENCED, false);
    assert_non_null(strstr(trace, "the reign ends"));
    assert_null(strstr(trace, "ack"));
}

/* The connection was lost and won again while the transaction ran: its tags, and its batch, are of another reign. */
static void what_an_earlier_reign_wrote_is_not_told(void **state)
{
    create(1);
    uv_run(&loop, UV_RUN_NOWAIT);
    expect("write\n");
    lead.reign++;
    written(0, false);
    expect("");
}

/* A message that nobody can read is dead-lettered, alone; the others are taken. */
static void poison_goes_to_the_dead_letters(void **state)
{
    uint8_t *junk = malloc(3);
    assert_non_null(junk);
    memcpy(junk, "\xff\xff\xff", 3);
    create(1);
    deliver(2, junk, 3);
    create(3);
    expect("reject requests 2\n");
    uv_run(&loop, UV_RUN_NOWAIT);
    written(0, false);
    expect("write\nack requests 3\nverdict c to q\nverdict c to q\nevent 1\nevent 2\nevent 3\nevent 4\n");
    assert_int_equal(freed, 3);
}

static int setup_small(void **state)
{
    backlog_max = 3;
    return setup(state);
}

static int teardown_small(void **state)
{
    backlog_max = 0;
    return teardown(state);
}

/* Requeueing would put them behind what came later. They stay here, unacknowledged, in order, until the stream has caught up. */
static void what_the_stream_cannot_take_is_held(void **state)
{
    create(1);
    create(2);
    uv_run(&loop, UV_RUN_NOWAIT);
    written(0, false);
    trace[0] = '\0';
    assert_true(sc_region_congested(lead.core));
    create(3);
    create(4);
    uv_run(&loop, UV_RUN_NOWAIT);
    expect("");
    assert_int_equal(freed, 2);
    confirm_events();
    uv_run(&loop, UV_RUN_NOWAIT);
    expect("write\n");
    assert_int_equal(freed, 4);
    written(0, false);
    expect("ack requests 4\nverdict c to q\nverdict c to q\nevent 5\nevent 6\nevent 7\nevent 8\n");
}

/* While some are held, what comes later waits behind them, even when the stream has room again. */
static void the_held_keep_their_order(void **state)
{
    create(1);
    create(2);
    uv_run(&loop, UV_RUN_NOWAIT);
    written(0, false);
    create(3);
    confirm_events(); /* room again, and this turn is not over */
    create(4);
    assert_int_equal(freed, 2);
    trace[0] = '\0';
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(freed, 4);
    written(0, false);
    expect("write\nack requests 4\nverdict c to q\nverdict c to q\nevent 5\nevent 6\nevent 7\nevent 8\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SMALL(name) cmocka_unit_test_setup_teardown(name, setup_small, teardown_small)
    const struct CMUnitTest tests[] = {
        T(nothing_leaves_before_the_commit),           T(a_commit_of_unknown_outcome_ends_the_reign),
        T(a_deadlock_is_tried_again_and_not_for_ever), T(a_fenced_write_ends_the_reign),
        T(what_an_earlier_reign_wrote_is_not_told),    T(poison_goes_to_the_dead_letters),
        SMALL(what_the_stream_cannot_take_is_held),    SMALL(the_held_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
