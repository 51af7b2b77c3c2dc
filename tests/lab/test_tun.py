"""Interfaces without an Ethernet header: a link as a 4G modem in raw-IP mode is one, and apps
behind a tunnel.

    app tun0 192.0.2.210/30 ======= tun-app device modem0 203.0.113.202/30 ===== modem-gw cloud
             2001:db8:b::2/64              ::1           2001:db8:3::2/64        ::1

A process carries the packets between the two ends of each (=====).
"""

import pytest

from harness import wait_until
from kernelside import EAR, Moved, heard, python, python_start, running, running_lab  # noqa: F401
from network import LINKS, ORIGIN

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
MODEM = ("203.0.113.202", "2001:db8:3::2")
APP = ("192.0.2.210", "2001:db8:b::2")
PROBE = {"url": "http://probe.example/204", "interval": "1s", "timeout": "1s"}
CHANGES = {
    "apps": {"host": True, "interfaces": ["app0", "tun-app"]},
    "links": [
        {"name": "modem", "interface": "modem0", "priority": 1, "probe": PROBE,
         "dns": [LINKS["wifi"]["router"][0]]},
        {"name": "wifi", "interface": "wifi0", "priority": 10, "probe": PROBE,
         "dns": [LINKS["wifi"]["router"][0]]},
        {"name": "lte", "interface": "lte0", "priority": 20, "probe": PROBE,
         "dns": [LINKS["lte"]["router"][0]]},
    ],
}  # fmt: skip

CARRY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def make(place, name):
    with open(place) as ns:
        assert libc.setns(ns.fileno(), 0x40000000) == 0, ctypes.get_errno()
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack("16sH22x", name.encode(), 0x1001))  # TUN, NO_PI
    return fd
a, b = make(sys.argv[1], sys.argv[2]), make(sys.argv[3], sys.argv[4])
tell(["ready"])
other = {a: b, b: a}
while True:
    for fd in select.select([a, b], [], [])[0]:
        try:
            os.write(other[fd], os.read(fd, 65535))
        except OSError as error:
            if error.errno != errno.EIO:  # the other end is down
                raise
"""


def connect(lab, where, device, peer_where, peer):
    places = [f"/run/netns/{lab.network.name(w)}" for w in (where, peer_where)]
    client = python_start(lab, "cloud", CARRY, places[0], device, places[1], peer)
    for w, name in ((where, device), (peer_where, peer)):
        lab.network.run(w, "ip", "link", "set", name, "up")
    return client


@pytest.fixture(scope="module")
def tunnels(lab):
    """Both tunnels; they are there before the daemon starts."""
    net = lab.network
    carriers = [connect(lab, "device", "modem0", "cloud", "modem-gw"),
                connect(lab, "app", "tun0", "device", "tun-app")]  # fmt: skip
    for where, device, v4, v6 in (
        ("cloud", "modem-gw", "203.0.113.201", "2001:db8:3::1"),
        ("device", "modem0", *MODEM),
        ("device", "tun-app", "192.0.2.209", "2001:db8:b::1"),
        ("app", "tun0", *APP),
    ):
        net.address(where, device, v4, 30)
        net.address(where, device, v6, 64)
    for n, family in enumerate(("-4", "-6")):
        net.run("device", "ip", family, "route", "add", "default", "dev", "modem0", "metric", "50")
        net.run("app", "ip", family, "route", "add", ORIGIN[n], "dev", "tun0")
    net.run("app", "ip", "route", "add", "8.8.8.8", "dev", "tun0")
    net.run("app", "ip", "route", "add", "2001:db8::53", "dev", "tun0")
    yield
    for carrier in carriers:
        carrier.kill()


@pytest.fixture
def modem(tunnels, running_lab):
    running_lab.wait_links(online=["modem"])
    return running_lab


def literal(address):
    return f"[{address}]" if ":" in address else address


@FAMILIES
@pytest.mark.parametrize("where", ["app", "device"])
def test_a_request_leaves_over_the_modem(modem, where, family):
    lab, path = modem, f"/modem/{where}/{family}"
    own = Moved(lab, interface="modem0", hook="guard", verdict="pass", reason="own-socket")
    answer = lab.curl(where, f"http://{literal(ORIGIN[family])}{path}")
    assert answer.status == 200 and "1.1 holdfast" in answer.headers["via"], answer
    assert [seen["client"] for seen in lab.origin_log(path)] == [MODEM[family]]
    assert own() > 0


def test_a_big_response_and_a_big_body_pass(modem):
    answer = modem.curl("device", f"http://{ORIGIN[0]}/big/3000000")
    assert answer.status == 200 and len(answer.body) == 3000000
    body = modem.folder / "body"
    body.write_bytes(bytes(range(256)) * 4000)
    answer = modem.curl("app", f"http://[{ORIGIN[1]}]/echo", "--data-binary", f"@{body}")
    assert answer.body == body.read_bytes()


BOUND = """
v6 = sys.argv[1] == "1"
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[2], 0))
try:
    s.sendto(b"escape", (sys.argv[3], 4444))
