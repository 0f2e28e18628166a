"""A real cpu hog, a container like any other, on a real agent: the agent refuses new work with figure and limit, the scheduler's breaker keeps new containers away and says so, and what runs is left
alone. When the hog is gone both take work again; on a machine that others keep busy it takes a change of the limits instead, which is tried in its place."""
import os
import time
import unittest

from agent_host import AgentHost
from api import container_pb2, placement_service_pb2
from harness import StackTest, eventually, image
from harpoon.internal.v1 import agent_pb2
import machine

LIMIT = 90
CORES = os.cpu_count()
HOG = ["sh", "-c", "for i in $(seq %d); do while :; do :; done & done; wait" % (2 * CORES)]
REFUSED, RESOURCE_EXHAUSTED = agent_pb2.COMMAND_OUTCOME_REFUSED, 8


def cpu_share(seconds=1.0):
    """Of the whole machine's cpu, as the agent sees it."""
    def ticks():
        with open("/proc/stat") as f:
            v = [int(x) for x in f.readline().split()[1:9]]
        return sum(v), sum(v) - v[3] - v[4]
    total, busy = ticks()
    time.sleep(seconds)  # an interval to measure over
    end_total, end_busy = ticks()
    return (end_busy - busy) / max(1, end_total - total)


def quiet():
    """Without the hog, the load is well below the limit at which breakers close (80 % of LIMIT)."""
    return cpu_share() < 0.6


class OverloadedAgentTest(unittest.TestCase):
    def setUp(self):
        self.host = AgentHost(breaker_cpu=LIMIT, breaker_after="1s", breaker_close_after="1s", load_average="500ms")
        self.host.router.metrics_ms = 250
        self.addCleanup(self.host.close)

    def overloaded(self):
        m = self.host.router.metrics
        return list(m.overloaded) if m else None

    def refused(self, command):
        self.host.send(command)
        self.host.until(lambda: self.host.result(command), 15, command.operation_id)
        r = self.host.result(command)
        self.assertEqual((r.outcome, r.error.code, list(r.overloaded)), (REFUSED, RESOURCE_EXHAUSTED, ["cpu"]))
        self.assertRegex(r.error.message, r"^the host is overloaded: cpu: use \d+\.\d % \(limit 90 %\)$")

    def larger(self, uid, generation, cpu):
        command = self.host.ensure(uid, generation, command=HOG)
        command.spec.resources.cpu_millis = cpu
        return command

    def test_refuses_new_work_until_it_has_passed(self):
        hog = self.larger("hog", 1, 1000 * CORES)
        self.host.start()
        before = self.host.done(hog)[0].status
        self.host.until(lambda: self.overloaded() == ["cpu"], 15, "the agent to say that it is overloaded")
        self.refused(self.host.ensure("new", 1))
        self.refused(self.larger("hog", 2, 2000 * CORES))
        self.assertEqual(machine.identity(before.pid), (before.pid, before.pid_start_ticks))
        smaller = self.host.done(self.larger("hog", 3, 900 * CORES))[0].status
        self.assertEqual((smaller.pid, smaller.pid_start_ticks), (before.pid, before.pid_start_ticks))
        self.host.done(self.host.remove("hog", 4))
        if quiet():
            self.host.until(lambda: self.overloaded() == [], 15, "the agent to take work again")
        else:
            self.host.kill(15)
            os.mkdir(self.host.config + ".d")
            with open(self.host.config + ".d/overload.conf", "w") as f:
                f.write("[agent]\nbreaker_cpu = 0\n")
            self.host.start()
        self.host.done(self.host.ensure("new", 2))


class OverloadedHostTest(StackTest):
    shape = {"hosts": 1, "sim_hosts": 2}

    @classmethod
    def prepare(cls):
        cls.stack.configure("r1-router-1", router={"metrics_interval": "500ms"})

    def limit(self, percent):
        """Another scheduler takes over, with another limit."""
        self.stack.configure("sched-1", scheduler={"breaker_cpu": percent, "breaker_after": "2s", "breaker_close_after": "2s", "load_average": "1s", "load_stale": "10s"})
        self.stack.kill("sched-1", "TERM")
        self.stack.restart()

    def breakers(self):
        return {b.resource: b.reason for h in self.client.list_hosts() if h.name.endswith("/h1") for b in h.breakers}

    def events(self, what):
        return [e for e in self.client.list_events() if e.type == "harpoon.host." + what]

    def explain(self, **kwargs):
        request = self.client.create_request("which", image(), **kwargs)
        answer = self.client.call(self.client.placement.Explain, placement_service_pb2.ExplainRequest(create=request))
        return {h.host.rsplit("/", 1)[1]: (h.rejected_by, h.detail) for h in answer.hosts}

    def test_breaker_opens_and_closes(self):
        on_h1 = container_pb2.PlacementSpec(host="h1")
        hog = self.client.succeeded(self.client.create("hog", image(), cpu_millis=1000 * CORES, command=HOG, placement=on_h1))
        ran = self.client.get("hog").status
        self.limit(LIMIT)
        eventually(self.breakers, 20, "the breaker to open")
        self.assertRegex(self.breakers()["cpu"], r"^cpu: use \d+\.\d % \(limit 90 %\)$")
        opened, = self.events("breaker_opened")
        self.assertEqual((opened.host, [b.resource for b in opened.host_data.breakers]), ("h1", ["cpu"]))
        self.assertEqual(opened.message, self.breakers()["cpu"])
        verdict = self.explain()
        self.assertEqual(verdict["h1"][0], "breaker_cpu")
        self.assertEqual({h: v[0] for h, v in verdict.items() if h != "h1"}, {"sim-1": "", "sim-2": ""})
        heads, *rows = self.stack.cli("get", "hosts", "-o", "wide").stdout.splitlines()
        row = next(line for line in rows if line.startswith("h1 "))
        self.assertEqual(row[heads.index("BREAKERS"):].split()[0], "cpu", row)
        shown = self.stack.cli("describe", "host", "h1").stdout
        self.assertRegex(shown, r"cpu_use +\d+")
        # Elsewhere there is room; what wants to go there waits and says why.
        elsewhere = self.client.succeeded(self.client.create("elsewhere", image()))
        self.assertNotEqual(elsewhere.host.rsplit("/", 1)[1], "h1")
        waiting = self.client.create("waiting", image(), placement=on_h1)
        self.assertIn("1 overloaded in cpu", waiting.reason)
        now = self.client.get("hog").status
        self.assertEqual((now.pid, now.pid_start_ticks), (ran.pid, ran.pid_start_ticks), hog)
        self.client.succeeded(self.client.delete("hog"))
        if not quiet():
            self.limit(0)
        self.client.succeeded(waiting, 30)
        self.assertEqual(self.breakers(), {})
        self.assertEqual(len(self.events("breaker_closed")), 1)
        self.assertEqual(self.client.get("waiting").status.host.rsplit("/", 1)[1], "h1")


if __name__ == "__main__":
    unittest.main()
