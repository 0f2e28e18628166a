/*
 * The router's core: what comes from agents, the broker's state, time.
 *
 * Happy path of a command: er_core_command → window → ER_SEND → the agent's journalled and result → reports of the session → er_core_end_turn → ER_PUBLISH →
 * er_core_published → er_core_end_turn → ReportsConfirmed to the agent, which may now forget. Failures: no session → Undelivered; no confirm → published again; no connection →
 * Detach, and the agent repeats what was not confirmed on its next attachment, here or at another router.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"
#include "wire/agent_limits.h"
#include "wire/codec.h"
#include "wire/frame.h"

typedef Harpoon__Internal__V1__AgentMessage pb_agent_message;
typedef Harpoon__Internal__V1__Report pb_report;

enum { GOODBYE_LINGER_MS = 1000 };

int er_core_new(const struct er_options *o, uint64_t now_ms, struct er_core **ret, struct hp_error *e)
{
    assert(o->window > 0 && o->window <= UINT16_MAX);
    assert(o->heartbeat_ms > 0);
    struct er_core *c = calloc(1, sizeof *c);
    if (c) {
        c->router = strdup(o->router);
        c->region = strdup(o->region);
    }
    if (!c || !c->router || !c->region) {
        er_core_free(c);
        return hp_fail(e, HP_ENOMEM, "router: out of memory");
    }
    c->o = *o;
    c->o.router = c->router;
    c->o.region = c->region;
    hp_map_init(&c->hosts, o->sessions_max, o->seed);
    hp_rng_init(&c->rng, o->seed);
    c->wheel_ms = now_ms - now_ms % ER_WHEEL_STEP_MS;
    c->retry_ms = ER_RETRY_MS;
    c->batch_number = 1;
    c->batch_due_ms = UINT64_MAX;
    *ret = c;
    return 0;
}

void er_core_free(struct er_core *c)
{
    if (!c)
        return;
    assert(c->session_count == 0);
    assert(c->publishing == 0);
    while (c->own.first) {
        struct er_report *r = c->own.first;
        c->own.first = r->next;
        free(r);
    }
    hp_map_done(&c->hosts);
    er_bytes_done(&c->batch);
    er_bytes_done(&c->out);
    free(c->effects);
    free(c->router);
    free(c->region);
    free(c);
}

/* ---- What agents say ---- */

static void take_report(struct er_core *c, uint64_t now_ms, struct er_session *s, pb_report *r, int64_t report_id)
{
    if (er_report_agent(c, s, r, report_id))
        er_session_end(c, now_ms, s, ER_DETACH_TOO_SLOW, 0); /* no memory: it will say so again */
}

static void on_attached(struct er_core *c, uint64_t now_ms, struct er_session *s, pb_agent_message *m)
{
    pb_report r;
    struct hp_error e = {0};
    if (hp_agent_message_check(m, &e)) {
        er_session_refuse_message(c, now_ms, s, e.message);
        return;
    }
    er_report_init(c, &r, s->host, s->number);
    er_metrics_sample(c, now_ms, s, m->body_case == ER_V1(AGENT_MESSAGE__BODY_METRICS) ? m->metrics : NULL);
    switch (m->body_case) {
    case ER_V1(AGENT_MESSAGE__BODY_JOURNALLED):
        r.body_case = ER_V1(REPORT__BODY_JOURNALLED);
        r.journalled = m->journalled;
        take_report(c, now_ms, s, &r, m->journalled->report_id);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_RESULT):
        r.body_case = ER_V1(REPORT__BODY_RESULT);
        r.result = m->result;
        er_window_release(c, now_ms, s, er_command_key(c, m->result->uid, m->result->generation));
        take_report(c, now_ms, s, &r, m->result->report_id);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_OBSERVATION):
        r.body_case = ER_V1(REPORT__BODY_OBSERVATION);
        r.observation = m->observation;
        take_report(c, now_ms, s, &r, m->observation->report_id);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_INVENTORY):
        r.body_case = ER_V1(REPORT__BODY_INVENTORY);
        r.inventory = m->inventory;
        take_report(c, now_ms, s, &r, 0);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_DIGEST):
        s->digest = m->digest->digest;
        s->digest_count = (uint32_t)m->digest->count;
        r.body_case = ER_V1(REPORT__BODY_DIGEST);
        r.digest = m->digest;
        take_report(c, now_ms, s, &r, 0);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_GOODBYE):
        er_session_end(c, now_ms, s, ER_DETACH_GOODBYE, GOODBYE_LINGER_MS);
        break;
    case ER_V1(AGENT_MESSAGE__BODY_HELLO):
        c->stats.protocol_errors++;
        er_session_end(c, now_ms, s, ER_DETACH_PROTOCOL_ERROR, 0);
        break;
    default: /* metrics and heartbeats are dealt with; anything else is of a newer agent */
        break;
    }
}

