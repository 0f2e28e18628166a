/* dispatch.c — commands for hosts. They are absolute, may be lost or come twice, and are sent again when the host's inventory says so. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"

static struct sc_message *message_new(struct sc_region *r, enum sc_message_kind kind, const char *key,
                                      const Harpoon__Internal__V1__RouterCommand *body)
{
    struct sc_message *m = sc_alloc(r, sizeof *m);
    if (!m)
        return NULL;
    m->kind = kind;
    snprintf(m->key, sizeof m->key, "%s", key);
    m->body = sc_blob_pack(r, &body->base);
    if (!m->body) {
        free(m);
        return NULL;
    }
    return m;
}

static void send_to(struct sc_region *r, const struct sc_host *h, Harpoon__Internal__V1__RouterCommand *body)
{
    assert(sc_host_attached(h));
    struct sc_message *m = message_new(r, SC_SEND_COMMAND, h->pb->router, body);
    if (!m)
        return;
    strcpy(m->host, h->info.name);
    m->session = h->pb->session;
    sc_messages_append(&r->commands, m);
}

static void send_command(struct sc_region *r, const struct sc_host *h, Harpoon__Internal__V1__Command *c)
{
    Harpoon__Internal__V1__RouterCommand m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    c->region = r->name;
    c->host = (char *)h->info.name;
    c->epoch = r->epoch;
    c->session = h->pb->session;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_COMMAND;
    m.command = c;
    send_to(r, h, &m);
}

/* The labels of the one message type as those of the other; both hold a key and a value. */
static bool copy_labels(struct sc_region *r, Harpoon__Internal__V1__Command *m, const Harpoon__V1__Container *doc,
                        Harpoon__Internal__V1__Command__LabelsEntry **ret_entries)
{
    size_t n = doc->n_labels;
    *ret_entries = NULL;
    if (!n)
        return true;
    Harpoon__Internal__V1__Command__LabelsEntry *entries = sc_alloc(r, n * (sizeof *entries + sizeof(void *)));
    if (!entries)
        return false;
    m->labels = (Harpoon__Internal__V1__Command__LabelsEntry **)(void *)(entries + n);
    m->n_labels = n;
    for (size_t i = 0; i < n; i++) {
        harpoon__internal__v1__command__labels_entry__init(&entries[i]);
        entries[i].key = doc->labels[i]->key;
        entries[i].value = doc->labels[i]->value;
        m->labels[i] = &entries[i];
    }
    *ret_entries = entries;
    return true;
}

static void send_ensure(struct sc_region *r, struct sc_container *c, const char *operation_id, int64_t generation)
{
    Harpoon__Internal__V1__Command m = HARPOON__INTERNAL__V1__COMMAND__INIT;
    Harpoon__Internal__V1__Command__LabelsEntry *entries = NULL;
    const struct sc_operation *head = sc_container_head(c);
    struct sc_target t;
    if (sc_change_target(r, c, &t) && copy_labels(r, &m, t.doc, &entries)) {
        m.operation_id = (char *)operation_id;
        m.container = c->name;
        m.uid = c->uid;
        m.generation = generation;
        m.verb = HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE;
        m.spec = t.doc->spec;
        m.restart_serial = t.restart_serial;
        m.start_only = head && head->verb == HARPOON__V1__VERB__VERB_START && head->restart_serial > 0;
        m.deadline_ms = (int64_t)r->config.running_ms;
        send_command(r, c->host, &m);
    }
    free(entries);
    if (t.owned)
        harpoon__v1__container__free_unpacked(t.owned, NULL);
}

static void send_remove(struct sc_region *r, const struct sc_host *h, const struct sc_container *c, int64_t generation)
{
    Harpoon__Internal__V1__Command m = HARPOON__INTERNAL__V1__COMMAND__INIT;
    m.operation_id = (char *)c->operation_id;
    m.container = (char *)c->name;
    m.uid = (char *)c->uid;
    m.generation = generation;
    m.verb = HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE;
    m.deadline_ms = (int64_t)r->config.running_ms;
    send_command(r, h, &m);
}

static enum sc_want wanted(const struct sc_container *c, int64_t *ret_generation)
{
    const struct sc_operation *head = sc_container_head(c);
    *ret_generation = c->generation;
    if (sc_container_removing(c)) {
        *ret_generation = sc_container_removal(c);
        return SC_WANT_REMOVE;
    }
    if (head)
        *ret_generation = head->generation;
    return head || c->sync ? SC_WANT_ENSURE : SC_WANT_NOTHING;
}

static struct sc_operation *operation_for(const struct sc_container *c)
{
    if (c->deleting)
        return c->delete_op;
    return c->cleanup ? NULL : sc_container_head(c);
}

