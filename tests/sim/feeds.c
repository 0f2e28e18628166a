/* feeds.c — a gateway's process as far as events go: the real feed, watch and wait cores on a simulated stream and record. What broker-gw/shell's feeds.c, watches.c and waits.c do around them
 * is done here the same way. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/gateway.h"

enum { PAGE_EVENTS = 40, UNREAD_MAX = 8, WAITERS_MAX = 1000, WAIT_MS = 20000 };

/* A read of the record on its way. */
struct read {
    struct sim_gateway *gateway;
    struct sim_watch *watch; /* NULL: not for one */
    struct sim_wait *wait;
    bool head;
    int64_t after;
    bool failed;
    size_t first, count; /* of the record's events */
    int64_t oldest, sequence;
    int stage;
};

static void connect(struct sim_world *w, void *arg);
static void work(struct sim_world *w, struct sim_gateway *g);
static void pump(struct sim_world *w, struct sim_watch *x);
static void waits_event(struct sim_gateway *g, const Harpoon__V1__Event *e);
static void waits_jumped(struct sim_world *w, struct sim_gateway *g);

/* ---- The record ---- */

static void read_run(struct sim_world *w, void *arg, sim_fn done)
{
    struct read *r = arg;
    const struct sim_record *d = w->record;
    r->failed = sim_record_is_down(w) || w->now < d->cut_gateway[r->gateway->index];
    r->oldest = d->oldest;
    r->sequence = d->sequence;
    if (r->wait) {
        const struct sim_operation_row *row = hp_map_get(&d->tables.operations, strrchr(r->wait->operation, '/') + 1);
        r->stage = row ? row->stage : -1;
    } else if (!r->head) {
        int64_t from = r->after + 1 > d->oldest ? r->after + 1 : d->oldest;
        r->first = (size_t)from - 1;
        size_t left = d->event_count > r->first ? d->event_count - r->first : 0;
        r->count = left < PAGE_EVENTS ? left : PAGE_EVENTS;
    }
    sim_send(w, &r->gateway->from_record, sim_delay(w), &r->gateway->process, done, r);
}

static struct read *read_new(struct sim_world *w, struct sim_gateway *g, sim_fn run)
{
    struct read *r = sim_alloc(w, sizeof *r);
    r->gateway = g;
    sim_send(w, &g->to_record, sim_delay(w) + sim_between(w, 100, 1000), NULL, run, r);
    return r;
}

/* ---- The feed ---- */

static void advance(struct sim_world *w, struct sim_gateway *g)
{
    for (struct sim_watch *x = g->watches, *next; x; x = next) {
        next = x->next;
        pump(w, x);
    }
}

static void tell(struct sim_world *w, struct sim_gateway *g, const Harpoon__V1__Event *e)
{
    waits_event(g, e);
    advance(w, g);
}

static void tell_jumped(struct sim_world *w, struct sim_gateway *g)
{
    waits_jumped(w, g);
    advance(w, g);
}

static void take_page(struct sim_world *w, struct sim_gateway *g, const struct read *r)
{
    bool hole = r->count == 0 && r->after == g->feed.last;
    for (size_t i = 0; i < r->count; i++) {
        Harpoon__V1__Event *e = w->record->events[r->first + i].event;
        enum gw_feed_outcome outcome = gw_feed_filled(&g->feed, e, 200);
        if (outcome == GW_FEED_APPENDED)
            tell(w, g, e);
        hole |= outcome == GW_FEED_GAP;
    }
    if (!hole)
        return;
    sim_trace(w, "%s: the record no longer holds what was missed", g->name);
    gw_feed_give_up(&g->feed);
    tell_jumped(w, g);
}

static void retry(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    g->retrying = false;
    work(w, g);
}

/* I9: what was in the stream before it was heard is known from the record. */
static void check_head(struct sim_world *w, const struct sim_gateway *g)
{
    if (!g->reading && !g->wants_head)
        sim_check(w, g->feed.known >= g->heard, "I9",
                  "%s knows of events up to %" PRId64 ", and hears the stream behind %" PRId64, g->name, g->feed.known,
                  g->heard);
}

