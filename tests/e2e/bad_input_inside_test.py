"""Bad input from inside: poisoned messages in the broker, strangers and liars on the agent link, a corrupt journal. Nothing crashes, nothing is lost."""
import os
import socket
import ssl
import struct
import subprocess
import sys
import unittest

import pika

from api import host_pb2
from harness import StackTest, eventually, image
from harpoon.internal.v1 import agent_pb2, report_pb2, request_pb2
from harpoon.v1 import container_service_pb2 as cs
from paths import TOP, program

sys.path.append(os.path.join(TOP, "deploy/dev/lib"))
import pki  # noqa: E402

OPERATION = "0123456789abcdef0123456789abcdef"


def request(**changes):
    """A request as a gateway would send it, with changes."""
    fields = {"operation_id": OPERATION, "project": "demo", "region": "r1", "request_id": "x", "payload_digest": bytes(32), "principal": "p",
              "delete": cs.DeleteContainerRequest(name="projects/demo/regions/r1/containers/none")}
    fields.update(changes)
    return request_pb2.Request(**{k: v for k, v in fields.items() if v is not None}).SerializeToString()


# Poison for requests.r1: none of these can be answered, so each must end in dead.r1.
REQUESTS = [
    ("empty", b""),
    ("random", bytes(range(255, 0, -1)) * 3),
    ("truncated", request()[:-3]),
    ("groups_9000_deep", b"\x0b" * 9000 + b"\x0c" * 9000),
    ("two_mib", b"\x0a" + b"\x80\x80\x80\x01" + b"a" * (2 << 20)),
    ("no_operation_id", request(operation_id=None)),
    ("short_operation_id", request(operation_id="abc")),
    ("other_region", request(region="r9")),
    ("no_payload", request(delete=None)),
    ("invalid_utf8", b"\x0a\x02\xff\xfe" + request()),
]

REPORTS = [
    ("empty", b""),
    ("random", b"\xff" * 100),
    ("no_host", report_pb2.Report(router="x", region="r1", session=1, detach=report_pb2.Detach()).SerializeToString()),
    ("no_body", report_pb2.Report(router="x", region="r1", host="h1", session=1).SerializeToString()),
    ("other_region", report_pb2.Report(router="x", region="r9", host="h1", session=1, detach=report_pb2.Detach()).SerializeToString()),
    ("bad_host_name", report_pb2.Report(router="x", region="r1", host="../h", session=1, detach=report_pb2.Detach()).SerializeToString()),
]

METRICS = [
    ("random", b"\xff" * 100),
    ("unknown_host", report_pb2.MetricsBatch(router="x", samples=[report_pb2.HostSample(host="nobody", session=1)]).SerializeToString()),
    ("negative", report_pb2.MetricsBatch(router="x", samples=[report_pb2.HostSample(
        host="h1", session=-1, metrics=agent_pb2.AgentMetrics(host=host_pb2.HostMetrics(cpu_millis_used=-(2**63))))]).SerializeToString()),
]


def frame(message):
    body = message if isinstance(message, bytes) else message.SerializeToString()
    return struct.pack(">I", len(body)) + body


def hello(**changes):
    fields = {"version_min": 1, "version_max": 1, "region": "r1", "host": "h9", "session": 5}
    fields.update(changes)
    return frame(agent_pb2.AgentMessage(hello=agent_pb2.AgentHello(**fields)))


