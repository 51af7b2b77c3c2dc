"""The corpus of messages that two readers might read in two ways, through the daemon.

    app: bare sockets ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import contextlib
import pathlib
import socket
import threading

import pytest

from hears import connect, listen, read_all
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {"defaults": {"hold": "2s"}}
CORPUS = pathlib.Path(__file__).resolve().parents[1] / "corpus/smuggling"
PORT = 8091
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /%d HTTP/1.1\r\nHost: origin.example\r\n\r\n"
# Not HTTP by their first bytes: relayed as opaque TCP, octet by octet, so no second reader here.
OPAQUE = {
    "line-leading-space", "line-tab", "line-two-spaces", "line-method-nul", "line-method-colon",
    "line-empty-lf", "line-empty-many",
}  # fmt: skip


def corpus(folder):
    files = sorted((CORPUS / folder).glob("*.http"))
    assert files
    return [pytest.param(file.read_bytes(), id=file.stem) for file in files]


def cut(got, end):
    before, found, after = got.partition(end)
    if not found:
        raise EOFError
    return before, after


def read_body(got, fields):
    """(body, rest)"""
    body = b""
    if b"transfer-encoding" not in fields:
        length = int(fields.get(b"content-length", 0))
        if len(got) < length:
            raise EOFError
        return got[:length], got[length:]
    while True:
        size, got = cut(got, b"\r\n")
        size = int(size, 16)
        if not size:
            break
        body, got = body + got[:size], got[size + 2 :]
    while not got.startswith(b"\r\n"):
        _, got = cut(got, b"\r\n")
    return body, got[2:]


def requests_of(got):
    """What a plain reader finds: (method, target, body) of each that is whole."""
    found = []
    with contextlib.suppress(EOFError):
        while True:
            head, got = cut(got, b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            body, got = read_body(got, fields)
            found.append((*head.split(b" ")[:2], body))
    return found


class Origin:
    """Records what each connection brings, and answers what is whole."""

    def __init__(self, lab, *says, closes=False):
        self.says, self.closes, self.got, self.peers = list(says), closes, [], []
        self.server = listen(lab, ORIGIN[0], PORT)
        self.server.settimeout(None)
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer = self.server.accept()[0]
                self.peers.append(peer)
                self.got.append(b"")
                serve = threading.Thread(target=self.serve, args=(peer, len(self.got) - 1))
                self.threads.append(serve)
                serve.start()

    def serve(self, peer, n):
        with contextlib.suppress(OSError):
            answered = 0
            while data := peer.recv(65536):
                self.got[n] += data
                for method, *_ in requests_of(self.got[n])[answered:]:
                    answered += 1
                    ok = OK if method != b"HEAD" else OK.removesuffix(b"ok")
                    peer.sendall(self.says.pop(0) if self.says else ok)
                    if self.closes:
                        peer.shutdown(socket.SHUT_WR)
            peer.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(15)


def say(lab, sent):
    with connect(lab, ORIGIN[0], PORT) as app:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            app.sendall(sent)
            app.shutdown(socket.SHUT_WR)
        return read_all(app)


@pytest.mark.parametrize("sent", corpus("requests/refused"))
def test_a_request_of_two_readings_is_refused(hears, sent, request):
    with Origin(hears) as origin:
        said = say(hears, sent)
    if request.node.callspec.id in OPAQUE:
        assert origin.got == [sent]
        return
    assert said.count(b"HTTP/1.1 ") == (1 if said else 0)
    # A chunked body may have been on its way when its fault came to light; its end never is.
    assert said.split(b" ")[1:2] in ([], [b"400"], [b"414"], [b"431"], [b"501"], [b"505"])
    for got in filter(None, origin.got):
        assert b"\r\nTransfer-Encoding: chunked\r\n" in got
        assert b"\r\nContent-Length:" not in got and not got.endswith(b"\r\n0\r\n\r\n")
        assert b"smuggled" not in got


@pytest.mark.parametrize("sent", corpus("requests/taken"))
def test_a_request_of_one_reading_reaches_the_origin_as_it_is_meant(hears, sent):
    with Origin(hears) as origin:
        say(hears, sent)
    found = [one for got in origin.got for one in requests_of(got)]
    bodies = {target: body for _, target, body in found}
    assert len(found) == 2 and bodies.keys() == {b"/", b"/next"}
    assert bodies[b"/next"] == b""
    if b"/smuggled" in sent:
        assert bodies[b"/"] == b"GET /smuggled HTTP/1.1\r\nHost: origin.example\r\n\r\n"


@pytest.mark.parametrize("answer", corpus("responses/refused"))
def test_a_response_of_two_readings_is_no_answer(hears, answer):
    with Origin(hears, answer, closes=True) as origin:
        with connect(hears, ORIGIN[0], PORT) as app:
            said = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                app.sendall(GET % 1)
                said = app.recv(65536)
                app.sendall(GET % 2)
                while b"\r\n\r\nok" not in said and (data := app.recv(65536)):
                    said += data
    assert b"smuggled" not in said
    # It went to the app as far as it was good, or it is a 502; then the next has its own.
    assert said == b"" or said.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 200 "))
    assert not said.startswith(b"HTTP/1.1 200 ") or b"0\r\n\r\n" not in said
    assert origin.got[0].count(b"GET ") == 1
