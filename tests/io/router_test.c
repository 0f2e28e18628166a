/* The router's shell against a real broker: an agent over TLS, a scheduler's queues, a broker that dies and comes back, the orderly end. */
#include "lib/loop_test.h"

#include <unistd.h>

#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "io/amqp.h"
#include "io/stream.h"
#include "io/tls.h"
#include "io/topology.h"
#include "lib/pki.h"
#include "shell/shell.h"
#include "wire/codec.h"
#include "wire/frame.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
typedef Harpoon__Internal__V1__AgentMessage pb_agent;
typedef Harpoon__Internal__V1__RouterMessage pb_router;
typedef Harpoon__Internal__V1__Report pb_report;

enum { LOG_MAX = 65536 };

struct agent {
    struct hp_stream *stream; /* NULL once closed */
    struct hp_frame_reader reader;
    bool open, closed;
    char router[256]; /* from the welcome */
};

struct fixture {
    uv_loop_t loop;
    char dir[64];
    struct pki *pki;
    struct hp_tls_context *agent_tls, *stranger_tls;
    struct er_config config;
    struct er_shell *shell;
    bool ready, ended;
    struct hp_topology topology;
    struct hp_publisher *publisher; /* the scheduler's */
    struct hp_consumer *consumer;
    enum hp_amqp_state publisher_state, consumer_state;
    char log[LOG_MAX]; /* what agents and scheduler saw, a line each */
    const char *wanted;
    struct agent agents[3];
};

static struct fixture fx;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    size_t n = strlen(fx.log);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(fx.log + n, sizeof fx.log - n, fmt, ap);
    va_end(ap);
    n = strlen(fx.log);
    snprintf(fx.log + n, sizeof fx.log - n, "\n");
}

static bool log_has(void *arg)
{
    return strstr(fx.log, arg) != NULL;
}

#define EXPECT(text_)                                                                                                  \
    do {                                                                                                               \
        if (!loop_until(&fx.loop, log_has, (void *)(uintptr_t)(text_ "\n"), 30000))                                    \
            fail_msg("no \"%s\" in:\n%s", text_, fx.log);                                                              \
    } while (0)

/* ---- An agent ---- */

static int on_frame(void *user, const uint8_t *body, size_t len)
{
    struct agent *a = user;
    int number = (int)(a - fx.agents);
    ProtobufCMessage *message = NULL;
    struct hp_error e = {0};
    assert_int_equal(hp_unpack(&harpoon__internal__v1__router_message__descriptor, body, len, NULL, &message, &e), 0);
    pb_router *m = (pb_router *)message;
    switch (m->body_case) {
    case V1(ROUTER_MESSAGE__BODY_WELCOME):
        snprintf(a->router, sizeof a->router, "%s", m->welcome->router);
        say("agent %d welcome", number);
        break;
    case V1(ROUTER_MESSAGE__BODY_COMMAND):
        say("agent %d command %s/%lld", number, m->command->uid, (long long)m->command->generation);
        break;
    case V1(ROUTER_MESSAGE__BODY_CONFIRMED):
        for (size_t i = 0; i < m->confirmed->n_report_ids; i++)
            say("agent %d confirmed %lld", number, (long long)m->confirmed->report_ids[i]);
        break;
    case V1(ROUTER_MESSAGE__BODY_REFUSED):
        say("agent %d refused %d", number, m->refused->status->code);
        break;
    case V1(ROUTER_MESSAGE__BODY_DRAINING):
        say("agent %d draining", number);
        break;
    default:
        break;
    }
    hp_unpacked_free(message);
    return 0;
}

static void on_open(struct hp_stream *s, void *user)
{
    ((struct agent *)user)->open = true;
    (void)s;
}

static void on_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct agent *a = user;
    struct hp_error e = {0};
    (void)s;
    assert_int_equal(hp_frame_read(&a->reader, data, len, on_frame, a, &e), 0);
}

static void on_close(struct hp_stream *s, const struct hp_error *e, void *user)
{
    struct agent *a = user;
    (void)s;
    (void)e;
    a->stream = NULL;
    a->closed = true;
    hp_frame_reader_done(&a->reader);
    say("agent %d closed", (int)(a - fx.agents));
}

