"""Messages to many connected hosts: the event-router beside Mosquitto 2 with QoS 1, each on one core.

    --connections N   (15000)
    --rounds N        (5) of each kind, alternating
    --messages N      (60000) of each measurement
    --smoke           60 connections, one round

One-to-one: a message for each host in turn. One-to-all: one for every host; Mosquitto is told once for all of them, the router once for each, as a scheduler does. Stalled: one-to-one while 1 % of the hosts read nothing; only what comes to the others counts.
Hosts are plain TCP connections of one process (hosts.c), the same one for both; messages have the same size; every message is acknowledged by its host: PUBACK, and the command's result, which the router also publishes to
RabbitMQ's quorum queue of reports and confirms to the host once it is durable: more than Mosquitto promises, and its cost is in the router's figures.

How this could cheat, and what prevents it. (1) By losing messages: an order ends only when every message that was sent to a host that reads has come to it. (2) By what else the machine does, and by what feeds the two: `msgs_per_s` is messages per second of
the process's own CPU time, user and system; the rate by the clock is `wall_msgs_per_s`, and there the router has RabbitMQ before and behind it on the other core, which Mosquitto has not. (3) CPU time flatters who is slower than its load and
does more in each turn of its loop: `busy` tells how much of its core each took. (4) By a badly set up peer: Mosquitto has no persistence, no log, TCP_NODELAY, and queues that are long enough. (5) By counting memory that connections
do not cost: bytes a connection are what the process has more after all hosts are connected, and idle, than before the first; slab is the kernel's as a whole, so anything else on the machine disturbs it.
Without TLS on both sides (`plain` of the router's configuration); what TLS costs is in fleet-idle.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile

import measure
from harness import ROOT, Stack, eventually
from measure import Missing, rounded, say

SHAPE = {"connections": int, "harpoon": {"msgs_per_s": float, "user_bytes_per_conn": float}}  # without its peer where that is not installed
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_type none
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 100000
user root
"""
ROUTER = "[router]\nplain = yes\nheartbeat = 10min\n"
KINDS = ("one_to_one", "one_to_all", "stalled")


class Side:
    """One server and its hosts."""

    def __init__(self, pid, core):
        self.pid, self.hosts = pid, None
        self.rates, self.wall, self.busy = ({k: [] for k in KINDS} for _ in range(3))
        measure.pin([pid], core)

    def connect(self, argv, load_core):
        user, slab = self.user_bytes(), measure.slab_bytes()
        self.hosts = measure.start([measure.build("bench-hosts"), *argv], load_core, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.hosts.stdout.readline()
        if not line:
            raise SystemExit("the hosts did not connect")
        connected = json.loads(line)
        count = connected["connected"]
        measure.pause(2)  # what connecting needed goes
        return connected["bytes"], {"user_bytes_per_conn": round((self.user_bytes() - user) / count), "slab_bytes_per_conn": round((measure.slab_bytes() - slab) / count)}

    def user_bytes(self):
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("RssAnon:")) * 1024

    def order(self, text):
        self.hosts.stdin.write(text + "\n")
        self.hosts.stdin.flush()
        line = self.hosts.stdout.readline()
        if not line:
            raise SystemExit(f"the hosts ended at {text}")
        return json.loads(line)

    def measure(self, kind, text):
        before = measure.cpu_seconds(self.pid)
        result = self.order(text)
        spent = max(measure.cpu_seconds(self.pid) - before, 1 / measure.TICK)
        self.rates[kind].append(result["messages"] / spent)
        self.wall[kind].append(result["messages"] / result["seconds"])
        self.busy[kind].append(spent / result["seconds"])

    def figures(self, memory):
        found = {"msgs_per_s": round(measure.median(self.rates["one_to_one"])), **memory}
        for kind in KINDS:
            found[kind] = {"msgs_per_s": round(measure.median(self.rates[kind])), "wall_msgs_per_s": round(measure.median(self.wall[kind])), "busy": rounded(measure.median(self.busy[kind]), 3)}
        return found

    def close(self):
        if self.hosts:
            self.hosts.kill()
            self.hosts.wait()


