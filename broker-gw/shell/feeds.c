/* One region's events: the stream pushes them, core/feed.h keeps them in order, the record fills what is missing.
 *
 * Happy path: connected → the region's sequence is read once → each event that arrives is appended, and told to watches and waiters.
 * A hole, or a reconnection: what is missing is read from the record in pages. The record cannot be read: again after a back-off, only while something is missing. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "shell/gateway.h"
#include "shell/metrics.h"
#include "shell/rows.h"
#include "wire/codec.h"

enum { PREFETCH = 1000, ACK_EVERY = 200, FILL_EVENTS = 1000 };

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

static void on_event(struct hp_delivery *d, void *user)
{
    struct gw_region *r = user;
    const struct hp_unpack_limits limits = {.bytes_max = GW_EVENT_BYTES_MAX,
                                            .memory_max = 4 * (size_t)GW_EVENT_BYTES_MAX};
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    size_t bytes = d->body_len;
    int rc = hp_unpack(&harpoon__v1__event__descriptor, d->body, d->body_len, &limits, &m, &e);
    acknowledge(r, d);
    hp_delivery_free(d);
    Harpoon__V1__Event *event = (Harpoon__V1__Event *)m;
    if (rc < 0 || event->sequence < 1 || strcmp(event->region, r->name) != 0) {
        hp_metric_add(&gw_metric_bad_events, 1);
        hp_warn("a message in the region's stream is no event of it; skipped", HP_S("region", r->name),
                HP_S("error", e.message));
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

static void on_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    struct gw_region *r = user;
    r->connected = state != HP_AMQP_DOWN;
    if (r->gw->stopping)
        return;
    if (state == HP_AMQP_DOWN) {
        hp_warn("the region's event stream is down; reconnecting", HP_S("region", r->name),
                HP_S("error", e ? e->message : ""));
        return;
    }
    hp_info("the region's event stream is up", HP_S("region", r->name));
    r->unacked = 0;
    r->wants_head = true;
    work(r);
}

int gw_region_start(struct gw_region *r, struct gw_gateway *gw, const char *name, struct hp_error *e)
{
    *r = (struct gw_region){.gw = gw, .name = name, .retry = {.fire_cb = retry_due}};
    hp_backoff_init(&r->backoff, 200, 10000);
    uint64_t seed = hp_rng_next(&gw->rng);
    gw_waiters_init(&r->waiters, GW_WAITERS_MAX, seed);
    if (gw_feed_init(&r->feed, GW_RING_EVENTS_MAX, GW_RING_BYTES_MAX) < 0)
        return hp_fail(e, HP_ENOMEM, "the ring of region %s", name);
    int rc = hp_queue_name(r->requests, "requests", name);
    if (rc < 0)
        return hp_fail(e, rc, "region %s", name);
    rc = hp_topology_region(&r->topology, name, e);
    if (rc < 0)
        return rc;
    char connection[HP_NAME_MAX + 1];
    snprintf(connection, sizeof connection, "broker-gw/%.63s/events/%.63s", gw->config->name, name);
    const struct hp_subscription events = {.queue = r->topology.events, .prefetch = PREFETCH, .stream_start = "next"};
    const struct hp_consumer_options o = {
        .amqp = {.url = gw->config->broker_url,
                 .ca_file = gw->config->broker_ca,
                 .cert_file = gw->config->broker_cert,
                 .key_file = gw->config->broker_key,
                 .connection_name = connection},
        .topology = r->topology.objects,
        .subscriptions = &events,
        .subscription_count = 1,
        .message_cb = on_event,
        .state_cb = on_state,
        .user = r,
    };
    return hp_consumer_new(gw->loop, &o, &r->consumer, e);
}

void gw_region_close(struct gw_region *r, void (*closed_cb)(void *user), void *user)
{
    gw_timer_disarm(&r->gw->timers, &r->retry);
    hp_consumer_close(r->consumer, closed_cb, user);
}

void gw_region_done(struct gw_region *r)
{
    gw_feed_done(&r->feed);
    gw_waiters_done(&r->waiters);
}
