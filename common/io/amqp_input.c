/* The broker's side of a connection: the opening, declarations, and the frames of messages, which are put together and handed over whole. */
#include <stdlib.h>
#include <string.h>

#include "io/amqp_conn_impl.h"

void hp_amqp_close_error(struct hp_error *e, int code, amqp_bytes_t text)
{
    int kind = code == AMQP_ACCESS_REFUSED                                        ? HP_EPERM
               : code == AMQP_NOT_FOUND                                           ? HP_ENOTFOUND
               : code == AMQP_PRECONDITION_FAILED || code == AMQP_RESOURCE_LOCKED ? HP_ECONFLICT
               : code == AMQP_CONNECTION_FORCED                                   ? HP_EUNAVAILABLE
                                                                                  : HP_EPROTO;
    hp_fail(e, kind, "the broker says: %d %.*s", code, (int)(text.len > 500 ? 500 : text.len), (char *)text.bytes);
}

/* Sends one method of the opening; the broker answers with one. */
static int say(struct hp_amqp_conn *c, uint16_t channel, amqp_method_number_t id, void *method, struct hp_error *e)
{
    int rc = hp_amqp_put_method(&c->out, channel, id, method, e);
    if (!rc)
        hp_amqp_conn_flush(c);
    return rc;
}

static int on_tune(struct hp_amqp_conn *c, const amqp_connection_tune_t *tune, struct hp_error *e)
{
    amqp_connection_tune_ok_t ok;
    int rc = hp_amqp_login_tune(&c->login, tune, c->channel_count, &ok, e);
    if (rc)
        return rc;
    c->frame_max = ok.frame_max;
    c->heartbeat_ms = ok.heartbeat * UINT64_C(1000);
    rc = hp_amqp_put_method(&c->out, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &ok, e);
    if (rc)
        return rc;
    c->state = OPENING;
    amqp_connection_open_t open = {.virtual_host = amqp_cstring_bytes(c->login.vhost)};
    return say(c, 0, AMQP_CONNECTION_OPEN_METHOD, &open, e);
}

static int delete_streams(struct hp_amqp_conn *c, struct hp_error *e)
{
    bool wanted = uv_now(c->loop) < c->remake_until_ms;
    int rc = 0;
    c->remake_until_ms = 0;
    for (size_t i = 0; wanted && !rc && c->topology[i].name; i++) {
        if (c->topology[i].kind != HP_AMQP_QUEUE_STREAM)
            continue;
        rc = hp_amqp_put_delete(&c->out, 1, &c->topology[i], e);
        c->deleting++;
    }
    return rc;
}

/* Channel 1 and all declarations in one write; the answers come in the same order. */
static int declare_all(struct hp_amqp_conn *c, struct hp_error *e)
{
    c->state = DECLARING;
    c->declared = -1;
    c->deleting = 0;
    c->undeclared = true; /* until they are */
    amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
    int rc = hp_amqp_put_method(&c->out, 1, AMQP_CHANNEL_OPEN_METHOD, &open, e);
    if (!rc)
        rc = delete_streams(c, e);
    for (size_t i = 0; !rc && c->topology[i].name; i++)
        rc = hp_amqp_put_declare(&c->out, 1, &c->topology[i], e);
    hp_amqp_conn_flush(c);
    return rc;
}

static int on_own_method(struct hp_amqp_conn *c, amqp_method_number_t id, const void *method, struct hp_error *e)
{
    if (id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *m = method;
        hp_amqp_close_error(e, m->reply_code, m->reply_text);
        amqp_connection_close_ok_t ok = {0};
        (void)!say(c, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok, NULL);
        if (c->state < DECLARING && e->code == HP_EPERM)
            c->retry_min_ms = HP_AMQP_BACKOFF_MAX_MS;
        return e->code;
    }
    if (id == AMQP_CONNECTION_BLOCKED_METHOD) {
        const amqp_connection_blocked_t *m = method;
        char reason[256];
        snprintf(reason, sizeof reason, "%.*s", (int)m->reason.len, (char *)m->reason.bytes);
        c->ev->blocked(c->user, true, reason);
        return 0;
    }
    if (id == AMQP_CONNECTION_UNBLOCKED_METHOD) {
        c->ev->blocked(c->user, false, "");
        return 0;
    }
    if (id == AMQP_CONNECTION_CLOSE_OK_METHOD && c->state == CLOSING)
        return hp_fail(e, HP_ECANCELED, "closed");
    c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
    if (id == AMQP_CONNECTION_START_METHOD && c->state == STARTING) {
        amqp_connection_start_ok_t ok;
        int rc = hp_amqp_login_start(&c->login, method, &ok, e);
        c->state = TUNING;
        return rc ? rc : say(c, 0, AMQP_CONNECTION_START_OK_METHOD, &ok, e);
    }
    if (id == AMQP_CONNECTION_TUNE_METHOD && c->state == TUNING)
        return on_tune(c, method, e);
    if (id == AMQP_CONNECTION_OPEN_OK_METHOD && c->state == OPENING)
        return declare_all(c, e);
    return hp_fail(e, HP_EPROTO, "method 0x%08x from the broker is out of place", (unsigned)id);
}

