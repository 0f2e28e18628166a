#include "core/container_own.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- Writing: first without a place, to know how much it is ---- */

struct writer {
    uint8_t *out; /* NULL: nowhere */
    size_t len;
};

static void put_bytes(struct writer *w, const void *bytes, size_t len)
{
    if (w->out)
        memcpy(w->out + w->len, bytes, len);
    w->len += len;
}

static void put(struct writer *w, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        v >>= 7;
    } while (v);
    put_bytes(w, bytes, n);
}

static void put_signed(struct writer *w, int64_t v)
{
    put(w, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
}

static void put_string(struct writer *w, const char *s)
{
    size_t len = strlen(s);
    put(w, len);
    put_bytes(w, s, len);
}

static void write_all(struct writer *w, const Harpoon__V1__Container *body, bool etag)
{
    const Harpoon__V1__ContainerStatus *s = body->status;
    const Google__Protobuf__Timestamp *times[] = {body->create_time, body->update_time, s->start_time, s->finish_time};
    unsigned there = 0;
    for (unsigned i = 0; i < 4; i++)
        there |= times[i] ? 1U << i : 0;
    put(w, there);
    for (unsigned i = 0; i < 4; i++) {
        if (!times[i])
            continue;
        put_signed(w, times[i]->seconds);
        put_signed(w, times[i]->nanos);
    }
    put_signed(w, s->observed_generation);
    put_signed(w, s->pid);
    put_signed(w, s->pid_start_ticks);
    put_signed(w, s->restart_count);
    put(w, s->n_addresses);
    for (size_t i = 0; i < s->n_addresses; i++)
        put_string(w, s->addresses[i]);
    put_string(w, s->message);
    if (etag)
        put_string(w, body->etag);
}

uint8_t *sc_own_pack(const Harpoon__V1__Container *body, bool etag)
{
    struct writer w = {0};
    write_all(&w, body, etag);
    w.out = malloc(w.len);
    if (!w.out)
        return NULL;
    size_t len = w.len;
    w.len = 0;
    write_all(&w, body, etag);
    assert(w.len == len);
    return w.out;
}

/* ---- Reading what was written here ---- */

struct reader {
    const uint8_t *at;
    bool failed; /* no memory */
};

static uint64_t get(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t b = *r->at++;
        v |= (uint64_t)(b & 127) << shift;
        if (!(b & 128))
            return v;
    }
}

static int64_t get_signed(struct reader *r)
{
    uint64_t v = get(r);
    return (int64_t)(v >> 1 ^ -(v & 1));
}

/* On the heap, also when it is empty: an item of a list. NULL: no memory. */
static char *get_item(struct reader *r)
{
    size_t len = get(r);
    char *s = malloc(len + 1);
    if (s) {
        memcpy(s, r->at, len);
        s[len] = '\0';
    }
    r->failed |= !s;
    r->at += len;
    return s;
}

/* A field: an empty one is nobody's. */
static char *get_string(struct reader *r)
{
    char *s = *r->at ? get_item(r) : NULL;
    if (s || r->failed)
        return s ? s : (char *)protobuf_c_empty_string;
    r->at++;
    return (char *)protobuf_c_empty_string;
}

static Google__Protobuf__Timestamp *get_time(struct reader *r)
{
    int64_t seconds = get_signed(r), nanos = get_signed(r);
    Google__Protobuf__Timestamp *t = malloc(sizeof *t);
    if (!t) {
        r->failed = true;
        return NULL;
    }
    google__protobuf__timestamp__init(t);
    t->seconds = seconds;
    t->nanos = (int32_t)nanos;
    return t;
}

static void get_addresses(struct reader *r, Harpoon__V1__ContainerStatus *s)
{
    size_t n = get(r);
    s->addresses = n ? malloc(n * sizeof *s->addresses) : NULL;
    r->failed |= n && !s->addresses;
    for (size_t i = 0; i < n && !r->failed; i++) {
        s->addresses[i] = get_item(r);
        s->n_addresses += !r->failed;
    }
}

bool sc_own_unpack(const uint8_t *own, Harpoon__V1__Container *body, bool etag)
{
    struct reader r = {.at = own};
    Harpoon__V1__ContainerStatus *s = body->status;
    Google__Protobuf__Timestamp **times[] = {&body->create_time, &body->update_time, &s->start_time, &s->finish_time};
    uint64_t there = get(&r);
    for (unsigned i = 0; i < 4; i++)
        if (there & 1U << i)
            *times[i] = get_time(&r);
    s->observed_generation = get_signed(&r);
    s->pid = get_signed(&r);
    s->pid_start_ticks = get_signed(&r);
    s->restart_count = (int32_t)get_signed(&r);
    get_addresses(&r, s);
    if (r.failed)
        return false;
    s->message = get_string(&r);
    if (etag)
        body->etag = get_string(&r);
    return !r.failed;
}

void sc_own_strip(Harpoon__V1__Container *body, Harpoon__V1__ContainerStatus *status)
{
    body->etag = status->message = (char *)protobuf_c_empty_string;
    body->create_time = body->update_time = status->start_time = status->finish_time = NULL;
    status->observed_generation = status->pid = status->pid_start_ticks = 0;
    status->restart_count = 0;
    status->addresses = NULL;
    status->n_addresses = 0;
}
