"""What others send to the device over a link finds nothing of the daemon's, whatever the guard.

    app --app0--> device <--wifi0, lte0-- cloud: questions, visits to the API, steered addresses
"""

import pytest

from kernelside import ask, question, running, running_lab, status  # noqa: F401
from network import LINKS, ORIGIN

CHANGES = {"guard": {"mode": "off"}}
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
LINK = pytest.mark.parametrize("link", ["wifi", "lte"])


@FAMILIES
@LINK
def test_the_device_is_no_open_resolver(running_lab, link, family):
    lab = running_lab
    address = LINKS[link]["address"][family]
    for where in ("app", "device"):
        assert ask(lab, where, address, question("origin.example"))
    before = status(lab)["dns"]
    for name in ("origin.example", "fresh.many.example", "holdfast.internal"):
        assert ask(lab, "cloud", address, question(name), timeout=0.3) is None
    after = status(lab)["dns"]
    assert after["refused"] == before["refused"] + 3
    assert after["answered_upstream"] == before["answered_upstream"]


@FAMILIES
@LINK
def test_connections_for_questions_are_closed(running_lab, link, family):
    lab = running_lab
    address = LINKS[link]["address"][family]
    arguments = ["+tcp", "+time=1", "+tries=1", "+short"]
    assert lab.dig("app", "origin.example", "A", "+tcp", server=address) == [ORIGIN[0]]
    assert lab.dig("device", "origin.example", "A", "+tcp", server=address) == [ORIGIN[0]]
    done = lab.start("cloud", "dig", *arguments, f"@{address}", "origin.example").wait()
    assert done.rc != 0 and ORIGIN[0] not in done.out, done


@FAMILIES
def test_the_addresses_of_app_networks_answer_no_questions_either(running_lab, family):
    address = ("192.0.2.1", "2001:db8:a::1")[family]
    assert ask(running_lab, "app", address, question("origin.example"))
    assert ask(running_lab, "cloud", address, question("origin.example"), timeout=0.3) is None


@FAMILIES
@LINK
def test_the_api_is_not_there_for_the_cloud(running_lab, link, family):
    lab = running_lab
    address = LINKS[link]["address"][family]
    host = f"[{address}]" if family else address
    for port in (80, 7080):
        done = lab.start("cloud", "curl", "-sS", "-g", "--max-time", "2", f"http://{host}:{port}/",
                         "-H", "Host: holdfast.internal").wait()  # fmt: skip
        assert done.rc == 7, done


@FAMILIES
def test_the_proxy_is_not_there_for_the_cloud(running_lab, family):
    """Addresses that apps would be steered from, asked for by a router on the link."""
    lab = running_lab
    before = status(lab)["requests"]["sessions"], len(lab.origin_log("/open"))
    pool = ("198.18.0.1", "fd5a:fe00::1")[family]
    via, flag = LINKS["wifi"]["address"][family], ("-4", "-6")[family]
    lab.network.run("cloud", "ip", flag, "route", "add", pool, "via", via)
    try:
        host = f"[{pool}]" if family else pool
        done = lab.start("cloud", "curl", "-sS", "-g", "--max-time", "1", f"http://{host}/open",
                         "-H", "Host: origin.example").wait()  # fmt: skip
        assert done.rc != 0, done
    finally:
        lab.network.run("cloud", "ip", flag, "route", "del", pool)
    assert (status(lab)["requests"]["sessions"], len(lab.origin_log("/open"))) == before
