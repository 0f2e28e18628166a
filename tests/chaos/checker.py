"""What a chaos run has shown, from its history and the final reading. Pure functions: no clock, no files, no network.

The history is a list of lines as the recorders wrote them. Kinds that count here:

    call     client:  id (request id), verb, target, alone (nothing else of the target is under way, before or until the end)
    ack      client:  id, operation (full name)
    refused  client:  id, code: the final answer, no repeat follows
    saw      client:  id, stage: the end that its wait was told
    told     watcher: region, first, last: sequences that came, in one run without gap
    block    watcher: region, block, sum: a sum over the content of the events of one block of sequences
    end      watcher: region, sequence, operation, stage, verb, target, uid, generation, host
    skipped  watcher: region, told, sequence: a heartbeat spoke of more than was told
    kept     harness: name, uid, pid, start_ticks of a container that nobody changes
    fault    nemesis: stream, kind, target, landed

The final reading is a dictionary:

    regions     {region: {sequence, watermark, oldest, events, first, last}}, as the record has it
    operations  {full name: {stage, active}}, as the record has it
    containers  [{name, uid, host, desired, state, memory_bytes}], as the record has it
    live        [{uid, host, pid, start_ticks, running, memory_bytes}]: what there is on the hosts, as the kernel or the simulated runtime has it; never what agents say
    logs        {host: True when its runtime's log knows verbs and generations of its own, False when only creates and removals of a uid can be told}
    left        [{host, what, name}]: what real hosts have of containers that the record does not want there: cgroups, mounts, namespaces, addresses, directories, processes
    calls       [{t, host, uid, generation, verb, ok, changed}]: state-changing calls as the runtimes logged them, in order of time; generation None where the log has none; changed False
                for a resize to the limits that there were
"""
import collections
import json

TERMINAL = {"SUCCEEDED", "REJECTED", "FAILED", "CANCELLED", "EXPIRED"}
KINDS = ("lost", "duplicated", "orphaned", "gaps")
EFFECTS = {  # verb of an operation: calls of which one at least must have succeeded
    "CREATE": {"create"},
    "DELETE": {"remove"},
    "RESIZE": {"resize", "create"},
    "STOP": {"stop"},
    "START": {"start", "create"},
    "RESTART": {"restart", "start", "create"},
}


def by_kind(history):
    found = collections.defaultdict(list)
    for line in history:
        found[line["k"]].append(line)
    return found


def ends_of(lines):
    """{operation: {(region, sequence): line}}: every end that the stream told, however many watchers saw it."""
    ends = collections.defaultdict(dict)
    for e in lines["end"]:
        ends[e["operation"]][(e["region"], e["sequence"])] = e
    return ends


def acknowledged(history):
    return {line["operation"] for line in history if line["k"] == "ack"}


def check_ends(lines, final):
    """Every acknowledged operation is in the record, has ended, and was told to have ended as the record says, once."""
    lost, doubled = [], []
    ends = ends_of(lines)
    for name in sorted({a["operation"] for a in lines["ack"]}):
        kept = final["operations"].get(name)
        if kept is None:
            lost.append(f"{name} was acknowledged and is not in the record")
        elif kept["active"] or kept["stage"] not in TERMINAL:
            lost.append(f"{name} was acknowledged and has not ended: {kept['stage']}")
        elif not ends[name]:
            lost.append(f"{name} ended as {kept['stage']} and no watcher was told")
        elif any(e["stage"] != kept["stage"] for e in ends[name].values()):
            lost.append(f"{name} is {kept['stage']} in the record and was told as {sorted({e['stage'] for e in ends[name].values()})}")
    for name, told in sorted(ends.items()):
        if len(told) > 1:
            doubled.append(f"{name} ended {len(told)} times: {sorted((s, e['stage']) for (_, s), e in told.items())}")
    return lost, doubled


def check_answers(lines, final):
    """One request id, one operation; a client is told the end that the record has; what was refused did not happen; no refusal that contradicts earlier successes."""
    lost, doubled, orphaned = [], [], []
    names = collections.defaultdict(set)
    for a in lines["ack"]:
        names[a["id"]].add(a["operation"])
    doubled += [f"request {i} became {len(n)} operations: {sorted(n)}" for i, n in sorted(names.items()) if len(n) > 1]
    calls = {c["id"]: c for c in lines["call"]}
    for s in lines["saw"]:
        for name in names[s["id"]]:
            kept = final["operations"].get(name)
            if kept and kept["stage"] != s["stage"]:
                lost.append(f"{name}: its client was told {s['stage']}, the record has {kept['stage']}")
    for r in lines["refused"]:
        call = calls.get(r["id"], {})
        for name in names[r["id"]] | {r.get("operation")} - {None}:
            if final["operations"].get(name, {}).get("stage") == "SUCCEEDED":
                orphaned.append(f"request {r['id']} was refused ({r['code']}) and happened all the same, as {name}")
        if r["code"] == "NOT_FOUND" and call.get("alone"):
            lost.append(f"{call['verb']} of {call['target']}: NOT_FOUND, although all that was asked for it before succeeded")
        if r["code"] == "ALREADY_EXISTS" and call.get("alone"):
            doubled.append(f"{call['verb']} of {call['target']}: ALREADY_EXISTS, although nobody has made it before")
    return lost, doubled, orphaned


