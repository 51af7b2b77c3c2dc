"""./dev demo [--once]: an outage, told while it happens.

The lab is drawn in network.py. Every step says what was done, what the app saw and what the
kernel counted, and is checked: a step that is not as told is marked, and the demo exits 1.
"""

import signal
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
        self.held = self.location = self.first = None
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
