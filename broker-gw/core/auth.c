#include "core/auth.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "grpc/status.h"
#include "wire/digest.h"
#include "wire/names.h"

static void principal_free(struct gw_principal *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->project_count; i++)
        free(p->projects[i]);
    free(p->projects);
    free(p->name);
    free(p);
}

const struct gw_principal *gw_principal_ref(const struct gw_principal *p)
{
    ((struct gw_principal *)(uintptr_t)p)->refs++;
    return p;
}

void gw_principal_unref(const struct gw_principal *p)
{
    struct gw_principal *own = (struct gw_principal *)(uintptr_t)p;
    assert(!own || own->refs > 0);
    if (own && --own->refs == 0)
        principal_free(own);
}

void gw_principals_init(struct gw_principals *ps, uint64_t seed)
{
    hp_map_init(&ps->by_digest, GW_PRINCIPALS_MAX, seed);
}

void gw_principals_done(struct gw_principals *ps)
{
    for (struct hp_map_node *n = hp_map_first(&ps->by_digest); n; n = hp_map_next(n))
        gw_principal_unref(n->value);
    hp_map_done(&ps->by_digest);
}

static bool parse_role(const char *text, enum gw_role *ret)
{
    static const char *const names[] = {[GW_VIEWER] = "viewer", [GW_EDITOR] = "editor", [GW_ADMIN] = "admin"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum gw_role)i;
            return true;
        }
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "*", or names separated by commas and blanks. */
static int parse_projects(struct gw_principal *p, const char *text, struct hp_error *e)
{
    static const char separators[] = ", \t";
    text += strspn(text, separators);
    if (strcmp(text, "*") == 0) {
        p->all_projects = true;
        return 0;
    }
    if (!(p->projects = calloc(GW_PROJECTS_MAX, sizeof *p->projects)))
        return hp_fail(e, HP_ENOMEM, "projects");
    while (*text) {
        size_t len = strcspn(text, separators);
        if (p->project_count == GW_PROJECTS_MAX)
            return hp_fail(e, HP_ELIMIT, "projects: more than %d", GW_PROJECTS_MAX);
        char *project = strndup(text, len);
        if (!project)
            return hp_fail(e, HP_ENOMEM, "projects");
        p->projects[p->project_count++] = project;
        if (!hp_segment_valid(project))
            return hp_fail(e, HP_EINVAL, "projects: \"%s\" is not a project's name", project);
        text += len;
        text += strspn(text, separators);
    }
    if (p->project_count == 0)
        return hp_fail(e, HP_EINVAL, "projects: empty (use * for all)");
    qsort(p->projects, p->project_count, sizeof *p->projects, compare);
    return 0;
}

static bool digest_valid(const char *s)
{
    return strlen(s) == GW_DIGEST_HEX && strspn(s, "0123456789abcdef") == GW_DIGEST_HEX;
}

int gw_principals_add(struct gw_principals *ps, const char *name, const char *digest, const char *role,
                      const char *projects, struct hp_error *e)
{
    enum gw_role parsed;
    if (!digest_valid(digest))
        return hp_fail(e, HP_EINVAL, "token %s: sha256: not 64 lower-case hex digits", name);
    if (!parse_role(role, &parsed))
        return hp_fail(e, HP_EINVAL, "token %s: role: \"%s\" is not admin, editor or viewer", name, role);
    if (hp_map_get(&ps->by_digest, digest))
        return hp_fail(e, HP_EEXISTS, "token %s: sha256: another token has the same secret", name);
    struct gw_principal *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strdup(name))) {
        principal_free(p);
        return hp_fail(e, HP_ENOMEM, "token %s", name);
    }
    p->role = parsed;
    p->refs = 1;
    int rc = parse_projects(p, projects, e);
    if (rc == 0 && (rc = hp_map_put(&ps->by_digest, digest, p, NULL)) < 0)
        rc = hp_fail(e, rc, "the table of tokens: %s", hp_strerror(rc));
    if (rc < 0) {
        principal_free(p);
        return hp_wrap(e, "token %s", name);
    }
    return 0;
}

