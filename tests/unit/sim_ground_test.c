/* The simulated machines' record: what is rebuilt from it after a kill at any line, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "fleet_sim/sim_ground.h"

struct fixture {
    char directory[64], log[80], state[80];
    struct sim_ground *ground;
    struct sim_machine *machine;
};

static void open_again(struct fixture *f)
{
    struct hp_error e = {0};
    if (f->ground)
        sim_ground_close(f->ground);
    f->ground = NULL;
    if (sim_ground_open(f->log, &f->ground, &e))
        fail_msg("%s", e.message);
    f->machine = sim_ground_machine(f->ground, "h1");
    assert_non_null(f->machine);
}

static int setup(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    strcpy(f.directory, "/tmp/hp-ground-XXXXXX");
    assert_non_null(mkdtemp(f.directory));
    snprintf(f.log, sizeof f.log, "%s/log", f.directory);
    snprintf(f.state, sizeof f.state, "%s/state", f.directory);
    open_again(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->ground)
        sim_ground_close(f->ground);
    unlink(f->log);
    unlink(f->state);
    rmdir(f->directory);
    return 0;
}

static struct ha_job job(enum ha_job_kind kind, int64_t generation)
{
    return (struct ha_job){.kind = kind,
                           .uid = "u1",
                           .container = "projects/p/regions/r/containers/\"c\"",
                           .generation = generation,
                           .spec_digest = UINT64_MAX - 1,
                           .start = true};
}

/* A create that went through; gives its pid. */
static int64_t create(struct fixture *f, int64_t generation)
{
    struct ha_job j = job(HA_JOB_CREATE, generation);
    uint64_t number = sim_ground_begin(f->ground, f->machine, &j);
    struct sim_container *c = sim_machine_add(f->machine, j.uid, j.container);
    c->complete = true;
    c->generation = generation;
    c->pid = sim_ground_pid(f->ground);
    c->memory_bytes = 1 << 20;
    sim_ground_end(f->ground, f->machine, number, &j);
    return c->pid;
}

static void what_ended_is_there_again(void **state)
{
    struct fixture *f = *state;
    int64_t pid = create(f, 3);
    sim_ground_boot(f->ground, 1);
    open_again(f);
    struct sim_container *c = sim_machine_find(f->machine, "u1");
    assert_non_null(c);
    assert_true(c->complete);
    assert_int_equal(c->pid, pid);
    assert_int_equal(c->generation, 3);
    assert_true(c->spec_digest == UINT64_MAX - 1);
    assert_int_equal(c->memory_bytes, 1 << 20);
    assert_string_equal(c->name, "projects/p/regions/r/containers/\"c\"");
    assert_true(sim_ground_pid(f->ground) > pid);
}

static void a_create_that_was_cut_off_leaves_something_incomplete(void **state)
{
    struct fixture *f = *state;
    struct ha_job j = job(HA_JOB_CREATE, 2);
    assert_true(sim_ground_begin(f->ground, f->machine, &j) > 0);
    open_again(f);
    struct sim_container *c = sim_machine_find(f->machine, "u1");
    assert_non_null(c);
    assert_false(c->complete);
    assert_int_equal(c->pid, 0);
    assert_int_equal(c->generation, 2);
    /* And it is no longer under way: its number is not used again. */
    struct ha_job remove = job(HA_JOB_REMOVE, 2);
    sim_ground_boot(f->ground, 1);
    uint64_t number = sim_ground_begin(f->ground, f->machine, &remove);
    assert_int_equal(number, 2);
    sim_machine_drop(f->machine, c);
    sim_ground_end(f->ground, f->machine, number, &remove);
    open_again(f);
    assert_null(sim_machine_find(f->machine, "u1"));
}

static void other_jobs_that_were_cut_off_did_not_happen(void **state)
{
    static const enum ha_job_kind kinds[] = {HA_JOB_STOP, HA_JOB_RESTART, HA_JOB_REMOVE, HA_JOB_RESIZE, HA_JOB_START};
    struct fixture *f = *state;
    int64_t pid = create(f, 1);
    for (size_t i = 0; i < 5; i++) {
        struct ha_job j = job(kinds[i], 9);
        assert_true(sim_ground_begin(f->ground, f->machine, &j) > 0);
        open_again(f);
        assert_int_equal(sim_machine_find(f->machine, "u1")->pid, pid);
        assert_int_equal(sim_machine_find(f->machine, "u1")->generation, 1);
    }
}

