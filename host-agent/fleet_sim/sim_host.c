#include "fleet_sim/sim_host.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/tls.h"
#include "shell/journal_sqlite.h"

struct sim_job {
    struct sim_host *host;
    struct sim_job *prev, *next;
    struct ha_timer timer;
    struct ha_job *job;
    uint64_t number; /* in the machines' record */
};

struct sim_host {
    struct ha_journal journal;
    struct ha_runtime runtime;
    struct sim_fleet *fleet;
    struct ha_agent *agent;
    struct hp_tls_context *tls;  /* held */
    struct ha_sqlite *sqlite;    /* NULL: the journal is in memory, where it is durable at once and never read */
    struct sim_machine *machine; /* outlives the agent */
    struct sim_job *jobs;
    struct sim_host *dirty_next, *flushing_next;
    uint64_t written_seq;  /* 0: nothing waits */
    uint64_t flushing_seq; /* valid while on the list of those that are flushed */
    bool up, ended;
    char name[64];
};

/* ---- journal ---- */

static void journal_write(struct ha_journal *j, uint64_t seq, const struct ha_write *writes, size_t count);
static void drain(uv_idle_t *idle);

static void journal_write(struct ha_journal *j, uint64_t seq, const struct ha_write *writes, size_t count)
{
    struct sim_host *h = (struct sim_host *)((char *)j - offsetof(struct sim_host, journal));
    if (h->fleet->journal && sim_journal_add(h->fleet->journal, h->name, seq, writes, count)) {
        hp_err("out of memory; the simulation ends");
        abort();
    }
    if (h->written_seq == 0) {
        h->dirty_next = h->fleet->dirty;
        h->fleet->dirty = h;
        uv_idle_start(&h->fleet->idle, drain);
    }
    h->written_seq = seq;
}

static void flushed(void *user, int status, const struct hp_error *e)
{
    struct sim_fleet *f = user;
    struct sim_host *h = f->flushing, *next;
    f->flushing = NULL;
    if (f->dirty)
        uv_idle_start(&f->idle, drain);
    for (; h; h = next) {
        next = h->flushing_next;
        if (h->journal.synced_cb)
            h->journal.synced_cb(h->journal.user, h->flushing_seq, status, e);
    }
}

/* All that has come up to now goes to the file together. */
static void begin_flush(struct sim_fleet *f)
{
    if (sim_journal_busy(f->journal))
        return; /* flushed() goes on with it */
    f->flushing = f->dirty;
    f->dirty = NULL;
    for (struct sim_host *h = f->flushing; h; h = h->flushing_next) {
        h->flushing_next = h->dirty_next;
        h->flushing_seq = h->written_seq;
        h->written_seq = 0;
    }
    sim_journal_flush(f->journal, flushed, f);
}

static void drain(uv_idle_t *idle)
{
    struct sim_fleet *f = idle->data;
    struct sim_host *h = f->dirty, *next;
    uv_idle_stop(idle);
    if (f->journal) {
        begin_flush(f);
        return;
    }
    f->dirty = NULL;
    for (; h; h = next) {
        uint64_t seq = h->written_seq;
        next = h->dirty_next;
        h->written_seq = 0;
        if (h->journal.synced_cb)
            h->journal.synced_cb(h->journal.user, seq, 0, NULL);
    }
}

/* ---- runtime ---- */

static struct sim_host *host_of(const struct sim_container *c)
{
    return c->owner;
}

static void fill(const struct sim_container *c, struct ha_rt_state *s)
{
    *s = (struct ha_rt_state){0};
    if (!c)
        return;
    s->exists = true;
    s->complete = c->complete;
    s->spec_digest = c->spec_digest;
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
    ha_timer_set(host_of(c)->fleet->env.timers, &c->exit_timer, UINT64_MAX);
}

static void exited(struct ha_timer *t)
{
    struct sim_container *c = (struct sim_container *)((char *)t - offsetof(struct sim_container, exit_timer));
    struct sim_host *h = host_of(c);
    struct ha_rt_state s;
    int64_t pid = c->pid;
    h->fleet->exits++;
    stop_process(c, 1);
    sim_ground_exit(h->fleet->ground, h->machine, c, pid);
    fill(c, &s);
    s.pid = s.pid_start_ticks = pid;
    if (h->runtime.exited_cb)
        h->runtime.exited_cb(h->runtime.user, c->uid, &s);
}

