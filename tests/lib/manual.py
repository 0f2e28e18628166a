"""Runs the commands that docs/OPERATIONS.md tells operators to run, so that what is written there is what is tested."""
import os
import re
import subprocess

from paths import BUILD, TOP


def commands(name):
    """The indented block that follows `<!-- tested: name -->`."""
    with open(os.path.join(TOP, "docs/OPERATIONS.md")) as f:
        found = re.search(rf"^<!-- tested: {re.escape(name)} -->\n\n((?:    .*\n|\n(?=    ))+)", f.read(), re.M)
    if not found:
        raise AssertionError(f"docs/OPERATIONS.md has no commands after <!-- tested: {name} -->")
    return re.sub(r"^    ", "", found[1], flags=re.M)


def run(stack, name, directory, **env):
    """Runs a block of the manual as an operator of the stack, in `directory`; gives its output."""
    path = f"{BUILD}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands(name)], cwd=directory, env={**os.environ, **stack.env, **env, "PATH": path},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise AssertionError(f"the manual's \"{name}\" ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
