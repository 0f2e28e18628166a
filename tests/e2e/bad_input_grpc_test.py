"""Bad input at the gateway's gRPC port: fields, protobuf bytes, gRPC framing, HTTP/2. Each case has a name and the answers that are right. Afterwards the
gateway is the same process and serves."""
import socket
import ssl
import struct

import grpc

import h2
from api import container_pb2, error_details, rpc_error
from harness import StackTest, image
from harpoon.v1 import container_service_pb2 as cs, event_service_pb2 as es, host_service_pb2 as hs, operation_service_pb2 as os_pb
from wire import field, nested, tag, varint

CREATE = "/harpoon.v1.ContainerService/CreateContainer"
GET = "/harpoon.v1.ContainerService/GetContainer"
PARENT = "projects/demo/regions/r1"
NAME = PARENT + "/containers/x"

# ---- Fields: name, changes to a good create request as (path, value), field that the answer must name ----
FIELDS = [
    ("parent is empty", [("parent", "")], "parent"),
    ("parent without region", [("parent", "projects/demo")], "parent"),
    ("parent with a wildcard", [("parent", "projects/-/regions/r1")], "parent"),
    ("parent of other words", [("parent", "project/demo/region/r1")], "parent"),
    ("parent with a trailing slash", [("parent", PARENT + "/")], "parent"),
    ("parent of 10,000 bytes", [("parent", "projects/" + "a" * 10000 + "/regions/r1")], "parent"),
    ("id is empty", [("container_id", "")], "container_id"),
    ("id with upper case", [("container_id", "Web")], "container_id"),
    ("id that begins with a digit", [("container_id", "1web")], "container_id"),
    ("id that ends with a dash", [("container_id", "web-")], "container_id"),
    ("id with a slash", [("container_id", "a/b")], "container_id"),
    ("id with dots", [("container_id", "../etc")], "container_id"),
    ("id of 64 bytes", [("container_id", "a" * 64)], "container_id"),
    ("id in Greek", [("container_id", "ψ")], "container_id"),
    ("id with a NUL", [("container_id", "a\0b")], "container_id"),
    ("request_id of 129 bytes", [("request_id", "r" * 129)], "request_id"),
    ("request_id with a newline", [("request_id", "a\nb")], "request_id"),
    ("request_id not in ASCII", [("request_id", "é")], "request_id"),
    ("image is empty", [("container.spec.image", "")], "image"),
    ("image of an unknown kind", [("container.spec.image", "ftp://x/y:z")], "image"),
    ("image of 513 bytes", [("container.spec.image", "oci:/" + "x" * 508)], "image"),
    ("image with a NUL", [("container.spec.image", "oci:/x\0:latest")], "image"),
    ("cpu of 0", [("container.spec.resources.cpu_millis", 0)], "cpu_millis"),
    ("cpu below the least", [("container.spec.resources.cpu_millis", 9)], "cpu_millis"),
    ("cpu above the most", [("container.spec.resources.cpu_millis", 1_024_001)], "cpu_millis"),
    ("cpu negative", [("container.spec.resources.cpu_millis", -1)], "cpu_millis"),
    ("memory of 0", [("container.spec.resources.memory_bytes", 0)], "memory_bytes"),
    ("memory below the least", [("container.spec.resources.memory_bytes", (4 << 20) - 1)], "memory_bytes"),
    ("memory above the most", [("container.spec.resources.memory_bytes", (64 << 40) + 1)], "memory_bytes"),
    ("memory of the largest number", [("container.spec.resources.memory_bytes", (1 << 63) - 1)], "memory_bytes"),
    ("memory of the smallest number", [("container.spec.resources.memory_bytes", -(1 << 63))], "memory_bytes"),
    ("disk negative", [("container.spec.resources.disk_bytes", -1)], "disk_bytes"),
    ("pids negative", [("container.spec.resources.pids_max", -5)], "pids_max"),
    ("pids above the most", [("container.spec.resources.pids_max", 4_194_305)], "pids_max"),
    ("io negative", [("container.spec.resources.io_read_bps", -1)], "io_read_bps"),
    ("65 command words", [("container.spec.command", ["x"] * 65)], "command"),
    ("a command word of 4097 bytes", [("container.spec.command", ["x" * 4097])], "command"),
    ("a command word with a NUL", [("container.spec.command", ["a\0b"])], "command"),
    ("65 arguments", [("container.spec.args", ["x"] * 65)], "args"),
    ("129 variables", [("container.spec.env", [container_pb2.EnvVar(name=f"V{i}", value="x") for i in range(129)])], "env"),
    ("a variable without a name", [("container.spec.env", [container_pb2.EnvVar(value="x")])], "env"),
    ("a variable with = in its name", [("container.spec.env", [container_pb2.EnvVar(name="A=B", value="x")])], "env"),
    ("a variable of 32,769 bytes", [("container.spec.env", [container_pb2.EnvVar(name="A", value="x" * 32769)])], "env"),
    ("a variable with a NUL", [("container.spec.env", [container_pb2.EnvVar(name="A", value="x\0y")])], "env"),
    ("a relative working directory", [("container.spec.working_dir", "tmp")], "working_dir"),
    ("a network mode from the future", [("container.spec.network.mode", 99)], "mode"),
    ("port 0", [("container.spec.network.ports", [container_pb2.PortMapping(container_port=0, host_port=80)])], "port"),
    ("port 65536", [("container.spec.network.ports", [container_pb2.PortMapping(container_port=65536, host_port=80)])], "port"),
    ("port negative", [("container.spec.network.ports", [container_pb2.PortMapping(container_port=80, host_port=-80)])], "port"),
    ("33 ports", [("container.spec.network.ports", [container_pb2.PortMapping(container_port=i + 1, host_port=i + 1) for i in range(33)])], "ports"),
    ("a protocol of no kind", [("container.spec.network.ports", [container_pb2.PortMapping(container_port=1, host_port=1, protocol="ipx")])], "protocol"),
    ("restarts negative", [("container.spec.restart_policy.max_restarts", -1)], "max_restarts"),
    ("back-off negative", [("container.spec.restart_policy.backoff_initial_ms", -1)], "backoff_initial_ms"),
    ("a restart mode from the future", [("container.spec.restart_policy.mode", 77)], "mode"),
    ("a probe's port of 0", [("container.spec.health_check.tcp.port", 0)], "port"),
    ("a probe's interval too short", [("container.spec.health_check.tcp.port", 80), ("container.spec.health_check.interval_ms", 5)], "interval_ms"),
    ("a probe without a command", [("container.spec.health_check.exec.command", [])], "command"),
    ("a grace of two hours", [("container.spec.stop_grace_seconds", 7200)], "stop_grace_seconds"),
    ("a grace below 0", [("container.spec.stop_grace_seconds", -1)], "stop_grace_seconds"),
    ("a signal that is none", [("container.spec.stop_signal", "SIGNOTHING")], "stop_signal"),
    ("17 volumes", [("container.spec.volumes", [container_pb2.VolumeMount(volume=f"v{i}", path=f"/v{i}") for i in range(17)])], "volumes"),
    ("a volume at a relative path", [("container.spec.volumes", [container_pb2.VolumeMount(volume="v", path="v")])], "path"),
    ("a volume whose path climbs", [("container.spec.volumes", [container_pb2.VolumeMount(volume="v", path="/a/../../etc")])], "path"),
    ("a volume in a class without a size", [("container.spec.volumes", [container_pb2.VolumeMount(volume="v", path="/v", storage_class="fast")])], "size_bytes"),
    ("a volume with a size without a class", [("container.spec.volumes", [container_pb2.VolumeMount(volume="v", path="/v", size_bytes=1 << 30)])], "size_bytes"),
    ("a volume with a bad name", [("container.spec.volumes", [container_pb2.VolumeMount(volume="../v", path="/v")])], "volume"),
    ("33 labels", [("container.labels", {f"k{i}": "v" for i in range(33)})], "labels"),
    ("a label's key of 64 bytes", [("container.labels", {"k" * 64: "v"})], "labels"),
    ("a label's value of 64 bytes", [("container.labels", {"k": "v" * 64})], "labels"),
    ("a label without a key", [("container.labels", {"": "v"})], "labels"),
    ("a deadline below 0", [("deadline_seconds", -1)], "deadline_seconds"),
    ("a deadline after a week", [("deadline_seconds", 604_801)], "deadline_seconds"),
    ("a host that cannot be one", [("container.spec.placement.host", "no/host")], "host"),
    ("17 tolerations", [("container.spec.placement.tolerations", [container_pb2.Toleration(key=f"k{i}") for i in range(17)])], "tolerations"),
    ("an expression's operator from the future", [("container.spec.placement.label_expressions", [container_pb2.LabelExpression(key="k", operator=9)])], "operator"),
    ("an affinity group of 64 bytes", [("container.spec.placement.affinity_group", "g" * 64)], "affinity_group"),
    ("a desired state from the future", [("container.spec.desired_state", 42)], "desired_state"),
]

