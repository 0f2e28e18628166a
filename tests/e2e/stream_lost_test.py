"""The region's stream of events is away, in each way that it can be: work goes on, operations are waited for, and when the stream is there again every watch has every event, once, in order.

A broker can lose a stream for good: its coordinator is then of another mind than its nodes, and no restart helps. Here the stream's process is killed, and a file is in the place of its directory,
so that it cannot start again: to clients that is the same."""
import os
import subprocess
import threading
import time

import grpc
import pika

from api import rpc_error
from harness import StackTest, eventually, image
from watch_test import Reader

REMAKE_SECONDS = 5
WATCH_SECONDS = 600  # of a whole test, on a slow machine
DECLARERS = ("gw-1", "gw-2", "sched-1", "sched-2")
STALL_SECONDS = 15  # that the scheduler waits for a confirm


def remake_after(stack, seconds, *schedulers):
    """Before the stack is up: what the schedulers' configuration says of a stream that is lost."""
    for name in schedulers:
        stack.configure(name, scheduler={"stream_remake": f"{seconds}s"})


def lose_stream(stack, *nodes):
    """The stream's processes cannot start again on these nodes."""
    found = subprocess.run(["find", stack.directory, "-type", "d", "-name", "*events_r1_*", "-path", "*/stream/*"], capture_output=True, text=True, check=True)
    for directory in found.stdout.split():
        os.rename(directory, directory + ".lost")
        with open(directory, "w"):
            pass
    kill = "[exit(P, kill) || {_, P, _, _} <- supervisor:which_children(osiris_server_sup), is_pid(P)]."
    for node in nodes:
        stack.rabbitmqctl("--node", node, "eval", kill)


class StreamLostTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 5, "gateways": 2, "schedulers": 2}

    @classmethod
    def prepare(cls):
        remake_after(cls.stack, REMAKE_SECONDS, "sched-1", "sched-2")

    def setUp(self):
        self.daemons = self.stack.pids()
        self.made = 0
        self.readers = [Reader(self.stack.client(i), WATCH_SECONDS, after_sequence=0) for i in range(2)]
        self.addCleanup(lambda: [r.close() for r in self.readers])
        self.work()

    def leader(self, metric):
        """A figure of the scheduler that leads."""
        names = [n for n in ("sched-1", "sched-2") if self.stack.metric(n, 'harpoon_scheduler_leading{region="r1"}') == 1]
        return self.stack.metric(names[0], metric + '{region="r1"}') if names else None

    def work(self):
        """The whole life of a container, waited for at each step."""
        self.made += 1
        name, client = f"{self.id().rsplit('_', 1)[1]}-{self.made}", self.stack.client(self.made % 2)
        client.succeeded(client.create(name, image()), 20)
        client.succeeded(client.resize(name, memory_bytes=128 << 20, cpu_millis=200), 20)
        client.succeeded(client.delete(name), 20)

    def told(self):
        """Every watch has every event of the record, once, in order, and no daemon has ended."""
        last = int(self.stack.sql("SELECT sequence FROM regions")[0][0])
        for r in self.readers:
            eventually(lambda r=r: r.error or r.sequence >= last, 60, lambda r=r: f"the watch to reach {last}; it is at {r.sequence}")
            self.assertIsNone(r.error, "the watch of before lives on")
            self.assertEqual(r.sequences()[:last], list(range(1, last + 1)))
        eventually(lambda: self.stack.sql("SELECT sequence, watermark FROM regions WHERE sequence = watermark"), 20, "the watermark to follow")
        eventually(lambda: self.leader("harpoon_scheduler_stream_up") == 1, 20, "the scheduler to know that the stream is back")
        for gateway in ("gw-1", "gw-2"):
            eventually(lambda g=gateway: self.stack.metric(g, "harpoon_gateway_streams_up") == 1, 40, "the gateways to follow it")
        self.assertEqual(self.stack.pids(), self.daemons, "no daemon ended")

    def delete(self, then=None):
        """Deletes the stream, or what has its name; then the channel goes to `then`."""
        connection = pika.BlockingConnection(pika.URLParameters(self.stack.env["HARPOON_AMQP_URL"]))
        channel = connection.channel()
        channel.queue_delete("events.r1")
        if then:
            then(channel)
        connection.close()

    def away(self):
        eventually(lambda: self.leader("harpoon_scheduler_stream_up") == 0, STALL_SECONDS + 10, "the scheduler to miss the stream")
        for gateway in ("gw-1", "gw-2"):
            eventually(lambda g=gateway: self.stack.metric(g, "harpoon_gateway_streams_up") == 0, 20, "the gateways to miss it")

    def test_another_queue_is_in_its_place(self):
        """It cannot be declared, because of its arguments. That is somebody's mistake: nothing is deleted, and everything but events goes on."""
        remakes = self.leader("harpoon_scheduler_stream_remakes_total")
        for name in DECLARERS:  # they would be quicker
            self.stack.kill(name, "STOP")
        self.delete(lambda channel: channel.queue_declare("events.r1", durable=True))
        self.stack.rabbitmqctl("close_all_connections", "-p", "harpoon", "test")
        for name in DECLARERS:
            self.stack.kill(name, "CONT")
        self.away()
        for _ in range(3):
            self.work()
        self.assertGreater(self.leader("harpoon_scheduler_sequence"), self.leader("harpoon_scheduler_watermark"))
        self.stack.kill("gw-2", "TERM")  # one that never saw the stream says so
        self.stack.restart()
        self.daemons = self.stack.pids()
        self.readers.pop().close()
        self.work()
        error = rpc_error(lambda: list(self.stack.client(1).watch(timeout=30)))
        self.assert_code(error, grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(self.leader("harpoon_scheduler_stream_remakes_total"), remakes)
        self.delete()
        self.told()
        self.readers.append(Reader(self.stack.client(1), WATCH_SECONDS, after_sequence=0))
        self.work()
        self.told()

    def test_it_is_deleted_while_events_are_told(self):
        over, failed = threading.Event(), []

        def load():
            try:
                while not over.is_set():
                    self.work()
            except (AssertionError, grpc.RpcError) as e:
                failed.append(e)
        thread = threading.Thread(target=load)
        thread.start()
        for how in (lambda: self.stack.rabbitmqctl("delete_queue", "-p", "harpoon", "events.r1"), self.delete, self.delete):
            before = self.leader("harpoon_scheduler_sequence")
            how()
            eventually(lambda b=before: self.leader("harpoon_scheduler_sequence") > b + 50, 30, "events after the deletion")
        over.set()
        thread.join()
        self.assertEqual(failed, [])
        self.told()

    def test_the_broker_loses_it_for_good(self):
        """It confirms nothing, and has no reader: after a while the leader deletes it, and makes it anew."""
        remakes = self.leader("harpoon_scheduler_stream_remakes_total")
        before = time.monotonic()
        lose_stream(self.stack, "rabbitmq")
        self.work()
        eventually(lambda: self.leader("harpoon_scheduler_stream_remakes_total") > remakes, STALL_SECONDS + REMAKE_SECONDS + 40, "the stream to be made anew")
        self.assertGreater(time.monotonic() - before, STALL_SECONDS + REMAKE_SECONDS - 1, "not at once")
        self.told()
        remakes = self.leader("harpoon_scheduler_stream_remakes_total")
        self.work()
        self.told()
        self.assertEqual(self.leader("harpoon_scheduler_stream_remakes_total"), remakes, "it works: it is left alone")


if __name__ == "__main__":
    import unittest
    unittest.main()
