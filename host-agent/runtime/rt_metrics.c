#include "shell/rt_metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/map.h"
#include "rt_cgroup.h"
#include "rt_devices.h"
#include "rt_fs.h"

#define CONTAINERS_MAX 65536

/* What a container's counters were. */
struct before {
    int64_t cpu_ns, read_bytes, write_bytes;
    uint64_t at_ns;
    uint64_t round; /* sample in which it was seen last */
};

struct ha_metrics {
    const struct ha_cgroups *cg;
    char data_dir[256];
    int64_t cores;
    struct hp_map containers; /* uid → struct before */
    uint64_t round, at_ns;
    uint64_t busy, total, rx, tx;
    struct ha_devices devices;
};

int32_t ha_psi_avg10(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        double avg;
        if (strncmp(p, line, n) == 0 && p[n] == ' ' && sscanf(p + n, " avg10=%lf", &avg) == 1)
            return (int32_t)(avg * 100 + 0.5);
    }
    return -1;
}

int ha_cpu_ticks(const char *text, uint64_t *ret_busy, uint64_t *ret_total)
{
    unsigned long long v[8] = {0};
    if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6,
               v + 7) < 4)
        return HP_EPROTO;
    uint64_t total = 0;
    for (int i = 0; i < 8; i++)
        total += v[i];
    *ret_total = total;
    *ret_busy = total - v[3] - v[4]; /* idle, iowait */
    return 0;
}

void ha_net_bytes(const char *text, uint64_t *ret_rx, uint64_t *ret_tx)
{
    *ret_rx = *ret_tx = 0;
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        char name[64];
        unsigned long long rx, tx;
        if (sscanf(p, " %63[^: ]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", name, &rx, &tx) != 3 ||
            strcmp(name, "lo") == 0)
            continue;
        *ret_rx += rx;
        *ret_tx += tx;
    }
}

int64_t ha_meminfo(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
        if (strncmp(p, key, n) == 0 && p[n] == ':')
            return strtoll(p + n + 1, NULL, 10) * 1024;
    return -1;
}

int ha_metrics_new(const struct ha_cgroups *cg, const char *data_dir, struct ha_metrics **ret, struct hp_error *e)
{
    struct ha_metrics *m = calloc(1, sizeof *m);
    if (!m)
        return hp_fail(e, HP_ENOMEM, "metrics");
    m->cg = cg;
    m->cores = sysconf(_SC_NPROCESSORS_ONLN);
    snprintf(m->data_dir, sizeof m->data_dir, "%s", data_dir);
    hp_map_init(&m->containers, CONTAINERS_MAX, 0);
    *ret = m;
    return 0;
}

void ha_metrics_free(struct ha_metrics *m)
{
    if (!m)
        return;
    for (struct hp_map_node *n = hp_map_first(&m->containers); n; n = hp_map_next(n))
        free(n->value);
    hp_map_done(&m->containers);
    free(m);
}

static char *text_of(const char *path)
{
    char *text;
    size_t size;
    struct hp_error ignored = {0};
    return ha_fs_read(AT_FDCWD, path, 1 << 20, &text, &size, &ignored) ? NULL : text;
}

static int64_t rate(int64_t now, int64_t then, uint64_t ns)
{
    return now < then || ns == 0 ? 0 : (int64_t)((double)(now - then) * 1e9 / (double)ns);
}

static void pressure(const char *path, int32_t *ret_some, int32_t *ret_full)
{
    HA_FREE char *text = text_of(path);
    *ret_some = ha_psi_avg10(text, "some");
    if (ret_full)
        *ret_full = ha_psi_avg10(text, "full");
}