except OSError as error:
    assert error.errno in (errno.EPERM, errno.ENOBUFS)
tell("sent")
"""


def escape(lab, family):
    assert python(lab, "device", BOUND, family, MODEM[family], ORIGIN[family]) == "sent"


@FAMILIES
def test_the_guard_stops_what_goes_around(modem, family):
    lab = modem
    ear = python_start(lab, "cloud", EAR)
    moved = Moved(lab, interface="modem0", hook="guard", verdict="drop", reason="not-ours")
    escape(lab, family)
    assert moved() == 1
    assert not [h for h in heard(lab, ear) if b"escape".hex() in h[1]]
    ear.kill()


@FAMILIES
def test_an_app_behind_a_tunnel_is_steered(modem, family):
    lab = modem
    steered = Moved(lab, interface="tun-app", verdict="steer", reason="tcp-proxy")
    path = f"/tun/{family}"
    answer = lab.curl("app", f"http://{literal(ORIGIN[family])}{path}")
    assert answer.status == 200 and "1.1 holdfast" in answer.headers["via"], answer
    assert steered() > 0


@pytest.mark.parametrize("server", ["8.8.8.8", "2001:db8::53"])
def test_an_app_behind_a_tunnel_is_answered_by_the_kernel(modem, server):
    lab = modem
    for kind, address in (("A", ORIGIN[0]), ("AAAA", ORIGIN[1])):
        assert lab.dig("app", "origin.example", kind, server=server) == [address]
        kernel = Moved(lab, interface="tun-app", verdict="answer", reason="dns-kernel")
        assert lab.dig("app", "origin.example", kind, server=server) == [address]
        assert kernel() == 1


REFUSED = """
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], 443))
s.send(b"x")
try:
    tell(s.recv(10).hex())
except OSError as error:
    tell(errno.errorcode.get(error.errno, "timeout"))
"""


@FAMILIES
def test_quic_of_an_app_behind_a_tunnel_is_refused(modem, family):
    assert python(modem, "app", REFUSED, ORIGIN[family]) == "ECONNREFUSED"


def test_a_modem_that_goes_down_is_left(modem):
    lab = modem
    lab.network.run("cloud", "ip", "link", "set", "modem-gw", "down")
    try:
        wait_until("the modem is left", lambda: "modem" not in lab.online())
        assert lab.curl("device", f"http://{ORIGIN[0]}/left").status == 200
        assert lab.origin_log("/left")[-1]["link"] == "wifi"
    finally:
        lab.network.run("cloud", "ip", "link", "set", "modem-gw", "up")


def test_without_the_daemon_what_goes_around_arrives(modem):
    """The positive control of the guard's test, and the last of this file."""
    lab = modem
    assert lab.stop_daemon() == 0
    ear = python_start(lab, "cloud", EAR)
    for family in (0, 1):
        escape(lab, family)
    wait_until("both arrive", lambda: 2 == sum(
        b"escape".hex() in packet for _, packet in heard(lab, ear)), timeout=3)  # fmt: skip
    ear.kill()
