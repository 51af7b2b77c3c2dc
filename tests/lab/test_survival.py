"""The daemon goes and comes, its interfaces change their names, others want its place: nothing of
the apps leaves in between, and it works again afterwards.

    app, host: always sending           late0 <--> later0
        |                                  |
    steer, guard  <--- holdfastd: killed, started, replaced, stopped, refused
"""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import pytest

from harness import wait_until
from kernelside import Moved, ended, guard, privileged, programs, python_start, told, works
from network import LINKS, ORIGIN

SOON = 2.5

# Every way out, again and again: the ordinary one, and around the proxy. On the device the
# sockets are bound to a link's address.
SENDING = """
tell(["ready"])
addresses, bind, n = sys.argv[1].split(","), sys.argv[2].split(","), 0
while True:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for own in ("", *bind):
                if own and (":" in own) != (":" in address):
                    continue
                with socket.socket(family, kind) as s:
                    s.setblocking(False)
                    try:
                        if own:
                            s.bind((own, 0))
                        s.connect((address, 4444))
                        s.send(b"sent all the time")
                    except OSError:
                        pass
    n += 1
    tell(n)
    time.sleep(0.02)
"""


@contextlib.contextmanager
def everybody_sends(lab):
    """In the app and on the device; gives a function that waits until both went on."""
    bound = ",".join(LINKS["wifi"]["address"])
    senders = [python_start(lab, where, SENDING, ",".join(ORIGIN), own)
               for where, own in (("app", ""), ("device", bound))]  # fmt: skip

    def went_on():
        before = [len(told(sender)) for sender in senders]
        wait_until("both go on sending", lambda: all(
            len(told(sender)) >= count + 3 for sender, count in zip(senders, before)))  # fmt: skip

    try:
        yield went_on
    finally:
        for sender in senders:
            sender.kill()


def test_no_end_and_no_start_opens_a_hole(daemon, lab):
    """The accounts of the lab judge every frame on the links; see accounts.py."""
    daemon({"when_stopped": "block"})
    with everybody_sends(lab) as went_on:
        went_on()
        lab.kill_daemon()
        went_on()
        lab.start_daemon({"when_stopped": "block"})
        went_on()
        copy = lab.folder / "upgraded"
        shutil.copy(lab.holdfastd, copy)
        before, lab.holdfastd = lab.holdfastd, str(copy)
        try:
            assert lab.stop_daemon() == 0
            went_on()
            lab.start_daemon({"when_stopped": "block", "defaults": {"hold": "1s"}})
            went_on()
        finally:
            lab.holdfastd = before
        assert lab.count(hook="guard", reason="not-ours", verdict="drop") > 0
    works(lab)


@pytest.fixture
def late(daemon, lab):
    """A network of an app that is not in the lab's picture, on late0."""
    daemon({"apps": {"interfaces": ["app0", "late0"]}})
    net = lab.network
    net.veth("device", "late0", "app", "late1")
    net.address("device", "late0", "192.0.2.129", 28)
    net.address("app", "late1", "192.0.2.130", 28)
    net.run("app", "ip", "route", "add", f"{ORIGIN[0]}/32", "via", "192.0.2.129")
    wait_until("it is steered", lambda: programs(lab, "late0"), SOON)
    yield lab
    net.run("app", "ip", "link", "del", "late1")


def rename(lab, old, new):
    for change in (["down"], ["name", new], ["up"]):
        name = new if change == ["up"] else old
        lab.network.run("device", "ip", "link", "set", name, *change)


def test_an_interface_is_steered_while_it_has_the_name(late):
    lab = late
    rename(lab, "late0", "other0")
    wait_until("it is left alone", lambda: not programs(lab, "other0"), SOON)
    assert "interface detached: late0" in lab.log()
    rename(lab, "other0", "late0")
    wait_until("it is steered again", lambda: programs(lab, "late0"), SOON)
    moved = Moved(lab, interface="late0", verdict="steer", reason="tcp-proxy")
    wait_until("its app reaches the world", lambda: lab.curl(
        "app", f"http://{ORIGIN[0]}/again", "--max-time", "3").status == 200)  # fmt: skip
    assert moved() > 0
    works(lab)


