/* Turns events of link, journal, runtime and timers into steps of the core, and carries out what it answers: writes first, then jobs and messages. */
#include "shell/agent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "core/plan.h"
#include "io/loop.h"

struct ha_agent {
    struct ha_env *env;
    struct ha_agent_options o;
    struct ha_core *core;
    struct ha_link *link; /* NULL: closed */
    struct ha_timer timer;
    struct agent_job *jobs; /* under way */
    bool failed, closing;
    void (*closed_cb)(void *user);
};

/* A job under way, with what its pointers point to. */
struct agent_job {
    struct ha_job job;
    struct ha_agent *agent;
    struct agent_job *prev, *next;
    Harpoon__V1__ContainerSpec *spec;
    char uid[HA_UID_MAX + 1];
    char container[256];
};

static void step(struct ha_agent *a, struct ha_event *ev);
static void maybe_closed(struct ha_agent *a);
static void give_up(struct ha_agent *a);

int ha_env_init(struct ha_env *env, uv_loop_t *loop, uint64_t seed, struct hp_error *e)
{
    *env = (struct ha_env){.loop = loop};
    hp_rng_init(&env->rng, seed);
    return ha_timers_new(loop, &env->timers, e);
}

void ha_env_close(struct ha_env *env)
{
    ha_timers_close(env->timers);
    ha_effects_done(&env->fx);
    env->timers = NULL;
}

static void failed(struct ha_agent *a, const struct hp_error *e)
{
    if (a->failed)
        return;
    a->failed = true;
    a->o.on_failed(a->o.user, e);
}

static void job_free(struct agent_job *j)
{
    struct ha_agent *a = j->agent;
    if (j->prev)
        j->prev->next = j->next;
    else
        a->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
    if (j->spec)
        harpoon__v1__container_spec__free_unpacked(j->spec, NULL);
    free(j);
}

static void job_done(struct ha_job *job)
{
    struct agent_job *j = job->user;
    struct ha_agent *a = j->agent;
    struct ha_event ev = {.kind = HA_EV_JOB_DONE, .job = job};
    if (job->status)
        hp_warn("job failed", HP_S("host", a->o.core.host), HP_S("container", j->container), HP_S("uid", j->uid),
                HP_I("job", job->kind), HP_S("error", job->error.message));
    step(a, &ev);
    job_free(j);
    maybe_closed(a);
}

static void submit(struct ha_agent *a, const struct ha_effect *f)
{
    struct agent_job *j = calloc(1, sizeof *j);
    if (j && f->job.spec.len)
        j->spec = harpoon__v1__container_spec__unpack(NULL, f->job.spec.len, f->job.spec.data);
    if (!j || (f->job.spec.len && !j->spec)) {
        struct hp_error e = {0};
        free(j);
        hp_fail(&e, HP_ENOMEM, "a job for the runtime");
        failed(a, &e);
        return;
    }
    j->agent = a;
    j->next = a->jobs;
    if (j->next)
        j->next->prev = j;
    a->jobs = j;
    memcpy(j->uid, f->job.uid, strlen(f->job.uid) + 1);
    size_t n = strlen(f->job.container);
    memcpy(j->container, f->job.container, n < sizeof j->container ? n : sizeof j->container - 1);
    j->job = (struct ha_job){.kind = f->job.kind,
                             .uid = j->uid,
                             .container = j->container,
                             .generation = f->job.generation,
                             .spec = j->spec,
                             .start = f->job.start,
                             .replacing = f->job.replacing,
                             .deadline_ms = f->job.deadline_ms,
                             .done_cb = job_done,
                             .user = j};
    if (f->job.kind == HA_JOB_CREATE && ha_spec_digest(j->spec, &j->job.spec_digest))
        j->job.spec_digest = 0; /* not known, then */
    a->o.runtime->submit(a->o.runtime, &j->job);
}

static void perform(struct ha_agent *a, const struct ha_effects *fx)
{
    if (fx->write_count)
        a->o.journal->write(a->o.journal, fx->write_seq, fx->writes, fx->write_count);
    for (size_t i = 0; i < fx->count && !a->failed; i++) {
        const struct ha_effect *f = &fx->effects[i];
        switch (f->kind) {
        case HA_EF_JOB:
            submit(a, f);
            break;
        case HA_EF_SESSION:
            if (a->link)
                ha_link_session(a->link, f->session);
            break;
        case HA_EF_SEND:
            if (a->link)
                ha_link_send(a->link, f->send.data, f->send.len);
            break;
        }
    }
}

