/* Happy path: dial → open → session wanted → hello → welcome → up. A failure at any point: back off with full jitter, next router. A connection that was up and is
 * lost: the same router first. A router that drains: a second connection is made to another router; the first serves until the second is up. */
#include "shell/link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/loop.h"
#include "wire/codec.h"
#include "wire/frame.h"

/* Life of a connection: IDLE → DIALLING → SESSION → HELLO → UP → CLOSING → IDLE; any of them → CLOSING. */
enum conn_state { IDLE, DIALLING, SESSION, HELLO, UP, CLOSING, STATE_COUNT };

static const uint8_t successors[STATE_COUNT] = {
    [IDLE] = 1 << DIALLING,
    [DIALLING] = 1 << SESSION | 1 << CLOSING | 1 << IDLE,
    [SESSION] = 1 << HELLO | 1 << CLOSING | 1 << IDLE,
    [HELLO] = 1 << UP | 1 << CLOSING | 1 << IDLE,
    [UP] = 1 << CLOSING | 1 << IDLE,
    [CLOSING] = 1 << IDLE,
};

struct conn {
    struct ha_link *link;
    struct hp_stream *stream; /* NULL in IDLE */
    struct hp_frame_reader reader;
    enum conn_state state;
    bool leaving;  /* UP, but another connection is to take its place */
    size_t router; /* index in the list */
    uint32_t heartbeat_ms, metrics_ms;
    uint64_t deadline_ms; /* of the welcome */
    uint64_t heard_ms, sent_ms, probed_ms, metrics_due_ms;
    uint64_t asked_ms; /* when metrics were last asked for; they may come later, or not at all */
};

struct ha_link {
    uv_loop_t *loop;
    struct ha_link_options o;
    const struct ha_link_events *ev;
    void *user;
    struct ha_timer timer;
    struct conn conns[2];
    struct conn *up;     /* the one that is used; NULL none */
    size_t router;       /* the next to dial */
    uint32_t backoff_ms; /* upper bound of the next wait */
    uint64_t dial_at_ms; /* UINT64_MAX: not waiting */
    bool closing;
    void (*closed_cb)(void *user);
};

static void rearm(struct ha_link *l);

static void move(struct conn *c, enum conn_state next)
{
    assert(successors[c->state] & (1 << next));
    assert((next == IDLE) == (c->stream == NULL));
    c->state = next;
}

static const char *router_of(const struct conn *c)
{
    return c->link->o.routers[c->router];
}

/* A connection that is not up yet; NULL: none. */
static struct conn *pending(struct ha_link *l)
{
    for (int i = 0; i < 2; i++)
        if (l->conns[i].state != IDLE && l->conns[i].state != UP && l->conns[i].state != CLOSING)
            return &l->conns[i];
    return NULL;
}

static struct conn *idle(struct ha_link *l)
{
    for (int i = 0; i < 2; i++)
        if (l->conns[i].state == IDLE)
            return &l->conns[i];
    return NULL;
}

/* Waits with full jitter: anything up to a bound that doubles. */
static void dial_later(struct ha_link *l, uint64_t least_ms)
{
    uint64_t wait = least_ms + hp_rng_below(l->o.rng, l->backoff_ms + 1);
    l->backoff_ms = l->backoff_ms * 2 < HA_LINK_BACKOFF_MAX_MS ? l->backoff_ms * 2 : HA_LINK_BACKOFF_MAX_MS;
    l->dial_at_ms = hp_now_ms() + wait;
}

static void rotate(struct ha_link *l)
{
    l->router = (l->router + 1) % l->o.router_count;
}

static int write_frame(struct conn *c, const void *body, size_t len)
{
    uint8_t header[HP_FRAME_HEADER];
    if (len == 0 || len > HP_FRAME_MAX)
        return HP_ELIMIT;
    if (hp_stream_queued(c->stream) + len + sizeof header > HA_LINK_QUEUE_MAX)
        return HP_ELIMIT;
    hp_frame_header(header, len);
    int rc = hp_stream_write(c->stream, header, sizeof header);
    if (!rc)
        rc = hp_stream_write(c->stream, body, len);
    c->sent_ms = hp_now_ms();
    return rc;
}

static void drop(struct conn *c, const char *why)
{
    if (c->state == IDLE || c->state == CLOSING)
        return;
    hp_info("connection to the router ends", HP_S("router", router_of(c)), HP_S("reason", why));
    hp_stream_close(c->stream, 0);
    bool was_up = c->link->up == c;
    if (was_up)
        c->leaving = true; /* on_close tells the owner */
    move(c, CLOSING);
}

