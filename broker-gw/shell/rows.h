/* rows.h — SELECT on a database thread, row by row. */
#ifndef GW_ROWS_H
#define GW_ROWS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/v1/event.pb-c.h"
#include "io/db.h"

/* Called for each row; columns as texts or bytes with their lengths. 1: go on; 0: enough, the rest is skipped; negative: an error. */
typedef int (*gw_row_fn)(void *user, char **columns, const unsigned long *lengths, struct hp_error *e);

/* `sql` is built from names that have been validated (no quotes can be in them) and numbers. */
int gw_select(struct hp_db_conn *c, const char *sql, gw_row_fn row, void *user, struct hp_error *e) HP_MUST_CHECK;
/* Unpacks a body of the record; HP_ECORRUPT when it is not a `d`. */
int gw_unpack_body(const ProtobufCMessageDescriptor *d, const char *bytes, size_t len, ProtobufCMessage **ret,
                   struct hp_error *e) HP_MUST_CHECK;

/* The region's place in its events. */
struct gw_bounds {
    int64_t oldest, sequence; /* oldest kept; last committed */
};
/* A region without a row has no events yet: oldest 1, sequence 0. */
int gw_select_bounds(struct hp_db_conn *c, const char *region, struct gw_bounds *ret, struct hp_error *e) HP_MUST_CHECK;

/* Events in order, as unpacked messages. */
struct gw_event_page {
    Harpoon__V1__Event **events; /* owned */
    size_t *bytes;               /* of each one's wire form */
    size_t count, at;            /* read; the next to use */
    bool more;                   /* there may be more after them */
};
/* Up to `count_max` events after `after`; at most GW_REPLY_BYTES of bodies, but one at least. */
int gw_select_events(struct hp_db_conn *c, const char *region, int64_t after, size_t count_max,
                     struct gw_event_page *ret, struct hp_error *e) HP_MUST_CHECK;
void gw_event_page_done(struct gw_event_page *p);
/* Takes the next event out of the page; NULL at its end. */
Harpoon__V1__Event *gw_event_page_take(struct gw_event_page *p, size_t *ret_bytes);

#endif
