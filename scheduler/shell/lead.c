#include "shell/lead.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "io/loop.h"
#include "shell/record.h"
#include "shell/scheduler.h"

enum {
    RENEW_MS = 10 * 60 * 1000, /* well inside the broker's acknowledgement timeout of 30 min */
    TOKEN_RETRY_MS = 1000,
    FENCED_MS = 2000,
    BACKOFF_INITIAL_MS = 200,
    BACKOFF_MAX_MS = 5000,
    LINGER_MS = 2000,
    TOKEN_PREFETCH = 10,
    ACK_DELAY_MS = 100, /* nobody waits for an acknowledgement, and each is an entry in the log of a quorum queue */
    MEMORY_BYTES_MAX = 256 << 20,
};

static void take_over(struct sc_lead *l);
static void close_handles(struct sc_lead *l);
static void closed_one(struct sc_lead *l);

static uint64_t random_seed(void)
{
    uint64_t seed = hp_now_ns();
    (void)!getrandom(&seed, sizeof seed, GRND_NONBLOCK);
    return seed;
}

/* ---- Ending a reign ---- */

static void db_closed(void *user)
{
    struct sc_lead *l = user;
    l->dbs--;
    if (l->closing)
        closed_one(l);
}

static void close_db(struct sc_lead *l)
{
    if (!l->db)
        return;
    struct hp_db *db = l->db;
    l->db = NULL;
    hp_db_close(db, db_closed, l);
}

/* Everything in memory goes; what was not acknowledged comes again to whoever is next. */
static void end_reign(struct sc_lead *l)
{
    l->reign++;
    for (int i = SC_SUB_REQUESTS; i < SC_SUB_COUNT; i++)
        hp_consumer_pause(l->consumer, i);
    sc_flow_drop_held(l);
    uv_timer_stop(&l->deadline);
    uv_timer_stop(&l->retry);
    uv_idle_stop(&l->idle);
    uv_check_stop(&l->check);
    sc_region_free(l->core);
    l->core = NULL;
    close_db(l);
    hp_metric_set(&l->metrics.leading, 0);
}

/* Lets go of the token: the broker gives it to another scheduler. */
static void release(struct sc_lead *l)
{
    if (l->leader_wanted)
        hp_consumer_pause(l->consumer, SC_SUB_LEADER);
    l->leader_wanted = false;
    l->has_token = false;
}

static void reconsider(struct sc_lead *l);

static void retry_cb(uv_timer_t *t)
{
    struct sc_lead *l = t->data;
    if (l->fenced) {
        l->fenced = false;
        reconsider(l);
    } else if (l->state == SC_LEAD_WAITING) {
        take_over(l);
    }
}

void sc_lead_failed(struct sc_lead *l, int code, const struct hp_error *e)
{
    if (l->state != SC_LEAD_TAKING && l->state != SC_LEAD_LEADING)
        return;
    end_reign(l);
    if (code == HP_EFENCED) {
        hp_warn("fenced by another scheduler: standing by", HP_S("region", l->region), HP_S("error", e->message));
        release(l);
        l->state = SC_LEAD_STANDBY;
        l->fenced = true;
        uv_timer_start(&l->retry, retry_cb, FENCED_MS, 0);
        return;
    }
    uint64_t pause_ms = hp_backoff_next_ms(&l->backoff, &l->rng);
    hp_err("the region cannot be led: taking it over again", HP_S("region", l->region), HP_S("error", e->message),
           HP_I("retry_in_ms", pause_ms));
    l->state = SC_LEAD_WAITING;
    uv_timer_start(&l->retry, retry_cb, pause_ms, 0);
}

/* ---- Taking over ---- */

