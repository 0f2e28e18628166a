/* Consuming from a real broker: acknowledgement, pause, poison, a deleted queue, a stream resumed, the leader's token. */
#include "lib/loop_test.h"

#include "io/amqp.h"
#include "io/topology.h"

enum { GOT_MAX = 4096 };

struct got {
    int subscription;
    uint64_t tag;
    int64_t offset;
    bool redelivered;
    char body[64], message_id[64], reply_to[64];
};

struct fixture {
    uv_loop_t loop;
    struct hp_publisher *publisher;
    struct hp_consumer *consumer;
    enum hp_amqp_state publisher_state, state;
    int ups, downs;
    char error[HP_ERROR_MESSAGE_MAX];
    bool ack; /* at once */
    struct got got[GOT_MAX];
    int count, wanted;
    int published; /* confirmed */
};

static void on_message(struct hp_delivery *d, void *user)
{
    struct fixture *f = user;
    assert_true(f->count < GOT_MAX);
    struct got *g = &f->got[f->count++];
    *g = (struct got){
        .subscription = d->subscription, .tag = d->tag, .offset = d->stream_offset, .redelivered = d->redelivered};
    snprintf(g->body, sizeof g->body, "%.*s", (int)d->body_len, (const char *)d->body);
    snprintf(g->message_id, sizeof g->message_id, "%s", d->message_id ? d->message_id : "");
    snprintf(g->reply_to, sizeof g->reply_to, "%s", d->reply_to ? d->reply_to : "");
    if (f->ack)
        hp_consumer_ack(d->consumer, d->subscription, d->tag, false);
    hp_delivery_free(d);
}

static void on_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct fixture *f = user;
    f->state = state;
    f->ups += state == HP_AMQP_UP;
    f->downs += state == HP_AMQP_DOWN;
    if (e->code)
        snprintf(f->error, sizeof f->error, "%s", e->message);
}

static void on_publisher_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    ((struct fixture *)user)->publisher_state = state;
}

static bool publisher_up(void *arg)
{
    return ((struct fixture *)arg)->publisher_state == HP_AMQP_UP;
}

static bool both_up(void *arg)
{
    struct fixture *f = arg;
    return f->state == HP_AMQP_UP && f->publisher_state == HP_AMQP_UP;
}

static bool enough(void *arg)
{
    struct fixture *f = arg;
    return f->count >= f->wanted;
}

static bool was_down(void *arg)
{
    return ((struct fixture *)arg)->downs > 0;
}

static void wait_for(struct fixture *f, int wanted)
{
    f->wanted = wanted;
    UNTIL(&f->loop, enough, f);
}

/* One after the other: RabbitMQ 3.10 answers 541 INTERNAL_ERROR to one of two connections that declare the same new quorum queue at the same moment. A
 * reconnect later all is well, but these tests count connections. */
static struct fixture *start(const struct hp_amqp_object *topology, const struct hp_subscription *subs, int count)
{
    struct fixture *f = calloc(1, sizeof *f);
    uv_loop_init(&f->loop);
    struct hp_amqp_options amqp = {
        .url = getenv("HARPOON_AMQP_URL"), .connection_name = "test/consume", .heartbeat_s = 2};
    struct hp_publisher_options p = {.amqp = amqp, .topology = topology, .state_cb = on_publisher_state, .user = f};
    struct hp_consumer_options c = {.amqp = amqp,
                                    .topology = topology,
                                    .subscriptions = subs,
                                    .subscription_count = count,
                                    .message_cb = on_message,
                                    .state_cb = on_state,
                                    .user = f};
    struct hp_error e = {0};
    /* Exclusive queues belong to the consumer's connection. */
    for (const struct hp_amqp_object *o = topology; o && o->name; o++)
        if (o->exclusive)
            p.topology = NULL;
    if (hp_publisher_new(&f->loop, &p, &f->publisher, &e))
        fail_msg("%s", e.message);
    UNTIL(&f->loop, publisher_up, f);
    if (hp_consumer_new(&f->loop, &c, &f->consumer, &e))
        fail_msg("%s", e.message);
    UNTIL(&f->loop, both_up, f);
    return f;
}

static void stop(struct fixture *f)
{
    bool closed = false, consumer_closed = false;
    hp_publisher_close(f->publisher, 0, loop_closed, &closed);
    hp_consumer_close(f->consumer, loop_closed, &consumer_closed);
    UNTIL_FLAG(&f->loop, closed);
    UNTIL_FLAG(&f->loop, consumer_closed);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    free(f);
}

struct message {
    struct hp_publish publish;
    struct fixture *f;
    char body[64];
};

