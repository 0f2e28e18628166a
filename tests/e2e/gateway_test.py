"""The gateway beside a scheduler that is played by the test: verdicts in every order, and a region's stream that repeats, skips and stops."""
import subprocess
import threading
import time
import uuid

import grpc
import pika

from api import container_service_pb2, error_details, event_pb2, event_service_pb2, event_service_pb2_grpc, operation_pb2, operation_service_pb2, rpc_error
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from harness import StackTest, eventually
from harpoon.internal.v1 import record_pb2, request_pb2
from harpoon.v1 import container_pb2, host_pb2, host_service_pb2, placement_service_pb2

Code = grpc.StatusCode
IMAGE = "oci:/nowhere:1"


class Player:
    """A scheduler without a mind: answers requests as the test says, and writes and tells events."""

    def __init__(self, stack):
        self.stack, self.requests, self.answer = stack, [], None
        self.connection = pika.BlockingConnection(pika.URLParameters(stack.env["HARPOON_AMQP_URL"]))
        self.channel = self.connection.channel()
        self.publisher = pika.BlockingConnection(pika.URLParameters(stack.env["HARPOON_AMQP_URL"])).channel()
        self.channel.basic_consume("requests.r1", self.on_request)
        self.stopping = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        try:
            while not self.stopping:
                self.connection.process_data_events(0.05)
        except (pika.exceptions.AMQPConnectionError, pika.exceptions.ChannelError):
            if not self.stopping:
                raise

    def close(self):
        self.stopping = True
        self.thread.join(10)
        if self.connection.is_open:
            self.connection.close()

    def on_request(self, channel, method, properties, body):
        request = request_pb2.Request.FromString(body)
        self.requests.append((request, properties))
        verdict = self.answer(request) if self.answer else None
        if verdict is not None and properties.reply_to:
            verdict.operation_id = request.operation_id
            channel.basic_publish("", properties.reply_to, verdict.SerializeToString(),
                                  pika.BasicProperties(correlation_id=properties.correlation_id))
        channel.basic_ack(method.delivery_tag)

    def sequence(self):
        rows = self.stack.sql("SELECT sequence FROM regions WHERE name = 'r1'")
        return int(rows[0][0]) if rows else 0

    def commit(self, count=1, pad=0, make=None):
        """Writes events to the record, as a scheduler does before it tells them."""
        first, events, values = self.sequence() + 1, [], []
        for n in range(first, first + count):
            e = event_pb2.Event(id=f"r1-{n}", type="harpoon.container.running", region="r1", project="demo", sequence=n,
                                subject=f"projects/demo/regions/r1/containers/c{n}", message="x" * pad)
            e.time.FromNanoseconds(n * 10**9)
            if make:
                make(e)
            events.append(e)
            values.append(f"('r1', {n}, {n * 10**9}, x'{e.SerializeToString().hex()}')")
        statements = ["START TRANSACTION;", "INSERT IGNORE INTO regions (name) VALUES ('r1');"]
        for at in range(0, count, 100):
            statements.append("INSERT INTO events (region, sequence, time_ns, body) VALUES " + ",".join(values[at:at + 100]) + ";")
        statements.append(f"UPDATE regions SET sequence = {first + count - 1} WHERE name = 'r1'; COMMIT;")
        subprocess.run(["mariadb", "--no-defaults", "-uroot", f"-S{self.stack.env['HARPOON_MYSQL_SOCKET']}",
                        self.stack.env["HARPOON_MYSQL_DATABASE"]], input="\n".join(statements), text=True, check=True)
        return events

    def tell(self, *events):
        for e in events:
            self.publisher.basic_publish("", "events.r1", e.SerializeToString())


def recorded(request):
    name = f"projects/{request.project}/regions/r1/operations/{request.operation_id}"
    return request_pb2.Verdict(operation=operation_pb2.Operation(name=name, stage=operation_pb2.STAGE_RECORDED, request_id=request.request_id))


