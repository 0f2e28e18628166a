/* gateway.c — a gateway's process as far as changes go: the real admission and verdict cores, between clients and the broker. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/status.h"
#include "sim/gateway.h"
#include "wire/codec.h"

enum { PENDING_MAX = 1000, VERDICT_MS = 2000 };

static void connect(struct sim_world *w, void *arg);

/* ---- Timers ---- */

static void timer(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    g->timer_at = UINT64_MAX;
    gw_timers_run(&g->timers, w->now / 1000);
    sim_gateway_timers(w, g);
}

void sim_gateway_timers(struct sim_world *w, struct sim_gateway *g)
{
    uint64_t due = gw_timers_next_ms(&g->timers);
    if (due == UINT64_MAX || due * 1000 >= g->timer_at)
        return;
    g->timer_at = due * 1000 > w->now ? due * 1000 : w->now + 1;
    sim_after(w, g->timer_at - w->now, &g->process, timer, g);
}

/* ---- Answers ---- */

static void answer_arrived(struct sim_world *w, void *arg)
{
    struct sim_change *c = arg;
    c->answer_cb(w, c);
}

static void leave(struct sim_change *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->gateway->changes = c->next;
    if (c->next)
        c->next->prev = c->prev;
    gw_prepared_done(&c->change);
}

static void answer(struct sim_change *c, int code, const char *reason, const Harpoon__V1__Operation *o)
{
    struct sim_world *w = c->gateway->world;
    c->code = code;
    c->reason = sim_text(w, reason);
    c->name = o ? sim_text(w, o->name) : NULL;
    c->stage = o ? (int)o->stage : 0;
    sim_after(w, sim_delay(w), NULL, answer_arrived, c);
}

static void answer_status(struct sim_change *c, Google__Rpc__Status *status)
{
    char reason[64];
    assert(status);
    hp_status_reason(status, reason, sizeof reason);
    answer(c, status->code, reason, NULL);
    hp_status_free(status);
}

static void decided(struct gw_pending *p, const ProtobufCMessage *message, Google__Rpc__Status *status)
{
    struct sim_change *c = (struct sim_change *)((char *)p - offsetof(struct sim_change, pending));
    c->pending_on = false;
    if (!message) {
        answer_status(c, status);
        return;
    }
    bool operation = message->descriptor == &harpoon__v1__operation__descriptor;
    answer(c, 0, "", operation ? (const Harpoon__V1__Operation *)message : NULL);
}

/* ---- The broker ---- */

static void published(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    static const enum gw_published of[] = {[SIM_CONFIRMED] = GW_PUBLISHED,
                                           [SIM_REJECTED] = GW_QUEUE_FULL,
                                           [SIM_RETURNED] = GW_NO_QUEUE,
                                           [SIM_UNAVAILABLE] = GW_NOT_SENT,
                                           [SIM_UNKNOWN] = GW_OUTCOME_UNKNOWN};
    struct sim_change *c = p->user;
    if ((outcome == SIM_UNKNOWN && w->o->broken == SIM_BREAK_UNKNOWN) ||
        (outcome == SIM_RETURNED && w->o->broken == SIM_BREAK_RETURNED))
        outcome = SIM_CONFIRMED;
    if (outcome == SIM_CONFIRMED)
        sim_trace(w, "%s: accepted %.8s", c->gateway->name, c->change.operation_id);
    if (c->pending_on)
        gw_pending_published(&c->pending, of[outcome], "r1");
    leave(c);
}

static void send(struct sim_world *w, struct sim_change *c)
{
    struct sim_gateway *g = c->gateway;
    struct sim_publish *p = sim_alloc(w, sizeof *p);
    p->queue = "requests.r1";
    p->message = (struct sim_message){.body = sim_copy(w, c->change.body, c->change.body_len),
                                      .len = c->change.body_len,
                                      .id = sim_text(w, c->change.operation_id),
                                      .reply_to = g->reply,
                                      .correlation = sim_text(w, c->pending.correlation)};
    p->mandatory = w->o->broken != SIM_BREAK_MANDATORY;
    p->done_cb = published;
    p->user = c;
    sim_publish(w, g->connection, p);
}

static void deliver(struct sim_world *w, struct sim_connection *connection, int subscription,
                    const struct sim_message *m)
{
    struct sim_gateway *g = connection->user;
    Harpoon__Internal__V1__Verdict *v = sim_unpack(&harpoon__internal__v1__verdict__descriptor, m->body, m->len);
    if (gw_verdicts_arrived(&g->verdicts, m->correlation, v))
        sim_trace(w, "%s: verdict on %.8s: %s", g->name, v->operation_id,
                  hp_code_name(v->status ? v->status->code : 0));
    hp_unpacked_free(&v->base);
}

