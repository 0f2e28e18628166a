/* restore.c — the record is lost, and a backup that is older than the world takes its place, as docs/OPERATIONS.md has it: schedulers are stopped, the backup is loaded, epoch and sequence
 * go beyond all that were ever used, the log of events begins anew. What was committed since is known to the checks, and to nobody else.
 *
 * Held at each step from then on: no process ends that was at rest before and after the backup, or that the backup does not know, unless somebody asks for it anew. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent_core.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "sim/job.h"
#include "wire/codec.h"

enum { BEYOND = 1000 }; /* so far above all epochs and sequences that were used */

static void put(struct hp_map *m, const char *key, void *value)
{
    if (hp_map_put(m, key, value, NULL))
        abort();
}

static void copy_rows(struct sim_world *w, struct hp_map *to, const struct hp_map *from)
{
    for (struct hp_map_node *n = hp_map_first(from); n; n = hp_map_next(n)) {
        const struct sim_row *row = n->value;
        if (row->gone)
            continue;
        sc_blob_ref(row->body);
        put(to, row->key, sim_copy(w, row, sizeof *row));
    }
}

void sim_record_back_up(struct sim_world *w)
{
    struct sim_record *r = w->record;
    assert(!r->backup);
    r->backup = sim_alloc(w, sizeof *r->backup);
    sim_tables_init(r->backup);
    copy_rows(w, &r->backup->containers, &r->tables.containers);
    copy_rows(w, &r->backup->hosts, &r->tables.hosts);
    for (struct hp_map_node *n = hp_map_first(&r->tables.operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *row = n->value;
        sc_blob_ref(row->body);
        put(&r->backup->operations, row->id, sim_copy(w, row, sizeof *row));
    }
    sim_trace(w, "record: a backup is made, of epoch %d and sequence %d", (int)r->epoch, (int)r->sequence);
}

/* ---- What must live on, and what may ---- */

/* A removal that failed after it took effect was never told: what the backup has may be made anew. */
static void look_at_removal(struct sim_world *w, int host, struct sim_container *c)
{
    const struct ha_image *d = sim_host_journal(w, host);
    for (size_t i = 0; i < d->tombstone_count; i++)
        if (!strcmp(d->tombstones[i].uid, c->uid)) {
            c->entombed = true;
            return;
        }
    c->removed = 0;
}

/* These tables have it there, and nothing is under way or owed. */
static bool is_settled(const struct sim_tables *t, const struct sim_container *c, int host)
{
    const struct sim_row *row = hp_map_get(&t->containers, c->name);
    if (!row || row->gone || strcmp(row->uid, c->uid) != 0)
        return false;
    for (struct hp_map_node *n = hp_map_first(&t->operations); n; n = hp_map_next(n)) {
        const struct sim_operation_row *op = n->value;
        if (op->active && !strcmp(op->target, c->name))
            return false;
    }
    Harpoon__Internal__V1__ContainerRecord *m =
        sim_unpack(&harpoon__internal__v1__container_record__descriptor, row->body->bytes, row->body->len);
    const char *at = strrchr(m->container->status->host, '/');
    bool rest = at && atoi(at + 2) == host && !m->deleting && !m->cleanup && !m->sync && !m->confirmed;
    hp_unpacked_free(&m->base);
    return rest;
}

static bool knows_uid(const struct sim_tables *t, const char *uid)
{
    for (struct hp_map_node *n = hp_map_first(&t->containers); n; n = hp_map_next(n))
        if (!strcmp(((const struct sim_row *)n->value)->uid, uid))
            return true;
    return false;
}

/* Its host is at work on it, or has yet to begin. */
static bool is_busy(struct sim_world *w, int host, const char *uid)
{
    const struct ha_image *d = sim_host_journal(w, host);
    for (const struct sim_job *j = sim_host_runtime(w, host)->jobs; j; j = j->next)
        if (!strcmp(j->uid, uid))
            return true;
    for (size_t i = 0; i < d->record_count; i++)
        if (!strcmp(d->records[i].uid, uid))
            return d->records[i].intent.generation > 0;
    return true;
}

static void spare(struct sim_world *w, const struct sim_tables *last, const struct sim_tables *backup)
{
    for (int i = 0; i < w->size.hosts; i++)
        for (struct sim_container *c = sim_host_runtime(w, i)->containers; c; c = c->next)
            look_at_removal(w, i, c);
    for (int i = 0; i < w->size.hosts; i++)
        for (struct sim_container *c = sim_host_given_up(w, i) ? NULL : sim_host_runtime(w, i)->containers; c;
             c = c->next)
            c->spared = c->running && c->complete && is_settled(last, c, i) && !is_busy(w, i, c->uid) &&
                        (is_settled(backup, c, i) || !knows_uid(backup, c->uid));
}

void sim_restore_asked(struct sim_world *w, const struct sim_operation_row *op)
{
    if (!w->record->restored)
        return;
    for (int i = 0; i < w->size.hosts; i++)
        for (struct sim_container *c = sim_host_runtime(w, i)->containers; c; c = c->next)
            c->spared &= strcmp(c->uid, op->uid) != 0;
}

/* ---- The accident ---- */

bool sim_record_restore(struct sim_world *w, uint64_t down)
{
    struct sim_record *r = w->record;
    if (!r->backup || r->restored)
        return false;
    for (int i = 0; i < w->size.schedulers; i++)
        (void)sim_scheduler_kill(w, i, down + sim_between(w, 0, SIM_S));
    struct sim_tables last = r->tables;
    spare(w, &last, r->backup);
    sim_clients_forgotten(w, &last, r->backup);
    r->tables = *r->backup;
    *r->backup = last;
    r->restored = r->comparing = true;
    r->epoch += BEYOND;
    sim_record_begin_anew(w, BEYOND);
    r->down_until = w->now + down;
    return true;
}
