"""Something breaks in the middle of an exchange: docs/failures.md says what becomes of it, and
each row of its tables is a test here.

    app ---- device ==wifi== cloud: an origin that reads and writes exactly what a test says
                    ==lte===
"""

import contextlib
import pathlib
import re
import socket
import struct
import time

import pytest

from harness import wait_until
from hears import connect, held, listen, metric, offline, read_all
from hears import wait_held, wait_received, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)
from network import LINKS, ORIGIN
from rawhttp import read_head

CONFIG = {
    "defaults": {"hold": "20s"},
    "rules": [{"name": "kept", "match": {"path": ["/kept"]}, "on_disconnect": "store"}],
}
PORT = 9100
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/failures.md"


class Peer:
    """One connection at the origin."""

    def __init__(self, connection):
        self.socket = connection
        self.got = b""

    def link(self):
        over = {address: name for name, link in LINKS.items() for address in link["address"]}
        return over[self.socket.getpeername()[0]]

    def read_until(self, end):
        while end not in self.got:
            data = self.socket.recv(65536)
            assert data, f"the proxy closed after {self.got!r}"
            self.got += data
        return self.got

    def read_request(self):
        """The head, and the body that its Content-Length says."""
        head = self.read_until(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        whole = head.index(b"\r\n\r\n") + 4 + int(length[1] if length else 0)
        while len(self.got) < whole:
            data = self.socket.recv(65536)
            assert data, "the proxy closed in the body"
            self.got += data
        return self.got

    def send(self, data):
        self.socket.sendall(data)

    def close(self):
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def is_reset(self):
        """Reads to the end of the proxy's bytes; was that end a reset?"""
        try:
            while data := self.socket.recv(65536):
                self.got += data
            return False
        except ConnectionResetError:
            return True


class Origin:
    def __init__(self, lab, port=PORT):
        self.server, self.peers = listen(lab, ORIGIN[0], port), []

    def accept(self, link=None):
        peer = Peer(self.server.accept()[0])
        peer.socket.settimeout(15)
        self.peers.append(peer)
        if link:
            assert peer.link() == link
        return peer

    def nobody_comes(self):
        self.server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            self.server.accept()

    def close(self):
        for peer in self.peers:
            peer.close()
        self.server.close()


@pytest.fixture
def origin(hears):
    origin = Origin(hears)
    yield origin
    origin.close()


def request(method="GET", body=b"", path="/", fields=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: origin.example", *fields]
    if body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


KEY = ("Idempotency-Key: k1",)
AGAIN = pytest.mark.parametrize(
    "sent",
    [request(), request("PUT", b"x"), request("POST", b"x", fields=KEY)],
    ids=["get", "put", "post-with-key"],
)


def app_sends(lab, data):
    app = connect(lab, ORIGIN[0], PORT)
    app.sendall(data)
    return app


def answer(app):
    """One whole response with a Content-Length: status, head, body."""
    got = b""
    while b"\r\n\r\n" not in got:
        data = app.recv(65536)
        assert data, f"closed after {got!r}"
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        data = app.recv(65536)
        assert data, f"closed in the body: {body!r}"
        body += data
    return int(head.split()[1]), head, body


def hears_ok(app):
    status, _, body = answer(app)
    assert (status, body) == (200, b"ok")


def hears_502(app):
    status, head, body = answer(app)
    assert status == 502 and b"problem+json" in head
    assert b"may have reached the origin" in body, body


def reads_then_reset(app, wanted):
    """What came of the response is there, and then no ordinary end."""
    got = b""
    with pytest.raises(ConnectionResetError):
        while data := app.recv(65536):
            got += data
        pytest.fail(f"an ordinary end after {got!r}")
    return got


# --- A: a link dies ---


@pytest.fixture
def nothing_answers(hears):
    """Connections over wifi are not answered, and its probe has not noticed yet."""
    hears.silence("wifi", wait=False)
    return hears


def test_a1_while_connecting_the_next_link_is_taken(nothing_answers, origin):
    app = app_sends(nothing_answers, request("POST", b"x"))
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def test_a2_while_connecting_over_the_last_link_it_is_held(hears, origin):
    hears.cut("lte")
    hears.silence("wifi", wait=False)
    app = app_sends(hears, request("POST", b"x"))
    wait_until("it is held", lambda: held(hears, 1), 15)
    hears.restore("lte")
    peer = origin.accept("lte")
    assert peer.read_request().endswith(b"x")
    peer.send(OK)
    hears_ok(app)


BODY = bytes(range(256)) * 4096
FRAMED = [
    (f"Content-Length: {len(BODY)}", BODY),
    ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
]


def begin_bodies(lab, framed):
    """Uploads to an origin that cannot be reached over the only link; some of each is sent."""
    lab.cut("lte")
    lab.silence("wifi", wait=False)
    for framing, body in framed:
        head = request("PUT", fields=[framing]).replace(b"Content-Length: 0\r\n", b"")
        yield app_sends(lab, head + body[:100000])


def wait_received_whole(lab, n):
    wait_until("bodies are received", lambda: lab.get("/v1/status")["bodies"]["open"] == n, 15)
    assert not lab.requests()


def test_a3_while_connecting_under_a_body_it_is_received_and_held(hears, origin):
    apps = list(begin_bodies(hears, FRAMED))
    wait_received_whole(hears, len(apps))
    for app, (_, body) in zip(apps, FRAMED):
        app.sendall(body[100000:])
    wait_held(hears, len(apps))
    hears.restore("lte")
    for _ in apps:
        peer = origin.accept("lte")
        assert peer.read_request().endswith(b"\r\n\r\n" + BODY)
        peer.send(OK)
    for app in apps:
        hears_ok(app)


def test_a3_a_body_that_is_too_large_to_be_held_gets_413(hears, origin):
    large = bytes(17 << 20)
    framed = [(f"Content-Length: {len(large)}", large),
              ("Transfer-Encoding: chunked", b"%x\r\n%s" % (len(large), large))]  # fmt: skip
    known, found_out = begin_bodies(hears, framed)
    assert answer(known)[0] == 413
    wait_received_whole(hears, 1)
    with contextlib.suppress(ConnectionError):
        found_out.sendall(large)
    assert answer(found_out)[0] == 413
    origin.nobody_comes()


# A whole request too large for the socket's buffers: the origin does not read it, so that part of
# it is on its way when the link dies.
LARGE = bytes(range(256)) * (60 << 2)


def stalled(lab, origin, sent):
    app = app_sends(lab, sent)
    peer = origin.accept("wifi")
    peer.read_until(b"\r\n\r\n")
    return app


@pytest.mark.parametrize("fields", [(), KEY], ids=["put", "post-with-key"])
def test_a4_a_request_partly_sent_moves(hears, origin, fields):
    app = stalled(hears, origin, request("POST" if fields else "PUT", LARGE, fields=fields))
    hears.cut("wifi")
    peer = origin.accept("lte")
    assert peer.read_request().endswith(LARGE)
    peer.send(OK)
    hears_ok(app)


def test_a5_a_post_partly_sent_gets_502(hears, origin):
    app = stalled(hears, origin, request("POST", LARGE))
    hears.cut("wifi")
    hears_502(app)
    origin.nobody_comes()


def test_a6_a_streamed_body_partly_sent_gets_502_and_the_end(hears, origin):
    head = request("PUT", b"x" * (1 << 20)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    app = app_sends(hears, head + b"x" * 1000)
    peer = origin.accept("wifi")
    peer.read_until(b"x" * 1000)
    hears.cut("wifi")
    hears_502(app)
    assert read_all(app) == b""
    origin.nobody_comes()


@AGAIN
def test_a7_a_request_without_a_response_yet_moves(hears, origin, sent):
    app = app_sends(hears, sent)
    origin.accept("wifi").read_request()
    hears.cut("wifi")
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def goes(how):
    """wifi, one way or another."""
    device = LINKS["wifi"]["device"]
    return {
        "silent": lambda lab: lab.silence("wifi", wait=False),
        "shut": lambda lab: lab.network.run("device", "ip", "link", "set", device, "down"),
        "without an address": lambda lab: lab.network.run("device", "ip", "address", "flush",
                                                          "dev", device),
        "disabled": lambda lab: lab.api("PATCH", "/v1/links/wifi", {"enabled": False}),
    }[how]  # fmt: skip


@pytest.fixture
def mended(hears):
    """What a test takes from wifi is there again."""
    yield
    wifi = LINKS["wifi"]
    hears.network.run("device", "ip", "link", "set", wifi["device"], "up")
    for n, family in enumerate(("-4", "-6")):
        hears.network.run("device", "ip", family, "address", "replace",
                          f"{wifi['address'][n]}/{wifi['prefix'][n]}", "dev", wifi["device"],
                          *(["nodad"] if n else []))  # fmt: skip
        hears.network.run("device", "ip", family, "route", "replace", "default", "via",
                          wifi["router"][n], "dev", wifi["device"],
                          "metric", str(wifi["metric"]))  # fmt: skip
    hears.api("PATCH", "/v1/links/wifi", {"enabled": True})


@pytest.mark.parametrize("how", ["silent", "shut", "without an address", "disabled"])
def test_a7_however_the_link_goes(hears, origin, mended, how):
    app = app_sends(hears, request())
    origin.accept("wifi").read_request()
    goes(how)(hears)
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def test_a7_over_the_last_link_it_is_held(hears, origin):
    hears.cut("lte")
    app = app_sends(hears, request())
    origin.accept("wifi").read_request()
    hears.cut("wifi")
    wait_held(hears)
    hears.restore("lte")
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def test_a8_a_post_without_a_response_gets_502_and_is_not_sent_again(hears, origin):
    app = app_sends(hears, request("POST", b"x"))
    origin.accept("wifi").read_request()
    hears.cut("wifi")
    hears_502(app)
    origin.nobody_comes()
    assert hears.requests() == []


HALF_HEAD = OK[:25]


@AGAIN
def test_a9_with_half_a_head_a_request_moves(hears, origin, sent):
    app = app_sends(hears, sent)
    first = origin.accept("wifi")
    first.read_request()
    first.send(HALF_HEAD)
    hears.cut("wifi")
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def test_a10_with_half_a_head_a_post_gets_502(hears, origin):
    app = app_sends(hears, request("POST", b"x"))
    first = origin.accept("wifi")
    first.read_request()
    first.send(HALF_HEAD)
    hears.cut("wifi")
    hears_502(app)
    origin.nobody_comes()


BODIES = {
    "a11": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf a body",
    "a12": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhalf a body\r\n",
    "a13": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf a body",
}


def cut_in_the_body(hears, origin, begun, sent=None):
    app = app_sends(hears, sent or request())
    peer = origin.accept("wifi")
    peer.read_request()
    peer.send(begun)
    got = b""
    while b"half a body" not in got:
        got += app.recv(65536)
    hears.cut("wifi")
    rest = reads_then_reset(app, b"")
    assert b"0\r\n\r\n" not in rest
    origin.nobody_comes()


def test_a11_in_a_body_with_a_length_the_app_is_reset(hears, origin):
    cut_in_the_body(hears, origin, BODIES["a11"])


def test_a12_in_a_chunked_body_the_app_is_reset(hears, origin):
    cut_in_the_body(hears, origin, BODIES["a12"])


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a13_in_a_body_until_close_the_app_is_reset(hears, origin, version):
    sent = request().replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    cut_in_the_body(hears, origin, BODIES["a13"], sent)


def test_a14_after_the_response_nothing_happens(hears, origin):
    app = app_sends(hears, request())
    peer = origin.accept("wifi")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)
    hears.cut("wifi")
    origin.nobody_comes()


ASKS = request("POST", b"hello", fields=["Expect: 100-continue"])[:-5]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def asked_over_wifi(lab, origin):
    app = app_sends(lab, ASKS)
    assert b"\r\nExpect: 100-continue\r\n" in origin.accept("wifi").read_until(b"\r\n\r\n")
    return app


def test_a15_while_the_origin_is_asked_about_a_body_the_next_link_asks_again(hears, origin):
    app = asked_over_wifi(hears, origin)
    hears.cut("wifi")
    peer = origin.accept("lte")
    assert b"\r\nExpect: 100-continue\r\n" in peer.read_until(b"\r\n\r\n")
    peer.send(CONTINUE)
    assert read_head(app).startswith(b"HTTP/1.1 100 ")
    app.sendall(b"hello")
    assert peer.read_request().endswith(b"\r\n\r\nhello")
    peer.send(OK)
    hears_ok(app)


def test_a15_over_the_last_link_100_is_said_here_and_it_is_held(hears, origin):
    hears.cut("lte")
    app = asked_over_wifi(hears, origin)
    hears.cut("wifi")
    assert read_head(app) == CONTINUE
    app.sendall(b"hello")
    wait_held(hears)
    hears.restore("lte")
    peer = origin.accept("lte")
    assert peer.read_request().endswith(b"\r\n\r\nhello") and b"Expect" not in peer.got
    peer.send(OK)
    hears_ok(app)


def test_a15_once_it_said_yes_the_body_is_on_its_way(hears, origin):
    """What became of the body, which nobody has whole, cannot be known."""
    app = app_sends(hears, ASKS)
    peer = origin.accept("wifi")
    peer.read_until(b"\r\n\r\n")
    peer.send(CONTINUE)
    assert read_head(app).startswith(b"HTTP/1.1 100 ")
    app.sendall(b"hel")
    peer.read_until(b"hel")
    hears.cut("wifi")
    hears_502(app)
    origin.nobody_comes()


def test_a16_between_two_requests_the_connection_is_kept(hears, origin):
    app = app_sends(hears, request())
    peer = origin.accept("wifi")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)
    hears.cut("wifi")
    app.sendall(request("POST", b"x"))
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


# --- B: the origin breaks ---


def test_b1_a_refused_connection_is_502(hears):
    app = app_sends(hears, request("POST", b"x"))
    status, _, body = answer(app)
    assert status == 502 and b"refused" in body


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_b2_a_kept_connection_that_the_origin_closed_is_not_noticed(hears, origin, method):
    app = app_sends(hears, request())
    peer = origin.accept()
    peer.read_request()
    peer.send(OK)
    hears_ok(app)
    peer.close()
    app.sendall(request(method, b"x" if method == "POST" else b""))
    peer = origin.accept()
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


def test_b3_closed_without_a_response_it_goes_once_over_each_link(hears, origin):
    app = app_sends(hears, request())
    for link in ("wifi", "lte"):
        peer = origin.accept(link)
        peer.read_request()
        peer.close()
    status, _, _ = answer(app)
    assert status == 502
    origin.nobody_comes()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_b4_closed_without_a_response_a_post_gets_502(hears, origin, end):
    app = app_sends(hears, request("POST", b"x"))
    peer = origin.accept()
    peer.read_request()
    getattr(peer, end)()
    hears_502(app)
    origin.nobody_comes()


def test_b5_an_early_response_is_relayed_and_ends_the_connection(hears, origin):
    head = request("POST", b"x" * (1 << 24)).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    app = app_sends(hears, head + b"x" * 1000)
    peer = origin.accept()
    peer.read_until(b"x" * 1000)
    peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    peer.close()
    status, _, body = answer(app)
    assert (status, body) == (413, b"no")
    assert read_all(app) == b""


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("row", ["a11", "a12"])
def test_b6_broken_in_the_body_the_app_is_reset(hears, origin, row, end):
    app = app_sends(hears, request())
    peer = origin.accept()
    peer.read_request()
    peer.send(BODIES[row])
    got = b""
    while b"half a body" not in got:
        got += app.recv(65536)
    getattr(peer, end)()
    reads_then_reset(app, b"")


def test_b7_what_is_not_http_is_502(hears, origin):
    app = app_sends(hears, request("POST", b"x"))
    peer = origin.accept()
    peer.read_request()
    peer.send(b"SSH-2.0-nonsense\r\n")
    status, _, _ = answer(app)
    assert status == 502


def use_once(app, origin):
    """The app's first request makes a connection that is kept."""
    app.sendall(request())
    peer = origin.accept()
    peer.read_request()
    peer.got = b""
    peer.send(OK)
    hears_ok(app)
    return peer


@AGAIN
def test_b8_closed_instead_of_an_answer_it_is_sent_once_more(hears, origin, sent):
    app = connect(hears, ORIGIN[0], PORT)
    peer = use_once(app, origin)
    app.sendall(sent)
    peer.read_request()
    peer.close()
    peer = origin.accept("wifi")
    peer.read_request()
    peer.send(OK)
    hears_ok(app)
    origin.nobody_comes()


@pytest.mark.parametrize("end", ["close", "reset"])
def test_b9_closed_instead_of_an_answer_a_post_gets_502(hears, origin, end):
    app = connect(hears, ORIGIN[0], PORT)
    peer = use_once(app, origin)
    app.sendall(request("POST", b"x"))
    peer.read_request()
    getattr(peer, end)()
    hears_502(app)
    origin.nobody_comes()


def test_b9_a_post_gets_a_new_connection_when_the_kept_one_was_idle(hears, origin):
    app = connect(hears, ORIGIN[0], PORT)
    use_once(app, origin)
    time.sleep(1.1)  # UPSTREAM_FRESH_TIME
    app.sendall(request("POST", b"x"))
    peer = origin.accept()
    peer.read_request()
    peer.send(OK)
    hears_ok(app)


# --- C: the app goes ---


@pytest.fixture(params=["close", "reset"])
def leave(request):
    def leave(app):
        if request.param == "reset":
            app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        app.close()

    return leave


def test_c1_in_the_head_nothing_is_sent(hears, origin, leave):
    leave(app_sends(hears, request()[:20]))
    origin.nobody_comes()


def test_c2_in_a_streamed_body_the_origin_is_reset(hears, origin, leave):
    head = b"POST / HTTP/1.1\r\nHost: origin.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    app = app_sends(hears, head + 4 * piece)
    peer = origin.accept()
    peer.read_until(b"x" * 1000)
    leave(app)
    assert peer.is_reset()
    assert not peer.got.endswith(b"0\r\n\r\n")


def test_c3_held_it_is_cancelled(hears, leave):
    offline(hears)
    before = metric(hears, "cancelled_total")
    app = app_sends(hears, request("POST", b"x"))
    wait_held(hears)
    leave(app)
    wait_until("it is cancelled", lambda: hears.requests() == [], 5)
    assert metric(hears, "cancelled_total") == before + 1


def test_c3_held_it_is_stored_when_the_rule_says_so(hears, leave):
    offline(hears)
    app = connect(hears)
    app.sendall(request("POST", b"x", "/kept"))
    wait_held(hears)
    leave(app)
    wait_until("it is stored", lambda: hears.requests("?state=stored"), 5)
    hears.restore("wifi", "lte")
    wait_received(hears, 1, path="/kept")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_c4_reset_while_the_origin_works_it_is_reset(hears, origin, framing):
    """A chunked body waits for the connection, and with it the app's; not longer than that."""
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    app = app_sends(hears, request("POST", b"x") if framing == "length" else chunked)
    peer = origin.accept()
    peer.read_until(b"\r\n\r\nx" if framing == "length" else b"\r\n0\r\n\r\n")
    app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    app.close()
    assert peer.is_reset()
    origin.nobody_comes()


def test_c5_in_the_response_the_origin_is_reset(hears, origin, leave):
    app = app_sends(hears, request())
    peer = origin.accept()
    peer.read_request()
    peer.send(BODIES["a11"])
    app.recv(65536)
    leave(app)
    with pytest.raises(OSError):
        while True:  # to the closed app, so it ends
            peer.send(b"x" * 65536)


def test_c6_half_closed_after_the_request_it_is_answered(hears, origin):
    app = app_sends(hears, request("POST", b"x"))
    app.shutdown(socket.SHUT_WR)
    peer = origin.accept()
    peer.read_request()
    peer.send(OK)
    hears_ok(app)
    assert read_all(app) == b""


# --- D: streams and tunnels ---

HELLO = b"not http at all"


def stream(lab, origin, link="wifi"):
    app = app_sends(lab, HELLO)
    peer = origin.accept(link)
    peer.read_until(HELLO)
    return app, peer


def test_d1_while_connecting_a_stream_takes_the_next_link(nothing_answers, origin):
    app, peer = stream(nothing_answers, origin, "lte")
    peer.send(b"hello")
    assert app.recv(100) == b"hello"


def test_d2_without_a_link_a_stream_is_held(hears, origin):
    offline(hears)
    app = app_sends(hears, HELLO)
    origin.nobody_comes()
    hears.restore("lte")
    peer = origin.accept("lte")
    peer.read_until(HELLO)
    peer.send(b"hello")
    assert app.recv(100) == b"hello"


def test_d3_when_the_link_dies_a_stream_is_reset(hears, origin):
    app, peer = stream(hears, origin)
    hears.cut("wifi")
    with pytest.raises(ConnectionResetError):
        app.recv(100)
    stream(hears, origin, "lte")


@pytest.mark.parametrize("first", ["app", "origin"])
def test_d4_one_side_ends_and_the_other_goes_on(hears, origin, first):
    app, peer = stream(hears, origin)
    ends, goes_on = (app, peer.socket) if first == "app" else (peer.socket, app)
    ends.shutdown(socket.SHUT_WR)
    assert goes_on.recv(100) == b""
    goes_on.sendall(b"still here")
    assert ends.recv(100) == b"still here"
    goes_on.close()
    assert ends.recv(100) == b""


def test_d5_a_reset_goes_through(hears, origin):
    app, peer = stream(hears, origin)
    peer.reset()
    with pytest.raises(ConnectionResetError):
        app.recv(100)
    app, peer = stream(hears, origin)
    app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    app.close()
    assert peer.is_reset()


def test_d6_when_the_link_dies_a_tunnel_is_reset(hears, origin):
    upgrade = request(fields=("Connection: Upgrade", "Upgrade: anything"))
    app = app_sends(hears, upgrade)
    peer = origin.accept("wifi")
    peer.read_request()
    peer.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: anything\r\n\r\n"
    )
    assert app.recv(4096).startswith(b"HTTP/1.1 101 ")
    app.sendall(b"ping")
    peer.read_until(b"ping")
    hears.cut("wifi")
    with pytest.raises(ConnectionResetError):
        app.recv(100)


