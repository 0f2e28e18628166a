/*
 * Reports: from the hosts, and our own, to the broker.
 *
 * A session's reports are kept in order until the broker has confirmed them: DONE and INFLIGHT ones first, QUEUED ones behind. Once in a turn, sessions that have something to
 * publish are served round robin, and the ids of what was confirmed go to the agents in one message each. When a publish fails, the session waits for the outcomes of
 * what else is under way, and then publishes everything that was not passed on again, in order: a repeat does no harm, a report that overtakes an older one could.
 *
 * An Attach is no queued body but a flag, so that announcing a whole fleet costs no memory: it is built when its turn comes.
 *
 * A host whose reports cannot be published is paused at a limit. When its session ends, what was not published is handed over to our own list, or, while there is no
 * broker, dropped: the agent keeps what was not confirmed, and sends it again when it attaches next.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"
#include "wire/codec.h"

typedef Harpoon__Internal__V1__Report pb_report;

static void list_append(struct er_report_list *l, struct er_report *r)
{
    r->next = NULL;
    r->prev = l->last;
    if (l->last)
        l->last->next = r;
    else
        l->first = r;
    l->last = r;
}

/* NULL: at the end. */
static void list_insert_before(struct er_report_list *l, struct er_report *at, struct er_report *r)
{
    if (!at) {
        list_append(l, r);
        return;
    }
    r->next = at;
    r->prev = at->prev;
    if (at->prev)
        at->prev->next = r;
    else
        l->first = r;
    at->prev = r;
}

static void list_remove(struct er_report_list *l, struct er_report *r)
{
    assert(r);
    if (r->prev)
        r->prev->next = r->next;
    else
        l->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        l->last = r->prev;
}

void er_report_init(const struct er_core *c, pb_report *r, const char *host, int64_t session)
{
    *r = (pb_report)HARPOON__INTERNAL__V1__REPORT__INIT;
    r->router = c->router;
    r->region = c->region;
    r->host = (char *)(uintptr_t)host;
    r->session = session;
}

static struct er_report *report_new(struct er_core *c, const pb_report *m, enum er_report_kind kind)
{
    size_t len = protobuf_c_message_get_packed_size(&m->base);
    struct er_report *r = calloc(1, sizeof *r + len);
    if (!r)
        return NULL;
    r->len = (uint32_t)len;
    r->kind = (uint8_t)kind;
    protobuf_c_message_pack(&m->base, r->body);
    c->report_bytes += len;
    return r;
}

static void report_free(struct er_core *c, struct er_report *r)
{
    assert(c->report_bytes >= r->len);
    c->report_bytes -= r->len;
    free(r);
}

const uint8_t *er_report_body(const struct er_report *r, size_t *ret_len)
{
    *ret_len = r->len;
    return r->body;
}

/* ---- Lists of sessions ---- */

static bool has_work(const struct er_session *s)
{
    return s->state == ER_ATTACHED && !s->rewind && (s->next_out || (s->owes_attach && !s->attach_inflight));
}

static void ready_remove(struct er_core *c, struct er_session *s)
{
    if (!s->on_ready)
        return;
    s->on_ready = false;
    if (s->ready_prev)
        s->ready_prev->ready_next = s->ready_next;
    else
        c->ready_first = s->ready_next;
    if (s->ready_next)
        s->ready_next->ready_prev = s->ready_prev;
    else
        c->ready_last = s->ready_prev;
}

static void ready_append(struct er_core *c, struct er_session *s)
{
    if (s->on_ready || !has_work(s))
        return;
    s->on_ready = true;
    s->ready_next = NULL;
    s->ready_prev = c->ready_last;
    if (c->ready_last)
        c->ready_last->ready_next = s;
    else
        c->ready_first = s;
    c->ready_last = s;
}

/* ---- Back-pressure ---- */

static bool over_limit(const struct er_core *c, const struct er_session *s, unsigned divisor)
{
    return s->report_count >= ER_REPORTS_MAX / divisor || s->report_bytes >= ER_REPORTS_MAX_BYTES / divisor ||
           c->report_bytes >= ER_REPORTS_TOTAL_MAX_BYTES / divisor;
}

static void pause_if_full(struct er_core *c, struct er_session *s)
{
    if (s->paused || !over_limit(c, s, 1))
        return;
    s->paused = true;
    c->paused_count++;
    er_emit_link(c, ER_PAUSE, s);
}

void er_reports_unpause(struct er_core *c, struct er_session *s)
{
    if (!s->paused || s->state != ER_ATTACHED || over_limit(c, s, 2))
        return;
    s->paused = false;
    c->paused_count--;
    er_emit_link(c, ER_RESUME, s);
}

/* ---- Taking reports in ---- */

