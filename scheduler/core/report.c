/* report.c — what hosts say of their work: journalled, results, observations. Everything here may come twice, late, or of what is no more. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/agent_limits.h"
#include "wire/names.h"

static const char *state_word(int state)
{
    switch (state) {
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_PENDING:
        return "pending";
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING:
        return "creating";
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING:
        return "running";
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED:
        return "stopped";
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_BACKOFF:
        return "exited";
    case HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED:
        return "failed";
    default:
        return "updated";
    }
}

static bool kind_valid(const char *kind)
{
    size_t n = strlen(kind);
    for (size_t i = 0; i < n; i++)
        if (!(kind[i] == '_' || islower((unsigned char)kind[i])))
            return false;
    return n > 0 && n <= 32;
}

static bool resources_equal(const Harpoon__V1__Resources *a, const Harpoon__V1__Resources *b)
{
    if (!a || !b)
        return a == b;
    return a->cpu_millis == b->cpu_millis && a->memory_bytes == b->memory_bytes && a->disk_bytes == b->disk_bytes &&
           a->pids_max == b->pids_max && a->io_read_bps == b->io_read_bps && a->io_write_bps == b->io_write_bps &&
           a->io_read_iops == b->io_read_iops && a->io_write_iops == b->io_write_iops &&
           a->network_bps == b->network_bps;
}

/* Whether an owner would call it a change. */
static bool status_differs(const Harpoon__V1__ContainerStatus *a, const Harpoon__V1__ContainerStatus *b)
{
    if (a->state != b->state || a->pid != b->pid || a->pid_start_ticks != b->pid_start_ticks ||
        a->exit_code != b->exit_code || a->oom_killed != b->oom_killed || a->restart_count != b->restart_count ||
        a->health != b->health || strcmp(a->message, b->message) || strcmp(a->image_digest, b->image_digest) ||
        a->n_addresses != b->n_addresses || !resources_equal(a->resources, b->resources))
        return true;
    for (size_t i = 0; i < a->n_addresses; i++)
        if (strcmp(a->addresses[i], b->addresses[i]) != 0)
            return true;
    return false;
}

static bool is_bad(const Harpoon__V1__ContainerStatus *s)
{
    return s->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED ||
           s->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_BACKOFF ||
           s->health == HARPOON__V1__HEALTH_STATE__HEALTH_STATE_UNHEALTHY;
}

void sc_status_take(struct sc_region *r, struct sc_container *c, const Harpoon__V1__ContainerStatus *status,
                    int64_t generation, const char *kind, const struct sc_operation *op)
{
    assert(c->host);
    Harpoon__V1__ContainerStatus *old = sc_body(c)->status;
    if (generation < old->observed_generation || generation < 0 || generation > HP_GENERATION_MAX)
        return;
    if (c->reported_generation != generation || c->reported_state != (int)status->state)
        sc_container_dirty(r, c);
    c->reported_generation = generation;
    c->reported_state = status->state;
    if (c->cleanup)
        return; /* what is said of it no longer matters to its owner */
    Harpoon__V1__ContainerStatus *fresh = sc_pb_clone(r, &status->base);
    if (!fresh)
        return;
    sc_pb_set(r, &fresh->host, old->host);
    fresh->observed_generation = generation;
    if (c->deleting || c->leaving || fresh->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_UNSPECIFIED)
        fresh->state = old->state;
    bool changed = status_differs(old, fresh);
    sc_body(c)->status = fresh;
    harpoon__v1__container_status__free_unpacked(old, NULL);
    sc_host_image_seen(r, c);
    if (!changed)
        return;
    sc_container_event(r, c, kind && kind_valid(kind) ? kind : state_word(fresh->state),
                       is_bad(fresh) ? HARPOON__V1__SEVERITY__SEVERITY_WARNING : HARPOON__V1__SEVERITY__SEVERITY_INFO,
                       op, *fresh->message ? fresh->message : NULL);
}

static struct sc_container *container_on(struct sc_region *r, const char *uid, const struct sc_host *h)
{
    struct sc_container *c = sc_container_of(r, uid);
    return c && c->host == h ? c : NULL;
}

