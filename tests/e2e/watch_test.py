"""The region's event stream: in order, without gap or repeat, resumable anywhere, also across the death of a gateway."""
import hashlib
import os
import threading
import uuid

import grpc

from api import Client, error_details, event_pb2, rpc_error
from harness import StackTest, eventually, image
from harpoon.v1 import event_service_pb2

Code = grpc.StatusCode


class Reader(threading.Thread):
    """Reads a watch until it ends; keeps events and the last sequence."""

    def __init__(self, client, seconds=120, **kwargs):
        super().__init__(daemon=True)
        self.events, self.sequence, self.error = [], 0, None
        self.stream = client.watch(timeout=seconds, heartbeat_ms=200, **kwargs)
        self.start()

    def run(self):
        try:
            for answer in self.stream:
                if answer.HasField("event"):
                    self.events.append(answer.event)
                self.sequence = answer.sequence
        except grpc.RpcError as e:
            self.error = e

    def sequences(self):
        return [e.sequence for e in self.events]

    def close(self):
        self.stream.cancel()
        self.join(10)


class WatchTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 3, "gateways": 2}

    def make(self, count=1):
        operations = [self.client.create("w-" + uuid.uuid4().hex[:12], image()) for _ in range(count)]
        for o in operations:
            self.client.succeeded(o)
        return operations

    def last_sequence(self):
        return self.client.list_events()[-1].sequence

    def test_every_sequence_once_and_in_order(self):
        self.make(5)
        last = self.last_sequence()
        reader = Reader(self.client, after_sequence=0)
        eventually(lambda: reader.sequence >= last, 20, "the watch to reach the present")
        reader.close()
        self.assertEqual(reader.sequences()[:last], list(range(1, last + 1)))

    def test_a_watch_from_now_shows_only_what_comes(self):
        self.make()
        before = self.last_sequence()
        reader = Reader(self.client)
        eventually(lambda: reader.sequence, 10, "a heartbeat")
        self.assertGreaterEqual(reader.sequence, before)
        operation = self.make()[0]
        eventually(lambda: any(e.type == "harpoon.operation.succeeded" and e.operation == operation.name for e in reader.events), 10, "the success")
        reader.close()
        self.assertGreater(reader.sequences()[0], before)
        self.assertEqual(reader.sequences(), list(range(reader.sequences()[0], reader.sequences()[-1] + 1)))

    def test_a_token_that_is_revoked(self):
        """Added to the file it is known, without a restart; taken out it is not, its watch ends, and those of others go on."""
        path = os.path.join(self.stack.directory, "conf/tokens.ini")
        with open(path) as f:
            before = f.read()

        def put(text):
            with open(path + ".new", "w") as f:
                f.write(text)
            os.rename(path + ".new", path)
        self.addCleanup(put, before)
        secret = uuid.uuid4().hex
        client = Client(self.stack.env["HARPOON_ENDPOINTS"].split()[0], self.stack.env["HARPOON_CA"], secret)
        self.addCleanup(client.close)
        self.assert_code(rpc_error(lambda: client.list_events()), Code.UNAUTHENTICATED)
        put(before + f"[token guest]\nsha256 = {hashlib.sha256(secret.encode()).hexdigest()}\nprojects = *\nrole = viewer\n")

        def known():
            try:
                return client.list_events() is not None
            except grpc.RpcError as e:
                self.assert_code(e, Code.UNAUTHENTICATED)
                return False
        eventually(known, 10, "the new token to be known")
        own, other = Reader(client), Reader(self.client)
        self.addCleanup(other.close)
        eventually(lambda: own.sequence and other.sequence, 10, "both heartbeats")
        put("[token broken\n")
        put(before)
        eventually(lambda: own.error, 10, "the watch of the revoked token to end")
        self.assert_code(own.error, Code.UNAUTHENTICATED)
        self.assertEqual(error_details(own.error)["ErrorInfo"].reason, "TOKEN_REVOKED")
        self.assertFalse(known())
        operation = self.make()[0]
        eventually(lambda: any(e.operation == operation.name for e in other.events), 10, "events for who has a token")
        self.assertIsNone(other.error)

    def test_an_operation_is_told_from_its_record_to_its_end(self):
        operation = self.make()[0]
        types = [e.type.rsplit(".", 1)[1] for e in self.client.list_events() if e.operation == operation.name and e.HasField("operation_data")]
        self.assertEqual(types[0], "recorded")
        self.assertEqual(types[-1], "succeeded")
        self.assertEqual([t for t in types if t in ("recorded", "placed", "dispatched", "running", "succeeded")], types, "each stage, no other")

    def test_filters(self):
        a, b = self.make(2)
        subject = a.target
        reader = Reader(self.client, after_sequence=0, filter=event_service_pb2.EventFilter(subject=subject))
        last = self.last_sequence()
        eventually(lambda: reader.sequence >= last, 20, "the watch to reach the present")
        reader.close()
        self.assertTrue(reader.events)
        self.assertEqual({e.subject for e in reader.events}, {subject})
        types = event_service_pb2.EventFilter(types=["harpoon.host.*"])
        found = self.client.list_events(filter=types)
        self.assertTrue(found)
        self.assertTrue(all(e.type.startswith("harpoon.host.") for e in found))
        self.assertFalse(self.client.list_events(filter=event_service_pb2.EventFilter(min_severity=event_pb2.SEVERITY_CRITICAL)))

    def test_a_sequence_of_the_future(self):
        stream = self.client.watch(after_sequence=1 << 40)
        error = rpc_error(lambda: list(stream))
        self.assert_code(error, Code.OUT_OF_RANGE)
        self.assertIn("oldest_sequence", error_details(error)["ErrorInfo"].metadata)

    def test_a_watch_goes_on_where_it_was_after_its_gateway_was_killed(self):
        reader = Reader(self.client, after_sequence=0)
        self.make(3)
        eventually(lambda: reader.sequence >= 10, 20, "some events")
        self.stack.kill("gw-1")
        eventually(lambda: reader.error is not None, 10, "the end of the watch")
        self.assert_code(reader.error, Code.UNAVAILABLE)
        second = self.stack.client(1)
        for _ in range(3):  # happen while nobody watches
            second.succeeded(second.create("w-" + uuid.uuid4().hex[:12], image()))
        self.stack.restart()
        last = second.list_events()[-1].sequence
        again = Reader(self.stack.client(0), after_sequence=reader.sequence)
        eventually(lambda: again.sequence >= last, 20, "the resumed watch to reach the present")
        again.close()
        told = reader.sequences() + again.sequences()
        self.assertEqual(told, list(range(1, told[-1] + 1)), "no gap, no repeat")
        other = Reader(second, after_sequence=0)
        eventually(lambda: other.sequence >= last, 20, "the other gateway's watch")
        other.close()
        self.assertEqual([e.id for e in other.events][:last], [e.id for e in reader.events + again.events][:last], "both gateways tell the same")


if __name__ == "__main__":
    import unittest
    unittest.main()
