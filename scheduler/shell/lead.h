/* lead.h — one region in this process: standing by for it, taking it over, leading it.
 *
 *   DOWN ──connected──▶ STANDBY ──token──▶ TAKING ──loaded──▶ LEADING
 *    ▲                    ▲                 │  ▲                 │
 *    │                    ├──── fenced ─────┘  └─retry─ WAITING ◀┴─ database failed, out of memory
 *    │                    └──── fenced ──────────────────────────┘
 *    └─── a connection to the broker was lost (from anywhere)
 *
 * Whoever holds the newest token of leader.<region> leads (docs/decisions/0001). While WAITING the token stays here, and requests wait in the broker.
 * Everything of a reign is void when it ends: callbacks carry its number. */
#ifndef SC_SHELL_LEAD_H
#define SC_SHELL_LEAD_H

#include <uv.h>

#include "base/backoff.h"
#include "core/region.h"
#include "io/amqp.h"
#include "io/db.h"
#include "io/topology.h"
#include "shell/config.h"
#include "shell/metrics.h"

struct sc_scheduler;

enum sc_lead_state { SC_LEAD_DOWN, SC_LEAD_STANDBY, SC_LEAD_TAKING, SC_LEAD_LEADING, SC_LEAD_WAITING };
enum sc_subscription { SC_SUB_LEADER, SC_SUB_REQUESTS, SC_SUB_REPORTS, SC_SUB_METRICS, SC_SUB_COUNT };

/* A delivery that waits while the stream is behind. */
struct sc_held {
    struct sc_held *next;
    struct hp_delivery *delivery;
};

struct sc_lead {
    struct sc_scheduler *scheduler;
    const struct sc_config *config;
    uv_loop_t *loop;
    char region[64];
    struct hp_topology topology;
    enum sc_lead_state state;
    uint64_t reign;         /* number of the present one; grows */
    struct sc_region *core; /* LEADING */
    struct hp_db *db;       /* TAKING, LEADING */
    int dbs;                /* open or closing */
    int jobs;               /* of the database, under way; of any reign */
    struct hp_backoff backoff;
    struct hp_rng rng;

    struct hp_publisher *events, *sends;
    struct hp_consumer *consumer;
    bool events_up, sends_up, consumer_up;
    bool leader_wanted; /* the subscription to leader.<region> is in force */
    bool token_sent;    /* one since the connections came up */
    bool has_token;
    uint64_t token_tag;
    bool fenced; /* stay away for a moment */
    bool ready;  /* was connected once */
    uint64_t taking_since_ms;

    uv_timer_t deadline, retry, renew;
    uv_idle_t idle;   /* keeps the loop from sleeping before the flush */
    uv_check_t check; /* flushes when the waiting input of this turn is taken in */
    struct sc_held *held, **held_end;
    size_t sending; /* publishes under way */
    bool stopping, closing;
    int open_handles; /* that lead_closed waits for */
    struct sc_lead_metrics metrics;
};

/* Loop thread. Connects in the background. */
int sc_lead_new(struct sc_scheduler *s, uv_loop_t *loop, const struct sc_config *config, const char *region,
                struct sc_lead **ret, struct hp_error *e) HP_MUST_CHECK;
/* Finishes what is being committed, tells it, and closes; then sc_scheduler_lead_closed, and it is freed. */
void sc_lead_close(struct sc_lead *l);

/* ---- Between lead.c and flow.c ---- */
/* Takes one delivery in, or holds it. It passes to the callee. */
void sc_flow_deliver(struct sc_lead *l, struct hp_delivery *d);
/* Hands out what may leave, at the end of this turn of the loop. */
void sc_flow_wake(struct sc_lead *l);
void sc_flow_flush(struct sc_lead *l);
void sc_flow_drop_held(struct sc_lead *l);
struct sc_time sc_flow_time(void);
/* The reign is over: `code` HP_EFENCED gives the region up for a moment, anything else takes it anew after a pause. */
void sc_lead_failed(struct sc_lead *l, int code, const struct hp_error *e);
/* A job of the database or a publish has ended; the lead may be waiting for the last one. */
void sc_lead_settled(struct sc_lead *l);

#endif
