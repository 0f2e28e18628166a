#include "core/change.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/validate.h"
#include "grpc/status.h"
#include "wire/codec.h"
#include "wire/digest.h"

enum {
    BODY_MAX = 4 << 20,
    DEADLINE_DEFAULT_S = 3600,
    EXPLAIN_HOSTS_MAX = 1000,
    DRAIN_PARALLEL_MAX = 100,
    RESERVE_MAX_S = 86400,
    PROPOSE_MOVES_MAX = 100
};

/* What validation finds out about a change. */
struct subject {
    char project[64], region[64], target[HP_NAME_MAX + 1];
};

typedef void (*validate_fn)(struct gw_check *c, const ProtobufCMessage *m, struct subject *s);

int gw_region_find(const struct gw_regions *r, const char *name, Google__Rpc__Status **ret_status)
{
    char list[512] = "";
    size_t n = 0;
    for (int i = 0; i < r->count; i++) {
        if (strcmp(r->names[i], name) == 0)
            return i;
        if (n + 70 < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", r->names[i]);
    }
    *ret_status = hp_status_new(HP_CODE_NOT_FOUND, "REGION_UNKNOWN", "region \"%s\" is not served here; these are: %s",
                                name, list);
    return -1;
}

/* ---- Validation of each kind ---- */

static void container_target(struct gw_check *c, const char *field, const char *name, struct subject *s)
{
    struct hp_container_name n;
    struct hp_error e = {0};
    if (hp_container_name_parse(field, name, &n, &e) < 0) {
        gw_violation(c, field, "%s", e.message + strlen(field) + 2);
        return;
    }
    memcpy(s->project, n.project, sizeof n.project);
    memcpy(s->region, n.region, sizeof n.region);
    snprintf(s->target, sizeof s->target, "%s", name);
}

static void host_target(struct gw_check *c, const char *name, struct subject *s)
{
    struct hp_host_name n;
    struct hp_error e = {0};
    if (hp_host_name_parse("name", name, &n, &e) < 0) {
        gw_violation(c, "name", "%s", e.message + strlen("name") + 2);
        return;
    }
    memcpy(s->region, n.region, sizeof n.region);
    snprintf(s->target, sizeof s->target, "%s", name);
}

static void check_create(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__CreateContainerRequest *r = (const Harpoon__V1__CreateContainerRequest *)m;
    struct hp_parent_name n;
    struct hp_error e = {0};
    if (hp_parent_name_parse("parent", r->parent, false, &n, &e) < 0) {
        gw_violation(c, "parent", "%s", e.message + strlen("parent") + 2);
    } else {
        memcpy(s->project, n.project, sizeof n.project);
        memcpy(s->region, n.region, sizeof n.region);
    }
    if (!hp_segment_valid(r->container_id))
        gw_violation(c, "container_id", "\"%.64s\" is not of the form [a-z]([-a-z0-9]{0,61}[a-z0-9])?",
                     r->container_id);
    else
        hp_container_name_format(s->target, s->project, s->region, r->container_id);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
    if (!r->container) {
        gw_violation(c, "container", "must be set");
        return;
    }
    gw_validate_labels(c, "container.labels", r->container->labels, r->container->n_labels);
    gw_validate_spec(c, "container.spec", r->container->spec);
}

static void check_resize(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__ResizeContainerRequest *r = (const Harpoon__V1__ResizeContainerRequest *)m;
    container_target(c, "name", r->name, s);
    gw_validate_resources(c, "resources", r->resources, false);
    gw_validate_etag(c, r->etag);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
}

static void check_update(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__UpdateContainerRequest *r = (const Harpoon__V1__UpdateContainerRequest *)m;
    gw_validate_etag(c, r->etag);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
    if (!r->container) {
        gw_violation(c, "container", "must be set");
        return;
    }
    container_target(c, "container.name", r->container->name, s);
    gw_validate_labels(c, "container.labels", r->container->labels, r->container->n_labels);
    gw_validate_spec(c, "container.spec", r->container->spec);
}

/* Start, stop, restart and delete have the same shape. */
static void check_simple(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__StartContainerRequest *r = (const Harpoon__V1__StartContainerRequest *)m;
    _Static_assert(sizeof(Harpoon__V1__StartContainerRequest) == sizeof(Harpoon__V1__DeleteContainerRequest) &&
                       sizeof(Harpoon__V1__StartContainerRequest) == sizeof(Harpoon__V1__StopContainerRequest) &&
                       sizeof(Harpoon__V1__StartContainerRequest) == sizeof(Harpoon__V1__RestartContainerRequest),
                   "one shape");
    container_target(c, "name", r->name, s);
    gw_validate_etag(c, r->etag);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
}

static void check_move(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__MoveContainerRequest *r = (const Harpoon__V1__MoveContainerRequest *)m;
    container_target(c, "name", r->name, s);
    gw_validate_etag(c, r->etag);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
    if (*r->host && !hp_segment_valid(r->host))
        gw_violation(c, "host", "\"%.64s\" is not the short name of a host", r->host);
}

static void check_cancel(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__CancelOperationRequest *r = (const Harpoon__V1__CancelOperationRequest *)m;
    struct hp_operation_name n;
    struct hp_error e = {0};
    if (hp_operation_name_parse("name", r->name, &n, &e) < 0) {
        gw_violation(c, "name", "%s", e.message + strlen("name") + 2);
        return;
    }
    memcpy(s->project, n.project, sizeof n.project);
    memcpy(s->region, n.region, sizeof n.region);
}

static void check_host(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__CordonHostRequest *r = (const Harpoon__V1__CordonHostRequest *)m;
    _Static_assert(sizeof(Harpoon__V1__CordonHostRequest) == sizeof(Harpoon__V1__UncordonHostRequest) &&
                       sizeof(Harpoon__V1__CordonHostRequest) == sizeof(Harpoon__V1__DeclareHostLostRequest),
                   "one shape");
    host_target(c, r->name, s);
}

static void check_drain(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__DrainHostRequest *r = (const Harpoon__V1__DrainHostRequest *)m;
    host_target(c, r->name, s);
    gw_check_range(c, "max_parallel", r->max_parallel, 0, DRAIN_PARALLEL_MAX);
    gw_check_range(c, "deadline_seconds", r->deadline_seconds, 0, GW_DEADLINE_MAX_S);
}

static void check_adopt(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__AdoptContainerRequest *r = (const Harpoon__V1__AdoptContainerRequest *)m;
    host_target(c, r->name, s);
    if (strlen(r->uid) != HP_UID_LEN)
        gw_violation(c, "uid", "\"%.64s\" is not a uid: it has %d characters", r->uid, HP_UID_LEN);
}

/* A create that is asked about, or made room for. */
static void check_create_within(struct gw_check *c, const Harpoon__V1__CreateContainerRequest *create,
                                struct subject *s)
{
    if (!create) {
        gw_violation(c, "create", "must be set");
        return;
    }
    snprintf(c->prefix, sizeof c->prefix, "create.");
    check_create(c, &create->base, s);
    c->prefix[0] = '\0';
}

static void check_explain(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__ExplainRequest *r = (const Harpoon__V1__ExplainRequest *)m;
    gw_check_range(c, "max_hosts", r->max_hosts, 0, EXPLAIN_HOSTS_MAX);
    check_create_within(c, r->create, s);
}

static void check_reserve(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__ReserveRequest *r = (const Harpoon__V1__ReserveRequest *)m;
    gw_check_range(c, "ttl_seconds", r->ttl_seconds, 0, RESERVE_MAX_S);
    check_create_within(c, r->create, s);
}

static void check_host_load(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    host_target(c, ((const Harpoon__V1__GetHostLoadRequest *)m)->name, s);
}

static void check_propose_moves(struct gw_check *c, const ProtobufCMessage *m, struct subject *s)
{
    const Harpoon__V1__ProposeMovesRequest *r = (const Harpoon__V1__ProposeMovesRequest *)m;
    static const char prefix[] = "regions/";
    const char *region = strncmp(r->parent, prefix, strlen(prefix)) == 0 ? r->parent + strlen(prefix) : "";
    if (hp_segment_valid(region))
        snprintf(s->region, sizeof s->region, "%s", region);
    else
        gw_violation(c, "parent", "\"%.64s\" is not of the form regions/{region}", r->parent);
    gw_check_range(c, "max_moves", r->max_moves, 0, PROPOSE_MOVES_MAX);
    if (!(r->min_gain >= 0 && r->min_gain <= 100))
        gw_violation(c, "min_gain", "%g is not within 0 and 100", r->min_gain);
}

static const struct kind {
    Harpoon__Internal__V1__Request__PayloadCase payload_case;
    const ProtobufCMessageDescriptor *descriptor;
    Harpoon__V1__Verb verb;
    validate_fn validate;
} kinds[] = {
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE, &harpoon__v1__create_container_request__descriptor,
     HARPOON__V1__VERB__VERB_CREATE, check_create},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE, &harpoon__v1__resize_container_request__descriptor,
     HARPOON__V1__VERB__VERB_RESIZE, check_resize},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE, &harpoon__v1__update_container_request__descriptor,
     HARPOON__V1__VERB__VERB_UPDATE, check_update},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START, &harpoon__v1__start_container_request__descriptor,
     HARPOON__V1__VERB__VERB_START, check_simple},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP, &harpoon__v1__stop_container_request__descriptor,
     HARPOON__V1__VERB__VERB_STOP, check_simple},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART, &harpoon__v1__restart_container_request__descriptor,
     HARPOON__V1__VERB__VERB_RESTART, check_simple},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE, &harpoon__v1__delete_container_request__descriptor,
     HARPOON__V1__VERB__VERB_DELETE, check_simple},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE, &harpoon__v1__move_container_request__descriptor,
     HARPOON__V1__VERB__VERB_MOVE, check_move},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESERVE, &harpoon__v1__reserve_request__descriptor,
     HARPOON__V1__VERB__VERB_RESERVE, check_reserve},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CANCEL, &harpoon__v1__cancel_operation_request__descriptor,
     HARPOON__V1__VERB__VERB_CANCEL, check_cancel},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, &harpoon__v1__cordon_host_request__descriptor,
     HARPOON__V1__VERB__VERB_CORDON, check_host},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UNCORDON, &harpoon__v1__uncordon_host_request__descriptor,
     HARPOON__V1__VERB__VERB_UNCORDON, check_host},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DRAIN, &harpoon__v1__drain_host_request__descriptor,
     HARPOON__V1__VERB__VERB_DRAIN, check_drain},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DECLARE_LOST, &harpoon__v1__declare_host_lost_request__descriptor,
     HARPOON__V1__VERB__VERB_DECLARE_LOST, check_host},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_ADOPT, &harpoon__v1__adopt_container_request__descriptor,
     HARPOON__V1__VERB__VERB_ADOPT, check_adopt},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_EXPLAIN, &harpoon__v1__explain_request__descriptor,
     HARPOON__V1__VERB__VERB_UNSPECIFIED, check_explain},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_HOST_LOAD, &harpoon__v1__get_host_load_request__descriptor,
     HARPOON__V1__VERB__VERB_UNSPECIFIED, check_host_load},
    {HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_PROPOSE_MOVES, &harpoon__v1__propose_moves_request__descriptor,
     HARPOON__V1__VERB__VERB_UNSPECIFIED, check_propose_moves},
};

