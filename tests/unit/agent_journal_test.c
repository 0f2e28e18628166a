/* The agent's journal on disk: what is told durable survives kill -9, batches are whole, damage is noticed. */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "io/loop.h"
#include "shell/journal_files.h"
#include "shell/journal_sqlite.h"

struct world {
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop turning: the journal does not */
    char dir[64], path[128];
    struct ha_sqlite *j;
    struct ha_image image;
    uint64_t synced;
    int status;
};

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    struct world *w = user;
    assert_true(seq > w->synced);
    w->synced = seq;
    w->status = status;
}

static void on_tick(uv_timer_t *t)
{
}

static void start_loop(struct world *w)
{
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->tick);
    uv_timer_start(&w->tick, on_tick, 5, 5);
}

static void open_journal(struct world *w)
{
    struct hp_error e = {0};
    int rc = ha_sqlite_open(&w->loop, w->path, &w->j, &w->image, &e);
    if (rc)
        fail_msg("%s", e.message);
    w->synced = 0;
    ha_sqlite_journal(w->j)->synced_cb = on_synced;
    ha_sqlite_journal(w->j)->user = w;
}

static void close_journal(struct world *w)
{
    ha_sqlite_close(w->j);
    ha_image_done(&w->image);
    w->j = NULL;
}

static void wait_synced(struct world *w, uint64_t seq)
{
    uint64_t end = hp_now_ms() + 10000;
    while (w->synced < seq) {
        assert_true(hp_now_ms() < end);
        uv_run(&w->loop, UV_RUN_ONCE);
    }
}

static int setup(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    start_loop(&w);
    snprintf(w.dir, sizeof w.dir, "/tmp/ha-journal-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    snprintf(w.path, sizeof w.path, "%s/journal.db", w.dir);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];
    if (w->j)
        close_journal(w);
    uv_close((uv_handle_t *)&w->tick, NULL);
    while (uv_run(&w->loop, UV_RUN_ONCE))
        ;
    assert_int_equal(uv_loop_close(&w->loop), 0);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    return system(command);
}

static struct ha_record sample_record(const char *uid, int64_t generation)
{
    static uint8_t spec[] = {1, 0, 2, 255}, intent[] = {9};
    struct ha_record r = {.name = (char *)"projects/p/regions/r1/containers/c",
                          .generation = generation,
                          .restart_serial = 3,
                          .spec = {spec, sizeof spec},
                          .outcome = 2,
                          .error_code = 14,
                          .error_message = (char *)"it's \"broken\"",
                          .intent = {.generation = generation + 1,
                                     .verb = 1,
                                     .step = 1,
                                     .epoch = 1LL << 60,
                                     .restart_serial = 4,
                                     .operation_id = "op",
                                     .spec = {intent, sizeof intent}},
                          .quarantined = true,
                          .state = 3,
                          .health = 2,
                          .pid = 1234,
                          .pid_start_ticks = 1LL << 50,
                          .exit_code = -1,
                          .oom_killed = true,
                          .restart_count = 5,
                          .address = (char *)"10.0.0.2/24",
                          .message = (char *)"m",
                          .start_wall_ns = 1,
                          .finish_wall_ns = 2,
                          .known = {true, 7, 1, 3}};
    snprintf(r.uid, sizeof r.uid, "%s", uid);
    return r;
}

static void assert_record(const struct ha_record *a, const struct ha_record *b)
{
    assert_string_equal(a->uid, b->uid);
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->restart_serial, b->restart_serial);
    assert_int_equal(a->spec.len, b->spec.len);
    assert_memory_equal(a->spec.data, b->spec.data, b->spec.len);
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->error_code, b->error_code);
    assert_string_equal(a->error_message, b->error_message);
    assert_int_equal(a->intent.generation, b->intent.generation);
    assert_int_equal(a->intent.verb, b->intent.verb);
    assert_int_equal(a->intent.step, b->intent.step);
    assert_int_equal(a->intent.epoch, b->intent.epoch);
    assert_int_equal(a->intent.restart_serial, b->intent.restart_serial);
    assert_string_equal(a->intent.operation_id, b->intent.operation_id);
    assert_memory_equal(a->intent.spec.data, b->intent.spec.data, b->intent.spec.len);
    assert_int_equal(a->quarantined, b->quarantined);
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->health, b->health);
    assert_int_equal(a->pid, b->pid);
    assert_int_equal(a->pid_start_ticks, b->pid_start_ticks);
    assert_int_equal(a->exit_code, b->exit_code);
    assert_int_equal(a->oom_killed, b->oom_killed);
    assert_int_equal(a->restart_count, b->restart_count);
    assert_string_equal(a->address, b->address);
    assert_null(a->image_digest);
    assert_string_equal(a->message, b->message);
    assert_int_equal(a->finish_wall_ns, b->finish_wall_ns);
    assert_int_equal(a->known.counts, b->known.counts);
    assert_int_equal(a->known.generation, b->known.generation);
    assert_int_equal(a->known.state, b->known.state);
}

