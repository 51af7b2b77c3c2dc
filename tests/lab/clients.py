"""What runs in the lab's namespaces as an app would: any command, and curl with its answer taken
apart. They see the resolver of /etc/netns/NAME/resolv.conf, as a container sees its own."""

import dataclasses
import itertools
import json
import pathlib
import subprocess
import time


def ip_exec(network, where):
    return ["ip", "netns", "exec", network.name(where)]


@dataclasses.dataclass
class Done:
    """How a command ended."""

    rc: int
    out: str
    err: str
    seconds: float


@dataclasses.dataclass
class Answer:
    """What curl got. status 0: no response; rc and error say why."""

    rc: int
    error: str
    status: int
    headers: dict  # lower case; the last value of a repeated field
    body: bytes
    seconds: float
    remote: str  # the address that curl connected to

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def json(self):
        return json.loads(self.body)

    def __str__(self):
        what = f"{self.status}" if self.status else f"nothing ({self.error or self.rc})"
        return f"{what} after {self.seconds:.2f} s: {self.text[:300]}"


class Client:
    """A command that runs; wait() gives its end."""

    count = itertools.count(1)

    def __init__(self, spawn, folder, command, read=None):
        stem = folder / f"client-{next(self.count)}"
        self.out, self.err = stem.with_suffix(".out"), stem.with_suffix(".err")
        self.read = read or (lambda done: done)
        self.command = command
        self.started = time.monotonic()
        # stderr goes to a file of its own, through a shell that execs: the pid is the client's.
        script = f'exec "$@" 2>"{self.err}"'
        self.process = spawn(["sh", "-c", script, "sh", *command], self.out)

    def running(self):
        return self.process.poll() is None

    def wait(self, timeout=60):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"after {timeout} s still running: {' '.join(self.command)}")
        seconds = time.monotonic() - self.started
        out, err = (path.read_text(errors="replace") for path in (self.out, self.err))
        return self.read(Done(self.process.returncode, out, err, seconds))

    def kill(self):
        """The app hangs up."""
        self.process.kill()
        self.process.wait()


def read_head(path):
    """The fields of the last head in curl's dump: interim ones come before it."""
    if not path.exists():
        return {}
    text = path.read_text(errors="replace").replace("\r\n", "\n").strip("\n")
    fields = {}
    for line in text.split("\n\n")[-1].split("\n")[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields


class Curl(Client):
    def __init__(self, spawn, folder, enter, url, arguments):
        n = next(self.count)
        self.head, self.body = (pathlib.Path(folder) / f"curl-{n}.{x}" for x in ("head", "body"))
        command = [
            *enter, "curl", "-sS", "-g", "-o", str(self.body), "-D", str(self.head),
            "-w", "%{json}", "--max-time", "60", *arguments, url,
        ]  # fmt: skip
        super().__init__(spawn, folder, command, self.answer)

    def answer(self, done):
        told = json.loads(done.out or "{}")
        return Answer(
            rc=done.rc,
            error=done.err.strip(),
            status=told.get("http_code", 0),
            headers=read_head(self.head),
            body=self.body.read_bytes() if self.body.exists() else b"",
            seconds=told.get("time_total", done.seconds),
            remote=told.get("remote_ip", ""),
        )
