/* scheduler_property_test.c — the scheduler's core against hosts that lose, repeat, delay, refuse and fail, with takeovers in between, by seeded chance.
 *
 * Checked all along (sc_world.c, sc_region_check): claims within capacity, sequences without gap, nothing published before its commit, what has ended never
 * changes. Checked at the end, when everything has calmed down: every operation has ended, exactly once by its events, and every host has exactly what the record
 * says, and every event was told in order. HARPOON_SEED runs one seed, HARPOON_SEEDS that many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event.pb-c.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define OUTCOME(x) HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_##x

enum { HOSTS = 4, ITEMS_MAX = 128, REPORTS_MAX = 512, NAMES = 12, STEPS = 400 };

struct item {
    char uid[27], name[16];
    int64_t generation, restart_serial;
    int64_t cpu_millis;
    int desired, outcome; /* of the last command that was not stale */
    bool live, tombstone, quarantined;
    bool late; /* made by a repeat of what was refused */
};

struct report {
    char uid[27];
    int64_t generation;
    int outcome; /* 0: journalled */
    int state;
};

struct host {
    char name[8];
    int64_t session;
    bool attached;
    struct item items[ITEMS_MAX];
    size_t item_count;
    char refused[ITEMS_MAX][27];
    size_t refused_count;
    struct report reports[REPORTS_MAX]; /* not yet taken by the broker, in order */
    size_t report_count;
};

struct run {
    struct scw *w;
    struct hp_rng rng;
    struct host hosts[HOSTS];
    unsigned next_request;
    size_t taken; /* commands that the hosts have seen */
    bool calm;    /* no more accidents */
    bool loses_stream;
};

static int64_t pages; /* of events, read back in all runs */

static bool chance(struct run *x, uint64_t percent)
{
    return hp_rng_below(&x->rng, 100) < percent;
}

static struct item *find(struct host *h, const char *uid)
{
    for (size_t i = 0; i < h->item_count; i++)
        if (!strcmp(h->items[i].uid, uid))
            return &h->items[i];
    return NULL;
}

static void say(struct host *h, const struct item *i, int outcome)
{
    assert_true(h->report_count < REPORTS_MAX);
    struct report *r = &h->reports[h->report_count++];
    *r = (struct report){.generation = i->generation, .outcome = outcome};
    strcpy(r->uid, i->uid);
    if (i->live)
        r->state = i->desired == 2 ? 4 : 3; /* STOPPED, RUNNING */
}

/* A name runs in one place. (Of a create that was refused a repeat may still be made, until the removal that follows reaches the host: those do not count, nor what is under
 * quarantine, of which operators were told.) */
static void check_alone(const struct run *x, const struct item *i)
{
    for (int k = 0; k < HOSTS && !i->late; k++)
        for (size_t n = 0; n < x->hosts[k].item_count; n++) {
            const struct item *other = &x->hosts[k].items[n];
            bool counts = other != i && other->live && !other->late && !other->quarantined;
            if (counts && !strcmp(other->name, i->name))
                fail_msg("%s runs on %s (%s) and again (%s)", i->name, x->hosts[k].name, other->uid, i->uid);
        }
}

static bool was_refused(const struct host *h, const char *uid)
{
    for (size_t i = 0; i < h->refused_count; i++)
        if (!strcmp(h->refused[i], uid))
            return true;
    return false;
}

