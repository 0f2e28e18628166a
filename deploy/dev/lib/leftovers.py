"""Removes from the machine whatever containers of a stack have left: processes, cgroups, mounts, bridges, firewall rules. Everything is found by the stack's
own names, so that nothing of another stack is touched."""
import ipaddress
import os
import re
import shlex
import signal
import subprocess
import time

from daemons import cgroup_roots


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def stack_cgroups(stack_id):
    """Directories of the stack in every hierarchy."""
    return [p for p in (os.path.join(root, f"harpoon-{stack_id}") for root in cgroup_roots()) if os.path.isdir(p)]


def pids_in(directory):
    pids = set()
    for at, _, files in os.walk(directory):
        if "cgroup.procs" not in files:
            continue
        try:
            with open(os.path.join(at, "cgroup.procs")) as f:
                pids.update(int(line) for line in f if line.strip() != "0")
        except OSError:
            continue
    return pids


def pids_below(directory):
    """Processes whose command line names a path below the directory: container monitors and pullers of images."""
    pids = set()
    needle = (directory.rstrip("/") + "/").encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                if needle in f.read():
                    pids.add(int(entry))
        except OSError:
            continue
    return pids


def kill_processes(stack_id, directory):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = pids_below(os.path.join(directory, "hosts")) | pids_below(os.path.join(directory, "r"))
        for cgroup in stack_cgroups(stack_id):
            pids |= pids_in(cgroup)
        pids = {p for p in pids if not is_zombie(p)}
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def is_zombie(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rsplit(b")", 1)[1].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def remove_cgroups(stack_id):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = stack_cgroups(stack_id)
        if not left:
            return
        for top in left:
            for at, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(at)
                except OSError:
                    pass
        if stack_cgroups(stack_id):
            time.sleep(0.02)


def mounts_below(directory):
    prefix = directory.rstrip("/") + "/"
    with open("/proc/self/mountinfo") as f:
        points = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4]) for line in f]
    return [p for p in points if p.startswith(prefix)]


def remove_mounts(directory):
    for _ in range(3):
        points = mounts_below(directory)
        for point in reversed(points):
            run("umount", "-l", point)
        if not points:
            return


def remove_bridges(bridges):
    for bridge in bridges:
        if os.path.exists(f"/sys/class/net/{bridge}"):
            run("ip", "link", "delete", bridge)


def remove_firewall_rules(subnets):
    """Rules that name an address of the stack's subnets, and the chains that only they led to."""
    networks = [ipaddress.ip_network(s) for s in subnets]
    for table in ("nat", "filter"):
        saved = run("iptables-save", "-t", table).stdout.splitlines()
        rules = [line for line in saved if line.startswith("-A ")]
        ours = [r for r in rules if any(in_networks(a, networks) for a in re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", r))]
        # A container's own chain, and whoever leads to it; never the plugins' common ones.
        chains = {name for r in ours for name in re.findall(r"-[Aj] (CNI-(?:DN-)?[0-9a-f]{20,})", r)}
        ours += [r for r in rules if r not in ours and any(r.endswith("-j " + c) or r.startswith(f"-A {c} ") for c in chains)]
        for rule in ours:
            run("iptables", "-w", "-t", table, "-D", *shlex.split(rule)[1:])
        for chain in chains:
            run("iptables", "-w", "-t", table, "-F", chain)
            run("iptables", "-w", "-t", table, "-X", chain)


def in_networks(text, networks):
    try:
        address = ipaddress.ip_interface(text).ip
    except ValueError:
        return False
    return any(address in n for n in networks)


def remove_all(stack_id, directory, bridges, subnets):
    """After the daemons have ended. Gives what could not be removed, in words."""
    kill_processes(stack_id, directory)
    remove_mounts(directory)
    remove_bridges(bridges)
    remove_firewall_rules(subnets)
    remove_cgroups(stack_id)
    return [f"cgroup {c}" for c in stack_cgroups(stack_id)] + [f"mount {m}" for m in mounts_below(directory)]
