"""Network namespaces of a stack with several broker nodes: each node in its own, all on one bridge with the machine, where the daemons are. Packets between
nodes can be dropped, per direction: rules live in the nodes' own namespaces and vanish with them."""
import ipaddress
import os
import re
import subprocess

from procs import Failure

OUTSIDE = "daemons"  # all that is not in a namespace


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout


class Network:
    """`names` are the nodes, in order; their addresses never change."""

    def __init__(self, state, names):
        self.state = state
        self.names = names
        self.bridge = f"hp{state.data['id']}-net"

    def namespace(self, name):
        return f"harpoon-{self.state.data['id']}-{name}"

    def subnet(self):
        return ipaddress.ip_network(self.state.subnet("network"))

    def address(self, name):
        return str(self.subnet()[1 if name == OUTSIDE else 11 + self.names.index(name)])

    def inside(self, name, *argv):
        """A command line, to be run in a node's namespace."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(name)}", "--", *argv]

    def ensure(self):
        bits = self.subnet().prefixlen
        if not os.path.exists(f"/sys/class/net/{self.bridge}"):
            run("ip", "link", "add", self.bridge, "type", "bridge")
            run("ip", "address", "add", f"{self.address(OUTSIDE)}/{bits}", "dev", self.bridge)
            run("ip", "link", "set", self.bridge, "up")
        for i, name in enumerate(self.names):
            space = self.namespace(name)
            if os.path.exists(f"/run/netns/{space}"):
                continue
            run("ip", "netns", "add", space)
            port = f"hp{self.state.data['id']}-n{i + 1}"
            run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            run("ip", "link", "set", port, "master", self.bridge, "up")
            run("ip", "-n", space, "address", "add", f"{self.address(name)}/{bits}", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "link", "set", "lo", "up")

    def check(self, name):
        if name not in self.names and name != OUTSIDE:
            raise Failure(f"{name} has no place in the network; there are: {', '.join([*self.names, OUTSIDE])}")
        return name

    def dropped(self):
        """[(from, to)] of all rules."""
        who = {self.address(n): n for n in [*self.names, OUTSIDE]}
        pairs = []
        for name in self.names:
            for line in run(*self.inside(name, "iptables", "-w", "-S")).splitlines():
                if m := re.fullmatch(r"-A (INPUT|OUTPUT) -([sd]) ([0-9.]+)/32 -j DROP", line):
                    pairs.append((who[m[3]], name) if m[1] == "INPUT" else (name, who[m[3]]))
        return pairs

    def drop(self, source, to):
        """Packets from `source` to `to` are lost from now on; those of open connections too."""
        pair = (self.check(source), self.check(to))
        if source == to or pair in self.dropped():
            return
        if to == OUTSIDE:
            run(*self.inside(source, "iptables", "-w", "-A", "OUTPUT", "-d", self.address(to), "-j", "DROP"))
        else:
            run(*self.inside(to, "iptables", "-w", "-A", "INPUT", "-s", self.address(source), "-j", "DROP"))

    def heal(self):
        for name in self.names:
            run(*self.inside(name, "iptables", "-w", "-F"))

    def remove(self):
        """Everything of it, whatever is left. After the processes have ended."""
        prefix = f"harpoon-{self.state.data['id']}-"
        for space in os.listdir("/run/netns") if os.path.isdir("/run/netns") else []:
            if space.startswith(prefix):
                run("ip", "netns", "delete", space)
        if os.path.exists(f"/sys/class/net/{self.bridge}"):
            run("ip", "link", "delete", self.bridge)
