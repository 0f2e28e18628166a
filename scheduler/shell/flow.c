/* flow.c — what goes into a region's core and what comes out of it, while the region is led.
 *
 * Happy path: deliveries of one turn of the loop are taken in one after another; at the end of the turn the core is flushed once; its batch becomes one
 * database job; when that is done, the next flush acknowledges, answers, publishes and dispatches. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "io/loop.h"
#include "shell/lead.h"
#include "shell/record.h"
#include "wire/batch.h"
#include "wire/codec.h"

enum {
    COMMIT_ATTEMPTS = 5,
    TOGETHER_MAX = 64,             /* events in one message of the stream */
    TOGETHER_BYTES_MAX = 64 << 10, /* likewise; a larger one goes alone */
};

struct sc_time sc_flow_time(void)
{
    return (struct sc_time){.now_ms = hp_now_ms(), .wall_ns = hp_wall_ns()};
}

/* ---- In ---- */

static void poison(struct sc_lead *l, const struct hp_delivery *d, const char *why)
{
    hp_warn("a message cannot be handled: dead-lettered", HP_S("region", l->region),
            HP_S("queue", d->subscription == SC_SUB_REQUESTS ? "requests" : "reports"),
            HP_S("message_id", d->message_id), HP_S("error", why));
    hp_metric_add(&l->metrics.poison, 1);
    hp_consumer_reject(l->consumer, d->subscription, d->tag);
}

static int unpack(const struct hp_delivery *d, const ProtobufCMessageDescriptor *t, ProtobufCMessage **ret,
                  struct hp_error *e)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 2 << 20, .memory_max = 32 << 20};
    if (d->type && strcmp(d->type, t->name) != 0)
        return hp_fail(e, HP_EINVAL, "type is \"%s\", not \"%s\"", d->type, t->name);
    return hp_unpack(t, d->body, d->body_len, &limits, ret, e);
}

static int take_request(struct sc_lead *l, const struct hp_delivery *d, struct hp_error *e)
{
    ProtobufCMessage *m = NULL;
    struct sc_ev ev = {.kind = SC_EV_REQUEST, .time = sc_flow_time()};
    int rc = unpack(d, &harpoon__internal__v1__request__descriptor, &m, e);
    if (rc)
        return rc;
    ev.request.message = (Harpoon__Internal__V1__Request *)m;
    ev.request.tag = d->tag;
    ev.request.reply_to = d->reply_to;
    ev.request.correlation_id = d->correlation_id;
    hp_metric_add(&l->metrics.requests, 1);
    return sc_region_step(l->core, &ev, e);
}

static int take_report(struct sc_lead *l, const struct hp_delivery *d, struct hp_error *e)
{
    ProtobufCMessage *m = NULL;
    struct sc_ev ev = {.kind = SC_EV_REPORT, .time = sc_flow_time()};
    int rc = unpack(d, &harpoon__internal__v1__report__descriptor, &m, e);
    if (rc)
        return rc;
    ev.report.message = (const Harpoon__Internal__V1__Report *)m;
    ev.report.tag = d->tag;
    hp_metric_add(&l->metrics.reports, 1);
    rc = sc_region_step(l->core, &ev, e);
    hp_unpacked_free(m);
    return rc;
}

static void take_metrics(struct sc_lead *l, const struct hp_delivery *d)
{
    struct hp_error e = {0};
    ProtobufCMessage *m = NULL;
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = sc_flow_time()};
    if (unpack(d, &harpoon__internal__v1__metrics_batch__descriptor, &m, &e)) {
        hp_warn("metrics cannot be read: dropped", HP_S("region", l->region), HP_S("error", e.message));
        return;
    }
    ev.metrics = (const Harpoon__Internal__V1__MetricsBatch *)m;
    if (sc_region_step(l->core, &ev, &e))
        hp_warn("metrics cannot be used: dropped", HP_S("region", l->region), HP_S("error", e.message));
    hp_unpacked_free(m);
}

