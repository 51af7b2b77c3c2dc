"""What the kernel holds can be read: every map, every entry, by its types.

    GET /v1/maps, /v1/maps/NAME --> holdfastd --> the maps of steer, lookup and guard
"""

import pytest

from harness import wait_until
from network import LINKS, ORIGIN

SHARED = {"settings", "interfaces", "device_addresses", "counters", "counter_overflow", "names",
          "sockets", "own_sockets", "guard_allow", "direct", "heartbeat", "raised"}  # fmt: skip


@pytest.fixture(scope="module")
def running_lab(lab):
    lab.start_daemon(fresh=True)
    yield lab
    lab.stop_daemon()
    lab.release()


def pages(lab, name, limit):
    """All entries of a map, page by page."""
    items, cursor = [], ""
    for _ in range(200):
        page = lab.get(f"/v1/maps/{name}?limit={limit}{cursor}")
        assert len(page["items"]) <= limit
        items += page["items"]
        if not page["next"]:
            return items
        cursor = f"&cursor={page['next']}"
    raise AssertionError(f"{name} does not end")


def values(lab, name):
    return {str(item["key"]): item["value"] for item in pages(lab, name, 500)}


def test_every_map_is_there_with_its_shape(running_lab):
    lab = running_lab
    maps = {item["name"]: item for item in lab.get("/v1/maps")["items"]}
    assert SHARED <= set(maps)
    assert {name for name, item in maps.items() if item["pinned"]} == SHARED
    assert maps["settings"]["type"] == "array" and maps["settings"]["entries"] == 1
    assert maps["counters"]["type"] == "percpu_hash" and maps["counters"]["per_cpu"]
    assert maps["own_sockets"]["type"] == "sk_storage" and maps["own_sockets"]["entries"] is None
    private = {name for name in maps if not maps[name]["pinned"]}
    assert "refusals" in private


def test_entries_are_decoded_by_their_types(running_lab):
    lab = running_lab
    (settings,) = lab.get("/v1/maps/settings")["items"]
    assert settings["key"] == 0
    assert settings["value"]["internal_v4"] == "198.18.0.1"
    assert settings["value"]["virtual_v6"] == "fd5a:fe00::"
    addresses = values(lab, "device_addresses")
    assert {"192.0.2.1", *LINKS["wifi"]["address"]} <= set(addresses)
    assert "192.0.2.0/24" in values(lab, "direct")
    roles = [item["value"]["role"] for item in lab.get("/v1/maps/interfaces")["items"]]
    assert sorted(roles) == [0, 1, 2, 2]  # app0, lo, two links


def test_every_map_can_be_read_and_the_programs_constants_too(running_lab):
    lab = running_lab
    for item in lab.get("/v1/maps")["items"]:
        assert lab.get(f"/v1/maps/{item['name']}?limit=3")["name"] == item["name"]
    names = [item["name"] for item in lab.get("/v1/maps")["items"]]
    (frags,) = [name for name in names if name.endswith(".rodata.frags")]
    (item,) = lab.get(f"/v1/maps/{frags}")["items"]
    assert item["value"] == {"has_frags": 1}


def test_a_name_that_the_kernel_answers_is_readable(running_lab):
    lab = running_lab
    assert lab.dig("app", "origin.example") == [ORIGIN[0]]

    def found():
        return [item for item in pages(lab, "names", 500)
                if item["key"]["wire"] == "origin.example" and item["key"]["qtype"] == 1]  # fmt: skip

    (item,) = wait_until("it is published", found)
    assert item["value"]["real"][0] == ORIGIN[0]


def test_values_of_all_processors_are_summed(running_lab):
    lab = running_lab
    assert lab.curl("app", f"http://{ORIGIN[0]}/summed").status == 200
    told = {(c["interface"], c["hook"], c["verdict"], c["reason"]): c["packets"]
            for c in lab.counters()}  # fmt: skip
    summed = {}
    for item in pages(lab, "counters", 7):
        key = item["key"]
        summed[key.get("interface"), key["hook"], key["verdict"], key["reason"]] = item["value"]
    one = ("app0", "steer", "steer", "tcp-proxy")
    assert summed[one]["packets"] == told[one] > 0


@pytest.mark.parametrize("limit", [1, 3, 500])
def test_pages_give_every_entry_once(running_lab, limit):
    lab = running_lab
    keys = [item["key"] for item in pages(lab, "device_addresses", limit)]
    assert len(keys) == len(set(keys))
    maps = {item["name"]: item for item in lab.get("/v1/maps")["items"]}
    assert len(keys) == maps["device_addresses"]["entries"]


def test_a_cursor_whose_entry_is_gone_does_not_go_round_for_ever(running_lab):
    lab = running_lab
    gone = "11" * 16 + ".1"
    seen, cursor = 0, gone
    while cursor:
        page = lab.get(f"/v1/maps/device_addresses?limit=50&cursor={cursor}")
        seen, cursor = seen + len(page["items"]), page["next"]
    assert 0 < seen < 2048


@pytest.mark.parametrize("name", ["own_sockets", "raised"])
def test_a_map_that_cannot_be_listed_says_so(running_lab, name):
    page = running_lab.get(f"/v1/maps/{name}")
    assert page["items"] == [] and page["next"] is None and "does not list" in page["note"]


def test_bad_questions_are_told(running_lab):
    lab = running_lab
    assert lab.api("GET", "/v1/maps/none")[0] == 404
    for cursor in ("x", "zz" * 16 + ".1", "11" * 16, "11" * 15 + ".1", "11" * 16 + ".x"):
        status, problem = lab.api("GET", f"/v1/maps/device_addresses?cursor={cursor}")
        assert (status, problem["field"]) == (400, "cursor"), cursor
    assert lab.api("GET", "/v1/maps/settings?limit=0")[0] == 400
