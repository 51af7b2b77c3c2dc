"""The daemon is killed again and again while apps use it; then every request's life is compared
with what may become of one.

    app: threads of several kinds ---- device: holdfastd, SIGKILL ==wifi, lte== cloud: an origin
                                                                                 that remembers

    tests/lab/torture.py [--kills 300] [--seed N] [--daemon build/holdfastd]

Most kills are aimed: at a moment when something is held, while the database is written, right
after an app was told that its request is stored, right after the origin saw a request or answered
it, in the middle of a hand-over, while the daemon starts. Every few kills all is brought to an
end, and checked:

    what was acknowledged (202, 503 with Location) was delivered, and its row is done
    nobody got an answer that was meant for another request
    what was delivered more than once had the same Idempotency-Key each time, or the app itself
    asked more than once and never heard what became of it
    ordered requests arrived in their order
    an answer was handed over twice only when a kill came between
    the totals are the rows; nothing is left half done
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import struct
import sys
import threading
import time

from harness import Lab, wait_until
from hears import LOCATION, connect, delete_all, listen
from network import LINKS, ORIGIN

PORT = 8200
SETTLE_EVERY = 6
PATIENCE = 60
CONFIG = {
    "defaults": {"hold": "250ms", "attempts": 1000, "expire": "1h"},
    "rules": [
        {"name": "left", "match": {"path": ["/left*"]}, "hold": "1s", "on_disconnect": "store"},
        {"name": "accepted", "match": {"path": ["/accepted*"]}, "reply": "accept"},
    ],
}


# --- what is remembered ---


@dataclasses.dataclass
class Attempt:
    """One time that an app asked."""

    begun: float
    run: int  # of the daemon
    ended: float = 0
    status: int = 0  # 0: no answer, or half of one
    location: str = None
    handed: str = None  # Holdfast-Id
    body: bytes = b""
    error: str = ""

    def __str__(self):
        what = f"{self.status}" if self.status else f"broken: {self.error}"
        more = f" stored as {self.location}" if self.location else ""
        return what + more + (f" handed over from {self.handed}" if self.handed else "")


@dataclasses.dataclass
class Delivery:
    """One time that the origin had the whole request."""

    at: float
    run: int  # of the daemon, when the connection was made
    key: str
    link: str
    method: str
    sha: str
    n: int = 0
    what: str = ""

    def __str__(self):
        return f"delivered over {self.link} with key {self.key}, {self.what}"


class Request:
    """What one app wants, all its attempts and all its deliveries."""

    def __init__(self, number, kind, method, path, host, body=b"", fields=(), plan=()):
        self.number, self.kind, self.method, self.host = number, kind, method, host
        self.path, self.body, self.fields, self.plan = path, body, dict(fields), list(plan)
        self.key = self.fields.get("Idempotency-Key")
        self.sha = hashlib.sha256(body).hexdigest()
        self.attempts, self.deliveries = [], []

    def acknowledged(self):
        return [attempt.location for attempt in self.attempts if attempt.location]

    def life(self, kills):
        events = [(a.begun, f"app asks in run {a.run}") for a in self.attempts]
        events += [(a.ended, f"app hears {a}") for a in self.attempts]
        events += [(d.at, str(d)) for d in self.deliveries]
        first, last = min(events)[0], max(events)[0]
        events += [(at, f"KILLED: {why}") for at, why in kills if first <= at <= last]
        told = "\n".join(f"  {at:.4f} {what}" for at, what in sorted(events))
        return f"{self.method} {self.path} ({self.kind}, key {self.key}):\n{told}"


# --- the origin ---


class Origin:
    """Remembers each request, and answers as the request's plan says: "ok", "503" (with
    Retry-After), "cut" (in the middle of the response), "none" (closes), "slow"."""

    def __init__(self, torture):
        self.torture = torture
        self.server = listen(torture.lab, ORIGIN[0], PORT)
        self.server.settimeout(None)
        self.peers = []
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for peer in self.peers:
            peer.close()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, address = self.server.accept()
                self.peers.append(peer)
                arguments = (peer, address[0], self.torture.run)
                threading.Thread(target=self.serve, args=arguments, daemon=True).start()

    def serve(self, peer, client, run):
        link = next((name for name, link in LINKS.items() if client in link["address"]), client)
        peer.settimeout(PATIENCE)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, ValueError), peer, peer.makefile("rb") as reader:
            while self.one(peer, reader, link, run):
                pass

    def one(self, peer, reader, link, run):
        line = reader.readline()
        if not line:
            return False
        method, path, _ = line.decode().split()
        fields = http.client.parse_headers(reader)
        length = int(fields.get("Content-Length", 0))
        body = reader.read(length)
        if len(body) < length:
            return False
        request = self.torture.by_path[path]
        delivery = Delivery(time.time(), run, fields.get("Idempotency-Key"), link, method,
                            hashlib.sha256(body).hexdigest())  # fmt: skip
        delivery.n = len(request.deliveries)
        delivery.what = request.plan[delivery.n] if delivery.n < len(request.plan) else "ok"
        request.deliveries.append(delivery)
        self.torture.tell("replay seen" if delivery.key else "live seen")
        alive = self.answer(peer, request, delivery)
        self.torture.tell("replay answered" if delivery.key else "live answered")
        return alive

    def answer(self, peer, request, delivery):
        about = {"path": request.path, "sha": delivery.sha, "n": delivery.n}
        body = json.dumps(about).encode()
        body += b" " * (400000 if request.kind == "big" else 0)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if delivery.what == "503":
            peer.sendall(b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
            return True
        if delivery.what == "none":
            return False
        if delivery.what == "cut":
            peer.sendall(head + body[: len(body) // 2])
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if delivery.what == "slow":
            time.sleep(0.2)
        peer.sendall(head + body)
        return True


# --- the apps ---


class Stopped(Exception):
    pass


class Apps:
    """Each request of an app is a thread; the app's own patience has no end."""

    def __init__(self, torture):
        self.torture, self.chance = torture, torture.chance
        self.threads, self.wrong = [], []

    def new(self, kind, path=None, **more):
        t = self.torture
        t.count += 1
        method = {"get": "GET", "keyed": self.chance.choice(["POST", "PUT"])}.get(kind, "POST")
        size = self.chance.choice([10, 100, 1000, 200000]) if method != "GET" else 0
        body = self.chance.randbytes(size)
        plan = [] if self.chance.random() < 0.7 else [
            self.chance.choice(["503", "cut", "none", "slow"])]  # fmt: skip
        host = f"o{self.chance.randrange(3)}.many.example:{PORT}"
        more = {"host": host, "plan": plan, "body": body} | more
        path = path or {"left": "/left", "accepted": "/accepted"}.get(kind, "/" + kind)
        request = Request(t.count, kind, method, f"{path}/{t.count}", **more)
        t.by_path[request.path] = request
        return request

    def start(self, kind):
        if kind == "series":
            host = f"s{self.torture.count}.many.example:{PORT}"
            work = [self.new("series", host=host, body=b"%d" % n,
                             fields={"Prefer": "respond-async"}) for n in range(5)]  # fmt: skip
            self.torture.series.append(work)
        else:
            fields = {}
            if kind == "keyed":
                fields["Idempotency-Key"] = f"key-{self.torture.count}"
            if kind == "async":
                fields["Prefer"] = "respond-async"
            work = [self.new(kind, fields=fields)]
        thread = threading.Thread(target=self.live, args=(kind, work), daemon=True)
        self.threads.append(thread)
        thread.start()

    def live(self, kind, work):
        try:
            for request in work:
                getattr(self, "do_" + kind, self.until_answered)(request)
        except Stopped:
            pass
        except BaseException as error:
            self.wrong.append(error)

    def join(self):
        until = time.monotonic() + PATIENCE
        for thread in self.threads:
            thread.join(max(0, until - time.monotonic()))
        stuck = [thread for thread in self.threads if thread.is_alive()]
        self.threads = []
        if self.wrong:
            raise self.wrong[0]
        return len(stuck)

    def ask(self, request, leave_after=None):
        """One attempt, whatever becomes of it."""
        t = self.torture
        if t.over:
            raise Stopped
        attempt = Attempt(time.time(), t.run)
        request.attempts.append(attempt)
        try:
            with connect(t.lab, ORIGIN[0], PORT, timeout=0.5) as app:
                self.talk(app, request, attempt, leave_after)
        except (OSError, http.client.HTTPException) as error:
            attempt.error = repr(error)
        attempt.ended = time.time()
        return attempt

    def talk(self, app, request, attempt, leave_after):
        app.settimeout(20)
        fields = {"Host": request.host, "Content-Length": len(request.body)} | request.fields
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        app.sendall(f"{request.method} {request.path} HTTP/1.1\r\n{head}\r\n".encode())
        app.sendall(request.body)
        if leave_after is not None:
            time.sleep(leave_after)
            raise ConnectionAbortedError("the app left")
        response = http.client.HTTPResponse(app, method=request.method)
        response.begin()
        handed = response.getheader("Holdfast-Id")
        if handed:
            self.torture.tell("handing over")
        body = response.read()
        found = LOCATION.fullmatch(response.getheader("Location", ""))
        attempt.location = found[1] if found else None
        attempt.handed, attempt.body, attempt.status = handed, body, response.status
        if found:
            self.torture.tell("stored")
        if handed:
            self.torture.tell("handed over")

    def until(self, request, enough):
        while True:
            attempt = self.ask(request)
            if enough(attempt):
                return attempt
            time.sleep(0.05 if attempt.status else 0.1)

    def until_answered(self, request):
        """A 502 says that nobody knows: without a key this app leaves it at that."""
        last = [502] if not request.key else []
        return self.until(request, lambda a: a.status in (200, *last))

    def do_again(self, request):
        self.until_answered(request)
        self.until_answered(request)

    def do_async(self, request):
        request.fields["Prefer"] = "respond-async"
        self.until(request, lambda a: a.location or a.status == 200)

    do_series = do_accepted = do_async

    def do_left(self, request):
        self.ask(request, leave_after=self.torture.moment.choice([0.02, 0.3]))


