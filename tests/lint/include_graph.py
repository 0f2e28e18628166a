#!/usr/bin/python3
"""Checks who includes whom: common's layers, daemons that never meet but in proto/, cores without I/O, clocks or randomness. Prints each breach."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
LAYERS = ["base", "wire", "grpc", "io"]  # a layer includes itself and those to its left
COMPONENTS = ["broker-gw", "scheduler", "event-router", "host-agent", "cli"]
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^">]+)[">]', re.M)
# What a core may not see, directly or through its own headers.
FORBIDDEN = re.compile(r"^(uv\.h|uv/|amqp|rabbitmq|mysql|mariadb|nghttp2|microhttpd|sqlite3|openssl|time\.h|sys/time|sys/socket|sys/timerfd|sys/epoll|"
                       r"netinet/|arpa/|netdb|pthread|threads\.h|sys/random|unistd\.h|fcntl\.h|sys/stat\.h)")
CALLS = re.compile(r"\b(clock_gettime|gettimeofday|time|rand|srand|random|getrandom|arc4random|uv_hrtime|uv_now|usleep|sleep)\s*\(")


def sources():
    for top in ["common", "tests", *COMPONENTS]:
        for at, dirs, files in os.walk(os.path.join(TOP, top)):
            dirs[:] = [d for d in dirs if d not in ("node_modules", "__pycache__")]
            yield from (os.path.relpath(os.path.join(at, f), TOP) for f in sorted(files) if f.endswith((".c", ".h")))


def text_of(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as f:
        return f.read()


def strip(text):
    """The code without comments and strings."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.S)


def resolve(path, name):
    """The repository's file that a quoted include means, or None (generated or the system's)."""
    component = path.split("/")[0]
    for base in (os.path.dirname(path), component, "common", "tests", "tests/unit", *COMPONENTS):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.exists(os.path.join(TOP, candidate)):
            return candidate
    return None


def layer(path):
    parts = path.split("/")
    return LAYERS.index(parts[1]) if parts[0] == "common" and len(parts) > 2 and parts[1] in LAYERS else None


def check_edge(path, target):
    """What is wrong with `path` including the repository's file `target`, or None."""
    home, there = path.split("/")[0], target.split("/")[0]
    if home == "common":
        if there != "common":
            return "common includes a component"
        if layer(path) is not None and layer(target) is not None and layer(target) > layer(path):
            return f"{LAYERS[layer(path)]} includes {LAYERS[layer(target)]}, a layer to its right"
    elif home in COMPONENTS:
        if there in COMPONENTS and there != home:
            return f"{home} includes {there}: daemons meet only in proto/"
        if there == "tests":
            return "a component includes a test's header"
        if "/core/" in path and "/shell/" in target:
            return "a core includes its shell"
    return None


def reachable(path, seen):
    """(includer, name) of everything that `path` includes that is not the repository's, through the repository's headers."""
    if path in seen:
        return
    seen.add(path)
    for kind, name in INCLUDE.findall(text_of(path)):
        target = resolve(path, name) if kind == '"' else None
        if target:
            yield from reachable(target, seen)
        else:
            yield path, name


def main():
    breaches = []
    count = 0
    for path in sources():
        count += 1
        text = text_of(path)
        for kind, name in INCLUDE.findall(text):
            target = resolve(path, name) if kind == '"' else None
            wrong = check_edge(path, target) if target else None
            if wrong:
                breaches.append(f"{path}: includes {name}: {wrong}")
        if "/core/" in path:
            for via, name in reachable(path, set()):
                if FORBIDDEN.match(name):
                    breaches.append(f"{path}: sees <{name}>" + (f" through {via}" if via != path else "") + ": a core does no I/O")
            if path.endswith(".c"):
                for call in CALLS.findall(strip(text)):
                    breaches.append(f"{path}: calls {call}(): a core has no clock and no randomness")
    for b in sorted(set(breaches)):
        print(b)
    print(f"include graph: {count} files, {len(set(breaches))} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
