/* check.c — what must hold when everything has come to rest: runtime = journal = record, claims = what lives, no orphans, every operation ended once. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_core.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/host.pb-c.h"
#include "sim/job.h"
#include "wire/codec.h"

typedef Harpoon__Internal__V1__ContainerRecord record_pb;

static record_pb *unpack(const struct sim_row *row)
{
    record_pb *m = sim_unpack(&harpoon__internal__v1__container_record__descriptor, row->body->bytes, row->body->len);
    assert(m->container);
    return m;
}

static const struct ha_record *journalled(struct sim_world *w, int host, const char *uid)
{
    const struct ha_image *d = sim_host_journal(w, host);
    for (size_t i = 0; i < d->record_count; i++)
        if (!strcmp(d->records[i].uid, uid))
            return &d->records[i];
    return NULL;
}

static const struct sim_container *on_host(struct sim_world *w, int host, const char *uid)
{
    for (const struct sim_container *c = sim_host_runtime(w, host)->containers; c; c = c->next)
        if (c->exists && !strcmp(c->uid, uid))
            return c;
    return NULL;
}

static int host_number(const record_pb *m)
{
    const char *name = strrchr(m->container->status->host, '/');
    return name ? atoi(name + 2) : -1;
}

/* I6: nothing lives that the record does not know, but what was quarantined for an operator to look at. */
static const char *orphan(struct sim_world *w)
{
    static char why[200];
    for (int i = 0; i < w->size.hosts; i++)
        for (const struct sim_container *c = sim_host_runtime(w, i)->containers; c; c = c->next) {
            if (!c->exists)
                continue;
            const struct sim_row *row = hp_map_get(&w->record->tables.containers, c->name);
            const struct ha_record *j = journalled(w, i, c->uid);
            bool known = row && !row->gone && !strcmp(row->uid, c->uid);
            snprintf(why, sizeof why, "I6: %.60s (%s) is an orphan on h%d", c->name, c->uid, i);
            if (known ? !sim_record_places(w, c->name, c->uid, i) : !(j && j->quarantined))
                return why;
        }
    return NULL;
}

static const char *container_unrest(const struct sim_row *row)
{
    static char why[200];
    record_pb *m = unpack(row);
    bool rest = !m->deleting && !m->cleanup && !m->sync && !m->confirmed;
    if (!rest)
        snprintf(why, sizeof why, "%.60s (%s) has%s%s%s%s", row->key, row->uid, m->deleting ? " deleting" : "",
                 m->cleanup ? " cleanup" : "", m->sync ? " sync" : "", m->confirmed ? " confirmed" : "");
    hp_unpacked_free(&m->base);
    return rest ? NULL : why;
}

/* Attached as the record says, and looked through. */
static const char *host_unrest(struct sim_world *w, int i)
{
    static char why[100];
    char name[16];
    snprintf(name, sizeof name, "h%d", i);
    const struct sim_row *row = hp_map_get(&w->record->tables.hosts, name);
    if (!row)
        return NULL;
    Harpoon__V1__Host *m = sim_unpack(&harpoon__v1__host__descriptor, row->body->bytes, row->body->len);
    bool rest = *m->router && sim_host_is_attached(w, i, m->session) &&
                (m->state == HARPOON__V1__HOST_STATE__HOST_STATE_READY ||
                 m->state == HARPOON__V1__HOST_STATE__HOST_STATE_DRAINING);
    snprintf(why, sizeof why, "%s is in state %d with router \"%.20s\" and session %" PRId64, name, (int)m->state,
             m->router, m->session);
    hp_unpacked_free(&m->base);
    return rest ? NULL : why;
}

/* An accident from before all was healed goes on. */
static bool hampered(const struct sim_world *w, const struct sim_process *p, const struct sim_connection *c)
{
    return p->paused_until > w->now || (c && (c->to.stalled_until > w->now || c->from.stalled_until > w->now));
}

static const char *process_unrest(struct sim_world *w)
{
    bool still = true;
    for (int i = 0; i < w->size.schedulers; i++)
        still &= !hampered(w, sim_scheduler_process(w, i), sim_scheduler_connection(w, i));
    for (int i = 0; i < w->size.routers; i++)
        still &= !hampered(w, sim_router_process(w, i), sim_router_connection(w, i));
    for (int i = 0; i < w->size.gateways; i++)
        still &= !hampered(w, sim_gateway_process(w, i), sim_gateway_connection(w, i));
    for (int i = 0; i < w->size.hosts; i++)
        still &= !hampered(w, sim_host_process(w, i), NULL);
    return still ? NULL : "a process sleeps, or its connection to the broker stands still";
}

