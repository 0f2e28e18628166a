/* router.c — a router's process and the connections of hosts to it: the real core, on simulated links. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "sim/sim.h"
#include "wire/frame.h"

struct frame {
    struct frame *next;
    struct sim_link *link;
    const uint8_t *body;
    size_t len;
};

/* Open at an end until that end has noticed. */
struct sim_link {
    struct sim_link *next;
    int host, router;
    struct sim_channel up, down;
    struct er_session *session; /* NULL: not accepted, or gone */
    bool broken;                /* nothing that is on its way arrives */
    bool half_open, paused;
    struct frame *held, *held_last;
};

struct sim_router {
    struct sim_process process;
    int index;
    char name[16], id[32];
    const char *queue;
    struct er_core *core;
    struct sim_connection *connection;
    struct sim_link *links;                             /* all that were dialled in this life */
    bool turning, in_turn, applying, draining, drained; /* turning: it is due */
    uint64_t timer_at;
};

static void apply(struct sim_world *w, struct sim_router *r);
static void turn(struct sim_world *w, void *arg);
static void connect(struct sim_world *w, void *arg);

static uint64_t ms(const struct sim_world *w)
{
    return w->now / 1000;
}

/* ---- Links ---- */

static void host_closed(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    sim_host_closed(w, l->host, l);
}

static void disconnected(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    struct sim_router *r = w->routers[l->router];
    if (!l->session)
        return;
    struct er_session *s = l->session;
    l->session = NULL;
    er_core_disconnected(r->core, ms(w), s);
    apply(w, r);
}

static void hung_up(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    if (!l->half_open)
        disconnected(w, l);
}

static void opened(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    if (!l->broken && !l->half_open)
        sim_host_opened(w, l->host, l, l->session != NULL);
}

static void accepted(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    struct sim_router *r = w->routers[l->router];
    char uri[64];
    if (r->process.paused_until > w->now) { /* the kernel has it, the router not yet */
        sim_after(w, r->process.paused_until - w->now, NULL, accepted, l);
        return;
    }
    snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/h%d", l->host);
    if (r->process.alive && !l->broken) {
        l->session = er_core_connected(r->core, ms(w), l, uri);
        if (l->session) {
            l->next = r->links;
            r->links = l;
        }
        apply(w, r);
    }
    sim_send(w, &l->down, sim_delay(w), sim_host_process(w, l->host), opened, l);
}

struct sim_link *sim_link_dial(struct sim_world *w, int host, int router)
{
    struct sim_link *l = sim_alloc(w, sizeof *l);
    l->host = host;
    l->router = router;
    l->up.stalled_until = l->down.stalled_until = w->cut[host][router]; /* the first packet is sent again and again */
    sim_send(w, &l->up, sim_delay(w), NULL, accepted, l);
    return l;
}

static void take_frame(struct sim_world *w, struct frame *f)
{
    struct sim_router *r = w->routers[f->link->router];
    if (er_core_frame(r->core, ms(w), f->link->session, f->body, f->len))
        f->link->held = f->link->held_last = NULL; /* it is being closed */
    apply(w, r);
}

static void frame_up(struct sim_world *w, void *arg)
{
    struct frame *f = arg;
    struct sim_link *l = f->link;
    if (l->broken || l->half_open || !l->session)
        return;
    if (!l->paused) {
        take_frame(w, f);
        return;
    }
    if (l->held_last)
        l->held_last->next = f;
    else
        l->held = f;
    l->held_last = f;
}

static void resume(struct sim_world *w, void *arg)
{
    struct sim_link *l = arg;
    l->paused = false;
    while (l->held && !l->paused && l->session) {
        struct frame *f = l->held;
        l->held = f->next;
        if (!l->held)
            l->held_last = NULL;
        take_frame(w, f);
    }
}

static struct frame *frame(struct sim_world *w, struct sim_link *l, const uint8_t *body, size_t len)
{
    struct frame *f = sim_alloc(w, sizeof *f);
    f->link = l;
    f->body = sim_copy(w, body, len);
    f->len = len;
    return f;
}

void sim_link_up(struct sim_world *w, struct sim_link *l, const uint8_t *body, size_t len)
{
    sim_send(w, &l->up, sim_delay(w), &w->routers[l->router]->process, frame_up, frame(w, l, body, len));
}

static void frame_down(struct sim_world *w, void *arg)
{
    struct frame *f = arg;
    if (!f->link->broken && !f->link->half_open)
        sim_host_frame(w, f->link->host, f->link, f->body, f->len);
}

void sim_link_hang_up(struct sim_world *w, struct sim_link *l)
{
    sim_send(w, &l->up, sim_delay(w), &w->routers[l->router]->process, hung_up, l);
}

