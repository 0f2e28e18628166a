/* gw_publishing_test.c — a change on its way to the broker: sent so that "accepted" can be believed. hp_publish is this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shell/publishing.h"

static struct hp_publish *sent;
static enum gw_published outcome;
static int outcomes;

void hp_publish(struct hp_publisher *p, struct hp_publish *m)
{
    sent = m;
}

static void on_done(struct gw_publishing *p, enum gw_published o)
{
    outcome = o;
    outcomes++;
}

static struct gw_region region = {.name = "r1", .requests = "requests.r1"};
static struct gw_gateway gw = {.region = &region};
static uint8_t body[] = "packed";
static struct gw_prepared change = {.operation_id = "0123", .body = body, .body_len = sizeof body};
static struct gw_publishing publishing;

static int setup(void **state)
{
    strcpy(gw.reply_topology.own, "reply.g1");
    publishing = (struct gw_publishing){0};
    change.transient = false;
    sent = NULL;
    outcomes = 0;
    return 0;
}

/* A message for a queue that is not there is confirmed like any other, unless it is mandatory; one that is not persistent is gone with the broker. */
static void a_change_is_mandatory_and_persistent(void **state)
{
    gw_publish(&gw, &publishing, &change, "17", on_done);
    assert_non_null(sent);
    assert_true(sent->mandatory);
    assert_true(sent->persistent);
    assert_string_equal(sent->exchange, "");
    assert_string_equal(sent->routing_key, "requests.r1");
    assert_string_equal(sent->message_id, "0123");
    assert_string_equal(sent->type, "harpoon.internal.v1.Request");
    assert_string_equal(sent->reply_to, "reply.g1");
    assert_string_equal(sent->correlation_id, "17");
    assert_ptr_equal(sent->body, body);
    assert_int_equal(sent->body_len, sizeof body);
    assert_int_equal(outcomes, 0); /* not from inside */
}

static void without_a_verdict_nothing_is_asked_for(void **state)
{
    gw_publish(&gw, &publishing, &change, NULL, on_done);
    assert_null(sent->reply_to);
    assert_null(sent->correlation_id);
    change.transient = true; /* a question: nothing of it need survive the broker */
    gw_publish(&gw, &publishing, &change, "18", on_done);
    assert_false(sent->persistent);
    assert_true(sent->mandatory);
}

static void only_a_confirm_is_an_acceptance(void **state)
{
    static const struct {
        enum hp_publish_outcome from;
        enum gw_published to;
    } rows[] = {{HP_PUBLISH_CONFIRMED, GW_PUBLISHED},
                {HP_PUBLISH_REJECTED, GW_QUEUE_FULL},
                {HP_PUBLISH_RETURNED, GW_NO_QUEUE},
                {HP_PUBLISH_UNAVAILABLE, GW_NOT_SENT},
                {HP_PUBLISH_UNKNOWN, GW_OUTCOME_UNKNOWN}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gw_publish(&gw, &publishing, &change, NULL, on_done);
        sent->done_cb(sent, rows[i].from);
        assert_int_equal(outcome, rows[i].to);
        assert_int_equal(outcomes, (int)i + 1);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(a_change_is_mandatory_and_persistent),
        T(without_a_verdict_nothing_is_asked_for),
        T(only_a_confirm_is_an_acceptance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
