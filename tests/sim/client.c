/* client.c — internal services and the gateway between them and the broker: the real admission (validation, operation id, digest), confirmed publishes, verdicts.
 * A client repeats a request under the same id until it is answered; some repeat it afterwards, some with another payload. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/change.h"
#include "grpc/status.h"
#include "sim/sim.h"
#include "wire/codec.h"

#define PAYLOAD(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x

struct call {
    int number;
    char id[HP_OPERATION_ID_LEN + 1], name[HP_NAME_MAX + 1];
    char what[160];
    const uint8_t *body;
    size_t len;
    bool accepted, answered, other_payload;
    int code, repeats;
    uint32_t waiting; /* number of the attempt that is waited for */
};

struct sim_gateway {
    struct sim_process process;
    struct sim_connection *connection;
    char reply[64];
    int connections, call_count, call_room;
    struct call **calls;
};

struct attempt {
    struct call *call;
    uint32_t number;
};

static void try(struct sim_world *w, void *arg);

/* ---- The gateway ---- */

static void retry(struct sim_world *w, struct call *c, uint64_t after)
{
    sim_after(w, after, &w->gateway->process, try, c);
}

static void no_verdict(struct sim_world *w, void *arg)
{
    struct attempt *a = arg;
    if (!a->call->answered && a->call->waiting == a->number)
        retry(w, a->call, sim_between(w, 10 * SIM_MS, 500 * SIM_MS));
}

static void published(struct sim_world *w, struct sim_publish *p, enum sim_outcome outcome)
{
    struct call *c = p->user;
    if (outcome != SIM_CONFIRMED) {
        retry(w, c, sim_between(w, 50 * SIM_MS, SIM_S));
        return;
    }
    if (!c->accepted)
        sim_trace(w, "gateway: accepted %d %.8s", c->number, c->id);
    c->accepted = true;
    struct attempt *a = sim_alloc(w, sizeof *a);
    *a = (struct attempt){c, ++c->waiting};
    sim_after(w, 2 * SIM_S, &w->gateway->process, no_verdict, a);
}

static void try(struct sim_world *w, void *arg)
{
    struct call *c = arg;
    struct sim_gateway *g = w->gateway;
    char number[16];
    if (!g->connection || !g->connection->client_up) {
        retry(w, c, sim_between(w, 50 * SIM_MS, SIM_S));
        return;
    }
    struct sim_publish *p = sim_alloc(w, sizeof *p);
    snprintf(number, sizeof number, "%d", c->number);
    snprintf(p->queue, sizeof p->queue, "requests.r1");
    p->message = (struct sim_message){
        .body = c->body, .len = c->len, .reply_to = sim_text(w, g->reply), .correlation = sim_text(w, number)};
    p->mandatory = true;
    p->done_cb = published;
    p->user = c;
    sim_publish(w, g->connection, p);
}

static void deliver(struct sim_world *w, struct sim_connection *connection, int subscription,
                    const struct sim_message *m)
{
    struct sim_gateway *g = w->gateway;
    ProtobufCMessage *message = NULL;
    if (hp_unpack(&harpoon__internal__v1__verdict__descriptor, m->body, m->len, NULL, &message, NULL))
        abort();
    const Harpoon__Internal__V1__Verdict *v = (const Harpoon__Internal__V1__Verdict *)message;
    struct call *c = g->calls[atoi(m->correlation)];
    int code = v->status ? v->status->code : 0;
    if (!c->answered)
        sim_trace(w, "gateway: verdict on %d: %s", c->number, hp_code_name(code));
    if (c->other_payload)
        sim_check(w, code != 0, "I2", "%s was taken although its id was used with another payload", c->what);
    else
        sim_check(w, hp_map_get(&w->record->operations, c->id) != NULL, "I10",
                  "verdict %s on %s (%s), which is not recorded", hp_code_name(code), c->id, c->what);
    c->answered = true;
    c->code = code;
    hp_unpacked_free(message);
    if (!w->healed && c->repeats < 2 && sim_chance(w, 10)) {
        c->repeats++;
        retry(w, c, sim_between(w, 10 * SIM_MS, 10 * SIM_S));
    }
}

static void connect(struct sim_world *w, void *arg);

