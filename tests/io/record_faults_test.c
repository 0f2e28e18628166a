/* record_faults_test.c — every call to MariaDB fails once, while a scheduler takes a region over from a real server's record and writes to it: the connection is cut before a statement or before its
 * answer, there is no memory, a transaction is chosen for a deadlock. Whatever became of the COMMIT, each request is answered and recorded once, and no event is missing. The broker is this file's.
 *
 * Each 5th point; with --all, all. */
#include "lib/loop_test.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <mysql/errmsg.h>
#include <mysql/mysqld_error.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "harpoon/internal/v1/record.pb-c.h"
#include "harpoon/internal/v1/request.pb-c.h"
#include "shell/lead.h"
#include "shell/scheduler.h"
#include "wire/batch.h"
#include "wire/codec.h"
#include "wire/json.h"

/* ---- The client library's calls come here first ---- */

enum call { CALL_NONE, CALL_INIT, CALL_CONNECT, CALL_QUERY, CALL_USE, CALL_STORE, CALL_FETCH, CALL_ROLLBACK };
enum mode { CUT_BEFORE, CUT_AFTER, NO_MEMORY, UNSAID /* the same, and the library does not say so */, DEADLOCK, MODES };
enum { CALLS_MAX = 512 };

static _Thread_local bool mine; /* the test's own connection, on its own thread */
static atomic_int calls, fail_at, fail_mode;
static enum call made[CALLS_MAX];

#define REAL(name_) ((__typeof__(&name_))dlsym(RTLD_NEXT, #name_))

/* True when this call fails, and then how. */
static bool fails(enum call c, enum mode *ret)
{
    if (mine)
        return false;
    int number = atomic_fetch_add(&calls, 1) + 1;
    if (number < CALLS_MAX)
        made[number] = c;
    *ret = (enum mode)atomic_load(&fail_mode);
    return number == atomic_load(&fail_at);
}

static void set_error(MYSQL *m, unsigned number)
{
    m->net.last_errno = number;
    snprintf(m->net.last_error, sizeof m->net.last_error, "made to fail");
}

static void cut(MYSQL *m)
{
    shutdown((int)mysql_get_socket(m), SHUT_RDWR);
}

MYSQL *STDCALL mysql_init(MYSQL *m)
{
    enum mode how;
    return fails(CALL_INIT, &how) ? NULL : REAL(mysql_init)(m);
}

MYSQL *STDCALL mysql_real_connect(MYSQL *m, const char *host, const char *user, const char *password,
                                  const char *database, unsigned port, const char *socket, unsigned long flags)
{
    enum mode how;
    if (!fails(CALL_CONNECT, &how))
        return REAL(mysql_real_connect)(m, host, user, password, database, port, socket, flags);
    set_error(m, how == NO_MEMORY ? CR_OUT_OF_MEMORY : CR_CONN_HOST_ERROR);
    return NULL;
}

int STDCALL mysql_real_query(MYSQL *m, const char *text, unsigned long len)
{
    enum mode how;
    if (!fails(CALL_QUERY, &how))
        return REAL(mysql_real_query)(m, text, len);
    switch (how) {
    case CUT_AFTER: /* done; the answer is not heard */
        if (REAL(mysql_real_query)(m, text, len) == 0)
            mysql_free_result(REAL(mysql_store_result)(m));
        cut(m);
        return REAL(mysql_real_query)(m, "DO 0", 4);
    case NO_MEMORY:
        set_error(m, CR_OUT_OF_MEMORY);
        return 1;
    case UNSAID: /* done; nobody has read the answer */
        (void)!REAL(mysql_real_query)(m, text, len);
        return 1;
    case DEADLOCK: /* the server has taken the transaction back */
        (void)!REAL(mysql_rollback)(m);
        set_error(m, ER_LOCK_DEADLOCK);
        return 1;
    default:
        cut(m);
        return REAL(mysql_real_query)(m, text, len);
    }
}

/* A result or a row that does not come: with the connection, or for want of memory, and then what is left of the answer is still to be read. */
static void *nothing(MYSQL *m, enum mode how)
{
    if (how != NO_MEMORY)
        cut(m);
    set_error(m, how == NO_MEMORY ? CR_OUT_OF_MEMORY : CR_SERVER_LOST);
    return NULL;
}

