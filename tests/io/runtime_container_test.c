/* The life of real containers, with crun and with runc: what the kernel says of them is compared with what was asked for. Needs root. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/loop.h"
#include "lib/runtime_host.h"

#define MIB (1 << 20)
#define S(text) ((char *)(uintptr_t)(text)) /* generated structures have no const */

#define HOLD_MEMORY                                                                                                    \
    "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; sleep 1000 & sleep 1000 & echo ready; exec /bin/run"

static int open_host(void **state)
{
    struct runtime_host *h = calloc(1, sizeof *h);
    const char *runtime = *state;
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

static void sleep_ms(int ms)
{
    usleep((useconds_t)ms * 1000); /* between looks at a condition with a deadline */
}

/* Waits until a file below containers/ has `text` in it, so many times. */
static void await_times(struct runtime_host *h, const char *file, const char *text, int times)
{
    for (uint64_t end = hp_now_ms() + 10000;;) {
        char *have = runtime_host_text("%s/state/containers/%s", h->dir, file);
        int n = 0;
        for (const char *at = have; (at = strstr(at, text)); at += strlen(text))
            n++;
        bool found = n >= times;
        free(have);
        if (found)
            return;
        assert_true(hp_now_ms() < end);
        sleep_ms(5);
    }
}

static void await_text(struct runtime_host *h, const char *file, const char *text)
{
    await_times(h, file, text, 1);
}

static void await_log_times(struct runtime_host *h, const char *uid, const char *word, int times)
{
    char file[128];
    snprintf(file, sizeof file, "%s/log", uid);
    await_times(h, file, word, times);
}

static void await_log(struct runtime_host *h, const char *uid, const char *word)
{
    await_log_times(h, uid, word, 1);
}

static void create(struct runtime_host *h, const char *uid, const struct test_spec *s, struct ha_rt_state *ret)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, uid, s), 0);
    assert_true(j.result.running);
    assert_true(j.result.complete);
    *ret = j.result;
}

static void removed(struct runtime_host *h, const char *uid)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, uid, NULL), 0);
    assert_false(j.result.exists);
}

/* The number after a key in /proc/PID/status. */
static long status_number(int64_t pid, const char *key, int base)
{
    char *text = runtime_host_text("/proc/%ld/status", (long)pid);
    char *at = strstr(text, key);
    long n = at ? strtol(at + strlen(key), NULL, base) : -1;
    free(text);
    return n;
}

/* Waits until the process has the filter: a runtime sets it last, right before its process becomes the container's command, and that is told as running when it is let go. */
static void await_filter(int64_t pid)
{
    for (uint64_t end = hp_now_ms() + 10000; status_number(pid, "Seccomp:", 10) != 2;) {
        assert_true(hp_now_ms() < end);
        sleep_ms(5);
    }
}

static void assert_own_namespaces(int64_t pid)
{
    static const char *const kinds[] = {"pid", "net", "ipc", "uts", "mnt", "cgroup"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64], mine[64], theirs[64] = "";
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        mine[readlink(path, mine, sizeof mine - 1)] = '\0';
        snprintf(path, sizeof path, "/proc/%ld/ns/%s", (long)pid, kinds[i]);
        ssize_t n = readlink(path, theirs, sizeof theirs - 1);
        assert_true(n > 0);
        theirs[n] = '\0';
        assert_string_not_equal(mine, theirs);
    }
}

static void test_limits_and_isolation(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    await_filter(st.pid);
    assert_own_namespaces(st.pid);
    assert_int_equal(status_number(st.pid, "NoNewPrivs:", 10), 1);
    assert_int_equal(status_number(st.pid, "CapBnd:", 16), 0x800405fb);
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), 64 * MIB);
    assert_int_equal(runtime_host_cgroup(h, "c1", "cpu", "cpu.cfs_quota_us", "cpu.max"), 50000);
    assert_int_equal(runtime_host_cgroup(h, "c1", "pids", "pids.max", "pids.max"), 100);
    if (strcmp(ha_rt_facts(h->rt)->cgroup_mode, "v2") != 0)
        assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.memsw.limit_in_bytes", ""), 64 * MIB);
    char *mounts = runtime_host_text("/proc/%ld/mountinfo", (long)st.pid);
    assert_null(strstr(mounts, "/run/netns"));
    free(mounts);
    char *hosts = runtime_host_text("/proc/%ld/root/etc/hostname", (long)st.pid);
    assert_string_equal(hosts, "box\n");
    free(hosts);
    removed(h, "c1");
}