void sim_link_reset(struct sim_world *w, struct sim_link *l)
{
    l->broken = true;
    sim_after(w, sim_delay(w), &w->routers[l->router]->process, disconnected, l);
    sim_after(w, sim_delay(w), sim_host_process(w, l->host), host_closed, l);
}

void sim_link_stall(struct sim_world *w, struct sim_link *l, bool up, uint64_t length)
{
    struct sim_channel *c = up ? &l->up : &l->down;
    if (w->now + length > c->stalled_until)
        c->stalled_until = w->now + length;
}

void sim_link_half_open(struct sim_world *w, struct sim_link *l)
{
    l->half_open = true;
}

bool sim_link_is_sound(const struct sim_world *w, const struct sim_link *l)
{
    return l->session && !l->broken && !l->half_open && l->up.stalled_until <= w->now &&
           l->down.stalled_until <= w->now;
}

/* ---- Effects ---- */

static void published(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct sim_router *r = p->connection->user;
    if (!p->user)
        return;
    er_core_published(r->core, ms(w), p->user, outcome == SIM_CONFIRMED ? ER_CONFIRMED : ER_FAILED);
    apply(w, r);
}

static void publish(struct sim_world *w, struct sim_router *r, const char *queue, const uint8_t *body, size_t len,
                    struct er_report *report)
{
    struct sim_publish *p = sim_alloc(w, sizeof *p);
    p->queue = queue;
    p->message.body = sim_copy(w, body, len);
    p->message.len = len;
    p->mandatory = report != NULL;
    p->done_cb = published;
    p->user = report;
    sim_publish(w, r->connection, p);
}

static void carry_out(struct sim_world *w, struct sim_router *r, const struct er_effect *f)
{
    struct sim_link *l = f->link;
    const uint8_t *bytes;
    size_t len;
    switch (f->kind) {
    case ER_SEND:
        bytes = er_core_bytes(r->core, f->offset);
        sim_send(w, &l->down, sim_delay(w), sim_host_process(w, l->host), frame_down,
                 frame(w, l, bytes + HP_FRAME_HEADER, f->len - HP_FRAME_HEADER));
        break;
    case ER_CLOSE:
        sim_after(w, sim_between(w, 1, 20 * SIM_MS), &r->process, disconnected, l);
        if (!l->half_open)
            sim_send(w, &l->down, sim_delay(w), sim_host_process(w, l->host), host_closed, l);
        break;
    case ER_PAUSE:
        l->paused = true;
        break;
    case ER_RESUME:
        sim_after(w, 1, &r->process, resume, l);
        break;
    case ER_PUBLISH:
        bytes = er_report_body(f->report, &len);
        publish(w, r, "reports.r1", bytes, len, f->report);
        break;
    case ER_PUBLISH_METRICS:
        publish(w, r, "metrics.r1", er_core_bytes(r->core, f->offset), f->len, NULL);
        break;
    case ER_NOTE:
        if (sim_tracing(w)) {
            const char *host = (const char *)er_core_bytes(r->core, f->host);
            sim_trace(w, "%s: %s%s%s%s%s", r->name, f->text, *host ? " " : "", host, f->reason ? ": " : "",
                      f->reason ? f->reason : "");
        }
        break;
    case ER_DRAINED:
        r->drained = true;
        break;
    }
}

static void timer(struct sim_world *w, void *arg)
{
    struct sim_router *r = arg;
    r->timer_at = UINT64_MAX;
    er_core_tick(r->core, ms(w));
    apply(w, r);
}

static void turn(struct sim_world *w, void *arg)
{
    struct sim_router *r = arg;
    r->turning = false;
    r->in_turn = true;
    er_core_end_turn(r->core, ms(w));
    apply(w, r);
    r->in_turn = false;
    if (!r->process.alive)
        return;
    uint64_t due = er_core_deadline(r->core);
    if (due != UINT64_MAX && due * 1000 < r->timer_at) {
        r->timer_at = due * 1000 > w->now ? due * 1000 : w->now + SIM_MS;
        sim_after(w, r->timer_at - w->now, &r->process, timer, r);
    }
}

static void apply(struct sim_world *w, struct sim_router *r)
{
    size_t count;
    assert(!r->applying);
    r->applying = true;
    for (size_t i = 0; (void)er_core_effects(r->core, &count), i < count; i++) {
        struct er_effect f = er_core_effects(r->core, &count)[i];
        carry_out(w, r, &f);
    }
    er_core_effects_done(r->core);
    r->applying = false;
    if (r->drained) {
        (void)sim_router_kill(w, r->index, sim_between(w, 100 * SIM_MS, 2 * SIM_S));
        return;
    }
    if (!r->turning && !r->in_turn) {
        r->turning = true;
        sim_after(w, 30, &r->process, turn, r);
    }
}

