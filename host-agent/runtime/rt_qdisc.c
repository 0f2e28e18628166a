#include "rt_qdisc.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rt_fs.h"

/* 0 or -errno. */
static int delete_one(int fd, unsigned index, uint32_t parent)
{
    struct {
        struct nlmsghdr head;
        struct tcmsg tc;
    } ask = {.head = {.nlmsg_len = sizeof ask,
                      .nlmsg_type = RTM_DELQDISC,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                      .nlmsg_seq = parent},
             .tc = {.tcm_family = AF_UNSPEC, .tcm_ifindex = (int)index, .tcm_parent = parent}};
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } answer;
    if (send(fd, &ask, sizeof ask, 0) != sizeof ask)
        return -errno;
    ssize_t n = recv(fd, &answer, sizeof answer, 0);
    if (n < 0)
        return -errno;
    if ((size_t)n < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || answer.head.nlmsg_type != NLMSG_ERROR)
        return -EPROTO;
    struct nlmsgerr said;
    memcpy(&said, NLMSG_DATA(&answer.head), sizeof said);
    return said.error;
}

int ha_qdisc_clear(const char *interface, struct hp_error *e)
{
    unsigned index = if_nametoindex(interface);
    if (!index)
        return hp_fail(e, HP_ENOTFOUND, "interface %s", interface);
    HA_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    const uint32_t parents[] = {TC_H_ROOT, TC_H_INGRESS};
    for (size_t i = 0; i < 2; i++) {
        int rc = fd < 0 ? -errno : delete_one(fd, index, parents[i]);
        if (rc && rc != -ENOENT && rc != -EINVAL) /* there is none, or only the kernel's own */
            return hp_fail_errno(e, HP_EIO, -rc, "take the queueing discipline off %s", interface);
    }
    return 0;
}
