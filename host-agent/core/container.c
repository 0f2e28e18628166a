#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"
#include "wire/codec.h"
#include "wire/utf8.h"

#define BIT(s) (1u << HA_S_##s)

/* Allowed successors. */
static const uint16_t successors[HA_S_COUNT] = {
    [HA_S_NEW] = BIT(INTENT) | BIT(INSPECTING) | BIT(QUARANTINED),
    [HA_S_INSPECTING] =
        BIT(INTENT) | BIT(ACTING) | BIT(RUNNING) | BIT(STOPPED) | BIT(BACKOFF) | BIT(FAILED) | BIT(QUARANTINED),
    [HA_S_INTENT] = BIT(ACTING),
    [HA_S_ACTING] = BIT(INTENT) | BIT(RUNNING) | BIT(STOPPED) | BIT(BACKOFF) | BIT(FAILED) | BIT(GONE),
    [HA_S_RUNNING] = BIT(INTENT) | BIT(STOPPED) | BIT(BACKOFF) | BIT(FAILED) | BIT(RESTARTING) | BIT(QUARANTINED),
    [HA_S_STOPPED] = BIT(INTENT) | BIT(QUARANTINED),
    [HA_S_BACKOFF] = BIT(INTENT) | BIT(RESTARTING) | BIT(QUARANTINED),
    [HA_S_RESTARTING] = BIT(RUNNING) | BIT(STOPPED) | BIT(BACKOFF) | BIT(FAILED),
    [HA_S_FAILED] = BIT(INTENT) | BIT(QUARANTINED),
    [HA_S_QUARANTINED] = BIT(INTENT),
    [HA_S_GONE] = 0,
};

static const char *const state_names[HA_S_COUNT] = {"new",     "inspecting",  "intent",  "acting",
                                                    "running", "stopped",     "backoff", "restarting",
                                                    "failed",  "quarantined", "gone"};

const char *ha_state_name(enum ha_state s)
{
    return s < HA_S_COUNT ? state_names[s] : "?";
}

/* The invariant: which job may be under way where, and what an intent and a timer go with. */
void ha_container_check(const struct ha_container *c)
{
    switch (c->state) {
    case HA_S_INTENT:
        assert(c->r.intent.generation > 0 && c->job < 0);
        break;
    case HA_S_ACTING:
        assert(c->r.intent.generation > 0);
        break;
    case HA_S_RUNNING:
        assert(c->r.intent.generation == 0 && c->r.pid > 0);
        assert(c->job < 0 || c->job == HA_JOB_PROBE);
        break;
    case HA_S_BACKOFF:
        assert(c->r.pid == 0 && c->timer_ms != UINT64_MAX);
        __attribute__((fallthrough));
    case HA_S_STOPPED:
    case HA_S_FAILED:
    case HA_S_QUARANTINED:
        assert(c->job < 0 && c->r.intent.generation == 0);
        break;
    case HA_S_RESTARTING:
        assert(c->r.intent.generation == 0);
        break;
    case HA_S_NEW:
    case HA_S_INSPECTING:
    case HA_S_GONE:
    case HA_S_COUNT:
        break;
    }
}

void ha_move(struct ha_core *core, struct ha_container *c, enum ha_state next)
{
    assert(next < HA_S_COUNT);
    assert(successors[c->state] & (1u << next));
    c->state = next;
    if (next != HA_S_BACKOFF && next != HA_S_RUNNING && next != HA_S_INSPECTING)
        c->timer_ms = UINT64_MAX;
}

struct ha_container *ha_container_find(const struct ha_core *core, const char *uid)
{
    return hp_map_get(&core->containers, uid);
}

struct ha_container *ha_container_add(struct ha_core *core, const char *uid, const char *name)
{
    assert(strlen(uid) <= HA_UID_MAX);
    assert(!ha_container_find(core, uid));
    struct ha_container *c = calloc(1, sizeof *c);
    if (!c)
        goto fail;
    memcpy(c->r.uid, uid, strlen(uid) + 1);
    c->r.name = strdup(name);
    c->job = -1;
    c->timer_ms = UINT64_MAX;
    if (!c->r.name || hp_map_put(&core->containers, uid, c, NULL))
        goto fail;
    return c;
fail:
    ha_container_free(c);
    core->out_of_memory = true;
    return NULL;
}

void ha_container_bury(struct ha_core *core, struct ha_container *c)
{
    assert(c->state == HA_S_GONE && c->job < 0);
    void *removed = hp_map_remove(&core->containers, c->r.uid);
    assert(removed == c);
    (void)removed;
    c->dead_next = core->dead;
    core->dead = c;
}

void ha_container_free(struct ha_container *c)
{
    if (!c)
        return;
    ha_record_done(&c->r);
    free(c->fail_message);
    free(c->exit);
    if (c->queued)
        harpoon__internal__v1__command__free_unpacked(c->queued, NULL);
    free(c);
}

