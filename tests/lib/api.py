"""Harpoon's public API for tests in Python: stubs made from proto/ with Debian's grpc_tools, and channels to a stack."""
import os
import subprocess
import sys

import grpc

from paths import BUILD, TOP

GENERATED = os.path.join(BUILD, "py")
PROTO = os.path.join(TOP, "proto")
GRPC_PROTO = "/usr/share/grpc-proto"


def generate():
    """Makes the modules below build/py when a .proto file is newer than they are."""
    own = [os.path.join(at, f) for at, _, files in os.walk(PROTO) for f in files if f.endswith(".proto")]
    stamp = os.path.join(GENERATED, ".stamp")
    if os.path.exists(stamp) and all(os.path.getmtime(p) <= os.path.getmtime(stamp) for p in own):
        return
    os.makedirs(GENERATED, exist_ok=True)
    names = [os.path.relpath(p, PROTO) for p in own]
    names = [os.path.relpath(n, "vendor") if n.startswith("vendor/") else n for n in names]
    names += ["grpc/health/v1/health.proto", "grpc/reflection/v1alpha/reflection.proto"]
    if not os.path.exists(os.path.join(GRPC_PROTO, names[-1])):
        names.pop()
    # In a process of its own: protoc registers nothing here.
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{PROTO}/vendor", f"-I{GRPC_PROTO}", "-I/usr/include",
                    f"--python_out={GENERATED}", f"--grpc_python_out={GENERATED}", *names], check=True)
    with open(stamp, "w"):
        pass


generate()
# `grpc` is a regular package: the generated grpc/ directory must not hide it, so it joins its path.
sys.path.append(GENERATED)
grpc.__path__.append(os.path.join(GENERATED, "grpc"))

from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from harpoon.v1 import container_pb2, container_service_pb2, container_service_pb2_grpc  # noqa: E402
from harpoon.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc  # noqa: E402
from harpoon.v1 import host_pb2, host_service_pb2, host_service_pb2_grpc  # noqa: E402
from harpoon.v1 import operation_pb2, operation_service_pb2, operation_service_pb2_grpc  # noqa: E402
from harpoon.v1 import placement_service_pb2, placement_service_pb2_grpc  # noqa: E402

__all__ = ["container_pb2", "event_pb2", "host_pb2", "operation_pb2", "error_details_pb2", "status_pb2", "Client", "rpc_error", "stage_name"]

TERMINAL = {operation_pb2.STAGE_SUCCEEDED, operation_pb2.STAGE_REJECTED, operation_pb2.STAGE_FAILED, operation_pb2.STAGE_CANCELLED,
            operation_pb2.STAGE_EXPIRED}
DETAIL_TYPES = {m.DESCRIPTOR.full_name: m for m in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest,
                                                    error_details_pb2.PreconditionFailure, error_details_pb2.QuotaFailure)}


def stage_name(operation):
    return operation_pb2.Stage.Name(operation.stage).removeprefix("STAGE_")


