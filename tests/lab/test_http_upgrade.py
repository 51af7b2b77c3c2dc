"""Upgrade: a 101 that was asked for makes a tunnel of both connections.

    app ---- device ==wifi, lte== cloud: a WebSocket server of bare sockets at PORT
"""

import functools

import pytest

import websocket
from harness import wait_until
from hears import connect, metric, offline, problem, read_all, talk, wait_held
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, fields, origin, read_head

CONFIG = {"defaults": {"hold": "1s", "store": "all"}}
HOST = f"origin.example:{PORT}"


@pytest.fixture
def echo(hears):
    with origin(hears, websocket.serve_echo) as got:
        yield got


def dial(lab):
    return connect(lab, ORIGIN[0], PORT)


def ask(app, payload):
    app.sendall(websocket.frame(payload))
    return websocket.read_frame(app)[1]


def test_a_websocket_speaks_both_ways(hears, echo):
    before = metric(hears, "upgraded_streams_total")
    with dial(hears) as app:
        told = websocket.shake_hands(app, HOST)
        assert told["via"] == ["1.1 holdfast"]
        assert ask(app, b"hello") == b"hello"
        big = bytes(range(256)) * 4096
        assert ask(app, big) == big
    asked = fields(echo[0])
    assert asked["upgrade"] == ["websocket"] and asked["connection"] == ["Upgrade"]
    assert asked["sec-websocket-version"] == ["13"] and asked["via"] == ["1.1 holdfast"]
    assert metric(hears, "upgraded_streams_total") == before + 1
    assert hears.requests() == []


def test_what_either_side_says_too_early_is_not_lost(hears):
    greeting = websocket.frame(b"welcome", masked=False)
    answer = functools.partial(websocket.serve_echo, greeting=greeting)
    with origin(hears, answer), dial(hears) as app:
        websocket.shake_hands(app, HOST, websocket.frame(b"eager"))
        assert websocket.read_frame(app)[1] == b"welcome"
        assert websocket.read_frame(app)[1] == b"eager"


def test_the_end_of_one_side_is_the_end_of_the_other(hears, echo):
    with dial(hears) as app:
        websocket.shake_hands(app, HOST)
        app.sendall(websocket.frame(b"", websocket.CLOSE))
        assert websocket.read_frame(app)[0] == websocket.CLOSE
        assert app.recv(1) == b""


def test_a_tunnel_is_cut_with_its_link_and_comes_back_over_the_next(hears, echo):
    with dial(hears) as app:
        websocket.shake_hands(app, HOST)
        assert ask(app, b"over wifi") == b"over wifi"
        hears.cut("wifi")
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    with dial(hears) as app:
        websocket.shake_hands(app, HOST)
        assert ask(app, b"over lte") == b"over lte"


def test_an_upgrade_is_held_until_a_link_is_there(hears, echo):
    offline(hears)
    with dial(hears) as app:
        app.sendall(websocket.request(HOST))
        wait_held(hears)
        hears.restore("lte", wait=False)
        assert read_head(app).startswith(b"HTTP/1.1 101 ")
        assert ask(app, b"late") == b"late"


def test_an_upgrade_is_never_stored(hears):
    offline(hears)
    headers = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Prefer: wait=1"]
    for more in ([], ["-X", "POST"], ["-H", "Prefer: respond-async"]):
        problem(hears.curl("app", "http://origin.example/chat", *headers, *more), 504)
    assert hears.requests() == []


@pytest.mark.parametrize("offer", [b"h2c", b"h2c, "])
def test_h2c_is_left_out_so_that_each_request_is_seen(hears, offer):
    with origin(hears) as got:
        said = talk(hears, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                    b"Upgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
                    b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                    ORIGIN[0], PORT)  # fmt: skip
        assert said.count(b"HTTP/1.1 200 ") == 2
    assert not {"upgrade", "http2-settings", "connection"} & set(fields(got[0]))


def test_another_protocol_beside_h2c_is_still_asked_for(hears):
    with origin(hears) as got:
        talk(hears, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\n"
             b"Upgrade: h2c, websocket\r\nUpgrade: other/1\r\n\r\n", ORIGIN[0], PORT)  # fmt: skip
    assert fields(got[0])["upgrade"] == ["websocket, other/1"]


def test_an_origin_may_decline_and_the_connection_goes_on(hears):
    def decline(peer, head):
        while head:
            peer.sendall(OK)
            head = read_head(peer)

    with origin(hears, decline) as got, dial(hears) as app:
        app.sendall(websocket.request(HOST))
        assert read_head(app).startswith(b"HTTP/1.1 200 ")
        assert app.recv(2) == b"ok"
        app.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(app).endswith(b"ok")
        assert "upgrade" in fields(got[0])


@pytest.mark.parametrize("asked", ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"])
def test_a_101_that_nobody_asked_for_is_an_error(hears, asked):
    def switch(peer, head):
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
                     b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")  # fmt: skip

    sent = f"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{asked}\r\n".encode()
    with origin(hears, switch):
        said = talk(hears, sent, ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 502 ") and b"switched protocols" in said
    assert b"poison" not in said


def test_many_tunnels_at_once_each_hear_their_own(hears, echo):
    apps = [dial(hears) for _ in range(50)]
    for app in apps:
        websocket.shake_hands(app, HOST)
    for n, app in enumerate(apps):
        app.sendall(websocket.frame(b"number %d" % n))
    for n, app in enumerate(apps):
        assert websocket.read_frame(app)[1] == b"number %d" % n
        app.close()
    wait_until("all are over", lambda: len(echo) == 50, 5)
