"""What a caller hears at once: deduplication by request_id, conflicts, existing and missing names, stale etags, rights."""
import uuid

import grpc

from api import error_details, operation_pb2, rpc_error
from harness import StackTest, image
from harpoon.v1 import container_service_pb2, host_service_pb2, operation_service_pb2, placement_service_pb2

Code = grpc.StatusCode


class RequestTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 3}

    def name(self):
        return "c-" + uuid.uuid4().hex[:12]

    def test_a_repeated_request_is_one_operation_and_one_container(self):
        name, request_id = self.name(), str(uuid.uuid4())
        first = self.client.create(name, image(), request_id=request_id)
        second = self.client.create(name, image(), request_id=request_id)
        self.assertEqual(first.name, second.name)
        self.client.succeeded(first)
        third = self.client.create(name, image(), request_id=request_id)
        self.assertEqual(third.name, first.name)
        self.assertEqual(third.stage, operation_pb2.STAGE_SUCCEEDED, "a repeat shows the operation as it stands")
        self.assertEqual([c.name for c in self.client.list_containers()].count(self.client.name(name)), 1)
        self.assertEqual(self.client.get(name).generation, 1)

    def test_a_request_id_with_another_payload_is_a_conflict_that_names_both(self):
        name, other, request_id = self.name(), self.name(), str(uuid.uuid4())
        first = self.client.create(name, image(), request_id=request_id)
        error = rpc_error(self.client.create, other, image(), request_id=request_id)
        self.assert_code(error, Code.ALREADY_EXISTS)
        info = error_details(error)["ErrorInfo"]
        self.assertEqual(info.reason, "REQUEST_ID_CONFLICT")
        said = error.details() + str(info.metadata)
        self.assertIn(request_id, said)
        self.assertIn(first.name.rsplit("/", 1)[1], said)
        self.assert_code(rpc_error(self.client.get, other), Code.NOT_FOUND)

    def test_a_name_that_exists(self):
        name = self.name()
        self.client.succeeded(self.client.create(name, image()))
        error = rpc_error(self.client.create, name, image())
        self.assert_code(error, Code.ALREADY_EXISTS)
        self.assertIn(name, error.details())

    def test_nothing_to_change(self):
        name = self.name()
        for call in (self.client.delete, self.client.stop, self.client.start, self.client.restart):
            self.assert_code(rpc_error(call, name), Code.NOT_FOUND)
        self.assert_code(rpc_error(self.client.resize, name, cpu_millis=50), Code.NOT_FOUND)
        self.assert_code(rpc_error(self.client.get, name), Code.NOT_FOUND)

    def test_a_stale_etag(self):
        name = self.name()
        self.client.succeeded(self.client.create(name, image()))
        old = self.client.get(name).etag
        self.client.succeeded(self.client.resize(name, cpu_millis=30, etag=old))
        for call in (lambda: self.client.resize(name, cpu_millis=40, etag=old), lambda: self.client.stop(name, etag=old),
                     lambda: self.client.delete(name, etag=old)):
            self.assert_code(rpc_error(call), Code.ABORTED)
        self.assertEqual(self.client.get(name).spec.resources.cpu_millis, 30)

    def test_validate_only_changes_nothing(self):
        name = self.name()
        request = self.client.create_request(name, image())
        request.validate_only = True
        self.client.call(self.client.containers.CreateContainer, request)
        self.assert_code(rpc_error(self.client.get, name), Code.NOT_FOUND)
        self.client.succeeded(self.client.create(name, image()))
        self.assert_code(rpc_error(self.client.call, self.client.containers.CreateContainer, request), Code.ALREADY_EXISTS)

    def test_a_name_can_be_used_again_after_a_delete(self):
        name = self.name()
        self.client.succeeded(self.client.create(name, image()))
        first = self.client.get(name)
        self.client.succeeded(self.client.delete(name))
        self.assert_code(rpc_error(self.client.get, name), Code.NOT_FOUND)
        self.client.succeeded(self.client.create(name, image()))
        self.assertNotEqual(self.client.get(name).uid, first.uid)

    def test_what_fits_nowhere_waits_with_a_reason_and_can_be_cancelled(self):
        name = self.name()
        operation = self.client.create(name, image(), cpu_millis=1_000_000, memory_bytes=60 << 40)
        self.assertIn(operation.stage, (operation_pb2.STAGE_RECORDED, operation_pb2.STAGE_ACCEPTED))
        self.assertTrue(self.client.get_operation(operation.name).reason)
        self.client.call(self.client.operations.CancelOperation, operation_service_pb2.CancelOperationRequest(name=operation.name))
        self.assertEqual(self.client.wait(operation).stage, operation_pb2.STAGE_CANCELLED)
        self.assert_code(rpc_error(self.client.get, name), Code.NOT_FOUND)

    def test_cancel_after_the_end(self):
        operation = self.client.create(self.name(), image())
        self.client.succeeded(operation)
        error = rpc_error(self.client.call, self.client.operations.CancelOperation, operation_service_pb2.CancelOperationRequest(name=operation.name))
        self.assert_code(error, Code.FAILED_PRECONDITION)

    def test_rights(self):
        demo, viewer, other, nobody = (self.stack.client(token=t) for t in ("demo", "viewer", "other", ""))
        name = self.name()
        self.client.succeeded(demo.create(name, image()))
        self.assert_code(rpc_error(nobody.create, self.name(), image()), Code.UNAUTHENTICATED)
        self.assert_code(rpc_error(viewer.create, self.name(), image()), Code.PERMISSION_DENIED)
        self.assert_code(rpc_error(other.create, self.name(), image()), Code.PERMISSION_DENIED)
        self.assert_code(rpc_error(other.get, name), Code.PERMISSION_DENIED)
        self.assertEqual(viewer.get(name).name, self.client.name(name))
        cordon = host_service_pb2.CordonHostRequest(name="regions/r1/hosts/sim-0")
        self.assert_code(rpc_error(demo.call, demo.hosts.CordonHost, cordon), Code.PERMISSION_DENIED)
        stranger = self.stack.client(token="")
        stranger.metadata = (("authorization", "Bearer " + "0" * 32),)
        self.assert_code(rpc_error(stranger.get, name), Code.UNAUTHENTICATED)

    def test_explain_ranks_every_host(self):
        request = placement_service_pb2.ExplainRequest(create=self.client.create_request(self.name(), image()))
        answer = self.client.call(self.client.placement.Explain, request)
        self.assertEqual((answer.host_count, answer.feasible_count), (3, 3))
        request.create.container.spec.resources.memory_bytes = 60 << 40
        answer = self.client.call(self.client.placement.Explain, request)
        self.assertEqual(answer.feasible_count, 0)
        self.assertEqual(answer.rejected["capacity_memory"], 3)

    def test_submit_in_bulk(self):
        from harpoon.v1 import event_service_pb2
        names = [self.name() for _ in range(100)]
        requests = [event_service_pb2.SubmitRequest(correlation=i, create=self.client.create_request(n, image(), request_id=str(uuid.uuid4())))
                    for i, n in enumerate(names)]
        bad = event_service_pb2.SubmitRequest(correlation=1000, create=container_service_pb2.CreateContainerRequest(parent="nonsense"))
        answers = {a.correlation: a for a in self.client.events.Submit(iter([*requests, bad]), timeout=30, wait_for_ready=True, metadata=self.client.metadata)}
        self.assertEqual(len(answers), 101)
        self.assertEqual(answers[1000].status.code, Code.INVALID_ARGUMENT.value[0])
        for i in range(100):
            self.assertEqual(answers[i].status.code, 0)
            self.client.succeeded(answers[i].operation)

    def test_pages(self):
        for _ in range(5):
            self.client.succeeded(self.client.create(self.name(), image()))
        request = container_service_pb2.ListContainersRequest(parent=self.client.parent, page_size=2)
        seen = []
        while True:
            page = self.client.call(self.client.containers.ListContainers, request)
            self.assertLessEqual(len(page.containers), 2)
            seen += [c.name for c in page.containers]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        self.assertEqual(seen, sorted(set(seen)), "each name once, in order")
        self.assertEqual(seen, [c.name for c in self.client.list_containers()])


if __name__ == "__main__":
    import unittest
    unittest.main()
