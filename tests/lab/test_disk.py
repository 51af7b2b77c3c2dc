"""A full disk: nothing is promised that cannot be kept, and what is live goes on.

    app ---- device (state_dir: a small tmpfs)  x  cloud: origin.example
"""

import os
import subprocess

import pytest

from hears import offline, problem, stored_id, wait_held, wait_state
from network import ORIGIN

CONFIG = {
    "defaults": {"hold": "500ms"},
    "rules": [{"name": "long", "match": {"path": ["/long"]}, "hold": "20s"}],
}


@pytest.fixture
def small_disk(lab):
    folder = lab.folder / "small"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    lab.kill_daemon()
    subprocess.run(["umount", str(folder)], check=True)


def leave(folder, room, name="filler"):
    """Fill the disk but for that many bytes."""
    disk = os.statvfs(folder)
    with open(folder / name, "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, disk.f_bavail * disk.f_frsize - room)


def test_with_a_full_disk_the_app_hears_507_and_proxying_goes_on(lab, small_disk, daemon, tmp_path):
    daemon(CONFIG | {"state_dir": str(small_disk)})
    (tmp_path / "body").write_bytes(b"d" * 300000)
    leave(small_disk, 14 << 20)
    offline(lab)
    stored, full = [], None
    for n in range(20):
        answer = lab.curl("app", f"http://origin.example/disk/{n}", "--data-binary",
                          f"@{tmp_path}/body")  # fmt: skip
        if answer.status != 503:
            full = answer
            break
        stored.append(stored_id(answer))
    assert stored and full
    problem(full, 507)
    assert "location" not in full.headers
    client = lab.curl_start("app", "http://origin.example/long", "-d", "x")
    wait_held(lab)
    lab.restore("wifi", "lte", wait=False)
    assert client.wait().status == 200
    for n, request_id in enumerate(stored):
        wait_state(lab, request_id, "done")
        assert [len(entry["body"]) for entry in lab.origin_log(f"/disk/{n}")] == [300000]
    assert lab.origin_log(f"/disk/{len(stored)}") == []
    # It might be a repeat of what owes its answer, and cannot be kept to find that out.
    leave(small_disk, 0, "more")
    assert lab.get("/v1/status")["queue"]["owing"] == len(stored)
    live = lab.curl("app", "http://origin.example/echo", "--data-binary", f"@{tmp_path}/body")
    assert live.status == 200 and live.body == b"d" * 300000


def test_without_a_byte_left_live_requests_go_on(lab, small_disk, daemon):
    daemon(CONFIG | {"state_dir": str(small_disk)})
    offline(lab)
    assert lab.dig("app", "origin.example")  # a new name could not be written down
    leave(small_disk, 0)
    problem(lab.curl("app", "http://origin.example/none-left", "-d", "x"), 507)
    client = lab.curl_start("app", "http://origin.example/long", "-d", "x")
    wait_held(lab)
    lab.restore("wifi", "lte")
    assert client.wait().status == 200
    (small_disk / "filler").unlink()
    offline(lab)
    request_id = stored_id(lab.curl("app", "http://origin.example/room-again", "-d", "x"))
    lab.restore("wifi", "lte")
    wait_state(lab, request_id, "done")


def test_it_starts_on_a_full_disk_and_reads_the_queue_when_there_is_room(lab, small_disk, daemon):
    config = CONFIG | {"state_dir": str(small_disk)}
    daemon(config)
    offline(lab)
    request_id = stored_id(lab.curl("app", "http://origin.example/delay/3", "-d", "x"))
    lab.restore("wifi")
    wait_state(lab, request_id, "sending")
    lab.kill_daemon()  # the lease stays, and cannot be taken back
    leave(small_disk, 0)
    lab.start_daemon(config, links=("wifi",), storing=False)
    assert "the queue cannot be read" in lab.log()
    assert [row["id"] for row in lab.requests()] == [request_id]
    assert lab.curl("app", f"http://{ORIGIN[0]}/echo", "-d", "x").status == 200
    (small_disk / "filler").unlink()
    lab.cut("wifi")
    stored_id(lab.curl("app", f"http://{ORIGIN[0]}/now", "-d", "x"))
    lab.restore("wifi")
    wait_state(lab, request_id, "done", timeout=30)
    assert lab.api("GET", "/readyz")[0] == 200


FRAMED = pytest.mark.parametrize("chunked", [(), ("-H", "Transfer-Encoding: chunked")],
                                 ids=["length", "chunked"])  # fmt: skip


@FRAMED
def test_a_disk_that_fills_under_a_body_costs_only_what_would_be_kept(
    lab, small_disk, daemon, tmp_path, chunked
):
    daemon(CONFIG | {"state_dir": str(small_disk)})
    body = bytes(range(256)) * (8 << 12)
    (tmp_path / "body").write_bytes(body)
    data = ("--data-binary", f"@{tmp_path}/body", *chunked)
    offline(lab)
    stored_id(lab.curl("app", "http://origin.example/echo", "-d", "x"))
    leave(small_disk, 14 << 20)  # 12 MB of it are not for bodies
    problem(lab.curl("app", "http://origin.example/long", *data), 507)
    lab.restore("wifi", "lte")
    wait_state(lab, lab.requests()[0]["id"], "done")
    # It might be a repeat, is kept as far as there is room, and goes on from there.
    live = lab.curl("app", "http://origin.example/echo", *data)
    assert live.status == 200 and live.body == body
    bodies = lab.get("/v1/status")["bodies"]
    assert (bodies["refused"], bodies["open"], bodies["files"], bodies["bytes"]) == (2, 0, 0, 0)


@FRAMED
def test_without_its_folder_the_daemon_keeps_no_large_body_and_goes_on(
    lab, small_disk, daemon, tmp_path, chunked
):
    folder = small_disk / "state"
    daemon(CONFIG | {"state_dir": str(folder)})
    (tmp_path / "body").write_bytes(b"d" * 300000)
    data = ("--data-binary", f"@{tmp_path}/body", *chunked)
    offline(lab)
    request_id = stored_id(lab.curl("app", "http://origin.example/echo", "-d", "x"))
    folder.rename(small_disk / "elsewhere")
    problem(lab.curl("app", "http://origin.example/long", *data), 507)
    lab.restore("wifi", "lte")
    wait_state(lab, request_id, "done")
    live = lab.curl("app", "http://origin.example/echo", *data)
    assert live.status == 200 and live.body == b"d" * 300000
    (small_disk / "elsewhere").rename(folder)
