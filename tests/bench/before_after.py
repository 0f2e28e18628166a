"""The same events for the same fleet: a database that every host polls, beside Harpoon.

    --agents N      (15000) hosts: sessions of the database, agents of Harpoon
    --rate N        (200) events a second under load
    --seconds N     (30) of each measurement, idle and under load
    --intervals S   (1,5) seconds between the polls of a session
    --only polling|harpoon
    --smoke         30 agents, two seconds each: that the harness works

Polling (pollers.c): MariaDB 10.11, durable as Harpoon's own (flush at each commit), an indexed table, one session a host, SELECT … FOR UPDATE SKIP LOCKED and a short transaction for what is found; with a thread for each connection and with
the thread pool, at each interval. Harpoon: a whole stack, the agents of harpoon-fleet-sim over TLS, changes by EventService.Submit. Both ways the same: one event for every host; idle; events at the rate, for
hosts in turn, each recorded in a durable transaction of the database, and its end too; one event for every host again.

How this could cheat, and what prevents it. (1) With hosts that are not there: before and after the load every host gets an event, and the run fails unless every one has taken its own. (2) By counting from another moment: latency is from
when the event was due to be submitted (late submission counts) to when it is the host's: the claim is committed, or the runtime is called, which follows the agent's own journal. (3) By hiding work: CPU is of all
processes of each side by name, the clients that load it and the hosts' side too, which are one process here on both sides. (4) By a badly made database: the query is answered by an index, an idle poll is one statement, polls are spread evenly,
the client is one loop that costs less than Harpoon's agents do, and no poll is made that the interval does not ask for; `left_out` tells of those that the server was too slow for. (5) By what else the machine does: legs run one after
the other, and the load average before is printed; CPU figures are those processes' own. What is simulated: hosts' work is not done, on either side; the agents' journals are durable, but
in one file, and the runtimes' calls are written to a log, both at Harpoon's cost.
"""
import argparse
import json
import os
import shutil
import subprocess
import tempfile

import measure
from harness import ROOT, Stack, eventually
from measure import rounded, say
from paths import program as built

SIDE = {"db_connections": float, "queries_per_s_idle": float, "queries_per_s_load": float, "cpu_cores_idle": float, "cpu_cores_load": float, "pickup_p50_ms": float, "pickup_p99_ms": float,
        "memory_bytes": float}
SHAPE = {"polling": SIDE, "harpoon": SIDE, "agents": int}
HANDLING = {"thread": "one-thread-per-connection", "pool": "pool-of-threads"}
HOST_BYTES = 40 << 30  # of a container: a simulated host has 64 GiB, so each gets one
TABLE = """CREATE TABLE events (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, host INT NOT NULL, state TINYINT NOT NULL DEFAULT 0, due_ns BIGINT UNSIGNED NOT NULL,
payload VARBINARY(300) NOT NULL, KEY waiting (host, state, id)) ENGINE=InnoDB"""


class Database:
    """A private MariaDB that is made for many sessions."""

    def __init__(self, sessions, handling):
        self.directory = tempfile.mkdtemp(prefix="hp-poll-", dir=ROOT)
        data, self.socket = os.path.join(self.directory, "data"), os.path.join(self.directory, "sock")
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db", "--auth-root-authentication-method=normal"], check=True,
                       capture_output=True)
        self.log = open(os.path.join(self.directory, "log"), "wb")
        self.process = measure.start(
            [measure.program("mariadbd", "mariadb-server-core"), "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={self.socket}", "--skip-networking", "--skip-log-bin",
             "--performance-schema=OFF", "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M", "--innodb-flush-log-at-trx-commit=1", "--transaction-isolation=READ-COMMITTED",
             f"--max-connections={sessions + 10}", "--open-files-limit=20000", "--table-open-cache=2000", "--back-log=4096", f"--thread-handling={HANDLING[handling]}",
             f"--thread-cache-size={sessions + 10}", "--character-set-server=latin1"],
            stdout=self.log, stderr=subprocess.STDOUT, preexec_fn=measure.raise_files)
        eventually(lambda: self.sql("SELECT 1", check=False) is not None, 60, lambda: f"MariaDB: {self.tail()}")
        self.sql("CREATE DATABASE poll")
        self.sql("USE poll; " + TABLE)

    def tail(self):
        with open(self.log.name, errors="replace") as f:
            return f.read()[-2000:]

    def sql(self, text, check=True):
        done = subprocess.run(["mariadb", "--no-defaults", "-uroot", f"-S{self.socket}", "-NBe", text], capture_output=True, text=True, check=False)
        if done.returncode and check:
            raise SystemExit(f"{text}: {done.stderr}")
        return None if done.returncode else [line.split("\t") for line in done.stdout.splitlines()]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def status_of(rows):
    return {name: int(value) for name, value in rows if value.isdigit()}


