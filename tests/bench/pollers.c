/* A fleet that polls a database for its work, as it is usually done: each host a session, each session a locking read every interval; for tests/bench/before_after.py.
 *
 *   bench-pollers SOCKET DATABASE SESSIONS INTERVAL_MS
 *
 * Connects all sessions, prints a line, then reads orders on standard input, one a line, and answers each with one line of JSON when it is done:
 *   idle SECONDS      polls, and nothing is there to find
 *   all               one event for every host; done when every host has taken its own
 *   rate N SECONDS    N events a second, each recorded by a transaction of its own, for hosts in turn; done when all are taken
 *
 * A session that polls asks for the oldest new event of its host (one statement; the index answers it). When there is one it claims it in a short transaction (SELECT … FOR UPDATE SKIP LOCKED, UPDATE, COMMIT: one round trip),
 * then records that it is done, and asks again at once. Polls are spread evenly over the interval; a session that is still waiting for an answer when it should poll again leaves that poll out. Picked up means: the claim is
 * committed. Latency counts from when the event was due to be submitted.
 *
 * One loop serves all sessions, so that this side is as cheap as it can be: a real fleet pays for a process on each host. */
#include <errno.h>
#include <inttypes.h>
#include <mysql.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1000, EVENTS_MAX = 4000000, PAYLOAD = 200, READY_MAX = 512 };
enum { STRIDE = 7919 /* between hosts of successive events: polls are in the hosts' order, and events must not be */ };

enum state { IDLE, PROBING, CLAIMING, ENDING };

struct session {
    MYSQL *mysql;
    int host;
    enum state state;
    uint64_t event, due_ns; /* what is being claimed */
    bool took;              /* one since the order began */
};

static struct {
    const char *socket, *database;
    struct session *sessions;
    int count, epoll;
    uint64_t interval_ns, base_ns;
    uint64_t polled; /* turns given out: turn % count is the session, turn / count the round */
    uint64_t queries, left_out;
    uint32_t *latency_us;
    size_t taken, hosts_taken;
} all;

/* What the producer's thread does: the loop reads `made` and `ended` only. */
static struct {
    MYSQL *mysql;
    pthread_t thread;
    int rate, seconds; /* 0: one for every host */
    volatile size_t made;
    volatile bool ended;
} producer;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench-pollers: %s: %s\n", what, why);
    exit(1);
}

static MYSQL *connect_one(void)
{
    MYSQL *m = mysql_init(NULL);
    if (!m || !mysql_real_connect(m, NULL, "root", NULL, all.database, 0, all.socket, CLIENT_MULTI_STATEMENTS))
        die("cannot connect", m ? mysql_error(m) : "no memory");
    return m;
}

/* ---- the producer ---- */

static void insert(const char *text, size_t len)
{
    if (mysql_real_query(producer.mysql, text, (unsigned long)len))
        die("cannot insert", mysql_error(producer.mysql));
}

static int put_event(char *to, size_t size, const char *before, int host, uint64_t due_ns)
{
    char payload[PAYLOAD + 1];
    memset(payload, 'p', PAYLOAD);
    payload[PAYLOAD] = '\0';
    int n = snprintf(to, size, "%s(%d,%" PRIu64 ",'%s')", before, host, due_ns, payload);
    if (n < 0 || (size_t)n >= size)
        die("an insert", "does not fit");
    return n;
}

#define INSERT "INSERT INTO events(host,due_ns,payload) VALUES"

static void insert_for_all(void)
{
    size_t size = (size_t)BATCH * (PAYLOAD + 64);
    char *text = malloc(size);
    if (!text)
        die("cannot insert", "no memory");
    for (int h = 0; h < all.count;) {
        size_t len = 0;
        uint64_t due = now_ns();
        for (int i = 0; i < BATCH && h < all.count; i++, h++)
            len += (size_t)put_event(text + len, size - len, i ? "," : INSERT, h, due);
        insert(text, len);
    }
    free(text);
    producer.made = (size_t)all.count;
}

