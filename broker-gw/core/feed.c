#include "core/feed.h"

#include <assert.h>
#include <stdlib.h>

#include "wire/codec.h"

static void free_event(Harpoon__V1__Event *event)
{
    hp_unpacked_free(&event->base);
}

int gw_feed_init(struct gw_feed *f, size_t count_max, size_t bytes_max)
{
    assert(count_max > 0 && bytes_max > 0);
    *f = (struct gw_feed){
        .count_max = count_max, .bytes_max = bytes_max, .last = -1, .known = -1, .drop_cb = free_event};
    f->slots = calloc(count_max, sizeof *f->slots);
    return f->slots ? 0 : HP_ENOMEM;
}

static void drop_oldest(struct gw_feed *f)
{
    assert(f->count > 0);
    struct gw_feed_slot *s = &f->slots[f->start];
    f->bytes -= s->bytes;
    f->drop_cb(s->event);
    *s = (struct gw_feed_slot){0};
    f->start = (f->start + 1) % f->count_max;
    f->count--;
}

static void clear(struct gw_feed *f)
{
    while (f->count > 0)
        drop_oldest(f);
}

void gw_feed_done(struct gw_feed *f)
{
    if (f->slots)
        clear(f);
    free(f->slots);
    f->slots = NULL;
}

static void settle(struct gw_feed *f)
{
    assert(f->last >= 0 && f->known >= f->last);
    f->state = f->known > f->last ? GW_FEED_BEHIND : GW_FEED_FOLLOWING;
}

bool gw_feed_head(struct gw_feed *f, int64_t sequence)
{
    assert(sequence >= 0);
    bool first = f->state == GW_FEED_UNKNOWN;
    bool far = !first && sequence > f->last && (uint64_t)(sequence - f->last) > f->count_max;
    if (first || far) {
        clear(f);
        f->last = sequence;
        f->jumps += far;
    }
    if (f->known < sequence)
        f->known = sequence;
    settle(f);
    return first || far;
}

void gw_feed_give_up(struct gw_feed *f)
{
    assert(f->state == GW_FEED_BEHIND);
    clear(f);
    f->last = f->known;
    f->jumps++;
    settle(f);
}

static void append(struct gw_feed *f, Harpoon__V1__Event *event, size_t bytes)
{
    while (f->count > 0 && (f->count == f->count_max || f->bytes + bytes > f->bytes_max))
        drop_oldest(f);
    f->slots[(f->start + f->count) % f->count_max] = (struct gw_feed_slot){event, bytes};
    f->count++;
    f->bytes += bytes;
    f->last = event->sequence;
    if (f->known < f->last)
        f->known = f->last;
    settle(f);
    assert(gw_feed_get(f, event->sequence) == event);
}

enum gw_feed_outcome gw_feed_arrived(struct gw_feed *f, Harpoon__V1__Event *event, size_t bytes)
{
    if (f->state == GW_FEED_UNKNOWN)
        f->last = f->known = event->sequence - 1;
    if (event->sequence <= f->last) {
        f->repeats++;
        return GW_FEED_REPEATED;
    }
    if (event->sequence == f->last + 1) {
        append(f, event, bytes);
        return GW_FEED_APPENDED;
    }
    if (f->known < event->sequence)
        f->known = event->sequence;
    settle(f);
    return GW_FEED_GAP;
}

enum gw_feed_outcome gw_feed_filled(struct gw_feed *f, Harpoon__V1__Event *event, size_t bytes)
{
    assert(f->state != GW_FEED_UNKNOWN);
    return gw_feed_arrived(f, event, bytes);
}

bool gw_feed_missing(const struct gw_feed *f, int64_t *ret_after, int64_t *ret_to)
{
    if (f->state != GW_FEED_BEHIND)
        return false;
    *ret_after = f->last;
    *ret_to = f->known;
    return true;
}

int64_t gw_feed_first(const struct gw_feed *f)
{
    return f->last + 1 - (int64_t)f->count;
}

const Harpoon__V1__Event *gw_feed_get(const struct gw_feed *f, int64_t sequence)
{
    if (f->state == GW_FEED_UNKNOWN || sequence > f->last || sequence < gw_feed_first(f))
        return NULL;
    size_t place = (f->start + (size_t)(sequence - gw_feed_first(f))) % f->count_max;
    const Harpoon__V1__Event *event = f->slots[place].event;
    assert(event && event->sequence == sequence);
    return event;
}
