"""The API on its listeners, as scripts use it; every answer fits openapi.yaml.

    script --local socket, 127.0.0.1:7080--> holdfastd
    app ---- http://holdfast.internal/ ----> holdfastd: the app's own requests and nothing else
"""

import copy
import json
import pathlib

import jsonschema
import pytest
import yaml

from harness import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((ROOT / "openapi.yaml").read_text())
API = "http://127.0.0.1:7080"
HANDOVER = {"method": "POST", "url": "http://origin.example/handed", "body": "over"}


@pytest.fixture(scope="module")
def up(lab):
    lab.start_daemon({"defaults": {"hold": "1s"}}, fresh=True)
    yield lab
    rc = lab.stop_daemon()
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.fixture
def offline(up):
    up.cut("wifi", "lte")
    yield up
    up.restore("wifi", "lte")


def resolve(node):
    while "$ref" in node:
        target = SPEC
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def fits(method, path, status, content):
    """The answer is one that openapi.yaml describes for this operation."""
    responses = SPEC["paths"][path][method.lower()]["responses"]
    response = resolve(responses.get(str(status)) or responses["default"])
    assert str(status) in responses or status >= 400, f"{method} {path}: {status} {content}"
    for kind, media in response.get("content", {}).items():
        if "json" in kind and "schema" in media:
            schema = copy.deepcopy(media["schema"]) | {"components": SPEC["components"]}
            jsonschema.Draft202012Validator(schema).validate(content)


def call(lab, method, path, body=None, pattern=None, **more):
    status, content = lab.api(method, path, body, **more)
    fits(method, pattern or path.split("?")[0], status, content)
    return status, content


def is_problem(answer, status, field=None):
    assert answer[0] == status, answer
    assert answer[1]["status"] == status and answer[1]["title"] and answer[1]["detail"]
    assert answer[1].get("field") == field, answer[1]


def hand_over(lab, **changes):
    body = {key: value for key, value in (HANDOVER | changes).items() if value is not None}
    status, content = call(lab, "POST", "/v1/requests", body)
    assert status == 202, content
    return content["id"]


@pytest.mark.parametrize(
    "path", ["/v1/status", "/v1/links", "/v1/requests", "/v1/counters", "/v1/names", "/v1/programs", "/v1/config",
             "/healthz", "/readyz"]
)  # fmt: skip
def test_what_can_be_read_is_as_described(up, path):
    up.curl("app", "http://origin.example/seen")
    assert call(up, "GET", path)[0] == 200


@pytest.mark.parametrize("path", ["/v1/status", "/v1/links", "/", "/app.js", "/style.css"])
def test_the_loopback_listener_answers_without_being_steered(up, path):
    before = up.count(hook="lookup", reason="tcp-proxy")
    answer = up.curl("device", API + path)
    assert answer.status == 200 and answer.body
    assert up.count(hook="lookup", reason="tcp-proxy") == before


def test_the_description_that_is_served_is_the_one_in_the_tree(up):
    answer = up.curl("device", API + "/openapi.yaml")
    assert answer.text == (ROOT / "openapi.yaml").read_text()


def test_head_has_no_body(up):
    answer = up.curl("device", API + "/v1/status", "--head")
    assert answer.status == 200 and "content-length" in answer.headers


def test_metrics_are_openmetrics(up):
    answer = up.curl("device", API + "/metrics")
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert lines[-1] == "# EOF" and lines.count("# EOF") == 1
    samples = [line for line in lines if not line.startswith("#")]
    assert samples and all(float(line.rpartition(" ")[2]) >= 0 for line in samples)


def test_a_counter_moves_and_says_why(up):
    before = up.count(interface="app0", hook="steer", reason="tcp-proxy")
    up.curl("app", "http://origin.example/counted")
    assert up.count(interface="app0", hook="steer", reason="tcp-proxy") > before
    assert all(item["meaning"] for item in up.counters() if item["reason"] != "none")