def test_an_interface_that_was_down_is_steered_as_before(late):
    lab = late
    for change in ("down", "up"):
        lab.network.run("device", "ip", "link", "set", "late0", change)
    assert lab.curl("app", f"http://{ORIGIN[0]}/up", "--max-time", "5").status == 200
    assert programs(lab, "late0")


def test_a_link_is_guarded_while_it_has_the_name(daemon, lab):
    daemon()
    with lab.accounts.gap():
        rename(lab, "lte0", "spare0")
        wait_until("it is no link", lambda: "lte" not in lab.online())
        wait_until("it is let go", lambda: not guard(lab, "spare0"), SOON)
        assert "filter detached: spare0" in lab.log()
        rename(lab, "spare0", "lte0")
        wait_until("it is guarded", lambda: guard(lab, "lte0"), SOON)
        for address, prefix in zip(LINKS["lte"]["address"], LINKS["lte"]["prefix"]):
            lab.network.run("device", "ip", "addr", "replace", f"{address}/{prefix}", "dev",
                            "lte0", *(["nodad"] if ":" in address else []))  # fmt: skip
    for router, family in zip(LINKS["lte"]["router"], ("-4", "-6")):
        lab.network.run("device", "ip", family, "route", "replace", "default", "via", router,
                        "dev", "lte0", "metric", str(LINKS["lte"]["metric"]))  # fmt: skip
    lab.wait_links(online=["lte"])
    works(lab)


def refused(lab, where, config):
    """The log of a daemon that ends at once."""
    path, log = lab.folder / "second.json", lab.folder / "second.log"
    path.write_text(json.dumps(config))
    log.unlink(missing_ok=True)
    second = lab.spawn([*where, lab.holdfastd, "--config", str(path)], log)
    assert ended(second) == 1
    return log.read_text()


def other(lab, **more):
    """A configuration that touches nothing of the first daemon's."""
    return {"state_dir": str(lab.folder / "other"), "apps": {"host": False, "interfaces": []},
            "links": [], "api": {"listen": [f"unix:{lab.folder}/other.sock"]}, **more}  # fmt: skip


def test_a_second_daemon_in_the_namespace_is_told_who_is_in_the_way(daemon, lab):
    daemon()
    text = refused(lab, lab.network.enter("device"), other(lab))
    assert "another holdfastd works in this network namespace" in text, text
    works(lab)


def test_a_second_daemon_with_the_same_state_is_told_so(daemon, lab):
    daemon()
    text = refused(lab, ["unshare", "-n"], other(lab, state_dir=str(lab.folder / "state")))
    assert "another holdfastd uses it" in text and "/state" in text, text
    works(lab)


def test_a_daemon_in_another_namespace_works_beside_it(daemon, lab):
    daemon()
    path, log = lab.folder / "second.json", lab.folder / "beside.log"
    path.write_text(json.dumps(other(lab)))
    lo_up = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    second = lab.spawn([*lo_up, lab.holdfastd, "--config", str(path)], log)
    wait_until("it is ready", lambda: "ready" in log.read_text())
    works(lab)
    assert lab.end(second) == 0
    works(lab)


def test_where_lo_is_down_the_start_says_so(daemon, lab):
    text = refused(lab, ["unshare", "-n"], other(lab))
    assert "lo is down: ip link set lo up" in text, text


def test_whenever_it_is_killed_the_next_start_works(daemon, lab):
    seed = int(os.environ.get("SURVIVAL_SEED", time.time_ns() % 100000))
    print(f"SURVIVAL_SEED={seed}")
    chance = random.Random(seed)
    daemon()
    for _ in range(6):
        daemon_process = lab.daemon
        if chance.random() < 0.5:
            lab.accounts.stopping()  # the guard may be gone before the daemon is
            daemon_process.send_signal(signal.SIGTERM)
            time.sleep(chance.uniform(0, 0.05))
        lab.kill_daemon()
        enter = lab.witnessed("daemon", lab.network.enter("device"))
        begun = lab.spawn([*enter, lab.holdfastd, "--config", str(lab.config_file)],
                          lab.folder / "begun.log")  # fmt: skip
        time.sleep(chance.uniform(0, 0.3))
        lab.end(begun, signal.SIGKILL)
        lab.start_daemon()
        works(lab)
    assert lab.stop_daemon() == 0
    assert "lookup 7200" not in privileged(lab, "device", "ip", "rule")
