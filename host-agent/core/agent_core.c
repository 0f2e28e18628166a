#include "core/agent_core.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

/* Moves one journalled container into the core. */
static int load_record(struct ha_core *core, struct ha_record *r, struct hp_error *e)
{
    if (!r->uid[0] || !r->name || ha_container_find(core, r->uid))
        return hp_fail(e, HP_ECORRUPT, "container \"%s\": no uid, no name, or recorded twice", r->uid);
    struct ha_container *c = ha_container_add(core, r->uid, r->name);
    if (!c)
        return hp_fail(e, HP_ENOMEM, "container %s", r->uid);
    free(c->r.name);
    c->r = *r;
    *r = (struct ha_record){0};
    if (!ha_container_apply_spec(core, c))
        return hp_fail(e, HP_ECORRUPT, "container %s: its specification cannot be read", c->r.uid);
    const struct ha_intent *i = &c->r.intent;
    if (i->generation && i->verb == HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE) {
        Harpoon__V1__ContainerSpec *spec = harpoon__v1__container_spec__unpack(NULL, i->spec.len, i->spec.data);
        if (!spec)
            return hp_fail(e, HP_ECORRUPT, "container %s: the specification of its intent cannot be read", c->r.uid);
        if (spec->resources)
            c->intent_memory_bytes = spec->resources->memory_bytes;
        harpoon__v1__container_spec__free_unpacked(spec, NULL);
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
    if (p->row.id >= core->meta[HA_META_REPORT_NEXT] || !p->row.body.len)
        return hp_fail(e, HP_ECORRUPT, "report %lld: empty, or its number was never given out", (long long)p->row.id);
    return 0;
}

static int load_tombstone(struct ha_core *core, const struct ha_tombstone *t, struct hp_error *e)
{
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

static int load(struct ha_core *core, struct ha_image *image, struct hp_error *e)
{
    int rc = 0;
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
    core->reports_tail = &core->reports;
    hp_map_init(&core->containers, HA_CONTAINERS_MAX * 2, o->seed); /* quarantined ones come on top */
    hp_map_init(&core->tombstones, HA_TOMBSTONES_MAX + 1, o->seed);
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
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n))
        ha_container_free(n->value);
    for (struct hp_map_node *n = hp_map_first(&core->tombstones); n; n = hp_map_next(n))
        free(n->value);
    hp_map_done(&core->containers);
    hp_map_done(&core->tombstones);
    free(core);
}

/* A container on the host that the journal does not know. */
static void found(struct ha_core *core, const struct ha_event *ev)
{
    const char *uid = ev->found.uid;
    if (!uid[0] || strlen(uid) > HA_UID_MAX || ha_container_find(core, uid))
        return;
    struct ha_container *c = ha_container_add(core, uid, ev->found.name ? ev->found.name : "");
    if (!c)
        return;
    c->found_generation = ev->found.state->generation;
    c->found_digest = ev->found.state->spec_digest;
    ha_container_observe(core, c, ev->found.state);
    c->r.quarantined = true;
    c->r.state = c->r.pid > 0 ? HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
                              : HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED;
    ha_set_text(core, &c->r.message, "quarantined: found on the host, but not in its journal");
    ha_move(core, c, HA_S_QUARANTINED);
    ha_fx_container(core, c);
    ha_report_observation(core, c, "quarantined");
}

static void synced(struct ha_core *core, uint64_t seq)
{
    assert(seq <= core->written_seq);
    if (seq > core->synced_seq)
        core->synced_seq = seq;
    ha_report_pump(core); /* results first: what follows comes after them */
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
        ha_report_unsend_all(core);
        break;
    case HA_EV_COMMAND:
        ha_command(core, ev->command);
        if ((c = ha_container_find(core, ev->command->uid)))
            ha_container_check(c);
        break;
    case HA_EV_CONFIRMED:
        for (size_t i = 0; i < ev->confirmed->n_report_ids; i++)
            ha_report_confirm(core, ev->confirmed->report_ids[i]);
        break;
    case HA_EV_INVENTORY_REQUEST:
        ha_report_inventory(core, ev->inventory_request_id);
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
