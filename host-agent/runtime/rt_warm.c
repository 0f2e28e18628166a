#include "rt_warm.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rt_fs.h"

#define AGAIN_MS 4 /* less than a grace period */

struct ha_warm {
    const struct ha_cgroups *cg;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned launches;
    bool hinted, ending;
    pthread_t thread;
};

int ha_warm_path(const struct ha_cgroups *cg, const char *text, char *buf, size_t size, struct hp_error *e)
{
    bool v2 = cg->mode == HA_CG_V2;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        /* "3:pids:/path", "0::/path" */
        const char *controller = line + strcspn(line, ":\n");
        if (*controller != ':' || strncmp(++controller, v2 ? ":" : "pids:", v2 ? 1 : 5) != 0)
            continue;
        const char *path = controller + (v2 ? 1 : 5);
        size_t n = strcspn(path, "\n");
        if (n == 0 || path[0] != '/' || (n >= 3 && strncmp(path, "/..", 3) == 0))
            break;
        return ha_fs_path(buf, size, e, "%s%.*s/cgroup.procs", cg->mount[HA_CG_PIDS], n == 1 ? 0 : (int)n, path);
    }
    return hp_fail(e, HP_ENOTFOUND, "the agent's own cgroup");
}

/* Only a matter of speed: what fails here is not worth a word. */
static void touch(const struct ha_warm *w)
{
    char path[1024];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    if (ha_fs_read(AT_FDCWD, "/proc/self/cgroup", 65536, &text, &size, &ignored) == 0 &&
        ha_warm_path(w->cg, text, path, sizeof path, &ignored) == 0)
        (void)ha_fs_poke(path, "0");
}

static void nap(struct ha_warm *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += AGAIN_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&w->changed, &w->lock, &until);
}

static void *keep_warm(void *p)
{
    struct ha_warm *w = p;
    pthread_mutex_lock(&w->lock);
    while (!w->ending) {
        if (!w->hinted && !w->launches) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        w->hinted = false;
        pthread_mutex_unlock(&w->lock);
        touch(w);
        pthread_mutex_lock(&w->lock);
        if (w->launches && !w->ending)
            nap(w);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int ha_warm_new(const struct ha_cgroups *cg, struct ha_warm **ret, struct hp_error *e)
{
    struct ha_warm *w = calloc(1, sizeof *w);
    if (!w)
        return hp_fail(e, HP_ENOMEM, "cgroup warmer");
    w->cg = cg;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigset_t all, old; /* signals are for the loop thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&w->thread, NULL, keep_warm, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!err) {
        *ret = w;
        return 0;
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return hp_fail_errno(e, HP_ENOMEM, err, "start a thread");
}

void ha_warm_free(struct ha_warm *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void ha_warm_hint(struct ha_warm *w)
{
    pthread_mutex_lock(&w->lock);
    w->hinted = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void ha_warm_begin(struct ha_warm *w)
{
    pthread_mutex_lock(&w->lock);
    w->launches++;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void ha_warm_end(struct ha_warm *w)
{
    pthread_mutex_lock(&w->lock);
    w->launches--;
    pthread_mutex_unlock(&w->lock);
}
