/* scheduler_move_test.c — containers go from host to host: by their owner's wish, and when a host is drained. */
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
#define OUTCOME(x) HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_##x

struct want {
    bool stays, volume;
    const char *apart, *pair, *host, *spread; /* over hosts, as evenly as can be */
    int64_t cpu;
};

static struct sc_container *container(struct scw *w, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    struct sc_container *c = sc_container_find(w->region, full);
    assert_non_null(c);
    return c;
}

static const char *host_of(struct scw *w, const char *name)
{
    const struct sc_container *c = container(w, name);
    return c->host ? c->host->info.name : "";
}

static int stage_of(struct scw *w, unsigned id)
{
    char hex[33];
    snprintf(hex, sizeof hex, "%032x", id);
    const struct scw_row *row = scw_find(&w->operations, hex);
    assert_non_null(row);
    return row->stage;
}

/* Why an operation waits, or how it ended, as recorded. */
static const char *said_of(struct scw *w, unsigned id)
{
    static char text[512];
    char hex[33];
    snprintf(hex, sizeof hex, "%032x", id);
    const struct scw_row *row = scw_find(&w->operations, hex);
    Harpoon__Internal__V1__OperationRecord *m =
        harpoon__internal__v1__operation_record__unpack(NULL, row->body->len, row->body->bytes);
    snprintf(text, sizeof text, "%s", m->operation->error ? m->operation->error->message : m->operation->reason);
    harpoon__internal__v1__operation_record__free_unpacked(m, NULL);
    return text;
}

/* The host has done what it was last asked for with the container's present uid. */
static void done(struct scw *w, const char *name)
{
    const struct sc_container *c = container(w, name);
    assert_non_null(c->host);
    for (size_t i = w->command_count; i > 0; i--) {
        const struct scw_command *x = &w->commands[i - 1];
        if (strcmp(x->uid, c->uid) != 0 || !x->verb)
            continue;
        char uid[27];
        strcpy(uid, x->uid);
        scw_done(w, c->host->info.name, uid, x->generation);
        sc_region_check(w->region);
        return;
    }
    fail();
}

static void create(struct scw *w, unsigned id, const char *name, const struct want *want)
{
    Harpoon__V1__ContainerSpec spec = HARPOON__V1__CONTAINER_SPEC__INIT;
    Harpoon__V1__Resources x = HARPOON__V1__RESOURCES__INIT;
    Harpoon__V1__PlacementSpec p = HARPOON__V1__PLACEMENT_SPEC__INIT;
    Harpoon__V1__SpreadConstraint over = HARPOON__V1__SPREAD_CONSTRAINT__INIT, *overs = &over;
    Harpoon__V1__VolumeMount v = HARPOON__V1__VOLUME_MOUNT__INIT, *vs = &v;
    x.cpu_millis = want->cpu ? want->cpu : 100;
    x.memory_bytes = 64 << 20;
    v.volume = (char *)"data";
    spec.image = (char *)"oci:/x:1";
    spec.resources = &x;
    spec.stateless = !want->stays;
    spec.volumes = &vs;
    spec.n_volumes = want->volume;
    p.anti_affinity_group = (char *)(want->apart ? want->apart : "");
    p.affinity_group = (char *)(want->pair ? want->pair : "");
    p.host = (char *)(want->host ? want->host : "");
    over.topology = HARPOON__V1__TOPOLOGY__TOPOLOGY_HOST;
    over.max_skew = 1;
    p.spread_group = (char *)(want->spread ? want->spread : "");
    p.spread_constraints = &overs;
    p.n_spread_constraints = want->spread != NULL;
    spec.placement = &p;
    scw_create_spec(w, id, name, &spec, 0);
    if (container(w, name)->host)
        done(w, name);
}

/* h1 has c1 … of the wants; then the other hosts attach. */
static struct scw *world(const struct want *wants, unsigned count, int others)
{
    char name[16];
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "c%u", i + 1);
        create(w, i + 1, name, &wants[i]);
        assert_string_equal(host_of(w, name), "h1");
    }
    for (int i = 0; i < others; i++) {
        snprintf(name, sizeof name, "h%d", i + 2);
        scw_attach(w, name, 1, 4000, 8192);
    }
    scw_clear(w);
    return w;
}

