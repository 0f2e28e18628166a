/* rt_metrics.h — load of the host and of its containers: /proc, pressure stall information and cgroups of any version. */
#ifndef HA_SHELL_RT_METRICS_H
#define HA_SHELL_RT_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "harpoon/internal/v1/agent.pb-c.h"

struct ha_cgroups;
struct ha_metrics; /* remembers the sample before, for rates; used by one thread at a time */

int ha_metrics_new(const struct ha_cgroups *cg, const char *data_dir, struct ha_metrics **ret,
                   struct hp_error *e) HP_MUST_CHECK;
void ha_metrics_free(struct ha_metrics *m);

/* Blocks for some file reads. `now_ns`: hp_now_ns. A container whose cgroup is gone is left out. The result is freed with
 * harpoon__internal__v1__agent_metrics__free_unpacked. HP_ENOMEM, HP_EIO. */
int ha_metrics_sample(struct ha_metrics *m, char *const *uids, size_t count, uint64_t now_ns,
                      Harpoon__Internal__V1__AgentMetrics **ret, struct hp_error *e) HP_MUST_CHECK;

/* Parsers of the kernel's texts, for tests. */
/* avg10 of a pressure file's "some" or "full" line in hundredths of a percent; -1 none. */
int32_t ha_psi_avg10(const char *text, const char *line);
/* Busy and total ticks of /proc/stat's first line. */
int ha_cpu_ticks(const char *text, uint64_t *ret_busy, uint64_t *ret_total) HP_MUST_CHECK;
/* Received and sent bytes of all interfaces in /proc/net/dev but lo. */
void ha_net_bytes(const char *text, uint64_t *ret_rx, uint64_t *ret_tx);
/* A value in bytes of /proc/meminfo; -1 none. */
int64_t ha_meminfo(const char *text, const char *key);

#endif
