/* Jobs wait in one queue; each thread takes the oldest, runs it on its own connection, and posts it back to the loop.
 *
 * A thread without a connection makes one when it has a job: after a failure not before the back-off is over, so a job that meets a database that is
 * down fails at the pace of the attempts, and its owner may simply submit it again. */
#include "io/db.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/db_conn.h"

enum { THREADS_MAX = 64, QUEUE_MAX = 10000, BACKOFF_INITIAL_MS = 50, BACKOFF_MAX_MS = 2000 };

struct worker {
    struct hp_db *db;
    uv_thread_t thread;
    struct hp_mail exited;  /* the last that it posts */
    struct hp_db_conn conn; /* the thread's own */
    struct hp_backoff backoff;
    struct hp_rng rng;
    uint64_t retry_at_ms; /* no attempt to connect before */
    bool failing;         /* the last attempt failed, and that was logged */
};

struct hp_db {
    struct hp_db_target target;
    struct hp_mailbox *box;
    uv_mutex_t mutex;       /* guards the following */
    uv_cond_t work_cond;    /* the queue got a job, or closing */
    uv_cond_t close_cond;   /* closing: for threads in a back-off */
    struct hp_db_job *head; /* oldest */
    struct hp_db_job **tail;
    int queued;
    bool closing;
    int queue_max;  /* the rest belongs to the loop thread */
    bool abandoned; /* hp_db_new failed */
    int running;    /* threads */
    void (*closed_cb)(void *user);
    void *closed_user;
    int thread_count;
    struct worker workers[];
};

/* ---- On the threads ---- */

static void deliver_done(struct hp_mail *mail)
{
    struct hp_db_job *job = (struct hp_db_job *)((char *)mail - offsetof(struct hp_db_job, mail_));
    struct hp_error e = job->error_; /* done_cb may free the job */
    job->done_cb(job, job->result_, &e);
}

static void finish(struct hp_db *db, struct hp_db_job *job, int result)
{
    job->result_ = result;
    job->mail_.deliver = deliver_done;
    hp_mailbox_post(db->box, &job->mail_);
}

/* The next job; NULL when the thread shall end. */
static struct hp_db_job *take_job(struct hp_db *db)
{
    uv_mutex_lock(&db->mutex);
    while (!db->head && !db->closing)
        uv_cond_wait(&db->work_cond, &db->mutex);
    struct hp_db_job *job = db->closing ? NULL : db->head;
    if (job) {
        db->head = job->next_;
        if (!db->head)
            db->tail = &db->head;
        db->queued--;
    }
    uv_mutex_unlock(&db->mutex);
    return job;
}

/* Waits out the back-off; false when closing. */
static bool wait_for_retry(struct worker *w)
{
    struct hp_db *db = w->db;
    uv_mutex_lock(&db->mutex);
    uint64_t now;
    while (!db->closing && (now = hp_now_ms()) < w->retry_at_ms)
        uv_cond_timedwait(&db->close_cond, &db->mutex, (w->retry_at_ms - now) * 1000000u);
    bool go_on = !db->closing;
    uv_mutex_unlock(&db->mutex);
    return go_on;
}

static int ensure_connected(struct worker *w, struct hp_error *e)
{
    if (w->conn.mysql && hp_db_stale(&w->conn))
        hp_db_disconnect(&w->conn);
    if (w->conn.mysql)
        return 0;
    if (!wait_for_retry(w))
        return hp_fail(e, HP_ECANCELED, "the database pool is being closed");
    int rc = hp_db_connect(&w->conn, &w->db->target, e);
    if (!rc) {
        if (w->failing)
            hp_info("database connected again");
        w->failing = false;
        w->retry_at_ms = 0;
        hp_backoff_reset(&w->backoff);
        return 0;
    }
    uint64_t delay_ms = hp_backoff_next_ms(&w->backoff, &w->rng);
    w->retry_at_ms = hp_now_ms() + delay_ms;
    if (!w->failing)
        hp_warn("database connection failed, trying again with each job", HP_S("error", e->message),
                HP_I("retry_ms", delay_ms));
    w->failing = true;
    return HP_EUNAVAILABLE;
}

static void run_job(struct worker *w, struct hp_db_job *job)
{
    job->commit_unknown = false;
    job->error_ = (struct hp_error){0};
    int rc = ensure_connected(w, &job->error_);
    if (!rc) {
        rc = job->run(job, &w->conn, &job->error_);
        rc = hp_db_settle(&w->conn, rc, &job->error_);
        if (!rc)
            job->error_ = (struct hp_error){0};
    }
    finish(w->db, job, rc);
}

static void deliver_exited(struct hp_mail *mail);

static void thread_main(void *arg)
{
    struct worker *w = arg;
    struct hp_db_job *job;
    mysql_thread_init();
    while ((job = take_job(w->db)))
        run_job(w, job);
    hp_db_disconnect(&w->conn);
    mysql_thread_end();
    w->exited.deliver = deliver_exited;
    hp_mailbox_post(w->db->box, &w->exited);
}

