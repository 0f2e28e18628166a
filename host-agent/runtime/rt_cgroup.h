/* rt_cgroup.h — cgroups of containers: where they are on v1, hybrid and v2 hosts, what is used, and limits changed in place. */
#ifndef HA_RT_CGROUP_H
#define HA_RT_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"

enum ha_cg_mode { HA_CG_V1, HA_CG_HYBRID, HA_CG_V2 };

enum ha_cg_controller {
    HA_CG_CPU,
    HA_CG_CPUACCT,
    HA_CG_MEMORY,
    HA_CG_PIDS,
    HA_CG_BLKIO,
    HA_CG_FREEZER,
    HA_CG_CONTROLLERS
};

/* What the host has. Read only after ha_cg_init. */
struct ha_cgroups {
    enum ha_cg_mode mode;
    char mount[HA_CG_CONTROLLERS][256]; /* "" when the host lacks the controller; on v2 the same for all */
    char unified[256];                  /* HYBRID: where the almost empty v2 hierarchy is mounted */
    char parent[256];                   /* below the mounts, begins with '/' */
    bool swap;                          /* memory+swap can be limited */
    unsigned dev_major, dev_minor;      /* of the data device; 0:0 when it cannot be throttled */
};

/* Limits as the kernel takes them. */
struct ha_cg_limits {
    int64_t cpu_quota_us; /* of each HA_CG_PERIOD_US */
    int64_t cpu_shares;   /* v1 */
    int64_t cpu_weight;   /* v2 */
    int64_t memory_bytes;
    int64_t pids_max;
    int64_t io_read_bps, io_write_bps, io_read_iops, io_write_iops; /* 0: none */
};
#define HA_CG_PERIOD_US 100000

/* What a container uses now. */
struct ha_cg_usage {
    int64_t cpu_ns;
    int64_t memory_bytes;       /* all of it */
    int64_t memory_working_set; /* without what the kernel can drop at once */
    int64_t pids;
    int64_t io_read_bytes, io_write_bytes;
    int64_t oom_kills;
};

/* Finds the hierarchies in `mountinfo` (the text of /proc/self/mountinfo). */
int ha_cg_detect(const char *mountinfo, struct ha_cgroups *cg, struct hp_error *e) HP_MUST_CHECK;
/* ha_cg_detect on this host, the parent and the device that holds `data_dir`. */
int ha_cg_init(struct ha_cgroups *cg, const char *parent, const char *data_dir, struct hp_error *e) HP_MUST_CHECK;
const char *ha_cg_mode_name(enum ha_cg_mode mode);

/* Zero fields of `r` become the documented defaults. */
struct ha_cg_limits ha_cg_limits_of(const Harpoon__V1__Resources *r);
/* HP_EUNSUPPORTED: limits of input and output are wanted, and the data directory is on no device that the kernel could hold to them. */
int ha_cg_check_io(const struct ha_cgroups *cg, const struct ha_cg_limits *want, struct hp_error *e) HP_MUST_CHECK;

/* -1 in fields that cannot be read. HP_ENOTFOUND when there is no such cgroup. */
int ha_cg_usage(const struct ha_cgroups *cg, const char *uid, struct ha_cg_usage *ret,
                struct hp_error *e) HP_MUST_CHECK;

/* Sets all limits on the running container's cgroups. HP_ECONFLICT, with the numbers and nothing changed, when memory or processes in use do not fit. What was
 * changed before another failure is changed back. */
int ha_cg_resize(const struct ha_cgroups *cg, const char *uid, const struct ha_cg_limits *want,
                 struct hp_error *e) HP_MUST_CHECK;

/* The limits in force. */
int ha_cg_limits_read(const struct ha_cgroups *cg, const char *uid, struct ha_cg_limits *ret,
                      struct hp_error *e) HP_MUST_CHECK;

/* Kills what is left in the container's cgroups and removes them. Nothing there: 0. */
int ha_cg_remove(const struct ha_cgroups *cg, const char *uid, struct hp_error *e) HP_MUST_CHECK;
/* Removes the parent when it is empty. */
void ha_cg_remove_parent(const struct ha_cgroups *cg);

#endif
