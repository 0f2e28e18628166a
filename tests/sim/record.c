/* record.c — MariaDB as far as the scheduler sees it: one transaction at a time, which asserts the epoch. Every commit is held against what must never happen. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "sim/sim.h"
#include "wire/codec.h"

#define STAGE(x) HARPOON__V1__STAGE__STAGE_##x

struct uid_row {
    int64_t generation;
    bool forgotten; /* a backup took the record's place, and does not have it */
};

void sim_tables_init(struct sim_tables *t)
{
    hp_map_init(&t->operations, 1 << 20, 1);
    hp_map_init(&t->containers, 1 << 20, 2);
    hp_map_init(&t->hosts, 1 << 20, 3);
}

static void tables_done(struct sim_tables *t)
{
    for (struct hp_map_node *n = hp_map_first(&t->operations); n; n = hp_map_next(n))
        sc_blob_unref(((struct sim_operation_row *)n->value)->body);
    for (struct hp_map_node *n = hp_map_first(&t->containers); n; n = hp_map_next(n))
        sc_blob_unref(((struct sim_row *)n->value)->body);
    for (struct hp_map_node *n = hp_map_first(&t->hosts); n; n = hp_map_next(n))
        sc_blob_unref(((struct sim_row *)n->value)->body);
    hp_map_done(&t->operations);
    hp_map_done(&t->containers);
    hp_map_done(&t->hosts);
}

void sim_record_new(struct sim_world *w)
{
    struct sim_record *r = w->record = sim_alloc(w, sizeof *r);
    sim_tables_init(&r->tables);
    hp_map_init(&r->uids, 1 << 20, 4);
    r->oldest = r->begin = 1;
}

void sim_record_done(struct sim_world *w)
{
    struct sim_record *r = w->record;
    tables_done(&r->tables);
    if (r->backup)
        tables_done(r->backup);
    for (size_t i = 0; i < r->event_count; i++) {
        if (!r->events[i].body)
            continue;
        sc_blob_unref(r->events[i].body);
        hp_unpacked_free(&r->events[i].event->base);
    }
    hp_map_done(&r->uids);
    free(r->events);
}

bool sim_record_is_down(const struct sim_world *w)
{
    return w->now < w->record->down_until;
}

bool sim_record_is_away(const struct sim_world *w, int i)
{
    return sim_record_is_down(w) || w->now < w->record->cut_scheduler[i];
}

static void put(struct hp_map *m, const char *key, void *value)
{
    if (hp_map_put(m, key, value, NULL))
        abort();
}

/* ---- A transaction ---- */

/* I10: a change has succeeded only when the host's journal durably says so. */
static void check_success(struct sim_world *w, const struct sim_operation_row *row)
{
    bool of_container = row->verb < HARPOON__V1__VERB__VERB_CORDON || row->verb == HARPOON__V1__VERB__VERB_MOVE;
    if (!of_container || !*row->host || !*row->uid) /* of a host, or a cancel */
        return;
    const char *slash = strrchr(row->host, '/');
    int host = atoi((slash ? slash + 1 : row->host) + 1);
    if (sim_host_given_up(w, host)) /* what it had is over without its word */
        return;
    int64_t known = sim_host_durable_generation(w, host, row->uid);
    sim_check(w, known >= row->generation, "I10",
              "operation %s (verb %d) succeeded with generation %" PRId64 " of %s, but the journal of %s has %" PRId64,
              row->id, row->verb, row->generation, row->uid, row->host, known);
}

static void trace_operation(struct sim_world *w, const struct sim_operation_row *row)
{
    if (!sim_tracing(w))
        return;
    const char *host = strrchr(row->host, '/');
    sim_trace(w, "record: operation %.8s %s is %s%s%.6s gen %" PRId64 "%s%s", row->id,
              protobuf_c_enum_descriptor_get_value(&harpoon__v1__verb__descriptor, row->verb)->name + 5,
              protobuf_c_enum_descriptor_get_value(&harpoon__v1__stage__descriptor, row->stage)->name + 6,
              *row->uid ? ", " : "", row->uid, row->generation, host ? " on " : "", host ? host + 1 : "");
}

