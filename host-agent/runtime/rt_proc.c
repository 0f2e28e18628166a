/* rt_proc.c — children are made by clone(CLONE_VM | CLONE_VFORK): the calling thread sleeps until the child has called exec or ended, nothing of the agent's memory is copied,
 * and a failure in the child is written straight into the caller's structure. All signals are blocked meanwhile and handlers are reset in the child, because a handler that
 * ran there would run on our memory. */
#include "rt_proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rt_fs.h"

#define STACK_BYTES (128 * 1024)

struct child {
    const struct ha_spawn *spawn;
    int (*fn)(void *arg); /* instead of spawn */
    void *arg;
    pid_t parent;     /* us */
    sigset_t mask;    /* what the program starts with */
    int error;        /* out: errno of the step that failed, 0 none */
    const char *step; /* out */
};

static int child_failed(struct child *c, const char *step)
{
    c->error = errno ? errno : EIO;
    c->step = step;
    return 127;
}

/* Puts the wanted descriptors at 0 to 3 and marks everything above to be closed by exec. */
static int child_descriptors(struct child *c)
{
    const struct ha_spawn *s = c->spawn;
    const int wanted[4] = {s->in, s->out, s->err, s->pass};
    int high[4];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return child_failed(c, "open /dev/null");
    for (int i = 0; i < 4; i++) {
        high[i] = -1;
        if (i == 3 && wanted[i] < 0)
            continue;
        high[i] = fcntl(wanted[i] < 0 ? null : wanted[i], F_DUPFD_CLOEXEC, 10);
        if (high[i] < 0)
            return child_failed(c, "duplicate a descriptor");
    }
    for (int i = 0; i < 4; i++)
        if (high[i] >= 0 && dup2(high[i], i) < 0)
            return child_failed(c, "place a descriptor");
    unsigned first = high[3] >= 0 ? 4 : 3;
    if (syscall(SYS_close_range, first, ~0U, 4u /* CLOSE_RANGE_CLOEXEC */) != 0)
        return child_failed(c, "close descriptors");
    return 0;
}

static int child_main(void *p)
{
    struct child *c = p;
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int sig = 1; sig < 65; sig++)
        (void)sigaction(sig, &dfl, NULL);
    if (c->fn) {
        c->error = -c->fn(c->arg);
        return 0;
    }
    const struct ha_spawn *s = c->spawn;
    if (s->dies_with_us && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != c->parent))
        return child_failed(c, "end with the agent");
    if (s->mount_ns >= 0 && setns(s->mount_ns, CLONE_NEWNS) != 0)
        return child_failed(c, "enter the mount namespace");
    if (chdir(s->cwd ? s->cwd : "/") != 0)
        return child_failed(c, "change directory");
    if (child_descriptors(c))
        return 127;
    (void)setsid();
    umask(022);
    (void)sigprocmask(SIG_SETMASK, &c->mask, NULL);
    static const char *const plain[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    execve(s->argv[0], (char *const *)s->argv, (char *const *)(s->envp ? s->envp : plain));
    return child_failed(c, s->argv[0]);
}

static int child_clone(struct child *c, int flags, pid_t *ret_pid, int *ret_pidfd)
{
    char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    sigemptyset(&c->mask);
    int pidfd = -1;
    pid_t pid =
        clone(child_main, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | flags, c, &pidfd);
    int err = pid < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, STACK_BYTES);
    if (err)
        return -err;
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

static int reap(int pidfd, int *ret_code)
{
    siginfo_t info = {0};
    while (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) != 0)
        if (errno != EINTR)
            return -errno;
    *ret_code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return 0;
}