int er_report_agent(struct er_core *c, struct er_session *s, pb_report *m, int64_t report_id)
{
    struct er_report *r = report_new(c, m, ER_REPORT_AGENT);
    if (!r)
        return HP_ENOMEM;
    r->session = s;
    r->report_id = report_id;
    list_append(&s->reports, r);
    if (!s->next_out)
        s->next_out = r;
    s->report_count++;
    s->report_bytes += r->len;
    c->stats.reports++;
    ready_append(c, s);
    pause_if_full(c, s);
    return 0;
}

static void own_append(struct er_core *c, struct er_report *r)
{
    r->session = NULL;
    r->state = ER_QUEUED;
    list_append(&c->own, r);
    c->own_count++;
    while (c->own_count > ER_OWN_REPORTS_MAX) {
        struct er_report *oldest = c->own.first;
        list_remove(&c->own, oldest);
        c->own_count--;
        c->stats.reports_dropped++;
        report_free(c, oldest);
    }
}

void er_report_own(struct er_core *c, pb_report *m)
{
    struct er_report *r = report_new(c, m, ER_REPORT_OWN);
    if (!r) {
        c->stats.reports_dropped++;
        return;
    }
    c->stats.reports++;
    own_append(c, r);
}

void er_reports_announce(struct er_core *c, struct er_session *s)
{
    s->owes_attach = true;
    ready_append(c, s);
}

/* ---- Publishing ---- */

static struct er_report *build_attach(struct er_core *c, struct er_session *s)
{
    ProtobufCMessage *message = NULL;
    struct hp_error e = {0};
    pb_report m;
    if (hp_unpack(&harpoon__internal__v1__agent_hello__descriptor, s->hello, s->hello_len, NULL, &message, &e))
        return NULL; /* no memory: it was read before */
    Harpoon__Internal__V1__AgentHello *h = (Harpoon__Internal__V1__AgentHello *)message;
    Harpoon__Internal__V1__InventoryDigest digest = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT, *old = h->digest;
    digest.count = (int32_t)s->digest_count;
    digest.digest = s->digest;
    h->digest = &digest;
    er_report_init(c, &m, s->host, s->number);
    m.body_case = ER_V1(REPORT__BODY_ATTACH);
    m.attach = h;
    struct er_report *r = report_new(c, &m, ER_REPORT_ATTACH);
    h->digest = old;
    hp_unpacked_free(message);
    return r;
}

static void publish(struct er_core *c, struct er_report *r)
{
    struct er_effect *f = er_emit(c, ER_PUBLISH);
    if (!f)
        return; /* tried again in the next turn */
    f->report = r;
    r->state = ER_INFLIGHT;
    c->publishing++;
    if (r->session)
        r->session->report_inflight++;
}

static bool publish_attach(struct er_core *c, struct er_session *s)
{
    struct er_report *r = build_attach(c, s);
    if (!r)
        return false;
    r->session = s;
    list_insert_before(&s->reports, s->next_out, r);
    s->report_count++;
    s->report_bytes += r->len;
    publish(c, r);
    if (r->state != ER_INFLIGHT) {
        list_remove(&s->reports, r);
        s->report_count--;
        s->report_bytes -= r->len;
        report_free(c, r);
        return false;
    }
    s->owes_attach = false;
    s->attach_inflight = true;
    s->attach_sent = true;
    c->stats.reports++;
    return true;
}

/* A few of one session, then the next one's turn. False: no memory. */
static bool serve_session(struct er_core *c, struct er_session *s)
{
    enum { AT_ONCE_MAX = 16 };
    if (s->owes_attach && !s->attach_inflight && !publish_attach(c, s))
        return false;
    for (int i = 0; i < AT_ONCE_MAX && s->next_out && c->publishing < ER_PUBLISH_MAX; i++) {
        struct er_report *r = s->next_out;
        publish(c, r);
        if (r->state != ER_INFLIGHT)
            return false;
        s->next_out = r->next;
    }
    return true;
}

static void publish_waiting(struct er_core *c)
{
    while (c->own.first && c->publishing < ER_PUBLISH_MAX) {
        struct er_report *r = c->own.first;
        publish(c, r);
        if (r->state != ER_INFLIGHT)
            return;
        list_remove(&c->own, r);
        c->own_count--;
    }
    while (c->ready_first && c->publishing < ER_PUBLISH_MAX) {
        struct er_session *s = c->ready_first;
        ready_remove(c, s);
        bool ok = serve_session(c, s);
        ready_append(c, s);
        if (!ok)
            return;
    }
}

/* ---- Outcomes ---- */

static void tell_later(struct er_core *c, struct er_session *s)
{
    if (s->on_told)
        return;
    s->on_told = true;
    s->told_next = c->told;
    c->told = s;
}

