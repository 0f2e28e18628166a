#include "rt_oci.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "rt_fs.h"
#include "rt_proc.h"
#include "wire/json.h"

#define CONMON "/usr/bin/conmon"
#define SHORT_MS 20000

/* --- the base namespace --- */

struct base {
    const char *netns_dir;
    const char *unified; /* NULL: keep */
    int ns_fd;
};

static int base_child(void *p)
{
    struct base *b = p;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
        return -errno;
    if (umount2(b->netns_dir, MNT_DETACH) != 0 && errno != EINVAL)
        return -errno;
    if (b->unified && umount2(b->unified, MNT_DETACH) != 0)
        return -errno;
    b->ns_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    return b->ns_fd < 0 ? -errno : 0;
}

static int find_program(struct ha_oci *oci, const char *wanted, struct hp_error *e)
{
    static const char *const names[] = {"crun", "runc"}, *const dirs[] = {"/usr/bin", "/usr/sbin", "/usr/local/bin",
                                                                          "/usr/local/sbin"};
    if (wanted[0] == '/') {
        int rc = ha_fs_path(oci->program, sizeof oci->program, e, "%s", wanted);
        return rc || access(wanted, X_OK) == 0 ? rc
                                               : hp_fail_errno(e, HP_ENOTFOUND, errno, "container runtime %s", wanted);
    }
    for (size_t n = 0; n < 2; n++)
        for (size_t d = 0; (strcmp(wanted, "auto") == 0 || strcmp(wanted, names[n]) == 0) && d < 4; d++) {
            snprintf(oci->program, sizeof oci->program, "%s/%s", dirs[d], names[n]);
            if (access(oci->program, X_OK) == 0)
                return 0;
        }
    return hp_fail(e, HP_ENOTFOUND, "container runtime '%s' is not installed", wanted);
}

/* First line of `program --version`: "crun version 1.8.1". */
static int find_version(struct ha_oci *oci, struct hp_error *e)
{
    const char *const argv[] = {oci->program, "--version", NULL};
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    HA_FREE struct ha_output *out = calloc(1, sizeof *out);
    int rc = out ? ha_proc_run(&spawn, NULL, out, SHORT_MS, -1, e) : hp_fail(e, HP_ENOMEM, "run %s", oci->program);
    if (rc)
        return rc;
    char name[32] = "", number[24] = "";
    if (sscanf(out->out, "%31s version %23s", name, number) != 2)
        return hp_fail(e, HP_EUNSUPPORTED, "%s --version says '%.60s'", oci->program, out->out);
    snprintf(oci->version, sizeof oci->version, "%s %s", name, number);
    oci->crun = strcmp(name, "crun") == 0;
    oci->runc = strcmp(name, "runc") == 0;
    return 0;
}

int ha_oci_init(struct ha_oci *oci, const char *wanted, const char *run_dir, const char *netns_dir,
                const struct ha_cgroups *cg, struct hp_error *e)
{
    *oci = (struct ha_oci){.base_ns = -1};
    int rc = find_program(oci, wanted, e);
    if (rc == 0)
        rc = find_version(oci, e);
    if (rc == 0)
        rc = ha_fs_path(oci->root, sizeof oci->root, e, "%s/oci", run_dir);
    if (rc == 0)
        rc = ha_fs_mkdirs(oci->root, 0700, e);
    if (rc)
        return rc;
    if (access(CONMON, X_OK) != 0)
        return hp_fail_errno(e, HP_ENOTFOUND, errno, "%s", CONMON);
    struct base base = {
        .netns_dir = netns_dir, .ns_fd = -1, .unified = oci->crun && cg->mode == HA_CG_HYBRID ? cg->unified : NULL};
    rc = ha_proc_in_child(base_child, &base);
    if (rc)
        return hp_fail_errno(e, HP_EIO, -rc, "make a mount namespace for containers");
    oci->base_ns = base.ns_fd;
    return 0;
}

void ha_oci_close(struct ha_oci *oci)
{
    ha_fs_closep(&oci->base_ns);
}

/* --- root file systems --- */

struct mounting {
    const struct ha_oci *oci;
    const struct ha_rootfs_input *in;
    const char *options;
    const char *step;
    char proc_fd[64]; /* /proc/thread-self/fd/N of the network namespace */
    struct ha_rootfs rootfs;
};

