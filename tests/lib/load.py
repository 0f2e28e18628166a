"""A load of changes on real containers that goes on through failures, and the account of it afterwards."""
import concurrent.futures
import os
import threading
import time
import uuid

import grpc

from api import container_pb2, operation_pb2, stage_name
from harness import eventually, image
import machine

RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def patient(call, seconds=90):
    """Calls until it is answered; the request_id within makes a repeat safe."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except grpc.RpcError as e:
            cut = e.details() == "Stream removed"  # what grpc says, as UNKNOWN, when TLS has ended with an alert
            if (e.code() not in RETRY and not cut) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Load:
    """`count` events: creates, each followed by a resize and every second one by a delete, from a few threads. `progress` counts what was accepted."""

    def __init__(self, clients, count, prefix):
        self.clients, self.prefix = clients, prefix
        self.creates = count * 2 // 5
        self.resizes = self.creates
        self.deletes = count - self.creates - self.resizes
        self.operations, self.errors = [], []
        self.lock = threading.Lock()

    def name(self, i):
        return f"{self.prefix}-{i:03d}"

    def accept(self, call):
        operation = patient(call)
        with self.lock:
            self.operations.append(operation.name)
        return operation

    def one(self, i):
        client = self.clients[i % len(self.clients)]
        name, ids = self.name(i), [str(uuid.uuid4()) for _ in range(3)]
        created = self.accept(lambda: client.create(name, image(), request_id=ids[0]))
        # A change of a container that no scheduler has seen yet would rightly be refused.
        patient(lambda: client.wait(created, 120))
        resized = self.accept(lambda: client.resize(name, request_id=ids[1], memory_bytes=24 << 20))
        patient(lambda: client.wait(resized, 120))  # a delete would rightly cancel a resize under way
        if i < self.deletes:
            self.accept(lambda: client.delete(name, request_id=ids[2]))

    def start(self, threads=16):
        self.pool = concurrent.futures.ThreadPoolExecutor(threads)
        self.futures = [self.pool.submit(self.one, i) for i in range(self.creates)]

    def progress(self):
        with self.lock:
            return len(self.operations)

    def finish(self, seconds=180):
        """Waits for all events to be accepted and ended; gives the stages that are not SUCCEEDED."""
        for f in concurrent.futures.as_completed(self.futures, timeout=seconds):
            f.result()
        self.pool.shutdown()
        done = [patient(lambda o=o: self.clients[-1].wait(o, seconds)) for o in self.operations]
        return [(o.target, operation_pb2.Verb.Name(o.verb), stage_name(o), o.error.message or o.reason) for o in done
                if o.stage != operation_pb2.STAGE_SUCCEEDED]

    def remaining(self):
        return {self.name(i) for i in range(self.deletes, self.creates)}

    def delete_all(self):
        operations = [patient(lambda n=n: self.clients[0].delete(n, request_id=str(uuid.uuid4()))) for n in sorted(self.remaining())]
        for o in operations:
            self.clients[0].succeeded(o, 120)


def live_containers(stack):
    """{directory name of a leaf cgroup with processes} below the stack's agents: what the kernel says runs."""
    found = set()
    for root in machine.cgroup_roots():
        top = os.path.join(root, f"harpoon-{stack.identifier()}")
        for at, _, files in os.walk(top):
            if "cgroup.procs" in files:
                with open(os.path.join(at, "cgroup.procs")) as f:
                    if f.read().strip():
                        found.add(at.removeprefix(root))
    return found


def assert_account(test, client, expected, before):
    """Every expected container exists exactly once and runs as the API says; those of `before` are the very same processes."""
    def settled():
        containers = client.list_containers()
        return containers if all(c.status.state == container_pb2.CONTAINER_STATE_RUNNING for c in containers) else None
    containers = eventually(settled, 60, lambda: f"all to be RUNNING: {[(c.name, c.status) for c in client.list_containers()]}"[:3000])
    names = [c.name.rsplit("/", 1)[1] for c in containers]
    test.assertEqual(sorted(names), sorted(expected | set(before)), "each container exactly once")
    pids = [c.status.pid for c in containers]
    test.assertEqual(len(set(pids)), len(pids), "no process counts twice")
    for c in containers:
        test.assertEqual(machine.identity(c.status.pid), (c.status.pid, c.status.pid_start_ticks), c.name)
    now = {c.name.rsplit("/", 1)[1]: (c.status.pid, c.status.pid_start_ticks) for c in containers}
    for name, identity in before.items():
        test.assertEqual(now[name], identity, f"{name} ran before and was not touched")
    uids = {c.uid for c in containers}
    orphans = {p for p in live_containers(test.stack) if not any(u in p for u in uids)}
    test.assertFalse(orphans, "nothing runs that the API does not know")
