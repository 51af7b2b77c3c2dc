"""docs/programs.md, as a new user follows it: every command, word for word, from an empty folder with
the installed headers and nothing of the source tree, to a program in service. And the examples.

    person --docs/programs.md--> first.bpf.o --POST /v1/programs--> holdfastd --> app0, lo

The page's commands are its indented blocks, in their order."""

import base64
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from harness import ROOT, wait_until
from kernelside import Moved
from network import NGINX, ORIGIN
from uploads import built, module_uploads, uploads  # noqa: F401

PAGE = (ROOT / "docs" / "programs.md").read_text()


def commands(first, last):
    """The indented blocks from one heading to another (not included)."""
    part = PAGE[PAGE.index(f"## {first}") : PAGE.index(f"## {last}")]
    return "\n".join(line[4:] for line in part.splitlines() if line.startswith("    ")) + "\n"


class Shell:
    """An empty folder, and what `cmake --install` puts in place elsewhere."""

    def __init__(self, holdfastd, folder):
        self.prefix, self.folder = folder / "prefix", folder / "empty"
        build = pathlib.Path(holdfastd).parent / "bpf"
        subprocess.run(
            ["cmake", "--install", build, "--prefix", self.prefix], check=True, capture_output=True
        )
        self.folder.mkdir()

    def run(self, script, enter=()):
        environment = dict(os.environ, C_INCLUDE_PATH=str(self.prefix / "include"))
        done = subprocess.run([*enter, "bash", "-eu", "-o", "pipefail", "-c", script],
                              cwd=self.folder, env=environment, capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def trusted(uploads):
    """The file with the key that the daemon trusts, for others to overwrite."""
    before = uploads.key.public.read_bytes()
    yield uploads.key.public
    uploads.key.public.write_bytes(before)


@pytest.fixture
def shell(lab, tmp_path):
    return Shell(lab.holdfastd, tmp_path)


def test_the_commands_of_the_page_compile_and_sign_a_program(shell):
    shell.run(commands("The smallest", "Uploading"))
    assert len(base64.b64decode((shell.folder / "first.sig").read_text())) == 64
    shell.run(
        "base64 -d first.sig > raw && openssl dgst -sha256 -binary first.bpf.o > again &&"
        "openssl pkeyutl -verify -rawin -pubin -inkey fleet.pub -in again -sigfile raw"
    )


def test_the_installed_examples_compile_with_the_command_of_the_page(shell):
    examples = sorted((shell.prefix / "share" / "holdfast" / "examples").glob("*.bpf.c"))
    names = [path.name.removesuffix(".bpf.c") for path in examples]
    assert names == ["dns-port", "lockdown", "observe"]
    for name, path in zip(names, examples):
        shutil.copy(path, shell.folder)
        shell.run(commands("Compiling", "Signing").replace("first.bpf", f"{name}.bpf"))
        assert (shell.folder / f"{name}.bpf.o").stat().st_size > 0


def documents(text):
    """JSON documents one behind the other."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_the_page_leads_to_a_program_in_service_and_back(uploads, trusted, shell):
    lab = uploads.lab
    enter = lab.network.enter("device")
    shell.run(commands("The smallest", "Uploading"))
    shutil.copy(shell.folder / "fleet.pub", trusted)
    uploading = commands("Uploading", "In service")
    (program,) = documents(shell.run(uploading, enter))
    assert (program["name"], program["state"]) == ("first", "available"), program
    given = f"{uploading.splitlines()[0]}\nID={program['id']}\n"
    probation, status, counters, confirmed, after = documents(
        shell.run(given + commands("In service", "The shared maps"), enter)
    )
    assert probation["state"] == status["program"]["state"] == "on_probation"
    assert status["program"]["name"] == "first"
    assert counters["items"]
    assert (confirmed["id"], confirmed["state"]) == (program["id"], "in_service")
    assert after["id"] == "builtin"


# --- the examples ---


def serve(uploads, name):
    ident = uploads.upload(elf=built(uploads.lab, "examples", name))
    uploads.serve(ident)


def test_observe_counts_what_passes_and_takes_nothing_away(uploads):
    lab = uploads.lab
    serve(uploads, "observe")
    counted = Moved(lab, interface="app0", hook="steer", verdict="pass", reason="custom")
    answer = lab.curl("app", f"http://{ORIGIN[0]}/observed", "--max-time", "5")
    assert answer.status == 200
    assert counted() > 3


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("where", ["app", "device"])
def test_lockdown_leaves_one_host_and_dns(uploads, where, family):
    lab = uploads.lab
    serve(uploads, "lockdown")
    dropped = Moved(lab, hook="steer", verdict="drop", reason="custom")

    def reaches(address):
        url = f"http://[{address}]/" if family else f"http://{address}/"
        return lab.curl(where, url, "--max-time", "1").status == 200

    assert reaches(ORIGIN[family])
    assert not dropped()
    assert not reaches(NGINX[family])
    assert dropped()
    assert lab.dig(where, "origin.example", "AAAA" if family else "A", server="8.8.8.8")


def test_dns_port_moves_questions_to_port_54_and_the_answers_back(uploads):
    lab = uploads.lab
    server = lab.start("device", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=54",
                       "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1,::1",
                       "--bind-interfaces", "--address=/moved.test/192.0.2.99",
                       "--pid-file=")  # fmt: skip

    def asked(address, *arguments):
        return lab.dig("device", "moved.test", "A", *arguments, server=address)

    wait_until("dnsmasq answers", lambda: asked("127.0.0.1", "-p", "54") == ["192.0.2.99"])
    assert asked("127.0.0.1") != ["192.0.2.99"]
    serve(uploads, "dns-port")
    for address in ("127.0.0.1", "::1"):
        assert asked(address) == ["192.0.2.99"]
        assert asked(address, "+tcp") == ["192.0.2.99"]
    lab.end(server.process)
