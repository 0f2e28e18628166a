/* dead: what no scheduler could take. Reads dead.<region> over AMQP directly: it must work when the gateway does not.
 *
 * Messages are fetched without acknowledgement; what is neither replayed nor dropped goes back when the channel closes. A replay is confirmed by the broker before
 * the dead message is acknowledged: a crash in between leaves it in both places, and the request's dedupe makes the second one harmless. */
#include <amqp.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "io/amqp_wire.h"
#include "wire/names.h"

enum { DEAD_MAX = 1000, CHANNEL = 1, CONFIRM_CHANNEL = 2 };

struct dead_options {
    bool help, all;
    const char *limit, *body;
};

struct dead_message {
    uint64_t tag;
    amqp_message_t message;
    char id[256]; /* its message id, else made from the body: the same each time it is looked at */
    char queue[256], reason[64], type[256];
    int64_t count, died_s; /* deaths, and the last one's time; 0 unknown */
};

struct dead {
    amqp_connection_state_t conn;
    struct dead_message *messages;
    int count;
};

static int reply_error(amqp_rpc_reply_t r, const char *what)
{
    if (r.reply_type == AMQP_RESPONSE_NORMAL)
        return CLI_OK;
    if (r.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        return cli_error(CLI_UNAVAILABLE, "broker: %s: %s", what, amqp_error_string2(r.library_error));
    amqp_bytes_t text = amqp_empty_bytes;
    int code = 0;
    if (r.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        text = ((amqp_channel_close_t *)r.reply.decoded)->reply_text;
        code = ((amqp_channel_close_t *)r.reply.decoded)->reply_code;
    } else if (r.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        text = ((amqp_connection_close_t *)r.reply.decoded)->reply_text;
        code = ((amqp_connection_close_t *)r.reply.decoded)->reply_code;
    }
    int exit_code = code == AMQP_NOT_FOUND ? CLI_NOT_FOUND : code == AMQP_ACCESS_REFUSED ? CLI_DENIED : CLI_INTERNAL;
    return cli_error(exit_code, "broker: %s: %.*s", what, (int)text.len, (const char *)text.bytes);
}

static amqp_socket_t *open_socket(struct cli *c, struct dead *d, bool tls)
{
    if (!tls)
        return amqp_tcp_socket_new(d->conn);
    amqp_socket_t *s = amqp_ssl_socket_new(d->conn);
    if (s && c->ca && amqp_ssl_socket_set_cacert(s, c->ca) != AMQP_STATUS_OK)
        return NULL;
    if (s && c->cert && c->key && amqp_ssl_socket_set_key(s, c->cert, c->key) != AMQP_STATUS_OK)
        return NULL;
    return s;
}

/* One node of the broker: a connection that has logged in, or none. `url` is changed. */
static int open_node(struct cli *c, struct dead *d, char *url)
{
    struct amqp_connection_info info;
    struct timeval timeout = {10, 0};
    if (amqp_parse_url(url, &info) != AMQP_STATUS_OK)
        return cli_usage("dead: HARPOON_AMQP_URL is not amqp://user:password@host:port/vhost");
    d->conn = amqp_new_connection();
    amqp_socket_t *s = d->conn ? open_socket(c, d, info.ssl != 0) : NULL;
    int r = s ? amqp_socket_open_noblock(s, info.host, info.port, &timeout) : AMQP_STATUS_NO_MEMORY;
    if (r != AMQP_STATUS_OK)
        return cli_error(CLI_UNAVAILABLE, "broker %s:%d: %s", info.host, info.port, amqp_error_string2(r));
    amqp_set_rpc_timeout(d->conn, &timeout);
    return reply_error(amqp_login(d->conn, info.vhost, 0, 131072, 60, AMQP_SASL_METHOD_PLAIN, info.user, info.password),
                       "login");
}

/* The nodes of a cluster in turn, until one answers. */
static int open_any(struct cli *c, struct dead *d)
{
    char *urls = c->amqp_url ? strdup(c->amqp_url) : NULL, *save = NULL;
    char *url = urls ? strtok_r(urls, ", \t", &save) : NULL;
    int code = url ? CLI_OK : cli_usage("dead: set HARPOON_AMQP_URL to amqp://user:password@host:port/vhost");
    for (; url; url = strtok_r(NULL, ", \t", &save)) {
        code = open_node(c, d, url);
        if (code != CLI_UNAVAILABLE)
            break;
        if (d->conn)
            amqp_destroy_connection(d->conn);
        d->conn = NULL;
    }
    free(urls);
    return code;
}

static int connect_broker(struct cli *c, struct dead *d)
{
    int code = open_any(c, d);
    for (int channel = CHANNEL; !code && channel <= CONFIRM_CHANNEL; channel++) {
        amqp_channel_open(d->conn, (amqp_channel_t)channel);
        code = reply_error(amqp_get_rpc_reply(d->conn), "open a channel");
    }
    if (!code) {
        amqp_confirm_select(d->conn, CONFIRM_CHANNEL);
        code = reply_error(amqp_get_rpc_reply(d->conn), "confirms");
    }
    return code;
}

static void copy_bytes(char *out, size_t size, amqp_bytes_t b)
{
    size_t n = b.len < size - 1 ? b.len : size - 1;
    memcpy(out, b.bytes ? b.bytes : "", n);
    out[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7F)
            out[i] = '?';
}

static void make_id(struct dead_message *m)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    const amqp_bytes_t *body = &m->message.body;
    if (!EVP_Digest(body->bytes, body->len, hash, &size, EVP_sha256(), NULL) || size < 8)
        return;
    memcpy(m->id, "body-", 5);
    for (int i = 0; i < 8; i++)
        snprintf(m->id + 5 + 2 * i, 3, "%02x", hash[i]);
}

