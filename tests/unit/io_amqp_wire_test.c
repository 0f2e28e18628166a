/* AMQP frames to bytes and back, cut anywhere; input that no broker should send; what each object's declaration says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/amqp_conn.h"
#include "io/amqp_login.h"
#include "io/topology.h"

enum { FRAME_MAX = 4096 };

static struct hp_buf out;
static amqp_pool_t pool;

static int setup(void **state)
{
    hp_buf_init(&out, 1 << 20);
    init_amqp_pool(&pool, 4096);
    return 0;
}

static int teardown(void **state)
{
    hp_buf_done(&out);
    empty_amqp_pool(&pool);
    return 0;
}

static struct hp_amqp_frame next(size_t *used)
{
    struct hp_amqp_frame f = {0};
    struct hp_error e = {0};
    assert_int_equal(hp_amqp_frame_next(hp_buf_front(&out), out.len, FRAME_MAX, &f, used, &e), 0);
    return f;
}

static void a_message_comes_back(void **state)
{
    char body[10000];
    memset(body, 'b', sizeof body);
    amqp_basic_publish_t publish = {
        .exchange = amqp_cstring_bytes("x"), .routing_key = amqp_cstring_bytes("k"), .mandatory = 1};
    amqp_basic_properties_t props = {._flags = AMQP_BASIC_TYPE_FLAG, .type = amqp_cstring_bytes("t")};
    assert_int_equal(hp_amqp_put_method(&out, 1, AMQP_BASIC_PUBLISH_METHOD, &publish, NULL), 0);
    assert_int_equal(hp_amqp_put_content(&out, 1, &props, body, sizeof body, FRAME_MAX, NULL), 0);
    size_t used, total = 0;
    struct hp_amqp_frame f = next(&used);
    amqp_method_number_t id;
    void *method;
    assert_int_equal(hp_amqp_decode_method(&f, &pool, &id, &method, NULL), 0);
    assert_int_equal(id, AMQP_BASIC_PUBLISH_METHOD);
    assert_true(((amqp_basic_publish_t *)method)->mandatory);
    assert_memory_equal(((amqp_basic_publish_t *)method)->routing_key.bytes, "k", 1);
    hp_buf_consume(&out, used);
    f = next(&used);
    uint64_t len;
    amqp_basic_properties_t *p;
    assert_int_equal(hp_amqp_decode_header(&f, &pool, &len, &p, NULL), 0);
    assert_int_equal(len, sizeof body);
    assert_memory_equal(p->type.bytes, "t", 1);
    hp_buf_consume(&out, used);
    while (out.len) {
        f = next(&used);
        assert_int_equal(f.type, AMQP_FRAME_BODY);
        assert_true(f.len + HP_AMQP_FRAME_OVERHEAD <= FRAME_MAX);
        total += f.len;
        hp_buf_consume(&out, used);
    }
    assert_int_equal(total, sizeof body);
}

static void a_cut_frame_waits_for_the_rest(void **state)
{
    assert_int_equal(hp_amqp_put_heartbeat(&out, NULL), 0);
    assert_int_equal(out.len, HP_AMQP_FRAME_OVERHEAD);
    for (size_t n = 0; n < out.len; n++) {
        struct hp_amqp_frame f;
        size_t used = 99;
        assert_int_equal(hp_amqp_frame_next(hp_buf_front(&out), n, FRAME_MAX, &f, &used, NULL), 0);
        assert_int_equal(used, 0);
    }
    size_t used;
    assert_int_equal(next(&used).type, AMQP_FRAME_HEARTBEAT);
    assert_int_equal(used, out.len);
}

static void input_that_is_not_amqp_is_refused(void **state)
{
    static const struct {
        uint8_t bytes[12];
        size_t len;
    } bad[] = {
        {{'A', 'M', 'Q', 'P', 0, 0, 9, 1}, 8},         /* the broker's answer to a wrong version */
        {{'H', 'T', 'T', 'P', '/', '1', '.', '1'}, 8}, /* not a broker */
        {{1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0}, 8},     /* 4 GiB */
        {{1, 0, 0, 0, 0, 0x0f, 0xf9, 0}, 8},           /* one byte over FRAME_MAX */
        {{8, 0, 0, 0, 0, 0, 0, 0xCD}, 8},              /* wrong end mark */
        {{4, 0, 0, 0, 0, 0, 0, 0xCE}, 8},              /* unknown type */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hp_amqp_frame f;
        size_t used;
        struct hp_error e = {0};
        assert_int_equal(hp_amqp_frame_next(bad[i].bytes, bad[i].len, FRAME_MAX, &f, &used, &e), HP_EPROTO);
        assert_int_equal(used, 0);
    }
}

