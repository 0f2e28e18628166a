"""What the nemesis takes hold of: the processes, links, nodes and disks of one stack. Everything here acts on that stack alone, and says whether it has met anything."""
import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from paths import STACK, TOP

sys.path.insert(0, os.path.join(TOP, "deploy/dev/lib"))

import disks  # noqa: E402
import procs  # noqa: E402
from broker import Cluster  # noqa: E402
from links import Proxy  # noqa: E402
from state import State  # noqa: E402

GONE_SECONDS = 30
PAUSED = "T"


class Ground:
    def __init__(self, stack):
        self.stack = stack
        self.status = stack.status()  # names, roles and addresses never change; pids are read anew
        self.state = State(stack.directory).open(exclusive=False)
        self.cluster = Cluster(self.state, self.state.data["shape"].get("brokers", 1))
        self.network = self.cluster.network
        self.control = self.state.path("run", "proxy.sock")
        self.has_proxy = bool(self.state.data.get("options", {}).get("proxies"))
        self.starting = threading.Lock()
        self.busy, self.busy_lock = set(), threading.Lock()

    # ---- which there are ----

    def names(self, *roles):
        return sorted(n for n, p in self.status.items() if p["role"] in roles)

    def links(self):
        """{link: its open connections}"""
        return {link["link"]: link["open"] for link in self.ask_proxy("links")}

    def reserve(self, names):
        """True when no other fault holds any of the names; they are held until release."""
        with self.busy_lock:
            if self.busy & set(names):
                return False
            self.busy |= set(names)
            return True

    def release(self, names):
        with self.busy_lock:
            self.busy -= set(names)

    # ---- processes ----

    def record(self, name):
        return State(self.stack.directory).open(exclusive=False).process(name)

    def alive(self, name):
        return procs.alive(self.record(name))

    def signal(self, name, number):
        """Sends a signal; True when it has had its effect: a process killed is gone, one paused is paused."""
        record = self.record(name)
        if not procs.alive(record):
            return False
        procs.send(record, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            return not procs.wait_gone([record], GONE_SECONDS)
        if number == signal.SIGSTOP:
            return self.until(lambda: (procs.proc_stat(record["pid"]) or " ")[0] == PAUSED, 2)
        return True

    def until(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def resume(self, name):
        self.signal(name, signal.SIGCONT)

    def start(self, name, seconds=90):
        """Starts what is down; waits until it serves, but not for ever: it may need what another fault holds."""
        with self.starting:
            if not self.alive(name):
                subprocess.run([STACK, "--state", self.stack.directory, "start", name], capture_output=True, text=True, check=True, timeout=120)
        return self.until(lambda: self.serves(name), seconds)

    def serves(self, name):
        p = self.status[name]
        address = next((p["ports"][k] for k in ("grpc", "agents", "amqp", "sql") if k in p["ports"]), None)
        if not address:
            return self.alive(name)
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True

    # ---- links ----

    def ask_proxy(self, call, *args, **kwargs):
        proxy = Proxy(self.control)
        try:
            return getattr(proxy, call)(*args, **kwargs)
        finally:
            proxy.close()

    def touched(self, pattern):
        """How many connections the faults of these links have met so far."""
        import fnmatch
        return sum(link["faulted"] + link["cut"] + link["refused"] for link in self.ask_proxy("links") if fnmatch.fnmatch(link["link"], pattern))

    # ---- nodes of the broker ----

    def packets_dropped(self):
        count = 0
        for name in self.network.names if self.network else ():
            done = subprocess.run(self.network.inside(name, "iptables", "-w", "-L", "-n", "-v", "-x"), capture_output=True, text=True, check=False)
            count += sum(int(m) for m in re.findall(r"^\s*(\d+)\s+\d+\s+DROP", done.stdout, re.M))
        return count

    def ctl(self, node, *args):
        """rabbitmqctl at one node; what it prints, or None."""
        try:
            done = subprocess.run([STACK, "--state", self.stack.directory, "rabbitmqctl", "--node", node, *args], capture_output=True, text=True,
                                  check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    def partitioned(self):
        """Nodes that call themselves cut off from others although nothing is between them any more."""
        return [n for n in self.names("rabbitmq") if (self.ctl(n, "eval", "rabbit_node_monitor:partitions().") or "[]").strip() != "[]"]

    def lost_streams(self, node):
        listed = self.ctl(node, "list_queues", "--vhost", "harpoon", "--quiet", "name", "state") or ""
        return [line.split()[0] for line in listed.splitlines() if line.startswith("events.") and line.split()[1:] == ["down"]]

    def forget_stream(self, node, name):
        return self.ctl(node, "eval", f'rabbit_amqqueue:internal_delete(rabbit_misc:r(<<"harpoon">>, queue, <<"{name}">>), <<"operator">>).')

    # ---- disks ----

    def disk(self, name):
        """The small disk of a server, or None."""
        return self.status[name].get("disk")

    def fill(self, name, leave):
        try:
            disks.fill(self.disk(name), leave)
        except OSError as e:
            if e.errno != errno.ENOSPC:  # its server was quicker
                raise
        space = os.statvfs(self.disk(name))
        return space.f_bavail * space.f_frsize < leave + (1 << 16)

    def unfill(self, name):
        disks.unfill(self.disk(name))
