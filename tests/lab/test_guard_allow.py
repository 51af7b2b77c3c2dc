"""What the guard lets out beside the daemon's own: services that the configuration allows, and
users that are exempt.

    host: service on port 2222 <--- wifi0, lte0 [tc egress guard] <--- cloud: a visitor
    host: an exempt user      ----> wifi0       [tc egress guard] ---> origin
"""

import pytest

from kernelside import Moved, python, python_start
from network import LINKS, ORIGIN

FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])

SERVICE = """
def serve(family, address):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, 2222))
    s.listen()
    return s
servers = [serve(socket.AF_INET, "0.0.0.0"), serve(socket.AF_INET6, "::")]
tell(["ready"])
while True:
    for s in select.select(servers, [], [])[0]:
        c, _ = s.accept()
        c.sendall(b"hello")
        c.close()
"""
VISIT = """
try:
    with socket.create_connection((sys.argv[1], 2222), float(sys.argv[2])) as s:
        tell(s.recv(100).decode())
except TimeoutError:
    tell("nothing")
"""


@FAMILIES
@pytest.mark.parametrize("link", ["wifi", "lte"])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_service_on_a_link_answers_only_when_the_guard_allows_it(daemon, family, link, allowed):
    allow = [{"protocol": "tcp", "local_port": 2222}] if allowed else []
    lab = daemon({"guard": {"allow": allow}})
    service = python_start(lab, "device", SERVICE)
    let_out = Moved(lab, hook="guard", verdict="pass", reason="allowed-service")
    dropped = Moved(lab, hook="guard", verdict="drop", reason="not-ours")
    try:
        address = LINKS[link]["address"][family]
        got = python(lab, "cloud", VISIT, address, 3 if allowed else 0.7)
    finally:
        service.kill()
    assert got == ("hello" if allowed else "nothing")
    assert (let_out() > 0, dropped() > 0) == (allowed, not allowed)


@FAMILIES
def test_an_exempt_user_goes_its_ordinary_way_and_others_do_not(daemon, family):
    lab = daemon({"apps": {"exempt_uids": [65534]}})
    url = f"http://[{ORIGIN[1]}]" if family else f"http://{ORIGIN[0]}"
    out = Moved(lab, interface="wifi0", hook="guard", verdict="pass", reason="exempt-user")
    user = ["setpriv", "--reuid=65534", "--clear-groups"]
    done = lab.host(*user, "curl", "-sS", "-i", "--max-time", "5", f"{url}/exempt")
    assert "HTTP/1.1 200" in done.out and "1.1 holdfast" not in done.out, done
    assert out() > 0
    other = ["setpriv", "--reuid=65533", "--clear-groups"]
    done = lab.host(*other, "curl", "-sS", "-i", "--max-time", "5", f"{url}/other")
    assert "HTTP/1.1 200" in done.out and "1.1 holdfast" in done.out, done


FROM_PORT = """
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 2222))
s.settimeout(float(sys.argv[3]))
try:
    s.connect((sys.argv[2], 80))
    tell("connected")
except TimeoutError:
    tell("nothing")
"""


@pytest.mark.parametrize("allowed", [True, False])
def test_a_port_that_is_allowed_is_open_to_whoever_binds_it(daemon, allowed):
    """Not only to its service, and not only to answers: docs/security.md says so."""
    lab = daemon({"guard": {"allow": [{"protocol": "tcp", "local_port": 2222}] * allowed}})
    user = ["setpriv", "--reuid=65533", "--clear-groups"]
    got = python(lab, "device", FROM_PORT, LINKS["wifi"]["address"][0], ORIGIN[0],
                 3 if allowed else 0.7, who=user)  # fmt: skip
    assert got == ("connected" if allowed else "nothing")
