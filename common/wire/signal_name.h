/* signal_name.h — names of signals: one list, for the gateway that accepts a stop signal and the agent that sends it. */
#ifndef HP_WIRE_SIGNAL_NAME_H
#define HP_WIRE_SIGNAL_NAME_H

#include "base/error.h"

/* Number of "SIGTERM", "TERM", "15" or SIGRTMIN+n; "" gives SIGTERM. HP_EINVAL. */
int hp_signal_number(const char *text, int *ret, struct hp_error *e) HP_MUST_CHECK;

#endif
