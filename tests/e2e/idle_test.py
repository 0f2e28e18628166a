"""An idle fleet costs the database nothing: no query, and a number of connections that does not depend on its size."""
import time

from harness import StackTest, eventually

QUIET_SECONDS = 60


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
        # What one reading costs by itself, measured, not guessed: two readings right after one another, until two agree.
        own = eventually(lambda: next((n for n in [questions_per_reading()] if n == questions_per_reading()), None), 30, "a quiet database")
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
        mine = self.counters()[1]
        theirs = int(dict(small.sql("SHOW GLOBAL STATUS LIKE 'Threads_connected'"))["Threads_connected"]) - 1
        self.assertEqual(mine, theirs)


if __name__ == "__main__":
    import unittest
    unittest.main()
