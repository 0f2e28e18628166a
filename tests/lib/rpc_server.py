"""The RPC test server (tests/lib/rpc_test_server.c) as a context for tests, with certificates made for it."""
import atexit
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import eventually
from paths import BUILD, TOP


def openssl(directory, *args):
    subprocess.run(["openssl", *args], cwd=directory, capture_output=True, check=True, timeout=60)


def make_certificates(directory):
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "3", "-subj", "/CN=rpc test")
    openssl(directory, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    with open(os.path.join(directory, "san"), "w") as f:
        f.write("subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl(directory, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "3", "-extfile", "san", "-out", "server.pem")


class RpcServer:
    """Started on ports of the kernel's choice. `tls`: gRPC and Connect over TLS; without, plaintext on loopback."""

    def __init__(self, tls=True, token=False, read_ms=0):
        self.directory = tempfile.mkdtemp(prefix="hp-rpc-")
        make_certificates(self.directory)
        self.ca = os.path.join(self.directory, "ca.pem")
        ready = os.path.join(self.directory, "ready")
        files = [os.path.join(self.directory, n) for n in ("server.pem", "server.key", "ca.pem")] if tls else []
        env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1", "READ_MS": str(read_ms), **({"WITH_TOKEN": "1"} if token else {})}
        self.log = open(os.path.join(self.directory, "log"), "w+")
        self.process = subprocess.Popen([os.path.join(BUILD, "tests/lib/rpc-test-server"), ready, *files], stderr=self.log, env=env)
        deadline = time.monotonic() + 20
        while not os.path.exists(ready):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError("the RPC test server does not start: " + self.text())
            time.sleep(0.02)
        with open(ready) as f:
            self.address = json.load(f)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def settle(self, seconds=20):
        """Waits until the server does nothing: asleep, and not woken between three looks at it."""
        looks = []

        def quiet():
            with open(f"/proc/{self.process.pid}/status") as f:
                fields = dict(line.rstrip("\n").split(":", 1) for line in f)
            looks.append(tuple(fields[k] for k in ("State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")))
            return looks[-1][0].strip().startswith("S") and looks[-3:] == [looks[-1]] * 3
        eventually(quiet, seconds, "the RPC test server to come to rest")

    def waiting(self, count, seconds=10):
        """Waits until `count` calls in all have come to where their handlers wait."""
        eventually(lambda: self.text().count("waits") >= count, seconds, f"{count} calls that wait")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """Ends it in order: exit code 0 means that no call and no handle was left behind."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "none: it hung"
        text = self.text()
        self.log.close()
        subprocess.run(["rm", "-rf", self.directory], check=False)
        if code != 0:
            raise AssertionError(f"the RPC test server ended with {code}:\n{text[-8000:]}")


def load_stubs(directory):
    """Generates and imports the stubs of echo.proto and of grpc.health.v1 (Debian has no package with them): (echo_pb2, echo_pb2_grpc, health_pb2, health_pb2_grpc). The directory goes with
    the process."""
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for root, name in ((f"{TOP}/tests/lib", "echo.proto"), ("/usr/share/grpc-proto/grpc/health/v1", "health.proto")):
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", "-I/usr/include", f"--python_out={directory}", f"--grpc_python_out={directory}", name], check=True, timeout=60)
    sys.path.insert(0, directory)
    return tuple(importlib.import_module(name) for name in ("echo_pb2", "echo_pb2_grpc", "health_pb2", "health_pb2_grpc"))
