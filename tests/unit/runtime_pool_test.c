/* The pool of threads: it grows with the work that waits, up to its limit, and not before. */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/rt_pool.h"

enum { THREADS = 4, WORKS = 64 };

struct test_work {
    struct ha_work work;
    atomic_bool *go; /* waits for it; NULL: does not wait */
    atomic_int *running, *done;
};

static void run(struct ha_work *work)
{
    struct test_work *t = (struct test_work *)work;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (!sigismember(&mask, SIGTERM))
        abort();
    atomic_fetch_add(t->running, 1);
    while (t->go && !atomic_load(t->go))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    atomic_fetch_add(t->done, 1);
}

static int threads_of_process(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void reach(atomic_int *n, int value)
{
    for (int i = 0; i < 200000 && atomic_load(n) != value; i++)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    assert_int_equal(atomic_load(n), value);
}

static void it_grows_with_the_work(void **state)
{
    static struct test_work works[WORKS];
    struct hp_error e = {0};
    struct ha_pool *pool = NULL;
    atomic_bool go = false;
    atomic_int running = 0, done = 0;
    (void)state;
    assert_int_equal(ha_pool_new(THREADS, WORKS, &pool, &e), 0);
    int others = threads_of_process() - 1; /* a sanitizer may have one of its own, from our first on */
    for (int i = 0; i < THREADS + 3; i++) {
        works[i] = (struct test_work){{.run = run}, &go, &running, &done};
        assert_int_equal(ha_pool_submit(pool, &works[i].work), 0);
        if (i < THREADS) /* each has a thread of its own, though all before it are still at work */
            reach(&running, i + 1);
        assert_int_equal(threads_of_process() - others, i < THREADS ? i + 1 : THREADS);
    }
    atomic_store(&go, true);
    reach(&done, THREADS + 3);
    ha_pool_free(pool);
    for (int i = 0; i < 200000 && threads_of_process() != others;
         i++) /* who has been joined is listed a little longer */
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    assert_int_equal(threads_of_process(), others);
}

static void what_is_queued_is_run_before_the_end(void **state)
{
    static struct test_work works[WORKS + 1];
    struct hp_error e = {0};
    struct ha_pool *pool = NULL;
    atomic_bool go = false;
    atomic_int running = 0, done = 0;
    (void)state;
    assert_int_equal(ha_pool_new(1, WORKS - 1, &pool, &e), 0);
    for (int i = 0; i < WORKS; i++) {
        works[i] = (struct test_work){{.run = run}, &go, &running, &done};
        assert_int_equal(ha_pool_submit(pool, &works[i].work), 0);
        if (i == 0)
            reach(&running, 1); /* taken: it is not in the queue any more */
    }
    works[WORKS] = works[0];
    assert_int_equal(ha_pool_submit(pool, &works[WORKS].work), HP_ELIMIT);
    atomic_store(&go, true);
    ha_pool_free(pool);
    assert_int_equal(done, WORKS);
}

static void limits(void **state)
{
    struct hp_error e = {0};
    struct ha_pool *pool = NULL;
    (void)state;
    assert_int_equal(ha_pool_new(0, 1, &pool, &e), HP_EINVAL);
    assert_int_equal(ha_pool_new(65, 1, &pool, &e), HP_EINVAL);
    assert_null(pool);
    ha_pool_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_grows_with_the_work),
        cmocka_unit_test(what_is_queued_is_run_before_the_end),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
