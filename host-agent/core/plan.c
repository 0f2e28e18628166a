#include "core/plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "wire/digest.h"

bool ha_spec_wants_run(const Harpoon__V1__ContainerSpec *spec)
{
    return spec->desired_state != HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
}

int64_t ha_spec_memory_bytes(const Harpoon__V1__ContainerSpec *spec)
{
    return spec && spec->resources && spec->resources->memory_bytes > 0 ? spec->resources->memory_bytes : 0;
}

bool ha_spec_same_resources(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b)
{
    static const Harpoon__V1__Resources none = HARPOON__V1__RESOURCES__INIT;
    const Harpoon__V1__Resources *x = a->resources ? a->resources : &none;
    const Harpoon__V1__Resources *y = b->resources ? b->resources : &none;
    return x->cpu_millis == y->cpu_millis && x->memory_bytes == y->memory_bytes && x->disk_bytes == y->disk_bytes &&
           x->pids_max == y->pids_max && x->io_read_bps == y->io_read_bps && x->io_write_bps == y->io_write_bps &&
           x->io_read_iops == y->io_read_iops && x->io_write_iops == y->io_write_iops &&
           x->network_bps == y->network_bps;
}

/* What cannot change in place: the spec without resources, policies, placement and desired state. A shallow copy; nothing of it is owned. */
static Harpoon__V1__ContainerSpec core_of(const Harpoon__V1__ContainerSpec *spec)
{
    Harpoon__V1__ContainerSpec c = *spec;
    c.resources = NULL;
    c.restart_policy = NULL;
    c.health_check = NULL;
    c.placement = NULL;
    c.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_UNSPECIFIED;
    c.stop_signal = (char *)protobuf_c_empty_string;
    c.stop_grace_seconds = 0;
    c.stateless = false;
    return c;
}

int ha_spec_digest(const Harpoon__V1__ContainerSpec *spec, uint64_t *ret)
{
    Harpoon__V1__ContainerSpec c = core_of(spec);
    uint8_t hash[HP_SHA256_LEN];
    size_t n = protobuf_c_message_get_packed_size(&c.base);
    uint8_t *buf = malloc(n + 1);
    if (!buf)
        return HP_ENOMEM;
    protobuf_c_message_pack(&c.base, buf);
    hp_sha256(hash, buf, n);
    free(buf);
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | hash[i];
    *ret = v ? v : 1;
    return 0;
}

int ha_spec_same_core(const Harpoon__V1__ContainerSpec *a, const Harpoon__V1__ContainerSpec *b, bool *ret)
{
    Harpoon__V1__ContainerSpec x = core_of(a), y = core_of(b);
    size_t n = protobuf_c_message_get_packed_size(&x.base);
    if (n != protobuf_c_message_get_packed_size(&y.base)) {
        *ret = false;
        return 0;
    }
    uint8_t *buf = malloc(2 * n + 1);
    if (!buf)
        return HP_ENOMEM;
    protobuf_c_message_pack(&x.base, buf);
    protobuf_c_message_pack(&y.base, buf + n);
    *ret = memcmp(buf, buf + n, n) == 0;
    free(buf);
    return 0;
}

static void add(struct ha_plan *p, enum ha_job_kind kind)
{
    assert(p->count < HA_PLAN_JOBS_MAX);
    p->jobs[p->count++] = kind;
}

static void plan_replace(struct ha_plan *p, const struct ha_plan_input *in)
{
    if (in->exists) {
        add(p, HA_JOB_REMOVE);
        p->replacing = true;
    }
    add(p, HA_JOB_CREATE);
    p->start = ha_spec_wants_run(in->wanted);
}

/* Nothing is there, or what a create left behind that was cut off or failed: it cannot be started. */
static bool nothing_whole(const struct ha_plan_input *in)
{
    return !in->exists || (!in->complete && !in->running && !in->ended);
}

/* Nothing was applied before, yet something may be there: what a create left behind that was cut off, or finished unnoticed. */
static void plan_create(struct ha_plan *p, const struct ha_plan_input *in)
{
    if (nothing_whole(in)) {
        plan_replace(p, in);
        return;
    }
    /* Which limits it has is not known when it was found and adopted. */
    if (in->running)
        add(p, ha_spec_wants_run(in->wanted) ? HA_JOB_RESIZE : HA_JOB_STOP);
    else if (!in->running && !in->ended && ha_spec_wants_run(in->wanted))
        add(p, HA_JOB_START);
}

static void plan_in_place(struct ha_plan *p, const struct ha_plan_input *in)
{
    bool want = ha_spec_wants_run(in->wanted);
    /* After a failure nobody knows which limits are in force. */
    bool resize = in->retry || !ha_spec_same_resources(in->applied, in->wanted);
    bool serial = in->wanted_serial > in->applied_serial;
    if (in->running) {
        if (resize && want) /* one that is about to stop gets its limits at the next start */
            add(p, HA_JOB_RESIZE);
        if (!want)
            add(p, HA_JOB_STOP);
        else if (serial && !in->other_process)
            add(p, HA_JOB_RESTART);
        return;
    }
    /* A process that ended by itself is the restart policy's business: a change of limits or labels does not run it again. */
    bool ended_by_itself = in->ended && ha_spec_wants_run(in->applied) && !in->retry;
    if (want && (serial || !ended_by_itself))
        add(p, HA_JOB_START);
}

int ha_plan_make(const struct ha_plan_input *in, struct ha_plan *ret)
{
    struct ha_plan p = {0};
    assert(in->remove || in->wanted);
    assert(!in->running || in->exists);
    if (in->remove) {
        add(&p, HA_JOB_REMOVE);
    } else if (!in->applied) {
        plan_create(&p, in);
    } else if (nothing_whole(in)) {
        plan_replace(&p, in);
    } else {
        bool same;
        int rc = ha_spec_same_core(in->applied, in->wanted, &same);
        if (rc)
            return rc;
        if (same)
            plan_in_place(&p, in);
        else
            plan_replace(&p, in);
    }
    *ret = p;
    return 0;
}
