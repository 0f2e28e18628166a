#include "lib/runtime_host.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/loop.h"

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "runtime_host: %s\n", what);
    abort();
}

static int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int shell(const char *fmt, ...)
{
    char command[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    return system(command); /* NOLINT: a test's own command */
}

char *runtime_host_text(const char *fmt, ...)
{
    char path[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    char *text = calloc(1, 65537);
    must(text, "memory");
    FILE *f = fopen(path, "r");
    if (f) {
        size_t n = fread(text, 1, 65536, f);
        text[n] = '\0';
        fclose(f);
    }
    return text;
}

static void tick(uv_timer_t *timer)
{
}

static void on_exit_of(void *user, const char *uid, const struct ha_rt_state *state)
{
    struct runtime_host *h = user;
    h->exits++;
    snprintf(h->exit_uid, sizeof h->exit_uid, "%s", uid);
    h->exit_state = *state;
}

void runtime_host_enter(struct runtime_host *h)
{
    char state[160], run[160];
    snprintf(state, sizeof state, "%s/state", h->dir);
    snprintf(run, sizeof run, "%s/run", h->dir);
    struct ha_storage_class fast = {.name = "fast"};
    snprintf(fast.dir, sizeof fast.dir, "%s/fast", h->dir);
    must(mkdir(fast.dir, 0755) == 0 || errno == EEXIST, "directory of class fast");
    const struct ha_rt_options o = {.classes = &fast,
                                    .class_count = 1,
                                    .state_dir = state,
                                    .run_dir = run,
                                    .bridge = h->bridge,
                                    .subnet = h->subnet,
                                    .runtime = h->runtime,
                                    .cgroup_parent = h->cgroup_parent,
                                    .insecure_registries = h->insecure,
                                    .masquerade = h->masquerade};
    struct hp_error e = {0};
    if (ha_rt_new(&h->loop, &o, &h->rt, &e)) {
        fprintf(stderr, "runtime_host: %s\n", e.message);
        abort();
    }
    ha_rt_runtime(h->rt)->exited_cb = on_exit_of;
    ha_rt_runtime(h->rt)->user = h;
}

static void open_loop(struct runtime_host *h)
{
    must(uv_loop_init(&h->loop) == 0, "loop");
    uv_timer_init(&h->loop, &h->ticking);
    uv_timer_start(&h->ticking, tick, 50, 50);
}

void runtime_host_open(struct runtime_host *h, const char *runtime)
{
    const char *const *insecure = h->insecure;
    bool masquerade = h->masquerade;
    static unsigned serial;
    *h = (struct runtime_host){.runtime = runtime, .insecure = insecure, .masquerade = masquerade};
    signal(SIGPIPE, SIG_IGN);
    open_loop(h);
    snprintf(h->dir, sizeof h->dir, "/var/tmp/hp-rt-XXXXXX");
    must(mkdtemp(h->dir), "temporary directory");
    unsigned mine = ((unsigned)getpid() * 8 + serial++) % 16384;
    snprintf(h->bridge, sizeof h->bridge, "hpt%x", mine);
    snprintf(h->subnet, sizeof h->subnet, "10.%u.%u.0/24", 200 + mine / 256 % 50, mine % 256);
    snprintf(h->cgroup_parent, sizeof h->cgroup_parent, "/hp-test-%u-%u", (unsigned)getpid(), serial);
    const char *ready = getenv("HARPOON_TEST_LAYOUT"), *tests = getenv("HARPOON_TESTS");
    must((ready ? shell("cp -r %s %s/layout", ready, h->dir)
                : shell("/usr/bin/python3 %s/lib/oci_layout.py %s/layout", tests ? tests : "tests", h->dir)) == 0,
         "make images");
    runtime_host_enter(h);
}

static void closed(void *user)
{
    *(bool *)user = true;
}

void runtime_host_leave(struct runtime_host *h)
{
    bool done = false;
    ha_rt_close(h->rt, closed, &done);
    while (!done)
        uv_run(&h->loop, UV_RUN_ONCE);
    h->rt = NULL;
}

void runtime_host_reopen(struct runtime_host *h)
{
    runtime_host_leave(h);
    runtime_host_enter(h);
}

void runtime_host_enter_child(struct runtime_host *h)
{
    open_loop(h);
    runtime_host_enter(h);
}

/* Prints and counts what a command lists. */
static int leftovers(const char *what, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int leftovers(const char *what, const char *fmt, ...)
{
    char command[1024], line[512];
    int n = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    FILE *f = popen(command, "r"); /* NOLINT: a test's own command */
    must(f, "popen");
    while (fgets(line, sizeof line, f)) {
        fprintf(stderr, "left over: %s: %s", what, line);
        n++;
    }
    pclose(f);
    return n;
}

/* A test that failed half-way leaves containers: they go, so that they do no harm, but count. */
static int remove_containers(struct runtime_host *h)
{
    struct ha_rt_item *items;
    size_t count;
    struct hp_error e = {0};
    must(ha_rt_list(h->rt, &items, &count, &e) == 0, e.message);
    for (size_t i = 0; i < count; i++) {
        struct ha_job job = {0};
        fprintf(stderr, "left over: container %s\n", items[i].uid);
        (void)runtime_host_run(h, &job, HA_JOB_REMOVE, items[i].uid, NULL);
    }
    free(items);
    return (int)count;
}

int runtime_host_close(struct runtime_host *h)
{
    int n = remove_containers(h);
    n += leftovers("process", "pgrep -af '[c]onmon.*%s'", h->dir);
    n += leftovers("container directory", "ls -A %s/state/containers", h->dir);
    n += leftovers("run directory", "ls -A %s/run/c", h->dir);
    n += leftovers("runtime state", "ls %s/run/oci", h->dir);
    n += leftovers("network namespace", "ls -A %s/run/netns", h->dir);
    n += leftovers("unfinished", "ls -A %s/state/tmp", h->dir);
    n += leftovers("cgroup", "find /sys/fs/cgroup -mindepth 2 -type d -path '*%s/*'", h->cgroup_parent);
    n += leftovers("address", "ls %s/state/cni/harpoon-%s 2>/dev/null | grep '^10'", h->dir, h->bridge);
    n += leftovers("interface", "ip -o link show master %s 2>/dev/null", h->bridge);
    n += leftovers("host port", "ls %s/state/cni/ports 2>/dev/null", h->dir);
    runtime_host_leave(h);
    n += leftovers("firewall rule", "iptables-save 2>/dev/null | grep -F '%.*s'", (int)strcspn(h->subnet, "/") - 1,
                   h->subnet);
    n += leftovers("mount", "grep -F %s /proc/self/mountinfo", h->dir);
    n += leftovers("cgroup parent", "find /sys/fs/cgroup -type d -path '*%s'", h->cgroup_parent);
    (void)!shell("ip link delete %s 2>/dev/null", h->bridge);
    (void)!shell("rm -rf %s", h->dir);
    uv_close((uv_handle_t *)&h->ticking, NULL);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&h->loop);
    if (rc) {
        fprintf(stderr, "left over: loop: %s\n", uv_strerror(rc));
        n++;
    }
    return n;
}

void test_spec_init(struct runtime_host *h, struct test_spec *s, const char *tag)
{
    *s = (struct test_spec){.spec = HARPOON__V1__CONTAINER_SPEC__INIT,
                            .resources = HARPOON__V1__RESOURCES__INIT,
                            .network = HARPOON__V1__NETWORK_SPEC__INIT};
    snprintf(s->image, sizeof s->image, "oci:%s/layout:%s", h->dir, tag);
    s->resources.cpu_millis = 500;
    s->resources.memory_bytes = 64 << 20;
    s->resources.pids_max = 100;
    s->network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    s->spec.image = s->image;
    s->spec.resources = &s->resources;
    s->spec.network = &s->network;
}

static void job_done(struct ha_job *job)
{
    *(bool *)job->user = true;
}

int runtime_host_run(struct runtime_host *h, struct ha_job *job, enum ha_job_kind kind, const char *uid,
                     const struct test_spec *spec)
{
    bool done = false;
    int64_t generation = job->generation;
    bool replacing = job->replacing;
    *job = (struct ha_job){.kind = kind,
                           .uid = uid,
                           .container = "projects/demo/regions/r1/containers/box",
                           .generation = generation ? generation : 1,
                           .spec = spec ? &spec->spec : NULL,
                           .start = true,
                           .replacing = replacing,
                           .deadline_ms = 120000,
                           .done_cb = job_done,
                           .user = &done};
    ha_rt_runtime(h->rt)->submit(ha_rt_runtime(h->rt), job);
    must(!done, "done_cb from inside submit");
    while (!done)
        uv_run(&h->loop, UV_RUN_ONCE);
    if (job->status)
        fprintf(stderr, "job %d of %s: %s: %s\n", (int)kind, uid, hp_strerror(job->status), job->error.message);
    return job->status;
}

bool runtime_host_await_exits(struct runtime_host *h, int exits)
{
    uint64_t end = hp_now_ms() + 10000;
    while (h->exits < exits && hp_now_ms() < end)
        uv_run(&h->loop, UV_RUN_ONCE);
    return h->exits >= exits;
}

struct sampling {
    bool done;
    Harpoon__Internal__V1__AgentMetrics *metrics;
};

static void sampled(void *user, Harpoon__Internal__V1__AgentMetrics *metrics)
{
    struct sampling *s = user;
    s->metrics = metrics;
    s->done = true;
}

Harpoon__Internal__V1__AgentMetrics *runtime_host_sample(struct runtime_host *h)
{
    struct sampling s = {0};
    ha_rt_sample(h->rt, sampled, &s);
    while (!s.done)
        uv_run(&h->loop, UV_RUN_ONCE);
    must(s.metrics, "metrics");
    return s.metrics;
}

int64_t runtime_host_cgroup(struct runtime_host *h, const char *uid, const char *controller, const char *file,
                            const char *v2_file)
{
    char *text = strcmp(ha_rt_facts(h->rt)->cgroup_mode, "v2") == 0
                     ? runtime_host_text("/sys/fs/cgroup%s/%s/%s", h->cgroup_parent, uid, v2_file)
                     : runtime_host_text("/sys/fs/cgroup/%s%s/%s/%s", controller, h->cgroup_parent, uid, file);
    int64_t value = text[0] ? strtoll(text, NULL, 10) : -1;
    free(text);
    return value;
}
