"""An independent witness of what the daemon sends: a BPF program of the lab's own
(witness.bpf.c) on a cgroup that the daemon, and nobody else, is started in.

    harness --> cgroup LAB/daemon  --> holdfastd: its sockets belong to the cgroup for ever
                cgroup LAB/clients --> what tests start as apps and users
                       |
                egress program: 5-tuple, uid -> packets, octets of payload

Why this one. Dumps of the socket tables miss connections that live shorter than a poll; tracing
system calls misses what the kernel sends later (retransmits, FIN of orphans after SIGKILL), and
knows no source address before routing; a preloaded library does not go with the sanitizers. The
guard's own storage, mark and counters are what is to be proved. The kernel itself ties every
socket to the cgroup of the process that made it, counts for free, and loses nothing; and the
program sees packets, not calls, so that octets can be compared and not only names.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import itertools
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT_NAME = "holdfast-lab-"
OWN_MOUNT = pathlib.Path("/run/holdfast-lab-cgroup")
EGRESS, ALLOW_MULTI = 1, 2  # BPF_CGROUP_INET_EGRESS, BPF_F_ALLOW_MULTI
FLOW, SENT = struct.Struct("=16s16sBB4s2xI"), struct.Struct("=QQ")
BATCH = 4096


class Bpf:
    """What of libbpf is wanted, through ctypes."""

    def __init__(self):
        self.lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name in ("bpf_object__open_file", "bpf_object__find_program_by_name"):
            getattr(self.lib, name).restype = ctypes.c_void_p

    def check(self, result, what):
        if result is None or result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
        return result

    def load(self, path):
        """The object; it stays until close()."""
        found = self.check(self.lib.bpf_object__open_file(str(path).encode(), None), "open")
        self.check(self.lib.bpf_object__load(ctypes.c_void_p(found)), f"load {path}")
        return ctypes.c_void_p(found)

    def close(self, bpf_object):
        self.lib.bpf_object__close(bpf_object)

    def program(self, bpf_object, name):
        found = self.lib.bpf_object__find_program_by_name(bpf_object, name.encode())
        return self.lib.bpf_program__fd(ctypes.c_void_p(self.check(found, name)))

    def map(self, bpf_object, name):
        return self.check(self.lib.bpf_object__find_map_fd_by_name(bpf_object, name.encode()), name)

    def attach(self, program, folder):
        fd = os.open(folder, os.O_RDONLY)
        try:
            done = self.lib.bpf_prog_attach(program, fd, EGRESS, ALLOW_MULTI)
            self.check(done, f"attach to {folder}")
        finally:
            os.close(fd)

    def pinned(self, path):
        return self.check(self.lib.bpf_obj_get(str(path).encode()), path)

    def cpus(self):
        return self.lib.libbpf_num_possible_cpus()

    def items(self, fd, key_size, value_size):
        """(key, value) of every entry of a hash."""
        key, following = None, ctypes.create_string_buffer(key_size)
        value = ctypes.create_string_buffer(value_size)
        while self.lib.bpf_map_get_next_key(fd, key, following) == 0:
            key = ctypes.create_string_buffer(following.raw, key_size)
            if self.lib.bpf_map_lookup_elem(fd, key, value) == 0:
                yield key.raw, value.raw

    def batches(self, fd, key_size, value_size):
        """The same, thousands at a time; the kernel takes maps that change meanwhile."""
        keys = ctypes.create_string_buffer(key_size * BATCH)
        values = ctypes.create_string_buffer(value_size * BATCH)
        mark, token = None, ctypes.create_string_buffer(8)
        while True:
            count = ctypes.c_uint32(BATCH)
            rc = self.lib.bpf_map_lookup_batch(
                fd, mark, token, keys, values, ctypes.byref(count), None)  # fmt: skip
            yield keys.raw[: count.value * key_size], values.raw[: count.value * value_size]
            if rc:
                return
            mark = token


@dataclasses.dataclass(frozen=True)
class Flow:
    source: bytes
    destination: bytes
    protocol: int
    ports: bytes

    def __str__(self):
        family = socket.AF_INET6 if len(self.source) == 16 else socket.AF_INET
        a, b = (socket.inet_ntop(family, x) for x in (self.source, self.destination))
        p, q = struct.unpack("!2H", self.ports)
        return f"{a}.{p} > {b}.{q} protocol {self.protocol}"

    def back(self):
        return Flow(self.destination, self.source, self.protocol, self.ports[2:] + self.ports[:2])


def unified():
    """The folder of the cgroup2 hierarchy; where none can be written to, as in some containers,
    one that is mounted for the lab."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(folder, os.W_OK):
            return pathlib.Path(folder)
    OWN_MOUNT.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "cgroup2", "none", OWN_MOUNT], check=True)
    return OWN_MOUNT


def compiled():
    """The witness's object, compiled once a process."""
    if not compiled.path:
        folder = tempfile.mkdtemp(prefix=f"hf{os.getpid()}-witness-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = pathlib.Path(folder) / "witness.bpf.o"
        machine = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True)
        subprocess.run(
            ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror",
             f"-I/usr/include/{machine.stdout.strip()}", "-c", HERE / "witness.bpf.c",
             "-o", path], check=True)  # fmt: skip
        compiled.path = path
    return compiled.path


compiled.path = None


class Witness:
    """What the processes of one cgroup send."""

    def __init__(self, bpf, folder):
        self.bpf, self.folder = bpf, folder
        folder.mkdir()
        self.object = bpf.load(compiled())
        self.flows, self.missed = (bpf.map(self.object, name) for name in ("flows", "missed"))
        bpf.attach(bpf.program(self.object, "witness"), folder)

    def enter(self):
        """The command's beginning that runs the rest in the cgroup, under the same pid."""
        join = f'echo $$ >"{self.folder}/cgroup.procs" && exec "$@"'
        return ["sh", "-c", join, "sh"]

    def sent(self):
        """{(Flow, uid): (packets, payload)} until now."""
        missed = next(self.bpf.items(self.missed, 4, 8))[1]
        assert not any(missed), f"the witness missed {struct.unpack('=Q', missed)[0]} packets"
        found = {}
        for keys, values in self.bpf.batches(self.flows, FLOW.size, SENT.size):
            for key, sent in zip(FLOW.iter_unpack(keys), SENT.iter_unpack(values), strict=True):
                source, destination, family, protocol, ports, uid = key
                octets = 4 if family == 4 else 16
                flow = Flow(source[:octets], destination[:octets], protocol, ports)
                found[flow, uid] = sent
        return found

    def close(self):
        self.bpf.close(self.object)


class Witnesses:
    """The lab's two: of the daemon, and of what tests start."""

    count = itertools.count(1)

    def __init__(self):
        sweep()
        self.root = unified() / f"{ROOT_NAME}{os.getpid()}.{next(self.count)}"
        self.root.mkdir()
        self.bpf = Bpf()
        self.daemon = Witness(self.bpf, self.root / "daemon")
        self.clients = Witness(self.bpf, self.root / "clients")

    def close(self):
        """When none of their processes is left."""
        for witness in (self.daemon, self.clients):
            witness.close()
        remove(self.root)


def remove(root):
    """A cgroup of a lab with its two; one that is not empty stays for the next sweep."""
    for folder in (root / "daemon", root / "clients", root):
        with contextlib.suppress(OSError):
            folder.rmdir()


def sweep():
    """Remove what a lab left whose process is gone."""
    for root in unified().glob(f"{ROOT_NAME}*"):
        pid = root.name.removeprefix(ROOT_NAME).partition(".")[0]
        if not os.path.exists(f"/proc/{pid}"):
            remove(root)
