/* Golden traces of the agent's core: what it asks of the runtime and tells the router, step by step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/agent_model.h"
#include "wire/digest.h"

#define MIB (1 << 20)
#define QUARANTINE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_QUARANTINE

static int setup(void **state)
{
    static struct agent_model m;
    am_init(&m);
    am_boot(&m);
    am_link(&m, true);
    am_settle(&m);
    am_forget_trace(&m);
    *state = &m;
    return 0;
}

static int teardown(void **state)
{
    am_done(*state);
    return 0;
}

/* A running container u at generation 1, its result confirmed. */
static void given_running(struct agent_model *m)
{
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_confirm_all(m);
    am_settle(m);
    am_forget_trace(m);
}

static void create_persists_then_acts_then_reports(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_expect(m, ""); /* nothing before the intent is durable */
    assert_int_equal(m->batch_count, 1);
    am_sync(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\n");
    am_job_execute(m, 0);
    am_job_finish(m, 0);
    am_expect(m, ""); /* no result before it is durable */
    am_sync(m);
    am_expect(m, "send result u g1 op1 done running pid=100\n");
    assert_int_equal(m->durable.report_count, 1);
    am_confirm_all(m);
    am_sync(m);
    assert_int_equal(m->durable.report_count, 0);
}

static void duplicate_command_gets_the_stored_result(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_sync(m);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\nsend journalled u g1 op1\n");
    am_settle(m);
    am_expect(m, "send result u g1 op1 done running pid=100\n");
    am_ensure(m, "u", 1, "a", 64 * MIB); /* not confirmed yet: the same report again */
    am_expect(m, "send result u g1 op1 done running pid=100\n");
    am_confirm_all(m);
    am_ensure(m, "u", 1, "a", 64 * MIB); /* forgotten: a new report of the stored result */
    am_settle(m);
    am_expect(m, "send result u g1 op1 done running pid=100\n");
    assert_int_equal(am_calls(m, "u", 1, HA_JOB_CREATE), 1);
}

static void lower_generation_is_stale_and_lower_epoch_refused(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 5, "a");
    e.cmd.epoch = 7;
    am_command(m, &e.cmd);
    am_settle(m);
    am_forget_trace(m);
    e.cmd.generation = 4;
    am_command(m, &e.cmd);
    e.cmd.generation = 6;
    e.cmd.epoch = 6;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send result u g4 op5 stale code=9 latest=5\nsend result u g6 op5 refused code=9\n");
    assert_int_equal(m->durable.meta[HA_META_EPOCH], 7);
}

