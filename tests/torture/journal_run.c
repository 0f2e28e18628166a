/* Each batch goes to the journal and to the model of it; the model says which states there are. Batches are told durable before the next are handed over, as
 * several of one transaction or one by one: the disk's gate makes this the same in every run. */
#include "torture/journal_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "io/loop.h"
#include "lib/agent_model.h"
#include "shell/journal_sqlite.h"
#include "shell/journal_table.h"

enum { GROUP_MAX = 4, UIDS = 6, MIB = 1 << 20 };

struct recorder {
    struct journal_run *run;
    struct mv_disk disk;
    uv_loop_t loop;
    uv_timer_t tick; /* keeps the loop turning: the journal does not */
    struct ha_sqlite *j;
    struct journal_model reference;
    uint64_t told, handed, synced;
    struct hp_rng rng;
};

/* ---- states ---- */

uint64_t journal_state_digest(const struct ha_image *image)
{
    uint64_t records = 0, h = hp_hash(5, image->meta, sizeof image->meta);
    for (size_t i = 0; i < image->record_count; i++)
        records += ha_table_sum(&ha_table_containers, &image->records[i]);
    for (size_t i = 0; i < image->report_count; i++)
        h = h * 31 + ha_table_sum(&ha_table_reports, &image->reports[i]);
    for (size_t i = 0; i < image->tombstone_count; i++)
        h = h * 37 + ha_table_sum(&ha_table_tombstones, &image->tombstones[i]);
    return h ^ records;
}

static void add_state(struct recorder *r)
{
    struct journal_run *run = r->run;
    run->states = realloc(run->states, (run->state_count + 1) * sizeof *run->states);
    if (!run->states)
        abort();
    run->states[run->state_count++] = journal_state_digest(&r->reference.durable);
}

/* ---- the journal ---- */

static void on_tick(uv_timer_t *t)
{
}

static void on_synced(void *user, uint64_t seq, int status, const struct hp_error *e)
{
    struct recorder *r = user;
    if (status) {
        fprintf(stderr, "the journal failed: %s\n", e->message);
        abort();
    }
    r->synced = seq;
}

static void mark(struct recorder *r)
{
    mv_log_mark(&r->run->log, r->told, r->handed);
}

static void open_journal(struct recorder *r)
{
    struct ha_image image;
    struct hp_error e = {0};
    if (ha_sqlite_open(&r->loop, "journal.db", &r->j, &image, &e)) {
        fprintf(stderr, "%s\n", e.message);
        abort();
    }
    if (journal_state_digest(&image) != r->run->states[r->told])
        abort(); /* an orderly end loses nothing */
    ha_image_done(&image);
    ha_sqlite_journal(r->j)->synced_cb = on_synced;
    ha_sqlite_journal(r->j)->user = r;
    r->synced = 0;
}

static void close_journal(struct recorder *r)
{
    ha_sqlite_close(r->j);
    uv_run(&r->loop, UV_RUN_NOWAIT);
}

static bool changes_something(const struct jm_batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->writes[i].kind != HA_WRITE_CONTAINER_DELETE && b->writes[i].kind != HA_WRITE_REPORT_DELETE &&
            b->writes[i].kind != HA_WRITE_TOMBSTONE_DELETE)
            return true;
    return false;
}

/* Hands `count` batches over and waits until all are durable. The first is a transaction of its own, the others are one. */
static void hand_over(struct recorder *r, const struct jm_batch *batches, size_t count)
{
    struct ha_journal *j = ha_sqlite_journal(r->j);
    uint64_t first = r->handed;
    for (size_t i = 0; i < count; i++) {
        jm_write(&r->reference, 1, batches[i].writes, batches[i].count);
        jm_sync(&r->reference, 1);
        add_state(r);
    }
    r->handed += count;
    mark(r);
    bool gate = count > 1 && changes_something(&batches[0]);
    if (gate)
        mv_gate_close();
    for (size_t i = 0; i < count; i++) {
        j->write(j, first + i + 1, batches[i].writes, batches[i].count);
        if (gate && i == 0)
            mv_gate_await();
        for (; !gate && r->synced <= first + i;)
            uv_run(&r->loop, UV_RUN_ONCE);
    }
    if (gate)
        mv_gate_open();
    while (r->synced < r->handed)
        uv_run(&r->loop, UV_RUN_ONCE);
    r->told = r->handed;
    mark(r);
}

/* ---- runs ---- */

