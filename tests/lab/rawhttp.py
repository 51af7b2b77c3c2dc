"""An origin and an app of bare sockets, for what no real server or client would say.

    with origin(lab, answer) as got:    # answer(peer, request) is called for each connection
        said = talk(lab, b"GET ...", ORIGIN[0], PORT)
    got[0]                              # the head that the first connection brought, as it came
"""

import contextlib
import threading

from hears import listen
from network import ORIGIN

PORT = 8090
# It closes then, and says so: else the next request might go over a connection that just ends.
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


def read_head(peer):
    """Up to the empty line, byte by byte, so that what follows stays in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = peer.recv(1)
        if not byte:
            break
        head += byte
    return head


def fields(head):
    """Lower-case names to lists of values."""
    found = {}
    for line in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found.setdefault(name.decode().lower(), []).append(value.strip().decode())
    return found


@contextlib.contextmanager
def origin(lab, answer=None, address=ORIGIN[0], port=PORT, wrap=lambda peer: peer):
    """Each connection: its head is read, then answer(peer, head) speaks; without one, OK.
    wrap(peer): what speaks TLS in its place."""
    got, failed = [], []

    def serve(peer):
        try:
            peer.settimeout(15)
            with wrap(peer) as peer:
                head = read_head(peer)
                if head:
                    got.append(head)
                    (answer or (lambda peer, head: peer.sendall(OK)))(peer, head)
        except (ConnectionError, TimeoutError):
            pass
        except BaseException as error:
            failed.append(error)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                peer = server.accept()[0]
                peers.append(peer)
                threads.append(threading.Thread(target=serve, args=(peer,)))
                threads[-1].start()

    server = listen(lab, address, port)
    server.settimeout(None)
    peers, threads = [], [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield got
    finally:
        server.shutdown(2)  # wakes accept
        server.close()
        for peer in peers:  # one whose link was cut would wait for ever
            with contextlib.suppress(OSError):
                peer.shutdown(2)
        for thread in threads:
            thread.join(15)
    assert not failed, failed
