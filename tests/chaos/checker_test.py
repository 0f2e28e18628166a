"""The checker on hand-made histories: a good one passes, and each kind of violation, put into it once, is found."""
import copy
import json
import unittest

import checker

OP = "projects/demo/regions/r1/operations/{:032x}"
WEB = "projects/demo/regions/r1/containers/web"
OLD = "projects/demo/regions/r1/containers/old"
KEPT = "projects/demo/regions/r1/containers/kept"
H1, H2 = "regions/r1/hosts/h1", "regions/r1/hosts/h2"
CREATE_WEB, RESIZE_WEB, CREATE_OLD, DELETE_OLD = 1, 2, 3, 4
STEPS = [  # request, verb, target, uid, generation
    (CREATE_WEB, "create", WEB, "u-web", 1), (RESIZE_WEB, "resize", WEB, "u-web", 2), (CREATE_OLD, "create", OLD, "u-old", 1), (DELETE_OLD, "delete", OLD, "u-old", 2)]


def good():
    """A run with one fault, one container that lives and one that was deleted, seen by two watchers."""
    history = [{"k": "fault", "stream": "processes", "kind": "kill", "landed": True},
               {"k": "kept", "name": KEPT, "uid": "u-kept", "pid": 7, "start_ticks": 70}]
    for i, verb, target, uid, generation in STEPS:
        history += [{"k": "call", "who": "client-1", "id": i, "verb": verb, "target": target, "alone": True},
                    {"k": "ack", "who": "client-1", "id": i, "operation": OP.format(i), "stage": "RECORDED"},
                    {"k": "saw", "who": "client-1", "id": i, "stage": "SUCCEEDED"}]
        for watcher in ("watcher-1", "watcher-2"):
            history.append({"k": "end", "who": watcher, "region": "r1", "sequence": i * 5, "operation": OP.format(i), "stage": "SUCCEEDED",
                            "verb": verb.upper(), "target": target, "uid": uid, "generation": generation, "host": H1})
    for watcher in ("watcher-1", "watcher-2"):
        history += [{"k": "told", "who": watcher, "region": "r1", "first": 1, "last": 12}, {"k": "told", "who": watcher, "region": "r1", "first": 13, "last": 20},
                    {"k": "block", "who": watcher, "region": "r1", "block": 1, "sum": 99}]
    calls = [("create", "u-kept", 1), ("create", "u-web", 1), ("resize", "u-web", 2), ("create", "u-old", 1), ("remove", "u-old", 2)]
    final = {
        "regions": {"r1": {"sequence": 20, "watermark": 20, "oldest": 1, "events": 20, "first": 1, "last": 20}},
        "operations": {OP.format(i): {"stage": "SUCCEEDED", "active": False} for i, *_ in STEPS},
        "containers": [{"name": n, "uid": u, "host": H1, "desired": "RUNNING", "state": "RUNNING", "memory_bytes": 16} for n, u in ((WEB, "u-web"), (KEPT, "u-kept"))],
        "live": [{"uid": "u-web", "host": H1, "pid": 8, "start_ticks": 80, "running": True, "memory_bytes": 16},
                 {"uid": "u-kept", "host": H1, "pid": 7, "start_ticks": 70, "running": True, "memory_bytes": 16}],
        "logs": {H1: True},
        "left": [],
        "calls": [{"t": t, "host": H1, "uid": u, "generation": g, "verb": v, "ok": True, "changed": True} for t, (v, u, g) in enumerate(calls)],
    }
    return history, final


def only(lines, kind, **facts):
    """The first line of a kind with these facts."""
    return next(line for line in lines if line["k"] == kind and all(line[k] == v for k, v in facts.items()))


