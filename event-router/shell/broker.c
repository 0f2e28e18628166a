/* The broker: reports and metrics out, commands in. The router is ready for commands when its own queue is consumed and publishing works. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "shell/private.h"

enum { REPORT_DEADLINE_MS = 15000, CLOSE_LINGER_MS = 1000 };

struct outgoing {
    struct hp_publish publish;
    struct er_shell *shell;
    struct er_report *report; /* NULL: metrics */
    uint8_t body[];           /* of metrics */
};

static void report_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct outgoing *o = (struct outgoing *)p;
    struct er_shell *s = o->shell;
    er_core_published(s->core, uv_now(s->loop), o->report, outcome == HP_PUBLISH_CONFIRMED ? ER_CONFIRMED : ER_FAILED);
    free(o);
    er_shell_wake(s);
}

void er_broker_report(struct er_shell *s, struct er_report *r)
{
    struct outgoing *o = calloc(1, sizeof *o);
    if (!o) {
        er_core_published(s->core, uv_now(s->loop), r, ER_FAILED);
        return;
    }
    o->shell = s;
    o->report = r;
    o->publish.exchange = "";
    o->publish.routing_key = s->publish.reports;
    o->publish.body = er_report_body(r, &o->publish.body_len);
    o->publish.mandatory = true;
    o->publish.persistent = true;
    o->publish.type = "harpoon.internal.v1.Report";
    o->publish.deadline_ms = REPORT_DEADLINE_MS;
    o->publish.done_cb = report_done;
    hp_publish(s->publisher, &o->publish);
}

static void metrics_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    (void)outcome; /* the next batch comes in a second */
    free(p);
}

void er_broker_metrics(struct er_shell *s, const uint8_t *body, size_t len)
{
    struct outgoing *o = calloc(1, sizeof *o + len);
    if (!o)
        return;
    memcpy(o->body, body, len);
    o->shell = s;
    o->publish.exchange = "";
    o->publish.routing_key = s->publish.metrics;
    o->publish.body = o->body;
    o->publish.body_len = len;
    o->publish.type = "harpoon.internal.v1.MetricsBatch";
    o->publish.done_cb = metrics_done;
    hp_publish(s->publisher, &o->publish);
}

static void on_message(struct hp_delivery *d, void *user)
{
    struct er_shell *s = user;
    er_core_command(s->core, uv_now(s->loop), d->body, d->body_len);
    hp_delivery_free(d);
    er_shell_apply(s);
    er_shell_wake(s);
}

static void state_changed(struct er_shell *s)
{
    bool ready = s->publisher_up && s->consumer_up;
    if (s->ending)
        return;
    er_core_broker(s->core, uv_now(s->loop), ready);
    er_shell_apply(s);
    er_shell_wake(s);
    if (ready && !s->was_ready) {
        s->was_ready = true;
        s->events.on_ready(s->events.user);
    }
}

static const char *state_name(enum hp_amqp_state state)
{
    return state == HP_AMQP_UP ? "up" : state == HP_AMQP_DOWN ? "down" : "blocked";
}

static void log_state(const char *what, enum hp_amqp_state state, const struct hp_error *e)
{
    if (state == HP_AMQP_UP)
        hp_info("broker connection", HP_S("what", what), HP_S("state", state_name(state)));
    else
        hp_warn("broker connection", HP_S("what", what), HP_S("state", state_name(state)),
                HP_S("error", e ? e->message : ""));
}

/* While the broker is blocked by an alarm, publishes wait, fail at their deadline and are repeated: the sessions need not be announced again for it. */
static void on_publisher(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct er_shell *s = user;
    log_state("publish", state, e);
    s->publisher_up = state != HP_AMQP_DOWN;
    state_changed(s);
}

static void on_consumer(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct er_shell *s = user;
    log_state("consume", state, e);
    s->consumer_up = state != HP_AMQP_DOWN;
    state_changed(s);
}

static const char *file_or_null(const char *file)
{
    return *file ? file : NULL;
}

int er_broker_start(struct er_shell *s, struct hp_error *e)
{
    const struct er_config *c = s->config;
    char name[HP_NAME_MAX + 64];
    struct hp_amqp_options amqp = {.url = c->broker_url,
                                   .ca_file = file_or_null(c->broker_ca),
                                   .cert_file = file_or_null(c->broker_cert),
                                   .key_file = file_or_null(c->broker_key),
                                   .connection_name = name};
    int rc = hp_topology_region(&s->publish, c->region, e);
    if (!rc)
        rc = hp_topology_router(&s->consume, c->region, s->router, e);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "event-router/%s/publish", s->router);
    struct hp_publisher_options po = {
        .amqp = amqp, .topology = s->publish.objects, .state_cb = on_publisher, .user = s};
    rc = hp_publisher_new(s->loop, &po, &s->publisher, e);
    if (rc)
        return rc;
    snprintf(name, sizeof name, "event-router/%s/consume", s->router);
    struct hp_subscription own = {.queue = s->consume.own, .no_ack = true, .exclusive = true};
    struct hp_consumer_options co = {.amqp = amqp,
                                     .topology = s->consume.objects,
                                     .subscriptions = &own,
                                     .subscription_count = 1,
                                     .message_cb = on_message,
                                     .state_cb = on_consumer,
                                     .user = s};
    return hp_consumer_new(s->loop, &co, &s->consumer, e);
}

static void publisher_closed(void *user)
{
    struct er_shell *s = user;
    s->publisher = NULL;
    er_shell_end_if_done(s);
}

static void consumer_closed(void *user)
{
    struct er_shell *s = user;
    s->consumer = NULL;
    er_shell_end_if_done(s);
}

void er_broker_stop(struct er_shell *s)
{
    if (s->consumer)
        hp_consumer_close(s->consumer, consumer_closed, s);
    if (s->publisher)
        hp_publisher_close(s->publisher, CLOSE_LINGER_MS, publisher_closed, s);
}
