/* db.h — MariaDB for loop-based daemons: jobs run on dedicated threads, one connection each, and report back on the loop. */
#ifndef HP_IO_DB_H
#define HP_IO_DB_H

#include <mysql/mysql.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "io/loop.h"

struct hp_db_options {
    const char *socket; /* unix socket, or NULL */
    const char *host;   /* with port, when no socket */
    int port;
    const char *user, *password, *database;
    const char *ca_file, *cert_file, *key_file; /* TLS when ca_file is set */
    int threads;                                /* connections: 1 to 64 */
    int queue_max;                              /* jobs waiting; 0: 10,000; then HP_ELIMIT */
    uint64_t query_ms;                          /* read and write timeout; 0: 10,000 */
    const char *init_sql;                       /* run on each new connection; NULL none */
};

struct hp_db_conn;

/* One job, embedded in its owner. Outcome: 0; HP_EUNAVAILABLE nothing happened (no connection); HP_ETIMEDOUT / HP_EIO after the job began: for a
 * transaction the outcome of COMMIT may be unknown (`commit_unknown`): look the dedupe key up before trying again. */
struct hp_db_job {
    /* On a database thread, with a live connection. Must leave no open transaction and no open result: on failure the connection is rolled back, on HP_EIO, HP_ETIMEDOUT, HP_ENOMEM it is closed. */
    int (*run)(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e);
    /* Loop thread, exactly once. */
    void (*done_cb)(struct hp_db_job *job, int result, const struct hp_error *e);
    bool commit_unknown; /* set by hp_db_commit */
    /* private */
    struct hp_mail mail_;
    struct hp_db_job *next_;
    int result_;
    struct hp_error error_;
};

struct hp_db;
/* Connects lazily, with back-off; never pings: an idle pool causes no query. */
int hp_db_new(uv_loop_t *loop, const struct hp_db_options *o, struct hp_db **ret, struct hp_error *e) HP_MUST_CHECK;
/* Loop thread. done_cb is not called from inside. Jobs of a one-thread pool run in order. */
int hp_db_submit(struct hp_db *db, struct hp_db_job *job) HP_MUST_CHECK;
/* Jobs that have not begun end as HP_ECANCELED. */
void hp_db_close(struct hp_db *db, void (*closed_cb)(void *user), void *user);

/* ---- For use inside run(), on the database thread ---- */
MYSQL *hp_db_mysql(struct hp_db_conn *c);
/* Maps the connection's last error to HP_E… with its text: lost connections are HP_EIO, deadlock and lock timeout HP_EAGAIN, duplicate key HP_EEXISTS. */
int hp_db_fail(struct hp_db_conn *c, struct hp_error *e, const char *what) HP_MUST_CHECK;
int hp_db_begin(struct hp_db_conn *c, struct hp_error *e) HP_MUST_CHECK;
int hp_db_commit(struct hp_db_conn *c, struct hp_db_job *job, struct hp_error *e) HP_MUST_CHECK;
/* One statement without a result; `*ret_affected` may be NULL. */
int hp_db_exec(struct hp_db_conn *c, const char *sql, uint64_t *ret_affected, struct hp_error *e) HP_MUST_CHECK;
/* A prepared statement, kept with the connection and found again by the address of `sql` (a literal). */
int hp_db_prepare(struct hp_db_conn *c, const char *sql, MYSQL_STMT **ret, struct hp_error *e) HP_MUST_CHECK;

#endif
