"""DNS answers to an app: a published name, asked for with 200 questions outstanding.

    app: dnsperf ---- device: dnsmasq, unbound or holdfastd

holdfastd's XDP program answers in the kernel, so that its processor time is part of softirq, as
is all packet work of the others. For each answer:

    process     processor time of the server's process
    softirq     of the whole machine, the asking side's share included, alike for all
    cpu         both together: what one answer costs
    lost        what came faster than dnsperf read its socket (its UdpRcvbufErrors)
    program     the XDP program's own run time (kernel.bpf_stats_enabled), contained in softirq;
                it is measured in rounds of its own, because measuring it costs time
"""

import json
import pathlib
import re
import subprocess
import sys

from _measure import Bench, children, processor_time, softirq_time
from harness import Lab, wait_until
from network import ORIGIN

SERVER = "192.0.2.1"
NAME = "origin.example"
OUTSTANDING = 200
STATISTICS = pathlib.Path("/proc/sys/kernel/bpf_stats_enabled")
UNBOUND = """
server:
    interface: {server}
    do-daemonize: no
    use-syslog: no
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    num-threads: 1
    access-control: 0.0.0.0/0 allow
    module-config: "iterator"
    local-zone: "example." static
    local-data: "{name}. 300 IN A {v4}"
    local-data: "{name}. 300 IN AAAA {v6}"
remote-control:
    control-enable: no
"""


class Systems:
    def __init__(self, lab):
        self.lab, self.folder, self.process = lab, lab.folder / "bench", None
        self.folder.mkdir()

    def spawn(self, command, *arguments):
        self.process = self.lab.spawn(
            self.lab.network.enter("device") + [command, *map(str, arguments)],
            self.folder / f"{command}.out")  # fmt: skip
        return self.process.pid

    def dnsmasq(self):
        return self.spawn(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
            "--no-hosts", "--bind-interfaces", "--user=root", "--group=root", "--pid-file=",
            f"--listen-address={SERVER}", f"--host-record={NAME},{ORIGIN[0]},{ORIGIN[1]},300")  # fmt: skip

    def unbound(self):
        conf = self.folder / "unbound.conf"
        conf.write_text(UNBOUND.format(server=SERVER, folder=self.folder, name=NAME,
                                       v4=ORIGIN[0], v6=ORIGIN[1]))  # fmt: skip
        return self.spawn("unbound", "-d", "-c", conf)

    def holdfast(self):
        self.lab.start_daemon(fresh=True)
        return self.lab.daemon.pid

    def stop(self):
        if self.process:
            self.lab.end(self.process)
            self.process = None
        self.lab.stop_daemon()

    def wait(self):
        """Until both questions are answered as they should be."""
        for kind, address in (("A", ORIGIN[0]), ("AAAA", ORIGIN[1])):
            wait_until(f"{kind} is answered",
                       lambda: self.lab.dig("app", NAME, kind, server=SERVER) == [address])  # fmt: skip


def ask(bench, lab, questions):
    done = lab.app("dnsperf", "-s", SERVER, "-d", questions, "-l", f"{bench.seconds:g}",
                   "-q", OUTSTANDING, "-c", "1", "-T", "1", timeout=bench.seconds + 30)  # fmt: skip
    if done.rc:
        sys.exit(f"dnsperf: {done.out}{done.err}")

    def number(pattern):
        return float(re.search(pattern, done.out)[1])

    if "NOERROR" not in done.out or re.search(r"SERVFAIL|NXDOMAIN|REFUSED", done.out):
        sys.exit(f"dnsperf had wrong answers\n{done.out}")
    return (
        number(r"Queries per second: +([\d.]+)"),
        number(r"Queries completed: +(\d+)"),
        number(r"Queries lost: +(\d+)"),
        number(r"Average Latency \(s\): +([\d.]+)") * 1000,
    )


def measure(bench, lab, system, pid, questions):
    process, softirq = sum(processor_time(*children(pid))), softirq_time()
    rate, answers, lost, late = ask(bench, lab, questions)
    process = (sum(processor_time(*children(pid))) - process) / answers * 1e6
    softirq = (softirq_time() - softirq) / answers * 1e6
    bench.add("known", "answers", "1/s", system, rate)
    bench.add("known", "latency", "ms", system, late)
    bench.add("known", "lost", "questions", system, lost)
    bench.add("known", "process", "us/answer", system, process)
    bench.add("known", "softirq", "us/answer", system, softirq)
    bench.add("known", "cpu", "us/answer", system, process + softirq)
    return rate


def program_time(lab):
    """(nanoseconds, runs) of the program on app0."""
    shown = lab.network.run("device", "ip", "-d", "-j", "link", "show", "app0")
    number = json.loads(shown)[0]["xdp"]["prog"]["id"]
    shown = subprocess.run(["bpftool", "-j", "prog", "show", "id", str(number)], check=True,
                           capture_output=True, text=True).stdout  # fmt: skip
    program = json.loads(shown)
    return program.get("run_time_ns", 0), program.get("run_cnt", 0)


def measure_program(bench, lab, questions):
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        time_before, runs_before = program_time(lab)
        ask(bench, lab, questions)
        time_after, runs_after = program_time(lab)
    finally:
        STATISTICS.write_text(before)
    spent = (time_after - time_before) / (runs_after - runs_before)
    bench.add("known", "program", "ns/answer", "holdfast", spent)


def main():
    bench = Bench("dns")
    with Lab() as lab:
        systems = Systems(lab)
        questions = lab.folder / "questions"
        questions.write_text(f"{NAME} A\n{NAME} AAAA\n")
        for number in range(bench.rounds):
            for name in ("dnsmasq", "unbound", "holdfast"):
                pid = getattr(systems, name)()
                systems.wait()
                rate = measure(bench, lab, name, pid, questions)
                if name == "holdfast":
                    measure_program(bench, lab, questions)
                systems.stop()
                print(f"round {number + 1}: {name} {rate:.0f}/s", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
