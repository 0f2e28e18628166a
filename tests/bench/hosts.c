/* Many hosts in one process, each a plain TCP connection, and what is sent to them: through an event-router, or through an MQTT broker with QoS 1; for tests/bench/fan_out.py.
 *
 *   bench-hosts mqtt ADDRESS PORT CONNECTIONS BYTES
 *   bench-hosts router ADDRESS PORT CONNECTIONS REGION QUEUE AMQP_PORT USER PASSWORD VHOST
 *
 * Connects all hosts (CONNECT and SUBSCRIBE; the hello), prints a line, then reads orders on standard input, one a line, and answers each with one line of JSON when every message has come to its host:
 *   one COUNT     one message for each host in turn, COUNT in all
 *   all ROUNDS    a message for every host, ROUNDS times: by one PUBLISH to a topic that all have subscribed to, by a command for each host
 *   stall HOSTS   the first so many hosts read nothing from now on; they are sent to all the same, and not waited for
 *
 * A host acknowledges each message: PUBACK; the result of the command, which the router hands to RabbitMQ and confirms to the host. At most OUTSTANDING messages are under way to hosts that read; the one that
 * publishes to the MQTT broker has QoS 1, too. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "io/loop.h"
#include "wire/frame.h"

enum {
    OUTSTANDING = 5000,
    READ_BYTES = 256 * 1024,
    OUT_BYTES = 64 * 1024,
    PART_BYTES = 4096, /* of a packet or frame that came in part */
    PACKET_BYTES = 2048,
    READY_MAX = 512,
    BATCH = 200, /* hosts that connect at a time */
    QUIET_MS = 60000,
};

struct host {
    int fd, number;
    bool welcome, stalled;
    int64_t report_id;
    size_t part_len;
    uint8_t *part;
};

static struct {
    bool mqtt;
    const char *region, *queue, *amqp_port, *user, *password, *vhost;
    struct sockaddr_in address;
    struct host *hosts;
    int count, stalled, epoll;
    size_t bytes;
    int welcomed;
    uint8_t in[READ_BYTES], out[OUT_BYTES]; /* of the one host that is being served */
    size_t out_len;
} all;

/* The order under way: the feeder's thread sends, the loop counts. */
static struct {
    pthread_t thread;
    bool to_all;
    long amount;
    _Atomic long sent, got; /* messages to hosts that read */
    int mqtt_fd;
    amqp_connection_state_t amqp;
    long serial;
} feeder;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-hosts: %s: %s\n", what, why);
    exit(1);
}

static int connect_one(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&all.address, sizeof all.address))
        die("cannot connect", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void send_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0)
            die("cannot send", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
}

/* ---- MQTT 3.1.1 (OASIS standard, sections 2 and 3) ---- */

static size_t mqtt_text(uint8_t *to, const char *text)
{
    size_t n = strlen(text);
    to[0] = (uint8_t)(n >> 8);
    to[1] = (uint8_t)n;
    memcpy(to + 2, text, n);
    return n + 2;
}

/* The fixed header before `len` bytes; gives its length, of at most 5. */
static size_t mqtt_header(uint8_t *to, uint8_t type, size_t len)
{
    size_t n = 0;
    to[n++] = type;
    do {
        to[n++] = (uint8_t)((len & 127) | (len > 127 ? 128 : 0));
        len >>= 7;
    } while (len > 0);
    return n;
}

static void mqtt_send(int fd, uint8_t type, const uint8_t *body, size_t len)
{
    uint8_t packet[PACKET_BYTES];
    size_t n = mqtt_header(packet, type, len);
    memcpy(packet + n, body, len);
    send_all(fd, packet, n + len);
}

static void mqtt_connect(int fd, const char *id)
{
    uint8_t body[256];
    size_t n = mqtt_text(body, "MQTT");
    body[n++] = 4;
    body[n++] = 2; /* clean session */
    body[n++] = 0; /* no keep alive */
    body[n++] = 0;
    n += mqtt_text(body + n, id);
    mqtt_send(fd, 0x10, body, n);
}

static void mqtt_hello(struct host *h)
{
    char id[32];
    uint8_t body[64];
    snprintf(id, sizeof id, "h/%d", h->number);
    mqtt_connect(h->fd, id);
    body[0] = 0;
    body[1] = 1;
    size_t n = 2 + mqtt_text(body + 2, id);
    body[n++] = 1; /* QoS */
    n += mqtt_text(body + n, "all");
    body[n++] = 1;
    mqtt_send(h->fd, 0x82, body, n);
}

