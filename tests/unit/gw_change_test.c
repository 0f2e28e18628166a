/* From a public request to the message for the scheduler: limits, identity, digest, authorisation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "core/change.h"
#include "core/validate.h"
#include "google/rpc/error_details.pb-c.h"
#include "grpc/status.h"
#include "wire/codec.h"
#include "wire/json.h"

#define CREATE HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CREATE

static const char *const region_names[] = {"r1", "r2"};
static const struct gw_regions regions = {region_names, 2};
static char name[] = "tester";
static struct gw_principal who = {.name = name, .role = GW_ADMIN, .all_projects = true};

static ProtobufCMessage *read_json(Harpoon__Internal__V1__Request__PayloadCase kind, const char *json)
{
    static const ProtobufCMessageDescriptor *const of[] = {
        &harpoon__v1__create_container_request__descriptor, &harpoon__v1__resize_container_request__descriptor,
        &harpoon__v1__update_container_request__descriptor, &harpoon__v1__start_container_request__descriptor,
        &harpoon__v1__stop_container_request__descriptor,   &harpoon__v1__restart_container_request__descriptor,
        &harpoon__v1__delete_container_request__descriptor, &harpoon__v1__cancel_operation_request__descriptor,
        &harpoon__v1__cordon_host_request__descriptor,      &harpoon__v1__uncordon_host_request__descriptor,
        &harpoon__v1__drain_host_request__descriptor,       &harpoon__v1__declare_host_lost_request__descriptor,
        &harpoon__v1__explain_request__descriptor,
    };
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    const ProtobufCMessageDescriptor *d = &harpoon__v1__move_container_request__descriptor;
    if (kind != HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE) {
        assert_in_range(kind, CREATE, CREATE + 12);
        d = of[kind - CREATE];
    }
    if (hp_json_parse_message(json, strlen(json), d, &m, &e) < 0)
        fail_msg("%s: %s", json, e.message);
    assert_int_equal(gw_payload_case(m->descriptor), kind);
    return m;
}

static int prepare(int kind, const char *json, struct gw_prepared *p, Google__Rpc__Status **status)
{
    struct hp_rng rng;
    hp_rng_init(&rng, 5);
    ProtobufCMessage *m = read_json(kind, json);
    int rc = gw_prepare(&regions, &who, kind, m, 1700000000123456789, &rng, p, status);
    hp_unpacked_free(m);
    return rc;
}

static Harpoon__Internal__V1__Request *prepared(int kind, const char *json, struct gw_prepared *p)
{
    Google__Rpc__Status *status = NULL;
    ProtobufCMessage *m = NULL;
    if (prepare(kind, json, p, &status) < 0)
        fail_msg("%s: %s", json, status ? status->message : "no memory");
    assert_int_equal(hp_unpack(&harpoon__internal__v1__request__descriptor, p->body, p->body_len, NULL, &m, NULL), 0);
    return (Harpoon__Internal__V1__Request *)m;
}

#define SPEC "\"spec\":{\"image\":\"oci:/img:1\",\"resources\":{\"cpuMillis\":100,\"memoryBytes\":67108864}"
#define HEAD "{\"parent\":\"projects/p/regions/r2\",\"containerId\":\"web\",\"requestId\":\"id-1\","

static void create(void **state)
{
    struct gw_prepared p;
    char id[HP_OPERATION_ID_LEN + 1];
    Harpoon__Internal__V1__Request *r = prepared(CREATE, HEAD "\"container\":{\"uid\":\"x\"," SPEC "}}}", &p);
    hp_operation_id(id, "p", "id-1");
    assert_string_equal(r->operation_id, id);
    assert_string_equal(p.operation_id, id);
    assert_int_equal(p.region_index, 1);
    assert_string_equal(r->project, "p");
    assert_string_equal(r->region, "r2");
    assert_string_equal(r->request_id, "id-1");
    assert_string_equal(r->principal, "tester");
    assert_int_equal(r->payload_digest.len, 32);
    assert_true(r->accept_time->seconds == 1700000000 && r->accept_time->nanos == 123456789);
    assert_int_equal(r->payload_case, CREATE);
    assert_string_equal(r->create->request_id, "id-1");
    assert_string_equal(r->create->container->uid, ""); /* only labels and spec are read */
    assert_string_equal(p.target, "projects/p/regions/r2/containers/web");
    assert_false(p.transient);
    Harpoon__V1__Operation *o = gw_accepted_operation(&p);
    assert_int_equal(o->stage, HARPOON__V1__STAGE__STAGE_ACCEPTED);
    assert_string_equal(o->target, p.target);
    assert_int_equal(o->verb, HARPOON__V1__VERB__VERB_CREATE);
    assert_true(o->deadline->seconds == 1700003600);
    assert_int_equal(o->n_history, 1);
    hp_unpacked_free(&o->base);
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
}

