/* wire_load_test.c — shares, averages and history of a host's load, and the edges at which breakers open and close. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "wire/load.h"

#define CPU (1U << HP_RESOURCE_CPU)
#define MEMORY (1U << HP_RESOURCE_MEMORY)
#define IO (1U << HP_RESOURCE_IO)
#define NETWORK (1U << HP_RESOURCE_NETWORK)

/* Without averaging: a sample counts as it is. */
static const struct hp_load_limits plain = {.use = {80, 90, 0, 90},
                                            .pressure = {0, 10, 40, 0},
                                            .close_percent = 50,
                                            .after_ms = 10000,
                                            .close_after_ms = 20000,
                                            .average_ms = 0,
                                            .stale_ms = 30000};

static unsigned take(struct hp_load *l, const struct hp_load_limits *limits, uint64_t now_ms, enum hp_measure m,
                     double share)
{
    struct hp_load_sample s;
    for (int i = 0; i < HP_MEASURE_COUNT; i++)
        s.share[i] = -1;
    s.share[HP_MEASURE_CPU_USE] = 0;
    s.share[m] = (float)share;
    return hp_load_take(l, &s, limits, now_ms);
}

static void a_breaker_opens_after_its_time_at_the_limit(void **state)
{
    struct hp_load l = {0};
    assert_int_equal(take(&l, &plain, 1000, HP_MEASURE_CPU_USE, 0.80), 0); /* the limit itself counts */
    assert_int_equal(take(&l, &plain, 6000, HP_MEASURE_CPU_USE, 0.99), 0);
    assert_int_equal(take(&l, &plain, 10999, HP_MEASURE_CPU_USE, 0.99), 0); /* a millisecond short */
    assert_int_equal(hp_load_open_set(&l), 0);
    assert_int_equal(take(&l, &plain, 11000, HP_MEASURE_CPU_USE, 0.99), CPU);
    assert_int_equal(hp_load_open_set(&l), CPU);
    assert_int_equal(take(&l, &plain, 12000, HP_MEASURE_CPU_USE, 0.99), 0); /* once */
}

static void one_sample_below_the_limit_starts_the_time_anew(void **state)
{
    struct hp_load l = {0};
    take(&l, &plain, 0, HP_MEASURE_CPU_USE, 0.9);
    assert_int_equal(take(&l, &plain, 9000, HP_MEASURE_CPU_USE, 0.799), 0);
    assert_int_equal(take(&l, &plain, 10000, HP_MEASURE_CPU_USE, 0.9), 0);
    assert_int_equal(take(&l, &plain, 19999, HP_MEASURE_CPU_USE, 0.9), 0);
    assert_int_equal(take(&l, &plain, 20000, HP_MEASURE_CPU_USE, 0.9), CPU);
}

static struct hp_load opened(void)
{
    struct hp_load l = {0};
    take(&l, &plain, 0, HP_MEASURE_CPU_USE, 0.9);
    take(&l, &plain, 10000, HP_MEASURE_CPU_USE, 0.9);
    assert_int_equal(hp_load_open_set(&l), CPU);
    return l;
}

static void it_closes_only_well_below_the_limit_and_after_its_time(void **state)
{
    struct hp_load l = opened();
    for (uint64_t t = 15000; t <= 60000; t += 5000) /* between the limits: as it was, for ever */
        assert_int_equal(take(&l, &plain, t, HP_MEASURE_CPU_USE, t % 10000 ? 0.79 : 0.40), 0);
    assert_int_equal(hp_load_open_set(&l), CPU);
    take(&l, &plain, 65000, HP_MEASURE_CPU_USE, 0.40); /* half of the limit is not below it */
    take(&l, &plain, 70000, HP_MEASURE_CPU_USE, 0.399);
    assert_int_equal(take(&l, &plain, 85000, HP_MEASURE_CPU_USE, 0.399), 0);
    assert_int_equal(take(&l, &plain, 89999, HP_MEASURE_CPU_USE, 0), 0);
    assert_int_equal(take(&l, &plain, 90000, HP_MEASURE_CPU_USE, 0), CPU);
    assert_int_equal(hp_load_open_set(&l), 0);
}