static const struct kind *find_kind(Harpoon__Internal__V1__Request__PayloadCase payload_case)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].payload_case == payload_case)
            return &kinds[i];
    return NULL;
}

Harpoon__Internal__V1__Request__PayloadCase gw_payload_case(const ProtobufCMessageDescriptor *request)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].descriptor == request)
            return kinds[i].payload_case;
    return HARPOON__INTERNAL__V1__REQUEST__PAYLOAD__NOT_SET;
}

/* ---- Fields that most requests have, by name ---- */

static void *field_of(const ProtobufCMessage *m, const char *name)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name);
    return f ? (char *)(uintptr_t)m + f->offset : NULL;
}

static const char *text_of(const ProtobufCMessage *m, const char *name)
{
    char **field = field_of(m, name);
    return field && *field ? *field : "";
}

static bool flag_of(const ProtobufCMessage *m, const char *name)
{
    const protobuf_c_boolean *field = field_of(m, name);
    return field && *field;
}

static bool set_text(ProtobufCMessage *m, const char *name, const char *text)
{
    char **field = field_of(m, name);
    if (!field)
        return true;
    char *copy = *text ? strdup(text) : (char *)(uintptr_t)protobuf_c_empty_string;
    if (!copy)
        return false;
    if (*field != protobuf_c_empty_string)
        free(*field);
    *field = copy;
    return true;
}

