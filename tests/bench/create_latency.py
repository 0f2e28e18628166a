"""From a client's call to a running container, beside the same bundle run by bare runtimes, and the same image run by podman, in the same run.

    --count N      containers of each leg (100)
    --no-bridge    leave out the second leg, with the bridge network
    --smoke        three containers a leg

One container at a time: create, wait for its success in the event stream, delete; run the same bundle with the bare runtime, delete. (In this order both come after a removal, and the bare
runtime does not find the kernel's cgroup lock as the agent has just left it.) `accept` is from sending the request to the gateway's word that it is durable (bulk
method, which answers on acceptance); `running` is from sending the request to the arrival of the operation's success at the client: it includes the acceptance. `bare` is from starting the runtime's program (`run -d`)
to its end; `runc` is the same by runc where the agent uses another. `podman` is `podman run -d` of the same image with the same limits and without a network, by the agent's runtime and with
conmon, as here, from an image that it has unpacked already; it is left out where podman is not installed (`apt install podman`). In the second leg, `cni` is what the same plugins take when called one after the other as the agent does, without anything else.
"""
import argparse
import glob
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import grpc

from api import container_pb2, event_service_pb2, operation_pb2
from harness import Stack, image

SHAPE = {f"{leg}{what}_{p}_ms": float for leg in ("", "bridge_") for what in ("accept", "running", "bare") for p in ("p50", "p99")} | {"bare_runtime": str, "count": int}
WARM_UP = 5
CPU_MILLIS = 1000  # less, and the kernel throttles the runtime's own work inside the container's cgroup: noise of up to 100 ms in both
BRIDGE, NONE = container_pb2.NETWORK_MODE_BRIDGE, container_pb2.NETWORK_MODE_NONE


def say(text):
    print(text, file=sys.stderr, flush=True)


def percentile(values, share):
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2)


class Submitter:
    """A bulk stream that stays open; each request's acceptance comes back with the time of its arrival."""

    def __init__(self, client):
        self.requests, self.answers = queue.Queue(), queue.Queue()
        self.stream = client.events.Submit(iter(self.requests.get, None), metadata=client.metadata)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for answer in self.stream:
                self.answers.put((time.monotonic(), answer))
        except grpc.RpcError as e:
            self.answers.put((time.monotonic(), e))

    def close(self):
        self.stream.cancel()

    def submit(self, request):
        """(time sent, time accepted, operation)."""
        sent = time.monotonic()
        self.requests.put(request)
        accepted, answer = self.answers.get(timeout=30)
        if isinstance(answer, grpc.RpcError) or answer.status.code != 0:
            raise AssertionError(str(answer))
        return sent, accepted, answer.operation


class Ends:
    """Times at which operations' ends arrive through one watch."""

    def __init__(self, client):
        self.arrived, self.condition = {}, threading.Condition()
        self.stream = client.watch(timeout=3600, filter=event_service_pb2.EventFilter(types=["harpoon.operation.*"]), heartbeat_ms=500)
        next(iter(self.stream))  # a heartbeat: the watch is in force
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for answer in self.stream:
                if answer.event.operation_data.stage >= operation_pb2.STAGE_SUCCEEDED:
                    with self.condition:
                        self.arrived[answer.event.operation] = (time.monotonic(), answer.event.operation_data)
                        self.condition.notify_all()
        except grpc.RpcError:
            return  # cancelled, or wait() will tell what is missing

    def close(self):
        self.stream.cancel()

    def wait(self, name):
        """(time of arrival, the operation as it ended)."""
        with self.condition:
            if not self.condition.wait_for(lambda: name in self.arrived, 60):
                raise AssertionError(f"{name} did not end within 60 s")
            at, operation = self.arrived[name]
        if operation.stage != operation_pb2.STAGE_SUCCEEDED:
            raise AssertionError(f"{name} ended as {operation_pb2.Stage.Name(operation.stage)}: {operation.error.message}")
        return at, operation


class Namespace:
    """Runs programs in a mount namespace of its own, as the agent does it, and times them there; without the empty cgroup v2 hierarchy where the runtime refuses that one (crun on hybrid
    machines)."""

    WORKER = """
import json, subprocess, sys, tempfile, time
for line in sys.stdin:
    argv = json.loads(line)
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:  # no pipe: the container keeps its end open
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        seconds = time.monotonic() - began
        said.seek(0)
        print(json.dumps([seconds, done.returncode, said.read()]), flush=True)
"""

    def __init__(self, runtime, prepare=""):
        script = f"""
if [ {int("crun" in runtime)} = 1 ] && mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
{prepare}
exec "$@"
"""
        self.worker = subprocess.Popen(["unshare", "-m", "sh", "-ec", script, "sh", "/usr/bin/python3", "-c", self.WORKER], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)

    def run(self, *argv):
        """Seconds that it takes."""
        self.worker.stdin.write(json.dumps(argv) + "\n")
        self.worker.stdin.flush()
        seconds, code, error = json.loads(self.worker.stdout.readline())
        if code != 0:
            raise AssertionError(f"{argv}: {error}")
        return seconds

    def close(self):
        self.worker.stdin.close()
        self.worker.wait()


