/* host.c — hosts: attaching, being heard, falling silent, and what operators do with them.
 *
 *             attach                30 s of silence        5 min of silence
 *   (unknown) ─────▶ READY/DRAINING ─────────────▶ SUSPECT ───────────────▶ UNKNOWN ──declare-lost──▶ LOST
 *                        ▲                            │ heard                  │ heard or attach        │ attach, and cleaned
 *                        └────────────────────────────┴────────────────────────┴────────────────────────┘
 *
 * A host that detached keeps its state until it has been silent for long enough; it takes no new containers meanwhile. */
#include <stdlib.h>
#include <string.h>

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
    assert(h->slot < h->region->slot_count);
    return &h->region->slots[h->slot];
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
    if (h->pb)
        harpoon__v1__host__free_unpacked(h->pb, NULL);
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
    struct sc_slot *s = &r->slots[r->slot_count++];
    *s = (struct sc_slot){0};
    return s;
}

struct sc_host *sc_host_new(struct sc_region *r, const char *name)
{
    char full[160];
    struct sc_host *h = sc_alloc(r, sizeof *h);
    Harpoon__V1__Host *pb = sc_alloc(r, sizeof *pb);
    struct sc_slot *s = h && pb ? slot_add(r) : NULL;
    if (!s || hp_map_put(&r->hosts, name, h, NULL)) {
        sc_fail(r, HP_ENOMEM);
        r->slot_count -= s != NULL;
        free(h);
        free(pb);
        return NULL;
    }
    assert(strlen(name) < sizeof h->name);
    harpoon__v1__host__init(pb);
    h->region = r;
    h->pb = pb;
    h->slot = r->slot_count - 1;
    strcpy(h->name, name);
    h->silence.kind = SC_TIMER_SILENCE;
    h->resync.kind = SC_TIMER_RESYNC;
    sc_list_init(&h->containers);
    sc_list_init(&h->dirty_link);
    snprintf(full, sizeof full, "regions/%s/hosts/%s", r->name, name);
    sc_pb_set(r, &pb->name, full);
    h->info = (struct sc_slot_info){.host = h, .pb = pb, .name = h->name};
    s->info = &h->info;
    s->idle = 1;
    return h;
}

void sc_host_refresh(struct sc_region *r, struct sc_host *h)
{
    struct sc_slot *s = sc_host_slot(h), old = *s;
    struct sc_res limit = h->info.limit;
    h->info.pb = h->pb;
    s->attached = sc_host_attached(h);
    s->ready = h->pb->state == READY && s->attached;
    s->cordoned = h->pb->cordoned || h->pb->draining;
    r->attached_count += (size_t)s->attached - (size_t)old.attached;
    sc_slot_set_allocatable(s, h->pb->allocatable, &r->config.overcommit);
    bool more = h->info.limit.cpu_millis > limit.cpu_millis || h->info.limit.memory_bytes > limit.memory_bytes ||
                h->info.limit.disk_bytes > limit.disk_bytes;
    if (s->ready && !s->cordoned && (!old.ready || old.cordoned || more))
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

static void fill(struct sc_region *r, struct sc_host *h)
{
    const struct sc_res *claimed = &h->info.claimed;
    if (!h->pb->claimed) {
        h->pb->claimed = sc_alloc(r, sizeof *h->pb->claimed);
        if (!h->pb->claimed)
            return;
        harpoon__v1__resources__init(h->pb->claimed);
    }
    h->pb->claimed->cpu_millis = claimed->cpu_millis;
    h->pb->claimed->memory_bytes = claimed->memory_bytes;
    h->pb->claimed->disk_bytes = claimed->disk_bytes;
    h->pb->container_count = (int32_t)h->container_count;
}

void sc_host_recount(struct sc_region *r, struct sc_host *h)
{
    const struct sc_res *claimed = &h->info.claimed;
    const Harpoon__V1__Resources *said = h->pb->claimed;
    bool same = h->pb->container_count == h->container_count && (said ? said->cpu_millis : 0) == claimed->cpu_millis &&
                (said ? said->memory_bytes : 0) == claimed->memory_bytes &&
                (said ? said->disk_bytes : 0) == claimed->disk_bytes;
    if (!same)
        sc_host_dirty(r, h, false);
}

struct sc_blob *sc_host_pack(struct sc_region *r, struct sc_host *h)
{
    fill(r, h);
    return sc_blob_pack(r, &h->pb->base);
}

static void touch(struct sc_region *r, Google__Protobuf__Timestamp **t)
{
    if (!*t)
        *t = sc_alloc(r, sizeof **t);
    if (*t)
        sc_timestamp(*t, r->time.wall_ns);
}

void sc_host_event(struct sc_region *r, struct sc_host *h, const char *what, Harpoon__V1__Severity severity,
                   const struct sc_operation *op, const char *message)
{
    char type[64];
    touch(r, &h->pb->update_time);
    fill(r, h);
    snprintf(type, sizeof type, "host.%s", what);
    sc_event_emit(r, &(struct sc_event_args){
                         .type = type,
                         .subject = h->pb->name,
                         .host = h->name,
                         .operation = op ? op->name : NULL,
                         .message = message,
                         .severity = severity,
                         .host_data = h->pb,
                     });
    sc_host_dirty(r, h, true);
}

/* ---- Being heard, and falling silent ---- */

void sc_host_heard(struct sc_region *r, struct sc_host *h)
{
    h->heard_ms = r->time.now_ms;
    if (h->pb->state == LOST)
        return;
    if (!h->silence.place)
        sc_timer_set(r, &h->silence, r->config.suspect_ms);
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
    h->heard_ms = r->time.now_ms;
    if (h->pb->state != LOST && h->pb->state != UNKNOWN)
        sc_timer_set(r, &h->silence, h->pb->state == SUSPECT ? r->config.unknown_ms : r->config.suspect_ms);
}

static void containers_unknown(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next; l != &h->containers && !r->failed; l = l->next) {
        struct sc_container *c = SC_OWNER(l, struct sc_container, on_host);
        if (c->deleting || c->cleanup)
            continue;
        sc_container_state(r, c, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNKNOWN, "its host does not answer");
        sc_container_event(r, c, "unknown", WARNING, NULL, "its host does not answer");
    }
}

