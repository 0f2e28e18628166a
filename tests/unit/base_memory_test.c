/* A process that has nothing to do gives back what it can, and goes on as before. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/memory.h"

enum { TABLE_BYTES = 1 << 20, BLOCKS = 4096, BLOCK_BYTES = 1024, ROUNDS = 50 };

/* A table in the program's file (a volatile one would be among what can be written), and pointers that the loader has relocated. */
static const unsigned char table[TABLE_BYTES] = {[0] = 1, [TABLE_BYTES - 1] = 2};
static const char *const volatile words[] = {"one", "two"};
static int written = 7;

/* How many of the table's pages are mapped into this process: counted one by one, for the sums in /proc/self/status lag behind. */
static size_t mapped(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
    uintptr_t first = (uintptr_t)table / page, last = ((uintptr_t)table + TABLE_BYTES - 1) / page;
    FILE *f = fopen("/proc/self/pagemap", "r");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)(first * sizeof(uint64_t)), SEEK_SET), 0);
    for (uintptr_t i = first; i <= last; i++) {
        uint64_t entry = 0;
        assert_int_equal(fread(&entry, sizeof entry, 1, f), 1);
        n += entry >> 63; /* present (proc_pid_pagemap(5)) */
    }
    fclose(f);
    return n;
}

static unsigned sum(void)
{
    const volatile unsigned char *at = table; /* each byte is really read */
    unsigned n = 0;
    for (size_t i = 0; i < TABLE_BYTES; i++)
        n += at[i];
    return n;
}

static void pages_of_files_go_and_come_back(void **state)
{
    (void)state;
    assert_int_equal(sum(), 3);
    written = 8;
    size_t before = mapped();
    hp_memory_settle();
    size_t after = mapped();
    assert_in_range(before, TABLE_BYTES / (size_t)sysconf(_SC_PAGESIZE), SIZE_MAX);
    assert_in_range(after, 0, before / 4); /* what is beside the pages at its ends is in use */
    assert_int_equal(sum(), 3);
    assert_int_equal(written, 8);
    assert_string_equal(words[0], "one");
    assert_string_equal(words[1], "two");
    assert_non_null(hp_strerror(HP_EINVAL));
}

static atomic_bool enough;

static void *work(void *p)
{
    unsigned *n = p;
    while (!atomic_load(&enough))
        *n += sum() == 3 && strcmp(words[1], "two") == 0 ? 1 : 1U << 31;
    return NULL;
}

static void others_run_meanwhile(void **state)
{
    pthread_t t;
    unsigned n = 0;
    (void)state;
    assert_int_equal(pthread_create(&t, NULL, work, &n), 0);
    for (int i = 0; i < ROUNDS; i++)
        hp_memory_settle();
    atomic_store(&enough, true);
    pthread_join(t, NULL);
    assert_true(n < 1U << 31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_files_go_and_come_back),
        cmocka_unit_test(others_run_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
