/* scheduler.c — a scheduler's process: the real core, and a shell of simulated parts that does what scheduler/shell does: token, takeover, batches, fencing. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/internal/v1/report.pb-c.h"
#include "sim/sim.h"
#include "wire/codec.h"

enum lead_state { DOWN, STANDBY, TAKING, LEADING, WAITING };
enum { LEADER, REQUESTS, REPORTS, METRICS, SUBSCRIPTIONS };
static const char *const queues[] = {"leader.r1", "requests.r1", "reports.r1", "metrics.r1"};

struct job {
    struct job *next;
    struct sim_scheduler *s;
    uint32_t life, reign;
    struct sc_batch *batch;
    struct sc_lookup *lookup;
    struct sim_channel *back;
    enum sim_commit result;
};

/* A delivery that waits until the stream has taken more. */
struct held {
    struct held *next;
    int subscription;
    struct sim_message message;
};

struct database {
    struct sim_channel to, back;
};

struct sim_scheduler {
    struct sim_process process;
    int index;
    char name[16];
    struct sim_connection *connection;
    enum lead_state state;
    uint32_t reign, subscribed; /* subscribed: number of the subscription to leader.r1 */
    struct sc_region *core;
    struct database *db;
    bool leader_wanted, has_token, fenced, flushing;
    uint64_t token_tag, timer_at;
    struct held *held, *held_last;
    struct job *jobs; /* all there ever were */
};

static void flush(struct sim_world *w, struct sim_scheduler *s);
static void take_over(struct sim_world *w, void *arg);
static void connect(struct sim_world *w, void *arg);
static void want_leader(struct sim_world *w, struct sim_scheduler *s);
static void take_held(struct sim_world *w, struct sim_scheduler *s);

/* ---- Ends ---- */

static void end_reign(struct sim_world *w, struct sim_scheduler *s)
{
    s->reign++;
    s->held = NULL;
    if (s->connection && s->connection->client_up)
        for (int i = REQUESTS; i < SUBSCRIPTIONS; i++)
            sim_cancel(w, s->connection, queues[i]);
    sc_region_free(s->core);
    s->core = NULL;
    s->db = NULL;
}

static void no_longer_fenced(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    s->fenced = false;
    if (s->state == STANDBY && !s->leader_wanted)
        want_leader(w, s);
}

static void failed(struct sim_world *w, struct sim_scheduler *s, bool fenced)
{
    end_reign(w, s);
    sim_trace(w, "%s: %s", s->name, fenced ? "fenced" : "the region cannot be led");
    if (!fenced) {
        s->state = WAITING;
        sim_after(w, sim_between(w, 100 * SIM_MS, 1000 * SIM_MS), &s->process, take_over, s);
        return;
    }
    sim_cancel(w, s->connection, queues[LEADER]);
    s->leader_wanted = s->has_token = false;
    s->state = STANDBY;
    s->fenced = true;
    sim_after(w, 2 * SIM_S, &s->process, no_longer_fenced, s);
}

static void down(struct sim_world *w, struct sim_connection *c)
{
    struct sim_scheduler *s = c->user;
    sim_trace(w, "%s: lost the broker", s->name);
    end_reign(w, s);
    s->connection = NULL;
    s->state = DOWN;
    s->leader_wanted = s->has_token = s->fenced = false;
    sim_after(w, sim_between(w, 50 * SIM_MS, 800 * SIM_MS), &s->process, connect, s);
}

/* ---- The record ---- */

/* A job's answer comes to the process when it goes on; to one that has died, never. True: not now, or never. */
static bool deferred(struct sim_world *w, struct job *j, sim_fn fn)
{
    struct sim_process *p = &j->s->process;
    if (p->alive && p->life == j->life && p->paused_until > w->now) {
        sim_after(w, p->paused_until - w->now, NULL, fn, j);
        return true;
    }
    return !p->alive || p->life != j->life;
}

static void written(struct sim_world *w, void *arg)
{
    struct job *j = arg;
    struct sim_scheduler *s = j->s;
    if (deferred(w, j, written))
        return;
    if (j->reign != s->reign || s->state != LEADING)
        return;
    if (j->result != SIM_COMMIT_DONE) {
        failed(w, s, j->result == SIM_COMMIT_FENCED);
        return;
    }
    struct sc_ev ev = {.kind = SC_EV_COMMITTED, .time = sim_time(w), .committed = j->batch};
    j->batch = NULL;
    if (sc_region_step(s->core, &ev, NULL))
        abort();
    flush(w, s);
}

