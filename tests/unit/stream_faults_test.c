/* A listener whose process has no memory for a moment: the connection is closed, and the next ones are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "io/stream.h"
#include "lib/fail_alloc.h"

enum { PATIENCE_MS = 20000, CONNECTIONS_MAX = 3 };

struct end {
    bool opened, closed;
};

struct world {
    uv_loop_t loop;
    uv_timer_t patience;
    bool late;
    struct hp_listener *listener;
    struct end server;
    struct hp_stream *accepted; /* NULL once closed */
};

static void on_open(struct hp_stream *s, void *user)
{
    struct end *e = user;
    e->opened = true;
    (void)s;
}

static void on_close(struct hp_stream *s, const struct hp_error *error, void *user)
{
    struct end *e = user;
    e->closed = true;
    (void)s;
    (void)error;
}

static const struct hp_stream_events events = {.on_open = on_open, .on_close = on_close};

static void on_accept(struct hp_listener *l, struct hp_stream *s, void *user)
{
    struct world *w = user;
    (void)l;
    w->server = (struct end){0};
    w->accepted = s;
    hp_stream_set_events(s, &events);
    hp_stream_set_user(s, &w->server);
}

static void too_late(uv_timer_t *t)
{
    struct world *w = t->data;
    w->late = true;
}

static void turn(struct world *w)
{
    fa_enter();
    uv_run(&w->loop, UV_RUN_ONCE);
    fa_leave();
    if (w->late)
        fail_msg("a connection was neither taken nor closed");
}

/* Gives whether the connection was taken. */
static bool connect_once(struct world *w)
{
    struct hp_stream_options o = {0};
    struct hp_error e = {0};
    struct end client = {0};
    struct hp_stream *s;
    w->accepted = NULL;
    assert_int_equal(hp_stream_connect(&w->loop, hp_listener_address(w->listener), NULL, &o, &events, &client, &s, &e),
                     0);
    while (!client.closed && !(client.opened && w->accepted && w->server.opened))
        turn(w);
    bool taken = !client.closed;
    if (taken)
        hp_stream_close(s, 0);
    while (!client.closed || (w->accepted && !w->server.closed))
        turn(w);
    return taken;
}

static void until_taken(void *user)
{
    int n = 0;
    while (!connect_once(user))
        assert_true(++n < CONNECTIONS_MAX);
}

static void a_connection_without_memory_does_not_stop_the_listener(void **state)
{
    struct world w = {0};
    struct hp_listener_options o = {0};
    struct hp_error e = {0};
    (void)state;
    uv_loop_init(&w.loop);
    uv_timer_init(&w.loop, &w.patience);
    w.patience.data = &w;
    uv_timer_start(&w.patience, too_late, PATIENCE_MS, 0);
    assert_int_equal(hp_listener_start(&w.loop, "127.0.0.1:0", &o, on_accept, &w, &w.listener, &e), 0);
    until_taken(&w); /* what the loop keeps for good is there */
    assert_true(fa_each(until_taken, &w) > 0);
    hp_listener_close(w.listener);
    uv_close((uv_handle_t *)&w.patience, NULL);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w.loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_without_memory_does_not_stop_the_listener),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
