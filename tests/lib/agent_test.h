/* agent_test.h — what the tests of the agent's core begin with: an agent that is attached, and a container that runs. */
#ifndef HP_TESTS_AGENT_TEST_H
#define HP_TESTS_AGENT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/agent_model.h"

#define MIB (1 << 20)

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
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* A running container u at generation 1, its result confirmed. */
static inline void given_running(struct agent_model *m)
{
    am_ensure(m, "u", 1, "a", 64 * MIB);
    am_settle(m);
    am_confirm_all(m);
    am_settle(m);
    am_forget_trace(m);
}

#endif