static void write(struct sim_world *w, void *arg)
{
    struct job *j = arg;
    j->result = sim_record_commit(w, j->s->index, j->batch);
    if (j->result == SIM_COMMIT_LOST_ANSWER && w->o->broken == SIM_BREAK_RETRY)
        j->result = sim_record_commit(w, j->s->index, j->batch);
    if (j->result != SIM_COMMIT_DONE)
        sim_trace(w, "%s: a transaction of epoch %" PRId64 " ended as %d", j->s->name, j->batch->epoch, j->result);
    sim_send(w, j->back, sim_delay(w), NULL, written, j);
}

static void found(struct sim_world *w, void *arg)
{
    struct job *j = arg;
    struct sim_scheduler *s = j->s;
    if (deferred(w, j, found))
        return;
    if (j->reign != s->reign || s->state != LEADING)
        return;
    if (j->result != SIM_COMMIT_DONE) {
        failed(w, s, false);
        return;
    }
    struct sc_ev ev = {.kind = SC_EV_LOOKED_UP, .time = sim_time(w), .looked_up = j->lookup};
    j->lookup = NULL;
    if (sc_region_step(s->core, &ev, NULL))
        abort();
    flush(w, s);
}

static void look_up(struct sim_world *w, void *arg)
{
    struct job *j = arg;
    j->result = sim_record_is_away(w, j->s->index) ? SIM_COMMIT_DOWN : SIM_COMMIT_DONE;
    if (j->result == SIM_COMMIT_DONE)
        sim_record_look_up(w, j->lookup);
    sim_send(w, j->back, sim_delay(w), NULL, found, j);
}

static void submit(struct sim_world *w, struct sim_scheduler *s, struct sc_batch *batch, struct sc_lookup *lookup)
{
    struct job *j = sim_alloc(w, sizeof *j);
    *j = (struct job){s->jobs, s, s->process.life, s->reign, batch, lookup, &s->db->back, SIM_COMMIT_DONE};
    s->jobs = j;
    sim_send(w, &s->db->to, sim_delay(w) + sim_between(w, 200, 2000), NULL, batch ? write : look_up, j);
}

/* ---- Out ---- */

static void sent(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct sim_scheduler *s = p->connection->user;
    struct sc_ev ev = {.time = sim_time(w)};
    struct sc_message *m = p->user;
    if (!s->core || p->number != s->reign)
        return;
    if (m->kind == SC_SEND_EVENT) {
        ev.kind = SC_EV_PUBLISHED;
        ev.published.sequence = m->sequence;
        ev.published.confirmed = outcome == SIM_CONFIRMED;
    } else if (m->kind == SC_SEND_COMMAND && outcome == SIM_RETURNED && *m->host) {
        ev.kind = SC_EV_RETURNED;
        ev.returned.router = m->key;
        ev.returned.host = m->host;
        ev.returned.session = m->session;
    } else {
        return;
    }
    if (sc_region_step(s->core, &ev, NULL))
        abort();
    flush(w, s);
}

static void send_all(struct sim_world *w, struct sim_scheduler *s, struct sc_messages *list)
{
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        struct sim_publish *p = sim_alloc(w, sizeof *p);
        p->message.body = sim_copy(w, m->body->bytes, m->body->len);
        p->message.len = m->body->len;
        p->message.correlation = sim_text(w, m->correlation);
        p->user = sim_copy(w, m, sizeof *m);
        p->done_cb = sent;
        p->number = s->reign;
        if (m->kind == SC_SEND_EVENT) {
            sim_check(w, m->sequence <= w->record->sequence, "I10", "event %" PRId64 " is published before its commit",
                      m->sequence);
            p->message.sequence = m->sequence;
        } else if (m->kind == SC_SEND_VERDICT) {
            p->queue = sim_text(w, m->key);
        } else if (m->kind == SC_SEND_COMMAND) {
            p->queue = sim_join(w, "router.", m->key);
            p->mandatory = true;
        } else {
            p->fanout = true;
        }
        sim_publish(w, s->connection, p);
        sc_message_free(m);
    }
    *list = (struct sc_messages){0};
}

static void timer(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    s->timer_at = UINT64_MAX;
    if (!s->core)
        return;
    struct sc_ev ev = {.kind = SC_EV_TIMER, .time = sim_time(w)};
    if (sc_region_step(s->core, &ev, NULL))
        abort();
    flush(w, s);
}

static void flush_now(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    s->flushing = false;
    if (!s->core)
        return;
    take_held(w, s);
    struct sc_effects out = {0};
    struct hp_error e = {0};
    if (sc_region_flush(s->core, sim_time(w), &out, &e))
        abort();
    for (int i = 0; i < SC_SOURCE_COUNT; i++)
        if (out.acks[i].set)
            sim_ack(w, s->connection, queues[i == SC_SOURCE_REQUESTS ? REQUESTS : REPORTS], out.acks[i].tag);
    send_all(w, s, &out.messages);
    if (out.commit)
        submit(w, s, out.commit, NULL);
    if (out.lookup)
        submit(w, s, NULL, out.lookup);
    assert(!out.fetch); /* the stream is slow here, but never away */
    sc_region_check(s->core);
    uint64_t due = sc_region_deadline(s->core);
    if (due != UINT64_MAX && due * 1000 < s->timer_at) {
        s->timer_at = due * 1000 > w->now ? due * 1000 : w->now + 1;
        sim_after(w, s->timer_at - w->now, &s->process, timer, s);
    }
}

