/* deaths.c — a library that is loaded into a daemon before all others (LD_PRELOAD) and kills it just before one call that changes the machine: a file written, made, renamed or removed,
 * a mount, a signal, a program begun. The calls are counted over all threads; those of children are not, and they lose the library.
 *
 * The test and the library share a file, named by HARPOON_DEATHS: struct control below; tests/lib/deaths.py is the other side. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TRACE_MAX = 1 << 18 };

struct control {
    atomic_llong at;       /* the call to die before: 1 is the next; 0: none */
    atomic_int used;       /* bytes of trace */
    char match[60];        /* only calls with this in their line count for `at`; empty: all */
    char trace[TRACE_MAX]; /* "call path
" for each */
};

static struct control *control;
static pid_t owner;

static void __attribute__((constructor)) start(void)
{
    const char *path = getenv("HARPOON_DEATHS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    unsetenv("LD_PRELOAD");
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return;
    owner = getpid();
    control = p;
}

/* The thread that goes to and fro between cgroups to take the kernel's lock (host-agent/runtime/rt_warm.h) changes nothing, as often as it has time to. */
static bool no_change(const char *path)
{
    size_t n = strlen(path);
    return n > 13 && strcmp(path + n - 13, "/cgroup.procs") == 0;
}

/* Before each call; does not come back from the one to die before. */
static void step(const char *call, const char *path)
{
    char line[256];
    if (!control || getpid() != owner || (path && no_change(path)))
        return;
    int error = errno;
    int n = snprintf(line, sizeof line, "%s %s\n", call, path ? path : "");
    n = n < (int)sizeof line ? n : (int)sizeof line - 1;
    int at = atomic_fetch_add(&control->used, n);
    if (at + n < TRACE_MAX)
        memcpy(control->trace + at, line, (size_t)n);
    if (strstr(line, control->match) && atomic_load(&control->at) > 0 && atomic_fetch_sub(&control->at, 1) == 1)
        kill(owner, SIGKILL);
    errno = error;
}

static const char *name_of(int fd, char *buf, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = control && getpid() == owner ? readlink(link, buf, size - 1) : -1;
    buf[n > 0 ? n : 0] = '\0';
    return buf;
}

#define NEXT(name_) ((__typeof__(&name_))dlsym(RTLD_NEXT, #name_))

/* `path_` and the descriptor's own path, when that is what tells. */
#define BEFORE(type_, name_, parameters_, arguments_, path_)                                                           \
    type_ name_ parameters_                                                                                            \
    {                                                                                                                  \
        static __typeof__(&name_) real;                                                                                \
        if (!real)                                                                                                     \
            real = NEXT(name_);                                                                                        \
        step(#name_, path_);                                                                                           \
        return real arguments_;                                                                                        \
    }
BEFORE(int, unlink, (const char *path), (path), path)
BEFORE(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), path)
BEFORE(int, rename, (const char *a, const char *b), (a, b), b)
BEFORE(int, renameat, (int x, const char *a, int y, const char *b), (x, a, y, b), b)
BEFORE(int, mkdir, (const char *path, mode_t mode), (path, mode), path)
BEFORE(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), path)
BEFORE(int, rmdir, (const char *path), (path), path)
BEFORE(int, mount, (const char *a, const char *b, const char *c, unsigned long flags, const void *data),
       (a, b, c, flags, data), b)
BEFORE(int, umount2, (const char *path, int flags), (path, flags), path)

/* How the agent makes a child, and how it signals one. */
int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
    va_list more;
    va_start(more, arg);
    void *pidfd = flags & CLONE_PIDFD ? va_arg(more, void *) : NULL;
    va_end(more);
    step("clone", NULL);
    return NEXT(clone)(fn, stack, flags, arg, pidfd);
}

long syscall(long number, ...)
{
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_pidfd_send_signal)
        step("pidfd_send_signal", NULL);
    return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static mode_t mode_of(int flags, va_list more)
{
    return flags & O_CREAT ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR))
        step("open", path);
    return NEXT(open)(path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    if (flags & (O_WRONLY | O_RDWR))
        step("openat", path);
    return NEXT(openat)(dir, path, flags, mode);
}

static void step_fd(const char *call, int fd)
{
    char path[200];
    struct stat st;
    int error = errno;
    if (control && getpid() == owner && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode)) && fd > 2)
        step(call, name_of(fd, path, sizeof path));
    errno = error;
}

#define BEFORE_FD(type_, name_, parameters_, arguments_)                                                               \
    type_ name_ parameters_                                                                                            \
    {                                                                                                                  \
        static __typeof__(&name_) real;                                                                                \
        if (!real)                                                                                                     \
            real = NEXT(name_);                                                                                        \
        step_fd(#name_, fd);                                                                                           \
        return real arguments_;                                                                                        \
    }
BEFORE_FD(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
BEFORE_FD(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at))
BEFORE_FD(int, fsync, (int fd), (fd))
BEFORE_FD(int, fdatasync, (int fd), (fd))
