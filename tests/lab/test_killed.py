"""When the daemon is killed nothing opens: steering and guard stay in the kernel until the next
start, which adopts them, or until holdfastd --release.

    app --app0--> XDP steer --x  (no socket takes it)
    host --lo-->      |                     wifi0, lte0 [tc egress guard] --x
"""

import subprocess

import pytest

from harness import wait_until
from kernelside import CONNECT, EAR, SEND, Moved, ended, heard, privileged, python, python_start
from network import LINKS, ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
TRACES = {
    "rules": ["ip", "rule"],
    "rules v6": ["ip", "-6", "rule"],
    "routes": ["ip", "route", "show", "table", "all"],
    "routes v6": ["ip", "-6", "route", "show", "table", "all"],
    "filters wifi": ["tc", "filter", "show", "dev", "wifi0", "egress"],
    "filters lte": ["tc", "filter", "show", "dev", "lte0", "egress"],
    "qdiscs": ["tc", "qdisc"],
    "interfaces": ["sh", "-c", "ip -j link | grep -o '\"xdp[^}]*}'"],
}


def traces(lab):
    """All that can be seen of steering in the kernel, by kind."""
    # Routes of the kernel's own come and go with neighbours; counters of time are left out.
    seen = {kind: privileged(lab, "device", *how, check=False) for kind, how in TRACES.items()}
    seen["pins"] = sorted(str(pin) for pin in pins(lab))
    return seen


def pins(lab):
    inode = lab.inode()
    out = privileged(lab, "device", "find", f"/sys/fs/bpf/holdfast/{inode}", check=False)
    return out.split()


def lookup_links(lab):
    """bpf links attached to the device's namespace."""
    out = privileged(lab, "device", "bpftool", "link", "show")
    return [line for line in out.splitlines() if f"netns_ino {lab.inode()}" in line]


def is_steered(lab):
    rules = privileged(lab, "device", "ip", "rule")
    guard = privileged(lab, "device", "tc", "filter", "show", "dev", "wifi0", "egress")
    return "lookup 7200" in rules and "bpf" in guard and bool(pins(lab))


