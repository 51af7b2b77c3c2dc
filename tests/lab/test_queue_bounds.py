"""A queue that is full, what matters more in it, and how long an answer is kept.

    app ---- device  x  cloud: origin.example
"""

import pytest

from harness import wait_until
from hears import metric, offline, problem, state_of, stored_id, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)

CONFIG = {
    "defaults": {"hold": "200ms", "order": False},
    "queue": {"max_count": 3, "max_bytes": "1M", "max_request": "1M", "keep_response": "2s"},
    "rules": [{"name": name, "match": {"path": [f"/{name}/*"]}, "importance": importance}
              for name, importance in (("low", 1), ("high", 9))],
}  # fmt: skip
URL = "http://origin.example"


def store(lab, path, body="x"):
    return stored_id(lab.curl("app", URL + path, "-d", body))


def refused(lab, path, body="x"):
    return problem(lab.curl("app", URL + path, "-d", body), 503)


def events_of(lab, request_id):
    return [event["what"] for event in lab.get(f"/v1/requests/{request_id}")["events"]]


def test_a_full_queue_gives_up_what_matters_least_and_is_oldest(hears):
    offline(hears)
    evicted, full = metric(hears, "queue_evicted_total"), metric(hears, "queue_refused_full_total")
    low = [store(hears, f"/low/{n}") for n in range(3)]
    assert "max_count" in refused(hears, "/low/3")["detail"]
    high = [store(hears, "/high/0"), store(hears, "/high/1")]
    assert [state_of(hears, one) for one in low] == ["failed", "failed", "stored"]
    assert events_of(hears, low[0])[-1] == "evicted: the queue is full"
    high.append(store(hears, "/middle/0"))
    assert state_of(hears, low[2]) == "failed"
    refused(hears, "/middle/1")  # of the same importance
    assert metric(hears, "queue_evicted_total") == evicted + 3
    assert metric(hears, "queue_refused_full_total") == full + 2
    status = hears.get("/v1/status")["queue"]
    assert (status["stored"], status["failed"], status["max_count"]) == (3, 3, 3)
    assert hears.api("POST", f"/v1/requests/{low[0]}/retry")[0] == 409  # its body is gone
    hears.restore("wifi", wait=False)
    for one in high:
        wait_state(hears, one, "done")
    assert hears.origin_log("/low/0") == hears.origin_log("/low/2") == []


def test_bytes_are_a_bound_as_well(hears, tmp_path):
    offline(hears)
    (tmp_path / "body").write_bytes(b"b" * 400000)
    first, second = [store(hears, f"/low/bytes/{n}", f"@{tmp_path}/body") for n in range(2)]
    assert "max_bytes" in refused(hears, "/low/bytes/2", f"@{tmp_path}/body")["detail"]
    store(hears, "/high/bytes", f"@{tmp_path}/body")
    assert [state_of(hears, one) for one in (first, second)] == ["failed", "stored"]
    assert 800000 < hears.get("/v1/status")["queue"]["bytes"] < 1 << 20


def test_what_matters_more_goes_first(hears):
    offline(hears)
    stored = [store(hears, f"/{which}/first") for which in ("low", "middle", "high")]
    hears.restore("wifi", wait=False)
    for one in stored:
        wait_state(hears, one, "done")
    log = [entry["path"] for entry in hears.origin_log() if entry["path"].endswith("/first")]
    assert log == ["/high/first", "/middle/first", "/low/first"]


@pytest.mark.parametrize("handed_over", [True, False])
def test_an_answer_is_kept_for_a_while(hears, handed_over):
    offline(hears)
    path = f"/kept/{handed_over}"
    one = store(hears, path)
    hears.restore("wifi", wait=False)
    wait_state(hears, one, "done")
    if handed_over:
        assert hears.curl("app", URL + path, "-d", "x").headers["holdfast-id"] == one
    assert hears.api("GET", f"/v1/requests/{one}/response")[0] == 200
    wait_until("it is gone", lambda: state_of(hears, one) is None, 25)
    again = hears.curl("app", URL + path, "-d", "x")
    assert again.status == 200 and "holdfast-id" not in again.headers
    assert len(hears.origin_log(path)) == 2
