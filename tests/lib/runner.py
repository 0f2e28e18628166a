"""The engine of tests/run: builds, runs the suites, counts.

    lint     clang-format, clang-tidy (tests/lint/tidy.py: not again where nothing changed), the include graph, the shape of the .proto files, buf
    unit     every unit test in four builds: gcc; clang with AddressSanitizer and UBSan; clang with ThreadSanitizer; clang
    sim      the seeded simulation of the cores; and mutants, which show that these and other checks can fail
    io       common/io against a private RabbitMQ and MariaDB; the agent's runtime with real containers, here and, for cgroup v1 and v2, in virtual machines
    e2e      tests/e2e/*_test.py: whole stacks, real containers, clients from elsewhere
    chaos    tests/e2e/chaos_*_test.py: the same with things killed in the middle; the short form of tests/chaos/run (HARPOON_SEED=N: with that seed).
             tests/e2e/chaos_faults_test.py fails a few calls of each daemon; its --all fails every one (--help)
    fuzz     each target of tests/fuzz over its committed corpus, then over new input for a minute, or as many as FUZZ_RUNS says: made from --fuzz-seed N (1), the same in the same order on every machine for the same
             code, but for amqp, connect and journal, in which threads, time and chance have a part.
             --fuzz-seconds N: whatever N seconds give, guided by comparisons too; 0: the corpus alone. Targets run side by side, one a core; -k WORD chooses targets. An input that fails is left in
             tests/fuzz/corpus/NAME: commit it with what mends it
    bench    every benchmark, small (tests/bench/run --smoke): that each does what it says, not how fast anything is
    console  the web console's tests, once there is one
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from paths import JS, TOP  # noqa: E402

SUITES = ["lint", "unit", "sim", "io", "e2e", "chaos", "fuzz", "bench", "console"]
JOBS = os.cpu_count() or 2
TEST_SECONDS = 900  # one file of end-to-end tests
# New input of one fuzz target: a quarter of a minute to one and a half. A slower one stops early.
FUZZ_RUNS = {"admission": 6500, "agent_core": 85000, "agent_frames": 480000, "amqp": 100000, "codec": 3500000, "config": 1000000, "connect": 17000, "grpc_client": 450000, "grpc_server": 370000,
             "grpc_texts": 340000, "image": 560000, "journal": 12000, "json": 720000, "layer": 42000, "names": 60000, "router_core": 26000, "scheduler": 18900}
FUZZ_RUNS_OTHERS = 10000
FUZZ_SECONDS_MAX = 60
REASON_MAX = 500
BUILDS = {  # directory: (environment, meson options)
    "build": ({"CC": "gcc"}, ["--buildtype=release", "-Ddebug=true"]),
    "build-asan": ({"CC": "clang"}, ["--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "build-tsan": ({"CC": "clang"}, ["--buildtype=debugoptimized", "-Db_sanitize=thread", "-Db_lundef=false"]),
    "build-clang": ({"CC": "clang"}, ["--buildtype=release"]),
    "build-fuzz": ({"CC": "clang"}, ["--buildtype=debugoptimized", "-Dfuzz=true", "-Db_lundef=false"]),
}
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Tally:
    """What passed, failed and was skipped; a skip has a reason."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], []
        self.figures = []  # a suite's last line, which is printed before the tally
        self.results = []  # lines that are shown once more before the count

    def ok(self, count=1):
        self.passed += count

    def bad(self, name, text=""):
        self.failed.append(f"{name}: {reason(text)}")
        print(f"FAILED {name}\n{text}", flush=True)

    def skip(self, name, why):
        self.skipped.append(name)
        print(f"skipped {name}: {why}", flush=True)


