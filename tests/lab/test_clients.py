"""Real clients of real servers, unmodified, each online, held through an outage, and cut in the
middle.

    app: curl, wget, ... ---- device ==wifi, lte== cloud: services.py

They all share one outage, and one cut: whoever is selected is started together.
"""

import re
import time

import pytest

import real_clients
from harness import wait_until
from hears import hears, offline, shared  # noqa: F401 (fixtures)
from services import Services

CONFIG = {"defaults": {"hold": "60s"}}
BOUND = 10  # seconds in which the end of a link is heard of
OUTAGE = 1  # seconds that all of them have to wait
EACH = pytest.mark.parametrize("name", real_clients.TABLE)


@pytest.fixture(scope="module")
def services(shared):
    services = Services(shared)
    services.up()
    return services


def make(services, name, situation):
    folder = services.folder / re.sub(r"\W+", "-", f"{situation} {name}".lower())
    return real_clients.make(name, services, folder)


def selected(request, test):
    """The clients that this run wants in a test."""
    items = [item for item in request.session.items if item.originalname == test.__name__]
    return [item.callspec.params["name"] for item in items]


@EACH
def test_online_a_client_works(hears, services, name):
    client = make(services, name, "online")
    client.answered(client.start(client.ask()).wait())


@pytest.fixture(scope="module")
def held(request, shared, services):
    """How they all end that began without a link, once there is one."""
    names = selected(request, test_held_a_client_notices_only_time)
    clients = {name: make(services, name, "held") for name in names}
    offline(shared)
    running = {name: client.start(client.ask()) for name, client in clients.items()}
    wait_until("all wait", lambda: sessions(shared) == len(running), 20)
    time.sleep(OUTAGE)
    assert [name for name, one in running.items() if not one.running()] == []
    shared.restore("wifi", "lte")
    return {name: (clients[name], one.wait()) for name, one in running.items()}


def sessions(lab):
    return lab.get("/v1/status")["requests"]["sessions"]


@EACH
def test_held_a_client_notices_only_time(held, hears, name):
    client, done = held[name]
    client.answered(done)


@pytest.fixture(scope="module")
def cut(request, shared, services):
    """How they all end whose links die under them. Those that do not carry on hear of it while
    there is no link yet; the others wait for one."""
    names = selected(request, test_cut_in_the_middle_a_client_breaks_off_or_carries_on)
    clients = {name: make(services, name, "cut") for name in names}
    running = {name: client.start(client.long()) for name, client in clients.items()}
    for name, client in clients.items():
        wait_until(f"{name} has begun", lambda: client.begun(running[name]), 20)
    offline(shared)
    ended = {name: running[name].wait(BOUND) for name in names if not clients[name].carries_on}
    for client in clients.values():
        client.while_cut()
    assert all(one.running() for name, one in running.items() if name not in ended)
    shared.restore("wifi", "lte")
    return {name: (clients[name], ended.get(name) or running[name].wait()) for name in names}


@EACH
def test_cut_in_the_middle_a_client_breaks_off_or_carries_on(cut, hears, name):
    client, done = cut[name]
    client.broken(done)
    client.came_back(client.start(client.again()).wait())
