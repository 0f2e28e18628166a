/* timetext.h — google.protobuf.Timestamp and Duration as text: RFC 3339 in UTC, and seconds with "s" (the proto3 JSON mapping). */
#ifndef HP_WIRE_TIMETEXT_H
#define HP_WIRE_TIMETEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { HP_TIMETEXT_MAX = 96 };

/* "2024-02-29T12:00:00.123456789Z", with 0, 3, 6 or 9 digits of the fraction. HP_EINVAL outside the years 1 to 9999, or nanos outside 0 … 999,999,999. */
int hp_timestamp_format(char out[HP_TIMETEXT_MAX], int64_t seconds, int32_t nanos) HP_MUST_CHECK;
/* Also with an offset such as "+02:00". */
int hp_timestamp_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos) HP_MUST_CHECK;
/* "-1.500s". HP_EINVAL beyond 315,576,000,000 s, or signs that differ. */
int hp_duration_format(char out[HP_TIMETEXT_MAX], int64_t seconds, int32_t nanos) HP_MUST_CHECK;
int hp_duration_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos) HP_MUST_CHECK;

#endif
