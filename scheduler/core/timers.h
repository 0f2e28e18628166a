/* timers.h — many timers in one binary heap, embedded in their owners; the region shows the earliest one as its deadline. */
#ifndef SC_CORE_TIMERS_H
#define SC_CORE_TIMERS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum sc_timer_kind {
    SC_TIMER_EXPIRY,    /* operation: its deadline */
    SC_TIMER_FLIGHT,    /* container: the command that is under way has been silent for too long */
    SC_TIMER_SILENCE,   /* host: not heard from */
    SC_TIMER_RESYNC,    /* host: the inventory did not come */
    SC_TIMER_REPUBLISH, /* region: events that the stream has not confirmed */
    SC_TIMER_SETTLE,    /* region: watermark and claims that are written when it is quiet */
    SC_TIMER_PENDING,   /* region: more waiting operations to try */
    SC_TIMER_STALE,     /* region: a host's load that was not heard of for too long */
    SC_TIMER_RESTORE,   /* region: hosts that a restored record does not know have had time to attach */
};

/* Zero-initialise, then set `kind`. */
struct sc_timer {
    uint64_t due_ms;         /* monotonic */
    uint32_t place;          /* position in the heap + 1; 0 when not armed */
    enum sc_timer_kind kind; /* tells the owner's type */
};

struct sc_timers {
    struct sc_timer **heap; /* owned array of borrowed timers */
    size_t count, room;     /* timers armed; length of the array */
};

void sc_timers_done(struct sc_timers *t);
/* Arms, or moves an armed timer. HP_ENOMEM. */
int sc_timer_arm(struct sc_timers *t, struct sc_timer *timer, uint64_t due_ms) HP_MUST_CHECK;
/* Legal when not armed. */
void sc_timer_cancel(struct sc_timers *t, struct sc_timer *timer);
/* The earliest armed timer, disarmed, when it is due at `now_ms`; else NULL. */
struct sc_timer *sc_timers_pop(struct sc_timers *t, uint64_t now_ms);
/* UINT64_MAX when none is armed. */
uint64_t sc_timers_next(const struct sc_timers *t);

#endif
