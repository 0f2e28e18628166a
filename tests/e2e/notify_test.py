"""What systemd is told: ready, alive, stopping. A scheduler is alive when all its regions are; one that hangs leaves the others alone."""
import contextlib
import ctypes
import os
import queue
import socket
import tempfile
import threading
import time
import uuid

from api import container_pb2
from harness import StackTest, image

WATCHDOG_SECONDS = 0.8
DAEMONS = ["sched-1", "gw-1", "r1-router-1", "r1-h1"]
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


def ptrace(request, tid):
    if LIBC.ptrace(request, tid, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


@contextlib.contextmanager
def held(tid):
    """One thread stands still; the others of its process do not notice."""
    ptrace(PTRACE_SEIZE, tid)
    ptrace(PTRACE_INTERRUPT, tid)
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        ptrace(PTRACE_DETACH, tid)


def thread(pid, name):
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm") as f:
            if f.read().strip() == name:
                return int(tid)
    raise AssertionError(f"process {pid} has no thread {name}")


class NotifyTest(StackTest):
    shape = {"hosts": 1, "regions": 2}

    @classmethod
    def prepare(cls):
        cls.told, directory = {}, tempfile.mkdtemp(dir=cls.stack.directory)
        os.makedirs(os.path.join(cls.stack.directory, "conf"))
        for name in DAEMONS:
            path = os.path.join(directory, name)
            cls.told[name] = cls.listen(path)
            with open(os.path.join(cls.stack.directory, "conf", name + ".env"), "w") as f:
                f.write(f"NOTIFY_SOCKET={path}\nWATCHDOG_USEC={int(WATCHDOG_SECONDS * 1e6)}\n")

    @classmethod
    def listen(cls, path):
        """A queue of what arrives. Somebody must always read: the sender of a datagram waits for room."""
        messages, s = queue.Queue(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind(path)

        def read():
            while (text := s.recv(4096)) != b"end":
                messages.put(text.decode())
            s.close()
        threading.Thread(target=read, daemon=True).start()

        def end():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
                own.sendto(b"end", path)
        cls.addClassCleanup(end)
        return messages

    def hears(self, name, text, seconds=20):
        """Waits until the daemon says just that."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.told[name].get(timeout=max(0.0, end - time.monotonic())) == text:
                    return
            except queue.Empty:
                self.fail(f"{name} did not say {text} in {seconds} s")

    def create(self, client):
        client.succeeded(client.create("n-" + uuid.uuid4().hex[:8], image(), network=container_pb2.NETWORK_MODE_NONE), 30)

    def test_1_each_says_that_it_is_ready_and_alive(self):
        for name in DAEMONS:
            self.hears(name, "READY=1")
            self.hears(name, "WATCHDOG=1")

    def test_2_a_region_that_hangs(self):
        """The word to systemd stops, the other region works on; then all goes on."""
        pid = self.stack.status()["sched-1"]["pid"]
        other = self.stack.client(region="r2")
        self.stack.hosts_ready(other, 1)
        told = self.told["sched-1"]
        with held(thread(pid, "r1")):
            began = time.monotonic()
            self.create(other)
            time.sleep(max(0.0, began + WATCHDOG_SECONDS - time.monotonic()))  # what was on its way has come
            while not told.empty():
                told.get()
            time.sleep(2 * WATCHDOG_SECONDS)  # the time is what is tested
            self.assertTrue(told.empty(), "systemd is told that all is well")
        self.hears("sched-1", "WATCHDOG=1")
        self.create(self.client)

    def test_3_each_says_that_it_stops(self):
        for name in DAEMONS:
            self.stack.kill(name, "TERM")
            self.hears(name, "STOPPING=1")


if __name__ == "__main__":
    import unittest
    unittest.main()
