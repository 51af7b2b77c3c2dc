"""Beside others: firewalls, containers, a stub resolver, a VPN. docs/beside-others.md names
these tests.

    one 172.17.0.2 --+
                     +-- docker0 --+
    two 172.17.0.3 --+             |
                     app --app0-- device --wifi0, lte0-- cloud
                                   |  iptables, nftables, ip rules, dnsmasq at 127.0.0.53
                                   +--vpn0-- cloud 10.99.0.9
"""

import contextlib
import json
import pathlib
import re
import subprocess

import pytest

from harness import wait_until
from kernelside import (  # noqa: F401
    CONNECT,
    Moved,
    privileged,
    programs,
    python,
    python_start,
    running,
    running_lab,
    works,
)
from network import LINKS, ORIGIN, remove

CHANGES = {"apps": {"interfaces": ["app0", "docker0"]}}
APP = {"source": "192.0.2.2", "destination": ORIGIN[0], "protocol": "tcp", "port": 80}

# What a router of an app network has, before Holdfast.
ROUTER = """
*nat
-A POSTROUTING -o wifi0 -j MASQUERADE
-A POSTROUTING -o lte0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP
:FORWARD DROP
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -i app0 -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i app0 -j ACCEPT
COMMIT
"""
ROUTER_NFT = """
table inet router {
    chain in {
        type filter hook input priority filter; policy drop;
        iifname { "lo", "app0" } accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "app0" accept
    }
    chain out {
        type nat hook postrouting priority srcnat;
        oifname { "wifi0", "lte0" } masquerade
    }
}
"""
DOCKER = """
*filter
:FORWARD DROP
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""
HELLO = """
import http.server, socketserver
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello " + self.client_address[0].encode())
    def log_message(self, *more): pass
socketserver.TCPServer.allow_reuse_address = True
server = socketserver.TCPServer((sys.argv[1], int(sys.argv[2])), Hello)
tell(["ready"])
server.serve_forever()
"""


def device(lab, *command, check=True):
    return privileged(lab, "device", *command, check=check)


def feed(lab, command, text):
    done = subprocess.run(lab.network.enter("device") + command, input=text, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def lab4(running_lab):
    """The lab; whatever rules a test makes for packets are gone after it."""
    yield running_lab
    device(running_lab, "nft", "flush", "ruleset")


def explain(lab, **ask):
    code, said = lab.api("POST", "/v1/explain", ask)
    assert code == 200, said
    return said


def connect(lab, where, address, port):
    return python(lab, where, CONNECT, address, port)[0]


def firewall(lab, kind):
    if kind == "nft":
        return feed(lab, ["nft", "-f", "-"], ROUTER_NFT)
    for command in ("iptables-restore", "ip6tables-restore"):
        feed(lab, [command], ROUTER)


@pytest.mark.parametrize("kind", ["iptables", "nft"])
def test_the_firewall_of_an_ordinary_router_may_stay(lab4, kind):
    firewall(lab4, kind)
    works(lab4)
    assert lab4.dig("app", "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    lab4.cut("wifi")
    works(lab4)
    assert lab4.origin_log("/works")[-1]["link"] == "lte"


@pytest.mark.parametrize("kind", ["iptables", "nft"])
def test_a_firewall_that_keeps_apps_from_the_device_is_found_by_what_lookup_did_not_count(
    lab4, kind
):
    """INPUT drop without an exception for app0: what is steered is the device's own input."""
    if kind == "nft":
        feed(lab4, ["nft", "-f", "-"], ROUTER_NFT.replace('{ "lo", "app0" } accept', '"lo" accept'))
    else:
        feed(lab4, ["iptables-restore"], ROUTER.replace("-A INPUT -i app0 -j ACCEPT\n", ""))
    said = explain(lab4, **APP)
    assert said["verdict"] == "steer" and said["reason"] == "tcp-proxy"
    steered, given = Moved(lab4, hook="steer", interface="app0"), Moved(lab4, hook="lookup")
    assert connect(lab4, "app", ORIGIN[0], 80) == "timeout"
    assert steered() > 0 and given() == 0
    waiting = lab4.curl_start("app", f"http://{ORIGIN[0]}/waiting", "--max-time", "20")
    assert lab4.dig("device", "probe.example") != []  # other things do arrive
    wait_until("the daemon says so", lambda: lab4.get("/v1/status")["warnings"], timeout=20)
    (warning,) = lab4.get("/v1/status")["warnings"]
    assert "INPUT" in warning and warning in lab4.log()
    waiting.kill()