static void on_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct message *m = (struct message *)p;
    assert_int_equal(outcome, HP_PUBLISH_CONFIRMED);
    m->f->published++;
    free(m);
}

static bool all_published(void *arg)
{
    struct fixture *f = arg;
    return f->published >= f->wanted;
}

static void put_exchange(struct fixture *f, const char *exchange, const char *key, int from, int to)
{
    for (int i = from; i < to; i++) {
        struct message *m = calloc(1, sizeof *m);
        snprintf(m->body, sizeof m->body, "%d", i);
        m->f = f;
        m->publish = (struct hp_publish){.exchange = exchange,
                                         .routing_key = key,
                                         .body = m->body,
                                         .body_len = strlen(m->body),
                                         .mandatory = true,
                                         .persistent = true,
                                         .message_id = m->body,
                                         .reply_to = "reply.here",
                                         .done_cb = on_done};
        hp_publish(f->publisher, &m->publish);
    }
    f->wanted = f->published + to - from;
    UNTIL(&f->loop, all_published, f);
}

static void put(struct fixture *f, const char *queue, int from, int to)
{
    put_exchange(f, "", queue, from, to);
}

static void assert_bodies(const struct fixture *f, int at, int from, int to)
{
    for (int i = from; i < to; i++)
        assert_int_equal(atoi(f->got[at + i - from].body), i);
}

static void messages_come_in_order_with_properties(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "order", .single_active = true},
                                              {0}};
    static const struct hp_subscription s[] = {{.queue = "order", .prefetch = 100}};
    struct fixture *f = start(q, s, 1);
    f->ack = true;
    put(f, "order", 0, 2000);
    wait_for(f, 2000);
    assert_bodies(f, 0, 0, 2000);
    assert_string_equal(f->got[7].message_id, "7");
    assert_string_equal(f->got[7].reply_to, "reply.here");
    assert_int_equal(f->got[7].offset, -1);
    assert_false(f->got[7].redelivered);
    stop(f);
}

/* Prefetch bounds what is unacked; one multiple ack opens it; a pause requeues the rest, a resume gets it again, in order. */
static void pause_requeues(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "pause"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "pause", .prefetch = 10, .paused = true}};
    struct fixture *f = start(q, s, 1);
    put(f, "pause", 0, 30);
    assert_int_equal(f->count, 0);
    hp_consumer_resume(f->consumer, 0);
    wait_for(f, 10);
    hp_consumer_ack(f->consumer, 0, f->got[4].tag, true);
    wait_for(f, 15);
    assert_bodies(f, 0, 0, 15);
    hp_consumer_pause(f->consumer, 0);
    hp_consumer_ack(f->consumer, 0, f->got[14].tag, true); /* void: its channel is closed */
    hp_consumer_resume(f->consumer, 0);
    f->count = 0;
    f->ack = true;
    wait_for(f, 25);
    assert_bodies(f, 0, 5, 30);
    assert_true(f->got[0].redelivered);
    assert_int_equal(f->downs, 0);
    stop(f);
}

static void poison_goes_to_the_dead_letters(void **state)
{
    struct hp_topology t;
    assert_int_equal(hp_topology_region(&t, "c1", NULL), 0);
    const struct hp_subscription s[] = {{.queue = t.requests, .prefetch = 10}, {.queue = t.dead, .prefetch = 10}};
    struct fixture *f = start(t.objects, s, 2);
    put(f, t.requests, 7, 8);
    wait_for(f, 1);
    hp_consumer_reject(f->consumer, 0, f->got[0].tag);
    wait_for(f, 2);
    assert_int_equal(f->got[1].subscription, 1);
    assert_string_equal(f->got[1].body, "7");
    hp_consumer_ack(f->consumer, 1, f->got[1].tag, false);
    stop(f);
}

/* The broker cancels the subscription of a deleted queue while the connection lives: it must be noticed, the queue declared anew and consumed. */
static void a_deleted_queue_is_declared_anew(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_CLASSIC, .name = "deleted"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "deleted", .prefetch = 10}};
    struct fixture *f = start(q, s, 1);
    f->ack = true;
    servers_beside(&f->loop, "rabbitmqctl -p harpoon delete_queue deleted");
    UNTIL(&f->loop, was_down, f);
    assert_non_null(strstr(f->error, "queue \"deleted\""));
    UNTIL(&f->loop, both_up, f);
    put(f, "deleted", 1, 2);
    wait_for(f, 1);
    assert_string_equal(f->got[0].body, "1");
    stop(f);
}

static bool came_up_again(void *arg)
{
    struct fixture *f = arg;
    return f->ups >= 2 && both_up(f);
}

