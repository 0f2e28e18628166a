/* broker.c — RabbitMQ as far as Harpoon sees it: quorum queues with a single active consumer, exclusive transient queues, one fanout, one stream.
 *
 * A connection that breaks loses what is on its way in both directions; what its consumer had not acknowledged goes back to the front, in order, to the next consumer; sometimes that one has
 * been given newer messages before (RabbitMQ issues 6804 and 10499). The two ends notice at different times. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/broker.h"

struct queue *sim_queue_find(struct sim_world *w, const char *name)
{
    for (size_t i = 0; i < w->broker->queue_count; i++)
        if (!strcmp(w->broker->queues[i].name, name))
            return &w->broker->queues[i];
    return NULL;
}

void sim_queue_add(struct sim_world *w, const char *name, bool durable, struct sim_connection *owner)
{
    struct queue *q = sim_queue_find(w, name);
    if (q)
        return;
    for (size_t i = 0; i < w->broker->queue_count && !q; i++)
        if (!*w->broker->queues[i].name)
            q = &w->broker->queues[i]; /* of one that is gone */
    if (!q) {
        assert(w->broker->queue_count < QUEUES_MAX);
        q = &w->broker->queues[w->broker->queue_count++];
    }
    *q = (struct queue){.durable = durable, .owner = owner};
    snprintf(q->name, sizeof q->name, "%s", name);
}

void sim_broker_new(struct sim_world *w)
{
    w->broker = sim_alloc(w, sizeof *w->broker);
    w->broker->up = true;
    hp_map_init(&w->broker->requests, 1 << 20, 5);
    sim_queue_add(w, "requests.r1", true, NULL);
    sim_queue_add(w, "reports.r1", true, NULL);
    sim_queue_add(w, "leader.r1", true, NULL);
    sim_queue_add(w, "metrics.r1", false, NULL);
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

void sim_queue_pump(struct sim_world *w, struct queue *q)
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

/* What a consumer held goes back to the front. The leader's token may come as often as it likes: its queue has no delivery limit (common/io/topology.c). */
static void requeue(struct sim_world *w, struct queue *q, struct sim_message *first, struct sim_message *last)
{
    bool limited = strncmp(q->name, "leader.", 7) != 0;
    for (struct sim_message *m = first; m; m = m->next) {
        q->length++;
        if (++m->deliveries > DELIVERY_LIMIT && limited)
            sim_violation(w, "I1", "a message of %s was delivered %d times: it would be dead by now", q->name,
                          m->deliveries);
    }
    if (!first)
        return;
    last->next = q->first;
    q->first = first;
    if (!q->last)
        q->last = last;
}

static void drop_consumer(struct sim_world *w, struct queue *q, const struct sim_connection *c)
{
    int i = 0;
    while (i < q->consumer_count && q->consumers[i].connection != c)
        i++;
    if (i == q->consumer_count)
        return;
    struct sim_message *first = NULL, *last = NULL;
    if (i == 0) {
        first = q->unacked;
        last = q->unacked_last;
        q->unacked = q->unacked_last = NULL;
        q->unacked_count = 0;
    }
    q->consumer_count--;
    memmove(&q->consumers[i], &q->consumers[i + 1], (size_t)(q->consumer_count - i) * sizeof *q->consumers);
    if (first && q->first && q->consumer_count && w->broker->reorder) {
        w->broker->reorder--;
        sim_trace(w, "broker: %s gives its next consumer newer messages first", q->name);
        sim_queue_pump(w, q);
    }
    requeue(w, q, first, last);
    sim_queue_pump(w, q);
}

static void consume_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = sim_queue_find(w, t->queue);
    if (!t->connection->broker_up || !q)
        return;
    if (q->missing) { /* NOT_FOUND ends the channel */
        sim_break_connection(w, t->connection, sim_delay(w), 0);
        return;
    }
    for (int i = 0; i < q->consumer_count; i++)
        if (q->consumers[i].connection == t->connection)
            return;
    assert(q->consumer_count < CONSUMERS_MAX);
    q->consumers[q->consumer_count++] = (struct consumer){t->connection, t->subscription, t->prefetch};
    sim_queue_pump(w, q);
}

static void cancel_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = sim_queue_find(w, t->queue);
    if (t->connection->broker_up && q)
        drop_consumer(w, q, t->connection);
}

static void ack_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = sim_queue_find(w, t->queue);
    if (!t->connection->broker_up || !q || !q->consumer_count || q->consumers[0].connection != t->connection)
        return;
    while (q->unacked && q->unacked->tag <= t->tag) {
        q->unacked = q->unacked->next;
        q->unacked_count--;
    }
    if (!q->unacked)
        q->unacked_last = NULL;
    sim_queue_pump(w, q);
}

static void requeue_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    struct queue *q = sim_queue_find(w, t->queue);
    if (!t->connection->broker_up || !q || !q->consumer_count || q->consumers[0].connection != t->connection)
        return;
    struct sim_message **at = &q->unacked, *last = NULL;
    while (*at && (*at)->tag != t->tag) {
        last = *at;
        at = &(*at)->next;
    }
    struct sim_message *m = *at;
    if (!m)
        return;
    *at = m->next;
    if (q->unacked_last == m)
        q->unacked_last = last;
    q->unacked_count--;
    m->next = NULL;
    requeue(w, q, m, m);
    sim_queue_pump(w, q);
}

