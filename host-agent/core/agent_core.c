#include "core/agent_core.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"
#include "wire/agent_limits.h"
#include "wire/codec.h"
#include "wire/utf8.h"

#define COUNTER_MAX ((int64_t)1 << 62)

/* What is sent on must be what a router takes, or it would close every connection: everything that the journal yields is held against that. `why` names field and value. */
static int check_texts(const struct ha_record *r, struct hp_error *why)
{
    const struct {
        const char *field, *text;
        size_t max;
    } texts[] = {
        {"uid", r->uid, HA_UID_MAX},
        {"name", r->name, HP_AGENT_NAME_MAX},
        {"error_message", r->error_message, HP_AGENT_TEXT_MAX},
        {"intent_operation_id", r->intent.operation_id, HA_UID_MAX},
        {"address", r->address, HP_AGENT_SHORT_MAX},
        {"image_digest", r->image_digest, HP_AGENT_SHORT_MAX},
        {"message", r->message, HP_AGENT_TEXT_MAX},
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < sizeof texts / sizeof texts[0]; i++)
        rc = hp_agent_text_check(texts[i].field, texts[i].text, texts[i].max, why);
    return rc;
}

static int check_generation(const char *field, int64_t generation, struct hp_error *why)
{
    if (generation < 0)
        return hp_fail(why, HP_EINVAL, "%s: %lld is below 0", field, (long long)generation);
    return hp_agent_generation_check(field, generation, why);
}

static int64_t report_id_of(const Harpoon__Internal__V1__AgentMessage *m)
{
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT:
        return m->result->report_id;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION:
        return m->observation->report_id;
    default:
        return 0;
    }
}

/* A result or an observation of this number. */
static int check_report(const struct ha_report_row *row, struct hp_error *why)
{
    ProtobufCMessage *m;
    int rc = hp_agent_text_check("uid", row->uid, HA_UID_MAX, why);
    if (rc)
        return rc;
    rc = hp_unpack(&harpoon__internal__v1__agent_message__descriptor, row->body.data, row->body.len, NULL, &m, why);
    if (rc)
        return hp_wrap(why, "body");
    const Harpoon__Internal__V1__AgentMessage *a = (const Harpoon__Internal__V1__AgentMessage *)m;
    rc = hp_agent_message_check(a, why);
    if (!rc && report_id_of(a) != row->id)
        rc = hp_fail(why, HP_EINVAL, "body: is not the report of this number");
    hp_unpacked_free(m);
    return rc;
}

/* Moves one journalled container into the core. */
static int load_record(struct ha_core *core, struct ha_record *r, struct hp_error *e)
{
    struct hp_error why = {0};
    if (check_texts(r, &why) || check_generation("generation", r->generation, &why) ||
        check_generation("intent_generation", r->intent.generation, &why))
        return hp_fail(e, HP_ECORRUPT, "container %zu: %s", core->containers.count + 1, why.message);
    if (!r->uid[0] || !r->name || ha_container_find(core, r->uid))
        return hp_fail(e, HP_ECORRUPT, "container \"%s\": no uid, no name, or recorded twice", r->uid);
    if (r->intent.generation && r->intent.verb != HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE &&
        r->intent.verb != HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE)
        return hp_fail(e, HP_ECORRUPT, "container %s: its intent is to do what nobody asks for", r->uid);
    struct ha_container *c = ha_container_add(core, r->uid, r->name);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "container %s", r->uid);
    free(c->r.name);
    c->r = *r;
    *r = (struct ha_record){0};
    int rc = ha_container_apply_spec(core, c);
    if (rc)
        return hp_fail(e, rc == HP_ENOMEM ? rc : HP_ECORRUPT, "container %s: its specification cannot be read",
                       c->r.uid);
    const struct ha_intent *i = &c->r.intent;
    if (i->generation && i->verb == HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE) {
        ProtobufCMessage *m = NULL;
        rc = i->spec.len
                 ? hp_unpack(&harpoon__v1__container_spec__descriptor, i->spec.data, i->spec.len, NULL, &m, NULL)
                 : HP_EINVAL;
        if (rc)
            return hp_fail(e, rc == HP_ENOMEM ? rc : HP_ECORRUPT,
                           "container %s: the specification of its intent cannot be read", c->r.uid);
        const Harpoon__V1__Resources *resources = ((const Harpoon__V1__ContainerSpec *)m)->resources;
        if (resources)
            c->intent_memory_bytes = resources->memory_bytes;
        c->intent_network_mode = ha_network_mode((const Harpoon__V1__ContainerSpec *)m);
        hp_unpacked_free(m);
    }
    ha_known_set(core, &c->known_hash, ha_known_hash(c->r.uid, &c->r.known));
    return 0;
}

