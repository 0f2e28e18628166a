#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

/* google.rpc.Code of one of our errors (https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto). */
int32_t ha_code_of(int status)
{
    switch (status) {
    case HP_EINVAL:
    case HP_EUNSUPPORTED:
        return 3; /* INVALID_ARGUMENT */
    case HP_ETIMEDOUT:
        return 4; /* DEADLINE_EXCEEDED */
    case HP_ENOTFOUND:
        return 5; /* NOT_FOUND */
    case HP_EEXISTS:
        return 6; /* ALREADY_EXISTS */
    case HP_EPERM:
        return 7; /* PERMISSION_DENIED */
    case HP_ELIMIT:
    case HP_ENOMEM:
        return 8; /* RESOURCE_EXHAUSTED */
    case HP_ECONFLICT:
    case HP_EFENCED:
        return 9; /* FAILED_PRECONDITION */
    case HP_ECANCELED:
        return 10; /* ABORTED */
    case HP_EUNAVAILABLE:
    case HP_EAGAIN:
        return 14; /* UNAVAILABLE */
    default:
        return 13; /* INTERNAL */
    }
}

static void stamp(Google__Protobuf__Timestamp *t, int64_t wall_ns)
{
    google__protobuf__timestamp__init(t);
    t->seconds = wall_ns / 1000000000;
    t->nanos = (int32_t)(wall_ns % 1000000000);
}

static char *text_of(char *s)
{
    return s ? s : (char *)protobuf_c_empty_string;
}

void ha_status_fill(const struct ha_core *core, const struct ha_container *c, struct ha_status *ret)
{
    const struct ha_record *r = &c->r;
    harpoon__v1__container_status__init(&ret->pb);
    harpoon__v1__resources__init(&ret->resources);
    ret->pb.state = (Harpoon__V1__ContainerState)r->state;
    ret->pb.host = (char *)core->host_name;
    ret->pb.observed_generation = r->generation;
    ret->pb.pid = r->pid;
    ret->pb.pid_start_ticks = r->pid_start_ticks;
    if (r->address) {
        ret->address[0] = r->address;
        ret->pb.addresses = ret->address;
        ret->pb.n_addresses = 1;
    }
    ret->pb.exit_code = r->exit_code;
    ret->pb.oom_killed = r->oom_killed;
    ret->pb.restart_count = r->restart_count;
    ret->pb.health = (Harpoon__V1__HealthState)r->health;
    ret->pb.message = text_of(r->message);
    ret->pb.image_digest = text_of(r->image_digest);
    if (r->start_wall_ns) {
        stamp(&ret->start, r->start_wall_ns);
        ret->pb.start_time = &ret->start;
    }
    if (r->finish_wall_ns) {
        stamp(&ret->finish, r->finish_wall_ns);
        ret->pb.finish_time = &ret->finish;
    }
    const int64_t *l = c->a.limits;
    ret->resources.cpu_millis = l[0];
    ret->resources.memory_bytes = l[1];
    ret->resources.disk_bytes = l[2];
    ret->resources.pids_max = l[3];
    ret->resources.io_read_bps = l[4];
    ret->resources.io_write_bps = l[5];
    ret->resources.io_read_iops = l[6];
    ret->resources.io_write_iops = l[7];
    ret->resources.network_bps = l[8];
    ret->pb.resources = &ret->resources;
}

/* Ids are reserved in the journal half a block ahead of their use, so that none is used twice, whatever happens. */
int64_t ha_report_next_id(struct ha_core *core)
{
    if (core->report_next + HA_REPORT_ID_BLOCK / 2 >= core->meta[HA_META_REPORT_NEXT])
        ha_fx_meta(core, HA_META_REPORT_NEXT, core->report_next + HA_REPORT_ID_BLOCK);
    return core->report_next++;
}

/* Takes the row's body. */
static void append(struct ha_core *core, const struct ha_report_row *row)
{
    struct ha_report *p = calloc(1, sizeof *p);
    if (!p) {
        free(row->body.data);
        core->out_of_memory = true;
        return;
    }
    p->row = *row;
    p->seq = core->write_seq;
    *core->reports_tail = p;
    core->reports_tail = &p->next;
    core->report_count++;
    ha_fx_report(core, &p->row);
}

/* Unlinks *at; the row stays readable until the next step. */
static void drop(struct ha_core *core, struct ha_report **at)
{
    struct ha_report *p = *at;
    *at = p->next;
    if (!*at)
        core->reports_tail = at;
    core->report_count--;
    if (p->sent)
        core->in_flight--;
    assert(core->in_flight >= 0);
    ha_fx_report_delete(core, p->row.id);
    p->next = core->dead_reports;
    core->dead_reports = p;
}

static bool pack_row(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m, struct ha_report_row *row)
{
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(m);
    row->body.data = malloc(n);
    if (!row->body.data) {
        core->out_of_memory = true;
        return false;
    }
    row->body.len = harpoon__internal__v1__agent_message__pack(m, row->body.data);
    return true;
}

static void known_of(const struct ha_container *c, struct ha_known *k)
{
    if (c->r.quarantined)
        return;
    k->counts = true;
    k->generation = c->r.generation;
    k->desired = c->a.wants_run ? HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING
                                : HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    k->state = c->r.state;
}

