/* scheduler_lifecycle_test.c — the scheduler's core by its trace: what is committed, acknowledged, answered, published and sent, in that order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harpoon/internal/v1/record.pb-c.h"
#include "lib/sc_world.h"

#define DONE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_DONE
#define FAILED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_FAILED
#define REFUSED HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_REFUSED
#define STALE HARPOON__INTERNAL__V1__COMMAND_OUTCOME__COMMAND_OUTCOME_STALE
#define RUNNING HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_RUNNING
#define STOPPED HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_STOPPED
#define DELETE HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_DELETE
#define STOP HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_STOP
#define START HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_START
#define RESTART HARPOON__INTERNAL__V1__REQUEST__PAYLOAD_RESTART

/* A world with host h1 of 4 cores and 8 GiB. */
static struct scw *one_host(void)
{
    struct scw *w = scw_new(NULL);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_clear(w);
    return w;
}

/* And container c1, of 1 core and 1 GiB, running on it. */
static struct scw *one_container(char uid[27])
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    strcpy(uid, scw_uid(w, "c1"));
    scw_done(w, "h1", uid, 1);
    scw_clear(w);
    return w;
}

static void create_goes_all_the_way(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    scw_expect(w, "commit op=1:4+ c1:1\n"
                  "  2 operation.recorded c1 op=1\n"
                  "  3 operation.placed c1 op=1 @h1\n"
                  "  4 container.created c1 op=1 @h1\n"
                  "  5 operation.dispatched c1 op=1 @h1\n"
                  "ack requests 2\n"
                  "verdict OK op=1 stage=4\n"
                  "publish 2-5\n"
                  "command h1 ENSURE c1 gen=1 cpu=1000\n");
    const char *uid = scw_uid(w, "c1");
    scw_journalled(w, "h1", uid, 1);
    scw_expect(w, "commit op=1:5\n"
                  "  6 operation.running c1 op=1 @h1\n"
                  "ack reports 3\n"
                  "publish 6-6\n");
    scw_done(w, "h1", uid, 1);
    scw_expect(w, "commit op=1:6 c1:1\n"
                  "  7 container.running c1 op=1 @h1\n"
                  "  8 operation.succeeded c1 op=1 @h1\n"
                  "ack reports 4\n"
                  "publish 7-8\n");
    /* Reports come at least once. */
    scw_journalled(w, "h1", uid, 1);
    scw_done(w, "h1", uid, 1);
    scw_expect(w, "ack reports 5\nack reports 6\n");
    scw_free(w);
}

static void nothing_leaves_before_its_commit(void **state)
{
    struct scw *w = one_host();
    w->hold_commits = true;
    scw_create(w, 1, "c1", 1000, 1024);
    scw_create(w, 2, "c2", 1000, 1024);
    scw_create(w, 1, "c1", 1000, 1024); /* a repeat, answered from memory: it waits for the commit all the same */
    scw_expect(w, "");
    scw_commit(w);
    scw_flush(w);
    scw_expect(w, "commit op=1:4+ c1:1\n"
                  "  2 operation.recorded c1 op=1\n"
                  "  3 operation.placed c1 op=1 @h1\n"
                  "  4 container.created c1 op=1 @h1\n"
                  "  5 operation.dispatched c1 op=1 @h1\n"
                  "ack requests 2\n"
                  "verdict OK op=1 stage=4\n"
                  "publish 2-5\n"
                  "command h1 ENSURE c1 gen=1 cpu=1000\n");
    scw_commit(w);
    scw_flush(w);
    scw_expect(w, "commit op=2:4+ c2:1\n"
                  "  6 operation.recorded c2 op=2\n"
                  "  7 operation.placed c2 op=2 @h1\n"
                  "  8 container.created c2 op=2 @h1\n"
                  "  9 operation.dispatched c2 op=2 @h1\n"
                  "ack requests 4\n"
                  "verdict OK op=2 stage=4\n"
                  "verdict OK op=1 stage=4\n"
                  "publish 6-9\n"
                  "command h1 ENSURE c2 gen=1 cpu=1000\n");
    scw_free(w);
}

