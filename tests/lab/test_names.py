"""Questions to any DNS server are answered, over the links' servers or by the kernel.

    app --app0--> XDP steer --known--> answered in the kernel
    host --lo-->      |
                      +--other--> resolver --c-ares, wifi0--> dnsmasq at 198.51.100.1
"""

import ipaddress
import struct

import pytest

from kernelside import (  # noqa: F401
    DO,
    OPT,
    Moved,
    answers,
    ask,
    python,
    question,
    rcode,
    running,
    running_lab,
    status,
    wire,
)
from network import ORIGIN

PLACES = pytest.mark.parametrize("where", ["app", "device"])
SERVERS = ["8.8.8.8", "198.51.100.1", "127.0.0.53", "2001:db8::53", "2001:db8:1::1"]
A, TXT, AAAA, HTTPS = 1, 16, 28, 65


def packed(address):
    return ipaddress.ip_address(address).packed


@PLACES
@pytest.mark.parametrize("server", SERVERS)
def test_any_server_that_an_app_asks_answers_from_its_own_address(running_lab, where, server):
    if where == "app" and server.startswith("127."):
        server = "192.0.2.1"  # loopback is each namespace's own; this is the app's router
    for kind, address in ((A, ORIGIN[0]), (AAAA, ORIGIN[1])):
        for _ in range(2):  # the resolver's answer, then the kernel's
            answer, source = ask(running_lab, where, server, question("origin.example", kind))
            assert source == [server, 53]
            assert rcode(answer) == 0 and answers(answer) >= 1
            assert packed(address) in answer


@PLACES
@pytest.mark.parametrize("server", SERVERS)
def test_tcp_works_as_udp_does(running_lab, where, server):
    if where == "app" and server.startswith("127."):
        server = "192.0.2.1"
    assert running_lab.dig(where, "origin.example", "A", "+tcp", server=server) == [ORIGIN[0]]
    assert running_lab.dig(where, "origin.example", "AAAA", "+tcp", server=server) == [ORIGIN[1]]


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_second_question_is_answered_by_the_kernel(running_lab, kind):
    lab, name = running_lab, "second.many.example"
    first = lab.dig("app", name, kind, server="8.8.8.8")
    kernel = Moved(lab, interface="app0", verdict="answer", reason="dns-kernel")
    passed = Moved(lab, interface="app0", reason="dns-resolver")
    before = status(lab)["dns"]["questions"]
    assert lab.dig("app", name, kind, server="8.8.8.8") == first
    assert len(first) == 1
    assert (kernel(), passed()) == (1, 0)
    assert status(lab)["dns"]["questions"] == before


@PLACES
def test_edns_is_echoed_by_resolver_and_kernel(running_lab, where):
    message = question(f"edns-{where}.many.example", A, extra=OPT, additional=1)
    kernel = Moved(running_lab, reason="dns-kernel")
    for _ in range(2):
        answer, _ = ask(running_lab, where, "8.8.8.8", message)
        assert answers(answer) == 1 and packed(ORIGIN[0]) in answer
        additional = struct.unpack("!H", answer[10:12])[0]
        assert additional == 1 and answer[-11:-8] == b"\0\0\x29", answer
    assert kernel() == 1


def test_dnssec_questions_reach_the_resolver(running_lab):
    message = question("dnssec.many.example", A, extra=DO, additional=1)
    passed = Moved(running_lab, interface="app0", reason="dns-resolver")
    for _ in range(2):
        answer, _ = ask(running_lab, "app", "8.8.8.8", message)
        assert packed(ORIGIN[0]) in answer
    assert passed() == 2


@PLACES
def test_case_does_not_matter_and_is_given_back(running_lab, where):
    ask(running_lab, where, "8.8.8.8", question("case.many.example"))
    kernel = Moved(running_lab, reason="dns-kernel")
    answer, _ = ask(running_lab, where, "8.8.8.8", question("CaSe.MaNy.ExAmPlE"))
    assert wire("CaSe.MaNy.ExAmPlE") in answer and packed(ORIGIN[0]) in answer
    assert kernel() == 1


def test_other_types_and_aliases_come_from_the_links_server(running_lab):
    lab = running_lab
    assert lab.dig("app", "txt.example", "TXT") == ['"a line of text"']
    assert lab.dig("app", "alias.example", "A")[-1] == ORIGIN[0]
    assert lab.dig("app", "alias.example", "CNAME") == ["origin.example."]


def test_a_name_with_one_family_has_none_of_the_other(running_lab):
    lab = running_lab
    for name, kind in (("v4only.example", AAAA), ("v6only.example", A)):
        for _ in range(2):
            answer, _ = ask(lab, "app", "8.8.8.8", question(name, kind))
            assert (rcode(answer), answers(answer)) == (0, 0)


