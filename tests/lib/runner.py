"""The engine of tests/run: builds, runs the suites, counts.

    lint     clang-format, clang-tidy, the include graph, the shape of the .proto files, buf
    unit     every unit test in four builds: gcc; clang with AddressSanitizer and UBSan; clang with ThreadSanitizer; clang
    sim      the seeded simulation of the cores
    io       common/io against a private RabbitMQ and MariaDB
    e2e      tests/e2e/*_test.py: whole stacks, real containers, clients from elsewhere
    chaos    tests/e2e/chaos_*_test.py: the same with things killed in the middle
    fuzz     the committed corpus, and a minute of new input
    console  the web console's tests, once there is one
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from paths import JS, TOP  # noqa: E402

SUITES = ["lint", "unit", "sim", "io", "e2e", "chaos", "fuzz", "console"]
JOBS = os.cpu_count() or 2
TEST_SECONDS = 900  # one file of end-to-end tests
BUILDS = {  # directory: (environment, meson options)
    "build": ({"CC": "gcc"}, ["--buildtype=debugoptimized"]),
    "build-asan": ({"CC": "clang"}, ["--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Db_lundef=false"]),
    "build-tsan": ({"CC": "clang"}, ["--buildtype=debugoptimized", "-Db_sanitize=thread", "-Db_lundef=false"]),
    "build-clang": ({"CC": "clang"}, ["--buildtype=release"]),
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

    def ok(self, count=1):
        self.passed += count

    def bad(self, name, text=""):
        self.failed.append(name)
        print(f"FAILED {name}\n{text}", flush=True)

    def skip(self, name, why):
        self.skipped.append(name)
        print(f"skipped {name}: {why}", flush=True)


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


def build(tally, directory):
    """Sets up and builds; False when that failed."""
    began = time.monotonic()
    env, options = BUILDS[directory]
    env = {**os.environ, **env}
    if subprocess.run(["which", "ccache"], capture_output=True, check=False).returncode == 0:
        env["CC"] = "ccache " + env["CC"]
    path = os.path.join(TOP, directory)
    if not os.path.exists(os.path.join(path, "build.ninja")):
        done = run(["meson", "setup", path, TOP, *options], env=env)
        if done.returncode != 0:
            tally.bad(f"meson setup {directory}", done.stdout[-8000:])
            return False
    done = run(["ninja", "-C", path])
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


def meson_tests(tally, directory, suite, env=None, timeout_multiplier=1):
    """Runs one meson suite and counts its cases. False when the suite has no tests."""
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
            passed, failed, skipped = cases_of(output)
            total += passed + failed
            name = f"{test['name']} ({directory})"
            if test["result"] == "SKIP":
                tally.skip(name, output.strip().splitlines()[-1] if output.strip() else "the program says so")
            elif test["result"] not in ("OK", "EXPECTEDFAIL"):
                tally.passed += passed if failed else 0
                for _ in range(max(failed, 1) - 1):
                    tally.failed.append(name)
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
    if build(tally, "build"):
        tidy(tally)


def tidy(tally):
    """clang-tidy on every compiled file of ours, as one test a file."""
    began = time.monotonic()
    with open(os.path.join(TOP, "build/compile_commands.json")) as f:
        compiled = {os.path.normpath(os.path.join(c["directory"], c["file"])) for c in json.load(f)}
    files = sorted(p for p in compiled if p.endswith(".c") and not p.startswith(os.path.join(TOP, "build") + os.sep))
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        for path, done in zip(files, pool.map(lambda p: run(["clang-tidy", "-p", "build", "--quiet", p]), files)):
            if done.returncode == 0:
                tally.ok()
            else:
                tally.bad(f"clang-tidy {os.path.relpath(path, TOP)}", done.stdout)
    say(f"clang-tidy: {len(files)} files in {time.monotonic() - began:.0f} s")


def unit(tally, _args):
    for directory, multiplier in (("build", 1), ("build-asan", 3), ("build-tsan", 5), ("build-clang", 1)):
        if build(tally, directory) and not meson_tests(tally, directory, "unit", timeout_multiplier=multiplier):
            tally.bad(f"unit in {directory}", "there are no unit tests")


def sim(tally, _args):
    if build(tally, "build") and not meson_tests(tally, "build", "sim"):
        tally.skip("sim", "there is no simulation yet")


def io(tally, _args):
    """Each program starts the private servers that it needs: tests/lib/servers."""
    if build(tally, "build-asan") and not meson_tests(tally, "build-asan", "io", timeout_multiplier=3):
        tally.skip("io", "there are no io tests yet")


def python_tests(tally, files, word):
    for path in files:
        name = os.path.relpath(path, TOP)
        say(name)
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
                tally.bad(name, f"not done after {TEST_SECONDS} s\n{output[-8000:]}")
                continue
            text = report.read()
        if not text:
            tally.bad(name, output)
            continue
        result = json.loads(text)
        tally.ok(result["passed"])
        for case, why in result["failed"]:
            tally.bad(case, why)
        for case, why in result["skipped"]:
            tally.skip(case, why)
        say(f"{name}: {result['passed']} passed, {len(result['failed'])} failed in {time.monotonic() - began:.0f} s")


def e2e(tally, args):
    if build(tally, "build"):
        every = sorted(glob.glob(os.path.join(TOP, "tests/e2e/*_test.py")))
        python_tests(tally, [p for p in every if not os.path.basename(p).startswith("chaos_")], args.k)


def chaos(tally, args):
    if build(tally, "build"):
        python_tests(tally, sorted(glob.glob(os.path.join(TOP, "tests/e2e/chaos_*_test.py"))), args.k)


def fuzz(tally, _args):
    if build(tally, "build-asan") and not meson_tests(tally, "build-asan", "fuzz", timeout_multiplier=3):
        tally.skip("fuzz", "there are no fuzz targets yet")


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
    args = parser.parse_args()
    chosen = SUITES if not args.suite or "all" in args.suite else args.suite
    tally = Tally()
    began = time.monotonic()
    for suite in chosen:
        globals()[suite](tally, args)
    say(f"{', '.join(chosen)} took {time.monotonic() - began:.0f} s")
    for name in tally.failed:
        print(f"FAILED {name}")
    print(f"{tally.passed} passed, {len(tally.failed)} failed, {len(tally.skipped)} skipped", flush=True)
    return 1 if tally.failed or not (tally.passed or tally.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
