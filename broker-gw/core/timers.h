/* timers.h — deadlines embedded in their owners, in a heap: the shell arms one timer for the earliest. */
#ifndef GW_TIMERS_H
#define GW_TIMERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct gw_timer {
    uint64_t due_ms;                                      /* monotonic */
    size_t place;                                         /* private: 1-based in the heap; 0 when not armed */
    void (*fire_cb)(struct gw_timer *t, uint64_t now_ms); /* may arm and disarm any timer, and free its owner */
};

struct gw_timers {
    struct gw_timer **heap; /* heap[0] is unused */
    size_t count, cap;      /* armed; allocated places without heap[0] */
};

void gw_timers_init(struct gw_timers *ts);
void gw_timers_done(struct gw_timers *ts);
/* Arms or moves. HP_ENOMEM: as before. */
int gw_timer_arm(struct gw_timers *ts, struct gw_timer *t, uint64_t due_ms) HP_MUST_CHECK;
void gw_timer_disarm(struct gw_timers *ts, struct gw_timer *t);
/* Fires what is due, earliest first, each disarmed before. Timers that are armed meanwhile and are due already fire too. */
void gw_timers_run(struct gw_timers *ts, uint64_t now_ms);
/* The earliest deadline; UINT64_MAX when there is none. */
uint64_t gw_timers_next_ms(const struct gw_timers *ts);

#endif
