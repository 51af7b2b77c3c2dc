"""A corrupt database is put aside, said, and service goes on: found at the start, or by a statement
while the daemon runs.

    app ---- device (state/holdfast.db, overwritten behind the daemon's back)  x  cloud: origin
"""

import re
import sqlite3
import subprocess

import pytest

from harness import wait_until
from hears import metric, offline, stored_id, wait_held, wait_state

CONFIG = {
    "defaults": {"hold": "300ms"},
    "rules": [{"name": "long", "match": {"path": ["/long"]}, "hold": "30s"}],
}


def state(lab):
    return lab.folder / "state"


def put_aside(lab):
    """The names of what was put aside, the logs left out."""
    names = sorted(path.name for path in state(lab).glob("holdfast.db.corrupt-*"))
    return [name for name in names if re.search(r"corrupt-\d+$", name)]


def store(lab, path, body="x"):
    return stored_id(lab.curl("app", f"http://origin.example{path}", "-d", body))


def ruin(path, begin, step=4096):
    """Rubbish where each page begins."""
    with open(path, "r+b") as file:
        for at in range(begin, path.stat().st_size, step):
            file.seek(at)
            file.write(b"\x5a" * 64)


def assert_told(lab):
    (aside,) = put_aside(lab)
    told = lab.get("/v1/status")
    assert told["store"]["corrupt"] == 1 and told["store"]["aside"] == aside
    assert any(aside in warning for warning in told["warnings"])
    assert metric(lab, "store_corrupt_total") == 1
    assert f"put aside as {aside}" in lab.log()
    assert lab.api("GET", "/readyz")[0] == 200


def test_corruption_met_while_it_runs_is_put_aside_and_all_goes_on(lab, daemon, tmp_path):
    daemon(CONFIG)
    events = lab.start("device", "curl", "-siN", "http://127.0.0.1:7080/v1/events")
    wait_until("connected", lambda: events.out.exists() and "200 OK" in events.out.read_text())
    offline(lab)
    address = lab.dig("app", "origin.example")
    (tmp_path / "body").write_bytes(b"b" * 3000000)  # more than is kept of the file in memory
    lost = [store(lab, f"/lost/{n}", f"@{tmp_path}/body") for n in range(2)]
    held = lab.curl_start("app", "http://origin.example/long", "-d", "held")
    wait_held(lab)
    for name in ("holdfast.db", "holdfast.db-wal"):
        path = state(lab) / name
        if path.exists() and path.stat().st_size > 3 * 4096:
            ruin(path, *((3 * 4096,) if name == "holdfast.db" else (32 + 24 + 3 * 4120, 4120)))
    kept = []
    for n in range(20):
        kept.append((n, store(lab, f"/kept/{n}")))
        lab.api("GET", f"/v1/requests/{lost[0]}/body")
        if put_aside(lab):
            break
    kept.append((99, store(lab, "/kept/99")))
    assert_told(lab)
    wait_until("told", lambda: "put aside" in events.out.read_text())
    events.kill()
    assert lab.dig("app", "origin.example") == address
    lab.restore("wifi", "lte")
    assert held.wait().status == 200
    wait_state(lab, kept[-1][1], "done")
    assert len(lab.origin_log("/kept/99")) == 1
    lab.kill_daemon()
    lab.start_daemon(CONFIG)
    offline(lab)
    assert lab.dig("app", "origin.example") == address  # it is in the new database, too
    assert lab.get("/v1/status")["store"]["corrupt"] == 0


@pytest.mark.parametrize("how", ["header", "cut", "page"])
def test_corruption_found_at_the_start_is_put_aside(lab, daemon, how):
    daemon(CONFIG)
    offline(lab)
    for n in range(3):
        store(lab, f"/{how}/{n}", "y" * 20000)
    assert lab.stop_daemon() == 0
    path = state(lab) / "holdfast.db"
    if how == "header":
        with open(path, "r+b") as file:
            file.write(b"no database at all")
    elif how == "cut":
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 2 + 100)
    else:
        ruin(path, 4096)
    lab.start_daemon(CONFIG, links=())
    assert_told(lab)
    offline(lab)
    request_id = store(lab, f"/{how}/new")
    lab.restore("wifi", "lte")
    wait_state(lab, request_id, "done")
    assert len(lab.origin_log(f"/{how}/new")) == 1


def test_a_newer_database_is_left_alone_and_said(lab, daemon):
    daemon(CONFIG)
    offline(lab)
    request_id = store(lab, "/newer")
    assert lab.stop_daemon() == 0
    path = state(lab) / "holdfast.db"
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    begun = subprocess.run(
        [*lab.network.enter("device"), lab.holdfastd, "--config", str(lab.config_file)],
        capture_output=True, text=True, timeout=20)  # fmt: skip
    assert begun.returncode == 1, begun.stderr
    assert f"of version {version + 1}" in begun.stderr and "newer holdfastd" in begun.stderr
    assert put_aside(lab) == []
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {version}")
    database.close()
    lab.start_daemon(CONFIG, links=())
    lab.restore("wifi", "lte")
    wait_state(lab, request_id, "done")
