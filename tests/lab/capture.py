"""A capture of every frame on the cloud's end of every link, for as long as a lab lives.

    device wifi0 ------> wifi-gw |
           lte0  ------> lte-gw  |- cloud --[AF_PACKET ring]--> Capture: decoded frames
           modem0 ====> modem-gw |

The kernel writes into a ring that is mapped here; a thread empties it, so that tests pay for a
copy of headers and nothing else. Both directions are kept, what comes in over a link and what
the cloud sent before, because a reset or an ICMP error is judged by what it answers. A frame
that the ring had no room for is counted by the kernel: take() fails then, so no frame is missing.
"""

import collections
import ctypes
import dataclasses
import mmap
import os
import select
import socket
import struct
import threading

from witness import Flow

SOL_PACKET, RX_RING, STATISTICS, VERSION, TPACKET_V3 = 263, 5, 6, 10, 2
ATTACH_FILTER, CLONE_NEWNET, ALL = 26, 0x40000000, 3
BLOCK, BLOCKS, RETIRE_MS = 1 << 18, 64, 10
SNAP = 320  # octets kept of a frame: all headers that there are, and what tells DHCP
PENDING_MAX = 128 << 20  # octets of blocks that nobody has taken
OUTGOING = 4  # sockaddr_ll's pkttype: the cloud's own
VLAN_VALID = 0x10
HATYPE_ETHERNET, HATYPE_LOOPBACK = 1, 772
HEADER = struct.Struct("=6I2H2IH")  # tpacket3_hdr, up to the VLAN's protocol
ADDRESS = struct.Struct("=HHiHBB")  # sockaddr_ll behind it
ADDRESS_AT = 48

libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass
class Frame:
    """One frame, as far as it is told apart. flow is None where there is no IP header."""

    time: float = 0.0
    link: str = ""
    outgoing: bool = False  # the cloud sent it
    octets: bytes = b""  # the first SNAP
    length: int = 0  # of the whole frame
    vlan: bool = False
    ethertype: int = 0
    flow: Flow | None = None
    hops: int = 0
    transport: bytes = b""  # from the transport header on
    payload: int = 0  # octets behind the transport header, what pads the frame too
    fragment: tuple | None = None  # what its siblings share
    first: bool = True  # not a later fragment
    trailing: int = 0  # octets behind the packet's own end
    extended: bool = False  # IPv4 options or IPv6 extension headers, but of fragments

    def __str__(self):
        what = str(self.flow) if self.flow else f"ethertype {self.ethertype:#06x}"
        marks = [f"over {self.link}", what, f"{self.length} octets, {self.payload} of payload"]
        marks += ["VLAN"] * self.vlan + ["fragment"] * bool(self.fragment)
        marks += [f"{self.trailing} octets behind its end"] * bool(self.trailing)
        if self.flow and self.flow.protocol == socket.IPPROTO_TCP and len(self.transport) > 13:
            marks.append(f"flags {self.transport[13]:#04x}")
        return ", ".join(marks) + f"\n    {self.octets.hex()}"


def decode(frame, ethernet):
    """Fill in what the octets say."""
    at = 14 if ethernet else 0
    o = frame.octets
    if ethernet:
        frame.ethertype = int.from_bytes(o[12:14], "big")
    else:
        frame.ethertype = {4: 0x0800, 6: 0x86DD}.get(o[0] >> 4 if o else 0, 0)
    if frame.ethertype == 0x0800 and len(o) >= at + 20:
        decode_v4(frame, o, at)
    elif frame.ethertype == 0x86DD and len(o) >= at + 40:
        decode_v6(frame, o, at)
    return frame


def decode_v4(frame, o, at):
    header, where = (o[at] & 15) * 4, int.from_bytes(o[at + 6 : at + 8], "big")
    total = int.from_bytes(o[at + 2 : at + 4], "big")
    frame.trailing = frame.length - at - total if total else 0
    source, destination, protocol = o[at + 12 : at + 16], o[at + 16 : at + 20], o[at + 9]
    frame.hops, frame.extended = o[at + 8], header > 20
    if where & 0x3FFF:
        frame.fragment = (source, destination, protocol, o[at + 4 : at + 6])
        frame.first = not where & 0x1FFF
    decode_transport(frame, source, destination, protocol, o, at + header)


def decode_v6(frame, o, at):
    source, destination, following = o[at + 8 : at + 24], o[at + 24 : at + 40], o[at + 6]
    frame.hops, next_at = o[at + 7], at + 40
    total = int.from_bytes(o[at + 4 : at + 6], "big")
    frame.trailing = frame.length - next_at - total if total else 0
    while following in (0, 43, 44, 60) and frame.first and next_at + 8 <= len(o):
        kind, frame.extended = following, frame.extended or following != 44
        following = o[next_at]
        if kind == 44:
            frame.fragment = (source, destination, 44, o[next_at + 4 : next_at + 8])
            frame.first = not int.from_bytes(o[next_at + 2 : next_at + 4], "big") & 0xFFF8
        next_at += 8 if kind == 44 else (o[next_at + 1] + 1) * 8
    decode_transport(frame, source, destination, following, o, next_at)


