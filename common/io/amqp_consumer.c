/* Consuming on one connection, one channel per subscription.
 *
 *   CLOSED ──resume, connection open──▶ OPENING ──consume-ok──▶ ACTIVE ──pause──▶ CLOSING ──close-ok──▶ CLOSED
 *      ▲                                                                                                  │
 *      └──────────── connection lost (from anywhere); a resume meanwhile opens again ─────────────────────┘
 *
 * Each opening of a channel has a number, the upper part of every tag: an acknowledgement for an earlier opening is void. Whatever ends a subscription without our
 * asking (basic.cancel because the queue went away, channel.close) ends the connection: on the next one the topology is declared and every subscription begun again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "io/amqp_conn.h"

enum { SUBSCRIPTIONS_MAX = 1000, CHANNEL_FIRST = 2, TAG_BITS = 40 };

enum sub_state { SUB_CLOSED, SUB_OPENING, SUB_ACTIVE, SUB_CLOSING };

struct sub {
    char *queue, *stream_start;
    int prefetch, ack_delay_ms;
    bool no_ack, exclusive, stream;
    bool wanted;         /* not paused */
    int64_t offset_next; /* streams: first offset wanted; -1: as stream_start says */
    bool anew;           /* see hp_subscription */
    enum sub_state state;
    int replies;        /* OPENING: still due */
    uint64_t opening;   /* number of the channel's opening */
    uint64_t delivered; /* last delivery tag of the broker */
    uint64_t acked;     /* last one that was acknowledged with all before it */
    uint64_t owed;      /* to be acknowledged with all before it, after the delay; 0: none */
};

struct hp_consumer {
    struct hp_amqp_conn *conn;
    void (*message_cb)(struct hp_delivery *d, void *user);
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
    enum hp_amqp_state state;
    bool reported; /* the present run of failures was told with `error` */
    struct hp_error error;
    uint64_t openings;    /* so far, over all channels */
    uv_timer_t ack_timer; /* while anything is owed */
    bool closing;
    void (*closed_cb)(void *user);
    void *closed_user;
    int count;
    struct sub subs[];
};

static void set_state(struct hp_consumer *c, enum hp_amqp_state state, const struct hp_error *e)
{
    static const struct hp_error none;
    c->state = state;
    if (c->state_cb && !c->closing)
        c->state_cb(state, e ? e : &none, c->user);
}

static uint16_t channel_of(const struct hp_consumer *c, const struct sub *s)
{
    return (uint16_t)(CHANNEL_FIRST + (s - c->subs));
}

/* ---- Beginning and ending a subscription ---- */

static int put_consume(struct hp_consumer *c, struct sub *s, struct hp_error *e)
{
    struct hp_buf *out = hp_amqp_conn_out(c->conn);
    uint16_t channel = channel_of(c, s);
    amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
    int rc = hp_amqp_put_method(out, channel, AMQP_CHANNEL_OPEN_METHOD, &open, e);
    if (rc)
        return rc;
    s->replies = 2;
    if (s->prefetch) {
        amqp_basic_qos_t qos = {.prefetch_count = (uint16_t)s->prefetch};
        rc = hp_amqp_put_method(out, channel, AMQP_BASIC_QOS_METHOD, &qos, e);
        if (rc)
            return rc;
        s->replies = 3;
    }
    if (s->anew)
        s->offset_next = -1;
    amqp_table_entry_t offset = {.key = amqp_cstring_bytes("x-stream-offset")};
    if (s->offset_next >= 0) {
        offset.value.kind = AMQP_FIELD_KIND_I64;
        offset.value.value.i64 = s->offset_next;
    } else if (s->stream_start) {
        offset.value.kind = AMQP_FIELD_KIND_UTF8;
        offset.value.value.bytes = amqp_cstring_bytes(s->stream_start);
    }
    amqp_basic_consume_t consume = {
        .queue = amqp_cstring_bytes(s->queue),
        .consumer_tag = amqp_cstring_bytes("harpoon"),
        .no_ack = s->no_ack,
        .exclusive = s->exclusive,
        .arguments = {s->stream ? 1 : 0, &offset},
    };
    rc = hp_amqp_put_method(out, channel, AMQP_BASIC_CONSUME_METHOD, &consume, e);
    for (int i = 0; !rc && i < s->replies; i++)
        hp_amqp_conn_expect(c->conn);
    return rc;
}