def test_links_have_their_evidence_and_their_bytes(up):
    def wifi():
        return next(link for link in up.get("/v1/links")["items"] if link["name"] == "wifi")

    before = wifi()["bytes"]
    up.curl("app", "http://origin.example/big/1000000")
    assert "204" in wifi()["evidence"]
    assert wifi()["bytes"]["in"] >= before["in"] + 1000000


# --- links ---


def test_a_patch_of_a_link_counts_for_the_next_request(up):
    status, link = call(up, "PATCH", "/v1/links/lte", {"priority": 1}, "/v1/links/{name}")
    try:
        assert (status, link["priority"]) == (200, 1)
        up.curl("app", "http://origin.example/flipped")
        assert up.origin_log("/flipped")[-1]["link"] == "lte"
    finally:
        up.api("PATCH", "/v1/links/lte", {"priority": 20})


def test_the_order_of_all_links_is_put_at_once(up):
    try:
        status, content = call(up, "PUT", "/v1/links/order", {"order": ["lte", "wifi"]})
        assert status == 200
        ordered = sorted(content["items"], key=lambda link: link["priority"])
        assert [link["name"] for link in ordered] == ["lte", "wifi"]
    finally:
        up.api("PUT", "/v1/links/order", {"order": ["wifi", "lte"]})


@pytest.mark.parametrize(
    "body, field",
    [
        ({"priority": -1}, "priority"),
        ({"priority": 65536}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"enabled": 1}, "enabled"),
        ({"speed": 3}, "speed"),
    ],
)
def test_a_wrong_patch_is_refused_whole(up, body, field):
    before = up.get("/v1/links")["items"][0]
    answer = call(up, "PATCH", "/v1/links/wifi", {"metered": True} | body, "/v1/links/{name}")
    is_problem(answer, 400, field)
    after = up.get("/v1/links")["items"][0]
    assert (after["priority"], after["metered"]) == (before["priority"], before["metered"])


@pytest.mark.parametrize("order", [["wifi"], ["wifi", "wifi"], ["wifi", "lte", "none"], "wifi"])
def test_an_order_that_is_not_of_all_links_is_refused(up, order):
    answer = call(up, "PUT", "/v1/links/order", {"order": order})
    assert answer[0] == 400, answer


