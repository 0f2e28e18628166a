/* gw_faults_test.c — every allocation of the gateway's core fails once. Between a client's request and the message for the broker: the request is refused as one that may be repeated, never as
 * a wrong one, and the repeat is the same operation with the same content. Between the broker's answers and the clients: who waits is told once, and a watch sees every event once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/change.h"
#include "core/verdicts.h"
#include "core/waiters.h"
#include "core/watch.h"
#include "grpc/status.h"
#include "lib/fail_alloc.h"
#include "wire/codec.h"
#include "wire/json.h"

static const char request[] =
    "{\"parent\":\"projects/p/regions/"
    "r1\",\"containerId\":\"web\",\"requestId\":\"id-1\",\"container\":{\"labels\":{\"x\":\"1\",\"y\":\"2\"},"
    "\"spec\":{\"image\":\"oci:/img:1\",\"command\":[\"a\"],\"env\":[{\"name\":\"A\",\"value\":\"1\"}],"
    "\"resources\":{\"cpuMillis\":100,\"memoryBytes\":67108864}}}}";
static uint8_t body[4096]; /* of the run without failure */
static size_t body_len;

static void admit(void *user)
{
    static const char *const names[] = {"r1"};
    static const struct gw_regions regions = {names, 1};
    struct gw_principals known;
    struct hp_error e = {0};
    Google__Rpc__Status *status = NULL;
    ProtobufCMessage *m = NULL;
    struct gw_prepared p;
    struct hp_rng rng;
    hp_rng_init(&rng, 5);
    fa_enter();
    gw_principals_init(&known, 7);
    /* SHA-256 of "secret". */
    int rc = gw_principals_add(&known, "tester", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                               "editor", "p, q", &e);
    assert_true(rc == 0 || rc == HP_ENOMEM);
    const struct gw_principal *who = rc ? NULL : gw_principals_find(&known, "Bearer secret", &status);
    assert_true(who || fa_failed());
    if (who) {
        rc =
            hp_json_parse_message(request, strlen(request), &harpoon__v1__create_container_request__descriptor, &m, &e);
        assert_true(rc == 0 || rc == HP_ENOMEM);
    }
    if (m) {
        rc = gw_prepare(&regions, who, HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE, m, 1700000000123456789, &rng, &p,
                        &status);
        assert_true(rc == 0 || (fa_failed() && (!status || status->code == HP_CODE_RESOURCE_EXHAUSTED)));
        if (rc == 0) {
            Harpoon__V1__Operation *o = gw_accepted_operation(&p);
            assert_true(o || fa_failed());
            hp_unpacked_free(o ? &o->base : NULL);
            if (!fa_failing()) {
                assert_true(p.body_len <= sizeof body);
                memcpy(body, p.body, body_len = p.body_len);
            }
            assert_int_equal(p.body_len, body_len); /* whole, or not at all */
            assert_memory_equal(p.body, body, body_len);
            gw_prepared_done(&p);
        }
    }
    hp_status_free(status);
    hp_unpacked_free(m);
    gw_principals_done(&known);
    fa_leave();
}

static void admission(void **state)
{
    assert_true(fa_each(admit, NULL) > 100);
}

/* ---- A container's life as the gateway hears of it ---- */

enum { CHANGES = 3, EVENTS = 3 * CHANGES }; /* a create, a resize, a delete; each is recorded, runs, and ends */

struct hearing {
    struct gw_timers timers;
    struct gw_verdicts verdicts;
    struct gw_waiters waiters;
    struct gw_feed feed;
    struct gw_watch watch;
    int told;     /* of the change under way */
    int64_t seen; /* by the watch */
};
static struct hearing hearing;

/* One allocation fails in a run: what is repeated comes through. */
#define AGAIN(call_)                                                                                                   \
    do {                                                                                                               \
        int rc_ = call_;                                                                                               \
        assert_true(rc_ == 0 || (rc_ == HP_ENOMEM && fa_failed()));                                                    \
        if (rc_)                                                                                                       \
            assert_int_equal(call_, 0);                                                                                \
    } while (0)

static void on_told(struct gw_pending *p, const ProtobufCMessage *answer, Google__Rpc__Status *status)
{
    assert_true(answer || fa_failed());
    hp_status_free(status);
    hearing.told++;
}

static void operation_name(int64_t change, char out[64])
{
    snprintf(out, 64, "projects/p/regions/r1/operations/%d", (int)change);
}

/* The scheduler's verdict, as it comes from the broker. False: it could not be read, and the deadline answers. */
static bool hear_verdict(const struct gw_pending *p, char *name)
{
    static uint8_t packed[512];
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    Harpoon__V1__Operation o = HARPOON__V1__OPERATION__INIT;
    ProtobufCMessage *m = NULL;
    o.name = name;
    o.stage = HARPOON__V1__STAGE__STAGE_RECORDED;
    v.operation_id = (char *)(uintptr_t)p->change->operation_id;
    v.operation = &o;
    size_t len = harpoon__internal__v1__verdict__pack(&v, packed);
    int rc = hp_unpack(&harpoon__internal__v1__verdict__descriptor, packed, len, NULL, &m, NULL);
    assert_true(rc == 0 || (rc == HP_ENOMEM && fa_failed()));
    if (rc)
        return false;
    assert_true(gw_verdicts_arrived(&hearing.verdicts, p->correlation, (Harpoon__Internal__V1__Verdict *)m));
    hp_unpacked_free(m);
    return true;
}

