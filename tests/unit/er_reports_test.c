/* The router's core, as in er_core_test.c: what agents report and what becomes of it, heartbeats, metrics, the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/er_world.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
#define heartbeat(w, link) assert_int_equal(erw_send_empty(w, link, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), 0)
#define metrics(w, link) assert_int_equal(erw_send_empty(w, link, V1(AGENT_MESSAGE__BODY_METRICS)), 0)
typedef Harpoon__Internal__V1__AgentMessage pb_agent;

/* ---- Reports ---- */

static void confirms_are_passed_on_in_order_and_together(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    for (int64_t id = 1; id <= 4; id++)
        erw_observe(&w, 1, id);
    erw_expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\n"
                   "publish h1#5 observation 3\npublish h1#5 observation 4\n");
    erw_outcome(&w, 1, ER_CONFIRMED); /* 2: 1 is still open */
    erw_expect(&w, "");
    erw_outcome(&w, 0, ER_CONFIRMED); /* 1 */
    erw_outcome(&w, 0, ER_CONFIRMED); /* 3 */
    erw_expect(&w, "1< confirmed 1 2 3\n");
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_expect(&w, "1< confirmed 4\n");
    erw_done(&w);
}

/* A report that was not confirmed must not be overtaken by a newer one for good. */
static void failed_report_is_repeated_with_all_that_follow(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    for (int64_t id = 1; id <= 3; id++)
        erw_observe(&w, 1, id);
    erw_forget(&w);
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_outcome(&w, 0, ER_FAILED); /* 2 */
    erw_observe(&w, 1, 4);
    erw_expect(&w, "");               /* 3 is still under way */
    erw_outcome(&w, 0, ER_CONFIRMED); /* 3 */
    erw_pass(&w, ER_RETRY_MS);
    erw_expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\n"
                   "publish h1#5 observation 3\npublish h1#5 observation 4\n");
    erw_confirm_all(&w);
    erw_expect(&w, "1< confirmed 1 2 3 4\n");
    erw_done(&w);
}

static void refused_publishes_are_not_hurried(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_observe(&w, 1, 1);
    int attempts = 0;
    for (uint64_t end = w.now + 30000; w.now < end;) {
        erw_end_turn(&w);
        while (w.pending_count) {
            erw_outcome(&w, 0, ER_FAILED);
            attempts++;
        }
        heartbeat(&w, 1);
        erw_pass(&w, 10);
    }
    assert_in_range(attempts, 8, 14); /* 100 ms, doubled up to 5 s */
    erw_forget(&w);
    erw_pass(&w, ER_RETRY_MAX_MS);
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_end_turn(&w);
    assert_non_null(strstr(w.trace, "1< confirmed 1\n"));
    erw_done(&w);
}

static void sessions_outlive_the_broker_and_are_announced_again(void **state)
{
    struct erw w;
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_attach(&w, 2, "h2", 8);
    erw_end_turn(&w);
    erw_confirm_all(&w);
    d.count = 4;
    d.digest = 99;
    m.body_case = V1(AGENT_MESSAGE__BODY_DIGEST);
    m.digest = &d;
    erw_feed(&w, 1, &m);
    erw_observe(&w, 1, 1);
    erw_forget(&w);
    erw_broker(&w, false);
    erw_outcome(&w, 0, ER_FAILED);
    erw_outcome(&w, 0, ER_FAILED);
    erw_observe(&w, 1, 2);
    erw_disconnect(&w, 2);
    erw_attach(&w, 3, "h3", 1);
    erw_expect(&w, "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n");
    erw_pass(&w, 2000);
    erw_expect(&w, "");
    erw_broker(&w, true);
    erw_expect(&w, "publish h2#8 detach connection_lost\n"
                   "publish h1#5 attach zone=z1 digest=4/99\n"
                   "publish h1#5 digest 4/99\n"
                   "publish h1#5 observation 1\n"
                   "publish h1#5 observation 2\n"
                   "publish h3#1 attach zone=z1 digest=3/77\n");
    erw_confirm_all(&w);
    erw_expect(&w, "1< confirmed 1 2\n");
    erw_announce(&w);
    erw_expect(&w, "publish h1#5 attach zone=z1 digest=4/99\n"
                   "publish h3#1 attach zone=z1 digest=3/77\n");
    erw_done(&w);
}

