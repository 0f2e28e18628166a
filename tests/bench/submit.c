/* Changes through EventService.Submit as a busy service sends them: some connections with one call each, a window of changes that are not answered yet, at full speed or at a rate.
 *
 *   bench-submit --endpoint http://HOST:PORT --token T --region R [options]: see usage below
 *
 * Each change has a request_id of its own. With a rate, change number i is due at its time whether or not earlier ones are answered (no coordinated omission): its latency counts from when it was due.
 * Prints one JSON object last; --log FILE: a line "number due_ns answered_ns" (CLOCK_MONOTONIC) for each change. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harpoon/v1/event_service.pb-c.h"
#include "io/loop.h"
#include "io/rpc_client.h"

enum { CONNECTIONS_MAX = 64, COUNT_MAX = 50000000, TICK_MS = 2 };

static const char usage[] =
    "bench-submit --endpoint URL --token T --region R [options]\n"
    "  --ca FILE          for an https endpoint\n"
    "  --project P        (demo)\n"
    "  --verb V           create (default), resize, restart or delete\n"
    "  --prefix P         containers are named P0, P1, … (b-)\n"
    "  --names N          so many names, in turn; 0 (default): each change has its own\n"
    "  --count N          changes (10000), or\n"
    "  --seconds N        as many as are answered in so long\n"
    "  --rate N           changes a second (0: as fast as they are answered)\n"
    "  --window N         changes under way at most (1000)\n"
    "  --connections N    (1)\n"
    "  --cpu N --memory N millis and bytes of a create (100, 64 MiB); a resize grows memory with each round\n"
    "  --image I          (oci:/none:latest)\n"
    "  --log FILE\n";

struct sent {
    uint64_t due_ns, answered_ns;
};

struct bench {
    uv_loop_t *loop;
    const char *endpoint, *ca, *token, *region, *project, *prefix, *image, *verb, *log;
    int64_t names, count, seconds, rate, window, connections, cpu, memory;
    struct hp_rpc_client *clients[CONNECTIONS_MAX];
    struct hp_client_call *calls[CONNECTIONS_MAX];
    struct sent *sent;
    int64_t next, answered, refused;
    uint64_t began_ns, ended_ns;
    uint64_t run; /* makes request_ids differ from run to run */
    int open;     /* calls */
    bool done;
    uv_timer_t tick;
};

static struct bench bench = {.project = "demo",
                             .prefix = "b-",
                             .image = "oci:/none:latest",
                             .verb = "create",
                             .count = 10000,
                             .window = 1000,
                             .connections = 1,
                             .cpu = 100,
                             .memory = 64 << 20};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-submit: %s: %s\n", what, why);
    exit(1);
}

/* ---- one change ---- */

static int send_create(struct hp_client_call *call, Harpoon__V1__SubmitRequest *r, char *id, char *request_id)
{
    char parent[256];
    Harpoon__V1__Resources resources = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__NetworkSpec network = HARPOON__V1__NETWORK_SPEC__INIT;
    Harpoon__V1__Container container = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__CreateContainerRequest create = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    snprintf(parent, sizeof parent, "projects/%s/regions/%s", bench.project, bench.region);
    resources.cpu_millis = bench.cpu;
    resources.memory_bytes = bench.memory;
    network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    spec.image = (char *)(uintptr_t)bench.image;
    spec.resources = &resources;
    spec.network = &network;
    container.spec = &spec;
    create.parent = parent;
    create.container_id = id;
    create.container = &container;
    create.request_id = request_id;
    r->change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_CREATE;
    r->create = &create;
    return hp_client_call_send(call, &r->base);
}

