"""Pings of apps to real addresses: relayed over a link, or refused with the truth.

    app  --app0--> XDP steer --ring--> relay --raw socket of the link--> cloud
    host --lo--->      |                 |
                       |                 +-- reply: from the address that was pinged, as it came
                       +-- no link: unreachable, at once
"""

import re
import time

import pytest

from harness import wait_until
from kernelside import PRELUDE, Moved, python, running, running_lab, status  # noqa: F401
from network import LINKS, NGINX, ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
UNROUTED = ("203.0.113.77", "2001:db8:cafe::77")  # the cloud has no such host
REJECTED = ("203.0.113.66", "2001:db8:cafe::66")
CHANGES = {
    "rules": [
        {"name": "tcp-only", "match": {"protocol": "tcp"}, "action": "reject"},
        {"name": "a-port", "match": {"port": [1, 7]}, "action": "reject"},
        {"name": "no", "match": {"address": list(REJECTED)}, "action": "reject"},
        {"name": "lte", "match": {"address": list(NGINX)}, "links": ["lte"]},
    ]
}


def ping(lab, where, address, *arguments, timeout=30):
    return lab.start(where, "ping", "-n", "-i0.2", "-W5", *arguments, address).wait(timeout)


def router(lab):
    """The cloud's gateways say so when they know no way."""
    lab.network.run("cloud", "sysctl", "-qw", "net.ipv4.ip_forward=1")


@PLACES
@FAMILIES
@pytest.mark.parametrize("size", [0, 56, 1400])
def test_a_ping_is_answered_by_who_was_pinged(running_lab, where, family, size):
    lab = running_lab
    relayed = Moved(lab, hook="steer", reason="echo-relay")
    sent = Moved(lab, hook="guard", interface="wifi0", verdict="pass", reason="own-socket")
    before = status(lab)["relay"]["echoes_answered"]
    done = ping(lab, where, ORIGIN[family], "-c3", "-s", size)
    assert done.rc == 0 and "3 received" in done.out, done
    assert ORIGIN[family] in done.out and "DUP" not in done.out and "wrong" not in done.out
    assert relayed() == 3 and sent() >= 3
    assert status(lab)["relay"]["echoes_answered"] - before == 3


ONE_ID = """
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.settimeout(3)
address, n = sys.argv[1], int(sys.argv[2])
s.connect((address, 0))
def echo(seq, text):
    message = struct.pack("!BBHHH", 8, 0, 0, 0x4846, seq) + text
    total = sum(struct.unpack("!%dH" % (len(message) // 2), message))
    total = (total & 0xffff) + (total >> 16)
    return message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + message[4:]
text = sys.argv[3].encode()
for seq in range(n):
    s.send(echo(seq, text))
got = []
while len(got) < n:
    packet = s.recv(2000)[20:]
    if packet[0] == 0:
        ident, seq = struct.unpack("!HH", packet[4:8])
        got.append([ident, seq, packet[8:].decode()])
tell(sorted(got))
"""


def test_two_that_ping_one_host_with_one_identifier_get_their_own_replies(running_lab):
    lab = running_lab
    first = lab.start("app", "/usr/bin/python3", "-c",
                      PRELUDE + ONE_ID, ORIGIN[0], "5", "of the app")  # fmt: skip
    host = python(lab, "device", ONE_ID, ORIGIN[0], 5, "of the host ")
    done = first.wait(20)
    assert done.rc == 0, done
    assert host == [[0x4846, seq, "of the host "] for seq in range(5)]
    assert "of the host" not in done.out and done.out.count("of the app") == 5


@FAMILIES
def test_a_rule_chooses_the_link_and_rules_for_ports_do_not_count(running_lab, family):
    lab = running_lab
    over = {name: Moved(lab, hook="guard", interface=LINKS[name]["device"], verdict="pass",
                        reason="own-socket") for name in LINKS}  # fmt: skip
    assert ping(lab, "app", NGINX[family], "-c4").rc == 0
    assert over["lte"]() >= 4
    lab.cut("lte")
    done = ping(lab, "app", NGINX[family], "-c1")
    assert done.rc == 1 and "nreachable" in done.out and done.seconds < 2, done


