#include "io/amqp_login.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAME_MAX = 128 * 1024, HEARTBEAT_S = 10, TIMEOUT_MS = 5000 };

static int bad_url(struct hp_error *e)
{
    /* The password stays out of messages. */
    return hp_fail(e, HP_EINVAL, "broker URL: expected amqp://user:password@host:port/vhost or amqps://…");
}

/* What all nodes have in common: from the first URL. */
static int take_account(struct hp_amqp_login *l, const struct amqp_connection_info *info, bool named,
                        struct hp_error *e)
{
    l->tls = info->ssl;
    l->external = info->ssl && !named;
    l->user = strdup(info->user);
    l->password = strdup(info->password);
    l->vhost = strdup(info->vhost && *info->vhost ? info->vhost : "/");
    if (!l->user || !l->password || !l->vhost)
        return hp_fail(e, HP_ENOMEM, "broker URL: out of memory");
    return 0;
}

static bool same_account(const struct hp_amqp_login *l, const struct amqp_connection_info *info)
{
    return l->tls == (info->ssl != 0) && strcmp(l->user, info->user) == 0 && strcmp(l->password, info->password) == 0 &&
           strcmp(l->vhost, info->vhost && *info->vhost ? info->vhost : "/") == 0;
}

/* One URL of the list; `url` is changed. */
static int take_url(struct hp_amqp_login *l, char *url, struct hp_error *e)
{
    struct amqp_connection_info info;
    amqp_default_connection_info(&info);
    bool named = strchr(url, '@');
    if (amqp_parse_url(url, &info) != AMQP_STATUS_OK || !info.host || !*info.host || info.port < 1 || info.port > 65535)
        return bad_url(e);
    if (l->node_count == HP_AMQP_NODES_MAX)
        return hp_fail(e, HP_ELIMIT, "broker URL: more than %d nodes", HP_AMQP_NODES_MAX);
    int rc = l->node_count ? 0 : take_account(l, &info, named, e);
    if (rc)
        return rc;
    if (l->node_count && !same_account(l, &info))
        return hp_fail(e, HP_EINVAL, "broker URL: the nodes must have scheme, user, password and vhost in common");
    struct hp_amqp_node *n = &l->nodes[l->node_count++];
    n->host = strdup(info.host);
    if (asprintf(&n->address, strchr(info.host, ':') ? "[%s]:%d" : "%s:%d", info.host, info.port) < 0)
        n->address = NULL;
    return n->host && n->address ? 0 : hp_fail(e, HP_ENOMEM, "broker URL: out of memory");
}

/* "URL, URL": the nodes of one cluster. */
static int take_urls(struct hp_amqp_login *l, const char *urls, struct hp_error *e)
{
    char *copy = strdup(urls), *save = NULL;
    int rc = copy ? 0 : hp_fail(e, HP_ENOMEM, "broker URL: out of memory");
    for (char *one = copy ? strtok_r(copy, ", \t", &save) : NULL; one && !rc; one = strtok_r(NULL, ", \t", &save))
        rc = take_url(l, one, e);
    free(copy);
    return rc || l->node_count ? rc : bad_url(e);
}

const struct hp_amqp_node *hp_amqp_login_node(const struct hp_amqp_login *l)
{
    return &l->nodes[l->node];
}

void hp_amqp_login_turn(struct hp_amqp_login *l)
{
    l->node = (l->node + 1) % l->node_count;
}

int hp_amqp_login_init(struct hp_amqp_login *l, const struct hp_amqp_options *o, struct hp_error *e)
{
    *l = (struct hp_amqp_login){
        .heartbeat_s = o->heartbeat_s ? o->heartbeat_s : HEARTBEAT_S,
        .connect_ms = o->connect_ms ? o->connect_ms : TIMEOUT_MS,
        .rpc_ms = o->rpc_ms ? o->rpc_ms : TIMEOUT_MS,
    };
    if (!o->url || !*o->url)
        return hp_fail(e, HP_EINVAL, "broker URL: missing");
    if (l->heartbeat_s < 1 || l->heartbeat_s > 600)
        return hp_fail(e, HP_EINVAL, "broker heartbeat %d s: must be 1 to 600", o->heartbeat_s);
    int rc = take_urls(l, o->url, e);
    if (rc)
        return rc;
    l->external = l->external && o->cert_file;
    if (l->tls && !o->ca_file)
        return hp_fail(e, HP_EINVAL, "broker URL is amqps: a CA file is needed");
    l->name = strdup(o->connection_name ? o->connection_name : "harpoon");
    return l->name ? 0 : hp_fail(e, HP_ENOMEM, "broker connection name: out of memory");
}

