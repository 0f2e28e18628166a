/* request.c — requests: checked, kept in order, told apart from repeats, decided, answered.
 *
 * A repeat is found by its operation id: in memory, or, when the ids in memory are not all that there are, by a lookup in the record. Lookups gather like
 * batches do. Requests are decided strictly in order of arrival, so one that waits for a lookup holds up those behind it. */
#include <stdlib.h>
#include <string.h>

#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "wire/codec.h"
#include "wire/names.h"

enum { RESERVE_DEFAULT_S = 300 };

#define Q(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define V(x) HARPOON__V1__VERB__VERB_##x

void sc_intake_free(struct sc_intake *i)
{
    sc_list_remove(&i->link);
    if (i->message)
        hp_unpacked_free(&i->message->base);
    if (i->found)
        harpoon__internal__v1__operation_record__free_unpacked(i->found, NULL);
    if (i->found_target)
        harpoon__internal__v1__operation_record__free_unpacked(i->found_target, NULL);
    free(i->reply_to);
    free(i->correlation);
    free(i);
}

/* ---- What it is about; the gateway has checked it, so a failure is poison ---- */

static int container_target(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct sc_intake *i,
                            int verb, const char *name, int deadline_s, struct hp_error *e)
{
    struct hp_container_name n;
    int code = hp_container_name_parse("name", name, &n, e);
    if (code)
        return code;
    if (strcmp(n.project, q->project) != 0 || strcmp(n.region, r->name) != 0)
        return hp_fail(e, HP_EINVAL, "name: \"%s\" is not of project \"%s\" and region \"%s\"", name, q->project,
                       r->name);
    i->verb = verb;
    i->deadline_s = deadline_s;
    snprintf(i->target, sizeof i->target, "%s", name);
    return 0;
}

static int create_target(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct sc_intake *i,
                         const Harpoon__V1__CreateContainerRequest *c, struct hp_error *e)
{
    char name[HP_NAME_MAX + 1];
    struct hp_parent_name n;
    if (!c)
        return hp_fail(e, HP_EINVAL, "create: is missing");
    int code = hp_parent_name_parse("parent", c->parent, false, &n, e);
    if (code)
        return code;
    if (!hp_segment_valid(c->container_id))
        return hp_fail(e, HP_EINVAL, "container_id: \"%.64s\" is not a name", c->container_id);
    hp_container_name_format(name, n.project, n.region, c->container_id);
    return container_target(r, q, i, V(CREATE), name, c->deadline_seconds, e);
}

static int host_target(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct sc_intake *i,
                       int verb, const char *name, struct hp_error *e)
{
    struct hp_host_name n;
    int code = hp_host_name_parse("name", name, &n, e);
    if (code)
        return code;
    if (*q->project || strcmp(n.region, r->name) != 0)
        return hp_fail(e, HP_EINVAL, "name: \"%s\" is not a host of region \"%s\"", name, r->name);
    i->verb = verb;
    snprintf(i->target, sizeof i->target, "%s", name);
    return 0;
}

static int cancel_target(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct sc_intake *i,
                         struct hp_error *e)
{
    struct hp_operation_name n;
    int code = hp_operation_name_parse("name", q->cancel->name, &n, e);
    if (code)
        return code;
    if (strcmp(n.region, r->name) != 0 || strcmp(n.project, *q->project ? q->project : "-") != 0)
        return hp_fail(e, HP_EINVAL, "name: \"%s\" is not of project \"%s\" and region \"%s\"", q->cancel->name,
                       q->project, r->name);
    i->verb = V(CANCEL);
    snprintf(i->target, sizeof i->target, "%s", q->cancel->name);
    snprintf(i->target_id, sizeof i->target_id, "%.32s", n.operation);
    return 0;
}

