"""TLS that is passed through: its name chooses rule and link however the ClientHello comes, and a
client that is refused is told so with an alert.

    app: openssl s_client, curl, Python's ssl ---- device ==wifi== cloud: nginx (tls.example)
                                                          ==lte===
"""

import ssl

import pytest

from harness import wait_until
from hears import connect, listen, offline, read_all
from hears import hears, shared  # noqa: F401 (fixtures)
from network import LINKS, NGINX, ORIGIN

CONFIG = {
    "defaults": {"hold": "20s"},
    "rules": [
        {"name": "closed", "match": {"host": ["closed.example"]}, "action": "reject"},
        {"name": "lte", "match": {"host": ["tls.example"], "port": [443]}, "links": ["lte"]},
        {"name": "brief", "match": {"port": [9300]}, "hold": "300ms"},
        {"name": "outer", "match": {"host": ["outer.example"]}, "links": ["lte"]},
    ],
}
ACCESS_DENIED, DECODE_ERROR, INTERNAL_ERROR, UNRECOGNIZED_NAME = 49, 50, 80, 112
HANDSHAKE, ALERT = 22, 21


class Client:
    """A TLS client of which every octet on the wire passes through the test's hands."""

    def __init__(self, lab, connection, name="tls.example"):
        context = ssl.create_default_context(cafile=lab.folder / "cloud/ca.pem")
        context.check_hostname = False
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.connection = connection

    def step(self, do):
        """do() until it needs nothing more from the wire."""
        while True:
            try:
                result = do()
                self.connection.sendall(self.outgoing.read())
                return result
            except ssl.SSLWantReadError:
                self.connection.sendall(self.outgoing.read())
                data = self.connection.recv(65536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)

    def hello(self):
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def get(self, path="/1k"):
        self.step(self.tls.do_handshake)
        request = f"GET {path} HTTP/1.1\r\nHost: tls.example\r\nConnection: close\r\n\r\n"
        self.step(lambda: self.tls.write(request.encode()))
        got = b""
        while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < 1024:
            got += self.step(lambda: self.tls.read(65536))
        return got


def real_hello(lab, name="tls.example"):
    return Client(lab, None, name).hello()


def in_records(hello, size):
    """The same handshake message in records of that size (RFC 8446, 5.1)."""
    message = hello[5:]
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extension(hello, number, body):
    """The same hello with one extension more in front."""
    message = bytearray(hello[5:])
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extension = number.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
    length = int.from_bytes(message[at : at + 2], "big") + len(extension)
    message[at : at + 2] = length.to_bytes(2, "big") + extension
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    return hello[:3] + len(message).to_bytes(2, "big") + bytes(message)


def alert_of(lab, data, address=ORIGIN[0], port=443):
    """What comes back is one fatal alert and the end; its number."""
    with connect(lab, address, port) as app:
        app.sendall(data)
        got = read_all(app)
    assert got[:1] == bytes([ALERT]) and got[3:6] == b"\0\2\2" and len(got) == 7, got
    return got[6]


# --- however it comes ---


def test_a_hello_octet_by_octet_makes_a_whole_handshake(hears):
    with connect(hears, NGINX[0], 443) as connection:
        client = Client(hears, connection)
        for octet in client.hello():
            connection.sendall(bytes([octet]))
        assert client.get().endswith(b"0123456789abcdef")


@pytest.mark.parametrize("size", [1, 37, 200])
def test_a_hello_in_many_records_makes_a_whole_handshake(hears, size):
    with connect(hears, NGINX[0], 443) as connection:
        client = Client(hears, connection)
        connection.sendall(in_records(client.hello(), size))
        assert client.get().endswith(b"0123456789abcdef")


def link_of(peer):
    over = {address: name for name, link in LINKS.items() for address in link["address"]}
    return over[peer.getpeername()[0]]


def arrives(lab, data):
    """The link that these first octets choose; they arrive as they are."""
    with listen(lab, ORIGIN[0], 443) as server, connect(lab, ORIGIN[0], 443) as app:
        app.sendall(data)
        peer = server.accept()[0]
        got = b""
        with peer:
            peer.settimeout(15)
            while len(got) < len(data):
                got += peer.recv(65536)
            assert got == data
            return link_of(peer)


def test_the_name_chooses_rule_and_link(hears):
    assert arrives(hears, real_hello(hears, "tls.example")) == "lte"
    assert arrives(hears, real_hello(hears, "other.example")) == "wifi"
    assert arrives(hears, in_records(real_hello(hears, "tls.example"), 11)) == "lte"


def test_without_a_name_the_address_is_all_there_is(hears):
    assert arrives(hears, real_hello(hears, None)) == "wifi"


def test_of_an_encrypted_hello_the_outer_name_counts(hears):
    grease = bytes.fromhex("0000010001") + b"\x20\x20" + bytes(32) + b"\0\x20" + bytes(32)
    hello = with_extension(real_hello(hears, "outer.example"), 0xFE0D, grease)
    assert arrives(hears, hello) == "lte"


@pytest.mark.parametrize("data", [b"\x16garbage", b"\x16\x03\x01\x00\x05\x02abcd"],
                         ids=["no-tls", "no-hello"])  # fmt: skip
def test_what_only_begins_like_tls_is_relayed(hears, data):
    assert arrives(hears, data) == "wifi"


# --- refused ---


def test_a_rejected_name_hears_access_denied(hears):
    assert alert_of(hears, real_hello(hears, "closed.example")) == ACCESS_DENIED


def test_a_client_says_what_it_heard(hears):
    done = hears.app("openssl", "s_client", "-connect", f"{ORIGIN[0]}:443",
                     "-servername", "closed.example")  # fmt: skip
    assert done.rc != 0 and "alert access denied" in done.err
    answer = hears.curl("app", "https://closed.example/", "--connect-to",
                        f"closed.example:443:{ORIGIN[0]}:443")  # fmt: skip
    assert answer.rc == 35 and "access denied" in answer.error


def test_a_hello_that_cannot_be_read_hears_decode_error(hears):
    hello = bytearray(real_hello(hears, "closed.example"))
    at = hello.index(b"closed.example")
    hello[at - 2 : at] = b"\xff\xff"  # the name's length
    assert alert_of(hears, bytes(hello)) == DECODE_ERROR


def test_a_hello_with_two_names_hears_decode_error(hears):
    name = b"\0\x0e\0\0\x0bwww.example"
    hello = with_extension(real_hello(hears, "closed.example"), 0, name)
    assert alert_of(hears, hello) == DECODE_ERROR


def test_after_the_hold_a_client_hears_internal_error(hears):
    offline(hears)
    assert alert_of(hears, real_hello(hears), port=9300) == INTERNAL_ERROR


def test_another_name_than_the_virtual_addresss_hears_unrecognized_name(hears):
    offline(hears)
    virtual = wait_until("it has an address", lambda: hears.dig("app", "tls.example"))[0]
    assert alert_of(hears, real_hello(hears, "www.example"), virtual) == UNRECOGNIZED_NAME