static void methods_that_cannot_be_decoded_are_refused(void **state)
{
    static const uint8_t shorter[] = {0, 60, 0};
    static const uint8_t unknown[] = {0, 99, 0, 99, 1, 2, 3};
    static const uint8_t cut[] = {0, 60, 0, 60, 200, 'x'}; /* basic.deliver with a tag of 200 bytes */
    const struct {
        const uint8_t *bytes;
        size_t len;
    } bad[] = {{shorter, sizeof shorter}, {unknown, sizeof unknown}, {cut, sizeof cut}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hp_amqp_frame f = {AMQP_FRAME_METHOD, 1, bad[i].bytes, bad[i].len};
        amqp_method_number_t id;
        void *method;
        assert_int_equal(hp_amqp_decode_method(&f, &pool, &id, &method, NULL), HP_EPROTO);
    }
    struct hp_amqp_frame header = {AMQP_FRAME_HEADER, 1, cut, sizeof cut};
    uint64_t len;
    amqp_basic_properties_t *p;
    assert_int_equal(hp_amqp_decode_header(&header, &pool, &len, &p, NULL), HP_EPROTO);
}

static void names_over_255_bytes_are_refused_and_leave_nothing(void **state)
{
    char name[300];
    memset(name, 'n', sizeof name);
    amqp_basic_publish_t publish = {.routing_key = {sizeof name, name}};
    struct hp_error e = {0};
    assert_int_equal(hp_amqp_put_method(&out, 1, AMQP_BASIC_PUBLISH_METHOD, &publish, &e), HP_EINVAL);
    amqp_basic_properties_t props = {._flags = AMQP_BASIC_TYPE_FLAG, .type = {sizeof name, name}};
    assert_int_equal(hp_amqp_put_content(&out, 1, &props, "x", 1, FRAME_MAX, &e), HP_EINVAL);
    assert_int_equal(out.len, 0);
}

static void a_full_buffer_takes_a_whole_message_or_nothing(void **state)
{
    static char body[64 * 1024];
    amqp_basic_properties_t props = {0};
    hp_buf_init(&out, 40000);
    struct hp_error e = {0};
    assert_int_equal(hp_amqp_put_content(&out, 1, &props, body, sizeof body, FRAME_MAX, &e), HP_ELIMIT);
    assert_int_equal(out.len, 0);
    assert_int_equal(hp_amqp_put_content(&out, 1, &props, body, 20000, FRAME_MAX, &e), 0);
}

static int64_t argument(const amqp_queue_declare_t *d, const char *name)
{
    const amqp_field_value_t *v = hp_amqp_table_find(&d->arguments, name);
    int64_t n = -1;
    if (v && v->kind == AMQP_FIELD_KIND_BOOLEAN)
        return v->value.boolean;
    if (v && v->kind == AMQP_FIELD_KIND_UTF8)
        return -2;
    if (v)
        assert_true(hp_amqp_field_int(v, &n));
    return n;
}

static void assert_text(const amqp_queue_declare_t *d, const char *name, const char *value)
{
    const amqp_field_value_t *v = hp_amqp_table_find(&d->arguments, name);
    assert_non_null(v);
    assert_int_equal(v->value.bytes.len, strlen(value));
    assert_memory_equal(v->value.bytes.bytes, value, strlen(value));
}

static amqp_queue_declare_t *declaration_of(const struct hp_topology *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->objects[i].name, name) == 0) {
            amqp_method_number_t id;
            void *method;
            size_t used;
            hp_buf_consume(&out, out.len);
            assert_int_equal(hp_amqp_put_declare(&out, 1, &t->objects[i], NULL), 0);
            struct hp_amqp_frame f = next(&used);
            assert_int_equal(hp_amqp_decode_method(&f, &pool, &id, &method, NULL), 0);
            assert_int_equal(id, AMQP_QUEUE_DECLARE_METHOD);
            return method;
        }
    fail_msg("%s is not in the table", name);
    return NULL;
}

