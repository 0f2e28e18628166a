/* Networks of real containers: addresses that stay, ports of the host, and nothing left behind. Needs root. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/loop.h"
#include "lib/runtime_host.h"

#define S(text) ((char *)(uintptr_t)(text)) /* generated structures have no const */

static char *serve[] = {S("/bin/sh"), S("-c"), S("httpd -p 8080 -h /data; exec /bin/run")};

static int open_host(void **state)
{
    struct runtime_host *h = calloc(1, sizeof *h);
    const char *runtime = *state;
    h->masquerade = true;
    runtime_host_open(h, runtime);
    *state = h;
    return 0;
}

static int close_host(void **state)
{
    struct runtime_host *h = *state;
    int n = runtime_host_close(h);
    free(h);
    return n;
}

static void bridged(struct runtime_host *h, struct test_spec *s)
{
    test_spec_init(h, s, "base");
    s->network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE;
    s->spec.command = serve;
    s->spec.n_command = 3;
}

static void runs(struct runtime_host *h, enum ha_job_kind kind, const char *uid, const struct test_spec *s,
                 struct ha_rt_state *ret)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, kind, uid, s), 0);
    assert_true(j.result.running);
    *ret = j.result;
}

static void removed(struct runtime_host *h, const char *uid)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, uid, NULL), 0);
    assert_false(j.result.exists);
}

/* Reads http://address:port/kept; true when the answer is the file. */
static bool fetch(const char *address, int port)
{
    char ip[64], buf[1024] = "";
    snprintf(ip, sizeof ip, "%.*s", (int)strcspn(address, "/"), address);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, ip, &to.sin_addr) != 1)
        return false;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval limit = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    static const char request[] = "GET /kept HTTP/1.0\r\n\r\n";
    size_t n = 0;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        write(fd, request, sizeof request - 1) == sizeof request - 1)
        for (ssize_t got; n < sizeof buf - 1 && (got = read(fd, buf + n, sizeof buf - 1 - n)) > 0;)
            n += (size_t)got;
    close(fd);
    return strstr(buf, "\r\n\r\nkept\n");
}

static void await_fetch(const char *address, int port)
{
    for (uint64_t end = hp_now_ms() + 10000; !fetch(address, port); usleep(20000))
        assert_true(hp_now_ms() < end);
}

static void test_address_stays(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state first, other, st;
    struct ha_job j = {0};
    bridged(h, &s);
    runs(h, HA_JOB_CREATE, "c1", &s, &first);
    runs(h, HA_JOB_CREATE, "c2", &s, &other);
    assert_int_equal(strncmp(first.address, h->subnet, strcspn(h->subnet, "/") - 1), 0);
    assert_string_not_equal(first.address, other.address);
    await_fetch(first.address, 8080);
    await_fetch(other.address, 8080);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0);
    assert_string_equal(j.result.address, first.address);
    runtime_host_reopen(h);
    runs(h, HA_JOB_START, "c1", &s, &st);
    assert_string_equal(st.address, first.address);
    await_fetch(st.address, 8080);
    char *hosts = runtime_host_text("/proc/%ld/root/etc/hosts", (long)st.pid), line[100];
    snprintf(line, sizeof line, "%.*s\tbox\n", (int)strcspn(st.address, "/"), st.address);
    assert_non_null(strstr(hosts, line));
    free(hosts);
    j.replacing = true; /* a replacement has it as well */
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, "c1", NULL), 0);
    runs(h, HA_JOB_CREATE, "c1", &s, &st);
    assert_string_equal(st.address, first.address);
    await_fetch(st.address, 8080);
    removed(h, "c1");
    removed(h, "c2");
}

/* After a reboot the run directory and every namespace are gone; the address is asked for again. */
static void test_address_after_a_reboot(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state first, other, st;
    struct ha_job j = {0};
    char command[400];
    bridged(h, &s);
    runs(h, HA_JOB_CREATE, "c0", &s, &other);
    runs(h, HA_JOB_CREATE, "c1", &s, &first);
    removed(h, "c0");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0);
    snprintf(command, sizeof command, "umount %s/run/netns/c1; ip link delete %s; rm -rf %s/run/c", h->dir, h->bridge,
             h->dir);
    assert_int_equal(system(command), 0); /* NOLINT: a test's own command */
    runtime_host_reopen(h);
    runs(h, HA_JOB_START, "c1", &s, &st);
    assert_string_equal(st.address, first.address);
    await_fetch(st.address, 8080);
    removed(h, "c1");
}

/* What a plugin of an agent that died had started goes on, and took back in the end what was attached since: it has inherited the lock, which is waited for. */
static void test_plugins_of_a_dead_agent_end_first(void **state)
{
    struct runtime_host *h = *state;
    char done[sizeof h->dir + 32];
    int status;
    snprintf(done, sizeof done, "%s/plugin-is-done", h->dir);
    pid_t plugin = fork();
    assert_true(plugin >= 0);
    if (plugin == 0) {
        (void)poll(NULL, 0, 200); /* its work */
        _exit(open(done, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) < 0);
    }
    runtime_host_reopen(h);
    assert_int_equal(access(done, F_OK), 0);
    assert_int_equal(waitpid(plugin, &status, 0), plugin);
    assert_int_equal(status, 0);
    assert_int_equal(unlink(done), 0);
}

/* One that does not end by itself is ended: here it is stopped. An address without a container's name, as a plugin leaves it that is killed between two steps, is free again;
 * those of containers stay. */
