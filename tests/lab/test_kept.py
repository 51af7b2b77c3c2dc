"""Where a service manager keeps descriptors, the listening sockets outlive the daemon: who
connects while it is away waits in their backlog and is served by the next one.

    app --SYN--> XDP steer --> sk_lookup --> listening socket (kept by the manager)
                                                   ^
                              holdfastd, killed ---+--- holdfastd, started again
"""

import pytest

from harness import wait_until
from kernelside import Moved
from manager import Manager
from network import ORIGIN

KEPT = {f"holdfast-{part}{family}" for family in (4, 6)
        for part in ("PROXY_TCP", "DNS_UDP", "DNS_TCP", "API_TCP", "RELAY_UDP")}  # fmt: skip


@pytest.fixture
def managed(lab):
    lab.manager = Manager(lab.folder)
    yield lab
    lab.stop_daemon()
    lab.release()
    lab.manager.close()
    lab.manager = None


def kept(lab):
    return {name: descriptor for name, descriptor in lab.manager.kept}


def test_the_listening_sockets_are_kept_until_an_ordinary_stop(managed):
    lab = managed
    lab.start_daemon(fresh=True)
    wait_until("all are kept", lambda: set(lab.manager.names()) == KEPT)
    assert "READY" in lab.manager.said
    assert lab.stop_daemon() == 0
    wait_until("none is kept", lambda: not lab.manager.kept)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_connection_made_in_the_gap_is_served_by_the_next_daemon(managed, family):
    lab = managed
    lab.start_daemon(fresh=True)
    wait_until("all are kept", lambda: set(lab.manager.names()) == KEPT)
    before = kept(lab)
    refused = Moved(lab, reason="no-listener")
    lab.kill_daemon()
    host = f"[{ORIGIN[1]}]" if family else ORIGIN[0]
    waiting = [lab.curl_start("app", f"http://{host}/gap/{n}") for n in range(5)]
    waiting.append(lab.curl_start("device", f"http://{host}/gap/host"))
    wait_until("they wait in the backlog", lambda: backlog(lab, family) == len(waiting))
    lab.start_daemon()
    for client in waiting:
        assert client.wait(20).status == 200
    assert refused() == 0
    assert kept(lab) == before, "the same sockets, kept once"


def backlog(lab, family):
    """Connections that nobody has accepted, of the proxy's listener."""
    listener = "198.18.0.1" if not family else "[fd5a:fe00::1]"
    out = lab.network.run("device", "ss", "-Hltn")
    rows = [line.split() for line in out.splitlines()]
    return sum(int(row[1]) for row in rows
               if row[3].rsplit(":", 1)[0] == listener and row[3].rsplit(":", 1)[1] not in ("53", "80"))


def test_a_kept_socket_that_does_not_fit_is_made_anew(managed):
    lab = managed
    lab.start_daemon(fresh=True)
    wait_until("all are kept", lambda: set(lab.manager.names()) == KEPT)
    lab.kill_daemon()
    pool = {"virtual": {"ipv4": "198.19.0.0/16"}}
    lab.start_daemon({"dns": pool}, fresh=True)
    assert "does not fit" in lab.log()
    assert lab.curl("app", f"http://{ORIGIN[0]}/anew").status == 200
    wait_until("all are kept", lambda: set(lab.manager.names()) == KEPT)
