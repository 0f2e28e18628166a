"""Bad input over the API: each case is one test with the status that it must get. Afterwards every daemon is the same process as before."""
import base64
import http.client
import json
import socket
import ssl
import struct
import unittest

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from api import container_pb2, error_details, rpc_error
from harness import StackTest, image
from harpoon.v1 import container_service_pb2 as cs
from harpoon.v1 import event_service_pb2 as es
from harpoon.v1 import host_service_pb2 as hs
from harpoon.v1 import operation_service_pb2 as ops

Code = grpc.StatusCode
CREATE = "/harpoon.v1.ContainerService/CreateContainer"
GET = "/harpoon.v1.ContainerService/GetContainer"
WATCH = "/harpoon.v1.EventService/Watch"


def add_tests(cls, prefix, table, run):
    """One test method for each row (name, …) of the table."""
    for row in table:
        name = f"test_{prefix}_{row[0]}"
        assert not hasattr(cls, name), name
        setattr(cls, name, lambda self, r=row: run(self, *r[1:]))


# ---- A create with one thing wrong: what is changed, and the field that the answer must name. ----

def spec(**kwargs):
    return lambda r: [setattr(r.container.spec, k, v) for k, v in kwargs.items()]


def resources(**kwargs):
    return lambda r: [setattr(r.container.spec.resources, k, v) for k, v in kwargs.items()]


def put(path, value):
    """Appends to, or sets in, a repeated or map field by path."""
    def change(r):
        target = r
        for part in path.split("."):
            target = getattr(target, part)
        if isinstance(value, dict):
            target.update(value)
        else:
            target.extend(value)
    return change


def port(**kwargs):
    return lambda r: r.container.spec.network.ports.add(**kwargs)