static void feed_done(struct sim_world *w, void *arg)
{
    struct read *r = arg;
    struct sim_gateway *g = r->gateway;
    g->reading = false;
    if (r->failed) {
        g->wants_head |= r->head;
        g->retrying = true;
        sim_after(w, sim_between(w, 200 * SIM_MS, 2 * SIM_S), &g->process, retry, g);
        return;
    }
    if (!r->head)
        take_page(w, g, r);
    else if (gw_feed_head(&g->feed, r->sequence))
        tell_jumped(w, g);
    check_head(w, g);
    work(w, g);
}

static void feed_run(struct sim_world *w, void *arg)
{
    read_run(w, arg, feed_done);
}

static void work(struct sim_world *w, struct sim_gateway *g)
{
    int64_t after = 0, to;
    if (g->reading || g->retrying || (!g->wants_head && !gw_feed_missing(&g->feed, &after, &to)))
        return;
    struct read *r = read_new(w, g, feed_run);
    r->head = g->wants_head;
    r->after = after;
    g->wants_head = false;
    g->reading = true;
}

/* An empty message says that the subscription is in force: what the record holds now is the start. */
static void deliver(struct sim_world *w, struct sim_connection *c, int subscription, const struct sim_message *m)
{
    struct sim_gateway *g = c->user;
    if (!m->len) {
        g->wants_head |= w->o->broken != SIM_BREAK_REGISTER;
        g->heard = m->sequence;
        check_head(w, g);
        work(w, g);
        return;
    }
    Harpoon__V1__Event *e = sim_record_event(w, m->sequence, m->body, m->len);
    if (!e)
        return;
    bool first = g->feed.state == GW_FEED_UNKNOWN;
    switch (gw_feed_arrived(&g->feed, e, m->len)) {
    case GW_FEED_APPENDED:
        tell(w, g, e);
        if (first)
            tell_jumped(w, g);
        return;
    case GW_FEED_REPEATED:
        break;
    case GW_FEED_GAP:
        work(w, g);
        break;
    }
}

static void down(struct sim_world *w, struct sim_connection *c)
{
    struct sim_gateway *g = c->user;
    sim_after(w, sim_between(w, 50 * SIM_MS, SIM_S), &g->process, connect, g);
}

static void connect(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    struct sim_connection *c = sim_connect(w, &g->process, g);
    if (!c) {
        sim_after(w, sim_between(w, 100 * SIM_MS, SIM_S), &g->process, connect, g);
        return;
    }
    g->stream = c;
    c->deliver_cb = deliver;
    c->down_cb = down;
    sim_read_stream(w, c, 0);
    if (w->o->broken == SIM_BREAK_REGISTER) {
        g->wants_head = true;
        work(w, g);
    }
}

/* ---- Watches ---- */

struct told {
    struct sim_watch *watch;
    int64_t number; /* cursor, sequence, oldest */
    enum sim_watch_end end;
};

static struct told *told(struct sim_world *w, struct sim_watch *x, int64_t number)
{
    struct told *t = sim_alloc(w, sizeof *t);
    *t = (struct told){x, number, SIM_WATCH_UNAVAILABLE};
    return t;
}

static void begun_arrived(struct sim_world *w, void *arg)
{
    struct told *t = arg;
    t->watch->begun_cb(w, t->watch, t->number);
}

static void event_arrived(struct sim_world *w, void *arg)
{
    struct told *t = arg;
    t->watch->event_cb(w, t->watch, t->number);
}

static void end_arrived(struct sim_world *w, void *arg)
{
    struct told *t = arg;
    t->watch->end_cb(w, t->watch, t->end, t->number);
}

static void close_watch(struct sim_watch *x)
{
    *(x->prev ? &x->prev->next : &x->gateway->watches) = x->next;
    if (x->next)
        x->next->prev = x->prev;
    x->open = false;
    gw_filter_done(&x->watch.filter);
    x->page = (struct sim_page){0};
}

