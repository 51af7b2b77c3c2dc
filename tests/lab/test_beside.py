"""Beside others: programs and filters of somebody else where ours go.

    app --app0--> device --wifi0, lte0--> cloud
          |         |          |
    another XDP   another    tc filters, an
    program       sk_lookup  "ingress" qdisc
"""

import contextlib
import ctypes
import json
import os
import subprocess

import pytest

from harness import wait_until
from kernelside import Moved, guard, privileged, programs, works
from network import LINKS
from witness import Bpf

SOON = 2.5
SK_LOOKUP = 36  # BPF_SK_LOOKUP

OTHERS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int another_xdp(struct xdp_md *ctx) { return XDP_PASS; }
__u64 seen;
SEC("tc") int another_tc(struct __sk_buff *skb) { seen++; return -1; /* TC_ACT_UNSPEC */ }
SEC("sk_lookup") int another_lookup(struct bpf_sk_lookup *ctx) { return SK_PASS; }
char _license[] SEC("license") = "GPL";
"""


def device(lab, *command, check=True):
    return privileged(lab, "device", *command, check=check)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Somebody else's programs, compiled."""
    folder = tmp_path_factory.mktemp("others")
    machine = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True)
    (folder / "others.bpf.c").write_text(OTHERS)
    (folder / "ok.bpf.c").write_text(OTHERS.replace("return -1", "return 0"))  # TC_ACT_OK
    subprocess.run(["clang", "-target", "bpf", "-O2", "-g", "-c", "others.bpf.c", "ok.bpf.c",
                    f"-I/usr/include/{machine.stdout.strip()}"], cwd=folder, check=True)  # fmt: skip
    return folder / "others.bpf.o"


@contextlib.contextmanager
def another_xdp(lab, others, name):
    """The id of another program on the interface."""
    device(lab, "ip", "link", "set", "dev", name, "xdpgeneric", "obj", others, "sec", "xdp")
    try:
        yield programs(lab, name)
    finally:
        device(lab, "ip", "link", "set", "dev", name, "xdpgeneric", "off", check=False)


@contextlib.contextmanager
def another_lookup(lab, others):
    bpf = Bpf()
    loaded = bpf.load(others)
    netns = os.open(f"/run/netns/{lab.network.name('device')}", os.O_RDONLY)
    program = bpf.program(loaded, "another_lookup")
    link = bpf.check(bpf.lib.bpf_link_create(program, netns, ctypes.c_int(SK_LOOKUP), None), "link")
    try:
        yield
    finally:
        os.close(link)
        os.close(netns)
        bpf.close(loaded)


@pytest.fixture(autouse=True)
def taken_down(lab):
    """A test may leave a daemon and its programs; not to the next test."""
    yield
    lab.stop_daemon()
    lab.release()


def refused(lab):
    """What the daemon says in its last line, which does not start."""
    with pytest.raises(AssertionError, match="the daemon ended"):
        lab.start_daemon(fresh=True)
    lab.daemon = None
    lab.release()
    return lab.log().splitlines()[-1]


def works_again(lab):
    lab.start_daemon(fresh=True)
    works(lab)
    assert lab.stop_daemon() == 0


def test_another_xdp_program_on_an_app_network_is_named_in_one_line(lab, others):
    with another_xdp(lab, others, "app0") as ident:
        said = refused(lab)
        assert "XDP on app0: another program is there: another_xdp" in said
        assert f"id {ident}, generic mode (see: bpftool net show dev app0)" in said
        assert str(ident) in device(lab, "bpftool", "net", "show", "dev", "app0")
    works_again(lab)


def test_another_xdp_program_on_a_network_that_comes_later_is_told_once_and_waited_for(
    daemon, others
):
    lab = daemon({"apps": {"interfaces": ["app0", "late0"]}})
    device(lab, "ip", "link", "add", "late9", "type", "veth", "peer", "name", "late1")
    try:
        with another_xdp(lab, others, "late9") as ident:
            device(lab, "ip", "link", "set", "late9", "name", "late0")
            wait_until("it is told", lambda: "in the way: XDP on late0" in lab.log(), SOON)
            assert f"another program is there: another_xdp, id {ident}" in lab.log()
            works(lab)
            assert lab.log().count("steer: in the way: XDP on late0") == 1
            device(lab, "ip", "link", "set", "dev", "late0", "xdpgeneric", "off")
        wait_until("it is steered", lambda: programs(lab, "late0"), SOON)
        wait_until("that is told", lambda: "no longer in the way: XDP on late0" in lab.log(), SOON)
    finally:
        device(lab, "ip", "link", "del", "late1")