/* Of what the record does not know, or not so late: a restored one, and a command of the one that was lost. */
static void ask_if_unknown(struct sc_region *r, struct sc_host *h, int64_t session, const char *uid, int64_t generation,
                           const Harpoon__V1__ContainerStatus *status)
{
    const struct sc_container *c = sc_container_of(r, uid);
    bool there = status && status->state && status->state != HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED;
    bool unknown = c && c->host ? c->host == h && generation > c->generation : there && !sc_stray_find(h, uid);
    if (unknown && session == h->pb->session && sc_host_attached(h))
        sc_dispatch_inventory(r, h);
}

/* The operation that a command of this generation is for. */
static struct sc_operation *operation_of(const struct sc_container *c, int64_t generation)
{
    if (c->delete_op && c->delete_op->generation == generation)
        return c->delete_op;
    struct sc_operation *head = sc_container_head(c);
    return head && head->generation == generation ? head : NULL;
}

static void take_journalled(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__CommandJournalled *m)
{
    struct sc_container *c = container_on(r, m->uid, h);
    if (!c)
        return;
    if (c->flight != SC_WANT_NOTHING && sc_open(c)->flight_generation == m->generation && !c->flight_journalled) {
        c->flight_journalled = true;
        sc_timer_set(r, &sc_open(c)->flight_timer, r->config.running_ms);
    }
    struct sc_operation *op = operation_of(c, m->generation);
    if (op && op->stage == HARPOON__V1__STAGE__STAGE_DISPATCHED)
        sc_operation_move(r, op, HARPOON__V1__STAGE__STAGE_RUNNING);
}

/* A result without a status still says that what was asked for is so. */
static void assume_status(struct sc_region *r, struct sc_container *c, int64_t generation, int desired,
                          const struct sc_operation *op)
{
    Harpoon__V1__ContainerStatus s = *sc_body(c)->status;
    s.state = desired == HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED
                  ? HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED
                  : HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    sc_status_take(r, c, &s, generation, NULL, op);
}

/* What the host was asked for by the command that this is the result of. */
static void take_desired(struct sc_region *r, struct sc_container *c)
{
    struct sc_target t;
    int desired = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    if (sc_change_target(r, c, &t)) {
        if (t.doc->spec->desired_state == HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED)
            desired = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
        if (t.owned)
            harpoon__v1__container__free_unpacked(t.owned, NULL);
    }
    if (c->reported_desired != desired)
        sc_container_dirty(r, c);
    c->reported_desired = desired;
}

/* False for a report that a later one, or an inventory of a later session, has overtaken: it came again, or late. Hosts number their reports; their clocks may jump. */
static bool is_latest(const struct sc_host *h, struct sc_container *c, int64_t session, int64_t report_id)
{
    if (h->inventoried && session < h->pb->session)
        return false; /* its number may be of a journal that was lost since */
    if (report_id > 0 && report_id < c->reported_id)
        return false;
    if (report_id > 0)
        c->reported_id = report_id;
    return true;
}

static void take_result(struct sc_region *r, struct sc_host *h, int64_t session,
                        const Harpoon__Internal__V1__CommandResult *m)
{
    struct sc_container *c = container_on(r, m->uid, h);
    ask_if_unknown(r, h, session, m->uid, m->generation, m->status);
    if (!c)
        return;
    bool removal = sc_container_removing(c) && m->generation >= sc_container_removal(c);
    const struct sc_operation *op = operation_of(c, m->generation);
    switch (m->outcome) {
    case HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE:
        if (!removal && is_latest(h, c, session, m->report_id)) {
            take_desired(r, c);
            if (m->status && m->status->state)
                sc_status_take(r, c, m->status, m->generation, NULL, op);
            else
                assume_status(r, c, m->generation, c->reported_desired, op);
        }
        sc_settle_done(r, c, m->generation);
        break;
    case HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED:
    case HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED: {
        bool refused = m->outcome == HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED;
        /* Late, for a command of an earlier reign: the host may be at work on the same generation, as this reign has asked it to. */
        if (refused && m->epoch > 0 && m->epoch < r->epoch)
            break;
        bool latest = !removal && is_latest(h, c, session, m->report_id);
        if (latest && !refused)
            take_desired(r, c);
        if (latest && m->status && m->status->state)
            sc_status_take(r, c, m->status, m->generation, NULL, op);
        bool passing = refused && sc_pressure_refused(r, h, m);
        sc_settle_failed(r, c, m->generation,
                         passing   ? SC_REFUSED_PASSING
                         : refused ? SC_REFUSED
                                   : SC_FAILED,
                         m->error);
        break;
    }
    case HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE:
        sc_settle_stale(r, c, m->generation, m->status ? m->status->observed_generation : 0,
                        m->status && m->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED);
        break;
    default:
        break;
    }
}

