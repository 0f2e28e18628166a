"""Storage classes on a real agent: two directories with file systems of their own (small tmpfs mounts), volumes made in them, refused where there is no room, kept and removed as asked for."""
import os
import subprocess
import tempfile
import unittest

from agent_host import DONE, MIB, AgentHost
from harness import ROOT
from harpoon.internal.v1 import agent_pb2

REFUSED = agent_pb2.COMMAND_OUTCOME_REFUSED
RESOURCE_EXHAUSTED = 8  # google.rpc.Code
WRITE = ["sh", "-c", "echo $HOSTNAME > /fast/who; echo $HOSTNAME > /bulk/who; exec sleep 100000"]


class StorageTest(unittest.TestCase):
    def setUp(self):
        self.disks = {}
        for name, size in (("fast", 16), ("bulk", 48)):
            disk = self.disks[name] = tempfile.mkdtemp(prefix=f"hps-{name}-", dir=ROOT)
            self.addCleanup(os.rmdir, disk)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "harpoon-test", disk], check=True)
            self.addCleanup(subprocess.run, ["umount", "-l", disk], check=True)
        self.host = AgentHost()
        with open(self.host.config, "a") as f:
            f.write("[storage]\nclasses = fast={fast} bulk={bulk}:32M gone=/nowhere/at/all\n".format(**self.disks))
        self.addCleanup(self.host.close)

    def volumes(self, fast=4 * MIB, bulk=8 * MIB, keep=False, name="data"):
        return [{"volume": name, "path": "/fast", "storage_class": "fast", "size_bytes": fast},
                {"volume": name, "path": "/bulk", "storage_class": "bulk", "size_bytes": bulk, "keep": keep}]

    def answer(self, command):
        self.host.send(command)
        self.host.until(lambda: self.host.result(command), 15, lambda: f"a result of {command.operation_id}")
        return self.host.result(command)

    def text(self, disk, volume="data"):
        with open(os.path.join(self.disks[disk], "volumes", "p", volume, "who")) as f:
            return f.read()

    def listing(self, disk):
        return self.host.listing(os.path.join(self.disks[disk], "volumes", "p"))

    def test_volumes_are_where_their_class_is(self):
        self.host.start()
        told = {c.name: c.size_bytes for c in self.host.router.hello.facts.storage_classes}
        self.assertEqual(told, {"fast": 16 * MIB, "bulk": 32 * MIB}, "measured, or as the configuration says; what is not there is not told")
        self.host.done(self.host.ensure("a", 1, command=WRITE, volumes=self.volumes(keep=True)))
        self.host.until(lambda: self.listing("bulk") and os.path.exists(os.path.join(self.disks["bulk"], "volumes/p/data/who")), 10, "the volume's file")
        self.assertEqual(self.text("fast"), self.text("bulk"))
        self.assertEqual(self.host.listing(os.path.join(self.host.state, "volumes")), [], "not in the data directory")
        # What there is no room for is refused before it is begun; what there was room for goes on, also after a restart of the agent.
        r = self.answer(self.host.ensure("b", 1, command=WRITE, volumes=self.volumes(fast=17 * MIB, name="other")))
        self.assertEqual((r.outcome, r.error.code), (REFUSED, RESOURCE_EXHAUSTED))
        self.assertIn("storage class fast", r.error.message)
        self.assertIn(str(17 * MIB), r.error.message)
        r = self.answer(self.host.ensure("c", 1, command=WRITE, volumes=[{"volume": "v", "path": "/v", "storage_class": "gone", "size_bytes": MIB}]))
        self.assertEqual(r.outcome, REFUSED)
        self.assertIn("gone", r.error.message)
        self.assertEqual(self.listing("fast"), ["data"], "nothing of what was refused was begun")
        with open(os.path.join(self.disks["fast"], "ballast"), "wb") as f:
            f.write(b"x" * (14 * MIB))
        self.host.kill()
        self.host.start()
        r = self.answer(self.host.ensure("d", 1, command=WRITE, volumes=self.volumes(name="other")))
        self.assertEqual(r.outcome, REFUSED, "2 MiB are left, 4 were asked for")
        r = self.answer(self.host.ensure("e", 1, command=WRITE, volumes=self.volumes()))
        self.assertEqual(r.outcome, DONE, r.error.message + ": its volumes are there already")
        os.unlink(os.path.join(self.disks["fast"], "ballast"))
        # Shared by two of the project until the second goes; what is to be kept stays.
        self.host.done(self.host.remove("a", 2))
        self.assertEqual((self.listing("fast"), self.listing("bulk")), (["data"], ["data"]))
        self.host.done(self.host.ensure("f", 1, command=WRITE, volumes=self.volumes(keep=True, name="kept")))
        self.host.done(self.host.remove("e", 2), self.host.remove("f", 2))
        self.assertEqual((self.listing("fast"), self.listing("bulk")), ([], ["kept"]))


if __name__ == "__main__":
    unittest.main()
