/* Every request of the public API that changes something or explains, through the gateway's admission into the scheduler's core.
 *
 * Asserted: what the gateway admits, the scheduler never calls poison (an accepted change would end in the dead letters), and the agent can make a container of; preparing the same payload again, or a copy that went through JSON, gives the
 * same operation and the same digest (a retry over the other transport is the same change); the operation told when no verdict comes packs; the scheduler's verdict is one that the gateway takes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/change.h"
#include "core/verdicts.h"
#include "fuzz/sc_steps.h"
#include "harpoon/v1/host_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "runtime/rt_spec.h"
#include "wire/codec.h"
#include "wire/json.h"
#include "wire/signal_name.h"

enum { REPORT = 13, CONTROL };

const struct fuzz_kind fuzz_kinds[] = {
    {"create", &harpoon__v1__create_container_request__descriptor},
    {"resize", &harpoon__v1__resize_container_request__descriptor},
    {"update", &harpoon__v1__update_container_request__descriptor},
    {"start", &harpoon__v1__start_container_request__descriptor},
    {"stop", &harpoon__v1__stop_container_request__descriptor},
    {"restart", &harpoon__v1__restart_container_request__descriptor},
    {"delete", &harpoon__v1__delete_container_request__descriptor},
    {"cancel", &harpoon__v1__cancel_operation_request__descriptor},
    {"cordon", &harpoon__v1__cordon_host_request__descriptor},
    {"uncordon", &harpoon__v1__uncordon_host_request__descriptor},
    {"drain", &harpoon__v1__drain_host_request__descriptor},
    {"declare_lost", &harpoon__v1__declare_host_lost_request__descriptor},
    {"explain", &harpoon__v1__explain_request__descriptor},
    [REPORT] = {"report", &harpoon__internal__v1__report__descriptor},
    [CONTROL] = {"control", NULL},
    {"adopt", &harpoon__v1__adopt_container_request__descriptor},
    {"host_load", &harpoon__v1__get_host_load_request__descriptor},
    {"move", &harpoon__v1__move_container_request__descriptor},
    {"reserve", &harpoon__v1__reserve_request__descriptor},
    {"propose_moves", &harpoon__v1__propose_moves_request__descriptor},
};
const size_t fuzz_kind_count = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
const char *const fuzz_words[] = {"r1",
                                  "h1",
                                  "er1",
                                  "p",
                                  "z1",
                                  "$0",
                                  "$1",
                                  "c1",
                                  "c2",
                                  "1",
                                  "2",
                                  "a",
                                  "b",
                                  "request-1",
                                  "projects/p/regions/r1",
                                  "projects/p/regions/r1/containers/c1",
                                  "projects/p/regions/r1/containers/c2",
                                  "regions/r1/hosts/h1",
                                  "regions/r1/hosts/h2",
                                  "oci:/images:busybox",
                                  "docker://registry.example:5000/a/b@sha256:"
                                  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                                  "docker://x/y:z",
                                  "/data",
                                  "/proc",
                                  "SIGTERM",
                                  "SIGRTMIN+30",
                                  "1000:1000",
                                  "tcp",
                                  "udp",
                                  "PATH",
                                  "data",
                                  NULL};

static struct gw_principal principal = {.name = (char *)(uintptr_t) "ann", .role = GW_ADMIN, .all_projects = true};
static const char *const names[] = {"r1", "r2"};
static const struct gw_regions regions = {names, 2};

static int prepare(const ProtobufCMessage *m, struct gw_prepared *ret)
{
    struct hp_rng rng;
    Google__Rpc__Status *status = NULL;
    hp_rng_init(&rng, 1);
    int rc = gw_prepare(&regions, &principal, gw_payload_case(m->descriptor), m, 1700000000LL * 1000000000, &rng, ret,
                        &status);
    assert((rc == 0) == (status == NULL)); /* memory is there, so a refusal is explained */
    if (status)
        google__rpc__status__free_unpacked(status, NULL);
    return rc;
}