static bool same(const struct gw_principal *a, const struct gw_principal *b)
{
    if (strcmp(a->name, b->name) != 0 || a->role != b->role || a->all_projects != b->all_projects ||
        a->project_count != b->project_count)
        return false;
    for (size_t i = 0; i < a->project_count; i++)
        if (strcmp(a->projects[i], b->projects[i]) != 0)
            return false;
    return true;
}

void gw_principals_replace(struct gw_principals *ps, struct gw_principals *next)
{
    for (struct hp_map_node *n = hp_map_first(&next->by_digest); n; n = hp_map_next(n)) {
        struct gw_principal *former = hp_map_get(&ps->by_digest, n->key), *latter = n->value;
        if (!former || !same(former, latter))
            continue;
        former->refs++;
        n->value = former;
        gw_principal_unref(latter);
    }
    for (struct hp_map_node *n = hp_map_first(&ps->by_digest); n; n = hp_map_next(n)) {
        struct gw_principal *p = n->value;
        p->revoked = hp_map_get(&next->by_digest, n->key) != p;
    }
    gw_principals_done(ps);
    *ps = *next;
    hp_map_init(&next->by_digest, GW_PRINCIPALS_MAX, 0);
}

Google__Rpc__Status *gw_revoked_status(const struct gw_principal *p)
{
    return hp_status_new(HP_CODE_UNAUTHENTICATED, "TOKEN_REVOKED", "the token \"%s\" is not valid any more", p->name);
}

const struct gw_principal *gw_principals_find(const struct gw_principals *ps, const char *authorization,
                                              Google__Rpc__Status **ret_status)
{
    static const char scheme[] = "bearer ";
    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0) {
        *ret_status = hp_status_new(HP_CODE_UNAUTHENTICATED, "TOKEN_MISSING",
                                    "no credentials: send \"authorization: Bearer <token>\"");
        return NULL;
    }
    const char *secret = authorization + sizeof scheme - 1;
    secret += strspn(secret, " ");
    size_t len = strnlen(secret, GW_TOKEN_MAX + 1);
    char hex[GW_DIGEST_HEX + 1];
    uint8_t digest[HP_SHA256_LEN];
    hp_sha256(digest, secret, len);
    for (int i = 0; i < HP_SHA256_LEN; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    const struct gw_principal *p = len > 0 && len <= GW_TOKEN_MAX ? hp_map_get(&ps->by_digest, hex) : NULL;
    if (!p)
        *ret_status = hp_status_new(HP_CODE_UNAUTHENTICATED, "TOKEN_UNKNOWN", "the token is not known here");
    return p;
}

bool gw_may_read(const struct gw_principal *p, const char *project)
{
    if (p->all_projects)
        return true;
    return *project && bsearch(&project, p->projects, p->project_count, sizeof *p->projects, compare);
}

bool gw_allow_read(const struct gw_principal *p, const char *project, Google__Rpc__Status **ret_status)
{
    assert(p && project);
    if (gw_may_read(p, project))
        return true;
    if (*project)
        *ret_status = hp_status_new(HP_CODE_PERMISSION_DENIED, "PROJECT_DENIED",
                                    "\"%s\" has no access to project \"%s\"", p->name, project);
    else
        *ret_status = hp_status_new(HP_CODE_PERMISSION_DENIED, "HOSTS_DENIED",
                                    "\"%s\" has no access to hosts: that needs a token for all projects", p->name);
    return false;
}

bool gw_allow_change(const struct gw_principal *p, const char *project, Google__Rpc__Status **ret_status)
{
    enum gw_role needed = *project ? GW_EDITOR : GW_ADMIN;
    if (!gw_allow_read(p, project, ret_status))
        return false;
    if (p->role >= needed)
        return true;
    *ret_status =
        hp_status_new(HP_CODE_PERMISSION_DENIED, "ROLE_DENIED", "\"%s\" may not change this: that needs the role %s",
                      p->name, needed == GW_ADMIN ? "admin" : "editor");
    return false;
}
