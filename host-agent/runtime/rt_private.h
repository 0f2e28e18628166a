/* rt_private.h — the parts of the runtime that know of each other: the loop's side (rt.c), the jobs on worker threads (rt_jobs.c, rt_launch.c, rt_probe.c). */
#ifndef HA_RT_PRIVATE_H
#define HA_RT_PRIVATE_H

#include <stdatomic.h>

#include "base/map.h"
#include "io/loop.h"
#include "rt_cgroup.h"
#include "rt_cni.h"
#include "rt_image.h"
#include "rt_oci.h"
#include "rt_pool.h"
#include "rt_store.h"
#include "rt_warm.h"
#include "shell/rt.h"
#include "shell/rt_metrics.h"

#define HA_ENTRIES_MAX 65536
#define HA_QUEUE_MAX 8192
#define HA_JOB_DEADLINE_MS 600000
#define HA_KILL_WAIT_MS 30000 /* from SIGKILL until the process is gone */
#define HA_PLUGINS_MS 30000   /* one network plugin, or one call of the OCI runtime */

struct ha_task;
struct ha_watch;

/* What a stage wants next. */
enum ha_step {
    HA_STEP_DONE,
    HA_STEP_PULL, /* bring task->ref here, then task->stage */
    HA_STEP_WAIT, /* until task->wait_fd is readable or wait_ms are over, then task->stage */
};
typedef enum ha_step (*ha_stage_fn)(struct ha_task *t);

/* One uid that the loop knows of. Loop thread only. */
struct ha_entry {
    char uid[HA_UID_MAX + 1];
    struct ha_task *task;    /* under way; NULL none */
    struct ha_task *queued;  /* a job that waits for it */
    struct ha_task *collect; /* for the look after a process that ended; owned */
    struct ha_watch *watch;  /* of the running process; NULL none */
    int64_t pid, ticks;      /* what was watched last */
    bool exit_due;           /* the watched process ended while a task was under way */
    bool gone;               /* the last task found nothing of it on the host */
};

/* One job, or the look after a process that ended by itself (job is NULL). Its stages run on worker threads, one at a time; between them it is the loop's. */
struct ha_task {
    struct ha_work work;
    struct hp_mail mail;
    struct ha_rt *rt;
    struct ha_entry *entry;
    struct ha_job *job;
    char uid[HA_UID_MAX + 1];
    ha_stage_fn stage; /* what runs next */
    enum ha_step step; /* what the last one wanted */
    uint64_t end_ms;   /* hp_now_ms when the job is given up */
    int status;
    struct hp_error error;
    struct ha_rt_state result;
    /* HA_STEP_WAIT */
    int wait_fd; /* owned */
    int wait_ms;
    bool timed_out; /* how the last wait ended */
    bool waiting;
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned handles; /* not yet closed */
    /* HA_STEP_PULL */
    struct hp_image_ref ref;
    char image_digest[HA_DIGEST_SIZE]; /* out */
    struct ha_task *next_waiter;
};

/* One image on its way here; tasks that want the same one share it. */
struct ha_pull {
    struct ha_work work;
    struct hp_mail mail;
    struct ha_rt *rt;
    struct hp_image_ref ref;
    int timeout_ms;
    int status;
    struct hp_error error;
    char digest[HA_DIGEST_SIZE];
    struct ha_task *waiters;
};

struct ha_rt {
    struct ha_runtime base; /* first */
    uv_loop_t *loop;
    struct hp_mailbox *mailbox;
    struct ha_pool *work, *pull, *probe;
    struct ha_store store;
    struct ha_images images;
    struct ha_cgroups cgroups;
    struct ha_warm *warm;
    struct ha_oci oci;
    struct ha_cni cni;
    struct ha_rt_facts facts;
    struct ha_metrics *metrics;
    int64_t log_bytes_max, image_age_s, image_bytes_max;
    uint64_t nofile_max;
    bool cgroup_namespace, net_sysctls;
    char layers[512]; /* directory of unpacked layers */
    int cancel_fd;    /* eventfd; readable once the runtime closes */
    atomic_bool closing;
    struct hp_map entries; /* uid → struct ha_entry */
    struct hp_map pulls;   /* reference → struct ha_pull */
    size_t under_way;      /* tasks, pulls and samples that still post mail, and handles that still close */
    bool sampling, collecting;
    uint64_t collect_after_ms; /* hp_now_ms; no collection by itself before */
    bool images_open;
    char image_policy[512];
    uv_timer_t close_timer;
    uv_timer_cb close_fn;
    bool close_timer_open;
    void (*closed_cb)(void *user);
    void *closed_user;
};

/* --- loop thread --- */

void ha_rt_submit(struct ha_runtime *base, struct ha_job *job);
void ha_entry_free(struct ha_entry *en);
/* Ends all waits and watches, when the runtime closes. */
void ha_rt_cancel(struct ha_rt *rt);
/* Watches a process that was found running. */
void ha_rt_watch(struct ha_rt *rt, const char *uid, const struct ha_rt_state *state);
/* Finishes closing when nothing is under way any more. */
void ha_rt_check_closed(struct ha_rt *rt);

/* --- worker threads: everything below blocks --- */

/* The first stage of a kind of job. */
ha_stage_fn ha_job_stage(enum ha_job_kind kind);
enum ha_step ha_stage_collect(struct ha_task *t);

/* What there is now; a process that has ended is collected first. Fails when it cannot be told (no descriptors, no memory): then nothing was touched. */
int ha_observe(struct ha_rt *rt, const char *uid, struct ha_rt_state *ret, struct hp_error *e) HP_MUST_CHECK;
/* Opens a pidfd of the container's process; -ESRCH when none runs; another -errno when that cannot be told. */
int ha_process_open(struct ha_rt *rt, const char *uid, struct ha_run *ret_run);
/* After the process has ended: exit code, memory kill, then the OCI runtime's, conmon's and the kernel's rests are removed. Idempotent. `record`: write the exit down. */
int ha_collect(struct ha_rt *rt, const char *uid, bool record, struct hp_error *e) HP_MUST_CHECK;
/* Starts the process of a container whose directories and record are there: network, root file system, configuration, conmon, start. */
int ha_launch(struct ha_rt *rt, const struct ha_meta *meta, const struct ha_image *image,
              const Harpoon__V1__ContainerSpec *spec, int timeout_ms, struct hp_error *e) HP_MUST_CHECK;
/* Milliseconds until the job is given up; at least 1. */
int ha_task_left_ms(const struct ha_task *t);
/* Runs the health check. HP_E… only when it could not be run at all. */
int ha_probe(struct ha_rt *rt, const char *uid, const Harpoon__V1__HealthCheck *check, bool *ret_healthy,
             struct hp_error *e) HP_MUST_CHECK;
bool ha_image_in_use(void *rt, const char *digest);

#endif
