#include "lib/agent_model.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/plan.h"
#include "wire/agent_limits.h"
#include "wire/codec.h"

static const char *const job_names[] = {"create", "start", "stop", "restart", "remove", "resize", "inspect", "probe"};
static const char *const state_names[] = {"?",      "pending",  "creating", "running", "stopped", "backoff",
                                          "failed", "deleting", "unknown",  "deleted", "lost"};
static const char *const outcome_names[] = {"?", "done", "failed", "stale", "refused"};

/* A damaged journal may hold any number. */
static const char *name_of(const char *const *names, size_t count, unsigned number)
{
    return names[number < count ? number : 0];
}
#define NAME_OF(names, number) name_of(names, sizeof(names) / sizeof(names)[0], (unsigned)(number))

static void say(struct agent_model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct agent_model *m, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(m->trace + m->trace_len, sizeof m->trace - m->trace_len, fmt, ap);
    va_end(ap);
    m->trace_len += (size_t)n;
    if (m->trace_len >= sizeof m->trace) /* a long random run: only golden traces read it, and they are short */
        m->trace_len = 0;
}

void am_init(struct agent_model *m)
{
    memset(m, 0, sizeof *m);
    m->now_ms = 1000;
    m->next_pid = 100;
}

/* ---- runtime ---- */

struct am_container *am_find(struct agent_model *m, const char *uid)
{
    for (size_t i = 0; i < m->container_count; i++)
        if (strcmp(m->containers[i].uid, uid) == 0)
            return &m->containers[i];
    assert_true(m->container_count < AM_CONTAINERS_MAX);
    struct am_container *c = &m->containers[m->container_count++];
    snprintf(c->uid, sizeof c->uid, "%s", uid);
    return c;
}

static void submit(struct agent_model *m, const struct ha_effect *f)
{
    assert_true(m->job_count < AM_JOBS_MAX);
    for (size_t i = 0; i < m->job_count; i++)
        assert_string_not_equal(m->jobs[i]->uid, f->job.uid); /* never two of one uid */
    struct am_job *j = calloc(1, sizeof *j);
    snprintf(j->uid, sizeof j->uid, "%s", f->job.uid);
    snprintf(j->container, sizeof j->container, "%s", f->job.container);
    if (f->job.spec.len)
        j->spec = harpoon__v1__container_spec__unpack(NULL, f->job.spec.len, f->job.spec.data);
    j->job = (struct ha_job){.kind = f->job.kind,
                             .uid = j->uid,
                             .container = j->container,
                             .generation = f->job.generation,
                             .spec = j->spec,
                             .start = f->job.start,
                             .replacing = f->job.replacing,
                             .deadline_ms = f->job.deadline_ms};
    m->jobs[m->job_count++] = j;
    say(m, "job %s %s g%lld%s%s\n", job_names[f->job.kind], f->job.uid, (long long)f->job.generation,
        f->job.start ? " start" : "", f->job.replacing ? " replacing" : "");
}

static void fill_state(struct agent_model *m, const struct am_container *c, struct ha_rt_state *s)
{
    *s = (struct ha_rt_state){.exists = c->exists,
                              .complete = c->exists && c->generation > 0,
                              .generation = c->generation,
                              .spec_digest = c->spec_digest,
                              .running = c->running,
                              .exit_code = c->exit_code};
    if (c->running) {
        s->pid = c->pid;
        s->pid_start_ticks = c->ticks;
    }
    if (c->ever_ran)
        s->start_wall_ns = 1;
    if (c->finished)
        s->finish_wall_ns = (int64_t)m->now_ms * 1000000;
}

static void run_process(struct agent_model *m, struct am_container *c)
{
    c->running = c->ever_ran = true;
    c->finished = false;
    c->pid = m->next_pid++;
    c->ticks = c->pid * 10;
}

static void stop_process(struct am_container *c)
{
    if (c->running)
        c->finished = true;
    c->running = false;
    c->exit_code = 143;
}