static void drop(struct hp_consumer *c, const struct sub *s, struct hp_error *e)
{
    if (s)
        hp_wrap(e, "queue \"%s\"", s->queue);
    hp_amqp_conn_drop(c->conn, 0, e);
}

static void begin(struct hp_consumer *c, struct sub *s)
{
    assert(s->state == SUB_CLOSED && s->wanted);
    struct hp_error e = {0};
    if (put_consume(c, s, &e)) {
        drop(c, s, &e);
        return;
    }
    s->state = SUB_OPENING;
    s->opening = ++c->openings;
    s->delivered = s->acked = s->owed = 0;
}

static void put_ack(struct hp_consumer *c, const struct sub *s, uint64_t broker_tag, bool multiple)
{
    struct hp_error e = {0};
    amqp_basic_ack_t m = {.delivery_tag = broker_tag, .multiple = multiple};
    if (hp_amqp_put_method(hp_amqp_conn_out(c->conn), channel_of(c, s), AMQP_BASIC_ACK_METHOD, &m, &e))
        drop(c, s, &e);
    else
        hp_amqp_conn_kick(c->conn);
}

static void put_owed(struct hp_consumer *c, struct sub *s)
{
    if (!s->owed || s->state != SUB_ACTIVE || !hp_amqp_conn_is_open(c->conn))
        return;
    s->acked = s->owed;
    s->owed = 0;
    put_ack(c, s, s->acked, true);
}

static void put_all_owed(struct hp_consumer *c)
{
    for (int i = 0; i < c->count; i++)
        put_owed(c, &c->subs[i]);
}

static void ack_timer_cb(uv_timer_t *t)
{
    put_all_owed(t->data);
}

static void end(struct hp_consumer *c, struct sub *s)
{
    assert(s->state == SUB_OPENING || s->state == SUB_ACTIVE);
    struct hp_error e = {0};
    put_owed(c, s);
    if (!hp_amqp_conn_is_open(c->conn))
        return;
    amqp_channel_close_t m = {.reply_code = AMQP_REPLY_SUCCESS, .reply_text = amqp_cstring_bytes("paused")};
    if (hp_amqp_put_method(hp_amqp_conn_out(c->conn), channel_of(c, s), AMQP_CHANNEL_CLOSE_METHOD, &m, &e)) {
        drop(c, s, &e);
        return;
    }
    /* The answers to an opening under way may still come, or not: the close-ok counts for all. */
    for (; s->replies > 0; s->replies--)
        hp_amqp_conn_answered(c->conn);
    s->state = SUB_CLOSING;
    hp_amqp_conn_expect(c->conn);
}

/* Brings every subscription toward what is wanted, and tells once when all are in force. */
static void settle(struct hp_consumer *c)
{
    if (!hp_amqp_conn_is_open(c->conn) || c->closing)
        return;
    bool all = true;
    for (int i = 0; i < c->count; i++) {
        struct sub *s = &c->subs[i];
        if (s->wanted && s->state == SUB_CLOSED)
            begin(c, s);
        else if (!s->wanted && (s->state == SUB_OPENING || s->state == SUB_ACTIVE))
            end(c, s);
        if (!hp_amqp_conn_is_open(c->conn))
            return;
        if (s->wanted && s->state != SUB_ACTIVE)
            all = false;
    }
    if (all && c->state == HP_AMQP_DOWN) {
        hp_amqp_conn_settled(c->conn);
        c->reported = false;
        set_state(c, HP_AMQP_UP, NULL);
    }
}

void hp_consumer_resume(struct hp_consumer *c, int subscription)
{
    assert(subscription >= 0 && subscription < c->count);
    c->subs[subscription].wanted = true;
    hp_amqp_conn_kick(c->conn);
}

void hp_consumer_pause(struct hp_consumer *c, int subscription)
{
    assert(subscription >= 0 && subscription < c->count);
    struct sub *s = &c->subs[subscription];
    s->wanted = false;
    /* At once, so that a resume in the same turn begins anew, and nothing more is delivered. */
    if (hp_amqp_conn_is_open(c->conn) && (s->state == SUB_OPENING || s->state == SUB_ACTIVE))
        end(c, s);
    hp_amqp_conn_kick(c->conn);
}

