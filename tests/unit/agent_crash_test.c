/* Crashes of the agent at every step, and at random ones: each change takes effect once, and the journal, the runtime and the reports agree in the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/agent_model.h"
#include "wire/digest.h"

#define MIB (1 << 20)

/* One step of whatever is possible: odd numbers first sync, then execute, then finish. False: nothing moves. */
static bool advance(struct agent_model *m)
{
    if (m->journal.batch_count) {
        am_sync(m);
        return true;
    }
    if (!m->job_count)
        return false;
    if (!m->jobs[0]->executed)
        am_job_execute(m, 0);
    else
        am_job_finish(m, 0);
    return true;
}

typedef void send_fn(struct agent_model *m);

static void send_create(struct agent_model *m)
{
    am_ensure(m, "u", 1, "a", 64 * MIB);
}

static void send_replace(struct agent_model *m)
{
    am_ensure(m, "u", 2, "b", 64 * MIB);
}

static void send_restart(struct agent_model *m)
{
    struct am_ensure e;
    am_ensure_init(&e, "u", 2, "a");
    e.cmd.restart_serial = 1;
    am_command(m, &e.cmd);
}

static void send_stop(struct agent_model *m)
{
    struct am_ensure e;
    am_ensure_init(&e, "u", 2, "a");
    e.spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    am_command(m, &e.cmd);
}

static void send_remove(struct agent_model *m)
{
    am_remove(m, "u", 2);
}

static void reboot(struct agent_model *m)
{
    am_crash(m);
    am_boot(m);
    am_link(m, true);
}

/* Sends `last` (after `first`, when given), crashes after `crash_at` moves, starts again, sends it again as a scheduler would, and lets it end. False: it
 * was over before. */
static bool run(send_fn *first, send_fn *last, int crash_at, struct agent_model *m)
{
    bool more = true;
    am_init(m);
    am_boot(m);
    am_link(m, true);
    if (first)
        first(m);
    am_settle(m);
    last(m);
    for (int i = 0; i < crash_at && more; i++)
        more = advance(m);
    reboot(m);
    am_settle(m);
    last(m);
    am_settle(m);
    return more;
}

static void check_one_live(struct agent_model *m, int64_t generation, bool running)
{
    const struct am_container *c = am_find(m, "u");
    assert_true(c->exists);
    assert_int_equal(c->running, running);
    assert_int_equal(m->journal.durable.record_count, 1);
    assert_int_equal(m->journal.durable.records[0].generation, generation);
    assert_int_equal(m->journal.durable.records[0].intent.generation, 0);
    assert_int_equal(m->journal.durable.records[0].pid, running ? c->pid : 0);
}

static void create_happens_once_wherever_it_crashes(void **state)
{
    static struct agent_model m;
    int at = 0;
    for (bool more = true; more; at++) {
        more = run(NULL, send_create, at, &m);
        assert_int_equal(am_calls(&m, "u", 1, HA_JOB_CREATE), 1);
        assert_int_equal(am_calls(&m, "u", 1, HA_JOB_REMOVE), 0);
        check_one_live(&m, 1, true);
        am_done(&m);
    }
    assert_in_range(at, 5, 10); /* intent, create, its end, result */
}

static void replace_happens_once_wherever_it_crashes(void **state)
{
    static struct agent_model m;
    int at = 0;
    for (bool more = true; more; at++) {
        more = run(send_create, send_replace, at, &m);
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_REMOVE), 1);
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_CREATE), 1);
        check_one_live(&m, 2, true);
        am_done(&m);
    }
    assert_in_range(at, 8, 14);
}

static void restart_happens_once_wherever_it_crashes(void **state)
{
    static struct agent_model m;
    for (int at = 0; run(send_create, send_restart, at, &m); at++) {
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_RESTART), 1);
        check_one_live(&m, 2, true);
        am_done(&m);
    }
    am_done(&m);
}