def reason(text):
    """The line of a failed test's output that says most, for the list at the end: what stands there is read when the log is cut."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    for pattern in (r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error: ", r"\[ +ERROR +\] --- (?!Test failed)|: error: Failure!", r"^\w*(Error|Exception)\b.*: ", r"(?i)\berror\b|\bassert"):
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return " | ".join(dict.fromkeys((found[0], found[-1])))[:REASON_MAX]
    return (lines[-1] if lines else "no word of why")[:REASON_MAX]


class Machine:
    """What the machine gave while a suite ran: when a test missed a deadline, this tells whether it was the test's doing. Seconds since the last look, as parts of the time that passed."""

    def __init__(self):
        self.at = self.look()

    @staticmethod
    def look():
        """(seconds, processor seconds taken by other machines, seconds in which everything that could run waited for the disk)"""
        stolen, waited = 0.0, 0.0
        with open("/proc/stat", encoding="ascii") as f:
            stolen = int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
        if os.path.exists("/proc/pressure/io"):
            with open("/proc/pressure/io", encoding="ascii") as f:
                waited = int(re.search(r"full .*total=(\d+)", f.read())[1]) / 1e6
        return time.monotonic(), stolen, waited

    def since(self):
        before, self.at = self.at, self.look()
        passed, stolen, waited = (now - then for now, then in zip(self.at, before))
        return f"stolen {stolen / max(passed, 1) / os.cpu_count():.1%}, disk awaited {waited / max(passed, 1):.1%}"


def say(text):
    print(f"== {text}", flush=True)


def run(argv, **kwargs):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, cwd=TOP, **kwargs)


def check(tally, name, argv, **kwargs):
    """One command as one test."""
    done = run(argv, **kwargs)
    if done.returncode == 0:
        tally.ok()
    else:
        tally.bad(name, done.stdout)
    return done.returncode == 0


def build(tally, directory, *targets):
    """Sets up and builds (everything, or the targets); False when that failed."""
    began = time.monotonic()
    env, options = BUILDS[directory]
    path = os.path.join(TOP, directory)
    # Nothing in an object tells where its clone is, so that ccache finds for one what another has compiled.
    env = {**os.environ, **env, "CFLAGS": f"-fdebug-prefix-map={path}=build", "CCACHE_BASEDIR": TOP}
    if shutil.which("ccache"):
        env["CC"] = "ccache " + env["CC"]
    if not os.path.exists(os.path.join(path, "build.ninja")):
        done = run(["meson", "setup", path, TOP, *options], env=env)
        if done.returncode != 0:
            tally.bad(f"meson setup {directory}", done.stdout[-8000:])
            return False
    done = run(["ninja", "-C", path, *targets], env=env)
    if done.returncode != 0:
        tally.bad(f"build {directory}", done.stdout[-8000:])
        return False
    say(f"built {directory} in {time.monotonic() - began:.0f} s")
    return True


def cases_of(output):
    """(passed, failed, skipped) test cases of a cmocka program's output; (1, 0, 0) for a program of another kind."""
    def count(word):
        return sum(int(n) for n in re.findall(r"\[ *" + word + r" *\] (\d+) test\(s\)", output))
    found = count("PASSED"), count("FAILED"), count("SKIPPED")
    return found if any(found) else (1, 0, 0)


def meson_tests(tally, directory, suite, env=None, timeout_multiplier=1, each=None):
    """Runs one meson suite and counts its cases; `each` is told every test's name and output. False when the suite has no tests."""
    path = os.path.join(TOP, directory)
    listed = run(["meson", "introspect", "--tests", path]).stdout
    if not any(suite in s.split(":") for test in json.loads(listed) for s in test["suite"]):
        return False
    began = time.monotonic()
    log = os.path.join(path, "meson-logs/testlog.json")
    if os.path.exists(log):
        os.unlink(log)
    done = run(["meson", "test", "-C", path, "--no-rebuild", "--suite", suite, "--timeout-multiplier", str(timeout_multiplier)],
               env={**os.environ, **SANITIZERS, **(env or {})})
    if not os.path.exists(log):
        tally.bad(f"{suite} in {directory}", done.stdout)
        return True
    total = 0
    with open(log) as f:
        for line in f:
            test = json.loads(line)
            output = test.get("stdout", "") + test.get("stderr", "")
            if each:
                each(test["name"], output)
            passed, failed, skipped = cases_of(output)
            total += passed + failed
            name = f"{test['name']} ({directory})"
            if test["result"] == "SKIP":
                tally.skip(name, output.strip().splitlines()[-1] if output.strip() else "the program says so")
            elif test["result"] not in ("OK", "EXPECTEDFAIL"):
                tally.passed += passed if failed else 0
                tally.failed += [f"{name}: another of its cases"] * (max(failed, 1) - 1)
                tally.bad(name, f"{test['result']}\n{output[-12000:]}")
            else:
                tally.ok(passed)
                for _ in range(skipped):
                    tally.skip(name, "the test case says so")
    say(f"{suite} in {directory}: {total} cases in {time.monotonic() - began:.0f} s")
    return True