/* ---- Acknowledging ---- */

/* The subscription, when the tag is one of its present channel. */
static struct sub *current(struct hp_consumer *c, int subscription, uint64_t tag)
{
    assert(subscription >= 0 && subscription < c->count);
    struct sub *s = &c->subs[subscription];
    uint64_t broker_tag = tag & ((UINT64_C(1) << TAG_BITS) - 1);
    if (!hp_amqp_conn_is_open(c->conn) || s->state != SUB_ACTIVE || s->no_ack || tag >> TAG_BITS != s->opening ||
        broker_tag == 0 || broker_tag > s->delivered)
        return NULL;
    return s;
}

void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple)
{
    struct sub *s = current(c, subscription, tag);
    if (!s)
        return;
    uint64_t broker_tag = tag & ((UINT64_C(1) << TAG_BITS) - 1);
    if (!multiple || !s->ack_delay_ms) {
        put_ack(c, s, broker_tag, multiple);
        return;
    }
    if (broker_tag > s->owed)
        s->owed = broker_tag;
    if (s->owed - s->acked >= (uint64_t)s->prefetch / 4)
        put_owed(c, s);
    else if (!uv_is_active((uv_handle_t *)&c->ack_timer))
        uv_timer_start(&c->ack_timer, ack_timer_cb, (uint64_t)s->ack_delay_ms, 0);
}

void hp_consumer_reject(struct hp_consumer *c, int subscription, uint64_t tag)
{
    struct sub *s = current(c, subscription, tag);
    if (!s)
        return;
    assert(!s->stream); /* streams know only ack */
    struct hp_error e = {0};
    amqp_basic_reject_t m = {.delivery_tag = tag & ((UINT64_C(1) << TAG_BITS) - 1), .requeue = 0};
    if (hp_amqp_put_method(hp_amqp_conn_out(c->conn), channel_of(c, s), AMQP_BASIC_REJECT_METHOD, &m, &e))
        drop(c, s, &e);
    else
        hp_amqp_conn_kick(c->conn);
}

/* ---- Deliveries ---- */

static size_t text_size(amqp_bytes_t b, bool present)
{
    return present ? b.len + 1 : 0;
}

static const char *take_text(char **at, amqp_bytes_t b, bool present)
{
    if (!present)
        return NULL;
    char *text = *at;
    memcpy(text, b.bytes, b.len);
    text[b.len] = '\0';
    *at += b.len + 1;
    return text;
}

/* One allocation: the delivery, then the body, then the texts. */
static struct hp_delivery *make_delivery(const struct hp_amqp_content *content)
{
    const amqp_basic_properties_t *p = content->properties;
    bool type = p->_flags & AMQP_BASIC_TYPE_FLAG, id = p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG,
         correlation = p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG, reply = p->_flags & AMQP_BASIC_REPLY_TO_FLAG;
    size_t size = sizeof(struct hp_delivery) + content->len + text_size(p->type, type) + text_size(p->message_id, id) +
                  text_size(p->correlation_id, correlation) + text_size(p->reply_to, reply);
    struct hp_delivery *d = malloc(size);
    if (!d)
        return NULL;
    uint8_t *body = (uint8_t *)(d + 1);
    if (content->len)
        memcpy(body, content->body, content->len);
    char *at = (char *)body + content->len;
    *d = (struct hp_delivery){.body = body, .body_len = content->len, .stream_offset = -1};
    d->type = take_text(&at, p->type, type);
    d->message_id = take_text(&at, p->message_id, id);
    d->correlation_id = take_text(&at, p->correlation_id, correlation);
    d->reply_to = take_text(&at, p->reply_to, reply);
    return d;
}

static int64_t offset_of(const struct hp_amqp_content *content)
{
    int64_t offset = -1;
    if (content->properties->_flags & AMQP_BASIC_HEADERS_FLAG) {
        const amqp_field_value_t *v = hp_amqp_table_find(&content->properties->headers, "x-stream-offset");
        if (v && !hp_amqp_field_int(v, &offset))
            offset = -1;
    }
    return offset;
}

