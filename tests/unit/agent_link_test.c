/* The agent's link against a router in the same loop: attach, work, lose the router, move to another, leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fleet_sim/sim_host.h"
#include "io/loop.h"
#include "lib/agent_model.h"
#include "lib/fake_router.h"
#include "wire/digest.h"

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* the loop turns at least every few ms, so that conditions are looked at */
    struct sim_fleet fleet;
    struct fake_router a, b;
    const char *addresses[2];
    struct sim_host *host;
};

static void on_tick(uv_timer_t *t)
{
}

static void on_changed(struct sim_fleet *f)
{
}

#define WAIT_FOR(w, condition)                                                                                         \
    do {                                                                                                               \
        uint64_t end_ = hp_now_ms() + 10000;                                                                           \
        while (!(condition)) {                                                                                         \
            assert_true(hp_now_ms() < end_);                                                                           \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                                           \
        }                                                                                                              \
    } while (0)

static int setup(void **state)
{
    static struct world w;
    struct hp_error e = {0};
    memset(&w, 0, sizeof w);
    uv_loop_init(&w.loop);
    uv_timer_init(&w.loop, &w.tick);
    uv_timer_start(&w.tick, on_tick, 5, 5);
    fake_router_open(&w.a, &w.loop);
    fake_router_open(&w.b, &w.loop);
    assert_int_equal(sim_fleet_init(&w.fleet, &w.loop, 3, NULL, &e), 0);
    w.fleet.create_ms = 4;
    w.fleet.cpu_millis = 1000;
    w.fleet.changed_cb = on_changed;
    w.addresses[0] = w.a.address;
    w.addresses[1] = w.b.address;
    *state = &w;
    return 0;
}

static void add_host(struct world *w, size_t routers)
{
    struct hp_error e = {0};
    struct ha_link_options link = {.routers = w->addresses, .router_count = routers};
    assert_int_equal(sim_host_new(&w->fleet, "r1", "h1", NULL, &link, &w->host, &e), 0);
}

static int teardown(void **state)
{
    struct world *w = *state;
    sim_host_close(w->host);
    WAIT_FOR(w, w->fleet.closed == 1);
    fake_router_close(&w->a);
    fake_router_close(&w->b);
    sim_fleet_close(&w->fleet);
    uv_close((uv_handle_t *)&w->tick, NULL);
    while (uv_run(&w->loop, UV_RUN_ONCE))
        ;
    assert_int_equal(w->a.open + w->b.open, 0);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    return 0;
}

static void attaches_runs_a_command_and_forgets_what_is_confirmed(void **state)
{
    struct world *w = *state;
    struct am_ensure e;
    add_host(w, 1);
    WAIT_FOR(w, w->fleet.attached == 1);
    assert_string_equal(w->a.sessions[0].host, "h1");
    am_ensure_init(&e, "u", 1, "a");
    fake_router_command(&w->a, &e.cmd);
    WAIT_FOR(w, w->a.heard_count == 1);
    const Harpoon__Internal__V1__CommandResult *r = w->a.heard[0]->result;
    assert_int_equal(r->outcome, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE);
    assert_int_equal(r->status->state, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING);
    assert_string_equal(r->status->host, "regions/r1/hosts/h1");
    assert_int_equal(w->fleet.creates, 1);
    fake_router_cut(&w->a);
    WAIT_FOR(w, w->a.hellos == 2 && w->fleet.attached == 1);
    assert_true(w->a.sessions[1].session > w->a.sessions[0].session);
    assert_int_equal(w->a.last_digest, hp_inventory_item_digest("u", 1, 1, 3));
    assert_int_equal(w->a.heard_count, 1); /* confirmed: not sent again */
}

static void unconfirmed_results_come_again_at_another_router(void **state)
{
    struct world *w = *state;
    struct am_ensure e;
    w->a.no_confirm = w->b.no_confirm = true;
    add_host(w, 2);
    WAIT_FOR(w, w->fleet.attached == 1);
    struct fake_router *first = w->a.hellos ? &w->a : &w->b, *second = first == &w->a ? &w->b : &w->a;
    am_ensure_init(&e, "u", 1, "a");
    fake_router_command(first, &e.cmd);
    WAIT_FOR(w, first->heard_count == 1);
    fake_router_stop_listening(first);
    fake_router_cut(first);
    WAIT_FOR(w, second->heard_count == 1);
    assert_int_equal(second->heard[0]->result->report_id, first->heard[0]->result->report_id);
}

