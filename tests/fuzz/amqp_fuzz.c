/* A hostile broker: frames of any kind, in any order, to a publisher and a consumer of common/io, over a stream that is made up here. A step can also be a broker that answers all that was asked so far as it
 * should, so that the rest is reached.
 *
 * Asserted: what we send is frames and methods that the codec reads; a delivery has texts of at most 255 bytes and a body of the length that was announced; each publish is told its outcome exactly once, also when
 * the connection breaks; both close. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/map.h"
#include "fuzz/script.h"
#include "io/amqp.h"
#include "io/amqp_wire.h"
#include "io/stream.h"

enum { ANSWER, METHOD, HEADER, BODY, MESSAGE, RAW, PUBLISH, STREAMS_MAX = 4, PUBLISHES = 16 };

const struct fuzz_kind fuzz_kinds[] = {
    [ANSWER] = {"answer", NULL},   [METHOD] = {"method", NULL}, [HEADER] = {"header", NULL},   [BODY] = {"body", NULL},
    [MESSAGE] = {"message", NULL}, [RAW] = {"raw", NULL},       [PUBLISH] = {"publish", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {NULL};

/* ---- The stream, in place of common/io/stream*.c ---- */

struct hp_stream {
    const struct hp_stream_events *ev;
    void *user;
    bool opened, closing;
    bool gone;          /* the broker hung up */
    struct hp_buf said; /* by us, not yet looked at */
};
static struct hp_stream *streams[STREAMS_MAX];
static uv_loop_t loop;

int hp_stream_connect(uv_loop_t *l, const char *address, const char *server_name, const struct hp_stream_options *o,
                      const struct hp_stream_events *ev, void *user, struct hp_stream **ret, struct hp_error *e)
{
    struct hp_stream *s = calloc(1, sizeof *s);
    int i = 0;
    while (i < STREAMS_MAX && streams[i])
        i++;
    assert(s && i < STREAMS_MAX);
    s->ev = ev;
    s->user = user;
    hp_buf_init(&s->said, 8 << 20);
    *ret = streams[i] = s;
    return 0;
}

int hp_stream_write(struct hp_stream *s, const void *data, size_t len)
{
    assert(!s->closing);
    return hp_buf_append(&s->said, data, len);
}

void hp_stream_close(struct hp_stream *s, uint64_t linger_ms)
{
    s->closing = true;
}

/* Opens and ends streams; true when one moved. */
static bool streams_turn(void)
{
    bool moved = false;
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct hp_stream *s = streams[i];
        if (s && (s->closing || s->gone)) {
            static const struct hp_error none;
            streams[i] = NULL;
            s->ev->on_close(s, &none, s->user);
            hp_buf_done(&s->said);
            free(s);
            moved = true;
        } else if (s && !s->opened) {
            s->opened = moved = true;
            s->ev->on_open(s, s->user);
        }
    }
    return moved;
}

static void turn(void)
{
    do
        uv_run(&loop, UV_RUN_NOWAIT);
    while (streams_turn());
}

/* ---- The broker ---- */

static void hear(struct hp_stream *s, const struct hp_buf *b)
{
    if (s && s->opened && !s->closing && b->len)
        s->ev->on_read(s, hp_buf_front((struct hp_buf *)b), b->len, s->user);
}

static void put(struct hp_buf *out, uint16_t channel, amqp_method_number_t id, void *method)
{
    int rc = hp_amqp_put_method(out, channel, id, method, NULL);
    assert(rc == 0);
}

static void answer_method(struct hp_buf *out, uint16_t channel, amqp_method_number_t id, const void *method)
{
    static const uint8_t zero[256]; /* for answers without a field that matters */
    amqp_connection_tune_t tune = {.channel_max = 100, .frame_max = 131072, .heartbeat = 10};
    amqp_basic_consume_ok_t consume = {0};
    amqp_queue_declare_ok_t declared = {.queue = amqp_cstring_bytes("q")};
    amqp_basic_cancel_ok_t cancelled = {0};
    switch (id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        put(out, 0, AMQP_CONNECTION_TUNE_METHOD, &tune);
        return;
    case AMQP_BASIC_CONSUME_METHOD:
        consume.consumer_tag = ((const amqp_basic_consume_t *)method)->consumer_tag;
        put(out, channel, AMQP_BASIC_CONSUME_OK_METHOD, &consume);
        return;
    case AMQP_BASIC_CANCEL_METHOD:
        cancelled.consumer_tag = ((const amqp_basic_cancel_t *)method)->consumer_tag;
        put(out, channel, AMQP_BASIC_CANCEL_OK_METHOD, &cancelled);
        return;
    case AMQP_QUEUE_DECLARE_METHOD:
        put(out, channel, AMQP_QUEUE_DECLARE_OK_METHOD, &declared);
        return;
    case AMQP_CONNECTION_OPEN_METHOD:
    case AMQP_CHANNEL_OPEN_METHOD:
    case AMQP_CONNECTION_CLOSE_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
    case AMQP_EXCHANGE_DECLARE_METHOD:
    case AMQP_QUEUE_BIND_METHOD:
    case AMQP_BASIC_QOS_METHOD:
    case AMQP_CONFIRM_SELECT_METHOD:
        put(out, channel, id + 1, (void *)(uintptr_t)zero); /* …-ok is the next number in its class */
        return;
    default:
        return;
    }
}

