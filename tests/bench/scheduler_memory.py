"""What hosts and containers at rest cost a scheduler in memory, and what taking a region over costs it for each container in CPU time.

Assumed is what a scheduler finds in the record of a region that is at work: hosts with facts and twelve images each; containers that run, nothing under way on them. A spec has an image, a command
with four options, ten environment variables, two volumes, a probe, limits, four labels and a spread group: about 1 kB packed. Containers have names, uids, processes, addresses and times of their own.

"lines": fifty containers are of one line of business: the same spec and labels. "all-differ": no two specs are alike; that is the most that it can cost.

How it could cheat: by counting only what it asks the allocator for (counted is the process's resident memory, with what the allocator loses); by leaving out the maps, groups and indexes (they are
there); by packing and never being able to unpack (tests/unit/scheduler_rest_test.c compares each kind of container with its row, byte by byte).

    --hosts N         (2,000)
    --containers N    (100,000)
    --smoke           100 hosts, 5,000 containers
"""
import argparse
import json
import os
import subprocess
import sys

from paths import BUILD

LEGS = {"lines": 50, "all-differ": 1}
SHAPE = {"legs": [{"leg": str, "host_bytes": float, "container_bytes": float, "takeover_us": float}]}


def main(argv):
    parser = argparse.ArgumentParser(prog="scheduler-memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--containers", type=int, default=100000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.hosts, args.containers = 100, 5000
    legs = []
    for leg, line in LEGS.items():
        command = [os.path.join(BUILD, "tests", "bench-scheduler-memory"), str(args.hosts), str(args.containers), str(line)]
        legs.append({"leg": leg, **json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)})
        x = legs[-1]
        print(f"{leg}: {x['container_bytes']} bytes a container of {x['spec_bytes']} bytes of spec, {x['host_bytes']} a host; {x['takeover_us']} us to take one over", file=sys.stderr, flush=True)
    print(json.dumps({"legs": legs}))
    return 0
