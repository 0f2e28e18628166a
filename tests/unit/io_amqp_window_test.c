/* Confirms in the orders in which a broker gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/amqp_window.h"

static int item[1000];
static int settled[1000];
static int settled_count;
static struct hp_confirm_window w;

static void on_settled(void *what, void *user)
{
    assert_ptr_equal(user, &w);
    settled[settled_count++] = (int)((int *)what - item);
}

static int setup(void **state)
{
    settled_count = 0;
    return hp_confirm_window_init(&w, 64, NULL);
}

static int teardown(void **state)
{
    hp_confirm_window_close(&w);
    return 0;
}

static void push(int count)
{
    for (int i = 0; i < count; i++) {
        uint64_t next = w.next;
        assert_int_equal(hp_confirm_window_push(&w, &item[next]), next);
    }
}

static void settle(uint64_t tag, bool multiple)
{
    assert_int_equal(hp_confirm_window_settle(&w, tag, multiple, on_settled, &w, NULL), 0);
}

static void one_by_one(void **state)
{
    push(3);
    settle(1, false);
    settle(2, false);
    settle(3, false);
    assert_int_equal(settled_count, 3);
    assert_int_equal(settled[2], 3);
    assert_int_equal(w.first, 4);
}

/* As seen from RabbitMQ: 22 alone, then everything up to 20, then 21. */
static void out_of_order_with_multiple(void **state)
{
    push(22);
    settle(22, false);
    assert_int_equal(settled_count, 1);
    assert_int_equal(w.first, 1);
    settle(20, true);
    assert_int_equal(settled_count, 21);
    for (int i = 1; i <= 20; i++)
        assert_int_equal(settled[i], i);
    assert_int_equal(w.first, 21);
    settle(21, false);
    assert_int_equal(settled_count, 22);
    assert_int_equal(w.first, 23);
}

static void multiple_skips_what_is_settled(void **state)
{
    push(10);
    settle(3, false);
    settle(5, false);
    settle(10, true);
    assert_int_equal(settled_count, 10);
    settle(10, true);
    settle(4, false);
    assert_int_equal(settled_count, 10);
}

static void tag_zero_with_multiple_means_all(void **state)
{
    push(5);
    settle(0, true);
    assert_int_equal(settled_count, 5);
}

static void tags_never_given_out_are_refused(void **state)
{
    struct hp_error e = {0};
    push(2);
    assert_int_equal(hp_confirm_window_settle(&w, 3, false, on_settled, &w, &e), HP_EPROTO);
    assert_int_equal(hp_confirm_window_settle(&w, 0, false, on_settled, &w, &e), HP_EPROTO);
    assert_int_equal(hp_confirm_window_settle(&w, UINT64_MAX, true, on_settled, &w, &e), HP_EPROTO);
    assert_int_equal(settled_count, 0);
}

/* A forgotten message keeps its place until the broker settles it, so that the window stays bounded by what the broker owes. */
static void forgotten_ones_are_not_told_and_keep_their_place(void **state)
{
    push(64);
    assert_true(hp_confirm_window_full(&w));
    hp_confirm_window_forget(&w, 1);
    assert_null(hp_confirm_window_find(&w, 1));
    assert_ptr_equal(hp_confirm_window_find(&w, 2), &item[2]);
    assert_true(hp_confirm_window_full(&w));
    settle(2, true);
    assert_int_equal(settled_count, 1);
    assert_int_equal(settled[0], 2);
    assert_false(hp_confirm_window_full(&w));
    push(2);
    assert_true(hp_confirm_window_full(&w));
    assert_null(hp_confirm_window_find(&w, 2));
    assert_ptr_equal(hp_confirm_window_find(&w, 66), &item[66]);
}

/* The ring goes round many times, with holes. */
static void it_goes_round(void **state)
{
    int told = 0;
    for (int round = 0; round < 14; round++) {
        push(60);
        uint64_t top = w.next - 1;
        settled_count = 0;
        for (uint64_t t = top - 59; t <= top; t += 2)
            settle(t, false);
        settle(top, true);
        assert_int_equal(settled_count, 60);
        told += settled_count;
        assert_int_equal(w.first, w.next);
    }
    assert_int_equal(told, 840);
}

static void push_again(void *what, void *user)
{
    settled_count++;
    assert_false(hp_confirm_window_full(&w));
    hp_confirm_window_push(&w, &item[w.next]);
}

static void the_callback_may_push(void **state)
{
    push(64);
    assert_int_equal(hp_confirm_window_settle(&w, 64, true, push_again, &w, NULL), 0);
    assert_int_equal(settled_count, 64);
    assert_int_equal(w.first, 65);
    assert_int_equal(w.next, 129);
}

static void reset_begins_at_one(void **state)
{
    push(7);
    settle(3, false);
    hp_confirm_window_reset(&w);
    assert_null(hp_confirm_window_find(&w, 5));
    assert_int_equal(hp_confirm_window_push(&w, &item[1]), 1);
    settle(1, false);
    assert_int_equal(settled_count, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_by_one),
        T(out_of_order_with_multiple),
        T(multiple_skips_what_is_settled),
        T(tag_zero_with_multiple_means_all),
        T(tags_never_given_out_are_refused),
        T(forgotten_ones_are_not_told_and_keep_their_place),
        T(it_goes_round),
        T(the_callback_may_push),
        T(reset_begins_at_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
