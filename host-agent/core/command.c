/* Commands as they come in: answered at once, queued behind the job under way, or begun (change.c). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"
#include "wire/agent_limits.h"

#define DONE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE
#define STALE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define ENSURE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE
#define REMOVE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE
#define QUARANTINE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_QUARANTINE

typedef Harpoon__Internal__V1__Command command_pb;

static void answer(struct ha_core *core, const struct ha_container *c, const command_pb *cmd,
                   Harpoon__Internal__V1__CommandOutcome outcome, int status, const char *message)
{
    struct ha_answer a = {.uid = cmd->uid,
                          .operation_id = cmd->operation_id,
                          .generation = cmd->generation,
                          .epoch = cmd->epoch,
                          .outcome = outcome,
                          .code = status ? ha_code_of(status) : 0,
                          .message = message};
    if (outcome == REFUSED)
        core->stats.refused++;
    ha_report_result(core, c, &a);
}

static void stale(struct ha_core *core, const command_pb *cmd, int64_t latest, bool removed, const char *message)
{
    struct ha_answer a = {.uid = cmd->uid,
                          .operation_id = cmd->operation_id,
                          .generation = cmd->generation,
                          .epoch = cmd->epoch,
                          .outcome = STALE,
                          .code = ha_code_of(HP_ECONFLICT),
                          .message = message,
                          .latest = latest,
                          .removed = removed};
    core->stats.stale++;
    ha_report_result(core, NULL, &a);
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
    if (strlen(cmd->container) > HP_AGENT_NAME_MAX)
        return "container is longer than 255 bytes";
    switch (cmd->verb) {
    case ENSURE:
        if (!cmd->container[0])
            return "container is missing";
        return cmd->spec && protobuf_c_message_get_packed_size(&cmd->spec->base) ? NULL : "spec is missing in ENSURE";
    case REMOVE:
    case QUARANTINE:
        return NULL;
    default:
        return "the verb is not known to this agent";
    }
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

/* A new container, or another one in its place; what can be changed in place needs none worth speaking of, and may be what frees some. */
static bool needs_room(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    Harpoon__V1__ContainerSpec *applied = NULL;
    bool same = false;
    if (c && c->r.quarantined)
        return false;
    if (!c || !c->exists || !c->r.spec.len)
        return true;
    ha_unpack_spec(core, &c->r.spec, &applied);
    if (!applied)
        return true;
    if (ha_spec_same_core(applied, cmd->spec, &same))
        core->out_of_memory = true;
    harpoon__v1__container_spec__free_unpacked(applied, NULL);
    return !same;
}

/* What the command would have more of than now. What runs is never refused what it has: a restart, a smaller size, another image at the same size. */
static unsigned asks_for(const struct ha_container *c, const command_pb *cmd)
{
    const Harpoon__V1__Resources *want = cmd->spec->resources;
    unsigned more = 0;
    if (!c || (!c->exists && !c->r.quarantined))
        return hp_spec_needs(cmd->spec);
    if (c->r.quarantined)
        return 0;
    if (want && want->cpu_millis > c->a.limits[HA_LIMIT_CPU])
        more |= 1U << HP_RESOURCE_CPU;
    if (want && want->memory_bytes > c->a.limits[HA_LIMIT_MEMORY])
        more |= 1U << HP_RESOURCE_MEMORY;
    return more;
}

/* True: nothing that it asks for is overloaded. Otherwise the command was refused. */
static bool bearable(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    unsigned asked = asks_for(c, cmd), set = 0;
    char text[256] = "";
    for (int r = HP_RESOURCE_COUNT - 1; r >= 0; r--) {
        if (!core->overload[r][0] || !(asked & 1U << r))
            continue;
        set |= 1U << r;
        snprintf(text, sizeof text, "the host is overloaded: %s", core->overload[r]);
    }
    if (!set)
        return true;
    struct ha_answer a = {.uid = cmd->uid,
                          .operation_id = cmd->operation_id,
                          .generation = cmd->generation,
                          .epoch = cmd->epoch,
                          .outcome = REFUSED,
                          .code = ha_code_of(HP_ELIMIT),
                          .message = text,
                          .overloaded = set};
    core->stats.refused++;
    ha_report_result(core, NULL, &a);
    return false;
}

