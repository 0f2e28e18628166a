"""Clients that are not ours, against a running stack: grpcio (all the other tests), grpc-js, buf curl by reflection alone, plain curl with JSON."""
import json
import os
import subprocess
import uuid

import grpc

from harness import StackTest, image
from grpc.health.v1 import health_pb2, health_pb2_grpc
from paths import JS, TOP


class ClientsTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 2}

    def run_program(self, *argv, code=0):
        done = subprocess.run(argv, env={**os.environ, **self.stack.env}, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def create_json(self, name):
        return {"parent": self.client.parent, "containerId": name, "requestId": str(uuid.uuid4()),
                "container": {"spec": {"image": image(), "resources": {"cpuMillis": "20", "memoryBytes": str(16 << 20)}}}}

    def curl(self, method, body, *options, token=True):
        """(HTTP status, JSON answer) of one Connect call with curl."""
        env = self.stack.env
        auth = ["-H", "Authorization: Bearer " + env["HARPOON_TOKEN"]] if token else []
        out = self.run_program("curl", "-sS", "--max-time", "20", "--cacert", env["HARPOON_CA"], "-H", "Content-Type: application/json", *auth, "-d",
                               json.dumps(body), "-w", "\n%{http_code}", *options, f"{env['HARPOON_HTTP']}/harpoon.v1.{method}")
        text, status = out.rsplit("\n", 1)
        return int(status), json.loads(text)

    def test_curl_with_json(self):
        name = "curl-" + uuid.uuid4().hex[:8]
        status, operation = self.curl("ContainerService/CreateContainer", self.create_json(name))
        self.assertEqual(status, 200, operation)
        status, done = self.curl("OperationService/WaitOperation", {"name": operation["name"], "timeout": "20s"})
        self.assertEqual((status, done["stage"]), (200, "STAGE_SUCCEEDED"))
        status, container = self.curl("ContainerService/GetContainer", {"name": self.client.name(name)})
        self.assertEqual((status, container["status"]["state"]), (200, "CONTAINER_STATE_RUNNING"))
        self.assertEqual(container["spec"]["resources"]["memoryBytes"], str(16 << 20), "64-bit numbers are strings in JSON")

    def test_curl_errors(self):
        status, error = self.curl("ContainerService/GetContainer", {"name": self.client.name("nobody")})
        self.assertEqual((status, error["code"]), (404, "not_found"))
        status, error = self.curl("ContainerService/GetContainer", {"name": self.client.name("nobody")}, token=False)
        self.assertEqual((status, error["code"]), (401, "unauthenticated"))
        status, error = self.curl("ContainerService/DeleteContainer", {"name": "nonsense"})
        self.assertEqual((status, error["code"]), (400, "invalid_argument"))

    def buf(self, method, body, code=0):
        env = self.stack.env
        return self.run_program(os.path.join(JS, "node_modules/.bin/buf"), "curl", "--protocol", "grpc", "--cacert", env["HARPOON_CA"],
                                "-H", "Authorization: Bearer " + env["HARPOON_TOKEN"], "-d", json.dumps(body),
                                f"{env['HARPOON_ENDPOINT']}/harpoon.v1.{method}", code=code)

    def test_buf_curl_by_reflection(self):
        name = "buf-" + uuid.uuid4().hex[:8]
        operation = json.loads(self.buf("ContainerService/CreateContainer", self.create_json(name)))
        done = json.loads(self.buf("OperationService/WaitOperation", {"name": operation["name"], "timeout": "20s"}))
        self.assertEqual(done["stage"], "STAGE_SUCCEEDED")
        found = json.loads(self.buf("ContainerService/ListContainers", {"parent": self.client.parent}))
        self.assertIn(self.client.name(name), [c["name"] for c in found["containers"]])

    def test_buf_lists_the_services(self):
        env = self.stack.env
        out = self.run_program(os.path.join(JS, "node_modules/.bin/buf"), "curl", "--protocol", "grpc", "--cacert", env["HARPOON_CA"], "-H",
                               "Authorization: Bearer " + env["HARPOON_TOKEN"], "--list-methods", env["HARPOON_ENDPOINT"])
        for method in ("ContainerService/CreateContainer", "EventService/Watch", "HostService/ListHosts", "PlacementService/Explain"):
            self.assertIn("harpoon.v1." + method, out)

    def test_grpc_js(self):
        name = "js-" + uuid.uuid4().hex[:8]
        out = self.run_program("node", os.path.join(JS, "client.js"), os.path.join(TOP, "proto"), name, image())
        result = json.loads(out.splitlines()[-1])
        self.assertEqual(result["stage"], "STAGE_SUCCEEDED")
        self.assertEqual(result["state"], "CONTAINER_STATE_RUNNING")
        self.assertEqual(result["again"], grpc.StatusCode.ALREADY_EXISTS.value[0])
        self.assertIn("harpoon.operation.succeeded", result["types"])
        self.assertEqual(result["submitted"], 20)

    def test_health(self):
        stub = health_pb2_grpc.HealthStub(self.client.channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_command_line(self):
        name = "cli-" + uuid.uuid4().hex[:8]
        self.stack.cli("create", name, "--image", image(), "--cpu", "20m", "--memory", "16Mi", "--wait")
        shown = json.loads(self.stack.cli("get", "container", name, "-o", "json").stdout)
        self.assertEqual(shown["status"]["state"], "CONTAINER_STATE_RUNNING")
        self.assertIn(name, self.stack.cli("get", "containers").stdout)
        self.assertEqual(self.stack.cli("get", "container", "nobody", check=False).returncode, 3)
        self.assertEqual(self.stack.cli("create", name, "--image", image(), "--cpu", "20m", "--memory", "16Mi", check=False).returncode, 4)
        self.stack.cli("resize", name, "--memory", "32Mi", "--wait")
        events = [json.loads(line) for line in self.stack.cli("events", "--after", "0", "--subject", self.client.name(name), "-o", "jsonl").stdout.splitlines()]
        self.assertIn("harpoon.container.running", [e["type"] for e in events])
        self.stack.cli("delete", name, "--wait")
        self.assertEqual(self.stack.cli("delete", name, check=False).returncode, 3)


if __name__ == "__main__":
    import unittest
    unittest.main()
