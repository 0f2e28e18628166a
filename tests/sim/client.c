/* client.c — internal services: what they ask for, and what they hold the answers against. A client repeats a request under the same id until it is answered; some repeat it afterwards, some
 * with another payload. An answer that says ACCEPTED is believed: nothing is sent again, and the operation must come to its end by itself. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/status.h"
#include "sim/gateway.h"
#include "wire/codec.h"

#define PAYLOAD(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x

enum { ANSWER_MS = 9000 };

struct call {
    int number;
    char id[HP_OPERATION_ID_LEN + 1];
    char what[160];
    int kind, verb;
    ProtobufCMessage *payload; /* heap */
    bool answered, other_payload, dry_run, forgotten;
    int repeats, attempts;
};

struct sim_clients {
    int call_count, call_room, count; /* count: those that make an operation */
    struct call **calls;
};

struct attempt {
    struct sim_change change;
    struct call *call;
    int number;
};

static void try(struct sim_world *w, void *arg);

static void retry(struct sim_world *w, struct call *c, uint64_t after)
{
    sim_after(w, after, NULL, try, c);
}

static void no_answer(struct sim_world *w, void *arg)
{
    struct attempt *a = arg;
    if (!a->call->answered && a->call->attempts == a->number)
        try(w, a->call);
}

/* Nothing was decided, or nobody knows. */
static bool undecided(const char *reason)
{
    static const char *const reasons[] = {"CONNECTION_REFUSED",  "QUEUE_FULL",      "BROKER_UNAVAILABLE",
                                          "REGION_HAS_NO_QUEUE", "OUTCOME_UNKNOWN", "SCHEDULER_SILENT"};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (!strcmp(reason, reasons[i]))
            return true;
    return false;
}

static void check_answer(struct sim_world *w, const struct call *c, const struct sim_change *x)
{
    bool recorded = hp_map_get(&w->record->tables.operations, c->id) != NULL;
    if (c->forgotten)
        return; /* was said before, or is said of another life of its id */
    if (c->other_payload) {
        sim_check(w, x->code != 0 || x->stage == HARPOON__V1__STAGE__STAGE_ACCEPTED, "I2",
                  "%s was taken although its id was used with another payload", c->what);
    } else if (c->dry_run) {
        sim_check(w, !recorded, "I2", "%s (%s) was to be checked only, and is recorded", c->id, c->what);
    } else if (x->code == 0 && x->stage == HARPOON__V1__STAGE__STAGE_ACCEPTED) {
        sim_check(w, sim_broker_has_request(w, c->id), "I10", "%s (%s) was accepted, and the broker never had it",
                  c->id, c->what);
    } else {
        sim_check(w, recorded, "I10", "answer %s on %s (%s), which is not recorded", hp_code_name(x->code), c->id,
                  c->what);
        const char *id = x->name ? strrchr(x->name, '/') : NULL;
        sim_check(w, !id || c->kind == PAYLOAD(CANCEL) || !strcmp(id + 1, c->id), "I2",
                  "%s (%s) was answered with operation %s", c->id, c->what, x->name);
    }
}

static void answered(struct sim_world *w, struct sim_change *x)
{
    struct attempt *a = x->user;
    struct call *c = a->call;
    sim_trace(w, "client: %d %s: %s%s%s", c->number, c->answered ? "again" : "answer", hp_code_name(x->code),
              *x->reason ? " " : "", x->reason);
    if (undecided(x->reason)) {
        if (!c->answered && c->attempts == a->number)
            retry(w, c, sim_between(w, 50 * SIM_MS, SIM_S));
        return;
    }
    check_answer(w, c, x);
    if (!c->answered && !x->code && x->name && !c->other_payload && !c->dry_run && sim_chance(w, 30))
        sim_reader_wait(w, x->name);
    c->answered = true;
    if (!w->healed && c->repeats < 2 && sim_chance(w, 10)) {
        c->repeats++;
        retry(w, c, sim_between(w, 10 * SIM_MS, 10 * SIM_S));
    }
}

static void try(struct sim_world *w, void *arg)
{
    struct call *c = arg;
    struct attempt *a = sim_alloc(w, sizeof *a);
    a->call = c;
    a->number = ++c->attempts;
    a->change.kind = c->kind;
    a->change.payload = c->payload;
    a->change.user = a;
    a->change.answer_cb = answered;
    sim_gateway_change(w, (int)sim_below(w, (uint64_t)w->size.gateways), &a->change);
    sim_after(w, ANSWER_MS * SIM_MS, NULL, no_answer, a);
}

/* ---- Calls ---- */

