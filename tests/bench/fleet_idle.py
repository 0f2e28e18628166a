"""What an idle fleet costs: memory a host, CPU of the control plane, connections and queries, for fleets of several sizes; and an idle host-agent.

    --agents N[,N...]   fleets (1000,5000,15000)
    --seconds N         of idleness that are measured, of each fleet (60)
    --no-agent          leave out the leg with a real host-agent
    --smoke             30 hosts, 3 s

A fleet attaches, the region becomes quiet (the watermark is written, the database is asked nothing for 3 s), and then time passes: agents send heartbeats and metrics as in production, each of them every 5 s. Memory is what the router has resident
and not from files, less what it had before the first host, by hosts; taken after the measured time; `router_peak_bytes` is the most that it ever had. The largest fleet attaches once more without TLS. The host-agent is a real one, with a
runtime and a journal, and nothing to run; it is looked at when it has been left alone for 20 s (3 s with --smoke), for after 15 s it gives back what it does not need.

How it could cheat, and what prevents that: by hosts that are not there (the scheduler counts them as attached at the end of each leg, and the router has heard each of them lately, or would have dropped it); by memory that is elsewhere (all processes of the control
plane are listed); by queries that are not counted (the server's own counter, less what reading it costs, measured); by CPU in other processes (all of the stack, with
children).
"""
import argparse
import json
import time

from fleet import CONTROL, Region, machine, memory_bytes, pause, cpu_seconds, say, spent
from faults import memory, resident_bytes
from harness import Stack, eventually

FLEET = {"agents": int, "router_bytes_per_agent": float, "cpu_cores": {"all": float}, "database_connections": int, "queries": int}
SHAPE = {"fleets": [FLEET], "without_tls": {"router_bytes_per_agent": float}, "host_agent": {"resident_bytes": int, "proportional_bytes": int, "private_bytes": int, "cpu_percent_of_a_core": float}}


def questions(region):
    return region.database("Questions")


def quiet(region):
    """Waits until the database is asked nothing. Gives what one reading of the counter costs."""
    def cost():
        before = questions(region)
        return questions(region) - before
    own = min(cost() for _ in range(5))

    def nothing():
        before = questions(region)
        pause(3)
        return questions(region) - before == own
    eventually(lambda: region.stack.sql("SELECT sequence = watermark FROM regions") == [["1"]], 120, "the watermark to be written")
    eventually(nothing, 120, "a quiet database")
    return own


def high_water(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


def idle_leg(region, seconds):
    """An attached fleet, left alone."""
    own = quiet(region)
    pids = region.pids()
    questions_before, cpu_before, began = questions(region), region.cpu(pids), time.monotonic()
    pause(seconds)
    took = time.monotonic() - began
    cpu = spent(cpu_before, region.cpu(pids))
    asked = questions(region) - questions_before - own
    still = region.attached()
    if still != region.agents:
        raise AssertionError(f"{still} hosts are attached, of {region.agents}")
    cores = {part: round(cpu[part] / took, 4) for part in (*CONTROL, "agents")}
    return {"cpu_cores": cores | {"all": round(sum(cores[p] for p in CONTROL), 4)}, "database_connections": region.database("Threads_connected") - 1, "queries": asked, "seconds": round(took, 1)}


def fleet_leg(agents, seconds, tls):
    region = Region(agents, tls=tls)
    try:
        region.up()
        router = region.pids()["router"][0]
        before, resident_before = memory_bytes(router), resident_bytes(router)
        attach_s = region.attach(report_s=0)
        idle = idle_leg(region, seconds)
        result = {
            "agents": agents, "tls": tls, "attach_s": attach_s, "router_bytes_per_agent": round((memory_bytes(router) - before) / agents), "router_peak_bytes": high_water(router) - resident_before,
            **idle, "memory_bytes": region.memory(),
        }
        say(f"{agents} agents{'' if tls else ' without TLS'}: {result['router_bytes_per_agent']} bytes each in the router, control plane {idle['cpu_cores']}, {idle['queries']} queries")
        return result
    except AssertionError as e:
        raise AssertionError(f"{e}\n{region.stack.logs(10)}") from None
    finally:
        region.down()


def agent_leg(seconds):
    """A real agent with nothing to run."""
    stack = Stack(hosts=1)
    try:
        stack.up()
        stack.hosts_ready(stack.client(), 1)
        pid = stack.status()["r1-h1"]["pid"]
        pause(20 if seconds > 3 else seconds)  # its start is behind it
        before, began = cpu_seconds(pid), time.monotonic()
        pause(seconds)
        cores = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        result = {f"{key}_bytes": value for key, value in memory(pid).items()} | {"own_bytes": memory_bytes(pid), "cpu_percent_of_a_core": round(cores * 100, 3)}
        say(f"host-agent: {result}")
        return result
    finally:
        stack.down()


def main(argv):
    parser = argparse.ArgumentParser(prog="fleet-idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", default="1000,5000,15000")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--no-agent", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.agents, args.seconds = "30", 3
    before, sizes = machine(), [int(n) for n in args.agents.split(",")]
    result = {"fleets": [fleet_leg(n, args.seconds, True) for n in sizes], "without_tls": fleet_leg(sizes[-1], args.seconds, False)}
    if not args.no_agent:
        result["host_agent"] = agent_leg(args.seconds)
    print(json.dumps(result | {"machine": before}))
    return 0
