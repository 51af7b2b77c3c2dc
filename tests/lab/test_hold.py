"""With no link a request is held: the app hears nothing, until a link returns, the hold is over,
or it hangs up.

    app ---- device  x  cloud: origin.example
"""

import pytest

from harness import wait_until
from hears import App, connect, held, listen, metric, offline, problem, stored_id
from hears import hears, shared  # noqa: F401 (fixtures)
from hears import wait_held, wait_received, wait_state
from network import ORIGIN

CONFIG = {
    "defaults": {"hold": "20s"},
    "rules": [
        {"name": "unsafe", "match": {"path": ["/unsafe*"]}, "hold": "500ms", "store": "unsafe"},
        {"name": "all", "match": {"path": ["/all*"]}, "hold": "500ms", "store": "all"},
        {"name": "none", "match": {"path": ["/none*"]}, "hold": "500ms", "store": "none"},
        {"name": "keep", "match": {"path": ["/keep*"]}, "on_disconnect": "store"},
        {"name": "wifi-only", "match": {"path": ["/wifi*"]}, "hold": "20s", "links": ["wifi"]},
    ],
}


@pytest.mark.parametrize("where", ["app", "device"])
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_held_request_is_completed_when_a_link_returns(hears, where, family):
    offline(hears)
    url = f"http://origin.example/held-{where}{family}"
    client = hears.curl_start(where, url, family, "-d", "body")
    row = wait_held(hears)[0]
    assert (row["method"], row["url"]) == ("POST", url)
    assert row["source"] == ("host" if where == "device" else row["source"])
    hears.restore("wifi", wait=False)
    answer = client.wait()
    assert answer.status == 200 and answer.json()["body"] == "body"
    assert "holdfast-id" not in answer.headers
    assert len(hears.origin_log(f"/held-{where}{family}")) == 1
    assert hears.requests() == []


def test_a_real_address_is_held_as_well(hears):
    offline(hears)
    app = App(hears)
    app.request("GET", "/real-address")
    wait_held(hears)
    hears.restore("lte", wait=False)
    assert app.getresponse().status == 200
    assert hears.origin_log("/real-address")[0]["link"] == "lte"


def test_two_identical_held_requests_are_two_exchanges(hears):
    offline(hears)
    apps = [App(hears), App(hears)]
    for app in apps:
        app.request("POST", "/twice", b"same")
    wait_held(hears, 2)
    hears.restore("wifi", wait=False)
    numbers = {app.getresponse().read() for app in apps}
    assert len(numbers) == 2
    assert len(hears.origin_log("/twice")) == 2


def test_a_connection_outlives_two_outages(hears):
    app = App(hears)
    for n in range(2):
        assert app.ask("GET", f"/outage/{n}/before").status == 200
        port = app.sock.getsockname()[1]
        offline(hears)
        app.request("POST", f"/outage/{n}/during", b"x")
        wait_held(hears)
        hears.restore("wifi", "lte", wait=False)
        assert app.getresponse().read()
        hears.wait_links(online=("wifi", "lte"))
    assert app.sock.getsockname()[1] == port
    app.close()


def test_only_the_link_that_the_rule_allows_ends_the_hold(hears):
    offline(hears)
    client = hears.curl_start("app", "http://origin.example/wifi")
    wait_held(hears)
    hears.restore("lte")
    assert hears.curl("app", "http://origin.example/other").status == 200
    assert client.running() and held(hears, 1)
    hears.restore("wifi", wait=False)
    assert client.wait().status == 200
    assert [entry["link"] for entry in hears.origin_log("/wifi")] == ["wifi"]


def test_an_app_that_hangs_up_cancels_its_request(hears):
    offline(hears)
    before = metric(hears, "cancelled_total")
    client = hears.curl_start("app", "http://origin.example/gone", "-d", "x")
    wait_held(hears)
    client.kill()
    wait_until("it is cancelled", lambda: hears.requests() == [], 5)
    assert metric(hears, "cancelled_total") == before + 1
    hears.restore("wifi")
    assert hears.curl("app", "http://origin.example/after").status == 200
    assert hears.origin_log("/gone") == []


def test_a_reset_of_the_app_cancels_as_well(hears):
    offline(hears)
    app = connect(hears)
    app.sendall(b"GET /reset HTTP/1.1\r\nHost: origin.example\r\n\r\n")
    wait_held(hears)
    app.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: close sends RST
    app.close()
    wait_until("it is cancelled", lambda: hears.requests() == [], 5)


