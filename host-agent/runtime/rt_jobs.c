/* rt_jobs.c — the jobs, as stages on worker threads. A stage never waits for a tenant's process: it hands a pidfd back to the loop and the next stage goes on from there, so that a
 * slow stop takes no thread.
 *   CREATE:  resolve the image ─(pull)→ make, launch, mark complete            START: launch
 *   STOP:    signal ─(wait: grace)→ SIGKILL ─(wait)→ collect                   RESTART: STOP, then START
 *   REMOVE:  SIGKILL ─(wait)→ collect, network, directories, volumes           RESIZE, INSPECT, PROBE: one stage each */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "rt_fs.h"
#include "rt_private.h"
#include "rt_proc.h"
#include "rt_spec.h"
#include "rt_volume.h"
#include "wire/signal_name.h"

#define GRACE_DEFAULT_S 10
#define CONMON_WAIT_MS 5000
#define COLLECT_RETRY_MS 100

int ha_task_left_ms(const struct ha_task *t)
{
    uint64_t now = hp_now_ms();
    if (now >= t->end_ms)
        return 1;
    return t->end_ms - now > 86400000 ? 86400000 : (int)(t->end_ms - now);
}

/* --- what there is --- */

int ha_process_open(struct ha_rt *rt, const char *uid, struct ha_run *ret_run)
{
    struct hp_error ignored = {0};
    int rc = ha_run_read(&rt->store, uid, ret_run, &ignored);
    if (rc)
        return rc == HP_ENOMEM ? -ENOMEM : -EIO;
    return ha_proc_open_exact((pid_t)ret_run->pid, ret_run->ticks);
}

/* 0 when ha_process_open has told whether the process lives. What is not known to have ended is never treated as if it had. */
static int told(int process_fd, struct hp_error *e)
{
    if (process_fd >= 0 || process_fd == -ESRCH)
        return 0;
    return hp_fail_errno(e, process_fd == -ENOMEM ? HP_ENOMEM : HP_EIO, -process_fd,
                         "it cannot be told whether the container's process lives");
}

static bool there(int (*path_fn)(const struct ha_store *, const char *, const char *, char *, size_t,
                                 struct hp_error *),
                  struct ha_rt *rt, const char *uid)
{
    char path[512];
    return path_fn(&rt->store, uid, "", path, sizeof path, NULL) == 0 && access(path, F_OK) == 0;
}

static bool netns_there(struct ha_rt *rt, const char *uid)
{
    char path[640];
    return ha_cni_netns_path(&rt->cni, uid, path, sizeof path, NULL) == 0 && access(path, F_OK) == 0;
}

/* True while the last start has no recorded end although its process is gone. */
static bool needs_collect(struct ha_rt *rt, const char *uid, const struct ha_run *run)
{
    struct ha_exit x;
    struct hp_error ignored = {0};
    return run->pid > 0 || (ha_exit_read(&rt->store, uid, &x, &ignored) == 0 && x.finish_wall_ns == 0);
}

static int fill(struct ha_rt *rt, const char *uid, const struct ha_run *run, bool running, struct ha_rt_state *s,
                struct hp_error *e)
{
    struct ha_meta meta;
    struct ha_exit x;
    char path[512];
    *s = (struct ha_rt_state){.running = running, .exit_code = 0};
    s->exists = running || there(ha_store_path, rt, uid) || there(ha_run_path, rt, uid) || netns_there(rt, uid) ||
                ha_oci_known(&rt->oci, uid);
    int rc = ha_meta_read(&rt->store, uid, &meta, e);
    if (rc == 0) {
        s->complete = meta.complete;
        s->generation = meta.generation;
        s->spec_digest = meta.spec_digest;
        snprintf(s->image_digest, sizeof s->image_digest, "%s", meta.image_digest);
    } else if (rc != HP_ENOTFOUND) {
        return rc;
    }
    if (ha_store_path(&rt->store, uid, "network", path, sizeof path, NULL) == 0)
        ha_cni_address(path, s->address);
    if (running) {
        s->pid = run->pid;
        s->pid_start_ticks = run->ticks;
        s->start_wall_ns = run->start_wall_ns;
        return 0;
    }
    rc = ha_exit_read(&rt->store, uid, &x, e);
    if (rc == 0) {
        s->exit_code = x.code;
        s->oom_killed = x.oom;
        s->start_wall_ns = x.start_wall_ns;
        s->finish_wall_ns = x.finish_wall_ns;
    }
    return rc == HP_ENOTFOUND ? 0 : rc;
}

