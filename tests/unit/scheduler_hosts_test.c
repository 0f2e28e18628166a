/* scheduler_hosts_test.c — the scheduler's core and its hosts: sessions, silence, inventories, what operators do, takeovers. */
#include <openssl/sha.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "lib/sc_world.h"

#define RUNNING HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
#define UNKNOWN HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNKNOWN
#define LOST HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_LOST
#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x

static struct scw *one_container(char uid[27])
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    strcpy(uid, scw_uid(w, "c1"));
    scw_done(w, "h1", uid, 1);
    scw_clear(w);
    return w;
}

/* What an agent says of one running container (agent.proto, InventoryDigest). */
static uint64_t digest_of(const char *uid, int generation, int desired, int observed)
{
    char text[64];
    uint8_t hash[SHA256_DIGEST_LENGTH];
    uint64_t v = 0;
    int n = snprintf(text, sizeof text, "%s/%d/%d/%d", uid, generation, desired, observed);
    SHA256((const unsigned char *)text, (size_t)n, hash);
    for (int i = 0; i < 8; i++)
        v = v << 8 | hash[i];
    return v;
}

struct item {
    const char *uid;
    int64_t generation;
    int state;
    bool tombstone;
};

static void inventory(struct scw *w, const char *host, int64_t session, const struct item *items, size_t count)
{
    Harpoon__Internal__V1__InventoryItem xs[8], *ps[8];
    Harpoon__V1__ContainerStatus ss[8];
    for (size_t i = 0; i < count; i++) {
        harpoon__internal__v1__inventory_item__init(&xs[i]);
        harpoon__v1__container_status__init(&ss[i]);
        xs[i].uid = (char *)items[i].uid;
        xs[i].container = (char *)"projects/p/regions/r1/containers/x";
        xs[i].generation = items[i].generation;
        xs[i].tombstone = items[i].tombstone;
        ss[i].state = (Harpoon__V1__ContainerState)items[i].state;
        xs[i].status = &ss[i];
        ps[i] = &xs[i];
    }
    scw_inventory(w, host, session, ps, count);
}

static int container_state(const struct scw *w, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct scw_row *row = scw_find(&w->containers, full);
    assert_non_null(row);
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
    assert_non_null(m);
    int state = m->container->status->state;
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return state;
}

static void metrics(struct scw *w, const char *router, const char *host, int64_t session)
{
    Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
    Harpoon__Internal__V1__HostSample x = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT, *px = &x;
    struct sc_ev ev = {.kind = SC_EV_METRICS, .time = w->time, .metrics = &b};
    struct hp_error e = {0};
    b.router = (char *)router;
    b.samples = &px;
    b.n_samples = 1;
    x.host = (char *)host;
    x.session = session;
    assert_int_equal(sc_region_step(w->region, &ev, &e), 0);
    scw_flush(w);
}

static void an_equal_digest_asks_nothing(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 1, digest_of(uid, 1, 1, RUNNING));
    scw_expect(w, "commit h1\n  8 host.attached h1 @h1\nack reports 4\npublish 8-8\n");
    scw_attach_digest(w, "h1", 3, 4000, 8192, 1, digest_of(uid, 1, 1, RUNNING) + 1);
    scw_expect(w, "commit h1\n  9 host.attached h1 @h1\nack reports 5\npublish 9-9\ncommand h1 INVENTORY\n");
    inventory(w, "h1", 3, &(struct item){uid, 1, RUNNING, false}, 1);
    scw_expect(w, "ack reports 6\n");
    scw_free(w);
}

static void an_older_session_is_ignored(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_attach_digest(w, "h1", 5, 4000, 8192, 1, digest_of(uid, 1, 1, RUNNING));
    scw_clear(w);
    scw_attach(w, "h1", 4, 1, 1);
    scw_expect(w, "ack reports 5\n");
    scw_detach(w, "h1", 4);
    scw_expect(w, "ack reports 6\n");
    scw_detach(w, "h1", 5);
    scw_expect(w, "commit h1\n  9 host.detached h1 @h1\nack reports 7\npublish 9-9\nannounce all\n");
    scw_free(w);
}