int ha_proc_spawn(const struct ha_spawn *s, pid_t *ret_pid, int *ret_pidfd, struct hp_error *e)
{
    struct child c = {.spawn = s, .parent = getpid()};
    pid_t pid = -1;
    HA_CLOSE int pidfd = -1;
    int rc = child_clone(&c, 0, &pid, &pidfd);
    if (rc)
        return hp_fail_errno(e, HP_EIO, -rc, "start %s", s->argv[0]);
    if (c.error) {
        int code;
        (void)reap(pidfd, &code);
        return hp_fail_errno(e, HP_EIO, c.error, "start %s: %s", s->argv[0], c.step);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    pidfd = -1;
    return 0;
}

int ha_proc_in_child(int (*fn)(void *arg), void *arg)
{
    struct child c = {.fn = fn, .arg = arg};
    pid_t pid;
    HA_CLOSE int pidfd = -1;
    int rc = child_clone(&c, CLONE_FILES, &pid, &pidfd);
    if (rc)
        return rc;
    int code = 0;
    rc = reap(pidfd, &code);
    if (rc)
        return rc;
    return code ? -EIO : -c.error;
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int ha_proc_gone(int pidfd, int timeout_ms, int cancel_fd)
{
    int64_t end = now_ms() + timeout_ms;
    for (;;) {
        struct pollfd p[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
        int64_t left = end - now_ms();
        int n = poll(p, 2, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0 && p[0].revents)
            return 0;
        if (n > 0)
            return HP_ECANCELED;
        return HP_ETIMEDOUT;
    }
}

int ha_proc_wait(int pidfd, int timeout_ms, int cancel_fd, int *ret_code, struct hp_error *e)
{
    int rc = ha_proc_gone(pidfd, timeout_ms, cancel_fd);
    if (rc)
        return hp_fail(e, rc, "%s", hp_strerror(rc));
    rc = reap(pidfd, ret_code);
    return rc ? hp_fail_errno(e, HP_EIO, -rc, "wait for a child process") : 0;
}

/* The parent's ends of a child's three pipes and how far each is. */
struct pipes {
    int in, out, err;       /* -1 once closed */
    const char *input;      /* not yet written */
    struct ha_output *into; /* may be NULL */
};

static void gather(int *fd, char *buf, size_t room, size_t *have)
{
    char waste[4096];
    bool full = !buf || *have >= room;
    ssize_t n = full ? read(*fd, waste, sizeof waste) : read(*fd, buf + *have, room - *have);
    if (n > 0 && !full)
        *have += (size_t)n;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        ha_fs_closep(fd);
}

static void feed(struct pipes *p)
{
    size_t size = p->input ? strlen(p->input) : 0;
    ssize_t n = size ? write(p->in, p->input, size) : 0;
    if (n > 0)
        p->input += n;
    if (size == 0 || (n > 0 && *p->input == '\0') || (n < 0 && errno != EAGAIN && errno != EINTR))
        ha_fs_closep(&p->in);
}

/* Moves data until the process has ended and its output is drained, or until time is over. */
static int pump(struct pipes *p, int pidfd, int timeout_ms, int cancel_fd)
{
    int64_t end = now_ms() + timeout_ms;
    bool ended = false;
    while (!ended || p->out >= 0 || p->err >= 0) {
        struct pollfd f[5] = {{.fd = p->in, .events = POLLOUT},
                              {.fd = p->out, .events = POLLIN},
                              {.fd = p->err, .events = POLLIN},
                              {.fd = ended ? -1 : pidfd, .events = POLLIN},
                              {.fd = cancel_fd, .events = POLLIN}};
        int64_t left = end - now_ms();
        if (ended && left > 200) /* a grandchild may hold the pipes open: do not wait for it */
            left = 200;
        int n = poll(f, 5, left > 0 ? (int)left : 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ended ? 0 : HP_ETIMEDOUT;
        if (f[0].revents)
            feed(p);
        if (f[1].revents)
            gather(&p->out, p->into ? p->into->out : NULL, sizeof p->into->out - 1,
                   p->into ? &p->into->out_size : NULL);
        if (f[2].revents)
            gather(&p->err, p->into ? p->into->err : NULL, sizeof p->into->err - 1,
                   p->into ? &p->into->err_size : NULL);
        if (f[3].revents)
            ended = true;
        if (f[4].revents && !ended)
            return HP_ECANCELED;
    }
    return 0;
}

/* Last words of a program as one printable line. */
static void tidy(char *text, size_t size)
{
    text[size] = '\0';
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' '))
        text[--size] = '\0';
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < 32)
            text[i] = ' ';
}

int ha_proc_run(const struct ha_spawn *s, const char *input, struct ha_output *output, int timeout_ms, int cancel_fd,
                struct hp_error *e)
{
    int in[2], out[2], err[2];
    if (pipe2(in, O_CLOEXEC) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "pipe");
    HA_CLOSE int in_r = in[0];
    HA_CLOSE int in_w = in[1];
    if (pipe2(out, O_CLOEXEC) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "pipe");
    HA_CLOSE int out_r = out[0];
    HA_CLOSE int out_w = out[1];
    if (pipe2(err, O_CLOEXEC) != 0)
        return hp_fail_errno(e, HP_EIO, errno, "pipe");
    HA_CLOSE int err_r = err[0];
    HA_CLOSE int err_w = err[1];
    struct ha_spawn mine = *s;
    mine.in = in_r;
    mine.out = s->out >= 0 ? s->out : out_w;
    mine.err = err_w;
    pid_t pid;
    HA_CLOSE int pidfd = -1;
    int rc = ha_proc_spawn(&mine, &pid, &pidfd, e);
    if (rc)
        return rc;
    ha_fs_closep(&in_r);
    ha_fs_closep(&out_w);
    ha_fs_closep(&err_w);
    (void)fcntl(in_w, F_SETFL, O_NONBLOCK);
    HA_FREE struct ha_output *own = output ? NULL : calloc(1, sizeof *own);
    struct ha_output *into = output ? output : own;
    if (into)
        into->out_size = into->err_size = 0;
    struct pipes p = {.in = in_w, .out = out_r, .err = err_r, .input = input, .into = into};
    in_w = out_r = err_r = -1; // NOLINT(clang-analyzer-deadcode.DeadStores): the cleanup attribute reads them
    rc = pump(&p, pidfd, timeout_ms, cancel_fd);
    ha_fs_closep(&p.in);
    ha_fs_closep(&p.out);
    ha_fs_closep(&p.err);
    if (rc)
        (void)ha_proc_signal(pidfd, SIGKILL);
    int code = 0, reaped = reap(pidfd, &code);
    if (into) {
        tidy(into->err, into->err_size);
        into->out[into->out_size] = '\0';
    }
    if (rc)
        return hp_fail(e, rc, "%s: %s after %d ms", s->argv[0], hp_strerror(rc), timeout_ms);
    if (reaped)
        return hp_fail_errno(e, HP_EIO, -reaped, "wait for %s", s->argv[0]);
    if (code)
        return hp_fail(e, HP_EIO, "%s exited with %d: %s", s->argv[0], code, into ? into->err : "");
    return 0;
}

int ha_proc_pidfd(pid_t pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

int ha_proc_signal(int pidfd, int sig)
{
    return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) == 0 ? 0 : -errno;
}

int64_t ha_proc_start_ticks(pid_t pid)
{
    char path[64], buf[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    HA_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (pid <= 0 || n == 0 || (n < 0 && (errno == ENOENT || errno == ESRCH)))
        return 0;
    if (n < 0)
        return -errno;
    buf[n] = '\0';
    char *p = strrchr(buf, ')'); /* the name may hold anything, even ") " */
    if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
        return 0;
    p += 2;
    for (int field = 3; field < 22; field++) {
        p = strchr(p, ' ');
        if (!p)
            return 0;
        p++;
    }
    return strtoll(p, NULL, 10);
}

struct ha_program ha_proc_program(pid_t pid)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    if (pid <= 0 || stat(path, &st) != 0)
        return (struct ha_program){0};
    return (struct ha_program){.dev = (int64_t)st.st_dev, .ino = (int64_t)st.st_ino};
}

int ha_proc_open_exact(pid_t pid, int64_t ticks)
{
    if (pid <= 0 || ticks <= 0)
        return -ESRCH;
    int fd = ha_proc_pidfd(pid);
    if (fd < 0)
        return fd;
    int64_t found = ha_proc_start_ticks(pid);
    if (found == ticks)
        return fd;
    close(fd);
    return found < 0 ? (int)found : -ESRCH;
}

/* Says of a process, by its name in /proc, whether it is one of those. */
typedef bool (*which_fn)(const char *pid, const void *arg);

static bool has_argument(const char *pid, const void *arg)
{
    const char *argument = arg;
    char path[300], buf[4096];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    HA_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (n <= 0)
        return false;
    buf[n] = '\0';
    for (const char *p = buf; p < buf + n; p += strlen(p) + 1)
        if (strcmp(p, argument) == 0)
            return true;
    return false;
}

struct held_file {
    const char
        *name; /* its last part: other files are not looked at, which might be on a server that does not answer */
    dev_t dev;
    ino_t ino;
};

static bool holds_file(const char *pid, const void *arg)
{
    const struct held_file *file = arg;
    char path[300], link[4096];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *dir = strtol(pid, NULL, 10) == getpid() ? NULL : opendir(path);
    for (struct dirent *d; !found && dir && (d = readdir(dir));) {
        struct stat st;
        ssize_t n = readlinkat(dirfd(dir), d->d_name, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        const char *last = strrchr(link, '/');
        found = last && strcmp(last + 1, file->name) == 0 && fstatat(dirfd(dir), d->d_name, &st, 0) == 0 &&
                st.st_dev == file->dev && st.st_ino == file->ino;
    }
    if (dir)
        closedir(dir);
    return found;
}

/* One look through /proc. Returns how many were found. */
static int kill_matching(which_fn which, const void *arg)
{
    DIR *dir = opendir("/proc");
    struct dirent *d;
    int found = 0;
    while (dir && (d = readdir(dir))) {
        if (d->d_name[0] < '1' || d->d_name[0] > '9' || !which(d->d_name, arg))
            continue;
        HA_CLOSE int pidfd = ha_proc_pidfd((pid_t)strtol(d->d_name, NULL, 10));
        if (pidfd < 0 || !which(d->d_name, arg)) /* still the same process, now that we hold it */
            continue;
        found++;
        (void)ha_proc_signal(pidfd, SIGKILL);
        (void)!ha_proc_gone(pidfd, 1000, -1);
    }
    if (dir)
        closedir(dir);
    return found;
}

int ha_proc_kill_by_argument(const char *argument, struct hp_error *e)
{
    /* Twice none: one may have been between fork and exec. */
    for (int tries = 0, none = 0; tries < 20; tries++) {
        none = kill_matching(has_argument, argument) == 0 ? none + 1 : 0;
        if (none == 2)
            return 0;
    }
    return hp_fail(e, HP_ETIMEDOUT, "processes of %s do not end", argument);
}

int ha_proc_kill_holders(const char *path)
{
    struct stat st;
    const char *last = strrchr(path, '/');
    if (stat(path, &st) != 0)
        return 0;
    const struct held_file file = {.name = last ? last + 1 : path, .dev = st.st_dev, .ino = st.st_ino};
    return kill_matching(holds_file, &file);
}
