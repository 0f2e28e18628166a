/* admin restored: the record is older than the world (docs/OPERATIONS.md, "Restoring the record"). Raises each region's epoch and sequence beyond all that can have been used,
 * begins its log of events anew, and lets a scheduler lead it, which then compares the record with every host. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin.h"
#include "wire/names.h"

enum { REGIONS_MAX = 256, DELETE_ROWS = 10000 };

struct region {
    char name[64];
    int64_t epoch, sequence;
    int restored;
};

static int __attribute__((format(printf, 3, 4))) run(MYSQL *m, int64_t *ret_affected, const char *fmt, ...)
{
    char sql[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(sql, sizeof sql, fmt, ap);
    va_end(ap);
    if (mysql_query(m, sql))
        return cli_error(CLI_INTERNAL, "%s", mysql_error(m));
    if (ret_affected)
        *ret_affected = (int64_t)mysql_affected_rows(m);
    return CLI_OK;
}

static int load(MYSQL *m, struct region *list, int *ret_count)
{
    *ret_count = 0;
    int code = run(m, NULL, "SELECT name, epoch, sequence, restored FROM regions ORDER BY name");
    MYSQL_RES *res = code ? NULL : mysql_store_result(m);
    MYSQL_ROW row;
    while (res && (row = mysql_fetch_row(res)) && *ret_count < REGIONS_MAX) {
        struct region *r = &list[(*ret_count)++];
        snprintf(r->name, sizeof r->name, "%s", row[0]);
        r->epoch = strtoll(row[1], NULL, 10);
        r->sequence = strtoll(row[2], NULL, 10);
        r->restored = atoi(row[3]);
    }
    mysql_free_result(res);
    return code;
}

/* Epochs and sequences grow by far less than one a millisecond, and a microsecond: so the clock is ahead of all that were ever used, whatever the backup's age, and however often
 * it is restored. */
static int raise_region(MYSQL *m, const struct region *r)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    if (us <= r->sequence || us / 1000 <= r->epoch)
        return cli_error(CLI_INTERNAL,
                         "region %s: this machine's clock is behind what the record has (sequence %" PRId64
                         "): set it right",
                         r->name, r->sequence);
    int code = run(m, NULL,
                   "UPDATE regions SET epoch = %" PRId64 ", sequence = %" PRId64 ", watermark = %" PRId64
                   ", oldest = %" PRId64 ", restored = 2, holder = '', revision = revision + 1 WHERE name = '%s'",
                   us / 1000, us, us, us + 1, r->name);
    for (int64_t deleted = DELETE_ROWS; !code && deleted == DELETE_ROWS;)
        code = run(m, &deleted, "DELETE FROM events WHERE region = '%s' AND sequence <= %" PRId64 " LIMIT %d", r->name,
                   us, DELETE_ROWS);
    if (!code)
        printf("%s: epoch %" PRId64 ", events from sequence %" PRId64 "; start its schedulers\n", r->name, us / 1000,
               us + 1);
    return code;
}

int cli_admin_restored(MYSQL *m, const char *only, bool yes)
{
    static struct region list[REGIONS_MAX];
    int count = 0, done = 0;
    int code = CLI_OK;
    if (only && !hp_segment_valid(only))
        return cli_usage("admin restored: \"%s\" is not a region's name", only);
    if (only)
        code = run(m, NULL, "INSERT IGNORE INTO regions (name, restored) VALUES ('%s', 1)", only);
    if (!code)
        code = load(m, list, &count);
    for (int i = 0; i < count && !code; i++) {
        if (only && strcmp(only, list[i].name) != 0)
            continue;
        if (list[i].restored != 1 && !yes) {
            if (only)
                return cli_usage(
                    "admin restored: region %s was not loaded from a dump with the mark of one; if it is older "
                    "than what its hosts know all the same, say --yes",
                    only);
            continue;
        }
        code = raise_region(m, &list[i]);
        done++;
    }
    if (!code && !done)
        puts("no region was loaded from a dump; one that is new, or was restored in another way: --region NAME --yes");
    return code;
}
