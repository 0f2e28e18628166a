"""Private RabbitMQ nodes: each with its own epmd, cookie, ports, data and logs. A node tells when it is up through a notification socket.

A single node listens on loopback. The nodes of a cluster live each in a network namespace of its own (network.py), at the usual ports; they start side by side
and find one another by configuration, so that a node with an empty directory joins by being started."""
import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess

import disks
import procs
from network import Network
from procs import Failure

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
QUEUES = "/usr/lib/rabbitmq/bin/rabbitmq-queues"
STREAMS = "/usr/lib/rabbitmq/bin/rabbitmq-streams"
START_SECONDS = 120
CLUSTER_PORTS = {"amqp": 5672, "amqps": 5671, "dist": 25672, "epmd": 4369}  # in a namespace of their own
VHOST = "harpoon"
FORGET_STREAMS = ("[rabbit_stream_coordinator:delete_replica(maps:get(name, amqqueue:get_type_state(Q)), '{node}')"
                  " || Q <- rabbit_amqqueue:list_by_type(rabbit_stream_queue)],"
                  " ra:remove_member({{rabbit_stream_coordinator, node()}}, {{rabbit_stream_coordinator, '{node}'}}).")
# What the coordinator of streams does every half minute: takes in nodes that have joined. Its members are asked for afterwards.
COORDINATOR = "{ok, _, L} = ra:members({rabbit_stream_coordinator, node()}), ra:cast_aux_command(L, maybe_resize_coordinator_cluster)."
MEMBERS = "{ok, M, _} = ra:members({rabbit_stream_coordinator, node()}), [atom_to_list(N) || {_, N} <- M]."

CONF = """\
# Written by deploy/dev/stack.
listeners.tcp.1 = {address}:{port}
listeners.ssl.1 = {address}:{tls_port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
definitions.import_backend = local_filesystem
definitions.local.path = {definitions}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = {disk_free}MB
log.file.level = info
log.console = false
"""


# What a production cluster has too.
RECOMMENDED = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../rabbitmq")
FORMATION_CONF = "cluster_formation.peer_discovery_backend = classic_config\n"
# Small files of the write-ahead log and of streams' segments, where the disk is small.
SMALL_DISK_CONF = "raft.wal_max_size_bytes = 8388608\n"
# Two cores are shared by all: schedulers do not spin while they have nothing to do.
ERLANG_ARGUMENTS = "+sbwt none +sbwtdcpu none +sbwtdio none"


def recommended(name):
    with open(os.path.join(RECOMMENDED, name)) as f:
        return f.read()