static size_t mqtt_publish(uint8_t *packet, const char *topic, uint16_t id)
{
    uint8_t body[PACKET_BYTES];
    size_t n = mqtt_text(body, topic);
    body[n++] = (uint8_t)(id >> 8);
    body[n++] = (uint8_t)id;
    memset(body + n, 'x', all.bytes);
    n += all.bytes;
    size_t head = mqtt_header(packet, 0x32, n);
    memcpy(packet + head, body, n);
    return head + n;
}

static void answer(const void *data, size_t len)
{
    if (all.out_len + len > sizeof all.out)
        die("too much to answer", "OUT_BYTES");
    memcpy(all.out + all.out_len, data, len);
    all.out_len += len;
}

static void welcome(struct host *h)
{
    if (!h->welcome)
        all.welcomed++;
    h->welcome = true;
}

static void mqtt_packet(struct host *h, uint8_t type, const uint8_t *body, size_t len)
{
    if ((type & 0xf0) == 0x90) {
        welcome(h);
    } else if ((type & 0xf0) == 0x30) {
        size_t topic = len < 2 ? len : 2 + (size_t)(body[0] << 8 | body[1]);
        if (topic + 2 > len || !(type & 2))
            die("a packet", "is not a publish of QoS 1");
        const uint8_t ack[] = {0x40, 2, body[topic], body[topic + 1]};
        answer(ack, sizeof ack);
        atomic_fetch_add(&feeder.got, 1);
    } else if ((type & 0xf0) != 0x20) {
        die("a packet", "of an unexpected type");
    }
}

/* Takes whole packets; gives how many bytes they were. */
static size_t mqtt_packets(struct host *h, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (len - at >= 2) {
        size_t size = 0, n = 1;
        do {
            if (at + n >= len)
                return at;
            size |= (size_t)(data[at + n] & 127) << 7 * (n - 1);
        } while (data[at + n++] & 128);
        if (len - at < n + size)
            return at;
        mqtt_packet(h, data[at], data + at + n, size);
        at += n + size;
    }
    return at;
}

/* ---- the agents' link ---- */

static void host_name(char *to, size_t size, int number)
{
    snprintf(to, size, "bench-%d", number);
}

static void router_say(int fd, const Harpoon__Internal__V1__AgentMessage *m)
{
    uint8_t frame[PACKET_BYTES];
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(m);
    hp_frame_header(frame, n);
    harpoon__internal__v1__agent_message__pack(m, frame + HP_FRAME_HEADER);
    if (fd >= 0)
        send_all(fd, frame, n + HP_FRAME_HEADER);
    else
        answer(frame, n + HP_FRAME_HEADER);
}

static void router_hello(struct host *h)
{
    char name[64];
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest digest = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    host_name(name, sizeof name, h->number);
    hello.version_min = hello.version_max = 1;
    hello.region = (char *)(uintptr_t)all.region;
    hello.host = name;
    hello.session = 1;
    hello.digest = &digest;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO;
    m.hello = &hello;
    router_say(h->fd, &m);
}

static void router_frame(struct host *h, const uint8_t *body, size_t len)
{
    Harpoon__Internal__V1__RouterMessage *m = harpoon__internal__v1__router_message__unpack(NULL, len, body);
    if (!m)
        die("a frame", "is not a message");
    if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_REFUSED) {
        die("refused", m->refused->status ? m->refused->status->message : "");
    } else if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_WELCOME) {
        welcome(h);
    } else if (m->body_case == HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_COMMAND) {
        Harpoon__Internal__V1__AgentMessage a = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
        Harpoon__Internal__V1__CommandResult r = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
        r.report_id = ++h->report_id;
        r.operation_id = m->command->operation_id;
        r.uid = m->command->uid;
        r.generation = m->command->generation;
        r.epoch = m->command->epoch;
        r.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
        a.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT;
        a.result = &r;
        router_say(-1, &a);
        atomic_fetch_add(&feeder.got, 1);
    }
    harpoon__internal__v1__router_message__free_unpacked(m, NULL);
}

static size_t router_frames(struct host *h, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (len - at >= HP_FRAME_HEADER) {
        const uint8_t *p = data + at;
        size_t n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (len - at - HP_FRAME_HEADER < n)
            return at;
        router_frame(h, p + HP_FRAME_HEADER, n);
        at += HP_FRAME_HEADER + n;
    }
    return at;
}