static int64_t memory_of(const struct ha_job *job)
{
    return job->spec && job->spec->resources ? job->spec->resources->memory_bytes : 0;
}

static void change(struct agent_model *m, struct am_container *c, struct ha_job *job)
{
    switch (job->kind) {
    case HA_JOB_CREATE:
        assert_false(c->exists); /* a second one would be a second container */
        *c = (struct am_container){.exists = true, .generation = job->generation, .memory_bytes = memory_of(job)};
        memcpy(c->uid, job->uid, strlen(job->uid) + 1);
        assert_int_equal(ha_spec_digest(job->spec, &c->spec_digest), 0);
        if (job->start)
            run_process(m, c);
        break;
    case HA_JOB_START:
        assert_true(c->exists && !c->running);
        c->memory_bytes = memory_of(job);
        run_process(m, c);
        break;
    case HA_JOB_STOP:
        stop_process(c);
        break;
    case HA_JOB_RESTART:
        assert_true(c->exists);
        stop_process(c);
        run_process(m, c);
        break;
    case HA_JOB_REMOVE:
        c->exists = c->running = c->finished = c->ever_ran = false;
        break;
    case HA_JOB_RESIZE:
        c->memory_bytes = memory_of(job);
        break;
    default:
        break;
    }
}

void am_job_execute(struct agent_model *m, size_t i)
{
    assert_true(i < m->job_count);
    struct am_job *j = m->jobs[i];
    struct am_container *c = am_find(m, j->uid);
    bool changes = j->job.kind != HA_JOB_INSPECT && j->job.kind != HA_JOB_PROBE;
    assert_false(j->executed);
    j->executed = true;
    if (changes && m->fail_next) {
        j->job.status = hp_fail(&j->job.error, m->fail_next, "made to fail: \xff"); /* a runtime may name any file */
        m->fail_next = 0;
    } else {
        bool effective = changes && !(j->job.kind == HA_JOB_REMOVE && !c->exists) &&
                         !(j->job.kind == HA_JOB_RESIZE && c->memory_bytes == memory_of(&j->job));
        if (effective) {
            assert_true(m->call_count < AM_CALLS_MAX);
            struct am_call *call = &m->calls[m->call_count++];
            snprintf(call->uid, sizeof call->uid, "%s", j->uid);
            call->generation = j->job.generation;
            call->kind = j->job.kind;
        }
        change(m, c, &j->job);
        fill_state(m, c, &j->job.result);
        j->job.result.healthy = c->running && c->exit_code != 77;
    }
}

static void job_free(struct am_job *j)
{
    if (j->spec)
        harpoon__v1__container_spec__free_unpacked(j->spec, NULL);
    free(j);
}

/* ---- the core ---- */

static void trace_status(struct agent_model *m, const Harpoon__V1__ContainerStatus *s, bool stale)
{
    if (!s)
        return;
    if (!s->state) {
        say(m, " latest=%lld", (long long)s->observed_generation);
        return;
    }
    if (stale)
        say(m, " latest=%lld", (long long)s->observed_generation);
    say(m, " %s", NAME_OF(state_names, s->state));
    if (s->pid)
        say(m, " pid=%lld", (long long)s->pid);
    if (s->restart_count)
        say(m, " restarts=%d", s->restart_count);
    if (s->health)
        say(m, " health=%d", (int)s->health);
}

static void trace_inventory(struct agent_model *m, const Harpoon__Internal__V1__Inventory *v)
{
    say(m, "send inventory %lld%s\n", (long long)v->request_id, v->last ? " last" : "");
    for (size_t i = 0; i < v->n_items; i++) {
        const Harpoon__Internal__V1__InventoryItem *it = v->items[i];
        say(m, "  %s g%lld%s%s", it->uid, (long long)it->generation, it->quarantined ? " quarantined" : "",
            it->tombstone ? " tombstone" : "");
        trace_status(m, it->status, false);
        if (it->spec.len)
            say(m, " spec");
        say(m, "\n");
    }
}

