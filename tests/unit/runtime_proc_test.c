/* Programs that the agent runs, when the agent dies. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "runtime/rt_proc.h"

/* An agent of its own that runs a program, which says that it is there and then waits; gives the agent's pid, and the program's output. */
static pid_t agent_with_program(int *ret_out)
{
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t agent = fork();
    assert_true(agent >= 0);
    if (agent == 0) {
        static const char *const argv[] = {"/bin/sh", "-c", "echo x; exec sleep 1000", NULL};
        struct ha_spawn s = HA_SPAWN_INIT;
        struct hp_error e = {0};
        s.argv = argv;
        s.out = ends[1];
        s.dies_with_us = true;
        _exit(ha_proc_run(&s, NULL, NULL, 1000000, -1, &e) ? 1 : 0);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(read(ends[0], &byte, 1), 1); /* the end of the line */
    *ret_out = ends[0];
    return agent;
}

static void kill_agent(pid_t agent)
{
    int status;
    assert_int_equal(kill(agent, SIGKILL), 0);
    assert_int_equal(waitpid(agent, &status, 0), agent);
}

static void a_program_ends_with_the_agent(void **state)
{
    int out;
    char byte;
    pid_t agent = agent_with_program(&out);
    kill_agent(agent);
    struct pollfd p = {.fd = out, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60000), 1);
    assert_int_equal(read(out, &byte, 1), 0); /* nobody has the other end any more */
    close(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_ends_with_the_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
