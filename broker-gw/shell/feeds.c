/* One region's events: the stream pushes them, core/feed.h keeps them in order, the record fills what is missing.
 *
 * Happy path: connected → the region's sequence is read once → each event that arrives is appended, and told to watches and waiters.
 * A hole, a reconnection, or no memory for an event: what is missing is read from the record in pages. The record cannot be read: again after a back-off, only while something is missing.
 * Silence: a reader of a stream hears nothing any more when the broker's replica that it reads from is replaced, and nobody tells it. So a subscription that has been silent is begun anew
 * behind the last event, on the same connection; that asks the record nothing. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "io/loop.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/rows.h"
#include "wire/batch.h"
#include "wire/codec.h"

enum { PREFETCH = 250, ACK_EVERY = 50, FILL_EVENTS = 1000, SILENCE_MS = 10000, BLIND_MS = 5000 };

/* A read of the record for the feed: the head, or a page of what is missing. */
struct gw_feed_job {
    struct hp_db_job job;
    struct gw_region *region;
    bool head;
    int64_t after;             /* a page: sequences above */
    struct gw_bounds bounds;   /* head: the result */
    struct gw_event_page page; /* page: the result */
};

static void work(struct gw_region *r);

static int run_job(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    struct gw_feed_job *j = (struct gw_feed_job *)((char *)job - offsetof(struct gw_feed_job, job));
    if (j->head)
        return gw_select_bounds(c, j->region->name, &j->bounds, e);
    return gw_select_events(c, j->region->name, j->after, FILL_EVENTS, &j->page, e);
}

static void tell(struct gw_region *r, const Harpoon__V1__Event *event)
{
    hp_metric_add(&gw_metric_events, 1);
    gw_waits_event(r, event);
    gw_watches_advance(r);
}

static void tell_jumped(struct gw_region *r)
{
    gw_waits_jumped(r);
    gw_watches_advance(r);
    gw_gateway_check_ready(r->gw);
}

/* The stream may have brought some of it meanwhile: those are repeats. */
static void take_page(struct gw_region *r, struct gw_feed_job *j)
{
    size_t bytes;
    bool hole = j->page.count == 0 && j->after == r->feed.last;
    for (Harpoon__V1__Event *event; (event = gw_event_page_take(&j->page, &bytes)) != NULL;) {
        enum gw_feed_outcome outcome = gw_feed_filled(&r->feed, event, bytes);
        if (outcome == GW_FEED_APPENDED)
            tell(r, event);
        else
            hp_unpacked_free(&event->base);
        hole |= outcome == GW_FEED_GAP;
    }
    gw_event_page_done(&j->page);
    if (!hole)
        return;
    hp_warn("the record no longer holds the events that were missed; going on at the newest", HP_S("region", r->name),
            HP_I("after", r->feed.last), HP_I("newest", r->feed.known));
    gw_feed_give_up(&r->feed);
    tell_jumped(r);
}

static void retry_later(struct gw_region *r, const struct hp_error *e)
{
    uint64_t delay = hp_backoff_next_ms(&r->backoff, &r->gw->rng);
    hp_warn("events cannot be read from the record; trying again", HP_S("region", r->name), HP_S("error", e->message),
            HP_I("delay_ms", (int64_t)delay));
    if (gw_timer_arm(&r->gw->timers, &r->retry, hp_now_ms() + delay) < 0)
        hp_err("out of memory; the region's events stop until the broker is connected anew", HP_S("region", r->name));
}

static void job_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct gw_feed_job *j = (struct gw_feed_job *)((char *)job - offsetof(struct gw_feed_job, job));
    struct gw_region *r = j->region;
    r->job = NULL;
    if (r->gw->stopping) {
        gw_event_page_done(&j->page);
    } else if (result < 0) {
        r->wants_head |= j->head;
        retry_later(r, e);
    } else {
        hp_backoff_reset(&r->backoff);
        if (!j->head)
            take_page(r, j);
        else if (gw_feed_head(&r->feed, j->bounds.sequence))
            tell_jumped(r);
        work(r);
    }
    free(j);
}