def test_another_sk_lookup_program_stands_beside_ours(lab, daemon, others):
    with another_lookup(lab, others):
        daemon()
        works(lab)
        assert device(lab, "bpftool", "link").count("attach_type sk_lookup") >= 2


def add_filter(lab, others, link, where, *more):
    device(lab, "tc", "filter", "add", "dev", link, where, *more,
           "bpf", "direct-action", "obj", others, "sec", "tc")  # fmt: skip


def seen_by_filter(lab, link, where):
    """Packets that another_tc has seen there, by its own count."""
    filters = json.loads(device(lab, "tc", "-j", "filter", "show", "dev", link, where))
    (ident,) = [one["options"]["prog"]["id"] for one in filters
                if one.get("options", {}).get("prog", {}).get("name") == "another_tc"]  # fmt: skip
    program = json.loads(device(lab, "bpftool", "-j", "prog", "show", "id", str(ident)))
    (numbers,) = program["map_ids"]
    (entry,) = json.loads(device(lab, "bpftool", "-j", "map", "dump", "id", str(numbers)))
    return entry["formatted"]["value"][".bss"][0]["seen"]


@contextlib.contextmanager
def qdisc(lab, link, kind):
    device(lab, "tc", "qdisc", "add", "dev", link, kind)
    try:
        yield
    finally:
        device(lab, "tc", "qdisc", "del", "dev", link, kind, check=False)


def test_tc_filters_of_others_stay_and_run_beside_the_guard(lab, others):
    with qdisc(lab, "wifi0", "clsact"):
        for where in ("ingress", "egress"):
            add_filter(lab, others, "wifi0", where)
        lab.start_daemon(fresh=True)
        before = [seen_by_filter(lab, "wifi0", where) for where in ("ingress", "egress")]
        works(lab)
        assert guard(lab, "wifi0")
        after = [seen_by_filter(lab, "wifi0", where) for where in ("ingress", "egress")]
        assert before[0] < after[0] and before[1] < after[1], (before, after)
        assert lab.stop_daemon() == 0
        assert not guard(lab, "wifi0")
        assert seen_by_filter(lab, "wifi0", "egress") >= after[1]


def test_a_filter_that_says_ok_before_the_guard_takes_the_decision_from_it(lab, others):
    """The kernel asks the newest of one priority first, and no other after an OK."""
    lab.start_daemon(fresh=True)
    with lab.accounts.gap():
        add_filter(lab, others.with_name("ok.bpf.o"), "wifi0", "egress", "prio", "1")
        asked = Moved(lab, interface="wifi0", hook="guard")
        works(lab)
        assert asked() == 0
        device(lab, "tc", "filter", "del", "dev", "wifi0", "egress", "prio", "1", "handle", "0x1",
               "bpf")  # fmt: skip
    works(lab)
    assert asked() > 0 and guard(lab, "wifi0")


def test_an_ingress_qdisc_in_the_way_of_the_guard_is_said_in_one_line(lab):
    with qdisc(lab, "wifi0", "ingress"):
        said = refused(lab)
        assert 'guard on wifi0: an "ingress" qdisc is there, which has no egress' in said
        assert "(see: tc qdisc show dev wifi0)" in said
    works_again(lab)


def test_filters_of_the_guards_priority_and_another_protocol_are_said_in_one_line(lab, others):
    with qdisc(lab, "wifi0", "clsact"):
        add_filter(lab, others, "wifi0", "egress", "prio", "1", "protocol", "ip")
        said = refused(lab)
        assert "guard on wifi0: filters of another kind or protocol have priority 1 (see: tc " in said
    works_again(lab)


def test_on_a_device_without_ipv6_ipv4_works(lab):
    net, names = lab.network, ("all", "default", "lo", "app0", "wifi0", "lte0")

    def disable(value):
        device(lab, "sysctl", "-qw", *(f"net.ipv6.conf.{n}.disable_ipv6={value}" for n in names))

    disable(1)
    try:
        lab.start_daemon(fresh=True)
        for where in ("app", "device"):
            answer = lab.curl(where, "http://origin.example/four", "-4", "--max-time", "5")
            assert answer.status == 200 and "1.1 holdfast" in answer.headers["via"], answer
        assert lab.stop_daemon() == 0
    finally:
        disable(0)
        net.address("device", "app0", "2001:db8:a::1", 64)
        for link in LINKS.values():
            net.address("device", link["device"], link["address"][1], link["prefix"][1])
            device(lab, "ip", "-6", "route", "add", "default", "via", link["router"][1],
                   "dev", link["device"], "metric", str(link["metric"]))  # fmt: skip
    works_again(lab)
