"""Bodies of any size cost the daemon no more memory than small ones.

    app ---- device: holdfastd, its memory watched ==wifi== cloud: an origin that sums up
                                                   ==lte===

    BODIES_MB=1024 pytest tests/lab/test_bodies.py     streams that much each way
"""

import base64
import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import socket
import subprocess
import threading
import time

import pytest

from harness import wait_until
from hears import LOCATION, connect, listen, metric, offline, wait_held, wait_state
from network import ORIGIN

MB = 1 << 20
STREAMED = int(os.environ.get("BODIES_MB", 256)) * MB
STORED = 64 * MB
ROOM = 12 * MB  # that the daemon may take in addition, whatever the size
PORT = 8300
CONFIG = {
    "defaults": {"hold": "400ms"},
    "rules": [{"name": "patient", "match": {"path": ["/patient"]}, "hold": "30s"}],
    "queue": {"max_request": "100M", "max_bytes": "400M"},
}
PIECE = bytes(range(256)) * 1024


def pieces(size):
    while size:
        yield PIECE[:size]
        size -= len(PIECE[:size])


def digest(size):
    sums = hashlib.sha256()
    for piece in pieces(size):
        sums.update(piece)
    return sums.hexdigest()


class Origin:
    """Tells of each request how long its body was and what its sum is, and answers with as many
    bytes as X-Answer says. While it is `stuck` nothing is read beyond the head; while it may not
    `read`, nothing beyond the first piece."""

    def __init__(self, lab):
        self.server = listen(lab, ORIGIN[0], PORT)
        self.server.settimeout(None)
        self.got, self.heads, self.peers, self.stuck = [], [], [], False
        self.read, self.sent = threading.Event(), 0
        self.read.set()
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        for socket in (self.server, *self.peers):
            with contextlib.suppress(OSError):
                socket.shutdown(2)
            socket.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.server.accept()
                self.peers.append(peer)
                threading.Thread(target=self.serve, args=[peer], daemon=True).start()

    def serve(self, peer):
        with contextlib.suppress(OSError, ValueError), peer.makefile("rb") as reader:
            while line := reader.readline():
                fields = http.client.parse_headers(reader)
                self.heads.append((line.decode(), fields))
                if self.stuck:
                    return
                self.got.append(self.sum_up(reader, fields))
                self.answer(peer, int(fields.get("X-Answer", 0)))

    def sum_up(self, reader, fields):
        sums, size = hashlib.sha256(), 0
        for piece in self.body(reader, fields):
            sums.update(piece)
            size += len(piece)
            self.read.wait()
        return size, sums.hexdigest()

    def body(self, reader, fields):
        if "Content-Length" in fields:
            yield from self.take(reader, int(fields["Content-Length"]))
            return
        while size := int(reader.readline(), 16):
            yield from self.take(reader, size)
            reader.readline()
        reader.readline()

    @staticmethod
    def take(reader, left):
        while left:
            piece = reader.read(min(left, 1 << 18))
            if not piece:
                raise ValueError("half a body")
            left -= len(piece)
            yield piece

    def answer(self, peer, size):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for piece in pieces(size):
            peer.sendall(piece)
            self.sent += len(piece)


class Memory:
    """Of the daemon: the most it had, above what it had at first."""

    def __init__(self, lab):
        self.folder = pathlib.Path(f"/proc/{lab.daemon.pid}")
        self.before = self.read("VmRSS")
        (self.folder / "clear_refs").write_text("5")  # the peak begins anew

    def read(self, what):
        text = (self.folder / "status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+) kB", text, re.M)[1]) * 1024

    def check(self, what, room=ROOM):
        grown = self.read("VmHWM") - self.before
        print(f"{what}: {grown / MB:.1f} MiB more than the {self.before / MB:.0f} MiB before")
        assert grown < room


@pytest.fixture
def origin(daemon, monkeypatch):
    """What the sanitizer keeps of freed memory would be counted, too."""
    monkeypatch.setenv("ASAN_OPTIONS", "quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
    lab = daemon(CONFIG)
    origin = Origin(lab)
    origin.lab = lab
    yield origin
    origin.close()


class Upload:
    """An app that sends a large body, and reads the answer as a sum."""

    def __init__(self, lab, size, path="/", chunked=False, answer=0, method="POST"):
        self.app, self.size, self.chunked = connect(lab, ORIGIN[0], PORT, timeout=60), size, chunked
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
        self.app.sendall(f"{method} {path} HTTP/1.1\r\nHost: origin.example:{PORT}\r\n"
                         f"X-Answer: {answer}\r\n{framing}\r\n\r\n".encode())  # fmt: skip
        self.method, self.sent = method, 0

    def send(self):
        with contextlib.suppress(ConnectionError):  # refused: the answer says why
            for piece in pieces(self.size):
                self.app.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if self.chunked else piece)
                self.sent += len(piece)
            if self.chunked:
                self.app.sendall(b"0\r\n\r\n")
        return self

    def hear(self):
        """The response, with the length and the sum of its body."""
        response = http.client.HTTPResponse(self.app, method=self.method)
        response.begin()
        sums, size = hashlib.sha256(), 0
        while piece := response.read(1 << 18):
            sums.update(piece)
            size += len(piece)
        response.got = size, sums.hexdigest()
        self.app.close()
        return response


