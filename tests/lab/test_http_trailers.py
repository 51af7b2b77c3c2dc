"""Trailers go both ways where the body is chunked on both sides.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import pytest

from hears import connect, offline, read_all, talk
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, fields, origin, read_head

CONFIG = {"defaults": {"hold": "20s"}}
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b"3;ext=1\r\nabc\r\n0\r\n"
TRAILERS = b"X-Sum: 900150983cd2\r\nSignature: s=:a:\r\n"
FORBIDDEN = (
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: other\r\nConnection: x\r\n"
    b"Authorization: Basic x\r\nSet-Cookie: a=b\r\nX-Hop: 1\r\n"
)


def respond(peer, head):
    peer.sendall(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nConnection: X-Hop\r\n" + CHUNKED + b"\r\n"
                 + BODY + FORBIDDEN + TRAILERS + b"\r\n")  # fmt: skip


def test_a_responses_trailers_reach_the_app(hears):
    with origin(hears, respond) as got:
        said = talk(hears, REQUEST % b"TE: trailers\r\n", ORIGIN[0], PORT)
    head, _, body = said.partition(b"\r\n\r\n")
    assert body == b"3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n"
    assert fields(head + b"\r\n\r\n")["trailer"] == ["X-Sum"]
    asked = fields(got[0])
    assert asked["te"] == ["trailers"] and asked["connection"] == ["TE"]


def test_http_1_0_gets_the_body_without_them(hears):
    with origin(hears, respond):
        said = talk(hears, b"GET / HTTP/1.0\r\nTE: trailers\r\n\r\n", ORIGIN[0], PORT)
    assert said.endswith(b"\r\n\r\nabc")


def receive(got):
    def answer(peer, head):
        got.append(b"")
        while not got[0].endswith(b"0\r\n\r\n") and not got[0].endswith(TRAILERS + b"\r\n"):
            got[0] += peer.recv(65536)
        peer.sendall(OK)

    return answer


@pytest.mark.parametrize("step", [1, 1000])
def test_a_requests_trailers_reach_the_origin(hears, step):
    sent = REQUEST.replace(b"GET", b"POST") % CHUNKED + BODY + FORBIDDEN + TRAILERS + b"\r\n"
    bodies = []
    with origin(hears, receive(bodies)), connect(hears, ORIGIN[0], PORT) as app:
        for n in range(0, len(sent), step):
            app.sendall(sent[n : n + step])
        assert read_all(app).startswith(b"HTTP/1.1 200 ")
    assert bodies[0].endswith(b"0\r\nX-Hop: 1\r\n" + TRAILERS + b"\r\n")
    assert b"Authorization" not in bodies[0] and b"other" not in bodies[0]


def test_a_body_that_was_held_goes_with_its_length_and_without_them(hears):
    def answer(peer, head):
        bodies.append(peer.recv(65536))
        peer.sendall(OK)

    bodies = []
    offline(hears)
    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        announced = CHUNKED + b"Trailer: X-Sum\r\n"
        app.sendall(REQUEST.replace(b"GET", b"POST") % announced + BODY + TRAILERS + b"\r\n")
        hears.restore("wifi", wait=False)
        assert read_all(app).endswith(b"ok")
    assert fields(got[0])["content-length"] == ["3"] and bodies == [b"abc"]
    assert "trailer" not in fields(got[0])


def test_trailers_without_end_are_refused(hears):
    sent = REQUEST.replace(b"GET", b"POST") % CHUNKED + b"0\r\n" + b"X: " + b"y" * 20000
    with origin(hears, lambda peer, head: read_head(peer)):
        said = talk(hears, sent, ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 431 ") and b"trailers too large" in said


def test_a_responses_trailers_without_end_never_end_well(hears):
    answer = b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
    with origin(hears, lambda peer, head: peer.sendall(answer + b"X: " + b"y" * 20000)):
        said = talk(hears, REQUEST % b"", ORIGIN[0], PORT)
    assert said.endswith(b"2\r\nok\r\n")
