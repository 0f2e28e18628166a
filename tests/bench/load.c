/* load.c — a load of creates and deletes through a gateway, and how long each took, measured by what comes back: the gateway's word that it is accepted, and the end of the operation in the stream of events.
 *
 *   bench-load --endpoint URL --ca FILE --token T --region R [--project P] [--prefix NAME]
 *
 * Reads orders on standard input, one a line, and answers each with one line of JSON when it is done:
 *   fill COUNT WINDOW        creates, WINDOW under way at a time, until COUNT containers stand
 *   closed WINDOW SECONDS    WINDOW operations under way at a time: as many as the system takes
 *   rate N SECONDS           N operations a second, whether or not the system keeps up: times count from when an operation was due, not from when it could be sent
 *   settle SECONDS           waits until nothing is under way
 *   report LEG               the times of an earlier order (1: the first), with what has ended since
 *
 * Half of the operations of `closed` and `rate` create a container, half delete the one that has stood longest; so with as many standing as there are hosts, places move over the whole fleet. An operation counts when
 * its end has come out of the stream as SUCCEEDED; one that ends otherwise, twice, or unasked is counted as such. Times are of
 * operations sent (or due) in that leg, as far as they have ended.
 *   --on PREFIX:N            creates ask for the hosts PREFIX1 to PREFIXN by name, in turn */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "grpc/status.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "io/loop.h"
#include "io/rpc_client.h"

enum {
    ITEMS_MAX = 4 << 20,  /* containers of one run */
    SUBMITTED_MAX = 8000, /* of one call, not answered: the gateway refuses more than 10,000 */
    HOSTS_MAX = 200000,   /* that are told apart */
    TICK_MS = 2,          /* of `rate` */
    RETRY_MS = 50,        /* of what was refused as too much */
    SECONDS_MAX = 3600,
    LEGS_MAX = 64,
};

enum end { END_NONE, END_OK, END_OTHER };

/* A container, and its two operations: [0] create, [1] delete. */
struct item {
    uint64_t due_ns[2];
    uint8_t asked[2], accepted[2], end[2]; /* end: enum end */
    uint32_t leg[2];
    uint32_t next;   /* of the standing, or of those that wait to be sent; 0: last */
    uint8_t sending; /* which of the two waits to be sent */
};

struct samples {
    uint32_t *us;
    size_t count, cap;
};

struct queue {
    uint32_t head, tail;
    size_t count;
};

enum order { ORDER_NONE, ORDER_FILL, ORDER_CLOSED, ORDER_RATE, ORDER_SETTLE };

static struct {
    uv_loop_t *loop;
    struct hp_rpc_client *client;
    struct hp_client_call *submit, *watch;
    const char *region, *project, *prefix, *on;
    unsigned long on_count;
    char parent[256], names[320]; /* "projects/P/regions/R", and "…/containers/PREFIX" */
    struct item *items;           /* from 1 */
    uint32_t item_count;
    struct queue standing, waiting; /* containers that may be deleted; operations that the call does not take yet */
    size_t unanswered;              /* of the submit call */
    bool writable;
    int64_t last_sequence;

    enum order order;
    uint32_t leg;
    uint64_t began_ns, ends_ns;
    int64_t target; /* fill: containers; rate: a second */
    size_t window;
    int64_t issued;        /* operations of this leg */
    size_t under_way;      /* not ended, of all legs */
    size_t left[LEGS_MAX]; /* not ended, by leg */
    uint64_t over_ns[LEGS_MAX],
        drained_ns[LEGS_MAX]; /* when the leg was over; when its last operation ended, if after that */
    bool create_next;
    struct samples accept[LEGS_MAX], end[LEGS_MAX];
    int64_t ok, refused, resumed;
    int64_t total, other, twice, unasked; /* of all legs, and between them */
    int64_t each_second[SECONDS_MAX];
    uint8_t host_seen[HOSTS_MAX];
    int64_t hosts;
    char first_error[512];

