/* The daemons' frame and the metrics endpoint: a small daemon in a child process. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/daemon.h"
#include "io/metrics.h"

enum { PATIENCE_MS = 20000 };

struct small {
    char *mode; /* "ok", "refuse" (start fails), "fail" (hp_daemon_fail), "hang" (never stops) */
};

static const struct hp_config_key keys[] = {
    {"small", "mode", HP_CONFIG_STRING, offsetof(struct small, mode), "ok", false, 0, 0, "how it behaves"},
    {0},
};

static struct hp_metric counter = {
    .kind = HP_METRIC_COUNTER, .name = "harpoon_test_events_total", .labels = "kind=\"a\"", .help = "Events."};
static struct hp_metric counter2 = {
    .kind = HP_METRIC_COUNTER, .name = "harpoon_test_events_total", .labels = "kind=\"b\"", .help = "Events."};
static struct hp_metric gauge = {.kind = HP_METRIC_GAUGE, .name = "harpoon_test_hosts", .help = "Hosts."};
static struct hp_metric histogram = {
    .kind = HP_METRIC_HISTOGRAM, .name = "harpoon_test_wait_seconds", .help = "Waits."};

static int check(const void *config, struct hp_error *e)
{
    const struct small *c = config;
    return strcmp(c->mode, "bad") == 0 ? hp_fail(e, HP_EINVAL, "mode in [small]: bad is bad") : 0;
}

static int start(struct hp_daemon *d, const void *config, void **ret_state, struct hp_error *e)
{
    const struct small *c = config;
    *ret_state = (void *)(uintptr_t)c;
    hp_metric_register(&counter);
    hp_metric_register(&gauge);
    hp_metric_register(&histogram);
    hp_metric_register(&counter2);
    hp_metric_add(&counter, 3);
    hp_metric_set(&gauge, -2);
    hp_metric_observe_ns(&histogram, 50000);
    hp_metric_observe_ns(&histogram, 60000);
    hp_metric_observe_ns(&histogram, UINT64_C(3600000000000));
    if (strcmp(c->mode, "refuse") == 0)
        return hp_fail(e, HP_EUNAVAILABLE, "not today");
    hp_daemon_address(d, "small", "127.0.0.1:1");
    hp_daemon_ready(d);
    if (strcmp(c->mode, "fail") == 0)
        hp_daemon_fail(d, &(struct hp_error){HP_EIO, "it broke"});
    return 0;
}

static void stop(struct hp_daemon *d, void *state)
{
    const struct small *c = state;
    if (strcmp(c->mode, "hang") != 0)
        hp_daemon_stopped(d);
}

static const struct hp_daemon_spec spec = {
    .program = "harpoon-small",
    .summary = "a daemon for tests",
    .keys = keys,
    .config_size = sizeof(struct small),
    .check = check,
    .start = start,
    .stop = stop,
};

struct run {
    pid_t pid;
    int out; /* its standard output and error */
    char text[16384];
};

static struct run launch(const char *const *args)
{
    struct run r = {0};
    char *argv[16] = {(char *)(uintptr_t) "harpoon-small"};
    int argc = 1, fds[2];
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)args[argc - 1];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    r.pid = fork();
    if (r.pid == 0) {
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        int code = hp_daemon_main(&spec, argc, argv);
        fflush(NULL);
        _exit(code);
    }
    close(fds[1]);
    r.out = fds[0];
    return r;
}