/* Starts the next read, if one is needed and none is under way or waits for its retry. */
static void work(struct gw_region *r)
{
    int64_t after = 0, to = 0;
    if (r->job || r->retry.place || r->gw->stopping)
        return;
    if (!r->wants_head && !gw_feed_missing(&r->feed, &after, &to))
        return;
    struct gw_feed_job *j = calloc(1, sizeof *j);
    struct hp_error e = {HP_ENOMEM, "out of memory"};
    if (j) {
        j->job.run = run_job;
        j->job.done_cb = job_done;
        j->region = r;
        j->head = r->wants_head;
        j->after = after;
        e.message[0] = '\0';
        int rc = hp_db_submit(r->gw->db, &j->job);
        if (rc == 0) {
            hp_metric_add(&gw_metric_reads, 1);
            r->wants_head = false;
            r->job = j;
            return;
        }
        (void)!hp_fail(&e, rc, "%s", hp_strerror(rc));
        free(j);
    }
    retry_later(r, &e);
}

static void retry_due(struct gw_timer *t, uint64_t now_ms)
{
    work((struct gw_region *)((char *)t - offsetof(struct gw_region, retry)));
}

static void acknowledge(struct gw_region *r, struct hp_delivery *d)
{
    if (++r->unacked < ACK_EVERY)
        return;
    hp_consumer_ack(r->consumer, 0, d->tag, true);
    r->unacked = 0;
}

static void listen_on(struct gw_region *r, uint64_t now_ms)
{
    r->heard = false;
    if (gw_timer_arm(&r->gw->timers, &r->silence, now_ms + SILENCE_MS) < 0)
        hp_err("out of memory; silence of the region's event stream goes unnoticed", HP_S("region", r->name));
}

static void silence_due(struct gw_timer *t, uint64_t now_ms)
{
    struct gw_region *r = (struct gw_region *)((char *)t - offsetof(struct gw_region, silence));
    if (!r->heard) {
        hp_consumer_pause(r->consumer, 0);
        hp_consumer_resume(r->consumer, 0);
        r->unacked = 0;
    }
    listen_on(r, now_ms);
}

/* Not at once: a connection that was lost is mostly there again in a moment. */
static void go_blind_later(struct gw_region *r)
{
    if (!r->blind && !r->blindness.place && gw_timer_arm(&r->gw->timers, &r->blindness, hp_now_ms() + BLIND_MS) < 0)
        r->blind = true;
}

static void blindness_due(struct gw_timer *t, uint64_t now_ms)
{
    struct gw_region *r = (struct gw_region *)((char *)t - offsetof(struct gw_region, blindness));
    r->blind = true;
    gw_waits_blind(r);
}

static void skip(struct gw_region *r, const char *why)
{
    hp_metric_add(&gw_metric_bad_events, 1);
    hp_warn("a message in the region's stream is no event of it; skipped", HP_S("region", r->name), HP_S("error", why));
}

static void take_event(struct gw_region *r, const uint8_t *body, size_t bytes)
{
    const struct hp_unpack_limits limits = {.bytes_max = GW_EVENT_BYTES_MAX,
                                            .memory_max = 4 * (size_t)GW_EVENT_BYTES_MAX};
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    int rc = hp_unpack(&harpoon__v1__event__descriptor, body, bytes, &limits, &m, &e);
    if (rc == HP_ENOMEM) { /* perhaps the last for a long time: no later one would show that it is missing */
        hp_warn("out of memory for an event of the region's stream; it is read from the record",
                HP_S("region", r->name), HP_S("error", e.message));
        r->wants_head = true;
        work(r);
        return;
    }
    Harpoon__V1__Event *event = (Harpoon__V1__Event *)m;
    if (rc < 0 || event->sequence < 1 || strcmp(event->region, r->name) != 0) {
        skip(r, e.message);
        hp_unpacked_free(m);
        return;
    }
    bool first = r->feed.state == GW_FEED_UNKNOWN;
    switch (gw_feed_arrived(&r->feed, event, bytes)) {
    case GW_FEED_APPENDED:
        tell(r, event);
        if (first)
            tell_jumped(r);
        return;
    case GW_FEED_REPEATED:
        hp_metric_add(&gw_metric_repeats, 1);
        break;
    case GW_FEED_GAP:
        hp_metric_add(&gw_metric_gaps, 1);
        work(r);
        break;
    }
    hp_unpacked_free(m);
}

