/* agent_journal_faults_test.c — every call that the agent's journal makes to its disk fails once, and every allocation: what was told durable is there, what was handed over is there as a
 * whole or not at all, a failure is no damage, and the next start goes on. Of SQLite's own allocations, some 5,000, each 17th; all with --all. */
#include <errno.h>
#include <fcntl.h>
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
#include <sqlite3.h>

#include "base/log.h"
#include "io/loop.h"
#include "lib/fail_alloc.h"
#include "lib/journal_model.h"
#include "lib/memory_vfs.h"
#include "shell/journal_files.h"
#include "shell/journal_sqlite.h"
#include "torture/journal_run.h"

enum { STEPS = 6, SPEC_BYTES = 6000 /* more than a page of the database */ };

static struct {
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop turning: the journal does not */
    char dir[64], path[128];
    uint64_t states[STEPS + 1]; /* digest after so many steps */
    long alloc_stride;
} t;

struct day {
    struct mv_disk disk;
    struct ha_sqlite *j;
    int code;              /* what the failing call answers */
    uint64_t told, handed; /* steps */
    bool told_now;         /* of the step under way; with the status */
    int status;
    int troubles; /* refused opens and failed writes */
};

/* ---- What is written ---- */

/* The writes of step 1, 2, …; they point into static memory. */
static size_t writes_of(int step, struct ha_write out[8])
{
    static uint8_t spec[SPEC_BYTES];
    static struct ha_record record, other;
    static struct ha_report_row report;
    static struct ha_tombstone tombstone;
    memset(spec, step, sizeof spec);
    record = (struct ha_record){.uid = "u",
                                .name = (char *)"projects/p/regions/r1/containers/c",
                                .generation = step,
                                .spec = {spec, sizeof spec},
                                .error_message = (char *)"m"};
    other = (struct ha_record){.uid = "v", .name = (char *)"projects/p/regions/r1/containers/d", .generation = step};
    report = (struct ha_report_row){.id = step, .uid = "u", .generation = step, .body = {spec, 300}};
    tombstone = (struct ha_tombstone){.uid = "w", .generation = step, .report_id = step};
    size_t n = 0;
    out[n++] = (struct ha_write){.kind = HA_WRITE_META, .meta_key = HA_META_SESSION, .number = step};
    out[n++] = (struct ha_write){.kind = HA_WRITE_CONTAINER, .record = &record};
    out[n++] = (struct ha_write){.kind = HA_WRITE_REPORT, .report = &report};
    if (step % 2)
        out[n++] = (struct ha_write){.kind = HA_WRITE_CONTAINER, .record = &other};
    else
        out[n++] = (struct ha_write){.kind = HA_WRITE_CONTAINER_DELETE, .uid = "v"};
    if (step > 2)
        out[n++] = (struct ha_write){.kind = HA_WRITE_REPORT_DELETE, .number = step - 2};
    out[n++] = (struct ha_write){.kind = HA_WRITE_TOMBSTONE, .tombstone = &tombstone};
    return n;
}

static void know_states(void)
{
    static struct journal_model m;
    t.states[0] = journal_state_digest(&m.durable);
    for (int step = 1; step <= STEPS; step++) {
        struct ha_write writes[8];
        jm_write(&m, (uint64_t)step, writes, writes_of(step, writes));
        jm_sync(&m, 1);
        t.states[step] = journal_state_digest(&m.durable);
    }
    jm_done(&m);
}

/* ---- A day ---- */

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    struct day *d = user;
    d->told_now = true;
    d->status = status;
    assert_true(!status || e->message[0]);
}

/* Only the one failure may be noticed, and as what it is. */
static void check_trouble(struct day *d, int rc, const char *message)
{
    assert_true(mv_failed());
    d->troubles++;
    assert_int_equal(d->troubles, 1);
    if (rc == HP_ECORRUPT || rc == HP_EUNSUPPORTED || !*message)
        fail_msg("a failing call is taken for: %d %s", rc, message);
    if (d->code == SQLITE_NOMEM)
        assert_int_equal(rc, HP_ENOMEM);
    if (d->code == SQLITE_FULL)
        assert_int_equal(rc, HP_ELIMIT);
}

