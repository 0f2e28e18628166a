/* Unpacking what strangers send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "google/rpc/status.pb-c.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/internal/v1/report.pb-c.h"
#include "harpoon/internal/v1/request.pb-c.h"
#include "harpoon/v1/container_service.pb-c.h"
#include "harpoon/v1/event.pb-c.h"
#include "wire/codec.h"
#include "wire/plain.h"

#define CREATE (&harpoon__v1__create_container_request__descriptor)

static int unpack(const void *data, size_t len, struct hp_error *e)
{
    ProtobufCMessage *m = NULL;
    *e = (struct hp_error){0};
    int rc = hp_unpack(CREATE, data, len, NULL, &m, e);
    hp_unpacked_free(m);
    return rc;
}

static void round_trip(void **state)
{
    Harpoon__V1__CreateContainerRequest r = HARPOON__V1__CREATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    char image[] = "oci:/x:1", *command[] = {(char[]){"a"}, (char[]){"é"}};
    spec.image = image;
    spec.command = command;
    spec.n_command = 2;
    c.spec = &spec;
    r.container = &c;
    Harpoon__V1__CreateContainerRequest *copy = (void *)hp_message_clone(&r.base);
    assert_non_null(copy);
    assert_string_equal(copy->container->spec->command[1], "é");
    uint8_t *a, *b;
    size_t a_len, b_len;
    assert_int_equal(hp_pack(&r.base, &a, &a_len, NULL), 0);
    assert_int_equal(hp_pack(&copy->base, &b, &b_len, NULL), 0);
    assert_int_equal(a_len, b_len);
    assert_memory_equal(a, b, a_len);
    struct hp_error e;
    assert_int_equal(unpack(a, a_len, &e), 0);
    assert_int_equal(unpack(NULL, 0, &e), 0);
    /* Every proper prefix is refused or is a valid shorter message: never a crash. */
    for (size_t n = 0; n < a_len; n++)
        (void)!unpack(a, n, &e);
    free(a);
    free(b);
    hp_unpacked_free(&copy->base);
}

/* container(3).spec(6).image(1) with `len` bytes of text. */
static size_t with_image(uint8_t *out, const char *text, uint8_t len)
{
    const uint8_t head[] = {0x1A, (uint8_t)(len + 4), 0x32, (uint8_t)(len + 2), 0x0A, len};
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head, text, len);
    return sizeof head + len;
}

static void strings_are_checked(void **state)
{
    uint8_t data[64];
    struct hp_error e;
    assert_int_equal(unpack(data, with_image(data, "fine", 4), &e), 0);
    assert_int_equal(unpack(data, with_image(data, "a\0b", 3), &e), HP_EINVAL);
    assert_string_equal(e.message, "container.spec.image: contains a NUL character");
    const char *const bad[] = {"\xFF",     "\xC0\x80",     "\xED\xA0\x80", "\xF4\x90\x80\x80",
                               "\xE2\x82", "abcdefgh\x80", "\xE0\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(unpack(data, with_image(data, bad[i], (uint8_t)strlen(bad[i])), &e), HP_EINVAL);
        assert_string_equal(e.message, "container.spec.image: is not valid UTF-8");
    }
}

static void malformed(void **state)
{
    struct hp_error e;
    const struct {
        uint8_t bytes[12];
        size_t len;
    } bad[] = {
        {{0x00}, 1},                                                                 /* field 0 */
        {{0x0A}, 1},                                                                 /* no length */
        {{0x0A, 0x05, 'a'}, 3},                                                      /* truncated */
        {{0x0B, 0x0C}, 2},                                                           /* group */
        {{0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01}, 11},    /* length 2^64 - 1 */
        {{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1}, 12}, /* endless varint */
        {{0x08, 0x01}, 2},                                                           /* a string as varint */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(unpack(bad[i].bytes, bad[i].len, &e), HP_EINVAL);
    }
}

