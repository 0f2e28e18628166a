/* What a caller is told, whichever of verdict, confirm and deadline comes first; and the timers behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "core/verdicts.h"
#include "grpc/status.h"

static struct gw_timers timers;
static struct gw_verdicts verdicts;
static char op_id[] = "0123456789abcdef0123456789abcdef";
static struct gw_prepared change;

/* What done_cb was told. */
static struct told {
    int calls, code, stage;
    char reason[64], name[64];
} told;

static void on_done(struct gw_pending *p, const ProtobufCMessage *answer, Google__Rpc__Status *status)
{
    told.calls++;
    told.code = status ? (int)status->code : 0;
    hp_status_reason(status, told.reason, sizeof told.reason);
    if (answer) {
        const Harpoon__V1__Operation *o = (const Harpoon__V1__Operation *)answer;
        told.stage = (int)o->stage;
        snprintf(told.name, sizeof told.name, "%s", o->name);
    }
    hp_status_free(status);
}

static int setup(void **state)
{
    static char who[] = "tester";
    gw_timers_init(&timers);
    gw_verdicts_init(&verdicts, &timers, 3, 1);
    change = (struct gw_prepared){.principal = who};
    memcpy(change.operation_id, op_id, sizeof op_id);
    told = (struct told){0};
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(verdicts.by_correlation.count, 0);
    assert_int_equal(timers.count, 0);
    gw_verdicts_done(&verdicts);
    gw_timers_done(&timers);
    return 0;
}

static void add(struct gw_pending *p)
{
    *p = (struct gw_pending){.change = &change, .done_cb = on_done};
    assert_int_equal(gw_pending_add(&verdicts, p, 100), 0);
}

static bool verdict(const struct gw_pending *p, int code)
{
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    Google__Rpc__Status s = GOOGLE__RPC__STATUS__INIT;
    Harpoon__V1__Operation o = HARPOON__V1__OPERATION__INIT;
    char name[] = "recorded";
    o.name = name;
    o.stage = HARPOON__V1__STAGE__STAGE_RECORDED;
    s.code = code;
    v.operation_id = op_id;
    v.status = &s;
    v.operation = &o;
    return gw_verdicts_arrived(&verdicts, p->correlation, &v);
}

static void confirm_then_verdict(void **state)
{
    struct gw_pending p;
    add(&p);
    gw_pending_published(&p, GW_PUBLISHED, "r1");
    assert_int_equal(told.calls, 0);
    assert_true(verdict(&p, 0));
    assert_int_equal(told.calls, 1);
    assert_string_equal(told.name, "recorded");
    assert_false(verdict(&p, 0)); /* a second one finds nobody */
    gw_timers_run(&timers, 1000);
    assert_int_equal(told.calls, 1);
}

static void verdict_before_confirm(void **state)
{
    struct gw_pending p;
    add(&p);
    assert_true(verdict(&p, HP_CODE_ALREADY_EXISTS));
    assert_int_equal(told.code, HP_CODE_ALREADY_EXISTS);
    gw_pending_published(&p, GW_OUTCOME_UNKNOWN, "r1");
    assert_int_equal(told.calls, 1);
}

static void deadline_after_confirm(void **state)
{
    struct gw_pending p;
    add(&p);
    gw_pending_published(&p, GW_PUBLISHED, "r1");
    gw_timers_run(&timers, 99);
    assert_int_equal(told.calls, 0);
    gw_timers_run(&timers, 100);
    assert_int_equal(told.calls, 1);
    assert_int_equal(told.stage, HARPOON__V1__STAGE__STAGE_ACCEPTED);
    assert_false(verdict(&p, 0));
}

/* Accepted means confirmed: a deadline alone says nothing. */
static void deadline_before_confirm(void **state)
{
    struct gw_pending p;
    add(&p);
    gw_timers_run(&timers, 100);
    assert_int_equal(told.calls, 0);
    gw_pending_published(&p, GW_PUBLISHED, "r1");
    assert_int_equal(told.stage, HARPOON__V1__STAGE__STAGE_ACCEPTED);
    add(&p);
    gw_timers_run(&timers, 100);
    gw_pending_published(&p, GW_OUTCOME_UNKNOWN, "r1");
    assert_int_equal(told.calls, 2);
    assert_int_equal(told.code, HP_CODE_UNAVAILABLE);
    assert_string_equal(told.reason, "OUTCOME_UNKNOWN");
}

