"""Durable operations a second, and flushes to disk for each: the scheduler's record beside a job queue on PostgreSQL (graphile-worker).

    --rounds N      (5), alternating
    --count N       (20000) operations of each measurement; unbatched a tenth
    --batch N       jobs of one add_jobs (1000), two calls under way
    --concurrency N addJob calls under way, unbatched (20)
    --smoke         one round of 300

Harpoon: requests that gateways have accepted wait in the broker; the scheduler starts, and records them: dedupe, decision, operation, container and events in transactions over one connection; events told to the stream, requests acknowledged,
all on the same two cores. The time is from its first transaction to its last. graphile-worker: jobs with a payload of the same size and a key of their own (without it a repeat is not safe), added in batches (add_jobs) and one by one (addJob, many at a time,
so that commits can share a flush). Nothing takes the jobs, as no host is there to take Harpoon's.

How this could cheat, and what prevents it. (1) By not being durable: both servers flush at each commit, the settings are read from the running servers and printed, and calls of fsync and fdatasync are counted in the
server's process, the same way in both (syncs.c). (2) By
counting what is not there: rows are counted by the database afterwards, in every round. (3) By less work: a Harpoon operation is four rows in three tables and a decision, a job is one row; the payloads are as long. (4) By a warm or a cold start: each
scheduler's start is left out of the time, as is that of the JavaScript program; both sides take turns. (5) By stopping the clock early: the scheduler reads the time of events before
their transaction, so the mean time of a transaction is added for the last one.
"""
import argparse
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile

import measure
from harness import ROOT, Stack, eventually
from measure import Missing, rounded, say

SHAPE = {"harpoon": {"ops_per_s": float, "fsyncs_per_op": float}}  # without its peer where that is not installed
JS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "js")
POSTGRES = "/usr/lib/postgresql/15/bin"
SETTINGS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "2GB", "jit": "off"}


class Syncs:
    """The number of fsync and fdatasync calls of one server: see syncs.c."""

    def __init__(self):
        self.library = measure.build("libbench-syncs.so")
        with tempfile.NamedTemporaryFile(prefix="hp-syncs-", dir=ROOT, delete=False) as f:
            f.write(bytes(8))
        os.chmod(f.name, 0o666)
        self.path = f.name

    def environment(self):
        return {"LD_PRELOAD": self.library, "HARPOON_SYNCS": self.path}

    def count(self):
        with open(self.path, "rb") as f:
            return int.from_bytes(f.read(8), sys.byteorder)

    def close(self):
        os.unlink(self.path)