static void remember(struct agent_model *m, int64_t id)
{
    for (size_t i = 0; i < m->unconfirmed_count; i++)
        if (m->unconfirmed[i] == id)
            return;
    assert_true(m->unconfirmed_count < 512);
    m->unconfirmed[m->unconfirmed_count++] = id;
}

static void sent(struct agent_model *m, const struct ha_bytes *b)
{
    ProtobufCMessage *message;
    struct hp_error e = {0};
    int rc = hp_unpack(&harpoon__internal__v1__agent_message__descriptor, b->data, b->len, NULL, &message, &e);
    assert_int_equal(rc, 0); /* as the router reads it */
    Harpoon__Internal__V1__AgentMessage *a = (Harpoon__Internal__V1__AgentMessage *)message;
    rc = hp_agent_message_check(a, &e);
    assert_int_equal(rc, 0); /* and takes it */
    switch (a->body_case) {
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_JOURNALLED:
        say(m, "send journalled %s g%lld %s\n", a->journalled->uid, (long long)a->journalled->generation,
            a->journalled->operation_id);
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT:
        say(m, "send result %s g%lld %s %s", a->result->uid, (long long)a->result->generation, a->result->operation_id,
            NAME_OF(outcome_names, a->result->outcome));
        if (a->result->error)
            say(m, " code=%d", a->result->error->code);
        for (size_t i = 0; i < a->result->n_overloaded; i++)
            say(m, " overloaded=%s", a->result->overloaded[i]);
        trace_status(m, a->result->status,
                     a->result->outcome == HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE);
        say(m, "\n");
        remember(m, a->result->report_id);
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION:
        say(m, "send observation %s g%lld %s", a->observation->uid, (long long)a->observation->generation,
            a->observation->kind);
        trace_status(m, a->observation->status, false);
        say(m, "\n");
        remember(m, a->observation->report_id);
        break;
    case HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY:
        trace_inventory(m, a->inventory);
        break;
    default:
        fail_msg("the core sent a message of kind %d", (int)a->body_case);
    }
    harpoon__internal__v1__agent_message__free_unpacked(a, NULL);
}

static void enter(struct agent_model *m)
{
    if (m->enter)
        m->enter();
}

/* False, and `over`, when the core ran out of memory. */
static bool leave(struct agent_model *m, int rc)
{
    if (m->leave)
        m->leave();
    m->over = m->over || (m->leave && rc == HP_ENOMEM);
    if (!m->over)
        assert_int_equal(rc, 0);
    return !m->over;
}

static void step(struct agent_model *m, struct ha_event *ev)
{
    if (m->over)
        return;
    assert_non_null(m->core);
    ev->now_ms = m->now_ms;
    ev->wall_ns = (int64_t)m->now_ms * 1000000;
    enter(m);
    if (!leave(m, ha_core_step(m->core, ev, &m->fx)))
        return;
    if (m->fx.write_count)
        jm_write(&m->journal, m->fx.write_seq, m->fx.writes, m->fx.write_count);
    for (size_t i = 0; i < m->fx.count; i++) {
        const struct ha_effect *f = &m->fx.effects[i];
        if (f->kind == HA_EF_JOB) {
            submit(m, f);
        } else if (f->kind == HA_EF_SESSION) {
            m->session = f->session;
            say(m, "session %lld\n", (long long)f->session);
        } else {
            sent(m, &f->send);
        }
    }
}

static void sync_some(struct agent_model *m, size_t count)
{
    if (!count)
        return;
    struct ha_event ev = {.kind = HA_EV_SYNCED, .synced_seq = jm_sync(&m->journal, count)};
    step(m, &ev);
}

void am_sync(struct agent_model *m)
{
    sync_some(m, m->journal.batch_count);
}

void am_sync_first(struct agent_model *m)
{
    sync_some(m, m->journal.batch_count > 0);
}

