/* runtime.c — what is really on a host. Every effect is held against what must happen at most once. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_core.h"
#include "core/plan.h"
#include "sim/job.h"
#include "wire/codec.h"

enum { HANG_S = 100 }; /* the real runtime gives a job up after 10 minutes */

static const char *const names[] = {"create", "start", "stop", "restart", "remove", "resize", "inspect", "probe"};

static struct sim_container *find(struct sim_world *w, int host, const char *uid)
{
    struct sim_runtime *rt = sim_host_runtime(w, host);
    for (struct sim_container *c = rt->containers; c; c = c->next)
        if (!strcmp(c->uid, uid))
            return c;
    struct sim_container *c = sim_alloc(w, sizeof *c);
    snprintf(c->uid, sizeof c->uid, "%s", uid);
    c->next = rt->containers;
    rt->containers = c;
    return c;
}

void sim_runtime_state(const struct sim_container *c, struct ha_rt_state *ret)
{
    *ret = (struct ha_rt_state){.exists = c->exists,
                                .complete = c->complete,
                                .generation = c->complete ? c->generation : 0,
                                .spec_digest = c->complete ? c->spec_digest : 0,
                                .running = c->running,
                                .exit_code = c->exit_code,
                                .healthy = c->running,
                                .start_wall_ns = c->start_ns,
                                .finish_wall_ns = c->finish_ns};
    if (c->running) {
        ret->pid = c->pid;
        ret->pid_start_ticks = c->ticks;
    }
}

/* On a host that was declared lost, what has no place there any more. */
static bool left_over(const struct sim_world *w, int host, const struct sim_container *c)
{
    return sim_host_given_up(w, host) && (w->record->restored || !sim_record_places(w, c->name, c->uid, host));
}

/* The lowest that is free: the process that takes another one's place has its pid, too, and another start. */
static int64_t free_pid(const struct sim_runtime *rt)
{
    for (int64_t pid = 1001;; pid++) {
        const struct sim_container *c = rt->containers;
        while (c && !(c->exists && c->running && c->pid == pid))
            c = c->next;
        if (!c)
            return pid;
    }
}

static void run(struct sim_world *w, int host, struct sim_container *c)
{
    c->pid = free_pid(sim_host_runtime(w, host));
    c->ticks = ++sim_host_runtime(w, host)->starts * 10;
    c->running = c->ran = true;
    c->start_ns = sim_time(w).wall_ns;
    c->finish_ns = 0;
    /* I5: nobody else runs the same resource. */
    for (int i = 0; i < w->size.hosts; i++)
        for (struct sim_container *x = sim_host_runtime(w, i)->containers; x; x = x->next)
            sim_check(w,
                      x == c || !x->running || strcmp(x->name, c->name) != 0 || left_over(w, i, x) ||
                          left_over(w, host, c),
                      "I5", "%s runs on h%d (%s) and h%d (%s)", c->name, host, c->uid, i, x->uid);
}

static void stop(struct sim_world *w, struct sim_container *c, int32_t code)
{
    if (c->running)
        c->finish_ns = sim_time(w).wall_ns;
    c->running = false;
    c->exit_code = code;
}

/* I4, and a fresh count for a new generation. */
static void note_generation(struct sim_world *w, int host, struct sim_container *c, const struct ha_job *job)
{
    sim_check(w, job->generation >= c->applied, "I4", "%s of %s on h%d for generation %" PRId64 " after %" PRId64,
              names[job->kind], c->uid, host, job->generation, c->applied);
    bool late =
        w->record->restored && !c->entombed; /* the record that was lost had it removed, when nobody knew any more */
    sim_check(w, !c->removed || job->kind == HA_JOB_REMOVE || (late && job->generation > c->removed), "I4",
              "%s of %s on h%d for generation %" PRId64 " after its removal by %" PRId64, names[job->kind], c->uid,
              host, job->generation, c->removed);
    if (job->generation > c->applied) {
        c->applied = job->generation;
        c->creates = c->starts = c->stops = c->restarts = c->resizes = c->exits = 0;
    }
}

