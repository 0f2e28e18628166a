/* Unpacking what strangers send. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "harpoon/v1/container_service.pb-c.h"
#include "wire/codec.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(strings_are_checked),
        cmocka_unit_test(malformed),
        cmocka_unit_test(sizes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