static void read_text(char *out, size_t size, const amqp_table_t *t, const char *key)
{
    const amqp_field_value_t *v = hp_amqp_table_find(t, key);
    if (v && (v->kind == AMQP_FIELD_KIND_UTF8 || v->kind == AMQP_FIELD_KIND_BYTES))
        copy_bytes(out, size, v->value.bytes);
}

static void read_int(int64_t *out, const amqp_table_t *t, const char *key)
{
    const amqp_field_value_t *v = hp_amqp_table_find(t, key);
    if (!v || !hp_amqp_field_int(v, out))
        *out = 0;
}

/* The broker's notes: x-death holds one entry for each queue and reason, the latest first. */
static void read_headers(struct dead_message *m)
{
    const amqp_basic_properties_t *p = &m->message.properties;
    if (p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG)
        copy_bytes(m->id, sizeof m->id, p->message_id);
    if (!*m->id)
        make_id(m);
    if (p->_flags & AMQP_BASIC_TYPE_FLAG)
        copy_bytes(m->type, sizeof m->type, p->type);
    if (!(p->_flags & AMQP_BASIC_HEADERS_FLAG))
        return;
    const amqp_field_value_t *deaths = hp_amqp_table_find(&p->headers, "x-death");
    if (deaths && deaths->kind == AMQP_FIELD_KIND_ARRAY && deaths->value.array.num_entries > 0 &&
        deaths->value.array.entries[0].kind == AMQP_FIELD_KIND_TABLE) {
        const amqp_table_t *last = &deaths->value.array.entries[0].value.table;
        read_text(m->queue, sizeof m->queue, last, "queue");
        read_text(m->reason, sizeof m->reason, last, "reason");
        read_int(&m->count, last, "count");
        read_int(&m->died_s, last, "time");
    }
    /* Where it died first is where it belongs. */
    read_text(m->queue, sizeof m->queue, &p->headers, "x-first-death-queue");
    read_text(m->reason, sizeof m->reason, &p->headers, "x-first-death-reason");
}