static void a_repeat_has_no_effect(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    int64_t sequence = w->sequence, commits = w->commits;
    scw_create(w, 1, "c1", 1000, 1024);
    scw_expect(w, "ack requests 4\nverdict OK op=1 stage=6\n");
    scw_create(w, 1, "c1", 1001, 1024); /* the same id with another payload */
    scw_expect(w, "ack requests 5\nverdict ALREADY_EXISTS REQUEST_ID_CONFLICT\n");
    assert_int_equal(w->sequence, sequence);
    assert_int_equal(w->commits, commits);
    scw_free(w);
}

static void a_repeat_of_old_is_found_in_the_record(void **state)
{
    struct sc_region_config c;
    sc_region_config_defaults(&c);
    c.recent_max = 0; /* ended operations do not stay in memory */
    struct scw *w = scw_new(&c);
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_done(w, "h1", scw_uid(w, "c1"), 1);
    scw_create(w, 2, "c2", 1000, 1024);
    scw_done(w, "h1", scw_uid(w, "c2"), 1);
    scw_clear(w);
    assert_int_equal(w->lookups, 0); /* all ids are in memory: what is new needs no look */
    scw_create(w, 1, "c1", 1000, 1024);
    scw_expect(w, "ack requests 6\nverdict OK op=1 stage=6\n");
    scw_create(w, 1, "c1", 1, 1024);
    scw_expect(w, "ack requests 7\nverdict ALREADY_EXISTS REQUEST_ID_CONFLICT\n");
    assert_int_equal(w->lookups, 2);
    w->known_complete = false; /* there were too many ids for memory: every new one is looked up */
    scw_takeover(w);
    scw_clear(w);
    scw_create(w, 3, "c3", 1000, 1024);
    assert_int_equal(w->lookups, 3);
    assert_int_equal(w->verdict_code, 0);
    scw_create(w, 2, "c2", 1000, 1024);
    assert_int_equal(w->lookups, 4);
    assert_int_equal(w->verdict_stage, 6);
    assert_string_equal(w->verdict_operation, "00000000000000000000000000000002");
    scw_free(w);
}

static void refusals_are_synchronous_and_recorded(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_create(w, 2, "c1", 1000, 1024);
    scw_expect(w, "commit op=2:7+\n"
                  "  8 operation.rejected c1 op=2\n"
                  "ack requests 4\n"
                  "verdict ALREADY_EXISTS CONTAINER_EXISTS op=2 stage=7\n"
                  "publish 8-8\n");
    scw_create(w, 2, "c1", 1000, 1024); /* a repeat of what was refused is refused alike */
    scw_expect(w, "ack requests 5\nverdict ALREADY_EXISTS CONTAINER_EXISTS op=2 stage=7\n");
    scw_verb(w, 3, DELETE, "c9", "");
    scw_expect(w, "commit op=3:7+\n"
                  "  9 operation.rejected c9 op=3\n"
                  "ack requests 6\n"
                  "verdict NOT_FOUND CONTAINER_NOT_FOUND op=3 stage=7\n"
                  "publish 9-9\n");
    scw_resize(w, 4, "c1", 2000, 0, "1-stale");
    assert_int_equal(w->verdict_code, 10); /* ABORTED */
    scw_resize(w, 5, "c1", 2000, 0, "");
    assert_int_equal(w->verdict_code, 0);
    scw_free(w);
}

static void quotas_hold(void **state)
{
    struct scw *w = scw_new(NULL);
    w->quota = (struct sc_quota){{.cpu_millis = 2500}, 3};
    scw_takeover(w);
    scw_attach(w, "h1", 1, 64000, 65536);
    scw_create(w, 1, "c1", 1000, 64);
    scw_create(w, 2, "c2", 1000, 64);
    assert_int_equal(w->verdict_code, 0);
    scw_create(w, 3, "c3", 1000, 64);
    assert_int_equal(w->verdict_code, 8);
    assert_string_equal(w->verdict_reason, "QUOTA_EXCEEDED");
    scw_create(w, 4, "c3", 100, 64);
    assert_int_equal(w->verdict_code, 0);
    scw_create(w, 5, "c4", 100, 64); /* the fourth container */
    assert_int_equal(w->verdict_code, 8);
    scw_done(w, "h1", scw_uid(w, "c3"), 1);
    scw_resize(w, 6, "c3", 1000, 0, "");
    assert_int_equal(w->verdict_code, 8);
    scw_resize(w, 7, "c3", 400, 0, "");
    assert_int_equal(w->verdict_code, 0);
    scw_free(w);
}

