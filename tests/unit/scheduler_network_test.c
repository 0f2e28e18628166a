/* scheduler_network_test.c — network modes, functions that are handed out one by one, and bandwidth, as claims of containers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/network.h"
#include "core/operations.h"
#include "core/state.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x
#define MODE(x) HARPOON__V1__NETWORK_MODE__NETWORK_MODE_##x
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED

/* Offers BRIDGE, and the mode (0: no other); MB/s. */
static void attach(struct scw *w, const char *host, int mode, int functions, int mbps)
{
    Harpoon__Internal__V1__Report m = HARPOON__INTERNAL__V1__REPORT__INIT;
    Harpoon__Internal__V1__AgentHello hello = HARPOON__INTERNAL__V1__AGENT_HELLO__INIT;
    Harpoon__Internal__V1__InventoryDigest d = HARPOON__INTERNAL__V1__INVENTORY_DIGEST__INIT;
    Harpoon__V1__Resources all = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__HostFacts facts = HARPOON__V1__HOST_FACTS__INIT;
    Harpoon__V1__NetworkMode modes[] = {MODE(BRIDGE), (Harpoon__V1__NetworkMode)mode};
    all.cpu_millis = 4000;
    all.memory_bytes = 8LL << 30;
    all.network_bps = mbps * 1000000LL;
    facts.network_modes = modes;
    facts.n_network_modes = mode ? 2 : 1;
    facts.network_functions = functions;
    hello.session = m.session = 1;
    hello.allocatable = &all;
    hello.facts = &facts;
    hello.digest = &d;
    m.body_case = HARPOON__INTERNAL__V1__REPORT__BODY_ATTACH;
    m.attach = &hello;
    scw_report(w, host, &m);
    sc_region_check(w->region);
}

static struct sc_container *container(struct scw *w, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    return sc_container_find(w->region, full);
}

struct wish {
    Harpoon__V1__ContainerSpec spec;
    Harpoon__V1__Resources x;
    Harpoon__V1__NetworkSpec network;
};

static void fill(struct wish *q, int mode, int mbps)
{
    harpoon__v1__container_spec__init(&q->spec);
    harpoon__v1__resources__init(&q->x);
    harpoon__v1__network_spec__init(&q->network);
    q->x.cpu_millis = 100;
    q->x.memory_bytes = 64 << 20;
    q->x.network_bps = mbps * 1000000LL;
    q->network.mode = (Harpoon__V1__NetworkMode)mode;
    q->spec.image = (char *)"oci:/x:1";
    q->spec.resources = &q->x;
    q->spec.network = &q->network;
    q->spec.stateless = true;
}

/* Its host; "": it waits. */
static const char *create(struct scw *w, unsigned id, const char *name, int mode, int mbps)
{
    struct wish q;
    fill(&q, mode, mbps);
    scw_create_spec(w, id, name, &q.spec, 0);
    sc_region_check(w->region);
    const struct sc_container *c = container(w, name);
    return c->host ? c->host->info.name : "";
}

static const char *why_waits(struct scw *w, const char *name)
{
    return sc_body(container(w, name))->status->message;
}

static int64_t functions(struct scw *w, const char *host)
{
    return ((struct sc_host *)hp_map_get(&w->region->hosts, host))->info.claimed.functions;
}

static void done(struct scw *w, const char *name)
{
    const struct sc_container *c = container(w, name);
    char uid[27], host[64];
    snprintf(uid, sizeof uid, "%s", c->uid);
    snprintf(host, sizeof host, "%s", c->host->info.name);
    scw_done(w, host, uid, w->commands[w->command_count - 1].generation);
    sc_region_check(w->region);
}

/* The host has removed it. */
static void removed(struct scw *w, const char *name)
{
    const struct scw_command x = w->commands[w->command_count - 1];
    assert_string_equal(x.uid, scw_uid(w, name));
    scw_result(w, x.host, x.uid, x.generation, HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE,
               HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_DELETED, NULL);
    sc_region_check(w->region);
}

static void a_container_goes_where_its_mode_is_offered(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192); /* says nothing: BRIDGE */
    attach(w, "h2", MODE(MACVLAN), 0, 0);
    assert_string_equal(create(w, 1, "c1", MODE(UNSPECIFIED), 0), "h1");
    assert_string_equal(create(w, 2, "c2", MODE(MACVLAN), 0), "h2");
    assert_string_equal(create(w, 3, "c3", MODE(NONE), 0), "h1");
    assert_string_equal(create(w, 4, "c4", MODE(OVERLAY), 0), "");
    assert_string_equal(why_waits(w, "c4"), "waits for a host: none of 2 fits (2 without the network mode)");
    assert_string_equal(create(w, 5, "c5", 7, 0), ""); /* of a later version: better nowhere */
    attach(w, "h3", MODE(OVERLAY), 0, 0);
    assert_string_equal(container(w, "c4")->host->info.name, "h3"); /* it woke */
    scw_free(w);
}

