/* recording.h — what was recorded of a region: JSON lines as the command line prints them. */
#ifndef SC_REPLAY_RECORDING_H
#define SC_REPLAY_RECORDING_H

#include <stddef.h>
#include <stdio.h>

#include "base/error.h"
#include "harpoon/v1/event.pb-c.h"

enum { SC_RECORDING_LINE_MAX = 4 << 20, SC_RECORDING_MAX = 10 * 1000 * 1000 };

/* Hosts and containers are what there was at first; events what happened then. Just one is set. */
struct sc_recorded {
    Harpoon__V1__Host *host;
    Harpoon__V1__Container *container;
    Harpoon__V1__Event *event;
};

struct sc_recording {
    struct sc_recorded *items; /* in the order of the file */
    size_t count, room;
};

/* HP_EINVAL names the line. *ret is to be freed in any case. */
int sc_recording_read(FILE *f, struct sc_recording *ret, struct hp_error *e) HP_MUST_CHECK;
void sc_recording_done(struct sc_recording *x);

#endif