static void everything_comes_back(void **state)
{
    struct world *w = *state;
    struct ha_record r = sample_record("u", 8);
    static uint8_t body[] = "report";
    struct ha_report_row report = {.id = 42, .uid = "u", .result = true, .generation = 8, .body = {body, sizeof body}};
    struct ha_tombstone t1 = {.uid = "z", .generation = 1}, t2 = {.uid = "a", .generation = 2, .report_id = 42};
    struct ha_write writes[] = {{.kind = HA_WRITE_META, .meta_key = HA_META_EPOCH, .number = 77},
                                {.kind = HA_WRITE_CONTAINER, .record = &r},
                                {.kind = HA_WRITE_REPORT, .report = &report},
                                {.kind = HA_WRITE_TOMBSTONE, .tombstone = &t1},
                                {.kind = HA_WRITE_TOMBSTONE, .tombstone = &t2}};
    open_journal(w);
    assert_int_equal(w->image.record_count, 0);
    ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), 1, writes, 5);
    wait_synced(w, 1);
    assert_int_equal(w->status, 0);
    close_journal(w);
    open_journal(w);
    assert_int_equal(w->image.meta[HA_META_EPOCH], 77);
    assert_int_equal(w->image.record_count, 1);
    assert_record(&w->image.records[0], &r);
    assert_int_equal(w->image.report_count, 1);
    assert_int_equal(w->image.reports[0].id, 42);
    assert_memory_equal(w->image.reports[0].body.data, body, sizeof body);
    assert_int_equal(w->image.tombstone_count, 2);
    assert_string_equal(w->image.tombstones[0].uid, "z"); /* in the order of writing */
    struct ha_write deletes[] = {{.kind = HA_WRITE_CONTAINER_DELETE, .uid = "u"},
                                 {.kind = HA_WRITE_REPORT_DELETE, .number = 42},
                                 {.kind = HA_WRITE_TOMBSTONE, .tombstone = &t1}, /* now the youngest */
                                 {.kind = HA_WRITE_TOMBSTONE_DELETE, .uid = "nobody"}};
    ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), 1, deletes, 4);
    close_journal(w); /* writes what is queued */
    open_journal(w);
    assert_int_equal(w->image.record_count, 0);
    assert_int_equal(w->image.report_count, 0);
    assert_string_equal(w->image.tombstones[0].uid, "a");
    assert_string_equal(w->image.tombstones[1].uid, "z");
}

static void many_steps_are_told_by_the_last(void **state)
{
    struct world *w = *state;
    open_journal(w);
    for (int i = 1; i <= 500; i++) {
        struct ha_write write = {.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = i};
        ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), (uint64_t)i, &write, 1);
    }
    wait_synced(w, 500);
    close_journal(w);
    open_journal(w);
    assert_int_equal(w->image.meta[HA_META_SESSION], 500);
}

static atomic_int syncs; /* that have ended */

/* SQLite's calls come here first. */
int fdatasync(int fd)
{
    long rc = syscall(SYS_fdatasync, fd);
    atomic_fetch_add(&syncs, 1);
    return (int)rc;
}

int fsync(int fd)
{
    long rc = syscall(SYS_fsync, fd);
    atomic_fetch_add(&syncs, 1);
    return (int)rc;
}

/* A power cut leaves what the disk was made to keep, and no kill -9 shows the difference: so each step that is told durable must have been synced since. */
static void durable_means_synced(void **state)
{
    struct world *w = *state;
    open_journal(w);
    for (int i = 1; i <= 50; i++) {
        struct ha_write write = {.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = i};
        int before = atomic_load(&syncs);
        ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), (uint64_t)i, &write, 1);
        wait_synced(w, (uint64_t)i);
        assert_true(atomic_load(&syncs) > before);
    }
}

