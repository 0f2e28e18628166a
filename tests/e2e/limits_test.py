"""Ends of resources: descriptors, memory, disks, queues. The answer comes before acceptance and in bounded time, what goes on goes on, and when there is room again everything works without anybody's help."""
import concurrent.futures
import json
import os
import re
import resource
import time
import uuid

import grpc

from api import error_details, operation_pb2, rpc_error
from harness import StackTest, eventually
from load import patient

Code = grpc.StatusCode
SIMULATED = "oci:/images:sim"  # nobody looks
REFUSED = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)
QUEUE_MAX = 4
MEMORY_LEFT = 1 << 20
LONGER_PAUSE_MS = 500  # comes after two failures in a row that no success came between
BUSY_LOOP = 0.5  # of a core: a loop that spins takes all of it


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def address_space(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


class Limit:
    """A process's limit while it is lowered."""

    def __init__(self, pid, kind, value):
        self.pid, self.kind, self.value = pid, kind, value

    def __enter__(self):
        self.old = resource.prlimit(self.pid, self.kind)
        resource.prlimit(self.pid, self.kind, (self.value, self.old[1]))

    def __exit__(self, *_):
        resource.prlimit(self.pid, self.kind, self.old)


class LimitedTest(StackTest):
    """What the tests of this file share."""

    def pid(self, name):
        return self.stack.status()[name]["pid"]

    def assert_works(self, seconds=60):
        """A create of a new name ends well."""
        name, request_id = "w-" + uuid.uuid4().hex[:10], str(uuid.uuid4())
        operation = patient(lambda: self.client.create(name, SIMULATED, request_id=request_id), seconds)
        self.client.succeeded(operation, seconds)
        return name

    def assert_calm(self, pid):
        """No loop spins on what cannot be had: measured over a second."""
        began, before = time.monotonic(), cpu_seconds(pid)
        time.sleep(1)  # the time is what is tested
        used = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        self.assertLess(used, BUSY_LOOP, "the process spins")


class LimitsTest(LimitedTest):
    shape = {"hosts": 0, "sim_hosts": 12}

    def test_descriptors_of_a_router(self):
        """Agents beyond the limit are kept waiting; those that are there work; with room the others come by themselves."""
        pid = self.pid("r1-router-1")
        self.stack.kill("r1-sim", "TERM")
        eventually(lambda: not any(h.router for h in patient(self.client.list_hosts)), 30, "the agents to be gone")
        with Limit(pid, resource.RLIMIT_NOFILE, descriptors(pid) + 5):
            self.stack.command("start", "r1-sim")
            eventually(lambda: any(h.router for h in self.client.list_hosts()), 30, "some agents to be there", interval=0.2)
            self.assert_calm(pid)
            attached = sum(bool(h.router) for h in self.client.list_hosts())
            self.assertLess(attached, 12, "the limit did not bite")
        self.stack.hosts_ready(self.client, 12)
        eventually(lambda: sum(bool(h.router) for h in self.client.list_hosts()) == 12, 60, "all agents to be there", interval=0.2)
        self.assert_works()
        self.assertEqual(self.pid("r1-router-1"), pid)

    def test_memory_of_a_gateway(self):
        """Without memory it refuses, before it accepts; what it accepted happens; with memory it works again, and it never ended."""
        pid = self.pid("gw-1")
        changes = [(f"m-{i}", str(uuid.uuid4())) for i in range(64)]
        spec = {"env": [], "args": ["x" * 4000] * 60}

        def ask(change):
            try:
                return self.client.create(change[0], SIMULATED, request_id=change[1], **spec)
            except grpc.RpcError as e:
                return e
        with Limit(pid, resource.RLIMIT_AS, address_space(pid) + MEMORY_LEFT):
            with concurrent.futures.ThreadPoolExecutor(len(changes)) as pool:
                answers = list(pool.map(ask, changes))
            refused = [a for a in answers if isinstance(a, grpc.RpcError)]
            self.assertTrue(refused, "the limit did not bite")
            self.assertLessEqual({e.code() for e in refused}, set(REFUSED), [e.details() for e in refused])
            self.assert_calm(pid)
        for change, answer in zip(changes, answers):
            operation = patient(lambda change=change: self.client.create(change[0], SIMULATED, request_id=change[1], **spec))
            if not isinstance(answer, grpc.RpcError):
                self.assertEqual(operation.name, answer.name)
            self.client.succeeded(operation, 60)
        self.assertEqual(self.pid("gw-1"), pid)

    def test_queue_of_requests_full(self):
        """Nobody takes requests, and the queue holds as many as it may: refused before acceptance. What was accepted happens once somebody takes it, and so does the rest."""
        self.assert_works()
        changes = [(f"q-{i}", str(uuid.uuid4())) for i in range(QUEUE_MAX + 8)]
        self.stack.rabbitmqctl("set_policy", "-p", "harpoon", "limits", "^requests[.]", json.dumps({"max-length": QUEUE_MAX}), "--apply-to", "queues")
        self.addCleanup(self.stack.rabbitmqctl, "clear_policy", "-p", "harpoon", "limits")
        self.stack.kill("sched-1")
        self.addCleanup(self.stack.restart)
        accepted, refused = {}, []
        for name, request_id in changes:
            try:
                accepted[name] = self.client.create(name, SIMULATED, request_id=request_id)
            except grpc.RpcError as e:
                refused.append(e)
        self.assertTrue(accepted, "an empty queue takes something")
        self.assertTrue(refused, "the queue was not full")
        for e in refused:
            self.assert_code(e, Code.RESOURCE_EXHAUSTED)
            self.assertIn("RetryInfo", error_details(e))
        self.stack.restart()
        for name, request_id in changes:
            operation = patient(lambda name=name, request_id=request_id: self.client.create(name, SIMULATED, request_id=request_id))
            if name in accepted:
                self.assertEqual(operation.name, accepted[name].name)
            self.client.succeeded(operation, 60)

    def alarm(self, *on, off):
        """While the broker has an alarm it takes nothing: refused in bounded time; reads and watches go on; then it works again with the same request_id."""
        name = self.assert_works()
        before, request_id = self.stack.pids(), str(uuid.uuid4())
        new = "a-" + uuid.uuid4().hex[:10]
        self.stack.rabbitmqctl(*on)
        try:
            def blocked():
                began = time.monotonic()
                try:
                    self.client.create(new + "-" + uuid.uuid4().hex[:6], SIMULATED)
                    return None
                except grpc.RpcError as e:
                    self.assertLess(time.monotonic() - began, 10, "refused in bounded time")
                    return e
            self.assertIn(eventually(blocked, 30, "the alarm to bite").code(), REFUSED)
            error = rpc_error(self.client.create, new, SIMULATED, request_id=request_id)
            self.assertIn(error.code(), REFUSED)
            self.assertIn("RetryInfo", error_details(error))
            self.assertEqual(self.client.get(name).name, self.client.name(name), "reads go on")
        finally:
            self.stack.rabbitmqctl(*off)
        self.client.succeeded(patient(lambda: self.client.create(new, SIMULATED, request_id=request_id)))
        self.assertEqual(self.stack.pids(), before)

    def test_broker_memory_alarm(self):
        self.alarm("set_vm_memory_high_watermark", "absolute", "1MiB", off=("set_vm_memory_high_watermark", "0.6"))

    def test_broker_disk_alarm(self):
        self.alarm("set_disk_free_limit", "1000000GB", off=("set_disk_free_limit", "1MB"))


class DatabaseDiskTest(LimitedTest):
    """A stack of its own: what the test leaves in the database is most of its disk, and other tests could fill the rest."""

    shape = {"hosts": 0, "sim_hosts": 12, "db_size": "96m"}

    def pauses(self, scheduler):
        """Milliseconds between its attempts to lead the region."""
        return [int(ms) for ms in re.findall(r"taking it over again.* retry_in_ms=(\d+)", self.stack.log(scheduler, 1000))]

    def test_database_disk_full(self):
        """The scheduler waits, the gateway accepts, and nothing is lost when there is room again."""
        self.assert_works()
        before = self.stack.pids()
        changes = [(f"d-{i}", str(uuid.uuid4())) for i in range(40)]
        self.stack.command("fill", "mariadb")
        operations = []
        try:
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                operations = list(pool.map(lambda c: self.client.create(c[0], SIMULATED, request_id=c[1], env=[], args=["x" * 4000] * 60), changes))
            stuck = [o for o in operations if o.stage == operation_pb2.STAGE_ACCEPTED]
            self.assertTrue(stuck, "the disk was not full")
            eventually(lambda: max(self.pauses("sched-1"), default=0) >= LONGER_PAUSE_MS, 30, "longer pauses between takeovers: each reads the whole record")
        finally:
            self.stack.command("unfill", "mariadb")
        if not self.stack.status()["mariadb"]["running"]:  # InnoDB ends the server when it cannot write; its unit would start it again
            self.stack.restart()
        for o in operations:
            self.client.succeeded(o, 60)
        names = {c.name for c in self.client.list_containers()}
        self.assertLessEqual({self.client.name(n) for n, _ in changes}, names)
        self.assertEqual(self.stack.pids(), before, "no daemon ended")


if __name__ == "__main__":
    import unittest
    unittest.main()
