"""What the kernel-side tests share: one daemon for all tests of a file, Python run in a
namespace as an app would, and DNS questions by hand."""

import json
import struct
import subprocess

import pytest

from harness import wait_until
from network import ORIGIN

PYTHON = "/usr/bin/python3"
PRELUDE = """
import errno, fcntl, json, os, select, signal, socket, struct, sys, time
def tell(value): print(json.dumps(value), flush=True)
"""


def settle(lab):
    """Back to what the next test expects: both links, wifi first, all online."""
    for name in ("wifi", "lte"):
        lab.network.restore(name)
    if lab.daemon:
        lab.wait_links(online=("wifi", "lte"))


@pytest.fixture(scope="module")
def running(lab, request):
    """One daemon for the whole file, with the file's CHANGES; it must end in good order."""
    lab.start_daemon(getattr(request.module, "CHANGES", {}), fresh=True)
    yield lab
    alive = lab.daemon is None or lab.daemon.poll() is None
    rc = lab.stop_daemon()
    settle(lab)
    lab.release()
    assert alive, f"the daemon died\n{lab.log()}"
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.fixture
def running_lab(running):
    """The same, with the links put right after each test."""
    yield running
    settle(running)


def python(lab, where, code, *arguments, timeout=20, who=()):
    """What the code tells, run in the namespace; who: setpriv and what it is to take away."""
    done = lab.start(where, *who, PYTHON, "-c", PRELUDE + code, *arguments).wait(timeout)
    assert done.rc == 0, f"{done.err}\n{done.out}"
    lines = [json.loads(line) for line in done.out.splitlines()]
    return lines[0] if len(lines) == 1 else lines


def python_start(lab, where, code, *arguments):
    """The same in the background; its first line must be ["ready"]."""
    client = lab.start(where, PYTHON, "-c", PRELUDE + code, *arguments)
    wait_until(f"{client.command[-1]} is ready", lambda: ready(client), timeout=10)
    return client


def ready(client):
    assert client.running(), client.err.read_text()
    return client.out.read_text().startswith('["ready"]')


def told(client):
    """What a background client has told after it was ready."""
    whole = client.out.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()][1:]


class Moved:
    """How far a counter has moved since; call it."""

    def __init__(self, lab, **wanted):
        self.lab, self.wanted = lab, wanted
        self.before = lab.count(**wanted)

    def __call__(self):
        return self.lab.count(**self.wanted) - self.before


def privileged(lab, where, *command, check=True):
    """A command in the namespace with bpffs visible."""
    return lab.network.run(where, *command, check=check)


def wire(name):
    labels = [label.encode() for label in name.strip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(name, kind=1, ident=0x4846, flags=0x0100, extra=b"", additional=0, klass=1):
    """A DNS message with one question; extra goes after it."""
    head = struct.pack("!6H", ident, flags, 1, 0, 0, additional)
    return head + wire(name) + struct.pack("!2H", kind, klass) + extra


OPT = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)
DO = struct.pack("!BHHIH", 0, 41, 1232, 0x8000, 0)

ASK = """
def ask(server, message, timeout=3.0, port=53):
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(timeout)
        s.sendto(message, (server, port))
        try:
            answer, source = s.recvfrom(4096)
        except TimeoutError:
            return None
        return {"answer": answer.hex(), "from": [source[0], source[1]]}
tell(ask(sys.argv[1], bytes.fromhex(sys.argv[2]), float(sys.argv[3])))
"""


def ask(lab, where, server, message, timeout=3.0):
    """One UDP question; (answer, [address, port]) or None."""
    got = python(lab, where, ASK, server, message.hex(), timeout)
    return (bytes.fromhex(got["answer"]), got["from"]) if got else None


def rcode(answer):
    return answer[3] & 15


def answers(answer):
    return struct.unpack("!H", answer[6:8])[0]


def status(lab):
    return lab.get("/v1/status")


def ended(process, timeout=10):
    """The process's exit status, within bounds."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError("it did not end")


# (address, port): how a connection attempt ends, and in what time.
CONNECT = """
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_STREAM)
s.settimeout(3)
start = time.monotonic()
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    how = "connected"
except OSError as error:
    how = errno.errorcode.get(error.errno, "timeout")
tell([how, time.monotonic() - start])
"""

# (address, port, octets): what a datagram hears.
SEND = """
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], int(sys.argv[2])))
start = time.monotonic()
s.send(b"x" * int(sys.argv[3]))
try:
    s.recv(100)
    how = "data"
except OSError as error:
    how = errno.errorcode.get(error.errno, "timeout")
tell([how, time.monotonic() - start])
"""

# What programs begin: UDP, TCP SYN, echo requests. Not what a kernel says of itself.
EAR = """
def begins(kind, payload):
    if kind == 17:
        return payload[:4] != struct.pack("!2H", 5353, 5353)
    if kind == 6:
        return payload[13] & 0x12 == 2
    return kind in (1, 58) and payload[0] in (8, 128)
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tell(["ready"])
while True:
    packet, (device, protocol, direction, _, _) = s.recvfrom(65535)
    if direction == 4 or device == "lo" and b"over" not in packet:
        continue
    if protocol == 0x0800 and begins(packet[9], packet[(packet[0] & 15) * 4:]):
        tell([device, packet.hex()])
    elif protocol == 0x86dd and begins(packet[6], packet[40:]):
        tell([device, packet.hex()])
"""
SAY_OVER = "import socket; socket.socket(2, 2).sendto(b'over', ('203.0.113.9', 9))"


def heard(lab, ear):
    """What an EAR in the cloud has heard from the links until now."""

    def marks():
        return sum(packet[0] == "lo" for packet in told(ear))

    before = marks()
    lab.network.run("cloud", PYTHON, "-c", SAY_OVER)
    wait_until("the ear hears", lambda: marks() > before)
    return [packet for packet in told(ear) if packet[0] != "lo"]


def works(lab):
    for where in ("app", "device"):
        for address in (ORIGIN[0], f"[{ORIGIN[1]}]"):
            answer = lab.curl(where, f"http://{address}/works", "--max-time", "5")
            assert answer.status == 200 and "1.1 holdfast" in answer.headers["via"], answer


def guard(lab, device):
    out = privileged(lab, "device", "tc", "filter", "show", "dev", device, "egress", check=False)
    return "hf_guard" in out


def programs(lab, device):
    (link,) = json.loads(privileged(lab, "device", "ip", "-j", "link", "show", device))
    return link.get("xdp", {}).get("prog", {}).get("id")
