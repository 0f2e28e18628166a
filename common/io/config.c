/*
 * Configuration: defaults, then the file, then its drop-ins in name order, then --set. libinih parses; its reader hook is ours, so that lines are
 * counted, NUL bytes are refused, and a line that is longer than libinih's buffer (200 bytes in Debian's build) keeps its value.
 */
#include "io/config.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/config_value.h"

enum { KEYS_MAX = 256, FILE_MAX_BYTES = 1024 * 1024, LINE_MAX_BYTES = 16 * 1024, DROPINS_MAX = 64 };

struct loader {
    const struct hp_config_key *keys;
    size_t key_count;
    void *target;
    const char *file; /* being read */
    FILE *in;
    size_t read_bytes;
    int line;
    bool continued;         /* the line began with a blank: it goes on with the value of the one before */
    char *long_value;       /* of the line just read, when it does not fit libinih's buffer; else NULL */
    int set_at[KEYS_MAX];   /* line where the key was set in this file; 0: not */
    bool was_set[KEYS_MAX]; /* by any file or --set */
    struct hp_error *e;
    int failed; /* the first error */
};

__attribute__((format(printf, 3, 4))) static int fail_at(struct loader *l, int code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!l->failed)
        l->failed = hp_fail(l->e, code, "%s:%d: %s", l->file, l->line, text);
    return l->failed;
}

static bool section_known(const struct loader *l, const char *section, size_t len)
{
    for (size_t i = 0; i < l->key_count; i++)
        if (strlen(l->keys[i].section) == len && memcmp(l->keys[i].section, section, len) == 0)
            return true;
    return false;
}

static const struct hp_config_key *find_key(const struct loader *l, const char *section, const char *name)
{
    for (size_t i = 0; i < l->key_count; i++)
        if (strcmp(l->keys[i].section, section) == 0 && strcmp(l->keys[i].key, name) == 0)
            return &l->keys[i];
    return NULL;
}

/* "did you mean" for a key in another section, the most frequent slip. */
static const char *section_of(const struct loader *l, const char *name)
{
    for (size_t i = 0; i < l->key_count; i++)
        if (strcmp(l->keys[i].key, name) == 0)
            return l->keys[i].section;
    return NULL;
}

static int set_value(struct loader *l, const char *section, const char *name, const char *value)
{
    const struct hp_config_key *key = find_key(l, section, name);
    if (!key) {
        const char *other = section_of(l, name);
        if (!section_known(l, section, strlen(section)))
            return fail_at(l, HP_EINVAL, "unknown section [%s]", section);
        return other ? fail_at(l, HP_EINVAL, "unknown key %s in [%s] (there is one in [%s])", name, section, other)
                     : fail_at(l, HP_EINVAL, "unknown key %s in [%s]", name, section);
    }
    size_t index = (size_t)(key - l->keys);
    struct hp_error why = {0};
    int rc;
    if (l->continued && !hp_config_type_is_list(key->type))
        return fail_at(l, HP_EINVAL, "a line that begins with a blank continues a list; %s is none", name);
    if (!l->continued && l->set_at[index])
        return fail_at(l, HP_EINVAL, "%s in [%s] is set twice, first in line %d", name, section, l->set_at[index]);
    rc = l->continued ? hp_config_value_append(key, value, l->target, &why)
                      : hp_config_value_set(key, value, l->target, &why);
    if (rc)
        return fail_at(l, rc, "%s in [%s]: %s", name, section, why.message);
    l->set_at[index] = l->line;
    l->was_set[index] = true;
    return 0;
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct loader *l = user;
    if (l->failed)
        return 0;
    if (!*section) {
        fail_at(l, HP_EINVAL, "key %s before any [section]", name);
        return 0;
    }
    return set_value(l, section, name, l->long_value ? l->long_value : value ? value : "") == 0;
}

static void check_section_line(struct loader *l, const char *line)
{
    const char *end = strchr(line, ']');
    if (*line != '[')
        return;
    if (!end)
        fail_at(l, HP_EINVAL, "neither [section] nor key = value");
    else if (!section_known(l, line + 1, (size_t)(end - line - 1)))
        fail_at(l, HP_EINVAL, "unknown section [%.*s]", (int)(end - line - 1), line + 1);
}

