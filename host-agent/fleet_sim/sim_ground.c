#include "fleet_sim/sim_ground.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/map.h"
#include "io/loop.h"

enum { LINE_MAX_BYTES = 64 << 10 };

/* A job that the record says has begun; those without an end were cut off. */
struct open_job {
    struct open_job *next;
    uint64_t number, spec_digest;
    int64_t generation;
    bool creates;
    struct sim_machine *machine;
    char *name;
    char uid[HA_UID_MAX + 1];
};

struct sim_ground {
    int fd; /* -1: no record */
    uint64_t job_last, lines;
    int64_t pid_last;
    struct hp_map machines; /* struct sim_machine */
    struct open_job *open;  /* while the record is read */
};

static const char *const verbs[] = {
    [HA_JOB_CREATE] = "create",   [HA_JOB_START] = "start",   [HA_JOB_STOP] = "stop",
    [HA_JOB_RESTART] = "restart", [HA_JOB_REMOVE] = "remove", [HA_JOB_RESIZE] = "resize",
};

/* ---- machines ---- */

struct sim_machine *sim_ground_machine(struct sim_ground *g, const char *host)
{
    struct sim_machine *m = hp_map_get(&g->machines, host);
    if (m)
        return m;
    m = calloc(1, sizeof *m);
    if (m)
        m->host = strdup(host);
    if (m && m->host && !hp_map_put(&g->machines, host, m, NULL))
        return m;
    if (m)
        free(m->host);
    free(m);
    return NULL;
}

struct sim_container *sim_machine_find(const struct sim_machine *m, const char *uid)
{
    struct sim_container *c = m->containers;
    while (c && strcmp(c->uid, uid) != 0)
        c = c->next;
    return c;
}

struct sim_container *sim_machine_add(struct sim_machine *m, const char *uid, const char *name)
{
    assert(!sim_machine_find(m, uid));
    struct sim_container *c = calloc(1, sizeof *c);
    if (!c || !(c->name = strdup(name ? name : ""))) {
        free(c);
        return NULL;
    }
    snprintf(c->uid, sizeof c->uid, "%s", uid);
    c->next = m->containers;
    m->containers = c;
    return c;
}

void sim_machine_drop(struct sim_machine *m, struct sim_container *c)
{
    struct sim_container **at = &m->containers;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c->name);
    free(c);
}

int64_t sim_ground_pid(struct sim_ground *g)
{
    return ++g->pid_last;
}

/* ---- writing ---- */

/* One line, whole or not at all; `line` is taken. */
static void append(struct sim_ground *g, json_t *line)
{
    char text[LINE_MAX_BYTES];
    size_t n = line ? json_dumpb(line, text, sizeof text - 1, JSON_COMPACT) : 0;
    json_decref(line);
    if (n == 0 || n > sizeof text - 1) {
        hp_err("a line of the runtime log cannot be made; the simulation ends", HP_I("bytes", n));
        abort();
    }
    text[n++] = '\n';
    if (write(g->fd, text, n) != (ssize_t)n) {
        hp_err("the runtime log cannot be written; the simulation ends", HP_S("error", strerror(errno)));
        abort();
    }
    g->lines++;
}

static json_t *number_text(uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, v);
    return json_string(text);
}

void sim_ground_boot(struct sim_ground *g, int64_t hosts)
{
    if (g->fd >= 0)
        append(g, json_pack("{s:I,s:s,s:i,s:I}", "t", (json_int_t)hp_now_ns(), "op", "boot", "pid", (int)getpid(),
                            "hosts", (json_int_t)hosts));
}

uint64_t sim_ground_begin(struct sim_ground *g, const struct sim_machine *m, const struct ha_job *job)
{
    if (g->fd < 0 || job->kind == HA_JOB_INSPECT || job->kind == HA_JOB_PROBE)
        return 0;
    g->job_last++;
    append(g, json_pack("{s:I,s:s,s:I,s:s,s:s,s:s,s:I,s:s,s:b,s:o}", "t", (json_int_t)hp_now_ns(), "op", "begin", "job",
                        (json_int_t)g->job_last, "host", m->host, "uid", job->uid, "verb", verbs[job->kind],
                        "generation", (json_int_t)job->generation, "name", job->container ? job->container : "",
                        "start", (int)job->start, "digest", number_text(job->spec_digest)));
    return g->job_last;
}

/* What a line or the state says of a container. */
static json_t *describe(const struct sim_container *c)
{
    return json_pack("{s:b,s:b,s:b,s:I,s:I,s:I,s:I,s:i}", "exists", c != NULL, "complete", c && c->complete, "running",
                     c && c->pid, "pid", (json_int_t)(c ? c->pid : 0), "cpu_millis",
                     (json_int_t)(c ? c->cpu_millis : 0), "memory_bytes", (json_int_t)(c ? c->memory_bytes : 0),
                     "start_wall_ns", (json_int_t)(c ? c->start_wall_ns : 0), "code", c ? c->exit_code : 0);
}

