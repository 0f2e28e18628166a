#include "core/timers.h"

#include <assert.h>
#include <stdlib.h>

enum { CAP_FIRST = 64 };

void gw_timers_init(struct gw_timers *ts)
{
    *ts = (struct gw_timers){0};
}

void gw_timers_done(struct gw_timers *ts)
{
    for (size_t i = 1; i <= ts->count; i++)
        ts->heap[i]->place = 0;
    free(ts->heap);
    gw_timers_init(ts);
}

static void put(struct gw_timers *ts, size_t place, struct gw_timer *t)
{
    ts->heap[place] = t;
    t->place = place;
}

static void sift_up(struct gw_timers *ts, struct gw_timer *t)
{
    size_t i = t->place;
    for (; i > 1 && ts->heap[i / 2]->due_ms > t->due_ms; i /= 2)
        put(ts, i, ts->heap[i / 2]);
    put(ts, i, t);
}

static void sift_down(struct gw_timers *ts, struct gw_timer *t)
{
    size_t i = t->place;
    for (;;) {
        size_t child = 2 * i;
        if (child < ts->count && ts->heap[child + 1]->due_ms < ts->heap[child]->due_ms)
            child++;
        if (child > ts->count || ts->heap[child]->due_ms >= t->due_ms)
            break;
        put(ts, i, ts->heap[child]);
        i = child;
    }
    put(ts, i, t);
}

int gw_timer_arm(struct gw_timers *ts, struct gw_timer *t, uint64_t due_ms)
{
    assert(t->fire_cb);
    if (!t->place) {
        if (ts->count == ts->cap) {
            size_t cap = ts->cap ? ts->cap * 2 : CAP_FIRST;
            struct gw_timer **heap = realloc(ts->heap, (cap + 1) * sizeof *heap);
            if (!heap)
                return HP_ENOMEM;
            ts->heap = heap;
            ts->cap = cap;
        }
        put(ts, ++ts->count, t);
    }
    t->due_ms = due_ms;
    sift_up(ts, t);
    sift_down(ts, t);
    return 0;
}

void gw_timer_disarm(struct gw_timers *ts, struct gw_timer *t)
{
    if (!t->place)
        return;
    assert(t->place <= ts->count && ts->heap[t->place] == t);
    size_t place = t->place;
    struct gw_timer *last = ts->heap[ts->count--];
    t->place = 0;
    if (last == t)
        return;
    put(ts, place, last);
    sift_up(ts, last);
    sift_down(ts, last);
}

void gw_timers_run(struct gw_timers *ts, uint64_t now_ms)
{
    while (ts->count > 0 && ts->heap[1]->due_ms <= now_ms) {
        struct gw_timer *t = ts->heap[1];
        gw_timer_disarm(ts, t);
        t->fire_cb(t, now_ms);
    }
}

uint64_t gw_timers_next_ms(const struct gw_timers *ts)
{
    return ts->count ? ts->heap[1]->due_ms : UINT64_MAX;
}
