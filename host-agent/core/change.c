/* A change: recorded as an intent, carried out as a plan of jobs, ended with a durable result. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

#define DONE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE
#define FAILED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define ENSURE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE
#define REMOVE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE

typedef Harpoon__Internal__V1__Command command_pb;

static void pack_spec(struct ha_core *core, struct ha_bytes *ret, const Harpoon__V1__ContainerSpec *spec)
{
    size_t n = harpoon__v1__container_spec__get_packed_size(spec);
    ret->data = malloc(n ? n : 1);
    if (!ret->data) {
        core->out_of_memory = true;
        return;
    }
    ret->len = harpoon__v1__container_spec__pack(spec, ret->data);
}

/* Records the intent; what follows waits for the journal. */
void ha_change_begin(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    struct ha_intent *i = &c->r.intent;
    assert(c->job < 0 && i->generation == 0);
    assert(cmd->generation >= c->r.generation);
    i->generation = cmd->generation;
    i->verb = (int32_t)cmd->verb;
    i->epoch = cmd->epoch;
    i->restart_serial = cmd->restart_serial;
    snprintf(i->operation_id, sizeof i->operation_id, "%s", cmd->operation_id);
    if (cmd->verb == ENSURE) {
        pack_spec(core, &i->spec, cmd->spec);
        c->intent_memory_bytes = ha_spec_memory_bytes(cmd->spec);
        c->intent_network_mode = ha_network_mode(cmd->spec);
        c->r.quarantined = false;
        if (cmd->start_only && c->r.pid > 0 && cmd->restart_serial > c->r.restart_serial)
            c->r.restart_serial =
                cmd->restart_serial; /* the process that runs is what was asked for; recorded with the intent */
        if (c->state == HA_S_NEW)
            c->r.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_CREATING;
    } else {
        c->r.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETING;
    }
    c->intent_seq = core->write_seq;
    c->failing = false;
    ha_fx_container(core, c);
    ha_move(core, c, HA_S_INTENT);
}

/* Writes the tombstone and the result of a removal; `c` (may be NULL) is about to go. */
void ha_change_entomb(struct ha_core *core, struct ha_container *c, const char *uid, int64_t generation,
                      const char *operation_id, int64_t epoch)
{
    struct ha_grave *g = hp_map_remove(&core->tombstones, uid); /* put again at the end: it is the youngest now */
    if (!g)
        g = calloc(1, sizeof *g);
    if (!g || hp_map_put(&core->tombstones, uid, g, NULL)) {
        free(g);
        core->out_of_memory = true;
        return;
    }
    memcpy(g->t.uid, uid, strlen(uid) + 1);
    assert(generation >= g->t.generation);
    g->t.generation = generation;
    g->t.report_id = core->report_next;
    if (c) {
        g->t.known = c->r.known;
        uint64_t hash = c->known_hash;
        ha_known_set(core, &c->known_hash, 0);
        ha_known_set(core, &g->known_hash, hash);
    }
    struct ha_answer a = {
        .uid = uid, .operation_id = operation_id, .generation = generation, .epoch = epoch, .outcome = DONE};
    ha_report_result(core, NULL, &a);
    ha_fx_tombstone(core, &g->t);
}

static struct ha_answer answer_of(const struct ha_container *c, const struct ha_intent *i,
                                  Harpoon__Internal__V1__CommandOutcome outcome)
{
    return (struct ha_answer){.uid = c->r.uid,
                              .operation_id = i->operation_id,
                              .generation = i->generation,
                              .epoch = i->epoch,
                              .outcome = outcome};
}

void ha_change_synced(struct ha_core *core, struct ha_container *c)
{
    assert(c->state == HA_S_INTENT);
    if (c->r.intent.step == 0)
        ha_report_journalled(core, c);
    ha_change_act(core, c, false);
}

/* Back to what was before the intent: nothing was changed. */
static void finish_refused(struct ha_core *core, struct ha_container *c, int status, const char *message)
{
    core->stats.refused++;
    struct ha_answer a = answer_of(c, &c->r.intent, REFUSED);
    a.code = ha_code_of(status);
    a.message = message;
    ha_report_result(core, c, &a);
    ha_intent_done(&c->r.intent);
    c->intent_memory_bytes = 0;
    c->intent_network_mode = 0;
    ha_process_settle(core, c);
    ha_fx_container(core, c);
}

