"""A process that watches every region at one gateway, from the first event to the last, resuming from the last sequence that it was told whenever the watch ends.

    watcher.py HISTORY NAME OPTIONS       OPTIONS: a JSON object: endpoint, ca, token, regions

A line of JSON on standard input, {"r1": SEQUENCE, …}, tells how far to read; then it ends.
"""
import json
import os
import sys
import threading
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "lib"))

import grpc  # noqa: E402

import api  # noqa: E402
from api import operation_pb2, stage_name  # noqa: E402
from recorder import Recorder  # noqa: E402

HEARTBEAT_MS = 1000
SILENCE_SECONDS = 8  # without a heartbeat: the watch is given up
FLUSH_SECONDS = 1
BLOCK = 1000
LAST_SECONDS = 60


class Region:
    """What one watcher was told of one region."""

    def __init__(self, recorder, client, region):
        self.recorder, self.client, self.region = recorder, client, region
        self.sequence = self.sum = 0  # the last one told; over the current block
        self.first = None  # of the run that has not been written yet
        self.flushed = self.heard = time.monotonic()
        self.stream, self.over = None, False
        self.complete = True  # the block was told from its beginning

    def flush(self):
        if self.first is not None:
            self.recorder.write("told", region=self.region, first=self.first, last=self.sequence)
        self.first, self.flushed = None, time.monotonic()

    def take(self, event):
        if event.sequence != self.sequence + 1:
            self.flush()
            self.complete = False
        if self.first is None:
            self.first = event.sequence
        self.sequence = event.sequence
        self.sum = zlib.crc32(event.SerializeToString(deterministic=True), self.sum)
        if event.sequence % BLOCK == 0:
            if self.complete:
                self.recorder.write("block", region=self.region, block=event.sequence // BLOCK, sum=self.sum)
            self.sum, self.complete = 0, True
        if event.HasField("operation_data") and event.operation_data.stage in api.TERMINAL:
            o = event.operation_data
            self.recorder.write("end", region=self.region, sequence=event.sequence, operation=event.operation, stage=stage_name(o),
                                verb=operation_pb2.Verb.Name(o.verb).removeprefix("VERB_"), target=o.target, uid=o.uid, generation=o.generation, host=o.host, **({"why": o.error.message[:200]} if o.error.message else {}))
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def run(self):
        while not self.over:
            self.heard = time.monotonic()
            try:
                self.stream = self.client.watch(timeout=3600, region=self.region, after_sequence=self.sequence, heartbeat_ms=HEARTBEAT_MS)
                for answer in self.stream:
                    self.heard = time.monotonic()
                    if answer.HasField("event"):
                        self.take(answer.event)
                    elif answer.sequence != self.sequence:
                        # A heartbeat says how far everything was sent; without a filter that is the last event.
                        self.recorder.write("skipped", region=self.region, told=self.sequence, sequence=answer.sequence)
            except grpc.RpcError as e:
                self.flush()
                self.recorder.write("watch_ended", region=self.region, after=self.sequence, code=e.code().name, text=(e.details() or "")[:120])
            time.sleep(0.2)

    def too_silent(self):
        return time.monotonic() - self.heard > SILENCE_SECONDS


def guard(regions):
    """Gives up watches that have fallen silent: half of a connection may be gone without anybody saying so."""
    while True:
        time.sleep(1)
        for r in regions.values():
            if r.too_silent() and r.stream:
                r.stream.cancel()


def main():
    directory, name, text = sys.argv[1:4]
    options = json.loads(text)
    recorder = Recorder(directory, name)
    regions = {}
    for region in options["regions"]:
        client = api.Client(options["endpoint"], options["ca"], options["token"], region=region)
        regions[region] = Region(recorder, client, region)
        threading.Thread(target=regions[region].run, daemon=True).start()
    threading.Thread(target=guard, args=(regions,), daemon=True).start()
    want = json.loads(sys.stdin.readline() or "{}")
    deadline = time.monotonic() + LAST_SECONDS
    while time.monotonic() < deadline and any(regions[r].sequence < s for r, s in want.items()):
        time.sleep(0.1)
    for r in regions.values():
        r.over = True
        r.flush()
        recorder.write("done", region=r.region, sequence=r.sequence, want=want.get(r.region))
    recorder.close()
    os._exit(0)


if __name__ == "__main__":
    main()
