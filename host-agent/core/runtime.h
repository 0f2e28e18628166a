/* runtime.h — what the agent's core asks of a container runtime: jobs, one at a time per container. The real one is shell/rt_*.c; the simulated one is harpoon-fleet-sim's. */
#ifndef HA_CORE_RUNTIME_H
#define HA_CORE_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"

enum ha_job_kind {
    HA_JOB_CREATE, /* pull the image, make root file system, network, cgroup; leave it created and started (or only created when start is false) */
    HA_JOB_START,  /* start a stopped container: same rootfs, address, volumes; limits from spec; a new process */
    HA_JOB_STOP,   /* signal, grace, SIGKILL; waits until it is gone */
    HA_JOB_RESTART, /* STOP, then START, as one job */
    HA_JOB_REMOVE,  /* stop by SIGKILL and remove everything of it; success when there is nothing */
    HA_JOB_RESIZE,  /* set limits in place; HP_ECONFLICT when a limit is below what is in use */
    HA_JOB_INSPECT, /* what is there now; a running process is watched from then on, also after a restart of the agent */
    HA_JOB_PROBE,   /* run the health check once; only `healthy` of the result counts */
};

/* What the runtime knows of one container. Strings are owned by the result. */
struct ha_rt_state {
    bool exists; /* anything of it is on the host */
    bool
        complete; /* the CREATE that made it went through to its end (recorded on disk as its last act); false: what a cut-off CREATE left behind */
    bool running;
    int64_t generation;      /* of the CREATE that made it; 0 unknown */
    uint64_t spec_digest;    /* of the job of that CREATE; 0 unknown */
    int64_t pid;             /* 0 when not running */
    int64_t pid_start_ticks; /* field 22 of /proc/pid/stat */
    int32_t exit_code;       /* 128 + n for signal n; -1 unknown */
    bool oom_killed;
    char address[64];      /* CIDR; "" none */
    char image_digest[80]; /* "sha256:…" */
    int64_t start_wall_ns, finish_wall_ns;
    bool healthy; /* PROBE */
};

struct ha_job {
    enum ha_job_kind kind;
    const char *uid;       /* names everything on the host: directories, cgroup, netns */
    const char *container; /* full resource name, for labels and logs */
    int64_t generation;
    const Harpoon__V1__ContainerSpec *spec; /* valid until done_cb; NULL in INSPECT and REMOVE */
    bool start;                             /* CREATE: also start */
    uint64_t spec_digest;                   /* CREATE: of what cannot change in place; to be recorded with it */
    bool replacing;                         /* REMOVE: a CREATE of the same uid follows, so volumes and address stay */
    uint64_t deadline_ms;                   /* the job is given up after so long; 0: 10 minutes */
    struct ha_rt_state result;
    int status; /* 0 or HP_E… */
    struct hp_error error;
    void (*done_cb)(struct ha_job *job); /* loop thread, exactly once, never from inside submit */
    void *user;
};

/* Implementations embed this. All functions on the loop thread. */
struct ha_runtime {
    /* Jobs of different uids run side by side; the caller never has two of one uid under way. */
    void (*submit)(struct ha_runtime *rt, struct ha_job *job);
    /* Called by the implementation when a container's process ended by itself (not by STOP, RESTART or REMOVE): `running` is false, pid and pid_start_ticks name the process
     * that ended. Set by the owner. */
    void (*exited_cb)(void *user, const char *uid, const struct ha_rt_state *state);
    void *user;
};

#endif