BAD_CREATES = [
    ("empty_parent", lambda r: setattr(r, "parent", ""), "parent"),
    ("parent_without_region", lambda r: setattr(r, "parent", "projects/demo"), "parent"),
    ("parent_with_wildcard", lambda r: setattr(r, "parent", "projects/demo/regions/-"), "parent"),
    ("parent_with_upper_case", lambda r: setattr(r, "parent", "projects/Demo/regions/r1"), "parent"),
    ("parent_with_path_traversal", lambda r: setattr(r, "parent", "projects/../regions/r1"), "parent"),
    ("empty_id", lambda r: setattr(r, "container_id", ""), "container_id"),
    ("id_with_slash", lambda r: setattr(r, "container_id", "a/b"), "container_id"),
    ("id_with_dots", lambda r: setattr(r, "container_id", ".."), "container_id"),
    ("id_starts_with_digit", lambda r: setattr(r, "container_id", "1a"), "container_id"),
    ("id_ends_with_dash", lambda r: setattr(r, "container_id", "a-"), "container_id"),
    ("id_of_64_bytes", lambda r: setattr(r, "container_id", "a" * 64), "container_id"),
    ("id_not_ascii", lambda r: setattr(r, "container_id", "café"), "container_id"),
    ("no_container", lambda r: r.ClearField("container"), "container"),
    ("no_spec", lambda r: r.container.ClearField("spec"), "spec"),
    ("no_resources", lambda r: r.container.spec.ClearField("resources"), "resources"),
    ("request_id_of_129_bytes", lambda r: setattr(r, "request_id", "x" * 129), "request_id"),
    ("request_id_with_control", lambda r: setattr(r, "request_id", "a\nb"), "request_id"),
    ("request_id_not_ascii", lambda r: setattr(r, "request_id", "é"), "request_id"),
    ("deadline_negative", lambda r: setattr(r, "deadline_seconds", -1), "deadline_seconds"),
    ("deadline_too_far", lambda r: setattr(r, "deadline_seconds", 604801), "deadline_seconds"),
    ("image_empty", spec(image=""), "image"),
    ("image_without_transport", spec(image="busybox"), "image"),
    ("image_unknown_transport", spec(image="ftp://x/y:z"), "image"),
    ("image_of_513_bytes", spec(image="oci:/" + "a" * 508), "image"),
    ("image_short_digest", spec(image="oci:/x@sha256:abcd"), "image"),
    ("cpu_zero", resources(cpu_millis=0), "cpu_millis"),
    ("cpu_negative", resources(cpu_millis=-1), "cpu_millis"),
    ("cpu_too_small", resources(cpu_millis=9), "cpu_millis"),
    ("cpu_too_large", resources(cpu_millis=1024001), "cpu_millis"),
    ("cpu_int64_max", resources(cpu_millis=2**63 - 1), "cpu_millis"),
    ("memory_zero", resources(memory_bytes=0), "memory_bytes"),
    ("memory_negative", resources(memory_bytes=-(2**63)), "memory_bytes"),
    ("memory_too_small", resources(memory_bytes=(4 << 20) - 1), "memory_bytes"),
    ("memory_too_large", resources(memory_bytes=(64 << 40) + 1), "memory_bytes"),
    ("disk_negative", resources(disk_bytes=-1), "disk_bytes"),
    ("pids_negative", resources(pids_max=-1), "pids_max"),
    ("pids_too_many", resources(pids_max=4194305), "pids_max"),
    ("io_negative", resources(io_read_bps=-1), "io_read_bps"),
    ("command_of_65_elements", put("container.spec.command", ["x"] * 65), "command"),
    ("argument_of_4097_bytes", put("container.spec.args", ["x" * 4097]), "args"),
    ("env_of_129_variables", put("container.spec.env", [container_pb2.EnvVar(name=f"V{i}", value="") for i in range(129)]), "env"),
    ("env_bad_name", put("container.spec.env", [container_pb2.EnvVar(name="1X", value="")]), "env"),
    ("env_empty_name", put("container.spec.env", [container_pb2.EnvVar(value="x")]), "env"),
    ("env_value_of_32769_bytes", put("container.spec.env", [container_pb2.EnvVar(name="V", value="x" * 32769)]), "env"),
    ("labels_33", put("container.labels", {f"k{i}": "v" for i in range(33)}), "labels"),
    ("label_key_of_64_bytes", put("container.labels", {"k" * 64: "v"}), "labels"),
    ("label_value_of_64_bytes", put("container.labels", {"k": "v" * 64}), "labels"),
    ("working_dir_relative", spec(working_dir="tmp"), "working_dir"),
    ("stop_signal_unknown", spec(stop_signal="SIGNOPE"), "stop_signal"),
    ("stop_grace_negative", spec(stop_grace_seconds=-1), "stop_grace_seconds"),
    ("stop_grace_too_long", spec(stop_grace_seconds=3601), "stop_grace_seconds"),
    ("network_mode_unknown", lambda r: setattr(r.container.spec.network, "mode", 99), "mode"),
    ("desired_state_unknown", spec(desired_state=7), "desired_state"),
    ("restart_mode_unknown", lambda r: setattr(r.container.spec.restart_policy, "mode", 9), "mode"),
    ("restart_backoff_negative", lambda r: setattr(r.container.spec.restart_policy, "backoff_initial_ms", -5), "backoff"),
    ("port_zero", port(container_port=0, host_port=80), "port"),
    ("port_65536", port(container_port=80, host_port=65536), "port"),
    ("port_protocol_unknown", port(container_port=80, host_port=80, protocol="sctp2"), "protocol"),
    ("health_port_zero", lambda r: r.container.spec.health_check.tcp.SetInParent(), "port"),
    ("health_interval_too_short", lambda r: (setattr(r.container.spec.health_check.tcp, "port", 80),
                                             setattr(r.container.spec.health_check, "interval_ms", 99)), "interval_ms"),
    ("health_command_empty", lambda r: r.container.spec.health_check.exec.SetInParent(), "command"),
    ("volume_bad_name", lambda r: r.container.spec.volumes.add(volume="../etc", path="/x"), "volume"),
    ("volume_relative_path", lambda r: r.container.spec.volumes.add(volume="data", path="x"), "path"),
    ("volume_path_traversal", lambda r: r.container.spec.volumes.add(volume="data", path="/x/../../etc"), "path"),
    ("volumes_17", put("container.spec.volumes", [container_pb2.VolumeMount(volume=f"v{i}", path=f"/v{i}") for i in range(17)]), "volumes"),
    ("placement_bad_host", lambda r: setattr(r.container.spec.placement, "host", "NOT A HOST"), "host"),
]