static void change_once(int64_t number)
{
    static char who[] = "tester";
    struct gw_prepared change = {.principal = who};
    char name[64];
    operation_name(number, name);
    memset(change.operation_id, (int)('0' + number), sizeof change.operation_id - 1);
    snprintf(change.operation_name, sizeof change.operation_name, "%s", name);
    struct gw_pending p = {.change = &change, .done_cb = on_told};
    hearing.told = 0;
    AGAIN(gw_pending_add(&hearing.verdicts, &p, 100));
    gw_pending_published(&p, GW_PUBLISHED, "r1");
    if (!hear_verdict(&p, name))
        gw_timers_run(&hearing.timers, 100);
    assert_int_equal(hearing.told, 1);
}

/* From the stream, or from the record. */
static enum gw_feed_outcome hear_event(int64_t sequence)
{
    static const Harpoon__V1__Stage stages[] = {HARPOON__V1__STAGE__STAGE_RECORDED, HARPOON__V1__STAGE__STAGE_RUNNING,
                                                HARPOON__V1__STAGE__STAGE_SUCCEEDED};
    uint8_t packed[512];
    char name[64], type[] = "harpoon.operation.x", project[] = "p";
    Harpoon__V1__Event e = HARPOON__V1__EVENT__INIT;
    Harpoon__V1__Operation o = HARPOON__V1__OPERATION__INIT;
    ProtobufCMessage *m = NULL;
    operation_name((sequence - 1) / 3, name);
    o.name = name;
    o.stage = stages[(sequence - 1) % 3];
    e.sequence = sequence;
    e.type = type;
    e.project = project;
    e.operation = name;
    e.data_case = HARPOON__V1__EVENT__DATA_OPERATION_DATA;
    e.operation_data = &o;
    size_t len = harpoon__v1__event__pack(&e, packed);
    int rc = hp_unpack(&harpoon__v1__event__descriptor, packed, len, NULL, &m, NULL);
    assert_true(rc == 0 || (rc == HP_ENOMEM && fa_failed()));
    enum gw_feed_outcome outcome = rc ? GW_FEED_GAP : gw_feed_arrived(&hearing.feed, (Harpoon__V1__Event *)m, len);
    if (outcome != GW_FEED_APPENDED)
        hp_unpacked_free(m);
    return outcome;
}

/* The watch and whoever waits for the operation. */
static void pass_on(struct gw_waiter *waiter)
{
    const Harpoon__V1__Event *e;
    while (gw_watch_next(&hearing.watch, &hearing.feed, &e) == GW_WATCH_SEND) {
        const Harpoon__V1__Operation *ended = gw_event_ends(e);
        assert_true(e->sequence == ++hearing.seen);
        if (ended)
            assert_ptr_equal(gw_waiters_take(&hearing.waiters, ended->name), waiter);
    }
}

static void hear_of_a_life(void *user)
{
    static struct gw_principal all = {.all_projects = true, .refs = 1};
    Harpoon__V1__EventFilter want = HARPOON__V1__EVENT_FILTER__INIT;
    char types[] = "harpoon.operation.*", *list[] = {types};
    struct hearing *h = &hearing;
    want.types = list;
    want.n_types = 1;
    memset(h, 0, sizeof *h);
    fa_enter();
    gw_timers_init(&h->timers);
    gw_verdicts_init(&h->verdicts, &h->timers, 8, 1);
    gw_waiters_init(&h->waiters, 8, 3);
    AGAIN(gw_feed_init(&h->feed, 2 * EVENTS, 1 << 20));
    AGAIN(gw_filter_init(&h->watch.filter, &all, &want));
    gw_feed_head(&h->feed, 0);
    gw_watch_begin(&h->watch, 0);
    for (int64_t number = 0; number < CHANGES; number++) {
        char name[64];
        struct gw_waiter waiter = {0};
        change_once(number);
        operation_name(number, name);
        AGAIN(gw_waiters_add(&h->waiters, &waiter, name));
        for (int64_t sequence = 3 * number + 1; sequence <= 3 * number + 3; sequence++)
            (void)hear_event(sequence);
        gw_feed_head(&h->feed, 3 * number + 3);
        for (int64_t after, to; gw_feed_missing(&h->feed, &after, &to);)
            (void)hear_event(after + 1);
        pass_on(&waiter);
        assert_false(waiter.waiting);
    }
    assert_true(h->seen == EVENTS && h->watch.cursor == EVENTS);
    assert_true(h->timers.count == 0 && h->waiters.count == 0 && h->verdicts.by_correlation.count == 0);
    gw_filter_done(&h->watch.filter);
    gw_feed_done(&h->feed);
    gw_waiters_done(&h->waiters);
    gw_verdicts_done(&h->verdicts);
    gw_timers_done(&h->timers);
    fa_leave();
}

static void hearing_of_it(void **state)
{
    assert_true(fa_each(hear_of_a_life, NULL) > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(admission), cmocka_unit_test(hearing_of_it)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