/* The container gets this uid with the same transaction: it was made anew on another host, and perhaps deleted at once, without a row of its own. */
static bool is_reborn(const struct sc_batch *b, const char *target, const char *old, const char *uid)
{
    for (size_t i = 0; i < b->container_count; i++)
        if (!strcmp(b->containers[i].name, target) && !strcmp(b->containers[i].uid, uid))
            return true;
    for (size_t i = 0; i < b->delete_count; i++)
        if (!strcmp(b->deletes[i].uid, uid) || !strcmp(b->deletes[i].uid, old))
            return true;
    return false;
}

static void store_operation(struct sim_world *w, const struct sc_batch *b, const struct sc_operation_row *x)
{
    struct sim_record *r = w->record;
    struct sim_operation_row *row = hp_map_get(&r->tables.operations, x->id);
    if (x->fresh && row) {
        sim_violation(w, "I2", "operation %s is recorded a second time", x->id);
    } else if (!x->fresh && !row) {
        sim_violation(w, "I1", "operation %s changes, and was never recorded", x->id);
    }
    if (!row) {
        row = sim_alloc(w, sizeof *row);
        snprintf(row->id, sizeof row->id, "%s", x->id);
        put(&r->tables.operations, x->id, row);
    } else {
        sim_check(w, row->active, "I1", "operation %s had ended in stage %d and moves to %d", x->id, row->stage,
                  x->stage);
    }
    sc_blob_unref(row->body);
    row->body = sc_blob_ref(x->body);
    row->serial = x->serial;
    row->active = x->active;
    row->stage = x->stage;
    Harpoon__Internal__V1__OperationRecord *m =
        sim_unpack(&harpoon__internal__v1__operation_record__descriptor, x->body->bytes, x->body->len);
    assert(m->operation);
    row->verb = (int)m->operation->verb;
    row->generation = m->operation->generation;
    if (*row->uid && *m->operation->uid)
        sim_check(w, !strcmp(row->uid, m->operation->uid) || is_reborn(b, x->target, row->uid, m->operation->uid), "I2",
                  "operation %s had uid %s and now has %s", x->id, row->uid, m->operation->uid);
    snprintf(row->uid, sizeof row->uid, "%s", m->operation->uid);
    snprintf(row->host, sizeof row->host, "%s", m->operation->host);
    snprintf(row->target, sizeof row->target, "%s", x->target);
    if (x->fresh && *m->operation->preempted_by)
        sim_preempt_check(w, m->operation);
    hp_unpacked_free(&m->base);
    if (row->stage == STAGE(SUCCEEDED) && row->verb == HARPOON__V1__VERB__VERB_DECLARE_LOST)
        sim_host_give_up(w, atoi(strrchr(row->host, '/') + 2));
    trace_operation(w, row);
    sim_restore_asked(w, row);
}

static void store_container(struct sim_world *w, const struct sc_container_row *x)
{
    struct sim_record *r = w->record;
    struct sim_row *row = hp_map_get(&r->tables.containers, x->name);
    struct uid_row *uid = hp_map_get(&r->uids, x->uid);
    if (!row) {
        row = sim_alloc(w, sizeof *row);
        snprintf(row->key, sizeof row->key, "%s", x->name);
        put(&r->tables.containers, x->name, row);
    } else if (!row->gone) {
        sim_check(w, !strcmp(row->uid, x->uid), "I4", "%s has uid %s and another one, %s", x->name, row->uid, x->uid);
    }
    if (!uid) {
        uid = sim_alloc(w, sizeof *uid);
        put(&r->uids, x->uid, uid);
    }
    sim_check(w, !uid->forgotten, "I4", "%s gets uid %s, which was used before the record was restored", x->name,
              x->uid);
    sim_check(w, x->generation >= uid->generation, "I4", "generation of %s falls from %" PRId64 " to %" PRId64, x->uid,
              uid->generation, x->generation);
    uid->generation = x->generation;
    row->gone = false;
    snprintf(row->uid, sizeof row->uid, "%s", x->uid);
    sc_blob_unref(row->body);
    row->body = sc_blob_ref(x->body);
}