static int count_moving(struct scw *w)
{
    int n = 0;
    for (struct hp_map_node *x = hp_map_first(&w->region->operations); x; x = hp_map_next(x)) {
        const struct sc_operation *op = x->value;
        n += op->active && op->verb == HARPOON__V1__VERB__VERB_MOVE;
    }
    return n;
}

/* ---- One container ---- */

static void a_move_takes_the_place_first_and_makes_it_last(void **state)
{
    char old[27];
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    strcpy(old, container(w, "c1")->uid);
    scw_verb(w, 9, P(MOVE), "c1", "");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_DISPATCHED);
    assert_non_null(strstr(w->trace, "command h1 REMOVE c1 gen=3"));
    assert_null(strstr(w->trace, "command h2")); /* nothing is made before it is gone */
    const struct sc_host *h2 = hp_map_get(&w->region->hosts, "h2");
    assert_int_equal(h2->info.claimed.cpu_millis, 100); /* but its place is taken */
    scw_clear(w);
    done(w, "c1");
    assert_non_null(strstr(w->trace, "command h2 ENSURE c1 gen=4"));
    assert_string_equal(host_of(w, "c1"), "h2");
    assert_string_not_equal(container(w, "c1")->uid, old);
    assert_int_equal(h2->info.claimed.cpu_millis, 100);
    assert_int_equal(((struct sc_host *)hp_map_get(&w->region->hosts, "h1"))->info.claimed.cpu_millis, 0);
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_DISPATCHED);
    done(w, "c1");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_int_equal(sc_body(container(w, "c1"))->status->state, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING);
    scw_clear(w);
    scw_takeover(w);
    assert_null(strstr(w->trace, "command h"));
    scw_free(w);
}

static void a_takeover_in_the_middle_goes_on(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    scw_verb(w, 9, P(MOVE), "c1", "");
    scw_clear(w);
    scw_takeover(w);
    assert_non_null(strstr(w->trace, "command h1 REMOVE c1 gen=3"));
    assert_int_equal(((struct sc_host *)hp_map_get(&w->region->hosts, "h2"))->info.claimed.cpu_millis, 100);
    sc_region_check(w->region);
    create(w, 10, "big", &(struct want){.cpu = 5950, .host = "h2"}); /* the place is not given away */
    assert_string_equal(host_of(w, "big"), "");
    done(w, "c1");
    scw_clear(w);
    scw_takeover(w);
    assert_non_null(strstr(w->trace, "command h2 ENSURE c1 gen=4"));
    done(w, "c1");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

static void a_place_that_refuses_or_fails_is_followed_by_another(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 2);
    scw_verb(w, 8, P(CORDON), "h1", "");
    scw_verb(w, 9, P(MOVE), "c1", "");
    done(w, "c1");
    char first[8], second[8];
    snprintf(first, sizeof first, "%s", host_of(w, "c1"));
    scw_result(w, first, container(w, "c1")->uid, container(w, "c1")->generation, OUTCOME(REFUSED), 0, "full");
    snprintf(second, sizeof second, "%s", host_of(w, "c1"));
    assert_string_not_equal(second, first);
    /* It cannot make it: what it may have of it goes before another one is asked. */
    scw_clear(w);
    scw_result(w, second, container(w, "c1")->uid, container(w, "c1")->generation, OUTCOME(FAILED), 6, "no image");
    assert_string_equal(host_of(w, "c1"), second);
    assert_true(container(w, "c1")->leaving);
    assert_non_null(strstr(w->trace, "REMOVE c1"));
    assert_null(strstr(w->trace, "ENSURE"));
    done(w, "c1");
    assert_string_equal(host_of(w, "c1"), ""); /* it waits, as a create does */
    scw_cancel(w, 10, 9);
    assert_string_equal(w->verdict_reason, "OPERATION_DISPATCHED");
    scw_takeover(w);
    scw_verb(w, 11, P(UNCORDON), "h1", "");
    assert_string_equal(host_of(w, "c1"), "h1");
    done(w, "c1");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

static void what_may_not_move_says_why(void **state)
{
    const struct want wants[] = {{.stays = true}, {.volume = true}, {.host = "h1"}, {0}};
    struct scw *w = world(wants, 4, 1);
    for (unsigned i = 0; i < 3; i++) {
        scw_verb(w, 10 + i, P(MOVE), (const char *[]){"c1", "c2", "c3"}[i], "");
        assert_string_equal(w->verdict_reason, "CONTAINER_STAYS");
    }
    scw_observe(w, "h1", scw_uid(w, "c4"), 1, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED, "exited");
    scw_verb(w, 20, P(MOVE), "c4", ""); /* a job that is done is not done twice */
    assert_string_equal(w->verdict_reason, "CONTAINER_STAYS");
    scw_verb(w, 21, P(MOVE), "none", "");
    assert_string_equal(w->verdict_reason, "CONTAINER_NOT_FOUND");
    scw_free(w);
}

static void without_another_place_it_stays(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 0);
    scw_verb(w, 9, P(MOVE), "c1", "");
    assert_string_equal(w->verdict_reason, "NO_PLACE");
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_verb(w, 10, P(STOP), "c1", "");
    scw_verb(w, 11, P(MOVE), "c1", ""); /* behind the stop */
    assert_int_equal(stage_of(w, 11), HARPOON__V1__STAGE__STAGE_RECORDED);
    scw_verb(w, 12, P(CORDON), "h2", "");
    done(w, "c1");
    assert_int_equal(stage_of(w, 11), HARPOON__V1__STAGE__STAGE_FAILED);
    done(w, "c1"); /* told the generation that counts now */
    assert_string_equal(host_of(w, "c1"), "h1");
    scw_free(w);
}

