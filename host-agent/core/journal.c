#include "core/journal.h"

#include <stdlib.h>
#include <string.h>

int ha_bytes_copy(struct ha_bytes *ret, const void *data, size_t len)
{
    *ret = (struct ha_bytes){0};
    if (!len)
        return 0;
    ret->data = malloc(len);
    if (!ret->data)
        return HP_ENOMEM;
    memcpy(ret->data, data, len);
    ret->len = len;
    return 0;
}

void ha_bytes_done(struct ha_bytes *b)
{
    free(b->data);
    *b = (struct ha_bytes){0};
}

void ha_intent_done(struct ha_intent *i)
{
    ha_bytes_done(&i->spec);
    *i = (struct ha_intent){0};
}

void ha_record_done(struct ha_record *r)
{
    ha_bytes_done(&r->spec);
    ha_intent_done(&r->intent);
    free(r->name);
    free(r->error_message);
    free(r->address);
    free(r->image_digest);
    free(r->message);
    *r = (struct ha_record){0};
}

/* Copies a string that may be NULL; false: out of memory. */
static bool copy_text(char **ret, const char *from)
{
    *ret = from ? strdup(from) : NULL;
    return !from || *ret;
}

int ha_record_copy(struct ha_record *ret, const struct ha_record *from)
{
    *ret = *from;
    ret->name = ret->error_message = ret->address = ret->image_digest = ret->message = NULL;
    ret->spec = ret->intent.spec = (struct ha_bytes){0};
    if (ha_bytes_copy(&ret->spec, from->spec.data, from->spec.len) ||
        ha_bytes_copy(&ret->intent.spec, from->intent.spec.data, from->intent.spec.len) ||
        !copy_text(&ret->name, from->name) || !copy_text(&ret->error_message, from->error_message) ||
        !copy_text(&ret->address, from->address) || !copy_text(&ret->image_digest, from->image_digest) ||
        !copy_text(&ret->message, from->message)) {
        ha_record_done(ret);
        return HP_ENOMEM;
    }
    return 0;
}

int ha_report_row_copy(struct ha_report_row *ret, const struct ha_report_row *from)
{
    *ret = *from;
    int rc = ha_bytes_copy(&ret->body, from->body.data, from->body.len);
    if (rc)
        *ret = (struct ha_report_row){0};
    return rc;
}

void ha_report_row_done(struct ha_report_row *r)
{
    ha_bytes_done(&r->body);
    *r = (struct ha_report_row){0};
}

void ha_image_done(struct ha_image *image)
{
    for (size_t i = 0; i < image->record_count; i++)
        ha_record_done(&image->records[i]);
    for (size_t i = 0; i < image->report_count; i++)
        ha_report_row_done(&image->reports[i]);
    free(image->records);
    free(image->reports);
    free(image->tombstones);
    *image = (struct ha_image){0};
}

int ha_write_copy(struct ha_write *ret, const struct ha_write *from)
{
    *ret = *from;
    ret->record = NULL;
    ret->report = NULL;
    ret->tombstone = NULL;
    if (from->kind == HA_WRITE_CONTAINER) {
        struct ha_record *r = calloc(1, sizeof *r);
        ret->record = r;
        return r ? ha_record_copy(r, from->record) : HP_ENOMEM;
    }
    if (from->kind == HA_WRITE_REPORT) {
        struct ha_report_row *r = calloc(1, sizeof *r);
        ret->report = r;
        return r ? ha_report_row_copy(r, from->report) : HP_ENOMEM;
    }
    if (from->kind == HA_WRITE_TOMBSTONE) {
        struct ha_tombstone *t = malloc(sizeof *t);
        ret->tombstone = t;
        if (!t)
            return HP_ENOMEM;
        *t = *from->tombstone;
    }
    return 0;
}

void ha_write_done(struct ha_write *w)
{
    if (w->kind == HA_WRITE_CONTAINER && w->record)
        ha_record_done((struct ha_record *)w->record);
    if (w->kind == HA_WRITE_REPORT && w->report)
        ha_report_row_done((struct ha_report_row *)w->report);
    free((void *)w->record);
    free((void *)w->report);
    free((void *)w->tombstone);
    w->record = NULL;
    w->report = NULL;
    w->tombstone = NULL;
}
