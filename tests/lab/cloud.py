"""The servers of the lab's cloud: a recording origin (origin.py), nginx with and without TLS,
and a DNS server on both gateways.

    origin.example, cloud.example   the origin, both families
    www.example, probe.example      nginx, port 80; /204 at probe.example, /1k and /big anywhere
    tls.example                     nginx, port 443, certificate of the lab's own authority
    v4only.example, v6only.example  the origin, one family
    short.example                   the origin, TTL 1
    alias.example                   a CNAME for origin.example
    N.many.example                  the origin, for any N
"""

import json
import pathlib
import subprocess
import sys
import time

from network import LINKS, NGINX, ORIGIN

HERE = pathlib.Path(__file__).resolve().parent
TTL = 300


def dns_arguments(folder):
    def host(name, *addresses, ttl=TTL):
        return f"--host-record={name},{','.join(addresses)},{ttl}"

    routers = [address for link in LINKS.values() for address in link["router"]]
    return [
        "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        "--bind-interfaces", "--user=root", "--group=root", "--pid-file=", "--cache-size=0",
        "--log-queries=extra", f"--log-facility={folder}/dns.log", f"--local-ttl={TTL}",
        "--dns-forward-max=2000", "--local=/example/",
        *(f"--listen-address={address}" for address in routers),
        host("origin.example", *ORIGIN), host("cloud.example", *ORIGIN),
        host("short.example", *ORIGIN, ttl=1),
        host("v4only.example", ORIGIN[0]), host("v6only.example", ORIGIN[1]),
        host("www.example", *NGINX), host("probe.example", *NGINX), host("tls.example", *NGINX),
        "--cname=alias.example,origin.example", "--txt-record=txt.example,a line of text",
        *(f"--address=/many.example/{address}" for address in ORIGIN),
    ]  # fmt: skip


NGINX_CONF = """
user root;
worker_processes 1;
daemon off;
error_log {folder}/nginx-error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    log_format plain '$msec $remote_addr $host "$request" $status $body_bytes_sent';
    access_log {folder}/nginx.log plain;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    sendfile on;
    tcp_nodelay on;
    root {folder}/www;
    server {{
        listen {v4}:80 default_server backlog=4096;
        listen [{v6}]:80 default_server backlog=4096;
        listen {v4}:443 ssl http2 default_server;
        listen [{v6}]:443 ssl http2 default_server;
        ssl_certificate {folder}/tls.pem;
        ssl_certificate_key {folder}/tls.key;
        if (-f {folder}/portal-$remote_addr) {{ return 302 http://portal.example/login; }}
    }}
    server {{
        listen {v4}:80;
        listen [{v6}]:80;
        server_name probe.example;
        access_log {folder}/probe.log plain;
        if (-f {folder}/portal-$remote_addr) {{ return 302 http://portal.example/login; }}
        location = /204 {{ return 204; }}
    }}
}}
"""


def make_certificates(folder):
    """An authority of the lab's own, and a certificate for tls.example and www.example."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "san").write_text("subjectAltName=DNS:tls.example,DNS:www.example\n")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
            "-subj", "/CN=lab authority")  # fmt: skip
    openssl("req", *key, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=tls.example")
    openssl("x509", "-req", "-in", "tls.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "30", "-extfile", "san", "-out", "tls.pem")  # fmt: skip


class Cloud:
    def __init__(self, network, folder, spawn):
        self.network, self.folder, self.spawn = network, folder, spawn
        folder.mkdir()

    def up(self):
        www = self.folder / "www"
        www.mkdir()
        (www / "index.html").write_text("the cloud\n")
        (www / "1k").write_bytes(b"0123456789abcdef" * 64)
        with open(www / "big", "wb") as big:
            big.truncate(256 << 20)
        make_certificates(self.folder)
        conf = self.folder / "nginx.conf"
        conf.write_text(NGINX_CONF.format(folder=self.folder, v4=NGINX[0], v6=NGINX[1]))
        self.record = self.folder / "origin.jsonl"
        addresses = [f"{ORIGIN[0]}:80", f"[{ORIGIN[1]}]:80"]
        addresses += [f"{ORIGIN[0]}:8080", f"[{ORIGIN[1]}]:8080"]
        self.start("dnsmasq", "dnsmasq", *dns_arguments(self.folder))
        self.start("nginx", "nginx", "-e", f"{self.folder}/nginx-error.log", "-c", str(conf))
        self.start("origin", sys.executable, HERE / "origin.py", self.record, *addresses)
        self.wait()

    def start(self, name, *command):
        command = [str(part) for part in command]
        return self.spawn(self.network.enter("cloud") + command, self.folder / f"{name}.out")

    def wait(self):
        """Until all three take connections."""
        for address in (f"{ORIGIN[0]}/80", f"{NGINX[0]}/443", "198.51.100.1/53"):
            for _ in range(200):
                try:
                    self.network.run("cloud", "bash", "-c", f"exec 3<>/dev/tcp/{address}")
                    break
                except RuntimeError:
                    time.sleep(0.05)
            else:
                raise RuntimeError(f"nothing listens at {address}: see {self.folder}")

    def requests(self):
        """What the origin has received so far, oldest first."""
        if not self.record.exists():
            return []
        whole = self.record.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def portal(self, link, on=True):
        """A captive portal on the link: nginx answers everything with a redirect."""
        for address in LINKS[link]["address"]:
            path = self.folder / f"portal-{address}"
            if on:
                path.touch()
            else:
                path.unlink(missing_ok=True)