static void insert_at_rate(void)
{
    uint64_t began = now_ns(), step = 1000000000u / (uint64_t)producer.rate;
    size_t total = (size_t)producer.rate * (size_t)producer.seconds;
    for (size_t i = 0; i < total; i++) {
        char text[PAYLOAD + 128];
        uint64_t due = began + i * step, now = now_ns();
        if (due > now) {
            struct timespec pause = {(time_t)((due - now) / 1000000000u), (long)((due - now) % 1000000000u)};
            nanosleep(&pause, NULL);
        }
        insert(text, (size_t)put_event(text, sizeof text, INSERT, (int)(i * STRIDE % (size_t)all.count), due));
        producer.made = i + 1;
    }
}

static void *produce(void *unused)
{
    mysql_thread_init();
    if (producer.rate)
        insert_at_rate();
    else
        insert_for_all();
    __sync_synchronize();
    producer.ended = true;
    mysql_thread_end();
    return NULL;
}

/* ---- the sessions ---- */

__attribute__((format(printf, 2, 3))) static void ask(struct session *s, const char *format, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (mysql_send_query(s->mysql, text, (unsigned long)n))
        die("cannot ask", mysql_error(s->mysql));
}

static void probe(struct session *s)
{
    s->state = PROBING;
    all.queries++;
    ask(s, "SELECT id,due_ns,payload FROM events WHERE host=%d AND state=0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        s->host);
}

static void claim(struct session *s)
{
    s->state = CLAIMING;
    all.queries += 4;
    ask(s,
        "START TRANSACTION;SELECT id FROM events WHERE id=%" PRIu64 " AND state=0 FOR UPDATE SKIP LOCKED;"
        "UPDATE events SET state=1 WHERE id=%" PRIu64 " AND state=0;COMMIT",
        s->event, s->event);
}

static void took(struct session *s)
{
    if (all.taken == EVENTS_MAX)
        die("too many events", "EVENTS_MAX");
    all.latency_us[all.taken++] = (uint32_t)((now_ns() - s->due_ns) / 1000);
    if (!s->took)
        all.hosts_taken++;
    s->took = true;
    s->state = ENDING;
    all.queries++;
    ask(s, "UPDATE events SET state=2 WHERE id=%" PRIu64, s->event);
}

/* Reads one statement's result: rows, or rows affected. Results are small, so that what is readable is whole. */
static my_ulonglong read_one(struct session *s, MYSQL_RES **ret_rows)
{
    *ret_rows = NULL;
    if (mysql_read_query_result(s->mysql))
        die("a statement", mysql_error(s->mysql));
    if (mysql_field_count(s->mysql) == 0)
        return mysql_affected_rows(s->mysql);
    *ret_rows = mysql_store_result(s->mysql);
    if (!*ret_rows)
        die("a result", mysql_error(s->mysql));
    return mysql_num_rows(*ret_rows);
}

static void on_probed(struct session *s)
{
    MYSQL_RES *rows;
    bool found = read_one(s, &rows) == 1;
    if (found) {
        MYSQL_ROW row = mysql_fetch_row(rows);
        s->event = strtoull(row[0], NULL, 10);
        s->due_ns = strtoull(row[1], NULL, 10);
    }
    mysql_free_result(rows);
    if (found)
        claim(s);
    else
        s->state = IDLE;
}

static void on_claimed(struct session *s)
{
    MYSQL_RES *rows;
    read_one(s, &rows); /* START TRANSACTION */
    for (int i = 0; i < 3; i++) {
        if (mysql_next_result(s->mysql))
            die("a claim", mysql_error(s->mysql));
        MYSQL_RES *more = mysql_field_count(s->mysql) ? mysql_store_result(s->mysql) : NULL;
        if (i == 1 && mysql_affected_rows(s->mysql) != 1)
            die("a claim", "somebody else has it, and a host has one session only");
        mysql_free_result(more);
    }
    took(s);
}

static void on_readable(struct session *s)
{
    MYSQL_RES *rows;
    switch (s->state) {
    case PROBING:
        on_probed(s);
        break;
    case CLAIMING:
        on_claimed(s);
        break;
    case ENDING:
        if (read_one(s, &rows) != 1)
            die("an end", "is not recorded");
        probe(s);
        break;
    case IDLE:
        die("a session", "was closed by the server");
    }
}

static uint64_t turn_due_ns(uint64_t turn)
{
    return all.base_ns + (uint64_t)((double)turn * (double)all.interval_ns / all.count);
}

/* Gives out the turns that are due. */
static void poll_due(uint64_t now)
{
    for (; turn_due_ns(all.polled) <= now; all.polled++) {
        struct session *s = &all.sessions[all.polled % (uint64_t)all.count];
        if (s->state == IDLE)
            probe(s);
        else
            all.left_out++;
    }
}

static void turn(void)
{
    struct epoll_event ready[READY_MAX];
    uint64_t now = now_ns(), due = turn_due_ns(all.polled);
    int n = epoll_wait(all.epoll, ready, READY_MAX, due > now ? (int)((due - now) / 1000000u) + 1 : 0);
    if (n < 0 && errno != EINTR)
        die("epoll_wait", strerror(errno));
    for (int i = 0; i < n; i++)
        on_readable(ready[i].data.ptr);
    poll_due(now_ns());
}

/* ---- orders ---- */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void run_order(bool produced, double idle_s)
{
    for (int i = 0; i < all.count; i++)
        all.sessions[i].took = false;
    all.taken = all.hosts_taken = 0;
    all.queries = all.left_out = 0;
    uint64_t began = now_ns(), until = began + (uint64_t)(idle_s * 1e9);
    if (produced) {
        producer.ended = false;
        producer.made = 0;
        if (pthread_create(&producer.thread, NULL, produce, NULL))
            die("cannot start", "the producer");
    }
    while (produced ? !producer.ended || all.taken < producer.made : now_ns() < until)
        turn();
    if (produced)
        pthread_join(producer.thread, NULL);
    qsort(all.latency_us, all.taken, sizeof all.latency_us[0], by_size);
    size_t p50 = all.taken / 2, p99 = all.taken * 99 / 100;
    printf("{\"seconds\":%.3f,\"queries\":%" PRIu64 ",\"left_out\":%" PRIu64 ",\"taken\":%zu,\"hosts\":%zu,"
           "\"p50_ms\":%.2f,\"p99_ms\":%.2f}\n",
           (double)(now_ns() - began) / 1e9, all.queries, all.left_out, all.taken, all.hosts_taken,
           all.taken ? all.latency_us[p50] / 1e3 : 0, all.taken ? all.latency_us[p99] / 1e3 : 0);
    fflush(stdout);
}

static void raise_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r))
        die("getrlimit", strerror(errno));
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r))
        die("setrlimit", strerror(errno));
}