static void test_resize_keeps_the_process(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    s.resources.memory_bytes = 256LL * MIB;
    s.resources.cpu_millis = 1500;
    s.resources.pids_max = 7;
    s.resources.io_write_bps = 5 * MIB;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESIZE, "c1", &s), 0);
    assert_int_equal(j.result.pid, st.pid);
    assert_int_equal(j.result.pid_start_ticks, st.pid_start_ticks);
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), 256LL * MIB);
    assert_int_equal(runtime_host_cgroup(h, "c1", "cpu", "cpu.cfs_quota_us", "cpu.max"), 150000);
    assert_int_equal(runtime_host_cgroup(h, "c1", "pids", "pids.max", "pids.max"), 7);
    char *bps = runtime_host_text("/sys/fs/cgroup/blkio%s/c1/blkio.throttle.write_bps_device", h->cgroup_parent);
    if (strcmp(ha_rt_facts(h->rt)->cgroup_mode, "v2") != 0)
        assert_non_null(strstr(bps, " 5242880"));
    free(bps);
    s.resources.memory_bytes = 32LL * MIB; /* and down again */
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESIZE, "c1", &s), 0);
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), 32LL * MIB);
    removed(h, "c1");
}

static void test_resize_below_use_is_refused(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    char *command[] = {S("/bin/sh"), S("-c"), S(HOLD_MEMORY)};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "ready");
    s.resources.memory_bytes = 16 * MIB;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESIZE, "c1", &s), HP_ECONFLICT);
    assert_non_null(strstr(j.error.message, "16777216"));
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), 64 * MIB);
    s.resources.memory_bytes = 64 * MIB;
    s.resources.pids_max = 2;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESIZE, "c1", &s), HP_ECONFLICT);
    assert_non_null(strstr(j.error.message, "limit of 2 processes"));
    assert_int_equal(runtime_host_cgroup(h, "c1", "pids", "pids.max", "pids.max"), 100);
    assert_true(j.result.running);
    removed(h, "c1");
}

static void test_stop_start_restart(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    char *command[] = {S("/bin/sh"), S("-c"), S("echo x >> /data/starts; exec /bin/run")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0);
    assert_false(j.result.running);
    assert_true(j.result.exists && j.result.complete);
    assert_int_equal(j.result.exit_code, 3);
    assert_true(j.result.finish_wall_ns >= j.result.start_wall_ns);
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), -1);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0); /* again: nothing to do */
    s.resources.memory_bytes = 48 * MIB;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESIZE, "c1", &s), 0); /* stopped: at the next start */
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_START, "c1", &s), 0);
    assert_true(j.result.running);
    assert_int_not_equal(j.result.pid, st.pid);
    assert_int_equal(runtime_host_cgroup(h, "c1", "memory", "memory.limit_in_bytes", "memory.max"), 48 * MIB);
    int64_t second = j.result.pid;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_START, "c1", &s), 0); /* runs already */
    assert_int_equal(j.result.pid, second);
    await_text(h, "c1/upper/data/starts", "x\nx\n");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESTART, "c1", &s), 0);
    assert_true(j.result.running);
    assert_int_not_equal(j.result.pid, second);
    await_text(h, "c1/upper/data/starts", "x\nx\nx\n");
    assert_int_equal(h->exits, 0); /* no stop was reported as an exit */
    removed(h, "c1");
}

static void test_stop_kills_after_the_grace(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    char *command[] = {S("/bin/sh"), S("-c"), S("trap '' TERM; echo deaf; while :; do sleep 1; done")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.spec.stop_grace_seconds = 1;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "deaf");
    uint64_t began = hp_now_ms();
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0);
    assert_in_range(hp_now_ms() - began, 1000, 6000);
    assert_int_equal(j.result.exit_code, 137);
    assert_false(j.result.oom_killed);
    removed(h, "c1");
}