static void stop_happens_once_wherever_it_crashes(void **state)
{
    static struct agent_model m;
    for (int at = 0; run(send_create, send_stop, at, &m); at++) {
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_STOP), 1);
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_START) + am_calls(&m, "u", 1, HA_JOB_START), 0);
        check_one_live(&m, 2, false);
        am_done(&m);
    }
    am_done(&m);
}

static void remove_happens_once_wherever_it_crashes(void **state)
{
    static struct agent_model m;
    for (int at = 0; run(send_create, send_remove, at, &m); at++) {
        assert_int_equal(am_calls(&m, "u", 2, HA_JOB_REMOVE), 1);
        assert_false(am_find(&m, "u")->exists);
        assert_int_equal(m.journal.durable.record_count, 0);
        assert_int_equal(m.journal.durable.tombstone_count, 1);
        am_done(&m);
    }
    am_done(&m);
}

/* A create that was cut off in the middle: something is there that never ran. */
static void a_half_made_container_is_made_anew(void **state)
{
    static struct agent_model m;
    am_init(&m);
    am_boot(&m);
    am_ensure(&m, "u", 1, "a", 64 * MIB);
    am_sync(&m);
    am_find(&m, "u")->exists = true;
    am_crash(&m);
    am_boot(&m);
    am_settle(&m);
    assert_int_equal(am_calls(&m, "u", 1, HA_JOB_REMOVE), 1);
    assert_int_equal(am_calls(&m, "u", 1, HA_JOB_CREATE), 1);
    check_one_live(&m, 1, true);
    am_done(&m);
}

/* ---- random runs ---- */

enum { UIDS = 5, MOVES = 400, SEEDS = 600 };

/* What a scheduler would want of each uid. */
struct wish {
    int64_t generation;
    bool removed, stopped;
    char image[2];
    int64_t memory_bytes, serial;
    int64_t created; /* generation of the last ENSURE that wanted another image */
};

static void uid_name(char out[8], int i)
{
    snprintf(out, 8, "u%d", i);
}

static void send_wish(struct agent_model *m, const struct wish *w, int i)
{
    char uid[8];
    struct am_ensure e;
    uid_name(uid, i);
    if (w->generation == 0)
        return;
    if (w->removed) {
        am_remove(m, uid, w->generation);
        return;
    }
    am_ensure_init(&e, uid, w->generation, w->image);
    e.resources.memory_bytes = w->memory_bytes;
    e.cmd.restart_serial = w->serial;
    if (w->stopped)
        e.spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    am_command(m, &e.cmd);
}

static void change_wish(struct wish *w, struct hp_rng *rng)
{
    w->generation++;
    switch (hp_rng_below(rng, 6)) {
    case 0:
        w->removed = true;
        return;
    case 1:
        w->image[0] = (char)('a' + hp_rng_below(rng, 3));
        break;
    case 2:
        w->stopped = !w->stopped;
        break;
    case 3:
        w->serial++;
        break;
    default:
        w->memory_bytes = (int64_t)(1 + hp_rng_below(rng, 8)) * 16 * MIB;
    }
    w->removed = false;
}

static void random_move(struct agent_model *m, struct wish *wishes, struct hp_rng *rng)
{
    int i = (int)hp_rng_below(rng, UIDS);
    char uid[8];
    uid_name(uid, i);
    switch (hp_rng_below(rng, 16)) {
    case 0:
        reboot(m);
        break;
    case 1:
    case 2:
        change_wish(&wishes[i], rng);
        send_wish(m, &wishes[i], i);
        break;
    case 3: /* a repeated or lost command */
        send_wish(m, &wishes[i], i);
        break;
    case 4:
        if (am_find(m, uid)->running)
            am_exit(m, uid, (int32_t)hp_rng_below(rng, 3), false);
        break;
    case 5:
        am_confirm_all(m);
        break;
    case 6:
        am_link(m, hp_rng_below(rng, 2));
        break;
    case 7:
        am_advance(m, hp_rng_below(rng, 3000));
        break;
    case 8:
        if (hp_rng_below(rng, 4) == 0)
            m->fail_next = HP_EIO;
        break;
    case 9:
    case 10:
    case 11:
        am_sync(m);
        break;
    default:
        if (m->job_count) {
            size_t k = hp_rng_below(rng, m->job_count);
            if (!m->jobs[k]->executed)
                am_job_execute(m, k);
            else
                am_job_finish(m, k);
        }
    }
}