static void host_that_cannot_be_heard_by_the_broker_is_paused(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_broker(&w, false);
    for (int64_t id = 1; id <= ER_REPORTS_MAX; id++)
        assert_int_equal(erw_observe(&w, 1, id), 0);
    erw_expect(&w, "1 pause\n");
    erw_pass(&w, 60000); /* it is us who do not listen: the host is not lost */
    w.quiet = true;
    erw_forget(&w);
    erw_broker(&w, true);
    for (int i = 0; i < 10; i++) {
        erw_end_turn(&w);
        erw_confirm_all(&w);
    }
    erw_expect(&w, "1 resume\n");
    erw_done(&w);
}

static void reports_of_a_lost_host_still_leave(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_observe(&w, 1, 1);
    erw_observe(&w, 1, 2);
    erw_disconnect(&w, 1);
    erw_expect(&w, "publish h1#5 observation 1\npublish h1#5 observation 2\npublish h1#5 detach connection_lost\n");
    erw_outcome(&w, 0, ER_FAILED); /* the agent will repeat it */
    erw_outcome(&w, 1, ER_FAILED); /* the detach is ours to repeat */
    erw_pass(&w, ER_RETRY_MS);
    erw_expect(&w, "publish h1#5 detach connection_lost\n");
    erw_done(&w);
}

/* A report that the scheduler does not take would end as a dead letter: an agent that makes such is told why, and goes. */
static void what_is_beyond_the_limits_is_refused(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    assert_int_equal(erw_observe(&w, 1, 0), HP_ECANCELED);
    erw_expect(&w, "1< refused 3 retry: observation.report_id: 0 is not above 0\n1 close\n"
                   "publish h1#5 detach protocol_error\n");
    erw_attach(&w, 2, "h1", 6);
    erw_forget(&w);
    assert_int_equal(erw_result(&w, 2, 1, "u1", INT64_C(1) << 31), HP_ECANCELED);
    erw_expect(&w, "2< refused 3 retry: result.generation: 2147483648 is over 1073741824\n2 close\n"
                   "publish h1#6 detach protocol_error\n");
    erw_done(&w);
}

/* ---- Heartbeats, metrics, the end ---- */

static void heartbeats_go_both_ways(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_pass(&w, 5300);
    erw_expect(&w, "metrics h1#5\n1< heartbeat\n");
    erw_pass(&w, 5300);
    erw_expect(&w, "1< heartbeat\n");
    heartbeat(&w, 1);
    erw_pass(&w, 14900);
    erw_expect(&w, "metrics h1#5\n1< heartbeat\n1< heartbeat\n1< heartbeat\n");
    erw_pass(&w, 600);
    erw_expect(&w, "1 close\npublish h1#5 detach heartbeat_missed\n");
    erw_done(&w);
}

static void metrics_are_batched(void **state)
{
    struct erw w;
    struct er_options o = erw_defaults;
    (void)state;
    o.heartbeat_ms = 60000;
    erw_one_host(&w, &o);
    erw_attach(&w, 2, "h2", 8);
    erw_pass(&w, 1000);
    erw_forget(&w);
    heartbeat(&w, 2);
    metrics(&w, 1);
    heartbeat(&w, 1);
    heartbeat(&w, 2);
    for (int i = 0; i < 10; i++)
        metrics(&w, 2);
    erw_expect(&w, "");
    erw_pass(&w, ER_METRICS_BATCH_MS);
    erw_expect(&w, "metrics h2#8 h1#5+ h2#8+ h2#8+ h2#8+ h2#8+\n"); /* the rest is too much */
    erw_pass(&w, 2000);
    erw_expect(&w, ""); /* nothing was heard: no batch */
    erw_broker(&w, false);
    metrics(&w, 1);
    erw_pass(&w, ER_METRICS_BATCH_MS);
    erw_broker(&w, true);
    erw_forget(&w);
    metrics(&w, 1);
    erw_pass(&w, ER_METRICS_BATCH_MS);
    erw_expect(&w, "metrics h1#5+\n"); /* what was for the absent broker is gone */
    erw_done(&w);
}

static void large_batches_are_split(void **state)
{
    struct erw w;
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentMetrics am = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    Harpoon__Internal__V1__ContainerMetrics cm = HARPOON__INTERNAL__V1__CONTAINER_METRICS__INIT;
    Harpoon__Internal__V1__ContainerMetrics *list[3000];
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_pass(&w, 1000);
    erw_forget(&w);
    cm.uid = (char *)(uintptr_t) "0123456789abcdefghjkmnpqrs";
    cm.memory_bytes_used = 1;
    for (size_t i = 0; i < 3000; i++)
        list[i] = &cm;
    am.containers = list;
    am.n_containers = 3000;
    m.body_case = V1(AGENT_MESSAGE__BODY_METRICS);
    m.metrics = &am;
    w.quiet = true;
    for (int i = 0; i < 3; i++)
        erw_feed(&w, 1, &m);
    erw_expect(&w, "metrics of 2\n");
    erw_pass(&w, ER_METRICS_BATCH_MS);
    erw_expect(&w, "metrics of 1\n");
    erw_done(&w);
}