void am_job_finish(struct agent_model *m, size_t i)
{
    struct am_job *j = m->jobs[i];
    assert_true(j->executed);
    m->jobs[i] = m->jobs[--m->job_count];
    struct ha_event ev = {.kind = HA_EV_JOB_DONE, .job = &j->job};
    step(m, &ev);
    job_free(j);
}

void am_settle(struct agent_model *m)
{
    for (int turn = 0; !m->over && (m->journal.batch_count || m->job_count); turn++) {
        assert_true(turn < 1000);
        am_sync(m);
        if (m->job_count) {
            if (!m->jobs[0]->executed)
                am_job_execute(m, 0);
            am_job_finish(m, 0);
        }
    }
}

void am_boot(struct agent_model *m)
{
    struct ha_core_options o = {.region = "r1",
                                .host = "h1",
                                .memory_bytes = m->memory_max,
                                .network_modes = m->network_modes,
                                .network_functions = m->network_functions,
                                .seed = 7};
    struct ha_image image = jm_image(&m->journal);
    struct hp_error e = {0};
    assert_null(m->core);
    m->over = false;
    enter(m);
    if (!leave(m, ha_core_new(&o, &image, &m->core, &e)))
        return;
    for (size_t i = 0; i < m->container_count; i++) {
        struct am_container *c = &m->containers[i];
        if (!c->exists)
            continue;
        struct ha_rt_state s;
        fill_state(m, c, &s);
        struct ha_event ev = {.kind = HA_EV_FOUND,
                              .found = {.uid = c->uid, .name = "projects/p/regions/r1/containers/c", .state = &s}};
        step(m, &ev);
    }
    struct ha_event ev = {.kind = HA_EV_START};
    step(m, &ev);
}

void am_crash(struct agent_model *m)
{
    ha_core_free(m->core);
    m->core = NULL;
    ha_effects_done(&m->fx);
    jm_lose(&m->journal);
    for (size_t i = 0; i < m->job_count; i++)
        job_free(m->jobs[i]);
    m->job_count = 0;
    m->unconfirmed_count = 0;
}

void am_done(struct agent_model *m)
{
    am_crash(m);
    jm_done(&m->journal);
}

void am_command(struct agent_model *m, const Harpoon__Internal__V1__Command *cmd)
{
    struct ha_event ev = {.kind = HA_EV_COMMAND, .command = cmd, .no_storage = m->no_storage};
    step(m, &ev);
}

void am_ensure_init(struct am_ensure *e, const char *uid, int64_t generation, const char *image)
{
    memset(e, 0, sizeof *e);
    harpoon__internal__v1__command__init(&e->cmd);
    harpoon__v1__container_spec__init(&e->spec);
    harpoon__v1__resources__init(&e->resources);
    harpoon__v1__restart_policy__init(&e->policy);
    harpoon__v1__health_check__init(&e->health);
    harpoon__v1__tcp_probe__init(&e->tcp);
    snprintf(e->image, sizeof e->image, "oci:/images:%s", image);
    snprintf(e->container, sizeof e->container, "projects/p/regions/r1/containers/c");
    snprintf(e->uid, sizeof e->uid, "%s", uid);
    snprintf(e->operation, sizeof e->operation, "op%lld", (long long)generation);
    e->resources.cpu_millis = 100;
    e->resources.memory_bytes = 64 << 20;
    e->spec.image = e->image;
    e->spec.resources = &e->resources;
    e->spec.restart_policy = &e->policy;
    e->spec.desired_state = HARPOON__V1__DESIRED_STATE__DESIRED_STATE_RUNNING;
    e->tcp.port = 80;
    e->health.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_TCP;
    e->health.tcp = &e->tcp;
    e->cmd.region = (char *)"r1";
    e->cmd.host = (char *)"h1";
    e->cmd.operation_id = e->operation;
    e->cmd.container = e->container;
    e->cmd.uid = e->uid;
    e->cmd.generation = generation;
    e->cmd.epoch = 1;
    e->cmd.verb = HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_ENSURE;
    e->cmd.spec = &e->spec;
}