static void it_can_be_called_back_until_it_was_sent(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    scw_verb(w, 9, P(MOVE), "c1", "");
    scw_cancel(w, 10, 9);
    assert_string_equal(w->verdict_reason, "OPERATION_DISPATCHED");
    done(w, "c1");
    done(w, "c1");
    scw_verb(w, 11, P(STOP), "c1", "");
    scw_verb(w, 12, P(MOVE), "c1", "");
    scw_cancel(w, 13, 12);
    assert_int_equal(stage_of(w, 12), HARPOON__V1__STAGE__STAGE_CANCELLED);
    done(w, "c1");
    done(w, "c1");
    assert_string_equal(host_of(w, "c1"), "h2");
    assert_false(container(w, "c1")->sync);
    /* Nor does one begin while the host cannot be asked. */
    scw_detach(w, "h2", 1);
    scw_verb(w, 14, P(MOVE), "c1", "");
    assert_string_equal(w->verdict_reason, "HOST_SILENT");
    scw_free(w);
}

/* Once it is on its way it has no place but the one that it gets: its deadline does not end it, and a delete does. */
static void past_its_deadline_it_goes_on(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    scw_verb(w, 9, P(MOVE), "c1", "");
    scw_advance(w, 2 * 3600 * 1000);
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_DISPATCHED);
    scw_takeover(w);
    scw_verb(w, 10, P(DELETE), "c1", "");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_CANCELLED);
    assert_int_equal(((struct sc_host *)hp_map_get(&w->region->hosts, "h2"))->info.claimed.cpu_millis, 0);
    done(w, "c1");
    assert_int_equal(stage_of(w, 10), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_int_equal(w->containers.count, 0);
    scw_free(w);
}

