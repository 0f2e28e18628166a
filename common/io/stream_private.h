/* stream_private.h — the inside of stream.h, shared by stream.c, stream_connect.c, stream_listen.c, stream_hub.c and stream_tls.c only. */
#ifndef HP_IO_STREAM_PRIVATE_H
#define HP_IO_STREAM_PRIVATE_H

#include <openssl/ssl.h>
#include <stdint.h>

#include "io/stream.h"

enum {
    HP_STREAM_CHUNK = 64 * 1024,      /* bytes read from a socket at a time, into one buffer per loop */
    HP_STREAM_OUT_MAX = 64 * 1024,    /* ciphertext collected before it is handed to the kernel */
    HP_STREAM_RECORD = 16 * 1024,     /* largest TLS plaintext record */
    HP_STREAM_LISTEN_BACKLOG = 4096,  /* cut to net.core.somaxconn by the kernel */
    HP_STREAM_HANDSHAKES_MAX = 1024,  /* default of hp_listener_options.handshakes_max */
    HP_STREAM_CONNECTIONS_MAX = 20000 /* default of hp_listener_options.connections_max */
};

/*
 * A stream's life. One function moves it: hp_stream_move().
 *
 *   CONNECT ──▶ HANDSHAKE ──▶ OPEN ──▶ LINGER ──▶ CLOSING ──▶ (freed)
 *      └──────▶ OPENING ───────▲                     ▲
 *   accepted ones leave CONNECT at once              │ from every state
 *
 * HANDSHAKE goes to LINGER when it fails, so that the alert reaches the peer. Invariants: no on_read and no on_writable but in OPEN; the libuv handle is closed, or
 * about to be, exactly in CLOSING and between two connection attempts.
 */
enum hp_stream_state {
    HP_STREAM_CONNECT,   /* resolving or connecting */
    HP_STREAM_OPENING,   /* plain and connected; on_open comes on the next turn */
    HP_STREAM_HANDSHAKE, /* TLS under way */
    HP_STREAM_OPEN,
    HP_STREAM_LINGER,  /* the rest is being sent, input is thrown away */
    HP_STREAM_CLOSING, /* uv_close was called; nothing but on_close follows */
};

struct hp_hub;  /* what the streams of one loop share */
struct hp_dial; /* a connection attempt */

struct hp_stream {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
    } uv;
    struct hp_hub *hub;                      /* a counted reference */
    const struct hp_stream_events *events;   /* never NULL */
    void *user;                              /* theirs */
    struct hp_stream *turn_prev, *turn_next; /* list of streams with something to do at the end of this turn */
    struct hp_stream *due_prev, *due_next;   /* list of deadlines, soonest first */
    uint64_t due_ms;                         /* loop time; valid while on the list of deadlines */
    struct hp_tls_context *tls;              /* a counted reference; NULL: plain */
    SSL *ssl;                                /* NULL: plain, or TLS not begun */
    struct hp_dial *dial;                    /* client, until connected */
    struct hp_listener *listener;            /* accepted: counted there */
    uint8_t *pending;                        /* bytes that nobody has encrypted or sent yet; NULL when none */
    size_t pending_off, pending_len;         /* the unsent part of it */
    size_t pending_cap;                      /* allocated */
    size_t inflight_bytes;                   /* handed to libuv and not yet taken by the kernel */
    uint8_t *held;                   /* input that arrived before a pause and was not processed; NULL when none */
    size_t held_len;                 /* bytes of it */
    size_t write_queue_max;          /* bytes of pending and inflight */
    struct hp_error *error;          /* why it closes; NULL: orderly, or no memory for the reason */
    char *peer;                      /* "address:port" */
    char *peer_uri, *peer_cn, *alpn; /* from the handshake; NULL when absent */
    char *session_key;               /* TLS client: under what the session is kept for resumption */
    uint32_t timeout_ms;             /* of connect and handshake */
    uint32_t linger_ms;              /* of hp_stream_close */
    uint8_t state;                   /* enum hp_stream_state */
    bool on_turn_list : 1, on_due_list : 1;
    bool reading : 1;         /* uv_read_start is in force */
    bool paused : 1;          /* by hp_stream_pause */
    bool close_asked : 1;     /* hp_stream_close was called */
    bool want_writable : 1;   /* on_writable is owed when the queue falls below half */
    bool counted_shaking : 1; /* counts in listener->handshakes */
    bool half_closed : 1;     /* LINGER: the end was sent */
};