static void put_start(struct hp_buf *out)
{
    amqp_connection_start_t start = {
        .version_minor = 9, .mechanisms = amqp_cstring_bytes("PLAIN EXTERNAL"), .locales = amqp_cstring_bytes("en_US")};
    put(out, 0, AMQP_CONNECTION_START_METHOD, &start);
}

/* Reads all that we have said, which must be well formed, and answers it. */
static void answer(struct hp_stream *s)
{
    struct hp_buf out;
    amqp_pool_t pool;
    if (!s || !s->opened)
        return;
    hp_buf_init(&out, 8 << 20);
    init_amqp_pool(&pool, 4096);
    if (s->said.len >= 8 && memcmp(hp_buf_front(&s->said), "AMQP", 4) == 0) {
        hp_buf_consume(&s->said, 8);
        put_start(&out);
    }
    for (;;) {
        struct hp_amqp_frame f;
        size_t used;
        amqp_method_number_t id;
        void *method;
        int rc = hp_amqp_frame_next(hp_buf_front(&s->said), s->said.len, 131072, &f, &used, NULL);
        assert(rc == 0);
        if (!used)
            break;
        if (f.type == AMQP_FRAME_METHOD) {
            rc = hp_amqp_decode_method(&f, &pool, &id, &method, NULL);
            assert(rc == 0);
            answer_method(&out, f.channel, id, method);
        }
        hp_buf_consume(&s->said, used);
    }
    assert(s->said.len == 0 || s->said.len < 131072);
    hear(s, &out);
    empty_amqp_pool(&pool);
    hp_buf_done(&out);
}

/* channel, then the payload: the frame around it is right */
static void frame(struct hp_stream *s, uint8_t type, const uint8_t *payload, size_t len, uint16_t channel)
{
    struct hp_buf out;
    const uint8_t head[7] = {type,
                             (uint8_t)(channel >> 8),
                             (uint8_t)channel,
                             (uint8_t)(len >> 24),
                             (uint8_t)(len >> 16),
                             (uint8_t)(len >> 8),
                             (uint8_t)len};
    static const uint8_t end = AMQP_FRAME_END;
    hp_buf_init(&out, 1 << 20);
    int rc = hp_buf_append(&out, head, sizeof head);
    rc |= hp_buf_append(&out, payload, len);
    rc |= hp_buf_append(&out, &end, 1);
    assert(rc == 0);
    hear(s, &out);
    hp_buf_done(&out);
}

/* A whole message: channel, flags, delivery tag, then text for the properties, NUL, body. */
static void message(struct hp_stream *s, const struct fuzz_step *step)
{
    struct hp_buf out;
    uint8_t flags = fuzz_byte(step, 2);
    size_t text = step->len > 4 ? strnlen((const char *)step->data + 4, step->len - 4) : 0;
    const uint8_t *body = step->data + (step->len > 4 ? 4 + text : step->len);
    size_t body_len = step->len > 4 ? step->len - 4 - text : 0;
    amqp_bytes_t bytes = {text < 255 ? text : 255, (void *)(uintptr_t)(step->data + (step->len > 4 ? 4 : 0))};
    amqp_table_entry_t offset = {amqp_cstring_bytes("x-stream-offset"),
                                 {.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = fuzz_byte(step, 3) - 10}}};
    amqp_basic_properties_t p = {0};
    if (flags & 1)
        p._flags |= AMQP_BASIC_TYPE_FLAG;
    if (flags & 2)
        p._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
    if (flags & 4)
        p._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
    if (flags & 8)
        p._flags |= AMQP_BASIC_REPLY_TO_FLAG;
    if (flags & 16)
        p._flags |= AMQP_BASIC_HEADERS_FLAG;
    p.type = p.message_id = p.correlation_id = p.reply_to = bytes;
    p.headers = (amqp_table_t){1, &offset};
    hp_buf_init(&out, 1 << 20);
    uint16_t channel = fuzz_byte(step, 1) % 4;
    char tag[2] = {(char)('0' + fuzz_byte(step, 3) % 4), 0};
    amqp_basic_deliver_t deliver = {.consumer_tag = amqp_cstring_bytes(tag), .delivery_tag = fuzz_byte(step, 3)};
    amqp_basic_return_t returned = {.reply_code = 312};
    if (flags & 32)
        put(&out, channel, AMQP_BASIC_RETURN_METHOD, &returned);
    else
        put(&out, channel, AMQP_BASIC_DELIVER_METHOD, &deliver);
    int rc = hp_amqp_put_content(&out, channel, &p, body, body_len, 4096, NULL);
    assert(rc == 0 || rc == HP_ELIMIT);
    hear(s, &out);
    hp_buf_done(&out);
}

/* ---- Us ---- */

static struct hp_publish publishes[PUBLISHES];
static int told[PUBLISHES], published, closed;

