"""Broken configuration files: each daemon says which file, line, key and limit, and exits with 2 without doing anything."""
import os
import subprocess
import tempfile
import unittest

from paths import program

GOOD = {
    "broker-gw": "[gateway]\nname = gw-1\nregions = r1\nh2c_listen = 127.0.0.1:0\n[broker]\nurl = amqp://a:b@127.0.0.1:1/v\n"
                 "[database]\nsocket = /nowhere\nname = harpoon\nuser = u\n",
    "scheduler": "[scheduler]\nname = s-1\nregions = r1\n[broker]\nurl = amqp://a:b@127.0.0.1:1/v\n"
                 "[database]\nsocket = /nowhere\nname = harpoon\nuser = u\n",
    "event-router": "[router]\nname = router-1\nregion = r1\nlisten = 127.0.0.1:0\n[broker]\nurl = amqp://a:b@127.0.0.1:1/v\n"
                    "[tls]\nca = {ca}\ncert = {ca}\nkey = {key}\n",
    "host-agent": "[agent]\nhost = h1\nregion = r1\nrouters = 127.0.0.1:1\nstate_dir = {dir}/s\nrun_dir = {dir}/r\n"
                  "[tls]\nca = {ca}\ncert = {ca}\nkey = {key}\n",
}
MAIN = {"broker-gw": "gateway", "scheduler": "scheduler", "event-router": "router", "host-agent": "agent"}

# What is added to a good file (or replaces it), and what the message must name.
BROKEN = [
    ("unknown_section", "[nope]\nx = 1\n", "nope"),
    ("unknown_key", "[{main}]\nnot_a_key = 1\n", "not_a_key"),
    ("no_equals_sign", "[{main}]\njust words\n", "line"),
    ("unclosed_section", "[{main}\nname = x\n", "line"),
    ("level_unknown", "[log]\nlevel = loud\n", "level"),
    ("format_unknown", "[log]\nformat = xml\n", "format"),
    ("metrics_address_without_port", "[metrics]\nlisten = 127.0.0.1\n", "listen"),
    ("nul_byte", "[log]\nlevel = in\0fo\n", "ini"),
]


class BrokenConfiguration(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="hp-conf-")
        cls.addClassCleanup(cls.directory.cleanup)
        ca, key = os.path.join(cls.directory.name, "ca.pem"), os.path.join(cls.directory.name, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", ca,
                        "-subj", "/CN=x", "-days", "2"], check=True, capture_output=True)
        cls.names = {"ca": ca, "key": key, "dir": cls.directory.name}

    def good(self, daemon):
        return GOOD[daemon].format(**self.names)

    def check(self, daemon, text, *options):
        path = os.path.join(self.directory.name, daemon + ".ini")
        with open(path, "w") as f:
            f.write(text)
        return subprocess.run([program("harpoon-" + daemon), "--config", path, "--check-config", *options], capture_output=True, text=True,
                              timeout=20, check=False)

    def refuse(self, daemon, text, word, *options):
        done = self.check(daemon, text, *options)
        self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
        self.assertIn(word, done.stdout + done.stderr)

    def test_file_and_line_are_named(self):
        done = self.check("scheduler", "[scheduler]\nname = s\n; a comment\nbogus = 1\n")
        self.assertEqual(done.returncode, 2)
        self.assertIn("scheduler.ini:4", done.stdout + done.stderr)
        self.assertIn("bogus", done.stdout + done.stderr)

    def test_drop_in_is_named(self):
        path = os.path.join(self.directory.name, "scheduler.ini")
        os.makedirs(path + ".d", exist_ok=True)
        drop_in = os.path.join(path + ".d", "10-x.conf")
        with open(drop_in, "w") as f:
            f.write("[log]\nlevel = shout\n")
        try:
            done = self.check("scheduler", self.good("scheduler"))
            self.assertEqual(done.returncode, 2)
            self.assertIn("10-x.conf:2", done.stdout + done.stderr)
        finally:
            os.unlink(drop_in)


def add(name, method):
    setattr(BrokenConfiguration, "test_" + name.replace("-", "_"), method)


for each in GOOD:
    add(f"{each}_good_is_accepted", lambda self, d=each: self.assertEqual(
        (lambda done: (done.returncode, done.returncode and done.stderr))(self.check(d, self.good(d))), (0, 0)))
    for what, added, says in BROKEN:
        add(f"{each}_{what}", lambda self, d=each, a=added, s=says: self.refuse(d, self.good(d) + a.format(main=MAIN[d]), s))
    add(f"{each}_missing_name", lambda self, d=each: self.refuse(
        d, "".join(line + "\n" for line in self.good(d).splitlines() if not line.startswith(("name = ", "host = "))), "name" if d != "host-agent" else "host"))
    add(f"{each}_empty_file", lambda self, d=each: self.refuse(d, "", MAIN[d]))
    add(f"{each}_set_unknown_key", lambda self, d=each: self.refuse(d, self.good(d), "nope", "--set", "log.nope=1"))
    add(f"{each}_set_without_value", lambda self, d=each: self.refuse(d, self.good(d), "--set", "--set", "log"))
    add(f"{each}_missing_file", lambda self, d=each: self.assertEqual(
        subprocess.run([program("harpoon-" + d), "--config", "/nowhere/x.ini", "--check-config"], capture_output=True, timeout=20, check=False).returncode, 2))


if __name__ == "__main__":
    unittest.main()