static void resize_in_place_keeps_the_process(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_ensure(m, "u", 2, "a", 128 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob resize u g2\nsend result u g2 op2 done running pid=100\n");
    assert_int_equal(am_find(m, "u")->memory_bytes, 128 * MIB);
}

static void resize_below_use_is_refused_and_changes_nothing(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    m->fail_next = HP_ECONFLICT;
    am_ensure(m, "u", 2, "a", 16 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob resize u g2\nsend result u g2 op2 refused code=9\n");
    am_ensure(m, "u", 3, "a", 128 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g3 op3\njob resize u g3\nsend result u g3 op3 done running pid=100\n");
}

static void stop_start_and_restart(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    given_running(m);
    am_ensure_init(&e, "u", 2, "a");
    e.spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob stop u g2\nsend result u g2 op2 done stopped\n");
    am_ensure_init(&e, "u", 3, "a");
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g3 op3\njob start u g3\nsend result u g3 op3 done running pid=101\n");
    am_ensure_init(&e, "u", 4, "a");
    e.cmd.restart_serial = 1;
    e.resources.memory_bytes = 96 * MIB;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g4 op4\njob resize u g4\njob restart u g4\nsend result u g4 op4 done running "
                 "pid=102\n");
    e.cmd.generation = 5; /* the same serial: nothing to do */
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g5 op4\nsend result u g5 op4 done running pid=102\n");
}

static void another_image_replaces_on_the_same_host(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_ensure(m, "u", 2, "b", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob remove u g2 replacing\njob create u g2 start\n"
                 "send result u g2 op2 done running pid=101\n");
}

static void remove_leaves_a_tombstone(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_remove(m, "u", 2);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob remove u g2\nsend result u g2 op2 done deleted\n");
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_remove(m, "u", 1);
    am_settle(m);
    am_expect(m, "send result u g1 op1 stale code=9 latest=2\nsend result u g2 op2 stale code=9 latest=2\n"
                 "send result u g1 op1 stale code=9 latest=2\n");
    am_remove(m, "u", 2);
    am_settle(m);
    am_expect(m, "send result u g2 op2 done deleted\n");
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 stale code=9 latest=2\n");
}

static void remove_of_nothing_is_done(void **state)
{
    struct agent_model *m = *state;
    am_remove(m, "u", 3);
    am_settle(m);
    am_expect(m, "send result u g3 op3 done deleted\n");
    am_ensure(m, "u", 3, "a", 64 * MIB); /* a create that was overtaken by its removal */
    am_settle(m);
    am_expect(m, "send result u g3 op3 stale code=9 latest=3\n");
}

static void failed_create_is_inspected_and_told_and_may_be_tried_again(void **state)
{
    struct agent_model *m = *state;
    m->fail_next = HP_EUNAVAILABLE;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\njob inspect u g1\n"
                 "send result u g1 op1 failed code=14 failed\n");
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_expect(m, "send result u g1 op1 failed code=14 failed\n");
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob create u g2 start\nsend result u g2 op2 done running pid=100\n");
}

static void commands_during_a_job_wait_and_the_latest_wins(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_sync(m);
    am_ensure(m, "u", 2, "a", 65 * MIB);
    am_ensure(m, "u", 3, "a", 66 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\nsend result u g2 op2 stale code=9 latest=3\n"
                 "send result u g1 op1 done running pid=100\n"
                 "send journalled u g3 op3\njob resize u g3\nsend result u g3 op3 done running pid=100\n");
    assert_int_equal(am_calls(m, "u", 2, HA_JOB_RESIZE), 0);
}

static void a_removal_that_waited_for_a_create_follows_it(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_sync(m);
    am_remove(m, "u", 2);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\nsend result u g1 op1 done running pid=100\n"
                 "send journalled u g2 op2\njob remove u g2\nsend result u g2 op2 done deleted\n");
}

static void memory_beyond_the_host_is_refused(void **state)
{
    struct agent_model *m = *state;
    am_crash(m);
    m->memory_max = 100 * MIB;
    am_boot(m);
    am_link(m, true);
    am_ensure(m, "u", 1, "a", 60 * MIB);
    am_ensure(m, "v", 1, "a", 60 * MIB); /* the first is only an intent, and counts */
    am_settle(m);
    am_expect(m, "send result v g1 op1 refused code=8\nsend journalled u g1 op1\njob create u g1 start\n"
                 "send result u g1 op1 done running pid=100\n");
    am_ensure(m, "u", 2, "a", 101 * MIB);
    am_ensure(m, "v", 1, "a", 40 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 refused code=8\nsend journalled v g1 op1\njob create v g1 start\n"
                 "send result v g1 op1 done running pid=101\n");
}

static void malformed_commands_are_refused(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 0, "a");
    am_command(m, &e.cmd);
    am_ensure_init(&e, "u", 1, "a");
    e.cmd.spec = NULL;
    am_command(m, &e.cmd);
    am_ensure_init(&e, "u", 1, "a");
    e.cmd.verb = (Harpoon__Internal__V1__CommandVerb)99;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send result u g0 op0 refused code=3\nsend result u g1 op1 refused code=3\n"
                 "send result u g1 op1 refused code=3\n");
    am_ensure_init(&e, "", 1, "a"); /* no uid: nobody to answer */
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "");
}

static void exits_restart_with_growing_delays(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 1, "a");
    e.policy.backoff_initial_ms = 100;
    e.policy.backoff_max_ms = 350;
    am_command(m, &e.cmd);
    am_settle(m);
    am_forget_trace(m);
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff\n");
    am_advance(m, 99);
    am_expect(m, "");
    am_advance(m, 1);
    am_settle(m);
    am_expect(m, "job start u g1\nsend observation u g1 restarted running pid=101 restarts=1\n");
    am_exit(m, "u", 137, true);
    am_settle(m);
    am_expect(m, "send observation u g1 oom_killed backoff restarts=1\n");
    assert_int_equal(ha_core_deadline_ms(m->core), m->now_ms + 200);
    am_advance(m, 200);
    am_settle(m);
    am_exit(m, "u", 1, false);
    assert_int_equal(ha_core_deadline_ms(m->core), m->now_ms + 350); /* bounded */
    am_advance(m, 350);
    am_settle(m);
    am_advance(m, 350); /* ran for long enough: the next delay is the first again */
    am_exit(m, "u", 1, false);
    assert_int_equal(ha_core_deadline_ms(m->core), m->now_ms + 100);
}