/* The FIFO goes after the start; in between, the program tells. */
static bool unstarted(struct ha_rt *rt, const char *uid, const struct ha_run *run)
{
    if (!ha_oci_unstarted(&rt->oci, uid))
        return false;
    struct ha_program now = ha_proc_program((pid_t)run->pid);
    return run->runtime.ino == 0 || (now.dev == run->runtime.dev && now.ino == run->runtime.ino);
}

/* A process that was created and, because we died, never started: as if it had never been. The note that it may have run goes first: were we to die after the kill with the note still
 * there, it would be taken for a process that ran and ended. */
static void drop_unstarted(struct ha_rt *rt, const char *uid, int pidfd, struct hp_error *e)
{
    char path[512];
    int rc = ha_store_path(&rt->store, uid, "exit", path, sizeof path, e);
    if (rc == 0)
        rc = ha_fs_remove(path, e);
    if (rc == 0) {
        (void)ha_proc_signal(pidfd, SIGKILL);
        rc = ha_proc_gone(pidfd, HA_KILL_WAIT_MS, -1);
    }
    if (rc == 0)
        rc = ha_collect(rt, uid, false, e);
    if (rc)
        hp_warn("cannot clean up after a start that was cut off; tried again with the next job", HP_S("uid", uid),
                HP_S("error", e->message));
}

int ha_observe(struct ha_rt *rt, const char *uid, struct ha_rt_state *ret, struct hp_error *error)
{
    struct ha_run run;
    struct hp_error e = {0};
    HA_CLOSE int fd = ha_process_open(rt, uid, &run);
    int rc = told(fd, error);
    if (rc)
        return rc;
    if (fd >= 0 && unstarted(rt, uid, &run)) {
        drop_unstarted(rt, uid, fd, &e);
        ha_fs_closep(&fd);
    } else if (fd < 0 && needs_collect(rt, uid, &run) && ha_collect(rt, uid, true, &e)) {
        hp_warn("cannot clean up after a process that ended; tried again with the next job", HP_S("uid", uid),
                HP_S("error", e.message));
    }
    return fill(rt, uid, &run, fd >= 0, ret, error);
}

/* conmon writes the exit code just before it ends itself: wait for that, and end it when something holds it. */
static void await_conmon(const struct ha_run *run)
{
    HA_CLOSE int fd = ha_proc_open_exact((pid_t)run->conmon_pid, run->conmon_ticks);
    if (fd < 0 || ha_proc_gone(fd, CONMON_WAIT_MS, -1) == 0)
        return;
    (void)ha_proc_signal(fd, SIGKILL);
    (void)!ha_proc_gone(fd, CONMON_WAIT_MS, -1);
}

static int32_t read_exit_code(struct ha_rt *rt, const char *uid)
{
    char path[512];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    if (ha_run_path(&rt->store, uid, "persist/exit", path, sizeof path, NULL) ||
        ha_fs_read(AT_FDCWD, path, 32, &text, &size, &ignored))
        return -1;
    char *end;
    long code = strtol(text, &end, 10);
    return end == text || code < 0 || code > 255 ? -1 : (int32_t)code;
}

/* A create whose process was never recorded may still be under way in the hands of conmon, without the agent that began it. */
static int end_strays(struct ha_rt *rt, const char *uid, const struct ha_run *run, struct hp_error *e)
{
    char bundle[512];
    int rc = ha_run_path(&rt->store, uid, "", bundle, sizeof bundle, e);
    if (rc || run->pid > 0 || access(bundle, F_OK) != 0)
        return rc;
    return ha_proc_kill_by_argument(bundle, e);
}

