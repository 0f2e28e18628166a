#include "wire/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void hp_frame_reader_init(struct hp_frame_reader *r)
{
    *r = (struct hp_frame_reader){0};
}

void hp_frame_reader_done(struct hp_frame_reader *r)
{
    free(r->buf);
    hp_frame_reader_init(r);
}

void hp_frame_header(uint8_t out[HP_FRAME_HEADER], size_t body_len)
{
    assert(body_len > 0 && body_len <= HP_FRAME_MAX);
    out[0] = (uint8_t)(body_len >> 24);
    out[1] = (uint8_t)(body_len >> 16);
    out[2] = (uint8_t)(body_len >> 8);
    out[3] = (uint8_t)body_len;
}

/* Takes bytes of the header from data; afterwards either the header is complete and r->len is set, or data is used up. */
static int read_header(struct hp_frame_reader *r, const uint8_t **data, size_t *len, struct hp_error *e)
{
    assert(!r->buf && r->header_have < HP_FRAME_HEADER);
    size_t n = HP_FRAME_HEADER - r->header_have;
    if (n > *len)
        n = *len;
    memcpy(r->header + r->header_have, *data, n);
    r->header_have += n;
    *data += n;
    *len -= n;
    if (r->header_have < HP_FRAME_HEADER)
        return 0;
    const uint8_t *h = r->header;
    r->len = (size_t)h[0] << 24 | (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];
    if (r->len == 0)
        return hp_fail(e, HP_EPROTO, "frame: length 0");
    if (r->len > HP_FRAME_MAX)
        return hp_fail(e, HP_EPROTO, "frame: length %zu is over the limit of %d", r->len, HP_FRAME_MAX);
    return 0;
}

int hp_frame_read(struct hp_frame_reader *r, const uint8_t *data, size_t len,
                  int (*frame_cb)(void *user, const uint8_t *body, size_t len), void *user, struct hp_error *e)
{
    while (len > 0) {
        if (r->header_have < HP_FRAME_HEADER) {
            int rc = read_header(r, &data, &len, e);
            if (rc < 0)
                return rc;
            continue;
        }
        int rc;
        if (!r->buf && len >= r->len) { /* whole: no copy */
            const uint8_t *body = data;
            data += r->len;
            len -= r->len;
            r->header_have = 0;
            rc = frame_cb(user, body, r->len);
        } else {
            if (!r->buf && !(r->buf = malloc(r->len)))
                return hp_fail(e, HP_ENOMEM, "frame of %zu bytes", r->len);
            size_t n = r->len - r->have < len ? r->len - r->have : len;
            memcpy(r->buf + r->have, data, n);
            r->have += n;
            data += n;
            len -= n;
            if (r->have < r->len)
                break;
            uint8_t *body = r->buf;
            r->buf = NULL;
            r->have = r->header_have = 0;
            rc = frame_cb(user, body, r->len);
            free(body);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}