static int mount_child(void *p)
{
    struct mounting *m = p;
    m->step = "make a mount namespace";
    if (setns(m->oci->base_ns, CLONE_NEWNS) != 0 || unshare(CLONE_NEWNS) != 0)
        return -errno;
    m->step = "mount the root file system";
    if (chdir(m->in->layers) != 0 || mount("overlay", m->in->target, "overlay", 0, m->options) != 0)
        return -errno;
    m->step = "bring in the network namespace";
    if (m->in->netns_fd >= 0 && mount(m->proc_fd, m->in->netns_path, NULL, MS_BIND, NULL) != 0)
        return -errno;
    m->step = "open the root file system";
    m->rootfs.root_fd = open(m->in->target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (m->rootfs.root_fd < 0)
        return -errno;
    m->rootfs.ns_fd = open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);
    return m->rootfs.ns_fd < 0 ? -errno : 0;
}

int ha_oci_mount(const struct ha_oci *oci, const struct ha_rootfs_input *in, struct ha_rootfs *ret, struct hp_error *e)
{
    char options[4096];
    size_t n = (size_t)snprintf(options, sizeof options, "lowerdir=");
    for (size_t i = in->image->layer_count; i-- > 0;) { /* top first; relative to layers/, to fit one page */
        char name[HA_LAYER_NAME_SIZE];
        ha_layer_name(in->image->diff_ids[i], name);
        if (n + sizeof name + 8 > sizeof options)
            return hp_fail(e, HP_ELIMIT, "%zu layers do not fit the mount options", in->image->layer_count);
        n += (size_t)snprintf(options + n, sizeof options - n, "%s%s/diff", i + 1 < in->image->layer_count ? ":" : "",
                              name);
    }
    int more = snprintf(options + n, sizeof options - n, ",upperdir=%s,workdir=%s", in->upper, in->work);
    if (more < 0 || n + (size_t)more >= sizeof options)
        return hp_fail(e, HP_ELIMIT, "%zu layers do not fit the mount options", in->image->layer_count);
    struct mounting m = {.oci = oci, .in = in, .options = options, .step = "start", .rootfs = {-1, -1}};
    snprintf(m.proc_fd, sizeof m.proc_fd, "/proc/thread-self/fd/%d", in->netns_fd);
    int rc = ha_proc_in_child(mount_child, &m);
    if (rc) {
        ha_rootfs_close(&m.rootfs);
        return hp_fail_errno(e, HP_EIO, -rc, "%s", m.step);
    }
    *ret = m.rootfs;
    return 0;
}

void ha_rootfs_close(struct ha_rootfs *r)
{
    ha_fs_closep(&r->ns_fd);
    ha_fs_closep(&r->root_fd);
}

/* --- create, start, delete --- */

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* conmon writes one line: {"data":PID} or {"data":-1,"message":"why"}. Its own exit code says nothing: it is 0 when the create failed. */
static int read_sync(int fd, int timeout_ms, pid_t *ret_pid, struct hp_error *e)
{
    char buf[4096];
    size_t have = 0;
    int64_t end = now_ms() + timeout_ms;
    while (have < sizeof buf - 1 && !memchr(buf, '\n', have)) {
        int64_t left = end - now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return hp_fail(e, HP_ETIMEDOUT, "conmon did not answer in %d ms", timeout_ms);
        ssize_t got = read(fd, buf + have, sizeof buf - 1 - have);
        if (got <= 0)
            return hp_fail(e, HP_EIO, "conmon ended without an answer");
        have += (size_t)got;
    }
    json_t *answer = NULL;
    struct hp_error unread = {0};
    int rc = hp_json_load(buf, have, JSON_DISABLE_EOF_CHECK, &answer, &unread);
    if (rc)
        return hp_fail(e, rc == HP_ENOMEM ? rc : HP_EIO, "conmon's answer: %s", unread.message);
    json_int_t pid = json_integer_value(json_object_get(answer, "data"));
    const char *message = json_string_value(json_object_get(answer, "message"));
    if (pid <= 0)
        rc =
            hp_fail(e, HP_EIO, "%s", message && message[0] ? message : "the container runtime failed without a reason");
    else
        *ret_pid = (pid_t)pid;
    json_decref(answer);
    for (char *c = e ? e->message : NULL; rc && c && *c; c++)
        if (*c == '\n')
            *c = ' ';
    return rc;
}