static void on_content(void *user, uint16_t channel, const struct hp_amqp_content *content)
{
    struct hp_consumer *c = user;
    int index = channel - CHANNEL_FIRST;
    if (content->id != AMQP_BASIC_DELIVER_METHOD || index < 0 || index >= c->count || c->closing)
        return;
    struct sub *s = &c->subs[index];
    if (s->state != SUB_ACTIVE)
        return; /* being paused: the broker requeues it */
    const amqp_basic_deliver_t *m = content->method;
    uint64_t tag = s->opening << TAG_BITS | m->delivery_tag;
    int64_t offset = s->stream ? offset_of(content) : -1;
    s->delivered = m->delivery_tag;
    if (s->stream && offset < s->offset_next) {
        hp_consumer_ack(c, index, tag, false); /* the front of a chunk that began earlier */
        return;
    }
    if (!content->body) {
        /* Over HP_AMQP_BODY_MAX: nothing of ours is. */
        if (s->stream)
            hp_consumer_ack(c, index, tag, false);
        else
            hp_consumer_reject(c, index, tag);
        return;
    }
    struct hp_delivery *d = make_delivery(content);
    if (!d) {
        struct hp_error e = {0};
        hp_fail(&e, HP_ENOMEM, "out of memory for a message of %llu bytes", (unsigned long long)content->len);
        drop(c, s, &e);
        return;
    }
    d->consumer = c;
    d->subscription = index;
    d->tag = tag;
    d->redelivered = m->redelivered;
    d->stream_offset = offset;
    if (s->stream && offset >= 0)
        s->offset_next = offset + 1;
    c->message_cb(d, c->user);
}

void hp_delivery_free(struct hp_delivery *d)
{
    free(d);
}

/* ---- What the broker says ---- */

static void on_open(void *user)
{
    settle(user);
}

static void on_opening_reply(struct hp_consumer *c, struct sub *s)
{
    if (s->state != SUB_OPENING || s->replies == 0)
        return; /* paused meanwhile: counted by the close */
    hp_amqp_conn_answered(c->conn);
    if (--s->replies == 0) {
        s->state = SUB_ACTIVE;
        settle(c);
    }
}

static void on_method(void *user, uint16_t channel, amqp_method_number_t id, const void *method)
{
    struct hp_consumer *c = user;
    int index = channel - CHANNEL_FIRST;
    struct sub *s = index >= 0 && index < c->count ? &c->subs[index] : NULL;
    struct hp_error e = {0};
    if (id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = method;
        hp_amqp_close_error(&e, m->reply_code, m->reply_text);
        drop(c, s, &e);
    } else if (!s) {
        hp_fail(&e, HP_EPROTO, "method 0x%08x from the broker is out of place", (unsigned)id);
        drop(c, NULL, &e);
    } else if (id == AMQP_BASIC_CANCEL_METHOD) {
        if (s->state == SUB_CLOSING)
            return;
        hp_fail(&e, HP_ENOTFOUND, "the broker ended the subscription: the queue was deleted or moved");
        drop(c, s, &e);
    } else if (id == AMQP_CHANNEL_OPEN_OK_METHOD || id == AMQP_BASIC_QOS_OK_METHOD ||
               id == AMQP_BASIC_CONSUME_OK_METHOD) {
        on_opening_reply(c, s);
    } else if (id == AMQP_CHANNEL_CLOSE_OK_METHOD && s->state == SUB_CLOSING) {
        hp_amqp_conn_answered(c->conn);
        s->state = SUB_CLOSED;
        settle(c);
    }
}

static void on_blocked(void *user, bool blocked, const char *reason)
{
    /* Only publishers are held up by an alarm. */
}

static void on_turn(void *user)
{
    settle(user);
}

static void on_down(void *user, const struct hp_error *e)
{
    struct hp_consumer *c = user;
    bool was_up = c->state != HP_AMQP_DOWN;
    for (int i = 0; i < c->count; i++) {
        c->subs[i].state = SUB_CLOSED;
        c->subs[i].replies = 0;
    }
    c->state = HP_AMQP_DOWN;
    if (was_up || !c->reported || strcmp(c->error.message, e->message) != 0) {
        c->reported = true;
        c->error = *e;
        set_state(c, HP_AMQP_DOWN, e);
    }
}

/* ---- Life ---- */

