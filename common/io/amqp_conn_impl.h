/* amqp_conn_impl.h — what amqp_conn.c (life, time, output) and amqp_input.c (the broker's frames) share; for these two only. */
#ifndef HP_IO_AMQP_CONN_IMPL_H
#define HP_IO_AMQP_CONN_IMPL_H

#include "base/backoff.h"
#include "io/amqp_conn.h"
#include "io/amqp_login.h"

enum { HP_AMQP_BACKOFF_MAX_MS = 5000 };

enum hp_amqp_conn_state { WAITING, CONNECTING, STARTING, TUNING, OPENING, DECLARING, OPEN, CLOSING, DROPPING };

/* A content that is being put together. */
struct hp_amqp_channel {
    amqp_pool_t pool;               /* holds what is decoded until the method or content is handed over */
    struct hp_amqp_content content; /* id 0: none under way */
    uint8_t *assembly;              /* body of several frames; NULL otherwise */
    uint64_t have;                  /* body bytes seen */
};

struct hp_amqp_conn {
    uv_loop_t *loop;
    const struct hp_amqp_conn_events *ev;
    void *user;
    struct hp_amqp_login login;      /* address, credentials, limits */
    struct hp_tls_context *tls;      /* NULL: plain TCP */
    struct hp_amqp_object *topology; /* ends with name NULL */
    enum hp_amqp_conn_state state;
    bool closing;              /* hp_amqp_conn_close was called */
    bool stalled;              /* the stream is full */
    bool suspect;              /* the peer was silent for too long when last looked at */
    struct hp_stream *stream;  /* NULL when WAITING */
    struct hp_error error;     /* why the connection ends */
    uv_timer_t timer;          /* next of: retry, reply due, heartbeat */
    uv_idle_t idle;            /* active: a turn was asked for */
    int open_handles;          /* of the two above */
    struct hp_backoff backoff; /* between attempts */
    struct hp_rng rng;         /* its jitter */
    unsigned misses;           /* attempts and connections that ended since one lasted */
    uint64_t retry_at_ms;      /* WAITING */
    uint64_t retry_min_ms;     /* of the failure under way */
    uint64_t settled_at_ms;    /* 0: not yet */
    bool undeclared; /* the last connection that got so far ended while DECLARING, and trying again may help */
    uint64_t
        remake_until_ms;   /* until then the topology's streams are deleted before they are declared; 0: not wanted */
    int deleting;          /* of them, DECLARING: not answered yet */
    uint64_t reply_due_ms; /* 0: none */
    int replies;           /* still due */
    int declared;          /* objects answered while DECLARING; -1: channel.open-ok still due */
    uint64_t heartbeat_ms; /* negotiated; 0 none */
    uint64_t sent_ms, received_ms; /* last traffic */
    size_t frame_max;              /* negotiated */
    struct hp_buf out;             /* encoded, not yet given to the stream */
    struct hp_buf in;              /* an incomplete frame */
    uint16_t channel_count;
    struct hp_amqp_channel channels[]; /* 0 is the connection's own */
};

/* All whole frames of the input so far; the rest is kept. On failure the connection is of no more use; c->retry_min_ms is set where trying soon does not help. */
int hp_amqp_conn_input(struct hp_amqp_conn *c, const uint8_t *data, size_t len, struct hp_error *e) HP_MUST_CHECK;
/* Forgets every message under way. */
void hp_amqp_conn_reset_channels(struct hp_amqp_conn *c);

#endif
