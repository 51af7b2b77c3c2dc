"""What was held goes some at a time when a link returns, in its order; what is live goes beside it.

    app: 160 held, one live ---- device ---- cloud: an origin that accepts and does not answer yet
"""

from harness import wait_until
from hears import App, listen, metric, offline
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {"defaults": {"hold": "60s"}}
RELEASED_MAX = 128  # EXCHANGES_RELEASED_MAX in limits.h
COUNT = 160
PORT = 8090


def take(listener):
    """The next request, and its connection."""
    connection, _ = listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    return request.split()[1].decode(), connection


def answer(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    connection.close()


def test_what_was_held_goes_some_at_a_time_and_in_order(hears):
    offline(hears)
    apps = [App(hears, port=PORT) for _ in range(COUNT)]
    for number, app in enumerate(apps):
        app.request("GET", f"/turn/{number}")
    wait_until("all are held", lambda: hears.get("/v1/status")["queue"]["held"] == COUNT)
    with listen(hears, ORIGIN[0], PORT) as listener:
        listener.listen(512)
        hears.restore("wifi", wait=False)
        first = [take(listener) for _ in range(RELEASED_MAX)]
        traffic = hears.get("/v1/status")["requests"]
        assert traffic["under_way"] == RELEASED_MAX
        assert traffic["in_line"] == COUNT - RELEASED_MAX
        assert metric(hears, "in_line") == COUNT - RELEASED_MAX
        assert sorted(path for path, _ in first) == sorted(f"/turn/{n}" for n in range(RELEASED_MAX))
        assert App(hears).ask("GET", "/live").status == 200
        for number, (_, connection) in enumerate(first):
            answer(connection)
            if number < COUNT - RELEASED_MAX:
                path, following = take(listener)
                assert path == f"/turn/{RELEASED_MAX + number}"
                answer(following)
        assert all(app.getresponse().status == 200 for app in apps)
    wait_until("nothing is under way",
               lambda: hears.get("/v1/status")["requests"]["under_way"] == 0)  # fmt: skip
    for app in apps:
        app.close()