static int record_exit(struct ha_rt *rt, const char *uid, struct hp_error *e)
{
    struct ha_exit x;
    struct ha_cg_usage usage;
    struct hp_error ignored = {0};
    int rc = ha_exit_read(&rt->store, uid, &x, e);
    if (rc || x.finish_wall_ns != 0)
        return rc == HP_ENOTFOUND ? 0 : rc;
    x.code = read_exit_code(rt, uid);
    x.oom = x.code == 128 + SIGKILL && ha_cg_usage(&rt->cgroups, uid, &usage, &ignored) == 0 && usage.oom_kills > 0;
    x.finish_wall_ns = hp_wall_ns();
    return ha_exit_write(&rt->store, uid, &x, e);
}

int ha_collect(struct ha_rt *rt, const char *uid, bool record, struct hp_error *e)
{
    struct ha_run run;
    char path[512];
    int rc = ha_run_read(&rt->store, uid, &run, e);
    if (rc == 0)
        rc = end_strays(rt, uid, &run, e);
    if (rc == 0 && run.pid > 0)
        await_conmon(&run);
    if (rc == 0 && record)
        rc = record_exit(rt, uid, e);
    if (rc == 0)
        rc = ha_oci_delete(&rt->oci, uid, HA_PLUGINS_MS, e);
    if (rc == 0)
        rc = ha_cg_remove(&rt->cgroups, uid, e);
    if (rc == 0)
        rc = ha_run_path(&rt->store, uid, "", path, sizeof path, e);
    return rc ? rc : ha_fs_remove(path, e);
}

enum ha_step ha_stage_collect(struct ha_task *t)
{
    struct pollfd cancelled = {.fd = t->rt->cancel_fd, .events = POLLIN};
    int before = t->status;
    t->status = ha_observe(t->rt, t->uid, &t->result, &t->error);
    if (t->status && !before)
        hp_warn("cannot tell how a process ended; looking again until that can be told", HP_S("uid", t->uid),
                HP_S("error", t->error.message));
    if (t->status)
        (void)poll(&cancelled, 1, COLLECT_RETRY_MS);
    return HA_STEP_DONE;
}

static enum ha_step done(struct ha_task *t, int status)
{
    struct hp_error why = {0};
    int seen = ha_observe(t->rt, t->uid, &t->result, &why);
    if (seen)
        t->result.exists = true; /* for all that can be told */
    t->status = status || !seen ? status : hp_fail(&t->error, seen, "%s", why.message);
    return HA_STEP_DONE;
}

/* Hands the pidfd to the loop. */
static enum ha_step wait_for(struct ha_task *t, int pidfd, int ms, ha_stage_fn then)
{
    t->wait_fd = pidfd;
    t->wait_ms = ms;
    t->stage = then;
    return HA_STEP_WAIT;
}

/* --- removal --- */

/* Does another container of this project have the volume? */
struct volume_search {
    struct ha_rt *rt;
    const struct ha_meta *mine;
    struct ha_volume volume;
    bool found;
};

static size_t project_size(const char *container)
{
    return strncmp(container, "projects/", 9) == 0 ? 9 + strcspn(container + 9, "/") : 0;
}

static void search_volume(void *user, const char *uid)
{
    struct volume_search *v = user;
    struct ha_meta other;
    struct hp_error ignored = {0};
    size_t n = project_size(v->mine->container);
    int rc =
        v->found || strcmp(uid, v->mine->uid) == 0 ? HP_ENOTFOUND : ha_meta_read(&v->rt->store, uid, &other, &ignored);
    v->found = v->found || (rc && rc != HP_ENOTFOUND); /* rather kept than missed */
    if (rc)
        return;
    if (project_size(other.container) != n || strncmp(other.container, v->mine->container, n) != 0)
        return;
    for (size_t i = 0; i < other.volume_count; i++)
        v->found = v->found || (strcmp(other.volumes[i].name, v->volume.name) == 0 &&
                                strcmp(other.volumes[i].class, v->volume.class) == 0);
}

