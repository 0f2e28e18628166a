#!/usr/bin/python3
"""Compares the traces of the main paths with the committed ones, so that a change of behaviour shows as a diff.

    tests/sim/golden.py BUILD/tests/sim/sim [--write]

--write rewrites tests/sim/golden/ instead: look at the diff, and commit it with the change that caused it.
"""
import argparse
import difflib
import glob
import os
import subprocess
import sys

GOLDEN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "golden")


def trace(sim, name):
    done = subprocess.run([sim, "--scenario", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    return done.returncode, done.stdout


def differs(path, text):
    old = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            old = f.read()
    lines = list(difflib.unified_diff(old.splitlines(True), text.splitlines(True), os.path.basename(path), "now"))
    sys.stdout.writelines(lines)
    return bool(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sim")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    names = subprocess.run([args.sim, "--scenarios"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    bad = []
    for name in names:
        code, text = trace(args.sim, name)
        path = os.path.join(GOLDEN, name + ".trace")
        if code:
            print(f"{name}: ended with {code}\n{text[-3000:]}")
            bad.append(name)
        elif args.write:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        elif differs(path, text):
            bad.append(name)
    for path in sorted(glob.glob(os.path.join(GOLDEN, "*.trace"))):
        if os.path.basename(path)[:-6] not in names:
            print(f"{os.path.basename(path)}: there is no such scenario")
            bad.append(path)
    if bad:
        print("when this is meant: tests/sim/golden.py BUILD/tests/sim/sim --write, and commit the diff")
    print(f"{len(names)} traces, {len(bad)} differ")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
