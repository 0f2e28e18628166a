/* Requests put into a region's queue as gateways do, and the commands that its scheduler publishes for them; for tests/bench/scheduler_throughput.py.
 *
 *   bench-decisions HOST PORT USER PASSWORD VHOST REGION HOSTS
 *
 * Is the router of so many hosts that are attached, heard from, and never answer a command. Prints a line when they have been told to the scheduler, then reads orders on standard input, one a line, and answers each with a line of JSON:
 *   load COUNT    so many creates, persistent, at most WINDOW of them not confirmed by the broker; the time from the first publish until a command for each of them has come
 *   idle COUNT    so many creates, each when the command for the last one has come; the time between the two
 * A command counts once for each container. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "harpoon/internal/v1/report.pb-c.h"
#include "harpoon/internal/v1/request.pb-c.h"
#include "io/loop.h"
#include "wire/names.h"

enum {
    CHANNEL = 1,
    WINDOW = 2000,
    BODY_MAX = 4096,
    NAMES_MAX = 1 << 20,
    QUIET_S = 60,
    HEARD_MS = 5000,
    IDLE_MAX = 100000,
    TAGS_MAX = 1 << 16
};

static struct {
    const char *host, *user, *password, *vhost, *region;
    int port, hosts;
    char router[64], queue[80], requests[80], reports[80], metrics[80];
    amqp_connection_state_t out;
    uint64_t published, confirmed, open,
        heard_ns;  /* tags: sent; how many of them are confirmed; the first that is not */
    int64_t names; /* containers asked for so far */
    uint64_t seed; /* makes request ids differ from run to run */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int64_t commands; /* distinct, so far */
    uint64_t last_ns; /* when the last of them came */
    uint8_t seen[NAMES_MAX];
    bool done[TAGS_MAX];
} all = {.open = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-decisions: %s: %s\n", what, why);
    exit(1);
}

static amqp_connection_state_t open_connection(void)
{
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c);
    if (!socket || amqp_socket_open(socket, all.host, all.port) ||
        amqp_login(c, all.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, all.user, all.password).reply_type !=
            AMQP_RESPONSE_NORMAL)
        die("cannot connect to RabbitMQ", all.host);
    amqp_channel_open(c, CHANNEL);
    if (amqp_get_rpc_reply(c).reply_type != AMQP_RESPONSE_NORMAL)
        die("RabbitMQ", "no channel");
    return c;
}

/* ---- What comes: on a connection and a thread of its own ---- */

static void count(int64_t number)
{
    pthread_mutex_lock(&all.lock);
    if (number >= 0 && number < NAMES_MAX && !all.seen[number]) {
        all.seen[number] = 1;
        all.commands++;
        all.last_ns = hp_now_ns();
        pthread_cond_signal(&all.moved);
    }
    pthread_mutex_unlock(&all.lock);
}

static void take_command(const amqp_bytes_t *body)
{
    Harpoon__Internal__V1__RouterCommand *m =
        harpoon__internal__v1__router_command__unpack(NULL, body->len, body->bytes);
    if (!m)
        die("a command", "is not a message");
    if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_COMMAND &&
        m->command->verb == HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE && m->command->spec)
        count(strtoll(strrchr(m->command->container, '-') + 1, NULL, 10));
    harpoon__internal__v1__router_command__free_unpacked(m, NULL);
}

static _Noreturn void receive(amqp_connection_state_t c)
{
    for (;;) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(c);
        if (amqp_consume_message(c, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
            die("the router's queue", "was lost");
        take_command(&envelope.message.body);
        amqp_destroy_envelope(&envelope);
    }
}

static void *consume(void *user)
{
    receive(user);
}

static void start_consumer(void)
{
    pthread_t thread;
    amqp_connection_state_t c = open_connection();
    amqp_queue_declare(c, CHANNEL, amqp_cstring_bytes(all.queue), 0, 0, 1, 1, amqp_empty_table);
    if (amqp_get_rpc_reply(c).reply_type != AMQP_RESPONSE_NORMAL)
        die(all.queue, "cannot be declared");
    amqp_basic_consume(c, CHANNEL, amqp_cstring_bytes(all.queue), amqp_empty_bytes, 0, 1, 1, amqp_empty_table);
    if (amqp_get_rpc_reply(c).reply_type != AMQP_RESPONSE_NORMAL || pthread_create(&thread, NULL, consume, c))
        die(all.queue, "cannot be consumed");
}

/* ---- What goes ---- */

static void publish(const char *queue, const char *type, bool persistent, const uint8_t *body, size_t len)
{
    amqp_basic_properties_t p = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TYPE_FLAG,
                                 .delivery_mode = persistent ? 2 : 1,
                                 .type = amqp_cstring_bytes(type)};
    if (amqp_basic_publish(all.out, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(queue), 1, 0, &p,
                           (amqp_bytes_t){len, (void *)(uintptr_t)body}))
        die(queue, "cannot be published to");
    all.done[++all.published % TAGS_MAX] = false;
}