static void end_watch(struct sim_world *w, struct sim_watch *x, enum sim_watch_end why)
{
    struct told *t = told(w, x, x->page.oldest);
    t->end = why;
    close_watch(x);
    sim_send(w, &x->down, sim_delay(w), NULL, end_arrived, t);
}

static void end_with_hole(struct sim_world *w, struct sim_watch *x)
{
    end_watch(w, x, x->watch.cursor + 1 < x->page.oldest ? SIM_WATCH_OUT_OF_RANGE : SIM_WATCH_HOLE);
}

static void send_event(struct sim_world *w, struct sim_watch *x, int64_t sequence)
{
    sim_send(w, &x->down, sim_delay(w), NULL, event_arrived, told(w, x, sequence));
    x->watch.blocked |= ++x->unread >= UNREAD_MAX;
}

static void begin(struct sim_world *w, struct sim_watch *x, int64_t cursor)
{
    gw_watch_begin(&x->watch, cursor);
    sim_send(w, &x->down, sim_delay(w), NULL, begun_arrived, told(w, x, cursor));
    pump(w, x);
}

static void start_known(struct sim_world *w, struct sim_watch *x)
{
    const struct sim_page *b = &x->page;
    int64_t last = x->gateway->feed.last, newest = b->sequence > last ? b->sequence : last;
    if (x->after == 0)
        begin(w, x, b->oldest - 1);
    else if (x->after > newest || x->after + 1 < b->oldest)
        end_watch(w, x, SIM_WATCH_OUT_OF_RANGE);
    else
        begin(w, x, x->after);
}

static void watch_read_done(struct sim_world *w, void *arg)
{
    const struct read *r = arg;
    struct sim_watch *x = r->watch;
    x->reading = false;
    if (!x->open)
        return;
    if (r->failed) {
        end_watch(w, x, SIM_WATCH_UNAVAILABLE);
        return;
    }
    x->page = (struct sim_page){.oldest = r->oldest, .sequence = r->sequence};
    if (x->watch.state == GW_WATCH_STARTING) {
        start_known(w, x);
        return;
    }
    x->page.first = r->first;
    x->page.count = r->count;
    if (r->count)
        pump(w, x);
    else
        end_with_hole(w, x); /* the ring holds later ones, so there were some */
}

static void watch_read_run(struct sim_world *w, void *arg)
{
    read_run(w, arg, watch_read_done);
}

static void read_for(struct sim_world *w, struct sim_watch *x)
{
    struct read *r = read_new(w, x->gateway, watch_read_run);
    r->watch = x;
    r->head = x->watch.state == GW_WATCH_STARTING;
    r->after = x->watch.cursor;
    x->reading = true;
}

/* False when the watch has ended. */
static bool pump_page(struct sim_world *w, struct sim_watch *x)
{
    while (x->page.at < x->page.count && !x->watch.blocked) {
        const Harpoon__V1__Event *e = w->record->events[x->page.first + x->page.at].event;
        int rc = gw_watch_from_record(&x->watch, e);
        if (rc < 0) {
            end_with_hole(w, x);
            return false;
        }
        if (rc == 1)
            send_event(w, x, e->sequence);
        x->page.at++;
    }
    return true;
}

static void pump(struct sim_world *w, struct sim_watch *x)
{
    const struct gw_feed *f = &x->gateway->feed;
    if (x->reading || f->state == GW_FEED_UNKNOWN)
        return;
    if (x->watch.state == GW_WATCH_STARTING) {
        if (x->now)
            begin(w, x, f->last);
        else if (x->after + 1 >= gw_feed_first(f) && x->after <= f->last && (x->after > 0 || gw_feed_first(f) == 1))
            begin(w, x, x->after);
        else
            read_for(w, x);
        return;
    }
    if (gw_watch_overrun(&x->watch, f)) {
        end_watch(w, x, SIM_WATCH_TOO_SLOW);
        return;
    }
    if (x->page.at < x->page.count && !pump_page(w, x))
        return;
    while (!x->watch.blocked) {
        const Harpoon__V1__Event *e;
        switch (gw_watch_next(&x->watch, f, &e)) {
        case GW_WATCH_SEND:
            send_event(w, x, e->sequence);
            break;
        case GW_WATCH_WAIT:
            return;
        case GW_WATCH_PAGE:
            read_for(w, x);
            return;
        case GW_WATCH_OVERRUN:
            end_watch(w, x, SIM_WATCH_TOO_SLOW);
            return;
        }
    }
}