static void dial(struct agent *a, struct hp_tls_context *tls)
{
    static const struct hp_stream_events events = {on_open, on_read, NULL, on_close};
    struct hp_stream_options o = {.tls = tls};
    struct hp_error e = {0};
    *a = (struct agent){0};
    assert_int_equal(hp_stream_connect(&fx.loop, er_shell_address(fx.shell), NULL, &o, &events, a, &a->stream, &e), 0);
}

static void send_message(struct agent *a, const pb_agent *m)
{
    uint8_t *body, header[HP_FRAME_HEADER];
    size_t len;
    struct hp_error e = {0};
    assert_int_equal(hp_pack(&m->base, &body, &len, &e), 0);
    hp_frame_header(header, len);
    assert_int_equal(hp_stream_write(a->stream, header, sizeof header), 0);
    assert_int_equal(hp_stream_write(a->stream, body, len), 0);
    free(body);
}

static void send_hello(struct agent *a, const char *host, int64_t session)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello h = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    h.version_min = h.version_max = 1;
    h.region = (char *)(uintptr_t) "r1";
    h.host = (char *)(uintptr_t)host;
    h.session = session;
    m.body_case = V1(AGENT_MESSAGE__BODY_HELLO);
    m.hello = &h;
    send_message(a, &m);
}

static void send_result(struct agent *a, int64_t report_id)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandResult r = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    r.report_id = report_id;
    r.uid = (char *)(uintptr_t) "u1";
    r.generation = 1;
    m.body_case = V1(AGENT_MESSAGE__BODY_RESULT);
    m.result = &r;
    send_message(a, &m);
}

static void send_metrics(struct agent *a)
{
    pb_agent m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentMetrics am = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    m.body_case = V1(AGENT_MESSAGE__BODY_METRICS);
    m.metrics = &am;
    send_message(a, &m);
}

/* ---- A scheduler ---- */

static void on_report(const pb_report *r)
{
    char head[100];
    snprintf(head, sizeof head, "%s#%lld", r->host, (long long)r->session);
    switch (r->body_case) {
    case V1(REPORT__BODY_ATTACH):
        say("report %s attach", head);
        break;
    case V1(REPORT__BODY_DETACH):
        say("report %s detach %s", head, r->detach->reason);
        break;
    case V1(REPORT__BODY_RESULT):
        say("report %s result %lld", head, (long long)r->result->report_id);
        break;
    case V1(REPORT__BODY_UNDELIVERED):
        say("report %s undelivered %s", head, r->undelivered->reason);
        break;
    default:
        break;
    }
}

static void on_message(struct hp_delivery *d, void *user)
{
    ProtobufCMessage *message = NULL;
    struct hp_error e = {0};
    (void)user;
    if (d->subscription == 0) {
        assert_string_equal(d->type, "harpoon.internal.v1.Report");
        assert_int_equal(
            hp_unpack(&harpoon__internal__v1__report__descriptor, d->body, d->body_len, NULL, &message, &e), 0);
        on_report((pb_report *)message);
    } else {
        assert_string_equal(d->type, "harpoon.internal.v1.MetricsBatch");
        assert_int_equal(
            hp_unpack(&harpoon__internal__v1__metrics_batch__descriptor, d->body, d->body_len, NULL, &message, &e), 0);
        Harpoon__Internal__V1__MetricsBatch *b = (Harpoon__Internal__V1__MetricsBatch *)message;
        for (size_t i = 0; i < b->n_samples; i++)
            if (b->samples[i]->metrics)
                say("metrics of %s", b->samples[i]->host);
    }
    hp_unpacked_free(message);
    hp_consumer_ack(d->consumer, d->subscription, d->tag, false);
    hp_delivery_free(d);
}

static void on_consumer(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    (void)e;
    (void)user;
    fx.consumer_state = state;
}

static void on_publisher(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    (void)e;
    (void)user;
    fx.publisher_state = state;
}

static bool scheduler_up(void *arg)
{
    (void)arg;
    return fx.consumer_state == HP_AMQP_UP && fx.publisher_state == HP_AMQP_UP;
}

struct command {
    struct hp_publish publish;
    uint8_t *body;
    char key[300];
};

static void command_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct command *c = (struct command *)p;
    say("command %s", outcome == HP_PUBLISH_CONFIRMED  ? "confirmed"
                      : outcome == HP_PUBLISH_RETURNED ? "returned"
                                                       : "lost");
    free(c->body);
    free(c);
}