/* What is there is one of the states that may be; it counts as told from here on. */
static void check_state(struct day *d, const struct ha_image *image)
{
    uint64_t digest = journal_state_digest(image), i = d->told;
    while (i < d->handed && t.states[i] != digest)
        i++;
    assert_true(t.states[i] == digest);
    d->told = d->handed = i;
}

static void open_journal(struct day *d)
{
    for (;;) {
        struct ha_image image;
        struct hp_error e = {0};
        int rc = ha_sqlite_open(&t.loop, t.path, &d->j, &image, &e);
        if (!rc) {
            check_state(d, &image);
            ha_image_done(&image);
            ha_sqlite_journal(d->j)->synced_cb = on_synced;
            ha_sqlite_journal(d->j)->user = d;
            ha_sqlite_reserve(d->j, 4096);
            return;
        }
        check_trouble(d, rc, e.message);
        uv_run(&t.loop, UV_RUN_NOWAIT);
        assert_true(mv_idle());
    }
}

static void close_journal(struct day *d)
{
    ha_sqlite_close(d->j);
    uv_run(&t.loop, UV_RUN_NOWAIT);
    assert_true(mv_idle());
}

static long syncs(void)
{
    return mv_calls(MV_CALL_SYNC);
}

/* Hands one step over until it is told durable. */
static void do_step(struct day *d, int step)
{
    struct ha_write writes[8];
    while (d->told < (uint64_t)step) {
        size_t count = writes_of(step, writes);
        long before = syncs();
        d->handed = (uint64_t)step;
        d->told_now = false;
        ha_sqlite_journal(d->j)->write(ha_sqlite_journal(d->j), (uint64_t)step, writes, count);
        while (!d->told_now)
            uv_run(&t.loop, UV_RUN_ONCE);
        if (!d->status) {
            assert_true(syncs() > before);
            d->told = (uint64_t)step;
            return;
        }
        check_trouble(d, d->status, "a write");
        assert_int_not_equal(d->code, SQLITE_FULL); /* that is waited for */
        close_journal(d);                           /* the agent ends, and starts again */
        open_journal(d);
    }
}

/* From nothing to the last step, with an orderly restart in the middle; at the end, all is there. */
static void live(enum mv_call call, long at, int code)
{
    static struct day day;
    day = (struct day){.code = code};
    mv_use(&day.disk, NULL);
    mv_fail(call, at, code);
    open_journal(&day);
    for (int step = 1; step <= STEPS; step++) {
        do_step(&day, step);
        if (step == STEPS / 2) {
            close_journal(&day);
            open_journal(&day);
        }
    }
    close_journal(&day);
    open_journal(&day);
    assert_int_equal(day.told, STEPS);
    close_journal(&day);
    mv_use(NULL, NULL);
    mv_disk_done(&day.disk);
}

/* Every call of a kind, or each `stride`th, in turn; a fresh disk each time. */
static void each(enum mv_call call, int code, long expected, long stride)
{
    live(call, 0, 0); /* what SQLite makes once and keeps */
    live(call, 0, 0);
    long total = mv_calls(call);
    assert_true(total >= expected);
    for (long at = 1; at <= total; at += stride) {
        live(call, at, code);
        assert_true(mv_failed());
    }
}

static void every_call_to_the_disk_fails_once(void **state)
{
    static const struct {
        enum mv_call call;
        int code;
        long expected; /* calls at the least, or the test looks at nothing */
    } kinds[] = {
        {MV_CALL_OPEN, SQLITE_CANTOPEN, 6},       {MV_CALL_READ, SQLITE_IOERR_READ, 10},
        {MV_CALL_WRITE, SQLITE_IOERR_WRITE, 40},  {MV_CALL_WRITE, SQLITE_FULL, 40},
        {MV_CALL_SYNC, SQLITE_IOERR_FSYNC, 10},   {MV_CALL_TRUNCATE, SQLITE_IOERR_TRUNCATE, 1},
        {MV_CALL_SIZE, SQLITE_IOERR_FSTAT, 5},    {MV_CALL_LOCK, SQLITE_IOERR_LOCK, 5},
        {MV_CALL_LOCK, SQLITE_BUSY, 5},           {MV_CALL_DELETE, SQLITE_IOERR_DELETE, 2},
        {MV_CALL_ACCESS, SQLITE_IOERR_ACCESS, 4},
    };
    for (int checkpoint_at = 0; checkpoint_at <= 4; checkpoint_at += 4) {
        mv_options(&(struct mv_broken){.checkpoint_at = checkpoint_at});
        for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
            each(kinds[i].call, kinds[i].code, kinds[i].expected, 1);
    }
    mv_options(&(struct mv_broken){0});
}

