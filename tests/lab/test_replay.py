"""Stored exchanges are sent in order, each once, until there is an answer; a crash loses nothing.

    app ---- device ==wifi, lte== cloud: origin.example
"""

import signal
import time

from harness import wait_until
from hears import App, offline, stored_id, wait_received, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)

CONFIG = {
    "defaults": {"hold": "300ms"},
    "rules": [
        {"name": "twice", "match": {"path": ["/status/503"]}, "attempts": 2},
        {"name": "brief", "match": {"path": ["/brief"]}, "expire": "1s"},
        {"name": "live", "match": {"path": ["/live*"]}, "hold": "20s"},
        {"name": "loose", "match": {"path": ["/loose*"]}, "hold": "20s", "order": False},
    ],
}
URL = "http://origin.example"


def store(lab, path, body="x", *more):
    return stored_id(lab.curl("app", URL + path, "-4", "-d", body, *more))


def row(lab, request_id):
    return lab.get(f"/v1/requests/{request_id}")


def test_replay_keeps_the_order_and_sends_each_once(hears):
    offline(hears)
    app = App(hears)
    for n in range(12):
        assert app.ask("POST", "/order", b"%d" % n, {"Prefer": "wait=0"}).status == 503
    hears.restore("wifi", wait=False)
    wait_received(hears, 12, path="/order")
    wait_until("all are done", lambda: all(
        item["state"] == "done" for item in hears.requests("?limit=50")), 10)  # fmt: skip
    assert [int(entry["body"]) for entry in hears.origin_log("/order")] == list(range(12))
    keys = [entry["headers"]["idempotency-key"] for entry in hears.origin_log("/order")]
    assert sorted(keys) == sorted(item["id"] for item in hears.requests("?limit=50"))


def test_live_requests_wait_behind_stored_ones_of_their_origin(hears):
    offline(hears)
    store(hears, "/delay/1?first")
    live = hears.curl_start("app", f"{URL}/live", "-4", "-d", "x")
    loose = hears.curl_start("app", f"{URL}/loose", "-4", "-d", "x")
    wait_until("both are held", lambda: len(hears.requests("?state=held")) == 2, 5)
    hears.restore("wifi", wait=False)
    assert live.wait().status == loose.wait().status == 200
    paths = [entry["path"] for entry in hears.origin_log()]
    assert paths.index("/loose") < paths.index("/live")
    first = hears.origin_log("/delay/1?first")[0]["time"]
    assert hears.origin_log("/live")[0]["time"] >= first + 1
    assert hears.origin_log("/loose")[0]["time"] < first + 1


def test_a_503_of_the_origin_is_tried_again(hears):
    offline(hears)
    request_id = store(hears, "/fail-times/1/again")
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    assert row(hears, request_id)["attempts"] == 2
    first, second = (entry["time"] for entry in hears.origin_log("/fail-times/1/again"))
    assert 0.7 < second - first < 2.5


def test_retry_after_is_honoured(hears):
    offline(hears)
    request_id = store(hears, "/retry-after/3/later")
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    first, second = (entry["time"] for entry in hears.origin_log("/retry-after/3/later"))
    assert 2.9 < second - first < 4.5


def test_when_attempts_are_over_it_failed_with_the_last_response(hears):
    offline(hears)
    request_id = store(hears, "/status/503")
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "failed")
    assert row(hears, request_id)["response"]["status"] == 503
    assert len(hears.origin_log("/status/503")) == 2
    answer = hears.curl("app", f"{URL}/status/503", "-4", "-d", "x")
    assert (answer.status, answer.text) == (503, "status 503\n")
    assert answer.headers["holdfast-id"] == request_id


def test_what_expires_is_not_sent(hears):
    offline(hears)
    request_id = store(hears, "/brief")
    wait_state(hears, request_id, "expired", timeout=15)
    hears.restore("wifi")
    assert hears.origin_log("/brief") == []


def test_a_deleted_one_is_not_sent(hears):
    offline(hears)
    request_id = store(hears, "/deleted")
    assert hears.api("DELETE", f"/v1/requests/{request_id}")[0] == 204
    kept = store(hears, "/kept")
    hears.restore("wifi")
    wait_state(hears, kept, "done")
    assert hears.origin_log("/deleted") == []


def test_nothing_is_replayed_into_a_captive_portal(hears):
    offline(hears)
    request_id = store(hears, "/portal")
    hears.cloud.portal("wifi")
    hears.restore("wifi", wait=False)
    wait_until("wifi is limited", lambda: hears.get("/v1/links")["items"][0]["state"] == "limited")
    time.sleep(1)  # that nothing happens has no event to wait for
    assert row(hears, request_id)["state"] == "stored"
    assert hears.origin_log("/portal") == []
    hears.cloud.portal("wifi", on=False)
    wait_state(hears, request_id, "done")
    assert len(hears.origin_log("/portal")) == 1


def test_the_apps_own_headers_are_replayed(hears):
    offline(hears)
    request_id = store(hears, "/headers?a=b", "{}", "-H", "Content-Type: application/json", "-H",
                       "Authorization: Bearer t", "-H", "X-Two: a", "-H", "X-Two: b")  # fmt: skip
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    (entry,) = hears.origin_log("/headers?a=b")
    assert entry["headers"]["content-type"] == "application/json"
    assert entry["headers"]["authorization"] == "Bearer t"
    assert entry["headers"]["host"] == "origin.example"
    assert entry["headers"]["idempotency-key"] == request_id
    assert "connection" not in entry["headers"] or entry["headers"]["connection"] != "close"


def test_a_kill_while_stored_loses_nothing(lab, daemon):
    lab.stop_daemon()
    daemon(CONFIG)
    offline(lab)
    ids = [store(lab, f"/killed/{n}") for n in range(5)]
    lab.kill_daemon()
    lab.start_daemon(CONFIG, links=())
    assert {item["id"] for item in lab.requests()} == set(ids)
    again = stored_id(lab.curl("app", f"{URL}/killed/0", "-4", "-d", "x"))
    assert again == ids[0]
    lab.restore("wifi", "lte")
    for n, request_id in enumerate(ids):
        wait_state(lab, request_id, "done")
        assert len(lab.origin_log(f"/killed/{n}")) == 1
    answer = lab.curl("app", f"{URL}/killed/3", "-4", "-d", "x")
    assert answer.headers["holdfast-id"] == ids[3]


def test_a_kill_while_sending_sends_again_with_the_same_key(lab, daemon):
    lab.stop_daemon()
    daemon(CONFIG)
    offline(lab)
    request_id = store(lab, "/delay/1?killed")
    lab.restore("wifi", "lte")
    wait_received(lab, 1, path="/delay/1?killed")
    lab.kill_daemon()
    lab.start_daemon(CONFIG)
    wait_state(lab, request_id, "done")
    entries = lab.origin_log("/delay/1?killed")
    assert len(entries) == 2
    assert {entry["headers"]["idempotency-key"] for entry in entries} == {request_id}


def test_an_ordinary_stop_while_sending_loses_nothing(lab, daemon):
    lab.stop_daemon()
    daemon(CONFIG)
    offline(lab)
    request_id = store(lab, "/delay/1?stopped")
    lab.restore("wifi", "lte")
    wait_received(lab, 1, path="/delay/1?stopped")
    assert lab.end(lab.daemon, signal.SIGTERM, timeout=20) == 0
    lab.start_daemon(CONFIG)
    wait_state(lab, request_id, "done")
