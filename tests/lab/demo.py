"""./dev demo [--once]: an outage, told while it happens.

The lab is drawn in network.py. Every step says what was done, what the app saw and what the
kernel counted, and is checked: a step that is not as told is marked, and the demo exits 1.
"""

import sys
import threading
import time

from forward import Forwarder
from harness import Lab, wait_until

BOLD, DIM, GREEN, RED, PLAIN = (
    ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5
)
HOLD = 3  # seconds
HOLD_LONG = 600  # of what is posted to /held
POSTED = "http://cloud.example/readings"
CONFIG = {
    "defaults": {"hold": f"{HOLD}s"},
    "rules": [{"name": "patient", "match": {"path": ["/held"]}, "hold": f"{HOLD_LONG}s"}],
}
# Counts what reaches the cloud for UDP port 9999.
SEEN = """
table inet seen {
    chain in {
        type filter hook prerouting priority -300
        udp dport 9999 counter
    }
}
"""
# An IP packet of one's own making, marked as the daemon marks its own.
RAW = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wifi0")
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x08100000)
s.sendto(bytes.fromhex("270f270f000c0000") + b"leak", ("203.0.113.9", 0))
"""
WATCHED = {"steer", "answer", "refuse", "drop"}


class Failed(Exception):
    pass


class Teller:
    """Prints the story, and keeps what did not hold."""

    def __init__(self, lab):
        self.lab = lab
        self.number = 0
        self.failed = []
        self.before = {}

    def counted(self):
        if not self.lab.daemon:
            return {}
        return {
            (c["interface"] or "-", c["hook"], c["verdict"], c["reason"]): c["packets"]
            for c in self.lab.counters()
            if c["verdict"] in WATCHED or c["reason"] in ("own-socket", "not-ours")
        }

    def chapter(self, text):
        print(f"\n{BOLD}{text}{PLAIN}", flush=True)

    def did(self, text):
        print(f"    {text}", flush=True)

    def saw(self, who, what):
        print(f"    {DIM}{who} sees{PLAIN}  {str(what).strip()}", flush=True)

    def check(self, text, holds):
        mark = f"{GREEN}yes{PLAIN}" if holds else f"{RED}NO {PLAIN}"
        print(f"    {mark} {text}", flush=True)
        if not holds:
            self.failed.append(f"step {self.number}: {text}")
        return holds

    def step(self, text, function):
        """One step: told, done, counted. A step that breaks does not end the story."""
        self.number += 1
        print(f"\n{BOLD}{self.number}. {text}{PLAIN}", flush=True)
        self.before = self.counted()
        try:
            function()
        except Exception as error:  # the story goes on, and says so at its end
            self.check(f"{type(error).__name__}: {error}", False)
        self.tell_counters()

    def tell_counters(self):
        for key, packets in sorted(self.counted().items()):
            more = packets - self.before.get(key, 0)
            if more > 0:
                interface, hook, verdict, reason = key
                print(f"    {DIM}kernel    {interface:6} {hook:7} {verdict:7} {reason:18} "
                      f"+{more}{PLAIN}", flush=True)  # fmt: skip


class Story:
    def __init__(self, lab, teller):
        self.lab, self.tell = lab, teller
        self.held = self.location = self.asynchronous = None
        self.stored = {}

    def last(self, path):
        found = self.lab.origin_log(path)
        if not found:
            raise Failed(f"the origin never received {path}")
        return found[-1]

    def carried(self, path, link):
        entry = self.last(path)
        self.tell.check(f"the origin received it over {link}", entry["link"] == link)

    # --- online ---

    def app_online(self):
        answer = self.lab.curl("app", "http://cloud.example/app")
        self.tell.did("app$ curl http://cloud.example/app")
        self.tell.saw("app", answer)
        self.tell.check("the origin's answer came", answer.status == 200)
        self.carried("/app", "wifi")
        steered = self.lab.count(interface="app0", hook="steer", reason="tcp-proxy")
        self.tell.check("through the proxy: the kernel steered its packets", steered > 0)

    def device_online(self):
        answer = self.lab.curl("device", "http://cloud.example/device")
        self.tell.did("device$ curl http://cloud.example/device")
        self.tell.saw("app", answer)
        self.tell.check("the origin's answer came", answer.status == 200)
        self.carried("/device", "wifi")
        steered = self.lab.count(interface="lo", hook="steer", reason="tcp-proxy")
        self.tell.check("through the proxy, though no container is around it", steered > 0)

    def both_families(self):
        for flag, family in (("-4", "IPv4"), ("-6", "IPv6")):
            answer = self.lab.curl("app", f"http://www.example/1k?{flag}", flag)
            self.tell.check(f"nginx by {family}: 1024 bytes",
                            answer.status == 200 and len(answer.body) == 1024)  # fmt: skip
        url, authority = "https://tls.example/", self.lab.cloud.folder / "ca.pem"
        answer = self.lab.curl("app", url, "--cacert", authority)
        self.tell.did(f"app$ curl {url}")
        self.tell.saw("app", answer)
        self.tell.check("HTTPS passes, the certificate is nginx's own", answer.status == 200)

    def wifi_cut(self):
        self.lab.cut("wifi", wait=False)
        answer = self.lab.curl("app", "http://cloud.example/after-wifi")
        self.tell.did("the carrier of wifi goes; at once: app$ curl http://cloud.example/after-wifi")
        self.tell.saw("app", answer)
        self.tell.check("the app notices nothing", answer.status == 200 and answer.seconds < 2)
        self.carried("/after-wifi", "lte")

    # --- offline ---

    def names_offline(self):
        self.lab.cut("lte")
        name = "never-asked.example"
        first = self.lab.dig("app", name)
        self.tell.did(f"the carrier of lte goes too; app$ dig {name}, five times, and AAAA")
        before = self.lab.count(hook="steer", reason="dns-kernel")
        more = [self.lab.dig("app", name) for _ in range(4)]
        sixth = self.lab.dig("app", name, "AAAA")
        kernel = self.lab.count(hook="steer", reason="dns-kernel") - before
        self.tell.saw("app", f"{' '.join(first)}  {' '.join(sixth)}")
        self.tell.check("a virtual address", bool(first) and first[0].startswith("198.1"))
        self.tell.check("the same each time", all(answer == first for answer in more))
        self.tell.check("and one of IPv6", bool(sixth) and sixth[0].startswith("fd5a:fe00:"))
        self.tell.check("from the second question on it was the kernel's", kernel >= 4)

    def post_held(self):
        url = "http://cloud.example/held"
        self.held = self.lab.curl_start("app", url, "--max-time", HOLD_LONG, "-d", "still here")
        self.tell.did(f"app$ curl -d 'still here' {url} &")
        wait_until("held", lambda: self.lab.requests("?state=held"))
        self.tell.check("it is held: the app waits, nothing is refused", self.held.running())

    # --- around the proxy ---

    def around(self):
        tell, lab = self.tell, self.lab
        lab.network.run("cloud", "nft", SEEN)
        answer = lab.curl("device", "http://203.0.113.9/around", "--interface", "wifi0",
                          "--max-time", "2")  # fmt: skip
        tell.did("device$ curl --interface wifi0 http://203.0.113.9/around")
        tell.saw("program", answer)
        tell.check("bound to a link: nothing came of it", answer.status == 0)
        tell.check("the origin saw nothing", not lab.origin_log("/around"))
        raw = lab.host("/usr/bin/python3", "-c", RAW)
        tell.did("device# a raw socket on wifi0, with the daemon's own mark, sends to UDP 9999")
        tell.check("the kernel took the packet", raw.rc == 0)
        tell.check("the cloud saw none of it", "packets 0 " in self.seen())
        dropped = lab.count(interface="wifi0", hook="guard", verdict="drop", reason="not-ours")
        tell.check(f"the guard says why: not-ours, {dropped} packets", dropped >= 2)

    def seen(self):
        return self.lab.network.run("cloud", "nft", "list", "table", "inet", "seen")

    # --- past the hold ---

    def post(self, body, *arguments):
        shown = " ".join(f"'{a}'" if " " in a else a for a in arguments)
        self.tell.did(f"app$ curl {shown + ' ' if shown else ''}-d {body} {POSTED}")
        answer = self.lab.curl("app", POSTED, "-d", body, *arguments)
        self.tell.saw("app", answer)
        return answer

    def post_stored(self):
        tell = self.tell
        answer = self.post("n=1")
        self.location = answer.headers.get("location", "")
        tell.check("503, after its hold", answer.status == 503 and answer.seconds >= HOLD - 0.5)
        tell.check("Retry-After says when", "retry-after" in answer.headers)
        tell.check(f"Location: {self.location}",
                   self.location.startswith("http://holdfast.internal/v1/requests/"))  # fmt: skip
        followed = self.lab.curl("app", self.location)
        tell.did(f"app$ curl {self.location}")
        tell.saw("app", followed)
        tell.check("it is stored, and the app can see it there",
                   followed.status == 200 and followed.json()["state"] == "stored")  # fmt: skip

    def post_again(self):
        before = len(self.lab.requests())
        again = self.post("n=1")
        self.tell.check("503 again, with the same Location",
                        again.status == 503 and again.headers.get("location") == self.location)  # fmt: skip
        self.tell.check("it was not stored again", len(self.lab.requests()) == before)
        other = self.post("n=2")
        self.tell.check("another body is another request",
                        other.status == 503 and other.headers.get("location") != self.location)  # fmt: skip

    def post_async(self):
        answer = self.post("n=3", "-H", "Prefer: respond-async")
        self.tell.check("202 at once", answer.status == 202 and answer.seconds < HOLD - 1)
        self.tell.check("Preference-Applied",
                        "respond-async" in answer.headers.get("preference-applied", ""))  # fmt: skip
        self.asynchronous = answer.headers.get("location", "")

    # --- the daemon dies ---

    def killed(self):
        tell, lab = self.tell, self.lab
        self.stored = {r["id"]: r["state"] for r in lab.requests("?state=stored")}
        received = len(lab.origin_log())
        self.lost = lab.count(reason="no-listener") + lab.count(reason="not-ours")
        lab.kill_daemon()
        tell.did("kill -9 holdfastd; then the carrier of wifi comes back, while nobody is there")
        lab.restore("wifi", wait=False)
        clients = [
            lab.curl_start(where, "http://203.0.113.9/while-dead", "--max-time", "3", *more)
            for where, more in (("app", ()), ("device", ()), ("device", ("--interface", "wifi0")))
        ]
        ping = lab.app("ping", "-c", "2", "-W", "1", "203.0.113.9")
        answers = [client.wait() for client in clients]
        for who, answer in zip(("app", "device", "device, bound to wifi0"), answers):
            tell.saw(who, answer)
        tell.check("nothing got past", all(answer.status == 0 for answer in answers))
        tell.check("not even a ping", ping.rc != 0)
        came = [f"{e['method']} {e['path']} from {e['link']}" for e in lab.origin_log()[received:]]
        tell.check(f"the origin received nothing {' '.join(came)}", not came)
        gone = self.held.wait()
        tell.saw("held app", gone)
        tell.check("the held app's connection is closed: it knows to ask again", gone.rc != 0)
        lab.cut("wifi")

    def started_again(self):
        tell, lab = self.tell, self.lab
        tell.did("holdfastd starts again, both links are cut")
        lab.start_daemon(CONFIG, links=())
        now = {r["id"]: r["state"] for r in lab.requests("?state=stored")}
        tell.check(f"all {len(now)} stored requests are there",
                   len(now) >= 3 and now == self.stored)  # fmt: skip
        more = lab.count(reason="no-listener") + lab.count(reason="not-ours") - self.lost
        tell.check(f"the kernel went on counting: {more} packets had nobody to take them", more > 0)
        name = lab.dig("app", "cloud.example")
        tell.check("names go on", bool(name) and name[0].startswith("198.1"))
        self.post_held()

    # --- a link returns ---

    def returned(self):
        tell, lab = self.tell, self.lab
        tell.did("the carrier of lte comes back")
        lab.restore("lte")
        held = self.held.wait(timeout=60)
        tell.saw("held app", held)
        tell.check("the held request completes", held.status == 200)
        wait_until("replayed", lambda: not lab.requests("?state=stored"), timeout=30)
        bodies = [entry["body"].decode() for entry in lab.origin_log("/readings")]
        tell.saw("origin", ", ".join(bodies))
        tell.check("the stored ones arrived, in order, each once", bodies == ["n=1", "n=2", "n=3"])
        order = [entry["path"] for entry in lab.origin_log(method="POST")]
        tell.check("and the held one after them", order == ["/readings"] * 3 + ["/held"])

    def paid(self):
        tell = self.tell
        answer = self.post("n=1")
        tell.check("the origin's real response", answer.status == 200 and
                   answer.json().get("body") == "n=1")  # fmt: skip
        tell.check(f"Holdfast-Id: {answer.headers.get('holdfast-id')}, "
                   f"Age: {answer.headers.get('age')}",
                   answer.headers.get("holdfast-id", "none") in self.location)  # fmt: skip
        tell.check("and it was not sent twice", len(self.lab.origin_log("/readings")) == 3)
        url = self.asynchronous + "/response"
        answer = self.lab.curl("app", url)
        tell.did(f"app$ curl {url}")
        tell.saw("app", answer)
        tell.check("the answer of the asynchronous one can be fetched", answer.status == 200)


def tell_story(lab, tell):
    story = Story(lab, tell)
    tell.chapter("Online")
    tell.step("An app in its container fetches by name, unmodified", story.app_online)
    tell.step("So does a program of the device itself", story.device_online)
    tell.step("IPv4, IPv6, and TLS as it is", story.both_families)
    tell.step("A program goes around the proxy, and is stopped by the guard", story.around)
    tell.step("wifi is cut", story.wifi_cut)
    tell.chapter("Offline")
    tell.step("Both links are cut: names still resolve", story.names_offline)
    tell.step("A request is held", story.post_held)
    tell.step("Another waits past its hold, and is stored", story.post_stored)
    tell.step("The same request again is recognised", story.post_again)
    tell.step("An app that does not want to wait", story.post_async)
    tell.chapter("The daemon is killed")
    tell.step("SIGKILL: nothing gets past", story.killed)
    tell.step("It starts again: nothing stored is lost", story.started_again)
    tell.chapter("A link returns")
    tell.step("What was held completes, what was stored is replayed", story.returned)
    tell.step("The app tries again, and gets its answer", story.paid)


def main():
    if sys.argv[1:] not in ([], ["--once"]):
        sys.exit("usage: demo.py [--once]")
    began = time.monotonic()
    print("making a lab: an app, a device with wifi and lte, a cloud ...", flush=True)
    with Lab() as lab, Forwarder(lab.socket) as forwarder:
        lab.start_daemon(CONFIG)
        print(f"the page and the API: {forwarder.url}")
        tell = Teller(lab)
        tell_story(lab, tell)
        print(f"\n{tell.number} steps in {time.monotonic() - began:.0f} s", flush=True)
        for what in tell.failed:
            print(f"{RED}not as told{PLAIN}: {what}", flush=True)
        if tell.failed:
            print("\n".join(["the daemon's log:", *lab.log().splitlines()[-40:]]))
        else:
            print("every step was as told", flush=True)
        if "--once" not in sys.argv:
            lab.restore("wifi")
            print(f"\nthe lab stays up: {forwarder.url}\n"
                  f"  sudo ip netns exec {lab.network.name('app')} curl http://cloud.example/\n"
                  f"  sudo ip -n {lab.network.name('cloud')} link set wifi-gw down\n"
                  "Ctrl-C ends it", flush=True)  # fmt: skip
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print("\ntaking the lab down")
    return 1 if tell.failed else 0


if __name__ == "__main__":
    sys.exit(main())