static int load_report(struct ha_core *core, struct ha_report_row *row, struct hp_error *e)
{
    struct ha_report *p = calloc(1, sizeof *p);
    if (!p)
        return hp_fail(e, HP_ENOMEM, "report %lld", (long long)row->id);
    p->row = *row;
    *row = (struct ha_report_row){0};
    *core->reports_tail = p;
    core->reports_tail = &p->next;
    core->report_count++;
    if (p->row.id < 1 || p->row.id >= core->meta[HA_META_REPORT_NEXT] || !p->row.body.len)
        return hp_fail(e, HP_ECORRUPT, "report %lld: empty, or its number was never given out", (long long)p->row.id);
    struct hp_error why = {0};
    int rc = check_report(&p->row, &why);
    if (rc)
        return hp_fail(e, rc == HP_ENOMEM ? rc : HP_ECORRUPT, "report %lld: %s", (long long)p->row.id, why.message);
    return 0;
}

static int load_tombstone(struct ha_core *core, const struct ha_tombstone *t, struct hp_error *e)
{
    struct hp_error why = {0};
    if (hp_agent_text_check("uid", t->uid, HA_UID_MAX, &why) || check_generation("generation", t->generation, &why))
        return hp_fail(e, HP_ECORRUPT, "tombstone %zu: %s", core->tombstones.count + 1, why.message);
    struct ha_grave *g = calloc(1, sizeof *g);
    void *old = NULL;
    if (!g)
        return hp_fail(e, HP_ENOMEM, "tombstone %s", t->uid);
    g->t = *t;
    int rc = hp_map_put(&core->tombstones, t->uid, g, &old);
    if (rc)
        free(g);
    free(old);
    if (rc || old)
        return hp_fail(e, old ? HP_ECORRUPT : rc, "tombstone %s", t->uid);
    ha_known_set(core, &g->known_hash, ha_known_hash(t->uid, &t->known));
    return 0;
}

/* Numbers that grow by small steps: what is near the end of their range was never reached, and could not be counted on from. */
static int check_counter(const char *name, int64_t value, struct hp_error *e)
{
    if (value >= 0 && value <= COUNTER_MAX)
        return 0;
    return hp_fail(e, HP_ECORRUPT, "%s: %lld is not from 0 to %lld", name, (long long)value, (long long)COUNTER_MAX);
}

static int load(struct ha_core *core, struct ha_image *image, struct hp_error *e)
{
    int rc = check_counter("session", image->meta[HA_META_SESSION], e);
    if (!rc)
        rc = check_counter("number of the next report", image->meta[HA_META_REPORT_NEXT], e);
    memcpy(core->meta, image->meta, sizeof core->meta);
    core->report_next = core->meta[HA_META_REPORT_NEXT] > 0 ? core->meta[HA_META_REPORT_NEXT] : 1;
    for (size_t i = 0; !rc && i < image->record_count; i++)
        rc = load_record(core, &image->records[i], e);
    for (size_t i = 0; !rc && i < image->report_count; i++)
        rc = load_report(core, &image->reports[i], e);
    for (size_t i = 0; !rc && i < image->tombstone_count; i++)
        rc = load_tombstone(core, &image->tombstones[i], e);
    return rc;
}

int ha_core_new(const struct ha_core_options *o, struct ha_image *image, struct ha_core **ret, struct hp_error *e)
{
    struct ha_core *core = calloc(1, sizeof *core);
    if (!core) {
        ha_image_done(image);
        return hp_fail(e, HP_ENOMEM, "agent core");
    }
    snprintf(core->region, sizeof core->region, "%s", o->region);
    snprintf(core->host, sizeof core->host, "%s", o->host);
    snprintf(core->host_name, sizeof core->host_name, "regions/%s/hosts/%s", core->region, core->host);
    core->memory_max = o->memory_bytes;
    core->network_modes = o->network_modes;
    core->network_functions = o->network_functions;
    core->reports_tail = &core->reports;
    hp_map_init(&core->containers, HA_CONTAINERS_MAX * 2, o->seed); /* quarantined ones come on top */
    hp_map_init(&core->tombstones, HA_TOMBSTONES_MAX + 1, o->seed);
    hp_map_init(&core->refusals, HA_REFUSALS_MAX, o->seed);
    int rc = load(core, image, e);
    ha_image_done(image);
    if (rc) {
        ha_core_free(core);
        return rc;
    }
    *ret = core;
    return 0;
}

