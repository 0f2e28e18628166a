/* scheduler_core.c — how many operations a second one region's core takes from request to success, alone on one core: no broker, no database.
 *
 *   scheduler_core [HOSTS [OPERATIONS [BATCH]]]
 * Prints one JSON object. Packing of rows, events, verdicts and commands is included, as is unpacking of what they were asked with. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/containers.h"
#include "core/state.h" /* to know where each container went, as its host would */
#include "wire/codec.h"

static struct sc_region *region;
static uint64_t tag;
static int64_t bytes, rows;
static char (*uids)[27];
static size_t uid_count;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sc_time now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return (struct sc_time){ns / 1000000, 1700000000LL * 1000000000 + (int64_t)ns};
}

static void must(int code, const char *what)
{
    if (code) {
        fprintf(stderr, "%s: %d\n", what, code);
        exit(1);
    }
}

static void step(struct sc_ev *ev)
{
    ev->time = now();
    struct hp_error e = {0};
    if (sc_region_step(region, ev, &e)) {
        fprintf(stderr, "step: %s\n", e.message);
        exit(1);
    }
}

static void messages(struct sc_messages *list)
{
    for (struct sc_message *m = list->first, *next; m; m = next) {
        next = m->next;
        bytes += (int64_t)m->body->len;
        if (m->kind == SC_SEND_EVENT) {
            struct sc_ev ev = {.kind = SC_EV_PUBLISHED, .published = {m->sequence, true}};
            step(&ev);
        }
        sc_message_free(m);
    }
}

static void flush(void)
{
    for (;;) {
        struct sc_effects out = {0};
        must(sc_region_flush(region, now(), &out, NULL), "flush");
        messages(&out.messages);
        if (!out.commit)
            return;
        struct sc_batch *b = out.commit;
        rows += (int64_t)(b->operation_count + b->container_count + b->host_count + b->event_count);
        for (size_t i = 0; i < b->container_count; i++)
            if (b->operation_count && b->operations[0].fresh)
                memcpy(uids[uid_count++], b->containers[i].uid, 27);
        struct sc_ev ev = {.kind = SC_EV_COMMITTED, .committed = b};
        step(&ev);
    }
}

static void report(const char *host, Harpoon__Internal__V1__Report *m)
{
    m->region = (char *)"r1";
    m->host = (char *)host;
    m->router = (char *)"er1";
    m->session = 1;
    struct sc_ev ev = {.kind = SC_EV_REPORT, .report = {.message = m, .tag = ++tag}};
    step(&ev);
}

static void attach(int i)
{
    char name[32];
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    snprintf(name, sizeof name, "h%d", i);
    all.cpu_millis = 64000;
    all.memory_bytes = 256LL << 30;
    all.disk_bytes = 1LL << 40;
    hello.session = 1;
    hello.allocatable = &all;
    hello.digest = &d;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    report(name, &m);
}

static void create(int i)
{
    char id[33], name[32];
    uint8_t digest[32] = {1};
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container body = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    snprintf(id, sizeof id, "%016" PRIx64 "%016x", (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u, i); /* spread like a hash */
    snprintf(name, sizeof name, "c%d", i);
    x.cpu_millis = 100;
    x.memory_bytes = 64 << 20;
    spec.resources = &x;
    spec.image = (char *)"docker://registry.example/team/service:1.2.3";
    body.spec = &spec;
    c.parent = (char *)"projects/p/regions/r1";
    c.container_id = name;
    c.container = &body;
    q.project = (char *)"p";
    q.region = (char *)"r1";
    q.operation_id = id;
    q.request_id = id;
    q.principal = (char *)"bench";
    q.payload_digest.data = digest;
    q.payload_digest.len = sizeof digest;
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &c;
    struct sc_ev ev = {.kind = SC_EV_REQUEST,
                       .request = {.message = (Harpoon__Internal__V1__Request *)(void *)hp_message_clone(&q.base),
                                   .tag = ++tag,
                                   .reply_to = "reply.gw",
                                   .correlation_id = "1"}};
    step(&ev);
}

static const char *host_of(const char *uid)
{
    struct sc_container *c = sc_container_of(region, uid);
    if (!c || !c->host) {
        fprintf(stderr, "container %s is not placed\n", uid);
        exit(1);
    }
    return c->host->info.name;
}

static void done(const char *uid, bool journalled)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandJournalled j = HARPOON__INTERNAL__V1__COMMAND_JOURNALLED__INIT;
    Harpoon__Internal__V1__CommandResult x = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus s = HARPOON__V1__CONTAINER_STATUS__INIT;
    s.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    s.pid = 1000;
    x.uid = j.uid = (char *)uid;
    x.generation = j.generation = 1;
    x.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
    x.status = &s;
    m.body_case =
        journalled ? HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED : HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    if (journalled)
        m.journalled = &j;
    else
        m.result = &x;
    report(host_of(uid), &m);
}

int main(int argc, char **argv)
{
    int hosts = argc > 1 ? atoi(argv[1]) : 1000, operations = argc > 2 ? atoi(argv[2]) : 20000,
        batch = argc > 3 ? atoi(argv[3]) : 200;
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    must(sc_region_new(&c, "r1", 1, 7, &region), "region");
    sc_region_load_state(region, 0, 0, 1);
    sc_region_load_known_done(region, true);
    struct sc_ev ev = {.kind = SC_EV_LEAD};
    uids = calloc((size_t)operations + 1, sizeof *uids);
    step(&ev);
    double t0 = seconds();
    for (int i = 0; i < hosts; i++)
        attach(i);
    flush();
    double t1 = seconds();
    rows = bytes = 0;
    for (int i = 0; i < operations; i += batch) {
        int n = operations - i < batch ? operations - i : batch;
        for (int k = 0; k < n; k++)
            create(i + k);
        flush();
        for (int k = 0; k < n; k++)
            done(uids[i + k], true);
        flush();
        for (int k = 0; k < n; k++)
            done(uids[i + k], false);
        flush();
    }
    double t2 = seconds();
    struct sc_region_stats s;
    sc_region_stats(region, &s);
    printf("{\"hosts\":%d,\"operations\":%d,\"batch\":%d,\"attach_per_s\":%.0f,\"operations_per_s\":%.0f,"
           "\"events\":%" PRId64 ",\"rows\":%" PRId64 ",\"bytes_sent\":%" PRId64 ",\"active_at_end\":%" PRId64 "}\n",
           hosts, operations, batch, hosts / (t1 - t0), operations / (t2 - t1), s.sequence, rows, bytes,
           s.operations_active);
    free(uids);
    sc_region_free(region);
    return s.operations_active ? 1 : 0;
}