MYSQL_RES *STDCALL mysql_use_result(MYSQL *m)
{
    enum mode how;
    return fails(CALL_USE, &how) ? nothing(m, how) : REAL(mysql_use_result)(m);
}

MYSQL_RES *STDCALL mysql_store_result(MYSQL *m)
{
    enum mode how;
    return fails(CALL_STORE, &how) ? nothing(m, how) : REAL(mysql_store_result)(m);
}

MYSQL_ROW STDCALL mysql_fetch_row(MYSQL_RES *r)
{
    enum mode how;
    return fails(CALL_FETCH, &how) ? nothing(r->handle, how) : REAL(mysql_fetch_row)(r);
}

my_bool STDCALL mysql_rollback(MYSQL *m)
{
    enum mode how;
    return fails(CALL_ROLLBACK, &how) ? 1 : REAL(mysql_rollback)(m);
}

/* ---- The broker ---- */

enum { MESSAGES_MAX = 64, EVENTS_MAX = 64 };

struct message {
    uint8_t *body;
    size_t len;
    uint64_t tag; /* 0: not delivered, or no longer */
    char correlation[8];
};

struct hp_consumer {
    struct hp_consumer_options o;
    bool active[SC_SUB_COUNT];
};
struct hp_publisher {
    struct hp_publisher_options o;
};

static struct {
    struct hp_publisher publishers[2];
    struct hp_consumer consumer;
    struct message queues[SC_SUB_COUNT][MESSAGES_MAX]; /* oldest first */
    size_t counts[SC_SUB_COUNT];
    struct hp_publish *sent[MESSAGES_MAX * 4]; /* not confirmed yet */
    size_t sent_count;
    uint64_t tag;
    bool told[EVENTS_MAX]; /* by sequence */
    int verdicts['e'];     /* by correlation id */
    char operation['e'][64];
} broker;

static void drop_message(int queue, size_t at)
{
    free(broker.queues[queue][at].body);
    broker.counts[queue]--;
    memmove(&broker.queues[queue][at], &broker.queues[queue][at + 1],
            (broker.counts[queue] - at) * sizeof(struct message));
}

static void put_message(int queue, const void *body, size_t len, const char *correlation)
{
    assert_true(broker.counts[queue] < MESSAGES_MAX);
    struct message *m = &broker.queues[queue][broker.counts[queue]++];
    *m = (struct message){.body = malloc(len + 1), .len = len};
    memcpy(m->body, body, len);
    snprintf(m->correlation, sizeof m->correlation, "%s", correlation);
}

int hp_publisher_new(uv_loop_t *loop, const struct hp_publisher_options *o, struct hp_publisher **ret,
                     struct hp_error *e)
{
    static int count;
    *ret = &broker.publishers[count++];
    (*ret)->o = *o;
    return 0;
}

int hp_consumer_new(uv_loop_t *loop, const struct hp_consumer_options *o, struct hp_consumer **ret, struct hp_error *e)
{
    broker.consumer.o = *o;
    *ret = &broker.consumer;
    return 0;
}

void hp_publish(struct hp_publisher *p, struct hp_publish *m)
{
    assert_true(broker.sent_count < sizeof broker.sent / sizeof *broker.sent);
    broker.sent[broker.sent_count++] = m;
}

void hp_consumer_resume(struct hp_consumer *c, int subscription)
{
    c->active[subscription] = true;
}

void hp_consumer_pause(struct hp_consumer *c, int subscription)
{
    c->active[subscription] = false;
    for (size_t i = 0; i < broker.counts[subscription]; i++)
        broker.queues[subscription][i].tag = 0; /* they come again */
}

void hp_consumer_ack(struct hp_consumer *c, int subscription, uint64_t tag, bool multiple)
{
    assert_true(multiple);
    for (size_t i = 0; i < broker.counts[subscription];)
        if (broker.queues[subscription][i].tag && broker.queues[subscription][i].tag <= tag)
            drop_message(subscription, i);
        else
            i++;
}

void hp_consumer_reject(struct hp_consumer *c, int subscription, uint64_t tag)
{
    fail_msg("a request is taken for poison");
}

