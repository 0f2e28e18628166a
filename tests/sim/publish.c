/* publish.c — the broker's side towards publishers: confirms, returns, refusals of full queues, alarms, the stream.
 *
 * A publish travels to the broker, is in the queue after a while (a quorum's log), and is confirmed then. A broker that goes down meanwhile may keep it or not. During an alarm the broker takes
 * nothing in, and clients hold back what they have not sent. What has no outcome by its deadline ends as unknown, and may be there all the same. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/internal/v1/report.pb-c.h"
#include "sim/broker.h"
#include "wire/codec.h"

enum { PUBLISH_MS = 5000 };

static void settle(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct sim_connection *c = p->connection;
    if (p->settled)
        return;
    p->settled = true;
    if (p->newer)
        p->newer->older = p->older;
    else
        c->newest = p->older;
    if (p->older)
        p->older->newer = p->newer;
    else
        c->oldest = p->newer;
    p->done_cb(w, p, outcome);
}

static void outcome_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    if (t->connection->client_up)
        settle(w, t->publish, t->outcome);
}

static void answer(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct travel *t = sim_travel(w, p->connection, NULL);
    if (!p->connection->broker_up)
        return;
    t->publish = p;
    t->outcome = outcome;
    sim_send(w, &p->connection->from, sim_delay(w), p->connection->process, outcome_arrived, t);
}

static void note_report(struct sim_world *w, const struct sim_message *m)
{
    Harpoon__Internal__V1__Report *r = sim_unpack(&harpoon__internal__v1__report__descriptor, m->body, m->len);
    assert(r->host[0] == 'h');
    int64_t id = r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED    ? r->journalled->report_id
                 : r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_RESULT      ? r->result->report_id
                 : r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION ? r->observation->report_id
                                                                                   : 0;
    if (id > 0 && id < REPORT_IDS_MAX)
        w->broker->reports[atoi(r->host + 1)][id] = 1;
    hp_unpacked_free(&r->base);
}

static void enqueue(struct sim_world *w, struct queue *q, const struct sim_message *from)
{
    struct sim_message *m = sim_copy(w, from, sizeof *from);
    m->next = NULL;
    if (q->last)
        q->last->next = m;
    else
        q->first = m;
    q->last = m;
    q->length++;
    if (!strcmp(q->name, "reports.r1"))
        note_report(w, m);
    if (m->id && hp_map_put(&w->broker->requests, m->id, m, NULL))
        abort();
    sim_queue_pump(w, q);
}

static void read_by(struct sim_world *w, const struct consumer *x, const struct sim_message *m);

/* The log has it. A broker that went down meanwhile may have kept it or not. */
static void logged(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct sim_broker *b = w->broker;
    struct queue *q = p->message.sequence ? NULL : sim_queue_find(w, p->queue);
    if (p->reign != b->reign && sim_chance(w, 50))
        return;
    if (p->message.sequence && p->message.sequence < STREAM_SEQUENCES_MAX) {
        b->stream[p->message.sequence] = 1;
        if (p->message.sequence > b->stream_highest)
            b->stream_highest = p->message.sequence;
        for (int i = 0; i < b->reader_count; i++)
            read_by(w, &b->readers[i], &p->message);
    } else if (q) {
        enqueue(w, q, &p->message);
    }
    if (w->o->broken != SIM_BREAK_CONFIRM)
        answer(w, p, SIM_CONFIRMED);
}

static bool full(const struct queue *q)
{
    return q && (q->full || (q->length_max && q->length + q->unacked_count >= q->length_max));
}

static void log_it(struct sim_world *w, struct sim_publish *p, struct queue *q)
{
    if (full(q)) {
        answer(w, p, SIM_REJECTED);
        return;
    }
    if (w->o->broken == SIM_BREAK_CONFIRM) {
        answer(w, p, SIM_CONFIRMED);
        if (sim_chance(w, 2))
            return;
    }
    sim_send(w, q ? &q->log : &w->broker->stream_log, sim_between(w, 200, 3000), NULL, logged, p);
}

/* A frame that was thought lost turns up again: it may find its host attached anew, or further on. */
static void again(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct queue *q = sim_queue_find(w, p->queue);
    if (q)
        enqueue(w, q, &p->message);
}

static void take(struct sim_world *w, struct sim_publish *p)
{
    struct queue *q = p->message.sequence || p->fanout ? NULL : sim_queue_find(w, p->queue);
    if (q && q->missing)
        q = NULL;
    p->reign = w->broker->reign;
    if (p->message.sequence || (q && q->durable)) {
        log_it(w, p, q);
        return;
    }
    if (p->fanout) {
        for (size_t i = 0; i < w->broker->queue_count; i++)
            if (!strncmp(w->broker->queues[i].name, "router.", 7))
                enqueue(w, &w->broker->queues[i], &p->message);
    } else if (q) {
        enqueue(w, q, &p->message);
        if (w->now < w->repeat_until && !strncmp(q->name, "router.", 7))
            sim_after(w, sim_between(w, 0, 4 * SIM_S), NULL, again, p);
    } else if (p->mandatory) {
        answer(w, p, SIM_RETURNED);
        return;
    }
    answer(w, p, SIM_CONFIRMED);
}