/* ---- One form for the same content ---- */

static int compare_labels(const void *a, const void *b)
{
    return strcmp((*(Harpoon__V1__Container__LabelsEntry *const *)a)->key,
                  (*(Harpoon__V1__Container__LabelsEntry *const *)b)->key);
}

static int compare_host_labels(const void *a, const void *b)
{
    return strcmp((*(Harpoon__V1__PlacementSpec__HostLabelsEntry *const *)a)->key,
                  (*(Harpoon__V1__PlacementSpec__HostLabelsEntry *const *)b)->key);
}

/* Drops what is not read ("only labels and spec"), and puts maps in order: clients may write them in any. */
static void normalise_container(Harpoon__V1__Container *c, bool keep_name)
{
    if (!c)
        return;
    if (!keep_name)
        (void)set_text(&c->base, "name", "");
    (void)set_text(&c->base, "uid", "");
    (void)set_text(&c->base, "etag", "");
    c->generation = 0;
    if (c->status)
        hp_unpacked_free(&c->status->base);
    if (c->create_time)
        hp_unpacked_free(&c->create_time->base);
    if (c->update_time)
        hp_unpacked_free(&c->update_time->base);
    c->status = NULL;
    c->create_time = c->update_time = NULL;
    if (c->n_labels > 1)
        qsort(c->labels, c->n_labels, sizeof(void *), compare_labels);
    Harpoon__V1__PlacementSpec *p = c->spec ? c->spec->placement : NULL;
    if (p && p->n_host_labels > 1)
        qsort(p->host_labels, p->n_host_labels, sizeof(void *), compare_host_labels);
}

