/* Start and end of the gateway: broker, record, feeds, server, and the one timer. */
#include "shell/gateway.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "grpc/status.h"
#include "io/loop.h"
#include "shell/metrics.h"
#include "wire/codec.h"

enum { DRAIN_MS = 5000, LINGER_MS = 2000, VERDICT_BYTES_MAX = 4 << 20, MESSAGE_MAX = 1 << 20, READS_MAX = 5000 };

/* ---- Time ---- */

static void on_timer(uv_timer_t *t)
{
    struct gw_gateway *gw = t->data;
    gw_timers_run(&gw->timers, hp_now_ms());
}

/* Before the loop sleeps: at the latest until the earliest deadline. */
static void on_prepare(uv_prepare_t *p)
{
    struct gw_gateway *gw = p->data;
    uint64_t next = gw_timers_next_ms(&gw->timers), now = hp_now_ms();
    if (next == UINT64_MAX)
        uv_timer_stop(&gw->timer);
    else
        uv_timer_start(&gw->timer, on_timer, next > now ? next - now : 0, 0);
}

/* ---- Readiness ---- */

void gw_gateway_check_ready(struct gw_gateway *gw)
{
    if (gw->ready || gw->stopping || !gw->server)
        return;
    bool late = hp_now_ms() >= gw->ready_deadline.due_ms;
    bool all = gw->replies_up && hp_publisher_state(gw->publisher) == HP_AMQP_UP;
    for (int i = 0; i < gw->regions.count; i++)
        all &= gw->region[i].feed.state != GW_FEED_UNKNOWN;
    if (!all && !late)
        return;
    if (!all)
        hp_warn("the broker or the record is not there yet; serving all the same, and connecting");
    gw->ready = true;
    gw_timer_disarm(&gw->timers, &gw->ready_deadline);
    hp_daemon_ready(gw->daemon);
}

static void ready_late(struct gw_timer *t, uint64_t now_ms)
{
    gw_gateway_check_ready((struct gw_gateway *)((char *)t - offsetof(struct gw_gateway, ready_deadline)));
}

/* ---- Broker ---- */

static void on_publisher_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct gw_gateway *gw = user;
    if (gw->stopping)
        return;
    if (state == HP_AMQP_UP)
        hp_info("the broker takes changes");
    else
        hp_warn(state == HP_AMQP_BLOCKED ? "the broker is blocked; changes are UNAVAILABLE"
                                         : "the broker is down; changes are UNAVAILABLE; reconnecting",
                HP_S("error", e ? e->message : ""));
    gw_gateway_check_ready(gw);
}

static void on_reply_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct gw_gateway *gw = user;
    gw->replies_up = state != HP_AMQP_DOWN;
    if (gw->stopping)
        return;
    if (!gw->replies_up)
        hp_warn("no verdicts can arrive; changes are answered as ACCEPTED; reconnecting",
                HP_S("error", e ? e->message : ""));
    gw_gateway_check_ready(gw);
}

static void on_verdict(struct hp_delivery *d, void *user)
{
    struct gw_gateway *gw = user;
    const struct hp_unpack_limits limits = {.bytes_max = VERDICT_BYTES_MAX,
                                            .memory_max = 8 * (size_t)VERDICT_BYTES_MAX};
    struct hp_error e = {0};
    ProtobufCMessage *m = NULL;
    int rc = hp_unpack(&harpoon__internal__v1__verdict__descriptor, d->body, d->body_len, &limits, &m, &e);
    if (rc == HP_ENOMEM)
        hp_warn("out of memory for a verdict; whoever waits for it is answered at its deadline",
                HP_S("error", e.message));
    else if (rc < 0)
        hp_warn("a message in the reply queue is no verdict; dropped", HP_S("error", e.message));
    else if (d->correlation_id)
        (void)gw_verdicts_arrived(&gw->verdicts, d->correlation_id, (const Harpoon__Internal__V1__Verdict *)m);
    hp_unpacked_free(m);
    hp_delivery_free(d);
}

static struct hp_amqp_options amqp_options(const struct gw_gateway *gw, char *name, size_t size, const char *role)
{
    const struct gw_config *c = gw->config;
    snprintf(name, size, "broker-gw/%.63s/%s", c->name, role);
    return (struct hp_amqp_options){.url = c->broker_url,
                                    .ca_file = c->broker_ca,
                                    .cert_file = c->broker_cert,
                                    .key_file = c->broker_key,
                                    .connection_name = name};
}

