"""What one region's decisions cost: operations a second from request to success in the scheduler's core alone, for fleets of several sizes.

    --operations N   of each fleet (20000)
"""
import argparse
import json
import os
import subprocess
import sys

from paths import BUILD

FLEETS = (100, 1000, 15000)


def main(argv):
    parser = argparse.ArgumentParser(prog="scheduler-core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=20000)
    args = parser.parse_args(argv)
    results = []
    for hosts in FLEETS:
        done = subprocess.run([os.path.join(BUILD, "tests", "bench-scheduler-core"), str(hosts), str(args.operations)], capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
        print(f"{hosts} hosts: {results[-1]['operations_per_s']} operations a second of one core", file=sys.stderr, flush=True)
    print(json.dumps({"fleets": results}))
    return 0