void am_ensure(struct agent_model *m, const char *uid, int64_t generation, const char *image, int64_t memory_bytes)
{
    struct am_ensure e;
    am_ensure_init(&e, uid, generation, image);
    e.resources.memory_bytes = memory_bytes;
    am_command(m, &e.cmd);
}

void am_verb(struct agent_model *m, const char *uid, int64_t generation, Harpoon__Internal__V1__CommandVerb verb,
             int64_t epoch)
{
    struct am_ensure e;
    am_ensure_init(&e, uid, generation, "a");
    e.cmd.verb = verb;
    e.cmd.epoch = epoch;
    e.cmd.spec = NULL;
    am_command(m, &e.cmd);
}

void am_remove(struct agent_model *m, const char *uid, int64_t generation)
{
    am_verb(m, uid, generation, HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE, 1);
}

void am_exit(struct agent_model *m, const char *uid, int32_t exit_code, bool oom)
{
    struct am_container *c = am_find(m, uid);
    assert_true(c->running);
    c->running = false;
    c->finished = true;
    c->exit_code = exit_code;
    if (!m->core)
        return;
    struct ha_rt_state s;
    fill_state(m, c, &s);
    s.pid = c->pid;
    s.pid_start_ticks = c->ticks;
    s.oom_killed = oom;
    struct ha_event ev = {.kind = HA_EV_EXITED, .exited = {.uid = uid, .state = &s}};
    step(m, &ev);
}

void am_link(struct agent_model *m, bool up)
{
    struct ha_event ev = {.kind = up ? HA_EV_LINK_UP : HA_EV_LINK_DOWN};
    m->unconfirmed_count = 0;
    step(m, &ev);
}

void am_confirm(struct agent_model *m, const Harpoon__Internal__V1__ReportsConfirmed *pb)
{
    struct ha_event ev = {.kind = HA_EV_CONFIRMED, .confirmed = pb};
    step(m, &ev);
}

void am_confirm_all(struct agent_model *m)
{
    Harpoon__Internal__V1__ReportsConfirmed pb = HARPOON__INTERNAL__V1__REPORTS_CONFIRMED__INIT;
    int64_t ids[512];
    memcpy(ids, m->unconfirmed, sizeof ids);
    pb.report_ids = ids;
    pb.n_report_ids = m->unconfirmed_count;
    m->unconfirmed_count = 0;
    am_confirm(m, &pb);
}

void am_advance(struct agent_model *m, uint64_t ms)
{
    m->now_ms += ms;
    if (m->over)
        return;
    if (ha_core_deadline_ms(m->core) > m->now_ms)
        return;
    struct ha_event ev = {.kind = HA_EV_TIMER};
    step(m, &ev);
}

void am_overload(struct agent_model *m, enum hp_resource r, const char *text)
{
    struct ha_event ev = {.kind = HA_EV_OVERLOAD};
    ev.overload[r] = text;
    step(m, &ev);
}

void am_room(struct agent_model *m, const char *no_room)
{
    struct ha_event ev = {.kind = HA_EV_ROOM, .no_room = no_room};
    step(m, &ev);
}

void am_storage(struct agent_model *m, const char *no_storage)
{
    m->no_storage = no_storage;
}

void am_inventory(struct agent_model *m, bool specs)
{
    struct ha_event ev = {.kind = HA_EV_INVENTORY_REQUEST, .inventory_request_id = 9, .inventory_specs = specs};
    step(m, &ev);
}

int am_calls(const struct agent_model *m, const char *uid, int64_t generation, enum ha_job_kind kind)
{
    int n = 0;
    for (size_t i = 0; i < m->call_count; i++)
        n += m->calls[i].kind == kind && m->calls[i].generation == generation && strcmp(m->calls[i].uid, uid) == 0;
    return n;
}

void am_expect(struct agent_model *m, const char *expected)
{
    m->trace[m->trace_len] = '\0';
    assert_string_equal(m->trace, expected);
    m->trace_len = 0;
}

void am_forget_trace(struct agent_model *m)
{
    m->trace_len = 0;
}