def c_files():
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h"]).stdout.split()
    return [p for p in listed if os.path.exists(os.path.join(TOP, p))]


def lint(tally, _args):
    say("lint")
    files = c_files()
    done = run(["clang-format", "--dry-run", "--Werror", *files])
    if done.returncode == 0:
        tally.ok()
    else:
        tally.bad("clang-format", done.stdout[-6000:] + "\nmend with: git ls-files '*.c' '*.h' | xargs clang-format -i")
    check(tally, "include graph", [os.path.join(TOP, "tests/lint/include_graph.py")])
    check(tally, "proto shape", [os.path.join(TOP, "tests/lint/proto_shape.py")])
    for script in sorted(glob.glob(os.path.join(TOP, "tests/lint/*.sh"))):
        check(tally, os.path.relpath(script, TOP), [script], env={**os.environ, "PATH": f"{JS}/node_modules/.bin:{os.environ['PATH']}"})
    python_tests(tally, sorted(glob.glob(os.path.join(TOP, "tests/lint/*_test.py"))), None, 1)
    if build(tally, "build"):
        tidy(tally)


def tidy(tally):
    """clang-tidy on every compiled file of ours that is not known to be clean, as one test a file."""
    began = time.monotonic()
    done = run([os.path.join(TOP, "tests/lint/tidy.py")])
    report, _, last = done.stdout.rstrip().rpartition("\n")
    count = re.fullmatch(r"(\d+) files, (\d+) from the cache, (\d+) failed", last)
    if not count or (done.returncode == 0) != (count[3] == "0"):
        tally.bad("clang-tidy", done.stdout)
        return
    tally.ok(int(count[1]) - int(count[3]))
    for text in re.split(r"^FAILED ", report, flags=re.M)[1:]:
        name, _, output = text.partition("\n")
        tally.bad(f"clang-tidy {name}", output)
    say(f"clang-tidy: {last} in {time.monotonic() - began:.0f} s")


def unit(tally, _args):
    for directory, multiplier in (("build", 1), ("build-asan", 3), ("build-tsan", 5), ("build-clang", 1)):
        if build(tally, directory) and not meson_tests(tally, directory, "unit", timeout_multiplier=multiplier):
            tally.bad(f"unit in {directory}", "there are no unit tests")


def sim(tally, _args):
    if not build(tally, "build"):
        return
    total = {"seeds": 0, "operations": 0, "faults": 0, "violations": 0}

    def add(name, output):
        """Sums what the shares of the seeds say in their last lines."""
        if not re.fullmatch(r"(.* )?sim-\d+", name):
            return
        last = output.rstrip().rpartition("\n")[2]
        if not last.startswith("{"):
            tally.bad(name, "does not end with its figures")
            return
        for key, value in json.loads(last).items():
            total[key] += value

    meson_tests(tally, "build", "sim", each=add)
    tally.figures.append(json.dumps(total, separators=(",", ":")))
    mutants(tally)


def mutants(tally):
    """Our code broken on purpose, as one test a mutant: the checks can fail."""
    done = run([os.path.join(TOP, "tests/mutants/run"), "--build", os.path.join(TOP, "build")])
    last = done.stdout.rstrip().rpartition("\n")[2]
    result = json.loads(last) if last.startswith("{") else {"caught": 0, "failed": ["all"], "seconds": 0}
    tally.ok(result["caught"])
    for name in result["failed"]:
        tally.bad(f"mutant {name}", done.stdout if name == result["failed"][0] else "")
    say(f"mutants: {result['caught']} caught in {result['seconds']:.0f} s")


