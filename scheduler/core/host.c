/* host.c — hosts: attaching, being heard, falling silent, and what operators do with them.
 *
 *             attach                30 s of silence        5 min of silence
 *   (unknown) ─────▶ READY/DRAINING ─────────────▶ SUSPECT ───────────────▶ UNKNOWN ──declare-lost──▶ LOST
 *                        ▲                            │ heard                  │ heard or attach        │ attach, and cleaned
 *                        └────────────────────────────┴────────────────────────┴────────────────────────┘
 *
 * While the brake is on (brake.c) SUSPECT hosts stay SUSPECT. A host that detached keeps its state until it has been silent for long enough; it takes no new containers meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/names.h"

#define READY HARPOON__V1__HOST_STATE__HOST_STATE_READY
#define SUSPECT HARPOON__V1__HOST_STATE__HOST_STATE_SUSPECT
#define UNKNOWN HARPOON__V1__HOST_STATE__HOST_STATE_UNKNOWN
#define DRAINING HARPOON__V1__HOST_STATE__HOST_STATE_DRAINING
#define LOST HARPOON__V1__HOST_STATE__HOST_STATE_LOST
#define INFO HARPOON__V1__SEVERITY__SEVERITY_INFO
#define WARNING HARPOON__V1__SEVERITY__SEVERITY_WARNING

struct sc_slot *sc_host_slot(const struct sc_host *h)
{
    assert(h->info.at < h->region->slot_count);
    return &h->region->slots[h->info.at];
}

void sc_host_touch(struct sc_region *r, const struct sc_host *h)
{
    sc_places_touch(r, h);
}

void sc_host_claim(struct sc_region *r, const struct sc_host *h, const struct sc_res *old, const struct sc_res *fresh)
{
    sc_slot_claim(sc_host_slot(h), old, fresh);
    sc_host_touch(r, h);
}

bool sc_host_attached(const struct sc_host *h)
{
    return *h->pb->router != '\0';
}

bool sc_host_answers(const struct sc_host *h)
{
    return sc_host_attached(h) && h->pb->state != UNKNOWN;
}

void sc_host_free(struct sc_host *h)
{
    sc_host_body_done(h);
    free(h);
}

static struct sc_slot *slot_add(struct sc_region *r)
{
    if (r->slot_count == r->slot_room) {
        size_t room = r->slot_room ? 2 * r->slot_room : 64;
        struct sc_slot *slots = realloc(r->slots, room * sizeof *slots);
        if (!slots) {
            sc_fail(r, HP_ENOMEM);
            return NULL;
        }
        r->slots = slots;
        r->slot_room = room;
    }
    if (sc_places_reserve(r, r->slot_count + 1)) {
        sc_fail(r, HP_ENOMEM);
        return NULL;
    }
    struct sc_slot *s = &r->slots[r->slot_count++];
    *s = (struct sc_slot){0};
    return s;
}

struct sc_host *sc_host_new(struct sc_region *r, const char *name)
{
    static const Harpoon__V1__Host nothing = HARPOON__V1__HOST__INIT;
    char full[160];
    int length = snprintf(full, sizeof full, "regions/%s/hosts/%s", r->name, name);
    struct sc_host *h = sc_alloc(r, sizeof *h + (size_t)length + 1);
    struct sc_slot *s = h ? slot_add(r) : NULL;
    if (!s || hp_map_put(&r->hosts, name, h, NULL)) {
        sc_fail(r, HP_ENOMEM);
        r->slot_count -= s != NULL;
        free(h);
        return NULL;
    }
    assert(strlen(name) < sizeof((struct sc_host_row *)0)->name);
    h->region = r;
    h->voice = SC_VOICE_NONE;
    memcpy(h->full_name, full, (size_t)length + 1);
    h->pb->rack = h->pb->router = (char *)protobuf_c_empty_string;
    h->silence.kind = SC_TIMER_SILENCE;
    h->resync.kind = SC_TIMER_RESYNC;
    sc_list_init(&h->containers);
    sc_list_init(&h->strays);
    sc_list_init(&h->dirty_link);
    sc_list_init(&h->load_link);
    h->info = (struct sc_slot_info){.host = h,
                                    .pb = &nothing,
                                    .name = h->full_name + length - strlen(name),
                                    .at = (uint32_t)(r->slot_count - 1),
                                    .trust = 1};
    s->info = &h->info;
    s->idle = hp_load_idle(&h->load, &r->config.load, r->time.now_ms);
    return h;
}

void sc_host_idle(struct sc_region *r, struct sc_host *h)
{
    sc_host_forgive(r, h);
    sc_host_slot(h)->idle = hp_load_idle(&h->load, &r->config.load, r->time.now_ms);
    sc_host_touch(r, h);
}

void sc_host_refresh(struct sc_region *r, struct sc_host *h)
{
    struct sc_slot *s = sc_host_slot(h), old = *s;
    struct sc_res limit = h->info.limit;
    s->attached = sc_host_attached(h);
    s->ready = h->pb->state == READY && s->attached;
    s->cordoned = h->pb->cordoned || h->pb->draining;
    s->breakers = (uint8_t)hp_load_open_set(&h->load);
    sc_brake_count(r, h);
    r->attached_count += (size_t)s->attached - (size_t)old.attached;
    sc_slot_set_allocatable(s, h->info.pb->allocatable, &r->config.overcommit);
    r->function_hosts += (size_t)(h->info.limit.functions > 0) - (size_t)(limit.functions > 0);
    if (sc_places_facts(r, h))
        sc_fail(r, HP_ENOMEM);
    sc_pending_skewed(r);
    bool more = h->info.limit.cpu_millis > limit.cpu_millis || h->info.limit.memory_bytes > limit.memory_bytes ||
                h->info.limit.disk_bytes > limit.disk_bytes || sc_network_more(s, &old, &limit);
    if (s->ready && !s->cordoned && (!old.ready || old.cordoned || more || (old.breakers & ~s->breakers)))
        sc_pending_freed(r, h);
}

void sc_host_dirty(struct sc_region *r, struct sc_host *h, bool urgent)
{
    h->urgent |= urgent;
    if (h->dirty)
        return;
    h->dirty = true;
    sc_list_append(&r->dirty_hosts, &h->dirty_link);
}

void sc_host_event(struct sc_region *r, struct sc_host *h, const char *what, Harpoon__V1__Severity severity,
                   const struct sc_operation *op, const char *message)
{
    char type[64];
    struct sc_host_dress d;
    h->update_ns = r->time.wall_ns;
    sc_host_dress(r, h, &d);
    snprintf(type, sizeof type, "host.%s", what);
    sc_event_emit(r, &(struct sc_event_args){
                         .type = type,
                         .subject = h->full_name,
                         .host = h->info.name,
                         .operation = op ? op->name : NULL,
                         .message = message,
                         .severity = severity,
                         .host_data = &d.m,
                     });
    sc_host_dirty(r, h, true);
}

/* ---- Being heard, and falling silent ---- */

