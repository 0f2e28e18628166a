"""The final reading of a chaos run: the record, what really runs, and what the runtimes have logged. Nothing here asks an agent."""
import configparser
import json
import os
import signal
import time

import api
import machine
import truth
from harness import eventually
from harpoon.internal.v1 import record_pb2

PAGE = 2000
TIDY_SECONDS = 20  # hosts may still tidy up what has ended


def rows(stack, table, columns, order, key="region"):
    """All rows of a table, in pages, so that no answer becomes too large."""
    found, last = [], None
    while True:
        after = f"WHERE ({order}) > ({last})" if last else ""
        page = stack.sql(f"SELECT {order}, {columns} FROM {table} {after} ORDER BY {order} LIMIT {PAGE}")
        width = len(order.split(","))
        found += [row[width:] for row in page]
        if len(page) < PAGE:
            return found
        last = ", ".join(f"'{v}'" for v in page[-1][:width])


def regions(stack):
    found = {}
    for name, sequence, watermark, oldest in stack.sql("SELECT name, sequence, watermark, oldest FROM regions"):
        events, first, last = stack.sql(f"SELECT COUNT(*), COALESCE(MIN(sequence), 1), COALESCE(MAX(sequence), 0) FROM events WHERE region = '{name}'")[0]
        found[name] = {"sequence": int(sequence), "watermark": int(watermark), "oldest": int(oldest), "events": int(events), "first": int(first),
                       "last": int(last)}
    return found


def operations(stack):
    found = {}
    for region, project, ident, stage, active in rows(stack, "operations", "region, project, id, stage, active", "region, id"):
        found[f"projects/{project or '-'}/regions/{region}/operations/{ident}"] = {
            "stage": api.operation_pb2.Stage.Name(int(stage)).removeprefix("STAGE_"), "active": active != "0"}
    return found


def containers(stack):
    pb = api.container_pb2
    found = []
    for (text,) in rows(stack, "containers", "HEX(body)", "name"):
        record = record_pb2.ContainerRecord.FromString(bytes.fromhex(text))
        c = record.container
        desired = pb.DesiredState.Name(c.spec.desired_state).removeprefix("DESIRED_STATE_")
        found.append({"name": c.name, "uid": c.uid, "host": c.status.host, "desired": "RUNNING" if desired == "UNSPECIFIED" else desired,
                      "state": pb.ContainerState.Name(c.status.state).removeprefix("CONTAINER_STATE_"), "memory_bytes": c.spec.resources.memory_bytes})
    return found


def full_host(region, host):
    return f"regions/{region}/hosts/{host}"


def real_processes(stack, containers_of):
    """Every container of real hosts with processes, from the cgroups below the stack's own. A uid without processes is not live."""
    found = {}
    for root in machine.cgroup_roots():
        top = os.path.join(root, f"harpoon-{stack.identifier()}")
        for at, _, _ in os.walk(top):
            parts = os.path.relpath(at, top).split("/")
            if len(parts) < 2:
                continue
            try:
                with open(os.path.join(at, "cgroup.procs")) as f:
                    pids = [int(p) for p in f.read().split()]
            except OSError:
                continue
            region, host = parts[0].split("-", 1)
            for pid in pids:
                uid = next((u for u in containers_of if u in at), "/".join(parts[1:]))
                found.setdefault((region, host, uid), set()).add(pid)
    live = []
    for (region, host, uid), pids in found.items():
        alive = sorted((identity[1], pid) for pid in pids for identity in [machine.identity(pid)] if identity)
        if alive:
            live.append({"uid": uid, "host": full_host(region, host), "pid": alive[0][1], "start_ticks": alive[0][0], "running": True,
                         "memory_bytes": machine.memory_limit(alive[0][1])})
    return live


def listed(*path):
    try:
        return os.listdir(os.path.join(*path))
    except FileNotFoundError:
        return []


def mounts(pid):
    """Mount points that a process sees."""
    with open(f"/proc/{pid}/mountinfo") as f:
        return [line.split()[4] for line in f]


def owner_of_address(path):
    with open(path) as f:
        return f.readline().strip()


def traces_of(stack, process):
    """What a real host has of containers: [(what, name)], the container's uid is within the name."""
    config = configparser.ConfigParser()
    config.read(os.path.join(stack.directory, "conf", process["name"] + ".ini"))
    agent = config["agent"]
    state, run, bridge = agent["state_dir"], agent["run_dir"], agent["bridge"]
    found = [("a directory", n) for n in listed(state, "containers")] + [("a run directory", n) for n in listed(run, "c")]
    found += [("runtime state", n) for n in listed(run, "oci")] + [("a network namespace", n) for n in listed(run, "netns")]
    found += [("an unfinished file", n) for n in listed(state, "tmp")]
    addresses = os.path.join(state, "cni", "harpoon-" + bridge)
    found += [("an address", f"{n} {owner_of_address(os.path.join(addresses, n))}") for n in listed(addresses) if n[0].isdigit()]
    ports = os.path.join(state, "cni", "ports")
    found += [("a host port", f"{n} {owner_of_address(os.path.join(ports, n))}") for n in listed(ports)]
    found += [("a mount", m) for m in sorted(set(mounts("self") + mounts(process["pid"]))) if m.startswith((run + "/", state + "/")) and m != run + "/netns"]
    for root in machine.cgroup_roots():
        found += [("a cgroup", at) for at, _, _ in os.walk(root + agent["cgroup_parent"]) if at != root + agent["cgroup_parent"]]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                line = f.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if (run + "/" in line or state + "/" in line) and int(pid) != process["pid"]:
            found.append(("a process", f"{pid} {line[:300]}"))
    spare = len(listed("/sys/class/net", bridge, "brif")) - len(listed(run, "netns"))
    return found + [("an interface", f"{spare} of {bridge}, beyond its network namespaces")] * (spare > 0)


