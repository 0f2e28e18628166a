"""Every allocation, write, fsync, AMQP and SQL call of each daemon fails once: while a container is created, resized and deleted, one call of one class fails in a daemon, chosen by a
countdown or by its place. The client repeats with the same request_id, a daemon that ends is started again, and in the end each operation has ended, each container has been made exactly once and is gone
without a trace, and what ran before was not touched.

    tests/run chaos -k Faults                          the share of every run: of each class in each daemon the second and the fifth call, the second while it starts; of memory the places in SHARE
    tests/e2e/chaos_faults_test.py --all [WORD...]     every point; only of daemons and classes that are named (sched-1 sql,amqp start)
    tests/e2e/chaos_faults_test.py --points N [WORD...]    N points of each class in each daemon
    tests/e2e/chaos_faults_test.py --at N WORD...      the Nth point alone; or the places in whose names it is
    … --seed N                                         which N points
    … --part I/N                                       the Ith of N shares of these points, of the same ones in each run of a build: a long run in N pieces

A point is one call of a scenario (a create, a resize and a delete of a container): the first, the second, … call of its class in its daemon. Allocations repeat the same places hundreds of
times, so there a point is a place: the twelve innermost return addresses, libraries included. Every distinct place from which memory was asked for in the scenario fails once, the first time
that it is come by. Its name is the functions of our program that it is in, innermost first; several may have the same. While a daemon starts, what tells places apart is its own program's frames alone; what OpenSSL does within one call from us is one place.
One scenario takes a point of each daemon, and of places up to BATCH of each; when a promise is broken, each of them fails once more alone, to know which it was.
The table has a row for each class and daemon: `known` points, how many `failed` once, and of those `ok`; how often the daemon `ended` and was started again, how many operations were `refused`,
with their cause; `unmet` were not come by again (writes coalesce, a heartbeat did not fall into the scenario), `wrong` broke a promise; `slowest` scenario, in seconds. The last line is that as JSON.
HARPOON_TRACE=1 prints the places that there are, and each point with the place of its call.
"""
import collections
import json
import os
import random
import sys
import time
import unittest
import uuid

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import faults  # noqa: E402
import machine  # noqa: E402
import truth  # noqa: E402
from api import container_pb2, operation_pb2, stage_name  # noqa: E402
from harness import StackTest, eventually, image  # noqa: E402
from load import live_containers, patient  # noqa: E402

AMQP = ["amqp_send", "amqp_drop", "amqp_recv", "amqp_encode"]
DAEMONS = {
    "sched-1": ["alloc", *AMQP, "sql_before", "sql_after"],
    "gw-1": ["alloc", "socket_send", "socket_recv", *AMQP, "sql_before", "sql_after"],
    "r1-router-1": ["alloc", "socket_send", "socket_recv", *AMQP],
    "r1-h1": ["alloc", "file_write", "sync", "socket_send", "socket_recv", "sqlite"],
}
AT_START = {"sched-1": ["alloc", "sql_after"], "gw-1": ["alloc", "amqp_drop"], "r1-router-1": ["alloc", "amqp_encode"], "r1-h1": ["alloc", "sync"]}
SUCCEEDED = operation_pb2.STAGE_SUCCEEDED
MEMORY_GROWTH_MAX = 48 << 20
COUNTED_SHARE, COUNTED_SHARE_AT_START = (2, 5), (2, )  # in every run: which calls of a class
# In every run: the first place of memory with each of these in its name.
SHARE = {
    "sched-1": ["sc_alloc<sc_operation_new", "blob_new<sc_blob_pack<sc_container_pack", "hp_unpack<unpack<take_report", "sc_event_emit<sc_operation_move<apply_create", "sc_alloc<sc_change_keep", "message_new<send_to<send_command<send_remove",
                "sc_strdup<sc_pb_set<sc_container_assign", "put_value<sc_sql_text<operation_row"],
    "gw-1": ["server_call_new", "hp_unpack<on_request", "hp_pack<build_body", "hp_map_put<gw_pending_add", "hp_unpack<on_verdict", "send_response<hp_rpc_reply<on_answer", "add_wait<gw_on_wait",
             "gw_select<run_get"],
    "r1-router-1": ["er_broker_report", "hp_unpack<er_core_command", "hp_unpack<er_core_frame", "report_new<er_report_agent", "take_slot<dispatch", "hp_stream_write<er_agents_send", "make_delivery"],
    "r1-h1": ["ha_unpack_spec<ha_change_act", "ha_images_load", "build_process<ha_spec_build", "ha_run_write<record_process", "ha_meta_read<resize_only", "ha_meta_read<remove_rest"],
}
SHARE_AT_START = {
    "sched-1": ["part_start<sc_scheduler_start", "hp_db_new<open_db"],
    "gw-1": ["gw_principals_add", "hp_db_new<start_db"],
    "r1-router-1": ["hp_tls_context_new<make_tls", "er_core_new<make_core"],
    "r1-h1": ["hp_tls_context_new<open_tls", "ha_pool_new<open_threads"],
}
LIVES, LIVES_MAX = 3, 12  # in which the points become known: those of a share, and all
TRIES = 3  # to come by a point
ALL = 0
OPTIONS = {"points": None, "at": "", "seed": 1, "part": (1, 1), "words": []}  # points: None: the share of every run; ALL; or how many
BATCH = 8  # places of one daemon in one scenario
# What the reason of an operation that was refused has to say, by class.
CAUSES = {"alloc": ("out of memory", "annot allocate memory"), "file_write": ("No space left", ), "sync": ("Input/output error", )}


