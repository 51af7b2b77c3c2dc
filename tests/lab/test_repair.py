"""What others delete of ours comes back within about a second, whoever did it.

    somebody: ip rule del, ip route flush, tc qdisc del, ip link set xdp off
                              |
    device: rules 100-106, tables 7200-7212, tc egress guard, XDP  <-- holdfastd compares
"""

import json

import pytest

from harness import wait_until
from kernelside import (  # noqa: F401
    Moved,
    guard,
    privileged,
    programs,
    python,
    running,
    running_lab,
    works,
)
from network import LINKS

FAMILIES = pytest.mark.parametrize("family", ["-4", "-6"])
SOON = 2.5  # a second, and what a loaded machine adds


def show(lab, *command):
    return privileged(lab, "device", *command)


def rules(lab, family):
    """Holdfast's rules, one line each."""
    return sorted(line for line in show(lab, "ip", family, "rule").splitlines()
                  if 100 <= int(line.partition(":")[0]) <= 106)  # fmt: skip


def routes(lab, family, table):
    got = show(lab, "ip", "-j", family, "route", "show", "table", str(table))
    return sorted((route["dst"], route.get("gateway", ""), route.get("dev", "")) for route in
                  json.loads(got or "[]"))  # fmt: skip


@FAMILIES
def test_a_deleted_rule_comes_back(running_lab, family):
    lab = running_lab
    before = rules(lab, family)
    assert {int(rule.partition(":")[0]) for rule in before} >= {100, 101, 103, 104, 105, 106}
    for priority in (100, 101, 103, 104, 105, 106):
        show(lab, "ip", family, "rule", "del", "priority", str(priority))
        wait_until(f"rule {priority} is back", lambda: rules(lab, family) == before, SOON)
    works(lab)


@FAMILIES
def test_all_rules_flushed_at_once_come_back(running_lab, family):
    lab = running_lab
    before = rules(lab, family)
    for rule in before:
        show(lab, "ip", family, "rule", "del", "priority", rule.partition(":")[0])
    wait_until("all rules are back", lambda: rules(lab, family) == before, SOON)
    works(lab)


@FAMILIES
@pytest.mark.parametrize("table", [7200, 7201, 7211, 7212])
def test_a_flushed_table_comes_back(running_lab, family, table):
    lab = running_lab
    before = routes(lab, family, table)
    assert before
    show(lab, "ip", family, "route", "flush", "table", str(table))
    wait_until("the table is back", lambda: routes(lab, family, table) == before, SOON)
    works(lab)


@pytest.mark.parametrize("how", ["filter", "qdisc"])
@pytest.mark.parametrize("device", ["wifi0", "lte0"])
def test_a_guard_that_was_removed_comes_back(running_lab, how, device):
    lab = running_lab
    assert guard(lab, device)
    with lab.accounts.gap():
        if how == "filter":
            show(lab, "tc", "filter", "del", "dev", device, "egress")
        else:
            show(lab, "tc", "qdisc", "del", "dev", device, "clsact")
        wait_until("the guard is back", lambda: guard(lab, device), SOON)
    moved = Moved(lab, interface=device, hook="guard", verdict="drop", reason="not-ours")
    link = next(link for link in LINKS.values() if link["device"] == device)
    python(lab, "device", """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 0))
try: s.sendto(b"x", ("203.0.113.9", 9))
except PermissionError: pass
tell("sent")
""", link["address"][0])  # fmt: skip
    assert moved() == 1


@pytest.mark.parametrize("device", ["app0", "lo"])
def test_steering_that_was_detached_comes_back(running_lab, device):
    lab = running_lab
    assert programs(lab, device)
    (link,) = json.loads(show(lab, "ip", "-j", "link", "show", device))
    pin = f"/sys/fs/bpf/holdfast/{lab.inode()}/link_xdp_{link['ifindex']}"
    show(lab, "bpftool", "link", "detach", "pinned", pin)
    wait_until("it is back", lambda: programs(lab, device), SOON)
    works(lab)


def test_a_look_up_program_that_was_detached_comes_back(running_lab):
    lab = running_lab
    pin = f"/sys/fs/bpf/holdfast/{lab.inode()}/link_lookup"

    def attached():
        links = show(lab, "bpftool", "link", "show").splitlines()
        return any(f"netns_ino {lab.inode()}" in line for line in links)

    assert attached()
    show(lab, "bpftool", "link", "detach", "pinned", pin)
    wait_until("it is back", attached, SOON)
    works(lab)