/* These arguments are in brokers that run: a change makes every declaration fail there. */
static void a_region_is_declared_as_written_down(void **state)
{
    struct hp_topology t;
    assert_int_equal(hp_topology_region(&t, "r1", NULL), 0);
    const char *const inboxes[] = {"requests.r1", "reports.r1"};
    for (int i = 0; i < 2; i++) {
        amqp_queue_declare_t *d = declaration_of(&t, inboxes[i]);
        assert_true(d->durable && !d->exclusive && !d->auto_delete && !d->passive);
        assert_text(d, "x-queue-type", "quorum");
        assert_text(d, "x-overflow", "reject-publish");
        assert_text(d, "x-dead-letter-exchange", "");
        assert_text(d, "x-dead-letter-routing-key", "dead.r1");
        assert_text(d, "x-dead-letter-strategy", "at-least-once");
        assert_int_equal(argument(d, "x-max-length"), 1000000);
        assert_int_equal(argument(d, "x-delivery-limit"), 20);
        assert_int_equal(argument(d, "x-single-active-consumer"), 1);
    }
    amqp_queue_declare_t *d = declaration_of(&t, "metrics.r1");
    assert_true(!d->durable && !d->exclusive);
    assert_text(d, "x-queue-type", "classic");
    assert_text(d, "x-overflow", "drop-head");
    assert_int_equal(argument(d, "x-max-length"), 1000);
    d = declaration_of(&t, "dead.r1");
    assert_text(d, "x-queue-type", "quorum");
    d = declaration_of(&t, "leader.r1");
    assert_int_equal(argument(d, "x-single-active-consumer"), 1);
    assert_int_equal(argument(d, "x-delivery-limit"), -1);
    for (int i = 0; i < t.count; i++)
        assert_int_not_equal(t.objects[i].kind, HP_AMQP_QUEUE_STREAM); /* requests and reports do not depend on it */
    assert_int_equal(hp_topology_events(&t, "r1", NULL), 0);
    assert_int_equal(t.count, 1);
    d = declaration_of(&t, "events.r1");
    assert_true(d->durable);
    assert_text(d, "x-queue-type", "stream");
    assert_text(d, "x-max-age", "7D");
    assert_int_equal(argument(d, "x-max-length-bytes"), 20ll << 30);
    assert_int_equal(argument(d, "x-overflow"), -1); /* streams refuse it */
}

static void own_queues_end_with_their_connection(void **state)
{
    struct hp_topology t;
    char id[HP_NAME_MAX + 1], other[HP_NAME_MAX + 1];
    hp_topology_id(id, "router-1");
    hp_topology_id(other, "router-1");
    assert_int_equal(strlen(id), strlen("router-1") + 9);
    assert_string_not_equal(id, other);
    assert_int_equal(hp_topology_router(&t, "r1", id, NULL), 0);
    amqp_queue_declare_t *d = declaration_of(&t, t.own);
    assert_true(d->exclusive && !d->durable);
    assert_int_equal(t.objects[t.count - 1].kind, HP_AMQP_BINDING);
    assert_string_equal(t.objects[t.count - 1].exchange, "routers.r1");
    assert_int_equal(hp_topology_reply(&t, "gw-1-0a", NULL), 0);
    assert_string_equal(t.own, "reply.gw-1-0a");
    assert_int_equal(t.count, 1);
}

static void urls_are_taken_apart(void **state)
{
    struct hp_amqp_login l;
    struct hp_amqp_options o = {.url = "amqp://user:p%40ss@[::1]:5673/my%2Fhost"};
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), 0);
    assert_string_equal(hp_amqp_login_node(&l)->address, "[::1]:5673");
    assert_string_equal(l.user, "user");
    assert_string_equal(l.password, "p@ss");
    assert_string_equal(l.vhost, "my/host");
    assert_int_equal(l.heartbeat_s, 10);
    assert_int_equal(l.rpc_ms, 5000);
    assert_false(l.tls);
    hp_amqp_login_done(&l);
    o = (struct hp_amqp_options){.url = "amqps://broker", .ca_file = "ca", .cert_file = "cert", .key_file = "key"};
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), 0);
    assert_string_equal(hp_amqp_login_node(&l)->address, "broker:5671");
    assert_string_equal(l.vhost, "/");
    assert_true(l.tls && l.external);
    hp_amqp_login_done(&l);
    o.url = "amqps://u:p@broker";
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), 0);
    assert_false(l.external);
    hp_amqp_login_done(&l);
}