    uv_timer_t tick, retry;
    uv_pipe_t in;
    char line[256];
    size_t line_len;
} g;

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("bench-load: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

/* ---- Samples and queues ---- */

static void sample(struct samples *s, uint64_t ns)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 65536;
        s->us = realloc(s->us, s->cap * sizeof *s->us);
        if (!s->us)
            die("out of memory");
    }
    s->us[s->count++] = ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Milliseconds; the samples are sorted. */
static double share(const struct samples *s, double part)
{
    if (!s->count)
        return 0;
    size_t i = (size_t)((double)s->count * part);
    return s->us[i < s->count ? i : s->count - 1] / 1000.0;
}

static void push(struct queue *q, uint32_t i)
{
    g.items[i].next = 0;
    if (q->count++)
        g.items[q->tail].next = i;
    else
        q->head = i;
    q->tail = i;
}

static uint32_t pop(struct queue *q)
{
    uint32_t i = q->head;
    q->head = g.items[i].next;
    q->count--;
    return i;
}

/* ---- Sending ---- */

/* A create with all its parts. */
struct create_message {
    Harpoon__V1__CreateContainerRequest request;
    Harpoon__V1__Container container;
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources resources;
    Harpoon__V1__NetworkSpec network;
    Harpoon__V1__PlacementSpec placement;
    char host[80];
};

static void fill_create(struct create_message *m, uint32_t i)
{
    harpoon__v1__create_container_request__init(&m->request);
    harpoon__v1__container__init(&m->container);
    harpoon__v1__container_spec__init(&m->spec);
    harpoon__v1__resources__init(&m->resources);
    harpoon__v1__network_spec__init(&m->network);
    harpoon__v1__placement_spec__init(&m->placement);
    m->resources.cpu_millis = 100;
    m->resources.memory_bytes = 64 << 20;
    m->network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    m->spec.image = (char *)"oci:/srv/images/web:latest";
    m->spec.resources = &m->resources;
    m->spec.network = &m->network;
    if (g.on_count) {
        snprintf(m->host, sizeof m->host, "%.60s%lu", g.on, i % g.on_count + 1);
        m->placement.host = m->host;
        m->spec.placement = &m->placement;
    }
    m->container.spec = &m->spec;
    m->request.parent = g.parent;
    m->request.container = &m->container;
}

static void transmit(uint32_t i, int del)
{
    Harpoon__V1__SubmitRequest m = HARPOON__V1__SUBMIT_REQUEST__INIT;
    struct create_message create;
    Harpoon__V1__DeleteContainerRequest remove = HARPOON__V1__DELETE_CONTAINER_REQUEST__INIT;
    char name[400], request_id[64];
    snprintf(request_id, sizeof request_id, "%s-%" PRIu32 "-%d", g.prefix, i, del);
    m.correlation = (int64_t)i * 2 + del;
    if (del) {
        snprintf(name, sizeof name, "%s-%" PRIu32, g.names, i);
        remove.name = name;
        remove.request_id = request_id;
        m.change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_DELETE;
        m.delete_ = &remove;
    } else {
        snprintf(name, sizeof name, "%s-%" PRIu32, g.prefix, i);
        fill_create(&create, i);
        create.request.container_id = name;
        create.request.request_id = request_id;
        m.change_case = HARPOON__V1__SUBMIT_REQUEST__CHANGE_CREATE;
        m.create = &create.request;
    }
    int rc = hp_client_call_send(g.submit, &m.base);
    if (rc == HP_EAGAIN)
        g.writable = false;
    else if (rc)
        die("submit: %s", hp_strerror(rc));
    g.unanswered++;
}

static void send_waiting(void)
{
    while (g.waiting.count && g.writable && g.unanswered < SUBMITTED_MAX) {
        uint32_t i = pop(&g.waiting);
        transmit(i, g.items[i].sending);
    }
}

