/* rt_ports.c — DIR/ports/tcp-8080 holds the uid; it is a link to a file that is written before, which decides between two that come at once. */
#include "rt_ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rt_fs.h"

static int ports_dir(const char *dir, char *buf, size_t size, struct hp_error *e)
{
    int rc = ha_fs_path(buf, size, e, "%s/ports", dir);
    return rc ? rc : ha_fs_mkdirs(buf, 0700, e);
}

/* Is somebody on the host listening there? */
static bool host_uses(int port, bool udp)
{
    HA_CLOSE int fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int yes = 1;
    if (fd < 0)
        return false;
    if (!udp)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    return bind(fd, (struct sockaddr *)&any, sizeof any) != 0 && errno == EADDRINUSE;
}

/* `mine` is a file with the uid in it: linking it decides and writes in one step. */
static int take(const char *dir, const char *mine, const char *uid, const Harpoon__V1__PortMapping *p,
                struct hp_error *e)
{
    bool udp = strcmp(p->protocol, "udp") == 0;
    char path[700];
    if (p->host_port < 1 || p->host_port > 65535 || p->container_port < 1 || p->container_port > 65535 ||
        (!udp && p->protocol[0] && strcmp(p->protocol, "tcp") != 0))
        return hp_fail(e, HP_EINVAL, "port mapping %d to %d/%.8s", p->host_port, p->container_port, p->protocol);
    int rc = ha_fs_path(path, sizeof path, e, "%s/%s-%d", dir, udp ? "udp" : "tcp", p->host_port);
    if (rc)
        return rc;
    rc = host_uses(p->host_port, udp) ? HP_ECONFLICT : 0;
    if (rc)
        return hp_fail(e, rc, "host port %d/%s is in use by a process of the host", p->host_port, udp ? "udp" : "tcp");
    if (link(mine, path) == 0)
        return 0;
    if (errno != EEXIST)
        return hp_fail_errno(e, HP_EIO, errno, "create %s", path);
    HA_FREE char *owner = NULL;
    size_t size;
    rc = ha_fs_read(AT_FDCWD, path, 256, &owner, &size, e);
    if (rc == 0 && strcmp(owner, uid) != 0)
        rc = hp_fail(e, HP_ECONFLICT, "host port %d/%s belongs to container %s", p->host_port, udp ? "udp" : "tcp",
                     owner);
    return rc;
}

static bool wanted(const Harpoon__V1__NetworkSpec *network, const char *file)
{
    for (size_t i = 0; network && i < network->n_ports; i++) {
        char name[32];
        const Harpoon__V1__PortMapping *p = network->ports[i];
        snprintf(name, sizeof name, "%s-%d", strcmp(p->protocol, "udp") == 0 ? "udp" : "tcp", p->host_port);
        if (strcmp(name, file) == 0)
            return true;
    }
    return false;
}

/* Gives back what `uid` has, but for what `network` wants. */
static int give_back(const char *dir, const char *uid, const Harpoon__V1__NetworkSpec *network, struct hp_error *e)
{
    DIR *d = opendir(dir);
    struct dirent *item;
    int rc = d ? 0 : hp_fail_errno(e, HP_EIO, errno, "open %s", dir);
    while (rc == 0 && (item = readdir(d))) {
        HA_FREE char *owner = NULL;
        size_t size;
        struct hp_error ignored = {0};
        if (item->d_name[0] == '.' || wanted(network, item->d_name) ||
            ha_fs_read(dirfd(d), item->d_name, 256, &owner, &size, &ignored))
            continue;
        if (strcmp(owner, uid) == 0 && unlinkat(dirfd(d), item->d_name, 0) != 0)
            rc = hp_fail_errno(e, HP_EIO, errno, "remove %s/%s", dir, item->d_name);
    }
    if (d)
        closedir(d);
    return rc;
}

int ha_ports_take(const char *dir, const char *uid, const Harpoon__V1__NetworkSpec *network, struct hp_error *e)
{
    char ports[640];
    int rc = ports_dir(dir, ports, sizeof ports, e);
    if (rc == 0)
        rc = give_back(ports, uid, network, e);
    if (rc || !network || !network->n_ports)
        return rc;
    char mine[700];
    rc = ha_fs_path(mine, sizeof mine, e, "%s/.%s", ports, uid);
    if (rc == 0)
        rc = ha_fs_write(mine, uid, strlen(uid), 0600, false, e);
    for (size_t i = 0; rc == 0 && i < network->n_ports; i++)
        rc = take(ports, mine, uid, network->ports[i], e);
    (void)unlink(mine);
    return rc;
}

int ha_ports_release(const char *dir, const char *uid, struct hp_error *e)
{
    char ports[640];
    int rc = ports_dir(dir, ports, sizeof ports, e);
    return rc ? rc : give_back(ports, uid, NULL, e);
}