def bad_create(self, change, field):
    request = self.client.create_request("bad", image())
    request.container.spec.network.mode = container_pb2.NETWORK_MODE_BRIDGE
    change(request)
    error = rpc_error(self.client.call, self.client.containers.CreateContainer, request)
    self.assertEqual(error.code(), Code.INVALID_ARGUMENT, error.details())
    violations = error_details(error)["BadRequest"].field_violations
    self.assertTrue(any(field in v.field for v in violations), f"{field} is not named in {violations}")
    self.assertTrue(all(v.description for v in violations))


# ---- Other requests: method, request, the code. ----

def name(container="none"):
    return f"projects/demo/regions/r1/containers/{container}"


def watch(**kwargs):
    return es.WatchRequest(parent="regions/r1", **kwargs)


BAD_REQUESTS = [
    ("create_in_unknown_region", "containers.CreateContainer", lambda c: move(c, "projects/demo/regions/nowhere"), Code.NOT_FOUND),
    ("get_nothing", "containers.GetContainer", cs.GetContainerRequest(name=name()), Code.NOT_FOUND),
    ("get_bad_name", "containers.GetContainer", cs.GetContainerRequest(name="containers/x"), Code.INVALID_ARGUMENT),
    ("get_empty_name", "containers.GetContainer", cs.GetContainerRequest(), Code.INVALID_ARGUMENT),
    ("get_long_name", "containers.GetContainer", cs.GetContainerRequest(name="x" * 5000), Code.INVALID_ARGUMENT),
    ("list_negative_page", "containers.ListContainers",
     cs.ListContainersRequest(parent="projects/demo/regions/r1", page_size=-1), Code.INVALID_ARGUMENT),
    ("list_forged_token", "containers.ListContainers",
     cs.ListContainersRequest(parent="projects/demo/regions/r1", page_token="AAAA"), Code.INVALID_ARGUMENT),
    ("list_token_with_sql", "containers.ListContainers",
     cs.ListContainersRequest(parent="projects/demo/regions/r1", page_token="' OR 1=1 --"), Code.INVALID_ARGUMENT),
    ("list_bad_parent", "containers.ListContainers", cs.ListContainersRequest(parent="x"), Code.INVALID_ARGUMENT),
    ("resize_nothing_there", "containers.ResizeContainer",
     cs.ResizeContainerRequest(name=name(), resources={"cpu_millis": 100}), Code.NOT_FOUND),
    ("resize_without_resources", "containers.ResizeContainer", cs.ResizeContainerRequest(name=name()), Code.INVALID_ARGUMENT),
    ("resize_negative", "containers.ResizeContainer",
     cs.ResizeContainerRequest(name=name(), resources={"memory_bytes": -5}), Code.INVALID_ARGUMENT),
    ("update_without_container", "containers.UpdateContainer", cs.UpdateContainerRequest(), Code.INVALID_ARGUMENT),
    ("start_nothing_there", "containers.StartContainer", cs.StartContainerRequest(name=name()), Code.NOT_FOUND),
    ("stop_nothing_there", "containers.StopContainer", cs.StopContainerRequest(name=name()), Code.NOT_FOUND),
    ("restart_nothing_there", "containers.RestartContainer", cs.RestartContainerRequest(name=name()), Code.NOT_FOUND),
    ("delete_nothing_there", "containers.DeleteContainer", cs.DeleteContainerRequest(name=name()), Code.NOT_FOUND),
    ("operation_bad_id", "operations.GetOperation",
     ops.GetOperationRequest(name="projects/demo/regions/r1/operations/xyz"), Code.INVALID_ARGUMENT),
    ("operation_unknown", "operations.GetOperation",
     ops.GetOperationRequest(name="projects/demo/regions/r1/operations/" + "0" * 32), Code.NOT_FOUND),
    ("wait_too_long", "operations.WaitOperation",
     ops.WaitOperationRequest(name="projects/demo/regions/r1/operations/" + "0" * 32, timeout=Duration(seconds=601)), Code.INVALID_ARGUMENT),
    ("wait_negative", "operations.WaitOperation",
     ops.WaitOperationRequest(name="projects/demo/regions/r1/operations/" + "0" * 32, timeout=Duration(seconds=-1)), Code.INVALID_ARGUMENT),
    ("cancel_unknown", "operations.CancelOperation",
     ops.CancelOperationRequest(name="projects/demo/regions/r1/operations/" + "0" * 32), Code.NOT_FOUND),
    ("watch_unknown_region", "events.Watch", es.WatchRequest(parent="regions/nowhere"), Code.NOT_FOUND),
    ("watch_bad_parent", "events.Watch", es.WatchRequest(parent="r1"), Code.INVALID_ARGUMENT),
    ("watch_ahead_of_now", "events.Watch", watch(after_sequence=10**15), Code.OUT_OF_RANGE),
    ("watch_negative_sequence", "events.Watch", watch(after_sequence=-1), Code.INVALID_ARGUMENT),
    ("watch_heartbeat_too_short", "events.Watch", watch(heartbeat_ms=99), Code.INVALID_ARGUMENT),
    ("watch_17_types", "events.Watch", watch(filter=es.EventFilter(types=["a"] * 17)), Code.INVALID_ARGUMENT),
    ("watch_time_out_of_range", "events.Watch", watch(since=Timestamp(seconds=2**62)), Code.INVALID_ARGUMENT),
    ("events_negative_page", "events.ListEvents", es.ListEventsRequest(parent="regions/r1", page_size=-3), Code.INVALID_ARGUMENT),
    ("host_unknown", "hosts.GetHost", hs.GetHostRequest(name="regions/r1/hosts/none"), Code.NOT_FOUND),
    ("host_bad_name", "hosts.GetHost", hs.GetHostRequest(name="h1"), Code.INVALID_ARGUMENT),
    ("cordon_unknown", "hosts.CordonHost", hs.CordonHostRequest(name="regions/r1/hosts/none"), Code.NOT_FOUND),
    ("declare_lost_while_attached", "hosts.DeclareHostLost", hs.DeclareHostLostRequest(name="regions/r1/hosts/h1"), Code.FAILED_PRECONDITION),
]