static int find_target(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct sc_intake *i,
                       struct hp_error *e)
{
    switch (q->payload_case) {
    case Q(CREATE):
        return create_target(r, q, i, q->create, e);
    case Q(EXPLAIN):
        return create_target(r, q, i, q->explain->create, e);
    case Q(RESIZE):
        return container_target(r, q, i, V(RESIZE), q->resize->name, q->resize->deadline_seconds, e);
    case Q(UPDATE):
        if (!q->update->container)
            return hp_fail(e, HP_EINVAL, "container: is missing");
        return container_target(r, q, i, V(UPDATE), q->update->container->name, q->update->deadline_seconds, e);
    case Q(START):
        return container_target(r, q, i, V(START), q->start->name, q->start->deadline_seconds, e);
    case Q(STOP):
        return container_target(r, q, i, V(STOP), q->stop->name, q->stop->deadline_seconds, e);
    case Q(RESTART):
        return container_target(r, q, i, V(RESTART), q->restart->name, q->restart->deadline_seconds, e);
    case Q(DELETE):
        return container_target(r, q, i, V(DELETE), q->delete_->name, q->delete_->deadline_seconds, e);
    case Q(MOVE):
        return container_target(r, q, i, V(MOVE), q->move->name, q->move->deadline_seconds, e);
    case Q(RESERVE):
        if (create_target(r, q, i, q->reserve->create, e))
            return HP_EINVAL;
        i->verb = V(RESERVE);
        i->deadline_s = q->reserve->ttl_seconds > 0 ? q->reserve->ttl_seconds : RESERVE_DEFAULT_S;
        return 0;
    case Q(CANCEL):
        return cancel_target(r, q, i, e);
    case Q(CORDON):
        return host_target(r, q, i, V(CORDON), q->cordon->name, e);
    case Q(UNCORDON):
        return host_target(r, q, i, V(UNCORDON), q->uncordon->name, e);
    case Q(DRAIN):
        i->deadline_s = q->drain->deadline_seconds;
        return host_target(r, q, i, V(DRAIN), q->drain->name, e);
    case Q(DECLARE_LOST):
        return host_target(r, q, i, V(DECLARE_LOST), q->declare_lost->name, e);
    case Q(ADOPT):
        return host_target(r, q, i, V(ADOPT), q->adopt->name, e);
    case Q(PROPOSE_MOVES): /* of the whole region */
        i->verb = V(UNSPECIFIED);
        return 0;
    case Q(HOST_LOAD):
        return host_target(r, q, i, V(UNSPECIFIED), q->host_load->name, e);
    default:
        return hp_fail(e, HP_EINVAL, "payload: is missing or not known");
    }
}

static bool id_valid(const char *id)
{
    return strlen(id) == HP_OPERATION_ID_LEN && strspn(id, "0123456789abcdef") == HP_OPERATION_ID_LEN;
}

/* Answered, and never recorded. */
static bool is_question(const Harpoon__Internal__V1__Request *q)
{
    return q->payload_case == Q(EXPLAIN) || q->payload_case == Q(HOST_LOAD) || q->payload_case == Q(PROPOSE_MOVES);
}

static int check_envelope(const struct sc_region *r, const Harpoon__Internal__V1__Request *q, struct hp_error *e)
{
    if (!id_valid(q->operation_id))
        return hp_fail(e, HP_EINVAL, "operation_id: \"%.64s\" is not 32 hex digits", q->operation_id);
    if (strcmp(q->region, r->name) != 0)
        return hp_fail(e, HP_EINVAL, "region: \"%.64s\" is not \"%s\"", q->region, r->name);
    if (*q->project && !hp_segment_valid(q->project))
        return hp_fail(e, HP_EINVAL, "project: \"%.64s\" is not a name", q->project);
    if (q->payload_digest.len != 32 && !is_question(q))
        return hp_fail(e, HP_EINVAL, "payload_digest: %zu bytes, not 32", q->payload_digest.len);
    if (strlen(q->request_id) > HP_REQUEST_ID_MAX || strlen(q->principal) > HP_NAME_MAX)
        return hp_fail(e, HP_EINVAL, "request_id or principal: too long");
    return 0;
}

static bool changes_nothing(const Harpoon__Internal__V1__Request *q)
{
    return q->validate_only || is_question(q);
}

/* ---- Answers ---- */

