/* harpoon-host-agent as a process, with real containers and a router in this test: work, kill -9, reattach, a damaged journal, an orderly end. Needs root. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "io/loop.h"
#include "lib/agent_model.h"
#include "lib/fake_router.h"

#define MIB (1 << 20)
#define DONE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define REMOVE HARPOON__INTERNAL__V1__COMMAND_VERB__COMMAND_VERB_REMOVE

typedef Harpoon__Internal__V1__CommandResult result_pb;

struct world {
    uv_loop_t loop;
    uv_timer_t tick;
    struct fake_router router;
    char dir[64];
    char log[128];
    pid_t agent; /* 0: none */
    const char *program;
};

static struct world w;

static void on_tick(uv_timer_t *t)
{
}

#define WAIT_FOR(condition)                                                                                            \
    do {                                                                                                               \
        uint64_t end_ = hp_now_ms() + 60000;                                                                           \
        while (!(condition)) {                                                                                         \
            if (hp_now_ms() >= end_)                                                                                   \
                fail_msg("not in time: %s", #condition);                                                               \
            uv_run(&w.loop, UV_RUN_ONCE);                                                                              \
        }                                                                                                              \
    } while (0)

static void write_config(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/agent.ini", w.dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f,
            "[agent]\nhost = h1\nregion = r1\nrouters = %s\nstate_dir = %s/state\nrun_dir = %s/run\nbridge = hpa%d\n"
            "subnet = 10.249.%d.0/24\ncgroup_parent = /harpoon-test-%d\nplain = yes\nstop_wait = 5s\nmemory = 1G\n",
            w.router.address, w.dir, w.dir, (int)getpid() % 100000, (int)getpid() % 250, (int)getpid());
    fclose(f);
}

