/* rt_qdisc.h — takes the queueing disciplines off an interface (rtnetlink(7), tc(8)): what the bandwidth plugin has put there, which it can neither change nor take away. */
#ifndef HA_RT_QDISC_H
#define HA_RT_QDISC_H

#include "base/error.h"

/* Its root and its ingress one, where it has them. HP_ENOTFOUND: there is no such interface. Any thread. */
int ha_qdisc_clear(const char *interface, struct hp_error *e) HP_MUST_CHECK;

#endif
