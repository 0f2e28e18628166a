/* broker.c — RabbitMQ as far as Harpoon sees it: quorum queues with a single active consumer, exclusive transient queues, one fanout, one stream.
 *
 * A publish travels to the broker, is in the queue after a while (a quorum's log), and is confirmed then. A connection that breaks loses what is on its way in both
 * directions; what its consumer had not acknowledged goes back to the front, in order, to the next consumer. The two ends notice at different times. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/internal/v1/report.pb-c.h"
#include "sim/sim.h"

enum { QUEUES_MAX = 64, CONSUMERS_MAX = 8, DELIVERY_LIMIT = 20, STREAM_MAX = 1 << 16, REPORT_IDS_MAX = 1 << 14 };

struct consumer {
    struct sim_connection *connection;
    int subscription;
    size_t prefetch; /* 0: no acknowledgements */
};

struct queue {
    char name[64];
    bool durable;
    struct sim_connection *owner; /* of an exclusive one */
    struct sim_message *first, *last;
    struct sim_message *unacked, *unacked_last; /* by tag */
    size_t length, unacked_count;
    struct consumer consumers[CONSUMERS_MAX]; /* the first is active */
    int consumer_count;
    struct sim_channel log;
};

struct sim_broker {
    bool up;
    uint32_t reign;
    struct queue queues[QUEUES_MAX];
    size_t queue_count;
    struct sim_connection *connections[512];
    size_t connection_count;
    uint8_t stream[STREAM_MAX]; /* by sequence */
    uint8_t reports[SIM_HOSTS][REPORT_IDS_MAX];
};

struct travel {
    struct sim_connection *connection;
    char queue[64];
    int subscription;
    size_t prefetch;
    uint64_t tag;
    struct sim_message message;
    struct sim_publish *publish;
    enum sim_outcome outcome;
};

static struct queue *find(struct sim_world *w, const char *name)
{
    for (size_t i = 0; i < w->broker->queue_count; i++)
        if (!strcmp(w->broker->queues[i].name, name))
            return &w->broker->queues[i];
    return NULL;
}

static struct queue *add(struct sim_world *w, const char *name, bool durable, struct sim_connection *owner)
{
    struct queue *q = find(w, name);
    if (q)
        return q;
    for (size_t i = 0; i < w->broker->queue_count && !q; i++)
        if (!*w->broker->queues[i].name)
            q = &w->broker->queues[i]; /* of one that is gone */
    if (!q) {
        assert(w->broker->queue_count < QUEUES_MAX);
        q = &w->broker->queues[w->broker->queue_count++];
    }
    *q = (struct queue){.durable = durable, .owner = owner};
    snprintf(q->name, sizeof q->name, "%s", name);
    return q;
}

void sim_broker_new(struct sim_world *w)
{
    w->broker = sim_alloc(w, sizeof *w->broker);
    w->broker->up = true;
    add(w, "requests.r1", true, NULL);
    add(w, "reports.r1", true, NULL);
    add(w, "leader.r1", true, NULL);
    add(w, "metrics.r1", false, NULL);
}

bool sim_broker_is_up(const struct sim_world *w)
{
    return w->broker->up;
}

struct sim_connection *sim_connect(struct sim_world *w, struct sim_process *p, void *user)
{
    struct sim_broker *b = w->broker;
    if (!b->up)
        return NULL;
    struct sim_connection *c = sim_alloc(w, sizeof *c);
    *c = (struct sim_connection){.process = p, .life = p->life, .client_up = true, .broker_up = true, .user = user};
    assert(b->connection_count < sizeof b->connections / sizeof *b->connections);
    b->connections[b->connection_count++] = c;
    return c;
}

/* ---- To consumers ---- */

static void delivered(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    if (t->connection->client_up)
        t->connection->deliver_cb(w, t->connection, t->subscription, &t->message);
}

static void pump(struct sim_world *w, struct queue *q)
{
    while (q->first && q->consumer_count) {
        struct consumer *x = &q->consumers[0];
        if (x->prefetch && q->unacked_count >= x->prefetch)
            return;
        struct sim_message *m = q->first;
        q->first = m->next;
        if (!q->first)
            q->last = NULL;
        q->length--;
        m->next = NULL;
        m->tag = ++x->connection->tags;
        struct travel *t = sim_alloc(w, sizeof *t);
        t->connection = x->connection;
        t->subscription = x->subscription;
        t->message = *m;
        if (x->prefetch) {
            if (q->unacked_last)
                q->unacked_last->next = m;
            else
                q->unacked = m;
            q->unacked_last = m;
            q->unacked_count++;
        }
        sim_send(w, &x->connection->from, sim_delay(w), x->connection->process, delivered, t);
    }
}

