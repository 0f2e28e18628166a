/*
 * Sessions: greeting, attachment, heartbeats, the end.
 *
 * Who a host is, its certificate says (SAN URI harpoon://regions/R/hosts/H); the hello must agree. A host may reconnect before we notice that its old connection is dead: the higher session
 * number wins, and the older session ends as ER_DETACH_REPLACED.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"
#include "wire/agent_limits.h"
#include "wire/names.h"
#include "wire/storage.h"

typedef Harpoon__Internal__V1__AgentHello pb_hello;
typedef Harpoon__Internal__V1__RouterMessage pb_router_message;

enum {
    LOST_AFTER_HEARTBEATS = 3,
    REFUSED_LINGER_MS = 1000,
    RETRY_SPREAD_MS = 1500,
    RETRY_LEAST_MS = 500,
    RETRY_BROKEN_MS = 10000, /* an agent that says what it must not will say it again */
};

/* Of google.rpc.Code. */
enum { INVALID_ARGUMENT = 3, ALREADY_EXISTS = 6, PERMISSION_DENIED = 7, FAILED_PRECONDITION = 9, UNAVAILABLE = 14 };

static void move(struct er_session *s, enum er_session_state to)
{
    assert(s->state != to);
    assert(to == ER_CLOSING || s->state == ER_GREETING);
    s->state = (uint8_t)to;
}

/* ---- The end ---- */

const char *er_detach_name(enum er_detach reason)
{
    static const char *const names[ER_DETACH_REASONS] = {
        "goodbye", "connection_lost", "heartbeat_missed", "replaced", "router_draining", "protocol_error", "too_slow"};
    assert((unsigned)reason < ER_DETACH_REASONS);
    return names[reason];
}

static void report_detach(struct er_core *c, const struct er_session *s, enum er_detach reason)
{
    Harpoon__Internal__V1__Report r;
    Harpoon__Internal__V1__Detach d = HARPOON__INTERNAL__V1__DETACH__INIT;
    er_report_init(c, &r, s->host, s->number);
    d.reason = (char *)(uintptr_t)er_detach_name(reason);
    r.body_case = ER_V1(REPORT__BODY_DETACH);
    r.detach = &d;
    er_report_own(c, &r);
}

/* Everything but the connection. */
static void leave(struct er_core *c, struct er_session *s, enum er_detach reason)
{
    bool attached = s->state == ER_ATTACHED;
    move(s, ER_CLOSING);
    er_wheel_remove(c, s);
    er_drain_forget(c, s);
    if (!attached)
        return;
    void *removed = hp_map_remove(&c->hosts, s->host);
    assert(removed == s);
    er_reports_abandon(c, s);
    er_window_drop(c, s);
    if (s->attach_sent)
        report_detach(c, s, reason);
    c->stats.detached[reason]++;
    er_note(c, s, "host detached", er_detach_name(reason));
}

void er_session_end(struct er_core *c, uint64_t now_ms, struct er_session *s, enum er_detach reason, uint32_t linger_ms)
{
    if (s->state == ER_CLOSING)
        return;
    leave(c, s, reason);
    struct er_effect *f = er_emit(c, ER_CLOSE);
    if (f) {
        f->link = s->link;
        f->linger_ms = linger_ms;
    }
    er_drain_check(c, now_ms);
}

/* ---- Greeting ---- */

static void refuse(struct er_core *c, uint64_t now_ms, struct er_session *s, int code, uint32_t retry_ms,
                   const char *why)
{
    pb_router_message m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__Refused refused = HARPOON__INTERNAL__V1__REFUSED__INIT;
    Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
    status.code = code;
    status.message = (char *)(uintptr_t)why;
    refused.status = &status;
    refused.retry_ms = (int32_t)retry_ms;
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_REFUSED);
    m.refused = &refused;
    er_send(c, now_ms, s, &m);
    c->stats.refused++;
    if (code != UNAVAILABLE)
        er_note(c, s, "host refused",
                code == PERMISSION_DENIED ? "identity"
                : code == ALREADY_EXISTS  ? "older session"
                : s->state == ER_ATTACHED ? "message beyond the limits"
                                          : "bad hello");
    er_session_end(c, now_ms, s, ER_DETACH_PROTOCOL_ERROR, REFUSED_LINGER_MS);
}

