"""Broken configuration, for each daemon: --check-config says what is wrong, in which file and line, and exits with 2. Each case has a name."""
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import Stack
from paths import program

DAEMONS = {"broker-gw": "gw-1", "scheduler": "sched-1", "event-router": "r1-router-1", "host-agent": "r1-h1"}
OWN = {"broker-gw": "gateway", "scheduler": "scheduler", "event-router": "router", "host-agent": "agent"}

# Name, change of the good text, words that the message must hold. `{own}` is the daemon's own section.
COMMON = [
    ("unknown section", lambda t, own: t + "\n[nonsense]\nkey = 1\n", ["nonsense"]),
    ("unknown key", lambda t, own: t.replace(f"[{own}]", f"[{own}]\ncolour = red"), ["colour"]),
    ("key without a section", lambda t, own: "level = info\n" + t, ["level"]),
    ("log level of no kind", lambda t, own: t.replace("level = info", "level = loud"), ["level", "loud"]),
    ("a line without =", lambda t, own: t.replace("[log]", "[log]\njust words"), ["just words", "line", ":"]),
    ("a section that never closes", lambda t, own: t + "\n[log\nlevel = info\n", [":"]),
    ("a port above 65535", lambda t, own: re.sub(r"(\[metrics\]\nlisten = [\d.]+):\d+", r"\1:70000", t), ["70000"]),
    ("an address that is none", lambda t, own: re.sub(r"(\[metrics\]\nlisten =) \S+", r"\1 not an address", t), ["not an address"]),
    ("an empty name", lambda t, own: re.sub(r"^(name|host) = .*$", r"\1 =", t, count=1, flags=re.M), ["name", "host"]),
    ("a line of 100,000 bytes", lambda t, own: t.replace("[log]", "[log]\nlevel = " + "x" * 100_000), []),
    ("bytes that are no text", lambda t, own: t.replace("[log]", "[log]\n\x01\x02\udcff\udcfe"), []),
]
SPECIAL = {
    "broker-gw": [
        ("no regions", lambda t, own: re.sub(r"^regions = .*$", "regions =", t, flags=re.M), ["regions"]),
        ("a region of upper case", lambda t, own: re.sub(r"^regions = .*$", "regions = R1", t, flags=re.M), ["R1"]),
        ("a time without a unit that is known", lambda t, own: t.replace("[gateway]", "[gateway]\nverdict_timeout = 2 fortnights"), ["verdict_timeout"]),
        ("a broker's address of another kind", lambda t, own: re.sub(r"^url = .*$", "url = http://127.0.0.1", t, flags=re.M), ["url"]),
        ("a tokens file that is not there", lambda t, own: re.sub(r"^tokens_file = .*$", "tokens_file = /nowhere/tokens", t, flags=re.M), ["/nowhere/tokens"]),
        ("a certificate that is not there", lambda t, own: re.sub(r"^cert = .*$", "cert = /nowhere/cert.pem", t, flags=re.M), ["/nowhere/cert.pem"]),
    ],
    "scheduler": [
        ("a strategy of no kind", lambda t, own: t + "\n[placement]\nstrategy = random\n", ["strategy", "random"]),
        ("a weight of 101", lambda t, own: t + "\n[placement]\nweight_load = 101\n", ["weight_load"]),
        ("weights of nothing", lambda t, own: t + "\n[placement]\n" + "".join(f"weight_{w} = 0\n" for w in ("cpu", "memory", "disk", "balance", "load", "failures")), ["[placement]"]),
        ("a class with a weight of 101", lambda t, own: t + "\n[placement]\nweights = batch:pack, r1/batch:cpu=101\n", ["[placement]", "r1/batch", "cpu=101", "100"]),
        ("a part of the score that there is not", lambda t, own: t + "\n[placement]\nweights = batch:colour=1\n", ["[placement]", "colour"]),
        ("an overcommit of no form", lambda t, own: t.replace("[scheduler]", "[scheduler]\novercommit_storage = fast"), ["overcommit_storage: \"fast\""]),
        ("an overcommit of 0", lambda t, own: t.replace("[scheduler]", "[scheduler]\novercommit_storage = fast=0"), ["overcommit_storage: \"fast=0\": the percentage is 1 to 10000"]),
        ("an overcommit twice", lambda t, own: t.replace("[scheduler]", "[scheduler]\novercommit_storage = fast=110, fast=120"), ["\"fast\" is there twice"]),
        ("no broker", lambda t, own: re.sub(r"^url = .*$", "url =", t, flags=re.M), ["url"]),
        ("a region twice", lambda t, own: re.sub(r"^regions = .*$", "regions = r1, r1", t, flags=re.M), ["r1"]),
    ],
    "event-router": [
        ("a window below 0", lambda t, own: t.replace("[router]", "[router]\nwindow = -1"), ["window"]),
        ("a heartbeat of no time", lambda t, own: t.replace("[router]", "[router]\nheartbeat = 0"), ["heartbeat"]),
        ("no address to listen on", lambda t, own: re.sub(r"(\[router\](?:\n.*)*?\nlisten =).*", r"\1", t), ["listen"]),
        ("a key that is not there", lambda t, own: re.sub(r"^key = .*$", "key = /nowhere/key.pem", t, flags=re.M), ["/nowhere/key.pem"]),
    ],
    "host-agent": [
        ("no routers", lambda t, own: re.sub(r"^routers = .*$", "routers =", t, flags=re.M), ["routers"]),
        ("a router without a port", lambda t, own: re.sub(r"^routers = .*$", "routers = 127.0.0.1", t, flags=re.M), ["routers"]),
        ("a subnet that is none", lambda t, own: re.sub(r"^subnet = .*$", "subnet = 10.0.0.0/99", t, flags=re.M), ["subnet"]),
        ("a bridge's name of 16 bytes", lambda t, own: re.sub(r"^bridge = .*$", "bridge = " + "b" * 16, t, flags=re.M), ["bridge"]),
        ("memory below 0", lambda t, own: t.replace("[agent]", "[agent]\nmemory = -1G"), ["memory"]),
        ("memory that overflows", lambda t, own: t.replace("[agent]", "[agent]\nmemory = 99999999999T"), ["memory"]),
        ("a label without a value", lambda t, own: re.sub(r"^labels = .*$", "labels = alone", t, flags=re.M), ["labels"]),
        ("a taint without a key", lambda t, own: t.replace("[agent]", "[agent]\ntaints = =alone"), ["taints"]),
        ("a storage class without a directory", lambda t, own: t + "\n[storage]\nclasses = fast\n", ["classes in [storage]: \"fast\" is not of the form"]),
        ("a storage class in a relative directory", lambda t, own: t + "\n[storage]\nclasses = fast=srv/fast\n", ["\"fast=srv/fast\""]),
        ("a storage class of upper case", lambda t, own: t + "\n[storage]\nclasses = Fast=/srv/fast\n", ["\"Fast\" is not a name"]),
        ("a storage class of no size", lambda t, own: t + "\n[storage]\nclasses = fast=/srv/fast:much\n", ["\"fast=/srv/fast:much\""]),
        ("a storage class of 1000 bytes", lambda t, own: t + "\n[storage]\nclasses = fast=/srv/fast:1000\n", ["1048576"]),
        ("a storage class twice", lambda t, own: t + "\n[storage]\nclasses = fast=/srv/a fast=/srv/b\n", ["\"fast=/srv/b\" has the name or the directory of \"fast=/srv/a\""]),
        ("two storage classes in one directory", lambda t, own: t + "\n[storage]\nclasses = a=/srv/x b=/srv/x/\n", ["has the name or the directory"]),
        ("nine storage classes", lambda t, own: t + "\n[storage]\nclasses = " + " ".join(f"c{i}=/srv/{i}" for i in range(9)) + "\n", ["9, at most 8"]),
        ("a host's name of upper case", lambda t, own: re.sub(r"^host = .*$", "host = H1", t, flags=re.M), ["H1"]),
        ("an interface handed out twice", lambda t, own: t + "\n[network]\nsriov = eth1, eth1\n", ["sriov", "eth1"]),
        ("an interface's name of 16 bytes", lambda t, own: t + "\n[network]\nmacvlan = " + "m" * 16 + "\n", ["macvlan"]),
        ("a macvlan without addresses", lambda t, own: t + "\n[network]\nmacvlan = eth1\n", ["macvlan_subnet"]),
        ("addresses that are no range", lambda t, own: t + "\n[network]\nsriov = eth1\nsriov_subnet = 10.1.0.0/16\nsriov_addresses = 10.1.0.5\n", ["sriov_addresses"]),
        ("an overlay's file that is not there", lambda t, own: t + "\n[network]\noverlay = /nowhere.conflist\n", ["overlay", "/nowhere.conflist"]),
        ("an overlay's file that is no list", lambda t, own: t + "\n[network]\noverlay = /proc/self/cmdline\n", ["overlay"]),
        ("a capacity below 0", lambda t, own: t + "\n[network]\ncapacity = -1\n", ["capacity"]),
        ("a relative state directory", lambda t, own: re.sub(r"^state_dir = .*$", "state_dir = here", t, flags=re.M), ["state_dir"]),
    ],
}


class BadConfigTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="hp-config-")
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        # The good files are those of a stack; nothing of it needs to run, but its daemons must have been configured once.
        stack = Stack(hosts=1)
        cls.addClassCleanup(stack.down)
        stack.up()
        cls.good = {}
        for role, name in DAEMONS.items():
            with open(os.path.join(stack.directory, "conf", name + ".ini")) as f:
                cls.good[role] = f.read()

    def check(self, role, text=None, *options):
        path = os.path.join(self.directory, f"{role}.ini")
        with open(path, "w", errors="surrogateescape") as f:
            f.write(self.good[role] if text is None else text)
        return subprocess.run([program(f"harpoon-{role}"), "--config", path, "--check-config", *options], capture_output=True, text=True,
                              errors="replace", timeout=20, check=False)

    def refuse(self, done, words):
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertTrue(done.stderr.strip(), "it says why")
        if words:
            self.assertTrue(any(w in done.stderr for w in words), f"one of {words} in: {done.stderr[:2000]}")

    def test_good_files_are_good(self):
        for role in DAEMONS:
            with self.subTest(role):
                done = self.check(role)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_errors_name_file_and_line(self):
        for role in DAEMONS:
            with self.subTest(role):
                text = self.good[role].replace("[log]", "[log]\ncolour = red")
                line = text.split("colour")[0].count("\n") + 1
                self.assertIn(f"{role}.ini:{line}", self.check(role, text).stderr)