def watched(order, processes, status):
    """Carries an order out; (its result, CPU cores by process, the database's queries a second)."""
    first, before = status(), status()
    look = before["Questions"] - first["Questions"]  # each look is some statements itself
    cpu = measure.Cpu(processes)
    result = order()
    spent, after = cpu.spent() | ({"client": result["client_s"]} if "client_s" in result else {}), status()
    seconds = result["seconds"]
    queries = max(0, after["Questions"] - before["Questions"] - look)
    return result, {k: v / seconds for k, v in spent.items()}, queries / seconds


def side(figures, connections, memory):
    """One side's figures as they are printed. figures: {"idle": (result, cores, queries), "load": likewise}"""
    (_, idle, idle_queries), (load, busy, load_queries) = figures["idle"], figures["load"]
    return {"db_connections": connections, "queries_per_s_idle": rounded(idle_queries), "queries_per_s_load": rounded(load_queries), "cpu_cores_idle": rounded(sum(idle.values())),
            "cpu_cores_load": rounded(sum(busy.values())), "cpu_cores_idle_by_process": {k: rounded(v, 3) for k, v in idle.items()},
            "cpu_cores_load_by_process": {k: rounded(v, 3) for k, v in busy.items()}, "pickup_p50_ms": load["p50_ms"], "pickup_p99_ms": load["p99_ms"],
            "memory_bytes": sum(v for k, v in memory.items() if k != "hosts"), "memory_bytes_by_process": memory}


# ---- before ----

