"""Both ends of a WebSocket (RFC 6455), as much of it as an echo needs."""

import base64
import hashlib
import os
import struct

from rawhttp import fields, read_head

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def frame(payload, opcode=TEXT, masked=True):
    size = len(payload)
    mask = os.urandom(4) if masked else b""
    bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | 127, size)
    return head + mask + (apply_mask(payload, mask) if masked else payload)


def apply_mask(payload, mask):
    pad = mask * (len(payload) // 4 + 1)
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(pad[: len(payload)], "big")
    return mixed.to_bytes(len(payload), "big")


def read(connection, size):
    got = b""
    while len(got) < size:
        more = connection.recv(min(size - len(got), 65536))
        if not more:
            raise ConnectionResetError(f"{len(got)} of {size} bytes")
        got += more
    return got


def read_frame(connection):
    first, second = read(connection, 2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack("!H", read(connection, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", read(connection, 8))[0]
    mask = read(connection, 4) if second & 0x80 else b""
    payload = read(connection, size)
    return first & 0x0F, apply_mask(payload, mask) if mask else payload


def request(host, key="dGhlIHNhbXBsZSBub25jZQ==", more=b""):
    return (
        f"GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
    ).encode() + more + b"\r\n"  # fmt: skip


def switch(head):
    key = fields(head)["sec-websocket-key"][0]
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_of(key)}\r\n\r\n"
    ).encode()


def serve_echo(peer, head, greeting=b""):
    """An echo server's connection; what it says first comes in one piece with its 101."""
    peer.sendall(switch(head) + greeting)
    while True:
        opcode, payload = read_frame(peer)
        peer.sendall(frame(payload, opcode, masked=False))
        if opcode == CLOSE:
            return


def shake_hands(connection, host, first=b""):
    """`first` follows the request at once."""
    connection.sendall(request(host) + first)
    head = read_head(connection)
    assert head.startswith(b"HTTP/1.1 101 "), head
    told = fields(head)
    assert told["upgrade"] == ["websocket"] and told["connection"] == ["Upgrade"]
    assert told["sec-websocket-accept"] == [accept_of("dGhlIHNhbXBsZSBub25jZQ==")]
    return told
