#include "wire/timetext.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMESTAMP_MIN (-62135596800LL) /* 0001-01-01T00:00:00Z */
#define TIMESTAMP_MAX 253402300799LL   /* 9999-12-31T23:59:59Z */
#define DURATION_MAX 315576000000LL
enum { DAY_S = 86400, NANOS = 1000000000 };

/* Days since 1970-01-01 of a date in the proleptic Gregorian calendar, and back (https://howardhinnant.github.io/date_algorithms.html). */
static int64_t days_of(int64_t y, unsigned m, unsigned d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400), doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
    return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static void date_of(int64_t days, int64_t *y, unsigned *m, unsigned *d)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned doe = (unsigned)(days - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (int64_t)yoe + era * 400 + (*m <= 2);
}

/* ".5" as ".500": 0, 3, 6 or 9 digits. */
static void format_fraction(char out[16], int32_t nanos)
{
    if (nanos == 0)
        out[0] = '\0';
    else if (nanos % 1000000 == 0)
        snprintf(out, 16, ".%03d", nanos / 1000000);
    else if (nanos % 1000 == 0)
        snprintf(out, 16, ".%06d", nanos / 1000);
    else
        snprintf(out, 16, ".%09d", nanos);
}

int hp_timestamp_format(char out[HP_TIMETEXT_MAX], int64_t seconds, int32_t nanos)
{
    if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX || nanos < 0 || nanos >= NANOS)
        return HP_EINVAL;
    int64_t days = seconds / DAY_S, rest = seconds % DAY_S, y;
    if (rest < 0) {
        rest += DAY_S;
        days--;
    }
    unsigned m, d, s = (unsigned)rest;
    char fraction[16];
    date_of(days, &y, &m, &d);
    format_fraction(fraction, nanos);
    snprintf(out, HP_TIMETEXT_MAX, "%04d-%02u-%02uT%02u:%02u:%02u%sZ", (int)y, m, d, s / 3600, s / 60 % 60, s % 60,
             fraction);
    return 0;
}

/* Exactly `count` digits. */
static bool digits(const char **p, int count, unsigned *ret)
{
    unsigned n = 0;
    for (int i = 0; i < count; i++, (*p)++) {
        if (**p < '0' || **p > '9')
            return false;
        n = n * 10 + (unsigned)(**p - '0');
    }
    *ret = n;
    return true;
}

static bool literal(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* An optional "." with 1 to 9 digits. */
static bool parse_fraction(const char **p, int32_t *ret)
{
    *ret = 0;
    if (**p != '.')
        return true;
    (*p)++;
    int count = 0;
    int32_t n = 0;
    for (; **p >= '0' && **p <= '9'; (*p)++, count++) {
        if (count == 9)
            return false;
        n = n * 10 + (**p - '0');
    }
    for (int i = count; i < 9; i++)
        n *= 10;
    *ret = n;
    return count > 0;
}

/* "Z" or "+hh:mm", to the end of the text. */
static bool parse_zone(const char **p, int *ret_offset_s)
{
    unsigned h, m;
    *ret_offset_s = 0;
    if (**p == 'Z' || **p == 'z') {
        (*p)++;
        return **p == '\0';
    }
    int sign = **p == '-' ? -1 : 1;
    if ((**p != '+' && **p != '-') || !*(*p)++)
        return false;
    if (!digits(p, 2, &h) || !literal(p, ':') || !digits(p, 2, &m) || h > 23 || m > 59)
        return false;
    *ret_offset_s = sign * (int)(h * 3600 + m * 60);
    return **p == '\0';
}

int hp_timestamp_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos)
{
    static const unsigned char month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned y, m, d, h, min, s;
    int offset_s;
    int32_t nanos;
    const char *p = text;
    if (!digits(&p, 4, &y) || !literal(&p, '-') || !digits(&p, 2, &m) || !literal(&p, '-') || !digits(&p, 2, &d))
        return HP_EINVAL;
    if (*p != 'T' && *p != 't')
        return HP_EINVAL;
    p++;
    if (!digits(&p, 2, &h) || !literal(&p, ':') || !digits(&p, 2, &min) || !literal(&p, ':') || !digits(&p, 2, &s) ||
        !parse_fraction(&p, &nanos) || !parse_zone(&p, &offset_s))
        return HP_EINVAL;
    if (m < 1 || m > 12 || d < 1 || h > 23 || min > 59 || s > 59)
        return HP_EINVAL;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if (d > month_days[m - 1] + (unsigned)(leap && m == 2))
        return HP_EINVAL;
    int64_t seconds = days_of(y, m, d) * DAY_S + (int64_t)(h * 3600 + min * 60 + s) - offset_s;
    if (seconds < TIMESTAMP_MIN || seconds > TIMESTAMP_MAX)
        return HP_EINVAL;
    *ret_seconds = seconds;
    *ret_nanos = nanos;
    return 0;
}

int hp_duration_format(char out[HP_TIMETEXT_MAX], int64_t seconds, int32_t nanos)
{
    if (seconds < -DURATION_MAX || seconds > DURATION_MAX || nanos <= -NANOS || nanos >= NANOS)
        return HP_EINVAL;
    if ((seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0))
        return HP_EINVAL;
    char fraction[16];
    format_fraction(fraction, nanos < 0 ? -nanos : nanos);
    snprintf(out, HP_TIMETEXT_MAX, "%s%lld%ss", seconds < 0 || nanos < 0 ? "-" : "",
             (long long)(seconds < 0 ? -seconds : seconds), fraction);
    return 0;
}

int hp_duration_parse(const char *text, int64_t *ret_seconds, int32_t *ret_nanos)
{
    const char *p = text;
    bool negative = *p == '-';
    if (negative)
        p++;
    int64_t seconds = 0;
    int count = 0;
    for (; *p >= '0' && *p <= '9'; p++, count++) {
        seconds = seconds * 10 + (*p - '0');
        if (seconds > DURATION_MAX)
            return HP_EINVAL;
    }
    int32_t nanos;
    if (count == 0 || !parse_fraction(&p, &nanos) || strcmp(p, "s") != 0)
        return HP_EINVAL;
    *ret_seconds = negative ? -seconds : seconds;
    *ret_nanos = negative ? -nanos : nanos;
    return 0;
}