void er_session_refuse_message(struct er_core *c, uint64_t now_ms, struct er_session *s, const char *why)
{
    assert(s->state == ER_ATTACHED);
    c->stats.protocol_errors++;
    refuse(c, now_ms, s, INVALID_ARGUMENT, RETRY_BROKEN_MS, why);
}

static uint32_t retry_later(struct er_core *c)
{
    return RETRY_LEAST_MS + (uint32_t)hp_rng_below(&c->rng, RETRY_SPREAD_MS);
}

enum { LABELS_MAX = 64, TAINTS_MAX = 32, TEXT_MAX = 63, NETWORK_MODES_MAX = 16, NETWORK_FUNCTIONS_MAX = 4096 };

static bool too_long(const char *field, const char *text, char *why, size_t size)
{
    size_t n = strlen(text);
    if (n <= TEXT_MAX)
        return false;
    snprintf(why, size, "hello: %s of %zu bytes (at most %d)", field, n, TEXT_MAX);
    return true;
}

static bool check_network(const Harpoon__V1__HostFacts *f, char *why, size_t size)
{
    if (f && f->n_network_modes > NETWORK_MODES_MAX) {
        snprintf(why, size, "hello: %zu network modes (at most %d)", f->n_network_modes, NETWORK_MODES_MAX);
        return false;
    }
    if (f && (f->network_functions < 0 || f->network_functions > NETWORK_FUNCTIONS_MAX)) {
        snprintf(why, size, "hello: %d network functions (0 to %d)", f->network_functions, NETWORK_FUNCTIONS_MAX);
        return false;
    }
    return true;
}

/* What the host says of itself is within its limits. False: `why` says what is not. */
static bool check_description(const pb_hello *h, char *why, size_t size)
{
    const Harpoon__V1__Resources *r = h->allocatable;
    if (too_long("zone", h->zone, why, size) || too_long("rack", h->rack, why, size))
        return false;
    if (h->n_labels > LABELS_MAX) {
        snprintf(why, size, "hello: %zu labels (at most %d)", h->n_labels, LABELS_MAX);
        return false;
    }
    if (h->n_taints > TAINTS_MAX) {
        snprintf(why, size, "hello: %zu taints (at most %d)", h->n_taints, TAINTS_MAX);
        return false;
    }
    for (size_t i = 0; i < h->n_taints; i++)
        if (too_long("a taint's key", h->taints[i]->key, why, size) ||
            too_long("a taint's value", h->taints[i]->value, why, size))
            return false;
    for (size_t i = 0; i < h->n_labels; i++)
        if (too_long("a label's key", h->labels[i]->key, why, size) ||
            too_long("a label's value", h->labels[i]->value, why, size))
            return false;
    if (h->facts && h->facts->n_images > HP_AGENT_IMAGES_MAX) {
        snprintf(why, size, "hello: %zu images (at most %d)", h->facts->n_images, HP_AGENT_IMAGES_MAX);
        return false;
    }
    if (r && (r->cpu_millis < 0 || r->memory_bytes < 0 || r->disk_bytes < 0 || r->network_bps < 0)) {
        snprintf(why, size, "hello: allocatable is negative: cpu %lld, memory %lld, disk %lld, network %lld",
                 (long long)r->cpu_millis, (long long)r->memory_bytes, (long long)r->disk_bytes,
                 (long long)r->network_bps);
        return false;
    }
    struct hp_error e = {0};
    if (hp_host_storage_check(h->facts, &e)) {
        snprintf(why, size, "hello: %.200s", e.message);
        return false;
    }
    return check_network(h->facts, why, size);
}

