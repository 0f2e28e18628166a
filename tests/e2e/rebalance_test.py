"""Places that are reserved, containers that are moved to where they are better off or have to make room for others, and hosts that have the image already, on real agents."""
import hashlib
import json
import os
import shutil
import tempfile

from api import container_pb2
from harness import StackTest, eventually, image
import machine


def another_image(directory):
    """The same image with another digest, as a layout in this directory."""
    shutil.copytree(image().split(":")[1], directory, dirs_exist_ok=True)
    index = os.path.join(directory, "index.json")
    with open(index) as f:
        said = json.load(f)
    entry = next(m for m in said["manifests"] if m["annotations"]["org.opencontainers.image.ref.name"] == "latest")
    blobs = os.path.join(directory, "blobs", "sha256")
    with open(os.path.join(blobs, entry["digest"].split(":")[1])) as f:
        manifest = json.dumps({**json.load(f), "annotations": {"is": "another"}}).encode()
    name = hashlib.sha256(manifest).hexdigest()
    with open(os.path.join(blobs, name), "wb") as f:
        f.write(manifest)
    entry.update(digest="sha256:" + name, size=len(manifest))
    with open(index, "w") as f:
        json.dump(said, f)
    return f"oci:{directory}:latest", entry["digest"]


class RebalanceTest(StackTest):
    shape = {"hosts": 2}

    @classmethod
    def prepare(cls):
        cls.stack.configure("sched-1", placement={"weights": "by-image:image=5000", "preemption": "on"})

    def test_what_matters_less_makes_room(self):
        most = max(h.allocatable.memory_bytes for h in self.client.list_hosts()) * 6 // 10  # of which a host takes one

        def make(name, **placement):
            return self.client.create(name, image(), memory_bytes=most, stateless=True, placement=container_pb2.PlacementSpec(**placement))

        for name, role in (("guest", container_pb2.CONTAINER_ROLE_REPLICA), ("first", container_pb2.CONTAINER_ROLE_PRIMARY)):
            self.client.succeeded(make(name, priority=-5, role=role))
        before = {name: self.client.get(name) for name in ("guest", "first")}
        self.assertNotEqual(before["guest"].status.host, before["first"].status.host)
        said = self.stack.cli("explain", "--image", image(), "--memory", str(most), "--cpu", "0.02", "--priority", "3", "--may-preempt").stdout
        self.assertIn("would preempt", said)
        self.assertIn("containers/guest\" (priority -5)", said)
        self.assertIn("1 not touched: primary", said)
        self.client.succeeded(make("top", priority=3, may_preempt=True))
        self.assertEqual(self.client.get("top").status.host, before["guest"].status.host)
        self.assertEqual(self.client.get("first").status.pid, before["first"].status.pid)
        guest = self.client.get("guest")
        self.assertEqual(guest.status.state, container_pb2.CONTAINER_STATE_PENDING)
        self.assertIn(f'had to make room for "{self.client.name("top")}"', guest.status.message)
        move = next(o for o in self.client.list_operations() if o.preempted_by)
        self.assertEqual((move.target, move.preempted_by), (guest.name, self.client.name("top")))
        self.assertIn(self.client.name("top"), self.stack.cli("describe", "operation", move.name).stdout)
        self.assertEqual(len([e for e in self.client.list_events() if e.type == "harpoon.container.preempted"]), 1)
        self.client.succeeded(self.client.delete("top"))
        self.client.succeeded(move)  # nothing was lost: there is room again
        self.assertEqual(self.client.get("guest").status.state, container_pb2.CONTAINER_STATE_RUNNING)
        for operation in [self.client.delete(name) for name in before]:
            self.client.succeeded(operation)

    def test_hosts_that_have_the_image_are_liked_better(self):
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        reference, digest = another_image(directory)

        request = os.path.join(directory, "request.json")
        with open(request, "w") as f:  # of a class that goes by images: what else the two hosts differ in is the machine's mood
            json.dump({"spec": {"image": reference, "resources": {"cpuMillis": 100, "memoryBytes": str(16 << 20)}, "placement": {"workloadClass": "by-image"}}}, f)

        def parts():
            answer = json.loads(self.stack.cli("explain", "-f", request, "-o", "json").stdout)
            return {h["host"].rsplit("/", 1)[1]: h.get("parts", {}).get("image") for h in answer["hosts"]}, answer["hosts"][0]["host"]

        self.assertEqual(parts()[0], {"h1": None, "h2": None}, "nobody has it")
        self.client.succeeded(self.client.create("first", reference, placement=container_pb2.PlacementSpec(host="h2")))
        eventually(lambda: parts()[0] == {"h1": 0, "h2": 50}, 30, lambda: f"h2, half of the hosts, to have it: {parts()}")  # h1 may be overloaded for a while
        self.assertTrue(parts()[1].endswith("/h2"))
        self.client.succeeded(self.client.delete("first"))
        host = next(h for h in self.client.list_hosts() if h.name.endswith("/h2"))
        self.stack.kill("r1-h2")
        self.stack.restart()
        eventually(lambda: any(h.session > host.session and digest in h.facts.images for h in self.client.list_hosts()), 30, "the images that the agent tells when it attaches")

    def test_what_is_proposed_is_done_when_told_to(self):
        self.stack.cli("hosts", "cordon", "h2")
        names = [f"web{i}" for i in range(4)]
        for name in names:
            self.client.succeeded(self.client.create(name, image(), cpu_millis=300, stateless=True))
        self.stack.cli("hosts", "uncordon", "h2")
        shown = json.loads(self.stack.cli("rebalance", "--dry-run", "--min-gain", "0.5", "-o", "json").stdout)
        self.assertTrue(1 <= len(shown["moves"]) <= 3, shown)
        self.assertTrue(all(m["from"].endswith("/h1") and m["to"].endswith("/h2") and m["gain"] >= 0.5 for m in shown["moves"]), shown)
        self.assertLess(shown.get("imbalanceAfter", 0), shown["imbalanceBefore"])
        self.assertTrue(all(self.client.get(n).status.host.endswith("/h1") for n in names), "a look moves nothing")
        self.stack.cli("rebalance", "--apply", "--max", "1", "--min-gain", "0.5")
        moved = [n for n in names if self.client.get(n).status.host.endswith("/h2")]
        self.assertEqual(len(moved), 1)
        status = self.client.get(moved[0]).status
        self.assertEqual(status.state, container_pb2.CONTAINER_STATE_RUNNING)
        self.assertEqual(machine.identity(status.pid), (status.pid, status.pid_start_ticks))
        for name in names:
            self.client.succeeded(self.client.delete(name))

    def test_a_reserved_place_is_kept(self):
        def claimed(host):
            return next(h for h in self.client.list_hosts() if h.name.endswith("/" + host)).claimed.cpu_millis
        options = ("--image", image(), "--cpu", "0.2", "--memory", "16Mi", "--network", "none")
        self.stack.cli("reserve", "kept", *options, "--host", "h2", "--deadline", "10m")
        eventually(lambda: claimed("h2") == 200, 20, "the claim of the reservation")
        self.assertEqual(self.stack.cli("reserve", "kept", *options, check=False).returncode, 4)
        self.stack.cli("create", "kept", *options, "--wait", "--", "sleep", "1000000")
        self.assertTrue(self.client.get("kept").status.host.endswith("/h2"))
        self.assertEqual(claimed("h2"), 200)
        self.client.succeeded(self.client.delete("kept"))
        self.stack.cli("reserve", "short", *options, "--host", "h2", "--deadline", "1s")
        eventually(lambda: claimed("h2") == 0, 20, "the reservation to expire")


if __name__ == "__main__":
    import unittest
    unittest.main()