/* Everything of the session that has not been passed on is published again, from the oldest. */
static void restart(struct er_core *c, struct er_session *s)
{
    assert(s->report_inflight == 0);
    s->rewind = false;
    struct er_report *r = s->reports.first, *next;
    for (; r; r = next) {
        next = r->next;
        r->state = ER_QUEUED;
        if (r->kind != ER_REPORT_ATTACH)
            continue;
        s->owes_attach = true;
        list_remove(&s->reports, r);
        s->report_count--;
        s->report_bytes -= r->len;
        report_free(c, r);
    }
    s->next_out = s->reports.first;
    ready_append(c, s);
}

static void session_outcome(struct er_core *c, struct er_report *r, bool confirmed)
{
    struct er_session *s = r->session;
    assert(s->report_inflight > 0);
    s->report_inflight--;
    if (r->kind == ER_REPORT_ATTACH)
        s->attach_inflight = false;
    r->state = ER_DONE;
    if (!confirmed)
        s->rewind = true;
    if (s->rewind) {
        if (s->report_inflight == 0)
            restart(c, s);
        return;
    }
    if (s->reports.first->state == ER_DONE)
        tell_later(c, s);
    ready_append(c, s);
}

void er_core_published(struct er_core *c, uint64_t now_ms, struct er_report *r, enum er_outcome outcome)
{
    bool confirmed = outcome == ER_CONFIRMED;
    assert(r->state == ER_INFLIGHT);
    assert(c->publishing > 0);
    c->publishing--;
    if (confirmed) {
        c->stats.reports_confirmed++;
        c->retry_ms = ER_RETRY_MS;
        c->retry_at_ms = 0;
    } else {
        c->stats.reports_failed++;
        if (c->retry_at_ms <= now_ms) {
            c->retry_at_ms = now_ms + c->retry_ms;
            c->retry_ms = c->retry_ms * 2 < ER_RETRY_MAX_MS ? c->retry_ms * 2 : ER_RETRY_MAX_MS;
        }
    }
    if (r->session)
        session_outcome(c, r, confirmed);
    else if (confirmed || r->kind != ER_REPORT_OWN)
        report_free(c, r);
    else
        own_append(c, r);
}

/* ---- Passing confirms on ---- */

static void send_confirmed(struct er_core *c, uint64_t now_ms, struct er_session *s, int64_t *ids, size_t count)
{
    if (count == 0 || s->state != ER_ATTACHED)
        return;
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__ReportsConfirmed confirmed = HARPOON__INTERNAL__V1__REPORTS_CONFIRMED__INIT;
    confirmed.report_ids = ids;
    confirmed.n_report_ids = count;
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_CONFIRMED);
    m.confirmed = &confirmed;
    er_send(c, now_ms, s, &m);
}

static void pass_on(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    enum { IDS_MAX = 1000 };
    int64_t ids[IDS_MAX];
    size_t count = 0;
    /* A rewind that began meanwhile publishes all again, and confirms then. */
    while (!s->rewind && s->reports.first && s->reports.first->state == ER_DONE) {
        struct er_report *r = s->reports.first;
        if (r->kind == ER_REPORT_ATTACH && s->attach_counted) {
            s->attach_counted = false;
            c->attaching--;
        }
        if (r->report_id)
            ids[count++] = r->report_id;
        list_remove(&s->reports, r);
        s->report_count--;
        s->report_bytes -= r->len;
        report_free(c, r);
        if (count == IDS_MAX) {
            send_confirmed(c, now_ms, s, ids, count);
            count = 0;
        }
    }
    send_confirmed(c, now_ms, s, ids, count);
    er_reports_unpause(c, s);
}

void er_reports_turn(struct er_core *c, uint64_t now_ms)
{
    while (c->told) {
        struct er_session *s = c->told;
        c->told = s->told_next;
        s->on_told = false;
        pass_on(c, now_ms, s);
    }
    if (c->broker_ready && c->retry_at_ms <= now_ms)
        publish_waiting(c);
}

/* ---- The end of a session ---- */

static void forget_told(struct er_core *c, struct er_session *s)
{
    for (struct er_session **p = &c->told; s->on_told && *p; p = &(*p)->told_next) {
        if (*p == s) {
            *p = s->told_next;
            s->on_told = false;
            return;
        }
    }
}

void er_reports_abandon(struct er_core *c, struct er_session *s)
{
    ready_remove(c, s);
    forget_told(c, s);
    while (s->reports.first) {
        struct er_report *r = s->reports.first;
        list_remove(&s->reports, r);
        bool keep = c->broker_ready && s->attach_sent && !s->owes_attach && !s->rewind;
        if (r->state == ER_INFLIGHT)
            r->session = NULL; /* freed with its outcome */
        else if (r->state == ER_QUEUED && keep && r->kind == ER_REPORT_AGENT)
            own_append(c, r);
        else
            report_free(c, r);
    }
    s->next_out = NULL;
    s->report_count = s->report_inflight = 0;
    s->report_bytes = 0;
    if (s->attach_counted)
        c->attaching--;
    if (s->paused)
        c->paused_count--;
    s->attach_counted = s->paused = false;
}