static void free_dead(struct ha_core *core)
{
    for (struct ha_container *c; (c = core->dead);) {
        core->dead = c->dead_next;
        ha_container_free(c);
    }
    for (struct ha_report *p; (p = core->dead_reports);) {
        core->dead_reports = p->next;
        ha_report_row_done(&p->row);
        free(p);
    }
}

void ha_core_free(struct ha_core *core)
{
    if (!core)
        return;
    free_dead(core);
    core->dead_reports = core->reports;
    free_dead(core);
    ha_inventory_drop(core);
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n))
        ha_container_free(n->value);
    for (struct hp_map_node *n = hp_map_first(&core->tombstones); n; n = hp_map_next(n))
        free(n->value);
    for (struct hp_map_node *n = hp_map_first(&core->refusals); n; n = hp_map_next(n))
        free(n->value);
    hp_map_done(&core->containers);
    hp_map_done(&core->tombstones);
    hp_map_done(&core->refusals);
    free(core);
}

/* A container on the host that the journal does not know. */
static void found(struct ha_core *core, const struct ha_event *ev)
{
    static const char text[] = "quarantined: found on the host, but not in its journal";
    const char *uid = ev->found.uid;
    const char *name = ev->found.name ? ev->found.name : "";
    struct hp_error ignored = {0};
    if (!uid[0] || hp_agent_text_check("uid", uid, HA_UID_MAX, &ignored))
        return; /* none of ours has such a uid, and nobody could be told of it */
    if (hp_agent_text_check("name", name, HP_AGENT_NAME_MAX, &ignored))
        name = "";
    struct ha_container *c = ha_container_find(core, uid);
    if (c && c->r.quarantined && c->r.message && !strcmp(c->r.message, text)) {
        /* An earlier start found it, and nobody has decided since: a command for just this still adopts it. */
        c->found_generation = ev->found.state->generation;
        c->found_digest = ev->found.state->spec_digest;
    }
    if (c)
        return;
    c = ha_container_add(core, uid, name);
    if (!c)
        return;
    c->found_generation = ev->found.state->generation;
    c->found_digest = ev->found.state->spec_digest;
    ha_container_observe(core, c, ev->found.state);
    c->r.quarantined = true;
    c->r.state = c->r.pid > 0 ? HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
                              : HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED;
    ha_set_text(core, &c->r.message, text);
    ha_move(core, c, HA_S_QUARANTINED);
    ha_fx_container(core, c);
    ha_report_observation(core, c, "quarantined");
}

static void synced(struct ha_core *core, uint64_t seq)
{
    assert(seq <= core->written_seq);
    if (seq > core->synced_seq)
        core->synced_seq = seq;
    ha_inventory_pump(core); /* before the results that came after it */
    ha_report_pump(core);    /* results first: what follows comes after them */
    if (core->session_wanted && core->session_seq <= core->synced_seq) {
        core->session_wanted = false;
        ha_fx_session(core, core->meta[HA_META_SESSION]);
    }
    for (struct hp_map_node *n = hp_map_first(&core->containers), *next; n; n = next) {
        struct ha_container *c = n->value;
        next = hp_map_next(n);
        if (c->state == HA_S_INTENT && c->intent_seq <= core->synced_seq) {
            ha_change_synced(core, c);
            ha_process_late_exit(core, c);
            if (c->state != HA_S_GONE)
                ha_command_next(core, c);
        }
    }
}

static void job_done(struct ha_core *core, const struct ha_job *job)
{
    struct ha_container *c = ha_container_find(core, job->uid);
    assert(c && c->job == (int8_t)job->kind);
    c->job = -1;
    switch (c->state) {
    case HA_S_INSPECTING:
        ha_process_inspected(core, c, job);
        break;
    case HA_S_ACTING:
        ha_change_job_done(core, c, job);
        break;
    case HA_S_RESTARTING:
        ha_process_restarted(core, c, job);
        break;
    case HA_S_RUNNING:
        ha_process_probed(core, c, job);
        break;
    default:
        assert(!"a job ended in a state without one");
    }
    if (c->state == HA_S_GONE)
        return;
    ha_process_late_exit(core, c);
    ha_command_next(core, c);
    ha_container_check(c);
}

static void timer(struct ha_core *core)
{
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n))
        if (((struct ha_container *)n->value)->timer_ms <= core->now_ms)
            ha_process_timer(core, n->value);
}

static void session_wanted(struct ha_core *core)
{
    int64_t session = core->meta[HA_META_SESSION] + 1, wall_ms = core->wall_ns / 1000000;
    ha_fx_meta(core, HA_META_SESSION, wall_ms > session ? wall_ms : session);
    core->session_wanted = true;
    core->session_seq = core->write_seq;
}

