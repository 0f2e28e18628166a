/* rt_resize.c — changes a running container's limits in its cgroup files. Everything that can be refused is checked first; then files are written one by one, and when one fails, the
 * earlier ones get their old content back. Memory and memory+swap move together, in the order that keeps limit ≤ limit with swap at every moment. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rt_cgroup.h"
#include "rt_fs.h"

#define CHANGES_MAX 16
/* A smaller memory limit must leave a sixteenth of itself, and at least this, above what is in use. */
#define MARGIN_MIN (1 << 20)

struct change {
    char path[1024];
    char text[96]; /* new content */
    char old[96];  /* to go back; "" when unknown */
};

struct changes {
    const struct ha_cgroups *cg;
    const char *uid;
    struct change items[CHANGES_MAX];
    size_t count;
};

static struct change *add(struct changes *c, enum ha_cg_controller controller, const char *file)
{
    if (c->count == CHANGES_MAX || !c->cg->mount[controller][0])
        return NULL;
    struct change *ch = &c->items[c->count++];
    snprintf(ch->path, sizeof ch->path, "%s%s/%s/%s", c->cg->mount[controller], c->cg->parent, c->uid, file);
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    ch->old[0] = '\0';
    if (ha_fs_read(AT_FDCWD, ch->path, 4096, &text, &size, &ignored) == 0)
        snprintf(ch->old, sizeof ch->old, "%.*s", (int)strcspn(text, "\n"), text);
    return ch;
}

static void add_number(struct changes *c, enum ha_cg_controller controller, const char *file, int64_t value)
{
    struct change *ch = add(c, controller, file);
    if (!ch)
        return;
    if (value < 0 && c->cg->mode == HA_CG_V2)
        snprintf(ch->text, sizeof ch->text, "max");
    else
        snprintf(ch->text, sizeof ch->text, "%lld", (long long)value);
}

/* A file that holds a line for each device: the old content is this device's line. */
static void add_device(struct changes *c, const char *file, int64_t value)
{
    struct change *ch = add(c, HA_CG_BLKIO, file);
    if (!ch)
        return;
    snprintf(ch->text, sizeof ch->text, "%u:%u %lld", c->cg->dev_major, c->cg->dev_minor, (long long)value);
    if (!ch->old[0])
        snprintf(ch->old, sizeof ch->old, "%u:%u 0", c->cg->dev_major, c->cg->dev_minor);
}

static void io_number(char *text, size_t size, const char *key, int64_t value)
{
    size_t n = strlen(text);
    if (value > 0)
        snprintf(text + n, size - n, " %s=%lld", key, (long long)value);
    else
        snprintf(text + n, size - n, " %s=max", key);
}

static void gather_io(struct changes *c, const struct ha_cg_limits *want)
{
    if (!c->cg->dev_major)
        return;
    if (c->cg->mode != HA_CG_V2) {
        add_device(c, "blkio.throttle.read_bps_device", want->io_read_bps);
        add_device(c, "blkio.throttle.write_bps_device", want->io_write_bps);
        add_device(c, "blkio.throttle.read_iops_device", want->io_read_iops);
        add_device(c, "blkio.throttle.write_iops_device", want->io_write_iops);
        return;
    }
    struct change *ch = add(c, HA_CG_BLKIO, "io.max");
    if (!ch)
        return;
    snprintf(ch->text, sizeof ch->text, "%u:%u", c->cg->dev_major, c->cg->dev_minor);
    io_number(ch->text, sizeof ch->text, "rbps", want->io_read_bps);
    io_number(ch->text, sizeof ch->text, "wbps", want->io_write_bps);
    io_number(ch->text, sizeof ch->text, "riops", want->io_read_iops);
    io_number(ch->text, sizeof ch->text, "wiops", want->io_write_iops);
    if (!ch->old[0])
        snprintf(ch->old, sizeof ch->old, "%u:%u rbps=max wbps=max riops=max wiops=max", c->cg->dev_major,
                 c->cg->dev_minor);
}

static void gather_memory(struct changes *c, const struct ha_cg_limits *now, const struct ha_cg_limits *want)
{
    if (c->cg->mode == HA_CG_V2) {
        add_number(c, HA_CG_MEMORY, "memory.max", want->memory_bytes);
        return; /* memory.swap.max was 0 from the start and stays so */
    }
    bool grows = want->memory_bytes < 0 || want->memory_bytes > now->memory_bytes;
    if (c->cg->swap && grows)
        add_number(c, HA_CG_MEMORY, "memory.memsw.limit_in_bytes", want->memory_bytes);
    add_number(c, HA_CG_MEMORY, "memory.limit_in_bytes", want->memory_bytes);
    if (c->cg->swap && !grows)
        add_number(c, HA_CG_MEMORY, "memory.memsw.limit_in_bytes", want->memory_bytes);
}

