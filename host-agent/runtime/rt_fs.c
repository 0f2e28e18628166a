#include "rt_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Directories deeper than this are moved up to the top of the tree that is being removed. */
#define DEPTH_MAX 48

void ha_fs_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void ha_fs_freep(void *p)
{
    void *heap;
    memcpy(&heap, p, sizeof heap);
    free(heap);
}

int ha_fs_path(char *buf, size_t size, struct hp_error *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size)
        return hp_fail(e, HP_ELIMIT, "path longer than %zu bytes: %s", size - 1, buf);
    return 0;
}

int ha_fs_mkdirs(const char *path, mode_t mode, struct hp_error *e)
{
    if (mkdir(path, mode) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT)
        return hp_fail_errno(e, HP_EIO, errno, "make directory %s", path);
    char part[4096];
    int rc = ha_fs_path(part, sizeof part, e, "%s", path);
    if (rc)
        return rc;
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(part, mode) != 0 && errno != EEXIST)
            return hp_fail_errno(e, HP_EIO, errno, "make directory %s", part);
        *p = '/';
    }
    if (mkdir(path, mode) != 0 && errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "make directory %s", path);
    return 0;
}

int ha_fs_read_fd(int fd, const char *name, size_t max, char **ret, size_t *ret_size, struct hp_error *e)
{
    size_t have = 0, room = 4096;
    char *buf = malloc(room + 1);
    if (!buf)
        return hp_fail(e, HP_ENOMEM, "read %s", name);
    for (;;) {
        ssize_t n = read(fd, buf + have, room - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int err = errno;
            free(buf);
            return hp_fail_errno(e, HP_EIO, err, "read %s", name);
        }
        if (n == 0)
            break;
        have += (size_t)n;
        if (have > max) {
            free(buf);
            return hp_fail(e, HP_ELIMIT, "%s is longer than %zu bytes", name, max);
        }
        if (have < room)
            continue;
        char *bigger = realloc(buf, room * 2 + 1);
        if (!bigger) {
            free(buf);
            return hp_fail(e, HP_ENOMEM, "read %s", name);
        }
        buf = bigger;
        room *= 2;
    }
    buf[have] = '\0';
    *ret = buf;
    if (ret_size)
        *ret_size = have;
    return 0;
}

int ha_fs_read(int dirfd, const char *path, size_t max, char **ret, size_t *ret_size, struct hp_error *e)
{
    HA_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return hp_fail_errno(e, errno == ENOENT || errno == ENOTDIR ? HP_ENOTFOUND : HP_EIO, errno, "open %s", path);
    return ha_fs_read_fd(fd, path, max, ret, ret_size, e);
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int sync_parent(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, path, n);
    dir[n] = '\0';
    HA_CLOSE int fd = open(n ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) != 0 ? -errno : 0;
}

int ha_fs_write(const char *path, const void *data, size_t size, mode_t mode, bool durable, struct hp_error *e)
{
    char temp[4096];
    int rc = ha_fs_path(temp, sizeof temp, e, "%s.tmp%ld", path, (long)gettid());
    if (rc)
        return rc;
    HA_CLOSE int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, errno, "create %s", temp);
    rc = write_all(fd, data, size);
    if (rc == 0 && durable && fdatasync(fd) != 0)
        rc = -errno;
    if (rc == 0 && rename(temp, path) != 0)
        rc = -errno;
    if (rc == 0 && durable)
        rc = sync_parent(path);
    if (rc == 0)
        return 0;
    unlink(temp);
    return hp_fail_errno(e, HP_EIO, -rc, "write %s", path);
}

int ha_fs_poke(const char *path, const char *text)
{
    HA_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t size = strlen(text);
    ssize_t n = write(fd, text, size);
    if (n < 0)
        return -errno;
    return (size_t)n == size ? 0 : -EIO;
}

/* One removal: directories below DEPTH_MAX are renamed to the top of the tree, and met there again. */
struct removal {
    int top;          /* the tree's own directory */
    dev_t dev;        /* its file system; another one is never entered */
    uint64_t renamed; /* directories moved up so far: makes their names unique */
    int err;          /* first errno, 0 none */
};

static void remember(struct removal *r, int err)
{
    if (r->err == 0 && err != ENOENT)
        r->err = err;
}

static void remove_entries(struct removal *r, int dirfd, int depth);

static void remove_dir(struct removal *r, int dirfd, const char *name, int depth)
{
    if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
        return;
    if (depth >= DEPTH_MAX) {
        char aside[64];
        snprintf(aside, sizeof aside, ".harpoon-aside-%ld-%llu", (long)gettid(), (unsigned long long)r->renamed++);
        if (renameat(dirfd, name, r->top, aside) != 0)
            remember(r, errno);
        return;
    }
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        remember(r, errno);
        return;
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_dev != r->dev) {
        remember(r, EXDEV);
        close(fd);
        return;
    }
    remove_entries(r, fd, depth + 1); /* closes fd */
    if (unlinkat(dirfd, name, AT_REMOVEDIR) != 0)
        remember(r, errno);
}

/* Owns dirfd. */
static void remove_entries(struct removal *r, int dirfd, int depth)
{
    DIR *dir = fdopendir(dirfd);
    if (!dir) {
        remember(r, errno);
        close(dirfd);
        return;
    }
    struct dirent *d;
    while ((d = readdir(dir))) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd, d->d_name, 0) == 0)
            continue;
        if (errno == EISDIR || errno == EPERM)
            remove_dir(r, dirfd, d->d_name, depth);
        else
            remember(r, errno);
    }
    closedir(dir);
}

int ha_fs_remove(const char *path, struct hp_error *e)
{
    if (unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR)
        return 0;
    HA_CLOSE int top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (top < 0 || fstat(top, &st) != 0)
        return errno == ENOENT ? 0 : hp_fail_errno(e, HP_EIO, errno, "remove %s", path);
    struct removal r = {.top = top, .dev = st.st_dev};
    for (;;) {
        uint64_t before = r.renamed;
        r.err = 0;
        int fd = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return hp_fail_errno(e, HP_EIO, errno, "remove %s", path);
        remove_entries(&r, fd, 0);
        if (rmdir(path) == 0)
            return 0;
        if (r.renamed == before) /* nothing was put aside, so the next pass would fail as well */
            return hp_fail_errno(e, HP_EIO, r.err ? r.err : errno, "remove %s", path);
    }
}

static int open_how(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
    for (int tries = 0; tries < 32; tries++) {
        long fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EAGAIN;
}

int ha_fs_open_beneath(int dirfd, const char *path, uint64_t flags, uint64_t mode)
{
    return open_how(dirfd, path, flags, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
}

int ha_fs_open_in_root(int dirfd, const char *path, uint64_t flags)
{
    return open_how(dirfd, path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

static int64_t tree_bytes(int dirfd, int depth)
{
    DIR *dir = fdopendir(dirfd);
    if (!dir) {
        close(dirfd);
        return 0;
    }
    int64_t sum = 0;
    struct dirent *d;
    while ((d = readdir(dir))) {
        struct stat st;
        if (strcmp(d->d_name, "..") == 0 || fstatat(dirfd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        sum += (int64_t)st.st_blocks * 512;
        if (!S_ISDIR(st.st_mode) || strcmp(d->d_name, ".") == 0 || depth >= DEPTH_MAX)
            continue;
        int fd = openat(dirfd, d->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0)
            sum += tree_bytes(fd, depth + 1);
    }
    closedir(dir);
    return sum;
}

int64_t ha_fs_tree_bytes(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? 0 : tree_bytes(fd, 0);
}
