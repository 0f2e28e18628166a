"""One real harpoon-host-agent with a router in the test's own process: commands go out as a scheduler would send them, results come in, and the kernel and the
file system say what is really there. As root."""
import ctypes
import ctypes.util
import os
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from api import container_pb2
from harness import ROOT, image
from harpoon.internal.v1 import agent_pb2
from paths import program
from wire import agent_frame
import machine

MIB = 1 << 20
DONE = agent_pb2.COMMAND_OUTCOME_DONE


class FileEvents:
    """Names of files that come and go below directories, by inotify: a follower of the agent's steps that the agent knows nothing of."""

    CREATE, DELETE, MOVED_TO, CLOSE_WRITE, DIRECTORY = 0x100, 0x200, 0x80, 0x8, 0x40000000

    def __init__(self):
        self.libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        self.paths = {}

    def watch(self, path):
        w = self.libc.inotify_add_watch(self.fd, path.encode(), self.CREATE | self.DELETE | self.MOVED_TO | self.CLOSE_WRITE)
        if w >= 0:
            self.paths[w] = path

    def read(self):
        """(verb, path) of what happened; new directories are watched from then on."""
        found = []
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return found
        while data:
            w, mask, _, length = struct.unpack_from("iIII", data)
            name = data[16:16 + length].split(b"\0", 1)[0].decode()
            data = data[16 + length:]
            if w not in self.paths or not name:
                continue
            path = os.path.join(self.paths[w], name)
            if mask & self.CREATE and mask & self.DIRECTORY:
                self.watch(path)
            found.append(("-" if mask & self.DELETE else "+", path))
        return found

    def close(self):
        os.close(self.fd)


