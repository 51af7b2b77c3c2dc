"""Programs swapped under traffic: 1,000 swaps while an app sends datagrams of a known rate.

    app: 20,000 datagrams/s ---- app0 [XDP: swapped] device: a socket that counts them

    holdfast     steer_activate, as POST /v1/programs/{id}/activate does it: one link update
    replace      one netlink request, as `ip -force link set dev app0 xdpgeneric` makes it
    detach       the same in two: off, then on
    ip-detach    `ip link set dev app0 xdpgeneric off`, then `... pinned`: two commands

Each swap loads the program anew and frees the one before.

    unseen       datagrams sent that no program counted: they met none
    lost         datagrams sent that did not arrive
    swap         time of one swap, loading not included (the median of a run)
    left         programs, maps and descriptors that stayed behind
"""

import json
import subprocess
import sys

from _measure import ROOT, Bench

PROGRAM = ROOT / "build/tests/bench/swap_program"
OBJECT = ROOT / "build/bpf/examples/observe.bpf.o"
SWAPS, RATE = 1000, 20000
SYSTEMS = ("holdfast", "replace", "detach", "ip-detach")


def swap(system):
    """One run; its namespaces end with the process."""
    done = subprocess.run([PROGRAM, system, str(SWAPS), str(RATE), OBJECT],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        sys.exit(f"{system}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def main():
    bench = Bench("swap", rounds=3)
    for number in range(bench.rounds):
        for system in SYSTEMS:
            found = swap(system)
            if found["programs_seen"] != SWAPS + 1:
                sys.exit(f"{system}: {found['programs_seen']} programs were seen, not {SWAPS + 1}")
            unseen, lost = (found["sent"] - found[key] for key in ("counted", "received"))
            bench.add("1000", "sent", "packets", system, found["sent"])
            bench.add("1000", "unseen", "packets", system, unseen)
            bench.add("1000", "lost", "packets", system, lost)
            bench.add("1000", "swap", "us", system, found["median_ns"] / 1000)
            for what in ("programs", "maps", "descriptors"):
                bench.add("1000", f"left-{what}", what, system, found[f"{what}_left"])
            print(f"round {number + 1}: {system}: {unseen} of {found['sent']} met no program,"
                  f" {lost} were lost", flush=True)  # fmt: skip
    bench.report()


if __name__ == "__main__":
    main()
