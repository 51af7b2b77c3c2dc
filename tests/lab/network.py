"""The lab's network namespaces.

        PREFIX-app                 PREFIX-device                       PREFIX-cloud
    eth0 192.0.2.2/24 ------- app0 192.0.2.1/24
         2001:db8:a::2/64          2001:db8:a::1/64
                               wifi0 198.51.100.2/25 -------- wifi-gw 198.51.100.1/25
                                     2001:db8:1::2/64                 2001:db8:1::1/64
                               lte0 198.51.100.130/25 ------- lte-gw  198.51.100.129/25
                                     2001:db8:2::2/64                 2001:db8:2::1/64
                                                              lo 203.0.113.9 .10
                                                                 2001:db8:cafe::9 ::10

The device has default routes over both links, wifi before lte, and forwards: what does not
get past it is kept back by Holdfast and nothing else.
"""

import os
import pathlib
import re
import shutil
import subprocess

NAMES = ("app", "device", "cloud")
NETNS = pathlib.Path("/run/netns")
ETC = pathlib.Path("/etc/netns")

LINKS = {
    "wifi": {
        "device": "wifi0",
        "gateway": "wifi-gw",
        "address": ("198.51.100.2", "2001:db8:1::2"),
        "router": ("198.51.100.1", "2001:db8:1::1"),
        "prefix": (25, 64),
        "metric": 100,
    },
    "lte": {
        "device": "lte0",
        "gateway": "lte-gw",
        "address": ("198.51.100.130", "2001:db8:2::2"),
        "router": ("198.51.100.129", "2001:db8:2::1"),
        "prefix": (25, 64),
        "metric": 200,
    },
}
ORIGIN = ("203.0.113.9", "2001:db8:cafe::9")
NGINX = ("203.0.113.10", "2001:db8:cafe::10")
RESOLV = {"app": "192.0.2.1", "device": "198.51.100.1", "cloud": "198.51.100.1"}
RESOLV |= {"one": "172.17.0.1", "two": "8.8.8.8"}  # which some tests add


def run(*command, check=True, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def sweep():
    """Remove what a lab left whose process is gone."""
    for path in NETNS.glob("hf*-*"):
        found = re.fullmatch(r"hf(\d+)-(?:app|device|cloud|one|two)", path.name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            remove(path.name)


def remove(name):
    """End what runs in a namespace, and remove it."""
    for pid in run("ip", "netns", "pids", name, check=False).split():
        run("kill", "-9", pid, check=False)
    run("ip", "netns", "del", name, check=False)
    shutil.rmtree(ETC / name, ignore_errors=True)


class Network:
    def __init__(self, prefix):
        self.prefix = prefix
        self.silenced = set()

    def name(self, where):
        return f"{self.prefix}-{where}"

    def enter(self, where):
        """The command's beginning that runs the rest there; bpffs stays visible."""
        return ["nsenter", f"--net={NETNS / self.name(where)}", "--"]

    def run(self, where, *command, check=True, **more):
        return run(*self.enter(where), *command, check=check, **more)

    def up(self):
        for where in NAMES:
            self.add_namespace(where)
        self.add_app()
        for link in LINKS.values():
            self.add_link(link)
        for address in (*ORIGIN, *NGINX):
            self.address("cloud", "lo", address, 128 if ":" in address else 32)
        # The way back to the apps is there, so that what leaks arrives and is seen.
        wifi = LINKS["wifi"]["address"]
        self.run("cloud", "ip", "route", "add", "192.0.2.0/24", "via", wifi[0])
        self.run("cloud", "ip", "-6", "route", "add", "2001:db8:a::/64", "via", wifi[1])

    def down(self):
        for where in NAMES:
            remove(self.name(where))

    def add_namespace(self, where):
        name = self.name(where)
        run("ip", "netns", "add", name)
        (ETC / name).mkdir(parents=True, exist_ok=True)
        (ETC / name / "resolv.conf").write_text(f"nameserver {RESOLV[where]}\n")
        settings = {
            "net.ipv6.conf.all.keep_addr_on_down": 1,
            "net.ipv6.conf.default.accept_dad": 0,
            "net.ipv6.conf.default.accept_ra": 0,
            "net.ipv4.conf.all.rp_filter": 2 if where == "device" else 0,
            "net.ipv4.conf.default.rp_filter": 2 if where == "device" else 0,
            "net.ipv4.ping_group_range": "0 2147483647",
        }
        if where == "device":
            settings |= {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
        self.run(where, "sysctl", "-qw", *(f"{k}={v}" for k, v in settings.items()))
        self.run(where, "ip", "link", "set", "lo", "up")

    def veth(self, where, device, peer_where, peer):
        run("ip", "link", "add", device, "netns", self.name(where), "type", "veth",
            "peer", "name", peer, "netns", self.name(peer_where))  # fmt: skip
        self.run(where, "ip", "link", "set", device, "up")
        self.run(peer_where, "ip", "link", "set", peer, "up")

    def ask_neighbours_often(self, where, device):
        """Who asks for its router while the carrier is gone asks again after this; the kernel's
        second would pass in most tests that cut a link and bring it back."""
        keys = (f"net.ipv{n}.neigh.{device}.retrans_time_ms=50" for n in (4, 6))
        self.run(where, "sysctl", "-qw", *keys)

    def address(self, where, device, address, bits):
        more = ["nodad"] if ":" in address else []
        self.run(where, "ip", "address", "add", f"{address}/{bits}", "dev", device, *more)

    def add_app(self):
        self.veth("device", "app0", "app", "eth0")
        for address, bits in (("192.0.2.1", 24), ("2001:db8:a::1", 64)):
            self.address("device", "app0", address, bits)
        for address, bits in (("192.0.2.2", 24), ("2001:db8:a::2", 64)):
            self.address("app", "eth0", address, bits)
        self.run("app", "ip", "route", "add", "default", "via", "192.0.2.1")
        self.run("app", "ip", "-6", "route", "add", "default", "via", "2001:db8:a::1")

    def add_link(self, link):
        self.veth("device", link["device"], "cloud", link["gateway"])
        for where, end in (("device", "device"), ("cloud", "gateway")):
            self.ask_neighbours_often(where, link[end])
        for n, family in enumerate(("-4", "-6")):
            self.address("cloud", link["gateway"], link["router"][n], link["prefix"][n])
            self.address("device", link["device"], link["address"][n], link["prefix"][n])
            self.run("device", "ip", family, "route", "add", "default", "via", link["router"][n],
                     "dev", link["device"], "metric", str(link["metric"]))  # fmt: skip

    # --- what happens to links ---

    def cut(self, name):
        """The carrier goes."""
        self.run("cloud", "ip", "link", "set", LINKS[name]["gateway"], "down")

    def silence(self, name):
        """The carrier and the addresses stay, but nothing arrives any more."""
        rules = f"""
            table inet silence_{name} {{
                chain in {{
                    type filter hook prerouting priority -400;
                    iifname "{LINKS[name]['gateway']}" drop
                }}
            }}
        """
        self.run("cloud", "nft", rules)
        self.silenced.add(name)

    def restore(self, name):
        """Whatever happened to the link, it is well again."""
        self.run("cloud", "ip", "link", "set", LINKS[name]["gateway"], "up")
        if name in self.silenced:
            self.run("cloud", "nft", "delete", "table", "inet", f"silence_{name}")
            self.silenced.remove(name)