/* Writes pairs (meta, record) for ever; prints the number of each that is durable. */
static void child(const char *path, int out)
{
    static struct world w;
    start_loop(&w);
    snprintf(w.path, sizeof w.path, "%s", path);
    open_journal(&w);
    int64_t n = w.image.meta[HA_META_SESSION];
    for (uint64_t seq = 1;; seq++) {
        struct ha_record r = sample_record("u", ++n);
        struct ha_write writes[] = {{.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = n},
                                    {.kind = HA_WRITE_CONTAINER, .record = &r}};
        ha_sqlite_journal(w.j)->write(ha_sqlite_journal(w.j), seq, writes, 2);
        wait_synced(&w, seq);
        if (write(out, &n, sizeof n) != sizeof n)
            _exit(0);
    }
}

/* What was told durable is there after kill -9 at any moment, and a step is there as a whole or not at all. */
static void kill_9_loses_nothing_that_was_told(void **state)
{
    struct world *w = *state;
    int64_t last = 0;
    for (int round = 0; round < 8; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child(w->path, fds[1]);
        }
        close(fds[1]);
        for (int i = 0; i < 5 + round * 7; i++)
            assert_int_equal(read(fds[0], &last, sizeof last), sizeof last);
        kill(pid, SIGKILL);
        while (read(fds[0], &last, sizeof last) == sizeof last)
            ;
        close(fds[0]);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        open_journal(w);
        int64_t session = w->image.meta[HA_META_SESSION];
        assert_true(session == last || session == last + 1);
        assert_int_equal(w->image.record_count, 1);
        assert_int_equal(w->image.records[0].generation, session);
        close_journal(w);
    }
}

static void expect_refusal(struct world *w, int code, const char *text)
{
    struct hp_error e = {0};
    assert_int_equal(ha_sqlite_open(&w->loop, w->path, &w->j, &w->image, &e), code);
    assert_non_null(strstr(e.message, text));
    w->j = NULL;
}

static void damage_is_noticed_and_said(void **state)
{
    struct world *w = *state;
    static const char noise[] =
        "this is not a database, whatever its name says, and it is long enough to be looked at closely..";
    char aside[4096];
    struct hp_error e = {0};
    int fd = open(w->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, noise, sizeof noise), sizeof noise);
    close(fd);
    expect_refusal(w, HP_ECORRUPT, "--quarantine-journal");
    assert_int_equal(ha_journal_quarantine(w->path, aside, &e), 0);
    assert_int_equal(access(aside, F_OK), 0);
    open_journal(w);
    assert_int_equal(w->image.record_count, 0);
    close_journal(w);
    assert_int_equal(unlink(w->path), 0);
    assert_int_equal(ha_journal_quarantine(w->path, aside, &e), HP_ENOTFOUND);
}

static void damaged_pages_are_noticed(void **state)
{
    struct world *w = *state;
    uint8_t junk[4096];
    struct stat st;
    open_journal(w);
    for (int i = 1; i <= 200; i++) {
        char uid[16];
        snprintf(uid, sizeof uid, "u%d", i);
        struct ha_record r = sample_record(uid, i);
        struct ha_write write = {.kind = HA_WRITE_CONTAINER, .record = &r};
        ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), (uint64_t)i, &write, 1);
    }
    wait_synced(w, 200);
    close_journal(w);
    memset(junk, 0xA5, sizeof junk);
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size > 5 * 4096);
    for (off_t at = 4096; at < st.st_size; at += 4096)
        assert_int_equal(pwrite(fd, junk, sizeof junk, at), sizeof junk);
    close(fd);
    expect_refusal(w, HP_ECORRUPT, "--quarantine-journal");
}