LATE_ENDS = """
import http.client
held = []
for n in range(5):
    c = http.client.HTTPConnection(sys.argv[1], timeout=5)
    c.request("GET", "/late", headers={"Connection": "close"})
    held.append((c, c.sock.dup()))
    assert c.getresponse().read() is not None
for c, copy in held:
    time.sleep(1.1)  # a last packet in each look of the daemon's
    copy.close()
tell("ended")
"""


def test_no_obstacle_is_seen_in_the_last_packets_of_connections(lab4):
    lab4.counters()  # the daemon looks each second
    assert python(lab4, "app", LATE_ENDS, ORIGIN[0]) == "ended"
    assert lab4.get("/v1/status")["warnings"] == []


def test_a_redirect_to_the_proxy_that_was_there_before_comes_first_and_is_to_go(lab4):
    feed(lab4, ["iptables-restore"], """
*nat
-A PREROUTING -i app0 -p tcp --dport 80 -j REDIRECT --to-ports 3128
COMMIT
""")
    assert connect(lab4, "app", ORIGIN[0], 80) == "ECONNREFUSED"  # nobody is at 3128
    assert explain(lab4, **APP)["reason"] == "tcp-proxy"
    assert "REDIRECT" in device(lab4, "iptables", "-t", "nat", "-S")
    device(lab4, "iptables", "-t", "nat", "-F", "PREROUTING")
    works(lab4)


@contextlib.contextmanager
def container(lab, where, address):
    net = lab.network
    net.add_namespace(where)
    try:
        net.veth("device", f"veth-{where}", where, "eth0")
        device(lab, "ip", "link", "set", f"veth-{where}", "master", "docker0")
        net.address(where, "eth0", address, 16)
        net.run(where, "ip", "route", "add", "default", "via", "172.17.0.1")
        yield
    finally:
        device(lab, "ip", "link", "del", f"veth-{where}", check=False)
        remove(net.name(where))


@pytest.fixture
def docker(lab4):
    """docker0 with two containers and the rules that Docker writes for them."""
    device(lab4, "ip", "link", "add", "docker0", "type", "bridge")
    try:
        device(lab4, "ip", "link", "set", "docker0", "up")
        lab4.network.address("device", "docker0", "172.17.0.1", 16)
        feed(lab4, ["iptables-restore"], DOCKER)
        with container(lab4, "one", "172.17.0.2"), container(lab4, "two", "172.17.0.3"):
            wait_until("it is steered", lambda: programs(lab4, "docker0"))
            yield lab4
    finally:
        device(lab4, "ip", "link", "del", "docker0")


@contextlib.contextmanager
def serving(lab, where, address, port):
    server = python_start(lab, where, HELLO, address, port)
    try:
        yield
    finally:
        server.kill()


def test_containers_of_docker_reach_the_world_through_the_proxy(docker):
    for where in ("one", "two"):
        answer = docker.curl(where, "http://origin.example/docker", "-4", "--max-time", "5")
        assert answer.status == 200 and "1.1 holdfast" in answer.headers["via"], answer
    assert docker.origin_log("/docker")[-1]["link"] == "wifi"


def test_containers_of_docker_reach_each_other_and_their_published_port_directly(docker):
    with serving(docker, "one", "0.0.0.0", 80):
        answer = docker.curl("two", "http://172.17.0.2/", "--max-time", "5")
        assert answer.text == "hello 172.17.0.3" and "via" not in answer.headers
        answer = docker.curl("app", "http://192.0.2.1:8080/", "--max-time", "5")
        assert answer.text == "hello 192.0.2.2", answer
        answer = docker.curl("device", "http://172.17.0.2/", "--max-time", "5")
        assert answer.text == "hello 172.17.0.1", answer


def test_a_published_port_is_not_there_for_the_cloud(docker):
    with serving(docker, "one", "0.0.0.0", 80):
        assert connect(docker, "cloud", LINKS["wifi"]["address"][0], 8080) != "connected"


