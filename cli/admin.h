/* admin.h — between the files of `harpoon admin`, which goes straight to the record. */
#ifndef CLI_ADMIN_H
#define CLI_ADMIN_H

#include <mysql/mysql.h>

#include "cli.h"

/* `only`: one region, which need not have a row yet; NULL: all that were loaded from a dump. `yes`: also without a dump's mark. Exit code. */
int cli_admin_restored(MYSQL *m, const char *only, bool yes);

#endif