static void take_observation(struct sc_region *r, struct sc_host *h, int64_t session,
                             const Harpoon__Internal__V1__Observation *m)
{
    struct sc_container *c = container_on(r, m->uid, h);
    if (!strcmp(m->kind, "quarantined") && !sc_container_of(r, m->uid)) {
        char text[512];
        snprintf(text, sizeof text, "found container \"%.255s\" (uid %.63s): it is left alone until somebody decides",
                 m->container, m->uid);
        sc_host_event(r, h, "quarantine", HARPOON__V1__SEVERITY__SEVERITY_WARNING, NULL, text);
        if (sc_host_attached(h))
            sc_dispatch_inventory(r, h); /* tells what is known of it */
        return;
    }
    ask_if_unknown(r, h, session, m->uid, m->generation, m->status);
    if (c && m->status && is_latest(h, c, session, m->report_id))
        sc_status_take(r, c, m->status, m->generation, m->kind, NULL);
}

/* The router could not hand a command over. */
static void take_undelivered(struct sc_region *r, struct sc_host *h, const Harpoon__Internal__V1__Report *m)
{
    struct sc_container *c = container_on(r, m->undelivered->uid, h);
    if (!strcmp(m->undelivered->reason, "no_session") && h->pb->session == m->session && sc_host_attached(h) &&
        !strcmp(h->pb->router, m->router)) {
        sc_host_detach(r, h, "no_session");
        return;
    }
    if (!c || c->flight == SC_WANT_NOTHING || sc_open(c)->flight_generation != m->undelivered->generation ||
        c->flight_journalled)
        return;
    if (!strcmp(m->undelivered->reason, "buffer_full")) {
        c->flight = SC_WANT_NOTHING;
        sc_timer_set(r, &sc_open(c)->flight_timer, r->config.republish_ms);
    } else if (sc_host_attached(h) && h->pb->session != m->session) {
        sc_dispatch(r, c); /* was meant for an earlier session */
    }
}

int sc_report_take(struct sc_region *r, const Harpoon__Internal__V1__Report *m, struct hp_error *e)
{
    if (strcmp(m->region, r->name) != 0)
        return hp_fail(e, HP_EINVAL, "region: \"%.64s\" is not this one", m->region);
    if (!hp_segment_valid(m->host) || !*m->router || strlen(m->router) > 128)
        return hp_fail(e, HP_EINVAL, "host or router: not a name");
    if (m->body_case == HARPOON__INTERNAL__V1__REPORT__BODY__NOT_SET)
        return hp_fail(e, HP_EINVAL, "body: is missing");
    if (m->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH) {
        if (m->session < 0)
            return hp_fail(e, HP_EINVAL, "session: below 0");
        sc_host_attach(r, m);
        return 0;
    }
    if (m->body_case == HARPOON__INTERNAL__V1__REPORT__BODY_RESULT &&
        (m->result->generation > HP_GENERATION_MAX ||
         (m->result->status && m->result->status->observed_generation > HP_GENERATION_MAX)))
        return hp_fail(e, HP_EINVAL, "result.generation: over %d", HP_GENERATION_MAX);
    struct sc_host *h = hp_map_get(&r->hosts, m->host);
    if (!h)
        return 0; /* not attached since the record began: nothing can be known of it */
    if (m->session == h->pb->session && m->body_case != HARPOON__INTERNAL__V1__REPORT__BODY_DETACH)
        sc_host_heard(r, h);
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__REPORT__BODY_DETACH:
        if (m->session == h->pb->session && !strcmp(h->pb->router, m->router))
            sc_host_detach(r, h, m->detach->reason);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_JOURNALLED:
        take_journalled(r, h, m->journalled);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_RESULT:
        take_result(r, h, m->session, m->result);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_OBSERVATION:
        take_observation(r, h, m->session, m->observation);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_INVENTORY:
        if (m->session == h->pb->session)
            sc_inventory_take(r, h, m->inventory);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_UNDELIVERED:
        take_undelivered(r, h, m);
        break;
    case HARPOON__INTERNAL__V1__REPORT__BODY_DIGEST:
        if (m->session == h->pb->session)
            sc_inventory_check(r, h, m->digest);
        break;
    default:
        break;
    }
    return 0;
}