/* Small messages only: they are packed on the stack. */
static void send_small(struct conn *c, const Harpoon__Internal__V1__AgentMessage *m)
{
    uint8_t buf[512];
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(m);
    if (n > sizeof buf)
        return;
    harpoon__internal__v1__agent_message__pack(m, buf);
    if (write_frame(c, buf, n))
        drop(c, "the router does not take what is sent");
}

static void send_heartbeat(struct conn *c)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Heartbeat beat = HARPOON__INTERNAL__V1__HEARTBEAT__INIT;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    send_small(c, &m);
}

static void send_goodbye(struct conn *c, const char *reason)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Goodbye bye = HARPOON__INTERNAL__V1__GOODBYE__INIT;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_GOODBYE;
    m.goodbye = &bye;
    bye.reason = (char *)reason;
    send_small(c, &m);
}

static void welcome(struct conn *c, const Harpoon__Internal__V1__Welcome *w)
{
    struct ha_link *l = c->link;
    struct conn *old = l->up;
    uint64_t now = hp_now_ms();
    if (c->state != HELLO) {
        drop(c, "a welcome that nobody asked for");
        return;
    }
    c->heartbeat_ms = w->heartbeat_ms >= 100 ? (uint32_t)w->heartbeat_ms : 5000;
    c->metrics_ms = w->metrics_ms > 0 ? (uint32_t)w->metrics_ms : 0;
    /* Agents that attach together do not send their metrics together for ever. */
    c->metrics_due_ms = c->metrics_ms ? now + hp_rng_below(l->o.rng, c->metrics_ms) : UINT64_MAX;
    c->heard_ms = c->probed_ms = now;
    c->asked_ms = 0;
    move(c, UP);
    l->up = c;
    l->router = c->router;
    l->backoff_ms = HA_LINK_BACKOFF_MIN_MS;
    l->dial_at_ms = UINT64_MAX;
    if (old) {
        send_goodbye(old, "moved to another router");
        if (old->state == UP) {
            hp_stream_close(old->stream, 1000);
            move(old, CLOSING);
        }
    }
    l->ev->on_up(l->user, w->router);
}

static void draining(struct conn *c)
{
    struct ha_link *l = c->link;
    if (c != l->up || c->leaving)
        return;
    hp_info("router drains; attaching to another", HP_S("router", router_of(c)));
    c->leaving = true;
    rotate(l);
    if (!pending(l))
        dial_later(l, 0);
}

static void refused(struct conn *c, const Harpoon__Internal__V1__Refused *r)
{
    struct ha_link *l = c->link;
    hp_warn("router refuses this host", HP_S("router", router_of(c)),
            HP_S("error", r->status ? r->status->message : ""));
    drop(c, "refused");
    l->dial_at_ms = UINT64_MAX;
    rotate(l);
    dial_later(l, r->retry_ms > 0 ? (uint64_t)r->retry_ms : 0);
}

static int got_frame(void *user, const uint8_t *body, size_t len)
{
    struct conn *c = user;
    struct ha_link *l = c->link;
    ProtobufCMessage *m;
    struct hp_error e = {0};
    if (c->state == CLOSING)
        return HP_ECANCELED;
    int rc = hp_unpack(&harpoon__internal__v1__router_message__descriptor, body, len, NULL, &m, &e);
    if (rc) {
        hp_warn("message of the router cannot be read", HP_S("router", router_of(c)), HP_S("error", e.message));
        return rc;
    }
    const Harpoon__Internal__V1__RouterMessage *rm = (const Harpoon__Internal__V1__RouterMessage *)m;
    switch (rm->body_case) {
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_WELCOME:
        welcome(c, rm->welcome);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_REFUSED:
        refused(c, rm->refused);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_DRAINING:
        draining(c);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_HEARTBEAT:
        break; /* heard: that is all */
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY__NOT_SET:
        break; /* of a later version */
    default:
        if (c->state == UP)
            l->ev->on_message(l->user, rm);
        else
            rc = HP_EPROTO;
    }
    hp_unpacked_free(m);
    return rc;
}

static void on_open(struct hp_stream *s, void *user)
{
    struct conn *c = user;
    if (c->state != DIALLING)
        return;
    move(c, SESSION);
    c->link->ev->on_session_wanted(c->link->user);
}

