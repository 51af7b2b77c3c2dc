"""A door from the machine's loopback to the daemon's local socket, so that a browser outside the
lab's namespaces can see the page."""

import socket
import socketserver
import threading

PORTS = (7080, 0)  # the usual one, or any that is free


def copy(source, destination):
    try:
        while data := source.recv(65536):
            destination.sendall(data)
        destination.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.socket(socket.AF_UNIX) as api:
            try:
                api.connect(self.server.path)
            except OSError:
                return  # the daemon is not there: so the browser is told
            back = threading.Thread(target=copy, args=(api, self.request), daemon=True)
            back.start()
            copy(self.request, api)
            back.join()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class Forwarder:
    def __init__(self, path):
        for port in PORTS:
            try:
                self.server = Server(("127.0.0.1", port), Handler)
                break
            except OSError:
                if port == PORTS[-1]:
                    raise
        self.server.path = path
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()
