/* agent.c — a host: the real agent core, a disk that forgets what was not synced, and a link that dials again. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_core.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "lib/journal_model.h"
#include "sim/job.h"
#include "sim/sim.h"
#include "wire/codec.h"

enum { WELCOME_MS = 10000 };

struct sim_host {
    struct sim_process process;
    int index;
    char name[8];
    struct ha_core *core;
    struct ha_effects fx;
    struct journal_model journal;
    struct sim_runtime runtime;
    struct sim_channel disk;
    struct sim_link *link; /* NULL: none */
    int router;
    bool up, dialling;
    int64_t session;                    /* of its last hello */
    uint64_t heard, heartbeat, backoff; /* us */
    uint64_t timer_at;
    int64_t clock_ns;                /* how far its wall clock is off */
    uint64_t full_until, slow_until; /* the disk; us */
    bool disk_fails;                 /* once */
    bool given_up;                   /* declared lost, ever */
    struct ha_image *lost;           /* journals that were lost: what was durable in them has been told truly; heap */
    int lost_count;
};

/* For an event that concerns one link of the host. */
struct about {
    struct sim_host *h;
    struct sim_link *link;
    uint64_t seq;
};

static void step(struct sim_world *w, struct sim_host *h, struct ha_event *ev);
static void dial(struct sim_world *w, void *arg);

static struct about *about(struct sim_world *w, struct sim_host *h, uint64_t seq)
{
    struct about *a = sim_alloc(w, sizeof *a);
    *a = (struct about){h, h->link, seq};
    return a;
}

/* ---- Disk ---- */

/* The journal cannot be written: nothing later will be durable either. The agent ends, and is started again. */
static bool disk_failed(struct sim_world *w, struct sim_host *h)
{
    bool full = w->now < h->full_until;
    if (!full && !h->disk_fails)
        return false;
    sim_trace(w, "%s: the journal cannot be written: %s", h->name, full ? "no space" : "input/output error");
    h->disk_fails = false;
    (void)sim_host_kill(w, h->index, sim_between(w, SIM_S, 2 * SIM_S));
    return true;
}

static void synced(struct sim_world *w, void *arg)
{
    struct about *a = arg;
    if (disk_failed(w, a->h))
        return;
    struct journal_model *j = &a->h->journal;
    struct ha_event ev = {.kind = HA_EV_SYNCED, .synced_seq = a->seq};
    size_t n = 0;
    while (n < j->batch_count && j->batches[n].seq <= a->seq)
        n++;
    if (w->o->broken != SIM_BREAK_SYNC)
        jm_sync(j, n);
    step(w, a->h, &ev);
}

static void synced_late(struct sim_world *w, void *arg)
{
    struct about *a = arg;
    struct journal_model *j = &a->h->journal;
    while (j->batch_count && j->batches[0].seq <= a->seq)
        jm_sync(j, 1);
}

static const struct ha_report_row *durable_report(const struct sim_host *h, int64_t id)
{
    const struct ha_image *d = &h->journal.durable;
    for (size_t i = 0; i < d->report_count; i++)
        if (d->reports[i].id == id)
            return &d->reports[i];
    return NULL;
}

/* I10: a result is kept until the broker has it. Observations may give way to later ones. */
static void check_forgotten(struct sim_world *w, const struct sim_host *h)
{
    for (size_t i = 0; i < h->fx.write_count; i++) {
        const struct ha_write *x = &h->fx.writes[i];
        const struct ha_report_row *row = x->kind == HA_WRITE_REPORT_DELETE ? durable_report(h, x->number) : NULL;
        sim_check(w, !row || !row->result || sim_broker_has_report(w, h->index, row->id), "I10",
                  "%s forgets its report %" PRId64 ", and the broker never had it", h->name, x->number);
    }
}

/* I10: what is reported is durable. */
static void check_reported(struct sim_world *w, const struct sim_host *h, const struct ha_effect *f)
{
    Harpoon__Internal__V1__AgentMessage *m =
        sim_unpack(&harpoon__internal__v1__agent_message__descriptor, f->send.data, f->send.len);
    int64_t id = m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT        ? m->result->report_id
                 : m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION ? m->observation->report_id
                                                                                          : 0;
    hp_unpacked_free(&m->base);
    sim_check(w, !id || durable_report(h, id), "I10", "%s sends its report %" PRId64 ", which is not durable", h->name,
              id);
}