static void on_read(struct hp_stream *s, const uint8_t *data, size_t len, void *user)
{
    struct conn *c = user;
    struct hp_error e = {0};
    c->heard_ms = hp_now_ms();
    if (c->state == CLOSING)
        return;
    if (hp_frame_read(&c->reader, data, len, got_frame, c, &e))
        drop(c, e.message[0] ? e.message : "a message that does not belong here");
    rearm(c->link);
}

static void finish_close(struct ha_link *l)
{
    if (!l->closing || l->conns[0].state != IDLE || l->conns[1].state != IDLE)
        return;
    void (*cb)(void *) = l->closed_cb;
    void *user = l->user;
    ha_timers_release(l->o.timers, 1);
    free(l);
    if (cb)
        cb(user);
}

static void on_close(struct hp_stream *s, const struct hp_error *e, void *user)
{
    struct conn *c = user;
    struct ha_link *l = c->link;
    bool was_up = l->up == c, reached = c->state == UP || (was_up && c->state == CLOSING);
    c->stream = NULL;
    hp_frame_reader_done(&c->reader);
    move(c, IDLE);
    if (was_up)
        l->up = NULL;
    if (l->closing) {
        finish_close(l);
        return;
    }
    if (was_up)
        l->ev->on_down(l->user, e && e->code ? e->message : "closed by the router");
    if (!reached && e && e->code)
        hp_info("router cannot be reached", HP_S("router", router_of(c)), HP_S("error", e->message));
    if (!l->up && !pending(l) && l->dial_at_ms == UINT64_MAX) {
        if (!reached)
            rotate(l);
        dial_later(l, 0);
    } else if (l->up && l->up->leaving && !pending(l) && l->dial_at_ms == UINT64_MAX) {
        rotate(l);
        dial_later(l, 0);
    }
    rearm(l);
}

static const struct hp_stream_events stream_events = {.on_open = on_open, .on_read = on_read, .on_close = on_close};

static void dial(struct ha_link *l)
{
    struct conn *c = idle(l);
    struct hp_error e = {0};
    struct hp_stream_options so = {.tls = l->o.tls, .write_queue_max = HA_LINK_QUEUE_MAX, .source_ip = l->o.source_ip};
    l->dial_at_ms = UINT64_MAX;
    if (!c || pending(l)) /* the close of an old connection comes back here */
        return;
    if (l->up && l->up->leaving && l->router == l->up->router)
        rotate(l); /* anywhere but there, if there is another */
    c->router = l->router;
    c->leaving = false;
    c->deadline_ms = hp_now_ms() + HA_LINK_WELCOME_MS;
    hp_frame_reader_init(&c->reader);
    if (hp_stream_connect(l->loop, router_of(c), NULL, &so, &stream_events, c, &c->stream, &e)) {
        c->stream = NULL;
        hp_warn("cannot dial the router", HP_S("router", router_of(c)), HP_S("error", e.message));
        rotate(l);
        dial_later(l, 0);
        return;
    }
    move(c, DIALLING);
}

uint64_t ha_link_heartbeat_due(uint64_t sent_ms, uint32_t heartbeat_ms, uint64_t metrics_due_ms, uint64_t asked_ms)
{
    uint64_t full = sent_ms + heartbeat_ms, grace = heartbeat_ms / 8;
    assert(heartbeat_ms > 0);
    if (metrics_due_ms <= full)
        return metrics_due_ms + grace;
    uint64_t due = asked_ms + grace < full + grace ? asked_ms + grace : full + grace;
    return due > full - grace ? due : full - grace;
}

static uint64_t heartbeat_due(const struct conn *c)
{
    /* Only the connection that is used carries metrics. */
    uint64_t metrics_due_ms = c == c->link->up ? c->metrics_due_ms : UINT64_MAX;
    return ha_link_heartbeat_due(c->sent_ms, c->heartbeat_ms, metrics_due_ms, c->asked_ms);
}

/* When the connection needs attention next. */
static uint64_t conn_deadline(const struct conn *c)
{
    if (c->state == DIALLING || c->state == SESSION || c->state == HELLO)
        return c->deadline_ms;
    if (c->state != UP)
        return UINT64_MAX;
    uint64_t due = heartbeat_due(c);
    if (c->probed_ms + c->heartbeat_ms < due)
        due = c->probed_ms + c->heartbeat_ms;
    return c->metrics_due_ms < due ? c->metrics_due_ms : due;
}

