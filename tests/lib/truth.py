"""What really happened to containers: the record that the runtimes write, apart from what agents claim (`stack up --runtime-log`).

STATE/truth/NAME.jsonl, one JSON object a line, each written before what it says has any effect (begin) or after it had (end), never lost by a kill of the writer.

Simulated hosts (harpoon-fleet-sim --runtime-log FILE; NAME is r1-sim). The file is also what the simulated machines remember: started again, the program reads it,
and finds the containers running that ran, with their pids.

    {"t":NS,"op":"boot","pid":PID,"hosts":N}                                  the program (re)started; jobs that had begun and not ended are cut off
    {"t":NS,"op":"begin","job":N,"host":"sim-1","uid":U,"verb":VERB,"generation":G,"name":"projects/…","start":true}
    {"t":NS,"op":"end","job":N,"host":"sim-1","uid":U,"verb":VERB,"generation":G,"ok":true,"error":"",
         "exists":true,"complete":true,"running":true,"pid":P,"cpu_millis":C,"memory_bytes":M}
    {"t":NS,"op":"exit","host":"sim-1","uid":U,"pid":P,"code":1}              the process ended by itself

`t` is CLOCK_MONOTONIC of the machine, in nanoseconds: one clock for all files. VERB: create, start, stop, restart, remove, resize. Questions (inspect, probe) change nothing and
are not written. `generation` is that of the job (0: the job has none). A create that was cut off leaves a container that exists and is not complete, as a real one may.
SIGUSR1, and the end of the program, write STATE/truth/NAME.json, by rename, which says the same from the program's memory:

    {"t":NS,"lines":LINES_OF_THE_LOG,"containers":[{"host","uid","name","generation","complete","running","pid","cpu_millis","memory_bytes"},…]}

Real hosts (tests/lib/oci_runtime_log.c between the agent and crun or runc; NAME is r1-h1; "id" is the uid):

    {"t":NS,"op":"begin","call":CALL,"host":"r1-h1","id":ID,"verb":"create|delete|exec|…","pid":PID_OF_THE_CALL,"argv":[…]}
    {"t":NS,"op":"end","call":CALL,"host":"r1-h1","id":ID,"verb":…,"status":EXIT_CODE,"signal":0,"container_pid":PID,"container_start_ticks":T}

The agent starts what was created through its exec fifo, ends processes by pid, and resizes in the cgroup: for those ask the kernel (machine.py). So a container's life is one create, and
one delete. `call` names a call (unique in the file); container_pid is the container's first process after create or start (0: unknown), from the runtime's own state. A line without its end:
the call was killed, or is still under way.
"""
import json


def lines(path):
    """All whole lines of a record, in order."""
    with open(path, "rb") as f:
        for line in f:
            if line.endswith(b"\n"):
                yield json.loads(line)


class Simulated:
    """Replays the record of a simulated fleet."""

    def __init__(self, path):
        self.containers = {}  # (host, uid): state after its last line
        self.calls = {}  # (host, uid, generation, verb): how often the runtime was made to change something, and succeeded
        self.open = {}  # job: its begin
        self.pids = {}  # (host, uid): every pid it ever had, in order
        self.boots = 0
        self.count = 0
        for line in lines(path):
            self.count += 1
            getattr(self, line["op"])(line)

    def boot(self, line):
        self.boots += 1
        for begun in self.open.values():
            if begun["verb"] == "create":
                self.containers.setdefault((begun["host"], begun["uid"]), {
                    "host": begun["host"], "uid": begun["uid"], "name": begun["name"], "generation": begun["generation"],
                    "complete": False, "running": False, "pid": 0})
        self.open = {}

    def begin(self, line):
        self.open[line["job"]] = line

    def end(self, line):
        begun = self.open.pop(line["job"])
        key = (line["host"], line["uid"])
        if line["ok"]:
            call = (*key, line["generation"], line["verb"])
            self.calls[call] = self.calls.get(call, 0) + 1
        if not line["exists"]:
            self.containers.pop(key, None)
            return
        old = self.containers.get(key, {})
        made = line["verb"] == "create" and line["ok"]
        self.containers[key] = {
            "host": line["host"], "uid": line["uid"], "name": begun["name"] or old.get("name", ""),
            "generation": line["generation"] if made else old.get("generation", line["generation"]), "complete": line["complete"],
            "running": line["running"], "pid": line["pid"], "cpu_millis": line["cpu_millis"], "memory_bytes": line["memory_bytes"]}
        pids = self.pids.setdefault(key, [])
        if line["pid"] and line["pid"] not in pids:
            pids.append(line["pid"])

    def exit(self, line):
        c = self.containers.get((line["host"], line["uid"]))
        if c:
            c.update(running=False, pid=0)


class Real:
    """Replays the record of a real host."""

    def __init__(self, path):
        self.created = {}  # id: [(pid, start ticks) of each create that went through]
        self.deleted = {}  # id: how many deletes went through
        self.open = {}  # call: its begin
        for line in lines(path):
            if line["op"] == "begin":
                self.open[line["call"]] = line
                continue
            self.open.pop(line["call"])
            if line["status"] == 0 and line["verb"] == "create":
                self.created.setdefault(line["id"], []).append((line["container_pid"], line["container_start_ticks"]))
            elif line["status"] == 0 and line["verb"] == "delete":
                self.deleted[line["id"]] = self.deleted.get(line["id"], 0) + 1
