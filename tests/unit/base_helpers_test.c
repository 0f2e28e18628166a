/* map, rng, backoff and buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/backoff.h"
#include "base/buf.h"
#include "base/map.h"
#include "base/rng.h"

static void map_keeps_values_and_order(void **state)
{
    struct hp_map m;
    int values[1000];
    char key[16];
    hp_map_init(&m, 1000, 42);
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(hp_map_put(&m, key, &values[i], NULL), 0);
    }
    assert_int_equal(hp_map_put(&m, "one too many", &values[0], NULL), HP_ELIMIT);
    void *old = NULL;
    assert_int_equal(hp_map_put(&m, "k7", &values[8], &old), 0); /* replacing needs no room */
    assert_ptr_equal(old, &values[7]);
    for (int i = 0; i < 1000; i += 2) {
        snprintf(key, sizeof key, "k%d", i);
        assert_ptr_equal(hp_map_remove(&m, key), &values[i]);
        assert_null(hp_map_get(&m, key));
        assert_null(hp_map_key(&m, key));
    }
    snprintf(key, sizeof key, "k9");
    assert_string_equal(hp_map_key(&m, key), "k9");
    assert_ptr_not_equal(hp_map_key(&m, key), key);
    assert_null(hp_map_remove(&m, "k0"));
    int expected = 1;
    for (struct hp_map_node *n = hp_map_first(&m); n; n = hp_map_next(n), expected += 2) {
        snprintf(key, sizeof key, "k%d", expected);
        assert_string_equal(n->key, key);
    }
    assert_int_equal(expected, 1001);
    assert_int_equal(m.count, 500);
    hp_map_done(&m);
    assert_null(hp_map_get(&m, "k1"));
}

static void rng_repeats_and_stays_in_bounds(void **state)
{
    struct hp_rng a, b, c;
    hp_rng_init(&a, 1);
    hp_rng_init(&b, 1);
    hp_rng_init(&c, 2);
    int differs = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t x = hp_rng_next(&a);
        assert_true(x == hp_rng_next(&b));
        differs += x != hp_rng_next(&c);
    }
    assert_int_equal(differs, 100);
    int seen[5] = {0};
    for (int i = 0; i < 1000; i++)
        seen[hp_rng_below(&a, 5)]++;
    for (int i = 0; i < 5; i++)
        assert_in_range(seen[i], 120, 280);
    assert_int_equal(hp_rng_below(&a, 1), 0);
}

static void backoff_doubles_to_the_bound(void **state)
{
    struct hp_rng rng;
    struct hp_backoff b;
    hp_rng_init(&rng, 3);
    hp_backoff_init(&b, 100, 1000);
    const uint64_t whole[] = {100, 200, 400, 800, 1000, 1000};
    for (int i = 0; i < 6; i++) {
        uint64_t d = hp_backoff_next_ms(&b, &rng);
        assert_in_range(d, whole[i] - whole[i] / 2, whole[i]);
    }
    hp_backoff_reset(&b);
    assert_in_range(hp_backoff_next_ms(&b, &rng), 50, 100);
}

static void buffer_moves_bytes_within_its_limit(void **state)
{
    struct hp_buf b;
    hp_buf_init(&b, 1000);
    uint8_t in = 0, out = 0, chunk[90];
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof chunk; i++)
            chunk[i] = in++;
        assert_int_equal(hp_buf_append(&b, chunk, sizeof chunk), 0);
        while (b.len > 300) {
            const uint8_t *p = hp_buf_front(&b);
            for (int i = 0; i < 7; i++)
                assert_int_equal(p[i], out++);
            hp_buf_consume(&b, 7);
        }
    }
    static uint8_t big[1000];
    size_t before = b.len;
    assert_int_equal(hp_buf_append(&b, big, sizeof big), HP_ELIMIT);
    assert_null(hp_buf_reserve(&b, 1000));
    assert_int_equal(b.len, before);
    hp_buf_done(&b);
    assert_null(hp_buf_front(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_keeps_values_and_order),
        cmocka_unit_test(rng_repeats_and_stays_in_bounds),
        cmocka_unit_test(backoff_doubles_to_the_bound),
        cmocka_unit_test(buffer_moves_bytes_within_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
