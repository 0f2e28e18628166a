/* What a daemon tells systemd: real sockets, and the environment that systemd documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/notify.h"

/* A manager's socket. `name` of NULL: of the abstract name space, with a name that the kernel chooses (unix(7), autobind). */
static int listen_at(const char *path, char *ret_name, size_t size)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = sizeof a;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (path)
        snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, path ? sizeof a : sizeof a.sun_family), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    if (path)
        snprintf(ret_name, size, "%s", path);
    else
        snprintf(ret_name, size, "@%.*s", (int)(len - sizeof a.sun_family - 1), a.sun_path + 1);
    return fd;
}

static void hears(int fd, const char *text)
{
    char got[64] = "";
    assert_int_equal(recv(fd, got, sizeof got - 1, 0), (ssize_t)strlen(text));
    assert_string_equal(got, text);
}

static void each_word_is_a_datagram(const char *path)
{
    char name[128];
    struct hp_error e = {0};
    int fd = listen_at(path, name, sizeof name), next = dup(fd);
    close(next);
    setenv("NOTIFY_SOCKET", name, 1);
    assert_int_equal(hp_notify("READY=1", &e), 0);
    assert_int_equal(hp_notify("WATCHDOG=1", &e), 0);
    hears(fd, "READY=1");
    hears(fd, "WATCHDOG=1");
    assert_int_equal(dup(fd), next); /* no descriptor has stayed open */
    close(next);
    close(fd);
    assert_int_equal(hp_notify("STOPPING=1", &e), HP_EIO); /* nobody is there any more */
    assert_non_null(strstr(e.message, name));
    assert_int_equal(dup(0), fd);
    close(fd);
}

static void to_a_path(void **state)
{
    char directory[] = "/tmp/harpoon-notify-XXXXXX", path[64];
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/s", directory);
    each_word_is_a_datagram(path);
    unlink(path);
    rmdir(directory);
}

static void to_an_abstract_name(void **state)
{
    (void)state;
    each_word_is_a_datagram(NULL);
}

/* The longest path that an address can hold with its end, and one byte more. */
static void to_the_longest_path(void **state)
{
    char directory[] = "/tmp/harpoon-notify-XXXXXX", path[sizeof((struct sockaddr_un *)0)->sun_path + 1];
    struct hp_error e = {0};
    (void)state;
    assert_non_null(mkdtemp(directory));
    int n = snprintf(path, sizeof path, "%s/", directory);
    memset(path + n, 'x', sizeof path - (size_t)n);
    path[sizeof path - 2] = '\0';
    each_word_is_a_datagram(path);
    unlink(path);
    rmdir(directory);
    path[sizeof path - 2] = 'x';
    path[sizeof path - 1] = '\0';
    setenv("NOTIFY_SOCKET", path, 1);
    assert_int_equal(hp_notify("READY=1", &e), HP_EINVAL);
    assert_non_null(strstr(e.message, "108 bytes are more than 107"));
}

static void addresses_that_are_none(void **state)
{
    static const char *const bad[] = {"relative", "vsock:2:1", "/", "@"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hp_error e = {0};
        setenv("NOTIFY_SOCKET", bad[i], 1);
        assert_int_equal(hp_notify("READY=1", &e), HP_EINVAL);
        assert_non_null(strstr(e.message, bad[i]));
    }
}

static void nobody_asked(void **state)
{
    struct hp_error e = {0};
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(hp_notify("READY=1", &e), 0);
    setenv("NOTIFY_SOCKET", "", 1);
    assert_int_equal(hp_notify("READY=1", &e), 0);
}

static void watchdog_is(const char *usec, const char *pid, uint64_t expect)
{
    uint64_t got = 0;
    usec ? setenv("WATCHDOG_USEC", usec, 1) : unsetenv("WATCHDOG_USEC");
    pid ? setenv("WATCHDOG_PID", pid, 1) : unsetenv("WATCHDOG_PID");
    assert_int_equal(hp_notify_watchdog(&got), expect != 0);
    assert_int_equal(got, expect);
}

static void the_watchdogs_time(void **state)
{
    char self[32], parent[32];
    (void)state;
    snprintf(self, sizeof self, "%d", (int)getpid());
    snprintf(parent, sizeof parent, "%d", (int)getppid());
    watchdog_is("30000000", NULL, 30000000);
    watchdog_is("30000000", self, 30000000);
    watchdog_is("18446744073709551614", self, UINT64_MAX - 1);
    watchdog_is("30000000", parent, 0); /* inherited, and meant for another */
    watchdog_is("30000000", "", 0);
    watchdog_is("30000000", "0", 0);
    watchdog_is(NULL, self, 0);
    watchdog_is("", self, 0);
    watchdog_is("0", self, 0);
    watchdog_is("-1", self, 0);
    watchdog_is("30s", self, 0);
    watchdog_is("18446744073709551615", self, 0); /* never */
    watchdog_is("18446744073709551616", self, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(to_a_path),           cmocka_unit_test(to_an_abstract_name),
        cmocka_unit_test(to_the_longest_path), cmocka_unit_test(addresses_that_are_none),
        cmocka_unit_test(nobody_asked),        cmocka_unit_test(the_watchdogs_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
