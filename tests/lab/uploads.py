"""Programs for the steer hook: written here, compiled as a user would, signed with openssl, and
given to a daemon over its API."""

import base64
import hashlib
import json
import pathlib
import subprocess

import pytest

from harness import ROOT, wait_until

# What a body may use: the destination and the destination port of UDP and TCP over IPv4, else 0.
SOURCE = """
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "program.h"
%(head)s
%(metadata)s
static __always_inline int port_of(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(data + ETH_HLEN);

	if (data + ETH_HLEN + sizeof(*ip) + 4 > end || data[12] != 8 || data[13] != 0 ||
	    ip->ihl != 5 || (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP))
		return 0;
	return data[ETH_HLEN + 22] << 8 | data[ETH_HLEN + 23];
}
static __always_inline __u32 destination_of(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = (void *)(data + ETH_HLEN);

	return data + ETH_HLEN + sizeof(*ip) <= end && port_of(ctx) ? bpf_ntohl(ip->daddr) : 0;
}
SEC("%(section)s")
int %(function)s(%(context)s *ctx)
{
	%(body)s
}
"""
METADATA = 'HF_PROGRAM("%(name)s", "%(version)s");'
OTHER_ABI = """
char LICENSE[] SEC("license") = "GPL";
const struct hf_program hf_program SEC(HF_PROGRAM_SECTION) __attribute__((used)) = {
	.magic = HF_PROGRAM_MAGIC, .abi = HF_ABI_VERSION + 1, .name = "%(name)s",
	.version = "%(version)s"};
"""
PASS = "return XDP_PASS;"


def compile_program(folder, body=PASS, name="test", version="1.0.0", head="", metadata=METADATA,
                    section="xdp", context="struct xdp_md", function=None):  # fmt: skip
    """The object's bytes."""
    words = {"name": name, "version": version}
    words |= {"head": head, "section": section, "context": context, "body": body}
    words |= {"function": function or name.replace("-", "_"), "metadata": metadata % words}
    stem = folder / f"{name}-{hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]}"
    source, out = stem.with_suffix(".bpf.c"), stem.with_suffix(".bpf.o")
    if not out.exists():
        source.write_text(SOURCE % words)
        done = subprocess.run(
            ["clang", "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wno-unused-function",
             f"-I{ROOT / 'bpf'}", "-I/usr/include/x86_64-linux-gnu", "-c", source, "-o", out],
            capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
    return out.read_bytes()


def built(lab, kind, name):
    """An object of the build of the daemon under test."""
    return (pathlib.Path(lab.holdfastd).parent / "bpf" / kind / f"{name}.bpf.o").read_bytes()


class Key:
    """As docs/programs.md makes and uses one."""

    def __init__(self, folder, name):
        self.secret, self.public = folder / f"{name}.key", folder / f"{name}.pem"
        openssl = ["openssl"]
        subprocess.run([*openssl, "genpkey", "-algorithm", "ed25519", "-out", self.secret],
                       check=True, capture_output=True)  # fmt: skip
        subprocess.run([*openssl, "pkey", "-in", self.secret, "-pubout", "-out", self.public],
                       check=True, capture_output=True)  # fmt: skip

    def sign(self, elf):
        digest = self.secret.with_suffix(".digest")
        digest.write_bytes(hashlib.sha256(elf).digest())
        done = subprocess.run(
            ["openssl", "pkeyutl", "-sign", "-inkey", self.secret, "-rawin", "-in", digest],
            check=True, capture_output=True)  # fmt: skip
        return base64.b64encode(done.stdout).decode()


class Uploads:
    """The programs of a lab's daemon, over its API."""

    def __init__(self, lab):
        self.lab, self.key = lab, Key(lab.folder, "fleet")

    def compile(self, body=PASS, **more):
        return compile_program(self.lab.folder, body, **more)

    def post(self, elf, key=None, headers=None, **more):
        """(status, program or problem); signed by the trusted key unless told otherwise."""
        fields = {"Content-Type": "application/octet-stream"}
        if key is not False:
            fields["Holdfast-Signature"] = (key or self.key).sign(elf)
        return self.lab.api("POST", "/v1/programs", elf, fields | (headers or {}), **more)

    def upload(self, body=PASS, elf=None, **more):
        """The id of a program that is taken."""
        status, program = self.post(elf or self.compile(body, **more))
        assert status in (200, 201), program
        return program["id"]

    def command(self, path, body=None, **more):
        return self.lab.api("POST", f"/v1/programs/{path}", body, timeout=60, **more)

    def good(self, path, body=None):
        status, program = self.command(path, body)
        assert status == 200, program
        return program

    def activate(self, ident, **body):
        program = self.good(f"{ident}/activate", body or None)
        assert program["state"] == "on_probation" and program["id"] == ident, program
        return program

    def serve(self, ident, **body):
        """Activated and confirmed."""
        self.activate(ident, **body)
        program = self.good("confirm")
        assert program["state"] == "in_service" and program["id"] == ident, program

    def list(self):
        return self.lab.get("/v1/programs")["items"]

    def get(self, ident):
        return self.lab.get(f"/v1/programs/{ident}")

    def current(self):
        """(id, state) of what decides now."""
        program = self.lab.get("/v1/status")["program"]
        return program["id"], program["state"]

    def said(self, ident):
        """The program's history, as one text."""
        return "\n".join(event["what"] for event in self.get(ident)["events"])

    def wait_for(self, ident, state="in_service", timeout=10):
        wait_until(f"{ident} is {state}", lambda: self.current() == (ident, state), timeout)

    def reset(self):
        """The built-in program in service, and no other kept."""
        if self.current()[1] == "on_probation":
            self.good("rollback")
        if self.current()[0] != "builtin":
            self.good("builtin/activate")
        for program in self.list():
            if not program["builtin"]:
                assert self.lab.api("DELETE", f"/v1/programs/{program['id']}")[0] == 204

    def config(self, **changes):
        return {"programs": {"trusted_keys": [str(self.key.public)]} | changes}


@pytest.fixture(scope="module")
def module_uploads(lab, request):
    """One daemon for the whole file, with the file's CHANGES."""
    uploads = Uploads(lab)
    uploads.started_with = uploads.config() | getattr(request.module, "CHANGES", {})
    lab.start_daemon(uploads.started_with, fresh=True)
    yield uploads
    alive = lab.daemon is None or lab.daemon.poll() is None
    rc = lab.stop_daemon()
    lab.release()
    assert alive, f"the daemon died\n{lab.log()}"
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.fixture
def uploads(module_uploads):
    """The same, with nothing but the built-in program after each test."""
    yield module_uploads
    if module_uploads.lab.daemon and module_uploads.lab.daemon.poll() is None:
        module_uploads.reset()