static void ask(uint32_t i, int del, uint64_t due_ns)
{
    struct item *x = &g.items[i];
    x->due_ns[del] = due_ns;
    x->asked[del] = 1;
    x->leg[del] = g.leg;
    x->sending = (uint8_t)del;
    g.issued++;
    g.under_way++;
    g.left[g.leg]++;
    push(&g.waiting, i);
}

static void ask_create(uint64_t due_ns)
{
    if (g.item_count + 1 >= ITEMS_MAX)
        die("more than %d containers", ITEMS_MAX);
    ask(++g.item_count, 0, due_ns);
}

/* The next of a load: creates and deletes in turn; a create when nothing stands. */
static void ask_next(uint64_t due_ns)
{
    g.create_next = !g.create_next || !g.standing.count;
    if (g.create_next)
        ask_create(due_ns);
    else
        ask(pop(&g.standing), 1, due_ns);
}

static void finish_leg(void);

/* As many as may be under way now. */
static void refill(void)
{
    uint64_t now = hp_now_ns();
    switch (g.order) {
    case ORDER_FILL:
        while (g.under_way < g.window && g.issued < g.target)
            ask_create(now);
        break;
    case ORDER_CLOSED:
        while (now < g.ends_ns && g.under_way < g.window)
            ask_next(now);
        break;
    case ORDER_RATE:
        for (;;) {
            uint64_t due = g.began_ns + (uint64_t)((double)g.issued * 1e9 / (double)g.target);
            if (due > now || due >= g.ends_ns)
                break;
            ask_next(due);
        }
        break;
    case ORDER_NONE:
    case ORDER_SETTLE:
        break;
    }
    send_waiting();
    bool timed = g.order == ORDER_CLOSED || g.order == ORDER_RATE;
    if (g.order != ORDER_NONE && (timed ? now >= g.ends_ns : !g.under_way || (g.ends_ns && now >= g.ends_ns)))
        finish_leg();
}

/* ---- Answers and events ---- */

static void complain(const char *what, const char *text)
{
    if (!*g.first_error)
        snprintf(g.first_error, sizeof g.first_error, "%s: %.400s", what, text);
}

static void ended(uint32_t i, int del, bool ok)
{
    struct item *x = &g.items[i];
    uint64_t now = hp_now_ns();
    x->end[del] = ok ? END_OK : END_OTHER;
    g.under_way--;
    if (--g.left[x->leg[del]] == 0)
        g.drained_ns[x->leg[del]] = now;
    if (ok && !del && x->accepted[0])
        push(&g.standing, i);
    if (!ok) {
        g.other++;
        return;
    }
    g.ok++;
    g.total++;
    if (g.order != ORDER_NONE && (now - g.began_ns) / 1000000000 < SECONDS_MAX)
        g.each_second[(now - g.began_ns) / 1000000000]++;
    sample(&g.end[x->leg[del]], now - x->due_ns[del]);
}

static void on_answer(struct hp_client_call *call, const ProtobufCMessage *message, void *user)
{
    const Harpoon__V1__SubmitResponse *r = (const Harpoon__V1__SubmitResponse *)message;
    uint32_t i = (uint32_t)(r->correlation / 2);
    int del = (int)(r->correlation & 1);
    struct item *x = &g.items[i];
    (void)call;
    (void)user;
    if (i == 0 || i > g.item_count || !x->asked[del] || x->accepted[del])
        die("an answer to what was not asked: %" PRId64, r->correlation);
    g.unanswered--;
    if (r->status && (r->status->code == HP_CODE_RESOURCE_EXHAUSTED || r->status->code == HP_CODE_UNAVAILABLE)) {
        g.refused++; /* with the same request_id once more, and the time runs on */
        x->sending = (uint8_t)del;
        push(&g.waiting, i);
        return;
    }
    if (r->status && r->status->code)
        die("not accepted: %s", r->status->message);
    x->accepted[del] = 1;
    if (!del && x->end[0] == END_OK) /* it was done before the answer came, or before it was asked once more */
        push(&g.standing, i);
    sample(&g.accept[x->leg[del]], hp_now_ns() - x->due_ns[del]);
}