static struct call *call_new(struct sim_world *w, int kind, const ProtobufCMessage *payload, const char *project,
                             const char *request_id, const char *what)
{
    struct sim_clients *g = w->clients;
    if (g->call_count == g->call_room) {
        g->call_room = g->call_room ? 2 * g->call_room : 256;
        g->calls = realloc(g->calls, (size_t)g->call_room * sizeof *g->calls);
    }
    struct call *c = sim_alloc(w, sizeof *c);
    c->number = g->call_count;
    c->kind = kind;
    snprintf(c->what, sizeof c->what, "%s", what);
    c->payload = hp_message_clone(payload);
    hp_operation_id(c->id, project, request_id);
    g->calls[g->call_count++] = c;
    g->count++;
    sim_trace(w, "client: %d %s is %.8s", c->number, what, c->id);
    return c;
}

struct size {
    int64_t cpu, memory;
};

/* Two of three. */
static bool may_move(const char *name)
{
    return atoi(name + 1) % 3 > 0;
}

/* Of those with a number, the ones that may not move have a volume in a storage class, ever the same for a name: two of a kind fill a host. */
static void add_volume(Harpoon__V1__ContainerSpec *spec, const char *name, Harpoon__V1__VolumeMount *v,
                       Harpoon__V1__VolumeMount **list)
{
    int number = atoi(name + 1);
    harpoon__v1__volume_mount__init(v);
    list[0] = v;
    v->volume = (char *)(uintptr_t) "data";
    v->path = (char *)(uintptr_t) "/data";
    v->storage_class = (char *)(uintptr_t)(number % 2 ? "fast" : "bulk");
    v->size_bytes = (number % 2 ? 4LL : 10LL) << 30;
    spec->volumes = list;
    spec->n_volumes = number && !may_move(name);
}

static struct call *create(struct sim_world *w, char *name, char *request_id, struct size size, bool dry_run)
{
    Harpoon__V1__CreateContainerRequest q = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__PlacementSpec placement;
    Harpoon__V1__VolumeMount volume, *volumes[1];
    char what[160];
    q.parent = (char *)(uintptr_t) "projects/p/regions/r1";
    q.container_id = name;
    q.request_id = request_id;
    q.container = &c;
    q.validate_only = dry_run;
    c.spec = &spec;
    spec.image = (char *)(uintptr_t) "oci:/images:busybox";
    spec.resources = &x;
    spec.stateless = may_move(name);
    if (sim_preempt_placement(w, name, &placement))
        spec.placement = &placement;
    add_volume(&spec, name, &volume, volumes);
    x.cpu_millis = size.cpu;
    x.memory_bytes = size.memory;
    snprintf(what, sizeof what, "%s %s cpu %d", dry_run ? "check" : "create", name, (int)size.cpu);
    struct call *call = call_new(w, PAYLOAD(CREATE), &q.base, "p", request_id, what);
    call->dry_run = dry_run;
    return call;
}

static struct call *resize(struct sim_world *w, char *full, char *request_id, struct size size)
{
    Harpoon__V1__ResizeContainerRequest q = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    char what[160];
    q.name = full;
    q.resources = &x;
    q.request_id = request_id;
    x.cpu_millis = size.cpu;
    x.memory_bytes = size.memory;
    snprintf(what, sizeof what, "resize %.100s cpu %d", strrchr(full, '/') + 1, (int)size.cpu);
    return call_new(w, PAYLOAD(RESIZE), &q.base, "p", request_id, what);
}

static struct call *update(struct sim_world *w, char *full, char *request_id, struct size size, const char *image)
{
    Harpoon__V1__UpdateContainerRequest q = HARPOON__V1__UPDATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__VolumeMount volume, *volumes[1];
    char what[160];
    q.container = &c;
    q.request_id = request_id;
    c.name = full;
    c.spec = &spec;
    spec.image = (char *)(uintptr_t)image;
    spec.stateless = may_move(strrchr(full, '/') + 1);
    add_volume(&spec, strrchr(full, '/') + 1, &volume, volumes);
    spec.resources = &x;
    x.cpu_millis = size.cpu;
    x.memory_bytes = size.memory;
    snprintf(what, sizeof what, "update %.100s cpu %d %s", strrchr(full, '/') + 1, (int)size.cpu, spec.image);
    return call_new(w, PAYLOAD(UPDATE), &q.base, "p", request_id, what);
}