static void send_verdict(struct sc_region *r, const struct sc_intake *i, Harpoon__Internal__V1__Verdict *v)
{
    Google__Rpc__Status ok = GOOGLE__RPC__STATUS__INIT;
    if (!i->reply_to)
        return;
    struct sc_message *m = sc_alloc(r, sizeof *m);
    if (!m)
        return;
    v->operation_id = i->message->operation_id;
    bool well = !v->status;
    if (well)
        v->status = &ok;
    m->kind = SC_SEND_VERDICT;
    snprintf(m->key, sizeof m->key, "%s", i->reply_to);
    m->correlation = i->correlation ? sc_strdup(r, i->correlation) : NULL;
    m->body = sc_blob_pack(r, &v->base);
    if (well)
        v->status = NULL;
    if (!m->body) {
        sc_message_free(m);
        return;
    }
    sc_messages_append(&r->verdicts, m);
}

static void answer(struct sc_region *r, const struct sc_intake *i, const Google__Rpc__Status *status,
                   const Harpoon__V1__Operation *operation)
{
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    v.status = (Google__Rpc__Status *)status;
    v.operation = (Harpoon__V1__Operation *)operation;
    send_verdict(r, i, &v);
}

static void answer_operation(struct sc_region *r, const struct sc_intake *i, const struct sc_operation *op)
{
    struct sc_operation_scratch s;
    answer(r, i, op->stage == HARPOON__V1__STAGE__STAGE_REJECTED ? op->error : NULL, sc_operation_message(r, op, &s));
}

static void answer_conflict(struct sc_region *r, const struct sc_intake *i, const char *operation, const char *target)
{
    Google__Rpc__Status *s = hp_status_new(
        HP_CODE_ALREADY_EXISTS, "REQUEST_ID_CONFLICT",
        "request_id \"%s\" was used before with another payload: operation \"%s\" on \"%s\", now for \"%s\"",
        i->message->request_id, operation, target, i->target);
    s = hp_status_add_metadata(s, "operation", operation);
    s = hp_status_add_metadata(s, "target", target);
    s = hp_status_add_metadata(s, "requested_target", i->target);
    answer(r, i, s, NULL);
    hp_status_free(s);
}

/* True when the id was used before: answered with what it led to. */
static bool repeated(struct sc_region *r, const struct sc_intake *i)
{
    const Harpoon__Internal__V1__Request *q = i->message;
    const struct sc_operation *op = hp_map_get(&r->operations, q->operation_id);
    if (op) {
        if (memcmp(op->digest, q->payload_digest.data, sizeof op->digest) != 0) {
            answer_conflict(r, i, op->name, op->target);
            return true;
        }
        const struct sc_operation *cancelled = i->verb == V(CANCEL) ? hp_map_get(&r->operations, i->target_id) : NULL;
        answer_operation(r, i, cancelled && op->stage == HARPOON__V1__STAGE__STAGE_SUCCEEDED ? cancelled : op);
        return true;
    }
    if (!i->found || !i->found->operation)
        return false;
    const Harpoon__V1__Operation *old = i->found->operation;
    if (i->found->payload_digest.len != 32 || memcmp(i->found->payload_digest.data, q->payload_digest.data, 32) != 0) {
        answer_conflict(r, i, old->name, old->target);
        return true;
    }
    if (i->verb == V(CANCEL) && old->stage == HARPOON__V1__STAGE__STAGE_SUCCEEDED && i->found_target &&
        i->found_target->operation)
        old = i->found_target->operation;
    answer(r, i, old->stage == HARPOON__V1__STAGE__STAGE_REJECTED ? old->error : NULL, old);
    return true;
}

/* ---- Deciding ---- */

static void explain(struct sc_region *r, const struct sc_intake *i)
{
    const Harpoon__V1__ExplainRequest *x = i->message->explain;
    const Harpoon__V1__ContainerSpec *spec = x->create->container ? x->create->container->spec : NULL;
    Harpoon__V1__ExplainResponse *out = NULL;
    struct sc_query q;
    struct sc_res need = sc_spec_res(spec);
    size_t hosts_max = x->max_hosts <= 0 ? 20 : (size_t)x->max_hosts;
    sc_query_init(r, &q, &need, spec, i->message->project, NULL);
    if (sc_place_explain(r->slots, r->slot_count, &q, r->name, hosts_max < 1000 ? hosts_max : 1000, &out)) {
        sc_fail(r, HP_ENOMEM);
        return;
    }
    if (spec && !out->feasible_count && sc_preempts(spec) && sc_victims_explain(r, &q, spec, &out->preemption))
        sc_fail(r, HP_ENOMEM);
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    v.explain = out;
    send_verdict(r, i, &v);
    harpoon__v1__explain_response__free_unpacked(out, NULL);
}

