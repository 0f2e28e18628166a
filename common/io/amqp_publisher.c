/* Confirmed publishing on one connection, channel 1.
 *
 *   hp_publish ─▶ waiting ──encoded──▶ sent ──ack, nack──▶ done_cb
 *        └─▶ refused (told next turn)    └── connection lost, deadline: UNKNOWN
 *
 * A mandatory message carries its tag in a header: the broker gives headers back with basic.return, which has no delivery tag, and the return comes before the confirm. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/amqp_conn.h"
#include "io/amqp_window.h"

enum {
    WINDOW_MAX = 20000,
    DEADLINE_MS = 5000,
    EXPIRY_STEP_MS = 50,
    REJECTED_MS = 3000, /* a queue has taken nothing for so long: connect anew */
    REJECTED_AGAIN_MS = 10000,
    REJECTED_AGAIN_MAX_MS = 60000,
};
#define WINDOW_BYTES_MAX ((size_t)64 << 20)
#define TAG_HEADER "x-harpoon-tag"

struct list {
    struct hp_publish *head, *tail;
};

/* The queue that has taken nothing on this connection since its first rejection. It may be full. It may also be that the channel met it first while its leader's node was gone: such a channel
 * never finds the new leader (RabbitMQ 3.10, rabbit_fifo_client:enqueue), and only another one can. So now and then the connection is made anew. */
struct rejecting {
    char queue[256];            /* the routing key */
    uint64_t since_ms, last_ms; /* since_ms 0: none */
    uint64_t again_ms;          /* between one connection given up for it and the next; doubles */
    uint64_t not_before_ms;
};

struct hp_publisher {
    struct hp_amqp_conn *conn;
    uv_loop_t *loop;
    void (*state_cb)(enum hp_amqp_state state, const struct hp_error *e, void *user);
    void *user;
    size_t window_max, window_bytes_max;
    enum hp_amqp_state state;
    bool reported; /* the present run of failures was told with `error` */
    struct hp_error error;
    struct hp_confirm_window window; /* tags of what was sent on this connection */
    struct list waiting, sent, refused;
    size_t count, bytes; /* waiting and sent */
    struct rejecting rejecting;
    uv_timer_t timer;         /* deadlines */
    uint64_t linger_until_ms; /* closing */
    bool closing;             /* hp_publisher_close was called */
    bool conn_closing;        /* the connection was told */
    void (*closed_cb)(void *user);
    void *closed_user;
};

static void push(struct list *l, struct hp_publish *m)
{
    m->prev_ = l->tail;
    m->next_ = NULL;
    if (l->tail)
        l->tail->next_ = m;
    else
        l->head = m;
    l->tail = m;
}

static void unlink_from(struct list *l, struct hp_publish *m)
{
    if (m->prev_)
        m->prev_->next_ = m->next_;
    else
        l->head = m->next_;
    if (m->next_)
        m->next_->prev_ = m->prev_;
    else
        l->tail = m->prev_;
    m->next_ = m->prev_ = NULL;
}

static void settle_close(struct hp_publisher *p);

/* Waiting or sent. */
static void finish(struct hp_publisher *p, struct hp_publish *m, enum hp_publish_outcome outcome)
{
    unlink_from(m->tag_ ? &p->sent : &p->waiting, m);
    assert(p->count > 0 && p->bytes >= m->body_len);
    p->count--;
    p->bytes -= m->body_len;
    m->done_cb(m, outcome);
}

/* ---- Deadlines ---- */

static void on_timer(uv_timer_t *timer);

/* One timer for the earliest deadline known; it may be stale (its message long confirmed), and is then set anew. */
static void arm(struct hp_publisher *p, uint64_t expires_ms)
{
    if (uv_is_closing((uv_handle_t *)&p->timer))
        return;
    uint64_t now = uv_now(p->loop);
    uint64_t in = expires_ms > now + EXPIRY_STEP_MS ? expires_ms - now : EXPIRY_STEP_MS;
    if (!uv_is_active((uv_handle_t *)&p->timer) || uv_timer_get_due_in(&p->timer) > in)
        uv_timer_start(&p->timer, on_timer, in, 0);
}

/* Collects first: done_cb may submit and thereby change the lists. */
static uint64_t expire_list(struct hp_publisher *p, struct list *l, struct list *over, uint64_t now)
{
    uint64_t next = UINT64_MAX;
    for (struct hp_publish *m = l->head, *following; m; m = following) {
        following = m->next_;
        if (m->expires_ms_ > now) {
            next = m->expires_ms_ < next ? m->expires_ms_ : next;
            continue;
        }
        unlink_from(l, m);
        p->count--;
        p->bytes -= m->body_len;
        m->outcome_ = m->tag_ ? HP_PUBLISH_UNKNOWN : HP_PUBLISH_UNAVAILABLE;
        if (m->tag_)
            hp_confirm_window_forget(&p->window, m->tag_);
        push(over, m);
    }
    return next;
}

