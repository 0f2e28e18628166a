/* rt_seccomp.c — the system calls that a container may make: an allow list after the common default profile of container engines, less what needs privileges that no container has
 * (mounts, namespaces, kernel keys, modules, clocks) and io_uring, which has a history of holes. Known calls that are refused give EPERM, unknown ones ENOSYS, so that programs fall
 * back as they do on an older kernel. Only the native architecture: 32-bit programs are killed. */
#include "rt_spec.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>

/* clang-format off */
static const char *const allowed[] = {
    "_llseek", "_newselect", "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "bind", "brk",
    "cachestat", "capget", "capset", "chdir", "chmod", "chown", "chown32", "chroot", "clock_adjtime",
    "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep",
    "clock_nanosleep_time64", "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2",
    "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork",
    "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "fsync", "ftruncate",
    "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake", "futimesat",
    "get_mempolicy", "get_robust_list", "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid",
    "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32", "getitimer", "getpeername",
    "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid",
    "getresuid32", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday",
    "getuid", "getuid32", "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc",
    "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32",
    "lgetxattr", "link", "linkat", "listen", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat",
    "lstat64", "madvise", "map_shadow_stack", "mbind", "membarrier", "memfd_create", "memfd_secret", "mincore",
    "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2", "modify_ldt", "mprotect",
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
    "mq_timedsend_time64", "mq_unlink", "mremap", "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock",
    "munlockall", "munmap", "nanosleep", "newfstatat", "open", "openat", "openat2", "pause", "pidfd_getfd",
    "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
    "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "process_vm_readv",
    "process_vm_writev", "pselect6", "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readdir", "readlink", "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64",
    "recvmsg", "remap_file_pages", "removexattr", "rename", "renameat", "renameat2", "restart_syscall", "rmdir",
    "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop", "semtimedop",
    "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto", "set_mempolicy",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid", "setfsuid32",
    "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority", "setregid", "setregid32",
    "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "setsid",
    "setsockopt", "setuid", "setuid32", "setxattr", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaction",
    "sigaltstack", "signal", "signalfd", "signalfd4", "sigpending", "sigprocmask", "sigreturn", "sigsuspend",
    "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statx", "symlink", "symlinkat",
    "sync", "sync_file_range", "syncfs", "syscall", "sysinfo", "tee", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime", "timer_settime64",
    "timerfd", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime", "timerfd_settime64",
    "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink", "unlinkat", "utime",
    "utimensat", "utimensat_time64", "utimes", "vfork", "wait4", "waitid", "waitpid", "write", "writev",
};
/* clang-format on */

/* clang-format off */
static const char *const refused[] = {
    "_sysctl", "acct", "add_key", "bpf", "clock_settime", "clock_settime64", "create_module", "delete_module",
    "fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module",
    "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load",
    "kexec_load", "keyctl", "lookup_dcookie", "mount", "mount_setattr", "move_mount", "name_to_handle_at",
    "nfsservctl", "open_by_handle_at", "open_tree", "pciconfig_iobase", "pciconfig_read", "pciconfig_write",
    "perf_event_open", "pivot_root", "query_module", "quotactl", "quotactl_fd", "reboot", "request_key",
    "setdomainname", "sethostname", "setns", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "syslog",
    "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vm86", "vm86old",
};
/* clang-format on */

/* CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWTIME */
#define CLONE_NAMESPACES 0x7E020080LL

static json_t *names_of(const char *const *names, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_string(names[i]));
    return list;
}

static const char *native(void)
{
    static const char *const names[][2] = {{"x86_64", "SCMP_ARCH_X86_64"}, {"aarch64", "SCMP_ARCH_AARCH64"},
                                           {"armv7l", "SCMP_ARCH_ARM"},    {"ppc64le", "SCMP_ARCH_PPC64LE"},
                                           {"s390x", "SCMP_ARCH_S390X"},   {"riscv64", "SCMP_ARCH_RISCV64"}};
    struct utsname uts;
    for (size_t i = 0; uname(&uts) == 0 && i < sizeof names / sizeof *names; i++)
        if (strcmp(uts.machine, names[i][0]) == 0)
            return names[i][1];
    return NULL;
}

json_t *ha_seccomp_profile(void)
{
    static const long long personalities[] = {0, 8, 0x20000, 0x20008, 0xffffffff};
    const char *arch = native();
    if (!arch)
        return NULL;
    json_t *rules = json_array();
    (void)json_array_append_new(rules,
                                json_pack("{s:o,s:s}", "names", names_of(allowed, sizeof allowed / sizeof *allowed),
                                          "action", "SCMP_ACT_ALLOW"));
    (void)json_array_append_new(rules,
                                json_pack("{s:o,s:s,s:i}", "names", names_of(refused, sizeof refused / sizeof *refused),
                                          "action", "SCMP_ACT_ERRNO", "errnoRet", 1));
    (void)json_array_append_new(
        rules, json_pack("{s:[s],s:s,s:[{s:i,s:I,s:I,s:s}]}", "names", "clone", "action", "SCMP_ACT_ALLOW", "args",
                         "index", strcmp(arch, "SCMP_ARCH_S390X") == 0 ? 1 : 0, "value", (json_int_t)CLONE_NAMESPACES,
                         "valueTwo", (json_int_t)0, "op", "SCMP_CMP_MASKED_EQ"));
    (void)json_array_append_new(rules, json_pack("{s:[s],s:s,s:[{s:i,s:i,s:i,s:s}]}", "names", "socket", "action",
                                                 "SCMP_ACT_ALLOW", "args", "index", 0, "value", AF_VSOCK, "valueTwo", 0,
                                                 "op", "SCMP_CMP_NE")); /* not to the machine's hypervisor */
    for (size_t i = 0; i < sizeof personalities / sizeof *personalities; i++)
        (void)json_array_append_new(rules, json_pack("{s:[s],s:s,s:[{s:i,s:I,s:I,s:s}]}", "names", "personality",
                                                     "action", "SCMP_ACT_ALLOW", "args", "index", 0, "value",
                                                     (json_int_t)personalities[i], "valueTwo", (json_int_t)0, "op",
                                                     "SCMP_CMP_EQ"));
    /* clone3 hides its flags from filters: programs fall back to clone. */
    return json_pack("{s:s,s:i,s:[s],s:o}", "defaultAction", "SCMP_ACT_ERRNO", "defaultErrnoRet", 38, "architectures",
                     arch, "syscalls", rules);
}