static void on_writable(struct hp_client_call *call, void *user)
{
    (void)call;
    (void)user;
    g.writable = true;
    refill();
}

static void on_submit_end(struct hp_client_call *call, const Google__Rpc__Status *status, void *user)
{
    (void)call;
    (void)user;
    die("the submit call ended: %d %s", status->code, status->message);
}

static void see_host(const char *name)
{
    const char *digits = name + strcspn(name, "0123456789");
    const char *last = strrchr(name, '-');
    unsigned long n = strtoul(last ? last + 1 : digits, NULL, 10);
    if (n < HOSTS_MAX && !g.host_seen[n]) {
        g.host_seen[n] = 1;
        g.hosts++;
    }
}

static void on_event(struct hp_client_call *call, const ProtobufCMessage *message, void *user)
{
    const Harpoon__V1__WatchResponse *r = (const Harpoon__V1__WatchResponse *)message;
    (void)call;
    (void)user;
    if (r->event && r->sequence <= g.last_sequence)
        g.twice++;
    g.last_sequence = r->sequence;
    const Harpoon__V1__Operation *o =
        r->event && r->event->data_case == HARPOON__V1__EVENT__DATA_OPERATION_DATA ? r->event->operation_data : NULL;
    size_t len = strlen(g.names);
    if (!o || strncmp(o->target, g.names, len) != 0 || o->target[len] != '-')
        return;
    unsigned long i = strtoul(o->target + len + 1, NULL, 10);
    int del = o->verb == HARPOON__V1__VERB__VERB_DELETE;
    if (i == 0 || i > g.item_count || !g.items[i].asked[del]) {
        g.unasked++;
        return;
    }
    if (g.items[i].end[del]) {
        g.twice++;
        return;
    }
    bool ok = o->stage == HARPOON__V1__STAGE__STAGE_SUCCEEDED;
    if (!ok)
        complain(o->target, o->error && o->error->message ? o->error->message : r->event->type);
    else
        see_host(r->event->host);
    ended((uint32_t)i, del, ok);
    if (g.order != ORDER_RATE)
        refill();
}

static void watch(void);

static void on_watch_end(struct hp_client_call *call, const Google__Rpc__Status *status, void *user)
{
    (void)call;
    (void)user;
    if (status->code != HP_CODE_RESOURCE_EXHAUSTED && status->code != 0)
        die("the watch ended: %d %s", status->code, status->message);
    g.resumed++; /* too slow to read: on from there, as any reader would */
    watch();
}

static void watch(void)
{
    static const struct hp_client_call_events events = {.on_message = on_event, .on_finish = on_watch_end};
    static char *types[] = {(char *)"harpoon.operation.succeeded", (char *)"harpoon.operation.failed",
                            (char *)"harpoon.operation.rejected", (char *)"harpoon.operation.cancelled",
                            (char *)"harpoon.operation.expired"};
    Harpoon__V1__WatchRequest r = HARPOON__V1__WATCH_REQUEST__INIT;
    Harpoon__V1__EventFilter filter = HARPOON__V1__EVENT_FILTER__INIT;
    struct hp_error e = {0};
    char parent[128];
    snprintf(parent, sizeof parent, "regions/%s", g.region);
    r.parent = parent;
    filter.n_types = sizeof types / sizeof *types;
    filter.types = types;
    r.filter = &filter;
    r.heartbeat_ms = 1000;
    if (g.last_sequence) {
        r.start_case = HARPOON__V1__WATCH_REQUEST__START_AFTER_SEQUENCE;
        r.after_sequence = g.last_sequence;
    }
    if (hp_client_call_start(g.client, "/harpoon.v1.EventService/Watch", &harpoon__v1__watch_response__descriptor, 0,
                             &events, NULL, &g.watch, &e) ||
        hp_client_call_send(g.watch, &r.base) == HP_ELIMIT)
        die("watch: %s", e.message);
    hp_client_call_half_close(g.watch);
}

