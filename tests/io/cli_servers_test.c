/* The CLI's commands that go past the gateway: dead letters straight from the broker, migrations straight into the record. */
#include "lib/loop_test.h"

#include <jansson.h>
#include <sys/wait.h>

#include "io/amqp.h"
#include "io/topology.h"

static uv_loop_t loop;
static struct hp_publisher *publisher;
static struct hp_consumer *consumer;
static struct hp_topology topology;
static enum hp_amqp_state publisher_state, consumer_state;
static int rejected, wanted;
static char output[1 << 16];

/* Runs the CLI; its output, both kinds together, is in `output`. */
static int harpoon(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "%s %s 2>&1", getenv("HARPOON_CLI"), arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = '\0';
    int status = pclose(f);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void on_publisher_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    publisher_state = state;
}

static void on_consumer_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    consumer_state = state;
}

/* A scheduler that can make nothing of any message. */
static void on_message(struct hp_delivery *d, void *user)
{
    hp_consumer_reject(d->consumer, d->subscription, d->tag);
    hp_delivery_free(d);
    rejected++;
}

static bool both_up(void *arg)
{
    return publisher_state == HP_AMQP_UP && consumer_state == HP_AMQP_UP;
}

static bool all_rejected(void *arg)
{
    return rejected >= wanted;
}

static bool is_confirmed(void *arg)
{
    return *(int *)arg != -1;
}

static int outcome_seen;

static void on_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    outcome_seen = (int)outcome;
}

static void poison(const char *id, const char *body)
{
    struct hp_publish m = {.exchange = "",
                           .routing_key = topology.requests,
                           .body = body,
                           .body_len = strlen(body),
                           .mandatory = true,
                           .persistent = true,
                           .type = "harpoon.internal.v1.Request",
                           .message_id = id,
                           .done_cb = on_done};
    outcome_seen = -1;
    wanted = rejected + 1;
    hp_publish(publisher, &m);
    UNTIL(&loop, is_confirmed, &outcome_seen);
    assert_int_equal(outcome_seen, HP_PUBLISH_CONFIRMED);
    UNTIL(&loop, all_rejected, NULL);
}

static int setup(void **state)
{
    uv_loop_init(&loop);
    assert_int_equal(hp_topology_region(&topology, "r1", NULL), 0);
    const struct hp_amqp_options amqp = {.url = getenv("HARPOON_AMQP_URL")};
    const struct hp_subscription s[] = {{.queue = topology.requests, .prefetch = 10}};
    const struct hp_publisher_options p = {.amqp = amqp, .topology = topology.objects, .state_cb = on_publisher_state};
    const struct hp_consumer_options c = {.amqp = amqp,
                                          .topology = topology.objects,
                                          .subscriptions = s,
                                          .subscription_count = 1,
                                          .message_cb = on_message,
                                          .state_cb = on_consumer_state};
    assert_int_equal(hp_publisher_new(&loop, &p, &publisher, NULL), 0);
    assert_int_equal(hp_consumer_new(&loop, &c, &consumer, NULL), 0);
    UNTIL(&loop, both_up, NULL);
    setenv("HARPOON_REGION", "r1", 1);
    return 0;
}

static int teardown(void **state)
{
    bool closed = false, consumer_closed = false;
    hp_publisher_close(publisher, 0, loop_closed, &closed);
    hp_consumer_close(consumer, loop_closed, &consumer_closed);
    UNTIL_FLAG(&loop, closed);
    UNTIL_FLAG(&loop, consumer_closed);
    return 0;
}

/* Dead-lettering is at least once, through the broker's own publisher: it takes a moment. */
static void list_until(size_t count)
{
    for (int i = 0; i < 300; i++) {
        assert_int_equal(harpoon("dead list -o json"), 0);
        json_t *doc = json_loads(output, 0, NULL);
        assert_non_null(doc);
        size_t n = json_array_size(json_object_get(doc, "messages"));
        json_decref(doc);
        if (n == count)
            return;
        uv_sleep(20);
    }
    fail_msg("%zu dead messages expected:\n%s", count, output);
}