static void once(struct sim_world *w, int host, const struct sim_container *c, const struct ha_job *job, int count,
                 int most)
{
    sim_check(w, count <= most, "I3", "%s of %s on h%d for generation %" PRId64 " took effect %d times",
              names[job->kind], c->uid, host, job->generation, count);
}

static void create(struct sim_world *w, struct sim_container *c, const struct sim_job *j, bool whole)
{
    sim_check(w, !c->exists, "I3", "create of %s on h%d, and it is there", c->uid, j->host);
    snprintf(c->name, sizeof c->name, "%s", j->container);
    c->exists = true;
    c->complete = whole;
    c->generation = j->job.generation;
    c->spec_digest = j->job.spec_digest;
    c->start_ns = c->finish_ns = 0;
    c->exit_code = 0;
    c->memory_bytes = j->spec->resources->memory_bytes;
    c->cpu_millis = j->spec->resources->cpu_millis;
    if (!whole)
        return;
    once(w, j->host, c, &j->job, ++c->creates, 1);
    if (j->job.start)
        run(w, j->host, c);
    sim_preempt_made(w, j->host);
}

static void limits(struct sim_container *c, const struct sim_job *j)
{
    c->memory_bytes = j->spec->resources->memory_bytes;
    c->cpu_millis = j->spec->resources->cpu_millis;
}

/* `whole` false: it was cut off in the middle. */
static void execute(struct sim_world *w, struct sim_job *j, bool whole)
{
    struct sim_container *c = find(w, j->host, j->uid);
    j->executed = true;
    if (j->job.kind == HA_JOB_INSPECT || j->job.kind == HA_JOB_PROBE)
        return;
    if (j->job.kind != HA_JOB_REMOVE || c->exists)
        note_generation(w, j->host, c, &j->job);
    bool ends = j->job.kind == HA_JOB_STOP || j->job.kind == HA_JOB_RESTART || j->job.kind == HA_JOB_REMOVE;
    sim_check(w, !(ends && c->running && c->spared), "I8",
              "%s of %s on h%d ends its process, and nobody has asked for that since the record was restored",
              names[j->job.kind], c->uid, j->host);
    sim_trace(w, "h%d: %s %.6s gen %" PRId64 "%s", j->host, names[j->job.kind], j->uid, j->job.generation,
              whole ? "" : " cut off");
    switch (j->job.kind) {
    case HA_JOB_CREATE:
        create(w, c, j, whole);
        break;
    case HA_JOB_START:
        sim_check(w, c->exists && !c->running, "I3", "start of %s on h%d, which is %s", c->uid, j->host,
                  c->exists ? "running" : "not there");
        sim_check(w, c->complete, "I3", "start of %s on h%d, which was not made whole", c->uid, j->host);
        once(w, j->host, c, &j->job, ++c->starts, 1 + c->exits);
        limits(c, j);
        run(w, j->host, c);
        break;
    case HA_JOB_STOP:
        if (c->running)
            once(w, j->host, c, &j->job, ++c->stops, 1 + c->exits);
        stop(w, c, 143);
        break;
    case HA_JOB_RESTART:
        stop(w, c, 143);
        c->exits += !whole;
        if (whole) {
            once(w, j->host, c, &j->job, ++c->restarts, 1);
            c->restarts_ever += !j->failing; /* a failed one may be tried again with the next change */
            sim_check(w, c->restarts_ever <= sim_record_restarts(w, c->uid), "I8",
                      "%s on h%d was restarted %d times; it was asked for %d times", c->uid, j->host, c->restarts_ever,
                      sim_record_restarts(w, c->uid));
            limits(c, j);
            run(w, j->host, c);
        }
        break;
    case HA_JOB_REMOVE:
        stop(w, c, 137);
        if (c->exists && !j->job.replacing)
            c->removed = j->job.generation;
        c->exists = c->complete = c->ran = false;
        c->start_ns = c->finish_ns = 0;
        break;
    case HA_JOB_RESIZE:
        if (c->memory_bytes != j->spec->resources->memory_bytes || c->cpu_millis != j->spec->resources->cpu_millis)
            once(w, j->host, c, &j->job, ++c->resizes, 1);
        limits(c, j);
        break;
    default:
        break;
    }
}

