#!/usr/bin/python3
"""Makes the first inputs of the fuzz targets, one file each in corpus/NAME. Files that fuzzing has found are kept beside them."""
import os
import struct
import sys

import hpack

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from h2 import CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, message  # noqa: E402
from make_scripts import all_inputs  # noqa: E402


def field(number, kind, value):
    return bytes([number << 3 | kind]) + value


def text(number, value):
    return field(number, 2, bytes([len(value)]) + value)


HELLO = text(1, b"hello") + text(2, b"\0\1") + text(7, text(1, b"item")) + text(8, text(1, b"k") + text(2, b"v"))
ANSWER = text(1, b"hello") + text(5, text(1, b"item")) + text(6, text(1, b"k") + text(2, b"v"))
FAILS, HANGS = field(3, 0, b"\5"), field(12, 0, b"\1")


def request(encoder, stream, method, body, end=True, extra=()):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/harpoon.test.v1.EchoService/" + method), (":authority", "x"), ("content-type", "application/grpc"),
              ("te", "trailers"), *extra]
    return frame(HEADERS, END_HEADERS, stream, encoder.encode(fields)) + frame(DATA, END_STREAM if end else 0, stream, body)


def server_inputs():
    e = hpack.Encoder
    yield "unary", b"\1" + request(e(), 1, "Echo", message(HELLO))
    yield "bytes", b"\3" + request(e(), 1, "Echo", message(HELLO))
    yield "chat", b"\5" + request(e(), 1, "Chat", message(HELLO) + message(HELLO), end=False) + frame(DATA, END_STREAM, 1, message(FAILS))
    yield "paused", b"\5" + request(e(), 1, "Chat", message(HANGS) + message(HELLO), end=False) + frame(DATA, 0, 1, message(HELLO) * 20)
    yield "late", b"\5" + request(e(), 1, "Echo", message(HANGS)) + frame(RST_STREAM, 0, 1, struct.pack(">I", 8))
    yield "deadline", b"\x0d" + request(e(), 1, "Echo", message(HANGS), extra=[("grpc-timeout", "10m")]) + frame(PING, 0, 0, b"12345678")
    yield "too-large", b"\1" + request(e(), 1, "Echo", message(b"x" * 5000))
    yield "continued", b"\1" + frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 1, b"\x84")
    yield "windows", b"\5" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + request(e(), 1, "Echo", message(HELLO)) + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 100))
    yield "away", b"\5" + request(e(), 1, "Chat", message(HELLO), end=False) + frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0))
    yield "compressed", b"\1" + request(e(), 1, "Echo", message(HELLO, compressed=1), extra=[("grpc-encoding", "gzip")])
    yield "preface", b"\4PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)


def response(encoder, stream, body, trailers):
    return (frame(HEADERS, END_HEADERS, stream, encoder.encode([(":status", "200"), ("content-type", "application/grpc")])) + frame(DATA, 0, stream, body) +
            frame(HEADERS, END_HEADERS | END_STREAM, stream, encoder.encode(trailers)))


def client_inputs():
    begin, e = frame(SETTINGS, 0, 0), hpack.Encoder
    yield "ok", b"\2" + begin + response(e(), 1, message(ANSWER), [("grpc-status", "0")])
    yield "error", b"\3" + begin + response(e(), 3, message(ANSWER), [("grpc-status", "5"), ("grpc-message", "not%20here"), ("grpc-status-details-bin", "CAUSBGdvbmU")])
    yield "trailers-only", b"\2" + begin + frame(HEADERS, END_HEADERS | END_STREAM, 1, e().encode([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "7")]))
    yield "http", b"\2" + begin + frame(HEADERS, END_HEADERS | END_STREAM, 1, e().encode([(":status", "503")]))
    yield "reset", b"\6" + begin + frame(RST_STREAM, 0, 1, struct.pack(">I", 7)) + frame(RST_STREAM, 0, 5, struct.pack(">I", 0))
    yield "away", b"\6" + begin + frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0)) + response(e(), 1, b"", [("grpc-status", "0")])


def texts_inputs():
    for name, value in (("timeout", b"100m"), ("type", b"application/grpc+proto; x"), ("message", b"a%20b%C3%A4%zz%"), ("number", b"404")):
        yield name, b"\0" + value
    status = field(1, 0, b"\5") + text(2, b"gone") + text(3, text(1, b"type.googleapis.com/google.rpc.ErrorInfo") + text(2, text(1, b"REASON") + text(2, b"harpoon")))
    yield "status", b"\1" + status
    yield "messages", b"\x0a" + message(b"") + message(b"abc") + message(b"x" * 300)
    yield "base64", b"\3Zm9vYg=="


def codec_inputs():
    yield "echo", b"\0" + HELLO + FAILS
    yield "create", b"\1" + text(1, b"projects/p/regions/r") + text(2, b"c") + text(3, text(1, b"n") + text(2, text(1, b"k") + text(2, b"v")))
    yield "deep", b"\2" + text(1, text(3, text(3, text(3, b""))))


def json_inputs():
    yield "echo", b'\0{"text":"\xc3\xa4\\u00e4","data":"AAE=","number":"-9223372036854775808","items":[{"name":"a","number":1}],"labels":{"k":"v"},"color":"COLOR_RED","time":"2024-02-29T12:00:00.5Z"}'
    yield "create", b'\1{"parent":"projects/p/regions/r","container_id":"c","container":{"labels":{"a":"b"},"spec":{"image":"i","resources":{"cpuMillis":"20"}}}}'
    yield "bad", b'\0{"text":null,"nothing":[1e999,{"a":{}}]}'


def main():
    for name, inputs in (("grpc_server", server_inputs), ("grpc_client", client_inputs), ("grpc_texts", texts_inputs), ("codec", codec_inputs), ("json", json_inputs), *all_inputs().items()):
        directory = os.path.join(HERE, "corpus", name)
        os.makedirs(directory, exist_ok=True)
        for case, data in inputs():
            with open(os.path.join(directory, case), "wb") as f:
                f.write(data)


if __name__ == "__main__":
    main()
