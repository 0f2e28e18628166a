/* Validation of what requests have in common, and of the small parts of a container. */
#include "core/validate.h"

#include <stdio.h>
#include <string.h>

#include "wire/names.h"

void gw_validate_request_id(struct gw_check *c, const char *field, const char *id)
{
    gw_check_length(c, field, id, 0, HP_REQUEST_ID_MAX);
    for (const char *p = id; *p; p++)
        if (*p < 0x20 || *p > 0x7E) {
            gw_violation(c, field, "byte %zu is not printable ASCII", (size_t)(p - id));
            return;
        }
}

void gw_validate_etag(struct gw_check *c, const char *etag)
{
    gw_check_length(c, "etag", etag, 0, GW_ETAG_BYTES_MAX);
}

int gw_validate_page_size(struct gw_check *c, int32_t page_size)
{
    gw_check_range(c, "page_size", page_size, 0, GW_PAGE_MAX);
    return page_size > 0 && page_size <= GW_PAGE_MAX ? page_size : GW_PAGE_DEFAULT;
}

void gw_validate_labels(struct gw_check *c, const char *field, Harpoon__V1__Container__LabelsEntry **entries,
                        size_t count)
{
    if (!gw_check_count(c, field, count, GW_LABELS_MAX))
        return;
    for (size_t i = 0; i < count; i++) {
        char path[GW_FIELD_MAX];
        snprintf(path, sizeof path, "%.60s[\"%.64s\"]", field, entries[i]->key);
        gw_check_length(c, path, entries[i]->key, 1, GW_LABEL_BYTES_MAX);
        gw_check_length(c, path, entries[i]->value, 0, GW_LABEL_BYTES_MAX);
        for (size_t k = 0; k < i; k++)
            if (strcmp(entries[k]->key, entries[i]->key) == 0)
                gw_violation(c, path, "is given twice");
    }
}

/* Zero leaves a resize's value as it is, and means "no limit" in the optional values of a create. */
static void check_limit(struct gw_check *c, const char *field, const char *name, int64_t value, int64_t min,
                        int64_t max, bool required)
{
    char path[GW_FIELD_MAX];
    if (value ? value >= min && value <= max : !required)
        return;
    snprintf(path, sizeof path, "%s.%s", field, name);
    if (value == 0)
        gw_violation(c, path, "must be set: %lld to %lld", (long long)min, (long long)max);
    else
        gw_check_range(c, path, value, min, max);
}

void gw_validate_resources(struct gw_check *c, const char *field, const Harpoon__V1__Resources *r, bool whole)
{
    static const Harpoon__V1__Resources none = HARPOON__V1__RESOURCES__INIT;
    if (!r)
        r = &none;
    if (!whole && !r->cpu_millis && !r->memory_bytes && !r->disk_bytes && !r->pids_max && !r->io_read_bps &&
        !r->io_write_bps && !r->io_read_iops && !r->io_write_iops && !r->network_bps)
        gw_violation(c, field, "must have at least one value that is not 0");
    check_limit(c, field, "cpu_millis", r->cpu_millis, GW_CPU_MILLIS_MIN, GW_CPU_MILLIS_MAX, whole);
    check_limit(c, field, "memory_bytes", r->memory_bytes, GW_MEMORY_BYTES_MIN, GW_MEMORY_BYTES_MAX, whole);
    check_limit(c, field, "disk_bytes", r->disk_bytes, 0, GW_DISK_BYTES_MAX, false);
    check_limit(c, field, "pids_max", r->pids_max, 0, GW_PIDS_MAX, false);
    check_limit(c, field, "io_read_bps", r->io_read_bps, 0, GW_IO_MAX, false);
    check_limit(c, field, "io_write_bps", r->io_write_bps, 0, GW_IO_MAX, false);
    check_limit(c, field, "io_read_iops", r->io_read_iops, 0, GW_IO_MAX, false);
    check_limit(c, field, "io_write_iops", r->io_write_iops, 0, GW_IO_MAX, false);
    check_limit(c, field, "network_bps", r->network_bps, GW_NETWORK_BPS_MIN, GW_NETWORK_BPS_MAX, false);
}

/* A full name, or a prefix of one that ends in "*". */
static void check_pattern(struct gw_check *c, const char *field, const char *text)
{
    gw_check_length(c, field, text, 0, HP_NAME_MAX);
    const char *star = strchr(text, '*');
    if (star && star[1])
        gw_violation(c, field, "\"%.64s\": * is allowed at the end only", text);
}

void gw_validate_filter(struct gw_check *c, const Harpoon__V1__EventFilter *f)
{
    if (!f)
        return;
    if (*f->project && !hp_segment_valid(f->project))
        gw_violation(c, "filter.project", "\"%.64s\" is not a project's name", f->project);
    if (*f->host && !hp_segment_valid(f->host))
        gw_violation(c, "filter.host", "\"%.64s\" is not a host's short name", f->host);
    check_pattern(c, "filter.subject", f->subject);
    if (gw_check_count(c, "filter.types", f->n_types, GW_TYPES_MAX))
        for (size_t i = 0; i < f->n_types; i++) {
            char path[GW_FIELD_MAX];
            snprintf(path, sizeof path, "filter.types[%zu]", i);
            gw_check_length(c, path, f->types[i], 1, HP_NAME_MAX);
            check_pattern(c, path, f->types[i]);
        }
    if (!protobuf_c_enum_descriptor_get_value(&harpoon__v1__severity__descriptor, (int)f->min_severity))
        gw_violation(c, "filter.min_severity", "%d is not a value of Severity", (int)f->min_severity);
}