static void a_cluster_has_several_urls(void **state)
{
    struct hp_amqp_login l;
    struct hp_error e = {0};
    struct hp_amqp_options o = {.url = "amqp://u:p%2C@[::1]:5673/v , amqp://u:p%2C@b/v,amqp://u:p%2C@c:1/v"};
    static const char *const addresses[] = {"[::1]:5673", "b:5672", "c:1", "[::1]:5673"};
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), 0);
    assert_string_equal(l.password, "p,");
    for (int i = 0; i < 4; i++) {
        assert_string_equal(hp_amqp_login_node(&l)->address, addresses[i]);
        hp_amqp_login_turn(&l);
    }
    hp_amqp_login_done(&l);
    static const char *const different[] = {"amqp://u:p@a/v,amqps://u:p@b/v", "amqp://u:p@a/v,amqp://w:p@b/v",
                                            "amqp://u:p@a/v,amqp://u:secret@b/v", "amqp://u:p@a/v,amqp://u:p@b"};
    for (size_t i = 0; i < 4; i++) {
        o = (struct hp_amqp_options){.url = different[i], .ca_file = "ca"};
        assert_int_equal(hp_amqp_login_init(&l, &o, &e), HP_EINVAL);
        assert_non_null(strstr(e.message, "in common"));
        assert_null(strstr(e.message, "secret"));
        hp_amqp_login_done(&l);
    }
    o.url = "amqp://u:p@a/v,http://u:p@b/v";
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), HP_EINVAL);
    hp_amqp_login_done(&l);
    o.url = " , ";
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), HP_EINVAL);
    hp_amqp_login_done(&l);
    o.url =
        "amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,amqp://a,"
        "amqp://a,amqp://a,amqp://a,amqp://a,amqp://a";
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), HP_ELIMIT);
    hp_amqp_login_done(&l);
}

static void a_tune_takes_the_smaller_of_both(void **state)
{
    struct hp_amqp_login l = {.heartbeat_s = 10};
    amqp_connection_tune_t tune = {.channel_max = 2047, .frame_max = 131072, .heartbeat = 60};
    amqp_connection_tune_ok_t ok;
    assert_int_equal(hp_amqp_login_tune(&l, &tune, 5, &ok, NULL), 0);
    assert_int_equal(ok.heartbeat, 10);
    assert_int_equal(ok.channel_max, 5);
    assert_int_equal(ok.frame_max, 131072);
    tune = (amqp_connection_tune_t){.channel_max = 0, .frame_max = 8192, .heartbeat = 3};
    assert_int_equal(hp_amqp_login_tune(&l, &tune, 5, &ok, NULL), 0);
    assert_int_equal(ok.heartbeat, 3);
    assert_int_equal(ok.frame_max, 8192);
    tune.channel_max = 4;
    assert_int_equal(hp_amqp_login_tune(&l, &tune, 5, &ok, NULL), HP_ELIMIT);
    tune = (amqp_connection_tune_t){.frame_max = 100};
    assert_int_equal(hp_amqp_login_tune(&l, &tune, 5, &ok, NULL), HP_EPROTO);
}

static void the_way_to_log_in_must_be_offered(void **state)
{
    struct hp_amqp_options o = {.url = "amqp://user:secret@broker"};
    struct hp_amqp_login l;
    assert_int_equal(hp_amqp_login_init(&l, &o, NULL), 0);
    amqp_connection_start_t start = {.mechanisms = amqp_cstring_bytes("AMQPLAIN PLAIN")};
    amqp_connection_start_ok_t ok;
    assert_int_equal(hp_amqp_login_start(&l, &start, &ok, NULL), 0);
    assert_int_equal(ok.response.len, 12);
    assert_memory_equal(ok.response.bytes, "\0user\0secret", 12);
    start.mechanisms = amqp_cstring_bytes("AMQPLAIN");
    assert_int_equal(hp_amqp_login_start(&l, &start, &ok, NULL), HP_EUNSUPPORTED);
    hp_amqp_login_done(&l);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_message_comes_back),
        T(a_cut_frame_waits_for_the_rest),
        T(input_that_is_not_amqp_is_refused),
        T(methods_that_cannot_be_decoded_are_refused),
        T(names_over_255_bytes_are_refused_and_leave_nothing),
        T(a_full_buffer_takes_a_whole_message_or_nothing),
        T(a_region_is_declared_as_written_down),
        T(own_queues_end_with_their_connection),
        T(urls_are_taken_apart),
        T(a_cluster_has_several_urls),
        T(a_tune_takes_the_smaller_of_both),
        T(the_way_to_log_in_must_be_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
