/* sql_rows_test.c — rows for a real MariaDB, few as text and many as they are: what is read back is what was put in, whatever bytes it has; what goes wrong is said by its kind. */
#include "lib/loop_test.h"

#include "shell/sql.h"

enum { COUNT = 3000, BODY_MAX = 4096 };

struct job {
    struct hp_db_job job;
    int (*work)(struct hp_db_conn *c, struct hp_error *e);
    bool done;
    int result;
    struct hp_error error;
};

#define HEAD "INSERT INTO sql_rows (n, name, body) VALUES "
#define TAIL " ON DUPLICATE KEY UPDATE name = VALUES(name), body = VALUES(body)"
static const char many[] = HEAD "(?, ?, ?)", many_update[] = HEAD "(?, ?, ?)" TAIL;

static uv_loop_t loop;
static struct hp_db *db;
static int from, count, salt; /* of the rows of a job */
static char names[COUNT][32];
static uint8_t bodies[COUNT][BODY_MAX];
static int seen;

static int run_work(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    return ((struct job *)job)->work(c, e);
}

static void on_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct job *j = (struct job *)job;
    j->done = true;
    j->result = result;
    j->error = *e;
}

static int run(int (*work)(struct hp_db_conn *c, struct hp_error *e))
{
    struct job j = {.job = {.run = run_work, .done_cb = on_done}, .work = work};
    assert_int_equal(hp_db_submit(db, &j.job), 0);
    UNTIL_FLAG(&loop, j.done);
    if (j.result)
        print_message("%s\n", j.error.message);
    return j.result;
}

/* Every byte value, quotes, backslashes and what is no UTF-8 among them; also none. */
static size_t body_len(int i)
{
    return (size_t)(i * 37 % BODY_MAX);
}

static void fill(int i)
{
    *names[i] = '\0';
    if (i % 5 < 4)
        snprintf(names[i], sizeof names[i], "n'a\\m%%e-%d-%d", i, salt);
    for (size_t k = 0; k < body_len(i); k++)
        bodies[i][k] = (uint8_t)(k * 7 + (size_t)i + (size_t)salt);
}

static int64_t number(int i)
{
    return i % 2 ? (int64_t)i << 40 : -(int64_t)i;
}

static int write_rows(struct hp_db_conn *c, bool update, struct hp_error *e)
{
    struct sc_sql s;
    sc_sql_begin(&s, c, HEAD, update ? TAIL : "", update ? many_update : many, e);
    for (int i = from; i < from + count; i++) {
        fill(i);
        sc_sql_row(&s);
        sc_sql_int(&s, number(i));
        sc_sql_text(&s, names[i]);
        sc_sql_bytes(&s, bodies[i], body_len(i));
        sc_sql_row_end(&s);
    }
    int rc = sc_sql_end(&s);
    if (!rc)
        assert_int_equal(s.affected, (update ? 2 : 1) * count); /* a row that is changed counts twice */
    return rc;
}

static int insert(struct hp_db_conn *c, struct hp_error *e)
{
    return write_rows(c, false, e);
}

static int update(struct hp_db_conn *c, struct hp_error *e)
{
    return write_rows(c, true, e);
}

static int take(void *user, char **columns, const unsigned long *lengths, struct hp_error *e)
{
    int i = atoi(columns[0]);
    assert_int_equal(strtoll(columns[1], NULL, 10), number(i));
    assert_string_equal(columns[2], names[i]);
    assert_int_equal(lengths[3], body_len(i));
    assert_memory_equal(columns[3], bodies[i], lengths[3]);
    seen++;
    return 0;
}

static int compare(struct hp_db_conn *c, struct hp_error *e)
{
    seen = 0;
    return sc_sql_select(c, take, NULL, e,
                         "SELECT IF(n > 0, n DIV 1099511627776, -n) AS i, n, name, body FROM sql_rows ORDER BY i");
}

static int make(struct hp_db_conn *c, struct hp_error *e)
{
    int rc = hp_db_exec(c, "DROP TABLE IF EXISTS sql_rows", NULL, e);
    return rc ? rc
              : hp_db_exec(
                    c,
                    "CREATE TABLE sql_rows (n BIGINT PRIMARY KEY, name VARCHAR(64) CHARACTER SET ascii NOT NULL, "
                    "body LONGBLOB NOT NULL)",
                    NULL, e);
}

static int kill_own(struct hp_db_conn *c, struct hp_error *e)
{
    (void)!hp_db_exec(c, "KILL CONNECTION CONNECTION_ID()", NULL, e);
    return insert(c, e);
}

static void what_is_put_in_is_read_back(void **state)
{
    static const int counts[] = {1, 7, 8, 9, 500, COUNT}; /* the last in more than one message: it is over 2 MiB */
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        assert_int_equal(run(make), 0);
        count = counts[k];
        assert_int_equal(run(insert), 0);
        assert_int_equal(run(compare), 0);
        assert_int_equal(seen, count);
        salt++;
        assert_int_equal(run(update), 0);
        assert_int_equal(run(compare), 0);
        assert_int_equal(seen, count);
    }
}

static void what_is_there_already_is_said(void **state)
{
    assert_int_equal(run(make), 0);
    for (count = 4; count <= 400; count *= 100) {
        from = 20;
        assert_int_equal(run(insert), 0);
        from = 18; /* the first two are new */
        assert_int_equal(run(insert), HP_EEXISTS);
        assert_int_equal(run(make), 0);
    }
    from = 0;
}

static void a_lost_connection_is_said(void **state)
{
    assert_int_equal(run(make), 0);
    count = 100;
    assert_int_equal(run(kill_own), HP_EIO);
    assert_int_equal(run(insert), 0); /* on the next one, where the statement is not known yet */
    assert_int_equal(run(compare), 0);
    assert_int_equal(seen, count);
}

static int setup(void **state)
{
    struct hp_error e = {0};
    struct hp_db_options o = {.socket = getenv("HARPOON_MYSQL_SOCKET"),
                              .user = "root",
                              .database = getenv("HARPOON_MYSQL_DATABASE"),
                              .threads = 1,
                              .query_ms = 60000};
    uv_loop_init(&loop);
    return hp_db_new(&loop, &o, &db, &e);
}

static int teardown(void **state)
{
    bool closed = false;
    hp_db_close(db, loop_closed, &closed);
    UNTIL_FLAG(&loop, closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_in_is_read_back),
        cmocka_unit_test(what_is_there_already_is_said),
        cmocka_unit_test(a_lost_connection_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
