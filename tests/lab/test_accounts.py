"""The apparatus that accounts for every frame in all other tests (accounts.py), tried itself:
each kind of escape must be named, and only that.

    host: a packet socket past tc ---------------------> wifi-gw [capture] --> named
    holdfastd --> wifi0 [tc egress guard] -------------> wifi-gw [capture] --> accounted for
"""

import time

import pytest

from accounts import PEERS
from capture import Capture
from escapes import BEGIN
from harness import wait_until
from kernelside import guard, python, running  # noqa: F401
from network import LINKS, ORIGIN

BYPASS = "263, 20, 1"  # SOL_PACKET, PACKET_QDISC_BYPASS: no tc egress
SEND = f"""
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.setsockopt({BYPASS})
s.bind(("wifi0", 0))
for frame in sys.argv[1:]:
    s.send(bytes.fromhex(frame))
tell("sent")
"""


def frame(lab, code):
    """The octets of a frame, from the builders of the ways around."""
    got = python(lab, "device", f"{BEGIN}\ntell(({code}).hex())", 0, ORIGIN[0],
                 LINKS["wifi"]["address"][0], "wifi0", LINKS["wifi"]["router"][0], "")  # fmt: skip
    return "ffffffffffff0200000000010800" + got


def named(lab, *frames):
    """What the accounts name after these have been sent."""
    assert python(lab, "device", SEND, *frames) == "sent"
    found = []
    wait_until("they are named", lambda: found.extend(lab.accounts.escapes())
               or len(found) >= len(frames), timeout=3)  # fmt: skip
    return [frame.octets.hex() for frame in found]


def test_a_frame_that_nobody_accounts_for_is_named(running):
    escape = frame(running, "ip(udp(b'secret'))")
    assert named(running, escape) == [escape]


def test_what_is_named_fails_the_check_with_its_octets_and_the_test(running):
    escape = frame(running, "ip(udp(b'told'))")
    assert python(running, "device", SEND, escape) == "sent"
    with pytest.raises(AssertionError) as error:
        wait_until("the check fails", running.accounts.check, timeout=3)
    assert escape in str(error.value) and "test_what_is_named_fails" in str(error.value)
    assert "198.51.100.2.4444 > 203.0.113.9.4444" in str(error.value)


@pytest.mark.parametrize("code", [
    "ip(tcp(4), 6)",  # a reset of no connection
    "ip(icmp(3, ip(udp()), code=3), 1)",  # an error about a packet that never came
    "ip(b'secret', 2, hops=1)",  # IGMP to an address that is none of a group
    "ip(udp(b'secret', 68, 67))",  # DHCP to a server that is none of the link
])  # fmt: skip
def test_what_only_looks_harmless_is_named(running, code):
    escape = frame(running, code)
    assert named(running, escape) == [escape]


def test_octets_put_into_a_connection_of_the_daemons_are_named(running):
    assert running.curl("device", f"http://{ORIGIN[0]}/own").status == 200
    flow = running.accounts.flow_to(ORIGIN[0])
    whole = bytes.fromhex(frame(running, "ip(tcp(16, b'secret' * 200), 6)"))
    escape = (whole[:34] + flow.ports + whole[38:]).hex()
    (seen,) = named(running, escape)
    assert escape.startswith(seen)  # of a long frame only the beginning is kept


def test_a_reset_that_answers_something_is_accounted_for(running):
    began = time.time()
    with pytest.raises(RuntimeError, match="refused"):
        running.network.run("cloud", "bash", "-c", "exec 3<>/dev/tcp/198.51.100.2/4445")
    wait_until("the reset is captured", lambda: [
        frame for frame in running.accounts.arrived(began)
        if frame.flow and frame.flow.ports[:2] == (4445).to_bytes(2, "big")])  # fmt: skip
    assert running.accounts.escapes() == []


FLOOD = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(20000):
    s.sendto(b"x", ("198.51.100.2", 9))
tell("sent")
"""


def test_a_capture_that_had_no_room_says_that_it_lost_frames(running):
    capture = Capture(f"/run/netns/{running.network.name('cloud')}", PEERS, blocks=2)
    with capture.lock:  # its thread cannot empty the ring
        assert python(running, "cloud", FLOOD) == "sent"
    with pytest.raises(AssertionError, match="the capture lost frames: [1-9]"):
        capture.take()
    capture.close()  # what the daemon sent meanwhile


def test_more_frames_than_the_guard_has_counted_fail_the_check(running):
    lab = running

    def uncounted():
        """It is back within a second, so what is sent meanwhile may be too little."""
        lab.network.run("device", "tc", "filter", "del", "dev", "wifi0", "egress", check=False)
        assert lab.curl("device", f"http://{ORIGIN[0]}/big/30000000").status == 200
        lab.accounts.check()

    with pytest.raises(AssertionError, match="wifi0: .* frames own, the guard let out"):
        wait_until("the check fails", uncounted, timeout=20)
    wait_until("the guard is back", lambda: guard(lab, "wifi0"))
