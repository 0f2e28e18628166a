"""kill -9 of the agent, again and again, in the middle of creates, resizes and deletes of real containers. The kernel and the file system say what became of
them: no process changes that ran, no container starts twice, and at the end nothing is left: no process, cgroup, mount, namespace, address, directory.

Kills come at random moments, and at named ones: an intent said to be durable; a file, directory or cgroup made, written or removed by the agent or a program that
it runs. Names are learned on the way, and each is as likely as any other. Every second time the programs that the dead agent had under way (conmon, the OCI
runtime, network plugins) are stopped until the next agent is at work, as on a host under load. HARPOON_KILLS and HARPOON_SEED choose another number and run."""
import collections
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
import unittest

from agent_host import MIB, AgentHost, FileEvents
from harpoon.internal.v1 import agent_pb2
import machine

KILLS = int(os.environ.get("HARPOON_KILLS") or 200)
SEED = int(os.environ.get("HARPOON_SEED") or 1)
KEEPERS, TRANSIENTS = 4, 6
# Just before steps that must not be taken twice, or left half taken.
NARROW = [("intent durable", "create"), ("intent durable", "resize"), ("intent durable", "delete"), ("+/run/c/UID/conmon.pid", "create"),
          ("+/run/c/UID/run.TMP", "create"), ("+/run/c/UID/run", "create"), ("+/state/containers/UID/exit", "create"), ("+/state/containers/UID/network.TMP", "create"),
          ("-/run/netns/UID", "delete"), ("-/state/containers/UID/meta", "delete")]
UID = re.compile(r"\b(d-)?(u\d+|keep\d)\b")
STARTED = ["sh", "-c", "echo started >> /d/starts; exec sleep 100000"]


def signal_if_there(pid, signum):
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


class Container:
    """What was asked for, and what was said to have been done."""

    def __init__(self, uid, network):
        self.uid, self.network = uid, network
        self.generation, self.memory = 0, 0
        self.process = None  # (pid, start time) once its create was told done
        self.pending = None  # the command without a result
        self.removing = False


