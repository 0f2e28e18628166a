"""The memory of tests/lint/tidy.py: what was clean is not analysed again, and whatever clang-tidy could see differently is."""
import json
import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import tidy  # noqa: E402

CLEAN = '#include "part.h"\nint twice(int x);\nint twice(int x)\n{\n    return PART(x) * 2;\n}\n'
BROKEN = '#include "part.h"\nint twice(int x);\nint twice(int x)\n{\n    return PART(x) / (x - x);\n}\n'


class Tidy(unittest.TestCase):
    def setUp(self):
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        self.room = room.name
        self.top = os.path.join(self.room, "one")
        os.makedirs(os.path.join(self.top, "build"))
        self.write(".clang-tidy", "Checks: '-*,clang-analyzer-*,misc-redundant-expression'\nWarningsAsErrors: '*'\n")
        self.write("part.h", "#define PART(x) (x)\n")
        self.write("a.c", CLEAN)
        self.compile_as("-O2 -I..")

    def write(self, name, text):
        os.makedirs(os.path.dirname(os.path.join(self.top, name)), exist_ok=True)
        with open(os.path.join(self.top, name), "w", encoding="ascii") as f:
            f.write(text)

    def compile_as(self, flags):
        command = f"ccache cc {flags} -MD -MQ a.o -MF a.d -o a.o -c ../a.c"
        self.write("build/compile_commands.json", json.dumps([{"directory": os.path.join(self.top, "build"), "command": command, "file": "../a.c"}]))

    def expect(self, clean, cached):
        """What the tree's only source is found to be."""
        linter = tidy.Linter(self.top, os.path.join(self.top, "build"), tidy.Cache(os.path.join(self.room, "cache")))
        (_, code, output, hit), = linter.lint_all()
        self.assertEqual((code == 0, hit), (clean, cached), output)
        self.assertEqual(code != 0, "error:" in output, output)

    def test_clean_once_is_clean_while_nothing_changes(self):
        self.expect(clean=True, cached=False)
        self.expect(clean=True, cached=True)

    def test_a_fault_is_found_each_time(self):
        self.expect(clean=True, cached=False)
        self.write("a.c", BROKEN)
        self.expect(clean=False, cached=False)
        self.expect(clean=False, cached=False)
        self.write("a.c", CLEAN)
        self.expect(clean=True, cached=True)

    def test_a_fault_in_a_header_is_found(self):
        self.expect(clean=True, cached=False)
        self.write("part.h", "#define PART(x) ((x) / ((x) - (x)))\n")
        self.expect(clean=False, cached=False)

    def test_comments_flags_and_configuration_count(self):
        self.expect(clean=True, cached=False)
        self.write("a.c", CLEAN.replace("* 2;", "* 2; // NOLINT"))
        self.expect(clean=True, cached=False)
        self.compile_as("-O2 -I.. -DX")
        self.expect(clean=True, cached=False)
        self.write(".clang-tidy", "Checks: '-*,clang-analyzer-core*,bugprone-*'\nWarningsAsErrors: '*'\n")
        self.expect(clean=True, cached=False)
        self.expect(clean=True, cached=True)

    def test_a_header_that_now_comes_first_counts(self):
        self.write("a.c", CLEAN.replace('"part.h"', "<part.h>"))
        self.compile_as("-I../sub -I..")
        self.expect(clean=True, cached=False)
        self.write("sub/part.h", "#define PART(x) (x)\n")
        self.expect(clean=True, cached=False)

    def test_a_clone_elsewhere_profits(self):
        self.compile_as(f"-O2 -I{self.top}/")
        self.expect(clean=True, cached=False)
        self.top = shutil.copytree(self.top, os.path.join(self.room, "two/levels/deeper"))
        self.compile_as(f"-O2 -I{self.top}/")
        self.expect(clean=True, cached=True)

    def test_what_is_not_used_goes_first(self):
        cache = tidy.Cache(self.room + "/c")
        for i, key in enumerate("abc"):
            cache.add(key)
            os.utime(os.path.join(cache.dir, key), (i, i))
        self.assertTrue(cache.has("a"))
        cache.prune(2)
        self.assertEqual(sorted(os.listdir(cache.dir)), ["a", "c"])


if __name__ == "__main__":
    unittest.main()
