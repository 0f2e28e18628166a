/* The router's core, driven by literal sequences of events; what it does is compared as text, one effect a line. Sessions and commands; reports are er_reports_test.c's. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/er_world.h"

#define V1(name) HARPOON__INTERNAL__V1__##name
typedef Harpoon__Internal__V1__AgentMessage pb_agent;
typedef Harpoon__Internal__V1__RouterCommand pb_command;

/* ---- Attaching ---- */

static void attach_is_welcomed_and_reported(void **state)
{
    struct erw w;
    (void)state;
    erw_init(&w, &erw_defaults);
    erw_broker(&w, true);
    erw_attach(&w, 1, "h1", 5);
    erw_expect(&w, "1< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
                   "publish h1#5 attach zone=z1 digest=3/77\n");
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_expect(&w, "");
    erw_disconnect(&w, 1);
    erw_expect(&w, "publish h1#5 detach connection_lost\n");
    erw_done(&w);
}

static void hello_must_match_certificate_region_and_version(void **state)
{
    struct erw w;
    (void)state;
    erw_init(&w, &erw_defaults);
    erw_connect(&w, 1, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello(&w, 1, "h2", 5), HP_ECANCELED);
    erw_expect(
        &w,
        "1< refused 7: hello: says harpoon://regions/r1/hosts/h2, the certificate says harpoon://regions/r1/hosts/h1\n"
        "1 close\n");
    erw_connect(&w, 2, NULL);
    assert_int_equal(erw_hello(&w, 2, "h2", 5), HP_ECANCELED);
    erw_expect(&w, "2< refused 7: hello: says harpoon://regions/r1/hosts/h2, the certificate says nothing\n2 close\n");
    erw_connect(&w, 3, "harpoon://regions/r2/hosts/h1");
    assert_int_equal(erw_hello_as(&w, 3, "r2", "h1", 5, 1), HP_ECANCELED);
    erw_expect(&w, "3< refused 9: hello: region r2, but this router serves r1\n3 close\n");
    erw_connect(&w, 4, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello_as(&w, 4, "r1", "h1", 5, 2), HP_ECANCELED);
    erw_expect(&w, "4< refused 9: this router speaks version 1, the agent 2 to 2\n4 close\n");
    erw_connect(&w, 5, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello(&w, 5, "H 1", 5), HP_ECANCELED);
    erw_expect(&w, "5< refused 3: hello: region, host or session is not valid\n5 close\n");
    erw_connect(&w, 6, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello(&w, 6, "h1", 0), HP_ECANCELED);
    erw_expect(&w, "6< refused 3: hello: region, host or session is not valid\n6 close\n");
    assert_int_equal(erw_send_empty(&w, 6, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), HP_ECANCELED); /* too late */
    erw_expect(&w, "");
    erw_done(&w);
}