class AgentKillTest(unittest.TestCase):
    def setUp(self):
        self.host = AgentHost()
        self.addCleanup(self.host.close)
        self.random = random.Random(SEED)
        self.events = FileEvents()
        self.addCleanup(self.events.close)
        self.host.on_turn = self.events
        self.containers, self.next = {}, 0
        self.kills, self.froze, self.moments, self.cut = 0, 0, collections.Counter(), collections.Counter()
        self.names, self.told = {}, 0
        self.restart_seconds = []

    # --- commands ---

    def volume(self, c):
        return [{"volume": "d-" + c.uid, "path": "/d"}]

    def ensure(self, c):
        return self.host.ensure(c.uid, c.generation, c.memory, c.network, command=STARTED, volumes=self.volume(c))

    def create(self, network=None):
        c = Container(f"u{self.next}", network or self.random.choice(["bridge", "none"]))
        self.next += 1
        c.generation, c.memory = 1, self.random.randint(4, 16) * MIB
        self.containers[c.uid] = c
        c.pending = self.ensure(c)
        return "create"

    def resize(self, c):
        c.generation += 1
        c.memory = self.random.randint(4, 16) * MIB
        c.pending = self.ensure(c)
        return "resize"

    def remove(self, c):
        c.generation += 1
        c.removing = True
        c.pending = self.host.remove(c.uid, c.generation)
        return "delete"

    def settled(self):
        return [c for c in self.containers.values() if not c.pending]

    def begin(self, wanted=None):
        """Sends one to three new commands, one a container; one of the kind `wanted`, when that can be."""
        kinds = []
        for i in range(self.random.randint(1, 3)):
            resting = self.settled()
            transients = self.transients()
            kind = self.random.choice(["create", "create", "resize", "delete"])
            if i == 0 and wanted:
                kind = wanted
            if kind == "create" and len(transients) < TRANSIENTS:
                kinds.append(self.create("bridge" if i == 0 else None))
            elif kind == "resize" and resting:
                kinds.append(self.resize(self.random.choice(resting)))
            elif [c for c in transients if not c.pending]:
                kinds.append(self.remove(self.random.choice([c for c in transients if not c.pending])))
        self.send_pending()
        return kinds

    def send_pending(self):
        for c in self.containers.values():
            if c.pending:
                self.host.send(c.pending)

    # --- kills ---

    def happened(self):
        """Names of what happened since the last call; new ones are learned, with the kind of command that they belong to."""
        names = ["intent durable"] * (len(self.host.router.journalled) - self.told)
        self.told = len(self.host.router.journalled)
        for verb, path in self.events.read():
            uid = UID.search(path)
            c = self.containers.get(uid.group(2)) if uid else None
            if c and c.pending:
                names.append(verb + re.sub(r"\.tmp\d+|\.\w{6}$|#\w+$|[0-9a-f]{16,}", ".TMP", UID.sub("UID", path.removeprefix(self.host.directory))))
                self.names.setdefault(names[-1], self.kind(c))
        return names

    def transients(self):
        return [c for c in self.containers.values() if not c.uid.startswith("keep")]

    def possible(self):
        """Kinds of commands that can be begun now."""
        return ["resize"] + ["create"] * 2 * (len(self.transients()) < TRANSIENTS) + ["delete"] * any(not c.pending for c in self.transients())

    def choose(self, kinds):
        """(name, kind of command): the next moment to kill at."""
        how = self.random.random()
        if how < 0.2 or not kinds:
            return "a random moment", None
        kind = self.random.choice(kinds)
        names = [n for n, k in (NARROW if how < 0.6 else sorted(self.names.items())) if k == kind]
        return self.random.choice(names or ["intent durable"]), kind

    def wait_for(self, name):
        """Until that has happened; gives the name of the moment that it was."""
        end = time.monotonic() + (self.random.random() * 0.12 if name == "a random moment" else 0.2)
        while time.monotonic() < end:
            self.host.pump(end - time.monotonic())
            if name in self.happened():
                return name
        return name if name == "a random moment" else "nothing more happened"

    @staticmethod
    def kind(c):
        return "delete" if c.removing else "resize" if c.process else "create"

    def freeze(self):
        """Stops what works on containers with a command under way."""
        pending = [c.uid for c in self.containers.values() if c.pending]
        frozen = [pid for pid, line in self.host.processes().items() if any(re.search(rf"\b{u}\b", line) for u in pending)]
        for pid in frozen:
            signal_if_there(pid, signal.SIGSTOP)
        return frozen

    def kill(self, name):
        moment = self.wait_for(name)
        self.host.kill()
        frozen = self.freeze() if self.random.random() < 0.5 else []
        self.kills += 1
        self.froze += bool(frozen)
        self.moments[moment] += 1
        for c in self.containers.values():
            if c.pending and not self.host.result(c.pending):
                self.cut[self.kind(c)] += 1
        self.check_running()
        began = time.monotonic()
        self.host.start()
        self.restart_seconds.append(time.monotonic() - began)
        self.send_pending()
        if frozen:
            end = time.monotonic() + self.random.random() * 0.1
            while time.monotonic() < end:
                self.host.pump(end - time.monotonic())
            for pid in frozen:
                signal_if_there(pid, signal.SIGCONT)

    # --- checks ---

    def check_running(self):
        """Also while the agent is away: what was told to run is the same process."""
        for c in self.containers.values():
            if c.process and not c.removing:
                self.assertEqual(machine.identity(c.process[0]), c.process, f"{c.uid}: another process, or none\n{self.host.log_end()}")

    def starts(self, c):
        try:
            with open(os.path.join(self.host.state, "volumes/p", "d-" + c.uid, "starts")) as f:
                return len(f.readlines())
        except FileNotFoundError:
            return 0

    def settle(self):
        """Waits for all results, and looks at everything."""
        self.host.until(lambda: all(not c.pending or self.host.result(c.pending) for c in self.containers.values()), 30,
                        lambda: "results of " + ", ".join(c.pending.operation_id for c in self.containers.values() if c.pending and not self.host.result(c.pending)))
        for c in [*self.containers.values()]:
            if not c.pending:
                continue
            r = self.host.result(c.pending)
            self.assertEqual(r.outcome, 1, f"{c.pending.operation_id}: {r.error.message}\n{self.host.log_end()}")
            c.pending = None
            if c.removing:
                if c.process:
                    self.assertNotEqual(machine.identity(c.process[0]), c.process, f"{c.uid} was deleted and runs")
                del self.containers[c.uid]
                continue
            told = (r.status.pid, r.status.pid_start_ticks)
            if c.process:
                self.assertEqual(told, c.process, f"{c.uid}: a resize told of another process")
            c.process = told
            self.assertEqual(machine.memory_limit(told[0]), c.memory, c.uid)
        self.check_running()
        self.assertEqual(self.host.router.repeated, [])
        self.host.until(lambda: all(self.starts(c) for c in self.containers.values()), 10, "the containers' own words")
        for c in self.containers.values():
            self.assertEqual(self.starts(c), 1, f"{c.uid} was started more than once")
        self.check_host()

    def check_host(self):
        """Exactly what the live containers need is there; a plugin that a dead agent had begun may take a moment to its end."""
        self.host.until(lambda: all("conmon" in line.split()[0] for line in self.host.processes().values()), 10, "what dead agents had begun to end")
        uids = sorted(self.containers)
        bridged = sorted(c.uid for c in self.containers.values() if c.network == "bridge")
        self.assertEqual(sorted({os.path.basename(p) for p in self.host.cgroups()}), uids)
        self.assertEqual(self.host.listing(os.path.join(self.host.state, "containers")), uids)
        self.assertEqual(self.host.listing(os.path.join(self.host.run, "c")), uids)
        self.assertEqual(self.host.listing(os.path.join(self.host.run, "oci")), uids)
        self.assertEqual(self.host.listing(os.path.join(self.host.run, "netns")), bridged)
        self.assertEqual(self.host.listing(os.path.join(self.host.state, "volumes/p")), ["d-" + u for u in uids])
        self.assertEqual(len(self.addresses()), len(bridged), self.addresses())
        self.assertEqual(len(self.host.links()), len(bridged), self.host.links())
        conmons = [line for line in self.host.processes().values() if "conmon" in line.split()[0]]
        self.assertEqual(sorted(line.split("-c ", 1)[1].split()[0] for line in conmons), uids)

    def addresses(self):
        at = os.path.join(self.host.state, "cni", "harpoon-" + self.host.name)
        return [a for a in self.host.listing(at) if re.fullmatch(r"[0-9.]+", a)]

    def check_nothing_left(self):
        self.assertEqual(self.host.processes(), {})
        self.assertEqual(self.host.cgroups(), [])
        self.assertEqual(self.host.mounts(), [])
        self.assertEqual(self.host.links(), [])
        self.assertEqual(self.addresses(), [])
        for path in ("state/containers", "state/volumes/p", "run/c", "run/oci", "run/netns"):
            self.assertEqual(self.host.listing(os.path.join(self.host.directory, path)), [], path)
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
        self.assertNotIn(self.host.name, rules)
        with sqlite3.connect(os.path.join(self.host.state, "journal.db")) as journal:
            self.assertEqual(journal.execute("SELECT count(*) FROM containers").fetchone(), (0,))
            self.assertEqual(journal.execute("SELECT count(*) FROM reports").fetchone(), (0,))

    # --- the test ---

    def test_kills_in_the_middle_of_everything(self):
        began = time.monotonic()
        self.host.start()
        print(f"seed {SEED}", flush=True)
        for path in ("state", "run", "state/containers", "run/c", "run/netns"):
            self.events.watch(os.path.join(self.host.directory, path))
        for i in range(KEEPERS):
            c = Container(f"keep{i}", ["bridge", "none"][i % 2])
            c.generation, c.memory = 1, 8 * MIB
            c.pending = self.ensure(c)
            self.containers[c.uid] = c
        self.send_pending()
        self.settle()
        for cgroup in self.host.cgroups():
            self.events.watch(os.path.dirname(cgroup))
        commands = collections.Counter()
        while self.kills < KILLS:
            name, kind = self.choose(self.possible())
            commands.update(self.begin(kind))
            self.kill(name)
            while self.kills < KILLS and self.random.random() < 0.3:
                pending = [self.kind(c) for c in self.containers.values() if c.pending and not self.host.result(c.pending)]
                self.kill(self.choose(pending)[0])  # while it recovers
            self.settle()
        for c in self.containers.values():
            self.remove(c)
        self.send_pending()
        self.settle()
        self.assertEqual(self.host.router.observations, [], "no container ended by itself")
        self.host.router.send(inventory_request=agent_pb2.InventoryRequest(request_id=1))  # its answer comes after the last confirmation was taken in
        self.host.until(lambda: self.host.router.inventories, 10, "the inventory")
        self.assertEqual([i.uid for v in self.host.router.inventories for i in v.items if not i.tombstone], [])
        self.host.kill(signal.SIGTERM)
        self.check_nothing_left()
        restarts = sorted(self.restart_seconds)
        print(f"{self.kills} kills in {time.monotonic() - began:.0f} s, {dict(commands)} commands, cut off: {dict(self.cut)}, "
              f"{len(self.moments)} different moments, {self.froze} times with programs stopped over the restart; "
              f"a restart until attached: median {restarts[len(restarts) // 2] * 1000:.0f} ms, longest {restarts[-1] * 1000:.0f} ms")
        for moment, count in self.moments.most_common():
            print(f"  {count:4} {moment}")
        for kind in ("create", "resize", "delete"):
            self.assertGreater(self.cut[kind], KILLS // 40, f"too few kills in the middle of a {kind} to mean anything")


if __name__ == "__main__":
    unittest.main()
