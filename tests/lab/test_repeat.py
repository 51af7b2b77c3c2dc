"""A stored exchange owes its answer: who asks the same again gets that one, once.

    app ---- device  x  cloud: origin.example
"""

import socket
import time

import pytest

from harness import wait_until
from hears import App, inside, offline, problem, stored_id, wait_received, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)
from network import NGINX, ORIGIN

CONFIG = {
    "defaults": {"hold": "600ms"},
    "rules": [
        {"name": "patient", "match": {"path": ["/patient*", "/big/8*"]}, "hold": "15s"},
        {"name": "blind", "match": {"path": ["/blind*"]}, "dedupe": False},
        {"name": "tenant", "match": {"path": ["/tenant*"]}, "hash_headers": ["X-Tenant"]},
    ],
}
URL = "http://origin.example"


def post(lab, path, *arguments, where="app", body="x"):
    return lab.curl(where, URL + path, "-4", "-d", body, *arguments)


def replayed(lab, request_id):
    lab.restore("wifi", wait=False)
    wait_state(lab, request_id, "done")
    lab.wait_links(online=("wifi",))


def test_the_same_request_again_is_not_stored_twice(hears):
    offline(hears)
    first = post(hears, "/once")
    request_id = stored_id(first)
    second = post(hears, "/once")
    assert stored_id(second) == request_id and second.seconds > 0.5
    assert second.headers["location"] == first.headers["location"]
    assert len(hears.requests()) == 1
    replayed(hears, request_id)
    assert len(hears.origin_log("/once")) == 1


@pytest.mark.parametrize("where, family", [("app", "-4"), ("app", "-6"), ("device", "-6")])
def test_the_answer_is_handed_over_marked_and_once(hears, where, family):
    offline(hears)
    url = f"{URL}/pay/{where}{family}"
    request_id = stored_id(hears.curl(where, url, family, "-d", "x"))
    replayed(hears, request_id)
    time.sleep(1.1)  # so that there is an age
    answer = hears.curl(where, url, family, "-d", "x")
    assert answer.status == 200 and answer.json()["path"] == f"/pay/{where}{family}"
    assert answer.headers["holdfast-id"] == request_id
    assert 1 <= int(answer.headers["age"]) < 10
    assert answer.headers["content-type"] == "application/json"
    assert len(hears.origin_log(f"/pay/{where}{family}")) == 1
    fresh = hears.curl(where, url, family, "-d", "x")
    assert fresh.status == 200 and "holdfast-id" not in fresh.headers
    assert fresh.json()["number"] != answer.json()["number"]
    assert len(hears.origin_log(f"/pay/{where}{family}")) == 2


def test_who_waits_gets_the_answer_when_it_comes(hears):
    offline(hears)
    app = App(hears)
    first = app.ask("POST", "/patient", b"x", {"Prefer": "wait=0"})
    assert first.status == 503
    waiting = [App(hears) for _ in range(3)]
    for other in waiting:
        other.request("POST", "/patient", b"x")
    time.sleep(0.3)
    assert len(hears.requests()) == 1
    hears.restore("wifi", wait=False)
    answers = [other.getresponse() for other in waiting]
    bodies = {answer.read() for answer in answers}
    assert len(bodies) == 1 and {answer.status for answer in answers} == {200}
    (marked,) = {answer.getheader("Holdfast-Id") for answer in answers}
    assert first.getheader("Location").endswith(marked)
    assert len(hears.origin_log("/patient")) == 1
    assert app.ask("POST", "/patient", b"x").getheader("Holdfast-Id") is None


def test_an_app_that_asks_again_at_once_is_a_new_request(hears):
    """Also before the database knows that the debt is paid."""
    offline(hears)
    paths = [f"/at-once/{n}" for n in range(12)]
    for path in paths:
        assert App(hears).ask("POST", path, b"x", {"Prefer": "wait=0"}).status == 503
    hears.restore("wifi", wait=False)
    for row in hears.requests():
        wait_state(hears, row["id"], "done")
    first, other = App(hears), App(hears)
    for app in (first, other):
        assert app.ask("GET", "/kept-open").status == 200
    for path, again in zip(paths, [first, other] * 6):
        assert first.ask("POST", path, b"x").getheader("Holdfast-Id")
        assert again.ask("POST", path, b"x").getheader("Holdfast-Id") is None