struct sc_grace sc_host_grace(const struct sc_region *r, const struct sc_host *h)
{
    const struct sc_region_config *c = &r->config;
    for (size_t i = 0; c->grace_count && i < h->info.pb->n_labels; i++) {
        if (strcmp(h->info.pb->labels[i]->key, c->class_label) != 0)
            continue;
        for (size_t k = 0; k < c->grace_count; k++)
            if (!strcmp(h->info.pb->labels[i]->value, c->graces[k].class))
                return c->graces[k];
    }
    return (struct sc_grace){.suspect_ms = c->suspect_ms, .unknown_ms = c->unknown_ms};
}

void sc_host_heard(struct sc_region *r, struct sc_host *h)
{
    h->heard_ms = r->time.now_ms;
    if (h->pb->state == LOST)
        return;
    if (!h->silence.place)
        sc_timer_set(r, &h->silence, sc_host_grace(r, h).suspect_ms);
    if ((h->pb->state != SUSPECT && h->pb->state != UNKNOWN) || !sc_host_attached(h))
        return;
    bool was_unknown = h->pb->state == UNKNOWN;
    h->pb->state = h->pb->draining ? DRAINING : READY;
    sc_host_refresh(r, h);
    sc_host_event(r, h, "ready", INFO, NULL, NULL);
    if (!was_unknown)
        return;
    h->inventory_id = 0;
    sc_dispatch_inventory(r, h); /* tells how its containers are, and what it missed */
}

