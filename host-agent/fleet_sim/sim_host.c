#include "fleet_sim/sim_host.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/tls.h"

struct sim_container {
    struct sim_host *host;
    struct sim_container *next;
    struct ha_timer exit_timer;
    int64_t pid, cpu_millis, memory_bytes; /* pid 0: not running */
    int64_t generation, start_wall_ns, finish_wall_ns;
    int32_t exit_code;
    char uid[HA_UID_MAX + 1];
};

struct sim_job {
    struct sim_host *host;
    struct sim_job *prev, *next;
    struct ha_timer timer;
    struct ha_job *job;
};

struct sim_host {
    struct ha_journal journal;
    struct ha_runtime runtime;
    struct sim_fleet *fleet;
    struct ha_agent *agent;
    struct hp_tls_context *tls; /* held */
    struct sim_container *containers;
    struct sim_job *jobs;
    struct sim_host *dirty_next;
    uint64_t written_seq; /* 0: nothing waits */
    bool up, ended;
    char name[64];
};

/* ---- journal ---- */

static void journal_write(struct ha_journal *j, uint64_t seq, const struct ha_write *writes, size_t count);
static void drain(uv_idle_t *idle);

static void journal_write(struct ha_journal *j, uint64_t seq, const struct ha_write *writes, size_t count)
{
    struct sim_host *h = (struct sim_host *)((char *)j - offsetof(struct sim_host, journal));
    if (h->written_seq == 0) {
        h->dirty_next = h->fleet->dirty;
        h->fleet->dirty = h;
        uv_idle_start(&h->fleet->idle, drain);
    }
    h->written_seq = seq;
}

static void drain(uv_idle_t *idle)
{
    struct sim_fleet *f = idle->data;
    struct sim_host *h = f->dirty, *next;
    f->dirty = NULL;
    uv_idle_stop(idle);
    for (; h; h = next) {
        uint64_t seq = h->written_seq;
        next = h->dirty_next;
        h->written_seq = 0;
        if (h->journal.synced_cb)
            h->journal.synced_cb(h->journal.user, seq, 0, NULL);
    }
}

/* ---- runtime ---- */

static struct sim_container **find(struct sim_host *h, const char *uid)
{
    struct sim_container **at = &h->containers;
    while (*at && strcmp((*at)->uid, uid) != 0)
        at = &(*at)->next;
    return at;
}

static void fill(const struct sim_container *c, struct ha_rt_state *s)
{
    *s = (struct ha_rt_state){0};
    if (!c)
        return;
    s->exists = s->complete = true;
    s->running = c->pid > 0;
    s->pid = c->pid;
    s->pid_start_ticks = c->pid;
    s->generation = c->generation;
    s->exit_code = c->exit_code;
    s->start_wall_ns = c->start_wall_ns;
    s->finish_wall_ns = c->pid ? 0 : c->finish_wall_ns;
    s->healthy = s->running;
    snprintf(s->address, sizeof s->address, "10.88.%d.%d/16", (int)(c->pid >> 8 & 255), (int)(c->pid & 255));
    snprintf(s->image_digest, sizeof s->image_digest, "sha256:%064d", 0);
}

static void stop_process(struct sim_container *c, int32_t code)
{
    if (!c->pid)
        return;
    c->pid = 0;
    c->exit_code = code;
    c->finish_wall_ns = hp_wall_ns();
    ha_timer_set(c->host->fleet->env.timers, &c->exit_timer, UINT64_MAX);
}

static void exited(struct ha_timer *t)
{
    struct sim_container *c = (struct sim_container *)((char *)t - offsetof(struct sim_container, exit_timer));
    struct sim_host *h = c->host;
    struct ha_rt_state s;
    int64_t pid = c->pid;
    h->fleet->exits++;
    stop_process(c, 1);
    fill(c, &s);
    s.pid = s.pid_start_ticks = pid;
    if (h->runtime.exited_cb)
        h->runtime.exited_cb(h->runtime.user, c->uid, &s);
}