static void questions_are_not_written(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;
    struct ha_job inspect = job(HA_JOB_INSPECT, 0), probe = job(HA_JOB_PROBE, 0);
    assert_int_equal(stat(f->log, &before), 0);
    assert_int_equal(sim_ground_begin(f->ground, f->machine, &inspect), 0);
    assert_int_equal(sim_ground_begin(f->ground, f->machine, &probe), 0);
    sim_ground_end(f->ground, f->machine, 0, &inspect);
    assert_int_equal(stat(f->log, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
}

static void a_process_that_ended_stays_ended(void **state)
{
    struct fixture *f = *state;
    int64_t pid = create(f, 1);
    struct sim_container *c = sim_machine_find(f->machine, "u1");
    c->pid = 0;
    c->exit_code = 7;
    sim_ground_exit(f->ground, f->machine, c, pid);
    open_again(f);
    c = sim_machine_find(f->machine, "u1");
    assert_int_equal(c->pid, 0);
    assert_int_equal(c->exit_code, 7);
    assert_true(c->complete);
}

static void add_text(struct fixture *f, const char *text)
{
    FILE *out = fopen(f->log, "a");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void a_line_that_was_cut_short_is_cut_away(void **state)
{
    struct fixture *f = *state;
    create(f, 1);
    struct stat before, after;
    assert_int_equal(stat(f->log, &before), 0);
    add_text(f, "{\"t\":1,\"op\":\"exit\",\"host\":\"h1\",\"uid\":\"u1\",\"pid\":1001,\"code\":1}");
    open_again(f);
    assert_true(sim_machine_find(f->machine, "u1")->pid > 0);
    assert_int_equal(stat(f->log, &after), 0);
    assert_int_equal(before.st_size, after.st_size);
}

static void nonsense_is_refused_with_its_line(void **state)
{
    static const char *const bad[] = {"hello\n", "{\"op\":\"jump\"}\n", "{\"op\":\"end\",\"job\":77}\n",
                                      "{\"op\":\"begin\"}\n"};
    struct fixture *f = *state;
    create(f, 1);
    struct stat good;
    assert_int_equal(stat(f->log, &good), 0);
    for (size_t i = 0; i < 4; i++) {
        struct hp_error e = {0};
        struct sim_ground *g = NULL;
        add_text(f, bad[i]);
        assert_int_equal(sim_ground_open(f->log, &g, &e), HP_ECORRUPT);
        assert_null(g);
        assert_non_null(strstr(e.message, "line 3"));
        assert_int_equal(truncate(f->log, good.st_size), 0);
    }
}

static void the_state_says_what_there_is(void **state)
{
    struct fixture *f = *state;
    int64_t pid = create(f, 4);
    assert_int_equal(sim_ground_dump(f->ground, f->state, NULL), 0);
    json_t *top = json_load_file(f->state, 0, NULL);
    json_int_t lines = 0, said = 0, generation = 0;
    const char *host = NULL, *uid = NULL;
    int running = 0;
    assert_int_equal(json_unpack(top, "{s:I,s:[{s:s,s:s,s:I,s:I,s:b}]}", "lines", &lines, "containers", "host", &host,
                                 "uid", &uid, "generation", &generation, "pid", &said, "running", &running),
                     0);
    assert_int_equal(lines, 2);
    assert_int_equal(said, pid);
    assert_int_equal(generation, 4);
    assert_true(running);
    assert_string_equal(host, "h1");
    assert_string_equal(uid, "u1");
    json_decref(top);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_ended_is_there_again),
        T(a_create_that_was_cut_off_leaves_something_incomplete),
        T(other_jobs_that_were_cut_off_did_not_happen),
        T(questions_are_not_written),
        T(a_process_that_ended_stays_ended),
        T(a_line_that_was_cut_short_is_cut_away),
        T(nonsense_is_refused_with_its_line),
        T(the_state_says_what_there_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
