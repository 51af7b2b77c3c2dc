"""What is of a connection stays on it, and what is for the other end gets there as it was.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import email.utils
import time

import pytest

from hears import connect, offline, read_all, talk, wait_held, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, fields, origin

CONFIG = {"defaults": {"hold": "10s"}}
GET = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n%s\r\nok"
LAST = b"Connection: close\r\n"


def asked(lab, more):
    """The fields that the origin saw of a request with these lines."""
    with origin(lab) as got:
        talk(lab, GET % (more + LAST), ORIGIN[0], PORT)
    return fields(got[0])


def answered(lab, more, status=b"200 OK", asks=GET % LAST):
    with origin(lab, lambda peer, head: peer.sendall((ANSWER % more).replace(b"200 OK", status))):
        return talk(lab, asks, ORIGIN[0], PORT)


OF_THE_CONNECTION = [
    b"Keep-Alive: timeout=5\r\n", b"Proxy-Connection: keep-alive\r\n", b"TE: gzip\r\n",
    b"Proxy-Authorization: Basic eDp5\r\n", b"Proxy-Authenticate: Basic\r\n",
    b"Upgrade: websocket\r\n", b"Trailer: X-Later\r\n", b"HTTP2-Settings: AAMAAABk\r\n",
    b"Connection: X-Mine, keep-alive\r\nX-Mine: 1\r\n",
    b"Connection: keep-alive\r\nConnection: ,,x-Mine\r\nX-MINE: 1\r\nX-Mine: 2\r\n",
    b"X-Mine: 1\r\nConnection: Upgrade, X-Mine\r\n",
]  # fmt: skip


def test_what_is_of_the_connection_stays_on_it(hears):
    for lines in OF_THE_CONNECTION:
        there = asked(hears, lines)
        assert there.keys() == {"host", "via"}, (lines, there)
        said = fields(answered(hears, lines))
        assert said.keys() == {"content-length", "via", "date", "connection"}, (lines, said)
        assert said["connection"] == ["close"]


def test_te_trailers_is_said_anew(hears):
    there = asked(hears, b"TE: trailers, gzip;q=0.5\r\nConnection: TE\r\n")
    assert there["te"] == ["trailers"] and there["connection"] == ["TE"]


def test_connection_takes_nothing_away_that_frames_or_routes(hears):
    sent = (b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close, Host, Content-Length, "
            b"Transfer-Encoding, X-Mine\r\nContent-Length: 2\r\nX-Mine: 1\r\n\r\nhi")  # fmt: skip

    def answer(peer, head):
        bodies.append(peer.recv(2))
        peer.sendall(ANSWER % b"Connection: Content-Length, Date\r\nDate: x\r\n")

    bodies = []
    with origin(hears, answer) as got:
        said = talk(hears, sent, ORIGIN[0], PORT)
    there = fields(got[0])
    assert bodies == [b"hi"] and there["content-length"] == ["2"] and there["host"] == ["x"]
    assert "x-mine" not in there
    assert fields(said)["content-length"] == ["2"] and said.endswith(b"\r\n\r\nok")


def test_a_key_that_does_not_go_on_does_not_let_a_request_go_twice(hears):
    """Who names Idempotency-Key in Connection keeps it from the origin: it counts for nothing."""
    lines = b"Host: x\r\nConnection: close, Idempotency-Key\r\nIdempotency-Key: 7\r\n"
    sent = b"POST / HTTP/1.1\r\n%sContent-Length: 2\r\n\r\nhi" % lines
    with origin(hears, lambda peer, head: peer.recv(2) and None) as got:
        said = talk(hears, sent, ORIGIN[0], PORT)
    assert said.startswith(b"HTTP/1.1 502 ") and b"may have reached the origin" in said
    assert len(got) == 1 and "idempotency-key" not in fields(got[0])


FOR_THE_OTHER_END = {
    "content-encoding": "gzip", "content-range": "bytes 0-1/9", "etag": '"a"', "x-empty": "",
    "accept-ranges": "bytes", "cache-control": "max-age=3, private", "vary": "*",
    "set-cookie": "a=b; Path=/", "age": "3", "range": "bytes=0-1", "accept-encoding": "gzip, br",
    "x-long": "y" * 8000, "x-high": "caf\xe9", "transfer": "chunked", "content-length-x": "9",
    "date": "Thu, 01 Jan 1970 00:00:00 GMT", "proxy": "x", "max-forwards": "1",
    "if-none-match": 'W/"1"', "authorization": "Basic eDp5", "warning": '199 - "x"',
}  # fmt: skip


@pytest.mark.parametrize("status", [b"200 OK", b"206 Partial Content", b"599 "])
def test_what_is_for_the_other_end_gets_there_as_it_was(hears, status):
    lines = "".join(f"{name}: {value}\r\n" for name, value in FOR_THE_OTHER_END.items())
    lines = lines.encode("latin-1").replace(b"x-high: caf\xc3\xa9", b"x-high: caf\xe9")

    def answer(peer, head):
        heads.append(head)
        peer.sendall((ANSWER % lines).replace(b"200 OK", status))

    heads = []
    with origin(hears, answer):
        said = talk(hears, GET % (lines + LAST), ORIGIN[0], PORT)
    for head in (heads[0], said.split(b"\r\n\r\n")[0]):
        for line in lines.split(b"\r\n")[:-1]:
            assert head.count(b"\r\n" + line) == 1, (line, head)
    assert said.startswith(b"HTTP/1.1 " + status + b"\r\n")


def test_fields_of_one_name_keep_their_order(hears):
    said = answered(hears, b"Set-Cookie: a\r\nX: 1\r\nset-cookie: b\r\nSet-Cookie: a\r\n")
    assert fields(said)["set-cookie"] == ["a", "b", "a"]


def test_a_response_without_a_date_gets_one(hears):
    for said in (answered(hears, b""), talk(hears, GET % LAST)):
        [date] = fields(said)["date"]
        at = email.utils.parsedate_to_datetime(date).timestamp()
        assert date.endswith(" GMT") and abs(at - time.time()) < 30, date


def test_an_answer_of_the_proxy_has_a_date_too(hears):
    said = talk(hears, b"GET * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ") and fields(said)["date"][0].endswith(" GMT")


def test_upgrade_that_connection_does_not_name_is_not_asked_for(hears):
    """And a body that comes with one goes on as a body."""
    assert "upgrade" not in asked(hears, b"Upgrade: websocket\r\n")
    with origin(hears) as got:
        talk(hears, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: a/1\r\n"
                    b"Content-Length: 2\r\n\r\nhi", ORIGIN[0], PORT)  # fmt: skip
    assert "upgrade" not in fields(got[0])


def test_connection_close_holds_on_either_side_and_goes_no_further(hears):
    """One connection of the app, three of the origin; then the app's close ends its own."""

    def answer(peer, head):
        peer.sendall(ANSWER % b"Connection: close\r\n")
        assert peer.recv(1) == b""

    with origin(hears, answer) as got, connect(hears, ORIGIN[0], PORT) as app:
        for _ in range(2):
            app.sendall(GET % b"")
            said = b""
            while not said.endswith(b"ok"):
                said += app.recv(65536)
            assert "connection" not in fields(said)
        app.sendall(GET % LAST + GET % b"Never: asked\r\n")
        assert fields(read_all(app))["connection"] == ["close"]
    assert len(got) == 3 and all("connection" not in fields(head) for head in got)