static void host_load(struct sc_region *r, const struct sc_intake *i)
{
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    const struct sc_host *h = hp_map_get(&r->hosts, strrchr(i->target, '/') + 1);
    struct sc_pressure_scratch s;
    if (h)
        v.host_load = sc_pressure_message(r, h, &s);
    else
        v.status = hp_status_new(HP_CODE_NOT_FOUND, "HOST_NOT_FOUND", "host \"%s\" does not exist", i->target);
    send_verdict(r, i, &v);
    if (!h)
        hp_status_free(v.status);
}

static void propose_moves(struct sc_region *r, const struct sc_intake *i)
{
    Harpoon__Internal__V1__Verdict v = HARPOON__INTERNAL__V1__VERDICT__INIT;
    v.propose_moves = sc_rebalance(r, i->message->propose_moves);
    if (!v.propose_moves)
        return;
    send_verdict(r, i, &v);
    harpoon__v1__propose_moves_response__free_unpacked(v.propose_moves, NULL);
}

static Google__Rpc__Status *decide_one(struct sc_region *r, const struct sc_intake *i, struct sc_operation *op,
                                       bool dry_run)
{
    const Harpoon__Internal__V1__Request *q = i->message;
    switch (i->verb) {
    case V(CREATE):
        return sc_create_decide(r, op, q, dry_run);
    case V(DELETE):
        return sc_delete_decide(r, op, q, dry_run);
    case V(MOVE):
        return sc_move_decide(r, op, q, dry_run);
    case V(RESERVE):
        return sc_reserve_decide(r, op, q, dry_run);
    case V(CANCEL):
        return sc_cancel_decide(r, op, i->found_target, dry_run);
    case V(CORDON):
    case V(UNCORDON):
    case V(DRAIN):
    case V(DECLARE_LOST):
        return sc_host_decide(r, op, q, dry_run);
    case V(ADOPT):
        return sc_adopt_decide(r, op, q, dry_run);
    default:
        return sc_change_decide(r, op, q, dry_run);
    }
}

static void decide(struct sc_region *r, const struct sc_intake *i)
{
    struct sc_operation *op = sc_operation_begin(r, i->message, i->verb, i->target, i->deadline_s);
    if (!op)
        return;
    Google__Rpc__Status *error = decide_one(r, i, op, false);
    if (r->failed) {
        hp_status_free(error);
        return;
    }
    if (error)
        sc_operation_end(r, op, HARPOON__V1__STAGE__STAGE_REJECTED, error);
    else if (op->active)
        sc_timer_set(r, &op->expiry, (uint64_t)(op->deadline_ns - r->time.wall_ns) / 1000000);
    const struct sc_operation *cancelled =
        !error && i->verb == V(CANCEL) ? hp_map_get(&r->operations, i->target_id) : NULL;
    answer_operation(r, i, cancelled ? cancelled : op);
}

static void validate(struct sc_region *r, const struct sc_intake *i)
{
    struct sc_operation_scratch s;
    struct sc_operation *op = sc_operation_new(r, i->message, i->verb, i->target, i->deadline_s);
    if (!op)
        return;
    Google__Rpc__Status *error = decide_one(r, i, op, true);
    answer(r, i, error, sc_operation_message(r, op, &s));
    hp_status_free(error);
    sc_operation_free(op);
}

/* ---- Order, and lookups ---- */

static bool unsure(const struct sc_region *r, const char *id)
{
    if (!*id || hp_map_get(&r->operations, id))
        return false;
    return !r->known.complete || sc_known_has(&r->known, id);
}

static bool needs_lookup(const struct sc_region *r, const struct sc_intake *i)
{
    if (i->answered)
        return false;
    bool id = !changes_nothing(i->message) && unsure(r, i->message->operation_id);
    return id || unsure(r, i->target_id);
}