/* What the active consumer held goes back to the front. */
static void requeue(struct sim_world *w, struct queue *q)
{
    for (struct sim_message *m = q->unacked; m; m = m->next)
        if (++m->deliveries > DELIVERY_LIMIT)
            sim_violation(w, "I1", "a message of %s was delivered %d times: it would be dead by now", q->name,
                          m->deliveries);
    if (q->unacked) {
        q->unacked_last->next = q->first;
        q->first = q->unacked;
        if (!q->last)
            q->last = q->unacked_last;
        q->length += q->unacked_count;
    }
    q->unacked = q->unacked_last = NULL;
    q->unacked_count = 0;
}

static void drop_consumer(struct sim_world *w, struct queue *q, const struct sim_connection *c)
{
    for (int i = 0; i < q->consumer_count; i++) {
        if (q->consumers[i].connection != c)
            continue;
        if (i == 0)
            requeue(w, q);
        q->consumer_count--;
        memmove(&q->consumers[i], &q->consumers[i + 1], (size_t)(q->consumer_count - i) * sizeof *q->consumers);
        pump(w, q);
        return;
    }
}

static void consume_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = find(w, t->queue);
    if (!t->connection->broker_up || !q)
        return;
    for (int i = 0; i < q->consumer_count; i++)
        if (q->consumers[i].connection == t->connection)
            return;
    assert(q->consumer_count < CONSUMERS_MAX);
    q->consumers[q->consumer_count++] = (struct consumer){t->connection, t->subscription, t->prefetch};
    pump(w, q);
}

static void cancel_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = find(w, t->queue);
    if (t->connection->broker_up && q)
        drop_consumer(w, q, t->connection);
}

static void ack_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = find(w, t->queue);
    if (!t->connection->broker_up || !q || !q->consumer_count || q->consumers[0].connection != t->connection)
        return;
    while (q->unacked && q->unacked->tag <= t->tag) {
        q->unacked = q->unacked->next;
        q->unacked_count--;
    }
    if (!q->unacked)
        q->unacked_last = NULL;
    pump(w, q);
}

static void declare_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    const struct queue *q = find(w, t->queue);
    if (!t->connection->broker_up)
        return;
    if (q && q->owner != t->connection) /* RESOURCE_LOCKED: the broker has not noticed yet that its owner is gone */
        sim_break_connection(w, t->connection, sim_delay(w), 0);
    else
        add(w, t->queue, false, t->connection);
}

static struct travel *travel(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    struct travel *t = sim_alloc(w, sizeof *t);
    t->connection = c;
    snprintf(t->queue, sizeof t->queue, "%s", queue);
    return t;
}

void sim_declare(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    sim_send(w, &c->to, sim_delay(w), NULL, declare_arrived, travel(w, c, queue));
}

void sim_consume(struct sim_world *w, struct sim_connection *c, const char *queue, int subscription, size_t prefetch)
{
    struct travel *t = travel(w, c, queue);
    t->subscription = subscription;
    t->prefetch = prefetch;
    sim_send(w, &c->to, sim_delay(w), NULL, consume_arrived, t);
}

void sim_cancel(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    sim_send(w, &c->to, sim_delay(w), NULL, cancel_arrived, travel(w, c, queue));
}

void sim_ack(struct sim_world *w, struct sim_connection *c, const char *queue, uint64_t tag)
{
    struct travel *t = travel(w, c, queue);
    t->tag = tag;
    sim_send(w, &c->to, sim_delay(w), NULL, ack_arrived, t);
}

/* ---- From publishers ---- */

static void settle(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    if (p->settled)
        return;
    p->settled = true;
    if (p->prev)
        p->prev->next = p->next;
    else
        p->connection->under_way = p->next;
    if (p->next)
        p->next->prev = p->prev;
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
    struct travel *t = travel(w, p->connection, "");
    if (!p->connection->broker_up)
        return;
    t->publish = p;
    t->outcome = outcome;
    sim_send(w, &p->connection->from, sim_delay(w), p->connection->process, outcome_arrived, t);
}

static void note_report(struct sim_world *w, const struct sim_message *m)
{
    Harpoon__Internal__V1__Report *r = harpoon__internal__v1__report__unpack(NULL, m->len, m->body);
    assert(r && r->host[0] == 'h');
    int64_t id = r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED    ? r->journalled->report_id
                 : r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_RESULT      ? r->result->report_id
                 : r->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION ? r->observation->report_id
                                                                                   : 0;
    if (id > 0 && id < REPORT_IDS_MAX)
        w->broker->reports[atoi(r->host + 1)][id] = 1;
    harpoon__internal__v1__report__free_unpacked(r, NULL);
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
    pump(w, q);
}