static void host_sample(struct ha_metrics *m, uint64_t now_ns, Harpoon__V1__HostMetrics *h)
{
    HA_FREE char *stat = text_of("/proc/stat");
    HA_FREE char *meminfo = text_of("/proc/meminfo");
    HA_FREE char *net = text_of("/proc/net/dev");
    HA_FREE char *disks = text_of("/proc/diskstats");
    uint64_t busy = 0, total = 0, rx, tx, ns = now_ns - m->at_ns;
    struct statvfs fs;
    if (stat && ha_cpu_ticks(stat, &busy, &total) == 0 && m->round > 1 && total > m->total && busy >= m->busy)
        h->cpu_millis_used = (int64_t)((busy - m->busy) * (uint64_t)m->cores * 1000 / (total - m->total));
    ha_net_bytes(net, &rx, &tx);
    if (m->round > 1) {
        h->network_rx_bps = rate((int64_t)rx, (int64_t)m->rx, ns);
        h->network_tx_bps = rate((int64_t)tx, (int64_t)m->tx, ns);
    }
    ha_devices_sample(&m->devices, disks, net, m->round > 1 ? ns : 0, h);
    m->busy = busy;
    m->total = total;
    m->rx = rx;
    m->tx = tx;
    int64_t all = ha_meminfo(meminfo, "MemTotal"), free_bytes = ha_meminfo(meminfo, "MemAvailable");
    h->memory_bytes_used = all > 0 && free_bytes >= 0 ? all - free_bytes : 0;
    if (statvfs(m->data_dir, &fs) == 0)
        h->disk_bytes_used = (int64_t)((fs.f_blocks - fs.f_bfree) * fs.f_frsize);
    pressure("/proc/pressure/cpu", &h->psi_cpu_some, NULL);
    pressure("/proc/pressure/memory", &h->psi_memory_some, &h->psi_memory_full);
    pressure("/proc/pressure/io", &h->psi_io_some, &h->psi_io_full);
}

/* NULL when it has no cgroup, or there is no memory. */
static Harpoon__Internal__V1__ContainerMetrics *container_sample(struct ha_metrics *m, const char *uid, uint64_t now_ns)
{
    struct ha_cg_usage u;
    struct hp_error ignored = {0};
    if (ha_cg_usage(m->cg, uid, &u, &ignored))
        return NULL;
    struct before *b = hp_map_get(&m->containers, uid);
    bool first = !b;
    if (first) {
        b = calloc(1, sizeof *b);
        if (!b || hp_map_put(&m->containers, uid, b, NULL)) {
            free(b);
            return NULL;
        }
    }
    Harpoon__Internal__V1__ContainerMetrics *c = malloc(sizeof *c);
    char *name = strdup(uid);
    if (!c || !name) {
        free(c);
        free(name);
        return NULL;
    }
    harpoon__internal__v1__container_metrics__init(c);
    c->uid = name;
    c->memory_bytes_used = u.memory_working_set > 0 ? u.memory_working_set : 0;
    c->pids = u.pids > 0 ? (int32_t)u.pids : 0;
    if (!first) {
        uint64_t ns = now_ns - b->at_ns;
        c->cpu_millis_used = rate(u.cpu_ns, b->cpu_ns, ns) / 1000000;
        c->io_read_bps = rate(u.io_read_bytes, b->read_bytes, ns);
        c->io_write_bps = rate(u.io_write_bytes, b->write_bytes, ns);
    }
    *b = (struct before){u.cpu_ns, u.io_read_bytes, u.io_write_bytes, now_ns, m->round};
    return c;
}

static void forget_gone(struct ha_metrics *m)
{
    struct hp_map_node *next;
    for (struct hp_map_node *n = hp_map_first(&m->containers); n; n = next) {
        next = hp_map_next(n);
        struct before *b = n->value;
        if (b->round == m->round)
            continue;
        (void)hp_map_remove(&m->containers, n->key);
        free(b);
    }
}

int ha_metrics_sample(struct ha_metrics *m, char *const *uids, size_t count, uint64_t now_ns,
                      Harpoon__Internal__V1__AgentMetrics **ret, struct hp_error *e)
{
    Harpoon__Internal__V1__AgentMetrics *a = malloc(sizeof *a);
    Harpoon__V1__HostMetrics *h = malloc(sizeof *h);
    Harpoon__Internal__V1__ContainerMetrics **list = calloc(count + 1, sizeof *list);
    if (!a || !h || !list) {
        free(a);
        free(h);
        free(list);
        return hp_fail(e, HP_ENOMEM, "metrics");
    }
    harpoon__internal__v1__agent_metrics__init(a);
    harpoon__v1__host_metrics__init(h);
    m->round++;
    host_sample(m, now_ns, h);
    for (size_t i = 0; i < count; i++) {
        Harpoon__Internal__V1__ContainerMetrics *c = container_sample(m, uids[i], now_ns);
        if (c)
            list[a->n_containers++] = c;
    }
    forget_gone(m);
    m->at_ns = now_ns;
    h->containers_running = (int32_t)a->n_containers;
    a->host = h;
    a->containers = list;
    *ret = a;
    return 0;
}
