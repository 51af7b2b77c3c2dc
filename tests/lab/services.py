"""Real servers in the cloud for real clients, beside those of cloud.py.

    www.example:8000   nginx: files, a Debian archive, git's http-backend through fcgiwrap
    www.example:8001   nginx, HTTP/2 with prior knowledge
    tls.example:8443   nginx, TLS with h2
    www.example:8002   nghttpd, HTTP/2 with prior knowledge
    tls.example:8444   nghttpd, TLS with h2
    origin.example     sshd :22, mosquitto :1883, openssl s_server :4433 and :4434,
                       a WebSocket server :8003

What nginx has below /slow/ comes at RATE bytes a second, unless only a part is asked for: long
enough to be cut in the middle, and quick to be carried on with.
"""

import os
import pathlib
import random
import subprocess
import sys

from harness import wait_until
from hears import connect
from network import ORIGIN

HERE = pathlib.Path(__file__).resolve().parent
RATE = 64 << 10
SIZE = 1 << 20  # of what is cut in the middle
PORTS = {"http": 8000, "h2c": 8001, "h2": 8443, "nghttpd": 8002, "nghttpd-tls": 8444, "ssh": 22,
         "mqtt": 1883, "tls": 4433, "tls-long": 4434, "websocket": 8003}  # fmt: skip

NGINX_CONF = """
user root;
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/nginx.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_range $pace {{ "" {rate}; default 0; }}
    server {{
        listen [::]:8000 ipv6only=off;
        listen [::]:8001 http2 ipv6only=off;
        listen [::]:8443 ssl http2 ipv6only=off;
        ssl_certificate {cloud}/tls.pem;
        ssl_certificate_key {cloud}/tls.key;
        root {folder}/www;
        location /slow/ {{
            alias {folder}/www/;
            limit_rate $pace;
        }}
        location ~ ^(?<slow>/slow)?/git(?<repository>/.*)$ {{
            if ($slow) {{ set $limit_rate {rate}; }}
            client_max_body_size 0;
            fastcgi_pass unix:{folder}/cgi.sock;
            fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
            fastcgi_param GIT_PROJECT_ROOT {folder}/git;
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_PROTOCOL $http_git_protocol;
            fastcgi_param PATH_INFO $repository;
            fastcgi_param QUERY_STRING $query_string;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
            fastcgi_param REMOTE_USER lab;
            fastcgi_param REMOTE_ADDR $remote_addr;
        }}
    }}
}}
"""

MOSQUITTO_CONF = """
user root
listener 1883
allow_anonymous true
"""

SSHD_CONF = """
Port 22
HostKey {folder}/host
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""


def run(*command, **more):
    subprocess.run(list(map(str, command)), check=True, capture_output=True, **more)


def text(size, seed=1):
    """So many bytes of lines that compression makes little of."""
    return random.Random(seed).randbytes(size // 2).hex("\n", 32).encode()[:size]


class Services:
    def __init__(self, lab):
        self.lab, self.folder = lab, lab.folder / "services"
        self.cloud = lab.cloud.folder
        self.www = self.folder / "www"
        self.data = text(SIZE)

    def up(self):
        self.www.mkdir(parents=True)
        (self.www / "data").write_bytes(self.data)
        (self.www / "hello").write_text("hello\n")
        self.make_archive()
        self.make_repository()
        self.make_keys()
        self.start_all()

    # --- what they serve ---

    def make_archive(self):
        """A Debian archive of one package, `cargo`, with the data in it."""
        archive, tree = self.www / "apt", self.folder / "cargo"
        archive.mkdir()
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            "Package: cargo\nVersion: 1.0\nArchitecture: all\nMaintainer: lab <lab@lab.example>\n"
            "Description: something to carry\n")  # fmt: skip
        (tree / "data").write_bytes(self.data)
        run("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, archive / "cargo_1.0_all.deb")
        for kind in ("packages", "release"):
            done = subprocess.run(["apt-ftparchive", kind, "."], cwd=archive, check=True,
                                  capture_output=True)  # fmt: skip
            (archive / kind.capitalize()).write_bytes(done.stdout)

    def make_repository(self):
        """cargo.git with the data in it. A push waits in its hook while the file `wait` is there."""
        git = ["git", "-c", "user.name=lab", "-c", "user.email=lab@lab.example", "-C"]
        bare, tree = self.folder / "git/cargo.git", self.folder / "tree"
        run("git", "init", "-q", "-b", "main", tree)
        (tree / "data").write_bytes(self.data)
        run(*git, tree, "add", "data")
        run(*git, tree, "commit", "-q", "-m", "cargo")
        run("git", "clone", "-q", "--bare", tree, bare)
        hook = bare / "hooks/pre-receive"
        hook.write_text(f"#!/bin/sh\ntouch {self.folder}/asked\n"
                        f"while [ -e {self.folder}/wait ]; do sleep 0.1; done\n")  # fmt: skip
        hook.chmod(0o755)

    def make_keys(self):
        for name in ("host", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        (self.folder / "known").write_text("origin.example " + (self.folder / "host.pub").read_text())

    # --- who serves ---

    def start_all(self):
        conf = {"nginx": NGINX_CONF, "mosquitto": MOSQUITTO_CONF, "sshd": SSHD_CONF}
        for name, content in conf.items():
            content = content.format(folder=self.folder, cloud=self.cloud, rate=RATE)
            (self.folder / f"{name}.conf").write_text(content)
        os.makedirs("/run/sshd", exist_ok=True)  # which sshd wants
        key, certificate = self.cloud / "tls.key", self.cloud / "tls.pem"
        self.start("fcgiwrap", "-c", 4, "-s", f"unix:{self.folder}/cgi.sock")
        wait_until("fcgiwrap listens", (self.folder / "cgi.sock").exists)
        self.start("nginx", "-e", self.folder / "nginx-error.log", "-c", self.folder / "nginx.conf")
        self.start("nghttpd", "-d", self.www, "--no-tls", 8002)
        self.start("nghttpd", "-d", self.www, 8444, key, certificate)
        self.start("mosquitto", "-c", self.folder / "mosquitto.conf")
        self.start("/usr/sbin/sshd", "-D", "-e", "-f", self.folder / "sshd.conf")
        for port in (4433, 4434):
            self.start("openssl", "s_server", "-rev", "-quiet", "-accept", port, "-key", key,
                       "-cert", certificate)  # fmt: skip
        self.start(sys.executable, HERE / "apps/chat_server.py", 8003)
        for name, port in PORTS.items():
            wait_until(f"{name} listens", lambda: self.listens(port))

    def start(self, *command):
        self.lab.cloud.start("services", *command)

    def listens(self, port):
        try:
            connect(self.lab, ORIGIN[0], port, "cloud").close()
            return True
        except ConnectionRefusedError:
            return False
