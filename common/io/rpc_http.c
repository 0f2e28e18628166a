/* libmicrohttpd on our loop: one thread, its epoll descriptor polled by libuv, its timeout on a timer.
 *
 * The end: drain stops accepting; when no call is left, or at close, suspended connections are resumed to be closed, libmicrohttpd runs a last time and is
 * stopped, and our handles close. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "io/loop.h"
#include "io/rpc_http_impl.h"

enum { HTTP_BACKLOG = 1024, HTTP_HANDLES = 4 };

/* ---- running ---- */

static void on_timer(uv_timer_t *timer);
static void on_again(uv_idle_t *idle);
static void quiesce(struct rpc_http *h);
static void renew(struct rpc_http *h);
static void close_one(struct rpc_http *h);

void rpc_http_run_again(struct rpc_http *h)
{
    if (!uv_is_active((uv_handle_t *)&h->again))
        uv_idle_start(&h->again, on_again);
}

static bool has_connections(const struct rpc_http *h)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return info && info->num_connections > 0;
}

static void run(struct rpc_http *h)
{
    uv_idle_stop(&h->again);
    MHD_run(h->daemon);
    struct http_call *c;
    while ((c = TAILQ_FIRST(&h->pending)) != NULL) {
        TAILQ_REMOVE(&h->pending, c, pending_link);
        c->pending = false;
        http_call_work(c);
    }
    if (h->stale && !h->draining && !h->replaced)
        renew(h);
    if ((h->draining || h->replaced) && !h->quiet)
        quiesce(h);
    if ((h->draining && TAILQ_EMPTY(&h->calls)) || (h->replaced && !has_connections(h))) {
        close_one(h);
        return;
    }
    MHD_UNSIGNED_LONG_LONG ms;
    uv_update_time(h->server->loop);
    if (MHD_get_timeout(h->daemon, &ms) == MHD_YES)
        uv_timer_start(&h->timer, on_timer, ms, 0);
    else
        uv_timer_stop(&h->timer);
}

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_again(uv_idle_t *idle)
{
    run(idle->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    run(poll->data);
}

/* ---- connections that owe us bytes ---- */

static void on_slow(uv_timer_t *timer);

static void arm_slow(struct rpc_http *h)
{
    const struct http_conn *first = TAILQ_FIRST(&h->reading);
    if (!first || uv_is_active((uv_handle_t *)&h->slow))
        return;
    uint64_t now = hp_now_ms();
    uv_update_time(h->server->loop);
    uv_timer_start(&h->slow, on_slow, first->due_ms > now ? first->due_ms - now : 0, 0);
}

static void on_slow(uv_timer_t *timer)
{
    struct rpc_http *h = timer->data;
    struct http_conn *conn;
    uint64_t now = hp_now_ms();
    while ((conn = TAILQ_FIRST(&h->reading)) != NULL && conn->due_ms <= now) {
        rpc_http_read_done(h, conn);
        shutdown(conn->fd, SHUT_RDWR); /* libmicrohttpd sees the end and closes it */
    }
    arm_slow(h);
}

void rpc_http_read_done(struct rpc_http *h, struct http_conn *conn)
{
    if (conn->linked)
        TAILQ_REMOVE(&h->reading, conn, link);
    conn->linked = false;
}

void rpc_http_read_from(struct rpc_http *h, struct http_conn *conn)
{
    rpc_http_read_done(h, conn);
    conn->due_ms = hp_now_ms() + h->read_ms;
    conn->linked = true;
    TAILQ_INSERT_TAIL(&h->reading, conn, link);
    arm_slow(h);
}

/* ---- libmicrohttpd's callbacks ---- */

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct rpc_http *h = user;
    struct http_conn *conn = *context;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (conn)
            rpc_http_read_done(h, conn);
        free(conn);
        /* When descriptors had run out, libmicrohttpd listens again only in a further run, and nothing but us would cause one. */
        if (!h->closing)
            rpc_http_run_again(h);
        return;
    }
    if (hp_tls_files_changed(&h->files, hp_now_ms()))
        h->stale = true;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    conn = info ? calloc(1, sizeof *conn) : NULL;
    *context = conn; /* without memory libmicrohttpd's own timeout must do */
    if (!conn)
        return;
    conn->fd = info->connect_fd;
    rpc_http_read_from(h, conn);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *len, void **context)
{
    struct rpc_http *h = user;
    struct http_call *c = *context;
    if (!c) {
        c = http_call_new(h, connection);
        if (!c)
            return MHD_NO;
        *context = c;
        return http_call_begin(c, url, method);
    }
    if (*len > 0) {
        enum MHD_Result rc = http_call_body(c, data, *len);
        *len = 0;
        return rc;
    }
    return http_call_proceed(c);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct http_call *c = *context;
    if (!c)
        return;
    *context = NULL;
    if (c->conn)
        rpc_http_read_from(user, c->conn); /* the idle time begins */
    http_call_completed(c);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *user, const char *format, va_list ap)
{
    char text[512];
    vsnprintf(text, sizeof text, format, ap);
    text[strcspn(text, "\n")] = '\0';
    hp_debug("HTTP", HP_S("detail", text));
}

