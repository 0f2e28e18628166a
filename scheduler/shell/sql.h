/* sql.h — statements with many rows, built in memory on the database thread and sent in few packets. */
#ifndef SC_SHELL_SQL_H
#define SC_SHELL_SQL_H

#include <stdbool.h>

#include "io/db.h"

enum { SC_SQL_COLUMNS_MAX = 8 };

/* One value of a row: a number, or borrowed bytes. */
struct sc_sql_cell {
    enum enum_field_types type; /* MYSQL_TYPE_LONGLONG, _STRING, _BLOB */
    int64_t number;
    const char *bytes;
    unsigned long len;
};

/* Rows for "head (…),(…) tail", sent whenever they have grown to a few megabytes: few of them as text, many at once as they are, for `many`, which asks for one row ("head (?,?,…) tail"; NULL:
 * always as text). What is put in stays as it is until sc_sql_end. Errors are kept: check sc_sql_end. */
struct sc_sql {
    struct hp_db_conn *conn;
    const char *head, *tail, *many; /* literals */
    struct sc_sql_cell *cells;      /* row after row */
    size_t count, room;             /* cells */
    size_t rows, columns, bytes;    /* of what is not sent yet; of a row */
    char *text;
    size_t len, text_room;
    uint64_t affected; /* by what was sent */
    int failed;
    struct hp_error *e;
};
void sc_sql_begin(struct sc_sql *s, struct hp_db_conn *c, const char *head, const char *tail, const char *many,
                  struct hp_error *e);
void sc_sql_row(struct sc_sql *s);
void sc_sql_row_end(struct sc_sql *s);
void sc_sql_text(struct sc_sql *s, const char *value); /* ASCII names; escaped all the same */
void sc_sql_int(struct sc_sql *s, int64_t value);
void sc_sql_bytes(struct sc_sql *s, const void *data, size_t len);
/* Sends what is left, and frees. */
int sc_sql_end(struct sc_sql *s) HP_MUST_CHECK;

/* One statement from a format; without a result. */
int sc_sql_exec(struct hp_db_conn *c, uint64_t *ret_affected, struct hp_error *e, const char *fmt, ...) HP_MUST_CHECK
    __attribute__((format(printf, 4, 5)));
/* One query from a format; row_cb for each row, stopped by a code below 0. */
typedef int (*sc_row_fn)(void *user, char **columns, const unsigned long *lengths, struct hp_error *e);
int sc_sql_select(struct hp_db_conn *c, sc_row_fn row_cb, void *user, struct hp_error *e, const char *fmt,
                  ...) HP_MUST_CHECK __attribute__((format(printf, 5, 6)));

#endif