static void finish_removed(struct ha_core *core, struct ha_container *c)
{
    struct ha_intent *i = &c->r.intent;
    ha_change_entomb(core, c, c->r.uid, i->generation, i->operation_id, i->epoch);
    ha_fx_container_delete(core, c->r.uid);
    ha_move(core, c, HA_S_GONE);
    ha_container_bury(core, c);
    ha_command_next(core, c); /* what waited is now for a container that is not there */
}

/* The intent has become the applied state. */
static void adopt_intent(struct ha_core *core, struct ha_container *c)
{
    struct ha_intent *i = &c->r.intent;
    ha_bytes_done(&c->r.spec);
    c->r.spec = i->spec;
    i->spec = (struct ha_bytes){0};
    c->r.restart_serial = i->restart_serial;
    if (ha_container_apply_spec(core, c))
        core->out_of_memory = true; /* our own packing: nothing else can be wrong */
}

static void finish_done(struct ha_core *core, struct ha_container *c)
{
    struct ha_intent i = c->r.intent;
    if (i.verb == REMOVE) {
        finish_removed(core, c);
        return;
    }
    adopt_intent(core, c);
    c->r.intent = (struct ha_intent){0};
    c->intent_memory_bytes = 0;
    c->intent_network_mode = 0;
    c->r.generation = i.generation;
    c->r.outcome = DONE;
    c->r.error_code = 0;
    ha_set_text(core, &c->r.error_message, NULL);
    ha_set_text(core, &c->r.message, NULL);
    c->r.restart_count = c->backoff_count = 0;
    c->found_generation = 0;
    ha_process_settle(core, c);
    ha_fx_container(core, c);
    struct ha_answer a = answer_of(c, &i, DONE);
    ha_report_result(core, c, &a);
}

/* Keeps the old spec, but for what the owner wants of the process. */
static void keep_old_spec(struct ha_core *core, struct ha_container *c, bool wants_run)
{
    Harpoon__V1__ContainerSpec *spec;
    struct ha_bytes packed = {0};
    ha_unpack_spec(core, &c->r.spec, &spec);
    if (!spec)
        return;
    spec->desired_state = wants_run ? HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING
                                    : HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    pack_spec(core, &packed, spec);
    harpoon__v1__container_spec__free_unpacked(spec, NULL);
    if (!packed.data)
        return;
    ha_bytes_done(&c->r.spec);
    c->r.spec = packed;
    int64_t limits[HA_LIMITS];
    memcpy(limits, c->a.limits, sizeof limits); /* a resize before the failing job is in force */
    if (ha_container_apply_spec(core, c))
        core->out_of_memory = true;
    memcpy(c->a.limits, limits, sizeof limits);
}

static bool intent_wants_run(struct ha_core *core, const struct ha_container *c)
{
    Harpoon__V1__ContainerSpec *spec;
    if (c->r.intent.verb == REMOVE)
        return false;
    ha_unpack_spec(core, &c->r.intent.spec, &spec);
    bool want = spec && ha_spec_wants_run(spec);
    if (spec)
        harpoon__v1__container_spec__free_unpacked(spec, NULL);
    return want;
}

/* What is there, if anything, is not of the applied spec: this intent has made it. */
static bool is_fresh(const struct ha_container *c)
{
    return !c->r.spec.len || c->r.intent.step > 0;
}

static void finish_failed(struct ha_core *core, struct ha_container *c)
{
    bool removal = c->r.intent.verb == REMOVE, want = intent_wants_run(core, c);
    core->stats.failed++;
    if (!removal && is_fresh(c))
        adopt_intent(core, c);
    else if (c->r.spec.len)
        keep_old_spec(core, c, want);
    struct ha_intent i = c->r.intent;
    c->r.intent = (struct ha_intent){0};
    c->intent_memory_bytes = 0;
    c->intent_network_mode = 0;
    c->r.generation = i.generation; /* a removal may be tried again with it, but nothing older may follow */
    if (!removal) {
        c->r.restart_serial = i.restart_serial;
        c->r.outcome = FAILED;
        c->r.error_code = ha_code_of(c->fail_status);
        ha_set_text(core, &c->r.error_message, c->fail_message);
    }
    c->failing = false;
    ha_set_text(core, &c->r.message, c->fail_message);
    if (c->r.pid > 0) {
        ha_process_settle(core, c);
    } else {
        c->r.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED;
        ha_move(core, c, HA_S_FAILED);
    }
    ha_fx_container(core, c);
    struct ha_answer a = answer_of(c, &i, FAILED);
    a.code = ha_code_of(c->fail_status);
    a.message = c->fail_message;
    ha_report_result(core, c, &a);
    ha_intent_done(&i);
}

