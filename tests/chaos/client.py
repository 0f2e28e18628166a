"""A process of clients: changes of containers in all regions through all gateways, repeated with the same request id until they are answered.

    client.py HISTORY NAME OPTIONS        OPTIONS: a JSON object, see `Load`

Each worker owns its containers and leads them one after another from the create to the delete; most changes are made alone (the next one waits for the end of the one
before), some follow at once. A line on standard input ends the load: what has begun is brought to its end.
"""
import json
import os
import random
import sys
import threading
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))

import grpc  # noqa: E402

import api  # noqa: E402
from api import container_pb2, stage_name  # noqa: E402
from load import RETRY  # noqa: E402
from recorder import Recorder  # noqa: E402
from harpoon.v1 import operation_service_pb2  # noqa: E402

# An answer that a broken connection in the middle of it gives; a repeat tells.
UNSURE = (*RETRY, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.ABORTED)
CALL_SECONDS = 6
WAIT_SECONDS = 20
MIB = 1 << 20


class Ended(Exception):
    """The run is over and patience too."""


class Load:
    """Options: endpoints, ca, token, regions, image, workers, seed, real ({region: share of containers for its real hosts}), pause (seconds between two lives), patience (after the
    end of the load)."""

    def __init__(self, recorder, options):
        self.recorder, self.options = recorder, options
        self.stopping, self.deadline = threading.Event(), None
        self.clients = {(r, e): api.Client(e, options["ca"], options["token"], region=r) for r in options["regions"] for e in options["endpoints"]}

    def stop(self):
        self.deadline = time.monotonic() + self.options["patience"]
        self.stopping.set()

    def run(self):
        workers = [threading.Thread(target=Worker(self, i).run, daemon=True) for i in range(self.options["workers"])]
        for w in workers:
            w.start()
        sys.stdin.readline()
        self.stop()
        for w in workers:
            w.join(self.options["patience"] + 2 * WAIT_SECONDS)


