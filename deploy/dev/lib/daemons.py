"""Harpoon's own daemons: which ones a shape has, their configuration files, their start."""
import glob
import hashlib
import json
import os
import shlex

import procs
from broker import write
from database import NAME as DATABASE_NAME

READY_SECONDS = 30
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ORDER = ["scheduler", "broker-gw", "event-router", "host-agent", "fleet-sim"]  # of starting; stopping is the other way round
TOKENS = [("admin", "*", "admin"), ("demo", "demo", "editor"), ("viewer", "*", "viewer"), ("other", "other", "editor")]


class Daemon:
    """One daemon: its name in the stack, its program, its configuration as {section: {key: value}}, its ports by name."""

    def __init__(self, state, name, role, region, ports):
        self.state, self.name, self.role, self.region = state, name, role, region
        self.ports = {p: f"{name}.{p}" for p in ports}
        self.config = {"log": {"level": "info"}}
        if "metrics" in self.ports:
            self.config["metrics"] = {"listen": self.address("metrics")}
        self.extra = []  # further arguments
        self.runtime_log = None

    @property
    def program(self):
        return "harpoon-" + self.role

    def address(self, port):
        return self.state.address(self.ports[port])

    @property
    def log(self):
        return self.state.path("log", self.name + ".log")

    @property
    def config_file(self):
        return self.state.path("conf", self.name + ".ini")

    @property
    def ready_file(self):
        return self.state.path("run", self.name + ".ready")

    def argv(self, build):
        options = self.extra if self.role == "fleet-sim" else ["--config", self.config_file]
        return [os.path.join(build, self.program), *options, "--ready-file", self.ready_file]

    def write_config(self):
        if self.role == "fleet-sim":
            return
        os.makedirs(os.path.dirname(self.config_file), exist_ok=True)
        lines = ["; Written by deploy/dev/stack at each start; put changes into " + self.config_file + ".d/*.conf"]
        for section, keys in self.config.items():
            lines.append(f"[{section}]")
            lines += [f"{k} = {v}" for k, v in keys.items()]
        write(self.config_file, "\n".join(lines) + "\n")

    def start(self, build):
        """Starts it without waiting."""
        self.write_config()
        os.makedirs(os.path.dirname(self.ready_file), exist_ok=True)
        if os.path.exists(self.ready_file):
            os.unlink(self.ready_file)
        env = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root"}
        env.update({k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")})
        env.update(self.own_environment())
        record = procs.spawn(self.argv(build), self.log, env=env)
        self.state.record(self.name, record)

    def own_environment(self):
        """What a test has put into conf/NAME.env: lines of NAME=VALUE."""
        try:
            with open(self.state.path("conf", self.name + ".env")) as f:
                return dict(line.rstrip("\n").split("=", 1) for line in f)
        except FileNotFoundError:
            return {}

    def wait_ready(self):
        record = self.state.process(self.name)
        procs.wait_for(self.name, record, self.log, lambda: self.is_ready(record), READY_SECONDS)

    def is_ready(self, record):
        try:
            with open(self.ready_file) as f:
                return json.load(f).get("pid") == record["pid"]
        except (FileNotFoundError, ValueError):
            return False


class Fleet:
    """All daemons of a stack's shape."""

    def __init__(self, state, cluster, database, links):
        self.state, self.cluster, self.database, self.links = state, cluster, database, links

    @property
    def regions(self):
        return [f"r{i + 1}" for i in range(self.state.data["shape"]["regions"])]

    def daemons(self):
        shape = self.state.data["shape"]
        every = [self.scheduler(f"sched-{i + 1}") for i in range(shape["schedulers"])]
        every += [self.gateway(f"gw-{i + 1}") for i in range(shape["gateways"])]
        for region in self.regions:
            every += [self.router(region, f"{region}-router-{i + 1}") for i in range(shape["routers"])]
        for region in self.regions:
            every += [self.agent(region, i) for i in range(shape["hosts"])]
            if shape["sim_hosts"]:
                every.append(self.simulator(region))
        return every

    def broker_section(self, name):
        return {"url": ", ".join(b.url_at(self.links.via(name, b.name, b.address("amqp"))) for b in self.cluster.nodes)}

    def database_section(self, name, user):
        account = {"user": user, "password": self.state.secret("mariadb-" + user), "name": DATABASE_NAME}
        if not self.links.on:
            return {"socket": self.database.socket, **account}
        host, port = self.links.via(name, "mariadb", self.database.address()).split(":")
        return {"host": host, "port": port, **account}

    def tls_section(self, cert_and_key):
        return {"ca": self.state.pki.ca, "cert": cert_and_key[0], "key": cert_and_key[1]}

    def scheduler(self, name):
        d = Daemon(self.state, name, "scheduler", "", ["metrics"])
        # All hosts of a stack share one machine, which tests keep busy: their breakers would be open most of the time.
        d.config["scheduler"] = {"name": name, "regions": ", ".join(self.regions), "breaker_cpu": 0, "breaker_memory": 0, "breaker_network": 0,
                                 "breaker_memory_pressure": 0, "breaker_io_pressure": 0}
        d.config["broker"] = self.broker_section(name)
        d.config["database"] = self.database_section(name, "scheduler")
        return d

    def gateway(self, name):
        d = Daemon(self.state, name, "broker-gw", "", ["grpc", "h2c", "http", "metrics"])
        d.config["gateway"] = {"name": name, "regions": ", ".join(self.regions), "grpc_listen": d.address("grpc"),
                               "h2c_listen": d.address("h2c"), "http_listen": d.address("http"), "tokens_file": self.tokens_file()}
        d.config["broker"] = self.broker_section(name)
        d.config["database"] = self.database_section(name, "gateway")
        d.config["tls"] = self.tls_section(self.state.pki.server(name))
        return d

    def router(self, region, name):
        d = Daemon(self.state, name, "event-router", region, ["agents", "metrics"])
        d.config["router"] = {"name": name, "region": region, "listen": d.address("agents")}
        d.config["broker"] = self.broker_section(name)
        d.config["tls"] = self.tls_section(self.state.pki.server(name))
        return d

    def routers_of(self, region, source):
        """Addresses of the region's routers, as `source` reaches them."""
        names = [f"{region}-router-{i + 1}" for i in range(self.state.data["shape"]["routers"])]
        return [self.links.via(source, n, self.state.address(n + ".agents")) for n in names]

    def agent(self, region, index):
        host = f"h{index + 1}"
        name = f"{region}-{host}"
        zone = "abc"[index % 3]
        d = Daemon(self.state, name, "host-agent", region, ["metrics"])
        d.config["agent"] = {
            "host": host, "region": region, "zone": f"{region}-{zone}", "rack": f"{region}-{zone}-1", "labels": "disk=ssd, kind=dev",
            "routers": ", ".join(self.routers_of(region, name)), "state_dir": self.state.path("hosts", name), "run_dir": self.state.path("r", name),
            "breaker_memory": 0, "breaker_memory_pressure": 0, "breaker_io_pressure": 0,
            "bridge": self.bridge(name), "subnet": self.state.subnet(name), "runtime": self.runtime(d), "cgroup_parent": self.cgroup(name),
        }
        d.config["tls"] = self.tls_section(self.state.pki.host(region, host))
        for directory in ("state_dir", "run_dir"):
            os.makedirs(d.config["agent"][directory], mode=0o700, exist_ok=True)
        return d

    def bridge(self, name):
        """At most 15 bytes, whatever the host's name."""
        return f"hp{self.state.data['id']}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

    def cgroup(self, name):
        return f"/harpoon-{self.state.data['id']}/{name}"

    def simulator(self, region):
        d = Daemon(self.state, f"{region}-sim", "fleet-sim", region, [])
        d.extra = ["--routers", ",".join(self.routers_of(region, d.name)), "--region", region, "--hosts", str(self.state.data["shape"]["sim_hosts"]),
                   "--prefix", "sim-", "--ca", self.state.pki.ca, "--ca-key", self.state.pki.ca_key]
        if self.state.data["options"].get("runtime_log"):
            d.runtime_log = self.truth(d.name)
            d.extra += ["--runtime-log", d.runtime_log, "--runtime-state", self.state.path("truth", d.name + ".json"),
                        "--journals", self.state.path("truth", d.name + "-journals")]
        return d

    def truth(self, name):
        """Where the runtime of a host, or of a simulated fleet, writes down what it did."""
        os.makedirs(self.state.path("truth"), mode=0o700, exist_ok=True)
        return self.state.path("truth", name + ".jsonl")

    def runtime(self, d):
        """With --runtime-log: a script that writes down every call and makes it."""
        if not self.state.data["options"].get("runtime_log"):
            return "auto"
        d.runtime_log = self.truth(d.name)
        script = self.state.path("truth", d.name + "-runtime")
        program = os.path.join(self.state.data["build"], "tests/lib/oci-runtime-log")
        write(script, f"#!/bin/sh\nexec {shlex.quote(program)} --log {shlex.quote(d.runtime_log)} --host {shlex.quote(d.name)} -- auto \"$@\"\n", 0o700)
        return script

    def tokens_file(self):
        lines = ["; Written by deploy/dev/stack."]
        for name, projects, role in TOKENS:
            digest = hashlib.sha256(self.state.secret("token-" + name).encode()).hexdigest()
            lines += [f"[token {name}]", f"sha256 = {digest}", f"projects = {projects}", f"role = {role}"]
        path = self.state.path("conf", "tokens.ini")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = "\n".join(lines) + "\n"
        if not os.path.exists(path) or open(path, encoding="utf-8").read() != text:  # gateways read it anew when it is written
            write(path, text)
        return path

    def start(self, build, only=None):
        """Starts what is down, waits for all of them; gives the programs that do not exist."""
        missing = set()
        for role in ORDER:
            started = []
            for d in self.daemons():
                if d.role != role or (only and d.name not in only) or procs.alive(self.state.process(d.name)):
                    continue
                if not os.access(os.path.join(build, d.program), os.X_OK):
                    missing.add(d.program)
                    continue
                d.start(build)
                started.append(d)
            for d in started:
                d.wait_ready()
        return sorted(missing)

    def stop(self, seconds):
        """Agents first, so that what they still say can be heard."""
        for role in reversed(ORDER):
            records = [self.state.process(d.name) for d in self.daemons() if d.role == role]
            procs.stop([r for r in records if r], seconds)



def read_ready(path):
    """Addresses that a daemon said it listens on."""
    try:
        with open(path) as f:
            return {k: v for k, v in json.load(f).items() if k != "pid"}
    except (FileNotFoundError, ValueError):
        return {}


def cgroup_roots():
    """Mount points of all cgroup hierarchies."""
    return [p for p in glob.glob("/sys/fs/cgroup/*") if os.path.isdir(p) and os.path.exists(os.path.join(p, "cgroup.procs"))] + \
        (["/sys/fs/cgroup"] if os.path.exists("/sys/fs/cgroup/cgroup.procs") else [])
