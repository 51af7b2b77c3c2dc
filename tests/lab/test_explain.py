"""What POST /v1/explain says is what happens.

    app --frame--> [app0: steer] --> [lookup] --> holdfastd        one frame, two ways:
    device --frame--> [lo: steer] --> [lookup] --> holdfastd       explained, then really sent

A thousand generated frames are explained and then sent, octet for octet, from a packet socket;
the counter that moved and the answer that came must be the ones that were told. EXPLAIN_FRAMES
says how many frames, EXPLAIN_SEED repeats a run.

The frames come from an address that nobody has, so that no kernel's reaction to an answer is
counted. On lo the program's own answers come by again, and errors of the device about itself.
"""

import ipaddress
import json
import os
import pathlib
import random
import struct
import subprocess
import time

import pytest
from harness import ROOT, wait_until
from kernelside import DO, OPT, PYTHON, question, running, running_lab  # noqa: F401
from network import ORIGIN

LONG = os.environ.get("HOLDFAST_LONG") == "1"
FRAMES = int(os.environ.get("EXPLAIN_FRAMES") or (20000 if LONG else 1000))
SEED = int(os.environ.get("EXPLAIN_SEED") or time.time_ns() % 1_000_000)
BUILD = pathlib.Path(os.environ.get("HOLDFASTD") or ROOT / "build/holdfastd").resolve().parent
CHANGES = {"programs": {"allow_unsigned": True}}

STRANGERS = ["192.0.2.77", "2001:db8:a::77"]

SENDER = """
import json, select, socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 0))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.setsockopt(263, 8, 1)  # PACKET_AUXDATA: the outer tag, which the kernel takes off
def receive():
    data, aux, _, _ = s.recvmsg(65535, 64)
    for _, _, value in aux:
        status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value)
        if status & 0x10:
            data = data[:12] + struct.pack("!2H", tpid or 0x8100, tci) + data[12:]
    return data
def drain():
    s.setblocking(False)
    try:
        while True:
            s.recv(65535)
    except BlockingIOError:
        pass
for line in sys.stdin:
    frame, answer = (bytes.fromhex(x) for x in json.loads(line))
    drain()
    s.send(frame)
    came, until = [], time.monotonic() + (1 if answer else 0)
    while answer and answer not in came and time.monotonic() < until:
        if select.select([s], [], [], 0.02)[0]:
            came.append(receive())
    print(json.dumps([x.hex() for x in came]), flush=True)
"""


