#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_private.h"

void ha_effects_clear(struct ha_effects *fx)
{
    for (size_t i = 0; i < fx->count; i++)
        if (fx->effects[i].owned)
            free(fx->effects[i].send.data);
    fx->count = fx->write_count = 0;
    fx->write_seq = 0;
}

void ha_effects_done(struct ha_effects *fx)
{
    ha_effects_clear(fx);
    free(fx->effects);
    free(fx->writes);
    *fx = (struct ha_effects){0};
}

/* Room for one more element; NULL: out of memory. */
static void *grow(void **items, size_t *cap, size_t count, size_t size)
{
    if (count == *cap) {
        size_t next = *cap ? *cap * 2 : 8;
        void *p = realloc(*items, next * size);
        if (!p)
            return NULL;
        *items = p;
        *cap = next;
    }
    return (char *)*items + count * size;
}

static struct ha_write *write_new(struct ha_core *core, enum ha_write_kind kind)
{
    struct ha_effects *fx = core->fx;
    void *items = fx->writes;
    struct ha_write *w = grow(&items, &fx->write_cap, fx->write_count, sizeof *w);
    fx->writes = items;
    if (!w) {
        core->out_of_memory = true;
        return NULL;
    }
    fx->write_count++;
    *w = (struct ha_write){.kind = kind};
    return w;
}

static struct ha_effect *effect_new(struct ha_core *core, enum ha_effect_kind kind)
{
    struct ha_effects *fx = core->fx;
    void *items = fx->effects;
    struct ha_effect *f = grow(&items, &fx->cap, fx->count, sizeof *f);
    fx->effects = items;
    if (!f) {
        core->out_of_memory = true;
        return NULL;
    }
    fx->count++;
    *f = (struct ha_effect){.kind = kind};
    return f;
}

void ha_fx_container(struct ha_core *core, struct ha_container *c)
{
    /* The record is read after the step, so once is enough. */
    for (size_t i = 0; i < core->fx->write_count; i++)
        if (core->fx->writes[i].kind == HA_WRITE_CONTAINER && core->fx->writes[i].record == &c->r)
            return;
    struct ha_write *w = write_new(core, HA_WRITE_CONTAINER);
    if (w)
        w->record = &c->r;
}

static void write_uid(struct ha_core *core, enum ha_write_kind kind, const char *uid)
{
    struct ha_write *w = write_new(core, kind);
    if (w)
        memcpy(w->uid, uid, strlen(uid) + 1);
}

void ha_fx_container_delete(struct ha_core *core, const char *uid)
{
    write_uid(core, HA_WRITE_CONTAINER_DELETE, uid);
}

void ha_fx_meta(struct ha_core *core, enum ha_meta_key key, int64_t value)
{
    assert(value >= core->meta[key]);
    core->meta[key] = value;
    struct ha_write *w = write_new(core, HA_WRITE_META);
    if (w) {
        w->meta_key = key;
        w->number = value;
    }
}

void ha_fx_report(struct ha_core *core, const struct ha_report_row *row)
{
    struct ha_write *w = write_new(core, HA_WRITE_REPORT);
    if (w)
        w->report = row;
}

void ha_fx_report_delete(struct ha_core *core, int64_t id)
{
    struct ha_write *w = write_new(core, HA_WRITE_REPORT_DELETE);
    if (w)
        w->number = id;
}

void ha_fx_tombstone(struct ha_core *core, const struct ha_tombstone *t)
{
    struct ha_write *w = write_new(core, HA_WRITE_TOMBSTONE);
    if (w)
        w->tombstone = t;
}

void ha_fx_tombstone_delete(struct ha_core *core, const char *uid)
{
    write_uid(core, HA_WRITE_TOMBSTONE_DELETE, uid);
}

void ha_fx_job(struct ha_core *core, struct ha_container *c, enum ha_job_kind kind, const struct ha_bytes *spec,
               int64_t generation)
{
    assert(c->job < 0);
    struct ha_effect *f = effect_new(core, HA_EF_JOB);
    c->job = (int8_t)kind;
    if (!f)
        return;
    f->job.kind = kind;
    f->job.uid = c->r.uid;
    f->job.container = c->r.name;
    f->job.generation = generation;
    if (spec)
        f->job.spec = *spec;
    if (kind == HA_JOB_CREATE)
        f->job.start = c->plan.start;
    if (kind == HA_JOB_REMOVE)
        f->job.replacing = c->plan.replacing;
    if (kind == HA_JOB_PROBE)
        f->job.deadline_ms = c->a.probe_timeout_ms;
}

void ha_fx_session(struct ha_core *core, int64_t session)
{
    struct ha_effect *f = effect_new(core, HA_EF_SESSION);
    if (f)
        f->session = session;
}

struct ha_bytes ha_fx_pack(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m)
{
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(m);
    uint8_t *data = malloc(n ? n : 1);
    if (!data) {
        core->out_of_memory = true;
        return (struct ha_bytes){0};
    }
    harpoon__internal__v1__agent_message__pack(m, data);
    return (struct ha_bytes){data, n};
}

void ha_fx_send_owned(struct ha_core *core, struct ha_bytes body)
{
    struct ha_effect *f = effect_new(core, HA_EF_SEND);
    if (!f) {
        free(body.data);
        return;
    }
    f->send = body;
    f->owned = true;
}

void ha_fx_send(struct ha_core *core, const Harpoon__Internal__V1__AgentMessage *m)
{
    struct ha_bytes body = ha_fx_pack(core, m);
    if (body.data)
        ha_fx_send_owned(core, body);
}

void ha_fx_send_borrowed(struct ha_core *core, const struct ha_bytes *body)
{
    struct ha_effect *f = effect_new(core, HA_EF_SEND);
    if (f)
        f->send = *body;
}