static void plan_exit(struct sim_container *c)
{
    struct sim_fleet *f = host_of(c)->fleet;
    if (f->exit_mean_ms)
        ha_timer_set(f->env.timers, &c->exit_timer, hp_now_ms() + 1 + hp_rng_below(&f->env.rng, 2 * f->exit_mean_ms));
}

static void run_process(struct sim_container *c, const Harpoon__V1__ContainerSpec *spec)
{
    c->pid = sim_ground_pid(host_of(c)->fleet->ground);
    c->start_wall_ns = hp_wall_ns();
    if (spec && spec->resources) {
        c->cpu_millis = spec->resources->cpu_millis;
        c->memory_bytes = spec->resources->memory_bytes;
    }
    plan_exit(c);
}

/* The host's agent works with the container from now on. */
static int adopt(struct sim_host *h, struct sim_container *c)
{
    if (ha_timers_reserve(h->fleet->env.timers, 1))
        return HP_ENOMEM;
    c->owner = h;
    c->exit_timer = (struct ha_timer){.fire_cb = exited};
    return 0;
}

static void disown(struct sim_container *c)
{
    ha_timer_set(host_of(c)->fleet->env.timers, &c->exit_timer, UINT64_MAX);
    ha_timers_release(host_of(c)->fleet->env.timers, 1);
    c->owner = NULL;
}

static int create(struct sim_host *h, const struct ha_job *job, struct hp_error *e)
{
    if (sim_machine_find(h->machine, job->uid))
        return hp_fail(e, HP_EEXISTS, "container %s is there already", job->uid);
    struct sim_container *c = sim_machine_add(h->machine, job->uid, job->container);
    if (!c || adopt(h, c)) {
        if (c)
            sim_machine_drop(h->machine, c);
        return hp_fail(e, HP_ENOMEM, "simulated container");
    }
    c->generation = job->generation;
    c->spec_digest = job->spec_digest;
    c->complete = true;
    h->fleet->creates++;
    if (job->start)
        run_process(c, job->spec);
    return 0;
}

