"""What benchmarks of a whole region share: a stack with a simulated fleet, a load, and what each process costs."""
import json
import os
import queue
import subprocess
import sys
import threading
import time

from harness import Stack, eventually
from paths import BUILD

TICKS = os.sysconf("SC_CLK_TCK")
ROLES = {"epmd": "broker", "rabbitmq": "broker", "mariadb": "database", "broker-gw": "gateway", "scheduler": "scheduler", "event-router": "router"}
PARTS = ("broker", "database", "gateway", "scheduler", "router", "agents", "load")
CONTROL = ("broker", "database", "gateway", "scheduler", "router")


def say(text):
    print(text, file=sys.stderr, flush=True)


def tree(pid):
    """The process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children") as f:
                    todo += [int(c) for c in f.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def cpu_seconds(pid):
    """Of the process, its threads and its descendants, those that have ended included."""
    total = 0
    for p in tree(pid):
        try:
            with open(f"/proc/{p}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(n) for n in fields[11:15])
    return total / TICKS


def memory_bytes(pid):
    """Resident memory of the process that is its own: without pages of files."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))


class Lines:
    """A child whose standard output is read line by line, as JSON, while it runs. It ends with this program."""

    def __init__(self, argv):
        self.name = os.path.basename(argv[0])
        self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines, self.latest = queue.Queue(), None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            self.latest = json.loads(line)
            self.lines.put(self.latest)
        self.lines.put(None)

    def get(self, seconds):
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"{self.name} said nothing for {seconds} s; last: {self.latest}") from None
        if line is None:
            raise AssertionError(f"{self.name} ended with {self.child.wait()}")
        return line

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Load(Lines):
    """tests/bench/load.c: its head lists the orders."""

    def __init__(self, stack, prefix="load", on=None):
        super().__init__([os.path.join(BUILD, "tests", "bench-load"), "--endpoint", stack.env["HARPOON_ENDPOINT"], "--ca", stack.env["HARPOON_CA"],
                          "--token", stack.env["HARPOON_TOKEN"], "--region", "r1", "--prefix", prefix, *(["--on", on] if on else [])])

    def begin(self, order):
        self.child.stdin.write(order + "\n")
        self.child.stdin.flush()

    def order(self, order, seconds):
        """Carries one out; AssertionError when something ended as it should not."""
        self.begin(order)
        return self.checked(order, self.get(seconds))

    @staticmethod
    def checked(order, result):
        for key in ("ended_otherwise", "twice", "unasked"):
            if result[key]:
                raise AssertionError(f"{order}: {key}: {result[key]} ({result['error']})")
        return result


PROCESS_AGENTS = 15000  # of one simulator, and on average of one router: what a limit of 20,000 open files leaves room for


