/* What a router says to the agent, while the host works, fails, crashes and restarts (lib/agent_model.c).
 *
 * Asserted by the model: never two jobs of one uid, never a create where a container is, results in the order of their ids, and a core that starts from whatever was durable; here: what the agent says
 * unpacks, each (uid, generation) is created at most once, and everything comes to rest. */
#include "fuzz/script.h"
#include "lib/agent_model.h"
#include "wire/codec.h"
#include <assert.h>

enum { MESSAGE, HOST };

const struct fuzz_kind fuzz_kinds[] = {
    [MESSAGE] = {"message", &harpoon__internal__v1__router_message__descriptor},
    [HOST] = {"host", NULL},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {
    "r1",  "h1",  "u1",   "u2",    "u3", "oci:/images:a", "oci:/images:b", "projects/p/regions/r1/containers/c1",
    "op1", "op2", "data", "/data", NULL};

static void message(struct agent_model *m, const Harpoon__Internal__V1__RouterMessage *r)
{
    switch (r->body_case) {
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_COMMAND:
        am_command(m, r->command);
        return;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_CONFIRMED:
        am_confirm(m, r->confirmed);
        return;
    case HARPOON__INTERNAL__V1__ROUTER_MESSAGE__BODY_INVENTORY_REQUEST:
        am_inventory(m, false);
        return;
    default: /* the link's own affairs */
        return;
    }
}

static void host(struct agent_model *m, const struct fuzz_step *s)
{
    static const int failures[] = {HP_EIO, HP_ENOMEM, HP_ECONFLICT, HP_ETIMEDOUT, HP_ENOTFOUND, HP_ELIMIT};
    uint8_t arg = fuzz_byte(s, 1);
    size_t job = m->job_count ? arg % m->job_count : 0;
    switch (fuzz_byte(s, 0) % 11) {
    case 0:
        am_sync(m);
        break;
    case 1:
        if (m->job_count && !m->jobs[job]->executed)
            am_job_execute(m, job);
        break;
    case 2:
        if (m->job_count && m->jobs[job]->executed)
            am_job_finish(m, job);
        break;
    case 3:
        m->fail_next = failures[arg % (sizeof failures / sizeof failures[0])];
        break;
    case 4:
        am_crash(m);
        am_boot(m);
        break;
    case 5:
        am_link(m, arg & 1);
        break;
    case 6:
        am_confirm_all(m);
        break;
    case 7:
        if (m->container_count && m->containers[arg % m->container_count].running)
            am_exit(m, m->containers[arg % m->container_count].uid, arg % 3, arg & 128);
        break;
    case 8:
        am_settle(m);
        break;
    default:
        am_advance(m, UINT64_C(1) << arg % 20);
    }
}

static void check_creates(const struct agent_model *m)
{
    for (size_t i = 0; i < m->call_count; i++)
        if (m->calls[i].kind == HA_JOB_CREATE)
            assert(am_calls(m, m->calls[i].uid, m->calls[i].generation, HA_JOB_CREATE) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct agent_model m;
    static const struct hp_unpack_limits limits = {.bytes_max = 1 << 20}; /* a frame's */
    struct fuzz_step s;
    am_init(&m);
    m.memory_max = INT64_C(1) << 30;
    am_boot(&m);
    am_link(&m, true);
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        ProtobufCMessage *p = NULL;
        struct hp_error e = {0};
        if (s.kind == HOST)
            host(&m, &s);
        else if (hp_unpack(fuzz_kinds[s.kind].type, s.data, s.len, &limits, &p, &e) == 0)
            message(&m, (void *)p);
        hp_unpacked_free(p);
    }
    m.fail_next = 0;
    am_settle(&m);
    am_advance(&m, 3600000);
    am_settle(&m);
    am_confirm_all(&m);
    am_settle(&m);
    check_creates(&m);
    am_done(&m);
    return 0;
}
