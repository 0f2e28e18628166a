/* Golden traces of the agent's core: what commands make it ask of the runtime and tell the router, step by step. */
#include <stdio.h>

#include "lib/agent_test.h"

static void create_persists_then_acts_then_reports(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_expect(m, ""); /* nothing before the intent is durable */
    assert_int_equal(m->journal.batch_count, 1);
    am_sync(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\n");
    am_job_execute(m, 0);
    am_job_finish(m, 0);
    am_expect(m, ""); /* no result before it is durable */
    am_sync(m);
    am_expect(m, "send result u g1 op1 done running pid=100\n");
    assert_int_equal(m->journal.durable.report_count, 1);
    am_confirm_all(m);
    am_sync(m);
    assert_int_equal(m->journal.durable.report_count, 0);
}

/* The journal works in steps: that one of them is durable says nothing of the later ones. */
static void each_intent_waits_for_its_own_sync(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_ensure(m, "v", 1, "a", 64 * MIB);
    assert_int_equal(m->journal.batch_count, 2);
    am_sync_first(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\n");
    am_sync(m);
    am_expect(m, "send journalled v g1 op1\njob create v g1 start\n");
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
    assert_int_equal(m->journal.durable.meta[HA_META_EPOCH], 7);
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
    am_expect(m,
              "send result u g1 op1 stale code=9 latest=2 deleted\nsend result u g2 op2 stale code=9 latest=2 deleted\n"
              "send result u g1 op1 stale code=9 latest=2 deleted\n");
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
    am_expect(m, "send result u g2 op2 stale code=9 latest=2 deleted\n");
}

/* The broker has the removal's result, and a command from before may still come: it must find that the container is no more. */
static void a_tombstone_outlives_its_confirmation(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_remove(m, "u", 2);
    am_settle(m);
    am_confirm_all(m);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result u g1 op1 stale code=9 latest=2 deleted\n");
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 stale code=9 latest=2 deleted\n");
    assert_int_equal(am_calls(m, "u", 1, HA_JOB_CREATE), 1);
}

static void remove_of_nothing_is_done(void **state)
{
    struct agent_model *m = *state;
    am_remove(m, "u", 3);
    am_settle(m);
    am_expect(m, "send result u g3 op3 done deleted\n");
    am_ensure(m, "u", 3, "a", 64 * MIB); /* a create that was overtaken by its removal */
    am_settle(m);
    am_expect(m, "send result u g3 op3 stale code=9 latest=3 deleted\n");
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

/* What is half removed is not brought back by a command from before. */
static void nothing_older_follows_a_removal_that_failed(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    m->fail_next = HP_EUNAVAILABLE;
    am_remove(m, "u", 3);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 2, "a", 65 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 stale code=9 latest=3\n");
    am_remove(m, "u", 3);
    am_settle(m);
    am_expect(m, "send journalled u g3 op3\njob remove u g3\nsend result u g3 op3 done deleted\n");
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
    am_ensure(m, "v", 2, "a", 40 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 refused code=8\nsend journalled v g2 op2\njob create v g2 start\n"
                 "send result v g2 op2 done running pid=101\n");
}

/* Commands come more than once. By the time that a repeat comes there may be room, and the container elsewhere. */
static void a_repeat_of_what_was_refused_is_refused(void **state)
{
    struct agent_model *m = *state;
    am_crash(m);
    m->memory_max = 100 * MIB;
    am_boot(m);
    am_link(m, true);
    am_ensure(m, "u", 1, "a", 60 * MIB);
    am_ensure(m, "v", 3, "a", 60 * MIB);
    am_settle(m);
    am_expect(m, "send result v g3 op3 refused code=8\nsend journalled u g1 op1\njob create u g1 start\n"
                 "send result u g1 op1 done running pid=100\n");
    am_remove(m, "u", 2);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob remove u g2\nsend result u g2 op2 done deleted\n");
    am_ensure(m, "v", 3, "a", 60 * MIB);
    am_ensure(m, "v", 2, "a", 60 * MIB);
    am_settle(m);
    am_expect(m, "send result v g3 op3 refused code=9\nsend result v g2 op2 refused code=9\n");
    struct am_ensure e; /* of the next reign, which does not believe what was said to the one before, and asks anew */
    am_ensure_init(&e, "v", 3, "a");
    e.cmd.epoch = 2;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled v g3 op3\njob create v g3 start\nsend result v g3 op3 done running pid=101\n");
}

static void only_so_many_refusals_are_remembered(void **state)
{
    enum { REMEMBERED = 1024 };
    struct agent_model *m = *state;
    char uid[16];
    am_crash(m);
    m->memory_max = 100 * MIB;
    am_boot(m);
    am_link(m, true);
    for (int i = 0; i <= REMEMBERED; i++) {
        snprintf(uid, sizeof uid, "v%d", i);
        am_ensure(m, uid, 1, "a", 101 * MIB);
        am_settle(m);
        am_confirm_all(m);
        am_forget_trace(m);
    }
    am_ensure(m, uid, 1, "a", 10 * MIB);
    am_ensure(m, "v0", 1, "a", 10 * MIB);
    am_settle(m);
    am_expect(m, "send result v1024 g1 op1 refused code=9\nsend journalled v0 g1 op1\njob create v0 g1 start\n"
                 "send result v0 g1 op1 done running pid=100\n");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(create_persists_then_acts_then_reports),
        T(each_intent_waits_for_its_own_sync),
        T(duplicate_command_gets_the_stored_result),
        T(lower_generation_is_stale_and_lower_epoch_refused),
        T(resize_in_place_keeps_the_process),
        T(resize_below_use_is_refused_and_changes_nothing),
        T(stop_start_and_restart),
        T(another_image_replaces_on_the_same_host),
        T(remove_leaves_a_tombstone),
        T(a_tombstone_outlives_its_confirmation),
        T(remove_of_nothing_is_done),
        T(failed_create_is_inspected_and_told_and_may_be_tried_again),
        T(nothing_older_follows_a_removal_that_failed),
        T(commands_during_a_job_wait_and_the_latest_wins),
        T(a_removal_that_waited_for_a_create_follows_it),
        T(memory_beyond_the_host_is_refused),
        T(a_repeat_of_what_was_refused_is_refused),
        T(only_so_many_refusals_are_remembered),
        T(malformed_commands_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