def move(client, parent):
    request = client.create_request("bad", image())
    request.parent = parent
    return request


def bad_request(self, method, request, code):
    service, rpc = method.split(".")
    call = getattr(getattr(self.client, service), rpc)
    if callable(request):
        request = request(self.client)

    def attempt():
        answer = self.client.call(call, request)
        return list(answer) if rpc == "Watch" else answer
    error = rpc_error(attempt)
    self.assertEqual(error.code(), code, error.details())
    self.assertTrue(error.details())
    self.assertIn("ErrorInfo", error_details(error))


# ---- Messages that protobuf libraries would not make: bytes, and the code. ----

def nested(depth):
    """Groups in groups, which no message of ours has: a bomb for recursive parsers."""
    return b"\x0b" * depth + b"\x0c" * depth


def length_delimited(field, body):
    out, n = bytes([field << 3 | 2]), len(body)
    while n >= 0x80:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n]) + body


BAD_BYTES = [
    ("truncated", b"\x0a\x20abc", Code.INVALID_ARGUMENT),
    ("random", bytes(range(255, 0, -1)), Code.INVALID_ARGUMENT),
    ("wrong_wire_type", b"\x08\x01" * 50 + b"\x0d\x01\x02", Code.INVALID_ARGUMENT),
    ("varint_of_11_bytes", b"\x30" + b"\xff" * 11, Code.INVALID_ARGUMENT),
    ("field_number_zero", b"\x02\x01a", Code.INVALID_ARGUMENT),
    ("length_past_the_end", b"\x0a\xff\xff\xff\xff\x0f", Code.INVALID_ARGUMENT),
    ("invalid_utf8", length_delimited(1, b"\xff\xfe"), Code.INVALID_ARGUMENT),
    ("nul_in_string", length_delimited(1, b"projects/demo\0/regions/r1"), Code.INVALID_ARGUMENT),
    ("overlong_utf8", length_delimited(1, b"\xc0\xaf"), Code.INVALID_ARGUMENT),
    ("surrogate_utf8", length_delimited(1, b"\xed\xa0\x80"), Code.INVALID_ARGUMENT),
    ("groups_9000_deep", nested(9000), Code.INVALID_ARGUMENT),
    ("empty_submessages", length_delimited(3, length_delimited(6, length_delimited(4, b"") * 450000)), Code.RESOURCE_EXHAUSTED),
    ("over_1_mib", length_delimited(1, b"a" * (1 << 20)), Code.RESOURCE_EXHAUSTED),
]