static void take(struct sc_lead *l, struct hp_delivery *d)
{
    struct hp_error e = {0};
    int rc = 0;
    if (d->subscription == SC_SUB_METRICS)
        take_metrics(l, d);
    else
        rc = d->subscription == SC_SUB_REQUESTS ? take_request(l, d, &e) : take_report(l, d, &e);
    if (rc == HP_ENOMEM)
        sc_lead_failed(l, rc, &e); /* it comes again */
    else if (rc)
        poison(l, d, e.message);
    hp_delivery_free(d);
}

void sc_flow_deliver(struct sc_lead *l, struct hp_delivery *d)
{
    if (l->state != SC_LEAD_LEADING || l->stopping) {
        hp_delivery_free(d); /* not acknowledged: comes again to whoever leads */
        return;
    }
    if (d->subscription != SC_SUB_METRICS && (l->held || sc_region_congested(l->core))) {
        struct sc_held *h = calloc(1, sizeof *h);
        if (!h) {
            struct hp_error e = {0};
            hp_delivery_free(d);
            hp_fail(&e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
            sc_lead_failed(l, HP_ENOMEM, &e);
            return;
        }
        h->delivery = d; /* at most the prefetch waits here */
        *l->held_end = h;
        l->held_end = &h->next;
        return;
    }
    take(l, d);
    if (l->core)
        sc_flow_wake(l);
}

void sc_flow_drop_held(struct sc_lead *l)
{
    while (l->held) {
        struct sc_held *h = l->held;
        l->held = h->next;
        hp_delivery_free(h->delivery);
        free(h);
    }
    l->held_end = &l->held;
}

static void take_held(struct sc_lead *l)
{
    while (l->held && l->core && !sc_region_congested(l->core)) {
        struct sc_held *h = l->held;
        l->held = h->next;
        if (!l->held)
            l->held_end = &l->held;
        take(l, h->delivery);
        free(h);
    }
}

/* ---- Out: messages ---- */

struct sending {
    struct hp_publish publish;
    struct sc_lead *lead;
    struct sc_message *message; /* events that go together: the first, linked to the others */
    uint64_t reign;
    char key[HP_NAME_MAX + 1];
    char id[24];
    uint8_t together[]; /* more than one event: the body */
};

static void tell_core(const struct sending *x, struct sc_ev *ev)
{
    struct sc_lead *l = x->lead;
    if (!l->core || x->reign != l->reign)
        return;
    if (sc_region_step(l->core, ev, NULL))
        abort();
    sc_flow_wake(l);
}

static void events_sent(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct sending *x = (struct sending *)(void *)p;
    struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .time = sc_flow_time()};
    x->lead->sending--;
    sc_stream_done(x->lead, outcome);
    for (struct sc_message *m = x->message, *next; m; m = next) {
        next = m->next;
        ev.published.sequence = m->sequence;
        ev.published.confirmed = outcome == HP_PUBLISH_CONFIRMED;
        tell_core(x, &ev);
        sc_message_free(m);
    }
    free(x);
}

static void sent(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    struct sending *x = (struct sending *)(void *)p;
    const struct sc_message *m = x->message;
    x->lead->sending--;
    if (m->kind == SC_SEND_COMMAND && outcome == HP_PUBLISH_RETURNED && *m->host) {
        struct sc_ev ev = {.kind = SC_EV_RETURNED, .time = sc_flow_time()};
        ev.returned.router = m->key;
        ev.returned.host = m->host;
        ev.returned.session = m->session;
        tell_core(x, &ev);
    }
    sc_message_free(x->message);
    free(x);
}

static struct hp_publish publish_of(struct sc_lead *l, struct sending *x)
{
    const struct sc_message *m = x->message;
    struct hp_publish p = {
        .exchange = "", .routing_key = x->key, .body = m->body->bytes, .body_len = m->body->len, .done_cb = sent};
    switch (m->kind) {
    case SC_SEND_EVENT: /* send_events */
        break;
    case SC_SEND_VERDICT:
        p.type = "harpoon.internal.v1.Verdict";
        p.correlation_id = m->correlation;
        snprintf(x->key, sizeof x->key, "%s", m->key);
        break;
    case SC_SEND_COMMAND:
        p.type = "harpoon.internal.v1.RouterCommand";
        p.mandatory = true;
        if (hp_queue_name(x->key, "router", m->key))
            x->key[0] = '\0'; /* such a router cannot be: it is returned */
        break;
    case SC_SEND_ANNOUNCE:
        p.type = "harpoon.internal.v1.RouterCommand";
        p.exchange = l->topology.routers;
        break;
    }
    return p;
}

