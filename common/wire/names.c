#include "wire/names.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "wire/digest.h"

static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool segment_valid(const char *s, size_t len)
{
    if (len == 0 || len > HP_SEGMENT_MAX || !is_lower(s[0]) || s[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_lower(s[i]) && !is_digit(s[i]) && s[i] != '-')
            return false;
    return true;
}

bool hp_segment_valid(const char *s)
{
    return segment_valid(s, strnlen(s, HP_SEGMENT_MAX + 1));
}

/* One `word/segment` of a pattern. */
struct part {
    const char *word; /* "projects" */
    char *out;        /* 64 bytes */
    bool wildcard;    /* "-" is allowed */
    bool operation;   /* the segment is an operation id */
};

static bool operation_id_valid(const char *s, size_t len)
{
    if (len != HP_OPERATION_ID_LEN)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_digit(s[i]) && !(s[i] >= 'a' && s[i] <= 'f'))
            return false;
    return true;
}

/* True when the text is the parts, joined by "/", and nothing else. */
static bool match(const char *text, const struct part *parts, int count)
{
    for (int i = 0; i < count; i++) {
        size_t word = strlen(parts[i].word);
        if (strncmp(text, parts[i].word, word) != 0 || text[word] != '/')
            return false;
        text += word + 1;
        size_t len = strcspn(text, "/");
        bool valid = parts[i].operation                                ? operation_id_valid(text, len)
                     : parts[i].wildcard && len == 1 && text[0] == '-' ? true
                                                                       : segment_valid(text, len);
        if (!valid)
            return false;
        memcpy(parts[i].out, text, len);
        parts[i].out[len] = '\0';
        text += len;
        if (i + 1 < count && *text++ != '/')
            return false;
    }
    return *text == '\0';
}

static int bad(const char *field, const char *text, const char *pattern, struct hp_error *e)
{
    bool cut = strlen(text) > HP_NAME_MAX;
    return hp_fail(e, HP_EINVAL, "%s: \"%.*s%s\" is not of the form %s (each segment [a-z]([-a-z0-9]{0,61}[a-z0-9])?)",
                   field, HP_NAME_MAX, text, cut ? "…" : "", pattern);
}

int hp_container_name_parse(const char *field, const char *text, struct hp_container_name *ret, struct hp_error *e)
{
    struct hp_container_name n;
    const struct part parts[] = {{"projects", n.project}, {"regions", n.region}, {"containers", n.container}};
    if (!match(text, parts, 3))
        return bad(field, text, "projects/{project}/regions/{region}/containers/{container}", e);
    *ret = n;
    return 0;
}

int hp_operation_name_parse(const char *field, const char *text, struct hp_operation_name *ret, struct hp_error *e)
{
    struct hp_operation_name n;
    const struct part parts[] = {{"projects", n.project, .wildcard = true},
                                 {"regions", n.region},
                                 {"operations", n.operation, .operation = true}};
    if (!match(text, parts, 3))
        return bad(field, text, "projects/{project}/regions/{region}/operations/{32 lower-case hex digits}", e);
    if (strcmp(n.project, "-") == 0)
        n.project[0] = '\0';
    *ret = n;
    return 0;
}

int hp_host_name_parse(const char *field, const char *text, struct hp_host_name *ret, struct hp_error *e)
{
    struct hp_host_name n;
    const struct part parts[] = {{"regions", n.region}, {"hosts", n.host}};
    if (!match(text, parts, 2))
        return bad(field, text, "regions/{region}/hosts/{host}", e);
    *ret = n;
    return 0;
}

int hp_parent_name_parse(const char *field, const char *text, bool wildcards, struct hp_parent_name *ret,
                         struct hp_error *e)
{
    struct hp_parent_name n;
    const struct part parts[] = {{"projects", n.project, wildcards}, {"regions", n.region, wildcards}};
    if (!match(text, parts, 2))
        return bad(field, text, "projects/{project}/regions/{region}", e);
    *ret = n;
    return 0;
}

int hp_region_name_parse(const char *field, const char *text, bool wildcards, char ret[64], struct hp_error *e)
{
    char region[64];
    const struct part parts[] = {{"regions", region, wildcards}};
    if (!match(text, parts, 1))
        return bad(field, text, "regions/{region}", e);
    memcpy(ret, region, sizeof region);
    return 0;
}

void hp_container_name_format(char out[HP_NAME_MAX + 1], const char *project, const char *region, const char *container)
{
    snprintf(out, HP_NAME_MAX + 1, "projects/%.63s/regions/%.63s/containers/%.63s", project, region, container);
}

void hp_operation_name_format(char out[HP_NAME_MAX + 1], const char *project, const char *region, const char *operation)
{
    snprintf(out, HP_NAME_MAX + 1, "projects/%.63s/regions/%.63s/operations/%.63s", *project ? project : "-", region,
             operation);
}

void hp_host_name_format(char out[HP_NAME_MAX + 1], const char *region, const char *host)
{
    snprintf(out, HP_NAME_MAX + 1, "regions/%.63s/hosts/%.63s", region, host);
}

void hp_operation_id(char out[HP_OPERATION_ID_LEN + 1], const char *project, const char *request_id)
{
    uint8_t text[HP_SEGMENT_MAX + 1 + HP_REQUEST_ID_MAX], digest[HP_SHA256_LEN];
    size_t project_len = strlen(project), id_len = strlen(request_id);
    assert(project_len <= HP_SEGMENT_MAX && id_len <= HP_REQUEST_ID_MAX);
    memcpy(text, project, project_len + 1);
    memcpy(text + project_len + 1, request_id, id_len);
    hp_sha256(digest, text, project_len + 1 + id_len);
    for (int i = 0; i < HP_OPERATION_ID_LEN; i++)
        out[i] = "0123456789abcdef"[i % 2 ? digest[i / 2] & 15 : digest[i / 2] >> 4];
    out[HP_OPERATION_ID_LEN] = '\0';
}

/* Crockford base32 (https://www.crockford.com/base32.html); the first digit holds the top three bits. */
void hp_uid_format(char out[HP_UID_LEN + 1], const uint8_t random[16])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    unsigned __int128 n = 0;
    for (int i = 0; i < 16; i++)
        n = n << 8 | random[i];
    for (int i = HP_UID_LEN - 1; i >= 0; i--, n >>= 5)
        out[i] = digits[(unsigned)n & 31];
    out[HP_UID_LEN] = '\0';
}

int hp_queue_name(char out[HP_NAME_MAX + 1], const char *kind, const char *id)
{
    size_t kind_len = strlen(kind), id_len = strlen(id);
    if (kind_len + 1 + id_len > HP_NAME_MAX)
        return HP_ELIMIT;
    memcpy(out, kind, kind_len);
    out[kind_len] = '.';
    memcpy(out + kind_len + 1, id, id_len + 1);
    return 0;
}