int ha_oci_create(const struct ha_oci *oci, const struct ha_oci_create *c, int timeout_ms, pid_t *ret_pid,
                  struct hp_error *e)
{
    char pid_file[640], conmon_pid[640], persist[640], log[640], log_max[32];
    snprintf(log_max, sizeof log_max, "%lld", (long long)c->log_bytes_max);
    int rc = ha_fs_path(pid_file, sizeof pid_file, e, "%s/pid", c->bundle);
    if (rc == 0)
        rc = ha_fs_path(conmon_pid, sizeof conmon_pid, e, "%s/conmon.pid", c->bundle);
    if (rc == 0)
        rc = ha_fs_path(persist, sizeof persist, e, "%s/persist", c->bundle);
    if (rc == 0)
        rc = ha_fs_path(log, sizeof log, e, "k8s-file:%s", c->log_path);
    if (rc == 0)
        rc = ha_fs_mkdirs(persist, 0700, e);
    int ends[2];
    if (rc)
        return rc;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "pipe");
    HA_CLOSE int from = ends[0];
    HA_CLOSE int to = ends[1];
    const char *const argv[] = {CONMON,
                                "--api-version",
                                "1",
                                "-c",
                                c->uid,
                                "-u",
                                c->uid,
                                "-n",
                                c->uid,
                                "-r",
                                oci->program,
                                "-b",
                                c->bundle,
                                "-p",
                                pid_file,
                                "-P",
                                conmon_pid,
                                "--persist-dir",
                                persist,
                                "-l",
                                log,
                                "--log-size-max",
                                log_max,
                                "--no-sync-log",
                                "--full-attach",
                                "--log-level",
                                "error",
                                "--runtime-arg",
                                "--root",
                                "--runtime-arg",
                                oci->root,
                                NULL};
    const char *const envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "_OCI_SYNCPIPE=3",
                                NULL};
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.envp = envp;
    spawn.cwd = c->bundle;
    spawn.pass = to;
    spawn.mount_ns = c->mount_ns;
    pid_t pid;
    HA_CLOSE int pidfd = -1;
    rc = ha_proc_spawn(&spawn, &pid, &pidfd, e);
    if (rc)
        return rc;
    ha_fs_closep(&to);
    rc = read_sync(from, timeout_ms, ret_pid, e);
    int code, waited = ha_proc_wait(pidfd, rc ? 0 : SHORT_MS, -1, &code, NULL); /* it forks and leaves at once */
    if (waited) {
        (void)ha_proc_signal(pidfd, SIGKILL);
        (void)!ha_proc_wait(pidfd, -1, -1, &code, NULL);
    }
    return rc ? hp_wrap(e, "create container with %s", oci->version) : 0;
}

static int run(const struct ha_oci *oci, const char *verb, const char *flag, const char *uid, int timeout_ms,
               struct hp_error *e)
{
    const char *argv[] = {oci->program, "--root", oci->root, verb, flag ? flag : uid, flag ? uid : NULL, NULL};
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.mount_ns = oci->base_ns;
    spawn.dies_with_us = true; /* a late deletion would take away what the next agent makes under the same name */
    return ha_proc_run(&spawn, NULL, NULL, timeout_ms, -1, e);
}

/* Both runtimes: the first process waits at it. */
static int fifo_path(const struct ha_oci *oci, const char *uid, char *buf, size_t size, struct hp_error *e)
{
    return ha_fs_path(buf, size, e, "%s/%s/exec.fifo", oci->root, uid);
}

/* The byte that lets the first process go: crun's reads one from the FIFO at which it waits, runc's writes one. */
static int pass_byte(const struct ha_oci *oci, int fifo, int pidfd, int timeout_ms, struct hp_error *e)
{
    char byte = 0;
    if (!oci->crun) { /* it may be on its way to the FIFO still: until that can be read, or the process is gone */
        int rc = ha_proc_gone(fifo, timeout_ms, pidfd);
        if (rc)
            return hp_fail(e, rc == HP_ECANCELED ? HP_EIO : rc, "the process %s",
                           rc == HP_ECANCELED ? "ended before its start" : "does not come to its start");
    }
    ssize_t n = oci->crun ? write(fifo, &byte, 1) : read(fifo, &byte, 1);
    return n == 1 ? 0 : hp_fail_errno(e, HP_EIO, n < 0 ? errno : ESRCH, "let the process go");
}

