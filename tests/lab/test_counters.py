"""What happens to packets can be watched: rates beside the counters, and an event for drops.

    app --UDP to port 443--> steer, refused --> counters --> GET /v1/counters, /v1/events
"""

import json

import pytest

from harness import UnixConnection, wait_until
from kernelside import python
from network import ORIGIN

# Datagrams to a refused port, spread over some seconds; each socket hears of its refusal.
SEND = """
for n in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", (sys.argv[1], 443))
    s.close()
    time.sleep(0.02)
tell("sent")
"""


@pytest.fixture(scope="module")
def running_lab(lab):
    lab.start_daemon(fresh=True)
    yield lab
    lab.stop_daemon()
    lab.release()


def counter(lab, reason):
    found = [c for c in lab.counters() if c["interface"] == "app0" and c["reason"] == reason]
    return found[0] if found else {"packets": 0, "rate": {"packets": 0, "bytes": 0}}


def test_a_counter_that_moves_has_a_rate_and_rests_at_zero(running_lab):
    lab = running_lab
    lab.counters()  # somebody looks now
    assert python(lab, "app", SEND, ORIGIN[0], 100) == "sent"

    def moving():
        rate = counter(lab, "quic-refused")["rate"]
        return rate["packets"] > 0 and rate

    rate = wait_until("it moves", moving)
    assert 1 <= rate["packets"] <= 60  # 50 a second were sent, at most
    assert rate["bytes"] > 28 * rate["packets"]
    wait_until("it rests", lambda: counter(lab, "quic-refused")["rate"]["packets"] == 0)
    assert lab.get("/v1/counters")["overflow"] == 0


def test_what_is_refused_is_told_as_an_event(running_lab):
    lab = running_lab
    connection = UnixConnection(lab.socket, 15)
    connection.request("GET", "/v1/events")
    stream = connection.getresponse()
    assert stream.status == 200
    assert python(lab, "app", SEND, ORIGIN[0], 12) == "sent"
    seen = 0
    while seen < 12:
        line = stream.readline()
        assert line, "the stream goes on"
        if line.startswith(b"event:"):
            kind = line.split()[1]
        if not line.startswith(b"data:") or b"quic-refused" not in line:
            continue
        event = json.loads(line[5:])
        assert kind == b"drop" and event["subject"] == "app0"
        assert event["what"].startswith("steer: refuse ")
        seen += int(event["what"].split()[2])
    connection.close()
    assert seen == 12
