"""Hosts go out of service and come back: real containers on real agents are moved, once each, through a drain, the death of an agent and of the scheduler in its middle."""
from api import container_pb2, host_pb2
from harness import StackTest, eventually, image
import machine

RUNNING = container_pb2.CONTAINER_STATE_RUNNING


class DrainTest(StackTest):
    shape = {"hosts": 3, "schedulers": 2}

    def host_of(self, name):
        return self.client.get(name).status.host.rsplit("/", 1)[-1]

    def host(self, name):
        return next(h for h in self.client.list_hosts() if h.name.endswith("/" + name))

    def running_once(self, names):
        """Each runs, in one process that is there, and the hosts together run no more than these."""
        pids = set()
        for name in names:
            c = self.client.get(name)
            self.assertEqual(c.status.state, RUNNING, c)
            self.assertEqual(machine.identity(c.status.pid), (c.status.pid, c.status.pid_start_ticks))
            pids.add(c.status.pid)
        self.assertEqual(len(pids), len(names))
        eventually(lambda: sum(h.container_count for h in self.client.list_hosts()) == len(names), 30,
                   "the hosts' counts: nothing twice, nothing left over")

    def fill(self, host, names, stays=()):
        """All of them on this host: the others are out of service meanwhile."""
        others = [h for h in ("h1", "h2", "h3") if h != host]
        for h in others:
            self.stack.cli("hosts", "cordon", h)
        for name in names:
            self.client.succeeded(self.client.create(name, image(), stateless=name not in stays))
            self.assertEqual(self.host_of(name), host)
        for h in others:
            self.stack.cli("hosts", "uncordon", h)

    def remove(self, names):
        for name in names:
            self.client.succeeded(self.client.delete(name))

    def test_a_drain_moves_what_may_move(self):
        names = [f"web{i}" for i in range(5)]
        self.fill("h1", names + ["data"], stays=("data",))
        before = {name: self.client.get(name) for name in names + ["data"]}
        done = self.stack.cli("hosts", "drain", "h1", "--parallel", "2", "--wait", check=False)
        self.assertEqual(done.returncode, 9, "something stays, so the drain has failed: " + done.stdout + done.stderr)
        self.assertIn("5 moved, 0 moving, 0 to move; 1 stay: 1 not stateless", done.stdout + done.stderr)
        for name in names:
            after = self.client.get(name)
            self.assertNotEqual(self.host_of(name), "h1")
            self.assertNotEqual(after.uid, before[name].uid, "made anew")
            self.assertIsNone(machine.identity(before[name].status.pid), "the old process is gone")
        data = self.client.get("data")
        self.assertEqual((self.host_of("data"), data.status.pid), ("h1", before["data"].status.pid), "what stays runs on")
        self.running_once(names + ["data"])
        self.remove(["data"])
        self.assertEqual(self.stack.cli("hosts", "drain", "h1", "--wait").returncode, 0, "now nothing is left on it")
        self.stack.cli("hosts", "uncordon", "h1")
        self.assertEqual(self.host("h1").state, host_pb2.HOST_STATE_READY)
        moved = self.stack.cli("move", names[0], "--to", "h1", "--wait")
        self.assertEqual(moved.returncode, 0, moved.stderr)
        self.assertEqual(self.host_of(names[0]), "h1", "it may come back")
        self.running_once(names)
        self.remove(names)

    def test_a_drain_survives_its_agent_and_its_scheduler(self):
        names = [f"job{i}" for i in range(4)]
        self.fill("h2", names)
        self.stack.kill("r1-h2")  # its containers run on; it is asked to remove them when it is back
        started = self.stack.cli("hosts", "drain", "h2", "--parallel", "1")
        operation = next(line.split()[-1] for line in started.stderr.splitlines() if line.startswith("operation"))
        leader = next(n for n in ("sched-1", "sched-2") if self.leads(n))
        self.stack.kill(leader)
        eventually(lambda: any(self.leads(n) for n in ("sched-1", "sched-2") if n != leader), 30, "another leader")
        for name in names:
            self.assertEqual(self.host_of(name), "h2", "nothing is made elsewhere while it runs here")
        self.stack.up()
        self.client.wait(operation, 90)
        ended = self.client.get_operation(operation)
        self.assertEqual(ended.error.code, 0, ended)
        for name in names:
            self.assertNotEqual(self.host_of(name), "h2")
        self.running_once(names)
        self.stack.cli("hosts", "uncordon", "h2")
        self.remove(names)

    def leads(self, scheduler):
        try:
            return self.stack.metric(scheduler, 'harpoon_scheduler_leading{region="r1"}') == 1
        except (OSError, KeyError, StopIteration):
            return False


if __name__ == "__main__":
    import unittest
    unittest.main()