void hp_delivery_free(struct hp_delivery *d)
{
    free((void *)(uintptr_t)d->body);
    free(d);
}

enum hp_amqp_state hp_publisher_state(const struct hp_publisher *p)
{
    return HP_AMQP_UP;
}

void hp_publisher_reconnect(struct hp_publisher *p, const char *why)
{
    fail_msg("the stream works: %s", why);
}

bool hp_publisher_remake_streams(struct hp_publisher *p)
{
    fail_msg("the stream works");
    return false;
}

void hp_publisher_close(struct hp_publisher *p, uint64_t linger_ms, void (*closed_cb)(void *user), void *user)
{
    closed_cb(user);
}

void hp_consumer_close(struct hp_consumer *c, void (*closed_cb)(void *user), void *user)
{
    closed_cb(user);
}

static void take_verdict(const struct hp_publish *m)
{
    Harpoon__Internal__V1__Verdict *v;
    struct hp_error e = {0};
    int at = (unsigned char)m->correlation_id[0];
    assert_int_equal(
        hp_unpack(&harpoon__internal__v1__verdict__descriptor, m->body, m->body_len, NULL, (ProtobufCMessage **)&v, &e),
        0);
    assert_int_equal(v->status ? v->status->code : 0, at == 'd' ? 6 /* ALREADY_EXISTS */ : 0);
    const char *uid = v->operation ? v->operation->uid : "";
    if (broker.verdicts[at]++)
        assert_string_equal(broker.operation[at], uid);
    snprintf(broker.operation[at], sizeof broker.operation[at], "%s", uid);
    hp_unpacked_free(&v->base);
}

static void take_event(const uint8_t *body, size_t len)
{
    Harpoon__V1__Event *event = harpoon__v1__event__unpack(NULL, len, body);
    assert_non_null(event);
    assert_in_range(event->sequence, 1, EVENTS_MAX - 1);
    broker.told[event->sequence] = true;
    harpoon__v1__event__free_unpacked(event, NULL);
}

static void take_events(const struct hp_publish *m)
{
    const uint8_t *at = m->body, *one;
    size_t left = m->body_len, len;
    if (strcmp(m->type, harpoon__internal__v1__event_batch__descriptor.name) != 0)
        take_event(at, left);
    else
        while (hp_batch_next(&at, &left, &one, &len) == 1)
            take_event(one, len);
}

static void take_published(struct hp_publish *m)
{
    if (m->message_id) {
        take_events(m);
    } else if (strcmp(m->type, "harpoon.leader") == 0) {
        put_message(SC_SUB_LEADER, m->body, m->body_len, "");
    } else if (m->correlation_id) {
        take_verdict(m);
    }
    m->done_cb(m, HP_PUBLISH_CONFIRMED);
}

static void deliver(int queue, struct message *m)
{
    struct hp_delivery *d = calloc(1, sizeof *d);
    uint8_t *body = malloc(m->len + 1);
    m->tag = ++broker.tag;
    memcpy(body, m->body, m->len);
    *d = (struct hp_delivery){.consumer = &broker.consumer,
                              .subscription = queue,
                              .tag = m->tag,
                              .body = body,
                              .body_len = m->len,
                              .correlation_id = m->correlation,
                              .reply_to = "q"};
    broker.consumer.o.message_cb(d, broker.consumer.o.user);
}

static void broker_turn(void)
{
    struct hp_publish *sent[sizeof broker.sent / sizeof *broker.sent];
    size_t n = broker.sent_count;
    memcpy(sent, broker.sent, n * sizeof *sent);
    broker.sent_count = 0;
    for (size_t i = 0; i < n; i++)
        take_published(sent[i]);
    for (int q = 0; q < SC_SUB_COUNT; q++)
        for (size_t i = 0; i < broker.counts[q] && broker.consumer.active[q]; i++)
            if (!broker.queues[q][i].tag)
                deliver(q, &broker.queues[q][i]);
}

static void broker_state(enum hp_amqp_state state)
{
    const struct hp_error e = {.message = "as the test says"};
    broker.publishers[0].o.state_cb(state, &e, broker.publishers[0].o.user);
    broker.publishers[1].o.state_cb(state, &e, broker.publishers[1].o.user);
    broker.consumer.o.state_cb(state, &e, broker.consumer.o.user);
}

