/* timers.h — many deadlines on one libuv timer: a heap, so that a process with thousands of agents needs no timer for each. Loop thread only. */
#ifndef HA_SHELL_TIMERS_H
#define HA_SHELL_TIMERS_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct ha_timers;

/* Embedded in its owner; zeroed, then given a function. */
struct ha_timer {
    void (*fire_cb)(struct ha_timer *t); /* the timer is not set any more when it is called */
    uint64_t due_ms;                     /* private: monotonic; valid while index > 0 */
    size_t index;                        /* private: place in the heap, from 1; 0: not set */
};

int ha_timers_new(uv_loop_t *loop, struct ha_timers **ret, struct hp_error *e) HP_MUST_CHECK;
/* Forgets all timers; freed on a later turn of the loop. */
void ha_timers_close(struct ha_timers *t);

/* Makes room for `count` more timers that may be set at a time. HP_ENOMEM. */
int ha_timers_reserve(struct ha_timers *t, size_t count) HP_MUST_CHECK;
/* Gives it back. */
void ha_timers_release(struct ha_timers *t, size_t count);
/* Sets, moves, or (UINT64_MAX) unsets. Needs room reserved before. */
void ha_timer_set(struct ha_timers *t, struct ha_timer *timer, uint64_t due_ms);

#endif
