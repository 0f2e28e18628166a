/* What TLS adds to streams: who may connect, sessions, protocols, deadlines, certificates that change, and what an idle connection costs. */
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/stream_world.h"

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

/* OpenSSL asks this what time it is: the program's own function comes before the C library's. */
static time_t ahead_s;

time_t time(time_t *ret)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec + ahead_s;
    return now.tv_sec + ahead_s;
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
    struct pki_leaf brief = pki_issue_for(w.pki, "h1", NULL, 600);
    struct hp_tls_options co = {.role = HP_TLS_CLIENT};
    hp_tls_context_unref(w.client_tls);
    assert_int_equal(hp_tls_context_new_pem(&co, pki_ca_pem(w.pki), brief.cert_pem, brief.key_pem, &w.client_tls, &e),
                     0);
    world_connect(&w, &first);
    assert_int_equal(hp_stream_write(first.stream, "1", 1), 0);
    WAIT_FOR(&w, first.got_len == 1);
    hp_stream_close(first.stream, 0);
    WAIT_FOR(&w, first.closed);
    ahead_s = 1200;
    world_connect(&w, &second);
    WAIT_FOR(&w, second.closed && w.server[1].closed);
    ahead_s = 0;
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

/* In a storm of attachments most of those who waited in the backlog had gone when their turn came, and each cost a signature all the same: so the storm never ended. */
static void who_has_gone_is_not_answered(void **state)
{
    struct world w;
    struct end silent = {0}, hasty = {0};
    (void)state;
    world_init(&w);
    world_tls(&w, true, NULL);
    world_listen(&w, &(struct hp_listener_options){.handshakes_max = 1});
    struct hp_stream_options plain = {0};
    world_connect_with(&w, &silent, NULL, &plain);
    WAIT_FOR(&w, w.accepted == 1);
    world_connect_with(&w, &hasty, NULL, &plain);
    assert_int_equal(hp_stream_write(hasty.stream, "no handshake: would be EPROTO", 29), 0);
    WAIT_FOR(&w, hasty.opened);
    hp_stream_close(hasty.stream, 0);
    WAIT_FOR(&w, hasty.closed);
    hp_stream_close(silent.stream, 0);
    WAIT_FOR(&w, w.accepted == 2 && w.server[1].closed);
    assert_int_equal(w.server[1].error.code, HP_EUNAVAILABLE);
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

/* ---- Certificates that change ---- */

/* A directory with ca.pem, cert.pem and key.pem. */
struct files {
    char dir[64], ca[80], cert[80], key[80];
};

static void write_file(const char *path, const char *text)
{
    char temporary[96];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(temporary, path), 0);
}

