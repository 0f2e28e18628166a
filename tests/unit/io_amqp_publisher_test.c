/* io_amqp_publisher_test.c — what a publisher says of its messages, over a connection that is this file's: only a confirm without a return is "confirmed", and what was sent
 * before the connection was lost is unknown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "io/amqp_conn.h"
#include "io/loop.h"

enum { FRAME_MAX = 131072 };

struct hp_amqp_conn {
    const struct hp_amqp_conn_events *events;
    void *user;
    struct hp_buf out;
    bool full, kicked, closing;
    int dropped;
};

static struct hp_amqp_conn conn;

int hp_amqp_conn_new(uv_loop_t *loop, const struct hp_amqp_options *o, const struct hp_amqp_object *topology,
                     uint16_t channels, const struct hp_amqp_conn_events *ev, void *user, struct hp_amqp_conn **ret,
                     struct hp_error *e)
{
    conn = (struct hp_amqp_conn){.events = ev, .user = user};
    hp_buf_init(&conn.out, 1 << 20);
    *ret = &conn;
    return 0;
}

void hp_amqp_conn_kick(struct hp_amqp_conn *c)
{
    c->kicked = true;
}

bool hp_amqp_conn_has_room(const struct hp_amqp_conn *c)
{
    return !c->full;
}

struct hp_buf *hp_amqp_conn_out(struct hp_amqp_conn *c)
{
    return &c->out;
}

size_t hp_amqp_conn_frame_max(const struct hp_amqp_conn *c)
{
    return FRAME_MAX;
}

void hp_amqp_conn_flush(struct hp_amqp_conn *c)
{
}

void hp_amqp_conn_expect(struct hp_amqp_conn *c)
{
}

void hp_amqp_conn_answered(struct hp_amqp_conn *c)
{
}

void hp_amqp_conn_settled(struct hp_amqp_conn *c)
{
}

void hp_amqp_conn_drop(struct hp_amqp_conn *c, uint64_t retry_min_ms, const struct hp_error *e)
{
    c->dropped++;
}

bool hp_amqp_conn_remake(struct hp_amqp_conn *c)
{
    c->dropped++;
    return true;
}

void hp_amqp_conn_close(struct hp_amqp_conn *c)
{
    c->closing = true;
}

void hp_amqp_close_error(struct hp_error *e, int code, amqp_bytes_t text)
{
    (void)!hp_fail(e, HP_EUNAVAILABLE, "closed");
}

/* ---- */

static uv_loop_t loop;
static struct hp_publisher *publisher;

struct message {
    struct hp_publish publish;
    int told;
    enum hp_publish_outcome outcome;
};

static void on_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct message *m = (struct message *)(void *)p;
    m->told++;
    m->outcome = outcome;
}

/* The connection asks for what waits, once it was kicked. */
static void turn(void)
{
    assert_true(conn.kicked);
    conn.kicked = false;
    conn.events->turn(conn.user);
}

static void submit(struct message *m, bool mandatory)
{
    *m = (struct message){.publish = {.exchange = "",
                                      .routing_key = "q",
                                      .body = "body",
                                      .body_len = 4,
                                      .persistent = true,
                                      .mandatory = mandatory,
                                      .done_cb = on_done}};
    hp_publish(publisher, &m->publish);
    assert_int_equal(m->told, 0); /* never from inside */
}

static void come_up(void)
{
    amqp_confirm_select_ok_t ok = {0};
    conn.events->open(conn.user);
    conn.events->method(conn.user, 1, AMQP_CONFIRM_SELECT_OK_METHOD, &ok);
    assert_int_equal(hp_publisher_state(publisher), HP_AMQP_UP);
}

static void on_awake(uv_timer_t *t)
{
}

static void lose(void)
{
    struct hp_error e = {.message = "reset"};
    hp_buf_consume(&conn.out, conn.out.len);
    conn.events->down(conn.user, &e);
}

static void ack(uint64_t tag, bool multiple)
{
    amqp_basic_ack_t m = {.delivery_tag = tag, .multiple = multiple};
    conn.events->method(conn.user, 1, AMQP_BASIC_ACK_METHOD, &m);
}

static void nack(uint64_t tag)
{
    amqp_basic_nack_t m = {.delivery_tag = tag};
    conn.events->method(conn.user, 1, AMQP_BASIC_NACK_METHOD, &m);
}

/* The next message in what was written: its method and properties. The tag that it carries for its return; 0: none. */
static int64_t written(bool *ret_mandatory, int *ret_delivery_mode)
{
    struct hp_error e = {0};
    amqp_pool_t pool;
    int64_t tag = 0;
    bool found = false;
    init_amqp_pool(&pool, 4096);
    for (size_t at = 0; !found && at < conn.out.len;) {
        struct hp_amqp_frame f;
        size_t used;
        assert_int_equal(hp_amqp_frame_next(hp_buf_front(&conn.out) + at, conn.out.len - at, FRAME_MAX, &f, &used, &e),
                         0);
        assert_true(used > 0);
        at += used;
        if (f.type == AMQP_FRAME_METHOD) {
            amqp_method_number_t id;
            void *m;
            assert_int_equal(hp_amqp_decode_method(&f, &pool, &id, &m, &e), 0);
            if (id == AMQP_BASIC_PUBLISH_METHOD)
                *ret_mandatory = ((amqp_basic_publish_t *)m)->mandatory;
        } else if (f.type == AMQP_FRAME_HEADER) {
            uint64_t len;
            amqp_basic_properties_t *p;
            assert_int_equal(hp_amqp_decode_header(&f, &pool, &len, &p, &e), 0);
            *ret_delivery_mode = p->delivery_mode;
            const amqp_field_value_t *v =
                p->_flags & AMQP_BASIC_HEADERS_FLAG ? hp_amqp_table_find(&p->headers, "x-harpoon-tag") : NULL;
            assert_true(!v || hp_amqp_field_int(v, &tag));
            found = true;
        }
    }
    assert_true(found);
    hp_buf_consume(&conn.out, conn.out.len);
    empty_amqp_pool(&pool);
    return tag;
}