static void slow_hosts_and_broken_frames_are_cut(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_attach(&w, 2, "h2", 8);
    erw_end_turn(&w);
    erw_confirm_all(&w);
    erw_forget(&w);
    er_core_too_slow(w.core, w.now, w.session[1]);
    er_core_too_slow(w.core, w.now, w.session[1]);
    er_core_frame_error(w.core, w.now, w.session[2], &(struct hp_error){HP_EPROTO, "length 0"});
    erw_expect(&w, "1 close\n2 close\npublish h1#5 detach too_slow\npublish h2#8 detach protocol_error\n");
    erw_command(&w, "h1", 5, "u1", 1, 0);
    erw_expect(&w, "publish h1#5 undelivered u1/1 no_session\n");
    erw_done(&w);
}

static void goodbye_detaches_at_once(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    assert_int_equal(erw_send_empty(&w, 1, V1(AGENT_MESSAGE__BODY_GOODBYE)), HP_ECANCELED);
    erw_expect(&w, "1 close\npublish h1#5 detach goodbye\n");
    erw_done(&w);
}

static void drain_moves_agents_and_waits_for_the_broker(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_attach(&w, 2, "h2", 8);
    erw_end_turn(&w);
    erw_confirm_all(&w);
    erw_connect(&w, 3, NULL); /* has not said hello */
    erw_forget(&w);
    er_core_drain(w.core, w.now);
    erw_expect(&w, "3 close\n2< draining 10000\n1< draining 10000\n");
    erw_disconnect(&w, 3);
    erw_connect(&w, 4, NULL);
    assert_null(w.session[4]); /* nobody new */
    erw_pass(&w, 1000);
    erw_forget(&w);
    erw_disconnect(&w, 1);                /* it has moved */
    erw_command(&w, "h2", 8, "u1", 1, 0); /* the other one works on */
    erw_observe(&w, 2, 1);
    erw_expect(&w, "2< command u1/1\npublish h1#5 detach router_draining\npublish h2#8 observation 1\n");
    erw_confirm_all(&w);
    erw_expect(&w, "2< confirmed 1\n");
    heartbeat(&w, 2);
    erw_pass(&w, 4000);
    heartbeat(&w, 2);
    erw_forget(&w);
    erw_pass(&w, 5200);
    erw_end_turn(&w);
    assert_non_null(strstr(w.trace, "2 close\npublish h2#8 detach router_draining\n"));
    erw_forget(&w);
    erw_disconnect(&w, 2);
    erw_expect(&w, ""); /* the detach is not confirmed */
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_expect(&w, "drained\n");
    erw_pass(&w, 20000);
    erw_expect(&w, "");
    erw_done(&w);
}

static void drain_does_not_wait_for_ever(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    er_core_drain(w.core, w.now);
    erw_forget(&w);
    erw_pass(&w, 10100);
    erw_end_turn(&w);
    erw_disconnect(&w, 1);
    erw_forget(&w);
    erw_pass(&w, 6000); /* the broker does not answer */
    erw_expect(&w, "drained\n");
    erw_done(&w);

    erw_one_host(&w, &erw_defaults);
    erw_broker(&w, false);
    er_core_drain(w.core, w.now);
    erw_disconnect(&w, 1);
    erw_expect(&w, "1< draining 10000\ndrained\n"); /* nobody could confirm anything */
    erw_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(confirms_are_passed_on_in_order_and_together),
        cmocka_unit_test(failed_report_is_repeated_with_all_that_follow),
        cmocka_unit_test(refused_publishes_are_not_hurried),
        cmocka_unit_test(sessions_outlive_the_broker_and_are_announced_again),
        cmocka_unit_test(host_that_cannot_be_heard_by_the_broker_is_paused),
        cmocka_unit_test(reports_of_a_lost_host_still_leave),
        cmocka_unit_test(what_is_beyond_the_limits_is_refused),
        cmocka_unit_test(heartbeats_go_both_ways),
        cmocka_unit_test(metrics_are_batched),
        cmocka_unit_test(large_batches_are_split),
        cmocka_unit_test(slow_hosts_and_broken_frames_are_cut),
        cmocka_unit_test(goodbye_detaches_at_once),
        cmocka_unit_test(drain_moves_agents_and_waits_for_the_broker),
        cmocka_unit_test(drain_does_not_wait_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
