#!/usr/bin/python3
"""The proxy of tests/lib/tcp_proxy.h, with real sockets: what each fault does to connections old and new, and what healing does. Usage: tcp_proxy_test.py PROGRAM"""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy/dev/lib"))
sys.dont_write_bytecode = True
from links import Proxy, ProxyError  # noqa: E402

PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 and os.path.exists(sys.argv[1]) else ""
SILENCE = 0.15  # seconds in which nothing may arrive
PATIENCE = 20


class ProxyTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="hp-proxy-")
        self.addCleanup(self.directory.cleanup)
        control = os.path.join(self.directory.name, "control")
        ready = os.path.join(self.directory.name, "ready")
        self.process = subprocess.Popen([PROGRAM, "--control", control, "--ready-file", ready])
        self.addCleanup(self.end)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(ready) and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.005)
        self.proxy = Proxy(control)
        self.addCleanup(self.proxy.close)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(PATIENCE)
        self.addCleanup(self.server.close)
        self.address = self.add("a:b")

    def end(self):
        """It ends in order on SIGTERM, whatever is open; a sanitizer's report makes another status."""
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(PATIENCE), 0)

    def add(self, name):
        host, port = self.proxy.add(name, "127.0.0.1:0", "127.0.0.1:%d" % self.server.getsockname()[1])["listen"].split(":")
        return host, int(port)

    def connect(self, address=None):
        s = socket.create_connection(address or self.address, PATIENCE)
        self.addCleanup(s.close)
        return s

    def pair(self, address=None):
        client = self.connect(address)
        server, _ = self.server.accept()
        server.settimeout(PATIENCE)
        self.addCleanup(server.close)
        client.sendall(b"hello")
        self.assert_hears(server, b"hello")
        return client, server

    def assert_hears(self, s, data):
        got = b""
        while len(got) < len(data):
            more = s.recv(len(data) - len(got))
            self.assertTrue(more, f"the end came after {got!r}")
            got += more
        self.assertEqual(got, data)

    def assert_silent(self, *sockets):
        for s in sockets:
            s.settimeout(SILENCE)
            with self.assertRaises(TimeoutError):
                s.recv(1)
            s.settimeout(PATIENCE)

    def assert_reset(self, s):
        with self.assertRaises(ConnectionResetError):
            s.recv(1)

    def assert_new_is_reset(self):
        """The reset may come as early as in connect, or with the first read."""
        with self.assertRaises(ConnectionResetError):
            self.connect().recv(1)

    def link(self, name="a:b"):
        return next(k for k in self.proxy.links() if k["link"] == name)

    def test_bytes_and_ends_pass_in_both_directions(self):
        client, server = self.pair()
        data = os.urandom(3 << 20)  # more than the proxy holds
        client.setblocking(False)
        sent, got = 0, bytearray()
        deadline = time.monotonic() + PATIENCE
        while len(got) < len(data) and time.monotonic() < deadline:
            try:
                sent += client.send(data[sent:sent + 65536])
            except BlockingIOError:
                pass
            server.settimeout(0.001)
            try:
                got += server.recv(1 << 20)
            except TimeoutError:
                pass
        self.assertEqual(bytes(got), data)
        client.setblocking(True)
        client.settimeout(PATIENCE)
        server.settimeout(PATIENCE)
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(server.recv(1), b"")
        server.sendall(b"still")
        self.assert_hears(client, b"still")
        server.close()
        self.assertEqual(client.recv(1), b"")
        link = self.link()
        self.assertEqual((link["accepted"], link["bytes_up"], link["bytes_down"], link["faulted"]), (1, len(data) + 5, 5, 0))

    def test_drop_keeps_everything_back_and_healing_lets_it_go(self):
        client, server = self.pair()
        self.proxy.set("a:*", mode="drop")
        client.sendall(b"up")
        server.sendall(b"down")
        late = self.connect()
        late.sendall(b"late")
        self.assert_silent(client, server)
        client.shutdown(socket.SHUT_WR)
        self.server.settimeout(SILENCE)
        with self.assertRaises(TimeoutError):
            self.server.accept()
        self.server.settimeout(PATIENCE)
        self.proxy.heal()
        self.assert_hears(server, b"up")
        self.assertEqual(server.recv(1), b"")
        self.assert_hears(client, b"down")
        other, _ = self.server.accept()
        self.addCleanup(other.close)
        other.settimeout(PATIENCE)
        self.assert_hears(other, b"late")
        self.assertGreaterEqual(self.link()["faulted"], 1)

    def test_drop_of_one_direction(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="drop", direction="up")
        client.sendall(b"up")
        server.sendall(b"down")
        self.assert_hears(client, b"down")
        self.assert_silent(server)
        self.proxy.set("a:b", mode="drop", direction="down")
        self.assert_hears(server, b"up")
        server.sendall(b"more")
        self.assert_silent(client)

    def test_a_reset_does_not_cross_a_drop(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="drop", direction="up")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        try:
            for _ in range(4):
                server.sendall(b"x" * 65536)  # finds the client gone
        except OSError:
            self.fail("the target was told")
        self.assert_silent(server)
        self.proxy.heal()
        self.assert_reset(server)

    def test_half_open(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="half-open")
        self.assert_reset(server)
        new = self.connect()
        new.sendall(b"x")
        self.assert_silent(client, new)
        self.proxy.heal()
        self.assert_reset(client)
        self.assert_reset(new)
        self.pair()

    def test_half_open_the_other_way_round(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="half-open", direction="down")
        self.assert_reset(client)
        self.assert_silent(server)
        self.assert_new_is_reset()
        self.proxy.heal()
        self.assert_reset(server)

    def test_refuse_leaves_old_connections(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="refuse")
        self.assert_new_is_reset()
        client.sendall(b"on")
        self.assert_hears(server, b"on")
        self.assertEqual(self.link()["refused"], 1)

    def test_reset_and_cut(self):
        client, server = self.pair()
        self.proxy.set("a:b", mode="reset")
        self.assert_reset(client)
        self.assert_reset(server)
        self.assert_new_is_reset()
        self.proxy.heal()
        client, server = self.pair()
        self.assertEqual(self.proxy.call("cut", link="*")["connections"], 1)
        self.assert_reset(client)
        self.assert_reset(server)
        self.assertEqual(self.link()["cut"], 1)
        self.pair()

    def test_delay_in_one_direction(self):
        client, server = self.pair()
        self.proxy.set("a:b", delay_ms=300, direction="down")
        began = time.monotonic()
        client.sendall(b"up")
        self.assert_hears(server, b"up")
        server.sendall(b"down")
        self.assert_hears(client, b"down")
        self.assertGreaterEqual(time.monotonic() - began, 0.3)
        server.sendall(b"last")
        server.close()
        self.proxy.heal()  # what waits goes at once, and the end after it
        self.assert_hears(client, b"last")
        self.assertEqual(client.recv(1), b"")

    def test_drip(self):
        client, server = self.pair()
        self.proxy.set("a:b", bytes_per_s=200, direction="up")
        began = time.monotonic()
        client.sendall(b"x" * 100)
        self.assert_hears(server, b"x" * 100)
        self.assertGreaterEqual(time.monotonic() - began, 0.4)
        client.sendall(b"y" * 100000)
        self.proxy.heal()
        self.assert_hears(server, b"y" * 100000)

    def test_a_target_that_is_away(self):
        self.server.close()
        self.assert_new_is_reset()
        self.assertEqual(self.link()["failed"], 1)

    def test_patterns_and_removal(self):
        other = self.add("a:c")
        one, _ = self.pair()
        two, _ = self.pair(other)
        self.assertEqual(self.proxy.set("*:c", mode="drop"), ["a:c"])
        self.assertEqual(self.proxy.call("remove", link="a:c")["links"], ["a:c"])
        self.assert_reset(two)
        with self.assertRaises(ConnectionRefusedError):
            self.connect(other)
        self.assert_silent(one)
        self.assertEqual([k["link"] for k in self.proxy.links()], ["a:b"])

    def test_bad_commands_are_answered(self):
        for cmd, arguments, word in [
                ("jump", {}, "unknown"), ("set", {"link": "x*"}, "no link matches"), ("set", {"link": "a:b", "mode": "maybe"}, "maybe"),
                ("set", {"link": "a:b", "delay": 5}, "delay"), ("set", {"link": "a:b", "delay_ms": -1}, "delay_ms"), ("set", {}, "link"),
                ("add", {"link": "n", "listen": "here", "target": "127.0.0.1:1"}, "listen"),
                ("add", {"link": "n", "listen": "127.0.0.1:0", "target": "127.0.0.1:99999"}, "target"),
                ("add", {"link": "a:b", "listen": "127.0.0.1:0", "target": "127.0.0.1:1"}, "exists"), ("add", {"link": "n"}, "needs")]:
            with self.subTest(cmd=cmd, arguments=arguments), self.assertRaisesRegex(ProxyError, word):
                self.proxy.call(cmd, **arguments)
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(PATIENCE)
        s.connect(self.proxy.path)
        s.sendall(b"{]\n" * 3)
        self.assertEqual(s.makefile().readline()[:11], '{"ok":false')
        s.sendall(b" " * (64 << 10))
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass
        self.pair()


if __name__ == "__main__":
    unittest.main()