static void cut_connections(struct fixture *f)
{
    int ups = f->ups;
    f->ups = 1;
    servers_beside(&f->loop, "rabbitmqctl close_all_connections -p harpoon test");
    UNTIL(&f->loop, came_up_again, f);
    f->ups += ups - 1;
}

static void a_stream_goes_on_where_it_was(void **state)
{
    static const struct hp_amqp_object q[] = {
        {.kind = HP_AMQP_QUEUE_STREAM, .name = "stream", .bytes_max = 100 << 20, .max_age = "7D"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "stream", .prefetch = 50, .stream_start = "next"}};
    struct fixture *f = start(q, s, 1);
    f->ack = true;
    put(f, "stream", 0, 500);
    wait_for(f, 500);
    /* Half of these wait in the stream when the connection is lost: "next" would be behind them. */
    f->ack = false;
    put(f, "stream", 500, 600);
    wait_for(f, 550);
    f->ack = true;
    cut_connections(f);
    put(f, "stream", 600, 1000);
    wait_for(f, 1000);
    assert_int_equal(f->count, 1000);
    assert_bodies(f, 0, 0, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(f->got[i].offset, i);
    stop(f);
    static const struct hp_subscription from[] = {
        {.queue = "stream", .prefetch = 50, .stream_offset = 640},
        {.queue = "stream", .prefetch = 50, .stream_start = "first", .paused = true}};
    f = start(q, from, 2);
    f->ack = true;
    wait_for(f, 360);
    assert_int_equal(f->got[0].offset, 640);
    assert_bodies(f, 0, 640, 1000);
    f->count = 0;
    hp_consumer_resume(f->consumer, 1);
    wait_for(f, 1000);
    assert_bodies(f, 0, 0, 1000);
    assert_int_equal(f->got[0].subscription, 1);
    stop(f);
}

/* What was not acked comes again after a loss, marked; acks with tags from before are ignored and do no harm. */
static void a_lost_connection_redelivers(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "again", .single_active = true},
                                              {0}};
    static const struct hp_subscription s[] = {{.queue = "again", .prefetch = 10}};
    struct fixture *f = start(q, s, 1);
    put(f, "again", 0, 3);
    wait_for(f, 3);
    hp_consumer_ack(f->consumer, 0, f->got[0].tag, false);
    uint64_t old = f->got[1].tag;
    cut_connections(f);
    assert_int_equal(f->downs, 1);
    wait_for(f, 5);
    assert_bodies(f, 3, 1, 3);
    assert_true(f->got[3].redelivered);
    hp_consumer_ack(f->consumer, 0, old, true);
    hp_consumer_ack(f->consumer, 0, f->got[4].tag, true);
    put(f, "again", 3, 4);
    wait_for(f, 6);
    assert_int_equal(f->downs, 1);
    stop(f);
}

/* With a delay, acknowledgements wait for later ones: until a quarter of the prefetch is owed, the subscription ends, or time has passed. What was owed when the connection went comes again. */
static void acknowledgements_wait_for_later_ones(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "owed"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "owed", .prefetch = 20, .ack_delay_ms = 3600 * 1000}};
    struct fixture *f = start(q, s, 1);
    put(f, "owed", 0, 40);
    wait_for(f, 20);
    hp_consumer_ack(f->consumer, 0, f->got[3].tag, true); /* 4 of the 5 that would not wait */
    f->count = 0;
    cut_connections(f);
    wait_for(f, 20);
    assert_bodies(f, 0, 0, 20);
    hp_consumer_ack(f->consumer, 0, f->got[3].tag, true);
    hp_consumer_ack(f->consumer, 0, f->got[4].tag, true);
    wait_for(f, 25);
    assert_bodies(f, 20, 20, 25);
    hp_consumer_ack(f->consumer, 0, f->got[6].tag, true);
    hp_consumer_pause(f->consumer, 0);
    f->count = 0;
    hp_consumer_resume(f->consumer, 0);
    wait_for(f, 20);
    assert_bodies(f, 0, 7, 27);
    stop(f);
}

static void owed_acknowledgements_go_in_time(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "in-time"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "in-time", .prefetch = 20, .ack_delay_ms = 1}};
    struct fixture *f = start(q, s, 1);
    put(f, "in-time", 0, 40);
    wait_for(f, 20);
    hp_consumer_ack(f->consumer, 0, f->got[3].tag, true);
    wait_for(f, 24);
    hp_consumer_ack(f->consumer, 0, f->got[4].tag, true); /* the timer runs again */
    wait_for(f, 25);
    stop(f);
}

