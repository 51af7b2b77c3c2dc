"""The test files of a folder, several at once: each in a pytest of its own.

    side_by_side.py LOGS/NAME FOLDER

The lab's tests wait far more than they work, and every process has namespaces of its own, so
files go side by side. Each leaves LOGS/NAME/FILE.log and .xml; LOGS/NAME.xml has them all.
Prints a line for each file as it ends, then the whole output of those that failed.
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time
import xml.etree.ElementTree

AT_ONCE = (os.cpu_count() or 1) + 1
LONG_FOR_THEIR_SIZE = ("test_torture", "test_disk")


class Run:
    """One file's."""

    def __init__(self, path, logs):
        self.path, self.name = path, path.stem
        self.log, self.xml = logs / f"{path.stem}.log", logs / f"{path.stem}.xml"
        self.rc = None

    def weight(self):
        """More is sooner, so that none of the long ones is alone at the end."""
        return self.name in LONG_FOR_THEIR_SIZE, self.path.stat().st_size

    def go(self):
        command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider",
                   f"--junitxml={self.xml}", str(self.path)]  # fmt: skip
        began = time.monotonic()
        with open(self.log, "wb") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT)  # fmt: skip
        self.rc = done.returncode
        print(f"{self.name:32} {time.monotonic() - began:6.1f} s  {self.sum()}", flush=True)

    def failed(self):
        return self.rc != 0 or not self.xml.exists()

    def output(self):
        return self.log.read_text(errors="replace")

    def sum(self):
        """pytest's last line: 3 passed in 2.18s."""
        lines = self.output().splitlines()
        return lines[-1].strip("= ") if lines else f"ended with {self.rc}"

    def results(self):
        """Its <testsuite>; one that says it failed if pytest left none."""
        try:
            return next(xml.etree.ElementTree.parse(self.xml).iter("testsuite"))
        except (OSError, xml.etree.ElementTree.ParseError, StopIteration):
            suite = xml.etree.ElementTree.Element("testsuite", name=self.name)
            case = xml.etree.ElementTree.SubElement(suite, "testcase", name=self.name)
            text = f"pytest ended with {self.rc} and left no results"
            xml.etree.ElementTree.SubElement(case, "error", message=text)
            return suite


def run_all(runs):
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        started = [pool.submit(run.go) for run in sorted(runs, key=Run.weight, reverse=True)]
        try:
            for future in started:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main():
    logs, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    logs.mkdir(parents=True, exist_ok=True)
    runs = [Run(path, logs) for path in sorted(folder.glob("test_*.py"))]
    began = time.monotonic()
    run_all(runs)
    sums = xml.etree.ElementTree.Element("testsuites")
    sums.extend(run.results() for run in runs)
    xml.etree.ElementTree.ElementTree(sums).write(f"{logs}.xml", encoding="utf-8")
    failed = [run for run in runs if run.failed()]
    for run in failed:
        print(f"\n== {run.path}\n{run.output()}")
    print(f"{len(runs)} files, {len(failed)} failed: {time.monotonic() - began:.0f} s, "
          f"{AT_ONCE} at once {' '.join(run.name for run in failed)}".rstrip())  # fmt: skip
    return 1 if failed or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