static void normalise(const struct kind *k, ProtobufCMessage *m)
{
    if (k->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE)
        normalise_container(((Harpoon__V1__CreateContainerRequest *)m)->container, false);
    else if (k->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE)
        normalise_container(((Harpoon__V1__UpdateContainerRequest *)m)->container, true);
    else if (k->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_EXPLAIN)
        normalise_container(((Harpoon__V1__ExplainRequest *)m)->create->container, false);
    else if (k->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESERVE)
        normalise_container(((Harpoon__V1__ReserveRequest *)m)->create->container, false);
}

/* SHA-256 of the payload without request_id and validate_only, which this clears. */
static int digest_payload(ProtobufCMessage *payload, uint8_t out[HP_SHA256_LEN])
{
    protobuf_c_boolean *validate_only = field_of(payload, "validate_only");
    uint8_t *bytes;
    size_t len;
    if (validate_only)
        *validate_only = false;
    if (!set_text(payload, "request_id", "") || hp_pack(payload, &bytes, &len, NULL) < 0)
        return HP_ENOMEM;
    hp_sha256(out, bytes, len);
    free(bytes);
    return 0;
}

static int build_body(const struct kind *k, const ProtobufCMessage *payload, struct gw_prepared *p, const char *region,
                      bool validate_only)
{
    uint8_t digest[HP_SHA256_LEN];
    ProtobufCMessage *copy = hp_message_clone(payload);
    if (!copy)
        return HP_ENOMEM;
    normalise(k, copy);
    int rc = digest_payload(copy, digest);
    protobuf_c_boolean *flag = field_of(copy, "validate_only");
    if (flag)
        *flag = validate_only;
    if (rc == 0 && !set_text(copy, "request_id", p->request_id))
        rc = HP_ENOMEM;
    if (rc == 0) {
        Harpoon__Internal__V1__Request r = HARPOON__INTERNAL__V1__REQUEST__INIT;
        Google__Protobuf__Timestamp accepted = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        accepted.seconds = p->accept_ns / 1000000000;
        accepted.nanos = (int32_t)(p->accept_ns % 1000000000);
        r.operation_id = p->operation_id;
        r.project = p->project;
        r.region = (char *)(uintptr_t)region;
        r.request_id = p->request_id;
        r.payload_digest = (ProtobufCBinaryData){sizeof digest, digest};
        r.principal = (char *)(uintptr_t)p->principal;
        r.accept_time = &accepted;
        r.payload_case = k->payload_case;
        r.create = (void *)copy; /* every member of the choice is a pointer in the same place */
        r.validate_only = validate_only;
        rc = hp_pack(&r.base, &p->body, &p->body_len, NULL);
    }
    hp_unpacked_free(copy);
    return rc;
}