static void took_over(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct sc_takeover *t = (struct sc_takeover *)(void *)((char *)job - offsetof(struct sc_takeover, job));
    struct sc_lead *l = t->owner;
    struct sc_region *core = t->region;
    bool stale = t->reign != l->reign || l->state != SC_LEAD_TAKING || l->stopping;
    int64_t epoch = t->epoch;
    free(t);
    l->jobs--;
    if (stale || result) {
        sc_region_free(core);
        if (!stale)
            sc_lead_failed(l, result, e);
        sc_lead_settled(l);
        return;
    }
    struct sc_region_stats s;
    struct sc_ev ev = {.kind = SC_EV_LEAD, .time = sc_flow_time(), .stream_away = !l->stream.up};
    l->core = core;
    l->state = SC_LEAD_LEADING;
    l->token_epoch = epoch;
    if (sc_region_step(core, &ev, NULL))
        abort();
    sc_region_stats(core, &s);
    hp_info("leading the region", HP_S("region", l->region), HP_I("epoch", epoch), HP_I("hosts", s.hosts),
            HP_I("containers", s.containers), HP_I("operations", s.operations_active), HP_I("sequence", s.sequence),
            HP_I("watermark", s.watermark), HP_I("took_ms", hp_now_ms() - l->taking_since_ms));
    l->restored = s.restored;
    l->preempted = 0;
    if (s.restored)
        hp_warn("the record was restored: creates wait until every host has said what it has",
                HP_S("region", l->region), HP_I("hosts", s.hosts));
    hp_metric_set(&l->metrics.leading, 1);
    hp_metric_add(&l->metrics.takeovers, 1);
    sc_stream_lead(l);
    sc_lead_send_token(l); /* the broker learns the epoch */
    for (int i = SC_SUB_REQUESTS; i < SC_SUB_COUNT; i++)
        hp_consumer_resume(l->consumer, i);
    sc_flow_wake(l);
}

static int open_db(struct sc_lead *l, struct hp_error *e)
{
    const struct sc_config *c = l->config;
    struct hp_db_options o = {
        .socket = c->db_socket,
        .host = c->db_host,
        .port = (int)c->db_port,
        .user = c->db_user,
        .password = c->db_password,
        .database = c->db_name,
        .ca_file = c->db_ca,
        .cert_file = c->db_cert,
        .key_file = c->db_key,
        .threads = 1,
    };
    int rc = hp_db_new(l->loop, &o, &l->db, e);
    if (!rc)
        l->dbs++;
    return rc;
}