void sc_host_watch(struct sc_region *r, struct sc_host *h)
{
    struct sc_grace g = sc_host_grace(r, h);
    h->heard_ms = r->time.now_ms;
    if (h->pb->state != LOST && h->pb->state != UNKNOWN)
        sc_timer_set(r, &h->silence, h->pb->state == SUSPECT ? g.unknown_ms : g.suspect_ms);
}

static void containers_unknown(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next; l != &h->containers && !r->failed; l = l->next) {
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (sc_container_removing(c))
            continue;
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNKNOWN, "its host does not answer");
        sc_container_event(r, c, "unknown", WARNING, NULL, "its host does not answer");
    }
}

void sc_host_silent(struct sc_region *r, struct sc_host *h)
{
    uint64_t silent_ms = r->time.now_ms - h->heard_ms;
    struct sc_grace g = sc_host_grace(r, h);
    if (h->pb->state == LOST || h->pb->state == UNKNOWN)
        return;
    /* Never at one go, however long it was: when all are silent (or this process was asleep) the others must have been counted before one is given up. */
    if (h->pb->state == SUSPECT && silent_ms >= g.unknown_ms) {
        if (sc_brake_check(r))
            return; /* the release goes on with it */
        h->pb->state = UNKNOWN;
        sc_host_refresh(r, h);
        sc_host_event(r, h, "unknown", HARPOON__V1__SEVERITY__SEVERITY_ERROR, NULL, "no word for long");
        containers_unknown(r, h);
        return;
    }
    if (silent_ms >= g.suspect_ms && h->pb->state != SUSPECT) {
        h->pb->state = SUSPECT;
        sc_host_refresh(r, h);
        sc_host_event(r, h, "suspect", WARNING, NULL, "no word for longer than the grace time");
    }
    uint64_t limit = h->pb->state == SUSPECT ? g.unknown_ms : g.suspect_ms;
    sc_timer_set(r, &h->silence, limit > silent_ms ? limit - silent_ms : 1);
}

/* Its attachment is heard of. Where that is not so a lower number counts, too: the host has lost its journal, and its clock is behind. */
static bool in_force(const struct sc_host *h)
{
    return sc_host_attached(h) && h->pb->state != SUSPECT && h->pb->state != UNKNOWN;
}

/* The host is heard over an attachment that should be in force. */
static bool attach_missed(const struct sc_host *h, const char *router, int64_t session)
{
    if (!h || session > h->pb->session)
        return true;
    return session == h->pb->session ? strcmp(h->pb->router, router) != 0 : !in_force(h);
}

void sc_host_metrics(struct sc_region *r, const Harpoon__Internal__V1__MetricsBatch *b)
{
    bool announce = false;
    for (size_t i = 0; i < b->n_samples; i++) {
        const Harpoon__Internal__V1__HostSample *x = b->samples[i];
        struct sc_host *h = hp_map_get(&r->hosts, x->host);
        if (attach_missed(h, b->router, x->session)) {
            announce |= h || !r->full;
            continue;
        }
        if (x->session != h->pb->session)
            continue;
        sc_host_heard(r, h);
        if (x->metrics && x->metrics->images_told)
            sc_host_images(r, h, x->metrics->images, x->metrics->n_images);
        if (x->metrics && x->metrics->host)
            sc_pressure_take(r, h, x->metrics->host);
    }
    if (!announce || !*b->router || strlen(b->router) > 128)
        return;
    if (r->announced_ms && r->time.now_ms - r->announced_ms < r->config.resync_ms)
        return;
    r->announced_ms = r->time.now_ms;
    sc_dispatch_announce(r, b->router);
}

/* ---- Attaching and detaching ---- */

static void take_hello(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__AgentHello *hello)
{
    Harpoon__V1__Host m = HARPOON__V1__HOST__INIT;
    Harpoon__V1__Host__LabelsEntry *entries = NULL, **labels = NULL;
    size_t n = hello->n_labels;
    if (n) {
        entries = sc_alloc(r, n * (sizeof *entries + sizeof *labels));
        if (!entries)
            return;
        labels = (Harpoon__V1__Host__LabelsEntry **)(void *)(entries + n);
    }
    for (size_t i = 0; i < n; i++) {
        harpoon__v1__host__labels_entry__init(&entries[i]);
        entries[i].key = hello->labels[i]->key;
        entries[i].value = hello->labels[i]->value;
        labels[i] = &entries[i];
    }
    m.zone = hello->zone;
    m.rack = hello->rack;
    m.labels = labels;
    m.n_labels = n;
    m.taints = hello->taints;
    m.n_taints = hello->n_taints;
    m.allocatable = hello->allocatable;
    m.facts = hello->facts;
    sc_host_describe(r, h, &m);
    free(entries);
}

