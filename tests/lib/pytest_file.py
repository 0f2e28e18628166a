"""Runs the unittest cases of one file and writes what became of them as JSON. Usage: pytest_file.py FILE REPORT [-k WORD]"""
import importlib.util
import json
import os
import sys
import unittest


class Result(unittest.TextTestResult):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    path, report = sys.argv[1:3]
    loader = unittest.TestLoader()
    if "-k" in sys.argv:
        loader.testNamePatterns = [f"*{sys.argv[sys.argv.index('-k') + 1]}*"]
    sys.path[:0] = [os.path.dirname(os.path.realpath(__file__)), os.path.dirname(os.path.realpath(path))]
    name = os.path.basename(path)[:-3]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    suite = loader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    bad = [(str(t), why) for t, why in result.failures + result.errors]
    with open(report, "w") as f:
        json.dump({"passed": result.passed, "failed": bad, "skipped": [(str(t), why) for t, why in result.skipped]}, f)


if __name__ == "__main__":
    main()