@pytest.mark.parametrize("asks, stays", [
    (b"GET / HTTP/1.0\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", False),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
    (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x, CLOSE\r\n\r\n", False),
])  # fmt: skip
def test_who_may_ask_again(hears, asks, stays):
    with origin(hears, lambda peer, head: peer.sendall(OK)), \
         connect(hears, ORIGIN[0], PORT) as app:  # fmt: skip
        app.sendall(asks + asks.replace(b" / ", b" /again "))
        app.shutdown(1)
        said = read_all(app)
    assert said.count(b"\r\n\r\nok") == (2 if stays else 1), said
    if stays and b"HTTP/1.0" in asks:
        assert fields(said)["connection"] == ["keep-alive"]


def test_a_held_request_keeps_what_is_for_the_origin_alone(hears):
    offline(hears)
    with origin(hears) as got, connect(hears, ORIGIN[0], PORT) as app:
        app.sendall(GET % b"Connection: close, X-Mine\r\nX-Mine: 1\r\nX-Theirs: 2\r\n")
        wait_held(hears)
        hears.restore("wifi")
        assert read_all(app).startswith(b"HTTP/1.1 200 ")
    assert fields(got[0]).keys() == {"host", "x-theirs", "via"}


STORED = (b"POST /stored HTTP/1.1\r\nHost: origin.example\r\nPrefer: respond-async\r\n"
          b"Content-Length: 2\r\n")  # fmt: skip


def store(lab, lines):
    """Its id, of a request with these lines that nobody waits for."""
    offline(lab)
    with connect(lab, ORIGIN[0], PORT) as app:
        app.sendall(STORED + lines + b"\r\nhi")
        app.shutdown(1)
        said = read_all(app)
    assert said.startswith(b"HTTP/1.1 202 "), said
    return fields(said)["location"][0].rpartition("/")[2]


def test_a_replay_goes_through_a_proxy_too(hears):
    """Via on the way there; and a Date of when the response came, not of when it is asked for."""
    with origin(hears) as got:
        asked = store(hears, b"Via: 1.0 radio\r\n")
        hears.restore("wifi")
        wait_state(hears, asked, "done")
    assert fields(got[0])["via"] == ["1.0 radio", "1.1 holdfast"]
    status, said = hears.api("GET", f"/v1/requests/{asked}")
    handed = {"method": "POST", "url": f"http://{ORIGIN[0]}:{PORT}/", "body": "x"}
    with origin(hears) as got:
        wait_state(hears, hears.api("POST", "/v1/requests", handed)[1]["id"], "done")
    assert fields(got[0])["via"] == ["1.1 holdfast"]


@pytest.mark.parametrize("fill", [
    b"".join(b"X-%03d: y\r\n" % n for n in range(128 - 3)),
    b"X: " + b"y" * (65536 - len(STORED + b"X: \r\n\r\n") + 6) + b"\r\n",
], ids=["fields", "bytes"])  # fmt: skip
def test_a_head_at_the_bound_is_stored_and_replayed(hears, fill):
    """What is added to it has room of its own."""

    def answer(peer, head):
        peer.recv(2)
        peer.sendall(ANSWER % fill)

    with origin(hears, answer) as got:
        asked = store(hears, fill)
        assert hears.get(f"/v1/requests/{asked}")["state"] == "stored"
        hears.restore("wifi")
        wait_state(hears, asked, "done")
    assert fill in got[0] and "idempotency-key" in fields(got[0])
    assert hears.get(f"/v1/requests/{asked}")["response"]["status"] == 200


def test_after_head_an_error_has_its_body(hears):
    said = talk(hears, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET * HTTP/1.1\r\nHost: x\r\n\r\n")
    assert said.count(b"HTTP/1.1 ") == 2 and said.endswith(b"}\n")
    said = talk(hears, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET nothing\r\n\r\n")
    assert said.count(b"HTTP/1.1 ") == 2 and said.endswith(b"}\n")
