/* Streams over real sockets on ports that the kernel chooses, plain and TLS, both ends in one loop. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/stream.h"
#include "io/stream_private.h"
#include "io/tls.h"
#include "lib/pki.h"

enum { PATIENCE_MS = 20000 };

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

static void on_open(struct hp_stream *s, void *user)
{
    struct end *e = user;
    assert_ptr_equal(s, e->stream);
    assert_int_equal(e->opened++, 0);
    assert_int_equal(e->got_len, 0);
    snprintf(e->uri, sizeof e->uri, "%s", hp_stream_peer_uri(s) ? hp_stream_peer_uri(s) : "");
    snprintf(e->cn, sizeof e->cn, "%s", hp_stream_peer_cn(s) ? hp_stream_peer_cn(s) : "");
    snprintf(e->alpn, sizeof e->alpn, "%s", hp_stream_alpn(s) ? hp_stream_alpn(s) : "");
    snprintf(e->peer, sizeof e->peer, "%s", hp_stream_peer(s));
    e->resumed = s->ssl && SSL_session_reused(s->ssl);
    if (e->close_in_open)
        hp_stream_close(s, 0);
}

static void on_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct end *e = user;
    assert_int_equal(e->opened, 1);
    assert_int_equal(e->closed, 0);
    e->got = realloc(e->got, e->got_len + len + 1);
    memcpy(e->got + e->got_len, data, len);
    e->got_len += len;
    e->got[e->got_len] = '\0';
    if (e->echo)
        assert_int_equal(hp_stream_write(s, data, len), 0);
    if (e->pause_in_read)
        hp_stream_pause(s);
}

static void on_writable(struct hp_stream *s, void *user)
{
    struct end *e = user;
    assert_true(hp_stream_queued(s) <= s->write_queue_max / 2);
    e->writable++;
}

static void on_close(struct hp_stream *s, const struct hp_error *error, void *user)
{
    struct end *e = user;
    assert_ptr_equal(s, e->stream);
    e->closed++;
    e->error = *error;
    e->stream = NULL;
}

static const struct hp_stream_events events = {on_open, on_read, on_writable, on_close};

static void on_accept(struct hp_listener *l, struct hp_stream *s, void *user)
{
    struct world *w = user;
    assert_true(w->accepted < 8);
    struct end *e = &w->server[w->accepted++];
    *e = w->server_template;
    e->stream = s;
    hp_stream_set_events(s, &events);
    hp_stream_set_user(s, e);
    (void)l;
}

/* Ticks, because conditions also change at the end of a turn, before the loop waits. */
static void tick(uv_timer_t *t)
{
    struct world *w = t->data;
    w->late = uv_now(&w->loop) > w->give_up_ms;
}

#define WAIT_FOR(w, condition)                                                                                         \
    do {                                                                                                               \
        while (!(condition)) {                                                                                         \
            uv_run(&(w)->loop, UV_RUN_ONCE);                                                                           \
            if ((w)->late)                                                                                             \
                fail_msg("waited too long for: %s", #condition);                                                       \
        }                                                                                                              \
    } while (0)

static void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->patience);
    w->patience.data = w;
    w->give_up_ms = uv_now(&w->loop) + PATIENCE_MS;
    uv_timer_start(&w->patience, tick, 1, 1);
}

static void world_tls(struct world *w, bool require_peer, const char *alpn)
{
    struct hp_error e = {0};
    w->pki = pki_new("test CA");
    w->server_leaf = pki_issue(w->pki, "router", "IP:127.0.0.1,DNS:localhost", false);
    w->client_leaf = pki_issue(w->pki, "h1", "URI:harpoon://regions/r1/hosts/h1", false);
    struct hp_tls_options so = {.role = HP_TLS_SERVER, .require_peer = require_peer, .alpn = alpn};
    struct hp_tls_options co = {.role = HP_TLS_CLIENT};
    assert_int_equal(hp_tls_context_new_pem(&so, pki_ca_pem(w->pki), w->server_leaf.cert_pem, w->server_leaf.key_pem,
                                            &w->server_tls, &e),
                     0);
    assert_int_equal(hp_tls_context_new_pem(&co, pki_ca_pem(w->pki), w->client_leaf.cert_pem, w->client_leaf.key_pem,
                                            &w->client_tls, &e),
                     0);
}

