/*
 * Commands: from router.<id> to the host.
 *
 * A host has at most `window` commands without a result. A further one waits in the session's list, in order; when that is full it comes back as Undelivered. A place in the window is
 * given up by the result of the same uid and generation, or when the command's deadline has passed (the scheduler has given it up then).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"
#include "wire/codec.h"
#include "wire/frame.h"
#include "wire/names.h"

typedef Harpoon__Internal__V1__Command pb_command;
typedef Harpoon__Internal__V1__RouterMessage pb_router_message;

uint64_t er_command_key(const struct er_core *c, const char *uid, int64_t generation)
{
    return hp_hash(c->o.seed ^ (uint64_t)generation * UINT64_C(0x9E3779B97F4A7C15), uid, strlen(uid));
}

static void undelivered(struct er_core *c, const pb_command *cmd, const char *reason)
{
    Harpoon__Internal__V1__Report r;
    Harpoon__Internal__V1__Undelivered u = HARPOON__INTERNAL__V1__UNDELIVERED__INIT;
    er_report_init(c, &r, cmd->host, cmd->session);
    u.operation_id = cmd->operation_id;
    u.uid = cmd->uid;
    u.generation = cmd->generation;
    u.epoch = cmd->epoch;
    u.reason = (char *)(uintptr_t)reason;
    r.body_case = ER_V1(REPORT__BODY_UNDELIVERED);
    r.undelivered = &u;
    c->stats.undelivered++;
    er_report_own(c, &r);
}

/* ---- The window ---- */

static int take_slot(struct er_core *c, struct er_session *s, struct er_slot slot)
{
    assert(s->slot_count < c->o.window);
    if (s->slot_count == s->slot_cap) {
        size_t cap = s->slot_cap ? (size_t)s->slot_cap * 2 : 4;
        if (cap > c->o.window)
            cap = c->o.window;
        struct er_slot *p = realloc(s->slots, cap * sizeof *p);
        if (!p)
            return HP_ENOMEM;
        s->slots = p;
        s->slot_cap = (uint16_t)cap;
    }
    s->slots[s->slot_count++] = slot;
    return 0;
}

static void trim_slots(struct er_session *s)
{
    if (s->slot_count)
        return;
    free(s->slots);
    s->slots = NULL;
    s->slot_cap = 0;
}

static struct er_held *pop_held(struct er_core *c, struct er_session *s)
{
    struct er_held *h = s->held_first;
    s->held_first = h->next;
    if (!s->held_first)
        s->held_last = NULL;
    assert(s->held_count > 0 && s->held_bytes >= h->len && c->held_bytes >= h->len);
    s->held_count--;
    s->held_bytes -= h->len;
    c->held_bytes -= h->len;
    return h;
}

static void send_held(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    while (s->held_first && s->slot_count < c->o.window && s->state == ER_ATTACHED) {
        struct er_held *h = pop_held(c, s);
        if (h->slot.expires_ms <= now_ms) {
            c->stats.commands_expired++;
        } else if (take_slot(c, s, h->slot) == 0) {
            er_send_frame(c, now_ms, s, h->frame, h->len);
            c->stats.commands_sent++;
        }
        free(h);
    }
    trim_slots(s);
}

void er_window_release(struct er_core *c, uint64_t now_ms, struct er_session *s, uint64_t key)
{
    for (uint16_t i = 0; i < s->slot_count;) {
        if (s->slots[i].key == key)
            s->slots[i] = s->slots[--s->slot_count];
        else
            i++;
    }
    send_held(c, now_ms, s);
}

void er_window_expire(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    for (uint16_t i = 0; i < s->slot_count;) {
        if (s->slots[i].expires_ms <= now_ms)
            s->slots[i] = s->slots[--s->slot_count];
        else
            i++;
    }
    send_held(c, now_ms, s);
}

void er_window_drop(struct er_core *c, struct er_session *s)
{
    while (s->held_first)
        free(pop_held(c, s)); /* the scheduler hears of the detachment */
    s->slot_count = 0;
    trim_slots(s);
}

/* ---- Dispatch ---- */

