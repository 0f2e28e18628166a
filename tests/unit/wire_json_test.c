/* JSON as the proto3 mapping says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/v1/event_service.pb-c.h"
#include "harpoon/v1/operation_service.pb-c.h"
#include "harpoon/v1/placement_service.pb-c.h"
#include "wire/codec.h"
#include "wire/json.h"
#include "wire/timetext.h"

/* Reads `in`, and expects `out` to be written (compact, in the order of the descriptor). */
static void check(const ProtobufCMessageDescriptor *d, const char *in, const char *out)
{
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    int rc = hp_json_parse_message(in, strlen(in), d, &m, &e);
    if (rc < 0)
        fail_msg("%s: %s", in, e.message);
    char *text = hp_json_print_message(m, JSON_COMPACT, &e);
    assert_non_null(text);
    assert_string_equal(text, out);
    free(text);
    hp_unpacked_free(m);
}

static void refuse(const ProtobufCMessageDescriptor *d, const char *in, const char *message)
{
    ProtobufCMessage *m = NULL;
    struct hp_error e = {0};
    assert_int_equal(hp_json_parse_message(in, strlen(in), d, &m, &e), HP_EINVAL);
    assert_null(m);
    if (!strstr(e.message, message))
        fail_msg("%s: got \"%s\", wanted \"%s\"", in, e.message, message);
}

#define CREATE (&harpoon__v1__create_container_request__descriptor)
#define WATCH (&harpoon__v1__watch_request__descriptor)
#define SUBMIT (&harpoon__v1__submit_request__descriptor)

static void whole_requests(void **state)
{
    check(
        CREATE,
        "{\"parent\":\"projects/p/regions/"
        "r\",\"container_id\":\"c\",\"container\":{\"labels\":{\"a\":\"b\",\"\":\"é\"},"
        "\"spec\":{\"image\":\"oci:/"
        "x:1\",\"args\":[\"\",\"1\"],\"resources\":{\"cpuMillis\":500,\"memoryBytes\":\"9007199254740993\"},"
        "\"network\":{\"mode\":\"NETWORK_MODE_NONE\",\"ports\":[{\"containerPort\":80.0},{}]},\"stateless\":true,"
        "\"placement\":null,\"healthCheck\":{\"tcp\":{\"port\":\"80\"},\"intervalMs\":1e3}}},\"validateOnly\":false}",
        "{\"parent\":\"projects/p/regions/r\",\"containerId\":\"c\",\"container\":{\"labels\":{\"a\":\"b\",\"\":\"é\"},"
        "\"spec\":{\"image\":\"oci:/"
        "x:1\",\"args\":[\"\",\"1\"],\"resources\":{\"cpuMillis\":\"500\",\"memoryBytes\":\"9007199254740993\"},"
        "\"network\":{\"mode\":\"NETWORK_MODE_NONE\",\"ports\":[{\"containerPort\":80},{}]},"
        "\"healthCheck\":{\"tcp\":{\"port\":80},\"intervalMs\":1000},\"stateless\":true}}}");
    check(CREATE, "{}", "{}");
    check(WATCH, "{\"afterSequence\":0}", "{\"afterSequence\":\"0\"}"); /* a choice keeps its default value */
    check(WATCH, "{\"since\":\"2024-02-29T14:00:00.5+02:00\"}", "{\"since\":\"2024-02-29T12:00:00.500Z\"}");
    check(SUBMIT, "{\"correlation\":\"-3\",\"delete\":{\"name\":\"x\"}}",
          "{\"correlation\":\"-3\",\"delete\":{\"name\":\"x\"}}");
    check(&harpoon__v1__wait_operation_request__descriptor, "{\"timeout\":\"1.500s\"}", "{\"timeout\":\"1.500s\"}");
    check(&harpoon__v1__explain_response__descriptor,
          "{\"hosts\":[{\"score\":0.5,\"parts\":{\"x\":1,\"y\":\"-Infinity\"}}],\"rejected\":{\"state\":3}}",
          "{\"hosts\":[{\"score\":0.5,\"parts\":{\"x\":1.0,\"y\":\"-Infinity\"}}],\"rejected\":{\"state\":3}}");
    check(&harpoon__internal__v1__operation_record__descriptor, "{\"payloadDigest\":\"_-8\"}",
          "{\"payloadDigest\":\"/+8=\"}");
}

static void details(void **state)
{
    check(&google__rpc__status__descriptor,
          "{\"code\":5,\"details\":[{\"@type\":\"type.googleapis.com/"
          "google.rpc.ErrorInfo\",\"reason\":\"R\",\"metadata\":{\"k\":\"v\"}},"
          "{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"2s\"},"
          "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"3s\"},"
          "{\"@type\":\"type.googleapis.com/other.Thing\",\"value\":\"AQI=\"}]}",
          "{\"code\":5,\"details\":[{\"reason\":\"R\",\"metadata\":{\"k\":\"v\"},\"@type\":\"type.googleapis.com/"
          "google.rpc.ErrorInfo\"},"
          "{\"retryDelay\":\"2s\",\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\"},"
          "{\"value\":\"3s\",\"@type\":\"type.googleapis.com/google.protobuf.Duration\"},"
          "{\"value\":\"AQI=\",\"@type\":\"type.googleapis.com/other.Thing\"}]}");
}

