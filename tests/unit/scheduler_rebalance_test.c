/* scheduler_rebalance_test.c — moves that would be worth their while: what is proposed, and that nothing is changed by asking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/containers.h"
#include "core/state.h"
#include "lib/sc_world.h"

#define P(x) HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_##x

static void create(struct scw *w, unsigned id, int64_t cpu, bool stateless)
{
    char name[16];
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    snprintf(name, sizeof name, "c%u", id);
    x.cpu_millis = cpu;
    x.memory_bytes = 64 << 20;
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.stateless = stateless;
    scw_create_spec(w, id, name, &spec, 0);
    scw_done(w, "h1", scw_uid(w, name), 1);
}

static Harpoon__V1__ProposeMovesResponse *ask(struct scw *w, int max, double gain)
{
    Harpoon__V1__ProposeMovesRequest q = HARPOON__V1__PROPOSE_MOVES_REQUEST__INIT;
    q.max_moves = max;
    q.min_gain = gain;
    Harpoon__V1__ProposeMovesResponse *m = sc_rebalance(w->region, &q);
    assert_non_null(m);
    sc_region_check(w->region); /* all is put back */
    return m;
}

/* Eight containers came while there was one host; then there are three. */
static struct scw *world(void)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    for (unsigned i = 1; i <= 8; i++)
        create(w, i, 500, i != 8);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_attach(w, "h3", 1, 4000, 8192);
    return w;
}

static void the_full_host_gives_and_each_move_gains(void **state)
{
    struct scw *w = world();
    Harpoon__V1__ProposeMovesResponse *m = ask(w, 0, 0);
    assert_in_range(m->n_moves, 4, 7);
    assert_int_equal(m->examined, 7);
    double before = 101;
    int to[4] = {0};
    for (size_t i = 0; i < m->n_moves; i++) {
        assert_string_equal(m->moves[i]->from, "regions/r1/hosts/h1");
        assert_string_not_equal(m->moves[i]->container, "projects/p/regions/r1/containers/c8"); /* not stateless */
        assert_true(m->moves[i]->gain >= 1 && m->moves[i]->gain <= before);                     /* less and less */
        before = m->moves[i]->gain;
        to[m->moves[i]->to[strlen(m->moves[i]->to) - 1] - '0']++;
    }
    assert_in_range(to[2] - to[3] + 1, 0, 2); /* not all to the same one */
    assert_true(m->imbalance_after < m->imbalance_before / 3);
    harpoon__v1__propose_moves_response__free_unpacked(m, NULL);
    scw_free(w);
}

static void it_is_bounded_and_says_nothing_when_nothing_is_gained(void **state)
{
    struct scw *w = world();
    Harpoon__V1__ProposeMovesResponse *m = ask(w, 2, 0);
    assert_int_equal(m->n_moves, 2);
    harpoon__v1__propose_moves_response__free_unpacked(m, NULL);
    m = ask(w, 100, 99);
    assert_int_equal(m->n_moves, 0);
    assert_true(m->imbalance_after == m->imbalance_before);
    harpoon__v1__propose_moves_response__free_unpacked(m, NULL);
    scw_verb(w, 20, P(CORDON), "h2", "");
    scw_verb(w, 21, P(CORDON), "h3", "");
    m = ask(w, 0, 0);
    assert_int_equal(m->n_moves, 0);
    harpoon__v1__propose_moves_response__free_unpacked(m, NULL);
    scw_free(w);
}

/* Asked twice it says the same, and what is done in the order of the list is worth what was said. */
static void what_was_proposed_can_be_done(void **state)
{
    struct scw *w = world();
    Harpoon__V1__ProposeMovesResponse *m = ask(w, 0, 0), *again = ask(w, 0, 0);
    assert_int_equal(m->n_moves, again->n_moves);
    for (size_t i = 0; i < m->n_moves; i++)
        assert_string_equal(m->moves[i]->container, again->moves[i]->container);
    for (size_t i = 0; i < m->n_moves; i++) {
        const char *name = strrchr(m->moves[i]->container, '/') + 1, *to = strrchr(m->moves[i]->to, '/') + 1;
        struct sc_container *c = sc_container_find(w->region, m->moves[i]->container);
        scw_verb(w, 30 + (unsigned)i, P(MOVE), name, "");
        scw_done(w, "h1", scw_uid(w, name), c->generation);
        assert_string_equal(c->host->info.name, to); /* the best is what was proposed */
        scw_done(w, to, scw_uid(w, name), c->generation);
    }
    Harpoon__V1__ProposeMovesResponse *rest = ask(w, 0, 0);
    assert_int_equal(rest->n_moves, 0);
    harpoon__v1__propose_moves_response__free_unpacked(rest, NULL);
    harpoon__v1__propose_moves_response__free_unpacked(again, NULL);
    harpoon__v1__propose_moves_response__free_unpacked(m, NULL);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_full_host_gives_and_each_move_gains),
        cmocka_unit_test(it_is_bounded_and_says_nothing_when_nothing_is_gained),
        cmocka_unit_test(what_was_proposed_can_be_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
