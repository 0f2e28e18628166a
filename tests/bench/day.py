"""A day of 400,000 events in compressed time, with a burst of 50 times its rate in the middle: how long until accepted, how long until done.

    --agents N       simulated hosts, TLS on (15000)
    --compress N     how many times faster than the day (200)
    --burst N        seconds of the burst, at 50 times the day's rate (1)
    --events N       of the day (400000)
    --smoke          50 hosts, 2,000 events in 8 s

Half of the events create a container, half delete one, through the whole chain (tests/bench/chain.py says what that is). Events are sent when they are due, whatever comes back, and times count from when they were due: what the burst
holds up is counted against the system. Legs: before the burst, the burst, the rest of the day (which begins while the burst is still being worked off). `drained_s`: from the end of the burst until its last event is done.

How it could cheat, and what prevents that: as in chain; by sending the burst later than due (times count from when it was due); by leaving events out (each is accounted for in the record at the end, and the number is printed).
"""
import argparse
import json

from chain import verify
from fleet import Region, machine, per_operation, say, spent

FACTOR = 50  # of the burst
LEG = {"rate": int, "events": int, "accept_p50_ms": float, "accept_p99_ms": float, "end_p50_ms": float, "end_p99_ms": float}
SHAPE = {"agents": int, "events": int, "compress": float, "before": LEG, "burst": LEG, "after": LEG, "drained_s": float, "cpu_us_per_op": {"all": float}}


def measure(region, args):
    day_s = 86400 / args.compress
    rate = max(1, round(args.events / (day_s + (FACTOR - 1) * args.burst)))
    half_s = max(1, round((day_s - args.burst) / 2))
    region.attach()
    load = region.start_load()
    load.order(f"fill {args.agents} 1000", 900)
    pids = region.pids()
    before_cpu = region.cpu(pids)
    say(f"{rate} events/s for {half_s} s, {rate * FACTOR} for {args.burst} s, {rate} for {half_s} s")
    orders = [f"rate {rate} {half_s}", f"rate {rate * FACTOR} {args.burst}", f"rate {rate} {half_s}"]
    refused = sum(load.order(order, half_s + 300)["refused"] for order in orders)
    settled = load.order("settle 300", 330)
    if settled["under_way"]:
        raise AssertionError(f"{settled['under_way']} operations have not ended")
    cpu = spent(before_cpu, region.cpu(pids))
    legs = {}
    for name, number, of in (("before", 2, rate), ("burst", 3, rate * FACTOR), ("after", 4, rate)):
        r = load.order(f"report {number}", 60)
        legs[name] = {"rate": of, "events": r["ended"], "drained_s": r["drained_s"], **{k: r[k] for k in ("accept_p50_ms", "accept_p99_ms", "accept_max_ms", "end_p50_ms", "end_p99_ms", "end_max_ms")}}
        say(f"{name}: {legs[name]}")
    events = sum(leg["events"] for leg in legs.values())
    verified, _ = verify(region, settled["total_succeeded"])
    return {"agents": args.agents, "events": events, "compress": args.compress, **legs, "drained_s": legs["burst"]["drained_s"], "refused_and_repeated": refused,
            "cpu_us_per_op": per_operation(cpu, events), "verified": verified, "memory_bytes": region.memory()}


def main(argv):
    parser = argparse.ArgumentParser(prog="day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=15000)
    parser.add_argument("--compress", type=float, default=200)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--events", type=int, default=400000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.agents, args.compress, args.events = 50, 10800, 2000
    before = machine()
    region = Region(args.agents)
    try:
        result = measure(region.up(), args)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{region.stack.logs()}") from None
    finally:
        region.down()
    print(json.dumps(result | {"machine": before}))
    return 0