CLASS_ORDER = {kind: i for i, kind in enumerate(faults.CLASSES)}


def label(daemon, point, at_start):
    return f"{daemon} {point.kind} {point.number}{' at start' if at_start else ''}{' ' + point.name if point.name else ''}"


def crashed(died):
    """By our own doing: libraries that end the process when memory is short are let go; an assertion of ours, or a bad access, is not."""
    first, *frames = died.splitlines()
    outside = [f for f in frames if not f.startswith("libc.so")] if first == "signal 6" else frames
    return bool(outside) and (" at " in outside[0] or "harpoon" in outside[0])


def gone_already(operation):
    """A delete of what is not there: the one before failed, and what it left undone was done all the same."""
    return operation.verb == operation_pb2.VERB_DELETE and operation.stage == operation_pb2.STAGE_REJECTED and operation.error.code == grpc.StatusCode.NOT_FOUND.value[0]


# The `number`th of its class in a daemon: the countdown-th call, or with 0 the next one from the site, which has a name.
Point = collections.namedtuple("Point", "kind number countdown site name", defaults=("", ))


class Row:
    """What became of the points of a class in a daemon."""

    def __init__(self, known):
        self.known, self.failed, self.ended, self.refused, self.unmet, self.wrong, self.slowest = known, 0, 0, 0, 0, 0, 0.0

    def numbers(self):
        return {"known": self.known, "failed": self.failed, "ok": self.failed - self.wrong, "ended": self.ended, "refused": self.refused, "unmet": self.unmet,
                "wrong": self.wrong, "slowest_s": round(self.slowest, 1)}


COLUMNS = list(Row(0).numbers())