/* A copy that a browser would have sent is the same change. */
static void same_through_json(const ProtobufCMessage *m, const struct gw_prepared *first)
{
    struct hp_error e = {0};
    ProtobufCMessage *copy;
    struct gw_prepared again;
    char *text = fuzz_has_unknown(m) ? NULL : hp_json_print_message(m, JSON_COMPACT, &e);
    if (!text)
        return; /* or an enumeration that JSON cannot say */
    int rc = hp_json_parse_message(text, strlen(text), m->descriptor, &copy, &e);
    if (rc == 0) {
        rc = prepare(copy, &again);
        assert(rc == 0 && strcmp(again.operation_id, first->operation_id) == 0);
        assert(again.body_len == first->body_len && memcmp(again.body, first->body, first->body_len) == 0);
        gw_prepared_done(&again);
        protobuf_c_message_free_unpacked(copy, NULL);
    }
    free(text);
}

/* What needs no look at a host or an image is refused by the gateway, not by an agent after the change was accepted. */
static void agent_takes(const Harpoon__V1__ContainerSpec *spec)
{
    static const char config[] =
        "{\"os\":\"linux\",\"config\":{\"Entrypoint\":[\"/run\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
    const char *volume_dirs[HA_VOLUMES_MAX];
    static const struct ha_cgroups cgroups = {.dev_major = 8};
    static const struct ha_user user = {.home = "/"};
    static struct ha_image image;
    struct hp_image_ref ref;
    struct hp_error e = {0};
    json_t *out = NULL;
    int number;
    if (!image.process && ha_image_config_parse(config, sizeof config - 1, &image, &e))
        abort();
    for (size_t i = 0; i < HA_VOLUMES_MAX; i++)
        volume_dirs[i] = "/volumes/v";
    const struct ha_spec_input in = {.uid = "u1",
                                     .container = "projects/p/regions/r1/containers/c1",
                                     .spec = spec,
                                     .image = &image,
                                     .user = &user,
                                     .cgroups = &cgroups,
                                     .etc_dir = "/etc",
                                     .volume_dirs = volume_dirs,
                                     .nofile_max = 1024};
    assert(hp_image_ref_parse(spec->image, &ref, &e) == 0);
    assert(hp_signal_number(spec->stop_signal, &number, &e) == 0);
    assert(ha_spec_build(&in, &out, &e) == 0);
    json_decref(out);
}

static void change(struct scw *w, const ProtobufCMessage *m)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 2 << 20, .memory_max = 32 << 20};
    struct gw_prepared p;
    struct hp_error e = {0};
    ProtobufCMessage *request;
    if (prepare(m, &p))
        return;
    Harpoon__V1__Operation *operation = gw_accepted_operation(&p);
    assert(operation);
    hp_unpacked_free(&operation->base);
    same_through_json(m, &p);
    int rc = hp_unpack(&harpoon__internal__v1__request__descriptor, p.body, p.body_len, &limits, &request, &e);
    assert(rc == 0);
    Harpoon__Internal__V1__Request *r = (Harpoon__Internal__V1__Request *)request;
    if (r->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE)
        agent_takes(r->create->container->spec);
    else if (r->payload_case == HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE)
        agent_takes(r->update->container->spec);
    if (p.region_index == 0) {
        rc = sc_steps_request(w, r);
        assert(rc == 0);
    } else {
        hp_unpacked_free(request);
    }
    gw_prepared_done(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct hp_unpack_limits limits = {.bytes_max = 1 << 20}; /* as the servers */
    struct fuzz_step s;
    struct scw *w = scw_new(NULL);
    w->mute_trace = true;
    for (int i = 0; i < FUZZ_STEPS_MAX && fuzz_next(&data, &len, &s); i++) {
        ProtobufCMessage *m = NULL;
        struct hp_error e = {0};
        if (fuzz_kinds[s.kind].type && hp_unpack(fuzz_kinds[s.kind].type, s.data, s.len, &limits, &m, &e))
            continue;
        if (s.kind == REPORT)
            (void)sc_steps_report(w, (void *)m);
        else if (s.kind == CONTROL)
            sc_steps_control(w, &s);
        else
            change(w, m);
        hp_unpacked_free(m);
    }
    sc_steps_end(w);
    scw_free(w);
    return 0;
}