/* A host that had lost its journal numbers its sessions by its clock; that was behind, and the host was ignored for ever. */
static void a_host_that_forgot_its_session_may_come_back(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_attach_digest(w, "h1", 5, 4000, 8192, 1, digest_of(uid, 1, 1, RUNNING));
    scw_detach(w, "h1", 5);
    scw_clear(w);
    scw_attach(w, "h1", 3, 4000, 8192);
    assert_non_null(strstr(w->trace, "host.attached h1"));
    scw_clear(w);
    scw_detach(w, "h1", 5);
    assert_null(strstr(w->trace, "host.detached h1"));
    scw_detach(w, "h1", 3);
    assert_non_null(strstr(w->trace, "host.detached h1"));
    scw_clear(w);
    /* It was back while its last session still seemed to be in force: it is asked for when that one ends. */
    scw_attach(w, "h1", 7, 4000, 8192);
    scw_attach(w, "h1", 2, 4000, 8192);
    assert_null(strstr(w->trace, "announce"));
    scw_detach(w, "h1", 7);
    assert_non_null(strstr(w->trace, "announce"));
    scw_clear(w);
    scw_attach(w, "h1", 2, 4000, 8192);
    assert_non_null(strstr(w->trace, "host.attached h1"));
    scw_clear(w);
    scw_detach(w, "h1", 2);
    assert_null(strstr(w->trace, "announce"));
    scw_free(w);
}

/* The command that was to quarantine it got lost with the link, and the next attachment's digest did not tell: it stayed as it was, and its host took care of it. */
static void a_stray_is_asked_for_again_after_another_attachment(void **state)
{
    static const char stranger[] = "00000000000000000000000009";
    char uid[27];
    struct scw *w = one_container(uid);
    uint64_t digest = digest_of(uid, 1, 1, RUNNING);
    const struct item items[] = {{uid, 1, RUNNING, false}, {stranger, 7, RUNNING, false}};
    scw_attach(w, "h1", 2, 4000, 8192);
    inventory(w, "h1", 2, items, 2);
    inventory(w, "h1", 2, items, 2); /* with specs */
    scw_detach(w, "h1", 2);
    scw_clear(w);
    scw_attach_digest(w, "h1", 3, 4000, 8192, 1, digest);
    assert_non_null(strstr(w->trace, "command h1 INVENTORY"));
    inventory(w, "h1", 3, items, 1); /* it is gone */
    scw_detach(w, "h1", 3);
    scw_clear(w);
    scw_attach_digest(w, "h1", 4, 4000, 8192, 1, digest);
    assert_null(strstr(w->trace, "INVENTORY"));
    scw_free(w);
}

static void what_is_unknown_is_quarantined(void **state)
{
    static const char stranger[] = "00000000000000000000000009";
    char uid[27];
    struct scw *w = one_container(uid);
    scw_attach(w, "h1", 2, 4000, 8192);
    scw_clear(w);
    const struct item items[] = {{uid, 1, RUNNING, false}, {stranger, 7, RUNNING, false}};
    inventory(w, "h1", 2, items, 2);
    scw_expect(w, "commit h1\n"
                  "  9 host.quarantine h1 @h1\n"
                  "ack reports 5\n"
                  "publish 9-9\n"
                  "command h1 QUARANTINE x gen=7\n"
                  "command h1 INVENTORY specs\n");
    scw_free(w);
}

static void what_is_missing_is_sent_again(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_attach(w, "h1", 2, 4000, 8192); /* with a new disk: it has nothing */
    scw_clear(w);
    inventory(w, "h1", 2, NULL, 0);
    scw_expect(w, "commit c1:1\nack reports 5\ncommand h1 ENSURE c1 gen=1 cpu=1000\n");
    scw_free(w);
}

static void a_lost_command_is_found_out(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_clear(w);
    for (int s = 0; s < 31; s++) { /* the router says that the host is alive, but nothing comes of the command */
        scw_advance(w, 1000);
        metrics(w, "er1", "h1", 1);
    }
    assert_non_null(strstr(w->trace, "command h1 INVENTORY\n"));
    assert_null(strstr(w->trace, "suspect"));
    scw_clear(w);
    inventory(w, "h1", 1, NULL, 0);
    scw_expect(w, "commit op=1:4\nack reports 3\ncommand h1 ENSURE c1 gen=1 cpu=1000\n");
    scw_free(w);
}

