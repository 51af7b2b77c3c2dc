"""Requests that are accepted rather than owed, and those that the queue cannot take.

    app ---- device  x  cloud: origin.example
"""

import pytest

from harness import wait_until
from hears import metric, offline, problem, received, stored_id, wait_held, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)

CONFIG = {
    "defaults": {"hold": "10s"},
    "queue": {"max_bytes": "256K", "max_request": "64K"},
    "rules": [
        {"name": "accept", "match": {"path": ["/accept*"]}, "hold": "500ms", "reply": "accept"},
        {"name": "none", "match": {"path": ["/none*"]}, "hold": "500ms", "store": "none"},
        {"name": "reject", "match": {"path": ["/forbidden*"]}, "action": "reject"},
        {"name": "half", "match": {"path": ["/half/*"]}, "hold": "500ms"},
        {"name": "at-once", "match": {"path": ["/at-once"]}, "hold": "0s"},
        {"name": "quick", "match": {"path": ["/quick*"]}, "hold": "300ms"},
    ],
}
URL = "http://origin.example"
ASYNC = ["-H", "Prefer: respond-async"]


def test_respond_async_is_accepted_at_once(hears):
    offline(hears)
    answer = hears.curl("app", f"{URL}/async", "-d", "x", *ASYNC)
    request_id = stored_id(answer, 202)
    assert answer.seconds < 1.5
    assert answer.headers["preference-applied"] == "respond-async"
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    assert [entry["body"] for entry in hears.origin_log("/async")] == [b"x"]


def test_respond_async_online_is_an_ordinary_request(hears):
    answer = hears.curl("app", f"{URL}/async-online", "-d", "x", *ASYNC)
    assert answer.status == 200 and "preference-applied" not in answer.headers
    assert hears.requests() == []


def test_what_was_accepted_is_never_matched(hears):
    offline(hears)
    ids = {stored_id(hears.curl("app", f"{URL}/never", "-4", "-d", "x", *ASYNC), 202)
           for _ in range(2)}  # fmt: skip
    assert len(ids) == 2
    hears.restore("wifi", wait=False)
    for request_id in ids:
        wait_state(hears, request_id, "done")
    assert len(hears.origin_log("/never")) == 2
    answer = hears.curl("app", f"{URL}/never", "-4", "-d", "x")
    assert answer.status == 200 and "holdfast-id" not in answer.headers


def test_a_rule_that_accepts_does_so_after_the_hold(hears):
    offline(hears)
    answer = hears.curl("app", f"{URL}/accept", "-4", "-d", "x")
    request_id = stored_id(answer, 202)
    assert 0.4 < answer.seconds < 2
    assert "preference-applied" not in answer.headers
    again = stored_id(hears.curl("app", f"{URL}/accept", "-4", "-d", "x"), 202)
    assert again != request_id


def test_wait_shortens_the_hold(hears):
    offline(hears)
    short = hears.curl("app", f"{URL}/wait", "-d", "x", "-H", "Prefer: wait=1")
    stored_id(short)
    assert 0.9 < short.seconds < 3
    both = hears.curl("app", f"{URL}/wait-async", "-d", "x", *ASYNC, "-H", "Prefer: wait=1")
    stored_id(both, 202)
    assert 0.9 < both.seconds < 3


def test_what_only_looks_like_a_preference_shortens_nothing(hears):
    """All at once: each waits its hold of half a second, and none is accepted."""
    offline(hears)
    fields = ["nowait=0", 'x="wait=0, respond-async"', "wait=0s", "respond-async=no"]
    clients = [hears.curl_start("app", f"{URL}/half/{n}", "-d", "x", "-H", f"Prefer: {field}")
               for n, field in enumerate(fields)]  # fmt: skip
    for client in clients:
        answer = client.wait()
        stored_id(answer)
        assert answer.seconds > 0.4, answer


def test_preferences_may_come_in_any_form(hears):
    offline(hears)
    for n, fields in enumerate((["Prefer: foo; bar, Respond-Async"],
                                ["Prefer: return=minimal", "prefer: RESPOND-ASYNC;x"],
                                ['Prefer: wait="0"', "Prefer: respond-async"])):  # fmt: skip
        more = [part for field in fields for part in ("-H", field)]
        answer = hears.curl("app", f"{URL}/form/{n}", "-d", "x", *more)
        stored_id(answer, 202)
        assert answer.seconds < 1.5 and answer.headers["preference-applied"] == "respond-async"


def test_a_hold_of_nothing_stores_at_once(hears):
    offline(hears)
    answer = hears.curl("app", f"{URL}/at-once", "-d", "x")
    stored_id(answer)
    assert answer.seconds < 1.5
    problem(hears.curl("app", f"{URL}/at-once"), 504)


def test_a_rule_that_rejects_gives_403_with_and_without_a_link(hears):
    problem(hears.curl("app", f"{URL}/forbidden", "-d", "x"), 403)
    offline(hears)
    problem(hears.curl("app", f"{URL}/forbidden", "-d", "x"), 403)
    assert hears.requests() == [] and hears.origin_log("/forbidden") == []


def test_wait_does_not_lengthen_the_hold(hears):
    offline(hears)
    answer = hears.curl("app", f"{URL}/accept", "-d", "x", "-H", "Prefer: wait=30")
    stored_id(answer, 202)
    assert answer.seconds < 2


def test_respond_async_does_not_store_what_the_rule_forbids(hears):
    offline(hears)
    problem(hears.curl("app", f"{URL}/none", "-d", "x", *ASYNC), 504)
    assert hears.requests() == []