# ---- Other methods: name, service, method, request, field that the answer must name ----
METHODS = [
    ("get of no name", "containers", "GetContainer", cs.GetContainerRequest(), "name"),
    ("get of a host's name", "containers", "GetContainer", cs.GetContainerRequest(name="regions/r1/hosts/h1"), "name"),
    ("list of nonsense", "containers", "ListContainers", cs.ListContainersRequest(parent="x"), "parent"),
    ("list with a page below 0", "containers", "ListContainers", cs.ListContainersRequest(parent=PARENT, page_size=-1), "page_size"),
    ("list with a forged token", "containers", "ListContainers", cs.ListContainersRequest(parent=PARENT, page_token="AAAA"), "page_token"),
    ("list with a token of garbage", "containers", "ListContainers", cs.ListContainersRequest(parent=PARENT, page_token="\x01%%%"), "page_token"),
    ("resize of nothing", "containers", "ResizeContainer", cs.ResizeContainerRequest(name=NAME), "resources"),
    ("resize below 0", "containers", "ResizeContainer",
     cs.ResizeContainerRequest(name=NAME, resources=container_pb2.Resources(memory_bytes=-1)), "memory_bytes"),
    ("update without a container", "containers", "UpdateContainer", cs.UpdateContainerRequest(), "container"),
    ("delete with a long etag", "containers", "DeleteContainer", cs.DeleteContainerRequest(name=NAME, etag="e" * 10000), "etag"),
    ("operation of a bad id", "operations", "GetOperation", os_pb.GetOperationRequest(name=PARENT + "/operations/UPPER"), "name"),
    ("operation of no id", "operations", "CancelOperation", os_pb.CancelOperationRequest(name=""), "name"),
    ("operations of a bad parent", "operations", "ListOperations", os_pb.ListOperationsRequest(parent="regions/r1"), "parent"),
    ("events of no region", "events", "ListEvents", es.ListEventsRequest(), "parent"),
    ("events after -1", "events", "ListEvents", es.ListEventsRequest(parent="regions/r1", after_sequence=-1), "after_sequence"),
    ("17 event types", "events", "ListEvents",
     es.ListEventsRequest(parent="regions/r1", filter=es.EventFilter(types=["a"] * 17)), "types"),
    ("host of no name", "hosts", "GetHost", hs.GetHostRequest(), "name"),
    ("cordon of nonsense", "hosts", "CordonHost", hs.CordonHostRequest(name="h1"), "name"),
]

