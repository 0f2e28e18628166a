/* The mailbox: order, many threads, closing with mail in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/loop.h"

enum { THREADS = 4, EACH = 5000 };

struct letter {
    struct hp_mail mail;
    int thread, number;
};

static struct hp_mailbox *box;
static struct letter letters[THREADS][EACH];
static int next_number[THREADS];
static int delivered;

static void on_deliver(struct hp_mail *mail)
{
    struct letter *l = (struct letter *)mail;
    assert_int_equal(l->number, next_number[l->thread]);
    next_number[l->thread]++;
    delivered++;
}

static void on_tick(uv_timer_t *timer)
{
}

static void post_all(void *arg)
{
    int t = *(int *)arg;
    for (int i = 0; i < EACH; i++) {
        letters[t][i] = (struct letter){{.deliver = on_deliver}, t, i};
        hp_mailbox_post(box, &letters[t][i].mail);
    }
}

static void each_thread_s_mail_comes_in_order(void **state)
{
    uv_loop_t loop;
    uv_thread_t threads[THREADS];
    int ids[THREADS];
    uv_loop_init(&loop);
    assert_int_equal(hp_mailbox_new(&loop, &box, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(uv_thread_create(&threads[i], post_all, &ids[i]), 0);
    }
    uv_timer_t alive; /* as the mailbox does not keep the loop going */
    uv_timer_init(&loop, &alive);
    uv_timer_start(&alive, on_tick, 1, 1);
    while (delivered < THREADS * EACH / 2)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&alive, NULL);
    for (int i = 0; i < THREADS; i++)
        uv_thread_join(&threads[i]);
    hp_mailbox_close(box); /* what is left is delivered now */
    assert_int_equal(delivered, THREADS * EACH);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void it_does_not_keep_the_loop_alive(void **state)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    assert_int_equal(hp_mailbox_new(&loop, &box, NULL), 0);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    hp_mailbox_close(box);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void the_clocks_go_forward(void **state)
{
    uint64_t ns = hp_now_ns(), ms = hp_now_ms();
    assert_true(hp_now_ns() >= ns && hp_now_ms() >= ms);
    assert_true(ms >= ns / 1000000);
    assert_true(hp_wall_ns() > INT64_C(1600000000) * 1000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_thread_s_mail_comes_in_order),
        cmocka_unit_test(it_does_not_keep_the_loop_alive),
        cmocka_unit_test(the_clocks_go_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
