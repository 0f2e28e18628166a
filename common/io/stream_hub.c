/*
 * What the streams of one loop share: the end-of-turn list, the deadlines, the ciphertext buffer.
 *
 * A stream that has something to do (bytes to send, an on_open or a close that is due) is marked, and served once when the loop is about to wait for I/O: so all
 * writes of a turn leave together, and no callback runs inside a function of stream.h. All deadlines hang on one timer.
 */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "io/stream_private.h"

static _Thread_local struct hp_hub *hubs;

static void serve_turn(uv_prepare_t *p);
static void serve_deadlines(uv_timer_t *t);

struct hp_hub *hp_hub_get(uv_loop_t *loop)
{
    for (struct hp_hub *h = hubs; h; h = h->next) {
        if (h->loop == loop) {
            h->refs++;
            return h;
        }
    }
    struct hp_hub *h = malloc(sizeof *h);
    if (!h)
        return NULL;
    memset(h, 0, offsetof(struct hp_hub, chunk));
    h->loop = loop;
    h->refs = 1;
    uv_prepare_init(loop, &h->turn); /* these two never fail */
    uv_idle_init(loop, &h->again);
    uv_timer_init(loop, &h->timer);
    h->turn.data = h;
    h->again.data = h;
    h->timer.data = h;
    h->handles_open = 3;
    h->next = hubs;
    hubs = h;
    return h;
}

static void handle_closed(uv_handle_t *handle)
{
    struct hp_hub *h = handle->data;
    assert(h->handles_open > 0);
    if (--h->handles_open > 0)
        return;
    free(h->out);
    free(h);
}

void hp_hub_put(struct hp_hub *h)
{
    assert(h->refs > 0);
    if (--h->refs > 0)
        return;
    assert(!h->turn_head && !h->due_head);
    for (struct hp_hub **p = &hubs; *p; p = &(*p)->next) {
        if (*p == h) {
            *p = h->next;
            break;
        }
    }
    uv_close((uv_handle_t *)&h->turn, handle_closed);
    uv_close((uv_handle_t *)&h->again, handle_closed);
    uv_close((uv_handle_t *)&h->timer, handle_closed);
}

static void nothing(uv_idle_t *i)
{
    (void)i;
}

void hp_hub_mark(struct hp_stream *s)
{
    struct hp_hub *h = s->hub;
    if (s->on_turn_list)
        return;
    s->on_turn_list = true;
    s->turn_next = NULL;
    s->turn_prev = h->turn_tail;
    if (h->turn_tail)
        h->turn_tail->turn_next = s;
    else
        h->turn_head = s;
    h->turn_tail = s;
    if (uv_is_active((uv_handle_t *)&h->turn))
        return;
    uv_prepare_start(&h->turn, serve_turn);
    uv_idle_start(&h->again,
                  nothing); /* a mark from somebody's prepare callback, after ours, must not wait for input */
}

void hp_hub_unmark(struct hp_stream *s)
{
    struct hp_hub *h = s->hub;
    if (!s->on_turn_list)
        return;
    s->on_turn_list = false;
    if (s->turn_prev)
        s->turn_prev->turn_next = s->turn_next;
    else
        h->turn_head = s->turn_next;
    if (s->turn_next)
        s->turn_next->turn_prev = s->turn_prev;
    else
        h->turn_tail = s->turn_prev;
    if (h->turn_head)
        return;
    uv_prepare_stop(&h->turn);
    uv_idle_stop(&h->again);
}

/* Streams that are marked by the callbacks made here are served as well, so that an answer leaves before the loop waits; but only for a few
 * rounds, so that one that always has more to send cannot keep the loop from reading. */
static void serve_turn(uv_prepare_t *p)
{
    enum { ROUNDS_MAX = 4 };
    struct hp_hub *h = p->data;
    for (int round = 0; round < ROUNDS_MAX && h->turn_head; round++) {
        struct hp_stream *last = h->turn_tail, *s;
        do {
            s = h->turn_head;
            hp_hub_unmark(s);
            hp_stream_turn(s);
        } while (s != last && h->turn_head);
    }
}

static void arm_timer(struct hp_hub *h)
{
    uint64_t due = h->due_head ? h->due_head->due_ms : 0;
    if (due == h->timer_ms)
        return;
    h->timer_ms = due;
    if (!due) {
        uv_timer_stop(&h->timer);
        return;
    }
    uint64_t now = uv_now(h->loop);
    uv_timer_start(&h->timer, serve_deadlines, due > now ? due - now : 0, 0);
}

void hp_hub_set_deadline(struct hp_stream *s, uint64_t after_ms)
{
    struct hp_hub *h = s->hub;
    hp_hub_clear_deadline(s);
    s->due_ms = uv_now(h->loop) + after_ms;
    /* Most deadlines are of one length, so the place is at the end. */
    struct hp_stream *before = h->due_tail;
    while (before && before->due_ms > s->due_ms)
        before = before->due_prev;
    s->due_prev = before;
    s->due_next = before ? before->due_next : h->due_head;
    if (s->due_prev)
        s->due_prev->due_next = s;
    else
        h->due_head = s;
    if (s->due_next)
        s->due_next->due_prev = s;
    else
        h->due_tail = s;
    s->on_due_list = true;
    arm_timer(h);
}

static void unlink_deadline(struct hp_stream *s)
{
    struct hp_hub *h = s->hub;
    s->on_due_list = false;
    if (s->due_prev)
        s->due_prev->due_next = s->due_next;
    else
        h->due_head = s->due_next;
    if (s->due_next)
        s->due_next->due_prev = s->due_prev;
    else
        h->due_tail = s->due_prev;
}

void hp_hub_clear_deadline(struct hp_stream *s)
{
    if (!s->on_due_list)
        return;
    unlink_deadline(s);
    arm_timer(s->hub);
}

static void serve_deadlines(uv_timer_t *t)
{
    struct hp_hub *h = t->data;
    h->timer_ms = 0;
    uint64_t now = uv_now(h->loop);
    while (h->due_head && h->due_head->due_ms <= now) {
        struct hp_stream *s = h->due_head;
        unlink_deadline(s);
        hp_stream_overdue(s);
    }
    arm_timer(h);
}
