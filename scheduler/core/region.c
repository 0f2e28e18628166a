/* region.c — the region as a whole: its life, the way in, timers, and the small things that all of the core uses. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/codec.h"

void sc_region_config_defaults(struct sc_region_config *c)
{
    *c = (struct sc_region_config){
        .overcommit = {.cpu_percent = 150, .memory_percent = 100, .disk_percent = 100, .network_percent = 150},
        .weights = sc_weights_default,
        .load = {.use = {95, 95, 0, 90},
                 .pressure = {0, 10, 40, 0},
                 .close_percent = 80,
                 .after_ms = 30 * 1000,
                 .close_after_ms = 60 * 1000,
                 .average_ms = 15 * 1000,
                 .stale_ms = 30 * 1000},
        .failure_half_ms = 10 * 60 * 1000,
        .brake_percent = 30,
        .brake_hosts = 5,
        .suspect_ms = 30 * 1000,
        .unknown_ms = 5 * 60 * 1000,
        .class_label = "class",
        .dispatch_ms = 30 * 1000,
        .running_ms = 15 * 60 * 1000,
        .resync_ms = 10 * 1000,
        .republish_ms = 1000,
        .settle_ms = 1000,
        .restore_ms = 60 * 1000,
        .drain_parallel = 4,
        .preempt_parallel = 4,
        .remove_retry_ms = 60 * 1000,
        .events_max = 2 * 1000 * 1000,
        .events_age_ms = 7LL * 24 * 3600 * 1000,
        .operations_age_ms = 7LL * 24 * 3600 * 1000,
        .recent_max = 50 * 1000,
        .known_max = 500 * 1000,
        .backlog_max = 200 * 1000,
        .publish_max = 10 * 1000,
        .hosts_max = 20 * 1000,
        .containers_max = 1000 * 1000,
        .operations_max = 1000 * 1000,
        .open_max = 1000,
    };
}

/* ---- Memory and small things ---- */

void sc_fail(struct sc_region *r, int code)
{
    assert(code < 0);
    if (!r->failed)
        r->failed = code;
}

void *sc_alloc(struct sc_region *r, size_t size)
{
    void *p = calloc(1, size);
    if (!p)
        sc_fail(r, HP_ENOMEM);
    return p;
}

char *sc_strdup(struct sc_region *r, const char *s)
{
    char *copy = strdup(s ? s : "");
    if (!copy)
        sc_fail(r, HP_ENOMEM);
    return copy;
}

struct sc_blob *sc_blob_ref(struct sc_blob *b)
{
    assert(b->refs > 0);
    b->refs++;
    return b;
}

void sc_blob_unref(struct sc_blob *b)
{
    if (!b)
        return;
    assert(b->refs > 0);
    if (--b->refs == 0)
        free(b);
}

static struct sc_blob *blob_new(struct sc_region *r, size_t len)
{
    struct sc_blob *b = malloc(sizeof *b + len);
    if (!b) {
        sc_fail(r, HP_ENOMEM);
        return NULL;
    }
    b->refs = 1;
    b->len = len;
    return b;
}

struct sc_blob *sc_blob_pack(struct sc_region *r, const ProtobufCMessage *m)
{
    struct hp_packing p;
    hp_packing_init(&p, m);
    struct sc_blob *b = blob_new(r, p.len);
    if (b)
        hp_packing_write(&p, b->bytes);
    return b;
}

void sc_pb_set(struct sc_region *r, char **field, const char *value)
{
    if (*field && !strcmp(*field, value))
        return;
    char *copy = sc_strdup(r, value);
    if (!copy)
        return;
    if (*field && *field != (char *)protobuf_c_empty_string)
        free(*field);
    *field = copy;
}

void *sc_pb_clone(struct sc_region *r, const ProtobufCMessage *m)
{
    ProtobufCMessage *copy = hp_message_clone(m);
    if (!copy)
        sc_fail(r, HP_ENOMEM);
    return copy;
}

void *sc_pb_unpack(struct sc_region *r, const ProtobufCMessageDescriptor *d, const void *body, size_t len)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 64 << 20, .memory_max = 1 << 30};
    ProtobufCMessage *m = NULL;
    if (hp_unpack(d, body, len, &limits, &m, NULL) == HP_ENOMEM)
        sc_fail(r, HP_ENOMEM);
    return m;
}

