"""The database or the broker away for a while: what is accepted happens later, what cannot be accepted is refused in bounded time, and nothing that runs
is touched."""
import time
import uuid

import grpc

from api import operation_pb2, rpc_error
from harness import StackTest, eventually, image
from load import patient
import machine

Code = grpc.StatusCode


class OutageTest(StackTest):
    shape = {"hosts": 1}

    def running(self):
        name = "o-" + uuid.uuid4().hex[:10]
        self.client.succeeded(self.client.create(name, image()))
        return name, self.client.get(name).status

    def assert_untouched(self, status):
        self.assertEqual(machine.identity(status.pid), (status.pid, status.pid_start_ticks))

    def test_database_stopped(self):
        name, status = self.running()
        self.stack.kill("mariadb", "TERM")
        began = time.monotonic()
        operations = []
        for i in range(5):
            operation = self.client.create(f"later-{i}", image(), request_id=str(uuid.uuid4()))
            self.assertEqual(operation.stage, operation_pb2.STAGE_ACCEPTED)
            operations.append(operation)
        self.assertLess(time.monotonic() - began, 5 * 5, "accepting takes no longer than the verdict's time-out")
        self.assert_untouched(status)
        error = rpc_error(self.client.get, name)
        self.assert_code(error, Code.UNAVAILABLE)
        self.stack.restart()
        for o in operations:
            self.client.succeeded(o, 60)
        self.assertEqual(patient(lambda: self.client.get(name)).status.pid, status.pid)
        for i in range(5):
            self.client.succeeded(self.client.delete(f"later-{i}"))

    def test_broker_stopped(self):
        name, status = self.running()
        before = self.stack.pids()
        self.stack.kill("rabbitmq", "TERM")
        request_id = str(uuid.uuid4())
        began = time.monotonic()
        error = rpc_error(self.client.create, "refused", image(), request_id=request_id)
        self.assert_code(error, Code.UNAVAILABLE)
        self.assertLess(time.monotonic() - began, 10, "refused in bounded time")
        self.assertEqual(patient(lambda: self.client.get(name)).status.pid, status.pid, "reads go on")
        self.assert_untouched(status)
        self.stack.restart()
        operation = patient(lambda: self.client.create("refused", image(), request_id=request_id))
        self.client.succeeded(operation, 60)
        self.client.succeeded(self.client.delete("refused"))
        self.assertEqual(self.stack.pids(), before, "no daemon ended: each reconnected by itself")
        self.assert_untouched(status)

    def test_agent_away_while_its_containers_run(self):
        name, status = self.running()
        self.stack.kill("r1-h1")
        self.assert_untouched(status)
        operation = self.client.resize(name, memory_bytes=48 << 20)
        self.stack.restart()
        self.client.succeeded(operation, 60)
        self.assert_untouched(status)
        self.assertEqual(machine.memory_limit(status.pid), 48 << 20)

    def test_a_container_that_died_while_its_agent_was_away(self):
        import os
        name, status = self.running()
        self.stack.kill("r1-h1")
        os.kill(status.pid, 9)
        self.stack.restart()

        def again():
            c = self.client.get(name)
            return c if c.status.pid not in (0, status.pid) and machine.identity(c.status.pid) else None
        eventually(again, 30, "the container to run again")


if __name__ == "__main__":
    import unittest
    unittest.main()