static int on_declare_reply(struct hp_amqp_conn *c, amqp_method_number_t id, const void *method, struct hp_error *e)
{
    if (id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = method;
        hp_amqp_close_error(e, m->reply_code, m->reply_text);
        if (c->declared >= 0 && c->deleting) {
            hp_wrap(e, "a stream cannot be deleted");
        } else if (c->declared >= 0 && c->topology[c->declared].name) {
            char what[320];
            hp_amqp_object_describe(what, &c->topology[c->declared]);
            hp_wrap(e, "%s cannot be declared", what);
        }
        /* Other arguments than those of the existing object, or no right: trying often does not help. A lock ends with the old connection; and a broker that has
         * just started answers NOT_FOUND for a queue whose process is not up yet. */
        if (m->reply_code != AMQP_RESOURCE_LOCKED && m->reply_code != AMQP_NOT_FOUND) {
            c->retry_min_ms = HP_AMQP_CONFIG_RETRY_MS;
            c->undeclared = false;
        }
        return e->code;
    }
    if (id == AMQP_QUEUE_DELETE_OK_METHOD && c->deleting > 0) {
        c->deleting--;
        c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
        return 0;
    }
    c->declared++;
    if (c->topology[c->declared].name) {
        c->reply_due_ms = uv_now(c->loop) + c->login.rpc_ms;
        return 0;
    }
    c->state = OPEN;
    c->undeclared = false;
    c->reply_due_ms = 0;
    c->ev->open(c->user);
    return 0;
}

/* What is decoded points into its frame, and the body may come with a later read: the pool keeps the frame as long as the content. */
static int keep_frame(struct hp_amqp_channel *ch, const struct hp_amqp_frame *f, struct hp_amqp_frame *ret,
                      struct hp_error *e)
{
    amqp_bytes_t copy;
    *ret = *f;
    if (f->len == 0)
        return 0;
    amqp_pool_alloc_bytes(&ch->pool, f->len, &copy);
    if (!copy.bytes)
        return hp_fail(e, HP_ENOMEM, "out of memory for a frame of %zu bytes", f->len);
    memcpy(copy.bytes, f->payload, f->len);
    ret->payload = copy.bytes;
    return 0;
}

static int on_method(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct hp_amqp_channel *ch = &c->channels[f->channel];
    if (ch->content.id)
        return hp_fail(e, HP_EPROTO, "method within a message from the broker");
    amqp_method_number_t id;
    void *method;
    struct hp_amqp_frame kept;
    int rc = keep_frame(ch, f, &kept, e);
    if (!rc)
        rc = hp_amqp_decode_method(&kept, &ch->pool, &id, &method, e);
    if (rc)
        return rc;
    if (id == AMQP_BASIC_DELIVER_METHOD || id == AMQP_BASIC_RETURN_METHOD) {
        ch->content = (struct hp_amqp_content){.id = id, .method = method};
        return 0;
    }
    if (f->channel == 0)
        rc = on_own_method(c, id, method, e);
    else if (c->state == DECLARING)
        rc = on_declare_reply(c, id, method, e);
    else if (c->state == OPEN)
        c->ev->method(c->user, f->channel, id, method);
    recycle_amqp_pool(&ch->pool);
    return rc;
}

static void hand_over(struct hp_amqp_conn *c, uint16_t channel)
{
    struct hp_amqp_channel *ch = &c->channels[channel];
    if (c->state == OPEN)
        c->ev->content(c->user, channel, &ch->content);
    free(ch->assembly);
    ch->assembly = NULL;
    ch->content = (struct hp_amqp_content){0};
    recycle_amqp_pool(&ch->pool);
}

