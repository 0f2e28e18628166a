/* Database jobs against a real MariaDB: order, errors by kind, a killed connection, an unknown COMMIT, a killed server, silence when idle. */
#include "lib/loop_test.h"

#include <unistd.h>

#include "io/db.h"

struct job {
    struct hp_db_job job;
    int (*work)(struct job *j, struct hp_db_conn *c, struct hp_error *e);
    int number;
    char text[256]; /* result */
    bool done;
    int calls, result;
    struct hp_error error;
};

static uv_loop_t loop;

static int run_work(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct job *j = (struct job *)job;
    return j->work(j, c, e);
}

static void on_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct job *j = (struct job *)job;
    j->done = true;
    j->calls++;
    j->result = result;
    j->error = *e;
}

static struct hp_db *open_db(int threads, uint64_t query_ms)
{
    struct hp_db *db = NULL;
    struct hp_error e = {0};
    struct hp_db_options o = {.socket = getenv("HARPOON_MYSQL_SOCKET"),
                              .user = "root",
                              .database = getenv("HARPOON_MYSQL_DATABASE"),
                              .threads = threads,
                              .query_ms = query_ms,
                              .queue_max = 100,
                              .init_sql = "SET SESSION innodb_lock_wait_timeout = 1"};
    uv_loop_init(&loop);
    if (hp_db_new(&loop, &o, &db, &e))
        fail_msg("%s", e.message);
    return db;
}