/* ---- The broker ---- */

static void deliver(struct sim_world *w, struct sim_connection *c, int subscription, const struct sim_message *m)
{
    struct sim_router *r = c->user;
    er_core_command(r->core, ms(w), m->body, m->len);
    apply(w, r);
}

static void down(struct sim_world *w, struct sim_connection *c)
{
    struct sim_router *r = c->user;
    er_core_broker(r->core, ms(w), false);
    apply(w, r);
    sim_after(w, sim_between(w, 50 * SIM_MS, 800 * SIM_MS), &r->process, connect, r);
}

static void connect(struct sim_world *w, void *arg)
{
    struct sim_router *r = arg;
    struct sim_connection *c = sim_connect(w, &r->process, r);
    if (!c) {
        sim_after(w, sim_between(w, 100 * SIM_MS, SIM_S), &r->process, connect, r);
        return;
    }
    r->connection = c;
    c->deliver_cb = deliver;
    c->down_cb = down;
    r->queue = sim_join(w, "router.", r->id);
    sim_declare(w, c, r->queue);
    sim_consume(w, c, r->queue, 0, 0);
    er_core_broker(r->core, ms(w), true);
    apply(w, r);
    if (r->process.alive)
        turn(w, r);
}

/* ---- Life ---- */

static void start(struct sim_world *w, void *arg)
{
    struct sim_router *r = arg;
    if (r->process.alive)
        return;
    snprintf(r->id, sizeof r->id, "er%d-%08x", r->index, r->process.life);
    struct er_options o = {.router = r->id,
                           .region = "r1",
                           .heartbeat_ms = 5000,
                           .metrics_ms = 5000,
                           .window = 8,
                           .sessions_max = 1000,
                           .attaches_max = 100,
                           .drain_ms = 5000,
                           .check_identity = true,
                           .seed = hp_rng_next(&w->rng)};
    struct hp_error e = {0};
    if (er_core_new(&o, ms(w), &r->core, &e))
        abort();
    r->process.alive = true;
    r->links = NULL;
    r->turning = r->in_turn = r->applying = r->draining = r->drained = false;
    r->timer_at = UINT64_MAX;
    connect(w, r);
}

void sim_router_new(struct sim_world *w, int i)
{
    struct sim_router *r = w->routers[i] = sim_alloc(w, sizeof *r);
    r->index = i;
    snprintf(r->name, sizeof r->name, "er%d", i);
    r->process.name = r->name;
    start(w, r);
}

static void free_core(struct sim_world *w, struct sim_router *r)
{
    if (!r->core)
        return;
    er_core_broker(r->core, ms(w), false);
    for (struct sim_publish *p = r->connection ? r->connection->newest : NULL; p; p = p->older)
        if (p->user)
            er_core_published(r->core, ms(w), p->user, ER_FAILED);
    for (struct sim_link *l = r->links; l; l = l->next)
        if (l->session)
            er_core_disconnected(r->core, ms(w), l->session);
    er_core_effects_done(r->core);
    er_core_free(r->core);
    r->core = NULL;
}

bool sim_router_kill(struct sim_world *w, int i, uint64_t restart_after)
{
    struct sim_router *r = w->routers[i];
    if (!r->process.alive)
        return false;
    free_core(w, r);
    sim_process_die(&r->process);
    if (r->connection)
        sim_abandon_connection(w, r->connection);
    r->connection = NULL;
    for (struct sim_link *l = r->links; l; l = l->next) {
        if (l->session && !l->half_open)
            sim_send(w, &l->down, sim_delay(w), sim_host_process(w, l->host), host_closed, l);
        l->session = NULL;
    }
    sim_after(w, restart_after, NULL, start, r);
    return true;
}

bool sim_router_drain(struct sim_world *w, int i)
{
    struct sim_router *r = w->routers[i];
    if (!r->process.alive || r->draining)
        return false;
    r->draining = true;
    er_core_drain(r->core, ms(w));
    apply(w, r);
    if (r->process.alive)
        turn(w, r);
    return true;
}

struct sim_process *sim_router_process(struct sim_world *w, int i)
{
    return &w->routers[i]->process;
}

struct sim_connection *sim_router_connection(struct sim_world *w, int i)
{
    return w->routers[i]->connection;
}

bool sim_router_sever(struct sim_world *w, int i, uint64_t client_delay, uint64_t broker_delay)
{
    struct sim_connection *c = w->routers[i]->connection;
    if (!c || !c->client_up)
        return false;
    sim_break_connection(w, c, client_delay, broker_delay);
    return true;
}

void sim_router_done(struct sim_world *w, int i)
{
    free_core(w, w->routers[i]);
}