void sc_timer_set(struct sc_region *r, struct sc_timer *t, uint64_t after_ms)
{
    uint64_t due = after_ms > UINT64_MAX / 2 ? UINT64_MAX / 2 : after_ms;
    if (sc_timer_arm(&r->timers, t, r->time.now_ms + due))
        sc_fail(r, HP_ENOMEM);
}

void sc_timestamp(Google__Protobuf__Timestamp *t, int64_t ns)
{
    google__protobuf__timestamp__init(t);
    t->seconds = ns / 1000000000;
    t->nanos = (int32_t)(ns % 1000000000);
}

int64_t sc_timestamp_ns(const Google__Protobuf__Timestamp *t)
{
    if (!t || t->seconds < 0 || t->seconds > INT64_MAX / 1000000000 - 1 || t->nanos < 0 || t->nanos > 999999999)
        return 0;
    return t->seconds * 1000000000 + t->nanos;
}

void sc_messages_append(struct sc_messages *list, struct sc_message *m)
{
    m->next = NULL;
    if (list->last)
        list->last->next = m;
    else
        list->first = m;
    list->last = m;
}

void sc_message_free(struct sc_message *m)
{
    if (!m)
        return;
    sc_blob_unref(m->body);
    free(m->correlation);
    free(m);
}

/* ---- Projects, groups, known ids ---- */

struct sc_project *sc_project_get(struct sc_region *r, const char *name)
{
    struct sc_project *p = hp_map_get(&r->projects, name);
    if (p)
        return p;
    p = sc_alloc(r, sizeof *p);
    if (!p)
        return NULL;
    assert(strlen(name) < sizeof p->name);
    strcpy(p->name, name);
    if (hp_map_put(&r->projects, name, p, NULL)) {
        sc_fail(r, HP_ENOMEM);
        free(p);
        return NULL;
    }
    return p;
}

static void group_key(char key[SC_GROUP_KEY_MAX], const char *kind, const char *project, const char *group)
{
    snprintf(key, SC_GROUP_KEY_MAX, "%s%s/%s", kind, project, group); /* names are bounded far below */
}

struct sc_group *sc_group_find(const struct sc_region *r, const char *kind, const char *project, const char *group)
{
    char key[SC_GROUP_KEY_MAX];
    group_key(key, kind, project, group);
    return hp_map_get(&r->groups, key);
}

struct sc_group *sc_group_get(struct sc_region *r, const char *kind, const char *project, const char *group)
{
    char key[SC_GROUP_KEY_MAX];
    group_key(key, kind, project, group);
    struct sc_group *g = hp_map_get(&r->groups, key);
    if (g || !(g = sc_alloc(r, sizeof *g + strlen(key) + 1)))
        return g;
    strcpy(g->key, key);
    sc_list_init(&g->waiting);
    if (hp_map_put(&r->groups, key, g, NULL)) {
        sc_fail(r, HP_ENOMEM);
        free(g);
        g = NULL;
    }
    return g;
}

void sc_group_move(struct sc_region *r, struct sc_group *g, struct sc_host *host, int delta)
{
    size_t i = 0;
    while (i < g->count && g->members[i].host != host)
        i++;
    if (i == g->count) {
        assert(delta > 0);
        if (g->count == g->room) {
            size_t room = g->room ? 2 * g->room : 4;
            struct sc_group_member *m = realloc(g->members, room * sizeof *m);
            if (!m) {
                sc_fail(r, HP_ENOMEM);
                return;
            }
            g->members = m;
            g->room = room;
        }
        g->members[g->count++] = (struct sc_group_member){.host = host};
    }
    g->members[i].count += delta;
    assert(g->members[i].count >= 0);
    if (g->members[i].count == 0)
        g->members[i] = g->members[--g->count];
}

static uint64_t known_hash(const char *id)
{
    uint64_t v = 0;
    for (int i = 0; i < 32 && id[i]; i++) {
        unsigned c = (unsigned char)id[i];
        v = (v << 4 | v >> 60) ^ (c <= '9' ? c - '0' : c - 'a' + 10); /* both halves, one over the other */
    }
    return v ? v : 1;
}

