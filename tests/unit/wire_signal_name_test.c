/* Names of signals. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/signal_name.h"

/* SIGIO was once accepted by the gateway and unknown to every agent: the C library calls it POLL. */
static void names(void **state)
{
    static const char *const known[] = {"HUP",  "INT",    "QUIT", "ILL",   "TRAP", "ABRT", "BUS",  "FPE",
                                        "KILL", "USR1",   "SEGV", "USR2",  "PIPE", "ALRM", "TERM", "STKFLT",
                                        "CHLD", "CONT",   "STOP", "TSTP",  "TTIN", "TTOU", "URG",  "XCPU",
                                        "XFSZ", "VTALRM", "PROF", "WINCH", "IO",   "PWR",  "SYS"};
    struct hp_error e = {0};
    int n;
    for (int i = 0; i < 31; i++) {
        assert_int_equal(hp_signal_number(known[i], &n, &e), 0);
        assert_int_equal(n, i + 1);
    }
    assert_int_equal(hp_signal_number("SIGPOLL", &n, &e), 0);
    assert_int_equal(n, SIGIO);
    assert_int_equal(hp_signal_number("SIGCLD", &n, &e), 0);
    assert_int_equal(n, SIGCHLD);
}

static void forms(void **state)
{
    static const struct {
        const char *text;
        int number;
    } good[] = {{"", SIGTERM}, {"SIGTERM", 15}, {"TERM", 15}, {"15", 15}, {"64", 64}};
    static const char *const bad[] = {
        "SIGNONE",      "0",          "-9",          "9x",          "99",          "SIG15",
        "SIGRTMIN+999", "SIGRTMIN+",  "SIGRTMIN+31", "SIGRTMIN++1", "SIGRTMIN+-1", "SIGRTMIN+ 1",
        "SIGRTMIN1",    "SIGSIGTERM", "sigterm",     " 15",         "SIG"};
    struct hp_error e = {0};
    int n = -1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hp_signal_number(bad[i], &n, &e) != HP_EINVAL)
            fail_msg("%s was taken", bad[i]);
    assert_int_equal(n, -1);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(hp_signal_number(good[i].text, &n, &e), 0);
        assert_int_equal(n, good[i].number);
    }
    assert_int_equal(hp_signal_number("SIGRTMIN", &n, &e), 0);
    assert_int_equal(n, SIGRTMIN);
    assert_int_equal(hp_signal_number("SIGRTMIN+30", &n, &e), 0);
    assert_int_equal(n, SIGRTMIN + 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(forms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
