"""A full disk below the agent's state_dir (a tmpfs of its own): new containers are refused with a clear error before anything of them is begun, what runs runs on and
can still be changed and deleted, nothing is lost, and work goes on by itself when there is room."""
import os
import subprocess
import tempfile
import time
import unittest

from agent_host import DONE, MIB, AgentHost
from harness import ROOT
from harpoon.internal.v1 import agent_pb2
import machine

REFUSED = agent_pb2.COMMAND_OUTCOME_REFUSED
RESOURCE_EXHAUSTED = 8  # google.rpc.Code
SLEEP = ["sleep", "100000"]


class DiskFullTest(unittest.TestCase):
    def setUp(self):
        self.disk = tempfile.mkdtemp(prefix="hpd-", dir=ROOT)
        self.addCleanup(os.rmdir, self.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "harpoon-test", self.disk], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=True)
        self.host = AgentHost(state_dir=os.path.join(self.disk, "state"), disk_reserve="24M")
        self.addCleanup(self.host.close)
        self.ballast = os.path.join(self.disk, "ballast")

    def fill(self):
        """Takes every block that is left."""
        with open(self.ballast, "ab", buffering=0) as f:
            for size in (1 << 20, 4096, 1):
                try:
                    while f.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass
        self.assertEqual(os.statvfs(self.disk).f_bavail, 0)

    def empty(self):
        os.unlink(self.ballast)

    def answer(self, command, seconds=15):
        self.host.send(command)
        self.host.until(lambda: self.host.result(command), seconds, lambda: f"a result of {command.operation_id}")
        return self.host.result(command)

    def listing(self):
        state = self.host.state
        return {d: self.host.listing(os.path.join(state, d)) for d in ("containers", "volumes")}

    def test_refuses_new_work_and_recovers(self):
        self.host.start()
        told = self.host.done(*[self.host.ensure(f"old{i}", 1, command=SLEEP) for i in range(3)])
        before = [(r.status.pid, r.status.pid_start_ticks) for r in told]
        there = self.listing()
        self.fill()
        r = self.answer(self.host.ensure("new", 1, command=SLEEP))
        self.assertEqual((r.outcome, r.error.code), (REFUSED, RESOURCE_EXHAUSTED))
        self.assertIn(self.host.state, r.error.message)
        self.assertIn("25165824 bytes", r.error.message)
        self.assertIn("disk_reserve", r.error.message)
        self.assertEqual(self.listing(), there, "something of the refused container was begun")
        r = self.answer(self.host.ensure("old1", 2, command=["sleep", "5"]))
        self.assertEqual((r.outcome, r.error.code), (REFUSED, RESOURCE_EXHAUSTED), "a replacement needs room as well")
        # What needs no room goes on, also after a restart on the full disk.
        r = self.answer(self.host.ensure("old0", 2, memory=12 * MIB, command=SLEEP))
        self.assertEqual(r.outcome, DONE, r.error.message)
        self.assertEqual(machine.memory_limit(before[0][0]), 12 * MIB)
        self.host.kill()
        self.host.start()
        r = self.answer(self.host.ensure("new2", 1, command=SLEEP))
        self.assertEqual((r.outcome, r.error.code), (REFUSED, RESOURCE_EXHAUSTED))
        self.assertEqual([machine.identity(p) for p, _ in before], before)
        r = self.answer(self.host.remove("old2", 2))
        self.assertEqual(r.outcome, DONE, r.error.message)
        self.empty()
        self.assertEqual(self.host.router.results[("new", 1)].outcome, REFUSED)
        self.host.router.results.clear()
        r = self.answer(self.host.ensure("new2", 1, command=SLEEP))
        self.assertEqual(r.outcome, REFUSED, "a late repeat of what was refused: the container may be elsewhere by now")
        r = self.answer(self.host.ensure("new", 2, command=SLEEP))
        self.assertEqual(r.outcome, DONE, r.error.message)
        self.assertEqual([machine.identity(p) for p, _ in before[:2]], before[:2])
        self.host.done(*[self.host.remove(u, 9) for u in ("old0", "old1", "new")])
        self.assertEqual(self.host.listing(os.path.join(self.host.state, "containers")), [])

    def test_a_journal_without_a_byte_waits_and_loses_nothing(self):
        """Somebody else takes even what the agent had kept back: nothing is told until there is room, then everything is."""
        self.host.start()
        self.host.done(self.host.ensure("old", 1, command=SLEEP))
        process = self.host.process.pid
        self.fill()
        generation, held = 1, None
        end = time.monotonic() + 60
        while held is None:  # each resize takes room of the journal, until it has none
            self.assertLess(time.monotonic(), end, "the journal never runs out of room")
            self.fill()
            generation += 1
            c = self.host.ensure("old", generation, memory=(8 + generation % 4) * MIB, command=SLEEP)
            self.host.send(c)
            try:
                self.host.until(lambda: self.host.result(c), 2, "a result")
            except AssertionError:
                held = c
        self.assertEqual(self.host.process.pid, process)
        self.assertIsNone(self.host.process.poll(), "the agent ended")
        self.empty()
        self.host.until(lambda: self.host.result(held), 10, "the result that was held back")
        self.assertEqual(self.host.result(held).outcome, DONE)
        self.assertIn("there is room again", self.host.log_end(400))
        self.host.kill()
        self.host.start()
        self.host.done(self.host.remove("old", generation + 1))


if __name__ == "__main__":
    unittest.main()
