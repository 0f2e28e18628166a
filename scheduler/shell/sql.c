#include "shell/sql.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEND_AT_BYTES = 2 << 20, STATEMENT_MAX = 32768 };

void sc_sql_begin(struct sc_sql *s, struct hp_db_conn *c, const char *head, const char *tail, struct hp_error *e)
{
    *s = (struct sc_sql){.conn = c, .head = head, .tail = tail, .e = e};
}

static char *reserve(struct sc_sql *s, size_t len)
{
    if (s->failed)
        return NULL;
    if (s->len + len > s->room) {
        size_t room = s->room ? s->room : 4096;
        while (room < s->len + len)
            room *= 2;
        char *text = realloc(s->text, room);
        if (!text) {
            s->failed = hp_fail(s->e, HP_ENOMEM, "statement of %zu bytes: %s", room, hp_strerror(HP_ENOMEM));
            return NULL;
        }
        s->text = text;
        s->room = room;
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

static void send_text(struct sc_sql *s)
{
    put(s, s->tail, strlen(s->tail));
    if (s->failed)
        return;
    MYSQL *my = hp_db_mysql(s->conn);
    if (mysql_real_query(my, s->text, s->len) != 0)
        s->failed = hp_db_fail(s->conn, s->e, s->head);
    else
        s->affected += mysql_affected_rows(my);
    s->len = 0;
    s->rows = 0;
}

void sc_sql_row(struct sc_sql *s)
{
    if (s->rows == 0)
        put(s, s->head, strlen(s->head));
    put(s, s->rows ? ",(" : "(", s->rows ? 2 : 1);
    s->first_column = true;
}

void sc_sql_row_end(struct sc_sql *s)
{
    put(s, ")", 1);
    s->rows++;
    if (s->len >= SEND_AT_BYTES)
        send_text(s);
}

static void comma(struct sc_sql *s)
{
    if (!s->first_column)
        put(s, ",", 1);
    s->first_column = false;
}

static void escaped(struct sc_sql *s, const void *data, size_t len)
{
    char *to = reserve(s, 2 * len + 3);
    if (!to)
        return;
    *to++ = '\'';
    size_t n = mysql_real_escape_string(hp_db_mysql(s->conn), to, data, len);
    to[n] = '\'';
    s->len += n + 2;
}

void sc_sql_text(struct sc_sql *s, const char *value)
{
    comma(s);
    escaped(s, value, strlen(value));
}

void sc_sql_bytes(struct sc_sql *s, const void *data, size_t len)
{
    comma(s);
    put(s, "_binary", 7);
    escaped(s, data, len);
}

void sc_sql_int(struct sc_sql *s, int64_t value)
{
    char text[24];
    comma(s);
    put(s, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

int sc_sql_end(struct sc_sql *s)
{
    if (s->rows)
        send_text(s);
    free(s->text);
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
