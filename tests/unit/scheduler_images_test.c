/* scheduler_images_test.c — which hosts have which images: against a model, and what a region makes of what hosts tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "core/containers.h"
#include "core/hosts.h"
#include "core/operations.h"
#include "core/state.h"
#include "lib/sc_world.h"

/* ---- Against a model ---- */

enum { HOSTS = 40, IMAGES = 60, STEPS = 4000 };

struct model {
    struct sc_images images;
    struct sc_image_set sets[HOSTS];
    bool on[HOSTS][IMAGES];
    int means[IMAGES]; /* reference → image; -1 none */
};

static char *digest(int i, char text[80])
{
    snprintf(text, 80, "sha256:%064d", i);
    return text;
}

static void expect_model(struct model *m)
{
    char text[80];
    for (int i = 0; i < IMAGES; i++) {
        char direct[128];
        size_t count = 0;
        snprintf(direct, sizeof direct, "docker://r/n@%s", digest(i, text));
        const struct sc_image *x = sc_images_find(&m->images, direct);
        for (uint32_t h = 0; h < HOSTS; h++) {
            count += m->on[h][i];
            assert_int_equal(x && sc_image_on(x->hosts, x->count, h), m->on[h][i]);
        }
        assert_int_equal(x ? x->count : 0, count);
        snprintf(direct, sizeof direct, "docker://r/n:%d", i);
        const struct sc_image *meant = sc_images_find(&m->images, direct);
        if (m->means[i] < 0)
            assert_null(meant);
        else
            assert_string_equal(meant->digest, digest(m->means[i], text));
    }
    for (uint32_t h = 0; h < HOSTS; h++)
        sc_images_check(&m->images, &m->sets[h], h);
}

/* A reference is forgotten with its image. */
static void forget(struct model *m)
{
    for (int i = 0; i < IMAGES; i++) {
        bool somewhere = false;
        for (int h = 0; h < HOSTS && m->means[i] >= 0; h++)
            somewhere |= m->on[h][m->means[i]];
        if (!somewhere)
            m->means[i] = -1;
    }
}

static void tell(struct model *m, struct hp_rng *g, uint32_t h)
{
    char texts[SC_HOST_IMAGES_MAX + 8][80], *list[SC_HOST_IMAGES_MAX + 8];
    size_t n = hp_rng_below(g, 4) ? hp_rng_below(g, 9) : hp_rng_below(g, SC_HOST_IMAGES_MAX + 8), kept = 0;
    bool before[IMAGES], changed;
    memcpy(before, m->on[h], sizeof before);
    memset(m->on[h], 0, sizeof m->on[h]);
    for (size_t i = 0; i < n; i++) {
        int image = (int)hp_rng_below(g, IMAGES);
        list[i] = digest(image, texts[i]);
        if (hp_rng_below(g, 20) == 0)
            list[i] = (char *)"sha256:none";
        else if (!m->on[h][image] && kept < SC_HOST_IMAGES_MAX)
            kept += m->on[h][image] = true;
    }
    assert_int_equal(sc_images_set(&m->images, &m->sets[h], h, list, n, &changed), 0);
    assert_int_equal(changed, memcmp(before, m->on[h], sizeof before) != 0);
}

static void it_agrees_with_a_model(void **state)
{
    struct model *m = calloc(1, sizeof *m);
    struct hp_rng g;
    char text[80], reference[64];
    bool changed;
    hp_rng_init(&g, 7);
    sc_images_init(&m->images, 1);
    memset(m->means, -1, sizeof m->means);
    for (int step = 0; step < STEPS; step++) {
        uint32_t h = (uint32_t)hp_rng_below(&g, HOSTS);
        int i = (int)hp_rng_below(&g, IMAGES), from = (int)hp_rng_below(&g, IMAGES);
        switch (hp_rng_below(&g, 3)) {
        case 0:
            tell(m, &g, h);
            break;
        case 1:
            assert_int_equal(sc_images_add(&m->images, &m->sets[h], h, digest(i, text), &changed), 0);
            if (changed)
                assert_false(m->on[h][i]);
            else
                assert_true(m->on[h][i] || m->sets[h].count == SC_HOST_IMAGES_MAX);
            m->on[h][i] |= changed;
            break;
        default:
            snprintf(reference, sizeof reference, "docker://r/n:%d", from);
            assert_int_equal(sc_images_learn(&m->images, reference, digest(i, text)), 0);
            for (h = 0; h < HOSTS && !m->on[h][i]; h++)
                ;
            if (h < HOSTS)
                m->means[from] = i;
        }
        forget(m);
        if (step % 16 == 0)
            expect_model(m);
    }
    expect_model(m);
    for (uint32_t h = 0; h < HOSTS; h++) {
        assert_int_equal(sc_images_set(&m->images, &m->sets[h], h, NULL, 0, &changed), 0);
        assert_null(m->sets[h].ids);
    }
    assert_int_equal(m->images.digests.count + m->images.references.count, 0);
    sc_images_done(&m->images);
    free(m);
}

/* ---- In a region ---- */

#define X1 "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define X2 "sha256:2222222222222222222222222222222222222222222222222222222222222222"