void hp_amqp_login_done(struct hp_amqp_login *l)
{
    for (size_t i = 0; i < l->node_count; i++) {
        free(l->nodes[i].host);
        free(l->nodes[i].address);
    }
    free(l->user);
    free(l->password);
    free(l->vhost);
    free(l->name);
    free(l->response);
    *l = (struct hp_amqp_login){0};
}

static amqp_table_entry_t text(const char *key, const char *value)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)},
    };
}

static amqp_table_entry_t yes(const char *key)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1},
    };
}

static bool offers(amqp_bytes_t mechanisms, const char *wanted)
{
    char list[512];
    snprintf(list, sizeof list, "%.*s", (int)mechanisms.len, (char *)mechanisms.bytes);
    char *save = NULL;
    for (char *one = strtok_r(list, " ", &save); one; one = strtok_r(NULL, " ", &save))
        if (strcmp(one, wanted) == 0)
            return true;
    return false;
}

/* RFC 4616: NUL user NUL password. */
static int plain_response(struct hp_amqp_login *l, amqp_bytes_t *ret, struct hp_error *e)
{
    size_t user = strlen(l->user), password = strlen(l->password);
    free(l->response);
    l->response = calloc(1, user + password + 2);
    if (!l->response)
        return hp_fail(e, HP_ENOMEM, "login: out of memory");
    memcpy(l->response + 1, l->user, user);
    memcpy(l->response + 2 + user, l->password, password);
    *ret = (amqp_bytes_t){user + password + 2, l->response};
    return 0;
}

int hp_amqp_login_start(struct hp_amqp_login *l, const amqp_connection_start_t *start, amqp_connection_start_ok_t *ok,
                        struct hp_error *e)
{
    const char *mechanism = l->external ? "EXTERNAL" : "PLAIN";
    if (!offers(start->mechanisms, mechanism))
        return hp_fail(e, HP_EUNSUPPORTED, "the broker does not offer the login mechanism %s", mechanism);
    amqp_bytes_t response = amqp_empty_bytes;
    int rc = l->external ? 0 : plain_response(l, &response, e);
    if (rc)
        return rc;
    int n = 0;
    l->capabilities[n++] = yes("publisher_confirms");
    l->capabilities[n++] = yes("basic.nack");
    l->capabilities[n++] = yes("consumer_cancel_notify");
    l->capabilities[n++] = yes("connection.blocked");
    l->capabilities[n++] = yes("authentication_failure_close");
    l->properties[0] = text("product", "harpoon");
    l->properties[1] = text("version", HP_VERSION);
    l->properties[2] = text("connection_name", l->name);
    l->properties[3] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes("capabilities"),
        .value = {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {n, l->capabilities}},
    };
    *ok = (amqp_connection_start_ok_t){
        .client_properties = {4, l->properties},
        .mechanism = amqp_cstring_bytes(mechanism),
        .response = response,
        .locale = amqp_cstring_bytes("en_US"),
    };
    return 0;
}

int hp_amqp_login_tune(const struct hp_amqp_login *l, const amqp_connection_tune_t *tune, uint16_t channels,
                       amqp_connection_tune_ok_t *ok, struct hp_error *e)
{
    if (tune->channel_max && tune->channel_max < channels)
        return hp_fail(e, HP_ELIMIT, "the broker allows %u channels, %u are needed", tune->channel_max, channels);
    if (tune->frame_max && tune->frame_max < HP_AMQP_FRAME_MIN)
        return hp_fail(e, HP_EPROTO, "the broker allows frames of %u bytes; %d is the least", tune->frame_max,
                       HP_AMQP_FRAME_MIN);
    *ok = (amqp_connection_tune_ok_t){
        .channel_max = channels,
        .frame_max = tune->frame_max && tune->frame_max < FRAME_MAX ? tune->frame_max : FRAME_MAX,
        .heartbeat = (uint16_t)l->heartbeat_s,
    };
    if (tune->heartbeat && tune->heartbeat < ok->heartbeat)
        ok->heartbeat = tune->heartbeat;
    return 0;
}
