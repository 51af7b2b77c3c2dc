"""The closing summary of `./dev test`: what each step counted, what to read, and one last line
`N passed, M failed`. Reads the folder of logs; exits 1 if anything failed.

A step leaves NAME.rc and NAME.log, and NAME.xml (JUnit) where it counts tests. A step that
failed without a failed test counts as one failure, so that nothing passes by not running.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree

CHECKS = re.compile(r"\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)")
PYTEST = ("includes", "python", "lab")


def count_checks(case):
    """Passed and failed checks of one ctest program, which may have died before its sum."""
    broken = case.find("failure") is not None or case.get("status") == "fail"
    sums = CHECKS.findall(case.findtext("system-out") or "")
    passed = sum(int(n) - int(f) - int(e) for n, f, e in sums)
    failed = sum(int(f) + int(e) for _, f, e in sums)
    if not sums and not broken:
        return 1, 0  # not a Check program: its exit status is its one test
    return passed, max(failed, 1) if broken else failed


def count_pytest(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return 0, 1
    return (0, 0) if case.find("skipped") is not None else (1, 0)


def count(path, one):
    """(passed, failed, names of what failed)"""
    passed = failed = 0
    names = []
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        p, f = one(case)
        passed, failed = passed + p, failed + f
        if f:
            names.append("::".join(filter(None, (case.get("classname"), case.get("name")))))
    return passed, failed, names


def step(logs, name, rc):
    passed, failed, names = 0, 0, []
    results = logs / f"{name}.xml"
    if results.exists():
        passed, failed, names = count(results, count_pytest if name in PYTEST else count_checks)
    elif rc == 0:
        passed = 1  # a step without tests of its own: format, build
    if rc and not failed:
        failed = 1
    return passed, failed, list(dict.fromkeys(names))


def main():
    logs = pathlib.Path(sys.argv[1])
    total = [0, 0]
    read = []
    print("\n== summary")
    steps = sorted(logs.glob("*.rc"), key=lambda path: path.stat().st_mtime_ns)
    for path in steps:
        name = path.stem
        passed, failed, names = step(logs, name, int(path.read_text()))
        total[0] += passed
        total[1] += failed
        print(f"{name:10} {passed:5} passed {failed:5} failed")
        for test in names:
            print(f"           failed: {test}")
        if failed:
            read.append(logs / f"{name}.log")
    reports = sorted(logs.glob("asan.*"))
    if reports:
        print(f"{'sanitizer':10} {0:5} passed {len(reports):5} failed")
        total[1] += len(reports)
        read += reports
    if not steps:
        print("nothing ran")
        total[1] += 1
    for path in read:
        print(f"read {path}")
    print(f"{total[0]} passed, {total[1]} failed")
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