/* True: there is room. Otherwise the command was refused. */
static bool admit(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    char text[256];
    int64_t want = ha_spec_memory_bytes(cmd->spec), others = claimed_by_others(core, c);
    bool grows = !c || want > claim_of(c);
    if (!c && core->containers.count >= HA_CONTAINERS_MAX) {
        snprintf(text, sizeof text, "the host has %d containers, as many as it may have", HA_CONTAINERS_MAX);
        refuse(core, cmd, HP_ELIMIT, text);
        return false;
    }
    int rc = ha_network_check(core, c, cmd->spec, text, sizeof text);
    if (rc) {
        refuse(core, cmd, rc, text);
        return false;
    }
    if (core->no_room[0] && needs_room(core, c, cmd)) {
        refuse(core, cmd, HP_ELIMIT, core->no_room);
        return false;
    }
    if (core->no_storage && (!c || (!c->exists && !c->r.quarantined))) {
        refuse(core, cmd, HP_ELIMIT, core->no_storage);
        return false;
    }
    if (!bearable(core, c, cmd))
        return false;
    if (core->memory_max > 0 && grows && (want > core->memory_max || others > core->memory_max - want)) {
        snprintf(text, sizeof text, "memory_bytes %lld: the host has %lld for containers, of which %lld are taken",
                 (long long)want, (long long)core->memory_max, (long long)others);
        refuse(core, cmd, HP_ELIMIT, text);
        return false;
    }
    return true;
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
    struct ha_answer a = {.uid = cmd->uid,
                          .operation_id = cmd->operation_id,
                          .generation = cmd->generation,
                          .epoch = cmd->epoch,
                          .outcome = (Harpoon__Internal__V1__CommandOutcome)c->r.outcome,
                          .code = c->r.error_code,
                          .message = c->r.error_message};
    ha_report_result(core, c, &a);
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
            stale(core, c->queued, cmd->generation, false, "a newer command came while this one waited");
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

static void forget_refusal(struct ha_core *core, const char *uid)
{
    free(hp_map_remove(&core->refusals, uid));
}

static void remember_refusal(struct ha_core *core, const command_pb *cmd)
{
    struct ha_refusal *x = malloc(sizeof *x);
    forget_refusal(core, cmd->uid);
    if (core->refusals.count == HA_REFUSALS_MAX) /* the oldest: a repeat is late by seconds, not by so many creates */
        forget_refusal(core, hp_map_first(&core->refusals)->key);
    if (!x || hp_map_put(&core->refusals, cmd->uid, x, NULL)) {
        free(x);
        core->out_of_memory = true;
        return;
    }
    *x = (struct ha_refusal){cmd->generation, cmd->epoch};
}

/* True: it was answered. The next reign does not go by answers to the one before: it asks anew, and what it asks is decided anew. */
static bool was_refused(struct ha_core *core, const command_pb *cmd)
{
    char text[128];
    const struct ha_refusal *x = hp_map_get(&core->refusals, cmd->uid);
    if (!x || cmd->generation > x->generation || cmd->epoch > x->epoch)
        return false;
    snprintf(text, sizeof text, "generation %lld was refused before: only a later one is taken",
             (long long)x->generation);
    refuse(core, cmd, HP_ECONFLICT, text);
    return true;
}

/* A command for a uid that is not here. */
static void command_for_absent(struct ha_core *core, const command_pb *cmd)
{
    const struct ha_grave *g = hp_map_get(&core->tombstones, cmd->uid);
    if (g && cmd->verb != QUARANTINE && cmd->generation <= g->t.generation) {
        if (cmd->verb != REMOVE || cmd->generation < g->t.generation)
            stale(core, cmd, g->t.generation, true, "the container was removed by a later generation");
        else if (!ha_report_again(core, cmd->uid, cmd->generation))
            answer(core, NULL, cmd, DONE, 0, NULL);
        return;
    }
    if (cmd->verb == QUARANTINE) {
        refuse(core, cmd, HP_ENOTFOUND, "no such container on this host");
    } else if (cmd->verb == REMOVE) {
        if (make_room_for_tombstone(core))
            ha_change_entomb(core, NULL, cmd->uid, cmd->generation, cmd->operation_id, cmd->epoch);
        else
            refuse(core, cmd, HP_ELIMIT, "too many removals wait for their confirmation");
    } else if (was_refused(core, cmd)) {
        return;
    } else if (!admit(core, NULL, cmd)) {
        remember_refusal(core, cmd);
    } else {
        forget_refusal(core, cmd->uid);
        struct ha_container *c = ha_container_add(core, cmd->uid, cmd->container);
        if (c)
            ha_change_begin(core, c, cmd);
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

/* What was found on the host is what the command wants, but perhaps for what can change in place. */
static bool is_found(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    uint64_t digest = 0;
    if (c->found_generation <= 0 || cmd->generation < c->found_generation || strcmp(c->r.name, cmd->container) != 0)
        return false;
    if (cmd->generation == c->found_generation)
        return true;
    if (ha_spec_digest(cmd->spec, &digest))
        core->out_of_memory = true;
    return digest == c->found_digest;
}

/* The command wants just what was applied last: somebody has decided to keep the container as it is. */
static bool is_applied(struct ha_core *core, const struct ha_container *c, const command_pb *cmd)
{
    Harpoon__V1__ContainerSpec *applied;
    bool same = false;
    if (!c->r.spec.len || cmd->verb != ENSURE || strcmp(c->r.name, cmd->container) != 0)
        return false;
    ha_unpack_spec(core, &c->r.spec, &applied);
    if (!applied)
        return false;
    if (ha_spec_same_core(applied, cmd->spec, &same))
        core->out_of_memory = true;
    harpoon__v1__container_spec__free_unpacked(applied, NULL);
    return same;
}

/* What a create left behind that was cut off, found without a journal: nothing ever ran in it, so there is nothing to keep, and the command makes it anew. */
static bool is_remains(const struct ha_container *c)
{
    return !c->r.spec.len && c->exists && !c->complete;
}

/* There is nothing that could be kept or started: its create failed, or a removal was cut off after it took effect. */
static bool is_gone(const struct ha_container *c)
{
    return !c->exists || (!c->complete && c->r.pid == 0 && c->r.finish_wall_ns == 0);
}

/* A command for a quarantined container, nothing under way: only a removal, or a command for just what it is, which adopts it, or for what was never whole. */
static bool allowed_in_quarantine(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    if (!c->r.quarantined || cmd->verb == REMOVE)
        return true;
    if (is_remains(c)) {
        ha_set_text(core, &c->r.name, cmd->container); /* may not have been written yet */
        return true;
    }
    if (is_applied(core, c, cmd) && cmd->generation == c->r.generation && is_gone(c)) {
        refuse(core, cmd, HP_ECONFLICT, "there is nothing of it on the host: a generation is not created twice");
        return false;
    }
    if (is_found(core, c, cmd) || is_applied(core, c, cmd))
        return true;
    refuse(core, cmd, HP_ECONFLICT, "the container is quarantined: only a removal is allowed");
    return false;
}

static void command_for_present(struct ha_core *core, struct ha_container *c, const command_pb *cmd)
{
    const struct ha_intent *i = &c->r.intent;
    if (cmd->verb == QUARANTINE) {
        /* A removal that waits was decided on by somebody: it is not to be forgotten for a container that is kept until somebody decides. */
        if (c->queued && c->queued->verb == REMOVE)
            refuse(core, cmd, HP_ECONFLICT, "the container is about to be removed");
        else if (busy(c))
            queue(core, c, cmd);
        else
            quarantine(core, c, cmd);
        return;
    }
    if (cmd->generation < latest(c) || (cmd->generation == i->generation && i->verb == REMOVE && cmd->verb != REMOVE)) {
        stale(core, cmd, latest(c), false, "a later generation was received before");
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
        ha_change_begin(core, c, cmd);
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

/* An answer repeats these, and must be one that the router takes and the scheduler understands. */
static bool answerable(const command_pb *cmd)
{
    struct hp_error ignored = {0};
    return cmd->uid[0] && !hp_agent_text_check("uid", cmd->uid, HA_UID_MAX, &ignored) &&
           !hp_agent_text_check("operation_id", cmd->operation_id, HA_UID_MAX, &ignored) &&
           !hp_agent_generation_check("generation", cmd->generation, &ignored);
}

void ha_command(struct ha_core *core, const command_pb *cmd)
{
    core->stats.commands++;
    /* Without room for reports no answer can be kept. The scheduler's deadline deals with that too. */
    if (!answerable(cmd) || core->report_count >= HA_REPORTS_MAX) {
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
