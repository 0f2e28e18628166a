/* migrations.h — the SQL files of deploy/sql, built into the program in order; made by embed_sql.py. */
#ifndef CLI_MIGRATIONS_H
#define CLI_MIGRATIONS_H

#include <stddef.h>

struct cli_migration {
    long version;
    const char *name; /* "0001_init.sql"; NULL ends the table */
    const char *sql;
    size_t len;
};
extern const struct cli_migration cli_migrations[];

#endif
