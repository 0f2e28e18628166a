"""Bad input behind the gateway: the agents' link, poisoned AMQP messages, a corrupt journal. Each case has a name; afterwards the daemons are the same
processes and work."""
import os
import socket
import sqlite3
import ssl
import subprocess
import uuid

import pika

from api import GENERATED  # noqa: F401  (makes the generated modules visible)
from harness import StackTest, eventually, image
from harpoon.internal.v1 import agent_pb2, report_pb2, request_pb2
from harpoon.v1 import container_pb2, host_pb2
from paths import STACK, program
from wire import agent_frame, field, nested
import machine


class AgentLinkTest(StackTest):
    """The router's port for agents."""

    shape = {"hosts": 0, "sim_hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = cls.stack.pids()
        cls.address = cls.stack.status()["r1-router-1"]["ports"]["agents"]
        cls.certificates = {}
        import sys
        from paths import TOP
        sys.path.append(os.path.join(TOP, "deploy/dev/lib"))
        from pki import Authority
        cls.authority = Authority(os.path.join(cls.stack.directory, "pki"))
        cls.stranger = Authority(os.path.join(cls.stack.directory, "pki-stranger"))
        cls.stranger.ensure()

    @classmethod
    def tearDownClass(cls):
        after = cls.stack.pids()
        super().tearDownClass()
        assert after == cls.before, f"a daemon ended: {cls.before} then {after}"

    def tearDown(self):
        self.client.succeeded(self.client.create("t-" + uuid.uuid4().hex[:8], image()))

    def hello(self, **change):
        fields = {"version_min": 1, "version_max": 1, "region": "r1", "host": "bad", "session": 5}
        fields.update(change)
        return agent_pb2.AgentMessage(hello=agent_pb2.AgentHello(**fields)).SerializeToString()

    def connect(self, certificate=None, seconds=5):
        host, port = self.address.rsplit(":", 1)
        context = ssl.create_default_context(cafile=self.authority.ca)
        if certificate is not False:
            context.load_cert_chain(*(certificate or self.authority.host("r1", "bad")))
        s = context.wrap_socket(socket.create_connection((host, int(port)), timeout=seconds), server_hostname="localhost")
        self.addCleanup(s.close)
        return s

    def answers(self, data, certificate=None, seconds=5):
        """RouterMessages that come back until the router hangs up; None stands for no end in time."""
        got, found = b"", []
        try:
            s = self.connect(certificate, seconds)
            s.sendall(data)
            while True:
                part = s.recv(65536)
                if not part:
                    break
                got += part
                while len(got) >= 4 and len(got) >= 4 + int.from_bytes(got[:4], "big"):
                    size = int.from_bytes(got[:4], "big")
                    found.append(agent_pb2.RouterMessage.FromString(got[4:4 + size]))
                    got = got[4 + size:]
        except TimeoutError:
            found.append(None)
        except (ConnectionError, ssl.SSLError):
            pass
        return found

    def refused(self, data, certificate=None):
        """The router hangs up, and has not welcomed the connection."""
        found = self.answers(data, certificate)
        self.assertNotIn(None, found, "the router hangs up")
        self.assertFalse([m for m in found if m.WhichOneof("body") == "welcome"], found)
        return found

    def test_no_certificate(self):
        self.refused(agent_frame(self.hello()), certificate=False)

    def test_certificate_of_a_stranger(self):
        self.refused(agent_frame(self.hello()), certificate=self.stranger.host("r1", "bad"))

    def test_certificate_of_a_user(self):
        self.refused(agent_frame(self.hello()), certificate=self.authority.user("admin"))

    def test_certificate_of_another_host(self):
        self.refused(agent_frame(self.hello(host="sim-0")))

    def test_certificate_of_another_region(self):
        self.refused(agent_frame(self.hello(region="r2")), certificate=self.authority.host("r2", "bad"))

    def test_plain_text(self):
        host, port = self.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            try:
                self.assertNotIn(b"200", s.recv(4096))
            except ConnectionError:
                pass

    def test_frame_of_no_bytes(self):
        self.refused(b"\0\0\0\0")

    def test_frame_of_4_gib(self):
        self.refused(b"\xff\xff\xff\xff" + b"x" * 100)

    def test_frame_above_the_limit(self):
        self.refused(((1 << 20) + 1).to_bytes(4, "big") + b"x" * 1000)

    def test_frame_of_garbage(self):
        self.refused(agent_frame(b"\xff" * 100))

    def test_frame_of_depth(self):
        self.refused(agent_frame(nested(1, 9000)))

    def test_frame_of_empty_items(self):
        self.refused(agent_frame(field(1, field(9, field(9, b"") * 300_000)[:900_000])))

    def test_frame_that_is_cut(self):
        s = self.connect()
        s.sendall(agent_frame(self.hello())[:10])
        s.close()

    def test_no_hello_first(self):
        self.refused(agent_frame(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat()).SerializeToString()))

    def test_nothing_at_all_is_given_up(self):
        found = self.answers(b"", seconds=40)
        self.assertNotIn(None, found, "a connection that says nothing is closed")

    def test_hello_of_another_version(self):
        found = self.refused(agent_frame(self.hello(version_min=90, version_max=99)))
        self.assertTrue(found and found[0].WhichOneof("body") == "refused", "it says why")

    def test_hello_with_versions_the_wrong_way_round(self):
        self.refused(agent_frame(self.hello(version_min=5, version_max=1)))

    def test_hello_with_invalid_utf8(self):
        self.refused(agent_frame(field(1, field(3, b"\xff\xfe") + field(4, b"bad"))))

    def test_hello_with_a_session_below_0(self):
        self.refused(agent_frame(self.hello(session=-5)))

    def test_hello_with_networks_beyond_all_limits(self):
        for fields in ({"facts": host_pb2.HostFacts(network_functions=-1)}, {"facts": host_pb2.HostFacts(network_functions=4097)},
                       {"facts": host_pb2.HostFacts(network_modes=[1] * 17)}, {"allocatable": container_pb2.Resources(network_bps=-1)}):
            with self.subTest(fields):
                found = self.refused(agent_frame(self.hello(**fields)))
                self.assertIn("network", found[0].refused.status.message)

    def test_second_hello(self):
        found = self.answers(agent_frame(self.hello(session=1 << 41)) + agent_frame(self.hello(session=(1 << 41) + 1)))
        self.assertNotIn(None, found, "the router hangs up")

    def test_report_of_another_hosts_operation(self):
        result = agent_pb2.AgentMessage(result=agent_pb2.CommandResult(report_id=1, operation_id="0" * 32, uid="0" * 26, generation=9,
                                                                     outcome=agent_pb2.COMMAND_OUTCOME_DONE)).SerializeToString()
        found = self.answers(agent_frame(self.hello(session=1 << 42)) + agent_frame(result), seconds=3)
        self.assertTrue(found)  # welcomed; what it says of others changes nothing


