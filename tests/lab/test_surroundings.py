"""Networks of apps and links that come, go and are made anew; settings of the kernel.

    app --app0-- --late0--> device --wifi0, lte0--> cloud
                            rp_filter 0, 1, 2; ip_forward 0, 1
"""

import pytest

from harness import wait_until
from kernelside import Moved, guard, privileged, programs, works
from network import LINKS, ORIGIN

SOON = 2.5


def show(lab, *command):
    return privileged(lab, "device", *command)


def test_an_app_network_that_appears_later_is_steered(daemon):
    lab = daemon({"apps": {"interfaces": ["app0", "late0"]}})
    works(lab)
    net = lab.network
    net.veth("device", "late0", "app", "late1")
    try:
        net.address("device", "late0", "192.0.2.129", 28)
        net.address("app", "late1", "192.0.2.130", 28)
        wait_until("it is steered", lambda: programs(lab, "late0"), SOON)
        moved = Moved(lab, interface="late0", verdict="steer", reason="tcp-proxy")
        net.run("app", "ip", "route", "add", f"{ORIGIN[0]}/32", "via", "192.0.2.129")
        answer = lab.curl("app", f"http://{ORIGIN[0]}/late", "--max-time", "5")
        assert answer.status == 200, answer
        assert moved() > 0
    finally:
        net.run("device", "ip", "link", "del", "late0")
    works(lab)


def test_an_app_network_that_is_made_anew_is_steered_again(daemon):
    lab = daemon()
    works(lab)
    lab.network.run("device", "ip", "link", "del", "app0")
    lab.network.add_app()
    wait_until("it is steered", lambda: programs(lab, "app0"), SOON)
    works(lab)


def test_a_link_that_is_made_anew_is_guarded_and_used_again(daemon):
    lab = daemon()
    with lab.accounts.gap():
        lab.network.run("device", "ip", "link", "del", "wifi0")
        wait_until("it is gone", lambda: "wifi" not in lab.online())
        lab.network.add_link(LINKS["wifi"])
        wait_until("the guard is there", lambda: guard(lab, "wifi0"), SOON)
    lab.wait_links(online=["wifi"])
    works(lab)
    assert lab.origin_log("/works")[-1]["link"] == "wifi"


@pytest.mark.parametrize("forward", [0, 1])
@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_it_works_with_every_reverse_path_filter_and_with_and_without_forwarding(
    daemon, rp_filter, forward
):
    lab = daemon()
    names = ("all", "default", "app0", "wifi0", "lte0", "lo")
    before = {key: show(lab, "sysctl", "-n", key).strip() for key in (
        *(f"net.ipv4.conf.{name}.rp_filter" for name in names),
        "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")}  # fmt: skip
    settings = {key: rp_filter if "rp_filter" in key else forward for key in before}
    try:
        show(lab, "sysctl", "-qw", *(f"{key}={value}" for key, value in settings.items()))
        works(lab)
        lab.cut("wifi")
        works(lab)
        assert lab.origin_log("/works")[-1]["link"] == "lte"
        assert lab.dig("app", "origin.example", server="8.8.8.8") == [ORIGIN[0]]
    finally:
        show(lab, "sysctl", "-qw", *(f"{key}={value}" for key, value in before.items()))


def test_a_route_by_its_gateway_alone_gets_the_link_that_has_the_gateway(daemon):
    """ip route add ... via GATEWAY, without dev: the kernel finds it in our own local route."""
    lab = daemon()
    wifi = LINKS["wifi"]["router"][0]

    def device(destination):
        return [word for line in show(lab, "ip", "route").splitlines() if
                line.startswith(destination) for word in line.split()[3:5]]  # fmt: skip

    show(lab, "ip", "route", "del", "default", "metric", "100")
    try:
        show(lab, "ip", "route", "add", "default", "via", wifi, "metric", "100")
        show(lab, "ip", "route", "add", "203.0.113.64/27", "via", wifi)
        wait_until("both are on the link", lambda: device("203.0.113.64/27") == ["dev", "wifi0"]
                   and device(f"default via {wifi} ") == ["dev", "wifi0"], SOON)  # fmt: skip

        def over_wifi():
            works(lab)
            return lab.origin_log("/works")[-1]["link"] == "wifi"

        wait_until("wifi is used again", over_wifi, timeout=5)
    finally:
        show(lab, "ip", "route", "replace", "default", "via", wifi, "dev", "wifi0",
             "metric", "100")  # fmt: skip
