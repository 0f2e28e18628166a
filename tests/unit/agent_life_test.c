/* Golden traces of the agent's core: containers that end, start again, and are looked after. */
#include "lib/agent_test.h"

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

/* Asked for while it was down; the restart policy was quicker: what runs is left alone. While it is still down it is started at once. */
static void a_start_of_what_runs_again_changes_nothing(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    given_running(m);
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_advance(m, 1000);
    am_settle(m);
    am_expect(m, "send observation u g1 exited backoff\njob start u g1\n"
                 "send observation u g1 restarted running pid=101 restarts=1\n");
    am_ensure_init(&e, "u", 2, "a");
    e.cmd.restart_serial = 2;
    e.cmd.start_only = true;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\nsend result u g2 op2 done running pid=101\n");
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_forget_trace(m);
    e.cmd.generation = 3;
    e.cmd.restart_serial = 3;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled u g3 op2\njob start u g3\nsend result u g3 op2 done running pid=102\n");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(exits_restart_with_growing_delays),           T(restart_modes_and_limits),
        T(a_start_of_what_runs_again_changes_nothing),  T(a_failed_restart_is_tried_again),
        T(health_checks_change_the_health_and_restart), T(failures_in_the_start_period_do_not_count),
        T(an_exit_during_a_probe_or_a_job_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