static int remove_volumes(struct ha_rt *rt, const struct ha_meta *meta, struct hp_error *e)
{
    for (size_t i = 0; i < meta->volume_count; i++) {
        struct volume_search v = {.rt = rt,
                                  .mine = meta,
                                  .volume = {meta->volumes[i].name, meta->volumes[i].class},
                                  .found = meta->volumes[i].keep};
        if (!v.found && ha_store_each(&rt->store, search_volume, &v))
            v.found = true; /* rather kept than missed */
        int rc = v.found ? 0 : ha_volume_remove(&rt->store, meta->container, &v.volume, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* Everything of a container whose process is gone; `keep`: its volumes and its network stay for the container that replaces it. The record goes last, so that a crash in the middle
 * leaves something that says what is left to do. */
static int remove_rest(struct ha_rt *rt, const char *uid, bool keep, struct hp_error *e)
{
    static const char *const parts[] = {"upper", "work", "log", "exit"};
    char path[512], network[512];
    struct ha_meta meta;
    struct hp_error ignored = {0};
    int known = ha_meta_read(&rt->store, uid, &meta, &ignored);
    if (known && known != HP_ENOTFOUND)
        return hp_fail(e, known, "%s", ignored.message); /* its volumes would be forgotten */
    int rc = ha_collect(rt, uid, false, e);
    if (rc == 0)
        rc = ha_store_path(&rt->store, uid, "network", network, sizeof network, e);
    if (rc == 0 && !keep)
        rc = ha_cni_detach(&rt->cni, uid, network, HA_PLUGINS_MS, e);
    if (rc == 0 && !keep && known == 0)
        rc = remove_volumes(rt, &meta, e);
    for (size_t i = 0; rc == 0 && i < sizeof parts / sizeof *parts; i++) {
        rc = ha_store_path(&rt->store, uid, parts[i], path, sizeof path, e);
        if (rc == 0)
            rc = ha_fs_remove(path, e);
    }
    if (rc == 0)
        rc = ha_store_path(&rt->store, uid, keep ? "meta" : "", path, sizeof path, e);
    return rc ? rc : ha_fs_remove(path, e);
}

static enum ha_step remove_last(struct ha_task *t)
{
    if (t->timed_out)
        return done(
            t, hp_fail(&t->error, HP_ETIMEDOUT, "the process did not end within %d ms of SIGKILL", HA_KILL_WAIT_MS));
    int rc = remove_rest(t->rt, t->uid, t->job->replacing, &t->error);
    t->status = rc;
    struct ha_run none = {0};
    struct hp_error ignored = {0};
    (void)!fill(t->rt, t->uid, &none, false, &t->result, &ignored);
    return HA_STEP_DONE;
}

static enum ha_step remove_first(struct ha_task *t)
{
    struct ha_run run;
    int fd = ha_process_open(t->rt, t->uid, &run);
    int rc = told(fd, &t->error);
    if (rc)
        return done(t, rc);
    if (fd < 0)
        return remove_last(t);
    (void)ha_proc_signal(fd, SIGKILL);
    return wait_for(t, fd, HA_KILL_WAIT_MS, remove_last);
}

/* The same in one go, for what a create finds in its way. */
static int clear_away(struct ha_rt *rt, const char *uid, struct hp_error *e)
{
    struct ha_run run;
    HA_CLOSE int fd = ha_process_open(rt, uid, &run);
    int rc = told(fd, e);
    if (rc)
        return rc;
    if (fd >= 0) {
        (void)ha_proc_signal(fd, SIGKILL);
        if (ha_proc_gone(fd, HA_KILL_WAIT_MS, -1))
            return hp_fail(e, HP_ETIMEDOUT, "the earlier process did not end within %d ms of SIGKILL", HA_KILL_WAIT_MS);
    }
    return remove_rest(rt, uid, true, e);
}

/* --- create and start --- */

static int make_meta(struct ha_task *t, const struct ha_image *image, struct ha_meta *m)
{
    const Harpoon__V1__ContainerSpec *spec = t->job->spec;
    const char *signal_name = json_string_value(json_object_get(image->process, "StopSignal"));
    *m = (struct ha_meta){.generation = t->job->generation, .spec_digest = t->job->spec_digest};
    if (strlen(t->job->container) >= sizeof m->container)
        return hp_fail(&t->error, HP_EINVAL, "container name longer than %zu bytes", sizeof m->container - 1);
    strcpy(m->uid, t->uid);
    strcpy(m->container, t->job->container);
    strcpy(m->image_digest, image->digest);
    m->bridge = !spec->network || spec->network->mode != HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    struct hp_error ignored = {0};
    if (hp_signal_number(signal_name ? signal_name : "", &m->stop_signal, &ignored))
        m->stop_signal = SIGTERM;
    int checked;
    int rc = hp_signal_number(spec->stop_signal, &checked, &t->error);
    if (rc == 0 && spec->n_volumes > HA_VOLUMES_MAX)
        rc = hp_fail(&t->error, HP_ELIMIT, "%zu volumes, limit %d", spec->n_volumes, HA_VOLUMES_MAX);
    for (size_t i = 0; rc == 0 && i < spec->n_volumes; i++) {
        const struct ha_volume v = {spec->volumes[i]->volume, spec->volumes[i]->storage_class};
        rc = ha_volume_check(&v, &t->error);
        if (rc)
            break;
        snprintf(m->volumes[i].name, sizeof m->volumes[i].name, "%s", v.name);
        snprintf(m->volumes[i].class, sizeof m->volumes[i].class, "%s", v.class);
        m->volumes[i].keep = spec->volumes[i]->keep;
        m->volume_count = i + 1;
    }
    return rc;
}

/* The image is here. On failure nothing is left of what this made. */
static int create_now(struct ha_task *t, const struct ha_image *image)
{
    struct ha_rt *rt = t->rt;
    struct ha_meta meta;
    char path[512];
    int rc = make_meta(t, image, &meta);
    if (rc == 0)
        rc = clear_away(rt, t->uid, &t->error);
    if (rc == 0)
        rc = ha_store_path(&rt->store, t->uid, "", path, sizeof path, &t->error);
    if (rc == 0)
        rc = ha_fs_mkdirs(path, 0700, &t->error);
    if (rc == 0)
        rc = ha_meta_write(&rt->store, &meta, false, &t->error);
    if (rc == 0 && t->job->start)
        rc = ha_launch(rt, &meta, image, t->job->spec, ha_task_left_ms(t), &t->error);
    meta.complete = true;
    if (rc == 0)
        rc = ha_meta_write(&rt->store, &meta, true, &t->error);
    return rc;
}

/* Takes a failed create back. A network that was kept from the container that it was to replace stays for the next try; volumes stay for whoever is to decide, known by an incomplete
 * record. */
static void undo_create(struct ha_task *t, bool keep_network)
{
    struct ha_rt *rt = t->rt;
    struct ha_meta meta;
    struct hp_error why = {0}, ignored = {0};
    char path[512];
    bool volumes = ha_meta_read(&rt->store, t->uid, &meta, &ignored) == 0 && meta.volume_count > 0;
    int rc = clear_away(rt, t->uid, &why);
    if (rc == 0 && !keep_network)
        rc = remove_rest(rt, t->uid, false, &why); /* the record is gone: volumes are not known here */
    if (rc == 0 && volumes)
        rc = ha_store_path(&rt->store, t->uid, "", path, sizeof path, &why);
    if (rc == 0 && volumes)
        rc = ha_fs_mkdirs(path, 0700, &why);
    if (rc == 0 && volumes)
        rc = ha_meta_write(&rt->store, &meta, false, &why);
    if (rc)
        hp_warn("cannot clean up after a failed create; done by the next create or remove", HP_S("uid", t->uid),
                HP_S("error", why.message));
}

static enum ha_step create_make(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    struct ha_image *image = NULL;
    bool had_network = netns_there(rt, t->uid);
    pthread_rwlock_rdlock(&rt->images.use);
    int rc = ha_images_load(&rt->images, t->image_digest, &image, &t->error);
    if (rc == 0)
        rc = create_now(t, image);
    pthread_rwlock_unlock(&rt->images.use);
    ha_image_free(image);
    if (rc)
        undo_create(t, had_network);
    return done(t, rc);
}

static enum ha_step create_first(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    struct ha_image *image = NULL;
    struct ha_rt_state now;
    int rc = ha_observe(rt, t->uid, &now, &t->error);
    if (rc)
        return done(t, rc);
    if (now.running && now.complete && now.generation == t->job->generation && t->job->start)
        return done(t, 0); /* this very create went through before a crash */
    rc = hp_image_ref_parse(t->job->spec->image, &t->ref, &t->error);
    if (rc)
        return done(t, rc);
    pthread_rwlock_rdlock(&rt->images.use);
    rc = ha_images_resolve(&rt->images, &t->ref, &image, &t->error);
    pthread_rwlock_unlock(&rt->images.use);
    if (rc == HP_EAGAIN) {
        t->error = (struct hp_error){0};
        t->stage = create_make;
        return HA_STEP_PULL;
    }
    if (rc)
        return done(t, rc);
    strcpy(t->image_digest, image->digest);
    ha_image_free(image);
    return create_make(t);
}

static enum ha_step start_first(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    struct ha_meta meta;
    struct ha_image *image = NULL;
    struct ha_rt_state now;
    int rc = ha_observe(rt, t->uid, &now, &t->error);
    if (rc || now.running)
        return done(t, rc);
    rc = ha_meta_read(&rt->store, t->uid, &meta, &t->error);
    if (rc == 0)
        rc = ha_collect(rt, t->uid, true, &t->error);
    pthread_rwlock_rdlock(&rt->images.use);
    if (rc == 0)
        rc = ha_images_load(&rt->images, meta.image_digest, &image, &t->error);
    if (rc == 0)
        rc = ha_launch(rt, &meta, image, t->job->spec, ha_task_left_ms(t), &t->error);
    pthread_rwlock_unlock(&rt->images.use);
    ha_image_free(image);
    if (rc) {
        struct hp_error why = {0};
        struct ha_run run;
        HA_CLOSE int fd = ha_process_open(rt, t->uid, &run);
        if (fd >= 0)
            (void)ha_proc_signal(fd, SIGKILL);
        if (ha_collect(rt, t->uid, true, &why))
            hp_warn("cannot clean up after a failed start; done by the next start or remove", HP_S("uid", t->uid),
                    HP_S("error", why.message));
    }
    return done(t, rc);
}

/* --- stop --- */

static enum ha_step stop_last(struct ha_task *t)
{
    if (t->timed_out)
        return done(
            t, hp_fail(&t->error, HP_ETIMEDOUT, "the process did not end within %d ms of SIGKILL", HA_KILL_WAIT_MS));
    if (t->job->kind == HA_JOB_RESTART)
        return start_first(t);
    return done(t, 0);
}

static enum ha_step stop_kill(struct ha_task *t)
{
    struct ha_run run;
    int fd = t->timed_out ? ha_process_open(t->rt, t->uid, &run) : -ESRCH;
    int rc = told(fd, &t->error);
    t->timed_out = false;
    if (rc)
        return done(t, rc);
    if (fd < 0)
        return stop_last(t);
    (void)ha_proc_signal(fd, SIGKILL);
    return wait_for(t, fd, HA_KILL_WAIT_MS, stop_last);
}

static enum ha_step stop_first(struct ha_task *t)
{
    const Harpoon__V1__ContainerSpec *spec = t->job->spec;
    struct ha_meta meta;
    struct ha_run run;
    struct hp_error ignored = {0};
    if (t->job->kind == HA_JOB_RESTART && ha_meta_read(&t->rt->store, t->uid, &meta, &t->error))
        return done(t, t->error.code);
    int fd = ha_process_open(t->rt, t->uid, &run);
    int rc = told(fd, &t->error);
    if (rc)
        return done(t, rc);
    if (fd < 0)
        return stop_last(t);
    int sig = SIGTERM;
    if (ha_meta_read(&t->rt->store, t->uid, &meta, &ignored) == 0 && meta.stop_signal > 0)
        sig = meta.stop_signal;
    if (spec && spec->stop_signal[0])
        (void)!hp_signal_number(spec->stop_signal, &sig, &ignored);
    int grace = spec && spec->stop_grace_seconds > 0 ? spec->stop_grace_seconds : GRACE_DEFAULT_S;
    (void)ha_proc_signal(fd, sig);
    return wait_for(t, fd, grace > 3600 ? 3600000 : grace * 1000, stop_kill);
}

/* --- the others --- */

static int resize_network(struct ha_task *t)
{
    char record[640];
    int rc = ha_store_path(&t->rt->store, t->uid, "network", record, sizeof record, &t->error);
    return rc ? rc : ha_cni_resize(&t->rt->cni, t->uid, t->job->spec, record, HA_PLUGINS_MS, &t->error);
}

static enum ha_step resize_only(struct ha_task *t)
{
    struct ha_run run;
    struct ha_meta meta;
    int rc = ha_meta_read(&t->rt->store, t->uid, &meta, &t->error);
    HA_CLOSE int fd = rc == 0 ? ha_process_open(t->rt, t->uid, &run) : -ESRCH;
    if (rc == 0)
        rc = told(fd, &t->error);
    struct ha_cg_limits want = ha_cg_limits_of(t->job->spec->resources);
    if (fd >= 0) /* what does not run gets its limits at the next start */
        rc = ha_cg_resize(&t->rt->cgroups, t->uid, &want, &t->error);
    if (fd >= 0 && rc == 0)
        rc = resize_network(t);
    return done(t, rc);
}

static enum ha_step inspect_only(struct ha_task *t)
{
    return done(t, 0);
}

static enum ha_step probe_only(struct ha_task *t)
{
    bool healthy = false;
    int rc = t->job->spec->health_check ? ha_probe(t->rt, t->uid, t->job->spec->health_check, &healthy, &t->error)
                                        : hp_fail(&t->error, HP_EINVAL, "there is no health check");
    enum ha_step step = done(t, rc);
    t->result.healthy = rc == 0 && healthy;
    return step;
}

ha_stage_fn ha_job_stage(enum ha_job_kind kind)
{
    switch (kind) {
    case HA_JOB_CREATE:
        return create_first;
    case HA_JOB_START:
        return start_first;
    case HA_JOB_STOP:
    case HA_JOB_RESTART:
        return stop_first;
    case HA_JOB_REMOVE:
        return remove_first;
    case HA_JOB_RESIZE:
        return resize_only;
    case HA_JOB_INSPECT:
        return inspect_only;
    case HA_JOB_PROBE:
        return probe_only;
    }
    return inspect_only;
}

/* --- images in use --- */

struct image_search {
    struct ha_rt *rt;
    const char *digest;
    bool found;
};

static void search_image(void *user, const char *uid)
{
    struct image_search *s = user;
    struct ha_meta meta;
    struct hp_error ignored = {0};
    int rc = s->found ? HP_ENOTFOUND : ha_meta_read(&s->rt->store, uid, &meta, &ignored);
    if (rc != HP_ENOTFOUND)
        s->found = rc || strcmp(meta.image_digest, s->digest) == 0; /* rather kept than missed */
}

bool ha_image_in_use(void *rt, const char *digest)
{
    struct image_search s = {.rt = rt, .digest = digest};
    return ha_store_each(&((struct ha_rt *)rt)->store, search_image, &s) || s.found;
}
