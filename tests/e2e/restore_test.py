"""The record is lost, and a backup that is older than what the fleet knows is restored by the manual (docs/OPERATIONS.md): no container that lives is killed, none that was deleted
comes back, none is made twice, no number of an event tells of another one, and what the record does not know is reported and can be adopted."""
import os
import shutil
import uuid

from api import container_pb2, error_details, grpc, operation_pb2, rpc_error
from harness import StackTest, eventually, image
from load import live_containers
from watch_test import Reader
import machine
import manual

Code = grpc.StatusCode
RUNNING, STOPPED, FAILED = (container_pb2.CONTAINER_STATE_RUNNING, container_pb2.CONTAINER_STATE_STOPPED, container_pb2.CONTAINER_STATE_FAILED)


class RestoreTest(StackTest):
    shape = {"hosts": 2, "sim_hosts": 20}

    def real(self, name, host="h1", **kwargs):
        return self.client.create(name, image(), placement=container_pb2.PlacementSpec(host=host), **kwargs)

    def made(self, name, **kwargs):
        self.client.succeeded(self.real(name, **kwargs))
        return self.client.get(name)

    def process(self, name):
        s = self.client.get(name).status
        self.assertEqual(s.state, RUNNING, name)
        return s.pid, s.pid_start_ticks

    def lose_the_database(self):
        """The server's disk is gone; a new, empty server takes its place."""
        self.stack.kill("mariadb", "KILL")
        for part in ("data", "installed"):
            path = os.path.join(self.stack.directory, "mariadb", part)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)

    def restore(self):
        """By the manual; but first with schedulers that run, which must wait."""
        self.stack.restart()  # an empty record: the schedulers must not lead on it
        self.meanwhile = self.real("meanwhile")
        self.assertEqual(self.meanwhile.stage, operation_pb2.STAGE_ACCEPTED)
        eventually(lambda: "the record is older than the region" in self.stack.log("sched-1"), 20, "the empty record to be refused")
        self.stack.kill("sched-1", "TERM")
        manual.run(self.stack, "restore 1", self.stack.directory)
        self.stack.restart()  # one step too early
        eventually(lambda: "loaded from a backup: run `harpoon admin restored` first" in self.stack.log("sched-1"), 20, "the raw record to be refused")
        self.stack.kill("sched-1", "TERM")
        manual.run(self.stack, "restore 2", self.stack.directory)
        self.stack.configure("sched-1", scheduler={"restore_wait": "2s"})
        self.stack.restart()

    def sims(self):
        """{name: (uid, host)} of what runs on simulated hosts."""
        return {c.name: (c.uid, c.status.host) for c in self.client.list_containers() if "/hosts/sim-" in c.status.host}

    def given(self):
        """What exists when the backup is made."""
        keep = [self.made(n) for n in ("keep", "large", "halted", "gone", "again")]
        zone = container_pb2.PlacementSpec(zones=[h.zone for h in self.client.list_hosts() if "/sim-" in h.name][:1])
        for o in [self.client.create(f"sim-{i}", image(), placement=zone) for i in range(40)]:
            self.client.succeeded(o)
        return keep

    def after_the_backup(self):
        """What is done later, and is not in the backup."""
        c = self.client
        c.succeeded(c.resize("large", memory_bytes=48 << 20))
        c.succeeded(c.stop("halted"))
        c.succeeded(c.delete("gone"))
        c.succeeded(c.delete("again"))
        self.made("again", host="h2")
        self.repeated = str(uuid.uuid4())
        self.client.succeeded(self.real("fresh", host="h2", request_id=self.repeated))
        zone = container_pb2.PlacementSpec(zones=[h.zone for h in c.list_hosts() if "/sim-" in h.name][:1])
        operations = [c.create(f"later-{i}", image(), placement=zone) for i in range(20)]
        operations += [c.delete(f"sim-{i}") for i in range(10)] + [c.resize(f"sim-{i}", memory_bytes=32 << 20) for i in range(10, 20)]
        for o in operations:
            c.succeeded(o)

    def quarantined(self):
        return {q.name.rsplit("/", 1)[-1]: (q, h.name) for h in self.client.list_hosts() for q in h.quarantined}

    def adopt(self, host):
        return self.stack.cli("hosts", "adopt", host.rsplit("/", 1)[-1], "--all", check=False)

    def test_an_older_record(self):
        given = self.given()
        before = {"request_id": str(uuid.uuid4())}
        first = self.client.resize("keep", cpu_millis=30, **before)
        self.client.succeeded(first)
        manual.run(self.stack, "backup", self.stack.directory)
        self.after_the_backup()
        processes = {n: self.process(n) for n in ("keep", "large", "again", "fresh")}
        sims, uids = self.sims(), {c.uid for c in self.client.list_containers()} | {c.uid for c in given}
        told = {e.sequence: (e.type, e.subject, e.time.ToNanoseconds()) for e in self.client.list_events()}
        newest = max(told)
        reader = Reader(self.client, after_sequence=0)
        eventually(lambda: reader.sequence >= newest, 20, "the watch to reach the present")
        self.lose_the_database()
        self.restore()
        self.the_fleet_settles(processes, sims)
        self.events_go_on(reader, told)
        self.requests_go_on(first, before)
        self.what_is_unknown_is_adopted(processes, sims)
        made = self.made("new")
        self.assertNotIn(made.uid, uids, "a uid is never used again")
        self.nothing_is_left_over()

    def test_no_backup_at_all(self):
        """What the agents know is all that there is: every container runs on, and is adopted."""
        for name, host in (("left-1", "h1"), ("left-2", "h2"), ("left-3", "sim-1")):
            self.made(name, host=host)
        processes = {n: self.process(n) for n in ("left-1", "left-2")}
        self.lose_the_database()
        self.stack.restart()
        self.stack.kill("sched-1", "TERM")
        manual.run(self.stack, "no backup", self.stack.directory)
        self.stack.configure("sched-1", scheduler={"restore_wait": "2s"})
        self.stack.restart()
        eventually(lambda: set(self.quarantined()) == {"left-1", "left-2", "left-3"}, 30, lambda: f"three unknown containers: {self.quarantined()}")
        for _, host in self.quarantined().values():
            self.assertEqual(self.adopt(host).returncode, 0)
        for name, identity in processes.items():
            self.assertEqual(self.process(name), identity, name)
        self.client.succeeded(self.client.resize("left-1", memory_bytes=40 << 20))
        self.assertEqual(self.process("left-1"), processes["left-1"])
        self.nothing_is_left_over()

    def the_fleet_settles(self, processes, sims):
        c = self.client
        eventually(lambda: "has been compared with every host" in self.stack.log("sched-1"), 40, "the comparison to end")
        eventually(lambda: len(self.quarantined()) == 22, 20, lambda: f"22 unknown containers: {sorted(self.quarantined())}")
        for name, identity in processes.items():
            self.assertEqual(machine.identity(identity[0]), identity, f"{name} was not touched")
        self.assertEqual(set(self.quarantined()), {"again", "fresh"} | {f"later-{i}" for i in range(20)})
        large = c.get("large")
        self.assertEqual((large.spec.resources.memory_bytes, machine.memory_limit(large.status.pid)), (48 << 20, 48 << 20), "the later size stays")
        eventually(lambda: c.get("halted").spec.desired_state == container_pb2.DESIRED_STATE_STOPPED, 10, "the later stop to be taken over")
        for name in ("gone", "again", *(f"sim-{i}" for i in range(10))):
            eventually(lambda n=name: c.get(n).status.state == FAILED, 20, lambda n=name: f"{n} to be given up: {c.get(n).status}")
            self.assertEqual(c.get(name).status.message, "the host has removed it")
        known = self.sims()
        self.assertEqual(known, {n: at for n, at in sims.items() if "/later-" not in n}, "on simulated hosts, too, each is where it was")

    def events_go_on(self, reader, told):
        """No number tells of two events: a watch that goes on says OUT_OF_RANGE, and so does one that asks for what was."""
        eventually(lambda: reader.error, 20, "the watch of before to end")
        self.assert_code(reader.error, Code.OUT_OF_RANGE)
        for e in reader.events:
            self.assertEqual(told.get(e.sequence, (e.type, e.subject, e.time.ToNanoseconds())), (e.type, e.subject, e.time.ToNanoseconds()))
        oldest = int(error_details(reader.error)["ErrorInfo"].metadata["oldest_sequence"])
        self.assertGreater(oldest, max(told) + 1000000)
        for after in (1, max(told) - 1, max(told), oldest - 2):
            again = Reader(self.client, after_sequence=after)
            eventually(lambda r=again: r.error, 20, "a watch from before the restore to end")
            self.assert_code(again.error, Code.OUT_OF_RANGE)
        fresh = Reader(self.client, after_sequence=oldest - 1)
        eventually(lambda: len(fresh.events) > 20, 20, "the events since the restore")
        self.assertEqual(fresh.sequences(), list(range(oldest, oldest + len(fresh.events))))
        fresh.close()

    def requests_go_on(self, first, before):
        """A request of before the backup finds its operation; one of after it has no second effect."""
        self.client.succeeded(self.meanwhile)
        self.assertEqual(self.client.resize("keep", cpu_millis=30, **before).name, first.name)
        error = rpc_error(self.real, "fresh", host="h2", request_id=self.repeated)
        self.assert_code(error, Code.ALREADY_EXISTS)
        self.assertEqual(error_details(error)["ErrorInfo"].reason, "CONTAINER_QUARANTINED")

    def what_is_unknown_is_adopted(self, processes, sims):
        c, unknown = self.client, self.quarantined()
        shown = self.stack.cli("hosts", "quarantined", "h2").stdout
        self.assertIn("fresh", shown)
        refused = self.adopt("h2")  # "again" still stands in the record as what was deleted
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn("delete that first", refused.stderr)
        c.succeeded(c.delete("again"))
        for host in sorted({h for _, h in unknown.values()}):
            self.assertEqual(self.adopt(host).returncode, 0, host)
        eventually(lambda: not self.quarantined(), 10, "nothing to be under quarantine")
        for name in ("again", "fresh"):
            eventually(lambda n=name: c.get(n).status.observed_generation == c.get(n).generation, 20, lambda n=name: f"{n}: {c.get(n)}")
            self.assertEqual(self.process(name), processes[name], f"{name} was adopted as it was")
        c.succeeded(c.resize("fresh", memory_bytes=40 << 20))
        self.assertEqual(machine.memory_limit(processes["fresh"][0]), 40 << 20)
        self.assertEqual(self.process("fresh"), processes["fresh"])
        eventually(lambda: {k: v for k, v in self.sims().items()} == sims, 20, "the simulated hosts' containers to be known again")

    def nothing_is_left_over(self):
        c = self.client
        for container in c.list_containers():
            c.succeeded(c.delete(container.name.rsplit("/", 1)[1]))
        eventually(lambda: not live_containers(self.stack), 20, lambda: f"no process to be left: {live_containers(self.stack)}")
        eventually(lambda: not any(h.container_count for h in c.list_hosts()), 10, "all claims to be given back")


if __name__ == "__main__":
    import unittest
    unittest.main()
