"""The agent dies just before a call that changes the machine, in the middle of a create, a resize or a removal of a real container, and perhaps once more while it recovers. Afterwards the
work is done as if nothing had happened: a process that runs, begun once, with its limits; or nothing, and nothing left over.

chaos_agent_kill_test.py kills at random moments while much is under way; here each call is a moment, so that a window of microseconds is met as surely as any other.

    tests/run chaos -k death_points                       the share of every run
    tests/e2e/chaos_death_points_test.py --all [I/N]      every call, and every pair of calls around the start of the process; of them the Ith, the I+Nth, …
"""
import os
import random
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from agent_host import MIB, AgentHost  # noqa: E402
from deaths import Control  # noqa: E402
import machine  # noqa: E402

SEED = int(os.environ.get("HARPOON_SEED") or 1)
SHARE = {"create": 12, "resize": 4, "delete": 6, "start": 12}  # points in every run
STARTED = ["sh", "-c", "echo started >> /d/starts; exec sleep 100000"]
PART = None  # (I, N) of every point


class DeathPointsTest(unittest.TestCase):
    def setUp(self):
        self.host = AgentHost()
        self.addCleanup(self.host.close)
        self.control = Control(os.path.join(self.host.directory, "deaths"))
        self.host.environment = self.control.environment
        self.random = random.Random(SEED)
        self.number, self.deaths = 0, 0
        self.host.start()
        self.settle(self.ensure("warm", 1))  # the image is here now
        self.settle(self.host.remove("warm", 2))

    def ensure(self, uid, generation, memory=8 * MIB, network="none"):
        return self.host.ensure(uid, generation, memory, network, command=STARTED, volumes=[{"volume": "d-" + uid, "path": "/d"}])

    def alive(self):
        return self.host.process and self.host.process.poll() is None

    def start(self, at=0):
        """True when the agent attached; else it has died before the `at`th call."""
        hellos = self.host.router.hellos
        self.control.arm(at)
        self.host.start(wait=False)
        end = time.monotonic() + 20
        while self.alive() and self.host.router.hellos == hellos:
            self.assertLess(time.monotonic(), end, "the agent does not attach\n" + self.host.log_end())
            self.host.pump(0.05)
        return self.host.router.hellos > hellos

    def settle(self, command, first=0, second=0, match=""):
        """(result, what was called last), after deaths before the `first` call from now (of those that match), and the `second` of the next life. The agent may also die when its answer has left already."""
        self.control.arm(first, match)
        self.host.send(command)
        lives, died = [second], 0
        end = time.monotonic() + 30
        while not self.host.result(command):
            self.assertLess(time.monotonic(), end, "no result\n" + self.host.log_end())
            if self.alive():
                self.host.pump(0.05)
                continue
            self.assertEqual(self.host.process.returncode, -signal.SIGKILL, self.host.log_end())
            self.deaths += 1
            if self.start(lives.pop() if lives else 0):
                self.host.send(command)
        trace = self.control.trace()
        self.control.arm(0)
        r = self.host.result(command)
        self.assertEqual(r.outcome, 1, f"{r.error.message}\n{self.host.log_end()}")
        return r, trace

    def starts(self, uid):
        with open(os.path.join(self.host.state, "volumes/p", "d-" + uid, "starts")) as f:
            return len(f.readlines())

    def check_runs(self, uid, result, memory):
        pid = result.status.pid
        self.assertGreater(pid, 0, f"{uid}: a success without a process\n{self.host.log_end()}")
        self.assertEqual(machine.identity(pid), (pid, result.status.pid_start_ticks), uid)
        self.assertEqual(machine.memory_limit(pid), memory, uid)
        path = os.path.join(self.host.state, "volumes/p", "d-" + uid, "starts")
        self.host.until(lambda: os.path.exists(path) and self.starts(uid), 10, f"{uid}'s own word")
        self.assertEqual(self.starts(uid), 1, f"{uid} was started more than once")

    def check_nothing_left(self):
        self.host.until(lambda: not self.host.processes(), 10, lambda: f"the end of {self.host.processes()}")
        self.assertEqual(self.host.cgroups(), [])
        self.assertEqual(self.host.links(), [])
        for path in ("state/containers", "state/volumes/p", "run/c", "run/oci", "run/netns"):
            self.assertEqual(self.host.listing(os.path.join(self.host.directory, path)), [], path)
        at = os.path.join(self.host.state, "cni", "harpoon-" + self.host.name)
        self.assertEqual([a for a in self.host.listing(at) if a[0].isdigit()], [])
        self.assertEqual(self.host.router.repeated, [])

    def life(self, network, kind="", first=0, second=0, match=""):
        """A container from its create to its removal, with deaths in one of these; gives what was called in each."""
        self.number += 1
        uid, traces = f"u{self.number}", {}
        try:
            for generation, (name, memory) in enumerate([("create", 8 * MIB), ("resize", 12 * MIB), ("delete", 0)], 1):
                command = self.ensure(uid, generation, memory, network) if memory else self.host.remove(uid, generation)
                r, traces[name] = self.settle(command, *((first, second, match) if name == kind else ()))
                if memory:
                    self.check_runs(uid, r, memory)
            self.check_nothing_left()
        except AssertionError as e:
            raise AssertionError(f"{network} {kind}, dead before call {first} {match}, then {second} (0: not): {e}") from e
        return traces

    def points(self, count, share):
        """Numbers of calls, from 1."""
        if PART:
            return range(PART[0], count + 1, PART[1])
        return sorted(self.random.sample(range(1, count + 1), min(share, count)))

    def test_dies_before_a_call(self):
        for network in ("none", "bridge"):
            for kind, calls in self.life(network).items():
                points = self.points(len(calls), SHARE[kind])
                print(f"{network} {kind}: {len(points)} of {len(calls)} calls", flush=True)
                for first in points:
                    self.life(network, kind, first, 0 if PART else self.random.choice([0, self.random.randint(1, 150)]))
        self.assertGreater(self.deaths, 20, "hardly a death")

    def test_dies_again_between_record_and_start(self):
        """A process is there that waits to be started when the agent dies; so does the next agent, before each call with which it clears that away."""
        recovery = self.life("none", "create", 1, match="exec.fifo")["create"]
        kill = next(i for i, call in enumerate(recovery, 1) if call.startswith("pidfd_send_signal"))
        points = self.points(len(recovery), SHARE["start"])
        print(f"{len(points)} of {len(recovery)} calls, and those around the kill, {kill}", flush=True)
        for second in sorted({*points, *range(kill - 2, kill + 4)}):
            self.life("none", "create", 1, second, match="exec.fifo")
        self.assertGreater(self.deaths, 20, "hardly a death")


if __name__ == "__main__":
    if "--all" in sys.argv:
        at = sys.argv.index("--all")
        PART = tuple(int(n) for n in sys.argv[at + 1].split("/")) if len(sys.argv) > at + 1 else (1, 1)
        del sys.argv[at:]
    unittest.main()
