/* notify.h — what a service tells the manager that has started it, in the protocol of sd_notify(3), without libsystemd: that one is six libraries in every daemon's memory. */
#ifndef HP_IO_NOTIFY_H
#define HP_IO_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Sends `state` ("READY=1") as one datagram to $NOTIFY_SOCKET: an absolute path, or "@" and a name in the abstract name space. 0 also when that is not set: nobody asked.
 * HP_EINVAL: no such address; HP_EIO: not delivered. Any thread; waits while the receiver's queue is full, so that no word is lost. */
int hp_notify(const char *state, struct hp_error *e) HP_MUST_CHECK;

/* True when the manager wants to hear WATCHDOG=1 from this process within each `*ret_usec` microseconds (sd_watchdog_enabled(3)): WATCHDOG_USEC is a number above 0,
 * and WATCHDOG_PID is this process or not set. Otherwise `*ret_usec` stays as it was. */
bool hp_notify_watchdog(uint64_t *ret_usec);

#endif