# --- E: a replay ---


def stored(lab):
    """A POST that is stored for the origin, with all links down."""
    offline(lab)
    app = app_sends(lab, request("POST", b"x", fields=("Prefer: respond-async",)))
    status, head, _ = answer(app)
    assert status == 202
    app.close()
    return re.search(rb"/v1/requests/([0-9a-f-]{36})", head)[1].decode()


def key_of(peer):
    return re.search(rb"(?i)idempotency-key: *(\S+)", peer.read_request())[1]


def test_e1_before_anything_is_sent_no_attempt_is_counted(hears, origin):
    name = stored(hears)
    hears.silence("wifi", wait=False)
    hears.network.restore("lte")
    hears.wait_links(online=("lte",))
    peer = origin.accept("lte")
    peer.read_request()
    peer.send(OK)
    wait_state(hears, name, "done")
    assert hears.get(f"/v1/requests/{name}")["attempts"] == 1


def replayed_again(hears, origin, half):
    name = stored(hears)
    hears.restore("wifi")
    first = origin.accept("wifi")
    key = key_of(first)
    first.send(half)
    hears.cut("wifi")
    hears.restore("lte")
    peer = origin.accept("lte")
    assert key_of(peer) == key
    peer.send(OK)
    wait_state(hears, name, "done")
    assert hears.api("GET", f"/v1/requests/{name}/response")[1] == b"ok"


def test_e2_before_the_response_it_is_sent_again_with_its_key(hears, origin):
    replayed_again(hears, origin, b"")


def test_e3_in_the_response_it_is_sent_again_with_its_key(hears, origin):
    replayed_again(hears, origin, BODIES["a11"])


def test_e4_killed_before_the_result_is_kept_it_is_sent_again_with_its_key(hears, origin):
    name = stored(hears)
    hears.restore("wifi")
    first = origin.accept("wifi")
    key = key_of(first)
    hears.kill_daemon()
    hears.start_daemon(CONFIG, links=("wifi",))
    peer = origin.accept("wifi")
    assert key_of(peer) == key
    peer.send(OK)
    wait_state(hears, name, "done")


# --- the page ---


def test_every_row_of_the_page_is_tested_and_every_test_is_a_row():
    rows = set(re.findall(r"^\| ([A-F]\d+) \|", PAGE.read_text(), re.M))
    tests = {name.split("_")[1].upper() for name in globals() if re.match(r"test_[a-f]\d+_", name)}
    assert rows == tests
