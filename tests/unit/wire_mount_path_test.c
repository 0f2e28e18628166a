/* Where in a container a volume may be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "wire/mount_path.h"

static void paths(void **state)
{
    static const char *const good[] = {"/a",   "/a/",        "/var/lib/mysql", "/...",   "/.a",
                                       "/a..", "/processes", "/a/proc",        "/device"};
    static const char *const bad[] = {"",       "a",       "/",     "//",     "//a",   "/a//b",   "/a//",    "/.",
                                      "/..",    "/a/.",    "/a/..", "/./a",   "/../a", "/a/./b",  "/a/../b", "/proc",
                                      "/proc/", "/proc/1", "/sys",  "/sys/x", "/dev/", "/dev/shm"};
    struct hp_error e = {0};
    char text[HP_MOUNT_PATH_MAX + 2];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (hp_mount_path_check(good[i], &e))
            fail_msg("%s: %s", good[i], e.message);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hp_mount_path_check(bad[i], &e) != HP_EINVAL)
            fail_msg("%s was taken", bad[i]);
    memset(text, 'x', sizeof text);
    text[0] = '/';
    text[HP_MOUNT_PATH_MAX + 1] = '\0';
    assert_int_equal(hp_mount_path_check(text, &e), HP_EINVAL);
    text[HP_MOUNT_PATH_MAX] = '\0';
    assert_int_equal(hp_mount_path_check(text, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(paths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