static size_t router_command(uint8_t *body, int number, long serial)
{
    char name[64], container[128], uid[32], operation[40];
    Harpoon__Internal__V1__RouterCommand m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__Command c = HARPOON__INTERNAL__V1__COMMAND__INIT;
    host_name(name, sizeof name, number);
    snprintf(container, sizeof container, "projects/demo/regions/%s/containers/c%ld", all.region, serial);
    snprintf(uid, sizeof uid, "%026ld", serial);
    snprintf(operation, sizeof operation, "%032ld", serial);
    c.region = (char *)(uintptr_t)all.region;
    c.host = name;
    c.operation_id = operation;
    c.container = container;
    c.uid = uid;
    c.generation = 1;
    c.epoch = 1;
    c.session = 1;
    c.verb = HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE;
    c.deadline_ms = 60000;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_COMMAND__BODY_COMMAND;
    m.command = &c;
    return harpoon__internal__v1__router_command__pack(&m, body);
}

/* ---- the loop of the hosts ---- */

static void keep_part(struct host *h, const uint8_t *data, size_t len)
{
    if (len > PART_BYTES || (!h->part && !(h->part = malloc(PART_BYTES))))
        die("a packet", "is too long");
    memmove(h->part, data, len);
    h->part_len = len;
}

static void on_readable(struct host *h)
{
    memcpy(all.in, h->part, h->part_len);
    ssize_t n = recv(h->fd, all.in + h->part_len, sizeof all.in / 4 - h->part_len, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        die("a connection was lost", n ? strerror(errno) : "closed");
    if (n < 0)
        return;
    size_t have = h->part_len + (size_t)n;
    all.out_len = 0;
    h->part_len = 0;
    size_t used = all.mqtt ? mqtt_packets(h, all.in, have) : router_frames(h, all.in, have);
    if (used < have)
        keep_part(h, all.in + used, have - used);
    send_all(h->fd, all.out, all.out_len);
}

static bool turn(int timeout_ms)
{
    struct epoll_event ready[READY_MAX];
    int n = epoll_wait(all.epoll, ready, READY_MAX, timeout_ms);
    for (int i = 0; i < n; i++)
        on_readable(ready[i].data.ptr);
    return n > 0;
}

/* ---- the feeder ---- */

static void wait_room(long more)
{
    const struct timespec moment = {.tv_nsec = 50000};
    while (atomic_load(&feeder.sent) + more - atomic_load(&feeder.got) > OUTSTANDING &&
           atomic_load(&feeder.sent) > atomic_load(&feeder.got))
        nanosleep(&moment, NULL);
}

static void read_acks(int *open, int down_to)
{
    uint8_t acks[4096];
    while (*open > down_to) {
        ssize_t n = recv(feeder.mqtt_fd, acks,
                         (size_t)(*open - down_to) * 4 < sizeof acks ? (size_t)(*open - down_to) * 4 : sizeof acks,
                         MSG_WAITALL);
        if (n <= 0 || n % 4 || acks[0] != 0x40)
            die("the publisher", "was not acknowledged");
        *open -= (int)(n / 4);
    }
}

static void feed_mqtt(void)
{
    int open = 0;
    for (long i = 0; i < feeder.amount; i++) {
        char topic[32];
        uint8_t packet[PACKET_BYTES];
        int number = (int)(i % all.count);
        long counted = feeder.to_all ? all.count - all.stalled : number >= all.stalled;
        snprintf(topic, sizeof topic, feeder.to_all ? "all" : "h/%d", number);
        wait_room(counted);
        atomic_fetch_add(&feeder.sent, counted);
        send_all(feeder.mqtt_fd, packet, mqtt_publish(packet, topic, (uint16_t)(feeder.serial++ % 60000 + 1)));
        if (++open >= 1000)
            read_acks(&open, 500);
    }
    read_acks(&open, 0);
}

static void feed_router(void)
{
    long total = feeder.to_all ? feeder.amount * all.count : feeder.amount;
    for (long i = 0; i < total; i++) {
        uint8_t body[PACKET_BYTES];
        int number = (int)(i % all.count);
        wait_room(number >= all.stalled);
        atomic_fetch_add(&feeder.sent, number >= all.stalled);
        amqp_bytes_t b = {router_command(body, number, feeder.serial++), body};
        if (amqp_basic_publish(feeder.amqp, 1, amqp_empty_bytes, amqp_cstring_bytes(all.queue), 0, 0, NULL, b))
            die("the feeder", "cannot publish");
    }
}

static void *feed(void *unused)
{
    if (all.mqtt)
        feed_mqtt();
    else
        feed_router();
    return NULL;
}

static void feeder_open(void)
{
    if (all.mqtt) {
        uint8_t ack[4];
        feeder.mqtt_fd = connect_one();
        mqtt_connect(feeder.mqtt_fd, "feeder");
        if (recv(feeder.mqtt_fd, ack, sizeof ack, MSG_WAITALL) != 4 || ack[0] != 0x20 || ack[3])
            die("the publisher", "is not connected");
        return;
    }
    feeder.amqp = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(feeder.amqp);
    if (!socket || amqp_socket_open(socket, "127.0.0.1", atoi(all.amqp_port)) ||
        amqp_login(feeder.amqp, all.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, all.user, all.password).reply_type !=
            AMQP_RESPONSE_NORMAL)
        die("the feeder", "cannot connect to RabbitMQ");
    amqp_channel_open(feeder.amqp, 1);
    if (amqp_get_rpc_reply(feeder.amqp).reply_type != AMQP_RESPONSE_NORMAL)
        die("the feeder", "has no channel");
}

/* ---- orders ---- */

static long expected(void)
{
    if (feeder.to_all)
        return feeder.amount * (all.count - all.stalled);
    long n = 0;
    for (long i = 0; i < feeder.amount; i++)
        n += i % all.count >= all.stalled;
    return n;
}

static void run_order(void)
{
    long want = expected();
    feeder.sent = feeder.got = 0;
    uint64_t began = hp_now_ns();
    if (pthread_create(&feeder.thread, NULL, feed, NULL))
        die("cannot start", "the feeder");
    while (atomic_load(&feeder.got) < want)
        if (!turn(QUIET_MS)) {
            fprintf(stderr, "bench-hosts: %ld of %ld messages came, then nothing for %d ms\n", feeder.got, want,
                    QUIET_MS);
            exit(1);
        }
    double seconds = (double)(hp_now_ns() - began) / 1e9;
    pthread_join(feeder.thread, NULL);
    printf("{\"messages\":%ld,\"seconds\":%.6f}\n", want, seconds);
    fflush(stdout);
}

static void stall(int hosts)
{
    for (int i = all.stalled; i < hosts && i < all.count; i++)
        if (epoll_ctl(all.epoll, EPOLL_CTL_DEL, all.hosts[i].fd, NULL))
            die("epoll_ctl", strerror(errno));
    all.stalled = hosts;
    printf("{\"stalled\":%d}\n", hosts);
    fflush(stdout);
}

static void obey(const char *line)
{
    int hosts;
    feeder.to_all = strncmp(line, "all", 3) == 0;
    if (sscanf(line, "one %ld", &feeder.amount) == 1 || sscanf(line, "all %ld", &feeder.amount) == 1)
        run_order();
    else if (sscanf(line, "stall %d", &hosts) == 1)
        stall(hosts);
    else
        die("not an order", line);
}

static void connect_hosts(void)
{
    for (int i = 0; i < all.count; i++) {
        struct host *h = &all.hosts[i];
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = h};
        h->number = i;
        h->fd = connect_one();
        if (epoll_ctl(all.epoll, EPOLL_CTL_ADD, h->fd, &e))
            die("epoll_ctl", strerror(errno));
        if (all.mqtt)
            mqtt_hello(h);
        else
            router_hello(h);
        while (i + 1 - all.welcomed >= BATCH || (i + 1 == all.count && all.welcomed < all.count))
            if (!turn(QUIET_MS))
                die("cannot connect", "a host was not answered");
    }
}