/* ---- On the loop thread ---- */

static void db_free(struct hp_db *db)
{
    hp_db_target_done(&db->target);
    uv_cond_destroy(&db->work_cond);
    uv_cond_destroy(&db->close_cond);
    uv_mutex_destroy(&db->mutex);
    free(db);
}

static void deliver_exited(struct hp_mail *mail)
{
    struct worker *w = (struct worker *)((char *)mail - offsetof(struct worker, exited));
    struct hp_db *db = w->db;
    if (db->abandoned)
        return;
    uv_thread_join(&w->thread);
    if (--db->running)
        return;
    void (*closed_cb)(void *) = db->closed_cb;
    void *user = db->closed_user;
    hp_mailbox_close(db->box);
    db_free(db);
    if (closed_cb)
        closed_cb(user);
}

int hp_db_submit(struct hp_db *db, struct hp_db_job *job)
{
    assert(job->run && job->done_cb);
    job->next_ = NULL;
    uv_mutex_lock(&db->mutex);
    int rc = db->closing ? HP_ECANCELED : db->queued >= db->queue_max ? HP_ELIMIT : 0;
    if (!rc) {
        *db->tail = job;
        db->tail = &job->next_;
        db->queued++;
        uv_cond_signal(&db->work_cond);
    }
    uv_mutex_unlock(&db->mutex);
    return rc;
}

void hp_db_close(struct hp_db *db, void (*closed_cb)(void *user), void *user)
{
    db->closed_cb = closed_cb;
    db->closed_user = user;
    uv_mutex_lock(&db->mutex);
    assert(!db->closing);
    db->closing = true;
    /* Posted under the mutex, so that they are told before the last thread's end; through the mailbox, so not from inside. */
    for (struct hp_db_job *job = db->head, *next; job; job = next) {
        next = job->next_;
        job->commit_unknown = false;
        hp_fail(&job->error_, HP_ECANCELED, "the database pool is being closed");
        finish(db, job, HP_ECANCELED);
    }
    db->head = NULL;
    db->tail = &db->head;
    db->queued = 0;
    uv_cond_broadcast(&db->work_cond);
    uv_cond_broadcast(&db->close_cond);
    uv_mutex_unlock(&db->mutex);
}

static void init_library(void)
{
    mysql_library_init(0, NULL, NULL);
}

static int start_threads(struct hp_db *db)
{
    for (; db->running < db->thread_count; db->running++) {
        struct worker *w = &db->workers[db->running];
        uint64_t seed = hp_now_ns();
        (void)!getrandom(&seed, sizeof seed, GRND_NONBLOCK);
        w->db = db;
        hp_rng_init(&w->rng, seed);
        hp_backoff_init(&w->backoff, BACKOFF_INITIAL_MS, BACKOFF_MAX_MS);
        if (uv_thread_create(&w->thread, thread_main, w))
            return HP_ELIMIT;
    }
    return 0;
}

/* Ends the threads that did start; they have had no job. */
static void abandon(struct hp_db *db)
{
    uv_mutex_lock(&db->mutex);
    db->closing = db->abandoned = true;
    uv_cond_broadcast(&db->work_cond);
    uv_mutex_unlock(&db->mutex);
    for (int i = 0; i < db->running; i++)
        uv_thread_join(&db->workers[i].thread);
    hp_mailbox_close(db->box);
    db_free(db);
}

int hp_db_new(uv_loop_t *loop, const struct hp_db_options *o, struct hp_db **ret, struct hp_error *e)
{
    static uv_once_t once = UV_ONCE_INIT;
    if (o->threads < 1 || o->threads > THREADS_MAX)
        return hp_fail(e, HP_EINVAL, "database connections: %d; must be 1 to %d", o->threads, THREADS_MAX);
    uv_once(&once, init_library);
    struct hp_db *db = calloc(1, sizeof *db + (size_t)o->threads * sizeof db->workers[0]);
    if (!db)
        return hp_fail(e, HP_ENOMEM, "database pool: out of memory");
    db->thread_count = o->threads;
    db->queue_max = o->queue_max ? o->queue_max : QUEUE_MAX;
    db->tail = &db->head;
    if (uv_mutex_init(&db->mutex) || uv_cond_init(&db->work_cond) || uv_cond_init(&db->close_cond))
        abort(); /* only without memory, and before anything runs */
    int rc = hp_db_target_init(&db->target, o, e);
    if (!rc)
        rc = hp_mailbox_new(loop, &db->box, e);
    if (rc) {
        db_free(db);
        return rc;
    }
    if (start_threads(db)) {
        abandon(db);
        return hp_fail(e, HP_ELIMIT, "database pool: cannot start %d threads", o->threads);
    }
    *ret = db;
    return 0;
}