/* What a host does with a command. */
static void apply(struct run *x, struct host *h, const struct scw_command *c)
{
    struct item *i = find(h, c->uid);
    if (i && c->generation < i->generation) {
        struct item old = *i;
        old.generation = c->generation;
        old.live = false;
        say(h, &old, OUTCOME(STALE));
        return;
    }
    bool failed_removal = i && i->live && c->verb == 2 && i->outcome == OUTCOME(FAILED);
    if (i && c->generation == i->generation && !failed_removal) { /* which alone is tried anew */
        say(h, i, i->outcome);
        return;
    }
    if (!i) {
        assert_true(h->item_count < ITEMS_MAX);
        i = &h->items[h->item_count++];
        *i = (struct item){0};
        strcpy(i->uid, c->uid);
        snprintf(i->name, sizeof i->name, "%s", strrchr(c->container, '/') + 1);
        if (!x->calm && c->verb == 1 && chance(x, 15)) { /* not tried: nothing is remembered */
            i->generation = c->generation;
            say(h, i, OUTCOME(REFUSED));
            assert_true(h->refused_count < ITEMS_MAX);
            strcpy(h->refused[h->refused_count++], c->uid);
            h->item_count--;
            return;
        }
    }
    assert_false(i->tombstone && c->verb == 1); /* nothing applies above a tombstone but its own repeat */
    i->generation = c->generation;
    say(h, i, 0);
    if (!x->calm && chance(x, 15)) {
        i->outcome = OUTCOME(FAILED);
    } else if (c->verb == 2) {
        i->outcome = OUTCOME(DONE);
        i->live = false;
        i->tombstone = true;
    } else {
        i->outcome = OUTCOME(DONE);
        i->live = true;
        i->late = was_refused(h, i->uid);
        check_alone(x, i);
        i->cpu_millis = c->cpu_millis;
        i->desired = c->desired;
        i->restart_serial = c->restart_serial;
    }
    say(h, i, i->outcome);
}

static void send_inventory(struct run *x, struct host *h, int64_t request_id)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__Inventory inv = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    static Harpoon__Internal__V1__InventoryItem xs[ITEMS_MAX], *ps[ITEMS_MAX];
    static Harpoon__V1__ContainerStatus ss[ITEMS_MAX];
    size_t n = 0;
    for (size_t k = 0; k < h->item_count; k++) {
        const struct item *i = &h->items[k];
        if (!i->live && !i->tombstone)
            continue;
        harpoon__internal__v1__inventory_item__init(&xs[n]);
        harpoon__v1__container_status__init(&ss[n]);
        xs[n].uid = (char *)i->uid;
        xs[n].generation = i->generation;
        xs[n].tombstone = i->tombstone;
        xs[n].restart_serial = i->restart_serial;
        ss[n].state = i->live ? (i->desired == 2 ? 4 : 3) : 0;
        xs[n].status = &ss[n];
        ps[n] = &xs[n];
        n++;
    }
    inv.request_id = request_id;
    inv.items = ps;
    inv.n_items = n;
    inv.last = true;
    m.session = h->session;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY;
    m.inventory = &inv;
    scw_report(x->w, h->name, &m);
}

static void attach(struct run *x, struct host *h)
{
    h->attached = true;
    h->session++;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__StorageClass fast = HARPOON__V1__STORAGE_CLASS__INIT, bulk = HARPOON__V1__STORAGE_CLASS__INIT,
                              *classes[] = {&fast, &bulk};
    fast.name = (char *)"fast";
    bulk.name = (char *)"bulk";
    fast.size_bytes = x->calm || chance(x, 80) ? 12LL << 30 : 6LL << 30; /* some come back with less */
    bulk.size_bytes = 20LL << 30;
    facts.storage_classes = classes;
    facts.n_storage_classes = x->calm || chance(x, 90) ? 2 : 1;
    x->w->facts = &facts;
    scw_attach_digest(x->w, h->name, h->session, 4000, 4096, -1, 0); /* never equal: always compared */
    x->w->facts = NULL;
}

static struct host *host_named(struct run *x, const char *name)
{
    for (int i = 0; i < HOSTS; i++)
        if (!strcmp(x->hosts[i].name, name))
            return &x->hosts[i];
    return NULL;
}

/* Delivers the commands that have left, or loses them. */
static void deliver(struct run *x)
{
    while (x->taken < x->w->command_count) {
        struct scw_command c = x->w->commands[x->taken++];
        struct host *h = host_named(x, c.host);
        assert_non_null(h);
        bool lost = !x->calm && chance(x, 20);
        if (lost || !h->attached || c.session != h->session)
            continue;
        if (c.verb == 0)
            send_inventory(x, h, c.request_id);
        else if (c.verb != 3)
            apply(x, h, &c);
        else if (find(h, c.uid))
            find(h, c.uid)->quarantined = true;
    }
    x->taken = x->w->command_count = 0;
}