static void test_exits_are_reported(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_job j = {0};
    struct ha_rt_state st;
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_RESTART, "c1", &s), 0);
    assert_int_equal(h->exits, 0);
    st = j.result;
    /* Before that it has no trap, and may still be the runtime's child: runc's ends otherwise. */
    await_log_times(h, "c1", "started", 2);
    assert_int_equal(kill((pid_t)st.pid, SIGTERM), 0);
    assert_true(runtime_host_await_exits(h, 1));
    assert_string_equal(h->exit_uid, "c1");
    assert_int_equal(h->exit_state.exit_code, 3);
    assert_int_equal(h->exit_state.pid, st.pid);
    assert_int_equal(h->exit_state.pid_start_ticks, st.pid_start_ticks);
    assert_false(h->exit_state.running);
    assert_false(h->exit_state.oom_killed);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_INSPECT, "c1", NULL), 0);
    assert_int_equal(j.result.exit_code, 3);
    assert_int_equal(h->exits, 1);
    removed(h, "c1");
}

static void test_memory_kill_is_told(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_job j = {0};
    char *command[] = {S("/bin/sh"), S("-c"), S("x=1; while :; do x=$x$x; done")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.resources.memory_bytes = 16 * MIB;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), 0);
    if (j.result.running) {
        assert_true(runtime_host_await_exits(h, 1));
        j.result = h->exit_state;
    }
    assert_int_equal(j.result.exit_code, 137);
    assert_true(j.result.oom_killed);
    removed(h, "c1");
}

static void test_agent_restart_leaves_containers_alone(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st, gone;
    struct ha_job j = {0};
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    create(h, "c2", &s, &gone);
    await_log(h, "c1", "started");
    await_log(h, "c2", "started");
    runtime_host_reopen(h);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_INSPECT, "c1", NULL), 0);
    assert_true(j.result.running && j.result.complete);
    assert_int_equal(j.result.pid, st.pid);
    assert_int_equal(j.result.pid_start_ticks, st.pid_start_ticks);
    struct ha_rt_item *items;
    size_t count;
    struct hp_error e = {0};
    assert_int_equal(ha_rt_list(h->rt, &items, &count, &e), 0);
    assert_int_equal(count, 2);
    assert_string_equal(items[0].container, "projects/demo/regions/r1/containers/box");
    free(items);
    /* One ends under the new agent's eyes, then one while there is no agent. */
    assert_int_equal(kill((pid_t)st.pid, SIGTERM), 0);
    assert_true(runtime_host_await_exits(h, 1));
    assert_int_equal(h->exit_state.exit_code, 3);
    runtime_host_reopen(h);
    assert_int_equal(kill((pid_t)gone.pid, SIGTERM), 0);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_INSPECT, "c2", NULL), 0);
    while (j.result.running) /* the signal is on its way */
        assert_int_equal(runtime_host_run(h, &j, HA_JOB_INSPECT, "c2", NULL), 0);
    assert_int_equal(j.result.exit_code, 3);
    removed(h, "c1");
    removed(h, "c2");
}

/* A crash between a start and the removal of the FIFO: the program that runs tells that it was started. */
static void test_start_cut_off(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    char fifo[300];
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    snprintf(fifo, sizeof fifo, "%s/run/oci/c1/exec.fifo", h->dir);
    assert_int_equal(access(fifo, F_OK), -1);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    runtime_host_reopen(h);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_INSPECT, "c1", NULL), 0);
    assert_true(j.result.running);
    assert_int_equal(j.result.pid, st.pid);
    removed(h, "c1");
}

static void test_create_is_repeatable(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    test_spec_init(h, &s, "base");
    create(h, "c1", &s, &st);
    j.generation = 1;
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), 0); /* the same again: the same process */
    assert_int_equal(j.result.pid, st.pid);
    j = (struct ha_job){.generation = 2};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), 0); /* a newer one replaces it */
    assert_int_not_equal(j.result.pid, st.pid);
    assert_int_equal(j.result.generation, 2);
    removed(h, "c1");
    removed(h, "c1"); /* nothing there */
}

