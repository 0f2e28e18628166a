/* waiters.h — who waits for which operation to end. */
#ifndef GW_WAITERS_H
#define GW_WAITERS_H

#include <stdbool.h>

#include "base/map.h"
#include "harpoon/v1/event.pb-c.h"
#include "wire/names.h"

/* Embedded in its owner. */
struct gw_waiter {
    char key[HP_NAME_MAX + 1];       /* the operation's full name */
    struct gw_waiter *next, *before; /* private: of the same operation */
    bool waiting;                    /* in a table */
};

struct gw_waiters {
    struct hp_map by_operation; /* full name -> first struct gw_waiter */
    size_t count, count_max;    /* waiters */
};

void gw_waiters_init(struct gw_waiters *ws, size_t count_max, uint64_t seed);
void gw_waiters_done(struct gw_waiters *ws);
/* HP_ELIMIT when full. */
int gw_waiters_add(struct gw_waiters *ws, struct gw_waiter *w, const char *operation) HP_MUST_CHECK;
void gw_waiters_remove(struct gw_waiters *ws, struct gw_waiter *w);

/* Takes out one waiter of an operation; NULL when there is none (more). */
struct gw_waiter *gw_waiters_take(struct gw_waiters *ws, const char *operation);

bool gw_stage_terminal(Harpoon__V1__Stage stage);
/* The operation that the event brings to its end; NULL for any other event. */
const Harpoon__V1__Operation *gw_event_ends(const Harpoon__V1__Event *e);

#endif
