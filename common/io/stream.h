/* stream.h — a TCP or TLS byte stream on the loop: reads by callback, writes with a bounded queue, and listeners for both. */
#ifndef HP_IO_STREAM_H
#define HP_IO_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/error.h"

struct hp_tls_context; /* io/tls.h; NULL means plain TCP */
struct hp_stream;
struct hp_listener;

/* Everything is called on the loop thread and never from inside a function of this header. */
struct hp_stream_events {
    /* The connection (and TLS handshake) is done; for accepted streams it comes before the first read. */
    void (*on_open)(struct hp_stream *s, void *user);
    /* `data` is valid during the call only. */
    void (*on_read)(struct hp_stream *s, const uint8_t *data, size_t len, void *user);
    /* The write queue has fallen below half of its limit after hp_stream_write returned HP_ELIMIT or had queued bytes. */
    void (*on_writable)(struct hp_stream *s, void *user);
    /* Exactly once, last: `e` is clear for an orderly end by hp_stream_close. The stream is freed after it returns. */
    void (*on_close)(struct hp_stream *s, const struct hp_error *e, void *user);
};

struct hp_stream_options {
    struct hp_tls_context *tls; /* borrowed; NULL: plain */
    size_t write_queue_max;     /* bytes; 0: 1 MiB */
    uint64_t handshake_ms;      /* connect and handshake deadline; 0: 10,000 */
    const char *alpn;           /* client: protocol to offer, such as "h2"; NULL none */
    const char *source_ip;      /* client: numeric address to connect from; NULL: the kernel's choice */
};

/* Connects to "host:port" ("[v6]:port"). Resolves on libuv's pool. Errors come through on_close. `server_name` for TLS (SNI and check); NULL: host. */
int hp_stream_connect(uv_loop_t *loop, const char *address, const char *server_name, const struct hp_stream_options *o,
                      const struct hp_stream_events *ev, void *user, struct hp_stream **ret,
                      struct hp_error *e) HP_MUST_CHECK;

/* Copies and queues. HP_ELIMIT when the queue would pass write_queue_max: nothing was taken; HP_ECANCELED after close. */
int hp_stream_write(struct hp_stream *s, const void *data, size_t len) HP_MUST_CHECK;
size_t hp_stream_queued(const struct hp_stream *s);
/* Stops and resumes on_read: back-pressure to the peer. */
void hp_stream_pause(struct hp_stream *s);
void hp_stream_resume(struct hp_stream *s);
/* Sends what is queued (at most `linger_ms`), then closes; on_close follows. Idempotent. */
void hp_stream_close(struct hp_stream *s, uint64_t linger_ms);
void hp_stream_set_user(struct hp_stream *s, void *user);
void hp_stream_set_events(struct hp_stream *s, const struct hp_stream_events *ev);
/* "127.0.0.1:41234"; valid while the stream is. */
const char *hp_stream_peer(const struct hp_stream *s);
/* ALPN result or NULL. */
const char *hp_stream_alpn(const struct hp_stream *s);
/* The peer's certificate: first SAN URI ("harpoon://regions/r/hosts/h"), and the subject's CN; NULL when none was given. */
const char *hp_stream_peer_uri(const struct hp_stream *s);
const char *hp_stream_peer_cn(const struct hp_stream *s);

struct hp_listener_options {
    struct hp_stream_options stream; /* for accepted streams */
    int connections_max;             /* more are closed at once; 0: 20,000 */
    int handshakes_max;              /* TLS: more wait in the kernel's backlog until others are done; 0: 1,024 */
};
/* `accept_cb` gets a stream that is not open yet and sets its events and user. Address "127.0.0.1:0" asks the kernel for a port. */
int hp_listener_start(uv_loop_t *loop, const char *address, const struct hp_listener_options *o,
                      void (*accept_cb)(struct hp_listener *l, struct hp_stream *s, void *user), void *user,
                      struct hp_listener **ret, struct hp_error *e) HP_MUST_CHECK;
/* "127.0.0.1:41234" as bound. */
const char *hp_listener_address(const struct hp_listener *l);
/* Stops accepting; streams live on. Freed on a later turn of the loop. */
void hp_listener_close(struct hp_listener *l);

#endif