static void test_volumes(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    Harpoon__V1__VolumeMount own = HARPOON__V1__VOLUME_MOUNT__INIT, kept = HARPOON__V1__VOLUME_MOUNT__INIT;
    own.volume = S("scratch");
    own.path = S("/var/scratch");
    kept.volume = S("precious");
    kept.path = S("/var/precious");
    kept.keep = true;
    Harpoon__V1__VolumeMount *volumes[] = {&own, &kept};
    char *command[] = {S("/bin/sh"), S("-c"),
                       S("id -u > /var/scratch/who; echo kept > /var/precious/file; exec /bin/run")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.spec.user = S("app");
    s.spec.volumes = volumes;
    s.spec.n_volumes = 2;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    char *text = runtime_host_text("%s/state/volumes/demo/scratch/who", h->dir);
    assert_string_equal(text, "1000\n");
    free(text);
    j.replacing = true; /* a replacement keeps them all */
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_REMOVE, "c1", NULL), 0);
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    text = runtime_host_text("%s/state/volumes/demo/scratch/who", h->dir);
    assert_string_equal(text, "1000\n");
    free(text);
    removed(h, "c1");
    char path[256];
    snprintf(path, sizeof path, "%s/state/volumes/demo/scratch", h->dir);
    assert_int_not_equal(access(path, F_OK), 0);
    text = runtime_host_text("%s/state/volumes/demo/precious/file", h->dir);
    assert_string_equal(text, "kept\n");
    free(text);
    for (size_t i = 0; i < 4; i++) {
        static const char *const paths[] = {"/", "/proc/x", "/a/../../b", "relative"};
        own.path = (char *)paths[i];
        assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c2", &s), HP_EINVAL);
        assert_non_null(strstr(j.error.message, "volumes[0].path"));
    }
    own.path = S("/x");
    own.volume = S("../../etc");
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c2", &s), HP_EINVAL);
    removed(h, "c2");
}

/* A volume is known by its class, too: of the same name in two places, each goes with the last that has it. */
static void test_storage_class(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    struct hp_error e = {0};
    char path[256];
    Harpoon__V1__VolumeMount fast = HARPOON__V1__VOLUME_MOUNT__INIT, plain = HARPOON__V1__VOLUME_MOUNT__INIT;
    fast.volume = plain.volume = S("data");
    fast.path = S("/fast");
    fast.storage_class = S("fast");
    fast.size_bytes = 1 << 20;
    plain.path = S("/plain");
    Harpoon__V1__VolumeMount *volumes[] = {&fast, &plain};
    char *command[] = {S("/bin/sh"), S("-c"), S("echo fast > /fast/what; echo plain > /plain/what; exec /bin/run")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.spec.volumes = volumes;
    s.spec.n_volumes = 2;
    assert_int_equal(ha_rt_storage_check(h->rt, "projects/demo/x", &s.spec, &e), 0);
    fast.size_bytes = 1LL << 52;
    assert_int_equal(ha_rt_storage_check(h->rt, "projects/demo/x", &s.spec, &e), HP_ELIMIT);
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    assert_int_equal(ha_rt_storage_check(h->rt, "projects/demo/x", &s.spec, &e), 0); /* it is there */
    char *text = runtime_host_text("%s/fast/volumes/demo/data/what", h->dir);
    assert_string_equal(text, "fast\n");
    free(text);
    text = runtime_host_text("%s/state/volumes/demo/data/what", h->dir);
    assert_string_equal(text, "plain\n");
    free(text);
    s.spec.volumes = &volumes[1];
    s.spec.n_volumes = 1;
    create(h, "c2", &s, &st);
    runtime_host_reopen(h);
    removed(h, "c1");
    snprintf(path, sizeof path, "%s/fast/volumes/demo/data", h->dir);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/state/volumes/demo/data", h->dir);
    assert_int_equal(access(path, F_OK), 0);
    removed(h, "c2");
    assert_int_not_equal(access(path, F_OK), 0);
    plain.storage_class = S("slow");
    assert_int_equal(ha_rt_storage_check(h->rt, "projects/demo/x", &s.spec, &e), HP_ENOTFOUND);
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c3", &s), HP_ENOTFOUND);
    removed(h, "c3");
}

static void probe(struct runtime_host *h, struct test_spec *s, bool want)
{
    struct ha_job j = {0};
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_PROBE, "c1", s), 0);
    assert_int_equal(j.result.healthy, want);
}

