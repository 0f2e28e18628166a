"""Placements a second beside Slurm's controller: both choose hosts of a simulated fleet, in the same run.

    --hosts N[,N...]   fleets (1000,10000)
    --jobs N           that Slurm starts in each (5000)
    --smoke            100 hosts, 200 jobs

What each number includes. Slurm (slurmctld alone, sched/builtin, cons_tres, no accounting, auth/none): choice, the job's allocation, its state saved to disk in the background. Its hosts are cloud nodes that are always being resumed, so nothing is launched and no host is spoken to; jobs have one of four
sizes. Harpoon, "decision only" (bench-placement, "steady"): choice, claim, end of an earlier container, loads of hosts; nothing recorded and nothing sent; by CPU time of its thread only. So this is orientation, not a ratio of equals: scheduler-throughput has Harpoon's decisions recorded and sent.

How it could cheat, and what prevents that: by making submission the limit (all jobs wait in a partition that is down; the clock starts before it is put up); by counting what was not started (jobs with hosts are counted by squeue, and must be all); by waiting (settings are printed, and CPU time of slurmctld
is given beside the clock; looking is once in half a second, and its cost is in Slurm's); by a fleet that is full (what is not started after 300 s fails the run).
"""
import argparse
import json
import os
import socket
import subprocess
import tempfile
import time

import measure
from measure import rounded, say
from paths import BUILD

SHAPE = {"legs": [{"peer": str, "hosts": int, "per_core_s": float}], "settings": str}
SIZES = 4
SETTINGS = "defer,batch_sched_delay=0,sched_min_interval=0,sched_interval=1,default_queue_depth=100000"
CONFIG = """ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={dir}
SlurmctldPidFile={dir}/pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters={settings}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MaxJobCount=200000
MaxArraySize=100001
SlurmctldDebug=error
ResumeProgram=/bin/true
SuspendProgram=/bin/true
ResumeTimeout=3600
SuspendTime=100000
ResumeRate=0
NodeName=n[1-{hosts}] CPUs=64 RealMemory=262144 State=CLOUD
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=DOWN
"""


def ask(env, *argv, text=None):
    return subprocess.run(argv, env=env, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


def slurm(hosts, jobs):
    controller = measure.program("slurmctld-wlm", "slurmctld")
    measure.program("sbatch", "slurm-client")
    with tempfile.TemporaryDirectory(prefix="placement-peers-") as top:
        env = os.environ | {"SLURM_CONF": os.path.join(top, "slurm.conf")}
        with open(env["SLURM_CONF"], "w") as f:
            f.write(CONFIG.format(host=socket.gethostname().split(".")[0], port=measure.free_port(), dir=top, settings=SETTINGS, hosts=hosts))
        child = measure.start([controller, "-D", "-f", env["SLURM_CONF"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            measure.wait_until(lambda: subprocess.run(["scontrol", "ping"], env=env, capture_output=True, text=True, check=False, timeout=60).stdout.find("UP") >= 0, 30, "slurmctld")
            for i in range(1, SIZES + 1):
                ask(env, "sbatch", "-D", "/", "-o", "/dev/null", "-c", str(i), f"--mem={i * 700}", f"--array=1-{jobs // SIZES}", text="#!/bin/sh\n")
            wanted = jobs // SIZES * SIZES
            cpu, began = measure.cpu_seconds(child.pid), time.monotonic()
            ask(env, "scontrol", "update", "partition=p", "state=up")
            while ask(env, "squeue", "-h", "-r", "-t", "CF,R", "-o", "%N").count("n") < wanted:
                if time.monotonic() - began > 300:
                    raise SystemExit("placement-peers: Slurm did not start all jobs in 300 s")
                measure.pause(0.5)
            seconds, cpu = time.monotonic() - began, measure.cpu_seconds(child.pid) - cpu
        finally:
            measure.end(child)
    version = ask(None, controller, "-V").split()[-1]
    return {"peer": f"slurm {version}, allocation without launch", "hosts": hosts, "started_per_s": rounded(wanted / seconds), "per_core_s": rounded(wanted / max(cpu, 0.01))}


def harpoon(hosts, placements):
    began = time.monotonic()
    done = subprocess.run([os.path.join(BUILD, "tests", "bench-placement"), str(hosts), "steady", str(placements), "20", "1"], capture_output=True, text=True, check=True)
    say(f"bench-placement took {time.monotonic() - began:.1f} s")
    rate = json.loads(done.stdout.splitlines()[-1])["placements_per_s"]
    return {"peer": "harpoon, decision only", "hosts": hosts, "per_core_s": rate}


def main(argv):
    parser = argparse.ArgumentParser(prog="placement-peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1000,10000")
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args(argv)
    if args.smoke:
        args.hosts, args.jobs = "100", 200
    legs = []
    for hosts in (int(n) for n in args.hosts.split(",")):
        for leg in (slurm(hosts, args.jobs), harpoon(hosts, 300 if args.smoke else 200000)):
            say(json.dumps(leg))
            legs.append(leg)
    print(json.dumps({"legs": legs, "settings": SETTINGS}))
    return 0
