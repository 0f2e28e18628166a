"""One call of a class fails, once, inside a daemon of a stack: the test's side of tests/lib/faults.c."""
import mmap
import os
import struct
import subprocess
import threading
import time

import machine
from paths import BUILD

LIBRARY = os.path.join(BUILD, "tests/lib/libharpoon-faults.so")
CLASSES = ["none", "alloc", "file_write", "sync", "socket_send", "socket_recv", "amqp_send", "amqp_drop", "amqp_recv", "amqp_encode",
           "sql_before", "sql_after", "sqlite"]  # as enum fault
# struct control, piece by piece
HEAD = struct.Struct("=iiq16q")
WHERE, DIED = (HEAD.size, 16384), (HEAD.size + 16384, 2048)
NOTE = struct.Struct("=ii")
NOTE_AT = sum(DIED)
WANTED_MAX = 64
WANTED = struct.Struct(f"={WANTED_MAX}Q")
WANTED_AT = NOTE_AT + NOTE.size
SITES_MAX = 1 << 14
SITE_FRAMES = 12
SITE = struct.Struct(f"=Q{SITE_FRAMES}I")
SITES_AT = WANTED_AT + WANTED.size


class Control:
    """The memory shared with one daemon; it outlives the daemon."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(SITES_AT + SITE.size * SITES_MAX))
        with open(path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 0)

    def fields(self):
        return HEAD.unpack_from(self.memory)

    def arm(self, kind, countdown, sites=()):
        """The countdown-th call from now; with 0 the next one from each of the sites."""
        self.disarm()
        self.memory[WHERE[0]:sum(DIED)] = bytes(WHERE[1] + DIED[1])
        struct.pack_into("=q", self.memory, 8, countdown)
        WANTED.pack_into(self.memory, WANTED_AT, *sites, *[0] * (WANTED_MAX - len(sites)))
        struct.pack_into("=i", self.memory, 0, CLASSES.index(kind))

    def disarm(self):
        struct.pack_into("=i", self.memory, 0, 0)

    @property
    def fired(self):
        return self.fields()[1]

    def counts(self):
        """{class: calls so far}"""
        return dict(zip(CLASSES[1:], self.fields()[4:]))

    def note(self, kind, own=False):
        """From now on the sites from which calls of that class come are noted, by the program's own frames only if so wanted; those before are forgotten."""
        NOTE.pack_into(self.memory, NOTE_AT, CLASSES.index("none"), own)
        self.memory[SITES_AT:] = bytes(SITE.size * SITES_MAX)
        struct.pack_into("=i", self.memory, NOTE_AT, CLASSES.index(kind))

    def sites(self):
        """{site: the program's own return addresses among its frames, innermost first}"""
        return {site: tuple(f for f in own if f) for site, *own in SITE.iter_unpack(self.memory[SITES_AT:]) if site}

    def wanted(self):
        """The armed sites that have not failed."""
        return {s for s in WANTED.unpack_from(self.memory, WANTED_AT) if s}

    def text(self, at, size):
        return self.memory[at:at + size].split(b"\0", 1)[0].decode(errors="replace")

    @property
    def where(self):
        """Of each call that failed: its places, innermost first."""
        return [places(call) for call in self.text(*WHERE).split("\n\n") if call]

    @property
    def died(self):
        """"" or how: the signal, then where."""
        first, _, rest = self.text(*DIED).partition("\n")
        return "\n".join([first, *places(rest)]) if first else ""


def places(text):
    """"program+0xOFF" lines as functions and lines of the source, for our own programs."""
    found = []
    for line in text.splitlines():
        module, _, offset = line.rpartition("+")
        path = os.path.join(BUILD, module)
        if offset.startswith("0x") and len(offset) > 2 and os.path.exists(path):  # the last line of a long text may be cut
            out = subprocess.run(["addr2line", "-fpse", path, hex(int(offset, 16) - 1)], capture_output=True, text=True, check=False).stdout.strip()
            found.append(out or line)
        else:
            found.append(line)
    return found


def names(program, sites):
    """{site: the program's functions that it is in, innermost first, with "<" between}: what inlining and other lines do not change."""
    addresses = sorted({f for own in sites.values() for f in own})
    asked = "".join(f"{f - 1:#x}\n" for f in addresses)
    out = subprocess.run(["addr2line", "-afie", program], input=asked, capture_output=True, text=True, check=True).stdout
    functions = {}
    for line in out.splitlines():
        if line.startswith("0x"):
            at = functions.setdefault(int(line, 16) + 1, [])
        elif ":" not in line:
            at.append(line)
    return {site: "<".join(name for f in own for name in functions[f]) for site, own in sites.items()}


def prepare(stack, names):
    """Before the first `up`: {daemon: Control}; the named daemons will load the library."""
    controls = {}
    os.makedirs(os.path.join(stack.directory, "conf"), exist_ok=True)
    for name in names:
        control = controls[name] = Control(os.path.join(stack.directory, f"conf/{name}.faults"))
        with open(os.path.join(stack.directory, f"conf/{name}.env"), "w") as f:
            f.write(f"LD_PRELOAD={LIBRARY}\nHARPOON_FAULTS={control.path}\n")
    return controls


class Supervisor:
    """Starts daemons again that end, as a service manager would, and remembers that it did."""

    def __init__(self, stack, names):
        self.stack, self.names = stack, names
        self.restarts = {n: 0 for n in names}
        self.pids = {}
        self.lock = threading.Lock()  # held by whoever starts and stops on purpose
        self.look()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def look(self):
        pids = self.stack.pids()
        self.pids = {n: pids[n] for n in self.names}

    def run(self):
        while not self.stopping.wait(0.02):
            with self.lock:
                gone = [n for n, p in self.pids.items() if p[0] is None or machine.identity(p[0]) != p]
                for name in gone:
                    self.restarts[name] += 1
                    self.start(name)
                if gone:
                    self.look()

    def start(self, name):
        """Until it runs: threads of the one before may still end, and one may end before it is seen."""
        end = time.monotonic() + 30
        while True:
            try:
                self.stack.command("start", name)
                return
            except AssertionError:
                if self.stack.status()[name]["running"] and (self.pids[name][0] is None or machine.identity(self.pids[name][0]) is None):
                    return  # it is the new one
                if time.monotonic() > end:
                    raise

    def stop(self):
        self.stopping.set()
        self.thread.join()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid):
    """Of a process, in bytes: resident; proportional, shared pages counted by their share; private, in no other process."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        kib = {key: int(rest.split()[0]) for key, rest in (line.split(":", 1) for line in list(f)[1:])}
    return {"resident": kib["Rss"] << 10, "proportional": kib["Pss"] << 10, "private": (kib["Private_Clean"] + kib["Private_Dirty"]) << 10}


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * mmap.PAGESIZE


def settle(read, seconds=5):
    """The value of read() once it has been the same for half a second."""
    end, value, since = time.monotonic() + seconds, read(), time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < 0.5:
        now = read()
        if now != value:
            value, since = now, time.monotonic()
        time.sleep(0.05)
    return value