static void world_listen(struct world *w, struct hp_listener_options *o)
{
    struct hp_error e = {0};
    if (!o->stream.tls)
        o->stream.tls = w->server_tls;
    assert_int_equal(hp_listener_start(&w->loop, "127.0.0.1:0", o, on_accept, w, &w->listener, &e), 0);
}

static void world_connect_with(struct world *w, struct end *client, const char *server_name,
                               const struct hp_stream_options *o)
{
    struct hp_error e = {0};
    assert_int_equal(hp_stream_connect(&w->loop, hp_listener_address(w->listener), server_name, o, &events, client,
                                       &client->stream, &e),
                     0);
    assert_int_equal(client->opened + client->closed, 0);
}

static void world_connect(struct world *w, struct end *client)
{
    struct hp_stream_options o = {.tls = w->client_tls};
    world_connect_with(w, client, NULL, &o);
}

/* Ends what is open, and checks that the loop ends by itself: nothing was left behind. */
static void world_done(struct world *w)
{
    for (int i = 0; i < w->accepted; i++) {
        if (w->server[i].stream)
            hp_stream_close(w->server[i].stream, 0);
    }
    hp_listener_close(w->listener);
    uv_close((uv_handle_t *)&w->patience, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    for (int i = 0; i < w->accepted; i++) {
        assert_int_equal(w->server[i].closed, 1);
        free(w->server[i].got);
    }
    assert_int_equal(uv_loop_close(&w->loop), 0);
    hp_tls_context_unref(w->server_tls);
    hp_tls_context_unref(w->client_tls);
    if (w->pki) {
        pki_leaf_done(&w->server_leaf);
        pki_leaf_done(&w->client_leaf);
        pki_free(w->pki);
    }
}

static void echoes(struct world *w)
{
    struct end client = {0};
    w->server_template.echo = true;
    world_listen(w, &(struct hp_listener_options){0});
    world_connect(w, &client);
    assert_int_equal(hp_stream_write(client.stream, "hel", 3), 0); /* before it is open */
    assert_int_equal(hp_stream_write(client.stream, "lo", 2), 0);
    WAIT_FOR(w, client.got_len == 5);
    assert_string_equal(client.got, "hello");
    assert_int_equal(w->server[0].opened, 1);
    hp_stream_close(client.stream, 1000);
    hp_stream_close(client.stream, 1000);
    assert_int_equal(hp_stream_write(client.stream, "x", 1), HP_ECANCELED);
    WAIT_FOR(w, client.closed && w->server[0].closed);
    assert_int_equal(client.error.code, 0);
    assert_int_equal(w->server[0].error.code, HP_EUNAVAILABLE);
    assert_non_null(strstr(w->server[0].error.message, "closed by the peer"));
    free(client.got);
}

static void plain_echo(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    echoes(&w);
    world_done(&w);
}

static void tls_echo_knows_the_peer(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    echoes(&w);
    assert_string_equal(w.server[0].uri, "harpoon://regions/r1/hosts/h1");
    assert_string_equal(w.server[0].cn, "h1");
    assert_int_equal(strncmp(w.server[0].peer, "127.0.0.1:", 10), 0);
    world_done(&w);
}

static void second_connection_resumes_the_session(void **state)
{
    struct world w;
    struct end first = {0}, second = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    w.server_template.echo = true;
    world_listen(&w, &(struct hp_listener_options){0});
    world_connect(&w, &first);
    assert_int_equal(hp_stream_write(first.stream, "1", 1), 0);
    WAIT_FOR(&w, first.got_len == 1);
    hp_stream_close(first.stream, 0);
    WAIT_FOR(&w, first.closed);
    world_connect(&w, &second);
    WAIT_FOR(&w, second.opened && w.server[1].opened);
    assert_false(first.resumed);
    assert_true(second.resumed);
    assert_true(w.server[1].resumed);
    assert_string_equal(w.server[1].uri, "harpoon://regions/r1/hosts/h1");
    hp_stream_close(second.stream, 0);
    WAIT_FOR(&w, second.closed);
    free(first.got);
    world_done(&w);
}

/* Tickets are not verified again by OpenSSL: an expired certificate must not live on by them. */
static void resumption_ends_with_the_certificate(void **state)
{
    struct world w;
    struct end first = {0}, second = {0};
    struct hp_error e = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    w.server_template.echo = true;
    world_listen(&w, &(struct hp_listener_options){0});
    struct pki_leaf brief = pki_issue_for(w.pki, "h1", NULL, 2);
    struct hp_tls_options co = {.role = HP_TLS_CLIENT};
    hp_tls_context_unref(w.client_tls);
    assert_int_equal(hp_tls_context_new_pem(&co, pki_ca_pem(w.pki), brief.cert_pem, brief.key_pem, &w.client_tls, &e),
                     0);
    world_connect(&w, &first);
    assert_int_equal(hp_stream_write(first.stream, "1", 1), 0);
    WAIT_FOR(&w, first.got_len == 1);
    hp_stream_close(first.stream, 0);
    uint64_t expired_ms = uv_now(&w.loop) + 3000;
    WAIT_FOR(&w, first.closed && uv_now(&w.loop) > expired_ms);
    world_connect(&w, &second);
    WAIT_FOR(&w, second.closed && w.server[1].closed);
    assert_int_equal(w.server[1].opened, 0);
    assert_int_equal(w.server[1].error.code, HP_EPERM);
    assert_non_null(strstr(w.server[1].error.message, "expired"));
    pki_leaf_done(&brief);
    free(first.got);
    world_done(&w);
}

static void alpn_is_agreed_or_refused(void **state)
{
    struct world w;
    struct end agreed = {0}, refused = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, false, "h2,http/1.1");
    world_listen(&w, &(struct hp_listener_options){0});
    struct hp_stream_options o = {.tls = w.client_tls, .alpn = "http/1.1"};
    world_connect_with(&w, &agreed, "localhost", &o);
    WAIT_FOR(&w, agreed.opened && w.server[0].opened);
    assert_string_equal(agreed.alpn, "http/1.1");
    assert_string_equal(w.server[0].alpn, "http/1.1");
    o.alpn = "spdy/1";
    world_connect_with(&w, &refused, NULL, &o);
    WAIT_FOR(&w, refused.closed);
    assert_int_equal(refused.error.code, HP_EPROTO);
    assert_non_null(strstr(refused.error.message, "application protocol"));
    hp_stream_close(agreed.stream, 0);
    WAIT_FOR(&w, agreed.closed);
    world_done(&w);
}