/* Gives libinih "key =" only, and keeps the value, trimmed and without a comment as libinih would. */
static int split_long_line(struct loader *l, char *line, size_t size)
{
    size_t key_len = strcspn(line, "=:");
    if (!line[key_len] || key_len + 2 > size || l->continued)
        return fail_at(l, HP_ELIMIT, "line of %zu bytes (at most %zu without key = value)", strlen(line), size - 1);
    char *value = line + key_len + 1;
    for (char *c = value; *c; c++) {
        if (*c == ';' && (c[-1] == ' ' || c[-1] == '\t')) {
            *c = '\0';
            break;
        }
    }
    value += strspn(value, " \t");
    size_t len = strlen(value);
    while (len && strchr(" \t\r\n", value[len - 1]))
        len--;
    l->long_value = strndup(value, len);
    if (!l->long_value)
        return fail_at(l, HP_ENOMEM, "out of memory");
    line[key_len + 1] = '\0';
    return 0;
}

static int code_of(int errnum)
{
    switch (errnum) {
    case ENOMEM:
        return HP_ENOMEM;
    case EACCES:
        return HP_EPERM;
    case ENOENT:
    case ENOTDIR:
        return HP_ENOTFOUND;
    default:
        return HP_EIO;
    }
}

/* libinih's reader: one line into `out`, as fgets does. */
static char *read_line(char *out, int size, void *user)
{
    struct loader *l = user;
    char *line = NULL;
    size_t cap = 0;
    free(l->long_value);
    l->long_value = NULL;
    if (l->failed)
        return NULL;
    errno = 0;
    ssize_t n = getline(&line, &cap, l->in);
    if (n < 0) {
        if (!feof(l->in)) /* getline without memory sets no error on the file: it is not its end, either */
            fail_at(l, code_of(errno), "%s", strerror(errno));
        free(line);
        return NULL;
    }
    l->line++;
    l->read_bytes += (size_t)n;
    if (memchr(line, '\0', (size_t)n))
        fail_at(l, HP_EINVAL, "a NUL byte: this is no text file");
    else if (n > LINE_MAX_BYTES)
        fail_at(l, HP_ELIMIT, "line of %zd bytes (at most %d)", n, LINE_MAX_BYTES);
    else if (l->read_bytes > FILE_MAX_BYTES)
        fail_at(l, HP_ELIMIT, "file larger than %d bytes", FILE_MAX_BYTES);
    else
        check_section_line(l, line);
    l->continued = *line == ' ' || *line == '\t';
    if (!l->failed && n >= size)
        split_long_line(l, line, (size_t)size);
    if (!l->failed)
        memcpy(out, line, strlen(line) + 1);
    free(line);
    return l->failed ? NULL : out;
}

static int load_file(struct loader *l, const char *file)
{
    struct stat st;
    l->file = file;
    l->line = 0;
    l->read_bytes = 0;
    memset(l->set_at, 0, sizeof l->set_at);
    l->in = fopen(file, "re");
    if (!l->in)
        return hp_fail_errno(l->e, code_of(errno), errno, "%s", file);
    if (fstat(fileno(l->in), &st) == 0 && !S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode)) {
        fclose(l->in);
        return hp_fail(l->e, HP_EINVAL, "%s: not a file", file);
    }
    int rc = ini_parse_stream(read_line, l, on_value, l);
    free(l->long_value);
    l->long_value = NULL;
    fclose(l->in);
    if (l->failed)
        return l->failed;
    if (rc > 0) {
        l->line = rc;
        return fail_at(l, HP_EINVAL, "neither [section] nor key = value");
    }
    return rc < 0 ? hp_fail(l->e, HP_ENOMEM, "%s: out of memory", file) : 0;
}

