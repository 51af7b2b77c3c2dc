"""Ten thousand apps that wait for a link.

    app: many_program ---- device: holdfastd  x  cloud: nginx

With both links cut each of them asks for 1 KB over a connection of its own, and is held. What that
takes: memory of the daemon and of the kernel for each, processor time while they wait. Then the
link returns: the time from the first answer to the last, how long a live request beside them
takes, and what is left in memory after they are gone. Nothing else can hold; for comparison the
same apps ask while the link is up, through the daemon and (direct) past everything.
"""

import json
import pathlib
import resource
import sys
import time

from _measure import Bench, status_kib
from harness import Lab, wait_until
from network import NGINX

COUNT = 10000
WAIT = 5  # seconds held while processor time is counted
CONFIG = {"defaults": {"hold": "10m"}}


def count_held():
    """As many as the descriptors of daemon and apps allow."""
    return min(COUNT, resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 5 // 8 - 512)


def ran(pid):
    """Seconds on a processor; /proc/PID/stat has only hundredths."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def slab_kib():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1])


class Apps:
    def __init__(self, lab, build, count):
        self.path = lab.folder / f"many-{time.monotonic_ns()}.out"
        program = build / "tests/bench/many_program"
        enter = lab.network.enter("app")
        self.process = lab.spawn(enter + [str(program), str(count), NGINX[0], "/1k"], self.path)

    def wait_sent(self):
        wait_until("all have asked", lambda: "sent" in self.path.read_text(), 60, 0.02)

    def result(self):
        if self.process.wait(120):
            sys.exit(f"many_program: {self.path.read_text()}")
        result = json.loads(self.path.read_text().splitlines()[-1])
        if result["failed"]:
            sys.exit(f"{result['failed']} were not answered with 200")
        return result


def measure_held(bench, lab, build, count):
    pid = lab.daemon.pid
    before, slab = status_kib(pid, "RssAnon"), slab_kib()
    apps = Apps(lab, build, count)
    apps.wait_sent()
    wait_until("all are held", lambda: lab.get("/v1/status")["queue"]["held"] == count, 60)
    bench.add("held", "RssAnon", "bytes each", "holdfast",
              (status_kib(pid, "RssAnon") - before) * 1024 / count)  # fmt: skip
    bench.add("held", "kernel-slab", "bytes each, app's side included", "holdfast",
              (slab_kib() - slab) * 1024 / count)  # fmt: skip
    used, began = ran(pid), time.monotonic()
    time.sleep(WAIT)
    bench.add("held", "cpu", "% of one", "holdfast",
              (ran(pid) - used) / (time.monotonic() - began) * 100)  # fmt: skip
    used, restored = ran(pid), time.monotonic()
    lab.network.restore("wifi")
    result = apps.result()
    bench.add("return", "all", "s", "holdfast", result["last"] - result["first"])
    bench.add("return", "first", "s after the carrier", "holdfast", result["first"] - restored)
    bench.add("return", "cpu", "us/request", "holdfast", (ran(pid) - used) / count * 1e6)
    bench.add("return", "live-50", "ms", "holdfast", result["live50"] * 1000)
    bench.add("return", "live-99", "ms", "holdfast", result["live99"] * 1000)
    wait_until("all are gone", lambda: lab.get("/v1/status")["queue"]["held"] == 0, 10)
    time.sleep(1)
    bench.add("after", "RssAnon", "KiB above before", "holdfast",
              status_kib(pid, "RssAnon") - before)  # fmt: skip
    return result["last"] - result["first"]


def measure_online(bench, lab, build, count, system):
    apps = Apps(lab, build, count)
    result = apps.result()
    bench.add("online", "all", "s", system, result["last"] - result["began"])


def main():
    bench = Bench("hold", rounds=3)
    count = count_held()
    with Lab() as lab:
        # Those of the round before are in TIME_WAIT.
        lab.network.run("app", "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535")
        build = pathlib.Path(lab.holdfastd).parent
        for number in range(bench.rounds):
            measure_online(bench, lab, build, count, "direct")
            lab.start_daemon(CONFIG, fresh=True)
            lab.cut("wifi", "lte")
            all_in = measure_held(bench, lab, build, count)
            lab.wait_links(online=("wifi",))
            measure_online(bench, lab, build, count, "holdfast")
            lab.restore("lte")
            lab.stop_daemon()
            print(f"round {number + 1}: {count} held, all answered within {all_in:.2f} s",
                  flush=True)  # fmt: skip
    bench.report()


if __name__ == "__main__":
    main()
