/* agent_network_test.c — what a host does not offer, and functions that are all taken, are refused before anything is begun. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/agent_model.h"

#define MODE(x) HARPOON__V1__NETWORK_MODE__NETWORK_MODE_##x

static struct agent_model model, *m = &model;

static int begin(void **state)
{
    am_init(m);
    m->network_modes = 1U << MODE(BRIDGE) | 1U << MODE(SRIOV);
    m->network_functions = 1;
    am_boot(m);
    am_link(m, true);
    am_forget_trace(m);
    return 0;
}

static int end(void **state)
{
    am_done(m);
    return 0;
}

static void ask(const char *uid, int64_t generation, int mode)
{
    struct am_ensure e;
    Harpoon__V1__NetworkSpec network = HARPOON__V1__NETWORK_SPEC__INIT;
    am_ensure_init(&e, uid, generation, "1");
    network.mode = (Harpoon__V1__NetworkMode)mode;
    e.spec.network = &network;
    am_command(m, &e.cmd);
}

static bool was(const char *uid, int64_t generation, const char *how)
{
    char line[64];
    am_settle(m);
    snprintf(line, sizeof line, "send result %s g%lld", uid, (long long)generation);
    const char *at = strstr(m->trace, line);
    if (!at || strncmp(strchr(at + strlen(line) + 1, ' '), how, strlen(how)) != 0)
        return false;
    am_confirm_all(m);
    am_settle(m);
    am_forget_trace(m);
    return true;
}

static void what_is_not_offered_is_refused(void **state)
{
    ask("a", 1, MODE(MACVLAN));
    assert_true(was("a", 1, " refused code=3"));
    ask("a", 2, 7);
    assert_true(was("a", 2, " refused code=3"));
    ask("a", 3, MODE(NONE));
    assert_true(was("a", 3, " done"));
    ask("b", 1, MODE(UNSPECIFIED));
    assert_true(was("b", 1, " done"));
}

static void functions_are_counted_from_the_intent_on(void **state)
{
    ask("a", 1, MODE(SRIOV));
    ask("b", 1, MODE(SRIOV)); /* nothing of the first is durable yet */
    assert_true(was("b", 1, " refused code=8"));
    ask("c", 1, MODE(BRIDGE));
    assert_true(was("c", 1, " done"));
    ask("c", 2, MODE(SRIOV)); /* no more in another's place */
    assert_true(was("c", 2, " refused code=8"));
    am_crash(m);
    am_boot(m);
    am_settle(m);
    am_link(m, true);
    ask("b", 2, MODE(SRIOV));
    assert_true(was("b", 2, " refused code=8"));
    ask("a", 2, MODE(BRIDGE)); /* gives it up */
    assert_true(was("a", 2, " done"));
    ask("b", 3, MODE(SRIOV));
    assert_true(was("b", 3, " done"));
}

static void what_runs_is_never_refused_what_it_has(void **state)
{
    ask("a", 1, MODE(SRIOV));
    assert_true(was("a", 1, " done"));
    am_crash(m);
    m->network_modes = 1U << MODE(BRIDGE); /* its operator has taken the mode away */
    m->network_functions = 0;
    am_boot(m);
    am_settle(m);
    am_link(m, true);
    ask("a", 2, MODE(SRIOV));
    assert_true(was("a", 2, " done"));
    am_remove(m, "a", 3);
    assert_true(was("a", 3, " done"));
    ask("b", 1, MODE(SRIOV));
    assert_true(was("b", 1, " refused code=3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_not_offered_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(functions_are_counted_from_the_intent_on, begin, end),
        cmocka_unit_test_setup_teardown(what_runs_is_never_refused_what_it_has, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