static int send_change(struct hp_client_call *call, int64_t number)
{
    char id[64], name[320], request_id[64];
    Harpoon__V1__SubmitRequest r = HARPOON__V1__SUBMIT_REQUEST__INIT;
    int64_t index = bench.names ? number % bench.names : number;
    int64_t round = bench.names ? number / bench.names : 0;
    snprintf(id, sizeof id, "%s%" PRId64, bench.prefix, index);
    snprintf(name, sizeof name, "projects/%s/regions/%s/containers/%s", bench.project, bench.region, id);
    snprintf(request_id, sizeof request_id, "%016" PRIx64 "-%" PRId64, bench.run, number);
    r.correlation = number;
    if (strcmp(bench.verb, "create") == 0)
        return send_create(call, &r, id, request_id);
    if (strcmp(bench.verb, "resize") == 0) {
        Harpoon__V1__Resources resources = HARPOON__V1__RESOURCES__INIT;
        Harpoon__V1__ResizeContainerRequest resize = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
        resources.memory_bytes = bench.memory + (round + 1) * 4096;
        resize.name = name;
        resize.resources = &resources;
        resize.request_id = request_id;
        r.change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_RESIZE;
        r.resize = &resize;
        return hp_client_call_send(call, &r.base);
    }
    if (strcmp(bench.verb, "restart") == 0) {
        Harpoon__V1__RestartContainerRequest restart = HARPOON__V1__RESTART_CONTAINER_REQUEST__INIT;
        restart.name = name;
        restart.request_id = request_id;
        r.change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_RESTART;
        r.restart = &restart;
        return hp_client_call_send(call, &r.base);
    }
    Harpoon__V1__DeleteContainerRequest remove = HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT;
    remove.name = name;
    remove.request_id = request_id;
    r.change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_DELETE;
    r.delete_ = &remove;
    return hp_client_call_send(call, &r.base);
}

/* ---- the load ---- */

static int64_t due(uint64_t now)
{
    if (bench.done)
        return 0;
    int64_t end = bench.seconds ? COUNT_MAX : bench.count;
    if (!bench.rate)
        return end;
    int64_t by_now = (int64_t)((double)(now - bench.began_ns) * 1e-9 * (double)bench.rate) + 1;
    return by_now < end ? by_now : end;
}

static void finish(void)
{
    if (bench.done)
        return;
    bench.done = true;
    bench.ended_ns = hp_now_ns();
    for (int i = 0; i < bench.connections; i++)
        hp_client_call_half_close(bench.calls[i]);
}

static void pump(void)
{
    uint64_t now = hp_now_ns();
    if (bench.seconds && now - bench.began_ns >= (uint64_t)bench.seconds * 1000000000u)
        finish();
    int64_t until = due(now);
    while (bench.next < until && bench.next - bench.answered < bench.window) {
        int64_t i = bench.next++;
        bench.sent[i].due_ns = bench.rate ? bench.began_ns + (uint64_t)((double)i * 1e9 / (double)bench.rate) : now;
        int rc = send_change(bench.calls[i % bench.connections], i);
        if (rc && rc != HP_EAGAIN)
            die("cannot send", hp_strerror(rc));
    }
}

static void on_message(struct hp_client_call *call, const ProtobufCMessage *response, void *user)
{
    const Harpoon__V1__SubmitResponse *r = (const void *)response;
    if (r->correlation < 0 || r->correlation >= bench.next || bench.sent[r->correlation].answered_ns)
        die("an answer", "to what was not asked");
    bench.sent[r->correlation].answered_ns = hp_now_ns();
    bench.answered++;
    if (r->status && r->status->code != 0 && bench.refused++ == 0)
        fprintf(stderr, "bench-submit: refused: %s\n", r->status->message);
    if (!bench.seconds && bench.answered == bench.count)
        finish();
    else if (!bench.rate)
        pump();
}

static void on_tick(uv_timer_t *t)
{
    pump();
}

static void on_finish(struct hp_client_call *call, const Google__Rpc__Status *status, void *user)
{
    if (!bench.done || status->code != 0)
        die("the call ended", status->message);
    if (--bench.open > 0)
        return;
    uv_timer_stop(&bench.tick);
    uv_stop(bench.loop);
}

static const struct hp_client_call_events events = {.on_message = on_message, .on_finish = on_finish};

