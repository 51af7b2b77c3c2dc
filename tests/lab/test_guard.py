"""Nothing leaves over a link but what the daemon sends, and what the configuration allows.

    host: nobody, CAP_NET_RAW alone, root                 cloud
      |                                                     |
      +--> wifi0 [tc egress guard] --x    wifi-gw [capture of every frame: accounts.py]
    holdfastd --> wifi0 [tc egress guard] ----------------> origin

Every way around (escapes.py) is tried three times: with the guard, which drops it and says why;
with a guard that only observes, where it must arrive and be counted; and without a guard, where
it must arrive, or else the test would show nothing.
"""

import pytest

from escapes import DEVICE_WAYS, NET_RAW, SECRET, Way, arrived, run
from harness import wait_until
from kernelside import Moved
from network import LINKS, ORIGIN

TRIES = [
    pytest.param(name, family, id=f"{name}-ipv{'46'[family]}")
    for name, way in DEVICE_WAYS.items()
    for family in way.families
]


@pytest.fixture(scope="module", params=["enforce", "observe", "off"])
def guarded(lab, request):
    lab.start_daemon({"guard": {"mode": request.param}}, fresh=True)
    yield lab, request.param
    assert lab.stop_daemon() == 0, lab.log()
    lab.release()


@pytest.mark.parametrize("name, family", TRIES)
def test_a_way_around_arrives_only_where_the_guard_lets_it(guarded, name, family):
    (lab, mode), way = guarded, DEVICE_WAYS[name]
    dropped = Moved(lab, interface="wifi0", hook="guard", verdict="drop", reason=way.reason)
    began = run(lab, "device", way, family)
    if mode == "enforce":
        wait_until("the guard has counted it", lambda: dropped() > 0, timeout=3)
        assert not arrived(lab, began)
    else:
        wait_until("it arrives", lambda: arrived(lab, began), timeout=3)
        assert (dropped() > 0) == (mode == "observe")


def test_the_daemon_works_with_the_guard_in_every_mode(guarded):
    lab, mode = guarded
    assert lab.curl("device", f"http://origin.example/guarded/{mode}").status == 200


@pytest.mark.parametrize("where", ["app", "device"])
@pytest.mark.parametrize("router", LINKS["wifi"]["router"])
def test_a_question_to_the_links_router_is_the_resolvers(guarded, where, router):
    """Asked the ordinary way, that is, without binding anything."""
    lab, _ = guarded
    dropped = Moved(lab, hook="guard", verdict="drop")
    assert lab.dig(where, "origin.example", server=router) == [ORIGIN[0]]
    assert dropped() == 0


IN_ITS_NAME = Way("""
ports, marked = bytes.fromhex(scoped), 0x08100000
for what in (b"", b"escape"):
    for flags in (16, 17):
        segment = ports + tcp(flags, what)[4:]
        raw(ip(segment, 6), mark=marked)
        frame(ip(segment, 6))
""", NET_RAW)


def with_secret(lab, began):
    return [frame for frame in lab.accounts.arrived(began) if SECRET in frame.octets]


def test_others_do_not_get_into_a_connection_of_the_daemons(guarded):
    """Same addresses, same ports, its mark: still not its socket."""
    lab, mode = guarded
    assert lab.curl("device", f"http://{ORIGIN[0]}/own").status == 200
    flow = lab.accounts.flow_to(ORIGIN[0])
    dropped = Moved(lab, interface="wifi0", hook="guard", verdict="drop", reason="not-ours")
    began = run(lab, "device", IN_ITS_NAME, 0, more=flow.ports.hex())
    if mode != "off":
        wait_until("all are counted", lambda: dropped() == 8, timeout=3)
    if mode == "enforce":
        assert not with_secret(lab, began)
    else:
        wait_until("what holds something arrives", lambda: len(with_secret(lab, began)) == 4)
