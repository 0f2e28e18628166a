/* Bodies of requests.R, reports.R and metrics.R, from anybody who can write there, to the scheduler's core.
 *
 * Asserted: what cannot be handled is refused with a reason, by HP_EINVAL (dead-lettered) and nothing else; after each step the core's own check holds (claims, lists, stages); the record gets
 * gapless sequences and never changes an ended operation (sc_world.c); a new reign that loads the record has the same hosts, containers and operations. */
#include "fuzz/sc_steps.h"
#include "wire/codec.h"

enum { REQUEST, REPORT, METRICS, CONTROL };

const struct fuzz_kind fuzz_kinds[] = {
    [REQUEST] = {"request", &harpoon__internal__v1__request__descriptor},
    [REPORT] = {"report", &harpoon__internal__v1__report__descriptor},
    [METRICS] = {"metrics", &harpoon__internal__v1__metrics_batch__descriptor},
    [CONTROL] = {"control", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {"r1",
                                  "h1",
                                  "h2",
                                  "er1",
                                  "er2",
                                  "p",
                                  "z1",
                                  "$0",
                                  "$1",
                                  "$2",
                                  "c1",
                                  "c2",
                                  "1",
                                  "2",
                                  "projects/p/regions/r1",
                                  "projects/p/regions/r1/containers/c1",
                                  "projects/p/regions/r1/containers/c2",
                                  "regions/r1/hosts/h1",
                                  "regions/r1/hosts/h2",
                                  "00000000000000000000000000000001",
                                  "00000000000000000000000000000002",
                                  "00000000000000000000000000000003",
                                  "projects/p/regions/r1/operations/00000000000000000000000000000001",
                                  "projects/p/regions/r1/operations/00000000000000000000000000000002",
                                  "projects/-/regions/r1/operations/00000000000000000000000000000003",
                                  "exited",
                                  "no_session",
                                  "connection_lost",
                                  NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 2 << 20,
                                                   .memory_max = 32 << 20}; /* as in shell/flow.c */
    struct fuzz_step s;
    struct scw *w = scw_new(NULL);
    w->mute_trace = true;
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        ProtobufCMessage *m = NULL;
        struct hp_error e = {0};
        if (fuzz_kinds[s.kind].type && hp_unpack(fuzz_kinds[s.kind].type, s.data, s.len, &limits, &m, &e))
            continue;
        switch (s.kind) {
        case REQUEST:
            (void)sc_steps_request(w, (void *)m);
            break;
        case REPORT:
            (void)sc_steps_report(w, (void *)m);
            hp_unpacked_free(m);
            break;
        case METRICS:
            sc_steps_metrics(w, (void *)m);
            hp_unpacked_free(m);
            break;
        default:
            sc_steps_control(w, &s);
        }
    }
    sc_steps_end(w);
    scw_free(w);
    return 0;
}