/* Start, stop, restart, delete, move, cancel; cordon and the like: one shape. */
static struct call *simple(struct sim_world *w, int kind, char *name, const char *project, char *request_id)
{
    static const struct {
        int kind;
        const ProtobufCMessageDescriptor *descriptor;
    } kinds[] = {{PAYLOAD(START), &harpoon__v1__start_container_request__descriptor},
                 {PAYLOAD(STOP), &harpoon__v1__stop_container_request__descriptor},
                 {PAYLOAD(RESTART), &harpoon__v1__restart_container_request__descriptor},
                 {PAYLOAD(DELETE), &harpoon__v1__delete_container_request__descriptor},
                 {PAYLOAD(MOVE), &harpoon__v1__move_container_request__descriptor},
                 {PAYLOAD(CANCEL), &harpoon__v1__cancel_operation_request__descriptor},
                 {PAYLOAD(CORDON), &harpoon__v1__cordon_host_request__descriptor},
                 {PAYLOAD(UNCORDON), &harpoon__v1__uncordon_host_request__descriptor},
                 {PAYLOAD(DRAIN), &harpoon__v1__drain_host_request__descriptor},
                 {PAYLOAD(DECLARE_LOST), &harpoon__v1__declare_host_lost_request__descriptor}};
    union {
        ProtobufCMessage base;
        Harpoon__V1__MoveContainerRequest
            move; /* the largest; all begin with base and have these two fields somewhere */
        Harpoon__V1__CancelOperationRequest cancel;
        Harpoon__V1__CordonHostRequest host;
    } q;
    char what[160];
    size_t i = 0;
    while (kinds[i].kind != kind)
        i++;
    const ProtobufCMessageDescriptor *d = kinds[i].descriptor;
    assert(d->sizeof_message <= sizeof q);
    d->message_init(&q.base);
    *(char **)((char *)&q + protobuf_c_message_descriptor_get_field_by_name(d, "name")->offset) = name;
    *(char **)((char *)&q + protobuf_c_message_descriptor_get_field_by_name(d, "request_id")->offset) = request_id;
    snprintf(what, sizeof what, "%s %.100s", d->short_name, strrchr(name, '/') + 1);
    return call_new(w, kind, &q.base, project, request_id, what);
}

static void host_call(struct sim_world *w, int kind, int host)
{
    char name[64], request_id[32];
    snprintf(name, sizeof name, "regions/r1/hosts/h%d", host);
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    try(w, simple(w, kind, name, "", request_id));
}

void sim_client_declare_lost(struct sim_world *w, int host)
{
    host_call(w, PAYLOAD(DECLARE_LOST), host);
}

void sim_client_uncordon(struct sim_world *w, int host)
{
    host_call(w, PAYLOAD(UNCORDON), host);
}

static struct size any_size(struct sim_world *w)
{
    int64_t cpu = 200 + 100 * (int64_t)sim_below(w, 30);
    return (struct size){cpu, (int64_t)(1 + sim_below(w, 24)) << 26};
}

static void cancel(struct sim_world *w, const struct call *target)
{
    char name[HP_NAME_MAX + 1], request_id[32];
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    hp_operation_name_format(name, "p", "r1", target->id);
    try(w, simple(w, PAYLOAD(CANCEL), name, "p", request_id));
}

static bool of_project(const struct call *c)
{
    return c->kind < PAYLOAD(CORDON) || c->kind > PAYLOAD(DECLARE_LOST);
}

/* An id that is in use, for something else. */
static void use_again(struct sim_world *w, const struct call *old, char *name)
{
    char request_id[32];
    snprintf(request_id, sizeof request_id, "request-%d", old->number);
    struct call *c = create(w, name, request_id, (struct size){7777, 1 << 27}, false);
    c->other_payload = true;
    w->clients->count--;
    try(w, c);
}

void sim_client_create(struct sim_world *w, const char *name, int64_t cpu)
{
    char request_id[32], own[32];
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    snprintf(own, sizeof own, "%s", name);
    try(w, create(w, own, request_id, (struct size){cpu, 1 << 27}, false));
}

void sim_client_resize(struct sim_world *w, const char *name, int64_t cpu)
{
    char request_id[32], full[96];
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    try(w, resize(w, full, request_id, (struct size){cpu, 1 << 27}));
}

void sim_client_update(struct sim_world *w, const char *name, const char *image)
{
    char request_id[32], full[96];
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    try(w, update(w, full, request_id, (struct size){2000, 1 << 27}, image));
}

void sim_client_verb(struct sim_world *w, int kind, const char *name)
{
    char request_id[32], full[96];
    snprintf(request_id, sizeof request_id, "request-%d", w->clients->call_count);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    try(w, simple(w, kind, full, "p", request_id));
}

void sim_client_cancel_last(struct sim_world *w)
{
    cancel(w, w->clients->calls[w->clients->call_count - 1]);
}

