/* admin: changes of the record itself. migrate applies the numbered SQL files (built into the program) that the record does not have yet, each once, in order. */
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "migrations.h"

static int db_error(MYSQL *m, const char *what)
{
    return cli_error(CLI_INTERNAL, "%s: %s", what, mysql_error(m));
}

/* All statements of one text; results are read and dropped. */
static int run_script(MYSQL *m, const char *name, const char *sql, size_t len)
{
    if (mysql_real_query(m, sql, (unsigned long)len))
        return db_error(m, name);
    for (;;) {
        MYSQL_RES *res = mysql_store_result(m);
        if (res)
            mysql_free_result(res);
        int more = mysql_next_result(m);
        if (more < 0)
            return CLI_OK;
        if (more > 0)
            return db_error(m, name);
    }
}

static int applied_version(MYSQL *m, long *ret)
{
    int code = run_script(
        m, "schema_migrations",
        "CREATE TABLE IF NOT EXISTS schema_migrations (version INT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, "
        "applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB",
        strlen("CREATE TABLE IF NOT EXISTS schema_migrations (version INT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT "
               "NULL, "
               "applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB"));
    if (code)
        return code;
    if (mysql_query(m, "SELECT COALESCE(MAX(version), 0) FROM schema_migrations"))
        return db_error(m, "schema_migrations");
    MYSQL_RES *res = mysql_store_result(m);
    MYSQL_ROW row = res ? mysql_fetch_row(res) : NULL;
    *ret = row ? strtol(row[0], NULL, 10) : 0;
    mysql_free_result(res);
    return row ? CLI_OK : cli_error(CLI_INTERNAL, "schema_migrations: no answer");
}

static int migrate(MYSQL *m, bool only_list)
{
    long have = 0;
    /* One migration at a time, whoever starts it. */
    if (mysql_query(m, "SELECT GET_LOCK('harpoon.migrate', 60)"))
        return db_error(m, "lock");
    MYSQL_RES *res = mysql_store_result(m);
    MYSQL_ROW row = res ? mysql_fetch_row(res) : NULL;
    bool locked = row && row[0] && row[0][0] == '1';
    mysql_free_result(res);
    if (!locked)
        return cli_error(CLI_UNAVAILABLE, "another migration has been running for 60 s");
    int code = applied_version(m, &have);
    for (const struct cli_migration *g = cli_migrations; g->name && !code; g++) {
        char mark[256];
        bool known = g->version <= have;
        if (only_list || known) {
            printf("%s  %s\n", known ? "applied" : "pending", g->name);
            continue;
        }
        code = run_script(m, g->name, g->sql, g->len);
        snprintf(mark, sizeof mark, "INSERT INTO schema_migrations (version, name) VALUES (%ld, '%s')", g->version,
                 g->name);
        if (!code)
            code = run_script(m, g->name, mark, strlen(mark));
        if (!code)
            printf("now applied  %s\n", g->name);
    }
    return code;
}

enum verb { MIGRATE, MIGRATIONS, RESTORED, VERB_COUNT };
static const char *const verbs[VERB_COUNT] = {"migrate", "migrations", "restored"};

static int run_verb(MYSQL *m, enum verb verb, const char *region, bool yes)
{
    if (verb == RESTORED)
        return cli_admin_restored(m, region, yes);
    return migrate(m, verb == MIGRATIONS);
}

int cli_cmd_admin(struct cli *c, int argc, char **argv)
{
    bool help = false, yes = false;
    const char *user = NULL;
    struct cli_args args;
    const struct cli_option table[] = {
        {"socket", 0, CLI_STRING, &c->mysql_socket, "PATH", "MariaDB's socket (HARPOON_MYSQL_SOCKET)"},
        {"database", 0, CLI_STRING, &c->mysql_database, "NAME", "database (HARPOON_MYSQL_DATABASE)"},
        {"user", 0, CLI_STRING, &user, "USER", "default: the user who runs the command; password from MYSQL_PWD"},
        {"yes", 'y', CLI_FLAG, &yes, NULL, "restored: also a --region that no dump has marked"},
        {"help", 'h', CLI_FLAG, &help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    const char *default_region = c->region;
    c->region = NULL; /* of the environment: a restore is not for the region that one happens to work with */
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("admin: %s", e.message);
    const char *region = c->region;
    c->region = default_region;
    if (help) {
        puts("Usage: harpoon admin migrate | migrations | restored [--region NAME [--yes]]\n\nOptions:");
        cli_print_options(stdout, table);
        return CLI_OK;
    }
    int verb = 0;
    while (verb < VERB_COUNT && (args.count != 1 || strcmp(args.items[0], verbs[verb]) != 0))
        verb++;
    if (verb == VERB_COUNT)
        return cli_usage("admin: give migrate, migrations or restored");
    if (!c->mysql_socket || !c->mysql_database)
        return cli_usage("admin: set HARPOON_MYSQL_SOCKET and HARPOON_MYSQL_DATABASE");
    MYSQL *m = mysql_init(NULL);
    int code;
    if (!m || !mysql_real_connect(m, NULL, user, getenv("MYSQL_PWD"), c->mysql_database, 0, c->mysql_socket,
                                  CLIENT_MULTI_STATEMENTS))
        code = cli_error(CLI_UNAVAILABLE, "%s: %s", c->mysql_socket, m ? mysql_error(m) : "out of memory");
    else
        code = run_verb(m, (enum verb)verb, region, yes);
    if (m)
        mysql_close(m);
    return code;
}
