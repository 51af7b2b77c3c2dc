"""A disk that hangs, turns read-only, or dies: what is live goes on, nothing is promised that is not kept,
and service heals by itself.

    app ---- device (state_dir: ext4 on a loop device)  ==wifi==  cloud: origin.example
"""

import subprocess
import time

import pytest

from disks import Disk
from harness import wait_until
from hears import offline, problem, stored_id, wait_held, wait_state
from network import ORIGIN

CONFIG = {
    "defaults": {"hold": "500ms"},
    "rules": [{"name": "long", "match": {"path": ["/long"]}, "hold": "20s", "order": False},
              {"name": "ordered", "match": {"path": ["/ordered"]}, "hold": "20s"}],
}
BODY = b"d" * 100000


@pytest.fixture
def disk(lab):
    with Disk(lab.folder) as disk:
        yield disk
        lab.kill_daemon()


@pytest.fixture
def on_disk(lab, disk, daemon, request):
    """Started on it, with a name that has a virtual address and a stored exchange."""

    def start(**more):
        return daemon(CONFIG | {"state_dir": str(disk.path)}, **more)

    start()
    offline(lab)
    lab.path = f"/stored/{request.node.name}"
    lab.stored = stored_id(lab.curl("app", f"http://origin.example{lab.path}", "-d", "x"))
    return start


def is_live(lab):
    """Small and large, both ways; to another authority than that of what is stored, as it goes
    in order."""
    assert lab.curl("app", f"http://{ORIGIN[0]}/echo", "-d", "x").body == b"x"
    sent = lab.folder / "sent"
    sent.write_bytes(BODY)
    large = lab.curl("app", f"http://{ORIGIN[0]}/echo", "--data-binary", f"@{sent}")
    assert large.status == 200 and large.body == BODY


def test_while_the_disk_hangs_what_is_live_goes_on_and_nothing_is_promised(lab, disk, on_disk):
    with disk.hanging():
        waits = lab.curl_start("app", "http://origin.example/waits", "-d", "x")
        held = lab.curl_start("app", "http://origin.example/long", "-d", "y")
        wait_held(lab, 2)
        time.sleep(1.5)  # three times the hold
        assert waits.process.poll() is None, "was told that it is stored"
        assert lab.get("/v1/status")["store"]["waiting"] > 0
        lab.restore("wifi", "lte")
        assert held.wait().status == 200
        is_live(lab)
    request_id = stored_id(waits.wait())
    for stored in (request_id, lab.stored):
        wait_state(lab, stored, "done")
    assert len(lab.origin_log("/waits")) == len(lab.origin_log(lab.path)) == 1


def test_a_disk_that_turns_read_only_stops_nothing_but_storing(lab, disk, on_disk):
    disk.fail()
    problem(lab.curl("app", "http://origin.example/lost", "-d", "x"), 507)
    # Behind a backlog that cannot move.
    held = lab.curl_start("app", "http://origin.example/ordered", "-d", "y")
    wait_held(lab)
    lab.restore("wifi", "lte")
    assert held.wait().status == 200
    is_live(lab)
    health = lab.get("/v1/status")["health"]["store"]
    assert not health["ok"] and "Input/output" in health["detail"]
    # Its result cannot be written down, so it is not sent: it might be sent again after a start.
    assert lab.origin_log(lab.path) == []
    lab.kill_daemon()
    on_disk(fresh=False, links=(), storing=False)
    assert "Read-only" in lab.get("/v1/status")["health"]["store"]["detail"]
    lab.restore("wifi", "lte")
    is_live(lab)
    lab.kill_daemon()
    disk.repair()
    on_disk(fresh=False, links=())
    lab.restore("wifi", "lte")
    wait_state(lab, lab.stored, "done")
    assert len(lab.origin_log(lab.path)) == 1 and lab.origin_log("/lost") == []


def test_a_disk_that_dies_stops_nothing_but_storing(lab, disk, on_disk):
    disk.die()
    problem(lab.curl("app", "http://origin.example/lost-too", "-d", "x"), 507)
    lab.restore("wifi", "lte")
    is_live(lab)
    told = lab.get("/v1/status")
    assert not told["health"]["store"]["ok"]
    # What cannot be read is not corrupt.
    assert told["store"]["corrupt"] == 0 and told["store"]["failures"] > 0
    lab.kill_daemon()
    disk.repair()
    on_disk(fresh=False, links=())
    wait_state(lab, lab.stored, "done")
    assert lab.origin_log("/lost-too") == []


def test_what_could_not_be_opened_at_the_start_is_used_when_it_can(lab, daemon, small):
    config = CONFIG | {"state_dir": str(small)}
    daemon(config)
    offline(lab)
    request_id = stored_id(lab.curl("app", "http://origin.example/stored", "-d", "x"))
    address = lab.dig("app", "origin.example")
    lab.stop_daemon()
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    daemon(config, fresh=False, links=(), storing=False)
    lab.restore("wifi", "lte")
    is_live(lab)
    offline(lab)
    problem(lab.curl("app", f"http://{ORIGIN[0]}/none", "-d", "x"), 507)
    assert lab.get("/v1/status")["queue"]["stored"] == 0
    assert lab.dig("app", "origin.example") == []
    subprocess.run(["mount", "-o", "remount,rw", small], check=True)
    wait_until("it is opened", lab.requests, 25)
    assert lab.dig("app", "origin.example") == address
    lab.restore("wifi", "lte")
    wait_state(lab, request_id, "done")


@pytest.fixture
def small(lab):
    folder = lab.folder / "small"
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    yield folder
    lab.kill_daemon()
    subprocess.run(["umount", folder], check=True)
