"""A daemon dies just before one call that changes the machine: the test's side of tests/lib/deaths.c."""
import mmap
import os
import struct

from paths import BUILD

LIBRARY = os.path.join(BUILD, "tests/lib/libharpoon-deaths.so")
HEAD = struct.Struct("=qi60s")
TRACE = 1 << 18


class Control:
    """The memory shared with the daemon; it outlives the daemon."""

    def __init__(self, path):
        with open(path, "wb") as f:
            f.write(bytes(HEAD.size + TRACE + mmap.PAGESIZE))
        with open(path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 0)
        self.environment = {"LD_PRELOAD": LIBRARY, "HARPOON_DEATHS": path}

    def arm(self, at, match=""):
        """To die before the `at`th call from now that has `match` in its line; 0: not. The trace begins anew."""
        HEAD.pack_into(self.memory, 0, 0, 0, match.encode())
        self.memory[HEAD.size:HEAD.size + TRACE] = bytes(TRACE)
        struct.pack_into("=q", self.memory, 0, at)

    def trace(self):
        """What was called since, in order: "call path"."""
        used = min(HEAD.unpack_from(self.memory)[1], TRACE)
        return self.memory[HEAD.size:HEAD.size + used].decode(errors="replace").splitlines()