int er_core_frame(struct er_core *c, uint64_t now_ms, struct er_session *s, const uint8_t *body, size_t len)
{
    static const struct hp_unpack_limits limits = {HP_FRAME_MAX, 16 << 20};
    ProtobufCMessage *message = NULL;
    struct hp_error e = {0};
    if (s->state == ER_CLOSING)
        return HP_ECANCELED;
    int rc = hp_unpack(&harpoon__internal__v1__agent_message__descriptor, body, len, &limits, &message, &e);
    if (rc) {
        er_note(c, s, rc == HP_ENOMEM ? "out of memory: a frame is not read" : "a frame is no AgentMessage", NULL);
        er_core_frame_error(c, now_ms, s, &e);
        return HP_EPROTO;
    }
    pb_agent_message *m = (pb_agent_message *)message;
    if (s->state == ER_ATTACHED) {
        s->heard_ms = now_ms;
        on_attached(c, now_ms, s, m);
    } else if (m->body_case == ER_V1(AGENT_MESSAGE__BODY_HELLO)) {
        s->heard_ms = now_ms;
        er_session_hello(c, now_ms, s, m->hello, len);
    } else {
        er_core_frame_error(c, now_ms, s, &e);
    }
    hp_unpacked_free(message);
    return s->state == ER_CLOSING ? HP_ECANCELED : 0;
}

/* ---- The broker, time ---- */

void er_core_broker(struct er_core *c, uint64_t now_ms, bool ready)
{
    if (ready == c->broker_ready)
        return;
    c->broker_ready = ready;
    er_note(c, NULL, ready ? "broker is there: all sessions are announced" : "broker is gone: sessions are kept", NULL);
    if (ready) {
        c->retry_at_ms = 0;
        c->retry_ms = ER_RETRY_MS;
        for (struct hp_map_node *n = hp_map_first(&c->hosts); n; n = hp_map_next(n))
            er_reports_announce(c, n->value);
    }
    er_drain_check(c, now_ms);
}

void er_core_end_turn(struct er_core *c, uint64_t now_ms)
{
    er_reports_turn(c, now_ms);
    er_drain_check(c, now_ms);
}

void er_core_tick(struct er_core *c, uint64_t now_ms)
{
    er_wheel_turn(c, now_ms);
    if (c->batch_due_ms <= now_ms)
        er_metrics_flush(c, now_ms);
    er_drain_step(c, now_ms);
    er_core_end_turn(c, now_ms);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t wheel_deadline(const struct er_core *c)
{
    if (c->on_wheel == 0)
        return UINT64_MAX;
    uint64_t step = c->wheel_ms / ER_WHEEL_STEP_MS;
    for (unsigned i = 0; i < ER_WHEEL_SLOTS; i++)
        if (c->wheel[(step + i) % ER_WHEEL_SLOTS])
            return (step + i + 1) * ER_WHEEL_STEP_MS;
    return UINT64_MAX;
}

uint64_t er_core_deadline(const struct er_core *c)
{
    uint64_t due = least(wheel_deadline(c), c->batch_due_ms);
    if (c->broker_ready && c->retry_at_ms && (c->own.first || c->ready_first))
        due = least(due, c->retry_at_ms);
    if (c->draining && !c->drained) {
        due = least(due, c->drain_next ? c->drain_step_ms : UINT64_MAX);
        due = least(due, c->drain_cut ? c->drain_end_ms : c->drain_deadline_ms);
    }
    return due;
}

void *er_session_link(const struct er_session *s)
{
    return s->link;
}

void er_core_stats(const struct er_core *c, struct er_stats *ret)
{
    *ret = c->stats;
    ret->sessions_now = c->session_count;
    ret->attached_now = c->hosts.count;
    ret->publishing_now = c->publishing;
    ret->reports_waiting_now = c->own_count;
    ret->held_bytes_now = c->held_bytes;
    ret->report_bytes_now = c->report_bytes;
    ret->paused_now = c->paused_count;
}