static void journal(struct sim_world *w, struct sim_host *h)
{
    check_forgotten(w, h);
    jm_write(&h->journal, h->fx.write_seq, h->fx.writes, h->fx.write_count);
    struct about *a = about(w, h, h->fx.write_seq);
    uint64_t takes = sim_between(w, 100, 1000);
    sim_send(w, &h->disk, w->now < h->slow_until ? takes * 500 : takes, &h->process, synced, a);
    if (w->o->broken == SIM_BREAK_SYNC)
        sim_after(w, 20 * SIM_MS, &h->process, synced_late, a);
}

static int64_t generation_in(const struct ha_image *d, const char *uid)
{
    for (size_t k = 0; k < d->record_count; k++)
        if (!strcmp(d->records[k].uid, uid))
            return d->records[k].generation;
    for (size_t k = 0; k < d->tombstone_count; k++)
        if (!strcmp(d->tombstones[k].uid, uid))
            return d->tombstones[k].generation;
    return -1;
}

int64_t sim_host_durable_generation(struct sim_world *w, int i, const char *uid)
{
    struct sim_host *h = w->hosts[i];
    int64_t most = generation_in(&h->journal.durable, uid);
    for (int k = 0; k < h->lost_count; k++) {
        int64_t g = generation_in(&h->lost[k], uid);
        most = g > most ? g : most;
    }
    return most;
}

/* ---- Steps ---- */

static void send(struct sim_world *w, struct sim_host *h, Harpoon__Internal__V1__AgentMessage *m)
{
    uint8_t small[2048];
    size_t n = harpoon__internal__v1__agent_message__get_packed_size(m);
    assert(n <= sizeof small && h->link);
    harpoon__internal__v1__agent_message__pack(m, small);
    sim_link_up(w, h->link, small, n);
}

static void hello(struct sim_world *w, struct sim_host *h, int64_t session)
{
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__AgentHello x = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__StorageClass bulk = HARPOON__V1__STORAGE_CLASS__INIT, fast = HARPOON__V1__STORAGE_CLASS__INIT,
                              *classes[] = {&bulk, &fast};
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HELLO;
    m.hello = &x;
    x.version_min = x.version_max = 1;
    x.region = (char *)(uintptr_t) "r1";
    x.host = h->name;
    x.session = h->session = session;
    x.zone = (char *)(uintptr_t)(h->index % 2 ? "z1" : "z2");
    x.allocatable = &all;
    x.digest = &d;
    all.cpu_millis = sim_preempt_cpu(w);
    all.memory_bytes = 8LL << 30;
    all.disk_bytes = 1LL << 40;
    x.facts = &facts;
    facts.storage_classes = classes;
    facts.n_storage_classes = h->index % 2 ? 1 : 2;
    bulk.name = (char *)(uintptr_t) "bulk";
    bulk.size_bytes = SIM_BULK_BYTES;
    fast.name = (char *)(uintptr_t) "fast";
    fast.size_bytes = SIM_FAST_BYTES;
    ha_core_digest(h->core, &d.count, &d.digest);
    send(w, h, &m);
}

static void timer(struct sim_world *w, void *arg)
{
    struct sim_host *h = arg;
    struct ha_event ev = {.kind = HA_EV_TIMER};
    h->timer_at = UINT64_MAX;
    step(w, h, &ev);
}

static void step(struct sim_world *w, struct sim_host *h, struct ha_event *ev)
{
    struct sc_time t = sim_time(w);
    ev->now_ms = t.now_ms;
    ev->wall_ns = t.wall_ns + h->clock_ns;
    if (ha_core_step(h->core, ev, &h->fx))
        abort();
    if (h->fx.write_count)
        journal(w, h);
    for (size_t i = 0; i < h->fx.count; i++) {
        const struct ha_effect *f = &h->fx.effects[i];
        if (f->kind == HA_EF_JOB)
            sim_runtime_submit(w, h->index, &h->process, f);
        else if (f->kind == HA_EF_SESSION && h->link && !h->up)
            hello(w, h, f->session);
        else if (f->kind == HA_EF_SEND && h->up) {
            check_reported(w, h, f);
            sim_link_up(w, h->link, f->send.data, f->send.len);
        }
    }
    uint64_t due = ha_core_deadline_ms(h->core);
    if (due != UINT64_MAX && due * 1000 < h->timer_at) {
        h->timer_at = due * 1000 > w->now ? due * 1000 : w->now + SIM_MS;
        sim_after(w, h->timer_at - w->now, &h->process, timer, h);
    }
}

