/* Effects, and the bytes that go with them. When memory is short an effect is lost: a frame that is not sent is a message lost on an edge that may lose messages, and
 * the session it belonged to is closed by whoever notices. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"
#include "wire/frame.h"

void er_bytes_done(struct er_bytes *b)
{
    free(b->data);
    *b = (struct er_bytes){0};
}

static uint8_t *reserve(struct er_bytes *b, size_t len)
{
    if (b->cap - b->len < len) {
        size_t cap = b->cap ? b->cap : 4096;
        while (cap - b->len < len)
            cap *= 2;
        uint8_t *p = realloc(b->data, cap);
        if (!p)
            return NULL;
        b->data = p;
        b->cap = cap;
    }
    return b->data + b->len;
}

int er_bytes_add(struct er_bytes *b, const void *data, size_t len)
{
    uint8_t *to = reserve(b, len);
    if (!to)
        return HP_ENOMEM;
    memcpy(to, data, len);
    b->len += len;
    return 0;
}

struct er_effect *er_emit(struct er_core *c, enum er_effect_kind kind)
{
    if (c->effect_count == c->effect_cap) {
        size_t cap = c->effect_cap ? c->effect_cap * 2 : 64;
        struct er_effect *p = realloc(c->effects, cap * sizeof *p);
        if (!p) {
            c->effects_failed = true;
            return NULL;
        }
        c->effects = p;
        c->effect_cap = cap;
    }
    struct er_effect *f = &c->effects[c->effect_count++];
    *f = (struct er_effect){.kind = kind};
    return f;
}

void er_emit_link(struct er_core *c, enum er_effect_kind kind, struct er_session *s)
{
    struct er_effect *f = er_emit(c, kind);
    if (f)
        f->link = s->link;
}

void er_note(struct er_core *c, const struct er_session *s, const char *text, const char *reason)
{
    const char *host = s && s->host ? s->host : "";
    size_t at = c->out.len;
    if (er_bytes_add(&c->out, host, strlen(host) + 1))
        return;
    struct er_effect *f = er_emit(c, ER_NOTE);
    if (!f)
        return;
    f->host = at;
    f->session = s ? s->number : 0;
    f->text = text;
    f->reason = reason;
}

void er_send_frame(struct er_core *c, uint64_t now_ms, struct er_session *s, const uint8_t *frame, size_t len)
{
    assert(len > HP_FRAME_HEADER && len <= HP_FRAME_HEADER + HP_FRAME_MAX);
    size_t at = c->out.len;
    if (er_bytes_add(&c->out, frame, len))
        return;
    struct er_effect *f = er_emit(c, ER_SEND);
    if (!f)
        return;
    f->link = s->link;
    f->offset = at;
    f->len = len;
    s->sent_ms = now_ms;
}

void er_send(struct er_core *c, uint64_t now_ms, struct er_session *s, const Harpoon__Internal__V1__RouterMessage *m)
{
    size_t len = protobuf_c_message_get_packed_size(&m->base), at = c->out.len;
    assert(len > 0 && len <= HP_FRAME_MAX);
    uint8_t *to = reserve(&c->out, HP_FRAME_HEADER + len);
    struct er_effect *f = to ? er_emit(c, ER_SEND) : NULL;
    if (!f)
        return;
    hp_frame_header(to, len);
    protobuf_c_message_pack(&m->base, to + HP_FRAME_HEADER);
    c->out.len += HP_FRAME_HEADER + len;
    f->link = s->link;
    f->offset = at;
    f->len = HP_FRAME_HEADER + len;
    s->sent_ms = now_ms;
}

const struct er_effect *er_core_effects(const struct er_core *c, size_t *ret_count)
{
    *ret_count = c->effect_count;
    return c->effects;
}

const uint8_t *er_core_bytes(const struct er_core *c, size_t offset)
{
    assert(offset < c->out.len);
    return c->out.data + offset;
}

void er_core_effects_done(struct er_core *c)
{
    enum { KEEP_BYTES = 256 * 1024 };
    c->effect_count = 0;
    c->out.len = 0;
    if (c->out.cap > KEEP_BYTES)
        er_bytes_done(&c->out);
}
