"""With a usable link the app hears the origin, and nothing is stored.

    app ---- device ==wifi== cloud: origin.example
"""

import hashlib
import socket

import pytest

from harness import wait_until
from hears import App, connect, listen, read_all, talk
from network import ORIGIN

MEGABYTES = bytes(range(256)) * 4096 * 5


@pytest.fixture(scope="module")
def running(lab):
    lab.start_daemon({"defaults": {"hold": "2s"}}, fresh=True)
    yield lab
    rc = lab.stop_daemon()
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.fixture(autouse=True)
def nothing_is_stored(running):
    yield
    assert running.requests() == []
    assert running.online() == ["wifi", "lte"]


@pytest.mark.parametrize("where", ["app", "device"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_the_app_hears_the_origin(running, where, family):
    answer = running.curl(where, f"http://origin.example/hello-{where}{family}", family)
    assert answer.status == 200, str(answer)
    assert answer.json()["host"] == "origin.example"
    assert running.origin_log(f"/hello-{where}{family}")[0]["link"] == "wifi"


def test_a_status_and_a_body_come_as_the_origin_gave_them(running):
    answer = running.curl("app", "http://origin.example/status/418")
    assert (answer.status, answer.text) == (418, "status 418\n")
    assert answer.headers["server"].startswith("origin")
    assert "holdfast-id" not in answer.headers


def test_a_503_of_the_origin_is_the_apps_to_judge(running):
    answer = running.curl("app", "http://origin.example/status/503", "-d", "x")
    assert (answer.status, answer.text) == (503, "status 503\n")


def test_a_big_response_arrives_whole(running):
    answer = running.curl("app", "http://origin.example/big/20971520")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(MEGABYTES * 4).digest()


def test_a_big_body_is_echoed_whole(running, tmp_path):
    (tmp_path / "big").write_bytes(MEGABYTES)
    answer = running.curl("app", "http://origin.example/echo", "--data-binary",
                          f"@{tmp_path}/big", "-H", "Content-Type: x/y")  # fmt: skip
    assert answer.status == 200
    assert answer.headers["content-type"] == "x/y"
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(MEGABYTES).digest()


def test_a_body_in_chunks_is_echoed_whole(running, tmp_path):
    (tmp_path / "big").write_bytes(MEGABYTES)
    answer = running.curl("app", "http://origin.example/echo", "-T", f"{tmp_path}/big",
                          "-H", "Transfer-Encoding: chunked", "-X", "POST")  # fmt: skip
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(MEGABYTES).digest()


def test_a_response_in_chunks_is_streamed(running):
    app = App(running)
    app.request("GET", "/chunked")
    response = app.getresponse()
    first = response.read1(8)
    assert first == b"chunk 0\n"
    assert response.read() == b"".join(b"chunk %d\n" % n for n in range(1, 5))
    app.close()


def test_a_response_that_ends_with_the_connection_is_whole(running):
    answer = running.curl("app", "http://origin.example/stream/0.5")
    assert answer.rc == 0 and answer.status == 200
    assert len(answer.body) >= 3 and set(answer.body) == {ord(".")}


def test_requests_go_one_after_another_over_one_connection(running):
    app = App(running)
    app.connect()
    port = app.sock.getsockname()[1]
    for n in range(5):
        response = app.ask("POST" if n % 2 else "GET", f"/keep/{n}", b"x" if n % 2 else None)
        assert response.status == 200
        assert app.sock and app.sock.getsockname()[1] == port
    assert app.ask("GET", "/chunked").body.startswith(b"chunk 0")
    assert app.ask("HEAD", "/status/200").body == b""
    assert app.ask("GET", "/status/204").status == 204
    assert app.ask("GET", "/keep/last").status == 200
    assert app.sock.getsockname()[1] == port
    app.close()


def test_pipelined_requests_are_answered_in_order(running):
    one = b"GET /pipe/%d HTTP/1.1\r\nHost: origin.example\r\n%s\r\n"
    sent = b"".join(one % (n, b"Connection: close\r\n" if n == 2 else b"") for n in range(3))
    got = talk(running, sent)
    places = [got.find(b'"path": "/pipe/%d"' % n) for n in range(3)]
    assert -1 not in places and places == sorted(places), got


def test_http_1_0_gets_its_answer_and_the_end(running):
    got = talk(running, b"GET /old HTTP/1.0\r\nHost: origin.example\r\n\r\n")
    assert got.startswith(b"HTTP/1.") and b" 200 " in got.split(b"\r\n")[0]
    assert b'"path": "/old"' in got


def test_http_1_0_gets_no_chunks(running):
    got = talk(running, b"GET /chunked HTTP/1.0\r\nHost: origin.example\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"".join(b"chunk %d\n" % n for n in range(5))


def test_head_has_a_length_and_no_body(running):
    answer = running.curl("app", "http://origin.example/big/1000", "-I")
    assert answer.status == 200
    assert answer.headers["content-length"] == "1000"


def test_expect_100_is_answered_at_once(running):
    with connect(running) as app:
        app.sendall(b"POST /echo HTTP/1.1\r\nHost: origin.example\r\nContent-Length: 5\r\n"
                    b"Expect: 100-continue\r\nConnection: close\r\n\r\n")  # fmt: skip
        interim = app.recv(4096)
        assert interim.startswith(b"HTTP/1.1 100 Continue\r\n") and interim.endswith(b"\r\n\r\n")
        app.sendall(b"hello")
        got = read_all(app)
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\nhello")


def test_an_app_that_closes_its_sending_side_still_hears_the_answer(running):
    with connect(running) as app:
        app.sendall(b"GET /delay/0.3 HTTP/1.1\r\nHost: origin.example\r\n"
                    b"Connection: close\r\n\r\n")  # fmt: skip
        app.shutdown(socket.SHUT_WR)
        assert read_all(app).startswith(b"HTTP/1.1 200 ")


def test_a_port_where_nobody_listens_gives_502(running):
    answer = running.curl("app", "http://origin.example:81/")
    assert answer.status == 502, str(answer)


def test_a_response_that_breaks_off_is_not_passed_as_whole(running):
    with listen(running, ORIGIN[0], 8081) as server:
        client = running.curl_start("app", "http://origin.example:8081/", "-4")
        peer = server.accept()[0]
        peer.recv(4096)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        peer.close()
        answer = client.wait()
    assert answer.rc != 0 and answer.body == b"half"


def test_a_links_bytes_are_counted_while_an_upload_goes_on(running):
    def bytes_out():
        _, links = running.api("GET", "/v1/links")
        return sum(link["bytes"]["out"] for link in links["items"])

    before = bytes_out()
    with listen(running, ORIGIN[0], 8083) as server, connect(running, ORIGIN[0], 8083) as app:
        app.sendall(b"POST /slow HTTP/1.1\r\nHost: origin.example:8083\r\n"
                    b"Content-Length: 1000000\r\n\r\n" + b"u" * 500000)  # fmt: skip
        with server.accept()[0] as peer:
            got = 0
            while got < 500000:
                got += len(peer.recv(1 << 16))
            wait_until("counted", lambda: bytes_out() - before > 400000, 5)


def test_two_hundred_apps_at_once_all_hear_their_own(running):
    apps = [App(running) for _ in range(200)]
    for n, app in enumerate(apps):
        app.request("POST", "/echo", b"number %d" % n)
    for n, app in enumerate(apps):
        assert app.getresponse().read() == b"number %d" % n
        app.close()
