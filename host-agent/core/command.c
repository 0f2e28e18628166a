/* Commands: accepted, refused or queued; recorded as an intent; carried out as a plan of jobs; ended with a durable result. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

#define DONE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE
#define FAILED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED
#define STALE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define ENSURE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE
#define REMOVE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE
#define QUARANTINE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_QUARANTINE

typedef Harpoon__Internal__V1__Command command_pb;

static void answer(struct ha_core *core, const struct ha_container *c, const command_pb *cmd,
                   Harpoon__Internal__V1__CommandOutcome outcome, int status, const char *message)
{
    if (outcome == STALE)
        core->stats.stale++;
    if (outcome == REFUSED)
        core->stats.refused++;
    ha_report_result(core, c, cmd->uid, cmd->generation, cmd->operation_id, cmd->epoch, outcome,
                     status ? ha_code_of(status) : 0, message);
}

static void refuse(struct ha_core *core, const command_pb *cmd, int status, const char *message)
{
    answer(core, NULL, cmd, REFUSED, status, message);
}

/* What is wrong with a command's form; NULL: nothing. */
static const char *malformed(const command_pb *cmd)
{
    if (cmd->generation < 1 && cmd->verb != QUARANTINE)
        return "generation must be at least 1";
    if (strlen(cmd->operation_id) > HA_UID_MAX)
        return "operation_id is longer than 63 bytes";
    if (strlen(cmd->container) > 255)
        return "container is longer than 255 bytes";
    switch (cmd->verb) {
    case ENSURE:
        if (!cmd->container[0])
            return "container is missing";
        return cmd->spec ? NULL : "spec is missing in ENSURE";
    case REMOVE:
    case QUARANTINE:
        return NULL;
    default:
        return "the verb is not known to this agent";
    }
}

static int64_t memory_of(const Harpoon__V1__ContainerSpec *spec)
{
    return spec && spec->resources && spec->resources->memory_bytes > 0 ? spec->resources->memory_bytes : 0;
}

static int64_t claim_of(const struct ha_container *c)
{
    int64_t in_force = c->a.limits[HA_LIMIT_MEMORY];
    return c->intent_memory_bytes > in_force ? c->intent_memory_bytes : in_force;
}

/* The memory of all containers but one. */
static int64_t claimed_by_others(const struct ha_core *core, const struct ha_container *but)
{
    int64_t sum = 0;
    for (struct hp_map_node *n = hp_map_first(&core->containers); n; n = hp_map_next(n))
        if (n->value != but && __builtin_add_overflow(sum, claim_of(n->value), &sum))
            return INT64_MAX;
    return sum;
}

