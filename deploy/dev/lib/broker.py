"""A private RabbitMQ node: its own epmd, cookie, ports, data and logs. It tells when it is up through a notification socket."""
import base64
import hashlib
import json
import os
import re
import shutil
import socket

import procs
from procs import Failure

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
START_SECONDS = 90

CONF = """\
# Written by deploy/dev/stack.
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
definitions.import_backend = local_filesystem
definitions.local.path = {definitions}
vm_memory_high_watermark.absolute = 2GB
disk_free_limit.absolute = 50MB
log.file.level = info
log.console = false
"""


class Broker:
    def __init__(self, state):
        self.state = state
        self.directory = state.path("rabbitmq")
        self.log = state.path("log", "rabbitmq.log")
        self.out = state.path("log", "rabbitmq.out")
        self.notify = None
        self.node = f"harpoon-{state.data['id']}@localhost"

    def file(self, *parts):
        return os.path.join(self.directory, *parts)

    @property
    def port(self):
        return self.state.port("rabbitmq.amqp")

    @property
    def url(self):
        return f"amqp://harpoon:{self.state.secret('rabbitmq')}@127.0.0.1:{self.port}/harpoon"

    @property
    def tls_url(self):
        return f"amqps://harpoon:{self.state.secret('rabbitmq')}@127.0.0.1:{self.state.port('rabbitmq.amqps')}/harpoon"

    def environment(self):
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": self.file("home"),
            "ERL_EPMD_PORT": str(self.state.port("rabbitmq.epmd")), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node, "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self.state.port("rabbitmq.dist")),
            "RABBITMQ_MNESIA_BASE": self.file("mnesia"), "RABBITMQ_LOG_BASE": self.file("log"), "RABBITMQ_LOGS": self.log,
            "RABBITMQ_CONFIG_FILE": self.file("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE": self.file("advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": self.file("env.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE": self.file("enabled_plugins"),
            "RABBITMQ_SCHEMA_DIR": self.file("schema"), "RABBITMQ_GENERATED_CONFIG_DIR": self.file("generated"),
            "RABBITMQ_PID_FILE": self.file("pid"),
        }

    def prepare(self):
        for d in ("home", "mnesia", "log", "schema", "generated"):
            os.makedirs(self.file(d), mode=0o700, exist_ok=True)
        cookie = self.file("home", ".erlang.cookie")
        if not os.path.exists(cookie):
            with open(os.open(cookie, os.O_WRONLY | os.O_CREAT, 0o400), "w") as f:
                f.write(self.state.secret("erlang-cookie"))
        cert, key = self.state.pki.server("rabbitmq")
        write(self.file("enabled_plugins"), "[].\n")
        write(self.file("env.conf"), "")
        write(self.file("definitions.json"), json.dumps(self.definitions(), indent=1))
        write(self.file("rabbitmq.conf"), CONF.format(port=self.port, tls_port=self.state.port("rabbitmq.amqps"), ca=self.state.pki.ca,
                                                      cert=cert, key=key, definitions=self.file("definitions.json")))

    def definitions(self):
        salt = bytes.fromhex(self.state.secret("rabbitmq-salt")[:8])
        digest = hashlib.sha256(salt + self.state.secret("rabbitmq").encode()).digest()
        return {
            "users": [{"name": "harpoon", "password_hash": base64.b64encode(salt + digest).decode(),
                       "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": ["administrator"]}],
            "vhosts": [{"name": "harpoon"}],
            "permissions": [{"user": "harpoon", "vhost": "harpoon", "configure": ".*", "write": ".*", "read": ".*"}],
        }

    def begin(self):
        """Starts epmd and the node. wait_ready must follow, in the same program."""
        if not os.path.exists(SERVER):
            raise Failure("RabbitMQ is not installed: run deploy/install-deps")
        self.prepare()
        if not procs.alive(self.state.process("epmd")):
            self.state.record("epmd", procs.spawn(
                [shutil.which("epmd") or "epmd", "-port", str(self.state.port("rabbitmq.epmd")), "-address", "127.0.0.1"],
                self.state.path("log", "epmd.log"), env=self.environment()))
        path = self.file("notify")
        if os.path.exists(path):
            os.unlink(path)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(path)
        self.notify.setblocking(False)
        self.state.record("rabbitmq", procs.spawn([SERVER], self.out, env={**self.environment(), "NOTIFY_SOCKET": path}))

    def wait_ready(self):
        """Returns when the node's listeners are open."""
        procs.wait_for("RabbitMQ", self.state.process("rabbitmq"), self.out, lambda: ready(self.notify), START_SECONDS)
        self.notify.close()

    def stop(self, seconds=20):
        """Ends the node in order, then epmd."""
        procs.stop([r for r in [self.state.process("rabbitmq")] if r], seconds)
        procs.stop([r for r in [self.state.process("epmd")] if r], 2)

    def ctl(self, args):
        os.execve(CTL, [CTL, "-n", self.node, *args], {**os.environ, **self.environment()})


def ready(notify):
    try:
        return bool(re.search(rb"^READY=1", notify.recv(4096), re.M))
    except BlockingIOError:
        return False


def write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)
