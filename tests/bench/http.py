"""HTTP through the device, from an app to the cloud's nginx, 32 connections kept alive.

    app: wrk ---- device: nothing, haproxy, nginx or holdfastd ---- wifi ---- cloud: nginx

direct is routed past everything. The cpu rows say what the proxy's own process used for one
request; the rest of a request's time is the kernel's packet work, wrk and the cloud's nginx,
which is the same for all. Nothing else listens or steers while one of them is measured.
"""

import re
import shlex
import sys

from _measure import Bench, children, processor_time
from harness import Lab
from network import NGINX

CONNECTIONS = 32
WARM = 1  # seconds
HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option http-keep-alive
    http-reuse always
frontend in
    bind 192.0.2.1:8001
    default_backend cloud
backend cloud
    server cloud {cloud}:80
"""
PROXY_NGINX = """
user root;
worker_processes 1;
daemon off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    tcp_nodelay on;
    upstream cloud {{ server {cloud}:80; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 192.0.2.1:8002 backlog=4096;
        location / {{
            proxy_pass http://cloud;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def read_wrk(text):
    """(requests/s, {percentile: ms}); a wrong answer ends the bench."""
    for bad in ("Socket errors", "Non-2xx"):
        if bad in text:
            sys.exit(f"wrk had errors\n{text}")
    late = {
        int(number): float(value) * UNITS[unit]
        for number, value, unit in re.findall(r"^ +(\d+)% +([\d.]+)(us|ms|s|m)$", text, re.M)
    }
    return float(re.search(r"Requests/sec: +([\d.]+)", text)[1]), late


class Systems:
    """Each starts what it needs in the device and gives (URL's beginning, its pid or None)."""

    def __init__(self, lab):
        self.lab, self.folder = lab, lab.folder / "bench"
        self.folder.mkdir()

    def spawn(self, command, *arguments):
        process = self.lab.spawn(
            self.lab.network.enter("device") + [command, *map(str, arguments)],
            self.folder / f"{command}.out")  # fmt: skip
        self.process = process
        return process.pid

    def direct(self):
        self.process = None
        return f"http://{NGINX[0]}", None

    def haproxy(self):
        conf = self.folder / "haproxy.cfg"
        conf.write_text(HAPROXY.format(cloud=NGINX[0]))
        return "http://192.0.2.1:8001", self.spawn("haproxy", "-db", "-f", conf)

    def nginx(self):
        conf = self.folder / "nginx.conf"
        conf.write_text(PROXY_NGINX.format(cloud=NGINX[0], folder=self.folder))
        pid = self.spawn("nginx", "-e", self.folder / "error.log", "-c", conf)
        return "http://192.0.2.1:8002", pid

    def holdfast(self):
        self.process = None
        self.lab.start_daemon(fresh=True)
        return f"http://{NGINX[0]}", self.lab.daemon.pid

    def stop(self):
        if self.process:
            self.lab.end(self.process)
        self.lab.stop_daemon()


def wrk(lab, url, seconds):
    command = f"wrk -t1 -c{CONNECTIONS} -d{seconds:g} --latency {shlex.quote(url)}"
    done = lab.app(*command.split(), timeout=seconds + 30)
    if done.rc:
        sys.exit(f"wrk: {done.out}{done.err}")
    return read_wrk(done.out)


def measure_small(bench, lab, system, url, pid):
    wrk(lab, f"{url}/1k", WARM)
    before = processor_time(*children(pid)) if pid else (0, 0)
    rate, late = wrk(lab, f"{url}/1k", bench.seconds)
    after = processor_time(*children(pid)) if pid else (0, 0)
    bench.add("1k", "requests", "1/s", system, rate)
    bench.add("1k", "latency-50", "ms", system, late[50])
    bench.add("1k", "latency-99", "ms", system, late[99])
    if pid:
        requests = rate * bench.seconds
        for name, a, b in zip(("cpu-user", "cpu-system"), after, before):
            bench.add("1k", name, "us/request", system, (a - b) / requests * 1e6)
    return rate


def measure_big(bench, lab, system, url):
    answer = lab.app("curl", "-sSf", "-o", "/dev/null", "-w", "%{speed_download} %{size_download}",
                     f"{url}/big")  # fmt: skip
    if answer.rc:
        sys.exit(f"curl: {answer.err}")
    speed, size = map(float, answer.out.split())
    if size != 256 << 20:
        sys.exit(f"{system}: {size} bytes of the big file")
    bench.add("big", "download", "MB/s", system, speed / 1e6)


def main():
    bench = Bench("http")
    with Lab() as lab:
        systems = Systems(lab)
        for number in range(bench.rounds):
            for name in ("direct", "haproxy", "nginx", "holdfast"):
                url, pid = getattr(systems, name)()
                answer = lab.app("curl", "-sSf", "--retry", "20", "--retry-connrefused",
                                 "--retry-delay", "1", f"{url}/1k")  # fmt: skip
                if len(answer.out) != 1024:
                    sys.exit(f"{name} does not work: {answer}")
                rate = measure_small(bench, lab, name, url, pid)
                measure_big(bench, lab, name, url)
                systems.stop()
                print(f"round {number + 1}: {name} {rate:.0f}/s", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
