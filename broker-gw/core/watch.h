/* watch.h — one reader's place in a region's events: filter and cursor; it never skips or repeats. */
#ifndef GW_WATCH_H
#define GW_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "core/auth.h"
#include "core/feed.h"
#include "harpoon/v1/event_service.pb-c.h"

/* What a reader wants to see. `want` may be NULL: everything that `who` may read. */
struct gw_filter {
    Harpoon__V1__EventFilter *want; /* owned copy or NULL */
    const struct gw_principal *who; /* counted */
};
int gw_filter_init(struct gw_filter *f, const struct gw_principal *who,
                   const Harpoon__V1__EventFilter *want) HP_MUST_CHECK;
void gw_filter_done(struct gw_filter *f);
bool gw_filter_match(const struct gw_filter *f, const Harpoon__V1__Event *e);

/*   STARTING ──start known──▶ CATCHING_UP ──meets the ring──▶ LIVE
 *                                  ▲                            │ the ring jumped, or ran ahead while the reader was ready
 *                                  └────────────────────────────┘  (while it was not ready: OVERRUN, the watch ends)
 */
enum gw_watch_state { GW_WATCH_STARTING, GW_WATCH_CATCHING_UP, GW_WATCH_LIVE };

struct gw_watch {
    enum gw_watch_state state;
    struct gw_filter filter;
    int64_t cursor; /* everything up to here has been sent or did not match */
    bool blocked;   /* the transport asked to wait */
};

enum gw_watch_step {
    GW_WATCH_SEND,    /* *ret_event, then go on */
    GW_WATCH_WAIT,    /* nothing new */
    GW_WATCH_PAGE,    /* read events after `cursor` from the record: gw_watch_from_record */
    GW_WATCH_OVERRUN, /* too slow: end it */
};

/* The start is known: the first event is the one after `cursor`. */
void gw_watch_begin(struct gw_watch *w, int64_t cursor);
/* Moves the cursor to the next event that matches, or as far as there is anything. */
enum gw_watch_step gw_watch_next(struct gw_watch *w, const struct gw_feed *f, const Harpoon__V1__Event **ret_event);
/* An event of the record, in order. 1: send it; 0: does not match, or is before the cursor; HP_ECORRUPT: there is a hole before it. */
int gw_watch_from_record(struct gw_watch *w, const Harpoon__V1__Event *e) HP_MUST_CHECK;
/* Has the ring moved past a live reader that is not ready? Then the watch ends, as OVERRUN. */
bool gw_watch_overrun(const struct gw_watch *w, const struct gw_feed *f);
/* The transport is ready again: call before gw_watch_next. False: it was overrun. */
bool gw_watch_unblock(struct gw_watch *w, const struct gw_feed *f);

#endif
