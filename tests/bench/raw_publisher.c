/* The least that a durable accept can cost: messages published with librabbitmq, by hand, to a quorum queue, as many under way as the window, each confirmed by the broker.
 *
 *   bench-raw-publisher HOST PORT USER PASSWORD VHOST QUEUE DEAD BYTES WINDOW SECONDS
 *
 * Declares QUEUE just as a region's requests.R, with dead letters to DEAD (tests/bench/gateway.py compares the two in the broker). Not mandatory, no headers, no properties but
 * persistence, one buffer for all bodies: what a gateway needs beyond this is left out on purpose. Prints one JSON object. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

enum { CHANNEL = 1, FRAME_MAX = 131072, LENGTH_MAX = 1000000, DELIVERY_LIMIT = 20 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench-raw-publisher: %s\n", what);
    exit(1);
}

static void must(amqp_rpc_reply_t r, const char *what)
{
    if (r.reply_type != AMQP_RESPONSE_NORMAL)
        die(what);
}

static amqp_table_entry_t text(const char *key, const char *value)
{
    return (amqp_table_entry_t){amqp_cstring_bytes(key),
                                {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)}};
}

static amqp_table_entry_t number(const char *key, int64_t value)
{
    return (amqp_table_entry_t){amqp_cstring_bytes(key), {.kind = AMQP_FIELD_KIND_I64, .value.i64 = value}};
}

static amqp_connection_state_t open_queue(char **argv)
{
    amqp_connection_state_t c = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(c);
    if (!socket || amqp_socket_open(socket, argv[1], atoi(argv[2])))
        die("cannot connect");
    must(amqp_login(c, argv[5], 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, argv[3], argv[4]), "login");
    amqp_channel_open(c, CHANNEL);
    must(amqp_get_rpc_reply(c), "channel");
    amqp_table_entry_t entries[] = {
        text("x-queue-type", "quorum"),
        number("x-max-length", LENGTH_MAX),
        number("x-delivery-limit", DELIVERY_LIMIT),
        {amqp_cstring_bytes("x-single-active-consumer"), {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}},
        text("x-overflow", "reject-publish"),
        text("x-dead-letter-exchange", ""),
        text("x-dead-letter-routing-key", argv[7]),
        text("x-dead-letter-strategy", "at-least-once"),
    };
    amqp_table_t arguments = {sizeof entries / sizeof entries[0], entries};
    amqp_queue_declare(c, CHANNEL, amqp_cstring_bytes(argv[6]), 0, 1, 0, 0, arguments);
    must(amqp_get_rpc_reply(c), "declare");
    amqp_confirm_select(c, CHANNEL);
    must(amqp_get_rpc_reply(c), "confirm.select");
    return c;
}

/* Tags up to the window's size that are not confirmed; confirms come in any order, alone or for all up to one. */
struct window {
    uint64_t first, next; /* the oldest open tag; the tag of the next message */
    uint64_t confirmed;
    size_t size; /* a power of two */
    bool *done;
};

static void confirm(struct window *w, uint64_t tag, bool multiple)
{
    for (uint64_t t = multiple ? w->first : tag; t <= tag; t++)
        if (!w->done[t & (w->size - 1)]) {
            w->done[t & (w->size - 1)] = true;
            w->confirmed++;
        }
    while (w->first < w->next && w->done[w->first & (w->size - 1)])
        w->first++;
}

/* Takes what the broker says; waits for the first frame when told. */
static void take(amqp_connection_state_t c, struct window *w, bool wait)
{
    struct timeval none = {0}, patience = {.tv_sec = 30};
    amqp_frame_t frame;
    for (int rc; (rc = amqp_simple_wait_frame_noblock(c, &frame, wait ? &patience : &none)) != AMQP_STATUS_TIMEOUT;
         wait = false) {
        if (rc != AMQP_STATUS_OK || frame.frame_type != AMQP_FRAME_METHOD)
            die("connection lost");
        if (frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
            die("the broker refused a message");
        const amqp_basic_ack_t *ack = frame.payload.method.decoded;
        confirm(w, ack->delivery_tag, ack->multiple);
        amqp_maybe_release_buffers_on_channel(c, CHANNEL);
        if (!amqp_frames_enqueued(c) && !amqp_data_in_buffer(c))
            return;
    }
    if (wait)
        die("no confirm for 30 s");
}

int main(int argc, char **argv)
{
    if (argc != 11)
        die("see the head of raw_publisher.c for its arguments");
    size_t bytes = (size_t)atol(argv[8]), window_max = (size_t)atol(argv[9]);
    double seconds = atof(argv[10]);
    struct window w = {.first = 1, .next = 1, .size = 1};
    while (w.size < window_max + 1)
        w.size *= 2;
    w.done = calloc(w.size, sizeof *w.done);
    char *body = malloc(bytes ? bytes : 1);
    if (!w.done || !body)
        die("no memory");
    memset(body, 'x', bytes);
    amqp_connection_state_t c = open_queue(argv);
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = 2};
    uint64_t began = now_ns(), until = began + (uint64_t)(seconds * 1e9);
    while (now_ns() < until) {
        while (w.next - w.first < window_max) {
            w.done[w.next & (w.size - 1)] = false;
            if (amqp_basic_publish(c, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(argv[6]), 0, 0, &properties,
                                   (amqp_bytes_t){bytes, body}))
                die("publish");
            w.next++;
            if (amqp_data_in_buffer(c))
                take(c, &w, false);
        }
        take(c, &w, true);
    }
    double took = (double)(now_ns() - began) / 1e9;
    uint64_t counted = w.confirmed;
    while (w.first < w.next) /* all that was sent has to be there: the broker's count is compared */
        take(c, &w, true);
    printf("{\"confirmed\":%" PRIu64 ",\"seconds\":%.6f,\"per_s\":%.1f,\"all\":%" PRIu64 "}\n", counted, took,
           (double)counted / took, w.confirmed);
    amqp_destroy_connection(c);
    free(w.done);
    free(body);
    return 0;
}