static void exclusive_queues_come_back(void **state)
{
    struct hp_topology t;
    char id[HP_NAME_MAX + 1];
    hp_topology_id(id, "router-1");
    assert_int_equal(hp_topology_router(&t, "c2", id, NULL), 0);
    const struct hp_subscription s[] = {{.queue = t.own, .prefetch = 0, .no_ack = true}};
    struct fixture *f = start(t.objects, s, 1);
    put(f, t.own, 0, 5);
    put_exchange(f, t.routers, "", 5, 6);
    wait_for(f, 6);
    cut_connections(f);
    put(f, t.own, 6, 10);
    put_exchange(f, t.routers, "", 10, 11);
    wait_for(f, 11);
    assert_bodies(f, 0, 0, 11);
    stop(f);
}

/* The token of docs/decisions/0001: held by one, delivered to the other as soon as the first connection ends. */
static void the_token_moves_when_its_holder_ends(void **state)
{
    struct hp_topology t;
    assert_int_equal(hp_topology_region(&t, "c3", NULL), 0);
    const struct hp_subscription s[] = {{.queue = t.leader, .prefetch = 10}};
    struct fixture *one = start(t.objects, s, 1);
    put(one, t.leader, 1, 2);
    wait_for(one, 1);
    struct fixture *two = start(t.objects, s, 1);
    put(two, t.leader, 2, 3);
    wait_for(one, 2);
    hp_consumer_ack(one->consumer, 0, one->got[0].tag, false);
    assert_int_equal(two->count, 0);
    stop(one);
    wait_for(two, 1);
    assert_string_equal(two->got[0].body, "2");
    hp_consumer_ack(two->consumer, 0, two->got[0].tag, false);
    stop(two);
}

static bool never(void *arg)
{
    return false;
}

/* RabbitMQ 3.10 writes down which directory a new quorum queue has half a second after the declaration: killed before that, it starts again with an empty queue that
 * never elects a leader. So the queue is given a second; messages need no such grace. */
static void a_restarted_broker_loses_nothing(void **state)
{
    static const struct hp_amqp_object q[] = {{.kind = HP_AMQP_QUEUE_QUORUM, .name = "durable"}, {0}};
    static const struct hp_subscription s[] = {{.queue = "durable", .prefetch = 1000}};
    struct fixture *f = start(q, s, 1);
    (void)loop_until(&f->loop, never, NULL, 1000);
    put(f, "durable", 0, 1000);
    wait_for(f, 1000);
    servers("kill broker");
    UNTIL(&f->loop, was_down, f);
    f->count = 0;
    f->ack = true;
    servers_beside(&f->loop, "start broker");
    wait_for(f, 1000);
    assert_bodies(f, 0, 0, 1000);
    stop(f);
}

static void bad_options_are_refused(void **state)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    static const struct hp_subscription bad[] = {{.queue = "q"},
                                                 {.queue = "", .prefetch = 1},
                                                 {.queue = "q", .prefetch = 70000},
                                                 {.queue = "q", .prefetch = 1, .ack_delay_ms = -1}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hp_consumer_options o = {.amqp = {.url = "amqp://localhost"},
                                        .subscriptions = &bad[i],
                                        .subscription_count = 1,
                                        .message_cb = on_message};
        struct hp_consumer *c = NULL;
        struct hp_error e = {0};
        assert_int_equal(hp_consumer_new(&loop, &o, &c, &e), HP_EINVAL);
        assert_null(c);
    }
    static const char *const urls[] = {"", "http://localhost", "amqp://host:99999", "nonsense", "amqps://localhost"};
    for (int i = 0; i < 5; i++) {
        struct hp_publisher_options o = {.amqp = {.url = urls[i]}};
        struct hp_publisher *p = NULL;
        struct hp_error e = {0};
        assert_int_equal(hp_publisher_new(&loop, &o, &p, &e), HP_EINVAL);
    }
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(messages_come_in_order_with_properties),
        cmocka_unit_test(pause_requeues),
        cmocka_unit_test(poison_goes_to_the_dead_letters),
        cmocka_unit_test(a_deleted_queue_is_declared_anew),
        cmocka_unit_test(a_stream_goes_on_where_it_was),
        cmocka_unit_test(a_lost_connection_redelivers),
        cmocka_unit_test(acknowledgements_wait_for_later_ones),
        cmocka_unit_test(owed_acknowledgements_go_in_time),
        cmocka_unit_test(exclusive_queues_come_back),
        cmocka_unit_test(the_token_moves_when_its_holder_ends),
        cmocka_unit_test(a_restarted_broker_loses_nothing),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