/* At most one create, restart, resize, … for each (uid, generation) and verb; generations only grow. */
static void check_calls(struct agent_model *m)
{
    for (size_t i = 0; i < m->call_count; i++)
        for (size_t k = i + 1; k < m->call_count; k++) {
            const struct am_call *a = &m->calls[i], *b = &m->calls[k];
            if (strcmp(a->uid, b->uid) != 0)
                continue;
            assert_true(b->generation >= a->generation);
            bool policy = a->kind == HA_JOB_START; /* the restart policy runs the same generation again */
            if (!policy && a->generation == b->generation && a->kind == b->kind)
                fail_msg("job kind %d twice for %s generation %lld", (int)a->kind, a->uid, (long long)a->generation);
        }
}

static void check_at_rest(struct agent_model *m, const struct wish *wishes)
{
    int live = 0;
    uint64_t digest = 0, told;
    int32_t count;
    for (int i = 0; i < UIDS; i++) {
        char uid[8];
        uid_name(uid, i);
        const struct am_container *c = am_find(m, uid);
        const struct wish *w = &wishes[i];
        bool wanted = w->generation > 0 && !w->removed;
        assert_int_equal(c->exists, wanted);
        if (!wanted)
            continue;
        live++;
        if (w->stopped)
            assert_false(c->running);
        if (c->running)
            assert_int_equal(c->memory_bytes, w->memory_bytes);
    }
    assert_int_equal(m->journal.durable.record_count, live);
    assert_int_equal(m->journal.durable.report_count, 0);
    for (size_t i = 0; i < m->journal.durable.record_count; i++) {
        const struct ha_record *r = &m->journal.durable.records[i];
        const struct am_container *c = am_find(m, r->uid);
        assert_int_equal(r->intent.generation, 0);
        assert_int_equal(r->pid, c->running ? c->pid : 0);
        const struct wish *w = &wishes[r->uid[1] - '0'];
        assert_int_equal(r->generation, w->generation);
        digest ^= hp_inventory_item_digest(r->uid, r->generation, w->stopped ? 2 : 1, r->state);
    }
    ha_core_digest(m->core, &count, &told);
    assert_int_equal(count, live);
    assert_int_equal(told, digest);
}

/* As a scheduler does: what failed, or was dropped, is asked for again, with a higher generation. */
static void converge(struct agent_model *m, struct wish *wishes)
{
    m->fail_next = 0;
    am_link(m, true);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < UIDS; i++) {
            if (wishes[i].generation)
                wishes[i].generation++;
            send_wish(m, &wishes[i], i);
        }
        am_settle(m);
        am_confirm_all(m);
        am_settle(m);
    }
}

static void random_crashes(void **state)
{
    static struct agent_model m;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct hp_rng rng;
        struct wish wishes[UIDS];
        hp_rng_init(&rng, seed);
        memset(wishes, 0, sizeof wishes);
        for (int i = 0; i < UIDS; i++) {
            wishes[i].image[0] = 'a';
            wishes[i].memory_bytes = 64 * MIB;
        }
        am_init(&m);
        am_boot(&m);
        for (int i = 0; i < MOVES; i++)
            random_move(&m, wishes, &rng);
        converge(&m, wishes);
        check_calls(&m);
        check_at_rest(&m, wishes);
        am_done(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_happens_once_wherever_it_crashes),
        cmocka_unit_test(replace_happens_once_wherever_it_crashes),
        cmocka_unit_test(restart_happens_once_wherever_it_crashes),
        cmocka_unit_test(stop_happens_once_wherever_it_crashes),
        cmocka_unit_test(remove_happens_once_wherever_it_crashes),
        cmocka_unit_test(a_half_made_container_is_made_anew),
        cmocka_unit_test(random_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