static int start_replies(struct gw_gateway *gw, struct hp_error *e)
{
    char id[HP_NAME_MAX + 1], name[HP_NAME_MAX + 1];
    hp_topology_id(id, gw->config->name);
    int rc = hp_topology_reply(&gw->reply_topology, id, e);
    if (rc < 0)
        return rc;
    const struct hp_subscription verdicts = {.queue = gw->reply_topology.own, .no_ack = true, .exclusive = true};
    const struct hp_consumer_options o = {
        .amqp = amqp_options(gw, name, sizeof name, "replies"),
        .topology = gw->reply_topology.objects,
        .subscriptions = &verdicts,
        .subscription_count = 1,
        .message_cb = on_verdict,
        .state_cb = on_reply_state,
        .user = gw,
    };
    return hp_consumer_new(gw->loop, &o, &gw->replies, e);
}

/* One publisher for all regions: it declares the objects of each. */
static int start_publisher(struct gw_gateway *gw, struct hp_error *e)
{
    char name[HP_NAME_MAX + 1];
    struct hp_amqp_object *all = calloc((size_t)gw->regions.count * HP_TOPOLOGY_MAX + 1, sizeof *all);
    if (!all)
        return hp_fail(e, HP_ENOMEM, "topology");
    int n = 0;
    for (int i = 0; i < gw->regions.count; i++)
        for (const struct hp_amqp_object *o = gw->region[i].topology.objects; o->name; o++)
            all[n++] = *o;
    const struct hp_publisher_options o = {
        .amqp = amqp_options(gw, name, sizeof name, "publish"),
        .topology = all,
        .window_max = GW_PENDING_MAX,
        .state_cb = on_publisher_state,
        .user = gw,
    };
    int rc = hp_publisher_new(gw->loop, &o, &gw->publisher, e);
    free(all);
    return rc;
}

/* ---- Server ---- */

static Google__Rpc__Status *authenticate(void *context, const char *authorization, struct hp_rpc_peer *peer)
{
    struct gw_gateway *gw = context;
    Google__Rpc__Status *status = NULL;
    gw_refresh_tokens(gw);
    const struct gw_principal *p = gw_principals_find(&gw->tokens.principals, authorization, &status);
    if (p) {
        peer->principal = p->name;
        peer->identity = gw_principal_ref(p);
    }
    return status;
}

static void forget(void *context, const struct hp_rpc_peer *peer)
{
    (void)context;
    gw_principal_unref(peer->identity);
}

static int start_server(struct gw_gateway *gw, struct hp_error *e)
{
    const struct gw_config *c = gw->config;
    gw->service = (struct hp_rpc_service){.methods = gw_methods,
                                          .context = gw,
                                          .authenticate = authenticate,
                                          .forget = forget,
                                          .message_max = MESSAGE_MAX};
    const struct hp_rpc_server_options o = {
        .service = &gw->service,
        .grpc_listen = c->grpc_listen,
        .h2c_listen = c->h2c_listen,
        .http_listen = c->http_listen,
        .cert_file = c->tls_cert,
        .key_file = c->tls_key,
        .client_ca_file = c->tls_ca,
        .allow_origins = c->allow_origins,
    };
    int rc = hp_rpc_server_start(gw->loop, &o, &gw->server, e);
    if (rc < 0)
        return rc;
    for (int i = 0; i < 3; i++) {
        static const char *const kinds[] = {"grpc", "h2c", "http"};
        const char *address = hp_rpc_server_address(gw->server, kinds[i]);
        if (address)
            hp_daemon_address(gw->daemon, kinds[i], address);
    }
    hp_rpc_server_set_serving(gw->server, true);
    return 0;
}

static int start_db(struct gw_gateway *gw, struct hp_error *e)
{
    const struct gw_config *c = gw->config;
    const struct hp_db_options o = {
        .socket = c->db_socket,
        .host = c->db_host,
        .port = (int)c->db_port,
        .user = c->db_user,
        .password = c->db_password,
        .database = c->db_name,
        .threads = (int)c->db_connections,
        .queue_max = READS_MAX,
    };
    return hp_db_new(gw->loop, &o, &gw->db, e);
}

/* ---- Start ---- */

