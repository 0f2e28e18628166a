"""The history of a chaos run: one file of JSON lines for each process that takes part, so that nothing which dies takes another's lines with it."""
import glob
import json
import os
import threading
import time


class Recorder:
    """Writes the lines of one process; any thread. Each line has the wall time, the writer and a kind."""

    def __init__(self, directory, who):
        self.who = who
        self.lock = threading.Lock()
        self.file = open(os.path.join(directory, who + ".jsonl"), "a", buffering=1)

    def write(self, kind, /, **facts):
        line = json.dumps({"t": round(time.time(), 4), "who": self.who, "k": kind, **facts}, separators=(",", ":"))
        with self.lock:
            if not self.file.closed:
                self.file.write(line + "\n")

    def close(self):
        with self.lock:
            self.file.close()


def read(directory):
    """All lines of all processes, by time. A line that was cut off by its writer's end is left out."""
    lines = []
    for path in sorted(glob.glob(os.path.join(directory, "*.jsonl"))):
        with open(path, errors="replace") as f:
            for text in f:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and "k" in line:
                    lines.append(line)
    lines.sort(key=lambda line: line["t"])
    return lines
