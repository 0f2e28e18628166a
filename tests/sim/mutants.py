#!/usr/bin/python3
"""Breaks the cores on purpose, one promise at a time, in a copy of the tree, and expects the simulation to notice. By hand: it builds the copy once and one
or two files for each mutant (about two minutes in all). The last line is JSON: {"mutants":…,"caught":…,"missed":[…]}.

    tests/sim/mutants.py [--seeds N] [NAME…]
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
# name: (file, what stands there, what stands there instead); each text occurs once
MUTANTS = {
    "dedupe-forgotten": ("scheduler/core/request.c", "const struct sc_operation *op = hp_map_get(&r->operations, q->operation_id);\n    if (op) {",
                         "const struct sc_operation *op = hp_map_get(&r->operations, \"-\");\n    if (op) {"),
    "repeat-behind-lookup": ("scheduler/core/operation.c", "bool asked = r->looking_up || r->answered_count;", "bool asked = false;"),
    "claim-not-recounted": ("scheduler/core/load.c", "        sc_host_recount(r, r->slots[i].info->host);", "        (void)i;"),
    "claim-not-released": ("scheduler/core/lifecycle.c",
                           "\"removed from its host after the create that did not succeed\");\n    sc_container_assign(r, c, NULL);\n    sc_container_claim(r, c, &(struct sc_res){0});",
                           "\"removed from its host after the create that did not succeed\");\n    sc_container_assign(r, c, NULL);"),
    "watermark-ahead": ("scheduler/core/events.c", "        if (!b->confirmed)\n            break;", "        if (!b->confirmed && b->sequence % 7)\n            break;"),
    "stale-generation-applied": ("host-agent/core/command.c", "if (cmd->generation < latest(c) || ", "if ("),
    "tombstone-ignored": ("host-agent/core/command.c", "if (g && cmd->verb != QUARANTINE && cmd->generation <= g->t.generation) {",
                          "if (g && cmd->verb != QUARANTINE && cmd->generation < 0) {"),
    "act-before-sync": ("host-agent/core/agent_core.c", "c->state == HA_S_INTENT && c->intent_seq <= core->synced_seq", "c->state == HA_S_INTENT"),
    "confirm-before-broker": ("event-router/core/reports.c", "s->reports.first->state == ER_DONE) {", "s->reports.first->state != ER_QUEUED) {"),
}


def run(argv, **kwargs):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, **kwargs)


def copy_tree(to):
    for path in run(["git", "-C", TOP, "ls-files"]).stdout.split():
        if os.path.exists(os.path.join(TOP, path)):
            os.makedirs(os.path.dirname(os.path.join(to, path)), exist_ok=True)
            shutil.copy2(os.path.join(TOP, path), os.path.join(to, path))


def build(tree):
    return run(["nice", "ninja", "-C", os.path.join(tree, "build"), "tests/sim/sim"])


def attempt(tree, seeds, name):
    """How the simulation noticed this mutant, or None."""
    path, old, new = MUTANTS[name]
    full = os.path.join(tree, path)
    with open(full, encoding="utf-8") as f:
        text = f.read()
    if text.count(old) != 1:
        sys.exit(f"{name}: its text occurs {text.count(old)} times in {path}: mend the table")
    with open(full, "w", encoding="utf-8") as f:
        f.write(text.replace(old, new))
    built = build(tree)
    if built.returncode:
        sys.exit(f"{name}: does not build\n{built.stdout[-3000:]}")
    done = run(["nice", os.path.join(tree, "build/tests/sim/sim"), "--seeds", str(seeds)])
    with open(full, "w", encoding="utf-8") as f:
        f.write(text)
    found = re.search(r"^VIOLATION (\S+) seed=(\d+)(.*)|Assertion `(.*)' failed", done.stdout, re.M)
    return found.group(0)[:160] if done.returncode and found else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1500)
    parser.add_argument("names", nargs="*", choices=[*MUTANTS, []])
    args = parser.parse_args()
    missed = []
    names = args.names or list(MUTANTS)
    with tempfile.TemporaryDirectory(prefix="harpoon-mutants-") as tree:
        copy_tree(tree)
        env = {**os.environ, "CC": "ccache gcc" if shutil.which("ccache") else "gcc"}
        setup = run(["meson", "setup", os.path.join(tree, "build"), tree], env=env)
        if setup.returncode:
            sys.exit(setup.stdout[-3000:])
        for name in names:
            how = attempt(tree, args.seeds, name)
            print(f"{name}: {how or 'NOT NOTICED'}", flush=True)
            if not how:
                missed.append(name)
    print(json.dumps({"mutants": len(names), "caught": len(names) - len(missed), "missed": missed}))
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
