"""Networks of real containers on a real agent: modes, functions that are handed out whole, bandwidth; and that all of it comes back."""
import json
import os
import signal
import subprocess
import unittest

import machine
from agent_host import AgentHost
from api import container_pb2
from harpoon.internal.v1 import agent_pb2

REFUSED = agent_pb2.COMMAND_OUTCOME_REFUSED


def ip(*words, pid=None, check=True):
    """Of the host, or of the network namespace of a process."""
    inside = ["nsenter", "-t", str(pid), "-n"] if pid else []
    return subprocess.run([*inside, "ip", *words], check=check, capture_output=True, text=True).stdout


def link(name, pid=None):
    """What the kernel says of an interface; None: there is none."""
    found = [x for x in json.loads(ip("-d", "-j", "link", "show", pid=pid)) if x["ifname"] == name]
    return found[0] if found else None


def links():
    return {x["ifname"] for x in json.loads(ip("-j", "link", "show"))}


def limits(name):
    """Rates in bytes per second of the token buckets on an interface."""
    out = subprocess.run(["tc", "-j", "qdisc", "show", "dev", name], check=True, capture_output=True, text=True).stdout
    return [x["options"]["rate"] for x in json.loads(out) if x["kind"] == "tbf"]


class NetworkTest(unittest.TestCase):
    def setUp(self):
        n = os.getpid() % 100000
        self.parent, self.functions = f"hm{n}", [f"hf{n}a", f"hf{n}b"]
        for name in (self.parent, *self.functions):
            ip("link", "add", name, "type", "veth", "peer", "name", name + "p")
            self.addCleanup(ip, "link", "del", name + "p", check=False)
            ip("link", "set", name + "p", "up")
        ip("link", "set", self.parent, "up")
        self.host = AgentHost(network={"macvlan": self.parent, "macvlan_subnet": "10.9.8.0/24", "macvlan_addresses": "10.9.8.20-10.9.8.29",
                                       "macvlan_gateway": "10.9.8.1", "sriov": ", ".join(self.functions), "sriov_subnet": "10.9.7.0/24", "capacity": "100000000"})
        self.addCleanup(self.host.close)

    def ensure(self, uid, generation, mode, bps=0, **more):
        command = self.host.ensure(uid, generation, command=("sh", "-c", "sleep 1000 & wait"), stop_signal="SIGKILL", **more)
        command.spec.network.mode = mode
        command.spec.resources.network_bps = bps
        return command

    def refused(self, command):
        self.host.send(command)
        self.host.until(lambda: self.host.result(command), 20, "the refusal")
        result = self.host.result(command)
        self.assertEqual(result.outcome, REFUSED, result)
        return result.error

    def restarted(self, command, serial):
        command.restart_serial = serial
        return self.host.done(command)[0].status

    def taken(self, directory):
        return [f for f in self.host.listing(os.path.join(self.host.state, "cni", directory), skip=("lock",)) if not f.startswith("last_reserved")]

    def overlay(self):
        """A network of the operator's: a pair of interfaces with addresses of its own."""
        path = os.path.join(self.host.directory, "overlay.conflist")
        with open(path, "w") as f:
            json.dump({"cniVersion": "1.0.0", "name": "others", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.9.6.0/24",
                       "dataDir": os.path.join(self.host.state, "cni")}}]}, f)
        return path

    def test_modes_functions_and_bandwidth(self):
        self.host.set("network", "overlay", self.overlay())
        self.host.start()
        facts = self.host.router.hello.facts
        self.assertEqual(set(facts.network_modes), {container_pb2.NETWORK_MODE_BRIDGE, container_pb2.NETWORK_MODE_MACVLAN, container_pb2.NETWORK_MODE_SRIOV,
                                                    container_pb2.NETWORK_MODE_OVERLAY})
        self.assertEqual(facts.network_functions, 2)
        self.assertEqual(self.host.router.hello.allocatable.network_bps, 100000000)
        self.check_macvlan()
        self.check_functions()
        self.check_bandwidth()
        self.check_overlay()
        self.assertEqual(self.host.links(), [])
        self.assertLessEqual({self.parent, *self.functions}, links())
        self.assertEqual([x for x in links() if x.startswith("bwp")], [], "what bandwidth is limited by")
        for directory in ("harpoon-macvlan-" + self.parent, "harpoon-sriov-" + self.host.name, "harpoon-" + self.host.name, "others", "functions"):
            self.assertEqual(self.taken(directory), [])

    def check_macvlan(self):
        first = self.host.done(self.ensure("mac", 1, container_pb2.NETWORK_MODE_MACVLAN))[0].status
        self.assertRegex(first.addresses[0], r"^10\.9\.8\.2\d/24$")
        self.assertEqual(link("eth0", first.pid)["linkinfo"]["info_kind"], "macvlan")
        self.assertIn("via 10.9.8.1", ip("route", pid=first.pid))
        again = self.restarted(self.ensure("mac", 2, container_pb2.NETWORK_MODE_MACVLAN), 1)
        self.assertNotEqual(again.pid, first.pid)
        self.assertEqual(list(again.addresses), list(first.addresses), "a restart keeps the address")
        self.host.done(self.host.remove("mac", 3))

    def check_functions(self):
        sriov = container_pb2.NETWORK_MODE_SRIOV
        peers = {name + "p": link(name + "p")["ifindex"] for name in self.functions}
        one, two = (r.status for r in self.host.done(self.ensure("one", 1, sriov), self.ensure("two", 1, sriov)))
        self.assertFalse(set(self.functions) & links(), "both are handed out")
        self.assertEqual({link("eth0", s.pid)["link_index"] for s in (one, two)}, set(peers.values()))
        error = self.refused(self.ensure("three", 1, sriov))
        self.assertEqual(error.message, "network mode SRIOV: none of the host's 2 functions is left")
        # A crash of the agent and a restart of the container change nothing.
        own = link("eth0", one.pid)["link_index"]
        self.host.kill(signal.SIGKILL)
        self.host.start()
        self.assertEqual(self.host.router.hello.facts.network_functions, 2, "what is handed out counts")
        self.assertEqual(machine.identity(one.pid), (one.pid, one.pid_start_ticks))
        again = self.restarted(self.ensure("one", 2, sriov), 1)
        self.assertEqual(link("eth0", again.pid)["link_index"], own)
        self.assertEqual(list(again.addresses), list(one.addresses))
        self.refused(self.ensure("three", 2, sriov))
        # Given back under its own name, and had by the next.
        self.host.done(self.host.remove("one", 3))
        back = set(self.functions) & links()
        self.assertEqual(len(back), 1)
        three = self.host.done(self.ensure("three", 3, sriov))[0].status
        self.assertEqual(link("eth0", three.pid)["link_index"], own)
        # Given up for another mode, in the same container.
        self.host.done(self.ensure("three", 4, container_pb2.NETWORK_MODE_NONE))
        self.assertEqual(set(self.functions) & links(), back)
        self.host.done(self.host.remove("three", 5), self.host.remove("two", 2))
        self.assertLessEqual(set(self.functions), links())

    def check_bandwidth(self):
        bridge = container_pb2.NETWORK_MODE_BRIDGE
        first = self.host.done(self.ensure("slow", 1, bridge, bps=1000000))[0].status
        self.assertEqual(first.resources.network_bps, 1000000)
        end = self.host.links()[0]
        self.assertEqual(limits(end), [1000000])
        more = self.host.done(self.ensure("slow", 2, bridge, bps=2500000))[0].status
        self.assertEqual((more.pid, more.pid_start_ticks), (first.pid, first.pid_start_ticks), "in place")
        self.assertEqual(limits(end), [2500000])
        none = self.host.done(self.ensure("slow", 3, bridge))[0].status
        self.assertEqual((none.pid, limits(end)), (first.pid, []))
        again = self.host.done(self.ensure("slow", 4, bridge, bps=1500000))[0].status
        self.assertEqual((again.pid, limits(end)), (first.pid, [1500000]))
        self.host.done(self.host.remove("slow", 5))

    def check_overlay(self):
        other = self.host.done(self.ensure("other", 1, container_pb2.NETWORK_MODE_OVERLAY))[0].status
        self.assertRegex(other.addresses[0], r"^10\.9\.6\.\d+/24$")
        self.host.done(self.host.remove("other", 2))

    def test_a_mode_that_is_not_offered_is_refused(self):
        self.host.set("network", "macvlan", "")
        self.host.start()
        error = self.refused(self.ensure("mac", 1, container_pb2.NETWORK_MODE_MACVLAN))
        self.assertEqual(error.message, "network mode MACVLAN: this host does not offer it")


if __name__ == "__main__":
    unittest.main()