static void a_router_that_is_gone_detaches_its_hosts(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_clear(w);
    struct hp_error e = {0};
    struct sc_ev ev = {.kind = SC_EV_RETURNED, .time = w->time, .returned = {"er1", "h1", 1}};
    assert_int_equal(sc_region_step(w->region, &ev, &e), 0);
    scw_flush(w);
    scw_expect(w, "commit h1 h2\n  7 host.detached h1 @h1\n  8 host.detached h2 @h2\npublish 7-8\n");
    scw_create(w, 2, "c2", 1000, 1024); /* not placed on what cannot be reached */
    assert_int_equal(w->verdict_stage, 2);
    scw_verb(w, 3, P(STOP), "c1", "");
    assert_int_equal(w->verdict_stage, 2);
    scw_clear(w);
    scw_attach(w, "h1", 2, 4000, 8192); /* elsewhere: what it may have missed comes again, and what waited */
    scw_expect(w, "commit op=1:4 op=2:4 c2:1 h1\n"
                  "  13 host.attached h1 @h1\n"
                  "  14 operation.placed c2 op=2 @h1\n"
                  "  15 container.creating c2 op=2 @h1\n"
                  "  16 operation.dispatched c2 op=2 @h1\n"
                  "ack reports 6\n"
                  "publish 13-16\n"
                  "command h1 ENSURE c1 gen=1 cpu=1000\n"
                  "command h1 ENSURE c2 gen=1 cpu=1000\n");
    scw_free(w);
}

static void silence_makes_suspect_then_unknown(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_advance(w, 29000);
    assert_null(strstr(w->trace, "host."));
    scw_advance(w, 2000);
    assert_non_null(strstr(w->trace, "host.suspect h1"));
    scw_create(w, 2, "c2", 1000, 1024);
    assert_int_equal(w->verdict_stage, 2); /* no new containers */
    scw_clear(w);
    metrics(w, "er1", "h1", 1);
    assert_non_null(strstr(w->trace, "host.ready h1"));
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage, 4);
    scw_clear(w);
    scw_advance(w, 5 * 60 * 1000 + 1000);
    assert_non_null(strstr(w->trace, "host.unknown h1"));
    assert_non_null(strstr(w->trace, "container.unknown c1"));
    assert_int_equal(container_state(w, "c1"), UNKNOWN);
    scw_clear(w);
    metrics(w, "er1", "h1", 1); /* heard again: how are its containers? */
    assert_non_null(strstr(w->trace, "command h1 INVENTORY\n"));
    inventory(w, "h1", 1, &(struct item){uid, 1, RUNNING, false}, 1);
    assert_int_equal(container_state(w, "c1"), RUNNING);
    scw_free(w);
}

static void an_idle_region_writes_nothing(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_advance(w, 5000); /* watermark and claims settle */
    int64_t commits = w->commits;
    for (int s = 0; s < 600; s++) {
        metrics(w, "er1", "h1", 1);
        scw_advance(w, 1000);
    }
    assert_int_equal(w->commits, commits);
    assert_int_equal(w->watermark, w->sequence);
    scw_free(w);
}

/* The scheduler died between a lost host's return and its inventory; the next one, to which the host was announced with nothing on it, left it LOST for ever. */
static void a_lost_host_that_is_back_is_asked_by_the_next_reign(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_detach(w, "h1", 1);
    scw_verb(w, 1, P(DECLARE_LOST), "h1", "");
    scw_clear(w);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    assert_non_null(strstr(w->trace, "command h1 INVENTORY\n"));
    scw_takeover(w);
    scw_clear(w);
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    assert_non_null(strstr(w->trace, "command h1 INVENTORY\n"));
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    scw_clear(w);
    inventory(w, "h1", 2, NULL, 0);
    assert_non_null(strstr(w->trace, "host.ready h1"));
    scw_free(w);
}