void sc_host_silent(struct sc_region *r, struct sc_host *h)
{
    uint64_t silent_ms = r->time.now_ms - h->heard_ms;
    if (h->pb->state == LOST || h->pb->state == UNKNOWN)
        return;
    if (silent_ms >= r->config.unknown_ms) {
        h->pb->state = UNKNOWN;
        sc_host_refresh(r, h);
        sc_host_event(r, h, "unknown", HARPOON__V1__SEVERITY__SEVERITY_ERROR, NULL, "no word for long");
        containers_unknown(r, h);
        return;
    }
    if (silent_ms >= r->config.suspect_ms && h->pb->state != SUSPECT) {
        h->pb->state = SUSPECT;
        sc_host_refresh(r, h);
        sc_host_event(r, h, "suspect", WARNING, NULL, "no word for longer than the grace time");
    }
    uint64_t limit = h->pb->state == SUSPECT ? r->config.unknown_ms : r->config.suspect_ms;
    sc_timer_set(r, &h->silence, limit > silent_ms ? limit - silent_ms : 1);
}

static float part(int64_t used, int64_t of)
{
    if (used <= 0 || of <= 0)
        return 0;
    return used >= of ? 1 : (float)((double)used / (double)of);
}

void sc_host_metrics(struct sc_region *r, const Harpoon__Internal__V1__MetricsBatch *b)
{
    bool announce = false;
    for (size_t i = 0; i < b->n_samples; i++) {
        const Harpoon__Internal__V1__HostSample *x = b->samples[i];
        struct sc_host *h = hp_map_get(&r->hosts, x->host);
        if (!h || x->session > h->pb->session || (x->session == h->pb->session && strcmp(h->pb->router, b->router))) {
            announce = true; /* its attachment was missed */
            continue;
        }
        if (x->session != h->pb->session)
            continue;
        sc_host_heard(r, h);
        const Harpoon__V1__HostMetrics *m = x->metrics ? x->metrics->host : NULL;
        const Harpoon__V1__Resources *all = h->pb->allocatable;
        if (!m || !all)
            continue;
        float cpu = part(m->cpu_millis_used, all->cpu_millis), memory = part(m->memory_bytes_used, all->memory_bytes);
        sc_host_slot(h)->idle = 1 - (cpu > memory ? cpu : memory);
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
    m = *h->pb;
    m.zone = hello->zone;
    m.rack = hello->rack;
    m.labels = labels;
    m.n_labels = n;
    m.allocatable = hello->allocatable;
    m.facts = hello->facts;
    m.claimed = NULL;
    m.metrics = NULL;
    Harpoon__V1__Host *fresh = sc_pb_clone(r, &m.base);
    free(entries);
    if (!fresh)
        return;
    harpoon__v1__host__free_unpacked(h->pb, NULL);
    h->pb = fresh;
}

/* Sends again what the host's last session may have lost, and what waited for it. */
static void resume(struct sc_region *r, struct sc_host *h)
{
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        sc_dispatch(r, SC_OWNER(l, struct sc_container, on_host));
    }
}

