"""UDP of apps: relayed by flow, or refused at once.

    app  --app0--> XDP steer --> sk_lookup --> relay --own socket of the link--> cloud
    host --lo--->                                |                               echo servers
          <--from the address and port it sent to+
"""

import json
import time

import pytest

from harness import wait_until
from kernelside import (PRELUDE, PYTHON, Moved, python, python_start, ready, running,  # noqa: F401
                        running_lab, status)  # fmt: skip
from network import LINKS, NGINX, ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
ECHO, NTP, QUIC, SILENT, CLOSED, REJECTED, DNS = 7, 123, 443, 9, 1111, 6666, 5300
OVER = {address: name for name, link in LINKS.items() for address in link["address"]}
UDP = {"protocol": "udp"}
CHANGES = {
    "rules": [
        {"name": "no", "match": UDP | {"port": [REJECTED]}, "action": "reject"},
        {"name": "quic", "match": UDP | {"port": [QUIC], "address": list(NGINX)}},
        {"name": "lte", "match": UDP | {"address": list(NGINX)}, "links": ["lte"]},
    ]
}

# Answers with what came, after the address that it came from and its TOS.
SERVER = """
ports = [int(port) for port in sys.argv[2:]]
opened = {}
for port in ports:
    s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
    if s.family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    s.bind((sys.argv[1], port))
    opened[s.fileno()] = s
poll = select.poll()
for fd in opened:
    poll.register(fd, select.POLLIN)
tell(["ready"])
while True:
    for fd, _ in poll.poll():
        data, more, _, peer = opened[fd].recvmsg(65536, 512)
        tos = more[0][2][0] if more else 0
        if opened[fd].getsockname()[1] == 9:
            continue
        if data == b"who":
            data = json.dumps([peer[0], peer[1], tos]).encode()
        opened[fd].sendto(data, peer)
"""


@pytest.fixture(scope="module", autouse=True)
def servers(running):
    clients = []
    for address in (*ORIGIN, *NGINX):
        clients.append(running.start("cloud", PYTHON, "-c", PRELUDE + SERVER, address,
                                     ECHO, NTP, QUIC, SILENT, REJECTED, 9000))  # fmt: skip
    for client in clients:
        wait_until("the echo servers are ready", lambda client=client: ready(client))
    yield
    for client in clients:
        client.kill()


CLIENT = """
def open_to(address, port, source=0):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3)
    if source:
        s.bind(("", source))
    s.connect((address, port))
    return s
def ask(s, data):
    start = time.monotonic()
    try:
        s.send(data)
        got = s.recv(65536)
        return got, time.monotonic() - start
    except OSError as error:
        return errno.errorcode.get(error.errno, "timeout"), time.monotonic() - start
"""
WHO = CLIENT + """
s = open_to(sys.argv[1], int(sys.argv[2]))
got, seconds = ask(s, b"who")
tell([json.loads(got) if isinstance(got, bytes) else got, seconds])
"""


def who(lab, where, address, port=ECHO):
    """Whom the server saw, or the error; and how long it took."""
    return python(lab, where, WHO, address, port)


@PLACES
@FAMILIES
def test_a_datagram_comes_back_from_the_address_and_port_it_went_to(running_lab, where, family):
    lab = running_lab
    own = Moved(lab, hook="guard", interface="wifi0", verdict="pass", reason="own-socket")
    (address, _, _), _ = who(lab, where, ORIGIN[family])  # its socket is connected
    assert OVER[address] == "wifi"
    assert own() >= 1
    assert who(lab, where, ORIGIN[family], NTP)[0][0] == address


SIZES = CLIENT + """
s = open_to(sys.argv[1], 7)
for size in map(int, sys.argv[2:]):
    data = os.urandom(size)
    got, seconds = ask(s, data)
    tell([size, got == data if isinstance(got, bytes) else got])
"""


@PLACES
@FAMILIES
def test_datagrams_keep_their_size_from_nothing_to_the_largest(running_lab, where, family):
    sizes = [0, 1, 512, 1472, 2000, 9000, 60000, 65507]
    for size, same in python(running_lab, where, SIZES, ORIGIN[family], *sizes):
        assert same is True, size


MANY = CLIENT + """
s = open_to(sys.argv[1], 7)
said = {b"%d" % n for n in range(200)}
got = set()
for data in said:
    s.send(data)
    got.add(s.recv(100))
tell(got == said)
"""


@FAMILIES
def test_one_flow_of_many_datagrams_is_one_flow(running_lab, family):
    lab = running_lab
    before = status(lab)["relay"]
    assert python(lab, "app", MANY, ORIGIN[family])
    after = status(lab)["relay"]
    assert after["flows_opened"] - before["flows_opened"] == 1
    assert after["datagrams_in"] - before["datagrams_in"] == 200
    assert after["datagrams_out"] - before["datagrams_out"] == 200