def error_details(error):
    """{short name of the detail's type: message} of a grpc.RpcError."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return unpack_details(status_pb2.Status.FromString(value))
    return {}


def unpack_details(status):
    found = {}
    for packed in status.details:
        name = packed.type_url.rsplit("/", 1)[-1]
        if name in DETAIL_TYPES:
            message = DETAIL_TYPES[name]()
            packed.Unpack(message)
            found[name.rsplit(".", 1)[-1]] = message
    return found


def rpc_error(call, *args, **kwargs):
    """The grpc.RpcError that a call ends with; AssertionError when it succeeds."""
    try:
        result = call(*args, **kwargs)
    except grpc.RpcError as e:
        return e
    raise AssertionError(f"expected an error, got: {result}")


class Client:
    """All services over one channel; every call carries the token and a deadline."""

    def __init__(self, endpoint, ca, token, project="demo", region="r1"):
        self.project, self.region = project, region
        with open(ca, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500),
                   ("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.secure_channel(endpoint.removeprefix("https://"), credentials, options)
        self.metadata = (("authorization", "Bearer " + token),) if token else ()
        self.containers = container_service_pb2_grpc.ContainerServiceStub(self.channel)
        self.operations = operation_service_pb2_grpc.OperationServiceStub(self.channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self.channel)
        self.hosts = host_service_pb2_grpc.HostServiceStub(self.channel)
        self.placement = placement_service_pb2_grpc.PlacementServiceStub(self.channel)

    def close(self):
        self.channel.close()

    @property
    def parent(self):
        return f"projects/{self.project}/regions/{self.region}"

    def name(self, container):
        return f"{self.parent}/containers/{container}"

    def call(self, method, request, timeout=20, **kwargs):
        # wait_for_ready: this library makes progress with a connection only while a call waits for it.
        return method(request, timeout=timeout, metadata=self.metadata, wait_for_ready=True, **kwargs)

    def create_request(self, container_id, image, request_id="", cpu_millis=20, memory_bytes=16 << 20, network=container_pb2.NETWORK_MODE_NONE,
                       command=("sleep", "1000000"), **spec):
        resources = container_pb2.Resources(cpu_millis=cpu_millis, memory_bytes=memory_bytes)
        body = container_pb2.ContainerSpec(image=image, command=list(command), resources=resources,
                                           network=container_pb2.NetworkSpec(mode=network), stop_grace_seconds=1, **spec)
        return container_service_pb2.CreateContainerRequest(parent=self.parent, container_id=container_id, request_id=request_id,
                                                            container=container_pb2.Container(spec=body))

    def create(self, container_id, image, timeout=20, **kwargs):
        return self.call(self.containers.CreateContainer, self.create_request(container_id, image, **kwargs), timeout)

    def get(self, container_id, timeout=20):
        return self.call(self.containers.GetContainer, container_service_pb2.GetContainerRequest(name=self.name(container_id)), timeout)

    def delete(self, container_id, timeout=20, **kwargs):
        return self.call(self.containers.DeleteContainer,
                         container_service_pb2.DeleteContainerRequest(name=self.name(container_id), **kwargs), timeout)

    def resize(self, container_id, timeout=20, request_id="", etag="", **resources):
        return self.call(self.containers.ResizeContainer, container_service_pb2.ResizeContainerRequest(
            name=self.name(container_id), request_id=request_id, etag=etag, resources=container_pb2.Resources(**resources)), timeout)

    def stop(self, container_id, **kwargs):
        return self.call(self.containers.StopContainer, container_service_pb2.StopContainerRequest(name=self.name(container_id), **kwargs))

    def start(self, container_id, **kwargs):
        return self.call(self.containers.StartContainer, container_service_pb2.StartContainerRequest(name=self.name(container_id), **kwargs))

    def restart(self, container_id, **kwargs):
        return self.call(self.containers.RestartContainer,
                         container_service_pb2.RestartContainerRequest(name=self.name(container_id), **kwargs))

    def get_operation(self, name, timeout=20):
        return self.call(self.operations.GetOperation, operation_service_pb2.GetOperationRequest(name=name), timeout)

    def wait(self, operation, seconds=60):
        """The operation at its end (or as it is after `seconds`). Goes on through UNAVAILABLE: a gateway may be killed meanwhile."""
        import harness
        name = operation if isinstance(operation, str) else operation.name
        result = []

        def ended():
            request = operation_service_pb2.WaitOperationRequest(name=name)
            request.timeout.FromSeconds(max(1, int(min(seconds, 30))))
            try:
                result[:] = [self.call(self.operations.WaitOperation, request, timeout=seconds + 15)]
            except grpc.RpcError as e:
                if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED):
                    raise
                return False
            return result[0].stage in TERMINAL
        harness.eventually(ended, seconds, lambda: f"{name} to end; it is {result}", interval=0.1)
        return result[0]

    def succeeded(self, operation, seconds=60):
        """As wait, and asserts success."""
        done = self.wait(operation, seconds)
        if done.stage != operation_pb2.STAGE_SUCCEEDED:
            raise AssertionError(f"{done.name} ended as {stage_name(done)}: {done.error.message} (reason: {done.reason})")
        return done

    def list_containers(self, parent=None):
        return self.pages(self.containers.ListContainers, container_service_pb2.ListContainersRequest(parent=parent or self.parent, page_size=500),
                          "containers")

    def list_operations(self, parent=None, **kwargs):
        return self.pages(self.operations.ListOperations,
                          operation_service_pb2.ListOperationsRequest(parent=parent or self.parent, page_size=500, **kwargs), "operations")

    def list_hosts(self, parent=None):
        return self.pages(self.hosts.ListHosts, host_service_pb2.ListHostsRequest(parent=parent or f"regions/{self.region}", page_size=1000), "hosts")

    def list_events(self, **kwargs):
        return self.pages(self.events.ListEvents, event_service_pb2.ListEventsRequest(parent=f"regions/{self.region}", page_size=1000, **kwargs),
                          "events")

    def pages(self, method, request, field):
        found = []
        while True:
            answer = self.call(method, request)
            found += getattr(answer, field)
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    def watch(self, timeout=60, region=None, **kwargs):
        """The stream of WatchResponse."""
        return self.call(self.events.Watch, event_service_pb2.WatchRequest(parent=f"regions/{region or self.region}", **kwargs), timeout)