class FaultsTest(StackTest):
    shape = {"hosts": 1}
    switches = ["--runtime-log"]

    @classmethod
    def prepare(cls):
        cls.controls = faults.prepare(cls.stack, DAEMONS)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.supervisor = faults.Supervisor(cls.stack, list(DAEMONS))
        cls.addClassCleanup(cls.supervisor.stop)
        cls.log = next(p["runtime_log"] for n, p in cls.stack.status().items() if n == "r1-h1")
        cls.number = 0
        cls.rows, cls.told, cls.problems, cls.found = {}, {}, [], []
        cls.random = random.Random(OPTIONS["seed"])
        cls.client.succeeded(cls.client.create("stays", image()))
        status = cls.client.get("stays").status
        cls.stays = (status.pid, status.pid_start_ticks)

    def wanted(self, *names):
        return all(any(w in n for w in words.split(",") for n in names) for words in OPTIONS["words"])

    # ---- One create, resize and delete ----

    def change(self, call):
        """Repeats a change until it is accepted, and waits for its end; gives the operation."""
        accepted = patient(call)
        return patient(lambda: self.client.wait(accepted, 120))

    def life(self):
        """One container from its create to its delete. Gives how operations that did not succeed have ended: [(verb, message)]."""
        FaultsTest.number += 1
        name, ids, failed = f"f{self.number}", [str(uuid.uuid4()) for _ in range(3)], []
        done = self.change(lambda: self.client.create(name, image(), request_id=ids[0]))
        uid, process = done.uid, None
        if done.stage != SUCCEEDED:
            failed.append(("create", f"{stage_name(done)}: {done.error.message or done.reason}"))
        else:
            process = self.process_of(name)
            done = self.change(lambda: self.client.resize(name, request_id=ids[1], memory_bytes=24 << 20))
            if done.stage != SUCCEEDED:
                failed.append(("resize", f"{stage_name(done)}: {done.error.message or done.reason}"))
            elif machine.memory_limit(process[0]) != 24 << 20:
                self.problems.append(f"{name}: resized, but the kernel's limit is {machine.memory_limit(process[0])}")
            if self.process_of(name) != process:
                self.problems.append(f"{name}: another process after the resize")
        done = self.change(lambda: self.client.delete(name, request_id=ids[2]))
        if done.stage != SUCCEEDED:
            failed.append(("delete", f"{stage_name(done)}: {done.error.message or done.reason}"))
            for _ in range(BATCH):  # each may meet another point of the batch
                again = str(uuid.uuid4())
                done = self.change(lambda request_id=again: self.client.delete(name, request_id=request_id))
                if done.stage != operation_pb2.STAGE_FAILED:
                    break
            if done.stage != SUCCEEDED and not gone_already(done):
                self.problems.append(f"{name}: asked for again, the delete ended as {stage_name(done)}: {done.error.message or done.reason}")
        self.check_effects(name, uid, process)
        return failed

    def process_of(self, name):
        status = patient(lambda: self.client.get(name)).status
        return status.pid, status.pid_start_ticks

    def check_effects(self, name, uid, process):
        """The runtime made the container once, and nothing of it is left."""
        made = truth.Real(self.log).created.get(uid, [])
        if process and process not in made:
            self.problems.append(f"{name}: {process} is none of those that the runtime made: {made}")
        alive = [p for p in made if machine.identity(p[0]) == p]
        if alive:
            self.problems.append(f"{name}: still alive after its delete: {alive}")
        here = self.stack.directory
        left = [p for p in (f"{here}/hosts/r1-h1/containers/{uid}", f"{here}/r/r1-h1/c/{uid}") if os.path.exists(p)]
        left += [c for c in live_containers(self.stack) if uid in c]
        if left:
            self.problems.append(f"{name}: left over after its delete: {left}")
        if machine.identity(self.stays[0]) != self.stays:
            self.problems.append(f"{name}: the container that ran before was touched")
            status = self.client.get("stays").status
            FaultsTest.stays = (status.pid, status.pid_start_ticks)

    # ---- One scenario with points that fail ----

    def attempt(self, batches, at_start=False):
        """{daemon: [points of one class]} fail while a container lives. Gives ({daemon: points that failed}, {daemon: restarts}, {daemon: operations refused}, problems)."""
        before, fired = dict(self.supervisor.restarts), {d: self.controls[d].fired for d in batches}
        FaultsTest.problems = problems = []
        failed = []
        for daemon, points in batches.items():
            self.controls[daemon].arm(points[0].kind, points[0].countdown, [p.site for p in points if p.site])
            if at_start:
                self.restart(daemon)
        try:
            failed = self.life()
        except (AssertionError, grpc.RpcError) as e:
            problems.append(f"the changes did not come to their end: {str(e)[:300]}\n{self.stack.logs(6)}")
            for daemon in batches:
                self.restart(daemon)
        gone, restarts, refused = {}, {}, dict.fromkeys(batches, 0)
        for daemon, points in batches.items():
            control = self.controls[daemon]
            left = control.wanted()
            control.disarm()
            gone[daemon] = [p for p in points if p.site not in left] if points[0].site else points if control.fired != fired[daemon] else []
            self.ready(daemon)
            restarts[daemon] = self.supervisor.restarts[daemon] - before[daemon]
            if control.died.startswith("signal") and crashed(control.died):
                problems.append(f"{daemon} crashed: {control.died}")
        agent = gone.get("r1-h1")
        for verb, message in failed:
            if agent and any(c in message for c in CAUSES.get(agent[0].kind, ("",))):
                refused["r1-h1"] += 1
            else:
                problems.append(f"{verb} ended as {message}")
        return gone, restarts, refused, problems

    def together(self, batches, at_start=False):
        """One scenario; what breaks a promise is tried again alone. Gives {daemon: points that failed}."""
        began = time.monotonic()
        gone, restarts, refused, problems = self.attempt(batches, at_start)
        took = time.monotonic() - began
        for daemon, points in gone.items():
            row = self.row(daemon, batches[daemon][0].kind, at_start)
            row.failed += len(points)
            row.ended += restarts[daemon]
            row.refused += refused[daemon]
            row.slowest = max(row.slowest, took) if points else row.slowest
            self.trace(daemon, points, at_start, f"{took:.1f} s, restarts {restarts[daemon]}, refused {refused[daemon]}", os.environ.get("HARPOON_TRACE"))
        found_before = len(self.found)
        suspects = [(d, p) for d, points in gone.items() for p in points]
        for daemon, point in suspects if problems else []:
            alone = problems if len(suspects) == 1 else self.attempt({daemon: [point]}, at_start)[3]
            self.trace(daemon, [point], at_start, "; ".join(alone), alone)
            self.row(daemon, point.kind, at_start).wrong += bool(alone)
            self.found += [f"{label(daemon, point, at_start)}: {text}" for text in alone]
        if problems and len(self.found) == found_before:
            self.found += [f"{' and '.join(label(d, p, at_start) for d, p in suspects) or 'no fault'} together: {text}" for text in problems]
        return gone

    def trace(self, daemon, points, at_start, text, wanted):
        if wanted and points:
            print(f"  {' '.join(label(daemon, p, at_start) for p in points)}: {text}", flush=True)
            for place in self.controls[daemon].where:
                print("    " + " < ".join(place[:12]), flush=True)

    def row(self, daemon, kind, at_start):
        return self.rows[kind + (" at start" if at_start else ""), daemon]

    def restart(self, daemon):
        with self.supervisor.lock:
            self.stack.kill(daemon)
            self.stack.command("start", daemon)
            self.supervisor.look()

    def ready(self, daemon):
        path = os.path.join(self.stack.directory, "run", daemon + ".ready")

        def is_ready():
            try:
                with open(path) as f:
                    return json.load(f)["pid"] == self.supervisor.pids[daemon][0]
            except (FileNotFoundError, ValueError):
                return False
        eventually(is_ready, 30, f"{daemon} to be ready", interval=0.02)

    def choose(self, daemon, known, at_start=False):
        """Of the known points of a class those that this run is to fail."""
        if OPTIONS["at"]:
            return [p for p in known if (OPTIONS["at"] == str(p.number) if OPTIONS["at"].isdigit() else OPTIONS["at"] in p.name)]
        part, parts = OPTIONS["part"]
        if OPTIONS["points"] is None:
            chosen = self.share(daemon, known, at_start)
        elif OPTIONS["points"] == ALL:
            chosen = known
        else:
            wanted, first = min(OPTIONS["points"], len(known)), self.random.randrange(len(known))
            chosen = [known[(first + i * len(known) // wanted) % len(known)] for i in range(wanted)]
        return [p for p in chosen if (p.site or p.number) % parts == part - 1]

    def share(self, daemon, known, at_start):
        """That of every run."""
        if not known[0].site:
            return [p for p in known if p.number in (COUNTED_SHARE_AT_START if at_start else COUNTED_SHARE)] or known[:1]
        chosen = []
        for name in (SHARE_AT_START if at_start else SHARE)[daemon]:
            named = [p for p in known if name in p.name]
            chosen += named[:1]
            if not named:
                print(f"{daemon} asks for no memory in {name}{' at its start' if at_start else ''}: choose another", flush=True)
        return chosen

    def fail_all(self, todo, at_start=False):
        """{daemon: points}: each fails once. One that is not come by, though nothing else failed there before it, is tried again, TRIES times in all; a share takes an earlier call instead."""
        tries = collections.Counter()
        while any(todo.values()):
            batches = {}
            for daemon, points in todo.items():
                if points:
                    size = BATCH if points[0].site else 1
                    batches[daemon] = [p for p in points[:size] if p.kind == points[0].kind]
            gone = self.together(batches, at_start)
            for daemon, points in batches.items():
                for point in points:
                    todo[daemon].remove(point)
                    tries[daemon, point] += not gone[daemon]
                    if point in gone[daemon]:
                        continue
                    if OPTIONS["points"] != ALL and point.countdown > 1:
                        todo[daemon].append(point._replace(countdown=point.countdown // 2))
                    elif tries[daemon, point] < TRIES:
                        todo[daemon].append(point)
                    else:
                        self.row(daemon, point.kind, at_start).unmet += 1
                todo[daemon].sort(key=lambda p, d=daemon: (tries[d, p], CLASS_ORDER[p.kind]))
        for (kind, daemon), row in self.rows.items():
            if row.unmet > row.failed:
                self.found.append(f"{daemon} {kind}: {row.unmet} points were not met, {row.failed} failed")

    def known(self, daemon, kind, calls, sites):
        """The points of a class: its calls, or their places."""
        if kind == "alloc":
            program = os.readlink(f"/proc/{self.supervisor.pids[daemon][0]}/exe")
            names = sorted((name, site) for site, name in faults.names(program, sites).items())
            points = [Point(kind, i + 1, 0, site, name) for i, (name, site) in enumerate(names)]
            for point in points if os.environ.get("HARPOON_TRACE") else []:
                print(f"  known: {label(daemon, point, False)}", flush=True)
            return points
        return [Point(kind, n, n, 0) for n in range(1, calls + 1)]

    def learn(self):
        """What one life comes by, from several without a fault: {daemon: calls by class, at most}, {daemon: places of allocations}. Of the places all, when every one shall fail, until two lives in a
        row show no new one; a share of them is chosen among those of every life."""
        self.life()
        calls, every, steady = {d: collections.Counter() for d in DAEMONS}, {d: {} for d in DAEMONS}, {}
        same = 0
        all_wanted = OPTIONS["points"] == ALL or OPTIONS["at"]
        for _ in range(LIVES_MAX if all_wanted else LIVES):
            before, size = {d: self.controls[d].counts() for d in DAEMONS}, sum(map(len, every.values()))
            for control in self.controls.values():
                control.note("alloc")
            self.life()
            for d, control in self.controls.items():
                for kind, n in control.counts().items():
                    calls[d][kind] = max(calls[d][kind], n - before[d][kind])
                seen = control.sites()
                every[d].update(seen)
                steady[d] = {s: own for s, own in steady.get(d, seen).items() if s in seen}
            same = same + 1 if size == sum(map(len, every.values())) else 0
            if same == 2:
                break
        for control in self.controls.values():
            control.note("none")
        return calls, every if all_wanted else steady

    # ---- The tests ----

    def test_1_while_it_works(self):
        calls, sites = self.learn()
        todo = collections.defaultdict(list)
        for daemon, kinds in DAEMONS.items():
            for kind in [k for k in kinds if self.wanted(daemon, k, "work")]:
                points = self.known(daemon, kind, calls[daemon][kind], sites[daemon])
                self.assertTrue(points, f"{daemon} makes no calls of class {kind}")
                self.rows[kind, daemon] = Row(len(points))
                todo[daemon] += self.choose(daemon, points)
        self.fail_all(todo)
        self.report()

    def test_2_while_it_starts(self):
        for daemon, kinds in AT_START.items():
            kinds = [k for k in kinds if self.wanted(daemon, k, "start")]
            if not kinds:
                continue
            control, points = self.controls[daemon], []
            before = control.counts()
            control.note("alloc", own=True)
            self.restart(daemon)
            self.ready(daemon)
            for kind in kinds:
                known = self.known(daemon, kind, control.counts()[kind] - before[kind], control.sites())
                self.rows[kind + " at start", daemon] = Row(len(known))
                points += self.choose(daemon, known, at_start=True)
            control.note("none", own=True)
            self.fail_all({daemon: points}, at_start=True)
            control.note("none")
        self.report()

    def report(self):
        print(f"{'class':<20} {'daemon':<12}" + "".join(f"{c:>10}" for c in COLUMNS))
        for (kind, daemon), row in self.rows.items():
            print(f"{kind:<20} {daemon:<12}" + "".join(f"{n:>10}" for n in row.numbers().values()), flush=True)
        self.told.update(self.rows)
        self.rows.clear()
        found, FaultsTest.found = self.found, []
        self.assertEqual(found, [])

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        rows = [{"daemon": d, "class": k, **r.numbers()} for (k, d), r in cls.told.items()]
        total = {n: sum(r[n] for r in rows) for n in ("known", "failed", "ok", "unmet", "wrong")}
        print(json.dumps({**total, "rows": rows}), flush=True)

    def test_3_nothing_lost_nothing_twice(self):
        """The record after all that."""
        eventually(lambda: self.stack.sql("SELECT COUNT(*) FROM regions WHERE sequence <> watermark") == [["0"]], 30, "everything to be told")
        for operation in self.client.list_operations():
            if not gone_already(operation):
                self.assertIn(operation.stage, (SUCCEEDED, operation_pb2.STAGE_FAILED), operation)
        ended = {}
        sequence = 0
        for event in self.client.list_events():
            sequence += 1
            self.assertEqual(event.sequence, sequence, "no gap, no repeat")
            stage = event.type.rsplit(".", 1)[1]
            if event.type.startswith("harpoon.operation.") and stage in ("succeeded", "failed", "rejected", "cancelled", "expired"):
                self.assertNotIn(event.operation, ended, "an operation ends once")
                ended[event.operation] = stage
        self.assertEqual(set(ended), {o.name for o in self.client.list_operations()})
        self.assertEqual([c.name.rsplit("/", 1)[1] for c in self.client.list_containers()], ["stays"])
        running = self.client.get("stays").status
        self.assertEqual((running.state, running.pid), (container_pb2.CONTAINER_STATE_RUNNING, self.stays[0]))
        self.assertEqual({c.rsplit("/", 1)[1] for c in live_containers(self.stack)}, {self.client.get("stays").uid})

    def test_4_nothing_leaks(self):
        """Faults in a process that lives on cost it no descriptor and no memory: some of each class again, and the numbers are what they were."""
        for daemon, kinds in DAEMONS.items():
            kinds = [k for k in kinds if k != "alloc" and self.wanted(daemon, k, "leak")]
            kinds = kinds[::3] if OPTIONS["points"] is None else kinds
            if not kinds:
                continue
            self.restart(daemon)
            self.ready(daemon)
            for _ in range(2):
                self.life()
            pid, restarts = self.supervisor.pids[daemon][0], self.supervisor.restarts[daemon]
            before = faults.settle(lambda p=pid: faults.descriptors(p)), faults.resident_bytes(pid)
            for kind in kinds:
                self.rows[kind, daemon] = Row(0)
                self.together({daemon: [Point(kind, 3, 3, 0)]})
            self.life()
            if self.supervisor.restarts[daemon] != restarts:
                continue  # it ended, and all that it held with it
            eventually(lambda p=pid, n=before[0]: faults.descriptors(p) <= n, 15,
                       lambda p=pid, n=before[0], d=daemon: f"{d} to have {n} descriptors again; it has {os.listdir(f'/proc/{p}/fd')}")
            self.assertLess(faults.resident_bytes(pid) - before[1], MEMORY_GROWTH_MAX, daemon)
        self.report()


if __name__ == "__main__":
    if "--help" in sys.argv:
        sys.exit(print(__doc__))
    if "--all" in sys.argv:
        sys.argv.remove("--all")
        OPTIONS["points"] = ALL
    for option in ("points", "at", "seed"):
        if "--" + option in sys.argv:
            at = sys.argv.index("--" + option)
            OPTIONS[option] = sys.argv[at + 1] if option == "at" else int(sys.argv[at + 1])
            del sys.argv[at:at + 2]
    if "--part" in sys.argv:
        at = sys.argv.index("--part")
        OPTIONS["part"] = tuple(int(n) for n in sys.argv[at + 1].split("/"))
        del sys.argv[at:at + 2]
    OPTIONS["words"] = sys.argv[1:]
    unittest.main(argv=sys.argv[:1], verbosity=2)