static void next_job(struct ha_core *core, struct ha_container *c)
{
    if (c->plan.at == c->plan.count) {
        finish_done(core, c);
        return;
    }
    enum ha_job_kind kind = c->plan.jobs[c->plan.at];
    ha_fx_job(core, c, kind, kind == HA_JOB_REMOVE ? NULL : &c->r.intent.spec, c->r.intent.generation);
}

/* Half of a replacement is done: recorded before the other half. */
static void old_is_gone(struct ha_core *core, struct ha_container *c)
{
    c->r.finish_wall_ns = 0;
    c->r.intent.step = 1;
    c->intent_seq = core->write_seq;
    ha_fx_container(core, c);
    ha_move(core, c, HA_S_INTENT);
}

void ha_change_act(struct ha_core *core, struct ha_container *c, bool other_process)
{
    Harpoon__V1__ContainerSpec *applied = NULL, *wanted = NULL;
    const struct ha_intent *i = &c->r.intent;
    bool fresh = is_fresh(c);
    ha_move(core, c, HA_S_ACTING);
    if (i->verb == ENSURE)
        ha_unpack_spec(core, &i->spec, &wanted);
    if (!fresh)
        ha_unpack_spec(core, &c->r.spec, &applied);
    struct ha_plan_input in = {.remove = i->verb == REMOVE,
                               .applied = applied,
                               .wanted = wanted,
                               .applied_serial = c->r.restart_serial,
                               .wanted_serial = i->restart_serial,
                               .exists = c->exists,
                               .complete = c->complete,
                               .running = c->r.pid > 0,
                               .ended = c->r.pid == 0 && c->r.finish_wall_ns > 0,
                               .retry = c->r.outcome == FAILED,
                               .other_process = other_process};
    if (!core->out_of_memory && ha_plan_make(&in, &c->plan))
        core->out_of_memory = true;
    if (wanted)
        harpoon__v1__container_spec__free_unpacked(wanted, NULL);
    if (applied)
        harpoon__v1__container_spec__free_unpacked(applied, NULL);
    if (core->out_of_memory)
        return;
    /* The old one is gone already. That must be known before a new one is made, or a crash would take the new one for the old one. */
    if (!fresh && c->plan.jobs[0] == HA_JOB_CREATE && c->plan.count)
        old_is_gone(core, c);
    else
        next_job(core, c);
}

static void fail(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    c->failing = true;
    c->fail_status = job->status;
    ha_set_text(core, &c->fail_message, job->error.message[0] ? job->error.message : hp_strerror(job->status));
    ha_fx_job(core, c, HA_JOB_INSPECT, NULL, c->r.intent.generation);
}

static void resized(struct ha_core *core, struct ha_container *c)
{
    struct ha_bytes old = c->r.spec;
    struct ha_applied a = c->a;
    c->r.spec = c->r.intent.spec; /* borrowed for the reading */
    if (ha_container_apply_spec(core, c))
        core->out_of_memory = true;
    memcpy(a.limits, c->a.limits, sizeof a.limits);
    c->a = a;
    c->r.spec = old;
}

void ha_change_job_done(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    assert(c->state == HA_S_ACTING);
    if (c->failing) {
        if (job->status == 0)
            ha_container_observe(core, c, &job->result);
        finish_failed(core, c);
        return;
    }
    /* What this intent has made, before a crash, cannot go back to what was before it. */
    if (job->kind == HA_JOB_RESIZE && job->status == HP_ECONFLICT && !is_fresh(c)) {
        ha_set_text(core, &c->fail_message, job->error.message);
        finish_refused(core, c, job->status, c->fail_message);
        return;
    }
    if (job->status) {
        fail(core, c, job);
        return;
    }
    c->plan.at++;
    if (job->kind == HA_JOB_RESIZE) {
        resized(core, c);
    } else if (job->kind == HA_JOB_REMOVE) {
        c->exists = c->complete = false;
        c->r.pid = c->r.pid_start_ticks = 0;
    } else {
        ha_container_observe(core, c, &job->result);
    }
    if (job->kind == HA_JOB_REMOVE && c->plan.replacing)
        old_is_gone(core, c);
    else
        next_job(core, c);
}
