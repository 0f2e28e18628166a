/* auth.h — who may do what: principals with a role and a list of projects. */
#ifndef GW_AUTH_H
#define GW_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/map.h"
#include "google/rpc/status.pb-c.h"

enum { GW_PRINCIPALS_MAX = 10000, GW_PROJECTS_MAX = 256, GW_TOKEN_MAX = 512, GW_DIGEST_HEX = 64 };

enum gw_role { GW_VIEWER, GW_EDITOR, GW_ADMIN };

struct gw_principal {
    char *name;        /* of the token: shown in operations */
    enum gw_role role; /* what it may do in its projects */
    bool all_projects; /* `projects = *` */
    char **projects;   /* valid segments, sorted; none when all_projects */
    size_t project_count;
    bool revoked; /* not in the table any more, or not like this */
    size_t refs;  /* the table's, and those of who goes on with it */
};

/* Keeps it beyond its place in the table. */
const struct gw_principal *gw_principal_ref(const struct gw_principal *p);
void gw_principal_unref(const struct gw_principal *p);

/* All principals, by the SHA-256 of their secret in hex. */
struct gw_principals {
    struct hp_map by_digest; /* -> struct gw_principal */
};

void gw_principals_init(struct gw_principals *ps, uint64_t seed);
void gw_principals_done(struct gw_principals *ps);
/* Texts as in the tokens file; errors name the field. Copies everything. */
int gw_principals_add(struct gw_principals *ps, const char *name, const char *digest, const char *role,
                      const char *projects, struct hp_error *e) HP_MUST_CHECK;
/* `next` takes the place of `ps`, and is empty afterwards. Who is the same in both goes on; all others are revoked. */
void gw_principals_replace(struct gw_principals *ps, struct gw_principals *next);
/* `authorization` is the header's value or NULL. NULL with *ret_status (UNAUTHENTICATED) unless it holds a known secret. */
const struct gw_principal *gw_principals_find(const struct gw_principals *ps, const char *authorization,
                                              Google__Rpc__Status **ret_status);

/* UNAUTHENTICATED, for who goes on with a revoked one. NULL when out of memory. */
Google__Rpc__Status *gw_revoked_status(const struct gw_principal *p);

/* May it see this project? "" stands for hosts and needs all projects. */
bool gw_may_read(const struct gw_principal *p, const char *project);
/* The checks that end a call: true, or false with *ret_status (PERMISSION_DENIED; NULL when out of memory). */
bool gw_allow_read(const struct gw_principal *p, const char *project, Google__Rpc__Status **ret_status);
bool gw_allow_change(const struct gw_principal *p, const char *project, Google__Rpc__Status **ret_status);

#endif