static void there_are_never_more_containers_than_functions(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", MODE(SRIOV), 2, 0);
    attach(w, "h2", 0, 0, 0);
    assert_string_equal(create(w, 1, "c1", MODE(SRIOV), 0), "h1");
    done(w, "c1");
    assert_string_equal(create(w, 2, "c2", MODE(SRIOV), 0), "h1");
    done(w, "c2");
    assert_string_equal(create(w, 3, "c3", MODE(SRIOV), 0), "");
    assert_string_equal(
        why_waits(w, "c3"),
        "waits for a host: none of 2 fits (1 without the network mode, 1 without a network function left)");
    /* The next reign knows them, too. */
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_equal(functions(w, "h1"), 2);
    assert_string_equal(create(w, 4, "c4", MODE(SRIOV), 0), "");
    /* One that is stopped keeps its function; one that is deleted gives it back when its host has confirmed. */
    scw_verb(w, 5, P(DELETE), "c2", NULL);
    assert_int_equal(functions(w, "h1"), 2);
    removed(w, "c2");
    assert_string_equal(container(w, "c3")->host->info.name, "h1");
    assert_null(container(w, "c4")->host);
    assert_int_equal(functions(w, "h1"), 2);
    scw_free(w);
}

static void a_refused_one_takes_its_function_elsewhere(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", MODE(SRIOV), 1, 0);
    assert_string_equal(create(w, 1, "c1", MODE(SRIOV), 0), "h1");
    attach(w, "h2", MODE(SRIOV), 1, 0);
    char uid[27];
    snprintf(uid, sizeof uid, "%s", scw_uid(w, "c1"));
    scw_result(w, "h1", uid, 1, REFUSED, 0, "no network function is left");
    sc_region_check(w->region);
    assert_string_equal(container(w, "c1")->host->info.name, "h2");
    assert_int_equal(functions(w, "h1"), 0);
    assert_int_equal(functions(w, "h2"), 1);
    scw_free(w);
}

static void a_move_holds_a_function_at_both_ends(void **state)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__MoveContainerRequest m = HARPOON__V1__MOVE_CONTAINER_REQUEST__INIT;
    struct scw *w = scw_new(NULL);
    attach(w, "h1", MODE(SRIOV), 1, 1000);
    assert_string_equal(create(w, 1, "c1", MODE(SRIOV), 10), "h1");
    done(w, "c1");
    attach(w, "h2", MODE(SRIOV), 1, 1000);
    m.name = (char *)"projects/p/regions/r1/containers/c1";
    q.project = (char *)"p";
    q.payload_case = P(MOVE);
    q.move = &m;
    scw_request(w, 2, &q);
    sc_region_check(w->region);
    assert_int_equal(functions(w, "h1"), 1);
    assert_int_equal(functions(w, "h2"), 1);
    scw_takeover(w);
    sc_region_check(w->region);
    assert_int_equal(functions(w, "h2"), 1);
    removed(w, "c1");
    assert_string_equal(container(w, "c1")->host->info.name, "h2");
    assert_int_equal(functions(w, "h1"), 0);
    assert_int_equal(functions(w, "h2"), 1);
    scw_free(w);
}

static void bandwidth_is_claimed_with_overcommit(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", 0, 0, 100); /* 150 with overcommit */
    attach(w, "h2", 0, 0, 0);   /* not known */
    assert_string_equal(create(w, 1, "c1", MODE(BRIDGE), 90), "h1");
    done(w, "c1");
    assert_string_equal(create(w, 2, "c2", MODE(BRIDGE), 61), "");
    assert_string_equal(why_waits(w, "c2"), "waits for a host: none of 2 fits (2 short of network bandwidth)");
    assert_string_equal(create(w, 3, "c3", MODE(BRIDGE), 60), "h1");
    done(w, "c3");
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__ResizeContainerRequest m = HARPOON__V1__RESIZE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    m.name = (char *)"projects/p/regions/r1/containers/c1";
    m.resources = &x;
    q.project = (char *)"p";
    q.payload_case = P(RESIZE);
    q.resize = &m;
    x.network_bps = 90000001;
    scw_request(w, 4, &q);
    assert_string_equal(w->verdict_reason, "HOST_FULL");
    x.network_bps = 20000000; /* the larger counts until the host has confirmed the smaller */
    scw_request(w, 5, &q);
    assert_null(container(w, "c2")->host);
    done(w, "c1");
    assert_string_equal(container(w, "c2")->host->info.name, "h1");
    assert_int_equal(container(w, "c2")->host->info.claimed.network_bps, 141000000);
    x.network_bps = SC_NETWORK_BPS_MAX + 1;
    scw_request(w, 6, &q);
    assert_string_equal(w->verdict_reason, "INVALID_FIELD");
    scw_free(w);
}