static void hold(struct er_core *c, struct er_session *s, const pb_command *cmd, const pb_router_message *m,
                 struct er_slot slot)
{
    size_t body_len = protobuf_c_message_get_packed_size(&m->base), len = HP_FRAME_HEADER + body_len;
    struct er_held *h = NULL;
    if (s->held_count < ER_HELD_MAX && s->held_bytes + len <= ER_HELD_MAX_BYTES &&
        c->held_bytes + len <= ER_HELD_TOTAL_MAX_BYTES)
        h = malloc(sizeof *h + len);
    if (!h) {
        undelivered(c, cmd, "buffer_full");
        return;
    }
    h->next = NULL;
    h->slot = slot;
    h->len = (uint32_t)len;
    hp_frame_header(h->frame, body_len);
    protobuf_c_message_pack(&m->base, h->frame + HP_FRAME_HEADER);
    if (s->held_last)
        s->held_last->next = h;
    else
        s->held_first = h;
    s->held_last = h;
    s->held_count++;
    s->held_bytes += (uint32_t)len;
    c->held_bytes += len;
    c->stats.commands_held++;
}

static void dispatch(struct er_core *c, uint64_t now_ms, pb_command *cmd)
{
    struct er_session *s = hp_map_get(&c->hosts, cmd->host);
    c->stats.commands++;
    if (!s || strcmp(cmd->region, c->region) != 0) {
        undelivered(c, cmd, "no_session");
        return;
    }
    if (s->number != cmd->session) {
        undelivered(c, cmd, "other_session");
        return;
    }
    pb_router_message m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_COMMAND);
    m.command = cmd;
    if (protobuf_c_message_get_packed_size(&m.base) > HP_FRAME_MAX) {
        undelivered(c, cmd, "buffer_full"); /* as large as a frame, and then the frame around it */
        return;
    }
    int64_t deadline = cmd->deadline_ms > 0 ? cmd->deadline_ms : ER_COMMAND_DEFAULT_MS;
    if (deadline > ER_COMMAND_MAX_MS)
        deadline = ER_COMMAND_MAX_MS;
    struct er_slot slot = {er_command_key(c, cmd->uid, cmd->generation), now_ms + (uint64_t)deadline};
    if (s->slot_count >= c->o.window)
        er_window_expire(c, now_ms, s);
    if (s->held_first || s->slot_count >= c->o.window) {
        hold(c, s, cmd, &m, slot);
    } else if (take_slot(c, s, slot)) {
        undelivered(c, cmd, "buffer_full");
    } else {
        er_send(c, now_ms, s, &m);
        c->stats.commands_sent++;
    }
}

static void ask_inventory(struct er_core *c, uint64_t now_ms, const Harpoon__Internal__V1__HostInventoryRequest *r)
{
    struct er_session *s = hp_map_get(&c->hosts, r->host);
    if (!s || s->number != r->session)
        return; /* the scheduler hears of the detachment, or of the newer attachment */
    pb_router_message m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__InventoryRequest q = HARPOON__INTERNAL__V1__INVENTORY_REQUEST__INIT;
    q.request_id = r->request_id;
    q.specs = r->specs;
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_INVENTORY_REQUEST);
    m.inventory_request = &q;
    er_send(c, now_ms, s, &m);
}

static void announce_all(struct er_core *c)
{
    for (struct hp_map_node *n = hp_map_first(&c->hosts); n; n = hp_map_next(n))
        er_reports_announce(c, n->value);
}

void er_core_command(struct er_core *c, uint64_t now_ms, const uint8_t *body, size_t len)
{
    static const struct hp_unpack_limits limits = {HP_FRAME_MAX, 16 << 20};
    ProtobufCMessage *message = NULL;
    struct hp_error e = {0};
    int rc = hp_unpack(&harpoon__internal__v1__router_command__descriptor, body, len, &limits, &message, &e);
    if (rc) {
        c->stats.commands_bad++;
        er_note(c, NULL,
                rc == HP_ENOMEM ? "out of memory: a message for this router is dropped; the scheduler sends a command "
                                  "again at its deadline"
                                : "a message for this router is no RouterCommand: dropped",
                NULL);
        return;
    }
    Harpoon__Internal__V1__RouterCommand *r = (Harpoon__Internal__V1__RouterCommand *)message;
    switch (r->body_case) {
    case ER_V1(ROUTER_COMMAND__BODY_COMMAND):
        if (hp_segment_valid(r->command->host))
            dispatch(c, now_ms, r->command);
        else
            c->stats.commands_bad++; /* nobody could be told that it is undelivered */
        break;
    case ER_V1(ROUTER_COMMAND__BODY_INVENTORY_REQUEST):
        ask_inventory(c, now_ms, r->inventory_request);
        break;
    case ER_V1(ROUTER_COMMAND__BODY_ANNOUNCE):
        announce_all(c);
        break;
    default:
        c->stats.commands_bad++; /* of a newer scheduler */
        break;
    }
    hp_unpacked_free(message);
}
