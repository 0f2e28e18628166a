"""What end-to-end tests share: stacks that are started for them, conditions that are waited for, and a test case base."""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest
import urllib.request

import api  # makes the generated modules visible to whoever imports this one
from paths import CLI, STACK, TOP

# Where private stacks of tests live: short, because of unix sockets below it.
ROOT = os.environ.get("HARPOON_TEST_ROOT") or "/var/tmp"


def eventually(condition, seconds, what, interval=0.05):
    """Waits until condition() gives something true, and gives that; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(interval)


class Stack:
    """A private stack below a new directory. Counts are those of `stack up`; True for its switches."""

    def __init__(self, **shape):
        self.shape = shape
        self.directory = tempfile.mkdtemp(prefix="hp-", dir=ROOT)
        self.env = {}
        self.clients = []

    def command(self, *args, check=True, timeout=180):
        done = subprocess.run([STACK, "--state", self.directory, *args], capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"stack {' '.join(args)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def up(self, *options):
        counts = [x for k, v in self.shape.items() for x in ("--" + k.replace("_", "-"), *([] if v is True else [str(v)]))]
        self.command("up", *counts, *options)
        for line in self.command("env").splitlines():
            name, value = line.removeprefix("export ").split("=", 1)
            self.env[name] = value.strip("'")
        return self

    def down(self):
        for c in self.clients:
            c.close()
        self.command("down", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def status(self):
        return {p["name"]: p for p in json.loads(self.command("status", "--json", check=False))["processes"]}

    def identifier(self):
        """The stack's short id: part of the names of its cgroups and bridges."""
        with open(os.path.join(self.directory, "stack.json")) as f:
            return json.load(f)["id"]

    def pids(self):
        """{name: (pid, start time)} of Harpoon's own daemons."""
        return {n: (p["pid"], p["start_ticks"]) for n, p in self.status().items() if p["role"] not in ("epmd", "rabbitmq", "mariadb")}

    def configure(self, name, **sections):
        """Further settings of a daemon, for its next start: {section: {key: value}}."""
        directory = os.path.join(self.directory, "conf", name + ".ini.d")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "test.conf"), "w") as f:
            for section, keys in sections.items():
                f.write(f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))

    def kill(self, name, signal="KILL"):
        self.command("kill", name, signal)

    def restart(self):
        """Starts again what is down, and waits until all is ready."""
        self.command("up")

    def log(self, name, lines=60):
        try:
            with open(os.path.join(self.directory, "log", name + ".log"), errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except FileNotFoundError:
            return ""

    def logs(self, lines=40):
        """The end of every daemon's log, for a failure's report."""
        directory = os.path.join(self.directory, "log")
        names = sorted(n[:-4] for n in os.listdir(directory) if n.endswith(".log")) if os.path.isdir(directory) else []
        return "\n".join(f"--- {n}\n{self.log(n, lines)}" for n in names if not n.startswith(("epmd", "rabbitmq", "mariadb")))

    def client(self, gateway=0, token="admin", **kwargs):
        secret = {"admin": "HARPOON_TOKEN", "demo": "HARPOON_TOKEN_DEMO", "viewer": "HARPOON_TOKEN_VIEWER", "other": "HARPOON_TOKEN_OTHER"}
        c = api.Client(self.env["HARPOON_ENDPOINTS"].split()[gateway], self.env["HARPOON_CA"], self.env[secret[token]] if token else "", **kwargs)
        self.clients.append(c)
        return c

    def cli(self, *args, check=True, timeout=90, **env):
        """Runs the harpoon command; gives subprocess.CompletedProcess."""
        done = subprocess.run([CLI, *args], env={**os.environ, **self.env, **env}, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"harpoon {' '.join(args)} exited with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def metric(self, name, metric):
        """One figure of a daemon, by its full name as the endpoint prints it."""
        with urllib.request.urlopen("http://" + self.status()[name]["ports"]["metrics"] + "/metrics", timeout=10) as r:
            return next(float(line.rsplit(" ", 1)[1]) for line in r.read().decode().splitlines() if line.rsplit(" ", 1)[0] == metric)

    def sql(self, statement):
        """Rows of a statement, each a list of strings, over a connection of its own."""
        out = subprocess.run(["mariadb", "--no-defaults", "-uroot", f"-S{self.env['HARPOON_MYSQL_SOCKET']}", "-NBe", statement,
                              self.env["HARPOON_MYSQL_DATABASE"]], capture_output=True, text=True, check=True).stdout
        return [line.split("\t") for line in out.splitlines()]

    def rabbitmqctl(self, *args):
        done = subprocess.run([STACK, "--state", self.directory, "rabbitmqctl", *args], capture_output=True, text=True, timeout=90, check=True)
        return done.stdout

    def hosts_ready(self, client, count, seconds=60):
        """Waits until `count` hosts of the client's region are READY."""
        def enough():
            try:
                return sum(h.state == api.host_pb2.HOST_STATE_READY for h in client.list_hosts()) >= count
            except api.grpc.RpcError:
                return False
        eventually(enough, seconds, f"{count} hosts to be READY", interval=0.1)


_image = []


def image(tag="latest"):
    """The test image as a reference for a spec; built once."""
    if not _image:
        directory = os.path.join(ROOT, "harpoon-test-image")
        subprocess.run([os.path.join(TOP, "deploy/images/build-busybox"), directory], check=True, capture_output=True)
        _image.append(directory)
    return f"oci:{_image[0]}:{tag}"


class StackTest(unittest.TestCase):
    """Tests that share one stack of the class's `shape`. A failing test shows the daemons' logs."""

    shape = {"hosts": 1}
    switches = []  # of `stack up`
    stack = None

    @classmethod
    def prepare(cls):
        """What is to be there before the stack starts."""

    @classmethod
    def setUpClass(cls):
        cls.stack = Stack(**cls.shape)
        cls.addClassCleanup(cls.stack.down)
        cls.prepare()
        try:
            cls.stack.up(*cls.switches)
            cls.client = cls.stack.client()
            hosts = cls.stack.shape.get("hosts", 1) + cls.stack.shape.get("sim_hosts", 0)
            if hosts:
                cls.stack.hosts_ready(cls.client, hosts)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{cls.stack.logs()}") from None

    def run(self, result=None):
        before = len(result.errors) + len(result.failures)
        super().run(result)
        for kind in (result.failures, result.errors):
            if kind and len(result.errors) + len(result.failures) > before and kind[-1][0] is self:
                kind[-1] = (self, kind[-1][1] + "\n" + self.stack.logs())

    def assert_code(self, error, code):
        self.assertEqual(error.code(), code, error.details())
