#include "rt_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#define THREADS_MAX 64

struct ha_pool {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct ha_work *head, **tail;
    size_t queued, queue_max;
    unsigned threads, threads_max; /* started, and how many there may be */
    unsigned busy;                 /* of the started ones: with work */
    bool ending;
    pthread_t thread[THREADS_MAX];
};

static void *worker(void *p)
{
    struct ha_pool *pool = p;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->head && !pool->ending)
            pthread_cond_wait(&pool->changed, &pool->lock);
        struct ha_work *work = pool->head;
        if (!work)
            break;
        pool->head = work->next;
        if (!pool->head)
            pool->tail = &pool->head;
        pool->queued--;
        pool->busy++;
        pthread_mutex_unlock(&pool->lock);
        work->run(work);
        pthread_mutex_lock(&pool->lock);
        pool->busy--;
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Signals are for the loop thread; a closed pipe is an error code here. */
static int start_thread(struct ha_pool *pool)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&pool->thread[pool->threads], NULL, worker, pool);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err == 0)
        pool->threads++;
    return err;
}

int ha_pool_new(unsigned threads, size_t queue_max, struct ha_pool **ret, struct hp_error *e)
{
    if (threads < 1 || threads > THREADS_MAX)
        return hp_fail(e, HP_EINVAL, "%u worker threads: 1 to %d", threads, THREADS_MAX);
    struct ha_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return hp_fail(e, HP_ENOMEM, "worker threads");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pool->tail = &pool->head;
    pool->queue_max = queue_max;
    pool->threads_max = threads;
    int err = start_thread(pool);
    if (err) {
        ha_pool_free(pool);
        return hp_fail_errno(e, HP_ENOMEM, err, "start worker threads");
    }
    *ret = pool;
    return 0;
}

int ha_pool_submit(struct ha_pool *pool, struct ha_work *work)
{
    work->next = NULL;
    pthread_mutex_lock(&pool->lock);
    bool full = pool->queued >= pool->queue_max;
    if (!full) {
        *pool->tail = work;
        pool->tail = &work->next;
        pool->queued++;
        /* That there is no memory for one more is no failure: the work waits for those that there are. */
        if (pool->queued > pool->threads - pool->busy && pool->threads < pool->threads_max && !pool->ending)
            (void)start_thread(pool);
        pthread_cond_signal(&pool->changed);
    }
    pthread_mutex_unlock(&pool->lock);
    return full ? HP_ELIMIT : 0;
}

void ha_pool_free(struct ha_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->ending = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