static void test_probes(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    char *command[] = {S("/bin/sh"), S("-c"), S("httpd -p 8080 -h /data; exec /bin/run")};
    char *good[] = {S("/bin/sh"), S("-c"), S("test -f /data/kept && ! test -f /nothing")};
    char *bad[] = {S("/bin/false")}, *none[] = {S("/bin/nosuchprogram")}, *slow[] = {S("/bin/sleep"), S("991")};
    Harpoon__V1__HealthCheck check = HARPOON__V1__HEALTH_CHECK__INIT;
    Harpoon__V1__ExecProbe exec = HARPOON__V1__EXEC_PROBE__INIT;
    Harpoon__V1__TcpProbe tcp = HARPOON__V1__TCP_PROBE__INIT;
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.spec.health_check = &check;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    check.timeout_ms = 10000;
    check.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_EXEC;
    check.exec = &exec;
    exec.n_command = 3;
    exec.command = good;
    probe(h, &s, true);
    exec.n_command = 1;
    exec.command = bad;
    probe(h, &s, false);
    exec.command = none;
    probe(h, &s, false);
    exec.command = slow;
    exec.n_command = 2;
    check.timeout_ms = 1000;
    probe(h, &s, false);
    char *ps = runtime_host_text("/sys/fs/cgroup/pids%s/c1/cgroup.procs", h->cgroup_parent);
    for (char *save = NULL, *t = strtok_r(ps, "\n", &save); t; t = strtok_r(NULL, "\n", &save)) {
        char *args = runtime_host_text("/proc/%s/cmdline", t);
        assert_string_not_equal(args, "/bin/sleep"); /* the command itself was killed, not only its carrier */
        free(args);
    }
    free(ps);
    check.probe_case = HARPOON__V1__HEALTH_CHECK__PROBE_TCP;
    check.tcp = &tcp;
    tcp.port = 8080;
    probe(h, &s, true);
    tcp.port = 8081;
    probe(h, &s, false);
    removed(h, "c1");
}

static void test_metrics(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    char *command[] = {S("/bin/sh"), S("-c"), S("echo busy; while :; do :; done")};
    test_spec_init(h, &s, "base");
    s.spec.command = command;
    s.spec.n_command = 3;
    s.resources.cpu_millis = 200;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "busy");
    Harpoon__Internal__V1__AgentMetrics *m = runtime_host_sample(h);
    assert_int_equal(m->n_containers, 1);
    assert_string_equal(m->containers[0]->uid, "c1");
    assert_true(m->containers[0]->memory_bytes_used > 0);
    assert_true(m->containers[0]->pids >= 1);
    assert_int_equal(m->host->containers_running, 1);
    assert_true(m->host->memory_bytes_used > 0 && m->host->disk_bytes_used > 0);
    harpoon__internal__v1__agent_metrics__free_unpacked(m, NULL);
    sleep_ms(600);
    m = runtime_host_sample(h);
    assert_in_range(m->containers[0]->cpu_millis_used, 20, 400);
    assert_true(m->host->cpu_millis_used > 0);
    harpoon__internal__v1__agent_metrics__free_unpacked(m, NULL);
    removed(h, "c1");
}

