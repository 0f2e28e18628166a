#include "io/amqp_window.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t slot_of(const struct hp_confirm_window *w, uint64_t tag)
{
    return (size_t)(tag & (w->capacity - 1));
}

int hp_confirm_window_init(struct hp_confirm_window *w, size_t entries_max, struct hp_error *e)
{
    size_t capacity = 64;
    while (capacity < entries_max)
        capacity *= 2;
    void **slots = calloc(capacity, sizeof *slots);
    uint64_t *done = calloc(capacity / 64, sizeof *done);
    if (!slots || !done) {
        free(slots);
        free(done);
        return hp_fail(e, HP_ENOMEM, "confirm window of %zu: out of memory", capacity);
    }
    *w = (struct hp_confirm_window){.slots = slots, .capacity = capacity, .first = 1, .next = 1, .done = done};
    return 0;
}

void hp_confirm_window_close(struct hp_confirm_window *w)
{
    free(w->slots);
    free(w->done);
    *w = (struct hp_confirm_window){0};
}

void hp_confirm_window_reset(struct hp_confirm_window *w)
{
    memset(w->slots, 0, w->capacity * sizeof *w->slots);
    memset(w->done, 0, w->capacity / 64 * sizeof *w->done);
    w->first = w->next = 1;
}

bool hp_confirm_window_full(const struct hp_confirm_window *w)
{
    return w->next - w->first >= w->capacity;
}

uint64_t hp_confirm_window_push(struct hp_confirm_window *w, void *item)
{
    assert(item);
    assert(!hp_confirm_window_full(w));
    uint64_t tag = w->next++;
    size_t s = slot_of(w, tag);
    assert(!w->slots[s]);
    w->slots[s] = item;
    w->done[s / 64] &= ~(1ull << (s % 64));
    return tag;
}

static bool is_open(const struct hp_confirm_window *w, uint64_t tag)
{
    size_t s = slot_of(w, tag);
    return tag >= w->first && tag < w->next && !(w->done[s / 64] >> (s % 64) & 1);
}

void *hp_confirm_window_find(const struct hp_confirm_window *w, uint64_t tag)
{
    return is_open(w, tag) ? w->slots[slot_of(w, tag)] : NULL;
}

void hp_confirm_window_forget(struct hp_confirm_window *w, uint64_t tag)
{
    assert(is_open(w, tag));
    w->slots[slot_of(w, tag)] = NULL;
}

/* Marks one tag and gives its item, if it was open and has one. */
static void *take(struct hp_confirm_window *w, uint64_t tag)
{
    if (!is_open(w, tag))
        return NULL;
    size_t s = slot_of(w, tag);
    void *item = w->slots[s];
    w->slots[s] = NULL;
    w->done[s / 64] |= 1ull << (s % 64);
    return item;
}

static void advance(struct hp_confirm_window *w)
{
    while (w->first < w->next && !is_open(w, w->first))
        w->first++;
}

int hp_confirm_window_settle(struct hp_confirm_window *w, uint64_t tag, bool multiple,
                             void (*settled_cb)(void *item, void *user), void *user, struct hp_error *e)
{
    if (tag >= w->next || (tag == 0 && !multiple))
        return hp_fail(e, HP_EPROTO, "the broker confirmed message %llu, and %llu is the last that was sent",
                       (unsigned long long)tag, (unsigned long long)w->next - 1);
    if (multiple && tag == 0)
        tag = w->next - 1;
    uint64_t from = multiple ? w->first : tag;
    for (uint64_t t = from; t <= tag; t++) {
        void *item = take(w, t);
        /* Before the callback, so that it finds room. */
        if (t == w->first)
            advance(w);
        if (item)
            settled_cb(item, user);
    }
    return 0;
}
