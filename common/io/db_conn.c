#include "io/db_conn.h"

#include <assert.h>
#include <mysql/errmsg.h>
#include <mysql/mysqld_error.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_S = 5, QUERY_S = 10 };

static bool copy_text(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to;
}

int hp_db_target_init(struct hp_db_target *t, const struct hp_db_options *o, struct hp_error *e)
{
    *t = (struct hp_db_target){
        .port = o->port,
        .query_s = o->query_ms ? (unsigned)((o->query_ms + 999) / 1000) : QUERY_S,
    };
    bool ok = copy_text(&t->socket, o->socket && *o->socket ? o->socket : NULL);
    ok = copy_text(&t->host, o->host && *o->host ? o->host : NULL) && ok;
    ok = copy_text(&t->user, o->user) && ok;
    ok = copy_text(&t->password, o->password) && ok;
    ok = copy_text(&t->database, o->database) && ok;
    ok = copy_text(&t->ca_file, o->ca_file && *o->ca_file ? o->ca_file : NULL) && ok;
    ok = copy_text(&t->cert_file, o->cert_file && *o->cert_file ? o->cert_file : NULL) && ok;
    ok = copy_text(&t->key_file, o->key_file && *o->key_file ? o->key_file : NULL) && ok;
    ok = copy_text(&t->init_sql, o->init_sql) && ok;
    if (!ok) {
        hp_db_target_done(t);
        return hp_fail(e, HP_ENOMEM, "database options: out of memory");
    }
    if (!t->socket && !t->host) {
        hp_db_target_done(t);
        return hp_fail(e, HP_EINVAL, "database: neither socket nor host is given");
    }
    return 0;
}

void hp_db_target_done(struct hp_db_target *t)
{
    char *texts[] = {t->socket,  t->host,      t->user,     t->password, t->database,
                     t->ca_file, t->cert_file, t->key_file, t->init_sql};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    *t = (struct hp_db_target){0};
}

/* ---- Connecting ---- */