static void submit(void)
{
    static const struct hp_client_call_events events = {
        .on_message = on_answer, .on_writable = on_writable, .on_finish = on_submit_end};
    struct hp_error e = {0};
    if (hp_client_call_start(g.client, "/harpoon.v1.EventService/Submit", &harpoon__v1__submit_response__descriptor, 0,
                             &events, NULL, &g.submit, &e))
        die("submit: %s", e.message);
    g.writable = true;
}

/* ---- Orders ---- */

static void print_result(uint32_t leg, double seconds)
{
    struct samples *accept = &g.accept[leg], *end = &g.end[leg];
    qsort(accept->us, accept->count, sizeof *accept->us, by_value);
    qsort(end->us, end->count, sizeof *end->us, by_value);
    bool later = g.drained_ns[leg] > g.over_ns[leg];
    printf("{\"left\":%zu,\"drained_s\":%.3f,\"total_succeeded\":%" PRId64 ",\"seconds\":%.3f,\"issued\":%" PRId64
           ",\"succeeded\":%" PRId64 ",\"ended_otherwise\":%" PRId64 ",\"twice\":%" PRId64 ",\"unasked\":%" PRId64
           ",\"refused\":%" PRId64 ",\"resumed\":%" PRId64
           ",\"ops_per_s\":%.1f,\"under_way\":%zu,\"standing\":%zu,\"hosts\":%" PRId64,
           g.left[leg], later ? (double)(g.drained_ns[leg] - g.over_ns[leg]) / 1e9 : 0.0, g.total, seconds, g.issued,
           g.ok, g.other, g.twice, g.unasked, g.refused, g.resumed, seconds > 0 ? (double)g.ok / seconds : 0,
           g.under_way, g.standing.count, g.hosts);
    printf(",\"accepted\":%zu,\"accept_p50_ms\":%.2f,\"accept_p99_ms\":%.2f,\"accept_max_ms\":%.2f,\"ended\":%zu,\"end_"
           "p50_ms\":%.2f,"
           "\"end_p99_ms\":%.2f,\"end_max_ms\":%.2f,\"error\":\"",
           accept->count, share(accept, 0.5), share(accept, 0.99), share(accept, 1), end->count, share(end, 0.5),
           share(end, 0.99), share(end, 1));
    for (const char *c = g.first_error; *c; c++)
        putchar(*c == '"' || *c == '\\' || *c < ' ' ? '\'' : *c);
    printf("\",\"each_second\":[");
    for (int i = 0; i < SECONDS_MAX && i < (int)seconds; i++)
        printf("%s%" PRId64, i ? "," : "", g.each_second[i]);
    printf("]}\n");
    fflush(stdout);
}

static void finish_leg(void)
{
    g.over_ns[g.leg] = hp_now_ns();
    print_result(g.leg, (double)(hp_now_ns() - g.began_ns) / 1e9);
    g.order = ORDER_NONE;
    uv_timer_stop(&g.tick);
}

static void begin_leg(enum order order, uint64_t seconds)
{
    if (++g.leg == LEGS_MAX)
        die("more than %d orders", LEGS_MAX - 1);
    g.order = order;
    g.began_ns = hp_now_ns();
    g.ends_ns = seconds ? g.began_ns + seconds * 1000000000u : 0;
    g.issued = g.ok = g.refused = g.resumed = g.hosts = 0;
    memset(g.each_second, 0, sizeof g.each_second);
    memset(g.host_seen, 0, sizeof g.host_seen);
}

static void on_tick(uv_timer_t *t)
{
    (void)t;
    refill();
}