# --- what is wrong ---


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff", b'{"priority": 1} x', b"[" * 60000])
def test_what_is_not_a_json_object_is_a_400(up, body):
    status, content = call(up, "PATCH", "/v1/links/wifi", body, "/v1/links/{name}")
    assert status == 400 and content["detail"]


def test_unknown_paths_methods_and_parameters_are_told(up):
    assert up.api("GET", "/v1/nothing")[0] == 404
    assert up.api("PATCH", "/v1/links/none", {"priority": 1})[0] == 404
    assert up.api("GET", "/v1/requests/none")[0] == 404
    answer = up.curl("device", API + "/v1/status", "-X", "DELETE")
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    is_problem(up.api("GET", "/v1/requests?colour=red"), 400, "colour")
    is_problem(up.api("GET", "/v1/requests?limit=0"), 400, "limit")
    is_problem(up.api("GET", "/v1/requests?state=lost"), 400, "state")


def test_a_page_of_elsewhere_cannot_drive_the_device(up):
    answer = up.curl("device", API + "/v1/links", "-H", "Host: evil.example")
    assert answer.status == 421
    answer = up.curl("device", API + "/v1/links", "-H", "Origin: http://evil.example")
    assert answer.status == 403
    answer = up.curl("device", API + "/v1/links/wifi", "-X", "PATCH", "-d", "{}",
                     "-H", "Content-Type: text/plain")  # fmt: skip
    assert answer.status == 415


# --- requests ---


def test_a_request_handed_over_is_sent_and_its_response_kept(up):
    ident = hand_over(up, url="http://origin.example/handed-online",
                      headers={"X-Mine": "yes", "Content-Type": "text/plain"})  # fmt: skip
    wait_until("done", lambda: up.get(f"/v1/requests/{ident}")["state"] == "done")
    seen = up.origin_log("/handed-online")
    assert [entry["body"] for entry in seen] == [b"over"]
    assert seen[0]["headers"]["x-mine"] == "yes"
    assert seen[0]["headers"]["content-type"] == "text/plain"
    assert up.get(f"/v1/requests/{ident}/body") == b"over"
    status, response = up.api("GET", f"/v1/requests/{ident}/response")
    assert status == 200 and response["body"] == "over"
    request = call(up, "GET", f"/v1/requests/{ident}", None, "/v1/requests/{id}")[1]
    assert request["response"]["status"] == 200 and request["link"] == "wifi"
    assert len(request["events"]) >= 2


def test_bytes_are_handed_over_in_base64(up):
    ident = hand_over(up, url="http://origin.example/bytes", body=None, body_base64="AP+A")
    wait_until("done", lambda: up.get(f"/v1/requests/{ident}")["state"] == "done")
    assert up.origin_log("/bytes")[-1]["body"] == b"\x00\xff\x80"


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"url": "ftp://origin.example/"}, "url"),
        ({"url": "/relative"}, "url"),
        ({"url": "http:///"}, "url"),
        ({"url": "http://a..b/"}, "url"),
        ({"url": "http://[::g]/"}, "url"),
        ({"url": "http://u@a/"}, "url"),
        ({"url": "http://a:99999/"}, "url"),
        ({"url": "http://origin.example/a b"}, "url"),
        ({"method": "IN VALID"}, "method"),
        ({"method": "CONNECT"}, "method"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers"),
        ({"headers": {"Content-Length": "3"}}, "headers"),
        ({"headers": []}, "headers"),
        ({"body": 3}, "body"),
        ({"body": None, "body_base64": "****"}, "body_base64"),
        ({"body_base64": "AAAA"}, "body"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_hand_over_is_refused_with_the_field(offline, changes, field):
    before = len(offline.requests())
    body = {key: value for key, value in (HANDOVER | changes).items() if value is not None}
    status, content = call(offline, "POST", "/v1/requests", body)
    assert status == 400, content
    assert content["field"].split(".")[0].split("[")[0] in (field, "body_base64"), content
    assert len(offline.requests()) == before


def test_a_stored_request_is_listed_retried_and_deleted(offline):
    ident = hand_over(offline, url="http://origin.example/deleted")
    listed = call(offline, "GET", "/v1/requests?state=stored&host=origin.example")[1]["items"]
    assert ident in [item["id"] for item in listed]
    assert call(offline, "GET", "/v1/requests?host=other.example")[1]["items"] == []
    assert offline.api("GET", f"/v1/requests/{ident}/response")[0] == 404
    assert offline.api("POST", f"/v1/requests/{ident}/retry")[0] == 202
    assert offline.api("DELETE", f"/v1/requests/{ident}")[0] == 204
    assert offline.api("GET", f"/v1/requests/{ident}")[0] == 404
    assert offline.api("DELETE", f"/v1/requests/{ident}")[0] == 404


def test_a_list_is_paged_with_a_cursor(offline):
    idents = [hand_over(offline, url=f"http://paged.many.example/{n}") for n in range(7)]
    found, query = [], "/v1/requests?host=paged.many.example&limit=3"
    cursor = ""
    for _ in range(3):
        page = call(offline, "GET", query + cursor)[1]
        found += [item["id"] for item in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    assert page["next"] is None
    assert found == idents[::-1]
    for ident in idents:
        assert offline.api("DELETE", f"/v1/requests/{ident}")[0] == 204


def test_a_held_request_is_listed_and_can_be_cancelled(offline):
    client = offline.curl_start("app", "http://origin.example/cancelled", "-d", "x",
                                "-H", "Prefer: wait=50")  # fmt: skip
    held = wait_until("held", lambda: offline.requests("?state=held"))
    assert held[0]["url"] == "http://origin.example/cancelled"
    assert offline.api("DELETE", f"/v1/requests/{held[0]['id']}")[0] == 204
    answer = client.wait()
    assert answer.status == 503 and "location" not in answer.headers
    assert not offline.requests("?state=held")


# --- what apps see ---


def test_an_app_hands_over_and_follows_the_location(offline):
    answer = offline.curl("app", "http://holdfast.internal/v1/requests",
                          "-H", "Content-Type: application/json",
                          "-d", json.dumps(HANDOVER | {"url": "http://origin.example/own"}))  # fmt: skip
    assert answer.status == 202
    location = answer.headers["location"]
    assert location.startswith("http://holdfast.internal/v1/requests/")
    seen = offline.curl("app", location)
    assert seen.status == 200 and seen.json()["state"] == "stored"
    assert offline.curl("app", location, "-X", "DELETE").status == 204


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_an_app_sees_its_own_requests_and_no_others(offline, family):
    ident = hand_over(offline, url="http://origin.example/not-yours")
    for path in (f"/v1/requests/{ident}", f"/v1/requests/{ident}/body"):
        assert offline.curl("app", f"http://holdfast.internal{path}", family).status == 404
    url = f"http://holdfast.internal/v1/requests/{ident}"
    assert offline.curl("app", url, family, "-X", "DELETE").status == 404
    listed = offline.curl("app", "http://holdfast.internal/v1/requests", family).json()["items"]
    assert ident not in [item["id"] for item in listed]
    assert offline.api("DELETE", f"/v1/requests/{ident}")[0] == 204


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1/counters"),
        ("GET", "/v1/names"),
        ("GET", "/v1/config"),
        ("GET", "/v1/programs"),
        ("POST", "/v1/programs"),
        ("POST", "/v1/programs/rollback"),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
        ("PATCH", "/v1/links/wifi"),
        ("PUT", "/v1/links/order"),
        ("DELETE", "/v1/names"),
    ],
)
def test_an_app_may_do_nothing_else(up, method, path):
    answer = up.curl("app", f"http://holdfast.internal{path}", "-X", method,
                     "-H", "Content-Type: application/json")  # fmt: skip
    assert answer.status == 403, answer


def test_an_app_does_not_reach_the_listeners_of_the_device(up):
    for url in ("http://192.0.2.1:7080/v1/status", "http://[2001:db8:a::1]:7080/v1/status"):
        assert up.curl("app", url, "--max-time", "2").status == 0


# --- events ---


def test_events_tell_of_links_and_requests(up):
    reader = up.start("device", "curl", "-siN", "--max-time", "20", f"{API}/v1/events")

    def heard():
        return reader.out.read_text() if reader.out.exists() else ""

    def said(kind, *words):
        return any(
            f"event: {kind}" in event and all(word in event for word in words)
            for event in heard().split("\n\n")
        )

    wait_until("connected", lambda: "200 OK" in heard())
    up.cut("wifi")
    wait_until("told of wifi", lambda: said("link", "wifi", "down"))
    up.restore("wifi")
    wait_until("told of wifi again", lambda: said("link", "wifi", "online"))
    ident = hand_over(up, url="http://origin.example/told")
    wait_until("told of the request", lambda: said("request", ident, "done"))
    reader.kill()


# --- the token ---


def test_with_a_token_file_changes_need_the_token(lab, up):
    up.stop_daemon()
    token = lab.folder / "token"
    token.write_text("secret\n")
    lab.start_daemon({"api": {"token_file": str(token)}}, fresh=True)
    try:
        assert lab.api("GET", "/v1/links")[0] == 200
        change = {"priority": 11}
        assert lab.api("PATCH", "/v1/links/wifi", change)[0] == 401
        wrong = {"Authorization": "Bearer secreT"}
        assert lab.api("PATCH", "/v1/links/wifi", change, wrong)[0] == 401
        right = {"Authorization": "Bearer secret"}
        assert lab.api("PATCH", "/v1/links/wifi", change, right)[0] == 200
    finally:
        assert lab.stop_daemon() == 0
        lab.start_daemon({"defaults": {"hold": "1s"}}, fresh=True)