static void errors_name_the_path(void **state)
{
    refuse(CREATE, "{", "line 1");
    refuse(CREATE, "[]", "message: must be an object");
    refuse(CREATE, "{\"parent\":1}", "parent: must be a string");
    refuse(CREATE, "{\"parent\":\"a\",\"parent\":\"b\"}", "duplicate");
    refuse(CREATE, "{\"containerId\":\"a\",\"container_id\":\"b\"}", "given twice");
    refuse(CREATE, "{\"container\":{\"spec\":{\"resources\":{\"cpuMillis\":1.5}}}}",
           "container.spec.resources.cpuMillis: 1.5");
    refuse(CREATE, "{\"container\":{\"spec\":{\"resources\":{\"cpuMillis\":\"9223372036854775808\"}}}}", "cpuMillis");
    refuse(CREATE, "{\"container\":{\"spec\":{\"resources\":{\"cpuMillis\":\"\"}}}}", "cpuMillis: must be a number");
    refuse(CREATE, "{\"container\":{\"spec\":{\"resources\":{\"cpuMillis\":1e30}}}}", "cpuMillis");
    refuse(CREATE, "{\"container\":{\"spec\":{\"network\":{\"ports\":[{},{\"hostPort\":2147483648}]}}}}",
           "container.spec.network.ports[1].hostPort: 2147483648");
    refuse(CREATE, "{\"container\":{\"spec\":{\"network\":{\"mode\":\"BRIDGE\"}}}}",
           "container.spec.network.mode: \"BRIDGE\"");
    refuse(CREATE, "{\"container\":{\"labels\":{\"k\":1}}}", "container.labels.k: must be a string");
    refuse(CREATE, "{\"container\":{\"colour\":1}}", "container.colour: unknown field of harpoon.v1.Container");
    refuse(CREATE, "{\"container\":{\"spec\":{\"args\":\"x\"}}}", "container.spec.args: must be an array");
    refuse(CREATE, "{\"container\":{\"spec\":{\"args\":[null]}}}", "container.spec.args[0]: must be a string");
    refuse(CREATE, "{\"container\":{\"spec\":{\"stateless\":1}}}", "stateless: must be true or false");
    refuse(CREATE, "{\"parent\":\"a\\u0000b\"}", "line 1");
    refuse(WATCH, "{\"since\":\"yesterday\"}", "since: must be a string like");
    refuse(WATCH, "{\"afterSequence\":1,\"since\":\"2024-01-01T00:00:00Z\"}", "another field of the same choice");
    refuse(&harpoon__internal__v1__operation_record__descriptor, "{\"payloadDigest\":\"*\"}",
           "payloadDigest: is not base64");
    refuse(&google__rpc__status__descriptor, "{\"details\":[{\"@type\":\"x/y\",\"a\":1}]}", "details[0]: unknown type");
    refuse(&google__rpc__status__descriptor, "{\"details\":[{}]}", "details[0].@type: is missing");
    char deep[5000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    refuse(CREATE, deep, "line 1");
}

static void bad_strings_are_not_written(void **state)
{
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    char bad[] = "\xFF";
    struct hp_error e = {0};
    c.name = bad;
    assert_null(hp_json_print_message(&c.base, 0, &e));
    assert_string_equal(e.message, "name: is not valid UTF-8");
}

static void times(void **state)
{
    const struct {
        const char *text;
        int64_t seconds;
        int32_t nanos;
    } good[] = {{"1970-01-01T00:00:00Z", 0, 0},
                {"0001-01-01T00:00:00Z", -62135596800, 0},
                {"9999-12-31T23:59:59.999999999Z", 253402300799, 999999999},
                {"2000-02-29T23:59:59.001Z", 951868799, 1000000},
                {"1969-12-31T23:59:59.500Z", -1, 500000000}};
    const char *const bad[] = {"",
                               "2024-01-01",
                               "2023-02-29T00:00:00Z",
                               "2024-13-01T00:00:00Z",
                               "2024-01-01T24:00:00Z",
                               "2024-01-01T00:00:00",
                               "2024-01-01T00:00:00.Z",
                               "2024-01-01T00:00:00.1234567890Z",
                               "2024-01-01T00:00:00Zx",
                               "2024-01-01T00:00:00+",
                               "0001-01-01T00:00:00+00:01",
                               "1900-02-29T00:00:00Z"};
    char text[HP_TIMETEXT_MAX];
    int64_t s;
    int32_t n;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(hp_timestamp_parse(good[i].text, &s, &n), 0);
        assert_true(s == good[i].seconds && n == good[i].nanos);
        assert_int_equal(hp_timestamp_format(text, s, n), 0);
        assert_string_equal(text, good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (hp_timestamp_parse(bad[i], &s, &n) == 0)
            fail_msg("%s was read", bad[i]);
    assert_int_equal(hp_timestamp_format(text, 253402300800, 0), HP_EINVAL);
    assert_int_equal(hp_duration_parse("-0.000000001s", &s, &n), 0);
    assert_true(s == 0 && n == -1);
    assert_int_equal(hp_duration_format(text, s, n), 0);
    assert_string_equal(text, "-0.000000001s");
    assert_int_equal(hp_duration_parse("1", &s, &n), HP_EINVAL);
    assert_int_equal(hp_duration_parse("315576000001s", &s, &n), HP_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_requests),
        cmocka_unit_test(details),
        cmocka_unit_test(errors_name_the_path),
        cmocka_unit_test(bad_strings_are_not_written),
        cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