def upload(lab, size, *arguments, **more):
    return Upload(lab, size, *arguments, **more).send().hear()


def wait_stopped(what, sent):
    """Until nothing more is taken of what is sent; the bytes that were."""
    seen = [-1, -1, -1]

    def stopped():
        seen.append(sent())
        time.sleep(0.1)
        return seen[-1] > 0 and len(set(seen[-4:])) == 1

    wait_until(what, stopped, 20)
    return seen[-1]


def stored(lab, size, **more):
    response = upload(lab, size, **more)
    assert response.status == 503, response.status
    return LOCATION.fullmatch(response.getheader("Location"))[1]


def summed(size):
    return size, digest(size)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_online_a_body_of_any_size_takes_little_memory(origin, chunked):
    lab = origin.lab
    assert upload(lab, MB, chunked=chunked, answer=MB).status == 200
    memory = Memory(lab)
    response = upload(lab, STREAMED, chunked=chunked, answer=STREAMED)
    assert response.status == 200 and response.got == summed(STREAMED)
    assert origin.got == [summed(MB), summed(STREAMED)]
    memory.check(f"{STREAMED // MB} MB each way")


def test_while_the_origin_does_not_read_the_app_is_not_read_either(origin):
    lab = origin.lab
    assert upload(lab, MB).status == 200
    memory = Memory(lab)
    origin.read.clear()
    app = Upload(lab, STORED)
    sending = threading.Thread(target=app.send)
    sending.start()
    # What is under way is in the kernel's buffers.
    assert wait_stopped("the app waits", lambda: app.sent) < STORED // 2
    origin.read.set()
    sending.join()
    assert app.hear().status == 200
    assert origin.got == [summed(MB), summed(STORED)]
    memory.check("an origin that did not read")


def test_while_the_app_does_not_read_the_origin_is_not_read_either(origin):
    lab = origin.lab
    assert upload(lab, 1, answer=MB).status == 200
    memory, before = Memory(lab), origin.sent
    app = Upload(lab, 1, answer=STORED).send()
    assert wait_stopped("the origin waits", lambda: origin.sent - before) < STORED // 2
    assert app.hear().got == summed(STORED)
    memory.check("an app that did not read")


def test_many_large_bodies_are_held_in_little_memory(origin):
    lab = origin.lab
    offline(lab)
    apps = [Upload(lab, MB, "/patient").send()]
    wait_held(lab)
    memory = Memory(lab)
    for n in range(2, 62):
        apps.append(Upload(lab, MB, "/patient").send())
        wait_until("it is held", lambda: lab.get("/v1/status")["queue"]["held"] == n)
    memory.check("60 held, of 1 MB each", 4 * MB)
    for app in apps:
        app.app.close()
    wait_until("no body is kept", lambda: lab.get("/v1/status")["bodies"]["open"] == 0)


def body_files(lab):
    """Descriptors of the daemon's on files without a name."""
    links = subprocess.run(["ls", "-l", f"/proc/{lab.daemon.pid}/fd"], capture_output=True).stdout
    return links.count(b"(deleted)")


@pytest.mark.parametrize("end", ["closes", "shuts its side", "sends no chunk"])
def test_a_body_that_never_ends_is_forgotten_with_its_app(origin, end):
    lab = origin.lab
    offline(lab)
    before = body_files(lab)
    app = Upload(lab, 10 * MB, "/patient", chunked=end == "sends no chunk")
    app.app.sendall((b"%x\r\n" % (5 * MB) if app.chunked else b"") + bytes(5 * MB))
    wait_until("it is in a file", lambda: lab.get("/v1/status")["bodies"]["bytes"] == 5 * MB)
    assert body_files(lab) == before + 1
    if end == "sends no chunk":
        app.app.sendall(b"\r\nno size\r\n")
        assert app.hear().status == 400
    elif end == "shuts its side":
        app.app.shutdown(socket.SHUT_WR)
        assert app.app.recv(1) == b""
    app.app.close()
    wait_until("no file is left", lambda: body_files(lab) == before)
    bodies = lab.get("/v1/status")["bodies"]
    assert (bodies["open"], bodies["files"], bodies["bytes"], bodies["memory"]) == (0, 0, 0, 0)
    lab.restore("wifi")
    assert lab.requests() == [] and origin.heads == []


