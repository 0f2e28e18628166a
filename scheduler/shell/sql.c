#include "shell/sql.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEND_AT_BYTES = 2 << 20,
    STATEMENT_MAX = 32768,
    MANY_MIN = 8, /* rows: below that text is less work, for both sides */
};

void sc_sql_begin(struct sc_sql *s, struct hp_db_conn *c, const char *head, const char *tail, const char *many,
                  struct hp_error *e)
{
    *s = (struct sc_sql){.conn = c, .head = head, .tail = tail, .many = many, .e = e};
}

static void no_memory(struct sc_sql *s, size_t bytes)
{
    s->failed = hp_fail(s->e, HP_ENOMEM, "statement of %zu bytes: %s", bytes, hp_strerror(HP_ENOMEM));
}

/* ---- As text ---- */

static char *reserve(struct sc_sql *s, size_t len)
{
    if (s->failed)
        return NULL;
    if (s->len + len > s->text_room) {
        size_t room = s->text_room ? s->text_room : 4096;
        while (room < s->len + len)
            room *= 2;
        char *text = realloc(s->text, room);
        if (!text) {
            no_memory(s, room);
            return NULL;
        }
        s->text = text;
        s->text_room = room;
    }
    return s->text + s->len;
}

static void put(struct sc_sql *s, const char *data, size_t len)
{
    char *to = reserve(s, len);
    if (!to)
        return;
    memcpy(to, data, len);
    s->len += len;
}

static void escaped(struct sc_sql *s, const char *data, size_t len)
{
    char *to = reserve(s, 2 * len + 3);
    if (!to)
        return;
    *to++ = '\'';
    size_t n = mysql_real_escape_string(hp_db_mysql(s->conn), to, data, len);
    to[n] = '\'';
    s->len += n + 2;
}

static void put_cell(struct sc_sql *s, const struct sc_sql_cell *x)
{
    char number[24];
    if (x->type == MYSQL_TYPE_LONGLONG) {
        put(s, number, (size_t)snprintf(number, sizeof number, "%" PRId64, x->number));
        return;
    }
    if (x->type == MYSQL_TYPE_BLOB)
        put(s, "_binary", 7);
    escaped(s, x->bytes, x->len);
}

static void send_text(struct sc_sql *s)
{
    s->len = 0;
    put(s, s->head, strlen(s->head));
    for (size_t i = 0; i < s->count; i++) {
        bool first = i % s->columns == 0, last = i % s->columns == s->columns - 1;
        put(s, first ? (i ? ",(" : "(") : ",", first && i ? 2 : 1);
        put_cell(s, &s->cells[i]);
        if (last)
            put(s, ")", 1);
    }
    put(s, s->tail, strlen(s->tail));
    if (s->failed)
        return;
    MYSQL *my = hp_db_mysql(s->conn);
    if (mysql_real_query(my, s->text, s->len) != 0)
        s->failed = hp_db_fail(s->conn, s->e, s->head);
    else
        s->affected += mysql_affected_rows(my);
}

/* ---- As they are: one message with a column's values after one another, for a statement that the server knows (https://mariadb.com/kb/en/com_stmt_bulk_execute) ---- */

/* One column of all rows, as the client library wants it. */
struct column {
    void *values; /* int64_t, or pointers */
    unsigned long *lengths;
};

static bool fill(const struct sc_sql *s, size_t k, struct column *column, MYSQL_BIND *bind)
{
    const struct sc_sql_cell *x = &s->cells[k];
    column->values = malloc(s->rows * sizeof(int64_t));
    column->lengths = malloc(s->rows * sizeof *column->lengths);
    if (!column->values || !column->lengths)
        return false;
    bind->buffer_type = x->type;
    bind->buffer = column->values;
    bind->length = column->lengths;
    for (size_t i = 0; i < s->rows; i++, x += s->columns) {
        assert(x->type == bind->buffer_type);
        column->lengths[i] = x->len;
        if (x->type == MYSQL_TYPE_LONGLONG)
            ((int64_t *)column->values)[i] = x->number;
        else
            ((const char **)column->values)[i] = x->bytes;
    }
    return true;
}

static void execute(struct sc_sql *s, MYSQL_BIND *binds)
{
    MYSQL_STMT *stmt;
    unsigned rows = (unsigned)s->rows;
    s->failed = hp_db_prepare(s->conn, s->many, &stmt, s->e);
    if (s->failed)
        return;
    if (mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &rows) || mysql_stmt_bind_param(stmt, binds) ||
        mysql_stmt_execute(stmt))
        s->failed = hp_db_fail(s->conn, s->e, s->head);
    else
        s->affected += mysql_stmt_affected_rows(stmt);
}

