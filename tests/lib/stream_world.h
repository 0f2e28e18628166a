/* stream_world.h — both ends of streams over real sockets, on ports that the kernel chooses, plain and TLS, in one loop. */
#ifndef HP_TESTS_STREAM_WORLD_H
#define HP_TESTS_STREAM_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/stream.h"
#include "io/stream_private.h"
#include "io/tls.h"
#include "lib/pki.h"

/* One end of a connection, and what has happened to it. */
struct end {
    struct hp_stream *stream; /* NULL once closed */
    char *got;                /* bytes read, NUL-terminated */
    size_t got_len;
    int opened, writable, closed;
    struct hp_error error;
    char uri[128], cn[64], alpn[16], peer[80];
    bool resumed;
    bool echo;          /* writes back what it reads */
    bool close_in_open; /* calls hp_stream_close in on_open */
    bool pause_in_read; /* calls hp_stream_pause in each on_read */
};

struct world {
    uv_loop_t loop;
    uv_timer_t patience;
    uint64_t give_up_ms;
    bool late;
    struct pki *pki;
    struct pki_leaf server_leaf, client_leaf;
    struct hp_tls_context *server_tls, *client_tls;
    struct hp_listener *listener;
    struct end server[8]; /* accepted, in order */
    int accepted;
    struct end server_template; /* the flags of the next accepted ends */
};

enum { PATIENCE_MS = 60000 };

/* What keeps the account in `struct end` (user), and what takes accepted streams in (user: the world). */
extern const struct hp_stream_events world_events;
void world_accept(struct hp_listener *l, struct hp_stream *s, void *user);

void world_init(struct world *w);
/* A CA, a certificate for each side, and their contexts. */
void world_tls(struct world *w, bool require_peer, const char *alpn);
/* Listens with the world's context unless `o` has another. */
void world_listen(struct world *w, struct hp_listener_options *o);
void world_connect_with(struct world *w, struct end *client, const char *server_name,
                        const struct hp_stream_options *o);
void world_connect(struct world *w, struct end *client);
/* Ends what is open, and checks that the loop ends by itself: nothing was left behind. */
void world_done(struct world *w);

#define WAIT_FOR(w, condition)                                                                                         \
    do {                                                                                                               \
        while (!(condition)) {                                                                                         \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                                           \
            if ((w)->late)                                                                                             \
                fail_msg("waited too long for: %s", #condition);                                                       \
        }                                                                                                              \
    } while (0)

#endif
