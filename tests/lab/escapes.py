"""Ways around the daemon, as programs on the device and apps would try them.

Each is Python that runs in a namespace with the arguments of run(); what it sends holds SECRET,
or is a segment to PORT, so that it is known where it arrives. It must not fail when it is kept
back, and must fail when it could not be tried at all.
"""

import dataclasses
import re
import time
import weakref

from kernelside import python
from network import LINKS, ORIGIN

SECRET, PORT = b"escape", 4444
ADDRESS = {
    "wifi0": LINKS["wifi"]["address"],
    "eth0": ("192.0.2.2", "2001:db8:a::2"),
    "spare0": ("203.0.113.242",),  # test_guard_beyond.py
    "side1": ("192.0.2.130", "2001:db8:d::2"),  # test_guard_forwarded.py
}

# Who tries: nothing but a user id; CAP_NET_RAW alone; root.
NOBODY = ["setpriv", "--reuid=65533", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
NET_RAW = ["setpriv", "--reuid=65533", "--clear-groups", "--inh-caps=-all,+net_raw",
           "--ambient-caps=-all,+net_raw", "--bounding-set=-all,+net_raw"]  # fmt: skip
ROOT = []

BEGIN = """
v6, origin, address, device, router, scoped = sys.argv[1] == "1", *sys.argv[2:]
family = socket.AF_INET6 if v6 else socket.AF_INET
level, index = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP, socket.if_nametoindex(device)

def capabilities():
    for line in open("/proc/self/status"):
        if line.startswith("CapEff"):
            return int(line.split()[1], 16)
def kept(error):
    return error.errno in (errno.EINPROGRESS, errno.EPERM, errno.ENOBUFS)
def to_device(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    return s
def datagrams(source=address, port=0):
    s = to_device(socket.socket(family, socket.SOCK_DGRAM))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if source:
        s.bind((source, port))
    return s
def attempt(s, what=b"escape", to=(origin, 4444)):
    try:
        s.sendto(what, to)
    except OSError as error:
        if not kept(error):
            raise
def dial(s):
    s.setblocking(False)
    try:
        s.connect((origin, 4444))
    except OSError as error:
        if not kept(error):
            raise
    time.sleep(0.1)

def total(data):
    data += b"\\0" * (len(data) % 2)
    n = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def pseudo(protocol, length, to):
    ends = socket.inet_pton(family, address) + socket.inet_pton(family, to)
    return ends + struct.pack("!HH", protocol, length)
def udp(what=b"escape", source=4444, port=4444):
    head = struct.pack("!4H", source, port, 8 + len(what), 0)
    check = total(pseudo(17, 8 + len(what), origin) + head + what)
    return head[:6] + struct.pack("!H", check) + what
def tcp(flags, what=b""):
    head = struct.pack("!2H2I2B3H", 4444, 4444, 1, 1, 0x50, flags, 1024, 0, 0)
    check = total(pseudo(6, 20 + len(what), origin) + head + what)
    return head[:16] + struct.pack("!H", check) + head[18:] + what
def icmp(kind, what=b"escape", code=0, middle=0):
    head = struct.pack("!2BHI", kind, code, 0, middle)
    check = total((pseudo(58, 8 + len(what), origin) if v6 else b"") + head + what)
    return head[:2] + struct.pack("!H", check) + head[4:] + what
def ip(what, protocol=17, options=b"", fragment=0, hops=64, to=origin, source=address):
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, to)
    if v6:
        return struct.pack("!IHBB", 6 << 28, len(what), protocol, hops) + ends + what
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(what), 7, fragment,
                       hops, protocol, 0) + ends + options
    return head[:10] + struct.pack("!H", total(head)) + head[12:] + what
def raw(packet, to=origin, mark=0):
    s = to_device(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
    if mark:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    attempt(s, packet, (to, 0))
def v6_fragment(what, offset, more, following=17):
    return struct.pack("!BBHI", following, 0, offset | more, 77) + what
def frame(packet, kind=None, tag=b"", bypass=False):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    if bypass:
        s.setsockopt(263, 20, 1)  # PACKET_QDISC_BYPASS
    s.bind((device, 0))
    kind = kind or (0x86dd if v6 else 0x0800)
    try:
        s.send(b"\\xff" * 6 + b"\\2\\0\\0\\0\\0\\1" + tag + struct.pack("!H", kind) + packet)
    except OSError as error:
        if not kept(error):
            raise
"""


@dataclasses.dataclass
class Way:
    code: str
    who: list = dataclasses.field(default_factory=list)
    families: tuple = (0, 1)
    reason: str = "not-ours"  # of the drop


V4, V6 = (0,), (1,)

# What a program without any privilege can do, then with CAP_NET_RAW alone, then as root.
DEVICE_WAYS = {
    "udp-bound-to-a-links-address": Way("""
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((address, 0))
attempt(s)
""", NOBODY),
    "tcp-bound-to-a-links-address": Way("""
s = socket.socket(family, socket.SOCK_STREAM)
s.bind((address, 0))
dial(s)
""", NOBODY),
    "udp-bound-to-a-device": Way("attempt(datagrams(None))", NOBODY),
    "tcp-bound-to-a-device": Way("dial(to_device(socket.socket(family, socket.SOCK_STREAM)))",
                                 NOBODY),
    "a-foreign-source-address": Way("""
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(level, 78, 1)  # FREEBIND; IPv4 finds no route from an address that is not here
s.bind(("2001:db8:77::7", 0))
attempt(to_device(s))
""", NOBODY, V6),
    "packet-information-chooses-the-link": Way("""
s = socket.socket(family, socket.SOCK_DGRAM)
own = socket.inet_pton(family, address)
info = own + struct.pack("=I", index) if v6 else struct.pack("=I", index) + own + b"\\0" * 4
try:
    s.sendmsg([b"escape"], [(level, 50 if v6 else 8, info)], 0, (origin, 4444))
except OSError as error:
    if not kept(error):
        raise
""", NOBODY),
    "not-routed": Way("""
s = datagrams()
s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
attempt(s, to=(router, 4444))
""", NOBODY),
    "a-link-local-neighbour": Way("""
s = socket.socket(family, socket.SOCK_DGRAM)
attempt(s, to=(scoped, 4444, 0, index))
""", NOBODY, V6),
    "multicast": Way("""
s = socket.socket(family, socket.SOCK_DGRAM)
if v6:
    s.setsockopt(level, socket.IPV6_MULTICAST_IF, index)
else:
    s.setsockopt(level, socket.IP_MULTICAST_IF, socket.inet_aton(address))
attempt(s, to=("ff15::77" if v6 else "239.1.1.77", 4444))
""", NOBODY),
    "broadcast": Way("""
s = datagrams()
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
attempt(s, to=("255.255.255.255", 4444))
""", NOBODY, V4),
    "a-question-to-the-links-router": Way("""
attempt(datagrams(), struct.pack("!6H", 7, 256, 1, 0, 0, 0) + b"\\6escape\\0\\0\\1\\0\\1",
        (router, 53))
""", NOBODY),
    "an-echo-request": Way("""
s = to_device(socket.socket(family, socket.SOCK_DGRAM, 58 if v6 else 1))
attempt(s, icmp(128 if v6 else 8), (origin, 0))
""", NOBODY),
    "a-datagram-in-fragments": Way("attempt(datagrams(), b'escape' * 600)", NOBODY),
    "extension-headers": Way("""
s = datagrams()
s.setsockopt(level, 59, struct.pack("!8B", 0, 0, 1, 4, 0, 0, 0, 0))  # IPV6_DSTOPTS
attempt(s)
""", NET_RAW, V6),
    "the-daemons-mark-with-net-raw-alone": Way("""
assert capabilities() == 1 << 13, hex(capabilities())
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08100000)
attempt(s)
""", NET_RAW),
    "tcp-with-the-daemons-mark": Way("""
s = socket.socket(family, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08000000)
dial(s)
""", NET_RAW),
    "a-transparent-source-address": Way("""
s = to_device(socket.socket(family, socket.SOCK_DGRAM))
s.setsockopt(level, 75 if v6 else 19, 1)
s.bind(("2001:db8:77::7" if v6 else "192.0.2.77", 0))
attempt(s)
""", NET_RAW),
    "raw-udp-with-the-mark": Way("""
s = to_device(socket.socket(family, socket.SOCK_RAW, 17))
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08100000)
s.bind((address, 0))
attempt(s, udp(), (origin, 0))
""", NET_RAW),
    "esp": Way("raw(ip(b'escape' * 4, 50))", NET_RAW),
    "gre": Way("raw(ip(struct.pack('!2H', 0, 0x86dd if v6 else 0x0800) + ip(udp()), 47))",
               NET_RAW),
    "a-packet-in-a-packet": Way("raw(ip(ip(udp()), 41 if v6 else 4))", NET_RAW),
    "sctp": Way("raw(ip(struct.pack('!2H2I', 4444, 4444, 0, 0) + b'escape', 132))", NET_RAW),
    "a-source-route": Way("""
hop = socket.inet_pton(family, router)
if v6:
    raw(ip(struct.pack("!4BI", 17, 2, 0, 1, 0) + hop + udp(), 43))
else:
    raw(ip(udp(), options=struct.pack("!3B", 131, 7, 4) + hop + b"\\0"))
""", NET_RAW),
    "a-first-fragment": Way("""
if v6:
    raw(ip(v6_fragment(udp(b"escape" * 4), 0, 1), 44))
else:
    raw(ip(udp(b"escape" * 4), fragment=0x2000))
""", NET_RAW),
    "a-later-fragment": Way("""
if v6:
    raw(ip(v6_fragment(b"escape" * 4, 64, 0), 44))
else:
    raw(ip(b"escape" * 4, fragment=8))
""", NET_RAW),
    "a-syn-in-tiny-fragments": Way("""
for n in range(3):
    part, more = tcp(2)[n * 8 : n * 8 + 8] + b"escape\\0\\0" * (n == 2), n < 2
    if v6:
        raw(ip(v6_fragment(part, n * 8, more, 6), 44))
    else:
        raw(ip(part, 6, fragment=more << 13 | n))
""", NET_RAW),
    "an-echo-reply": Way("raw(ip(icmp(129 if v6 else 0), 58 if v6 else 1))", NET_RAW),
    "a-reset-with-payload": Way("raw(ip(tcp(4, b'escape'), 6))", NET_RAW),
    "a-reset": Way("raw(ip(tcp(4), 6))", NET_RAW),
    "an-icmp-error": Way("raw(ip(icmp(1 if v6 else 3, ip(udp())), 58 if v6 else 1))", NET_RAW),
    "neighbour-discovery-with-a-hop-limit": Way("raw(ip(icmp(135, b'escape' * 4), 58))", NET_RAW,
                                                V6),
    "mld-to-one": Way("raw(ip(icmp(143, b'escape' * 4), 58, hops=1))", NET_RAW, V6),
    "igmp-to-one": Way("raw(ip(b'escape' * 2, 2, hops=1))", NET_RAW, V4),
    "a-bare-acknowledgement-with-the-mark": Way("raw(ip(tcp(16), 6), mark=0x08100000)", NET_RAW),
    "a-packet-socket": Way("frame(ip(udp()))", NET_RAW),
    "a-packet-socket-under-another-name": Way("frame(ip(udp()), kind=0x88b5)", NET_RAW,
                                              reason="ethertype"),
    "a-vlan-tag": Way("frame(ip(udp()), tag=struct.pack('!2H', 0x8100, 7))", NET_RAW),
    "two-vlan-tags": Way("frame(ip(udp()), tag=struct.pack('!4H', 0x88a8, 7, 0x8100, 8))",
                         NET_RAW),
    "octets-behind-a-reset": Way("frame(ip(tcp(4), 6) + b'escape')", ROOT, reason="malformed"),
    "the-ports-of-dhcp": Way("""
there = "ff02::1:2" if v6 else "255.255.255.255"
frame(ip(udp(b"escape", *((546, 547) if v6 else (68, 67))), to=there))
""", NET_RAW),
    "an-icmp-error-about-ones-own-packet": Way("""
raw(ip(icmp(1 if v6 else 3, ip(udp())), 58 if v6 else 1))
"""),
    "an-icmp-error-that-is-too-large": Way("""
raw(ip(icmp(1 if v6 else 3, ip(udp(b"escape" * 210), source=origin, to=address)), 58 if v6 else 1))
"""),
    "neighbour-discovery-in-a-first-fragment": Way("""
raw(ip(v6_fragment(icmp(135, b"escape" * 4), 0, 1, 58), 44, hops=255))
""", NET_RAW, V6),
    "octets-behind-dhcp": Way("""
ports = (546, 547) if v6 else (68, 67)
frame(ip(udp(b"", *ports), hops=1, to="ff02::1:2" if v6 else "255.255.255.255") + b"escape")
""", NET_RAW, reason="malformed"),
}  # fmt: skip

# From another namespace, with the device for a router: it forwards.
APP_WAYS = {
    "udp": Way("attempt(datagrams())"),
    "tcp": Way("dial(to_device(socket.socket(family, socket.SOCK_STREAM)))"),
    "an-echo-request": Way("raw(ip(icmp(128 if v6 else 8), 58 if v6 else 1))"),
    "esp": Way("raw(ip(b'escape' * 4, 50))"),
    "a-packet-in-a-packet": Way("raw(ip(ip(udp()), 41 if v6 else 4))"),
    "a-datagram-in-fragments": Way("attempt(datagrams(), b'escape' * 600)"),
    "a-first-fragment": DEVICE_WAYS["a-first-fragment"],
    "a-later-fragment": DEVICE_WAYS["a-later-fragment"],
    "options": Way("raw(ip(udp(), options=struct.pack('!3B5x', 7, 7, 4)))", families=V4),
    "extension-headers": Way("raw(ip(struct.pack('!8B', 17, 0, 1, 4, 0, 0, 0, 0) + udp(), 60))",
                             families=V6),
    # IPv4 takes what comes in from an address of its own for a martian.
    "the-links-own-address-as-source": Way("raw(ip(udp(), source='2001:db8:1::2'))", families=V6),
    "the-devices-own-address-as-source": Way("raw(ip(udp(), source='2001:db8:a::1'))",
                                             families=V6),
    "a-foreign-source": Way("raw(ip(udp(), source='2001:db8:77::7' if v6 else '192.0.2.77'))"),
    "a-reset-with-payload": Way("raw(ip(tcp(4, b'escape'), 6))"),
    "a-bare-acknowledgement": Way("raw(ip(tcp(16), 6))"),
    "a-reset": Way("raw(ip(tcp(4), 6))"),
    "an-icmp-error": Way("raw(ip(icmp(1 if v6 else 3, ip(udp())), 58 if v6 else 1))"),
    "neighbour-discovery": Way("raw(ip(icmp(135, b'escape' * 4), 58, hops=255))", families=V6),
    "mld": Way("raw(ip(icmp(143, b'escape' * 4), 58, hops=2))", families=V6),
    "igmp": Way("raw(ip(b'escape' * 2, 2, hops=2))", families=V4),
}  # fmt: skip


@dataclasses.dataclass
class Beyond(Way):
    """What the guard does let out. named: the accounts still see through it."""

    reason: str | None = None  # under which the guard counts it; None: it never sees it
    named: bool = True


BEYOND = {
    "a-packet-socket-past-the-qdisc": Beyond("frame(ip(udp()), bypass=True)", NET_RAW),
    "a-reset-of-roots": Beyond("raw(ip(tcp(4), 6))", ROOT, reason="no-socket-reset"),
    "an-icmp-error-of-roots": Beyond(
        "raw(ip(icmp(1 if v6 else 3, ip(udp(), source=origin, to=address)), 58 if v6 else 1))", ROOT,
        reason="no-socket-icmp"),
    "neighbour-discovery": Beyond("raw(ip(icmp(135, b'escape' * 4), 58, hops=255))", NET_RAW, V6,
                                  reason="neighbour"),
    "arp": Beyond("frame(b'escape' * 6, kind=0x0806)", NET_RAW, V4, "neighbour", False),
    "eapol": Beyond("frame(b'escape' * 6, kind=0x888e)", NET_RAW, V4, "link-control", False),
    "igmp": Beyond("raw(ip(b'escape' * 2, 2, hops=1, to='224.0.0.22'), to='224.0.0.22')", NET_RAW,
                   V4, "link-control", False),
    "mld": Beyond("raw(ip(icmp(143), 58, hops=1, to='ff02::16'), to='ff02::16')", NET_RAW, V6,
                  "neighbour", False),
    # Without any privilege: the address is the message, and neighbours on the link can read it.
    "a-neighbour-is-asked-for": Beyond("""
attempt(datagrams(), to=("2001:db8:1::6573:6361:7065", 4444))
time.sleep(0.1)
""", NOBODY, V6, "neighbour", False),
    "a-group-is-joined": Beyond("""
s = socket.socket(family, socket.SOCK_DGRAM)
group = socket.inet_pton(family, "ff15::6573:6361:7065") + struct.pack("=I", index)
s.setsockopt(level, socket.IPV6_JOIN_GROUP, group)
time.sleep(0.1)
""", NOBODY, V6, "neighbour", False),
    "dhcp": Beyond("""
there = "ff02::1:2" if v6 else "255.255.255.255"
what = (b"" if v6 else bytes(235) + bytes.fromhex("63825363")) + b"escape"
frame(ip(udp(bytes([1]) + what, *((546, 547) if v6 else (68, 67))), to=there))
""", NET_RAW, reason="link-control", named=False),
}  # fmt: skip


def scoped(lab):
    """The link-local address of the router behind wifi0."""
    if lab not in scoped.known:
        shown = lab.network.run("cloud", "ip", "-6", "-o", "address", "show", "dev", "wifi-gw")
        scoped.known[lab] = re.search(r"fe80:[0-9a-f:]+", shown)[0]
    return scoped.known[lab]


scoped.known = weakref.WeakKeyDictionary()


def run(lab, where, way, family, device="wifi0", more=None):
    """Try it; when it is over, what was to leave has left or never will. more: in place of the
    link-local neighbour, for ways that want to know something else."""
    code = BEGIN + way.code + "\ntell('tried')"
    arguments = (family, ORIGIN[family], ADDRESS[device][family], device,
                 LINKS["wifi"]["router"][family], more or scoped(lab))  # fmt: skip
    began = time.time()
    assert python(lab, where, code, *arguments, who=way.who) == "tried"
    return began


def is_escape(frame):
    """It holds the secret, or is one of the segments that have none."""
    tcp = frame.flow and frame.flow.protocol == 6
    return SECRET in frame.octets or bool(tcp and frame.flow.ports[2:] == PORT.to_bytes(2, "big"))


def arrived(lab, began):
    """What of it has come over a link."""
    return [frame for frame in lab.accounts.arrived(began) if is_escape(frame)]