/* One per loop: found by thread, so that streams need no setup call. */
struct hp_hub {
    struct hp_hub *next;
    uv_loop_t *loop;
    size_t refs;       /* streams, listeners */
    uv_prepare_t turn; /* active while turn_head is not NULL */
    uv_idle_t again;   /* active when a turn left work: the loop must not wait */
    uv_timer_t timer;  /* armed for due_head */
    int handles_open;  /* of the three above */
    uint64_t timer_ms; /* what the timer is armed for; 0: not */
    struct hp_stream *turn_head, *turn_tail;
    struct hp_stream *due_head, *due_tail;
    const uint8_t *in; /* ciphertext that the stream being served may read */
    size_t in_len;
    uint8_t *out; /* ciphertext of the stream being served; empty between two streams */
    size_t out_len, out_cap;
    bool out_failed; /* no memory: the stream cannot go on */
    /* Not cleared, so that only what is used becomes resident. Not thread-local, because then every thread of the process has a cleared copy. */
    uint8_t chunk[HP_STREAM_CHUNK];  /* what was read last */
    uint8_t plain[HP_STREAM_RECORD]; /* what was decrypted last */
};

/* stream_hub.c */
struct hp_hub *hp_hub_get(uv_loop_t *loop); /* a new reference; NULL: out of memory */
void hp_hub_put(struct hp_hub *h);
void hp_hub_mark(struct hp_stream *s);   /* hp_stream_turn(s) at the end of this turn of the loop */
void hp_hub_unmark(struct hp_stream *s); /* also when not marked */
void hp_hub_set_deadline(struct hp_stream *s, uint64_t after_ms);
void hp_hub_clear_deadline(struct hp_stream *s);

/* stream.c */
struct hp_stream *hp_stream_alloc(struct hp_hub *h, const struct hp_stream_options *o);
void hp_stream_discard(struct hp_stream *s); /* closes and frees one that nobody has seen; no callback */
void hp_stream_move(struct hp_stream *s, enum hp_stream_state to);
void hp_stream_connected(struct hp_stream *s); /* the socket is there: TLS or on_open next */
void hp_stream_set_open(struct hp_stream *s);  /* moves to OPEN and calls on_open */
void hp_stream_fail(struct hp_stream *s, const struct hp_error *e);
void hp_stream_fail_handshake(struct hp_stream *s,
                              const struct hp_error *e); /* lets what was sent reach the peer first */
void hp_stream_turn(struct hp_stream *s);
void hp_stream_overdue(struct hp_stream *s);
void hp_stream_deliver(struct hp_stream *s, const uint8_t *data, size_t len);
void hp_stream_closed(struct hp_stream *s);                                   /* the handle is closed: on_close, free */
int hp_stream_send_now(struct hp_stream *s, const uint8_t *data, size_t len); /* copies what the kernel does not take */
int hp_stream_uv_code(int status);
void hp_stream_format_address(const struct sockaddr *a, char *out, size_t size);

/* stream_connect.c */
void hp_dial_abandon(struct hp_stream *s); /* the stream is closing */
int hp_address_split(const char *address, char *host, size_t host_size, char *port, size_t port_size,
                     struct hp_error *e) HP_MUST_CHECK;

/* stream_listen.c */
void hp_listener_forget(struct hp_stream *s); /* the accepted stream ends */
void hp_listener_shaken(struct hp_stream *s); /* its handshake is over, well or not */

/* stream_tls.c */
int hp_stream_tls_begin(struct hp_stream *s, bool server, const char *server_name, const char *alpn,
                        struct hp_error *e) HP_MUST_CHECK;
void hp_stream_tls_input(struct hp_stream *s, const uint8_t *data, size_t len); /* handshake, decrypt, deliver */
void hp_stream_tls_flush(struct hp_stream *s);                                  /* encrypts and sends pending bytes */
void hp_stream_tls_goodbye(struct hp_stream *s);                                /* close_notify */

/* tls.c */
SSL *hp_tls_context_ssl(struct hp_tls_context *c); /* NULL: out of memory */
/* Client: the latest session with that key, borrowed, or NULL. SSL_get_app_data of a client's SSL is the key under which new ones are kept. */
SSL_SESSION *hp_tls_context_session(struct hp_tls_context *c, const char *key);

#endif