/* Some of the reports reach the scheduler; some twice. */
static void report(struct run *x)
{
    struct host *h = &x->hosts[hp_rng_below(&x->rng, HOSTS)];
    size_t n = x->calm ? h->report_count : hp_rng_below(&x->rng, h->report_count + 1);
    if (!h->attached)
        return;
    for (size_t i = 0; i < n; i++) {
        struct report r = h->reports[0];
        bool again = !x->calm && chance(x, 10);
        if (!again) {
            h->report_count--;
            memmove(h->reports, h->reports + 1, h->report_count * sizeof r);
        }
        if (r.outcome)
            scw_result(x->w, h->name, r.uid, r.generation, (Harpoon__Internal__V1__CommandOutcome)r.outcome, r.state,
                       r.outcome == OUTCOME(DONE) ? NULL : "by chance");
        else
            scw_journalled(x->w, h->name, r.uid, r.generation);
    }
}

/* Most may move; those of a group are never together. */
static void create(struct run *x, unsigned id, const char *name)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources size = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    size.cpu_millis = 200 + 100 * (int64_t)hp_rng_below(&x->rng, 20);
    size.memory_bytes = 256 << 20;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &size;
    spec.stateless = chance(x, 70);
    if (chance(x, 20))
        p.anti_affinity_group = (char *)"apart";
    else if (chance(x, 20))
        p.affinity_group = (char *)"pair";
    spec.placement = &p;
    Harpoon__V1__VolumeMount volume = HARPOON__V1__VOLUME_MOUNT__INIT, *volumes[] = {&volume};
    if (!spec.stateless || chance(x, 20)) { /* the second half are in the way of a drain */
        volume.volume = (char *)"data";
        volume.path = (char *)"/data";
        volume.storage_class = (char *)(chance(x, 70) ? "fast" : "bulk");
        volume.size_bytes = (1 + (int64_t)hp_rng_below(&x->rng, 8)) << 30;
        spec.volumes = volumes;
        spec.n_volumes = 1;
    }
    scw_create_spec(x->w, id, name, &spec, 0);
}

/* Operators take hosts out of service, and put them back. */
static void operate(struct run *x)
{
    static const Harpoon__Internal__V1__Request__PayloadCase verbs[] = {P(DRAIN), P(UNCORDON)};
    scw_verb(x->w, ++x->next_request, verbs[hp_rng_below(&x->rng, 2)], x->hosts[hp_rng_below(&x->rng, HOSTS)].name, "");
}

static void change(struct run *x)
{
    static const Harpoon__Internal__V1__Request__PayloadCase verbs[] = {P(START),  P(STOP), P(RESTART), P(DELETE),
                                                                        P(DELETE), P(MOVE), P(MOVE)};
    char name[8];
    unsigned id =
        chance(x, 10) && x->next_request > 1 ? (unsigned)hp_rng_below(&x->rng, x->next_request) + 1 : ++x->next_request;
    snprintf(name, sizeof name, "c%u", (unsigned)hp_rng_below(&x->rng, NAMES));
    uint64_t what = hp_rng_below(&x->rng, 10);
    if (what < 4)
        create(x, id, name);
    else if (what < 6)
        scw_resize(x->w, id, name, 200 + 100 * (int64_t)hp_rng_below(&x->rng, 20), 0, "");
    else if (what < 9)
        scw_verb(x->w, id, verbs[hp_rng_below(&x->rng, 7)], name, "");
    else
        scw_cancel(x->w, id, (unsigned)hp_rng_below(&x->rng, x->next_request + 1) + 1);
}

/* Goes with all that it has not confirmed, or comes back. */
static void stream_changes(struct run *x)
{
    struct scw *w = x->w;
    struct sc_ev ev = {.kind = SC_EV_STREAM, .stream_away = chance(x, 60)};
    for (int64_t s = w->watermark + 1; ev.stream_away && s <= w->sequence; s++) {
        struct sc_ev lost = {.kind = SC_EV_PUBLISHED, .published = {s, false}};
        scw_step(w, &lost);
    }
    scw_step(w, &ev);
    scw_flush(w);
}

