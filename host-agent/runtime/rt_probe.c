/* rt_probe.c — health checks: a command in the container, or a connection to a port of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rt_fs.h"
#include "rt_private.h"
#include "rt_proc.h"

#define TIMEOUT_DEFAULT_MS 1000
#define TIMEOUT_MAX_MS 60000

/* A socket that belongs to the container's network namespace. */
struct netns_socket {
    int netns;
    int fd; /* out */
};

static int socket_child(void *p)
{
    struct netns_socket *s = p;
    if (setns(s->netns, CLONE_NEWNET) != 0)
        return -errno;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return s->fd < 0 ? -errno : 0;
}

static int open_socket(struct ha_rt *rt, const char *uid, bool inside, int *ret, struct hp_error *e)
{
    if (!inside) {
        *ret = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        return *ret < 0 ? hp_fail_errno(e, HP_EIO, errno, "socket") : 0;
    }
    struct ha_run run;
    char path[64];
    HA_CLOSE int process = ha_process_open(rt, uid, &run);
    if (process < 0)
        return hp_fail(e, HP_ENOTFOUND, "the container does not run");
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)run.pid);
    HA_CLOSE int netns = open(path, O_RDONLY | O_CLOEXEC);
    struct netns_socket s = {.netns = netns, .fd = -1};
    int rc = netns < 0 ? -errno : ha_proc_in_child(socket_child, &s);
    if (rc)
        return hp_fail_errno(e, HP_EIO, -rc, "enter the network of %s", uid);
    *ret = s.fd;
    return 0;
}

static int probe_tcp(struct ha_rt *rt, const char *uid, int port, int timeout_ms, bool *ret_healthy, struct hp_error *e)
{
    char record[512], address[HA_ADDRESS_SIZE];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (port < 1 || port > 65535)
        return hp_fail(e, HP_EINVAL, "health_check.tcp.port %d is not between 1 and 65535", port);
    int rc = ha_store_path(&rt->store, uid, "network", record, sizeof record, e);
    if (rc)
        return rc;
    ha_cni_address(record, address);
    address[strcspn(address, "/")] = '\0';
    bool inside = inet_pton(AF_INET, address, &to.sin_addr) != 1;
    if (inside)
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    HA_CLOSE int fd = -1;
    rc = open_socket(rt, uid, inside, &fd, e);
    if (rc)
        return rc;
    int err = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    if (err == EINPROGRESS) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = rt->cancel_fd, .events = POLLIN}};
        int n = poll(p, 2, timeout_ms);
        socklen_t size = sizeof err;
        if (n <= 0 || !p[0].revents)
            err = ETIMEDOUT;
        else
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size);
    }
    *ret_healthy = err == 0;
    return 0;
}

int ha_probe(struct ha_rt *rt, const char *uid, const Harpoon__V1__HealthCheck *check, bool *ret_healthy,
             struct hp_error *e)
{
    int timeout = check->timeout_ms > 0 ? check->timeout_ms : TIMEOUT_DEFAULT_MS;
    if (timeout > TIMEOUT_MAX_MS)
        timeout = TIMEOUT_MAX_MS;
    *ret_healthy = false;
    if (check->probe_case == HARPOON__V1__HEALTH_CHECK__PROBE_TCP)
        return probe_tcp(rt, uid, check->tcp->port, timeout, ret_healthy, e);
    if (check->probe_case != HARPOON__V1__HEALTH_CHECK__PROBE_EXEC)
        return hp_fail(e, HP_EINVAL, "health_check has neither exec nor tcp");
    char dir[512];
    struct ha_run run;
    HA_CLOSE int process = ha_process_open(rt, uid, &run);
    if (process < 0)
        return hp_fail(e, HP_ENOTFOUND, "the container does not run");
    int code = -1, rc = ha_run_path(&rt->store, uid, "", dir, sizeof dir, e);
    if (rc == 0)
        rc = ha_oci_exec(&rt->oci, uid, dir, check->exec->command, check->exec->n_command, timeout, rt->cancel_fd,
                         &code, e);
    *ret_healthy = rc == 0 && code == 0;
    return rc == HP_ETIMEDOUT ? 0 : rc;
}
