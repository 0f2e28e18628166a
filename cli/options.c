#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static int set_format(struct cli *c, const char *text, struct hp_error *e)
{
    static const char *const names[] = {"table", "wide", "json", "jsonl"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            c->format = (enum cli_format)i;
            return 0;
        }
    }
    return hp_fail(e, HP_EINVAL, "--output %s: must be table, wide, json or jsonl", text);
}

static const struct {
    const char *name;
    char letter;
    const char *value_name, *help;
} globals[] = {
    {"output", 'o', "FORMAT", "table (default), wide, json (one document) or jsonl (one object a line)"},
    {"project", 'p', "PROJECT", "project of short names (HARPOON_PROJECT)"},
    {"region", 'r', "REGION", "region of short names (HARPOON_REGION)"},
    {"endpoint", 0, "URL", "gateway, https://host:port (HARPOON_ENDPOINT)"},
    {"ca", 0, "FILE", "certificates to trust (HARPOON_CA); default: the system's"},
    {"cert", 0, "FILE", "client certificate (HARPOON_CERT)"},
    {"key", 0, "FILE", "its key (HARPOON_KEY)"},
    {"call-timeout", 0, "TIME", "of one call, with its retries; default 15s"},
};
enum { GLOBALS = sizeof globals / sizeof globals[0] };

static int set_global(struct cli *c, int index, const char *value, struct hp_error *e)
{
    const char **targets[GLOBALS] = {NULL, &c->project, &c->region, &c->endpoint, &c->ca, &c->cert, &c->key, NULL};
    if (targets[index]) {
        *targets[index] = value;
        return 0;
    }
    if (index == 0)
        return set_format(c, value, e);
    int64_t ms;
    int r = cli_parse_duration(value, &ms, e);
    if (r)
        return hp_wrap(e, "--call-timeout");
    c->timeout_ms = (uint64_t)ms;
    return 0;
}

static const struct cli_option *find_option(const struct cli_option *table, const char *name, size_t len, char letter)
{
    for (; table && table->name; table++)
        if (letter ? table->letter == letter : strlen(table->name) == len && memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static int find_global(const char *name, size_t len, char letter)
{
    for (int i = 0; i < GLOBALS; i++)
        if (letter ? globals[i].letter == letter
                   : strlen(globals[i].name) == len && memcmp(globals[i].name, name, len) == 0)
            return i;
    return -1;
}

static int store(const struct cli_option *o, const char *value, struct hp_error *e)
{
    if (o->kind == CLI_STRING) {
        *(const char **)o->target = value;
        return 0;
    }
    struct cli_list *l = o->target;
    if (l->count == CLI_REPEAT_MAX)
        return hp_fail(e, HP_ELIMIT, "--%s: given more than %d times", o->name, CLI_REPEAT_MAX);
    l->items[l->count++] = value;
    return 0;
}

/* One option at argv[*i]; takes its value from behind "=" or from the next argument. */
static int parse_one(struct cli *c, const struct cli_option *table, int argc, char **argv, int *i, struct hp_error *e)
{
    const char *arg = argv[*i], *value = NULL;
    bool is_long = arg[1] == '-';
    const char *name = is_long ? arg + 2 : arg + 1;
    size_t len = is_long ? strcspn(name, "=") : 1;
    if (is_long && name[len] == '=')
        value = name + len + 1;
    else if (!is_long && name[1])
        value = name + 1;
    const struct cli_option *o = find_option(table, name, len, is_long ? 0 : name[0]);
    int global = o ? -1 : find_global(name, len, is_long ? 0 : name[0]);
    if (!o && global < 0)
        return hp_fail(e, HP_EINVAL, "unknown option %s", arg);
    if (o && o->kind == CLI_FLAG) {
        if (value)
            return hp_fail(e, HP_EINVAL, "%s: takes no value", arg);
        *(bool *)o->target = true;
        return 0;
    }
    if (!value) {
        if (*i + 1 >= argc)
            return hp_fail(e, HP_EINVAL, "%s: needs a value", arg);
        value = argv[++*i];
    }
    return o ? store(o, value, e) : set_global(c, global, value, e);
}

int cli_parse(struct cli *c, const struct cli_option *table, int argc, char **argv, struct cli_args *ret,
              struct hp_error *e)
{
    bool options = true;
    assert(c && argc >= 0);
    ret->count = 0;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            int r = parse_one(c, table, argc, argv, &i, e);
            if (r)
                return r;
        } else {
            if (ret->count == CLI_ARGS_MAX)
                return hp_fail(e, HP_ELIMIT, "more than %d arguments", CLI_ARGS_MAX);
            ret->items[ret->count++] = argv[i];
        }
    }
    return 0;
}

