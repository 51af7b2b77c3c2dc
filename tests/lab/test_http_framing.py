"""Where a message ends: lengths that lie, none at all, bodies that must not be, octet by octet.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import contextlib
import socket
import time

import pytest

from hears import connect, metric, read_all, talk
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, fields, origin, read_head

CONFIG = {"defaults": {"hold": "2s"}}
LAST = b"Connection: close\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


def says(what):
    return lambda peer, head: peer.sendall(what)


def answered(lab, what, asks=GET + LAST):
    """(head, body) of what an app hears when the origin says that, and closes."""
    with origin(lab, says(what)):
        said = talk(lab, asks, ORIGIN[0], PORT)
    head, end, body = said.partition(b"\r\n\r\n")
    assert end, said
    return head, body


# --- responses that have no body, whatever they say ---


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("more", [b"Content-Length: 5\r\n\r\n", b"\r\n", b"\r\nHTTP/",
                                  b"Content-Length: 0\r\n\r\n",
                                  b"Content-Length: 5\r\n\r\nHTTP/"])  # fmt: skip
def test_no_body_follows_204_and_304(hears, status, more):
    """Each next request is asked, and answered, on its own; 204 does not say a length."""
    with origin(hears, says(b"HTTP/1.1 " + status + b"\r\n" + more)) as got:
        with connect(hears, ORIGIN[0], PORT) as app:
            app.sendall(GET + b"\r\n" + GET + LAST)
            said = read_all(app)
    first, second, rest = said.split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 " + status + b"\r\n"), said
        told = fields(head).get("content-length")
        assert told == ([more.split()[1].decode()] if b"304" in status and b":" in more else None)
        assert "transfer-encoding" not in fields(head)
    assert rest == b"" and len(got) == 2


@pytest.mark.parametrize("more", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_204_that_promises_a_body_ends_the_origins_connection(hears, more):
    """What comes late must not be the answer to somebody else."""

    def answer(peer, head):
        peer.sendall(b"HTTP/1.1 204 No Content\r\n" + more + b"\r\n")
        ends.append(peer.recv(1))

    ends = []
    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(GET + b"\r\n" + GET + LAST)
        assert read_all(app).count(b"HTTP/1.1 204 ") == 2
    assert ends == [b"", b""] and len(got) == 2


@pytest.mark.parametrize("more", [b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n",
                                  b""])  # fmt: skip
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_the_answer_to_head_has_a_length_and_no_body(hears, more, version):
    answer = b"HTTP/1.1 200 OK\r\n" + more + b"X: y\r\n\r\n"
    asks = b"HEAD / " + version + b"\r\nHost: x\r\n" + LAST
    head, body = answered(hears, answer, asks)
    assert body == b"" and "transfer-encoding" not in fields(head)
    assert fields(head).get("content-length") == (["1000000"] if b"Length" in more else None)


def test_head_and_get_follow_each_other_on_one_connection(hears):
    with connect(hears) as app:
        for method in (b"HEAD", b"GET", b"HEAD"):
            app.sendall(method + b" /big/2000 HTTP/1.1\r\nHost: origin.example\r\n\r\n")
            got = read_head(app)
            assert fields(got)["content-length"] == ["2000"]
            left = 2000 if method == b"GET" else 0
            while left:
                left -= len(app.recv(left))


def test_205_is_framed_as_any_other(hears):
    for more, body in ((b"Content-Length: 0\r\n\r\n", b""), (b"\r\n", b"0\r\n\r\n")):
        head, got = answered(hears, b"HTTP/1.1 205 Reset Content\r\n" + more)
        assert head.startswith(b"HTTP/1.1 205 ") and got == body


# --- the end of the connection is the end of the body ---

CLOSED = b"HTTP/1.1 200 OK\r\n\r\nall of it"


@pytest.mark.parametrize("answer", [CLOSED, CLOSED.replace(b"1.1", b"1.0"), CLOSED.replace(
    b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")])  # fmt: skip
def test_a_body_until_the_end_is_chunked_for_an_app_of_1_1(hears, answer):
    head, body = answered(hears, answer)
    assert fields(head)["transfer-encoding"] == ["chunked"]
    assert body == b"9\r\nall of it\r\n0\r\n\r\n"


@pytest.mark.parametrize("asks", [b"GET / HTTP/1.0\r\n\r\n",
                                  b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])  # fmt: skip
def test_and_ends_the_connection_of_an_app_of_1_0(hears, asks):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall of it\r\n0\r\n\r\n"
    for answer in (CLOSED, chunked):
        head, body = answered(hears, answer, asks)
        assert body == b"all of it"
        assert fields(head)["connection"] == ["close"] and "transfer-encoding" not in fields(head)


@pytest.mark.parametrize("cut", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall",
                                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nall",
                                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 b"3\r\nall\r\n0\r\n"])  # fmt: skip
def test_a_body_that_ends_too_early_never_ends_well(hears, cut):
    with origin(hears, says(cut)), connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(GET + LAST)
        said = b""
        with pytest.raises(ConnectionResetError):
            while data := app.recv(65536):
                said += data
    assert not said.endswith(b"0\r\n\r\n")


# --- small pieces ---

POST = b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 300 + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nall\r\n6\r\n of it\r\n0\r\n\r\n"


@pytest.mark.parametrize("body", [b"Content-Length: 9\r\n\r\nall of it", CHUNKED])
def test_octet_by_octet_both_ways(hears, body):
    """Each octet in a segment of its own."""

    def drip(peer, what):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(what)):
            peer.sendall(what[n : n + 1])

    def answer(peer, head):
        got = b""
        while not got.endswith((b"all of it", b"0\r\n\r\n")):
            got += peer.recv(65536)
        bodies.append(got)
        drip(peer, b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 300 + b"\r\n" + body)

    bodies = []
    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        drip(app, POST + b"Connection: close\r\n" + body)
        said = read_all(app)
    for head in (got[0], said):
        assert fields(head)["x-long"] == ["y" * 300]
    for there in (bodies[0], said.split(b"\r\n\r\n", 1)[1]):
        if b"Length" in body:
            assert there == b"all of it"
        else:
            letters = [piece for piece in there.split(b"\r\n")[1::2] if piece]
            assert b"".join(letters) == b"all of it" and there.endswith(b"\r\n0\r\n\r\n")


# --- bounds ---


def test_large_heads_have_a_bound_on_either_side(hears):
    """64 KiB and 128 lines."""
    large, many = b"X: " + b"y" * 60000 + b"\r\n", b"X-%d: y\r\n"
    too_large, too_many = large + b"Z: " + b"z" * 6000 + b"\r\n", 129
    lines = {count: b"".join(many % n for n in range(count)) for count in (120, too_many)}
    for taken in (large, lines[120]):
        with origin(hears, says(OK.replace(b"\r\n\r\n", b"\r\n" + taken + b"\r\n"))) as got:
            said = talk(hears, GET + taken + LAST, ORIGIN[0], PORT)
        assert said.endswith(b"\r\n\r\nok") and taken in said and taken in got[0]
    for refused in (too_large, lines[too_many]):
        with origin(hears) as got:
            with connect(hears, ORIGIN[0], PORT) as app:
                with contextlib.suppress(ConnectionError):
                    app.sendall(GET + refused + LAST)
                said = read_all(app)
        assert said.startswith(b"HTTP/1.1 431 ") and got == []
        head, body = answered(hears, OK.replace(b"\r\n\r\n", b"\r\n" + refused + b"\r\n"))
        assert head.startswith(b"HTTP/1.1 502 ") and b"application/problem+json" in head
        assert b"too large" in body or b"too many fields" in body


def test_a_head_without_end_is_not_read_for_ever(hears):
    def pour(peer, begins):
        """Until the other side has had enough."""
        with pytest.raises(ConnectionError):
            peer.sendall(begins)
            for _ in range(200):
                peer.sendall(b"X: " + b"y" * 16384)
                time.sleep(0.05)

    with origin(hears, lambda peer, head: pour(peer, b"HTTP/1.1 200 OK\r\n")):
        assert talk(hears, GET + LAST, ORIGIN[0], PORT).startswith(b"HTTP/1.1 502 ")
    with connect(hears) as app:
        pour(app, GET)


def test_empty_lines_before_a_request_are_nothing_and_other_lines_are_wrong(hears):
    before = metric(hears, "bad_requests_total")
    taken = GET + b"\r\n" + b"\r\n" + GET + b"\r\n" + b"\r\n" * 4 + GET + LAST
    assert talk(hears, taken).count(b"HTTP/1.1 200 ") == 3
    for wrong in (b"GET / HTTP/1.1\nHost: x\n\n", GET + b"X: a\r\n\tb\r\n" + LAST,
                  GET + b" X: a\r\n" + LAST, GET + b"X: a\n" + LAST):  # fmt: skip
        assert talk(hears, wrong).startswith(b"HTTP/1.1 400 ")
    said = talk(hears, GET + b"\r\n" + b"\r\n" * 9 + GET + LAST)
    assert said.count(b"HTTP/1.1 200 ") == 1 and b"too many empty lines" in said
    assert metric(hears, "bad_requests_total") == before + 5


def test_a_folded_line_of_an_origin_is_a_bad_gateway(hears):
    for wrong in (b"X: a\r\n b\r\n", b"X: a\n", b"X : a\r\n"):
        head, _ = answered(hears, OK.replace(b"\r\n\r\n", b"\r\n" + wrong + b"\r\n"))
        assert head.startswith(b"HTTP/1.1 502 ")
