"""Bad input at the gateway's HTTP/1.1 port (the Connect protocol). Each case has a name and the answers that are right."""
import http.client
import json
import socket
import ssl

from harness import StackTest, image
from harpoon.v1 import container_service_pb2 as cs

PARENT = "projects/demo/regions/r1"
GET = "/harpoon.v1.ContainerService/GetContainer"
CREATE = "/harpoon.v1.ContainerService/CreateContainer"
LIST = "/harpoon.v1.ContainerService/ListContainers"
GOOD = json.dumps({"name": PARENT + "/containers/nobody"}).encode()


def create(**change):
    body = {"parent": PARENT, "containerId": "x", "container": {"spec": {"image": "oci:/x:y", "resources": {"cpuMillis": "20", "memoryBytes": "16777216"}}}}
    body.update(change)
    return json.dumps(body).encode()


# Name, path, body, right (status, Connect code) pairs.
INVALID = {(400, "invalid_argument")}
BODIES = [
    ("json that is cut", GET, b'{"name": "proj', INVALID),
    ("json with a trailing comma", GET, b'{"name": "a",}', INVALID),
    ("json with garbage behind it", GET, GOOD + b"{}", INVALID),
    ("an array", GET, b"[]", INVALID),
    ("a bare string", GET, b'"name"', INVALID),
    ("null", GET, b"null", INVALID),
    ("no body", GET, b"", INVALID),
    ("an unknown field", GET, b'{"name": "a", "colour": "red"}', INVALID),
    ("an unknown field deep inside", CREATE, create(container={"spec": {"colour": "red"}}), INVALID),
    ("a field twice", GET, b'{"name": "a", "name": "b"}', INVALID),
    ("a number for a string", GET, b'{"name": 7}', INVALID),
    ("an object for a string", GET, b'{"name": {}}', INVALID),
    ("a string for a list", CREATE, create(container={"spec": {"command": "sh"}}), INVALID),
    ("a list for an object", CREATE, create(container=[]), INVALID),
    ("a string for a number", LIST, json.dumps({"parent": PARENT, "pageSize": "many"}).encode(), INVALID),
    ("a fraction for a number", LIST, json.dumps({"parent": PARENT, "pageSize": 1.5}).encode(), INVALID),
    ("a number that overflows 32 bits", LIST, json.dumps({"parent": PARENT, "pageSize": 1 << 40}).encode(), INVALID),
    ("a number that overflows 64 bits", CREATE, create(container={"spec": {"resources": {"memoryBytes": str(1 << 64)}}}), INVALID),
    ("a number of 400 digits", CREATE, create(container={"spec": {"resources": {"memoryBytes": "9" * 400}}}), INVALID),
    ("NaN", LIST, b'{"pageSize": NaN}', INVALID),
    ("an enum of no kind", CREATE, create(container={"spec": {"desiredState": "DESIRED_STATE_FLYING"}}), INVALID),
    ("invalid UTF-8", GET, b'{"name": "\xff\xfe"}', INVALID),
    ("a lone surrogate", GET, b'{"name": "\\ud800"}', INVALID),
    ("a NUL", GET, b'{"name": "a\\u0000b"}', INVALID),
    ("10,000 arrays deep", GET, b"[" * 10000, INVALID),
    ("10,000 objects deep", GET, b'{"name":' * 10000, INVALID),
    ("a bad duration", "/harpoon.v1.OperationService/WaitOperation", json.dumps({"name": PARENT + "/operations/" + "0" * 32, "timeout": "soon"}).encode(),
     INVALID),
    ("a bad timestamp", "/harpoon.v1.EventService/ListEvents", json.dumps({"parent": "regions/r1", "since": "yesterday"}).encode(), INVALID),
    ("two of a oneof", CREATE, create(container={"spec": {"healthCheck": {"exec": {"command": ["a"]}, "tcp": {"port": 1}}}}), INVALID),
    ("8 MiB of blanks", GET, b" " * (8 << 20) + GOOD, {(429, "resource_exhausted"), (413, None), (400, "invalid_argument"), (0, None)}),
    ("an unknown method", "/harpoon.v1.ContainerService/Explode", b"{}", {(404, "unimplemented"), (501, "unimplemented"), (404, None)}),
    ("an unknown service", "/harpoon.v1.Nothing/Do", b"{}", {(404, "unimplemented"), (501, "unimplemented"), (404, None)}),
    ("the root", "/", b"{}", {(404, "unimplemented"), (501, "unimplemented"), (404, None)}),
    ("a path that climbs", "/../../etc/passwd", b"{}", {(404, "unimplemented"), (501, "unimplemented"), (404, None)}),
    ("a bidirectional method", "/harpoon.v1.EventService/Submit", b"{}", {(501, "unimplemented"), (404, "unimplemented"), (415, None), (505, None), (505, "unimplemented"), (415, "unknown")}),
]
# Name, headers (None removes one), right pairs.
HEADERS = [
    ("content type of text", {"Content-Type": "text/plain"}, {(415, None)}),
    ("content type missing", {"Content-Type": None}, {(415, None)}),
    ("content type of another codec", {"Content-Type": "application/xml"}, {(415, None)}),
    ("an encoding of no kind", {"Content-Encoding": "br"}, {(501, "unimplemented"), (404, "unimplemented"), (415, None)}),
    ("a protocol version of the future", {"Connect-Protocol-Version": "9"}, INVALID),
    ("a time-out of words", {"Connect-Timeout-Ms": "soon"}, INVALID),
    ("a time-out of 11 digits", {"Connect-Timeout-Ms": "99999999999"}, INVALID),
    ("no token", {"Authorization": None}, {(401, "unauthenticated")}),
    ("a wrong token", {"Authorization": "Bearer x"}, {(401, "unauthenticated")}),
    ("a token of another scheme", {"Authorization": "Digest x"}, {(401, "unauthenticated")}),
    ("a header of 1 MiB", {"X-Large": "x" * (1 << 20)}, {(431, None), (413, None), (400, None), (0, None)}),
    ("3,000 headers", {f"X-{i}": "v" for i in range(3000)}, {(431, None), (413, None), (400, None), (0, None)}),
]


class BadInputHttpTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 1}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = cls.stack.pids()
        cls.address = cls.stack.env["HARPOON_HTTP"].split("://")[1]
        cls.tls = ssl.create_default_context(cafile=cls.stack.env["HARPOON_CA"])

    def tearDown(self):
        self.assertEqual(self.post(LIST, json.dumps({"parent": PARENT}).encode())[0], 200, "the gateway still serves")

    @classmethod
    def tearDownClass(cls):
        after = cls.stack.pids()
        super().tearDownClass()
        assert after == cls.before, f"a daemon ended: {cls.before} then {after}"

    def post(self, path, body, method="POST", **change):
        """(status, Connect code) of one request; (0, None) when the server hung up."""
        headers = {"Content-Type": "application/json", "Authorization": "Bearer " + self.stack.env["HARPOON_TOKEN"]}
        headers.update(change)
        connection = http.client.HTTPSConnection(self.address, timeout=10, context=self.tls)
        self.addCleanup(connection.close)
        try:
            connection.request(method, path, body, {k: v for k, v in headers.items() if v is not None})
            answer = connection.getresponse()
            text = answer.read()
        except (ConnectionError, ssl.SSLError, http.client.HTTPException):
            return 0, None
        try:
            return answer.status, json.loads(text).get("code")
        except (ValueError, AttributeError):
            return answer.status, None

    def raw(self, data, seconds=5):
        """What the server answers to bytes, until it hangs up or time is up."""
        host, port = self.address.rsplit(":", 1)
        with self.tls.wrap_socket(socket.create_connection((host, int(port)), timeout=seconds), server_hostname="localhost") as s:
            got = b""
            try:
                s.sendall(data)
                while len(got) < 65536:
                    part = s.recv(4096)
                    if not part:
                        break
                    got += part
            except (ConnectionError, TimeoutError, ssl.SSLError):
                pass
            return got

    def test_method_get(self):
        self.assertIn(self.post(GET, None, method="GET")[0], (405, 415, 404, 400))

    def test_method_delete(self):
        self.assertIn(self.post(GET, GOOD, method="DELETE")[0], (405,))

    def test_method_of_no_kind(self):
        self.assertIn(self.post(GET, GOOD, method="EXPLODE")[0], (405, 400, 501, 0))

    def test_raw_garbage(self):
        self.assertNotIn(b" 200 ", self.raw(bytes(range(256)) * 8 + b"\r\n\r\n"))

    def test_raw_bad_chunk(self):
        self.assertNotIn(b" 200 ", self.raw(b"POST " + GET.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                            b"Transfer-Encoding: chunked\r\n\r\nzzz\r\n{}\r\n0\r\n\r\n"))

    def test_raw_negative_length(self):
        self.assertNotIn(b" 200 ", self.raw(b"POST " + GET.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}"))

    def test_raw_two_lengths(self):
        self.assertNotIn(b" 200 ", self.raw(b"POST " + GET.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                            b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"))

    def test_raw_cut_body(self):
        self.assertNotIn(b" 200 ", self.raw(b"POST " + GET.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
                                            seconds=1))

    def test_raw_http_0_9(self):
        self.raw(b"GET /\r\n", seconds=1)

    def test_protobuf_of_garbage(self):
        self.assertEqual(self.post(GET, b"\xff" * 50, **{"Content-Type": "application/proto"}), (400, "invalid_argument"))

    def test_protobuf_that_is_good(self):
        body = cs.ListContainersRequest(parent=PARENT).SerializeToString()
        self.assertEqual(self.post(LIST, body, **{"Content-Type": "application/proto"})[0], 200)

    def test_stream_envelope_that_is_cut(self):
        status, _ = self.post("/harpoon.v1.EventService/Watch", b"\0\0\0\1", **{"Content-Type": "application/connect+json"})
        self.assertIn(status, (200, 400))  # a stream's error stands in its last envelope

    def test_good_after_all(self):
        self.client.succeeded(self.client.create("after-all", image()))
        self.client.succeeded(self.client.delete("after-all"))


def add(name, test):
    setattr(BadInputHttpTest, "test_" + "".join(c if c.isalnum() else "_" for c in name), test)


for case_name, a_path, a_body, right in BODIES:
    def body_test(self, path=a_path, body=a_body, right=right):
        self.assertIn(self.post(path, body), right)
    add("body_" + case_name, body_test)

for case_name, some_headers, right in HEADERS:
    def header_test(self, headers=some_headers, right=right):
        status, code = self.post(GET, GOOD, **headers)
        self.assertIn((status, code), right | {(s, code) for s, c in right if c is None})
    add("header_" + case_name, header_test)


if __name__ == "__main__":
    import unittest
    unittest.main()
