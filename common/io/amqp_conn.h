/* amqp_conn.h — one AMQP connection on the loop that comes back by itself: opens, declares the topology on channel 1, then hands frames to its owner. For amqp_publisher.c and
 * amqp_consumer.c only. */
#ifndef HP_IO_AMQP_CONN_H
#define HP_IO_AMQP_CONN_H

#include "io/amqp.h"
#include "io/amqp_wire.h"

enum {
    HP_AMQP_BODY_MAX = 16 << 20,     /* of one message; a longer one is not handed over */
    HP_AMQP_OUT_HIGH = 1 << 20,      /* owners stop encoding messages above this many unsent bytes */
    HP_AMQP_CONFIG_RETRY_MS = 10000, /* after a refusal that only a change of configuration can end */
};

struct hp_amqp_conn;

/* A message with its properties. Valid during the call. `body` is NULL when it was longer than HP_AMQP_BODY_MAX. */
struct hp_amqp_content {
    amqp_method_number_t id; /* basic.deliver or basic.return */
    const void *method;
    const amqp_basic_properties_t *properties;
    const uint8_t *body;
    uint64_t len;
};

/* All on the loop thread, never from inside a function of this header. */
struct hp_amqp_conn_events {
    /* The topology is declared and channel 1 is open; the owner goes on, and says hp_amqp_conn_settled when it is done. */
    void (*open)(void *user);
    /* A method on a channel of the owner; it lives during the call. */
    void (*method)(void *user, uint16_t channel, amqp_method_number_t id, const void *method);
    void (*content)(void *user, uint16_t channel, const struct hp_amqp_content *content);
    void (*blocked)(void *user, bool blocked, const char *reason);
    /* Once in the turn after hp_amqp_conn_kick, and when there is room to write again: encode what waits. */
    void (*turn)(void *user);
    /* The connection, or an attempt, ended; the next attempt comes by itself. */
    void (*down)(void *user, const struct hp_error *e);
    /* After hp_amqp_conn_close; the connection is freed. */
    void (*closed)(void *user);
};

/* `channels`: 1 and up; the owner may use 2 to `channels`. */
int hp_amqp_conn_new(uv_loop_t *loop, const struct hp_amqp_options *o, const struct hp_amqp_object *topology,
                     uint16_t channels, const struct hp_amqp_conn_events *ev, void *user, struct hp_amqp_conn **ret,
                     struct hp_error *e) HP_MUST_CHECK;
/* Asks for a turn soon. */
void hp_amqp_conn_kick(struct hp_amqp_conn *c);
bool hp_amqp_conn_is_open(const struct hp_amqp_conn *c);
/* Open, and less than HP_AMQP_OUT_HIGH waits to be sent. */
bool hp_amqp_conn_has_room(const struct hp_amqp_conn *c);
/* Where frames are appended while the connection is open; they are sent at the end of the turn, or by flush. */
struct hp_buf *hp_amqp_conn_out(struct hp_amqp_conn *c);
size_t hp_amqp_conn_frame_max(const struct hp_amqp_conn *c);
void hp_amqp_conn_flush(struct hp_amqp_conn *c);
/* One more reply, one less, is due within rpc_ms. */
void hp_amqp_conn_expect(struct hp_amqp_conn *c);
void hp_amqp_conn_answered(struct hp_amqp_conn *c);
/* All that the owner wanted is in force: the back-off starts anew with the next failure. */
void hp_amqp_conn_settled(struct hp_amqp_conn *c);
/* Gives the connection up; `down` follows on a later turn, then the next attempt, not before retry_min_ms. */
void hp_amqp_conn_drop(struct hp_amqp_conn *c, uint64_t retry_min_ms, const struct hp_error *e);
/* For a stream that the broker can no longer serve: begins anew and, on the next connection that comes about within ten seconds, deletes the topology's streams before
 * it declares them. False, and nothing happens, unless the connection is open, or the last one ended while it declared for another reason than its arguments or its rights. */
bool hp_amqp_conn_remake(struct hp_amqp_conn *c);
/* In order, within a second. `closed` follows, never from inside. */
void hp_amqp_conn_close(struct hp_amqp_conn *c);

/* The message of a channel.close or connection.close by the broker, as an error: "NOT_FOUND - no queue 'q' in vhost '/'". */
void hp_amqp_close_error(struct hp_error *e, int code, amqp_bytes_t text);

/* amqp_declare.c: deep copies, and the methods that declare them. */
struct hp_amqp_object *hp_amqp_objects_copy(const struct hp_amqp_object *objects);
void hp_amqp_objects_free(struct hp_amqp_object *objects);
int hp_amqp_put_declare(struct hp_buf *b, uint16_t channel, const struct hp_amqp_object *o,
                        struct hp_error *e) HP_MUST_CHECK;
int hp_amqp_put_delete(struct hp_buf *b, uint16_t channel, const struct hp_amqp_object *o,
                       struct hp_error *e) HP_MUST_CHECK;
/* "queue requests.r1", for messages. */
void hp_amqp_object_describe(char out[320], const struct hp_amqp_object *o);

#endif
