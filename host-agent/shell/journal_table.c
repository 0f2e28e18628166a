#include "shell/journal_table.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"

#define COL(type, name, kind, field)                                                                                   \
    {                                                                                                                  \
        (name), HA_COLUMN_##kind, offsetof(struct type, field), sizeof(((struct type *)0)->field)                      \
    }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct ha_column container_columns[] = {
    COL(ha_record, "uid", NAME, uid),
    COL(ha_record, "name", TEXT, name),
    COL(ha_record, "generation", INT64, generation),
    COL(ha_record, "restart_serial", INT64, restart_serial),
    COL(ha_record, "spec", BYTES, spec),
    COL(ha_record, "outcome", INT32, outcome),
    COL(ha_record, "error_code", INT32, error_code),
    COL(ha_record, "error_message", TEXT, error_message),
    COL(ha_record, "intent_generation", INT64, intent.generation),
    COL(ha_record, "intent_verb", INT32, intent.verb),
    COL(ha_record, "intent_step", INT32, intent.step),
    COL(ha_record, "intent_epoch", INT64, intent.epoch),
    COL(ha_record, "intent_restart_serial", INT64, intent.restart_serial),
    COL(ha_record, "intent_operation_id", NAME, intent.operation_id),
    COL(ha_record, "intent_spec", BYTES, intent.spec),
    COL(ha_record, "quarantined", BOOL, quarantined),
    COL(ha_record, "state", INT32, state),
    COL(ha_record, "health", INT32, health),
    COL(ha_record, "pid", INT64, pid),
    COL(ha_record, "pid_start_ticks", INT64, pid_start_ticks),
    COL(ha_record, "exit_code", INT32, exit_code),
    COL(ha_record, "oom_killed", BOOL, oom_killed),
    COL(ha_record, "restart_count", INT32, restart_count),
    COL(ha_record, "address", TEXT, address),
    COL(ha_record, "image_digest", TEXT, image_digest),
    COL(ha_record, "message", TEXT, message),
    COL(ha_record, "start_wall_ns", INT64, start_wall_ns),
    COL(ha_record, "finish_wall_ns", INT64, finish_wall_ns),
    COL(ha_record, "known", BOOL, known.counts),
    COL(ha_record, "known_generation", INT64, known.generation),
    COL(ha_record, "known_desired", INT32, known.desired),
    COL(ha_record, "known_state", INT32, known.state),
};

static const struct ha_column report_columns[] = {
    COL(ha_report_row, "id", INT64, id),
    COL(ha_report_row, "uid", NAME, uid),
    COL(ha_report_row, "result", BOOL, result),
    COL(ha_report_row, "generation", INT64, generation),
    COL(ha_report_row, "known", BOOL, known.counts),
    COL(ha_report_row, "known_generation", INT64, known.generation),
    COL(ha_report_row, "known_desired", INT32, known.desired),
    COL(ha_report_row, "known_state", INT32, known.state),
    COL(ha_report_row, "body", BYTES, body),
};

static const struct ha_column tombstone_columns[] = {
    COL(ha_tombstone, "uid", NAME, uid),
    COL(ha_tombstone, "generation", INT64, generation),
    COL(ha_tombstone, "report_id", INT64, report_id),
    COL(ha_tombstone, "known", BOOL, known.counts),
    COL(ha_tombstone, "known_generation", INT64, known.generation),
    COL(ha_tombstone, "known_desired", INT32, known.desired),
    COL(ha_tombstone, "known_state", INT32, known.state),
};

const struct ha_table ha_table_containers = {"containers", container_columns, COUNT(container_columns),
                                             sizeof(struct ha_record)};
const struct ha_table ha_table_reports = {"reports", report_columns, COUNT(report_columns),
                                          sizeof(struct ha_report_row)};
const struct ha_table ha_table_tombstones = {"tombstones", tombstone_columns, COUNT(tombstone_columns),
                                             sizeof(struct ha_tombstone)};

static size_t add(char *out, size_t at, const char *text)
{
    size_t n = strlen(text);
    assert(at + n < HA_SQL_MAX);
    memcpy(out + at, text, n + 1);
    return at + n;
}

static const char *sql_type(enum ha_column_kind kind)
{
    if (kind == HA_COLUMN_TEXT || kind == HA_COLUMN_NAME)
        return " TEXT";
    return kind == HA_COLUMN_BYTES ? " BLOB" : " INTEGER";
}

/* Rows without a number of their own get one that grows: their order of writing. */
void ha_table_create_sql(const struct ha_table *t, char out[HA_SQL_MAX])
{
    bool numbered = t->columns[0].kind == HA_COLUMN_INT64;
    size_t at = add(out, 0, "CREATE TABLE ");
    at = add(out, at, t->name);
    at = add(out, at, numbered ? " (" : " (written INTEGER PRIMARY KEY AUTOINCREMENT, ");
    for (size_t i = 0; i < t->column_count; i++) {
        at = add(out, at, i ? ", " : "");
        at = add(out, at, t->columns[i].name);
        at = add(out, at, sql_type(t->columns[i].kind));
        if (i == 0)
            at = add(out, at, numbered ? " PRIMARY KEY" : " NOT NULL UNIQUE");
    }
    add(out, at, ", sum INTEGER) STRICT");
}

static size_t add_columns(const struct ha_table *t, char *out, size_t at)
{
    for (size_t i = 0; i < t->column_count; i++) {
        at = add(out, at, i ? ", " : "");
        at = add(out, at, t->columns[i].name);
    }
    return at;
}