static void attach(struct scw *w, const char *host, int64_t session, const char *image)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest digest = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    char *images[] = {(char *)image};
    all.cpu_millis = facts.cpu_millis = 64000;
    all.memory_bytes = facts.memory_bytes = 64LL << 30;
    facts.images = images;
    facts.n_images = image != NULL;
    hello.session = m.session = session;
    hello.allocatable = &all;
    hello.facts = &facts;
    hello.digest = &digest;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
}

static void tell_with_metrics(struct scw *w, const char *host, char *image)
{
    Harpoon__Internal__V1__MetricsBatch b = HARPOON__INTERNAL__V1__METRICS_BATCH__INIT;
    Harpoon__Internal__V1__HostSample sample = HARPOON__INTERNAL__V1__HOST_SAMPLE__INIT, *samples[] = {&sample};
    Harpoon__Internal__V1__AgentMetrics metrics = HARPOON__INTERNAL__V1__AGENT_METRICS__INIT;
    char *images[] = {image};
    metrics.images = images;
    metrics.n_images = image != NULL;
    metrics.images_told = true;
    sample.host = (char *)host;
    sample.session = 1;
    sample.metrics = &metrics;
    b.router = (char *)"er1";
    b.samples = samples;
    b.n_samples = 1;
    struct sc_ev ev = {.kind = SC_EV_METRICS, .metrics = &b};
    scw_step(w, &ev);
}

/* The host where a container of this image goes. */
static const char *create(struct scw *w, unsigned id, const char *image)
{
    char name[32], full[128];
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    snprintf(name, sizeof name, "c%u", id);
    x.cpu_millis = 10;
    x.memory_bytes = 4 << 20;
    spec.image = (char *)image;
    spec.resources = &x;
    scw_create_spec(w, id, name, &spec, 0);
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct sc_container *c = sc_container_find(w->region, full);
    assert_non_null(c);
    assert_non_null(c->host);
    return c->host->info.name;
}

static void run(struct scw *w, unsigned id, const char *host, const char *found)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__CommandResult result = HARPOON__INTERNAL__V1__COMMAND_RESULT__INIT;
    Harpoon__V1__ContainerStatus status = HARPOON__V1__CONTAINER_STATUS__INIT;
    char name[16];
    snprintf(name, sizeof name, "c%u", id);
    status.state = HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING;
    status.image_digest = (char *)found;
    result.report_id = (int64_t)id;
    result.uid = (char *)scw_uid(w, name);
    result.generation = 1;
    result.epoch = w->epoch;
    result.outcome = HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE;
    result.status = &status;
    m.session = 1;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_RESULT;
    m.result = &result;
    scw_report(w, host, &m);
}

static struct scw *world(const char *on_h3)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 1, NULL);
    attach(w, "h2", 1, NULL);
    attach(w, "h3", 1, on_h3);
    return w;
}

static void a_host_that_has_the_image_is_liked_better(void **state)
{
    struct scw *w = world(X1);
    assert_string_equal(create(w, 1, "docker://r/n@" X1), "h3");
    assert_string_equal(create(w, 2, "docker://r/n@" X2), "h1"); /* nobody has it */
    assert_string_equal(create(w, 3, "docker://r/n:1"), "h2");   /* nobody knows what that is */
    scw_free(w);
}

static void what_a_reference_means_is_learned_where_it_runs(void **state)
{
    struct scw *w = world(NULL);
    assert_string_equal(create(w, 1, "oci:/x:1"), "h1");
    run(w, 1, "h1", X1);
    assert_string_equal(create(w, 2, "oci:/x:1"), "h1");
    tell_with_metrics(w, "h3", (char *)X1);
    tell_with_metrics(w, "h1", NULL); /* collected there */
    assert_string_equal(create(w, 3, "oci:/x:1"), "h3");
    scw_advance(w, w->config.settle_ms + 1);
    scw_takeover(w); /* the record has it */
    assert_string_equal(create(w, 4, "oci:/x:1"), "h3");
    tell_with_metrics(w, "h3", NULL);
    tell_with_metrics(w, "h1", NULL);
    assert_int_equal(w->region->images.digests.count + w->region->images.references.count, 0);
    assert_string_equal(create(w, 5, "oci:/x:1"), "h2");
    sc_region_check(w->region);
    scw_free(w);
}

static void it_counts_as_much_as_hosts_have_it(void **state)
{
    struct scw *w = world(X1);
    struct sc_query q;
    struct sc_res need = {.cpu_millis = 10};
    struct sc_score score;
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    spec.image = (char *)"docker://r/n@" X1;
    sc_query_init(w->region, &q, &need, &spec, "p", NULL);
    sc_slot_score(&w->region->slots[2], &q, &score);
    assert_int_equal(score.image, SC_UNIT / 3);
    sc_slot_score(&w->region->slots[0], &q, &score);
    assert_int_equal(score.image, 0);
    attach(w, "h1", 2, X1);
    sc_query_init(w->region, &q, &need, &spec, "p", NULL);
    sc_slot_score(&w->region->slots[0], &q, &score);
    assert_int_equal(score.image, SC_UNIT * 2 / 3);
    w->region->config.weights.image = 0;
    sc_query_init(w->region, &q, &need, &spec, "p", NULL);
    assert_false(q.image);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_agrees_with_a_model),
        cmocka_unit_test(a_host_that_has_the_image_is_liked_better),
        cmocka_unit_test(what_a_reference_means_is_learned_where_it_runs),
        cmocka_unit_test(it_counts_as_much_as_hosts_have_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