static void down(struct sim_world *w, struct sim_connection *c)
{
    struct sim_gateway *g = c->user;
    sim_after(w, sim_between(w, 50 * SIM_MS, 500 * SIM_MS), &g->process, connect, g);
}

static void connect(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    struct sim_connection *c = sim_connect(w, &g->process, g);
    char reply[64];
    if (!c) {
        sim_after(w, sim_between(w, 100 * SIM_MS, SIM_S), &g->process, connect, g);
        return;
    }
    g->connection = c;
    c->deliver_cb = deliver;
    c->down_cb = down;
    snprintf(reply, sizeof reply, "reply.%s-%d", g->name, ++g->connections);
    g->reply = sim_text(w, reply);
    sim_declare(w, c, g->reply);
    sim_consume(w, c, g->reply, 0, 0);
}

/* ---- Changes ---- */

static void change_arrived(struct sim_world *w, void *arg)
{
    static const char *const names[] = {"r1"};
    static const struct gw_regions regions = {names, 1};
    static char who_name[] = "client";
    static struct gw_principal who = {.name = who_name, .role = GW_ADMIN, .all_projects = true};
    struct sim_change *c = arg;
    struct sim_gateway *g = c->gateway;
    Google__Rpc__Status *status = NULL;
    if (gw_prepare(&regions, &who, (Harpoon__Internal__V1__Request__PayloadCase)c->kind, c->payload,
                   sim_time(w).wall_ns, &w->rng, &c->change, &status)) {
        fprintf(stderr, "refused by the gateway: %s\n", status ? status->message : "out of memory");
        abort();
    }
    c->next = g->changes;
    c->prev = NULL;
    if (c->next)
        c->next->prev = c;
    g->changes = c;
    if (!g->connection) {
        answer_status(c, gw_published_status(GW_NOT_SENT, "r1"));
        leave(c);
        return;
    }
    c->pending.change = &c->change;
    c->pending.done_cb = decided;
    if (gw_pending_add(&g->verdicts, &c->pending, w->now / 1000 + VERDICT_MS))
        abort();
    c->pending_on = true;
    send(w, c);
    sim_gateway_timers(w, g);
}

static void refused(struct sim_world *w, void *arg)
{
    struct sim_change *c = arg;
    c->code = HP_CODE_UNAVAILABLE;
    c->reason = "CONNECTION_REFUSED";
    c->answer_cb(w, c);
}

void sim_gateway_change(struct sim_world *w, int gateway, struct sim_change *c)
{
    struct sim_gateway *g = c->gateway = w->gateways[gateway];
    if (g->process.alive)
        sim_after(w, sim_delay(w), &g->process, change_arrived, c);
    else
        sim_after(w, sim_delay(w), NULL, refused, c);
}

/* ---- Life ---- */

static void start(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    if (g->process.alive)
        return;
    g->process.alive = true;
    g->timer_at = UINT64_MAX;
    gw_timers_init(&g->timers);
    gw_verdicts_init(&g->verdicts, &g->timers, PENDING_MAX, (uint64_t)g->index + 11);
    g->changes = NULL;
    connect(w, g);
    sim_feeds_start(w, g);
}

void sim_gateway_new(struct sim_world *w, int i)
{
    struct sim_gateway *g = w->gateways[i] = sim_alloc(w, sizeof *g);
    g->world = w;
    g->index = i;
    snprintf(g->name, sizeof g->name, "gw%d", i);
    g->process.name = g->name;
    start(w, g);
}

static void free_cores(struct sim_gateway *g)
{
    if (!g->process.alive)
        return;
    sim_feeds_free(g);
    while (g->changes) {
        if (g->changes->pending_on)
            gw_pending_drop(&g->changes->pending);
        leave(g->changes);
    }
    gw_verdicts_done(&g->verdicts);
    gw_timers_done(&g->timers);
}

bool sim_gateway_kill(struct sim_world *w, int i, uint64_t restart_after)
{
    struct sim_gateway *g = w->gateways[i];
    if (!g->process.alive)
        return false;
    sim_feeds_died(w, g);
    free_cores(g);
    sim_process_die(&g->process);
    if (g->connection)
        sim_abandon_connection(w, g->connection);
    g->connection = NULL;
    sim_after(w, restart_after, NULL, start, g);
    return true;
}

bool sim_gateway_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay)
{
    struct sim_connection *c = w->gateways[i]->connection;
    if (!c || !c->client_up)
        return false;
    sim_break_connection(w, c, client_delay, broker_delay);
    return true;
}

struct sim_process *sim_gateway_process(struct sim_world *w, int i)
{
    return &w->gateways[i]->process;
}

struct sim_connection *sim_gateway_connection(struct sim_world *w, int i)
{
    return w->gateways[i]->connection;
}

void sim_gateway_done(struct sim_world *w, int i)
{
    free_cores(w->gateways[i]);
}