static void tell(struct list *l)
{
    struct hp_publish *m;
    while ((m = l->head)) {
        unlink_from(l, m);
        m->done_cb(m, m->outcome_);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct hp_publisher *p = timer->data;
    uint64_t now = uv_now(p->loop);
    struct list over = {0};
    uint64_t next = expire_list(p, &p->waiting, &over, now);
    uint64_t other = expire_list(p, &p->sent, &over, now);
    next = other < next ? other : next;
    if (p->closing && p->linger_until_ms < next)
        next = p->linger_until_ms;
    if (next != UINT64_MAX)
        arm(p, next);
    tell(&over);
    settle_close(p);
}

/* ---- Sending ---- */

static const char *route(const struct hp_publish *m)
{
    return m->routing_key ? m->routing_key : "";
}

static int encode(struct hp_publisher *p, struct hp_publish *m, uint64_t tag)
{
    amqp_table_entry_t entry = {
        .key = amqp_cstring_bytes(TAG_HEADER),
        .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = (int64_t)tag},
    };
    amqp_basic_properties_t props = {._flags = AMQP_BASIC_DELIVERY_MODE_FLAG, .delivery_mode = m->persistent ? 2 : 1};
    if (m->mandatory) {
        props._flags |= AMQP_BASIC_HEADERS_FLAG;
        props.headers = (amqp_table_t){1, &entry};
    }
#define SET(field_, flag_)                                                                                             \
    if (m->field_) {                                                                                                   \
        props._flags |= (flag_);                                                                                       \
        props.field_ = amqp_cstring_bytes(m->field_);                                                                  \
    }
    SET(type, AMQP_BASIC_TYPE_FLAG)
    SET(message_id, AMQP_BASIC_MESSAGE_ID_FLAG)
    SET(correlation_id, AMQP_BASIC_CORRELATION_ID_FLAG)
    SET(reply_to, AMQP_BASIC_REPLY_TO_FLAG)
#undef SET
    amqp_basic_publish_t publish = {
        .exchange = amqp_cstring_bytes(m->exchange ? m->exchange : ""),
        .routing_key = amqp_cstring_bytes(route(m)),
        .mandatory = m->mandatory,
    };
    struct hp_buf *out = hp_amqp_conn_out(p->conn);
    size_t before = out->len;
    int rc = hp_amqp_put_method(out, 1, AMQP_BASIC_PUBLISH_METHOD, &publish, NULL);
    if (!rc)
        rc = hp_amqp_put_content(out, 1, &props, m->body, m->body_len, hp_amqp_conn_frame_max(p->conn), NULL);
    if (rc)
        out->len = before;
    return rc;
}

/* Moves from waiting to sent what the connection and the window have room for. */
static void pump(struct hp_publisher *p)
{
    struct list over = {0};
    while (p->state == HP_AMQP_UP && p->waiting.head && !hp_confirm_window_full(&p->window)) {
        if (!hp_amqp_conn_has_room(p->conn)) {
            hp_amqp_conn_flush(p->conn);
            if (!hp_amqp_conn_has_room(p->conn))
                break;
        }
        struct hp_publish *m = p->waiting.head;
        unlink_from(&p->waiting, m);
        if (encode(p, m, p->window.next)) {
            p->count--;
            p->bytes -= m->body_len;
            m->outcome_ = HP_PUBLISH_UNAVAILABLE;
            push(&over, m);
            continue;
        }
        m->tag_ = hp_confirm_window_push(&p->window, m);
        push(&p->sent, m);
    }
    tell(&over);
}

static void on_turn(void *user)
{
    struct hp_publisher *p = user;
    struct list refused = p->refused;
    p->refused = (struct list){0};
    tell(&refused);
    pump(p);
    settle_close(p);
}

void hp_publish(struct hp_publisher *p, struct hp_publish *m)
{
    assert(m->done_cb);
    assert(!m->body_len || m->body);
    m->tag_ = 0;
    m->returned_ = false;
    m->outcome_ = HP_PUBLISH_UNAVAILABLE;
    m->expires_ms_ = uv_now(p->loop) + (m->deadline_ms ? m->deadline_ms : DEADLINE_MS);
    hp_amqp_conn_kick(p->conn);
    bool full =
        p->count >= p->window_max || m->body_len > p->window_bytes_max - p->bytes || m->body_len > HP_AMQP_BODY_MAX;
    if (p->state == HP_AMQP_DOWN || p->closing || full) {
        push(&p->refused, m);
        return;
    }
    p->count++;
    p->bytes += m->body_len;
    push(&p->waiting, m);
    arm(p, m->expires_ms_);
}

