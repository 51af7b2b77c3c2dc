"""Every frame that arrives from the device over a link is accounted for, in every test.

    config that the harness wrote --> Policy, by time --+
    capture.py: frames on the links --------------------+--> Accounts.check()
    witness.py: what the daemon's sockets sent ---------+
    the guard's counters (their map, held open) --------+

Two ways at once. By content: a frame is the daemon's by the witness's word (its 5-tuple, and no
more octets of payload than the daemon's sockets gave to it), or control traffic that a link
needs, or a reset or an ICMP error that answers something which came in, or what the
configuration lets out, matched here once more. By number: a link carried no more frames of a
class than the guard counted when it let them out.

Not judged: the time without a guard, which is before the first "ready", after an ordinary stop
or --release, and with guard.mode off. In observe mode what nobody accounts for must be in the
guard's count of drops instead.

Tests need not ask for any of this. One that takes a guard away does so in gap(); one that makes
something escape on purpose takes it with escapes().
"""

import bisect
import collections
import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import re
import struct
import time

from capture import Capture, Frame, decode, interfaces
from network import LINKS
from witness import Witnesses

ABI = pathlib.Path(__file__).resolve().parents[2] / "bpf/abi.h"
PROTOCOLS = {"any": 0, "icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
PEERS = {link["gateway"]: link["device"] for link in LINKS.values()} | {"modem-gw": "modem0"}
SEGMENTED = {"modem0"}  # cannot take what TCP sends in one: octets are compared, not frames
SIBLINGS_MAX = 4096
RECENT_MAX = 4096
SHOWN_MAX = 10

OWN, CONTROL, ERROR, ALLOWED, EITHER, ESCAPED = (
    "own", "control", "icmp-error", "allowed", "own or allowed", "escaped")  # fmt: skip
# Of a reason that is not here any class may be.
CLASSES = {
    "own-socket": OWN, "own-timewait": OWN, "no-socket-reset": OWN,
    "neighbour": CONTROL, "link-control": CONTROL, "no-socket-icmp": ERROR,
    "allowed-service": ALLOWED, "exempt-user": ALLOWED,
}  # fmt: skip


def enum(kind):
    """The names of one enum of the ABI, in order."""
    body = re.search(rf"#define {kind}\(X\)((?:.*\\\n)*.*)", ABI.read_text())[1]
    return re.findall(r'X\(\w+,\s*"([\w-]+)"', body)


@dataclasses.dataclass
class Policy:
    """What the harness told the daemon about the guard, from a moment on."""

    mode: str = "off"
    allow: list = dataclasses.field(default_factory=list)
    exempt: list = dataclasses.field(default_factory=list)
    when_stopped: str = "release"
    epoch: object = None  # None: not compared with counters

    def allows(self, flow, first):
        return any(entry_allows(entry, flow, first) for entry in self.allow)


def policy_of(text):
    """From a configuration file, which may hold comments."""
    config = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
    guard = config.get("guard", {})
    return Policy(guard.get("mode", "enforce"), guard.get("allow", []),
                  config.get("apps", {}).get("exempt_uids", []),
                  config.get("when_stopped", "release"))  # fmt: skip


def entry_allows(entry, flow, first):
    """One of guard.allow, as docs/configuration.md has it."""
    protocol = PROTOCOLS[entry.get("protocol", "any")]
    if protocol and protocol != flow.protocol:
        return False
    for key, port in (("local_port", flow.ports[:2]), ("remote_port", flow.ports[2:])):
        wanted = entry.get(key)
        has_ports = first and flow.protocol in (6, 17)
        if wanted and not (has_ports and wanted.to_bytes(2, "big") == port):
            return False
    remote, destination = entry.get("remote"), ipaddress.ip_address(flow.destination)
    if not remote:
        return True
    network = ipaddress.ip_network(remote, strict=False)
    return network.version == destination.version and destination in network


class Epoch:
    """A time in which the guard's counters only grow: from a start to a release."""

    def __init__(self, bpf):
        self.bpf, self.maps, self.indexes = bpf, {}, {}
        self.seen = collections.Counter()  # (link, class) -> frames
        self.payload = collections.Counter()  # link -> octets

    def open(self, path, devices):
        fd = self.bpf.pinned(path)
        found = pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text()
        number = re.search(r"map_id:\s*(\d+)", found)[1]
        if self.maps.setdefault(number, fd) != fd:
            os.close(fd)
        self.indexes |= devices

    def close(self):
        for fd in self.maps.values():
            os.close(fd)
        self.maps.clear()

    def let_out(self):
        """(link, class) -> packets, and link -> octets."""
        reasons, verdicts, hooks = (enum(f"HF_{x}S") for x in ("REASON", "VERDICT", "HOOK"))
        total, octets, cpus = collections.Counter(), collections.Counter(), self.bpf.cpus()
        for fd in self.maps.values():
            for key, value in self.bpf.items(fd, 8, 16 * cpus):
                link = self.indexes.get(int.from_bytes(key[:4], "little"))
                if not link or hooks[key[4]] != "guard":
                    continue
                counts = struct.unpack(f"={2 * cpus}Q", value)
                drop, reason = verdicts[key[5]] == "drop", reasons[key[6]]
                total[link, ESCAPED if drop else CLASSES.get(reason, EITHER)] += sum(counts[::2])
                octets[link] += sum(counts[1::2])
        return total, octets

    def excess(self):
        """What is too much, in words."""
        (let_out, octets), found = self.let_out(), []
        for link in self.payload:
            if self.payload[link] > octets[link]:
                found.append(f"{link}: {self.payload[link]} octets, the guard saw {octets[link]}")
        for link in {link for link, _ in self.seen} - SEGMENTED:
            def seen(*classes):
                return sum(self.seen[link, c] for c in classes)

            def out(*classes):
                return sum(let_out[link, c] for c in classes)

            for one in (OWN, CONTROL, ERROR, ALLOWED):
                if seen(one) > out(one, EITHER):
                    found.append(f"{link}: {seen(one)} frames {one}, the guard let out {out(one)}")
            every = (OWN, CONTROL, ERROR, ALLOWED, EITHER)
            if seen(*every) > out(*every):
                found.append(f"{link}: {seen(*every)} frames, the guard let out {out(*every)}")
            if seen(ESCAPED) > out(ESCAPED):
                found.append(f"{link}: {seen(ESCAPED)} frames of others observed, the guard "
                             f"counted {out(ESCAPED)}")  # fmt: skip
        return found


def is_on_link(address):
    """Multicast, broadcast, link-local, or in a link's own network."""
    ip = ipaddress.ip_address(address)
    if ip.is_multicast or ip.is_link_local or address == b"\xff" * 4:
        return True
    return any(
        ip in ipaddress.ip_network(f"{link['router'][n]}/{link['prefix'][n]}", strict=False)
        for link in LINKS.values()
        for n in range(2)
        if (ip.version == 6) == bool(n)
    )


def is_control(frame):
    """What a link needs: ARP, EAPOL, neighbour discovery, MLD, IGMP, DHCP."""
    if frame.fragment or frame.trailing:
        return False
    if frame.ethertype in (0x0806, 0x888E):
        return True
    flow = frame.flow
    if not flow or not is_on_link(flow.destination):
        return False
    if flow.protocol == 2:
        return frame.hops == 1 and flow.destination[0] >> 4 == 14
    if flow.protocol == 58 and frame.transport:
        if 133 <= frame.transport[0] <= 137:
            return frame.hops == 255
        multicast = frame.hops == 1 and flow.destination[0] == 0xFF
        return multicast and frame.transport[0] in (130, 131, 132, 143)
    return flow.protocol == 17 and is_dhcp(flow.ports, frame.transport[8:])


def is_dhcp(ports, message):
    """What a client asks, by the ports and by what a client says."""
    if ports == b"\0\x44\0\x43":
        return message[:1] == b"\1" and message[236:240] == b"\x63\x82\x53\x63"
    return ports == b"\x02\x22\x02\x23" and message[:1] in (
        bytes([kind]) for kind in (1, 3, 4, 5, 6, 8, 9, 11))


def is_reset(frame):
    reset = frame.flow.protocol == 6 and len(frame.transport) >= 20 and frame.transport[13] & 4
    return bool(reset) and not frame.payload and not frame.fragment


def quoted(frame):
    """The flow that an ICMP error is about, or None."""
    if frame.fragment or len(frame.transport) < 8:
        return None
    v4 = frame.flow.protocol == 1 and frame.transport[0] in (3, 11, 12)
    v6 = frame.flow.protocol == 58 and 1 <= frame.transport[0] <= 4
    if not (v4 or v6):
        return None
    inner = frame.transport[8:]
    return decode(Frame(octets=inner, length=len(inner)), ethernet=False).flow


class Accounts:
    """Of one lab. What happens to the daemon is told by the harness, at the time."""

    def __init__(self, network):
        self.network = network
        self.witnesses = Witnesses()
        self.capture = Capture(f"/run/netns/{network.name('cloud')}", PEERS)
        self.times, self.policies = [0.0], [Policy()]
        self.epoch, self.epochs = None, []
        self.came_in, self.siblings = set(), collections.OrderedDict()
        self.recent = collections.deque(maxlen=RECENT_MAX)  # from the device
        self.payload = collections.Counter()  # flow -> octets captured
        self.unaccounted, self.tests = [], [(0.0, "no test")]
        self.counted = collections.Counter()  # class -> frames, of all the lab

    # --- what happens ---

    def now(self, policy):
        self.policies.append(policy)
        self.times.append(time.time())

    def during(self, test):
        self.tests.append((time.time(), test))

    def starting(self, text):
        """The daemon is about to start: what a guard of before let out, or the next one will."""
        old, new = self.policies[-1], policy_of(text)
        if old.mode != "enforce" or new.mode != "enforce":
            return self.now(Policy())
        self.now(Policy("enforce", old.allow + new.allow, old.exempt + new.exempt))

    def ready(self, text, counters):
        """It steers and guards. counters: the path of the pinned map."""
        if not self.epoch:
            self.epoch = Epoch(self.witnesses.bpf)
            self.epochs.append(self.epoch)
        self.epoch.open(counters, self.devices())
        policy = policy_of(text)
        policy.epoch = self.epoch
        self.now(policy)

    def stopping(self):
        """An ordinary stop is about to begin."""
        if self.policies[-1].when_stopped != "block":
            self.released()

    def released(self):
        """From now on there may be no guard."""
        self.now(Policy())
        self.epoch = None

    @contextlib.contextmanager
    def gap(self):
        """A guard is taken away and comes back: what leaves meanwhile is judged by its content
        all the same, and not counted."""
        policy = self.policies[-1]
        self.now(dataclasses.replace(policy, epoch=None))
        yield
        self.epoch.indexes |= self.devices()
        self.now(policy)

    def devices(self):
        return interfaces(f"/run/netns/{self.network.name('device')}")

    # --- judging ---

    def policy(self, frame):
        return self.policies[bisect.bisect_right(self.times, frame.time) - 1]

    def collect(self, frames):
        """Judge them. unaccounted grows by those that nothing explains."""
        mine = self.sort(frames)
        own, clients = self.witnesses.daemon.sent(), self.witnesses.clients.sent()
        flows = collections.Counter()
        for (flow, _), (_, payload) in own.items():
            flows[flow] += payload
        users = {(flow, uid) for flow, uid in clients}
        for frame in mine:
            policy = self.policy(frame)
            if policy.mode == "off":
                continue
            what = self.judge(frame, policy, flows, users)
            self.counted[what] += 1
            if what == ESCAPED and policy.mode == "enforce":
                self.unaccounted.append(frame)
            elif policy.epoch:
                policy.epoch.seen[frame.link, what] += 1
                policy.epoch.payload[frame.link] += frame.payload

    def sort(self, frames):
        """Those that came from the device; the others and first fragments are remembered."""
        mine = []
        for frame in frames:
            if frame.outgoing:
                if frame.flow:
                    self.came_in.add(frame.flow)
                continue
            mine.append(frame)
            if frame.fragment and frame.first:
                self.siblings[frame.fragment] = frame.flow
                if len(self.siblings) > SIBLINGS_MAX:
                    self.siblings.popitem(last=False)
        self.recent.extend(mine)
        return mine

    def judge(self, frame, policy, flows, users):
        if is_control(frame):
            return CONTROL
        flow = frame.flow
        if not flow or frame.trailing:
            return ESCAPED
        flow = flow if frame.first else self.siblings.get(frame.fragment, flow)
        allowed = policy.allows(flow, frame.first)
        if any((flow, uid) in users for uid in policy.exempt):
            allowed = True
        if flow in flows and not frame.vlan and not frame.extended:
            if self.payload[flow] + frame.payload <= flows[flow]:
                self.payload[flow] += frame.payload
                return EITHER if allowed else OWN
        if is_reset(frame) and flow.back() in self.came_in:
            return OWN
        if quoted(frame) in self.came_in:
            return ERROR
        return ALLOWED if allowed else ESCAPED

    def check(self):
        """Everything until now is accounted for, or an AssertionError says what is not."""
        self.collect(self.capture.take())
        self.complain()

    def complain(self):
        frames, self.unaccounted = self.unaccounted, []
        wrong = [f"{self.when(frame)} {frame}" for frame in frames[:SHOWN_MAX]]
        if len(frames) > SHOWN_MAX:
            wrong.append(f"and {len(frames) - SHOWN_MAX} more")
        for epoch in self.epochs:
            excess = epoch.excess()
            wrong += excess
            if excess:
                epoch.seen.clear()  # said once
                epoch.payload.clear()
        assert not wrong, "left the device and nobody accounts for it:\n" + "\n".join(wrong)

    def when(self, frame):
        at = bisect.bisect_right([began for began, _ in self.tests], frame.time) - 1
        return f"in {self.tests[at][1]}:"

    def arrived(self, since):
        """What came over links since then, for tests that look for something."""
        self.collect(self.capture.take())
        return [frame for frame in self.recent if frame.time >= since]

    def flow_to(self, address):
        """A TCP connection that the daemon has, or had, to an IPv4 address."""
        wanted = ipaddress.ip_address(address).packed
        return next(flow for flow, _ in self.witnesses.daemon.sent()
                    if flow.protocol == 6 and flow.destination == wanted)  # fmt: skip

    def escapes(self):
        """Takes what could not be accounted for until now: for tests that mean it to happen."""
        self.collect(self.capture.take())
        frames, self.unaccounted = self.unaccounted, []
        return frames

    def close(self):
        try:
            self.collect(self.capture.close())
            self.complain()
        finally:
            self.witnesses.close()
            for epoch in self.epochs:
                epoch.close()
