"""One connection, many requests: pipelined, ended by the app, answered in order.

    app ---- device ==wifi== cloud: origin.example
"""

import socket

import pytest

from hears import connect, offline, read_all, wait_held
from hears import hears, shared  # noqa: F401 (fixtures)

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


def test_who_ends_while_held_has_hung_up(hears):
    offline(hears)
    before = hears.get("/v1/status")["requests"]["cancelled"]
    with connect(hears) as app:
        app.sendall(GET % b"held")
        wait_held(hears)
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b""
    assert hears.get("/v1/status")["requests"]["cancelled"] == before + 1
