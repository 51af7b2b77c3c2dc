"""Fragments are no way around, holdfast.internal says no at once, and so does what is left in
the kernel when the daemon is gone. What becomes of each kind of packet: docs/fates.md.

    app --app0--> XDP steer --fragments--> put together --> sk_lookup --> resolver, proxy, relay
    host --lo-->      |
                      +--RST, ICMP--> app or host
"""

import json
import struct

import pytest

from harness import wait_until
from kernelside import CONNECT, SEND, Moved, answers, ask, python, question, rcode
from kernelside import running, running_lab  # noqa: F401
from network import ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
INTERFACE = {"app": "app0", "device": "lo"}
INTERNAL = ("198.18.0.1", "fd5a:fe00::1")
RESOLVERS = ("8.8.8.8", "2001:4860:4860::8888")

def mac(lab):
    (app0,) = json.loads(lab.network.run("device", "ip", "-j", "link", "show", "app0"))
    return app0["address"]


def padded(name, octets):
    """A question with EDNS padding (RFC 7830), larger than one packet."""
    option = struct.pack("!2H", 12, octets) + bytes(octets)
    return question(name, extra=struct.pack("!BHHIH", 0, 41, 1232, 0, len(option)) + option,
                    additional=1)  # fmt: skip


@FAMILIES
def test_a_question_in_fragments_is_answered_by_the_resolver(running_lab, family):
    lab = running_lab
    fragments = Moved(lab, interface="app0", verdict="steer", reason="fragment-steered")
    answer, source = ask(lab, "app", RESOLVERS[family], padded("origin.example", 2000))
    assert source == [RESOLVERS[family], 53]
    assert rcode(answer) == 0 and answers(answer) == 1
    assert fragments() == 2


@FAMILIES
def test_quic_in_fragments_is_not_relayed(running_lab, family):
    lab = running_lab
    fragments = Moved(lab, interface="app0", verdict="steer", reason="fragment-steered")
    refused = Moved(lab, hook="lookup", verdict="drop", reason="quic-refused")
    relayed = Moved(lab, hook="lookup", verdict="steer", reason="udp-relay")
    code = "socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, " \
           "socket.SOCK_DGRAM).sendto(b'x' * 4000, (sys.argv[1], 443)); tell('sent')"  # fmt: skip
    python(lab, "app", code, ORIGIN[family])
    wait_until("it is refused when it is whole", lambda: refused() == 1)
    assert fragments() == 3 and relayed() == 0


TINY_SYN = """
v6, origin, own = sys.argv[1] == "1", sys.argv[2], sys.argv[3]
family = socket.AF_INET6 if v6 else socket.AF_INET
def total(data):
    data += b"\\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
ends = socket.inet_pton(family, own) + socket.inet_pton(family, origin)
syn = struct.pack("!2H2I2B3H", 4444, 80, 7, 0, 0x50, 2, 1024, 0, 0) + bytes(12)
check = total(ends + struct.pack("!2H", 6, len(syn)) + syn)
syn = syn[:16] + struct.pack("!H", check) + syn[18:]
ear = socket.socket(family, socket.SOCK_RAW, 6)
ear.settimeout(3)
out = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
step = 24 if v6 else 8  # IPv6 wants all of the header in the first (RFC 7112)
for at in range(0, len(syn), step):
    part, more = syn[at : at + step], at + step < len(syn)
    if v6:
        what = struct.pack("!BBHI", 6, 0, at | more, 77) + part
        packet = struct.pack("!IHBB", 6 << 28, len(what), 44, 64) + ends + what
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(part), 7, more << 13 | at // 8, 64, 6,
                           0) + ends
        packet = head[:10] + struct.pack("!H", total(head)) + head[12:] + part
    out.sendto(packet, (origin, 0))
while True:
    got = ear.recv(2000)
    tcp = got if v6 else got[(got[0] & 15) * 4:]
    if tcp[:4] == struct.pack("!2H", 80, 4444):
        tell(tcp[13])
        break
"""


