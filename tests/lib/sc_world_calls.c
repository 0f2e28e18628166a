/* sc_world_calls.c — what reaches the scheduler in sc_world.c: requests of clients, reports of hosts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "grpc/status.h"
#include "lib/sc_world.h"
#include "wire/codec.h"
#include "wire/names.h"

#define MIB (1LL << 20)

/* ---- Requests ---- */

void scw_request(struct scw *w, unsigned id, Harpoon__Internal__V1__Request *q)
{
    char hex[33], request_id[32];
    uint8_t digest[32] = {0};
    snprintf(hex, sizeof hex, "%032x", id);
    snprintf(request_id, sizeof request_id, "request-%u", id);
    q->operation_id = hex;
    q->region = (char *)"r1";
    q->request_id = request_id;
    q->principal = (char *)"tester";
    /* Stands for the hash of the payload. */
    Harpoon__Internal__V1__Request payload = HARPOON__INTERNAL__V1__REQUEST__INIT;
    payload.payload_case = q->payload_case;
    payload.create = q->create;
    size_t len = harpoon__internal__v1__request__get_packed_size(&payload);
    uint8_t *buf = malloc(len + 1);
    harpoon__internal__v1__request__pack(&payload, buf);
    for (size_t i = 0; i < len; i++)
        digest[i % 32] = (uint8_t)(digest[i % 32] * 31 + buf[i]);
    free(buf);
    q->payload_digest.data = digest;
    q->payload_digest.len = 32;
    struct sc_ev ev = {.kind = SC_EV_REQUEST,
                       .request = {.message = (Harpoon__Internal__V1__Request *)(void *)hp_message_clone(&q->base),
                                   .tag = ++w->tag,
                                   .reply_to = "q",
                                   .correlation_id = "c"}};
    assert_non_null(ev.request.message);
    scw_step(w, &ev);
    scw_flush(w);
}

static void full_name(char out[256], const char *name)
{
    hp_container_name_format(out, "p", "r1", name);
}

void scw_create_spec(struct scw *w, unsigned id, const char *name, Harpoon__V1__ContainerSpec *spec, int deadline_s)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container body = HARPOON__V1__CONTAINER__INIT;
    body.spec = spec;
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = (char *)name;
    c.container = &body;
    c.deadline_seconds = deadline_s;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &c;
    scw_request(w, id, &q);
}

void scw_create(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    x.cpu_millis = cpu;
    x.memory_bytes = memory_mib * MIB;
    spec.resources = &x;
    spec.image = (char *)"oci:/images:busybox";
    scw_create_spec(w, id, name, &spec, 0);
}

void scw_place(struct scw *w, unsigned id, Harpoon__V1__PlacementSpec *placement)
{
    char name[16];
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    snprintf(name, sizeof name, "c%u", id);
    x.cpu_millis = 100;
    x.memory_bytes = 64 * MIB;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.placement = placement;
    scw_create_spec(w, id, name, &spec, 0);
}

void scw_resize(struct scw *w, unsigned id, const char *name, int64_t cpu, int64_t memory_mib, const char *etag)
{
    char full[256];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ResizeContainerRequest c = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    full_name(full, name);
    x.cpu_millis = cpu;
    x.memory_bytes = memory_mib * MIB;
    c.name = full;
    c.resources = &x;
    c.etag = (char *)etag;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE;
    q.resize = &c;
    scw_request(w, id, &q);
}

void scw_verb(struct scw *w, unsigned id, Harpoon__Internal__V1__Request__PayloadCase verb, const char *name,
              const char *etag)
{
    char full[256];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__StartContainerRequest start = HARPOON__V1__START_CONTAINER_REQUEST__INIT;
    Harpoon__V1__StopContainerRequest stop = HARPOON__V1__STOP_CONTAINER_REQUEST__INIT;
    Harpoon__V1__RestartContainerRequest restart = HARPOON__V1__RESTART_CONTAINER_REQUEST__INIT;
    Harpoon__V1__DeleteContainerRequest del = HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__MoveContainerRequest move = HARPOON__V1__MOVE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__CordonHostRequest cordon = HARPOON__V1__CORDON_HOST_REQUEST__INIT;
    Harpoon__V1__UncordonHostRequest uncordon = HARPOON__V1__UNCORDON_HOST_REQUEST__INIT;
    Harpoon__V1__DrainHostRequest drain = HARPOON__V1__DRAIN_HOST_REQUEST__INIT;
    Harpoon__V1__DeclareHostLostRequest lost = HARPOON__V1__DECLARE_HOST_LOST_REQUEST__INIT;
    assert_true(verb != HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_ADOPT);
    bool of_host =
        verb >= HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON && verb != HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE;
    if (of_host)
        hp_host_name_format(full, "r1", name);
    else
        full_name(full, name);
    q.project = of_host ? (char *)"" : (char *)"p";
    q.payload_case = verb;
    start.name = stop.name = restart.name = del.name = cordon.name = uncordon.name = drain.name = lost.name = full;
    move.name = full;
    start.etag = stop.etag = restart.etag = del.etag = move.etag = (char *)etag;
    switch (verb) {
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START:
        q.start = &start;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP:
        q.stop = &stop;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART:
        q.restart = &restart;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE:
        q.delete_ = &del;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE:
        q.move = &move;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON:
        q.cordon = &cordon;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UNCORDON:
        q.uncordon = &uncordon;
        break;
    case HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DRAIN:
        q.drain = &drain;
        break;
    default:
        q.declare_lost = &lost;
    }
    scw_request(w, id, &q);
}