/* Sends again what the host's last session may have lost, and what waited for it. */
static void resume(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        sc_dispatch(r, SC_OWNER(l, struct sc_container, on_host));
    }
}

/* Told once a reign. Agents go on trying: when the limit is raised they are announced again, by their metrics. */
static void leave_out(struct sc_region *r, const char *host)
{
    char text[256];
    if (r->full)
        return;
    r->full = true;
    snprintf(text, sizeof text, "host \"%.64s\" is not taken in, and no other new one: there are %zu hosts (hosts_max)",
             host, r->config.hosts_max);
    sc_event_region(r, "region.full", HARPOON__V1__SEVERITY__SEVERITY_CRITICAL, text);
}

void sc_host_attach(struct sc_region *r, const Harpoon__Internal__V1__Report *m)
{
    const Harpoon__Internal__V1__AgentHello *hello = m->attach;
    struct sc_host *h = hp_map_get(&r->hosts, m->host);
    bool first = !h;
    if (first && r->hosts.count >= r->config.hosts_max) {
        leave_out(r, m->host);
        return;
    }
    if (first && !(h = sc_host_new(r, m->host)))
        return;
    if (!*m->router)
        return;
    if (m->session < h->pb->session && in_force(h)) {
        h->passed_over = true;
        return;
    }
    bool again = !first && m->session == h->pb->session;
    h->inventoried = h->inventoried && again;
    if (again && !strcmp(h->pb->router, m->router)) {
        sc_host_heard(r, h); /* announced again: nothing is new but, maybe, what it has */
        if (h->pb->state == LOST || (r->restored && !h->settled))
            sc_dispatch_inventory(r, h); /* an earlier reign asked, perhaps, and did not live to see the answer */
        else if (hello->digest)
            sc_inventory_check(r, h, hello->digest);
        return;
    }
    int before = h->pb->state;
    h->passed_over = false;
    if (!again)
        take_hello(r, h, hello);
    sc_host_router(r, h, m->router);
    h->pb->session = m->session;
    h->attach_ns = r->time.wall_ns;
    if (before != LOST)
        h->pb->state = h->pb->draining ? DRAINING : READY;
    h->inventory_id = 0;
    sc_timer_cancel(&r->timers, &h->resync);
    sc_host_refresh(r, h);
    sc_host_heard(r, h);
    sc_host_event(r, h, "attached", INFO, NULL, NULL);
    if (before == LOST || before == UNKNOWN || !hello->digest || (r->restored && !h->settled) || h->stray_open)
        sc_dispatch_inventory(r, h);
    else
        sc_inventory_attached(r, h, hello->digest);
    resume(r, h);
}

void sc_host_detach(struct sc_region *r, struct sc_host *h, const char *reason)
{
    if (!sc_host_attached(h))
        return;
    bool orderly = !strcmp(reason, "goodbye") || !strcmp(reason, "router_draining");
    sc_host_router(r, h, "");
    h->inventory_id = 0;
    sc_timer_cancel(&r->timers, &h->resync);
    sc_host_refresh(r, h);
    sc_host_event(r, h, "detached", orderly ? INFO : WARNING, NULL, reason);
    if (h->passed_over)
        sc_dispatch_announce(r, ""); /* it may be attached elsewhere all the while: whoever has it says so once more */
    h->passed_over = false;
}

void sc_host_returned(struct sc_region *r, const char *router, const char *host, int64_t session)
{
    struct sc_host *h = hp_map_get(&r->hosts, host);
    if (!h || h->pb->session != session || strcmp(h->pb->router, router) != 0)
        return; /* it has attached elsewhere since */
    for (size_t i = 0; i < r->slot_count && !r->failed; i++) {
        struct sc_host *other = r->slots[i].info->host;
        if (!strcmp(other->pb->router, router))
            sc_host_detach(r, other, "router_gone");
    }
}

/* ---- What operators do ---- */

