/* rt_cni_lock.h — one agent, and nothing that an earlier one had begun, changes the host's networks. */
#ifndef HA_RT_CNI_LOCK_H
#define HA_RT_CNI_LOCK_H

#include "base/error.h"

/* Locks DATA_DIR/plugins.lock. Every plugin inherits *ret_fd, and so does what it starts: until they have ended the lock is theirs. Those of an agent that died are given a
 * second for it, then killed, and addresses that they were about to write down are free again. Takes at most 11 s. HP_EIO. */
int ha_cni_lock(const char *data_dir, int *ret_fd, struct hp_error *e) HP_MUST_CHECK;

#endif