static void attend(struct conn *c, uint64_t now)
{
    struct ha_link *l = c->link;
    if (c->state == DIALLING || c->state == SESSION || c->state == HELLO) {
        if (now >= c->deadline_ms)
            drop(c, "no welcome in time");
        return;
    }
    if (c->state != UP)
        return;
    if (now - c->heard_ms > 4 * (uint64_t)c->heartbeat_ms) {
        drop(c, "the router is silent");
        rotate(l);
        return;
    }
    if (now >= c->metrics_due_ms) {
        c->metrics_due_ms = now + c->metrics_ms;
        if (c == l->up) {
            c->asked_ms = now;
            l->ev->on_metrics_due(l->user);
        }
    }
    bool quiet = now - c->heard_ms > 2 * (uint64_t)c->heartbeat_ms; /* ask for a sign of life */
    if (c->state == UP && (quiet || now >= heartbeat_due(c)))
        send_heartbeat(c);
    c->probed_ms = now;
}

static void fired(struct ha_timer *t)
{
    struct ha_link *l = (struct ha_link *)((char *)t - offsetof(struct ha_link, timer));
    uint64_t now = hp_now_ms();
    for (int i = 0; i < 2; i++)
        if (conn_deadline(&l->conns[i]) <= now)
            attend(&l->conns[i], now);
    if (l->dial_at_ms <= now)
        dial(l);
    rearm(l);
}

static void rearm(struct ha_link *l)
{
    if (l->closing)
        return;
    uint64_t due = l->dial_at_ms;
    for (int i = 0; i < 2; i++) {
        uint64_t d = conn_deadline(&l->conns[i]);
        due = d < due ? d : due;
    }
    ha_timer_set(l->o.timers, &l->timer, due);
}

int ha_link_new(uv_loop_t *loop, const struct ha_link_options *o, const struct ha_link_events *ev, void *user,
                struct ha_link **ret, struct hp_error *e)
{
    assert(o->router_count > 0);
    struct ha_link *l = calloc(1, sizeof *l);
    if (!l || ha_timers_reserve(o->timers, 1)) {
        free(l);
        return hp_fail(e, HP_ENOMEM, "link to the routers");
    }
    l->loop = loop;
    l->o = *o;
    l->ev = ev;
    l->user = user;
    l->timer.fire_cb = fired;
    l->conns[0].link = l->conns[1].link = l;
    l->router = hp_rng_below(o->rng, o->router_count);
    l->backoff_ms = HA_LINK_BACKOFF_MIN_MS;
    l->dial_at_ms = hp_now_ms() + o->first_delay_ms;
    rearm(l);
    *ret = l;
    return 0;
}

void ha_link_session(struct ha_link *l, int64_t session)
{
    struct conn *c = pending(l);
    if (!c || c->state != SESSION)
        return;
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO;
    m.hello = &hello;
    hello.version_min = hello.version_max = 1;
    l->ev->fill_hello(l->user, &hello);
    hello.session = session;
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(&m);
    uint8_t *body = malloc(n);
    if (!body) {
        drop(c, "out of memory");
        return;
    }
    harpoon__internal__v1__agent_message__pack(&m, body);
    move(c, HELLO);
    if (write_frame(c, body, n))
        drop(c, "the hello cannot be sent");
    free(body);
    rearm(l);
}

void ha_link_send(struct ha_link *l, const void *body, size_t len)
{
    struct conn *c = l->up;
    if (!c || c->state != UP)
        return;
    if (write_frame(c, body, len))
        drop(c, "the router does not take what is sent");
}

bool ha_link_is_up(const struct ha_link *l)
{
    return l->up && l->up->state == UP;
}

void ha_link_close(struct ha_link *l, const char *reason, void (*closed_cb)(void *user))
{
    assert(!l->closing);
    ha_timer_set(l->o.timers, &l->timer, UINT64_MAX);
    if (ha_link_is_up(l))
        send_goodbye(l->up, reason);
    l->closing = true;
    l->closed_cb = closed_cb;
    for (int i = 0; i < 2; i++) {
        struct conn *c = &l->conns[i];
        if (c->state == IDLE || c->state == CLOSING)
            continue;
        hp_stream_close(c->stream, 2000);
        move(c, CLOSING);
    }
    finish_close(l);
}