static void flush(struct sim_world *w, struct sim_scheduler *s)
{
    if (s->flushing)
        return;
    s->flushing = true;
    sim_after(w, 20, &s->process, flush_now, s);
}

/* ---- In ---- */

static void take_token(struct sim_world *w, struct sim_scheduler *s, const struct sim_message *m)
{
    if (s->has_token)
        sim_ack(w, s->connection, queues[LEADER], s->token_tag);
    s->has_token = true;
    s->token_tag = m->tag;
    if (s->state == STANDBY)
        take_over(w, s);
}

static void take(struct sim_world *w, struct sim_scheduler *s, int which, const struct sim_message *m)
{
    struct sc_ev ev = {.time = sim_time(w)};
    ProtobufCMessage *message = NULL;
    if (which == REQUESTS) {
        message = sim_unpack(&harpoon__internal__v1__request__descriptor, m->body, m->len);
        ev.kind = SC_EV_REQUEST;
        ev.request.message = (Harpoon__Internal__V1__Request *)message;
        ev.request.tag = m->tag;
        ev.request.reply_to = m->reply_to;
        ev.request.correlation_id = m->correlation;
        sim_trace(w, "%s: request %.8s", s->name, ev.request.message->operation_id);
        message = NULL;
    } else if (which == REPORTS) {
        message = sim_unpack(&harpoon__internal__v1__report__descriptor, m->body, m->len);
        ev.kind = SC_EV_REPORT;
        ev.report.message = (const Harpoon__Internal__V1__Report *)message;
        ev.report.tag = m->tag;
    } else {
        message = sim_unpack(&harpoon__internal__v1__metrics_batch__descriptor, m->body, m->len);
        ev.kind = SC_EV_METRICS;
        ev.metrics = (const Harpoon__Internal__V1__MetricsBatch *)message;
    }
    struct hp_error e = {0};
    if (which != METRICS && w->o->broken == SIM_BREAK_ACK)
        sim_ack(w, s->connection, queues[which], m->tag);
    int rc = sc_region_step(s->core, &ev, &e);
    sim_check(w, rc == 0, "I1", "a message of %s was refused: %s", queues[which], e.message);
    if (message)
        hp_unpacked_free(message);
    flush(w, s);
}

static void take_held(struct sim_world *w, struct sim_scheduler *s)
{
    while (s->held && s->core && !sc_region_congested(s->core)) {
        struct held *h = s->held;
        s->held = h->next;
        take(w, s, h->subscription & 3, &h->message);
    }
}

static void deliver(struct sim_world *w, struct sim_connection *c, int subscription, const struct sim_message *m)
{
    struct sim_scheduler *s = c->user;
    int which = subscription & 3;
    uint32_t number = (uint32_t)subscription >> 2;
    if (which == LEADER) {
        if (s->leader_wanted && number == s->subscribed)
            take_token(w, s, m);
        return;
    }
    if (!s->core || number != s->reign)
        return;
    if (which != METRICS && w->o->broken == SIM_BREAK_REQUEUE && sc_region_congested(s->core)) {
        sim_requeue(w, s->connection, queues[which], m->tag);
        return;
    }
    if (which != METRICS && (s->held || sc_region_congested(s->core))) {
        struct held *h = sim_alloc(w, sizeof *h);
        *h = (struct held){NULL, subscription, *m};
        if (s->held)
            s->held_last->next = h;
        else
            s->held = h;
        s->held_last = h;
        return;
    }
    take(w, s, which, m);
}

/* ---- Taking over ---- */

