"""Certificates that change under a running server: gRPC and Connect take them over, whoever is connected stays so, and a certificate without its key changes nothing."""
import http.client
import os
import shutil
import ssl
import tempfile
import unittest

import grpc

from harness import eventually
from rpc_server import RpcServer, load_stubs, make_certificates

pb, stubs, _, _ = load_stubs(tempfile.mkdtemp(prefix="hp-stubs-"))
ECHO = "/harpoon.test.v1.EchoService/"
TAKE_OVER_SECONDS = 15


class CertificatesTest(unittest.TestCase):
    def setUp(self):
        self.server = RpcServer()
        self.addCleanup(self.server.stop)  # which checks that nothing is left behind
        self.next = tempfile.mkdtemp(prefix="hp-next-")
        self.addCleanup(shutil.rmtree, self.next)
        make_certificates(self.next)
        self.next_ca = os.path.join(self.next, "ca.pem")

    def put(self, name):
        """As `mv` does it: whole or not at all."""
        shutil.copy(os.path.join(self.next, name), os.path.join(self.server.directory, name + ".new"))
        os.rename(os.path.join(self.server.directory, name + ".new"), os.path.join(self.server.directory, name))

    def connect(self, ca):
        host, port = self.server.address["http"].split(":")
        connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=ssl.create_default_context(cafile=ca))
        self.addCleanup(connection.close)
        return connection

    def post(self, connection):
        connection.request("POST", ECHO + "Echo", '{"text":"x"}', {"Content-Type": "application/json"})
        return connection.getresponse().read()

    def http_serves(self, ca):
        try:
            return b'"x"' in self.post(self.connect(ca))
        except ssl.SSLCertVerificationError:
            return False

    def grpc_serves(self, ca):
        with open(ca, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        with grpc.secure_channel(self.server.address["grpc"], credentials) as channel:
            try:
                return stubs.EchoServiceStub(channel).Echo(pb.EchoRequest(text="x"), timeout=5).text == "x"
            except grpc.RpcError:
                return False

    def test_they_are_taken_over(self):
        former_ca = os.path.join(self.next, "former.pem")
        shutil.copy(self.server.ca, former_ca)
        standing = self.connect(former_ca)
        self.assertIn(b'"x"', self.post(standing))
        with open(former_ca, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        channel = grpc.secure_channel(self.server.address["grpc"], credentials)
        self.addCleanup(channel.close)
        echo = stubs.EchoServiceStub(channel)
        self.assertEqual(echo.Echo(pb.EchoRequest(text="x"), timeout=20).text, "x")

        self.put("server.pem")  # its key comes later
        eventually(lambda: self.grpc_serves(former_ca) and self.http_serves(former_ca) and self.server.text().count("the former ones stay") == 2, TAKE_OVER_SECONDS,
                   lambda: "both to tell that the pair is none: " + self.server.text())
        self.put("server.key")
        self.put("ca.pem")
        eventually(lambda: self.grpc_serves(self.next_ca), TAKE_OVER_SECONDS, "gRPC with the new certificate")
        eventually(lambda: self.http_serves(self.next_ca), TAKE_OVER_SECONDS, "Connect with the new certificate")
        self.assertFalse(self.grpc_serves(former_ca))
        self.assertFalse(self.http_serves(former_ca))
        self.assertEqual(echo.Echo(pb.EchoRequest(text="x"), timeout=20).text, "x", "a connection that stands stays")
        self.assertIn(b'"x"', self.post(standing))
        self.assertEqual(self.server.text().count("the former ones stay"), 2, "told once each")


if __name__ == "__main__":
    unittest.main()