def program(name):
    return shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")


class Bare:
    """The bundle of a running container, run by a bare runtime under other names, on an overlay of the same layers."""

    def __init__(self, stack, container, runtime):
        bundles = [p for p in glob.glob(os.path.join(stack.directory, "r/**/config.json"), recursive=True) if container.uid in p]
        if not bundles:
            raise AssertionError(f"no bundle of {container.uid} below {stack.directory}")
        with open(bundles[0]) as f:
            self.config = json.load(f)
        self.runtime = program(runtime)
        self.directory = tempfile.mkdtemp(prefix="hp-bare-", dir="/var/tmp")
        self.parent = f"/harpoon-bare-{os.getpid()}-{runtime}"
        layers = ":".join(sorted(glob.glob(os.path.join(stack.directory, "hosts/r1-h1/layers/*/diff"))))
        for name in ("upper", "work", "rootfs"):
            os.makedirs(os.path.join(self.directory, name))
        self.namespace = Namespace(runtime, f"mount -t overlay overlay -o lowerdir={layers},upperdir={self.directory}/upper,workdir={self.directory}/work {self.directory}/rootfs")

    def command(self, *argv):
        return self.namespace.run(self.runtime, "--root", os.path.join(self.directory, "root"), *argv)

    def run(self, number):
        """Seconds that `run -d` takes."""
        name = f"bare-{number}"
        bundle = os.path.join(self.directory, name)
        os.makedirs(bundle)
        config = json.loads(json.dumps(self.config))
        config["root"]["path"] = os.path.join(self.directory, "rootfs")
        config["linux"]["cgroupsPath"] = f"{self.parent}/{name}"
        for namespace in config["linux"]["namespaces"]:
            namespace.pop("path", None)
        config.pop("hooks", None)
        config["process"]["terminal"] = False
        with open(os.path.join(bundle, "config.json"), "w") as f:
            json.dump(config, f)
        seconds = self.command("run", "-d", "--bundle", bundle, name)
        self.command("delete", "-f", name)
        shutil.rmtree(bundle)
        return seconds

    def close(self):
        self.namespace.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for root in glob.glob("/sys/fs/cgroup/*") + ["/sys/fs/cgroup"]:
            if os.path.isdir(root + self.parent):
                os.rmdir(root + self.parent)


