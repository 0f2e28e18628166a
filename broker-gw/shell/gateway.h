/* gateway.h — the gateway's shell: what its parts share. Everything runs on the loop thread; database jobs run on theirs and come back. */
#ifndef GW_GATEWAY_H
#define GW_GATEWAY_H

#include <uv.h>

#include "base/backoff.h"
#include "base/rng.h"
#include "core/auth.h"
#include "core/change.h"
#include "core/feed.h"
#include "core/timers.h"
#include "core/verdicts.h"
#include "core/waiters.h"
#include "grpc/rpc.h"
#include "io/amqp.h"
#include "io/daemon.h"
#include "io/db.h"
#include "io/rpc_server.h"
#include "io/topology.h"
#include "shell/config.h"
#include "shell/tokens.h"

enum {
    GW_REGIONS_MAX = 64,
    GW_PENDING_MAX = 20000,       /* changes that wait for a verdict; then RESOURCE_EXHAUSTED */
    GW_WATCHES_MAX = 10000,       /* then RESOURCE_EXHAUSTED */
    GW_WAITERS_MAX = 20000,       /* of one region; then RESOURCE_EXHAUSTED */
    GW_SUBMITTED_MAX = 10000,     /* of one Submit call, not answered yet; then RESOURCE_EXHAUSTED for the item */
    GW_RING_EVENTS_MAX = 20000,   /* of one region; then the oldest go */
    GW_RING_BYTES_MAX = 64 << 20, /* of one region; then the oldest go */
    GW_EVENT_BYTES_MAX = 4 << 20, /* of one event */
    GW_PUBLISH_MS = 5000,         /* until the broker must have confirmed */
    GW_STALL_MS = 60000,          /* a watch's reader that takes nothing for so long is given up */
    GW_START_MS = 10000,          /* a watch waits so long for its region's feed; readiness, for the broker */
    GW_REPLY_BYTES = 3 << 20,     /* of the bodies in one page: clients take 4 MiB by default */
};

struct gw_gateway;
struct gw_watch_call;

/* One served region: its feed, and who listens to it. */
struct gw_region {
    struct gw_gateway *gw;
    const char *name;               /* of the configuration */
    char requests[HP_NAME_MAX + 1]; /* queue */
    struct hp_topology topology, stream_topology;
    struct hp_consumer *consumer; /* of the stream */
    bool connected;               /* the stream: while it is not, watches do not beat */
    int unacked;                  /* deliveries since the last acknowledgement */
    bool heard;                   /* something was delivered since `silence` was armed */
    struct gw_timer silence;      /* while connected */
    bool blind;                   /* not connected for a while: nobody is told when an operation ends */
    struct gw_timer blindness;    /* until then */
    struct gw_feed feed;
    struct gw_waiters waiters;
    struct gw_watch_call *watches; /* list */
    bool wants_head;               /* the stream was (re)connected: read the region's sequence */
    struct gw_feed_job *job;       /* the read under way, NULL when none */
    struct gw_timer retry;         /* after a read failed */
    struct hp_backoff backoff;
};

struct gw_gateway {
    struct hp_daemon *daemon;
    uv_loop_t *loop;
    const struct gw_config *config;
    struct gw_tokens tokens;
    struct hp_rng rng;         /* seeded from the kernel */
    struct gw_regions regions; /* names, for the core */
    struct gw_region *region;  /* regions.count of them */
    struct gw_timers timers;
    uv_timer_t timer;     /* armed for the earliest */
    uv_prepare_t prepare; /* arms it, once a turn */
    struct gw_verdicts verdicts;
    struct hp_topology reply_topology;
    struct hp_consumer *replies;
    struct hp_publisher *publisher;
    struct hp_db *db;
    struct hp_rpc_service service; /* what the server serves */
    struct hp_rpc_server *server;
    struct gw_timer ready_deadline;
    size_t watch_count;
    bool replies_up, ready, stopping;
    int open; /* parts that are not closed yet, while stopping */
    void *stop_user;
};

/* gateway.c */
int gw_gateway_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e);
void gw_gateway_stop(struct hp_daemon *d, void *state);
/* The daemon is ready once everything that it needs has been there, or after GW_START_MS. */
void gw_gateway_check_ready(struct gw_gateway *gw);

/* calls.c: what handlers share. */
/* Looks whether the tokens have changed. */
void gw_refresh_tokens(struct gw_gateway *gw);
struct gw_gateway *gw_of(struct hp_rpc_call *call);
const struct gw_principal *gw_caller(struct hp_rpc_call *call);
/* Ends a call with a status that may be NULL when memory is short. */
void gw_fail(struct hp_rpc_call *call, Google__Rpc__Status *status);
/* The region, or NULL with the call ended. */
struct gw_region *gw_region_of(struct hp_rpc_call *call, const char *name);
/* INVALID_ARGUMENT for one field; the text follows the field in hp_error's message. */
void gw_fail_field(struct hp_rpc_call *call, const char *field, const struct hp_error *e);
/* The status for a read of the record that failed. */
Google__Rpc__Status *gw_record_status(int result, const struct hp_error *e);
Google__Rpc__Status *gw_stopping_status(void);

/* feeds.c */
int gw_region_start(struct gw_region *r, struct gw_gateway *gw, const char *name, struct hp_error *e) HP_MUST_CHECK;
void gw_region_close(struct gw_region *r, void (*closed_cb)(void *user), void *user);
/* After closing, when no job is under way any more. */
void gw_region_done(struct gw_region *r);

/* watches.c and waits.c: the feed has grown by an event, or has jumped (`jumped`: look in the record). */
void gw_watches_advance(struct gw_region *r);
void gw_watches_stop(struct gw_gateway *gw);
void gw_waits_event(struct gw_region *r, const Harpoon__V1__Event *event);
void gw_waits_jumped(struct gw_region *r);
/* The stream is away: whoever waits is told what there is now. */
void gw_waits_blind(struct gw_region *r);
void gw_waits_stop(struct gw_gateway *gw);

/* Handlers; rpc_table.c binds them. */
void gw_on_change(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_change_cancel(struct hp_rpc_call *call);
void gw_on_submit_start(struct hp_rpc_call *call);
void gw_on_submit(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_submit_half_close(struct hp_rpc_call *call);
void gw_on_submit_cancel(struct hp_rpc_call *call);
void gw_on_watch(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_watch_writable(struct hp_rpc_call *call);
void gw_on_watch_cancel(struct hp_rpc_call *call);
void gw_on_wait(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_wait_cancel(struct hp_rpc_call *call);
void gw_on_get_container(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_list_containers(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_get_operation(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_list_operations(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_get_host(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_list_hosts(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_list_events(struct hp_rpc_call *call, const ProtobufCMessage *request);
void gw_on_read_cancel(struct hp_rpc_call *call);

extern const struct hp_rpc_method *const gw_methods[];

#endif