static void a_host_declared_lost_gives_up_its_containers(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_create(w, 2, "c2", 1000, 1024);
    char uid2[27];
    strcpy(uid2, scw_uid(w, "c2"));
    scw_verb(w, 3, P(DELETE), "c2", "");
    scw_verb(w, 4, P(DECLARE_LOST), "h1", "");
    assert_string_equal(w->verdict_reason, "HOST_ATTACHED");
    scw_verb(w, 5, P(DECLARE_LOST), "h9", "");
    assert_string_equal(w->verdict_reason, "HOST_NOT_FOUND");
    scw_detach(w, "h1", 1);
    scw_verb(w, 6, P(STOP), "c1", "");
    scw_clear(w);
    scw_verb(w, 7, P(DECLARE_LOST), "h1", "");
    scw_expect(w, "commit op=7:6+ op=6:8 op=2:9 op=3:6 del c1:4 h1\n"
                  "  22 operation.recorded h1 op=7 @h1\n"
                  "  23 host.lost h1 op=7 @h1\n"
                  "  24 operation.failed c1 op=6 @h1\n"
                  "  25 container.lost c1\n"
                  "  26 operation.cancelled c2 op=2 @h1\n"
                  "  27 container.deleted c2 op=3 @h1\n"
                  "  28 operation.succeeded c2 op=3 @h1\n"
                  "  29 operation.succeeded h1 op=7 @h1\n"
                  "ack requests 10\n"
                  "verdict OK op=7 stage=6\n"
                  "publish 22-29\n");
    assert_int_equal(container_state(w, "c1"), LOST);
    scw_verb(w, 8, P(START), "c1", "");
    assert_string_equal(w->verdict_reason, "CONTAINER_LOST");
    scw_clear(w);
    /* It comes back all the same: what was given up is removed, what nobody knows is left alone, and then it may work again. */
    scw_attach(w, "h1", 2, 4000, 8192);
    const struct item items[] = {{uid, 1, RUNNING, false}, {uid2, 1, RUNNING, false}};
    scw_clear(w);
    inventory(w, "h1", 2, items, 2);
    scw_expect(w, "commit h1\n"
                  "  32 host.quarantine h1 @h1\n"
                  "  33 host.ready h1 @h1\n"
                  "ack reports 13\n"
                  "publish 32-33\n"
                  "command h1 REMOVE c1 gen=4\n"
                  "command h1 QUARANTINE x gen=1\n"
                  "command h1 INVENTORY specs\n");
    /* The removal was lost on its way, or failed: the host is asked again until nothing is left over. */
    const struct item left[] = {{uid, 1, RUNNING, false}};
    const struct item over[] = {{uid, 2, 0, true}};
    inventory(w, "h1", 2, left, 1); /* with specs */
    for (int again = 0; again < 2; again++) {
        scw_clear(w);
        metrics(w, "er1", "h1", 2);
        scw_advance(w, 20 * 1000);
        metrics(w, "er1", "h1", 2);
        assert_null(strstr(w->trace, "INVENTORY"));
        scw_advance(w, 20 * 1000);
        metrics(w, "er1", "h1", 2);
        scw_advance(w, 20 * 1000);
        assert_non_null(strstr(w->trace, "command h1 INVENTORY\n"));
        scw_clear(w);
        inventory(w, "h1", 2, again ? over : left, 1);
        assert_true(again == !strstr(w->trace, "command h1 REMOVE c1 gen=4\n"));
    }
    scw_clear(w);
    for (int i = 0; i < 20; i++) {
        metrics(w, "er1", "h1", 2);
        scw_advance(w, 10 * 1000);
    }
    assert_null(strstr(w->trace, "INVENTORY"));
    scw_verb(w, 9, P(DELETE), "c1", "");
    assert_int_equal(w->verdict_stage, 6);
    scw_free(w);
}

static void cordon_and_drain(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_verb(w, 2, P(CORDON), "h1", "");
    scw_expect(w, "commit op=2:6+ h1\n"
                  "  8 operation.recorded h1 op=2 @h1\n"
                  "  9 host.cordoned h1 op=2 @h1\n"
                  "  10 operation.succeeded h1 op=2 @h1\n"
                  "ack requests 4\n"
                  "verdict OK op=2 stage=6\n"
                  "publish 8-10\n");
    scw_create(w, 3, "c2", 1000, 1024);
    assert_int_equal(w->verdict_stage, 2);
    scw_verb(w, 4, P(STOP), "c1", ""); /* what is there goes on */
    assert_int_equal(w->verdict_stage, 4);
    scw_verb(w, 5, P(UNCORDON), "h1", "");
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000003")->stage, 4);
    scw_verb(w, 6, P(DRAIN), "h1", "");
    scw_takeover(w); /* is remembered */
    scw_create(w, 7, "c3", 10, 64);
    assert_int_equal(w->verdict_stage, 2);
    scw_verb(w, 8, P(UNCORDON), "h1", "");
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000007")->stage, 4);
    scw_free(w);
}