def io(tally, _args):
    """Each program starts the private servers that it needs: tests/lib/servers."""
    if build(tally, "build-asan") and not meson_tests(tally, "build-asan", "io", timeout_multiplier=3):
        tally.bad("io in build-asan", "there are no io tests")
    if build(tally, "build"):  # emulated processors are slow enough without a sanitizer
        meson_tests(tally, "build", "vm")


def python_file(path, word):
    """Runs one file of Python tests in a process of its own. Returns (its results or None, its output, seconds)."""
    began = time.monotonic()
    with tempfile.NamedTemporaryFile("r", suffix=".json") as report:
        argv = ["/usr/bin/python3", os.path.join(TOP, "tests/lib/pytest_file.py"), path, report.name] + (["-k", word] if word else [])
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=TOP)
        try:
            output, _ = child.communicate(timeout=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)  # lets it take its stacks down
            try:
                output, _ = child.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                child.kill()
                output, _ = child.communicate()
            return None, f"not done after {TEST_SECONDS} s\n{output[-8000:]}", time.monotonic() - began
        text = report.read()
    return json.loads(text) if text else None, output, time.monotonic() - began


def python_tests(tally, files, word, jobs):
    """Each file has a stack of its own, and `jobs` of them run side by side."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for path, (result, output, seconds) in zip(files, pool.map(lambda p: python_file(p, word), files)):
            name = os.path.relpath(path, TOP)
            if result is None:
                tally.bad(name, output)
                continue
            tally.ok(result["passed"])
            for case, why in result["failed"]:
                tally.bad(case, why)
            for case, why in result["skipped"]:
                tally.skip(case, why)
            say(f"{name}: {result['passed']} passed, {len(result['failed'])} failed in {seconds:.0f} s")


def e2e(tally, args):
    if build(tally, "build"):
        every = sorted(glob.glob(os.path.join(TOP, "tests/e2e/*_test.py")))
        python_tests(tally, [p for p in every if not os.path.basename(p).startswith("chaos_")], args.k, JOBS)  # they mostly wait


def chaos(tally, args):
    if build(tally, "build"):
        files = sorted(glob.glob(os.path.join(TOP, "tests/e2e/chaos_*_test.py"))) + sorted(glob.glob(os.path.join(TOP, "tests/chaos/*_test.py")))
        python_tests(tally, files, args.k, 1)
        if not args.k:
            nemesis(tally)


def nemesis(tally):
    """A stack under the nemesis, as one test. Its result is a JSON object on its last line."""
    began = time.monotonic()
    done = run([os.path.join(TOP, "tests/chaos/run"), "--short", "--seed", os.environ.get("HARPOON_SEED", "1")])
    lines = done.stdout.rstrip().splitlines() or [""]
    if done.returncode == 0:
        tally.ok()
    else:
        tally.bad("tests/chaos/run --short", done.stdout[-12000:])
    tally.results += lines[-2:]
    say(f"tests/chaos/run: {lines[-1]} in {time.monotonic() - began:.0f} s")


def fuzz_plan(name, corpus, work, args):
    """(what comes before the program, libFuzzer's options) for new input. By count, nothing may depend on time or on where memory lies: the same inputs are made everywhere."""
    new = os.path.join(work, "new")
    os.mkdir(new)
    if args.fuzz_seconds is not None:
        return [], [f"-max_total_time={args.fuzz_seconds}", f"-seed={args.fuzz_seed}", new, corpus]
    seeds = os.path.join(work, "seeds")
    with open(seeds, "w") as f:
        f.write(",".join(sorted(glob.glob(os.path.join(corpus, "*")))))
    fixed_addresses = ["setarch", "-R"]
    before = fixed_addresses if run([*fixed_addresses, "true"]).returncode == 0 else []
    return before, [f"-runs={FUZZ_RUNS.get(name, FUZZ_RUNS_OTHERS)}", f"-max_total_time={FUZZ_SECONDS_MAX}", f"-seed={args.fuzz_seed}", "-reload=0", "-use_cmp=0", "-detect_leaks=0",
                    f"-seed_inputs=@{seeds}", new]


def fuzz_target(name, args):
    """The corpus, then new input. (name, what went wrong or None, a line to print)"""
    corpus = os.path.join(TOP, "tests/fuzz/corpus", name)
    program = os.path.join(TOP, "build-fuzz/tests/fuzz/fuzz-" + name)
    options = ["-timeout=100", "-rss_limit_mb=2500", "-max_len=16384", "-len_control=0", "-entropic=0"]
    env = {**os.environ, **SANITIZERS, "CMOCKA_TEST_ABORT": "1"}
    with tempfile.TemporaryDirectory() as work:
        left = os.path.join(work, "left") + os.sep
        os.mkdir(left)
        parts = [("corpus", ([], ["-runs=0", corpus]))]
        if args.fuzz_seconds != 0:
            parts.append(("new input", fuzz_plan(name, corpus, work, args)))
        for kind, (before, argv) in parts:
            done = run([*before, program, *options, "-artifact_prefix=" + left, *argv], env=env)
            if done.returncode != 0:
                kept = [shutil.copy(os.path.join(left, f), corpus) for f in os.listdir(left)]
                return name, f"{kind}: {' '.join(kept) or 'no input was left'}\n{done.stdout[-6000:]}", None
        return name, None, done.stdout.strip().splitlines()[-1]


def fuzz(tally, args):
    if not build(tally, "build-fuzz", "fuzzers"):
        return
    names = sorted(p.split("fuzz-")[-1] for p in glob.glob(os.path.join(TOP, "build-fuzz/tests/fuzz/fuzz-*")) if os.access(p, os.X_OK) and os.path.isfile(p))
    names = [n for n in names if not args.k or args.k in n]
    if not names:
        tally.skip("fuzz", "no target has such a name")
        return
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for name, wrong, line in pool.map(lambda n: fuzz_target(n, args), names):
            if wrong:
                tally.bad(f"fuzz {name}", wrong)
            else:
                tally.ok()
                say(f"fuzz {name}: {line}")
    say(f"fuzz: {len(names)} targets, --fuzz-seed {args.fuzz_seed}, in {time.monotonic() - began:.0f} s")


def bench(tally, _args):
    """Each benchmark as one test."""
    if not build(tally, "build"):
        return
    began = time.monotonic()
    done = run([os.path.join(TOP, "tests/bench/run"), "--smoke"])
    report, _, last = done.stdout.rstrip().rpartition("\n")
    count = re.fullmatch(r"(\d+) passed, (\d+) failed", last)
    if not count or (done.returncode == 0) != (count[2] == "0"):
        tally.bad("bench", done.stdout[-12000:])
        return
    tally.ok(int(count[1]))
    for text in re.split(r"^FAILED ", report, flags=re.M)[1:]:
        name, _, output = text.partition(":")
        tally.bad(f"bench {name}", output)
    say(f"bench: {last} in {time.monotonic() - began:.0f} s")


def console(tally, _args):
    script = os.path.join(TOP, "console/test")
    if os.path.exists(script):
        check(tally, "console", [script])
    else:
        tally.skip("console", "there is no console yet")


def main():
    parser = argparse.ArgumentParser(prog="tests/run")
    parser.add_argument("suite", nargs="*", choices=[*SUITES, "all", []])
    parser.add_argument("-k", metavar="WORD", help="only end-to-end tests whose name holds WORD")
    parser.add_argument("--fuzz-seconds", type=int, metavar="N", help="seconds of new input for each fuzz target, instead of a count")
    parser.add_argument("--fuzz-seed", type=int, default=1, metavar="N", help="of the new input (1)")
    args = parser.parse_args()
    chosen = SUITES if not args.suite or "all" in args.suite else args.suite
    tally = Tally()
    began = time.monotonic()
    spent = []
    machine = Machine()
    for suite in chosen:
        start = time.monotonic()
        globals()[suite](tally, args)
        spent.append(f"{suite} {time.monotonic() - start:.0f} s ({machine.since()})")
    say(f"{', '.join(spent)}; together {time.monotonic() - began:.0f} s")
    for name in tally.failed:
        print(f"FAILED {name}")
    for line in tally.results:
        print(line)
    for line in tally.figures:
        print(line)
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped", flush=True)
    return 1 if tally.failed or not (tally.passed or tally.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
