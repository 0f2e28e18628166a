/* Publishing against a real broker: every outcome, the order of things at a loss, the alarm, the return of a killed broker. */
#include "lib/loop_test.h"

#include "io/amqp.h"
#include "io/topology.h"

enum { MANY = 5000 };

struct fixture {
    uv_loop_t loop;
    struct hp_publisher *publisher;
    enum hp_amqp_state state;
    int state_changes;
    char error[HP_ERROR_MESSAGE_MAX];
};

struct message {
    struct hp_publish publish;
    bool done;
    int calls;
    enum hp_publish_outcome outcome;
};

static void on_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct message *m = (struct message *)p;
    m->done = true;
    m->calls++;
    m->outcome = outcome;
}

static void on_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct fixture *f = user;
    f->state = state;
    f->state_changes++;
    snprintf(f->error, sizeof f->error, "%s", e->message);
}

static bool is_up(void *arg)
{
    return ((struct fixture *)arg)->state == HP_AMQP_UP;
}

static bool is_down(void *arg)
{
    struct fixture *f = arg;
    return f->state == HP_AMQP_DOWN && f->state_changes > 0;
}

static bool is_blocked(void *arg)
{
    return ((struct fixture *)arg)->state == HP_AMQP_BLOCKED;
}

static void start(struct fixture *f, const struct hp_amqp_object *topology, const char *url)
{
    memset(f, 0, sizeof *f);
    uv_loop_init(&f->loop);
    struct hp_publisher_options o = {
        .amqp = {.url = url, .ca_file = getenv("HARPOON_CA"), .connection_name = "test/publish", .heartbeat_s = 2},
        .topology = topology,
        .state_cb = on_state,
        .user = f,
    };
    struct hp_error e = {0};
    if (hp_publisher_new(&f->loop, &o, &f->publisher, &e))
        fail_msg("%s", e.message);
}

static void start_up(struct fixture *f, const struct hp_amqp_object *topology)
{
    start(f, topology, getenv("HARPOON_AMQP_URL"));
    UNTIL(&f->loop, is_up, f);
}

static void stop(struct fixture *f)
{
    bool closed = false;
    hp_publisher_close(f->publisher, 0, loop_closed, &closed);
    UNTIL_FLAG(&f->loop, closed);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void put(struct fixture *f, struct message *m, const char *queue, const char *body)
{
    *m = (struct message){.publish = {.exchange = "",
                                      .routing_key = queue,
                                      .body = body,
                                      .body_len = strlen(body),
                                      .mandatory = true,
                                      .persistent = true,
                                      .type = "test",
                                      .message_id = "1",
                                      .correlation_id = "c",
                                      .reply_to = "r",
                                      .done_cb = on_done}};
    hp_publish(f->publisher, &m->publish);
    assert_int_equal(m->calls, 0);
}

static enum hp_publish_outcome result(struct fixture *f, struct message *m)
{
    UNTIL_FLAG(&f->loop, m->done);
    assert_int_equal(m->calls, 1);
    return m->outcome;
}

static void a_message_is_confirmed(void **state)
{
    struct fixture f;
    struct hp_topology t;
    assert_int_equal(hp_topology_region(&t, "p1", NULL), 0);
    start_up(&f, t.objects);
    struct message m, none;
    put(&f, &m, "requests.p1", "hello");
    put(&f, &none, "no.such.queue", "hello");
    assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
    assert_int_equal(result(&f, &none), HP_PUBLISH_RETURNED);
    stop(&f);
}

static void returns_are_told_apart_among_many(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "mixed"}, {0}};
    static struct message m[MANY];
    struct fixture f;
    start_up(&f, q);
    for (int i = 0; i < MANY; i++)
        put(&f, &m[i], i % 3 ? "mixed" : "no.such.queue", "x");
    for (int i = 0; i < MANY; i++)
        assert_int_equal(result(&f, &m[i]), i % 3 ? HP_PUBLISH_CONFIRMED : HP_PUBLISH_RETURNED);
    stop(&f);
}

