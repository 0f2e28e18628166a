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

struct sc_part;

enum sc_lead_state { SC_LEAD_DOWN, SC_LEAD_STANDBY, SC_LEAD_TAKING, SC_LEAD_LEADING, SC_LEAD_WAITING };
enum sc_remake { SC_REMAKE_NONE, SC_REMAKE_EPOCH, SC_REMAKE_BROKER }; /* which proof is being waited for */
enum sc_subscription { SC_SUB_LEADER, SC_SUB_REQUESTS, SC_SUB_REPORTS, SC_SUB_METRICS, SC_SUB_COUNT };

/* A delivery that waits while the stream is behind. */
struct sc_held {
    struct sc_held *next;
    struct hp_delivery *delivery;
};

/* The stream of the region's events; see stream.c. */
struct sc_stream {
    bool up;                /* its connection */
    size_t flying;          /* events given to the publisher, not done */
    uint64_t progress_ms;   /* last confirm, or when the first of those that fly was sent */
    uint64_t away_since_ms; /* 0: it works */
    uint64_t remake_ms;     /* not before then is it made anew */
    enum sc_remake remake;
    uv_timer_t timer; /* while anything flies, or the stream is away */
};

struct sc_lead {
    struct sc_part *part; /* scheduler.c's */
    const struct sc_config *config;
    uv_loop_t *loop;
    char region[64];
    struct hp_topology topology, stream_topology;
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
    bool sends_up, consumer_up;
    struct sc_stream stream;
    bool leader_wanted; /* the subscription to leader.<region> is in force */
    bool token_sent;    /* one since the connections came up */
    bool has_token;
    uint64_t token_tag;
    int64_t token_epoch; /* highest epoch that a token has told of: that of an earlier reign, or of ours */
    bool fenced;         /* stay away for a moment */
    bool ready;          /* was connected once */
    uint64_t taking_since_ms;
    bool restored;     /* the core compares a restored record with the hosts */
    int64_t preempted; /* as counted in this reign */

    uv_timer_t deadline, retry, renew;
    uv_idle_t idle;   /* keeps the loop from sleeping before the flush */
    uv_check_t check; /* flushes when the waiting input of this turn is taken in */
    struct sc_held *held, **held_end;
    size_t sending; /* publishes under way */
    bool stopping, closing;
    int open_handles; /* that lead_closed waits for */
    struct sc_lead_metrics metrics;
};

/* On the thread of this region's loop, as everything here. Connects in the background. */
int sc_lead_new(struct sc_part *part, uv_loop_t *loop, const struct sc_config *config, const char *region,
                struct sc_lead **ret, struct hp_error *e) HP_MUST_CHECK;
/* Finishes what is being committed, tells it, and closes; then sc_scheduler_lead_closed, and it is freed. */
void sc_lead_close(struct sc_lead *l);

/* ---- Between lead.c, flow.c and stream.c ---- */
int sc_stream_start(struct sc_lead *l, const struct hp_amqp_options *amqp, struct hp_error *e) HP_MUST_CHECK;
/* A reign begins. */
void sc_stream_lead(struct sc_lead *l);
/* An event was given to the publisher; it is done. */
void sc_stream_sent(struct sc_lead *l);
void sc_stream_done(struct sc_lead *l, enum hp_publish_outcome outcome);
/* A token was sent, and confirmed or not: what the broker's queues can do. */
void sc_stream_token(struct sc_lead *l, bool confirmed);
/* Sends one; the answer comes to sc_stream_token. */
void sc_lead_send_token(struct sc_lead *l);
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