const char *sim_unrest(struct sim_world *w)
{
    static char why[200];
    bool led = false;
    if (!sim_clients_done(w))
        return "a client has no answer";
    if (process_unrest(w))
        return process_unrest(w);
    for (int i = 0; i < w->size.schedulers; i++)
        led |= sim_scheduler_leads(w, i);
    if (!led)
        return "nobody leads";
    for (struct hp_map_node *n = hp_map_first(&w->record->tables.operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        if (!row->active)
            continue;
        snprintf(why, sizeof why, "operation %s (verb %d) is in stage %d", row->id, row->verb, row->stage);
        return why;
    }
    for (int i = 0; i < w->size.hosts; i++)
        if (!sim_host_at_rest(w, i)) {
            snprintf(why, sizeof why, "host %d is busy or away", i);
            return why;
        }
    if (sim_queue_length(w, "requests.r1") || sim_queue_length(w, "reports.r1"))
        return "messages wait in the broker";
    if (w->record->watermark != w->record->sequence)
        return "the watermark is behind";
    if (w->record->comparing)
        return "the restored record has not been compared with every host";
    if (sim_readers_unrest(w))
        return sim_readers_unrest(w);
    /* What costs more comes last. */
    for (int i = 0; i < w->size.hosts; i++)
        if (host_unrest(w, i))
            return host_unrest(w, i);
    for (struct hp_map_node *n = hp_map_first(&w->record->tables.containers); n; n = hp_map_next(n)) {
        const struct sim_row *row = n->value;
        const char *unrest = row->gone ? NULL : container_unrest(row);
        if (unrest)
            return unrest;
    }
    return orphan(w);
}

/* I8: record and journal know the process that runs, and not another one that had its pid before. */
static void check_process(struct sim_world *w, const struct sim_row *row, const Harpoon__V1__ContainerStatus *status,
                          const struct sim_container *c, const struct ha_record *j)
{
    if (!c->running)
        return;
    sim_check(w, j->pid == c->pid && j->pid_start_ticks == c->ticks, "I8",
              "%s (%s) is process %" PRId64 "/%" PRId64 ", and in the journal %" PRId64 "/%" PRId64, row->key, row->uid,
              c->pid, c->ticks, j->pid, j->pid_start_ticks);
    sim_check(w, status->pid == c->pid && status->pid_start_ticks == c->ticks, "I8",
              "%s (%s) is process %" PRId64 "/%" PRId64 ", and in the record %" PRId64 "/%" PRId64, row->key, row->uid,
              c->pid, c->ticks, status->pid, status->pid_start_ticks);
}

/* I6, for one container of the record. */
static void check_container(struct sim_world *w, const struct sim_row *row, const record_pb *m, int host)
{
    const struct sim_container *c = on_host(w, host, row->uid);
    const struct ha_record *j = journalled(w, host, row->uid);
    const Harpoon__V1__Resources *x = m->container->spec->resources;
    bool wants = m->container->spec->desired_state != HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    bool failed = m->container->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED;
    bool backoff = m->container->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_BACKOFF;
    if (w->record->restored && failed && !c)
        return; /* the host has removed it, as was asked for after the backup */
    sim_check(w, j != NULL, "I6", "%s (%s) is not in the journal of h%d", row->key, row->uid, host);
    sim_check(w, c != NULL, "I6", "%s (%s) is not on h%d", row->key, row->uid, host);
    if (!c || !j)
        return;
    sim_check(w, j->generation == m->container->generation, "I6",
              "%s (%s): the record has generation %" PRId64 ", the journal of h%d %" PRId64, row->key, row->uid,
              m->container->generation, host, j->generation);
    sim_check(w, !j->intent.generation, "I6", "%s (%s): the journal of h%d has an intent at rest", row->key, row->uid,
              host);
    if (failed || backoff)
        return;
    sim_check(w, c->running == wants, "I6", "%s (%s) %s on h%d, and shall %s (state %d)", row->key, row->uid,
              c->running ? "runs" : "does not run", host, wants ? "run" : "not run", m->container->status->state);
    check_process(w, row, m->container->status, c, j);
    sim_check(w, !wants || (c->cpu_millis == x->cpu_millis && c->memory_bytes == x->memory_bytes), "I6",
              "%s (%s) on h%d has cpu %" PRId64 " memory %" PRId64 ", and shall have %" PRId64 " and %" PRId64,
              row->key, row->uid, host, c->cpu_millis, c->memory_bytes, x->cpu_millis, x->memory_bytes);
}

/* What lies on a host, at rest. */
struct claims {
    int64_t cpu[SIM_HOSTS_MAX], fast[SIM_HOSTS_MAX], bulk[SIM_HOSTS_MAX];
};

static void add_volumes(struct claims *claimed, const Harpoon__V1__ContainerSpec *spec, int host)
{
    for (size_t i = 0; i < spec->n_volumes; i++)
        if (!strcmp(spec->volumes[i]->storage_class, "fast"))
            claimed->fast[host] += spec->volumes[i]->size_bytes;
        else
            claimed->bulk[host] += spec->volumes[i]->size_bytes;
}

static void check_record(struct sim_world *w, struct claims *claimed)
{
    for (struct hp_map_node *n = hp_map_first(&w->record->tables.containers); n; n = hp_map_next(n)) {
        const struct sim_row *row = n->value;
        if (row->gone)
            continue;
        record_pb *m = unpack(row);
        int host = host_number(m);
        int64_t claim = m->claim ? m->claim->cpu_millis : 0;
        if (host >= 0) {
            check_container(w, row, m, host);
            sim_check(w, claim == m->container->spec->resources->cpu_millis, "I7",
                      "%s (%s) claims %" PRId64 ", and has %" PRId64, row->key, row->uid, claim,
                      m->container->spec->resources->cpu_millis);
            claimed->cpu[host] += claim;
            add_volumes(claimed, m->container->spec, host);
        } else {
            sim_check(w, claim == 0, "I7", "%s (%s) has no host, and claims %" PRId64, row->key, row->uid, claim);
        }
        hp_unpacked_free(&m->base);
    }
}

static void check_storage(struct sim_world *w, const struct claims *claimed, int i, const Harpoon__V1__Host *m)
{
    sim_check(w, m->n_storage_claimed == (i % 2 ? 1 : 2), "I7", "h%d says what is claimed of %zu storage classes", i,
              m->n_storage_claimed);
    for (size_t k = 0; k < m->n_storage_claimed; k++) {
        bool is_fast = !strcmp(m->storage_claimed[k]->name, "fast");
        int64_t sum = is_fast ? claimed->fast[i] : claimed->bulk[i];
        sim_check(w, m->storage_claimed[k]->size_bytes == sum && sum <= (is_fast ? SIM_FAST_BYTES : SIM_BULK_BYTES),
                  "I7", "h%d says that %" PRId64 " of class %s is claimed; its containers claim %" PRId64, i,
                  m->storage_claimed[k]->size_bytes, m->storage_claimed[k]->name, sum);
    }
    sim_check(w, i % 2 == 0 || !claimed->fast[i], "I7",
              "h%d has no storage class fast, and %" PRId64 " is claimed of it", i, claimed->fast[i]);
}

static void check_claims(struct sim_world *w, const struct claims *claimed)
{
    for (int i = 0; i < w->size.hosts; i++) {
        char name[16];
        snprintf(name, sizeof name, "h%d", i);
        const struct sim_row *row = hp_map_get(&w->record->tables.hosts, name);
        if (!row)
            continue;
        Harpoon__V1__Host *m = sim_unpack(&harpoon__v1__host__descriptor, row->body->bytes, row->body->len);
        int64_t said = m->claimed ? m->claimed->cpu_millis : 0;
        sim_check(w, said == claimed->cpu[i], "I7",
                  "%s says that %" PRId64 " is claimed; its containers claim %" PRId64, name, said, claimed->cpu[i]);
        sim_check(w, claimed->cpu[i] <= m->allocatable->cpu_millis * 3 / 2, "I7",
                  "%s: %" PRId64 " of %" PRId64 " claimed", name, claimed->cpu[i], m->allocatable->cpu_millis);
        check_storage(w, claimed, i, m);
        hp_unpacked_free(&m->base);
    }
}

void sim_check_rest(struct sim_world *w)
{
    struct claims claimed = {0};
    sim_clients_check(w);
    check_record(w, &claimed);
    check_claims(w, &claimed);
    for (int64_t s = w->record->begin; s <= w->record->sequence; s++)
        sim_check(w, sim_stream_has(w, s), "I9", "the stream lacks %" PRId64 " of %" PRId64, s, w->record->sequence);
}