@FAMILIES
def test_a_connection_attempt_in_tiny_fragments_reaches_the_proxy(running_lab, family):
    lab = running_lab
    fragments = Moved(lab, interface="app0", verdict="steer", reason="fragment-steered")
    proxied = Moved(lab, hook="lookup", verdict="steer", reason="tcp-proxy")
    own = ("192.0.2.2", "2001:db8:a::2")[family]
    assert python(lab, "app", TINY_SYN, family, ORIGIN[family], own) == 0x12  # SYN, ACK
    assert fragments() == (2 if family else 4) and proxied() > 0


@PLACES
@FAMILIES
def test_holdfast_internal_refuses_other_ports_at_once(running_lab, where, family):
    lab = running_lab
    refused = Moved(lab, interface=INTERFACE[where], verdict="refuse", reason="internal-port")
    how, seconds = python(lab, where, CONNECT, INTERNAL[family], 443)
    assert how == "ECONNREFUSED" and seconds < 0.5
    how, seconds = python(lab, where, SEND, INTERNAL[family], 123, 10)
    assert how == "ECONNREFUSED" and seconds < 0.5
    assert refused() == 2


def test_an_address_that_only_a_neighbour_could_have_is_refused_at_once(running_lab):
    refused = Moved(running_lab, interface="app0", verdict="refuse", reason="local-network")
    how, seconds = python(running_lab, "app", CONNECT, "169.254.169.254", 80)
    assert how == "ECONNREFUSED" and seconds < 0.5
    assert refused() == 1


def test_a_ping_in_fragments_is_refused_at_once(running_lab):
    lab = running_lab
    refused = Moved(lab, interface="app0", verdict="refuse", reason="fragment")
    done = lab.start("app", "ping", "-c1", "-W5", "-s", "3000", ORIGIN[0]).wait()
    assert done.rc == 1 and "iltered" in done.out, done
    assert done.seconds < 2 and refused() == 1


def test_a_network_of_apps_is_reached_without_the_proxy(running_lab):
    lab = running_lab
    passed = Moved(lab, interface="app0", verdict="pass", reason="app-network")
    # what is sent to the device: an app asks its neighbour itself
    lab.network.run("app", "ip", "neighbour", "replace", "192.0.2.77", "lladdr", mac(lab), "dev",
                    "eth0")  # fmt: skip
    try:
        python(lab, "app", SEND.replace("s.settimeout(3)", "s.settimeout(0.1)"), "192.0.2.77", 9,
               10)  # fmt: skip
        assert passed() == 1
    finally:
        lab.network.run("app", "ip", "neighbour", "del", "192.0.2.77", "dev", "eth0")


FRAMES = """
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
s.send(bytes.fromhex(sys.argv[1]))
tell("sent")
"""


@pytest.mark.parametrize("source, to", [("127.0.0.1", ORIGIN[0]), ("192.0.2.1", ORIGIN[0]),
                                        ("224.0.0.5", ORIGIN[0]), ("192.0.2.2", "127.0.0.1"),
                                        ("192.0.2.2", "0.0.0.0")])  # fmt: skip
def test_addresses_that_cannot_be_right_are_dropped_and_counted(running_lab, source, to):
    lab = running_lab
    dropped = Moved(lab, interface="app0", verdict="drop", reason="martian")
    address = lambda text: bytes(int(part) for part in text.split("."))  # noqa: E731
    packet = struct.pack("!6s6sH", bytes.fromhex(mac(lab).replace(":", "")), b"\2\0\0\0\0\2", 0x0800)
    packet += struct.pack("!BBHHHBBH", 0x45, 0, 28, 7, 0, 64, 17, 0) + address(source) + address(to)
    packet += struct.pack("!4H", 4000, 4001, 8, 0)
    python(lab, "app", FRAMES, packet.hex())
    wait_until("it is counted", lambda: dropped() == 1)