/* No memory to send it: an event is published again after a pause, or the watermark would stay behind it for the rest of the reign; a command comes back by its deadline. */
static void unsent(struct sc_lead *l, struct sc_message *m)
{
    struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .time = sc_flow_time(), .published = {.sequence = m->sequence}};
    if (m->kind == SC_SEND_EVENT && l->core) {
        if (sc_region_step(l->core, &ev, NULL))
            abort();
        sc_flow_wake(l);
    }
    sc_message_free(m);
}

static struct sending *sending_new(struct sc_lead *l, struct sc_message *m, size_t together)
{
    struct sending *x = calloc(1, sizeof *x + together);
    if (!x)
        return NULL;
    x->lead = l;
    x->message = m;
    x->reign = l->reign;
    l->sending++;
    return x;
}

/* Events that go out together, in order: a message costs the broker as much as all that is in it. */
struct together {
    struct sc_message *first, *last;
    size_t count, bytes; /* as a batch */
};

static void send_events(struct sc_lead *l, struct together *t)
{
    struct sc_message *m = t->first;
    if (!m)
        return;
    struct sending *x = sending_new(l, m, t->count > 1 ? t->bytes : 0);
    if (x) {
        x->publish = (struct hp_publish){.exchange = "",
                                         .routing_key = l->topology.events,
                                         .body = m->body->bytes,
                                         .body_len = m->body->len,
                                         .persistent = true,
                                         .mandatory = true,
                                         .type = "harpoon.v1.Event",
                                         .message_id = x->id,
                                         .deadline_ms = 30000,
                                         .done_cb = events_sent};
        snprintf(x->id, sizeof x->id, "%lld", (long long)m->sequence);
        if (t->count > 1) {
            uint8_t *at = x->together;
            for (; m; m = m->next)
                at = hp_batch_put(at, m->body->bytes, m->body->len);
            assert(at == x->together + t->bytes);
            x->publish.body = x->together;
            x->publish.body_len = t->bytes;
            x->publish.type = "harpoon.internal.v1.EventBatch";
        }
        sc_stream_sent(l);
        hp_publish(l->events, &x->publish);
    } else {
        for (struct sc_message *next; m; m = next) {
            next = m->next;
            unsent(l, m);
        }
    }
    *t = (struct together){0};
}

static void add_event(struct sc_lead *l, struct together *t, struct sc_message *m)
{
    size_t bytes = hp_batch_size(m->body->len);
    if (t->count == TOGETHER_MAX || t->bytes + bytes > TOGETHER_BYTES_MAX)
        send_events(l, t);
    m->next = NULL;
    if (t->last)
        t->last->next = m;
    else
        t->first = m;
    t->last = m;
    t->count++;
    t->bytes += bytes;
}

static void send_all(struct sc_lead *l, struct sc_messages *list)
{
    struct together events = {0};
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        if (m->kind == SC_SEND_EVENT) {
            add_event(l, &events, m);
            continue;
        }
        struct sending *x = sending_new(l, m, 0);
        if (!x) {
            unsent(l, m);
            continue;
        }
        x->publish = publish_of(l, x);
        hp_publish(l->sends, &x->publish);
    }
    send_events(l, &events);
    *list = (struct sc_messages){0};
}

/* ---- Out: the record ---- */

