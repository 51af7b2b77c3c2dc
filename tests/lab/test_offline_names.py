"""Without a link every name gets a virtual address, which stays its own.

    app --app0--> XDP steer --known--> answered in the kernel     wifi0 --x-- wifi-gw
    host --lo-->      +-----other----> resolver: 198.18.n.n,      lte0  --x-- lte-gw
                                       fd5a:fe00::n, committed first
"""

import ipaddress

import pytest

from harness import wait_until
from kernelside import OPT, Moved, answers, ask, question, rcode, status
from network import ORIGIN

POOLS = [ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fd5a:fe00::/64")]
PLACES = pytest.mark.parametrize("where", ["app", "device"])


@pytest.fixture
def offline(daemon):
    """A daemon with both links cut; links are put right by the daemon fixture."""
    lab = daemon({"defaults": {"hold": "5s"}})
    lab.cut("wifi", "lte")
    return lab


def virtual(lab, where, name, kind="A"):
    found = lab.dig(where, name, kind, server="8.8.8.8")
    assert len(found) == 1, found
    assert ipaddress.ip_address(found[0]) in POOLS[kind == "AAAA"], found
    return found[0]


@PLACES
def test_offline_the_second_question_is_answered_in_the_kernel(offline, where):
    lab = offline
    for kind in ("A", "AAAA"):
        first = virtual(lab, where, "new.example", kind)
        kernel = Moved(lab, verdict="answer", reason="dns-kernel")
        before = status(lab)["dns"]["questions"]
        assert virtual(lab, where, "new.example", kind) == first
        assert kernel() == 1
        assert status(lab)["dns"]["questions"] == before


def test_each_name_has_its_own_address_and_both_families_the_same_number(offline):
    lab = offline
    names = [f"n{n}.example" for n in range(12)]
    v4 = [virtual(lab, "app", name) for name in names]
    v6 = [virtual(lab, "device", name, "AAAA") for name in names]
    assert len(set(v4)) == len(set(v6)) == len(names)
    assert [virtual(lab, "app", name) for name in names] == v4


def test_the_time_to_live_of_a_virtual_address_is_short(offline):
    answer, _ = ask(offline, "app", "8.8.8.8", question("ttl.example"))
    for _ in range(2):
        assert answers(answer) == 1 and answer[-10:-6] == b"\0\0\0\1", answer
        answer, _ = ask(offline, "app", "8.8.8.8", question("ttl.example"))


def test_edns_works_offline(offline):
    message = question("edns.example", extra=OPT, additional=1)
    for _ in range(2):
        answer, _ = ask(offline, "app", "2001:db8::53", message)
        assert answers(answer) == 1 and answer[11] == 1


@pytest.mark.parametrize("name", [
    "printer.local", "x.invalid", "hidden.onion", "1.2.0.192.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa", "onelabel",
])  # fmt: skip
def test_what_never_belongs_on_the_internet_gets_no_virtual_address(offline, name):
    lab = offline
    before = status(lab)["dns"]["virtual_names"]
    answer, _ = ask(lab, "app", "8.8.8.8", question(name))
    assert answers(answer) == 0 and rcode(answer) in (2, 3)
    assert status(lab)["dns"]["virtual_names"] == before


def test_other_types_have_no_answer_offline(offline):
    for kind, wanted in ((65, 0), (64, 0), (16, 2), (15, 2)):
        answer, _ = ask(offline, "app", "8.8.8.8", question("origin.example", kind))
        assert (rcode(answer), answers(answer)) == (wanted, 0), kind


def test_known_real_addresses_give_way_to_virtual_ones_and_come_back(daemon):
    lab = daemon()
    for _ in range(2):
        assert lab.dig("app", "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    lab.cut("wifi", "lte")
    given = virtual(lab, "app", "origin.example")
    lab.restore("wifi")
    kernel = Moved(lab, verdict="answer", reason="dns-kernel")
    assert lab.dig("app", "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    assert kernel() == 1
    lab.cut("wifi")
    assert virtual(lab, "app", "origin.example") == given


@PLACES
@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_virtual_address_is_translated_after_recovery_and_after_sigkill(offline, where, kind):
    lab = offline
    given = virtual(lab, where, "origin.example", kind)
    lab.kill_daemon()
    lab.start_daemon({"defaults": {"hold": "5s"}}, links=())
    assert virtual(lab, where, "origin.example", kind) == given
    other = virtual(lab, where, "after.example", kind)
    assert other != given
    lab.restore("wifi")
    path = f"/kept/{where}/{kind}"
    to = f"[{given}]" if ":" in given else given
    answer = lab.curl(where, f"http://{to}{path}", "-H", "Host: origin.example")
    assert answer.status == 200, answer
    assert [seen["link"] for seen in lab.origin_log(path)] == ["wifi"]
    assert answer.remote == given


def test_a_request_by_name_waits_for_a_link(offline):
    lab = offline
    client = lab.curl_start("app", "http://origin.example/waits")
    wait_until("it is held", lambda: lab.requests("?state=held"))
    lab.restore("lte")
    answer = client.wait()
    assert answer.status == 200, answer
    assert ipaddress.ip_address(answer.remote) in POOLS[0] or ipaddress.ip_address(
        answer.remote) in POOLS[1]  # fmt: skip
    assert [seen["link"] for seen in lab.origin_log("/waits")] == ["lte"]


def test_virtual_answers_can_be_had_online_too(daemon):
    lab = daemon({"dns": {"online": "virtual"}})
    given = virtual(lab, "app", "origin.example")
    answer = lab.curl("app", "http://origin.example/virtual", "-4")
    assert (answer.status, answer.remote) == (200, given)
    assert lab.origin_log("/virtual")[-1]["server"] in ORIGIN


def test_a_source_that_asks_for_too_many_new_names_is_slowed_down(offline):
    lab = offline
    asked = lab.folder / "flood"
    asked.write_text("".join(f"f{n}.flood.example A\n" for n in range(600)))
    out = lab.app("dig", "+time=1", "+tries=1", "@8.8.8.8", "-f", asked).out
    assert "status: REFUSED" in out and "status: NOERROR" in out
    assert virtual(lab, "device", "calm.example")