static pid_t spawn(const char *extra)
{
    char config[128];
    snprintf(config, sizeof config, "%s/agent.ini", w.dir);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(w.log, O_CREAT | O_APPEND | O_WRONLY, 0600);
        dup2(fd, 2);
        dup2(fd, 1);
        execl(w.program, w.program, "--config", config, extra, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void start_agent(const char *extra)
{
    int hellos = w.router.hellos;
    assert_int_equal(w.agent, 0);
    w.router.session_count = 0; /* all closed: see stop_agent */
    w.agent = spawn(extra);
    WAIT_FOR(w.router.hellos == hellos + 1);
}

static int stop_agent(int signum)
{
    int status;
    kill(w.agent, signum);
    assert_int_equal(waitpid(w.agent, &status, 0), w.agent);
    w.agent = 0;
    WAIT_FOR(w.router.open == 0);
    return status;
}

static int group_setup(void **state)
{
    char command[512];
    const char *build = getenv("HARPOON_BUILD"), *source = getenv("HARPOON_SOURCE");
    static char program[512];
    if (geteuid() != 0 || !build || !source)
        return -1;
    snprintf(program, sizeof program, "%s/harpoon-host-agent", build);
    w.program = program;
    snprintf(w.dir, sizeof w.dir, "/var/tmp/ha-daemon-XXXXXX");
    if (!mkdtemp(w.dir))
        return -1;
    snprintf(w.log, sizeof w.log, "%s/log", w.dir);
    snprintf(command, sizeof command, "%s/deploy/images/build-busybox %s/images >/dev/null", source, w.dir);
    if (system(command) != 0)
        return -1;
    uv_loop_init(&w.loop);
    uv_timer_init(&w.loop, &w.tick);
    uv_timer_start(&w.tick, on_tick, 5, 5);
    signal(SIGPIPE, SIG_IGN);
    fake_router_open(&w.router, &w.loop);
    write_config();
    start_agent(NULL);
    return 0;
}

static void show_log(void)
{
    char line[2048];
    FILE *f = fopen(w.log, "re");
    while (f && fgets(line, sizeof line, f))
        fputs(line, stderr);
    if (f)
        fclose(f);
}

static int group_teardown(void **state)
{
    char command[256];
    if (w.agent)
        stop_agent(SIGTERM);
    if (getenv("SHOW_LOG"))
        show_log();
    fake_router_close(&w.router);
    uv_close((uv_handle_t *)&w.tick, NULL);
    while (uv_run(&w.loop, UV_RUN_ONCE))
        ;
    uv_loop_close(&w.loop);
    snprintf(command, sizeof command,
             "for m in $(grep -o '%s[^ ]*' /proc/mounts | sort -r); do umount -l $m; done; rm -rf %s", w.dir, w.dir);
    return system(command);
}

/* ---- commands and answers ---- */

static void send_ensure(const char *uid, int64_t generation, int64_t memory_bytes)
{
    struct am_ensure e;
    static char image[256];
    Harpoon__V1__NetworkSpec network = HARPOON__V1__NETWORK_SPEC__INIT;
    network.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    am_ensure_init(&e, uid, generation, "");
    snprintf(image, sizeof image, "oci:%s/images:latest", w.dir);
    e.spec.image = image;
    e.spec.network = &network;
    e.resources.memory_bytes = memory_bytes;
    fake_router_command(&w.router, &e.cmd);
}

static void send_remove(const char *uid, int64_t generation)
{
    struct am_ensure e;
    am_ensure_init(&e, uid, generation, "");
    e.cmd.verb = REMOVE;
    e.cmd.spec = NULL;
    fake_router_command(&w.router, &e.cmd);
}

/* The last result of (uid, generation) heard; NULL: none. */
static const result_pb *result_of(const char *uid, int64_t generation)
{
    for (size_t i = w.router.heard_count; i > 0; i--) {
        const Harpoon__Internal__V1__AgentMessage *m = w.router.heard[i - 1];
        if (m->body_case == HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_RESULT && m->result->generation == generation &&
            strcmp(m->result->uid, uid) == 0)
            return m->result;
    }
    return NULL;
}

static const result_pb *await_result(const char *uid, int64_t generation, Harpoon__Internal__V1__CommandOutcome outcome)
{
    WAIT_FOR(result_of(uid, generation));
    const result_pb *r = result_of(uid, generation);
    if (r->outcome != outcome) {
        show_log();
        fail_msg("outcome %d: %s", (int)r->outcome, r->error ? r->error->message : "");
    }
    return r;
}

/* The item of uid in a fresh inventory; the caller frees. */
static Harpoon__Internal__V1__InventoryItem item_of(const char *uid)
{
    Harpoon__Internal__V1__RouterMessage m = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__INIT;
    Harpoon__Internal__V1__InventoryRequest q = HARPOON__INTERNAL__V1__INVENTORY_REQUEST__INIT;
    Harpoon__Internal__V1__InventoryItem none = HARPOON__INTERNAL__V1__INVENTORY_ITEM__INIT;
    m.body_case = HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_INVENTORY_REQUEST;
    m.inventory_request = &q;
    size_t before = w.router.heard_count;
    fake_router_send(&w.router, &m);
    for (;;) {
        WAIT_FOR(w.router.heard_count > before);
        const Harpoon__Internal__V1__AgentMessage *a = w.router.heard[before++];
        if (a->body_case != HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_INVENTORY)
            continue;
        for (size_t i = 0; i < a->inventory->n_items; i++)
            if (strcmp(a->inventory->items[i]->uid, uid) == 0)
                return *a->inventory->items[i];
        return none;
    }
}

static int64_t start_ticks(int64_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoll(p + 1, NULL, 10) : 0;
}

static void assert_runs(const Harpoon__V1__ContainerStatus *s)
{
    if (s->state != HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING) {
        show_log();
        fail_msg("state %d, exit code %d: %s", (int)s->state, s->exit_code, s->message);
    }
    assert_true(s->pid > 0);
    assert_int_equal(start_ticks(s->pid), s->pid_start_ticks);
}

/* ---- tests, in order: they share the host ---- */

static int64_t pid, ticks;

static void creates_a_real_container(void **state)
{
    send_ensure("u1", 1, 64 * MIB);
    const result_pb *r = await_result("u1", 1, DONE);
    assert_runs(r->status);
    pid = r->status->pid;
    ticks = r->status->pid_start_ticks;
    assert_int_equal(strncmp(r->status->image_digest, "sha256:", 7), 0);
}

static void kill_9_and_a_new_start_change_no_process(void **state)
{
    stop_agent(SIGKILL);
    assert_int_equal(start_ticks(pid), ticks);
    start_agent(NULL);
    Harpoon__Internal__V1__InventoryItem i = item_of("u1");
    assert_runs(i.status);
    assert_int_equal(i.status->pid, pid);
    assert_int_equal(i.generation, 1);
    assert_false(i.quarantined);
}

static void resizes_in_place(void **state)
{
    send_ensure("u1", 2, 96 * MIB);
    const result_pb *r = await_result("u1", 2, DONE);
    assert_int_equal(r->status->pid, pid);
    assert_int_equal(r->status->resources->memory_bytes, 96 * MIB);
    send_ensure("u2", 1, 2048LL * MIB);
    await_result("u2", 1, REFUSED); /* the host has 1 GiB for containers */
}

static void an_exit_is_noticed_and_restarted(void **state)
{
    size_t before = w.router.heard_count;
    bool restarted = false;
    kill((pid_t)pid, SIGKILL);
    while (!restarted) {
        WAIT_FOR(w.router.heard_count > before);
        const Harpoon__Internal__V1__AgentMessage *m = w.router.heard[before++];
        if (m->body_case != HARPOON__INTERNAL__V1__AGENT_MESSAGE__BODY_OBSERVATION)
            continue;
        restarted = strcmp(m->observation->kind, "restarted") == 0;
        if (restarted) {
            assert_runs(m->observation->status);
            assert_int_not_equal(m->observation->status->pid, pid);
            assert_int_equal(m->observation->status->exit_code, 137);
            pid = m->observation->status->pid;
            ticks = m->observation->status->pid_start_ticks;
        }
    }
}

/* kill -9 at moments spread over a create: in the end there is exactly one container, whatever was sent how often. */
static void kill_9_in_the_middle_of_creates(void **state)
{
    for (int i = 0; i < 8; i++) {
        char uid[16];
        snprintf(uid, sizeof uid, "k%d", i);
        fake_router_forget(&w.router);
        send_ensure(uid, 1, 8 * MIB);
        uint64_t until = hp_now_ms() + (uint64_t)i * 15;
        while (hp_now_ms() < until)
            uv_run(&w.loop, UV_RUN_ONCE);
        stop_agent(SIGKILL);
        start_agent(NULL);
        send_ensure(uid, 1, 8 * MIB);
        await_result(uid, 1, DONE);
        Harpoon__Internal__V1__InventoryItem item = item_of(uid);
        assert_runs(item.status);
        assert_int_equal(item.status->restart_count, 0);
        send_remove(uid, 2);
        await_result(uid, 2, DONE);
        assert_int_equal(start_ticks(item.status->pid) == item.status->pid_start_ticks, 0);
    }
    assert_int_equal(start_ticks(pid), ticks);
}

static void a_damaged_journal_stops_the_agent_and_can_be_put_aside(void **state)
{
    char path[128], junk[8192];
    int status;
    fake_router_forget(&w.router);
    assert_true(WIFEXITED(stop_agent(SIGTERM)));
    assert_int_equal(start_ticks(pid), ticks);
    snprintf(path, sizeof path, "%s/state/journal.db", w.dir);
    memset(junk, 0x5A, sizeof junk);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
    close(fd);
    pid_t broken = spawn(NULL);
    assert_int_equal(waitpid(broken, &status, 0), broken);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    start_agent("--quarantine-journal");
    Harpoon__Internal__V1__InventoryItem i = item_of("u1");
    assert_true(i.quarantined);
    assert_runs(i.status);
    assert_int_equal(i.status->pid, pid);
    struct am_ensure e;
    am_ensure_init(&e, "u1", 7, "another");
    fake_router_command(&w.router, &e.cmd); /* not what is there */
    await_result("u1", 7, REFUSED);
    send_ensure("u1", 8, 80 * MIB); /* what is there, but for its size: adopted */
    const result_pb *r = await_result("u1", 8, DONE);
    assert_int_equal(r->status->pid, pid);
    assert_int_equal(r->status->resources->memory_bytes, 80 * MIB);
    assert_int_equal(start_ticks(pid), ticks);
    send_remove("u1", 9);
    await_result("u1", 9, DONE);
    assert_int_not_equal(start_ticks(pid), ticks);
}

static void an_orderly_end_says_goodbye(void **state)
{
    send_ensure("u3", 1, 8 * MIB);
    const result_pb *r = await_result("u3", 1, DONE);
    int64_t p = r->status->pid, t = r->status->pid_start_ticks;
    int status = stop_agent(SIGTERM);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(w.router.sessions[w.router.session_count - 1].goodbye);
    assert_int_equal(start_ticks(p), t);
    start_agent(NULL);
    send_remove("u3", 2);
    await_result("u3", 2, DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creates_a_real_container),
        cmocka_unit_test(kill_9_and_a_new_start_change_no_process),
        cmocka_unit_test(resizes_in_place),
        cmocka_unit_test(an_exit_is_noticed_and_restarted),
        cmocka_unit_test(kill_9_in_the_middle_of_creates),
        cmocka_unit_test(a_damaged_journal_stops_the_agent_and_can_be_put_aside),
        cmocka_unit_test(an_orderly_end_says_goodbye),
    };
    if (geteuid() != 0) {
        puts("needs root: skipped");
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