static void written(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct sc_write *w = (struct sc_write *)(void *)((char *)job - offsetof(struct sc_write, job));
    struct sc_lead *l = w->owner;
    bool stale = w->reign != l->reign || l->state != SC_LEAD_LEADING;
    if (!stale && result == HP_EAGAIN && !job->commit_unknown && ++w->attempts < COMMIT_ATTEMPTS &&
        hp_db_submit(l->db, job) == 0)
        return; /* a deadlock: nothing happened, once more */
    l->jobs--;
    if (stale || result) {
        sc_batch_free(w->batch);
        if (!stale)
            sc_lead_failed(l, result, e);
    } else {
        const struct sc_batch *b = w->batch;
        struct sc_ev ev = {.kind = SC_EV_COMMITTED, .time = sc_flow_time(), .committed = w->batch};
        hp_backoff_reset(&l->backoff); /* not before: a database that can be read may still refuse what is written */
        hp_metric_add(&l->metrics.commits, 1);
        hp_metric_add(&l->metrics.rows,
                      (int64_t)(b->operation_count + b->container_count + b->host_count + b->event_count));
        hp_metric_observe_ns(&l->metrics.commit_time, hp_now_ns() - w->began_ns);
        if (sc_region_step(l->core, &ev, NULL))
            abort();
        sc_flow_flush(l); /* at once: somebody waits for the answers */
    }
    free(w);
    sc_lead_settled(l);
}

static void found(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct sc_find *f = (struct sc_find *)(void *)((char *)job - offsetof(struct sc_find, job));
    struct sc_lead *l = f->owner;
    bool stale = f->reign != l->reign || l->state != SC_LEAD_LEADING;
    l->jobs--;
    if (stale || result) {
        sc_lookup_free(f->lookup);
        if (!stale)
            sc_lead_failed(l, result, e);
    } else {
        struct sc_ev ev = {.kind = SC_EV_LOOKED_UP, .time = sc_flow_time(), .looked_up = f->lookup};
        if (sc_region_step(l->core, &ev, NULL))
            abort();
        sc_flow_flush(l);
    }
    free(f);
    sc_lead_settled(l);
}

static void read_back(struct hp_db_job *job, int result, const struct hp_error *e)
{
    struct sc_read *x = (struct sc_read *)(void *)((char *)job - offsetof(struct sc_read, job));
    struct sc_lead *l = x->owner;
    bool stale = x->reign != l->reign || l->state != SC_LEAD_LEADING;
    l->jobs--;
    if (stale || result) {
        sc_page_free(x->page);
        if (!stale)
            sc_lead_failed(l, result, e);
    } else {
        struct sc_ev ev = {.kind = SC_EV_FETCHED, .time = sc_flow_time(), .fetched = x->page};
        if (sc_region_step(l->core, &ev, NULL))
            abort();
        sc_flow_wake(l);
    }
    free(x);
    sc_lead_settled(l);
}

static int submit_read(struct sc_lead *l, struct sc_page *page, struct hp_error *e)
{
    struct sc_read *x = malloc(sizeof *x);
    if (!x) {
        sc_page_free(page);
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    }
    sc_read_init(x, l->region, page);
    x->owner = l;
    x->reign = l->reign;
    x->job.done_cb = read_back;
    int rc = hp_db_submit(l->db, &x->job);
    if (rc) {
        sc_page_free(page);
        free(x);
        return hp_fail(e, rc, "events: %s", hp_strerror(rc));
    }
    l->jobs++;
    return 0;
}

static int submit_write(struct sc_lead *l, struct sc_batch *b, struct hp_error *e)
{
    struct sc_write *w = malloc(sizeof *w);
    if (!w) {
        sc_batch_free(b);
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    }
    sc_write_init(w, l->region, b);
    w->owner = l;
    w->reign = l->reign;
    w->began_ns = hp_now_ns();
    w->job.done_cb = written;
    int rc = hp_db_submit(l->db, &w->job);
    if (rc) {
        sc_batch_free(b);
        free(w);
        return hp_fail(e, rc, "transaction: %s", hp_strerror(rc));
    }
    l->jobs++;
    return 0;
}

static int submit_find(struct sc_lead *l, struct sc_lookup *lookup, struct hp_error *e)
{
    struct sc_find *f = malloc(sizeof *f);
    if (!f) {
        sc_lookup_free(lookup);
        return hp_fail(e, HP_ENOMEM, "%s", hp_strerror(HP_ENOMEM));
    }
    sc_find_init(f, l->region, lookup);
    f->owner = l;
    f->reign = l->reign;
    f->job.done_cb = found;
    int rc = hp_db_submit(l->db, &f->job);
    if (rc) {
        sc_lookup_free(lookup);
        free(f);
        return hp_fail(e, rc, "lookup: %s", hp_strerror(rc));
    }
    l->jobs++;
    return 0;
}

