/* scheduler_faults_test.c — every allocation of the scheduler's core fails once: the reign ends, the next one goes on from the record, what was not acknowledged comes
 * again, and in the end everything has happened exactly once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/fail_alloc.h"
#include "lib/sc_world.h"

#define DELETE HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE
#define STOPPED HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED
#define DELETED HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED

enum { STEPS = 17 };

static char uids[2][27]; /* of c1 and c2, once they have one */

static void attach(struct scw *w)
{
    scw_attach(w, "h1", 1, 4000, 8192);
}

/* The next reign, and the host attached to it. One allocation fails in a run, so that the second attempt succeeds. */
static void go_on(struct scw *w)
{
    for (int reigns = 0; w->over; reigns++) {
        assert_true(reigns < 2);
        scw_takeover(w);
        if (!w->over)
            attach(w);
    }
}

static void take_uid(struct scw *w, const char *name, char uid[27])
{
    strcpy(uid, scw_uid(w, name));
}

/* What the broker, the gateway and the host do, step by step. */
static void do_step(struct scw *w, int step)
{
    switch (step) {
    case 0:
        attach(w);
        break;
    case 1:
        scw_create(w, 1, "c1", 1000, 1024);
        break;
    case 2:
        take_uid(w, "c1", uids[0]);
        scw_journalled(w, "h1", uids[0], 1);
        break;
    case 3:
        scw_done(w, "h1", uids[0], 1);
        break;
    case 4:
        scw_create(w, 2, "c2", 4000, 1024); /* waits: there is no room */
        break;
    case 5:
        scw_resize(w, 3, "c1", 0, 2048, NULL);
        break;
    case 6:
        scw_takeover(w); /* with a change under way */
        break;
    case 7:
        attach(w);
        scw_done(w, "h1", uids[0], 2);
        break;
    case 8:
        scw_verb(w, 4, DELETE, "c1", NULL);
        break;
    case 9:
        scw_result(w, "h1", uids[0], 3, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE, DELETED, NULL);
        break;
    case 10:
        take_uid(w, "c2", uids[1]);
        scw_done(w, "h1", uids[1], 1);
        break;
    case 11:
        scw_observe(w, "h1", uids[1], 1, STOPPED, "exited");
        break;
    case 12:
        w->mute_stream = true; /* what stays behind the watermark is published by the next reign */
        scw_create(w, 5, "c1", 100000, 1024);
        break;
    case 13:
        scw_cancel(w, 6, 5);
        break;
    case 14:
        w->mute_stream = false;
        scw_takeover(w);
        break;
    case 15:
        scw_create(w, 1, "c1", 1000, 1024); /* repeated: it has ended, and only the record knows */
        break;
    default:
        scw_advance(w, 60000);
    }
}

static int stage_of(struct scw *w, unsigned id)
{
    char key[33];
    snprintf(key, sizeof key, "%032x", id);
    const struct scw_row *row = scw_find(&w->operations, key);
    assert_non_null(row);
    assert_false(row->active);
    return row->stage;
}

static void life_of_two_containers(void *user)
{
    struct scw *w = scw_new(NULL);
    memset(uids, 0, sizeof uids);
    w->enter = fa_enter;
    w->leave = fa_leave;
    for (int step = 0; step < STEPS; step++) {
        do_step(w, step);
        while (w->over) {
            go_on(w);
            do_step(w, step); /* comes again: it was not acknowledged, or was and is known */
        }
    }
    assert_null(strstr(w->trace, "poison"));
    for (unsigned id = 1; id <= 4; id++)
        assert_int_equal(stage_of(w, id), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_int_equal(stage_of(w, 5), HARPOON__V1__STAGE__STAGE_CANCELLED);
    assert_int_equal(w->containers.count, 1);
    assert_string_equal(w->containers.rows[0].uid, uids[1]);
    assert_int_equal(w->published, w->sequence); /* everybody was told everything */
    w->enter = w->leave = NULL;
    scw_free(w);
}

/* ---- One that has to go for another ---- */

static void create(struct scw *w, unsigned id, const char *name, int64_t cpu, int priority, bool preempts)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    x.cpu_millis = cpu;
    x.memory_bytes = 64 << 20;
    p.priority = priority;
    p.may_preempt = preempts;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.placement = &p;
    spec.stateless = true;
    scw_create_spec(w, id, name, &spec, 0);
}

/* The host has done the last thing that it was asked for with this container. */
static void done(struct scw *w, const char *name)
{
    for (size_t i = w->command_count; i > 0; i--) {
        struct scw_command x = w->commands[i - 1];
        const char *slash = strrchr(x.container, '/');
        if (!x.verb || !slash || strcmp(slash + 1, name) != 0)
            continue;
        scw_done(w, "h1", x.uid, x.generation);
        return;
    }
    fail();
}

static void preempt_step(struct scw *w, int step)
{
    switch (step) {
    case 0:
        attach(w);
        break;
    case 1:
        create(w, 1, "low", 5000, -5, false);
        break;
    case 2:
        done(w, "low");
        break;
    case 3:
        create(w, 2, "top", 4000, 5, true);
        break;
    case 4:
        scw_takeover(w);
        break;
    case 5:
        attach(w);
        done(w, "low");
        break;
    default:
        done(w, "top");
    }
}

static void one_has_to_go(void *user)
{
    struct sc_region_config config;
    sc_region_config_defaults(&config);
    config.preemption = true;
    struct scw *w = scw_new(&config);
    w->enter = fa_enter;
    w->leave = fa_leave;
    for (int step = 0; step < 7; step++) {
        preempt_step(w, step);
        while (w->over) {
            go_on(w);
            preempt_step(w, step);
        }
    }
    for (unsigned id = 1; id <= 2; id++)
        assert_int_equal(stage_of(w, id), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_int_equal(w->containers.count, 2); /* nothing was lost */
    struct sc_region_stats s;
    sc_region_stats(w->region, &s);
    assert_int_equal(s.pending, 1);
    assert_int_equal(s.victims, 0);
    sc_region_check(w->region);
    w->enter = w->leave = NULL;
    scw_free(w);
}

static void every_allocation_fails_once(void **state)
{
    assert_true(fa_each(life_of_two_containers, NULL) > 400);
}

static void every_allocation_of_a_preemption_fails_once(void **state)
{
    assert_true(fa_each(one_has_to_go, NULL) > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_fails_once),
                                       cmocka_unit_test(every_allocation_of_a_preemption_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