static void a_full_queue_rejects(void **state)
{
    static const struct hp_amqp_object q[] = {
        {.kind = HP_AMQP_QUEUE_CLASSIC, .name = "full", .length_max = 2, .reject_publish = true}, {0}};
    struct fixture f;
    struct message m[6];
    int rejected = 0;
    start_up(&f, q);
    for (int i = 0; i < 6; i++)
        put(&f, &m[i], "full", "x");
    for (int i = 0; i < 6; i++)
        rejected += result(&f, &m[i]) == HP_PUBLISH_REJECTED;
    assert_true(rejected >= 3 && rejected <= 4);
    stop(&f);
}

/* So that a channel which never finds the queue's new leader is given up. */
static void a_queue_that_takes_nothing_is_met_anew(void **state)
{
    static const struct hp_amqp_object q[] = {
        {.kind = HP_AMQP_QUEUE_QUORUM, .name = "full.long", .length_max = 1, .reject_publish = true}, {0}};
    struct fixture f;
    struct message m;
    int rejections = 0;
    start_up(&f, q);
    uint64_t began = uv_now(&f.loop);
    while (f.state_changes == 1) {
        put(&f, &m, "full.long", "x");
        if (result(&f, &m) == HP_PUBLISH_REJECTED && !rejections++)
            began = uv_now(&f.loop);
    }
    assert_true(uv_now(&f.loop) - began >= 3000);
    assert_non_null(strstr(f.error, "queue full.long has taken nothing for 3"));
    UNTIL(&f.loop, is_up, &f);
    put(&f, &m, "full.long", "x");
    assert_int_equal(result(&f, &m), HP_PUBLISH_REJECTED);
    assert_int_equal(f.state_changes, 3); /* not again at once */
    stop(&f);
}

static void a_large_message_crosses_in_frames(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "large"}, {0}};
    struct fixture f;
    struct message m;
    char *body = malloc((3 << 20) + 1);
    memset(body, 'x', 3 << 20);
    body[3 << 20] = '\0';
    start_up(&f, q);
    put(&f, &m, "large", body);
    assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
    stop(&f);
    free(body);
}

static void other_arguments_are_a_clear_error(void **state)
{
    static const struct hp_amqp_object a[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "fixed", .length_max = 10}, {0}};
    static const struct hp_amqp_object b[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "fixed", .length_max = 11}, {0}};
    struct fixture f;
    start_up(&f, a);
    stop(&f);
    start(&f, b, getenv("HARPOON_AMQP_URL"));
    UNTIL(&f.loop, is_down, &f);
    assert_non_null(strstr(f.error, "queue \"fixed\" cannot be declared"));
    assert_non_null(strstr(f.error, "PRECONDITION_FAILED"));
    assert_non_null(strstr(f.error, "x-max-length"));
    assert_false(hp_publisher_remake_streams(f.publisher)); /* what is in its place may be somebody's */
    struct message m;
    put(&f, &m, "fixed", "x");
    assert_int_equal(result(&f, &m), HP_PUBLISH_UNAVAILABLE);
    stop(&f);
}

static void read_stream(struct hp_delivery *d, void *user)
{
    snprintf((char *)user + strlen(user), 8, "%.*s%lld ", (int)d->body_len, (const char *)d->body,
             (long long)d->stream_offset);
    hp_delivery_free(d);
}

static bool has_c(void *arg)
{
    return strchr(arg, 'c');
}

/* A stream that the broker can no longer serve, and one that somebody has deleted: both are declared anew, and empty. */
static void a_stream_is_made_anew(void **state)
{
    struct fixture f;
    struct hp_topology t;
    struct message m;
    char read[32] = "";
    assert_int_equal(hp_topology_events(&t, "s1", NULL), 0);
    start_up(&f, t.objects);
    put(&f, &m, t.events, "a");
    assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
    assert_true(hp_publisher_remake_streams(f.publisher));
    UNTIL(&f.loop, is_down, &f);
    UNTIL(&f.loop, is_up, &f);
    put(&f, &m, t.events, "b");
    assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
    servers("rabbitmqctl delete_queue -p harpoon events.s1");
    put(&f, &m, t.events, "b");
    assert_int_not_equal(result(&f, &m), HP_PUBLISH_CONFIRMED); /* it is mandatory */
    hp_publisher_reconnect(f.publisher, "gone");
    UNTIL(&f.loop, is_down, &f);
    UNTIL(&f.loop, is_up, &f);
    const struct hp_subscription s = {.queue = t.events, .prefetch = 10, .stream_start = "first"};
    const struct hp_consumer_options o = {.amqp = {.url = getenv("HARPOON_AMQP_URL")},
                                          .subscriptions = &s,
                                          .subscription_count = 1,
                                          .message_cb = read_stream,
                                          .user = read};
    struct hp_consumer *consumer;
    assert_int_equal(hp_consumer_new(&f.loop, &o, &consumer, NULL), 0);
    put(&f, &m, t.events, "c");
    assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
    UNTIL(&f.loop, has_c, read);
    assert_string_equal(read, "c0 ");
    bool closed = false;
    hp_consumer_close(consumer, loop_closed, &closed);
    UNTIL_FLAG(&f.loop, closed);
    stop(&f);
}

