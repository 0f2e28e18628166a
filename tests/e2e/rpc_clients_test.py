"""The RPC layer by itself, spoken to by clients that are not ours: grpcio, grpc-js, buf curl, curl; gRPC over TLS and h2c, Connect over HTTP/1.1."""
import base64
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from harness import eventually
from paths import JS, TOP
from rpc_server import RpcServer, load_stubs

pb, stubs, health_pb2, health_pb2_grpc = load_stubs(tempfile.mkdtemp(prefix="hp-stubs-"))
ECHO = "/harpoon.test.v1.EchoService/"
BUF = os.path.join(JS, "node_modules/.bin/buf")


class RpcCase(unittest.TestCase):
    options = {}

    @classmethod
    def setUpClass(cls):
        cls.server = RpcServer(**cls.options)
        cls.address = cls.server.address

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def credentials(self):
        with open(self.server.ca, "rb") as f:
            return grpc.ssl_channel_credentials(f.read())

    def run_program(self, *argv, code=0, data=None):
        done = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout


class GrpcioMixin:
    def setUp(self):
        self.channel = self.make_channel()
        self.addCleanup(self.channel.close)
        self.echo = stubs.EchoServiceStub(self.channel)

    def fails(self, function, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            function(*args, **kwargs)
        return caught.exception

    def test_unary(self):
        request = pb.EchoRequest(text="h\u00e4llo", number=-1, data=b"\0\xff", labels={"k": "v"}, items=[pb.Item(name="i", number=1 << 62)], color=pb.COLOR_RED)
        answer = self.echo.Echo(request, timeout=10)
        for field in ("text", "number", "data", "labels", "items", "color"):
            self.assertEqual(getattr(answer, field), getattr(request, field))
        self.assertGreater(answer.deadline_ms, 0)
        self.assertEqual(self.echo.Echo(pb.EchoRequest()).deadline_ms, -1)

    def test_error_with_details(self):
        error = self.fails(self.echo.Echo, pb.EchoRequest(text="\u00e4 100%", fail_code=9), timeout=10)
        self.assertEqual((error.code(), error.details()), (grpc.StatusCode.FAILED_PRECONDITION, "as asked: \u00e4 100%"))
        packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
        self.assertIn(b"type.googleapis.com/google.rpc.ErrorInfo", packed)
        self.assertIn(b"type.googleapis.com/google.rpc.RetryInfo", packed)

    def test_client_streaming(self):
        self.assertEqual(self.echo.Collect((pb.EchoRequest(text=str(i)) for i in range(100)), timeout=10).count, 100)
        self.assertEqual(self.echo.Collect(iter([]), timeout=10).count, 0)

    def test_server_streaming(self):
        answers = list(self.echo.Repeat(pb.EchoRequest(count=1000, size=10000), timeout=30))
        self.assertEqual([a.count for a in answers], list(range(1000)))
        self.assertEqual(list(self.echo.Repeat(pb.EchoRequest(), timeout=10)), [])

    def test_server_streaming_then_error(self):
        stream = self.echo.Repeat(pb.EchoRequest(count=3, fail_code=11), timeout=10)
        self.assertEqual([next(stream).count for _ in range(3)], [0, 1, 2])
        self.assertEqual(self.fails(next, stream).code(), grpc.StatusCode.OUT_OF_RANGE)

    def test_bidi(self):
        answers = self.echo.Chat((pb.EchoRequest(text=str(i)) for i in range(500)), timeout=20)
        self.assertEqual([a.text for a in answers], [str(i) for i in range(500)])

    def test_bidi_server_ends(self):
        error = self.fails(lambda: list(self.echo.Chat((pb.EchoRequest(fail_code=10 if i == 5 else 0) for i in range(10)), timeout=10)))
        self.assertEqual(error.code(), grpc.StatusCode.ABORTED)

    def test_deadline(self):
        began = time.monotonic()
        self.assertEqual(self.fails(self.echo.Echo, pb.EchoRequest(hang=True), timeout=0.2).code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - began, 5)

    def test_cancel(self):
        stream = self.echo.Repeat(pb.EchoRequest(count=1, hang=True))
        next(stream)
        stream.cancel()
        self.assertEqual(self.fails(next, stream).code(), grpc.StatusCode.CANCELLED)

    def test_large_messages(self):
        answer = self.echo.Echo(pb.EchoRequest(data=bytes((1 << 20) - 4)), timeout=20)
        self.assertEqual(len(answer.data), (1 << 20) - 4)
        error = self.fails(self.echo.Echo, pb.EchoRequest(data=bytes(1 << 20)), timeout=20)
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertIn("limit of 1048576 bytes", error.details())
        self.assertEqual(self.fails(self.echo.Echo, pb.EchoRequest(size=5 << 20), timeout=20).code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_compression_is_refused_with_what_is_accepted(self):
        error = self.fails(self.echo.Echo, pb.EchoRequest(text="x" * 1000), timeout=10, compression=grpc.Compression.Gzip)
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_unknown_method(self):
        call = self.channel.unary_unary(ECHO + "Nothing")
        self.assertEqual(self.fails(call, b"", timeout=10).code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_malformed_message(self):
        call = self.channel.unary_unary(ECHO + "Echo")
        self.assertEqual(self.fails(call, b"\xff\xff", timeout=10).code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(self.fails(call, b"\x0a\x01\xff", timeout=10).code(), grpc.StatusCode.INVALID_ARGUMENT)  # text: not UTF-8

    def test_many_at_once(self):
        futures = [self.echo.Echo.future(pb.EchoRequest(text=str(i), delay_ms=20), timeout=30) for i in range(1500)]
        self.assertEqual([f.result().text for f in futures], [str(i) for i in range(1500)])

    def test_slow_reader_is_held_back(self):
        """What a client does not read stays where it is: the server's memory does not grow with the stream."""
        stream = self.echo.Repeat(pb.EchoRequest(count=3000, size=50000))
        next(stream)
        before = self.server.resident_kib()
        self.server.settle()  # the flood would be 150 MB
        self.assertLess(self.server.resident_kib() - before, 60000)
        self.assertEqual(sum(1 for _ in stream), 2999)


class TlsTest(GrpcioMixin, RpcCase):
    def make_channel(self):
        return grpc.secure_channel(self.address["grpc"], self.credentials())


class H2cTest(GrpcioMixin, RpcCase):
    options = {"tls": False}

    def make_channel(self):
        return grpc.insecure_channel(self.address["h2c"])


class HealthTest(RpcCase):
    def test_check_and_watch(self):
        with grpc.insecure_channel(self.address["h2c"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            ask = health_pb2.HealthCheckRequest
            serving, not_serving, unknown = 1, 2, 3
            for service in ("", "harpoon.test.v1.EchoService", "grpc.health.v1.Health"):
                self.assertEqual(health.Check(ask(service=service), timeout=10).status, serving)
            with self.assertRaises(grpc.RpcError) as caught:
                health.Check(ask(service="nobody"), timeout=10)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            watch, stranger = health.Watch(ask(), timeout=20), health.Watch(ask(service="nobody"), timeout=20)
            self.assertEqual((next(watch).status, next(stranger).status), (serving, unknown))
            self.server.process.send_signal(signal.SIGUSR1)
            self.assertEqual(next(watch).status, not_serving)
            self.server.process.send_signal(signal.SIGUSR1)
            self.assertEqual(next(watch).status, serving)
            watch.cancel()
            stranger.cancel()


class TokenTest(RpcCase):
    options = {"token": True}

    def test_token(self):
        channel = grpc.secure_channel(self.address["grpc"], self.credentials())
        echo = stubs.EchoServiceStub(channel)
        self.assertEqual(echo.Echo(pb.EchoRequest(), timeout=10, metadata=[("authorization", "Bearer secret")]).principal, "tester")
        for metadata in ([], [("authorization", "Bearer wrong")]):
            for call in (echo.Echo.with_call, lambda r, **k: list(echo.Repeat(r, **k))):
                with self.assertRaises(grpc.RpcError) as caught:
                    call(pb.EchoRequest(count=1), timeout=10, metadata=metadata)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        health = health_pb2_grpc.HealthStub(channel)
        self.assertEqual(health.Check(health_pb2.HealthCheckRequest(), timeout=10).status, 1, "health asks nobody who they are")
        channel.close()


class DrainTest(unittest.TestCase):
    def test_calls_under_way_finish(self):
        server = RpcServer(tls=False)
        with grpc.insecure_channel(server.address["h2c"]) as channel:
            echo = stubs.EchoServiceStub(channel)
            echo.Echo(pb.EchoRequest(), timeout=10)
            slow = echo.Echo.future(pb.EchoRequest(text="slow", delay_ms=700), timeout=20)
            connection = http.client.HTTPConnection(server.address["http"], timeout=20)
            connection.request("POST", ECHO + "Echo", b'{"text":"slow too","delayMs":700}', {"Content-Type": "application/json"})
            server.waiting(2)
            stopped = threading.Thread(target=server.stop)
            stopped.start()
            self.assertEqual(slow.result().text, "slow")
            self.assertEqual(json.loads(connection.getresponse().read())["text"], "slow too")
            stopped.join(20)
            self.assertIsNotNone(server.process.poll())


class JsTest(RpcCase):
    def test_grpc_js(self):
        out = json.loads(self.run_program("node", os.path.join(JS, "echo.js"), f"{TOP}/tests/lib", self.address["grpc"], self.server.ca))
        self.assertEqual(out, {"text": "hello", "number": "9007199254740993", "error": {"code": 5, "details": "as asked: gone \u00e4"}, "collected": "a,b,c", "repeated": 200,
                               "chat": ["x", "y"], "deadline": 4, "cancelled": 1})


class BufTest(RpcCase):
    def buf(self, *options, method="Echo", kind="grpc", code=0):
        return self.run_program(BUF, "curl", "--cacert", self.server.ca, *options, f"https://{self.address[kind]}{ECHO}{method}", code=code)

    def test_reflection(self):
        for version in ("grpc-v1", "grpc-v1alpha"):
            out = self.buf("--protocol", "grpc", "--reflect-protocol", version, "-d", '{"text":"by reflection","time":"2024-02-29T12:00:00.5Z"}')
            self.assertEqual(json.loads(out)["time"], "2024-02-29T12:00:00.500Z")

    def test_bidi_by_reflection(self):
        out = self.buf("--protocol", "grpc", "-d", '{"text":"a"}{"text":"b"}', method="Chat")
        self.assertEqual([json.loads(line)["text"] for line in out.decode().replace("}\n{", "}\0{").split("\0")], ["a", "b"])

    def test_connect_protocol(self):
        schema = ["--protocol", "connect", "--schema", os.path.join(TOP, "tests/lib/echo.proto")]
        self.assertEqual(json.loads(self.buf(*schema, "-d", '{"text":"x"}', kind="http"))["text"], "x")
        out = self.buf(*schema, "-d", '{"text":"x","count":3}', method="Repeat", kind="http")
        self.assertEqual(out.count(b'"text"'), 3)
        self.buf(*schema, "-d", '{"failCode":5}', kind="http", code=5 * 8)
        self.buf(*schema, "-d", '{"count":2,"failCode":11}', method="Repeat", kind="http", code=11 * 8)


class ConnectTest(RpcCase):
    def setUp(self):
        host, port = self.address["http"].split(":")
        self.context = ssl.create_default_context(cafile=self.server.ca)
        self.connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=self.context)
        self.addCleanup(self.connection.close)

    def post(self, body, method="Echo", verb="POST", **headers):
        given = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        self.connection.request(verb, ECHO + method, body, {k: v for k, v in given.items() if v is not None})
        answer = self.connection.getresponse()
        return answer.status, answer.read(), answer

    def error(self, body, **options):
        status, data, _ = self.post(body, **options)
        return status, json.loads(data)["code"]

    def test_curl(self):
        out = self.run_program("curl", "-sS", "--cacert", self.server.ca, "-H", "Content-Type: application/json", "-d", '{"text":"x"}', f"https://{self.address['http']}{ECHO}Echo")
        self.assertEqual(json.loads(out)["text"], "x")

    def test_keep_alive(self):
        for i in range(50):
            status, data, _ = self.post(json.dumps({"text": str(i), "delayMs": i % 3}))
            self.assertEqual((status, json.loads(data)["text"]), (200, str(i)))

    def test_binary(self):
        status, data, answer = self.post(pb.EchoRequest(text="x").SerializeToString(), Content_Type="application/proto")
        self.assertEqual((status, answer.headers["Content-Type"], pb.EchoResponse.FromString(data).text), (200, "application/proto", "x"))

    def test_error_details(self):
        status, data, _ = self.post('{"text":"t","failCode":9}')
        error = json.loads(data)
        self.assertEqual((status, error["code"], error["message"]), (400, "failed_precondition", "as asked: t"))
        info = error["details"][0]
        self.assertEqual(info["type"], "google.rpc.ErrorInfo")
        self.assertEqual(info["debug"], {"reason": "ASKED_FOR", "domain": "harpoon", "metadata": {"text": "t"}})
        self.assertNotIn("=", info["value"])
        self.assertIn(b"ASKED_FOR", base64.b64decode(info["value"] + "=="))

    def test_bad_requests(self):
        rows = [
            ("{", {}, (400, "invalid_argument")),
            ("", {}, (400, "invalid_argument")),
            ("[]", {}, (400, "invalid_argument")),
            ('{"text":1}', {}, (400, "invalid_argument")),
            ('{"text":"a","text":"b"}', {}, (400, "invalid_argument")),
            ('{"items":[{"nme":1}]}', {}, (400, "invalid_argument")),
            ("{}", {"Connect_Protocol_Version": "2"}, (400, "invalid_argument")),
            ("{}", {"Connect_Timeout_Ms": "1s"}, (400, "invalid_argument")),
            ("{}", {"Connect_Timeout_Ms": "12345678901"}, (400, "invalid_argument")),
            ("{}", {"Content_Encoding": "gzip"}, (501, "unimplemented")),
            ("{}", {"method": "Nothing"}, (404, "unimplemented")),
            ("x" * ((1 << 20) + 1), {}, (429, "resource_exhausted")),
            ('{"size":5000000}', {}, (429, "resource_exhausted")),
            ("{}", {"method": "Chat", "Content_Type": "application/connect+json"}, (505, "unimplemented")),
        ]
        for body, options, expected in rows:
            with self.subTest(body=body[:40], **options):
                self.assertEqual(self.error(body, **options), expected)

    def test_unknown_field_is_named(self):
        _, data, _ = self.post('{"items":[{"name":"a"},{"nme":"b"}]}')
        details = {d["type"]: d["debug"] for d in json.loads(data)["details"]}
        self.assertRegex(details["google.rpc.BadRequest"]["fieldViolations"][0]["field"], r"^items\[1\]\.nme$")

    def test_refusals_of_http(self):
        for options, status in (({"verb": "GET"}, 405), ({"verb": "PUT"}, 405), ({"Content_Type": "text/plain"}, 415), ({"Content_Type": None}, 415),
                                ({"Content_Type": "application/connect+json"}, 415), ({"method": "Repeat"}, 415)):
            with self.subTest(**options):
                self.assertEqual(self.post(None if options.get("verb") == "GET" else "{}", **options)[0], status)

    def test_chunked_and_expect(self):
        self.connection.request("POST", ECHO + "Echo", iter([b'{"te', b'xt":"chunks"}']), {"Content-Type": "application/json"}, encode_chunked=True)
        self.assertEqual(json.loads(self.connection.getresponse().read())["text"], "chunks")
        with tempfile.NamedTemporaryFile() as f:
            f.write(b" " * (3 << 20) + b"{}")
            f.flush()
            out = self.run_program("curl", "-sS", "--cacert", self.server.ca, "-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", "@" + f.name,
                                   "-w", "%{http_code}", "-o", "/dev/null", f"https://{self.address['http']}{ECHO}Echo")
        self.assertEqual(out, b"429")

    def test_deadline(self):
        began = time.monotonic()
        self.assertEqual(self.error('{"hang":true}', Connect_Timeout_Ms="200"), (504, "deadline_exceeded"))
        self.assertLess(time.monotonic() - began, 5)

    def stream(self, request, content="json", **headers):
        """(messages, end of stream) of a Repeat."""
        body = json.dumps(request).encode() if content == "json" else pb.EchoRequest(**request).SerializeToString()
        status, data, _ = self.post(struct.pack(">BI", 0, len(body)) + body, method="Repeat", Content_Type=f"application/connect+{content}", **headers)
        self.assertEqual(status, 200)
        messages, end = [], None
        while data:
            flags, size = struct.unpack(">BI", data[:5])
            part, data = data[5:5 + size], data[5 + size:]
            self.assertIsNone(end)
            if flags == 2:
                end = json.loads(part)
            else:
                messages.append(json.loads(part) if content == "json" else pb.EchoResponse.FromString(part))
        return messages, end

    def test_streaming(self):
        messages, end = self.stream({"count": 500, "size": 10000})
        self.assertEqual((len(messages), end), (500, {}))
        messages, end = self.stream({"count": 5, "delay_ms": 20}, content="proto")
        self.assertEqual(([m.count for m in messages], end), (list(range(5)), {}))
        messages, end = self.stream({"count": 2, "failCode": 11})
        self.assertEqual((len(messages), end["error"]["code"]), (2, "out_of_range"))
        messages, end = self.stream({"count": 1, "hang": True}, Connect_Timeout_Ms="200")
        self.assertEqual(end["error"]["code"], "deadline_exceeded")

    def test_bad_envelopes(self):
        for body in (b"", b"\0\0\0", struct.pack(">BI", 0, 100) + b"{}", struct.pack(">BI", 1, 2) + b"{}", struct.pack(">BI", 0, 2) + b"{}" + struct.pack(">BI", 0, 2) + b"{}",
                     struct.pack(">BI", 0, 1 << 31)):
            with self.subTest(body=body):
                status, data, _ = self.post(body, method="Repeat", Content_Type="application/connect+json")
                self.assertEqual(status, 200)
                self.assertIn(json.loads(data[5:])["error"]["code"], ("invalid_argument", "resource_exhausted"))

    def test_client_that_goes_away_cancels(self):
        """Both while an answer is awaited and in the middle of a stream: libmicrohttpd itself does not look at a suspended connection."""
        before, waiting = self.server.text().count("cancelled"), self.server.text().count("waits")
        for method, kind, body in (("Echo", "application/json", b'{"hang":true}'), ("Repeat", "application/connect+json", struct.pack(">BI", 0, 23) + b'{"count":1,"hang":true}')):
            raw = self.context.wrap_socket(socket.create_connection(self.address["http"].split(":"), timeout=10), server_hostname="localhost")
            raw.sendall(f"POST {ECHO}{method} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            waiting += 1
            self.server.waiting(waiting)
            raw.close()
        eventually(lambda: self.server.text().count("cancelled") == before + 2, 5, "the handlers' on_cancel")

    def test_cors(self):
        origin = "https://console.example"
        status, _, answer = self.post(None, verb="OPTIONS", Content_Type=None, Origin=origin, Access_Control_Request_Method="POST")
        self.assertEqual((status, answer.headers["Access-Control-Allow-Origin"], answer.headers["Access-Control-Allow-Methods"]), (204, origin, "POST"))
        self.assertIn("authorization", answer.headers["Access-Control-Allow-Headers"])
        _, _, answer = self.post("{}", Origin=origin)
        self.assertEqual(answer.headers["Access-Control-Allow-Origin"], origin)
        _, _, answer = self.post("{}", Origin="https://elsewhere.example")
        self.assertIsNone(answer.headers["Access-Control-Allow-Origin"])

    def test_idle_server_uses_no_cpu(self):
        self.post("{}")
        raw = self.context.wrap_socket(socket.create_connection(self.address["http"].split(":"), timeout=10), server_hostname="localhost")
        self.addCleanup(raw.close)
        body = b'{"hang":true}'
        raw.sendall(f"POST {ECHO}Echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self.server.settle()
        before = self.server.cpu_seconds()
        time.sleep(2)  # the time is what is tested
        self.assertLess(self.server.cpu_seconds() - before, 0.1, "a suspended call and an idle connection must not spin the loop")
