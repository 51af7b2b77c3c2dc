"""Datagrams of one flow there and back, through the relay and routed without it.

    app: echo_program ask ---- device: holdfastd, or routed ---- wifi ---- cloud: echo_program serve

The device is the same; in a round each case is measured routed first, then with the daemon.
"""

import json
import pathlib

from _measure import ROOT, Bench, processor_time
from harness import Lab, wait_until
from network import ORIGIN

PROGRAM = ROOT / "build/tests/bench/echo_program"
PORT = "7007"
CASES = [(64, 1), (64, 64), (1400, 1), (1400, 64)]  # octets, datagrams on their way


def measure(bench, lab, system):
    for octets, window in CASES:
        case = f"{octets}/{window}"
        before = processor_time(lab.daemon.pid) if lab.daemon else None
        done = lab.app(PROGRAM, "ask", ORIGIN[0], PORT, octets, window, bench.seconds)
        told = json.loads(done.out)
        bench.add(case, "round trips", "1/s", system, told["back"] / bench.seconds)
        bench.add(case, "lost", "datagrams", system, told["lost"])
        if before:
            used = sum(processor_time(lab.daemon.pid)) - sum(before)
            bench.add(case, "processor", "us/datagram", system, used * 1e6 / (2 * told["back"]))


def main():
    bench = Bench("udp", seconds=2)
    if not pathlib.Path(PROGRAM).exists():
        raise SystemExit(f"{PROGRAM} is not there: run this as ./dev bench udp")
    with Lab() as lab:
        lab.start("cloud", PROGRAM, "serve", ORIGIN[0], PORT)
        wait_until("it serves", lambda: f":{PORT} " in lab.network.run("cloud", "ss", "-Hlun"))
        for _ in range(bench.rounds):
            measure(bench, lab, "direct")
            lab.start_daemon()
            measure(bench, lab, "holdfast")
            lab.stop_daemon()
    bench.report()


if __name__ == "__main__":
    main()