/* The log has it. A broker that went down meanwhile may have kept it or not. */
static void logged(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct queue *q = find(w, p->queue);
    if (p->reign != w->broker->reign && sim_chance(w, 50))
        return;
    if (p->sequence && p->sequence < STREAM_MAX)
        w->broker->stream[p->sequence] = 1;
    else if (q)
        enqueue(w, q, &p->message);
    if (w->o->broken != SIM_BREAK_CONFIRM)
        answer(w, p, SIM_CONFIRMED);
}

static void again(struct sim_world *w, void *arg);

static void arrived(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct queue *q = find(w, p->queue);
    if (!p->connection->broker_up)
        return;
    p->reign = w->broker->reign;
    if (p->sequence || (q && q->durable)) {
        struct queue *log = q ? q : &w->broker->queues[0];
        if (w->o->broken == SIM_BREAK_CONFIRM) {
            answer(w, p, SIM_CONFIRMED);
            if (sim_chance(w, 2))
                return;
        }
        sim_send(w, &log->log, sim_between(w, 200, 3000), NULL, logged, p);
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

/* A frame that was thought lost turns up again: it may find its host attached anew, or further on. */
static void again(struct sim_world *w, void *arg)
{
    struct sim_publish *p = arg;
    struct queue *q = find(w, p->queue);
    if (q)
        enqueue(w, q, &p->message);
}

static void unavailable(struct sim_world *w, void *arg)
{
    settle(w, arg, SIM_UNKNOWN);
}

void sim_publish(struct sim_world *w, struct sim_connection *c, struct sim_publish *p)
{
    p->connection = c;
    p->next = c->under_way;
    if (p->next)
        p->next->prev = p;
    c->under_way = p;
    if (!c->client_up)
        sim_after(w, 1, c->process, unavailable, p);
    else
        sim_send(w, &c->to, sim_delay(w), NULL, arrived, p);
}

/* ---- Ends ---- */

static void client_end(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    if (!c->client_up)
        return;
    c->client_up = false;
    while (c->under_way) {
        struct sim_publish *last = c->under_way;
        while (last->next)
            last = last->next; /* oldest first */
        settle(w, last, SIM_UNKNOWN);
    }
    c->down_cb(w, c);
}

static void broker_end(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    struct sim_broker *b = w->broker;
    if (!c->broker_up)
        return;
    c->broker_up = false;
    for (size_t i = 0; i < b->queue_count; i++) {
        struct queue *q = &b->queues[i];
        drop_consumer(w, q, c);
        if (q->owner == c)
            *q = (struct queue){0};
    }
    for (size_t i = 0; i < b->connection_count; i++)
        if (b->connections[i] == c) {
            b->connections[i] = b->connections[--b->connection_count];
            break;
        }
}

void sim_break_connection(struct sim_world *w, struct sim_connection *c, uint64_t client_delay, uint64_t broker_delay)
{
    sim_after(w, client_delay, c->process, client_end, c);
    sim_after(w, broker_delay, NULL, broker_end, c);
}

void sim_abandon_connection(struct sim_world *w, struct sim_connection *c)
{
    c->client_up = false;
    c->under_way = NULL;
    sim_send(w, &c->to, sim_delay(w), NULL, broker_end, c);
}

static void come_back(struct sim_world *w, void *arg)
{
    w->broker->up = true;
    sim_trace(w, "broker: is back");
}

void sim_broker_restart(struct sim_world *w, uint64_t down)
{
    struct sim_broker *b = w->broker;
    if (!b->up)
        return;
    b->up = false;
    b->reign++;
    while (b->connection_count) {
        struct sim_connection *c = b->connections[0];
        sim_after(w, sim_between(w, 0, 20 * SIM_MS), c->process, client_end, c);
        broker_end(w, c);
    }
    struct queue *metrics = find(w, "metrics.r1");
    metrics->first = metrics->last = NULL;
    metrics->length = 0;
    sim_after(w, down, NULL, come_back, NULL);
}

bool sim_stream_has(const struct sim_world *w, int64_t sequence)
{
    return sequence > 0 && sequence < STREAM_MAX && w->broker->stream[sequence];
}

bool sim_broker_has_report(const struct sim_world *w, int host, int64_t report_id)
{
    return report_id >= REPORT_IDS_MAX || (report_id > 0 && w->broker->reports[host][report_id]);
}

size_t sim_queue_length(const struct sim_world *w, const char *queue)
{
    struct queue *q = find((struct sim_world *)w, queue);
    return q ? q->length + q->unacked_count : 0;
}
