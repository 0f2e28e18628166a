"""Addresses of a stack: ports that are free now and stay out of the way of outgoing connections, and free subnets."""
import ipaddress
import random
import socket
import subprocess

from procs import Failure


def ephemeral_low():
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        return int(f.read().split()[0])


def free_port(taken):
    """A port below the kernel's ephemeral range that nothing is bound to: a daemon that is down for a moment finds it free again, because no outgoing
    connection is given it meanwhile."""
    high = max(ephemeral_low(), 12000)
    for _ in range(2000):
        port = random.randrange(10000, high)
        if port in taken:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Failure("no free port on 127.0.0.1")


def used_networks():
    """Networks that the machine's addresses and routes mention."""
    out = subprocess.run(["ip", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=False).stdout
    nets = []
    for line in out.splitlines():
        for word in line.split()[:2]:
            try:
                net = ipaddress.ip_network(word, strict=False)
            except ValueError:
                continue
            if net.prefixlen > 0:
                nets.append(net)
    return nets


def free_subnet(taken):
    """A /22 of 10.64.0.0/10 that neither the machine nor `taken` uses."""
    used = used_networks() + [ipaddress.ip_network(t) for t in taken]
    for _ in range(2000):
        net = ipaddress.ip_network((int(ipaddress.ip_address("10.64.0.0")) + random.randrange(1 << 12) * 1024, 22))
        if not any(net.overlaps(u) for u in used):
            return str(net)
    raise Failure("no free subnet in 10.64.0.0/10")