void ha_table_replace_sql(const struct ha_table *t, char out[HA_SQL_MAX])
{
    size_t at = add(out, 0, "INSERT OR REPLACE INTO ");
    at = add(out, at, t->name);
    at = add(out, at, " (");
    at = add_columns(t, out, at);
    at = add(out, at, ", sum) VALUES (");
    for (size_t i = 0; i < t->column_count; i++)
        at = add(out, at, "?, ");
    add(out, at, "?)");
}

void ha_table_select_sql(const struct ha_table *t, char out[HA_SQL_MAX])
{
    size_t at = add(out, 0, "SELECT ");
    at = add_columns(t, out, at);
    at = add(out, at, ", sum FROM ");
    at = add(out, at, t->name);
    add(out, at, " ORDER BY rowid");
}

static uint64_t sum_column(const struct ha_column *c, const void *row, uint64_t h)
{
    const char *p = (const char *)row + c->offset;
    const struct ha_bytes *b = (const void *)p;
    const char *text = c->kind == HA_COLUMN_TEXT ? *(char *const *)(const void *)p : p;
    switch (c->kind) {
    case HA_COLUMN_TEXT:
    case HA_COLUMN_NAME:
        return text ? hp_hash(h, text, strlen(text)) : h + 1;
    case HA_COLUMN_BYTES:
        return hp_hash(h, b->data, b->len);
    default:
        return hp_hash(h, p, c->size);
    }
}

uint64_t ha_table_sum(const struct ha_table *t, const void *row)
{
    uint64_t h = 1;
    for (size_t i = 0; i < t->column_count; i++)
        h = sum_column(&t->columns[i], row, h);
    return h;
}

int ha_table_bind(const struct ha_table *t, sqlite3_stmt *s, const void *row)
{
    int rc = SQLITE_OK;
    for (size_t i = 0; i < t->column_count && rc == SQLITE_OK; i++) {
        const char *p = (const char *)row + t->columns[i].offset;
        const struct ha_bytes *b = (const void *)p;
        int n = (int)i + 1;
        switch (t->columns[i].kind) {
        case HA_COLUMN_INT32:
            rc = sqlite3_bind_int(s, n, *(const int32_t *)(const void *)p);
            break;
        case HA_COLUMN_INT64:
            rc = sqlite3_bind_int64(s, n, *(const int64_t *)(const void *)p);
            break;
        case HA_COLUMN_BOOL:
            rc = sqlite3_bind_int(s, n, *(const bool *)p);
            break;
        case HA_COLUMN_TEXT:
            rc = sqlite3_bind_text(s, n, *(char *const *)(const void *)p, -1, SQLITE_STATIC);
            break;
        case HA_COLUMN_NAME:
            rc = sqlite3_bind_text(s, n, p, -1, SQLITE_STATIC);
            break;
        case HA_COLUMN_BYTES:
            rc = b->len ? sqlite3_bind_blob64(s, n, b->data, b->len, SQLITE_STATIC) : sqlite3_bind_null(s, n);
            break;
        }
    }
    return rc == SQLITE_OK ? sqlite3_bind_int64(s, (int)t->column_count + 1, (int64_t)ha_table_sum(t, row)) : rc;
}

/* NULL: the column is NULL, or (*ret_rc is HP_ENOMEM) SQLite had no memory for it. */
static const char *column_text(sqlite3_stmt *s, int i, int *ret_rc)
{
    bool null = sqlite3_column_type(s, i) == SQLITE_NULL;
    const char *text = (const char *)sqlite3_column_text(s, i);
    *ret_rc = text || null ? 0 : HP_ENOMEM;
    return text;
}

static int read_column(const struct ha_column *c, sqlite3_stmt *s, int i, void *p)
{
    const char *text;
    const void *bytes;
    int rc;
    switch (c->kind) {
    case HA_COLUMN_INT32:
        if (sqlite3_column_int64(s, i) < INT32_MIN || sqlite3_column_int64(s, i) > INT32_MAX)
            return HP_ECORRUPT;
        *(int32_t *)p = sqlite3_column_int(s, i);
        return 0;
    case HA_COLUMN_INT64:
        *(int64_t *)p = sqlite3_column_int64(s, i);
        return 0;
    case HA_COLUMN_BOOL:
        *(bool *)p = sqlite3_column_int(s, i) != 0;
        return 0;
    case HA_COLUMN_TEXT:
        text = column_text(s, i, &rc);
        if (text && !(*(char **)p = strdup(text)))
            return HP_ENOMEM;
        return rc;
    case HA_COLUMN_NAME:
        text = column_text(s, i, &rc);
        if (!text || strlen(text) >= c->size)
            return rc ? rc : HP_ECORRUPT;
        memcpy(p, text, strlen(text) + 1);
        return 0;
    case HA_COLUMN_BYTES:
        if (sqlite3_column_bytes(s, i) > HA_BLOB_MAX)
            return HP_ECORRUPT;
        bytes = sqlite3_column_blob(s, i);
        if (!bytes && sqlite3_column_bytes(s, i))
            return HP_ENOMEM;
        return ha_bytes_copy(p, bytes, (size_t)sqlite3_column_bytes(s, i));
    }
    return HP_EINTERNAL;
}

int ha_table_read(const struct ha_table *t, sqlite3_stmt *s, void *row, struct hp_error *e)
{
    for (size_t i = 0; i < t->column_count; i++) {
        int rc = read_column(&t->columns[i], s, (int)i, (char *)row + t->columns[i].offset);
        if (rc)
            return hp_fail(e, rc, "table %s, column %s: %s", t->name, t->columns[i].name, hp_strerror(rc));
    }
    int last = (int)t->column_count;
    if (sqlite3_column_type(s, last) != SQLITE_NULL && (uint64_t)sqlite3_column_int64(s, last) != ha_table_sum(t, row))
        return hp_fail(e, HP_ECORRUPT, "table %s: a row is not what was written", t->name);
    return 0;
}
