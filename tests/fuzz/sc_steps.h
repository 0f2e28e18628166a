/* sc_steps.h — steps of a fuzz input that happen to a scheduler's core with its record in memory (lib/sc_world.h). */
#ifndef HP_TESTS_FUZZ_SC_STEPS_H
#define HP_TESTS_FUZZ_SC_STEPS_H

#include "fuzz/script.h"
#include "lib/sc_world.h"

/* Takes the message over. 0, or the core's refusal (HP_EINVAL: poison). */
int sc_steps_request(struct scw *w, Harpoon__Internal__V1__Request *message);
/* In place of a uid, "$0" to "$9" stand for those of the record's containers. 0 or HP_EINVAL. */
int sc_steps_report(struct scw *w, Harpoon__Internal__V1__Report *message);
void sc_steps_metrics(struct scw *w, Harpoon__Internal__V1__MetricsBatch *message);
/* Time, commits that take long, a stream that is silent, a takeover, a router that is gone. */
void sc_steps_control(struct scw *w, const struct fuzz_step *s);
/* Lets everything come to rest, then loads what was recorded into a new reign: it must be the same. */
void sc_steps_end(struct scw *w);

#endif
