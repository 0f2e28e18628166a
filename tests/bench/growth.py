"""How connections, queries, memory, CPU and latency grow with the fleet: one idle leg and one leg of the same load, for fleets of several sizes.

    --agents N[,N...]   fleets (1000,5000,15000)
    --seconds N         of each leg (30)
    --rate N            operations a second in the second leg, the same for each fleet (200)
    --smoke             20 and 40 hosts, 3 s, 50 operations a second

Each fleet has a region of its own, with a router and a process that simulates hosts for each 15,000 of them, attaches with TLS, is left alone (what fleet-idle measures), and then gets creates and deletes on time at a fixed rate (what the second leg of chain measures). `tests/bench/plot.py` draws the result.

How it could cheat, and what prevents that: as in fleet-idle and chain, whose code this is; by a load that grows smaller while the fleet grows (`ops_per_s` is what ended, and everything that was accepted is accounted for in the record and on the simulated machines).
"""
import argparse
import json

from chain import leg, verify
from fleet import CONTROL, Region, machine, memory_bytes, per_operation, say
from fleet_idle import idle_leg

FLEET = {"agents": int, "attach_s": float, "router_bytes_per_agent": float, "idle": {"cpu_cores": {"all": float}, "database_connections": int, "queries": int},
         "load": {"ops_per_s": float, "accept_p50_ms": float, "accept_p99_ms": float, "end_p50_ms": float, "end_p99_ms": float, "queries_per_op": float, "database_connections": int,
                  "cpu_us_per_op": {p: float for p in CONTROL}},
         "memory_bytes": {p: int for p in CONTROL}, "verified": {"operations": int, "events": int}}
SHAPE = {"fleets": [FLEET]}
WINDOW = 1000  # of the creates that put a container on each host


def load_leg(region, args):
    """The same rate for every fleet, after each host has its container."""
    region.start_load().order(f"fill {region.agents} {WINDOW}", 900)
    leg(region, f"rate {args.rate} {max(2, args.seconds // 5)}", args.seconds)  # to warm up
    asked = region.database("Questions")
    said, cpu = leg(region, f"rate {args.rate} {args.seconds}", args.seconds)
    asked, connections = region.database("Questions") - asked, region.database("Threads_connected") - 1
    settled = region.load.order("settle 60", 90)
    if settled["under_way"]:
        raise AssertionError(f"{settled['under_way']} operations have not ended")
    return {**{k: said[k] for k in ("ops_per_s", "accept_p50_ms", "accept_p99_ms", "end_p50_ms", "end_p99_ms")}, "queries_per_op": round(asked / said["succeeded"], 2),
            "database_connections": connections, "cpu_us_per_op": per_operation(cpu, said["succeeded"])}, verify(region, settled["total_succeeded"])[0]


def measure(agents, args):
    region = Region(agents)
    try:
        region.up()
        routers = region.pids()["router"]
        before = sum(memory_bytes(p) for p in routers)
        attach_s = region.attach()
        idle = idle_leg(region, args.seconds)
        router_bytes = round((sum(memory_bytes(p) for p in routers) - before) / agents)
        load, verified = load_leg(region, args)
        say(f"{agents} agents: idle {idle['cpu_cores']['all']} cores; {load['ops_per_s']:.0f} op/s, accepted after {load['accept_p50_ms']} / {load['accept_p99_ms']} ms, "
            f"{load['cpu_us_per_op']['all']:.0f} us of CPU each")
        return {"agents": agents, "routers": len(routers), "attach_s": attach_s, "router_bytes_per_agent": router_bytes, "idle": idle, "load": load, "memory_bytes": region.memory(), "verified": verified}
    except AssertionError as e:
        raise AssertionError(f"{e}\n{region.stack.logs(10)}") from None
    finally:
        region.down()


def main(argv):
    parser = argparse.ArgumentParser(prog="growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", default="1000,5000,15000")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.agents, args.seconds, args.rate = "20,40", 3, 50
    before = machine()
    print(json.dumps({"fleets": [measure(int(n), args) for n in args.agents.split(",")], "rate": args.rate, "machine": before}))
    return 0
