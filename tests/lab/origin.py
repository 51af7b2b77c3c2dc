"""A small origin that remembers: HTTP/1.1 on every address it is given, one JSON line for each
request in a file, with time, method, path, headers, body and the client's address, which tells
the link that it came over.

    origin.py RECORD ADDRESS:PORT...

    /status/N           answers with N
    /delay/SECONDS      after a while
    /fail-times/N/KEY   503 the first N times, then 200
    /retry-after/S/KEY  503 with Retry-After once, then 200
    /chunked            five chunks, a moment apart
    /big/BYTES          that many bytes
    /echo               the request's body
    /close              no answer: the connection is closed
    /stream/SECONDS     a byte each tenth of a second, no length, ends with the connection
    else                200 and JSON about the request
"""

import base64
import http.server
import json
import socket
import sys
import threading
import time

lock = threading.Lock()
seen = {}
record = None


def remember(entry):
    with lock:
        entry["number"] = seen["all"] = seen.get("all", 0) + 1
        record.write(json.dumps(entry) + "\n")
        record.flush()
    return entry["number"]


def times(key):
    with lock:
        seen[key] = seen.get(key, 0) + 1
        return seen[key]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "origin"

    def log_message(self, *args):
        pass

    def read_chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def read_body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self.read_chunks()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status, body=b"", kind="text/plain", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status >= 200 and status not in (204, 304):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(body)

    def serve(self):
        body = self.read_body()
        self.number = remember(
            {
                "time": time.time(),
                "method": self.command,
                "path": self.path,
                "headers": {k.lower(): v for k, v in self.headers.items()},
                "body": base64.b64encode(body).decode(),
                "client": self.client_address[0].removeprefix("::ffff:"),
                "server": self.connection.getsockname()[0],
                **self.more(),
            }
        )
        parts = self.path.split("?")[0].strip("/").split("/")
        action = getattr(self, "do_" + parts[0].replace("-", "_"), None)
        if action:
            action(body, *parts[1:])
        else:
            self.about(body)

    def more(self):
        """What else is remembered of a request."""
        return {}

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = serve

    def about(self, body):
        about = {
            "number": self.number,
            "method": self.command,
            "path": self.path,
            "host": self.headers.get("Host"),
            "client": self.client_address[0],
            "body": body.decode(errors="replace"),
        }
        self.reply(200, json.dumps(about).encode() + b"\n", "application/json")

    def do_status(self, body, status):
        self.reply(int(status), b"status " + status.encode() + b"\n")

    def do_delay(self, body, seconds):
        time.sleep(float(seconds))
        self.about(body)

    def do_fail_times(self, body, n, key):
        if times(key) <= int(n):
            self.reply(503, b"not yet\n")
        else:
            self.about(body)

    def do_retry_after(self, body, seconds, key):
        if times(key) == 1:
            self.reply(503, b"not yet\n", headers=[("Retry-After", seconds)])
        else:
            self.about(body)

    def do_chunked(self, body):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for n in range(5):
            self.wfile.write(b"8\r\nchunk %d\n\r\n" % n)
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    def do_big(self, body, size):
        left = int(size)
        self.send_response(200)
        self.send_header("Content-Length", size)
        self.end_headers()
        piece = bytes(range(256)) * 256
        while left > 0 and self.command != "HEAD":
            self.wfile.write(piece[: min(left, len(piece))])
            left -= len(piece)

    def do_echo(self, body):
        self.reply(200, body, self.headers.get("Content-Type", "application/octet-stream"))

    def do_close(self, body):
        self.close_connection = True

    def do_stream(self, body, seconds):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            self.wfile.write(b".")
            time.sleep(0.1)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, text):
        host, port = text.rsplit(":", 1)
        host = host.strip("[]")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, int(port)), Handler)

    def server_bind(self):
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def main():
    global record
    record = open(sys.argv[1], "a")
    servers = [Server(text) for text in sys.argv[2:]]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