static void run_process(struct sim_container *c, const Harpoon__V1__ContainerSpec *spec)
{
    struct sim_fleet *f = c->host->fleet;
    c->pid = ++f->next_pid;
    c->start_wall_ns = hp_wall_ns();
    if (spec && spec->resources) {
        c->cpu_millis = spec->resources->cpu_millis;
        c->memory_bytes = spec->resources->memory_bytes;
    }
    if (f->exit_mean_ms)
        ha_timer_set(f->env.timers, &c->exit_timer, hp_now_ms() + 1 + hp_rng_below(&f->env.rng, 2 * f->exit_mean_ms));
}

static void container_free(struct sim_container *c)
{
    ha_timer_set(c->host->fleet->env.timers, &c->exit_timer, UINT64_MAX);
    ha_timers_release(c->host->fleet->env.timers, 1);
    free(c);
}

static int create(struct sim_host *h, const struct ha_job *job, struct hp_error *e)
{
    struct sim_container **at = find(h, job->uid), *c;
    if (*at)
        return hp_fail(e, HP_EEXISTS, "container %s is there already", job->uid);
    c = calloc(1, sizeof *c);
    if (!c || ha_timers_reserve(h->fleet->env.timers, 1)) {
        free(c);
        return hp_fail(e, HP_ENOMEM, "simulated container");
    }
    c->host = h;
    c->exit_timer.fire_cb = exited;
    c->generation = job->generation;
    memcpy(c->uid, job->uid, strlen(job->uid) + 1);
    *at = c;
    h->fleet->creates++;
    if (job->start)
        run_process(c, job->spec);
    return 0;
}

static int change(struct sim_host *h, struct ha_job *job)
{
    struct sim_container **at = find(h, job->uid), *c = *at;
    struct hp_error *e = &job->error;
    bool fallible = job->kind == HA_JOB_CREATE || job->kind == HA_JOB_START;
    if (fallible && hp_rng_below(&h->fleet->env.rng, 100) < h->fleet->fail_percent)
        return hp_fail(e, HP_EUNAVAILABLE, "made to fail");
    if (job->kind == HA_JOB_CREATE)
        return create(h, job, e);
    if (!c)
        return job->kind == HA_JOB_INSPECT || job->kind == HA_JOB_REMOVE
                   ? 0
                   : hp_fail(e, HP_ENOTFOUND, "no container %s", job->uid);
    if (job->kind == HA_JOB_REMOVE) {
        *at = c->next;
        container_free(c);
        h->fleet->removes++;
        return 0;
    }
    if (job->kind == HA_JOB_STOP || job->kind == HA_JOB_RESTART)
        stop_process(c, 143);
    if (job->kind == HA_JOB_START || job->kind == HA_JOB_RESTART)
        run_process(c, job->spec);
    if (job->kind == HA_JOB_RESIZE && job->spec->resources) {
        c->cpu_millis = job->spec->resources->cpu_millis;
        c->memory_bytes = job->spec->resources->memory_bytes;
    }
    return 0;
}

static void job_free(struct sim_job *j)
{
    if (j->prev)
        j->prev->next = j->next;
    else
        j->host->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
    ha_timer_set(j->host->fleet->env.timers, &j->timer, UINT64_MAX);
    ha_timers_release(j->host->fleet->env.timers, 1);
    free(j);
}

static void job_due(struct ha_timer *t)
{
    struct sim_job *j = (struct sim_job *)((char *)t - offsetof(struct sim_job, timer));
    struct ha_job *job = j->job;
    struct sim_host *h = j->host;
    job_free(j);
    job->status = change(h, job);
    fill(*find(h, job->uid), &job->result);
    job->done_cb(job);
}

static void submit(struct ha_runtime *rt, struct ha_job *job)
{
    struct sim_host *h = (struct sim_host *)((char *)rt - offsetof(struct sim_host, runtime));
    struct sim_job *j = calloc(1, sizeof *j);
    uint64_t ms = job->kind == HA_JOB_CREATE ? h->fleet->create_ms : h->fleet->create_ms / 4;
    if (!j || ha_timers_reserve(h->fleet->env.timers, 1)) {
        hp_err("out of memory; the simulation ends");
        abort();
    }
    j->host = h;
    j->job = job;
    j->timer.fire_cb = job_due;
    j->next = h->jobs;
    if (j->next)
        j->next->prev = j;
    h->jobs = j;
    ha_timer_set(h->fleet->env.timers, &j->timer, hp_now_ms() + ms);
}

