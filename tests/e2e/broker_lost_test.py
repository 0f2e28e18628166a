"""The broker loses all that it has, amid events: requests that nobody had recorded are made good by their repeats, reports by the comparison with the hosts, and the events go on
where they were."""
import concurrent.futures
import os
import shutil
import uuid

import grpc

from api import container_pb2, operation_pb2, rpc_error
from harness import StackTest, eventually, image
from load import patient
from watch_test import Reader
import machine

Code = grpc.StatusCode


class BrokerLostTest(StackTest):
    shape = {"hosts": 1, "sim_hosts": 10}

    def lose_the_broker(self):
        self.stack.kill("rabbitmq", "KILL")
        for entry in os.listdir(self.stack.directory):
            mnesia = os.path.join(self.stack.directory, entry, "mnesia")
            if entry.startswith("rabbitmq") and os.path.isdir(mnesia):
                shutil.rmtree(mnesia)
                found = True
        self.assertTrue(found)
        self.stack.restart()

    def create(self, name, request_id):
        return self.client.create(name, image(), request_id=request_id)

    def test_everything_in_the_broker_is_gone(self):
        on_h1 = container_pb2.PlacementSpec(host="h1")
        for name in ("keep", "dies"):
            self.client.succeeded(self.client.create(name, image(), placement=on_h1))
        keep, dies = self.client.get("keep").status, self.client.get("dies").status
        reader = Reader(self.client, after_sequence=0)
        wanted = {f"b-{i}": str(uuid.uuid4()) for i in range(40)}
        first, lost = list(wanted)[:20], list(wanted)[20:]
        for o in [self.create(n, wanted[n]) for n in first]:
            self.client.succeeded(o)
        daemons = self.stack.pids()
        self.stack.kill("sched-1", "STOP")
        with concurrent.futures.ThreadPoolExecutor(20) as pool:  # accepted: the broker has them, and nobody else
            accepted = list(pool.map(lambda n: self.create(n, wanted[n]), lost))
        self.assertEqual({o.stage for o in accepted}, {operation_pb2.STAGE_ACCEPTED})
        os.kill(dies.pid, 9)  # its report, too, is in the broker only
        self.assertEqual(machine.identity(keep.pid), (keep.pid, keep.pid_start_ticks))
        self.lose_the_broker()
        self.stack.kill("sched-1", "CONT")
        operations = [patient(lambda n=n: self.create(n, wanted[n])) for n in wanted]  # a client that is unsure repeats
        for o in operations:
            self.client.succeeded(o)
        self.assertEqual([o.name for o in operations[20:]], [o.name for o in accepted], "the same operations as were accepted")
        self.settled(wanted, daemons, keep, dies)
        self.events_go_on(reader)

    def settled(self, wanted, daemons, keep, dies):
        names = sorted(c.name.rsplit("/", 1)[1] for c in self.client.list_containers())
        self.assertEqual(names, sorted([*wanted, "keep", "dies"]), "each once")
        self.assertEqual(self.stack.pids(), daemons, "no daemon ended: each reconnected by itself")
        self.assertEqual(machine.identity(keep.pid), (keep.pid, keep.pid_start_ticks))

        def again():
            s = self.client.get("dies").status
            return s.pid not in (0, dies.pid) and machine.identity(s.pid) == (s.pid, s.pid_start_ticks)
        eventually(again, 40, lambda: f"the restart to be known: {self.client.get('dies').status}")

    def events_go_on(self, reader):
        every = self.client.list_events()
        self.assertEqual([e.sequence for e in every], list(range(1, len(every) + 1)), "no number is missing, or used twice")
        eventually(lambda: reader.error or reader.sequence >= len(every), 20, "the watch to reach the present")
        self.assertIsNone(reader.error, "the watch of before lives on")
        self.assertEqual(reader.sequences()[:len(every)], [e.sequence for e in every])
        self.assert_code(rpc_error(lambda: list(self.client.watch(after_sequence=len(every) + 100000, timeout=10))), Code.OUT_OF_RANGE)
        reader.close()


if __name__ == "__main__":
    import unittest
    unittest.main()
