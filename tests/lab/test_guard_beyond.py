"""What is beyond the guard, in enforce mode: docs/security.md names each, and this shows that it
is so. Most of it the accounts see through, which look at more than one packet.

    host: CAP_NET_RAW, root --> wifi0 [past tc egress, or what a link needs] --> wifi-gw [capture]
"""

import pytest

from escapes import BEYOND, arrived, run
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
    (escape,) = wait_until("it arrives", lambda: arrived(lab, began), timeout=3)
    assert (let_out() > 0) == bool(way.reason)
    assert lab.accounts.escapes() == [escape] * way.named