static void arrived(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct sim_broker *b = w->broker;
    if (!p->connection->broker_up)
        return;
    if (!b->alarm) {
        take(w, p);
        return;
    }
    if (b->held)
        b->held_last->waiting = p;
    else
        b->held = p;
    b->held_last = p;
}

/* ---- The client's side ---- */

static void expired(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    while (c->oldest && c->oldest->deadline <= w->now)
        settle(w, c->oldest, c->oldest->unsent ? SIM_UNAVAILABLE : SIM_UNKNOWN);
    c->expiry = c->oldest != NULL;
    if (c->expiry)
        sim_after(w, c->oldest->deadline - w->now, c->process, expired, c);
}

static void unavailable(struct sim_world *w, void *arg)
{
    settle(w, arg, SIM_UNAVAILABLE);
}

void sim_publish(struct sim_world *w, struct sim_connection *c, struct sim_publish *p)
{
    p->connection = c;
    p->older = c->newest;
    if (p->older)
        p->older->newer = p;
    else
        c->oldest = p;
    c->newest = p;
    p->deadline = w->now + PUBLISH_MS * SIM_MS;
    if (!c->expiry) {
        c->expiry = true;
        sim_after(w, PUBLISH_MS * SIM_MS, c->process, expired, c);
    }
    p->unsent = !c->client_up || c->blocked;
    if (!c->client_up)
        sim_after(w, 1, c->process, unavailable, p);
    else if (!c->blocked)
        sim_send(w, &c->to, sim_delay(w), NULL, arrived, p);
}

void sim_publishes_fail(struct sim_world *w, struct sim_connection *c)
{
    while (c->oldest)
        settle(w, c->oldest, c->oldest->unsent ? SIM_UNAVAILABLE : SIM_UNKNOWN);
}

/* ---- Alarms ---- */

static void blocked(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    c->blocked = w->broker->alarm;
}

static void unblocked(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    if (w->broker->alarm || !c->blocked)
        return;
    c->blocked = false;
    for (struct sim_publish *p = c->oldest; p; p = p->newer)
        if (p->unsent) {
            p->unsent = false;
            sim_send(w, &c->to, sim_delay(w), NULL, arrived, p);
        }
}

bool sim_broker_alarm(struct sim_world *w, bool on)
{
    struct sim_broker *b = w->broker;
    if (b->alarm == on || (on && !b->up))
        return false;
    b->alarm = on;
    for (size_t i = 0; i < b->connection_count; i++)
        sim_send(w, &b->connections[i]->from, sim_delay(w), b->connections[i]->process, on ? blocked : unblocked,
                 b->connections[i]);
    struct sim_publish *p = on ? NULL : b->held;
    for (struct sim_publish *next; p; p = next) {
        next = p->waiting;
        p->waiting = NULL;
        if (p->connection->broker_up)
            take(w, p);
    }
    if (!on)
        b->held = b->held_last = NULL;
    return true;
}

/* ---- The stream ---- */

void sim_stream_stall(struct sim_world *w, uint64_t length)
{
    w->broker->stream_log.stalled_until = w->now + length;
}

static void read_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    if (t->connection->client_up)
        t->connection->deliver_cb(w, t->connection, t->subscription, &t->message);
}

static void read_by(struct sim_world *w, const struct consumer *x, const struct sim_message *m)
{
    struct travel *t = sim_travel(w, x->connection, NULL);
    t->subscription = x->subscription;
    t->message = *m;
    sim_send(w, &x->connection->from, sim_delay(w), x->connection->process, read_arrived, t);
}

static void reader_attached(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct sim_broker *b = w->broker;
    if (!t->connection->broker_up)
        return;
    assert(b->reader_count < STREAM_READERS_MAX);
    b->readers[b->reader_count++] = (struct consumer){t->connection, t->subscription, 0};
    read_by(w, &b->readers[b->reader_count - 1], &(struct sim_message){.sequence = b->stream_highest});
}

static void reader_arrived(struct sim_world *w, void *arg)
{
    sim_after(w, sim_between(w, SIM_MS, 50 * SIM_MS), NULL, reader_attached, arg); /* it is found where the stream is */
}

void sim_read_stream(struct sim_world *w, struct sim_connection *c, int subscription)
{
    struct travel *t = sim_travel(w, c, NULL);
    t->subscription = subscription;
    sim_send(w, &c->to, sim_delay(w), NULL, reader_arrived, t);
}

bool sim_stream_has(const struct sim_world *w, int64_t sequence)
{
    return sequence > 0 && sequence < STREAM_SEQUENCES_MAX && w->broker->stream[sequence];
}