/* ---- What the broker says ---- */

static void set_state(struct hp_publisher *p, enum hp_amqp_state state, const struct hp_error *e)
{
    static const struct hp_error none;
    p->state = state;
    if (p->state_cb && !p->closing)
        p->state_cb(state, e ? e : &none, p->user);
}

static void on_open(void *user)
{
    struct hp_publisher *p = user;
    amqp_confirm_select_t m = {0};
    struct hp_error e = {0};
    hp_confirm_window_reset(&p->window);
    if (hp_amqp_put_method(hp_amqp_conn_out(p->conn), 1, AMQP_CONFIRM_SELECT_METHOD, &m, &e)) {
        hp_amqp_conn_drop(p->conn, 0, &e);
        return;
    }
    hp_amqp_conn_expect(p->conn);
}

static void taken(struct hp_publisher *p, const struct hp_publish *m)
{
    struct rejecting *r = &p->rejecting;
    if (r->since_ms && strcmp(r->queue, route(m)) == 0)
        *r = (struct rejecting){0};
}

static void rejected(struct hp_publisher *p, const struct hp_publish *m)
{
    struct rejecting *r = &p->rejecting;
    uint64_t now = uv_now(p->loop);
    if (!r->since_ms || now - r->last_ms > REJECTED_MS) { /* another one may be forgotten: nobody asks for it */
        snprintf(r->queue, sizeof r->queue, "%s", route(m));
        r->since_ms = r->last_ms = now ? now : 1;
    } else if (strcmp(r->queue, route(m)) == 0) {
        r->last_ms = now;
    }
}

/* Whether the queue has rejected everything for long enough, and the connection was not given up for that a short while ago. */
static int rejects_all(struct hp_publisher *p, struct hp_error *e)
{
    struct rejecting *r = &p->rejecting;
    uint64_t now = uv_now(p->loop);
    if (!r->since_ms || r->last_ms - r->since_ms < REJECTED_MS || now < r->not_before_ms)
        return 0;
    r->again_ms = r->again_ms ? 2 * r->again_ms : REJECTED_AGAIN_MS;
    if (r->again_ms > REJECTED_AGAIN_MAX_MS)
        r->again_ms = REJECTED_AGAIN_MAX_MS;
    r->not_before_ms = now + r->again_ms;
    return hp_fail(e, HP_EUNAVAILABLE, "queue %s has taken nothing for %d ms: it is full, or its leader is not found",
                   r->queue, (int)(r->last_ms - r->since_ms));
}

static void on_ack(void *item, void *user)
{
    struct hp_publish *m = item;
    taken(user, m);
    finish(user, m, m->returned_ ? HP_PUBLISH_RETURNED : HP_PUBLISH_CONFIRMED);
}

static void on_nack(void *item, void *user)
{
    struct hp_publish *m = item;
    rejected(user, m);
    finish(user, m, m->returned_ ? HP_PUBLISH_RETURNED : HP_PUBLISH_REJECTED);
}

static void on_method(void *user, uint16_t channel, amqp_method_number_t id, const void *method)
{
    struct hp_publisher *p = user;
    struct hp_error e = {0};
    int rc = 0;
    switch (id) {
    case AMQP_CONFIRM_SELECT_OK_METHOD:
        hp_amqp_conn_answered(p->conn);
        hp_amqp_conn_settled(p->conn);
        p->reported = false;
        if (p->state == HP_AMQP_DOWN)
            set_state(p, HP_AMQP_UP, NULL);
        break;
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *m = method;
        rc = hp_confirm_window_settle(&p->window, m->delivery_tag, m->multiple, on_ack, p, &e);
        break;
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *m = method;
        rc = hp_confirm_window_settle(&p->window, m->delivery_tag, m->multiple, on_nack, p, &e);
        if (!rc)
            rc = rejects_all(p, &e);
        break;
    }
    case AMQP_CHANNEL_CLOSE_METHOD: {
        const amqp_channel_close_t *m = method;
        hp_amqp_close_error(&e, m->reply_code, m->reply_text);
        rc = e.code;
        break;
    }
    default:
        rc = hp_fail(&e, HP_EPROTO, "method 0x%08x from the broker is out of place", (unsigned)id);
    }
    if (rc) {
        hp_amqp_conn_drop(p->conn, 0, &e);
        return;
    }
    if (p->waiting.head || p->closing)
        hp_amqp_conn_kick(p->conn); /* the window has room again */
}

static void on_content(void *user, uint16_t channel, const struct hp_amqp_content *c)
{
    struct hp_publisher *p = user;
    if (c->id != AMQP_BASIC_RETURN_METHOD || !(c->properties->_flags & AMQP_BASIC_HEADERS_FLAG))
        return;
    const amqp_field_value_t *v = hp_amqp_table_find(&c->properties->headers, TAG_HEADER);
    int64_t tag;
    if (!v || !hp_amqp_field_int(v, &tag))
        return;
    struct hp_publish *m = hp_confirm_window_find(&p->window, (uint64_t)tag);
    if (m)
        m->returned_ = true;
}