/* A client with the given leaf and CA against a server that wants certificates of its own CA. */
static void refused_client(const struct pki *leaf_of, const struct pki *trusts, bool expired, bool with_leaf,
                           const char *server_name, struct end *client, struct world *w)
{
    struct hp_error e = {0};
    struct hp_tls_context *tls = NULL;
    struct pki_leaf leaf = pki_issue(leaf_of, "intruder", NULL, expired);
    struct hp_tls_options co = {.role = HP_TLS_CLIENT};
    assert_int_equal(hp_tls_context_new_pem(&co, pki_ca_pem(trusts), with_leaf ? leaf.cert_pem : NULL,
                                            with_leaf ? leaf.key_pem : NULL, &tls, &e),
                     0);
    struct hp_stream_options o = {.tls = tls};
    world_connect_with(w, client, server_name, &o);
    hp_tls_context_unref(tls); /* the stream has its own reference */
    /* Data that is under way when the server refuses must not hide the reason. */
    assert_int_equal(hp_stream_write(client->stream, "hello", 5), 0);
    WAIT_FOR(w, client->closed && w->server[w->accepted - 1].closed);
    pki_leaf_done(&leaf);
}

static void certificates_are_verified(void **state)
{
    struct world w;
    struct end c[5] = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){0});
    struct pki *other = pki_new("another CA");

    refused_client(other, w.pki, false, true, NULL, &c[0], &w); /* unknown to the server */
    assert_int_equal(w.server[0].error.code, HP_EPERM);
    assert_int_equal(c[0].error.code, HP_EPERM);
    assert_int_equal(w.server[0].opened, 0);

    refused_client(w.pki, w.pki, true, true, NULL, &c[1], &w); /* expired */
    assert_non_null(strstr(w.server[1].error.message, "certificate has expired"));
    assert_int_equal(c[1].error.code, HP_EPERM);

    refused_client(w.pki, w.pki, false, false, NULL, &c[2], &w); /* none */
    assert_int_equal(w.server[2].error.code, HP_EPERM);
    assert_non_null(strstr(w.server[2].error.message, "did not return a certificate"));
    assert_int_equal(c[2].error.code, HP_EPERM);
    assert_non_null(strstr(c[2].error.message, "certificate required"));

    refused_client(w.pki, other, false, true, NULL, &c[3], &w); /* a server that the client does not trust */
    assert_int_equal(c[3].error.code, HP_EPERM);
    assert_int_equal(c[3].opened, 0);

    refused_client(w.pki, w.pki, false, true, "elsewhere.example", &c[4], &w);
    assert_int_equal(c[4].error.code, HP_EPERM);
    assert_non_null(strstr(c[4].error.message, "hostname mismatch"));
    pki_free(other);
    world_done(&w);
}