static void declare_lost(struct sc_region *r, struct sc_host *h, const struct sc_operation *op)
{
    h->pb->state = LOST;
    sc_host_router(r, h, "");
    sc_timer_cancel(&r->timers, &h->silence);
    sc_timer_cancel(&r->timers, &h->resync);
    h->inventory_id = 0;
    sc_stray_drop_all(r, h);
    sc_reserve_host_lost(r, h);
    sc_host_refresh(r, h);
    sc_host_event(r, h, "lost", HARPOON__V1__SEVERITY__SEVERITY_CRITICAL, op, NULL);
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        sc_container_lost(r, SC_OWNER(l, struct sc_container, on_host));
    }
    sc_restore_check(r);
}

static void drain(struct sc_region *r, struct sc_host *h, struct sc_operation *op,
                  const Harpoon__V1__DrainHostRequest *q)
{
    h->pb->cordoned = h->pb->draining = true;
    if (h->pb->state == READY)
        h->pb->state = DRAINING;
    sc_host_event(r, h, "draining", INFO, op, NULL);
    sc_host_refresh(r, h);
    op->parallel = q->max_parallel;
    sc_drain_begin(r, h, op);
    sc_drain_try(r); /* so that the answer tells what stays */
}

static void apply(struct sc_region *r, struct sc_host *h, struct sc_operation *op,
                  const Harpoon__Internal__V1__Request *q)
{
    struct sc_operation *under_way = sc_drain_of(r, h);
    strcpy(op->host, h->info.name);
    sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RECORDED);
    switch (op->verb) {
    case HARPOON__V1__VERB__VERB_CORDON:
        h->pb->cordoned = true;
        sc_host_event(r, h, "cordoned", INFO, op, NULL);
        break;
    case HARPOON__V1__VERB__VERB_UNCORDON:
        h->pb->cordoned = h->pb->draining = false;
        if (h->pb->state == DRAINING)
            h->pb->state = READY;
        if (under_way)
            sc_operation_end(r, under_way, HARPOON__V1__STAGE__STAGE_CANCELLED,
                             hp_status_new(HP_CODE_CANCELLED, "HOST_UNCORDONED", "the host was uncordoned"));
        sc_host_event(r, h, "uncordoned", INFO, op, NULL);
        break;
    case HARPOON__V1__VERB__VERB_DRAIN:
        drain(r, h, op, q->drain);
        return;
    default:
        assert(op->verb == HARPOON__V1__VERB__VERB_DECLARE_LOST);
        declare_lost(r, h, op);
    }
    sc_host_refresh(r, h);
    sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_SUCCEEDED, NULL);
}

Google__Rpc__Status *sc_host_decide(struct sc_region *r, struct sc_operation *op,
                                    const Harpoon__Internal__V1__Request *q, bool dry_run)
{
    const char *slash = strrchr(op->target, '/');
    struct sc_host *h = slash ? hp_map_get(&r->hosts, slash + 1) : NULL;
    if (!h)
        return hp_status_add_metadata(
            hp_status_new(HP_CODE_NOT_FOUND, "HOST_NOT_FOUND", "host \"%s\" does not exist", op->target), "host",
            op->target);
    bool silent = h->pb->state == UNKNOWN || (h->pb->state == SUSPECT && r->braked);
    if (op->verb == HARPOON__V1__VERB__VERB_DECLARE_LOST && sc_host_attached(h) && !silent) {
        Google__Rpc__Status *s =
            hp_status_new(HP_CODE_FAILED_PRECONDITION, "HOST_ATTACHED",
                          "host \"%s\" is attached to router \"%s\": it is not lost", op->target, h->pb->router);
        return hp_status_add_precondition(s, "HOST_ATTACHED", op->target, "is attached");
    }
    const struct sc_operation *under_way = op->verb == HARPOON__V1__VERB__VERB_DRAIN ? sc_drain_of(r, h) : NULL;
    if (under_way)
        return hp_status_add_metadata(hp_status_new(HP_CODE_FAILED_PRECONDITION, "DRAIN_UNDER_WAY",
                                                    "host \"%s\" is being drained by \"%s\"", op->target,
                                                    under_way->name),
                                      "operation", under_way->name);
    if (!dry_run)
        apply(r, h, op, q);
    return NULL;
}