class Worker:
    def __init__(self, load, index):
        self.load, self.index, self.recorder = load, index, load.recorder
        self.rng = random.Random(f"{load.options['seed']}/{load.recorder.who}/{index}")
        self.count = self.turn = 0

    def client(self, region):
        """The region's client at one gateway after the other."""
        endpoints = self.load.options["endpoints"]
        self.turn += 1
        return self.load.clients[region, endpoints[(self.index + self.turn) % len(endpoints)]]

    def patient(self, region, call, what, **facts):
        """The answer to call(client), asked for until somebody gives it. Gives (answer, error)."""
        pause = 0.05
        while True:
            try:
                return call(self.client(region)), None
            except grpc.RpcError as e:
                if e.code() not in UNSURE:
                    return None, e
                self.recorder.write("again", what=what, code=e.code().name, text=(e.details() or "")[:120], **facts)
            if self.load.deadline and time.monotonic() > self.load.deadline:
                raise Ended
            time.sleep(pause * self.rng.uniform(0.5, 1.5))
            pause = min(pause * 2, 1.0)

    def change(self, region, verb, name, call, alone):
        """One change, until it is acknowledged or refused; gives its operation's name, or None."""
        request_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        target = self.load.clients[region, self.load.options["endpoints"][0]].name(name)
        self.recorder.write("call", id=request_id, verb=verb, target=target, alone=alone)
        answer, error = self.patient(region, lambda c: call(c, request_id), verb, id=request_id)
        if error:
            details = api.error_details(error).get("ErrorInfo")
            operation = details.metadata.get("operation") if details else None
            self.recorder.write("refused", id=request_id, code=error.code().name, operation=operation or None, text=(error.details() or "")[:200])
            return request_id, None
        self.recorder.write("ack", id=request_id, operation=answer.name, stage=stage_name(answer))
        return request_id, answer.name

    def end(self, region, request_id, operation):
        """Waits for the operation's end; gives its stage."""
        if operation is None:
            return None

        def ask(c):
            request = operation_service_pb2.WaitOperationRequest(name=operation)
            request.timeout.FromSeconds(WAIT_SECONDS)
            return c.call(c.operations.WaitOperation, request, timeout=WAIT_SECONDS + CALL_SECONDS)
        while True:
            answer, error = self.patient(region, ask, "wait", id=request_id)
            if error and error.code() != grpc.StatusCode.NOT_FOUND:
                raise error
            # Accepted and not yet recorded: the record does not know it.
            if answer and answer.stage in api.TERMINAL:
                self.recorder.write("saw", id=request_id, stage=stage_name(answer))
                return stage_name(answer)
            if self.load.deadline and time.monotonic() > self.load.deadline:
                raise Ended
            if error:
                time.sleep(0.2)

    def alone(self, region, verb, name, call):
        request_id, operation = self.change(region, verb, name, call, True)
        return self.end(region, request_id, operation) == "SUCCEEDED"

    def life(self, region):
        """One container from its create to its delete."""
        real = self.rng.random() < self.load.options["real"].get(region, 0)
        self.count += 1
        name = f"{self.recorder.who}-{self.index}-{self.count}"
        memory = [16 * MIB]
        spec = {}
        if real:
            spec = {"placement": container_pb2.PlacementSpec(host_labels={"disk": "ssd"}),
                    "network": self.rng.choice((container_pb2.NETWORK_MODE_NONE, container_pb2.NETWORK_MODE_BRIDGE))}
        image = self.load.options["image"]
        created = self.alone(region, "create", name, lambda c, i: c.create(name, image, timeout=CALL_SECONDS, request_id=i, **spec))

        def resize(c, i):
            return c.resize(name, timeout=CALL_SECONDS, request_id=i, memory_bytes=memory[0])

        def run(verb):
            # Real containers are started and stopped in some tenths of a second, simulated ones in no time.
            if verb == "resize":
                memory[0] += MIB
                return self.alone(region, verb, name, resize)
            return self.alone(region, verb, name, lambda c, i: getattr(c, verb)(name, request_id=i))
        good = created
        for _ in range(self.rng.randrange(5)):
            if not good or self.load.stopping.is_set():
                break
            verb = self.rng.choice(("resize", "resize", "stop", "restart"))
            good = run(verb)
            if good and verb == "stop":
                good = run("start")
        if self.load.stopping.is_set() and self.rng.random() < 0.5:
            return  # stays, so that there is something to be found in the end
        if good and self.rng.random() < 0.3:
            self.hurried(region, name, resize, memory)
        else:
            self.alone(region, "delete", name, lambda c, i: c.delete(name, timeout=CALL_SECONDS, request_id=i))

    def hurried(self, region, name, resize, memory):
        """Resizes and a delete that do not wait for one another; each has its end all the same."""
        begun = []
        for _ in range(self.rng.randrange(1, 4)):
            memory[0] += MIB
            begun.append(self.change(region, "resize", name, resize, False))
        begun.append(self.change(region, "delete", name, lambda c, i: c.delete(name, timeout=CALL_SECONDS, request_id=i), False))
        for request_id, operation in begun:
            self.end(region, request_id, operation)

    def run(self):
        try:
            # A worker stays in its region, so that one which stands still holds up only its own.
            regions = self.load.options["regions"]
            while not self.load.stopping.is_set():
                self.life(regions[self.index % len(regions)])
                self.load.stopping.wait(self.load.options["pause"] * self.rng.uniform(0.5, 1.5))
        except Ended:
            self.recorder.write("gave_up", worker=self.index)
        except Exception as e:  # noqa: BLE001: whatever it is, the history must have it
            self.recorder.write("broken", worker=self.index, error=repr(e)[:500])


def main():
    directory, name, options = sys.argv[1:4]
    recorder = Recorder(directory, name)
    Load(recorder, json.loads(options)).run()
    recorder.write("done")
    recorder.close()
    os._exit(0)  # calls that still hang end with the process


if __name__ == "__main__":
    main()