/* ---- Link ---- */

static void dial_later(struct sim_world *w, struct sim_host *h)
{
    if (h->dialling)
        return;
    h->dialling = true;
    sim_after(w, sim_below(w, h->backoff + 1), &h->process, dial, h);
    h->backoff = h->backoff * 2 < 5 * SIM_S ? h->backoff * 2 : 5 * SIM_S;
}

/* The link is no more; `hang_up`: by our doing. */
static void drop(struct sim_world *w, struct sim_host *h, bool hang_up, bool rotate)
{
    struct ha_event ev = {.kind = HA_EV_LINK_DOWN};
    bool was_up = h->up;
    if (hang_up)
        sim_link_hang_up(w, h->link);
    h->link = NULL;
    h->up = false;
    if (rotate)
        h->router = (h->router + 1) % w->size.routers;
    if (was_up)
        step(w, h, &ev);
    dial_later(w, h);
}

static void no_welcome(struct sim_world *w, void *arg)
{
    struct about *a = arg;
    if (a->h->link == a->link && !a->h->up)
        drop(w, a->h, true, true);
}

static void dial(struct sim_world *w, void *arg)
{
    struct sim_host *h = arg;
    h->dialling = false;
    if (h->link)
        return;
    h->link = sim_link_dial(w, h->index, h->router);
    sim_after(w, WELCOME_MS * SIM_MS, &h->process, no_welcome, about(w, h, 0));
}

void sim_host_opened(struct sim_world *w, int i, struct sim_link *l, bool ok)
{
    struct sim_host *h = w->hosts[i];
    struct ha_event ev = {.kind = HA_EV_SESSION_WANTED};
    if (h->link != l)
        return;
    if (ok)
        step(w, h, &ev);
    else
        drop(w, h, false, true);
}

static void beat(struct sim_world *w, void *arg)
{
    struct about *a = arg;
    struct sim_host *h = a->h;
    Harpoon__Internal__V1__AgentMessage m = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Heartbeat x = HARPOON__INTERNAL__V1__HEARTBEAT__INIT;
    if (h->link != a->link || !h->up)
        return;
    if (w->now - h->heard > 4 * h->heartbeat) {
        sim_trace(w, "%s: the router is silent", h->name);
        drop(w, h, true, true);
        return;
    }
    m.body_case = HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &x;
    send(w, h, &m);
    sim_after(w, h->heartbeat - h->heartbeat / 8, &h->process, beat, a);
}

static void welcome(struct sim_world *w, struct sim_host *h, const Harpoon__Internal__V1__Welcome *x)
{
    struct ha_event ev = {.kind = HA_EV_LINK_UP};
    if (h->up)
        return;
    h->up = true;
    h->backoff = 100 * SIM_MS;
    h->heartbeat = (uint64_t)x->heartbeat_ms * SIM_MS;
    sim_trace(w, "%s: attached to %s", h->name, x->router);
    step(w, h, &ev);
    sim_after(w, h->heartbeat / 2, &h->process, beat, about(w, h, 0));
}

/* I10: nothing is confirmed that the broker has not taken in. */
static void check_confirmed(struct sim_world *w, const struct sim_host *h,
                            const Harpoon__Internal__V1__ReportsConfirmed *m)
{
    for (size_t i = 0; i < m->n_report_ids; i++)
        sim_check(w, sim_broker_has_report(w, h->index, m->report_ids[i]), "I10",
                  "report %" PRId64 " of %s is confirmed, and the broker never had it", m->report_ids[i], h->name);
}

/* Every second host has no fast storage, and nothing that asks for it should come there. */
static const char *storage_lacks(const struct sim_host *h, const Harpoon__V1__ContainerSpec *spec)
{
    for (size_t i = 0; spec && i < spec->n_volumes; i++)
        if (!strcmp(spec->volumes[i]->storage_class, "fast") && h->index % 2)
            return "the host has no storage class fast";
    return NULL;
}

static void trace_command(struct sim_world *w, const struct sim_host *h, const Harpoon__Internal__V1__Command *c)
{
    if (sim_tracing(w))
        sim_trace(
            w, "%s: command %s %.6s gen %" PRId64 " op %.8s", h->name,
            protobuf_c_enum_descriptor_get_value(&harpoon__internal__v1__command_verb__descriptor, (int)c->verb)->name +
                13,
            c->uid, c->generation, c->operation_id);
}

