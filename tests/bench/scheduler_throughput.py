"""Decisions a second from request to published command, and flushes of the database for each: RabbitMQ, MariaDB and one scheduler on the same machine.

    --count N      creates under load (20000)
    --idle N       creates one after the other (300)
    --hosts N      (100)
    --perf FILE    record call stacks of all three during the load (perf must be installed)
    --smoke        1500, 50 and 10

One program (decisions.c) puts requests into requests.r1 as gateways do, and is the router of hosts that never answer. Under load it keeps 2,000 of them on their way to the broker's confirm, and the scheduler takes them as they come, in batches as large as what arrived during the last
transaction. A decision is counted when the command for its container has come out of the router's queue: by then it was taken from a quorum queue, its id was looked for, it got a host, and operation, container and events were committed. "idle" sends one request when the command for the last one has come.

How it could cheat, and what prevents that: by counting what is not there (commands are counted once for each container; afterwards the database counts as many operations, dispatched, and as many containers with a host, and events without a gap); by not being durable (settings are read from the running server,
fsync and fdatasync calls are counted in its process: syncs.c; requests.r1 is a quorum queue, requests are persistent and confirmed); by starting the clock late or stopping it early (it runs from before the first publish until the last command has come, so filling the queue is in it); by leaving work out
(the broker's work for accepting requests is in it, and so are events to the stream; not in it are gateway, router and what hosts report); by other processes that do the work (CPU is that of each of the three with all their threads).
"""
import argparse
import json
import os
import re
import subprocess

import fleet
import measure
from fleet import Lines, machine, say
from harness import Stack, eventually
from measure import rounded
from record import Syncs

SHAPE = {"decisions_per_s": float, "fsyncs_per_decision": float, "idle_p50_ms": float, "cpu_us_per_decision": {"broker": float, "database": float, "scheduler": float}}
DISPATCHED = 4
PARTS = {"rabbitmq": "broker", "mariadb": "database", "scheduler": "scheduler"}


class Throughput:
    def __init__(self, hosts):
        self.program = measure.build("bench-decisions")
        self.stack, self.syncs, self.hosts, self.child, self.before = Stack(hosts=0), Syncs(), hosts, None, None

    def up(self):
        say("starting a stack")
        os.environ.update(self.syncs.environment())  # the database is the only one that gets it
        self.stack.up()
        for name in self.syncs.environment():
            del os.environ[name]
        with open(f"/proc/{self.stack.status()['mariadb']['pid']}/maps") as f:
            if self.syncs.library not in f.read():
                raise AssertionError("the database's flushes are not counted")
        user, password, host, port, vhost = re.fullmatch(r"amqp://(\w+):(\w+)@([\d.]+):(\d+)/(\w+)", self.stack.env["HARPOON_AMQP_URL"]).groups()
        self.child = Lines([self.program, host, port, user, password, vhost, "r1", str(self.hosts)])
        self.child.get(60)
        eventually(lambda: self.stack.metric("sched-1", 'harpoon_scheduler_hosts_attached{region="r1"}') >= self.hosts, 60, "the hosts to be attached", interval=0.1)
        self.before = self.counted()

    def down(self):
        if self.child:
            self.child.stop()
        self.stack.down()
        self.syncs.close()

    def order(self, order):
        self.child.child.stdin.write(order + "\n")
        self.child.child.stdin.flush()
        return self.child.get(600)

    def pids(self):
        return {PARTS[p["role"]]: p["pid"] for p in self.stack.status().values() if p["role"] in PARTS}

    def cpu(self, pids):
        return {part: fleet.cpu_seconds(pid) for part, pid in pids.items()}

    def counted(self):
        """What the record has."""
        return {name: int(self.stack.sql(statement)[0][0]) for name, statement in {
            "operations": f"SELECT COUNT(*) FROM operations WHERE project = 'demo' AND stage = {DISPATCHED}", "containers": "SELECT COUNT(*) FROM containers WHERE host <> ''",
            "events": "SELECT COUNT(*) FROM events", "gaps": "SELECT COALESCE(MAX(sequence) - MIN(sequence) + 1 - COUNT(*), 0) FROM events"}.items()}

    def verify(self, decisions):
        now = self.counted()
        grown = {name: now[name] - self.before[name] for name in now}
        if grown["operations"] != decisions or grown["containers"] != decisions or now["gaps"]:
            raise AssertionError(f"{decisions} commands came, and the record has grown by {grown}")
        return grown

    def settings(self):
        wanted = ("innodb_flush_log_at_trx_commit", "innodb_flush_method", "log_bin", "sync_binlog")
        rows = dict(self.stack.sql("SHOW GLOBAL VARIABLES"))
        if rows["innodb_flush_log_at_trx_commit"] != "1":
            raise AssertionError("commits are not flushed")
        return {n: rows[n] for n in wanted}


def load(bench, count, perf):
    """(rate, flushes of each, CPU microseconds of each by part, decisions of a transaction)"""
    pids = bench.pids()
    recorder = subprocess.Popen(["perf", "record", "-q", "-g", "-F", "499", "-p", ",".join(map(str, pids.values())), "-o", perf], stdin=subprocess.DEVNULL) if perf else None
    commits = bench.stack.metric("sched-1", 'harpoon_scheduler_commits_total{region="r1"}')
    syncs, before = bench.syncs.count(), bench.cpu(pids)
    result = bench.order(f"load {count}")
    spent, syncs = fleet.spent(before, bench.cpu(pids)), bench.syncs.count() - syncs
    commits = bench.stack.metric("sched-1", 'harpoon_scheduler_commits_total{region="r1"}') - commits
    if recorder:
        measure.end(recorder)
    return {"decisions_per_s": round(count / result["seconds"]), "fsyncs_per_decision": rounded(syncs / count, 3), "cpu_us_per_decision": {p: round(s * 1e6 / count, 1) for p, s in spent.items()},
            "decisions_per_commit": rounded(count / max(commits, 1), 3)}


def main(argv):
    parser = argparse.ArgumentParser(prog="scheduler-throughput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--idle", type=int, default=300)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--perf")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.count, args.idle, args.hosts = 1500, 50, 10
    before, bench = machine(), Throughput(args.hosts)
    warm_up = min(args.count // 5, 2000)
    try:
        bench.up()
        bench.order(f"load {warm_up}")
        result = load(bench, args.count, args.perf)
        idle = bench.order(f"idle {args.idle}")
        result |= {"idle_p50_ms": idle["p50_ms"], "idle_p99_ms": idle["p99_ms"], "record": bench.verify(warm_up + args.count + args.idle), "settings": bench.settings(), "machine": before}
    finally:
        bench.down()
    print(json.dumps(result))
    return 0
