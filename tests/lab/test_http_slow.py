"""Apps that take their time: the whole of a head, and each next byte of a body, has 30 s.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT
"""

import contextlib
import time

from harness import wait_until
from hears import connect, metric, read_all
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import OK, PORT, origin

CONFIG = {"defaults": {"hold": "60s"}}
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
CHUNKED = (b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
           b"5\r\nhello\r\n")  # fmt: skip
LARGE = 8 << 20


def serve(peer, head):
    """What says /slowly has to wait for the origin, and is not to blame."""
    peer.settimeout(60)
    if b"/slowly" in head:
        time.sleep(33)
    while b"GET" not in head and (data := peer.recv(65536)) and b"end" not in data:
        pass
    peer.sendall(OK)


def test_who_is_too_slow_is_told_so_and_who_is_not_goes_on(hears):
    """All at once, as each takes the half minute."""
    before = metric(hears, "requests_timed_out_total")
    with contextlib.ExitStack() as stack:
        stack.enter_context(origin(hears, serve))

        def app(sent):
            there = stack.enter_context(connect(hears, ORIGIN[0], PORT, timeout=60))
            there.sendall(sent)
            return there

        began = time.monotonic()
        dripping_head = app(b"GET / HTTP/1.1\r\nHost: x\r\nX-Drip: ")
        slow = {
            "half a head": app(b"GET / HTTP/1.1\r\n"),
            "half a small body": app(POST % 10 + b"half"),
            "half a large body": app(POST % LARGE + bytes(100000)),
            "half a chunked body": app(CHUNKED),
            "a head that drips": dripping_head,
        }
        dripping_body = app(CHUNKED)
        patient = app(b"GET /slowly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        def half_a_minute_is_over():
            dripping_head.sendall(b"x")
            dripping_body.sendall(b"1\r\nx\r\n")
            return time.monotonic() - began > 29

        wait_until("half a minute is over", half_a_minute_is_over, 40, 1)
        for what, connection in slow.items():
            said = read_all(connection)
            assert said.startswith(b"HTTP/1.1 408 ") and b"problem+json" in said, (what, said)
            assert said.count(b"HTTP/1.1 ") == 1, what
        assert metric(hears, "requests_timed_out_total") == before + len(slow)
        dripping_body.sendall(b"3\r\nend\r\n0\r\n\r\n")
        for connection in (dripping_body, patient):
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
