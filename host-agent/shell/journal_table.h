/* journal_table.h — the journal's tables as lists of columns, from which statements are made, bound and read. */
#ifndef HA_SHELL_JOURNAL_TABLE_H
#define HA_SHELL_JOURNAL_TABLE_H

#include <sqlite3.h>
#include <stddef.h>

#include "core/journal.h"

enum ha_column_kind {
    HA_COLUMN_INT32,
    HA_COLUMN_INT64,
    HA_COLUMN_BOOL,
    HA_COLUMN_TEXT,  /* char *: NULL is NULL */
    HA_COLUMN_NAME,  /* char[size] */
    HA_COLUMN_BYTES, /* struct ha_bytes: empty is NULL */
};

struct ha_column {
    const char *name;
    enum ha_column_kind kind;
    size_t offset, size; /* of the field in the row's structure */
};

struct ha_table {
    const char *name;
    const struct ha_column *columns; /* the first is the primary key, or unique */
    size_t column_count;
    size_t row_size;
};

extern const struct ha_table ha_table_containers; /* struct ha_record */
extern const struct ha_table ha_table_reports;    /* struct ha_report_row */
extern const struct ha_table ha_table_tombstones; /* struct ha_tombstone */

enum { HA_SQL_MAX = 2048 };
void ha_table_create_sql(const struct ha_table *t, char out[HA_SQL_MAX]);
void ha_table_replace_sql(const struct ha_table *t, char out[HA_SQL_MAX]);
void ha_table_select_sql(const struct ha_table *t, char out[HA_SQL_MAX]);

/* SipHash of all fields. It is kept in a last column, `sum`, so that a row that changed by itself is noticed; NULL in rows of agents that did not know it. */
uint64_t ha_table_sum(const struct ha_table *t, const void *row);

/* Binds a row's fields and their sum; borrowed until the statement is reset. Returns SQLite's code. */
int ha_table_bind(const struct ha_table *t, sqlite3_stmt *s, const void *row);
/* Reads the row that the statement is at into zeroed memory. HP_ENOMEM, HP_ECORRUPT (names table and column); what was read stays in *row. */
int ha_table_read(const struct ha_table *t, sqlite3_stmt *s, void *row, struct hp_error *e) HP_MUST_CHECK;

#endif
