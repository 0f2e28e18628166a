/* The tokens file. */
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "shell/tokens.h"

enum { FIELD_BYTES_MAX = 8192 };

/* The section under way; it is added when the next one begins. */
struct reading {
    struct gw_principals *principals;
    FILE *in;
    char name[128];                 /* "" before the first section */
    char *sha256, *projects, *role; /* heap */
    int result;
    struct hp_error *e;
};

static void clear(struct reading *r)
{
    free(r->sha256);
    free(r->projects);
    free(r->role);
    r->sha256 = r->projects = r->role = NULL;
}

static int finish_section(struct reading *r)
{
    if (!*r->name)
        return 0;
    int rc;
    if (!r->sha256 || !r->projects || !r->role)
        rc = hp_fail(r->e, HP_EINVAL, "[token %s]: %s is missing", r->name,
                     !r->sha256     ? "sha256"
                     : !r->projects ? "projects"
                                    : "role");
    else
        rc = gw_principals_add(r->principals, r->name, r->sha256, r->role, r->projects, r->e);
    clear(r);
    r->name[0] = '\0';
    return rc;
}

static int begin_section(struct reading *r, const char *section)
{
    int rc = finish_section(r);
    if (rc < 0)
        return rc;
    const char *name = section + (strncmp(section, "token ", 6) == 0 ? 6 : 0);
    name += strspn(name, " \t");
    if (name == section || !*name || strlen(name) >= sizeof r->name)
        return hp_fail(r->e, HP_EINVAL, "section [%s] is not [token NAME]", section);
    snprintf(r->name, sizeof r->name, "%s", name);
    return 0;
}

static int set_field(struct reading *r, const char *key, const char *value)
{
    char **field = strcmp(key, "sha256") == 0     ? &r->sha256
                   : strcmp(key, "projects") == 0 ? &r->projects
                   : strcmp(key, "role") == 0     ? &r->role
                                                  : NULL;
    if (!field)
        return hp_fail(r->e, HP_EINVAL, "[token %s]: unknown key \"%s\"", r->name, key);
    if (*field)
        return hp_fail(r->e, HP_EINVAL, "[token %s]: %s is there twice", r->name, key);
    *field = strndup(value, FIELD_BYTES_MAX);
    return *field ? 0 : hp_fail(r->e, HP_ENOMEM, "[token %s]", r->name);
}

/* inih's callback: 1 goes on, 0 stops at this line. */
static int on_entry(void *user, const char *section, const char *key, const char *value)
{
    struct reading *r = user;
    const char *current = *r->name ? r->name : NULL;
    bool same =
        current && strncmp(section, "token ", 6) == 0 && strcmp(section + 6 + strspn(section + 6, " \t"), current) == 0;
    if (r->result == 0 && !same)
        r->result = begin_section(r, section);
    if (r->result == 0)
        r->result = set_field(r, key, value);
    return r->result == 0;
}

/* libinih's reader: fgets, which takes a file that cannot be read to its end for one that ends. */
static char *read_line(char *out, int size, void *user)
{
    struct reading *r = user;
    char *line = fgets(out, size, r->in);
    if (!line && ferror(r->in) && r->result == 0)
        r->result = hp_fail_errno(r->e, HP_EIO, errno, "reading");
    return line;
}

int gw_tokens_load(const char *file, struct hp_file_mark *ret_mark, struct gw_principals *ps, struct hp_error *e)
{
    struct reading r = {.principals = ps, .in = fopen(file, "re"), .e = e};
    int err = errno;
    *ret_mark = hp_file_mark(r.in ? fileno(r.in) : -1, file);
    if (!r.in)
        return hp_fail_errno(e, err == ENOMEM ? HP_ENOMEM : HP_EIO, err, "%s", file);
    int line = ini_parse_stream(read_line, &r, on_entry, &r);
    fclose(r.in);
    if (line == 0 && r.result == 0)
        r.result = finish_section(&r);
    clear(&r);
    if (line < 0 && r.result == 0)
        r.result = hp_fail(e, HP_ENOMEM, "out of memory");
    if (line > 0 && r.result == 0)
        return hp_fail(e, HP_EINVAL, "%s:%d: not a section, a comment, or key = value", file, line);
    if (r.result < 0)
        return line > 0 ? hp_wrap(e, "%s:%d", file, line) : hp_wrap(e, "%s", file);
    return 0;
}

int gw_tokens_init(struct gw_tokens *t, const char *file, uint64_t seed, struct hp_error *e)
{
    *t = (struct gw_tokens){.file = file, .seed = seed};
    gw_principals_init(&t->principals, seed);
    if (file)
        return gw_tokens_load(file, &t->mark, &t->principals, e);
    hp_warn("no tokens_file: every call will be UNAUTHENTICATED");
    return 0;
}

void gw_tokens_done(struct gw_tokens *t)
{
    gw_principals_done(&t->principals);
}

void gw_tokens_refresh(struct gw_tokens *t, uint64_t now_ms)
{
    if (!t->file || now_ms - t->looked_ms < HP_FILE_LOOK_MS)
        return;
    t->looked_ms = now_ms;
    if (hp_file_mark_is(&t->mark, t->file))
        return;
    struct hp_error e = {0};
    struct gw_principals next;
    gw_principals_init(&next, t->seed);
    if (gw_tokens_load(t->file, &t->mark, &next, &e)) {
        hp_warn("the tokens have changed and cannot be used; the former ones stay", HP_S("error", e.message));
    } else {
        gw_principals_replace(&t->principals, &next);
        hp_info("the tokens have changed", HP_S("file", t->file), HP_I("count", t->principals.by_digest.count));
    }
    gw_principals_done(&next);
}