static int start_by_fifo(const struct ha_oci *oci, const char *uid, pid_t pid, int timeout_ms, struct hp_error *e)
{
    char path[640];
    int rc = fifo_path(oci, uid, path, sizeof path, e);
    if (rc)
        return rc;
    HA_CLOSE int fifo = open(path, (oci->crun ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fifo < 0)
        return hp_fail_errno(e, HP_EIO, errno, "open %s", path);
    HA_CLOSE int pidfd = ha_proc_pidfd(pid);
    if (pidfd < 0)
        return hp_fail_errno(e, HP_EIO, -pidfd, "the process ended before its start");
    rc = pass_byte(oci, fifo, pidfd, timeout_ms, e);
    /* Last: who looks after a crash of ours sees by the process's program that it was started. */
    if (rc == 0 && unlink(path) != 0)
        rc = hp_fail_errno(e, HP_EIO, errno, "remove %s", path);
    return rc;
}

int ha_oci_start(const struct ha_oci *oci, const char *uid, pid_t pid, int timeout_ms, struct hp_error *e)
{
    int rc = oci->crun || oci->runc ? start_by_fifo(oci, uid, pid, timeout_ms, e)
                                    : run(oci, "start", NULL, uid, timeout_ms, e);
    return rc ? hp_wrap(e, "start container with %s", oci->version) : 0;
}

bool ha_oci_known(const struct ha_oci *oci, const char *uid)
{
    char path[640];
    return ha_fs_path(path, sizeof path, NULL, "%s/%s", oci->root, uid) == 0 && access(path, F_OK) == 0;
}

bool ha_oci_unstarted(const struct ha_oci *oci, const char *uid)
{
    char path[640];
    return fifo_path(oci, uid, path, sizeof path, NULL) == 0 && access(path, F_OK) == 0;
}

int ha_oci_delete(const struct ha_oci *oci, const char *uid, int timeout_ms, struct hp_error *e)
{
    if (!ha_oci_known(oci, uid))
        return 0;
    struct hp_error first = {0};
    int rc = run(oci, "delete", NULL, uid, timeout_ms, &first); /* without --force, which polls */
    if (rc)
        rc = run(oci, "delete", "--force", uid, timeout_ms, e);
    if (rc == 0 || !ha_oci_known(oci, uid))
        return 0;
    /* State that a crash left half written: the processes are ours to end (by cgroup), the directory is only bookkeeping. */
    char path[640];
    struct hp_error ignored = {0};
    if (ha_fs_path(path, sizeof path, e, "%s/%s", oci->root, uid) == 0 && ha_fs_remove(path, &ignored) == 0)
        return 0;
    return hp_wrap(e, "delete container with %s", oci->version);
}

/* --- exec --- */

/* Kills the command by its own pid: ending the runtime that carries it would leave it running in the container. */
static void kill_command(const char *pid_file, pid_t carrier)
{
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    if (ha_fs_read(AT_FDCWD, pid_file, 64, &text, &size, &ignored))
        return;
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    HA_CLOSE int fd = pid > 1 ? ha_proc_pidfd(pid) : -1;
    if (fd < 0)
        return;
    char path[64], expected[32];
    HA_FREE char *stat = NULL;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    snprintf(expected, sizeof expected, " %d ", (int)carrier);
    if (ha_fs_read(AT_FDCWD, path, 4096, &stat, &size, &ignored))
        return;
    char *p = strrchr(stat, ')');
    if (p && strlen(p) > 4 && strncmp(p + 3, expected, strlen(expected)) == 0) /* field 4: its parent is the carrier */
        (void)ha_proc_signal(fd, SIGKILL);
}

int ha_oci_exec(const struct ha_oci *oci, const char *uid, const char *dir, char *const *command, size_t count,
                int timeout_ms, int cancel_fd, int *ret_code, struct hp_error *e)
{
    char pid_file[700];
    const char *argv[80] = {oci->program, "--root", oci->root, "exec", "--pid-file", pid_file, uid};
    size_t n = 7;
    if (count == 0 || count > 64)
        return hp_fail(e, HP_EINVAL, "command of %zu elements", count);
    for (size_t i = 0; i < count; i++)
        argv[n++] = command[i];
    argv[n] = NULL;
    int rc = ha_fs_path(pid_file, sizeof pid_file, e, "%s/exec-%ld.pid", dir, (long)gettid());
    if (rc)
        return rc;
    struct ha_spawn spawn = HA_SPAWN_INIT;
    spawn.argv = argv;
    spawn.mount_ns = oci->base_ns;
    pid_t pid;
    HA_CLOSE int pidfd = -1;
    rc = ha_proc_spawn(&spawn, &pid, &pidfd, e);
    if (rc)
        return rc;
    struct hp_error why = {0};
    rc = ha_proc_wait(pidfd, timeout_ms, cancel_fd, ret_code, &why);
    if (rc) {
        int code;
        kill_command(pid_file, pid);
        if (ha_proc_wait(pidfd, 1000, -1, &code, NULL)) {
            (void)ha_proc_signal(pidfd, SIGKILL);
            (void)!ha_proc_wait(pidfd, -1, -1, &code, NULL);
        }
        hp_fail(e, rc, "command did not end within %d ms", timeout_ms);
    }
    (void)unlink(pid_file);
    return rc;
}
