/* job.h — a job under way in a simulated runtime; and a host's journal, for the checks. */
#ifndef TESTS_SIM_JOB_H
#define TESTS_SIM_JOB_H

#include "core/journal.h"
#include "core/runtime.h"
#include "sim/sim.h"

struct sim_job {
    struct ha_job job;
    struct sim_job *next; /* under way on the host */
    int host;
    bool executed, dead, late, failing; /* dead: nobody waits for it; late: it hangs until its deadline */
    char uid[HA_UID_MAX + 1], container[256];
    Harpoon__V1__ContainerSpec *spec;
};

const struct ha_image *sim_host_journal(struct sim_world *w, int i);

#endif