class Sender:
    """Frames into an interface, from a packet socket in the namespace."""

    def __init__(self, lab, where, device):
        self.process = subprocess.Popen(
            [*lab.network.enter(where), PYTHON, "-c", SENDER, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        lab.processes.append(self.process)

    def send(self, frame, answer):
        """What came back, until the answer did."""
        self.process.stdin.write(json.dumps([frame.hex(), answer.hex()]) + "\n")
        self.process.stdin.flush()
        return [bytes.fromhex(x) for x in json.loads(self.process.stdout.readline())]


# --- frames ---


def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def summed(l4, at, protocol, source, destination):
    pseudo = source.packed + destination.packed + struct.pack("!2H", protocol, len(l4))
    value = checksum((b"" if protocol == 1 else pseudo) + l4)
    return l4[:at] + struct.pack("!H", value) + l4[at + 2 :]


class Frames:
    """Random frames that begin with these hardware addresses."""

    def __init__(self, rng, macs, sources):
        self.rng, self.macs, self.sources = rng, macs, sources
        self.asked = 0

    def name(self):
        if self.rng.random() < 0.6:
            return self.rng.choice(["origin.example", "holdfast.internal", "ORIGIN.example"])
        self.asked += 1  # each once: the resolver learns what is asked
        return f"n{self.asked}.{self.rng.randrange(1 << 30)}.example"

    def dns(self):
        r = self.rng
        kind = r.choice([1] * 6 + [28] * 4 + [65, 16, 255])
        extra, additional = r.choice([(b"", 0)] * 4 + [(OPT, 1)] * 3 + [(DO, 1), (OPT + OPT, 2)])
        message = question(self.name(), kind, r.randrange(65536), 0x0100, extra, additional,
                           r.choice([1] * 9 + [3]))  # fmt: skip
        if r.random() < 0.1:
            message = message[: r.randrange(len(message))]
        return message

    def destination(self, v6):
        four = ["203.0.113.9", "198.18.0.1", "198.19.7.7", "192.0.2.1", "198.51.100.2", "127.0.0.1",
                "127.0.0.53", "169.254.3.4", "224.0.0.251", "255.255.255.255", "192.0.2.200",
                "0.0.0.0", "240.0.0.1", "8.8.8.8", "198.17.255.255"]  # fmt: skip
        six = ["2001:db8:cafe::9", "fd5a:fe00::1", "fd5a:fe00::7:7", "2001:db8:a::1", "::1",
               "fe80::7", "ff02::fb", "ff02::1", "2001:db8:2::2", "2001:4860::8888", "::"]  # fmt: skip
        return ipaddress.ip_address(self.rng.choice(six if v6 else four))

    def l4(self, source, destination):
        r, v6 = self.rng, source.version == 6
        what = r.choice(["tcp", "tcp", "udp", "udp", "dns", "dns", "icmp", "echo", "other"])
        ports = struct.pack("!2H", r.randrange(1024, 65536),
                            r.choice([53, 80, 443, 123, 8883, 67, 7080, r.randrange(1, 65536)]))  # fmt: skip
        if what == "tcp":
            head = ports + struct.pack("!2I", r.randrange(1 << 32), 0)
            head += bytes([0x50, r.choice([2, 2, 2, 0x10, 0x12, 4, 0x18, 1])]) + b"\xff\xff\0\0\0\0"
            return 6, summed(head + r.randbytes(r.choice([0, 0, 5])), 16, 6, source, destination)
        if what in ("udp", "dns"):
            body = self.dns() if what == "dns" else r.randbytes(r.randrange(0, 60))
            ports = ports[:2] + struct.pack("!H", 53) if what == "dns" else ports
            data = ports + struct.pack("!2H", 8 + len(body), 0) + body
            return 17, summed(data, 6, 17, source, destination)
        protocol = 58 if v6 else 1
        if what == "echo":
            data = bytes([128 if v6 else 8, 0, 0, 0]) + r.randbytes(4 + r.randrange(0, 80))
            return protocol, summed(data, 2, protocol, source, destination)
        if what == "icmp":
            kinds = [1, 2, 3, 4, 129, 133, 135, 136, 143, 200] if v6 else [0, 3, 11, 12, 13, 200]
            data = bytes([r.choice(kinds), 0, 0, 0]) + r.randbytes(r.randrange(4, 60))
            return protocol, summed(data, 2, protocol, source, destination)
        return r.choice([132, 47, 50, 2, 99, 58 if not v6 else 1]), r.randbytes(r.randrange(0, 60))

    def v4(self, source, destination):
        r = self.rng
        protocol, l4 = self.l4(source, destination)
        options = r.choice([b""] * 8 + [b"\x94\x04\0\0", b"\1" * 8])
        fragment = r.choice([0] * 10 + [0x4000] * 8 + [0x2000, 0x2003, 0x0005])
        head = struct.pack("!2B3H2BH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(l4),
                           r.randrange(65536), fragment, 64, protocol, 0)  # fmt: skip
        head += source.packed + destination.packed + options
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + l4

    def v6(self, source, destination):
        r = self.rng
        protocol, l4 = self.l4(source, destination)
        for _ in range(r.choice([0] * 8 + [1, 1, 2, 3])):
            kind = r.choice([0, 60, 43, 44])
            more = r.choice([0, 1, 0x18]) if kind == 44 else 0x0104
            l4 = bytes([protocol, 0]) + struct.pack("!H", more) + b"\0\0\0\0" + l4
            protocol = kind
        hops = r.choice([64, 64, 255, 1])
        head = struct.pack("!IHBB", 6 << 28, len(l4), protocol, hops)
        return head + source.packed + destination.packed + l4

    def frame(self):
        r = self.rng
        chance = r.random()
        if chance < 0.04:
            body, kind = self.arp(), 0x0806
        elif chance < 0.07:
            body, kind = r.randbytes(r.randrange(0, 60)), r.choice([0x888E, 0x88CC, 0x8847, 5])
        else:
            source = ipaddress.ip_address(r.choice(self.sources))
            destination = self.destination(source.version == 6)
            if source.version == 4:
                body, kind = self.v4(source, destination), 0x0800
            else:
                body, kind = self.v6(source, destination), 0x86DD
        tags = b"".join(struct.pack("!2H", r.choice([0x8100, 0x88A8]), r.randrange(4096))
                        for _ in range(r.choice([0] * 12 + [1, 2, 3])))  # fmt: skip
        receiver = self.macs[0] if r.random() < 0.95 else b"\xff" * 6
        frame = receiver + self.macs[1] + tags + struct.pack("!H", kind) + body
        return self.spoil(frame)

    def spoil(self, frame):
        """Now and then cut off, or with an octet changed."""
        r, chance = self.rng, self.rng.random()
        if chance < 0.06:
            return frame[: r.randrange(14, len(frame) + 1)]
        if chance < 0.12:
            at = r.randrange(12, len(frame))
            changed = frame[:at] + bytes([frame[at] ^ (1 << r.randrange(8))]) + frame[at + 1 :]
            # To a sender far away the device's kernel would send its errors over a link.
            sources = [ipaddress.ip_address(x).packed for x in self.sources]
            kept = all(x in changed for x in sources if x in frame)
            return changed if kept else frame
        if chance < 0.16:
            return frame + r.randbytes(r.randrange(1, 40))
        return frame

    def arp(self):
        four = [x for x in self.sources if ":" not in x]
        addresses = [ipaddress.ip_address(x).packed for x in (four[0], "192.0.2.1")]
        return struct.pack("!HHBBH", 1, 0x0800, 6, 4, self.rng.choice([1, 2])) + (
            self.macs[1] + addresses[0] + b"\0" * 6 + addresses[1])  # fmt: skip


# --- explained, and sent ---


def explain(lab, **ask):
    status, said = lab.api("POST", "/v1/explain", ask)
    assert status == 200, said
    return said


def steer_counters(lab, device):
    return {(item["verdict"], item["reason"]): item["packets"] for item in lab.counters()
            if item["hook"] == "steer" and item["interface"] == device}  # fmt: skip


def moved(lab, device, before):
    now = steer_counters(lab, device)
    return {key: n - before.get(key, 0) for key, n in now.items() if n != before.get(key, 0)}


def told(said):
    (step,) = [step for step in said["hooks"] if step["hook"] == "steer"]
    return step["verdict"], step["reason"]


def other(changes, expected, noise):
    """What moved beside the expected counter and what the kernels say by themselves."""
    return {key: n for key, n in changes.items() if key not in noise and key != expected}


def has_no_room(changes, expected, noise):
    """An answer grows the packet behind its end, where a driver leaves room and a local sender's
    buffer may not: then the question goes to the resolver, which answers the same."""
    if expected != ("answer", "dns-kernel") or expected in changes:
        return False
    return other(changes, ("steer", "dns-resolver"), noise) == {} and changes != {}


def check(lab, sender, device, frame, noise):
    """One frame both ways; None, or what differs. Asked again where time went by between the
    two: a TTL counts down, a refusal was one too many for a tenth of a second."""
    for _ in range(3):
        said = explain(lab, interface=device, frame=frame.hex())
        expected = told(said)
        answer = bytes.fromhex(said["answer"]["hex"]) if said["answer"] else b""
        before = steer_counters(lab, device)
        came = sender.send(frame, answer)
        until = time.monotonic() + 1
        changes = moved(lab, device, before)
        while expected not in changes and not other(changes, expected, noise):
            if time.monotonic() > until:
                break
            changes = moved(lab, device, before)
        exact = changes.get(expected) == 1 or (expected in noise and changes.get(expected, 0) > 1)
        if exact and not other(changes, expected, noise) and (not answer or answer in came):
            return None
        if has_no_room(changes, expected, noise):
            return None
        time.sleep(0.1)
    return {"frame": frame.hex(), "said": said, "moved": {" ".join(k): n for k, n in changes.items()},
            "came": [x.hex() for x in came]}  # fmt: skip


def mac(lab, where, device):
    (link,) = json.loads(lab.network.run(where, "ip", "-j", "link", "show", device))
    return bytes.fromhex(link["address"].replace(":", ""))


def both_ways(lab, where, device, count, seed):
    """Explain and send that many frames; what differs, and which reasons were met."""
    stranger = b"\x02\0\0\0\0\x77"
    if device == "lo":
        frames = Frames(random.Random(seed), (b"\0" * 6, b"\0" * 6), STRANGERS)
        sender = Sender(lab, where, "lo")
        # answers, to the strangers, and the device's own errors that these cannot be reached
        noise = {("pass", "app-network"), ("pass", "icmp-error"), ("pass", "neighbour")}
    else:
        frames = Frames(random.Random(seed), (mac(lab, "device", device), stranger),
                        STRANGERS)  # fmt: skip
        sender = Sender(lab, where, "eth0")
        noise = {("pass", "neighbour")}
    differing, reasons = [], set()
    for _ in range(count):
        frame = frames.frame()
        found = check(lab, sender, device, frame, noise)
        reasons.add(told(explain(lab, interface=device, frame=frame.hex())))
        if found:
            differing.append(found)
    lab.end(sender.process)
    return differing, reasons


def assert_none(differing, seed):
    text = json.dumps(differing[:3], indent=1)
    assert not differing, f"EXPLAIN_SEED={seed}: {len(differing)} frames, among them\n{text}"


def know_names(lab):
    for kind in ("A", "AAAA"):
        assert lab.dig("app", "origin.example", kind)


@pytest.mark.parametrize("device", ["app0", "lo"])
def test_what_is_said_of_a_frame_is_what_happens_to_it_online(running_lab, device):
    print(f"EXPLAIN_SEED={SEED}")
    know_names(running_lab)
    where = "device" if device == "lo" else "app"
    differing, reasons = both_ways(running_lab, where, device, FRAMES * 3 // 10, SEED)
    assert_none(differing, SEED)
    assert len(reasons) > 8 or FRAMES < 1000, reasons


@pytest.mark.parametrize("device", ["app0", "lo"])
def test_what_is_said_of_a_frame_is_what_happens_to_it_offline(running_lab, device):
    know_names(running_lab)
    running_lab.cut("wifi", "lte")
    where = "device" if device == "lo" else "app"
    differing, reasons = both_ways(running_lab, where, device, FRAMES // 5, SEED + 1)
    assert_none(differing, SEED)
    assert len(reasons) > 8 or FRAMES < 1000, reasons


# --- the rest of what it says ---


def seen(lab):
    """What asking must not change."""
    neighbours = lab.network.run("device", "ip", "-j", "neigh", "show")
    return (
        {k: n for d in ("app0", "lo") for k, n in steer_counters(lab, d).items()
         if k[1] != "neighbour"},
        sorted(json.dumps(item | {"ttl": 0}, sort_keys=True)
               for item in lab.get("/v1/names")["items"]),
        sorted(entry["dst"] for entry in json.loads(neighbours)),
        lab.count(hook="lookup"),
    )  # fmt: skip


def test_asking_counts_learns_and_limits_nothing(running_lab):
    lab = running_lab
    know_names(lab)
    ask = {"source": "192.0.2.77", "destination": ORIGIN[0], "protocol": "udp", "port": 443}
    explain(lab, **ask)
    before = seen(lab)
    for n in range(400):  # a second refuses far fewer
        assert explain(lab, **ask)["reason"] == "quic-refused", n
    for n in range(20):
        explain(lab, source="192.0.2.77", name=f"new{n}.example")
        explain(lab, source="192.0.2.77", destination="203.0.113.9", protocol="icmp")
        explain(lab, source="192.0.2.77", destination="203.0.113.9", protocol="tcp", port=80)
    assert seen(lab) == before


def test_rule_link_and_socket_are_named(running_lab):
    lab = running_lab
    said = explain(lab, interface="app0", source="192.0.2.2", destination=ORIGIN[0],
                   protocol="tcp", port=80)  # fmt: skip
    assert (said["verdict"], said["reason"]) == ("steer", "tcp-proxy")
    assert (said["rule"], said["link"], said["socket"]) == ("defaults", "wifi", "proxy-tcp4")
    assert any("assumed from port 80" in line for line in said["path"])
    lab.cut("wifi", "lte")
    said = explain(lab, source="192.0.2.2", destination=ORIGIN[0], protocol="tcp", port=80)
    assert said["link"] is None and any("held for 2s" in line for line in said["path"])


def test_an_answer_of_the_kernel_is_told_in_words(running_lab):
    said = explain(running_lab, name="holdfast.internal")
    assert said["reason"] == "dns-kernel" and said["interface"] == "lo"
    assert said["answer"]["text"] == "DNS answer holdfast.internal A 198.18.0.1 ttl 1"
    said = explain(running_lab, source="2001:db8:a::2", destination=ORIGIN[1], protocol="udp",
                   port=443)  # fmt: skip
    assert said["answer"]["text"] == f"ICMPv6 port unreachable from {ORIGIN[1]} to 2001:db8:a::2"


def test_on_a_link_the_guard_is_asked(running_lab):
    ask = {"interface": "wifi0", "source": "198.51.100.2", "destination": ORIGIN[0]}
    said = explain(running_lab, **ask, protocol="udp", port=123)
    assert (said["verdict"], said["reason"], said["action"]) == ("drop", "not-ours", "drop")
    before = running_lab.count(hook="guard", reason="not-ours", interface="wifi0")
    code = (
        "import socket; s = socket.socket(2, 2); s.bind(('198.51.100.2', 0)); "
        f"s.sendto(b'x', ('{ORIGIN[0]}', 123))"
    )
    running_lab.host(PYTHON, "-c", code)
    wait_until("the guard drops it", lambda: running_lab.count(
        hook="guard", reason="not-ours", interface="wifi0") == before + 1)  # fmt: skip


BAD = [
    ({}, "source"),
    ({"source": "192.0.2.2"}, "destination"),
    ({"source": "192.0.2.300"}, "source"),
    ({"source": "192.0.2.2", "destination": "::1", "protocol": "udp", "port": 9}, "destination"),
    ({"source": "192.0.2.2", "destination": "8.8.8.8"}, "protocol"),
    ({"source": "192.0.2.2", "destination": "8.8.8.8", "protocol": "sctp"}, "protocol"),
    ({"source": "192.0.2.2", "destination": "8.8.8.8", "protocol": "tcp"}, "port"),
    ({"source": "192.0.2.2", "destination": "8.8.8.8", "protocol": "tcp", "port": 65536}, "port"),
    ({"source": "203.0.113.77", "destination": "8.8.8.8", "protocol": "icmp"}, "source"),
    ({"interface": "nowhere0", "source": "192.0.2.2", "name": "a.example"}, "interface"),
    ({"name": "a..example"}, "name"),
    ({"name": "a.example", "type": "NAPTR"}, "type"),
    ({"name": "a.example", "port": 54}, "port"),
    ({"name": "a.example", "protocol": "tcp"}, "protocol"),
    ({"type": "A", "source": "192.0.2.2"}, "name"),
    ({"interface": "lo", "frame": "00 11 2"}, "frame"),
    ({"interface": "lo", "frame": "zz"}, "frame"),
    ({"interface": "lo", "frame": "00" * 2049}, "frame"),
    ({"interface": "lo", "frame": "00" * 14, "port": 9}, "frame"),
    ({"frame": "00" * 14}, "interface"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize("ask, field", BAD, ids=[json.dumps(ask)[:60] for ask, _ in BAD])
def test_a_bad_question_is_told_which_field_is_wrong(running_lab, ask, field):
    if not ask:
        ask, field = {"source": "192.0.2.2", "protocol": "tcp"}, "destination"
    status, said = running_lab.api("POST", "/v1/explain", ask)
    assert (status, said.get("field")) == (400, field), said


def test_what_tcpdump_writes_is_a_frame(running_lab):
    text = "\t0x0000:  ffff ffff ffff 0200 0000 0077 0806 0001\n\t0x0010:  0800 0604 0001"
    said = explain(running_lab, interface="app0", frame=text)
    assert (said["verdict"], said["reason"]) == ("pass", "neighbour")


def test_apps_may_not_ask(running_lab):
    answer = running_lab.curl("app", "http://holdfast.internal/v1/explain", "--json", "{}")
    assert answer.status in (403, 404)


def test_an_uploaded_program_is_asked_from_the_moment_that_it_is_in_service(running_lab):
    lab = running_lab
    ask = {"source": "192.0.2.2", "destination": ORIGIN[0], "protocol": "udp", "port": 443}
    assert explain(lab, **ask)["program"] == "builtin"
    elf = (BUILD / "bpf/examples/observe.bpf.o").read_bytes()
    status, program = lab.api("POST", "/v1/programs", elf,
                              {"Content-Type": "application/octet-stream"})  # fmt: skip
    assert status in (200, 201), program
    status, said = lab.api("POST", f"/v1/programs/{program['id']}/activate", {"confirm_within": "30s"})
    assert status == 200, said
    said = explain(lab, **ask)
    assert (said["program"], said["action"], said["answer"]) == ("observe", "pass", None)
    assert (said["hooks"][0]["verdict"], said["hooks"][0]["reason"]) == ("pass", "custom")
    assert lab.api("POST", "/v1/programs/rollback")[0] == 200
    said = explain(lab, **ask)
    assert (said["program"], said["reason"]) == ("builtin", "quic-refused")
