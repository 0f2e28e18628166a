/* Messages in one body come out as they went in, and protobuf reads the same; what is no batch is refused, and never read past its end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "wire/batch.h"
#include "wire/codec.h"

static void round_trip(void **state)
{
    static const size_t lens[] = {0, 1, 127, 128, 16383, 16384, 300};
    uint8_t data[16384], *body, *at;
    size_t total = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
        total += hp_batch_size(lens[i]);
    at = body = malloc(total);
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++)
        at = hp_batch_put(at, data + i, lens[i] - (lens[i] > 16000 ? i : 0));
    size_t left = (size_t)(at - body);
    const uint8_t *next = body, *one;
    for (size_t i = 0, len; i < sizeof lens / sizeof *lens; i++) {
        assert_int_equal(hp_batch_next(&next, &left, &one, &len), 1);
        assert_int_equal(len, lens[i] - (lens[i] > 16000 ? i : 0));
        assert_memory_equal(one, data + i, len);
    }
    size_t len;
    assert_int_equal(hp_batch_next(&next, &left, &one, &len), 0);
    free(body);
}

static void protobuf_reads_the_same(void **state)
{
    uint8_t *packed[2], body[512], *at = body;
    size_t len[2];
    struct hp_error e = {0};
    for (int i = 0; i < 2; i++) {
        Harpoon__V1__Event event = HARPOON__V1__EVENT__INIT;
        event.sequence = 41 + i;
        event.region = (char *)"r1";
        assert_int_equal(hp_pack(&event.base, &packed[i], &len[i], &e), 0);
        at = hp_batch_put(at, packed[i], len[i]);
        free(packed[i]);
    }
    ProtobufCMessage *m = NULL;
    assert_int_equal(
        hp_unpack(&harpoon__internal__v1__event_batch__descriptor, body, (size_t)(at - body), NULL, &m, &e), 0);
    const Harpoon__Internal__V1__EventBatch *batch = (const Harpoon__Internal__V1__EventBatch *)m;
    assert_int_equal(batch->n_events, 2);
    assert_int_equal(batch->events[1]->sequence, 42);
    assert_string_equal(batch->events[0]->region, "r1");
    hp_unpacked_free(m);
}

static int read_all(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1); /* exactly so long, for the sanitizer */
    memcpy(copy, data, len);
    const uint8_t *at = copy, *one;
    size_t n;
    int rc;
    while ((rc = hp_batch_next(&at, &len, &one, &n)) == 1)
        assert_true(one >= copy && one + n == at);
    free(copy);
    return rc;
}

static void what_is_no_batch_is_refused(void **state)
{
    uint8_t body[64], *end = hp_batch_put(body, "abcdef", 6);
    end = hp_batch_put(end, "gh", 2);
    assert_int_equal(read_all(body, (size_t)(end - body)), 0);
    for (size_t cut = 1; cut < (size_t)(end - body); cut++)
        assert_int_equal(read_all(body, cut), cut == 8 ? 0 : HP_EINVAL);
    assert_int_equal(read_all((const uint8_t *)"\x12\x01x", 3), HP_EINVAL); /* another field */
    assert_int_equal(read_all((const uint8_t *)"\x0a\xff\xff\xff\xff\xff\xff\xff\x01", 9),
                     HP_EINVAL); /* no such length */
    assert_int_equal(read_all((const uint8_t *)"\x0a\xff\xff\xff\xff\x7f"
                                               "abc",
                              9),
                     HP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(protobuf_reads_the_same),
        cmocka_unit_test(what_is_no_batch_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
