#include "lib/journal_model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void keep(int rc)
{
    if (rc)
        abort(); /* out of memory */
}

static void apply_container(struct ha_image *d, const struct ha_record *r)
{
    size_t i = 0;
    while (i < d->record_count && strcmp(d->records[i].uid, r->uid) != 0)
        i++;
    if (i == d->record_count) {
        d->records = realloc(d->records, (i + 1) * sizeof *d->records);
        d->records[i] = (struct ha_record){0};
        d->record_count++;
    }
    ha_record_done(&d->records[i]);
    keep(ha_record_copy(&d->records[i], r));
}

static void delete_container(struct ha_image *d, const char *uid)
{
    for (size_t i = 0; i < d->record_count; i++)
        if (strcmp(d->records[i].uid, uid) == 0) {
            ha_record_done(&d->records[i]);
            memmove(&d->records[i], &d->records[i + 1], (d->record_count - i - 1) * sizeof *d->records);
            d->record_count--;
            return;
        }
}

static void apply_report(struct ha_image *d, const struct ha_report_row *r)
{
    assert(d->report_count == 0 || d->reports[d->report_count - 1].id < r->id);
    d->reports = realloc(d->reports, (d->report_count + 1) * sizeof *d->reports);
    keep(ha_report_row_copy(&d->reports[d->report_count++], r));
}

static void delete_report(struct ha_image *d, int64_t id)
{
    for (size_t i = 0; i < d->report_count; i++)
        if (d->reports[i].id == id) {
            ha_report_row_done(&d->reports[i]);
            memmove(&d->reports[i], &d->reports[i + 1], (d->report_count - i - 1) * sizeof *d->reports);
            d->report_count--;
            return;
        }
}

static void delete_tombstone(struct ha_image *d, const char *uid)
{
    for (size_t i = 0; i < d->tombstone_count; i++)
        if (strcmp(d->tombstones[i].uid, uid) == 0) {
            memmove(&d->tombstones[i], &d->tombstones[i + 1], (d->tombstone_count - i - 1) * sizeof *d->tombstones);
            d->tombstone_count--;
            return;
        }
}

static void apply(struct ha_image *d, const struct ha_write *w)
{
    switch (w->kind) {
    case HA_WRITE_META:
        d->meta[w->meta_key] = w->number;
        break;
    case HA_WRITE_CONTAINER:
        apply_container(d, w->record);
        break;
    case HA_WRITE_CONTAINER_DELETE:
        delete_container(d, w->uid);
        break;
    case HA_WRITE_REPORT:
        apply_report(d, w->report);
        break;
    case HA_WRITE_REPORT_DELETE:
        delete_report(d, w->number);
        break;
    case HA_WRITE_TOMBSTONE:
        delete_tombstone(d, w->tombstone->uid);
        d->tombstones = realloc(d->tombstones, (d->tombstone_count + 1) * sizeof *d->tombstones);
        d->tombstones[d->tombstone_count++] = *w->tombstone;
        break;
    case HA_WRITE_TOMBSTONE_DELETE:
        delete_tombstone(d, w->uid);
        break;
    }
}

struct ha_image jm_image(const struct journal_model *j)
{
    const struct ha_image *d = &j->durable;
    struct ha_image c = *d;
    c.records = calloc(d->record_count + 1, sizeof *c.records);
    c.reports = calloc(d->report_count + 1, sizeof *c.reports);
    c.tombstones = calloc(d->tombstone_count + 1, sizeof *c.tombstones);
    for (size_t i = 0; i < d->record_count; i++)
        keep(ha_record_copy(&c.records[i], &d->records[i]));
    for (size_t i = 0; i < d->report_count; i++)
        keep(ha_report_row_copy(&c.reports[i], &d->reports[i]));
    for (size_t i = 0; i < d->tombstone_count; i++)
        c.tombstones[i] = d->tombstones[i];
    return c;
}

void jm_write(struct journal_model *j, uint64_t seq, const struct ha_write *writes, size_t count)
{
    assert(j->batch_count < JM_BATCHES_MAX);
    struct jm_batch *b = &j->batches[j->batch_count++];
    b->seq = seq;
    b->count = count;
    b->writes = calloc(count, sizeof *b->writes);
    for (size_t i = 0; i < count; i++)
        keep(ha_write_copy(&b->writes[i], &writes[i]));
}

static void batch_done(struct jm_batch *b)
{
    for (size_t k = 0; k < b->count; k++)
        ha_write_done(&b->writes[k]);
    free(b->writes);
}

uint64_t jm_sync(struct journal_model *j, size_t count)
{
    uint64_t seq = 0;
    assert(count <= j->batch_count);
    for (size_t i = 0; i < count; i++) {
        struct jm_batch *b = &j->batches[i];
        for (size_t k = 0; k < b->count; k++)
            apply(&j->durable, &b->writes[k]);
        seq = b->seq;
        batch_done(b);
    }
    j->batch_count -= count;
    memmove(j->batches, j->batches + count, j->batch_count * sizeof *j->batches);
    return seq;
}

void jm_lose(struct journal_model *j)
{
    for (size_t i = 0; i < j->batch_count; i++)
        batch_done(&j->batches[i]);
    j->batch_count = 0;
}

void jm_done(struct journal_model *j)
{
    jm_lose(j);
    ha_image_done(&j->durable);
}