int hp_db_connect(struct hp_db_conn *c, const struct hp_db_target *t, struct hp_error *e)
{
    assert(!c->mysql);
    MYSQL *m = mysql_init(NULL);
    if (!m)
        return hp_fail(e, HP_ENOMEM, "database connection: out of memory");
    unsigned connect_s = CONNECT_S;
    mysql_options(m, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
    mysql_options(m, MYSQL_OPT_READ_TIMEOUT, &t->query_s);
    mysql_options(m, MYSQL_OPT_WRITE_TIMEOUT, &t->query_s);
    mysql_options(m, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    if (t->ca_file && !t->socket) {
        my_bool verify = 1;
        mysql_ssl_set(m, t->key_file, t->cert_file, t->ca_file, NULL, NULL);
        mysql_options(m, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
    }
    if (!mysql_real_connect(m, t->socket ? NULL : t->host, t->user, t->password, t->database, (unsigned)t->port,
                            t->socket, 0)) {
        hp_fail(e, HP_EUNAVAILABLE, "database %s: %s (%u)", t->socket ? t->socket : t->host, mysql_error(m),
                mysql_errno(m));
        mysql_close(m);
        return HP_EUNAVAILABLE;
    }
    c->mysql = m;
    c->last = NULL;
    if (t->init_sql) {
        int rc = hp_db_exec(c, t->init_sql, NULL, e);
        if (rc) {
            hp_db_disconnect(c);
            return hp_wrap(e, "database: first statement on a connection");
        }
    }
    return 0;
}

void hp_db_disconnect(struct hp_db_conn *c)
{
    if (!c->mysql)
        return;
    for (int i = 0; i < c->statement_count; i++)
        mysql_stmt_close(c->statements[i].stmt);
    c->statement_count = 0;
    c->last = NULL;
    mysql_close(c->mysql);
    c->mysql = NULL;
}

bool hp_db_stale(const struct hp_db_conn *c)
{
    struct pollfd p = {.fd = mysql_get_socket(c->mysql), .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, 0) != 0;
}

static bool in_transaction(const struct hp_db_conn *c)
{
    unsigned status = 0;
    return !mariadb_get_infov(c->mysql, MARIADB_CONNECTION_SERVER_STATUS, &status) && (status & SERVER_STATUS_IN_TRANS);
}

int hp_db_settle(struct hp_db_conn *c, int result, struct hp_error *e)
{
    if (result == HP_EIO || result == HP_ETIMEDOUT || result == HP_ENOMEM) {
        hp_db_disconnect(c); /* the server rolls back; without memory there may be an answer that nobody has read */
        return result;
    }
    if (!in_transaction(c))
        return result;
    if (mysql_rollback(c->mysql))
        hp_db_disconnect(c);
    return result ? result : hp_fail(e, HP_EINTERNAL, "a database job left its transaction open");
}

/* ---- For jobs ---- */

MYSQL *hp_db_mysql(struct hp_db_conn *c)
{
    return c->mysql;
}

static int code_of(unsigned number)
{
    switch (number) {
    case CR_SERVER_GONE_ERROR:
    case CR_SERVER_LOST:
    case CR_SERVER_LOST_EXTENDED:
    case CR_CONNECTION_ERROR:
    case CR_CONN_HOST_ERROR:
    case CR_MALFORMED_PACKET:
    case CR_COMMANDS_OUT_OF_SYNC:
    case ER_CONNECTION_KILLED:
    case ER_SERVER_SHUTDOWN:
    case ER_NET_READ_ERROR:
    case ER_NET_READ_INTERRUPTED:
    case ER_NET_ERROR_ON_WRITE:
    case ER_NET_WRITE_INTERRUPTED:
        return HP_EIO;
    case ER_LOCK_DEADLOCK:
    case ER_LOCK_WAIT_TIMEOUT:
    case ER_CHECKREAD:
    case ER_QUERY_INTERRUPTED:
        return HP_EAGAIN;
    case ER_DUP_ENTRY:
        return HP_EEXISTS;
    case ER_STATEMENT_TIMEOUT:
        return HP_ETIMEDOUT;
    case ER_NO_SUCH_TABLE:
    case ER_BAD_DB_ERROR:
        return HP_ENOTFOUND;
    case ER_DISK_FULL:
    case ER_RECORD_FILE_FULL:
        return HP_ELIMIT;
    case CR_OUT_OF_MEMORY:
        return HP_ENOMEM;
    case ER_OPTION_PREVENTS_STATEMENT: /* read-only: another server is the primary now */
        return HP_EUNAVAILABLE;
    default:
        return HP_EINTERNAL;
    }
}

/* The client library gives no number when it finds no memory to take an answer in: the rest of it waits in the connection. */
static int fail_by(struct hp_error *e, const char *what, unsigned number, const char *text)
{
    return number ? hp_fail(e, code_of(number), "%s: %s (%u)", what, text, number)
                  : hp_fail(e, HP_ENOMEM, "%s: out of memory", what);
}

int hp_db_fail(struct hp_db_conn *c, struct hp_error *e, const char *what)
{
    unsigned number = mysql_errno(c->mysql);
    const char *text = mysql_error(c->mysql);
    if (!number && c->last) {
        number = mysql_stmt_errno(c->last);
        text = mysql_stmt_error(c->last);
    }
    return fail_by(e, what, number, text);
}

int hp_db_exec(struct hp_db_conn *c, const char *sql, uint64_t *ret_affected, struct hp_error *e)
{
    if (mysql_real_query(c->mysql, sql, strlen(sql)))
        return hp_db_fail(c, e, sql);
    MYSQL_RES *result = mysql_store_result(c->mysql);
    if (result)
        mysql_free_result(result); /* the caller did not expect one */
    else if (mysql_errno(c->mysql))
        return hp_db_fail(c, e, sql);
    if (ret_affected)
        *ret_affected = mysql_affected_rows(c->mysql);
    return 0;
}

int hp_db_begin(struct hp_db_conn *c, struct hp_error *e)
{
    return hp_db_exec(c, "START TRANSACTION", NULL, e);
}

int hp_db_commit(struct hp_db_conn *c, struct hp_db_job *job, struct hp_error *e)
{
    int rc = hp_db_exec(c, "COMMIT", NULL, e);
    if (rc == HP_EIO || rc == HP_ETIMEDOUT || rc == HP_ENOMEM)
        job->commit_unknown = true; /* the answer was lost, not the commit, perhaps */
    return rc;
}

int hp_db_prepare(struct hp_db_conn *c, const char *sql, MYSQL_STMT **ret, struct hp_error *e)
{
    for (int i = 0; i < c->statement_count; i++)
        if (c->statements[i].sql == sql) {
            c->last = *ret = c->statements[i].stmt;
            return 0;
        }
    if (c->statement_count == HP_DB_STATEMENTS_MAX)
        return hp_fail(e, HP_ELIMIT, "over %d prepared statements", HP_DB_STATEMENTS_MAX);
    MYSQL_STMT *stmt = mysql_stmt_init(c->mysql);
    if (!stmt)
        return hp_fail(e, HP_ENOMEM, "prepared statement: out of memory");
    if (mysql_stmt_prepare(stmt, sql, strlen(sql))) {
        int rc = fail_by(e, sql, mysql_stmt_errno(stmt), mysql_stmt_error(stmt));
        mysql_stmt_close(stmt);
        return rc;
    }
    c->statements[c->statement_count].sql = sql;
    c->statements[c->statement_count++].stmt = stmt;
    c->last = *ret = stmt;
    return 0;
}