/* They come in any order, alone or for all up to one. */
static void confirm(uint64_t tag, bool multiple)
{
    if (tag > all.published)
        die("the broker", "confirms what was not sent");
    for (uint64_t t = multiple ? all.open : tag; t <= tag; t++) {
        all.confirmed += !all.done[t % TAGS_MAX];
        all.done[t % TAGS_MAX] = true;
    }
    while (all.open <= all.published && all.done[all.open % TAGS_MAX])
        all.open++;
}

/* Confirms that are there; waits for the first when told. */
static void take_confirms(bool wait)
{
    struct timeval none = {0}, patience = {.tv_sec = QUIET_S};
    amqp_frame_t f;
    for (int rc; (rc = amqp_simple_wait_frame_noblock(all.out, &f, wait ? &patience : &none)) != AMQP_STATUS_TIMEOUT;
         wait = false) {
        if (rc != AMQP_STATUS_OK || f.frame_type != AMQP_FRAME_METHOD || f.payload.method.id != AMQP_BASIC_ACK_METHOD)
            die("a message", "was refused or returned by the broker");
        const amqp_basic_ack_t *ack = f.payload.method.decoded;
        confirm(ack->delivery_tag, ack->multiple);
        amqp_maybe_release_buffers_on_channel(all.out, CHANNEL);
    }
    if (wait)
        die("the broker", "confirms nothing");
}

static void attach(int i)
{
    char name[32];
    uint8_t body[BODY_MAX];
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest digest = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources room = HARPOON__V1__RESOURCES__INIT;
    snprintf(name, sizeof name, "bench-%d", i);
    room.cpu_millis = 1000000000;
    room.memory_bytes = 1LL << 50;
    hello.version_min = hello.version_max = 1;
    hello.session = m.session = 1;
    hello.allocatable = &room;
    hello.digest = &digest;
    m.region = (char *)(uintptr_t)all.region;
    m.host = name;
    m.router = all.router;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    publish(all.reports, "harpoon.internal.v1.Report", true, body, harpoon__internal__v1__report__pack(&m, body));
}

/* The hosts are alive. */
static void hear(void)
{
    enum { PART = 100 };
    if (hp_now_ns() - all.heard_ns < HEARD_MS * 1000000ULL)
        return;
    all.heard_ns = hp_now_ns();
    for (int from = 0; from < all.hosts; from += PART) {
        Harpoon__Internal__V1__MetricsBatch m = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
        Harpoon__Internal__V1__HostSample samples[PART], *list[PART];
        char names[PART][32];
        uint8_t body[BODY_MAX];
        m.router = all.router;
        m.samples = list;
        for (int i = from; i < all.hosts && i < from + PART; i++) {
            Harpoon__Internal__V1__HostSample *x = list[m.n_samples] = &samples[m.n_samples];
            harpoon__internal__v1__host_sample__init(x);
            snprintf(names[m.n_samples], sizeof names[0], "bench-%d", i);
            x->host = names[m.n_samples++];
            x->session = 1;
        }
        publish(all.metrics, "harpoon.internal.v1.MetricsBatch", false, body,
                harpoon__internal__v1__metrics_batch__pack(&m, body));
    }
}

