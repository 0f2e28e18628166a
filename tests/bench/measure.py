"""What comparisons share: CPU time, memory and cores of processes, builds of peers, free ports, ratios with intervals."""
import contextlib
import glob
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from paths import BUILD

TICK = os.sysconf("SC_CLK_TCK")
# Two-sided 95 % of Student's t, by degrees of freedom; 1.96 beyond.
T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 11: 2.20, 12: 2.18, 14: 2.14, 19: 2.09}


class Missing(Exception):
    """A peer, or what it is built of, is not installed."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def program(name, package):
    """The path of an installed program; Missing says of which package it is."""
    path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{name} is not installed (Debian package {package}): deploy/install-deps --bench")
    return path


def build(name):
    """Builds one program of tests/bench and gives its path."""
    target = f"tests/bench/{name}"
    known = subprocess.run(["ninja", "-C", BUILD, "-t", "query", target], capture_output=True, check=False)
    if known.returncode != 0:
        raise Missing(f"{name} is not part of {BUILD}: deploy/install-deps --bench, then meson setup --reconfigure {BUILD}")
    done = subprocess.run(["ninja", "-C", BUILD, target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} cannot be built:\n{done.stdout[-4000:]}")
    return os.path.join(BUILD, target)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port, host="127.0.0.1"):
    with socket.socket() as s:
        return s.connect_ex((host, port)) == 0


# ---- processes ----

def stat(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()


def cpu_seconds(pid):
    """User and system time of a process with all its threads, the ended ones too."""
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICK


def children_seconds():
    """CPU time of this program's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family(pid):
    """The process and its descendants."""
    found = [pid]
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(task) as f:
            for child in f.read().split():
                found += family(int(child))
    return found


class Cpu:
    """CPU seconds of named processes since the last look: {name: pid or list of pids}."""

    def __init__(self, processes):
        self.processes = {name: p if isinstance(p, list) else [p] for name, p in processes.items()}
        self.before = self.now()

    def now(self):
        return {name: sum(cpu_seconds(p) for p in pids) for name, pids in self.processes.items()}

    def spent(self):
        now = self.now()
        spent = {name: now[name] - self.before[name] for name in now}
        self.before = now
        return spent


def memory_bytes(pids):
    """What the processes have resident, shared pages counted by their share."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:")) * 1024
    return total


def slab_bytes():
    """Kernel memory in slabs: sockets and their buffers' heads are there."""
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Slab:")) * 1024


def cores():
    """(the core for what is measured, the core for everything that loads it); the same one twice on a machine with one."""
    have = sorted(os.sched_getaffinity(0))
    return have[-1], have[0]


def pin(pids, *to):
    """Lets the processes run on these cores only."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), to)


def raise_files():
    """As many open files as may be; for a child, before it runs."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start(argv, core=None, **kwargs):
    """Starts a process, on one core when told."""
    return subprocess.Popen(argv if core is None else ["taskset", "-c", str(core), *argv], **kwargs)


def end(process):
    if process and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds} s for {what}")
        time.sleep(0.02)


# ---- figures ----

def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values):
    return percentile(values, 0.5)


def rounded(value, digits=4):
    return float(f"{value:.{digits}g}")


def ratio(ours, theirs):
    """{"ratio", "low", "high"}: geometric mean of ours / theirs, pair by pair of one run, and its 95 % interval; no interval of a single pair."""
    logs = [math.log(a / b) for a, b in zip(ours, theirs, strict=True)]
    mean = sum(logs) / len(logs)
    if len(logs) < 2:
        return {"ratio": rounded(math.exp(mean), 3), "low": None, "high": None}
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logs) / (len(logs) - 1))
    half = T95.get(len(logs) - 1, 1.96) * deviation / math.sqrt(len(logs))
    return {"ratio": rounded(math.exp(mean), 3), "low": rounded(math.exp(mean - half), 3), "high": rounded(math.exp(mean + half), 3)}


def now():
    return time.monotonic()


def pause(seconds):
    time.sleep(seconds)  # the time itself is what is measured