static void down(struct sim_world *w, struct sim_connection *c)
{
    sim_after(w, sim_between(w, 50 * SIM_MS, 500 * SIM_MS), &w->gateway->process, connect, w->gateway);
}

static void connect(struct sim_world *w, void *arg)
{
    struct sim_gateway *g = arg;
    g->connection = sim_connect(w, &g->process, g);
    if (!g->connection) {
        sim_after(w, sim_between(w, 100 * SIM_MS, SIM_S), &g->process, connect, g);
        return;
    }
    g->connection->deliver_cb = deliver;
    g->connection->down_cb = down;
    snprintf(g->reply, sizeof g->reply, "reply.gw-%d", ++g->connections);
    sim_declare(w, g->connection, g->reply);
    sim_consume(w, g->connection, g->reply, 0, 0);
}

void sim_gateway_new(struct sim_world *w)
{
    struct sim_gateway *g = w->gateway = sim_alloc(w, sizeof *g);
    g->process = (struct sim_process){.name = "gateway", .alive = true};
    connect(w, g);
}

void sim_gateway_sever(struct sim_world *w)
{
    if (w->gateway->connection && w->gateway->connection->client_up)
        sim_break_connection(w, w->gateway->connection, sim_between(w, 0, 2 * SIM_S), sim_between(w, 0, 2 * SIM_S));
}

/* ---- Calls ---- */

static struct call *call_new(struct sim_world *w, int kind, const ProtobufCMessage *payload, const char *what)
{
    static const char *const names[] = {"r1"};
    static const struct gw_regions regions = {names, 1};
    static char who_name[] = "client";
    static struct gw_principal who = {.name = who_name, .role = GW_ADMIN, .all_projects = true};
    struct sim_gateway *g = w->gateway;
    struct gw_prepared p;
    Google__Rpc__Status *status = NULL;
    if (gw_prepare(&regions, &who, (Harpoon__Internal__V1__Request__PayloadCase)kind, payload, sim_time(w).wall_ns,
                   &w->rng, &p, &status)) {
        fprintf(stderr, "%s: %s\n", what, status ? status->message : "out of memory");
        abort();
    }
    if (g->call_count == g->call_room) {
        g->call_room = g->call_room ? 2 * g->call_room : 256;
        g->calls = realloc(g->calls, (size_t)g->call_room * sizeof *g->calls);
    }
    struct call *c = sim_alloc(w, sizeof *c);
    c->number = g->call_count;
    strcpy(c->id, p.operation_id);
    strcpy(c->name, p.operation_name);
    snprintf(c->what, sizeof c->what, "%s", what);
    c->body = sim_copy(w, p.body, p.body_len);
    c->len = p.body_len;
    gw_prepared_done(&p);
    g->calls[g->call_count++] = c;
    sim_trace(w, "client: %d %s is %.8s", c->number, what, c->id);
    return c;
}

static struct call *create(struct sim_world *w, char *name, char *request_id, int64_t cpu, int64_t memory)
{
    Harpoon__V1__CreateContainerRequest q = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    char what[160];
    q.parent = (char *)(uintptr_t) "projects/p/regions/r1";
    q.container_id = name;
    q.request_id = request_id;
    q.container = &c;
    c.spec = &spec;
    spec.image = (char *)(uintptr_t) "oci:/images:busybox";
    spec.resources = &x;
    x.cpu_millis = cpu;
    x.memory_bytes = memory;
    snprintf(what, sizeof what, "create %s cpu %d", name, (int)cpu);
    return call_new(w, PAYLOAD(CREATE), &q.base, what);
}

static struct call *resize(struct sim_world *w, char *full, char *request_id, int64_t cpu, int64_t memory)
{
    Harpoon__V1__ResizeContainerRequest q = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    char what[160];
    q.name = full;
    q.resources = &x;
    q.request_id = request_id;
    x.cpu_millis = cpu;
    x.memory_bytes = memory;
    snprintf(what, sizeof what, "resize %.100s cpu %d", full, (int)cpu);
    return call_new(w, PAYLOAD(RESIZE), &q.base, what);
}