static void send_command(const char *router, const char *host, int64_t session)
{
    Harpoon__Internal__V1__RouterCommand m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__Command cmd = HARPOON__INTERNAL__V1__COMMAND__INIT;
    struct command *c = calloc(1, sizeof *c);
    struct hp_error e = {0};
    cmd.region = (char *)(uintptr_t) "r1";
    cmd.host = (char *)(uintptr_t)host;
    cmd.session = session;
    cmd.uid = (char *)(uintptr_t) "u1";
    cmd.generation = 1;
    m.body_case = V1(ROUTER_COMMAND__BODY_COMMAND);
    m.command = &cmd;
    assert_int_equal(hp_pack(&m.base, &c->body, &c->publish.body_len, &e), 0);
    snprintf(c->key, sizeof c->key, "router.%s", router);
    c->publish.exchange = "";
    c->publish.routing_key = c->key;
    c->publish.body = c->body;
    c->publish.mandatory = true;
    c->publish.done_cb = command_done;
    hp_publish(fx.publisher, &c->publish);
}

static void scheduler_start(void)
{
    struct hp_error e = {0};
    assert_int_equal(hp_topology_region(&fx.topology, "r1", &e), 0);
    struct hp_amqp_options amqp = {.url = getenv("HARPOON_AMQP_URL"), .connection_name = "test/scheduler"};
    struct hp_subscription subs[] = {{.queue = fx.topology.reports, .prefetch = 100},
                                     {.queue = fx.topology.metrics, .prefetch = 100}};
    struct hp_consumer_options co = {.amqp = amqp,
                                     .topology = fx.topology.objects,
                                     .subscriptions = subs,
                                     .subscription_count = 2,
                                     .message_cb = on_message,
                                     .state_cb = on_consumer};
    struct hp_publisher_options po = {.amqp = amqp, .topology = fx.topology.objects, .state_cb = on_publisher};
    assert_int_equal(hp_consumer_new(&fx.loop, &co, &fx.consumer, &e), 0);
    assert_int_equal(hp_publisher_new(&fx.loop, &po, &fx.publisher, &e), 0);
}

/* ---- The router ---- */

static void on_ready(void *user)
{
    (void)user;
    fx.ready = true;
}

static void on_end(void *user)
{
    (void)user;
    fx.ended = true;
}

static char *put_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fx.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return strdup(path);
}

static void router_start(void)
{
    struct hp_error e = {0};
    struct pki_leaf leaf = pki_issue(fx.pki, "er-1", "IP:127.0.0.1", false);
    fx.config = (struct er_config){
        .name = strdup("er-1"),
        .region = strdup("r1"),
        .listen = strdup("127.0.0.1:0"),
        .heartbeat_ms = 60000, /* these agents send none */
        .metrics_ms = 5000,
        .drain_ms = 1000,
        .window = 4,
        .sessions_max = 10,
        .attaches_max = 10,
        .handshakes_max = 10,
        .write_queue_bytes = 4 << 20,
        .tls_ca = put_file("ca.pem", pki_ca_pem(fx.pki)),
        .tls_cert = put_file("cert.pem", leaf.cert_pem),
        .tls_key = put_file("key.pem", leaf.key_pem),
        .broker_url = strdup(getenv("HARPOON_AMQP_URL")),
        .broker_ca = strdup(""),
        .broker_cert = strdup(""),
        .broker_key = strdup(""),
    };
    pki_leaf_done(&leaf);
    struct er_shell_events events = {.on_ready = on_ready, .on_end = on_end};
    assert_int_equal(er_shell_new(&fx.loop, &fx.config, &events, &fx.shell, &e), 0);
}

static struct hp_tls_context *agent_context(const char *host)
{
    struct hp_tls_options o = {.role = HP_TLS_CLIENT};
    struct hp_tls_context *c = NULL;
    struct hp_error e = {0};
    char san[100];
    snprintf(san, sizeof san, "URI:harpoon://regions/r1/hosts/%s", host);
    struct pki_leaf leaf = pki_issue(fx.pki, host, san, false);
    assert_int_equal(hp_tls_context_new_pem(&o, pki_ca_pem(fx.pki), leaf.cert_pem, leaf.key_pem, &c, &e), 0);
    pki_leaf_done(&leaf);
    return c;
}

