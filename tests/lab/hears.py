"""What the tests of one theme share: sockets of an app's own, and short words for common steps.

    from hears import hears, shared  # fixtures
    CONFIG = {"defaults": {"hold": "1s"}}  # of the one daemon that this file's tests share

    def test_something(hears): ...         # the lab; online before and after, the queue empty
"""

import contextlib
import ctypes
import http.client
import os
import re
import socket

import pytest

from harness import wait_until
from network import NETNS, ORIGIN

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
LOCATION = re.compile(r"http://holdfast\.internal/v1/requests/([0-9a-f-]{36})")


@pytest.fixture(scope="module")
def shared(lab, request):
    lab.start_daemon(request.module.CONFIG, fresh=True)
    yield lab
    rc = lab.stop_daemon()
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.fixture
def hears(shared):
    yield shared
    for link in ("wifi", "lte"):
        shared.cloud.portal(link, on=False)
    shared.restore("wifi", "lte")
    empty(shared)


def delete_all(lab):
    """Is nothing there any more? What is being sent at this moment cannot be deleted (409)."""
    rows = lab.requests("?limit=500")
    for row in rows:
        status, _ = lab.api("DELETE", f"/v1/requests/{row['id']}")
        assert status in (204, 404, 409), f"{row['id']}: {status}"
    return not rows


def empty(lab):
    wait_until("the queue is empty", lambda: delete_all(lab), 15)


@contextlib.contextmanager
def inside(lab, where):
    """This thread in a namespace; sockets made there stay there."""

    def enter(descriptor):
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(NETNS / lab.network.name(where), os.O_RDONLY)
    try:
        enter(there)
        yield
    finally:
        enter(own)
        os.close(own)
        os.close(there)


def connect(lab, address=ORIGIN[0], port=80, where="app", timeout=15):
    with inside(lab, where):
        return socket.create_connection((address, port), timeout)


def listen(lab, address, port, where="cloud", timeout=15):
    with inside(lab, where):
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
    server.settimeout(timeout)
    server.listen(64)
    return server


class App(http.client.HTTPConnection):
    """One connection of an app to a real address."""

    def __init__(self, lab, address=ORIGIN[0], port=80, where="app", timeout=15):
        super().__init__("origin.example", port, timeout=timeout)
        self.open_socket = lambda: connect(lab, address, port, where, timeout)

    def connect(self):
        self.sock = self.open_socket()

    def ask(self, method, target, body=None, headers=None, **more):
        self.request(method, target, body, headers or {}, **more)
        response = self.getresponse()
        response.body = response.read()
        return response


def talk(lab, sent, *address, timeout=15):
    """Send bytes, give all that comes until the other side closes."""
    with connect(lab, *address, timeout=timeout) as app:
        app.sendall(sent)
        return read_all(app)


def read_all(connection):
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            got += data
    return got


def offline(lab):
    lab.cut("wifi", "lte")


def metric(lab, name):
    """One number of /metrics."""
    text = lab.get("/metrics").decode()
    return float(re.search(rf"^holdfast_{name} (\S+)$", text, re.M)[1])


def state_of(lab, request_id):
    status, row = lab.api("GET", f"/v1/requests/{request_id}")
    return row["state"] if status == 200 else None


def wait_state(lab, request_id, *states, timeout=15):
    wait_until(f"{request_id} {states}", lambda: state_of(lab, request_id) in states, timeout)


def wait_held(lab, n=1):
    return wait_until(f"{n} held", lambda: held(lab, n), 5)


def held(lab, n):
    rows = [row for row in lab.requests() if row["state"] == "held"]
    return rows if len(rows) == n else None


def wait_received(lab, n, timeout=15, **which):
    """Until the origin got that many; they."""
    return wait_until(f"{n} at the origin {which}", lambda: received(lab, n, which), timeout)


def received(lab, n, which):
    found = lab.origin_log(**which)
    return found if len(found) >= n else None


def problem(answer, status):
    """The answer is one of ours, whole."""
    assert answer.status == status, str(answer)
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status and told["title"]
    return told


def stored_id(answer, status=503):
    """The id of an exchange that the app was told of."""
    if status == 202:
        assert answer.status == 202, str(answer)
        assert answer.headers["content-type"] == "application/json"
    else:
        problem(answer, status)
        assert int(answer.headers["retry-after"]) > 0
    found = LOCATION.fullmatch(answer.headers["location"])
    assert found, answer.headers["location"]
    return found[1]
