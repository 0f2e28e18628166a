/* replay.h — a recording run again through a region's core, by other weights: where everything would have gone. Time stands still meanwhile: nothing falls silent, nothing expires; hosts
 * do what they are told at once. */
#ifndef SC_REPLAY_REPLAY_H
#define SC_REPLAY_REPLAY_H

#include "core/region.h"
#include "replay/recording.h"

struct sc_replayed {
    int creates, placed, refused, waiting; /* asked for; with a host at once; by a check; without a host in the end */
    int with_image;                        /* placed where the image was */
    int deletes, resizes, resizes_refused;
    int hosts, hosts_empty; /* in service in the end; of them without a container */
    double
        imbalance;  /* in the end: standard deviation over them of the share, in percent, of what is claimed most of */
    double fullest; /* the greatest of these shares */
    int primaries_most, primaries_least; /* on one of them */
    char (*places)[64];                  /* by create: its first host; "" none. Heap */
};

/* HP_ECORRUPT, HP_EINVAL: what was recorded does not fit together. */
int sc_replay_run(const struct sc_recording *x, const struct sc_region_config *config, struct sc_replayed *ret,
                  struct hp_error *e) HP_MUST_CHECK;
/* `harpoon-scheduler replay FILE …`; the exit code. */
int sc_replay_main(int argc, char **argv);

#endif
