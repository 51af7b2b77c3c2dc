"""Responses that come before they are due: 1xx, and a final one before the request has ended.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import socket
import struct

import pytest

from hears import connect, metric, offline, read_all, talk, wait_held
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, fields, origin, read_head

CONFIG = {"defaults": {"hold": "20s"}}
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"


def test_interim_responses_reach_the_app_without_what_is_of_the_connection(hears):
    with origin(hears, lambda peer, head: peer.sendall(HINTS + HINTS + OK)):
        said = talk(hears, GET, ORIGIN[0], PORT)
    first, second, last = said.split(b"HTTP/1.1 ")[1:]
    assert first == second and first.startswith(b"103 Early Hints\r\n")
    assert fields(first) == {"link": ["</a>; rel=preload"], "via": ["1.1 holdfast"]}
    assert last.startswith(b"200 OK\r\n") and last.endswith(b"\r\n\r\nok")


def test_http_1_0_gets_none_of_them(hears):
    with origin(hears, lambda peer, head: peer.sendall(HINTS + OK)):
        said = talk(hears, b"GET / HTTP/1.0\r\n\r\n", ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 200 ") and b"103" not in said


def test_interim_responses_without_end_are_a_bad_gateway(hears):
    with origin(hears, lambda peer, head: peer.sendall(HINTS * 40 + OK)):
        said = talk(hears, GET, ORIGIN[0], PORT)
    assert b"HTTP/1.1 502 " in said and b"interim responses without end" in said
    assert b"HTTP/1.1 200 " not in said


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_via_names_the_version_that_was_heard_and_comes_after_those_before(hears, version):
    def answer(peer, head):
        peer.sendall(version + b" 200 OK\r\nVia: 1.1 edge\r\nContent-Length: 0\r\n\r\n")

    asked = b"GET / %s\r\nHost: x\r\nVia: 1.0 radio\r\nConnection: close\r\n\r\n" % version
    with origin(hears, answer) as got:
        said = talk(hears, asked, ORIGIN[0], PORT)
    number = version.decode()[-3:]
    assert fields(said)["via"] == ["1.1 edge", f"{number} holdfast"]
    assert fields(got[0])["via"] == ["1.0 radio", f"{number} holdfast"]
    assert got[0].startswith(b"GET / HTTP/1.1\r\n")


def test_another_expectation_than_100_continue_gets_417(hears):
    asked = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\nContent-Length: 1\r\n\r\n1"
    with origin(hears) as got:
        said = talk(hears, asked, ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 417 ") and not got


def refuse_early(reset):
    def answer(peer, head):
        peer.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n"
                     b"Connection: close\r\n\r\nmuch")  # fmt: skip
        if reset:  # what is still on its way here meets a closed socket
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()

    return answer


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_an_answer_before_the_end_of_an_upload_reaches_the_app(hears, reset):
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (64 << 20)
    heard = 0
    with origin(hears, refuse_early(reset)):
        for _ in range(5):
            with connect(hears, ORIGIN[0], PORT) as app:
                app.sendall(head)
                try:
                    for _ in range(64):
                        app.sendall(bytes(1 << 20))
                except (BrokenPipeError, ConnectionResetError):
                    pass
                said = read_all(app)
            heard += said.startswith(b"HTTP/1.1 413 ") and said.endswith(b"\r\n\r\nmuch")
            assert said == b"" or said.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 502 "))
    # A reset throws away what the device had not read yet.
    assert heard == 5 or (reset and heard >= 1), heard


def test_an_early_answer_ends_the_connection_and_the_rest_is_not_a_request(hears):
    """What comes after it is the body of the first request, whatever it looks like."""
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + GET * 10
    before = metric(hears, "http_requests_total")

    def answer(peer, head):
        peer.sendall(OK)
        while peer.recv(65536):
            pass

    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(sent)
        said = read_all(app)
    assert said.count(b"HTTP/1.1 ") == 1 and fields(said)["connection"] == ["close"]
    assert len(got) == 1 and metric(hears, "http_requests_total") == before + 1


def test_the_app_that_expects_100_hears_it_while_its_request_is_held(hears):
    offline(hears)
    with origin(hears, lambda peer, head: (peer.recv(10), peer.sendall(OK))) as got:
        with connect(hears, ORIGIN[0], PORT) as app:
            app.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                        b"Connection: close\r\nContent-Length: 5\r\n\r\n")  # fmt: skip
            assert read_head(app) == b"HTTP/1.1 100 Continue\r\n\r\n"
            app.sendall(b"hello")
            wait_held(hears)
            hears.restore("wifi", wait=False)
            assert read_all(app).endswith(b"ok")
    assert "expect" not in fields(got[0])


ASKS = (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
        b"Content-Length: 5\r\n\r\n")  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def test_the_origin_is_asked_whether_it_wants_the_body(hears):
    def answer(peer, head):
        peer.sendall(CONTINUE)
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
        peer.sendall(OK)

    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(ASKS)
        said = read_head(app)
        assert said.startswith(b"HTTP/1.1 100 Continue\r\n")
        assert fields(said) == {"via": ["1.1 holdfast"]}
        app.sendall(b"hello")
        said = read_all(app)
    assert said.startswith(b"HTTP/1.1 200 ") and said.endswith(b"\r\n\r\nok")
    assert fields(got[0])["expect"] == ["100-continue"]


def test_the_origin_that_does_not_want_the_body_does_not_get_it(hears):
    rest = []

    def answer(peer, head):
        peer.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nwho?")
        rest.append(peer.recv(100))

    with origin(hears, answer), connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(ASKS)
        said = read_all(app)
    assert said.startswith(b"HTTP/1.1 401 ") and said.endswith(b"\r\n\r\nwho?")
    assert fields(said)["connection"] == ["close"] and rest == [b""]


def test_where_the_origin_says_nothing_100_is_said_here_after_a_while(hears):
    """Origins of HTTP/1.0, and those that never heard of it, wait for the body."""

    def answer(peer, head):
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
        peer.sendall(CONTINUE + OK)  # too late: nobody wants to hear it

    with origin(hears, answer), connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(ASKS)
        assert read_head(app) == CONTINUE
        app.sendall(b"hello")
        assert read_all(app).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_did_not_wait_goes_on_with_its_expectation(hears):
    def answer(peer, head):
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
        peer.sendall(OK)

    with origin(hears, answer):
        said = talk(hears, ASKS + b"hello", ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 200 ")


def test_an_expectation_of_http_1_0_is_not_heard(hears):
    """RFC 9110, 10.1.1: a server that receives it in an HTTP/1.0 request must ignore it."""
    asked = ASKS.replace(b"HTTP/1.1", b"HTTP/1.0") + b"hello"
    with origin(hears, lambda peer, head: (peer.recv(5), peer.sendall(OK))) as got:
        said = talk(hears, asked, ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 200 ") and "expect" not in fields(got[0])


def test_an_expectation_without_a_body_asks_nothing(hears):
    with origin(hears) as got:
        said = talk(hears, GET.replace(b"Host", b"Expect: 100-continue\r\nHost"), ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 200 ") and "expect" not in fields(got[0])
