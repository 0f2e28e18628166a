"""What one region's decisions cost: operations a second from request to success in the scheduler's core alone, for fleets of several sizes.

    --operations N   of each fleet (20000)
    --smoke          500 operations of fleets of 100 and 1,000
"""
import argparse
import json
import os
import subprocess
import sys

from paths import BUILD

FLEETS = (100, 1000, 15000)
SHAPE = {"fleets": [{"operations_per_s": float}]}


def main(argv):
    parser = argparse.ArgumentParser(prog="scheduler-core", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=20000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.operations = 500
    results = []
    for hosts in FLEETS[:2] if args.smoke else FLEETS:
        done = subprocess.run([os.path.join(BUILD, "tests", "bench-scheduler-core"), str(hosts), str(args.operations)], capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout))
        print(f"{hosts} hosts: {results[-1]['operations_per_s']} operations a second of one core", file=sys.stderr, flush=True)
    print(json.dumps({"fleets": results}))
    return 0
