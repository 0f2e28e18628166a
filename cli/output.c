#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "wire/json.h"

struct cli_table {
    int columns;
    int rows, rows_max;
    char **cells; /* rows * columns, the header first */
};

static void append_row(struct cli_table *t, const char *const *cells)
{
    if (t->rows == t->rows_max) {
        int more = t->rows_max ? t->rows_max * 2 : 64;
        char **grown = realloc(t->cells, sizeof *grown * (size_t)(more * t->columns));
        if (!grown)
            abort();
        t->cells = grown;
        t->rows_max = more;
    }
    for (int i = 0; i < t->columns; i++) {
        char *copy = strdup(cells[i] ? cells[i] : "");
        if (!copy)
            abort();
        t->cells[t->rows * t->columns + i] = copy;
    }
    t->rows++;
}

struct cli_table *cli_table_new(const char *const *headers)
{
    struct cli_table *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    while (headers[t->columns])
        t->columns++;
    append_row(t, headers);
    return t;
}

void cli_table_row(struct cli_table *t, const char *const *cells)
{
    append_row(t, cells);
}

void cli_table_print(struct cli_table *t, FILE *f)
{
    int widths[CLI_COLUMNS_MAX] = {0};
    for (int i = 0; i < t->rows * t->columns; i++) {
        int n = (int)strlen(t->cells[i]);
        if (n > widths[i % t->columns])
            widths[i % t->columns] = n;
    }
    for (int r = 0; r < t->rows; r++) {
        for (int i = 0; i < t->columns; i++) {
            const char *cell = t->cells[r * t->columns + i];
            cell = *cell ? cell : "-";
            if (i + 1 == t->columns)
                fprintf(f, "%s\n", cell);
            else
                fprintf(f, "%-*s  ", widths[i] ? widths[i] : 1, cell);
        }
    }
}

void cli_table_free(struct cli_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->rows * t->columns; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

int cli_print_json(struct cli *c, const ProtobufCMessage *m)
{
    struct hp_error e = {0};
    char *text = hp_json_print_message(m, c->format == CLI_JSON ? JSON_INDENT(2) : JSON_COMPACT, &e);
    if (!text)
        return cli_error(CLI_INTERNAL, "%s", e.message);
    puts(text);
    free(text);
    return CLI_OK;
}

int cli_add_page(json_t **doc, const char *array, const ProtobufCMessage *page)
{
    struct hp_error e = {0};
    json_t *json = hp_json_from_message(page, &e);
    if (!json)
        return cli_error(CLI_INTERNAL, "%s", e.message);
    if (!*doc)
        *doc = json_pack("{s:[]}", array); /* also for an empty list, which the message leaves out */
    json_t *all = json_object_get(*doc, array), *rows = json_object_get(json, array);
    bool ok = all && (!rows || json_array_extend(all, rows) == 0);
    json_decref(json);
    return ok ? CLI_OK : cli_error(CLI_INTERNAL, "out of memory");
}

int cli_print_document(json_t *doc)
{
    int code = CLI_OK;
    if (doc && (json_dumpf(doc, stdout, JSON_INDENT(2)) || putchar('\n') == EOF))
        code = cli_error(CLI_INTERNAL, "standard output cannot be written");
    json_decref(doc);
    return code;
}

void cli_format_bytes(char out[32], int64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    if (bytes == 0)
        snprintf(out, 32, "0");
    else if (v == (double)(int64_t)v)
        snprintf(out, 32, "%lld%s", (long long)v, units[u]);
    else
        snprintf(out, 32, "%.1f%s", v, units[u]);
}

void cli_format_cpu(char out[32], int64_t millis)
{
    if (millis % 1000 == 0)
        snprintf(out, 32, "%lld", (long long)(millis / 1000));
    else
        snprintf(out, 32, "%lldm", (long long)millis);
}

void cli_format_age(char out[32], const Google__Protobuf__Timestamp *t)
{
    if (!t || t->seconds == 0) {
        snprintf(out, 32, "-");
        return;
    }
    long long s = (long long)time(NULL) - (long long)t->seconds;
    if (s < 0)
        s = 0;
    if (s < 120)
        snprintf(out, 32, "%llds", s);
    else if (s < 7200)
        snprintf(out, 32, "%lldm", s / 60);
    else if (s < 172800)
        snprintf(out, 32, "%lldh", s / 3600);
    else
        snprintf(out, 32, "%lldd", s / 86400);
}

void cli_format_time(char out[40], const Google__Protobuf__Timestamp *t)
{
    struct tm tm;
    char day[24];
    time_t seconds = t ? (time_t)t->seconds : 0;
    if (!t || !gmtime_r(&seconds, &tm)) {
        snprintf(out, 40, "-");
        return;
    }
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 40, "%s.%03dZ", day, (int)(t->nanos / 1000000) % 1000);
}

/* protobuf-c has the values' full names: CONTAINER_STATE_RUNNING. The prefix is the enum's name in upper case; value 0 is <PREFIX>_UNSPECIFIED, which gives its length. */
const char *cli_enum_name(const ProtobufCEnumDescriptor *d, int value)
{
    const ProtobufCEnumValue *zero = protobuf_c_enum_descriptor_get_value(d, 0);
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
    if (!v)
        return "?";
    if (value == 0)
        return "-";
    static const char tail[] = "UNSPECIFIED";
    size_t prefix = zero && strlen(zero->name) > sizeof tail ? strlen(zero->name) - (sizeof tail - 1) : 0;
    return strncmp(v->name, zero ? zero->name : "", prefix) == 0 ? v->name + prefix : v->name;
}

const char *cli_last_segment(const char *name)
{
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}
