/* rt_proc.h — child processes for the container runtime: spawn without copying the agent's memory, wait on a pidfd, run to the end with bounded output and time. */
#ifndef HA_RT_PROC_H
#define HA_RT_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* How a program is started. Every descriptor but those named here is closed before exec. */
struct ha_spawn {
    const char *const *argv; /* argv[0] is an absolute path; NULL-terminated */
    const char *const *envp; /* NULL-terminated; NULL: only PATH */
    const char *cwd;         /* NULL: "/" */
    int in, out, err;        /* descriptors that become 0, 1, 2; -1: /dev/null */
    int pass;                /* becomes descriptor 3; -1: none */
    int mount_ns;            /* mount namespace to enter first; -1: ours */
    bool dies_with_us;       /* killed when the thread that started it ends, so also when the agent dies */
};
#define HA_SPAWN_INIT                                                                                                  \
    {                                                                                                                  \
        .in = -1, .out = -1, .err = -1, .pass = -1, .mount_ns = -1                                                     \
    }

/* Starts it. *ret_pidfd is the caller's; the process must be waited for with ha_proc_wait. Any thread. */
int ha_proc_spawn(const struct ha_spawn *s, pid_t *ret_pid, int *ret_pidfd, struct hp_error *e) HP_MUST_CHECK;

/* Waits until a child has ended; *ret_code is its exit code, 128 + n for signal n. timeout_ms < 0: no limit. HP_ETIMEDOUT leaves it running; HP_ECANCELED when
 * cancel_fd (-1: none) became readable first. */
int ha_proc_wait(int pidfd, int timeout_ms, int cancel_fd, int *ret_code, struct hp_error *e) HP_MUST_CHECK;

/* Waits until any process has ended, child or not; does not reap. 0, HP_ETIMEDOUT or HP_ECANCELED. */
int ha_proc_gone(int pidfd, int timeout_ms, int cancel_fd) HP_MUST_CHECK;

/* What a program wrote, cut at the size of the buffers. */
struct ha_output {
    char out[65536];
    size_t out_size;
    char err[2048];
    size_t err_size;
};

/* Runs to the end: feeds `input` (may be NULL) to descriptor 0, gathers output (may be NULL), kills it after timeout_ms or when cancel_fd becomes readable. 0 when it
 * exited with 0; HP_EIO with the end of its standard error otherwise; HP_ETIMEDOUT; HP_ECANCELED. s->in and err are ignored; s->out, when given, gets the
 * output instead. */
int ha_proc_run(const struct ha_spawn *s, const char *input, struct ha_output *output, int timeout_ms, int cancel_fd,
                struct hp_error *e) HP_MUST_CHECK;

/* Runs fn(arg) in a short-lived child that shares memory and descriptors with us but nothing else, so that it may change namespaces: what it opens stays open here.
 * fn makes system calls only and returns 0 or -errno, which is returned. */
int ha_proc_in_child(int (*fn)(void *arg), void *arg) HP_MUST_CHECK;

/* pidfd_open and pidfd_send_signal. Return a descriptor or 0, or -errno. */
int ha_proc_pidfd(pid_t pid);
int ha_proc_signal(int pidfd, int sig);

/* Field 22 of /proc/pid/stat; 0 when there is no such process or it is a zombie; -errno when that cannot be told. */
int64_t ha_proc_start_ticks(pid_t pid);

/* Kills every process that has exactly `argument` among its arguments, until there is none any more: what an agent that died had begun goes on without it. Reads all of
 * /proc: for repairs. HP_ETIMEDOUT when they do not end. */
int ha_proc_kill_by_argument(const char *argument, struct hp_error *e) HP_MUST_CHECK;
/* Kills every other process that has the file open, in one look through /proc, which costs a link read for each open file of the machine. Returns how many there were. */
int ha_proc_kill_holders(const char *path);

/* Which program a process runs: device and inode of its executable. */
struct ha_program {
    int64_t dev, ino; /* 0: not known */
};
struct ha_program ha_proc_program(pid_t pid);
/* Opens a pidfd of `pid` when it is alive and started at `ticks`; -ESRCH when it is not; another -errno when that cannot be told. */
int ha_proc_open_exact(pid_t pid, int64_t ticks);

#endif
