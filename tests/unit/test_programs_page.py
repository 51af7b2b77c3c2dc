"""docs/programs.md, as a new user follows it: every command up to the upload, word for word, in an
empty folder, with the installed headers and nothing of the source tree.

The page's commands are its indented blocks, in their order."""

import base64
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BUILD = pathlib.Path(os.environ.get("HOLDFASTD", ROOT / "build" / "holdfastd")).parent


def commands(first, last):
    """The indented blocks from one heading to another (not included)."""
    text = (ROOT / "docs" / "programs.md").read_text()
    part = text[text.index(f"## {first}") : text.index(f"## {last}")]
    return "\n".join(line[4:] for line in part.splitlines() if line.startswith("    ")) + "\n"


@pytest.fixture
def installed(tmp_path):
    """What `cmake --install` puts in place, and a shell that sees no other headers of ours."""
    prefix = tmp_path / "prefix"
    subprocess.run(
        ["cmake", "--install", BUILD / "bpf", "--prefix", prefix], check=True, capture_output=True
    )
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(script):
        environment = dict(os.environ, C_INCLUDE_PATH=str(prefix / "include"))
        return subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    run.folder, run.prefix = folder, prefix
    return run


def test_the_commands_of_the_page_compile_and_sign_a_program(installed):
    result = installed(commands("The smallest", "Uploading"))
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr
    assert len(base64.b64decode((installed.folder / "first.sig").read_text())) == 64
    verified = installed(
        "base64 -d first.sig > raw && openssl dgst -sha256 -binary first.bpf.o > again &&"
        "openssl pkeyutl -verify -rawin -pubin -inkey fleet.pub -in again -sigfile raw"
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_installed_examples_compile_with_the_command_of_the_page(installed):
    examples = sorted((installed.prefix / "share" / "holdfast" / "examples").glob("*.bpf.c"))
    assert [path.name for path in examples] == [
        "dns-port.bpf.c",
        "lockdown.bpf.c",
        "observe.bpf.c",
    ]
    command = commands("Compiling", "Signing")
    for path in examples:
        name = path.name.removesuffix(".bpf.c")
        shutil.copy(path, installed.folder)
        result = installed(command.replace("first.bpf", f"{name}.bpf"))
        assert result.returncode == 0, result.stderr
        assert (installed.folder / f"{name}.bpf.o").stat().st_size > 0