static void a_wrong_password_is_a_clear_error(void **state)
{
    struct fixture f;
    char url[256];
    snprintf(url, sizeof url, "amqp://harpoon:wrong@%s", strchr(getenv("HARPOON_AMQP_URL"), '@') + 1);
    start(&f, NULL, url);
    UNTIL(&f.loop, is_down, &f);
    assert_non_null(strstr(f.error, "ACCESS_REFUSED"));
    assert_null(strstr(f.error, "wrong"));
    stop(&f);
}

static void it_works_over_tls(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "tls"}, {0}};
    static struct message m[MANY];
    struct fixture f;
    start(&f, q, getenv("HARPOON_AMQPS_URL"));
    UNTIL(&f.loop, is_up, &f);
    for (int i = 0; i < MANY; i++)
        put(&f, &m[i], "tls", "over TLS");
    for (int i = 0; i < MANY; i++)
        assert_int_equal(result(&f, &m[i]), HP_PUBLISH_CONFIRMED);
    stop(&f);
}

/* Of a cluster's nodes one serves and the others refuse connections: whichever comes first, the one that serves is found before the back-off has grown. */
static void the_next_node_is_tried_soon(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "failover"}, {0}};
    const char *good = getenv("HARPOON_AMQP_URL"), *path = strrchr(good, '/');
    char bad[256], urls[2048];
    snprintf(bad, sizeof bad, "%.*s@127.0.0.1:1%s", (int)(strchr(good, '@') - good), good, path);
    snprintf(urls, sizeof urls, "%s, %s,%s", bad, good, bad);
    for (int i = 0; i < 8; i++) {
        struct fixture f;
        struct message m;
        start(&f, q, urls);
        assert_true(loop_until(&f.loop, is_up, &f, 2000));
        put(&f, &m, "failover", "x");
        assert_int_equal(result(&f, &m), HP_PUBLISH_CONFIRMED);
        stop(&f);
    }
}

/* Under the alarm the broker takes what is in the socket and no more. What was sent has no outcome, what waits was not sent; nothing blocks, and
 * it goes on by itself. */
static void an_alarm_blocks_and_ends(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "alarm"}, {0}};
    struct fixture f;
    struct message first, waiting, after;
    start_up(&f, q);
    servers_beside(&f.loop, "rabbitmqctl set_vm_memory_high_watermark absolute 1");
    put(&f, &first, "alarm", "x");
    first.publish.deadline_ms = 1000;
    UNTIL(&f.loop, is_blocked, &f);
    assert_non_null(strstr(f.error, "memory"));
    waiting = (struct message){.publish = {.exchange = "",
                                           .routing_key = "alarm",
                                           .body = "y",
                                           .body_len = 1,
                                           .deadline_ms = 300,
                                           .done_cb = on_done}};
    hp_publish(f.publisher, &waiting.publish);
    assert_int_equal(result(&f, &waiting), HP_PUBLISH_UNAVAILABLE);
    assert_int_equal(result(&f, &first), HP_PUBLISH_UNKNOWN);
    assert_int_equal(hp_publisher_state(f.publisher), HP_AMQP_BLOCKED);
    put(&f, &after, "alarm", "z");
    servers_beside(&f.loop, "rabbitmqctl set_vm_memory_high_watermark 0.4");
    UNTIL(&f.loop, is_up, &f);
    assert_int_equal(result(&f, &after), HP_PUBLISH_CONFIRMED);
    stop(&f);
}