static void start(int count)
{
    all.sessions = calloc((size_t)count, sizeof *all.sessions);
    all.latency_us = malloc(EVENTS_MAX * sizeof *all.latency_us);
    all.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all.sessions || !all.latency_us || all.epoll < 0)
        die("cannot start", "no memory");
    raise_files();
    producer.mysql = connect_one();
    for (all.count = 0; all.count < count; all.count++) {
        struct session *s = &all.sessions[all.count];
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
        s->mysql = connect_one();
        s->host = all.count;
        if (epoll_ctl(all.epoll, EPOLL_CTL_ADD, mysql_get_socket(s->mysql), &e))
            die("epoll_ctl", strerror(errno));
    }
    all.base_ns = now_ns();
    printf("{\"sessions\":%d}\n", all.count);
    fflush(stdout);
}

/* Between orders nobody polls: the next begins a new round. */
static void obey(const char *line)
{
    double idle_s;
    all.base_ns = now_ns();
    all.polled = 0;
    if (sscanf(line, "idle %lf", &idle_s) == 1) {
        run_order(false, idle_s);
    } else if (strncmp(line, "all", 3) == 0) {
        producer.rate = 0;
        run_order(true, 0);
    } else if (sscanf(line, "rate %d %d", &producer.rate, &producer.seconds) == 2 && producer.rate > 0) {
        run_order(true, 0);
    } else {
        die("not an order", line);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        die("arguments", "SOCKET DATABASE SESSIONS INTERVAL_MS");
    char line[128];
    all.socket = argv[1];
    all.database = argv[2];
    all.interval_ns = (uint64_t)atol(argv[4]) * 1000000u;
    start(atoi(argv[3]));
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