def bad_bytes(self, body, code):
    raw = self.client.channel.unary_unary(CREATE, request_serializer=lambda b: b, response_deserializer=lambda b: b)
    error = rpc_error(raw, body, timeout=20, metadata=self.client.metadata)
    self.assertEqual(error.code(), code, error.details())


# ---- Connect over HTTP/1.1: path, headers, body, HTTP status, Connect code. ----

JSON = {"Content-Type": "application/json"}
PROTO = {"Content-Type": "application/proto"}

BAD_HTTP = [
    ("get_on_a_method", "GET", GET, {}, b"", 405, None),
    ("unknown_method", "POST", "/harpoon.v1.ContainerService/Nope", JSON, b"{}", 404, "unimplemented"),
    ("unknown_service", "POST", "/x.Y/Z", JSON, b"{}", 404, "unimplemented"),
    ("wrong_content_type", "POST", GET, {"Content-Type": "text/xml"}, b"<a/>", 415, None),
    ("no_content_type", "POST", GET, {}, b"{}", 415, None),
    ("broken_json", "POST", GET, JSON, b'{"name":', 400, "invalid_argument"),
    ("json_is_a_list", "POST", GET, JSON, b"[]", 400, "invalid_argument"),
    ("unknown_field", "POST", GET, JSON, b'{"nom":"x"}', 400, "invalid_argument"),
    ("duplicate_key", "POST", GET, JSON, b'{"name":"a","name":"b"}', 400, "invalid_argument"),
    ("wrong_type", "POST", GET, JSON, b'{"name":1}', 400, "invalid_argument"),
    ("number_out_of_range", "POST", CREATE, JSON, b'{"deadlineSeconds":4294967296}', 400, "invalid_argument"),
    ("int64_with_fraction", "POST", CREATE, JSON, b'{"container":{"spec":{"resources":{"cpuMillis":1.5}}}}', 400, "invalid_argument"),
    ("unknown_enum", "POST", CREATE, JSON, b'{"container":{"spec":{"desiredState":"FLYING"}}}', 400, "invalid_argument"),
    ("nul_in_json_string", "POST", GET, JSON, b'{"name":"a\\u0000b"}', 400, "invalid_argument"),
    ("invalid_utf8_in_json", "POST", GET, JSON, b'{"name":"\xff"}', 400, "invalid_argument"),
    ("json_100000_deep", "POST", GET, JSON, b"[" * 100000, 400, "invalid_argument"),
    ("malformed_proto", "POST", GET, PROTO, b"\x0a\x20abc", 400, "invalid_argument"),
    ("body_over_1_mib", "POST", GET, JSON, b'{"name":"' + b"a" * (1 << 20) + b'"}', 429, "resource_exhausted"),
    ("not_found", "POST", GET, JSON, json.dumps({"name": name()}).encode(), 404, "not_found"),
    ("bad_timeout_header", "POST", GET, {**JSON, "Connect-Timeout-Ms": "soon"}, b"{}", 400, "invalid_argument"),
    ("unary_content_type_on_a_stream", "POST", WATCH, JSON, b"{}", 415, None),
]


def bad_http(self, method, path, headers, body, status, code):
    answer, text = self.http(method, path, headers, body)
    self.assertEqual(answer.status, status, text[:300])
    if code:
        self.assertEqual(json.loads(text)["code"], code)
        self.assertTrue(json.loads(text)["message"])


