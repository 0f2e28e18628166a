"""The gateway beside the fastest peers: a no-op unary call against a C++ gRPC server and nghttpd, a durable accept against a raw publisher.

    --rounds N      (7) of each pair, alternating
    --seconds N     (3) of each measurement; of no-ops, of the server's CPU
    --connections N, --streams N   of h2load for no-ops (16, 32)
    --window N      changes, or messages, under way (1000)
    --only noop|accept
    --smoke         a round of no more than warms up, and of a second for accepts: that the harness works

No-op: h2load sends the very same request (POST, gRPC headers, an empty message) to broker-gw's own grpc.health.v1.Health/Check, to a C++ server of the same method (callback API), and to nghttpd, which
sends a file of as many bytes and the same trailer without looking at anything. Each server has one core, h2load the other. Accept: EventService.Submit on broker-gw, each change with its own request_id, answered
when RabbitMQ has confirmed it, against librabbitmq publishing bodies of the same size to a queue with the same arguments on the same broker; no consumer on either, queues purged after each measurement.

How this could cheat, and what prevents it. (1) By what else the machine does: servers take turns within each round, ratios are taken pair by pair, and `…_rps` counts requests per second of the server's CPU time,
all its threads; the rate by the clock is `…_wall_rps`. (2) CPU time flatters a server that saves work by being slower than its load: `busy` tells how much of its core each took. (3) By answering wrongly: h2load's
count of 2xx answers has to be that of all, and one answer of each server is read whole and its grpc-status compared. (4) By accepting what is not there: after each accept the number of messages in the queue, by
RabbitMQ's count, has to be that of the changes answered. (5) By an easier queue: type and arguments of both queues are compared as RabbitMQ tells them. (6) By easier messages: the raw bodies have the size of those that the
gateway sent. (7) Changes are validated, authenticated and authorized as always, the raw publisher does none of this; its client is a function call where Submit's is a process of ours on the same cores: `cpu_us` tells what each process
took. Clients send over plain TCP on loopback in all legs.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile

import pika

import measure
from harness import Stack
from measure import Missing, cpu_seconds, rounded, say

SHAPE = {"noop": {"harpoon_rps": float}, "accept": {"harpoon_per_s": float, "raw_amqp_per_s": float}}  # without its peers where they are not installed
PATH = "/grpc.health.v1.Health/Check"
HEADERS = ["content-type: application/grpc", "te: trailers", "user-agent: bench"]
WARM_UP = 20000  # requests
ACCEPTS = 3000  # at least
EMPTY = b"\0\0\0\0\0"  # a gRPC message of no bytes
SERVING = b"\0\0\0\0\2\x08\1"


class Server:
    """One of those that answer no-ops."""

    def __init__(self, name, pid, port, process=None):
        self.name, self.pid, self.port, self.process = name, pid, port, process
        self.rps, self.wall, self.busy = [], [], []


class Noop:
    def __init__(self, stack, args):
        self.args, self.servers, self.notes = args, [], []
        self.work = tempfile.mkdtemp(prefix="hp-bench-")
        self.core, self.load_core = measure.cores()
        self.h2load = measure.program("h2load", "nghttp2-client")
        self.body = os.path.join(self.work, "body")
        with open(self.body, "wb") as f:
            f.write(EMPTY)
        gateway = stack.status()["gw-1"]
        self.add(Server("harpoon", gateway["pid"], int(gateway["ports"]["h2c"].rsplit(":", 1)[1])))
        for peer in (self.grpcpp, self.nghttpd):
            try:
                self.add(peer())
            except Missing as e:
                self.notes.append(str(e))
                say(f"left out: {e}")

    def add(self, server):
        measure.wait_until(lambda: measure.listens(server.port), 10, server.name)
        measure.pin([server.pid], self.core)
        self.servers.append(server)
        self.check(server)

    def grpcpp(self):
        process = measure.start([measure.build("bench-grpcpp")], self.core, stdout=subprocess.PIPE, text=True)
        return Server("grpcpp", process.pid, int(process.stdout.readline()), process)

    def nghttpd(self):
        path = os.path.join(self.work, "www" + PATH)
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as f:
            f.write(SERVING)
        port = measure.free_port()
        argv = [measure.program("nghttpd", "nghttp2-server"), "--no-tls", "-n1", "-a", "127.0.0.1", "--trailer", "grpc-status: 0", "-d", os.path.join(self.work, "www"), str(port)]
        process = measure.start(argv, self.core)
        return Server("nghttpd", process.pid, port, process)

    def check(self, server):
        """One answer, read whole."""
        done = subprocess.run([measure.program("nghttp", "nghttp2-client"), "-v", "-d", self.body, *[x for h in HEADERS for x in ("-H", h)], f"http://127.0.0.1:{server.port}{PATH}"],
                              capture_output=True, timeout=20, check=False)
        if SERVING not in done.stdout or b"grpc-status: 0" not in done.stdout:
            raise SystemExit(f"{server.name} does not answer as it should:\n{done.stdout.decode(errors='replace')}{done.stderr.decode(errors='replace')}")

    def measure(self, server, requests):
        """(requests, seconds by the clock, CPU seconds of the server)."""
        argv = ["taskset", "-c", str(self.load_core), self.h2load, "-t1", f"-c{self.args.connections}", f"-m{self.args.streams}", "-n", str(requests), "-d", self.body,
                *[x for h in HEADERS for x in ("-H", h)], f"http://127.0.0.1:{server.port}{PATH}"]
        before = cpu_seconds(server.pid)
        text = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=True).stdout
        spent = cpu_seconds(server.pid) - before
        wall = re.search(r"finished in ([\d.]+)(m?s)", text)
        took = float(wall[1]) / (1000 if wall[2] == "ms" else 1)
        done, failed, other = (int(n) for n in re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text).groups())
        good = int(re.search(r"status codes: (\d+) 2xx", text)[1])
        if failed or other or good != done or done != requests:
            raise SystemExit(f"{server.name}: not every request was answered with success:\n{text}")
        return done, took, max(spent, 1 / measure.TICK)

    def run(self):
        counts = {}
        for server in self.servers:  # warms up, and tells how many are some seconds' worth
            done, took, spent = self.measure(server, WARM_UP)
            counts[server.name] = max(WARM_UP, round(self.args.seconds * done / min(took, spent)))
        for number in range(self.args.rounds):
            for server in self.servers[number % len(self.servers):] + self.servers[:number % len(self.servers)]:
                done, took, spent = self.measure(server, counts[server.name])
                server.rps.append(done / spent)
                server.wall.append(done / took)
                server.busy.append(spent / took)
        result = {}
        for server in self.servers:
            result[server.name + "_rps"] = round(measure.median(server.rps))
            result[server.name + "_wall_rps"] = round(measure.median(server.wall))
            result[server.name + "_busy"] = rounded(measure.median(server.busy), 3)
        ours = self.servers[0]
        for server in self.servers[1:]:
            result["of_" + server.name] = measure.ratio(ours.rps, server.rps)
        if self.notes:
            result["left_out"] = self.notes
        say("no-op: " + ", ".join(f"{s.name} {result[s.name + '_rps']}/s of a core" for s in self.servers))
        return result

    def close(self):
        for server in self.servers:
            if server.process:
                measure.end(server.process)
            else:
                measure.pin([server.pid], *os.sched_getaffinity(0))
        shutil.rmtree(self.work, ignore_errors=True)


class Accept:
    def __init__(self, stack, args):
        self.stack, self.args = stack, args
        self.submit, self.raw = measure.build("bench-submit"), measure.build("bench-raw-publisher")
        status = stack.status()
        self.broker, self.gateway = measure.family(status["rabbitmq"]["pid"]), status["gw-1"]["pid"]
        self.amqp = re.fullmatch(r"amqp://(\w+):(\w+)@([\d.]+):(\d+)/(\w+)", stack.env["HARPOON_AMQP_URL"]).groups()
        self.bytes = 0

    def queues(self, *columns):
        """{name: columns}"""
        lines = self.stack.rabbitmqctl("list_queues", "-q", "-p", self.amqp[4], "name", *columns, "--formatter", "json")
        return {q["name"]: tuple(q[c] for c in columns) for q in json.loads(lines)}

    def purge(self, queue):
        self.stack.rabbitmqctl("purge_queue", "-q", "-p", self.amqp[4], queue)

    def counted(self, queue, expected):
        """The broker's own count of what was accepted."""
        found = []

        def settled():
            found[:] = self.queues("messages")[queue]
            return found[0] >= expected
        measure.wait_until(settled, 20, f"{expected} messages in {queue}, which has {found}")
        if found[0] != expected:
            raise SystemExit(f"{queue} has {found[0]} messages, and {expected} were accepted")

    def leg(self, argv, queue, count_key, names):
        cpu = measure.Cpu(names)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{os.path.basename(argv[0])} failed")
        result = json.loads(text)
        spent = {**cpu.spent(), "client": usage.ru_utime + usage.ru_stime}
        self.counted(queue, result[count_key])
        self.purge(queue)
        return result, {k: v * 1e6 / result[count_key] for k, v in spent.items()}

    def harpoon(self, count):
        argv = [self.submit, "--endpoint", self.stack.env["HARPOON_H2C"], "--token", self.stack.env["HARPOON_TOKEN"], "--region", "r1", "--count", str(count), "--window", str(self.args.window)]
        return self.leg(argv, "requests.r1", "answered", {"gateway": self.gateway, "broker": self.broker})

    def publisher(self, seconds):
        user, password, host, port, vhost = self.amqp
        argv = [self.raw, host, port, user, password, vhost, "bench", "dead.r1", str(self.bytes), str(self.args.window), str(seconds)]
        return self.leg(argv, "bench", "all", {"broker": self.broker})

    def message_bytes(self):
        """Of one request as the gateway sends it."""
        subprocess.run([self.submit, "--endpoint", self.stack.env["HARPOON_H2C"], "--token", self.stack.env["HARPOON_TOKEN"], "--region", "r1", "--count", "1000"], check=True, capture_output=True)
        self.counted("requests.r1", 1000)
        connection = pika.BlockingConnection(pika.URLParameters(self.stack.env["HARPOON_AMQP_URL"]))
        size = len(next(connection.channel().consume("requests.r1"))[2])
        connection.close()
        self.purge("requests.r1")
        return size

    def run(self):
        self.bytes = self.message_bytes()
        self.publisher(1)
        warm, _ = self.harpoon(ACCEPTS)
        count = max(ACCEPTS, round(warm["per_s"] * self.args.seconds))
        queues = self.queues("type", "arguments")
        if queues["bench"] != queues["requests.r1"]:
            raise SystemExit(f"the queues differ: {queues['bench']} and {queues['requests.r1']}")
        ours, raw, cpu = [], [], {"harpoon": [], "raw": []}
        for number in range(self.args.rounds):
            legs = [(self.harpoon, ours, "harpoon"), (self.publisher, raw, "raw")]
            for leg, rates, name in legs[::-1] if number % 2 else legs:
                result, spent = leg(count if name == "harpoon" else max(1, self.args.seconds))
                rates.append(result["per_s"])
                cpu[name].append(spent)
        result = {"harpoon_per_s": round(measure.median(ours)), "raw_amqp_per_s": round(measure.median(raw)), "of_raw": measure.ratio(ours, raw), "message_bytes": self.bytes,
                  "cpu_us": {name: {k: rounded(measure.median([one[k] for one in every]), 3) for k in every[0]} for name, every in cpu.items()}}
        result["of_raw_cpu"] = measure.ratio([sum(c.values()) for c in cpu["raw"]], [sum(c.values()) for c in cpu["harpoon"]])
        say(f"accept: {result['harpoon_per_s']}/s, raw {result['raw_amqp_per_s']}/s")
        return result


def main(argv):
    parser = argparse.ArgumentParser(prog="gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--only", choices=["noop", "accept"])
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.rounds, args.seconds = 1, 0
    stack, result = Stack(hosts=0, schedulers=0), {}
    try:
        say("starting a stack")
        stack.up()
        if args.only != "accept":
            noop = Noop(stack, args)
            try:
                result["noop"] = noop.run()
            finally:
                noop.close()
        if args.only != "noop":
            result["accept"] = Accept(stack, args).run()
    finally:
        stack.down()
    print(json.dumps(result))
    return 0
