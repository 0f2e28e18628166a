/* amqp.h — RabbitMQ for loop-based daemons: confirmed publishing and consuming, reconnecting by itself. Everything happens on the loop thread and nothing blocks: librabbitmq
 * encodes and decodes, io/stream.h carries the bytes (docs/decisions/0004-librabbitmq-as-codec.md). */
#ifndef HP_IO_AMQP_H
#define HP_IO_AMQP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

/* "amqp://user:password@host:port/vhost" or amqps:// with the files below; several, with commas between, are nodes of one cluster, tried in turn from any one on. A comma in
 * a password is written %2C. Strings are copied. */
struct hp_amqp_options {
    const char *url;
    const char *ca_file, *cert_file, *key_file; /* amqps; cert and key for EXTERNAL */
    const char *connection_name;                /* shown in the broker's management, "broker-gw/gw-1/publish" */
    int heartbeat_s;                            /* 0: 10 */
    uint64_t connect_ms, rpc_ms;                /* 0: 5,000 each */
};

/* Declared on each (re)connect, in order, before anything else. Tables end with {0} (name NULL). */
enum hp_amqp_object_kind {
    HP_AMQP_QUEUE_QUORUM,
    HP_AMQP_QUEUE_CLASSIC,
    HP_AMQP_QUEUE_STREAM,
    HP_AMQP_FANOUT,
    HP_AMQP_BINDING
};
struct hp_amqp_object {
    enum hp_amqp_object_kind kind;
    const char *name;                         /* queue or exchange; binding: the queue */
    const char *exchange;                     /* binding */
    bool single_active, exclusive, transient; /* transient: not durable, gone with the connection when exclusive */
    int64_t length_max;                       /* messages; 0 none */
    int64_t bytes_max;                        /* streams and queues; 0 none */
    bool reject_publish;                      /* overflow: else drop-head */
    int delivery_limit;                       /* quorum; 0 none */
    const char *dead_letter_queue;            /* at-least-once through the default exchange; needs reject_publish */
    int64_t segment_bytes;                    /* streams; 0: broker's default */
    const char *max_age;                      /* streams: "7D"; NULL none */
};

enum hp_amqp_state { HP_AMQP_DOWN, HP_AMQP_UP, HP_AMQP_BLOCKED /* broker alarm: publishes wait */ };

/* ---- Publishing ---- */

enum hp_publish_outcome {
    HP_PUBLISH_CONFIRMED, /* durable as far as the queue is */
    HP_PUBLISH_REJECTED, /* basic.nack: the queue is full (reject-publish), or has no leader. When it goes on for 3 s the connection is made anew, not more often than every 10 to 60 s */
    HP_PUBLISH_RETURNED, /* mandatory and no queue */
    HP_PUBLISH_UNAVAILABLE, /* not sent: no connection (told in the next turn), blocked until the deadline, or the window of hp_publisher_options is full */
    HP_PUBLISH_UNKNOWN, /* sent, and the connection was lost (or the deadline passed) before the confirm: may or may not be there */
};

/* One publish, embedded in its owner; all pointers must stay valid until `done_cb`, which runs on the loop thread exactly once and never from
 * inside hp_publish. */
struct hp_publish {
    const char *exchange; /* "" the default one */
    const char *routing_key;
    const void *body;
    size_t body_len;
    bool mandatory, persistent;
    const char *type;           /* AMQP property; NULL none */
    const char *message_id;     /* NULL none */
    const char *correlation_id; /* NULL none */
    const char *reply_to;       /* NULL none */
    uint64_t deadline_ms;       /* from submission to outcome; 0: 5,000 */
    void (*done_cb)(struct hp_publish *p, enum hp_publish_outcome outcome);
    /* private */
    struct hp_publish *next_, *prev_;
    uint64_t tag_, expires_ms_;
    enum hp_publish_outcome outcome_;
    bool returned_;
};

struct hp_publisher;
struct hp_publisher_options {
    struct hp_amqp_options amqp;
    const struct hp_amqp_object *topology; /* copied; may be NULL */
    size_t window_max;                     /* messages submitted and not done; 0: 20,000 */
    size_t window_bytes_max;               /* 0: 64 MiB */
    /* Loop thread; may be NULL. DOWN comes with the reason, also for a first or further attempt that fails, unless it is the same reason as the last
     * time. An object that exists with other arguments is such a reason (it names the object; tried again every 10 s). */
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
};
/* Loop thread. Returns at once; connects in the background, with back-off and jitter, for ever. */
int hp_publisher_new(uv_loop_t *loop, const struct hp_publisher_options *o, struct hp_publisher **ret,
                     struct hp_error *e) HP_MUST_CHECK;