static void a_takeover_goes_on_where_the_last_reign_ended(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    w->mute_stream = true; /* the stream has confirmed nothing of what follows */
    int64_t confirmed = w->published;
    scw_create(w, 1, "c1", 1000, 1024);
    scw_create(w, 2, "c2", 100000, 1024); /* waits */
    w->hold_commits = true;
    scw_create(w, 3, "c3", 1000, 1024); /* never committed: it comes again */
    w->hold_commits = w->mute_stream = false;
    scw_clear(w);
    scw_takeover(w);
    assert_int_equal(confirmed, 1);
    /* The host's row, too: the last reign ended before it wrote the claim of c1, and at rest nobody would have written it ever again. */
    scw_expect(w, "publish 2-7\n"
                  "commit op=1:4 h1\n"
                  "command h1 ENSURE c1 gen=1 cpu=1000\n"
                  "announce all\n");
    scw_create(w, 3, "c3", 1000, 1024);
    assert_int_equal(w->verdict_stage, 4);
    scw_advance(w, 1100);
    assert_int_equal(w->watermark, w->sequence);
    scw_clear(w);
    scw_attach(w, "h2", 1, 1000000, 65536);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage, 4);
    scw_free(w);
}

/* A fenced scheduler woke up and sent its create late; the host, at work on the same create for the next reign, refused the old epoch, and the
 * container was placed a second time elsewhere. */
static void a_refusal_of_an_earlier_reign_is_no_answer(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_takeover(w);
    scw_clear(w);
    x.uid = (char *)scw_uid(w, "c1");
    x.generation = 1;
    x.epoch = w->epoch - 1;
    x.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &x;
    size_t before = w->command_count;
    char host[64];
    snprintf(host, sizeof host, "%s", w->commands[before - 1].host);
    scw_report(w, host, &m);
    assert_int_equal(w->command_count, before);
    x.epoch = w->epoch;
    scw_report(w, host, &m);
    assert_true(w->command_count > before); /* its own reign's counts: it goes elsewhere */
    scw_free(w);
}

static int64_t recorded_pid(struct scw *w)
{
    const struct scw_row *row = scw_find(&w->containers, "projects/p/regions/r1/containers/c1");
    assert_non_null(row);
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
    assert_non_null(m);
    int64_t pid = m->container->status->pid;
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return pid;
}

/* Hosts number their reports; their clocks may jump. */
static void an_overtaken_report_changes_nothing(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult result = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__Internal__V1__Observation o = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    Harpoon__V1__ContainerStatus first = HARPOON__V1__CONTAINER_STATUS__INIT, second = first;
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    first.state = second.state = (Harpoon__V1__ContainerState)RUNNING;
    first.pid = 100;
    second.pid = 200;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &result;
    result.report_id = 5;
    result.uid = (char *)scw_uid(w, "c1");
    result.generation = 1;
    result.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
    result.status = &first;
    scw_report(w, "h1", &m);
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION;
    m.observation = &o;
    o.uid = result.uid;
    o.generation = 1;
    o.kind = (char *)"restarted";
    o.time = &time;
    o.status = &first;
    o.report_id = 6;
    time.seconds = 2000;
    scw_report(w, "h1", &m);
    o.report_id = 7;
    o.status = &second;
    time.seconds = 1000; /* the clock was set back */
    scw_report(w, "h1", &m);
    assert_int_equal(recorded_pid(w), 200);
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &result; /* sent again, for the command came again */
    scw_report(w, "h1", &m);
    assert_int_equal(recorded_pid(w), 200);
    scw_takeover(w);
    scw_report(w, "h1", &m);
    assert_int_equal(recorded_pid(w), 200);
    scw_free(w);
}

/* It was refused there, and is being made elsewhere: whatever the first host still says of it, it is not what the operation waits for. */
static void a_result_of_an_earlier_place_is_no_answer(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_attach(w, "h2", 1, 4000, 8192);
    char uid[27];
    strcpy(uid, scw_uid(w, "c1"));
    scw_result(w, "h1", uid, 1, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED, 0, "no room");
    scw_clear(w);
    scw_journalled(w, "h1", uid, 1);
    scw_observe(w, "h1", uid, 1, RUNNING, "running");
    scw_done(w, "h1", uid, 1);
    scw_expect(w, "ack reports 5\nack reports 6\nack reports 7\n");
    scw_done(w, "h2", uid, 3);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 6);
    scw_free(w);
}

