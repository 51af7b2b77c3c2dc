"""Bodies, pipelines and crowds while there is no link.

    app ---- device  x  cloud: origin.example
"""

from harness import wait_until
from hears import App, connect, listen, offline, read_all, wait_held
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {"defaults": {"hold": "20s"}}


def test_expect_100_is_answered_while_there_is_no_link(hears):
    offline(hears)
    with connect(hears) as app:
        app.sendall(b"POST /echo HTTP/1.1\r\nHost: origin.example\r\nContent-Length: 5\r\n"
                    b"Expect: 100-continue\r\nConnection: close\r\n\r\n")  # fmt: skip
        assert app.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        app.sendall(b"hello")
        wait_held(hears)
        hears.restore("wifi", wait=False)
        got = read_all(app)
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\nhello")


def test_pipelined_requests_are_held_and_answered_in_order(hears):
    offline(hears)
    one = b"GET /pipe/%d HTTP/1.1\r\nHost: origin.example\r\n%s\r\n"
    with connect(hears) as app:
        app.sendall(b"".join(one % (n, b"Connection: close\r\n" * (n == 2)) for n in range(3)))
        wait_held(hears)
        hears.restore("wifi", wait=False)
        got = read_all(app)
    places = [got.find(b'"path": "/pipe/%d"' % n) for n in range(3)]
    assert -1 not in places and places == sorted(places)


def test_an_upload_that_meets_the_end_of_the_link_is_told_so(hears):
    """Online it is streamed, so nothing of it is there to be sent again."""
    with listen(hears, ORIGIN[0], 8084) as server, connect(hears, ORIGIN[0], 8084) as app:
        app.sendall(b"POST /upload HTTP/1.1\r\nHost: origin.example\r\n"
                    b"Content-Length: 1000000\r\n\r\n" + b"u" * 200000)  # fmt: skip
        with server.accept()[0] as peer:
            assert peer.recv(100).startswith(b"POST /upload HTTP/1.1\r\n")
            offline(hears)
            got = read_all(app)
    assert got.startswith(b"HTTP/1.1 502 "), got[:200]
    assert hears.requests() == []


def test_a_thousand_held_requests_are_all_answered(hears):
    offline(hears)
    apps = [App(hears, timeout=40) for _ in range(1000)]
    for n, app in enumerate(apps):
        app.request("POST", "/echo", b"number %d" % n)
    wait_until("all are held", lambda: hears.get("/v1/status")["queue"]["held"] == 1000, 20)
    hears.restore("wifi", wait=False)
    for n, app in enumerate(apps):
        assert app.getresponse().read() == b"number %d" % n
        app.close()
