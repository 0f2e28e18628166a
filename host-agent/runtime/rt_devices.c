#include "rt_devices.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt_fs.h"

enum {
    SECTOR_BYTES = 512
}; /* of /proc/diskstats, whatever the device's own (kernel: Documentation/admin-guide/iostats.rst) */

bool ha_disk_line(const char *line, struct ha_disk *ret)
{
    unsigned long long read, written, busy;
    if (sscanf(line, " %*u %*u %31s %*u %*u %llu %*u %*u %*u %llu %*u %*u %llu", ret->name, &read, &written, &busy) !=
        4)
        return false;
    ret->read_bytes = read * SECTOR_BYTES;
    ret->write_bytes = written * SECTOR_BYTES;
    ret->busy_ms = busy;
    return true;
}

bool ha_link_line(const char *line, struct ha_link_counters *ret)
{
    unsigned long long rx, tx;
    if (sscanf(line, " %15[^: ]: %llu %*u %*u %*u %*u %*u %*u %*u %llu", ret->name, &rx, &tx) != 3)
        return false;
    ret->rx_bytes = rx;
    ret->tx_bytes = tx;
    return true;
}

int32_t ha_device_use(double passed, double full)
{
    if (passed <= 0 || full <= 0)
        return 0;
    return passed >= full ? 10000 : (int32_t)(passed * 10000 / full);
}

static bool is_hardware(const char *kind, const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/%s/%s/device", kind, name);
    return access(path, F_OK) == 0;
}

/* Bits per second; 0: not known. */
static double speed_of(const char *name)
{
    char path[96];
    HA_FREE char *text = NULL;
    size_t size;
    struct hp_error ignored = {0};
    snprintf(path, sizeof path, "/sys/class/net/%s/speed", name);
    if (ha_fs_read(AT_FDCWD, path, 64, &text, &size, &ignored))
        return 0;
    long megabits = strtol(text, NULL, 10);
    return megabits > 0 ? (double)megabits * 1e6 : 0;
}

static uint64_t since(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

static int64_t per_second(uint64_t bytes, uint64_t ns)
{
    return (int64_t)((double)bytes * 1e9 / (double)ns);
}

static const char *next_line(const char *p)
{
    p = strchr(p, '\n');
    return p ? p + 1 : NULL;
}

static void sample_disks(struct ha_devices *d, const char *text, uint64_t ns, Harpoon__V1__HostMetrics *h)
{
    struct ha_disk now[HA_DISKS_MAX];
    int count = 0;
    uint64_t read = 0, written = 0;
    for (const char *p = text; p && *p && count < HA_DISKS_MAX; p = next_line(p)) {
        struct ha_disk *x = &now[count];
        if (!ha_disk_line(p, x) || !is_hardware("block", x->name))
            continue;
        count++;
        for (int i = 0; i < d->disk_count && ns; i++) {
            const struct ha_disk *b = &d->disks[i];
            if (strcmp(b->name, x->name) != 0)
                continue;
            int32_t use = ha_device_use((double)since(x->busy_ms, b->busy_ms) * 1e6, (double)ns);
            h->io_use = use > h->io_use ? use : h->io_use;
            read += since(x->read_bytes, b->read_bytes);
            written += since(x->write_bytes, b->write_bytes);
        }
    }
    if (ns) {
        h->io_read_bps = per_second(read, ns);
        h->io_write_bps = per_second(written, ns);
    }
    memcpy(d->disks, now, (size_t)count * sizeof *now);
    d->disk_count = count;
}

static void sample_links(struct ha_devices *d, const char *text, uint64_t ns, Harpoon__V1__HostMetrics *h)
{
    struct ha_link_counters now[HA_LINKS_MAX];
    int count = 0;
    for (const char *p = text; p && *p && count < HA_LINKS_MAX; p = next_line(p)) {
        struct ha_link_counters *x = &now[count];
        if (!ha_link_line(p, x) || !is_hardware("class/net", x->name))
            continue;
        count++;
        double speed = speed_of(x->name);
        for (int i = 0; i < d->link_count && ns && speed > 0; i++) {
            const struct ha_link_counters *b = &d->links[i];
            if (strcmp(b->name, x->name) != 0)
                continue;
            uint64_t rx = since(x->rx_bytes, b->rx_bytes), tx = since(x->tx_bytes, b->tx_bytes);
            int32_t use = ha_device_use((double)(rx > tx ? rx : tx) * 8, speed * (double)ns / 1e9);
            h->network_use = use > h->network_use ? use : h->network_use;
        }
    }
    memcpy(d->links, now, (size_t)count * sizeof *now);
    d->link_count = count;
}

void ha_devices_sample(struct ha_devices *d, const char *diskstats, const char *net_dev, uint64_t ns,
                       Harpoon__V1__HostMetrics *h)
{
    h->io_use = h->network_use = -1;
    sample_disks(d, diskstats, ns, h);
    sample_links(d, net_dev, ns, h);
}
