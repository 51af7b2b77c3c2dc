"""What the benches share: rounds, medians, the table that is printed and the JSON that is kept.

    {"bench": NAME, "commit": ..., "results":
        [{"case", "metric", "unit", "system", "median", "min", "max", "runs"}]}

All rows of a file come from one run; the systems take turns within it, so that what disturbs the
machine disturbs all of them.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The lab's folder in place of this one, where http.py would hide the library's module.
sys.path[0] = str(ROOT / "tests/lab")
TICK = os.sysconf("SC_CLK_TCK")


def commit():
    def git(*arguments):
        done = subprocess.run(["git", "-c", f"safe.directory={ROOT}", *arguments], cwd=ROOT,
                              capture_output=True, text=True)  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD") or "unknown"
    return head + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


class Bench:
    """options: a function that adds the bench's own to the parser; they are in self.options."""

    def __init__(self, name, rounds=5, seconds=4, options=None):
        parser = argparse.ArgumentParser(prog=f"./dev bench {name}")
        parser.add_argument("--json", metavar="FILE", help="write the results there")
        parser.add_argument("--rounds", type=int, default=rounds)
        parser.add_argument("--seconds", type=float, default=seconds, help="of one measurement")
        if options:
            options(parser)
        self.name, self.values = name, {}
        self.options = chosen = parser.parse_args()
        self.file, self.rounds, self.seconds = chosen.json, chosen.rounds, chosen.seconds
        self.commit = commit()

    def add(self, case, metric, unit, system, value):
        self.values.setdefault((case, metric, unit, system), []).append(value)

    def rows(self):
        for (case, metric, unit, system), values in self.values.items():
            yield {
                "case": case, "metric": metric, "unit": unit, "system": system,
                "median": statistics.median(values), "min": min(values), "max": max(values),
                "runs": len(values),
            }  # fmt: skip

    def report(self):
        rows = sorted(self.rows(), key=lambda row: (row["case"], row["metric"]))
        ours = {(row["case"], row["metric"]): row["median"] for row in rows
                if row["system"] == "holdfast"}  # fmt: skip
        print("\nratio: holdfast's median divided by that of the row's system")
        print(f"{'case':8} {'metric':16} {'system':10} {'median':>12} {'min':>12} {'max':>12}"
              f" {'ratio':>6} {'runs':>4}  unit")  # fmt: skip
        for row in rows:
            numbers = " ".join(f"{row[key]:12.5g}" for key in ("median", "min", "max"))
            own = ours.get((row["case"], row["metric"]))
            ratio = "" if own is None or not row["median"] else f"{own / row['median']:.2f}"
            print(f"{row['case']:8} {row['metric']:16} {row['system']:10} {numbers}"
                  f" {ratio:>6} {row['runs']:4}  {row['unit']}")  # fmt: skip
        if self.file:
            text = {"bench": self.name, "commit": self.commit, "results": rows}
            pathlib.Path(self.file).write_text(json.dumps(text, indent=1) + "\n")


def processor_time(*pids):
    """(user, system) seconds that these processes have used."""
    user = system = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICK, system / TICK


def children(pid):
    """pid and all below it."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children(int(child))
    return found


def softirq_time():
    """Seconds that all processors spent in softirq."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[7]) / TICK


def status_kib(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)