static int start_regions(struct gw_gateway *gw, struct hp_error *e)
{
    int count = 0;
    while (gw->config->regions[count])
        count++;
    assert(count > 0); /* the list is required */
    gw->regions.names = (const char *const *)gw->config->regions;
    gw->region = calloc((size_t)count, sizeof *gw->region);
    if (!gw->region)
        return hp_fail(e, HP_ENOMEM, "regions");
    for (int i = 0; i < count; i++) {
        int rc = gw_region_start(&gw->region[i], gw, gw->config->regions[i], e);
        if (rc < 0)
            return rc;
        gw->regions.count = i + 1;
    }
    return 0;
}

static int start_time(struct gw_gateway *gw, struct hp_error *e)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return hp_fail(e, HP_EIO, "no random numbers from the kernel");
    hp_rng_init(&gw->rng, seed);
    gw_timers_init(&gw->timers);
    gw->timer.data = gw->prepare.data = gw;
    if (uv_timer_init(gw->loop, &gw->timer) < 0 || uv_prepare_init(gw->loop, &gw->prepare) < 0 ||
        uv_prepare_start(&gw->prepare, on_prepare) < 0)
        return hp_fail(e, HP_EINTERNAL, "timers");
    return 0;
}

int gw_gateway_start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    struct gw_gateway *gw = calloc(1, sizeof *gw);
    if (!gw)
        return hp_fail(e, HP_ENOMEM, "gateway");
    gw->daemon = d;
    gw->loop = hp_daemon_loop(d);
    gw->config = config;
    int rc = start_time(gw, e);
    if (rc < 0)
        return rc;
    gw_verdicts_init(&gw->verdicts, &gw->timers, GW_PENDING_MAX, hp_rng_next(&gw->rng));
    gw_metrics_register();
    rc = gw_tokens_init(&gw->tokens, gw->config->tokens_file, hp_rng_next(&gw->rng), e);
    if (rc == 0)
        rc = start_db(gw, e);
    if (rc == 0)
        rc = start_regions(gw, e);
    if (rc == 0)
        rc = start_publisher(gw, e);
    if (rc == 0)
        rc = start_replies(gw, e);
    if (rc == 0)
        rc = start_server(gw, e);
    gw->ready_deadline.fire_cb = ready_late;
    if (rc == 0 && gw_timer_arm(&gw->timers, &gw->ready_deadline, hp_now_ms() + GW_START_MS) < 0)
        rc = hp_fail(e, HP_ENOMEM, "timers");
    *ret_state = gw;
    return rc; /* on failure the process ends: nothing is taken down piece by piece */
}

/* ---- Stop: calls first, then broker and record, then memory ---- */

static void all_closed(struct gw_gateway *gw)
{
    struct hp_daemon *d = gw->daemon;
    for (int i = 0; i < gw->regions.count; i++)
        gw_region_done(&gw->region[i]);
    free(gw->region);
    gw_verdicts_done(&gw->verdicts);
    gw_timers_done(&gw->timers);
    gw_tokens_done(&gw->tokens);
    free(gw);
    hp_daemon_stopped(d);
}

static void part_closed(void *user)
{
    struct gw_gateway *gw = user;
    assert(gw->open > 0);
    if (--gw->open == 0)
        all_closed(gw);
}

static void handle_closed(uv_handle_t *h)
{
    part_closed(h->data);
}

static void server_closed(void *user)
{
    struct gw_gateway *gw = user;
    gw->server = NULL;
    gw->open = 5 + gw->regions.count;
    for (int i = 0; i < gw->regions.count; i++)
        gw_region_close(&gw->region[i], part_closed, gw);
    hp_publisher_close(gw->publisher, LINGER_MS, part_closed, gw);
    hp_consumer_close(gw->replies, part_closed, gw);
    hp_db_close(gw->db, part_closed, gw);
    uv_close((uv_handle_t *)&gw->timer, handle_closed);
    uv_close((uv_handle_t *)&gw->prepare, handle_closed);
}

void gw_gateway_stop(struct hp_daemon *d, void *state)
{
    struct gw_gateway *gw = state;
    assert(!gw->stopping);
    gw->stopping = true;
    gw_watches_stop(gw);
    gw_waits_stop(gw);
    gw_timer_disarm(&gw->timers, &gw->ready_deadline);
    hp_rpc_server_close(gw->server, DRAIN_MS, server_closed, gw);
}