static void step(struct ha_agent *a, struct ha_event *ev)
{
    struct ha_env *env = a->env;
    if (a->failed)
        return;
    assert(!env->stepping); /* nobody calls back from inside a submit, a write or a send */
    ev->now_ms = hp_now_ms();
    ev->wall_ns = hp_wall_ns();
    env->stepping = true;
    int rc = ha_core_step(a->core, ev, &env->fx);
    if (!rc)
        perform(a, &env->fx);
    ha_effects_clear(&env->fx);
    env->stepping = false;
    if (rc) {
        struct hp_error e = {0};
        hp_fail(&e, rc, "the agent's core ran out of memory");
        failed(a, &e);
        return;
    }
    if (!a->closing)
        ha_timer_set(env->timers, &a->timer, ha_core_deadline_ms(a->core));
}

/* ---- journal, runtime, timers ---- */

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    struct ha_agent *a = user;
    struct ha_event ev = {.kind = HA_EV_SYNCED, .synced_seq = seq};
    if (status) {
        failed(a, e);
        return;
    }
    step(a, &ev);
    maybe_closed(a);
}

static void on_exited(void *user, const char *uid, const struct ha_rt_state *state)
{
    struct ha_event ev = {.kind = HA_EV_EXITED, .exited = {.uid = uid, .state = state}};
    step(user, &ev);
}

static void on_timer(struct ha_timer *t)
{
    struct ha_agent *a = (struct ha_agent *)((char *)t - offsetof(struct ha_agent, timer));
    struct ha_event ev = {.kind = HA_EV_TIMER};
    if (a->closing) {
        give_up(a);
        return;
    }
    step(a, &ev);
}

/* ---- link ---- */

static void on_session_wanted(void *user)
{
    struct ha_event ev = {.kind = HA_EV_SESSION_WANTED};
    step(user, &ev);
}

static void fill_hello(void *user, Harpoon__Internal__V1__AgentHello *hello)
{
    struct ha_agent *a = user;
    static Harpoon__Internal__V1__InventoryDigest digest;
    harpoon__internal__v1__inventory_digest__init(&digest);
    ha_core_digest(a->core, &digest.count, &digest.digest);
    int32_t min = hello->version_min, max = hello->version_max;
    if (a->o.self)
        *hello = *a->o.self;
    hello->version_min = min;
    hello->version_max = max;
    hello->region = (char *)a->o.core.region;
    hello->host = (char *)a->o.core.host;
    hello->digest = &digest;
}

static void on_up(void *user, const char *router)
{
    struct ha_agent *a = user;
    struct ha_event ev = {.kind = HA_EV_LINK_UP};
    hp_debug("attached", HP_S("host", a->o.core.host), HP_S("router", router));
    step(a, &ev);
    if (a->o.on_link)
        a->o.on_link(a->o.user, true);
}

static void on_down(void *user, const char *reason)
{
    struct ha_agent *a = user;
    struct ha_event ev = {.kind = HA_EV_LINK_DOWN};
    hp_info("detached; connecting again", HP_S("host", a->o.core.host), HP_S("reason", reason));
    step(a, &ev);
    if (a->o.on_link)
        a->o.on_link(a->o.user, false);
}

void ha_agent_set_overload(struct ha_agent *a, const char *const texts[HP_RESOURCE_COUNT])
{
    struct ha_event ev = {.kind = HA_EV_OVERLOAD};
    memcpy(ev.overload, texts, sizeof ev.overload);
    step(a, &ev);
}

void ha_agent_set_room(struct ha_agent *a, const char *no_room)
{
    struct ha_event ev = {.kind = HA_EV_ROOM, .no_room = no_room};
    step(a, &ev);
}

static void on_message(void *user, const Harpoon__Internal__V1__RouterMessage *m)
{
    struct ha_agent *a = user;
    struct ha_event ev = {0};
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_COMMAND:
        if (a->o.before_command)
            a->o.before_command(a->o.user);
        ev.kind = HA_EV_COMMAND;
        ev.command = m->command;
        ev.no_storage = a->o.storage_lacks ? a->o.storage_lacks(a->o.user, m->command) : NULL;
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_CONFIRMED:
        ev.kind = HA_EV_CONFIRMED;
        ev.confirmed = m->confirmed;
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_INVENTORY_REQUEST:
        ev.kind = HA_EV_INVENTORY_REQUEST;
        ev.inventory_request_id = m->inventory_request->request_id;
        ev.inventory_specs = m->inventory_request->specs;
        break;
    default:
        return;
    }
    step(a, &ev);
}