def test_a_large_body_is_stored_replayed_and_handed_over_in_little_memory(origin):
    lab = origin.lab
    offline(lab)
    first = stored(lab, 100000)
    memory = Memory(lab)
    ident = stored(lab, STORED, answer=STORED)
    assert lab.get(f"/v1/requests/{ident}")["bytes"] == STORED
    memory.check(f"{STORED // MB} MB stored")
    lab.kill_daemon()
    lab.start_daemon(CONFIG, fresh=False, links=())
    memory = Memory(lab)
    lab.restore("wifi", wait=False)
    wait_state(lab, first, "done")
    wait_state(lab, ident, "done", timeout=60)
    assert origin.got == [summed(100000), summed(STORED)]
    memory.check(f"{STORED // MB} MB replayed, with an answer as large")
    response = upload(lab, STORED, answer=STORED)
    assert response.getheader("Holdfast-Id") == ident
    assert response.got == summed(STORED)
    memory.check("and handed over")
    assert len(origin.got) == 2


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_body_is_held_in_a_file_and_sent_from_there(origin, chunked):
    lab = origin.lab
    offline(lab)
    size = 20 * MB
    app = Upload(lab, size, "/patient", chunked).send()
    (row,) = wait_held(lab)
    assert row["bytes"] == size
    status = lab.get("/v1/status")["bodies"]
    assert status["bytes"] == metric(lab, "body_bytes") == size
    assert status["max_bytes"] == 400 * MB and (status["open"], status["files"]) == (1, 1)
    assert hashlib.sha256(lab.get(f"/v1/requests/{row['id']}/body")).hexdigest() == digest(size)
    lab.restore("wifi", wait=False)
    assert app.hear().status == 200
    assert origin.got == [summed(size)]
    assert origin.heads[0][1]["Content-Length"] == str(size)
    wait_until("the file is gone", lambda: metric(lab, "body_bytes") == 0)


def test_a_body_in_a_file_is_sent_again_when_its_link_dies(origin):
    lab = origin.lab
    offline(lab)
    app = Upload(lab, 20 * MB, "/patient", method="PUT").send()
    wait_held(lab)
    origin.stuck = True
    lab.restore("wifi", wait=False)
    wait_until("it is on its way", lambda: origin.heads, 15)
    origin.stuck = False
    lab.restore("lte")
    lab.cut("wifi")
    assert app.hear().status == 200
    assert origin.got == [summed(20 * MB)]


def test_beside_a_debt_a_body_over_the_limit_is_streamed_whole(origin):
    """It might be a repeat, so it was received at first; then it is too large to be one."""
    lab = origin.lab
    offline(lab)
    ident = stored(lab, 1000)
    lab.restore("wifi", wait=False)
    wait_state(lab, ident, "done")
    memory = Memory(lab)
    assert upload(lab, 130 * MB, chunked=True).status == 200
    assert origin.got == [summed(1000), summed(130 * MB)]
    memory.check("130 MB beside a debt")
    assert upload(lab, 1000).getheader("Holdfast-Id") == ident


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_offline_a_body_over_the_limit_is_refused(origin, chunked):
    lab = origin.lab
    offline(lab)
    assert upload(lab, 120 * MB, "/patient", chunked).status == 413
    assert lab.requests() == [] and metric(lab, "body_bytes") == 0


def test_bodies_on_their_way_are_bounded_together(origin):
    lab = origin.lab
    offline(lab)
    apps = [Upload(lab, 99 * MB, "/patient").send() for _ in range(4)]
    wait_held(lab, 4)
    response = upload(lab, 10 * MB, "/patient")
    assert response.status == 507
    assert metric(lab, "body_refused_total") == 1
    assert len(wait_held(lab, 4)) == len(apps)
    for app in apps:
        app.app.close()
    wait_until("no body is kept", lambda: lab.get("/v1/status")["bodies"]["open"] == 0)


def test_a_large_body_is_handed_over_as_json_in_a_bounded_part_of_memory(origin):
    """The text and what is read of it are in memory at once, and nothing else."""
    lab, size = origin.lab, 12 * MB
    offline(lab)
    handed = {"method": "PUT", "url": f"http://{ORIGIN[0]}:{PORT}/handed"}
    memory = Memory(lab)
    text = base64.b64encode(b"".join(pieces(size))).decode()
    status, row = lab.api("POST", "/v1/requests", handed | {"body_base64": text})
    assert status == 202
    memory.check("12 MB handed over", 5 * size)
    lab.restore("wifi")
    wait_state(lab, row["id"], "done")
    assert origin.got == [summed(size)]
    assert lab.api("POST", "/v1/requests", handed | {"body": "x" * (101 * MB)})[0] == 413