static void restart_modes_and_limits(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "never", 1, "a");
    e.policy.mode = HARPOON__V1__RESTART_MODE__RESTART_MODE_NEVER;
    am_command(m, &e.cmd);
    am_ensure_init(&e, "onfail", 1, "a");
    e.policy.mode = HARPOON__V1__RESTART_MODE__RESTART_MODE_ON_FAILURE;
    e.policy.max_restarts = 1;
    e.policy.backoff_initial_ms = 10;
    am_command(m, &e.cmd);
    am_settle(m);
    am_forget_trace(m);
    am_exit(m, "never", 3, false);
    am_settle(m);
    am_expect(m, "send observation never g1 exited failed\n");
    am_exit(m, "onfail", 3, false);
    am_advance(m, 10);
    am_settle(m);
    am_forget_trace(m);
    am_exit(m, "onfail", 4, false);
    am_settle(m);
    am_expect(m, "send observation onfail g1 exited failed restarts=1\n");
    am_ensure_init(&e, "onfail", 2, "a");
    e.policy.mode = HARPOON__V1__RESTART_MODE__RESTART_MODE_ON_FAILURE;
    e.cmd.restart_serial = 1;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m,
              "send journalled onfail g2 op2\njob start onfail g2\nsend result onfail g2 op2 done running pid=103\n");
    am_exit(m, "onfail", 0, false);
    am_settle(m);
    am_expect(m, "send observation onfail g2 exited stopped\n");
    am_ensure_init(&e, "onfail", 3, "a"); /* new limits do not run an ended job again */
    e.policy.mode = HARPOON__V1__RESTART_MODE__RESTART_MODE_ON_FAILURE;
    e.cmd.restart_serial = 1;
    e.resources.memory_bytes = 32 * MIB;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled onfail g3 op3\nsend result onfail g3 op3 done stopped\n");
}

static void a_failed_restart_is_tried_again(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_exit(m, "u", 1, false);
    am_settle(m);
    m->fail_next = HP_EIO;
    am_advance(m, 1000);
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff\njob start u g1\njob inspect u g1\n"
                 "send observation u g1 restart_failed backoff restarts=1\n");
    am_advance(m, 2000);
    am_settle(m);
    am_expect(m, "job start u g1\nsend observation u g1 restarted running pid=101 restarts=2\n");
}

static void health_checks_change_the_health_and_restart(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 1, "a");
    e.spec.health_check = &e.health;
    e.health.interval_ms = 200;
    e.health.failure_threshold = 2;
    e.health.restart_when_unhealthy = true;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m,
              "send journalled u g1 op1\njob create u g1 start\nsend result u g1 op1 done running pid=100 health=1\n");
    am_advance(m, 200);
    am_settle(m);
    am_expect(m, "job probe u g1\nsend observation u g1 healthy running pid=100 health=2\n");
    am_find(m, "u")->exit_code = 77; /* the model's mark for a process that is not well */
    am_advance(m, 200);
    am_settle(m);
    am_expect(m, "job probe u g1\n");
    am_advance(m, 200);
    am_settle(m);
    am_expect(m, "job probe u g1\njob restart u g1\nsend observation u g1 unhealthy running pid=100 health=3\n"
                 "send observation u g1 restarted running pid=101 restarts=1 health=1\n");
}

static void failures_in_the_start_period_do_not_count(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 1, "a");
    e.spec.health_check = &e.health;
    e.health.interval_ms = 100;
    e.health.failure_threshold = 1;
    e.health.start_period_ms = 1000;
    am_command(m, &e.cmd);
    am_settle(m);
    am_find(m, "u")->exit_code = 77;
    am_forget_trace(m);
    for (int i = 0; i < 9; i++) {
        am_advance(m, 100);
        am_settle(m);
    }
    am_expect(m, "job probe u g1\njob probe u g1\njob probe u g1\njob probe u g1\njob probe u g1\njob probe u g1\n"
                 "job probe u g1\njob probe u g1\njob probe u g1\n");
    am_advance(m, 100);
    am_settle(m);
    am_expect(m, "job probe u g1\nsend observation u g1 unhealthy running pid=100 health=3\n");
}