static void a_host_lost_in_the_middle_lets_it_go(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    scw_verb(w, 9, P(MOVE), "c1", "");
    scw_detach(w, "h1", 1);
    scw_verb(w, 10, P(DECLARE_LOST), "h1", "");
    assert_string_equal(host_of(w, "c1"), "h2");
    done(w, "c1");
    assert_int_equal(stage_of(w, 9), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

/* ---- A host ---- */

static void a_drain_empties_a_host_a_few_at_a_time(void **state)
{
    static const struct want wants[7] = {{0}};
    char name[16];
    struct scw *w = world(wants, 7, 2);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_RECORDED);
    for (int turn = 0; turn < 40 && stage_of(w, 20) == HARPOON__V1__STAGE__STAGE_RECORDED; turn++) {
        assert_in_range(count_moving(w), 1, 4);
        if (turn == 3)
            scw_takeover(w);
        snprintf(name, sizeof name, "c%d", turn % 7 + 1);
        const struct sc_operation *head = sc_container_head(container(w, name));
        if (head && head->stage >= HARPOON__V1__STAGE__STAGE_DISPATCHED)
            done(w, name);
    }
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_non_null(strstr(w->trace, "host.drained h1"));
    assert_int_equal(((struct sc_host *)hp_map_get(&w->region->hosts, "h1"))->container_count, 0);
    scw_free(w);
}

static void what_stays_is_told_and_fails_the_drain(void **state)
{
    const struct want wants[] = {{.stays = true}, {0}, {.volume = true}, {.stays = true}};
    struct scw *w = world(wants, 4, 1);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    assert_string_equal(said_of(w, 20),
                        "0 moved, 1 moving, 0 to move; 3 stay: 2 not stateless, 1 with volumes on the host");
    scw_verb(w, 21, P(DRAIN), "h1", "");
    assert_string_equal(w->verdict_reason, "DRAIN_UNDER_WAY");
    done(w, "c2");
    done(w, "c2");
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_FAILED);
    assert_string_equal(
        said_of(w, 20),
        "host \"h1\": 1 moved, 0 moving, 0 to move; 3 stay: 2 not stateless, 1 with volumes on the host");
    scw_verb(w, 22, P(DRAIN), "h1", ""); /* again: ends at once */
    assert_int_equal(stage_of(w, 22), HARPOON__V1__STAGE__STAGE_FAILED);
    scw_free(w);
}

static void of_a_group_one_moves_at_a_time(void **state)
{
    struct scw *w = scw_new(NULL);
    for (unsigned i = 1; i <= 4; i++)
        scw_attach(w, (const char *[]){"", "h1", "h2", "h3", "h4"}[i], 1, 4000, 8192);
    create(w, 1, "c1", &(struct want){.apart = "g"});
    create(w, 2, "c2", &(struct want){.apart = "g"});
    char one[8], two[8];
    snprintf(one, sizeof one, "%s", host_of(w, "c1"));
    snprintf(two, sizeof two, "%s", host_of(w, "c2"));
    assert_string_not_equal(one, two);
    scw_verb(w, 10, P(DRAIN), one, ""); /* two drains at once */
    scw_verb(w, 11, P(DRAIN), two, "");
    assert_int_equal(count_moving(w), 1);
    scw_verb(w, 12, P(MOVE), "c2", "");
    assert_string_equal(w->verdict_reason, "GROUP_MOVING");
    done(w, "c1");
    scw_takeover(w);
    assert_int_equal(count_moving(w), 1); /* until it runs again */
    done(w, "c1");
    assert_int_equal(count_moving(w), 1);
    assert_true(container(w, "c2")->leaving);
    done(w, "c2");
    done(w, "c2");
    assert_int_equal(stage_of(w, 10), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_int_equal(stage_of(w, 11), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    assert_string_not_equal(host_of(w, "c1"), host_of(w, "c2"));
    scw_free(w);
}

static void what_belongs_together_moves_together(void **state)
{
    const struct want wants[] = {{.pair = "g"}, {.pair = "g"}, {.pair = "g"}};
    struct scw *w = world(wants, 3, 3);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(count_moving(w), 1);
        const char *name = (const char *[]){"c1", "c2", "c3"}[i];
        done(w, name);
        done(w, name);
        assert_string_equal(host_of(w, name), host_of(w, "c1"));
    }
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

/* The one that moves does not count where it leaves: otherwise the spread of two over two hosts would keep both in place. */
static void a_spread_lets_its_members_move(void **state)
{
    struct scw *w = scw_new(NULL);
    for (unsigned i = 1; i <= 3; i++)
        scw_attach(w, (const char *[]){"", "h1", "h2", "h3"}[i], 1, 4000, 8192);
    scw_verb(w, 1, P(CORDON), "h3", "");
    create(w, 2, "c1", &(struct want){.spread = "g"});
    create(w, 3, "c2", &(struct want){.spread = "g"});
    assert_string_not_equal(host_of(w, "c1"), host_of(w, "c2"));
    scw_verb(w, 4, P(UNCORDON), "h3", "");
    scw_verb(w, 5, P(DRAIN), "h1", "");
    scw_verb(w, 6, P(DRAIN), "h2", "");
    const char *first = count_moving(w) && container(w, "c1")->leaving ? "c1" : "c2";
    const char *second = strcmp(first, "c1") ? "c1" : "c2";
    assert_int_equal(count_moving(w), 1);
    done(w, first);
    done(w, first);
    assert_string_equal(host_of(w, first), "h3");
    scw_verb(w, 7, P(UNCORDON), strcmp(host_of(w, second), "h1") ? "h1" : "h2", "");
    done(w, second);
    done(w, second);
    assert_string_not_equal(host_of(w, second), "h3");
    assert_int_equal(count_moving(w), 0);
    scw_free(w);
}

static void a_drain_waits_for_room_and_goes_on_when_there_is_some(void **state)
{
    const struct want wants[] = {{.cpu = 3000}, {.cpu = 3000}};
    struct scw *w = world(wants, 2, 0);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    assert_string_equal(said_of(w, 20), "0 moved, 0 moving, 2 to move (2 find no place); 0 stay");
    scw_attach(w, "h2", 1, 2000, 8192); /* 3,000 with overcommit */
    assert_string_equal(said_of(w, 20), "0 moved, 1 moving, 1 to move (1 find no place); 0 stay");
    done(w, "c1");
    done(w, "c1");
    scw_advance(w, 2 * 3600 * 1000); /* no room for the other one in time */
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_EXPIRED);
    assert_string_equal(host_of(w, "c2"), "h1");
    scw_free(w);
}

static void uncordon_and_cancel_end_a_drain(void **state)
{
    static const struct want wants[6] = {{0}};
    struct scw *w = world(wants, 6, 1);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    scw_verb(w, 21, P(UNCORDON), "h1", "");
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_CANCELLED);
    assert_int_equal(count_moving(w), 4); /* what was sent goes on */
    for (unsigned i = 0; i < 4; i++)
        for (int leg = 0; leg < 2; leg++)
            done(w, (const char *[]){"c1", "c2", "c3", "c4"}[i]);
    assert_int_equal(count_moving(w), 0);
    assert_string_equal(host_of(w, "c5"), "h1");
    scw_verb(w, 22, P(DRAIN), "h1", "");
    scw_cancel(w, 23, 22);
    assert_int_equal(stage_of(w, 22), HARPOON__V1__STAGE__STAGE_CANCELLED);
    assert_true(((struct sc_host *)hp_map_get(&w->region->hosts, "h1"))->pb->draining);
    scw_free(w);
}