static void send_many(struct sc_sql *s)
{
    struct column columns[SC_SQL_COLUMNS_MAX] = {0};
    MYSQL_BIND binds[SC_SQL_COLUMNS_MAX];
    bool good = true;
    memset(binds, 0, sizeof binds);
    for (size_t k = 0; k < s->columns && good; k++)
        good = fill(s, k, &columns[k], &binds[k]);
    if (good)
        execute(s, binds);
    else
        no_memory(s, s->rows * s->columns * sizeof(int64_t));
    for (size_t k = 0; k < s->columns; k++) {
        free(columns[k].values);
        free(columns[k].lengths);
    }
}

/* ---- Rows ---- */

static void send_rows(struct sc_sql *s)
{
    static_assert(sizeof(int64_t) == sizeof(char *), "a column holds either");
    if (s->failed)
        return;
    assert(s->count == s->rows * s->columns);
    if (s->many && s->rows >= MANY_MIN)
        send_many(s);
    else
        send_text(s);
    s->count = s->rows = s->bytes = 0;
}

void sc_sql_row(struct sc_sql *s)
{
    s->rows++;
}

void sc_sql_row_end(struct sc_sql *s)
{
    s->columns = s->rows == 1 ? s->count : s->columns;
    if (s->bytes >= SEND_AT_BYTES)
        send_rows(s);
}

static void put_value(struct sc_sql *s, struct sc_sql_cell x)
{
    if (s->failed)
        return;
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 64;
        struct sc_sql_cell *cells = realloc(s->cells, room * sizeof *cells);
        if (!cells) {
            no_memory(s, room * sizeof *cells);
            return;
        }
        s->cells = cells;
        s->room = room;
    }
    s->cells[s->count++] = x;
    s->bytes += x.len + sizeof x.number;
}

void sc_sql_text(struct sc_sql *s, const char *value)
{
    put_value(s, (struct sc_sql_cell){.type = MYSQL_TYPE_STRING, .bytes = value, .len = strlen(value)});
}

void sc_sql_bytes(struct sc_sql *s, const void *data, size_t len)
{
    put_value(s, (struct sc_sql_cell){.type = MYSQL_TYPE_BLOB, .bytes = data, .len = len});
}

void sc_sql_int(struct sc_sql *s, int64_t value)
{
    put_value(s, (struct sc_sql_cell){.type = MYSQL_TYPE_LONGLONG, .number = value});
}

int sc_sql_end(struct sc_sql *s)
{
    if (s->rows)
        send_rows(s);
    free(s->cells);
    free(s->text);
    s->cells = NULL;
    s->text = NULL;
    return s->failed;
}

static int __attribute__((format(printf, 4, 0)))
format(char *sql, size_t size, struct hp_error *e, const char *fmt, va_list ap)
{
    int n = vsnprintf(sql, size, fmt, ap);
    return n < 0 || (size_t)n >= size ? hp_fail(e, HP_EINTERNAL, "statement over %zu bytes: %s", size, fmt) : 0;
}

int sc_sql_exec(struct hp_db_conn *c, uint64_t *ret_affected, struct hp_error *e, const char *fmt, ...)
{
    char sql[2048];
    va_list ap;
    va_start(ap, fmt);
    int rc = format(sql, sizeof sql, e, fmt, ap);
    va_end(ap);
    return rc ? rc : hp_db_exec(c, sql, ret_affected, e);
}

int sc_sql_select(struct hp_db_conn *c, sc_row_fn row_cb, void *user, struct hp_error *e, const char *fmt, ...)
{
    static _Thread_local char sql[STATEMENT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int rc = format(sql, sizeof sql, e, fmt, ap);
    va_end(ap);
    if (rc)
        return rc;
    MYSQL *my = hp_db_mysql(c);
    if (mysql_real_query(my, sql, strlen(sql)) != 0)
        return hp_db_fail(c, e, "read");
    MYSQL_RES *result = mysql_use_result(my);
    if (!result)
        return hp_db_fail(c, e, "read");
    MYSQL_ROW columns;
    while (!rc && (columns = mysql_fetch_row(result)) != NULL)
        rc = row_cb(user, columns, mysql_fetch_lengths(result), e);
    if (!rc && mysql_errno(my) != 0)
        rc = hp_db_fail(c, e, "read");
    mysql_free_result(result); /* reads what is left */
    return rc;
}