/* One event, or several together (harpoon.internal.v1.EventBatch). */
static void on_message(struct hp_delivery *d, void *user)
{
    struct gw_region *r = user;
    const uint8_t *at = d->body, *one;
    size_t left = d->body_len, len;
    r->heard = true;
    acknowledge(r, d);
    if (!d->type || strcmp(d->type, harpoon__internal__v1__event_batch__descriptor.name) != 0) {
        take_event(r, at, left);
    } else {
        int rc;
        while ((rc = hp_batch_next(&at, &left, &one, &len)) == 1)
            take_event(r, one, len);
        if (rc)
            skip(r, "a batch is broken");
    }
    hp_delivery_free(d);
}

static void on_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct gw_region *r = user;
    hp_metric_add(&gw_metric_streams, (state != HP_AMQP_DOWN) - r->connected);
    r->connected = state != HP_AMQP_DOWN;
    if (r->gw->stopping)
        return;
    if (state == HP_AMQP_DOWN) {
        gw_timer_disarm(&r->gw->timers, &r->silence);
        go_blind_later(r);
        hp_warn("the region's event stream is down; reconnecting", HP_S("region", r->name),
                HP_S("error", e ? e->message : ""));
        return;
    }
    listen_on(r, hp_now_ms());
    gw_timer_disarm(&r->gw->timers, &r->blindness);
    r->blind = false;
    hp_info("the region's event stream is up", HP_S("region", r->name));
    r->unacked = 0;
    r->wants_head = true;
    work(r);
}

int gw_region_start(struct gw_region *r, struct gw_gateway *gw, const char *name, struct hp_error *e)
{
    *r = (struct gw_region){.gw = gw,
                            .name = name,
                            .retry = {.fire_cb = retry_due},
                            .silence = {.fire_cb = silence_due},
                            .blindness = {.fire_cb = blindness_due}};
    hp_backoff_init(&r->backoff, 200, 10000);
    uint64_t seed = hp_rng_next(&gw->rng);
    gw_waiters_init(&r->waiters, GW_WAITERS_MAX, seed);
    if (gw_feed_init(&r->feed, GW_RING_EVENTS_MAX, GW_RING_BYTES_MAX) < 0)
        return hp_fail(e, HP_ENOMEM, "the ring of region %s", name);
    int rc = hp_queue_name(r->requests, "requests", name);
    if (rc < 0)
        return hp_fail(e, rc, "region %s", name);
    rc = hp_topology_region(&r->topology, name, e);
    if (rc == 0)
        rc = hp_topology_events(&r->stream_topology, name, e);
    if (rc < 0)
        return rc;
    go_blind_later(r);
    char connection[HP_NAME_MAX + 1];
    snprintf(connection, sizeof connection, "broker-gw/%.63s/events/%.63s", gw->config->name, name);
    const struct hp_subscription events = {
        .queue = r->stream_topology.events, .prefetch = PREFETCH, .stream_start = "next", .stream_anew = true};
    const struct hp_consumer_options o = {
        .amqp = {.url = gw->config->broker_url,
                 .ca_file = gw->config->broker_ca,
                 .cert_file = gw->config->broker_cert,
                 .key_file = gw->config->broker_key,
                 .connection_name = connection},
        .topology = r->stream_topology.objects,
        .subscriptions = &events,
        .subscription_count = 1,
        .message_cb = on_message,
        .state_cb = on_state,
        .user = r,
    };
    return hp_consumer_new(gw->loop, &o, &r->consumer, e);
}

void gw_region_close(struct gw_region *r, void (*closed_cb)(void *user), void *user)
{
    gw_timer_disarm(&r->gw->timers, &r->retry);
    gw_timer_disarm(&r->gw->timers, &r->silence);
    gw_timer_disarm(&r->gw->timers, &r->blindness);
    hp_consumer_close(r->consumer, closed_cb, user);
}

void gw_region_done(struct gw_region *r)
{
    gw_feed_done(&r->feed);
    gw_waiters_done(&r->waiters);
}
