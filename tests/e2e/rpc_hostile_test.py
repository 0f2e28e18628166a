"""Peers that mean harm, against the RPC test server: after each of them it still answers, has not grown, and ends in order."""
import errno
import os
import resource
import socket
import ssl
import struct
import tempfile
import time
import unittest

import grpc
import hpack

import h2
from harness import eventually
from rpc_server import RpcServer, load_stubs

pb, stubs, _, _ = load_stubs(tempfile.mkdtemp(prefix="hp-stubs-"))
ECHO = "/harpoon.test.v1.EchoService/"
GROWTH_KIB = 40000
SANITIZED = "asan" in os.environ.get("HARPOON_BUILD", "")


class HostileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RpcServer()
        cls.channel = grpc.insecure_channel(cls.server.address["h2c"])
        cls.echo = stubs.EchoServiceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.server.stop()

    def setUp(self):
        self.echo.Echo(pb.EchoRequest(), timeout=10)
        self.before = self.server.resident_kib()

    def tearDown(self):
        began = time.monotonic()
        self.assertEqual(self.echo.Echo(pb.EchoRequest(text="alive"), timeout=10).text, "alive")
        self.assertLess(time.monotonic() - began, 5, "the server answers others in time")
        if not SANITIZED:  # whose quarantine keeps what was freed
            self.assertLess(self.server.resident_kib() - self.before, GROWTH_KIB)

    def connect(self, **options):
        c = h2.Connection("https://" + self.server.address["grpc"], self.server.ca, **options)
        self.addCleanup(c.close)
        return c

    def headers(self, method="Echo"):
        return [(":method", "POST"), (":scheme", "https"), (":path", ECHO + method), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers")]

    def closed(self, c, seconds=15):
        """The server ends the connection."""
        answer = c.answer(stream=0, seconds=seconds)
        self.assertTrue(answer.closed, "the connection is still open")
        return answer

    def send_until_refused(self, c, data, times):
        for _ in range(times):
            if not c.send(data):
                return

    def test_garbage_instead_of_the_preface(self):
        c = self.connect(greet=False)
        c.send(os.urandom(4096))
        self.closed(c)

    def test_http_1_on_the_h2_port(self):
        c = self.connect(greet=False)
        c.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.closed(c)

    def test_settings_flood(self):
        """Acknowledgements that nobody reads stop the reading, not the server."""
        c = self.connect(timeout=3)
        self.send_until_refused(c, h2.frame(h2.SETTINGS, 0, 0) * 1000, 200)

    def test_ping_flood(self):
        c = self.connect(timeout=3)
        self.send_until_refused(c, h2.frame(h2.PING, 0, 0, b"12345678") * 1000, 300)

    def test_empty_data_flood(self):
        c = self.connect()
        c.request(self.headers("Chat"), end=False)
        self.send_until_refused(c, h2.frame(h2.DATA, 0, 1) * 1000, 300)

    def test_priority_flood(self):
        c = self.connect()
        for i in range(100):
            if not c.send(b"".join(h2.frame(h2.PRIORITY, 0, 2 * (i * 100 + j) + 1, struct.pack(">IB", 0, 1)) for j in range(100))):
                return

    def test_rapid_reset(self):
        """Told why, while it lasts: who only sends for longer than the server lingers has its own end of the connection to blame."""
        c = self.connect()
        encoder = hpack.Encoder()
        for i in range(20000):
            stream = 2 * i + 1
            if not c.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, encoder.encode(self.headers("Chat"))) + h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8))):
                break
            if i % 100 == 99 and c.answer(stream=0, seconds=0.001).goaway is not None:
                self.closed(c)
                return
        self.assertIsNotNone(self.closed(c).goaway)

    def test_continuation_flood(self):
        c = self.connect()
        c.send(h2.frame(h2.HEADERS, 0, 1, c.encoder.encode(self.headers())))
        self.send_until_refused(c, h2.frame(h2.CONTINUATION, 0, 1, b"\0\x01a\x01b" * 3000), 100)
        self.closed(c)

    def test_header_bomb(self):
        """One entry of 4 KB in the table, named 14,000 times."""
        c = self.connect()
        block = c.encoder.encode(self.headers()) + b"\x40\x01x\x7f" + b"\xa1\x1e" + b"v" * 4000 + b"\xbe" * 12000
        c.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, block))
        self.assertIn(c.answer().outcome, ("reset", "grpc 8", "goaway", "closed"))

    def test_more_streams_than_allowed(self):
        c = self.connect()
        for i in range(2000):
            if not c.request(self.headers("Chat"), stream=2 * i + 1, end=False):
                break
        self.server.settle()

    def test_partial_messages_on_every_stream(self):
        """Each of 200 streams announces 1 MiB and sends a part of it: what is held is what was sent, within the budget, and is given back."""
        c = self.connect()
        c.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
        for i in range(200):
            if not c.request(self.headers("Chat"), body=struct.pack(">BI", 0, 1 << 20) + b"x" * 16000, stream=2 * i + 1, end=False):
                break
        c.close()

    def test_data_without_a_stream(self):
        c = self.connect()
        c.send(h2.frame(h2.DATA, 0, 7, b"x"))
        self.assertIsNotNone(self.closed(c).goaway)

    def test_frame_too_large(self):
        c = self.connect()
        c.request(self.headers("Chat"), end=False)
        c.send(h2.frame(h2.DATA, 0, 1, b"x" * 20000))
        self.assertIsNotNone(self.closed(c).goaway)

    def test_window_overflow(self):
        c = self.connect()
        c.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fffffff)) * 2)
        self.assertIsNotNone(self.closed(c).goaway)

    def test_more_than_the_window(self):
        """A call that is held back, and a client that sends on all the same."""
        c = self.connect()
        c.request(self.headers("Chat"), body=h2.message(pb.EchoRequest(size=300000).SerializeToString()), end=False)
        self.server.settle()
        self.send_until_refused(c, h2.frame(h2.DATA, 0, 1, h2.message(b"") * 3000), 200)
        answer = c.answer(seconds=10)
        self.assertTrue(answer.closed or answer.goaway is not None or answer.reset is not None, answer.outcome)

    def test_answers_that_nobody_reads(self):
        """Requests for large answers on a connection whose windows stay shut: bounded by the call's buffer, then by the handler."""
        c = self.connect()
        c.send(h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
        body = h2.message(pb.EchoRequest(count=100000, size=10000).SerializeToString())
        for i in range(100):
            c.request(self.headers("Repeat"), body=body, stream=2 * i + 1)
        self.server.settle()

    def test_a_reader_that_stops_reading_the_socket(self):
        c = self.connect()
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.send(h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7fffffff)) + h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7ffeffff)))
        c.request(self.headers("Repeat"), body=h2.message(pb.EchoRequest(count=100000, size=10000).SerializeToString()))
        self.server.settle()
        self.send_until_refused(c, h2.frame(h2.PING, 0, 0, b"12345678") * 1000, 50)

    def test_many_connections_that_say_nothing(self):
        host, port = self.server.address["grpc"].split(":")
        sockets = [socket.create_connection((host, int(port)), timeout=10) for _ in range(500)]
        self.server.settle()
        self.assertEqual(self.echo.Echo(pb.EchoRequest(text="alive"), timeout=10).text, "alive")
        for s in sockets:
            s.close()

    def served(self, kind):
        try:
            if kind == "grpc":
                c = h2.Connection("https://" + self.server.address["grpc"], self.server.ca, timeout=3)
                c.request(self.headers(), body=h2.message(b""))
                outcome = c.answer(seconds=3).outcome
            else:
                c = h2.Connection("https://" + self.server.address["http"], self.server.ca, greet=False, alpn=None, timeout=3)
                c.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                outcome = c.sock.recv(1000)
            c.close()
            return outcome
        except OSError:
            return None

    def test_descriptors_run_out(self):
        """Connections beyond the limit wait or are closed and nothing spins; when the others have gone, new ones are served, though nobody raised the limit."""
        pid = self.server.process.pid
        for kind in ("grpc", "http"):
            with self.subTest(kind=kind):
                host, port = self.server.address[kind].split(":")
                self.assertTrue(eventually(lambda k=kind: self.served(k), 10, "a connection to be served"))
                old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 8, old[1]))
                try:
                    sockets = [socket.create_connection((host, int(port)), timeout=10) for _ in range(60)]
                    self.server.settle()
                    self.assertEqual(self.echo.Echo(pb.EchoRequest(text="alive"), timeout=10).text, "alive")
                    for s in sockets:
                        s.close()
                    self.server.settle()  # the last of them is forgotten
                    self.assertTrue(eventually(lambda k=kind: self.served(k), 20, "a new connection to be served"))
                finally:
                    resource.prlimit(pid, resource.RLIMIT_NOFILE, old)

    def test_http_junk(self):
        """On the Connect port, over plain TCP and TLS."""
        host, port = self.server.address["http"].split(":")
        for data in (os.urandom(2000), b"\x16\x03\x01" + os.urandom(500), b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100):
            with socket.create_connection((host, int(port)), timeout=10) as s:
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except ConnectionError:
                    pass
                except OSError as error:  # it was closed before the shutdown
                    self.assertEqual(error.errno, errno.ENOTCONN)

    def test_http_declared_length_and_no_body(self):
        c = h2.Connection("https://" + self.server.address["http"], self.server.ca, greet=False, alpn=None)
        c.send(f"POST {ECHO}Echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{".encode())
        self.server.settle()
        c.close()

    def test_http_pipelined(self):
        c = h2.Connection("https://" + self.server.address["http"], self.server.ca, greet=False, alpn=None)
        one = f'POST {ECHO}Echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{{"delayMs": 5}}'.encode()
        c.send(one * 50)
        got = b""
        while got.count(b"HTTP/1.1 200") < 50:
            got += c.sock.recv(65536)
        c.close()