# ---- HTTP/2 by hand, on the cleartext port: frames, and what must come back. ----

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def header(key, value):
    """A literal header field without indexing, RFC 7541 section 6.2.2, no Huffman."""
    key, value = key.encode(), value if isinstance(value, bytes) else value.encode()

    def string(s):
        n = len(s)
        if n < 127:
            return bytes([n]) + s
        out, n = b"\x7f", n - 127
        while n >= 128:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n]) + s
    return b"\x00" + string(key) + string(value)


def request_headers(path=GET, content_type="application/grpc", te="trailers", method="POST", extra=()):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    fields += [("content-type", content_type)] if content_type else []
    fields += [("te", te)] if te else []
    return b"".join(header(k, v) for k, v in [*fields, *extra])


SETTINGS = frame(4, 0, 0)
GREETING = PREFACE + SETTINGS
OPEN = frame(1, 4, 1, request_headers())

# Bytes, and one of the words that end it: closed (the connection), or a fragment of the answer's bytes.
BAD_HTTP2 = [
    ("no_preface", b"GET / HTTP/1.1\r\n\r\n", "closed"),
    ("garbage", bytes(range(256)) * 4, "closed"),
    ("half_a_preface", PREFACE[:10], "half"),
    ("half_a_frame_header", GREETING + b"\x00\x00", "half"),
    ("half_a_headers_frame", GREETING + frame(1, 4, 1, request_headers())[:-5], "half"),
    ("frame_over_the_limit", GREETING + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", "goaway"),
    ("data_on_idle_stream", GREETING + frame(0, 1, 1, b"x"), "goaway"),
    ("headers_on_stream_zero", GREETING + frame(1, 4, 0, request_headers()), "goaway"),
    ("even_stream", GREETING + frame(1, 4, 2, request_headers()), "goaway"),
    ("broken_hpack", GREETING + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"), "goaway"),
    ("window_overflow", GREETING + frame(8, 0, 0, b"\x7f\xff\xff\xff"), "goaway"),
    ("settings_of_5_bytes", GREETING + frame(4, 0, 0, b"12345"), "goaway"),
    ("ping_of_7_bytes", GREETING + frame(6, 0, 0, b"1234567"), "goaway"),
    ("push_promise", GREETING + OPEN + frame(5, 4, 1, b"\x00\x00\x00\x02"), "goaway"),
    ("continuation_flood", GREETING + frame(1, 0, 1, request_headers()) + frame(9, 0, 1, b"") * 500, "goaway"),
    ("10000_header_fields", GREETING + frame(1, 4, 1, request_headers(extra=[("a", "b")] * 3000)[:16000]), "reset"),
    ("grpc_frame_compressed", GREETING + OPEN + frame(0, 1, 1, b"\x01\x00\x00\x00\x00"), "answer"),
    ("grpc_frame_truncated", GREETING + OPEN + frame(0, 1, 1, b"\x00\x00\x00\x00\x09abc"), "answer"),
    ("grpc_frame_of_4_gib", GREETING + OPEN + frame(0, 1, 1, b"\x00\xff\xff\xff\xff"), "answer"),
    ("no_message", GREETING + OPEN + frame(0, 1, 1), "answer"),
    ("two_messages_in_unary", GREETING + OPEN + frame(0, 1, 1, b"\x00\x00\x00\x00\x00" * 2), "answer"),
    ("bad_timeout", GREETING + frame(1, 5, 1, request_headers(extra=[("grpc-timeout", "9z")])), "answer"),
    ("wrong_content_type", GREETING + frame(1, 5, 1, request_headers(content_type="text/plain")), "answer"),
    ("no_content_type", GREETING + frame(1, 5, 1, request_headers(content_type="")), "answer"),
    ("http_get", GREETING + frame(1, 5, 1, request_headers(method="GET")), "answer"),
    ("unknown_path", GREETING + frame(1, 5, 1, request_headers(path="/a.B/C")), "answer"),
    ("rapid_reset", GREETING + b"".join(frame(1, 4, s, request_headers()) + frame(3, 0, s, b"\0\0\0\x08") for s in range(1, 4001, 2)), "goaway"),
]


def bad_http2(self, data, ending):
    with socket.create_connection(self.h2c, timeout=15) as s:
        try:
            s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return self.assertNotEqual(ending, "answer")
        if ending == "half":
            return None  # the peer goes away in the middle of it
        kinds = read_frames(s, until={"goaway": 7, "reset": 3, "answer": 1}.get(ending))
    if ending == "closed":
        return None
    wanted = {"goaway": {7, "closed"}, "reset": {3, 7, 1, "closed"}, "answer": {1}}[ending]
    self.assertTrue(wanted & set(kinds), f"frames {kinds}")
    return None


def read_frames(s, until):
    """Kinds of the frames that arrive, up to the one that is waited for, or "closed"."""
    kinds, data = [], b""
    while True:
        try:
            more = s.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return kinds + ["closed"]
        data += more
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            kinds.append(data[3])
            data = data[9 + int.from_bytes(data[:3], "big"):]
            if kinds[-1] == until:
                return kinds


class BadApiInput(StackTest):
    """One stack for all cases; the last test looks at the daemons."""

    shape = {"hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        host, port_text = cls.stack.status()["gw-1"]["ports"]["h2c"].rsplit(":", 1)
        cls.h2c = (host, int(port_text))
        cls.before = cls.stack.pids()

    def http(self, method, path, headers, body):
        context = ssl.create_default_context(cafile=self.stack.env["HARPOON_CA"])
        address = self.stack.env["HARPOON_HTTP"].removeprefix("https://")
        connection = http.client.HTTPSConnection(address, context=context, timeout=20)
        try:
            connection.request(method, path, body, {"Authorization": "Bearer " + self.stack.env["HARPOON_TOKEN"], **headers})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def test_token_missing(self):
        error = rpc_error(self.stack.client(token=None).list_containers)
        self.assert_code(error, Code.UNAUTHENTICATED)

    def test_token_wrong(self):
        client = self.stack.client()
        client.metadata = (("authorization", "Bearer nope"),)
        self.assert_code(rpc_error(client.list_containers), Code.UNAUTHENTICATED)

    def test_token_basic_scheme(self):
        client = self.stack.client()
        client.metadata = (("authorization", "Basic " + base64.b64encode(b"a:b").decode()),)
        self.assert_code(rpc_error(client.list_containers), Code.UNAUTHENTICATED)

    def test_token_of_another_project(self):
        error = rpc_error(self.stack.client(token="other").create, "x", image())
        self.assert_code(error, Code.PERMISSION_DENIED)

    def test_token_that_only_reads(self):
        error = rpc_error(self.stack.client(token="viewer").create, "x", image())
        self.assert_code(error, Code.PERMISSION_DENIED)

    def test_token_that_is_no_admin(self):
        client = self.stack.client(token="demo")
        error = rpc_error(client.call, client.hosts.CordonHost, hs.CordonHostRequest(name="regions/r1/hosts/h1"))
        self.assert_code(error, Code.PERMISSION_DENIED)

    def test_header_of_100_kb(self):
        client = self.stack.client(token="admin")
        client.metadata += (("x-large", "v" * 100000),)
        error = rpc_error(client.list_containers)
        self.assertIn(error.code(), (Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.UNAVAILABLE, Code.CANCELLED), error.details())

    def test_zz_daemons_are_the_same_and_small(self):
        """Sorted last: nothing crashed, nothing grew, and the system still works."""
        self.assertEqual(self.stack.pids(), self.before)
        for process, (pid, _) in self.before.items():
            with open(f"/proc/{pid}/status") as f:
                rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
            self.assertLess(rss, 300 * 1024, f"{process} uses {rss} KiB")
        self.client.succeeded(self.client.create("works-on", image()))
        self.client.succeeded(self.client.delete("works-on"))


add_tests(BadApiInput, "create", BAD_CREATES, bad_create)
add_tests(BadApiInput, "request", BAD_REQUESTS, bad_request)
add_tests(BadApiInput, "bytes", BAD_BYTES, bad_bytes)
add_tests(BadApiInput, "http", BAD_HTTP, bad_http)
add_tests(BadApiInput, "http2", BAD_HTTP2, bad_http2)

if __name__ == "__main__":
    unittest.main()
