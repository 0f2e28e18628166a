#include "fuzz/script.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { STEP_HEADER = 3, STEP_MAX = 4096 };

/* libFuzzer's own. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out,
                                 size_t max, unsigned seed);

bool fuzz_next(const uint8_t **data, size_t *len, struct fuzz_step *ret)
{
    if (*len < STEP_HEADER)
        return false;
    size_t n = (size_t)(*data)[1] | (size_t)(*data)[2] << 8;
    n = n < *len - STEP_HEADER ? n : *len - STEP_HEADER;
    *ret = (struct fuzz_step){(*data)[0] % fuzz_kind_count, *data + STEP_HEADER, n};
    *data += STEP_HEADER + n;
    *len -= STEP_HEADER + n;
    return true;
}

uint8_t fuzz_byte(const struct fuzz_step *s, size_t i)
{
    return i < s->len ? s->data[i] : 0;
}

/* ---- The steps of an input, each on the heap ---- */

struct owned_step {
    unsigned kind;
    uint8_t *data;
    size_t len;
};
struct steps {
    struct owned_step at[FUZZ_STEPS_MAX];
    size_t count;
};

static uint8_t *copy_of(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len + 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    return copy;
}

static void read_steps(struct steps *s, const uint8_t *data, size_t len, size_t skip)
{
    struct fuzz_step one;
    while (s->count < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &one))
        if (skip)
            skip--;
        else
            s->at[s->count++] = (struct owned_step){one.kind, copy_of(one.data, one.len), one.len};
}

/* Whole steps only. */
static size_t write_steps(struct steps *s, uint8_t *out, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct owned_step *o = &s->at[i];
        if (o->len <= 0xFFFF && n + STEP_HEADER + o->len <= max) {
            out[n] = (uint8_t)o->kind;
            out[n + 1] = (uint8_t)o->len;
            out[n + 2] = (uint8_t)(o->len >> 8);
            if (o->len)
                memcpy(out + n + STEP_HEADER, o->data, o->len);
            n += STEP_HEADER + o->len;
        }
        free(o->data);
    }
    s->count = 0;
    return n;
}

static void pack_into(struct owned_step *o, ProtobufCMessage *m)
{
    free(o->data);
    o->len = protobuf_c_message_get_packed_size(m);
    o->data = malloc(o->len + 1);
    if (!o->data)
        abort();
    protobuf_c_message_pack(m, o->data);
    protobuf_c_message_free_unpacked(m, NULL);
}

static void fill_new(struct owned_step *o, struct hp_rng *rng)
{
    o->kind = (unsigned)hp_rng_below(rng, fuzz_kind_count);
    const ProtobufCMessageDescriptor *d = fuzz_kinds[o->kind].type;
    o->data = NULL;
    if (d) {
        ProtobufCMessage *m = fuzz_message_new(d, rng);
        if (!m)
            abort();
        pack_into(o, m);
        return;
    }
    o->len = hp_rng_below(rng, 8);
    o->data = copy_of(NULL, 0);
    free(o->data);
    o->data = malloc(o->len + 1);
    if (!o->data)
        abort();
    hp_rng_fill(rng, o->data, o->len);
}

static void mutate_bytes(struct owned_step *o)
{
    uint8_t *room = realloc(o->data, STEP_MAX + o->len);
    if (!room)
        abort();
    o->data = room;
    o->len = LLVMFuzzerMutate(o->data, o->len, o->len < STEP_MAX ? STEP_MAX : o->len);
}

static void mutate_step(struct owned_step *o, struct hp_rng *rng)
{
    const ProtobufCMessageDescriptor *d = fuzz_kinds[o->kind].type;
    ProtobufCMessage *m = d ? protobuf_c_message_unpack(d, NULL, o->len, o->data) : NULL;
    if (m && hp_rng_below(rng, 24) != 0) {
        for (uint64_t n = 1 + hp_rng_below(rng, 3); n > 0; n--)
            fuzz_message_mutate(m, rng);
        pack_into(o, m);
        return;
    }
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
    mutate_bytes(o);
}

static void remove_step(struct steps *s, size_t i)
{
    free(s->at[i].data);
    memmove(&s->at[i], &s->at[i + 1], (s->count - i - 1) * sizeof s->at[0]);
    s->count--;
}

static void insert_step(struct steps *s, size_t i, struct owned_step o)
{
    if (s->count == FUZZ_STEPS_MAX) {
        free(o.data);
        return;
    }
    memmove(&s->at[i + 1], &s->at[i], (s->count - i) * sizeof s->at[0]);
    s->at[i] = o;
    s->count++;
}

static void mutate_steps(struct steps *s, struct hp_rng *rng)
{
    uint64_t choice = s->count ? hp_rng_below(rng, 12) : 0;
    size_t i = s->count ? hp_rng_below(rng, s->count) : 0, k = s->count ? hp_rng_below(rng, s->count) : 0;
    struct owned_step o = {0};
    switch (choice) {
    case 0:
    case 1:
        fill_new(&o, rng);
        insert_step(s, hp_rng_below(rng, s->count + 1), o);
        break;
    case 2:
        remove_step(s, i);
        break;
    case 3: /* again, later: repeats are what distributed systems are made of */
        o = (struct owned_step){s->at[i].kind, copy_of(s->at[i].data, s->at[i].len), s->at[i].len};
        insert_step(s, i + 1 + hp_rng_below(rng, s->count - i), o);
        break;
    case 4:
        o = s->at[i];
        s->at[i] = s->at[k];
        s->at[k] = o;
        break;
    default:
        mutate_step(&s->at[i], rng);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    struct hp_rng rng;
    struct steps s = {.count = 0};
    hp_rng_init(&rng, seed);
    if (hp_rng_below(&rng, 40) == 0)
        return LLVMFuzzerMutate(data, size, max);
    read_steps(&s, data, size, 0);
    for (uint64_t n = 1 + hp_rng_below(&rng, 2); n > 0; n--)
        mutate_steps(&s, &rng);
    return write_steps(&s, data, max);
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out,
                                 size_t max, unsigned seed)
{
    struct hp_rng rng;
    struct steps s = {.count = 0};
    hp_rng_init(&rng, seed);
    read_steps(&s, a, a_len, 0);
    while (s.count && hp_rng_below(&rng, s.count + 1) != 0)
        remove_step(&s, s.count - 1);
    read_steps(&s, b, b_len, hp_rng_below(&rng, 8));
    return write_steps(&s, out, max);
}
