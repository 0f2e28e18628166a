/* scheduler_record_test.c — the transactions of the record by their trace: what is asserted first, and that nothing is committed after a failure. The SQL goes nowhere:
 * the functions of shell/sql.h and the transaction's brackets are this file's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shell/record.h"
#include "shell/sql.h"

static char trace[8192];
static uint64_t affected; /* by the next UPDATE of the region's row */
static const char *fails; /* a statement with this text in it fails; NULL: none */
static int fails_with;    /* with this */

static const char *restored = "0"; /* what the region's row says */

static int say(struct hp_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int say(struct hp_error *e, const char *fmt, ...)
{
    size_t n = strlen(trace);
    va_list ap;
    va_start(ap, fmt);
    int len = vsnprintf(trace + n, sizeof trace - n, fmt, ap);
    va_end(ap);
    assert_true(len >= 0 && n + (size_t)len + 2 < sizeof trace);
    bool bad = fails && strstr(trace + n, fails);
    strcat(trace, "\n");
    return bad ? hp_fail(e, fails_with, "made to fail") : 0;
}

int hp_db_begin(struct hp_db_conn *c, struct hp_error *e)
{
    return say(e, "BEGIN");
}

int hp_db_commit(struct hp_db_conn *c, struct hp_db_job *job, struct hp_error *e)
{
    return say(e, "COMMIT");
}

int sc_sql_exec(struct hp_db_conn *c, uint64_t *ret_affected, struct hp_error *e, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (ret_affected)
        *ret_affected = affected;
    return say(e, "%s", text);
}

int sc_sql_select(struct hp_db_conn *c, sc_row_fn row_cb, void *user, struct hp_error *e, const char *fmt, ...)
{
    char *state[] = {(char *)"8", (char *)"10", (char *)"9", (char *)"1", (char *)restored};
    const unsigned long lengths[] = {1, 2, 1, 1, 1};
    int rc = say(e, "%.*s", (int)strcspn(fmt, "'"), fmt);
    return !rc && strstr(fmt, "FROM regions") ? row_cb(user, state, lengths, e) : rc;
}

void sc_sql_begin(struct sc_sql *s, struct hp_db_conn *c, const char *head, const char *tail, const char *many,
                  struct hp_error *e)
{
    *s = (struct sc_sql){.head = head, .tail = tail, .e = e};
}

void sc_sql_row(struct sc_sql *s)
{
    s->rows++;
}

void sc_sql_row_end(struct sc_sql *s)
{
}

void sc_sql_text(struct sc_sql *s, const char *value)
{
}

void sc_sql_int(struct sc_sql *s, int64_t value)
{
}

void sc_sql_bytes(struct sc_sql *s, const void *data, size_t len)
{
}

int sc_sql_end(struct sc_sql *s)
{
    int words = 0;
    const char *end = s->head;
    while (*end && words < 3)
        words += *end++ == ' ';
    if (!s->rows)
        return 0;
    return say(s->e, "%.*s%zu rows%s", (int)(end - s->head), s->head, s->rows,
               strstr(s->tail, "ON DUPLICATE KEY") ? ", or update" : "");
}

/* ---- */

static int setup(void **state)
{
    trace[0] = '\0';
    affected = 1;
    fails = NULL;
    restored = "0";
    return 0;
}

static void expect(const char *expected)
{
    assert_string_equal(trace, expected);
    trace[0] = '\0';
}

/* One new operation and one that is recorded already, a container, a host, an event; of epoch 7. */
static int write_batch(struct hp_error *e)
{
    struct sc_blob *body = calloc(1, sizeof *body + 1);
    struct sc_operation_row operations[] = {{.id = "a", .fresh = true, .active = true, .body = body},
                                            {.id = "b", .active = true, .body = body}};
    struct sc_uid_row deletes[] = {{"u"}};
    struct sc_container_row container = {.name = (char *)"c", .body = body};
    struct sc_host_row host = {.name = "h1", .body = body};
    struct sc_event_row event = {.sequence = 12, .body = body};
    struct sc_batch b = {.epoch = 7,
                         .sequence = 12,
                         .watermark = 11,
                         .oldest = 2,
                         .operations = operations,
                         .operation_count = 2,
                         .deletes = deletes,
                         .delete_count = 1,
                         .containers = &container,
                         .container_count = 1,
                         .hosts = &host,
                         .host_count = 1,
                         .events = &event,
                         .event_count = 1,
                         .events_below = 2};
    struct sc_write w;
    sc_write_init(&w, "r1", &b);
    int rc = w.job.run(&w.job, NULL, e);
    free(body);
    return rc;
}

#define ASSERTED                                                                                                       \
    "BEGIN\n"                                                                                                          \
    "UPDATE regions SET sequence = 12, watermark = 11, oldest = 2, restored = 0, revision = revision + 1 WHERE name "  \
    "= "                                                                                                               \
    "'r1' AND epoch = 7 AND restored <> 1\n"

static void the_epoch_is_asserted_before_anything_is_written(void **state)
{
    struct hp_error e = {0};
    assert_int_equal(write_batch(&e), 0);
    expect(ASSERTED "INSERT INTO operations 1 rows\n" /* one that is there already is an error, not an update */
                    "INSERT INTO operations 1 rows, or update\n"
                    "DELETE FROM containers 1 rows\n"
                    "INSERT INTO containers 1 rows, or update\n"
                    "INSERT INTO hosts 1 rows, or update\n"
                    "INSERT INTO events 1 rows\n"
                    "DELETE FROM events WHERE region = 'r1' AND sequence < 2\n"
                    "COMMIT\n");
}

/* Another scheduler has taken over: the UPDATE finds no row, and that alone says so. */
static void a_newer_epoch_fences(void **state)
{
    struct hp_error e = {0};
    affected = 0;
    assert_int_equal(write_batch(&e), HP_EFENCED);
    assert_non_null(strstr(e.message, "epoch 7 is over"));
    expect(ASSERTED);
}

static void nothing_is_committed_after_a_failure(void **state)
{
    static const char *const statements[] = {"BEGIN",           "UPDATE regions",           "INTO operations",
                                             "FROM containers", "INTO containers",          "INTO hosts",
                                             "INTO events",     "DELETE FROM events WHERE", "rows, or update"};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        struct hp_error e = {0};
        fails = statements[i];
        fails_with = HP_EIO;
        assert_int_equal(write_batch(&e), HP_EIO);
        assert_null(strstr(trace, "COMMIT"));
        trace[0] = '\0';
    }
}