@pytest.fixture
def killed(daemon):
    lab = daemon({"guard": {"allow": []}})
    for where in ("app", "device"):
        assert lab.curl(where, f"http://{ORIGIN[0]}/before").status == 200
        assert lab.dig(where, "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    lab.kill_daemon()
    return lab


@PLACES
def test_nothing_passes_while_the_daemon_is_gone(killed, where):
    lab = killed
    ear = python_start(lab, "cloud", EAR)
    for address in (ORIGIN[0], f"[{ORIGIN[1]}]"):
        for arguments in ([], ["--interface", "wifi0"]):
            if arguments and where == "app":
                continue
            answer = lab.curl(where, f"http://{address}/gone", "--max-time", "0.7", *arguments)
            assert answer.status == 0, answer
    for server in ("8.8.8.8", "198.51.100.1", "2001:db8:1::1"):
        assert lab.start(where, "dig", "+time=1", "+tries=1", f"@{server}", "fresh.many.example")\
            .wait().rc != 0  # fmt: skip
    assert lab.start(where, "ping", "-c1", "-W1", ORIGIN[0]).wait().rc != 0
    assert heard(lab, ear) == []
    lab.start_daemon()
    assert lab.curl(where, f"http://{ORIGIN[0]}/again").status == 200
    assert heard(lab, ear) != []
    ear.kill()


def test_the_next_start_adopts_what_is_there_and_goes_on(killed):
    lab = killed
    links, before = lookup_links(lab), pins(lab)
    assert links and is_steered(lab)
    lab.start_daemon()
    assert lookup_links(lab) == links and set(pins(lab)) == set(before)
    for where in ("app", "device"):
        for address in (ORIGIN[0], f"[{ORIGIN[1]}]"):
            assert lab.curl(where, f"http://{address}/after").status == 200


def test_release_takes_down_every_trace_of_a_daemon_that_is_gone(lab, daemon):
    lab.release()
    clean = traces(lab)
    daemon({})
    assert traces(lab) != clean
    lab.kill_daemon()
    assert is_steered(lab)
    lab.release()
    wait_until("every trace is gone", lambda: traces(lab) == clean, timeout=2)
    assert lookup_links(lab) == [] and pins(lab) == []


def test_an_ordinary_stop_releases_by_default(lab, daemon):
    lab.release()
    clean = traces(lab)
    daemon({})
    assert lab.stop_daemon() == 0
    assert traces(lab) == clean
    assert lookup_links(lab) == []
    answer = lab.curl("device", f"http://{ORIGIN[0]}/free")
    assert answer.status == 200 and "via" not in answer.headers


def test_when_stopped_block_leaves_steering_and_guard(daemon):
    lab = daemon({"when_stopped": "block"})
    assert lab.stop_daemon() == 0
    assert is_steered(lab)
    for where in ("app", "device"):
        assert lab.curl(where, f"http://{ORIGIN[0]}/blocked", "--max-time", "0.7").status == 0
    lab.start_daemon()
    assert lab.curl("app", f"http://{ORIGIN[0]}/unblocked").status == 200


def test_a_second_daemon_is_refused_and_the_first_goes_on(daemon):
    lab = daemon()
    command = [*lab.network.enter("device"), lab.holdfastd, "--config", str(lab.config_file)]
    second = lab.spawn(command, lab.folder / "second.log")
    assert ended(second) == 1
    assert "busy" in (lab.folder / "second.log").read_text()
    released = subprocess.run([*lab.network.enter("device"), lab.holdfastd, "--release"],
                              capture_output=True, text=True)  # fmt: skip
    assert released.returncode == 1 and "busy" in released.stderr
    assert is_steered(lab)
    assert lab.curl("app", f"http://{ORIGIN[0]}/first").status == 200


BOUND = """
v6, origin, address = sys.argv[1] == "1", sys.argv[2], sys.argv[3]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
s.bind((address, 0))
s.settimeout(0.7)
try:
    s.connect((origin, 80))
    tell("connected")
except TimeoutError:
    tell("nothing")
"""


@FAMILIES
def test_the_guard_holds_while_the_daemon_is_gone_and_after(killed, family):
    lab = killed
    arguments = (family, ORIGIN[family], LINKS["wifi"]["address"][family])
    assert python(lab, "device", BOUND, *arguments) == "nothing"
    lab.start_daemon()
    moved = Moved(lab, interface="wifi0", hook="guard", verdict="drop", reason="not-ours")
    assert python(lab, "device", BOUND, *arguments) == "nothing"
    assert moved() > 0
    assert lab.stop_daemon() == 0
    assert python(lab, "device", BOUND, *arguments) == "connected"


INTERNAL = ("198.18.0.1", "fd5a:fe00::1")
RESOLVERS = ("8.8.8.8", "2001:4860:4860::8888")


def test_when_the_daemon_is_gone_the_kernel_says_so_at_once(daemon):
    lab = daemon({"when_stopped": "block"})
    assert lab.dig("app", "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    assert lab.stop_daemon() == 0
    for where in ("app", "device"):
        for family in (0, 1):
            for address, port in ((ORIGIN[family], 80), (INTERNAL[family], 80),
                                  (RESOLVERS[family], 53)):  # fmt: skip
                how, seconds = python(lab, where, CONNECT, address, port)
                assert how == "ECONNREFUSED" and seconds < 0.5, (where, address, port)
            for address, port in ((ORIGIN[family], 4500), (RESOLVERS[family], 53)):
                how, seconds = python(lab, where, SEND, address, port, 10)
                assert how == "ECONNREFUSED" and seconds < 0.5, (where, address, port)
    # what the kernel answers by itself goes on
    assert lab.dig("app", "holdfast.internal", server="8.8.8.8") == [INTERNAL[0]]
    assert lab.app("ping", "-c1", "-W2", INTERNAL[0]).rc == 0


def test_a_killed_daemon_is_missed_within_seconds(killed):
    """Until then clients try again by themselves, as when it is started anew at once."""
    lab = killed

    def refused():
        return python(lab, "app", CONNECT, ORIGIN[0], 80)[0] == "ECONNREFUSED"

    wait_until("connection attempts are refused", refused, timeout=12)
    lab.start_daemon()
    assert lab.curl("app", f"http://{ORIGIN[0]}/again").status == 200
