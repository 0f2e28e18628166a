/* Golden traces of the agent's core: containers that the journal does not know, in quarantine and out of it. */
#include "lib/agent_test.h"

#define QUARANTINE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_QUARANTINE

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
    ha_image_done(&m->journal.durable); /* the journal was moved aside */
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "send observation u g0 quarantined running pid=100\n");
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob resize u g1\nsend result u g1 op1 done running pid=100\n");
    assert_int_equal(am_calls(m, "u", 1, HA_JOB_CREATE), 1);
}

/* The journal was lost while a create was under way: what it left is no container that somebody could adopt, and every command was refused for ever. */
static void what_a_create_left_behind_is_made_anew_without_a_journal(void **state)
{
    struct agent_model *m = *state;
    am_find(m, "x")->exists = true;
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "send observation x g0 quarantined stopped\n");
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "x", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled x g2 op2\njob remove x g2 replacing\njob create x g2 start\nsend result x g2 op2 "
                 "done running pid=100\n");
}

/* The agent died between finding a container and the command that adopts it: afterwards no command could. */
static void what_was_found_is_adopted_after_another_start_too(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_crash(m);
    ha_image_done(&m->journal.durable);
    am_boot(m);
    am_settle(m);
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob resize u g2\nsend result u g2 op2 done running pid=100\n");
    assert_int_equal(am_calls(m, "u", 1, HA_JOB_CREATE), 1);
}

static void a_later_command_adopts_what_differs_in_place_only(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_crash(m);
    ha_image_done(&m->journal.durable);
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
    am_inventory(m, false);
    am_expect(m, "send inventory 9 last\n  u g1 quarantined stopped\n");
}

/* What was to be removed before it was found to be unknown is removed, not kept. */
static void a_removal_that_waits_is_not_quarantined(void **state)
{
    struct agent_model *m = *state;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_sync(m);
    am_remove(m, "u", 2);
    am_verb(m, "u", 0, QUARANTINE, 1);
    am_settle(m);
    am_expect(m, "send journalled u g1 op1\njob create u g1 start\nsend result u g0 op0 refused code=9\n"
                 "send result u g1 op1 done running pid=100\nsend journalled u g2 op2\njob remove u g2\n"
                 "send result u g2 op2 done deleted\n");
}

static void what_is_quarantined_by_command_is_adopted_as_it_is(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_verb(m, "u", 0, QUARANTINE, 1);
    am_settle(m);
    am_inventory(m, true);
    am_forget_trace(m);
    am_inventory(m, true);
    am_expect(m, "send inventory 9 last\n  u g1 quarantined running pid=100 spec\n");
    am_ensure(m, "u", 2, "b", 64 * MIB); /* another image: not this container */
    am_settle(m);
    am_expect(m, "send result u g2 op2 refused code=9\n");
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\nsend result u g2 op2 done running pid=100\n");
    am_inventory(m, false);
    am_expect(m, "send inventory 9 last\n  u g2 running pid=100\n");
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_expect(m, "send observation u g2 exited backoff\n"); /* and it is restarted again */
}

/* A removal was cut off after it took effect, and failed when it was tried again: a command for what had been there, of the same generation, made a second container of that generation. */
static void what_is_gone_is_not_adopted_by_its_own_generation(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_remove(m, "u", 1);
    am_sync(m);
    am_job_execute(m, 0);
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_sync(m);
    am_job_execute(m, 0);
    am_job_finish(m, 0); /* the look at what is there */
    m->fail_next = HP_EIO;
    am_settle(m);
    am_verb(m, "u", 0, QUARANTINE, 1);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result u g1 op1 refused code=9\n");
    am_ensure(m, "u", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob create u g2 start\nsend result u g2 op2 done running pid=101\n");
}

/* The same for a create that failed. */
static void what_was_never_made_is_not_adopted_by_its_own_generation(void **state)
{
    struct agent_model *m = *state;
    m->fail_next = HP_EIO;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_verb(m, "u", 0, QUARANTINE, 1);
    am_settle(m);
    am_forget_trace(m);
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result u g1 op1 refused code=9\n");
}

/* A create was cut off after it took effect, where another had failed before; what it made did not take its limits. That is no refusal which changed nothing: a repeat made it a second time. */
static void what_a_create_made_is_not_forgotten_when_it_takes_no_limits(void **state)
{
    struct agent_model *m = *state;
    m->fail_next = HP_EIO;
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_ensure(m, "u", 2, "b", 64 * MIB);
    am_sync(m);
    am_sync(m); /* that nothing is left of the first */
    am_job_execute(m, 0);
    assert_int_equal(am_calls(m, "u", 2, HA_JOB_CREATE), 1);
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    m->fail_next = HP_ECONFLICT;
    am_forget_trace(m);
    am_settle(m);
    am_ensure(m, "u", 2, "b", 64 * MIB);
    am_settle(m);
    assert_int_equal(am_calls(m, "u", 2, HA_JOB_CREATE), 1);
    assert_non_null(strstr(m->trace, "send result u g2 op2 failed"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(unknown_containers_are_quarantined_and_never_touched),
        T(the_command_that_made_an_unknown_container_adopts_it),
        T(what_a_create_left_behind_is_made_anew_without_a_journal),
        T(what_was_found_is_adopted_after_another_start_too),
        T(a_later_command_adopts_what_differs_in_place_only),
        T(quarantine_by_command),
        T(a_removal_that_waits_is_not_quarantined),
        T(what_is_quarantined_by_command_is_adopted_as_it_is),
        T(what_is_gone_is_not_adopted_by_its_own_generation),
        T(what_was_never_made_is_not_adopted_by_its_own_generation),
        T(what_a_create_made_is_not_forgotten_when_it_takes_no_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