static void on_blocked(void *user, bool blocked, const char *reason)
{
    struct hp_publisher *p = user;
    struct hp_error e = {0};
    if (p->state == HP_AMQP_DOWN)
        return;
    if (blocked)
        hp_fail(&e, HP_EUNAVAILABLE, "the broker takes no messages: %s", reason);
    set_state(p, blocked ? HP_AMQP_BLOCKED : HP_AMQP_UP, &e);
    if (!blocked)
        hp_amqp_conn_kick(p->conn);
}

/* What was sent may be there; what was not, is not. */
static void fail_all(struct hp_publisher *p)
{
    struct list over = {0};
    (void)expire_list(p, &p->waiting, &over, UINT64_MAX);
    (void)expire_list(p, &p->sent, &over, UINT64_MAX);
    assert(p->count == 0 && p->bytes == 0);
    tell(&over);
}

static void on_down(void *user, const struct hp_error *e)
{
    struct hp_publisher *p = user;
    bool was_up = p->state != HP_AMQP_DOWN;
    p->state = HP_AMQP_DOWN;
    p->rejecting.since_ms = 0;
    fail_all(p);
    hp_confirm_window_reset(&p->window);
    if (was_up || !p->reported || strcmp(p->error.message, e->message) != 0) {
        p->reported = true;
        p->error = *e;
        set_state(p, HP_AMQP_DOWN, e);
    }
    settle_close(p);
}

/* ---- Life ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct hp_publisher *p = handle->data;
    void (*closed_cb)(void *) = p->closed_cb;
    void *user = p->closed_user;
    hp_confirm_window_close(&p->window);
    free(p);
    if (closed_cb)
        closed_cb(user);
}

static void on_conn_closed(void *user)
{
    struct hp_publisher *p = user;
    struct list refused = p->refused;
    p->refused = (struct list){0};
    fail_all(p);
    tell(&refused);
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

/* Closing: when nothing is under way any more, or the linger time is over, the connection is closed. */
static void settle_close(struct hp_publisher *p)
{
    if (!p->closing || p->conn_closing)
        return;
    bool over = uv_now(p->loop) >= p->linger_until_ms || p->state == HP_AMQP_DOWN;
    if (p->count && !over)
        return;
    p->conn_closing = true;
    fail_all(p);
    hp_amqp_conn_close(p->conn);
}

void hp_publisher_close(struct hp_publisher *p, uint64_t linger_ms, void (*closed_cb)(void *user), void *user)
{
    assert(!p->closing);
    p->closing = true;
    p->closed_cb = closed_cb;
    p->closed_user = user;
    p->linger_until_ms = uv_now(p->loop) + linger_ms;
    arm(p, p->linger_until_ms);
    hp_amqp_conn_kick(p->conn);
}

void hp_publisher_reconnect(struct hp_publisher *p, const char *why)
{
    struct hp_error e = {0};
    if (p->closing || p->state == HP_AMQP_DOWN)
        return;
    hp_fail(&e, HP_EUNAVAILABLE, "%s", why);
    hp_amqp_conn_drop(p->conn, 0, &e);
}

bool hp_publisher_remake_streams(struct hp_publisher *p)
{
    return !p->closing && hp_amqp_conn_remake(p->conn);
}

enum hp_amqp_state hp_publisher_state(const struct hp_publisher *p)
{
    return p->state;
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

int hp_publisher_new(uv_loop_t *loop, const struct hp_publisher_options *o, struct hp_publisher **ret,
                     struct hp_error *e)
{
    struct hp_publisher *p = calloc(1, sizeof *p);
    if (!p)
        return hp_fail(e, HP_ENOMEM, "publisher: out of memory");
    p->loop = loop;
    p->state_cb = o->state_cb;
    p->user = o->user;
    p->window_max = o->window_max ? o->window_max : WINDOW_MAX;
    p->window_bytes_max = o->window_bytes_max ? o->window_bytes_max : WINDOW_BYTES_MAX;
    int rc = hp_confirm_window_init(&p->window, p->window_max, e);
    if (!rc)
        rc = hp_amqp_conn_new(loop, &o->amqp, o->topology, 1, &conn_events, p, &p->conn, e);
    if (rc) {
        hp_confirm_window_close(&p->window);
        free(p);
        return rc;
    }
    uv_timer_init(loop, &p->timer);
    uv_unref((uv_handle_t *)&p->timer);
    p->timer.data = p;
    *ret = p;
    return 0;
}
