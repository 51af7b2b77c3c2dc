"""Opaque TCP through the device: bytes without end from the cloud to an app, on one stream and on
32.

    app: sink ---- device: nothing, haproxy, redsocks or holdfastd ---- wifi ---- cloud: source

direct is routed past everything. haproxy is one thread in TCP mode, without and with splicing.
redsocks gets the app's connections by an iptables REDIRECT and speaks SOCKS to microsocks, which
runs in the cloud beside the source: its bytes pass one proxy more, so that only the CPU of
redsocks' own process compares with the others. cpu is the proxy's own process; busy is the whole
machine, source and sink included.
"""

import json
import pathlib
import sys

from _measure import TICK, Bench, children, processor_time
from harness import Lab, wait_until
from hears import connect
from network import NGINX, ORIGIN

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "build/tests/bench/stream_program"
PORT = 9200
HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    {option}
listen streams
    bind 192.0.2.1:{port}
    server cloud {cloud}:{port}
"""
REDSOCKS = """
base {{ log_info = off; log_debug = off; daemon = off; redirector = iptables; }}
redsocks {{ local_ip = 192.0.2.1; local_port = 12345; ip = {socks}; port = 1080; type = socks5; }}
"""
SYSTEMS = ("direct", "haproxy", "haproxy-splice", "redsocks", "holdfast")


def busy_time():
    """Seconds that all processors were not idle."""
    with open("/proc/stat") as file:
        fields = list(map(int, file.readline().split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICK


class Systems:
    """Each starts what it needs in the device and gives (address to connect to, its pid)."""

    def __init__(self, lab):
        self.lab, self.folder = lab, lab.folder / "bench"
        self.folder.mkdir()
        self.process = None

    def spawn(self, where, *command):
        name = pathlib.Path(command[0]).name
        return self.lab.spawn(self.lab.network.enter(where) + list(map(str, command)),
                              self.folder / f"{name}.out")  # fmt: skip

    def direct(self):
        return ORIGIN[0], None

    def haproxy(self, option=""):
        conf = self.folder / "haproxy.cfg"
        conf.write_text(HAPROXY.format(cloud=ORIGIN[0], port=PORT, option=option))
        self.process = self.spawn("device", "haproxy", "-db", "-f", conf)
        return "192.0.2.1", self.process.pid

    def haproxy_splice(self):
        return self.haproxy("option splice-auto")

    def iptables(self, action):
        self.lab.network.run("device", "iptables", "-w", "-t", "nat", action, "PREROUTING", "-i",
                             "app0", "-p", "tcp", "--dport", str(PORT), "-j", "REDIRECT",
                             "--to-ports", "12345")  # fmt: skip

    def redsocks(self):
        conf = self.folder / "redsocks.conf"
        conf.write_text(REDSOCKS.format(socks=NGINX[0]))
        self.process = self.spawn("device", "redsocks", "-c", conf)
        self.iptables("-A")
        return ORIGIN[0], self.process.pid

    def holdfast(self):
        self.lab.start_daemon(fresh=True)
        return ORIGIN[0], self.lab.daemon.pid

    def stop(self, name):
        if name == "redsocks":
            self.iptables("-D")
        if self.process:
            self.lab.end(self.process)
        self.process = None
        self.lab.stop_daemon()


def is_there(lab, address):
    try:
        with connect(lab, address, PORT, timeout=2) as app:
            app.sendall(b"more\n")
            return app.recv(1)
    except OSError:
        return False


def measure(bench, lab, system, address, pid, streams):
    client = lab.start("app", PROGRAM, "sink", address, PORT, streams, bench.seconds)
    wait_until("the sink has begun", lambda: "begin" in client.out.read_text(), 10, 0.01)
    before, busy = processor_time(*children(pid)) if pid else (0, 0), busy_time()
    done = client.wait()
    after, busy = processor_time(*children(pid)) if pid else (0, 0), busy_time() - busy
    if done.rc:
        sys.exit(f"{system}: {done.err}")
    told = json.loads(done.out.splitlines()[-1])
    gigabytes, case = told["bytes"] / 1e9, f"{streams}"
    bench.add(case, "rate", "MB/s", system, gigabytes * 1e3 / told["seconds"])
    bench.add(case, "busy", "ms/GB", system, busy / gigabytes * 1e3)
    if pid:
        cpu = sum(after) - sum(before)
        bench.add(case, "cpu", "ms/GB", system, cpu / gigabytes * 1e3)
    return gigabytes / told["seconds"]


def main():
    bench = Bench("relay")
    with Lab() as lab:
        systems = Systems(lab)
        systems.spawn("cloud", PROGRAM, "source", "0.0.0.0", PORT)
        systems.spawn("cloud", "microsocks", "-i", NGINX[0], "-p", "1080")
        for number in range(bench.rounds):
            for name in SYSTEMS:
                address, pid = getattr(systems, name.replace("-", "_"))()
                wait_until(f"{name} works", lambda: is_there(lab, address))
                for streams in (1, 32):
                    rate = measure(bench, lab, name, address, pid, streams)
                    print(f"round {number + 1}: {name}, {streams}: {rate:.2f} GB/s", flush=True)
                systems.stop(name)
    bench.report()


if __name__ == "__main__":
    main()