static void every_allocation_of_sqlite_fails_once(void **state)
{
    mv_options(&(struct mv_broken){.checkpoint_at = 4});
    each(MV_CALL_ALLOC, SQLITE_NOMEM, 500, t.alloc_stride);
    mv_options(&(struct mv_broken){0});
}

/* A size that could not be asked for was taken for an empty log, and what the damaged log had was forgotten. */
static void damage_is_noticed_even_when_a_call_fails(void **state)
{
    static struct day day;
    static struct mv_disk killed, disk;
    mv_fail(MV_CALL_OPEN, 0, 0);
    mv_use(&day.disk, NULL);
    open_journal(&day);
    for (int step = 1; step <= STEPS; step++)
        do_step(&day, step);
    mv_disk_copy(&killed, &day.disk); /* its write-ahead log has all of it */
    close_journal(&day);
    assert_true(killed.files[MV_WAL].size > 10000);
    mv_disk_flip(&killed, MV_WAL, 100, 1);
    static const struct {
        enum mv_call call;
        int code;
    } kinds[] = {{MV_CALL_READ, SQLITE_IOERR_READ}, {MV_CALL_SIZE, SQLITE_IOERR_FSTAT}, {MV_CALL_ALLOC, SQLITE_NOMEM}};
    for (size_t i = 0; i < 3; i++)
        for (long at = 1; at == 1 || mv_failed(); at++) {
            struct ha_sqlite *j;
            struct ha_image image;
            struct hp_error e = {0};
            mv_disk_copy(&disk, &killed);
            mv_use(&disk, NULL);
            mv_fail(kinds[i].call, at, kinds[i].code);
            int rc = ha_sqlite_open(&t.loop, t.path, &j, &image, &e);
            assert_true(rc == HP_ECORRUPT || (mv_failed() && (rc == HP_EIO || rc == HP_ENOMEM)));
            uv_run(&t.loop, UV_RUN_NOWAIT);
        }
    mv_use(NULL, NULL);
    mv_disk_done(&disk);
    mv_disk_done(&killed);
    mv_disk_done(&day.disk);
}

/* ---- Reading, with our own allocations ---- */

static void read_journal(void *user)
{
    struct ha_sqlite *j;
    struct ha_image image;
    struct hp_error e = {0};
    fa_enter();
    int rc = ha_sqlite_open(&t.loop, t.path, &j, &image, &e);
    if (!rc)
        assert_true(journal_state_digest(&image) == t.states[STEPS]);
    else if (rc != HP_ENOMEM)
        fail_msg("an allocation that fails is taken for: %s", e.message);
    if (!rc) {
        ha_image_done(&image); /* after a failure there is nothing in it */
        ha_sqlite_close(j);
    }
    uv_run(&t.loop, UV_RUN_NOWAIT);
    fa_leave();
    assert_true(mv_idle());
}

static void every_allocation_of_an_open_fails_once(void **state)
{
    static struct day day;
    mv_fail(MV_CALL_OPEN, 0, 0);
    mv_use(&day.disk, NULL);
    open_journal(&day);
    for (int step = 1; step <= STEPS; step++)
        do_step(&day, step);
    close_journal(&day);
    assert_true(fa_each(read_journal, NULL) > 300);
    mv_use(NULL, NULL);
    mv_disk_done(&day.disk);
}

/* ---- The files as files ---- */