static void pending_wakes_when_a_host_comes(void **state)
{
    struct scw *w = scw_new(NULL);
    scw_create(w, 1, "c1", 1000, 1024);
    scw_expect(w, "commit op=1:2+ c1:1\n"
                  "  1 operation.recorded c1 op=1\n"
                  "  2 container.created c1 op=1\n"
                  "ack requests 1\n"
                  "verdict OK op=1 stage=2\n"
                  "publish 1-2\n");
    scw_attach(w, "h1", 1, 4000, 8192);
    scw_expect(w, "commit op=1:4 c1:1 h1\n"
                  "  3 host.attached h1 @h1\n"
                  "  4 operation.placed c1 op=1 @h1\n"
                  "  5 container.creating c1 op=1 @h1\n"
                  "  6 operation.dispatched c1 op=1 @h1\n"
                  "ack reports 2\n"
                  "publish 3-6\n"
                  "command h1 ENSURE c1 gen=1 cpu=1000\n");
    scw_free(w);
}

static void pending_wakes_when_room_is_freed(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_create(w, 2, "c2", 1000, 7680); /* too much beside c1 */
    assert_int_equal(w->verdict_stage, 2);
    scw_verb(w, 3, DELETE, "c1", "");
    scw_clear(w);
    scw_done(w, "h1", uid, 2);
    scw_expect(w, "commit op=3:6 op=2:4 del c2:1\n"
                  "  14 container.deleted c1 op=3 @h1\n"
                  "  15 operation.succeeded c1 op=3 @h1\n"
                  "  16 operation.placed c2 op=2 @h1\n"
                  "  17 container.creating c2 op=2 @h1\n"
                  "  18 operation.dispatched c2 op=2 @h1\n"
                  "ack reports 6\n"
                  "publish 14-18\n"
                  "command h1 ENSURE c2 gen=1 cpu=1000\n");
    scw_free(w);
}

static void refused_goes_elsewhere(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    scw_attach(w, "h2", 1, 4000, 8192);
    scw_clear(w);
    const char *uid = scw_uid(w, "c1");
    scw_result(w, "h1", uid, 1, REFUSED, 0, "no room");
    scw_expect(w, "commit op=1:4 c1:3\n"
                  "  7 operation.recorded c1 op=1\n"
                  "  8 operation.placed c1 op=1 @h2\n"
                  "  9 container.creating c1 op=1 @h2\n"
                  "  10 operation.dispatched c1 op=1 @h2\n"
                  "ack reports 4\n"
                  "publish 7-10\n"
                  "command h1 REMOVE c1 gen=2\n"
                  "command h2 ENSURE c1 gen=3 cpu=1000\n");
    scw_result(w, "h2", uid, 3, REFUSED, 0, "no room either");
    scw_expect(w, "commit op=1:2 c1:5\n"
                  "  11 operation.recorded c1 op=1\n"
                  "  12 container.pending c1 op=1\n"
                  "ack reports 5\n"
                  "publish 11-12\n"
                  "command h2 REMOVE c1 gen=4\n");
    scw_takeover(w); /* who refused is remembered in the record */
    scw_clear(w);
    scw_attach(w, "h3", 1, 4000, 8192);
    scw_done(w, "h3", uid, 5);
    assert_string_equal(w->commands[w->command_count - 1].host, "h3");
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 6);
    scw_free(w);
}

/* What the record says that a container claims; cpu_millis. */
static int64_t claim_of(struct scw *w, const char *name)
{
    char full[256];
    snprintf(full, sizeof full, "projects/p/regions/r1/containers/%s", name);
    const struct sc_blob *body = scw_find(&w->containers, full)->body;
    Harpoon__Internal__V1__ContainerRecord *m =
        harpoon__internal__v1__container_record__unpack(NULL, body->len, body->bytes);
    assert_non_null(m);
    int64_t claim = m->claim ? m->claim->cpu_millis : 0;
    harpoon__internal__v1__container_record__free_unpacked(m, NULL);
    return claim;
}