static void sql(struct world *w, const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void write_sample(struct world *w, const char *uid)
{
    struct ha_record r = sample_record(uid, 1);
    struct ha_write writes[] = {{.kind = HA_WRITE_META, .meta_key = HA_META_EPOCH, .number = 7},
                                {.kind = HA_WRITE_CONTAINER, .record = &r}};
    open_journal(w);
    ha_sqlite_journal(w->j)->write(ha_sqlite_journal(w->j), 1, writes, 2);
    close_journal(w);
}

static void a_row_that_changed_by_itself_is_noticed(void **state)
{
    struct world *w = *state;
    write_sample(w, "u");
    sql(w, "UPDATE containers SET pid = pid + 1");
    expect_refusal(w, HP_ECORRUPT, "not what was written");
    sql(w, "UPDATE containers SET pid = pid - 1; UPDATE meta SET value = 8 WHERE key = 1");
    expect_refusal(w, HP_ECORRUPT, "--quarantine-journal");
    sql(w, "UPDATE meta SET value = 7 WHERE key = 1");
    open_journal(w);
}

/* Agents before the sums made tables without them, and write rows without them into tables that have them. */
static void journals_of_earlier_agents_are_read(void **state)
{
    struct world *w = *state;
    write_sample(w, "u");
    sql(w,
        "ALTER TABLE meta DROP COLUMN sum; ALTER TABLE containers DROP COLUMN sum; ALTER TABLE reports DROP COLUMN sum;"
        "ALTER TABLE tombstones DROP COLUMN sum");
    write_sample(w, "v");
    sql(w, "UPDATE containers SET sum = NULL, pid = 99 WHERE uid = 'v'");
    open_journal(w);
    assert_int_equal(w->image.record_count, 2);
    assert_int_equal(w->image.records[1].pid, 99);
    assert_int_equal(w->image.meta[HA_META_EPOCH], 7);
}

/* Rows without a sum: a key of 64 bits was taken for the key that its lower half is, and so were numbers of columns. */
static void a_number_is_not_its_lower_half(void **state)
{
    struct world *w = *state;
    write_sample(w, "u");
    sql(w, "INSERT INTO meta (key, value) VALUES ((1 << 40) + 1, 99)");
    open_journal(w);
    assert_int_equal(w->image.meta[HA_META_EPOCH], 7);
    close_journal(w);
    sql(w, "UPDATE containers SET sum = NULL, state = (1 << 40) + 3");
    expect_refusal(w, HP_ECORRUPT, "column state");
}

static void a_second_agent_is_refused(void **state)
{
    struct world *w = *state;
    struct ha_sqlite *second;
    struct ha_image image;
    struct hp_error e = {0};
    open_journal(w);
    assert_int_equal(ha_sqlite_open(&w->loop, w->path, &second, &image, &e), HP_EUNAVAILABLE);
    assert_non_null(strstr(e.message, "another agent"));
}

/* An agent that is killed while a child of it shares its descriptors leaves its lock to the child, which lives for a moment longer. */
static void the_lock_of_a_dead_agent_is_waited_for(void **state)
{
    struct world *w = *state;
    int fds[2], never[2];
    char byte;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pipe(never), 0);
    pid_t agent = fork();
    if (agent == 0) {
        open_journal(w);
        if (syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL) == 0) {
            struct pollfd p = {.fd = never[0], .events = POLLIN};
            if (write(fds[1], "x", 1) == 1)
                poll(&p, 1, 200);
            _exit(0);
        }
        pause();
    }
    assert_int_equal(read(fds[0], &byte, 1), 1);
    kill(agent, SIGKILL);
    assert_int_equal(waitpid(agent, NULL, 0), agent);
    open_journal(w);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(never[i]);
    }
}

static void a_later_schema_is_refused(void **state)
{
    struct world *w = *state;
    char command[256];
    open_journal(w);
    close_journal(w);
    /* user_version is a big-endian number at offset 60 of the file (https://www.sqlite.org/fileformat.html). */
    static const uint8_t version[] = {0, 0, 0, 9};
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, version, 4, 60), 4);
    close(fd);
    snprintf(command, sizeof command, "version 9");
    expect_refusal(w, HP_EUNSUPPORTED, command);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(everything_comes_back),
        T(many_steps_are_told_by_the_last),
        T(kill_9_loses_nothing_that_was_told),
        T(damage_is_noticed_and_said),
        T(damaged_pages_are_noticed),
        T(a_second_agent_is_refused),
        T(a_row_that_changed_by_itself_is_noticed),
        T(journals_of_earlier_agents_are_read),
        T(a_number_is_not_its_lower_half),
        T(the_lock_of_a_dead_agent_is_waited_for),
        T(a_later_schema_is_refused),
        T(durable_means_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
