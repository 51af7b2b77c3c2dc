"""What is beyond the guard, in enforce mode: docs/security.md names each, and this shows that it
is so. Most of it the accounts see through, which look at more than one packet.

    host: CAP_NET_RAW, root --> wifi0 [past tc egress, or what a link needs] --> wifi-gw [capture]
"""

import pytest

from escapes import ADDRESS, BEYOND, NOBODY, Way, arrived, is_escape, run
from harness import wait_until
from kernelside import Moved, running  # noqa: F401

TRIES = [
    pytest.param(name, family, id=f"{name}-ipv{'46'[family]}")
    for name, way in BEYOND.items()
    for family in way.families
]


@pytest.mark.parametrize("name, family", TRIES)
def test_it_gets_out_and_is_counted_where_the_guard_sees_it(running, name, family):
    lab, way = running, BEYOND[name]
    let_out = Moved(lab, interface="wifi0", hook="guard", verdict="pass", reason=way.reason)
    began = run(lab, "device", way, family)
    escapes = wait_until("it arrives", lambda: arrived(lab, began), timeout=3)
    assert (let_out() > 0) == bool(way.reason)
    assert lab.accounts.escapes() == escapes * way.named


def test_what_leaves_over_an_interface_that_is_no_link_meets_no_guard(running):
    lab, net = running, running.network
    way = Way("attempt(datagrams(), to=('203.0.113.241', 4444))", NOBODY)
    with lab.accounts.gap():
        net.veth("device", "spare0", "cloud", "spare-gw")
        net.address("device", "spare0", ADDRESS["spare0"][0], 30)
        net.address("cloud", "spare-gw", "203.0.113.241", 30)
        began = run(lab, "device", way, 0, "spare0")
        wait_until("it arrives", lambda: arrived(lab, began), timeout=3)
        assert [frame.link for frame in lab.accounts.escapes() if is_escape(frame)] == ["spare-gw"]
        net.run("device", "ip", "link", "del", "spare0")
