/* rt_oci.h — the OCI runtime (crun or runc) under conmon: root file systems in private mount namespaces, create, start, delete, exec. All functions block and may be called on any thread. */
#ifndef HA_RT_OCI_H
#define HA_RT_OCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "rt_cgroup.h"
#include "rt_image.h"

struct ha_oci {
    char program[256]; /* absolute path */
    bool crun, runc;   /* by its version's text; neither: another one, used only by its commands */
    char version[64];  /* "crun 1.8.1" */
    char root[512];    /* where it keeps its state */
    int base_ns; /* mount namespace that every container's is copied from: ours, without what a container must not hold or see */
};

/* `wanted`: "auto", "crun", "runc" or a path. `netns_dir` is hidden from the base namespace, and the v2 hierarchy of a hybrid host when the runtime is crun, which refuses it. */
int ha_oci_init(struct ha_oci *oci, const char *wanted, const char *run_dir, const char *netns_dir,
                const struct ha_cgroups *cg, struct hp_error *e) HP_MUST_CHECK;
void ha_oci_close(struct ha_oci *oci);

/* A mounted root file system: a mount namespace of its own, which lives as long as something is in it or holds ns_fd. */
struct ha_rootfs {
    int ns_fd;
    int root_fd; /* O_PATH of the root directory */
};
struct ha_rootfs_input {
    const char *layers; /* layers/ of the store; absolute */
    const struct ha_image *image;
    const char *upper, *work; /* absolute; exist */
    const char *target;       /* absolute; exists */
    int netns_fd;             /* bound to netns_path inside; -1: none */
    const char *netns_path;
};
int ha_oci_mount(const struct ha_oci *oci, const struct ha_rootfs_input *in, struct ha_rootfs *ret,
                 struct hp_error *e) HP_MUST_CHECK;
void ha_rootfs_close(struct ha_rootfs *r);

struct ha_oci_create {
    const char *uid;
    const char *bundle; /* directory with config.json */
    const char *log_path;
    int64_t log_bytes_max;
    int mount_ns;
};
/* Runs conmon, which runs the runtime's create; returns the pid of the container's first process, which waits for ha_oci_start. In the bundle: `pid`, `conmon.pid` and,
 * later, `persist/exit` with the exit code. */
int ha_oci_create(const struct ha_oci *oci, const struct ha_oci_create *c, int timeout_ms, pid_t *ret_pid,
                  struct hp_error *e) HP_MUST_CHECK;
/* Does what `crun start` and `runc start` do, without the 5 to 20 ms of a process for it. `pid`: as ha_oci_create returned it. */
int ha_oci_start(const struct ha_oci *oci, const char *uid, pid_t pid, int timeout_ms,
                 struct hp_error *e) HP_MUST_CHECK;
/* Forgets a container, killing it when it still runs. Nothing there: 0. */
int ha_oci_delete(const struct ha_oci *oci, const char *uid, int timeout_ms, struct hp_error *e) HP_MUST_CHECK;
/* True while the FIFO at which a created container's process waits is there: it was not started, or, after a crash in ha_oci_start, runs another program than the runtime's. */
bool ha_oci_unstarted(const struct ha_oci *oci, const char *uid);
/* True when the runtime has state of it. */
bool ha_oci_known(const struct ha_oci *oci, const char *uid);

/* Runs a command in the container. *ret_code is its exit code. After the timeout the command, not only the runtime that carries it, is killed: HP_ETIMEDOUT. `dir` takes the
 * command's pid file. */
int ha_oci_exec(const struct ha_oci *oci, const char *uid, const char *dir, char *const *command, size_t count,
                int timeout_ms, int cancel_fd, int *ret_code, struct hp_error *e) HP_MUST_CHECK;

#endif