static void gather_cpu(struct changes *c, const struct ha_cg_limits *want)
{
    if (c->cg->mode != HA_CG_V2) {
        add_number(c, HA_CG_CPU, "cpu.cfs_quota_us", want->cpu_quota_us);
        add_number(c, HA_CG_CPU, "cpu.shares", want->cpu_shares);
        return;
    }
    struct change *ch = add(c, HA_CG_CPU, "cpu.max");
    if (ch && want->cpu_quota_us > 0)
        snprintf(ch->text, sizeof ch->text, "%lld %d", (long long)want->cpu_quota_us, HA_CG_PERIOD_US);
    else if (ch)
        snprintf(ch->text, sizeof ch->text, "max %d", HA_CG_PERIOD_US);
    add_number(c, HA_CG_CPU, "cpu.weight", want->cpu_weight);
}

/* On v2, going below what is in use kills: memory.high makes the kernel take back what it can, before the use is looked at. */
static void squeeze(const struct ha_cgroups *cg, const char *uid, int64_t bytes)
{
    char path[1024], text[32];
    snprintf(path, sizeof path, "%s%s/%s/memory.high", cg->mount[HA_CG_MEMORY], cg->parent, uid);
    if (bytes > 0)
        snprintf(text, sizeof text, "%lld", (long long)bytes);
    else
        snprintf(text, sizeof text, "max");
    (void)ha_fs_poke(path, text);
}

static int check(const struct ha_cgroups *cg, const char *uid, const struct ha_cg_limits *now,
                 const struct ha_cg_limits *want, struct hp_error *e)
{
    struct ha_cg_usage use;
    int rc = ha_cg_usage(cg, uid, &use, e);
    if (rc)
        return rc;
    int64_t margin = want->memory_bytes / 16 > MARGIN_MIN ? want->memory_bytes / 16 : MARGIN_MIN;
    bool shrinks = want->memory_bytes > 0 && (now->memory_bytes < 0 || want->memory_bytes < now->memory_bytes);
    if (shrinks && use.memory_working_set > want->memory_bytes - margin)
        return hp_fail(e, HP_ECONFLICT,
                       "memory limit of %lld bytes is below what is in use: %lld bytes and a margin of %lld",
                       (long long)want->memory_bytes, (long long)use.memory_working_set, (long long)margin);
    if (want->pids_max < use.pids)
        return hp_fail(e, HP_ECONFLICT, "limit of %lld processes is below what is in use: %lld",
                       (long long)want->pids_max, (long long)use.pids);
    return 0;
}

static int apply(struct changes *c, struct hp_error *e)
{
    for (size_t i = 0; i < c->count; i++) {
        int rc = ha_fs_poke(c->items[i].path, c->items[i].text);
        if (rc == 0)
            continue;
        const char *file = strrchr(c->items[i].path, '/') + 1;
        for (size_t k = i; k-- > 0;)
            if (c->items[k].old[0])
                (void)ha_fs_poke(c->items[k].path, c->items[k].old);
        if (rc == -EBUSY && strncmp(file, "memory", 6) == 0)
            return hp_fail(e, HP_ECONFLICT,
                           "memory limit of %s bytes is below what is in use, and the kernel cannot take enough back",
                           c->items[i].text);
        return hp_fail_errno(e, HP_EIO, -rc, "write '%s' to %s", c->items[i].text, c->items[i].path);
    }
    return 0;
}

int ha_cg_resize(const struct ha_cgroups *cg, const char *uid, const struct ha_cg_limits *want, struct hp_error *e)
{
    struct ha_cg_limits now;
    int rc = ha_cg_limits_read(cg, uid, &now, e);
    if (rc)
        return rc;
    bool v2_shrinks = cg->mode == HA_CG_V2 && want->memory_bytes > 0 &&
                      (now.memory_bytes < 0 || want->memory_bytes < now.memory_bytes);
    rc = ha_cg_check_io(cg, want, e);
    if (rc == 0)
        rc = check(cg, uid, &now, want, e);
    if (rc == 0 && v2_shrinks) {
        squeeze(cg, uid, want->memory_bytes);
        rc = check(cg, uid, &now, want, e);
    }
    HA_FREE struct changes *c = calloc(1, sizeof *c);
    if (!c)
        rc = hp_fail(e, HP_ENOMEM, "resize %s", uid);
    if (rc == 0) {
        c->cg = cg;
        c->uid = uid;
        gather_memory(c, &now, want);
        add_number(c, HA_CG_PIDS, "pids.max", want->pids_max);
        gather_cpu(c, want);
        gather_io(c, want);
        rc = apply(c, e);
    }
    if (v2_shrinks)
        squeeze(cg, uid, -1);
    return rc;
}