void sc_request_drain(struct sc_region *r)
{
    while (!sc_list_empty(&r->intake) && !r->failed) {
        struct sc_intake *i = SC_OWNER(r->intake.next, struct sc_intake, link);
        if (needs_lookup(r, i))
            return;
        if (i->message->payload_case == Q(EXPLAIN))
            explain(r, i);
        else if (i->message->payload_case == Q(HOST_LOAD))
            host_load(r, i);
        else if (i->message->payload_case == Q(PROPOSE_MOVES))
            propose_moves(r, i);
        else if (i->message->validate_only)
            validate(r, i);
        else if (!repeated(r, i))
            decide(r, i);
        r->acks[SC_SOURCE_REQUESTS] = (struct sc_ack){true, i->tag};
        r->answered_count -= i->answered;
        sc_intake_free(i);
    }
}

int sc_request_take(struct sc_region *r, struct sc_ev *ev, struct hp_error *e)
{
    Harpoon__Internal__V1__Request *q = ev->request.message;
    struct sc_intake *i = sc_alloc(r, sizeof *i);
    if (!i) {
        hp_unpacked_free(&q->base);
        return 0;
    }
    sc_list_init(&i->link);
    i->message = q;
    i->tag = ev->request.tag;
    int code = check_envelope(r, q, e);
    if (!code)
        code = find_target(r, q, i, e);
    if (code) {
        sc_intake_free(i);
        return HP_EINVAL;
    }
    if (ev->request.reply_to && *ev->request.reply_to)
        i->reply_to = sc_strdup(r, ev->request.reply_to);
    if (ev->request.correlation_id)
        i->correlation = sc_strdup(r, ev->request.correlation_id);
    sc_list_append(&r->intake, &i->link);
    sc_request_drain(r);
    return 0;
}

struct sc_lookup *sc_request_lookup(struct sc_region *r)
{
    size_t count = 0;
    if (r->looking_up || sc_list_empty(&r->intake))
        return NULL;
    struct sc_lookup *l = sc_alloc(r, sizeof *l + SC_LOOKUP_MAX * sizeof l->rows[0]);
    if (!l)
        return NULL;
    for (struct sc_list *x = r->intake.next; x != &r->intake && count + 2 <= SC_LOOKUP_MAX; x = x->next) {
        struct sc_intake *i = SC_OWNER(x, struct sc_intake, link);
        if (!needs_lookup(r, i))
            continue;
        snprintf(l->rows[count++].id, 33, "%s", i->message->operation_id);
        i->row = count;
        if (*i->target_id) {
            snprintf(l->rows[count++].id, 33, "%s", i->target_id);
            i->target_row = count;
        }
    }
    l->count = count;
    r->looking_up = count > 0;
    if (!r->answered_count)
        r->seen_sequence = r->cut_sequence;
    if (!count) {
        sc_lookup_free(l);
        return NULL;
    }
    return l;
}

static Harpoon__Internal__V1__OperationRecord *found(struct sc_region *r, const struct sc_lookup *l, size_t row)
{
    if (!row || row > l->count || !l->rows[row - 1].found)
        return NULL;
    Harpoon__Internal__V1__OperationRecord *m = sc_pb_unpack(r, &harpoon__internal__v1__operation_record__descriptor,
                                                             l->rows[row - 1].body, l->rows[row - 1].body_len);
    if (!m || !m->operation)
        sc_fail(r, HP_ECORRUPT); /* unless it has failed for want of memory */
    return m;
}

void sc_request_looked_up(struct sc_region *r, struct sc_lookup *l)
{
    assert(r->looking_up);
    r->looking_up = false;
    for (struct sc_list *x = r->intake.next; x != &r->intake && !r->failed; x = x->next) {
        struct sc_intake *i = SC_OWNER(x, struct sc_intake, link);
        if (!i->row)
            continue;
        assert(!strcmp(l->rows[i->row - 1].id, i->message->operation_id));
        i->found = found(r, l, i->row);
        i->found_target = found(r, l, i->target_row);
        i->row = i->target_row = 0;
        r->answered_count += !i->answered;
        i->answered = true;
    }
    sc_lookup_free(l);
    sc_request_drain(r);
}

void sc_lookup_free(struct sc_lookup *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++)
        free(l->rows[i].body);
    free(l);
}