static int change(struct sim_host *h, struct ha_job *job)
{
    struct sim_container *c = sim_machine_find(h->machine, job->uid);
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
        disown(c);
        sim_machine_drop(h->machine, c);
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

/* Tells the record, then the agent. */
static void finish_job(struct sim_host *h, struct ha_job *job, uint64_t number)
{
    sim_ground_end(h->fleet->ground, h->machine, number, job);
    fill(sim_machine_find(h->machine, job->uid), &job->result);
    job->done_cb(job);
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
    uint64_t number = j->number;
    job_free(j);
    job->status = change(h, job);
    finish_job(h, job, number);
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
    j->number = sim_ground_begin(h->fleet->ground, h->machine, job);
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
    for (const struct sim_container *c = h->machine->containers; c; c = c->next) {
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
        uint64_t number = j->number;
        next = j->next;
        job_free(j);
        job->status = hp_fail(&job->error, HP_ECANCELED, "the simulation ends");
        finish_job(h, job, number);
    }
}

static void on_closed(void *user)
{
    struct sim_host *h = user;
    struct sim_fleet *f = h->fleet;
    for (struct sim_container *c = h->machine->containers; c; c = c->next)
        disown(c);
    for (struct sim_host **at = &f->dirty; *at; at = &(*at)->dirty_next)
        if (*at == h) {
            *at = h->dirty_next;
            break;
        }
    for (struct sim_host **at = &f->flushing; *at; at = &(*at)->flushing_next)
        if (*at == h) {
            *at = h->flushing_next;
            break;
        }
    if (h->up)
        f->attached--;
    hp_tls_context_unref(h->tls);
    if (h->sqlite)
        ha_sqlite_close(h->sqlite);
    free(h);
    f->closed++;
    f->changed_cb(f);
}

/* What the machine has, for the agent that starts on it. `*ret_found` is the caller's. */
static int look_around(struct sim_host *h, struct ha_found **ret_found, size_t *ret_count, struct hp_error *e)
{
    size_t n = 0;
    for (const struct sim_container *c = h->machine->containers; c; c = c->next)
        n++;
    *ret_found = calloc(n + 1, sizeof **ret_found);
    if (!*ret_found)
        return hp_fail(e, HP_ENOMEM, "containers found");
    for (struct sim_container *c = h->machine->containers; c; c = c->next) {
        struct ha_found *found = &(*ret_found)[(*ret_count)++];
        if (adopt(h, c))
            return hp_fail(e, HP_ENOMEM, "containers found");
        *found = (struct ha_found){.uid = c->uid, .name = c->name};
        fill(c, &found->state);
        if (c->pid)
            plan_exit(c);
    }
    return 0;
}

static int open_journal(struct sim_host *h, const char *directory, struct ha_image *image, struct hp_error *e)
{
    char path[4096];
    h->journal.write = journal_write;
    if (!directory)
        return 0;
    snprintf(path, sizeof path, "%s/%s.db", directory, h->name);
    return ha_sqlite_open(h->fleet->env.loop, path, &h->sqlite, image, e);
}

static int start_agent(struct sim_host *h, const char *region, const Harpoon__Internal__V1__AgentHello *self,
                       const struct ha_link_options *link, struct ha_image *image, struct hp_error *e)
{
    struct ha_agent_options o = {
        .core = {.region = region, .host = h->name, .memory_bytes = h->fleet->memory_bytes, .seed = 1},
        .link = *link,
        .self = self,
        .journal = h->sqlite ? ha_sqlite_journal(h->sqlite) : &h->journal,
        .runtime = &h->runtime,
        .on_metrics_due = on_metrics_due,
        .on_failed = on_failed,
        .on_link = on_link,
        .cancel_jobs = cancel_jobs,
        .user = h};
    struct ha_found *found = NULL;
    size_t count = 0;
    int rc = look_around(h, &found, &count, e);
    if (rc)
        ha_image_done(image);
    else
        rc = ha_agent_new(&h->fleet->env, &o, image, found, count, &h->agent, e);
    free(found);
    return rc;
}

int sim_host_new(struct sim_fleet *f, const char *region, const char *name,
                 const Harpoon__Internal__V1__AgentHello *self, const struct ha_link_options *link,
                 struct sim_host **ret, struct hp_error *e)
{
    struct ha_image image = {0};
    struct sim_host *h = calloc(1, sizeof *h);
    if (!h || !(h->machine = sim_ground_machine(f->ground, name))) {
        free(h);
        return hp_fail(e, HP_ENOMEM, "simulated host");
    }
    h->fleet = f;
    h->runtime.submit = submit;
    snprintf(h->name, sizeof h->name, "%s", name);
    int rc = open_journal(h, f->journals, &image, e);
    if (!rc)
        rc = start_agent(h, region, self, link, &image, e);
    if (rc) {
        for (struct sim_container *c = h->machine->containers; c; c = c->next)
            if (c->owner)
                disown(c);
        if (h->sqlite)
            ha_sqlite_close(h->sqlite);
        free(h);
        return hp_wrap(e, "host %s", name);
    }
    h->tls = link->tls ? hp_tls_context_ref(link->tls) : NULL;
    *ret = h;
    return 0;
}

void sim_host_close(struct sim_host *h)
{
    ha_agent_close(h->agent, "the simulation ends", 0, on_closed);
}

int sim_fleet_init(struct sim_fleet *f, uv_loop_t *loop, uint64_t seed, const char *log, struct hp_error *e)
{
    int rc = sim_ground_open(log, &f->ground, e);
    if (rc)
        return rc;
    rc = ha_env_init(&f->env, loop, seed, e);
    if (rc) {
        sim_ground_close(f->ground);
        return rc;
    }
    uv_idle_init(loop, &f->idle);
    f->idle.data = f;
    return 0;
}

void sim_fleet_close(struct sim_fleet *f)
{
    uv_close((uv_handle_t *)&f->idle, NULL);
    ha_env_close(&f->env);
    sim_journal_close(f->journal);
    sim_ground_close(f->ground);
}