static void on_done(struct hp_publish *p, enum hp_publish_outcome outcome)
{
    told[p - publishes]++;
    assert(told[p - publishes] == 1 && outcome <= HP_PUBLISH_UNKNOWN);
}

static void publish(struct hp_publisher *p, const struct fuzz_step *s)
{
    if (published == PUBLISHES)
        return;
    publishes[published] = (struct hp_publish){.exchange = "",
                                               .routing_key = "requests.r1",
                                               .body = "body",
                                               .body_len = 4,
                                               .mandatory = fuzz_byte(s, 1) & 1,
                                               .persistent = true,
                                               .message_id = "id",
                                               .done_cb = on_done};
    hp_publish(p, &publishes[published++]);
}

static void check_text(const char *text)
{
    assert(!text || strlen(text) <= 255);
}

static void on_message(struct hp_delivery *d, void *user)
{
    static volatile uint64_t sum; /* every byte can be read */
    sum = hp_hash(1, d->body, d->body_len);
    (void)sum;
    check_text(d->type);
    check_text(d->message_id);
    check_text(d->correlation_id);
    check_text(d->reply_to);
    assert(d->subscription >= 0 && d->subscription < 2);
    if (d->tag % 3 == 0 && d->subscription == 0) /* a stream takes no rejects */
        hp_consumer_reject(d->consumer, d->subscription, d->tag);
    else if (d->subscription == 0)
        hp_consumer_ack(d->consumer, d->subscription, d->tag, d->tag % 2);
    hp_delivery_free(d);
}

static void on_state(enum hp_amqp_state state, const struct hp_error *e, void *user)
{
    assert(state != HP_AMQP_DOWN || (e && e->message[0]));
}

static void on_closed(void *user)
{
    closed++;
}

static void step_of(struct hp_publisher *p, const struct fuzz_step *s)
{
    struct hp_stream *to = streams[fuzz_byte(s, 0) & 1];
    uint16_t channel = fuzz_byte(s, 1) % 5;
    struct hp_buf raw;
    size_t skip = s->len < 2 ? s->len : 2;
    switch (s->kind) {
    case ANSWER:
        for (int i = 0; i < 8; i++) {
            answer(streams[0]);
            answer(streams[1]);
            turn();
        }
        break;
    case METHOD:
        frame(to, AMQP_FRAME_METHOD, s->data + skip, s->len - skip, channel);
        break;
    case HEADER:
        frame(to, AMQP_FRAME_HEADER, s->data + skip, s->len - skip, channel);
        break;
    case BODY:
        frame(to, AMQP_FRAME_BODY, s->data + skip, s->len - skip, channel);
        break;
    case MESSAGE:
        message(to, s);
        break;
    case PUBLISH:
        publish(p, s);
        break;
    default:
        hp_buf_init(&raw, 1 << 20);
        if (hp_buf_append(&raw, s->data + (s->len > 0), s->len - (s->len > 0)) == 0)
            hear(to, &raw);
        hp_buf_done(&raw);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct hp_amqp_object topology[] = {{.kind = HP_AMQP_QUEUE_QUORUM,
                                                      .name = "requests.r1",
                                                      .single_active = true,
                                                      .length_max = 10,
                                                      .reject_publish = true},
                                                     {.kind = HP_AMQP_FANOUT, .name = "routers.r1"},
                                                     {0}};
    static const struct hp_subscription subscriptions[] = {
        {.queue = "requests.r1", .prefetch = 10}, {.queue = "events.r1", .prefetch = 10, .stream_start = "next"}};
    const struct hp_amqp_options amqp = {.url = "amqp://u:p@broker:5672/v", .connection_name = "fuzz"};
    const struct hp_publisher_options po = {.amqp = amqp, .topology = topology, .state_cb = on_state};
    const struct hp_consumer_options co = {.amqp = amqp,
                                           .topology = topology,
                                           .subscriptions = subscriptions,
                                           .subscription_count = 2,
                                           .message_cb = on_message,
                                           .state_cb = on_state};
    struct hp_publisher *publisher;
    struct hp_consumer *consumer;
    struct hp_error e = {0};
    struct fuzz_step s;
    hp_log_set_level(HP_LOG_ERROR);
    uv_loop_init(&loop);
    memset(told, 0, sizeof told);
    published = closed = 0;
    int rc = hp_publisher_new(&loop, &po, &publisher, &e);
    rc |= hp_consumer_new(&loop, &co, &consumer, &e);
    assert(rc == 0);
    turn();
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        step_of(publisher, &s);
        turn();
    }
    hp_publisher_close(publisher, 0, on_closed, NULL);
    hp_consumer_close(consumer, on_closed, NULL);
    for (int i = 0; i < 100 && closed < 2; i++) {
        for (int k = 0; k < STREAMS_MAX; k++)
            if (streams[k])
                streams[k]->gone = true;
        turn();
    }
    assert(closed == 2);
    for (int i = 0; i < published; i++)
        assert(told[i] == 1);
    turn();
    rc = uv_loop_close(&loop);
    assert(rc == 0);
    return 0;
}