static void sizes_are_bounded(void **state)
{
    struct hp_error e;
    uint8_t *big = calloc(1, (1 << 20) + 1);
    assert_int_equal(unpack(big, (1 << 20) + 1, &e), HP_ELIMIT);
    /* 300,000 empty env variables in 600 kB of wire: 44 times as much heap. */
    size_t count = 300000, inner = 2 * count;
    uint8_t *p = big;
    size_t spec_len = inner, container_len = spec_len + 4;
    const uint8_t head[] = {0x1A,
                            (uint8_t)(container_len & 0x7F) | 0x80,
                            (uint8_t)(container_len >> 7 & 0x7F) | 0x80,
                            (uint8_t)(container_len >> 14),
                            0x32,
                            (uint8_t)(spec_len & 0x7F) | 0x80,
                            (uint8_t)(spec_len >> 7 & 0x7F) | 0x80,
                            (uint8_t)(spec_len >> 14)};
    memcpy(p, head, sizeof head);
    for (size_t i = 0; i < count; i++) {
        p[sizeof head + 2 * i] = 0x22;
        p[sizeof head + 2 * i + 1] = 0;
    }
    assert_int_equal(unpack(big, sizeof head + inner, &e), HP_ELIMIT);
    assert_non_null(strstr(e.message, "memory"));
    ProtobufCMessage *m = NULL;
    struct hp_unpack_limits wide = {.memory_max = (size_t)64 << 20};
    assert_int_equal(hp_unpack(CREATE, big, sizeof head + inner, &wide, &m, &e), 0);
    hp_unpacked_free(m);
    free(big);
}

/* ---- Two ways, one result ---- */

static const ProtobufCMessageDescriptor *const all_types[] = {
    &harpoon__v1__event__descriptor,
    &harpoon__v1__create_container_request__descriptor,
    &harpoon__internal__v1__request__descriptor,
    &harpoon__internal__v1__report__descriptor,
    &harpoon__internal__v1__agent_message__descriptor,
    &harpoon__internal__v1__router_message__descriptor,
    &harpoon__internal__v1__operation_record__descriptor,
    &harpoon__internal__v1__container_record__descriptor,
    &google__rpc__status__descriptor,
};

struct text {
    uint8_t bytes[1 << 16];
    size_t len;
};

static void put_varint(struct text *t, uint64_t v)
{
    for (; v > 0x7F && t->len < sizeof t->bytes; v >>= 7)
        t->bytes[t->len++] = (uint8_t)(v | 0x80);
    if (t->len < sizeof t->bytes)
        t->bytes[t->len++] = (uint8_t)v;
}

static void put_message(struct text *t, const ProtobufCMessageDescriptor *d, struct hp_rng *rng, int depth);

static void put_field(struct text *t, const ProtobufCFieldDescriptor *f, struct hp_rng *rng, int depth)
{
    static const uint64_t edges[] = {0, 1, 127, 128, 300, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    static const char *const texts[] = {"", "a", "é", "web-1", "x\0y", "\xFF"};
    struct text *inner;
    unsigned wire =
        f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_BYTES || f->type == PROTOBUF_C_TYPE_MESSAGE ? 2
        : f->type == PROTOBUF_C_TYPE_DOUBLE || f->type == PROTOBUF_C_TYPE_FIXED64                                   ? 1
        : f->type == PROTOBUF_C_TYPE_FLOAT || f->type == PROTOBUF_C_TYPE_FIXED32                                    ? 5
                                                                                                                    : 0;
    if (hp_rng_below(rng, 400) == 0)
        wire = (unsigned)hp_rng_below(rng, 6); /* a wrong one */
    put_varint(t, (uint64_t)f->id << 3 | wire);
    if (wire == 0) {
        put_varint(t, edges[hp_rng_below(rng, sizeof edges / sizeof *edges)]);
    } else if (wire == 1 || wire == 5) {
        for (int i = wire == 1 ? 8 : 4; i > 0 && t->len < sizeof t->bytes; i--)
            t->bytes[t->len++] = (uint8_t)hp_rng_below(rng, 3);
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE && depth < 6) {
        inner = calloc(1, sizeof *inner);
        put_message(inner, f->descriptor, rng, depth + 1);
        put_varint(t, inner->len);
        for (size_t i = 0; i < inner->len && t->len < sizeof t->bytes; i++)
            t->bytes[t->len++] = inner->bytes[i];
        free(inner);
    } else {
        size_t which = hp_rng_below(rng, hp_rng_below(rng, 50) ? 4 : 6), n = which == 4 ? 3 : strlen(texts[which]);
        put_varint(t, f->type == PROTOBUF_C_TYPE_MESSAGE ? 0 : n);
        for (size_t i = 0; i < n && t->len < sizeof t->bytes && f->type != PROTOBUF_C_TYPE_MESSAGE; i++)
            t->bytes[t->len++] = (uint8_t)texts[which][i];
    }
}

/* Mostly as an encoder writes it; now and then fields twice, out of order, unknown, of another wire type, cut off. */
static void put_message(struct text *t, const ProtobufCMessageDescriptor *d, struct hp_rng *rng, int depth)
{
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        uint64_t times = hp_rng_below(rng, 2);
        if (f->label == PROTOBUF_C_LABEL_REPEATED && times)
            times = hp_rng_below(rng, depth ? 3 : 12);
        else if (times && hp_rng_below(rng, 200) == 0)
            times = 2;
        for (; times; times--)
            put_field(t, f, rng, depth);
        if (hp_rng_below(rng, 500) == 0)
            put_field(t, &d->fields[hp_rng_below(rng, d->n_fields)], rng, depth);
        if (hp_rng_below(rng, 500) == 0) {
            put_varint(t, 9999 << 3);
            put_varint(t, 7);
        }
    }
    if (t->len && hp_rng_below(rng, 500) == 0)
        t->len -= 1 + hp_rng_below(rng, t->len);
}

