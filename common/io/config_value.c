#include "io/config_value.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

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

bool hp_config_type_is_list(enum hp_config_type type)
{
    return type == HP_CONFIG_LIST || type == HP_CONFIG_ADDRESSES;
}

bool hp_config_type_is_text(enum hp_config_type type)
{
    return type == HP_CONFIG_STRING || type == HP_CONFIG_ADDRESS || type == HP_CONFIG_BROKER ||
           type == HP_CONFIG_FILE || type == HP_CONFIG_SUBNET;
}

static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    bool six = text[0] == '[';
    if (!colon || colon == text || (six && colon[-1] != ']') || (!six && memchr(text, ':', (size_t)(colon - text))))
        return false;
    size_t digits = strspn(colon + 1, "0123456789");
    return !strpbrk(text, " \t/") && digits >= 1 && digits <= 5 && !colon[1 + digits] &&
           strtol(colon + 1, NULL, 10) <= 65535;
}

static bool is_subnet(const char *text)
{
    char address[INET_ADDRSTRLEN];
    struct in_addr in;
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : 0;
    if (n == 0 || n >= sizeof address)
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    char *end;
    long bits = strtol(slash + 1, &end, 10);
    return inet_pton(AF_INET, address, &in) == 1 && isdigit((unsigned char)slash[1]) && !*end && bits >= 8 &&
           bits <= 30;
}

/* Every one of them; they may hold a password and are not shown. */
static bool are_broker_urls(const char *text)
{
    static const char separators[] = ", \t";
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        if (strncmp(text, "amqp://", 7) != 0 && strncmp(text, "amqps://", 8) != 0)
            return false;
        text += strcspn(text, separators);
    }
    return true;
}

static int check_form(enum hp_config_type type, const char *text, struct hp_error *e)
{
    if (!*text)
        return 0;
    if ((type == HP_CONFIG_ADDRESS || type == HP_CONFIG_ADDRESSES) && !is_address(text))
        return hp_fail(e, HP_EINVAL, "\"%.300s\" is not host:port with a port from 0 to 65535", text);
    if (type == HP_CONFIG_BROKER && !are_broker_urls(text))
        return hp_fail(e, HP_EINVAL, "not an amqp:// or amqps:// URL, nor several with commas between");
    if (type == HP_CONFIG_SUBNET && !is_subnet(text))
        return hp_fail(e, HP_EINVAL, "\"%.300s\" is not a subnet such as 10.88.0.0/16 (8 to 30 bits)", text);
    if (type == HP_CONFIG_FILE && access(text, R_OK) != 0)
        return hp_fail_errno(e, HP_EINVAL, errno, "\"%.300s\" cannot be read", text);
    return 0;
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
        int rc = check_form(key->type, bigger[n], e);
        if (rc)
            return rc;
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
    int rc = hp_config_type_is_text(key->type) ? check_form(key->type, text, e) : 0;
    if (rc)
        return rc;
    switch (key->type) {
    case HP_CONFIG_STRING:
    case HP_CONFIG_ADDRESS:
    case HP_CONFIG_BROKER:
    case HP_CONFIG_FILE:
    case HP_CONFIG_SUBNET:
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
    case HP_CONFIG_ADDRESSES:
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
    case HP_CONFIG_ADDRESS:
    case HP_CONFIG_BROKER:
    case HP_CONFIG_FILE:
    case HP_CONFIG_SUBNET:
        free(*(char **)f);
        *(char **)f = NULL;
        break;
    case HP_CONFIG_LIST:
    case HP_CONFIG_ADDRESSES:
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
    if (hp_config_type_is_text(key->type))
        return !*(char *const *)f || !**(char *const *)f;
    if (hp_config_type_is_list(key->type))
        return !*(char **const *)f || !**(char **const *)f;
    return false;
}
