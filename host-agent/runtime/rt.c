/* rt.c — the loop's side of the runtime. A job becomes a task; its stages run on the pools, one after the other, and between them the loop looks what comes next: a pull that several
 * tasks share, a wait for a process without a thread, or the end. Each running process is watched by its pidfd; one that ends by itself is collected by a task without a job, and then
 * reported. Failures: a full queue fails the job with HP_ELIMIT; closing cancels waits and pulls and lets running stages come to their end. */
#include "shell/rt.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt_private.h"
#include "rt_proc.h"

/* The eye on one running process. Freed in its close callback. */
struct ha_watch {
    uv_poll_t poll;
    int fd;
    struct ha_rt *rt;
    struct ha_entry *entry; /* NULL once the entry let go of it */
};

static void task_start(struct ha_task *t);
static void task_step(struct hp_mail *mail);

/* --- watches --- */

static void watch_closed(uv_handle_t *h)
{
    struct ha_watch *w = h->data;
    struct ha_rt *rt = w->rt;
    close(w->fd);
    free(w);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

static void watch_drop(struct ha_entry *en)
{
    struct ha_watch *w = en->watch;
    if (!w)
        return;
    en->watch = NULL;
    w->entry = NULL;
    uv_close((uv_handle_t *)&w->poll, watch_closed);
}

static void task_init(struct ha_task *t, struct ha_rt *rt, struct ha_entry *en, struct ha_job *job)
{
    *t = (struct ha_task){.rt = rt, .entry = en, .job = job, .wait_fd = -1};
    t->end_ms = hp_now_ms() + (job && job->deadline_ms ? job->deadline_ms : HA_JOB_DEADLINE_MS);
    strcpy(t->uid, en->uid);
    t->stage = job ? ha_job_stage(job->kind) : ha_stage_collect;
}

static struct ha_task *task_new(struct ha_rt *rt, struct ha_entry *en, struct ha_job *job)
{
    struct ha_task *t = malloc(sizeof *t);
    if (t)
        task_init(t, rt, en, job);
    return t;
}

/* Needs no memory: that a process has ended is never forgotten. */
static void collect_start(struct ha_rt *rt, struct ha_entry *en)
{
    en->exit_due = false;
    if (atomic_load(&rt->closing))
        return;
    task_init(en->collect, rt, en, NULL);
    task_start(en->collect);
}

static void watch_fired(uv_poll_t *poll, int status, int events)
{
    struct ha_watch *w = poll->data;
    struct ha_entry *en = w->entry;
    struct ha_rt *rt = w->rt;
    if (!en)
        return;
    watch_drop(en);
    if (en->task)
        en->exit_due = true;
    else
        collect_start(rt, en);
}

/* Watches the process of `s`. One that ended in between is due at once. */
static void watch_make(struct ha_rt *rt, struct ha_entry *en, const struct ha_rt_state *s)
{
    if (en->watch && en->pid == s->pid && en->ticks == s->pid_start_ticks)
        return;
    watch_drop(en);
    en->pid = s->pid;
    en->ticks = s->pid_start_ticks;
    int fd = ha_proc_open_exact((pid_t)s->pid, s->pid_start_ticks);
    struct ha_watch *w = fd >= 0 ? calloc(1, sizeof *w) : NULL;
    if (!w || uv_poll_init(rt->loop, &w->poll, fd) != 0) {
        if (fd >= 0)
            close(fd);
        free(w);
        en->exit_due = true;
        return;
    }
    *w = (struct ha_watch){.poll = w->poll, .fd = fd, .rt = rt, .entry = en};
    w->poll.data = w;
    rt->under_way++;
    en->watch = w;
    (void)uv_poll_start(&w->poll, UV_READABLE, watch_fired);
}

/* --- entries --- */

void ha_entry_free(struct ha_entry *en)
{
    if (!en)
        return;
    free(en->collect);
    free(en);
}

static struct ha_entry *entry_get(struct ha_rt *rt, const char *uid)
{
    struct ha_entry *en = hp_map_get(&rt->entries, uid);
    if (en)
        return en;
    en = calloc(1, sizeof *en);
    if (!en || !(en->collect = malloc(sizeof *en->collect)) || hp_map_put(&rt->entries, uid, en, NULL)) {
        ha_entry_free(en);
        return NULL;
    }
    strcpy(en->uid, uid);
    return en;
}

static void entry_forget(struct ha_rt *rt, struct ha_entry *en)
{
    if (en->task || en->queued || en->watch || !en->gone)
        return;
    (void)hp_map_remove(&rt->entries, en->uid);
    ha_entry_free(en);
}

/* --- tasks --- */

static void stage_run(struct ha_work *work)
{
    struct ha_task *t = (struct ha_task *)((char *)work - offsetof(struct ha_task, work));
    if (atomic_load(&t->rt->closing)) {
        t->status = hp_fail(&t->error, HP_ECANCELED, "the runtime closes");
        t->step = HA_STEP_DONE;
    } else {
        t->step = t->stage(t);
    }
    hp_mailbox_post(t->rt->mailbox, &t->mail);
}

/* Ends the task by mail, for we may be inside a call of the owner. */
static void task_fail(struct ha_task *t, int status, const char *why)
{
    t->status = hp_fail(&t->error, status, "%s", why);
    t->step = HA_STEP_DONE;
    hp_mailbox_post(t->rt->mailbox, &t->mail);
}

static void task_submit(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    t->work.run = stage_run;
    t->mail.deliver = task_step;
    if (ha_pool_submit(t->job && t->job->kind == HA_JOB_PROBE ? rt->probe : rt->work, &t->work))
        task_fail(t, HP_ELIMIT, "too many jobs are waiting for the container runtime");
}

static void task_start(struct ha_task *t)
{
    static const bool ends_process[] = {
        [HA_JOB_CREATE] = true, [HA_JOB_START] = true,   [HA_JOB_STOP] = true,     [HA_JOB_RESTART] = true,
        [HA_JOB_REMOVE] = true, [HA_JOB_RESIZE] = false, [HA_JOB_INSPECT] = false, [HA_JOB_PROBE] = false};
    assert(!t->entry->task);
    t->entry->task = t;
    t->rt->under_way++;
    if (t->job && (t->job->kind == HA_JOB_CREATE || t->job->kind == HA_JOB_START))
        ha_warm_hint(t->rt->warm);
    if (t->job && ends_process[t->job->kind]) {
        watch_drop(t->entry);
        t->entry->exit_due = false;
    }
    task_submit(t);
}

static void report_exit(struct ha_rt *rt, const struct ha_entry *en, const struct ha_rt_state *found)
{
    char uid[HA_UID_MAX + 1];
    struct ha_rt_state s = *found;
    if (s.running || atomic_load(&rt->closing))
        return;
    memcpy(uid, en->uid, sizeof uid);
    s.pid = en->pid;
    s.pid_start_ticks = en->ticks;
    if (rt->base.exited_cb)
        rt->base.exited_cb(rt->base.user, uid, &s);
}

static void task_done(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    struct ha_entry *en = t->entry;
    struct ha_job *job = t->job;
    struct ha_task *queued = en->queued;
    const struct ha_rt_state result = t->result; /* a collecting task may be started anew below */
    char uid[HA_UID_MAX + 1];
    memcpy(uid, t->uid, sizeof uid);
    en->task = NULL;
    en->queued = NULL;
    if (result.running && !atomic_load(&rt->closing))
        watch_make(rt, en, &result);
    en->gone = t->status != HP_ECANCELED && !result.exists;
    if (queued) {
        task_start(queued);
    } else if (en->exit_due) {
        collect_start(rt, en);
    }
    if (job) {
        job->status = t->status;
        job->error = t->error;
        job->result = result;
        job->done_cb(job);
    } else {
        report_exit(rt, en, &result);
    }
    /* The owner may have submitted the next job: look again. */
    if (job)
        free(t);
    en = hp_map_get(&rt->entries, uid);
    if (en)
        entry_forget(rt, en);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

/* --- waits --- */

static void wait_closed(uv_handle_t *h)
{
    struct ha_task *t = h->data;
    if (--t->handles > 0)
        return;
    close(t->wait_fd);
    t->wait_fd = -1;
    task_submit(t); /* cancelled there when the runtime closes */
}

static void wait_end(struct ha_task *t, bool timed_out)
{
    if (!t->waiting)
        return;
    t->waiting = false;
    t->timed_out = timed_out;
    uv_close((uv_handle_t *)&t->poll, wait_closed);
    uv_close((uv_handle_t *)&t->timer, wait_closed);
}

static void wait_ready(uv_poll_t *poll, int status, int events)
{
    wait_end(poll->data, false);
}

static void wait_timer(uv_timer_t *timer)
{
    wait_end(timer->data, true);
}

static void wait_start(struct ha_task *t)
{
    uv_loop_t *loop = t->rt->loop;
    int rc = uv_poll_init(loop, &t->poll, t->wait_fd);
    if (rc == 0)
        rc = uv_timer_init(loop, &t->timer);
    if (rc) {
        close(t->wait_fd);
        t->wait_fd = -1;
        task_fail(t, HP_EIO, uv_strerror(rc));
        return;
    }
    t->poll.data = t->timer.data = t;
    t->handles = 2;
    t->waiting = true;
    (void)uv_poll_start(&t->poll, UV_READABLE, wait_ready);
    (void)uv_timer_start(&t->timer, wait_timer, (uint64_t)t->wait_ms, 0);
    if (atomic_load(&t->rt->closing))
        wait_end(t, true);
}

/* --- pulls --- */

static void pull_run(struct ha_work *work)
{
    struct ha_pull *p = (struct ha_pull *)((char *)work - offsetof(struct ha_pull, work));
    p->status = ha_images_pull(&p->rt->images, &p->ref, p->timeout_ms, p->digest, &p->error);
    hp_mailbox_post(p->rt->mailbox, &p->mail);
}

static void pull_done(struct hp_mail *mail)
{
    struct ha_pull *p = (struct ha_pull *)((char *)mail - offsetof(struct ha_pull, mail));
    struct ha_rt *rt = p->rt;
    (void)hp_map_remove(&rt->pulls, p->ref.text);
    struct ha_task *next;
    for (struct ha_task *t = p->waiters; t; t = next) {
        next = t->next_waiter;
        t->next_waiter = NULL;
        if (p->status) {
            task_fail(t, p->status, p->error.message);
            continue;
        }
        strcpy(t->image_digest, p->digest);
        task_submit(t);
    }
    free(p);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

static void pull_start(struct ha_task *t)
{
    struct ha_rt *rt = t->rt;
    struct ha_pull *p = hp_map_get(&rt->pulls, t->ref.text);
    if (p) {
        t->next_waiter = p->waiters;
        p->waiters = t;
        return;
    }
    p = calloc(1, sizeof *p);
    if (!p || hp_map_put(&rt->pulls, t->ref.text, p, NULL)) {
        free(p);
        task_fail(t, HP_ENOMEM, "pull image");
        return;
    }
    *p = (struct ha_pull){.rt = rt, .ref = t->ref, .timeout_ms = ha_task_left_ms(t), .waiters = t};
    p->work.run = pull_run;
    p->mail.deliver = pull_done;
    rt->under_way++;
    if (ha_pool_submit(rt->pull, &p->work)) {
        p->status = hp_fail(&p->error, HP_ELIMIT, "too many images are waiting to be pulled");
        hp_mailbox_post(rt->mailbox, &p->mail);
    }
}

static void task_step(struct hp_mail *mail)
{
    struct ha_task *t = (struct ha_task *)((char *)mail - offsetof(struct ha_task, mail));
    switch (t->step) {
    case HA_STEP_DONE:
        if (!t->job && t->status && !atomic_load(&t->rt->closing)) {
            task_submit(t); /* once more */
            return;
        }
        if (t->job && t->job->kind == HA_JOB_REMOVE && t->status == 0 && !t->job->replacing)
            ha_rt_collect_images(t->rt, -1, NULL, NULL);
        task_done(t);
        return;
    case HA_STEP_PULL:
        pull_start(t);
        return;
    case HA_STEP_WAIT:
        wait_start(t);
        return;
    }
}

/* A job that cannot even become a task. */
struct refusal {
    struct hp_mail mail;
    struct ha_rt *rt;
    struct ha_job *job;
};

static void refusal_deliver(struct hp_mail *mail)
{
    struct refusal *r = (struct refusal *)mail;
    struct ha_rt *rt = r->rt;
    r->job->done_cb(r->job);
    free(r);
    rt->under_way--;
    ha_rt_check_closed(rt);
}

static void refuse(struct ha_rt *rt, struct ha_job *job, int status, const char *why)
{
    struct refusal *r = malloc(sizeof *r);
    if (!r)
        abort(); /* the promise to call back cannot be kept */
    *r = (struct refusal){.mail = {.deliver = refusal_deliver}, .rt = rt, .job = job};
    job->status = hp_fail(&job->error, status, "%s", why);
    rt->under_way++;
    hp_mailbox_post(rt->mailbox, &r->mail);
}

void ha_rt_submit(struct ha_runtime *base, struct ha_job *job)
{
    struct ha_rt *rt = (struct ha_rt *)base;
    job->status = 0;
    job->error = (struct hp_error){0};
    job->result = (struct ha_rt_state){0};
    bool needs_spec = job->kind != HA_JOB_INSPECT && job->kind != HA_JOB_REMOVE && job->kind != HA_JOB_STOP;
    if (atomic_load(&rt->closing) || !ha_uid_valid(job->uid) || (needs_spec && !job->spec)) {
        refuse(rt, job, HP_EINVAL,
               "a job needs a uid of letters, digits, '-' and '_', and a spec, before the runtime closes");
        return;
    }
    struct ha_entry *en = entry_get(rt, job->uid);
    struct ha_task *t = en ? task_new(rt, en, job) : NULL;
    if (!t) {
        refuse(rt, job, HP_ENOMEM, "out of memory, or too many containers");
        return;
    }
    if (!en->task) {
        task_start(t);
        return;
    }
    if (en->queued || en->task->job) { /* only our own collecting may be in its way */
        free(t);
        refuse(rt, job, HP_ECONFLICT, "another job of this container is under way");
        return;
    }
    en->queued = t;
}

void ha_rt_cancel(struct ha_rt *rt)
{
    for (struct hp_map_node *n = hp_map_first(&rt->entries); n; n = hp_map_next(n)) {
        struct ha_entry *en = n->value;
        watch_drop(en);
        if (en->task)
            wait_end(en->task, true);
    }
}

void ha_rt_watch(struct ha_rt *rt, const char *uid, const struct ha_rt_state *state)
{
    struct ha_entry *en = entry_get(rt, uid);
    if (!en || en->task)
        return;
    watch_make(rt, en, state);
    if (en->exit_due)
        collect_start(rt, en);
}