/* True: there is room. Otherwise the command was refused. */
static bool admit(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    char text[256];
    int64_t want = memory_of(cmd->spec), others = claimed_by_others(core, c);
    bool grows = !c || want > claim_of(c);
    if (!c && core->containers.count >= HA_CONTAINERS_MAX) {
        snprintf(text, sizeof text, "the host has %d containers, as many as it may have", HA_CONTAINERS_MAX);
        refuse(core, cmd, HP_ELIMIT, text);
        return false;
    }
    if (core->memory_max > 0 && grows && (want > core->memory_max || others > core->memory_max - want)) {
        snprintf(text, sizeof text, "memory_bytes %lld: the host has %lld for containers, of which %lld are taken",
                 (long long)want, (long long)core->memory_max, (long long)others);
        refuse(core, cmd, HP_ELIMIT, text);
        return false;
    }
    return true;
}

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
static void begin(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
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
        c->intent_memory_bytes = memory_of(cmd->spec);
        c->r.quarantined = false;
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

static void quarantine(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    if (c->state != HA_S_QUARANTINED)
        ha_move(core, c, HA_S_QUARANTINED);
    c->r.quarantined = true;
    c->found_generation = 0;
    ha_set_text(core, &c->r.message, "quarantined: left as it is until it is removed");
    ha_fx_container(core, c);
    answer(core, c, cmd, DONE, 0, NULL);
}

/* The same generation again: the result that there was, with what is observed now. */
static void repeat(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    if (ha_report_again(core, cmd->uid, cmd->generation))
        return;
    ha_report_result(core, c, cmd->uid, cmd->generation, cmd->operation_id, cmd->epoch,
                     (Harpoon__Internal__V1__CommandOutcome)c->r.outcome, c->r.error_code, c->r.error_message);
}

static void queue(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    command_pb *copy = NULL;
    size_t n = harpoon__internal__v1__command__get_packed_size(cmd);
    uint8_t *data = malloc(n ? n : 1);
    if (data) {
        harpoon__internal__v1__command__pack(cmd, data);
        copy = harpoon__internal__v1__command__unpack(NULL, n, data);
        free(data);
    }
    if (!copy) {
        core->out_of_memory = true;
        return;
    }
    if (c->queued) {
        if (c->queued->generation != cmd->generation || c->queued->verb != cmd->verb)
            answer(core, NULL, c->queued, STALE, HP_ECONFLICT, "a newer command came while this one waited");
        harpoon__internal__v1__command__free_unpacked(c->queued, NULL);
    }
    c->queued = copy;
}

/* Forgets the oldest confirmed tombstone when they are too many. False: none can be forgotten. */
static bool make_room_for_tombstone(struct ha_core *core)
{
    if (core->tombstones.count < HA_TOMBSTONES_MAX)
        return true;
    for (struct hp_map_node *n = hp_map_first(&core->tombstones); n; n = hp_map_next(n)) {
        struct ha_grave *g = n->value;
        if (g->t.report_id)
            continue;
        ha_fx_tombstone_delete(core, g->t.uid);
        hp_map_remove(&core->tombstones, g->t.uid);
        free(g);
        return true;
    }
    return false;
}

/* Writes the tombstone and the result of a removal; `c` (may be NULL) is about to go. */
static void entomb(struct ha_core *core, struct ha_container *c, const char *uid, int64_t generation,
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
    ha_report_result(core, NULL, uid, generation, operation_id, epoch, DONE, 0, NULL);
    ha_fx_tombstone(core, &g->t);
}

/* A command for a uid that is not here. */
static void command_for_absent(struct ha_core *core, const command_pb *cmd)
{
    const struct ha_grave *g = hp_map_get(&core->tombstones, cmd->uid);
    if (g && cmd->verb != QUARANTINE && cmd->generation <= g->t.generation) {
        if (cmd->verb != REMOVE || cmd->generation < g->t.generation)
            answer(core, NULL, cmd, STALE, HP_ECONFLICT, "the container was removed by a later generation");
        else if (!ha_report_again(core, cmd->uid, cmd->generation))
            answer(core, NULL, cmd, DONE, 0, NULL);
        return;
    }
    if (cmd->verb == QUARANTINE) {
        refuse(core, cmd, HP_ENOTFOUND, "no such container on this host");
    } else if (cmd->verb == REMOVE) {
        if (make_room_for_tombstone(core))
            entomb(core, NULL, cmd->uid, cmd->generation, cmd->operation_id, cmd->epoch);
        else
            refuse(core, cmd, HP_ELIMIT, "too many removals wait for their confirmation");
    } else if (admit(core, NULL, cmd)) {
        struct ha_container *c = ha_container_add(core, cmd->uid, cmd->container);
        if (c)
            begin(core, c, cmd);
    }
}

static bool busy(const struct ha_container *c)
{
    return c->job >= 0 || c->state == HA_S_INTENT || c->state == HA_S_ACTING || c->state == HA_S_INSPECTING ||
           c->state == HA_S_RESTARTING || c->state == HA_S_NEW;
}

static int64_t latest(const struct ha_container *c)
{
    int64_t g = c->r.generation;
    if (c->r.intent.generation > g)
        g = c->r.intent.generation;
    if (c->queued && c->queued->generation > g)
        g = c->queued->generation;
    return g;
}

/* A command for a quarantined container, nothing under way: only a removal, or the very command that made it. */
static bool allowed_in_quarantine(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    if (!c->r.quarantined || cmd->verb == REMOVE)
        return true;
    if (c->found_generation > 0 && c->found_generation == cmd->generation && strcmp(c->r.name, cmd->container) == 0)
        return true;
    refuse(core, cmd, HP_ECONFLICT, "the container is quarantined: only a removal is allowed");
    return false;
}

static void command_for_present(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    const struct ha_intent *i = &c->r.intent;
    if (cmd->verb == QUARANTINE) {
        if (busy(c))
            queue(core, c, cmd);
        else
            quarantine(core, c, cmd);
        return;
    }
    if (cmd->generation < latest(c) || (cmd->generation == i->generation && i->verb == REMOVE && cmd->verb != REMOVE)) {
        answer(core, NULL, cmd, STALE, HP_ECONFLICT, "a later generation was received before");
        return;
    }
    if (cmd->generation == i->generation && (int32_t)cmd->verb == i->verb) {
        if (c->state == HA_S_ACTING)
            ha_report_journalled(core, c);
        return;
    }
    if (cmd->generation == c->r.generation && cmd->verb == ENSURE && !c->r.quarantined) {
        repeat(core, c, cmd);
        return;
    }
    if (busy(c)) {
        queue(core, c, cmd);
        return;
    }
    if (!allowed_in_quarantine(core, c, cmd))
        return;
    if (cmd->verb == REMOVE ? make_room_for_tombstone(core) : admit(core, c, cmd))
        begin(core, c, cmd);
    else if (cmd->verb == REMOVE)
        refuse(core, cmd, HP_ELIMIT, "too many removals wait for their confirmation");
}

static void dispatch(struct ha_core *core, const command_pb *cmd)
{
    char text[160];
    if (cmd->epoch < core->meta[HA_META_EPOCH]) {
        snprintf(text, sizeof text, "epoch %lld is over: the host has seen epoch %lld", (long long)cmd->epoch,
                 (long long)core->meta[HA_META_EPOCH]);
        refuse(core, cmd, HP_EFENCED, text);
        return;
    }
    struct ha_container *c = ha_container_find(core, cmd->uid);
    if (c)
        command_for_present(core, c, cmd);
    else
        command_for_absent(core, cmd);
}

void ha_command(struct ha_core *core, const command_pb *cmd)
{
    core->stats.commands++;
    /* Without a uid no answer can be understood; without room for reports none can be kept. The scheduler's deadline deals with both. */
    if (!cmd->uid[0] || strlen(cmd->uid) > HA_UID_MAX || core->report_count >= HA_REPORTS_MAX) {
        core->stats.dropped++;
        return;
    }
    const char *wrong = malformed(cmd);
    if (wrong) {
        refuse(core, cmd, HP_EINVAL, wrong);
        return;
    }
    if (cmd->epoch > core->meta[HA_META_EPOCH])
        ha_fx_meta(core, HA_META_EPOCH, cmd->epoch);
    dispatch(core, cmd);
}

void ha_command_next(struct ha_core *core, struct ha_container *c)
{
    if (!c->queued || busy(c))
        return;
    command_pb *cmd = c->queued;
    c->queued = NULL;
    dispatch(core, cmd);
    harpoon__internal__v1__command__free_unpacked(cmd, NULL);
}

void ha_command_synced(struct ha_core *core, struct ha_container *c)
{
    assert(c->state == HA_S_INTENT);
    if (c->r.intent.step == 0)
        ha_report_journalled(core, c);
    ha_command_act(core, c, false);
}

/* Back to what was before the intent: nothing was changed. */
static void finish_refused(struct ha_core *core, struct ha_container *c, int status, const char *message)
{
    core->stats.refused++;
    ha_report_result(core, c, c->r.uid, c->r.intent.generation, c->r.intent.operation_id, c->r.intent.epoch, REFUSED,
                     ha_code_of(status), message);
    ha_intent_done(&c->r.intent);
    c->intent_memory_bytes = 0;
    ha_process_settle(core, c);
    ha_fx_container(core, c);
}

static void finish_removed(struct ha_core *core, struct ha_container *c)
{
    struct ha_intent *i = &c->r.intent;
    command_pb *queued = c->queued;
    c->queued = NULL;
    entomb(core, c, c->r.uid, i->generation, i->operation_id, i->epoch);
    ha_fx_container_delete(core, c->r.uid);
    ha_move(core, c, HA_S_GONE);
    ha_container_bury(core, c);
    if (queued) {
        dispatch(core, queued);
        harpoon__internal__v1__command__free_unpacked(queued, NULL);
    }
}

/* The intent has become the applied state. */
static void adopt_intent(struct ha_core *core, struct ha_container *c)
{
    struct ha_intent *i = &c->r.intent;
    ha_bytes_done(&c->r.spec);
    c->r.spec = i->spec;
    i->spec = (struct ha_bytes){0};
    c->r.restart_serial = i->restart_serial;
    if (!ha_container_apply_spec(core, c))
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
    c->r.generation = i.generation;
    c->r.outcome = DONE;
    c->r.error_code = 0;
    ha_set_text(core, &c->r.error_message, NULL);
    ha_set_text(core, &c->r.message, NULL);
    c->r.restart_count = c->backoff_count = 0;
    c->found_generation = 0;
    ha_process_settle(core, c);
    ha_fx_container(core, c);
    ha_report_result(core, c, c->r.uid, i.generation, i.operation_id, i.epoch, DONE, 0, NULL);
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
    int64_t limits[8];
    memcpy(limits, c->a.limits, sizeof limits); /* a resize before the failing job is in force */
    if (!ha_container_apply_spec(core, c))
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

static void finish_failed(struct ha_core *core, struct ha_container *c)
{
    bool removal = c->r.intent.verb == REMOVE, want = intent_wants_run(core, c);
    core->stats.failed++;
    if (!removal && (!c->r.spec.len || c->r.intent.step > 0))
        adopt_intent(core, c);
    else if (c->r.spec.len)
        keep_old_spec(core, c, want);
    struct ha_intent i = c->r.intent;
    c->r.intent = (struct ha_intent){0};
    c->intent_memory_bytes = 0;
    if (!removal) { /* a removal may be tried again with the same generation */
        c->r.generation = i.generation;
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
    ha_report_result(core, c, c->r.uid, i.generation, i.operation_id, i.epoch, FAILED, ha_code_of(c->fail_status),
                     c->fail_message);
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

void ha_command_act(struct ha_core *core, struct ha_container *c, bool other_process)
{
    Harpoon__V1__ContainerSpec *applied = NULL, *wanted = NULL;
    const struct ha_intent *i = &c->r.intent;
    bool fresh = !c->r.spec.len || i->step > 0;
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
    if (!ha_container_apply_spec(core, c))
        core->out_of_memory = true;
    memcpy(a.limits, c->a.limits, sizeof a.limits);
    c->a = a;
    c->r.spec = old;
}

void ha_command_job_done(struct ha_core *core, struct ha_container *c, const struct ha_job *job)
{
    assert(c->state == HA_S_ACTING);
    if (c->failing) {
        if (job->status == 0)
            ha_container_observe(core, c, &job->result);
        finish_failed(core, c);
        return;
    }
    if (job->kind == HA_JOB_RESIZE && job->status == HP_ECONFLICT) {
        finish_refused(core, c, job->status, job->error.message);
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
