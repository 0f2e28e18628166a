"""Operations a second through the whole chain, with a whole fleet attached, and what each costs in every process.

    --agents N       simulated hosts, TLS on (15000)
    --routers N      (one for each 15000 hosts, and as many processes that simulate them: a limit of 20000 open files)
    --window N       operations under way in the leg that looks for the greatest rate (2000)
    --seconds N      of each leg (60)
    --rate N         of the leg that measures acceptance; 0: half of what the first leg reached (0)
    --perf FILE      record call stacks of all processes during the first leg (perf must be installed)
    --smoke          50 hosts, 3 s

An operation is a create or a delete of a container: accepted by the gateway (the broker's confirm of a quorum queue), recorded and placed by the scheduler (a transaction), told to the router and its host, journalled there (before
it is begun, and when it is done), reported (another quorum queue), recorded again, and told in the stream of events, from which the load hears of it. Leg 1 keeps a window of operations under way; leg 2 sends
half as many a second as leg 1 ended, on time, whatever comes back, and measures how long until acceptance. A container stands on each host from before.

How it could cheat, and what prevents that: by counting what is not done (an operation counts only when its SUCCEEDED has come out of a watch at the gateway; one that ends otherwise or twice fails the run; in the end everything accepted
has ended, the record holds as many SUCCEEDED operations as the load counted and all events without a gap, and the simulated machines have made and removed as many containers); by not being durable (the database's and the journal's
settings are read back and printed: a commit is flushed, the fleet's journal is synced, queues are quorum queues); by a fleet that is not there (every host is heard from by the scheduler, and `hosts_worked` counts the
hosts that did something in the legs); by a load that waits for the system (leg 2 counts from when an operation was due); by leaving processes out (CPU is that of all processes, with their children, read from the kernel).
The fleet is simulated in this: its containers are entries in memory, and all journals are one file, synced once for all that waits, where real hosts sync one each.
"""
import argparse
import json
import os
import signal
import subprocess

from fleet import PARTS, Region, machine, per_operation, say, spent

SHAPE = {"agents": int, "ops_per_s": float, "accept_p99_ms": float, "cpu_us_per_op": {p: float for p in (*PARTS, "all")}, "hosts_worked": int, "journal_syncs": int,
         "half_rate": {"rate": int, "accept_p50_ms": float, "end_p99_ms": float}, "verified": {"operations": int, "events": int}}


def leg(region, order, seconds):
    """(what the load says, CPU seconds by part)"""
    pids = region.pids()
    before = region.cpu(pids)
    result = region.load.order(order, seconds + 60)
    return result, spent(before, region.cpu(pids))


def verify(region, counted):
    """The account: what the record and the machines have is what the load counted."""
    stages = {int(stage): int(n) for stage, n in region.stack.sql("SELECT stage, COUNT(*) FROM operations WHERE project = 'demo' GROUP BY stage")}
    events, first, last = (int(x) for x in region.stack.sql("SELECT COUNT(*), MIN(sequence), MAX(sequence) FROM events WHERE region = 'r1'")[0])
    if stages != {6: counted}:
        raise AssertionError(f"the record has operations by stage {stages}, the load counted {counted} SUCCEEDED")
    if last - first + 1 != events:
        raise AssertionError(f"events from {first} to {last} are {events}: there is a gap")
    while True:
        said = region.said()  # the first that is of now
        if said["creates"] + said["removes"] >= counted:
            break
    if said["creates"] + said["removes"] != counted:
        raise AssertionError(f"the machines did {said['creates']} creates and {said['removes']} removals, the load counted {counted}")
    return {"operations": counted, "events": events, "creates": said["creates"], "removes": said["removes"]}, said


