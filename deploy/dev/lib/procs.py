"""Detached processes that are remembered by pid and start time, so that a pid used anew is never mistaken for ours."""
import os
import re
import signal
import subprocess
import time


class Failure(Exception):
    """Something a user must hear about, in one sentence."""


def proc_stat(pid):
    """(state, start time in ticks) of a process, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rsplit(b")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None
    return fields[0].decode(), int(fields[19])


def alive(record):
    """True while the very process of the record lives. A zombie is dead, but not while threads of it still end: until then its sockets are open."""
    if not record or not record.get("pid"):
        return False
    stat = proc_stat(record["pid"])
    return bool(stat) and stat[1] == record["start_ticks"] and (stat[0] not in "ZX" or threads_end(record["pid"]))


def threads_end(pid):
    """True while a dead process has threads that have not ended."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    states = [proc_stat(f"{pid}/task/{t}") for t in threads]
    return any(s and s[0] not in "ZX" for s in states)


def spawn(argv, log, env=None, cwd="/", nofile=None):
    """Starts a process in a session of its own, output appended to `log`; gives its record."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "ab") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd,
                                 start_new_session=True, close_fds=True)
    child.returncode = 0  # never waited for: it outlives this program
    stat = proc_stat(child.pid)
    return {"pid": child.pid, "start_ticks": stat[1] if stat else 0}


def send(record, number):
    if alive(record):
        try:
            os.kill(record["pid"], number)
        except ProcessLookupError:
            pass


def wait_gone(records, seconds):
    """Waits until none of the records lives; gives those that still do."""
    deadline = time.monotonic() + seconds
    while True:
        left = [r for r in records if alive(r)]
        if not left or time.monotonic() >= deadline:
            return left
        time.sleep(0.02)


def stop(records, seconds):
    """SIGTERM, and SIGKILL for those that need longer than `seconds`."""
    for r in records:
        send(r, signal.SIGTERM)
        send(r, signal.SIGCONT)
    for r in wait_gone(records, seconds):
        send(r, signal.SIGKILL)
    return wait_gone(records, 5)


def wait_for(what, record, log, condition, seconds):
    """Waits until condition() is true while the process lives; otherwise fails with the end of its log."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not alive(record):
            raise Failure(f"{what} ended before it was ready; its last words, from {log}:\n{tail(log)}")
        if time.monotonic() >= deadline:
            raise Failure(f"{what} was not ready after {seconds} s; its last words, from {log}:\n{tail(log)}")
        time.sleep(0.02)


def tail(path, lines=20):
    try:
        with open(path, "rb") as f:
            f.seek(0, os.SEEK_END)
            f.seek(max(0, f.tell() - 16384))
            text = f.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join("    " + line for line in text.splitlines()[-lines:])


def signal_number(text):
    """SIGTERM, TERM, 15 → 15."""
    if text.isdigit():
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else "SIG" + name
    if not re.fullmatch(r"SIG[A-Z0-9]+", name) or not hasattr(signal, name):
        raise Failure(f"{text} is no signal")
    return int(getattr(signal, name))
