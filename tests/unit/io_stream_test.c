/* Streams, plain and TLS: echoes, back pressure, the end, addresses, limits. */
#include "lib/sanitized.h"
#include "lib/stream_world.h"

#include <link.h>

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
        assert_int_equal(hp_stream_connect(&w.loop, bad[i], NULL, &o, &world_events, NULL, &s, &e), HP_EINVAL);
    o.source_ip = "here";
    assert_int_equal(hp_stream_connect(&w.loop, "127.0.0.1:1", NULL, &o, &world_events, NULL, &s, &e), HP_EINVAL);
    o.source_ip = NULL;
    assert_int_equal(hp_listener_start(&w.loop, "localhost:0", &(struct hp_listener_options){0}, world_accept, &w,
                                       &(struct hp_listener *){NULL}, &e),
                     HP_EINVAL);
    assert_int_equal(hp_listener_start(&w.loop, hp_listener_address(w.listener), &(struct hp_listener_options){0},
                                       world_accept, &w, &(struct hp_listener *){NULL}, &e),
                     HP_EEXISTS);
    char address[80];
    snprintf(address, sizeof address, "%s", hp_listener_address(w.listener));
    hp_listener_close(w.listener);
    w.listener = NULL;
    uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(hp_stream_connect(&w.loop, address, NULL, &o, &world_events, &refused, &refused.stream, &e), 0);
    assert_int_equal(
        hp_stream_connect(&w.loop, "no-such-host.invalid:80", NULL, &o, &world_events, &unknown, &unknown.stream, &e),
        0);
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
    assert_int_equal(hp_stream_connect(&w.loop, address, NULL, &o, &world_events, &client, &client.stream, &e), 0);
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
    assert_int_equal(
        hp_stream_connect(&w.loop, "localhost:1", NULL, &o, &world_events, &resolving, &resolving.stream, &e), 0);
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

static int add_thread_local(struct dl_phdr_info *info, size_t size, void *user)
{
    size_t *bytes = user;
    (void)size;
    for (int i = 0; !*info->dlpi_name && i < info->dlpi_phnum; i++) /* the program's own part has no name */
        if (info->dlpi_phdr[i].p_type == PT_TLS)
            *bytes += info->dlpi_phdr[i].p_memsz;
    return 0;
}

/* What is thread-local is cleared for each thread of a program, and so resident: buffers of 80 KiB were 1.4 MB in an agent, whose other 17 threads know no streams. */
static void a_thread_costs_no_buffers(void **state)
{
    size_t bytes = 0;
    (void)state;
    if (SANITIZED)
        skip();
    dl_iterate_phdr(add_thread_local, &bytes);
    assert_in_range(bytes, 1, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_echo),
        cmocka_unit_test(tls_echo_knows_the_peer),
        cmocka_unit_test(plain_back_pressure),
        cmocka_unit_test(tls_back_pressure),
        cmocka_unit_test(peer_that_never_reads_meets_the_linger),
        cmocka_unit_test(connecting_fails_in_words),
        cmocka_unit_test(names_are_resolved),
        cmocka_unit_test(source_address_is_used),
        cmocka_unit_test(closing_at_any_time_calls_back_once),
        cmocka_unit_test(connections_over_the_limit_are_closed),
        cmocka_unit_test(a_thread_costs_no_buffers),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
