/* loop_test.h — for tests that drive a real loop: run it until something is true, with a deadline; call the private servers (tests/lib/servers). */
#ifndef TESTS_LIB_LOOP_TEST_H
#define TESTS_LIB_LOOP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include "io/loop.h"

static inline void loop_test_tick(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* Runs the loop until cond(arg); false after `ms`. */
static inline bool loop_until(uv_loop_t *loop, bool (*cond)(void *arg), void *arg, uint64_t ms)
{
    bool over = false;
    uv_timer_t timer;
    uv_timer_init(loop, &timer);
    timer.data = &over;
    uv_timer_start(&timer, loop_test_tick, ms, 0);
    bool met;
    while (!(met = cond(arg)) && !over)
        uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
    return met;
}

static inline bool loop_flag_set(void *arg)
{
    return *(bool *)arg;
}

#define UNTIL(loop_, cond_, arg_) assert_true(loop_until((loop_), (cond_), (arg_), 30000))
#define UNTIL_FLAG(loop_, flag_) assert_true(loop_until((loop_), loop_flag_set, &(flag_), 30000))

/* Closing callbacks: `user` is a bool that becomes true. */
static inline void loop_closed(void *user)
{
    *(bool *)user = true;
}

/* tests/lib/servers COMMAND, while the loop stands still. The command must succeed. */
__attribute__((format(printf, 1, 2))) static inline void servers(const char *fmt, ...)
{
    char command[2048];
    const char *base = getenv("HARPOON_TEST_SERVERS");
    if (!base)
        fail_msg("run by: tests/lib/servers run …");
    int n = snprintf(command, sizeof command, "%s ", base);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command + n, sizeof command - (size_t)n, fmt, ap);
    va_end(ap);
    if (system(command))
        fail_msg("failed: %s", command);
}

struct servers_call {
    char command[2048];
    bool done;
    int status;
    uv_work_t work;
};

static inline void servers_work(uv_work_t *work)
{
    struct servers_call *c = work->data;
    c->status = system(c->command);
}

static inline void servers_after(uv_work_t *work, int status)
{
    ((struct servers_call *)work->data)->done = true;
}

/* The same while the loop runs on. */
__attribute__((format(printf, 2, 3))) static inline void servers_beside(uv_loop_t *loop, const char *fmt, ...)
{
    struct servers_call c = {.work.data = &c};
    int n = snprintf(c.command, sizeof c.command, "%s ", getenv("HARPOON_TEST_SERVERS"));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c.command + n, sizeof c.command - (size_t)n, fmt, ap);
    va_end(ap);
    uv_queue_work(loop, &c.work, servers_work, servers_after);
    assert_true(loop_until(loop, loop_flag_set, &c.done, 120000));
    assert_int_equal(c.status, 0);
}

#endif
