/* rt_spec.h — the OCI runtime configuration (config.json) of a container, built field by field from an allow list: nothing from an image or a request reaches the runtime unseen. */
#ifndef HA_RT_SPEC_H
#define HA_RT_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/error.h"
#include "harpoon/v1/container.pb-c.h"
#include "rt_cgroup.h"
#include "rt_image.h"

#define HA_GROUPS_MAX 32
#define HA_VOLUMES_MAX 16

/* Who the process is. */
struct ha_user {
    uint32_t uid, gid;
    uint32_t groups[HA_GROUPS_MAX];
    size_t group_count;
    char home[256];
};

/* Resolves "uid[:gid]", "name[:group]" or "" (root) with /etc/passwd and /etc/group of the root file system. HP_EINVAL for an unknown name. */
int ha_user_resolve(int rootfs_fd, const char *text, struct ha_user *ret, struct hp_error *e) HP_MUST_CHECK;

/* What config.json is made from. Everything is borrowed. */
struct ha_spec_input {
    const char *uid;
    const char *container; /* full resource name */
    const Harpoon__V1__ContainerSpec *spec;
    const struct ha_image *image;
    const struct ha_user *user;
    const struct ha_cgroups *cgroups;
    const char *etc_dir;            /* has hostname, hosts, resolv.conf */
    const char *netns;              /* path of the network namespace; NULL: a new one with loopback only */
    const char *const *volume_dirs; /* one for each of spec->volumes */
    uint64_t nofile_max;            /* what this process may give */
    bool cgroup_namespace;          /* the kernel has them */
    bool net_sysctls;               /* ... and ping and low ports for everyone, per network namespace */
};

/* HP_EINVAL when the request or the image is impossible, naming the field. */
int ha_spec_build(const struct ha_spec_input *in, json_t **ret, struct hp_error *e) HP_MUST_CHECK;

/* Last segment of a resource name. */
const char *ha_short_name(const char *container);

/* The seccomp object; NULL when this machine's architecture has none. */
json_t *ha_seccomp_profile(void);

#endif
