#include "lib/fail_alloc.h"

#include <errno.h>
#include <execinfo.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
/* What stands behind the process's allocator: a sanitizer's, or glibc's. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define REAL(name) __interceptor_##name
/* It is called before the sanitizer is ready. */
#pragma clang attribute push(__attribute__((no_sanitize("address", "undefined"))), apply_to = function)
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t m);
void *REAL(realloc)(void *p, size_t n);
void REAL(free)(void *p);

enum { LIVE_MAX = 1 << 16, FRAMES_MAX = 24 };

static _Thread_local int depth;  /* of fa_enter; on the scenario's thread only */
static _Thread_local bool ours;  /* this thread runs the scenario */
static bool running;             /* inside fa_each's scenario */
static long asked, fail_at;      /* counted allocations of this run; the one that fails */
static long looked_at;           /* the allocation whose place is wanted, failing or not */
static void *frames[FRAMES_MAX]; /* of the one that failed */
static int frame_count;

/* Counted allocations that are not freed: open addressing; threads may free what the scenario's thread allocated. */
static struct {
    void *p;
    long number; /* of the allocation */
} live[LIVE_MAX];
static size_t live_count;
static atomic_flag live_lock = ATOMIC_FLAG_INIT;

static size_t home(const void *p)
{
    return (size_t)(((uintptr_t)p >> 4) * 0x9e3779b97f4a7c15ULL >> 48) % LIVE_MAX;
}

static void lock(void)
{
    while (atomic_flag_test_and_set_explicit(&live_lock, memory_order_acquire))
        ;
}

static void unlock(void)
{
    atomic_flag_clear_explicit(&live_lock, memory_order_release);
}

static void live_add(void *p)
{
    lock();
    if (live_count < LIVE_MAX / 2) {
        size_t i = home(p);
        while (live[i].p)
            i = (i + 1) % LIVE_MAX;
        live[i].p = p;
        live[i].number = asked;
        live_count++;
    }
    unlock();
}

static bool live_remove(const void *p)
{
    bool found = false;
    lock();
    size_t i = home(p);
    while (live[i].p && live[i].p != p)
        i = (i + 1) % LIVE_MAX;
    if (live[i].p) {
        found = true;
        live_count--;
        /* Whoever stands behind it and would like to stand here moves up. */
        for (size_t k = (i + 1) % LIVE_MAX; live[k].p; k = (k + 1) % LIVE_MAX) {
            size_t at = home(live[k].p);
            if ((k - at) % LIVE_MAX >= (k - i) % LIVE_MAX) {
                live[i] = live[k];
                i = k;
            }
        }
        live[i].p = NULL;
    }
    unlock();
    return found;
}

/* True when this allocation is counted; *ret_fails when it must fail. */
static bool counted(bool *ret_fails)
{
    *ret_fails = false;
    if (!running || !ours || !depth)
        return false;
    asked++;
    if (asked == fail_at || asked == looked_at) {
        int was = depth;
        depth = 0;
        frame_count = backtrace(frames, FRAMES_MAX);
        depth = was;
        *ret_fails = asked == fail_at;
        if (*ret_fails)
            errno = ENOMEM;
    }
    return true;
}

static void *got(bool count, void *p)
{
    if (count && p)
        live_add(p);
    return p;
}

void *malloc(size_t n)
{
    bool fails, count = counted(&fails);
    return fails ? NULL : got(count, REAL(malloc)(n));
}

void *calloc(size_t n, size_t m)
{
    bool fails, count = counted(&fails);
    return fails ? NULL : got(count, REAL(calloc)(n, m));
}

void *realloc(void *p, size_t n)
{
    if (!p)
        return malloc(n);
    bool fails, count = counted(&fails);
    if (fails)
        return NULL;
    bool was = running && live_remove(p);
    void *q = REAL(realloc)(p, n);
    return got(was || count, q ? q : n ? p : NULL);
}

void free(void *p)
{
    if (p && running)
        live_remove(p);
    REAL(free)(p);
}

/* Sanitizers have their own, which would not come by here. */
char *strdup(const char *s)
{
    size_t len = strlen(s) + 1;
    char *copy = malloc(len);
    return copy ? memcpy(copy, s, len) : NULL;
}

char *strndup(const char *s, size_t max)
{
    size_t len = strnlen(s, max);
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, s, len);
        copy[len] = '\0';
    }
    return copy;
}

static void explain(const char *what)
{
    if (!frame_count)
        return;
    fprintf(stderr, "%s (for lines: addr2line -fpe PROGRAM ADDRESS):\n", what);
    backtrace_symbols_fd(frames, frame_count, STDERR_FILENO);
}

static void on_crash(int number)
{
    running = false;
    signal(number, SIG_DFL);
    explain("the allocation that failed");
    raise(number);
}

static void run_once(void (*scenario)(void *user), void *user, long failing, long looking)
{
    memset(live, 0, sizeof live);
    live_count = 0;
    asked = 0;
    frame_count = 0;
    fail_at = failing;
    looked_at = looking;
    depth = 0;
    ours = running = true;
    scenario(user);
    ours = running = false;
}

/* Nothing may be left over. */
static void check_left(void (*scenario)(void *user), void *user, long failing)
{
    size_t i = 0, left = live_count;
    if (!left)
        return;
    explain("the allocation that failed");
    while (!live[i].p)
        i++;
    long number = live[i].number;
    run_once(scenario, user, number == failing ? 0 : failing, number);
    explain("an allocation that is left over");
    fail_msg("%zu allocations are left over when number %ld failed", left, failing);
}

long fa_each(void (*scenario)(void *user), void *user)
{
    void *warm[2];
    (void)backtrace(warm, 2);            /* loads what it needs */
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* so that on_crash says which allocation it was */
    signal(SIGABRT, on_crash);
    signal(SIGSEGV, on_crash);
    run_once(scenario, user, 0, 0); /* what libraries make once and keep */
    run_once(scenario, user, 0, 0);
    check_left(scenario, user, 0);
    long total = asked;
    assert_true(total > 0);
    for (long i = 1; i <= total; i++) {
        run_once(scenario, user, i, 0);
        check_left(scenario, user, i);
    }
    run_once(scenario, user, 0, 0);
    assert_int_equal(asked, total); /* nothing of the failures has stayed */
    return total;
}

void fa_enter(void)
{
    depth++;
}

void fa_leave(void)
{
    depth--;
}

bool fa_failed(void)
{
    return fail_at && asked >= fail_at;
}

long fa_failing(void)
{
    return fail_at;
}

#if defined(__clang__) && __has_feature(address_sanitizer)
#pragma clang attribute pop
#endif