void sim_ground_end(struct sim_ground *g, const struct sim_machine *m, uint64_t number, const struct ha_job *job)
{
    if (g->fd < 0 || !number)
        return;
    json_t *line =
        json_pack("{s:I,s:s,s:I,s:s,s:s,s:s,s:I,s:b,s:s}", "t", (json_int_t)hp_now_ns(), "op", "end", "job",
                  (json_int_t)number, "host", m->host, "uid", job->uid, "verb", verbs[job->kind], "generation",
                  (json_int_t)job->generation, "ok", job->status == 0, "error", job->status ? job->error.message : "");
    json_t *now = describe(sim_machine_find(m, job->uid));
    json_object_update(line, now);
    json_decref(now);
    append(g, line);
}

void sim_ground_exit(struct sim_ground *g, const struct sim_machine *m, const struct sim_container *c, int64_t pid)
{
    if (g->fd >= 0)
        append(g, json_pack("{s:I,s:s,s:s,s:s,s:I,s:i}", "t", (json_int_t)hp_now_ns(), "op", "exit", "host", m->host,
                            "uid", c->uid, "pid", (json_int_t)pid, "code", c->exit_code));
}

int sim_ground_dump(const struct sim_ground *g, const char *path, struct hp_error *e)
{
    char tmp[4096];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    json_t *all = json_array();
    for (const struct hp_map_node *n = hp_map_first(&g->machines); n; n = hp_map_next(n)) {
        const struct sim_machine *m = n->value;
        for (const struct sim_container *c = m->containers; c; c = c->next) {
            json_t *one = json_pack("{s:s,s:s,s:s,s:I}", "host", m->host, "uid", c->uid, "name", c->name, "generation",
                                    (json_int_t)c->generation);
            json_t *now = describe(c);
            json_object_update(one, now);
            json_decref(now);
            json_array_append_new(all, one);
        }
    }
    json_t *top =
        json_pack("{s:I,s:I,s:o}", "t", (json_int_t)hp_now_ns(), "lines", (json_int_t)g->lines, "containers", all);
    int rc = top && json_dump_file(top, tmp, JSON_COMPACT) == 0 && rename(tmp, path) == 0
                 ? 0
                 : hp_fail_errno(e, HP_EIO, errno, "runtime state %s", path);
    json_decref(top);
    return rc;
}

/* ---- reading ---- */

static void open_job_free(struct open_job *j)
{
    free(j->name);
    free(j);
}

/* What was under way when the program ended: a create leaves something incomplete behind, all else did not happen. */
static int cut_off(struct sim_ground *g)
{
    int rc = 0;
    for (struct open_job *j; (j = g->open);) {
        struct sim_container *c = sim_machine_find(j->machine, j->uid);
        if (j->creates && !c) {
            c = sim_machine_add(j->machine, j->uid, j->name);
            rc = c ? rc : HP_ENOMEM;
        }
        if (c && j->creates && !c->complete) {
            c->generation = j->generation;
            c->spec_digest = j->spec_digest;
        }
        g->open = j->next;
        open_job_free(j);
    }
    return rc;
}

static int read_begin(struct sim_ground *g, json_t *line)
{
    const char *host, *uid, *verb, *name, *digest;
    json_int_t number, generation;
    if (json_unpack(line, "{s:I,s:s,s:s,s:s,s:I,s:s,s:s}", "job", &number, "host", &host, "uid", &uid, "verb", &verb,
                    "generation", &generation, "name", &name, "digest", &digest) ||
        strlen(uid) > HA_UID_MAX)
        return HP_ECORRUPT;
    struct open_job *j = calloc(1, sizeof *j);
    if (!j || !(j->name = strdup(name)) || !(j->machine = sim_ground_machine(g, host))) {
        if (j)
            open_job_free(j);
        return HP_ENOMEM;
    }
    j->number = (uint64_t)number;
    j->generation = generation;
    j->spec_digest = strtoull(digest, NULL, 16);
    j->creates = strcmp(verb, verbs[HA_JOB_CREATE]) == 0;
    snprintf(j->uid, sizeof j->uid, "%s", uid);
    j->next = g->open;
    g->open = j;
    g->job_last = j->number > g->job_last ? j->number : g->job_last;
    return 0;
}