/* Start, stop, restart, delete: one shape. */
static struct call *simple(struct sim_world *w, int kind, char *full, char *request_id)
{
    static const ProtobufCMessageDescriptor *const of[] = {
        &harpoon__v1__start_container_request__descriptor, &harpoon__v1__stop_container_request__descriptor,
        &harpoon__v1__restart_container_request__descriptor, &harpoon__v1__delete_container_request__descriptor};
    Harpoon__V1__StartContainerRequest q;
    const ProtobufCMessageDescriptor *d = of[kind - PAYLOAD(START)];
    char what[160];
    d->message_init(&q.base);
    q.name = full;
    q.request_id = request_id;
    snprintf(what, sizeof what, "%s %.100s", d->short_name, full);
    return call_new(w, kind, &q.base, what);
}

static struct call *cancel(struct sim_world *w, const struct call *target, char *request_id)
{
    Harpoon__V1__CancelOperationRequest q = HARPOON__V1__CANCEL_OPERATION_REQUEST__INIT;
    char what[160];
    q.name = (char *)(uintptr_t)target->name;
    q.request_id = request_id;
    snprintf(what, sizeof what, "cancel %d", target->number);
    return call_new(w, PAYLOAD(CANCEL), &q.base, what);
}

void sim_client_act(struct sim_world *w)
{
    static const int verbs[] = {PAYLOAD(START), PAYLOAD(STOP), PAYLOAD(RESTART), PAYLOAD(DELETE), PAYLOAD(DELETE)};
    struct sim_gateway *g = w->gateway;
    char name[16], full[64], request_id[32];
    int64_t cpu = 200 + 100 * (int64_t)sim_below(w, 30), memory = (int64_t)(1 + sim_below(w, 24)) << 26;
    uint64_t what = sim_below(w, 100);
    struct call *c;
    snprintf(name, sizeof name, "c%d", (int)sim_below(w, SIM_NAMES));
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    snprintf(request_id, sizeof request_id, "request-%d", g->call_count);
    const struct call *old = g->call_count ? g->calls[sim_below(w, (uint64_t)g->call_count)] : NULL;
    if (what < 4 && old && old->accepted && !old->other_payload) {
        snprintf(request_id, sizeof request_id, "request-%d", old->number);
        c = create(w, name, request_id, 7777, 1 << 27);
        c->other_payload = true;
    } else if (what < 9 && old) {
        c = cancel(w, old, request_id);
    } else if (what < 45) {
        c = create(w, name, request_id, cpu, memory);
    } else if (what < 65) {
        c = resize(w, full, request_id, cpu, memory);
    } else {
        c = simple(w, verbs[sim_below(w, 5)], full, request_id);
    }
    try(w, c);
}

/* ---- At the end ---- */

bool sim_clients_done(const struct sim_world *w)
{
    for (int i = 0; i < w->gateway->call_count; i++)
        if (!w->gateway->calls[i]->answered)
            return false;
    return true;
}

void sim_clients_check(struct sim_world *w)
{
    for (int i = 0; i < w->gateway->call_count; i++) {
        const struct call *c = w->gateway->calls[i];
        const struct sim_operation_row *row = hp_map_get(&w->record->operations, c->id);
        sim_check(w, row != NULL, "I1", "%s (%s) was accepted and is not recorded", c->id, c->what);
        if (row)
            sim_check(w, !row->active && row->ends == 1, "I1", "%s (%s) is in stage %d and has ended %d times", c->id,
                      c->what, row->stage, row->ends);
    }
}

void sim_clients_give_up_waiting(struct sim_world *w)
{
    char request_id[32];
    for (int i = 0, n = w->gateway->call_count; i < n; i++) {
        const struct call *c = w->gateway->calls[i];
        const struct sim_operation_row *row = hp_map_get(&w->record->operations, c->id);
        if (!row || !row->active || row->verb != HARPOON__V1__VERB__VERB_CREATE || c->other_payload ||
            row->stage != HARPOON__V1__STAGE__STAGE_RECORDED)
            continue;
        snprintf(request_id, sizeof request_id, "request-%d", w->gateway->call_count);
        try(w, cancel(w, c, request_id));
    }
}

void sim_gateway_done(struct sim_world *w)
{
    free(w->gateway->calls);
}
