/* db_conn.h — one connection of a database thread; for db.c only. */
#ifndef HP_IO_DB_CONN_H
#define HP_IO_DB_CONN_H

#include "io/db.h"

enum { HP_DB_STATEMENTS_MAX = 256 };

/* Where and how to connect; a deep copy of hp_db_options. */
struct hp_db_target {
    char *socket, *host, *user, *password, *database, *ca_file, *cert_file, *key_file, *init_sql;
    int port;
    unsigned query_s; /* read and write timeout */
};

struct hp_db_conn {
    MYSQL *mysql; /* NULL: not connected */
    struct {
        const char *sql; /* by address */
        MYSQL_STMT *stmt;
    } statements[HP_DB_STATEMENTS_MAX];
    int statement_count;
    MYSQL_STMT *last; /* prepared last: where an error of the client library itself is found */
};

int hp_db_target_init(struct hp_db_target *t, const struct hp_db_options *o, struct hp_error *e) HP_MUST_CHECK;
void hp_db_target_done(struct hp_db_target *t);

/* HP_EUNAVAILABLE, or what init_sql says. */
int hp_db_connect(struct hp_db_conn *c, const struct hp_db_target *t, struct hp_error *e) HP_MUST_CHECK;
void hp_db_disconnect(struct hp_db_conn *c);
/* True when the server has closed an idle connection, or said something on it, which can only be farewell. No query. */
bool hp_db_stale(const struct hp_db_conn *c);
/* After a job: no transaction is left open; a connection that cannot be trusted any more is closed. */
int hp_db_settle(struct hp_db_conn *c, int result, struct hp_error *e) HP_MUST_CHECK;

#endif
