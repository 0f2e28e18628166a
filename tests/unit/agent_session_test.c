/* Golden traces of the agent's core: what it tells the router, and in which order; and what it makes of what it finds when it starts. */
#include "core/plan.h"
#include "lib/agent_test.h"
#include "wire/digest.h"

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
    am_link(m, true); /* sent is not confirmed */
    am_expect(m, "send result u g1 op1 done running pid=100\n"
                 "send observation u g1 restarted running pid=101 restarts=1\n");
    am_link(m, false);
    am_settle(m);
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

static void a_full_disk_refuses_what_is_new_and_nothing_else(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_room(m, "the disk is full");
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result v g1 op1 refused code=8\n");
    am_ensure(m, "u", 2, "b", 64 * MIB); /* another container in its place */
    am_settle(m);
    am_expect(m, "send result u g2 op2 refused code=8\n");
    am_ensure(m, "u", 3, "a", 32 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g3 op3\njob resize u g3\nsend result u g3 op3 done running pid=100\n");
    am_room(m, NULL);
    am_ensure(m, "v", 2, "a", 64 * MIB); /* a repeat of what was refused may be late, and is not taken */
    am_settle(m);
    am_expect(m, "send journalled v g2 op2\njob create v g2 start\nsend result v g2 op2 done running pid=101\n");
    am_room(m, "the disk is full");
    am_remove(m, "u", 4);
    am_settle(m);
    am_expect(m, "send journalled u g4 op4\njob remove u g4\nsend result u g4 op4 done deleted\n");
}

static void volumes_without_room_are_refused_to_new_containers_only(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_storage(m, "storage class fast: 5 bytes of new volumes, but its file system has 4 left");
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result v g1 op1 refused code=8\n");
    am_ensure(m, "u", 2, "a", 32 * MIB); /* has its volumes */
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob resize u g2\nsend result u g2 op2 done running pid=100\n");
    am_storage(m, NULL);
    am_ensure(m, "v", 2, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send journalled v g2 op2\njob create v g2 start\nsend result v g2 op2 done running pid=101\n");
}

static void an_overloaded_host_takes_nothing_new(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_overload(m, HP_RESOURCE_MEMORY, "memory: use 98.0 % (limit 97 %)");
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_settle(m);
    am_expect(m, "send result v g1 op1 refused code=8 overloaded=memory\n");
    am_ensure(m, "u", 2, "a", 65 * MIB);
    am_settle(m);
    am_expect(m, "send result u g2 op2 refused code=8 overloaded=memory\n");
    am_ensure(m, "u", 3, "a", 32 * MIB);
    am_settle(m);
    am_expect(m, "send journalled u g3 op3\njob resize u g3\nsend result u g3 op3 done running pid=100\n");
    am_overload(m, HP_RESOURCE_CPU, "cpu: use 99.0 % (limit 98 %)");
    am_ensure(m, "u", 4, "a", 48 * MIB); /* memory is not what lacks now */
    am_settle(m);
    am_expect(m, "send journalled u g4 op4\njob resize u g4\nsend result u g4 op4 done running pid=100\n");
    am_overload(m, HP_RESOURCE_CPU, NULL);
    am_ensure(m, "v", 2, "a", 64 * MIB); /* a repeat of what was refused may be late, and is not taken */
    am_settle(m);
    am_expect(m, "send journalled v g2 op2\njob create v g2 start\nsend result v g2 op2 done running pid=101\n");
}

static void an_overloaded_host_leaves_alone_what_runs(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_overload(m, HP_RESOURCE_CPU, "cpu: use 99.0 % (limit 98 %)");
    am_ensure(m, "u", 2, "b", 64 * MIB); /* another image in its place */
    am_settle(m);
    am_expect(m, "send journalled u g2 op2\njob remove u g2 replacing\njob create u g2 start\n"
                 "send result u g2 op2 done running pid=101\n");
    am_overload(m, HP_RESOURCE_NETWORK, "network: use 99.0 % (limit 90 %)");
    struct am_ensure e;
    Harpoon__V1__NetworkSpec alone = HARPOON__V1__NETWORK_SPEC__INIT;
    am_ensure_init(&e, "w", 1, "a");
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send result w g1 op1 refused code=8 overloaded=network\n");
    alone.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    e.spec.network = &alone;
    e.cmd.generation = 2;
    am_command(m, &e.cmd);
    am_settle(m);
    am_expect(m, "send journalled w g2 op1\njob create w g2 start\nsend result w g2 op1 done running pid=102\n");
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
    am_inventory(m, false);
    am_expect(m, "send inventory 9 last\n  u g1 running pid=100\n  v g2 tombstone\n");
    am_confirm_all(m);
    am_sync(m);
    am_inventory(m, false);
    am_expect(m, "send inventory 9 last\n  u g1 running pid=100\n");
    am_inventory(m, true); /* as for a record that is older than the removal */
    am_expect(m, "send inventory 9 last\n  u g1 running pid=100 spec\n  v g2 tombstone\n");
}

/* The scheduler takes a listed tombstone as the end of a delete: a crash must not be able to take it back. */
static void an_inventory_tells_only_what_is_durable(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_remove(m, "u", 2);
    am_sync(m);
    am_job_execute(m, 0);
    am_job_finish(m, 0); /* the tombstone is written, not synced */
    am_forget_trace(m);
    am_inventory(m, false);
    am_expect(m, "");
    am_sync(m);
    am_expect(m, "send inventory 9 last\n  u g2 tombstone\nsend result u g2 op2 done deleted\n");
    am_ensure(m, "v", 1, "a", 64 * MIB);
    am_forget_trace(m);
    am_inventory(m, false);
    am_link(m, false); /* who asked is gone */
    am_link(m, true);
    am_forget_trace(m);
    am_sync(m);
    assert_null(strstr(m->trace, "inventory"));
}

/* A replacement's create was cut off, and the next change asks for what had been applied before: starting what was left behind would run half a container. */
static void what_was_not_made_whole_is_replaced(void **state)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    struct ha_plan_input in = {.applied = &spec, .wanted = &spec, .exists = true};
    struct ha_plan plan;
    assert_int_equal(ha_plan_make(&in, &plan), 0);
    assert_int_equal(plan.count, 2);
    assert_int_equal(plan.jobs[0], HA_JOB_REMOVE);
    assert_int_equal(plan.jobs[1], HA_JOB_CREATE);
    in.complete = true;
    assert_int_equal(ha_plan_make(&in, &plan), 0);
    assert_int_equal(plan.count, 1);
    assert_int_equal(plan.jobs[0], HA_JOB_START);
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

/* While the agent was away the process ended, and the kernel gave its pid to the one that was started in its place. */
static void a_reused_pid_is_another_process(void **state)
{
    struct agent_model *m = *state;
    given_running(m);
    am_crash(m);
    am_find(m, "u")->ticks += 1;
    am_boot(m);
    am_link(m, true);
    am_settle(m);
    am_expect(m, "job inspect u g1\nsend observation u g1 restarted running pid=100 restarts=1\n");
    am_find(m, "u")->ticks -= 1; /* and that the old one has ended is no news of this one */
    am_exit(m, "u", 1, false);
    am_settle(m);
    am_expect(m, "");
}

/* The power goes while a restart is asked for; what is started afterwards gets the numbers of what ran before, and the agent dies before it has told that. Then it is done already. */
static void a_reboot_gives_the_same_numbers_again(void **state)
{
    struct agent_model *m = *state;
    struct am_ensure e;
    given_running(m);
    struct am_container *c = am_find(m, "u");
    int64_t pid = c->pid, ticks = c->ticks;
    am_ensure_init(&e, "u", 2, "a");
    e.cmd.restart_serial = 1;
    am_command(m, &e.cmd);
    am_sync(m);
    am_crash(m);
    c->running = false;
    am_boot(m);
    am_job_execute(m, 0);
    am_job_finish(m, 0); /* inspected: it is gone */
    am_sync(m);
    am_job_execute(m, 0);
    assert_true(c->running);
    c->pid = pid;
    c->ticks = ticks;
    am_crash(m);
    am_boot(m);
    am_settle(m);
    assert_int_equal(am_calls(m, "u", 2, HA_JOB_START), 1);
    assert_int_equal(am_calls(m, "u", 2, HA_JOB_RESTART), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(results_wait_for_the_link_and_are_sent_again),
        T(a_full_disk_refuses_what_is_new_and_nothing_else),
        T(volumes_without_room_are_refused_to_new_containers_only),
        T(an_overloaded_host_takes_nothing_new),
        T(an_overloaded_host_leaves_alone_what_runs),
        T(sessions_grow_and_are_durable_first),
        T(digest_counts_what_is_confirmed),
        T(digest_item_is_the_documented_one),
        T(inventory_lists_everything),
        T(an_inventory_tells_only_what_is_durable),
        T(what_was_not_made_whole_is_replaced),
        T(reattaches_to_what_runs_and_notices_what_ended),
        T(a_reused_pid_is_another_process),
        T(a_reboot_gives_the_same_numbers_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
