#!/usr/bin/python3
"""clang-tidy on every compiled file of ours, and on nothing twice.

    tests/lint/tidy.py [--build DIR] [--no-cache] [FILE...]

A file that was found clean is not analysed again while nothing that clang-tidy sees has changed: clang-tidy itself, the .clang-tidy files above the source, the flags, and
the contents of the source and of every header (clang -M says which). So a clone elsewhere profits too. Only "clean" is remembered, as an empty file of that hash's name below
$XDG_CACHE_HOME/harpoon/clang-tidy (~/.cache/harpoon/clang-tidy); the 20,000 used last stay. Prints what clang-tidy has to say of each file that it does not like, and last
`N files, N from the cache, N failed`.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
JOBS = os.cpu_count() or 2
ENTRIES_MAX = 20000


class Cache:
    """The hashes of what was clean, one empty file each; the time of a file is that of its last use."""

    def __init__(self, directory):
        self.dir = directory
        os.makedirs(directory, exist_ok=True)

    def has(self, key):
        try:
            os.utime(os.path.join(self.dir, key))
        except FileNotFoundError:
            return False
        return True

    def add(self, key):
        with open(os.path.join(self.dir, key), "w", encoding="ascii"):
            pass

    def prune(self, entries_max=ENTRIES_MAX):
        with os.scandir(self.dir) as entries:
            oldest = sorted((e.stat().st_mtime, e.path) for e in entries)
        for _, path in oldest[:max(0, len(oldest) - entries_max)]:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # somebody else's run was faster


def cache_directory():
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "harpoon", "clang-tidy")


def run(argv, cwd):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False, cwd=cwd)


def identity():
    """What tells one clang-tidy from another: a rebuilt package has the same version."""
    program = os.path.realpath(shutil.which("clang-tidy"))
    st = os.stat(program)
    return [run(["clang-tidy", "--version"], "/").stdout, program, str(st.st_size), str(st.st_mtime_ns)]


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


class Linter:
    """Analyses the files of one tree as its compile_commands.json compiles them."""

    def __init__(self, top, build, cache):
        self.top, self.build, self.cache = os.path.realpath(top), os.path.realpath(build), cache
        self.identity = identity()
        with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
            compiled = json.load(f)
        self.commands = {}  # the absolute path of a source → its compilations
        for c in compiled:
            path = os.path.normpath(os.path.join(c["directory"], c["file"]))
            if path.endswith(".c") and path.startswith(self.top + os.sep) and not path.startswith(self.build + os.sep):
                self.commands.setdefault(path, []).append(c)

    def place(self, path):
        """A path as it is called in every clone."""
        path = os.path.normpath(os.path.join(self.build, path))
        return os.path.relpath(path, self.top) if path.startswith(self.top + os.sep) else path

    def flags(self, command):
        """The compiler's arguments without the compiler, what it writes, and dependencies."""
        argv, out, i = shlex.split(command["command"]), [], 0
        while argv[i] != "ccache" and not re.search(r"(^|/)(cc|gcc|clang)(-\d+)?$", argv[i]):
            i += 1
        i += 2 if os.path.basename(argv[i]) == "ccache" else 1
        while i < len(argv):
            if argv[i] in ("-o", "-MF", "-MQ", "-MT"):
                i += 1
            elif argv[i] not in ("-c", "-MD", "-MMD"):
                out.append(argv[i])
            i += 1
        return out

    def key(self, source):
        """The hash of everything that clang-tidy sees of the source; None when that cannot be said."""
        sum_ = hashlib.sha256()

        def add(*texts):
            for text in texts:
                data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
                sum_.update(b"%d:" % len(data) + data)

        add(*self.identity, self.place(source))
        above = os.path.dirname(source)
        while True:
            settings = read(os.path.join(above, ".clang-tidy"))
            if settings is not None:  # how deep a clone lies does not matter
                add(settings)
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)
        for command in self.commands[source]:
            flags = self.flags(command)
            add("command", *(f.replace(self.top + os.sep, "TOP/") for f in flags))
            made = run(["clang", *flags, "-M", "-w"], self.build)
            if made.returncode != 0:
                return None
            for path in shlex.split(made.stdout.replace("\\\n", " ").partition(":")[2]):
                content = read(os.path.join(self.build, path))
                if content is None:
                    return None
                add(self.place(path), content)
        return sum_.hexdigest()

    def lint(self, source):
        """(0 when clean, what clang-tidy said, from the cache?)"""
        key = self.key(source) if self.cache else None
        if key and self.cache.has(key):
            return 0, "", True
        done = run(["clang-tidy", "-p", self.build, "--quiet", source], self.top)
        if key and done.returncode == 0 and self.key(source) == key:  # nobody wrote to it meanwhile
            self.cache.add(key)
        return done.returncode, done.stdout, False

    def lint_all(self, files=None):
        """Yields (path, returncode, output, from the cache?) of every file, or of these, in order."""
        files = sorted(self.commands) if files is None else files
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            yield from ((path, *result) for path, result in zip(files, pool.map(self.lint, files)))
        if self.cache:
            self.cache.prune()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(TOP, "build"), help="a build directory that is up to date")
    parser.add_argument("--no-cache", action="store_true", help="analyse every file")
    parser.add_argument("files", nargs="*", metavar="FILE")
    args = parser.parse_args()
    linter = Linter(TOP, args.build, None if args.no_cache else Cache(cache_directory()))
    files = [os.path.realpath(f) for f in args.files] or None
    for f in files or []:
        if f not in linter.commands:
            parser.error(f"{f} is not a source that {args.build} compiles")
    count = cached = failed = 0
    for path, code, output, hit in linter.lint_all(files):
        count, cached, failed = count + 1, cached + hit, failed + (code != 0)
        if code:
            print(f"FAILED {os.path.relpath(path, TOP)}\n{output}", flush=True)
    print(f"{count} files, {cached} from the cache, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
