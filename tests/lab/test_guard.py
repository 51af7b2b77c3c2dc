"""Nothing leaves over a link but what the daemon sends, and what the configuration allows.

    host: bound to an address, to a device, raw, packet, marked
      |                                               cloud
      +--> wifi0 [tc egress guard] --x               eavesdropper on wifi-gw and lte-gw
    holdfastd --> wifi0 [tc egress guard] ----------> origin

Every escape is made twice: with the guard, and with the guard off, where it must arrive, or
else the test would show nothing.
"""

import pytest

from harness import wait_until
from kernelside import Moved, python, python_start, told
from network import LINKS, ORIGIN

SECRET = "escape"
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])

# Every frame with the secret or with a SYN for port 4444 that comes in over a link.
EAVESDROP = """
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
tell(["ready"])
while True:
    frame, (device, _, kind, _, _) = s.recvfrom(65535)
    if kind != 4 and (b"escape" in frame or b"\\x11\\x5c" in frame[34:60]):
        tell([device, frame.hex()])
"""

# Each way around takes the family's number, and sends to port 4444 of the origin.
BEGIN = """
v6 = sys.argv[1] == "1"
family = socket.AF_INET6 if v6 else socket.AF_INET
origin, address = (sys.argv[2], 4444), sys.argv[3]
def attempt(s, what=b"escape", to=origin):
    s.setblocking(False)
    try:
        if s.type == socket.SOCK_STREAM:
            s.connect(to)
        else:
            s.sendto(what, to)
    except OSError as error:
        if error.errno not in (errno.EINPROGRESS, errno.EPERM, errno.ENOBUFS):
            raise
    return s
"""
UDP_HEAD = "struct.pack('!4H', 4444, 4444, 14, 0) + b'escape'"
WAYS = {
    "udp-bound-to-a-links-address": """
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((address, 0))
attempt(s)
""",
    "tcp-bound-to-a-links-address": """
s = socket.socket(family, socket.SOCK_STREAM)
s.bind((address, 0))
attempt(s)
time.sleep(0.2)
""",
    "udp-bound-to-a-device": """
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wifi0")
s.bind((address, 0))
attempt(s)
""",
    "tcp-bound-to-a-device": """
s = socket.socket(family, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wifi0")
s.bind((address, 0))
attempt(s)
time.sleep(0.2)
""",
    "with-the-daemons-mark": """
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08100000)
attempt(s)
""",
    "tcp-with-the-daemons-mark": """
s = socket.socket(family, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08000000)
attempt(s)
time.sleep(0.2)
""",
    "raw": f"""
s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08100000)
s.bind((address, 0))
attempt(s, {UDP_HEAD}, (origin[0], 0))
""",
    "a-packet-socket": f"""
def mac(text): return bytes.fromhex(text.replace(":", ""))
payload = {UDP_HEAD}
if v6:
    ip = struct.pack("!IHBB", 6 << 28, len(payload), 17, 64)
else:
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0)
ip += socket.inet_pton(family, address) + socket.inet_pton(family, origin[0])
if not v6:
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~total & 0xffff) + ip[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("wifi0", 0))
frame = b"\\xff" * 6 + b"\\2\\0\\0\\0\\0\\1" + (b"\\x86\\xdd" if v6 else b"\\x08\\0") + ip + payload
try:
    s.send(frame)
except OSError as error:
    assert error.errno in (errno.ENOBUFS, errno.EPERM)
""",
    "fragments": """
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((address, 0))
attempt(s, b"escape" * 600)
""",
}


def go_around(lab, way, family):
    code = BEGIN + WAYS[way] + "\ntell('gone')"
    address = LINKS["wifi"]["address"][family]
    assert python(lab, "device", code, family, ORIGIN[family], address) == "gone"


@pytest.fixture(scope="module")
def ear(lab):
    """What arrives in the cloud; call it for a fresh list."""
    return python_start(lab, "cloud", EAVESDROP)


def marker(lab):
    """A packet from the cloud to itself that the ear hears: all before it has been told."""
    code = "import socket; socket.socket(2, 2).sendto(b'escape over', ('203.0.113.9', 9))"
    lab.network.run("cloud", "/usr/bin/python3", "-c", code)


def heard(lab, ear):
    """(before the marker) the frames heard, from links alone."""
    marks = sum(frame[0] == "lo" for frame in told(ear))
    marker(lab)
    wait_until("the ear works", lambda: sum(f[0] == "lo" for f in told(ear)) > marks)
    return [frame for frame in told(ear) if frame[0] != "lo"]


def check_way(lab, ear, way, family, mode):
    before = len(heard(lab, ear))
    moved = Moved(lab, interface="wifi0", hook="guard", verdict="drop", reason="not-ours")
    go_around(lab, way, family)
    if mode == "enforce":
        wait_until("the guard has counted it", lambda: moved() > 0, timeout=3)
        assert len(heard(lab, ear)) == before, way
        return
    wait_until("it arrives", lambda: len(heard(lab, ear)) > before, timeout=3)
    assert (moved() > 0) == (mode == "observe")


@pytest.fixture(scope="module", params=["enforce", "observe", "off"])
def guarded(lab, request):
    lab.start_daemon({"guard": {"mode": request.param}}, fresh=True)
    yield lab, request.param
    assert lab.stop_daemon() == 0, lab.log()
    lab.release()


@pytest.mark.parametrize("way", WAYS)
@FAMILIES
def test_a_way_around_arrives_only_where_the_guard_lets_it(guarded, ear, way, family):
    lab, mode = guarded
    check_way(lab, ear, way, family, mode)
    assert lab.curl("device", f"http://origin.example/guarded/{way}").status == 200
