"""deploy/quickstart and the development stack, as a stranger uses them."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import ROOT
from paths import BUILD, CLI, STACK, TOP
import machine


class QuickstartTest(unittest.TestCase):
    def test_a_container_comes_up_and_everything_goes_again(self):
        state = tempfile.mkdtemp(prefix="hp-", dir=ROOT)
        self.addCleanup(shutil.rmtree, state, ignore_errors=True)
        self.addCleanup(subprocess.run, [STACK, "--state", state, "down"], capture_output=True, check=False)

        def quickstart():
            done = subprocess.run([os.path.join(TOP, "deploy/quickstart"), "--state", state, "--build", BUILD], capture_output=True, text=True,
                                  timeout=300, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        quickstart()
        quickstart()  # finds everything there
        env = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", subprocess.run([STACK, "--state", state, "env"], capture_output=True, text=True,
                                                                           check=True).stdout, re.M))

        def harpoon(*args):
            return subprocess.run([CLI, *args], env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout
        self.assertRegex(harpoon("get", "containers"), r"hello\s+RUNNING")
        for host in ("r1-h1", "r1-h2"):
            subprocess.run([STACK, "--state", state, "kill", host], check=True, capture_output=True)
        os.kill(int(json.loads(harpoon("get", "container", "hello", "-o", "json"))["status"]["pid"]), signal.SIGKILL)
        quickstart()  # as after a reboot: the agent makes it run again, after a pause
        container = json.loads(harpoon("get", "container", "hello", "-o", "json"))
        pid = int(container["status"]["pid"])
        self.assertEqual(machine.identity(pid), (pid, int(container["status"]["pidStartTicks"])))
        self.assertNotEqual(machine.namespace(pid, "net"), machine.namespace("self", "net"))
        self.assertEqual(machine.memory_limit(pid), 96 << 20)
        self.assertEqual(machine.cpu_limit_millis(pid), 500)
        harpoon("resize", "hello", "--memory", "128Mi", "--wait")
        self.assertEqual(machine.memory_limit(pid), 128 << 20)
        self.assertEqual(machine.identity(pid), (pid, int(container["status"]["pidStartTicks"])), "the process was left alone")
        subprocess.run([STACK, "--state", state, "down"], check=True, capture_output=True)
        self.assertIsNone(machine.identity(pid))
        self.assertFalse(os.path.exists(state))
        for what in (["ip", "-o", "link"], ["mount"], ["iptables-save"]):
            out = subprocess.run(what, capture_output=True, text=True, check=False).stdout
            self.assertNotIn(state, out)


if __name__ == "__main__":
    unittest.main()