class CheckerTest(unittest.TestCase):
    def setUp(self):
        self.history, self.final = good()

    def expect(self, *kinds):
        """Just these kinds of violations are found, and the run fails."""
        result, found, _ = checker.verdict(self.history, self.final)
        self.assertEqual({k for k in checker.KINDS if found[k]}, set(kinds), found)
        self.assertEqual(result["verdict"], "FAIL" if kinds else "PASS")
        for kind in checker.KINDS:
            self.assertEqual(result[kind], len(found[kind]))

    def remove(self, kind, **facts):
        self.history = [line for line in self.history if not (line["k"] == kind and all(line[k] == v for k, v in facts.items()))]

    def add(self, line, **changes):
        self.history.append({**line, **changes})

    def live(self, uid):
        return next(p for p in self.final["live"] if p["uid"] == uid)

    def operation(self, number):
        return self.final["operations"][OP.format(number)]

    def call(self, uid, verb):
        return next(c for c in self.final["calls"] if c["uid"] == uid and c["verb"] == verb)

    # ---- the verdict ----

    def test_a_good_run_passes(self):
        self.expect()
        result, text = checker.report(self.history, self.final)
        self.assertEqual(json.loads(text[-1]), {"faults": 1, "acknowledged": 4, "lost": 0, "duplicated": 0, "orphaned": 0, "gaps": 0, "verdict": "PASS"})
        self.assertEqual(json.loads(text[-1]), result)
        self.assertIn("fewer than 0.75 of all", text[-2])

    def test_no_fault_landed(self):
        only(self.history, "fault")["landed"] = False
        result, _, why = checker.verdict(self.history, self.final)
        self.assertEqual((result["verdict"], result["faults"], why), ("INVALID", 0, "no fault landed"))

    def test_nothing_was_acknowledged(self):
        self.remove("ack")
        self.assertEqual(checker.verdict(self.history, self.final)[0]["verdict"], "INVALID")

    def test_the_final_state_could_not_be_read(self):
        result, text = checker.report(self.history, None)
        self.assertEqual(result["verdict"], "INVALID")
        self.assertIn("no bound", text[-2])

    def test_a_run_that_is_invalid_is_so_even_with_violations(self):
        only(self.history, "fault")["landed"] = False
        self.final["live"].clear()
        self.assertEqual(checker.verdict(self.history, self.final)[0]["verdict"], "INVALID")

    # ---- lost ----

    def test_acknowledged_and_not_in_the_record(self):
        del self.final["operations"][OP.format(RESIZE_WEB)]
        self.expect("lost")

    def test_acknowledged_and_never_ended(self):
        self.operation(RESIZE_WEB).update(stage="RUNNING", active=True)
        self.remove("end", operation=OP.format(RESIZE_WEB))
        self.remove("saw", id=RESIZE_WEB)
        self.expect("lost")

    def test_an_end_that_nobody_was_told(self):
        self.remove("end", operation=OP.format(RESIZE_WEB))
        self.expect("lost")

    def test_an_end_that_was_told_otherwise(self):
        for line in self.history:
            if line["k"] == "end" and line["operation"] == OP.format(RESIZE_WEB):
                line["stage"] = "FAILED"
        self.expect("lost")

    def test_a_client_that_was_told_another_end(self):
        only(self.history, "saw", id=RESIZE_WEB)["stage"] = "FAILED"
        self.expect("lost")

    def test_a_success_without_a_create(self):
        self.final["calls"].remove(self.call("u-web", "create"))
        self.expect("lost")

    def test_a_log_without_generations_tells_creates_only(self):
        self.final["logs"][H1] = False
        for c in self.final["calls"]:
            c["generation"] = None
        self.final["calls"].remove(self.call("u-web", "resize"))
        self.expect()
        self.final["calls"].remove(self.call("u-web", "create"))
        self.expect("lost")

    def test_a_success_whose_call_failed(self):
        self.call("u-web", "resize")["ok"] = False
        self.expect("lost")

    def test_a_success_without_a_removal(self):
        self.final["calls"].remove(self.call("u-old", "remove"))
        self.expect("lost")

    def test_what_was_never_made_need_not_be_removed(self):
        for line in self.history:
            if line.get("id") == CREATE_OLD and line["k"] == "saw" or line.get("operation") == OP.format(CREATE_OLD) and line["k"] == "end":
                line["stage"] = "FAILED"
        self.operation(CREATE_OLD)["stage"] = "FAILED"
        self.final["calls"] = [c for c in self.final["calls"] if c["uid"] != "u-old"]
        self.expect()

    def test_a_container_that_the_record_forgot(self):
        self.final["containers"] = [c for c in self.final["containers"] if c["name"] != WEB]
        self.final["live"].remove(self.live("u-web"))
        self.expect("lost")

    def test_a_container_that_does_not_run(self):
        self.final["live"].remove(self.live("u-web"))
        self.expect("lost")

    def test_a_container_that_is_there_and_stopped(self):
        self.live("u-web")["running"] = False
        self.expect("lost")

    def test_a_limit_that_was_not_set(self):
        self.live("u-web")["memory_bytes"] = 15
        self.expect("lost")

    def test_a_failed_container_need_not_run(self):
        self.final["containers"].append({"name": "x", "uid": "u-x", "host": H1, "desired": "RUNNING", "state": "FAILED", "memory_bytes": 16})
        self.expect()

    def test_not_found_although_it_was_made(self):
        self.add({"k": "call", "who": "client-1", "id": 9, "verb": "resize", "target": WEB, "alone": True})
        self.add({"k": "refused", "who": "client-1", "id": 9, "code": "NOT_FOUND"})
        self.expect("lost")

    # ---- a process that was touched ----

    def test_a_kept_process_with_another_pid(self):
        self.live("u-kept")["pid"] = 9
        self.expect("lost")

    def test_a_kept_process_whose_pid_was_used_anew(self):
        self.live("u-kept")["start_ticks"] = 71
        self.expect("lost")

    # ---- duplicated ----

    def test_one_request_two_operations(self):
        self.add(only(self.history, "ack", id=CREATE_WEB), operation=OP.format(CREATE_OLD))
        self.expect("duplicated")

    def test_two_ends(self):
        for watcher in ("watcher-1", "watcher-2"):
            self.add(only(self.history, "end", operation=OP.format(CREATE_WEB)), who=watcher, sequence=20)
        self.expect("duplicated")

    def test_one_end_seen_by_two_watchers_is_one_end(self):
        self.assertEqual(sum(line["k"] == "end" and line["operation"] == OP.format(CREATE_WEB) for line in self.history), 2)
        self.expect()

    def test_two_calls_for_one_change(self):
        self.final["calls"].append(copy.copy(self.call("u-web", "resize")))
        self.expect("duplicated")

    def test_a_call_that_failed_and_was_made_again_is_one(self):
        self.final["calls"].append({**self.call("u-web", "resize"), "ok": False})
        self.expect()

    def test_a_removal_asked_for_again_is_one(self):
        self.final["calls"].append(copy.copy(self.call("u-old", "remove")))
        self.expect()

    def test_a_resize_to_the_limits_that_there_are_is_no_change(self):
        self.final["calls"].append({**self.call("u-web", "resize"), "changed": False})
        self.expect()

    def test_two_live_containers_of_one_resource(self):
        self.final["live"].append({**self.live("u-web"), "pid": 9})
        self.expect("duplicated")

    def test_made_elsewhere_while_it_lived(self):
        self.final["calls"].append({**self.call("u-web", "create"), "host": H2, "generation": 3})
        self.expect("duplicated")

    def test_made_twice_without_a_removal_between(self):
        for c in self.final["calls"]:
            c["generation"] = None
        self.final["logs"][H1] = False
        self.final["calls"].append(copy.copy(self.call("u-web", "create")))
        self.expect("duplicated")

    def test_made_elsewhere_after_its_removal(self):
        self.final["calls"] += [{**self.call("u-web", "create"), "verb": "remove", "generation": 3}, {**self.call("u-web", "create"), "host": H2, "generation": 4}]
        self.expect()

    def test_exists_already_although_nobody_made_it(self):
        self.add({"k": "call", "who": "client-1", "id": 9, "verb": "create", "target": OLD, "alone": True})
        self.add({"k": "refused", "who": "client-1", "id": 9, "code": "ALREADY_EXISTS"})
        self.expect("duplicated")

    # ---- orphaned ----

    def test_what_a_real_host_has_of_a_container_that_is_gone(self):
        self.final["left"] = [{"host": H1, "what": "a cgroup", "name": "/sys/fs/cgroup/pids/harpoon-1/r1-h1/u-old"}]
        self.expect("orphaned")

    def test_live_and_not_in_the_record(self):
        self.final["live"].append({**self.live("u-web"), "uid": "u-old"})
        self.expect("orphaned")

    def test_left_over_without_a_process(self):
        self.final["live"].append({**self.live("u-web"), "uid": "u-old", "running": False})
        self.expect("orphaned")

    def test_live_and_should_be_stopped(self):
        self.final["containers"][0]["desired"] = "STOPPED"
        self.expect("orphaned")

    def test_live_on_another_host_than_recorded(self):
        self.live("u-web")["host"] = H2
        self.expect("orphaned")

    def test_deleted_and_still_in_the_record(self):
        self.final["containers"].append({"name": OLD, "uid": "u-old", "host": H1, "desired": "STOPPED", "state": "DELETING", "memory_bytes": 16})
        self.expect("orphaned")

    def test_refused_and_happened_all_the_same(self):
        self.add({"k": "refused", "who": "client-1", "id": RESIZE_WEB, "code": "INVALID_ARGUMENT"})
        self.expect("orphaned")

    # ---- gaps ----

    def told(self, **facts):
        return only(self.history, "told", **facts)

    def test_a_gap_in_a_watch(self):
        self.told(who="watcher-1", first=13)["first"] = 14
        self.expect("gaps")

    def test_a_repeat_in_a_watch(self):
        self.told(who="watcher-1", first=13)["first"] = 12
        self.expect("gaps")

    def test_a_watch_that_began_too_late(self):
        self.told(who="watcher-1", first=1)["first"] = 2
        self.expect("gaps")

    def test_a_watch_that_was_not_told_the_end(self):
        self.told(who="watcher-1", last=20)["last"] = 19
        self.expect("gaps")

    def test_a_heartbeat_ahead_of_what_was_told(self):
        self.add({"k": "skipped", "who": "watcher-1", "region": "r1", "told": 12, "sequence": 14})
        self.expect("gaps")

    def test_nobody_watched(self):
        self.remove("told")
        self.expect("gaps")

    def test_watchers_that_were_told_different_things(self):
        only(self.history, "block", who="watcher-2")["sum"] = 98
        self.expect("gaps")

    def test_a_gap_in_the_record(self):
        self.final["regions"]["r1"]["events"] = 19
        self.expect("gaps")

    def test_a_record_that_ends_early(self):
        self.final["regions"]["r1"].update(events=19, last=19)
        self.expect("gaps")

    def test_a_watermark_that_lags_at_rest(self):
        self.final["regions"]["r1"]["watermark"] = 19
        self.expect("gaps")


if __name__ == "__main__":
    unittest.main()
