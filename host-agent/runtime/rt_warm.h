/* rt_warm.h — takes the kernel's slowest wait out of a launch. Putting a process into a cgroup takes a lock over all forks; the first to take it waits for an RCU grace period (8 to 20 ms),
 * who comes within the next ones does not. A thread takes it as soon as a launch is due, by putting the agent where it is already, and again every few milliseconds until the container's
 * process is in place: the wait passes beside image, mounts and conmon. Where the kernel has no such wait (cgroups mounted with favordynmods), it costs a few writes. */
#ifndef HA_RUNTIME_RT_WARM_H
#define HA_RUNTIME_RT_WARM_H

#include <stddef.h>

#include "base/error.h"
#include "rt_cgroup.h"

struct ha_warm;

int ha_warm_new(const struct ha_cgroups *cg, struct ha_warm **ret, struct hp_error *e) HP_MUST_CHECK;
/* NULL is fine. No launch is under way. */
void ha_warm_free(struct ha_warm *w);
/* A launch will soon begin: once. Any thread. */
void ha_warm_hint(struct ha_warm *w);
/* From a launch's begin to its end; many at once. Any thread. */
void ha_warm_begin(struct ha_warm *w);
void ha_warm_end(struct ha_warm *w);

/* The file that lists the processes of the reader's own cgroup, from the text of /proc/self/cgroup. HP_ENOTFOUND: it lies outside of what is mounted here. */
int ha_warm_path(const struct ha_cgroups *cg, const char *text, char *buf, size_t size,
                 struct hp_error *e) HP_MUST_CHECK;

#endif