static void a_failed_create_is_cleaned_up(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    scw_verb(w, 2, STOP, "c1", ""); /* waits for the create, and falls with it */
    scw_clear(w);
    const char *uid = scw_uid(w, "c1");
    scw_result(w, "h1", uid, 1, FAILED, 0, "no such image");
    scw_expect(w, "commit op=1:8 op=2:8 c1:3\n"
                  "  8 operation.failed c1 op=1 @h1\n"
                  "  9 operation.failed c1 op=2\n"
                  "  10 container.failed c1 @h1\n"
                  "ack reports 4\n"
                  "publish 8-10\n"
                  "command h1 REMOVE c1 gen=3\n");
    scw_create(w, 3, "big", 100, 8192); /* the claim is held until the host has removed it */
    assert_int_equal(w->verdict_stage, 2);
    scw_clear(w);
    scw_done(w, "h1", uid, 3);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000003")->stage, 4);
    assert_int_equal(claim_of(w, "c1"), 0);
    scw_verb(w, 4, START, "c1", "");
    assert_string_equal(w->verdict_reason, "CONTAINER_NOT_MADE");
    scw_verb(w, 5, DELETE, "c1", "");
    assert_int_equal(w->verdict_stage, 6);
    scw_free(w);
}

static void changes_wait_for_one_another(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_resize(w, 2, "c1", 2000, 0, "");
    scw_verb(w, 3, STOP, "c1", "");
    scw_verb(w, 4, RESTART, "c1", "");
    scw_expect(w, "commit op=2:4+ c1:2\n"
                  "  8 operation.recorded c1 op=2\n"
                  "  9 container.updated c1 op=2 @h1\n"
                  "  10 operation.placed c1 op=2 @h1\n"
                  "  11 operation.dispatched c1 op=2 @h1\n"
                  "ack requests 4\n"
                  "verdict OK op=2 stage=4\n"
                  "publish 8-11\n"
                  "command h1 ENSURE c1 gen=2 cpu=2000\n"
                  "commit op=3:2+ c1:3\n"
                  "  12 operation.recorded c1 op=3\n"
                  "  13 container.updated c1 op=3 @h1\n"
                  "ack requests 5\n"
                  "verdict OK op=3 stage=2\n"
                  "publish 12-13\n"
                  "commit op=4:2+ c1:4\n"
                  "  14 operation.recorded c1 op=4\n"
                  "  15 container.updated c1 op=4 @h1\n"
                  "ack requests 6\n"
                  "verdict OK op=4 stage=2\n"
                  "publish 14-15\n");
    /* The resize is refused: it is taken out, the others go on without it. */
    scw_result(w, "h1", uid, 2, REFUSED, 0, "below what is in use");
    scw_expect(w, "commit op=2:8 op=3:4 c1:5\n"
                  "  16 operation.failed c1 op=2 @h1\n"
                  "  17 container.updated c1 @h1\n"
                  "  18 operation.placed c1 op=3 @h1\n"
                  "  19 operation.dispatched c1 op=3 @h1\n"
                  "ack reports 7\n"
                  "publish 16-19\n"
                  "command h1 ENSURE c1 gen=3 cpu=1000 stopped\n");
    scw_result(w, "h1", uid, 3, DONE, STOPPED, NULL);
    scw_clear(w);
    scw_done(w, "h1", uid, 4);
    /* The last word is the whole present state, so that the host's generation is the record's. */
    scw_expect(w, "commit op=4:6 c1:5\n"
                  "  24 container.running c1 op=4 @h1\n"
                  "  25 operation.succeeded c1 op=4 @h1\n"
                  "ack reports 9\n"
                  "publish 24-25\n"
                  "command h1 ENSURE c1 gen=5 cpu=1000 restart=4\n");
    scw_done(w, "h1", uid, 5);
    scw_expect(w, "commit c1:5\nack reports 10\n");
    scw_free(w);
}