static void silent_client_meets_the_deadline(void **state)
{
    struct world w;
    struct end client = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){.stream = {.handshake_ms = 30}});
    struct hp_stream_options plain = {0};
    world_connect_with(&w, &client, NULL, &plain);
    WAIT_FOR(&w, w.accepted && w.server[0].closed && client.closed);
    assert_int_equal(w.server[0].error.code, HP_ETIMEDOUT);
    assert_int_equal(w.server[0].opened, 0);
    world_done(&w);
}

static void garbage_is_no_handshake(void **state)
{
    struct world w;
    struct end client = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){0});
    struct hp_stream_options plain = {0};
    world_connect_with(&w, &client, NULL, &plain);
    assert_int_equal(hp_stream_write(client.stream, "GET / HTTP/1.1\r\n\r\n", 18), 0);
    WAIT_FOR(&w, w.accepted && w.server[0].closed && client.closed);
    assert_int_equal(w.server[0].error.code, HP_EPROTO);
    world_done(&w);
    free(client.got);
}

/* A sender that is faster than the reader: the queue fills, writes are refused whole, on_writable comes, and no byte is lost or out of order. */
static void back_pressure(struct world *w)
{
    enum { PIECE = 40000, TOTAL = 200 };
    struct end client = {0};
    static uint8_t piece[PIECE];
    w->server_template.pause_in_read = true;
    world_listen(w, &(struct hp_listener_options){0});
    struct hp_stream_options o = {.tls = w->client_tls, .write_queue_max = 256 * 1024};
    world_connect_with(w, &client, NULL, &o);
    int sent = 0, refused = 0;
    while (sent < TOTAL) {
        memset(piece, 'a' + sent % 26, PIECE);
        int seen = client.writable;
        int rc = hp_stream_write(client.stream, piece, PIECE);
        if (rc == 0) {
            sent++;
            continue;
        }
        assert_int_equal(rc, HP_ELIMIT);
        refused++;
        if (w->accepted && w->server[0].stream)
            hp_stream_resume(w->server[0].stream);
        for (int i = 0; i < 1000 && client.writable == seen; i++) {
            uv_run(&w->loop, UV_RUN_NOWAIT);
            if (w->accepted && w->server[0].stream)
                hp_stream_resume(w->server[0].stream);
        }
    }
    assert_true(refused > 0);
    assert_true(client.writable > 0);
    hp_stream_close(client.stream, PATIENCE_MS);
    while (!w->server[0].closed && !w->late) {
        hp_stream_resume(w->server[0].stream);
        uv_run(&w->loop, UV_RUN_NOWAIT); /* a pause in each read: nothing would wake the loop */
    }
    WAIT_FOR(w, client.closed);
    assert_int_equal(client.error.code, 0);
    assert_int_equal(w->server[0].got_len, (size_t)PIECE * TOTAL);
    for (int i = 0; i < TOTAL; i++)
        assert_int_equal(w->server[0].got[(size_t)i * PIECE + PIECE / 2], 'a' + i % 26);
}

static void plain_back_pressure(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    back_pressure(&w);
    world_done(&w);
}

static void tls_back_pressure(void **state)
{
    struct world w;
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    back_pressure(&w);
    world_done(&w);
}