static int rename_fails_at, renames; /* the call that fails; 0: none */
static bool fallocate_fails;

/* journal_files.c's calls come here first. */
int rename(const char *from, const char *to)
{
    if (++renames == rename_fails_at) {
        errno = EIO;
        return -1;
    }
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int posix_fallocate(int fd, off_t offset, off_t len)
{
    if (fallocate_fails)
        return ftruncate(fd, len / 2) ? EIO : ENOSPC; /* some of it is taken when the room ends */
    return ftruncate(fd, offset + len);
}

static const char *const parts[] = {"", "-wal", "-shm", "-journal"};

static void put_parts(void)
{
    for (size_t i = 0; i < 4; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s%s", t.path, parts[i]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(parts[i], f);
        fclose(f);
    }
}

static int count_parts(const char *base)
{
    int n = 0;
    for (size_t i = 0; i < 4; i++) {
        char path[4200], text[16] = "";
        snprintf(path, sizeof path, "%s%s", base, parts[i]);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        (void)!fread(text, 1, sizeof text - 1, f);
        assert_string_equal(text, parts[i]);
        fclose(f);
        n++;
    }
    return n;
}

/* A journal of which one half lay here and one half there would be neither read nor looked at: all of it is moved, or nothing. */
static void a_journal_is_moved_as_a_whole(void **state)
{
    char aside[4096];
    for (int at = 1; at <= 4; at++) {
        struct hp_error e = {0};
        put_parts();
        renames = 0;
        rename_fails_at = at;
        assert_int_equal(ha_journal_quarantine(t.path, aside, &e), HP_EIO);
        rename_fails_at = 0;
        assert_int_equal(count_parts(t.path), 4);
        assert_int_equal(count_parts(aside), 0);
        assert_int_equal(ha_journal_quarantine(t.path, aside, &e), 0); /* the next start */
        assert_int_equal(count_parts(t.path), 0);
        assert_int_equal(count_parts(aside), 4);
    }
}

static void room_is_kept_or_not_taken(void **state)
{
    struct hp_error e = {0};
    fallocate_fails = true;
    assert_int_equal(ha_reserve_take(t.path, 4096, &e), HP_ELIMIT);
    fallocate_fails = false;
    assert_false(ha_reserve_give(t.path)); /* nothing was left behind */
    assert_int_equal(ha_reserve_take(t.path, 4096, &e), 0);
    assert_true(ha_reserve_give(t.path));
    char nowhere[160];
    snprintf(nowhere, sizeof nowhere, "%s/no/journal.db", t.dir);
    assert_int_equal(ha_reserve_take(nowhere, 4096, &e), HP_EIO);
}

/* ---- */

static void on_tick(uv_timer_t *timer)
{
}

static int setup(void **state)
{
    hp_log_set_level(HP_LOG_ERROR);
    mv_watch_allocations();
    mv_install();
    know_states();
    snprintf(t.dir, sizeof t.dir, "/tmp/ha-faults-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.path, sizeof t.path, "%s/journal.db", t.dir);
    uv_loop_init(&t.loop);
    uv_timer_init(&t.loop, &t.tick);
    return uv_timer_start(&t.tick, on_tick, 5, 5);
}

static int teardown(void **state)
{
    char command[128];
    uv_close((uv_handle_t *)&t.tick, NULL);
    while (uv_run(&t.loop, UV_RUN_ONCE))
        ;
    assert_int_equal(uv_loop_close(&t.loop), 0);
    snprintf(command, sizeof command, "rm -rf %s", t.dir);
    return system(command);
}

int main(int argc, char **argv)
{
    t.alloc_stride = argc > 1 && strcmp(argv[1], "--all") == 0 ? 1 : 17;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call_to_the_disk_fails_once),
                                       cmocka_unit_test(every_allocation_of_sqlite_fails_once),
                                       cmocka_unit_test(damage_is_noticed_even_when_a_call_fails),
                                       cmocka_unit_test(every_allocation_of_an_open_fails_once),
                                       cmocka_unit_test(a_journal_is_moved_as_a_whole),
                                       cmocka_unit_test(room_is_kept_or_not_taken)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
