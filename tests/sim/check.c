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

typedef Harpoon__Internal__V1__ContainerRecord record_pb;

static record_pb *unpack(const struct sim_row *row)
{
    record_pb *m = harpoon__internal__v1__container_record__unpack(NULL, row->body->len, row->body->bytes);
    assert(m && m->container);
    return m;
}

static const char *container_unrest(const struct sim_row *row)
{
    static char why[200];
    record_pb *m = unpack(row);
    bool rest = !m->deleting && !m->cleanup && !m->sync && !m->confirmed;
    if (!rest)
        snprintf(why, sizeof why, "%.60s (%s) has%s%s%s%s", row->key, row->uid, m->deleting ? " deleting" : "",
                 m->cleanup ? " cleanup" : "", m->sync ? " sync" : "", m->confirmed ? " confirmed" : "");
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return rest ? NULL : why;
}

const char *sim_unrest(struct sim_world *w)
{
    static char why[200];
    bool led = false;
    if (!sim_clients_done(w))
        return "a client has no answer";
    for (int i = 0; i < SIM_SCHEDULERS; i++)
        led |= sim_scheduler_leads(w, i);
    if (!led)
        return "nobody leads";
    for (struct hp_map_node *n = hp_map_first(&w->record->operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        if (!row->active)
            continue;
        snprintf(why, sizeof why, "operation %s (verb %d) is in stage %d", row->id, row->verb, row->stage);
        return why;
    }
    for (struct hp_map_node *n = hp_map_first(&w->record->containers); n; n = hp_map_next(n)) {
        const struct sim_row *row = n->value;
        const char *unrest = row->gone ? NULL : container_unrest(row);
        if (unrest)
            return unrest;
    }
    for (int i = 0; i < SIM_HOSTS; i++)
        if (!sim_host_at_rest(w, i)) {
            snprintf(why, sizeof why, "host %d is busy or away", i);
            return why;
        }
    if (sim_queue_length(w, "requests.r1") || sim_queue_length(w, "reports.r1"))
        return "messages wait in the broker";
    if (w->record->watermark != w->record->sequence)
        return "the watermark is behind";
    return NULL;
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

/* I6, for one container of the record. */
static void check_container(struct sim_world *w, const struct sim_row *row, const record_pb *m, int host)
{
    const struct sim_container *c = on_host(w, host, row->uid);
    const struct ha_record *j = journalled(w, host, row->uid);
    const Harpoon__V1__Resources *x = m->container->spec->resources;
    bool wants = m->container->spec->desired_state != HARPOON__V1__DESIRED_STATE__DESIRED_STATE_STOPPED;
    bool failed = m->container->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED;
    bool backoff = m->container->status->state == HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_BACKOFF;
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
    sim_check(w, !wants || (c->cpu_millis == x->cpu_millis && c->memory_bytes == x->memory_bytes), "I6",
              "%s (%s) on h%d has cpu %" PRId64 " memory %" PRId64 ", and shall have %" PRId64 " and %" PRId64,
              row->key, row->uid, host, c->cpu_millis, c->memory_bytes, x->cpu_millis, x->memory_bytes);
}

static void check_record(struct sim_world *w, int64_t claimed[SIM_HOSTS])
{
    for (struct hp_map_node *n = hp_map_first(&w->record->containers); n; n = hp_map_next(n)) {
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
            claimed[host] += claim;
        } else {
            sim_check(w, claim == 0, "I7", "%s (%s) has no host, and claims %" PRId64, row->key, row->uid, claim);
        }
        harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    }
}

static void check_claims(struct sim_world *w, const int64_t claimed[SIM_HOSTS])
{
    for (int i = 0; i < SIM_HOSTS; i++) {
        char name[8];
        snprintf(name, sizeof name, "h%d", i);
        const struct sim_row *row = hp_map_get(&w->record->hosts, name);
        if (!row)
            continue;
        Harpoon__V1__Host *m = harpoon__v1__host__unpack(NULL, row->body->len, row->body->bytes);
        assert(m);
        int64_t said = m->claimed ? m->claimed->cpu_millis : 0;
        sim_check(w, said == claimed[i], "I7", "%s says that %" PRId64 " is claimed; its containers claim %" PRId64,
                  name, said, claimed[i]);
        sim_check(w, claimed[i] <= m->allocatable->cpu_millis * 3 / 2, "I7", "%s: %" PRId64 " of %" PRId64 " claimed",
                  name, claimed[i], m->allocatable->cpu_millis);
        harpoon__v1__host__free_unpacked(m, NULL);
    }
}

/* Nothing lives that the record does not know, but what was quarantined for an operator to look at. */
static void check_orphans(struct sim_world *w)
{
    for (int i = 0; i < SIM_HOSTS; i++)
        for (const struct sim_container *c = sim_host_runtime(w, i)->containers; c; c = c->next) {
            if (!c->exists)
                continue;
            const struct sim_row *row = hp_map_get(&w->record->containers, c->name);
            const struct ha_record *j = journalled(w, i, c->uid);
            bool known = row && !row->gone && !strcmp(row->uid, c->uid);
            sim_check(w, known || (j && j->quarantined), "I6", "%s (%s) is an orphan on h%d", c->name, c->uid, i);
            if (!known)
                continue;
            record_pb *m = unpack(row);
            sim_check(w, host_number(m) == i, "I6", "%s (%s) is on h%d and belongs on h%d", c->name, c->uid, i,
                      host_number(m));
            harpoon__internal__v1__container_record__free_unpacked(m, NULL);
        }
}

void sim_check_rest(struct sim_world *w)
{
    int64_t claimed[SIM_HOSTS] = {0};
    sim_clients_check(w);
    check_record(w, claimed);
    check_claims(w, claimed);
    check_orphans(w);
    for (int64_t s = 1; s <= w->record->sequence; s++)
        sim_check(w, sim_stream_has(w, s), "I9", "the stream lacks %" PRId64 " of %" PRId64, s, w->record->sequence);
}