/* The status that goes with a result; NULL: none. Sets what the container counts as once the result is confirmed. */
static Harpoon__V1__ContainerStatus *status_of(const struct ha_core *core, const struct ha_container *c,
                                               const struct ha_answer *a, struct ha_status *s, struct ha_known *known)
{
    bool done = a->outcome == HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
    bool tried = done || a->outcome == HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED;
    if (tried && c) {
        ha_status_fill(core, c, s);
        if (c->r.generation == a->generation) /* a removal that failed changes nothing of what is known */
            known_of(c, known);
        return &s->pb;
    }
    if (!done && !(a->outcome == HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE && a->latest > 0))
        return NULL;
    harpoon__v1__container_status__init(&s->pb);
    s->pb.host = (char *)core->host_name;
    s->pb.observed_generation = done ? a->generation : a->latest;
    if (done || a->removed)
        s->pb.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED;
    return &s->pb;
}

void ha_report_result(struct ha_core *core, const struct ha_container *c, const struct ha_answer *a)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__CommandResult r = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Google__Rpc__Status error = GOOGLE__RPC__STATUS__INIT;
    char *overloaded[HP_RESOURCE_COUNT];
    struct ha_status status;
    struct ha_report_row row = {.result = true, .generation = a->generation};
    row.id = ha_report_next_id(core);
    memcpy(row.uid, a->uid, strlen(a->uid) + 1);
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT;
    m.result = &r;
    r.report_id = row.id;
    r.operation_id = (char *)a->operation_id;
    r.uid = (char *)a->uid;
    r.generation = a->generation;
    r.epoch = a->epoch;
    r.outcome = a->outcome;
    if (a->outcome != HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE) {
        error.code = a->code;
        error.message = text_of((char *)a->message);
        r.error = &error;
    }
    r.overloaded = overloaded;
    for (int x = 0; x < HP_RESOURCE_COUNT; x++)
        if (a->overloaded & 1U << x)
            overloaded[r.n_overloaded++] = (char *)hp_resource_name(x);
    r.status = status_of(core, c, a, &status, &row.known);
    if (pack_row(core, &m, &row))
        append(core, &row);
}

/* A newer observation takes the place of one that nobody has seen. */
static void drop_unsent_observations(struct ha_core *core, const char *uid)
{
    struct ha_report **at = &core->reports;
    while (*at) {
        if (!(*at)->row.result && !(*at)->sent && strcmp((*at)->row.uid, uid) == 0)
            drop(core, at);
        else
            at = &(*at)->next;
    }
}

void ha_report_observation(struct ha_core *core, const struct ha_container *c, const char *kind)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Observation o = HARPOON__INTERNAL__V1__OBSERVATION__INIT;
    Google__Protobuf__Timestamp time;
    struct ha_status status;
    struct ha_report_row row = {.generation = c->r.generation};
    drop_unsent_observations(core, c->r.uid);
    row.id = ha_report_next_id(core);
    memcpy(row.uid, c->r.uid, sizeof row.uid);
    ha_status_fill(core, c, &status);
    known_of(c, &row.known);
    stamp(&time, core->wall_ns);
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION;
    m.observation = &o;
    o.report_id = row.id;
    o.container = c->r.name;
    o.uid = (char *)c->r.uid;
    o.generation = c->r.generation;
    o.status = &status.pb;
    o.time = &time;
    o.kind = (char *)kind;
    if (pack_row(core, &m, &row))
        append(core, &row);
}

bool ha_report_again(struct ha_core *core, const char *uid, int64_t generation)
{
    for (struct ha_report *p = core->reports; p; p = p->next) {
        if (!p->row.result || p->row.generation != generation || strcmp(p->row.uid, uid) != 0)
            continue;
        if (p->sent) {
            p->sent = false;
            core->in_flight--;
        }
        return true;
    }
    return false;
}

void ha_report_pump(struct ha_core *core)
{
    if (!core->link_up)
        return;
    for (struct ha_report *p = core->reports; p && core->in_flight < HA_IN_FLIGHT_MAX; p = p->next) {
        if (p->sent || p->seq > core->synced_seq)
            continue;
        p->sent = true;
        core->in_flight++;
        ha_fx_send_borrowed(core, &p->row.body);
    }
}

void ha_report_unsend_all(struct ha_core *core)
{
    for (struct ha_report *p = core->reports; p; p = p->next)
        p->sent = false;
    core->in_flight = 0;
}

/* What the broker has now: the container's, or its tombstone's, part in the digest. */
static void learn(struct ha_core *core, const struct ha_report_row *row)
{
    struct ha_grave *g = hp_map_get(&core->tombstones, row->uid);
    struct ha_container *c = ha_container_find(core, row->uid);
    if (g && g->t.report_id == row->id) {
        g->t.report_id = 0;
        g->t.known = (struct ha_known){0};
        ha_known_set(core, &g->known_hash, 0);
        ha_fx_tombstone(core, &g->t);
        return;
    }
    if (c && row->id > c->known_report_id && (row->known.counts || c->r.quarantined)) {
        c->known_report_id = row->id;
        c->r.known = row->known;
        ha_known_set(core, &c->known_hash, ha_known_hash(row->uid, &row->known));
        ha_fx_container(core, c);
    } else if (!c && g && g->t.report_id > row->id && row->known.counts) {
        g->t.known = row->known;
        ha_known_set(core, &g->known_hash, ha_known_hash(row->uid, &row->known));
        ha_fx_tombstone(core, &g->t);
    }
}

void ha_report_confirm(struct ha_core *core, int64_t id)
{
    for (struct ha_report **at = &core->reports; *at && (*at)->row.id <= id; at = &(*at)->next) {
        if ((*at)->row.id != id)
            continue;
        struct ha_report *p = *at;
        drop(core, at);
        learn(core, &p->row);
        return;
    }
}