class GatewayTest(StackTest):
    shape = {"hosts": 0, "schedulers": 0, "regions": 2}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.player = Player(cls.stack)
        cls.addClassCleanup(lambda: cls.player.close())

    def setUp(self):
        self.player.answer = recorded
        self.player.requests.clear()

    def restart(self):
        """Starts what was killed, and connects anew."""
        self.stack.restart()
        type(self).client = self.stack.client()

    def watch(self, seconds=20, **kwargs):
        stream = self.client.watch(timeout=seconds, **kwargs)
        self.addCleanup(stream.cancel)
        return stream

    def events(self, stream, count):
        """The next `count` sequences, without heartbeats."""
        found = []
        for answer in stream:
            if answer.HasField("event"):
                self.assertEqual(answer.sequence, answer.event.sequence)
                found.append(answer.sequence)
            if len(found) == count:
                break
        return found

    # ---- Changes ----

    def test_verdict_is_the_answer(self):
        operation = self.client.create("a", IMAGE, request_id="verdict-1")
        self.assertEqual(operation.stage, operation_pb2.STAGE_RECORDED)
        request, properties = self.player.requests[0]
        self.assertEqual(properties.message_id, request.operation_id)
        self.assertEqual(properties.delivery_mode, 2)
        self.assertEqual(properties.type, "harpoon.internal.v1.Request")
        self.assertEqual((request.project, request.region, request.principal), ("demo", "r1", "admin"))
        self.assertEqual(request.create.container_id, "a")
        self.assertEqual(len(request.payload_digest), 32)

    def test_refusal_is_passed_on(self):
        self.player.answer = lambda r: request_pb2.Verdict(status=status_pb2.Status(code=Code.ALREADY_EXISTS.value[0], message="taken"))
        error = rpc_error(self.client.create, "a", IMAGE)
        self.assertEqual((error.code(), error.details()), (Code.ALREADY_EXISTS, "taken"))

    def test_no_verdict_means_accepted(self):
        self.player.answer = None
        began = time.monotonic()
        operation = self.client.create("a", IMAGE, request_id="silent")
        self.assertEqual(operation.stage, operation_pb2.STAGE_ACCEPTED)
        self.assertEqual(operation.request_id, "silent")
        self.assertTrue(1.5 < time.monotonic() - began < 5)

    def test_short_deadline_still_learns_that_it_is_accepted(self):
        self.player.answer = None
        self.assertEqual(self.client.create("a", IMAGE, timeout=0.6).stage, operation_pb2.STAGE_ACCEPTED)

    def test_validate_only_needs_an_answer(self):
        request = self.client.create_request("a", IMAGE)
        request.validate_only = True
        self.client.call(self.client.containers.CreateContainer, request)
        received, properties = self.player.requests[0]
        self.assertTrue(received.validate_only)
        self.assertNotEqual(properties.delivery_mode, 2)
        self.player.answer = None
        error = rpc_error(self.client.call, self.client.containers.CreateContainer, request)
        self.assert_code(error, Code.UNAVAILABLE)

    def test_explain(self):
        self.player.answer = lambda r: request_pb2.Verdict(explain=placement_service_pb2.ExplainResponse(host_count=7))
        answer = self.client.call(self.client.placement.Explain,
                                  placement_service_pb2.ExplainRequest(create=self.client.create_request("a", IMAGE)))
        self.assertEqual(answer.host_count, 7)

    def test_host_load(self):
        request = host_service_pb2.GetHostLoadRequest(name="regions/r1/hosts/h1")
        self.player.answer = lambda r: request_pb2.Verdict(host_load=host_pb2.HostLoad(age_ms=7))
        self.assertEqual(self.client.call(self.client.hosts.GetHostLoad, request).age_ms, 7)
        received, properties = self.player.requests[0]
        self.assertEqual((received.host_load.name, received.project), (request.name, ""))
        self.assertNotEqual(properties.delivery_mode, 2)
        self.player.answer = None
        self.assert_code(rpc_error(self.client.call, self.client.hosts.GetHostLoad, request), Code.UNAVAILABLE)

    def test_submit_in_bulk(self):
        requests = [event_service_pb2.SubmitRequest(correlation=i, create=self.client.create_request(f"c{i}", IMAGE, request_id=f"bulk-{i}"))
                    for i in range(500)]
        requests.append(event_service_pb2.SubmitRequest(correlation=500))
        requests.append(event_service_pb2.SubmitRequest(correlation=501, create=self.client.create_request("BAD", IMAGE)))
        answers = {a.correlation: a for a in self.client.call(self.client.events.Submit, iter(requests))}
        self.assertEqual(len(answers), 502)
        self.assertTrue(all(answers[i].status.code == 0 and answers[i].operation for i in range(500)))
        self.assertEqual([answers[i].status.code for i in (500, 501)], [3, 3])
        eventually(lambda: len(self.player.requests) >= 500, 10, "all requests to arrive")
        self.assertFalse(any(p.reply_to for _, p in self.player.requests))

    # ---- Events ----

    def test_watch_drops_repeats_and_fills_holes(self):
        start = self.player.sequence()
        stream = self.watch(after_sequence=start)
        self.assertEqual(next(stream).sequence, start)
        batch = self.player.commit(10)
        self.player.tell(*batch[:3], *batch[1:3], batch[7])  # 2, 3 again; then a hole
        self.assertEqual(self.events(stream, 8), [start + i for i in range(1, 9)])
        self.player.tell(*batch)
        self.assertEqual(self.events(stream, 2), [start + 9, start + 10])

    def test_watch_from_the_record_meets_the_stream(self):
        self.stack.kill("gw-1")  # an empty ring
        batch = self.player.commit(1200)
        self.restart()
        after = batch[0].sequence - 1
        stream = self.watch(after_sequence=after)
        self.assertEqual(self.events(stream, 1200), [e.sequence for e in batch])
        self.player.tell(*self.player.commit(2))
        self.assertEqual(self.events(stream, 2), [after + 1201, after + 1202])

    def test_watch_since_and_out_of_range(self):
        batch = self.player.commit(20)
        self.player.tell(*batch)
        since = Timestamp()
        since.FromNanoseconds(batch[5].sequence * 10**9)
        self.assertEqual(self.events(self.watch(since=since), 3), [batch[5].sequence + i for i in range(3)])
        ahead = rpc_error(list, self.watch(after_sequence=10**15))
        self.assert_code(ahead, Code.OUT_OF_RANGE)
        oldest = batch[10].sequence
        self.stack.kill("gw-1")
        self.stack.sql(f"DELETE FROM events WHERE region = 'r1' AND sequence < {oldest}")
        self.stack.sql(f"UPDATE regions SET oldest = {oldest} WHERE name = 'r1'")
        self.restart()
        error = rpc_error(list, self.watch(after_sequence=oldest - 2))
        self.assert_code(error, Code.OUT_OF_RANGE)
        self.assertEqual(error_details(error)["ErrorInfo"].metadata["oldest_sequence"], str(oldest))
        self.assert_code(rpc_error(list, self.watch(since=since)), Code.OUT_OF_RANGE)
        self.assertEqual(self.events(self.watch(after_sequence=oldest - 1), 1), [oldest])
        stream = self.watch(after_sequence=0)
        self.assertEqual(self.events(stream, 1), [oldest])

    def test_slow_reader_is_told_where_to_resume(self):
        start = self.player.sequence()
        with open(self.stack.env["HARPOON_CA"], "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        channel = grpc.secure_channel(self.stack.env["HARPOON_ENDPOINT"].removeprefix("https://"), credentials,
                                      [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)])  # a window of 64 KiB
        self.addCleanup(channel.close)
        request = event_service_pb2.WatchRequest(parent="regions/r1", after_sequence=start)
        stream = event_service_pb2_grpc.EventServiceStub(channel).Watch(request, timeout=60, metadata=self.client.metadata)
        next(stream)
        gaps = self.counter("event_gaps_total")
        self.player.tell(*self.player.commit(25000, pad=600))  # more than the gateway keeps in memory
        eventually(lambda: self.counter("slow_watches_total") == 1, 30, "the watch to be given up")
        # Messages were once lost whose header and body came in different reads: the record healed that, so only this showed it.
        self.assertEqual(self.counter("event_gaps_total"), gaps)
        seen, error = [], None
        try:
            for answer in stream:
                if answer.HasField("event"):
                    seen.append(answer.sequence)
        except grpc.RpcError as e:
            error = e
        self.assert_code(error, Code.RESOURCE_EXHAUSTED)
        self.assertEqual(seen, [start + 1 + i for i in range(len(seen))])
        self.assertEqual(error_details(error)["ErrorInfo"].metadata["resume_after"], str(seen[-1]))
        self.assertEqual(self.events(self.watch(after_sequence=seen[-1]), 3), [seen[-1] + i for i in (1, 2, 3)])

    def counter(self, name):
        return int(self.stack.metric("gw-1", "harpoon_gateway_" + name))

    def test_filters_and_heartbeats(self):
        start = self.player.sequence()
        stream = self.watch(after_sequence=start, heartbeat_ms=100, filter=event_service_pb2.EventFilter(types=["harpoon.host.*"]))
        batch = self.player.commit(5, make=lambda e: setattr(e, "type", "harpoon.host.ready") if e.sequence == start + 3 else None)
        self.player.tell(*batch)
        self.assertEqual(self.events(stream, 1), [start + 3])
        last = next(a for a in stream if a.sequence == start + 5)  # a heartbeat past what did not match
        self.assertFalse(last.HasField("event"))

    def test_events_of_other_projects_are_not_seen(self):
        start = self.player.sequence()
        other = self.stack.client(token="other")
        stream = other.watch(timeout=20, after_sequence=start, heartbeat_ms=100)
        self.addCleanup(stream.cancel)
        batch = self.player.commit(3, make=lambda e: setattr(e, "project", "other") if e.sequence == start + 2 else None)
        self.player.tell(*batch)
        self.assertEqual(self.events(stream, 1), [start + 2])
        listed = other.call(other.events.ListEvents, event_service_pb2.ListEventsRequest(parent="regions/r1", after_sequence=start))
        self.assertEqual([e.sequence for e in listed.events], [start + 2])

    # ---- Reads ----

    def operation(self, stage, region="r1", serial=None, project="demo"):
        """An operation in the record."""
        op = operation_pb2.Operation(name=f"projects/{project}/regions/{region}/operations/{uuid.uuid4().hex}", stage=stage)
        body = record_pb2.OperationRecord(operation=op).SerializeToString().hex()
        active = int(stage < operation_pb2.STAGE_SUCCEEDED)
        self.stack.sql(f"INSERT INTO operations (id, region, project, target, stage, active, serial, body) VALUES "
                       f"('{op.name[-32:]}', '{region}', '{project}', 't', {stage}, {active}, {serial or self.player.sequence()}, x'{body}')")
        return op

    def wait(self, name, seconds):
        request = operation_service_pb2.WaitOperationRequest(name=name)
        request.timeout.FromMilliseconds(int(seconds * 1000))
        return self.client.call(self.client.operations.WaitOperation, request, timeout=seconds + 10)

    def test_wait_is_pushed(self):
        op = self.operation(operation_pb2.STAGE_RUNNING)
        self.assertEqual(self.wait(op.name, 0.2).stage, operation_pb2.STAGE_RUNNING)  # the present state at the timeout
        got = []
        waiters = [threading.Thread(target=lambda: got.append(self.wait(op.name, 20).stage)) for _ in range(5)]
        for w in waiters:
            w.start()
        eventually(lambda: self.counter("waits") == 5, 10, "five calls to wait")
        op.stage = operation_pb2.STAGE_SUCCEEDED
        self.player.tell(*self.player.commit(1, make=lambda e: e.operation_data.CopyFrom(op)))
        for w in waiters:
            w.join(5)
        self.assertEqual(got, [operation_pb2.STAGE_SUCCEEDED] * 5)
        self.assertEqual(self.wait(self.operation(operation_pb2.STAGE_FAILED).name, 20).stage, operation_pb2.STAGE_FAILED)
        nothing = "projects/demo/regions/r1/operations/" + "0" * 32
        self.assert_code(rpc_error(self.wait, nothing, 0.3), Code.NOT_FOUND)

    def test_pages(self):
        rows = []
        for project in ("demo", "other"):
            for i in range(25):
                region = "r1" if i < 20 else "r2"
                c = container_pb2.Container(name=f"projects/{project}/regions/{region}/containers/p{i:02}", uid=uuid.uuid4().hex[:26])
                body = record_pb2.ContainerRecord(container=c).SerializeToString().hex()
                rows.append(f"('{c.name}', '{c.uid}', '{region}', '{project}', 1, x'{body}')")
        self.stack.sql("INSERT INTO containers (name, uid, region, project, generation, body) VALUES " + ",".join(rows))

        def names(client, parent, size):
            request = container_service_pb2.ListContainersRequest(parent=parent, page_size=size)
            return [c.name for c in client.pages(client.containers.ListContainers, request, "containers")]
        demo = [f"projects/demo/regions/{'r1' if i < 20 else 'r2'}/containers/p{i:02}" for i in range(25)]
        other = [n.replace("demo", "other") for n in demo]
        self.assertEqual(names(self.client, "projects/demo/regions/r1", 7), demo[:20])
        self.assertEqual(names(self.client, "projects/demo/regions/-", 7), demo)
        self.assertEqual(names(self.client, "projects/-/regions/-", 10), demo + other)
        self.assertEqual(names(self.stack.client(token="other"), "projects/-/regions/r1", 25), other[:20])
        error = rpc_error(names, self.stack.client(token="other"), "projects/demo/regions/r1", 5)
        self.assert_code(error, Code.PERMISSION_DENIED)
        page = self.client.call(self.client.containers.ListContainers,
                                container_service_pb2.ListContainersRequest(parent="projects/demo/regions/r1", page_size=5))
        request = container_service_pb2.ListContainersRequest(parent="projects/-/regions/r1", page_token=page.next_page_token)
        self.assert_code(rpc_error(self.client.call, self.client.containers.ListContainers, request), Code.INVALID_ARGUMENT)

    def test_operations_are_listed_newest_first_over_regions(self):
        running, done = operation_pb2.STAGE_RUNNING, operation_pb2.STAGE_SUCCEEDED
        names = {}
        for serial in range(1, 13):
            for region in ("r1", "r2"):
                op = self.operation(running if serial % 3 else done, region, serial, project="other")
                names[serial, region] = op.name

        def listed(parent, **kwargs):
            request = operation_service_pb2.ListOperationsRequest(parent=parent, page_size=5, **kwargs)
            return [o.name for o in self.client.pages(self.client.operations.ListOperations, request, "operations")]
        newest = [names[s, r] for s in range(12, 0, -1) for r in ("r1", "r2")]
        self.assertEqual(listed("projects/other/regions/-"), newest)
        self.assertEqual(listed("projects/other/regions/r2"), [n for n in newest if "/r2/" in n])
        self.assertEqual(listed("projects/other/regions/r1", active_only=True), [names[s, "r1"] for s in range(12, 0, -1) if s % 3])
        self.assertEqual(listed("projects/other/regions/r1", target="regions/r1/hosts/h9"), [])

    # ---- Outages; the order of names puts it last ----

    def test_z_broker_down_is_unavailable_in_bounded_time(self):
        start = self.player.sequence()
        stream = self.watch(seconds=120, after_sequence=start, heartbeat_ms=100)
        self.player.commit(3)  # and never told
        self.player.close()
        self.player.publisher.connection.close()
        self.stack.kill("rabbitmq")
        began = time.monotonic()
        error = rpc_error(self.client.create, "a", IMAGE)
        self.assert_code(error, Code.UNAVAILABLE)
        self.assertIn("RetryInfo", error_details(error))
        self.assertLess(time.monotonic() - began, 8)
        self.restart()
        type(self).player = Player(self.stack)
        self.player.answer = recorded
        eventually(lambda: self.accepted(), 30, "the gateway to reconnect")
        self.player.tell(*self.player.commit(1))
        self.assertEqual(self.events(stream, 4), [start + 1, start + 2, start + 3, start + 4])

    def accepted(self):
        try:
            return self.client.create("a", IMAGE).stage == operation_pb2.STAGE_RECORDED
        except grpc.RpcError:
            return False


if __name__ == "__main__":
    import unittest
    unittest.main()
