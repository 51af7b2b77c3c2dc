"""holdfast.internal: the API as an app may see it, online and offline.

    app --app0--> 198.18.0.1:80, [fd5a:fe00::1]:80 --sk_lookup--> API for apps
    host --lo-->
"""

import json

import pytest

from harness import wait_until
from kernelside import Moved, python, running, running_lab  # noqa: F401

CHANGES = {"defaults": {"hold": "300ms"}}
PLACES = pytest.mark.parametrize("where", ["app", "device"])
URL = "http://holdfast.internal"
FIRST = {"A": "198.18.0.1", "AAAA": "fd5a:fe00::1"}


@PLACES
@pytest.mark.parametrize("links", ["online", "offline"])
def test_it_is_found_and_answers_whatever_the_links_do(running_lab, where, links):
    lab = running_lab
    if links == "offline":
        lab.cut("wifi", "lte")
    steered = Moved(lab, verdict="steer", reason="api-apps")
    for n, (kind, address) in enumerate(FIRST.items()):
        assert lab.dig(where, "holdfast.internal", kind, server="8.8.8.8") == [address]
        answer = lab.curl(where, f"{URL}/v1/status", f"-{'46'[n]}")
        assert answer.status == 200 and answer.remote == address, answer
        assert answer.json()["online"] == (links == "online")
    assert steered() > 0


@PLACES
def test_an_app_sees_status_and_links(running_lab, where):
    lab = running_lab
    links = lab.curl(where, f"{URL}/v1/links").json()["items"]
    assert [link["name"] for link in links] == ["wifi", "lte"]
    assert lab.curl(where, f"{URL}/healthz").status == 200


@PLACES
@pytest.mark.parametrize("method, path", [
    ("GET", "/v1/counters"), ("GET", "/v1/names"), ("DELETE", "/v1/names"),
    ("GET", "/v1/config"), ("GET", "/v1/events"), ("GET", "/metrics"),
    ("PATCH", "/v1/links/wifi"), ("PUT", "/v1/links/order"), ("GET", "/readyz"),
])  # fmt: skip
def test_an_app_may_not_do_more(running_lab, where, method, path):
    body = ["-H", "Content-Type: application/json", "-d", "{}"] if method[0] == "P" else []
    answer = running_lab.curl(where, URL + path, "-X", method, *body)
    assert answer.status == 403, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 403


def hand_over(lab, where, path, *arguments):
    what = json.dumps({"method": "POST", "url": f"http://origin.example{path}", "body": where})
    return lab.curl(where, f"{URL}/v1/requests", "-H", "Content-Type: application/json",
                    "-d", what, *arguments)  # fmt: skip


def test_an_app_sees_and_deletes_only_its_own_exchanges(running_lab):
    lab = running_lab
    lab.cut("wifi", "lte")
    mine, theirs = hand_over(lab, "app", "/mine"), hand_over(lab, "device", "/theirs")
    for answer in (mine, theirs):
        assert answer.status == 202, answer
        assert answer.headers["location"].startswith(f"{URL}/v1/requests/")
    for where, own, other in (("app", mine, theirs), ("device", theirs, mine)):
        listed = lab.curl(where, f"{URL}/v1/requests").json()["items"]
        assert [item["id"] for item in listed] == [own.json()["id"]]
        assert lab.curl(where, own.headers["location"]).json()["state"] == "stored"
        assert lab.curl(where, own.headers["location"] + "/body").text == where
        for more in ("", "/body", "/response"):
            assert lab.curl(where, other.headers["location"] + more).status == 404
        assert lab.curl(where, other.headers["location"], "-X", "DELETE").status == 404
        forced = lab.curl(where, f"{URL}/v1/requests?source=192.0.2.2").json()["items"]
        assert {item["id"] for item in forced} <= {own.json()["id"]}
        assert lab.curl(where, own.headers["location"] + "/retry", "-X", "POST").status == 403
    assert lab.curl("app", mine.headers["location"], "-X", "DELETE").status == 204
    assert lab.curl("app", mine.headers["location"]).status == 404
    lab.restore("wifi")
    wait_until("the other is sent", lambda: lab.origin_log("/theirs"))
    assert lab.origin_log("/mine") == []


def test_the_location_of_a_stored_request_can_be_followed(running_lab):
    lab = running_lab
    lab.cut("wifi", "lte")
    answer = lab.curl("app", "http://origin.example/stored", "-d", "data")
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 0, answer
    location = answer.headers["location"]
    assert location.startswith(f"{URL}/v1/requests/")
    assert lab.curl("app", location).json()["state"] == "stored"
    lab.restore("lte")
    wait_until("it is done", lambda: lab.curl("app", location).json()["state"] == "done")
    assert lab.curl("app", location + "/response").status == 200
    assert [seen["body"] for seen in lab.origin_log("/stored")] == [b"data"]


def test_another_host_name_is_not_served(running_lab):
    answer = running_lab.curl("app", f"{URL}/v1/status", "-H", "Host: evil.example")
    assert answer.status == 421, answer


OTHER_PORT = """
s = socket.socket()
s.settimeout(5)
start = time.monotonic()
try:
    s.connect((sys.argv[1], 81))
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: holdfast.internal\\r\\n\\r\\n")
    tell([s.recv(100)[:12].decode(), time.monotonic() - start])
except OSError as error:
    tell([errno.errorcode.get(error.errno, "timeout"), time.monotonic() - start])
"""


@PLACES
def test_other_ports_of_it_are_refused(running_lab, where):
    how, seconds = python(running_lab, where, OTHER_PORT, FIRST["A"])
    assert how in ("", "ECONNREFUSED", "ECONNRESET") or how.startswith("HTTP/1.1 4"), how
    assert seconds < 4


@PLACES
def test_connections_to_virtual_addresses_that_nobody_was_given_are_reset(running_lab, where):
    for address in ("198.19.200.200", "[fd5a:fe00::dead]"):
        answer = running_lab.curl(where, f"http://{address}/", "-H", "Host: origin.example")
        assert answer.status == 0 and "reset" in answer.error, answer
        assert answer.seconds < 1