static void assert_packs_alike(const ProtobufCMessage *m, const ProtobufCMessage *other)
{
    uint8_t *ours;
    size_t len, n = protobuf_c_message_get_packed_size(other);
    uint8_t *theirs = malloc(n + 1);
    assert_int_equal(protobuf_c_message_pack(other, theirs), n);
    assert_int_equal(hp_pack(m, &ours, &len, NULL), 0);
    assert_int_equal(len, n);
    assert_memory_equal(ours, theirs, n);
    free(ours);
    free(theirs);
}

/* The short way gives what protobuf-c gives, byte for byte, and refuses no less. */
static void the_short_way_is_no_other(void **state)
{
    struct hp_rng rng;
    struct text *t = malloc(sizeof *t);
    int plain = 0, long_way = 0, refused = 0, packed_plain = 0;
    hp_rng_init(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        const ProtobufCMessageDescriptor *d = all_types[i % (int)(sizeof all_types / sizeof *all_types)];
        struct hp_budget all = {.left = SIZE_MAX};
        ProtobufCMessage *m = NULL;
        uint8_t end[4096];
        t->len = 0;
        put_message(t, d, &rng, 0);
        ProtobufCMessage *theirs = protobuf_c_message_unpack(d, NULL, t->len, t->bytes);
        ProtobufCMessage *fast = hp_plain_unpack(d, t->bytes, t->len, &all);
        int rc = hp_unpack(d, t->bytes, t->len, NULL, &m, NULL);
        if (fast)
            assert_non_null(theirs);
        assert_true(rc == 0 ? theirs != NULL : fast == NULL);
        if (fast && !rc) {
            assert_packs_alike(fast, theirs);
            assert_packs_alike(m, theirs);
            packed_plain += hp_plain_pack(theirs, end, sizeof end) != SIZE_MAX;
        } else if (!rc) {
            assert_packs_alike(m, theirs);
        }
        plain += fast != NULL;
        long_way += !fast && !rc;
        refused += rc != 0;
        hp_unpacked_free(fast);
        hp_unpacked_free(m);
        hp_unpacked_free(theirs);
    }
    free(t);
    assert_true(plain > 5000 && long_way > 1000 && refused > 200 && packed_plain > 5000);
}

/* What is longer than the buffer is measured and packed by protobuf-c. */
static void long_ones_are_packed(void **state)
{
    Harpoon__V1__Event m = HARPOON__V1__EVENT__INIT;
    static char text[9000];
    for (size_t n = 4000; n < 4200; n++) {
        memset(text, 'x', n);
        text[n] = '\0';
        m.message = text;
        assert_packs_alike(&m.base, &m.base);
    }
    memset(text, 'x', sizeof text - 1);
    assert_packs_alike(&m.base, &m.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(strings_are_checked),
        cmocka_unit_test(malformed),
        cmocka_unit_test(sizes_are_bounded),
        cmocka_unit_test(the_short_way_is_no_other),
        cmocka_unit_test(long_ones_are_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