static void accident(struct run *x)
{
    struct host *h = &x->hosts[hp_rng_below(&x->rng, HOSTS)];
    switch (hp_rng_below(&x->rng, 7)) {
    case 6:
        operate(x);
        break;
    case 0:
        if (h->attached) {
            h->attached = false;
            scw_detach(x->w, h->name, h->session);
        }
        break;
    case 1:
    case 2:
        attach(x, h);
        break;
    case 3:
        x->w->hold_commits = chance(x, 50);
        if (!x->w->hold_commits && x->w->held) {
            scw_commit(x->w);
            scw_flush(x->w);
        }
        break;
    case 4:
        if (chance(x, 30)) {
            x->w->hold_commits = false;
            scw_takeover(x->w); /* what was not committed is gone, and so are the commands that had not left */
        }
        break;
    default:
        x->w->mute_stream = chance(x, 30);
        if (x->loses_stream)
            stream_changes(x);
        scw_advance(x->w, hp_rng_below(&x->rng, 40000));
    }
}

static void calm_down(struct run *x)
{
    x->calm = true;
    x->w->hold_commits = x->w->mute_stream = false;
    if (x->w->held) {
        scw_commit(x->w);
        scw_flush(x->w);
    }
    scw_takeover(x->w);
    for (int i = 0; i < HOSTS; i++) {
        attach(x, &x->hosts[i]);
        scw_verb(x->w, ++x->next_request, P(UNCORDON), x->hosts[i].name, "");
    }
    for (int turn = 0; turn < 300; turn++) {
        deliver(x);
        report(x);
        scw_flush(x->w);
        scw_advance(x->w, 1000);
        for (int i = 0; i < HOSTS && turn % 10 == 0; i++) { /* the routers say that they are alive */
            Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
            Harpoon__Internal__V1__HostSample s = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT, *ps = &s;
            struct sc_ev ev = {.kind = SC_EV_METRICS, .time = x->w->time, .metrics = &b};
            b.router = (char *)"er1";
            b.samples = &ps;
            b.n_samples = 1;
            s.host = x->hosts[i].name;
            s.session = x->hosts[i].session;
            assert_int_equal(sc_region_step(x->w->region, &ev, NULL), 0);
        }
    }
}

static bool is_pending(const struct scw_row *row)
{
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
    bool pending = m->container->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING;
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return pending;
}

/* Creates that fit nowhere wait for ever: their owners give them up. So do moves that have lost their place. */
static void give_up_waiting(struct run *x)
{
    for (size_t i = 0; i < x->w->operations.count; i++) {
        const struct scw_row *row = &x->w->operations.rows[i];
        unsigned id = (unsigned)strtoul(row->key + 8, NULL, 16);
        if (row->active && row->stage == 2)
            scw_cancel(x->w, ++x->next_request, id);
    }
    for (unsigned i = 0; i < NAMES; i++) {
        char name[8], full[64];
        snprintf(name, sizeof name, "c%u", i);
        snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
        const struct scw_row *row = scw_find(&x->w->containers, full);
        if (row && is_pending(row))
            scw_verb(x->w, ++x->next_request, P(DELETE), name, "");
    }
}

static void check_operations(struct run *x)
{
    static int ends[SCW_ROWS_MAX];
    memset(ends, 0, sizeof ends);
    for (size_t i = 0; i < x->w->events.count; i++) {
        const struct sc_blob *b = x->w->events.rows[i].body;
        Harpoon__V1__Event *m = harpoon__v1__event__unpack(NULL, b->len, b->bytes);
        assert_int_equal(m->sequence, (int64_t)i + 1);
        if (m->operation_data && m->data_case == HARPOON__V1__EVENT__DATA_OPERATION_DATA &&
            m->operation_data->stage >= HARPOON__V1__STAGE__STAGE_SUCCEEDED) {
            const struct scw_row *row = scw_find(&x->w->operations, strrchr(m->operation, '/') + 1);
            assert_non_null(row);
            ends[row - x->w->operations.rows]++;
        }
        harpoon__v1__event__free_unpacked(m, NULL);
    }
    for (size_t i = 0; i < x->w->operations.count; i++) {
        const struct scw_row *row = &x->w->operations.rows[i];
        if (row->active || ends[i] != 1)
            fprintf(stderr, "operation %s stage %d: ended %d times\n", row->key, row->stage, ends[i]);
        assert_false(row->active);
        assert_int_equal(ends[i], 1);
    }
}

