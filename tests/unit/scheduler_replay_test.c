/* scheduler_replay_test.c — a recording run again: what is read, and that other weights show where they should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/region.h"
#include "replay/replay.h"

enum { TEXT_MAX = 1 << 18 };

struct text {
    char all[TEXT_MAX];
    size_t len;
    int sequence;
};

static void __attribute__((format(printf, 2, 3))) add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    t->len += (size_t)vsnprintf(t->all + t->len, TEXT_MAX - t->len, fmt, ap);
    va_end(ap);
    assert_true(t->len < TEXT_MAX);
}

static void host(struct text *t, int i, bool cordoned)
{
    add(t,
        "{\"name\":\"regions/r7/hosts/"
        "h%d\",\"state\":\"HOST_STATE_READY\",\"router\":\"er1\",\"session\":\"5\",\"zone\":\"z%d\",%s\"allocatable\":{"
        "\"cpuMillis\":\"4000\",\"memoryBytes\":"
        "\"8589934592\",\"diskBytes\":\"1099511627776\"}}",
        i, i % 2, cordoned ? "\"cordoned\":true," : "");
}

static void event(struct text *t, const char *type)
{
    add(t, "{\"sequence\":\"%d\",\"region\":\"r7\",\"type\":\"harpoon.%s\",", ++t->sequence, type);
}

static void container(struct text *t, int i, int cpu, const char *more)
{
    add(t,
        "{\"name\":\"projects/p/regions/r7/containers/"
        "c%d\",\"uid\":\"%026d\",\"generation\":\"1\",\"spec\":{\"image\":\"oci:/"
        "x:1\",\"resources\":{\"cpuMillis\":\"%d\",\"memoryBytes\":"
        "\"67108864\"},\"desiredState\":\"DESIRED_STATE_RUNNING\"},\"status\":{\"state\":\"CONTAINER_STATE_RUNNING\"%s}"
        "}",
        i, i, cpu, more);
}

static void container_event(struct text *t, int i, const char *what, int cpu)
{
    char type[64];
    snprintf(type, sizeof type, "container.%s", what);
    event(t, type);
    add(t, "\"containerData\":");
    container(t, i, cpu,
              ",\"imageDigest\":\"sha256:1111111111111111111111111111111111111111111111111111111111111111\"");
    add(t, "}\n");
}

static void host_event(struct text *t, int i, const char *what, bool cordoned)
{
    char type[64];
    snprintf(type, sizeof type, "host.%s", what);
    event(t, type);
    add(t, "\"hostData\":");
    host(t, i, cordoned);
    add(t, "}\n");
}

static int read_text(struct text *t, struct sc_recording *ret, struct hp_error *e)
{
    FILE *f = fmemopen(t->all, t->len, "r");
    assert_non_null(f);
    *e = (struct hp_error){0};
    int code = sc_recording_read(f, ret, e);
    (void)fclose(f);
    return code;
}

static struct sc_replayed run(struct text *t, bool pack)
{
    struct sc_recording in;
    struct sc_region_config c;
    struct sc_replayed out = {0};
    struct hp_error e = {0};
    sc_region_config_defaults(&c);
    c.weights.pack = pack;
    if (read_text(t, &in, &e) || sc_replay_run(&in, &c, &out, &e))
        fail_msg("%s", e.message);
    sc_recording_done(&in);
    return out;
}

/* Four hosts, of which one comes later; one has a container already. */
static struct text *recording(void)
{
    struct text *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (int i = 1; i <= 3; i++) {
        host(t, i, false);
        add(t, "\n");
    }
    container(t, 99, 100, ",\"host\":\"regions/r7/hosts/h2\"");
    add(t, "\n\n");
    for (int i = 0; i < 12; i++) {
        container_event(t, i, "created", 200);
        container_event(t, i, "running", 200); /* says nothing new */
    }
    host_event(t, 4, "attached", false);
    container_event(t, 3, "updated", 300);
    container_event(t, 4, "deleting", 200);
    container_event(t, 4, "deleted", 200);
    return t;
}

static void weights_show(void **state)
{
    struct text *t = recording();
    struct sc_replayed spread = run(t, false), again = run(t, false), pack = run(t, true);
    assert_int_equal(spread.creates, 12);
    assert_int_equal(spread.placed, 12);
    assert_int_equal(spread.deletes, 1);
    assert_int_equal(spread.resizes, 1);
    assert_int_equal(spread.resizes_refused + spread.refused + spread.waiting, 0);
    assert_int_equal(spread.hosts, 4);
    assert_int_equal(spread.hosts_empty, 1); /* the one that came last */
    for (int i = 0; i < 12; i++)
        assert_string_equal(spread.places[i], again.places[i]);
    assert_int_equal(pack.placed, 12);
    assert_int_equal(pack.hosts_empty, 3);
    for (int i = 0; i < 12; i++)
        assert_string_equal(pack.places[i], "h2"); /* the fullest */
    assert_true(pack.imbalance > spread.imbalance && pack.fullest > spread.fullest);
    assert_int_equal(pack.with_image, 11); /* all but the first */
    free(spread.places);
    free(again.places);
    free(pack.places);
    free(t);
}

static void what_does_not_fit_waits(void **state)
{
    struct text *t = calloc(1, sizeof *t);
    assert_non_null(t);
    for (int i = 1; i <= 2; i++) {
        host_event(t, i, "attached", false);
        host_event(t, i, "cordoned", i == 1);
    }
    for (int i = 0; i < 4; i++)
        container_event(t, i, "pending", 4000);
    struct sc_replayed out = run(t, false);
    assert_int_equal(out.hosts, 1);
    assert_int_equal(out.placed, 1);
    assert_int_equal(out.waiting, 3);
    free(out.places);
    host_event(t, 1, "uncordoned", false);
    out = run(t, false);
    assert_int_equal(out.hosts, 2);
    assert_int_equal(out.waiting, 2);
    assert_int_equal(out.placed, 1); /* at once */
    free(out.places);
    free(t);
}

static void what_is_no_recording_is_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"\n{\"a\":1}\n", "line 2: is neither a host, nor a container, nor an event"},
        {"nonsense", "line 1: "},
        {"{\"allocatable\":{\"colour\":1}}", "line 1: allocatable.colour"},
        {"{\"sequence\":\"1\",\"type\":\"harpoon.region.braked\"}", "there is no host"},
        {"{\"name\":\"somewhere\",\"allocatable\":{}}", "there is no host"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct text *t = calloc(1, sizeof *t);
        struct sc_recording in;
        struct sc_region_config c;
        struct sc_replayed out = {0};
        struct hp_error e;
        assert_non_null(t);
        add(t, "%s", bad[i].text);
        sc_region_config_defaults(&c);
        int code = read_text(t, &in, &e);
        if (!code) {
            code = sc_replay_run(&in, &c, &out, &e);
            free(out.places);
        }
        sc_recording_done(&in);
        assert_true(code < 0);
        if (!strstr(e.message, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.message, bad[i].says);
        free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_show),
        cmocka_unit_test(what_does_not_fit_waits),
        cmocka_unit_test(what_is_no_recording_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
