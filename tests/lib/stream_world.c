#include "lib/stream_world.h"

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

const struct hp_stream_events world_events = {on_open, on_read, on_writable, on_close};

void world_accept(struct hp_listener *l, struct hp_stream *s, void *user)
{
    struct world *w = user;
    assert_true(w->accepted < 8);
    struct end *e = &w->server[w->accepted++];
    *e = w->server_template;
    e->stream = s;
    hp_stream_set_events(s, &world_events);
    hp_stream_set_user(s, e);
    (void)l;
}

/* Ticks, because conditions also change at the end of a turn, before the loop waits. */
static void tick(uv_timer_t *t)
{
    struct world *w = t->data;
    w->late = uv_now(&w->loop) > w->give_up_ms;
}

void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    uv_loop_init(&w->loop);
    uv_timer_init(&w->loop, &w->patience);
    w->patience.data = w;
    w->give_up_ms = uv_now(&w->loop) + PATIENCE_MS;
    uv_timer_start(&w->patience, tick, 1, 1);
}

void world_tls(struct world *w, bool require_peer, const char *alpn)
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

void world_listen(struct world *w, struct hp_listener_options *o)
{
    struct hp_error e = {0};
    if (!o->stream.tls)
        o->stream.tls = w->server_tls;
    assert_int_equal(hp_listener_start(&w->loop, "127.0.0.1:0", o, world_accept, w, &w->listener, &e), 0);
}

void world_connect_with(struct world *w, struct end *client, const char *server_name, const struct hp_stream_options *o)
{
    struct hp_error e = {0};
    assert_int_equal(hp_stream_connect(&w->loop, hp_listener_address(w->listener), server_name, o, &world_events,
                                       client, &client->stream, &e),
                     0);
    assert_int_equal(client->opened + client->closed, 0);
}

void world_connect(struct world *w, struct end *client)
{
    struct hp_stream_options o = {.tls = w->client_tls};
    world_connect_with(w, client, NULL, &o);
}

void world_done(struct world *w)
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
