"""A container's life, checked against the kernel: namespaces, limits, addresses, and that a resize leaves the process alone."""
import os
import urllib.request

from api import container_pb2
from harness import StackTest, eventually, image
import machine

RUNNING = container_pb2.CONTAINER_STATE_RUNNING
STOPPED = container_pb2.CONTAINER_STATE_STOPPED
BRIDGE = container_pb2.NETWORK_MODE_BRIDGE


def fetch(address):
    with urllib.request.urlopen(f"http://{address.split('/')[0]}:8080/", timeout=5) as answer:
        return answer.read().decode()


class ContainerTest(StackTest):
    shape = {"hosts": 1}

    def running(self, name, **kwargs):
        """Creates a container, waits until it runs, gives it as the API shows it."""
        self.client.succeeded(self.client.create(name, kwargs.pop("image", image()), **kwargs))
        c = self.client.get(name)
        self.assertEqual(c.status.state, RUNNING, c.status)
        self.assertEqual(machine.identity(c.status.pid), (c.status.pid, c.status.pid_start_ticks), "the process that the API names is there")
        return c

    def remove(self, name):
        pid = self.client.get(name).status.pid
        self.client.succeeded(self.client.delete(name))
        if pid:
            self.assertIsNone(machine.identity(pid), "the process is gone once the delete has succeeded")

    def test_namespaces_and_limits_are_real(self):
        c = self.running("real", cpu_millis=250, memory_bytes=64 << 20)
        for kind in ("pid", "mnt", "net", "ipc", "uts"):
            self.assertNotEqual(machine.namespace(c.status.pid, kind), machine.namespace("self", kind), kind)
        self.assertEqual(machine.memory_limit(c.status.pid), 64 << 20)
        self.assertEqual(machine.cpu_limit_millis(c.status.pid), 250)
        self.assertEqual(machine.pids_limit(c.status.pid), 4096)
        self.assertTrue(c.status.image_digest.startswith("sha256:"))
        self.remove("real")

    def test_resize_changes_the_limits_and_not_the_process(self):
        before = self.running("grow", memory_bytes=32 << 20, cpu_millis=100)
        self.client.succeeded(self.client.resize("grow", memory_bytes=96 << 20, cpu_millis=400, pids_max=99))
        after = self.client.get("grow")
        self.assertEqual((after.status.pid, after.status.pid_start_ticks), (before.status.pid, before.status.pid_start_ticks))
        self.assertEqual(machine.identity(after.status.pid), (before.status.pid, before.status.pid_start_ticks))
        self.assertEqual(machine.memory_limit(after.status.pid), 96 << 20)
        self.assertEqual(machine.cpu_limit_millis(after.status.pid), 400)
        self.assertEqual(machine.pids_limit(after.status.pid), 99)
        self.assertEqual(after.generation, before.generation + 1)
        self.assertNotEqual(after.etag, before.etag)
        self.remove("grow")

    def test_bridge_network_serves_and_keeps_its_address(self):
        c = self.running("web", network=BRIDGE, command=())
        address = c.status.addresses[0]
        self.assertIn("Hello from Harpoon (latest)", eventually(lambda: self.try_fetch(address), 5, "the page"))
        self.client.succeeded(self.client.restart("web"))
        again = self.client.get("web")
        self.assertEqual(again.status.addresses[0], address, "a restart keeps the address")
        self.assertNotEqual(again.status.pid, c.status.pid)
        self.assertIn("Hello", eventually(lambda: self.try_fetch(address), 5, "the page after the restart"))
        self.remove("web")

    @staticmethod
    def try_fetch(address):
        try:
            return fetch(address)
        except OSError:
            return None

    def test_stop_and_start(self):
        before = self.running("pause")
        self.client.succeeded(self.client.stop("pause"))
        stopped = self.client.get("pause")
        self.assertEqual(stopped.status.state, STOPPED)
        self.assertIsNone(machine.identity(before.status.pid))
        self.client.succeeded(self.client.start("pause"))
        again = self.client.get("pause")
        self.assertEqual(again.status.state, RUNNING)
        self.assertEqual(again.uid, before.uid, "it is the same container")
        self.remove("pause")

    def test_update_to_another_image(self):
        c = self.running("swap", network=BRIDGE, command=())
        from harpoon.v1 import container_service_pb2
        spec = container_pb2.Container(name=c.name, labels={"version": "2"}, spec=c.spec)
        spec.spec.image = image("v2")
        self.client.succeeded(self.client.call(self.client.containers.UpdateContainer, container_service_pb2.UpdateContainerRequest(container=spec)))
        after = self.client.get("swap")
        self.assertEqual(after.labels["version"], "2")
        self.assertNotEqual(after.status.image_digest, c.status.image_digest)
        self.assertIn("(v2)", eventually(lambda: self.try_fetch(after.status.addresses[0]), 5, "the new page"))
        self.remove("swap")

    def test_a_process_that_dies_is_started_again(self):
        policy = container_pb2.RestartPolicy(mode=container_pb2.RESTART_MODE_ALWAYS, backoff_initial_ms=100)
        before = self.running("phoenix", restart_policy=policy)
        os.kill(before.status.pid, 9)

        def reborn():
            c = self.client.get("phoenix")
            return c if c.status.state == RUNNING and c.status.pid not in (0, before.status.pid) else None
        after = eventually(reborn, 20, "the restart")
        self.assertEqual(after.status.restart_count, 1)
        self.assertEqual(after.generation, before.generation)
        self.remove("phoenix")

    def test_a_process_that_ends_for_good(self):
        policy = container_pb2.RestartPolicy(mode=container_pb2.RESTART_MODE_NEVER)
        self.client.succeeded(self.client.create("brief", image(), command=("sh", "-c", "exit 7"), restart_policy=policy))
        c = eventually(lambda: self.ended("brief"), 20, "the exit")
        self.assertEqual(c.status.exit_code, 7)
        self.remove("brief")

    def ended(self, name):
        c = self.client.get(name)
        return c if c.status.state == container_pb2.CONTAINER_STATE_FAILED else None

    def test_an_image_that_is_not_there_fails_with_its_name(self):
        done = self.client.wait(self.client.create("nothing", "oci:/nowhere:latest"))
        self.assertNotEqual(done.error.code, 0, done)
        self.assertIn("/nowhere", done.error.message)
        self.client.succeeded(self.client.delete("nothing"))

    def test_environment_and_command_reach_the_process(self):
        c = self.running("env", command=("sh", "-c", "sleep 1000 & wait"), env=[container_pb2.EnvVar(name="COLOUR", value="blue")])

        def environment():
            with open(f"/proc/{c.status.pid}/environ", "rb") as f:
                return f.read().split(b"\0")
        # The runtime says "started" when its own child lets go of the start fifo; that child becomes the command, under the same pid, a moment later.
        eventually(lambda: b"COLOUR=blue" in environment(), 10, lambda: f"the command's environment, not {environment()}")
        self.remove("env")


if __name__ == "__main__":
    import unittest
    unittest.main()
