#include "core/timers.h"

#include <assert.h>
#include <stdlib.h>

static void put(struct sc_timers *t, size_t i, struct sc_timer *timer)
{
    t->heap[i] = timer;
    timer->place = (uint32_t)(i + 1);
}

static void sift_up(struct sc_timers *t, size_t i)
{
    struct sc_timer *timer = t->heap[i];
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (t->heap[parent]->due_ms <= timer->due_ms)
            break;
        put(t, i, t->heap[parent]);
        i = parent;
    }
    put(t, i, timer);
}

static void sift_down(struct sc_timers *t, size_t i)
{
    struct sc_timer *timer = t->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->count)
            break;
        if (child + 1 < t->count && t->heap[child + 1]->due_ms < t->heap[child]->due_ms)
            child++;
        if (timer->due_ms <= t->heap[child]->due_ms)
            break;
        put(t, i, t->heap[child]);
        i = child;
    }
    put(t, i, timer);
}

void sc_timers_done(struct sc_timers *t)
{
    free(t->heap);
    *t = (struct sc_timers){0};
}

int sc_timer_arm(struct sc_timers *t, struct sc_timer *timer, uint64_t due_ms)
{
    assert(timer->place <= t->count);
    if (timer->place) {
        assert(t->heap[timer->place - 1] == timer);
        timer->due_ms = due_ms;
        sift_up(t, timer->place - 1);
        sift_down(t, timer->place - 1);
        return 0;
    }
    if (t->count == t->room) {
        size_t room = t->room ? 2 * t->room : 64;
        struct sc_timer **heap = realloc(t->heap, room * sizeof *heap);
        if (!heap)
            return HP_ENOMEM;
        t->heap = heap;
        t->room = room;
    }
    timer->due_ms = due_ms;
    put(t, t->count++, timer);
    sift_up(t, t->count - 1);
    return 0;
}

void sc_timer_cancel(struct sc_timers *t, struct sc_timer *timer)
{
    if (!timer->place)
        return;
    size_t i = timer->place - 1;
    assert(i < t->count && t->heap[i] == timer);
    timer->place = 0;
    struct sc_timer *last = t->heap[--t->count];
    if (last == timer)
        return;
    put(t, i, last);
    sift_up(t, i);
    sift_down(t, last->place - 1);
}

struct sc_timer *sc_timers_pop(struct sc_timers *t, uint64_t now_ms)
{
    if (!t->count || t->heap[0]->due_ms > now_ms)
        return NULL;
    struct sc_timer *timer = t->heap[0];
    sc_timer_cancel(t, timer);
    return timer;
}

uint64_t sc_timers_next(const struct sc_timers *t)
{
    return t->count ? t->heap[0]->due_ms : UINT64_MAX;
}