static void test_image_configuration_holds(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    Harpoon__V1__EnvVar both = HARPOON__V1__ENV_VAR__INIT;
    both.name = S("BOTH");
    both.value = S("request");
    Harpoon__V1__EnvVar *env[] = {&both};
    test_spec_init(h, &s, "layered");
    s.spec.env = env;
    s.spec.n_env = 1;
    create(h, "c1", &s, &st);
    await_log(h, "c1", "started");
    assert_int_equal(status_number(st.pid, "Uid:", 10), 1000);
    assert_int_equal(status_number(st.pid, "Gid:", 10), 1001);
    assert_int_equal(status_number(st.pid, "Groups:", 10), 1002);
    assert_int_equal(status_number(st.pid, "CapEff:", 16), 0);
    char path[64], cwd[256];
    snprintf(path, sizeof path, "/proc/%ld/cwd", (long)st.pid);
    ssize_t n = readlink(path, cwd, sizeof cwd - 1);
    assert_true(n > 0);
    cwd[n] = '\0';
    assert_non_null(strstr(cwd, "/home/app"));
    char environment[4096];
    snprintf(path, sizeof path, "/proc/%ld/environ", (long)st.pid);
    int fd = open(path, O_RDONLY);
    n = read(fd, environment, sizeof environment - 1);
    close(fd);
    assert_true(n > 0);
    environment[n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (!environment[i])
            environment[i] = '\n';
    assert_non_null(strstr(environment, "FROM_IMAGE=yes\n"));
    assert_non_null(strstr(environment, "BOTH=request\n"));
    assert_non_null(strstr(environment, "HOME=/home/app\n"));
    static const char *const gone[] = {"data/removed", "data/old/secret"}, *const there[] = {"data/kept",
                                                                                             "data/old/new",
                                                                                             "data/linked"};
    for (size_t i = 0; i < 3; i++) {
        char file[128];
        snprintf(file, sizeof file, "/proc/%ld/root/%s", (long)st.pid, there[i]);
        assert_int_equal(access(file, F_OK), 0);
        snprintf(file, sizeof file, "/proc/%ld/root/%s", (long)st.pid, gone[i % 2]);
        assert_int_not_equal(access(file, F_OK), 0);
    }
    assert_int_equal(runtime_host_run(h, &j, HA_JOB_STOP, "c1", &s), 0);
    assert_int_equal(j.result.exit_code, 4); /* the image's own stop signal */
    removed(h, "c1");
}

/* An agent is killed in the middle of a create, at different moments; what it leaves behind is no obstacle, and can be removed without a trace. */
static void test_kill_in_the_middle_of_a_create(void **state)
{
    struct runtime_host *h = *state;
    struct test_spec s;
    struct ha_rt_state st;
    struct ha_job j = {0};
    test_spec_init(h, &s, "base");
    create(h, "warm", &s, &st); /* the image is here now */
    removed(h, "warm");
    s.network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_BRIDGE;
    for (int delay = 2; delay < 90; delay += 8) {
        runtime_host_leave(h);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct runtime_host other = *h;
            struct ha_job job = {0};
            runtime_host_enter_child(&other);
            (void)runtime_host_run(&other, &job, HA_JOB_CREATE, "c1", &s);
            for (;;)
                pause();
        }
        sleep_ms(10 + delay);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        runtime_host_enter(h);
        if (delay % 16 == 2) {
            j = (struct ha_job){.generation = 5};
            assert_int_equal(runtime_host_run(h, &j, HA_JOB_CREATE, "c1", &s), 0);
            assert_true(j.result.running);
        }
        removed(h, "c1");
    }
}

#define BOTH(test)                                                                                                     \
    {#test " (crun)", test, open_host, close_host, (void *)"crun"},                                                    \
    {                                                                                                                  \
#test " (runc)", test, open_host, close_host, (void *)"runc"                                                   \
    }

/* Arguments: patterns of names of tests, instead of all. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_limits_and_isolation),
        BOTH(test_resize_keeps_the_process),
        BOTH(test_resize_below_use_is_refused),
        BOTH(test_stop_start_restart),
        BOTH(test_stop_kills_after_the_grace),
        BOTH(test_exits_are_reported),
        BOTH(test_memory_kill_is_told),
        BOTH(test_agent_restart_leaves_containers_alone),
        BOTH(test_start_cut_off),
        BOTH(test_create_is_repeatable),
        BOTH(test_volumes),
        BOTH(test_storage_class),
        BOTH(test_probes),
        BOTH(test_image_configuration_holds),
        BOTH(test_kill_in_the_middle_of_a_create),
        {"test_metrics", test_metrics, open_host, close_host, (void *)"auto"},
    };
    int failed = argc > 1 ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 1; i < argc; i++) {
        cmocka_set_test_filter(argv[i]);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