static void on_metrics_due(void *user)
{
    struct ha_agent *a = user;
    if (a->o.on_metrics_due)
        a->o.on_metrics_due(a->o.user);
}

void ha_agent_send_metrics(struct ha_agent *a, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    uint8_t small[512];
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_METRICS;
    m.metrics = metrics;
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(&m);
    uint8_t *buf = n <= sizeof small ? small : malloc(n);
    if (buf && a->link) { /* otherwise: metrics are the first to go */
        harpoon__internal__v1__agent_message__pack(&m, buf);
        ha_link_send(a->link, buf, n);
    }
    if (buf != small)
        free(buf);
}

static const struct ha_link_events link_events = {.on_session_wanted = on_session_wanted,
                                                  .fill_hello = fill_hello,
                                                  .on_up = on_up,
                                                  .on_down = on_down,
                                                  .on_message = on_message,
                                                  .on_metrics_due = on_metrics_due};

/* ---- life ---- */

static void start(struct ha_agent *a, const struct ha_found *found, size_t found_count)
{
    for (size_t i = 0; i < found_count; i++) {
        struct ha_event ev = {.kind = HA_EV_FOUND,
                              .found = {.uid = found[i].uid, .name = found[i].name, .state = &found[i].state}};
        step(a, &ev);
    }
    struct ha_event ev = {.kind = HA_EV_START};
    step(a, &ev);
}

int ha_agent_new(struct ha_env *env, const struct ha_agent_options *o, struct ha_image *image,
                 const struct ha_found *found, size_t found_count, struct ha_agent **ret, struct hp_error *e)
{
    struct ha_agent *a = calloc(1, sizeof *a);
    if (!a || ha_timers_reserve(env->timers, 1)) {
        free(a);
        ha_image_done(image);
        return hp_fail(e, HP_ENOMEM, "agent");
    }
    a->env = env;
    a->o = *o;
    a->o.link.rng = &env->rng;
    a->o.link.timers = env->timers;
    a->timer.fire_cb = on_timer;
    int rc = ha_core_new(&o->core, image, &a->core, e);
    if (!rc)
        rc = ha_link_new(env->loop, &a->o.link, &link_events, a, &a->link, e);
    if (rc) {
        ha_timers_release(env->timers, 1);
        ha_core_free(a->core);
        free(a);
        return rc;
    }
    o->journal->synced_cb = on_synced;
    o->journal->user = a;
    o->runtime->exited_cb = on_exited;
    o->runtime->user = a;
    start(a, found, found_count);
    *ret = a;
    return 0;
}

const struct ha_core *ha_agent_core(const struct ha_agent *a)
{
    return a->core;
}

bool ha_agent_is_up(const struct ha_agent *a)
{
    return a->link && ha_link_is_up(a->link);
}

/* Frees when the link and all jobs are gone, and the journal has everything, or nothing is to be waited for. */
static void maybe_closed(struct ha_agent *a)
{
    if (!a->closing || a->link || a->jobs || !(a->failed || ha_core_idle(a->core)))
        return;
    void (*cb)(void *) = a->closed_cb;
    void *user = a->o.user;
    ha_timer_set(a->env->timers, &a->timer, UINT64_MAX);
    ha_timers_release(a->env->timers, 1);
    a->o.runtime->exited_cb = NULL;
    a->o.journal->synced_cb = NULL;
    ha_core_free(a->core);
    free(a);
    if (cb)
        cb(user);
}

/* Nothing that is still under way is waited for. The intents in the journal tell what to go on with. */
static void give_up(struct ha_agent *a)
{
    a->failed = true;
    if (a->jobs)
        a->o.cancel_jobs(a->o.user); /* the last one's end closes */
    else
        maybe_closed(a);
}

static void on_link_closed(void *user)
{
    struct ha_agent *a = user;
    a->link = NULL;
    maybe_closed(a);
}

void ha_agent_close(struct ha_agent *a, const char *reason, uint64_t wait_ms, void (*closed_cb)(void *user))
{
    assert(!a->closing);
    a->closing = true;
    a->closed_cb = closed_cb;
    ha_timer_set(a->env->timers, &a->timer, a->failed ? 0 : hp_now_ms() + wait_ms);
    struct ha_event ev = {.kind = HA_EV_LINK_DOWN};
    step(a, &ev); /* results stay in the journal from now on */
    ha_link_close(a->link, reason, on_link_closed);
}
