"""The idle daemon: how long from its start until traffic is steered, and the memory and processor
time that are its own a while later, both links online, probed each second, and nothing to do.

    app ---- device: holdfastd ---- wifi, lte ---- cloud (answers the probes)

Ready is what it tells systemd (sd_notify), on the clock of the process that started it. A first
start finds an empty state and nothing in the kernel; a restart comes after SIGKILL and finds the
state and the pins that were left.
"""

import os
import pathlib
import socket
import threading
import time

from _measure import Bench, status_kib
from harness import Lab

SETTLE = 10  # seconds, before memory and while processor time is counted
WAIT = 30


class Notified:
    """The time at which READY=1 arrives."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(WAIT)
        self.at = None
        self.thread = threading.Thread(target=self.receive, daemon=True)
        self.thread.start()

    def receive(self):
        while not self.at:
            message = self.socket.recv(4096)
            if b"READY=1" in message:
                self.at = time.monotonic()

    def wait(self):
        self.thread.join()
        self.socket.close()
        if not self.at:
            raise RuntimeError("READY=1 never came")
        return self.at


def ran(pid):
    """Seconds that its threads were on a processor; /proc/PID/stat has only hundredths."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def start(lab, case, fresh):
    """Milliseconds until READY=1."""
    path = lab.folder / f"notify-{case}-{lab.runs}"
    notified = Notified(path)
    os.environ["NOTIFY_SOCKET"] = str(path)
    began = time.monotonic()
    lab.start_daemon(fresh=fresh)
    return (notified.wait() - began) * 1000


def measure(bench, lab, case):
    pid = lab.daemon.pid
    time.sleep(SETTLE)
    bench.add(case, "RssAnon", "KiB", "holdfast", status_kib(pid, "RssAnon"))
    bench.add(case, "VmRSS", "KiB", "holdfast", status_kib(pid, "VmRSS"))
    before, began = ran(pid), time.monotonic()
    time.sleep(SETTLE)
    share = (ran(pid) - before) / (time.monotonic() - began)
    bench.add(case, "cpu", "% of one", "holdfast", share * 100)


def main():
    bench = Bench("idle")
    with Lab() as lab:
        for number in range(bench.rounds):
            lab.release()
            for case, fresh in (("first", True), ("restart", False)):
                ready = start(lab, case, fresh)
                bench.add(case, "start-to-ready", "ms", "holdfast", ready)
                measure(bench, lab, case)
                lab.kill_daemon()
                print(f"round {number + 1}: {case} start, ready after {ready:.0f} ms", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
