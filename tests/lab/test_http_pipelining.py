"""One connection, many requests: pipelined, ended by the app, answered in order.

    app ---- device ==wifi== cloud: origin.example
"""

import select
import socket

import pytest

from harness import wait_until
from hears import connect, offline, read_all, wait_held
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, origin

CONFIG = {"defaults": {"hold": "20s"}}
GET = b"GET /%s HTTP/1.1\r\nHost: origin.example\r\n\r\n"


def places(got, *words):
    found = [got.find(word) for word in words]
    assert -1 not in found and found == sorted(found), got[:2000]


@pytest.mark.parametrize("pieces", [1, 7])
def test_who_ends_after_asking_hears_every_answer_then_the_end(hears, pieces):
    sent = b"".join(GET % b"fin-%d" % n for n in range(20))
    with connect(hears) as app:
        for n in range(0, len(sent), len(sent) // pieces + 1):
            app.sendall(sent[n : n + len(sent) // pieces + 1])
        app.shutdown(socket.SHUT_WR)
        got = read_all(app)
    assert got.count(b"HTTP/1.1 200 ") == 20
    places(got, *(b'"path": "/fin-%d"' % n for n in range(20)))


def test_who_ends_after_bodies_of_all_kinds_hears_every_answer(hears):
    post = b"POST /echo HTTP/1.1\r\nHost: origin.example\r\n"
    with connect(hears) as app:
        app.sendall(post + b"Content-Length: 5\r\n\r\nfirst" + GET % b"chunked"
                    + post + b"Transfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n"
                    + GET % b"big/300000" + GET % b"last")  # fmt: skip
        app.shutdown(socket.SHUT_WR)
        got = read_all(app)
    assert got.count(b"HTTP/1.1 200 ") == 5
    places(got, b"\r\n\r\nfirst", b"chunk 4", b"\r\n\r\nsecond", b'"path": "/last"')


def test_who_ends_in_the_middle_of_a_request_hears_the_answers_before_it(hears):
    with connect(hears) as app:
        app.sendall(GET % b"whole" + b"POST /half HTTP/1.1\r\nHost: origin.example\r\n"
                    b"Content-Length: 10\r\n\r\nhalf")  # fmt: skip
        app.shutdown(socket.SHUT_WR)
        got = read_all(app)
    assert got.count(b"HTTP/1.1 ") == 1 and b'"path": "/whole"' in got
    assert hears.origin_log("/half") == []


def test_who_reads_slowly_hears_every_answer_after_its_end(hears):
    with connect(hears) as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        app.sendall(b"".join(GET % b"big/%d" % (400000 + n) for n in range(12)))
        app.shutdown(socket.SHUT_WR)
        got = read_all(app)
    assert got.count(b"HTTP/1.1 200 ") == 12
    assert len(got) > 12 * 400000


def cancelled(lab):
    return lab.get("/v1/status")["requests"]["cancelled"]


def test_who_ends_while_held_and_still_reads_gets_the_answer(hears):
    offline(hears)
    before = cancelled(hears)
    with connect(hears) as app:
        app.sendall(GET % b"held" + GET % b"behind")
        wait_held(hears)
        app.shutdown(socket.SHUT_WR)
        assert app.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        hears.restore("wifi")
        got = read_all(app)
    assert got.count(b"HTTP/1.1 200 ") == 2
    places(got, b'"path": "/held"', b'"path": "/behind"')
    assert cancelled(hears) == before


def test_who_ended_before_the_link_died_gets_the_answer_over_the_next(hears):
    def answer(peer, head):
        if len(got) == 2:
            peer.sendall(OK)
        else:
            peer.recv(1)  # until the link dies

    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(GET % b"twice")
        app.shutdown(socket.SHUT_WR)
        wait_until("it arrived", lambda: got)
        offline(hears)
        wait_held(hears)
        hears.restore("lte")
        said = read_all(app)
    assert said.startswith(b"HTTP/1.1 100 ") and b"HTTP/1.1 200 " in said and len(got) == 2


@pytest.mark.parametrize("shut_first", [False, True])
def test_who_hangs_up_while_held_is_cancelled(hears, shut_first):
    offline(hears)
    before = cancelled(hears)
    with connect(hears) as app:
        app.sendall(GET % b"gone")
        wait_held(hears)
        if shut_first:
            app.shutdown(socket.SHUT_WR)
    wait_until("it is cancelled", lambda: cancelled(hears) == before + 1)
    assert hears.requests() == []


def test_http_1_0_has_no_way_to_say_that_it_still_reads(hears):
    offline(hears)
    before = cancelled(hears)
    with connect(hears) as app:
        app.sendall(b"GET /old HTTP/1.0\r\n\r\n")
        wait_held(hears)
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b""
    assert cancelled(hears) == before + 1


def test_what_is_pipelined_has_a_bound(hears):
    """An app that only asks: at some point nobody reads it any more."""
    offline(hears)
    with connect(hears) as app:
        app.setblocking(False)
        app.sendall(GET % b"first")
        wait_held(hears)
        sent, more = 0, GET % b"more" * 1000

        def is_stuck():
            nonlocal sent
            try:
                while sent < 32 << 20:
                    sent += app.send(more)
            except BlockingIOError:
                return not select.select([], [app], [], 0.3)[1]
            raise AssertionError("all of it was read")

        wait_until("it is read no more", is_stuck)