# --- the model ---


class Model:
    def __init__(self, torture, rows):
        self.torture, self.rows, self.wrong = torture, rows, []

    def check(self, request):
        self.request = request
        for delivery in request.deliveries:
            self.must(delivery.sha == request.sha, "another body was delivered")
            self.must(delivery.method == request.method, "another method was delivered")
        self.acknowledged_is_delivered()
        self.answers_are_right()
        if request.method == "POST":
            self.repeats_have_the_same_key()
        self.paid_once()

    def must(self, true, what):
        if not true:
            self.wrong.append(f"{what}\n{self.request.life(self.torture.kills)}\n"
                              + self.rows_of(self.request))  # fmt: skip

    def rows_of(self, request):
        told = []
        for number, row in self.rows.items():
            if row["url"].endswith(request.path):
                told.append(f"  row {number} is {row['state']} after {row['attempts']} attempts")
        return "\n".join(told)

    def acknowledged_is_delivered(self):
        request = self.request
        for stored in request.acknowledged():
            key = request.key or stored
            self.must(any(d.key == key for d in request.deliveries), f"{stored} never arrived")
            self.must(stored in self.rows, f"{stored} has no row")
            if stored in self.rows:
                self.must(self.rows[stored]["state"] == "done", f"{stored} is not done")

    def answers_are_right(self):
        request = self.request
        for attempt in request.attempts:
            if attempt.status != 200:
                continue
            told = json.loads(attempt.body)
            right = told["path"] == request.path and told["sha"] == request.sha
            self.must(right, f"the app heard what was said to another request: {told}")
            delivery = request.deliveries[told["n"]]
            wanted = request.key or attempt.handed
            self.must(delivery.key == wanted, f"{attempt}: but it is of key {delivery.key}")

    def repeats_have_the_same_key(self):
        """Exchanges that were made, against attempts that may have made one."""
        request = self.request
        keys = [delivery.key for delivery in request.deliveries]
        if request.key:
            self.must(set(keys) <= {request.key}, f"delivered with keys {set(keys)}")
            return
        known, makers = set(), 0
        for attempt in request.attempts:
            matched = attempt.handed or (attempt.location and attempt.location in known)
            makers += not matched
            known.add(attempt.location)
        made = keys.count(None) + len({key for key in keys if key})
        self.must(made <= makers, f"{made} exchanges of {makers} attempts that may have made one")

    def paid_once(self):
        handed = {}
        for attempt in self.request.attempts:
            if attempt.handed:
                before = handed.setdefault(attempt.handed, attempt)
                again = before is attempt or before.run < attempt.run
                self.must(again, f"{attempt.handed} was handed over twice in one run")

    def in_order(self, series):
        """The first arrival of each. What a killed daemon had given to its kernel may come late."""
        began = 0
        for request in series:
            self.request = request
            if not request.deliveries:
                continue  # said already
            first = request.deliveries[0].at
            self.must(first >= began, f"arrived before {series.index(request) - 1} of its series")
            for later in series[series.index(request) + 1 :]:
                if later.deliveries:
                    self.late(request, later.deliveries[0])
            began = first

    def late(self, request, next_one):
        for delivery in request.deliveries:
            orphan = delivery.run < next_one.run
            self.must(delivery.at <= next_one.at or orphan, f"again after {next_one}")