static void start(void)
{
    struct hp_error e = {0};
    struct hp_rpc_client_options o = {.endpoint = bench.endpoint, .ca_file = bench.ca, .token = bench.token};
    for (int i = 0; i < bench.connections; i++) {
        if (hp_rpc_client_new(bench.loop, &o, &bench.clients[i], &e) ||
            hp_client_call_start(bench.clients[i], "/harpoon.v1.EventService/Submit",
                                 &harpoon__v1__submit_response__descriptor, 0, &events, NULL, &bench.calls[i], &e))
            die("cannot start", e.message);
        bench.open++;
    }
    bench.began_ns = hp_now_ns();
    pump();
    uv_timer_init(bench.loop, &bench.tick);
    uv_timer_start(&bench.tick, on_tick, TICK_MS, TICK_MS);
}

/* ---- the report ---- */

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void report(void)
{
    uint64_t *latency = calloc((size_t)bench.next + 1, sizeof *latency);
    FILE *log = bench.log ? fopen(bench.log, "we") : NULL;
    size_t n = 0;
    if (!latency || (bench.log && !log))
        die("cannot report", bench.log ? bench.log : "no memory");
    for (int64_t i = 0; i < bench.next; i++) {
        const struct sent *s = &bench.sent[i];
        if (s->answered_ns)
            latency[n++] = s->answered_ns - s->due_ns;
        if (log)
            fprintf(log, "%" PRId64 " %" PRIu64 " %" PRIu64 "\n", i, s->due_ns, s->answered_ns);
    }
    if (log && fclose(log))
        die("cannot write", bench.log);
    qsort(latency, n, sizeof *latency, by_size);
    double took = (double)(bench.ended_ns - bench.began_ns) / 1e9;
    size_t p50 = n / 2, p99 = n * 99 / 100;
    printf("{\"answered\":%" PRId64 ",\"refused\":%" PRId64
           ",\"seconds\":%.6f,\"per_s\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"max_ms\":%.3f}\n",
           bench.answered, bench.refused, took, (double)bench.answered / took, n ? (double)latency[p50] / 1e6 : 0,
           n ? (double)latency[p99] / 1e6 : 0, n ? (double)latency[n - 1] / 1e6 : 0);
    free(latency);
}

/* ---- options ---- */

static const struct {
    const char *name;
    const char **text;
    int64_t *number;
} options[] = {
    {"endpoint", &bench.endpoint, NULL}, {"ca", &bench.ca, NULL},           {"token", &bench.token, NULL},
    {"region", &bench.region, NULL},     {"project", &bench.project, NULL}, {"verb", &bench.verb, NULL},
    {"prefix", &bench.prefix, NULL},     {"image", &bench.image, NULL},     {"log", &bench.log, NULL},
    {"names", NULL, &bench.names},       {"count", NULL, &bench.count},     {"seconds", NULL, &bench.seconds},
    {"rate", NULL, &bench.rate},         {"window", NULL, &bench.window},   {"connections", NULL, &bench.connections},
    {"cpu", NULL, &bench.cpu},           {"memory", NULL, &bench.memory},
};

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i += 2) {
        size_t o = 0, n = sizeof options / sizeof options[0];
        while (o < n && (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, options[o].name) != 0))
            o++;
        if (o == n || i + 1 == argc) {
            fputs(usage, stderr);
            exit(2);
        }
        if (options[o].text)
            *options[o].text = argv[i + 1];
        else
            *options[o].number = atoll(argv[i + 1]);
    }
    if (!bench.endpoint || !bench.region || bench.connections < 1 || bench.connections > CONNECTIONS_MAX ||
        bench.count < 1 || bench.count > COUNT_MAX) {
        fputs(usage, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    bench.loop = uv_default_loop();
    bench.run = hp_now_ns() ^ (uint64_t)getpid() << 48;
    /* Memory that is not written is not taken. */
    bench.sent = calloc(bench.seconds ? COUNT_MAX : (size_t)bench.count, sizeof *bench.sent);
    if (!bench.sent)
        die("cannot start", "no memory");
    start();
    uv_run(bench.loop, UV_RUN_DEFAULT);
    report();
    return bench.refused ? 1 : 0;
}