/* ---- start ---- */

static int open_socket(struct rpc_http *h, const char *address, int *ret, struct hp_error *e)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    size_t n = colon ? (size_t)(colon - address) : 0;
    if (n == 0 || n >= sizeof host)
        return hp_fail(e, HP_EINVAL, "address \"%s\" is not host:port", address);
    bool six = address[0] == '[' && address[n - 1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(six ? n - 2 : n), address + six);
    struct sockaddr_storage a = {0};
    int port = atoi(colon + 1);
    if (six ? uv_ip6_addr(host, port, (struct sockaddr_in6 *)&a) : uv_ip4_addr(host, port, (struct sockaddr_in *)&a))
        return hp_fail(e, HP_EINVAL, "address \"%s\": the host is not a numeric address", address);
    socklen_t len = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int one = 1, fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, errno, "socket for %s", address);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, (struct sockaddr *)&a, len) ||
        listen(fd, HTTP_BACKLOG) || getsockname(fd, (struct sockaddr *)&a, &len)) {
        int rc = hp_fail_errno(e, errno == EADDRINUSE ? HP_EEXISTS : HP_EIO, errno, "listen on %s", address);
        close(fd);
        return rc;
    }
    unsigned bound = ntohs(six ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
    snprintf(h->address, sizeof h->address, six ? "[%s]:%u" : "%s:%u", host, bound);
    *ret = fd;
    return 0;
}

/* Takes fd over, in any case. */
static int start_daemon(struct rpc_http *h, int fd, struct hp_error *e)
{
    char *text[HP_TLS_FILES];
    int rc = hp_tls_files_read(&h->files, text, e);
    const char *cert = text[HP_TLS_FILE_CERT];
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, text[HP_TLS_FILE_CERT]},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, text[HP_TLS_FILE_KEY]},
                                   {MHD_OPTION_END, 0, NULL}};
    if (rc == 0) {
        unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (cert ? MHD_USE_TLS : 0);
        h->daemon = MHD_start_daemon(
            flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h, MHD_OPTION_LISTEN_SOCKET, fd,
            MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->server->connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
            (unsigned)HTTP_STALL_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADER_POOL_BYTES,
            MHD_OPTION_NOTIFY_COMPLETED, on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
            MHD_OPTION_ARRAY, cert ? tls : tls + 2, MHD_OPTION_END);
        if (!h->daemon)
            rc = hp_fail(e, HP_EINVAL, "the HTTP server on %s does not start%s", h->address,
                         cert ? " (are the certificate and its key a pair?)" : "");
    }
    hp_tls_texts_free(text);
    if (rc)
        close(fd);
    return rc;
}

static int start_handles(struct rpc_http *h, struct hp_error *e)
{
    uv_loop_t *loop = h->server->loop;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int rc = info ? uv_poll_init(loop, &h->poll, info->epoll_fd) : UV_EINVAL;
    if (rc)
        return hp_fail(e, HP_EIO, "the HTTP server's poll handle: %s", uv_strerror(rc));
    uv_timer_init(loop, &h->timer);
    uv_timer_init(loop, &h->slow);
    uv_idle_init(loop, &h->again);
    h->poll.data = h->timer.data = h->slow.data = h->again.data = h;
    h->handles = HTTP_HANDLES;
    uv_poll_start(&h->poll, UV_READABLE, on_poll);
    return 0;
}

static void free_http(struct rpc_http *h)
{
    hp_tls_files_close(&h->files);
    free(h->allow_origins);
    free(h);
}

static struct rpc_http *new_http(struct hp_rpc_server *s, const char *cert, const char *key, const char *allow_origins,
                                 struct hp_error *e)
{
    struct rpc_http *h = calloc(1, sizeof *h);
    if (h && allow_origins)
        h->allow_origins = strdup(allow_origins);
    if (!h || (allow_origins && !h->allow_origins) || hp_tls_files_init(&h->files, NULL, cert, key, e)) {
        free(h ? h->allow_origins : NULL);
        free(h);
        hp_fail(e, HP_ENOMEM, "no memory for the HTTP server");
        return NULL;
    }
    h->server = s;
    h->limits = hp_rpc_limits_of(s->service);
    TAILQ_INIT(&h->calls);
    TAILQ_INIT(&h->pending);
    TAILQ_INIT(&h->reading);
    return h;
}