/* ---- The daemon around it ---- */

static uv_loop_t loop;
static uv_timer_t tick;
static struct sc_lead *lead;
static struct sc_config config;
static bool closed;

void sc_scheduler_lead_ready(struct sc_part *p)
{
}

void sc_scheduler_lead_closed(struct sc_part *p)
{
    closed = true;
}

/* ---- The test's own look at the record ---- */

static MYSQL *own;

static void sql(const char *text)
{
    if (mysql_query(own, text))
        fail_msg("%s: %s", text, mysql_error(own));
    mysql_free_result(mysql_store_result(own));
}

static int number(const char *text)
{
    if (mysql_query(own, text))
        fail_msg("%s: %s", text, mysql_error(own));
    MYSQL_RES *r = mysql_store_result(own);
    MYSQL_ROW row = mysql_fetch_row(r);
    int n = row && row[0] ? atoi(row[0]) : -1;
    mysql_free_result(r);
    return n;
}

/* ---- One life: the region is taken over, and requests come ---- */

static void request(const char *id, const char *container, const char *correlation)
{
    char text[1024];
    ProtobufCMessage *m;
    uint8_t *body;
    size_t len;
    struct hp_error e = {0};
    int n = snprintf(text, sizeof text,
                     "{\"operationId\":\"0000000000000000000000000000000%s\",\"project\":\"p\",\"region\":\"r1\","
                     "\"requestId\":\"%s\",\"payloadDigest\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\","
                     "\"create\":{\"parent\":"
                     "\"projects/p/regions/r1\",\"containerId\":\"%s\",\"container\":{\"spec\":{\"image\":"
                     "\"oci:/i:1\",\"resources\":{\"cpuMillis\":\"100\",\"memoryBytes\":\"67108864\"}}}}}",
                     id, id, container);
    if (hp_json_parse_message(text, (size_t)n, &harpoon__internal__v1__request__descriptor, &m, &e))
        fail_msg("%s", e.message);
    assert_int_equal(hp_pack(m, &body, &len, &e), 0);
    put_message(SC_SUB_REQUESTS, body, len, correlation);
    hp_unpacked_free(m);
    free(body);
}

static void turn_until(bool (*cond)(void))
{
    uint64_t end = hp_now_ms() + 60000;
    while (!cond()) {
        broker_turn();
        uv_run(&loop, UV_RUN_ONCE);
        assert_true(hp_now_ms() < end);
    }
}

static bool nothing_runs(void)
{
    return lead->jobs == 0 && lead->dbs == 0 && broker.sent_count == 0;
}

static bool all_done(void)
{
    return lead->state == SC_LEAD_LEADING && lead->jobs == 0 && broker.sent_count == 0 &&
           broker.counts[SC_SUB_REQUESTS] == 0 && lead->sending == 0;
}

static const char *const tables[] = {"operations", "containers", "events"};

static void for_each_table(const char *fmt)
{
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char text[256], *out = text;
        for (const char *c = fmt; *c; c++)
            out +=
                snprintf(out, sizeof text - (size_t)(out - text), *c == '$' ? "%s" : "%.1s", *c == '$' ? tables[i] : c);
        sql(text);
    }
}

/* What every life begins with: one container. */
static void make_record(void)
{
    request("0", "c0", "a");
    broker_state(HP_AMQP_UP);
    turn_until(all_done);
    broker_state(HP_AMQP_DOWN);
    turn_until(nothing_runs);
    for_each_table("CREATE TABLE old_$ AS SELECT * FROM $");
    sql("CREATE TABLE old_regions AS SELECT * FROM regions");
}

static void restore_record(void)
{
    for_each_table("DELETE FROM $");
    for_each_table("INSERT INTO $ SELECT * FROM old_$");
    sql("UPDATE regions r, old_regions o SET r.sequence = o.sequence, r.watermark = o.sequence, r.oldest = o.oldest");
}

static int operations, sequence; /* at the end of a life without failure */