static void digest(const char *json, uint8_t out[32])
{
    struct gw_prepared p;
    Harpoon__Internal__V1__Request *r = prepared(CREATE, json, &p);
    memcpy(out, r->payload_digest.data, 32);
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
}

/* A retry may come through another client library, which writes maps in another order. */
static void digest_is_of_the_content(void **state)
{
    uint8_t a[32], b[32];
    digest(HEAD "\"container\":{\"labels\":{\"x\":\"1\",\"y\":\"2\"}," SPEC
                ",\"placement\":{\"hostLabels\":{\"a\":\"1\",\"b\":\"2\"}}}}}",
           a);
    digest(
        "{\"parent\":\"projects/p/regions/r2\",\"containerId\":\"web\",\"requestId\":\"other\",\"validateOnly\":true,"
        "\"container\":{\"labels\":{\"y\":\"2\",\"x\":\"1\"},\"etag\":\"z\"," SPEC
        ",\"placement\":{\"hostLabels\":{\"b\":\"2\",\"a\":\"1\"}}}}}",
        b);
    assert_memory_equal(a, b, 32);
    digest(HEAD "\"container\":{\"labels\":{\"x\":\"1\",\"y\":\"3\"}," SPEC
                ",\"placement\":{\"hostLabels\":{\"a\":\"1\",\"b\":\"2\"}}}}}",
           b);
    assert_memory_not_equal(a, b, 32);
}

static void transient_ones(void **state)
{
    struct gw_prepared p;
    Harpoon__Internal__V1__Request *r = prepared(CREATE, HEAD "\"validateOnly\":true,\"container\":{" SPEC "}}}", &p);
    assert_true(p.transient && r->validate_only && r->create->validate_only);
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
    r = prepared(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_EXPLAIN, "{\"create\":" HEAD "\"container\":{" SPEC "}}}}",
                 &p);
    assert_true(p.transient);
    assert_string_equal(r->explain->create->container_id, "web");
    assert_string_equal(r->project, "p");
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
}

static void hosts_and_cancels(void **state)
{
    struct gw_prepared p;
    char id[HP_OPERATION_ID_LEN + 1];
    Harpoon__Internal__V1__Request *r = prepared(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DRAIN,
                                                 "{\"name\":\"regions/r1/hosts/h1\",\"requestId\":\"d\"}", &p);
    hp_operation_id(id, "", "d");
    assert_string_equal(r->operation_id, id);
    assert_string_equal(r->project, "");
    assert_string_equal(r->drain->name, "regions/r1/hosts/h1");
    assert_memory_equal(p.operation_name, "projects/-/regions/r1/operations/", 33);
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
    r = prepared(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE,
                 "{\"name\":\"projects/p/regions/r1/containers/web\",\"host\":\"h2\"}", &p);
    assert_string_equal(r->project, "p");
    assert_string_equal(r->move->host, "h2");
    assert_string_equal(p.target, "projects/p/regions/r1/containers/web");
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
    r = prepared(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CANCEL,
                 "{\"name\":\"projects/p/regions/r1/operations/0123456789abcdef0123456789abcdef\"}", &p);
    assert_string_equal(r->project, "p");
    assert_int_equal(strlen(r->request_id), HP_UID_LEN); /* made by the gateway */
    hp_operation_id(id, "p", r->request_id);
    assert_string_equal(r->operation_id, id);
    hp_unpacked_free(&r->base);
    gw_prepared_done(&p);
}

/* ---- Refusals ---- */

static bool names_field(const Google__Rpc__Status *status, const char *field)
{
    bool found = false;
    for (size_t i = 0; i < status->n_details; i++) {
        if (!strstr(status->details[i]->type_url, "BadRequest"))
            continue;
        Google__Rpc__BadRequest *b =
            google__rpc__bad_request__unpack(NULL, status->details[i]->value.len, status->details[i]->value.data);
        for (size_t j = 0; j < b->n_field_violations; j++)
            found |= strcmp(b->field_violations[j]->field, field) == 0;
        google__rpc__bad_request__free_unpacked(b, NULL);
    }
    return found;
}