static int on_header(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct hp_amqp_channel *ch = &c->channels[f->channel];
    if (!ch->content.id || ch->content.properties)
        return hp_fail(e, HP_EPROTO, "content header without a message from the broker");
    amqp_basic_properties_t *properties;
    struct hp_amqp_frame kept;
    int rc = keep_frame(ch, f, &kept, e);
    if (!rc)
        rc = hp_amqp_decode_header(&kept, &ch->pool, &ch->content.len, &properties, e);
    if (rc)
        return rc;
    ch->content.properties = properties;
    ch->have = 0;
    if (ch->content.len == 0) {
        ch->content.body = (const uint8_t *)"";
        hand_over(c, f->channel);
    }
    return 0;
}

static int on_body(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    struct hp_amqp_channel *ch = &c->channels[f->channel];
    if (!ch->content.properties || f->len > ch->content.len - ch->have)
        return hp_fail(e, HP_EPROTO, "message body out of place or longer than announced by the broker");
    if (f->len == ch->content.len && f->len <= HP_AMQP_BODY_MAX) {
        ch->content.body = f->payload; /* whole: no copy */
        hand_over(c, f->channel);
        return 0;
    }
    if (ch->content.len <= HP_AMQP_BODY_MAX) {
        if (!ch->assembly)
            ch->assembly = malloc(ch->content.len);
        if (!ch->assembly)
            return hp_fail(e, HP_ENOMEM, "out of memory for a message of %llu bytes",
                           (unsigned long long)ch->content.len);
        memcpy(ch->assembly + ch->have, f->payload, f->len);
        ch->content.body = ch->assembly;
    }
    ch->have += f->len;
    if (ch->have == ch->content.len)
        hand_over(c, f->channel);
    return 0;
}

static int on_frame(struct hp_amqp_conn *c, const struct hp_amqp_frame *f, struct hp_error *e)
{
    if (f->channel > c->channel_count)
        return hp_fail(e, HP_EPROTO, "frame on channel %u from the broker", f->channel);
    switch (f->type) {
    case AMQP_FRAME_METHOD:
        return on_method(c, f, e);
    case AMQP_FRAME_HEADER:
        return on_header(c, f, e);
    case AMQP_FRAME_BODY:
        return on_body(c, f, e);
    default:
        return 0; /* heartbeat: received_ms says it */
    }
}

/* All whole frames of data; *ret_used bytes were taken. */
static int take_frames(struct hp_amqp_conn *c, const uint8_t *data, size_t len, size_t *ret_used, struct hp_error *e)
{
    size_t done = 0;
    *ret_used = 0;
    while (c->state != DROPPING) {
        struct hp_amqp_frame f;
        size_t used;
        int rc = hp_amqp_frame_next(data + done, len - done, c->frame_max, &f, &used, e);
        if (rc)
            return rc;
        if (!used)
            break;
        done += used;
        rc = on_frame(c, &f, e);
        if (rc)
            return rc;
    }
    *ret_used = done;
    return 0;
}

static int keep_input(struct hp_amqp_conn *c, const uint8_t *data, size_t len, struct hp_error *e)
{
    int rc = hp_buf_append(&c->in, data, len);
    return rc ? hp_fail(e, rc, "input from the broker: %s", hp_strerror(rc)) : 0;
}

int hp_amqp_conn_input(struct hp_amqp_conn *c, const uint8_t *data, size_t len, struct hp_error *e)
{
    size_t used = 0;
    if (c->in.len == 0) {
        int rc = take_frames(c, data, len, &used, e);
        return rc || c->state == DROPPING || used == len ? rc : keep_input(c, data + used, len - used, e);
    }
    int rc = keep_input(c, data, len, e);
    if (!rc)
        rc = take_frames(c, hp_buf_front(&c->in), c->in.len, &used, e);
    if (!rc)
        hp_buf_consume(&c->in, used);
    return rc;
}

void hp_amqp_conn_reset_channels(struct hp_amqp_conn *c)
{
    for (int i = 0; i <= c->channel_count; i++) {
        struct hp_amqp_channel *ch = &c->channels[i];
        free(ch->assembly);
        ch->assembly = NULL;
        ch->content = (struct hp_amqp_content){0};
        empty_amqp_pool(&ch->pool);
    }
}