@PLACES
@FAMILIES
def test_what_a_rule_rejects_is_refused_at_once(running_lab, where, family):
    done = ping(running_lab, where, REJECTED[family], "-c1")
    assert done.rc == 1 and done.seconds < 2, done
    assert re.search("filtered|prohibited", done.out), done


@PLACES
@FAMILIES
def test_without_a_link_a_ping_is_refused_at_once(running_lab, where, family):
    lab = running_lab
    lab.cut("wifi", "lte")
    done = ping(lab, where, ORIGIN[family], "-c1")
    assert done.rc == 1 and "nreachable" in done.out and done.seconds < 2, done


@PLACES
@FAMILIES
def test_an_unreachable_address_is_told_as_who_knows_it_says(running_lab, where, family):
    lab = running_lab
    router(lab)
    done = ping(lab, where, UNROUTED[family], "-c1")
    assert done.rc == 1 and "nreachable" in done.out and done.seconds < 4, done
    assert f"From {LINKS['wifi']['router'][family]}" in done.out, done


@FAMILIES
def test_a_hop_limit_ends_at_the_router_where_it_ends(running_lab, family):
    lab = running_lab
    device = ("192.0.2.1", "2001:db8:a::1")[family]
    done = ping(lab, "app", UNROUTED[family], "-c1", "-t1")
    assert done.rc == 1 and f"From {device}" in done.out, done
    assert "exceeded" in done.out or "Hop limit" in done.out, done
    assert ping(lab, "app", ORIGIN[family], "-c1", "-t2").rc == 0


@FAMILIES
def test_silence_is_silence(running_lab, family):
    lab = running_lab
    lab.network.run("cloud", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1",
                    "net.ipv6.icmp.echo_ignore_all=1")  # fmt: skip
    try:
        done = ping(lab, "app", ORIGIN[family], "-c2", "-w2")
        assert done.rc == 1 and "0 received" in done.out and "From" not in done.out, done
        assert status(lab)["relay"]["echoes"] >= 2
    finally:
        lab.network.run("cloud", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0",
                        "net.ipv6.icmp.echo_ignore_all=0")  # fmt: skip


def test_a_ping_goes_on_over_the_other_link(running_lab):
    lab = running_lab
    pinging = lab.start("app", "ping", "-n", "-i0.2", "-w6", ORIGIN[0])
    wait_until("it is answered", lambda: "icmp_seq=2" in pinging.out.read_text())
    lab.cut("wifi")
    moved = Moved(lab, hook="guard", interface="lte0", verdict="pass", reason="own-socket")
    wait_until("lte carries it", lambda: moved() > 3)
    done = pinging.wait(20)
    received = int(re.search(r"(\d+) received", done.out)[1])
    sent = int(re.search(r"(\d+) packets transmitted", done.out)[1])
    assert sent - received <= 8, done


FLOOD = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.connect((sys.argv[1], 0))
for seq in range(300):
    s.send(struct.pack("!BBHHH", 8, 0, 0, 0, seq) + b"x")
tell("sent")
"""


def test_unanswered_pings_of_one_app_are_bounded_and_counted(running_lab):
    lab = running_lab
    lab.network.run("cloud", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    try:
        before = status(lab)["relay"]
        full = [Moved(lab, hook="steer", interface="app0", reason=reason)
                for reason in ("relay-full", "rate-limited")]  # the ring was  # fmt: skip
        python(lab, "app", FLOOD, ORIGIN[0])
        wait_until("the rest is counted", lambda: status(lab)["relay"]["dropped"]
                   - before["dropped"] + sum(one() for one in full) >= 300 - 64)  # fmt: skip
        assert status(lab)["relay"]["echoes_sent"] - before["echoes_sent"] <= 64
        assert ping(lab, "device", NGINX[1], "-c1").rc == 0  # others are not concerned
    finally:
        lab.network.run("cloud", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0")