static void declare_arrived(struct sim_world *w, void *arg)
{
    struct travel *t = arg;
    const struct queue *q = sim_queue_find(w, t->queue);
    if (!t->connection->broker_up)
        return;
    if (q && q->owner != t->connection) /* RESOURCE_LOCKED: the broker has not noticed yet that its owner is gone */
        sim_break_connection(w, t->connection, sim_delay(w), 0);
    else
        sim_queue_add(w, t->queue, false, t->connection);
}

struct travel *sim_travel(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    struct travel *t = sim_alloc(w, sizeof *t);
    t->connection = c;
    t->queue = queue;
    return t;
}

void sim_declare(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    sim_send(w, &c->to, sim_delay(w), NULL, declare_arrived, sim_travel(w, c, queue));
}

void sim_consume(struct sim_world *w, struct sim_connection *c, const char *queue, int subscription, size_t prefetch)
{
    struct travel *t = sim_travel(w, c, queue);
    t->subscription = subscription;
    t->prefetch = prefetch;
    sim_send(w, &c->to, sim_delay(w), NULL, consume_arrived, t);
}

void sim_cancel(struct sim_world *w, struct sim_connection *c, const char *queue)
{
    sim_send(w, &c->to, sim_delay(w), NULL, cancel_arrived, sim_travel(w, c, queue));
}

void sim_requeue(struct sim_world *w, struct sim_connection *c, const char *queue, uint64_t tag)
{
    struct travel *t = sim_travel(w, c, queue);
    t->tag = tag;
    sim_send(w, &c->to, sim_delay(w), NULL, requeue_arrived, t);
}

void sim_ack(struct sim_world *w, struct sim_connection *c, const char *queue, uint64_t tag)
{
    struct travel *t = sim_travel(w, c, queue);
    t->tag = tag;
    sim_send(w, &c->to, sim_delay(w), NULL, ack_arrived, t);
}

/* ---- Ends ---- */

static void client_end(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    if (!c->client_up)
        return;
    c->client_up = false;
    sim_publishes_fail(w, c);
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
    for (int i = 0; i < b->reader_count; i++)
        if (b->readers[i].connection == c)
            b->readers[i--] = b->readers[--b->reader_count];
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
    c->newest = c->oldest = NULL;
    sim_send(w, &c->to, sim_delay(w), NULL, broker_end, c);
}

static void come_back(struct sim_world *w, void *arg)
{
    w->broker->up = true;
    sim_trace(w, "broker: is back");
}

static void empty(struct queue *q)
{
    q->first = q->last = NULL;
    q->length = 0;
}

bool sim_broker_restart(struct sim_world *w, uint64_t down)
{
    struct sim_broker *b = w->broker;
    if (!b->up)
        return false;
    b->up = false;
    b->reign++;
    while (b->connection_count) {
        struct sim_connection *c = b->connections[0];
        sim_after(w, sim_between(w, 0, 20 * SIM_MS), c->process, client_end, c);
        broker_end(w, c);
    }
    empty(sim_queue_find(w, "metrics.r1"));
    if (w->o->broken == SIM_BREAK_PERSISTENT)
        empty(sim_queue_find(w, "requests.r1"));
    (void)sim_broker_alarm(w, false);
    sim_after(w, down, NULL, come_back, NULL);
    return true;
}

static void declared_anew(struct sim_world *w, void *arg)
{
    struct queue *q = arg;
    if (q->missing)
        sim_trace(w, "broker: %s is declared anew", q->name);
    q->missing = false;
}

void sim_connection_stall(struct sim_world *w, struct sim_connection *c, bool to, uint64_t length)
{
    struct sim_channel *x = to ? &c->to : &c->from;
    if (w->now + length > x->stalled_until)
        x->stalled_until = w->now + length;
}

void sim_broker_limit(struct sim_world *w, const char *queue, size_t length_max)
{
    sim_queue_find(w, queue)->length_max = length_max;
}

void sim_broker_full(struct sim_world *w, const char *queue, bool full)
{
    sim_queue_find(w, queue)->full = full;
}

bool sim_broker_delete(struct sim_world *w, const char *queue, uint64_t length)
{
    struct queue *q = sim_queue_find(w, queue);
    if (q->missing || q->length || q->unacked_count || q->log.last > w->now || !w->broker->up)
        return false;
    q->missing = true;
    while (q->consumer_count) {
        struct sim_connection *c = q->consumers[0].connection;
        drop_consumer(w, q, c);
        sim_break_connection(w, c, sim_delay(w), 0); /* basic.cancel; whoever gets it connects anew */
    }
    sim_after(w, length, NULL, declared_anew, q);
    return true;
}

void sim_broker_declare(struct sim_world *w, const char *queue)
{
    declared_anew(w, sim_queue_find(w, queue));
}

void sim_broker_reorder(struct sim_world *w, uint32_t times)
{
    w->broker->reorder = times;
}

bool sim_broker_has_request(const struct sim_world *w, const char *operation_id)
{
    return hp_map_get(&w->broker->requests, operation_id) != NULL;
}

void sim_broker_done(struct sim_world *w)
{
    hp_map_done(&w->broker->requests);
}

void sim_broker_forget_reports(struct sim_world *w, int host)
{
    memset(w->broker->reports[host], 0, sizeof w->broker->reports[host]);
}

bool sim_broker_has_report(const struct sim_world *w, int host, int64_t report_id)
{
    return report_id >= REPORT_IDS_MAX || (report_id > 0 && w->broker->reports[host][report_id]);
}

size_t sim_queue_length(const struct sim_world *w, const char *queue)
{
    struct queue *q = sim_queue_find((struct sim_world *)w, queue);
    return q ? q->length + q->unacked_count : 0;
}