static void the_window_is_bounded(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "window"}, {0}};
    static struct message m[100];
    struct fixture f = {0};
    uv_loop_init(&f.loop);
    struct hp_publisher_options o = {
        .amqp = {.url = getenv("HARPOON_AMQP_URL")}, .topology = q, .window_max = 60, .state_cb = on_state, .user = &f};
    assert_int_equal(hp_publisher_new(&f.loop, &o, &f.publisher, NULL), 0);
    UNTIL(&f.loop, is_up, &f);
    int confirmed = 0;
    for (int i = 0; i < 100; i++)
        put(&f, &m[i], "window", "x");
    for (int i = 0; i < 100; i++)
        confirmed += result(&f, &m[i]) == HP_PUBLISH_CONFIRMED;
    assert_int_equal(confirmed, 60);
    stop(&f);
}

static void closing_waits_for_confirms(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "linger"}, {0}};
    static struct message m[500];
    struct fixture f;
    start_up(&f, q);
    for (int i = 0; i < 500; i++)
        put(&f, &m[i], "linger", "x");
    bool closed = false;
    hp_publisher_close(f.publisher, 10000, loop_closed, &closed);
    UNTIL_FLAG(&f.loop, closed);
    for (int i = 0; i < 500; i++)
        assert_int_equal(m[i].outcome, HP_PUBLISH_CONFIRMED);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

static bool any_done(void *arg)
{
    struct message *m = arg;
    return m[0].done;
}

/* kill -9 in the middle: each message has one outcome, those without a confirm are UNKNOWN, and the publisher returns with the broker, its queues redeclared. */
static void a_killed_broker_leaves_unknowns(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "killed"},
                                              {.kind = HP_AMQP_QUEUE_CLASSIC, .name = "gone", .transient = true},
                                              {0}};
    static struct message m[MANY];
    struct fixture f;
    start_up(&f, q);
    for (int i = 0; i < MANY; i++)
        put(&f, &m[i], "killed", "x");
    UNTIL(&f.loop, any_done, m);
    servers("kill broker");
    UNTIL(&f.loop, is_down, &f);
    int confirmed = 0, unknown = 0;
    for (int i = 0; i < MANY; i++) {
        result(&f, &m[i]);
        confirmed += m[i].outcome == HP_PUBLISH_CONFIRMED;
        unknown += m[i].outcome == HP_PUBLISH_UNKNOWN;
    }
    assert_true(confirmed > 0 && confirmed + unknown == MANY);
    struct message refused, back;
    put(&f, &refused, "killed", "x");
    assert_int_equal(result(&f, &refused), HP_PUBLISH_UNAVAILABLE);
    servers_beside(&f.loop, "start broker");
    UNTIL(&f.loop, is_up, &f);
    put(&f, &back, "gone", "x");
    assert_int_equal(result(&f, &back), HP_PUBLISH_CONFIRMED);
    stop(&f);
}

/* A broker that stands still (SIGSTOP) with its socket open is found out by the heartbeat. */
static void a_silent_broker_is_given_up(void **state)
{
    struct fixture f;
    start_up(&f, NULL);
    servers("kill broker STOP");
    UNTIL(&f.loop, is_down, &f);
    assert_non_null(strstr(f.error, "heartbeat"));
    servers("kill broker CONT");
    UNTIL(&f.loop, is_up, &f);
    stop(&f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_confirmed),
        cmocka_unit_test(returns_are_told_apart_among_many),
        cmocka_unit_test(a_full_queue_rejects),
        cmocka_unit_test(a_queue_that_takes_nothing_is_met_anew),
        cmocka_unit_test(a_large_message_crosses_in_frames),
        cmocka_unit_test(other_arguments_are_a_clear_error),
        cmocka_unit_test(a_stream_is_made_anew),
        cmocka_unit_test(a_wrong_password_is_a_clear_error),
        cmocka_unit_test(it_works_over_tls),
        cmocka_unit_test(the_next_node_is_tried_soon),
        cmocka_unit_test(an_alarm_blocks_and_ends),
        cmocka_unit_test(the_window_is_bounded),
        cmocka_unit_test(closing_waits_for_confirms),
        cmocka_unit_test(a_killed_broker_leaves_unknowns),
        cmocka_unit_test(a_silent_broker_is_given_up),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
