/* rt_devices.h — how busy the host's block devices and network interfaces are. Only what is hardware counts (it has a `device` in /sys): what is on top of it would count twice. */
#ifndef HA_RT_DEVICES_H
#define HA_RT_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "harpoon/v1/host.pb-c.h"

enum { HA_DISKS_MAX = 64, HA_LINKS_MAX = 16 };

/* Counters since boot. */
struct ha_disk {
    char name[32];
    uint64_t read_bytes, write_bytes, busy_ms;
};
struct ha_link_counters {
    char name[16];
    uint64_t rx_bytes, tx_bytes;
};

/* The sample before. Zero-initialise. */
struct ha_devices {
    struct ha_disk disks[HA_DISKS_MAX];
    struct ha_link_counters links[HA_LINKS_MAX];
    int disk_count, link_count;
};

/* Fills io_read_bps, io_write_bps, io_use and network_use from what has passed since the sample before, `ns` ago; the uses are -1 when they are not known. Reads /sys. */
void ha_devices_sample(struct ha_devices *d, const char *diskstats, const char *net_dev, uint64_t ns,
                       Harpoon__V1__HostMetrics *h);

/* For tests: one line of /proc/diskstats, and of /proc/net/dev. False: it is none. */
bool ha_disk_line(const char *line, struct ha_disk *ret);
bool ha_link_line(const char *line, struct ha_link_counters *ret);
/* Hundredths of a percent: `passed` of `ns` of full use; at most 10000. */
int32_t ha_device_use(double passed, double full);

#endif
