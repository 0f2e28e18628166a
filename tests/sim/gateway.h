/* gateway.h — a simulated gateway: the real cores for changes (gateway.c), events, watches and waits (feeds.c); its callers are client.c and reader.c. */
#ifndef TESTS_SIM_GATEWAY_H
#define TESTS_SIM_GATEWAY_H

#include "core/change.h"
#include "core/feed.h"
#include "core/timers.h"
#include "core/verdicts.h"
#include "core/waiters.h"
#include "core/watch.h"
#include "sim/sim.h"

/* A change on its way from a client, and back. */
struct sim_change {
    struct sim_gateway *gateway;
    struct sim_change *next, *prev; /* in the gateway */
    int kind;                       /* payload's case */
    const ProtobufCMessage *payload;
    struct gw_prepared change;
    struct gw_pending pending;
    bool pending_on;
    void *user;
    /* The answer; it may never come. */
    int code, stage;
    const char *reason, *name;
    void (*answer_cb)(struct sim_world *w, struct sim_change *c);
};

enum sim_watch_end { SIM_WATCH_UNAVAILABLE, SIM_WATCH_OUT_OF_RANGE, SIM_WATCH_TOO_SLOW, SIM_WATCH_HOLE };

/* Events read from the record: so many from the first, in its order; the next to be given. */
struct sim_page {
    size_t first, count, at;
    int64_t oldest, sequence; /* of the record at that time */
};

struct sim_watch {
    struct sim_gateway *gateway;
    struct sim_watch *next, *prev; /* in the gateway */
    uint32_t life;                 /* of the gateway that was dialled */
    struct sim_channel down;
    bool now;      /* starts at the present; otherwise behind `after` */
    int64_t after; /* 0: at the oldest that is kept */
    bool only_operations;
    struct gw_watch watch;
    bool open, reading;
    struct sim_page page;
    int unread; /* sent, not taken by the reader */
    void *user;
    void (*begun_cb)(struct sim_world *w, struct sim_watch *x, int64_t cursor);
    void (*event_cb)(struct sim_world *w, struct sim_watch *x, int64_t sequence);
    /* `oldest`: with OUT_OF_RANGE. */
    void (*end_cb)(struct sim_world *w, struct sim_watch *x, enum sim_watch_end why, int64_t oldest);
};

struct sim_wait {
    struct sim_gateway *gateway;
    struct sim_wait *next, *prev; /* in the gateway */
    struct gw_waiter waiter;
    struct gw_timer timer;
    uint32_t life;         /* of the gateway that was dialled */
    const char *operation; /* full name */
    bool open, reading, again, late;
    bool restored; /* the record was, before it began */
    void *user;
    int stage; /* the answer: a stage; -1 not recorded, -2 unavailable */
    void (*answer_cb)(struct sim_world *w, struct sim_wait *x);
};

struct sim_gateway {
    struct sim_world *world;
    struct sim_process process;
    int index;
    char name[8];
    struct gw_timers timers;
    uint64_t timer_at;
    /* Changes. */
    struct sim_connection *connection;
    const char *reply;
    int connections;
    struct gw_verdicts verdicts;
    struct sim_change *changes;
    /* Events. */
    struct sim_connection *stream;
    struct gw_feed feed;
    struct gw_waiters waiters;
    struct sim_watch *watches;
    struct sim_wait *waits;
    struct sim_channel to_record, from_record;
    bool wants_head, reading, retrying;
    int64_t heard; /* what was in the stream when its subscription came into force */
};

/* ---- gateway.c ---- */
/* The gateway has it after a while; a dead one answers nothing. */
void sim_gateway_change(struct sim_world *w, int gateway, struct sim_change *c);
/* Arms the process's timer for the earliest deadline. */
void sim_gateway_timers(struct sim_world *w, struct sim_gateway *g);

/* ---- feeds.c ---- */
void sim_feeds_start(struct sim_world *w, struct sim_gateway *g);
/* The process is dead: everybody's connection breaks. */
void sim_feeds_died(struct sim_world *w, struct sim_gateway *g);
void sim_feeds_free(struct sim_gateway *g);
void sim_gateway_watch(struct sim_world *w, int gateway, struct sim_watch *x);
/* The reader has taken everything that it was sent. */
void sim_watch_taken(struct sim_world *w, struct sim_watch *x);
void sim_gateway_wait(struct sim_world *w, int gateway, struct sim_wait *x);

#endif