# What a host with the certificate of r1/h9 sends; the router must end the connection, with or without a Refused before.
LINK = [
    ("frame_of_length_zero", b"\0\0\0\0"),
    ("frame_over_1_mib", b"\0\x10\0\1" + b"x" * 1000),
    ("frame_of_4_gib", b"\xff\xff\xff\xff"),
    ("garbage_in_a_frame", frame(b"\xff" * 50)),
    ("no_body", frame(b"\x52\x00" * 3)),
    ("groups_9000_deep", frame(b"\x0b" * 9000 + b"\x0c" * 9000)),
    ("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("result_before_hello", frame(agent_pb2.AgentMessage(result=agent_pb2.CommandResult(report_id=1)))),
    ("another_host", hello(host="h1")),
    ("another_region", hello(region="r2")),
    ("empty_host", hello(host="")),
    ("version_99", hello(version_min=99, version_max=99)),
    ("session_zero", hello(session=0)),
    ("session_negative", hello(session=-1)),
    ("second_hello", hello() + hello(session=6)),
    ("invalid_utf8_host", frame(b"\x0a\x06\x22\x02\xff\xfe\x28\x05")),
    ("negative_resources", hello(allocatable={"memory_bytes": -1})),
]


class BadInsideInput(StackTest):
    shape = {"hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = cls.stack.pids()
        cls.broker = pika.BlockingConnection(pika.URLParameters(cls.stack.env["HARPOON_AMQP_URL"]))
        cls.addClassCleanup(cls.broker.close)
        cls.channel = cls.broker.channel()
        cls.authority = pki.Authority(os.path.dirname(cls.stack.env["HARPOON_CA"]))
        host, port = cls.stack.status()["r1-router-1"]["ports"]["agents"].rsplit(":", 1)
        cls.router = (host, int(port))

    def dead(self):
        """Messages in dead.r1."""
        answer = self.channel.queue_declare("dead.r1", passive=True)
        return answer.method.message_count

    def publish(self, queue, body):
        self.channel.basic_publish("", queue, body, pika.BasicProperties(message_id=OPERATION, delivery_mode=2))

    def poison(self, queue, body):
        before = self.dead()
        self.publish(queue, body)
        eventually(lambda: self.dead() == before + 1, 15, f"the message to be in dead.r1, which has {self.dead()}")

    def connect(self, certificate=None, ca=None):
        context = ssl.create_default_context(cafile=ca or self.stack.env["HARPOON_CA"])
        if certificate:
            context.load_cert_chain(*certificate)
        raw = socket.create_connection(self.router, timeout=15)
        return context.wrap_socket(raw, server_hostname="localhost")

    def ends(self, s):
        """Reads until the router closes; an open connection is a time-out, which fails the test."""
        try:
            while s.recv(65536):
                pass
        except (ConnectionResetError, ssl.SSLError):
            pass

    def test_link_without_a_certificate(self):
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with self.connect() as s:
                s.sendall(hello())
                if not s.recv(1):
                    raise ConnectionError("closed")

    def test_link_certificate_of_a_stranger(self):
        stranger = pki.Authority(os.path.join(self.stack.directory, "stranger"))
        stranger.ensure()
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            with self.connect(stranger.host("r1", "h9")) as s:
                s.sendall(hello())
                if not s.recv(1):
                    raise ConnectionError("closed")

    def test_link_certificate_of_a_server(self):
        with self.connect(self.authority.server("gw-1")) as s:
            s.sendall(hello())
            self.ends(s)

    def test_link_plain_tcp(self):
        with socket.create_connection(self.router, timeout=15) as s:
            s.sendall(hello())
            self.ends(s)

    def test_link_cannot_report_for_another_host(self):
        """I11: what h9 says about h1's work never reaches the record as h1's word."""
        with self.connect(self.authority.host("r1", "h9")) as s:
            s.sendall(hello() + frame(agent_pb2.AgentMessage(result=agent_pb2.CommandResult(
                report_id=1, uid="0" * 26, operation_id=OPERATION, generation=1, outcome=agent_pb2.COMMAND_OUTCOME_DONE))))
            eventually(lambda: any(h.name.endswith("/h9") for h in self.client.list_hosts()), 20, "h9 to be attached")
        h1 = next(h for h in self.client.list_hosts() if h.name.endswith("/h1"))
        self.assertEqual(h1.state, host_pb2.HOST_STATE_READY)

    def test_journal_corrupt(self):
        """The agent refuses to start on a journal that is no database, and says what to do."""
        state = os.path.join(self.stack.directory, "corrupt")
        source = os.path.join(self.stack.directory, "conf", "r1-h1.ini")
        os.makedirs(state)
        journal = next(n for n in os.listdir(os.path.join(self.stack.directory, "hosts", "r1-h1")) if n.startswith("journal"))
        with open(os.path.join(state, journal), "wb") as f:
            f.write(b"this is not a database" * 500)
        done = subprocess.run([program("harpoon-host-agent"), "--config", source, "--set", f"agent.state_dir={state}", "--set",
                               f"agent.run_dir={state}/r", "--set", "metrics.listen="], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("journal", done.stderr)
        self.assertIn(state, done.stderr)

    def test_zy_dead_letters_are_listed_and_dropped(self):
        listed = self.stack.cli("dead", "list").stdout
        self.assertIn("requests.r1", listed)
        self.assertIn("reports.r1", listed)
        self.stack.cli("dead", "drop", "--all")
        eventually(lambda: self.dead() == 0, 15, "dead.r1 to be empty")

    def test_zz_daemons_are_the_same_processes(self):
        self.assertEqual(self.stack.pids(), self.before)
        self.client.succeeded(self.client.create("works-on", image()))
        self.client.succeeded(self.client.delete("works-on"))


def link(self, data):
    with self.connect(self.authority.host("r1", "h9")) as s:
        s.sendall(data)
        self.ends(s)


for name, body in REQUESTS:
    setattr(BadInsideInput, f"test_requests_{name}", lambda self, b=body: self.poison("requests.r1", b))
for name, body in REPORTS:
    setattr(BadInsideInput, f"test_reports_{name}", lambda self, b=body: self.poison("reports.r1", b))
for name, body in METRICS:
    setattr(BadInsideInput, f"test_metrics_{name}", lambda self, b=body: self.publish("metrics.r1", b))
for name, data in LINK:
    setattr(BadInsideInput, f"test_link_{name}", lambda self, d=data: link(self, d))

if __name__ == "__main__":
    unittest.main()