static void load(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    struct sc_region_config c;
    if (s->state != TAKING)
        return;
    sc_region_config_defaults(&c);
    c.preemption = sim_preempts(w);
    c.preempt_parallel = 2;
    c.running_ms = 120 * 1000;
    c.unknown_ms = 60 * 1000;
    c.remove_retry_ms = 20 * 1000;
    c.restore_ms = 3 * 1000;
    c.recent_max = w->seed % 3 == 0 ? 5 : 50000;
    c.known_max = w->seed % 5 == 0 ? 20 : 500000;
    c.events_max = w->seed % 4 == 1 ? 60 : 1000000;
    c.open_max = w->seed % 3;
    c.backlog_max = w->seed % 7 == 0 ? 20 : 100000;
    s->core = sim_record_take_over(w, s->index, &c, hp_rng_next(&w->rng));
    if (!s->core) {
        failed(w, s, false);
        return;
    }
    s->state = LEADING;
    sim_trace(w, "%s: leads with epoch %" PRId64 ", sequence %" PRId64 ", watermark %" PRId64, s->name,
              w->record->epoch, w->record->sequence, w->record->watermark);
    struct sc_ev ev = {.kind = SC_EV_LEAD, .time = sim_time(w)};
    if (sc_region_step(s->core, &ev, NULL))
        abort();
    for (int i = REQUESTS; i < SUBSCRIPTIONS; i++)
        sim_consume(w, s->connection, queues[i], (int)(i | s->reign << 2), i == METRICS ? 0 : 64);
    flush(w, s);
}

static void take_over(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    if (!s->has_token || (s->state != STANDBY && s->state != WAITING))
        return;
    s->state = TAKING;
    s->reign++;
    s->db = sim_alloc(w, sizeof *s->db);
    sim_after(w, sim_between(w, SIM_MS, 20 * SIM_MS), &s->process, load, s);
}

static void want_leader(struct sim_world *w, struct sim_scheduler *s)
{
    s->leader_wanted = true;
    sim_consume(w, s->connection, queues[LEADER], (int)(LEADER | ++s->subscribed << 2), 10);
}

static void send_token(struct sim_world *w, void *arg);

static void token_sent(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct sim_scheduler *s = p->connection->user;
    if (outcome != SIM_CONFIRMED && s->process.alive && s->connection == p->connection && p->connection->client_up)
        sim_after(w, SIM_S, &s->process, send_token, p->connection);
}

static void send_token(struct sim_world *w, void *arg)
{
    struct sim_connection *c = arg;
    const struct sim_scheduler *s = c->user;
    if (s->connection != c || !c->client_up)
        return;
    struct sim_publish *p = sim_alloc(w, sizeof *p);
    p->queue = queues[LEADER];
    p->message.body = sim_copy(w, s->name, strlen(s->name));
    p->message.len = strlen(s->name);
    p->mandatory = true;
    p->done_cb = token_sent;
    sim_publish(w, c, p);
}

static void connect(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    if (s->state != DOWN)
        return;
    s->connection = sim_connect(w, &s->process, s);
    if (!s->connection) {
        sim_after(w, sim_between(w, 100 * SIM_MS, SIM_S), &s->process, connect, s);
        return;
    }
    s->connection->deliver_cb = deliver;
    s->connection->down_cb = down;
    s->state = STANDBY;
    want_leader(w, s);
    send_token(w, s->connection);
}

/* ---- Life ---- */

static void start(struct sim_world *w, void *arg)
{
    struct sim_scheduler *s = arg;
    if (s->process.alive)
        return;
    s->process.alive = true;
    s->state = DOWN;
    s->timer_at = UINT64_MAX;
    s->leader_wanted = s->has_token = s->fenced = s->flushing = false;
    s->held = NULL;
    connect(w, s);
}

void sim_scheduler_new(struct sim_world *w, int i)
{
    struct sim_scheduler *s = w->schedulers[i] = sim_alloc(w, sizeof *s);
    s->index = i;
    snprintf(s->name, sizeof s->name, "s%d", i);
    s->process.name = s->name;
    start(w, s);
}

bool sim_scheduler_kill(struct sim_world *w, int i, uint64_t restart_after)
{
    struct sim_scheduler *s = w->schedulers[i];
    if (!s->process.alive)
        return false;
    sim_process_die(&s->process);
    s->reign++;
    sc_region_free(s->core);
    s->core = NULL;
    if (s->connection)
        sim_abandon_connection(w, s->connection);
    s->connection = NULL;
    sim_after(w, restart_after, NULL, start, s);
    return true;
}

struct sim_process *sim_scheduler_process(struct sim_world *w, int i)
{
    return &w->schedulers[i]->process;
}

struct sim_connection *sim_scheduler_connection(struct sim_world *w, int i)
{
    return w->schedulers[i]->connection;
}

bool sim_scheduler_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay)
{
    struct sim_connection *c = w->schedulers[i]->connection;
    if (!c || !c->client_up)
        return false;
    sim_break_connection(w, c, client_delay, broker_delay);
    return true;
}

bool sim_scheduler_leads(const struct sim_world *w, int i)
{
    return w->schedulers[i]->state == LEADING && w->schedulers[i]->process.alive;
}

void sim_scheduler_done(struct sim_world *w, int i)
{
    struct sim_scheduler *s = w->schedulers[i];
    sc_region_free(s->core);
    for (struct job *j = s->jobs; j; j = j->next) {
        sc_batch_free(j->batch);
        sc_lookup_free(j->lookup);
    }
}
