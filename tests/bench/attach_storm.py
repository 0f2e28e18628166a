"""A router with a whole fleet's sessions dies: how soon all are back on the other one, and what the hosts that were there notice; then all routers at once.

    --agents N       hosts on the router that is killed, TLS on (15000)
    --calm N         hosts that are attached to the other one all the while (100)
    --rate N         operations a second on those (50)
    --smoke          100 and 5 hosts, 10 operations a second

Leg "failover": the router with all sessions is killed; `all_back_s` is from the signal until the other has every host attached, which it says after the broker has confirmed the report of it. Meanwhile, and for 10 s before, containers are created and deleted on the hosts that were
on the other one already: times from when each was due until its end is in the stream (p50, p99, and before the storm). Leg "restart": both routers are killed, and started again at once.

How it could cheat, and what prevents that: by few sessions (the router that dies has all of them by its own metric; the other has all afterwards, and the scheduler has each with its new router); by a load that waits (times count
from when an operation was due); by memory that is not looked at (the peak of the other router's resident memory, as the kernel keeps it, less what it had before).
"""
import argparse
import json
import os
import time

from fleet import Lines, Load, Region, machine, memory_bytes, pause, say, spent
from harness import eventually
from paths import BUILD

TIMES = {"end_p50_ms": float, "end_p99_ms": float}
SHAPE = {"agents": int, "failover": {"all_back_s": float, "dispatch_before": TIMES, "dispatch_meanwhile": TIMES, "router_peak_bytes": float}, "restart": {"all_back_s": float}}
LIMIT_S = 120


def high_water(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


def sessions(region, router):
    """Of a router; 0 while it does not answer yet."""
    try:
        return int(region.stack.metric(router, "harpoon_router_sessions"))
    except OSError:
        return 0


def pid_of(region, name):
    return region.stack.status()[name]["pid"]


def calm_fleet(region, router, count):
    """A second fleet, which knows that router only."""
    status, ca = region.stack.status(), region.stack.env["HARPOON_CA"]
    ready = os.path.join(region.stack.directory, "calm.ready")
    fleet = Lines([os.path.join(BUILD, "harpoon-fleet-sim"), "--routers", status[router]["ports"]["agents"], "--region", "r1", "--hosts", str(count), "--prefix", "calm-", "--ready-file", ready,
                   "--ca", ca, "--ca-key", os.path.join(os.path.dirname(ca), "ca-key.pem"), "--journal-file", os.path.join(region.stack.directory, "calm.journal")])
    eventually(lambda: os.path.exists(ready), 60, "the calm fleet to attach")
    return fleet


def all_back(region, count, began):
    """Seconds since `began` until the routers that run have so many hosts attached, each known to the scheduler with its router."""
    lowest = count
    while sum(sessions(region, r) for r in up(region)) < count:
        lowest = min(lowest, sum(sessions(region, r) for r in up(region)))
        if time.monotonic() - began > LIMIT_S:
            raise AssertionError(f"{ {r: sessions(region, r) for r in up(region)} } of {count} hosts are back after {LIMIT_S} s")
        time.sleep(0.05)
    took = time.monotonic() - began

    def known():
        ids, running = {h.router for h in region.client.list_hosts()}, {r for r in up(region) if sessions(region, r)}
        return {i.rsplit("-", 1)[0] for i in ids} == running and len(ids) == len(running)
    eventually(known, LIMIT_S, lambda: f"the scheduler to know each host's new router: {({h.router for h in region.client.list_hosts()})}", interval=0.5)
    return took, lowest


def up(region):
    return [n for n, p in region.stack.status().items() if p["role"] == "event-router" and p["running"]]


def failover(region, args):
    """Kills r1-router-1, which has all hosts but the calm ones."""
    load, total = region.load, args.agents + args.calm
    eventually(lambda: sessions(region, "r1-router-1") == args.agents, 10, lambda: f"r1-router-1 to show {args.agents} sessions: {sessions(region, 'r1-router-1')}")  # what it shows may be a second old
    load.order(f"rate {args.rate} {args.before}", 60 + args.before)
    other = pid_of(region, "r1-router-2")
    before, cpu, pids = memory_bytes(other), region.cpu(), region.pids()
    load.begin(f"rate {args.rate} {args.during}")
    began = time.monotonic()
    region.stack.kill("r1-router-1")
    back_s, lowest = all_back(region, total, began)
    used = spent(cpu, region.cpu(pids))
    load.checked("rate", load.get(LIMIT_S + args.during))
    settled = load.order("settle 120", 150)
    if settled["under_way"]:
        raise AssertionError(f"{settled['under_way']} operations on calm hosts have not ended")
    calm, storm = load.order("report 1", 30), load.order("report 2", 30)
    keys = ("ended", "accept_p99_ms", "end_p50_ms", "end_p99_ms", "end_max_ms")
    result = {"all_back_s": round(back_s, 2), "fewest_attached": lowest, "dispatch_before": {k: calm[k] for k in keys}, "dispatch_meanwhile": {k: storm[k] for k in keys},
              "router_peak_bytes": high_water(other) - before, "router_bytes_after": memory_bytes(other) - before, "cpu_s": {p: round(s, 2) for p, s in used.items() if p != "load"}}
    say(f"failover: all {total} back after {back_s:.1f} s; {result}")
    return result


def restart(region, args):
    began = time.monotonic()
    for name in up(region):
        region.stack.kill(name)
    for name in region.routers():
        region.stack.command("start", name)
    back_s, lowest = all_back(region, args.agents + args.calm, began)
    peaks = {name: high_water(pid_of(region, name)) for name in region.routers()}
    say(f"restart of all routers: all back after {back_s:.1f} s; peaks {peaks}")
    return {"all_back_s": round(back_s, 2), "fewest_attached": lowest, "router_peak_bytes": peaks, "sessions": {n: sessions(region, n) for n in region.routers()}}


def measure(region, args):
    region.stack.kill("r1-router-2")  # so that all attach to the first
    attach_s = region.attach()
    region.stack.command("start", "r1-router-2")
    eventually(lambda: len(up(region)) == 2 and region.stack.status()["r1-router-2"]["ports"].get("agents"), 60, "the second router")
    calm = calm_fleet(region, "r1-router-2", args.calm)
    try:
        region.recorded(args.agents + args.calm, 60)
        region.load = Load(region.stack, on=f"calm-:{args.calm}")
        result = {"agents": args.agents, "calm": args.calm, "attach_s": attach_s, "failover": failover(region, args)}
        pause(args.before)
        result["restart"] = restart(region, args)
        return result
    finally:
        calm.stop()


def main(argv):
    parser = argparse.ArgumentParser(prog="attach-storm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=15000)
    parser.add_argument("--calm", type=int, default=100)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    args.before, args.during = 10, 40
    if args.smoke:
        args.agents, args.calm, args.rate, args.before, args.during = 100, 5, 10, 2, 4
    before = machine()
    region = Region(args.agents, routers=2)
    try:
        result = measure(region.up(), args)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{region.stack.logs(15)}") from None
    finally:
        region.down()
    print(json.dumps(result | {"machine": before}))
    return 0