class Region:
    """A stack without hosts of its own, and a simulated fleet of `agents` that this program starts, with one durable journal for all of a process."""

    def __init__(self, agents, routers=None, tls=True):
        self.agents, self.tls = agents, tls
        self.stack = Stack(hosts=0, routers=routers or -(-agents // PROCESS_AGENTS))
        self.fleets, self.load, self.client = [], None, None

    def up(self):
        say("starting a stack")
        if not self.tls:
            for n in range(self.stack.shape["routers"]):
                self.stack.configure(f"r1-router-{n + 1}", router={"plain": "yes"})
        if self.agents > PROCESS_AGENTS:  # a scheduler takes 20,000 unless it is told otherwise
            self.stack.configure("sched-1", scheduler={"hosts_max": 2 * self.agents})
        self.stack.up()
        self.client = self.stack.client()
        return self

    def down(self):
        for child in (self.load, *self.fleets):
            if child:
                child.stop()
        self.stack.down()

    def routers(self):
        return sorted(n for n, p in self.stack.status().items() if p["role"] == "event-router")

    def attach(self, seconds=900, report_s=1):
        """Starts the fleet and waits until all are READY. Gives the seconds that the attachments took, as the fleet saw them."""
        processes = -(-self.agents // PROCESS_AGENTS)
        per_s = 500 if processes == 1 else 200  # a large fleet's heartbeats alone take most of a core on each side, and a handshake takes 2 ms on each
        began = time.monotonic()
        ready = [self.start_fleet(n, processes, per_s, report_s) for n in range(processes)]

        def attached():
            for fleet in self.fleets:
                if fleet.child.poll() is not None:
                    raise AssertionError(f"the fleet ended with {fleet.child.returncode}")
            return all(os.path.exists(r) for r in ready)
        eventually(attached, seconds, lambda: f"the fleet to attach: {[f.latest for f in self.fleets]}", interval=0.1)
        took = time.monotonic() - began
        if processes == 1:
            with open(ready[0]) as f:
                took = json.load(f)["attach_ms"] / 1000
        self.recorded(self.agents, seconds)
        return took

    def start_fleet(self, n, processes, per_s, report_s):
        """One of several processes, with its part of the hosts. Gives the file that it writes when they are attached."""
        status, ca = self.stack.status(), self.stack.env["HARPOON_CA"]
        hosts = self.agents * (n + 1) // processes - self.agents * n // processes
        ready = os.path.join(self.stack.directory, f"fleet-{n}.ready")
        self.fleets.append(Lines([
            os.path.join(BUILD, "harpoon-fleet-sim"), "--routers", ",".join(status[r]["ports"]["agents"] for r in self.routers()), "--region", "r1", "--hosts", str(hosts),
            "--prefix", "sim-" if processes == 1 else f"sim{n}-", "--attach-per-s", str(per_s // processes), "--report-s", str(report_s), "--ready-file", ready,
            "--journal-file", os.path.join(self.stack.directory, f"fleet-{n}.journal"), "--seed", str(n + 1),
            *(["--ca", ca, "--ca-key", os.path.join(os.path.dirname(ca), "ca-key.pem")] if self.tls else ["--no-tls"])]))
        return ready

    def said(self):
        """The next line of each of the fleet's processes, which say one a second, as sums."""
        lines = [fleet.get(30) for fleet in self.fleets]
        return {key: sum(line[key] for line in lines) for key in ("creates", "removes", "journal_syncs", "journal_bytes")}

    def recorded(self, count, seconds):
        """Waits until the scheduler counts so many hosts as attached."""
        eventually(lambda: self.attached() >= count, seconds, lambda: f"{count} hosts to be attached: {self.attached()}", interval=0.2)

    def attached(self):
        return int(self.stack.metric("sched-1", 'harpoon_scheduler_hosts_attached{region="r1"}'))

    def start_load(self):
        self.load = Load(self.stack)
        return self.load

    def pids(self):
        """{part: [pid]}; children of this program included when they run."""
        found = {}
        for p in self.stack.status().values():
            if p["role"] in ROLES and p["running"]:
                found.setdefault(ROLES[p["role"]], []).append(p["pid"])
        if self.fleets:
            found["agents"] = [fleet.child.pid for fleet in self.fleets]
        if self.load:
            found["load"] = [self.load.child.pid]
        return found

    def cpu(self, pids=None):
        """{part: CPU seconds so far}"""
        return {part: sum(cpu_seconds(p) for p in every) for part, every in (pids or self.pids()).items()}

    def memory(self):
        """{part: bytes of own resident memory}"""
        return {part: sum(memory_bytes(p) for one in every for p in tree(one)) for part, every in self.pids().items()}

    def database(self, name):
        """One of the server's counters."""
        return int(dict(self.stack.sql(f"SHOW GLOBAL STATUS LIKE '{name}'"))[name])


def spent(before, after):
    return {part: after[part] - before[part] for part in before if part in after}


def per_operation(cpu, operations):
    """{part: CPU microseconds an operation}, and the sum."""
    result = {part: round(cpu[part] * 1e6 / max(operations, 1), 1) for part in PARTS if part in cpu}
    return result | {"all": round(sum(cpu.values()) * 1e6 / max(operations, 1), 1)}


def machine():
    """What else the figures depend on, said with them."""
    with open("/proc/loadavg") as f:
        load = f.read().split()[:2]
    return {"cores": os.cpu_count(), "load_average_before": [float(x) for x in load]}


def pause(seconds):
    time.sleep(seconds)  # the time is what is measured
