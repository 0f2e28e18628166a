"""What the list of failures at the end of tests/run says of each: it is all that is left of a log that was cut."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "lib"))
import runner  # noqa: E402


class Reason(unittest.TestCase):
    def test_the_assertion_of_a_c_program_and_its_line(self):
        self.assertEqual(runner.reason("FAIL\n[ RUN      ] x\n[  ERROR   ] --- 0x1 != 0\n[   LINE   ] --- ../tests/a.c:12: error: Failure!\n[  FAILED  ] x\n"),
                         "[ ERROR ] --- 0x1 != 0 | [ LINE ] --- ../tests/a.c:12: error: Failure!")

    def test_the_exception_of_a_python_program(self):
        self.assertEqual(runner.reason('Traceback (most recent call last):\n  File "x", line 1\n    assert y\nAssertionError: waited 60 s for all\nscheduler: error: no broker\n'),
                         "AssertionError: waited 60 s for all")

    def test_a_sanitizer_comes_first(self):
        self.assertEqual(runner.reason("[  ERROR   ] --- 1 != 2\n==3==ERROR: AddressSanitizer: heap-use-after-free\nSUMMARY: AddressSanitizer\n"),
                         "==3==ERROR: AddressSanitizer: heap-use-after-free")

    def test_else_the_last_line_and_never_much(self):
        self.assertEqual(runner.reason("one\n\ntwo\n"), "two")
        self.assertEqual(runner.reason(""), "no word of why")
        self.assertEqual(len(runner.reason("x" * 10000)), runner.REASON_MAX)


if __name__ == "__main__":
    unittest.main()