static void test_plugins_that_stand_still_are_ended(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state first;
    char nobody[sizeof h->dir + 96], *taken;
    int status;
    bridged(h, &s);
    runs(h, HA_JOB_CREATE, "c1", &s, &first);
    snprintf(nobody, sizeof nobody, "%s/state/cni/harpoon-%s/%.*s99", h->dir, h->bridge,
             (int)(strrchr(h->subnet, '.') + 1 - h->subnet), h->subnet);
    close(open(nobody, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(access(nobody, F_OK), 0);
    pid_t plugin = fork();
    assert_true(plugin >= 0);
    if (plugin == 0) {
        raise(SIGSTOP);
        _exit(0);
    }
    assert_int_equal(waitpid(plugin, &status, WUNTRACED), plugin);
    assert_true(WIFSTOPPED(status));
    runtime_host_reopen(h);
    assert_int_equal(waitpid(plugin, &status, WNOHANG), plugin);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_not_equal(access(nobody, F_OK), 0);
    taken = runtime_host_text("%s/state/cni/harpoon-%s/%.*s", h->dir, h->bridge, (int)strcspn(first.address, "/"),
                              first.address);
    assert_non_null(strstr(taken, "c1"));
    free(taken);
    await_fetch(first.address, 8080);
    removed(h, "c1");
}

static void test_containers_reach_each_other(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state a, b;
    struct ha_job j = {0};
    char url[128];
    Harpoon__V1__HealthCheck check = HARPOON__V1__HEALTH_CHECK__INIT;
    Harpoon__V1__ExecProbe exec = HARPOON__V1__EXEC_PROBE__INIT;
    Harpoon__V1__TcpProbe tcp = HARPOON__V1__TCP_PROBE__INIT;
    bridged(h, &s);
    runs(h, HA_JOB_CREATE, "c1", &s, &a);
    runs(h, HA_JOB_CREATE, "c2", &s, &b);
    await_fetch(b.address, 8080);
    snprintf(url, sizeof url, "http://%.*s:8080/kept", (int)strcspn(b.address, "/"), b.address);
    char *command[] = {S("/bin/wget"), S("-q"), S("-O"), S("/dev/null"), url};
    check.timeout_ms = 10000;
    check.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_EXEC;
    check.exec = &exec;
    exec.command = command;
    exec.n_command = 5;
    s.spec.health_check = &check;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_PROBE, "c1", &s), 0);
    assert_true(j.result.healthy);
    check.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_TCP;
    check.tcp = &tcp;
    tcp.port = 8080;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_PROBE, "c2", &s), 0);
    assert_true(j.result.healthy);
    tcp.port = 8081;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_PROBE, "c2", &s), 0);
    assert_false(j.result.healthy);
    removed(h, "c1");
    removed(h, "c2");
}

/* A port of the host that nobody has; held until just before it is used. */
static int free_port(int *ret_fd)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t size = sizeof any;
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(listen(*ret_fd, 1), 0);
    assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&any, &size), 0);
    return ntohs(any.sin_port);
}

static void test_ports(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s, plain;
    struct ha_rt_state st;
    struct ha_job j = {0};
    Harpoon__V1__PortMapping port = HARPOON__V1__PORT_MAPPING__INIT;
    Harpoon__V1__PortMapping *ports[] = {&port};
    int listener;
    bridged(h, &s);
    port.container_port = 8080;
    port.host_port = free_port(&listener);
    s.network.ports = ports;
    s.network.n_ports = 1;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), HP_ECONFLICT);
    assert_non_null(strstr(j.error.message, "in use by a process of the host"));
    close(listener);
    runs(h, HA_JOB_CREATE, "c1", &s, &st);
    await_fetch("127.0.0.1", port.host_port);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c2", &s), HP_ECONFLICT);
    assert_non_null(strstr(j.error.message, "belongs to container c1"));
    assert_false(j.result.exists);
    runs(h, HA_JOB_RESTART, "c1", &s, &st);
    await_fetch("127.0.0.1", port.host_port);
    /* Replaced by one without ports: the port is free again, the address the same. */
    bridged(h, &plain);
    char address[64];
    strcpy(address, st.address);
    j = (struct ha_job){.generation = 2, .replacing = true};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, "c1", NULL), 0);
    j.generation = 2;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &plain), 0);
    assert_string_equal(j.result.address, address);
    assert_false(fetch("127.0.0.1", port.host_port));
    j.generation = 1;
    runs(h, HA_JOB_CREATE, "c2", &s, &st);
    await_fetch("127.0.0.1", port.host_port);
    removed(h, "c1");
    removed(h, "c2");
}

/* From the bridge to loopback only: the network goes, address and all. */
static void test_network_is_given_up(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    bridged(h, &s);
    runs(h, HA_JOB_CREATE, "c1", &s, &st);
    j.replacing = true;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, "c1", NULL), 0);
    s.network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    runs(h, HA_JOB_CREATE, "c1", &s, &st);
    assert_string_equal(st.address, "");
    char *dev = runtime_host_text("/proc/%ld/net/dev", (long)st.pid);
    assert_null(strstr(dev, "eth0"));
    assert_non_null(strstr(dev, "lo:"));
    free(dev);
    removed(h, "c1");
}

#define BOTH(test)                                                                                                     \
    {#test " (crun)", test, open_host, close_host, (void *)"crun"},                                                    \
    {                                                                                                                  \
#test " (runc)", test, open_host, close_host, (void *)"runc"                                                   \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_address_stays),
        BOTH(test_address_after_a_reboot),
        BOTH(test_containers_reach_each_other),
        BOTH(test_ports),
        BOTH(test_network_is_given_up),
        BOTH(test_plugins_of_a_dead_agent_end_first),
        BOTH(test_plugins_that_stand_still_are_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