static void known_put(struct sc_known *k, uint64_t v)
{
    size_t i = (size_t)(v * 0x9E3779B97F4A7C15u >> 20) & (k->room - 1);
    while (k->slots[i] && k->slots[i] != v)
        i = (i + 1) & (k->room - 1);
    k->count += !k->slots[i];
    k->slots[i] = v;
}

bool sc_known_has(const struct sc_known *k, const char *id)
{
    if (!k->room)
        return false;
    uint64_t v = known_hash(id);
    size_t i = (size_t)(v * 0x9E3779B97F4A7C15u >> 20) & (k->room - 1);
    while (k->slots[i] && k->slots[i] != v)
        i = (i + 1) & (k->room - 1);
    return k->slots[i] == v;
}

void sc_known_drop(struct sc_known *k)
{
    free(k->slots);
    *k = (struct sc_known){0};
}

void sc_known_add(struct sc_region *r, const char *id)
{
    struct sc_known *k = &r->known;
    if (!k->complete)
        return;
    if (k->count >= r->config.known_max) {
        sc_known_drop(k); /* from now on the record is asked about ids that are not in memory */
        return;
    }
    if (2 * (k->count + 1) > k->room) {
        struct sc_known bigger = {.room = k->room ? 2 * k->room : 1024, .complete = true};
        bigger.slots = sc_alloc(r, bigger.room * sizeof *bigger.slots);
        if (!bigger.slots)
            return;
        for (size_t i = 0; i < k->room; i++)
            if (k->slots[i])
                known_put(&bigger, k->slots[i]);
        free(k->slots);
        *k = bigger;
    }
    known_put(k, known_hash(id));
}

/* ---- Life ---- */

int sc_region_new(const struct sc_region_config *config, const char *region, int64_t epoch, uint64_t seed,
                  struct sc_region **ret)
{
    assert(epoch > 0 && strlen(region) < 64);
    struct sc_region *r = calloc(1, sizeof *r);
    if (!r)
        return HP_ENOMEM;
    r->config = *config;
    strcpy(r->name, region);
    r->epoch = epoch;
    r->inventory_ids = epoch << 20; /* an answer to an earlier reign is none to this one */
    r->seed = seed;
    r->oldest = 1;
    r->mark_every = SC_MARK_EVERY;
    r->known.complete = true;
    r->stream_proven = true;
    r->republish.kind = SC_TIMER_REPUBLISH;
    r->settle.kind = SC_TIMER_SETTLE;
    r->pending_timer.kind = SC_TIMER_PENDING;
    r->restore_timer.kind = SC_TIMER_RESTORE;
    sc_topology_init(&r->topology, seed);
    sc_places_init(r);
    r->stale_timer.kind = SC_TIMER_STALE;
    hp_map_init(&r->hosts, config->hosts_max, seed);
    /* Active ones, one delete of each container, recent ones, and those that ended since the last batch. */
    hp_map_init(&r->operations, config->operations_max + config->containers_max + config->recent_max + 1000000, seed);
    hp_map_init(&r->projects, 2 * config->containers_max + 1000, seed);
    hp_map_init(&r->groups, config->containers_max, seed);
    hp_map_init(&r->reservations, config->operations_max, seed);
    sc_list_init(&r->holds);
    sc_list_init(&r->drains);
    sc_list_init(&r->preemptors);
    sc_list_init(&r->preemptions);
    hp_map_init(&r->makes, config->hosts_max + 1, seed);
    hp_map_init(&r->words, 2 * config->hosts_max + 1, seed);
    sc_images_init(&r->images, seed);
    struct sc_list *lists[] = {&r->pending,          &r->recent,      &r->intake, &r->backlog, &r->dirty_operations,
                               &r->dirty_containers, &r->dirty_hosts, &r->strays, &r->loads};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        sc_list_init(lists[i]);
    if (sc_containers_init(r)) {
        sc_region_free(r);
        return HP_ENOMEM;
    }
    *ret = r;
    return 0;
}

static void free_values(struct hp_map *m, void (*free_value)(void *value))
{
    for (struct hp_map_node *n = hp_map_first(m); n; n = hp_map_next(n))
        free_value(n->value);
    hp_map_done(m);
}

static void free_operation(void *value)
{
    sc_operation_free(value);
}

static void free_host(void *value)
{
    sc_host_free(value);
}

static void free_group(void *value)
{
    struct sc_group *g = value;
    free(g->members);
    free(g);
}

