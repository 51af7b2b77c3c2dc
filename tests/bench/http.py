"""HTTP through the device, from an app to the cloud's nginx.

    app: wrk ---- device: nothing, haproxy, nginx, squid or holdfastd ---- wifi ---- cloud: nginx

1, 32 and 512 connections, bodies of 1 KB and 1 MB, connections that are kept (keep) and a new one
for each request (new). direct is routed past everything; each peer is a reverse proxy on one
thread that keeps its connections to the cloud. The cpu rows say what the proxy's own process used
for one request; the rest of a request's time is the kernel's packet work, wrk and the cloud's nginx,
which is the same for all. Nothing else listens or steers while one of them is measured. At the end
callgrind counts the daemon's instructions.
"""

import json
import re
import sys

import _instructions
from _measure import Bench, children, processor_time
from harness import Lab
from network import NGINX

SYSTEMS = ("direct", "haproxy", "nginx", "squid", "holdfast")
CONNECTIONS = (1, 32, 512)
BODIES = ("1k", "1m")
PERCENTILES = (50, 90, 99, 99.9)
WARM = 1  # seconds
# A new connection for each request, from the same few addresses.
MANY_PORTS = ("net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")
WRK = """
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('\\n{"requests": %%d, "seconds": %%f, "errors": %%d',
        summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout))
    for _, p in ipairs({%s}) do
        io.write(string.format(', "%%s": %%f', p, latency:percentile(p) / 1e3))
    end
    io.write("}\\n")
end
""" % ", ".join(map(str, PERCENTILES))  # fmt: skip
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
    bind 192.0.2.1:8001 backlog 4096
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
    upstream cloud {{ server {cloud}:80; keepalive 512; keepalive_requests 1000000; }}
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
SQUID = """
http_port 192.0.2.1:8003 accel defaultsite={cloud} no-vhost
cache_peer {cloud} parent 80 0 no-query no-digest originserver
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_log /dev/null
cache_store_log none
pid_filename none
cache_effective_user proxy
pinger_enable off
netdb_filename none
max_filedescriptors 8192
shutdown_lifetime 0 seconds
"""


class Systems:
    """Each starts what it needs in the device and gives (URL's beginning, its pid or None)."""

    def __init__(self, lab):
        self.lab, self.folder = lab, lab.folder / "bench"
        self.folder.mkdir()
        self.process = None

    def spawn(self, command, *arguments):
        process = self.lab.spawn(
            self.lab.network.enter("device") + [command, *map(str, arguments)],
            self.folder / f"{command}.out")  # fmt: skip
        self.process = process
        return process.pid

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text.format(cloud=NGINX[0], folder=self.folder))
        return path

    def direct(self):
        return f"http://{NGINX[0]}", None

    def haproxy(self):
        conf = self.write("haproxy.cfg", HAPROXY)
        return "http://192.0.2.1:8001", self.spawn("haproxy", "-db", "-f", conf)

    def nginx(self):
        conf = self.write("nginx.conf", PROXY_NGINX)
        pid = self.spawn("nginx", "-e", self.folder / "error.log", "-c", conf)
        return "http://192.0.2.1:8002", pid

    def squid(self):
        conf = self.write("squid.conf", SQUID)
        pid = self.spawn("squid", "-N", "-n", self.lab.network.prefix, "-f", conf)
        return "http://192.0.2.1:8003", pid

    def holdfast(self):
        self.lab.start_daemon(fresh=True)
        return f"http://{NGINX[0]}", self.lab.daemon.pid

    def stop(self):
        if self.process:
            self.lab.end(self.process)
        self.process = None
        self.lab.stop_daemon()


def wrk(lab, url, connections, seconds, keep):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", lab.folder / "done.lua"]
    command += [] if keep else ["-H", "Connection: close"]
    done = lab.app(*command, url, timeout=seconds + 60)
    found = re.search(r"^{.*}$", done.out, re.M)
    if done.rc or not found:
        sys.exit(f"wrk: {done.out}{done.err}")
    result = json.loads(found[0])
    if result["errors"] or not result["requests"]:
        sys.exit(f"wrk: {url}, {connections} connections\n{done.out}")
    return result


def measure(bench, lab, system, url, pid, case):
    """One case, e.g. ("1k", 32, True)."""
    body, connections, keep = case
    name = f"{body} {'keep' if keep else 'new'} {connections}"
    before = processor_time(*children(pid)) if pid else (0, 0)
    # 512 MB are on their way at once.
    seconds = round(bench.seconds * (3 if (body, connections) == ("1m", 512) else 1))
    result = wrk(lab, f"{url}/{body}", connections, seconds, keep)
    after = processor_time(*children(pid)) if pid else (0, 0)
    bench.add(name, "requests", "1/s", system, result["requests"] / result["seconds"])
    for percentile in PERCENTILES:
        bench.add(name, f"latency-{percentile}", "ms", system, result[str(percentile)])
    if pid:
        for what, a, b in zip(("cpu-user", "cpu-system"), after, before):
            bench.add(name, what, "us/request", system, (a - b) / result["requests"] * 1e6)


def options(parser):
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="some of %(default)s")
    parser.add_argument("--connections", default=",".join(map(str, CONNECTIONS)))
    parser.add_argument("--bodies", default=",".join(BODIES), help="1k, 1m or both")
    parser.add_argument("--modes", default="keep,new")
    parser.add_argument("--no-instructions", action="store_true", help="skip callgrind")


def cases(chosen):
    return [
        (body, int(connections), mode == "keep")
        for body in chosen.bodies.split(",")
        for mode in chosen.modes.split(",")
        for connections in chosen.connections.split(",")
    ]


def start(lab, systems, system):
    url, pid = getattr(systems, system)()
    answer = lab.app("curl", "-sSf", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
                     f"{url}/1k")  # fmt: skip
    if len(answer.out) != 1024:
        sys.exit(f"{system} does not work: {answer}")
    wrk(lab, f"{url}/1k", 32, WARM, True)
    return url, pid


def main():
    bench = Bench("http", seconds=2, options=options)
    chosen = bench.options
    with Lab() as lab:
        (lab.folder / "done.lua").write_text(WRK)
        (lab.cloud.folder / "www/1m").write_bytes(b"0123456789abcdef" * (1 << 16))
        for where in ("app", "device", "cloud"):
            lab.network.run(where, "sysctl", "-qw", *MANY_PORTS)
        systems = Systems(lab)
        for number in range(bench.rounds):
            for system in chosen.systems.split(","):
                url, pid = start(lab, systems, system)
                for case in cases(chosen):
                    measure(bench, lab, system, url, pid, case)
                systems.stop()
                print(f"round {number + 1}: {system}", flush=True)
        if not chosen.no_instructions:
            _instructions.count(bench, lab)
    bench.report()


if __name__ == "__main__":
    main()