static void peer_that_never_reads_meets_the_linger(void **state)
{
    enum { PIECE = 1024 * 1024 };
    struct world w;
    struct end client = {0};
    (void)state;
    world_init(&w);
    world_listen(&w, &(struct hp_listener_options){0});
    struct hp_stream_options o = {.write_queue_max = 64 * PIECE};
    world_connect_with(&w, &client, NULL, &o);
    WAIT_FOR(&w, client.opened && w.accepted && w.server[0].opened);
    hp_stream_pause(w.server[0].stream);
    uint8_t *piece = calloc(1, PIECE);
    for (int i = 0; i < 32; i++)
        assert_int_equal(hp_stream_write(client.stream, piece, PIECE), 0);
    free(piece);
    hp_stream_close(client.stream, 30);
    WAIT_FOR(&w, client.closed);
    assert_int_equal(client.error.code, 0);
    world_done(&w);
}

static void connecting_fails_in_words(void **state)
{
    struct world w;
    struct end refused = {0}, unknown = {0};
    struct hp_stream *s = NULL;
    struct hp_error e = {0};
    struct hp_stream_options o = {0};
    (void)state;
    world_init(&w);
    world_listen(&w, &(struct hp_listener_options){0});
    static const char *const bad[] = {"127.0.0.1",       "127.0.0.1:", ":80",    "127.0.0.1:x",
                                      "127.0.0.1:70000", "::1:80",     "[::1:80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hp_stream_connect(&w.loop, bad[i], NULL, &o, &events, NULL, &s, &e), HP_EINVAL);
    o.source_ip = "here";
    assert_int_equal(hp_stream_connect(&w.loop, "127.0.0.1:1", NULL, &o, &events, NULL, &s, &e), HP_EINVAL);
    o.source_ip = NULL;
    assert_int_equal(hp_listener_start(&w.loop, "localhost:0", &(struct hp_listener_options){0}, on_accept, &w,
                                       &(struct hp_listener *){NULL}, &e),
                     HP_EINVAL);
    assert_int_equal(hp_listener_start(&w.loop, hp_listener_address(w.listener), &(struct hp_listener_options){0},
                                       on_accept, &w, &(struct hp_listener *){NULL}, &e),
                     HP_EEXISTS);
    char address[80];
    snprintf(address, sizeof address, "%s", hp_listener_address(w.listener));
    hp_listener_close(w.listener);
    w.listener = NULL;
    uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(hp_stream_connect(&w.loop, address, NULL, &o, &events, &refused, &refused.stream, &e), 0);
    assert_int_equal(
        hp_stream_connect(&w.loop, "no-such-host.invalid:80", NULL, &o, &events, &unknown, &unknown.stream, &e), 0);
    WAIT_FOR(&w, refused.closed && unknown.closed);
    assert_int_equal(refused.error.code, HP_EUNAVAILABLE);
    assert_non_null(strstr(refused.error.message, "connection refused"));
    assert_int_equal(unknown.error.code, HP_EUNAVAILABLE);
    assert_non_null(strstr(unknown.error.message, "resolve no-such-host.invalid:80"));
    world_done(&w);
}

/* "localhost" may be ::1 first, where nobody listens: the next address is tried. */
static void names_are_resolved(void **state)
{
    struct world w;
    struct end client = {0};
    char address[80];
    struct hp_error e = {0};
    struct hp_stream_options o = {0};
    (void)state;
    world_init(&w);
    world_listen(&w, &(struct hp_listener_options){0});
    snprintf(address, sizeof address, "localhost:%s", strrchr(hp_listener_address(w.listener), ':') + 1);
    assert_int_equal(hp_stream_connect(&w.loop, address, NULL, &o, &events, &client, &client.stream, &e), 0);
    WAIT_FOR(&w, client.opened);
    hp_stream_close(client.stream, 0);
    WAIT_FOR(&w, client.closed);
    world_done(&w);
}

static void source_address_is_used(void **state)
{
    struct world w;
    struct end client = {0};
    struct hp_stream_options o = {.source_ip = "127.0.0.9"};
    (void)state;
    world_init(&w);
    world_listen(&w, &(struct hp_listener_options){0});
    world_connect_with(&w, &client, NULL, &o);
    WAIT_FOR(&w, client.opened && w.accepted && w.server[0].opened);
    assert_int_equal(strncmp(w.server[0].peer, "127.0.0.9:", 10), 0);
    hp_stream_close(client.stream, 0);
    WAIT_FOR(&w, client.closed);
    world_done(&w);
}

static void closing_at_any_time_calls_back_once(void **state)
{
    struct world w;
    struct end at_once = {0}, resolving = {0}, opening = {.close_in_open = true}, shaking = {0};
    struct hp_error e = {0};
    struct hp_stream_options o = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){0});
    world_connect(&w, &at_once);
    hp_stream_close(at_once.stream, 1000);
    assert_int_equal(hp_stream_connect(&w.loop, "localhost:1", NULL, &o, &events, &resolving, &resolving.stream, &e),
                     0);
    hp_stream_close(resolving.stream, 0);
    world_connect(&w, &opening);
    world_connect(&w, &shaking);
    WAIT_FOR(&w, !shaking.stream || shaking.stream->state == HP_STREAM_HANDSHAKE);
    hp_stream_close(shaking.stream, 1000);
    WAIT_FOR(&w, at_once.closed && resolving.closed && opening.closed && shaking.closed);
    assert_int_equal(at_once.error.code, 0);
    assert_int_equal(resolving.error.code, 0);
    assert_int_equal(opening.error.code, 0);
    assert_int_equal(shaking.error.code, 0);
    assert_int_equal(at_once.opened + resolving.opened + shaking.opened, 0);
    world_done(&w);
}