/* ---- agent ---- */

static void on_metrics_due(void *user)
{
    struct sim_host *h = user;
    Harpoon__Internal__V1__AgentMetrics metrics = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    Harpoon__V1__HostMetrics host;
    harpoon__v1__host_metrics__init(&host);
    for (const struct sim_container *c = h->containers; c; c = c->next) {
        if (!c->pid)
            continue;
        host.containers_running++;
        host.cpu_millis_used += c->cpu_millis / 2;
        host.memory_bytes_used += c->memory_bytes / 4 * 3;
    }
    host.cpu_millis_used += (int64_t)hp_rng_below(&h->fleet->env.rng, (uint64_t)h->fleet->cpu_millis / 50 + 1);
    host.psi_cpu_some = (int32_t)(10000 * host.cpu_millis_used / (h->fleet->cpu_millis * 4 + 1));
    metrics.host = &host;
    ha_agent_send_metrics(h->agent, &metrics);
}

static void on_link(void *user, bool up)
{
    struct sim_host *h = user;
    if (up == h->up)
        return;
    h->up = up;
    h->fleet->attached += up ? 1 : -1;
    h->fleet->changed_cb(h->fleet);
}

static void on_failed(void *user, const struct hp_error *e)
{
    struct sim_host *h = user;
    h->fleet->failed++;
    hp_err("simulated host failed", HP_S("host", h->name), HP_S("error", e->message));
}

static void cancel_jobs(void *user)
{
    struct sim_host *h = user;
    struct sim_job *j = h->jobs, *next;
    for (; j; j = next) { /* the last one's end frees the host */
        struct ha_job *job = j->job;
        next = j->next;
        job_free(j);
        job->status = hp_fail(&job->error, HP_ECANCELED, "the simulation ends");
        job->done_cb(job);
    }
}

static void on_closed(void *user)
{
    struct sim_host *h = user;
    struct sim_fleet *f = h->fleet;
    for (struct sim_container *c; (c = h->containers);) {
        h->containers = c->next;
        container_free(c);
    }
    for (struct sim_host **at = &f->dirty; *at; at = &(*at)->dirty_next)
        if (*at == h) {
            *at = h->dirty_next;
            break;
        }
    if (h->up)
        f->attached--;
    hp_tls_context_unref(h->tls);
    free(h);
    f->closed++;
    f->changed_cb(f);
}

int sim_host_new(struct sim_fleet *f, const char *region, const char *name,
                 const Harpoon__Internal__V1__AgentHello *self, const struct ha_link_options *link,
                 struct sim_host **ret, struct hp_error *e)
{
    struct sim_host *h = calloc(1, sizeof *h);
    if (!h)
        return hp_fail(e, HP_ENOMEM, "simulated host");
    h->fleet = f;
    h->journal.write = journal_write;
    h->runtime.submit = submit;
    snprintf(h->name, sizeof h->name, "%s", name);
    struct ha_image image = {0};
    struct ha_agent_options o = {
        .core = {.region = region, .host = h->name, .memory_bytes = f->memory_bytes, .seed = 1},
        .link = *link,
        .self = self,
        .journal = &h->journal,
        .runtime = &h->runtime,
        .on_metrics_due = on_metrics_due,
        .on_failed = on_failed,
        .on_link = on_link,
        .cancel_jobs = cancel_jobs,
        .user = h};
    int rc = ha_agent_new(&f->env, &o, &image, NULL, 0, &h->agent, e);
    if (rc) {
        free(h);
        return rc;
    }
    h->tls = link->tls ? hp_tls_context_ref(link->tls) : NULL;
    *ret = h;
    return 0;
}

void sim_host_close(struct sim_host *h)
{
    ha_agent_close(h->agent, "the simulation ends", 0, on_closed);
}

int sim_fleet_init(struct sim_fleet *f, uv_loop_t *loop, uint64_t seed, struct hp_error *e)
{
    int rc = ha_env_init(&f->env, loop, seed, e);
    if (rc)
        return rc;
    uv_idle_init(loop, &f->idle);
    f->idle.data = f;
    return 0;
}

void sim_fleet_close(struct sim_fleet *f)
{
    uv_close((uv_handle_t *)&f->idle, NULL);
    ha_env_close(&f->env);
}
