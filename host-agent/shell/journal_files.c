#include "shell/journal_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_MAX_BYTES = 4096 };

static void reserve_path(const char *path, char buf[PATH_MAX_BYTES + 16])
{
    snprintf(buf, PATH_MAX_BYTES + 16, "%s.reserve", path);
}

int ha_reserve_take(const char *path, int64_t bytes, struct hp_error *e)
{
    char file[PATH_MAX_BYTES + 16];
    reserve_path(path, file);
    int fd = open(file, O_CREAT | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
    int err = fd < 0 ? errno : posix_fallocate(fd, 0, bytes);
    if (fd >= 0)
        close(fd);
    if (!err)
        return 0;
    (void)unlink(file);
    return hp_fail_errno(e, HP_EIO, err, "%s: %lld bytes", file, (long long)bytes);
}

bool ha_reserve_give(const char *path)
{
    char file[PATH_MAX_BYTES + 16];
    reserve_path(path, file);
    return unlink(file) == 0;
}

static int move_part(const char *from, const char *to, const char *suffix, struct hp_error *e)
{
    char a[PATH_MAX_BYTES + 64], b[PATH_MAX_BYTES + 64];
    snprintf(a, sizeof a, "%s%s", from, suffix);
    snprintf(b, sizeof b, "%s%s", to, suffix);
    if (rename(a, b) && errno != ENOENT)
        return hp_fail_errno(e, HP_EIO, errno, "journal: moving %s to %s", a, b);
    return 0;
}

int ha_journal_quarantine(const char *path, char *ret_path, struct hp_error *e)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    struct stat st;
    struct hp_error none;
    if (strlen(path) >= PATH_MAX_BYTES - 32)
        return hp_fail(e, HP_EINVAL, "journal: path longer than %d bytes", PATH_MAX_BYTES - 33);
    if (stat(path, &st))
        return hp_fail_errno(e, errno == ENOENT ? HP_ENOTFOUND : HP_EIO, errno, "journal %s", path);
    int n = 1, rc = 0;
    do
        snprintf(ret_path, PATH_MAX_BYTES, "%s.damaged-%d", path, n);
    while (stat(ret_path, &st) == 0 && n++ < 1000);
    for (int i = 0; i < 4 && !rc; i++) {
        rc = move_part(path, ret_path, suffixes[i], e);
        /* All or nothing: the next start would take a database whose log was left behind for a new one. */
        while (rc && i-- > 0)
            (void)!move_part(ret_path, path, suffixes[i], &none);
    }
    return rc;
}
