/* feed.h — one region's events: a ring of the latest, without gap or repeat, from a stream that may repeat, skip and stop. */
#ifndef GW_FEED_H
#define GW_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/v1/event.pb-c.h"

/* Events are committed to the record before they reach the stream. So whoever sees sequence q knows that everything up to q can be read from the record.
 *
 *   UNKNOWN ──head, or first arrival──▶ FOLLOWING ◀──filled── BEHIND     BEHIND: a later sequence is known than the ring holds;
 *                                           └──────gap──────────▲         what arrives meanwhile is only counted, and read from the record.
 */
enum gw_feed_state { GW_FEED_UNKNOWN, GW_FEED_FOLLOWING, GW_FEED_BEHIND };

struct gw_feed_slot {
    Harpoon__V1__Event *event; /* owned */
    size_t bytes;              /* of its wire form, as an estimate */
};

struct gw_feed {
    struct gw_feed_slot *slots; /* ring of count_max */
    size_t start, count;        /* oldest slot; slots in use */
    size_t count_max;           /* events kept at most */
    size_t bytes, bytes_max;    /* held; the oldest go when over */
    int64_t last;               /* newest sequence of the unbroken run; -1 when UNKNOWN */
    int64_t known;              /* newest sequence heard of, at least `last` */
    enum gw_feed_state state;
    uint64_t repeats; /* dropped, for the metrics */
    uint64_t jumps;   /* times the ring was given up, for the metrics */
    /* Gets what the ring lets go of; frees it, unless its owner sets another after gw_feed_init. */
    void (*drop_cb)(Harpoon__V1__Event *event);
};

int gw_feed_init(struct gw_feed *f, size_t count_max, size_t bytes_max) HP_MUST_CHECK;
void gw_feed_done(struct gw_feed *f);

/* The record says that `sequence` is committed; asked after each (re)connection of the stream. True when it jumped: the run before was given up because it is too far behind; `last` is `sequence`
 * now, and whoever waits for something must look in the record. */
bool gw_feed_head(struct gw_feed *f, int64_t sequence);

enum gw_feed_outcome { GW_FEED_APPENDED, GW_FEED_REPEATED, GW_FEED_GAP };
/* From the stream. Takes the event over when APPENDED; else the caller keeps it (and frees it). GAP: read what is missing from the record (gw_feed_missing). */
enum gw_feed_outcome gw_feed_arrived(struct gw_feed *f, Harpoon__V1__Event *event, size_t bytes);
/* From the record, in order; otherwise as gw_feed_arrived. */
enum gw_feed_outcome gw_feed_filled(struct gw_feed *f, Harpoon__V1__Event *event, size_t bytes);
/* The range to read from the record; false unless BEHIND. */
bool gw_feed_missing(const struct gw_feed *f, int64_t *ret_after, int64_t *ret_to);

/* The record does not hold what is missing (its retention has passed it): goes on at what is known. As a jump. */
void gw_feed_give_up(struct gw_feed *f);

/* Oldest sequence in the ring; last + 1 when it is empty. */
int64_t gw_feed_first(const struct gw_feed *f);
/* NULL unless gw_feed_first <= sequence <= last. Valid until the next change of the feed. */
const Harpoon__V1__Event *gw_feed_get(const struct gw_feed *f, int64_t sequence);

#endif