SAME_PORT = CLIENT + """
s = open_to(sys.argv[1], 7, 7777)
for n in range(200):
    data = (sys.argv[2] + str(n)).encode()
    got, _ = ask(s, data)
    assert got == data, got
tell("done")
"""


@FAMILIES
def test_apps_with_the_same_port_are_kept_apart(running_lab, family):
    lab = running_lab
    both = [lab.start(where, PYTHON, "-c", PRELUDE + SAME_PORT, ORIGIN[family], where)
            for where in ("app", "device")]  # fmt: skip
    for client in both:
        done = client.wait(20)
        assert done.rc == 0 and '"done"' in done.out, done


SERVICE = """
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", int(sys.argv[1])))
tell(["ready"])
time.sleep(60)
"""


def test_a_service_of_the_device_on_the_same_port_is_not_in_the_way(running_lab):
    lab = running_lab
    before = python_start(lab, "device", SERVICE, NTP)
    assert OVER[who(lab, "app", ORIGIN[0], NTP)[0][0]] == "wifi"
    before.kill()
    who(lab, "app", ORIGIN[0], 9000)
    after = python_start(lab, "device", SERVICE, 9000)  # nor are we in its way
    after.kill()


TOS = CLIENT + """
s = open_to(sys.argv[1], 7)
if s.family == socket.AF_INET:
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xb9)
else:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xb9)
tell(json.loads(ask(s, b"who")[0])[2])
"""


@FAMILIES
def test_dscp_and_ecn_are_kept(running_lab, family):
    assert python(running_lab, "app", TOS, ORIGIN[family]) == 0xB9


@PLACES
@FAMILIES
def test_a_closed_port_of_the_origin_is_told_at_once(running_lab, where, family):
    how, seconds = who(running_lab, where, ORIGIN[family], CLOSED)
    assert how == "ECONNREFUSED" and seconds < 1


@PLACES
@FAMILIES
def test_what_a_rule_rejects_is_refused_at_once(running_lab, where, family):
    how, seconds = who(running_lab, where, ORIGIN[family], REJECTED)
    assert how == ("EHOSTUNREACH", "EACCES")[family] and seconds < 1


@PLACES
@FAMILIES
def test_quic_is_refused_unless_a_rule_names_it(running_lab, where, family):
    lab = running_lab
    how, seconds = who(lab, where, ORIGIN[family], QUIC)
    assert how == "ECONNREFUSED" and seconds < 1
    assert who(lab, where, NGINX[family], QUIC)[0][2] == 0


@PLACES
@FAMILIES
def test_a_rule_chooses_the_link(running_lab, where, family):
    lab = running_lab
    assert OVER[who(lab, where, NGINX[family])[0][0]] == "lte"
    lab.cut("lte")
    how, seconds = who(lab, where, NGINX[family])
    assert how == "ECONNREFUSED" and seconds < 1
    assert OVER[who(lab, where, ORIGIN[family])[0][0]] == "wifi"


@PLACES
@FAMILIES
def test_without_a_link_it_is_refused_at_once(running_lab, where, family):
    lab = running_lab
    lab.cut("wifi", "lte")
    how, seconds = who(lab, where, ORIGIN[family])
    assert how in ("ECONNREFUSED", "EHOSTUNREACH") and seconds < 1


@PLACES
@pytest.mark.parametrize("address", ["198.18.0.1", "198.19.255.254", "fd5a:fe00::1", "240.0.0.1"])
def test_what_is_nobodys_is_refused_at_once(running_lab, where, address):
    how, seconds = who(running_lab, where, address)
    assert how in ("ECONNREFUSED", "ENETUNREACH", "EINVAL") and seconds < 1


ON_AND_ON = CLIENT + """
s = open_to(sys.argv[1], 7, 7778)
s.settimeout(0.3)
tell(["ready"])
until = time.monotonic() + 15
while time.monotonic() < until:
    got, _ = ask(s, b"who")
    if isinstance(got, bytes):
        tell(json.loads(got))
    time.sleep(0.05)
"""


@FAMILIES
def test_a_flow_goes_on_over_the_other_link(running_lab, family):
    lab = running_lab
    client = python_start(lab, "app", ON_AND_ON, ORIGIN[family])

    def answered_over(name):
        lines = client.out.read_text().splitlines()
        return any(OVER.get(json.loads(line)[0]) == name for line in lines[1:])

    wait_until("wifi carries it", lambda: answered_over("wifi"))
    lab.cut("wifi")
    wait_until("lte carries it", lambda: answered_over("lte"), timeout=5)
    client.kill()


