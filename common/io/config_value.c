#include "io/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *suffix;
    int64_t factor;
};

static const struct unit no_units[] = {{"", 1}, {0}};
static const struct unit size_units[] = {{"", 1},        {"K", 1 << 10},          {"M", 1 << 20},
                                         {"G", 1 << 30}, {"T", INT64_C(1) << 40}, {0}};
static const struct unit time_units[] = {{"", 1000},     {"ms", 1},       {"s", 1000}, {"min", 60000},
                                         {"h", 3600000}, {"d", 86400000}, {0}};

static void *field(const struct hp_config_key *key, void *target)
{
    return (char *)target + key->offset;
}

static const char *wanted(enum hp_config_type type)
{
    switch (type) {
    case HP_CONFIG_SIZE:
        return "a size in bytes, such as 4096, 64K, 10M, 2G";
    case HP_CONFIG_TIME:
        return "a time, such as 250ms, 5s, 10min, 1h, 7d";
    default:
        return "a whole number";
    }
}

static int parse_number(const struct hp_config_key *key, const char *text, const struct unit *units, int64_t *ret,
                        struct hp_error *e)
{
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (end == text || isspace((unsigned char)*text))
        return hp_fail(e, HP_EINVAL, "\"%s\" is not %s", text, wanted(key->type));
    while (*end == ' ')
        end++;
    for (; units->suffix; units++)
        if (strcmp(units->suffix, end) == 0)
            break;
    if (!units->suffix)
        return hp_fail(e, HP_EINVAL, "\"%s\" is not %s", text, wanted(key->type));
    int64_t value;
    if (errno == ERANGE || __builtin_mul_overflow((int64_t)n, units->factor, &value))
        return hp_fail(e, HP_EINVAL, "\"%s\" is too large", text);
    if ((key->min || key->max) && (value < key->min || value > key->max))
        return hp_fail(e, HP_EINVAL, "\"%s\" is out of range: from %lld to %lld%s", text, (long long)key->min,
                       (long long)key->max, key->type == HP_CONFIG_TIME ? " ms" : "");
    *ret = value;
    return 0;
}

static int parse_bool(const char *text, bool *ret, struct hp_error *e)
{
    static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return hp_fail(e, HP_EINVAL, "\"%s\" is neither yes nor no", text);
}

static void list_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

int hp_config_value_append(const struct hp_config_key *key, const char *text, void *target, struct hp_error *e)
{
    static const char separators[] = ", \t\r\n";
    char ***list = field(key, target);
    size_t n = 0;
    while (*list && (*list)[n])
        n++;
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        size_t len = strcspn(text, separators);
        if (n >= HP_CONFIG_LIST_MAX)
            return hp_fail(e, HP_ELIMIT, "more than %d items", HP_CONFIG_LIST_MAX);
        char **bigger = realloc(*list, (n + 2) * sizeof **list);
        if (!bigger)
            return hp_fail(e, HP_ENOMEM, "out of memory");
        *list = bigger;
        bigger[n + 1] = NULL;
        bigger[n] = strndup(text, len);
        if (!bigger[n])
            return hp_fail(e, HP_ENOMEM, "out of memory");
        n++;
        text += len;
    }
    if (!*list)
        *list = calloc(1, sizeof **list);
    return *list ? 0 : hp_fail(e, HP_ENOMEM, "out of memory");
}

int hp_config_value_set(const struct hp_config_key *key, const char *text, void *target, struct hp_error *e)
{
    void *f = field(key, target);
    char *copy;
    switch (key->type) {
    case HP_CONFIG_STRING:
        copy = strdup(text);
        if (!copy)
            return hp_fail(e, HP_ENOMEM, "out of memory");
        free(*(char **)f);
        *(char **)f = copy;
        return 0;
    case HP_CONFIG_INT:
        return parse_number(key, text, no_units, f, e);
    case HP_CONFIG_SIZE:
        return parse_number(key, text, size_units, f, e);
    case HP_CONFIG_TIME:
        return parse_number(key, text, time_units, f, e);
    case HP_CONFIG_BOOL:
        return parse_bool(text, f, e);
    case HP_CONFIG_LIST:
        list_free(*(char ***)f);
        *(char ***)f = NULL;
        return hp_config_value_append(key, text, target, e);
    }
    return hp_fail(e, HP_EINTERNAL, "unknown type %d", (int)key->type);
}

void hp_config_value_free(const struct hp_config_key *key, void *target)
{
    void *f = field(key, target);
    switch (key->type) {
    case HP_CONFIG_STRING:
        free(*(char **)f);
        *(char **)f = NULL;
        break;
    case HP_CONFIG_LIST:
        list_free(*(char ***)f);
        *(char ***)f = NULL;
        break;
    case HP_CONFIG_BOOL:
        *(bool *)f = false;
        break;
    case HP_CONFIG_INT:
    case HP_CONFIG_SIZE:
    case HP_CONFIG_TIME:
        *(int64_t *)f = 0;
        break;
    }
}

bool hp_config_value_is_empty(const struct hp_config_key *key, const void *target)
{
    const char *f = (const char *)target + key->offset;
    if (key->type == HP_CONFIG_STRING)
        return !*(char *const *)f || !**(char *const *)f;
    if (key->type == HP_CONFIG_LIST)
        return !*(char **const *)f || !**(char **const *)f;
    return false;
}