/* A host runs a process that ended by itself only when told to: a start of such a container says so, and that a process which runs again is left alone. */
static void a_start_runs_what_has_ended(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_verb(w, 2, START, "c1", ""); /* it runs: nothing to restart */
    scw_done(w, "h1", uid, 2);
    scw_observe(w, "h1", uid, 2, HARPOON__V1__CONTAINER_STATE__CONTAINER_STATE_FAILED, "exited");
    scw_clear(w);
    scw_verb(w, 3, START, "c1", "");
    scw_expect(w, "commit op=3:4+ c1:3\n"
                  "  14 operation.recorded c1 op=3\n"
                  "  15 container.updated c1 op=3 @h1\n"
                  "  16 operation.placed c1 op=3 @h1\n"
                  "  17 operation.dispatched c1 op=3 @h1\n"
                  "ack requests 7\n"
                  "verdict OK op=3 stage=4\n"
                  "publish 14-17\n"
                  "command h1 ENSURE c1 gen=3 cpu=1000 start=3\n");
    scw_free(w);
}

static void a_takeover_keeps_the_queue_of_changes(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_resize(w, 2, "c1", 2000, 0, "");
    scw_verb(w, 3, STOP, "c1", "");
    scw_takeover(w);
    scw_clear(w);
    scw_result(w, "h1", uid, 2, REFUSED, 0, "below what is in use");
    const struct scw_command *c = &w->commands[w->command_count - 1];
    assert_int_equal(c->generation, 3);
    assert_int_equal(c->cpu_millis, 1000);
    assert_int_equal(c->desired, 2);
    scw_free(w);
}

static void a_resize_claims_the_larger_size(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_resize(w, 2, "c1", 500, 512, ""); /* smaller: the old size stays claimed until it is in force */
    scw_create(w, 3, "c2", 500, 7680);
    assert_int_equal(w->verdict_stage, 2);
    scw_done(w, "h1", uid, 2);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000003")->stage, 4);
    scw_resize(w, 4, "c1", 0, 1024, ""); /* larger: there is no room any more */
    assert_int_equal(w->verdict_code, 8);
    assert_string_equal(w->verdict_reason, "HOST_FULL");
    scw_free(w);
}

static void delete_overtakes_a_create(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 1024);
    scw_resize(w, 2, "c1", 2000, 0, "");
    scw_clear(w);
    const char *uid = scw_uid(w, "c1");
    char kept[27];
    strcpy(kept, uid);
    scw_verb(w, 3, DELETE, "c1", "");
    scw_expect(w, "commit op=3:4+ op=2:9 c1:3\n"
                  "  8 operation.recorded c1 op=3\n"
                  "  9 operation.cancelled c1 op=2\n"
                  "  10 container.deleting c1 op=3 @h1\n"
                  "  11 operation.placed c1 op=3 @h1\n"
                  "  12 operation.dispatched c1 op=3 @h1\n"
                  "ack requests 4\n"
                  "verdict OK op=3 stage=4\n"
                  "publish 8-12\n"
                  "command h1 REMOVE c1 gen=3\n");
    scw_create(w, 4, "c1", 1000, 1024);
    assert_string_equal(w->verdict_reason, "CONTAINER_EXISTS");
    scw_verb(w, 5, DELETE, "c1", "");
    assert_string_equal(w->verdict_reason, "CONTAINER_DELETING");
    scw_clear(w);
    scw_done(w, "h1", kept, 3);
    scw_expect(w, "commit op=1:9 op=3:6 del\n"
                  "  15 operation.cancelled c1 op=1 @h1\n"
                  "  16 container.deleted c1 op=3 @h1\n"
                  "  17 operation.succeeded c1 op=3 @h1\n"
                  "ack reports 7\n"
                  "publish 15-17\n");
    scw_create(w, 6, "c1", 1000, 1024); /* the same name, another container */
    assert_int_equal(w->verdict_code, 0);
    assert_string_not_equal(scw_uid(w, "c1"), kept);
    scw_free(w);
}