def add(role, name, test):
    setattr(BadConfigTest, f"test_{role}_{name}".replace(" ", "_").replace("-", "_").replace(",", "").replace("=", "equals"), test)


for a_role, own in OWN.items():
    for case_name, change, words in COMMON + SPECIAL[a_role]:
        def broken(self, role=a_role, own=own, change=change, words=words):
            text = change(self.good[role], own)
            self.assertNotEqual(text, self.good[role], "the case changes something")
            self.refuse(self.check(role, text), words)
        add(a_role, case_name, broken)

    def not_there(self, role=a_role):
        done = subprocess.run([program(f"harpoon-{role}"), "--config", "/nowhere/x.ini", "--check-config"], capture_output=True, text=True, timeout=20,
                              check=False)
        self.refuse(done, ["/nowhere/x.ini"])
    add(a_role, "a file that is not there", not_there)

    def bad_set(self, role=a_role):
        for option in ("log.level", "nonsense.key=1", "log.colour=red", "=", ""):
            with self.subTest(option):
                self.refuse(self.check(role, None, "--set", option), [])
    add(a_role, "a bad set", bad_set)

    def unknown_option(self, role=a_role):
        self.refuse(self.check(role, None, "--no-such-option"), [])
    add(a_role, "an unknown option", unknown_option)


if __name__ == "__main__":
    unittest.main()