def slow_reader(lab, path):
    """An app that asks, and has read nothing yet."""
    with inside(lab, "app"):
        app = socket.socket()
    app.settimeout(15)
    app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    app.connect((ORIGIN[0], 80))
    app.sendall(f"POST {path} HTTP/1.1\r\nHost: origin.example\r\nConnection: close\r\n"
                "Content-Length: 1\r\n\r\nx".encode())  # fmt: skip
    return app


def second_asker(lab, path):
    """Somebody who asks while another one is handed the answer, and has to wait for that."""
    app = App(lab)
    app.request("POST", path, b"x")
    wait_until("it waits", lambda: lab.get("/v1/status")["queue"]["held"] == 1, 5)
    return app


@pytest.mark.parametrize("taken", [True, False])
def test_who_comes_while_the_answer_is_handed_over_hears_what_became_of_it(hears, taken):
    path = f"/big/8000000?{taken}"
    offline(hears)
    assert App(hears).ask("POST", path, b"x", {"Prefer": "wait=0"}).status == 503
    request_id = hears.requests()[0]["id"]
    replayed(hears, request_id)
    with slow_reader(hears, path) as slow:
        head = slow.recv(2000)
        assert b"200 OK" in head and request_id.encode() in head
        app = second_asker(hears, path)
        while taken and slow.recv(1 << 20):
            pass
    answer = app.getresponse()
    assert answer.status == 200 and len(answer.read()) == 8000000
    assert answer.getheader("Holdfast-Id") == (None if taken else request_id)
    assert len(hears.origin_log(path)) == (2 if taken else 1)
    assert app.ask("POST", path, b"x").getheader("Holdfast-Id") is None


def test_a_repeat_while_the_replay_is_under_way_waits_for_it(hears):
    offline(hears)
    app = App(hears)
    assert app.ask("POST", "/delay/1?patient", b"x").status == 503
    hears.restore("wifi", wait=False)
    wait_received(hears, 1, path="/delay/1?patient")
    answer = App(hears).ask("POST", "/delay/1?patient", b"x")
    if answer.status == 503:  # its hold was over first
        answer = app.ask("POST", "/delay/1?patient", b"x")
    assert answer.status == 200 and answer.getheader("Holdfast-Id")
    assert len(hears.origin_log("/delay/1?patient")) == 1


def test_an_error_of_the_origin_is_an_answer_too(hears):
    offline(hears)
    statuses = (404, 401, 500, 204)
    clients = [hears.curl_start("app", f"{URL}/status/{s}", "-4", "-d", "x") for s in statuses]
    ids = [stored_id(client.wait()) for client in clients]
    for status, request_id in zip(statuses, ids):
        replayed(hears, request_id)
        answer = post(hears, f"/status/{status}")
        assert answer.status == status and answer.headers["holdfast-id"] == request_id


def test_a_big_answer_is_handed_over_whole(hears):
    offline(hears)
    request_id = stored_id(post(hears, "/big/3000000"))
    replayed(hears, request_id)
    answer = post(hears, "/big/3000000")
    assert answer.headers["holdfast-id"] == request_id
    assert answer.body == (bytes(range(256)) * 11719)[:3000000]


