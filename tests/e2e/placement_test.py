"""What goes where, through the whole system: spread over zones, gangs, roles, and what the CLI explains. The agents' cores and links are the real ones, many in one
process (harpoon-fleet-sim), with simulated containers."""
import json
import os
import subprocess
import tempfile
import uuid

from api import container_pb2, operation_pb2
from harness import StackTest, image
from paths import BUILD
from harpoon.v1 import container_service_pb2


def placement(**fields):
    return container_pb2.PlacementSpec(**fields)


def max_skew(topology, skew):
    return container_pb2.SpreadConstraint(topology=topology, max_skew=skew)


class PlacementTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 6}  # two in each of three zones

    @classmethod
    def prepare(cls):
        cls.stack.configure("sched-1", placement={"weights": "calm:load=0"})

    def make(self, name, spec):
        operation = self.client.create(name, image(), placement=spec)
        self.assertEqual(self.client.succeeded(operation).stage, operation_pb2.STAGE_SUCCEEDED)
        return self.client.get(name).status.host

    def test_a_group_is_spread_over_zones_and_the_cli_says_why(self):
        group = "g-" + uuid.uuid4().hex[:8]
        # Of a class that does not go by measured load: that of a simulated host may be another one from one look to the next.
        spec = placement(workload_class="calm", spread_group=group, spread_constraints=[max_skew(container_pb2.TOPOLOGY_ZONE, 1)])
        hosts = [self.make(f"{group}-{i}", spec) for i in range(4)]
        zones = [int(host.rsplit("-", 1)[1]) % 3 for host in hosts]  # zones are dealt in turn
        self.assertEqual(len(set(zones[:3])), 3, f"three of a group are in three zones: {hosts}")
        self.assertEqual(len(set(hosts)), 4)
        body = {"spec": {"image": image(), "resources": {"cpuMillis": 20, "memoryBytes": str(16 << 20)},
                         "placement": {"workloadClass": "calm", "spreadGroup": group, "role": "CONTAINER_ROLE_PRIMARY",
                                       "spreadConstraints": [{"topology": "TOPOLOGY_ZONE", "maxSkew": 1}]}}}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump(body, f)
            f.flush()
            said = self.stack.cli("explain", "-f", f.name, "-o", "wide").stdout
            answer = json.loads(self.stack.cli("explain", "-f", f.name, "-o", "json").stdout)
        self.assertIn("4 of 6 hosts fit", said)
        self.assertIn("2 removed by spread_zone", said)
        self.assertIn(f'its zone has 2 of spread group "{group}", another has 1: max_skew is 1', said)
        self.assertRegex(said, r"PARTS")
        best = answer["hosts"][0]
        self.assertEqual(set(best["parts"]), {"cpu", "memory", "disk", "balance", "load", "failures", "spread", "primaries", "image"})
        chosen = self.make(f"{group}-4", placement(workload_class="calm", spread_group=group, role=container_pb2.CONTAINER_ROLE_PRIMARY, spread_constraints=spec.spread_constraints))
        self.assertEqual(chosen, best["host"], "what is explained is what happens")

    def test_a_gang_waits_until_it_is_whole(self):
        gang = "gang-" + uuid.uuid4().hex[:8]
        spec = placement(gang=container_pb2.Gang(name=gang, size=3), spread_group=gang, spread_constraints=[max_skew(container_pb2.TOPOLOGY_HOST, 1)])
        operations = [self.client.create(f"{gang}-{i}", image(), placement=spec) for i in range(2)]
        for i, operation in enumerate(operations):
            self.assertEqual(operation.stage, operation_pb2.STAGE_RECORDED)
            self.assertIn("gang", self.client.get(f"{gang}-{i}").status.message)
        operations.append(self.client.create(f"{gang}-2", image(), placement=spec))
        for operation in operations:
            self.client.succeeded(operation)
        self.assertEqual(len({self.client.get(f"{gang}-{i}").status.host for i in range(3)}), 3)

    def test_a_role_changes_in_place(self):
        name = "c-" + uuid.uuid4().hex[:8]
        self.make(name, placement(role=container_pb2.CONTAINER_ROLE_REPLICA))
        before = self.client.get(name)
        changed = container_pb2.Container()
        changed.CopyFrom(before)
        changed.spec.placement.role = container_pb2.CONTAINER_ROLE_PRIMARY
        request = container_service_pb2.UpdateContainerRequest(container=container_pb2.Container(name=before.name, spec=changed.spec))
        self.client.succeeded(self.client.call(self.client.containers.UpdateContainer, request))
        after = self.client.get(name)
        self.assertEqual(after.spec.placement.role, container_pb2.CONTAINER_ROLE_PRIMARY)
        self.assertEqual((after.status.pid, after.status.pid_start_ticks), (before.status.pid, before.status.pid_start_ticks))

    def test_what_was_recorded_can_be_run_again(self):
        name = "c-" + uuid.uuid4().hex[:8]
        for i in range(6):
            self.make(f"{name}-{i}", placement())
        recording = self.stack.cli("events", "--after", "0", "-n", "100000", "-o", "jsonl").stdout
        names = {e["containerData"]["name"] for e in map(json.loads, recording.splitlines()) if "containerData" in e}
        done = subprocess.run([os.path.join(BUILD, "harpoon-scheduler"), "replay", "-", "--weights", ":pack", "--json"], input=recording, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        first, pack = json.loads(done.stdout)["runs"]
        self.assertEqual((first["creates"], first["refused"], first["hosts"], first["differ"]), (len(names), 0, 6, 0), first)
        self.assertGreater(pack["imbalance"], first["imbalance"])
        self.assertGreater(pack["differ"], 0)


if __name__ == "__main__":
    import unittest
    unittest.main()
