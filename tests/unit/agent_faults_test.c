/* agent_faults_test.c — every allocation of the agent's core fails once: the agent starts anew from its journal and what really runs, is sent again what it did not answer, and in the end
 * each change was made exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/agent_model.h"
#include "lib/fail_alloc.h"

#define MIB (1 << 20)
enum { STEPS = 11 };

static void do_step(struct agent_model *m, int step)
{
    switch (step) {
    case 0:
        am_link(m, true);
        break;
    case 1:
        am_ensure(m, "u", 1, "a", 64 * MIB);
        break;
    case 2:
        am_ensure(m, "v", 1, "a", 32 * MIB);
        break;
    case 3:
        am_ensure(m, "u", 2, "a", 128 * MIB); /* in place */
        break;
    case 4:
        am_ensure(m, "v", 2, "b", 32 * MIB); /* by a replacement */
        break;
    case 5:
        am_crash(m);
        am_boot(m); /* with all that the journal holds by now */
        if (m->over)
            return;
        am_link(m, true);
        break;
    case 6:
        am_inventory(m, true);
        break;
    case 7:
        if (am_find(m, "u")->running && !m->over)
            am_exit(m, "u", 3, false);
        break;
    case 8:
        am_advance(m, 120000); /* its restart */
        break;
    case 9:
        am_remove(m, "v", 3);
        break;
    default:
        am_confirm_all(m);
    }
    am_settle(m);
}

static void start_anew(struct agent_model *m)
{
    am_crash(m);
    am_boot(m);
    am_link(m, true);
    am_settle(m);
}

static void a_hosts_day(void *user)
{
    static struct agent_model m;
    am_init(&m);
    m.enter = fa_enter;
    m.leave = fa_leave;
    am_boot(&m);
    for (int step = 0; step < STEPS; step++) {
        while (m.over)
            start_anew(&m);
        do_step(&m, step);
        if (!m.over)
            continue;
        start_anew(&m); /* one allocation fails in a run: this time it comes through */
        assert_false(m.over);
        if (step < 5 || step > 7) /* commands come again; an end is found */
            do_step(&m, step);
    }
    assert_false(m.over);
    const struct am_container *u = am_find(&m, "u"), *v = am_find(&m, "v");
    assert_true(u->running && u->memory_bytes == 128 * MIB);
    assert_false(v->exists);
    assert_int_equal(am_calls(&m, "u", 1, HA_JOB_CREATE), 1);
    assert_int_equal(am_calls(&m, "v", 1, HA_JOB_CREATE), 1);
    assert_int_equal(am_calls(&m, "u", 2, HA_JOB_RESIZE), 1);
    assert_int_equal(am_calls(&m, "u", 2, HA_JOB_CREATE), 0);
    assert_int_equal(am_calls(&m, "v", 2, HA_JOB_CREATE), 1);
    assert_int_equal(am_calls(&m, "v", 3, HA_JOB_REMOVE), 1);
    m.enter = m.leave = NULL;
    am_done(&m);
}

static void every_allocation_fails_once(void **state)
{
    assert_true(fa_each(a_hosts_day, NULL) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