class PoisonTest(StackTest):
    """Messages in RabbitMQ that no daemon of ours would send."""

    shape = {"hosts": 0, "sim_hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = cls.stack.pids()
        cls.broker = pika.BlockingConnection(pika.URLParameters(cls.stack.env["HARPOON_AMQP_URL"]))
        cls.channel = cls.broker.channel()
        cls.channel.confirm_delivery()

    @classmethod
    def tearDownClass(cls):
        after = cls.stack.pids()
        cls.broker.close()
        super().tearDownClass()
        assert after == cls.before, f"a daemon ended: {cls.before} then {after}"

    def dead(self):
        return self.channel.queue_declare("dead.r1", passive=True).method.message_count

    def publish(self, queue, body, **properties):
        self.channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **properties), mandatory=True)

    def poison(self, queue, body, **properties):
        """The message ends among the dead, and work goes on."""
        before = self.dead()
        self.publish(queue, body, **properties)
        eventually(lambda: self.dead() > before, 20, "the message among the dead letters", interval=0.1)
        self.works()

    def works(self):
        self.client.succeeded(self.client.create("t-" + uuid.uuid4().hex[:8], image()))

    REQUEST = {"type": "harpoon.internal.v1.Request", "content_type": "application/x-protobuf"}
    REPORT = {"type": "harpoon.internal.v1.Report", "content_type": "application/x-protobuf"}

    def request(self, **change):
        fields = {"operation_id": uuid.uuid4().hex, "project": "demo", "region": "r1", "request_id": "x", "payload_digest": b"d" * 32}
        fields.update(change)
        return request_pb2.Request(**fields).SerializeToString()

    def test_request_of_no_bytes(self):
        self.poison("requests.r1", b"", **self.REQUEST)

    def test_request_of_garbage(self):
        self.poison("requests.r1", b"\xff" * 64, **self.REQUEST)

    def test_request_of_text(self):
        self.poison("requests.r1", b"please make me a container")

    def test_request_of_another_type(self):
        self.poison("requests.r1", self.request(), type="harpoon.internal.v1.Verdict")

    def test_request_without_a_payload(self):
        self.poison("requests.r1", self.request(), **self.REQUEST)

    def test_request_of_another_region(self):
        create = self.client.create_request("elsewhere", image())
        self.poison("requests.r1", self.request(region="r9", create=create), **self.REQUEST)

    def test_request_with_a_bad_operation_id(self):
        create = self.client.create_request("odd-id", image())
        self.poison("requests.r1", self.request(operation_id="../../etc", create=create), **self.REQUEST)

    def test_request_with_a_short_digest(self):
        create = self.client.create_request("short-digest", image())
        self.poison("requests.r1", self.request(payload_digest=b"x", create=create), **self.REQUEST)

    def test_request_of_depth(self):
        self.poison("requests.r1", nested(10, 9000), **self.REQUEST)

    def test_request_of_4_mib(self):
        self.poison("requests.r1", field(9, b"x" * (4 << 20)), **self.REQUEST)

    def test_request_with_a_reply_to_nowhere(self):
        self.publish("requests.r1", self.request(create=self.client.create_request("r-" + uuid.uuid4().hex[:8], image())), **self.REQUEST,
                     reply_to="reply.nobody", correlation_id="1")
        self.works()

    def test_report_of_no_bytes(self):
        self.poison("reports.r1", b"", **self.REPORT)

    def test_report_of_garbage(self):
        self.poison("reports.r1", b"\x0a\xff\xff\xff\xff\x0f", **self.REPORT)

    def test_report_of_another_type(self):
        self.poison("reports.r1", b"x", type="text/plain")

    def test_report_without_a_body(self):
        self.poison("reports.r1", report_pb2.Report(router="x", region="r1", host="sim-0", session=1).SerializeToString(), **self.REPORT)

    def test_report_of_an_unknown_host_changes_nothing(self):
        result = agent_pb2.CommandResult(report_id=1, operation_id="0" * 32, uid="0" * 26, generation=1, outcome=agent_pb2.COMMAND_OUTCOME_DONE)
        self.publish("reports.r1", report_pb2.Report(router="x", region="r1", host="nobody", session=1, result=result).SerializeToString(), **self.REPORT)
        self.works()
        self.assertNotIn("regions/r1/hosts/nobody", [h.name for h in self.client.list_hosts()])

    def test_metrics_of_garbage(self):
        self.publish("metrics.r1", b"\xff\xff\xff", type="harpoon.internal.v1.MetricsBatch")
        self.works()

    def test_a_token_of_leadership_from_a_stranger(self):
        self.publish("leader.r1", b"me")
        self.works()

    def test_an_event_that_is_garbage(self):
        self.publish("events.r1", b"\xff\xff\xff")
        self.works()
        stream = self.client.watch(after_sequence=0, heartbeat_ms=200, timeout=20)
        self.assertTrue(any(answer.event.sequence for _, answer in zip(range(50), stream)), "events go on")
        stream.cancel()

    def test_a_command_that_is_garbage(self):
        queues = [line.split()[0] for line in self.stack.rabbitmqctl("list_queues", "-p", "harpoon", "name", "--silent").splitlines() if line.startswith("router.")]
        for q in queues:
            self.publish(q, b"\xff\xff\xff")
            self.publish(q, report_pb2.RouterCommand(command=agent_pb2.Command(region="r1", host="nobody", operation_id="0" * 32)).SerializeToString(),
                         type="harpoon.internal.v1.RouterCommand")
        self.assertTrue(queues)
        self.works()

    def test_a_verdict_that_is_garbage(self):
        queues = [line.split()[0] for line in self.stack.rabbitmqctl("list_queues", "-p", "harpoon", "name", "--silent").splitlines() if line.startswith("reply.")]
        for q in queues:
            self.publish(q, b"\xff\xff\xff", correlation_id="nobody")
        self.assertTrue(queues)
        self.works()

    def test_dead_letters_can_be_seen_and_dropped(self):
        self.poison("requests.r1", b"\xff" * 8, **self.REQUEST)
        self.assertTrue(self.stack.cli("dead", "list").stdout.strip())