static void poison_is_told_apart(void **state)
{
    struct scw *w = scw_new(NULL);
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    q.project = (char *)"p";
    scw_request(w, 1, &q);
    scw_expect(w, "poison payload: is missing or not known\n");
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    c.parent = (char *)"projects/other/regions/r1";
    c.container_id = (char *)"c1";
    q.payload_case = P(CREATE);
    q.create = &c;
    scw_request(w, 2, &q);
    assert_memory_equal(w->trace, "poison name: ", 13);
    scw_clear(w);
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = (char *)"C 1";
    scw_request(w, 3, &q);
    assert_memory_equal(w->trace, "poison container_id: ", 21);
    scw_clear(w);
    c.container_id = (char *)"c1"; /* well-formed but empty: an operation that is refused */
    scw_request(w, 4, &q);
    assert_int_equal(w->verdict_code, 3);
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    scw_clear(w);
    scw_report(w, "h1", &m);
    scw_expect(w, "poison body: is missing\n");
    scw_free(w);
}

static void an_unknown_session_makes_its_router_announce(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    metrics(w, "er2", "h7", 1);
    scw_expect(w, "announce er2\n");
    metrics(w, "er2", "h7", 1); /* not again at once */
    scw_expect(w, "");
    scw_free(w);
}

static void events_are_kept_for_so_many(void **state)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.events_max = 300;
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    for (unsigned i = 1; i <= 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%u", i);
        scw_create(w, 2 * i, name, 10, 4);
        char uid[27];
        strcpy(uid, scw_uid(w, name));
        scw_done(w, "h1", uid, 1);
        scw_verb(w, 2 * i + 1, P(DELETE), name, "");
        scw_done(w, "h1", uid, 2);
        scw_clear(w);
    }
    assert_true(w->sequence > 2000);
    assert_true(w->events.count < 300 + 256 + 20);
    assert_int_equal(w->events.rows[0].serial, w->oldest);
    scw_free(w);
}

static bool has(const struct scw *w, const char *what)
{
    return strstr(w->trace, what) != NULL;
}

static int64_t hosts_of(const struct scw *w)
{
    struct sc_region_stats s;
    sc_region_stats(w->region, &s);
    return s.hosts;
}

/* Hosts over the limit are left out loudly, and come in when a reign has a higher one. */
static void a_full_region_says_so(void **state)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.hosts_max = 2;
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_attach(w, "h2", 1, 4000, 8192);
    assert_false(has(w, "region.full"));
    scw_attach(w, "h3", 1, 4000, 8192);
    scw_attach(w, "h4", 1, 4000, 8192);
    const char *told = strstr(w->trace, "region.full r1");
    assert_non_null(told);
    assert_null(strstr(told + 1, "region.full"));
    assert_int_equal(hosts_of(w), 2);
    scw_clear(w);
    scw_attach(w, "h1", 2, 4000, 8192); /* one that is in may come back */
    assert_true(has(w, "host.attached h1"));
    scw_clear(w);
    metrics(w, "er2", "h3", 1);
    assert_false(has(w, "announce"));
    w->config.hosts_max = 3;
    scw_takeover(w);
    metrics(w, "er2", "h3", 1);
    assert_true(has(w, "announce"));
    scw_attach(w, "h3", 1, 4000, 8192);
    assert_int_equal(hosts_of(w), 3);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_equal_digest_asks_nothing),
        cmocka_unit_test(an_older_session_is_ignored),
        cmocka_unit_test(a_host_that_forgot_its_session_may_come_back),
        cmocka_unit_test(a_stray_is_asked_for_again_after_another_attachment),
        cmocka_unit_test(what_is_unknown_is_quarantined),
        cmocka_unit_test(what_is_missing_is_sent_again),
        cmocka_unit_test(a_lost_command_is_found_out),
        cmocka_unit_test(a_router_that_is_gone_detaches_its_hosts),
        cmocka_unit_test(silence_makes_suspect_then_unknown),
        cmocka_unit_test(an_idle_region_writes_nothing),
        cmocka_unit_test(a_lost_host_that_is_back_is_asked_by_the_next_reign),
        cmocka_unit_test(a_host_declared_lost_gives_up_its_containers),
        cmocka_unit_test(cordon_and_drain),
        cmocka_unit_test(a_takeover_goes_on_where_the_last_reign_ended),
        cmocka_unit_test(a_refusal_of_an_earlier_reign_is_no_answer),
        cmocka_unit_test(an_overtaken_report_changes_nothing),
        cmocka_unit_test(a_result_of_an_earlier_place_is_no_answer),
        cmocka_unit_test(poison_is_told_apart),
        cmocka_unit_test(an_unknown_session_makes_its_router_announce),
        cmocka_unit_test(events_are_kept_for_so_many),
        cmocka_unit_test(a_full_region_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