class Postgres:
    """A private server, as the user that its package makes."""

    def __init__(self):
        if not os.path.exists(os.path.join(POSTGRES, "initdb")):
            raise Missing("PostgreSQL 15 is not installed (Debian package postgresql-15): deploy/install-deps --bench")
        if not os.path.exists(os.path.join(JS, "node_modules/graphile-worker")):
            raise Missing("graphile-worker is not installed: deploy/install-deps --bench --npm")
        self.syncs = Syncs()
        self.directory = tempfile.mkdtemp(prefix="hp-pg-", dir=ROOT)
        user = pwd.getpwnam("postgres")
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": self.directory}
        data = os.path.join(self.directory, "data")
        subprocess.run([os.path.join(POSTGRES, "initdb"), "-D", data, "-A", "trust", "--locale=C.UTF-8"], check=True, capture_output=True, **self.account)
        argv = [os.path.join(POSTGRES, "postgres"), "-D", data, "-k", self.directory, "-c", "listen_addresses="]
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.process = subprocess.Popen(argv + [x for k, v in SETTINGS.items() for x in ("-c", f"{k}={v}")], stdout=self.log, stderr=subprocess.STDOUT,
                                        env={**os.environ, **self.syncs.environment()}, **self.account)
        eventually(lambda: subprocess.run([os.path.join(POSTGRES, "pg_isready"), "-q", "-h", self.directory], check=False).returncode == 0, 60, "PostgreSQL")

    def settings(self):
        names = [*SETTINGS, "wal_sync_method", "commit_delay"]
        return {n: subprocess.run([os.path.join(POSTGRES, "psql"), "-h", self.directory, "-U", "postgres", "-Atc", f"SHOW {n}"], capture_output=True, text=True, check=True).stdout.strip() for n in names}

    def add(self, count, batch, concurrency, size, number):
        before = self.syncs.count()
        done = subprocess.run(["node", os.path.join(JS, "graphile_add.js"), self.directory, *map(str, (count, batch, concurrency, size, number))], stdout=subprocess.PIPE, text=True, check=True, timeout=300)
        return json.loads(done.stdout) | {"fsyncs": self.syncs.count() - before}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.syncs.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Record:
    def __init__(self, args):
        self.submit = measure.build("bench-submit")
        self.stack, self.syncs, self.round = Stack(hosts=0), Syncs(), 0

    def up(self):
        # The database is the only one of the stack's processes that gets this program's environment.
        os.environ.update(self.syncs.environment())
        self.stack.up()
        for name in self.syncs.environment():
            del os.environ[name]
        with open(f"/proc/{self.stack.status()['mariadb']['pid']}/maps") as f:
            if self.syncs.library not in f.read():
                raise SystemExit("the database's flushes are not counted")

    def down(self):
        self.stack.down()
        self.syncs.close()

    def send(self, count):
        subprocess.run([self.submit, "--endpoint", self.stack.env["HARPOON_H2C"], "--token", self.stack.env["HARPOON_TOKEN"], "--region", "r1", "--count", str(count), "--prefix", f"b{self.round}-"],
                       stdout=subprocess.DEVNULL, check=True)

    def number(self, statement):
        return int(self.stack.sql(statement)[0][0])

    def settings(self):
        wanted = ("innodb_flush_log_at_trx_commit", "innodb_flush_method", "innodb_doublewrite", "log_bin", "innodb_buffer_pool_size", "innodb_log_file_size")
        rows = dict(self.stack.sql("SHOW GLOBAL VARIABLES"))
        return {n: rows[n] for n in wanted}

    def recorded(self):
        return self.stack.metric("sched-1", 'harpoon_scheduler_requests_total{region="r1"}')

    def run(self, count):
        """Fills the queue while no scheduler runs, starts one, and looks when it has recorded everything."""
        self.round += 1
        if self.stack.status()["sched-1"]["running"]:
            self.stack.kill("sched-1", "TERM")
        self.send(count)
        operations, sequence, syncs = self.number("SELECT COUNT(*) FROM operations"), self.number("SELECT sequence FROM regions"), self.syncs.count()
        self.stack.command("up")

        def told():
            try:
                return self.recorded() >= count
            except (OSError, StopIteration):
                return False
        eventually(told, 180, f"{count} requests to be taken in", interval=0.2)
        eventually(lambda: self.number("SELECT COUNT(*) FROM operations") - operations == count, 60, "all operations to be recorded", interval=0.5)
        first, last, events = (int(x) for x in self.stack.sql(f"SELECT MIN(time_ns), MAX(time_ns), COUNT(*) FROM events WHERE sequence > {sequence}")[0])
        commits, commit_s = (self.stack.metric("sched-1", f'harpoon_scheduler_{m}{{region="r1"}}') for m in ("commits_total", "commit_seconds_sum"))
        seconds = (last - first) / 1e9 + commit_s / commits
        return {"per_s": count / seconds, "fsyncs": self.syncs.count() - syncs, "commits": commits, "events": events}


def main(argv):
    parser = argparse.ArgumentParser(prog="record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.rounds, args.count = 1, 300
    record, peer, result = Record(args), None, {}
    size = 207  # of a request as a gateway sends it (tests/bench/run gateway)
    ours, batched, unbatched = [], [], []
    try:
        try:
            peer = Postgres()
        except Missing as e:
            result["left_out"] = [str(e)]
            say(f"left out: {e}")
        say("starting a stack")
        record.up()
        record.run(min(args.count, 1000))  # to warm up
        for number in range(args.rounds):
            ours.append(record.run(args.count))
            if peer:
                batched.append(peer.add(args.count, args.batch, 2, size, 2 * number))
                unbatched.append(peer.add(args.count // 10, 1, args.concurrency, size, 2 * number + 1))
        result["harpoon"] = {"ops_per_s": round(measure.median([r["per_s"] for r in ours])), "fsyncs_per_op": rounded(sum(r["fsyncs"] for r in ours) / (args.count * args.rounds), 3),
                             "ops_per_commit": rounded(measure.median([args.count / r["commits"] for r in ours]), 3), "settings": record.settings()}
        if peer:
            result["graphile"] = {"batched_per_s": round(measure.median([r["per_s"] for r in batched])), "unbatched_per_s": round(measure.median([r["per_s"] for r in unbatched])),
                                  "batched_fsyncs_per_op": rounded(sum(r["fsyncs"] for r in batched) / (args.count * args.rounds), 3),
                                  "unbatched_fsyncs_per_op": rounded(sum(r["fsyncs"] for r in unbatched) / (args.count // 10 * args.rounds), 3),
                                  "batch": args.batch, "concurrency": args.concurrency, "settings": peer.settings()}
            for name, theirs in (("batched", batched), ("unbatched", unbatched)):
                result["of_" + name] = measure.ratio([r["per_s"] for r in ours], [r["per_s"] for r in theirs])
    finally:
        record.down()
        if peer:
            peer.close()
    print(json.dumps(result))
    return 0
