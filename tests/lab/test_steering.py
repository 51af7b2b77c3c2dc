"""Apps and the device's own programs reach the cloud through the proxy, over the best link.

    app --app0--+                        +--wifi0-- wifi-gw
                | XDP steer -> holdfastd |                   cloud: origin, nginx, DNS
    host --lo---+                        +--lte0--- lte-gw
"""

import pytest

from harness import wait_until
from kernelside import Moved, running, running_lab  # noqa: F401
from network import LINKS, ORIGIN

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
PLACES = pytest.mark.parametrize("where", ["app", "device"])
INTERFACE = {"app": "app0", "device": "lo"}


def literal(address):
    return f"[{address}]" if ":" in address else address


def last(lab, path):
    found = lab.origin_log(path)
    assert len(found) == 1, f"the origin saw {path} {len(found)} times"
    return found[0]


@PLACES
@FAMILIES
def test_a_request_to_an_address_goes_through_the_proxy_over_wifi(running_lab, where, family):
    lab, path = running_lab, f"/address/{where}/{family}"
    steered = Moved(lab, interface=INTERFACE[where], verdict="steer", reason="tcp-proxy")
    own = Moved(lab, interface="wifi0", hook="guard", reason="own-socket")
    answer = lab.curl(where, f"http://{literal(ORIGIN[family])}{path}")
    assert answer.status == 200, answer
    assert "1.1 holdfast" in answer.headers["via"]
    assert last(lab, path)["client"] == LINKS["wifi"]["address"][family]
    assert steered() > 0 and own() > 0


@PLACES
@FAMILIES
def test_a_request_by_name_goes_through_the_proxy(running_lab, where, family):
    lab, path = running_lab, f"/name/{where}/{family}"
    answer = lab.curl(where, f"http://origin.example{path}", f"-{'46'[family]}")
    assert answer.status == 200, answer
    assert "1.1 holdfast" in answer.headers["via"]
    seen = last(lab, path)
    assert seen["client"] == LINKS["wifi"]["address"][family]
    assert seen["headers"]["host"] == "origin.example"


@PLACES
def test_other_ports_are_steered_too(running_lab, where):
    answer = running_lab.curl(where, f"http://{ORIGIN[0]}:8080/port/{where}")
    assert answer.status == 200, answer
    assert "1.1 holdfast" in answer.headers["via"]


@PLACES
def test_tls_is_passed_through_to_the_server_with_its_own_certificate(running_lab, where):
    lab = running_lab
    ca = lab.cloud.folder / "ca.pem"
    answer = lab.curl(where, "https://tls.example/1k", "--cacert", ca)
    assert answer.status == 200, answer
    assert len(answer.body) == 1024
    assert lab.get("/v1/status")["requests"]["tls"] > 0


@PLACES
@FAMILIES
def test_when_wifi_loses_its_carrier_the_next_request_leaves_over_lte(running_lab, where, family):
    lab, path = running_lab, f"/cut/{where}/{family}"
    lab.network.cut("wifi")
    answer = lab.curl(where, f"http://{literal(ORIGIN[family])}{path}")
    assert answer.status == 200, answer
    assert answer.seconds < 2, answer
    assert last(lab, path)["client"] == LINKS["lte"]["address"][family]


def test_a_name_is_found_over_lte_when_wifi_is_cut(running_lab):
    lab = running_lab
    lab.cut("wifi")
    answer = lab.curl("app", "http://x1.many.example/cut/name")
    assert answer.status == 200, answer
    assert last(lab, "/cut/name")["link"] == "lte"


def test_a_silent_wifi_is_left_and_comes_back(running_lab):
    lab = running_lab
    lab.silence("wifi")
    answer = lab.curl("app", "http://origin.example/silent")
    assert answer.status == 200, answer
    assert last(lab, "/silent")["link"] == "lte"
    lab.restore("wifi")
    answer = lab.curl("app", "http://origin.example/back")
    assert last(lab, "/back")["link"] == "wifi"


def test_a_priority_changed_by_patch_counts_for_the_next_request(running_lab):
    lab = running_lab
    status, link = lab.api("PATCH", "/v1/links/lte", {"priority": 5})
    assert (status, link["priority"]) == (200, 5)
    assert lab.curl("app", "http://origin.example/patched").status == 200
    assert last(lab, "/patched")["link"] == "lte"
    assert lab.api("PATCH", "/v1/links/lte", {"priority": 20})[0] == 200
    assert lab.curl("app", "http://origin.example/unpatched").status == 200
    assert last(lab, "/unpatched")["link"] == "wifi"


def test_the_whole_order_put_counts_for_the_next_request(running_lab):
    lab = running_lab
    for n, order in enumerate((["lte", "wifi"], ["wifi", "lte"])):
        assert lab.api("PUT", "/v1/links/order", order)[0] == 200
        assert lab.curl("app", f"http://origin.example/order/{n}").status == 200
        assert last(lab, f"/order/{n}")["link"] == order[0]


def test_a_disabled_link_is_not_used(running_lab):
    lab = running_lab
    assert lab.api("PATCH", "/v1/links/wifi", {"enabled": False})[0] == 200
    try:
        assert lab.curl("app", "http://origin.example/disabled").status == 200
        assert last(lab, "/disabled")["link"] == "lte"
    finally:
        assert lab.api("PATCH", "/v1/links/wifi", {"enabled": True})[0] == 200
    wait_until("wifi is back", lambda: "wifi" in lab.online())


@PLACES
def test_the_devices_own_addresses_are_left_alone(running_lab, where):
    lab = running_lab
    server = lab.start("device", "/usr/bin/python3", "-m", "http.server", "8000")
    try:
        address = {"app": "192.0.2.1", "device": "127.0.0.1"}[where]
        wait_until("the local service answers",
                   lambda: lab.curl(where, f"http://{address}:8000/").status == 200)  # fmt: skip
        answer = lab.curl(where, f"http://{address}:8000/")
        assert "via" not in answer.headers
    finally:
        server.kill()


def test_container_and_device_talk_to_each_other_directly(running_lab):
    lab = running_lab
    server = lab.start("app", "/usr/bin/python3", "-m", "http.server", "8000")
    try:
        wait_until("the container's service answers",
                   lambda: lab.curl("device", "http://192.0.2.2:8000/").status == 200)  # fmt: skip
        assert "via" not in lab.curl("device", "http://192.0.2.2:8000/").headers
    finally:
        server.kill()
