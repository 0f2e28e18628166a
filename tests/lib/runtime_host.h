/* runtime_host.h — the real container runtime on directories of its own, driven job by job, for tests as root. */
#ifndef TESTS_LIB_RUNTIME_HOST_H
#define TESTS_LIB_RUNTIME_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "shell/rt.h"

struct runtime_host {
    uv_loop_t loop;
    uv_timer_t ticking; /* a mailbox does not keep the loop alive */
    struct ha_rt *rt;
    char dir[128]; /* temporary; has state/, run/, layout/, and fast/, of a storage class */
    char bridge[16], subnet[32], cgroup_parent[64];
    const char *runtime;         /* "crun", "runc" */
    const char *const *insecure; /* both set before the opening */
    bool masquerade;
    /* exits that were reported */
    int exits;
    char exit_uid[64];
    struct ha_rt_state exit_state;
};

/* A spec that needs no freeing: fields point to static or to the caller's memory. */
struct test_spec {
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources resources;
    Harpoon__V1__NetworkSpec network;
    char image[300];
};

/* Makes directories and images, opens the runtime. Aborts with a message on failure. */
void runtime_host_open(struct runtime_host *h, const char *runtime);
/* Closes and opens again, as a restart of the agent does; the two halves of it. */
void runtime_host_reopen(struct runtime_host *h);
void runtime_host_leave(struct runtime_host *h);
void runtime_host_enter(struct runtime_host *h);
/* For a process that was forked off while the runtime was closed: opens it on a loop of its own. */
void runtime_host_enter_child(struct runtime_host *h);
/* Closes, checks that nothing of it is left on the machine, removes the directories. Returns the number of leftovers, each printed. */
int runtime_host_close(struct runtime_host *h);

/* Image `tag` of the layout, network NONE, 64 MiB, 500 millis. */
void test_spec_init(struct runtime_host *h, struct test_spec *s, const char *tag);

/* Runs one job to its end; returns its status. *job has result and error. */
int runtime_host_run(struct runtime_host *h, struct ha_job *job, enum ha_job_kind kind, const char *uid,
                     const struct test_spec *spec);
/* Turns the loop until `exits` have been reported, at most 10 s. False when they were not. */
bool runtime_host_await_exits(struct runtime_host *h, int exits);

/* One sample; the caller frees. */
Harpoon__Internal__V1__AgentMetrics *runtime_host_sample(struct runtime_host *h);

/* What a cgroup file of the container says; -1 when there is none. `controller` and `file` of v1, and the file of v2. */
int64_t runtime_host_cgroup(struct runtime_host *h, const char *uid, const char *controller, const char *file,
                            const char *v2_file);
/* Whole file, at most 64 KiB, "" when there is none. The caller frees. */
char *runtime_host_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