def left_behind(stack, kept):
    """What real hosts have of containers that the record does not want there: [{host, what, name}]."""
    found = []
    for process in stack.status().values():
        if process["role"] == "host-agent":
            host = full_host(process["region"], process["name"].split("-", 1)[1])
            uids = [c["uid"] for c in kept if c["host"] == host]
            found += [{"host": host, "what": what, "name": name} for what, name in traces_of(stack, process) if not any(u in name for u in uids)]
    return found


def simulated(stack, region, process):
    """What a simulated fleet has, from its own memory; it must be what its log says. Gives (live, calls)."""
    log = process["runtime_log"]
    path = log.removesuffix(".jsonl") + ".json"
    before = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
    os.kill(process["pid"], signal.SIGUSR1)
    eventually(lambda: os.path.exists(path) and os.stat(path).st_mtime_ns != before, 30, f"{process['name']} to write its state")
    with open(path) as f:
        state = json.load(f)
    replay = truth.Simulated(log)
    said = {(c["host"], c["uid"]): (c["running"], c["pid"]) for c in state["containers"]}
    logged = {k: (c["running"], c["pid"]) for k, c in replay.containers.items()}
    if said != logged:
        raise AssertionError(f"{process['name']}: its log and its memory differ: {sorted(set(said.items()) ^ set(logged.items()))[:10]}")
    live = [{"uid": c["uid"], "host": full_host(region, c["host"]), "pid": c["pid"], "start_ticks": c["pid"], "running": c["running"],
             "memory_bytes": c["memory_bytes"]} for c in state["containers"]]
    calls, limits = [], {}
    for line in truth.lines(log):
        if line["op"] == "end":
            before, limits[line["uid"]] = limits.get(line["uid"]), (line["cpu_millis"], line["memory_bytes"])
            calls.append({"t": line["t"], "host": full_host(region, line["host"]), "uid": line["uid"], "generation": line["generation"], "verb": line["verb"],
                          "ok": line["ok"], "changed": line["verb"] != "resize" or before != limits[line["uid"]]})
    return live, calls


def real_calls(region, process):
    """State-changing calls of a real runtime. They know no generation; a removal counts from its beginning, for it may have had its effect when it was killed."""
    host = full_host(region, process["name"].split("-", 1)[1])
    return [{"t": line["t"], "host": host, "uid": line["id"], "generation": None, "verb": verb, "ok": line.get("status", 0) == 0, "changed": True}
            for line in truth.lines(process["runtime_log"]) for op, verb in [{"create": ("end", "create"), "delete": ("begin", "remove")}.get(line["verb"], ("", ""))]
            if line["op"] == op]


def read(stack):
    """The final reading as checker.py wants it; raises when any part of it cannot be had."""
    kept = containers(stack)
    uids = {c["uid"] for c in kept}
    live, calls, logs = real_processes(stack, uids), [], {}
    for process in stack.status().values():
        if "runtime_log" not in process:
            continue
        if not process["running"]:
            raise AssertionError(f"{process['name']} does not run")
        if process["role"] == "fleet-sim":
            more, called = simulated(stack, process["region"], process)
            live += more
            calls += called
            logs.update({full_host(process["region"], f"sim-{i + 1}"): True for i in range(stack.shape["sim_hosts"])})
        elif os.path.exists(process["runtime_log"]):
            calls += real_calls(process["region"], process)
            logs[full_host(process["region"], process["name"].split("-", 1)[1])] = False
    calls.sort(key=lambda c: c["t"])
    deadline = time.monotonic() + TIDY_SECONDS
    while (left := left_behind(stack, kept)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return {"left": left, "regions": regions(stack), "operations": operations(stack), "containers": kept, "live": live, "logs": logs, "calls": calls}


def settled(stack):
    """"" when the record is at rest: nothing active, everything told. Otherwise what is not."""
    found = []
    for name, active in stack.sql("SELECT region, COUNT(*) FROM operations WHERE active <> 0 GROUP BY region"):
        found.append(f"{name}: {active} operations are active")
    for name, sequence, watermark in stack.sql("SELECT name, sequence, watermark FROM regions WHERE sequence <> watermark"):
        found.append(f"{name}: told up to {watermark} of {sequence}")
    return "; ".join(found)


def await_rest(stack, seconds, quiet=3):
    """Waits until the record is at rest and has been so, unchanged, for `quiet` seconds. Gives "" or what was not at rest in the end."""
    deadline = time.monotonic() + seconds
    last, since, why = None, 0.0, "not looked"
    while time.monotonic() < deadline:
        try:
            why = settled(stack)
            now = stack.sql("SELECT name, sequence, revision FROM regions")
        except Exception as e:  # noqa: BLE001: the database may not be up yet
            why, now = f"the record cannot be read: {e}"[:300], None
        if why or now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= quiet:
            return ""
        time.sleep(0.25)
    return why or "the record goes on changing"