static void an_exit_during_a_probe_or_a_job_is_not_lost(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    am_ensure_init(&e, "u", 1, "a");
    e.spec.health_check = &e.health;
    am_command(m, &e.cmd);
    am_settle(m);
    am_forget_trace(m);
    am_advance(m, 10000);
    am_exit(m, "u", 9, false);
    am_expect(m, "job probe u g1\n");
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff\n");
    am_advance(m, 1000);
    am_job_execute(m, 0);
    am_exit(m, "u", 9, false); /* the new process, before the end of the job was told */
    am_forget_trace(m);
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff restarts=1\n");
}

static void unknown_containers_are_quarantined_and_never_touched(void **state)
{
    struct agent_model *m = *state;
    am_crash(m);
    am_find(m, "x")->exists = true;
    am_find(m, "x")->running = true;
    am_find(m, "x")->pid = 55;
    am_find(m, "x")->ticks = 550;
    am_find(m, "x")->generation = 4;
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "send observation x g0 quarantined running pid=55\n");
    am_ensure(m, "x", 5, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result x g5 op5 refused code=9\n");
    am_exit(m, "x", 1, false);
    am_settle(m);
    am_expect(m, "send observation x g0 exited stopped\n");
    assert_int_equal(ha_core_deadline_ms(m->core), UINT64_MAX);
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_remove(m, "x", 6);
    am_settle(m);
    am_expect(m, "send journalled x g6 op6\njob remove x g6\nsend result x g6 op6 done deleted\n");
}

static void the_command_that_made_an_unknown_container_adopts_it(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_crash(m);
    ha_image_done(&m->durable); /* the journal was moved aside */
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "send observation u g0 quarantined running pid=100\n");
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob resize u g1\nsend result u g1 op1 done running pid=100\n");
    assert_int_equal(am_calls(m, "u", 1, HA_JOB_CREATE), 1);
}

static void a_later_command_adopts_what_differs_in_place_only(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_crash(m);
    ha_image_done(&m->durable);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 3, "b", 64 * MIB); /* another image: not this container */
    am_settle(m);
    am_expect(m, "send result u g3 op3 refused code=9\n");
    am_ensure(m, "u", 4, "a", 80 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g4 op4\njob resize u g4\nsend result u g4 op4 done running pid=100\n");
    assert_int_equal(am_find(m, "u")->memory_bytes, 80 * MIB);
}

static void quarantine_by_command(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_verb(m, "u", 0, QUARANTINE, 1);
    am_verb(m, "v", 0, QUARANTINE, 1);
    am_settle(m);
    am_expect(m, "send result u g0 op0 done running pid=100\nsend result v g0 op0 refused code=5\n");
    am_exit(m, "u", 1, false);
    am_advance(m, 100000);
    am_settle(m);
    am_expect(m, "send observation u g1 exited stopped\n"); /* and no restart */
    am_inventory(m);
    am_expect(m, "send inventory 9 last\n  u g1 quarantined stopped\n");
}

static void results_wait_for_the_link_and_are_sent_again(void **state)
{
    struct agent_model *m = *state;
    am_link(m, false);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "job create u g1 start\n");
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_advance(m, 1000);
    am_settle(m); /* "exited" was not seen by anybody: "restarted" takes its place */
    am_expect(m, "job start u g1\n");
    am_link(m, true);
    am_expect(m, "send result u g1 op1 done running pid=100\n"
                 "send observation u g1 restarted running pid=101 restarts=1\n");
    am_link(m, false);
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "job inspect u g1\nsend result u g1 op1 done running pid=100\n"
                 "send observation u g1 restarted running pid=101 restarts=1\n");
    am_confirm_all(m);
    am_settle(m);
    am_link(m, true);
    am_expect(m, "");
}

static void sessions_grow_and_are_durable_first(void **state)
{
    struct agent_model *m = *state;
    struct ha_event ev = {.kind = HA_EV_SESSION_WANTED, .now_ms = m->now_ms, .wall_ns = 5000000};
    assert_int_equal(ha_core_step(m->core, &ev, &m->fx), 0);
    assert_int_equal(m->fx.count, 0);
    assert_int_equal(m->fx.write_count, 1);
    assert_int_equal(m->fx.writes[0].number, 5);
    ev = (struct ha_event){.kind = HA_EV_SYNCED, .now_ms = m->now_ms, .synced_seq = m->fx.write_seq};
    assert_int_equal(ha_core_step(m->core, &ev, &m->fx), 0);
    assert_int_equal(m->fx.effects[0].session, 5);
    ev = (struct ha_event){
        .kind = HA_EV_SESSION_WANTED, .now_ms = m->now_ms, .wall_ns = 1000000}; /* the clock went back */
    assert_int_equal(ha_core_step(m->core, &ev, &m->fx), 0);
    assert_int_equal(m->fx.writes[0].number, 6);
}