class JournalTest(StackTest):
    """The agent's journal, damaged while the agent is away. Containers run on, whatever it says."""

    shape = {"hosts": 1}

    def journal(self):
        path = os.path.join(self.stack.directory, "hosts/r1-h1/journal.db")
        self.assertTrue(os.path.exists(path))
        return path

    def setUp(self):
        self.name = "j-" + uuid.uuid4().hex[:8]
        self.client.succeeded(self.client.create(self.name, image()))
        self.status = self.client.get(self.name).status

    def assert_untouched(self):
        self.assertEqual(machine.identity(self.status.pid), (self.status.pid, self.status.pid_start_ticks), "the container was left alone")

    def refused(self, damage):
        """The agent does not start on a damaged journal, and says what to do; done as it says, it works, and its container has been left alone."""
        path = self.journal()
        self.stack.kill("r1-h1")
        damage(path)
        done = subprocess.run([STACK, "--state", self.stack.directory, "up"], capture_output=True, text=True, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0, "the agent starts with a damaged journal")
        self.assertIn("--quarantine-journal", done.stderr)
        self.assertIn(path, done.stderr)
        self.assert_untouched()
        ready = os.path.join(self.stack.directory, "once.ready")
        agent = subprocess.Popen([program("harpoon-host-agent"), "--config", os.path.join(self.stack.directory, "conf/r1-h1.ini"), "--quarantine-journal",
                                  "--ready-file", ready], stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: os.path.exists(ready), 20, "the agent with its journal moved aside")
        finally:
            agent.terminate()
            agent.wait(20)
        self.works()

    def works(self):
        """After a start in order, the old container is known again as it runs, and new ones come and go."""
        self.stack.command("up")
        self.assert_untouched()

        def known():
            status = self.client.get(self.name).status
            return (status.pid, status.pid_start_ticks, status.state) == (self.status.pid, self.status.pid_start_ticks, self.status.state)
        eventually(known, 30, lambda: f"the container to be known again: {self.client.get(self.name)}")
        name = "w-" + uuid.uuid4().hex[:8]
        self.client.succeeded(self.client.create(name, image()))
        self.client.succeeded(self.client.delete(name))
        self.assert_untouched()

    def test_overwritten(self):
        def damage(path):
            with open(path, "r+b") as f:
                f.write(os.urandom(os.path.getsize(path)))
            self.forget_wal(path)
        self.refused(damage)

    def test_cut(self):
        def damage(path):
            self.forget_wal(path)
            with open(path, "r+b") as f:
                f.truncate(100)
        self.refused(damage)

    def test_rows_of_garbage(self):
        def damage(path):
            with sqlite3.connect(path) as db:
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    for column in [c[1] for c in db.execute(f"PRAGMA table_info({table})") if "BLOB" in c[2].upper()]:
                        db.execute(f"UPDATE {table} SET {column} = x'ffffffff'")
        self.refused(damage)

    def test_gone(self):
        path = self.journal()
        self.stack.kill("r1-h1")
        os.unlink(path)
        self.forget_wal(path)
        self.works()

    @staticmethod
    def forget_wal(path):
        for suffix in ("-wal", "-shm", "-journal"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)


if __name__ == "__main__":
    import unittest
    unittest.main()