static void connections_over_the_limit_are_closed(void **state)
{
    struct world w;
    struct end first = {0}, second = {0}, third = {0};
    (void)state;
    world_init(&w);
    world_listen(&w, &(struct hp_listener_options){.connections_max = 1});
    world_connect(&w, &first);
    WAIT_FOR(&w, w.accepted == 1 && w.server[0].opened && first.opened);
    world_connect(&w, &second);
    WAIT_FOR(&w, second.closed);
    assert_int_equal(w.accepted, 1);
    hp_stream_close(first.stream, 0);
    WAIT_FOR(&w, first.closed && w.server[0].closed);
    world_connect(&w, &third);
    WAIT_FOR(&w, w.accepted == 2 && w.server[1].opened);
    hp_stream_close(third.stream, 0);
    WAIT_FOR(&w, third.closed);
    world_done(&w);
}

static void handshakes_over_the_limit_wait(void **state)
{
    struct world w;
    struct end silent = {0}, shy = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){.handshakes_max = 1});
    struct hp_stream_options plain = {0};
    world_connect_with(&w, &silent, NULL, &plain);
    WAIT_FOR(&w, w.accepted == 1);
    world_connect(&w, &shy);
    WAIT_FOR(&w, shy.stream->state == HP_STREAM_HANDSHAKE);
    for (int i = 0; i < 20; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.accepted, 1);
    assert_int_equal(shy.opened, 0);
    hp_stream_close(silent.stream, 0);
    WAIT_FOR(&w, shy.opened && w.accepted == 2 && w.server[1].opened);
    hp_stream_close(shy.stream, 0);
    WAIT_FOR(&w, shy.closed && silent.closed);
    world_done(&w);
}

static void context_errors_name_the_part(void **state)
{
    struct pki *p = pki_new("CA"), *q = pki_new("CA 2");
    struct pki_leaf a = pki_issue(p, "a", NULL, false), b = pki_issue(q, "b", NULL, false);
    struct hp_tls_options server = {.role = HP_TLS_SERVER, .require_peer = true}, client = {.role = HP_TLS_CLIENT};
    struct hp_tls_context *c = NULL;
    struct hp_error e = {0};
    (void)state;
    assert_int_equal(hp_tls_context_new_pem(&client, NULL, NULL, NULL, &c, &e), HP_EINVAL);
    assert_int_equal(hp_tls_context_new_pem(&server, pki_ca_pem(p), NULL, NULL, &c, &e), HP_EINVAL);
    assert_int_equal(hp_tls_context_new_pem(&server, NULL, a.cert_pem, a.key_pem, &c, &e), HP_EINVAL);
    assert_int_equal(hp_tls_context_new_pem(&client, pki_ca_pem(p), a.cert_pem, NULL, &c, &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "key is missing"));
    assert_int_equal(hp_tls_context_new_pem(&server, pki_ca_pem(p), a.cert_pem, b.key_pem, &c, &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "private key in the key text"));
    assert_int_equal(hp_tls_context_new_pem(&server, "nonsense", a.cert_pem, a.key_pem, &c, &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "CA certificates in the CA text"));
    client.ca_file = "/nonexistent/ca.pem";
    assert_int_equal(hp_tls_context_new(&client, &c, &e), HP_ENOTFOUND);
    assert_non_null(strstr(e.message, "/nonexistent/ca.pem"));
    assert_null(c);
    pki_leaf_done(&a);
    pki_leaf_done(&b);
    pki_free(p);
    pki_free(q);
}

