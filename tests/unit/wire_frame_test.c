/* Frames arrive whole whatever the cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire/frame.h"

struct seen {
    int count;
    size_t bytes;
    int stop_at;
};

static int on_frame(void *user, const uint8_t *body, size_t len)
{
    struct seen *s = user;
    for (size_t i = 0; i < len; i++)
        assert_int_equal(body[i], (uint8_t)(len + i));
    s->count++;
    s->bytes += len;
    return s->count == s->stop_at ? HP_ECANCELED : 0;
}

static size_t put_frame(uint8_t *out, size_t len)
{
    hp_frame_header(out, len);
    for (size_t i = 0; i < len; i++)
        out[HP_FRAME_HEADER + i] = (uint8_t)(len + i);
    return HP_FRAME_HEADER + len;
}

static void any_cut(void **state)
{
    uint8_t data[4096];
    size_t total = 0, sizes[] = {1, 2, 300, 7, 1000}, body = 0;
    for (size_t i = 0; i < 5; i++, body += sizes[i - 1])
        total += put_frame(data + total, sizes[i]);
    for (size_t cut = 1; cut <= total; cut++) {
        struct hp_frame_reader r;
        struct seen s = {0};
        hp_frame_reader_init(&r);
        for (size_t at = 0; at < total; at += cut)
            assert_int_equal(hp_frame_read(&r, data + at, total - at < cut ? total - at : cut, on_frame, &s, NULL), 0);
        assert_int_equal(s.count, 5);
        assert_int_equal(s.bytes, body);
        assert_null(r.buf);
        hp_frame_reader_done(&r);
    }
}

static void bad_lengths(void **state)
{
    struct hp_frame_reader r;
    struct hp_error e = {0};
    struct seen s = {0};
    const uint8_t zero[] = {0, 0, 0, 0}, over[] = {0, 0x10, 0, 1};
    hp_frame_reader_init(&r);
    assert_int_equal(hp_frame_read(&r, zero, 4, on_frame, &s, &e), HP_EPROTO);
    hp_frame_reader_init(&r);
    assert_int_equal(hp_frame_read(&r, over, 4, on_frame, &s, &e), HP_EPROTO);
    assert_non_null(strstr(e.message, "1048577"));
}

static void callback_stops(void **state)
{
    uint8_t data[64];
    size_t total = put_frame(data, 3);
    total += put_frame(data + total, 4);
    struct hp_frame_reader r;
    struct seen s = {.stop_at = 1};
    hp_frame_reader_init(&r);
    assert_int_equal(hp_frame_read(&r, data, total, on_frame, &s, NULL), HP_ECANCELED);
    assert_int_equal(s.count, 1);
    hp_frame_reader_done(&r);
    /* A frame under way is released. */
    assert_int_equal(hp_frame_read(&r, data, 5, on_frame, &s, NULL), 0);
    assert_non_null(r.buf);
    hp_frame_reader_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_cut),
        cmocka_unit_test(bad_lengths),
        cmocka_unit_test(callback_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
