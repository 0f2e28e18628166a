"""Placements a second of one core, from 1,000 to 1,000,000 hosts, a sample of them compared with a look at every host.

    --hosts N[,N...]      fleets (1000,10000,100000,1000000)
    --placements N        of each leg (200000); a leg without index makes as many as take about two seconds
    --asked-hosts N       legs with something more asked for are left out in larger fleets, which they take minutes to fill (10000)
    --seed N              (1)
    --smoke               1,000 hosts, 300 placements (of mixed requests fewer hosts cannot take nine tenths)

Legs: "steady" (each host's load comes every 10 s), "load-each" (with every placement the load of one random host), "scan" (the look at every host that the index
replaces), and, as "steady" with one more thing asked for, "spread", "max-skew", "primaries", "image", "preferences", "storage", or several of them, "mixed". The head of placement.c says what counts, how it could cheat, and what prevents it. Fails on a placement that is not the best.
"""
import argparse
import json
import os
import subprocess
import sys

from paths import BUILD

SHAPE = {"legs": [{"hosts": int, "leg": str, "placements_per_s": float}]}
SCANNED_HOSTS = 40_000_000  # of all placements of a leg without index
CHECKED_HOSTS = 20_000_000  # of all comparisons of a leg


def run(hosts, leg, placements, checks, seed):
    done = subprocess.run([os.path.join(BUILD, "tests", "bench-placement"), str(hosts), leg, str(placements), str(checks), str(seed)], stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    if not lines:
        raise SystemExit(f"placement: {leg} of {hosts} hosts ended with {done.returncode}")
    return json.loads(lines[-1]), done.returncode


def main(argv):
    parser = argparse.ArgumentParser(prog="placement", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1000,10000,100000,1000000")
    parser.add_argument("--placements", type=int, default=200000)
    parser.add_argument("--asked-hosts", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.hosts, args.placements = "1000", 300
    legs, failed = [], False
    for hosts in (int(n) for n in args.hosts.split(",")):
        checks = max(20, min(2000, CHECKED_HOSTS // hosts))
        asked = ("spread", "max-skew", "primaries", "image", "preferences", "storage", "mixed") if hosts <= args.asked_hosts else ()
        for leg in ("steady", "load-each", *asked, "scan"):
            placements = min(args.placements, max(40, SCANNED_HOSTS // hosts)) if leg == "scan" else args.placements
            result, code = run(hosts, leg, placements, 0 if leg == "scan" else checks, args.seed)
            legs.append(result)
            failed |= code != 0
    print(json.dumps({"legs": legs}))
    return 1 if failed else 0