static int take_end(struct sim_ground *g, const struct open_job *j, json_t *line)
{
    int ok, exists, complete, code;
    json_int_t pid, cpu, memory, start;
    if (json_unpack(line, "{s:b,s:b,s:b,s:I,s:I,s:I,s:I,s:i}", "ok", &ok, "exists", &exists, "complete", &complete,
                    "pid", &pid, "cpu_millis", &cpu, "memory_bytes", &memory, "start_wall_ns", &start, "code", &code))
        return HP_ECORRUPT;
    struct sim_container *c = sim_machine_find(j->machine, j->uid);
    if (!exists) {
        if (c)
            sim_machine_drop(j->machine, c);
        return 0;
    }
    if (!c && !(c = sim_machine_add(j->machine, j->uid, j->name)))
        return HP_ENOMEM;
    if (j->creates && ok) {
        c->generation = j->generation;
        c->spec_digest = j->spec_digest;
    }
    c->complete = complete;
    c->pid = pid;
    c->cpu_millis = cpu;
    c->memory_bytes = memory;
    c->start_wall_ns = start;
    c->exit_code = code;
    g->pid_last = pid > g->pid_last ? pid : g->pid_last;
    return 0;
}

static int read_end(struct sim_ground *g, json_t *line)
{
    json_int_t number;
    if (json_unpack(line, "{s:I}", "job", &number))
        return HP_ECORRUPT;
    struct open_job **at = &g->open, *j;
    while ((j = *at) && j->number != (uint64_t)number)
        at = &j->next;
    if (!j)
        return HP_ECORRUPT;
    int rc = take_end(g, j, line);
    *at = j->next;
    open_job_free(j);
    return rc;
}

static int read_exit(struct sim_ground *g, json_t *line)
{
    const char *host, *uid;
    json_int_t pid;
    int code;
    if (json_unpack(line, "{s:s,s:s,s:I,s:i}", "host", &host, "uid", &uid, "pid", &pid, "code", &code))
        return HP_ECORRUPT;
    struct sim_machine *m = sim_ground_machine(g, host);
    struct sim_container *c = m ? sim_machine_find(m, uid) : NULL;
    if (c && c->pid == pid) {
        c->pid = 0;
        c->exit_code = code;
    }
    return m ? 0 : HP_ENOMEM;
}

static int read_line(struct sim_ground *g, const char *text, size_t len)
{
    json_t *line = json_loadb(text, len, 0, NULL);
    const char *op = "";
    int rc = line && !json_unpack(line, "{s:s}", "op", &op) ? 0 : HP_ECORRUPT;
    if (rc == 0 && strcmp(op, "begin") == 0)
        rc = read_begin(g, line);
    else if (rc == 0 && strcmp(op, "end") == 0)
        rc = read_end(g, line);
    else if (rc == 0 && strcmp(op, "exit") == 0)
        rc = read_exit(g, line);
    else if (rc == 0 && strcmp(op, "boot") == 0)
        rc = cut_off(g);
    else
        rc = HP_ECORRUPT;
    json_decref(line);
    return rc;
}

/* Every whole line; a last one that a kill cut short never happened, and is cut away. */
static int read_all(struct sim_ground *g, const char *log, struct hp_error *e)
{
    FILE *f = fdopen(dup(g->fd), "r");
    if (!f)
        return hp_fail_errno(e, HP_EIO, errno, "runtime log %s", log);
    char *text = NULL;
    size_t size = 0;
    off_t good = 0;
    int rc = 0;
    for (ssize_t n; rc == 0 && (n = getline(&text, &size, f)) > 0 && text[n - 1] == '\n'; good += n) {
        rc = read_line(g, text, (size_t)n);
        g->lines += rc == 0;
    }
    free(text);
    fclose(f);
    if (rc)
        return hp_fail(e, rc, "runtime log %s, line %" PRIu64 ": %s", log, g->lines + 1, hp_strerror(rc));
    rc = cut_off(g);
    if (rc)
        return hp_fail(e, rc, "runtime log %s", log);
    return ftruncate(g->fd, good) ? hp_fail_errno(e, HP_EIO, errno, "runtime log %s", log) : 0;
}

/* ---- life ---- */

int sim_ground_open(const char *log, struct sim_ground **ret, struct hp_error *e)
{
    struct sim_ground *g = calloc(1, sizeof *g);
    if (!g)
        return hp_fail(e, HP_ENOMEM, "simulated machines");
    g->pid_last = 1000;
    hp_map_init(&g->machines, SIM_MACHINES_MAX, 1);
    g->fd = log ? open(log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    int rc = log && g->fd < 0 ? hp_fail_errno(e, HP_EIO, errno, "runtime log %s", log) : 0;
    if (!rc && log)
        rc = read_all(g, log, e);
    if (rc)
        sim_ground_close(g);
    else
        *ret = g;
    return rc;
}

void sim_ground_close(struct sim_ground *g)
{
    for (struct hp_map_node *n = hp_map_first(&g->machines); n; n = hp_map_next(n)) {
        struct sim_machine *m = n->value;
        while (m->containers)
            sim_machine_drop(m, m->containers);
        free(m->host);
        free(m);
    }
    hp_map_done(&g->machines);
    for (struct open_job *j; (j = g->open);) {
        g->open = j->next;
        open_job_free(j);
    }
    if (g->fd >= 0)
        close(g->fd);
    free(g);
}