static void a_draining_router_is_left_only_when_another_is_up(void **state)
{
    struct world *w = *state;
    struct am_ensure e;
    add_host(w, 2);
    WAIT_FOR(w, w->fleet.attached == 1);
    struct fake_router *first = w->a.hellos ? &w->a : &w->b, *second = first == &w->a ? &w->b : &w->a;
    second->mute = true;
    fake_router_drain(first);
    WAIT_FOR(w, second->hellos == 1);
    am_ensure_init(&e, "u", 1, "a"); /* the old one still works */
    fake_router_command(first, &e.cmd);
    WAIT_FOR(w, first->heard_count == 1);
    assert_false(first->sessions[0].goodbye);
    second->mute = false;
    fake_router_cut(second);
    WAIT_FOR(w, second->hellos == 2 && first->sessions[0].goodbye && first->open == 0);
    assert_true(second->sessions[1].session > first->sessions[0].session);
    assert_int_equal(w->fleet.attached, 1);
    am_ensure_init(&e, "v", 1, "a");
    fake_router_command(second, &e.cmd);
    WAIT_FOR(w, second->heard_count == 1);
}

static void a_refusal_leads_to_the_next_router(void **state)
{
    struct world *w = *state;
    w->a.refuse = true;
    add_host(w, 2);
    WAIT_FOR(w, w->fleet.attached == 1);
    assert_int_equal(w->b.hellos, 1);
}

static void heartbeats_and_metrics_keep_their_pace_and_silence_is_noticed(void **state)
{
    struct world *w = *state;
    w->a.heartbeat_ms = 100;
    w->a.metrics_ms = 100000;
    w->a.echo_heartbeats = true;
    add_host(w, 1);
    WAIT_FOR(w, w->a.session_count > 0 && w->a.sessions[0].heartbeats >= 3);
    w->a.echo_heartbeats = false;
    WAIT_FOR(w, w->a.hellos == 2); /* the silent connection was given up */
}

/* A connection that went dead between the welcome and the router's first heartbeat was kept for ever: silence counted only after one had come. */
static void a_router_that_is_silent_from_the_welcome_on_is_given_up(void **state)
{
    struct world *w = *state;
    w->a.heartbeat_ms = 100;
    add_host(w, 1);
    WAIT_FOR(w, w->a.hellos == 2);
}

static void metrics_are_sent(void **state)
{
    struct world *w = *state;
    w->a.metrics_ms = 50;
    add_host(w, 1);
    WAIT_FOR(w, w->a.session_count > 0 && w->a.sessions[0].metrics >= 3);
}

/* Every frame of an idle agent wakes the router: it sent metrics every five seconds, and a heartbeat before each of them. */
static void a_heartbeat_gives_way_to_metrics_but_not_for_long(void **state)
{
    const uint64_t never = UINT64_MAX;
    (void)state;
    assert_int_equal(ha_link_heartbeat_due(10000, 800, never, 0), 10700);     /* no metrics */
    assert_int_equal(ha_link_heartbeat_due(10000, 800, 10800, 10000), 10900); /* they come in time */
    assert_int_equal(ha_link_heartbeat_due(10000, 800, 10801, 10000), 10700); /* not in time */
    assert_int_equal(ha_link_heartbeat_due(10000, 800, 10300, 0), 10400);     /* or earlier, and do not go out */
    assert_int_equal(ha_link_heartbeat_due(10000, 800, 11600, 10800), 10900); /* asked for: on their way */
    assert_int_equal(ha_link_heartbeat_due(10000, 800, 11600, 10500), 10700); /* asked for, and long since not there */
    for (uint64_t asked = 10000; asked < 13000; asked += 50)
        assert_true(ha_link_heartbeat_due(10000, 800, asked + 50, asked) <= 10900); /* asked for ever again */
    assert_int_equal(ha_link_heartbeat_due(10800, 800, 11600, 10800), 11700);       /* sent: all anew */
}

static void garbage_from_the_router_ends_the_connection_only(void **state)
{
    struct world *w = *state;
    static const uint8_t frames[][12] = {{0, 0, 0, 0}, {0xFF, 0xFF, 0xFF, 0xFF}, {0, 0, 0, 2, 0xFF, 0xFF}};
    static const size_t lens[] = {4, 4, 6};
    add_host(w, 1);
    for (int i = 0; i < 3; i++) {
        WAIT_FOR(w, w->a.hellos == i + 1 && w->fleet.attached == 1);
        fake_router_send_raw(&w->a, frames[i], lens[i]);
        WAIT_FOR(w, w->a.hellos == i + 2);
    }
    WAIT_FOR(w, w->fleet.attached == 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(attaches_runs_a_command_and_forgets_what_is_confirmed),
        T(unconfirmed_results_come_again_at_another_router),
        T(a_draining_router_is_left_only_when_another_is_up),
        T(a_refusal_leads_to_the_next_router),
        T(heartbeats_and_metrics_keep_their_pace_and_silence_is_noticed),
        T(a_router_that_is_silent_from_the_welcome_on_is_given_up),
        T(metrics_are_sent),
        cmocka_unit_test(a_heartbeat_gives_way_to_metrics_but_not_for_long),
        T(garbage_from_the_router_ends_the_connection_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