BY_NAME = CLIENT + """
address = socket.getaddrinfo(sys.argv[1], 7, int(sys.argv[2]), socket.SOCK_DGRAM)[0][4][0]
s = open_to(address, 7)
tell(["ready"])
tell([address, ask(s, b"offline")[0]])
while True:
    got, _ = ask(s, b"online")
    if got == b"online":
        break
    time.sleep(0.1)
tell([address, got.decode()])
"""


@pytest.mark.parametrize("family", [2, 10], ids=["ipv4", "ipv6"])
def test_a_virtual_address_is_refused_offline_and_leads_to_its_name_online(running_lab, family):
    lab = running_lab
    name = f"udp{family}-{time.time_ns()}.many.example"
    lab.cut("wifi", "lte")
    client = python_start(lab, "app", BY_NAME, name, family)
    wait_until("it is refused", lambda: "ECONNREFUSED" in client.out.read_text())
    lab.restore("wifi", "lte")
    done = client.wait(20)
    first, second = (json.loads(line) for line in done.out.splitlines()[1:])
    assert first[0] == second[0] and first[0].startswith(("198.1", "fd5a:"))
    assert second[1] == "online"


BURST = CLIENT + """
first = int(sys.argv[3])
sockets = []
for n in range(int(sys.argv[2])):
    s = open_to(sys.argv[1], 9)
    s.send(b"x")
    sockets.append(s)
tell(["ready"])
time.sleep(60)
"""


def test_the_flows_of_one_app_are_bounded_and_others_go_on(running_lab):
    lab = running_lab
    before = status(lab)["relay"]
    clients = [python_start(lab, "app", BURST, ORIGIN[0], 700, 0)]
    wait_until("the rest is refused and counted",
               lambda: status(lab)["relay"]["flows_full"] > before["flows_full"])  # fmt: skip
    now = status(lab)["relay"]
    assert now["flows"] - before["flows"] <= 512
    opened = now["flows_opened"] - before["flows_opened"]
    full = now["flows_full"] - before["flows_full"]
    assert opened <= 512 and opened + full == 700
    assert OVER[who(lab, "device", ORIGIN[0])[0][0]] == "wifi"
    for client in clients:
        client.kill()
    # What has been idle for a while makes room, so that the app itself goes on as well.
    wait_until("the app can send again",
               lambda: isinstance(who(lab, "app", ORIGIN[0])[0], list), timeout=15)  # fmt: skip
    assert status(lab)["relay"]["flows_evicted"] > before["flows_evicted"]


REFUSED = CLIENT + """
for n in range(2000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", (sys.argv[1], 6666))
tell("sent")
"""


def test_a_flood_of_what_is_refused_is_told_at_a_bounded_rate_and_takes_none_of_others(running_lab):
    lab = running_lab
    before = status(lab)["relay"]
    python(lab, "app", REFUSED, ORIGIN[0])
    how, seconds = who(lab, "device", ORIGIN[0], REJECTED)
    assert how == "EHOSTUNREACH" and seconds < 1
    now = status(lab)["relay"]
    assert now["flows_refused"] - before["flows_refused"] == 2001
    assert now["errors_limited"] > before["errors_limited"]
    told = now["errors_told"] + now["errors_limited"]
    assert told - before["errors_told"] - before["errors_limited"] == 2001
    wait_until("the app hears again", lambda: who(lab, "app", ORIGIN[0], REJECTED)[0]
               == "EHOSTUNREACH")  # fmt: skip


@PLACES
def test_dig_reaches_a_server_on_another_port(running_lab, where):
    lab = running_lab
    server = lab.start("cloud", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                       "--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root",
                       "--pid-file=", f"--port={DNS}", f"--listen-address={ORIGIN[0]}",
                       "--host-record=other.example,192.0.2.99")  # fmt: skip
    try:
        wait_until("it is answered", lambda: lab.dig(
            where, "other.example", "A", "-p", DNS, server=ORIGIN[0]) == ["192.0.2.99"])  # fmt: skip
    finally:
        server.kill()


def test_the_figures_are_in_the_metrics(running_lab):
    lab = running_lab
    who(lab, "app", ORIGIN[0])
    _, text = lab.api("GET", "/metrics")
    for name in ("flows_opened_total", "datagrams_in_total", "datagrams_out_total", "flows_max"):
        (line,) = [x for x in text.decode().splitlines() if x.startswith(f"holdfast_relay_{name} ")]
        assert int(line.split()[1]) > 0
