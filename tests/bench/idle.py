"""The idle daemon: how long from its start until traffic is steered, and the memory that is its
own a while later, both links online and nothing to do.

    app ---- device: holdfastd ---- wifi, lte ---- cloud (answers the probes)

Ready is what it tells systemd (sd_notify), on the clock of the process that started it.
"""

import os
import socket
import threading
import time

from _measure import Bench, status_kib
from harness import Lab

SETTLE = 3  # seconds
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


def main():
    bench = Bench("idle")
    with Lab() as lab:
        for number in range(bench.rounds):
            path = lab.folder / f"notify-{number}"
            notified = Notified(path)
            os.environ["NOTIFY_SOCKET"] = str(path)
            began = time.monotonic()
            lab.start_daemon(fresh=True)
            ready = (notified.wait() - began) * 1000
            time.sleep(SETTLE)
            pid = lab.daemon.pid
            bench.add("idle", "start-to-ready", "ms", "holdfast", ready)
            bench.add("idle", "RssAnon", "KiB", "holdfast", status_kib(pid, "RssAnon"))
            bench.add("idle", "VmRSS", "KiB", "holdfast", status_kib(pid, "VmRSS"))
            lab.stop_daemon()
            print(f"round {number + 1}: ready after {ready:.0f} ms", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