bool sim_record_places(const struct sim_world *w, const char *name, const char *uid, int host)
{
    const struct sim_row *row = hp_map_get(&w->record->tables.containers, name);
    if (!row || row->gone || strcmp(row->uid, uid) != 0)
        return false;
    Harpoon__Internal__V1__ContainerRecord *m =
        sim_unpack(&harpoon__internal__v1__container_record__descriptor, row->body->bytes, row->body->len);
    assert(m->container);
    const char *at = strrchr(m->container->status->host, '/');
    bool here = at && atoi(at + 2) == host;
    hp_unpacked_free(&m->base);
    return here;
}

static int restarts_in(const struct sim_tables *t, const char *uid)
{
    int count = 0;
    for (struct hp_map_node *n = hp_map_first(&t->operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        count += !strcmp(row->uid, uid) &&
                 (row->verb == HARPOON__V1__VERB__VERB_RESTART || row->verb == HARPOON__V1__VERB__VERB_UPDATE ||
                  row->verb == HARPOON__V1__VERB__VERB_START); /* of one that had ended, as far as anybody knew */
    }
    return count;
}

int sim_record_restarts(const struct sim_world *w, const char *uid)
{
    const struct sim_record *r = w->record;
    return restarts_in(&r->tables, uid) + (r->restored ? restarts_in(r->backup, uid) : 0);
}

static void remove_containers(struct sim_world *w, const struct sc_batch *b)
{
    for (size_t i = 0; i < b->delete_count; i++)
        for (struct hp_map_node *n = hp_map_first(&w->record->tables.containers); n; n = hp_map_next(n)) {
            struct sim_row *row = n->value;
            if (!row->gone && !strcmp(row->uid, b->deletes[i].uid))
                row->gone = true;
        }
}

/* As a reader takes it in. Counts how often an operation's end is told. */
static Harpoon__V1__Event *event_of(struct sim_world *w, const struct sc_event_row *x)
{
    Harpoon__V1__Event *m = sim_unpack(&harpoon__v1__event__descriptor, x->body->bytes, x->body->len);
    if (sim_tracing(w))
        sim_trace(w, "record: event %" PRId64 " %s %s%s%s", x->sequence, m->type + 8, strrchr(m->subject, '/') + 1,
                  *m->message ? ": " : "", m->message);
    sim_check(w, m->sequence == x->sequence, "I9", "event %" PRId64 " says that it is %" PRId64, x->sequence,
              m->sequence);
    if (m->data_case == HARPOON__V1__EVENT__DATA_OPERATION_DATA && m->operation_data->stage >= STAGE(SUCCEEDED)) {
        struct sim_operation_row *row = hp_map_get(&w->record->tables.operations, strrchr(m->operation, '/') + 1);
        if (row)
            row->ends++;
        sim_check(w, row && row->ends == 1, "I1", "%s has ended %d times", m->operation, row ? row->ends : -1);
    }
    return m;
}

static void append_event(struct sim_record *r, struct sim_event_row row)
{
    if (r->event_count == r->event_room) {
        r->event_room = r->event_room ? 2 * r->event_room : 512;
        r->events = realloc(r->events, r->event_room * sizeof *r->events);
    }
    r->events[r->event_count++] = row;
}

void sim_record_begin_anew(struct sim_world *w, int64_t beyond)
{
    struct sim_record *r = w->record;
    for (int64_t i = 0; i < beyond; i++)
        append_event(r, (struct sim_event_row){0});
    r->sequence = r->watermark = (int64_t)r->event_count;
    r->oldest = r->begin = r->sequence + 1;
    for (struct hp_map_node *n = hp_map_first(&r->uids); n; n = hp_map_next(n))
        *(struct uid_row *)n->value = (struct uid_row){.forgotten = true};
    for (struct hp_map_node *n = hp_map_first(&r->tables.containers); n; n = hp_map_next(n)) {
        struct uid_row *uid = hp_map_get(&r->uids, ((const struct sim_row *)n->value)->uid);
        uid->forgotten = false;
    }
}

static void store_events(struct sim_world *w, const struct sc_batch *b)
{
    struct sim_record *r = w->record;
    for (size_t i = 0; i < b->event_count; i++) {
        const struct sc_event_row *x = &b->events[i];
        sim_check(w, x->sequence == (int64_t)r->event_count + 1, "I9", "event %" PRId64 " is recorded behind %zu",
                  x->sequence, r->event_count);
        append_event(r, (struct sim_event_row){x->sequence, x->time_ns, sc_blob_ref(x->body), event_of(w, x)});
    }
    sim_check(w, b->sequence == (int64_t)r->event_count, "I9", "the region's sequence is %" PRId64 " of %zu events",
              b->sequence, r->event_count);
    sim_check(w, b->watermark >= r->watermark, "I9", "the watermark falls from %" PRId64 " to %" PRId64, r->watermark,
              b->watermark);
    for (int64_t s = r->watermark + 1; s <= b->watermark; s++)
        sim_check(w, sim_stream_has(w, s), "I9", "the watermark is %" PRId64 ", but the stream lacks %" PRId64,
                  b->watermark, s);
}

enum sim_commit sim_record_commit(struct sim_world *w, int scheduler, const struct sc_batch *b)
{
    struct sim_record *r = w->record;
    bool lost = r->unknown_next > 0;
    r->unknown_next -= lost;
    if (sim_record_is_away(w, scheduler))
        return SIM_COMMIT_DOWN;
    if (lost && sim_chance(w, 50))
        return SIM_COMMIT_LOST_ANSWER; /* it was rolled back */
    if (b->epoch != r->epoch && w->o->broken != SIM_BREAK_EPOCH) {
        r->fenced++;
        return SIM_COMMIT_FENCED;
    }
    remove_containers(w, b);
    for (size_t i = 0; i < b->operation_count; i++)
        store_operation(w, b, &b->operations[i]);
    for (size_t i = 0; i < b->operation_count; i++)
        if (b->operations[i].stage == STAGE(SUCCEEDED))
            check_success(w, hp_map_get(&r->tables.operations, b->operations[i].id));
    for (size_t i = 0; i < b->container_count; i++)
        store_container(w, &b->containers[i]);
    for (size_t i = 0; i < b->host_count; i++) {
        struct sim_row *row = hp_map_get(&r->tables.hosts, b->hosts[i].name);
        if (!row) {
            row = sim_alloc(w, sizeof *row);
            snprintf(row->key, sizeof row->key, "%s", b->hosts[i].name);
            put(&r->tables.hosts, row->key, row);
        }
        sc_blob_unref(row->body);
        row->body = sc_blob_ref(b->hosts[i].body);
    }
    store_events(w, b);
    r->sequence = b->sequence;
    r->watermark = b->watermark;
    r->oldest = b->oldest;
    r->comparing = b->restored;
    r->commits++;
    return lost ? SIM_COMMIT_LOST_ANSWER : SIM_COMMIT_DONE;
}

/* ---- Reading ---- */

Harpoon__V1__Event *sim_record_event(struct sim_world *w, int64_t sequence, const uint8_t *bytes, size_t len)
{
    const struct sim_record *r = w->record;
    if (sequence < 1 || (size_t)sequence > r->event_count || !r->events[sequence - 1].body) {
        sim_violation(w, "I10", "the stream has event %" PRId64 ", which is not recorded", sequence);
        return NULL;
    }
    const struct sim_event_row *row = &r->events[sequence - 1];
    sim_check(w, len == row->body->len && !memcmp(bytes, row->body->bytes, len), "I9",
              "event %" PRId64 " of the stream is not the record's", sequence);
    return row->event;
}

void sim_record_look_up(struct sim_world *w, struct sc_lookup *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct sim_operation_row *row = hp_map_get(&w->record->tables.operations, l->rows[i].id);
        l->rows[i].found = row != NULL;
        sim_trace(w, "record: looked up operation %.8s: %s", l->rows[i].id, row ? "found" : "not there");
        if (!row)
            continue;
        l->rows[i].body = malloc(row->body->len);
        l->rows[i].body_len = row->body->len;
        memcpy(l->rows[i].body, row->body->bytes, row->body->len);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct sim_row *x = *(const struct sim_row *const *)a, *y = *(const struct sim_row *const *)b;
    return strcmp(x->key, y->key);
}

static int by_serial(const void *a, const void *b)
{
    const struct sim_operation_row *x = *(const struct sim_operation_row *const *)a;
    const struct sim_operation_row *y = *(const struct sim_operation_row *const *)b;
    return x->serial < y->serial ? -1 : x->serial > y->serial;
}

/* The values of a map, sorted; free it. */
static void **sorted(const struct hp_map *m, int (*compare)(const void *, const void *))
{
    void **all = calloc(m->count + 1, sizeof *all);
    size_t n = 0;
    for (struct hp_map_node *x = hp_map_first(m); x; x = hp_map_next(x))
        all[n++] = x->value;
    qsort(all, n, sizeof *all, compare);
    return all;
}

static void must(int rc, const struct hp_error *e)
{
    if (rc) {
        fprintf(stderr, "the record cannot be loaded: %s\n", e->message);
        abort();
    }
}

struct sc_region *sim_record_take_over(struct sim_world *w, int scheduler, const struct sc_region_config *c,
                                       uint64_t seed)
{
    struct sim_record *r = w->record;
    struct sc_region *region = NULL;
    struct hp_error e = {0};
    if (sim_record_is_away(w, scheduler))
        return NULL;
    must(sc_region_new(c, "r1", ++r->epoch, seed, &region), &e);
    sc_region_load_state(region, r->sequence, r->watermark, r->oldest);
    if (r->comparing)
        sc_region_load_restored(region);
    struct sim_row **hosts = (struct sim_row **)sorted(&r->tables.hosts, by_key);
    struct sim_row **containers = (struct sim_row **)sorted(&r->tables.containers, by_key);
    struct sim_operation_row **operations = (struct sim_operation_row **)sorted(&r->tables.operations, by_serial);
    for (struct sim_row **x = hosts; *x; x++)
        must(sc_region_load_host(region, (*x)->key, (*x)->body->bytes, (*x)->body->len, &e), &e);
    for (struct sim_row **x = containers; *x; x++)
        if (!(*x)->gone)
            must(sc_region_load_container(region, (*x)->key, (*x)->body->bytes, (*x)->body->len, &e), &e);
    for (struct sim_operation_row **x = operations; *x; x++)
        if ((*x)->active)
            must(sc_region_load_operation(region, (*x)->id, (*x)->serial, (*x)->body->bytes, (*x)->body->len, &e), &e);
    bool complete = w->seed % 2;
    for (struct sim_operation_row **x = operations; *x; x++)
        must(sc_region_load_known(region, (*x)->id), &e);
    for (size_t i = (size_t)r->watermark; i < r->event_count; i++) {
        const struct sim_event_row *x = &r->events[i];
        must(sc_region_load_event(region, x->sequence, x->body->bytes, x->body->len, &e), &e);
    }
    sc_region_load_known_done(region, complete);
    free(hosts);
    free(containers);
    free(operations);
    return region;
}
