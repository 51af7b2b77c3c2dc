"""Durable stores: apps without a link, whose requests the daemon writes to the disk one and all
before it answers, against a bare SQLite program that commits the very same rows.

    1, 32, 256 apps ---- device: holdfastd, every link down ---- (no cloud)
    store_bare_program: groups of 1, 32, 256 rows, the same file system

An app has one request at a time, so that as many stores wait as there are apps. The bare program
has the rows in memory and does nothing but commit them with full synchronous mode: sqlite has the
daemon's tables with indexes and triggers, sqlite-plain the tables alone, which could find nothing
again. The systems take turns. Disk is what /tmp is on.
"""

import json
import pathlib
import shutil
import sys

from _measure import Bench, children, processor_time
from harness import Lab, wait_until
from network import NGINX

APPS = (1, 32, 256)
WARM = 0.5  # seconds
CONFIG = {"defaults": {"hold": "0s"}, "queue": {"max_bytes": "4G"}}


def load(lab, bench, apps, seconds):
    done = lab.app(bench.programs / "store_load_program", NGINX[0], apps, seconds, timeout=90)
    if done.rc:
        sys.exit(f"the apps: {done.err}")
    return json.loads(done.out)


def measure_holdfast(lab, bench, apps):
    """The path of the database that holds what was stored."""
    lab.start_daemon(CONFIG, fresh=True)
    lab.cut("wifi", "lte")
    load(lab, bench, apps, WARM)
    pids = children(lab.daemon.pid)
    before = processor_time(*pids)
    result = load(lab, bench, apps, bench.seconds)
    after = processor_time(*pids)
    case = str(apps)
    bench.add(case, "stores", "1/s", "holdfast", result["stored"] / result["seconds"])
    bench.add(case, "latency-50", "ms", "holdfast", result["p50"])
    bench.add(case, "latency-99", "ms", "holdfast", result["p99"])
    used = sum(after) - sum(before)
    bench.add(case, "cpu", "us/store", "holdfast", used / result["stored"] * 1e6)
    wait_until("all is stored", lambda: not lab.requests("?state=held&limit=1"))
    lab.stop_daemon()
    lab.restore("wifi", "lte", wait=False)
    return lab.folder / "state/holdfast.db", result["stored"] / result["seconds"]


def measure_bare(lab, bench, apps, stored, kind):
    folder = lab.folder / "bare"
    folder.mkdir()
    done = lab.host(bench.programs / "store_bare_program", stored, folder / "bare.db", apps,
                    bench.seconds, kind, timeout=120)  # fmt: skip
    shutil.rmtree(folder)
    if done.rc:
        sys.exit(f"store_bare_program: {done.err}")
    result = json.loads(done.out)
    system = {"same": "sqlite", "plain": "sqlite-plain"}[kind]
    bench.add(str(apps), "stores", "1/s", system, result["stored"] / result["seconds"])


def main():
    bench = Bench("store", rounds=5, seconds=3)
    with Lab() as lab:
        bench.programs = pathlib.Path(lab.holdfastd).parent / "tests/bench"
        for number in range(bench.rounds):
            for apps in APPS:
                stored, rate = measure_holdfast(lab, bench, apps)
                for kind in ("same", "plain"):
                    measure_bare(lab, bench, apps, stored, kind)
                print(f"round {number + 1}: {apps} apps {rate:.0f}/s", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