/* Takes fd over, in any case. */
static int launch(struct rpc_http *h, int fd, struct hp_error *e)
{
    int rc = start_daemon(h, fd, e);
    if (rc == 0 && (rc = start_handles(h, e)))
        MHD_stop_daemon(h->daemon); /* closes fd */
    return rc;
}

int rpc_http_start(struct hp_rpc_server *s, const struct hp_rpc_server_options *o, struct rpc_http **ret,
                   struct hp_error *e)
{
    if (!o->cert_file && !rpc_is_loopback(o->http_listen))
        return hp_fail(e, HP_EINVAL, "plaintext HTTP is served on loopback addresses only, not on %s", o->http_listen);
    if (o->cert_file && !o->key_file)
        return hp_fail(e, HP_EINVAL, "a certificate without its key");
    struct rpc_http *h = new_http(s, o->cert_file, o->key_file, o->allow_origins, e);
    if (!h)
        return HP_ENOMEM;
    h->read_ms = o->http_read_ms > 0 ? (uint64_t)o->http_read_ms : HTTP_READ_MS;
    int fd, rc = open_socket(h, o->http_listen, &fd, e);
    if (rc == 0)
        rc = launch(h, fd, e);
    if (rc)
        free_http(h);
    else
        *ret = h;
    return rc;
}

static int launch_anew(struct rpc_http *h, struct rpc_http **ret, struct hp_error *e)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_LISTEN_FD);
    struct rpc_http *next =
        new_http(h->server, h->files.path[HP_TLS_FILE_CERT], h->files.path[HP_TLS_FILE_KEY], h->allow_origins, e);
    if (!next)
        return HP_ENOMEM;
    memcpy(next->address, h->address, sizeof next->address);
    next->read_ms = h->read_ms;
    int fd = info ? fcntl(info->listen_fd, F_DUPFD_CLOEXEC, 0) : -1;
    int rc = fd < 0 ? hp_fail_errno(e, HP_EIO, errno, "the listening socket") : launch(next, fd, e);
    if (rc) {
        memcpy(h->files.mark, next->files.mark, sizeof h->files.mark); /* told once */
        free_http(next);
    } else {
        *ret = next;
    }
    return rc;
}

/* libmicrohttpd has its certificate for life: another one takes the listening socket over, and this one ends with its last connection. */
static void renew(struct rpc_http *h)
{
    struct hp_error e = {0};
    struct rpc_http *next;
    h->stale = false;
    if (launch_anew(h, &next, &e)) {
        hp_warn("the certificates have changed and cannot be used; the former ones stay",
                HP_S("file", h->files.path[HP_TLS_FILE_CERT]), HP_S("error", e.message));
        return;
    }
    next->former = h;
    h->server->http = next;
    h->replaced = true;
    hp_info("the certificates have changed: new connections use them", HP_S("file", h->files.path[HP_TLS_FILE_CERT]));
}

const char *rpc_http_address(const struct rpc_http *h)
{
    return h->address;
}

/* ---- the end ---- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct rpc_http *h = handle->data;
    h->handles--;
    rpc_http_call_ended(h);
}

void rpc_http_call_ended(struct rpc_http *h)
{
    if (h->closing && h->handles == 0 && TAILQ_EMPTY(&h->calls)) {
        struct hp_rpc_server *s = h->server;
        struct rpc_http **at = &s->http;
        while (*at != h)
            at = &(*at)->former;
        *at = h->former;
        free_http(h);
        rpc_server_part_ended(s);
    } else if (h->draining && !h->closing && TAILQ_EMPTY(&h->calls)) {
        rpc_http_run_again(h); /* not from inside libmicrohttpd */
    }
}

static void quiesce(struct rpc_http *h)
{
    MHD_socket fd = MHD_quiesce_daemon(h->daemon);
    h->quiet = true;
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
}

void rpc_http_drain(struct rpc_http *h)
{
    for (; h; h = h->former) {
        h->draining = true;
        if (!h->closing)
            rpc_http_run_again(h); /* perhaps we are inside of a handler */
    }
}

static void close_one(struct rpc_http *h)
{
    if (h->closing)
        return;
    h->closing = true;
    /* Suspended connections must be resumed before the end; one turn lets libmicrohttpd close them. */
    struct http_call *c;
    TAILQ_FOREACH(c, &h->calls, link)
    if (c->connection)
        http_call_abandon(c);
    MHD_run(h->daemon);
    uv_poll_stop(&h->poll);
    MHD_stop_daemon(h->daemon);
    h->daemon = NULL;
    uv_close((uv_handle_t *)&h->poll, on_handle_closed);
    uv_close((uv_handle_t *)&h->timer, on_handle_closed);
    uv_close((uv_handle_t *)&h->slow, on_handle_closed);
    uv_close((uv_handle_t *)&h->again, on_handle_closed);
}

void rpc_http_close(struct rpc_http *h)
{
    for (; h; h = h->former)
        close_one(h);
}