static int is_dropin(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return d->d_name[0] != '.' && n > 5 && strcmp(d->d_name + n - 5, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_dropins(struct loader *l, const char *file)
{
    char dir[4096], path[4096 + 300];
    struct dirent **list = NULL;
    if (snprintf(dir, sizeof dir, "%s.d", file) >= (int)sizeof dir)
        return hp_fail(l->e, HP_EINVAL, "configuration file name of %zu bytes is too long", strlen(file));
    int n = scandir(dir, &list, is_dropin, by_bytes), rc = 0;
    if (n < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : hp_fail_errno(l->e, code_of(errno), errno, "%s", dir);
    if (n > DROPINS_MAX)
        rc = hp_fail(l->e, HP_ELIMIT, "%s: %d drop-ins (at most %d)", dir, n, DROPINS_MAX);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        if (!rc)
            rc = load_file(l, path);
        free(list[i]);
    }
    l->file = file;
    free(list);
    return rc;
}

static int apply_set(struct loader *l, const char *set)
{
    const char *dot = strchr(set, '.'), *equals = strchr(set, '=');
    char section[64], name[64];
    l->failed = 0;
    if (!dot || !equals || dot > equals || dot == set || equals == dot + 1 || dot - set >= (long)sizeof section ||
        equals - dot > (long)sizeof name)
        return hp_fail(l->e, HP_EINVAL, "--set %s: want section.key=value", set);
    snprintf(section, sizeof section, "%.*s", (int)(dot - set), set);
    snprintf(name, sizeof name, "%.*s", (int)(equals - dot - 1), dot + 1);
    const struct hp_config_key *key = find_key(l, section, name);
    if (!key)
        return hp_fail(l->e, HP_EINVAL, "--set %s: unknown %s", set,
                       section_known(l, section, strlen(section)) ? "key" : "section");
    int rc = hp_config_value_set(key, equals + 1, l->target, l->e);
    if (rc)
        return hp_wrap(l->e, "--set %s", set);
    l->was_set[key - l->keys] = true;
    return 0;
}

static int apply_defaults(struct loader *l)
{
    for (size_t i = 0; i < l->key_count; i++) {
        const struct hp_config_key *k = &l->keys[i];
        int rc = k->fallback ? hp_config_value_set(k, k->fallback, l->target, l->e) : 0;
        if (rc)
            return hp_wrap(l->e, "default of %s in [%s]", k->key, k->section);
    }
    return 0;
}

static int check_required(struct loader *l, const char *file)
{
    for (size_t i = 0; i < l->key_count; i++) {
        const struct hp_config_key *k = &l->keys[i];
        bool number = !hp_config_type_is_text(k->type) && !hp_config_type_is_list(k->type);
        bool missing = number ? !l->was_set[i] && !k->fallback : hp_config_value_is_empty(k, l->target);
        if (k->required && missing)
            return hp_fail(l->e, HP_EINVAL, "%s: %s in [%s] must be set: %s", file ? file : "configuration", k->key,
                           k->section, k->help);
    }
    return 0;
}

int hp_config_load(const struct hp_config_key *keys, const char *file, const char *const *sets, void *target,
                   struct hp_error *e)
{
    struct hp_error local = {0};
    struct loader l = {.keys = keys, .target = target, .e = e ? e : &local};
    while (keys[l.key_count].section)
        l.key_count++;
    assert(l.key_count <= KEYS_MAX);
    for (size_t i = 0; i < l.key_count; i++) /* what is there may be anything */
        memset((char *)target + keys[i].offset, 0, keys[i].type == HP_CONFIG_BOOL ? sizeof(bool) : 8);
    int rc = apply_defaults(&l);
    if (!rc && file)
        rc = load_file(&l, file);
    if (!rc && file)
        rc = load_dropins(&l, file);
    for (size_t i = 0; !rc && sets && sets[i]; i++)
        rc = apply_set(&l, sets[i]);
    if (!rc)
        rc = check_required(&l, file);
    if (rc)
        hp_config_free(keys, target);
    return rc;
}

void hp_config_free(const struct hp_config_key *keys, void *target)
{
    for (; keys->section; keys++)
        hp_config_value_free(keys, target);
}

char *hp_config_help(const struct hp_config_key *keys)
{
    static const char *const types[] = {
        [HP_CONFIG_STRING] = "text",       [HP_CONFIG_INT] = "number",
        [HP_CONFIG_BOOL] = "yes or no",    [HP_CONFIG_SIZE] = "size",
        [HP_CONFIG_TIME] = "time",         [HP_CONFIG_LIST] = "list",
        [HP_CONFIG_ADDRESS] = "host:port", [HP_CONFIG_ADDRESSES] = "list of host:port",
        [HP_CONFIG_BROKER] = "amqp URL",   [HP_CONFIG_FILE] = "file",
        [HP_CONFIG_SUBNET] = "IPv4 CIDR",
    };
    char *text = NULL;
    size_t len = 0;
    const char *section = "";
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    for (const struct hp_config_key *k = keys; k->section; k++) {
        if (strcmp(section, k->section) != 0)
            fprintf(out, "%s[%s]\n", *section ? "\n" : "", k->section);
        section = k->section;
        fprintf(out, "# %s (%s%s", k->help ? k->help : k->key, types[k->type], k->required ? ", required" : "");
        if (k->min || k->max)
            fprintf(out, ", %lld to %lld%s", (long long)k->min, (long long)k->max,
                    k->type == HP_CONFIG_TIME ? " ms" : "");
        fprintf(out, ")\n#%s = %s\n", k->key, k->fallback ? k->fallback : "");
    }
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