static void handle(struct ha_core *core, const struct ha_event *ev)
{
    struct ha_container *c;
    switch (ev->kind) {
    case HA_EV_FOUND:
        found(core, ev);
        break;
    case HA_EV_START:
        for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n))
            ha_process_start(core, n->value);
        break;
    case HA_EV_SYNCED:
        synced(core, ev->synced_seq);
        break;
    case HA_EV_JOB_DONE:
        job_done(core, ev->job);
        break;
    case HA_EV_EXITED:
        c = ha_container_find(core, ev->exited.uid);
        if (c) {
            ha_process_exited(core, c, ev->exited.state);
            ha_container_check(c);
        }
        break;
    case HA_EV_TIMER:
        timer(core);
        break;
    case HA_EV_SESSION_WANTED:
        session_wanted(core);
        break;
    case HA_EV_LINK_UP:
        core->link_up = true;
        ha_report_unsend_all(core);
        break;
    case HA_EV_LINK_DOWN:
        core->link_up = false;
        ha_inventory_drop(core);
        ha_report_unsend_all(core);
        break;
    case HA_EV_COMMAND:
        core->no_storage = ev->no_storage;
        ha_command(core, ev->command);
        core->no_storage = NULL;
        if ((c = ha_container_find(core, ev->command->uid)))
            ha_container_check(c);
        break;
    case HA_EV_CONFIRMED:
        for (size_t i = 0; i < ev->confirmed->n_report_ids; i++)
            ha_report_confirm(core, ev->confirmed->report_ids[i]);
        break;
    case HA_EV_INVENTORY_REQUEST:
        ha_report_inventory(core, ev->inventory_request_id, ev->inventory_specs);
        break;
    case HA_EV_OVERLOAD:
        for (int r = 0; r < HP_RESOURCE_COUNT; r++)
            snprintf(core->overload[r], sizeof core->overload[r], "%s", ev->overload[r] ? ev->overload[r] : "");
        break;
    case HA_EV_ROOM:
        snprintf(core->no_room, sizeof core->no_room, "%s", ev->no_room ? ev->no_room : "");
        hp_utf8_mend(core->no_room); /* may be cut within a character */
        break;
    }
}

int ha_core_step(struct ha_core *core, const struct ha_event *ev, struct ha_effects *fx)
{
    assert(ev->now_ms >= core->now_ms);
    assert(!core->fx);
    ha_effects_clear(fx);
    free_dead(core);
    if (core->out_of_memory)
        return HP_ENOMEM;
    core->fx = fx;
    core->now_ms = ev->now_ms;
    core->wall_ns = ev->wall_ns;
    core->write_seq = core->written_seq + 1;
    handle(core, ev);
    if (fx->write_count) {
        core->written_seq = core->write_seq;
        fx->write_seq = core->write_seq;
    }
    ha_report_pump(core);
    core->fx = NULL;
    if (core->out_of_memory) {
        ha_effects_clear(fx);
        return HP_ENOMEM;
    }
    return 0;
}

uint64_t ha_core_deadline_ms(const struct ha_core *core)
{
    uint64_t least = UINT64_MAX;
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n)) {
        const struct ha_container *c = n->value;
        if (c->job < 0 && c->timer_ms < least)
            least = c->timer_ms;
    }
    return least;
}

bool ha_core_idle(const struct ha_core *core)
{
    if (core->synced_seq != core->written_seq)
        return false;
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n)) {
        const struct ha_container *c = n->value;
        if (c->job >= 0 || c->state == HA_S_INTENT || c->state == HA_S_ACTING || c->state == HA_S_NEW)
            return false;
    }
    return true;
}

void ha_core_stats(const struct ha_core *core, struct ha_core_stats *ret)
{
    *ret = core->stats;
    ret->containers = (int32_t)core->containers.count;
    ret->tombstones = (int32_t)core->tombstones.count;
    ret->reports = core->report_count;
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n)) {
        const struct ha_container *c = n->value;
        ret->running += c->r.pid > 0;
        ret->quarantined += c->r.quarantined;
        ret->memory_bytes_claimed += c->a.limits[HA_LIMIT_MEMORY];
    }
}

void ha_core_each_running(const struct ha_core *core, void (*cb)(void *user, const char *uid, int64_t pid), void *user)
{
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n)) {
        const struct ha_container *c = n->value;
        if (c->r.pid > 0)
            cb(user, c->r.uid, c->r.pid);
    }
}