static void take_off(struct sim_world *w, struct sim_job *j)
{
    struct sim_job **at = &sim_host_runtime(w, j->host)->jobs;
    while (*at && *at != j)
        at = &(*at)->next;
    if (*at)
        *at = j->next;
}

static void forget(struct sim_world *w, struct sim_job *j)
{
    take_off(w, j);
    if (j->spec)
        hp_unpacked_free(&j->spec->base);
    j->spec = NULL;
    j->job.spec = NULL;
    j->dead = true;
}

static void finished(struct sim_world *w, void *arg)
{
    struct sim_job *j = arg;
    if (j->dead)
        return;
    take_off(w, j);
    sim_host_job_done(w, j->host, j);
    forget(w, j);
}

static void executed(struct sim_world *w, void *arg)
{
    struct sim_job *j = arg;
    struct sim_runtime *rt = sim_host_runtime(w, j->host);
    if (j->dead)
        return;
    bool changes = j->job.kind != HA_JOB_INSPECT && j->job.kind != HA_JOB_PROBE;
    bool fails = j->late || (changes && rt->fail_next > 0 && !w->healed);
    rt->fail_next -= fails && !j->late;
    j->failing = fails;
    if (!fails || sim_chance(w, 30)) /* some fail after they took effect */
        execute(w, j, !fails || sim_chance(w, 50));
    if (fails) {
        j->job.status = j->late ? hp_fail(&j->job.error, HP_ETIMEDOUT, "not done in time")
                                : hp_fail(&j->job.error, HP_EIO, "by chance");
        sim_trace(w, "h%d: %s %.6s gen %" PRId64 " fails", j->host, names[j->job.kind], j->uid, j->job.generation);
    }
    sim_runtime_state(find(w, j->host, j->uid), &j->job.result);
    sim_after(w, sim_between(w, 20, 2000), sim_host_process(w, j->host), finished, j);
}

/* The highest generation that the journal durably has applied or intends. */
static int64_t intended(struct sim_world *w, int host, const char *uid)
{
    const struct ha_image *d = sim_host_journal(w, host);
    for (size_t i = 0; i < d->record_count; i++) {
        const struct ha_record *r = &d->records[i];
        if (!strcmp(r->uid, uid))
            return r->intent.generation > r->generation ? r->intent.generation : r->generation;
    }
    return -1;
}

void sim_runtime_submit(struct sim_world *w, int host, struct sim_process *p, const struct ha_effect *f)
{
    struct sim_runtime *rt = sim_host_runtime(w, host);
    struct sim_job *j = sim_alloc(w, sizeof *j);
    for (const struct sim_job *x = rt->jobs; x; x = x->next)
        sim_check(w, strcmp(x->uid, f->job.uid) != 0, "I3", "two jobs of %s at a time on h%d", x->uid, host);
    if (f->job.kind != HA_JOB_INSPECT && f->job.kind != HA_JOB_PROBE)
        sim_check(w, intended(w, host, f->job.uid) >= f->job.generation, "I10",
                  "%s of %s on h%d for generation %" PRId64 ", which its journal does not durably intend",
                  names[f->job.kind], f->job.uid, host, f->job.generation);
    snprintf(j->uid, sizeof j->uid, "%s", f->job.uid);
    snprintf(j->container, sizeof j->container, "%s", f->job.container);
    if (f->job.spec.len)
        j->spec = sim_unpack(&harpoon__v1__container_spec__descriptor, f->job.spec.data, f->job.spec.len);
    j->host = host;
    j->job = (struct ha_job){.kind = f->job.kind,
                             .uid = j->uid,
                             .container = j->container,
                             .generation = f->job.generation,
                             .spec = j->spec,
                             .start = f->job.start,
                             .replacing = f->job.replacing,
                             .deadline_ms = f->job.deadline_ms};
    if (f->job.kind == HA_JOB_CREATE && ha_spec_digest(j->spec, &j->job.spec_digest))
        abort();
    j->next = rt->jobs;
    rt->jobs = j;
    uint64_t takes = f->job.kind == HA_JOB_INSPECT ? sim_between(w, 100, 2000) : sim_between(w, SIM_MS, 30 * SIM_MS);
    if (w->now < rt->slow_until)
        takes *= 100;
    if (rt->hang_next > 0 && f->job.kind != HA_JOB_INSPECT) {
        rt->hang_next--;
        j->late = true;
        takes = f->job.deadline_ms ? f->job.deadline_ms * SIM_MS : HANG_S * SIM_S;
        sim_trace(w, "h%d: %s %.6s gen %" PRId64 " hangs", host, names[f->job.kind], j->uid, f->job.generation);
    }
    sim_after(w, takes, p, executed, j);
}

