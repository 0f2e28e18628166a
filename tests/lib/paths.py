"""Where things are: the repository, the build, the programs."""
import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
BUILD = os.path.abspath(os.environ.get("HARPOON_BUILD") or os.path.join(TOP, "build"))
STACK = os.path.join(TOP, "deploy/dev/stack")
CLI = os.path.join(BUILD, "harpoon")
JS = os.path.join(TOP, "tests/e2e/js")


def program(name):
    return os.path.join(BUILD, name)