static void digest_counts_what_is_confirmed(void **state)
{
    struct agent_model *m = *state;
    int32_t count;
    uint64_t digest;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_ensure(m, "v", 2, "a", 64 * MIB);
    am_settle(m);
    ha_core_digest(m->core, &count, &digest);
    assert_int_equal(count, 0);
    am_confirm_all(m);
    am_settle(m);
    ha_core_digest(m->core, &count, &digest);
    assert_int_equal(count, 2);
    assert_int_equal(digest, hp_inventory_item_digest("u", 1, 1, 3) ^ hp_inventory_item_digest("v", 2, 1, 3));
    am_remove(m, "v", 3);
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_crash(m); /* the digest survives; nothing of this was confirmed */
    am_boot(m);
    ha_core_digest(m->core, &count, &digest);
    assert_int_equal(count, 2);
    assert_int_equal(digest, hp_inventory_item_digest("u", 1, 1, 3) ^ hp_inventory_item_digest("v", 2, 1, 3));
    am_link(m, true);
    am_confirm_all(m);
    am_settle(m);
    am_confirm_all(m);
    ha_core_digest(m->core, &count, &digest);
    assert_int_equal(count, 1);
    assert_int_equal(digest, hp_inventory_item_digest("u", 1, 1, 5));
}

static void digest_item_is_the_documented_one(void **state)
{
    /* printf 'u/1/1/3' | sha256sum | cut -c1-16 */
    assert_int_equal(hp_inventory_item_digest("u", 1, 1, 3), 0x1589566268116ff7U);
}

static void inventory_lists_everything(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_settle(m);
    am_remove(m, "v", 2);
    am_settle(m);
    am_forget_trace(m);
    am_inventory(m);
    am_expect(m, "send inventory 9 last\n  u g1 running pid=100\n  v g2 tombstone\n");
    am_confirm_all(m);
    am_inventory(m);
    am_expect(m, "send inventory 9 last\n  u g1 running pid=100\n");
}

static void reattaches_to_what_runs_and_notices_what_ended(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_settle(m);
    am_confirm_all(m);
    am_settle(m);
    am_crash(m);
    am_exit(m, "v", 5, false); /* nobody watches */
    am_forget_trace(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "job inspect u g1\njob inspect v g1\nsend observation v g1 exited backoff\n");
    am_exit(m, "u", 1, false); /* watched again */
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(create_persists_then_acts_then_reports),
        T(duplicate_command_gets_the_stored_result),
        T(lower_generation_is_stale_and_lower_epoch_refused),
        T(resize_in_place_keeps_the_process),
        T(resize_below_use_is_refused_and_changes_nothing),
        T(stop_start_and_restart),
        T(another_image_replaces_on_the_same_host),
        T(remove_leaves_a_tombstone),
        T(remove_of_nothing_is_done),
        T(failed_create_is_inspected_and_told_and_may_be_tried_again),
        T(commands_during_a_job_wait_and_the_latest_wins),
        T(a_removal_that_waited_for_a_create_follows_it),
        T(memory_beyond_the_host_is_refused),
        T(malformed_commands_are_refused),
        T(exits_restart_with_growing_delays),
        T(restart_modes_and_limits),
        T(a_failed_restart_is_tried_again),
        T(health_checks_change_the_health_and_restart),
        T(failures_in_the_start_period_do_not_count),
        T(an_exit_during_a_probe_or_a_job_is_not_lost),
        T(unknown_containers_are_quarantined_and_never_touched),
        T(the_command_that_made_an_unknown_container_adopts_it),
        T(a_later_command_adopts_what_differs_in_place_only),
        T(quarantine_by_command),
        T(results_wait_for_the_link_and_are_sent_again),
        T(sessions_grow_and_are_durable_first),
        T(digest_counts_what_is_confirmed),
        T(digest_item_is_the_documented_one),
        T(inventory_lists_everything),
        T(reattaches_to_what_runs_and_notices_what_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