def test_a_name_that_does_not_exist_is_told_so(running_lab):
    answer, _ = ask(running_lab, "app", "8.8.8.8", question("missing.example"))
    assert rcode(answer) == 3


def test_https_records_are_empty_so_that_clients_do_not_go_to_quic(running_lab):
    for kind in (HTTPS, 64):
        answer, _ = ask(running_lab, "app", "8.8.8.8", question("origin.example", kind))
        assert (rcode(answer), answers(answer)) == (0, 0)


@pytest.mark.parametrize("name", ["printer.local", "x.invalid", "hidden.onion"])
def test_names_that_never_belong_on_the_internet_do_not_leave_the_device(running_lab, name):
    lab = running_lab
    answer, _ = ask(lab, "app", "8.8.8.8", question(name))
    assert rcode(answer) == 3 and answers(answer) == 0
    assert name not in (lab.cloud.folder / "dns.log").read_text()


def test_localhost_is_the_loopback_and_stays_on_the_device(running_lab):
    lab = running_lab
    answer, _ = ask(lab, "app", "8.8.8.8", question("some.localhost"))
    assert packed("127.0.0.1") in answer or rcode(answer) == 3
    assert "localhost" not in (lab.cloud.folder / "dns.log").read_text()


MALFORMED = {
    "empty": b"",
    "one octet": b"\1",
    "half a head": b"\x48\x46\1\0\0\1",
    "no question": struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0),
    "two questions": struct.pack("!6H", 1, 0x0100, 2, 0, 0, 0)
    + (wire("a.example") + b"\0\1\0\1") * 2,
    "label over the end": struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\x3fabc",
    "pointer to itself": struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
    "label of 64": struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
    "name of 300": question(".".join(["a" * 50] * 6)),
    "a response": question("origin.example", flags=0x8180),
    "another opcode": question("origin.example", flags=0x2800),
    "counts that lie": struct.pack("!6H", 1, 0x0100, 1, 9, 9, 9) + wire("a.example") + b"\0\1\0\1",
    "half an OPT": question("origin.example", extra=b"\0\0\x29\4", additional=1),
    "two OPT": question("origin.example", extra=OPT + OPT, additional=2),
    "rubbish after it": question("origin.example", extra=b"\xff" * 40),
    "another class": question("origin.example", klass=3),
}  # fmt: skip

BARRAGE = """
server, messages = sys.argv[1], [bytes.fromhex(m) for m in sys.argv[2:]]
got = []
for message in messages:
    s = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.15)
    s.sendto(message, (server, 53))
    try:
        got.append(s.recv(4096).hex())
    except (TimeoutError, ConnectionError):
        got.append("")
tell(got)
"""


@PLACES
@pytest.mark.parametrize("server", ["8.8.8.8", "2001:db8::53"])
def test_malformed_questions_get_an_error_or_nothing(running_lab, where, server):
    lab = running_lab
    messages = [message.hex() for message in MALFORMED.values()]
    got = python(lab, where, BARRAGE, server, *messages)
    for (name, message), answer in zip(MALFORMED.items(), map(bytes.fromhex, got)):
        if answer:
            assert answer[:2] == message[:2] and answer[2] & 0x80, name
            assert answers(answer) == 0 or name == "rubbish after it", (name, answer)
    answer, _ = ask(lab, where, server, question("origin.example"))
    assert packed(ORIGIN[0]) in answer


def test_malformed_tcp_messages_end_the_connection_and_nothing_else(running_lab):
    lab = running_lab
    code = """
ends = []
for message in (b"\\0\\0", b"\\0\\1x", b"\\xff\\xff" + b"x" * 100, b"\\0\\x0cxxxxxxxxxxxx"):
    s = socket.create_connection(("8.8.8.8", 53), 3)
    s.sendall(message)
    s.shutdown(socket.SHUT_WR)
    s.settimeout(3)
    try:
        while s.recv(4096): pass
        ends.append("closed")
    except ConnectionError:
        ends.append("closed")
    except TimeoutError:
        ends.append("open")
tell(ends)
"""
    assert set(python(lab, "app", code)) == {"closed"}
    assert lab.dig("app", "origin.example", "A", "+tcp", server="8.8.8.8") == [ORIGIN[0]]
    assert lab.daemon.poll() is None


def test_names_are_listed_with_what_the_kernel_knows(running_lab):
    lab = running_lab
    lab.dig("app", "origin.example")
    items = lab.get("/v1/names?limit=200")["items"]
    found = [item for item in items if item["name"].rstrip(".") == "origin.example"]
    assert found and ORIGIN[0] in found[0]["real"] and found[0]["published"]