static void print_option(FILE *f, char letter, const char *name, const char *value_name, const char *help)
{
    char left[64];
    if (letter)
        snprintf(left, sizeof left, "-%c, --%s%s%s", letter, name, value_name ? " " : "", value_name ? value_name : "");
    else
        snprintf(left, sizeof left, "    --%s%s%s", name, value_name ? " " : "", value_name ? value_name : "");
    fprintf(f, "  %-32s %s\n", left, help);
}

void cli_print_options(FILE *f, const struct cli_option *table)
{
    for (; table && table->name; table++)
        print_option(f, table->letter, table->name, table->value_name, table->help);
}

void cli_print_global_options(FILE *f)
{
    for (int i = 0; i < GLOBALS; i++)
        print_option(f, globals[i].letter, globals[i].name, globals[i].value_name, globals[i].help);
}

int cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret, struct hp_error *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max)
        return hp_fail(e, HP_EINVAL, "\"%s\": must be a whole number from %lld to %lld", text, (long long)min,
                       (long long)max);
    *ret = v;
    return 0;
}

struct unit {
    const char *suffix;
    double factor;
};

static int parse_quantity(const char *text, const struct unit *units, const char *what, int64_t *ret,
                          struct hp_error *e)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || errno || !isfinite(v) || v < 0 || text[0] == '+')
        return hp_fail(e, HP_EINVAL, "\"%s\": must be %s", text, what);
    for (const struct unit *u = units; u->suffix; u++) {
        if (strcmp(end, u->suffix) != 0)
            continue;
        double scaled = v * u->factor;
        if (scaled > 9.0e18)
            return hp_fail(e, HP_EINVAL, "\"%s\": too large", text);
        *ret = (int64_t)llround(scaled);
        return 0;
    }
    return hp_fail(e, HP_EINVAL, "\"%s\": must be %s", text, what);
}

int cli_parse_cpu(const char *text, int64_t *ret, struct hp_error *e)
{
    static const struct unit units[] = {{"", 1000}, {"m", 1}, {NULL, 0}};
    return parse_quantity(text, units, "cores such as 0.5, or thousandths such as 500m", ret, e);
}

int cli_parse_bytes(const char *text, int64_t *ret, struct hp_error *e)
{
    static const struct unit units[] = {{"", 1},           {"k", 1e3},           {"M", 1e6},
                                        {"G", 1e9},        {"T", 1e12},          {"Ki", 1024.0},
                                        {"Mi", 1048576.0}, {"Gi", 1073741824.0}, {"Ti", 1099511627776.0},
                                        {NULL, 0}};
    return parse_quantity(text, units, "bytes, such as 64Mi, 1.5Gi or 500M", ret, e);
}

int cli_parse_duration(const char *text, int64_t *ret_ms, struct hp_error *e)
{
    static const struct unit units[] = {{"ms", 1},        {"s", 1000},       {"", 1000}, {"m", 60000},
                                        {"h", 3600000.0}, {"d", 86400000.0}, {NULL, 0}};
    return parse_quantity(text, units, "a time such as 250ms, 90s, 5m, 2h or 1d", ret_ms, e);
}
