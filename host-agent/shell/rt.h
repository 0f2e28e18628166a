/* rt.h — the real container runtime behind core/runtime.h: images, OCI runtime under conmon, cgroups, CNI networks. Everything that blocks runs on its own threads. */
#ifndef HA_SHELL_RT_H
#define HA_SHELL_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uv.h>

#include "base/error.h"
#include "core/runtime.h"
#include "harpoon/internal/v1/agent.pb-c.h"
#include "shell/storage_class.h"
#include "wire/storage.h"

/* Addresses that containers get on a network that is not this host's alone. NULL or "" for none. */
struct ha_rt_range {
    const char *subnet;    /* IPv4 CIDR */
    const char *addresses; /* "FIRST-LAST": those that are this host's to give; none: all of the subnet */
    const char *gateway;   /* of the default route */
};

/* What containers can be attached to, beside NONE. */
struct ha_rt_network {
    bool no_bridge;
    const char *macvlan; /* parent interface; NULL or "": not offered */
    struct ha_rt_range macvlan_range;
    const char *const *sriov;       /* interfaces that are handed out whole, NULL-terminated; may be NULL */
    struct ha_rt_range sriov_range; /* without a subnet: containers bring their own */
    const char *overlay;            /* path of a CNI network configuration list; NULL or "": not offered */
};

/* Copied by ha_rt_new, but for the strings of insecure_registries and of network.sriov, which stay the caller's. Two agents on one machine need different directories, bridges, subnets and cgroup parents. */
struct ha_rt_options {
    const char *state_dir;     /* absolute; kept across reboots; on a file system that overlayfs takes as upper layer */
    const char *run_dir;       /* absolute; best on a tmpfs */
    const char *bridge;        /* interface name, such as "harpoon0" */
    const char *subnet;        /* IPv4 CIDR */
    const char *runtime;       /* NULL or "auto": crun, else runc; "crun", "runc", or a path */
    const char *cgroup_parent; /* such as "/harpoon" */
    const char *const *insecure_registries; /* host:port, NULL-terminated; may be NULL */
    const char *cni_dir;                    /* NULL: /usr/lib/cni */
    const char *image_policy; /* policy file of skopeo; NULL: the system's, and any image when it has none */
    struct ha_rt_network network;
    bool masquerade;         /* containers reach other networks under the host's address */
    int64_t log_bytes_max;   /* of one container; 0: 16 MiB */
    int64_t image_age_s;     /* unused images are removed when older; 0: a day */
    int64_t image_bytes_max; /* ... and, oldest first, when the layers exceed this; 0: no limit */
    const struct ha_storage_class *classes;
    size_t class_count; /* at most HP_STORAGE_CLASSES_MAX */
};

/* Whether the options' networks make sense; what the host has is not looked at. */
int ha_rt_check_networks(const struct ha_rt_options *options, struct hp_error *e) HP_MUST_CHECK;

/* What does not change while the agent runs. Strings are owned by the runtime. */
struct ha_rt_facts {
    char runtime[64];     /* "crun 1.8.1" */
    char cgroup_mode[16]; /* "v1", "hybrid", "v2" */
    char boot_id[40];
    char kernel[128];
    int64_t cpu_millis, memory_bytes, disk_bytes;
    int64_t network_bps;    /* of the fastest card; 0: not known */
    unsigned network_modes; /* offered: bits 1 << NetworkMode */
    int functions;          /* interfaces for mode SRIOV that are there, or that a container has */
};

struct ha_rt;

/* Checks the host, makes directories and namespaces, and throws away what a crash left unfinished. Blocks for some milliseconds. HP_EINVAL, HP_EUNSUPPORTED, HP_ENOTFOUND, HP_EIO.
 * The loop must ignore SIGPIPE. */
int ha_rt_new(uv_loop_t *loop, const struct ha_rt_options *options, struct ha_rt **ret,
              struct hp_error *e) HP_MUST_CHECK;
/* The functions for the core. `exited_cb` and `user` are the owner's to set. */
struct ha_runtime *ha_rt_runtime(struct ha_rt *rt);
/* Ends what is under way (jobs call back with HP_ECANCELED or their result), leaves containers running, frees, then calls closed_cb. No submit may follow. */
void ha_rt_close(struct ha_rt *rt, void (*closed_cb)(void *user), void *user);

const struct ha_rt_facts *ha_rt_facts(const struct ha_rt *rt);

/* Bytes of each storage class, in the order of the options; -1: its directory cannot be read now. */
void ha_rt_storage(const struct ha_rt *rt, int64_t ret[HP_STORAGE_CLASSES_MAX]);
/* Whether the volumes that a new container asks for in storage classes can be made: HP_ENOTFOUND, HP_ELIMIT, or HP_EINVAL, with the reason. */
int ha_rt_storage_check(const struct ha_rt *rt, const char *container, const Harpoon__V1__ContainerSpec *spec,
                        struct hp_error *e) HP_MUST_CHECK;

/* One container found on this host, complete or not. */
struct ha_rt_item {
    char uid[64];
    char container[256]; /* "" unknown */
    struct ha_rt_state state;
};
/* Everything that is ours on this host: in the state and run directories, with the OCI runtime, pinned network namespaces. Blocks; meant for the start. The caller frees *ret. */
int ha_rt_list(struct ha_rt *rt, struct ha_rt_item **ret, size_t *ret_count, struct hp_error *e) HP_MUST_CHECK;

/* Measures the host and the running containers. sample_cb on the loop thread, exactly once, later; the message is the receiver's (free_unpacked) or NULL when it could not be taken or
 * another one is under way. Rates are averages since the sample before; the first has none. */
void ha_rt_sample(struct ha_rt *rt, void (*sample_cb)(void *user, Harpoon__Internal__V1__AgentMetrics *metrics),
                  void *user);

/* Digests of the images here, at most `max`; returns how many. Blocks for a directory listing. */
size_t ha_rt_images(struct ha_rt *rt, char (*ret)[72], size_t max);
/* Removes unused images on a thread of the pool, as is done after a REMOVE, at most once a minute; with age_s < 0 by the options, 0: all that no container has. done_cb may be NULL. */
void ha_rt_collect_images(struct ha_rt *rt, int64_t age_s, void (*done_cb)(void *user, int removed), void *user);

#endif