/* The call finds another process, or none. */
static bool gone(const struct sim_gateway *g, uint32_t life)
{
    return !g->process.alive || g->process.life != life;
}

/* The process sleeps: the call waits in its socket. */
static bool asleep(struct sim_world *w, struct sim_gateway *g, sim_fn fn, void *arg)
{
    if (g->process.paused_until <= w->now)
        return false;
    sim_after(w, g->process.paused_until - w->now, NULL, fn, arg);
    return true;
}

static void watch_arrived(struct sim_world *w, void *arg)
{
    static char name[] = "reader", operations[] = "harpoon.operation.*";
    static struct gw_principal who = {.refs = 1, .name = name, .role = GW_ADMIN, .all_projects = true};
    struct sim_watch *x = arg;
    struct sim_gateway *g = x->gateway;
    Harpoon__V1__EventFilter want = HARPOON__V1__EVENT_FILTER__INIT;
    char *types[] = {operations};
    if (gone(g, x->life)) {
        x->end_cb(w, x, SIM_WATCH_UNAVAILABLE, 0);
        return;
    }
    if (asleep(w, g, watch_arrived, x))
        return;
    want.types = types;
    want.n_types = x->only_operations;
    if (gw_filter_init(&x->watch.filter, &who, &want))
        abort();
    x->open = true;
    x->next = g->watches;
    if (x->next)
        x->next->prev = x;
    g->watches = x;
    pump(w, x);
}

void sim_gateway_watch(struct sim_world *w, int gateway, struct sim_watch *x)
{
    x->gateway = w->gateways[gateway];
    x->life = x->gateway->process.life;
    sim_after(w, sim_delay(w), NULL, watch_arrived, x);
}

static void taken(struct sim_world *w, void *arg)
{
    struct sim_watch *x = arg;
    x->unread = 0;
    if (!x->open || !x->watch.blocked)
        return;
    if (gw_watch_unblock(&x->watch, &x->gateway->feed))
        pump(w, x);
    else
        end_watch(w, x, SIM_WATCH_TOO_SLOW);
}

void sim_watch_taken(struct sim_world *w, struct sim_watch *x)
{
    sim_after(w, sim_delay(w), &x->gateway->process, taken, x);
}

/* ---- Waits ---- */

static void answer_arrived(struct sim_world *w, void *arg)
{
    struct sim_wait *x = arg;
    x->answer_cb(w, x);
}

static void answer(struct sim_world *w, struct sim_wait *x, int stage)
{
    struct sim_gateway *g = x->gateway;
    gw_waiters_remove(&g->waiters, &x->waiter);
    gw_timer_disarm(&g->timers, &x->timer);
    *(x->prev ? &x->prev->next : &g->waits) = x->next;
    if (x->next)
        x->next->prev = x->prev;
    x->open = false;
    x->stage = stage;
    sim_after(w, sim_delay(w), NULL, answer_arrived, x);
}

static void look(struct sim_world *w, struct sim_wait *x);

static void looked(struct sim_world *w, void *arg)
{
    const struct read *r = arg;
    struct sim_wait *x = r->wait;
    x->reading = false;
    if (!x->open)
        return;
    if (r->failed)
        answer(w, x, -2);
    else if (r->stage >= 0 && (x->late || gw_stage_terminal((Harpoon__V1__Stage)r->stage)))
        answer(w, x, r->stage);
    else if (x->late && !x->again)
        answer(w, x, -1);
    else if (x->again)
        look(w, x);
}