# --- the torture ---


class Torture:
    AIMS = ("random", "held", "writing", "writing", "stored", "replay seen", "replay answered",
            "handing over", "handed over", "live seen", "live answered", "starting")  # fmt: skip
    KINDS = ("post", "post", "keyed", "async", "get", "series", "again", "big", "left",
             "accepted")  # fmt: skip

    def __init__(self, lab, seed):
        self.lab, self.seed, self.chance = lab, seed, random.Random(seed)
        self.moment = random.Random(seed)  # of the threads: what is done does not depend on it
        self.run, self.count, self.over = 0, 0, False
        self.kills, self.hits = [], collections.Counter()
        self.aim, self.shot = None, threading.Event()
        self.lock = threading.Lock()
        self.forget()
        self.totals = collections.Counter()
        self.origin, self.apps = Origin(self), Apps(self)

    def forget(self):
        self.by_path, self.series = {}, []

    def close(self):
        self.over = True
        self.origin.close()

    # --- kills ---

    def tell(self, event):
        """Called by whoever sees something happen: is this the moment?"""
        if event == self.aim:
            time.sleep(self.moment.choice([0, 0, 0.001, 0.004]))
            self.kill(event)

    def kill(self, why):
        with self.lock:
            if self.shot.is_set():
                return
            os.kill(self.lab.daemon.pid, signal.SIGKILL)
            self.kills.append((time.time(), why))
            self.hits[why] += 1
            self.shot.set()

    def watch(self, aim):
        """For aims that nobody tells of: look."""
        wal = self.lab.folder / "state/holdfast.db-wal"
        until = time.monotonic() + 3
        before = self.size(wal)
        while time.monotonic() < until and not self.shot.is_set():
            if aim == "writing" and self.size(wal) != before:
                return time.sleep(self.moment.choice([0, 0, 0.0005, 0.002]))
            if aim == "held" and self.lab.get("/v1/status")["queue"]["held"]:
                return
            time.sleep(0 if aim == "writing" else 0.01)

    @staticmethod
    def size(path):
        """WAL frames are written over when it is full: its time tells then."""
        try:
            stat = path.stat()
            return stat.st_size, stat.st_mtime_ns
        except FileNotFoundError:
            return None

    def shoot(self, aim):
        if aim == "random":
            time.sleep(self.chance.uniform(0, 0.6))
            self.kill(aim)
        elif aim in ("held", "writing"):
            self.watch(aim)
            self.kill(aim)
        elif not self.shot.wait(4):
            self.kill(f"missed: {aim}")

    def start(self, killed_once=False):
        self.lab.kill_daemon()  # collects the dead one
        if killed_once:
            enter = self.lab.witnessed("daemon", self.lab.network.enter("device"))
            begun = self.lab.spawn([*enter, self.lab.holdfastd, "--config",
                                    str(self.lab.config_file)])  # fmt: skip
            time.sleep(self.chance.uniform(0, 0.4))
            self.lab.end(begun, signal.SIGKILL)
            self.kills.append((time.time(), "starting"))
            self.hits["starting"] += 1
        self.run += 1
        self.lab.start_daemon(CONFIG, links=())

    # --- rounds ---

    def round(self):
        aim = self.chance.choice(self.AIMS)
        live = aim.startswith("live") or (aim == "random" and self.chance.random() < 0.3)
        links = self.lab.network
        if not live:
            self.lab.cut("wifi", "lte", wait=False)
        for _ in range(self.chance.randrange(3, 7)):
            self.apps.start(self.chance.choice(self.KINDS))
        if aim in ("handing over", "handed over", "replay seen", "replay answered"):
            self.apps.start("big")
            self.wait_for_rows()
        self.shot.clear()
        self.aim = aim
        if not live and self.chance.random() < 0.8 and aim not in ("held", "stored", "starting"):
            links.restore(self.chance.choice(["wifi", "lte"]))
        self.shoot("random" if aim == "starting" else aim)
        self.aim = None
        self.start(killed_once=aim == "starting")
        for link in ("wifi", "lte"):
            if self.chance.random() < 0.7:
                links.restore(link)

    def wait_for_rows(self):
        wait_until("something is stored",
                   lambda: self.lab.get("/v1/status")["queue"]["stored"], 5, 0.01)  # fmt: skip

    def all_rows(self):
        rows, query = {}, "/v1/requests?limit=500"
        while query:
            page = self.lab.get(query)
            rows |= {row["id"]: row for row in page["items"]}
            query = page["next"] and f"/v1/requests?limit=500&cursor={page['next']}"
        return rows

    def is_idle(self):
        queue = self.lab.get("/v1/status")["queue"]
        return not queue["held"] and not queue["stored"] and not queue["sending"]

    def settle(self):
        """All links are there and nobody is killed: everything comes to its end."""
        self.lab.restore("wifi", "lte")
        stuck = self.apps.join()
        idle = True
        try:
            wait_until("the queue is done", self.is_idle, PATIENCE)
        except AssertionError:
            idle = False
        model = Model(self, self.all_rows())
        for request in list(self.by_path.values()):
            model.check(request)
        for series in self.series:
            model.in_order(series)
        self.check_totals(model)
        if stuck or not idle:
            model.wrong.append(f"{stuck} apps never heard; the queue is idle: {idle}; "
                               + json.dumps(self.lab.get("/v1/status")["queue"]))  # fmt: skip
        self.count_totals()
        if model.wrong:
            raise AssertionError(f"seed {self.seed}, {len(self.kills)} kills:\n"
                                 + "\n\n".join(model.wrong[:3]))  # fmt: skip
        wait_until("the queue is empty", lambda: delete_all(self.lab), 15)
        self.forget()

    def check_totals(self, model):
        told = self.lab.get("/v1/status")["queue"]
        counted = collections.Counter(row["state"] for row in model.rows.values())
        for state in ("stored", "sending", "done", "failed", "expired"):
            if told[state] != counted[state]:
                model.wrong.append(f"status says {told[state]} {state}, it is {counted[state]}")

    def count_totals(self):
        for request in self.by_path.values():
            self.totals["requests"] += 1
            self.totals["attempts"] += len(request.attempts)
            self.totals["deliveries"] += len(request.deliveries)
            self.totals["again with the same key"] += sum(
                n - 1 for n in collections.Counter(
                    d.key for d in request.deliveries if d.key).values())  # fmt: skip
            self.totals["acknowledged"] += len(set(request.acknowledged()))
            self.totals["handed over"] += len({a.handed for a in request.attempts if a.handed})

    def go_on(self, kills):
        self.lab.start_daemon(CONFIG, fresh=True)
        while len(self.kills) < kills:
            for _ in range(SETTLE_EVERY):
                self.round()
            self.settle()

    def __str__(self):
        hits = ", ".join(f"{n} {what}" for what, n in sorted(self.hits.items()))
        totals = ", ".join(f"{n} {what}" for what, n in self.totals.items())
        return f"seed {self.seed}, {len(self.kills)} kills ({hits}): {totals}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000 % 1000000)
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--daemon", default=os.environ.get("HOLDFASTD", root / "build/holdfastd"))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with Lab(options.daemon) as lab:
        torture = Torture(lab, options.seed)
        try:
            torture.go_on(options.kills)
        finally:
            torture.close()
            print(torture)
        lab.stop_daemon()
    return 0


if __name__ == "__main__":
    sys.exit(main())