/* A repeat, a second container, and one whose name is taken. */
static void live(int at, enum mode mode)
{
    restore_record();
    int first = number("SELECT sequence FROM regions") + 1;
    memset(broker.told, 0, sizeof broker.told);
    memset(broker.verdicts, 0, sizeof broker.verdicts);
    atomic_store(&calls, 0);
    atomic_store(&fail_mode, mode);
    atomic_store(&fail_at, at);
    request("1", "c1", "a");
    request("2", "c2", "b");
    request("1", "c1", "c");
    request("3", "c0", "d");
    broker_state(HP_AMQP_UP);
    turn_until(all_done);
    for (const char *c = "abcd"; *c; c++)
        assert_true(broker.verdicts[(int)*c] >= 1);
    assert_string_equal(broker.operation['a'], broker.operation['c']);
    assert_string_not_equal(broker.operation['a'], broker.operation['b']);
    assert_int_equal(number("SELECT COUNT(*) FROM containers"), 3);
    struct sc_region_stats stats;
    sc_region_stats(lead->core, &stats); /* what was read is all that there is */
    assert_int_equal(stats.containers, 3);
    assert_int_equal(stats.operations_active, 3);
    if (!at) {
        operations = number("SELECT COUNT(*) FROM operations");
        sequence = number("SELECT sequence FROM regions");
    }
    assert_int_equal(number("SELECT COUNT(*) FROM operations"), operations);
    assert_int_equal(number("SELECT sequence FROM regions"), sequence);
    assert_int_equal(number("SELECT COUNT(*) FROM events"), sequence);
    assert_int_equal(number("SELECT MAX(sequence) FROM events"), sequence);
    for (int i = first; i <= sequence; i++)
        assert_true(broker.told[i]);
    broker_state(HP_AMQP_DOWN);
    turn_until(nothing_runs);
}

/* ---- */

static long stride = 5;

static bool possible(enum call c, enum mode mode)
{
    switch (mode) {
    case CUT_AFTER:
    case UNSAID:
    case DEADLOCK:
        return c == CALL_QUERY;
    case NO_MEMORY:
        return c != CALL_ROLLBACK;
    default:
        return c != CALL_INIT;
    }
}

static void every_call_fails_once(void **state)
{
    long points = 0, seen[CALL_ROLLBACK + 1] = {0};
    make_record();
    live(0, 0);
    int total = atomic_load(&calls);
    static enum call kinds[CALLS_MAX];
    assert_true(total > 40 && total < CALLS_MAX);
    memcpy(kinds, made, sizeof kinds);
    for (int at = 1; at <= total; at++)
        seen[kinds[at]]++;
    assert_true(seen[CALL_CONNECT] == 1 && seen[CALL_QUERY] >= 16 && seen[CALL_USE] >= 8 && seen[CALL_STORE] >= 4 &&
                seen[CALL_FETCH] >= 9);
    for (int at = 1; at <= total; at++)
        for (int mode = 0; mode < MODES; mode++)
            if (possible(kinds[at], (enum mode)mode) && points++ % stride == 0) {
                live(at, (enum mode)mode);
                assert_true(atomic_load(&calls) >= at);
            }
    print_message("%ld points of %ld\n", (points + stride - 1) / stride, points);
}

/* A result that could not be taken leaves the connection in the midst of an answer: the next job must not meet that. And a COMMIT without an answer may have happened. */
static int run_select(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    if (mysql_real_query(hp_db_mysql(c), "SELECT 1", 8))
        return hp_db_fail(c, e, "select");
    MYSQL_RES *r = mysql_use_result(hp_db_mysql(c));
    if (!r)
        return hp_db_fail(c, e, "select");
    while (mysql_fetch_row(r))
        ;
    mysql_free_result(r);
    return 0;
}

static int run_commit(struct hp_db_job *job, struct hp_db_conn *c, struct hp_error *e)
{
    int rc = hp_db_begin(c, e);
    return rc ? rc : hp_db_commit(c, job, e);
}

static int last_result;

static void select_done(struct hp_db_job *job, int result, const struct hp_error *e)
{
    last_result = result;
    closed = true;
}

