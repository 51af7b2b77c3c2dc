"""A link dies under an exchange: what can be sent again moves to the other link, and the app
notices only time.

    app ---- device ==wifi== cloud: origin.example
                    ==lte===
"""

import time

import pytest

from harness import wait_until
from hears import App, listen, offline, problem, stored_id, wait_received
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {"defaults": {"hold": "20s"}}
URL = "http://origin.example"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_get_moves_while_it_waits_for_its_answer(hears, family):
    path = f"/delay/1?{family}"
    client = hears.curl_start("app", URL + path, family)
    wait_received(hears, 1, path=path)
    hears.cut("wifi")
    answer = client.wait()
    assert answer.status == 200, str(answer)
    assert [entry["link"] for entry in hears.origin_log(path)] == ["wifi", "lte"]


def test_a_get_is_held_when_the_last_link_dies_and_completed_later(hears):
    path = "/delay/1?last"
    client = hears.curl_start("app", URL + path)
    wait_received(hears, 1, path=path)
    offline(hears)
    wait_until("it is held", lambda: hears.requests("?state=held"), 5)
    hears.restore("lte", wait=False)
    assert client.wait().status == 200
    assert [entry["link"] for entry in hears.origin_log(path)] == ["wifi", "lte"]


def test_a_post_that_was_sent_gets_502_and_is_not_sent_again(hears):
    path = "/delay/1?post"
    client = hears.curl_start("app", URL + path, "-d", "x")
    wait_received(hears, 1, path=path)
    hears.cut("wifi")
    answer = client.wait()
    problem(answer, 502)
    assert "origin" in answer.json()["detail"]
    assert len(hears.origin_log(path)) == 1 and hears.requests() == []


def test_a_post_with_a_key_moves(hears):
    path = "/delay/1?key"
    client = hears.curl_start("app", URL + path, "-d", "x", "-H", "Idempotency-Key: k")
    wait_received(hears, 1, path=path)
    hears.cut("wifi")
    assert client.wait().status == 200
    assert [entry["link"] for entry in hears.origin_log(path)] == ["wifi", "lte"]


def test_on_a_link_that_falls_silent_the_request_moves(hears):
    hears.silence("wifi", wait=False)
    answer = hears.curl("app", f"{URL}/silent", "-d", "x")
    assert answer.status == 200, str(answer)
    assert answer.seconds < 10
    assert [entry["link"] for entry in hears.origin_log("/silent")] == ["lte"]


def test_the_next_request_of_a_connection_goes_over_the_other_link(hears):
    app = App(hears)
    app.ask("GET", "/next/1")
    hears.cut("wifi")
    app.ask("POST", "/next/2", b"x")
    hears.restore("wifi")
    app.ask("POST", "/next/3", b"x")
    app.close()
    links = [hears.origin_log(f"/next/{n}")[0]["link"] for n in (1, 2, 3)]
    assert links == ["wifi", "lte", "wifi"]


def test_a_response_that_has_begun_is_cut_off_when_its_link_dies(hears):
    client = hears.curl_start("app", f"{URL}/stream/20", "-N")
    wait_until("it has begun", lambda: client.body.exists() and client.body.stat().st_size, 5)
    hears.cut("wifi")
    answer = client.wait()
    assert answer.rc != 0 and answer.seconds < 10


def test_a_captive_portal_makes_the_link_limited_and_it_is_not_used(hears):
    hears.cloud.portal("wifi")
    links = "/v1/links"
    wait_until("wifi is limited", lambda: hears.get(links)["items"][0]["state"] == "limited")
    assert "302" in str(hears.get(links)["items"][0])
    assert hears.curl("app", f"{URL}/beside").status == 200
    assert hears.origin_log("/beside")[0]["link"] == "lte"
    hears.cut("lte")
    client = hears.curl_start("app", f"{URL}/portal", "-d", "x", "-H", "Prefer: wait=1")
    stored_id(client.wait())
    assert hears.origin_log("/portal") == []


def test_a_flip_of_the_order_takes_effect_on_the_next_request(hears):
    assert hears.api("PUT", "/v1/links/order", ["lte", "wifi"])[0] in (200, 204)
    try:
        hears.curl("app", f"{URL}/flipped")
        assert hears.origin_log("/flipped")[0]["link"] == "lte"
    finally:
        hears.api("PUT", "/v1/links/order", ["wifi", "lte"])


def test_an_idle_connection_that_the_origin_closed_is_not_an_error(hears):
    with listen(hears, ORIGIN[0], 8082) as server:
        app = App(hears, port=8082)
        for n in range(3):
            app.request("POST", f"/{n}", b"x")
            peer = server.accept()[0]
            while b"\r\n\r\nx" not in peer.recv(4096):
                pass
            peer.sendall(OK)
            assert app.getresponse().read() == b"ok"
            peer.close()
            time.sleep(0.05)


def test_an_origin_that_closes_without_an_answer_gives_502(hears):
    answer = hears.curl("app", f"{URL}/close", "-d", "x")
    problem(answer, 502)
    assert len(hears.origin_log("/close")) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100000 + b"\r\n\r\n",
    ],
    ids=lambda response: response[:60].decode(),
)
def test_a_malformed_response_gives_502(hears, response):
    with listen(hears, ORIGIN[0], 8083) as server:
        app = App(hears, port=8083)
        app.request("POST", "/", b"x")
        peer = server.accept()[0]
        peer.recv(4096)
        peer.sendall(response)
        assert app.getresponse().status == 502
        peer.close()
