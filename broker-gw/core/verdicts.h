/* verdicts.h — changes that wait for the scheduler's answer, and what the caller is told, whatever comes first. */
#ifndef GW_VERDICTS_H
#define GW_VERDICTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "core/change.h"
#include "core/timers.h"

/* How the broker took a message; the shell maps enum hp_publish_outcome to it. */
enum gw_published { GW_PUBLISHED, GW_QUEUE_FULL, GW_NO_QUEUE, GW_NOT_SENT, GW_OUTCOME_UNKNOWN };

/* One change under way:
 *
 *   SENT ──confirm──▶ ACCEPTED ──verdict or deadline──▶ DONE      SENT ──verdict, or any other outcome──▶ DONE
 *
 * A verdict counts as soon as it is there, confirmed or not: the scheduler sends it after its commit. A deadline alone never ends a change that is only SENT: the broker's outcome,
 * which is bounded, decides. */
enum gw_pending_state { GW_PENDING_SENT, GW_PENDING_ACCEPTED, GW_PENDING_DONE };

struct gw_pending {
    enum gw_pending_state state;
    bool late;                        /* the deadline has passed while SENT */
    char correlation[32];             /* decimal, unique in this process */
    const struct gw_prepared *change; /* the owner's */
    struct gw_timer timer;            /* the deadline for the verdict */
    struct gw_verdicts *table;        /* while in it */
    /* Exactly once: an operation or an explanation on success (borrowed for the call), or a status (owned by the callee; NULL when out of memory). */
    void (*done_cb)(struct gw_pending *p, const ProtobufCMessage *answer, Google__Rpc__Status *status);
};

struct gw_verdicts {
    struct hp_map by_correlation; /* -> struct gw_pending */
    struct gw_timers *timers;     /* the gateway's */
    uint64_t serial;              /* of the last correlation */
};

void gw_verdicts_init(struct gw_verdicts *vs, struct gw_timers *timers, size_t count_max, uint64_t seed);
void gw_verdicts_done(struct gw_verdicts *vs);
/* Before the message is published. HP_ELIMIT when full, HP_ENOMEM. */
int gw_pending_add(struct gw_verdicts *vs, struct gw_pending *p, uint64_t deadline_ms) HP_MUST_CHECK;
/* The caller has gone: no callback. */
void gw_pending_drop(struct gw_pending *p);
/* The broker's outcome. */
void gw_pending_published(struct gw_pending *p, enum gw_published outcome, const char *region);
/* The scheduler's answer. False when nobody waits for it (any more). */
bool gw_verdicts_arrived(struct gw_verdicts *vs, const char *correlation, const Harpoon__Internal__V1__Verdict *v);

/* What a caller is told about an outcome that is not GW_PUBLISHED. */
Google__Rpc__Status *gw_published_status(enum gw_published outcome, const char *region);

#endif