def test_another_request_is_another_exchange(hears):
    offline(hears)
    real = f"http://{ORIGIN[0]}"
    others = [
        hears.curl_start(where, url, "-4", "-d", body, *more)
        for where, url, body, *more in [
            ("app", f"{URL}/differs", "x"),
            ("device", f"{URL}/differs", "x"),
            ("app", f"{URL}/differs", "y"),
            ("app", f"{URL}/differs?q", "x"),
            ("app", f"{URL}:8080/differs", "x"),
            ("app", f"{real}/differs", "x", "-H", "Host: cloud.example"),
            ("app", f"{URL}/differs", "x", "-X", "PUT"),
            ("app", f"{URL}/differs", "x", "-H", "Authorization: Bearer other"),
            ("app", f"{URL}/differs", "x", "-H", "Cookie: other"),
            ("app", f"{URL}/differs", "x", "-H", "Content-Type: text/plain"),
            ("app", f"{URL}/differs", "x", "-H", "Accept: text/plain"),
        ]
    ]
    ids = {stored_id(other.wait()) for other in others}
    assert len(ids) == len(others) == len(hears.requests())
    # One after another now, as repeats of what is stored.
    assert stored_id(hears.curl("app", f"{real}/differs", "-4", "-d", "x",
                                "-H", "Host: origin.example")) in ids  # fmt: skip
    assert stored_id(post(hears, "/differs", body="z")) not in ids


def test_an_app_with_both_families_is_one_app(hears):
    offline(hears)
    request_id = stored_id(hears.curl("app", f"{URL}/families", "-4", "-d", "x"))
    assert stored_id(hears.curl("app", f"{URL}/families", "-6", "-d", "x")) == request_id
    replayed(hears, request_id)
    answer = hears.curl("app", f"{URL}/families", "-6", "-d", "x")
    assert answer.headers["holdfast-id"] == request_id


def test_headers_that_do_not_count_make_no_difference(hears):
    offline(hears)
    first = stored_id(post(hears, "/agent", "-A", "one", "-H", "X-Trace: 1"))
    assert stored_id(post(hears, "/agent", "-A", "two", "-H", "X-Trace: 2")) == first


def test_hash_headers_of_the_rule_decide(hears):
    offline(hears)
    first = stored_id(post(hears, "/tenant", "-H", "X-Tenant: a", "-H", "Authorization: old"))
    same = stored_id(post(hears, "/tenant", "-H", "x-tenant: a", "-H", "Authorization: new"))
    other = stored_id(post(hears, "/tenant", "-H", "X-Tenant: b", "-H", "Authorization: old"))
    assert same == first != other


def test_with_dedupe_false_every_request_is_its_own(hears):
    offline(hears)
    ids = {stored_id(post(hears, "/blind")) for _ in range(2)}
    assert len(ids) == 2
    hears.restore("wifi", wait=False)
    for request_id in ids:
        wait_state(hears, request_id, "done")
    assert len(hears.origin_log("/blind")) == 2
    answer = post(hears, "/blind")
    assert answer.status == 200 and "holdfast-id" not in answer.headers


def test_the_same_idempotency_key_is_the_same_request(hears):
    offline(hears)
    key = ["-H", "Idempotency-Key: order-1"]
    first = stored_id(post(hears, "/key", *key, "-H", "Authorization: old"))
    assert stored_id(post(hears, "/key", *key, "-H", "Authorization: new")) == first
    replayed(hears, first)
    entry = wait_received(hears, 1, path="/key")
    assert [e["headers"]["idempotency-key"] for e in entry] == ["order-1"]
    assert post(hears, "/key", *key).headers["holdfast-id"] == first


def test_an_idempotency_key_with_another_body_gets_422(hears):
    offline(hears)
    key = ["-H", "Idempotency-Key: order-2"]
    first = stored_id(post(hears, "/key2", *key, body="one"))
    problem(post(hears, "/key2", *key, body="two"), 422)
    assert [row["id"] for row in hears.requests()] == [first]
    replayed(hears, first)
    problem(post(hears, "/key2", *key, body="two"), 422)
    assert post(hears, "/key2", *key, body="one").headers["holdfast-id"] == first


def test_another_key_is_another_request(hears):
    offline(hears)
    first = stored_id(post(hears, "/key3", "-H", "Idempotency-Key: a"))
    assert stored_id(post(hears, "/key3", "-H", "Idempotency-Key: b")) != first


def test_a_debt_holds_up_nobody_else(hears):
    offline(hears)
    stored_id(post(hears, "/debt"))
    hears.restore("wifi")
    answer = hears.curl("app", f"http://{NGINX[0]}/1k")
    assert answer.status == 200 and len(answer.body) == 1024