static void files_init(struct files *f, const struct pki *ca, const struct pki_leaf *leaf)
{
    snprintf(f->dir, sizeof f->dir, "/tmp/io_tls_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->ca, sizeof f->ca, "%s/ca.pem", f->dir);
    snprintf(f->cert, sizeof f->cert, "%s/cert.pem", f->dir);
    snprintf(f->key, sizeof f->key, "%s/key.pem", f->dir);
    write_file(f->ca, pki_ca_pem(ca));
    write_file(f->cert, leaf->cert_pem);
    write_file(f->key, leaf->key_pem);
}

static void files_done(const struct files *f)
{
    assert_int_equal(unlink(f->ca) | unlink(f->cert) | unlink(f->key) | rmdir(f->dir), 0);
}

static struct hp_tls_context *context_of(enum hp_tls_role role, const struct files *f)
{
    struct hp_error e = {0};
    struct hp_tls_context *c = NULL;
    const struct hp_tls_options o = {.role = role,
                                     .ca_file = f->ca,
                                     .cert_file = f->cert,
                                     .key_file = f->key,
                                     .require_peer = role == HP_TLS_SERVER,
                                     .alpn = role == HP_TLS_SERVER ? "h2" : NULL};
    if (hp_tls_context_new(&o, &c, &e))
        fail_msg("%s", e.message);
    return c;
}

/* Whether a new connection comes about: both sides say so, and the client gets an echo; *client tells the rest. The last look at the files is over before. */
static bool connects(struct world *w, struct end *client)
{
    uint64_t looked_ms = uv_now(&w->loop) + 1100;
    WAIT_FOR(w, uv_now(&w->loop) > looked_ms);
    *client = (struct end){0};
    int at = w->accepted;
    struct hp_stream_options o = {.tls = w->client_tls, .alpn = "h2"};
    world_connect_with(w, client, NULL, &o);
    assert_int_equal(hp_stream_write(client->stream, "?", 1), 0);
    WAIT_FOR(w, client->closed || client->got_len);
    bool ok = client->got_len == 1;
    if (client->stream)
        hp_stream_close(client->stream, 0);
    WAIT_FOR(w, client->closed && w->accepted > at && w->server[at].closed);
    free(client->got);
    client->got = NULL;
    return ok;
}

static void certificates_that_change_are_taken_over(void **state)
{
    struct world w;
    struct end standing = {0}, c;
    struct files server, client;
    (void)state;
    world_init(&w);
    w.pki = pki_new("first CA");
    w.server_leaf = pki_issue(w.pki, "router", "IP:127.0.0.1", false);
    w.client_leaf = pki_issue(w.pki, "h1", "URI:harpoon://regions/r1/hosts/h1", false);
    files_init(&server, w.pki, &w.server_leaf);
    files_init(&client, w.pki, &w.client_leaf);
    w.server_tls = context_of(HP_TLS_SERVER, &server);
    w.client_tls = context_of(HP_TLS_CLIENT, &client);
    w.server_template.echo = true;
    world_listen(&w, &(struct hp_listener_options){0});
    world_connect(&w, &standing);
    WAIT_FOR(&w, standing.opened && w.server[0].opened);

    /* The server's authority changes, its certificate before its key: the former one serves on meanwhile. */
    struct pki *next = pki_new("second CA");
    struct pki_leaf router = pki_issue(next, "router", "IP:127.0.0.1", false),
                    host = pki_issue(next, "h1", "URI:harpoon://regions/r1/hosts/h1-anew", false);
    write_file(server.cert, router.cert_pem);
    assert_true(connects(&w, &c));
    write_file(server.key, router.key_pem);
    assert_false(connects(&w, &c)); /* the client trusts the first CA alone */
    assert_non_null(strstr(c.error.message, "certificate"));
    write_file(client.ca, pki_ca_pem(next));
    assert_true(connects(&w, &c));
    assert_string_equal(c.alpn, "h2");

    /* And now the client's, on both sides. */
    write_file(server.ca, pki_ca_pem(next));
    assert_false(connects(&w, &c));
    write_file(client.cert, host.cert_pem);
    write_file(client.key, host.key_pem);
    assert_true(connects(&w, &c));
    assert_string_equal(w.server[w.accepted - 1].uri, "harpoon://regions/r1/hosts/h1-anew");

    /* What cannot be read changes nothing, and who is connected has noticed none of it. */
    write_file(server.cert, "nonsense");
    assert_true(connects(&w, &c));
    assert_int_equal(hp_stream_write(standing.stream, "1", 1), 0);
    WAIT_FOR(&w, standing.got_len == 1);
    hp_stream_close(standing.stream, 0);
    WAIT_FOR(&w, standing.closed);
    free(standing.got);
    files_done(&server);
    files_done(&client);
    pki_leaf_done(&router);
    pki_leaf_done(&host);
    world_done(&w);
    pki_free(next);
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
    assert_true(each < 16 * 1024);
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
        cmocka_unit_test(second_connection_resumes_the_session),
        cmocka_unit_test(resumption_ends_with_the_certificate),
        cmocka_unit_test(alpn_is_agreed_or_refused),
        cmocka_unit_test(certificates_are_verified),
        cmocka_unit_test(silent_client_meets_the_deadline),
        cmocka_unit_test(garbage_is_no_handshake),
        cmocka_unit_test(handshakes_over_the_limit_wait),
        cmocka_unit_test(who_has_gone_is_not_answered),
        cmocka_unit_test(context_errors_name_the_part),
        cmocka_unit_test(certificates_that_change_are_taken_over),
        cmocka_unit_test(idle_connection_is_small),
    };
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