/* As a gateway sends it for a call of the bulk stream. */
static void create(void)
{
    char id[HP_OPERATION_ID_LEN + 1], request[64], name[64], parent[128];
    uint8_t body[BODY_MAX], digest[32] = {1};
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__CreateContainerRequest c = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container container = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources size = HARPOON__V1__RESOURCES__INIT;
    int64_t n = all.names++;
    if (n >= NAMES_MAX)
        die("orders", "are for too many containers");
    snprintf(request, sizeof request, "%016" PRIx64 "-%" PRId64, all.seed, n);
    snprintf(name, sizeof name, "bench-%" PRId64, n);
    snprintf(parent, sizeof parent, "projects/demo/regions/%s", all.region);
    hp_operation_id(id, "demo", request);
    size.cpu_millis = 100;
    size.memory_bytes = 64 << 20;
    spec.image = (char *)"docker://registry.example/team/service:1.2.3";
    spec.resources = &size;
    container.spec = &spec;
    c.parent = parent;
    c.container_id = name;
    c.request_id = request;
    c.container = &container;
    q.operation_id = id;
    q.project = (char *)"demo";
    q.region = (char *)(uintptr_t)all.region;
    q.request_id = request;
    q.principal = (char *)"bench";
    q.payload_digest = (ProtobufCBinaryData){sizeof digest, digest};
    q.payload_case = HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE;
    q.create = &c;
    publish(all.requests, "harpoon.internal.v1.Request", true, body, harpoon__internal__v1__request__pack(&q, body));
}

/* ---- Orders ---- */

/* When as many commands have come as containers were asked for: the time of the last one. */
static uint64_t wait_commands(void)
{
    struct timespec until;
    pthread_mutex_lock(&all.lock);
    while (all.commands < all.names) {
        int64_t before = all.commands;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += QUIET_S;
        if (pthread_cond_timedwait(&all.moved, &all.lock, &until) && all.commands == before) {
            fprintf(stderr, "bench-decisions: %" PRId64 " of %" PRId64 " commands came, then nothing for %d s\n",
                    all.commands, all.names, QUIET_S);
            exit(1);
        }
    }
    uint64_t last = all.last_ns;
    pthread_mutex_unlock(&all.lock);
    return last;
}

static void run_load(int64_t amount)
{
    uint64_t began = hp_now_ns();
    for (int64_t i = 0; i < amount; i++) {
        while (all.published - all.confirmed >= WINDOW)
            take_confirms(true);
        create();
        hear();
        if (i % 64 == 0)
            take_confirms(false);
    }
    while (all.confirmed < all.published)
        take_confirms(true);
    double seconds = (double)(wait_commands() - began) / 1e9;
    printf("{\"commands\":%" PRId64 ",\"seconds\":%.6f}\n", amount, seconds);
}

static int by_time(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void run_idle(int64_t amount)
{
    static double took_ms[IDLE_MAX];
    if (amount < 1 || amount > IDLE_MAX)
        die("order", "idle: too many");
    for (int64_t i = 0; i < amount; i++) {
        uint64_t began = hp_now_ns();
        create();
        took_ms[i] = (double)(wait_commands() - began) / 1e6;
        take_confirms(all.confirmed < all.published);
        hear();
    }
    qsort(took_ms, (size_t)amount, sizeof *took_ms, by_time);
    printf("{\"commands\":%" PRId64 ",\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n", amount, took_ms[amount / 2],
           took_ms[amount * 99 / 100]);
}

static void obey(const char *line)
{
    int64_t amount;
    if (sscanf(line, "load %" SCNd64, &amount) == 1)
        run_load(amount);
    else if (sscanf(line, "idle %" SCNd64, &amount) == 1)
        run_idle(amount);
    else
        die("not an order", line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[128];
    if (argc != 8)
        die("arguments", "see the head of decisions.c");
    all.host = argv[1];
    all.port = atoi(argv[2]);
    all.user = argv[3];
    all.password = argv[4];
    all.vhost = argv[5];
    all.region = argv[6];
    all.hosts = atoi(argv[7]);
    all.seed = hp_now_ns();
    snprintf(all.router, sizeof all.router, "bench-%08x", (unsigned)(all.seed >> 8));
    snprintf(all.queue, sizeof all.queue, "router.%s", all.router);
    snprintf(all.requests, sizeof all.requests, "requests.%s", all.region);
    snprintf(all.reports, sizeof all.reports, "reports.%s", all.region);
    snprintf(all.metrics, sizeof all.metrics, "metrics.%s", all.region);
    setvbuf(stdin, NULL, _IONBF, 0); /* poll must see what is left */
    all.out = open_connection();
    amqp_confirm_select(all.out, CHANNEL);
    start_consumer();
    for (int i = 0; i < all.hosts; i++)
        attach(i);
    while (all.confirmed < all.published)
        take_confirms(true);
    printf("{\"hosts\":%d}\n", all.hosts);
    fflush(stdout);
    for (;;) {
        int n = poll(&in, 1, HEARD_MS);
        if (n > 0 && !fgets(line, sizeof line, stdin))
            return 0;
        if (n > 0)
            obey(line);
        hear();
        take_confirms(false);
    }
}