/* ---- The turn ---- */

static void show(struct sc_lead *l)
{
    struct sc_region_stats s;
    sc_region_stats(l->core, &s);
    hp_metric_set(&l->metrics.hosts, s.hosts);
    hp_metric_set(&l->metrics.hosts_attached, s.hosts_attached);
    hp_metric_set(&l->metrics.containers, s.containers);
    hp_metric_set(&l->metrics.operations, s.operations_active);
    hp_metric_set(&l->metrics.pending, s.pending);
    hp_metric_set(&l->metrics.quarantined, s.quarantined);
    hp_metric_set(&l->metrics.breakers, s.breakers_open);
    hp_metric_set(&l->metrics.braked, s.braked);
    hp_metric_set(&l->metrics.full, s.full);
    hp_metric_set(&l->metrics.victims, s.victims);
    hp_metric_add(&l->metrics.preempted, s.preempted - l->preempted);
    l->preempted = s.preempted;
    hp_metric_set(&l->metrics.restored, s.restored);
    if (l->restored && !s.restored)
        hp_info("the restored record has been compared with every host: creates get places again",
                HP_S("region", l->region), HP_I("quarantined", s.quarantined));
    l->restored = s.restored;
    hp_metric_set(&l->metrics.sequence, s.sequence);
    hp_metric_set(&l->metrics.watermark, s.watermark);
}

static void deadline_cb(uv_timer_t *t)
{
    struct sc_lead *l = t->data;
    struct sc_ev ev = {.kind = SC_EV_TIMER, .time = sc_flow_time()};
    if (!l->core)
        return;
    if (sc_region_step(l->core, &ev, NULL))
        abort();
    sc_flow_wake(l);
}

static void arm(struct sc_lead *l)
{
    uint64_t due = sc_region_deadline(l->core), now = hp_now_ms();
    if (due == UINT64_MAX)
        uv_timer_stop(&l->deadline);
    else
        uv_timer_start(&l->deadline, deadline_cb, due > now ? due - now : 0, 0);
}

void sc_flow_flush(struct sc_lead *l)
{
    static const enum sc_subscription subs[SC_SOURCE_COUNT] = {SC_SUB_REQUESTS, SC_SUB_REPORTS};
    struct sc_effects out = {0};
    struct hp_error e = {0};
    take_held(l);
    if (!l->core)
        return;
    int rc = sc_region_flush(l->core, sc_flow_time(), &out, &e);
    for (int i = 0; i < SC_SOURCE_COUNT; i++)
        if (out.acks[i].set)
            hp_consumer_ack(l->consumer, (int)subs[i], out.acks[i].tag, true);
    send_all(l, &out.messages);
    if (l->stopping) {
        /* What is not committed yet is not begun any more: it comes again to the next leader. */
        sc_batch_free(out.commit);
        sc_lookup_free(out.lookup);
        sc_page_free(out.fetch);
        return;
    }
    if (!rc && out.commit)
        rc = submit_write(l, out.commit, &e);
    if (!rc && out.lookup)
        rc = submit_find(l, out.lookup, &e);
    else
        sc_lookup_free(out.lookup);
    if (!rc && out.fetch)
        rc = submit_read(l, out.fetch, &e);
    else
        sc_page_free(out.fetch);
    if (rc) {
        sc_lead_failed(l, rc, &e);
        return;
    }
    arm(l);
    show(l);
}

static void idle_cb(uv_idle_t *h)
{
    (void)h; /* it only keeps the loop from waiting */
}

static void check_cb(uv_check_t *h)
{
    struct sc_lead *l = h->data;
    uv_check_stop(h);
    uv_idle_stop(&l->idle);
    sc_flow_flush(l);
}

void sc_flow_wake(struct sc_lead *l)
{
    if (l->stopping && !l->core)
        return;
    uv_idle_start(&l->idle, idle_cb);
    uv_check_start(&l->check, check_cb);
}