def decode_transport(frame, source, destination, protocol, o, at):
    transport, ports, header = o[at:], b"\0" * 4, 0
    if frame.first and protocol == 6 and len(transport) >= 20:
        ports, header = transport[:4], (transport[12] >> 4) * 4
    elif frame.first and protocol == 17 and len(transport) >= 8:
        ports, header = transport[:4], 8
    elif frame.first and protocol in (1, 58) and len(transport) >= 8:
        header = 8
        if transport[0] in (0, 8, 128, 129):
            ports = transport[4:6] + b"\0\0"
    frame.transport = transport
    frame.payload = max(frame.length - at - header, 0)
    frame.flow = Flow(source, destination, protocol, ports)


def in_namespace(path, what):
    """what(), run in a network namespace, in a thread that ends with it."""
    got = []

    def run():
        try:
            enter(path)
            got.append(what())
        except BaseException as error:  # told to who waits
            got.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(got[0], BaseException):
        raise got[0]
    return got[0]


def enter(path):
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")


def interfaces(path):
    """{ifindex: name} of a namespace."""
    return in_namespace(path, lambda: dict(socket.if_nameindex()))


def packet_socket(blocks):
    """On all interfaces but lo, with a ring; frames come from bind() on."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    program = struct.pack(  # lo: nothing; others: the first SNAP octets
        "=HBBIHBBIHBBIHBBI",
        0x28, 0, 0, 0xFFFFF000 + 28, 0x15, 0, 1, HATYPE_LOOPBACK, 0x06, 0, 0, 0, 0x06, 0, 0, SNAP,
    )  # fmt: skip
    held = ctypes.create_string_buffer(program)
    pointer = struct.pack("=H6xQ", 4, ctypes.addressof(held))
    s.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, pointer)
    s.setsockopt(SOL_PACKET, VERSION, TPACKET_V3)
    frames = BLOCK * blocks // 2048
    request = struct.pack("=7I", BLOCK, blocks, 2048, frames, RETIRE_MS, 0, 0)
    s.setsockopt(SOL_PACKET, RX_RING, request)
    return s


def bind_to_all(s):
    """Python's own bind() wants the name of an interface."""
    everything = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ALL), 0, 0, 0, 0, b"")
    if libc.bind(s.fileno(), everything, len(everything)):
        raise OSError(ctypes.get_errno(), "bind to all interfaces")


class Capture:
    """names: of the cloud's interfaces, to those of links."""

    def __init__(self, namespace, names, blocks=BLOCKS):
        self.namespace, self.names, self.count = namespace, names, blocks
        self.lock = threading.Lock()
        self.blocks, self.pending = collections.deque(), 0
        self.indexes, self.overrun, self.frames = {}, False, 0
        self.socket = in_namespace(namespace, lambda: packet_socket(blocks))
        self.ring = mmap.mmap(self.socket.fileno(), BLOCK * blocks)
        bind_to_all(self.socket)
        self.at, self.stopped = 0, threading.Event()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        """The thread: copies what is full or a few milliseconds old."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLERR)
        while not self.stopped.is_set():
            poll.poll(100)
            self.empty()

    def empty(self):
        with self.lock:
            while True:
                base = self.at * BLOCK
                status, packets, first, length = struct.unpack_from("=4I", self.ring, base + 8)
                if not status & 1:
                    return
                if self.pending + length > PENDING_MAX:
                    self.overrun = True
                else:
                    self.blocks.append((packets, self.ring[base + first : base + length]))
                    self.pending += length
                struct.pack_into("=I", self.ring, base + 8, 0)
                self.at = (self.at + 1) % self.count

    def check_whole(self):
        stats = self.socket.getsockopt(SOL_PACKET, STATISTICS, 12)
        _, drops, _ = struct.unpack("=3I", stats)
        assert not drops and not self.overrun, f"the capture lost frames: {drops}, {self.overrun}"

    def take(self):
        """The frames that have arrived since, oldest first, but for the last milliseconds'."""
        self.empty()
        with self.lock:
            blocks, self.blocks, self.pending = list(self.blocks), collections.deque(), 0
        self.check_whole()
        frames = [frame for packets, block in blocks for frame in self.frames_of(packets, block)]
        self.frames += len(frames)
        return frames

    def frames_of(self, packets, block):
        at = 0
        for _ in range(packets):
            following, sec, nsec, snap, length, status, mac, _, _, _, _ = HEADER.unpack_from(
                block, at
            )
            _, _, index, hatype, kind, _ = ADDRESS.unpack_from(block, at + ADDRESS_AT)
            frame = Frame(
                time=sec + nsec / 1e9, link=self.link(index), outgoing=kind == OUTGOING,
                octets=block[at + mac : at + mac + snap], length=length,
                vlan=bool(status & VLAN_VALID))  # fmt: skip
            yield decode(frame, hatype == HATYPE_ETHERNET)
            at += following

    def link(self, index):
        if index not in self.indexes:
            self.indexes |= interfaces(self.namespace)
        name = self.indexes.get(index, f"interface {index}")
        return self.names.get(name, name)

    def close(self):
        """The frames that were not taken yet, the very last too."""
        self.stopped.wait(5 * RETIRE_MS / 1000)
        self.stopped.set()
        self.thread.join()
        frames = self.take()
        self.ring.close()
        self.socket.close()
        return frames