static void outcomes(void **state)
{
    static const struct {
        enum gw_published outcome;
        int code;
        const char *reason;
    } rows[] = {{GW_QUEUE_FULL, HP_CODE_RESOURCE_EXHAUSTED, "QUEUE_FULL"},
                {GW_NO_QUEUE, HP_CODE_UNAVAILABLE, "REGION_HAS_NO_QUEUE"},
                {GW_NOT_SENT, HP_CODE_UNAVAILABLE, "BROKER_UNAVAILABLE"},
                {GW_OUTCOME_UNKNOWN, HP_CODE_UNAVAILABLE, "OUTCOME_UNKNOWN"}};
    for (size_t i = 0; i < 4; i++) {
        struct gw_pending p;
        add(&p);
        gw_pending_published(&p, rows[i].outcome, "r1");
        assert_int_equal(told.code, rows[i].code);
        assert_string_equal(told.reason, rows[i].reason);
    }
}

static void a_question_without_answer(void **state)
{
    struct gw_pending p;
    change.transient = true;
    add(&p);
    gw_pending_published(&p, GW_PUBLISHED, "r1");
    gw_timers_run(&timers, 100);
    assert_int_equal(told.code, HP_CODE_UNAVAILABLE);
    assert_string_equal(told.reason, "SCHEDULER_SILENT");
}

static void dropped_and_full(void **state)
{
    struct gw_pending p[4];
    for (int i = 0; i < 3; i++)
        add(&p[i]);
    p[3] = (struct gw_pending){.change = &change, .done_cb = on_done};
    assert_int_equal(gw_pending_add(&verdicts, &p[3], 100), HP_ELIMIT);
    for (int i = 0; i < 3; i++)
        gw_pending_drop(&p[i]);
    gw_pending_drop(&p[0]);
    assert_false(verdict(&p[0], 0));
    gw_pending_published(&p[1], GW_PUBLISHED, "r1");
    gw_timers_run(&timers, 1000);
    assert_int_equal(told.calls, 0);
}

/* ---- Timers ---- */

struct alarm {
    struct gw_timer timer;
    bool rung;
};
static uint64_t last_due;

static void ring(struct gw_timer *t, uint64_t now_ms)
{
    assert_true(t->due_ms <= now_ms && t->due_ms >= last_due);
    last_due = t->due_ms;
    ((struct alarm *)t)->rung = true;
}

static void timers_fire_in_order(void **state)
{
    static struct alarm a[500];
    struct hp_rng rng;
    hp_rng_init(&rng, 9);
    for (int i = 0; i < 500; i++) {
        a[i] = (struct alarm){.timer = {.fire_cb = ring}};
        assert_int_equal(gw_timer_arm(&timers, &a[i].timer, hp_rng_below(&rng, 1000)), 0);
    }
    for (int i = 0; i < 500; i += 3)
        assert_int_equal(gw_timer_arm(&timers, &a[i].timer, hp_rng_below(&rng, 1000)), 0);
    for (int i = 0; i < 500; i += 7)
        gw_timer_disarm(&timers, &a[i].timer);
    last_due = 0;
    for (uint64_t now = 0; now < 1000; now += 10) {
        gw_timers_run(&timers, now);
        assert_true(gw_timers_next_ms(&timers) > now);
    }
    gw_timers_run(&timers, 1000);
    for (int i = 0; i < 500; i++)
        assert_true(a[i].rung == (i % 7 != 0));
    assert_true(gw_timers_next_ms(&timers) == UINT64_MAX);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(confirm_then_verdict),
        TEST(verdict_before_confirm),
        TEST(deadline_after_confirm),
        TEST(deadline_before_confirm),
        TEST(outcomes),
        TEST(a_question_without_answer),
        TEST(dropped_and_full),
        TEST(timers_fire_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