/* What an agent writes: its core with commands, jobs, exits and confirmations in a random order. */
static void act(struct recorder *r, struct agent_model *m, int64_t *generations)
{
    int at = (int)hp_rng_below(&r->rng, UIDS);
    char uid[8];
    snprintf(uid, sizeof uid, "u%d", at);
    switch (hp_rng_below(&r->rng, 8)) {
    case 0:
    case 1:
        am_ensure(m, uid, ++generations[at], hp_rng_below(&r->rng, 3) ? "a" : "b",
                  (int64_t)(1 + hp_rng_below(&r->rng, 4)) * MIB);
        break;
    case 2:
        am_remove(m, uid, ++generations[at]);
        break;
    case 3:
        am_confirm_all(m);
        break;
    case 4:
        if (am_find(m, uid)->running)
            am_exit(m, uid, 1, false);
        break;
    case 5:
        am_advance(m, 2000);
        break;
    default:
        if (m->job_count && m->jobs[0]->executed)
            am_job_finish(m, 0);
        else if (m->job_count)
            am_job_execute(m, 0);
        break;
    }
}

static void run_agent(struct recorder *r, int batches)
{
    static struct agent_model m;
    int64_t generations[UIDS] = {0};
    am_init(&m);
    am_boot(&m);
    am_link(&m, true);
    while (r->handed < (uint64_t)batches) {
        act(r, &m, generations);
        if (!m.journal.batch_count || (m.journal.batch_count < GROUP_MAX && hp_rng_below(&r->rng, 3)))
            continue;
        hand_over(r, m.journal.batches, m.journal.batch_count);
        am_sync(&m);
        if (hp_rng_below(&r->rng, 40) == 0) {
            close_journal(r);
            open_journal(r);
        }
    }
    am_done(&m);
}

/* What no agent would write in this order: records and reports of all sizes, many deletions. */
static void run_random(struct recorder *r, int batches)
{
    static uint8_t blob[20000];
    int64_t report = 0;
    while (r->handed < (uint64_t)batches) {
        struct ha_write writes[8];
        struct ha_record records[8];
        struct ha_report_row reports[8];
        struct ha_tombstone tombstones[8];
        size_t count = 1 + hp_rng_below(&r->rng, 5);
        for (size_t i = 0; i < count; i++) {
            struct ha_write *x = &writes[i];
            size_t len = hp_rng_below(&r->rng, 8) ? 1 + hp_rng_below(&r->rng, 300) : 1 + hp_rng_below(&r->rng, 9000);
            hp_rng_fill(&r->rng, blob + i * 64, 64);
            *x = (struct ha_write){.kind = (enum ha_write_kind)hp_rng_below(&r->rng, 7)};
            x->meta_key = (enum ha_meta_key)hp_rng_below(&r->rng, HA_META_COUNT);
            x->number = x->kind == HA_WRITE_META ? (int64_t)hp_rng_next(&r->rng)
                                                 : (int64_t)hp_rng_below(&r->rng, 1 + (uint64_t)report);
            snprintf(x->uid, sizeof x->uid, "u%d", (int)hp_rng_below(&r->rng, 12));
            records[i] = (struct ha_record){.name = (char *)"projects/p/regions/r1/containers/c",
                                            .generation = (int64_t)hp_rng_next(&r->rng),
                                            .spec = {blob + i * 64, len},
                                            .pid = (int64_t)hp_rng_below(&r->rng, 1 << 22)};
            memcpy(records[i].uid, x->uid, sizeof x->uid);
            reports[i] =
                (struct ha_report_row){.id = x->kind == HA_WRITE_REPORT ? ++report : 0, .body = {blob + i * 64, len}};
            memcpy(reports[i].uid, x->uid, sizeof x->uid);
            tombstones[i] = (struct ha_tombstone){.generation = (int64_t)hp_rng_next(&r->rng)};
            memcpy(tombstones[i].uid, x->uid, sizeof x->uid);
            x->record = &records[i];
            x->report = &reports[i];
            x->tombstone = &tombstones[i];
        }
        hand_over(r, &(struct jm_batch){.writes = writes, .count = count}, 1);
        if (hp_rng_below(&r->rng, 30) == 0) {
            close_journal(r);
            open_journal(r);
        }
    }
}

void journal_run_record(struct journal_run *run, uint64_t seed, int batches)
{
    static struct recorder r;
    memset(&r, 0, sizeof r);
    *run = (struct journal_run){.seed = seed, .kind = seed % 2 ? "agent" : "random"};
    r.run = run;
    hp_rng_init(&r.rng, seed);
    uv_loop_init(&r.loop);
    uv_timer_init(&r.loop, &r.tick);
    uv_timer_start(&r.tick, on_tick, 5, 5);
    add_state(&r);
    mark(&r);
    mv_use(&r.disk, &run->log);
    open_journal(&r);
    if (seed % 2)
        run_agent(&r, batches);
    else
        run_random(&r, batches);
    close_journal(&r);
    mv_use(NULL, NULL);
    uv_close((uv_handle_t *)&r.tick, NULL);
    while (uv_run(&r.loop, UV_RUN_ONCE))
        ;
    if (uv_loop_close(&r.loop) || !mv_idle())
        abort();
    mv_disk_done(&r.disk);
    jm_done(&r.reference);
}

void journal_run_done(struct journal_run *r)
{
    mv_log_done(&r->log);
    free(r->states);
    *r = (struct journal_run){0};
}