class Broker:
    """One node: alone, or the `index`th of the cluster `nodes` (their names)."""

    def __init__(self, state, index=1, nodes=()):
        self.state = state
        self.name = node_name(index)
        self.nodes = list(nodes) if len(nodes) > 1 else []
        self.network = Network(state, self.nodes) if self.nodes else None
        self.directory = state.path(self.name)
        self.log = state.path("log", self.name + ".log")
        self.out = state.path("log", self.name + ".out")
        self.epmd = self.name.replace("rabbitmq", "epmd")
        self.notify = None

    def file(self, *parts):
        return os.path.join(self.directory, *parts)

    @property
    def node(self):
        return self.node_of(self.name)

    def node_of(self, name):
        return f"harpoon-{self.state.data['id']}@" + (self.network.address(name) if self.network else "localhost")

    @property
    def host(self):
        return self.network.address(self.name) if self.network else "127.0.0.1"

    def port(self, kind):
        return CLUSTER_PORTS[kind] if self.network else self.state.port("rabbitmq." + kind)

    def address(self, kind):
        return f"{self.host}:{self.port(kind)}"

    def url_at(self, address, scheme="amqp"):
        return f"{scheme}://harpoon:{self.state.secret('rabbitmq')}@{address}/{VHOST}"

    @property
    def url(self):
        return self.url_at(self.address("amqp"))

    @property
    def tls_url(self):
        return self.url_at(self.address("amqps"), "amqps")

    def environment(self):
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": self.file("home"),
            "ERL_EPMD_PORT": str(self.port("epmd")), "ERL_EPMD_ADDRESS": self.host,
            "RABBITMQ_NODENAME": self.node, "RABBITMQ_NODE_IP_ADDRESS": self.host, "RABBITMQ_USE_LONGNAME": "true" if self.network else "false",
            "RABBITMQ_DIST_PORT": str(self.port("dist")), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_ARGUMENTS,
            "RABBITMQ_MNESIA_BASE": self.file("mnesia"), "RABBITMQ_LOG_BASE": self.file("log"), "RABBITMQ_LOGS": self.log,
            "RABBITMQ_CONFIG_FILE": self.file("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE": self.file("advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": self.file("env.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE": self.file("enabled_plugins"),
            "RABBITMQ_SCHEMA_DIR": self.file("schema"), "RABBITMQ_GENERATED_CONFIG_DIR": self.file("generated"),
            "RABBITMQ_PID_FILE": self.file("pid"),
        }

    @property
    def disk(self):
        """What is on a small disk when one is asked for."""
        return self.file("mnesia")

    def prepare(self):
        for d in ("home", "mnesia", "log", "schema", "generated"):
            os.makedirs(self.file(d), mode=0o700, exist_ok=True)
        cookie = self.file("home", ".erlang.cookie")
        if not os.path.exists(cookie):
            with open(os.open(cookie, os.O_WRONLY | os.O_CREAT, 0o400), "w") as f:
                f.write(self.state.secret("erlang-cookie"))
        cert, key = self.state.pki.server(self.name, self.host)
        small = self.state.data["disks"].get("broker")
        if small:
            disks.mount(self.disk, small)
        conf = CONF.format(address=self.host, port=self.port("amqp"), tls_port=self.port("amqps"), ca=self.state.pki.ca, cert=cert, key=key,
                           definitions=self.file("definitions.json"), disk_free=8 if small else 50)
        if small:
            conf += SMALL_DISK_CONF
        if self.nodes:
            conf += recommended("rabbitmq.conf") + FORMATION_CONF + "".join(f"cluster_formation.classic_config.nodes.{i + 1} = {self.node_of(n)}\n" for i, n in enumerate(self.nodes))
        write(self.file("enabled_plugins"), "[].\n")
        write(self.file("env.conf"), "")
        write(self.file("advanced.config"), recommended("advanced.config") if self.nodes else "[].\n")
        write(self.file("definitions.json"), json.dumps(self.definitions(), indent=1))
        write(self.file("rabbitmq.conf"), conf)

    def definitions(self):
        salt = bytes.fromhex(self.state.secret("rabbitmq-salt")[:8])
        digest = hashlib.sha256(salt + self.state.secret("rabbitmq").encode()).digest()
        return {
            "users": [{"name": "harpoon", "password_hash": base64.b64encode(salt + digest).decode(),
                       "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]}],
            "vhosts": [{"name": "harpoon"}],
            "permissions": [{"user": "harpoon", "vhost": "harpoon", "configure": ".*", "write": ".*", "read": ".*"}],
        }

    def inside(self, *argv):
        return self.network.inside(self.name, *argv) if self.network else list(argv)

    def is_alive(self):
        return procs.alive(self.state.process(self.name))

    def begin(self):
        """Starts epmd and the node. wait_ready must follow, in the same program."""
        if not os.path.exists(SERVER):
            raise Failure("RabbitMQ is not installed: run deploy/install-deps")
        self.prepare()
        if not procs.alive(self.state.process(self.epmd)):
            self.state.record(self.epmd, procs.spawn(
                self.inside(shutil.which("epmd") or "epmd", "-port", str(self.port("epmd")), "-address", self.host),
                self.state.path("log", "epmd.log"), env=self.environment()))
        path = self.file("notify")
        if os.path.exists(path):
            os.unlink(path)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(path)
        self.notify.setblocking(False)
        self.state.record(self.name, procs.spawn(self.inside(SERVER), self.out, env={**self.environment(), "NOTIFY_SOCKET": path}))

    def wait_ready(self):
        """Returns when the node's listeners are open."""
        procs.wait_for(self.name, self.state.process(self.name), self.out, lambda: ready(self.notify), START_SECONDS)
        self.notify.close()

    def stop(self, seconds=20):
        """Ends the node in order, then epmd."""
        procs.stop([r for r in [self.state.process(self.name)] if r], seconds)
        procs.stop([r for r in [self.state.process(self.epmd)] if r], 2)

    def ctl_argv(self, args, tool=CTL):
        return self.inside(tool, *(["--longnames"] if self.network else []), "-n", self.node, *args)

    def ctl(self, args):
        argv = self.ctl_argv(args)
        os.execvpe(argv[0], argv, {**os.environ, **self.environment()})

    def ask(self, args, tool=CTL):
        """Runs one of RabbitMQ's tools and gives what it prints."""
        done = subprocess.run(self.ctl_argv(args, tool), env={**os.environ, **self.environment()}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{os.path.basename(tool)} {' '.join(args)} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def node_name(index):
    """rabbitmq, rabbitmq-2, rabbitmq-3 …"""
    return "rabbitmq" if index == 1 else f"rabbitmq-{index}"


class Cluster:
    """All broker nodes of a stack."""

    def __init__(self, state, count):
        names = [node_name(i + 1) for i in range(count)]
        self.state = state
        self.nodes = [Broker(state, i + 1, names) for i in range(count)]
        self.network = self.nodes[0].network

    def find(self, name):
        for n in self.nodes:
            if n.name == name:
                return n
        raise Failure(f"there is no {name}; there are: {', '.join(n.name for n in self.nodes)}")

    def other(self, name):
        """A node that runs, and is not this one."""
        for n in self.nodes:
            if n.name != name and n.is_alive():
                return n
        raise Failure("no other node runs")

    def begin(self):
        """Starts the nodes that are down, side by side; gives them, for wait_ready, which must follow."""
        if self.network:
            self.network.ensure()
        down = [n for n in self.nodes if not n.is_alive()]
        for n in down:
            n.begin()
        return down

    def wait_ready(self, begun):
        """Returns when all that were begun serve. One that was forgotten and has joined anew gets its part of every queue."""
        for n in begun:
            n.wait_ready()
        for n in begun:
            if os.path.exists(n.file("forgotten")):
                self.grow(n.name)
                os.unlink(n.file("forgotten"))

    def stop(self, seconds):
        for n in self.nodes:
            n.stop(seconds)

    def forget(self, name):
        """Ends a node for good: the others take it out of every stream, of every queue and of the cluster, and its data is removed. Streams come first: RabbitMQ's own tool refuses
        that for a node that is down, and a replica that is left behind would be started in the empty node before it has joined, which then is not empty any more and never joins."""
        node, other = self.find(name), self.other(name)
        procs.stop([r for r in [self.state.process(name)] if r], 0)
        other.ask(["eval", FORGET_STREAMS.format(node=node.node)])
        other.ask(["forget_cluster_node", node.node])
        for entry in os.listdir(node.disk):
            path = os.path.join(node.disk, entry)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        write(node.file("forgotten"), "")

    def grow(self, name):
        """Gives a node that has joined anew a member of every quorum queue and a replica of every stream."""
        node, other = self.find(name), self.other(name)
        if node.node not in json.loads(other.ask(["cluster_status", "--formatter", "json"]))["running_nodes"]:
            raise Failure(f"{name} runs, but has not joined the cluster: {node.log} says why")
        other.ask(["eval", COORDINATOR])
        procs.wait_for(f"{name} in the coordinator of streams", self.state.process(name), node.log, lambda: node.node in other.ask(["eval", MEMBERS]), START_SECONDS)
        other.ask(["grow", node.node, "all"], QUEUES)
        rows = other.ask(["-q", "list_queues", "-p", VHOST, "name", "type", "--no-table-headers"])
        for row in rows.splitlines():
            queue, kind = row.split("\t")
            if kind == "stream":
                other.ask(["add_replica", queue, node.node, "--vhost", VHOST], STREAMS)


def ready(notify):
    try:
        return bool(re.search(rb"^READY=1", notify.recv(4096), re.M))
    except BlockingIOError:
        return False


def write(path, text, mode=0o600):
    """By rename: whoever reads the file, or runs it, meets the old or the new one whole."""
    temporary = f"{path}.{os.getpid()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
        f.write(text)
    os.replace(temporary, path)