void sim_runtime_agent_died(struct sim_world *w, int host)
{
    struct sim_runtime *rt = sim_host_runtime(w, host);
    while (rt->jobs) {
        struct sim_job *j = rt->jobs;
        j->failing = true; /* nobody hears of it */
        if (!j->executed && sim_chance(w, 60))
            execute(w, j, sim_chance(w, 60));
        forget(w, j);
    }
}

void sim_runtime_power_off(struct sim_world *w, int host)
{
    struct sim_runtime *rt = sim_host_runtime(w, host);
    for (struct sim_container *c = rt->containers; c; c = c->next) {
        if (!c->running)
            continue;
        c->exits++;
        c->running = false;
        c->exit_code = -1; /* nobody saw it */
        c->finish_ns = 0;
    }
    rt->starts = 0; /* the same numbers are given out again */
}

void sim_runtime_wipe(struct sim_world *w, int host)
{
    for (struct sim_container *c = sim_host_runtime(w, host)->containers, *next; c; c = next) {
        int restarts = c->restarts_ever;
        char uid[sizeof c->uid];
        next = c->next;
        memcpy(uid, c->uid, sizeof uid);
        *c = (struct sim_container){.next = next, .restarts_ever = restarts};
        memcpy(c->uid, uid, sizeof uid);
    }
}

/* One that runs; NULL: none does. */
static struct sim_container *any_running(struct sim_world *w, int host)
{
    struct sim_runtime *rt = sim_host_runtime(w, host);
    size_t n = 0;
    for (struct sim_container *c = rt->containers; c; c = c->next)
        n += c->running;
    n = n ? sim_below(w, n) + 1 : 0;
    for (struct sim_container *c = rt->containers; c && n; c = c->next)
        if (c->running && --n == 0)
            return c;
    return NULL;
}

/* A process that has ended, on its way to the agent. */
struct ending {
    int host;
    const struct sim_container *container;
    struct ha_rt_state state;
};

static void ended(struct sim_world *w, void *arg)
{
    const struct ending *x = arg;
    sim_host_exited(w, x->host, x->container, &x->state);
}

bool sim_runtime_exit(struct sim_world *w, int host)
{
    struct sim_container *c = any_running(w, host);
    if (!c)
        return false;
    struct ending *x = sim_alloc(w, sizeof *x);
    *x = (struct ending){.host = host, .container = c};
    int64_t pid = c->pid, ticks = c->ticks;
    c->exits++;
    stop(w, c, (int32_t)sim_below(w, 3));
    sim_runtime_state(c, &x->state);
    x->state.pid = pid;
    x->state.pid_start_ticks = ticks;
    sim_trace(w, "h%d: %.6s exits", host, c->uid);
    /* The agent hears of it when somebody has collected the process, which stands behind other tasks: perhaps only when another one runs in its place. */
    static const uint64_t late[] = {200, 60 * SIM_MS, 3 * SIM_S};
    sim_after(w, sim_between(w, 0, late[sim_below(w, 3)]), sim_host_process(w, host), ended, x);
    return true;
}

bool sim_runtime_by_hand(struct sim_world *w, int host)
{
    struct sim_container *c = any_running(w, host);
    if (!c)
        return false;
    sim_trace(w, "h%d: somebody restarts %.6s by hand", host, c->uid);
    c->exits++;
    stop(w, c, 143);
    run(w, host, c);
    return true;
}
