"""What others send through the device, as if it were a router: it forwards (ip_forward is on), and
nothing but Holdfast keeps it back.

    app eth0 192.0.2.2   ---> app0  [XDP steer] --x
        side1 192.0.2.130 --> side0 (not steered) --> wifi0 [tc egress guard] --x   wifi-gw

Through the interface that is not steered the guard is alone: each way is dropped, observed, and
let go without a guard. Through the steered one nothing even gets to the guard. The control is
the device without the daemon, where each way arrives over either interface.
"""

import pytest

from escapes import ADDRESS, APP_WAYS, arrived, run
from harness import wait_until
from kernelside import Moved

TRIES = [
    pytest.param(name, family, id=f"{name}-ipv{'46'[family]}")
    for name, way in APP_WAYS.items()
    for family in way.families
]


@pytest.fixture(scope="module")
def router(lab):
    """A second network between app and device, of which the configuration knows nothing."""
    net = lab.network
    net.veth("device", "side0", "app", "side1")
    for n, (here, bits) in enumerate((("192.0.2.129", 28), ("2001:db8:d::1", 64))):
        net.address("device", "side0", here, bits)
        net.address("app", "side1", ADDRESS["side1"][n], bits)
        net.run("app", "ip", ("-4", "-6")[n], "route", "add", "default", "via", here, "dev",
                "side1", "metric", "5000")  # fmt: skip
    return lab


@pytest.fixture(scope="module")
def guarded(router, request):
    """The device with the guard in a mode; None: without the daemon."""
    if not request.param:
        yield router, None
        return
    router.start_daemon({"guard": {"mode": request.param}}, fresh=True)
    yield router, request.param
    assert router.stop_daemon() == 0, router.log()
    router.release()


def in_modes(*modes):
    return pytest.mark.parametrize("guarded", modes, indirect=True)


@in_modes(None)
@pytest.mark.parametrize("name, family", TRIES)
@pytest.mark.parametrize("device", ["eth0", "side1"])
def test_without_the_daemon_it_arrives(guarded, name, family, device):
    lab, _ = guarded
    began = run(lab, "app", APP_WAYS[name], family, device)
    wait_until("it arrives", lambda: arrived(lab, began), timeout=3)


@in_modes("enforce", "observe", "off")
@pytest.mark.parametrize("name, family", TRIES)
def test_what_is_forwarded_past_steering_arrives_only_where_the_guard_lets_it(
    guarded, name, family
):
    (lab, mode), way = guarded, APP_WAYS[name]
    dropped = Moved(lab, interface="wifi0", hook="guard", verdict="drop", reason=way.reason)
    began = run(lab, "app", way, family, "side1")
    if mode == "enforce":
        wait_until("the guard has counted it", lambda: dropped() > 0, timeout=3)
        assert not arrived(lab, began)
    else:
        wait_until("it arrives", lambda: arrived(lab, began), timeout=3)
        assert (dropped() > 0) == (mode == "observe")


@in_modes("observe")  # so that what steering lets by arrives
@pytest.mark.parametrize("name, family", TRIES)
def test_of_a_steered_app_only_what_the_daemon_sends_arrives(guarded, name, family):
    (lab, _), way = guarded, APP_WAYS[name]
    met = Moved(lab, interface="app0", hook="steer")
    escaped = Moved(lab, hook="guard", verdict="drop")
    began = run(lab, "app", way, family, "eth0")
    wait_until("steering has met it", lambda: met() > 0, timeout=3)
    daemons = {flow for flow, _ in lab.accounts.witnesses.daemon.sent()}
    frames = arrived(lab, began)
    firsts = {frame.fragment: frame.flow for frame in frames if frame.fragment and frame.first}
    assert [frame for frame in frames
            if (frame.flow if frame.first else firsts.get(frame.fragment)) not in daemons] == []  # fmt: skip
    assert escaped() == 0