void ha_set_text(struct ha_core *core, char **field, const char *text)
{
    char *copy = text && *text ? strdup(text) : NULL;
    if (text && *text && !copy) {
        core->out_of_memory = true;
        return;
    }
    if (copy) /* such as a runtime's words about a file whose name is no text: a router would refuse all of it */
        hp_utf8_mend(copy);
    free(*field);
    *field = copy;
}

void ha_unpack_spec(struct ha_core *core, const struct ha_bytes *b, Harpoon__V1__ContainerSpec **ret)
{
    *ret = harpoon__v1__container_spec__unpack(NULL, b->len, b->data);
    if (!*ret) /* it came through our own packing, or was checked at start: only memory can be missing */
        core->out_of_memory = true;
}

static uint32_t or_default(int32_t value, uint32_t fallback)
{
    return value > 0 ? (uint32_t)value : fallback;
}

static void apply_policy(struct ha_applied *a, const Harpoon__V1__RestartPolicy *p)
{
    static const Harpoon__V1__RestartPolicy none = HARPOON__V1__RESTART_POLICY__INIT;
    if (!p)
        p = &none;
    a->restart_mode = p->mode == HARPOON__V1__RESTART_MODE__RESTART_MODE_UNSPECIFIED
                          ? HARPOON__V1__RESTART_MODE__RESTART_MODE_ALWAYS
                          : (int32_t)p->mode;
    a->restarts_max = p->max_restarts > 0 ? p->max_restarts : 0;
    a->backoff_initial_ms = or_default(p->backoff_initial_ms, 1000);
    a->backoff_max_ms = or_default(p->backoff_max_ms, 300000);
    if (a->backoff_max_ms < a->backoff_initial_ms)
        a->backoff_max_ms = a->backoff_initial_ms;
}

static void apply_health(struct ha_applied *a, const Harpoon__V1__HealthCheck *h)
{
    a->probed = h && h->probe_case != HARPOON__V1__HEALTH_CHECK__PROBE__NOT_SET;
    if (!a->probed)
        return;
    a->probe_interval_ms = or_default(h->interval_ms, 10000);
    if (a->probe_interval_ms < 100)
        a->probe_interval_ms = 100;
    a->probe_timeout_ms = or_default(h->timeout_ms, 1000);
    a->probe_failures_max = h->failure_threshold > 0 ? h->failure_threshold : 3;
    a->probe_start_ms = h->start_period_ms > 0 ? (uint32_t)h->start_period_ms : 0;
    a->restart_when_unhealthy = h->restart_when_unhealthy;
}

int ha_container_apply_spec(struct ha_core *core, struct ha_container *c)
{
    struct ha_applied a = {0};
    if (c->r.spec.len) {
        ProtobufCMessage *m = NULL;
        int rc = hp_unpack(&harpoon__v1__container_spec__descriptor, c->r.spec.data, c->r.spec.len, NULL, &m, NULL);
        if (rc)
            return rc == HP_ENOMEM ? rc : HP_EINVAL;
        const Harpoon__V1__ContainerSpec *spec = (const Harpoon__V1__ContainerSpec *)m;
        const Harpoon__V1__Resources *r = spec->resources;
        if (r) {
            const int64_t limits[HA_LIMITS] = {r->cpu_millis,   r->memory_bytes,  r->disk_bytes,
                                               r->pids_max,     r->io_read_bps,   r->io_write_bps,
                                               r->io_read_iops, r->io_write_iops, r->network_bps};
            memcpy(a.limits, limits, sizeof limits);
        }
        a.wants_run = ha_spec_wants_run(spec);
        a.network_mode = ha_network_mode(spec);
        apply_policy(&a, spec->restart_policy);
        apply_health(&a, spec->health_check);
        hp_unpacked_free(m);
    }
    c->a = a;
    return 0;
}

void ha_container_observe(struct ha_core *core, struct ha_container *c, const struct ha_rt_state *s)
{
    c->exists = s->exists || s->running;
    c->complete = c->exists && (s->complete || s->running);
    c->r.pid = s->running ? s->pid : 0;
    c->r.pid_start_ticks = s->running ? s->pid_start_ticks : 0;
    if (s->address[0])
        ha_set_text(core, &c->r.address, s->address);
    if (s->image_digest[0])
        ha_set_text(core, &c->r.image_digest, s->image_digest);
    if (s->start_wall_ns)
        c->r.start_wall_ns = s->start_wall_ns;
    if (!s->running && s->finish_wall_ns) {
        c->r.finish_wall_ns = s->finish_wall_ns;
        c->r.exit_code = s->exit_code;
        c->r.oom_killed = s->oom_killed;
    }
}
