/* tokens.h — the tokens file, and what becomes of calls when it changes. */
#ifndef GW_TOKENS_H
#define GW_TOKENS_H

#include "core/auth.h"
#include "io/file_mark.h"

struct gw_tokens {
    const char *file; /* of the configuration; NULL: none, and nobody may call */
    struct hp_file_mark mark;
    uint64_t looked_ms;
    uint64_t seed; /* of the table */
    struct gw_principals principals;
};

/* Reads an INI file of [token NAME] sections with sha256, projects and role. Errors name the file, the line and the token. `ps` is initialised. */
int gw_tokens_load(const char *file, struct hp_file_mark *ret_mark, struct gw_principals *ps,
                   struct hp_error *e) HP_MUST_CHECK;
int gw_tokens_init(struct gw_tokens *t, const char *file, uint64_t seed, struct hp_error *e) HP_MUST_CHECK;
void gw_tokens_done(struct gw_tokens *t);
/* Takes a file over that was written or replaced, a second after at the latest. One that cannot be used is told once, and changes nothing. */
void gw_tokens_refresh(struct gw_tokens *t, uint64_t now_ms);

#endif
