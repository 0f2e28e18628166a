#include "io/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* An abstract name begins with a zero byte and ends where the address ends: unlike a path it is not terminated. */
static int read_address(const char *name, struct sockaddr_un *a, socklen_t *ret_len, struct hp_error *e)
{
    size_t n = strlen(name);
    if ((*name != '/' && *name != '@') || n < 2)
        return hp_fail(e, HP_EINVAL, "NOTIFY_SOCKET: \"%s\" is neither an absolute path nor an abstract name", name);
    if (n >= sizeof a->sun_path)
        return hp_fail(e, HP_EINVAL, "NOTIFY_SOCKET: %zu bytes are more than %zu", n, sizeof a->sun_path - 1);
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path, name, n);
    if (*name == '@')
        a->sun_path[0] = '\0';
    *ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (*name == '/'));
    return 0;
}

int hp_notify(const char *state, struct hp_error *e)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {0};
    socklen_t len;
    if (!name || !*name)
        return 0;
    int rc = read_address(name, &a, &len, e);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return hp_fail_errno(e, HP_EIO, errno, "NOTIFY_SOCKET: socket");
    ssize_t n;
    do {
        n = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&a, len);
    } while (n < 0 && errno == EINTR);
    int err = n < 0 ? errno : 0;
    close(fd);
    return err ? hp_fail_errno(e, HP_EIO, err, "NOTIFY_SOCKET: %s", name) : 0;
}

/* Of an environment variable: decimal digits and nothing else. 0: not set, or no such number. */
static uint64_t number(const char *variable)
{
    const char *text = getenv(variable);
    if (!text || !*text || text[strspn(text, "0123456789")])
        return 0;
    errno = 0;
    uint64_t n = strtoull(text, NULL, 10);
    return errno ? 0 : n;
}

bool hp_notify_watchdog(uint64_t *ret_usec)
{
    uint64_t usec = number("WATCHDOG_USEC");
    if (usec == 0 || usec == UINT64_MAX) /* the latter is systemd's word for never */
        return false;
    if (getenv("WATCHDOG_PID") && number("WATCHDOG_PID") != (uint64_t)getpid())
        return false;
    *ret_usec = usec;
    return true;
}
