/* rt_functions.c — DIR/functions/eth5 holds the uid; it is a link to a file that is written before, which decides between two that come at once. */
#include "rt_functions.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rt_fs.h"

static int functions_dir(const char *dir, char *buf, size_t size, struct hp_error *e)
{
    int rc = ha_fs_path(buf, size, e, "%s/functions", dir);
    return rc ? rc : ha_fs_mkdirs(buf, 0700, e);
}

static bool owned(const char *functions, const char *interface, const char *uid)
{
    char path[700];
    HA_FREE char *owner = NULL;
    size_t size;
    struct hp_error ignored = {0};
    return ha_fs_path(path, sizeof path, &ignored, "%s/%s", functions, interface) == 0 &&
           ha_fs_read(AT_FDCWD, path, 256, &owner, &size, &ignored) == 0 && (!uid || strcmp(owner, uid) == 0);
}

/* Gives back what `uid` has, but for `keep` (may be NULL). */
static int give_back(const char *functions, const char *uid, const char *keep, struct hp_error *e)
{
    DIR *d = opendir(functions);
    struct dirent *item;
    int rc = d ? 0 : hp_fail_errno(e, HP_EIO, errno, "open %s", functions);
    while (rc == 0 && (item = readdir(d)))
        if (item->d_name[0] != '.' && !(keep && strcmp(item->d_name, keep) == 0) &&
            owned(functions, item->d_name, uid) && unlinkat(dirfd(d), item->d_name, 0) != 0)
            rc = hp_fail_errno(e, HP_EIO, errno, "remove %s/%s", functions, item->d_name);
    if (d)
        closedir(d);
    return rc;
}

/* The first that is on the host and can be linked to `mine`, a file with the uid in it. */
static int take_free(const char *functions, const char *mine, const char *const *interfaces,
                     char ret[HA_INTERFACE_SIZE], struct hp_error *e)
{
    for (size_t i = 0; interfaces && interfaces[i]; i++) {
        char path[700];
        int rc = ha_fs_path(path, sizeof path, e, "%s/%s", functions, interfaces[i]);
        if (rc)
            return rc;
        if (!if_nametoindex(interfaces[i]) || link(mine, path) != 0) {
            if (errno != EEXIST && errno != ENODEV)
                return hp_fail_errno(e, HP_EIO, errno, "take %s", path);
            continue;
        }
        snprintf(ret, HA_INTERFACE_SIZE, "%s", interfaces[i]);
        return 0;
    }
    return hp_fail(e, HP_ELIMIT, "no network function is left");
}

int ha_function_take(const char *dir, const char *uid, const char *const *interfaces, char ret[HA_INTERFACE_SIZE],
                     struct hp_error *e)
{
    char functions[640], mine[700];
    int rc = functions_dir(dir, functions, sizeof functions, e);
    if (rc)
        return rc;
    for (size_t i = 0; interfaces && interfaces[i]; i++)
        if (owned(functions, interfaces[i], uid)) {
            snprintf(ret, HA_INTERFACE_SIZE, "%s", interfaces[i]);
            return give_back(functions, uid, ret, e);
        }
    rc = give_back(functions, uid, NULL, e);
    if (rc == 0)
        rc = ha_fs_path(mine, sizeof mine, e, "%s/.%s", functions, uid);
    if (rc == 0)
        rc = ha_fs_write(mine, uid, strlen(uid), 0600, false, e);
    if (rc)
        return rc;
    rc = take_free(functions, mine, interfaces, ret, e);
    (void)unlink(mine);
    return rc;
}

void ha_function_of(const char *dir, const char *uid, char ret[HA_INTERFACE_SIZE])
{
    char functions[640];
    struct hp_error ignored = {0};
    ret[0] = '\0';
    DIR *d = functions_dir(dir, functions, sizeof functions, &ignored) == 0 ? opendir(functions) : NULL;
    for (struct dirent *item; d && (item = readdir(d));)
        if (item->d_name[0] != '.' && strlen(item->d_name) < HA_INTERFACE_SIZE && owned(functions, item->d_name, uid))
            snprintf(ret, HA_INTERFACE_SIZE, "%.15s", item->d_name);
    if (d)
        closedir(d);
}

int ha_function_release(const char *dir, const char *uid, struct hp_error *e)
{
    char functions[640];
    int rc = functions_dir(dir, functions, sizeof functions, e);
    return rc ? rc : give_back(functions, uid, NULL, e);
}

size_t ha_function_count(const char *dir, const char *const *interfaces)
{
    char functions[640];
    struct hp_error ignored = {0};
    size_t n = 0;
    if (functions_dir(dir, functions, sizeof functions, &ignored))
        return 0;
    for (size_t i = 0; interfaces && interfaces[i]; i++)
        n += if_nametoindex(interfaces[i]) || owned(functions, interfaces[i], NULL);
    return n;
}
