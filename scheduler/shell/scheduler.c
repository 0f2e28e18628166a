/* Each region has a loop of its own on a thread of its own; regions share the configuration, which nobody changes, and nothing else. The daemon's loop only starts and ends them.
 *
 *   start: thread → sc_lead_new on it → started       stop: mail to each thread → sc_lead_close → closed → its loop is empty, the thread ends → joined */
#include "shell/scheduler.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "io/daemon.h"
#include "io/loop.h"
#include "shell/lead.h"

/* One region's thread. */
struct sc_part {
    struct sc_scheduler *scheduler;
    const struct sc_config *config;
    const char *region;
    uv_thread_t thread;
    uv_loop_t loop;  /* the thread's */
    uv_async_t wake; /* to the thread: look at `stop`, say that you live; holds its loop */
    atomic_bool stop, alive;
    struct sc_lead *lead;
    uv_sem_t started;
    int start_status; /* of sc_lead_new; read after `started` */
    struct hp_error start_error;
    struct hp_mail ready, closed; /* to the daemon's loop */
};

struct sc_scheduler {
    struct hp_daemon *daemon;
    struct hp_mailbox *mailbox; /* of the daemon's loop */
    struct sc_part parts[SC_REGIONS_MAX];
    int count, ready, open;
    bool stopping;
};

/* ---- On the region's thread ---- */

static void wake_cb(uv_async_t *a)
{
    struct sc_part *p = a->data;
    atomic_store(&p->alive, true);
    if (atomic_load(&p->stop))
        sc_lead_close(p->lead);
}

static void run(void *arg)
{
    struct sc_part *p = arg;
    char name[16]; /* as `top -H` shows it */
    snprintf(name, sizeof name, "%s", p->region);
    pthread_setname_np(pthread_self(), name);
    p->start_status = sc_lead_new(p, &p->loop, p->config, p->region, &p->lead, &p->start_error);
    bool failed = p->start_status != 0;
    uv_sem_post(&p->started);
    if (failed)
        return; /* the process ends */
    uv_run(&p->loop, UV_RUN_DEFAULT);
    hp_mailbox_post(p->scheduler->mailbox, &p->closed);
}

void sc_scheduler_lead_ready(struct sc_part *p)
{
    hp_mailbox_post(p->scheduler->mailbox, &p->ready);
}

void sc_scheduler_lead_closed(struct sc_part *p)
{
    uv_close((uv_handle_t *)&p->wake, NULL);
}

/* ---- On the daemon's loop ---- */

static void part_ready(struct hp_mail *mail)
{
    struct sc_part *p = (struct sc_part *)((char *)mail - offsetof(struct sc_part, ready));
    struct sc_scheduler *s = p->scheduler;
    if (++s->ready == s->count && !s->stopping)
        hp_daemon_ready(s->daemon);
}

static void part_closed(struct hp_mail *mail)
{
    struct sc_part *p = (struct sc_part *)((char *)mail - offsetof(struct sc_part, closed));
    struct sc_scheduler *s = p->scheduler;
    uv_thread_join(&p->thread);
    (void)uv_loop_close(&p->loop);
    uv_sem_destroy(&p->started);
    if (--s->open > 0)
        return;
    struct hp_daemon *d = s->daemon;
    hp_mailbox_close(s->mailbox);
    free(s);
    hp_daemon_stopped(d);
}

static int part_start(struct sc_part *p, struct hp_error *e)
{
    p->ready.deliver = part_ready;
    p->closed.deliver = part_closed;
    int rc = uv_loop_init(&p->loop);
    if (rc == 0)
        rc = uv_async_init(&p->loop, &p->wake, wake_cb);
    if (rc == 0)
        rc = uv_sem_init(&p->started, 0);
    p->wake.data = p;
    atomic_init(&p->alive, true);
    sigset_t all, old; /* signals are for the daemon's loop */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (rc == 0)
        rc = uv_thread_create(&p->thread, run, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return hp_fail(e, HP_ENOMEM, "region \"%s\": start a thread: %s", p->region, uv_strerror(rc));
    uv_sem_wait(&p->started);
    return p->start_status ? hp_fail(e, p->start_status, "%s", p->start_error.message) : 0;
}

static void stop_parts(struct sc_scheduler *s)
{
    for (int i = 0; i < s->open; i++) {
        atomic_store(&s->parts[i].stop, true);
        uv_async_send(&s->parts[i].wake);
    }
}

int sc_scheduler_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    const struct sc_config *c = config;
    struct sc_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    s->daemon = d;
    *ret_state = s;
    while (c->regions[s->count])
        s->count++;
    int rc = hp_mailbox_new(hp_daemon_loop(d), &s->mailbox, e);
    for (int i = 0; rc == 0 && i < s->count; i++) {
        s->parts[i] = (struct sc_part){.scheduler = s, .config = c, .region = c->regions[i]};
        rc = part_start(&s->parts[i], e);
        s->open += rc == 0;
    }
    if (rc) { /* the process ends: without threads that still run */
        stop_parts(s);
        for (int i = 0; i < s->open; i++)
            uv_thread_join(&s->parts[i].thread);
    }
    return rc;
}

bool sc_scheduler_alive(struct hp_daemon *d, void *state)
{
    struct sc_scheduler *s = state;
    bool all = true;
    for (int i = 0; i < s->open; i++) {
        all = atomic_exchange(&s->parts[i].alive, false) && all;
        uv_async_send(&s->parts[i].wake);
    }
    return all;
}

void sc_scheduler_stop(struct hp_daemon *d, void *state)
{
    struct sc_scheduler *s = state;
    s->stopping = true;
    stop_parts(s);
}