/* Loop thread. Submissions made in one turn of the loop travel together. */
void hp_publish(struct hp_publisher *p, struct hp_publish *m);
enum hp_amqp_state hp_publisher_state(const struct hp_publisher *p);
/* Loop thread. Gives the connection up, and connects anew: what is under way ends as UNKNOWN or UNAVAILABLE, on a later turn. `why` is the error that state_cb is told. */
void hp_publisher_reconnect(struct hp_publisher *p, const char *why);
/* Loop thread. For a stream that the broker can no longer serve: connects anew, and deletes the topology's streams before it declares them. What they held is lost. False, and nothing
 * happens, when the connection is neither up nor failed to declare; or when the declaration was refused for its arguments, or for want of a right. */
bool hp_publisher_remake_streams(struct hp_publisher *p);
/* Loop thread. Gives what is under way `linger_ms` to be confirmed; the rest end as UNKNOWN or UNAVAILABLE; then closed_cb, and p is freed. */
void hp_publisher_close(struct hp_publisher *p, uint64_t linger_ms, void (*closed_cb)(void *user), void *user);

/* ---- Consuming ---- */

struct hp_delivery {
    struct hp_consumer *consumer;
    int subscription;    /* index in hp_consumer_options.subscriptions */
    uint64_t tag;        /* for hp_consumer_ack; unique over reconnects */
    const uint8_t *body; /* valid until hp_delivery_free */
    size_t body_len;
    const char *type, *message_id, *correlation_id, *reply_to; /* NULL when absent; at most 255 bytes */
    bool redelivered;
    int64_t stream_offset; /* -1 unless a stream */
};

struct hp_subscription {
    const char *queue;
    int prefetch; /* unacknowledged messages: 1 to 65,535; 0 only with no_ack */
    bool no_ack, exclusive;
    const char
        *stream_start; /* streams: "first", "last", "next", or NULL with a stream_offset above 0; else not a stream */
    int64_t
        stream_offset; /* first offset wanted. After a reconnect it goes on behind the last one delivered; when none was, from the start again: "next" may then have missed some */
    bool
        stream_anew; /* after a reconnect it begins as stream_start says, not behind the last one delivered: for readers that fill what is missing by
                          themselves. A broker that lost its data counts from 0 again, and nothing would come for long otherwise */
    bool paused;     /* not consumed until hp_consumer_resume */
    /* Milliseconds that an acknowledgement of several waits for later ones, which then go with it; 0: it does not wait. Nor does it when a quarter of the prefetch waits for it, or the subscription
     * ends. Each costs a quorum queue an entry of its log. What is not acknowledged when the process dies comes again. */
    int ack_delay_ms;
};

struct hp_consumer;
struct hp_consumer_options {
    struct hp_amqp_options amqp;
    const struct hp_amqp_object *topology; /* copied; may be NULL */
    const struct hp_subscription *subscriptions;
    int subscription_count;
    /* Loop thread, in order of arrival per subscription. The delivery belongs to the callee: hp_delivery_free. When the loop is slow, at most the prefetch
     * waits. */
    void (*message_cb)(struct hp_delivery *d, void *user);
    /* Loop thread. DOWN: every delivery that is not acked will come again; older tags are void (acks of them are ignored). UP: all subscriptions that are not paused are in force. */
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
};
int hp_consumer_new(uv_loop_t *loop, const struct hp_consumer_options *o, struct hp_consumer **ret,
                    struct hp_error *e) HP_MUST_CHECK;
/* Loop thread. Also acks all earlier ones of the same subscription when `multiple`; that may wait (ack_delay_ms). */
void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple);
/* Loop thread. Dead-letters one message (basic.reject without requeue): poison only. */
void hp_consumer_reject(struct hp_consumer *c, int subscription, uint64_t tag);
/* Loop thread. Begins, or ends (basic.cancel), a subscription; unacked messages of a cancelled one are requeued when its channel closes, which this does. */
void hp_consumer_resume(struct hp_consumer *c, int subscription);
void hp_consumer_pause(struct hp_consumer *c, int subscription);
void hp_delivery_free(struct hp_delivery *d);
void hp_consumer_close(struct hp_consumer *c, void (*closed_cb)(void *user), void *user);

#endif