static void run_job(struct hp_db *db, struct hp_db_job *job)
{
    job->done_cb = select_done;
    closed = false;
    assert_int_equal(hp_db_submit(db, job), 0);
    UNTIL_FLAG(&loop, closed);
}

static void without_memory_an_answer_stays_unread(void **state)
{
    struct hp_db *db;
    struct hp_error e = {0};
    const struct hp_db_options o = {.socket = config.db_socket, .user = "root", .threads = 1};
    struct hp_db_job select = {.run = run_select}, commit = {.run = run_commit};
    assert_int_equal(hp_db_new(&loop, &o, &db, &e), 0);
    atomic_store(&calls, 0);
    atomic_store(&fail_mode, NO_MEMORY);
    atomic_store(&fail_at, 4); /* init, connect, query, use */
    run_job(db, &select);
    assert_int_equal(last_result, HP_ENOMEM);
    run_job(db, &select);
    assert_int_equal(last_result, 0);
    atomic_store(&calls, 0); /* query, store, COMMIT, store */
    run_job(db, &commit);
    assert_int_equal(last_result, HP_ENOMEM);
    assert_true(commit.commit_unknown);
    run_job(db, &commit);
    assert_int_equal(last_result, 0);
    assert_false(commit.commit_unknown);
    /* The library had sent the statement, and said nothing but that it failed. */
    atomic_store(&fail_mode, UNSAID);
    atomic_store(&calls, 0);
    atomic_store(&fail_at, 1);
    run_job(db, &select);
    assert_int_equal(last_result, HP_ENOMEM);
    run_job(db, &select);
    assert_int_equal(last_result, 0);
    atomic_store(&calls, 0); /* query, store, COMMIT */
    atomic_store(&fail_at, 3);
    run_job(db, &commit);
    assert_int_equal(last_result, HP_ENOMEM);
    assert_true(commit.commit_unknown);
    run_job(db, &commit);
    assert_int_equal(last_result, 0);
    closed = false;
    hp_db_close(db, loop_closed, &closed);
    UNTIL_FLAG(&loop, closed);
}

/* ---- */

static void on_tick(uv_timer_t *timer)
{
}

static int setup(void **state)
{
    char command[512], socket[256], database[128];
    struct hp_error e = {0};
    snprintf(command, sizeof command, "%s admin migrate > /dev/null", getenv("HARPOON_CLI"));
    assert_int_equal(system(command), 0);
    snprintf(socket, sizeof socket, "database.socket=%s", getenv("HARPOON_MYSQL_SOCKET"));
    snprintf(database, sizeof database, "database.name=%s", getenv("HARPOON_MYSQL_DATABASE"));
    const char *const sets[] = {"scheduler.name=s",
                                "scheduler.regions=r1",
                                "broker.url=amqp://x",
                                socket,
                                database,
                                "database.user=root",
                                "scheduler.known_max=1", /* so that ids are looked up */
                                NULL};
    if (hp_config_load(sc_config_keys, NULL, sets, &config, &e))
        fail_msg("%s", e.message);
    mine = true;
    hp_log_set_level(HP_LOG_ERROR);
    own = mysql_init(NULL);
    if (!mysql_real_connect(own, NULL, "root", NULL, config.db_name, 0, config.db_socket, 0))
        fail_msg("%s", mysql_error(own));
    /* More than are kept in memory: further ids are looked up. */
    sql("INSERT INTO operations (id, region, project, target, stage, active, serial, body) VALUES "
        "('e', 'r1', 'p', '', 5, 0, 0, ''), ('f', 'r1', 'p', '', 5, 0, 0, '')");
    uv_loop_init(&loop);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 1, 1);
    return sc_lead_new(NULL, &loop, &config, "r1", &lead, &e);
}

static int teardown(void **state)
{
    closed = false;
    sc_lead_close(lead);
    UNTIL_FLAG(&loop, closed);
    free(lead);
    for (int q = 0; q < SC_SUB_COUNT; q++)
        while (broker.counts[q])
            drop_message(q, 0);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    mysql_close(own);
    hp_config_free(sc_config_keys, &config);
    return uv_loop_close(&loop);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--all") == 0)
        stride = 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_call_fails_once),
                                       cmocka_unit_test(without_memory_an_answer_stays_unread)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