# ---- Bytes: name, body of CreateContainer as sent, right outcomes ----
INVALID = {"grpc 3"}  # INVALID_ARGUMENT
INVALID_OR_INTERNAL = {"grpc 3", "grpc 13"}
TOO_LARGE = {"grpc 8", "grpc 3"}
good_name = field(1, PARENT.encode()) + field(2, b"bytes")
BYTES = [
    ("a varint that never ends", b"\xff" * 11, INVALID),
    ("a cut varint", b"\x80", INVALID),
    ("a cut length", tag(1, 2) + b"\x80", INVALID),
    ("a length beyond the end", tag(1, 2) + varint(1000) + b"x", INVALID),
    ("a length of 2^63", tag(1, 2) + varint(1 << 63), INVALID),
    ("a length of 2^32 - 1", tag(1, 2) + varint((1 << 32) - 1) + b"x", INVALID),
    ("field number 0", b"\x02\x01x", INVALID),
    ("wire type 6", b"\x0e", INVALID),
    ("wire type 7", b"\x0f\x01", INVALID),
    ("a group that never ends", tag(100, 3) * 50, INVALID),
    ("an end without a group", tag(100, 4), INVALID),
    ("a string as a number", tag(1, 0) + varint(7), INVALID),
    ("a number as a string", field(6, b"soon"), INVALID),
    ("random bytes", bytes((i * 131 + 7) % 256 for i in range(512)), INVALID),
    ("text", b"GET / HTTP/1.1\r\n\r\n", INVALID),
    ("invalid UTF-8 in a name", field(1, b"projects/\xff\xfe/regions/r1") + field(2, b"x"), INVALID),
    ("overlong UTF-8", field(1, PARENT.encode()) + field(2, b"a\xc0\xaf"), INVALID),
    ("a surrogate in UTF-8", field(1, PARENT.encode()) + field(2, b"\xed\xa0\x80"), INVALID),
    ("invalid UTF-8 in a label", good_name + field(3, field(5, field(1, b"\xff") + field(2, b"v"))), INVALID),
    ("groups 10,000 deep", tag(100, 3) * 10000 + tag(100, 4) * 10000, INVALID),
    ("messages 9,000 deep in an unknown field", good_name + nested(3, 9000), INVALID),
    ("100,000 empty variables", good_name + field(3, field(6, field(4, b"") * 100_000)), TOO_LARGE),
    ("100,000 empty labels", good_name + field(3, field(5, b"") * 100_000), TOO_LARGE),
    ("500,000 empty ports", good_name + field(3, field(6, field(8, field(2, b"") * 500_000))), TOO_LARGE),
    ("the same field 100,000 times", field(2, b"x") * 100_000, INVALID | TOO_LARGE),
    ("an empty message", b"", INVALID),
]