def test_an_app_that_left_while_its_request_was_sent_is_not_held_for(hears):
    before = metric(hears, "cancelled_total")
    with listen(hears, ORIGIN[0], 8085) as server, connect(hears, ORIGIN[0], 8085) as app:
        app.sendall(b"GET /left HTTP/1.1\r\nHost: origin.example:8085\r\n\r\n")
        with server.accept()[0] as peer:
            assert peer.recv(100).startswith(b"GET /left")
            app.close()
            offline(hears)
            wait_until("cancelled", lambda: metric(hears, "cancelled_total") == before + 1)
    assert hears.requests() == []


def test_with_on_disconnect_store_the_hang_up_stores_it(hears):
    offline(hears)
    client = hears.curl_start("app", "http://origin.example/keep", "-4", "-d", "kept")
    wait_held(hears)
    client.kill()
    row = wait_until("it is stored", lambda: next(
        (row for row in hears.requests() if row["state"] == "stored"), None), 5)  # fmt: skip
    hears.restore("wifi", wait=False)
    wait_state(hears, row["id"], "done")
    assert [entry["body"] for entry in wait_received(hears, 1, path="/keep")] == [b"kept"]
    repeat = hears.curl("app", "http://origin.example/keep", "-4", "-d", "kept")
    assert repeat.headers["holdfast-id"] == row["id"]
    assert len(hears.origin_log("/keep")) == 1


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_after_the_hold_unsafe_requests_are_stored(hears, family):
    offline(hears)
    methods = ("POST", "PUT", "PATCH", "DELETE")
    url = f"http://origin.example/unsafe{family}?q="
    clients = [
        hears.curl_start("app", url + method, family, "-X", method, "-d", "body")
        for method in methods
    ]
    for method, client in zip(methods, clients):
        answer = client.wait()
        request_id = stored_id(answer)
        assert 0.4 < answer.seconds < 3
        # The app follows the Location.
        row = hears.curl("app", answer.headers["location"], family)
        assert row.status == 200 and row.json()["id"] == request_id
        assert row.json()["state"] == "stored" and row.json()["url"] == url + method
    hears.restore("wifi", wait=False)
    for method in methods:
        entries = wait_received(hears, 1, path=f"/unsafe{family}?q={method}")
        assert [(e["method"], e["body"]) for e in entries] == [(method, b"body")]


def test_after_the_hold_safe_requests_get_504(hears):
    offline(hears)
    methods = {"GET": ["-X", "GET"], "HEAD": ["-I"], "OPTIONS": ["-X", "OPTIONS"]}
    clients = {
        method: hears.curl_start("app", "http://origin.example/unsafe", *arguments)
        for method, arguments in methods.items()
    }
    for method, client in clients.items():
        answer = client.wait()
        assert answer.status == 504, str(answer)
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert "location" not in answer.headers
        if method != "HEAD":
            problem(answer, 504)
    assert hears.requests() == []


def test_store_all_stores_a_get(hears):
    offline(hears)
    request_id = stored_id(hears.curl("app", "http://origin.example/all", "-6"))
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    answer = hears.curl("app", "http://origin.example/all", "-6")
    assert answer.status == 200 and answer.headers["holdfast-id"] == request_id


def test_store_none_stores_nothing(hears):
    offline(hears)
    answer = hears.curl("app", "http://origin.example/none", "-d", "x")
    problem(answer, 504)
    assert int(answer.headers["retry-after"]) > 0 and "location" not in answer.headers
    hears.restore("wifi")
    assert hears.requests() == [] and hears.origin_log("/none") == []


def test_the_connection_can_be_used_after_503_and_504(hears):
    offline(hears)
    app = App(hears, ORIGIN[1])
    assert app.ask("GET", "/none").status == 504
    port = app.sock.getsockname()[1]
    assert app.ask("POST", "/unsafe/reuse", b"x").status == 503
    hears.restore("wifi")
    assert app.ask("GET", "/unsafe/online").status == 200
    assert app.sock.getsockname()[1] == port
    app.close()


def test_a_held_request_cancelled_over_the_api_gets_503_without_location(hears):
    offline(hears)
    client = hears.curl_start("app", "http://origin.example/cancel-me", "-d", "x")
    row = wait_held(hears)[0]
    assert hears.api("DELETE", f"/v1/requests/{row['id']}")[0] == 204
    answer = client.wait()
    problem(answer, 503)
    assert "location" not in answer.headers