void sim_host_frame(struct sim_world *w, int i, struct sim_link *l, const uint8_t *body, size_t len)
{
    struct sim_host *h = w->hosts[i];
    struct ha_event ev = {0};
    bool leave = false;
    if (h->link != l || !h->process.alive)
        return;
    Harpoon__Internal__V1__RouterMessage *m = sim_unpack(&harpoon__internal__v1__router_message__descriptor, body, len);
    h->heard = w->now;
    switch (m->body_case) {
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_WELCOME:
        welcome(w, h, m->welcome);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_REFUSED:
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_DRAINING:
        leave = true;
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_COMMAND:
        ev.kind = HA_EV_COMMAND;
        ev.no_storage = storage_lacks(h, m->command->spec);
        ev.command = m->command;
        trace_command(w, h, m->command);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_CONFIRMED:
        ev.kind = HA_EV_CONFIRMED;
        ev.confirmed = m->confirmed;
        check_confirmed(w, h, m->confirmed);
        break;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_INVENTORY_REQUEST:
        ev.kind = HA_EV_INVENTORY_REQUEST;
        ev.inventory_request_id = m->inventory_request->request_id;
        ev.inventory_specs = m->inventory_request->specs;
        break;
    default:
        break;
    }
    if (ev.kind && h->up)
        step(w, h, &ev);
    hp_unpacked_free(&m->base);
    if (leave)
        drop(w, h, true, true);
}

void sim_host_closed(struct sim_world *w, int i, struct sim_link *l)
{
    struct sim_host *h = w->hosts[i];
    if (h->link == l && h->process.alive)
        drop(w, h, false, !h->up);
}

bool sim_host_cut(struct sim_world *w, int i, bool half_open)
{
    struct sim_host *h = w->hosts[i];
    if (!h->link)
        return false;
    if (half_open)
        sim_link_half_open(w, h->link);
    else
        sim_link_reset(w, h->link);
    return true;
}

bool sim_host_stall(struct sim_world *w, int i, bool up, uint64_t length)
{
    if (!w->hosts[i]->link)
        return false;
    sim_link_stall(w, w->hosts[i]->link, up, length);
    return true;
}

bool sim_host_part(struct sim_world *w, int i, int router)
{
    struct sim_host *h = w->hosts[i];
    if (!h->link || h->router != router)
        return false;
    sim_link_stall(w, h->link, true, w->cut[i][router] - w->now);
    sim_link_stall(w, h->link, false, w->cut[i][router] - w->now);
    return true;
}

/* ---- Runtime ---- */

struct sim_runtime *sim_host_runtime(struct sim_world *w, int i)
{
    return &w->hosts[i]->runtime;
}

void sim_host_job_done(struct sim_world *w, int host, struct sim_job *j)
{
    struct ha_event ev = {.kind = HA_EV_JOB_DONE, .job = &j->job};
    step(w, w->hosts[host], &ev);
}

void sim_host_exited(struct sim_world *w, int host, const struct sim_container *c, const struct ha_rt_state *s)
{
    struct ha_event ev = {.kind = HA_EV_EXITED, .exited = {.uid = c->uid, .state = s}};
    step(w, w->hosts[host], &ev);
}

/* ---- Life ---- */

static void start(struct sim_world *w, void *arg)
{
    struct sim_host *h = arg;
    struct ha_core_options o = {.region = "r1", .host = h->name, .memory_bytes = 8LL << 30, .seed = 7};
    struct ha_image image = jm_image(&h->journal);
    struct hp_error e = {0};
    if (h->process.alive)
        return;
    if (ha_core_new(&o, &image, &h->core, &e)) {
        fprintf(stderr, "%s: %s\n", h->name, e.message);
        abort();
    }
    h->process.alive = true;
    h->link = NULL;
    h->up = h->dialling = false;
    h->timer_at = UINT64_MAX;
    h->backoff = 100 * SIM_MS;
    h->disk = (struct sim_channel){0};
    for (struct sim_container *c = h->runtime.containers; c; c = c->next) {
        struct ha_rt_state s;
        if (!c->exists)
            continue;
        sim_runtime_state(c, &s);
        struct ha_event ev = {.kind = HA_EV_FOUND, .found = {.uid = c->uid, .name = c->name, .state = &s}};
        step(w, h, &ev);
    }
    struct ha_event ev = {.kind = HA_EV_START};
    step(w, h, &ev);
    dial_later(w, h);
}