static void take_order(const char *line)
{
    long long a = 0, b = 0;
    if (g.order != ORDER_NONE)
        die("an order while another one is carried out: %s", line);
    if (sscanf(line, "fill %lld %lld", &a, &b) == 2 && a > 0 && b > 0) {
        begin_leg(ORDER_FILL, 0);
        g.target = a;
        g.window = (size_t)b;
    } else if (sscanf(line, "closed %lld %lld", &a, &b) == 2 && a > 0 && b > 0) {
        begin_leg(ORDER_CLOSED, (uint64_t)b);
        g.window = (size_t)a;
    } else if (sscanf(line, "rate %lld %lld", &a, &b) == 2 && a > 0 && b > 0) {
        begin_leg(ORDER_RATE, (uint64_t)b);
        g.target = a;
    } else if (sscanf(line, "settle %lld", &a) == 1 && a > 0) {
        begin_leg(ORDER_SETTLE, (uint64_t)a);
    } else if (sscanf(line, "report %lld", &a) == 1 && a > 0 && a <= g.leg) {
        print_result((uint32_t)a, 0);
        return;
    } else {
        die("not an order: %s", line);
    }
    uv_timer_start(&g.tick, on_tick, 0, TICK_MS);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(g.line + g.line_len, (unsigned)(sizeof g.line - 1 - g.line_len));
}

static void on_input(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    (void)s;
    (void)buf;
    if (n < 0)
        exit(0);
    g.line_len += (size_t)n;
    char *end;
    while ((end = memchr(g.line, '\n', g.line_len))) {
        *end = '\0';
        take_order(g.line);
        size_t used = (size_t)(end - g.line) + 1;
        memmove(g.line, end + 1, g.line_len - used);
        g.line_len -= used;
    }
    if (g.line_len == sizeof g.line - 1)
        die("an order of more than %zu bytes", g.line_len);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"endpoint", 1, NULL, 'e'}, {"ca", 1, NULL, 'c'},     {"token", 1, NULL, 't'}, {"region", 1, NULL, 'r'},
        {"project", 1, NULL, 'p'},  {"prefix", 1, NULL, 'n'}, {"on", 1, NULL, 'o'},    {NULL, 0, NULL, 0}};
    struct hp_rpc_client_options o = {0};
    struct hp_error e = {0};
    g.region = "r1";
    g.project = "demo";
    g.prefix = "load";
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        const char **to = c == 'e'   ? &o.endpoint
                          : c == 'c' ? &o.ca_file
                          : c == 't' ? &o.token
                          : c == 'r' ? &g.region
                          : c == 'p' ? &g.project
                          : c == 'n' ? &g.prefix
                          : c == 'o' ? &g.on
                                     : NULL;
        if (!to)
            return 2;
        *to = optarg;
    }
    char *colon = g.on ? strrchr(g.on, ':') : NULL;
    if (!o.endpoint || (g.on && !colon))
        die("needs --endpoint, and --on PREFIX:N");
    if (colon) {
        *colon = '\0';
        g.on_count = strtoul(colon + 1, NULL, 10);
    }
    snprintf(g.parent, sizeof g.parent, "projects/%s/regions/%s", g.project, g.region);
    snprintf(g.names, sizeof g.names, "%.200s/containers/%.100s", g.parent, g.prefix);
    g.items = calloc(ITEMS_MAX, sizeof *g.items); /* pages come when they are used */
    g.loop = uv_default_loop();
    if (!g.items || hp_rpc_client_new(g.loop, &o, &g.client, &e))
        die("%s", e.message);
    uv_timer_init(g.loop, &g.tick);
    uv_pipe_init(g.loop, &g.in, 0);
    if (uv_pipe_open(&g.in, STDIN_FILENO))
        die("standard input is no pipe");
    watch();
    submit();
    uv_read_start((uv_stream_t *)&g.in, on_alloc, on_input);
    uv_run(g.loop, UV_RUN_DEFAULT);
    return 1;
}