def test_a_full_queue_refuses_without_a_location(hears, tmp_path):
    offline(hears)
    (tmp_path / "body").write_bytes(b"f" * 50000)
    before = metric(hears, "queue_refused_full_total")
    accepted, refused = [], None
    for n in range(10):
        answer = hears.curl("app", f"{URL}/quick/{n}", "--data-binary", f"@{tmp_path}/body")
        if "location" not in answer.headers:
            refused = answer
            break
        accepted.append(stored_id(answer))
    assert 3 <= len(accepted) <= 5
    assert "queue" in problem(refused, 503)["title"].lower()
    assert metric(hears, "queue_refused_full_total") == before + 1
    hears.restore("wifi", wait=False)
    for request_id in accepted:
        wait_state(hears, request_id, "done")
    assert hears.origin_log(f"/quick/{len(accepted)}") == []


def test_a_body_over_max_request_is_refused_while_there_is_no_link(hears, tmp_path):
    offline(hears)
    (tmp_path / "body").write_bytes(b"b" * 70000)
    data = ["--data-binary", f"@{tmp_path}/body"]
    problem(hears.curl("app", f"{URL}/large", *data), 413)
    chunked = ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
    problem(hears.curl("app", f"{URL}/large", *data, *chunked), 413)
    assert hears.requests() == []
    hears.restore("wifi")
    assert hears.curl("app", f"{URL}/large", *data).status == 200
    assert hears.curl("app", f"{URL}/large", *data, *chunked).status == 200
    assert [len(entry["body"]) for entry in hears.origin_log("/large")] == [70000, 70000]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_exactly_max_request_is_held_and_sent_whole(hears, tmp_path, chunked):
    offline(hears)
    (tmp_path / "body").write_bytes(bytes(range(256)) * 256)
    more = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    client = hears.curl_start("app", f"{URL}/echo", "--data-binary", f"@{tmp_path}/body", *more)
    wait_held(hears)
    hears.restore("wifi", wait=False)
    answer = client.wait()
    assert answer.status == 200 and answer.body == bytes(range(256)) * 256


def test_each_app_sees_its_own_exchanges_only(hears):
    offline(hears)
    location = {}
    for where in ("app", "device"):
        answer = hears.curl(where, f"{URL}/quick/own", "-4", "-d", "x")
        stored_id(answer)
        location[where] = answer.headers["location"]
    assert location["app"] != location["device"]
    for where, other in (("app", "device"), ("device", "app")):
        assert hears.curl(where, location[where], "-4").status == 200
        assert hears.curl(where, location[other], "-4").status == 404
        assert hears.curl(where, location[other], "-4", "-X", "DELETE").status == 404
        listed = hears.curl(where, "http://holdfast.internal/v1/requests", "-4").json()["items"]
        assert [location[where].endswith(row["id"]) for row in listed] == [True]
    assert hears.curl("app", location["app"], "-4", "-X", "DELETE").status == 204
    assert hears.curl("app", location["app"], "-4").status == 404
    assert len(hears.requests()) == 1


def test_an_app_may_read_the_response_of_its_own(hears):
    offline(hears)
    answer = hears.curl("app", f"{URL}/echo?quick", "-4", "-d", "the body", *ASYNC)
    request_id = stored_id(answer, 202)
    location = answer.headers["location"]
    assert hears.curl("app", location + "/body", "-4").text == "the body"
    assert hears.curl("app", location + "/response", "-4").status == 404
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    assert hears.curl("app", location + "/response", "-4").text == "the body"


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_an_app_hands_a_request_over(hears, family):
    offline(hears)
    path = f"/handed{family}"
    answer = hears.curl(
        "app", "http://holdfast.internal/v1/requests", family, "-H",
        "Content-Type: application/json", "-d", '{"method": "POST", "url": "%s%s",'
        ' "headers": {"X-Own": "1"}, "body": "from the app"}' % (URL, path))  # fmt: skip
    assert answer.status == 202, str(answer)
    location = answer.headers["location"]
    assert location.startswith("http://holdfast.internal/v1/requests/")
    assert hears.curl("app", location, family).json()["state"] == "stored"
    hears.restore("wifi", wait=False)
    wait_state(hears, location.rpartition("/")[2], "done")
    (entry,) = hears.origin_log(path)
    assert entry["body"] == b"from the app" and entry["headers"]["x-own"] == "1"
    assert entry["headers"]["idempotency-key"] == location.rpartition("/")[2]


def test_a_request_is_handed_over_on_the_local_socket(hears):
    body = {"method": "PUT", "url": f"{URL}/socket", "headers": {}, "body_base64": "AAH/"}
    status, row = hears.api("POST", "/v1/requests", body)
    assert status == 202, row
    wait_until("it is sent", lambda: received(hears, 1, {"path": "/socket"}), 5)
    assert hears.origin_log("/socket")[0]["body"] == b"\x00\x01\xff"
    status, row = hears.api("POST", "/v1/requests", body | {"url": "ftp://origin.example/"})
    assert status == 400 and "url" in str(row)


def test_an_app_may_not_command_the_device(hears):
    for method, path in (("PATCH", "/v1/links/wifi"), ("GET", "/v1/config"), ("GET", "/v1/names"),
                         ("POST", "/v1/programs/rollback"), ("GET", "/metrics")):  # fmt: skip
        answer = hears.curl("app", f"http://holdfast.internal{path}", "-X", method)
        assert answer.status in (403, 404), f"{method} {path}: {answer}"
    assert hears.curl("app", "http://holdfast.internal/v1/status").status == 200
    assert hears.curl("app", "http://holdfast.internal/v1/links").status == 200