/* ---- What an idle TLS connection costs the server ---- */

enum { IDLE = 200 };

struct crowd {
    struct hp_stream *streams[IDLE];
    int opened, accepted;
    size_t heard;
};

static void crowd_open(struct hp_stream *s, void *user)
{
    ((struct crowd *)user)->opened++;
    (void)s;
}

static void crowd_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    (void)data;
    ((struct crowd *)user)->heard += len;
    assert_int_equal(hp_stream_write(s, data, len), 0);
}

static const struct hp_stream_events crowd_events = {crowd_open, crowd_read, NULL, NULL};

static void crowd_accept(struct hp_listener *l, struct hp_stream *s, void *user)
{
    struct crowd *c = user;
    (void)l;
    c->streams[c->accepted++] = s;
    hp_stream_set_events(s, &crowd_events);
    hp_stream_set_user(s, c);
}

static void client_open(struct hp_stream *s, void *user)
{
    char hello[300] = "hello";
    (void)user;
    if (hp_stream_write(s, hello, sizeof hello))
        _exit(4);
}

static void client_process(const struct world *w, const char *address)
{
    static const struct hp_stream_events ev = {client_open, NULL, NULL, NULL};
    uv_loop_t loop;
    struct hp_error e = {0};
    struct hp_tls_context *tls = NULL;
    struct hp_tls_options co = {.role = HP_TLS_CLIENT};
    uv_loop_init(&loop);
    if (hp_tls_context_new_pem(&co, pki_ca_pem(w->pki), w->client_leaf.cert_pem, w->client_leaf.key_pem, &tls, &e))
        _exit(2);
    struct hp_stream_options o = {.tls = tls};
    for (int i = 0; i < IDLE; i++) {
        struct hp_stream *s;
        if (hp_stream_connect(&loop, address, NULL, &o, &ev, NULL, &s, &e))
            _exit(3);
    }
    uv_run(&loop, UV_RUN_DEFAULT); /* until the server closes them */
    _exit(0);
}

static void idle_connection_is_small(void **state)
{
    struct world w;
    struct crowd *c = calloc(1, sizeof *c);
    struct hp_error e = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    struct hp_listener_options o = {.stream = {.tls = w.server_tls}};
    assert_int_equal(hp_listener_start(&w.loop, "127.0.0.1:0", &o, crowd_accept, c, &w.listener, &e), 0);
    size_t before = mallinfo2().uordblks;
    pid_t child = fork();
    if (child == 0)
        client_process(&w, hp_listener_address(w.listener));
    WAIT_FOR(&w, c->opened == IDLE && c->heard == (size_t)IDLE * 300);
    uv_run(&w.loop, UV_RUN_NOWAIT);
    size_t each = (mallinfo2().uordblks - before) / IDLE;
    print_message("an idle TLS connection holds %zu bytes of heap\n", each);
    assert_true(each < 18 * 1024);
    for (int i = 0; i < IDLE; i++)
        hp_stream_close(c->streams[i], 0);
    world_done(&w);
    int status = 0;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_echo),
        cmocka_unit_test(tls_echo_knows_the_peer),
        cmocka_unit_test(second_connection_resumes_the_session),
        cmocka_unit_test(resumption_ends_with_the_certificate),
        cmocka_unit_test(alpn_is_agreed_or_refused),
        cmocka_unit_test(certificates_are_verified),
        cmocka_unit_test(silent_client_meets_the_deadline),
        cmocka_unit_test(garbage_is_no_handshake),
        cmocka_unit_test(plain_back_pressure),
        cmocka_unit_test(tls_back_pressure),
        cmocka_unit_test(peer_that_never_reads_meets_the_linger),
        cmocka_unit_test(connecting_fails_in_words),
        cmocka_unit_test(names_are_resolved),
        cmocka_unit_test(source_address_is_used),
        cmocka_unit_test(closing_at_any_time_calls_back_once),
        cmocka_unit_test(connections_over_the_limit_are_closed),
        cmocka_unit_test(handshakes_over_the_limit_wait),
        cmocka_unit_test(context_errors_name_the_part),
        cmocka_unit_test(idle_connection_is_small),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