static void closing_counts_without_a_break(void **state)
{
    struct hp_load l = opened();
    take(&l, &plain, 20000, HP_MEASURE_CPU_USE, 0.1);
    take(&l, &plain, 39000, HP_MEASURE_CPU_USE, 0.5);
    assert_int_equal(take(&l, &plain, 40000, HP_MEASURE_CPU_USE, 0.1), 0);
    assert_int_equal(take(&l, &plain, 59999, HP_MEASURE_CPU_USE, 0.1), 0);
    assert_int_equal(take(&l, &plain, 60000, HP_MEASURE_CPU_USE, 0.1), CPU);
}

static void each_resource_has_its_own(void **state)
{
    struct hp_load l = {0};
    take(&l, &plain, 0, HP_MEASURE_MEMORY_FULL, 0.2);
    assert_int_equal(take(&l, &plain, 10000, HP_MEASURE_MEMORY_FULL, 0.1), MEMORY);
    take(&l, &plain, 11000, HP_MEASURE_IO_FULL, 0.4);
    assert_int_equal(take(&l, &plain, 21000, HP_MEASURE_IO_FULL, 0.4), IO);
    take(&l, &plain, 22000, HP_MEASURE_NETWORK_USE, 0.95);
    /* Memory was low since 11 s: 20 s later it closes, while the network opens. */
    assert_int_equal(take(&l, &plain, 32000, HP_MEASURE_NETWORK_USE, 0.95), MEMORY | NETWORK);
    assert_int_equal(hp_load_open_set(&l), IO | NETWORK);
    /* What has no limit opens nothing: use of io, pressure of cpu. */
    take(&l, &plain, 33000, HP_MEASURE_IO_USE, 1);
    struct hp_load other = {0};
    for (uint64_t t = 0; t < 60000; t += 5000)
        take(&other, &plain, t, t % 10000 ? HP_MEASURE_IO_USE : HP_MEASURE_CPU_SOME, 1);
    assert_int_equal(hp_load_open_set(&other), 0);
}

static void silence_counts_neither_for_opening_nor_for_closing(void **state)
{
    struct hp_load l = {0};
    take(&l, &plain, 0, HP_MEASURE_CPU_USE, 0.9);
    assert_int_equal(take(&l, &plain, 30001, HP_MEASURE_CPU_USE, 0.9), 0); /* nobody knows what was between */
    assert_int_equal(take(&l, &plain, 40001, HP_MEASURE_CPU_USE, 0.9), CPU);
    take(&l, &plain, 45000, HP_MEASURE_CPU_USE, 0);
    assert_int_equal(take(&l, &plain, 100000, HP_MEASURE_CPU_USE, 0), 0);
    assert_int_equal(take(&l, &plain, 120000, HP_MEASURE_CPU_USE, 0), CPU);
}

static void what_is_not_measured_opens_nothing_and_keeps_nothing_open(void **state)
{
    struct hp_load l = {0};
    for (uint64_t t = 0; t <= 20000; t += 5000)
        take(&l, &plain, t, HP_MEASURE_MEMORY_FULL, -1);
    assert_int_equal(hp_load_open_set(&l), 0);
    assert_true(hp_load_open(&l, HP_RESOURCE_NETWORK));
    assert_false(hp_load_open(&l, HP_RESOURCE_NETWORK));
    assert_int_equal(take(&l, &plain, 25000, HP_MEASURE_MEMORY_FULL, -1), 0);
    assert_int_equal(take(&l, &plain, 45000, HP_MEASURE_MEMORY_FULL, -1), NETWORK);
}