def check_effects(lines, final):
    """A success has its call in the runtime's own log."""
    done = collections.defaultdict(set)
    for c in final["calls"]:
        if c["ok"]:
            done[(c["uid"], c["generation"])].add(c["verb"])
            done[c["uid"]].add(c["verb"])
    alone = {a["operation"] for a in lines["ack"] for c in [lines["calls_by_id"].get(a["id"], {})] if c.get("alone")}
    lost = []
    for name, told in sorted(ends_of(lines).items()):
        e = next(iter(told.values()))
        if e["stage"] != "SUCCEEDED" or e["verb"] not in EFFECTS or name not in alone or e["host"] not in final["logs"]:
            continue
        if not final["logs"][e["host"]] and e["verb"] not in ("CREATE", "DELETE"):
            continue
        if e["verb"] == "DELETE" and "create" not in done[e["uid"]]:
            continue  # it was never made: its create failed, or waited for a place
        # A removal, and what is made for the first time, are known by their uid alone.
        key = e["uid"] if e["verb"] in ("CREATE", "DELETE") else (e["uid"], e["generation"])
        if not done[key] & EFFECTS[e["verb"]]:
            lost.append(f"{name}: {e['verb']} of {e['target']} succeeded, and no runtime was called for it (uid {e['uid']}, generation {e['generation']})")
    return lost


def check_last_word(lines, final):
    """What was done last to each container, by clients that wait for each end, is what the record has."""
    lost, orphaned = [], []
    existing = {c["name"] for c in final["containers"]}
    stage = {}
    for s in lines["saw"]:
        stage[s["id"]] = s["stage"]
    state, unsure = {}, set()
    for c in lines["call"]:
        if not c.get("alone") or stage.get(c["id"]) != "SUCCEEDED":
            unsure.add(c["target"])
        state[c["target"]] = c["verb"]
    for target, verb in sorted(state.items()):
        if target in unsure:
            continue
        if verb == "delete" and target in existing:
            orphaned.append(f"{target} was deleted and is in the record")
        if verb != "delete" and target not in existing:
            lost.append(f"{target}: its last {verb} succeeded, and it is not in the record")
    return lost, orphaned


def check_calls(final):
    """No state-changing call succeeds twice for one (uid, generation, verb), and no uid lives on two hosts at a time."""
    doubled = []
    seen = collections.Counter()
    where = {}
    for c in final["calls"]:
        if not c["ok"]:
            continue
        if c["generation"] is not None and c["changed"]:
            seen[(c["uid"], c["generation"], c["verb"])] += 1
        if c["verb"] == "create":
            if where.get(c["uid"], c["host"]) != c["host"]:
                doubled.append(f"{c['uid']} was made on {c['host']} while it lived on {where[c['uid']]}")
            elif c["uid"] in where:
                doubled.append(f"{c['uid']} was made on {c['host']} twice, without a removal between")
            where[c["uid"]] = c["host"]
        elif c["verb"] == "remove" and where.get(c["uid"]) == c["host"]:
            del where[c["uid"]]
    # Removing what is gone changes nothing, and a removal that was not heard of is asked for again; so is a resize whose agent was killed before it had recorded that it was done.
    doubled += [f"{n} successful {v} calls for {u} generation {g}" for (u, g, v), n in sorted(seen.items()) if n > 1 and v != "remove"]
    return doubled


def check_live(lines, final):
    """What runs on the hosts is what the record wants, once; what nobody touched is the very same process."""
    lost, doubled, orphaned = [], [], []
    wanted = {c["uid"]: c for c in final["containers"]}
    live = collections.defaultdict(list)
    for p in final["live"]:
        if p["running"]:
            live[p["uid"]].append(p)
    for uid, found in sorted(live.items()):
        if len(found) > 1:
            doubled.append(f"{uid} runs {len(found)} times: {[(p['host'], p['pid']) for p in found]}")
        if uid not in wanted:
            orphaned.append(f"{uid} runs on {found[0]['host']} and is not in the record")
        elif wanted[uid]["desired"] != "RUNNING":
            orphaned.append(f"{wanted[uid]['name']} runs on {found[0]['host']} and should not: {wanted[uid]['desired']}")
        elif wanted[uid]["host"] != found[0]["host"]:
            orphaned.append(f"{wanted[uid]['name']} runs on {found[0]['host']}; the record has it on {wanted[uid]['host'] or 'no host'}")
    for p in final["live"]:
        if not p["running"] and p["uid"] not in wanted:
            orphaned.append(f"{p['uid']} is left over on {p['host']}")
    for uid, c in sorted(wanted.items()):
        if c["state"] == "FAILED":
            continue  # its owner was told so
        if c["desired"] == "RUNNING" and not live[uid]:
            lost.append(f"{c['name']} ({uid}) should run on {c['host']} and does not; the record has it as {c['state']}")
        for p in live[uid]:
            if c["memory_bytes"] and p.get("memory_bytes") and p["memory_bytes"] != c["memory_bytes"]:
                lost.append(f"{c['name']}: its memory limit is {p['memory_bytes']}, and should be {c['memory_bytes']}")
    for k in lines["kept"]:
        if not any((p["pid"], p["start_ticks"]) == (k["pid"], k["start_ticks"]) for p in live[k["uid"]]):
            lost.append(f"{k['name']}: the process {k['pid']} started at {k['start_ticks']} that nobody touched is gone; there is {live[k['uid']]}")
    return lost, doubled, orphaned


