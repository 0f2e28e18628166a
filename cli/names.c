#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cli.h"
#include "wire/names.h"

static int require(const char *value, const char *what, const char *variable)
{
    if (value && *value)
        return CLI_OK;
    return cli_usage("no %s: use --%s or set %s, or give the full name", what, what, variable);
}

int cli_container_name(struct cli *c, const char *text, char out[256])
{
    struct hp_error e = {0};
    struct hp_container_name n;
    if (!strchr(text, '/')) {
        int code = require(c->project, "project", "HARPOON_PROJECT");
        if (!code)
            code = require(c->region, "region", "HARPOON_REGION");
        if (code)
            return code;
        snprintf(out, 256, "projects/%s/regions/%s/containers/%s", c->project, c->region, text);
    } else {
        snprintf(out, 256, "%s", text);
    }
    if (hp_container_name_parse("container", out, &n, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    return CLI_OK;
}

int cli_host_name(struct cli *c, const char *text, char out[256])
{
    struct hp_error e = {0};
    struct hp_host_name n;
    if (!strchr(text, '/')) {
        int code = require(c->region, "region", "HARPOON_REGION");
        if (code)
            return code;
        snprintf(out, 256, "regions/%s/hosts/%s", c->region, text);
    } else {
        snprintf(out, 256, "%s", text);
    }
    if (hp_host_name_parse("host", out, &n, &e))
        return cli_error(CLI_USAGE, "%s", e.message);
    return CLI_OK;
}

int cli_operation_name(struct cli *c, const char *text, char out[256])
{
    if (strchr(text, '/')) {
        snprintf(out, 256, "%s", text);
        return CLI_OK;
    }
    int code = require(c->project, "project", "HARPOON_PROJECT");
    if (!code)
        code = require(c->region, "region", "HARPOON_REGION");
    if (!code)
        snprintf(out, 256, "projects/%s/regions/%s/operations/%s", c->project, c->region, text);
    return code;
}

int cli_parent_name(struct cli *c, bool wildcards, char out[256])
{
    int code = wildcards ? CLI_OK : require(c->project, "project", "HARPOON_PROJECT");
    if (!code && !wildcards)
        code = require(c->region, "region", "HARPOON_REGION");
    if (!code)
        snprintf(out, 256, "projects/%s/regions/%s", c->project && *c->project ? c->project : "-",
                 c->region && *c->region ? c->region : "-");
    return code;
}

int cli_region_parent(struct cli *c, bool wildcards, char out[256])
{
    int code = wildcards ? CLI_OK : require(c->region, "region", "HARPOON_REGION");
    if (!code)
        snprintf(out, 256, "regions/%s", c->region && *c->region ? c->region : "-");
    return code;
}

/* A random UUID, RFC 4122 section 4.4. */
void cli_new_request_id(char out[37])
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        memset(b, 0, sizeof b);
    b[6] = (unsigned char)((b[6] & 0x0F) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3F) | 0x80);
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static struct kept {
    struct kept *next;
    max_align_t data[];
} * kept;

void *cli_keep(size_t size)
{
    struct kept *k = calloc(1, sizeof *k + size);
    if (!k)
        abort();
    k->next = kept;
    kept = k;
    return k->data;
}

char *cli_keep_text(const char *text, size_t len)
{
    char *copy = cli_keep(len + 1);
    memcpy(copy, text, len);
    return copy;
}

void cli_keep_free(void)
{
    while (kept) {
        struct kept *next = kept->next;
        free(kept);
        kept = next;
    }
}