static int take_over(int64_t *ret_epoch, struct hp_error *e)
{
    struct sc_takeover t;
    struct sc_region_config config;
    sc_region_config_defaults(&config);
    sc_takeover_init(&t, &config, "r1", "s1", 1);
    int rc = t.job.run(&t.job, NULL, e);
    *ret_epoch = t.epoch;
    assert_true((rc == 0) == (t.region != NULL));
    sc_region_free(t.region);
    return rc;
}

#define RAISED                                                                                                         \
    "INSERT IGNORE INTO regions (name) VALUES ('r1')\n"                                                                \
    "UPDATE regions SET epoch = epoch + 1, revision = revision + 1, holder = 's1' WHERE name = 'r1' AND epoch >= 0 "   \
    "AND "                                                                                                             \
    "restored <> 1\n"
#define WHY "SELECT epoch, sequence, watermark, oldest, restored FROM regions WHERE name = \n"

/* Whoever reads the record must know that nobody else can write it any more. */
static void the_epoch_is_raised_before_the_record_is_read(void **state)
{
    struct hp_error e = {0};
    int64_t epoch;
    assert_int_equal(take_over(&epoch, &e), 0);
    assert_int_equal(epoch, 8);
    assert_int_equal(strncmp(trace, RAISED, strlen(RAISED)), 0);
    assert_non_null(strstr(trace, "SELECT id, serial, body FROM operations"));
    trace[0] = '\0';
}

/* A record that is older than the region, or was loaded from a backup, is not led, and keeps its epoch. */
static void an_older_record_is_not_led(void **state)
{
    struct hp_error e = {0};
    int64_t epoch;
    affected = 0;
    assert_int_equal(take_over(&epoch, &e), HP_ECONFLICT);
    assert_non_null(strstr(e.message, "is older than the region"));
    expect(RAISED WHY);
    restored = "1";
    assert_int_equal(take_over(&epoch, &e), HP_ECONFLICT);
    assert_non_null(strstr(e.message, "loaded from a backup"));
    expect(RAISED WHY);
}

static void a_record_that_cannot_be_read_is_not_led(void **state)
{
    static const char *const tables[] = {"FROM projects",  "FROM hosts",  "FROM containers", "SELECT id, serial",
                                         "SELECT id FROM", "FROM events", "FROM regions"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct hp_error e = {0};
        int64_t epoch;
        fails = tables[i];
        fails_with = HP_EUNAVAILABLE;
        assert_int_equal(take_over(&epoch, &e), HP_EUNAVAILABLE);
        trace[0] = '\0';
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(the_epoch_is_asserted_before_anything_is_written),
        T(a_newer_epoch_fences),
        T(nothing_is_committed_after_a_failure),
        T(the_epoch_is_raised_before_the_record_is_read),
        T(an_older_record_is_not_led),
        T(a_record_that_cannot_be_read_is_not_led),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