static void refused(int kind, const char *json, int code, const char *field)
{
    struct gw_prepared p;
    Google__Rpc__Status *status = NULL;
    if (prepare(kind, json, &p, &status) == 0)
        fail_msg("accepted: %s", json);
    assert_non_null(status);
    if ((int)status->code != code)
        fail_msg("%s: %s", json, status->message);
    if (field && !names_field(status, field))
        fail_msg("%s: %s is not named: %s", json, field, status->message);
    hp_status_free(status);
}

static void bad_create(const char *rest, const char *field)
{
    char json[8192];
    snprintf(json, sizeof json, HEAD "\"container\":{%s}}", rest);
    refused(CREATE, json, HP_CODE_INVALID_ARGUMENT, field);
}

static void bad_spec(const char *rest, const char *field)
{
    char text[4096], path[128];
    snprintf(text, sizeof text, SPEC ",%s}", rest);
    snprintf(path, sizeof path, "container.spec.%s", field);
    bad_create(text, path);
}

static void bad_image(const char *image)
{
    char text[2048];
    snprintf(text, sizeof text,
             "\"spec\":{\"image\":\"%s\",\"resources\":{\"cpuMillis\":100,\"memoryBytes\":67108864}}", image);
    bad_create(text, "container.spec.image");
}

static void images(void **state)
{
    const char *const good[] = {
        "oci:/var/images/a:1.0", "oci:/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "docker://127.0.0.1:5000/team/app:v1_2-x",
        "docker://reg.example/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"};
    const char *const bad[] = {"",
                               "busybox",
                               "oci:relative:1",
                               "oci:/x",
                               "oci:/:",
                               "oci:/a b:1",
                               "oci:/x:",
                               "oci:/x:.bad",
                               "oci:/x@sha256:12",
                               "docker://app:1",
                               "docker:///app:1",
                               "docker://reg/:1",
                               "docker://reg/App:1",
                               "docker://reg/app",
                               "docker://reg//app:1",
                               "docker://-h/app:1",
                               "ftp://x/y:1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct gw_check c = {0};
        gw_validate_image(&c, "image", good[i]);
        if (c.count)
            fail_msg("%s: %s", good[i], c.status->message);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        bad_image(bad[i]);
}

/* JSON cannot say it, protobuf can; it once gave the JSON copy of a change another digest. */
static void labels_twice(void **state)
{
    static const char *const fields[] = {"container.labels[\"x\"]", "container.spec.placement.host_labels"};
    ProtobufCMessage *m = read_json(CREATE, HEAD "\"container\":{\"labels\":{\"x\":\"1\",\"y\":\"2\"}," SPEC
                                                 ",\"placement\":{\"hostLabels\":{\"a\":\"1\",\"b\":\"2\"}}}}}");
    Harpoon__V1__Container *c = ((Harpoon__V1__CreateContainerRequest *)m)->container;
    Google__Rpc__Status *status = NULL;
    struct gw_prepared p;
    struct hp_rng rng;
    c->labels[1]->key[0] = 'x';
    c->spec->placement->host_labels[1]->key[0] = 'a';
    hp_rng_init(&rng, 5);
    assert_int_equal(gw_prepare(&regions, &who, CREATE, m, 1700000000123456789, &rng, &p, &status), HP_EINVAL);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        assert_true(names_field(status, fields[i]));
    hp_status_free(status);
    hp_unpacked_free(m);
}

static void specs(void **state)
{
    bad_create("", "container.spec");
    bad_create("\"spec\":{\"image\":\"oci:/x:1\"}", "container.spec.resources.cpu_millis");
    bad_create("\"spec\":{\"image\":\"oci:/x:1\",\"resources\":{\"cpuMillis\":9,\"memoryBytes\":\"1\"}}",
               "container.spec.resources.memory_bytes");
    for (int i = 0; i < 3; i++) {
        static const char *const values[] = {"-1", "8191", "1099511627777"};
        char text[256];
        snprintf(text, sizeof text,
                 "\"spec\":{\"image\":\"oci:/"
                 "x:1\",\"resources\":{\"cpuMillis\":10,\"memoryBytes\":4194304,\"networkBps\":%s}}",
                 values[i]);
        bad_create(text, "container.spec.resources.network_bps");
    }
    bad_create(
        "\"spec\":{\"image\":\"oci:/x:1\",\"resources\":{\"cpuMillis\":10,\"memoryBytes\":4194304,\"networkBps\":9000},"
        "\"network\":{\"mode\":2}}",
        "container.spec.resources.network_bps");
    bad_create("\"labels\":{\"\":\"x\"}," SPEC "}", "container.labels[\"\"]");
    bad_spec("\"env\":[{\"name\":\"A\"},{\"name\":\"1A\"}]", "env[1].name");
    bad_spec("\"placement\":{\"affinityGroup\":\"g\",\"antiAffinityGroup\":\"g\"}", "placement.affinity_group");
    bad_spec("\"placement\":{\"labelExpressions\":[{\"key\":\"k\",\"operator\":\"LABEL_OPERATOR_IN\"}]}",
             "placement.label_expressions[0].values");
    bad_spec("\"placement\":{\"labelExpressions\":[{\"key\":\"k\",\"operator\":\"LABEL_OPERATOR_EXISTS\",\"values\":["
             "\"v\"]}]}",
             "placement.label_expressions[0].values");
    bad_spec("\"placement\":{\"labelExpressions\":[{\"key\":\"k\"}]}", "placement.label_expressions[0].operator");
    bad_spec("\"placement\":{\"labelExpressions\":[{\"operator\":\"LABEL_OPERATOR_EXISTS\"}]}",
             "placement.label_expressions[0].key");
    bad_spec("\"placement\":{\"tolerations\":[{\"key\":\"a\"},{\"value\":\"v\"}]}", "placement.tolerations[1].key");
    bad_spec("\"workingDir\":\"a/b\"", "working_dir");
    bad_spec("\"workingDir\":\"/a/../b\"", "working_dir");
    bad_spec("\"user\":\"a:b:c\"", "user");
    bad_spec("\"stopSignal\":\"TERM\"", "stop_signal");
    bad_spec("\"stopSignal\":\"SIGRTMIN+\"", "stop_signal");
    bad_spec("\"stopSignal\":\"SIGRTMIN+31\"", "stop_signal");
    bad_spec("\"stopSignal\":\"15\"", "stop_signal");
    bad_spec("\"command\":[\"\",\"a\"]", "command[0]");
    bad_spec("\"stopGraceSeconds\":3601", "stop_grace_seconds");
    bad_spec("\"desiredState\":3", "desired_state");
    bad_spec("\"network\":{\"mode\":6}", "network.mode");
    bad_spec("\"network\":{\"mode\":3,\"ports\":[{\"containerPort\":1,\"hostPort\":1}]}", "network.ports");
    bad_spec("\"network\":{\"mode\":2,\"ports\":[{\"containerPort\":1,\"hostPort\":1}]}", "network.ports");
    bad_spec("\"network\":{\"ports\":[{\"containerPort\":1,\"hostPort\":80},{\"containerPort\":2,\"hostPort\":80,"
             "\"protocol\":\"tcp\"}]}",
             "network.ports[1].host_port");
    bad_spec("\"network\":{\"ports\":[{\"containerPort\":1,\"hostPort\":80,\"protocol\":\"sctp\"}]}",
             "network.ports[0].protocol");
    bad_spec("\"network\":{\"ports\":[{\"containerPort\":65536,\"hostPort\":80}]}", "network.ports[0].container_port");
    bad_spec("\"restartPolicy\":{\"maxRestarts\":-1}", "restart_policy.max_restarts");
    bad_spec("\"healthCheck\":{}", "health_check");
    bad_spec("\"healthCheck\":{\"exec\":{}}", "health_check.exec.command");
    bad_spec("\"healthCheck\":{\"tcp\":{\"port\":80},\"intervalMs\":50}", "health_check.interval_ms");
    bad_spec("\"placement\":{\"host\":\"H\"}", "placement.host");
    bad_spec("\"placement\":{\"spreadConstraints\":[{\"topology\":\"TOPOLOGY_ZONE\",\"maxSkew\":1}]}",
             "placement.spread_constraints");
    bad_spec("\"placement\":{\"spreadGroup\":\"g\",\"spreadConstraints\":[{\"topology\":\"TOPOLOGY_ZONE\"}]}",
             "placement.spread_constraints[0].max_skew");
    bad_spec("\"placement\":{\"spreadGroup\":\"g\",\"spreadConstraints\":[{\"maxSkew\":1}]}",
             "placement.spread_constraints[0].topology");
    bad_spec(
        "\"placement\":{\"spreadGroup\":\"g\",\"spreadConstraints\":[{\"topology\":\"TOPOLOGY_RACK\",\"maxSkew\":1}"
        ",{\"topology\":\"TOPOLOGY_RACK\",\"maxSkew\":2}]}",
        "placement.spread_constraints[1].topology");
    bad_spec("\"placement\":{\"role\":7}", "placement.role");
    bad_spec("\"placement\":{\"preferences\":[{\"weight\":101,\"expression\":{\"key\":\"k\",\"operator\":"
             "\"LABEL_OPERATOR_EXISTS\"}}]}",
             "placement.preferences[0].weight");
    bad_spec("\"placement\":{\"preferences\":[{\"weight\":1}]}", "placement.preferences[0].expression");
    bad_spec("\"placement\":{\"gang\":{\"name\":\"g\",\"size\":1}}", "placement.gang.size");
    bad_spec("\"placement\":{\"gang\":{\"size\":3}}", "placement.gang.name");
    bad_spec("\"placement\":{\"priority\":1001}", "placement.priority");
    bad_spec("\"placement\":{\"priority\":-1001}", "placement.priority");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/\"}]", "volumes[0].path");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/proc/x\"}]", "volumes[0].path");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/a\"},{\"volume\":\"w\",\"path\":\"/a\"}]", "volumes[1].path");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/a\",\"storageClass\":\"Fast\",\"sizeBytes\":\"2000000\"}]",
             "volumes[0].storage_class");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/a\",\"storageClass\":\"fast\"}]", "volumes[0].size_bytes");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/a\",\"storageClass\":\"fast\",\"sizeBytes\":\"1048575\"}]",
             "volumes[0].size_bytes");
    bad_spec("\"volumes\":[{\"volume\":\"v\",\"path\":\"/a\",\"sizeBytes\":\"2000000\"}]", "volumes[0].size_bytes");
}