class SilenceTest(unittest.TestCase):
    def test_no_preface(self):
        """Ten seconds are given, not more."""
        server = RpcServer(tls=False)
        try:
            host, port = server.address["h2c"].split(":")
            with socket.create_connection((host, int(port)), timeout=20) as s:
                began = time.monotonic()
                while s.recv(65536):
                    pass
                self.assertLess(time.monotonic() - began, 15)
            eventually(lambda: "no HTTP/2 preface" in server.text(), 5, "the log line")
        finally:
            server.stop()

    def test_slow_http(self):
        """Bytes that drip do not hold a connection: handshake, headers, body and idle time end. A call that waits for its answer may wait."""
        head = f"POST {ECHO}Echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n".encode()
        server = RpcServer(read_ms=1000)

        def connection(drip=b"", at_once=b"", tls=True):
            if not tls:
                host, port = server.address["http"].split(":")
                return socket.create_connection((host, int(port)), timeout=20), drip
            c = h2.Connection("https://" + server.address["http"], server.ca, greet=False, alpn=None)
            c.send(at_once)
            return c.sock, drip

        try:
            cases = {"no handshake": connection(tls=False), "nothing": connection(), "headers": connection(drip=head), "body": connection(at_once=head, drip=b"{" * 19),
                     "idle": connection(at_once=head + b" " * 18 + b"{}")}
            waiting, _ = connection(at_once=head + b'{"hang":true       }')
            began = time.monotonic()
            for name, (sock, drip) in cases.items():
                with self.subTest(name):
                    sock.settimeout(0.2)
                    while True:
                        try:
                            if drip:
                                sock.sendall(drip[:1])
                                drip = drip[1:]
                            if not sock.recv(4096):
                                break
                        except TimeoutError:
                            self.assertLess(time.monotonic() - began, 15)
                        except (ConnectionError, ssl.SSLError):
                            break
            waiting.settimeout(1)
            with self.assertRaises(TimeoutError):
                waiting.recv(1)
            waiting.close()
        finally:
            server.stop()