static void close_db(struct hp_db *db)
{
    bool closed = false;
    hp_db_close(db, loop_closed, &closed);
    UNTIL_FLAG(&loop, closed);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void submit(struct hp_db *db, struct job *j,
                   int (*work)(struct job *j, struct hp_db_conn *c, struct hp_error *e))
{
    *j = (struct job){.job = {.run = run_work, .done_cb = on_done}, .work = work, .number = j->number};
    assert_int_equal(hp_db_submit(db, &j->job), 0);
    assert_int_equal(j->calls, 0);
}

static int finish(struct job *j)
{
    UNTIL_FLAG(&loop, j->done);
    assert_int_equal(j->calls, 1);
    assert_int_equal(j->result ? j->error.code : 0, j->result);
    return j->result;
}

static int do_now(struct hp_db *db, struct job *j, int (*work)(struct job *j, struct hp_db_conn *c, struct hp_error *e))
{
    submit(db, j, work);
    return finish(j);
}

/* ---- Work ---- */

static int create_table(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = hp_db_exec(c, "DROP TABLE IF EXISTS t", NULL, e);
    return rc ? rc : hp_db_exec(c, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT NOT NULL) ENGINE=InnoDB", NULL, e);
}

/* One prepared statement, used again and again. */
static int insert(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    MYSQL_STMT *stmt, *again;
    int rc = hp_db_prepare(c, "INSERT INTO t VALUES (?, 0)", &stmt, e);
    if (rc)
        return rc;
    long long id = j->number;
    MYSQL_BIND bind = {.buffer_type = MYSQL_TYPE_LONGLONG, .buffer = &id};
    if (mysql_stmt_bind_param(stmt, &bind) || mysql_stmt_execute(stmt))
        return hp_db_fail(c, e, "insert");
    rc = hp_db_prepare(c, "SELECT 1", &again, e);
    return rc;
}

static int scalar(struct job *j, struct hp_db_conn *c, const char *sql, struct hp_error *e)
{
    MYSQL *m = hp_db_mysql(c);
    if (mysql_query(m, sql))
        return hp_db_fail(c, e, "query");
    MYSQL_RES *r = mysql_store_result(m);
    if (!r)
        return hp_db_fail(c, e, "result");
    MYSQL_ROW row = mysql_fetch_row(r);
    snprintf(j->text, sizeof j->text, "%s", row && row[0] ? row[0] : "");
    mysql_free_result(r);
    return 0;
}

static int count_rows(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    return scalar(j, c, "SELECT COUNT(*) FROM t", e);
}

static int connection_id(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    return scalar(j, c, "SELECT CONNECTION_ID()", e);
}

static int questions(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    return scalar(j, c, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME='QUESTIONS'",
                  e);
}

static int sleep_long(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    return scalar(j, c, "SELECT SLEEP(20)", e);
}

static int bad_sql(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    return hp_db_exec(c, "SELEKT", NULL, e);
}

static int transaction(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = hp_db_begin(c, e);
    if (!rc)
        rc = insert(j, c, e);
    if (!rc)
        rc = hp_db_commit(c, &j->job, e);
    return rc;
}

static int forgotten_transaction(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = hp_db_begin(c, e);
    return rc ? rc : insert(j, c, e);
}

static int refused_transaction(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = forgotten_transaction(j, c, e);
    return rc ? rc : hp_fail(e, HP_EFENCED, "as the job says");
}

/* The connection is killed between the last statement and the COMMIT: nobody can tell the client what became of it. */
static int killed_commit(struct job *j, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = forgotten_transaction(j, c, e);
    if (rc)
        return rc;
    char command[2048];
    snprintf(command, sizeof command, "%s sql 'KILL CONNECTION %lu'", getenv("HARPOON_TEST_SERVERS"),
             mysql_thread_id(hp_db_mysql(c)));
    if (system(command))
        return hp_fail(e, HP_EINTERNAL, "%s", command);
    return hp_db_commit(c, &j->job, e);
}

/* ---- Tests ---- */

static void jobs_of_one_thread_run_in_order(void **state)
{
    static struct job j[90];
    struct job t = {0};
    struct hp_db *db = open_db(1, 0);
    assert_int_equal(do_now(db, &t, create_table), 0);
    for (int i = 0; i < 90; i++) {
        j[i].number = i;
        submit(db, &j[i], insert);
    }
    submit(db, &t, count_rows);
    assert_int_equal(finish(&t), 0);
    assert_string_equal(t.text, "90");
    for (int i = 0; i < 90; i++)
        assert_int_equal(finish(&j[i]), 0);
    close_db(db);
}

static void several_threads_share_the_work(void **state)
{
    static struct job j[80];
    struct job t = {0};
    struct hp_db *db = open_db(4, 0);
    assert_int_equal(do_now(db, &t, create_table), 0);
    for (int i = 0; i < 80; i++) {
        j[i].number = i;
        submit(db, &j[i], transaction);
    }
    for (int i = 0; i < 80; i++)
        assert_int_equal(finish(&j[i]), 0);
    assert_int_equal(do_now(db, &t, count_rows), 0);
    assert_string_equal(t.text, "80");
    close_db(db);
}

static void errors_say_what_kind_they_are(void **state)
{
    struct job j = {.number = 5};
    struct hp_db *db = open_db(1, 0);
    assert_int_equal(do_now(db, &j, create_table), 0);
    assert_int_equal(do_now(db, &j, transaction), 0);
    j.number = 5;
    assert_int_equal(do_now(db, &j, transaction), HP_EEXISTS);
    assert_non_null(strstr(j.error.message, "Duplicate entry"));
    assert_int_equal(do_now(db, &j, bad_sql), HP_EINTERNAL);
    assert_non_null(strstr(j.error.message, "SELEKT"));
    j.number = 6;
    assert_int_equal(do_now(db, &j, refused_transaction), HP_EFENCED);
    assert_string_equal(j.error.message, "as the job says");
    assert_int_equal(do_now(db, &j, forgotten_transaction), HP_EINTERNAL);
    assert_int_equal(do_now(db, &j, count_rows), 0);
    assert_string_equal(j.text, "1");
    close_db(db);
}

static void a_held_lock_is_worth_another_try(void **state)
{
    struct job j = {.number = 7};
    struct hp_db *db = open_db(1, 0);
    assert_int_equal(do_now(db, &j, create_table), 0);
    char command[2048];
    snprintf(command, sizeof command,
             "%s sql 'START TRANSACTION; INSERT INTO t VALUES (7, 1); SELECT SLEEP(3); ROLLBACK' > /dev/null &",
             getenv("HARPOON_TEST_SERVERS"));
    assert_int_equal(system(command), 0);
    int rc;
    do { /* until the other one holds the lock */
        j.number = 8;
        assert_int_equal(do_now(db, &j, refused_transaction), HP_EFENCED);
        j.number = 7;
        rc = do_now(db, &j, refused_transaction);
    } while (rc == HP_EFENCED);
    assert_int_equal(rc, HP_EAGAIN);
    assert_false(j.job.commit_unknown);
    close_db(db);
}

static void an_unknown_commit_says_so(void **state)
{
    struct job j = {.number = 1};
    struct hp_db *db = open_db(1, 0);
    assert_int_equal(do_now(db, &j, create_table), 0);
    j.number = 1;
    assert_int_equal(do_now(db, &j, killed_commit), HP_EIO);
    assert_true(j.job.commit_unknown);
    j.number = 2;
    assert_int_equal(do_now(db, &j, transaction), 0);
    assert_false(j.job.commit_unknown);
    close_db(db);
}

/* A connection that died while idle is replaced before the next job, which does not notice. */
static void an_idle_connection_may_be_killed(void **state)
{
    struct job j = {0};
    struct hp_db *db = open_db(1, 0);
    assert_int_equal(do_now(db, &j, connection_id), 0);
    char first[256];
    snprintf(first, sizeof first, "%s", j.text);
    servers("sql 'KILL CONNECTION %s'", first);
    assert_int_equal(do_now(db, &j, connection_id), 0);
    assert_string_not_equal(first, j.text);
    close_db(db);
}

static void a_stuck_query_is_bounded(void **state)
{
    struct job j = {0};
    struct hp_db *db = open_db(1, 1000);
    uint64_t before = hp_now_ms();
    assert_int_equal(do_now(db, &j, sleep_long), HP_EIO);
    assert_true(hp_now_ms() - before < 8000);
    assert_int_equal(do_now(db, &j, connection_id), 0);
    close_db(db);
}

static bool never(void *arg)
{
    return false;
}

static void an_idle_pool_asks_nothing(void **state)
{
    struct job j = {0};
    struct hp_db *db = open_db(4, 0);
    assert_int_equal(do_now(db, &j, questions), 0);
    long before = atol(j.text);
    (void)loop_until(&loop, never, NULL, 3000);
    assert_int_equal(do_now(db, &j, questions), 0);
    assert_true(atol(j.text) - before <= 3); /* the readers' own, and perhaps a connection's first statement */
    close_db(db);
}

static void closing_cancels_what_waits(void **state)
{
    static struct job j[50];
    struct hp_db *db = open_db(1, 2000);
    for (int i = 0; i < 50; i++)
        submit(db, &j[i], connection_id);
    bool closed = false;
    hp_db_close(db, loop_closed, &closed);
    assert_int_equal(hp_db_submit(db, &j[0].job), HP_ECANCELED);
    UNTIL_FLAG(&loop, closed);
    int cancelled = 0;
    for (int i = 0; i < 50; i++) {
        assert_true(j[i].done);
        assert_true(j[i].result == 0 || j[i].result == HP_ECANCELED);
        cancelled += j[i].result == HP_ECANCELED;
    }
    assert_true(cancelled > 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void the_queue_is_bounded(void **state)
{
    static struct job j[200];
    struct hp_db *db = open_db(1, 0);
    int taken = 0;
    for (int i = 0; i < 200; i++) {
        j[i] = (struct job){.job = {.run = run_work, .done_cb = on_done}, .work = connection_id};
        int rc = hp_db_submit(db, &j[i].job);
        assert_true(rc == 0 || rc == HP_ELIMIT);
        if (rc)
            break;
        taken++;
    }
    assert_true(taken >= 100 && taken < 200);
    for (int i = 0; i < taken; i++)
        assert_int_equal(finish(&j[i]), 0);
    close_db(db);
}

static void a_killed_server_is_found_again(void **state)
{
    struct job j = {.number = 1};
    struct hp_db *db = open_db(2, 0);
    assert_int_equal(do_now(db, &j, create_table), 0);
    j.number = 1;
    assert_int_equal(do_now(db, &j, transaction), 0);
    servers("kill database");
    uint64_t before = hp_now_ms();
    for (int i = 2; i < 6; i++) {
        j.number = i;
        assert_int_equal(do_now(db, &j, transaction), HP_EUNAVAILABLE);
        assert_false(j.job.commit_unknown);
    }
    assert_true(hp_now_ms() - before >= 20); /* the back-off sets the pace */
    servers_beside(&loop, "start database");
    int rc;
    do {
        j.number = 2;
        rc = do_now(db, &j, transaction);
    } while (rc == HP_EUNAVAILABLE);
    assert_int_equal(rc, 0);
    assert_int_equal(do_now(db, &j, count_rows), 0);
    assert_string_equal(j.text, "2");
    close_db(db);
}

static void bad_options_are_refused(void **state)
{
    struct hp_db *db = NULL;
    struct hp_error e = {0};
    uv_loop_init(&loop);
    struct hp_db_options none = {.threads = 1}, many = {.socket = "/x", .threads = 65};
    assert_int_equal(hp_db_new(&loop, &none, &db, &e), HP_EINVAL);
    assert_int_equal(hp_db_new(&loop, &many, &db, &e), HP_EINVAL);
    assert_null(db);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(jobs_of_one_thread_run_in_order),
        cmocka_unit_test(several_threads_share_the_work),
        cmocka_unit_test(errors_say_what_kind_they_are),
        cmocka_unit_test(a_held_lock_is_worth_another_try),
        cmocka_unit_test(an_unknown_commit_says_so),
        cmocka_unit_test(an_idle_connection_may_be_killed),
        cmocka_unit_test(a_stuck_query_is_bounded),
        cmocka_unit_test(an_idle_pool_asks_nothing),
        cmocka_unit_test(closing_cancels_what_waits),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(a_killed_server_is_found_again),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