static void a_silent_host_is_drained_when_it_is_back(void **state)
{
    struct scw *w = world((struct want[]){{0}}, 1, 1);
    scw_detach(w, "h1", 1);
    scw_verb(w, 20, P(DRAIN), "h1", "");
    assert_int_equal(count_moving(w), 0);
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_RECORDED);
    scw_attach(w, "h1", 2, 4000, 8192);
    assert_int_equal(count_moving(w), 1);
    done(w, "c1");
    done(w, "c1");
    assert_int_equal(stage_of(w, 20), HARPOON__V1__STAGE__STAGE_SUCCEEDED);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_move_takes_the_place_first_and_makes_it_last),
        cmocka_unit_test(a_takeover_in_the_middle_goes_on),
        cmocka_unit_test(a_place_that_refuses_or_fails_is_followed_by_another),
        cmocka_unit_test(what_may_not_move_says_why),
        cmocka_unit_test(without_another_place_it_stays),
        cmocka_unit_test(it_can_be_called_back_until_it_was_sent),
        cmocka_unit_test(past_its_deadline_it_goes_on),
        cmocka_unit_test(a_host_lost_in_the_middle_lets_it_go),
        cmocka_unit_test(a_drain_empties_a_host_a_few_at_a_time),
        cmocka_unit_test(what_stays_is_told_and_fails_the_drain),
        cmocka_unit_test(of_a_group_one_moves_at_a_time),
        cmocka_unit_test(what_belongs_together_moves_together),
        cmocka_unit_test(a_spread_lets_its_members_move),
        cmocka_unit_test(a_drain_waits_for_room_and_goes_on_when_there_is_some),
        cmocka_unit_test(uncordon_and_cancel_end_a_drain),
        cmocka_unit_test(a_silent_host_is_drained_when_it_is_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
