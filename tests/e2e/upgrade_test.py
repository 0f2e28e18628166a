"""Old and new versions together: daemons are replaced one at a time by ones that speak as a later version would (tests/lib/later.c), in the order of the manual and, on the way back, in the
wrong one, with events in flight. Nothing is lost, nothing is an error, and no container is touched."""
import json
import os
import stat

from api import container_pb2
from harness import StackTest, eventually, image
from load import Load
from paths import BUILD
from watch_test import Reader
import machine

ORDER = ["sched-1", "sched-2", "r1-router-1", "r1-router-2", "gw-1", "r1-h1"]  # docs/OPERATIONS.md, "Changing versions"
PROGRAMS = ["harpoon-scheduler", "harpoon-event-router", "harpoon-broker-gw", "harpoon-host-agent", "harpoon-fleet-sim"]
EVENTS = 50


def later_build(directory, mode):
    """A directory of programs like build/, of a later version."""
    os.makedirs(directory)
    os.symlink(os.path.join(BUILD, "harpoon"), os.path.join(directory, "harpoon"))
    for name in PROGRAMS:
        path = os.path.join(directory, name)
        with open(path, "w") as f:
            f.write(f"#!/bin/sh\nHARPOON_LATER={mode} exec {BUILD}/tests/lib/later-{name} \"$@\"\n")
        os.chmod(path, stat.S_IRWXU)
    return directory


class UpgradeTest(StackTest):
    shape = {"hosts": 1, "sim_hosts": 4, "schedulers": 2, "routers": 2}

    def replace(self, name, build):
        """As an operator does it: ended in order, and the other version started."""
        self.stack.kill(name, "TERM")
        self.stack.command("up", "--build", build)

    def replace_amid_events(self, name, build, prefix):
        load = Load([self.client], EVENTS, prefix)
        load.start()
        eventually(lambda: load.progress() >= EVENTS // 5, 60, lambda: f"a fifth of the events (now {load.progress()})")
        self.replace(name, build)
        self.assertEqual(load.finish(), [], f"{name}: every operation ends SUCCEEDED")
        self.assertEqual(load.progress(), EVENTS)
        load.delete_all()

    def test_rolling_forward_and_back(self):
        self.client.succeeded(self.client.create("keep", image(), placement=container_pb2.PlacementSpec(host="h1")))
        keep = self.client.get("keep").status
        reader = Reader(self.client, after_sequence=0)
        later = later_build(os.path.join(self.stack.directory, "later"), "yes")
        for i, name in enumerate(ORDER):
            self.replace_amid_events(name, later, f"up-{i}")
        self.client.succeeded(self.client.resize("keep", memory_bytes=24 << 20))
        said = self.client.get("keep").status
        self.assertEqual(said.health, 77, "a value that is not known is passed on as it is")
        self.assertEqual(self.stack.cli("get", "containers").returncode, 0)
        self.assertIn("77", self.stack.cli("get", "containers", "-o", "json").stdout)
        for i, name in enumerate(reversed(ORDER)):
            self.replace_amid_events(name, BUILD, f"down-{i}")
        self.client.succeeded(self.client.resize("keep", memory_bytes=32 << 20))
        self.assertEqual(machine.identity(keep.pid), (keep.pid, keep.pid_start_ticks), "the container was not touched by any of it")
        self.assertEqual(machine.memory_limit(keep.pid), 32 << 20)
        self.events_are_whole(reader)
        self.assertEqual(json.loads(self.stack.cli("dead", "list", "-o", "json").stdout), {"messages": []}, "no message was without a taker")

    def events_are_whole(self, reader):
        every = self.client.list_events()
        sequences = [e.sequence for e in every]
        self.assertEqual(sequences, list(range(1, len(every) + 1)))
        self.assertTrue(any(e.type == "harpoon.host.attached_in_a_later_way" for e in every), "the later version was there")
        self.assertTrue(any(e.severity == 9 for e in every))
        self.assertIsNotNone(reader.error, "a watch ends with its gateway")
        self.assertEqual(reader.sequences(), list(range(1, len(reader.events) + 1)))

    def test_an_agent_of_no_common_version_is_refused_and_harms_nothing(self):
        name = "stays"
        self.client.succeeded(self.client.create(name, image(), placement=container_pb2.PlacementSpec(host="h1")))
        before = self.client.get(name).status
        self.replace("r1-h1", later_build(os.path.join(self.stack.directory, "too-late"), "only"))
        eventually(lambda: "this router speaks version 1, the agent 2 to 2" in self.stack.log("r1-h1"), 20, "the refusal")
        self.assertEqual(machine.identity(before.pid), (before.pid, before.pid_start_ticks))
        operation = self.client.resize(name, memory_bytes=40 << 20)
        self.replace("r1-h1", BUILD)
        self.client.succeeded(operation)
        self.assertEqual(machine.identity(before.pid), (before.pid, before.pid_start_ticks))


if __name__ == "__main__":
    import unittest
    unittest.main()