class Router(Side):
    def __init__(self, stack, core):
        self.stack = stack
        with_plain = os.path.join(stack.directory, "conf/r1-router-1.ini.d")
        os.makedirs(with_plain, exist_ok=True)
        with open(os.path.join(with_plain, "plain.conf"), "w") as f:
            f.write(ROUTER)
        stack.kill("r1-router-1", "TERM")
        stack.restart()
        super().__init__(stack.status()["r1-router-1"]["pid"], core)

    def open(self, connections, load_core):
        user, password, _, port, vhost = re.fullmatch(r"amqp://(\w+):(\w+)@([\d.]+):(\d+)/(\w+)", self.stack.env["HARPOON_AMQP_URL"]).groups()
        queues = self.stack.rabbitmqctl("list_queues", "-q", "-p", vhost, "name", "--no-table-headers").split()
        own = [q for q in queues if q.startswith("router.")]
        if len(own) != 1:
            raise SystemExit(f"the router's queue: {own}")
        host, agents = self.stack.status()["r1-router-1"]["ports"]["agents"].rsplit(":", 1)
        return self.connect(["router", host, agents, str(connections), "r1", own[0], port, user, password, vhost], load_core)

    def settle(self):
        """Its reports are taken by nobody here: they go once they are all there."""
        self.stack.rabbitmqctl("purge_queue", "-q", "-p", "harpoon", "reports.r1")


class Mosquitto(Side):
    def __init__(self, core):
        program = measure.program("mosquitto", "mosquitto")
        self.directory = tempfile.mkdtemp(prefix="hp-mqtt-", dir=ROOT)
        self.port = measure.free_port()
        conf = os.path.join(self.directory, "conf")
        with open(conf, "w") as f:
            f.write(MOSQUITTO.format(port=self.port))
        self.process = subprocess.Popen([program, "-c", conf], preexec_fn=measure.raise_files)
        eventually(lambda: measure.listens(self.port), 10, "Mosquitto")
        super().__init__(self.process.pid, core)

    def open(self, connections, load_core, size):
        return self.connect(["mqtt", "127.0.0.1", str(self.port), str(connections), str(size)], load_core)

    def settle(self):
        pass

    def close(self):
        super().close()
        measure.end(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)


def run(args, sides, connections):
    stalled = max(1, connections // 100)
    for side in sides:
        side.order(f"one {connections}")  # to warm up
        side.settle()
    orders = {"one_to_one": f"one {args.messages}", "one_to_all": f"all {max(1, args.messages // connections)}", "stalled": f"one {args.messages}"}
    for kind in KINDS:
        if kind == "stalled":
            for side in sides:
                side.order(f"stall {stalled}")
        for number in range(args.rounds):
            for side in sides[::-1] if number % 2 else sides:
                side.measure(kind, orders[kind])
                side.settle()
        say(f"{kind}: " + ", ".join(f"{type(s).__name__} {round(measure.median(s.rates[kind]))}/s of a core" for s in sides))


def main(argv):
    parser = argparse.ArgumentParser(prog="fan-out", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=15000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=60000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.connections, args.rounds, args.messages = 60, 1, 600
    result, sides, (core, load_core) = {"connections": args.connections, "load_average_before": os.getloadavg()[0]}, [], measure.cores()
    stack = Stack(hosts=0, schedulers=0)
    try:
        say("starting a stack")
        stack.configure("r1-router-1", router={"attaches_max": 20000})  # hosts attach as fast as they can, and do not come back
        stack.up()
        sides.append(Router(stack, core))
        measure.pin(measure.family(stack.status()["rabbitmq"]["pid"]), load_core)
        size, ours = sides[0].open(args.connections, load_core)
        try:
            sides.append(Mosquitto(core))
            _, theirs = sides[1].open(args.connections, load_core, size)
        except Missing as e:
            result["left_out"] = [str(e)]
            say(f"left out: {e}")
        run(args, sides, args.connections)
        result["message_bytes"], result["harpoon"] = size, sides[0].figures(ours)
        if len(sides) > 1:
            result["mosquitto"] = sides[1].figures(theirs)
            result["of_mosquitto"] = {kind: measure.ratio(sides[0].rates[kind], sides[1].rates[kind]) for kind in KINDS}
    finally:
        for side in sides:
            side.close()
        stack.down()
    print(json.dumps(result))
    return 0