static int setup(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof fx);
    snprintf(fx.dir, sizeof fx.dir, "/tmp/harpoon-router-XXXXXX");
    assert_non_null(mkdtemp(fx.dir));
    uv_loop_init(&fx.loop);
    fx.pki = pki_new("test CA");
    fx.agent_tls = agent_context("h1");
    fx.stranger_tls = agent_context("h2");
    router_start();
    scheduler_start();
    UNTIL_FLAG(&fx.loop, fx.ready);
    UNTIL(&fx.loop, scheduler_up, NULL);
    return 0;
}

static int teardown(void **state)
{
    bool consumer_closed = false, publisher_closed = false;
    char command[128];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        if (fx.agents[i].stream)
            hp_stream_close(fx.agents[i].stream, 0);
    if (!fx.ended)
        er_shell_drain(fx.shell);
    UNTIL_FLAG(&fx.loop, fx.ended);
    hp_consumer_close(fx.consumer, loop_closed, &consumer_closed);
    hp_publisher_close(fx.publisher, 0, loop_closed, &publisher_closed);
    UNTIL_FLAG(&fx.loop, consumer_closed);
    UNTIL_FLAG(&fx.loop, publisher_closed);
    hp_config_free(er_config_keys, &fx.config);
    hp_tls_context_unref(fx.agent_tls);
    hp_tls_context_unref(fx.stranger_tls);
    pki_free(fx.pki);
    uv_run(&fx.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&fx.loop), 0);
    snprintf(command, sizeof command, "rm -r %s", fx.dir);
    return system(command);
}

static void one_command_there_and_back(void **state)
{
    struct agent *a = &fx.agents[0];
    (void)state;
    dial(a, fx.agent_tls);
    send_hello(a, "h1", 5);
    EXPECT("agent 0 welcome");
    EXPECT("report h1#5 attach");
    send_command(a->router, "h1", 5);
    EXPECT("agent 0 command u1/1");
    send_result(a, 1);
    EXPECT("report h1#5 result 1");
    EXPECT("agent 0 confirmed 1");
    send_metrics(a);
    EXPECT("metrics of h1");
    send_command(a->router, "h1", 4);
    EXPECT("report h1#4 undelivered other_session");
    send_command("no-such-router", "h1", 5);
    EXPECT("command returned");
    hp_stream_close(a->stream, 1000);
    EXPECT("report h1#5 detach connection_lost");
}

static void another_hosts_certificate_is_refused(void **state)
{
    (void)state;
    dial(&fx.agents[0], fx.stranger_tls);
    send_hello(&fx.agents[0], "h1", 5);
    EXPECT("agent 0 refused 7");
    EXPECT("agent 0 closed");
    dial(&fx.agents[1], NULL); /* no TLS */
    UNTIL_FLAG(&fx.loop, fx.agents[1].open);
    send_hello(&fx.agents[1], "h1", 5);
    EXPECT("agent 1 closed");
}

static void sessions_survive_the_broker(void **state)
{
    struct agent *a = &fx.agents[0];
    (void)state;
    dial(a, fx.agent_tls);
    send_hello(a, "h1", 5);
    EXPECT("report h1#5 attach");
    servers_beside(&fx.loop, "kill broker");
    send_result(a, 7);
    servers_beside(&fx.loop, "start broker");
    fx.log[0] = '\0';
    EXPECT("report h1#5 attach");
    EXPECT("report h1#5 result 7");
    EXPECT("agent 0 confirmed 7");
    UNTIL(&fx.loop, scheduler_up, NULL);
    send_command(a->router, "h1", 5);
    EXPECT("agent 0 command u1/1");
    assert_false(a->closed);
}

static void drain_tells_cuts_and_reports(void **state)
{
    (void)state;
    dial(&fx.agents[0], fx.agent_tls);
    send_hello(&fx.agents[0], "h1", 5);
    dial(&fx.agents[1], fx.stranger_tls);
    send_hello(&fx.agents[1], "h2", 9);
    EXPECT("report h1#5 attach");
    EXPECT("report h2#9 attach");
    er_shell_drain(fx.shell);
    EXPECT("agent 0 draining");
    hp_stream_close(fx.agents[0].stream, 1000); /* moves at once; the other stays until it is cut off */
    EXPECT("report h1#5 detach router_draining");
    EXPECT("agent 1 closed");
    EXPECT("report h2#9 detach router_draining");
    UNTIL_FLAG(&fx.loop, fx.ended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_command_there_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(another_hosts_certificate_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(sessions_survive_the_broker, setup, teardown),
        cmocka_unit_test_setup_teardown(drain_tells_cuts_and_reports, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
