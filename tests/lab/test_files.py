"""Who may open what the daemon keeps: files, the local socket, pins.

    state_dir/  holdfast.db*      /run/holdfast/NETNS.lock      bpffs holdfast/NETNS/
    api.sock
"""

import json
import os
import pathlib
import stat
import subprocess

import pytest

from kernelside import privileged


@pytest.fixture(scope="module")
def running(lab):
    """With a state folder that the daemon has to make."""
    (lab.folder / "state").mkdir()
    lab.start_daemon({"state_dir": str(lab.folder / "state" / "inner")})
    yield lab
    assert lab.stop_daemon() == 0, lab.log()
    lab.release()


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_queue_and_the_names_are_the_daemons_users_alone(running):
    folder = running.folder / "state" / "inner"
    files = list(folder.iterdir())
    assert mode(folder) == 0o700
    assert files and {mode(path) for path in files} == {0o600}


def test_the_local_socket_is_the_users_and_the_groups(running):
    assert stat.S_ISSOCK(os.stat(running.socket).st_mode)
    assert mode(running.socket) == 0o660


def test_the_lock_and_the_pins_are_the_users_alone(running):
    inode = running.inode()
    assert mode(f"/run/holdfast/{inode}.lock") == 0o600
    pins = pathlib.Path(f"/sys/fs/bpf/holdfast/{inode}")
    assert mode(pins) == 0o700 and mode(pins.parent) == 0o700
    assert {mode(pin) for pin in pins.iterdir()} == {0o600}


def test_cap_bpf_alone_does_not_get_at_the_maps(running):
    """Whoever can write own_sockets can send as the daemon."""
    pin = f"/sys/fs/bpf/holdfast/{running.inode()}/own_sockets"
    shown = json.loads(privileged(running, "device", "bpftool", "-j", "map", "show", "pinned", pin))
    only_bpf = ["setpriv", "--reuid=65533", "--clear-groups", "--inh-caps=-all,+bpf",
                "--ambient-caps=-all,+bpf", "--bounding-set=-all,+bpf"]  # fmt: skip
    for command in (["stat", pin], ["bpftool", "map", "show", "id", str(shown["id"])]):
        done = subprocess.run([*only_bpf, *command], capture_output=True, text=True)
        assert done.returncode != 0 and "ermi" in done.stderr, done
        assert subprocess.run(command, capture_output=True).returncode == 0