static void dead_letters_are_listed_with_where_they_came_from(void **state)
{
    poison("op-1", "first");
    poison("op-2 \"quoted\"", "second");
    poison(NULL, "without an id");
    list_until(3);
    json_t *doc = json_loads(output, 0, NULL);
    json_t *one = json_array_get(json_object_get(doc, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(one, "id")), "op-1");
    assert_string_equal(json_string_value(json_object_get(one, "from")), "requests.r1");
    assert_string_equal(json_string_value(json_object_get(one, "reason")), "rejected");
    assert_string_equal(json_string_value(json_object_get(one, "type")), "harpoon.internal.v1.Request");
    assert_int_equal(json_integer_value(json_object_get(one, "bytes")), 5);
    assert_int_equal(json_integer_value(json_object_get(one, "deaths")), 1);
    assert_non_null(json_string_value(json_object_get(one, "diedTime")));
    json_decref(doc);
    assert_int_equal(harpoon("dead list"), 0);
    assert_non_null(strstr(output, "op-2 \"quoted\""));
    assert_non_null(strstr(output, "body-"));
}

static void a_replay_goes_back_where_it_came_from(void **state)
{
    assert_int_equal(harpoon("dead replay no-such-id"), 3);
    list_until(3);
    wanted = rejected + 1;
    assert_int_equal(harpoon("dead replay op-1"), 0);
    assert_string_equal(output, "1 replayed\n");
    UNTIL(&loop, all_rejected, NULL); /* it arrived, and died again */
    list_until(3);
}

static void a_drop_is_final(void **state)
{
    assert_int_equal(harpoon("dead drop op-1"), 0);
    assert_string_equal(output, "1 dropped\n");
    list_until(2);
    assert_null(strstr(output, "op-1"));
    assert_int_equal(harpoon("dead drop --all"), 0);
    assert_string_equal(output, "2 dropped\n");
    list_until(0);
}

static void wrong_use_is_told(void **state)
{
    assert_int_equal(harpoon("dead replay"), 2);
    assert_int_equal(harpoon("dead drop op-1 --all"), 2);
    assert_int_equal(harpoon("dead list --region r9"), 3);
    assert_non_null(strstr(output, "dead.r9"));
    assert_int_equal(harpoon("dead list --amqp-url amqp://harpoon:wrong@127.0.0.1:1/harpoon"), 6);
    assert_int_equal(harpoon("dead list --amqp-url http://x"), 2);
    /* Of a cluster's nodes, one that answers is enough. */
    char list[1024];
    snprintf(list, sizeof list, "dead list --amqp-url amqp://u:p@127.0.0.1:1/harpoon,%s", getenv("HARPOON_AMQP_URL"));
    assert_int_equal(harpoon(list), 0);
    assert_int_equal(harpoon("dead list --amqp-url amqp://u:p@127.0.0.1:1/v,amqp://u:p@127.0.0.1:1/v"), 6);
}

static void migrations_are_applied_once(void **state)
{
    assert_int_equal(harpoon("admin migrations"), 0);
    assert_non_null(strstr(output, "pending  0001_init.sql"));
    assert_int_equal(harpoon("admin migrate"), 0);
    assert_non_null(strstr(output, "now applied  0001_init.sql"));
    assert_int_equal(harpoon("admin migrate"), 0);
    assert_null(strstr(output, "now applied"));
    assert_non_null(strstr(output, "applied  0001_init.sql"));
    servers("sql 'SELECT epoch FROM regions'");
    servers("sql 'INSERT INTO regions (name) VALUES (\"r1\")'");
    servers("sql 'SELECT version, name FROM schema_migrations' > /dev/null");
}

/* Two that start at once: one works, the other waits and finds it done. */
static void migrations_exclude_each_other(void **state)
{
    servers("sql 'DROP DATABASE harpoon'");
    char command[1024];
    snprintf(command, sizeof command,
             "mariadb --no-defaults -uroot -S\"$HARPOON_MYSQL_SOCKET\" -e 'CREATE DATABASE harpoon' && "
             "{ \"%s\" admin migrate & a=$!; \"%s\" admin migrate & b=$!; wait $a && wait $b; } > /dev/null",
             getenv("HARPOON_CLI"), getenv("HARPOON_CLI"));
    assert_int_equal(system(command), 0);
}

static void a_database_that_is_not_there_is_told(void **state)
{
    assert_int_equal(harpoon("admin migrate --socket /nowhere"), 6);
    assert_non_null(strstr(output, "/nowhere"));
    assert_int_equal(harpoon("admin"), 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_letters_are_listed_with_where_they_came_from),
        cmocka_unit_test(a_replay_goes_back_where_it_came_from),
        cmocka_unit_test(a_drop_is_final),
        cmocka_unit_test(wrong_use_is_told),
        cmocka_unit_test(migrations_are_applied_once),
        cmocka_unit_test(migrations_exclude_each_other),
        cmocka_unit_test(a_database_that_is_not_there_is_told),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