static void consumer_free(struct hp_consumer *c)
{
    for (int i = 0; i < c->count; i++) {
        free(c->subs[i].queue);
        free(c->subs[i].stream_start);
    }
    free(c);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct hp_consumer *c = h->data;
    void (*closed_cb)(void *) = c->closed_cb;
    void *closed_user = c->closed_user;
    consumer_free(c);
    if (closed_cb)
        closed_cb(closed_user);
}

static void on_conn_closed(void *user)
{
    struct hp_consumer *c = user;
    uv_close((uv_handle_t *)&c->ack_timer, on_timer_closed);
}

void hp_consumer_close(struct hp_consumer *c, void (*closed_cb)(void *user), void *user)
{
    assert(!c->closing);
    c->closing = true;
    c->closed_cb = closed_cb;
    c->closed_user = user;
    put_all_owed(c);
    hp_amqp_conn_close(c->conn); /* acknowledgements that wait go out before */
}

static int take_subscription(struct sub *s, const struct hp_subscription *from, struct hp_error *e)
{
    if (!from->queue || !*from->queue)
        return hp_fail(e, HP_EINVAL, "subscription without a queue");
    if (from->prefetch < 0 || from->prefetch > UINT16_MAX || (from->prefetch == 0 && !from->no_ack))
        return hp_fail(e, HP_EINVAL, "subscription to \"%s\": prefetch %d; must be 1 to 65535", from->queue,
                       from->prefetch);
    if (from->stream_offset < 0)
        return hp_fail(e, HP_EINVAL, "subscription to \"%s\": stream offset %lld is negative", from->queue,
                       (long long)from->stream_offset);
    s->stream = from->stream_start || from->stream_offset > 0;
    s->anew = from->stream_start && from->stream_anew;
    if (from->ack_delay_ms < 0)
        return hp_fail(e, HP_EINVAL, "subscription to \"%s\": acknowledgement after %d ms; must not be negative",
                       from->queue, from->ack_delay_ms);
    if (s->stream && from->no_ack)
        return hp_fail(e, HP_EINVAL, "subscription to \"%s\": a stream needs acknowledgements", from->queue);
    s->prefetch = from->prefetch;
    s->ack_delay_ms = from->ack_delay_ms;
    s->no_ack = from->no_ack;
    s->exclusive = from->exclusive;
    s->wanted = !from->paused;
    s->offset_next = s->stream && !from->stream_start ? from->stream_offset : -1;
    s->queue = strdup(from->queue);
    s->stream_start = from->stream_start ? strdup(from->stream_start) : NULL;
    if (!s->queue || (from->stream_start && !s->stream_start))
        return hp_fail(e, HP_ENOMEM, "subscription to \"%s\": out of memory", from->queue);
    return 0;
}

static const struct hp_amqp_conn_events conn_events = {
    .open = on_open,
    .method = on_method,
    .content = on_content,
    .blocked = on_blocked,
    .turn = on_turn,
    .down = on_down,
    .closed = on_conn_closed,
};

int hp_consumer_new(uv_loop_t *loop, const struct hp_consumer_options *o, struct hp_consumer **ret, struct hp_error *e)
{
    assert(o->message_cb);
    if (o->subscription_count < 1 || o->subscription_count > SUBSCRIPTIONS_MAX)
        return hp_fail(e, HP_EINVAL, "%d subscriptions; must be 1 to %d", o->subscription_count, SUBSCRIPTIONS_MAX);
    struct hp_consumer *c = calloc(1, sizeof *c + (size_t)o->subscription_count * sizeof c->subs[0]);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "consumer: out of memory");
    c->count = o->subscription_count;
    c->message_cb = o->message_cb;
    c->state_cb = o->state_cb;
    c->user = o->user;
    int rc = 0;
    for (int i = 0; !rc && i < c->count; i++)
        rc = take_subscription(&c->subs[i], &o->subscriptions[i], e);
    if (!rc)
        rc = hp_amqp_conn_new(loop, &o->amqp, o->topology, (uint16_t)(CHANNEL_FIRST - 1 + c->count), &conn_events, c,
                              &c->conn, e);
    if (rc) {
        consumer_free(c);
        return rc;
    }
    uv_timer_init(loop, &c->ack_timer);
    c->ack_timer.data = c;
    *ret = c;
    return 0;
}