@contextlib.contextmanager
def stub(lab):
    """As systemd-resolved: 127.0.0.53, with the link's server behind it, and a name of its own."""
    server = lab.start(
        "device", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
        "--no-hosts", "--listen-address=127.0.0.53", "--bind-interfaces", "--user=root",
        "--pid-file=", "--server=198.51.100.1", "--address=/origin.example/192.0.2.99",
        "--log-queries", "--log-facility=-")  # fmt: skip
    try:
        wait_until("it listens", lambda: "127.0.0.53:53" in device(lab, "ss", "-Hlun"))
        yield server
    finally:
        server.kill()


def test_a_stub_resolver_goes_on_running_and_is_not_asked(lab4):
    with stub(lab4) as server:
        asked = Moved(lab4, interface="lo", reason="dns-resolver")
        assert lab4.dig("device", "origin.example", server="127.0.0.53") == [ORIGIN[0]]
        assert lab4.dig("device", "origin.example", "A", "+tcp", server="127.0.0.53") == [ORIGIN[0]]
        lab4.cut("wifi", "lte")
        (virtual,) = lab4.dig("device", "origin.example", server="127.0.0.53")
        assert virtual.startswith("198.18.")
        assert asked() > 0
        assert "query" not in server.out.read_text() + server.err.read_text()


@contextlib.contextmanager
def vpn(lab):
    """A tunnel to a network of its own, and the table that leads there."""
    net = lab.network
    net.add_namespace("two")
    try:
        net.veth("device", "vpn0", "two", "eth0")
        net.address("device", "vpn0", "10.99.0.1", 24)
        net.address("two", "eth0", "10.99.0.9", 24)
        net.address("two", "eth0", "10.98.0.9", 32)
        net.run("two", "ip", "route", "add", "default", "via", "10.99.0.1")
        device(lab, "ip", "route", "add", "10.98.0.0/16", "via", "10.99.0.9", "dev", "vpn0",
               "table", "99")  # fmt: skip
        with serving(lab, "two", "10.98.0.9", 8000):
            yield
    finally:
        # First: a namespace ends some time after its removal, and its devices with it.
        device(lab, "ip", "link", "del", "vpn0", check=False)
        remove(net.name("two"))


@contextlib.contextmanager
def rule(lab, priority):
    where = ["pref", str(priority), "to", "10.98.0.0/16", "lookup", "99"]
    device(lab, "ip", "rule", "add", *where)
    try:
        yield
    finally:
        device(lab, "ip", "rule", "del", *where)


@pytest.mark.parametrize("where, source", [("app", "192.0.2.2"), ("device", "10.99.0.1")])
def test_a_rule_before_ours_keeps_its_networks_from_the_proxy(lab4, where, source):
    with vpn(lab4), rule(lab4, 50):
        answer = lab4.curl(where, "http://10.98.0.9:8000/", "--max-time", "5")
        assert answer.text == f"hello {source}" and "via" not in answer.headers, answer
        works(lab4)


def test_a_rule_behind_ours_is_not_asked(lab4):
    with vpn(lab4), rule(lab4, 1000):
        answer = lab4.curl("app", "http://10.98.0.9:8000/", "--max-time", "2")
        assert "hello" not in answer.text, answer
        works(lab4)


# --- the page itself ---

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/beside-others.md"


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def test_the_rules_that_the_page_shows_are_ones_that_the_kernel_takes(lab4):
    (rules,) = blocks("iptables")
    feed(lab4, ["iptables-restore"], rules)

    def chains(text):
        return sorted(re.findall(r"^-A (\w+)", text, re.M))

    assert chains(rules) and chains(rules) == chains(device(lab4, "iptables-save"))
    for script in blocks("sh"):
        feed(lab4, ["sh", "-n"], script)


def test_the_configuration_that_the_page_shows_is_one_that_works(lab, running_lab, tmp_path):
    (text,) = blocks("json")
    assert json.loads(text)["apps"]["interfaces"] == ["app0"]
    (tmp_path / "page.json").write_text(text)
    done = subprocess.run([lab.holdfastd, "--check", "--config", tmp_path / "page.json"],
                          capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"`(test_\w+\.py): (test_\w+)`", PAGE.read_text())
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (PAGE.parents[1] / "tests/lab" / file).read_text(), test
