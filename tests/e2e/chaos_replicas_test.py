"""Two of each: gateways, schedulers, routers. Any one can be killed, and stay away, without anybody waiting for it to come back."""
import uuid

from harness import StackTest, eventually, image
from load import patient


class ReplicasTest(StackTest):
    shape = {"gateways": 2, "schedulers": 2, "routers": 2, "hosts": 0, "sim_hosts": 10}

    def works(self, gateway, count=10, seconds=60):
        client = self.stack.client(gateway)
        names = ["p-" + uuid.uuid4().hex[:12] for _ in range(count)]
        operations = [patient(lambda n=n, r=str(uuid.uuid4()): client.create(n, image(), request_id=r)) for n in names]
        for o in operations:
            client.succeeded(o, seconds)
        return client

    def killed(self, name, gateway=0):
        """Kills a process, shows that all goes on without it, brings it back."""
        self.works(gateway)
        self.stack.kill(name)
        try:
            self.works(gateway)
            self.assertFalse(self.stack.status()[name]["running"])
        finally:
            self.stack.restart()
        self.works(gateway)

    def test_first_scheduler(self):
        self.killed("sched-1")

    def test_second_scheduler(self):
        self.killed("sched-2")

    def test_first_router(self):
        self.killed("r1-router-1")

    def test_second_router(self):
        self.killed("r1-router-2")

    def test_first_gateway(self):
        self.killed("gw-1", gateway=1)

    def test_second_gateway(self):
        self.killed("gw-2", gateway=0)

    def test_a_router_that_ends_in_order_hands_its_agents_over(self):
        self.works(0)
        self.stack.kill("r1-router-1", "TERM")
        try:
            client = self.stack.client(0)
            eventually(lambda: all(h.router.startswith("r1-router-2") for h in client.list_hosts()), 30, "all hosts at the other router")
            self.works(0)
        finally:
            self.stack.restart()

    def test_one_epoch_after_the_other(self):
        before = int(self.stack.sql("SELECT epoch FROM regions WHERE name = 'r1'")[0][0])
        for name in ("sched-1", "sched-2"):
            self.stack.kill(name)
            self.works(0, count=3)
            self.stack.restart()
        after = int(self.stack.sql("SELECT epoch FROM regions WHERE name = 'r1'")[0][0])
        self.assertGreater(after, before)
        self.assertLessEqual(after, before + 2)

    def leads(self, name):
        return self.stack.metric(name, 'harpoon_scheduler_leading{region="r1"}') == 1

    def test_a_leader_that_is_paused_is_fenced(self):
        """It wakes up when another one leads, writes nothing, stands by, and can lead again."""
        self.works(0)
        first = next(n for n in ("sched-1", "sched-2") if self.leads(n))
        second = {"sched-1": "sched-2", "sched-2": "sched-1"}[first]
        before = self.stack.pids()
        epoch = "SELECT epoch FROM regions WHERE name = 'r1'"
        was = int(self.stack.sql(epoch)[0][0])
        self.stack.kill(first, "STOP")
        try:
            self.works(0, seconds=90)
            self.assertTrue(self.leads(second))
        finally:
            self.stack.kill(first, "CONT")
        eventually(lambda: not self.leads(first), 30, f"{first} to see that it leads no more")
        self.works(0)
        self.assertTrue(self.leads(second))
        self.assertEqual(int(self.stack.sql(epoch)[0][0]), was + 1)
        self.assertEqual(self.stack.pids(), before, "both live on")
        self.stack.kill(second)
        try:
            self.works(0)
            self.assertTrue(self.leads(first))
        finally:
            self.stack.restart()

    def test_regions_are_apart(self):
        from harness import Stack
        two = Stack(regions=2, schedulers=2, hosts=0, sim_hosts=2)
        self.addCleanup(two.down)
        two.up()
        for region in ("r1", "r2"):
            client = two.client(region=region)
            two.hosts_ready(client, 2)
            client.succeeded(client.create("same-name", image()))
            self.assertEqual([c.name for c in client.list_containers()], [client.name("same-name")])
        everywhere = client.list_containers(parent="projects/-/regions/-")
        self.assertEqual(len(everywhere), 2)


if __name__ == "__main__":
    import unittest
    unittest.main()