/* Reads all output until the child ends; its exit code. */
static int finish(struct run *r)
{
    size_t len = strlen(r->text);
    for (;;) {
        struct pollfd p = {r->out, POLLIN, 0};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        ssize_t n = read(r->out, r->text + len, sizeof r->text - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        r->text[len] = '\0';
    }
    close(r->out);
    int status = 0;
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_to_end(const char *const *args, const char *expect)
{
    struct run r = launch(args);
    int code = finish(&r);
    if (expect && !strstr(r.text, expect))
        fail_msg("\"%s\" is not in: %s", expect, r.text);
    return code;
}

/* Waits until the output holds `text`. */
static void wait_for_output(struct run *r, const char *text)
{
    size_t len = 0;
    while (!strstr(r->text, text)) {
        struct pollfd p = {r->out, POLLIN, 0};
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        ssize_t n = read(r->out, r->text + len, sizeof r->text - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
}

static void options_that_end(void **state)
{
    (void)state;
    assert_int_equal(run_to_end((const char *[]){"--version", NULL}, "harpoon-small " HP_VERSION), 0);
    assert_int_equal(run_to_end((const char *[]){"--help", NULL}, "--ready-file FILE"), 0);
    assert_int_equal(run_to_end((const char *[]){"--help-config", NULL}, "[metrics]"), 0);
    assert_int_equal(run_to_end((const char *[]){"--check-config", NULL}, "configuration is valid"), 0);
    assert_int_equal(run_to_end((const char *[]){"--check-config", "--set", "small.mode=bad", NULL}, "bad is bad"), 2);
    assert_int_equal(run_to_end((const char *[]){"--nonsense", NULL}, "--help"), 2);
    assert_int_equal(run_to_end((const char *[]){"words", NULL}, "unexpected argument \"words\""), 2);
    assert_int_equal(run_to_end((const char *[]){"--config", "/nonexistent.conf", NULL}, "/nonexistent.conf"), 2);
    assert_int_equal(run_to_end((const char *[]){"--set", "log.level=loud", NULL}, "\"loud\" is none of"), 2);
    assert_int_equal(run_to_end((const char *[]){"--set", "log.format=xml", NULL}, "\"xml\" is neither"), 2);
    assert_int_equal(run_to_end((const char *[]){"--set", "metrics.listen=nowhere", NULL}, "host:port"), 2);
    /* An address of documentation (RFC 5737), which no machine has. */
    assert_int_equal(run_to_end((const char *[]){"--set", "metrics.listen=203.0.113.1:9", NULL}, "metrics endpoint"),
                     1);
    assert_int_equal(run_to_end((const char *[]){"--set", "small.mode=refuse", NULL}, "not today"), 1);
    assert_int_equal(run_to_end((const char *[]){"--set", "small.mode=fail", NULL}, "it broke"), 1);
}

static void read_file(const char *file, char *out, size_t size)
{
    FILE *f = fopen(file, "r");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    out[n] = '\0';
    if (f)
        fclose(f);
}

/* One request; the whole answer. */
static void ask(unsigned port, const char *request, size_t len, char *out, size_t size)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(write(fd, request, len), (ssize_t)len);
    size_t have = 0;
    ssize_t n;
    while ((n = read(fd, out + have, size - 1 - have)) > 0)
        have += (size_t)n;
    out[have] = '\0';
    close(fd);
}

static void scrape(unsigned port)
{
    static char answer[65536], big[10000];
    ask(port, "GET /healthz HTTP/1.1\r\n\r\n", 25, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17), 0);
    assert_non_null(strstr(answer, "\r\n\r\nok\n"));
    ask(port, "GET /metrics?x HTTP/1.0\r\n\r\n", 27, answer, sizeof answer);
    assert_non_null(strstr(answer, "# TYPE harpoon_test_events_total counter\n"
                                   "harpoon_test_events_total{kind=\"a\"} 3\n"
                                   "harpoon_test_events_total{kind=\"b\"} 0\n"));
    assert_non_null(strstr(answer, "harpoon_test_hosts -2\n"));
    assert_non_null(strstr(answer, "harpoon_test_wait_seconds_bucket{le=\"5e-05\"} 1\n"));
    assert_non_null(strstr(answer, "harpoon_test_wait_seconds_bucket{le=\"0.0001\"} 2\n"));
    assert_non_null(strstr(answer, "harpoon_test_wait_seconds_bucket{le=\"+Inf\"} 3\n"));
    assert_non_null(strstr(answer, "harpoon_test_wait_seconds_sum 3600.000110000\n"));
    assert_non_null(strstr(answer, "harpoon_test_wait_seconds_count 3\n"));
    ask(port, "HEAD /metrics HTTP/1.1\r\n\r\n", 26, answer, sizeof answer);
    assert_null(strstr(answer, "harpoon_test"));
    ask(port, "GET /else HTTP/1.1\r\n\r\n", 22, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 404 ", 13), 0);
    ask(port, "POST /metrics HTTP/1.1\r\n\r\n", 26, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 405 ", 13), 0);
    ask(port, "\x16\x03\x01 tls?\r\n\r\n", 12, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 400 ", 13), 0);
    memset(big, 'a', sizeof big);
    ask(port, big, sizeof big, answer, sizeof answer);
    assert_int_equal(strncmp(answer, "HTTP/1.1 431 ", 13), 0);
}

static void ready_file_metrics_and_orderly_end(void **state)
{
    char file[] = "/tmp/harpoon-ready-XXXXXX", text[512];
    (void)state;
    close(mkstemp(file)); /* of an earlier life: must not be taken for the new one's */
    struct run r = launch((const char *[]){"--ready-file", file, "--set", "metrics.listen=127.0.0.1:0", NULL});
    wait_for_output(&r, "msg=ready");
    read_file(file, text, sizeof text);
    char pid[32];
    snprintf(pid, sizeof pid, "\"pid\":%d", (int)r.pid);
    assert_non_null(strstr(text, pid));
    assert_non_null(strstr(text, "\"small\":\"127.0.0.1:1\""));
    char *metrics = strstr(text, "\"metrics\":\"127.0.0.1:");
    assert_non_null(metrics);
    scrape((unsigned)atoi(metrics + strlen("\"metrics\":\"127.0.0.1:")));
    kill(r.pid, SIGTERM);
    assert_int_equal(finish(&r), 0);
    assert_int_equal(access(file, F_OK), -1);
}

static void second_signal_leaves_at_once(void **state)
{
    (void)state;
    struct run r = launch((const char *[]){"--set", "small.mode=hang", NULL});
    wait_for_output(&r, "msg=ready");
    kill(r.pid, SIGINT);
    wait_for_output(&r, "msg=stopping");
    kill(r.pid, SIGTERM);
    assert_int_equal(finish(&r), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_that_end),
        cmocka_unit_test(ready_file_metrics_and_orderly_end),
        cmocka_unit_test(second_signal_leaves_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