static void update(struct scw *w, unsigned id, const char *name, int mode)
{
    Harpoon__Internal__V1__Request q = HARPOON__INTERNAL__V1__REQUEST__INIT;
    Harpoon__V1__UpdateContainerRequest m = HARPOON__V1__UPDATE_CONTAINER_REQUEST__INIT;
    Harpoon__V1__Container c = HARPOON__V1__CONTAINER__INIT;
    struct wish wish;
    char full[96];
    fill(&wish, mode, 0);
    wish.spec.resources = NULL;
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    c.name = full;
    c.spec = &wish.spec;
    m.container = &c;
    q.project = (char *)"p";
    q.payload_case = P(UPDATE);
    q.update = &m;
    scw_request(w, id, &q);
    sc_region_check(w->region);
}

static void an_update_changes_the_mode_within_what_the_host_has(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", MODE(SRIOV), 1, 0);
    assert_string_equal(create(w, 1, "c1", MODE(BRIDGE), 0), "h1");
    done(w, "c1");
    assert_string_equal(create(w, 2, "c2", MODE(BRIDGE), 0), "h1");
    done(w, "c2");
    update(w, 3, "c1", MODE(MACVLAN));
    assert_string_equal(w->verdict_reason, "NETWORK_MODE_NOT_OFFERED");
    update(w, 4, "c1", MODE(SRIOV));
    assert_int_equal(functions(w, "h1"), 1);
    done(w, "c1");
    update(w, 5, "c2", MODE(SRIOV));
    assert_string_equal(w->verdict_reason, "HOST_FULL");
    /* Back: its function goes when the host has confirmed that. */
    update(w, 6, "c1", MODE(BRIDGE));
    assert_int_equal(functions(w, "h1"), 1);
    scw_takeover(w);
    assert_int_equal(functions(w, "h1"), 1);
    done(w, "c1");
    assert_int_equal(functions(w, "h1"), 0);
    scw_free(w);
}

static void functions_are_left_to_those_that_ask_and_used_evenly(void **state)
{
    struct scw *w = scw_new(NULL);
    attach(w, "h1", MODE(SRIOV), 4, 0);
    attach(w, "h2", MODE(SRIOV), 4, 0);
    attach(w, "h3", 0, 0, 0);
    assert_string_equal(create(w, 1, "c1", MODE(BRIDGE), 0), "h3");
    assert_string_equal(create(w, 2, "c2", MODE(BRIDGE), 0), "h3"); /* though it is the fullest */
    assert_string_equal(create(w, 3, "c3", MODE(SRIOV), 0), "h1");
    assert_string_equal(create(w, 4, "c4", MODE(SRIOV), 0), "h2");
    assert_string_equal(create(w, 5, "c5", MODE(SRIOV), 0), "h1");
    assert_string_equal(create(w, 6, "c6", MODE(SRIOV), 0), "h2");
    scw_free(w);
}

static void explain_says_what_is_missing(void **state)
{
    static const char *const expected[] = {
        "h1: network_mode: does not offer network mode SRIOV",
        "h2: capacity_functions: needs a network function, 0 of 1 are free",
        "h3: capacity_network: needs 50000000 bytes per second of network, 40000000 of 150000000 are free",
        "h4: capacity_network: needs 50000000 bytes per second of network, its capacity is not known"};
    struct scw *w = scw_new(NULL);
    struct wish wish;
    struct sc_query q;
    Harpoon__V1__ExplainResponse *m;
    attach(w, "h1", 0, 0, 100);
    attach(w, "h2", MODE(SRIOV), 1, 100);
    assert_string_equal(create(w, 1, "c1", MODE(SRIOV), 0), "h2");
    attach(w, "h3", MODE(SRIOV), 2, 100);
    assert_string_equal(create(w, 2, "c2", MODE(SRIOV), 110), "h3");
    attach(w, "h4", MODE(SRIOV), 2, 0);
    fill(&wish, MODE(SRIOV), 50);
    struct sc_res need = sc_spec_res(&wish.spec);
    sc_query_init(w->region, &q, &need, &wish.spec, "p", NULL);
    assert_int_equal(sc_place_explain(w->region->slots, w->region->slot_count, &q, "r1", 10, &m), 0);
    assert_int_equal(m->n_hosts, 4);
    for (size_t i = 0; i < 4; i++) {
        char text[256];
        snprintf(text, sizeof text, "%s: %s: %s", m->hosts[i]->host + strlen("regions/r1/hosts/"),
                 m->hosts[i]->rejected_by, m->hosts[i]->detail);
        assert_string_equal(text, expected[i]);
    }
    harpoon__v1__explain_response__free_unpacked(m, NULL);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_container_goes_where_its_mode_is_offered),
        cmocka_unit_test(there_are_never_more_containers_than_functions),
        cmocka_unit_test(a_refused_one_takes_its_function_elsewhere),
        cmocka_unit_test(a_move_holds_a_function_at_both_ends),
        cmocka_unit_test(bandwidth_is_claimed_with_overcommit),
        cmocka_unit_test(an_update_changes_the_mode_within_what_the_host_has),
        cmocka_unit_test(functions_are_left_to_those_that_ask_and_used_evenly),
        cmocka_unit_test(explain_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