/* The hello against the certificate and this router. False: refused. */
static bool check_hello(struct er_core *c, uint64_t now_ms, struct er_session *s, const pb_hello *h)
{
    char why[256], uri[HP_NAME_MAX + 32];
    if (h->version_min > ER_PROTOCOL_VERSION || h->version_max < ER_PROTOCOL_VERSION) {
        snprintf(why, sizeof why, "this router speaks version %d, the agent %d to %d", ER_PROTOCOL_VERSION,
                 h->version_min, h->version_max);
        refuse(c, now_ms, s, FAILED_PRECONDITION, 0, why);
        return false;
    }
    if (!hp_segment_valid(h->region) || !hp_segment_valid(h->host) || h->session <= 0) {
        refuse(c, now_ms, s, INVALID_ARGUMENT, 0, "hello: region, host or session is not valid");
        return false;
    }
    if (!check_description(h, why, sizeof why)) {
        refuse(c, now_ms, s, INVALID_ARGUMENT, 0, why);
        return false;
    }
    snprintf(uri, sizeof uri, "harpoon://regions/%s/hosts/%s", h->region, h->host);
    if (c->o.check_identity && (!s->peer_uri || strcmp(s->peer_uri, uri) != 0)) {
        snprintf(why, sizeof why, "hello: says %.100s, the certificate says %.100s", uri,
                 s->peer_uri ? s->peer_uri : "nothing");
        refuse(c, now_ms, s, PERMISSION_DENIED, 0, why);
        return false;
    }
    if (strcmp(h->region, c->region) != 0) {
        snprintf(why, sizeof why, "hello: region %s, but this router serves %s", h->region, c->region);
        refuse(c, now_ms, s, FAILED_PRECONDITION, 0, why);
        return false;
    }
    return true;
}

/* Room for one more, and newer than what is there. False: refused. */
static bool admit(struct er_core *c, uint64_t now_ms, struct er_session *s, const pb_hello *h)
{
    char why[128];
    if (c->draining) {
        refuse(c, now_ms, s, UNAVAILABLE, retry_later(c), "this router is going away");
        return false;
    }
    struct er_session *old = hp_map_get(&c->hosts, h->host);
    if (old && old->number >= h->session) {
        snprintf(why, sizeof why, "hello: session %lld, but %lld is attached", (long long)h->session,
                 (long long)old->number);
        refuse(c, now_ms, s, ALREADY_EXISTS, 0, why);
        return false;
    }
    if (c->attaching >= c->o.attaches_max) {
        refuse(c, now_ms, s, UNAVAILABLE, retry_later(c), "too many agents attach at once");
        return false;
    }
    if (old)
        er_session_end(c, now_ms, old, ER_DETACH_REPLACED, 0);
    return true;
}

static int keep_hello(struct er_core *c, struct er_session *s, const pb_hello *h)
{
    size_t len = protobuf_c_message_get_packed_size(&h->base);
    uint8_t *packed = malloc(len);
    char *host = strdup(h->host);
    if (!packed || !host || hp_map_put(&c->hosts, h->host, s, NULL)) {
        free(packed);
        free(host);
        return HP_ENOMEM;
    }
    protobuf_c_message_pack(&h->base, packed);
    s->hello = packed;
    s->hello_len = (uint32_t)len;
    s->host = host;
    s->number = h->session;
    s->digest = h->digest ? h->digest->digest : 0;
    s->digest_count = h->digest ? (uint32_t)h->digest->count : 0;
    free(s->peer_uri);
    s->peer_uri = NULL;
    return 0;
}

static void welcome(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    pb_router_message m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__Welcome w = HARPOON__INTERNAL__V1__WELCOME__INIT;
    w.version = ER_PROTOCOL_VERSION;
    w.router = c->router;
    w.heartbeat_ms = (int32_t)c->o.heartbeat_ms;
    w.metrics_ms = (int32_t)c->o.metrics_ms;
    w.window = (int32_t)c->o.window;
    m.body_case = ER_V1(ROUTER_MESSAGE__BODY_WELCOME);
    m.welcome = &w;
    er_send(c, now_ms, s, &m);
}

