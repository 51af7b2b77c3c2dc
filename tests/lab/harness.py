"""A lab: namespaces (network.py), a cloud (cloud.py), holdfastd in the device, and clients.

    with Lab() as lab:
        lab.start_daemon({"defaults": {"hold": "1s"}})
        answer = lab.curl("app", "http://origin.example/")
        lab.cut("wifi")

Everything that a lab makes is gone after it, whatever happens in between. HOLDFASTD names the
daemon to run; build/holdfastd is the default. In the tests' labs every frame on the links is
accounted for (accounts.py); what nobody accounts for fails the test.
"""

import atexit
import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from accounts import Accounts
from clients import Client, Curl, ip_exec
from cloud import Cloud
from network import LINKS, Network, run, sweep

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT = 30


def wait_until(what, condition, timeout=10.0, pause=0.05):
    """Poll until condition() is true, and return its value; what is for the failure's text."""
    until = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"after {timeout:g} s still not: {what}")
        time.sleep(pause)


def merge(base, changes):
    """JSON Merge Patch (RFC 7386)."""
    if not isinstance(changes, dict):
        return changes
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def on_terminate(signum, frame):
    sys.exit(128 + signum)  # so that atexit and finally run


class Lab:
    def __init__(self, daemon=None, accounted=False):
        self.holdfastd = str(daemon or os.environ.get("HOLDFASTD") or ROOT / "build/holdfastd")
        self.network = Network(f"hf{os.getpid()}")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"hf{os.getpid()}-"))
        self.cloud = Cloud(self.network, self.folder / "cloud", self.spawn)
        self.socket = str(self.folder / "api.sock")
        self.config_file = self.folder / "holdfast.json"
        self.log_file = self.folder / "holdfastd.log"
        self.processes, self.daemon = [], None
        self.manager = None  # manager.py: who starts the daemon and keeps its descriptors
        self.runs = 0  # of the daemon
        self.accounted, self.accounts = accounted, None
        self.closed = False

    def __enter__(self):
        if os.geteuid() != 0:
            raise RuntimeError("the lab needs root")
        sweep()
        atexit.register(self.close)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, on_terminate)
        try:
            self.network.up()
            if self.accounted:
                self.accounts = Accounts(self.network)
            self.cloud.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Take everything down. Idempotent."""
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        try:
            self.kill_daemon()
            for process in self.processes:
                self.end(process)
            if self.accounts:
                self.accounts.close()
        finally:
            self.release(check=False)
            inode = self.inode()
            self.network.down()
            if inode:
                pathlib.Path(f"/run/holdfast/{inode}.lock").unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def inode(self):
        try:
            return os.stat(f"/run/netns/{self.network.name('device')}").st_ino
        except FileNotFoundError:
            return None

    # --- processes ---

    def spawn(self, command, output=subprocess.DEVNULL, **more):
        """Start a process that ends with the lab."""
        opened = open(output, "ab") if isinstance(output, pathlib.Path) else None
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=opened or output, stderr=subprocess.STDOUT,
            start_new_session=True, **more)  # fmt: skip
        if opened:
            opened.close()
        self.processes.append(process)
        return process

    def end(self, process, number=signal.SIGTERM, timeout=5):
        if self.accounts and process is self.daemon and number == signal.SIGTERM:
            self.accounts.stopping()
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process in self.processes:
            self.processes.remove(process)
        return process.returncode

    # --- the daemon ---

    def config(self):
        def link(name, priority, metered):
            return {
                "name": name, "interface": LINKS[name]["device"], "priority": priority,
                "metered": metered, "dns": [LINKS[name]["router"][0]],
                "probe": {"url": "http://probe.example/204", "interval": "1s", "timeout": "1s"},
            }  # fmt: skip

        return {
            "state_dir": str(self.folder / "state"),
            "apps": {"host": True, "interfaces": ["app0"]},
            "links": [link("wifi", 10, False), link("lte", 20, True)],
            "defaults": {"hold": "2s"},
            "api": {"listen": ["127.0.0.1:7080", f"unix:{self.socket}"]},
        }

    def start_daemon(self, changes=None, fresh=False, links=("wifi", "lte"), text=None,
                     storing=True):  # fmt: skip
        """changes: a merge patch on config(); fresh: with an empty queue; links: wait until
        these are online; text: a whole configuration, in place of all that; storing: wait until
        it can store."""
        if fresh:
            shutil.rmtree(self.folder / "state", ignore_errors=True)
        (self.folder / "state").mkdir(exist_ok=True)
        config = merge(self.config(), changes or {})
        text = text or json.dumps(config, indent=2) + "\n"
        self.config_file.write_text(text)
        self.runs += 1
        self.log_file = self.folder / f"holdfastd.{self.runs}.log"
        if self.accounts:
            self.accounts.starting(text)
        enter = self.witnessed("daemon", self.network.enter("device"))
        command = [self.holdfastd, "--config", str(self.config_file)]
        if self.manager:
            self.daemon = self.manager.start(self.spawn, enter, command, self.log_file)
        else:
            self.daemon = self.spawn(enter + command, self.log_file)
        wait_until("the daemon is ready", lambda: self.is_ready(storing), TIMEOUT)
        if self.accounts:
            self.accounts.ready(text, f"/sys/fs/bpf/holdfast/{self.inode()}/counters")
        self.wait_links(online=links)

    def witnessed(self, who, enter):
        """The command's beginning, in the cgroup of daemon or clients."""
        witnesses = self.accounts and self.accounts.witnesses
        return (getattr(witnesses, who).enter() if witnesses else []) + enter

    def is_ready(self, storing=True):
        if self.daemon.poll() is not None:
            raise AssertionError(f"the daemon ended: {self.daemon.returncode}\n{self.log()}")
        try:
            return self.api("GET", "/readyz")[0] in ((200,) if storing else (200, 503))
        except (ConnectionError, FileNotFoundError, http.client.HTTPException):
            return False

    def stop_daemon(self):
        """An ordinary stop; its exit status."""
        try:
            return self.end(self.daemon, timeout=20) if self.daemon else 0
        finally:
            self.daemon = None

    def kill_daemon(self):
        """SIGKILL: no chance to tidy up."""
        daemon, self.daemon = self.daemon, None
        if daemon:
            self.end(daemon, signal.SIGKILL)

    def release(self, check=True):
        if self.accounts:
            self.accounts.released()
        return run(*self.network.enter("device"), self.holdfastd, "--release", check=check)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # --- links ---

    def cut(self, *names, wait=True):
        """The carrier of these links goes."""
        for name in names:
            self.network.cut(name)
        self.wait_links(offline=names if wait and self.daemon else ())

    def silence(self, *names, wait=True):
        """Nothing arrives over these links any more; carrier and addresses stay."""
        for name in names:
            self.network.silence(name)
        self.wait_links(offline=names if wait and self.daemon else ())

    def restore(self, *names, wait=True):
        for name in names:
            self.network.restore(name)
        self.wait_links(online=names if wait and self.daemon else ())

    def wait_links(self, online=(), offline=()):
        if online:
            wait_until(f"{online} online", lambda: set(online) <= set(self.online()), TIMEOUT)
        if offline:
            wait_until(f"{offline} offline", lambda: not set(offline) & set(self.online()), TIMEOUT)

    # --- clients ---

    def start(self, where, *command):
        """A command in app or device, in the background; its Client."""
        return Client(self.spawn, self.folder, [*self.ip_exec(where), *map(str, command)])

    def ip_exec(self, where):
        enter = ip_exec(self.network, where)
        return self.witnessed("clients", enter) if where == "device" else enter

    def app(self, *command, timeout=60):
        return self.start("app", *command).wait(timeout)

    def host(self, *command, timeout=60):
        return self.start("device", *command).wait(timeout)

    def curl_start(self, where, url, *arguments):
        return Curl(self.spawn, self.folder, self.ip_exec(where), url, list(map(str, arguments)))

    def curl(self, where, url, *arguments, timeout=70):
        return self.curl_start(where, url, *arguments).wait(timeout)

    def dig(self, where, name, kind="A", *arguments, server=None):
        """The answer section's values, as a list."""
        at = [f"@{server}"] if server else []
        done = self.start(where, "dig", "+short", "+time=3", "+tries=1", *at, *arguments,
                          name, kind).wait()  # fmt: skip
        return done.out.split("\n")[:-1] if done.rc == 0 else []

    # --- what can be seen ---

    def api(self, method, path, body=None, headers=None, timeout=15):
        """(status, what the JSON says or the bytes)"""
        connection = UnixConnection(self.socket, timeout)
        fields = {"Content-Type": "application/json"} if body is not None else {}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, fields | (headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if "json" in (response.getheader("Content-Type") or ""):
            return response.status, json.loads(content)
        return response.status, content

    def get(self, path):
        status, content = self.api("GET", path)
        assert status == 200, f"{path}: {status} {content}"
        return content

    def online(self):
        return [link["name"] for link in self.get("/v1/links")["items"] if link["state"] == "online"]

    def requests(self, query=""):
        return self.get("/v1/requests" + query)["items"]

    def counters(self):
        return self.get("/v1/counters")["items"]

    def count(self, **wanted):
        """Packets of all counters that fit: count(hook="guard", reason="not-ours")."""
        return sum(
            item["packets"]
            for item in self.counters()
            if all(item[key] == value for key, value in wanted.items())
        )

    def origin_log(self, path=None, method=None):
        """What the origin received, oldest first; body as bytes, link by the client's address."""
        over = {address: name for name, link in LINKS.items() for address in link["address"]}
        found = []
        for entry in self.cloud.requests():
            if (path and entry["path"] != path) or (method and entry["method"] != method):
                continue
            entry["body"] = base64.b64decode(entry["body"])
            entry["link"] = over.get(entry["client"], entry["client"])
            found.append(entry)
        return found
