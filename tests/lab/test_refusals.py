"""What is not carried is refused at once, so that no app waits for a timeout.

    app --app0--> XDP steer --ICMP unreachable, RST--> app
    host --lo-->      |
                      +--echo to a virtual address: answered
"""

import json
import time

import pytest

from harness import wait_until
from kernelside import PRELUDE, PYTHON, Moved, python, running, running_lab  # noqa: F401
from network import ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
INTERFACE = {"app": "app0", "device": "lo"}

SEND = """
address, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((address, port))
start = time.monotonic()
s.send(b"hello")
try:
    s.recv(100)
    how = "data"
except OSError as error:
    how = errno.errorcode.get(error.errno, "timeout")
tell([how, time.monotonic() - start])
"""


@PLACES
@FAMILIES
def test_quic_is_refused_at_once(running_lab, where, family):
    lab = running_lab
    refused = Moved(lab, interface=INTERFACE[where], verdict="refuse", reason="quic-refused")
    how, seconds = python(lab, where, SEND, ORIGIN[family], 443)
    assert how == "ECONNREFUSED" and seconds < 0.5
    assert refused() == 1


@PLACES
def test_without_a_link_udp_and_pings_are_refused_at_once(running_lab, where):
    lab = running_lab
    lab.cut("wifi", "lte")
    for family in (0, 1):
        refused = Moved(lab, interface=INTERFACE[where], verdict="refuse", reason="no-link")
        how, seconds = python(lab, where, SEND, ORIGIN[family], 4500)
        assert how == "ECONNREFUSED" and seconds < 0.5
        done = lab.start(where, "ping", "-c1", "-W5", ORIGIN[family]).wait()
        assert done.rc == 1 and "nreachable" in done.out, done
        assert done.seconds < 2
        assert refused() == 2


FLOOD = """
address, n, source = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((source, 0))
for _ in range(n):
    s.sendto(b"x", (address, 443))
tell("sent")
"""


@PLACES
def test_a_flood_is_refused_at_a_bounded_rate_and_all_of_it_is_counted(running_lab, where):
    lab = running_lab
    here = {"interface": INTERFACE[where], "hook": "steer"}
    refused = Moved(lab, **here, verdict="refuse", reason="quic-refused")
    dropped = Moved(lab, **here, verdict="drop", reason="rate-limited")
    python(lab, where, FLOOD, ORIGIN[0], "5000", "")
    assert refused() + dropped() == 5000
    assert refused() > 0 and dropped() > 0
    # and the refusals come back
    wait_until("refusals are sent again", lambda: "ECONNREFUSED" in python(
        lab, where, SEND, ORIGIN[0], "443"))  # fmt: skip


def test_one_apps_flood_does_not_silence_refusals_for_another(running_lab):
    lab = running_lab
    lab.network.run("app", "ip", "address", "add", "192.0.2.131/24", "dev", "eth0")
    try:
        limited = Moved(lab, interface="app0", verdict="drop", reason="rate-limited")
        flood = lab.start("app", PYTHON, "-c", PRELUDE + FLOOD, ORIGIN[0], "1000000", "192.0.2.131")
        wait_until("the flood is not answered any more", lambda: limited() > 0)
        for _ in range(3):
            how, seconds = python(lab, "app", SEND, ORIGIN[0], 443)
            assert how == "ECONNREFUSED" and seconds < 0.5
        assert flood.running()
        flood.kill()
    finally:
        lab.network.run("app", "ip", "address", "del", "192.0.2.131/24", "dev", "eth0")


@PLACES
@pytest.mark.parametrize("address", ["198.18.0.1", "fd5a:fe00::1"])
def test_a_virtual_address_answers_a_ping(running_lab, where, address):
    lab = running_lab
    answered = Moved(lab, interface=INTERFACE[where], verdict="answer", reason="echo-virtual")
    done = lab.start(where, "ping", "-c2", "-i0.2", "-W2", address).wait()
    assert done.rc == 0, done
    assert answered() == 2


def test_a_ping_to_the_device_is_answered_by_the_device(running_lab):
    for address in ("192.0.2.1", "2001:db8:a::1"):
        assert running_lab.app("ping", "-c1", "-W2", address).rc == 0


RAW = """
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, int(sys.argv[2]))
s.settimeout(3)
s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
s.connect((sys.argv[1], 0))
s.send(b"x" * 20)
try:
    s.recv(100)
    tell("data")
except OSError as error:
    tell(errno.errorcode.get(error.errno, "timeout"))
"""


@PLACES
def test_other_protocols_are_refused(running_lab, where):
    lab = running_lab
    refused = Moved(lab, interface=INTERFACE[where], reason="protocol-refused")
    assert python(lab, where, RAW, ORIGIN[0], "132") == "ENOPROTOOPT"
    assert refused() == 1


FRAMES = """
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
tell("sent")
"""


def test_frames_that_make_no_sense_are_dropped_and_counted(running_lab):
    lab = running_lab
    (app0,) = json.loads(lab.network.run("device", "ip", "-j", "link", "show", "app0"))
    mac = app0["address"].replace(":", "") + "020000000002"
    frames = {
        "4500": mac + "0800" + "4500",  # half a head
        "short": mac + "0800" + "4500000a" + "00" * 16,  # total length under the head's
        "ihl": mac + "0800" + "41000028" + "00" * 40,
        "long": mac + "0800" + "4500ffff" + "00" * 40,  # more than there is
        "version": mac + "0800" + "65000028" + "00" * 40,
        "v6": mac + "86dd" + "60000000ffff0640" + "00" * 34,
        "v6 version": mac + "86dd" + "45000000" + "00" * 40,
    }
    malformed = Moved(lab, interface="app0", verdict="drop", reason="malformed")
    other = Moved(lab, interface="app0", verdict="drop", reason="ethertype")
    python(lab, "app", FRAMES, "eth0", *frames.values(), mac + "88cc" + "00" * 50)
    wait_until("all are counted", lambda: malformed() == len(frames) and other() == 1, timeout=3)
    assert lab.curl("app", f"http://{ORIGIN[0]}/after/{time.time_ns()}").status == 200