class Router:
    """Accepts the agent, says welcome, confirms reports, keeps results and observations."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.listener.setblocking(False)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.connections = {}  # socket: bytes that came and are no message yet
        self.attached = None
        self.hello = None  # the last one
        self.hellos = 0
        self.hello = None  # the last one
        self.results, self.journalled, self.observations, self.inventories = {}, set(), [], []
        self.metrics = None  # the last ones
        self.metrics_ms = 60000  # what the next welcome asks for
        self.repeated = []  # (first, second) different answers for one generation

    def fds(self):
        return [self.listener, *self.connections]

    def ready(self, s):
        if s is self.listener:
            c, _ = s.accept()
            c.setblocking(False)
            self.connections[c] = b""
            return
        try:
            part = s.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionError:
            part = b""
        if not part:
            self.drop(s)
            return
        data = self.connections[s] + part
        while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4], "big"):
            size = int.from_bytes(data[:4], "big")
            self.take(s, agent_pb2.AgentMessage.FromString(data[4:4 + size]))
            data = data[4 + size:]
        if s in self.connections:
            self.connections[s] = data

    def drop(self, s):
        self.connections.pop(s, None)
        if self.attached is s:
            self.attached = None
        s.close()

    def take(self, s, m):
        kind = m.WhichOneof("body")
        if kind == "hello":
            self.attached = s
            self.hello = m.hello
            self.send(welcome=agent_pb2.Welcome(version=1, router="test", heartbeat_ms=5000, metrics_ms=self.metrics_ms, window=64))
            self.hellos += 1
            self.hello = m.hello
        elif kind == "journalled":
            self.journalled.add((m.journalled.uid, m.journalled.generation))
        elif kind == "result":
            r = m.result
            known = self.results.setdefault((r.uid, r.generation), r)
            if known.outcome == DONE and r.outcome == DONE and (known.status.pid, known.status.pid_start_ticks) != (r.status.pid, r.status.pid_start_ticks):
                self.repeated.append((known, r))
            self.send(confirmed=agent_pb2.ReportsConfirmed(report_ids=[r.report_id]))
        elif kind == "observation":
            self.observations.append(m.observation)
            self.send(confirmed=agent_pb2.ReportsConfirmed(report_ids=[m.observation.report_id]))
        elif kind == "inventory":
            self.inventories.append(m.inventory)
        elif kind == "metrics":
            self.metrics = m.metrics.host

    def send(self, **body):
        """To the attached agent; lost when there is none, as on any edge."""
        if not self.attached:
            return
        try:
            self.attached.sendall(agent_frame(agent_pb2.RouterMessage(**body).SerializeToString()))
        except OSError:
            pass

    def close(self):
        for s in [*self.connections]:
            self.drop(s)
        self.listener.close()


class AgentHost:
    """The agent, its directories, and what it left on the machine."""

    def __init__(self, state_dir=None, network=None, **settings):
        self.directory = tempfile.mkdtemp(prefix="hpa-", dir=ROOT)
        self.state, self.run = state_dir or os.path.join(self.directory, "state"), os.path.join(self.directory, "run")
        self.log = os.path.join(self.directory, "log")
        self.name = "hpt%d" % (os.getpid() % 100000)
        self.cgroup_parent = "/harpoon-test-%d" % os.getpid()
        self.router = Router()
        self.process = None
        self.environment = {}  # of the agent, besides ours
        self.starts = 0
        self.on_turn = None  # called with each pump: a follower of events
        os.makedirs(self.state, exist_ok=True)
        options = {"host": "h1", "region": "r1", "routers": self.router.address, "state_dir": self.state, "run_dir": self.run, "bridge": self.name,
                   "subnet": "10.%d.%d.0/24" % (200 + os.getpid() // 250 % 50, os.getpid() % 250), "cgroup_parent": self.cgroup_parent, "plain": "yes",
                   "stop_wait": "5s", "memory": "4G", **settings}
        self.config = os.path.join(self.directory, "agent.ini")
        self.settings = {"agent": options, "network": dict(network or {})}
        self.write_config()

    def write_config(self):
        with open(self.config, "w") as f:
            for section, options in self.settings.items():
                f.write(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in options.items()))

    def set(self, section, key, value):
        """Counts from the next start on."""
        self.settings[section][key] = value
        self.write_config()

    # --- the process ---

    def start(self, wait=True):
        hellos = self.router.hellos
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([program("harpoon-host-agent"), "--config", self.config], stdout=log, stderr=log, env={**os.environ, **self.environment})
        self.starts += 1
        if wait:
            self.until(lambda: self.router.hellos > hellos, 20, "the agent to attach")

    def kill(self, signum=signal.SIGKILL):
        self.process.send_signal(signum)
        self.process.wait()
        self.process = None

    def close(self):
        if self.process:
            self.kill(signal.SIGTERM)
        self.router.close()
        self.end_rest()
        with open("/proc/mounts") as f:
            mounts = [line.split()[1] for line in f if line.split()[1].startswith(self.directory)]
        for m in reversed(mounts):
            subprocess.run(["umount", "-l", m], check=False)
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=False).stdout
        for rule in (shlex.split(r) for r in rules.splitlines() if self.name in r):
            subprocess.run(["iptables", "-t", "nat", "-D", *rule[1:]], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def end_rest(self):
        """Ends what a test that failed has left running."""
        for cgroup in self.cgroups():
            with open(os.path.join(cgroup, "cgroup.procs")) as f:
                for pid in f.read().split():
                    subprocess.run(["kill", "-9", pid], capture_output=True, check=False)
        for pid in self.processes():
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
        end = time.monotonic() + 5
        for cgroup in self.cgroups():
            while os.path.isdir(cgroup) and time.monotonic() < end:
                try:
                    os.rmdir(cgroup)
                except OSError:
                    time.sleep(0.01)  # its processes are about to be gone
        for root in machine.cgroup_roots():
            subprocess.run(["rmdir", root + self.cgroup_parent], capture_output=True, check=False)

    def log_end(self, lines=60):
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    # --- time ---

    def pump(self, seconds):
        """Serves what is ready, at most `seconds` long."""
        fds = self.router.fds()
        if self.on_turn:
            fds.append(self.on_turn.fd)
        ready, _, _ = select.select(fds, [], [], max(0, seconds))
        for s in ready:
            if not isinstance(s, int):
                self.router.ready(s)
        return ready

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}\n{self.log_end()}")
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"the agent ended with {self.process.returncode}\n{self.log_end()}")
            self.pump(0.05)

    # --- commands ---

    def ensure(self, uid, generation, memory=8 * MIB, network="none", command=(), volumes=(), **more):
        modes = {"none": container_pb2.NETWORK_MODE_NONE, "bridge": container_pb2.NETWORK_MODE_BRIDGE}
        spec = container_pb2.ContainerSpec(image=image(), command=command, volumes=[container_pb2.VolumeMount(**v) for v in volumes], **more)
        spec.resources.cpu_millis, spec.resources.memory_bytes = 100, memory
        spec.network.mode = modes[network]
        spec.desired_state = container_pb2.DESIRED_STATE_RUNNING
        return self.command(uid, generation, verb=agent_pb2.COMMAND_VERB_ENSURE, spec=spec)

    def remove(self, uid, generation):
        return self.command(uid, generation, verb=agent_pb2.COMMAND_VERB_REMOVE)

    @staticmethod
    def command(uid, generation, **more):
        return agent_pb2.Command(region="r1", host="h1", operation_id=f"{uid}-{generation}", container=f"projects/p/regions/r1/containers/{uid}",
                                 uid=uid, generation=generation, epoch=1, **more)

    def send(self, command):
        self.router.send(command=command)

    def result(self, command):
        return self.router.results.get((command.uid, command.generation))

    def done(self, *commands, seconds=30):
        """Sends, and waits for the results; all must be DONE."""
        for c in commands:
            self.send(c)
        self.until(lambda: all(self.result(c) for c in commands), seconds,
                   lambda: "results of " + ", ".join(c.operation_id for c in commands if not self.result(c)))
        for c in commands:
            r = self.result(c)
            assert r.outcome == DONE, f"{c.operation_id}: {r.error.message}\n{self.log_end()}"
        return [self.result(c) for c in commands]

    # --- ground truth ---

    def cgroups(self):
        """Names of the containers' cgroups, with their hierarchies."""
        found = []
        for root in machine.cgroup_roots():
            at = root + self.cgroup_parent
            if os.path.isdir(at):
                found += [os.path.join(at, d) for d in os.listdir(at) if os.path.isdir(os.path.join(at, d))]
        return sorted(found)

    def processes(self):
        """{pid: command line} of whatever has one of our directories among its arguments or in its environment (conmon, plugins, runtimes), except the agent itself."""
        found = {}
        for pid in (d for d in os.listdir("/proc") if d.isdigit()):
            try:
                line = ""
                for part in ("cmdline", "environ"):  # network plugins are told by their environment
                    with open(f"/proc/{pid}/{part}", "rb") as f:
                        line += f.read().replace(b"\0", b" ").decode(errors="replace")
                if self.directory in line and int(pid) != os.getpid() and not (self.process and int(pid) == self.process.pid):
                    if machine.identity(int(pid)):
                        found[int(pid)] = line
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
        return found

    def links(self):
        """Interfaces on the bridge."""
        at = f"/sys/class/net/{self.name}/brif"
        return sorted(os.listdir(at)) if os.path.isdir(at) else []

    def mounts(self):
        with open("/proc/mounts") as f:
            return sorted(line.split()[1] for line in f if line.split()[1].startswith(self.directory))

    @staticmethod
    def listing(path, skip=()):
        return sorted(f for f in os.listdir(path) if f not in skip) if os.path.isdir(path) else []