static void look_run(struct sim_world *w, void *arg)
{
    read_run(w, arg, looked);
}

static void look(struct sim_world *w, struct sim_wait *x)
{
    x->again = x->reading;
    if (x->reading)
        return;
    x->reading = true;
    read_new(w, x->gateway, look_run)->wait = x;
}

static void waits_event(struct sim_gateway *g, const Harpoon__V1__Event *e)
{
    const Harpoon__V1__Operation *o = gw_event_ends(e);
    if (!o)
        return;
    for (struct gw_waiter *p; (p = gw_waiters_take(&g->waiters, o->name));)
        answer(g->world, (struct sim_wait *)((char *)p - offsetof(struct sim_wait, waiter)), (int)o->stage);
}

static void waits_jumped(struct sim_world *w, struct sim_gateway *g)
{
    for (struct sim_wait *x = g->waits; x; x = x->next)
        look(w, x);
}

static void wait_late(struct gw_timer *t, uint64_t now_ms)
{
    struct sim_wait *x = (struct sim_wait *)((char *)t - offsetof(struct sim_wait, timer));
    x->late = true;
    look(x->gateway->world, x);
}

static void wait_arrived(struct sim_world *w, void *arg)
{
    struct sim_wait *x = arg;
    struct sim_gateway *g = x->gateway;
    if (gone(g, x->life)) {
        x->answer_cb(w, x);
        return;
    }
    if (asleep(w, g, wait_arrived, x))
        return;
    x->open = true;
    x->next = g->waits;
    if (x->next)
        x->next->prev = x;
    g->waits = x;
    x->timer.fire_cb = wait_late;
    if (gw_waiters_add(&g->waiters, &x->waiter, x->operation) ||
        gw_timer_arm(&g->timers, &x->timer, w->now / 1000 + WAIT_MS))
        abort();
    sim_gateway_timers(w, g);
    look(w, x);
}

void sim_gateway_wait(struct sim_world *w, int gateway, struct sim_wait *x)
{
    x->gateway = w->gateways[gateway];
    x->life = x->gateway->process.life;
    x->stage = -2;
    sim_after(w, sim_delay(w), NULL, wait_arrived, x);
}

/* ---- Life ---- */

/* Events are the record's. */
static void keep(Harpoon__V1__Event *e)
{
}

void sim_feeds_start(struct sim_world *w, struct sim_gateway *g)
{
    size_t ring = w->seed % 2 ? 24 : 2000;
    if (gw_feed_init(&g->feed, ring, 1 << 20))
        abort();
    g->feed.drop_cb = keep;
    gw_waiters_init(&g->waiters, WAITERS_MAX, (uint64_t)g->index + 17);
    g->watches = NULL;
    g->waits = NULL;
    g->to_record = g->from_record = (struct sim_channel){0};
    g->wants_head = g->reading = g->retrying = false;
    g->heard = 0;
    connect(w, g);
}

void sim_feeds_free(struct sim_gateway *g)
{
    while (g->watches)
        close_watch(g->watches);
    for (struct sim_wait *x = g->waits; x; x = x->next) {
        gw_waiters_remove(&g->waiters, &x->waiter);
        gw_timer_disarm(&g->timers, &x->timer);
        x->open = false;
    }
    gw_waiters_done(&g->waiters);
    gw_feed_done(&g->feed);
}

void sim_feeds_died(struct sim_world *w, struct sim_gateway *g)
{
    for (struct sim_watch *x = g->watches; x; x = x->next)
        sim_send(w, &x->down, sim_delay(w), NULL, end_arrived, told(w, x, 0));
    for (struct sim_wait *x = g->waits; x; x = x->next)
        sim_after(w, sim_delay(w), NULL, answer_arrived, x);
    if (g->stream)
        sim_abandon_connection(w, g->stream);
    g->stream = NULL;
}
