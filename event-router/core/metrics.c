/* Metrics: each sample is packed into the batch as it comes, so that nothing is kept per host; the batch leaves once a second, or earlier when it is full. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/private.h"

/* A field of wire type LEN (https://protobuf.dev/programming-guides/encoding): tag, length, bytes. */
static int add_field(struct er_bytes *b, unsigned number, const void *data, size_t len)
{
    uint8_t head[12];
    size_t n = 0;
    assert(number < 16);
    head[n++] = (uint8_t)(number << 3 | 2);
    size_t rest = len;
    for (; rest >= 0x80; rest >>= 7)
        head[n++] = (uint8_t)(rest | 0x80);
    head[n++] = (uint8_t)rest;
    return er_bytes_add(b, head, n) || er_bytes_add(b, data, len) ? HP_ENOMEM : 0;
}

void er_metrics_flush(struct er_core *c, uint64_t now_ms)
{
    (void)now_ms;
    c->batch_due_ms = UINT64_MAX;
    c->batch_number++;
    if (c->batch.len == 0)
        return;
    size_t at = c->out.len;
    if (c->broker_ready && !er_bytes_add(&c->out, c->batch.data, c->batch.len)) {
        struct er_effect *f = er_emit(c, ER_PUBLISH_METRICS);
        if (f) {
            f->offset = at;
            f->len = c->batch.len;
            c->stats.metrics_batches++;
        }
    }
    c->batch.len = 0;
}

void er_metrics_sample(struct er_core *c, uint64_t now_ms, struct er_session *s, Harpoon__Internal__V1__AgentMetrics *m)
{
    if (s->batch != c->batch_number) {
        s->batch = c->batch_number;
        s->samples = 0;
        s->beaten = false;
    }
    if (!m && (s->beaten || s->samples))
        return; /* it is in the batch already */
    if (s->samples >= ER_METRICS_PER_BATCH_MAX) {
        c->stats.samples_dropped++;
        return;
    }
    Harpoon__Internal__V1__HostSample sample = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT;
    sample.host = s->host;
    sample.session = s->number;
    sample.metrics = m;
    size_t len = protobuf_c_message_get_packed_size(&sample.base);
    uint8_t *packed = malloc(len);
    if (!packed) {
        c->stats.samples_dropped++;
        return;
    }
    protobuf_c_message_pack(&sample.base, packed);
    if (c->batch.len && c->batch.len + len > ER_METRICS_CHUNK_BYTES) {
        uint64_t due = c->batch_due_ms;
        er_metrics_flush(c, now_ms);
        c->batch_number--; /* a chunk of the same second */
        c->batch_due_ms = due;
    }
    size_t before = c->batch.len;
    if ((before == 0 && add_field(&c->batch, 1, c->router, strlen(c->router))) ||
        add_field(&c->batch, 2, packed, len)) {
        c->batch.len = before;
        c->stats.samples_dropped++;
    } else {
        c->stats.samples++;
        s->samples = (uint8_t)(s->samples + (m != NULL));
        s->beaten = true;
        if (c->batch_due_ms == UINT64_MAX)
            c->batch_due_ms = now_ms + ER_METRICS_BATCH_MS;
    }
    free(packed);
}
