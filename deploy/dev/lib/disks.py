"""Small disks in memory for what a server stores, so that a test can fill one: `stack up --db-size 64m --broker-size 96m`."""
import os
import re
import subprocess

from procs import Failure

UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
MIN_BYTES, MAX_BYTES = 64 << 20, 4 << 30
BALLAST = "ballast"


def size_of(text):
    """64m → 67108864."""
    m = re.fullmatch(r"(\d+)([kmg]?)", text.lower())
    size = int(m[1]) * UNITS[m[2]] if m else 0
    if not MIN_BYTES <= size <= MAX_BYTES:
        raise Failure(f"size {text}: expected a number with k, m or g, from 64m to 4g")
    return size


def mount(directory, size):
    """Puts a disk of `size` bytes at the directory, unless it is there. Gives True when it is new, and so empty."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    if os.path.ismount(directory):
        return False
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "harpoon", directory], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"mounting a disk at {directory}: {done.stderr.strip()}")
    return True


def fill(directory, leave):
    """Fills the disk at the directory with a file until `leave` bytes are free."""
    if not os.path.ismount(directory):
        raise Failure(f"{directory} is no small disk: start the stack with --db-size or --broker-size")
    space = os.statvfs(directory)
    want = space.f_bavail * space.f_frsize - leave
    if want > 0:
        path = os.path.join(directory, BALLAST)
        with open(path, "ab") as f:
            os.posix_fallocate(f.fileno(), f.tell(), want)


def unfill(directory):
    try:
        os.unlink(os.path.join(directory, BALLAST))
    except FileNotFoundError:
        pass