static bool recorded(const struct run *x, const char *uid)
{
    for (size_t i = 0; i < x->w->containers.count; i++)
        if (!strcmp(x->w->containers.rows[i].uid, uid))
            return true;
    return false;
}

static void check_hosts(struct run *x)
{
    size_t live = 0, wanted = 0;
    for (size_t i = 0; i < x->w->containers.count; i++) {
        const struct scw_row *row = &x->w->containers.rows[i];
        Harpoon__Internal__V1__ContainerRecord *m =
            harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
        const char *host = strrchr(m->container->status->host, '/');
        if (m->deleting || m->cleanup || m->sync || m->leaving)
            fprintf(stderr, "%s (%s) is not at rest: deleting %d cleanup %d sync %d\n", row->key, row->uid, m->deleting,
                    m->cleanup, m->sync);
        assert_false(m->deleting || m->cleanup || m->sync || m->leaving);
        assert_null(m->confirmed);
        if (host) {
            const struct item *it = find(host_named(x, host + 1), row->uid);
            assert_non_null(it);
            assert_true(it->live);
            assert_int_equal(it->generation, m->container->generation);
            assert_int_equal(it->cpu_millis, m->container->spec->resources->cpu_millis);
            assert_int_equal(it->desired, m->container->spec->desired_state);
            assert_int_equal(m->claim->cpu_millis, it->cpu_millis);
            wanted++;
        } else {
            assert_int_equal(m->claim->cpu_millis, 0);
        }
        harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    }
    for (int i = 0; i < HOSTS; i++) {
        for (size_t k = 0; k < x->hosts[i].item_count; k++) {
            const struct item *it = &x->hosts[i].items[k];
            if (it->live && it->quarantined && !recorded(x, it->uid))
                continue; /* its removal failed, and then its owner deleted it elsewhere: operators were told */
            if (it->live && !recorded(x, it->uid))
                fprintf(stderr, "%s has orphan %s, generation %d\n", x->hosts[i].name, it->uid, (int)it->generation);
            live += it->live;
        }
    }
    assert_int_equal(live, wanted); /* no orphans */
}

/* All was told, whatever the stream did, and nothing before what comes before it. */
static void check_stream(const struct run *x)
{
    struct sc_region_stats s;
    sc_region_stats(x->w->region, &s);
    assert_int_equal(s.watermark, s.sequence);
    assert_int_equal(x->w->published, s.sequence);
    assert_int_equal(x->w->skips, 0);
    pages += x->w->pages;
}

static void run_seed(uint64_t seed)
{
    struct run *x = calloc(1, sizeof *x);
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.recent_max = seed % 3 == 0 ? 5 : 50000;
    x->loses_stream = seed % 4 == 1;
    if (x->loses_stream) {
        c.backlog_max = 30;
        c.publish_max = 8;
    }
    x->w = scw_new(&c);
    x->w->mute_trace = !getenv("HARPOON_TRACE");
    x->w->known_complete = seed % 2;
    hp_rng_init(&x->rng, seed);
    for (int i = 0; i < HOSTS; i++)
        snprintf(x->hosts[i].name, sizeof x->hosts[i].name, "h%d", i);
    for (int step = 0; step < STEPS; step++) {
        uint64_t what = hp_rng_below(&x->rng, 10);
        if (what < 4)
            change(x);
        else if (what < 7)
            deliver(x);
        else if (what < 9)
            report(x);
        else
            accident(x);
    }
    calm_down(x);
    give_up_waiting(x);
    for (int turn = 0; turn < 100; turn++) {
        deliver(x);
        report(x);
        scw_advance(x->w, 1000);
    }
    check_operations(x);
    check_hosts(x);
    check_stream(x);
    scw_free(x->w);
    free(x);
}

static void everything_ends_once_and_everything_agrees(void **state)
{
    const char *one = getenv("HARPOON_SEED"), *many = getenv("HARPOON_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, count = one ? 1 : many ? strtoull(many, NULL, 10) : 60;
    for (uint64_t seed = first; seed < first + count; seed++) {
        fprintf(stderr, "seed %llu\r", (unsigned long long)seed); /* the last one shown is the one that failed */
        run_seed(seed);
    }
    assert_true(count < 60 || pages > 20); /* the seeds reach what they are for */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_ends_once_and_everything_agrees)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
