"""An idle fleet costs the database nothing: no query, and a number of connections that does not depend on its size. An idle agent costs its host little memory."""
import concurrent.futures
import time
import uuid

from api import container_pb2
from faults import memory
from harness import StackTest, eventually, image

QUIET_SECONDS = 60
SETTLE_SECONDS = 60  # an agent's 15 s, on a busy machine
AGENT_MAX, AGENT_OWN_MAX = 6 << 20, 3 << 20


class IdleTest(StackTest):
    shape = {"hosts": 0, "sim_hosts": 1000}

    def counters(self):
        """(Questions, connections) before this reader's own."""
        rows = dict(self.stack.sql("SHOW GLOBAL STATUS WHERE Variable_name IN ('Questions', 'Threads_connected')"))
        return int(rows["Questions"]), int(rows["Threads_connected"]) - 1

    def test_a_thousand_hosts_ask_nothing(self):
        def questions_per_reading():
            before = self.counters()[0]
            return self.counters()[0] - before
        # What one reading costs by itself, measured, not guessed.
        own = min(questions_per_reading() for _ in range(5))

        def quiet():
            """The last attachments are behind us: the watermark has been written for its own sake, once, and nothing came for 3 s."""
            before = self.counters()[0]
            time.sleep(3)
            return self.counters()[0] - before == own
        eventually(lambda: self.stack.sql("SELECT sequence = watermark FROM regions") == [["1"]], 30, "the watermark to be written")
        eventually(quiet, 60, "a quiet database")
        before, connections = self.counters()
        time.sleep(QUIET_SECONDS)  # the time is what is tested
        after, _ = self.counters()
        self.assertEqual(after - before, own, f"in {QUIET_SECONDS} s of idleness")
        self.assertLessEqual(connections, 10)
        self.assertEqual(sum(h.router != "" for h in self.client.list_hosts()), 1000, "the hosts are still attached")

    def test_connections_do_not_depend_on_the_number_of_hosts(self):
        from harness import Stack
        small = Stack(hosts=0, sim_hosts=10)
        self.addCleanup(small.down)
        small.up()
        small.hosts_ready(small.client(), 10)
        client = small.client()
        counts = []

        def same():
            """Connections are opened when they are first needed: reads side by side need all that the pools may have."""
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                list(pool.map(lambda c: c.list_hosts(), [self.client, client] * 32))
            theirs = dict(small.sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'"))["Threads_connected"]
            counts[:] = [self.counters()[1], int(theirs) - 1]
            return counts[0] == counts[1]
        eventually(same, 30, lambda: f"as many connections with 1,000 hosts as with 10: {counts}")
        self.assertLessEqual(counts[0], 10)


class AgentTest(StackTest):
    shape = {"hosts": 1}

    def settles(self, pid, when):
        seen = {}

        def small():
            seen.update(memory(pid))
            return seen["resident"] <= AGENT_MAX and seen["private"] <= AGENT_OWN_MAX
        eventually(small, SETTLE_SECONDS, lambda: f"an agent {when} to be small: {seen}", 1)

    def test_an_agent_that_waits_is_small(self):
        """It had 12.4 MiB: libraries that it did not need, 82 KiB in each of 18 threads, and what only its start had used."""
        self.stack.hosts_ready(self.client, 1)
        pid = self.stack.status()["r1-h1"]["pid"]
        self.settles(pid, "with nothing to run")
        names = ["n-" + uuid.uuid4().hex[:8] for _ in range(3)]
        for name in names:
            self.client.succeeded(self.client.create(name, image(), network=container_pb2.NETWORK_MODE_NONE), 30)
        self.settles(pid, "whose containers run")
        for name in names:
            self.client.succeeded(self.client.delete(name), 30)
        self.settles(pid, "that has had containers")


if __name__ == "__main__":
    import unittest
    unittest.main()