void scw_adopt(struct scw *w, unsigned id, const char *host, const char *uid)
{
    char full[256];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__AdoptContainerRequest a = HARPOON__V1__ADOPT_CONTAINER_REQUEST__INIT;
    hp_host_name_format(full, "r1", host);
    a.name = full;
    a.uid = (char *)uid;
    q.project = (char *)"";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_ADOPT;
    q.adopt = &a;
    scw_request(w, id, &q);
}

void scw_cancel(struct scw *w, unsigned id, unsigned target)
{
    char name[256], hex[33];
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CancelOperationRequest c = HARPOON__V1__CANCEL_OPERATION_REQUEST__INIT;
    snprintf(hex, sizeof hex, "%032x", target);
    hp_operation_name_format(name, "p", "r1", hex);
    c.name = name;
    q.project = (char *)"p";
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CANCEL;
    q.cancel = &c;
    scw_request(w, id, &q);
}

/* ---- Reports ---- */

void scw_report(struct scw *w, const char *host, Harpoon__Internal__V1__Report *m)
{
    m->region = (char *)"r1";
    m->host = (char *)host;
    if (!*m->router)
        m->router = (char *)"er1";
    struct sc_ev ev = {.kind = SC_EV_REPORT, .report = {.message = m, .tag = ++w->tag}};
    scw_step(w, &ev);
    scw_flush(w);
}

void scw_attach_digest(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib, int32_t count,
                       uint64_t digest)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    all.cpu_millis = cpu;
    all.memory_bytes = memory_mib * MIB;
    all.disk_bytes = 1LL << 40;
    d.count = count;
    d.digest = digest;
    hello.session = session;
    hello.allocatable = &all;
    hello.digest = &d;
    hello.facts = (Harpoon__V1__HostFacts *)(uintptr_t)w->facts;
    hello.zone = (char *)"z1";
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

void scw_attach(struct scw *w, const char *host, int64_t session, int64_t cpu, int64_t memory_mib)
{
    scw_attach_digest(w, host, session, cpu, memory_mib, 0, 0);
}

void scw_detach(struct scw *w, const char *host, int64_t session)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Detach d = HARPOON__INTERNAL__V1__DETACH__INIT;
    d.reason = (char *)"connection_lost";
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_DETACH;
    m.detach = &d;
    scw_report(w, host, &m);
}

void scw_journalled(struct scw *w, const char *host, const char *uid, int64_t generation)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandJournalled j = HARPOON__INTERNAL__V1__COMMAND_JOURNALLED__INIT;
    j.uid = (char *)uid;
    j.generation = generation;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED;
    m.journalled = &j;
    scw_report(w, host, &m);
}

void scw_inventory(struct scw *w, const char *host, int64_t session, Harpoon__Internal__V1__InventoryItem **items,
                   size_t count)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Inventory x = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    for (size_t i = w->command_count; i > 0 && !x.request_id; i--)
        if (!strcmp(w->commands[i - 1].host, host) && w->commands[i - 1].verb == 0)
            x.request_id = w->commands[i - 1].request_id;
    assert_true(x.request_id > 0); /* it was asked for */
    x.items = items;
    x.n_items = count;
    x.last = true;
    m.session = session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY;
    m.inventory = &x;
    scw_report(w, host, &m);
}

void scw_result(struct scw *w, const char *host, const char *uid, int64_t generation,
                Harpoon__Internal__V1__CommandOutcome outcome, int state, const char *error)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    x.uid = (char *)uid;
    x.generation = generation;
    x.outcome = outcome;
    if (state) {
        s.state = (Harpoon__V1__ContainerState)state;
        s.observed_generation = generation;
        x.status = &s;
    }
    if (error) {
        status.code = HP_CODE_INTERNAL;
        status.message = (char *)error;
        x.error = &status;
    }
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    scw_report(w, host, &m);
}

void scw_done(struct scw *w, const char *host, const char *uid, int64_t generation)
{
    scw_result(w, host, uid, generation, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE,
               HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING, NULL);
}

void scw_observe(struct scw *w, const char *host, const char *uid, int64_t generation, int state, const char *kind)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Observation x = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    s.state = (Harpoon__V1__ContainerState)state;
    x.uid = (char *)uid;
    x.generation = generation;
    x.status = &s;
    x.kind = (char *)kind;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION;
    m.observation = &x;
    scw_report(w, host, &m);
}

const char *scw_uid(struct scw *w, const char *name)
{
    char full[256];
    full_name(full, name);
    const struct scw_row *row = scw_find(&w->containers, full);
    assert_non_null(row);
    return row->uid;
}