static void averages_follow_with_their_time_constant(void **state)
{
    struct hp_load_limits slow = plain;
    struct hp_load l = {0};
    slow.average_ms = 10000;
    take(&l, &slow, 0, HP_MEASURE_CPU_USE, 0);
    take(&l, &slow, 10000, HP_MEASURE_CPU_USE, 1); /* as long as the constant: half of the way */
    assert_float_equal(l.average[HP_MEASURE_CPU_USE], 0.5, 0.001);
    take(&l, &slow, 10000, HP_MEASURE_CPU_USE, 0); /* no time, no weight */
    assert_float_equal(l.average[HP_MEASURE_CPU_USE], 0.5, 0.001);
    take(&l, &slow, 15000, HP_MEASURE_CPU_USE, 1);
    assert_float_equal(l.average[HP_MEASURE_CPU_USE], 0.6667, 0.001);
    take(&l, &slow, 50000, HP_MEASURE_CPU_USE, 0.1); /* stale in between: the old ones count no more */
    assert_float_equal(l.average[HP_MEASURE_CPU_USE], 0.1, 0.001);
}

static void what_was_not_heard_from_is_never_idle(void **state)
{
    struct hp_load l = {0};
    assert_float_equal(hp_load_idle(&l, &plain, 5), 0.5, 0);
    take(&l, &plain, 1000, HP_MEASURE_CPU_USE, 0.1);
    assert_float_equal(hp_load_idle(&l, &plain, 31000), 0.9, 0.001);
    assert_false(hp_load_stale(&l, &plain, 31000));
    assert_true(hp_load_stale(&l, &plain, 31001));
    assert_float_equal(hp_load_idle(&l, &plain, 31001), 0.5, 0);
    take(&l, &plain, 40000, HP_MEASURE_IO_FULL, 0.7);
    assert_float_equal(hp_load_idle(&l, &plain, 40000), 0.3, 0.001);
    assert_float_equal(hp_load_idle(&l, &plain, 99000), 0.3, 0.001); /* it was busy: that stays the best guess */
}

static void history_keeps_the_highest_of_each_minute(void **state)
{
    struct hp_load_limits patient = plain;
    struct hp_load l = {0};
    patient.stale_ms = 1000000;
    take(&l, &patient, 5000, HP_MEASURE_CPU_USE, 0.3);
    take(&l, &patient, 20000, HP_MEASURE_CPU_USE, 0.7);
    take(&l, &patient, 59999, HP_MEASURE_CPU_USE, 0.2);
    assert_int_equal(l.history[0][HP_MEASURE_CPU_USE], 70);
    assert_int_equal(l.history[1][HP_MEASURE_CPU_USE], HP_LOAD_UNKNOWN);
    assert_int_equal(l.history[0][HP_MEASURE_IO_FULL], HP_LOAD_UNKNOWN);
    take(&l, &patient, 60000 + 2 * 60000, HP_MEASURE_CPU_USE, 0.2);
    assert_int_equal(l.history[0][HP_MEASURE_CPU_USE], 20);
    assert_int_equal(l.history[1][HP_MEASURE_CPU_USE], HP_LOAD_UNKNOWN);
    assert_int_equal(l.history[2][HP_MEASURE_CPU_USE], HP_LOAD_UNKNOWN);
    assert_int_equal(l.history[3][HP_MEASURE_CPU_USE], 70);
    take(&l, &patient, 60000 + 90 * 60000, HP_MEASURE_CPU_USE, 1);
    assert_int_equal(l.history[0][HP_MEASURE_CPU_USE], 100);
    for (int i = 1; i < HP_LOAD_HISTORY; i++)
        assert_int_equal(l.history[i][HP_MEASURE_CPU_USE], HP_LOAD_UNKNOWN);
}