def check_sequences(lines, final):
    """Each watcher was told each sequence once, in order, up to the end; all were told the same; the record has all of them."""
    gaps = []
    last = collections.defaultdict(int)
    watchers = {(t["who"], t["region"]) for t in lines["told"]}
    for t in lines["told"]:
        key = (t["who"], t["region"])
        if t["first"] != last[key] + 1:
            gaps.append(f"{t['who']} in {t['region']}: told {t['first']} after {last[key]}")
        last[key] = max(last[key], t["last"])
    for region, r in sorted(final["regions"].items()):
        if not any(w[1] == region for w in watchers):
            gaps.append(f"{region}: nobody was told anything")
        for w in sorted(w for w in watchers if w[1] == region):
            if last[w] != r["sequence"]:
                gaps.append(f"{w[0]} in {region}: told up to {last[w]} of {r['sequence']}")
        if r["events"] != r["last"] - r["first"] + 1 or r["last"] != r["sequence"] or r["first"] > r["oldest"]:
            gaps.append(f"{region}: the record has {r['events']} events, {r['first']} to {r['last']}, of {r['oldest']} to {r['sequence']}")
        if r["watermark"] != r["sequence"]:
            gaps.append(f"{region}: the watermark is {r['watermark']}, and the sequence {r['sequence']}")
    gaps += [f"{s['who']} in {s['region']}: a heartbeat at {s['sequence']} after {s['told']}" for s in lines["skipped"]]
    sums = {}
    for b in lines["block"]:
        key = (b["region"], b["block"])
        if sums.setdefault(key, b["sum"]) != b["sum"]:
            gaps.append(f"{b['region']}: watchers were told different events in block {b['block']}")
    return gaps


def check(history, final):
    """{kind: [violations]} of a run; final None: the final state could not be read."""
    found = {k: [] for k in KINDS}
    if final is None:
        return found
    lines = by_kind(history)
    lines["calls_by_id"] = {c["id"]: c for c in lines["call"]}
    ends, answers, live = check_ends(lines, final), check_answers(lines, final), check_live(lines, final)
    word = check_last_word(lines, final)
    found["lost"] = ends[0] + answers[0] + check_effects(lines, final) + word[0] + live[0]
    found["duplicated"] = ends[1] + answers[1] + check_calls(final) + live[1]
    found["orphaned"] = answers[2] + word[1] + live[2] + [f"{t['what']} is left on {t['host']}: {t['name']}" for t in final["left"]]
    found["gaps"] = check_sequences(lines, final)
    return found


def verdict(history, final):
    """(the run's result, its violations, why it is INVALID or "")."""
    found = check(history, final)
    faults = sum(line["k"] == "fault" and bool(line["landed"]) for line in history)
    count = len(acknowledged(history))
    why = [w for w, bad in (("no fault landed", not faults), ("nothing was acknowledged", not count), ("the final state could not be read", final is None)) if bad]
    word = "INVALID" if why else "FAIL" if any(found.values()) else "PASS"
    return {"faults": faults, "acknowledged": count, **{k: len(found[k]) for k in KINDS}, "verdict": word}, found, ", ".join(why)


def bound(result):
    """What the counts say of the rate, in words: the rule of three."""
    n = result["acknowledged"]
    if result["verdict"] != "PASS" or not n:
        return "no bound: the run did not pass"
    return f"0 of {n} acknowledged events were lost, doubled or orphaned: with 95 % confidence fewer than {3 / n:.2g} of all (3/n), given faults like these {result['faults']}"


def report(history, final, shown=20):
    """The lines that a run prints last; the JSON object is the last one."""
    result, found, why = verdict(history, final)
    text = [f"{kind}: {v}" for kind in KINDS for v in found[kind][:shown]]
    text += [f"{kind}: and {len(found[kind]) - shown} more" for kind in KINDS if len(found[kind]) > shown]
    if why:
        text.append("INVALID: " + why)
    return result, [*text, bound(result), json.dumps(result)]