static void stale_goes_above_what_the_host_knows(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_resize(w, 2, "c1", 2000, 0, "");
    scw_clear(w);
    scw_result(w, "h1", uid, 1, STALE, RUNNING, NULL); /* of an earlier command: a later one is on its way */
    scw_expect(w, "ack reports 5\n");
    scw_result(w, "h1", uid, 2, STALE, 0, NULL);
    assert_int_equal(w->commands[w->command_count - 1].generation, 3);
    assert_int_equal(w->commands[w->command_count - 1].cpu_millis, 2000);
    scw_done(w, "h1", uid, 3);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage, 6);
    scw_free(w);
}

static void cancel_only_what_was_not_sent(void **state)
{
    char uid[27];
    struct scw *w = one_container(uid);
    scw_create(w, 2, "c2", 1000, 65536); /* fits nowhere */
    scw_clear(w);
    scw_cancel(w, 3, 2);
    scw_expect(w, "commit op=3:6+ op=2:9 del\n"
                  "  10 operation.recorded 00000000000000000000000000000002 op=3\n"
                  "  11 operation.cancelled c2 op=2\n"
                  "  12 container.deleted c2\n"
                  "  13 operation.succeeded 00000000000000000000000000000002 op=3\n"
                  "ack requests 5\n"
                  "verdict OK op=2 stage=9\n"
                  "publish 10-13\n");
    scw_cancel(w, 3, 2);
    scw_expect(w, "ack requests 6\nverdict OK op=2 stage=9\n");
    scw_cancel(w, 4, 2);
    assert_string_equal(w->verdict_reason, "OPERATION_ENDED");
    scw_cancel(w, 5, 77);
    assert_string_equal(w->verdict_reason, "OPERATION_NOT_FOUND");
    scw_resize(w, 6, "c1", 2000, 0, "");
    scw_cancel(w, 7, 6);
    assert_string_equal(w->verdict_reason, "OPERATION_DISPATCHED");
    scw_verb(w, 8, STOP, "c1", "");
    scw_cancel(w, 9, 8); /* it waits behind the resize */
    assert_int_equal(w->verdict_stage, 9);
    scw_done(w, "h1", uid, 2);
    assert_int_equal(w->commands[w->command_count - 1].desired, 1);
    scw_free(w);
}

static void operations_expire(void **state)
{
    struct scw *w = one_host();
    scw_create(w, 1, "c1", 1000, 65536);
    scw_create(w, 2, "c2", 1000, 1024);
    scw_journalled(w, "h1", scw_uid(w, "c2"), 1);
    scw_clear(w);
    w->mute_trace = true;
    scw_advance(w, 3600 * 1000 - 1);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 2);
    scw_advance(w, 1000);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000001")->stage, 10);
    assert_int_equal(scw_find(&w->operations, "00000000000000000000000000000002")->stage, 10);
    /* What was sent is removed again: the host may still have it. */
    scw_attach_digest(w, "h1", 2, 4000, 8192, 0, 0);
    assert_int_equal(w->commands[w->command_count - 1].verb, 2);
    scw_done(w, "h1", scw_uid(w, "c2"), w->commands[w->command_count - 1].generation);
    scw_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(create_goes_all_the_way),
        cmocka_unit_test(nothing_leaves_before_its_commit),
        cmocka_unit_test(a_repeat_has_no_effect),
        cmocka_unit_test(a_repeat_of_old_is_found_in_the_record),
        cmocka_unit_test(refusals_are_synchronous_and_recorded),
        cmocka_unit_test(quotas_hold),
        cmocka_unit_test(pending_wakes_when_a_host_comes),
        cmocka_unit_test(pending_wakes_when_room_is_freed),
        cmocka_unit_test(refused_goes_elsewhere),
        cmocka_unit_test(a_failed_create_is_cleaned_up),
        cmocka_unit_test(changes_wait_for_one_another),
        cmocka_unit_test(a_start_runs_what_has_ended),
        cmocka_unit_test(a_takeover_keeps_the_queue_of_changes),
        cmocka_unit_test(a_resize_claims_the_larger_size),
        cmocka_unit_test(delete_overtakes_a_create),
        cmocka_unit_test(stale_goes_above_what_the_host_knows),
        cmocka_unit_test(cancel_only_what_was_not_sent),
        cmocka_unit_test(operations_expire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
