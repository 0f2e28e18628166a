"""kill -9 of each part, one at a time, in the middle of 200 events on real containers: every operation ends SUCCEEDED, every container exists exactly
once, and nothing that ran before is touched."""
from harness import StackTest, eventually, image
from load import Load, assert_account

EVENTS = 200


class KillTest(StackTest):
    shape = {"hosts": 2}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.before = {}
        operations = [cls.client.create(f"before-{i}", image()) for i in range(6)]
        for o in operations:
            cls.client.succeeded(o)
        for i in range(6):
            c = cls.client.get(f"before-{i}")
            cls.before[f"before-{i}"] = (c.status.pid, c.status.pid_start_ticks)

    def kill_amid_events(self, name):
        load = Load([self.client, self.stack.client()], EVENTS, f"k-{name}")
        load.start()
        eventually(lambda: load.progress() >= EVENTS // 4, 120, lambda: f"a quarter of the events (now {load.progress()})")
        self.stack.kill(name)
        self.stack.restart()
        self.assertEqual(load.finish(), [])
        self.assertEqual(load.progress(), EVENTS)
        assert_account(self, self.client, load.remaining(), self.before)
        load.delete_all()
        assert_account(self, self.client, set(), self.before)

    def test_scheduler(self):
        self.kill_amid_events("sched-1")

    def test_gateway(self):
        self.kill_amid_events("gw-1")

    def test_router(self):
        self.kill_amid_events("r1-router-1")

    def test_agent(self):
        self.kill_amid_events("r1-h1")

    def test_rabbitmq(self):
        self.kill_amid_events("rabbitmq")

    def test_mariadb(self):
        self.kill_amid_events("mariadb")


if __name__ == "__main__":
    import unittest
    unittest.main()
