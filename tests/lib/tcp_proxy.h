/* tcp_proxy.h — a TCP proxy whose links can be made to fail: one process, many listeners, faults by command. For tests; loopback and private networks only.
 *
 *   tcp-proxy --control SOCKET [--ready-file FILE]
 *
 * Control: a unix stream socket, mode 0600. Each request is one JSON object on one line, each is answered by one line, in order: {"ok":true,…} or {"ok":false,"error":"…"}.
 *
 *   {"cmd":"add","link":NAME,"listen":"127.0.0.1:PORT","target":"10.0.0.1:PORT"}
 *        begins a link; addresses are IPv4 in numbers; port 0: the kernel chooses; → "listen":"127.0.0.1:41234". The same link again with the same target changes nothing.
 *   {"cmd":"remove","link":PATTERN}     ends links, their connections with a reset; → "links":[NAME,…]
 *   {"cmd":"set","link":PATTERN, "mode":MODE, "direction":DIRECTION, "delay_ms":N, "bytes_per_s":N}
 *        the whole state of the links, at once; what is left out is "pass", "both", 0 (none), 0 (no limit); → "links":[NAME,…]
 *   {"cmd":"cut","link":PATTERN}        resets every open connection, at both ends, once; the state stays; → "links", "connections":N
 *   {"cmd":"list","link":PATTERN}       ("link" may be left out) → "links":[{"link","listen","target","mode","direction","delay_ms","bytes_per_s",
 *        "open","accepted","refused","failed","cut","bytes_up","bytes_down","faulted"},…]
 *
 * PATTERN is a shell pattern (fnmatch) of names; one that matches nothing is an error. "up" is from the one that connects to the target, "down" is the other way.
 *
 *   pass       bytes flow, after delay_ms and at no more than bytes_per_s in each direction that "direction" names
 *   drop       a black hole in the given direction: nothing gets through, neither bytes nor the end of a connection, and nobody is told. What was sent waits in front of
 *              the proxy, as it waits for retransmission in front of a broken network, and flows when the link is healed. New connections are taken by the kernel, and no
 *              further.
 *   refuse     open connections stay; new ones are reset at once
 *   reset      open connections are reset now, new ones at once
 *   half-open  as if the target's machine had vanished: the target's end of every open connection is reset, the other end is told nothing; new connections are
 *              taken and stay silent. Healing resets the ends that were left.
 *   half-open with "direction":"down": the other way round: the target is told nothing, the one that connected gets a reset, as do new ones.
 *
 * Counters count since the link was added: accepted connections, refused ones (reset by refuse or reset), failed ones (the target could not be reached), cut ones, bytes
 * handed on in each direction, and `faulted`: connections, old or new, that a state other than pass has touched, so that a fault that met nobody can be told.
 *
 * Limits: 4,096 links, 8,000 connections (more are refused), 256 KiB held in each direction of a connection (reading stops beyond), 64 KiB a command, 64 control
 * connections. */
#ifndef TESTS_TCP_PROXY_H
#define TESTS_TCP_PROXY_H

#include <uv.h>

#include "base/error.h"

enum {
    TP_LINKS_MAX = 4096,
    TP_CONNECTIONS_MAX = 8000,
    TP_HELD_MAX = 256 << 10,
    TP_COMMAND_MAX = 64 << 10,
    TP_CONTROLS_MAX = 64,
};

struct tp_proxy;

/* Listens at the control socket, which is made anew. Loop thread, as all here. */
int tp_proxy_new(uv_loop_t *loop, const char *control, struct tp_proxy **ret, struct hp_error *e) HP_MUST_CHECK;
/* Resets all connections and closes everything; the proxy is freed when the loop has run out. */
void tp_proxy_close(struct tp_proxy *p);

#endif