/* Fills what follows from the names, and makes a request_id where there is none. */
static void identify(const struct kind *k, const ProtobufCMessage *m, const struct subject *s, struct hp_rng *rng,
                     struct gw_prepared *p)
{
    const char *request_id = text_of(m, "request_id");
    if (*request_id) {
        memcpy(p->request_id, request_id, strlen(request_id) + 1);
    } else {
        uint8_t random[16];
        hp_rng_fill(rng, random, sizeof random);
        hp_uid_format(p->request_id, random);
    }
    p->verb = k->verb;
    memcpy(p->project, s->project, sizeof p->project);
    memcpy(p->target, s->target, sizeof p->target);
    hp_operation_id(p->operation_id, p->project, p->request_id);
    hp_operation_name_format(p->operation_name, p->project, s->region, p->operation_id);
    const int32_t *deadline = field_of(m, "deadline_seconds");
    p->deadline_s = !deadline ? 0 : *deadline ? *deadline : DEADLINE_DEFAULT_S;
}

int gw_prepare(const struct gw_regions *regions, const struct gw_principal *who,
               Harpoon__Internal__V1__Request__PayloadCase payload_case, const ProtobufCMessage *payload,
               int64_t wall_ns, struct hp_rng *rng, struct gw_prepared *ret, Google__Rpc__Status **ret_status)
{
    const struct kind *k = find_kind(payload_case);
    assert(k && payload->descriptor == k->descriptor && who);
    struct gw_check c = {0};
    struct subject s = {0};
    struct gw_prepared p = {.accept_ns = wall_ns, .principal = who->name};
    *ret_status = NULL;
    gw_validate_request_id(&c, "request_id", text_of(payload, "request_id"));
    k->validate(&c, payload, &s);
    if (c.count > 0) {
        *ret_status = c.status;
        return HP_EINVAL;
    }
    bool question = k->verb == HARPOON__V1__VERB__VERB_UNSPECIFIED;
    if (question ? !gw_allow_read(who, s.project, ret_status) : !gw_allow_change(who, s.project, ret_status))
        return HP_EPERM;
    if ((p.region_index = gw_region_find(regions, s.region, ret_status)) < 0)
        return HP_ENOTFOUND;
    bool validate_only = flag_of(payload, "validate_only");
    p.transient = validate_only || question;
    identify(k, payload, &s, rng, &p);
    int rc = build_body(k, payload, &p, s.region, validate_only);
    if (rc == 0 && p.body_len > BODY_MAX) {
        free(p.body);
        *ret_status = hp_status_new(HP_CODE_INVALID_ARGUMENT, "REQUEST_TOO_LARGE",
                                    "the request has %zu bytes; at most %d are allowed", p.body_len, BODY_MAX);
        return HP_ELIMIT;
    }
    if (rc == 0)
        *ret = p;
    return rc;
}

void gw_prepared_done(struct gw_prepared *p)
{
    free(p->body);
    p->body = NULL;
    p->body_len = 0;
}

static void put_time(Google__Protobuf__Timestamp *t, int64_t ns, int64_t add_s)
{
    t->seconds = ns / 1000000000 + add_s;
    t->nanos = (int32_t)(ns % 1000000000);
}

Harpoon__V1__Operation *gw_accepted_operation(const struct gw_prepared *p)
{
    Harpoon__V1__Operation o = HARPOON__V1__OPERATION__INIT;
    Google__Protobuf__Timestamp accepted = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Timestamp deadline = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Harpoon__V1__StageChange change = HARPOON__V1__STAGE_CHANGE__INIT, *history[] = {&change};
    put_time(&accepted, p->accept_ns, 0);
    put_time(&deadline, p->accept_ns, p->deadline_s);
    change.stage = o.stage = HARPOON__V1__STAGE__STAGE_ACCEPTED;
    change.time = &accepted;
    o.name = (char *)(uintptr_t)p->operation_name;
    o.request_id = (char *)(uintptr_t)p->request_id;
    o.verb = p->verb;
    o.target = (char *)(uintptr_t)p->target;
    o.reason = (char *)(uintptr_t) "accepted; the region's scheduler has not answered yet";
    o.create_time = o.update_time = &accepted;
    o.history = history;
    o.n_history = 1;
    o.deadline = p->deadline_s ? &deadline : NULL;
    o.principal = (char *)(uintptr_t)p->principal;
    return (Harpoon__V1__Operation *)hp_message_clone(&o.base);
}