static int fetch_all(struct dead *d, const char *queue, int limit)
{
    d->messages = calloc((size_t)limit, sizeof *d->messages);
    if (!d->messages)
        return cli_error(CLI_INTERNAL, "out of memory");
    while (d->count < limit) {
        struct dead_message *m = &d->messages[d->count];
        amqp_rpc_reply_t r = amqp_basic_get(d->conn, CHANNEL, amqp_cstring_bytes(queue), 0);
        int code = reply_error(r, queue);
        if (code)
            return code;
        if (r.reply.id == AMQP_BASIC_GET_EMPTY_METHOD)
            return CLI_OK;
        m->tag = ((amqp_basic_get_ok_t *)r.reply.decoded)->delivery_tag;
        code = reply_error(amqp_read_message(d->conn, CHANNEL, &m->message, 0), queue);
        if (code)
            return code;
        read_headers(m);
        d->count++;
    }
    return CLI_OK;
}

static void stamp_of(char out[40], int64_t seconds)
{
    Google__Protobuf__Timestamp t = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    t.seconds = seconds;
    cli_format_time(out, &t);
}

static int list_json(struct cli *c, const struct dead *d)
{
    json_t *all = json_array();
    for (int i = 0; i < d->count; i++) {
        const struct dead_message *m = &d->messages[i];
        json_t *one =
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "id", m->id, "from", m->queue, "reason", m->reason, "type",
                      m->type, "bytes", (json_int_t)m->message.body.len, "deaths", (json_int_t)m->count);
        if (one && m->died_s) {
            char stamp[40];
            stamp_of(stamp, m->died_s);
            json_object_set_new(one, "diedTime", json_string(stamp));
        }
        if (json_array_append_new(all, one)) {
            json_decref(all);
            return cli_error(CLI_INTERNAL, "%s: its id or type is not UTF-8", m->id);
        }
    }
    if (c->format == CLI_JSON)
        return cli_print_document(json_pack("{s:o}", "messages", all));
    size_t i;
    json_t *one;
    json_array_foreach(all, i, one)
    {
        json_dumpf(one, stdout, JSON_COMPACT);
        putchar('\n');
    }
    json_decref(all);
    return CLI_OK;
}

static int list(struct cli *c, const struct dead *d)
{
    static const char *const headers[] = {"ID", "FROM", "REASON", "DEATHS", "LAST", "TYPE", "BYTES", NULL};
    if (c->format == CLI_JSON || c->format == CLI_JSONL)
        return list_json(c, d);
    struct cli_table *t = cli_table_new(headers);
    for (int i = 0; i < d->count; i++) {
        const struct dead_message *m = &d->messages[i];
        char bytes[24], deaths[24], stamp[40] = "";
        snprintf(bytes, sizeof bytes, "%zu", m->message.body.len);
        snprintf(deaths, sizeof deaths, "%lld", (long long)m->count);
        if (m->died_s)
            stamp_of(stamp, m->died_s);
        const char *cells[] = {m->id, m->queue, m->reason, deaths, stamp, m->type, bytes};
        cli_table_row(t, cells);
    }
    cli_table_print(t, stdout);
    cli_table_free(t);
    return CLI_OK;
}

/* Waits for the confirm of the one message under way; a return before it means that its queue is gone. */
static int wait_confirm(struct dead *d, const char *queue)
{
    struct timeval timeout = {10, 0};
    bool returned = false;
    for (;;) {
        amqp_frame_t f;
        int r = amqp_simple_wait_frame_noblock(d->conn, &f, &timeout);
        if (r != AMQP_STATUS_OK)
            return cli_error(CLI_UNAVAILABLE, "broker: no confirm for %s: %s", queue, amqp_error_string2(r));
        if (f.frame_type != AMQP_FRAME_METHOD || f.channel != CONFIRM_CHANNEL)
            continue;
        if (f.payload.method.id == AMQP_BASIC_RETURN_METHOD)
            returned = true;
        else if (f.payload.method.id == AMQP_BASIC_NACK_METHOD)
            return cli_error(CLI_EXHAUSTED, "broker: %s is full; nothing was dropped", queue);
        else if (f.payload.method.id == AMQP_BASIC_ACK_METHOD)
            return returned ? cli_error(CLI_NOT_FOUND, "broker: there is no queue %s", queue) : CLI_OK;
        else if (f.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD)
            return cli_error(CLI_INTERNAL, "broker: it closed the channel while %s was published", queue);
    }
}

