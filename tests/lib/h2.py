"""A bare HTTP/2 client that can also misbehave: it sends any frame, and tells how the server answered."""
import socket
import ssl
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body, compressed=0):
    """A gRPC length-prefixed message."""
    return struct.pack(">BI", compressed, len(body)) + body


class Answer:
    """What came back on a stream, or for the connection."""

    def __init__(self):
        self.headers, self.data = {}, b""
        self.reset = self.goaway = None  # error codes
        self.closed = self.ended = False

    @property
    def outcome(self):
        """One word: "http N" when that is not 200, "grpc N", "reset", "goaway", "closed", "nothing"."""
        if self.headers.get(":status", "200") != "200":
            return f"http {self.headers[':status']}"
        if "grpc-status" in self.headers:
            return f"grpc {self.headers['grpc-status']}"
        if ":status" in self.headers and self.ended:
            return f"http {self.headers[':status']}"
        if self.reset is not None:
            return "reset"
        if self.goaway is not None:
            return "goaway"
        return "closed" if self.closed else "nothing"


class Connection:
    """One connection over TLS with ALPN h2; the preface and empty settings are sent unless `greet` is False."""

    def __init__(self, endpoint, ca, greet=True, alpn=("h2",), timeout=10):
        host, port = endpoint.split("://")[-1].rsplit(":", 1)
        context = ssl.create_default_context(cafile=ca)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        raw = socket.create_connection((host, int(port)), timeout=timeout)
        self.sock = context.wrap_socket(raw, server_hostname="localhost")
        self.timeout = timeout
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder(max_header_list_size=1 << 20)
        self.pending = b""
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data):
        """Sends what the server still takes."""
        try:
            self.sock.settimeout(self.timeout)
            self.sock.sendall(data)
            return True
        except (OSError, ssl.SSLError):
            return False

    def close(self):
        self.sock.close()

    def request(self, headers, body=None, stream=1, end=True):
        block = self.encoder.encode(headers)
        first, rest = block[:16000], [block[i:i + 16000] for i in range(16000, len(block), 16000)]
        out = frame(HEADERS, (0 if rest else END_HEADERS) | (END_STREAM if body is None and end else 0), stream, first)
        for i, part in enumerate(rest):
            out += frame(CONTINUATION, END_HEADERS if i == len(rest) - 1 else 0, stream, part)
        if body is not None:
            parts = [body[i:i + 16384] for i in range(0, len(body), 16384)] or [b""]
            for i, part in enumerate(parts):
                out += frame(DATA, END_STREAM if end and i == len(parts) - 1 else 0, stream, part)
        return self.send(out)

    def read_frame(self, deadline):
        """(kind, flags, stream, payload), or None at the end of the connection; TimeoutError at the deadline."""
        while True:
            if len(self.pending) >= 9:
                size = int.from_bytes(self.pending[:3], "big")
                if len(self.pending) >= 9 + size:
                    kind, flags, stream = struct.unpack(">BBI", self.pending[3:9])
                    payload, self.pending = self.pending[9:9 + size], self.pending[9 + size:]
                    return kind, flags, stream & 0x7fffffff, payload
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self.pending += data

    def answer(self, stream=1, seconds=None):
        """Reads until the stream or the connection ends, or time is up."""
        result, block = Answer(), b""
        deadline = time.monotonic() + (seconds or self.timeout)
        while True:
            try:
                got = self.read_frame(deadline)
            except TimeoutError:
                return result
            if got is None:
                result.closed = True
                return result
            kind, flags, on, payload = got
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                result.goaway = struct.unpack(">I", payload[4:8])[0]
            elif kind in (HEADERS, CONTINUATION):
                block += payload
                if flags & END_HEADERS:
                    fields, block = self.decoder.decode(block), b""
                    if on == stream:
                        result.headers.update(fields)
            elif kind == DATA and on == stream:
                result.data += payload
            elif kind == RST_STREAM and on == stream:
                result.reset = struct.unpack(">I", payload)[0]
                return result
            if kind in (DATA, HEADERS) and flags & END_STREAM and on == stream:
                result.ended = True
                return result


def grpc_headers(path, token=None, authority="localhost", **override):
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": authority, "te": "trailers",
              "content-type": "application/grpc"}
    if token:
        fields["authorization"] = "Bearer " + token
    for name, value in override.items():
        name = (":" + name[1:]) if name.startswith("_") else name.replace("_", "-")
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    return list(fields.items())