class Podman:
    """The same image by podman, in a store of its own."""

    def __init__(self, reference, container, runtime):
        self.directory = tempfile.mkdtemp(prefix="hp-podman-", dir="/var/tmp")
        self.namespace = Namespace(runtime)
        self.base = [program("podman"), "--root", os.path.join(self.directory, "root"), "--runroot", os.path.join(self.directory, "run"), "--storage-driver", "overlay",
                     "--cgroup-manager", "cgroupfs", "--runtime", program(runtime), "--events-backend", "none"]
        self.namespace.run(*self.base, "pull", "-q", reference)
        self.image = subprocess.run([*self.base, "images", "-q"], check=True, capture_output=True, text=True).stdout.split()[0]
        resources = container.spec.resources
        self.limits = ["--cpus", str(resources.cpu_millis / 1000), "--memory", f"{resources.memory_bytes}b", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"]
        self.argv = [*container.spec.command, *container.spec.args]

    def run(self, number):
        name = f"podman-{number}"
        seconds = self.namespace.run(*self.base, "run", "-d", "--network", "none", *self.limits, "--name", name, self.image, *self.argv)
        self.namespace.run(*self.base, "rm", "-f", "-t", "0", name)
        return seconds

    def close(self):
        self.namespace.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def peers(stack, container, runtime, network):
    """{name: what is run beside each container}."""
    found = {"bare": Bare(stack, container, runtime)}
    if network == NONE:
        if runtime != "runc":
            found["runc"] = Bare(stack, container, "runc")
        if program("podman"):
            found["podman"] = Podman(image(), container, runtime)
        else:
            say("podman is not installed: left out")
    return found


def leg(stack, client, count, network, result, prefix=""):
    """Measures one leg and puts its figures into result."""
    submitter, ends = Submitter(client), Ends(client)
    name = "bench-" + uuid.uuid4().hex[:6]
    client.succeeded(client.create(name, image(), network=network, cpu_millis=CPU_MILLIS))
    model = client.get(name)
    runtime = client.list_hosts()[0].facts.runtime
    beside = peers(stack, model, runtime.split()[0], network)
    values, stages = {what: [] for what in ("accept", "running", *beside)}, {}
    try:
        for i in range(count + WARM_UP):
            one = f"{name}-{i}"
            request = event_service_pb2.SubmitRequest(correlation=i, create=client.create_request(one, image(), request_id=str(uuid.uuid4()), network=network, cpu_millis=CPU_MILLIS))
            sent, accepted, operation = submitter.submit(request)
            arrived, ended = ends.wait(operation)
            client.succeeded(client.delete(one))
            seconds = {what: peer.run(i) for what, peer in beside.items()}
            if i >= WARM_UP:
                for what, took in {"accept": accepted - sent, "running": arrived - sent, **seconds}.items():
                    values[what].append(took)
                for earlier, later in zip(ended.history, ended.history[1:]):
                    took = (later.time.ToNanoseconds() - earlier.time.ToNanoseconds()) / 1e9
                    stages.setdefault(operation_pb2.Stage.Name(later.stage).removeprefix("STAGE_"), []).append(took)
    finally:
        submitter.close()
        ends.close()
        for peer in beside.values():
            peer.close()
        client.succeeded(client.delete(name))
    for what, took in values.items():
        result[f"{prefix}{what}_p50_ms"], result[f"{prefix}{what}_p99_ms"] = percentile(took, 0.5), percentile(took, 0.99)
    result["bare_runtime"] = runtime
    say("  time until each stage, p50 ms: " + ", ".join(f"{k} {percentile(v, 0.5)}" for k, v in stages.items()))
    say(f"network {'bridge' if prefix else 'none'}, p50 ms: " + ", ".join(f"{what} {result[f'{prefix}{what}_p50_ms']}" for what in values))


def cni_alone(stack, count):
    """Seconds that the plugins take for ADD, called one after the other with the chain that the agent uses."""
    with open(os.path.join(stack.directory, "conf/r1-h1.ini")) as f:
        bridge = next(line.split("=")[1].strip() for line in f if line.startswith("bridge"))
    work = tempfile.mkdtemp(prefix="hp-cni-")
    values = []
    subnet = json.load(open(os.path.join(stack.directory, "stack.json")))["subnets"]["r1-h1"]
    base, gateway = subnet.split("/")[0].rsplit(".", 1)[0], ".1"
    chain = [{"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True,
              "ipam": {"type": "host-local", "dataDir": os.path.join(work, "ipam"),
                       "ranges": [[{"subnet": subnet, "rangeStart": base.rsplit(".", 1)[0] + f".{int(base.rsplit('.', 1)[1]) + 3}.2", "gateway": base + gateway}]],
                       "routes": [{"dst": "0.0.0.0/0"}]}},
             {"type": "portmap", "capabilities": {"portMappings": True}}]
    for i in range(count + 3):
        name = f"hpbench{os.getpid()}-{i}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        env = {"CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni", "PATH": os.environ["PATH"]}
        try:
            previous, began = None, time.monotonic()
            for plugin in chain:
                config = {"cniVersion": "0.4.0", "name": "bench", **plugin, **({"prevResult": previous} if previous else {})}
                done = subprocess.run([f"/usr/lib/cni/{plugin['type']}"], input=json.dumps(config), env={**env, "CNI_COMMAND": "ADD"}, capture_output=True, text=True,
                                      check=False)
                if done.returncode != 0:
                    raise AssertionError(f"{plugin['type']}: {done.stdout}")
                previous = json.loads(done.stdout)
            if i >= 3:
                values.append(time.monotonic() - began)
        finally:
            for plugin in reversed(chain):
                config = {"cniVersion": "0.4.0", "name": "bench", **plugin, **({"prevResult": previous} if previous else {})}
                subprocess.run([f"/usr/lib/cni/{plugin['type']}"], input=json.dumps(config), env={**env, "CNI_COMMAND": "DEL"}, capture_output=True, text=True, check=False)
            subprocess.run(["ip", "netns", "delete", name], check=False)
    shutil.rmtree(work)
    return values


def main(argv):
    parser = argparse.ArgumentParser(prog="create-latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--no-bridge", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.count = 3
    stack, result = Stack(hosts=1), {}
    try:
        say("starting a stack")
        stack.up()
        client = stack.client()
        stack.hosts_ready(client, 1)
        leg(stack, client, args.count, NONE, result)
        if not args.no_bridge:
            leg(stack, client, args.count, BRIDGE, result, "bridge_")
            values = cni_alone(stack, args.count)
            result["bridge_cni_p50_ms"], result["bridge_cni_p99_ms"] = percentile(values, 0.5), percentile(values, 0.99)
        result["count"] = args.count
    finally:
        stack.down()
    print(json.dumps(result))
    return 0