static void take_over(struct sc_lead *l)
{
    struct hp_error e = {0};
    struct sc_region_config config;
    struct sc_takeover *t = malloc(sizeof *t);
    assert(l->has_token && !l->core);
    l->state = SC_LEAD_TAKING;
    l->taking_since_ms = hp_now_ms();
    l->reign++;
    int rc = t ? open_db(l, &e) : hp_fail(&e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    if (!rc) {
        sc_config_region(l->config, l->region, &config);
        sc_takeover_init(t, &config, l->region, l->config->name, random_seed());
        t->epoch_min = l->token_epoch;
        t->owner = l;
        t->reign = l->reign;
        t->job.done_cb = took_over;
        rc = hp_db_submit(l->db, &t->job);
        if (rc)
            hp_fail(&e, rc, "takeover: %s", hp_strerror(rc));
    }
    if (rc) {
        free(t);
        sc_lead_failed(l, rc, &e);
        return;
    }
    l->jobs++;
}

/* ---- Tokens ---- */

/* Its body is the sender's name and, when it leads, its epoch: so the broker knows the last reign, and a record that does not is older than the region. */
struct token {
    struct hp_publish publish;
    struct sc_lead *lead;
    char body[160];
};

static void renew_cb(uv_timer_t *t);

static void token_sent(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct token *t = (struct token *)(void *)p;
    struct sc_lead *l = t->lead;
    free(t);
    l->sending--;
    if (outcome != HP_PUBLISH_CONFIRMED && !l->stopping)
        uv_timer_start(&l->renew, renew_cb, TOKEN_RETRY_MS, 0);
    sc_stream_token(l, outcome == HP_PUBLISH_CONFIRMED);
    sc_lead_settled(l);
}

void sc_lead_send_token(struct sc_lead *l)
{
    struct token *t = calloc(1, sizeof *t);
    uv_timer_start(&l->renew, renew_cb, t ? RENEW_MS : TOKEN_RETRY_MS, 0);
    if (!t)
        return;
    t->lead = l;
    if (l->state == SC_LEAD_LEADING)
        snprintf(t->body, sizeof t->body, "%.127s %" PRId64, l->config->name, l->token_epoch);
    else
        snprintf(t->body, sizeof t->body, "%.127s", l->config->name);
    t->publish = (struct hp_publish){.exchange = "",
                                     .routing_key = l->topology.leader,
                                     .body = t->body,
                                     .body_len = strlen(t->body),
                                     .persistent = true,
                                     .mandatory = true,
                                     .type = "harpoon.leader",
                                     .done_cb = token_sent};
    l->sending++;
    l->token_sent = true;
    hp_publish(l->sends, &t->publish);
}

static void renew_cb(uv_timer_t *t)
{
    struct sc_lead *l = t->data;
    if (l->consumer_up && l->sends_up && !l->stopping && (l->has_token || !l->token_sent))
        sc_lead_send_token(l);
    else if (l->consumer_up && l->sends_up && !l->stopping)
        uv_timer_start(&l->renew, renew_cb, RENEW_MS, 0);
}

static int64_t epoch_told(const struct hp_delivery *d)
{
    char text[160] = "";
    if (d->body_len)
        memcpy(text, d->body, d->body_len < sizeof text ? d->body_len : sizeof text - 1);
    const char *space = strchr(text, ' ');
    return space ? strtoll(space, NULL, 10) : 0;
}

static void take_token(struct sc_lead *l, struct hp_delivery *d)
{
    uint64_t tag = d->tag;
    int64_t epoch = epoch_told(d);
    hp_delivery_free(d);
    if (!l->leader_wanted || l->stopping)
        return;
    if (epoch > l->token_epoch)
        l->token_epoch = epoch;
    if (l->has_token)
        hp_consumer_ack(l->consumer, SC_SUB_LEADER, l->token_tag, true);
    l->has_token = true;
    l->token_tag = tag;
    if (l->state == SC_LEAD_STANDBY)
        take_over(l);
}

/* ---- Connections ---- */

static void reconsider(struct sc_lead *l)
{
    bool up = l->sends_up && l->consumer_up;
    if (l->stopping)
        return;
    if (!up) {
        if (l->state == SC_LEAD_LEADING || l->state == SC_LEAD_TAKING)
            hp_warn("lost the broker: stepping down", HP_S("region", l->region));
        if (l->state != SC_LEAD_DOWN)
            end_reign(l);
        release(l);
        l->state = SC_LEAD_DOWN;
        l->token_sent = l->fenced = false;
        uv_timer_stop(&l->renew);
        return;
    }
    if (l->state == SC_LEAD_DOWN)
        l->state = SC_LEAD_STANDBY;
    if (!l->leader_wanted && !l->fenced) {
        l->leader_wanted = true;
        hp_consumer_resume(l->consumer, SC_SUB_LEADER);
    }
    if (!l->token_sent)
        sc_lead_send_token(l);
    if (!l->ready) {
        l->ready = true;
        sc_scheduler_lead_ready(l->part);
    }
}

static void broker_state(struct sc_lead *l, const char *what, bool *up, enum hp_amqp_state state,
                         const struct hp_error *e)
{
    if (state == HP_AMQP_DOWN)
        hp_warn("no connection to the broker", HP_S("region", l->region), HP_S("connection", what),
                HP_S("error", e ? e->message : ""));
    else if (state == HP_AMQP_BLOCKED)
        hp_warn("the broker takes nothing in (alarm)", HP_S("region", l->region), HP_S("connection", what));
    *up = state != HP_AMQP_DOWN;
    reconsider(l);
}

static void sends_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct sc_lead *l = user;
    broker_state(l, "sends", &l->sends_up, state, e);
}

static void consumer_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct sc_lead *l = user;
    broker_state(l, "consume", &l->consumer_up, state, e);
}

static void message_cb(struct hp_delivery *d, void *user)
{
    struct sc_lead *l = user;
    if (d->subscription == SC_SUB_LEADER)
        take_token(l, d);
    else
        sc_flow_deliver(l, d);
}

static struct hp_amqp_options amqp_options(const struct sc_lead *l, const char *connection)
{
    return (struct hp_amqp_options){.url = l->config->broker_url,
                                    .ca_file = l->config->broker_ca,
                                    .cert_file = l->config->broker_cert,
                                    .key_file = l->config->broker_key,
                                    .connection_name = connection};
}

