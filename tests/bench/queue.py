"""A daemon with 100,000 stored exchanges, beside one with none.

    (no apps) ---- device: holdfastd, every link down ---- (no cloud)

The rows are written into the daemon's own tables while it is away: a hundred hosts, a tenth of
them finished, one of a rule of its own. Measured are the start until it is ready, the memory, and
how long pages of the list take, by any filter and however far behind the newest they are, in the
median and the slowest. Disk is what /tmp is on.
"""

import pathlib
import sqlite3
import time

from _measure import Bench, status_kib
from harness import Lab

ROWS = 100000
FILL = """
INSERT INTO requests (id, state, rule, source, method, scheme, authority, target, hash, body_hash,
    owes, ordered, blocked, importance, attempts_max, received, expires, next_attempt, bytes,
    body_bytes, finished)
  WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {rows} - 1)
  SELECT printf('01900000-0000-7000-8000-%012x', i), CASE WHEN i % 10 THEN 1 ELSE 3 + i / 10 % 3 END,
    CASE i WHEN 50 THEN 'rare' ELSE 'defaults' END, 'app', 'POST', 'http',
    printf('h%d.example', i % 100), printf('/v1/telemetry/%d', i), randomblob(32), randomblob(32),
    i % 2, i % 3 > 0, i % 3 > 0 AND i > 600, 5, 9, {now} - {rows} + i, 9e15, 0, 900, 256,
    CASE WHEN i % 10 THEN NULL ELSE {now} END
  FROM n;
INSERT INTO request_bodies (seq, fields, body)
  SELECT seq, zeroblob(100), randomblob(256) FROM requests;
INSERT INTO request_events (seq, n, at, what) SELECT seq, 1, received, 'stored' FROM requests;
"""
CONFIG = {"queue": {"max_bytes": "4G", "keep_response": "1d"}}
FILTERS = {
    "none": "", "stored": "&state=stored", "failed": "&state=failed", "sending": "&state=sending",
    "host": "&host=h7.example", "rule": "&rule=defaults",
    "no host": "&host=none.example", "rare rule": "&rule=rare",
    "stored, rare": "&state=stored&rule=rare", "failed, host": "&state=failed&host=h10.example",
}  # fmt: skip


def fill(lab):
    with sqlite3.connect(lab.folder / "state/holdfast.db") as db:
        db.executescript(FILL.format(rows=ROWS, now=int(time.time() * 1000)))
    db.close()


def measure_start(lab, bench, system):
    began = time.monotonic()
    lab.start_daemon(CONFIG, links=())
    bench.add("start", "ready", "ms", system, (time.monotonic() - began) * 1000)
    lab.cut("wifi", "lte")
    time.sleep(1)
    bench.add("rest", "RssAnon", "KiB", system, status_kib(lab.daemon.pid, "RssAnon"))


def pages(lab, query):
    """Milliseconds that each page of the whole list takes; a short list is read again."""
    took, cursor = [], ""
    while cursor or len(took) < 20:
        began = time.monotonic()
        page = lab.get(f"/v1/requests?limit=50{query}{cursor}")
        took.append((time.monotonic() - began) * 1000)
        cursor = f"&cursor={page['next']}" if page["next"] else ""
    return sorted(took)


def measure_pages(lab, bench, system):
    for name, query in FILTERS.items():
        took = pages(lab, query)
        bench.add(name, "page-50", "ms", system, took[len(took) // 2])
        bench.add(name, "page-max", "ms", system, took[-1])
    bench.add("listed", "RssAnon", "KiB", system, status_kib(lab.daemon.pid, "RssAnon"))


def main():
    bench = Bench("queue", rounds=3)
    with Lab() as lab:
        for number in range(bench.rounds):
            lab.start_daemon(CONFIG, fresh=True)
            lab.cut("wifi", "lte")
            lab.stop_daemon()
            for system in ("empty", "holdfast"):
                if system == "holdfast":
                    fill(lab)
                measure_start(lab, bench, system)
                measure_pages(lab, bench, system)
                lab.stop_daemon()
            print(f"round {number + 1}", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