void sc_host_attach(struct sc_region *r, const Harpoon__Internal__V1__Report *m)
{
    const Harpoon__Internal__V1__AgentHello *hello = m->attach;
    struct sc_host *h = hp_map_get(&r->hosts, m->host);
    bool first = !h;
    if (first && r->hosts.count >= r->config.hosts_max)
        return;
    if (first && !(h = sc_host_new(r, m->host)))
        return;
    if (m->session < h->pb->session || !*m->router)
        return; /* older than the one that is known */
    bool again = !first && m->session == h->pb->session;
    if (again && !strcmp(h->pb->router, m->router)) {
        sc_host_heard(r, h); /* announced again: nothing is new but, maybe, what it has */
        if (hello->digest)
            sc_inventory_check(r, h, hello->digest);
        return;
    }
    int before = h->pb->state;
    if (!again)
        take_hello(r, h, hello);
    sc_pb_set(r, &h->pb->router, m->router);
    h->pb->session = m->session;
    touch(r, &h->pb->attach_time);
    if (before != LOST)
        h->pb->state = h->pb->draining ? DRAINING : READY;
    h->inventory_id = 0;
    sc_timer_cancel(&r->timers, &h->resync);
    sc_host_refresh(r, h);
    sc_host_heard(r, h);
    sc_host_event(r, h, "attached", INFO, NULL, NULL);
    if (before == LOST || before == UNKNOWN || !hello->digest)
        sc_dispatch_inventory(r, h);
    else
        sc_inventory_check(r, h, hello->digest);
    resume(r, h);
}

void sc_host_detach(struct sc_region *r, struct sc_host *h, const char *reason)
{
    if (!sc_host_attached(h))
        return;
    bool orderly = !strcmp(reason, "goodbye") || !strcmp(reason, "router_draining");
    sc_pb_set(r, &h->pb->router, "");
    h->inventory_id = 0;
    sc_timer_cancel(&r->timers, &h->resync);
    sc_host_refresh(r, h);
    sc_host_event(r, h, "detached", orderly ? INFO : WARNING, NULL, reason);
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
    sc_pb_set(r, &h->pb->router, "");
    sc_timer_cancel(&r->timers, &h->silence);
    sc_timer_cancel(&r->timers, &h->resync);
    h->inventory_id = 0;
    sc_host_refresh(r, h);
    sc_host_event(r, h, "lost", HARPOON__V1__SEVERITY__SEVERITY_CRITICAL, op, NULL);
    for (struct sc_list *l = h->containers.next, *next; l != &h->containers && !r->failed; l = next) {
        next = l->next;
        sc_container_lost(r, SC_OWNER(l, struct sc_container, on_host));
    }
}

static void apply(struct sc_region *r, struct sc_host *h, struct sc_operation *op)
{
    char text[128];
    strcpy(op->host, h->name);
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
        sc_host_event(r, h, "uncordoned", INFO, op, NULL);
        break;
    case HARPOON__V1__VERB__VERB_DRAIN:
        h->pb->cordoned = h->pb->draining = true;
        if (h->pb->state == READY)
            h->pb->state = DRAINING;
        snprintf(text, sizeof text, "%" PRId64 " containers stay on it until they are deleted", h->container_count);
        sc_host_event(r, h, "draining", INFO, op, text);
        break;
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
    if (op->verb == HARPOON__V1__VERB__VERB_DECLARE_LOST && sc_host_attached(h) && h->pb->state != UNKNOWN) {
        Google__Rpc__Status *s =
            hp_status_new(HP_CODE_FAILED_PRECONDITION, "HOST_ATTACHED",
                          "host \"%s\" is attached to router \"%s\": it is not lost", op->target, h->pb->router);
        return hp_status_add_precondition(s, "HOST_ATTACHED", op->target, "is attached");
    }
    if (!dry_run)
        apply(r, h, op);
    return NULL;
}
