/* check.h — gathers what is wrong with a request into one INVALID_ARGUMENT. */
#ifndef GW_CHECK_H
#define GW_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "google/rpc/status.pb-c.h"

enum { GW_VIOLATIONS_MAX = 20, GW_FIELD_MAX = 192 };

struct gw_check {
    Google__Rpc__Status *status; /* NULL while nothing is wrong (or out of memory) */
    int count;                   /* violations found; those after GW_VIOLATIONS_MAX are counted only */
    char prefix[GW_FIELD_MAX];   /* put before field names: "create." */
};

/* `field` is the path in the request; the text names the value and the limit. */
void gw_violation(struct gw_check *c, const char *field, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* min <= value <= max. */
void gw_check_range(struct gw_check *c, const char *field, int64_t value, int64_t min, int64_t max);
/* Bytes of a text. */
void gw_check_length(struct gw_check *c, const char *field, const char *text, size_t min, size_t max);
/* Elements of a list; false when over the limit, so that the caller need not look at each. */
bool gw_check_count(struct gw_check *c, const char *field, size_t count, size_t max);

#endif