static void free_messages(struct sc_messages *list)
{
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        sc_message_free(m);
    }
    *list = (struct sc_messages){0};
}

void sc_region_free(struct sc_region *r)
{
    if (!r)
        return;
    while (!sc_list_empty(&r->intake))
        sc_intake_free(SC_OWNER(r->intake.next, struct sc_intake, link));
    while (!sc_list_empty(&r->backlog)) {
        struct sc_backlog *b = SC_OWNER(r->backlog.next, struct sc_backlog, link);
        sc_list_remove(&b->link);
        sc_blob_unref(b->body);
        free(b);
    }
    sc_stray_free_all(r);
    free_values(&r->operations, free_operation);
    sc_containers_done(r);
    free_values(&r->hosts, free_host);
    sc_host_bodies_free(r);
    hp_map_done(&r->reservations);
    free_values(&r->projects, free);
    free_values(&r->groups, free_group);
    for (size_t i = 0; i < r->event_count; i++)
        sc_blob_unref(r->events[i].body);
    free(r->events);
    free(r->deletes);
    free_messages(&r->verdicts);
    free_messages(&r->commands);
    free_messages(&r->released);
    sc_known_drop(&r->known);
    sc_timers_done(&r->timers);
    sc_places_done(r);
    sc_topology_done(&r->topology);
    free(r->slots);
    free(r->only);
    free(r->candidates);
    free(r->marks);
    free(r);
}

/* ---- The way in ---- */

static void expire(struct sc_region *r, struct sc_operation *op)
{
    if (op->deadline_ns > r->time.wall_ns) {
        /* The wall clock was set back, or the timer was cut short: wait for the rest. */
        sc_timer_set(r, &op->expiry, (uint64_t)(op->deadline_ns - r->time.wall_ns) / 1000000 + 1);
        return;
    }
    if (op->verb == HARPOON__V1__VERB__VERB_MOVE && sc_move_past(op))
        return; /* it has no place any more but the one it gets: it goes on */
    Google__Rpc__Status *s = hp_status_new(HP_CODE_DEADLINE_EXCEEDED, "OPERATION_EXPIRED",
                                           "the operation was not finished by its deadline%s%s", op->reason ? ": " : "",
                                           op->reason ? op->reason : "");
    sc_operation_abort(r, op, HARPOON__V1__STAGE__STAGE_EXPIRED, s);
}

/* The command under way is overdue: find out what the host has, and send what is missing. */
static void flight_overdue(struct sc_region *r, struct sc_container *c)
{
    struct sc_host *h = c->host;
    if (!h)
        return;
    if (c->flight == SC_WANT_NOTHING) {
        sc_dispatch_retry(r, c);
        return;
    }
    if (!sc_host_answers(h))
        return; /* when it does again it is asked anyway */
    sc_dispatch_inventory(r, h);
    sc_timer_set(r, &sc_open(c)->flight_timer, r->config.dispatch_ms);
}

static void fire(struct sc_region *r, struct sc_timer *t)
{
    switch (t->kind) {
    case SC_TIMER_EXPIRY:
        expire(r, SC_OWNER(t, struct sc_operation, expiry));
        break;
    case SC_TIMER_FLIGHT:
        flight_overdue(r, SC_OWNER(t, struct sc_open, flight_timer)->container);
        break;
    case SC_TIMER_SILENCE:
        sc_host_silent(r, SC_OWNER(t, struct sc_host, silence));
        break;
    case SC_TIMER_RESYNC: {
        struct sc_host *h = SC_OWNER(t, struct sc_host, resync);
        h->inventory_id = 0;
        if (sc_host_answers(h))
            sc_dispatch_inventory(r, h);
        break;
    }
    case SC_TIMER_REPUBLISH:
        sc_backlog_send(r, &r->released);
        break;
    case SC_TIMER_SETTLE:
        r->settle_due = true; /* for the next flush */
        break;
    case SC_TIMER_PENDING: /* the next flush goes on */
        break;
    case SC_TIMER_STALE:
        sc_pressure_stale(r);
        break;
    case SC_TIMER_RESTORE:
        sc_restore_check(r);
        break;
    }
}

