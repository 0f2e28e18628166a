#include "shell/timers.h"

#include <assert.h>
#include <stdlib.h>

#include "io/loop.h"

struct ha_timers {
    uv_timer_t uv;
    struct ha_timer **heap; /* from 1: the least due first */
    size_t count, room, cap;
    uint64_t armed_ms; /* when the libuv timer fires; UINT64_MAX: not armed */
};

static void place(struct ha_timers *t, struct ha_timer *timer, size_t i)
{
    t->heap[i] = timer;
    timer->index = i;
}

static void sift_up(struct ha_timers *t, struct ha_timer *timer, size_t i)
{
    for (; i > 1 && t->heap[i / 2]->due_ms > timer->due_ms; i /= 2)
        place(t, t->heap[i / 2], i);
    place(t, timer, i);
}

static void sift_down(struct ha_timers *t, struct ha_timer *timer, size_t i)
{
    for (;;) {
        size_t child = i * 2;
        if (child > t->count)
            break;
        if (child < t->count && t->heap[child + 1]->due_ms < t->heap[child]->due_ms)
            child++;
        if (t->heap[child]->due_ms >= timer->due_ms)
            break;
        place(t, t->heap[child], i);
        i = child;
    }
    place(t, timer, i);
}

static void take_out(struct ha_timers *t, struct ha_timer *timer)
{
    size_t i = timer->index;
    struct ha_timer *last = t->heap[t->count--];
    timer->index = 0;
    if (last == timer)
        return;
    if (i > 1 && t->heap[i / 2]->due_ms > last->due_ms)
        sift_up(t, last, i);
    else
        sift_down(t, last, i);
}

static void arm(struct ha_timers *t);

static void fired(uv_timer_t *uv)
{
    struct ha_timers *t = uv->data;
    uint64_t now = hp_now_ms();
    t->armed_ms = UINT64_MAX;
    /* Only those that are due now: one that sets itself again in the past waits for the next turn. */
    for (size_t left = t->count; left > 0 && t->count > 0 && t->heap[1]->due_ms <= now; left--) {
        struct ha_timer *first = t->heap[1];
        take_out(t, first);
        first->fire_cb(first);
    }
    arm(t);
}

static void arm(struct ha_timers *t)
{
    uint64_t due = t->count ? t->heap[1]->due_ms : UINT64_MAX;
    if (due == t->armed_ms)
        return;
    t->armed_ms = due;
    if (due == UINT64_MAX) {
        uv_timer_stop(&t->uv);
        return;
    }
    uint64_t now = hp_now_ms();
    uv_update_time(t->uv.loop);
    uv_timer_start(&t->uv, fired, due > now ? due - now : 0, 0);
}

int ha_timers_new(uv_loop_t *loop, struct ha_timers **ret, struct hp_error *e)
{
    struct ha_timers *t = calloc(1, sizeof *t);
    if (!t)
        return hp_fail(e, HP_ENOMEM, "timers");
    uv_timer_init(loop, &t->uv);
    t->uv.data = t;
    t->armed_ms = UINT64_MAX;
    *ret = t;
    return 0;
}

static void closed(uv_handle_t *h)
{
    struct ha_timers *t = h->data;
    free(t->heap);
    free(t);
}

void ha_timers_close(struct ha_timers *t)
{
    for (size_t i = 1; i <= t->count; i++)
        t->heap[i]->index = 0;
    t->count = 0;
    uv_close((uv_handle_t *)&t->uv, closed);
}

int ha_timers_reserve(struct ha_timers *t, size_t count)
{
    size_t need = t->room + count + 1;
    if (need > t->cap) {
        size_t cap = t->cap ? t->cap : 16;
        while (cap < need)
            cap *= 2;
        struct ha_timer **heap = realloc(t->heap, cap * sizeof(struct ha_timer *));
        if (!heap)
            return HP_ENOMEM;
        t->heap = heap;
        t->cap = cap;
    }
    t->room += count;
    return 0;
}

void ha_timers_release(struct ha_timers *t, size_t count)
{
    assert(t->room >= count);
    t->room -= count;
}

void ha_timer_set(struct ha_timers *t, struct ha_timer *timer, uint64_t due_ms)
{
    assert(timer->fire_cb);
    if (timer->index) {
        if (timer->due_ms == due_ms)
            return;
        take_out(t, timer);
    }
    if (due_ms != UINT64_MAX) {
        assert(t->count < t->room);
        timer->due_ms = due_ms;
        sift_up(t, timer, ++t->count);
    }
    arm(t);
}