static int connect_all(struct sc_lead *l, struct hp_error *e)
{
    char name[256];
    const struct sc_config *c = l->config;
    const struct hp_subscription subs[SC_SUB_COUNT] = {
        [SC_SUB_LEADER] = {.queue = l->topology.leader, .prefetch = TOKEN_PREFETCH, .paused = true},
        [SC_SUB_REQUESTS] = {.queue = l->topology.requests,
                             .prefetch = (int)c->requests_prefetch,
                             .paused = true,
                             .ack_delay_ms = ACK_DELAY_MS},
        [SC_SUB_REPORTS] = {.queue = l->topology.reports,
                            .prefetch = (int)c->reports_prefetch,
                            .paused = true,
                            .ack_delay_ms = ACK_DELAY_MS},
        [SC_SUB_METRICS] = {.queue = l->topology.metrics, .no_ack = true, .paused = true},
    };
    struct hp_publisher_options p = {.topology = l->topology.objects, .user = l};
    struct hp_consumer_options o = {.topology = l->topology.objects,
                                    .subscriptions = subs,
                                    .subscription_count = SC_SUB_COUNT,
                                    .message_cb = message_cb,
                                    .state_cb = consumer_state,
                                    .user = l};
    snprintf(name, sizeof name, "scheduler/%s/%s/events", c->name, l->region);
    p.amqp = amqp_options(l, name);
    int rc = sc_stream_start(l, &p.amqp, e);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "scheduler/%s/%s/sends", c->name, l->region);
    p.amqp = amqp_options(l, name);
    p.state_cb = sends_state;
    p.window_max = 200000;
    p.window_bytes_max = MEMORY_BYTES_MAX;
    rc = hp_publisher_new(l->loop, &p, &l->sends, e);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "scheduler/%s/%s/consume", c->name, l->region);
    o.amqp = amqp_options(l, name);
    return hp_consumer_new(l->loop, &o, &l->consumer, e);
}

int sc_lead_new(struct sc_part *part, uv_loop_t *loop, const struct sc_config *config, const char *region,
                struct sc_lead **ret, struct hp_error *e)
{
    struct sc_lead *l = calloc(1, sizeof *l);
    if (!l)
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    l->part = part;
    l->config = config;
    l->loop = loop;
    l->held_end = &l->held;
    snprintf(l->region, sizeof l->region, "%s", region);
    hp_backoff_init(&l->backoff, BACKOFF_INITIAL_MS, BACKOFF_MAX_MS);
    hp_rng_init(&l->rng, random_seed());
    int rc = hp_topology_region(&l->topology, region, e);
    if (rc) {
        free(l);
        return rc;
    }
    sc_lead_metrics_register(&l->metrics, region);
    uv_timer_init(loop, &l->deadline);
    uv_timer_init(loop, &l->retry);
    uv_timer_init(loop, &l->renew);
    uv_idle_init(loop, &l->idle);
    uv_check_init(loop, &l->check);
    l->deadline.data = l->retry.data = l->renew.data = l->idle.data = l->check.data = l;
    rc = connect_all(l, e);
    if (rc)
        return hp_wrap(e, "region \"%s\"", region);
    *ret = l;
    return 0;
}

/* ---- Closing ---- */

void sc_lead_close(struct sc_lead *l)
{
    if (l->stopping)
        return;
    l->stopping = true;
    uv_timer_stop(&l->renew);
    uv_timer_stop(&l->retry);
    for (int i = 0; i < SC_SUB_COUNT && l->state != SC_LEAD_LEADING; i++)
        hp_consumer_pause(l->consumer, i);
    sc_lead_settled(l);
}

void sc_lead_settled(struct sc_lead *l)
{
    if (!l->stopping || l->jobs)
        return;
    if (!l->closing) {
        /* The last transaction is committed and told, or there was none. */
        l->closing = true;
        end_reign(l);
        close_handles(l);
    }
}

static void closed_one(struct sc_lead *l)
{
    assert(l->open_handles > 0);
    if (--l->open_handles > 0)
        return;
    sc_scheduler_lead_closed(l->part); /* l itself stays until the process ends: its metrics are registered */
}

static void part_closed(void *user)
{
    closed_one(user);
}

static void handle_closed(uv_handle_t *h)
{
    closed_one(h->data);
}

static void close_handles(struct sc_lead *l)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&l->deadline, (uv_handle_t *)&l->retry, (uv_handle_t *)&l->renew,
                              (uv_handle_t *)&l->idle,     (uv_handle_t *)&l->check, (uv_handle_t *)&l->stream.timer};
    l->open_handles = 3 + l->dbs + (int)(sizeof handles / sizeof *handles);
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        uv_close(handles[i], handle_closed);
    hp_publisher_close(l->events, LINGER_MS, part_closed, l);
    hp_publisher_close(l->sends, LINGER_MS, part_closed, l);
    hp_consumer_close(l->consumer, part_closed, l);
}