static void run_timers(struct sc_region *r)
{
    struct sc_timer *t;
    while (!r->failed && (t = sc_timers_pop(&r->timers, r->time.now_ms)))
        fire(r, t);
}

static void lead(struct sc_region *r, bool stream_away)
{
    assert(!r->leading);
    r->leading = true;
    sc_load_done(r);
    for (size_t i = 0; i < r->slot_count; i++) {
        sc_host_refresh(r, r->slots[i].info->host);
        sc_host_watch(r, r->slots[i].info->host);
    }
    sc_preempt_lead(r);
    sc_brake_lead(r);
    if (r->restored)
        sc_restore_lead(r);
    sc_backlog_stream(r, stream_away);
    for (struct sc_list *l = r->all.next; l != &r->all && !r->failed; l = l->next)
        sc_container_next(r, SC_OWNER(l, struct sc_container, order));
    r->freed.all = true;
    sc_dispatch_announce(
        r, ""); /* who is there, and with what: a stray that the last reign was after shows in the digest */
}

int sc_region_step(struct sc_region *r, struct sc_ev *ev, struct hp_error *e)
{
    int result = 0;
    assert(r->leading || ev->kind == SC_EV_LEAD);
    r->time = ev->time;
    switch (ev->kind) {
    case SC_EV_LEAD:
        lead(r, ev->stream_away);
        break;
    case SC_EV_REQUEST:
        result = sc_request_take(r, ev, e);
        break;
    case SC_EV_REPORT:
        result = sc_report_take(r, ev->report.message, e);
        if (!result)
            r->acks[SC_SOURCE_REPORTS] = (struct sc_ack){true, ev->report.tag};
        break;
    case SC_EV_METRICS:
        sc_host_metrics(r, ev->metrics);
        break;
    case SC_EV_COMMITTED:
        sc_batch_committed(r, ev->committed);
        break;
    case SC_EV_LOOKED_UP:
        sc_request_looked_up(r, ev->looked_up);
        break;
    case SC_EV_PUBLISHED:
        sc_backlog_published(r, ev->published.sequence, ev->published.confirmed);
        break;
    case SC_EV_STREAM:
        sc_backlog_stream(r, ev->stream_away);
        break;
    case SC_EV_FETCHED:
        sc_backlog_fetched(r, ev->fetched);
        break;
    case SC_EV_RETURNED:
        sc_host_returned(r, ev->returned.router, ev->returned.host, ev->returned.session);
        break;
    case SC_EV_TIMER:
        break;
    }
    if (!r->failed)
        sc_brake_check(r); /* a host that is back counts before others are given up */
    run_timers(r);
    if (!r->failed)
        sc_brake_check(r);
    return result;
}

int sc_region_flush(struct sc_region *r, struct sc_time time, struct sc_effects *out, struct hp_error *e)
{
    r->time = time;
    if (!r->failed)
        sc_pending_try(r);
    if (!r->failed)
        sc_preempt_try(r);
    if (!r->failed)
        sc_drain_try(r);
    if (!r->failed)
        out->lookup = sc_request_lookup(r);
    int result = r->failed ? r->failed : sc_batch_cut(r, out);
    if (result)
        return hp_fail(e, result, "region \"%s\": %s", r->name, hp_strerror(result));
    out->fetch = sc_backlog_page(r);
    sc_containers_rest(r);
    return 0;
}

uint64_t sc_region_deadline(const struct sc_region *r)
{
    return sc_timers_next(&r->timers);
}

bool sc_region_congested(const struct sc_region *r)
{
    return r->stream_proven && r->backlog_count > r->config.backlog_max;
}

void sc_region_stats(const struct sc_region *r, struct sc_region_stats *ret)
{
    *ret = (struct sc_region_stats){
        .sequence = r->sequence,
        .watermark = r->watermark,
        .backlog = (int64_t)r->backlog_count,
        .hosts = (int64_t)r->hosts.count,
        .containers = (int64_t)r->containers.count,
        .operations_active = (int64_t)r->active_count,
        .pending = (int64_t)r->pending_count,
        .hosts_attached = (int64_t)r->attached_count,
        .quarantined = (int64_t)r->stray_count,
        .breakers_open = (int64_t)r->breaker_count,
        .braked = r->braked,
        .full = r->full,
        .restored = r->restored,
        .victims = r->victims,
        .preempted = r->preempted,
    };
}