def polling(args, handling, interval_s):
    database = Database(args.agents, handling)
    pollers = None
    try:
        pollers = subprocess.Popen([measure.build("bench-pollers"), database.socket, "poll", str(args.agents), str(int(interval_s * 1000))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)

        def order(text):
            pollers.stdin.write(text + "\n")
            pollers.stdin.flush()
            line = pollers.stdout.readline()
            if not line:
                raise SystemExit(f"the pollers ended at {text}")
            return json.loads(line)

        def every_host(when):
            result = order("all")
            if result["hosts"] != args.agents or result["taken"] != args.agents:
                raise SystemExit(f"{when} the load {result['hosts']} of {args.agents} hosts took {result['taken']} events")
        if json.loads(pollers.stdout.readline())["sessions"] != args.agents:
            raise SystemExit("not every session is connected")

        def status():
            return status_of(database.sql("SHOW GLOBAL STATUS"))
        processes = {"database": database.process.pid, "hosts": pollers.pid}
        every_host("before")
        figures = {"idle": watched(lambda: order(f"idle {args.seconds}"), processes, status), "load": watched(lambda: order(f"rate {args.rate} {args.seconds}"), processes, status)}
        connections = status()["Threads_connected"] - 1  # that of the question
        memory = {name: measure.memory_bytes([pid]) for name, pid in processes.items()}
        every_host("after")
        result = side(figures, connections, memory) | {"interval_s": interval_s, "handling": handling, "left_out": figures["idle"][0]["left_out"] + figures["load"][0]["left_out"]}
        say(f"polled every {interval_s} s, {HANDLING[handling]}: {result}")
        return result
    finally:
        if pollers:
            pollers.kill()
            pollers.wait()
        database.close()


# ---- after ----

class Harpoon:
    def __init__(self, args):
        self.args = args
        self.submit = measure.build("bench-submit")
        self.stack, self.fleet, self.client = Stack(hosts=0), None, None
        self.read_to = 0

    def up(self):
        self.stack.up()
        self.log, ready = os.path.join(self.stack.directory, "truth.jsonl"), os.path.join(self.stack.directory, "fleet.ready")
        ca = self.stack.env["HARPOON_CA"]
        router = self.stack.status()["r1-router-1"]["ports"]["agents"]
        argv = [built("harpoon-fleet-sim"), "--routers", router, "--region", "r1", "--hosts", str(self.args.agents), "--ca", ca, "--ca-key", os.path.join(os.path.dirname(ca), "ca-key.pem"),
                "--runtime-log", self.log, "--ready-file", ready, "--attach-per-s", "1000",
                "--journal-file", os.path.join(self.stack.directory, "fleet.journal")]
        self.fleet = subprocess.Popen(argv)
        eventually(lambda: os.path.exists(ready) or self.fleet.poll() is not None, 300, "all hosts to be attached")
        eventually(lambda: self.stack.metric("sched-1", 'harpoon_scheduler_hosts_attached{region="r1"}') >= self.args.agents, 60, "the scheduler to know all hosts")

    def down(self):
        if self.fleet:
            self.fleet.kill()
            self.fleet.wait()
        self.stack.down()

    def send(self, verb, *options):
        log = os.path.join(self.stack.directory, "sent")
        done = subprocess.run([self.submit, "--endpoint", self.stack.env["HARPOON_H2C"], "--token", self.stack.env["HARPOON_TOKEN"], "--region", "r1", "--verb", verb, "--names", str(self.args.agents),
                               "--memory", str(HOST_BYTES), "--log", log, *options], stdout=subprocess.PIPE, text=True, check=True)
        with open(log) as f:
            due = [tuple(int(n) for n in line.split()[:2]) for line in f]
        return json.loads(done.stdout), due

    def calls(self, verb, count):
        """What the runtimes did since the last look: [(host, container, nanoseconds)], once there are `count` of this kind."""
        found = []

        def read():
            with open(self.log) as f:
                f.seek(self.read_to)
                for line in f:
                    if not line.endswith("\n"):
                        break
                    self.read_to += len(line)
                    event = json.loads(line)
                    if event["op"] == "begin" and event["verb"] == verb:
                        found.append((event["host"], event["name"].rsplit("/", 1)[-1], event["t"]))
            return len(found) >= count
        eventually(read, 300, lambda: f"{count} calls of the runtimes; there are {len(found)}", interval=0.2)
        return found

    def every_host(self, verb, when, *options):
        self.send(verb, "--count", str(self.args.agents), *options)
        hosts = {host for host, _, _ in self.calls(verb, self.args.agents)}
        if len(hosts) != self.args.agents:
            raise SystemExit(f"{when} the load {len(hosts)} of {self.args.agents} hosts were reached")

    def settled(self):
        eventually(lambda: self.stack.sql("SELECT COUNT(*) FROM operations WHERE active = 1")[0][0] == "0", 120, "all operations to have ended", interval=1)

    def quiet(self):
        """Waits until the last event is told, and the database hears nothing more."""
        def silence():
            looks = [self.status()["Questions"] for _ in range(2)]
            measure.pause(2)
            return self.status()["Questions"] - looks[1] == looks[1] - looks[0]
        eventually(silence, 60, "two seconds without a query")

    def idle(self):
        began = measure.now()
        measure.pause(self.args.seconds)
        return {"seconds": measure.now() - began}

    def load(self):
        count = self.args.rate * self.args.seconds
        began, before = measure.now(), measure.children_seconds()
        sent, due = self.send("resize", "--count", str(count), "--rate", str(self.args.rate), "--window", "9000")
        client_s = measure.children_seconds() - before
        if sent["answered"] != count:
            raise SystemExit(f"not every event was accepted: {sent}")
        calls = {}
        for _, name, at in self.calls("resize", count):
            calls.setdefault(name, []).append(at)
        latency = []
        for number, at in due:
            one = calls.get(f"b-{number % self.args.agents}")
            if not one:
                raise SystemExit(f"event {number} did not reach its host")
            latency.append((one.pop(0) - at) / 1e6)
        return {"seconds": measure.now() - began, "client_s": client_s, "p50_ms": rounded(measure.percentile(latency, 0.5)), "p99_ms": rounded(measure.percentile(latency, 0.99))}

    def status(self):
        return status_of(self.stack.sql("SHOW GLOBAL STATUS"))

    def run(self):
        every = self.stack.status()
        roles = {"rabbitmq": "broker", "mariadb": "database", "broker-gw": "gateway", "scheduler": "scheduler", "event-router": "router"}
        processes = {roles[p["role"]]: measure.family(p["pid"]) for p in every.values() if p["role"] in roles} | {"hosts": [self.fleet.pid]}
        self.every_host("create", "before")
        self.settled()
        self.quiet()
        figures = {"idle": watched(self.idle, processes, self.status), "load": watched(self.load, processes, self.status)}
        connections = self.status()["Threads_connected"] - 1
        memory = {name: measure.memory_bytes(pids) for name, pids in processes.items()}
        self.settled()
        # Larger than what the load has asked for.
        self.every_host("resize", "after", "--memory", str(HOST_BYTES + (1 << 30)))
        result = side(figures, connections, memory)
        say(f"Harpoon: {result}")
        return result


def harpoon(args):
    h = Harpoon(args)
    try:
        h.up()
        return h.run()
    except AssertionError:
        say(h.stack.logs())
        raise
    finally:
        h.down()


def main(argv):
    parser = argparse.ArgumentParser(prog="before-after", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=15000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--intervals", default="1,5")
    parser.add_argument("--only", choices=["polling", "harpoon"])
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.agents, args.rate, args.seconds, args.intervals = 30, 20, 2, "1"
    result = {"agents": args.agents, "rate": args.rate, "seconds": args.seconds, "load_average_before": os.getloadavg()[0]}
    if args.only != "harpoon":
        variants = [polling(args, handling, float(s)) for s in args.intervals.split(",") for handling in HANDLING]
        # The story's: a thread for each connection, the shortest interval. The others are beside it.
        result["polling"], result["polling_variants"] = variants[0], variants
    if args.only != "polling":
        result["harpoon"] = harpoon(args)
    print(json.dumps(result))
    return 0