int main(int argc, char **argv)
{
    struct rlimit r;
    if (argc != 6 && argc != 11)
        die("arguments", "see the head of hosts.c");
    all.mqtt = strcmp(argv[1], "mqtt") == 0;
    all.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    if (inet_pton(AF_INET, argv[2], &all.address.sin_addr) != 1 || getrlimit(RLIMIT_NOFILE, &r))
        die("arguments", argv[2]);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    all.count = atoi(argv[4]);
    if (all.mqtt) {
        all.bytes = (size_t)atol(argv[5]);
    } else {
        all.region = argv[5];
        all.queue = argv[6];
        all.amqp_port = argv[7];
        all.user = argv[8];
        all.password = argv[9];
        all.vhost = argv[10];
        uint8_t body[PACKET_BYTES];
        all.bytes = router_command(body, all.count, 0);
    }
    all.epoll = epoll_create1(EPOLL_CLOEXEC);
    all.hosts = calloc((size_t)all.count, sizeof *all.hosts);
    if (!all.hosts || all.epoll < 0 || all.bytes > PACKET_BYTES / 2)
        die("cannot start", "no memory, or too long messages");
    connect_hosts();
    feeder_open();
    printf("{\"connected\":%d,\"bytes\":%zu}\n", all.welcomed, all.bytes);
    fflush(stdout);
    char line[128];
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
