#include "core/check.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "grpc/status.h"

void gw_violation(struct gw_check *c, const char *field, const char *fmt, ...)
{
    char text[512], path[2 * GW_FIELD_MAX];
    assert(field && fmt);
    if (++c->count > GW_VIOLATIONS_MAX)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(path, sizeof path, "%s%s", c->prefix, field);
    if (c->count == 1)
        c->status = hp_status_new(HP_CODE_INVALID_ARGUMENT, "FIELD_INVALID", "%s: %s", path, text);
    if (c->status)
        c->status = hp_status_add_field(c->status, path, text);
}

void gw_check_range(struct gw_check *c, const char *field, int64_t value, int64_t min, int64_t max)
{
    assert(min <= max);
    if (value < min || value > max)
        gw_violation(c, field, "%lld is not in %lld to %lld", (long long)value, (long long)min, (long long)max);
}

void gw_check_length(struct gw_check *c, const char *field, const char *text, size_t min, size_t max)
{
    size_t len = strlen(text);
    if (len == 0 && min > 0)
        gw_violation(c, field, "must be set");
    else if (len < min || len > max)
        gw_violation(c, field, "\"%.40s%s\" has %zu bytes; allowed are %zu to %zu", text, len > 40 ? "…" : "", len, min,
                     max);
}

bool gw_check_count(struct gw_check *c, const char *field, size_t count, size_t max)
{
    if (count <= max)
        return true;
    gw_violation(c, field, "has %zu elements; at most %zu are allowed", count, max);
    return false;
}
