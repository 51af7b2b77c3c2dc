"""What is no HTTP is relayed as it is: TLS by its name, anything else by its address; and held
through an outage.

    app ---- device ==wifi== cloud: tls.example (nginx), and listeners of the tests
"""

import hashlib
import socket
import threading

import pytest

from harness import wait_until
from hears import connect, listen, offline, read_all
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {
    "defaults": {"hold": "20s"},
    "rules": [
        {"name": "brief", "match": {"port": [9003]}, "hold": "500ms"},
        {"name": "closed", "match": {"port": [9004]}, "action": "reject"},
    ],
}
PORT = 9002


def sessions(lab):
    return lab.get("/v1/status")["requests"]["sessions"]


def tls(lab, path, *arguments, start=False, name="tls.example"):
    run = lab.curl_start if start else lab.curl
    ca = ["--cacert", lab.folder / "cloud/ca.pem"]
    return run("app", f"https://{name}{path}", *ca, *arguments)


class Echo:
    """Sends back what comes, and greets first when it has a greeting."""

    def __init__(self, lab, greeting=b"", port=PORT, address=ORIGIN[0]):
        self.server, self.greeting = listen(lab, address, port), greeting
        self.server.settimeout(0.1)
        self.over, self.accepted = threading.Event(), 0
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        while not self.over.is_set():
            try:
                peer = self.server.accept()[0]
            except TimeoutError:
                continue
            self.accepted += 1
            threading.Thread(target=self.talk, args=(peer,), daemon=True).start()

    def talk(self, peer):
        with peer:
            peer.settimeout(30)
            try:
                peer.sendall(self.greeting)
                while data := peer.recv(65536):
                    peer.sendall(data)
            except OSError:
                pass  # reset: the test's own doing

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.over.set()
        self.thread.join()
        self.server.close()


def exchange(app, data):
    """Send it all while it is echoed; give what came back."""
    sender = threading.Thread(target=lambda: (app.sendall(data), app.shutdown(socket.SHUT_WR)))
    sender.start()
    got = read_all(app)
    sender.join()
    return got


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_tls_passes_with_the_origins_own_certificate(hears, family):
    before = hears.get("/v1/status")["requests"]["tls"]
    answer = tls(hears, "/1k", family)
    assert answer.status == 200 and len(answer.body) == 1024, str(answer)
    assert hears.get("/v1/status")["requests"]["tls"] == before + 1


def test_a_big_tls_download_is_whole_and_carried_by_the_kernel(hears):
    before = hears.get("/v1/status")["streams"]
    answer = tls(hears, "/big", "--http1.1")
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(bytes(256 << 20)).digest()
    wait_until("its pipes closed", lambda: hears.get("/v1/status")["streams"]["pipes"] == 0)
    after = hears.get("/v1/status")["streams"]
    assert after["spliced"] == before["spliced"] + 1 and after["no_pipes"] == before["no_pipes"]


def test_http_2_passes_within_tls(hears):
    answer = tls(hears, "/1k", "--http2")
    assert answer.status == 200 and len(answer.body) == 1024


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_tls_is_held_through_an_outage(hears, family):
    offline(hears)
    client = tls(hears, "/1k", family, start=True)
    wait_until("it is there", lambda: sessions(hears) == 1, 5)
    hears.restore("wifi", wait=False)
    answer = client.wait()
    assert answer.status == 200 and len(answer.body) == 1024, str(answer)


def test_client_first_tcp_is_relayed_both_ways(hears):
    data = bytes(range(256)) * 20000
    with Echo(hears), connect(hears, ORIGIN[0], PORT) as app:
        assert exchange(app, b"\x00binary" + data) == b"\x00binary" + data


def test_server_first_tcp_is_relayed_both_ways(hears):
    with Echo(hears, b"220 hello\r\n"), connect(hears, ORIGIN[0], PORT) as app:
        assert app.recv(100) == b"220 hello\r\n"
        assert exchange(app, b"QUIT\r\n") == b"QUIT\r\n"


@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"])
@pytest.mark.parametrize("address", ORIGIN)
def test_tcp_is_held_through_an_outage(hears, greeting, address):
    offline(hears)
    with Echo(hears, greeting, address=address) as echo:
        with connect(hears, address, PORT, timeout=30) as app:
            app.sendall(b"\x00first")
            assert echo.accepted == 0
            hears.restore("lte")
            app.shutdown(socket.SHUT_WR)
            assert read_all(app) == greeting + b"\x00first"
            assert echo.accepted == 1


def test_after_the_hold_tcp_is_closed(hears):
    offline(hears)
    with connect(hears, ORIGIN[0], 9003, timeout=10) as app:
        app.sendall(b"\x00data")
        assert read_all(app) == b""


def test_a_silent_app_that_hangs_up_is_forgotten(hears):
    offline(hears)
    with connect(hears, ORIGIN[0], PORT):
        wait_until("it is there", lambda: sessions(hears) == 1, 5)
    wait_until("it is gone", lambda: sessions(hears) == 0, 5)


def test_half_closed_streams_carry_on(hears):
    with listen(hears, ORIGIN[0], PORT) as server:
        with connect(hears, ORIGIN[0], PORT) as app:
            app.sendall(b"\x00question")
            app.shutdown(socket.SHUT_WR)
            peer = server.accept()[0]
            with peer:
                assert read_all(peer) == b"\x00question"
                peer.sendall(b"a late answer")
            assert read_all(app) == b"a late answer"


def test_a_stream_ends_when_its_link_dies(hears):
    with Echo(hears), connect(hears, ORIGIN[0], PORT, timeout=10) as app:
        app.sendall(b"\x00x")
        assert app.recv(10) == b"\x00x"
        hears.cut("wifi")
        assert read_all(app) == b""


def test_a_refused_port_ends_the_connection(hears):
    with connect(hears, ORIGIN[0], 9099, timeout=10) as app:
        app.sendall(b"\x00x")
        assert read_all(app) == b""


def test_a_rule_rejects_a_stream(hears):
    with Echo(hears, b"hello", port=9004) as echo:
        try:
            with connect(hears, ORIGIN[0], 9004, timeout=10) as app:
                app.sendall(b"\x00x")
                assert read_all(app) == b""
        except ConnectionRefusedError:
            pass
        assert echo.accepted == 0


def test_a_client_hello_in_pieces_is_understood(hears):
    before = hears.get("/v1/status")["requests"]["tls"]
    hello = bytes.fromhex(
        "16030100"
        + "4d01000049"
        + "0303"
        + "11" * 32
        + "00"
        + "000213010100001e"
        + "00000010000e00000b746c732e6578616d706c65"
        + "000a00040002001d0000"
    )
    hello = hello[:3] + (len(hello) - 5).to_bytes(2, "big") + hello[5:]
    hello = hello[:6] + (len(hello) - 9).to_bytes(3, "big") + hello[9:]
    with connect(hears, "203.0.113.10", 443, timeout=10) as app:
        for byte in hello[:40]:
            app.sendall(bytes([byte]))
        app.sendall(hello[40:])
        assert app.recv(5)[0] in (21, 22)  # an alert or a hello: nginx has read it whole
    assert hears.get("/v1/status")["requests"]["tls"] == before + 1
