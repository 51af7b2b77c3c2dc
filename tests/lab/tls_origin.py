"""The origin of origin.py behind TLS, and some that do it wrong. What it received is recorded with
the name that was asked for (sni), alpn, TLS version, reused (a resumed session) and client.

    tls_origin.py RECORD CERTIFICATES CLIENT-CA ADDRESS...

CERTIFICATES/NAME.pem is shown to who asks for NAME, else CERTIFICATES/any.pem; read for each
connection. On each address:

    443     TLS 1.2 and 1.3
    8441    asks for a client certificate of CLIENT-CA
    8442    TLS 1.2 alone
    8443    no TLS: octets of no meaning
    8444    takes a second for the handshake
    8445    resets what comes from the wifi link before the handshake
    8446    takes connections and says nothing
    8447    as 8441, but takes clients without one, too

    /cut    200 without a length; ends with the connection, without the end of TLS
    /cut-length     the same with a length
    /ended  200 without a length, ends in good order
"""

import pathlib
import socket
import ssl
import struct
import sys
import threading
import time

import origin
from network import LINKS

folder = authority = None


def context_for(name):
    found = folder / f"{name}.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(found if name and found.exists() else folder / "any.pem")
    return context


class Handler(origin.Handler):
    def setup(self):
        self.request = self.server.handshake(self.request)
        super().setup()
        self.cut = False

    def finish(self):
        super().finish()
        try:
            if not self.cut:
                self.request.settimeout(2)
                self.request.unwrap()
        except OSError:
            pass
        self.request.close()

    def more(self):
        tls = self.connection
        subject = (tls.getpeercert() or {}).get("subject", ())
        return {
            "sni": tls.sni,
            "alpn": tls.selected_alpn_protocol(),
            "version": tls.version(),
            "reused": tls.session_reused,
            "name": dict(pair for part in subject for pair in part).get("commonName"),
        }

    def unbounded(self, cut, length=None):
        self.send_response(200)
        self.send_header("Connection", "close")
        if length:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(b"all of it\n")
        self.cut = cut

    def do_cut(self, body):
        self.unbounded(True)

    def do_cut_length(self, body):
        self.unbounded(True, len(b"all of it\n"))

    def do_ended(self, body):
        self.unbounded(False)


class Connection(ssl.SSLSocket):
    sni = None


class Server(origin.Server):
    def __init__(self, text):
        super().__init__(text)
        self.RequestHandlerClass = Handler
        port = self.server_address[1]
        self.context = context_for(None)
        self.context.sslsocket_class = Connection
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        self.context.sni_callback = self.on_name
        if port in (8441, 8447):
            wanted = ssl.CERT_REQUIRED if port == 8441 else ssl.CERT_OPTIONAL
            self.context.verify_mode = wanted
            self.context.load_verify_locations(authority)
        if port == 8442:
            self.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.pause = 1 if port == 8444 else 0
        self.resets = port == 8445

    def on_name(self, tls, name, context):
        tls.sni = name
        if name and (folder / f"{name}.pem").exists():
            own = context_for(name)
            own.set_alpn_protocols(["h2", "http/1.1"])
            tls.context = own

    def handshake(self, plain):
        time.sleep(self.pause)
        if self.resets and plain.getpeername()[0] in LINKS["wifi"]["address"]:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            plain.close()
        return self.context.wrap_socket(plain, server_side=True)

    def handle_error(self, request, client_address):
        pass  # handshakes that fail are what this origin is for


def serve_raw(text, answer):
    """No TLS at all."""
    host, _, port = text.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    server = socket.create_server((host.strip("[]"), int(port)), family=family)
    kept = []
    while True:
        connection, _ = server.accept()
        if answer:
            connection.recv(1)
            connection.sendall(answer)
        kept.append(connection)


def main():
    global folder, authority
    origin.record = open(sys.argv[1], "a")
    folder, authority = pathlib.Path(sys.argv[2]), sys.argv[3]
    for address in sys.argv[4:]:
        for port in (443, 8441, 8442, 8444, 8445, 8447):
            server = Server(f"{address}:{port}")
            threading.Thread(target=server.serve_forever, daemon=True).start()
        for port, answer in ((8443, b"\x00\x01\x02 nothing of TLS\r\n" * 20), (8446, None)):
            threading.Thread(target=serve_raw, args=(f"{address}:{port}", answer),
                             daemon=True).start()  # fmt: skip
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