static int replay(struct dead *d, struct dead_message *m)
{
    if (!*m->queue)
        return cli_error(CLI_INVALID, "%s: the message does not say which queue it came from", m->id);
    amqp_basic_properties_t p = m->message.properties;
    p._flags &= ~(amqp_flags_t)AMQP_BASIC_HEADERS_FLAG; /* the broker's notes on its death */
    int r = amqp_basic_publish(d->conn, CONFIRM_CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(m->queue), 1, 0, &p,
                               m->message.body);
    if (r != AMQP_STATUS_OK)
        return cli_error(CLI_UNAVAILABLE, "broker: %s", amqp_error_string2(r));
    return wait_confirm(d, m->queue);
}

static int act(struct dead *d, bool again, const struct cli_args *args, bool all)
{
    int done = 0;
    for (int i = 0; i < d->count; i++) {
        bool wanted = all;
        for (int k = 1; k < args->count && !wanted; k++)
            wanted = strcmp(args->items[k], d->messages[i].id) == 0;
        if (!wanted)
            continue;
        int code = again ? replay(d, &d->messages[i]) : CLI_OK;
        if (code)
            return code;
        if (amqp_basic_ack(d->conn, CHANNEL, d->messages[i].tag, 0) != AMQP_STATUS_OK)
            return cli_error(CLI_UNAVAILABLE, "broker: the connection was lost");
        done++;
    }
    printf("%d %s\n", done, again ? "replayed" : "dropped");
    return done || all ? CLI_OK : cli_error(CLI_NOT_FOUND, "no dead message has such an id");
}

static void disconnect(struct dead *d)
{
    for (int i = 0; i < d->count; i++)
        amqp_destroy_message(&d->messages[i].message);
    free(d->messages);
    if (!d->conn)
        return;
    amqp_connection_close(d->conn, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(d->conn);
}

int cli_cmd_dead(struct cli *c, int argc, char **argv)
{
    struct dead_options o = {0};
    struct cli_args args;
    const struct cli_option table[] = {
        {"all", 0, CLI_FLAG, &o.all, NULL, "replay, drop: every one of them"},
        {"limit", 0, CLI_STRING, &o.limit, "N", "look at the first N; default and at most 1000"},
        {"amqp-url", 0, CLI_STRING, &c->amqp_url, "URL", "broker (HARPOON_AMQP_URL)"},
        {"help", 'h', CLI_FLAG, &o.help, NULL, "this text"},
        {0}};
    struct hp_error e = {0};
    if (cli_parse(c, table, argc, argv, &args, &e))
        return cli_usage("dead: %s", e.message);
    if (o.help) {
        puts("Usage: harpoon dead list | replay ID…|--all | drop ID…|--all\n\nOptions:");
        cli_print_options(stdout, table);
        cli_print_global_options(stdout);
        return CLI_OK;
    }
    const char *verb = args.count ? args.items[0] : "list";
    bool again = strcmp(verb, "replay") == 0, drop = strcmp(verb, "drop") == 0;
    int64_t limit = DEAD_MAX;
    char queue[HP_NAME_MAX + 1];
    if (o.limit && cli_parse_int(o.limit, 1, DEAD_MAX, &limit, &e))
        return cli_usage("--limit: %s", e.message);
    if (!again && !drop && (strcmp(verb, "list") != 0 || args.count > 1))
        return cli_usage("dead: give list, replay or drop");
    if ((again || drop) && o.all == (args.count > 1))
        return cli_usage("dead %s: give ids, or --all", verb);
    if (!c->region || hp_queue_name(queue, "dead", c->region))
        return cli_usage("dead: no region: use --region or set HARPOON_REGION");
    struct dead d = {0};
    int code = connect_broker(c, &d);
    if (!code)
        code = fetch_all(&d, queue, (int)limit);
    if (!code && (again || drop))
        code = act(&d, again, &args, o.all);
    else if (!code)
        code = list(c, &d);
    disconnect(&d);
    return code;
}