def data_target(case):
    """A request's field by path, set."""
    request, path, value = case
    at = request
    *parents, last = path.split(".")
    for p in parents:
        at = getattr(at, p)
    if isinstance(value, dict):
        getattr(at, last).update(value)
    elif isinstance(value, list):
        del getattr(at, last)[:]
        getattr(at, last).extend(value)
        if not value:
            at.SetInParent()
    else:
        setattr(at, last, value)
        at.SetInParent() if at is not request else None


class BadInputGrpcTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = cls.stack.pids()
        cls.endpoint, cls.ca, cls.token = (cls.stack.env[k] for k in ("HARPOON_ENDPOINT", "HARPOON_CA", "HARPOON_TOKEN"))

    def tearDown(self):
        # After each case the gateway still answers, on a channel that lives since the beginning.
        self.client.call(self.client.containers.ListContainers, cs.ListContainersRequest(parent=PARENT))

    def connect(self, **kwargs):
        c = h2.Connection(self.endpoint, self.ca, **kwargs)
        self.addCleanup(c.close)
        return c

    def headers(self, path=CREATE, **override):
        return h2.grpc_headers(path, self.token, **override)

    def check_field(self, error, name):
        self.assert_code(error, grpc.StatusCode.INVALID_ARGUMENT)
        violations = error_details(error)["BadRequest"].field_violations
        self.assertTrue(any(name in v.field for v in violations), f"a violation of {name}: {violations}")
        self.assertTrue(error.details())

    def check_bytes(self, body, right):
        c = self.connect()
        c.request(self.headers(), h2.message(body))
        answer = c.answer()
        self.assertIn(answer.outcome, right, answer.headers)

    # ---- Regions ----

    def test_region_unknown_in_a_create(self):
        request = self.client.create_request("x", image())
        request.parent = "projects/demo/regions/atlantis"
        self.assert_code(rpc_error(self.client.call, self.client.containers.CreateContainer, request), grpc.StatusCode.NOT_FOUND)

    def test_region_unknown_in_a_list(self):
        request = es.ListEventsRequest(parent="regions/atlantis")
        self.assert_code(rpc_error(self.client.call, self.client.events.ListEvents, request), grpc.StatusCode.NOT_FOUND)

    def test_region_unknown_in_a_watch(self):
        stream = self.client.watch(region="atlantis")
        self.assert_code(rpc_error(lambda: list(stream)), grpc.StatusCode.NOT_FOUND)

    # ---- gRPC framing ----

    def framing(self, body, right, **override):
        c = self.connect()
        c.request(self.headers(**override), body)
        answer = c.answer()
        self.assertIn(answer.outcome, right, answer.headers)

    def test_framing_no_message(self):
        self.framing(b"", {"grpc 13", "grpc 3", "grpc 12"})

    def test_framing_cut_prefix(self):
        self.framing(b"\0\0", INVALID_OR_INTERNAL)

    def test_framing_cut_message(self):
        self.framing(h2.message(b"x" * 100)[:50], INVALID_OR_INTERNAL)

    def test_framing_two_messages(self):
        self.framing(h2.message(b"") * 2, INVALID_OR_INTERNAL | {"grpc 12"})

    def test_framing_compressed_without_encoding(self):
        self.framing(h2.message(b"x", compressed=1), INVALID_OR_INTERNAL | {"grpc 12"})

    def test_framing_flag_of_no_meaning(self):
        self.framing(h2.message(b"x", compressed=0x42), INVALID_OR_INTERNAL)

    def test_framing_unknown_encoding(self):
        self.framing(h2.message(b"x", compressed=1), {"grpc 12"}, grpc_encoding="snappy")

    def test_framing_message_said_to_be_4_gib(self):
        c = self.connect()
        c.request(self.headers(), struct.pack(">BI", 0, 0xffffffff) + b"x", end=False)
        self.assertIn(c.answer().outcome, {"grpc 8"})

    def test_framing_message_of_64_mib(self):
        c = self.connect()
        c.request(self.headers(), struct.pack(">BI", 0, 64 << 20) + b"\0" * 60000, end=False)
        self.assertIn(c.answer().outcome, {"grpc 8"})

    # ---- Headers ----

    def header_case(self, right, path=CREATE, body=h2.message(b""), extra=(), **override):
        c = self.connect()
        c.request([*self.headers(path, **override), *extra], body)
        answer = c.answer()
        self.assertIn(answer.outcome, right, answer.headers)

    def test_header_te_missing(self):
        self.header_case({"grpc 13", "grpc 3", "http 400", "reset"}, te=None)

    def test_header_content_type_json(self):
        self.header_case({"http 415"}, content_type="application/json")

    def test_header_content_type_missing(self):
        self.header_case({"http 415"}, content_type=None)

    def test_header_content_type_unknown_codec(self):
        self.header_case({"grpc 12", "http 415"}, content_type="application/grpc+thrift")

    def test_header_method_get(self):
        self.header_case({"http 405", "http 404", "http 415", "grpc 12"}, _method="GET")

    def test_header_path_unknown_service(self):
        self.header_case({"grpc 12"}, path="/harpoon.v1.Nothing/Do")

    def test_header_path_unknown_method(self):
        self.header_case({"grpc 12"}, path="/harpoon.v1.ContainerService/Explode")

    def test_header_path_of_20_000_bytes(self):
        self.header_case({"grpc 12", "http 431", "reset", "goaway", "closed", "grpc 8"}, path="/" + "x" * 20000)

    def test_header_path_without_slash(self):
        self.header_case({"grpc 12", "http 404", "reset", "goaway"}, path="nonsense")

    def test_header_path_missing(self):
        self.header_case({"reset", "goaway"}, _path=None)

    def test_header_timeout_malformed(self):
        for text in ("soon", "-1S", "1", "999999999S", "S", "1 S", "1Q"):
            with self.subTest(text):
                self.header_case({"grpc 3", "grpc 13", "http 400"}, grpc_timeout=text)

    def test_header_timeout_of_nothing(self):
        self.header_case({"grpc 4", "reset"}, grpc_timeout="0n", path="/harpoon.v1.OperationService/WaitOperation",
                         body=h2.message(field(1, (PARENT + "/operations/" + "0" * 32).encode())))

    def test_header_token_missing(self):
        self.header_case({"grpc 16"}, authorization=None)

    def test_header_token_wrong(self):
        self.header_case({"grpc 16"}, authorization="Bearer nonsense")

    def test_header_token_of_another_scheme(self):
        self.header_case({"grpc 16"}, authorization="Basic YWRtaW46YWRtaW4=")

    def test_header_token_of_16_kib(self):
        self.header_case({"grpc 16", "reset", "http 431", "grpc 8", "goaway"}, authorization="Bearer " + "x" * 16384)

    def test_header_upper_case(self):
        c = self.connect()
        block = c.encoder.encode(self.headers()) + b"\x00\x03Bad\x01x"
        c.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block) + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"")))
        self.assertIn(c.answer().outcome, {"reset", "goaway"})

    def test_header_connection_specific(self):
        self.header_case({"reset", "goaway", "http 400"}, extra=[("connection", "keep-alive")])

    def test_header_with_a_line_break(self):
        c = self.connect()
        block = c.encoder.encode(self.headers()) + b"\x00\x03bad\x04a\r\nb"
        c.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block) + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(b"")))
        self.assertIn(c.answer().outcome, {"reset", "goaway", "grpc 3"})

    def test_header_5_000_fields(self):
        self.header_case({"reset", "http 431", "grpc 8", "goaway"}, extra=[(f"x-{i}", "v") for i in range(5000)])

    def test_header_bomb_of_one_indexed_field(self):
        # One field of 4,000 bytes in the dynamic table, then named 14,000 times with one byte each: 56 MB for 18 kB.
        c = self.connect()
        block = c.encoder.encode(self.headers()) + b"\x40\x01x" + b"\x7f" + varint(4000 - 127) + b"v" * 4000 + b"\xbe" * 14000
        parts = [block[i:i + 16000] for i in range(0, len(block), 16000)]
        out = b"".join(h2.frame(h2.CONTINUATION if i else h2.HEADERS, h2.END_HEADERS if i == len(parts) - 1 else 0, 1, p) for i, p in enumerate(parts))
        c.send(out)
        self.assertIn(c.answer().outcome, {"reset", "http 431", "grpc 8", "goaway", "closed"})

    # ---- HTTP/2 ----

    def connection_case(self, data, right=frozenset({"goaway", "closed"}), greet=True):
        c = self.connect(greet=greet)
        c.send(data)
        self.assertIn(c.answer(seconds=5).outcome, right)

    def test_http2_no_preface(self):
        self.connection_case(b"hello, is this gRPC?\r\n\r\n" * 4, greet=False)

    def test_http2_http1_request(self):
        self.connection_case(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", {"goaway", "closed", "nothing"}, greet=False)

    def test_http2_cut_preface(self):
        c = self.connect(greet=False)
        c.send(h2.PREFACE[:10])
        c.close()

    def test_http2_data_on_stream_0(self):
        self.connection_case(h2.frame(h2.DATA, 0, 0, b"x"))

    def test_http2_data_on_an_idle_stream(self):
        self.connection_case(h2.frame(h2.DATA, 0, 7, b"x"), {"goaway", "closed", "nothing"})

    def test_http2_headers_on_an_even_stream(self):
        self.connection_case(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 2, b"\x82"))

    def test_http2_headers_of_garbage(self):
        self.connection_case(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, b"\xff" * 100))

    def test_http2_frame_too_large(self):
        self.connection_case(h2.frame(h2.DATA, 0, 1, b"x" * 100_000))

    def test_http2_settings_of_odd_size(self):
        self.connection_case(h2.frame(h2.SETTINGS, 0, 0, b"x" * 5))

    def test_http2_settings_with_a_bad_window(self):
        self.connection_case(h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0xffffffff)))

    def test_http2_ping_of_odd_size(self):
        self.connection_case(h2.frame(h2.PING, 0, 0, b"x"))

    def test_http2_window_update_of_0(self):
        self.connection_case(h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"))

    def test_http2_window_overflow(self):
        self.connection_case(h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2)

    def test_http2_push_promise_from_a_client(self):
        self.connection_case(h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, b"\0\0\0\2\x82"))

    def test_http2_continuation_without_headers(self):
        self.connection_case(h2.frame(h2.CONTINUATION, 0, 1, b"x"))

    def test_http2_continuation_flood(self):
        self.connection_case(h2.frame(h2.HEADERS, 0, 1, b"\x82") + h2.frame(h2.CONTINUATION, 0, 1, b"") * 5000)

    def test_http2_settings_flood(self):
        self.connection_case(h2.frame(h2.SETTINGS, 0, 0) * 20000, {"goaway", "closed", "nothing"})

    def test_http2_rapid_reset(self):
        c = self.connect()
        block = c.encoder.encode(self.headers())
        for stream in range(1, 12001, 2):
            if not c.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block) + h2.frame(h2.RST_STREAM, 0, stream, b"\0\0\0\x08")):
                break
        self.assertIn(c.answer(stream=12001, seconds=5).outcome, {"goaway", "closed"})

    def test_http2_cut_frame(self):
        c = self.connect()
        c.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, c.encoder.encode(self.headers()))[:20])
        c.close()

    def test_http2_cut_in_the_middle_of_a_message(self):
        c = self.connect()
        c.request(self.headers(), h2.message(b"x" * 1000)[:100], end=False)
        c.close()

    def test_http2_reader_that_never_reads(self):
        # Wants many large answers and takes none: the gateway must hold them back, not pile them up.
        c = self.connect(greet=False)
        c.send(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
        for stream in range(1, 100, 2):
            c.request(self.headers("/harpoon.v1.ContainerService/ListContainers"), h2.message(field(1, PARENT.encode())), stream)
        self.assertIn(c.answer(seconds=2).outcome, {"nothing", "reset", "goaway"})

    def test_http2_500_streams_at_once(self):
        c = self.connect()
        for stream in range(1, 1001, 2):
            if not c.request(self.headers(), end=False, stream=stream):
                break
        self.assertIn(c.answer(stream=999, seconds=5).outcome, {"reset", "goaway", "closed", "nothing"})

    # ---- TLS ----

    def raw(self, data):
        host, port = self.endpoint.split("://")[1].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as s:
            s.sendall(data)
            try:
                return s.recv(4096)
            except (ConnectionError, TimeoutError):
                return b""

    def test_tls_plain_text(self):
        self.assertNotIn(b"200", self.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))

    def test_tls_garbage(self):
        self.raw(bytes(range(256)) * 16)

    def test_tls_cut_hello(self):
        self.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")

    def test_tls_version_1_1(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        host, port = self.endpoint.split("://")[1].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as s, self.assertRaises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(s)

    def test_tls_without_alpn(self):
        c = self.connect(alpn=())
        c.request(self.headers(GET), h2.message(field(1, NAME.encode())))
        self.assertIn(c.answer(seconds=5).outcome, {"grpc 5", "closed", "goaway", "nothing"})

    # ---- Values that are odd, and right ----

    def test_good_after_all_and_the_same_processes(self):
        self.client.succeeded(self.client.create("after-all", image()))
        self.client.succeeded(self.client.delete("after-all"))

    @classmethod
    def tearDownClass(cls):
        after = cls.stack.pids()
        super().tearDownClass()
        assert after == cls.before, f"a daemon ended: {cls.before} then {after}"


def add(name, test):
    setattr(BadInputGrpcTest, "test_" + "".join(c if c.isalnum() else "_" for c in name), test)


for case_name, changes, wrong_field in FIELDS:
    def field_test(self, changes=changes, wrong_field=wrong_field):
        request = self.client.create_request("fields", image())
        for path, value in changes:
            data_target((request, path, value))
        self.check_field(rpc_error(self.client.call, self.client.containers.CreateContainer, request), wrong_field)
    add("field_" + case_name, field_test)

for case_name, service, method, bad_request, wrong_field in METHODS:
    def method_test(self, service=service, method=method, bad_request=bad_request, wrong_field=wrong_field):
        self.check_field(rpc_error(self.client.call, getattr(getattr(self.client, service), method), bad_request), wrong_field)
    add("method_" + case_name, method_test)

for case_name, body, right in BYTES:
    def bytes_test(self, body=body, right=right):
        self.check_bytes(body, right)
    add("bytes_" + case_name, bytes_test)


if __name__ == "__main__":
    import unittest
    unittest.main()
