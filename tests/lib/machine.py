"""What the kernel says of containers: /proc and cgroup files, on cgroup v1, hybrid and v2."""
import os


def start_ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(")", 1)[1].split()[19])


def identity(pid):
    """(pid, start time), or None when there is no such process, or only its exit code, which nobody has read yet (a zombie)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            if f.read().rsplit(b")", 1)[1].split()[0] in (b"Z", b"X"):
                return None
        return pid, start_ticks(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def namespace(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def cgroup_file(pid, controller, v1_name, v2_name):
    """Content of the cgroup file that limits the process: the v1 one when that controller is mounted, else the v2 one."""
    paths = {}
    with open(f"/proc/{pid}/cgroup") as f:
        for line in f:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                paths[name] = path
    if controller in paths and paths[controller]:
        path, name = f"/sys/fs/cgroup/{controller}{paths[controller]}", v1_name
    else:
        root = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
        path, name = root + paths[""], v2_name
    with open(os.path.join(path, name)) as f:
        return f.read().strip()


def memory_limit(pid):
    return int(cgroup_file(pid, "memory", "memory.limit_in_bytes", "memory.max"))


def cpu_limit_millis(pid):
    try:
        quota = int(cgroup_file(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0])
        period = int(cgroup_file(pid, "cpu", "cpu.cfs_period_us", "cpu.max").split()[-1])
    except ValueError:
        return 0
    return round(quota * 1000 / period)


def pids_limit(pid):
    return int(cgroup_file(pid, "pids", "pids.max", "pids.max"))


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]


def cgroup_roots():
    """Mount points of all cgroup hierarchies."""
    top = "/sys/fs/cgroup"
    roots = [os.path.join(top, d) for d in os.listdir(top) if os.path.exists(os.path.join(top, d, "cgroup.procs"))]
    return ([top] if os.path.exists(os.path.join(top, "cgroup.procs")) else []) or roots