static void other_refusals(void **state)
{
    refused(CREATE, "{\"parent\":\"projects/p/regions/r1\",\"containerId\":\"Web\",\"container\":{" SPEC "}}}",
            HP_CODE_INVALID_ARGUMENT, "container_id");
    refused(CREATE, "{\"parent\":\"projects/p/regions/r9\",\"containerId\":\"web\",\"container\":{" SPEC "}}}",
            HP_CODE_NOT_FOUND, NULL);
    refused(CREATE, HEAD "\"deadlineSeconds\":604801,\"container\":{" SPEC "}}}", HP_CODE_INVALID_ARGUMENT,
            "deadline_seconds");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE,
            "{\"name\":\"projects/p/regions/r1/containers/c\",\"resources\":{}}", HP_CODE_INVALID_ARGUMENT,
            "resources");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESIZE, "{\"name\":\"c\",\"resources\":{\"pidsMax\":5}}",
            HP_CODE_INVALID_ARGUMENT, "name");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_UPDATE, "{}", HP_CODE_INVALID_ARGUMENT, "container");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, "{\"name\":\"h\"}", HP_CODE_INVALID_ARGUMENT, "name");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_EXPLAIN,
            "{\"create\":{\"containerId\":\"web\",\"container\":{" SPEC "}}}}", HP_CODE_INVALID_ARGUMENT,
            "create.parent");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DRAIN, "{\"name\":\"regions/r1/hosts/h\",\"maxParallel\":101}",
            HP_CODE_INVALID_ARGUMENT, "max_parallel");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_MOVE,
            "{\"name\":\"projects/p/regions/r1/containers/c\",\"host\":\"regions/r1/hosts/h2\"}",
            HP_CODE_INVALID_ARGUMENT, "host");
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_EXPLAIN, "{}", HP_CODE_INVALID_ARGUMENT, "create");
    char long_id[300];
    snprintf(long_id, sizeof long_id, "{\"name\":\"regions/r1/hosts/h\",\"requestId\":\"%0129d\"}", 1);
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, long_id, HP_CODE_INVALID_ARGUMENT, "request_id");
    who.role = GW_EDITOR;
    refused(HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_CORDON, "{\"name\":\"regions/r1/hosts/h\"}",
            HP_CODE_PERMISSION_DENIED, NULL);
    who.role = GW_VIEWER;
    refused(CREATE, HEAD "\"container\":{" SPEC "}}}", HP_CODE_PERMISSION_DENIED, NULL);
    who.role = GW_ADMIN;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create),         cmocka_unit_test(digest_is_of_the_content),
        cmocka_unit_test(transient_ones), cmocka_unit_test(hosts_and_cancels),
        cmocka_unit_test(images),         cmocka_unit_test(specs),
        cmocka_unit_test(other_refusals), cmocka_unit_test(labels_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