void sim_client_act(struct sim_world *w)
{
    static const int verbs[] = {PAYLOAD(START),  PAYLOAD(STOP), PAYLOAD(RESTART), PAYLOAD(DELETE),
                                PAYLOAD(DELETE), PAYLOAD(MOVE), PAYLOAD(MOVE)};
    static const int on_hosts[] = {PAYLOAD(CORDON), PAYLOAD(UNCORDON), PAYLOAD(UNCORDON), PAYLOAD(DRAIN)};
    struct sim_clients *g = w->clients;
    char name[16], full[64], request_id[32];
    uint64_t what = sim_below(w, 100);
    snprintf(name, sizeof name, "c%d", (int)sim_below(w, (uint64_t)w->size.names));
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    snprintf(request_id, sizeof request_id, "request-%d", g->call_count);
    const struct call *old = g->call_count ? g->calls[sim_below(w, (uint64_t)g->call_count)] : NULL;
    if (old && (!of_project(old) || old->dry_run))
        old = NULL;
    if (what < 4 && old && !old->other_payload && hp_map_get(&w->record->tables.operations, old->id))
        use_again(w, old, name); /* besides: it makes no operation */
    if (what < 2) {
        struct call *c = create(w, name, request_id, any_size(w), true);
        g->count--;
        try(w, c);
        snprintf(request_id, sizeof request_id, "request-%d", g->call_count);
    }
    if (what < 9 && old && !old->other_payload)
        cancel(w, old);
    else if (what < 13)
        host_call(w, on_hosts[sim_below(w, 4)], (int)sim_below(w, (uint64_t)w->size.hosts));
    else if (what < 47)
        try(w, create(w, name, request_id, any_size(w), false));
    else if (what < 63)
        try(w, resize(w, full, request_id, any_size(w)));
    else if (what < 67)
        try(w,
            update(w, full, request_id, any_size(w), sim_chance(w, 50) ? "oci:/images:busybox" : "oci:/images:other"));
    else
        try(w, simple(w, verbs[sim_below(w, 7)], full, "p", request_id));
}

/* ---- A restored record ---- */

void sim_clients_forgotten(struct sim_world *w, const struct sim_tables *last, const struct sim_tables *backup)
{
    for (int i = 0; i < w->clients->call_count; i++) {
        struct call *c = w->clients->calls[i];
        c->forgotten = hp_map_get(&last->operations, c->id) && !hp_map_get(&backup->operations, c->id);
    }
}

bool sim_client_was_forgotten(const struct sim_world *w, const char *operation_id)
{
    for (int i = 0; i < w->clients->call_count; i++)
        if (w->clients->calls[i]->forgotten && !strcmp(w->clients->calls[i]->id, operation_id))
            return true;
    return false;
}

/* ---- At the end ---- */

bool sim_clients_done(const struct sim_world *w)
{
    for (int i = 0; i < w->clients->call_count; i++)
        if (!w->clients->calls[i]->answered)
            return false;
    return true;
}

void sim_clients_check(struct sim_world *w)
{
    for (int i = 0; i < w->clients->call_count; i++) {
        const struct call *c = w->clients->calls[i];
        const struct sim_operation_row *row = hp_map_get(&w->record->tables.operations, c->id);
        if (c->dry_run)
            continue;
        sim_check(w, row || c->forgotten, "I1", "%s (%s) was accepted and is not recorded", c->id, c->what);
        if (row)
            sim_check(w, !row->active && row->ends == 1, "I1", "%s (%s) is in stage %d and has ended %d times", c->id,
                      c->what, row->stage, row->ends);
    }
}

int sim_clients_operations(const struct sim_world *w)
{
    return w->clients->count;
}

/* What was on its way and has found no place cannot be called back. */
static void give_up_places(struct sim_world *w)
{
    for (struct hp_map_node *n = hp_map_first(&w->record->tables.operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        if (row->active && row->verb == HARPOON__V1__VERB__VERB_MOVE && !*row->host &&
            row->stage == HARPOON__V1__STAGE__STAGE_RECORDED)
            sim_client_verb(w, PAYLOAD(DELETE), strrchr(row->target, '/') + 1);
        else if (row->active && row->verb == HARPOON__V1__VERB__VERB_DRAIN)
            sim_client_uncordon(w, atoi(strrchr(row->host, 'h') + 1)); /* what finds no other place stays */
    }
}

void sim_clients_give_up_waiting(struct sim_world *w)
{
    for (int i = 0, n = w->clients->call_count; i < n; i++) {
        const struct call *c = w->clients->calls[i];
        const struct sim_operation_row *row = hp_map_get(&w->record->tables.operations, c->id);
        if (row && row->active && row->verb == HARPOON__V1__VERB__VERB_CREATE && !c->other_payload &&
            row->stage == HARPOON__V1__STAGE__STAGE_RECORDED)
            cancel(w, c);
    }
    give_up_places(w);
}

void sim_clients_new(struct sim_world *w)
{
    w->clients = sim_alloc(w, sizeof *w->clients);
}

void sim_clients_free(struct sim_world *w)
{
    for (int i = 0; i < w->clients->call_count; i++)
        hp_unpacked_free(w->clients->calls[i]->payload);
    free(w->clients->calls);
}