void er_session_hello(struct er_core *c, uint64_t now_ms, struct er_session *s, const pb_hello *h, size_t len)
{
    assert(s->state == ER_GREETING);
    if (len > ER_HELLO_MAX_BYTES) {
        refuse(c, now_ms, s, INVALID_ARGUMENT, 0, "hello: larger than 64 KiB");
        return;
    }
    if (!check_hello(c, now_ms, s, h) || !admit(c, now_ms, s, h))
        return;
    if (keep_hello(c, s, h)) {
        refuse(c, now_ms, s, UNAVAILABLE, retry_later(c), "out of memory");
        return;
    }
    move(s, ER_ATTACHED);
    s->attach_counted = true;
    c->attaching++;
    c->stats.attached++;
    welcome(c, now_ms, s);
    er_reports_announce(c, s);
    er_metrics_sample(c, now_ms, s, NULL);
    er_wheel_put(c, s, now_ms + c->o.heartbeat_ms);
    er_note(c, s, "host attached", NULL);
}

/* ---- Heartbeats ---- */

static void look_attached(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    uint64_t lost_after_ms = (uint64_t)c->o.heartbeat_ms * LOST_AFTER_HEARTBEATS;
    er_window_expire(c, now_ms, s);
    er_reports_unpause(c, s);
    if (s->paused) /* it cannot be heard: our own doing */
        s->heard_ms = now_ms;
    if (now_ms - s->heard_ms >= lost_after_ms) {
        er_session_end(c, now_ms, s, ER_DETACH_HEARTBEAT_MISSED, 0);
        return;
    }
    if (now_ms - s->sent_ms >= c->o.heartbeat_ms) {
        pb_router_message m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
        Harpoon__Internal__V1__Heartbeat beat = HARPOON__INTERNAL__V1__HEARTBEAT__INIT;
        m.body_case = ER_V1(ROUTER_MESSAGE__BODY_HEARTBEAT);
        m.heartbeat = &beat;
        er_send(c, now_ms, s, &m);
    }
    uint64_t beat_ms = s->sent_ms + c->o.heartbeat_ms, lost_ms = s->heard_ms + lost_after_ms;
    er_wheel_put(c, s, beat_ms < lost_ms ? beat_ms : lost_ms);
}

void er_session_look(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    assert(s->state != ER_CLOSING);
    if (s->state == ER_ATTACHED)
        look_attached(c, now_ms, s);
    else if (now_ms - s->heard_ms >= ER_HELLO_MS)
        er_session_end(c, now_ms, s, ER_DETACH_PROTOCOL_ERROR, 0);
    else
        er_wheel_put(c, s, s->heard_ms + ER_HELLO_MS);
}

/* ---- Connections ---- */

struct er_session *er_core_connected(struct er_core *c, uint64_t now_ms, void *link, const char *peer_uri)
{
    if (c->draining || c->session_count >= c->o.sessions_max)
        return NULL;
    struct er_session *s = calloc(1, sizeof *s);
    if (!s || (peer_uri && !(s->peer_uri = strdup(peer_uri)))) {
        free(s);
        return NULL;
    }
    s->link = link;
    s->state = ER_GREETING;
    s->heard_ms = s->sent_ms = now_ms;
    s->all_next = c->all;
    if (c->all)
        c->all->all_prev = s;
    c->all = s;
    c->session_count++;
    if (c->on_wheel == 0)
        c->wheel_ms = now_ms - now_ms % ER_WHEEL_STEP_MS;
    er_wheel_put(c, s, now_ms + ER_HELLO_MS);
    return s;
}

void er_core_disconnected(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    if (s->state != ER_CLOSING)
        leave(c, s, c->draining ? ER_DETACH_ROUTER_DRAINING : ER_DETACH_CONNECTION_LOST);
    if (s->all_prev)
        s->all_prev->all_next = s->all_next;
    else
        c->all = s->all_next;
    if (s->all_next)
        s->all_next->all_prev = s->all_prev;
    c->session_count--;
    free(s->peer_uri);
    free(s->host);
    free(s->hello);
    free(s);
    er_drain_check(c, now_ms);
}

void er_core_too_slow(struct er_core *c, uint64_t now_ms, struct er_session *s)
{
    er_session_end(c, now_ms, s, ER_DETACH_TOO_SLOW, 0);
}

void er_core_frame_error(struct er_core *c, uint64_t now_ms, struct er_session *s, const struct hp_error *e)
{
    (void)e;
    c->stats.protocol_errors++;
    er_session_end(c, now_ms, s, ER_DETACH_PROTOCOL_ERROR, 0);
}