void sc_dispatch(struct sc_region *r, struct sc_container *c)
{
    int64_t generation;
    struct sc_host *h = c->host;
    assert(h);
    if (sc_move_waits(c) && !sc_restore_holds(r, c) && !sc_move_begin(r, c)) {
        sc_container_next(r, c);
        return;
    }
    enum sc_want want = wanted(c, &generation);
    if (want == SC_WANT_NOTHING) {
        c->flight = SC_WANT_NOTHING;
        sc_flight_untimed(r, c);
        return;
    }
    struct sc_operation *op = operation_for(c);
    if (sc_restore_holds(r, c)) {
        if (op)
            sc_operation_reason(r, op, sc_restore_waits());
        return;
    }
    if (op && op->stage == HARPOON__V1__STAGE__STAGE_RECORDED) {
        strcpy(op->host, h->info.name);
        sc_operation_reason(r, op, NULL);
        sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_PLACED);
    }
    if (!sc_host_attached(h)) {
        char reason[160];
        snprintf(reason, sizeof reason, "waits for host \"%s\" to attach", h->info.name);
        if (op && op->stage == HARPOON__V1__STAGE__STAGE_PLACED)
            sc_operation_reason(r, op, reason);
        return;
    }
    if (op) {
        op->attempts++;
        sc_operation_reason(r, op, NULL);
        if (op->stage == HARPOON__V1__STAGE__STAGE_PLACED)
            sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_DISPATCHED);
        sc_operation_dirty(r, op);
    }
    bool again = c->flight == want && sc_open(c)->flight_generation == generation;
    c->flight_journalled = again && c->flight_journalled;
    c->flight = want;
    sc_open(c)->flight_generation = generation;
    sc_open(c)->flight_after = r->inventory_ids;
    if (want == SC_WANT_REMOVE && c->deleting && !c->remove_sent) {
        c->remove_sent = true;
        sc_container_dirty(r, c);
    }
    if (want == SC_WANT_REMOVE)
        send_remove(r, h, c, generation);
    else
        send_ensure(r, c, op ? op->id : c->operation_id, generation);
    sc_timer_set(r, &sc_open(c)->flight_timer, c->flight_journalled ? r->config.running_ms : r->config.dispatch_ms);
}

void sc_dispatch_retry(struct sc_region *r, struct sc_container *c)
{
    /* What failed without an operation needs a new generation: the host answers a known one with the stored result. */
    if (c->leaving)
        sc_container_renumber(r, c);
    else if (!operation_for(c))
        sc_container_bump(r, c);
    sc_dispatch(r, c);
}

void sc_container_next(struct sc_region *r, struct sc_container *c)
{
    int64_t generation;
    if (!c->host || r->failed)
        return;
    enum sc_want want = wanted(c, &generation);
    if (want != SC_WANT_NOTHING && c->flight == want && sc_open(c)->flight_generation == generation)
        return; /* it is on its way */
    sc_dispatch(r, c);
}

void sc_dispatch_remove(struct sc_region *r, struct sc_host *h, const struct sc_container *c, int64_t generation)
{
    assert(c->host != h);
    if (sc_host_attached(h))
        send_remove(r, h, c, generation);
}

void sc_dispatch_quarantine(struct sc_region *r, struct sc_host *h, const char *container, const char *uid,
                            int64_t generation)
{
    Harpoon__Internal__V1__Command m = HARPOON__INTERNAL__V1__COMMAND__INIT;
    if (!sc_host_attached(h))
        return;
    m.container = (char *)container;
    m.uid = (char *)uid;
    m.generation = generation;
    m.verb = HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_QUARANTINE;
    m.deadline_ms = (int64_t)r->config.running_ms;
    send_command(r, h, &m);
}

void sc_dispatch_inventory(struct sc_region *r, struct sc_host *h)
{
    if (h->inventory_id)
        return; /* one is on its way */
    Harpoon__Internal__V1__HostInventoryRequest q = HARPOON__INTERNAL__V1__HOST_INVENTORY_REQUEST__INIT;
    Harpoon__Internal__V1__RouterCommand m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    h->inventory_id = ++r->inventory_ids;
    h->inventory_specs = h->specs_wanted || r->restored;
    h->specs_wanted = false;
    q.host = (char *)h->info.name;
    q.session = h->pb->session;
    q.request_id = h->inventory_id;
    q.specs = h->inventory_specs;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_INVENTORY_REQUEST;
    m.inventory_request = &q;
    send_to(r, h, &m);
    sc_timer_set(r, &h->resync, r->config.resync_ms);
}

void sc_dispatch_announce(struct sc_region *r, const char *router)
{
    Harpoon__Internal__V1__Announce a = HARPOON__INTERNAL__V1__ANNOUNCE__INIT;
    Harpoon__Internal__V1__RouterCommand body = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    a.epoch = r->epoch;
    body.body_case = HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_ANNOUNCE;
    body.announce = &a;
    struct sc_message *m = message_new(r, *router ? SC_SEND_COMMAND : SC_SEND_ANNOUNCE, router, &body);
    if (m)
        sc_messages_append(&r->commands, m);
}