void sim_host_new(struct sim_world *w, int i)
{
    struct sim_host *h = w->hosts[i] = sim_alloc(w, sizeof *h);
    h->index = i;
    h->router = i % w->size.routers;
    snprintf(h->name, sizeof h->name, "h%d", i);
    h->process.name = h->name;
    start(w, h);
}

static void end(struct sim_world *w, struct sim_host *h)
{
    sim_process_die(&h->process);
    ha_core_free(h->core);
    h->core = NULL;
    if (w->o->broken != SIM_BREAK_SYNC)
        jm_sync(&h->journal, sim_below(w, h->journal.batch_count + 1)); /* written back before the end, perhaps */
    jm_lose(&h->journal);
    sim_runtime_agent_died(w, h->index);
    h->up = false;
}

bool sim_host_kill(struct sim_world *w, int i, uint64_t restart_after)
{
    struct sim_host *h = w->hosts[i];
    if (!h->process.alive)
        return false;
    end(w, h);
    if (h->link)
        sim_link_hang_up(w, h->link);
    h->link = NULL;
    sim_after(w, restart_after, NULL, start, h);
    return true;
}

bool sim_host_reboot(struct sim_world *w, int i, uint64_t down)
{
    struct sim_host *h = w->hosts[i];
    if (!h->process.alive)
        return false;
    end(w, h);
    sim_runtime_power_off(w, i);
    if (h->link)
        sim_link_half_open(w, h->link); /* nobody says goodbye */
    h->link = NULL;
    sim_after(w, down, NULL, start, h);
    return true;
}

bool sim_host_lose_journal(struct sim_world *w, int i, uint64_t down, bool all)
{
    struct sim_host *h = w->hosts[i];
    if (!sim_host_kill(w, i, down))
        return false;
    h->lost = realloc(h->lost, (size_t)(h->lost_count + 1) * sizeof *h->lost);
    if (!h->lost)
        abort();
    h->lost[h->lost_count++] = h->journal.durable;
    h->journal.durable = (struct ha_image){0};
    sim_broker_forget_reports(w, i);
    if (all)
        sim_runtime_wipe(w, i);
    return true;
}

struct sim_process *sim_host_process(struct sim_world *w, int i)
{
    return &w->hosts[i]->process;
}

void sim_host_give_up(struct sim_world *w, int i)
{
    w->hosts[i]->given_up = true;
    for (struct sim_container *c = w->hosts[i]->runtime.containers; c; c = c->next)
        c->spared = false;
}

bool sim_host_given_up(const struct sim_world *w, int i)
{
    return w->hosts[i]->given_up;
}

void sim_host_clock(struct sim_world *w, int i, int64_t jump_ns)
{
    w->hosts[i]->clock_ns += jump_ns;
}

void sim_host_disk_full(struct sim_world *w, int i, uint64_t length)
{
    w->hosts[i]->full_until = w->now + length;
}

void sim_host_disk_error(struct sim_world *w, int i)
{
    w->hosts[i]->disk_fails = true;
}

void sim_host_disk_slow(struct sim_world *w, int i, uint64_t length)
{
    w->hosts[i]->slow_until = w->now + length;
}

void sim_host_disk_heal(struct sim_world *w, int i)
{
    w->hosts[i]->full_until = w->hosts[i]->slow_until = 0;
    w->hosts[i]->disk_fails = false;
}

bool sim_host_at_rest(struct sim_world *w, int i)
{
    struct sim_host *h = w->hosts[i];
    return h->process.alive && h->up && ha_core_idle(h->core) && !h->journal.durable.report_count;
}

bool sim_host_is_attached(struct sim_world *w, int i, int64_t session)
{
    const struct sim_host *h = w->hosts[i];
    return h->up && h->session == session && sim_link_is_sound(w, h->link);
}

const struct ha_image *sim_host_journal(struct sim_world *w, int i)
{
    return &w->hosts[i]->journal.durable;
}

void sim_host_done(struct sim_world *w, int i)
{
    struct sim_host *h = w->hosts[i];
    sim_runtime_agent_died(w, i);
    ha_core_free(h->core);
    ha_effects_done(&h->fx);
    jm_done(&h->journal);
    while (h->lost_count)
        ha_image_done(&h->lost[--h->lost_count]);
    free(h->lost);
}