static void first_message_is_the_hello_and_only_it(void **state)
{
    struct erw w;
    (void)state;
    erw_init(&w, &erw_defaults);
    erw_connect(&w, 1, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_send_empty(&w, 1, V1(AGENT_MESSAGE__BODY_HEARTBEAT)), HP_ECANCELED);
    erw_expect(&w, "1 close\n");
    erw_attach(&w, 2, "h1", 5);
    erw_forget(&w);
    assert_int_equal(erw_hello(&w, 2, "h1", 6), HP_ECANCELED);
    erw_expect(&w, "2 close\n");
    erw_connect(&w, 3, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(er_core_frame(w.core, w.now, w.session[3], (const uint8_t *)"\x0a\xff", 2), HP_EPROTO);
    erw_expect(&w, "3 close\n");
    erw_done(&w);
}

static void silence_before_the_hello_is_cut(void **state)
{
    struct erw w;
    (void)state;
    erw_init(&w, &erw_defaults);
    erw_connect(&w, 1, "harpoon://regions/r1/hosts/h1");
    erw_pass(&w, ER_HELLO_MS - 500);
    erw_expect(&w, "");
    erw_pass(&w, 1000);
    erw_expect(&w, "1 close\n");
    erw_done(&w);
}

static void higher_session_replaces_lower(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_connect(&w, 2, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello(&w, 2, "h1", 5), HP_ECANCELED);
    erw_expect(&w, "2< refused 6: hello: session 5, but 5 is attached\n2 close\n");
    erw_connect(&w, 4, "harpoon://regions/r1/hosts/h1");
    assert_int_equal(erw_hello(&w, 4, "h1", 4), HP_ECANCELED); /* one from before, late */
    erw_expect(&w, "4< refused 6: hello: session 4, but 5 is attached\n4 close\n");
    erw_attach(&w, 3, "h1", 6);
    erw_expect(&w, "1 close\n"
                   "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
                   "publish h1#5 detach replaced\n"
                   "publish h1#6 attach zone=z1 digest=3/77\n");
    erw_disconnect(&w, 1); /* the old connection goes: nothing more to say */
    erw_command(&w, "h1", 6, "u1", 1, 0);
    erw_expect(&w, "3< command u1/1\n");
    erw_done(&w);
}

static void attach_storm_is_admitted_in_portions(void **state)
{
    struct erw w;
    struct er_options o = erw_defaults;
    (void)state;
    o.attaches_max = 2;
    erw_init(&w, &o);
    erw_broker(&w, true);
    erw_attach(&w, 1, "h1", 5);
    erw_attach(&w, 2, "h2", 5);
    erw_forget(&w);
    erw_connect(&w, 3, "harpoon://regions/r1/hosts/h3");
    assert_int_equal(erw_hello(&w, 3, "h3", 5), HP_ECANCELED);
    erw_expect(&w, "3< refused 14 retry: too many agents attach at once\n3 close\n");
    erw_disconnect(&w, 3);
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_end_turn(&w);
    erw_attach(&w, 3, "h3", 6);
    erw_expect(&w, "3< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
                   "publish h3#6 attach zone=z1 digest=3/77\n");
    erw_disconnect(&w, 2); /* unconfirmed ones that leave make room too */
    erw_attach(&w, 4, "h4", 5);
    erw_expect(&w, "4< welcome er-1-abc v1 heartbeat=5000 metrics=5000 window=2\n"
                   "publish h2#5 detach connection_lost\n"
                   "publish h4#5 attach zone=z1 digest=3/77\n");
    erw_done(&w);
}

static void connections_have_a_limit(void **state)
{
    struct erw w;
    struct er_options o = erw_defaults;
    (void)state;
    o.sessions_max = 1;
    erw_init(&w, &o);
    erw_connect(&w, 1, NULL);
    erw_connect(&w, 2, NULL);
    assert_non_null(w.session[1]);
    assert_null(w.session[2]);
    erw_done(&w);
}

/* ---- Commands ---- */

static void window_holds_commands_back_in_order(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    for (int64_t i = 1; i <= 4; i++)
        erw_command(&w, "h1", 5, "u1", i, 0);
    erw_expect(&w, "1< command u1/1\n1< command u1/2\n");
    erw_result(&w, 1, 10, "u1", 2);
    erw_expect(&w, "1< command u1/3\npublish h1#5 result 10 u1/2\n");
    erw_result(&w, 1, 11, "u9", 9); /* of no command that is known: frees nothing */
    erw_expect(&w, "publish h1#5 result 11 u9/9\n");
    erw_result(&w, 1, 12, "u1", 1);
    erw_result(&w, 1, 13, "u1", 3);
    erw_expect(&w, "1< command u1/4\npublish h1#5 result 12 u1/1\npublish h1#5 result 13 u1/3\n");
    erw_done(&w);
}

static void window_opens_when_a_command_has_expired(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_command(&w, "h1", 5, "a", 1, 3000);
    erw_command(&w, "h1", 5, "b", 1, 100000);
    erw_command(&w, "h1", 5, "late", 1, 2000);
    erw_command(&w, "h1", 5, "c", 1, 100000);
    erw_expect(&w, "1< command a/1\n1< command b/1\n");
    w.now += 3500;
    erw_command(&w, "h1", 5, "d", 1, 100000); /* finds a's place free; c was first; late is too late itself */
    erw_expect(&w, "1< command c/1\n");
    erw_done(&w);
}

static void undeliverable_commands_come_back(void **state)
{
    struct erw w;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    erw_command(&w, "h2", 5, "u1", 1, 0);
    erw_command(&w, "h1", 4, "u1", 2, 0);
    erw_command(&w, "h1", 6, "u1", 3, 0);
    erw_expect(&w, "publish h2#5 undelivered u1/1 no_session\n"
                   "publish h1#4 undelivered u1/2 other_session\n"
                   "publish h1#6 undelivered u1/3 other_session\n");
    for (int64_t i = 0; i < 2 + ER_HELD_MAX; i++)
        erw_command(&w, "h1", 5, "u2", i, 0);
    erw_forget(&w);
    erw_command(&w, "h1", 5, "u3", 1, 0);
    erw_expect(&w, "publish h1#5 undelivered u3/1 buffer_full\n");
    er_core_command(w.core, w.now, (const uint8_t *)"\xff\xff", 2); /* poison: dropped */
    erw_expect(&w, "");
    erw_done(&w);
}

static void inventory_is_asked_of_the_right_session(void **state)
{
    struct erw w;
    pb_command m = HARPOON__INTERNAL__V1__ROUTER_COMMAND__INIT;
    Harpoon__Internal__V1__HostInventoryRequest r = HARPOON__INTERNAL__V1__HOST_INVENTORY_REQUEST__INIT;
    pb_agent answer = HARPOON__INTERNAL__V1__AGENT_MESSAGE__INIT;
    Harpoon__Internal__V1__Inventory inventory = HARPOON__INTERNAL__V1__INVENTORY__INIT;
    (void)state;
    erw_one_host(&w, &erw_defaults);
    r.host = (char *)(uintptr_t) "h1";
    r.session = 4;
    r.request_id = 9;
    m.body_case = V1(ROUTER_COMMAND__BODY_INVENTORY_REQUEST);
    m.inventory_request = &r;
    erw_route(&w, &m);
    erw_expect(&w, "");
    r.session = 5;
    erw_route(&w, &m);
    inventory.request_id = 9;
    answer.body_case = V1(AGENT_MESSAGE__BODY_INVENTORY);
    answer.inventory = &inventory;
    erw_feed(&w, 1, &answer);
    erw_expect(&w, "1< inventory? 9\npublish h1#5 inventory 9\n");
    erw_outcome(&w, 0, ER_CONFIRMED);
    erw_expect(&w, ""); /* no id: nothing to confirm */
    erw_done(&w);
}

/* ---- Size ---- */

static void session_is_small(void **state)
{
    enum { HOSTS = 2000 };
    struct erw w;
    struct er_options o = erw_defaults;
    static struct er_session *sessions[HOSTS];
    (void)state;
    o.sessions_max = o.attaches_max = HOSTS;
    erw_init(&w, &o);
    w.quiet = true;
    erw_broker(&w, true);
    size_t before = mallinfo2().uordblks;
    for (size_t i = 0; i < HOSTS; i++) {
        char uri[100], host[20];
        snprintf(host, sizeof host, "host-%zu", i);
        snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
        erw_connect(&w, 1, uri);
        sessions[i] = w.session[1];
        assert_int_equal(erw_hello(&w, 1, host, 5), 0);
        erw_end_turn(&w);
        erw_confirm_all(&w);
        erw_end_turn(&w);
        erw_pass(&w, 1);
    }
    size_t each = (mallinfo2().uordblks - before) / HOSTS;
    print_message("a session holds %zu bytes\n", each);
    assert_true(each < 1024);
    for (size_t i = 0; i < HOSTS; i++) {
        w.session[1] = sessions[i];
        erw_disconnect(&w, 1);
        erw_end_turn(&w);
        erw_confirm_all(&w);
    }
    erw_done(&w);
}

/* Announcing a fleet keeps at most ER_PUBLISH_MAX bodies in memory, and reaches everybody. */
static void announcing_a_fleet_is_bounded(void **state)
{
    enum { HOSTS = 5000 };
    struct erw w;
    struct er_options o = erw_defaults;
    static struct er_session *sessions[HOSTS];
    (void)state;
    o.sessions_max = o.attaches_max = HOSTS;
    erw_init(&w, &o);
    w.quiet = true;
    for (size_t i = 0; i < HOSTS; i++) {
        char uri[100], host[20];
        snprintf(host, sizeof host, "host-%zu", i);
        snprintf(uri, sizeof uri, "harpoon://regions/r1/hosts/%s", host);
        erw_connect(&w, 1, uri);
        sessions[i] = w.session[1];
        assert_int_equal(erw_hello(&w, 1, host, 5), 0);
    }
    erw_broker(&w, true);
    erw_end_turn(&w);
    assert_int_equal(w.pending_count, ER_PUBLISH_MAX);
    erw_confirm_all(&w);
    erw_end_turn(&w);
    assert_int_equal(w.pending_count, HOSTS - ER_PUBLISH_MAX);
    erw_confirm_all(&w);
    erw_end_turn(&w);
    assert_int_equal(w.pending_count, 0);
    for (size_t i = 0; i < HOSTS; i++) {
        w.session[1] = sessions[i];
        erw_disconnect(&w, 1);
        erw_end_turn(&w);
        erw_confirm_all(&w);
    }
    erw_done(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attach_is_welcomed_and_reported),
        cmocka_unit_test(hello_must_match_certificate_region_and_version),
        cmocka_unit_test(first_message_is_the_hello_and_only_it),
        cmocka_unit_test(silence_before_the_hello_is_cut),
        cmocka_unit_test(higher_session_replaces_lower),
        cmocka_unit_test(attach_storm_is_admitted_in_portions),
        cmocka_unit_test(connections_have_a_limit),
        cmocka_unit_test(window_holds_commands_back_in_order),
        cmocka_unit_test(window_opens_when_a_command_has_expired),
        cmocka_unit_test(undeliverable_commands_come_back),
        cmocka_unit_test(inventory_is_asked_of_the_right_session),
        cmocka_unit_test(session_is_small),
        cmocka_unit_test(announcing_a_fleet_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