def durability(region):
    """Settings as the servers say them."""
    names = ("innodb_flush_log_at_trx_commit", "innodb_flush_method", "sync_binlog", "log_bin")
    settings = dict(region.stack.sql("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('" + "','".join(names) + "')"))
    if settings["innodb_flush_log_at_trx_commit"] != "1":
        raise AssertionError(f"commits are not flushed: {settings}")
    kinds = {q["name"]: q["type"].split(".")[-1] for q in json.loads(region.stack.rabbitmqctl("list_queues", "-q", "-p", "harpoon", "--formatter", "json", "name", "type"))}
    if kinds["requests.r1"] != "quorum" or kinds["reports.r1"] != "quorum" or kinds["events.r1"] != "stream":
        raise AssertionError(f"queues are not what they should be: {kinds}")
    return {**settings, "queues": {n: k for n, k in kinds.items() if n.endswith(".r1")}}


class Perf:
    """perf record of every process of the region; nothing without a file."""

    def __init__(self, region, path):
        self.child = None
        if path:
            pids = ",".join(str(p) for every in region.pids().values() for p in every)
            self.child = subprocess.Popen(["perf", "record", "-q", "-g", "-F", "499", "-p", pids, "-o", path], stdin=subprocess.DEVNULL)

    def stop(self):
        if self.child:
            self.child.send_signal(signal.SIGINT)
            self.child.wait()


def measure(region, args):
    attach_s = region.attach()
    say(f"{args.agents} agents attached in {attach_s:.1f} s")
    load = region.start_load()
    filled = load.order(f"fill {args.agents} {args.window}", 600)
    say(f"filled: {filled['ops_per_s']:.0f} creates/s")
    leg(region, f"closed {args.window} {max(2, args.seconds // 10)}", args.seconds)  # to warm up
    perf = Perf(region, args.perf)
    full, cpu = leg(region, f"closed {args.window} {args.seconds}", args.seconds)
    perf.stop()
    us = per_operation(cpu, full["succeeded"])
    say(f"full: {full['ops_per_s']:.0f} op/s, {us['all']:.0f} us of CPU each: {us}")
    between = load.order("settle 60", 90)
    rate = args.rate or max(1, int(full["ops_per_s"] / 2))
    half, half_cpu = leg(region, f"rate {rate} {args.seconds}", args.seconds)
    say(f"half: {half['ops_per_s']:.0f} op/s, accept p50 {half['accept_p50_ms']} p99 {half['accept_p99_ms']} ms, end p50 {half['end_p50_ms']} p99 {half['end_p99_ms']} ms")
    settled = load.order("settle 60", 90)
    if settled["under_way"] or between["under_way"]:
        raise AssertionError(f"{settled['under_way']} operations have not ended")
    verified, said = verify(region, settled["total_succeeded"])
    return {
        "agents": args.agents, "routers": len(region.routers()), "ops_per_s": full["ops_per_s"], "accept_p99_ms": half["accept_p99_ms"], "cpu_us_per_op": us,
        "seconds": full["seconds"], "window": args.window, "slowest_second": min(full["each_second"]), "full_end_p50_ms": full["end_p50_ms"], "full_end_p99_ms": full["end_p99_ms"],
        "cores_used": round(sum(cpu.values()) / full["seconds"], 2), "hosts_worked": full["hosts"],
        "half_rate": {"rate": rate, **{k: half[k] for k in ("ops_per_s", "accept_p50_ms", "accept_p99_ms", "accept_max_ms", "end_p50_ms", "end_p99_ms")},
                      "cpu_us_per_op": per_operation(half_cpu, half["succeeded"])},
        "attach_s": attach_s, "journal_syncs": said["journal_syncs"], "journal_bytes": said["journal_bytes"], "verified": verified, "durability": durability(region),
        "memory_bytes": region.memory(),
    }


def main(argv):
    parser = argparse.ArgumentParser(prog="chain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=15000)
    parser.add_argument("--routers", type=int)
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--perf", type=os.path.abspath)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.agents, args.window, args.seconds = 50, 50, 3
    before = machine()
    region = Region(args.agents, args.routers)
    try:
        result = measure(region.up(), args)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{region.stack.logs()}") from None
    finally:
        region.down()
    print(json.dumps(result | {"machine": before}))
    return 0
