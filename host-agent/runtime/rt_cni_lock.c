/* rt_cni_lock.c — a plugin's own children are known to nobody, but keep what they inherit. Those that come to their end by themselves leave the least behind; one that is stopped,
 * or waits for another, would allocate or take back under the feet of what we begin. Nothing goes on after SIGKILL, even where the kernel cannot end it yet. */
#include "rt_cni_lock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "io/loop.h"
#include "rt_fs.h"
#include "rt_proc.h"

#define GRACE_MS 1000
#define WAIT_MS 10000
#define POLL_MS 5

static bool is_address(const char *name)
{
    struct in6_addr ignored;
    return inet_pton(AF_INET, name, &ignored) == 1 || inet_pton(AF_INET6, name, &ignored) == 1;
}

/* A network's directory has a file for each address that is taken, with the container's name in it. One without a name belongs to nobody, and nobody would free it: its writer was
 * killed, or the machine lost what it had not written yet. */
static void free_addresses(int data_dir, const char *network)
{
    int fd = openat(data_dir, network, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *d; dir && (d = readdir(dir));) {
        struct stat st;
        if (is_address(d->d_name) && fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size == 0 &&
            unlinkat(fd, d->d_name, 0) == 0)
            hp_warn("an address was taken for no container: it is free again", HP_S("network", network),
                    HP_S("address", d->d_name));
    }
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        close(fd);
}

static void free_all_addresses(const char *data_dir)
{
    DIR *dir = opendir(data_dir);
    for (struct dirent *d; dir && (d = readdir(dir));)
        if (d->d_name[0] != '.')
            free_addresses(dirfd(dir), d->d_name);
    if (dir)
        closedir(dir);
}

/* Until we have the lock, or `ms` are over; those who have it are killed in each round, or not. HP_ETIMEDOUT. */
static int lock_within(int fd, const char *path, int ms, bool by_force, struct hp_error *e)
{
    for (uint64_t until = hp_now_ms() + (uint64_t)ms; flock(fd, LOCK_EX | LOCK_NB) != 0;) {
        if (errno != EWOULDBLOCK)
            return hp_fail_errno(e, HP_EIO, errno, "lock %s", path);
        if (hp_now_ms() >= until)
            return hp_fail(e, HP_ETIMEDOUT, "lock %s", path);
        int killed = by_force ? ha_proc_kill_holders(path) : 0;
        if (killed)
            hp_warn("network plugins of an earlier agent did not end: killed", HP_I("processes", killed));
        (void)poll(NULL, 0, POLL_MS);
    }
    return 0;
}

int ha_cni_lock(const char *data_dir, int *ret_fd, struct hp_error *e)
{
    char path[600];
    int rc = ha_fs_path(path, sizeof path, e, "%s/plugins.lock", data_dir);
    if (rc)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, errno, "open %s", path);
    rc = lock_within(fd, path, GRACE_MS, false, e);
    if (rc == HP_ETIMEDOUT)
        rc = lock_within(fd, path, WAIT_MS, true, e);
    if (rc == HP_ETIMEDOUT)
        hp_warn("network plugins of an earlier agent were killed and are not gone: going on without their end",
                HP_S("lock", path));
    if (rc && rc != HP_ETIMEDOUT) {
        close(fd);
        return rc;
    }
    free_all_addresses(data_dir);
    *ret_fd = fd;
    return 0;
}