/* The broker gives a message back that no queue took: its headers come with it. */
static void give_back(int64_t tag)
{
    amqp_table_entry_t entry = {.key = amqp_cstring_bytes("x-harpoon-tag"),
                                .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = tag}};
    amqp_basic_properties_t p = {._flags = AMQP_BASIC_HEADERS_FLAG, .headers = {1, &entry}};
    struct hp_amqp_content c = {.id = AMQP_BASIC_RETURN_METHOD, .properties = &p};
    conn.events->content(conn.user, 1, &c);
}

static int setup(void **state)
{
    struct hp_publisher_options o = {0};
    struct hp_error e = {0};
    uv_loop_init(&loop);
    assert_int_equal(hp_publisher_new(&loop, &o, &publisher, &e), 0);
    come_up();
    hp_buf_consume(&conn.out, conn.out.len);
    return 0;
}

static int teardown(void **state)
{
    hp_publisher_close(publisher, 0, NULL, NULL);
    if (conn.kicked)
        turn();
    assert_true(conn.closing);
    conn.events->closed(conn.user);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    hp_buf_done(&conn.out);
    return 0;
}

static void what_is_asked_for_is_sent(void **state)
{
    struct message m, n;
    bool mandatory = false;
    int mode = 0;
    submit(&m, true);
    turn();
    assert_int_equal(written(&mandatory, &mode), 1);
    assert_true(mandatory);
    assert_int_equal(mode, 2); /* persistent */
    submit(&n, false);
    turn();
    assert_int_equal(written(&mandatory, &mode), 0);
    assert_false(mandatory);
    ack(2, true);
    assert_int_equal(m.told + n.told, 2);
}

/* Of a message that no queue took the broker sends both: the return, and then the confirm. */
static void a_returned_message_is_not_a_confirmed_one(void **state)
{
    struct message a, b, c;
    bool mandatory;
    int mode;
    submit(&a, true);
    turn();
    hp_buf_consume(&conn.out, conn.out.len);
    submit(&b, true);
    turn();
    int64_t tag = written(&mandatory, &mode);
    submit(&c, true);
    turn();
    give_back(tag);
    assert_int_equal(b.told, 0);
    ack(3, true);
    assert_int_equal(a.outcome, HP_PUBLISH_CONFIRMED);
    assert_int_equal(b.outcome, HP_PUBLISH_RETURNED);
    assert_int_equal(c.outcome, HP_PUBLISH_CONFIRMED);
    assert_int_equal(a.told + b.told + c.told, 3);
}

static void a_nack_is_a_refusal(void **state)
{
    struct message a, b;
    submit(&a, true);
    submit(&b, true);
    turn();
    nack(2);
    ack(1, false);
    assert_int_equal(a.outcome, HP_PUBLISH_CONFIRMED);
    assert_int_equal(b.outcome, HP_PUBLISH_REJECTED);
}

/* The first may be in its queue, for all that anybody knows; the second never left. */
static void a_lost_connection_leaves_unknowns(void **state)
{
    struct message sent, waiting;
    submit(&sent, true);
    turn();
    conn.full = true;
    submit(&waiting, true);
    turn();
    lose();
    assert_int_equal(sent.told, 1);
    assert_int_equal(sent.outcome, HP_PUBLISH_UNKNOWN);
    assert_int_equal(waiting.told, 1);
    assert_int_equal(waiting.outcome, HP_PUBLISH_UNAVAILABLE);
    struct message late;
    submit(&late, true);
    turn();
    assert_int_equal(late.outcome, HP_PUBLISH_UNAVAILABLE);
}

/* Tags begin at 1 again: the confirm of message 1 is that of the message that was sent first on this connection. */
static void each_connection_counts_anew(void **state)
{
    struct message a, b, c;
    submit(&a, true);
    submit(&b, true);
    turn();
    lose();
    come_up();
    submit(&c, true);
    turn();
    ack(1, false);
    assert_int_equal(a.outcome, HP_PUBLISH_UNKNOWN);
    assert_int_equal(a.told, 1);
    assert_int_equal(c.outcome, HP_PUBLISH_CONFIRMED);
    assert_int_equal(c.told, 1);
    ack(2, false); /* of no message */
    assert_int_equal(conn.dropped, 1);
}

/* The broker may take it yet: nobody can say. And its confirm, when it comes, is nobody's any more. */
static void a_deadline_leaves_an_unknown(void **state)
{
    struct message a, b;
    a = (struct message){.publish = {.routing_key = "q", .deadline_ms = 1, .mandatory = true, .done_cb = on_done}};
    hp_publish(publisher, &a.publish);
    submit(&b, true);
    turn();
    uint64_t end = hp_now_ms() + 10000;
    uv_timer_t awake; /* the publisher's own does not keep the loop */
    uv_timer_init(&loop, &awake);
    uv_timer_start(&awake, on_awake, 5, 5);
    while (!a.told && hp_now_ms() < end)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&awake, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(a.outcome, HP_PUBLISH_UNKNOWN);
    ack(2, true);
    assert_int_equal(a.told, 1);
    assert_int_equal(b.outcome, HP_PUBLISH_CONFIRMED);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_asked_for_is_sent),   T(a_returned_message_is_not_a_confirmed_one),
        T(a_nack_is_a_refusal),         T(a_lost_connection_leaves_unknowns),
        T(each_connection_counts_anew), T(a_deadline_leaves_an_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
