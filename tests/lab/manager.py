"""A service manager as far as systemd's protocol goes: it hears what the daemon says
(sd_notify), keeps its descriptors (FDSTORE=1), and gives them back at the next start."""

import array
import os
import socket
import threading

# Behind every wrapper, so that LISTEN_PID is the daemon's own number.
LAUNCH = """
import os, sys
numbers = [int(n) for n in sys.argv[1].split(",") if n]
high = [os.dup2(n, 200 + i) for i, n in enumerate(numbers)]
for i, n in enumerate(high):
    os.dup2(n, 3 + i)
for n in set(numbers) | set(high):
    if n >= 3 + len(high):
        os.close(n)
if numbers:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)),
                      LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    def __init__(self, folder):
        self.path = str(folder / "notify.sock")
        self.kept, self.said = [], []  # (name, descriptor); states
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            message, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16))
            descriptors = array.array("i")
            for _, kind, data in control:
                if kind == socket.SCM_RIGHTS:
                    descriptors.frombytes(data)
            fields = dict(line.split("=", 1) for line in message.decode().splitlines())
            if "STOP" in fields:
                return
            self.hear(fields, list(descriptors))

    def hear(self, fields, descriptors):
        name = fields.get("FDNAME")
        if "FDSTORE" in fields:
            for descriptor in descriptors:
                self.keep(name, descriptor)
        elif "FDSTOREREMOVE" in fields:
            for found in [pair for pair in self.kept if pair[0] == name]:
                self.kept.remove(found)
                os.close(found[1])
        else:
            self.said += fields

    def keep(self, name, descriptor):
        """The same socket twice is kept once, as systemd does."""
        inode = os.fstat(descriptor).st_ino
        if any(os.fstat(other).st_ino == inode for _, other in self.kept):
            os.close(descriptor)
        else:
            self.kept.append((name, descriptor))

    def names(self):
        return sorted(name for name, _ in self.kept)

    def start(self, spawn, enter, command, output):
        """The daemon, with what was kept of the one before."""
        numbers = [descriptor for _, descriptor in self.kept]
        names = ":".join(name for name, _ in self.kept)
        launch = ["/usr/bin/python3", "-c", LAUNCH, ",".join(map(str, numbers)), names]
        return spawn([*enter, *launch, *command], output, pass_fds=numbers,
                     env=os.environ | {"NOTIFY_SOCKET": self.path})  # fmt: skip

    def close(self):
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.sendto(b"STOP=1", self.path)
        sender.close()
        self.thread.join()
        self.socket.close()
        os.unlink(self.path)
        for _, descriptor in self.kept:
            os.close(descriptor)