static void shares_are_of_what_the_machine_has(void **state)
{
    Harpoon__V1__HostMetrics m = HARPOON__V1__HOST_METRICS__INIT;
    Harpoon__V1__HostFacts f = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    struct hp_load_sample s;
    f.cpu_millis = 8000;
    all.cpu_millis = 4000; /* containers may have half of it; the rest of the load is of others */
    all.memory_bytes = 1000;
    m.cpu_millis_used = 6000;
    m.memory_bytes_used = 2000;
    m.psi_cpu_some = 2500;
    m.psi_io_full = -1;
    m.network_use = 9000;
    m.io_use = -1;
    hp_load_sample(&m, &f, &all, &s);
    assert_float_equal(s.share[HP_MEASURE_CPU_USE], 0.75, 0.001);
    assert_float_equal(s.share[HP_MEASURE_MEMORY_USE], 1, 0);
    assert_float_equal(s.share[HP_MEASURE_CPU_SOME], 0.25, 0.001);
    assert_float_equal(s.share[HP_MEASURE_NETWORK_USE], 0.9, 0.001);
    assert_true(s.share[HP_MEASURE_IO_FULL] < 0 && s.share[HP_MEASURE_IO_USE] < 0);
    hp_load_sample(&m, NULL, NULL, &s);
    assert_true(s.share[HP_MEASURE_CPU_USE] < 0 && s.share[HP_MEASURE_MEMORY_USE] < 0);
}

static void containers_need_what_they_ask_for(void **state)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__NetworkSpec net = HARPOON__V1__NETWORK_SPEC__INIT;
    assert_int_equal(hp_spec_needs(NULL), CPU | MEMORY);
    assert_int_equal(hp_spec_needs(&spec), CPU | MEMORY | NETWORK); /* a bridge, when nothing is said */
    spec.network = &net;
    net.mode = HARPOON__V1__NETWORK_MODE__NETWORK_MODE_NONE;
    spec.resources = &x;
    assert_int_equal(hp_spec_needs(&spec), CPU | MEMORY);
    x.io_write_bps = 1;
    assert_int_equal(hp_spec_needs(&spec), CPU | MEMORY | IO);
}

static void texts_name_figure_and_limit(void **state)
{
    char text[128];
    struct hp_load l = {0};
    hp_load_text(&l, &plain, HP_RESOURCE_CPU, text, sizeof text);
    assert_string_equal(text, "cpu: not measured");
    take(&l, &plain, 0, HP_MEASURE_CPU_USE, 0.815);
    hp_load_text(&l, &plain, HP_RESOURCE_CPU, text, sizeof text);
    assert_string_equal(text, "cpu: use 81.5 % (limit 80 %)");
    l.average[HP_MEASURE_MEMORY_USE] = 0.5F;
    l.average[HP_MEASURE_MEMORY_FULL] = 0.25F;
    hp_load_text(&l, &plain, HP_RESOURCE_MEMORY, text, sizeof text);
    assert_string_equal(text, "memory: use 50.0 % (limit 90 %), pressure 25.0 % (limit 10 %)");
    l.average[HP_MEASURE_IO_FULL] = 0.5F;
    hp_load_text(&l, &plain, HP_RESOURCE_IO, text, sizeof text);
    assert_string_equal(text, "io: pressure 50.0 % (limit 40 %)");
    assert_int_equal(hp_resource_find("network"), HP_RESOURCE_NETWORK);
    assert_int_equal(hp_resource_find("disk"), HP_RESOURCE_COUNT);
    assert_string_equal(hp_measure_name(HP_MEASURE_IO_FULL), "io_full");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_breaker_opens_after_its_time_at_the_limit),
        cmocka_unit_test(one_sample_below_the_limit_starts_the_time_anew),
        cmocka_unit_test(it_closes_only_well_below_the_limit_and_after_its_time),
        cmocka_unit_test(closing_counts_without_a_break),
        cmocka_unit_test(each_resource_has_its_own),
        cmocka_unit_test(silence_counts_neither_for_opening_nor_for_closing),
        cmocka_unit_test(what_is_not_measured_opens_nothing_and_keeps_nothing_open),
        cmocka_unit_test(averages_follow_with_their_time_constant),
        cmocka_unit_test(what_was_not_heard_from_is_never_idle),
        cmocka_unit_test(history_keeps_the_highest_of_each_minute),
        cmocka_unit_test(shares_are_of_what_the_machine_has),
        cmocka_unit_test(containers_need_what_they_ask_for),
        cmocka_unit_test(texts_name_figure_and_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
