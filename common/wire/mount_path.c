#include "wire/mount_path.h"

#include <stddef.h>
#include <string.h>

int hp_mount_path_check(const char *path, struct hp_error *e)
{
    static const char *const taken[] = {"/proc", "/sys", "/dev"};
    size_t len = strlen(path);
    if (path[0] != '/' || len < 2 || len > HP_MOUNT_PATH_MAX)
        return hp_fail(e, HP_EINVAL, "\"%.64s\" is not an absolute path below / of at most %d bytes", path,
                       HP_MOUNT_PATH_MAX);
    for (const char *p = path + 1; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n <= 2 && strspn(p, ".") == n))
            return hp_fail(e, HP_EINVAL, "\"%.64s\" has an empty segment, \".\" or \"..\" in it", path);
        p += n;
        p += *p == '/';
    }
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        size_t n = strlen(taken[i]);
        if (strncmp(path, taken[i], n) == 0 && (path[n] == '\0' || path[n] == '/'))
            return hp_fail(e, HP_EINVAL, "\"%.64s\" is in %s", path, taken[i]);
    }
    return 0;
}
